//! Two networks that teach each other, the small one with both directions of the divergence: Amara, Sepahvand, Meyer, Gross
//! and Clark, "BD-KD: Balancing the Divergences for Online Knowledge Distillation", 2022, arXiv 2212.12965.
//!
//! A large teacher and a small student are trained together from the start. For each sample the student follows the
//! forward divergence `F = KL(p_t || p_s)`, which widens it, and the reverse one `R = KL(p_s || p_t)`, which sharpens it; the
//! one that moves its entropy towards the teacher's weighs `nu` times as much ([`BdKd`]). The student that comes out is to be
//! more accurate and better calibrated; [`Calibration`] measures that and [`TemperatureScaler`] is what it competes with.
//!
//! On models and data of one's own:
//!
//! ```
//! # use shadegrad::{Gpu, Options, data::digits, train::{Images, evaluate}};
//! use shadegrad::nn::{Arena, Builder, Cx, Linear, Module, Scope};
//! use shadegrad::optim::{Rule, schedule};
//! use shadegrad::{Result, Tensor};
//! use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Calibration, Learner, OnlineDistiller};
//! struct Net(Linear, Linear);
//! impl Net {
//!     fn new(s: &mut Scope<'_>, width: usize) -> Self {
//!         Self(Linear::new(&mut s.sub("hidden"), 64, width, true), Linear::new(&mut s.sub("out"), width, 10, true))
//!     }
//! }
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         self.1.forward(cx, &self.0.forward(cx, &x.flatten(1, 3)?)?.relu()?)
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! # let epochs = 2;
//! let (mut large, mut small) = (Builder::new(), Builder::new());
//! let (teacher, student) = (Net::new(&mut large.root(), 256), Net::new(&mut small.root(), 16));
//! let mut pair = OnlineDistiller {
//!     teacher: Learner::new(&teacher, Arena::new(&gpu, &large, 0)?, Rule::sgd(5e-4))?,
//!     student: Learner::new(&student, Arena::new(&gpu, &small, 1)?, Rule::sgd(5e-4))?,
//!     loss: BdKd::new(BdKdConfig::default())?,
//! };
//! pair.fit(&train, epochs, 100, 0, |step, steps| schedule::cosine(step, steps, 0.02, 0.0), |_, _| Ok(()))?;
//! let scores = evaluate(&student, &pair.student.eval(), &test, 200)?.logits;
//! let calibration = Calibration::from_logits(&scores, test.classes(), test.labels(), 15)?;
//! println!("student: accuracy {:.3}, ECE {:.3}", calibration.accuracy(), calibration.ece());
//! # Ok(())
//! # }
//! ```

mod calibration;
mod recipe;
#[cfg(test)]
mod tests;

pub use calibration::{Calibration, TemperatureScaler};

use shadegrad::data::Sampler;
use shadegrad::nn::{Arena, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{Images, LossMeter, Minibatch};
use shadegrad::{CrossEntropy, Error, Result, Tensor};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "bd-kd",
    title: "BD-KD: Balancing the Divergences for Online Knowledge Distillation",
    source: "arXiv 2212.12965",
    claim: "weighing both KL directions per sample gives students that are more accurate and better calibrated",
    data: "CIFAR-10",
    seeds: 3,
    recipe: Some(recipe::run),
};

/// What the student learns from the teacher.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Mode};
/// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
/// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
/// # let labels = Tensor::labels(&gpu, &[0], 2)?;
/// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
/// let config = BdKdConfig { mode: Mode::LabelsOnly, ..BdKdConfig::default() };
/// let loss = BdKd::new(config)?.student_loss(&student, &[&teacher], &labels)?;
/// assert!((loss.item()? - 2f32.ln()).abs() < 1e-5); // cross-entropy alone
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: both learn from the labels alone.
    LabelsOnly,
    /// The forward divergence (deep mutual learning, Zhang et al., 2018).
    Forward,
    /// The reverse divergence.
    Reverse,
    /// Both, with equal weights.
    Both,
    /// Both, balanced for each sample: the paper's.
    Balanced,
}

