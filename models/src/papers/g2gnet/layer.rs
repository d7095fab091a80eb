//! A linear layer of which some weights do not exist, for any model.

use std::sync::{PoisonError, RwLock};

use shadegrad::nn::{Activation, Arena, Cx, Init, Module, ParamId, Scope};
use shadegrad::optim::Optimizer;
use shadegrad::{Caps, Class, Error, Gpu, Result, SparsePattern, Tensor};

use crate::papers::shared::mask::Mask;

const OP: &str = "masked_linear";

/// How a [`MaskedLinear`] computes, and what it stores.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
/// use shadegrad_models::papers::shared::mask::Mask;
/// let mask = Mask::from_fn(100, 100, |output, input| output == input);
/// let mut names = Builder::new();
/// MaskedLinear::new(&mut names.root().sub("whole"), mask.clone(), false, Executor::Dense);
/// MaskedLinear::new(&mut names.root().sub("few"), mask, false, Executor::Sparse);
/// let sizes: Vec<usize> = names.tables()?.0.entries().iter().map(|e| e.len).collect();
/// assert_eq!(sizes, [10_000, 100]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// The whole matrix, times ones and zeros in every forward pass: the parameter `weight` is `[outputs, inputs]`.
    Dense,
    /// Only the weights that exist: `weight` is `[weights]` in the order of [`Mask::positions`], and so are its gradient and
    /// the optimiser's moments. Work in all three products grows with the number of weights.
    Sparse,
}

impl Executor {
    /// The executor whose products take less time at this density, from the measurements in `docs/performance.md`. For
    /// devices that were not measured the sparse one only where few weights are left.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::g2gnet::Executor;
    /// assert_eq!(Executor::faster(gpu.caps(), 0.5), Executor::Dense);
    /// assert_eq!(Executor::faster(gpu.caps(), 0.01), Executor::Sparse);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn faster(caps: &Caps, density: f64) -> Self {
        let most = match caps.class {
            Class::Software => 0.1,
            Class::Integrated | Class::Discrete => 0.03,
        };
        if density <= most { Self::Sparse } else { Self::Dense }
    }
}

/// What exists now, and its form on the device.
struct State {
    mask: Mask,
    form: Option<Form>,
}

enum Form {
    /// Ones and zeros.
    Dense(Tensor),
    Sparse(SparsePattern),
}

/// `y = x (mask * W)^T + b`. Weights that do not exist get no gradient and stay 0 whatever the optimiser.
///
/// After the arena was made, [`MaskedLinear::attach`] draws the first values; without it a forward pass is an error. The
/// mask belongs to the layer, not to the arena: [`Dst`](super::Dst) changes it between steps.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mut names = Builder::new();
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # layer.attach(&arena, 0)?;
/// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[3, 2])?)?;
/// assert_eq!(y.shape(), [3, 2]);
/// assert_eq!(layer.parameters(), 2 + 2); // weights that exist, and biases
/// # Ok::<(), Error>(())
/// ```
pub struct MaskedLinear {
    name: String,
    outputs: usize,
    inputs: usize,
    weight: ParamId,
    bias: Option<ParamId>,
    executor: Executor,
    state: RwLock<State>,
}

/// Edges that leave and enter a layer, as positions. A position in both stays, but starts again from 0.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::{Optimizer, Rule};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
/// use shadegrad_models::papers::g2gnet::Change;
/// # use shadegrad_models::papers::shared::mask::Mask;
/// # let mut names = Builder::new();
/// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
/// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # layer.attach(&arena, 0)?;
/// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
/// let optimizer = Optimizer::new(&arena, Rule::adam())?;
/// layer.rewire(&Change { pruned: vec![3], grown: vec![2] }, &arena, &optimizer)?;
/// assert_eq!(layer.mask().positions(), [0, 2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Those removed, rising.
    pub pruned: Vec<u32>,
    /// Those added, rising.
    pub grown: Vec<u32>,
}

