//! Discrete time: T blocks with weights of their own.

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Builder, Cx, Scope, Weight};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::train::LossMeter;
use shadegrad::{CrossEntropy, Error, Gpu, Result, Tensor};

use super::head::{Head, mean_square_error};
use super::{Block, Embedding, Epoch, Losses, Samples, Schedule, Settings};
use super::{batches, noise, normal, pass, run_block, total, train};
use crate::papers::shared::joint::backward_into;

/// T blocks that each learn alone to denoise the label (the paper's algorithm 1), the class embeddings and the layer that
/// reads a class, which all of them share.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
/// # let settings = Settings { batch: 2, ..Settings::discrete() };
/// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
/// net.fit(&(x.clone(), vec![0, 1]), 2, |_, _| Ok(()))?;
/// let probabilities = net.predict(&x, 1, Stream::new(1, 0))?;
/// assert_eq!(probabilities.shape(), [2, 2]);
/// # Ok::<(), Error>(())
/// ```
pub struct NoPropDt<B> {
    gpu: Gpu,
    seed: u64,
    schedule: Schedule,
    settings: Settings,
    head: Head,
    shared: Learner,
    blocks: Vec<Slot<B>>,
    steps: u64,
}

/// Parameters and what moves them, on the device.
struct Learner {
    arena: Arena,
    optimizer: Optimizer,
}

impl Learner {
    fn new(gpu: &Gpu, names: &Builder, seed: u64, rule: Rule) -> Result<Self> {
        let arena = Arena::new(gpu, names, seed)?;
        let optimizer = Optimizer::new(&arena, rule)?;
        Ok(Self { arena, optimizer })
    }

    fn park(&self) -> Result<Parked> {
        let moments = self.optimizer.state().into_iter().map(|(name, t)| Ok((name.to_string(), t.to_vec()?)));
        Ok(Parked { weights: self.arena.state()?, moments: moments.collect::<Result<_>>()? })
    }
}

/// A learner on the host.
struct Parked {
    weights: Vec<Weight>,
    moments: Vec<(String, Vec<f32>)>,
}

struct Slot<B> {
    block: B,
    names: Builder,
    place: Place,
}

enum Place {
    Device(Box<Learner>),
    Host(Parked),
}

/// How a prediction runs; the default is the paper's.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
/// use shadegrad_models::papers::noprop::Chain;
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
/// # let settings = Settings { batch: 2, ..Settings::discrete() };
/// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
/// let how = Chain { quiet_end: true, ..Chain::default() };
/// // Without noise in the last step the others differ by theirs alone.
/// let [a, b] = [net.path(&x, how, Stream::new(1, 0))?, net.path(&x, Chain::default(), Stream::new(1, 0))?];
/// assert_eq!(a[1].to_vec()?, b[1].to_vec()?);
/// assert_ne!(a[2].to_vec()?, b[2].to_vec()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The last step adds no noise.
    pub quiet_end: bool,
    /// The blocks run in the order T to 1, a control: they are not one function.
    pub reversed: bool,
}

