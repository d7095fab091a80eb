//! How far weights move: `|w_t - w_0|` during training, its fit by the logarithm of the updates, and how rough the loss is
//! around a point (section 3 and appendix of the paper).

use shadegrad::nn::{Arena, glob};
use shadegrad::rng::Philox;
use shadegrad::{Error, Result, Tensor};

/// Measures the distance of weights from where they began. Distances stay on the device until they are asked for.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::train_longer::DistanceProbe;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2], Init::Zeros);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let mut probe = DistanceProbe::new(&arena, "*")?;
/// // Weights `w` of [0, 0] when the probe was made.
/// arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, 4.0], &[2])?)?; // in place of an update
/// probe.record(1, &arena)?;
/// assert_eq!(probe.curve()?, [(1.0, 5.0)]);
/// # Ok::<(), Error>(())
/// ```
pub struct DistanceProbe {
    start: Tensor,
    /// 1 for the weights that count.
    mask: Tensor,
    steps: Vec<u64>,
    pending: Vec<Tensor>,
    distances: Vec<f64>,
}

/// Distances are read back in groups of this many.
const READ_EVERY: usize = 128;

impl DistanceProbe {
    /// Keeps the weights of `arena` whose names match `pattern` (`*` for all) as they are now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::train_longer::DistanceProbe;
    /// # let mut names = Builder::new();
    /// # names.root().param("fc.weight", &[2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert!(DistanceProbe::new(&arena, "fc.*").is_ok());
    /// assert!(DistanceProbe::new(&arena, "conv.*").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If none does, or the device refuses.
    pub fn new(arena: &Arena, pattern: &str) -> Result<Self> {
        let table = arena.table();
        let mut mask = vec![0.0f32; table.floats()];
        for entry in table.entries().iter().filter(|e| glob(pattern, &e.name)) {
            mask[entry.offset..entry.offset + entry.len].fill(1.0);
        }
        if mask.iter().all(|&m| m == 0.0) {
            return Err(Error::value("DistanceProbe", format!("no parameter is called `{pattern}`; `*` is for all")));
        }
        Ok(Self {
            start: arena.values_flat().mul_scalar(1.0)?.detach(),
            mask: Tensor::from_slice(arena.gpu(), &mask, &[mask.len()])?,
            steps: Vec::new(),
            pending: Vec::new(),
            distances: Vec::new(),
        })
    }

    /// Notes the distance after update `step`, from 1.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::train_longer::DistanceProbe;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut probe = DistanceProbe::new(&arena, "*")?;
    /// // Weights `w` of [0, 0] when the probe was made.
    /// for step in 1..=3 {
    ///     arena.set_value(w, &Tensor::from_slice(&gpu, &[step as f32, 0.0], &[2])?)?;
    ///     probe.record(step, &arena)?;
    /// }
    /// assert_eq!(probe.curve()?, [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn record(&mut self, step: u64, arena: &Arena) -> Result<()> {
        // A mask, not a product: what pads the arena may hold anything.
        let moved = arena.values_flat().detach().sub(&self.start)?;
        let zero = Tensor::scalar(arena.gpu(), 0.0)?;
        let squares = self.mask.select(&moved.square()?, &zero)?.sum(&[0], false)?;
        self.pending.push(squares.sqrt()?.reshape(&[1])?);
        self.steps.push(step);
        if self.pending.len() == READ_EVERY { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let read = Tensor::concat(&self.pending.iter().collect::<Vec<_>>(), 0)?.to_vec()?;
        self.distances.extend(read.into_iter().map(f64::from));
        self.pending.clear();
        Ok(())
    }

