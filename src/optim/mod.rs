//! Optimisers, schedules and averages over a model's [`Arena`].
//!
//! ```
//! # use shadegrad::{Error, Gpu, Options, Tensor, nn::{Builder, Linear}};
//! use shadegrad::nn::{Arena, Cx, Module};
//! use shadegrad::optim::{Optimizer, Rule, schedule};
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let mut names = Builder::new();
//! # let model = Linear::new(&mut names.root(), 2, 1, true);
//! # let arena = Arena::new(&gpu, &names, 0)?;
//! # let x = Tensor::ones(&gpu, &[4, 2])?;
//! let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.05))?.clip_norm(1.0).skip_nonfinite();
//! for step in 0..20 {
//!     let loss = model.forward(&Cx::train(&arena).seeded(0, step), &x)?.square()?.mean_all()?;
//!     arena.backward(&loss)?;
//!     optimizer.step(&arena, schedule::warmup(step, 5, schedule::cosine(step, 20, 1e-2, 0.0)))?;
//! }
//! assert_eq!(optimizer.report()?.applied, 20);
//! # Ok::<(), Error>(())
//! ```

mod change;
mod ema;
mod rule;
mod scaling;
pub mod schedule;

pub use change::RelativeChange;
pub use ema::Ema;
pub use rule::Rule;
pub use scaling::LossScaling;

use shadegrad_kernels::Storage;
use shadegrad_kernels::optim as k;

use crate::error::{Error, Result};
use crate::nn::Arena;
use crate::optim::scaling::Scaler;
use crate::tensor::{DType, Tensor};

/// What an optimiser did so far, read from the device.
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.measure_norm();
/// for size in [2.0, 4.0] {
///     arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], size)?)?.sum_all()?)?;
///     optimizer.step(&arena, 0.1)?;
/// }
/// let Report { norm, applied, skipped } = optimizer.report()?;
/// assert_eq!((norm.round(), applied, skipped), (4.0, 2, 0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Norm of all gradients at the last step, before clipping; 0 if nothing asked for it.
    pub norm: f32,
    /// Steps taken.
    pub applied: u64,
    /// Steps skipped because a gradient was not finite.
    pub skipped: u64,
}

/// Moves an arena's values along its gradients, all parameters in one dispatch (two with LAMB and LARS).
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Linear::new(&mut names.root(), 1, 1, false);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.clip_norm(1.0);
/// let before = arena.params().get(layer.weight()).to_vec()?[0];
/// let loss = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 50.0)?)?.sum_all()?;
/// arena.backward(&loss)?; // a gradient of 50, clipped to 1
/// optimizer.step(&arena, 0.5)?;
/// let after = arena.params().get(layer.weight()).to_vec()?[0];
/// assert!((before - after - 0.5).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
pub struct Optimizer {
    rule: Rule,
    max_norm: Option<f32>,
    max_value: Option<f32>,
    skip: bool,
    measure: bool,
    moments: Vec<Tensor>,
    scalars: Tensor,
    partials: Storage,
    /// LAMB and LARS: sums by block, first block and number of blocks of each parameter.
    adapt: Option<(Storage, Storage)>,
    scaler: Option<Scaler>,
}

/// The scaler's part of the state.
const LOSS_SCALE: &str = "loss_scale";

impl Optimizer {
    /// An optimiser for this arena, its moments at zero.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 2.0)?)?.sum_all()?)?;
    /// optimizer.step(&arena, 0.25)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.5]); // 1 - 0.25 * 2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is out of range, or the device refuses.
    pub fn new(arena: &Arena, rule: Rule) -> Result<Self> {
        rule.check()?;
        let (gpu, table) = (arena.gpu(), arena.table());
        let zeros = |floats: usize| {
            let t = Tensor::empty(gpu, &[floats], DType::F32, "optimiser")?;
            gpu.zero(t.storage())?;
            Ok::<_, Error>(t)
        };
        let adapt = if rule.adapts() {
            let spans: Vec<[u32; 2]> =
                (table.entries().iter()).map(|e| [(e.offset / 64) as u32, e.len.max(1).div_ceil(64) as u32]).collect();
            let of_tensors = gpu.alloc_from(&spans, "optimiser")?;
            Some((gpu.alloc((table.floats() / 64 * 8) as u64, "optimiser")?, of_tensors))
        } else {
            None
        };
        Ok(Self {
            moments: (0..rule.moments()).map(|_| zeros(table.floats())).collect::<Result<_>>()?,
            scalars: zeros(k::SCALARS + 4 * table.len())?,
            partials: gpu.alloc(k::PARTIALS as u64 * 8, "optimiser")?,
            rule,
            max_norm: None,
            max_value: None,
            skip: false,
            measure: false,
            adapt,
            scaler: None,
        })
    }

