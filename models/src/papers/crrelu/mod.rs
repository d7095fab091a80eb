//! CRReLU and the entropy-based search it comes from: "A Method on Searching Better Activation Functions" (arXiv
//! 2405.12954; ICLR 2025 as "Entropy-based Activation Function Optimization").
//!
//! An activation is seen as a change of variables that acts on the density of its inputs. The bounded function with the
//! highest output entropy is the worst one, and it is the distribution function of the input; a better function is found
//! by moving an existing one along the direction in which the entropy falls fastest ([`eafo`]). For ReLU and normal
//! inputs that direction is `y exp(-y^2 / 2)`, which leads to
//!
//! ```text
//! f(x) = max(x, 0) + eps x exp(-x^2 / 2)
//! ```
//!
//! with one learned number `eps` for each place in the network, 0.01 at the start ([`Tensor::crrelu`], fused).
//!
//! Three ways to use it:
//!
//! - in a network of this crate: [`Activation::Crrelu`] goes into [`crate::VitConfig`] and [`crate::Mlp`] as any other;
//! - in a model of one's own: [`Crrelu`] is a module, here in a two-layer network;
//! - on any rising function and any inputs: [`eafo::bump`] gives the correction, [`Corrected`] the learned activation.
//!
//! ```
//! use shadegrad::nn::{Activation, Builder, Cx, Linear, Module, Scope};
//! use shadegrad::{Gpu, Result, Tensor};
//! use shadegrad_models::papers::crrelu::{Corrected, Crrelu, TabulatedActivation, eafo};
//!
//! struct Net(Linear, Crrelu, Linear);
//!
//! impl Net {
//!     fn new(scope: &mut Scope<'_>) -> Result<Self> {
//!         let first = Linear::new(&mut scope.sub("first"), 64, 32, true);
//!         let act = Crrelu::new(&mut scope.sub("act"), 0.01, true)?;
//!         Ok(Self(first, act, Linear::new(&mut scope.sub("last"), 32, 10, true)))
//!     }
//! }
//!
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         self.2.forward(cx, &self.1.forward(cx, &self.0.forward(cx, x)?)?)
//!     }
//! }
//!
//! let mut builder = Builder::new();
//! Net::new(&mut builder.root())?;
//! assert!(builder.tables()?.0.find("act.eps").is_some());
//!
//! // A correction of a function of one's own for the inputs that it gets in one's own network.
//! fn searched(gpu: &Gpu, scope: &mut Scope<'_>, inputs: &[f32]) -> Result<Corrected> {
//!     let density = eafo::Histogram::fit(inputs)?;
//!     let xs: Vec<f64> = (0..=400).map(|i| -5.0 + f64::from(i) / 40.0).collect();
//!     let bump = eafo::bump(&eafo::LeakyRelu { slope: 0.1 }, &density, &xs)?;
//!     Corrected::new(scope, Activation::LeakyRelu(0.1), TabulatedActivation::new(gpu, &xs, &bump)?, 0.01)
//! }
//! # let _ = searched;
//! # Ok::<(), shadegrad::Error>(())
//! ```
//!
//! A remark on the sign: adding to the inverse is, to first order, subtracting from the function. With `eps > 0` the
//! entropy of the identity plus bump therefore rises for normal inputs (by `eps / (2 sqrt 2)`) and falls with `eps < 0`;
//! the start is positive all the same, and the learned number is free to change its sign.

pub mod eafo;
mod recipe;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use shadegrad::autograd::no_grad;
use shadegrad::kernels::norm::update_running;
use shadegrad::nn::{Activation, BufferId, Cx, Init, Module, ParamId, Scope, Stats};
use shadegrad::{Error, Gpu, Result, Tensor};

use super::Paper;

/// The paper.
pub static PAPER: Paper = Paper {
    slug: "crrelu",
    title: "A Method on Searching Better Activation Functions",
    source: "arXiv 2405.12954, ICLR 2025",
    claim: "ReLU with a learnable odd bump, derived from output entropy, beats ReLU and its corrections",
    data: "CIFAR-10",
    seeds: 3,
    recipe: Some(recipe::run),
};

