//! The networks of `models/benches/training` as a user of burn would write them: burn's own layers, its transformer and its
//! Fourier transforms.

use burn::module::{Initializer, Module, Param};
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::signal::{cfft, irfft, rfft};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Distribution, Int, Tensor};

use crate::training::{SWIN, TIMESTEPS, batch};
use crate::windows::SwinBlock;

/// The device that shadegrad would take, too: the first one.
pub fn device() -> Device {
    #[cfg(feature = "vulkan")]
    let device = Device::vulkan(Default::default());
    #[cfg(not(feature = "vulkan"))]
    let device = Device::wgpu(Default::default());
    device
}

/// The training step of the network `name` on made-up images.
pub fn step(name: &str, device: &Device) -> Box<dyn FnMut()> {
    let device = device.clone().autodiff();
    let n = batch(name);
    let image = Tensor::<4>::random([n, 3, 32, 32], Distribution::Uniform(-1.0, 1.0), &device);
    match name {
        "resnet20" => classified(name, ResNet::cifar(&device), move |m| m.forward(image.clone()), &device),
        "resnet18" => classified(name, ResNet::eighteen(&device), move |m| m.forward(image.clone()), &device),
        "vit_tiny" => classified(name, Vit::new(&device), move |m| m.forward(image.clone()), &device),
        "spectformer_tiny" => classified(name, SpectFormer::new(&device), move |m| m.forward(image.clone()), &device),
        "lif_vgg" => classified(name, SpikingVgg::new(&device), move |m| m.forward(image.clone()), &device),
        "swin_block" => {
            let [side, dim, heads] = SWIN;
            let x = Tensor::<4>::random([n, side, side, dim], Distribution::Uniform(-1.0, 1.0), &device);
            let block = SwinBlock::new(dim, side, heads, &device);
            repeated(name, block, move |m| m.forward(x.clone().require_grad()).powi_scalar(2).mean())
        }
        _ => unreachable!("checked by the caller"),
    }
}

fn classified<M: Module + 'static>(
    name: &str,
    model: M,
    forward: impl Fn(&M) -> Tensor<2> + 'static,
    device: &Device,
) -> Box<dyn FnMut()> {
    let labels = Tensor::<1, Int>::full([batch(name)], 3, device);
    let loss = CrossEntropyLossConfig::new().init(device);
    repeated(name, model, move |m| loss.forward(forward(m), labels.clone()))
}

fn repeated<M: Module + 'static>(name: &str, model: M, loss: impl Fn(&M) -> Tensor<1> + 'static) -> Box<dyn FnMut()> {
    let (mut optimizer, rate): (ModuleOptimizer, f64) = match name {
        "resnet20" | "resnet18" | "lif_vgg" => {
            let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
            let decay = WeightDecayConfig::new(5e-4);
            (SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).init(), 0.01)
        }
        _ => (AdamWConfig::new().with_weight_decay(0.05).init(), 1e-3),
    };
    let mut model = Some(model);
    Box::new(move || {
        if let Some(m) = model.take() {
            let grads = GradientsParams::from_grads(loss(&m).backward(), &m);
            model = Some(optimizer.step(rate, m, grads));
        }
    })
}

fn conv(channels: [usize; 2], kernel: usize, stride: usize, padding: usize, bias: bool, device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, [kernel; 2])
        .with_stride([stride; 2])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .with_bias(bias)
        .init(device)
}

#[derive(Module, Debug)]
struct ResidualBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    shortcut: Option<(Conv2d, BatchNorm)>,
    stride: usize,
    widen: usize,
}

impl ResidualBlock {
    /// With a projection as shortcut, or one without parameters (every second pixel, new channels zero).
    fn new(from: usize, to: usize, stride: usize, projection: bool, device: &Device) -> Self {
        let changes = stride > 1 || from != to;
        let shortcut = (projection && changes)
            .then(|| (conv([from, to], 1, stride, 0, false, device), BatchNormConfig::new(to).init(device)));
        Self {
            conv1: conv([from, to], 3, stride, 1, false, device),
            bn1: BatchNormConfig::new(to).init(device),
            conv2: conv([to, to], 3, 1, 1, false, device),
            bn2: BatchNormConfig::new(to).init(device),
            shortcut,
            stride,
            widen: (to - from) / 2,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = self.bn2.forward(self.conv2.forward(y));
        let shortcut = match &self.shortcut {
            Some((conv, norm)) => norm.forward(conv.forward(x)),
            None if self.widen > 0 => {
                let [n, c, h, w] = x.dims();
                let s = self.stride;
                // Every second pixel: the first of each square.
                let x = x.reshape([n * c, h / s, s, w / s, s].map(|d| d as i32));
                let x = x.narrow(2, 0, 1).narrow(4, 0, 1).reshape([n, c, h / s, w / s]);
                let zeros = Tensor::zeros([n, self.widen, h / s, w / s], &x.device());
                Tensor::cat(vec![zeros.clone(), x, zeros], 1)
            }
            None => x,
        };
        relu(y + shortcut)
    }
}

#[derive(Module, Debug)]
struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<ResidualBlock>,
    head: Linear,
}

