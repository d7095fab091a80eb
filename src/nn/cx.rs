//! What a forward pass runs with: parameters, mode, running statistics, randomness, hooks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::autograd::{leave_layer, no_grad, record_checkpoint};
use crate::error::Result;
use crate::nn::build::glob;
use crate::nn::{Arena, BufferId, Capture, ParamId, Params};
use crate::rng::Stream;
use crate::tensor::Tensor;

/// Where normalisation over the batch takes its statistics from.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let norm = BatchNorm2d::new(&mut names.root(), 1);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let cx = Cx::train(&arena).with_stats(Stats::Batch); // as in training, and nothing is remembered
/// norm.forward(&cx, &Tensor::from_slice(&gpu, &[4.0, 8.0], &[2, 1])?)?;
/// assert_eq!(arena.buffers().by_name("running_mean")?.to_vec()?, [0.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// From the batch, and the running statistics follow: training.
    Update,
    /// From the batch; the running statistics stay as they are.
    Batch,
    /// From the running statistics: evaluation.
    Running,
}

type Observer = Arc<dyn Fn(&str, &Tensor) -> Result<()> + Send + Sync>;
type Replacer = Arc<dyn Fn(&str, &Tensor) -> Result<Option<Tensor>> + Send + Sync>;

#[derive(Clone)]
enum Hook {
    /// What a layer gives.
    Observe(String, Observer),
    Replace(String, Replacer),
    /// What a layer takes.
    ReplaceInput(String, Replacer),
}

/// The context of a forward pass. Cheap to clone; clones share the position of the random stream.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let model = Sequential::new().then(Linear::new(&mut names.root(), 4, 4, true)).then(Dropout(0.5));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::ones(&gpu, &[1, 4])?;
/// let (seed, step) = (1, 0);
/// model.forward(&Cx::train(&arena).seeded(seed, step), &x)?; // masks drawn from this stream
/// model.forward(&Cx::eval(&arena), &x)?; // no masks
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Cx {
    params: Params,
    buffers: Params,
    training: bool,
    stats: Stats,
    seed: u64,
    /// Draws so far; shared, so that layers draw through `&Cx`.
    draws: Arc<AtomicU64>,
    hooks: Vec<Hook>,
    /// Where layers leave inputs and outputs for per-sample gradients.
    pub(crate) captured: Option<Capture>,
    /// The parameters that were asked for, while a segment is watched for them.
    used: Option<Arc<Mutex<BTreeSet<usize>>>>,
    /// A second run of a segment: what happens once (observers, running statistics) has happened.
    again: bool,
}

