//! Reverse-mode differentiation.
//!
//! An operation on tensors that need gradients leaves a node: its name, the nodes of its inputs and a backward rule
//! written with tensor operations, so that a gradient has a graph of its own when asked ([`GradOptions::create_graph`]).
//! Nodes are numbered as they are made, and every input is older than its result: walking them by falling number is a
//! topological order without recursion, so deep graphs cannot overflow the stack.

mod anomaly;
mod checkpoint;
mod composite;
mod functions;
mod node;
mod saved;
mod trace;

pub use anomaly::detect_anomaly;
pub(crate) use anomaly::{leave_layer, nonfinite};
pub use checkpoint::checkpoint;
pub(crate) use checkpoint::record_checkpoint;
pub(crate) use composite::composite_grads;
pub use functions::{custom, hvp, vjp};
pub use node::Ctx;
use node::Needs;
pub(crate) use node::Node;
pub use saved::{Compact, Form, Ledger, SavedTensor, keep_compactly};
pub(crate) use saved::{Keeper, Saved, comes_from, is_parameter};
pub(crate) use trace::wanted;
pub use trace::{Traced, trace};

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread record their backward rules now.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{enable_grad, no_grad, recording};
/// assert!(recording() && !no_grad(recording) && no_grad(|| enable_grad(recording)));
/// # Ok::<(), Error>(())
/// ```
pub fn recording() -> bool {
    RECORDING.get()
}

/// Sets whether operations record, for as long as the guard lives.
pub(crate) struct Recording(bool);

impl Recording {
    pub(crate) fn set(on: bool) -> Self {
        Self(RECORDING.replace(on))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDING.set(self.0);
    }
}

/// Runs `f` without recording: its results are constants.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::no_grad;
/// let w = Tensor::ones(&gpu, &[2])?.leaf();
/// assert!(w.square()?.requires_grad());
/// assert!(!no_grad(|| w.square())?.requires_grad());
/// # Ok::<(), Error>(())
/// ```
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _guard = Recording::set(false);
    f()
}

/// Runs `f` with recording, also inside [`no_grad`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{enable_grad, grad, no_grad};
/// let x = Tensor::full(&gpu, &[1], 3.0)?.leaf();
/// // A slope that is needed where nothing else is recorded, as in adversarial perturbations.
/// let slope = no_grad(|| enable_grad(|| grad(&x.square()?.sum_all()?, &[&x])))?;
/// assert_eq!(slope[0].to_vec()?, [6.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn enable_grad<T>(f: impl FnOnce() -> T) -> T {
    let _guard = Recording::set(true);
    f()
}

/// How to take gradients.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{GradOptions, grad_with};
/// let x = Tensor::full(&gpu, &[1], 3.0)?.leaf();
/// let loss = x.square()?.sum_all()?;
/// let keep = GradOptions { retain_graph: true, ..GradOptions::default() };
/// for options in [keep, GradOptions::default()] { // the second pass frees the graph
///     assert_eq!(grad_with(&[&loss], &[&x], None, options)?[0].as_ref().map(Tensor::item).transpose()?, Some(6.0));
/// }
/// assert!(grad_with(&[&loss], &[&x], None, keep).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GradOptions {
    /// Give the gradients a graph of their own, so that they can be differentiated again.
    pub create_graph: bool,
    /// Keep the graph for another backward pass. On with `create_graph`; otherwise what the forward pass saved is freed
    /// as the backward pass goes by.
    pub retain_graph: bool,
    /// Return `None` for an input that the outputs do not depend on, instead of an error.
    pub allow_unused: bool,
}

/// Gradients of the scalar `output` with respect to `inputs`; frees the graph.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::grad;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?.leaf();
/// let loss = x.square()?.sum_all()?;
/// assert_eq!(grad(&loss, &[&x])?[0].to_vec()?, [2.0, 4.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the output is not a scalar, or does not depend on an input, or the path to it ends in an operation without a
/// gradient (which the text names).
pub fn grad(output: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    all(grad_with(&[output], inputs, None, GradOptions::default())?)
}

