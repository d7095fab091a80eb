//! Continuous time: one block that takes the time as an input.

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Builder, Cx, Scope};
use shadegrad::optim::Optimizer;
use shadegrad::rng::Stream;
use shadegrad::train::LossMeter;
use shadegrad::{CrossEntropy, Gpu, Result, Tensor};

use super::head::Head;
use super::{Block, Embedding, Epoch, GammaCurve, GammaNet, Losses, Noise, Samples, Settings};
use super::{averaged, batches, noise, normal, pass, run_block, total, train};

/// How a prediction follows the denoising process.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
/// use shadegrad_models::papers::noprop::Sampler;
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let settings = Settings { batch: 2, ..Settings::continuous() };
/// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
/// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // One block, and two samples of two numbers with labels 0 and 1.
/// // Without noise on the way the stream does not matter.
/// let [first, quiet] = [Tensor::zeros(&gpu, &[2, 2])?, Tensor::zeros(&gpu, &[2, 2])?];
/// let a = net.denoise(&x, &first, 4, Sampler::Deterministic, Stream::new(1, 0))?;
/// let b = net.denoise(&x, &quiet, 4, Sampler::Deterministic, Stream::new(2, 0))?;
/// assert_eq!(a.to_vec()?, b.to_vec()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampler {
    /// As in discrete time, with the shares at the ends of every step.
    #[default]
    Stochastic,
    /// Without noise: each state keeps the noise of the one before.
    Deterministic,
}

/// One block that learns to denoise the label at any time, with the class embeddings, the layer that reads a class and the
/// noise schedule, all trained together.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
/// use shadegrad_models::papers::noprop::Sampler;
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let settings = Settings { batch: 2, ..Settings::continuous() };
/// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
/// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // One block, and two samples of two numbers with labels 0 and 1.
/// net.fit(&(x.clone(), vec![0, 1]), 2, |_, _| Ok(()))?;
/// let p = net.predict(&x, 4, Sampler::Stochastic, 1, Stream::new(1, 0))?;
/// assert_eq!(p.shape(), [2, 2]);
/// # Ok::<(), Error>(())
/// ```
pub struct NoPropCt<B> {
    gpu: Gpu,
    seed: u64,
    block: B,
    head: Head,
    gamma: GammaNet,
    settings: Settings,
    arena: Arena,
    optimizer: Optimizer,
    steps: u64,
}

