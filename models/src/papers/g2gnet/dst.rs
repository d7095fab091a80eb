//! Dynamic sparse training: edges are pruned and as many grown while the network learns.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Cx};
use shadegrad::optim::Optimizer;
use shadegrad::rng::{Philox, Stream};
use shadegrad::{Error, Result, Tensor};

use super::{Change, MaskedLinear};
use crate::papers::shared::mask::{Mask, lowest};

const OP: &str = "dst";

/// Which edges go.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// use shadegrad_models::papers::g2gnet::{Dst, Grow, Prune};
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// // Edges at 0 and 3 of four positions, with weights 0.1 and 2.
/// let dst = Dst { fraction: 0.5, prune: Prune::Set, grow: Grow::Random, ..Dst::default() };
/// assert_eq!(dst.choose(&mask, &[0.1, 2.0], None, Stream::new(0, 0))?.pruned, [0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Those of smallest magnitude (Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    /// connectivity", 2018).
    Set,
    /// Any.
    Random,
    /// Those between the least correlated units.
    Hebbian,
    /// A third each by magnitude, at random and by correlation, one after the other among those left.
    Three,
}

/// Which edges come.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// use shadegrad_models::papers::g2gnet::{Dst, Grow};
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// // Edges at 0 and 3 of four positions, with weights 0.1 and 2.
/// let dst = Dst { fraction: 0.5, grow: Grow::Hebbian, ..Dst::default() };
/// let scores = [0.0, 0.2, 0.9, 0.5]; // of all positions; 2 is the most correlated that is free
/// assert_eq!(dst.choose(&mask, &[0.1, 2.0], Some(&scores), Stream::new(0, 0))?.grown, [2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grow {
    /// Any.
    Random,
    /// Those between the most correlated units.
    Hebbian,
}

/// When and how the edges of masked layers change. The number of edges stays.
///
/// ```
/// use shadegrad_models::papers::g2gnet::{Dst, Grow, Prune};
/// let dst = Dst { every: 100, stop_after: Some(5000), ..Dst::default() };
/// assert_eq!((dst.prune, dst.grow, dst.fraction), (Prune::Set, Grow::Hebbian, 0.025));
/// assert_eq!([99, 100, 5000, 5100].map(|step| dst.due(step)), [false, true, true, false]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dst {
    /// Steps between two events.
    pub every: u64,
    /// Share of a layer's edges that is pruned in an event; rounded down.
    pub fraction: f64,
    /// Which edges go.
    pub prune: Prune,
    /// Which edges come.
    pub grow: Grow,
    /// Whether an edge just pruned may not come back in the same event. Otherwise it may, and starts from 0.
    pub exclude_just_pruned: bool,
    /// The last step after which an event may happen.
    pub stop_after: Option<u64>,
    /// Decides random choices.
    pub seed: u64,
}

impl Default for Dst {
    /// The setting of the paper's companion code: after every 1000 steps a fortieth by magnitude, grown by correlation.
    fn default() -> Self {
        Self {
            every: 1000,
            fraction: 0.025,
            prune: Prune::Set,
            grow: Grow::Hebbian,
            exclude_just_pruned: false,
            stop_after: None,
            seed: 0,
        }
    }
}

/// What happened to a layer.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::{Optimizer, Rule};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
/// use shadegrad_models::papers::g2gnet::{Activations, Dst, DstReport, Grow};
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mut names = Builder::new();
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # layer.attach(&arena, 0)?;
/// # let x = Tensor::ones(&gpu, &[3, 2])?;
/// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
/// let dst = Dst { every: 1, fraction: 0.5, grow: Grow::Random, exclude_just_pruned: true, ..Dst::default() };
/// let optimizer = Optimizer::new(&arena, Rule::adam())?;
/// let reports: Vec<DstReport> = dst.maybe_step(1, &[&layer], &Activations::new(), &arena, &optimizer)?;
/// assert_eq!((reports[0].layer.as_str(), reports[0].change.grown.len()), ("hidden", 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DstReport {
    /// The layer's name.
    pub layer: String,
    /// The edges, as positions.
    pub change: Change,
}