/// [`grad`], differentiable again.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{grad, grad_create_graph};
/// let x = Tensor::from_slice(&gpu, &[3.0], &[1])?.leaf();
/// let slope = grad_create_graph(&x.square()?.mul(&x)?.sum_all()?, &[&x])?.remove(0); // 3 x^2
/// assert_eq!(grad(&slope.sum_all()?, &[&x])?[0].to_vec()?, [18.0]); // 6 x
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`grad`].
pub fn grad_create_graph(output: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let options = GradOptions { create_graph: true, ..GradOptions::default() };
    all(grad_with(&[output], inputs, None, options)?)
}

/// Unwraps gradients that [`grad_with`] guarantees without `allow_unused`.
fn all(grads: Vec<Option<Tensor>>) -> Result<Vec<Tensor>> {
    grads.into_iter().map(|g| g.ok_or_else(|| Error::Gradient("an input got no gradient".into()))).collect()
}

/// Gradients of `sum_i <cotangents[i], outputs[i]>` with respect to `inputs`. Without cotangents the outputs must be
/// scalars, with weight one.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{GradOptions, grad_with};
/// let (x, other) = (Tensor::ones(&gpu, &[2])?.leaf(), Tensor::ones(&gpu, &[2])?.leaf());
/// let weights = Tensor::from_slice(&gpu, &[1.0, 10.0], &[2])?;
/// let options = GradOptions { allow_unused: true, ..GradOptions::default() };
/// let grads = grad_with(&[&x.mul_scalar(3.0)?], &[&x, &other], Some(&[&weights]), options)?;
/// assert_eq!(grads[0].as_ref().map(Tensor::to_vec).transpose()?, Some(vec![3.0, 30.0]));
/// assert!(grads[1].is_none());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`grad`]; also if a cotangent has not its output's shape.
pub fn grad_with(
    outputs: &[&Tensor],
    inputs: &[&Tensor],
    cotangents: Option<&[&Tensor]>,
    options: GradOptions,
) -> Result<Vec<Option<Tensor>>> {
    let retain = options.retain_graph || options.create_graph;
    let mut pending = Pending::default();
    {
        let _guard = Recording::set(options.create_graph);
        for (i, out) in outputs.iter().enumerate() {
            let seed = match cotangents {
                Some(c) if c.len() != outputs.len() => {
                    return Err(Error::Gradient(format!("{} outputs, {} cotangents", outputs.len(), c.len())));
                }
                Some(c) if c[i].shape() != out.shape() => {
                    return Err(Error::Gradient(format!(
                        "output {i} is {:?}, its cotangent {:?}; they must be equal",
                        out.shape(),
                        c[i].shape()
                    )));
                }
                Some(c) => c[i].clone(),
                None if out.numel() == 1 => Tensor::ones(out.gpu(), out.shape())?,
                None => {
                    return Err(Error::Gradient(format!(
                        "output {i} is {:?}, not a scalar; sum it, or give a cotangent",
                        out.shape()
                    )));
                }
            };
            match &out.0.node {
                Some(node) => pending.add(node, seed)?,
                None if options.allow_unused => {}
                None => return Err(Error::Gradient(no_graph(i, out))),
            }
        }
    }
    let targets: Vec<Option<u64>> = inputs.iter().map(|t| t.0.node.as_ref().map(|n| n.id())).collect();
    // What was found of each, once its turn has come.
    let mut found: FxHashMap<u64, Option<Tensor>> = targets.iter().flatten().map(|id| (*id, None)).collect();
    if let Some(i) = targets.iter().position(Option::is_none)
        && !options.allow_unused
    {
        let t = inputs[i];
        return Err(Error::Gradient(match t.0.cut {
            Some(op) => format!("input {i}, {:?}, comes from `{op}`, which has no gradient", t.shape()),
            None => format!("input {i}, {:?}, is a constant; make it a leaf with `leaf()` first", t.shape()),
        }));
    }
    let needed = needed_nodes(&pending, found.keys().copied());
    while let Some((id, (node, grad))) = pending.0.pop_last() {
        let _guard = Recording::set(options.create_graph);
        let grad = node.run_hooks(grad)?;
        if let Some(place) = found.get_mut(&id) {
            *place = Some(grad.clone());
        }
        let needs: Needs = node.inputs().iter().map(|n| n.as_ref().is_some_and(|n| needed.contains(&n.id()))).collect();
        if !needs.contains(&true) {
            continue;
        }
        let grads = node.backward(&grad, needs, options.create_graph, retain)?;
        for (input, g) in node.inputs().iter().zip(grads) {
            if let (Some(input), Some(g)) = (input, g)
                && needed.contains(&input.id())
            {
                pending.add(input, g)?;
            }
        }
    }
    targets
        .iter()
        .enumerate()
        .map(|(i, id)| match id.and_then(|id| found.get(&id).cloned().flatten()) {
            Some(g) => Ok(Some(g)),
            None if options.allow_unused => Ok(None),
            None => Err(Error::Gradient(format!(
                "the output does not depend on input {i}, {:?}{}; pass allow_unused if that is intended",
                inputs[i].shape(),
                cuts_on_the_way(outputs)
            ))),
        })
        .collect()
}

