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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::crrelu::Crrelu;
/// let mut names = Builder::new();
/// let layer = Crrelu::new(&mut names.root().sub("act"), 0.5, true)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::from_slice(&gpu, &[-1.0, 0.0, 1.0], &[3])?)?.to_vec()?;
/// let bump = 0.5 * (-0.5f32).exp();
/// assert!((y[0] + bump).abs() < 1e-6 && y[1] == 0.0 && (y[2] - (1.0 + bump)).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Crrelu {
    name: String,
    eps: Coefficient,
}

impl Crrelu {
    /// A layer whose coefficient starts at `eps0` (0.01 in public code) and is trained if `learnable`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::Crrelu;
    /// let mut names = Builder::new();
    /// Crrelu::new(&mut names.root().sub("act"), 0.01, true)?;
    /// Crrelu::new(&mut names.root().sub("fixed"), 0.01, false)?;
    /// let (params, buffers) = names.tables()?;
    /// assert!(params.find("act.eps").is_some() && buffers.find("fixed.eps").is_some());
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::Crrelu;
    /// let mut names = Builder::new();
    /// assert!(Crrelu::new(&mut names.root().sub("act"), 0.01, true)?.param().is_some());
    /// assert!(Crrelu::new(&mut names.root().sub("fixed"), 0.01, false)?.param().is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn param(&self) -> Option<ParamId> {
        match self.eps {
            Coefficient::Learned(id) => Some(id),
            Coefficient::Fixed(_) => None,
        }
    }

    /// The coefficient now; waits for the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::crrelu::Crrelu;
    /// let mut names = Builder::new();
    /// let layer = Crrelu::new(&mut names.root().sub("act"), 0.01, true)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(layer.eps(&Cx::eval(&arena))?, 0.01);
    /// # Ok::<(), Error>(())
    /// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::crrelu::DynamicCrrelu;
/// let mut names = Builder::new();
/// let layer = DynamicCrrelu::new(&mut names.root().sub("act"), 0.01)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// // The mean of the batch is 10: the running one moves a tenth of the way.
/// layer.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[9.0, 11.0], &[2])?)?;
/// assert!((arena.buffers().by_name("act.running_mean")?.item()? - 1.0).abs() < 1e-5);
/// # Ok::<(), Error>(())
/// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::DynamicCrrelu;
    /// let mut names = Builder::new();
    /// DynamicCrrelu::new(&mut names.root().sub("act"), 0.01)?;
    /// let (params, buffers) = names.tables()?;
    /// assert_eq!((params.numel(), buffers.numel()), (1, 2));
    /// # Ok::<(), Error>(())
    /// ```
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
///
/// ```
/// # use shadegrad::{autograd::grad, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::crrelu::TabulatedActivation;
/// let tent = TabulatedActivation::new(&gpu, &[-1.0, 0.0, 1.0], &[0.0, 1.0, 0.0])?;
/// let x = Tensor::from_slice(&gpu, &[-0.5, 0.0, 0.25], &[3])?.leaf();
/// let y = tent.apply(&x)?;
/// assert_eq!(y.to_vec()?, [0.5, 1.0, 0.75]);
/// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?[0], 1.0); // the slope of the first line
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct TabulatedActivation {
    grid: Tensor,
    values: Tensor,
}

impl TabulatedActivation {
    /// The lines through `(grid[i], values[i])`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::crrelu::TabulatedActivation;
    /// assert!(TabulatedActivation::new(&gpu, &[0.0, 1.0], &[0.0, 2.0]).is_ok());
    /// assert!(TabulatedActivation::new(&gpu, &[1.0, 0.0], &[0.0, 2.0]).is_err()); // the grid falls
    /// # Ok::<(), Error>(())
    /// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::crrelu::TabulatedActivation;
    /// let double = TabulatedActivation::new(&gpu, &[0.0, 1.0], &[0.0, 2.0])?;
    /// let x = Tensor::from_slice(&gpu, &[0.5, 4.0], &[2])?;
    /// assert_eq!(double.apply(&x)?.to_vec()?, [1.0, 8.0]); // the line goes on beyond the points
    /// # Ok::<(), Error>(())
    /// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::crrelu::{Corrected, TabulatedActivation};
/// let mut names = Builder::new();
/// let tent = TabulatedActivation::new(&gpu, &[0.0, 1.0, 2.0], &[0.0, 1.0, 0.0])?;
/// let layer = Corrected::new(&mut names.root().sub("act"), Activation::Relu, tent, 0.5)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::from_slice(&gpu, &[0.5, 1.0], &[2])?;
/// assert_eq!(layer.forward(&Cx::eval(&arena), &x)?.to_vec()?, [0.5 + 0.25, 1.0 + 0.5]);
/// # Ok::<(), Error>(())
/// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::crrelu::{Corrected, TabulatedActivation};
    /// let mut names = Builder::new();
    /// let tent = TabulatedActivation::new(&gpu, &[0.0, 1.0, 2.0], &[0.0, 1.0, 0.0])?;
    /// let learned = Activation::Prelu(0.25); // has a number of its own
    /// assert!(Corrected::new(&mut names.root(), learned, tent.clone(), 0.01).is_err());
    /// assert!(Corrected::new(&mut names.root(), Activation::Gelu, tent, 0.01).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
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
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::crrelu::preactivations;
/// use shadegrad_models::Mlp;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// let mut names = Builder::new();
/// let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let batches = [Tensor::ones(&gpu, &[3, 8, 8, 1])?, Tensor::zeros(&gpu, &[2, 8, 8, 1])?];
/// let seen = preactivations(&model, &Cx::eval(&arena), &batches, "layers.0")?;
/// assert_eq!((seen[0].0.as_str(), seen[0].1.len()), ("layers.0", 5 * 4));
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// use shadegrad_models::papers::crrelu::share_within;
/// assert_eq!(share_within(&[0.5, -2.0, 4.0, -3.5], 3.0), 0.5);
/// ```
pub fn share_within(values: &[f32], limit: f32) -> f64 {
    values.iter().filter(|v| v.abs() < limit).count() as f64 / values.len().max(1) as f64
}