    /// Scales gradients down so that their joint norm is at most `max`, as PyTorch's `clip_grad_norm_`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.clip_norm(1.0);
    /// let x = Tensor::from_slice(&gpu, &[30.0, 40.0], &[1, 2])?; // a gradient of norm 50
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// optimizer.step(&arena, 1.0)?;
    /// let w = arena.params().get(layer.weight()).to_vec()?; // 1 - 0.6 and 1 - 0.8
    /// assert!((w[0] - 0.4).abs() < 1e-5 && (w[1] - 0.2).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn clip_norm(mut self, max: f32) -> Self {
        self.max_norm = Some(max);
        self
    }

    /// Clips each element of the gradients to `-max..=max`, after [`Optimizer::clip_norm`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.clip_value(1.0);
    /// let x = Tensor::from_slice(&gpu, &[8.0, -0.5], &[1, 2])?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// optimizer.step(&arena, 0.5)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.5, 1.25]); // steps along 1 and -0.5
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn clip_value(mut self, max: f32) -> Self {
        self.max_value = Some(max);
        self
    }

    /// Leaves out steps whose gradients hold a NaN or an infinity; [`Optimizer::report`] counts them.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.skip_nonfinite();
    /// let x = Tensor::full(&gpu, &[1, 1], f32::INFINITY)?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// optimizer.step(&arena, 0.1)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0]); // as it was
    /// assert_eq!(optimizer.report()?.skipped, 1);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn skip_nonfinite(mut self) -> Self {
        self.skip = true;
        self
    }

    /// Expects gradients of [`Optimizer::scale_loss`] and divides them by that factor before anything else looks at them.
    /// Steps whose gradients hold a NaN or an infinity are left out, as with [`Optimizer::skip_nonfinite`], and the
    /// factor follows: all on the device, without waiting for it. The factor is part of [`Optimizer::state`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let options = LossScaling { init: 1024.0, ..LossScaling::default() };
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.loss_scaling(options)?;
    /// let loss = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 2.0)?)?.sum_all()?;
    /// arena.backward(&optimizer.scale_loss(&loss)?)?; // a gradient of 2048
    /// optimizer.step(&arena, 0.25)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.5]); // 1 - 0.25 * 2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is out of range, or the device refuses.
    pub fn loss_scaling(mut self, options: LossScaling) -> Result<Self> {
        self.scaler = Some(Scaler::new(self.scalars.gpu(), options)?);
        self.skip = true;
        Ok(self)
    }

    /// Whether there is a factor.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let plain = Optimizer::new(&arena, Rule::sgd(0.0))?;
    /// assert!(!plain.scales_loss() && plain.loss_scaling(LossScaling::default())?.scales_loss());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn scales_loss(&self) -> bool {
        self.scaler.is_some()
    }

    /// The loss times the factor, to take the gradients of; the loss itself without [`Optimizer::loss_scaling`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let optimizer = Optimizer::new(&arena, Rule::adam())?.loss_scaling(LossScaling::default())?;
    /// let loss = Tensor::scalar(&gpu, 0.5)?;
    /// assert_eq!(optimizer.scale_loss(&loss)?.item()?, 32768.0); // 65536 at first
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn scale_loss(&self, loss: &Tensor) -> Result<Tensor> {
        self.scaler.as_ref().map_or(Ok(loss.clone()), |s| loss.mul(&s.factor()?))
    }

    /// The factor of the next step, if there is one; waits for the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let plain = Optimizer::new(&arena, Rule::adam())?;
    /// assert_eq!(plain.loss_factor()?, None);
    /// assert_eq!(plain.loss_scaling(LossScaling::default())?.loss_factor()?, Some(65536.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn loss_factor(&self) -> Result<Option<f32>> {
        self.scaler.as_ref().map(|s| s.factor()?.item()).transpose()
    }

    /// Computes the norm for [`Optimizer::report`] even if nothing is clipped.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.measure_norm();
    /// let x = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// optimizer.step(&arena, 0.1)?;
    /// assert!((optimizer.report()?.norm - 5.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn measure_norm(mut self) -> Self {
        self.measure = true;
        self
    }

    /// The rule and its numbers, which may change between steps; its kind may not.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let optimizer = Optimizer::new(&arena, Rule::adamw(0.05))?;
    /// assert_eq!(optimizer.rule(), Rule::adamw(0.05));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Changes the rule's numbers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.05))?;
    /// optimizer.set_rule(Rule::adamw(0.1))?; // a schedule of the weight decay
    /// assert_eq!(optimizer.rule(), Rule::adamw(0.1));
    /// assert!(optimizer.set_rule(Rule::sgd(0.1)).is_err()); // other moments
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is out of range, or the new rule keeps other moments.
    pub fn set_rule(&mut self, rule: Rule) -> Result<()> {
        rule.check()?;
        if std::mem::discriminant(&rule) != std::mem::discriminant(&self.rule) || rule.moments() != self.moments.len() {
            return Err(Error::value("optimizer", format!("{rule:?} cannot follow {:?}; make a new one", self.rule)));
        }
        self.rule = rule;
        Ok(())
    }

    /// One step with learning rate `lr`, times each group's multiplier. Masked parameters stay at zero (their gradients
    /// are set to zero, too), frozen ones as they are, with their moments and their own count of steps.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let plain = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    /// let mut optimizer = Optimizer::new(&arena, plain)?;
    /// for step in 0..3 {
    ///     let y = layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[1, 1])?)?;
    ///     arena.backward(&y.sum_all()?)?;
    ///     optimizer.step(&arena, schedule::warmup(step, 2, 0.25))?; // the rate of this step
    /// }
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.375]); // 1 - 0.125 - 0.25 - 0.25
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another model, or the device refuses.
    pub fn step(&mut self, arena: &Arena, lr: f32) -> Result<()> {
        let (gpu, n) = (arena.gpu(), arena.table().floats());
        if let Some(m) = self.moments.first().filter(|m| m.numel() != n) {
            return Err(Error::Params(format!("the optimiser is for {} floats, the arena has {n}", m.numel())));
        }
        let flat = k::Flat {
            grads: arena.grads_flat().storage(),
            owners: arena.owners(),
            rows: arena.rows(),
            scalars: self.scalars.storage(),
            values: arena.values_flat().storage(),
            n,
        };
        if let Some(mask) = arena.mask_flat() {
            k::mask(gpu, mask.storage(), flat.grads, n)?;
        }
        if let Some(scaler) = &self.scaler {
            scaler.unscale(arena)?;
        }
        let mut h = self.rule.hyper(lr);
        if let Some(max) = self.max_value {
            (h.clip, h.flags) = (max, h.flags | k::CLIP);
        }
        let wanted = self.max_norm.is_some() || self.skip || self.measure;
        let count = if wanted { k::norm(gpu, flat, &self.partials)? } else { 0 };
        let tensors = arena.table().len();
        k::prepare(gpu, (&self.partials, count), flat, tensors, self.max_norm, self.skip, h.betas)?;
        let rule = self.rule.kernel(&self.moments);
        if let Some((sums, spans)) = &self.adapt {
            k::measure(gpu, rule, flat, h, sums, (spans, arena.table().len()))?;
        }
        k::step(gpu, rule, flat, h)?;
        if let Some(scaler) = &self.scaler {
            scaler.follow(&self.scalars)?;
        }
        arena.apply_mask()
    }

    /// Norm and counts; waits for the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.skip_nonfinite();
    /// for value in [1.0, f32::NAN, 1.0] {
    ///     arena.set_grads_flat(&Tensor::full(&gpu, &[arena.table().floats()], value)?)?;
    ///     optimizer.step(&arena, 0.1)?;
    /// }
    /// let report = optimizer.report()?;
    /// assert_eq!((report.applied, report.skipped), (2, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn report(&self) -> Result<Report> {
        let s = self.scalars.to_vec()?;
        Ok(Report { norm: s[6], applied: s[7] as u64, skipped: s[5] as u64 })
    }

    /// All that a checkpoint must keep, as flat tensors over the optimiser's own memory: the moments, each laid out as
    /// the arena's table says, the scalars (counts and bias corrections of all and of each parameter) and the factor of
    /// the loss with its counts.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// let names: Vec<&str> = optimizer.state().iter().map(|(name, _)| *name).collect();
    /// assert_eq!(names, ["moment1", "moment2", "scalars"]);
    /// assert_eq!(optimizer.state()[0].1.shape(), [arena.table().floats()]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let names = ["moment1", "moment2", "moment3"];
        let moments = names.into_iter().zip(&self.moments);
        let scaler = self.scaler.iter().map(|s| (LOSS_SCALE, &s.state));
        moments.chain([("scalars", &self.scalars)]).chain(scaler).collect()
    }

    /// Sets the state back to values that [`Optimizer::state`] gave. Where those have no factor of the loss, because the
    /// run was not in mixed precision, it stays as it is.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let saved: Vec<(String, Vec<f32>)> = Optimizer::new(&arena, Rule::adam())?
    ///     .state()
    ///     .into_iter()
    ///     .map(|(name, values)| Ok((name.to_string(), values.to_vec()?)))
    ///     .collect::<Result<_>>()?;
    /// Optimizer::new(&arena, Rule::adam())?.load_state(&saved)?;
    /// assert!(Optimizer::new(&arena, Rule::amsgrad())?.load_state(&saved).is_err()); // which keeps a third moment
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If names or lengths differ; then nothing is changed.
    pub fn load_state(&mut self, state: &[(String, Vec<f32>)]) -> Result<()> {
        let mine = self.state();
        for (name, tensor) in &mine {
            match state.iter().find(|(n, _)| n == name) {
                Some((_, data)) if data.len() == tensor.numel() => {}
                None if *name == LOSS_SCALE => {}
                found => {
                    let got = found.map_or("nothing".to_string(), |(_, d)| format!("{} floats", d.len()));
                    return Err(Error::Params(format!(
                        "optimiser state `{name}` has {} floats, the checkpoint holds {got}; it is that of another \
                         model or rule",
                        tensor.numel()
                    )));
                }
            }
        }
        for (name, tensor) in mine {
            for (_, data) in state.iter().filter(|(n, _)| n == name) {
                tensor.gpu().upload(tensor.storage(), bytemuck::cast_slice(data))?;
            }
        }
        Ok(())
    }
}
