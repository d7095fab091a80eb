//! `shadegrad devices`, and opening the one to be used.

use std::io::Write as _;

use shadegrad::kernels::AdapterDescription;
use shadegrad::{Class, Gpu, Options};

use crate::report::say;

#[derive(clap::Args)]
pub struct Args {
    /// A JSON array instead of lines.
    #[arg(long)]
    json: bool,
    /// Search OpenGL devices, too.
    #[arg(long)]
    gl: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let all = Gpu::list(args.gl || Options::from_env()?.gl);
    let mut out = std::io::stdout().lock();
    if args.json {
        let rows: Vec<_> = all.iter().map(json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    for adapter in &all {
        writeln!(out, "{}: {adapter}", adapter.index)?;
    }
    anyhow::ensure!(!all.is_empty(), "no device found. {}", Gpu::driver_remedy());
    Ok(())
}

pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Discrete => "discrete",
        Class::Integrated => "integrated",
        Class::Software => "software",
    }
}

/// What is known of a device, as JSON.
pub fn json(d: &AdapterDescription) -> serde_json::Value {
    serde_json::json!({
        "index": d.index,
        "name": d.name,
        "backend": d.backend,
        "driver": d.driver,
        "class": class_name(d.class),
        "subgroups": d.subgroups.map(|(least, most)| [least, most]),
        "f16": d.f16,
        "timestamps": d.timestamps,
        "max_binding_bytes": d.max_binding,
    })
}

/// Opens the device that the environment and `adapter`, which goes before it, ask for.
pub fn open(adapter: Option<&str>) -> anyhow::Result<Gpu> {
    let mut options = Options::from_env()?;
    if let Some(adapter) = adapter {
        options.adapter = Some(adapter.to_string());
    }
    Ok(Gpu::new(options)?)
}

/// Says which device is used, and warns if it is the processor.
pub fn announce(gpu: &Gpu) {
    say(format!("device: {}", gpu.description()));
    if gpu.description().class == Class::Software {
        say("warning: this is a software driver, which computes on the processor: everything works, slowly");
    }
}
