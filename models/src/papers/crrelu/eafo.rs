//! Entropy-based search for an activation, on the processor in double precision (the paper, section 3).
//!
//! A rising activation `y = f(x)` moves the density `p` of its input: with the inverse `x(y)` the output has the density
//! `q(y) = p(x(y)) x'(y)` and the entropy `H = -integral of p x' log(p x') dy`. Moving the inverse by a small `eta(y)`
//! changes `H` by `integral of (p x'' / x' + p' x') eta dy`. Where that vanishes for all `eta`, `q` is constant: `f` is the
//! distribution function of the input, and as the second derivative of the integrand by `x'` is negative this is the
//! highest entropy among functions with these bounds, the worst choice. Away from it the entropy falls fastest along
//! [`correction`].

use std::f64::consts::PI;

use shadegrad::{Error, Result};

/// The density of an activation's inputs.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::{Density, entropy};
/// /// Uniform between -1 and 1.
/// struct Uniform;
/// impl Density for Uniform {
///     fn p(&self, _: f64) -> f64 {
///         0.5
///     }
///     fn slope(&self, _: f64) -> f64 {
///         0.0
///     }
///     fn range(&self) -> (f64, f64) {
///         (-1.0, 1.0)
///     }
/// }
/// assert!((entropy(&Uniform) - 2f64.ln()).abs() < 1e-9);
/// ```
pub trait Density {
    /// `p(x)`.
    fn p(&self, x: f64) -> f64;
    /// `p'(x)`.
    fn slope(&self, x: f64) -> f64;
    /// Where the density is worth integrating.
    fn range(&self) -> (f64, f64);
}

/// A normal distribution.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::Normal;
/// let p = Normal::STANDARD.p(0.0);
/// assert!((p - 1.0 / (2.0 * std::f64::consts::PI).sqrt()).abs() < 1e-15);
/// # use shadegrad_models::papers::crrelu::eafo::Density;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    mean: f64,
    deviation: f64,
}

impl Normal {
    /// Mean 0 and standard deviation 1: the paper's choice for CRReLU.
    pub const STANDARD: Self = Self { mean: 0.0, deviation: 1.0 };

    /// A normal distribution.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::eafo::Normal;
    /// # use shadegrad_models::papers::crrelu::eafo::Density;
    /// assert_eq!(Normal::new(1.0, 0.5)?.range(), (1.0 - 6.0, 1.0 + 6.0)); // twelve deviations
    /// assert!(Normal::new(0.0, 0.0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is not finite or the deviation not positive.
    pub fn new(mean: f64, deviation: f64) -> Result<Self> {
        if mean.is_finite() && deviation.is_finite() && deviation > 0.0 {
            return Ok(Self { mean, deviation });
        }
        Err(Error::value("Normal", format!("mean {mean}, deviation {deviation}: finite, the deviation positive")))
    }

    /// The one with mean and deviation of `samples`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::eafo::Normal;
    /// assert_eq!(Normal::fit(&[-1.0, 1.0])?, Normal::STANDARD);
    /// assert!(Normal::fit(&[3.0, 3.0]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two, or they are all alike or not finite.
    pub fn fit(samples: &[f32]) -> Result<Self> {
        let (mean, deviation) = moments(samples);
        Self::new(mean, deviation)
    }
}

fn moments(samples: &[f32]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = samples.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

impl Density for Normal {
    fn p(&self, x: f64) -> f64 {
        let z = (x - self.mean) / self.deviation;
        (-0.5 * z * z).exp() / (self.deviation * (2.0 * PI).sqrt())
    }

    fn slope(&self, x: f64) -> f64 {
        -(x - self.mean) / (self.deviation * self.deviation) * self.p(x)
    }

    fn range(&self) -> (f64, f64) {
        (self.mean - 12.0 * self.deviation, self.mean + 12.0 * self.deviation)
    }
}

/// A density counted from samples: 256 bins over five standard deviations to either side of the mean, smoothed twenty
/// times by (1/4, 1/2, 1/4), straight lines between the centres; its slope likewise, from central differences. Zero
/// beyond the bins.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::crrelu::eafo::{Histogram, Normal};
/// # use shadegrad_models::papers::crrelu::eafo::Density;
/// let mut samples = vec![0.0; 20_000];
/// Philox::new(0, 0).fill_normal(&mut samples, 0.0, 1.0);
/// let counted = Histogram::fit(&samples)?;
/// assert!((counted.p(0.0) - Normal::STANDARD.p(0.0)).abs() < 0.03);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    first: f64,
    step: f64,
    heights: Vec<f64>,
    slopes: Vec<f64>,
}