fn finite(op: &'static str, eps0: f32) -> Result<()> {
    if eps0.is_finite() {
        return Ok(());
    }
    Err(Error::value(op, format!("eps starts at {eps0}; take a finite number, 0.01 in public code")))
}

#[derive(Clone, Copy, Debug)]
enum Coefficient {
    Learned(ParamId),
    Fixed(BufferId),
}

/// CRReLU as a layer, with one coefficient for all elements that pass it: the parameter `eps` `[]` without weight decay,
/// or a buffer of that name if it is not learned.
#[derive(Clone, Debug)]
pub struct Crrelu {
    name: String,
    eps: Coefficient,
}

impl Crrelu {
    /// A layer whose coefficient starts at `eps0` (0.01 in public code) and is trained if `learnable`.
    ///
    /// # Errors
    /// If `eps0` is not finite.
    pub fn new(scope: &mut Scope<'_>, eps0: f32, learnable: bool) -> Result<Self> {
        finite("Crrelu", eps0)?;
        let eps = if learnable {
            Coefficient::Learned(scope.param_without_decay("eps", &[], Init::Const(eps0)))
        } else {
            Coefficient::Fixed(scope.buffer("eps", &[], eps0))
        };
        Ok(Self { name: scope.name().to_string(), eps })
    }

    /// The parameter, if it is learned.
    pub fn param(&self) -> Option<ParamId> {
        match self.eps {
            Coefficient::Learned(id) => Some(id),
            Coefficient::Fixed(_) => None,
        }
    }

    /// The coefficient now; waits for the device.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn eps(&self, cx: &Cx) -> Result<f32> {
        Ok(self.tensor(cx).to_vec()?[0])
    }

    fn tensor<'a>(&self, cx: &'a Cx) -> &'a Tensor {
        match self.eps {
            Coefficient::Learned(id) => cx.param(id),
            Coefficient::Fixed(id) => cx.buffer(id),
        }
    }
}

impl Module for Crrelu {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        cx.tap(&self.name, x.crrelu(self.tensor(cx))?)
    }
}

/// CRReLU for inputs that are not standard normal: `max(x, 0) + eps z exp(-z^2 / 2)` with `z = (x - mean) / deviation`
/// from running statistics of all elements, through which no gradient flows. A variant that the paper names and leaves out
/// for its cost; how the statistics are kept is this project's choice (as batch normalisation does, momentum 0.1).
/// Parameter `eps` `[]`, buffers `running_mean` and `running_var` `[1]`.
#[derive(Clone, Debug)]
pub struct DynamicCrrelu {
    name: String,
    eps: ParamId,
    mean: BufferId,
    var: BufferId,
    momentum: f32,
}

impl DynamicCrrelu {
    /// A layer whose coefficient starts at `eps0`.
    ///
    /// # Errors
    /// If `eps0` is not finite.
    pub fn new(scope: &mut Scope<'_>, eps0: f32) -> Result<Self> {
        finite("DynamicCrrelu", eps0)?;
        Ok(Self {
            name: scope.name().to_string(),
            eps: scope.param_without_decay("eps", &[], Init::Const(eps0)),
            mean: scope.buffer("running_mean", &[1], 0.0),
            var: scope.buffer("running_var", &[1], 1.0),
            momentum: 0.1,
        })
    }
}

impl Module for DynamicCrrelu {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let (mean, var) = (cx.buffer(self.mean), cx.buffer(self.var));
        if cx.stats() == Stats::Update && x.numel() > 0 {
            let axes: Vec<usize> = (0..x.rank()).collect();
            let (m, v) = (x.detach().mean_all()?, x.detach().var(&axes, 0, false)?);
            let (batch, running) = ((m.storage(), v.storage()), (mean.storage(), var.storage()));
            update_running(x.gpu(), batch, running, self.momentum, x.numel(), 1)?;
        }
        // The variance of a constant input is 0: the smallest deviation that still leaves z finite.
        let z = x.sub(mean)?.mul(&var.clamp(1e-12, f32::MAX)?.rsqrt()?)?;
        let decay = z.square()?.clamp(0.0, 160.0)?.mul_scalar(-0.5)?.exp()?;
        let y = x.relu()?.add(&z.mul(&decay)?.mul(cx.param(self.eps))?)?;
        cx.tap(&self.name, y)
    }
}