impl Dst {
    /// Whether there is an event after the update of step `step`, counted from 0.
    ///
    /// ```
    /// use shadegrad_models::papers::g2gnet::Dst;
    /// let dst = Dst { every: 10, ..Dst::default() };
    /// assert!(!dst.due(0) && dst.due(10) && !dst.due(15));
    /// ```
    pub fn due(&self, step: u64) -> bool {
        step > 0 && self.every > 0 && step.is_multiple_of(self.every) && self.stop_after.is_none_or(|last| step <= last)
    }

    /// Whether the rules look at activations.
    ///
    /// ```
    /// use shadegrad_models::papers::g2gnet::{Dst, Grow, Prune};
    /// assert!(Dst::default().needs_activations());
    /// assert!(!Dst { prune: Prune::Random, grow: Grow::Random, ..Dst::default() }.needs_activations());
    /// ```
    pub fn needs_activations(&self) -> bool {
        matches!(self.prune, Prune::Hebbian | Prune::Three) || self.grow == Grow::Hebbian
    }

    /// The event after the update of step `step` if one is due, on every layer: nothing otherwise. `activations` are those
    /// of the step's own batch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::g2gnet::{Activations, Dst};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// # let x = Tensor::ones(&gpu, &[3, 2])?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let dst = Dst { every: 1, fraction: 0.5, exclude_just_pruned: true, ..Dst::default() };
    /// let optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// let activations = Activations::new();
    /// layer.forward_with(&activations.watch(&Cx::train(&arena)), &x, Activation::Relu)?;
    /// dst.maybe_step(1, &[&layer], &activations, &arena, &optimizer)?;
    /// assert_eq!(layer.mask().active(), 2); // as many as before
    /// assert_ne!(layer.mask().positions(), [0, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a rule needs activations and a layer has none; if the fraction does not lie in `0..=1`; as
    /// [`MaskedLinear::rewire`].
    pub fn maybe_step(
        &self,
        step: u64,
        layers: &[&MaskedLinear],
        activations: &Activations,
        arena: &Arena,
        optimizer: &Optimizer,
    ) -> Result<Vec<DstReport>> {
        if !self.due(step) {
            return Ok(Vec::new());
        }
        let event = |(i, layer): (usize, &&MaskedLinear)| {
            let mask = layer.mask();
            let scores = match self.needs_activations() {
                false => None,
                true => {
                    let (pre, post) = activations.of(layer.name())?;
                    Some(hebbian_score(&pre, &post)?.to_vec()?)
                }
            };
            let stream = Stream::new(self.seed, 0x4732_4710).child(i as u32);
            let stream = Stream::new(stream.seed ^ step.rotate_left(32), stream.stream);
            let change = self.choose(&mask, &layer.weights(arena, &mask)?, scores.as_deref(), stream)?;
            if !change.pruned.is_empty() {
                layer.rewire(&change, arena, optimizer)?;
            }
            Ok(DstReport { layer: layer.name().to_string(), change })
        };
        layers.iter().enumerate().map(event).collect()
    }