    /// Steps and distances so far.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::train_longer::DistanceProbe;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut probe = DistanceProbe::new(&arena, "*")?;
    /// // Weights `w` of [0, 0] when the probe was made.
    /// probe.record(1, &arena)?; // nothing moved
    /// assert_eq!(probe.curve()?, [(1.0, 0.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn curve(&mut self) -> Result<Vec<(f64, f64)>> {
        self.read()?;
        Ok(self.steps.iter().map(|&s| s as f64).zip(self.distances.iter().copied()).collect())
    }

    /// [`fit_log`] of the curve from step `from` on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::train_longer::DistanceProbe;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut probe = DistanceProbe::new(&arena, "*")?;
    /// // Weights `w` of [0, 0] when the probe was made.
    /// for step in 1..=8u64 {
    ///     let distance = 1.0 + 2.0 * (step as f32).ln();
    ///     arena.set_value(w, &Tensor::from_slice(&gpu, &[distance, 0.0], &[2])?)?;
    ///     probe.record(step, &arena)?;
    /// }
    /// assert!((probe.fit_log(1)?.slope - 2.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn fit_log(&mut self, from: u64) -> Result<LogFit> {
        let curve: Vec<_> = self.curve()?.into_iter().filter(|p| p.0 >= from as f64).collect();
        fit_log(&curve)
    }
}

/// `d = intercept + slope ln t`, and beside it the power law `d = c t^exponent`, so that the claim can fail.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::train_longer::{LogFit, fit_log};
/// let points: Vec<(f64, f64)> = [1.0f64, 4.0, 9.0].iter().map(|t| (*t, t.sqrt())).collect();
/// let fit: LogFit = fit_log(&points)?;
/// assert!((fit.power_exponent - 0.5).abs() < 1e-9 && fit.r2 < fit.power_r2); // a root is no logarithm
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogFit {
    /// The distance at `t = 1` by the logarithm.
    pub intercept: f64,
    /// What an e-fold of the updates adds.
    pub slope: f64,
    /// Share of the variance that the logarithm explains.
    pub r2: f64,
    /// Exponent of the power law, fitted to logarithms of both.
    pub power_exponent: f64,
    /// Share of the variance that the power law explains.
    pub power_r2: f64,
}

/// Fits both laws by least squares to points `(t, d)`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::train_longer::fit_log;
/// let points: Vec<(f64, f64)> = (1..9).map(|t| (f64::from(t), 1.0 + 2.0 * f64::from(t).ln())).collect();
/// let fit = fit_log(&points)?;
/// assert!((fit.intercept - 1.0).abs() < 1e-9 && (fit.slope - 2.0).abs() < 1e-9 && fit.r2 > 0.999_999);
/// assert!(fit_log(&points[..2]).is_err());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// With fewer than three points, points that are not positive, or all at one `t`.
pub fn fit_log(points: &[(f64, f64)]) -> Result<LogFit> {
    let wrong = |what: &str| Err(Error::value("fit_log", what.to_string()));
    if points.len() < 3 {
        return wrong(&format!("{} points; give at least 3", points.len()));
    }
    if !points.iter().all(|&(t, d)| t > 0.0 && d > 0.0 && t.is_finite() && d.is_finite()) {
        return wrong("steps and distances must be positive; leave out step 0");
    }
    if points.iter().all(|p| p.0 == points[0].0) {
        return wrong("all points are of one step; give several");
    }
    let (intercept, slope) = line(points.iter().map(|&(t, d)| (t.ln(), d)));
    let (log_c, power_exponent) = line(points.iter().map(|&(t, d)| (t.ln(), d.ln())));
    let r2 = |law: &dyn Fn(f64) -> f64| {
        let mean = points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64;
        let total: f64 = points.iter().map(|p| (p.1 - mean).powi(2)).sum();
        let left: f64 = points.iter().map(|&(t, d)| (d - law(t)).powi(2)).sum();
        if total == 0.0 { f64::from(left == 0.0) } else { 1.0 - left / total }
    };
    Ok(LogFit {
        intercept,
        slope,
        r2: r2(&|t| intercept + slope * t.ln()),
        power_exponent,
        power_r2: r2(&|t| (log_c + power_exponent * t.ln()).exp()),
    })
}