impl Cx {
    /// A context of any parameters and buffers, for evaluation.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let doubled = arena.params().map(|_, t| t.mul_scalar(2.0))?;
    /// let cx = Cx::new(doubled, arena.buffers().clone());
    /// assert_eq!(layer.forward(&cx, &Tensor::ones(&gpu, &[1, 2])?)?.item()?, 4.0);
    /// assert!(!cx.training());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(params: Params, buffers: Params) -> Self {
        Self {
            params,
            buffers,
            training: false,
            stats: Stats::Running,
            seed: 0,
            draws: Arc::default(),
            hooks: Vec::new(),
            captured: None,
            used: None,
            again: false,
        }
    }

    /// Training with an arena's parameters: dropout is on, statistics are those of the batch and the running ones follow.
    /// Give every step a random stream of its own with [`Cx::seeded`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// for step in 0..3 {
    ///     let cx = Cx::train(&arena).seeded(0, step);
    ///     let loss = layer.forward(&cx, &Tensor::ones(&gpu, &[4, 2])?)?.mean_all()?;
    ///     arena.backward(&loss)?; // and a step of an optimiser
    /// }
    /// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn train(arena: &Arena) -> Self {
        let mut cx = Self::new(arena.params().clone(), arena.buffers().clone());
        cx.training = true;
        cx.stats = Stats::Update;
        cx
    }

    /// Evaluation with an arena's parameters. Inside [`no_grad`] it keeps nothing for a backward pass.
    ///
    /// ```
    /// # use shadegrad::{autograd::no_grad, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::ones(&gpu, &[1, 2])?;
    /// let y = no_grad(|| layer.forward(&Cx::eval(&arena), &x))?;
    /// assert_eq!((y.item()?, y.requires_grad()), (2.0, false));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn eval(arena: &Arena) -> Self {
        Self::new(arena.params().clone(), arena.buffers().clone())
    }

    /// The same context with other parameters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::ones(&gpu, &[1, 2])?;
    /// let cx = Cx::train(&arena);
    /// let w = arena.params();
    /// let inner = w.add_scaled(&w.grad(&layer.forward(&cx, &x)?.sum_all()?, true, &[])?, -0.5)?;
    /// assert_eq!(layer.forward(&cx.with_params(&inner), &x)?.item()?, 1.0); // each weight is a half now
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_params(&self, params: &Params) -> Self {
        Self { params: params.clone(), ..self.clone() }
    }

    /// The same context with other running statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let norm = BatchNorm2d::new(&mut names.root(), 1).momentum(1.0);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let aside = arena.buffers().map(|_, t| t.add_scalar(0.0))?; // a copy, to be written to
    /// let cx = Cx::train(&arena).with_buffers(&aside);
    /// norm.forward(&cx, &Tensor::from_slice(&gpu, &[4.0, 8.0], &[2, 1])?)?;
    /// assert_eq!(aside.by_name("running_mean")?.to_vec()?, [6.0]);
    /// assert_eq!(arena.buffers().by_name("running_mean")?.to_vec()?, [0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_buffers(&self, buffers: &Params) -> Self {
        Self { buffers: buffers.clone(), ..self.clone() }
    }

    /// The same context with batch normalisation's statistics from elsewhere.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let norm = BatchNorm2d::new(&mut names.root(), 1);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[4.0, 8.0], &[2, 1])?;
    /// let y = norm.forward(&Cx::eval(&arena).with_stats(Stats::Batch), &x)?.round()?;
    /// assert_eq!(y.to_vec()?, [-1.0, 1.0]); // by the batch, in evaluation
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_stats(&self, stats: Stats) -> Self {
        Self { stats, ..self.clone() }
    }

    /// The same context at the start of another random stream: one seed of the run, another `step` every time.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (x, cx) = (Tensor::ones(&gpu, &[64])?, Cx::train(&arena));
    /// let masked = |step| Dropout(0.5).forward(&cx.seeded(7, step), &x)?.to_vec();
    /// assert_eq!(masked(0)?, masked(0)?);
    /// assert_ne!(masked(0)?, masked(1)?);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn seeded(&self, seed: u64, step: u64) -> Self {
        // Streams of different steps meet only after 2^24 draws of one step.
        Self { seed, draws: Arc::new(AtomicU64::new(step << 24)), ..self.clone() }
    }

    /// The same context at position `draws` of its random stream (see [`Cx::draws`]).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (x, cx) = (Tensor::ones(&gpu, &[64])?, Cx::train(&arena).seeded(7, 0));
    /// let start = cx.draws();
    /// let first = Dropout(0.5).forward(&cx, &x)?.to_vec()?;
    /// assert_eq!(Dropout(0.5).forward(&cx.at(start), &x)?.to_vec()?, first); // the same mask again
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn at(&self, draws: u64) -> Self {
        Self { draws: Arc::new(AtomicU64::new(draws)), ..self.clone() }
    }

    /// The value of a parameter.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let slope = names.root().param("slope", &[1], Init::Const(3.0));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::eval(&arena);
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?;
    /// assert_eq!(x.mul(cx.param(slope))?.to_vec()?, [3.0, 6.0]); // in a layer's `forward`
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    /// If the layer that asks belongs to another, larger model than the parameters.
    pub fn param(&self, id: ParamId) -> &Tensor {
        if let Some(used) = &self.used {
            used.lock().unwrap_or_else(PoisonError::into_inner).insert(id.0);
        }
        self.params.get(id)
    }

    /// A running statistic. Layers update it in place.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let norm = BatchNorm2d::new(&mut names.root(), 2);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::eval(&arena);
    /// assert_eq!(cx.buffer(norm.running_mean()).to_vec()?, [0.0, 0.0]);
    /// assert_eq!(cx.buffer(norm.running_var()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    /// As [`Cx::param`].
    pub fn buffer(&self, id: BufferId) -> &Tensor {
        self.buffers.get(ParamId(id.0))
    }

    /// All parameters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena);
    /// let decay = cx.params().by_name("fc.weight")?.square()?.sum_all()?; // a penalty on the weights in use
    /// assert_eq!(decay.item()?, 2.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// All buffers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let norm = BatchNorm2d::new(&mut names.root().sub("bn"), 2);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let all: Vec<String> = Cx::eval(&arena).buffers().names().map(String::from).collect();
    /// assert_eq!(all, ["bn.running_mean", "bn.running_var"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffers(&self) -> &Params {
        &self.buffers
    }

    /// Whether dropout and its like are on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert!(Cx::train(&arena).training());
    /// assert!(!Cx::eval(&arena).training());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn training(&self) -> bool {
        self.training
    }

    /// Where batch normalisation takes its statistics from now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(Cx::train(&arena).stats(), Stats::Update);
    /// assert_eq!(Cx::eval(&arena).stats(), Stats::Running);
    /// assert_eq!(Cx::train(&arena).with_stats(Stats::Batch).stats(), Stats::Batch);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        if self.again && self.stats == Stats::Update { Stats::Batch } else { self.stats }
    }

    /// The stream of the next random mask: another one each call, and at the same position the same.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (x, cx) = (Tensor::ones(&gpu, &[64])?, Cx::train(&arena).seeded(7, 0));
    /// let (first, second) = (cx.draw(), cx.draw());
    /// assert_ne!(x.dropout(0.5, first)?.to_vec()?, x.dropout(0.5, second)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn draw(&self) -> Stream {
        Stream::new(self.seed, self.draws.fetch_add(1, Ordering::Relaxed))
    }

    /// The position of the random stream: with the seed, all there is to save.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena).seeded(7, 0);
    /// Dropout(0.5).forward(&cx, &Tensor::ones(&gpu, &[8])?)?;
    /// assert_eq!(cx.draws(), 1); // one mask was drawn
    /// # Ok::<(), Error>(())
    /// ```
    pub fn draws(&self) -> u64 {
        self.draws.load(Ordering::Relaxed)
    }

    /// The same context, calling `hook` with the name and result of every layer whose name matches the [`glob`] `pattern`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (send, seen) = std::sync::mpsc::channel();
    /// let cx = Cx::eval(&arena).observe("fc*", move |name, y| {
    ///     send.send((name.to_string(), y.to_vec()?)).map_err(|_| Error::Interrupted("nobody listens".into()))
    /// });
    /// layer.forward(&cx, &Tensor::ones(&gpu, &[1, 2])?)?;
    /// drop(cx);
    /// assert_eq!(seen.iter().collect::<Vec<_>>(), [("fc".to_string(), vec![2.0])]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn observe(&self, pattern: &str, hook: impl Fn(&str, &Tensor) -> Result<()> + Send + Sync + 'static) -> Self {
        self.hooked(Hook::Observe(pattern.to_string(), Arc::new(hook)))
    }

    /// The same context, with the results of matching layers replaced by what `hook` returns, if anything. In a
    /// checkpointed segment it is called again for the second run and must do the same.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 3, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// // Without its second unit:
    /// let keep = Tensor::from_slice(&gpu, &[1.0, 0.0, 1.0], &[3])?;
    /// let cx = Cx::eval(&arena).replace("fc", move |_, y| y.mul(&keep).map(Some));
    /// assert_eq!(layer.forward(&cx, &Tensor::ones(&gpu, &[1, 2])?)?.to_vec()?, [2.0, 0.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn replace(
        &self,
        pattern: &str,
        hook: impl Fn(&str, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        self.hooked(Hook::Replace(pattern.to_string(), Arc::new(hook)))
    }

    /// The same context, with the inputs of matching layers replaced by what `hook` returns, if anything; a hook that returns
    /// nothing only looks. A layer that several others read from still gives all of them what it gave.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::eval(&arena).replace_input("fc", |_, x| x.clamp(0.0, 1.0).map(Some));
    /// let x = Tensor::from_slice(&gpu, &[5.0, -5.0], &[1, 2])?;
    /// assert_eq!(layer.forward(&cx, &x)?.item()?, 1.0); // of 1 and 0
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn replace_input(
        &self,
        pattern: &str,
        hook: impl Fn(&str, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        self.hooked(Hook::ReplaceInput(pattern.to_string(), Arc::new(hook)))
    }

    fn hooked(&self, hook: Hook) -> Self {
        let mut cx = self.clone();
        cx.hooks.push(hook);
        cx
    }

    /// Whether hooks or a capture look at the layers' results: then layers do not merge steps.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena);
    /// assert!(!cx.is_watched());
    /// assert!(cx.observe("*.relu", |_, _| Ok(())).is_watched() && cx.capturing().0.is_watched());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_watched(&self) -> bool {
        !self.hooks.is_empty() || self.captured.is_some()
    }

    /// What the layer `name` is to work on in place of `x`: shows it to the hooks on inputs, in the order they were added.
    /// Layers call this first; models may for places of their own.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[2])?;
    /// let cx = Cx::eval(&arena).replace_input("head", |_, x| x.mul_scalar(2.0).map(Some));
    /// let x = cx.enter("head", &x)?; // in a model, before what it calls its head
    /// assert_eq!(x.to_vec()?, [2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the hooks.
    pub fn enter(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let mut now = x.clone();
        for hook in &self.hooks {
            if let Hook::ReplaceInput(pattern, f) = hook
                && glob(pattern, name)
                && let Some(other) = f(name, &now)?
            {
                now = other;
            }
        }
        Ok(now)
    }

    /// Shows the result of the layer `name` to the hooks, in the order they were added. Layers call this; models may for
    /// places of their own.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[2])?;
    /// let cx = Cx::eval(&arena).replace("features", |_, y| y.mul_scalar(0.0).map(Some));
    /// let features = cx.tap("features", x.add_scalar(3.0)?)?; // in a model, at a place of its own
    /// assert_eq!(features.to_vec()?, [0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the hooks.
    pub fn tap(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        leave_layer(name);
        let mut now = tensor;
        for hook in &self.hooks {
            match hook {
                Hook::Observe(pattern, f) if !self.again && glob(pattern, name) => f(name, &now)?,
                Hook::Replace(pattern, f) if glob(pattern, name) => {
                    if let Some(other) = f(name, &now)? {
                        now = other;
                    }
                }
                _ => {}
            }
        }
        Ok(now)
    }

    /// Runs a segment of the model without keeping what its backward pass needs; that pass runs it again (see
    /// [`crate::autograd::checkpoint`]). Parameters that the segment takes from its context are found by themselves, and
    /// the second run draws the same masks. Observers see constants inside.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let block = Mlp::new(&mut names.root().sub("mlp"), 2, 8, Activation::Gelu, 0.0);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, x) = (Cx::train(&arena), Tensor::ones(&gpu, &[1, 2])?);
    /// let whole = block.forward(&cx, &x)?.to_vec()?;
    /// let y = cx.checkpoint(&x, move |cx, x| block.forward(cx, x))?; // keeps `x` alone
    /// assert_eq!(y.to_vec()?, whole);
    /// arena.backward(&y.sum_all()?)?; // runs the block again
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`.
    pub fn checkpoint<F>(&self, x: &Tensor, f: F) -> Result<Tensor>
    where
        F: Fn(&Cx, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        let used = Arc::new(Mutex::new(BTreeSet::new()));
        let start = self.draws();
        let first = Self { used: Some(used.clone()), ..self.clone() };
        let out = no_grad(|| f(&first, &x.detach()))?;
        let ids: Vec<usize> = used.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if let Some(outer) = &self.used {
            outer.lock().unwrap_or_else(PoisonError::into_inner).extend(&ids);
        }
        let mut inputs = vec![x];
        inputs.extend(ids.iter().map(|&i| self.params.get(ParamId(i))));
        let mut second = self.at(start);
        second.again = true;
        second.used = None;
        second.captured = None;
        // The rule must not hold the parameters as the caller's graph has them; the second run gets its own.
        second.params = self.params.detach();
        let run = move |xs: &[Tensor]| {
            let mut tensors = second.params.tensors().to_vec();
            for (&i, t) in ids.iter().zip(&xs[1..]) {
                tensors[i] = t.clone();
            }
            let params = Params::new(second.params.table().clone(), tensors)?;
            f(&second.at(start).with_params(&params), &xs[0])
        };
        Ok(record_checkpoint(&out, &inputs, run))
    }
}