impl<B: Block> NoPropDt<B> {
    /// One block for each step of `schedule`; `make` builds block `t` (from 1) in a scope of its own. `seed` decides first
    /// values, order and noise.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::schedule;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// struct Tiny(Linear);
    /// impl Block for Tiny {
    ///     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    ///         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    ///     }
    /// }
    /// let make = |s: &mut Scope<'_>, _block: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 3, 3, true)));
    /// let (embedding, schedule) = (Embedding::OneHot, Schedule::standard(4)?);
    /// let net = NoPropDt::new(&gpu, 0, 3, &embedding, schedule, Settings::discrete(), make)?;
    /// assert_eq!(net.parameters()?, 4 * (5 * 3 + 3) + (3 * 3 + 3)); // four blocks, and what reads a class
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two classes, embeddings have another size than their number of classes asks for, a setting
    /// is out of range, a block has no parameters, or the device refuses.
    pub fn new(
        gpu: &Gpu,
        seed: u64,
        classes: usize,
        embedding: &Embedding,
        schedule: Schedule,
        settings: Settings,
        mut make: impl FnMut(&mut Scope<'_>, usize) -> Result<B>,
    ) -> Result<Self> {
        settings.check()?;
        let mut names = Builder::new();
        let head = Head::new(&mut names.root(), classes, embedding, Some(settings.readout))?;
        let shared = Learner::new(gpu, &names, seed, settings.rule)?;
        head.fill(&shared.arena)?;
        let mut blocks = Vec::with_capacity(schedule.blocks());
        for t in 1..=schedule.blocks() {
            let mut names = Builder::new();
            // First values follow from names: without the number all blocks would begin alike.
            let block = make(&mut names.root().sub("blocks").sub(t), t)?;
            let learner = Learner::new(gpu, &names, seed, settings.rule)?;
            let place = if settings.park { Place::Host(learner.park()?) } else { Place::Device(Box::new(learner)) };
            blocks.push(Slot { block, names, place });
        }
        Ok(Self { gpu: gpu.clone(), seed, schedule, settings, head, shared, blocks, steps: 0 })
    }

    /// The schedule.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// assert_eq!(net.schedule().shares(), [0.25, 0.5, 0.75]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Length of an embedding.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// assert_eq!(net.dim(), 2); // a number for each class
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dim(&self) -> usize {
        self.head.dim
    }

    /// The parameters of block `t`, from 1; `None` while it is parked or where there is none.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// assert!(net.arena(1).is_some_and(|a| a.table().numel() == 4 * 2 + 2));
    /// assert!(net.arena(3).is_none()); // there are two blocks
    /// # Ok::<(), Error>(())
    /// ```
    pub fn arena(&self, t: usize) -> Option<&Arena> {
        match &self.blocks.get(t.checked_sub(1)?)?.place {
            Place::Device(learner) => Some(&learner.arena),
            Place::Host(_) => None,
        }
    }

    /// What all blocks share: `embedding` where it is trained, `out.weight` and `out.bias`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// assert!(net.shared().table().find("out.weight").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shared(&self) -> &Arena {
        &self.shared.arena
    }

    /// Trainable parameters of all blocks and of what they share.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// assert_eq!(net.parameters()?, 2 * (4 * 2 + 2) + (2 * 2 + 2));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a block gave a name twice.
    pub fn parameters(&self) -> Result<usize> {
        let own = self.shared.arena.table().numel();
        self.blocks.iter().try_fold(own, |sum, slot| Ok(sum + slot.names.tables()?.0.numel()))
    }

    /// Puts block `t` on the device or on the host.
    fn settle(&mut self, t: usize, on_device: bool) -> Result<()> {
        let slot = &mut self.blocks[t - 1];
        let place = match (&slot.place, on_device) {
            (Place::Device(learner), false) => Place::Host(learner.park()?),
            (Place::Host(parked), true) => {
                let mut learner = Learner::new(&self.gpu, &slot.names, self.seed, self.settings.rule)?;
                learner.arena.load(&parked.weights)?;
                learner.optimizer.load_state(&parked.moments)?;
                Place::Device(Box::new(learner))
            }
            _ => return Ok(()),
        };
        slot.place = place;
        Ok(())
    }

    fn check(&self, t: usize) -> Result<()> {
        if (1..=self.blocks.len()).contains(&t) {
            return Ok(());
        }
        Err(Error::value("NoPropDt", format!("block {t} of {}; blocks are counted from 1", self.blocks.len())))
    }

    /// The loss of block `t` (the paper's bound with one term of its sum over blocks) for inputs and their labels:
    ///
    /// `mean -log p_out(y | z_T) + mean KL(q(z_0 | y) || N(0, I)) + T / 2 eta (SNR(t) - SNR(t - 1)) mean |u_hat - u_y|^2`
    ///
    /// with `z_T` and `z_(t-1)` drawn from their marginals, independently. (Algorithm 1 prints one sample `z_t`; the loss needs
    /// these two.) Gradients reach learned embeddings through all of it.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let losses = net.losses(2, &x, &[0, 1], Stream::new(0, 1))?;
    /// assert!(losses.total.item()?.is_finite());
    /// assert!(net.losses(3, &x, &[0, 1], Stream::new(0, 1)).is_err()); // blocks count from 1 to 2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such block, it is parked, a label is out of range, or the shapes do not fit.
    pub fn losses(&self, t: usize, x: &Tensor, labels: &[u32], stream: Stream) -> Result<Losses> {
        self.check(t)?;
        let Some(arena) = self.arena(t) else {
            return Err(Error::value("NoPropDt", format!("block {t} is parked on the host; `train_block` fetches it")));
        };
        let labels = self.head.labels(x, labels)?;
        let head = Cx::train(&self.shared.arena);
        let own = Cx::train(arena).seeded(stream.seed, stream.stream);
        let u = self.head.embed(&head, &labels)?;
        let noised = |t: usize, i: usize| {
            let abar = self.schedule.abar(t)?;
            let e = normal(&self.gpu, [u.dim(0), self.head.dim], noise(stream, i), (1.0 - abar).sqrt())?;
            u.mul_scalar(abar.sqrt() as f32)?.add(&e)
        };
        let (last, before) = (noised(self.schedule.blocks(), 0)?, noised(t - 1, 1)?);
        let classification = self.head.scores(&head, &last)?.cross_entropy(&labels, CrossEntropy::default())?;
        let guess = self.head.guess(&head, &run_block(&self.blocks[t - 1].block, &own, x, &before, None)?)?;
        let error = mean_square_error(&guess, &self.settings.target(&u))?;
        let weight = 0.5 * self.blocks.len() as f64 * f64::from(self.settings.eta) * self.schedule.gain(t)?;
        // The part of the divergence that does not depend on the embedding is taken in double precision.
        let fixed = self.schedule.prior(0.0, self.head.dim);
        let per_square = 0.5 * self.schedule.abar(0)?;
        let prior = self.head.mean_square(&u)?.mul_scalar(per_square as f32)?.add_scalar(fixed as f32)?;
        let total = total(&[&classification, &prior, &error.mul_scalar(weight as f32)?])?;
        Ok(Losses { total, classification: Some(classification), prior: Some(prior), error })
    }

