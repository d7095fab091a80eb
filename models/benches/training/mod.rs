//! Whole training steps by name: forward, loss, backward and optimiser on made-up images. `benches/steps.rs` times them, and
//! `benches/peers` compares other engines by the same.

use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::{CrossEntropy, Error, Gpu, Result, Surrogate, Tensor};
use shadegrad_models::papers::consensus_subnetwork::flops;
use shadegrad_models::papers::coswin::{LocalBranch, SwinBlock, SwinConfig};
use shadegrad_models::papers::iir_snn::{Ann, SpikingNet, VggPlan};
use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
use shadegrad_models::{Spec, create};

/// The steps that [`step`] knows.
pub const NAMES: [&str; 6] = ["resnet20", "resnet18", "vit_tiny", "spectformer_tiny", "swin_block", "lif_vgg"];

/// Images of a step: enough to fill the kernels, few enough for a processor.
pub fn batch(name: &str) -> usize {
    match name {
        "resnet20" => 16,
        "spectformer_tiny" => 32,
        "swin_block" | "lif_vgg" => 8,
        _ => 4,
    }
}

/// Timesteps of the spiking network.
pub const TIMESTEPS: usize = 4;
/// Tokens a side, their width and the heads of the block with windows of 4 tokens, moved by 2.
pub const SWIN: [usize; 3] = [16, 96, 3];

/// One training step, again and again.
pub struct Step {
    /// Floating-point operations of its convolutions and linear layers: three times those of the forward pass.
    pub flop: f64,
    run: Box<dyn FnMut() -> Result<()>>,
}

impl Step {
    /// Takes the step; the device may still be at work afterwards.
    pub fn run(&mut self) -> Result<()> {
        (self.run)()
    }
}

/// The step of the network `name` on images of CIFAR's size; of `swin_block`, one block on a grid of tokens.
pub fn step(gpu: &Gpu, name: &str) -> Result<Step> {
    let spec = Spec::cifar10();
    match name {
        "resnet20" | "resnet18" | "vit_tiny" => built(gpu, name, |scope| create(name, scope, &spec)),
        "spectformer_tiny" => {
            let config = SpectFormerConfig::tiny(&spec);
            built(gpu, name, |scope| Ok(Box::new(SpectFormer::new(scope, &config)?)))
        }
        "swin_block" => {
            let [side, dim, heads] = SWIN;
            let config = SwinConfig { window: 4, local: LocalBranch::None, ..SwinConfig::swin(&spec) };
            built(gpu, name, |scope| Ok(Box::new(SwinBlock::new(scope, &config, (dim, side, heads), true, 0.0)?)))
        }
        "lif_vgg" => {
            let mut builder = Builder::new();
            let ann = Ann::vgg(&mut builder.root(), &VggPlan::small(), &spec)?;
            let net = SpikingNet::from_ann(&ann, &Arena::new(gpu, &builder, 0)?, Surrogate::Linear { gamma: 0.3 })?;
            let macs: u64 = net.macs([spec.height, spec.width, spec.channels])?.iter().sum();
            let forward = 2.0 * (macs as usize * TIMESTEPS * batch(name)) as f64;
            let arena = net.arena().fork()?;
            repeated(gpu, name, forward, arena, Box::new(move |cx, x| net.at(TIMESTEPS).forward(cx, x)))
        }
        _ => Err(Error::value("step", format!("`{name}` is none of {}", NAMES.join(", ")))),
    }
}

type Forward = Box<dyn Fn(&Cx, &Tensor) -> Result<Tensor>>;

fn built(gpu: &Gpu, name: &str, make: impl FnOnce(&mut Scope<'_>) -> Result<Box<dyn Module>>) -> Result<Step> {
    let mut builder = Builder::new();
    let model = make(&mut builder.root())?;
    let arena = Arena::new(gpu, &builder, 0)?;
    let forward =
        flops(&model, &Cx::eval(&arena), &input(gpu, name)?)?.iter().map(|(_, n)| n * batch(name) as f64).sum();
    repeated(gpu, name, forward, arena, Box::new(move |cx, x| model.forward(cx, x)))
}

fn input(gpu: &Gpu, name: &str) -> Result<Tensor> {
    let [side, dim, _] = SWIN;
    let shape = if name == "swin_block" { [batch(name), side, side, dim] } else { [batch(name), 32, 32, 3] };
    Tensor::uniform(gpu, &shape, Stream::new(0, 0), -1.0, 1.0)
}

fn repeated(gpu: &Gpu, name: &str, forward_flop: f64, arena: Arena, forward: Forward) -> Result<Step> {
    let x = input(gpu, name)?;
    let labels = Tensor::from_u32(gpu, &[3].repeat(batch(name)), &[batch(name)])?;
    // The convolutional networks by SGD with momentum, the others by AdamW.
    let (rule, rate) = match name {
        "resnet20" | "resnet18" | "lif_vgg" => (Rule::sgd(5e-4), 0.01),
        _ => (Rule::adamw(0.05), 1e-3),
    };
    let mut optimizer = Optimizer::new(&arena, rule)?;
    let block = name == "swin_block";
    let mut count = 0;
    let run = move || {
        let cx = Cx::train(&arena).seeded(0, count);
        count += 1;
        let loss = if block {
            // Within a network its input needs a gradient, too.
            forward(&cx, &x.leaf())?.square()?.mean_all()?
        } else {
            forward(&cx, &x)?.cross_entropy(&labels, CrossEntropy::default())?
        };
        arena.backward(&loss)?;
        optimizer.step(&arena, rate)
    };
    Ok(Step { flop: 3.0 * forward_flop, run: Box::new(run) })
}