/// Intercept and slope by least squares.
fn line(points: impl Iterator<Item = (f64, f64)> + Clone) -> (f64, f64) {
    let n = points.clone().count() as f64;
    let (sx, sy) = points.clone().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mx, my) = (sx / n, sy / n);
    let (xy, xx) = points.fold((0.0, 0.0), |(a, b), (x, y)| (a + (x - mx) * (y - my), b + (x - mx).powi(2)));
    (my - xy / xx * mx, xy / xx)
}

/// How the spread of the loss grows with the distance from a point: like the distance to the power `exponent / 2`.
///
/// ```
/// use shadegrad_models::papers::train_longer::Roughness;
/// let one = Roughness { exponent: 2.0, bins: vec![(0.5, 0.1), (1.0, 0.2), (2.0, 0.4)] };
/// assert_eq!(one.bins[2].1 / one.bins[0].1, 4.0); // four times as far, four times the spread
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Roughness {
    /// The estimate of the paper's alpha; 2 where the spread grows linearly.
    pub exponent: f64,
    /// Mean distance and standard deviation of the loss in each bin.
    pub bins: Vec<(f64, f64)>,
}

/// Draws `draws` points at distances up to `radius` in uniform directions around the values of `arena`, measures `loss`
/// there, and fits the spread in 20 bins. The values are put back.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::train_longer::roughness;
/// # let mut names = Builder::new();
/// # names.root().param("w", &[2], Init::Zeros);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// // A plane: its spread grows with the distance, which is an exponent of 2.
/// let plane = roughness(&arena, 1.0, 400, 0, || Ok(f64::from(arena.values_flat().to_vec()?[0])))?;
/// assert!((plane.exponent - 2.0).abs() < 0.5);
/// assert_eq!(arena.params().by_name("w")?.to_vec()?, [0.0, 0.0]); // the values are back
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If fewer than three bins hold two points that differ, or whatever `loss` reports.
pub fn roughness(
    arena: &Arena,
    radius: f64,
    draws: usize,
    seed: u64,
    mut loss: impl FnMut() -> Result<f64>,
) -> Result<Roughness> {
    const BINS: usize = 20;
    let kept = arena.snapshot()?;
    let start = arena.values_flat().to_vec()?;
    let mut philox = Philox::new(seed, 0x544c_0001_0000_0000);
    let mut found: Vec<Vec<(f64, f64)>> = vec![Vec::new(); BINS];
    let mut measure = || -> Result<()> {
        for _ in 0..draws {
            let r = philox.uniform_f64() * radius;
            // What pads the arena stays where it is.
            let mut direction = vec![0.0f64; start.len()];
            for entry in arena.table().entries() {
                direction[entry.offset..entry.offset + entry.len].fill_with(|| philox.normal());
            }
            let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            let moved: Vec<f32> =
                start.iter().zip(&direction).map(|(w, d)| (f64::from(*w) + r * d / norm) as f32).collect();
            arena.set_values_flat(&Tensor::from_slice(arena.gpu(), &moved, &[moved.len()])?)?;
            let bin = ((r / radius * BINS as f64) as usize).min(BINS - 1);
            found[bin].push((r, loss()?));
        }
        Ok(())
    };
    let measured = measure();
    arena.restore(&kept)?;
    measured?;
    let mut bins = Vec::new();
    for bin in found.iter().filter(|b| b.len() > 1) {
        let n = bin.len() as f64;
        let (r, mean) = bin.iter().fold((0.0, 0.0), |(r, l), p| (r + p.0 / n, l + p.1 / n));
        let deviation = (bin.iter().map(|p| (p.1 - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        if deviation > 0.0 && r > 0.0 {
            bins.push((r, deviation));
        }
    }
    if bins.len() < 3 {
        return Err(Error::value("roughness", format!("{draws} draws fill {} bins; take more draws", bins.len())));
    }
    let (_, slope) = line(bins.iter().map(|&(r, s)| (r.ln(), s.ln())));
    Ok(Roughness { exponent: 2.0 * slope, bins })
}
