//! The update rules and their numbers.

use shadegrad_kernels::optim as k;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// An update rule: `x` the values, `g` the gradient, `lr` the learning rate of the step, `wd` the weight decay. Formulas
/// are PyTorch's where PyTorch has the rule.
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let rule = Rule::Sgd { momentum: 0.5, dampening: 0.0, nesterov: true, weight_decay: 0.0 };
/// let mut optimizer = Optimizer::new(&arena, rule)?;
/// arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 2.0)?)?.sum_all()?)?;
/// optimizer.step(&arena, 0.25)?;
/// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.25]); // 1 - 0.25 * (2 + 0.5 * 2)
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Gradient descent as `torch.optim.SGD`: `g += wd x; b = momentum b + (1 - dampening) g` (the first time `b = g`);
    /// `x -= lr b`, or with Nesterov `x -= lr (g + momentum b)`. Without momentum `x -= lr g`.
    Sgd {
        /// Decay of the running sum; 0 for none.
        momentum: f32,
        /// Part of the gradient that the running sum leaves out.
        dampening: f32,
        /// Look ahead by one step (Nesterov, 1983).
        nesterov: bool,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
    },
    /// Adam (Kingma and Ba, 2015) as `torch.optim.Adam`: `g += wd x; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    /// x -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)`.
    Adam {
        /// Decays of the two moments.
        betas: [f32; 2],
        /// Added to the denominator.
        eps: f32,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
    },
    /// Adam whose denominator never shrinks (Reddi et al., 2018) as `torch.optim.Adam` with `amsgrad`: in place of `v` the
    /// step divides by the root of the largest `v` so far.
    AmsGrad {
        /// Decays of the two moments.
        betas: [f32; 2],
        /// Added to the denominator.
        eps: f32,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
    },
    /// Adam with `x *= 1 - lr wd` in place of the penalty (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`.
    AdamW {
        /// Decays of the two moments.
        betas: [f32; 2],
        /// Added to the denominator.
        eps: f32,
        /// Decay of the values themselves.
        weight_decay: f32,
    },
    /// As `torch.optim.RMSprop` (Tieleman and Hinton, 2012): `g += wd x; v = alpha v + (1 - alpha) g^2;
    /// u = g / (sqrt(v) + eps); b = momentum b + u; x -= lr b`.
    RmsProp {
        /// Decay of the mean square.
        alpha: f32,
        /// Added to the denominator.
        eps: f32,
        /// Decay of the running sum of steps; 0 for none.
        momentum: f32,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
    },
    /// LAMB (You et al., 2020, algorithm 2 with phi the identity): Adam's bias-corrected step
    /// `u = m / (sqrt(v) + eps) + wd x`, then for each tensor `x -= lr |x| / |u| u` (the ratio is 1 where a norm is 0).
    Lamb {
        /// Decays of the two moments.
        betas: [f32; 2],
        /// Added to the denominator.
        eps: f32,
        /// Weight decay, within the step.
        weight_decay: f32,
    },
    /// LARS (You et al., 2017): for each tensor `g = r (g + wd x)` with `r = eta |x| / (|g| + wd |x| + eps)` (1 where a
    /// norm is 0); `b = momentum b + g; x -= lr b`, or with Nesterov `x -= lr (g + momentum b)`.
    Lars {
        /// Decay of the running sum.
        momentum: f32,
        /// Look ahead by one step.
        nesterov: bool,
        /// Trust coefficient.
        eta: f32,
        /// Added to the denominator of the ratio.
        eps: f32,
        /// L2 penalty, added to the gradient.
        weight_decay: f32,
    },
}

