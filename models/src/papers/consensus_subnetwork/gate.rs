//! Binary gates: the step with a straight-through gradient, and the small module that decides from what a unit reads.

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Cx, Fan, Init, ParamId, Scope};
use shadegrad::{Error, Result, Tensor};

/// What stands for the derivative of the step in the backward pass.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::autograd::grad;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{Ste, binary_gate};
/// let s = Tensor::from_slice(&gpu, &[-3.0, 0.5], &[2])?.leaf();
/// let open = binary_gate(&s, Ste::Identity)?;
/// // 1 near 0, and 0 far from it.
/// assert_eq!(grad(&open.sum_all()?, &[&s])?[0].to_vec()?, [0.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ste {
    /// `p (1 - p)` with `p = sigmoid(s)`.
    #[default]
    SigmoidGrad,
    /// 1 where `|s| <= 1`, 0 elsewhere.
    Identity,
}

/// What a gate decides from.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
/// // A gate without a module: one free number.
/// let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// let mut names = Builder::new();
/// let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 1, 3));
/// Gated::new(&mut names, make, &ResidualMlp::units(1), config)?;
/// assert_eq!(names.tables()?.0.matching("gates.*")?.len(), 1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateForm {
    /// `W2 relu(W1 a + b1) + b2` of the channels' means `a` of what the unit reads, with this many hidden units.
    Module(usize),
    /// A free number for each gate, the same for every input: the control without input dependence.
    Free,
}

/// How gates are made.
///
/// ```
/// use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Ste};
/// let config = GateConfig { form: GateForm::Module(8), gumbel: true, ..GateConfig::default() };
/// assert_eq!((config.init_bias, config.ste), (1.5, Ste::SigmoidGrad));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateConfig {
    /// What they decide from.
    pub form: GateForm,
    /// First value of the last bias (or of the free number). Positive: gates start open, at `sigmoid(1.5) = 0.82`.
    pub init_bias: f32,
    /// The backward pass of the step.
    pub ste: Ste,
    /// Whether logistic noise is added to `s` in training.
    pub gumbel: bool,
    /// Whether gates see constants, so that they do not shape the network through what they read.
    pub detach: bool,
}

impl Default for GateConfig {
    /// Modules of 16 hidden units, bias 1.5, the sigmoid's gradient, no noise, not detached.
    fn default() -> Self {
        Self { form: GateForm::Module(16), init_bias: 1.5, ste: Ste::SigmoidGrad, gumbel: false, detach: false }
    }
}

/// 1 where `s > 0`, 0 elsewhere, with the gradient that `ste` says.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{Ste, binary_gate};
/// let s = Tensor::from_slice(&gpu, &[-0.1, 0.0, 2.0], &[3])?;
/// assert_eq!(binary_gate(&s, Ste::SigmoidGrad)?.to_vec()?, [0.0, 0.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the device refuses.
pub fn binary_gate(s: &Tensor, ste: Ste) -> Result<Tensor> {
    let open = no_grad(|| s.gt_scalar(0.0))?;
    match ste {
        Ste::SigmoidGrad => s.sigmoid()?.straight_through(&open),
        Ste::Identity => s.clamp(-1.0, 1.0)?.straight_through(&open),
    }
}

/// The gates of one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    weights: Weights,
    config: GateConfig,
    outputs: usize,
}

#[derive(Clone, Copy, Debug)]
enum Weights {
    Module { w1: ParamId, b1: ParamId, w2: ParamId, b2: ParamId },
    Free(ParamId),
}

impl Gate {
    /// `outputs` gates over `inputs` channels. Weights are He-normal, no parameter has weight decay.
    pub(super) fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, config: GateConfig) -> Self {
        let start = Init::Const(config.init_bias);
        let weights = match config.form {
            GateForm::Module(hidden) => {
                let he = Init::KaimingNormal(Fan::In, std::f32::consts::SQRT_2);
                Weights::Module {
                    w1: scope.param_without_decay("fc1.weight", &[hidden, inputs], he),
                    b1: scope.param_without_decay("fc1.bias", &[hidden], Init::Zeros),
                    w2: scope.param_without_decay("fc2.weight", &[outputs, hidden], he),
                    b2: scope.param_without_decay("fc2.bias", &[outputs], start),
                }
            }
            GateForm::Free => Weights::Free(scope.param_without_decay("logit", &[outputs], start)),
        };
        Self { weights, config, outputs }
    }

    /// Gates `[B, outputs]` for the input `x` `[B, .., C]` of a unit.
    pub(super) fn decide(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut s = match self.weights {
            Weights::Module { w1, b1, w2, b2 } => {
                let x = if self.config.detach { &x.detach() } else { x };
                let a = channel_means(x)?;
                let hidden = a.linear(cx.param(w1), Some(cx.param(b1)))?.relu()?;
                hidden.linear(cx.param(w2), Some(cx.param(b2)))?
            }
            Weights::Free(logit) => cx.param(logit).broadcast_to(&[x.dim(0), self.outputs])?,
        };
        if self.config.gumbel && cx.training() {
            // The ends of the interval are left out: their logarithms are infinite.
            let u = Tensor::uniform(s.gpu(), s.shape(), cx.draw(), f32::EPSILON, 1.0 - f32::EPSILON)?;
            s = s.add(&no_grad(|| u.log()?.sub(&u.neg()?.log1p()?))?)?;
        }
        binary_gate(&s, self.config.ste)
    }

    /// The parameter whose gradient tells whether a gate is part of the graph.
    pub(super) fn last(&self) -> ParamId {
        match self.weights {
            Weights::Module { b2, .. } => b2,
            Weights::Free(logit) => logit,
        }
    }
}

/// `[B, C]` from `[B, .., C]`: means over pixels or tokens.
fn channel_means(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        0 | 1 => Err(Error::shape("gate", format!("a unit reads {:?}; samples come first, channels last", x.shape()))),
        2 => Ok(x.clone()),
        4 => x.global_avg_pool(),
        rank => x.mean(&(1..rank - 1).collect::<Vec<_>>(), false),
    }
}
