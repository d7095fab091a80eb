//! The noise schedule of continuous time, learned or fixed.

use shadegrad::nn::{Arena, Cx, Init, ParamId, Scope};
use shadegrad::{Error, Result, Tensor};

use super::Schedule;

/// How the noise falls over `t` in `0..=1`: `abar(t) = sigmoid(-gamma(t))` with `gamma` from `high` at 0 down to `low` at 1.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::noprop::{GammaNet, Noise};
/// let straight = Noise::Linear { low: -3.0, high: 6.0 };
/// assert!(!GammaNet::new(&mut Builder::new().root(), straight)?.is_learned());
/// assert!(GammaNet::new(&mut Builder::new().root(), Noise::default())?.is_learned());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// `gamma` falls linearly and is not trained.
    Linear {
        /// `gamma(1)`.
        low: f32,
        /// `gamma(0)`.
        high: f32,
    },
    /// Both ends and the course between them are trained, starting from these ends and nearly linear.
    Learned {
        /// `gamma(1)` at first.
        low: f32,
        /// `gamma(0)` at first.
        high: f32,
        /// Hidden units of the monotone network.
        width: usize,
    },
}

impl Default for Noise {
    /// Learned, from 6 to -3 (shares of the signal from 0.0025 to 0.9526), 64 hidden units. The paper gives no first
    /// values.
    fn default() -> Self {
        Self::Learned { low: -3.0, high: 6.0, width: 64 }
    }
}

/// `gamma(t) = g0 + (g1 - g0)(1 - gbar(t))` with `gbar(t) = (G(t) - G(0)) / (G(1) - G(0))` and
/// `G(t) = w0+ t + mean_k v_k+ sigmoid(w_k+ t + b_k)`, where `+` is softplus: falling for any parameters (the paper's
/// learned schedule, after Kingma et al., "Variational diffusion models", 2021). `g1 = g0 + softplus(r)`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::noprop::{GammaNet, Noise};
/// let mut names = Builder::new();
/// let gamma = GammaNet::new(&mut names.root(), Noise::Learned { low: -3.0, high: 6.0, width: 8 })?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let times = Tensor::from_slice(&gpu, &[0.0, 1.0], &[2])?;
/// let (values, slopes) = gamma.eval(&Cx::eval(&arena), &times)?;
/// assert!((values.to_vec()?[0] - 6.0).abs() < 1e-4 && (values.to_vec()?[1] + 3.0).abs() < 1e-4);
/// assert!(slopes.to_vec()?.iter().all(|s| *s < 0.0)); // it falls, whatever its parameters
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GammaNet(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Linear { low: f32, high: f32 },
    Learned { low: ParamId, rise: ParamId, slope: ParamId, weight: ParamId, bias: ParamId, out: ParamId },
}

/// `ln(e^y - 1)`, the inverse of softplus.
fn softplus_inverse(y: f64) -> f64 {
    y + (-(-y).exp_m1()).ln()
}