/// Options of [`BdKd`].
///
/// ```
/// use shadegrad_models::papers::bd_kd::{BdKdConfig, Mode};
/// let config = BdKdConfig { nu: 3.0, tau: 2.0, ..BdKdConfig::default() };
/// assert_eq!((config.lambda, config.mode), (1.0, Mode::Balanced));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BdKdConfig {
    /// Weight of the divergence that corrects the student's confidence, at least 1.
    pub nu: f32,
    /// Temperature of the divergences and entropies.
    pub tau: f32,
    /// Weight of the divergences in the student's loss.
    pub lambda: f32,
    /// Weight of the divergence in the teacher's loss.
    pub lambda_teacher: f32,
    /// What the student learns from the teacher.
    pub mode: Mode,
}

impl Default for BdKdConfig {
    fn default() -> Self {
        Self { nu: 2.0, tau: 1.0, lambda: 1.0, lambda_teacher: 1.0, mode: Mode::Balanced }
    }
}

/// The losses of a batch.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Losses};
/// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
/// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
/// # let labels = Tensor::labels(&gpu, &[0], 2)?;
/// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
/// let losses: Losses = BdKd::new(BdKdConfig::default())?.losses(&student, &teacher, &labels)?;
/// let forward = 0.75 * (0.75f32 / 0.5).ln() + 0.25 * (0.25f32 / 0.5).ln();
/// assert!((losses.forward.to_vec()?[0] - forward).abs() < 1e-5);
/// assert_eq!(losses.sharper.item()?, 0.0); // the student is the flatter one
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Losses {
    /// The student's; no gradient flows into the teacher.
    pub student: Tensor,
    /// The teacher's; none flows into the student.
    pub teacher: Tensor,
    /// `KL(p_t || p_s)` of each sample, `[n]`.
    pub forward: Tensor,
    /// `KL(p_s || p_t)` of each sample, `[n]`.
    pub reverse: Tensor,
    /// Share of the samples for which the student is sharper than the teacher, a scalar.
    pub sharper: Tensor,
}

/// The losses of online distillation with balanced divergences.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig};
/// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
/// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
/// # let labels = Tensor::labels(&gpu, &[0], 2)?;
/// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
/// let config = BdKdConfig { nu: 2.0, ..BdKdConfig::default() };
/// let losses = BdKd::new(config)?.losses(&student, &teacher, &labels)?;
/// // The student is too flat: the reverse divergence, which sharpens, counts twice.
/// let (f, r) = (losses.forward.to_vec()?[0], losses.reverse.to_vec()?[0]);
/// assert!((losses.student.item()? - (2f32.ln() + f + 2.0 * r)).abs() < 1e-5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BdKd {
    config: BdKdConfig,
}

/// What one network's outputs say about another's.
struct Divergences {
    forward: Tensor,
    reverse: Tensor,
    /// 1 where the first is sharper.
    sharper: Tensor,
    /// 1 where it is flatter.
    flatter: Tensor,
}

impl BdKd {
    /// Checks the options.
    ///
    /// ```
    /// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig};
    /// assert!(BdKd::new(BdKdConfig::default()).is_ok());
    /// assert!(BdKd::new(BdKdConfig { nu: 0.5, ..BdKdConfig::default() }).is_err());
    /// ```
    ///
    /// # Errors
    /// If `nu` is below 1, `tau` is not positive, or a weight is negative.
    pub fn new(config: BdKdConfig) -> Result<Self> {
        let BdKdConfig { nu, tau, lambda, lambda_teacher, .. } = config;
        let finite = [nu, tau, lambda, lambda_teacher].iter().all(|v| v.is_finite());
        if !finite || nu < 1.0 || tau <= 0.0 || lambda < 0.0 || lambda_teacher < 0.0 {
            return Err(Error::value(
                "BdKd",
                format!(
                    "nu {nu}, tau {tau}, weights {lambda} and {lambda_teacher}; nu is at least 1, tau positive, the weights \
                     0 or more"
                ),
            ));
        }
        Ok(Self { config })
    }