fn no_graph(i: usize, out: &Tensor) -> String {
    match out.0.cut {
        Some(op) => format!("output {i}, {:?}, comes from `{op}`, which has no gradient", out.shape()),
        None => format!(
            "output {i}, {:?}, is a constant: none of its inputs was a leaf, or it was made in no_grad",
            out.shape()
        ),
    }
}

/// Names of gradient-free operations whose results went into the outputs: the likely reason of a missing gradient.
pub(crate) fn cuts_on_the_way(outputs: &[&Tensor]) -> String {
    let mut names: Vec<&'static str> = Vec::new();
    let mut seen = FxHashSet::default();
    let mut stack: Vec<Arc<Node>> = outputs.iter().filter_map(|t| t.0.node.clone()).collect();
    while let Some(node) = stack.pop() {
        if !seen.insert(node.id()) {
            continue;
        }
        names.extend(node.cuts().iter().filter(|c| !names.contains(c)).copied().collect::<Vec<_>>());
        stack.extend(node.inputs().iter().flatten().cloned());
    }
    if names.is_empty() {
        return String::new();
    }
    format!(" (on the way lies `{}`, which has no gradient)", names.join("`, `"))
}

/// Gradients that wait for their node's turn, by node number.
#[derive(Default)]
struct Pending(BTreeMap<u64, (Arc<Node>, Tensor)>);

impl Pending {
    fn add(&mut self, node: &Arc<Node>, grad: Tensor) -> Result<()> {
        if grad.shape() != node.shape() {
            return Err(Error::Gradient(format!(
                "the result of `{}` is {:?}, but the gradient for it is {:?}",
                node.name(),
                node.shape(),
                grad.shape()
            )));
        }
        let sum = match self.0.remove(&node.id()) {
            Some((_, before)) => before.add(&grad)?,
            None => grad,
        };
        self.0.insert(node.id(), (node.clone(), sum));
        Ok(())
    }
}

/// The nodes between the outputs and the targets: the only ones whose gradients are computed.
fn needed_nodes(pending: &Pending, targets: impl Iterator<Item = u64>) -> FxHashSet<u64> {
    let mut seen: FxHashSet<u64> = FxHashSet::default();
    let mut order: Vec<Arc<Node>> = Vec::new();
    let mut stack: Vec<Arc<Node>> = pending.0.values().map(|(n, _)| n.clone()).collect();
    while let Some(node) = stack.pop() {
        if seen.insert(node.id()) {
            stack.extend(node.inputs().iter().flatten().cloned());
            order.push(node);
        }
    }
    // Inputs are older than results.
    order.sort_unstable_by_key(|n| n.id());
    seen.clear();
    let mut needed = seen;
    needed.extend(targets);
    for node in &order {
        if node.inputs().iter().flatten().any(|n| needed.contains(&n.id())) {
            needed.insert(node.id());
        }
    }
    needed
}
