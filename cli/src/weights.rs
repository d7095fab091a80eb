//! `shadegrad weights`, and starting from weights.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use shadegrad::io::{LoadOptions, Saved, Weights};
use shadegrad::nn::Arena;
use shadegrad_models::weights::canonical;

use crate::report::{bytes, say, thousands};
use crate::resume;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Write the weights of a run, or of a file that is read, as safetensors with PyTorch's names and layouts.
    Export(Export),
    /// List the tensors of a file: safetensors, a checkpoint, or a state dictionary of PyTorch (.pt, .pth).
    Inspect(Inspect),
}

#[derive(clap::Args)]
pub struct Export {
    /// The folder of a run, or a file with weights
    #[arg(value_name = "RUN|FILE")]
    source: PathBuf,
    /// File to write; one that is there is replaced
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// For a run, the checkpoint: `last`, `previous`, `best`, or a step
    #[arg(long, value_name = "WHICH", default_value = "last")]
    from: String,
}

#[derive(clap::Args)]
pub struct Inspect {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Export(args) => export(args),
        Command::Inspect(args) => inspect(args),
    }
}

fn total(tensors: &[Saved]) -> usize {
    tensors.iter().map(Saved::numel).sum()
}

fn export(args: &Export) -> Result<()> {
    let (weights, from) = if args.source.is_dir() {
        let from = resume::find(&args.source, &args.from)?;
        (from.checkpoint.weights(), from.path)
    } else {
        (canonical(Weights::open(&args.source)?)?.weights_only(), args.source.clone())
    };
    weights.save(&args.out)?;
    let (count, numbers) = (weights.tensors().len(), thousands(total(weights.tensors())));
    say(format!("{}: {count} tensors, {numbers} numbers, from {}", args.out.display(), from.display()));
    Ok(())
}

fn inspect(args: &Inspect) -> Result<()> {
    let file = Weights::open(&args.file)?;
    if args.json {
        let tensors: Vec<_> = (file.tensors().iter())
            .map(|t| json!({ "name": t.name(), "type": t.dtype().name(), "shape": t.shape() }))
            .collect();
        say(serde_json::to_string_pretty(&json!({ "tensors": tensors, "notes": file.meta() }))?);
        return Ok(());
    }
    let width = file.tensors().iter().map(|t| t.name().chars().count()).max().unwrap_or(0).min(60);
    for t in file.tensors() {
        say(format!("{:<width$}  {:<4}  {:?}", clean(t.name()), t.dtype().name(), t.shape()));
    }
    for (key, value) in file.meta() {
        say(format!("note {}: {}", clean(key), clean(value)));
    }
    let size: usize = file.tensors().iter().map(|t| t.numel() * t.dtype().size()).sum();
    let (count, numbers) = (file.tensors().len(), thousands(total(file.tensors())));
    say(format!("{count} tensors, {numbers} numbers, {}", bytes(size as u64)));
    Ok(())
}

/// A file's text without what could steer a terminal, and not longer than a few lines.
fn clean(text: &str) -> String {
    let short: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(200).is_some() { short + " .." } else { short }
}

/// Sets a new run's parameters from a file.
pub fn start_from(path: &Path, allow: &[String], arena: &Arena) -> Result<()> {
    let weights = canonical(Weights::open(path)?)?.weights_only();
    let loaded = weights.load_into(arena, &LoadOptions { allow: allow.to_vec() });
    let loaded = loaded.context("--weights; other names can be let through with --weights-allow")?;
    say(format!("weights: {} tensors of {}", loaded.set, path.display()));
    if !loaded.left.is_empty() {
        say(format!("left as they were: {}", clean(&loaded.left.join(", "))));
    }
    Ok(())
}
