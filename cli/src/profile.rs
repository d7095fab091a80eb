//! `shadegrad profile`: the kernels of a model's training steps.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use shadegrad::CrossEntropy;
use shadegrad::autograd::no_grad;
use shadegrad::data::synthetic::blobs;
use shadegrad::io::write_atomic;
use shadegrad::nn::{Arena, Builder, Cx};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::Images;
use shadegrad_models::{Spec, create};

use crate::devices;
use crate::failure::usage;
use crate::models;
use crate::report::{bytes, say, thousands};

#[derive(clap::Args)]
pub struct Args {
    /// Model; `shadegrad models` lists them.
    model: String,
    /// Height and width of the pictures, three channels, ten classes.
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// Samples of a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Steps that are measured, after two that are not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Only the forward pass, as in inference.
    #[arg(long)]
    forward: bool,
    /// Write every dispatch of the measured steps to this file, for chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Device by index or part of its name [default: the best]
    #[arg(long, value_name = "DEVICE")]
    adapter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    models::check(&args.model)?;
    for (name, value) in [("size", args.size), ("batch", args.batch), ("steps", args.steps)] {
        if value == 0 {
            return Err(usage(format!("--{name} 0: give at least 1")));
        }
    }
    let spec = Spec { height: args.size, width: args.size, channels: 3, classes: 10 };
    let mut builder = Builder::new();
    let model = create(&args.model, &mut builder.root(), &spec)?;
    let gpu = devices::open(args.adapter.as_deref())?;
    devices::announce(&gpu);
    ensure!(
        gpu.caps().timestamps,
        "this device measures no times (timestamp queries are missing or switched off); choose another with --adapter, \
         and look that SHADEGRAD_DISABLE does not name timestamps"
    );
    let arena = Arena::new(&gpu, &builder, 0)?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(5e-4))?;
    let data = blobs(args.batch.max(spec.classes), spec.classes, args.size, args.size, 3, 0)?;
    let images = Images::upload(&gpu, &data, &data.channel_stats()?)?;
    let indices: Vec<u32> = (0..args.batch as u32).collect();
    let mut step = |i: u64| -> Result<()> {
        let batch = images.plain(&indices)?;
        if args.forward {
            no_grad(|| model.forward(&Cx::eval(&arena), &batch.images))?;
            return Ok(());
        }
        let logits = model.forward(&Cx::train(&arena).seeded(0, i), &batch.images)?;
        arena.backward(&logits.cross_entropy(&batch.labels, CrossEntropy::default())?)?;
        Ok(optimizer.step(&arena, 1e-3)?)
    };
    step(0)?;
    step(1)?;
    gpu.wait()?;
    // First without the profiler, which gives every kernel a pass of its own.
    let (clock, before) = (Instant::now(), gpu.counters());
    for i in 0..args.steps {
        step(2 + i as u64)?;
    }
    gpu.wait()?;
    let seconds = clock.elapsed().as_secs_f64() / args.steps as f64;
    let after = gpu.counters();
    if args.trace.is_some() {
        gpu.start_trace()?;
    } else {
        gpu.start_profile()?;
    }
    for i in 0..args.steps {
        step(2 + (args.steps + i) as u64)?;
    }
    let profile = gpu.profile()?;
    say(format!(
        "{}: {} parameters, batch {} of {}x{}x3, {} steps",
        args.model,
        thousands(arena.table().numel()),
        args.batch,
        args.size,
        args.size,
        args.steps
    ));
    say(profile.to_string().trim_end());
    say(format!(
        "a step: {:.2} ms by the clock, {:.2} ms in kernels, {:.0} images/s, {} dispatches, {} submissions, at most {} of \
         device memory",
        1e3 * seconds,
        1e3 * profile.seconds() / args.steps as f64,
        args.batch as f64 / seconds,
        (after.dispatches - before.dispatches) / args.steps as u64,
        (after.submits - before.submits) / args.steps as u64,
        bytes(gpu.memory().peak)
    ));
    if let Some(path) = &args.trace {
        write_atomic(path, |file| profile.write_chrome(file))?;
        say(format!("{} events in {}: open it in chrome://tracing or Perfetto", profile.events.len(), path.display()));
    }
    Ok(())
}