/// A function given by points, with straight lines between them: what [`eafo`] finds has no closed form in general. Its
/// gradient is the slope of the line; the first and the last line go on beyond the points.
#[derive(Clone)]
pub struct TabulatedActivation {
    grid: Tensor,
    values: Tensor,
}

impl TabulatedActivation {
    /// The lines through `(grid[i], values[i])`.
    ///
    /// # Errors
    /// If there are fewer than two points or not as many values, one is not finite, or the grid does not rise (in single
    /// precision).
    pub fn new(gpu: &Gpu, grid: &[f64], values: &[f64]) -> Result<Self> {
        const OP: &str = "TabulatedActivation";
        let single = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (x, y) = (single(grid), single(values));
        if x.len() < 2 || x.len() != y.len() {
            return Err(Error::shape(OP, format!("{} points, {} values; at least two, as many of each", x.len(), y.len())));
        }
        if x.iter().chain(&y).any(|v| !v.is_finite()) {
            return Err(Error::value(OP, "a point is not finite in single precision"));
        }
        if let Some(i) = (1..x.len()).find(|&i| x[i] <= x[i - 1]) {
            return Err(Error::value(OP, format!("the grid must rise: {} follows {} at {i}", x[i], x[i - 1])));
        }
        Ok(Self { grid: Tensor::from_slice(gpu, &x, &[x.len()])?, values: Tensor::from_slice(gpu, &y, &[y.len()])? })
    }

    /// The function at every element.
    ///
    /// # Errors
    /// If `x` is not `F32` or on another device.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.piecewise_linear(&self.grid, &self.values)
    }
}

impl Module for TabulatedActivation {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(x)
    }
}

/// An activation with a tabulated correction times a learned coefficient, `base(x) + eps bump(x)`: the third step of the
/// search. Parameter `eps` `[]` without weight decay.
#[derive(Clone)]
pub struct Corrected {
    name: String,
    base: Activation,
    bump: TabulatedActivation,
    eps: ParamId,
}

impl Corrected {
    /// A layer whose coefficient starts at `eps0`.
    ///
    /// # Errors
    /// If `eps0` or the number of `base` is not finite, or `base` has a learned number of its own.
    pub fn new(scope: &mut Scope<'_>, base: Activation, bump: TabulatedActivation, eps0: f32) -> Result<Self> {
        finite("Corrected", eps0)?;
        base.check()?;
        if matches!(base, Activation::Prelu(_) | Activation::Crrelu(_)) {
            return Err(Error::value("Corrected", format!("{base:?} learns a number; take a fixed function to correct")));
        }
        let eps = scope.param_without_decay("eps", &[], Init::Const(eps0));
        Ok(Self { name: scope.name().to_string(), base, bump, eps })
    }
}

impl Module for Corrected {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let y = self.base.apply(x)?.add(&self.bump.apply(x)?.mul(cx.param(self.eps))?)?;
        cx.tap(&self.name, y)
    }
}

/// The results of the layers whose names match the pattern (see [`shadegrad::nn::glob`]), over some batches: the inputs of
/// the activations behind them, such as `*.mlp.fc1` in a ViT. In the order in which the layers come.
///
/// # Errors
/// Those of the model; also if no layer matches.
pub fn preactivations(
    model: &dyn Module,
    cx: &Cx,
    batches: &[Tensor],
    pattern: &str,
) -> Result<Vec<(String, Vec<f32>)>> {
    type Seen = Vec<(String, Vec<f32>)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let sink = seen.clone();
    let cx = cx.observe(pattern, move |name, t| {
        let values = t.to_vec()?;
        let mut all = sink.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => v.extend(values),
            None => all.push((name.to_string(), values)),
        }
        Ok(())
    });
    no_grad(|| batches.iter().try_for_each(|x| model.forward(&cx, x).map(drop)))?;
    let all = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    if all.is_empty() {
        return Err(Error::Params(format!("no layer matches `{pattern}`; names are those of the parameters' scopes")));
    }
    Ok(all)
}

/// The share of `values` with `|x| < limit`: with 3 that part on which CRReLU's bump acts.
pub fn share_within(values: &[f32], limit: f32) -> f64 {
    values.iter().filter(|v| v.abs() < limit).count() as f64 / values.len().max(1) as f64
}