    /// The edges that an event takes and gives: `weights` in the order of the mask's positions, `scores` (one for every
    /// position, `[outputs, inputs]`) where a rule needs them. Ties go to the lower position.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// use shadegrad_models::papers::g2gnet::{Dst, Grow};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// // Edges at 0 and 3 of four positions, with weights 0.1 and 2.
    /// let dst = Dst { fraction: 0.5, grow: Grow::Random, exclude_just_pruned: true, ..Dst::default() };
    /// let change = dst.choose(&mask, &[0.1, 2.0], None, Stream::new(0, 0))?;
    /// assert_eq!(change.pruned, [0]);
    /// assert!(change.grown == [1] || change.grown == [2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If numbers are missing or their count is wrong, or the fraction does not lie in `0..=1`.
    pub fn choose(&self, mask: &Mask, weights: &[f32], scores: Option<&[f32]>, stream: Stream) -> Result<Change> {
        if !(0.0..=1.0).contains(&self.fraction) {
            return Err(Error::value(OP, format!("a fraction of {}; it must lie between 0 and 1", self.fraction)));
        }
        let (edges, holes) = (mask.positions(), mask.holes());
        let size = edges.len() + holes.len();
        if weights.len() != edges.len() || scores.is_some_and(|s| s.len() != size) {
            return Err(Error::shape(
                OP,
                format!(
                    "{} weights and {:?} scores for {} edges of {size} positions",
                    weights.len(),
                    scores.map(<[f32]>::len),
                    edges.len()
                ),
            ));
        }
        let scores = match scores {
            None if self.needs_activations() => {
                return Err(Error::value(OP, "the Hebbian rules need scores; keep the activations of the batch"));
            }
            scores => scores.unwrap_or_default(),
        };
        let mut n = (self.fraction * edges.len() as f64).floor() as usize;
        if self.exclude_just_pruned {
            // As many must come as go.
            n = n.min(holes.len());
        }
        if n == 0 {
            return Ok(Change::default());
        }
        let mut rng = stream.philox();
        let magnitude = |at: u32| edges.binary_search(&at).map_or(0.0, |e| weights[e].abs());
        let score = |at: u32| scores[at as usize];
        let pruned = match self.prune {
            Prune::Set => lowest(&edges, n, magnitude),
            Prune::Random => some(&edges, n, &mut rng),
            Prune::Hebbian => lowest(&edges, n, score),
            Prune::Three => {
                let mut all = lowest(&edges, n / 3, magnitude);
                all.extend(some(&without(&edges, &all), n / 3, &mut rng));
                all.extend(lowest(&without(&edges, &all), n - all.len(), score));
                all.sort_unstable();
                all
            }
        };
        let mut free = holes;
        if !self.exclude_just_pruned {
            free.extend(&pruned);
            free.sort_unstable();
        }
        let grown = match self.grow {
            Grow::Random => some(&free, n, &mut rng),
            Grow::Hebbian => lowest(&free, n, |at| -score(at)),
        };
        Ok(Change { pruned, grown })
    }
}

/// The positions that are not in `taken`, in order.
fn without(positions: &[u32], taken: &[u32]) -> Vec<u32> {
    let taken: HashSet<u32> = taken.iter().copied().collect();
    positions.iter().copied().filter(|at| !taken.contains(at)).collect()
}

/// Any `n` of the positions, rising.
fn some(positions: &[u32], n: usize, rng: &mut Philox) -> Vec<u32> {
    let mut all = positions.to_vec();
    let n = n.min(all.len());
    for k in 0..n {
        let other = k + rng.below((all.len() - k) as u32) as usize;
        all.swap(k, other);
    }
    all.truncate(n);
    all.sort_unstable();
    all
}

/// Correlation of every output with every input of a layer over the samples of a batch, un-centred: `CH[o, i] = <post_o,
/// pre_i> / ((|post_o| + 1e-8) (|pre_i| + 1e-8))` for `pre` `[samples, inputs]` and `post` `[samples, outputs]`, the layer's
/// inputs and its outputs behind the activation. Between 0 and 1 for ReLU; 0 where a unit is dead. A constant.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::g2gnet::hebbian_score;
/// let pre = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// let post = Tensor::from_slice(&gpu, &[3.0, 0.0], &[2, 1])?; // fires for the first sample, as the first input does
/// let score = hebbian_score(&pre, &post)?;
/// assert_eq!(score.shape(), [1, 2]);
/// assert!((score.to_vec()?[0] - 1.0).abs() < 1e-6 && score.to_vec()?[1] == 0.0);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the operands are not of two dimensions with as many samples.
pub fn hebbian_score(pre: &Tensor, post: &Tensor) -> Result<Tensor> {
    let (&[samples, _], &[others, _]) = (pre.shape(), post.shape()) else {
        return Err(Error::shape(
            "hebbian_score",
            format!("{:?} and {:?}; they must be [samples, inputs] and [samples, outputs]", pre.shape(), post.shape()),
        ));
    };
    if samples != others {
        return Err(Error::shape("hebbian_score", format!("{samples} samples of inputs and {others} of outputs")));
    }
    let norms = |x: &Tensor| x.square()?.sum(&[0], true)?.sqrt()?.add_scalar(1e-8);
    no_grad(|| {
        let (pre, post) = (pre.detach(), post.detach());
        let columns = norms(&post)?.reshape(&[post.dim(1), 1])?;
        post.matmul_t(&pre, true, false)?.div(&columns)?.div(&norms(&pre)?)
    })
}