    /// Losses of both networks for logits `[n, classes]` and labels `[n]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig};
    /// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
    /// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
    /// # let labels = Tensor::labels(&gpu, &[0], 2)?;
    /// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
    /// let losses = BdKd::new(BdKdConfig::default())?.losses(&student, &teacher, &labels)?;
    /// let reverse = 0.5 * (0.5f32 / 0.75).ln() + 0.5 * (0.5f32 / 0.25).ln();
    /// assert!((losses.reverse.to_vec()?[0] - reverse).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn losses(&self, student: &Tensor, teacher: &Tensor, labels: &Tensor) -> Result<Losses> {
        let seen = self.divergences(&student.detach(), &teacher.detach())?;
        Ok(Losses {
            student: self.student_loss(student, &[teacher], labels)?,
            teacher: self.teacher_loss(teacher, &[student], labels)?,
            forward: seen.forward,
            reverse: seen.reverse,
            sharper: seen.sharper.mean(&[0], false)?,
        })
    }

    /// Loss of a student: its cross-entropy and the weighted divergences from each of `peers`, averaged over them. The
    /// peers get no gradient.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Mode};
    /// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
    /// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
    /// # let labels = Tensor::labels(&gpu, &[0], 2)?;
    /// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
    /// let method = BdKd::new(BdKdConfig { mode: Mode::Forward, ..BdKdConfig::default() })?;
    /// // The divergences of two peers are averaged; from itself there is none.
    /// let one = method.student_loss(&student, &[&teacher], &labels)?.item()? - 2f32.ln();
    /// let two = method.student_loss(&student, &[&teacher, &student], &labels)?.item()? - 2f32.ln();
    /// assert!((two - one / 2.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no peers, or the shapes do not fit.
    pub fn student_loss(&self, student: &Tensor, peers: &[&Tensor], labels: &Tensor) -> Result<Tensor> {
        let BdKdConfig { nu, tau, lambda, mode, .. } = self.config;
        let labelled = student.cross_entropy(labels, CrossEntropy::default())?;
        self.averaged(labelled, peers, lambda * tau * tau, |peer| {
            let d = self.divergences(student, &peer.detach())?;
            let balanced = |mask: &Tensor, kl: &Tensor| mask.mul_scalar(nu - 1.0)?.add_scalar(1.0)?.mul(kl);
            match mode {
                Mode::LabelsOnly => Ok(None),
                Mode::Forward => Ok(Some(d.forward)),
                Mode::Reverse => Ok(Some(d.reverse)),
                Mode::Both => Ok(Some(d.forward.add(&d.reverse)?)),
                Mode::Balanced => {
                    Ok(Some(balanced(&d.sharper, &d.forward)?.add(&balanced(&d.flatter, &d.reverse)?)?))
                }
            }
        })
    }

    /// Loss of a teacher: its cross-entropy and `KL(p_s || p_t)` for each of `students`, averaged over them. The students
    /// get no gradient.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig};
    /// # let student = Tensor::from_slice(&gpu, &[0.0, 0.0], &[1, 2])?;
    /// # let teacher = Tensor::from_slice(&gpu, &[3f32.ln(), 0.0], &[1, 2])?;
    /// # let labels = Tensor::labels(&gpu, &[0], 2)?;
    /// // One sample: the student says 1/2 and 1/2, the teacher 3/4 and 1/4.
    /// let method = BdKd::new(BdKdConfig::default())?;
    /// let reverse = 0.5 * (0.5f32 / 0.75).ln() + 0.5 * (0.5f32 / 0.25).ln();
    /// let loss = method.teacher_loss(&teacher, &[&student], &labels)?.item()?;
    /// assert!((loss - (-(0.75f32.ln()) + reverse)).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no students, or the shapes do not fit.
    pub fn teacher_loss(&self, teacher: &Tensor, students: &[&Tensor], labels: &Tensor) -> Result<Tensor> {
        let BdKdConfig { tau, lambda_teacher, mode, .. } = self.config;
        let labelled = teacher.cross_entropy(labels, CrossEntropy::default())?;
        self.averaged(labelled, students, lambda_teacher * tau * tau, |student| match mode {
            Mode::LabelsOnly => Ok(None),
            // From the teacher's side the student's is the fixed distribution that it has to cover.
            _ => Ok(Some(self.divergences(teacher, &student.detach())?.forward)),
        })
    }

    /// `labelled + factor * mean over the others and the samples of each divergence`.
    fn averaged(
        &self,
        labelled: Tensor,
        others: &[&Tensor],
        factor: f32,
        divergence: impl Fn(&Tensor) -> Result<Option<Tensor>>,
    ) -> Result<Tensor> {
        if others.is_empty() {
            return Err(Error::value("BdKd", "no other network to learn from; give at least one"));
        }
        let mut loss = labelled;
        for other in others {
            if let Some(each) = divergence(other)? {
                loss = loss.add(&each.mean(&[0], false)?.mul_scalar(factor / others.len() as f32)?)?;
            }
        }
        Ok(loss)
    }

    /// Divergences of `from` and `to`, as the student's from the teacher's.
    fn divergences(&self, from: &Tensor, to: &Tensor) -> Result<Divergences> {
        let [_, _] = *from.shape() else {
            return Err(Error::shape("BdKd", format!("logits {:?}; give [n, classes]", from.shape())));
        };
        if from.shape() != to.shape() {
            return Err(Error::shape(
                "BdKd",
                format!("logits of {:?} and of {:?}; both networks need the same batch and classes", from.shape(), to.shape()),
            ));
        }
        let log = |z: &Tensor| z.mul_scalar(1.0 / self.config.tau)?.log_softmax(1);
        let (ls, lt) = (log(from)?, log(to)?);
        let (ps, pt) = (ls.exp()?, lt.exp()?);
        let gap = lt.sub(&ls)?;
        let entropy = |p: &Tensor, l: &Tensor| p.detach().mul(&l.detach())?.sum(&[1], false)?.neg();
        let (hs, ht) = (entropy(&ps, &ls)?, entropy(&pt, &lt)?);
        Ok(Divergences {
            forward: pt.mul(&gap)?.sum(&[1], false)?,
            reverse: ps.mul(&gap)?.sum(&[1], false)?.neg()?,
            sharper: ht.gt(&hs)?,
            flatter: hs.gt(&ht)?,
        })
    }
}

