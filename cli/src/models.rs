//! `shadegrad models`.

use anyhow::Result;
use shadegrad_models::{Spec, names, parameter_count};

use shadegrad::did_you_mean;

use crate::failure::usage;
use crate::report::{say, thousands};

#[derive(clap::Args)]
pub struct Args {
    /// A JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

/// Refuses a model that does not exist.
pub fn check(name: &str) -> Result<()> {
    let known: Vec<&str> = names().map(|m| m.0).collect();
    if known.contains(&name) {
        return Ok(());
    }
    Err(usage(format!("no model is called `{name}`{}. There are {}", did_you_mean(name, &known), known.join(", "))))
}

/// The pictures that a model is usually meant for, and what they are called.
fn usual(name: &str) -> (Spec, &'static str) {
    let large = ["resnet18", "resnet34", "resnet50", "wide_resnet50_2", "vit_tiny", "vit_small", "vit_base"];
    if large.contains(&name) || name.starts_with("vgg") {
        (Spec::imagenet(), "224x224x3, 1000 classes")
    } else {
        (Spec::cifar10(), "32x32x3, 10 classes")
    }
}

pub fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for (name, about) in names() {
        let (spec, pictures) = usual(name);
        rows.push((name, about, pictures, parameter_count(name, &spec)?));
    }
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, about, pictures, count)| {
                serde_json::json!({ "name": name, "about": about, "pictures": pictures, "parameters": count })
            })
            .collect();
        say(serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    say(format!("{:<12} {:>11}  {:<24} {}", "model", "parameters", "counted for", "what it is"));
    for (name, about, pictures, count) in rows {
        say(format!("{name:<12} {:>11}  {pictures:<24} {about}", thousands(count)));
    }
    Ok(())
}