    /// One step of block `t`, of the layer that reads a class and of learned embeddings; nothing else is touched. Give every
    /// step a stream of its own, its number below 2^32.
    ///
    /// The losses are not read from the device here; [`NoPropDt::fit`] reads them and refuses any that is not finite.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let other = net.arena(2).map(|a| a.values_flat().to_vec()).transpose()?;
    /// net.train_block(1, &x, &[0, 1], Stream::new(0, 1))?;
    /// assert_eq!(net.arena(2).map(|a| a.values_flat().to_vec()).transpose()?, other); // untouched
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropDt::losses`]; if a parameter of the block gets no gradient.
    pub fn train_block(&mut self, t: usize, x: &Tensor, labels: &[u32], stream: Stream) -> Result<Losses> {
        self.check(t)?;
        if self.settings.park {
            for other in (1..=self.blocks.len()).filter(|&o| o != t) {
                self.settle(other, false)?;
            }
            self.settle(t, true)?;
        }
        let losses = self.losses(t, x, labels, stream)?;
        if let Place::Device(learner) = &mut self.blocks[t - 1].place {
            backward_into(&losses.total, &[&learner.arena, &self.shared.arena])?;
            learner.optimizer.step(&learner.arena, self.settings.lr)?;
            self.shared.optimizer.step(&self.shared.arena, self.settings.lr)?;
        }
        Ok(losses)
    }

    /// Trains for `epochs`; in each, block after block passes over all samples. `each` is told of every epoch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let log = net.fit(&(x, vec![0, 1]), 2, |_net, epoch| Ok(assert_eq!(epoch.losses.len(), 2)))?;
    /// assert_eq!(log.len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a loss is, with the block; whatever the blocks or `each` report.
    pub fn fit(
        &mut self,
        samples: &dyn Samples,
        epochs: u64,
        each: impl FnMut(&Self, &Epoch) -> Result<()>,
    ) -> Result<Vec<Epoch>> {
        let mut order = batches(samples, &self.settings, self.seed)?;
        let mut meter = LossMeter::new(&self.gpu, 256)?;
        let epoch = |model: &mut Self| {
            let blocks = model.blocks.len();
            let block = |t| {
                let mean = pass(samples, &mut order, &mut meter, |x, labels| {
                    model.steps += 1;
                    model.train_block(t, x, labels, Stream::new(model.seed, model.steps))
                });
                mean.map_err(|e| match e {
                    Error::NonFinite(text) => Error::NonFinite(format!("block {t}: {text}")),
                    other => other,
                })
            };
            (1..=blocks).map(block).collect()
        };
        train(self, epochs, epoch, each)
    }

    /// The states `z_0 ..= z_T` of a prediction from pure noise, each `[n, dim]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// use shadegrad_models::papers::noprop::Chain;
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let path = net.path(&x, Chain::default(), Stream::new(1, 0))?;
    /// assert_eq!(path.len(), 1 + 2); // pure noise, and what each block makes of it
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the blocks.
    pub fn path(&self, x: &Tensor, how: Chain, stream: Stream) -> Result<Vec<Tensor>> {
        let n = x.shape().first().copied().unwrap_or(0);
        let first = normal(&self.gpu, [n, self.head.dim], noise(stream, 0), 1.0)?;
        self.path_from(x, &first, how, stream)
    }