impl ResNet {
    fn of(stages: &[(usize, usize)], projection: bool, device: &Device) -> Self {
        let first = stages[0].0;
        let (mut blocks, mut channels) = (Vec::new(), first);
        for (stage, &(width, count)) in stages.iter().enumerate() {
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(ResidualBlock::new(channels, width, stride, projection, device));
                channels = width;
            }
        }
        Self {
            conv1: conv([3, first], 3, 1, 1, false, device),
            bn1: BatchNormConfig::new(first).init(device),
            blocks,
            head: LinearConfig::new(channels, 10).init(device),
        }
    }

    fn cifar(device: &Device) -> Self {
        Self::of(&[(16, 3), (32, 3), (64, 3)], false, device)
    }

    fn eighteen(device: &Device) -> Self {
        Self::of(&[(64, 2), (128, 2), (256, 2), (512, 2)], true, device)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.bn1.forward(self.conv1.forward(x)));
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.head.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

/// Images to tokens `[batch, tokens, width]`.
fn tokens(embed: &Conv2d, x: Tensor<4>) -> Tensor<3> {
    embed.forward(x).flatten::<3>(2, 3).swap_dims(1, 2)
}

#[derive(Module, Debug)]
struct Vit {
    embed: Conv2d,
    class: Param<Tensor<3>>,
    positions: Param<Tensor<3>>,
    encoder: TransformerEncoder,
    norm: LayerNorm,
    head: Linear,
}