/// A network with its parameters and optimiser.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::Rule;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::bd_kd::Learner;
/// # use shadegrad_models::Mlp;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let (mut large, mut small) = (Builder::new(), Builder::new());
/// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
/// // Two models for the digits: `big` with 16 hidden units, `little` with none.
/// let learner = Learner::new(&little, Arena::new(&gpu, &small, 1)?, Rule::sgd(5e-4))?;
/// let logits = learner.model.forward(&learner.eval(), &Tensor::zeros(&gpu, &[2, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct Learner<'a> {
    /// The network.
    pub model: &'a dyn Module,
    /// Its parameters.
    pub arena: Arena,
    /// What moves them.
    pub optimizer: Optimizer,
}

impl<'a> Learner<'a> {
    /// A network with the optimiser of `rule`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::Rule;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::bd_kd::Learner;
    /// # use shadegrad_models::Mlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let (mut large, mut small) = (Builder::new(), Builder::new());
    /// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
    /// // Two models for the digits: `big` with 16 hidden units, `little` with none.
    /// let learner = Learner::new(&big, Arena::new(&gpu, &large, 0)?, Rule::adamw(0.05))?;
    /// assert_eq!(learner.arena.table().numel(), (64 * 16 + 16) + (16 * 10 + 10));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(model: &'a dyn Module, arena: Arena, rule: Rule) -> Result<Self> {
        let optimizer = Optimizer::new(&arena, rule)?;
        Ok(Self { model, arena, optimizer })
    }

    /// Its parameters in evaluation.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::Rule;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::bd_kd::Learner;
    /// # use shadegrad_models::Mlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let (mut large, mut small) = (Builder::new(), Builder::new());
    /// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
    /// // Two models for the digits: `big` with 16 hidden units, `little` with none.
    /// let learner = Learner::new(&little, Arena::new(&gpu, &small, 1)?, Rule::sgd(5e-4))?;
    /// assert!(!learner.eval().training());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn eval(&self) -> Cx {
        Cx::eval(&self.arena)
    }

    fn update(&mut self, loss: &Tensor, lr: f32) -> Result<()> {
        self.arena.backward(loss)?;
        self.optimizer.step(&self.arena, lr)
    }
}

