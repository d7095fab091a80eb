//! How much of a label is left in its noised embedding: the discrete schedule.

use shadegrad::{Error, Result};

/// The shares of the signal `abar_0 < .. < abar_T` of the noised embeddings `z_t ~ N(sqrt(abar_t) u, (1 - abar_t) I)`, and what
/// follows from them. `abar` GROWS with `t`: `z_0` is nearly noise, `z_T` nearly clean. (Most texts on diffusion count the
/// other way round.)
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::noprop::Schedule;
/// let schedule = Schedule::standard(10)?;
/// assert_eq!((schedule.blocks(), schedule.shares().len()), (10, 11));
/// assert!(schedule.shares().is_sorted()); // the last embedding is nearly clean
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    abar: Vec<f64>,
}

impl Schedule {
    /// `abar_t = clamp(cos^2(pi / 2 (1 - t / T + s) / (1 + s)), lo, hi)` for `t = 0..=T` with `T = blocks`.
    ///
    /// The paper says "cosine schedule" and gives no formula; this is Nichol and Dhariwal's ("Improved denoising diffusion
    /// probabilistic models", 2021), turned round and clamped, with which `s = 0.008`, `lo = 0.001`, `hi = 0.999` are meant
    /// to be used. The upper clamp decides the weight of the last block alone: without it SNR(T) is 6434.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::Schedule;
    /// let schedule = Schedule::cosine(4, 0.0, 0.001, 0.999)?;
    /// assert!((schedule.abar(2)? - 0.5).abs() < 1e-12); // half way
    /// assert!(Schedule::cosine(4, 0.0, 0.9, 0.1).is_err()); // the clamps are exchanged
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Schedule::from_abar`]: from 50 blocks on a lower clamp of 0.001 makes the first two shares equal.
    pub fn cosine(blocks: usize, s: f64, lo: f64, hi: f64) -> Result<Self> {
        if !s.is_finite() || s < 0.0 || lo.is_nan() || hi.is_nan() || lo >= hi {
            return Err(Error::value("Schedule", format!("offset {s}, clamps {lo} and {hi}; offset >= 0, lo < hi")));
        }
        let share = |t: usize| {
            let from_end = 1.0 - t as f64 / blocks.max(1) as f64;
            let angle = std::f64::consts::FRAC_PI_2 * (from_end + s) / (1.0 + s);
            angle.cos().powi(2).clamp(lo, hi)
        };
        Self::from_abar(&(0..=blocks).map(share).collect::<Vec<_>>())
    }

    /// [`Schedule::cosine`] with the numbers meant for it.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::Schedule;
    /// assert_eq!(Schedule::standard(10)?, Schedule::cosine(10, 0.008, 1e-3, 0.999)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Schedule::cosine`].
    pub fn standard(blocks: usize) -> Result<Self> {
        Self::cosine(blocks, 0.008, 1e-3, 0.999)
    }

    /// The schedule of these shares, `abar_0` first.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::Schedule;
    /// assert_eq!(Schedule::from_abar(&[0.1, 0.5, 0.9])?.blocks(), 2);
    /// assert!(Schedule::from_abar(&[0.5, 0.1]).is_err()); // they must rise
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two, one does not lie strictly between 0 and 1, or they do not rise strictly.
    pub fn from_abar(abar: &[f64]) -> Result<Self> {
        if abar.len() < 2 {
            return Err(Error::value("Schedule", format!("{} shares; give abar_0 to abar_T with T >= 1", abar.len())));
        }
        if let Some(t) = abar.iter().position(|a| !(*a > 0.0 && *a < 1.0)) {
            return Err(Error::value("Schedule", format!("abar_{t} is {}; it must lie strictly between 0 and 1", abar[t])));
        }
        if let Some(t) = abar.windows(2).position(|w| w[1] <= w[0]) {
            let (a, b) = (abar[t], abar[t + 1]);
            let text = format!("abar_{t} = {a} and abar_{} = {b} do not rise; move the clamps further apart", t + 1);
            return Err(Error::value("Schedule", text));
        }
        Ok(Self { abar: abar.to_vec() })
    }

    /// The number of blocks `T`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert_eq!(schedule.blocks(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn blocks(&self) -> usize {
        self.abar.len() - 1
    }

    /// All shares, `abar_0` to `abar_T`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert_eq!(schedule.shares(), [0.25, 0.5, 0.75]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shares(&self) -> &[f64] {
        &self.abar
    }

    /// `abar_t` for `t` in `0..=T`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert_eq!(schedule.abar(1)?, 0.5);
    /// assert!(schedule.abar(3).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `t` is larger.
    pub fn abar(&self, t: usize) -> Result<f64> {
        self.abar.get(t).copied().ok_or_else(|| {
            Error::value("Schedule", format!("time {t} of a schedule of {} blocks; times are 0..=blocks", self.blocks()))
        })
    }

    /// The signal-to-noise ratio `abar_t / (1 - abar_t)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert_eq!((schedule.snr(1)?, schedule.snr(2)?), (1.0, 3.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Schedule::abar`].
    pub fn snr(&self, t: usize) -> Result<f64> {
        let abar = self.abar(t)?;
        Ok(abar / (1.0 - abar))
    }

    /// `SNR(t) - SNR(t - 1)` for `t` in `1..=T`: the weight of the error of block `t` in the bound.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert_eq!(schedule.gain(2)?, 3.0 - 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `t` is 0 or larger than `T`.
    pub fn gain(&self, t: usize) -> Result<f64> {
        Ok(self.snr(t)? - self.snr(self.before(t)?)?)
    }

    /// `(a_t, b_t, c_t)` of `q(z_t | z_(t-1), y) = N(a_t u_y + b_t z_(t-1), c_t I)`, for `t` in `1..=T` (the paper's posterior).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// let (a, b, c) = schedule.coeffs(2)?;
    /// assert!((c - 1.0 / 6.0).abs() < 1e-12);
    /// // The mean stays on the way from one marginal to the next.
    /// assert!((a + b * 0.5f64.sqrt() - 0.75f64.sqrt()).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `t` is 0 or larger than `T`.
    pub fn coeffs(&self, t: usize) -> Result<(f64, f64, f64)> {
        let (now, before) = (self.abar(t)?, self.abar(self.before(t)?)?);
        // abar_(t-1) = alpha_(t-1) abar_t.
        let alpha = before / now;
        let rest = 1.0 - before;
        Ok((now.sqrt() * (1.0 - alpha) / rest, alpha.sqrt() * (1.0 - now) / rest, (1.0 - now) * (1.0 - alpha) / rest))
    }

    /// `(a, b)` of the step without noise `z_t = a u + b z_(t-1)`, which keeps the noise that `z_(t-1)` holds: an exact `u` maps
    /// `sqrt(abar_(t-1)) u + sqrt(1 - abar_(t-1)) e` to `sqrt(abar_t) u + sqrt(1 - abar_t) e`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// let (a, b) = schedule.quiet(2)?;
    /// assert!((a + b * 0.5f64.sqrt() - 0.75f64.sqrt()).abs() < 1e-12); // the signal
    /// assert!((b * 0.5f64.sqrt() - 0.25f64.sqrt()).abs() < 1e-12); // and the noise
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `t` is 0 or larger than `T`.
    pub fn quiet(&self, t: usize) -> Result<(f64, f64)> {
        let (now, before) = (self.abar(t)?, self.abar(self.before(t)?)?);
        let keep = ((1.0 - now) / (1.0 - before)).sqrt();
        Ok((now.sqrt() - keep * before.sqrt(), keep))
    }

    /// `KL(q(z_0 | y) || N(0, I))` for an embedding of `dim` numbers with the squared norm `square`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::noprop::Schedule;
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// // Two blocks, with shares of the signal 0.25, 0.5 and 0.75.
    /// assert!((schedule.prior(1.0, 1) + 0.5 * 0.75f64.ln()).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn prior(&self, square: f64, dim: usize) -> f64 {
        let (abar, dim) = (self.abar[0], dim as f64);
        0.5 * (abar * square - dim * abar - dim * (-abar).ln_1p())
    }

    fn before(&self, t: usize) -> Result<usize> {
        t.checked_sub(1).ok_or_else(|| Error::value("Schedule", "step 0; steps are counted from 1"))
    }
}