const BINS: usize = 256;
const REACH: f64 = 5.0;
const SMOOTHINGS: usize = 20;

impl Histogram {
    /// Counts `samples`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::crrelu::eafo::Histogram;
    /// # use shadegrad_models::papers::crrelu::eafo::Density;
    /// let counted = Histogram::fit(&[-1.0, 1.0])?;
    /// assert!(counted.p(1.0) > 0.0 && counted.p(9.0) == 0.0);
    /// assert!(Histogram::fit(&[2.0, 2.0]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none, or they are all alike or not finite.
    pub fn fit(samples: &[f32]) -> Result<Self> {
        let Normal { mean, deviation } = Normal::fit(samples)?;
        let low = mean - REACH * deviation;
        let step = 2.0 * REACH * deviation / BINS as f64;
        let mut counts = vec![0.0; BINS];
        for &v in samples {
            let i = (f64::from(v) - low) / step;
            if (0.0..BINS as f64).contains(&i) {
                counts[i as usize] += 1.0;
            }
        }
        let around = |v: &[f64], i: usize| (if i > 0 { v[i - 1] } else { 0.0 }, v.get(i + 1).copied().unwrap_or(0.0));
        for _ in 0..SMOOTHINGS {
            counts = (0..BINS).map(|i| (around(&counts, i).0 + 2.0 * counts[i] + around(&counts, i).1) / 4.0).collect();
        }
        let heights: Vec<f64> = counts.iter().map(|c| c / (samples.len() as f64 * step)).collect();
        let slopes = (0..BINS).map(|i| (around(&heights, i).1 - around(&heights, i).0) / (2.0 * step)).collect();
        Ok(Self { first: low + 0.5 * step, step, heights, slopes })
    }

    fn between(&self, values: &[f64], x: f64) -> f64 {
        let t = (x - self.first) / self.step;
        if !(-1.0..BINS as f64).contains(&t) {
            return 0.0;
        }
        let i = t.floor();
        let at = |i: f64| if i < 0.0 { 0.0 } else { values.get(i as usize).copied().unwrap_or(0.0) };
        at(i) + (t - i) * (at(i + 1.0) - at(i))
    }
}

impl Density for Histogram {
    fn p(&self, x: f64) -> f64 {
        self.between(&self.heights, x)
    }

    fn slope(&self, x: f64) -> f64 {
        self.between(&self.slopes, x)
    }

    fn range(&self) -> (f64, f64) {
        (self.first - self.step, self.first + self.step * BINS as f64)
    }
}

/// A rising function and its inverse.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::InvertibleFn;
/// /// Twice the input.
/// struct Double;
/// impl InvertibleFn for Double {
///     fn value(&self, x: f64) -> f64 {
///         2.0 * x
///     }
///     fn inverse(&self, y: f64) -> [f64; 3] {
///         [y / 2.0, 0.5, 0.0]
///     }
/// }
/// assert_eq!(Double.inverse(Double.value(3.0))[0], 3.0);
/// ```
pub trait InvertibleFn {
    /// `f(x)`.
    fn value(&self, x: f64) -> f64;
    /// The inverse at `y` with its first and second derivative, `[x, x', x'']`; NaN where `y` is no value of `f`.
    fn inverse(&self, y: f64) -> [f64; 3];
}

/// `f(x) = x`: what ReLU is for positive `x`.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::Identity;
/// # use shadegrad_models::papers::crrelu::eafo::InvertibleFn;
/// assert_eq!(Identity.inverse(3.0), [3.0, 1.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity;

impl InvertibleFn for Identity {
    fn value(&self, x: f64) -> f64 {
        x
    }

    fn inverse(&self, y: f64) -> [f64; 3] {
        [y, 1.0, 0.0]
    }
}

/// `x` where positive, a positive `slope` times `x` elsewhere.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::LeakyRelu;
/// # use shadegrad_models::papers::crrelu::eafo::InvertibleFn;
/// let f = LeakyRelu { slope: 0.25 };
/// assert_eq!((f.value(-4.0), f.inverse(-1.0)), (-1.0, [-4.0, 4.0, 0.0]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeakyRelu {
    /// The slope on the left.
    pub slope: f64,
}

impl InvertibleFn for LeakyRelu {
    fn value(&self, x: f64) -> f64 {
        if x > 0.0 { x } else { self.slope * x }
    }