impl GammaNet {
    /// The parameters of `noise` in this scope, none of them with weight decay: `low`, `rise`, `slope`, `weight`, `bias`,
    /// `out`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// let mut names = Builder::new();
    /// GammaNet::new(&mut names.root(), Noise::Learned { low: -3.0, high: 6.0, width: 8 })?;
    /// assert_eq!(names.tables()?.0.numel(), 3 + 3 * 8); // low, rise and slope; three numbers for each unit
    /// assert!(GammaNet::new(&mut names.root(), Noise::Linear { low: 6.0, high: -3.0 }).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `low` is not below `high`, or the network has no units.
    pub fn new(scope: &mut Scope<'_>, noise: Noise) -> Result<Self> {
        let (Noise::Linear { low, high } | Noise::Learned { low, high, .. }) = noise;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(Error::value("GammaNet", format!("gamma from {high} to {low}; the first must be the larger")));
        }
        let Noise::Learned { width, .. } = noise else { return Ok(Self(Kind::Linear { low, high })) };
        if width == 0 {
            return Err(Error::value("GammaNet", "a network of no units; take 64, or `Noise::Linear`"));
        }
        let rise = softplus_inverse(f64::from(high) - f64::from(low)) as f32;
        // A slope of 1 and units whose steps lie all over 0..1: nearly linear at first, and free to bend anywhere.
        let one = softplus_inverse(1.0) as f32;
        Ok(Self(Kind::Learned {
            low: scope.param_without_decay("low", &[1], Init::Const(low)),
            rise: scope.param_without_decay("rise", &[1], Init::Const(rise)),
            slope: scope.param_without_decay("slope", &[1], Init::Const(one)),
            weight: scope.param_without_decay("weight", &[1, width], Init::Uniform(1.0, 10.0)),
            bias: scope.param_without_decay("bias", &[1, width], Init::Uniform(-10.0, 0.0)),
            out: scope.param_without_decay("out", &[width, 1], Init::Uniform(-1.0, 1.0)),
        }))
    }

    /// Whether there is something to train.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// let mut names = Builder::new();
    /// assert!(GammaNet::new(&mut names.root(), Noise::default())?.is_learned());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_learned(&self) -> bool {
        matches!(self.0, Kind::Learned { .. })
    }

    /// `gamma(0)` and `gamma(1)`, each `[1]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// let mut names = Builder::new();
    /// let gamma = GammaNet::new(&mut names.root(), Noise::Learned { low: -3.0, high: 6.0, width: 8 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let (first, last) = gamma.ends(&Cx::eval(&arena), arena.values_flat())?;
    /// assert!((first.item()? - 6.0).abs() < 1e-4 && last.item()? == -3.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn ends(&self, cx: &Cx, like: &Tensor) -> Result<(Tensor, Tensor)> {
        match &self.0 {
            Kind::Linear { low, high } => {
                Ok((Tensor::full(like.gpu(), &[1], *high)?, Tensor::full(like.gpu(), &[1], *low)?))
            }
            Kind::Learned { low, rise, .. } => {
                let low = cx.param(*low);
                Ok((low.add(&cx.param(*rise).softplus()?)?, low.clone()))
            }
        }
    }

    /// `gamma(t)` and `gamma'(t)`, both `[n, 1]`, for times `[n]`. The slope is written out, so that its gradient is an
    /// ordinary one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// let mut names = Builder::new();
    /// let gamma = GammaNet::new(&mut names.root(), Noise::Learned { low: -3.0, high: 6.0, width: 8 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let times = Tensor::from_slice(&gpu, &[0.0, 0.5, 1.0], &[3])?;
    /// let (values, slopes) = gamma.eval(&Cx::eval(&arena), &times)?;
    /// assert_eq!((values.shape(), slopes.shape()), (&[3, 1][..], &[3, 1][..]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the times are not `[n]`, or the device refuses.
    pub fn eval(&self, cx: &Cx, times: &Tensor) -> Result<(Tensor, Tensor)> {
        let [n] = *times.shape() else {
            return Err(Error::shape("GammaNet", format!("times {:?}; give [n]", times.shape())));
        };
        let t = times.reshape(&[n, 1])?;
        let (low, rise, slope, weight, bias, out) = match &self.0 {
            Kind::Learned { low, rise, slope, weight, bias, out } => (low, rise, slope, weight, bias, out),
            Kind::Linear { low, high } => {
                let fall = low - high;
                return Ok((t.mul_scalar(fall)?.add_scalar(*high)?, Tensor::full(t.gpu(), &[n, 1], fall)?));
            }
        };
        let positive = |id: &ParamId| cx.param(*id).softplus();
        let (slope, weight, out) = (positive(slope)?, positive(weight)?, positive(out)?);
        // The two ends, which normalise, ride along as two more times.
        let ends = Tensor::from_slice(t.gpu(), &[0.0, 1.0], &[2, 1])?;
        let all = Tensor::concat(&[&t, &ends], 0)?;
        let s = all.mul(&weight)?.add(cx.param(*bias))?.sigmoid()?;
        let per_unit = 1.0 / weight.dim(1) as f32;
        let g = all.mul(&slope)?.add(&s.matmul(&out)?.mul_scalar(per_unit)?)?;
        let inner = s.narrow(0, 0, n)?;
        let bend = inner.sub(&inner.square()?)?.mul(&weight)?.matmul(&out)?.mul_scalar(per_unit)?.add(&slope)?;
        let (g_0, g_1) = (g.narrow(0, n, 1)?, g.narrow(0, n + 1, 1)?);
        let rise = cx.param(*rise).softplus()?;
        // (g1 - g0) / (G(1) - G(0)).
        let scale = rise.div(&g_1.sub(&g_0)?)?;
        let fallen = g_1.sub(&g.narrow(0, 0, n)?)?.mul(&scale)?;
        Ok((fallen.add(cx.param(*low))?, bend.mul(&scale)?.neg()?))
    }

    /// The same curve on the host in double precision, with the values that `arena` has now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// let mut names = Builder::new();
    /// let gamma = GammaNet::new(&mut names.root(), Noise::Learned { low: -3.0, high: 6.0, width: 8 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let curve = gamma.curve(&arena)?;
    /// let (values, _) = gamma.eval(&Cx::eval(&arena), &Tensor::from_slice(&gpu, &[0.5], &[1])?)?;
    /// assert!((curve.gamma(0.5) - f64::from(values.item()?)).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn curve(&self, arena: &Arena) -> Result<GammaCurve> {
        let (low, rise, slope, weight, bias, out) = match self.0 {
            Kind::Learned { low, rise, slope, weight, bias, out } => (low, rise, slope, weight, bias, out),
            Kind::Linear { low, high } => {
                return Ok(GammaCurve { low: low.into(), high: high.into(), slope: 1.0, units: Vec::new() });
            }
        };
        let read = |id: ParamId| -> Result<Vec<f64>> {
            Ok(arena.params().get(id).to_vec()?.into_iter().map(f64::from).collect())
        };
        let softplus = |v: f64| v.max(0.0) + (-v.abs()).exp().ln_1p();
        let low = read(low)?[0];
        let (weight, bias, out) = (read(weight)?, read(bias)?, read(out)?);
        let units = weight.iter().zip(&bias).zip(&out).map(|((w, b), v)| [softplus(*w), *b, softplus(*v)]).collect();
        Ok(GammaCurve { low, high: low + softplus(read(rise)?[0]), slope: softplus(read(slope)?[0]), units })
    }
}