#[derive(Clone, Default)]
struct Kept {
    pre: Option<Tensor>,
    post: Option<Tensor>,
}

/// What went into masked layers and came out behind their activations in the last forward pass that was watched. Clones
/// share it.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
/// use shadegrad_models::papers::g2gnet::Activations;
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mut names = Builder::new();
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # layer.attach(&arena, 0)?;
/// # let x = Tensor::ones(&gpu, &[3, 2])?;
/// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
/// let activations = Activations::new();
/// let y = layer.forward_with(&activations.watch(&Cx::train(&arena)), &x, Activation::Relu)?;
/// let (pre, post) = activations.of("hidden")?;
/// assert_eq!((pre.to_vec()?, post.to_vec()?), (x.to_vec()?, y.to_vec()?));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Activations(Arc<Mutex<BTreeMap<String, Kept>>>);

impl Activations {
    /// Of no layer yet.
    ///
    /// ```
    /// use shadegrad_models::papers::g2gnet::Activations;
    /// assert!(Activations::new().of("hidden").is_err()); // nothing was seen
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// The context that keeps them. Layers must be called by [`MaskedLinear::forward_with`], or the model shows the input
    /// as `NAME.pre` and the activation's result as `NAME.post` to [`Cx::tap`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::g2gnet::Activations;
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// # let x = Tensor::ones(&gpu, &[3, 2])?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let activations = Activations::new();
    /// let cx = activations.watch(&Cx::train(&arena));
    /// layer.forward_with(&cx, &x, Activation::Relu)?;
    /// assert!(activations.of("hidden").is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn watch(&self, cx: &Cx) -> Cx {
        let keep = |suffix: &'static str| {
            let all = self.clone();
            move |name: &str, x: &Tensor| {
                all.keep(name.trim_end_matches(suffix), suffix == ".pre", x);
                Ok(())
            }
        };
        cx.observe("*.pre", keep(".pre")).observe("*.post", keep(".post"))
    }

    fn keep(&self, layer: &str, is_input: bool, x: &Tensor) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(layer.to_string()).or_default();
        *(if is_input { &mut kept.pre } else { &mut kept.post }) = Some(x.detach());
    }

    /// Forgets everything, which frees the memory.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::g2gnet::Activations;
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// # let x = Tensor::ones(&gpu, &[3, 2])?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let activations = Activations::new();
    /// layer.forward_with(&activations.watch(&Cx::train(&arena)), &x, Activation::Relu)?;
    /// activations.clear();
    /// assert!(activations.of("hidden").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Inputs and outputs of a layer, `[samples, inputs]` and `[samples, outputs]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::g2gnet::Activations;
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// # let x = Tensor::ones(&gpu, &[3, 2])?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let activations = Activations::new();
    /// layer.forward_with(&activations.watch(&Cx::train(&arena)), &x, Activation::Relu)?;
    /// assert_eq!(activations.of("hidden")?.1.shape(), [3, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none.
    pub fn of(&self, layer: &str) -> Result<(Tensor, Tensor)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned().unwrap_or_default();
        let (Some(pre), Some(post)) = (kept.pre, kept.post) else {
            return Err(Error::value(
                OP,
                format!(
                    "no activations of `{layer}`; run the step's forward pass with `Activations::watch` and call the \
                     layer by `forward_with`"
                ),
            ));
        };
        let rows = |x: Tensor| {
            let last = x.shape().last().copied().unwrap_or(1);
            x.reshape(&[x.numel() / last.max(1), last])
        };
        Ok((rows(pre)?, rows(post)?))
    }
}