impl<B: Block> NoPropCt<B> {
    /// A block that `make` builds in a scope of its own, with a noise schedule. `seed` decides first values, order and noise.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// struct Tiny(Linear);
    /// impl Block for Tiny {
    ///     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
    ///         let time = time.map_or_else(|| Tensor::zeros(x.gpu(), &[x.dim(0)]), |t| Ok(t.clone()))?;
    ///         self.0.forward(cx, &Tensor::concat(&[x, z, &time.unsqueeze(1)?], 1)?)
    ///     }
    /// }
    /// let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 3 + 1, 3, true)));
    /// let settings = Settings::continuous();
    /// let net = NoPropCt::new(&gpu, 0, 3, &Embedding::OneHot, Noise::default(), settings, make)?;
    /// assert!(net.arena().table().find("gamma.slope").is_some()); // the schedule is learned
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`super::NoPropDt::new`], and if the ends of `noise` are the wrong way round.
    pub fn new(
        gpu: &Gpu,
        seed: u64,
        classes: usize,
        embedding: &Embedding,
        noise: Noise,
        settings: Settings,
        make: impl FnOnce(&mut Scope<'_>) -> Result<B>,
    ) -> Result<Self> {
        settings.check()?;
        let mut names = Builder::new();
        let head = Head::new(&mut names.root(), classes, embedding, Some(settings.readout))?;
        let gamma = GammaNet::new(&mut names.root().sub("gamma"), noise)?;
        let block = make(&mut names.root().sub("block"))?;
        let arena = Arena::new(gpu, &names, seed)?;
        head.fill(&arena)?;
        let optimizer = Optimizer::new(&arena, settings.rule)?;
        Ok(Self { gpu: gpu.clone(), seed, block, head, gamma, settings, arena, optimizer, steps: 0 })
    }

    /// All parameters: `block.*`, `gamma.*`, `embedding` where it is trained, `out.*`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// assert_eq!(net.arena().table().numel(), (4 * 2 + 2) + (2 * 2 + 2)); // the block, what reads a class
    /// # Ok::<(), Error>(())
    /// ```
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The noise schedule as it is now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let curve = net.curve()?;
    /// assert_eq!((curve.gamma(0.0), curve.gamma(1.0)), (6.0, -3.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn curve(&self) -> Result<GammaCurve> {
        self.gamma.curve(&self.arena)
    }

    /// The loss for inputs and their labels (the paper's bound in continuous time), with a time for each sample drawn from `0..1`:
    ///
    /// `mean -log p_out(y | z_1) + mean KL(q(z_0 | y) || N(0, I)) + eta / 2 mean SNR'(t) |u_hat(z_t, x, t) - u_y|^2`
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let losses = net.losses(&x, &[0, 1], Stream::new(0, 1))?;
    /// assert!(losses.total.item()?.is_finite() && losses.prior.is_some());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a label is out of range, or the shapes do not fit.
    pub fn losses(&self, x: &Tensor, labels: &[u32], stream: Stream) -> Result<Losses> {
        let labels = self.head.labels(x, labels)?;
        let (n, dim) = (labels.numel(), self.head.dim);
        let cx = Cx::train(&self.arena).seeded(stream.seed, stream.stream);
        let u = self.head.embed(&cx, &labels)?;
        let times = Tensor::uniform(&self.gpu, &[n], noise(stream, 2), 0.0, 1.0)?;
        let (gamma, slope) = self.gamma.eval(&cx, &times)?;
        let (gamma_0, gamma_1) = self.gamma.ends(&cx, x)?;
        let noised = |gamma: &Tensor, i: usize| {
            let (signal, rest) = (gamma.neg()?.sigmoid()?.sqrt()?, gamma.sigmoid()?.sqrt()?);
            u.mul(&signal)?.add(&normal(&self.gpu, [n, dim], noise(stream, i), 1.0)?.mul(&rest)?)
        };
        let last = noised(&gamma_1, 0)?;
        let classification = self.head.scores(&cx, &last)?.cross_entropy(&labels, CrossEntropy::default())?;
        let logits = run_block(&self.block, &cx, x, &noised(&gamma, 1)?, Some(&times))?;
        let wrong = self.head.guess(&cx, &logits)?.sub(&self.settings.target(&u))?.square()?.sum(&[1], true)?;
        // SNR' = -gamma' exp(-gamma).
        let snr_slope = slope.mul(&gamma.neg()?.exp()?)?.neg()?;
        let denoising = wrong.mul(&snr_slope)?.sum_all()?.mul_scalar(0.5 * self.settings.eta / n as f32)?;
        // -ln(1 - abar(0)) is softplus(-gamma(0)).
        let excess = self.head.mean_square(&u)?.add_scalar(-(dim as f32))?;
        let up = gamma_0.neg()?;
        let prior = up.sigmoid()?.mul(&excess)?.add(&up.softplus()?.mul_scalar(dim as f32)?)?.mul_scalar(0.5)?;
        Ok(Losses {
            total: total(&[&classification, &prior, &denoising])?,
            classification: Some(classification),
            prior: Some(prior),
            error: wrong.detach().sum_all()?.mul_scalar(1.0 / n as f32)?,
        })
    }

    /// One step of everything. Give every step a stream of its own, its number below 2^32.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let before = net.arena().values_flat().to_vec()?;
    /// net.train_step(&x, &[0, 1], Stream::new(0, 1))?;
    /// assert_ne!(net.arena().values_flat().to_vec()?, before);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropCt::losses`]; if a parameter gets no gradient.
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
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let log = net.fit(&(x, vec![0, 1]), 2, |_, _| Ok(()))?;
    /// assert_eq!((log.len(), log[0].losses.len()), (2, 1)); // one block
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`shadegrad::Error::NonFinite`] if a loss is; whatever the block or `each` report.
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

    /// `z` at time 1 from a given `z` `[n, dim]` at time 0, in `steps` equal steps.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// use shadegrad_models::papers::noprop::Sampler;
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let noise = Tensor::normal(&gpu, &[2, 2], Stream::new(3, 0), 0.0, 1.0)?;
    /// let last = net.denoise(&x, &noise, 8, Sampler::Stochastic, Stream::new(1, 0))?;
    /// assert_eq!(last.shape(), [2, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the block; if there are no steps.
    pub fn denoise(&self, x: &Tensor, first: &Tensor, steps: usize, how: Sampler, stream: Stream) -> Result<Tensor> {
        let schedule = self.curve()?.steps(steps)?;
        no_grad(|| {
            let cx = Cx::eval(&self.arena);
            let features = self.block.features(&cx, x)?;
            let mut z = first.detach();
            let shape = [z.dim(0), self.head.dim];
            for k in 1..=steps {
                let time = Tensor::full(&self.gpu, &[shape[0]], (k - 1) as f32 / steps as f32)?;
                let guess = self.head.guess(&cx, &self.block.logits(&cx, &features, &z, Some(&time))?)?;
                let step = |a: f64, b: f64| guess.mul_scalar(a as f32)?.add(&z.mul_scalar(b as f32)?);
                z = match how {
                    Sampler::Deterministic => {
                        let (a, b) = schedule.quiet(k)?;
                        step(a, b)?
                    }
                    Sampler::Stochastic => {
                        let (a, b, c) = schedule.coeffs(k)?;
                        step(a, b)?.add(&normal(&self.gpu, shape, noise(stream, k), c.sqrt())?)?
                    }
                };
            }
            Ok(z)
        })
    }

    /// Probabilities of the classes, `[n, classes]`, averaged over `chains` predictions of `steps` steps (1000 in the
    /// paper).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropCt, Noise, Settings};
    /// use shadegrad_models::papers::noprop::Sampler;
    /// # struct Tiny(Linear);
    /// # impl Block for Tiny {
    /// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
    /// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
    /// #     }
    /// # }
    /// # let make = |s: &mut Scope<'_>| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
    /// # let settings = Settings { batch: 2, ..Settings::continuous() };
    /// # let noise = Noise::Linear { low: -3.0, high: 6.0 };
    /// # let mut net = NoPropCt::new(&gpu, 0, 2, &Embedding::OneHot, noise, settings, make)?;
    /// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
    /// // One block, and two samples of two numbers with labels 0 and 1.
    /// let p = net.predict(&x, 4, Sampler::Deterministic, 2, Stream::new(1, 0))?;
    /// assert!((p.sum_all()?.item()? - 2.0).abs() < 1e-5); // a distribution for each sample
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`NoPropCt::denoise`].
    pub fn predict(&self, x: &Tensor, steps: usize, how: Sampler, chains: usize, stream: Stream) -> Result<Tensor> {
        let n = x.shape().first().copied().unwrap_or(0);
        averaged(chains, stream, |stream| {
            let first = normal(&self.gpu, [n, self.head.dim], noise(stream, 0), 1.0)?;
            let last = self.denoise(x, &first, steps, how, stream)?;
            no_grad(|| self.head.scores(&Cx::eval(&self.arena), &last)?.softmax(1))
        })
    }
}