    fn inverse(&self, y: f64) -> [f64; 3] {
        if y > 0.0 { [y, 1.0, 0.0] } else { [y / self.slope, 1.0 / self.slope, 0.0] }
    }
}

/// `1 / (1 + e^-x)`.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::Logistic;
/// # use shadegrad_models::papers::crrelu::eafo::InvertibleFn;
/// assert_eq!((Logistic.value(0.0), Logistic.inverse(0.5)), (0.5, [0.0, 4.0, 0.0]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logistic;

impl InvertibleFn for Logistic {
    fn value(&self, x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    fn inverse(&self, y: f64) -> [f64; 3] {
        let d = y * (1.0 - y);
        [(y / (1.0 - y)).ln(), 1.0 / d, (2.0 * y - 1.0) / (d * d)]
    }
}

/// A rising function without an inverse in closed form: found by bisection between `low` and `high`, its derivatives by
/// central differences.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::crrelu::eafo::Numeric;
/// # use shadegrad_models::papers::crrelu::eafo::InvertibleFn;
/// let f = Numeric::new(f64::exp, -5.0, 5.0)?;
/// let [x, slope, _] = f.inverse(2.0);
/// assert!((x - 2f64.ln()).abs() < 1e-12 && (slope - 0.5).abs() < 1e-8);
/// # Ok::<(), Error>(())
/// ```
pub struct Numeric<F> {
    f: F,
    low: f64,
    high: f64,
}

impl<F: Fn(f64) -> f64> Numeric<F> {
    /// The function `f` on `low..=high`.
    ///
    /// ```
    /// use shadegrad_models::papers::crrelu::eafo::Numeric;
    /// assert!(Numeric::new(|x: f64| x + x.sin(), 0.0, 6.0).is_ok());
    /// assert!(Numeric::new(f64::cos, 0.0, 3.0).is_err()); // falls
    /// ```
    ///
    /// # Errors
    /// If the interval is empty or `f` does not rise over it.
    pub fn new(f: F, low: f64, high: f64) -> Result<Self> {
        if low.is_finite() && high.is_finite() && low < high && f(low) < f(high) {
            return Ok(Self { f, low, high });
        }
        Err(Error::value("Numeric", format!("the function does not rise from {low} to {high}")))
    }
}

impl<F: Fn(f64) -> f64> InvertibleFn for Numeric<F> {
    fn value(&self, x: f64) -> f64 {
        (self.f)(x)
    }