    /// [`NoPropDt::path`] from a given `z_0`: `z_t = a_t u_hat + b_t z_(t-1) + sqrt(c_t) e_t`, the last step too.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// use shadegrad_models::papers::noprop::Chain;
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let first = Tensor::zeros(&gpu, &[2, 2])?;
    /// let path = net.path_from(&x, &first, Chain::default(), Stream::new(1, 0))?;
    /// assert_eq!(path[0].to_vec()?, [0.0; 4]);
    /// assert!(net.path_from(&x, &Tensor::zeros(&gpu, &[2, 3])?, Chain::default(), Stream::new(1, 0)).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the blocks; if `z_0` is not `[n, dim]`.
    pub fn path_from(&self, x: &Tensor, first: &Tensor, how: Chain, stream: Stream) -> Result<Vec<Tensor>> {
        let n = x.shape().first().copied().unwrap_or(0);
        if first.shape() != [n, self.head.dim] {
            let text = format!("states {:?} for {n} inputs; give [{n}, {}]", first.shape(), self.head.dim);
            return Err(Error::shape("NoPropDt", text));
        }
        no_grad(|| {
            let head = Cx::eval(&self.shared.arena);
            let mut path = vec![first.detach()];
            let count = self.blocks.len();
            for t in 1..=count {
                let (a, b, c) = self.schedule.coeffs(t)?;
                let block = if how.reversed { count + 1 - t } else { t };
                let guess = self.head.guess(&head, &self.block_logits(block, x, &path[t - 1])?)?;
                let mut z = guess.mul_scalar(a as f32)?.add(&path[t - 1].mul_scalar(b as f32)?)?;
                if t < count || !how.quiet_end {
                    z = z.add(&normal(&self.gpu, [n, self.head.dim], noise(stream, t), c.sqrt())?)?;
                }
                path.push(z);
            }
            Ok(path)
        })
    }

    /// What block `t` says in evaluation.
    fn block_logits(&self, t: usize, x: &Tensor, z: &Tensor) -> Result<Tensor> {
        let slot = &self.blocks[t - 1];
        let run = |arena: &Arena| run_block(&slot.block, &Cx::eval(arena), x, z, None);
        match &slot.place {
            Place::Device(learner) => run(&learner.arena),
            Place::Host(parked) => {
                let arena = Arena::new(&self.gpu, &slot.names, self.seed)?;
                arena.load(&parked.weights)?;
                run(&arena)
            }
        }
    }

    /// `p_out(y | z)`, `[n, classes]`, for embeddings `[n, dim]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let p = net.read(&Tensor::zeros(&gpu, &[1, 2])?)?.to_vec()?;
    /// assert!((p[0] + p[1] - 1.0).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn read(&self, z: &Tensor) -> Result<Tensor> {
        no_grad(|| self.head.scores(&Cx::eval(&self.shared.arena), z)?.softmax(1))
    }

    /// Probabilities of the classes, `[n, classes]`, averaged over `chains` predictions that differ in their noise (at
    /// least one).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let p = net.predict(&x, 3, Stream::new(1, 0))?; // the mean of three predictions
    /// assert_eq!(p.shape(), [2, 2]);
    /// assert!((p.sum_all()?.item()? - 2.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the blocks.
    pub fn predict(&self, x: &Tensor, chains: usize, stream: Stream) -> Result<Tensor> {
        self.predict_by(x, chains, Chain::default(), stream)
    }

    /// [`NoPropDt::predict`] run another way.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
    /// use shadegrad_models::papers::noprop::Chain;
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
    /// # let settings = Settings { batch: 2, ..Settings::discrete() };
    /// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // Two blocks of a linear layer, and two samples of two numbers with labels 0 and 1.
    /// let plain = net.predict_by(&x, 1, Chain::default(), Stream::new(1, 0))?;
    /// assert_eq!(plain.to_vec()?, net.predict(&x, 1, Stream::new(1, 0))?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropDt::predict`].
    pub fn predict_by(&self, x: &Tensor, chains: usize, how: Chain, stream: Stream) -> Result<Tensor> {
        super::averaged(chains, stream, |stream| {
            let path = self.path(x, how, stream)?;
            self.read(path.last().unwrap_or(x))
        })
    }
}