/// Trains a teacher and a student together.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::Rule;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Learner, OnlineDistiller};
/// # use shadegrad_models::Mlp;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let (mut large, mut small) = (Builder::new(), Builder::new());
/// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
/// // Two models for the digits: `big` with 16 hidden units, `little` with none.
/// let pair = OnlineDistiller {
///     teacher: Learner::new(&big, Arena::new(&gpu, &large, 0)?, Rule::sgd(5e-4))?,
///     student: Learner::new(&little, Arena::new(&gpu, &small, 1)?, Rule::sgd(5e-4))?,
///     loss: BdKd::new(BdKdConfig::default())?,
/// };
/// let sizes = [&pair.student, &pair.teacher].map(|l| l.arena.table().numel());
/// assert_eq!(sizes, [64 * 10 + 10, (64 * 16 + 16) + (16 * 10 + 10)]);
/// # Ok::<(), Error>(())
/// ```
pub struct OnlineDistiller<'a> {
    /// The large network.
    pub teacher: Learner<'a>,
    /// The small one, which is kept.
    pub student: Learner<'a>,
    /// What they learn from each other.
    pub loss: BdKd,
}

/// An epoch of [`OnlineDistiller::fit`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::Rule;
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Learner, OnlineDistiller};
/// use shadegrad_models::papers::bd_kd::Epoch;
/// # use shadegrad_models::Mlp;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let (mut large, mut small) = (Builder::new(), Builder::new());
/// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
/// // Two models for the digits: `big` with 16 hidden units, `little` with none.
/// # let pair_of = |loss| -> Result<OnlineDistiller<'_>> {
/// #     let teacher = Learner::new(&big, Arena::new(&gpu, &large, 0)?, Rule::sgd(5e-4))?;
/// #     Ok(OnlineDistiller { teacher, student: Learner::new(&little, Arena::new(&gpu, &small, 1)?, Rule::sgd(5e-4))?, loss })
/// # };
/// # let mut distiller = pair_of(BdKd::new(BdKdConfig::default())?)?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let mut last: Option<Epoch> = None;
/// distiller.fit(&images, 1, 20, 0, |_, _| 0.01, |_, epoch| Ok(last = Some(epoch)))?;
/// assert!(last.is_some_and(|e| e.epoch == 1 && (0.0..=1.0).contains(&e.sharper)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Mean loss of the student.
    pub student: f64,
    /// Mean loss of the teacher.
    pub teacher: f64,
    /// Share of samples for which the student was sharper than the teacher.
    pub sharper: f64,
}