    fn inverse(&self, y: f64) -> [f64; 3] {
        let f = &self.f;
        let (mut low, mut high) = (self.low, self.high);
        if !(f(low)..=f(high)).contains(&y) {
            return [f64::NAN; 3];
        }
        while high - low > 1e-15 * low.abs().max(high.abs()).max(1e-3) {
            let middle = 0.5 * (low + high);
            if middle <= low || middle >= high {
                break;
            }
            if f(middle) < y { low = middle } else { high = middle }
        }
        let x = 0.5 * (low + high);
        // Steps at which rounding and the next terms of the series are about equal.
        let (h, k) = (1e-5 * x.abs().max(1.0), 1e-4 * x.abs().max(1.0));
        let first = (f(x + h) - f(x - h)) / (2.0 * h);
        let second = (f(x + k) - 2.0 * f(x) + f(x - k)) / (k * k);
        [x, 1.0 / first, -second / first.powi(3)]
    }
}

/// The direction `eta(y) = -(p(x) x'' / x' + p'(x) x')` in which moving the inverse of `base` lowers the output's entropy
/// fastest, at the values `y` of `grid`. It is zero everywhere for the distribution function of the input.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::crrelu::eafo::{Identity, Normal, correction};
/// # use shadegrad_models::papers::crrelu::eafo::Density;
/// // For normal inputs of the identity it is `y p(y)`.
/// let eta = correction(&Identity, &Normal::STANDARD, &[0.0, 1.0])?;
/// assert_eq!(eta, [0.0, Normal::STANDARD.p(1.0)]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If `base` does not rise at a value: `x'` there is not positive and finite.
pub fn correction(base: &dyn InvertibleFn, density: &dyn Density, grid: &[f64]) -> Result<Vec<f64>> {
    grid.iter()
        .map(|&y| {
            let [x, dx, ddx] = base.inverse(y);
            if !(x.is_finite() && dx.is_finite() && dx > 0.0 && ddx.is_finite()) {
                return Err(Error::value(
                    "correction",
                    format!("at y = {y} the inverse is {x} with slope {dx}: the function must rise there; narrow the grid"),
                ));
            }
            Ok(-(density.p(x) * ddx / dx + density.slope(x) * dx))
        })
        .collect()
}

/// The correction as a function to be added to `base`, times a learned coefficient: [`correction`] at `base(x)` for each
/// `x`, scaled to the height `1 / sqrt(e)` of CRReLU's bump so that coefficients compare.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::crrelu::eafo::{Identity, Normal, bump};
/// let values = bump(&Identity, &Normal::STANDARD, &[-1.0, 0.0, 1.0])?;
/// let height = (-0.5f64).exp();
/// assert_eq!(values, [-height, 0.0, height]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`correction`]; also if it is zero throughout, as for the distribution function of the input.
pub fn bump(base: &dyn InvertibleFn, density: &dyn Density, xs: &[f64]) -> Result<Vec<f64>> {
    let ys: Vec<f64> = xs.iter().map(|&x| base.value(x)).collect();
    let eta = correction(base, density, &ys)?;
    let highest = eta.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if highest < 1e-12 {
        return Err(Error::value("bump", "the entropy is stationary at this function: there is no direction to follow"));
    }
    Ok(eta.into_iter().map(|v| v / highest * (-0.5f64).exp()).collect())
}

/// Change of the entropy for a small move `eta(y)` of the inverse, over `low..high` of `y`:
/// `integral of (p x'' / x' + p' x') eta dy`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::crrelu::eafo::{Identity, Normal, first_variation};
/// // The integral of `p'(y) y`, which is -1: stretching the inverse narrows the output.
/// let change = first_variation(&Identity, &Normal::STANDARD, &|y| y, (-9.0, 9.0))?;
/// assert!((change + 1.0).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`correction`].
pub fn first_variation(
    base: &dyn InvertibleFn,
    density: &dyn Density,
    eta: &dyn Fn(f64) -> f64,
    (low, high): (f64, f64),
) -> Result<f64> {
    let ys: Vec<f64> = points(low, high).collect();
    let steepest = correction(base, density, &ys)?;
    let terms: Vec<f64> = ys.iter().zip(steepest).map(|(&y, s)| -s * eta(y)).collect();
    Ok(trapezoid(&terms, low, high))
}

const INTERVALS: usize = 20_000;

fn points(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (0..=INTERVALS).map(move |i| low + (high - low) * i as f64 / INTERVALS as f64)
}

fn trapezoid(terms: &[f64], low: f64, high: f64) -> f64 {
    let ends = 0.5 * (terms[0] + terms[INTERVALS]);
    (terms.iter().sum::<f64>() - ends) * (high - low) / INTERVALS as f64
}

/// The mean of `g(X)` for `X` of this density: the trapezoidal rule over its range.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::{Normal, expectation};
/// assert!((expectation(&|x| x * x, &Normal::STANDARD) - 1.0).abs() < 1e-9);
/// ```
pub fn expectation(g: &dyn Fn(f64) -> f64, density: &dyn Density) -> f64 {
    let (low, high) = density.range();
    let terms: Vec<f64> = points(low, high)
        .map(|x| {
            let p = density.p(x);
            // Where there is no density a logarithm may be infinite.
            if p > 0.0 { p * g(x) } else { 0.0 }
        })
        .collect();
    trapezoid(&terms, low, high)
}

/// Differential entropy `-E log p(X)` in nats.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::{Normal, entropy};
/// let want = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
/// assert!((entropy(&Normal::STANDARD) - want).abs() < 1e-9);
/// ```
pub fn entropy(density: &dyn Density) -> f64 {
    -expectation(&|x| density.p(x).ln(), density)
}

/// Differential entropy in nats of `f(X)` for a rising `f` with the derivative `df`: `H(X) + E log f'(X)`. NaN if `df` is
/// negative somewhere, minus infinity if `f` is constant over a stretch.
///
/// ```
/// use shadegrad_models::papers::crrelu::eafo::{Normal, entropy, output_entropy};
/// // Doubling adds a bit.
/// let more = output_entropy(&|_| 2.0, &Normal::STANDARD) - entropy(&Normal::STANDARD);
/// assert!((more - 2f64.ln()).abs() < 1e-9);
/// ```
pub fn output_entropy(df: &dyn Fn(f64) -> f64, density: &dyn Density) -> f64 {
    entropy(density) + expectation(&|x| df(x).ln(), density)
}