impl MaskedLinear {
    /// A layer in this scope with parameters `weight` and, if asked for, `bias` `[outputs]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mut names = Builder::new();
    /// let mask = Mask::from_fn(4, 8, |_, input| input < 2);
    /// let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, false, Executor::Sparse);
    /// assert_eq!(names.tables()?.0.numel(), 4 * 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, mask: Mask, bias: bool, executor: Executor) -> Self {
        let (outputs, inputs) = (mask.outputs(), mask.inputs());
        let weight = match executor {
            Executor::Dense => scope.param("weight", &[outputs, inputs], Init::Zeros),
            Executor::Sparse => scope.param("weight", &[mask.active()], Init::Zeros),
        };
        Self {
            name: scope.name().to_string(),
            outputs,
            inputs,
            weight,
            bias: bias.then(|| scope.param("bias", &[outputs], Init::Zeros)),
            executor,
            state: RwLock::new(State { mask, form: None }),
        }
    }

    /// The layer's name in its model.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// assert_eq!(layer.name(), "hidden");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it computes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::MaskedLinear;
    /// use shadegrad_models::papers::g2gnet::Executor;
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// assert_eq!(layer.executor(), Executor::Dense);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn executor(&self) -> Executor {
        self.executor
    }

    /// Which weights exist now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// assert_eq!(layer.mask().density(), 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mask(&self) -> Mask {
        self.state.read().unwrap_or_else(PoisonError::into_inner).mask.clone()
    }

    /// Weights that exist, and biases.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// assert_eq!(layer.parameters(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn parameters(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).mask.active() + self.bias.map_or(0, |_| self.outputs)
    }

    /// The first values: `W ~ U(+-1/sqrt(inputs))` as a dense layer of that name has them, then each row's weights times
    /// `sqrt(inputs / fan_in)` so that its variance is `1 / (3 fan_in)`, zeros off the mask; `b ~ U(+-1/sqrt(mean
    /// fan_in))`. The layer must be part of the arena's model. Needed again after [`Arena::reset`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mut names = Builder::new();
    /// let layer = MaskedLinear::new(&mut names.root().sub("hidden"), Mask::full(2, 2), true, Executor::Dense);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::ones(&gpu, &[1, 2])?;
    /// assert!(layer.forward(&Cx::eval(&arena), &x).is_err()); // it has no values yet
    /// layer.attach(&arena, 0)?;
    /// assert!(layer.forward(&Cx::eval(&arena), &x).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is another model's arena.
    pub fn attach(&self, arena: &Arena, seed: u64) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mask = &state.mask;
        let fan_in = mask.fan_in();
        let mut w = vec![0.0; self.outputs * self.inputs];
        let name = &self.entry(arena)?.name;
        Init::FanIn(self.inputs).fill(&mut w, name, &[self.outputs, self.inputs], seed);
        for (at, (v, &on)) in w.iter_mut().zip(mask.as_slice()).enumerate() {
            let n = fan_in[at / self.inputs];
            *v *= if on { (self.inputs as f32 / n as f32).sqrt() } else { 0.0 };
        }
        if self.executor == Executor::Sparse {
            w = mask.positions().iter().map(|&at| w[at as usize]).collect();
        }
        write(arena, self.weight, &w)?;
        if let Some(id) = self.bias {
            let mut b = vec![0.0; self.outputs];
            let mean = mask.active() as f32 / self.outputs.max(1) as f32;
            let bound = 1.0 / mean.max(1.0).sqrt();
            Init::Uniform(-bound, bound).fill(&mut b, &arena.table().entries()[id.index()].name, &[self.outputs], seed);
            write(arena, id, &b)?;
        }
        state.form = Some(self.form(arena.gpu(), mask)?);
        Ok(())
    }

    fn form(&self, gpu: &Gpu, mask: &Mask) -> Result<Form> {
        Ok(match self.executor {
            Executor::Dense => Form::Dense(mask.tensor(gpu)?),
            Executor::Sparse => Form::Sparse(mask.pattern(gpu)?),
        })
    }

    /// The weight's row in the arena's table.
    fn entry<'a>(&self, arena: &'a Arena) -> Result<&'a shadegrad::nn::Entry> {
        let full = if self.name.is_empty() { "weight".to_string() } else { format!("{}.weight", self.name) };
        arena.table().entries().get(self.weight.index()).filter(|e| e.name == full).ok_or_else(|| {
            Error::Params(format!("`{full}` has another place in this arena; take that of the layer's own model"))
        })
    }

    /// The whole matrix `[outputs, inputs]`, row by row, zeros off the mask; waits for the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let w = layer.matrix(&arena)?;
    /// assert!(w[0] != 0.0 && w[3] != 0.0 && w[1] == 0.0 && w[2] == 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is another model's arena, or the device reported a fault.
    pub fn matrix(&self, arena: &Arena) -> Result<Vec<f32>> {
        self.entry(arena)?;
        let mask = self.mask();
        let mut full = vec![0.0; self.outputs * self.inputs];
        for (at, v) in mask.positions().into_iter().zip(self.weights(arena, &mask)?) {
            full[at as usize] = v;
        }
        Ok(full)
    }

    /// The weights that exist, in the order of positions.
    pub(super) fn weights(&self, arena: &Arena, mask: &Mask) -> Result<Vec<f32>> {
        let values = arena.params().get(self.weight).to_vec()?;
        Ok(match self.executor {
            Executor::Sparse => values,
            Executor::Dense => mask.positions().iter().map(|&at| values[at as usize]).collect(),
        })
    }

    /// Takes away and adds weights: those added, and those added back, are 0, and so are the optimiser's moments of all
    /// that the change names. Other weights and moments stay as they are. A graph recorded before must not be walked
    /// backward afterwards.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::g2gnet::{Executor, MaskedLinear};
    /// use shadegrad_models::papers::g2gnet::Change;
    /// # use shadegrad_models::papers::shared::mask::Mask;
    /// # let mut names = Builder::new();
    /// # let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// # let layer = MaskedLinear::new(&mut names.root().sub("hidden"), mask, true, Executor::Dense);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # layer.attach(&arena, 0)?;
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let before = layer.matrix(&arena)?;
    /// let optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// layer.rewire(&Change { pruned: vec![0], grown: vec![1] }, &arena, &optimizer)?;
    /// assert_eq!(layer.matrix(&arena)?, [0.0, 0.0, 0.0, before[3]]); // the new weight starts from 0
    /// assert_eq!(layer.mask().positions(), [1, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a position is pruned that has no weight or grown that keeps one; if the sparse executor's number of weights would
    /// change; if arena or optimiser are another model's.
    pub fn rewire(&self, change: &Change, arena: &Arena, optimizer: &Optimizer) -> Result<()> {
        let Change { pruned, grown } = change;
        let entry = self.entry(arena)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let old = &state.mask;
        let without = old.changed(pruned, &[])?;
        let new = without.changed(&[], grown)?;
        let [gone, come] = [old.active() - without.active(), new.active() - without.active()];
        if gone != pruned.len() || come != grown.len() {
            return Err(Error::value(
                OP,
                format!(
                    "`{}`: {} edges to prune of which {gone} exist, {} to grow of which {come} do not",
                    self.name,
                    pruned.len(),
                    grown.len()
                ),
            ));
        }
        let gpu = arena.gpu();
        // What becomes of each stored number: where it comes from, and 0 where it starts again.
        let (mut source, mut keep) = (Vec::new(), Vec::new());
        match self.executor {
            Executor::Dense => {
                keep.resize(old.as_slice().len(), 1.0);
                pruned.iter().chain(grown).for_each(|&at| keep[at as usize] = 0.0);
            }
            Executor::Sparse if gone != come => {
                return Err(Error::value(
                    OP,
                    format!(
                        "`{}`: {gone} edges go and {come} come; stored sparsely their number is fixed, take \
                         Executor::Dense to change it",
                        self.name
                    ),
                ));
            }
            Executor::Sparse => {
                let before = old.positions();
                let new_edges: std::collections::HashSet<u32> = grown.iter().copied().collect();
                for at in new.positions() {
                    let found = before.binary_search(&at).ok().filter(|_| !new_edges.contains(&at));
                    source.push(found.unwrap_or(0) as u32);
                    keep.push(f32::from(u8::from(found.is_some())));
                }
            }
        }
        let keep = Tensor::from_slice(gpu, &keep, &[keep.len()])?;
        let source = match self.executor {
            Executor::Dense => None,
            Executor::Sparse => Some(Tensor::from_u32(gpu, &source, &[source.len()])?),
        };
        let mut flats = vec![arena.values_flat().clone()];
        for (name, moment) in optimizer.state() {
            if name.starts_with("moment") {
                flats.push(moment.clone());
            }
        }
        for flat in &flats {
            let bytes = 4 * entry.len as u64;
            let Some(place) = flat.storage().view(4 * entry.offset as u64, bytes) else {
                return Err(Error::Params(format!("`{}`: the optimiser is that of another model", self.name)));
            };
            let now = Tensor::from_storage(gpu, place.clone(), &[entry.len], shadegrad::DType::F32)?;
            let moved = match &source {
                Some(index) => now.index_select(0, index)?.mul(&keep)?,
                None => now.mul(&keep)?,
            };
            if entry.len > 0 {
                gpu.copy(moved.storage(), 0, &place, 0, bytes)?;
            }
        }
        state.form = Some(self.form(gpu, &new)?);
        state.mask = new;
        Ok(())
    }

    /// The layer with an activation behind it. Shows its input as `NAME.pre` and the result as `NAME.post` to the context's
    /// hooks, for [`Activations`](super::Activations).
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
    /// // The layer `hidden` of two inputs and two outputs, with weights on the diagonal.
    /// let activations = Activations::new();
    /// let cx = activations.watch(&Cx::eval(&arena));
    /// let y = layer.forward_with(&cx, &Tensor::ones(&gpu, &[3, 2])?, Activation::Relu)?;
    /// assert!(y.to_vec()?.iter().all(|v| *v >= 0.0));
    /// assert_eq!(activations.of("hidden")?.0.shape(), [3, 2]); // what went in
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_with(&self, cx: &Cx, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let x = cx.tap(&format!("{}.pre", self.name), x.clone())?;
        let y = activation.apply(&self.forward(cx, &x)?)?;
        cx.tap(&format!("{}.post", self.name), y)
    }
}

impl Module for MaskedLinear {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let weight = cx.param(self.weight);
        let bias = self.bias.map(|b| cx.param(b));
        let y = match &self.state.read().unwrap_or_else(PoisonError::into_inner).form {
            Some(Form::Dense(mask)) => x.linear(&weight.mul(mask)?, bias)?,
            Some(Form::Sparse(pattern)) => x.sparse_linear(weight, pattern, bias)?,
            None => {
                let name = &self.name;
                return Err(Error::value(
                    OP,
                    format!("`{name}` has no values yet; call `attach` once the arena is made"),
                ));
            }
        };
        cx.tap(&self.name, y)
    }
}

/// Sets a parameter.
fn write(arena: &Arena, id: ParamId, values: &[f32]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let new = Tensor::from_slice(arena.gpu(), values, &[values.len()])?;
    Ok(arena.gpu().copy(new.storage(), 0, arena.params().get(id).storage(), 0, 4 * values.len() as u64)?)
}