impl OnlineDistiller<'_> {
    /// One step of both on the same pictures, from logits before either moved. `(seed, step)` decides dropout.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::Rule;
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Learner, OnlineDistiller};
    /// # use shadegrad_models::Mlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let (mut large, mut small) = (Builder::new(), Builder::new());
    /// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
    /// // Two models for the digits: `big` with 16 hidden units, `little` with none.
    /// # let (teacher, student) = (Arena::new(&gpu, &large, 0)?, Arena::new(&gpu, &small, 1)?);
    /// # let teacher = Learner::new(&big, teacher, Rule::sgd(5e-4))?;
    /// # let student = Learner::new(&little, student, Rule::sgd(5e-4))?;
    /// # let mut distiller = OnlineDistiller { teacher, student, loss: BdKd::new(BdKdConfig::default())? };
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let losses = distiller.step(&images.plain(&[0, 1, 2])?, 0.01, (0, 0))?;
    /// assert_eq!(losses.forward.shape(), [3]); // a divergence for each picture
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the models and the device.
    pub fn step(&mut self, batch: &Minibatch, lr: f32, (seed, step): (u64, u64)) -> Result<Losses> {
        let forward =
            |l: &Learner| l.model.forward(&Cx::train(&l.arena).seeded(seed, step), &batch.images);
        let (zt, zs) = (forward(&self.teacher)?, forward(&self.student)?);
        let losses = self.loss.losses(&zs, &zt, &batch.labels)?;
        self.teacher.update(&losses.teacher, lr)?;
        self.student.update(&losses.student, lr)?;
        Ok(losses)
    }

    /// Trains for `epochs` passes in batches of `batch`, shuffled by `seed`; `rate` gives the learning rate of a step of
    /// all; `each` is told of every epoch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Rule, schedule};
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::bd_kd::{BdKd, BdKdConfig, Learner, OnlineDistiller};
    /// # use shadegrad_models::Mlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let (mut large, mut small) = (Builder::new(), Builder::new());
    /// # let (big, little) = (Mlp::new(&mut large.root(), &spec, &[16]), Mlp::new(&mut small.root(), &spec, &[]));
    /// // Two models for the digits: `big` with 16 hidden units, `little` with none.
    /// # let (teacher, student) = (Arena::new(&gpu, &large, 0)?, Arena::new(&gpu, &small, 1)?);
    /// # let teacher = Learner::new(&big, teacher, Rule::sgd(5e-4))?;
    /// # let student = Learner::new(&little, student, Rule::sgd(5e-4))?;
    /// # let mut distiller = OnlineDistiller { teacher, student, loss: BdKd::new(BdKdConfig::default())? };
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let (mut losses, rate) = (Vec::new(), |step, steps| schedule::cosine(step, steps, 0.02, 0.0));
    /// distiller.fit(&images, 2, 10, 0, rate, |_, epoch| Ok(losses.push(epoch.student)))?;
    /// assert_eq!(losses.len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a loss is; whatever the models or `each` report.
    pub fn fit(
        &mut self,
        train: &Images,
        epochs: u64,
        batch: usize,
        seed: u64,
        rate: impl Fn(u64, u64) -> f32,
        mut each: impl FnMut(&Self, Epoch) -> Result<()>,
    ) -> Result<()> {
        let mut batches = Sampler::new(train.len(), batch)?.seed(seed);
        let steps = epochs * batches.batches_per_epoch();
        let meter = || LossMeter::new(self.student.arena.gpu(), 64);
        let (mut student, mut teacher, mut sharper) = (meter()?, meter()?, meter()?);
        let mut step = 0;
        for epoch in 1..=epochs {
            while let Some(drawn) = batches.next_batch() {
                let n = drawn.indices.len();
                let losses = self.step(&train.plain(&drawn.indices)?, rate(step, steps), (seed, step))?;
                student.push(&losses.student, n)?;
                teacher.push(&losses.teacher, n)?;
                sharper.push(&losses.sharper, n)?;
                step += 1;
            }
            let mean = |m: &mut LossMeter| Ok::<_, Error>(m.end_epoch()?.unwrap_or(f64::NAN));
            let told = Epoch {
                epoch,
                student: mean(&mut student)?,
                teacher: mean(&mut teacher)?,
                sharper: mean(&mut sharper)?,
            };
            each(self, told)?;
        }
        Ok(())
    }
}
