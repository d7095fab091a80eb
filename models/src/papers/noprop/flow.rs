//! Flow matching: one block that learns the velocity from noise to the label's embedding.

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Builder, Cx, Scope};
use shadegrad::optim::Optimizer;
use shadegrad::rng::Stream;
use shadegrad::train::LossMeter;
use shadegrad::{CrossEntropy, Error, Gpu, Result, Tensor};

use super::head::{Head, mean_square_error};
use super::{Block, Embedding, Epoch, Losses, Samples, Settings};
use super::{averaged, batches, noise, normal, pass, run_block, total, train};

/// One block that learns the velocity `z_1 - z_0` on straight ways from noise `z_0` to the embedding `z_1` of the label, and the
/// class embeddings. A class is the one whose embedding is nearest to where the way ends.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let settings = Settings { batch: 2, ..Settings::continuous() };
/// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // One block, and two samples of two numbers with labels 0 and 1.
/// net.fit(&(x.clone(), vec![0, 1]), 2, |_, _| Ok(()))?;
/// let scores = net.predict(&x, 4, 1, Stream::new(1, 0))?;
/// assert_eq!(scores.shape(), [2, 2]);
/// # Ok::<(), Error>(())
/// ```
pub struct NoPropFm<B> {
    gpu: Gpu,
    seed: u64,
    block: B,
    head: Head,
    sigma: f32,
    settings: Settings,
    arena: Arena,
    optimizer: Optimizer,
    steps: u64,
}

/// `t z_1 + (1 - t) z_0` for times `[n]`.
pub(super) fn between(from: &Tensor, to: &Tensor, times: &Tensor) -> Result<Tensor> {
    from.add(&to.sub(from)?.mul(&times.reshape(&[times.numel(), 1])?)?)
}

/// `z_t + (1 - t) v`: where the way ends if the velocity `v` stays.
pub(super) fn arrival(z: &Tensor, velocity: &Tensor, times: &Tensor) -> Result<Tensor> {
    let left = times.neg()?.add_scalar(1.0)?.reshape(&[times.numel(), 1])?;
    z.add(&velocity.mul(&left)?)
}

