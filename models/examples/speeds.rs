//! Speed of the papers' networks, and of spectral gates, by processor time: `cargo run --release -p shadegrad-models
//! --example speeds`.
//!
//! By the clock on a shared machine such figures do not repeat. With `SHADEGRAD_DISABLE=immediates` the same for devices
//! without immediates. Arguments choose what is measured: `models`, `gates`; both without any.

use cpu_time::ProcessTime;
use shadegrad::autograd::{GradOptions, grad_with, no_grad};
use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::{CrossEntropy, Gpu, Options, Result, Surrogate, Tensor};
use shadegrad_models::Spec;
use shadegrad_models::papers::coswin::{LocalBranch, Swin, SwinConfig};
use shadegrad_models::papers::eeea_net::{CellNet, Genotype, NetCfg, mac_count};
use shadegrad_models::papers::iir_snn::{Ann, SpikingNet, VggPlan};
use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};

/// Processor seconds of one call: the least of three rounds, since other work on the machine only adds.
fn measure(gpu: &Gpu, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    // The first calls compile and fill the caches.
    for _ in 0..2 {
        call()?;
        gpu.wait()?;
    }
    let start = ProcessTime::now();
    call()?;
    gpu.wait()?;
    let calls = (0.3 / start.elapsed().as_secs_f64().max(1e-4)).clamp(1.0, 1000.0) as usize;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let start = ProcessTime::now();
        for _ in 0..calls {
            call()?;
        }
        gpu.wait()?;
        least = least.min(start.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(least)
}

/// Images of a step.
const BATCH: usize = 64;

/// Prints the speed of `model`, which has `macs` multiply-adds for an image, on CIFAR-sized images.
fn speed(gpu: &Gpu, name: &str, macs: u64, model: &dyn Module, arena: &Arena) -> Result<()> {
    let x = Tensor::uniform(gpu, &[BATCH, 32, 32, 3], Stream::new(0, 0), -1.0, 1.0)?;
    let labels = Tensor::from_u32(gpu, &[3; BATCH], &[BATCH])?;
    let mut optimizer = Optimizer::new(arena, Rule::adamw(0.05))?.clip_norm(1.0);
    let mut step = 0;
    let training = measure(gpu, || {
        let logits = model.forward(&Cx::train(arena).seeded(0, step), &x)?;
        arena.backward(&logits.cross_entropy(&labels, CrossEntropy::default())?)?;
        step += 1;
        optimizer.step(arena, 1e-3)
    })?;
    let inference = measure(gpu, || no_grad(|| model.forward(&Cx::eval(arena), &x)).map(|_| ()))?;
    let (training, inference) = (BATCH as f64 / training, BATCH as f64 / inference);
    // A step costs about three forward passes.
    let giga = 2e-9 * macs as f64;
    println!(
        "{name:<26} {:>10.2} {training:>10.1} {:>9.1} {inference:>10.1} {:>9.1}",
        macs as f64 / 1e6,
        3.0 * giga * training,
        giga * inference
    );
    Ok(())
}

fn models(gpu: &Gpu) -> Result<()> {
    let spec = Spec::cifar10();
    println!(
        "{:<26} {:>10} {:>10} {:>9} {:>10} {:>9}",
        "network", "MMAC/image", "train im/s", "GFLOP/s", "infer im/s", "GFLOP/s"
    );
    for pattern in ["aaaa", "ssaa", "ssss"] {
        let config = SpectFormerConfig::tiny(&spec).with_pattern(pattern.parse()?);
        let mut builder = Builder::new();
        let model = SpectFormer::new(&mut builder.root(), &config)?;
        let arena = Arena::new(gpu, &builder, 0)?;
        speed(gpu, &format!("SpectFormer tiny {pattern}"), model.macs(), &model, &arena)?;
    }
    let small = SwinConfig { patch: 4, embed: 24, depths: vec![2, 2], heads: vec![2, 4], ..SwinConfig::coswin(&spec) };
    let plain = SwinConfig { local: LocalBranch::None, ..small.clone() };
    for (name, config) in [("Swin small", plain), ("CoSwin small", small)] {
        let mut builder = Builder::new();
        let model = Swin::new(&mut builder.root(), &config)?;
        let arena = Arena::new(gpu, &builder, 0)?;
        speed(gpu, name, config.macs()?, &model, &arena)?;
    }
    let cell = Genotype::published("EEEA_A")?;
    let cfg = NetCfg { c0: 16, layers: 8, aux: false, ..NetCfg::full(10) };
    let mut builder = Builder::new();
    let model = CellNet::new(&mut builder.root(), &cell, cfg)?;
    let mut arena = Arena::new(gpu, &builder, 0)?;
    // A cell may leave a state unread, whose parameters then get no gradient.
    arena.allow_missing("cells.*");
    speed(gpu, "EEEA_A, 16 channels", mac_count(&cell, &cfg, (32, 32))?, &model, &arena)?;
    let mut builder = Builder::new();
    let ann = Ann::vgg(&mut builder.root(), &VggPlan::small(), &spec)?;
    let arena = Arena::new(gpu, &builder, 0)?;
    let spiking = SpikingNet::from_ann(&ann, &arena, Surrogate::Linear { gamma: 0.3 })?;
    let macs: u64 = spiking.macs([32, 32, 3])?.iter().sum();
    speed(gpu, "small VGG", macs, &ann, &arena)?;
    for timesteps in [1, 5] {
        let name = format!("the same spiking, T = {timesteps}");
        speed(gpu, &name, macs * timesteps as u64, &spiking.at(timesteps), spiking.arena())?;
    }
    Ok(())
}

fn gates(gpu: &Gpu) -> Result<()> {
    const CHANNELS: usize = 64;
    println!("{:<8} {:>7} {:>16} {:>16}", "grid", "batch", "forward", "backward");
    for (h, w) in [(4, 4), (7, 7), (8, 8), (14, 14), (16, 16), (14, 16), (28, 28), (32, 32), (56, 56), (64, 64)] {
        let n = (32 * 32 / (h * w)).clamp(4, 64);
        let shape = [n, h, w, CHANNELS];
        let x = Tensor::uniform(gpu, &shape, Stream::new(0, 1), -1.0, 1.0)?.leaf();
        let g = Tensor::uniform(gpu, &shape, Stream::new(0, 2), -1.0, 1.0)?;
        let k = Tensor::uniform(gpu, &[h, w / 2 + 1, CHANNELS, 2], Stream::new(0, 3), -1.0, 1.0)?.leaf();
        let forward = measure(gpu, || no_grad(|| x.spectral_filter(&k)).map(|_| ()))?;
        let both = measure(gpu, || {
            let y = x.spectral_filter(&k)?;
            grad_with(&[&y], &[&x, &k], Some(&[&g]), GradOptions::default()).map(|_| ())
        })?;
        // In nanoseconds for an element of the images.
        let each = 1e9 / (n * h * w * CHANNELS) as f64;
        println!(
            "{:<8} {n:>7} {:>10.2} ns/el {:>10.2} ns/el",
            format!("{h}x{w}"),
            forward * each,
            (both - forward) * each
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let gpu = Gpu::new(Options { checked: Some(false), ..Options::from_env()? })?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    println!("by processor time on {}", gpu.description().name);
    if chosen("models") {
        models(&gpu)?;
    }
    if chosen("gates") {
        gates(&gpu)?;
    }
    Ok(())
}