/// A noise schedule over `t` in `0..=1` as numbers.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
/// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
/// # let mut names = Builder::new();
/// # names.root().param("w", &[1], Init::Zeros);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let curve = gamma.curve(&arena)?;
/// // `gamma` falls linearly from 2 to -2.
/// let shares = [0.0, 0.5, 1.0].map(|t| curve.abar(t));
/// assert!(shares[0] < shares[1] && shares[1] == 0.5 && shares[1] < shares[2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GammaCurve {
    low: f64,
    high: f64,
    slope: f64,
    /// `w+`, `b` and `v+` of each unit.
    units: Vec<[f64; 3]>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl GammaCurve {
    fn monotone(&self, t: f64) -> f64 {
        let sum: f64 = self.units.iter().map(|[w, b, v]| v * sigmoid(w * t + b)).sum();
        self.slope * t + sum / self.units.len().max(1) as f64
    }

    fn monotone_slope(&self, t: f64) -> f64 {
        let bend = |[w, b, v]: &[f64; 3]| {
            let s = sigmoid(w * t + b);
            v * w * s * (1.0 - s)
        };
        self.slope + self.units.iter().map(bend).sum::<f64>() / self.units.len().max(1) as f64
    }

    /// `(g1 - g0) / (G(1) - G(0))`.
    fn scale(&self) -> f64 {
        (self.high - self.low) / (self.monotone(1.0) - self.monotone(0.0))
    }

    /// `gamma(t)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// assert_eq!([0.0, 0.5, 1.0].map(|t| curve.gamma(t)), [2.0, 0.0, -2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gamma(&self, t: f64) -> f64 {
        self.low + self.scale() * (self.monotone(1.0) - self.monotone(t))
    }

    /// `gamma'(t)`, below 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// assert_eq!(curve.slope(0.3), -4.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn slope(&self, t: f64) -> f64 {
        -self.scale() * self.monotone_slope(t)
    }

    /// The share of the signal.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// assert_eq!(curve.abar(0.5), 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn abar(&self, t: f64) -> f64 {
        sigmoid(-self.gamma(t))
    }

    /// The signal-to-noise ratio `exp(-gamma(t))`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// assert_eq!((curve.snr(0.5), curve.snr(1.0)), (1.0, 2f64.exp()));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn snr(&self, t: f64) -> f64 {
        (-self.gamma(t)).exp()
    }

    /// Its slope, above 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// assert_eq!(curve.snr_slope(0.5), 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn snr_slope(&self, t: f64) -> f64 {
        -self.slope(t) * self.snr(t)
    }

    /// The schedule of `steps` equal steps from 0 to 1.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{GammaNet, Noise};
    /// # let gamma = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -2.0, high: 2.0 })?;
    /// # let mut names = Builder::new();
    /// # names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let curve = gamma.curve(&arena)?;
    /// // `gamma` falls linearly from 2 to -2.
    /// let schedule = curve.steps(2)?;
    /// assert_eq!((schedule.blocks(), schedule.abar(1)?), (2, 0.5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none, or the curve is so flat somewhere that two steps have one share.
    pub fn steps(&self, steps: usize) -> Result<Schedule> {
        Schedule::from_abar(&(0..=steps).map(|k| self.abar(k as f64 / steps.max(1) as f64)).collect::<Vec<_>>())
    }
}