impl<B: Block> NoPropFm<B> {
    /// A block that `make` builds in a scope of its own. States are drawn with the standard deviation `sigma` around the
    /// straight way; the paper names none, 0 is the plain way. `seed` decides first values, order and noise.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// struct Tiny(Linear);
    /// impl Block for Tiny {
    ///     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    ///         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    ///     }
    /// }
    /// let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 5, 3, true)));
    /// // Three classes, each with five numbers that are trained.
    /// let embedding = Embedding::Learned { dim: 5 };
    /// let net = NoPropFm::new(&gpu, 0, 3, &embedding, 0.0, Settings::continuous(), make)?;
    /// assert!(net.arena().table().find("embedding").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`super::NoPropDt::new`], and if `sigma` is negative.
    pub fn new(
        gpu: &Gpu,
        seed: u64,
        classes: usize,
        embedding: &Embedding,
        sigma: f32,
        settings: Settings,
        make: impl FnOnce(&mut Scope<'_>) -> Result<B>,
    ) -> Result<Self> {
        settings.check()?;
        if !(sigma.is_finite() && sigma >= 0.0) {
            return Err(Error::value("NoPropFm", format!("sigma {sigma}; it must be 0 or more")));
        }
        let mut names = Builder::new();
        // The cross-entropy is there to hold learned embeddings apart; fixed ones need no layer.
        let readout = (*embedding != Embedding::OneHot).then_some(settings.readout);
        let head = Head::new(&mut names.root(), classes, embedding, readout)?;
        let block = make(&mut names.root().sub("block"))?;
        let arena = Arena::new(gpu, &names, seed)?;
        head.fill(&arena)?;
        let optimizer = Optimizer::new(&arena, settings.rule)?;
        Ok(Self { gpu: gpu.clone(), seed, block, head, sigma, settings, arena, optimizer, steps: 0 })
    }

    /// All parameters: `block.*`, and `embedding` and `out.*` where embeddings are trained.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// assert_eq!(net.arena().table().numel(), 4 * 2 + 2); // fixed embeddings: there is nothing but the block
    /// # Ok::<(), Error>(())
    /// ```
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// `v = scores W`, without a softmax: any direction in the span of the embeddings.
    fn velocity(&self, cx: &Cx, logits: &Tensor) -> Result<Tensor> {
        self.head.mix(cx, self.head.checked(logits)?)
    }

    /// The loss for inputs and their labels: `mean |v(z_t, x, t) - (z_1 - z_0)|^2` at a time for each sample drawn from
    /// `0..1`, and with learned embeddings `mean -log p_out(y | z_t + (1 - t) v)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let losses = net.losses(&x, &[0, 1], Stream::new(0, 1))?;
    /// assert!(losses.classification.is_none());
    /// assert_eq!(losses.total.item()?, losses.error.item()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a label is out of range, or the shapes do not fit.
    pub fn losses(&self, x: &Tensor, labels: &[u32], stream: Stream) -> Result<Losses> {
        let labels = self.head.labels(x, labels)?;
        let shape = [labels.numel(), self.head.dim];
        let cx = Cx::train(&self.arena).seeded(stream.seed, stream.stream);
        let to = self.head.embed(&cx, &labels)?;
        let from = normal(&self.gpu, shape, noise(stream, 0), 1.0)?;
        let times = Tensor::uniform(&self.gpu, &shape[..1], noise(stream, 2), 0.0, 1.0)?;
        let mut z = between(&from, &to, &times)?;
        if self.sigma > 0.0 {
            z = z.add(&normal(&self.gpu, shape, noise(stream, 1), self.sigma.into())?)?;
        }
        let velocity = self.velocity(&cx, &run_block(&self.block, &cx, x, &z, Some(&times))?)?;
        let error = mean_square_error(&velocity, &self.settings.target(&to).sub(&from)?)?;
        if !self.head.is_learned() {
            return Ok(Losses { total: error.clone(), classification: None, prior: None, error });
        }
        let end = arrival(&z, &velocity, &times)?;
        let classification = self.head.scores(&cx, &end)?.cross_entropy(&labels, CrossEntropy::default())?;
        let total = total(&[&error, &classification])?;
        Ok(Losses { total, classification: Some(classification), prior: None, error })
    }

    /// One step of everything. Give every step a stream of its own, its number below 2^32.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let before = net.arena().values_flat().to_vec()?;
    /// net.train_step(&x, &[0, 1], Stream::new(0, 1))?;
    /// assert_ne!(net.arena().values_flat().to_vec()?, before);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropFm::losses`]; if a parameter gets no gradient.
    pub fn train_step(&mut self, x: &Tensor, labels: &[u32], stream: Stream) -> Result<Losses> {
        let losses = self.losses(x, labels, stream)?;
        self.arena.backward(&losses.total)?;
        self.optimizer.step(&self.arena, self.settings.lr)?;
        Ok(losses)
    }

    /// Trains for `epochs`; `each` is told of every epoch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let log = net.fit(&(x, vec![0, 1]), 3, |_, _| Ok(()))?;
    /// assert_eq!(log.iter().map(|e| e.epoch).collect::<Vec<_>>(), [1, 2, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a loss is; whatever the block or `each` report.
    pub fn fit(
        &mut self,
        samples: &dyn Samples,
        epochs: u64,
        each: impl FnMut(&Self, &Epoch) -> Result<()>,
    ) -> Result<Vec<Epoch>> {
        let mut order = batches(samples, &self.settings, self.seed)?;
        let mut meter = LossMeter::new(&self.gpu, 256)?;
        let epoch = |model: &mut Self| {
            let mean = pass(samples, &mut order, &mut meter, |x, labels| {
                model.steps += 1;
                model.train_step(x, labels, Stream::new(model.seed, model.steps))
            })?;
            Ok(vec![mean])
        };
        train(self, epochs, epoch, each)
    }

    /// `z` at time 1 from a given `z` `[n, dim]` at time 0, in `steps` equal steps of Euler's method.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let end = net.follow(&x, &Tensor::zeros(&gpu, &[2, 2])?, 4)?;
    /// assert_eq!(end.shape(), [2, 2]);
    /// assert!(net.follow(&x, &Tensor::zeros(&gpu, &[2, 2])?, 0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the block; if there are no steps.
    pub fn follow(&self, x: &Tensor, first: &Tensor, steps: usize) -> Result<Tensor> {
        if steps == 0 {
            return Err(Error::value("NoPropFm", "a way of 0 steps; the paper takes 1000"));
        }
        no_grad(|| {
            let cx = Cx::eval(&self.arena);
            let features = self.block.features(&cx, x)?;
            let mut z = first.detach();
            for k in 0..steps {
                let time = Tensor::full(&self.gpu, &[z.dim(0)], k as f32 / steps as f32)?;
                let v = self.velocity(&cx, &self.block.logits(&cx, &features, &z, Some(&time))?)?;
                z = z.add(&v.mul_scalar(1.0 / steps as f32)?)?;
            }
            Ok(z)
        })
    }

    /// `-|z - u_y|^2` of every class, `[n, classes]`, after `steps` steps (1000 in the paper): the largest is the nearest.
    /// Averaged over `chains` predictions.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropFm, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let mut net = NoPropFm::new(&gpu, 0, 2, &Embedding::OneHot, 0.0, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let scores = net.predict(&x, 4, 1, Stream::new(1, 0))?;
    /// assert!(scores.to_vec()?.iter().all(|s| *s <= 0.0)); // squared distances with a minus
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropFm::follow`].
    pub fn predict(&self, x: &Tensor, steps: usize, chains: usize, stream: Stream) -> Result<Tensor> {
        let n = x.shape().first().copied().unwrap_or(0);
        averaged(chains, stream, |stream| {
            let first = normal(&self.gpu, [n, self.head.dim], noise(stream, 0), 1.0)?;
            let last = self.follow(x, &first, steps)?;
            no_grad(|| self.head.nearness(&Cx::eval(&self.arena), &last))
        })
    }
}