impl Vit {
    fn new(device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        Self {
            embed: conv([3, 192], 4, 4, 0, true, device),
            class: normal.init([1, 1, 192], device),
            positions: normal.init([1, 65, 192], device),
            encoder: TransformerEncoderConfig::new(192, 768, 3, 12)
                .with_norm_first(true)
                .with_dropout(0.0)
                .init(device),
            norm: LayerNormConfig::new(192).init(device),
            head: LinearConfig::new(192, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let n = x.dims()[0];
        let x = tokens(&self.embed, x);
        let class = self.class.val().expand([n, 1, 192]);
        let x = Tensor::cat(vec![class, x], 1) + self.positions.val();
        let x = self.norm.forward(self.encoder.forward(TransformerEncoderInput::new(x)));
        self.head.forward(x.narrow(1, 0, 1).flatten(1, 2))
    }
}

#[derive(Module, Debug)]
struct SpectFormer {
    embed: Conv2d,
    positions: Param<Tensor<3>>,
    spectral: Vec<Spectral>,
    attention: Vec<Attention>,
    norm: LayerNorm,
    head: Linear,
}

#[derive(Module, Debug)]
struct Spectral {
    norm1: LayerNorm,
    re: Param<Tensor<3>>,
    im: Param<Tensor<3>>,
    norm2: LayerNorm,
    mlp: (Linear, Linear),
}

#[derive(Module, Debug)]
struct Attention {
    norm1: LayerNorm,
    attention: MultiHeadAttention,
    norm2: LayerNorm,
    mlp: (Linear, Linear),
}

fn mlp(dim: usize, hidden: usize, device: &Device) -> (Linear, Linear) {
    (LinearConfig::new(dim, hidden).init(device), LinearConfig::new(hidden, dim).init(device))
}

const SIDE: usize = 8;
const WIDTH: usize = 64;

impl Spectral {
    fn new(device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        Self {
            norm1: LayerNormConfig::new(WIDTH).init(device),
            re: normal.init([SIDE, SIDE / 2 + 1, WIDTH], device),
            im: normal.init([SIDE, SIDE / 2 + 1, WIDTH], device),
            norm2: LayerNormConfig::new(WIDTH).init(device),
            mlp: mlp(WIDTH, 4 * WIDTH, device),
        }
    }

    /// One residual around the filter and the MLP.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let n = x.dims()[0];
        let y = self.norm1.forward(x.clone()).reshape([n, SIDE, SIDE, WIDTH]);
        let (re, im) = rfft(y, 2, None);
        let (re, im) = cfft(re, im, 1, None);
        let (kr, ki) = (self.re.val().unsqueeze::<4>(), self.im.val().unsqueeze::<4>());
        let (yr, yi) = (re.clone() * kr.clone() - im.clone() * ki.clone(), re * ki + im * kr);
        // The inverse along the rows: the transform of the conjugate, conjugated, over the length.
        let (yr, yi) = cfft(yr, -yi, 1, None);
        let y = irfft(yr / SIDE as f32, -yi / SIDE as f32, 2, None).reshape([n, SIDE * SIDE, WIDTH]);
        let y = self.mlp.1.forward(gelu(self.mlp.0.forward(self.norm2.forward(y))));
        x + y
    }
}

impl Attention {
    fn new(device: &Device) -> Self {
        Self {
            norm1: LayerNormConfig::new(WIDTH).init(device),
            attention: MultiHeadAttentionConfig::new(WIDTH, 4).with_dropout(0.0).init(device),
            norm2: LayerNormConfig::new(WIDTH).init(device),
            mlp: mlp(WIDTH, 4 * WIDTH, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.attention.forward(MhaInput::self_attn(self.norm1.forward(x.clone()))).context;
        let x = x + y;
        let y = self.mlp.1.forward(gelu(self.mlp.0.forward(self.norm2.forward(x.clone()))));
        x + y
    }
}

impl SpectFormer {
    fn new(device: &Device) -> Self {
        Self {
            embed: conv([3, WIDTH], 4, 4, 0, true, device),
            positions: Initializer::Normal { mean: 0.0, std: 0.02 }.init([1, SIDE * SIDE, WIDTH], device),
            spectral: (0..2).map(|_| Spectral::new(device)).collect(),
            attention: (0..2).map(|_| Attention::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = tokens(&self.embed, x) + self.positions.val();
        for block in &self.spectral {
            x = block.forward(x);
        }
        for block in &self.attention {
            x = block.forward(x);
        }
        self.head.forward(self.norm.forward(x).mean_dim(1).flatten(1, 2))
    }
}

/// Leaky integrate-and-fire neurons with a learned threshold and leak.
#[derive(Module, Debug)]
struct Lif {
    threshold: Param<Tensor<1>>,
    leak: Param<Tensor<1>>,
}

impl Lif {
    fn new(device: &Device) -> Self {
        let ones = Initializer::Ones;
        Self { threshold: ones.init([1], device), leak: ones.init([1], device) }
    }

    /// Spikes for the currents of each timestep.
    fn forward(&self, currents: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
        let (v, leak) = (self.threshold.val().unsqueeze::<4>(), self.leak.val().unsqueeze::<4>());
        let mut membrane: Option<Tensor<4>> = None;
        currents
            .into_iter()
            .map(|current| {
                let u = match membrane.take() {
                    Some(m) => m * leak.clone() + current,
                    None => current,
                };
                let z = u.clone() / v.clone() - 1.0;
                // The linear surrogate 0.3 max(0, 1 - |z|) is the derivative of this; its value is taken out again.
                let inside = z.clone().clamp(-1.0, 1.0);
                let soft = (inside.clone() - inside.clone() * inside.abs() * 0.5) * 0.3;
                let hard = z.greater_scalar(0.0).float();
                let spikes = (hard.clone() - soft.clone()).detach() + soft;
                // Backward, the spike in the reset is a constant.
                membrane = Some(u - v.clone() * hard.detach());
                spikes
            })
            .collect()
    }
}

#[derive(Module, Debug)]
struct SpikingVgg {
    convs: Vec<Conv2d>,
    neurons: Vec<Lif>,
    pool: AvgPool2d,
    hidden: Linear,
    hidden_neurons: Lif,
    head: Linear,
}

impl SpikingVgg {
    fn new(device: &Device) -> Self {
        let widths = [3, 16, 16, 32, 32, 64, 64];
        Self {
            convs: widths.windows(2).map(|w| conv([w[0], w[1]], 3, 1, 1, true, device)).collect(),
            neurons: (0..6).map(|_| Lif::new(device)).collect(),
            pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(64 * 8 * 8, 128).init(device),
            hidden_neurons: Lif::new(device),
            head: LinearConfig::new(128, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let n = x.dims()[0];
        // The image is the same at every timestep: its convolution is done once.
        let mut spikes = self.neurons[0].forward(vec![self.convs[0].forward(x); TIMESTEPS]);
        for (i, (conv, neurons)) in self.convs.iter().zip(&self.neurons).enumerate().skip(1) {
            let all = conv.forward(Tensor::cat(spikes, 0));
            spikes = neurons.forward(all.chunk(TIMESTEPS, 0));
            if i == 1 || i == 3 {
                spikes = self.pool.forward(Tensor::cat(spikes, 0)).chunk(TIMESTEPS, 0);
            }
        }
        let flat = Tensor::cat(spikes, 0).flatten::<2>(1, 3);
        let currents = self.hidden.forward(flat).reshape([TIMESTEPS * n, 128, 1, 1]);
        let spikes = self.hidden_neurons.forward(currents.chunk(TIMESTEPS, 0));
        let logits = self.head.forward(Tensor::cat(spikes, 0).flatten::<2>(1, 3));
        logits.reshape([TIMESTEPS, n, 10]).sum_dim(0).flatten(0, 1)
    }
}