impl Rule {
    /// SGD with momentum 0.9 and this weight decay.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// let rule = Rule::sgd(5e-4);
    /// assert_eq!(rule, Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 5e-4 });
    /// ```
    pub fn sgd(weight_decay: f32) -> Self {
        Self::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay }
    }

    /// Adam with PyTorch's defaults.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 300.0)?)?.sum_all()?)?;
    /// optimizer.step(&arena, 0.125)?; // the first step is as long as the rate, whatever the gradient
    /// assert!((arena.params().get(layer.weight()).item()? - 0.875).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adam() -> Self {
        Self::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }

    /// AMSGrad with PyTorch's defaults.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let optimizer = Optimizer::new(&arena, Rule::amsgrad())?;
    /// let names: Vec<&str> = optimizer.state().iter().map(|(name, _)| *name).collect();
    /// assert_eq!(names, ["moment1", "moment2", "moment3", "scalars"]); // the third holds the largest second
    /// # Ok::<(), Error>(())
    /// ```
    pub fn amsgrad() -> Self {
        Self::AmsGrad { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }

    /// AdamW with PyTorch's defaults and this weight decay.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.zero_grad()?;
    /// Optimizer::new(&arena, Rule::adamw(0.5))?.step(&arena, 0.5)?; // no gradient: decay alone
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.75]); // 1 - 0.5 * 0.5
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adamw(weight_decay: f32) -> Self {
        Self::AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let h = self.hyper(0.0);
        let decays = [h.betas[0], h.betas[1], h.dampening.unwrap_or(0.0)];
        if decays.iter().any(|b| !(0.0..1.0).contains(b)) {
            return Err(Error::value("optimizer", format!("{self:?}: decays lie in 0..1, 1 excluded")));
        }
        if [h.eps, h.decay, h.eta].iter().any(|v| !v.is_finite() || *v < 0.0) {
            return Err(Error::value("optimizer", format!("{self:?}: eps, eta and weight decay are not negative")));
        }
        if let Self::Sgd { nesterov: true, momentum, dampening, .. } = *self
            && (momentum == 0.0 || dampening != 0.0)
        {
            return Err(Error::value("optimizer", format!("{self:?}: Nesterov needs momentum and no dampening")));
        }
        Ok(())
    }

    /// Flat buffers of state.
    pub(crate) fn moments(&self) -> usize {
        match self {
            Self::Sgd { momentum, .. } if *momentum == 0.0 => 0,
            Self::Sgd { .. } | Self::Lars { .. } => 1,
            Self::AmsGrad { .. } => 3,
            _ => 2,
        }
    }

    pub(crate) fn adapts(&self) -> bool {
        matches!(self, Self::Lamb { .. } | Self::Lars { .. })
    }

    pub(crate) fn hyper(&self, lr: f32) -> k::Hyper {
        let on = |flag: u32, yes: bool| if yes { flag } else { 0 };
        let base = k::Hyper { lr, ..k::Hyper::default() };
        match *self {
            Self::Sgd { momentum, dampening, nesterov, weight_decay } => k::Hyper {
                decay: weight_decay,
                betas: [momentum, 0.0],
                dampening: Some(dampening),
                flags: on(k::NESTEROV, nesterov),
                ..base
            },
            Self::Adam { betas, eps, weight_decay }
            | Self::AmsGrad { betas, eps, weight_decay }
            | Self::Lamb { betas, eps, weight_decay } => k::Hyper { betas, eps, decay: weight_decay, ..base },
            Self::AdamW { betas, eps, weight_decay } => {
                k::Hyper { betas, eps, decay: weight_decay, flags: k::DECOUPLED, ..base }
            }
            Self::RmsProp { alpha, eps, momentum, weight_decay } => k::Hyper {
                betas: [momentum, alpha],
                eps,
                decay: weight_decay,
                flags: on(k::HAS_MOMENTUM, momentum != 0.0),
                ..base
            },
            Self::Lars { momentum, nesterov, eta, eps, weight_decay } => k::Hyper {
                betas: [momentum, 0.0],
                eta,
                eps,
                decay: weight_decay,
                flags: on(k::NESTEROV, nesterov),
                ..base
            },
        }
    }

    pub(crate) fn kernel<'a>(&self, moments: &'a [Tensor]) -> k::Rule<'a> {
        match (self, moments) {
            (Self::Lars { .. }, [m]) => k::Rule::Lars(m.storage()),
            (_, [m]) => k::Rule::Momentum(m.storage()),
            (Self::RmsProp { .. }, [m, v]) => k::Rule::RmsProp(m.storage(), v.storage()),
            (Self::Lamb { .. }, [m, v]) => k::Rule::Lamb(m.storage(), v.storage()),
            (_, [m, v]) => k::Rule::Adam(m.storage(), v.storage()),
            (_, [m, v, top]) => k::Rule::AmsGrad(m.storage(), v.storage(), top.storage()),
            _ => k::Rule::Sgd,
        }
    }
}
