//! One recorded operation.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use crate::autograd::{anomaly, recording, trace};
use crate::error::{Error, Result};
use crate::precision::Precision;
use crate::tensor::{Shape, Tensor};

/// Nodes of the inputs, in place for most operations.
type Inputs = SmallVec<[Option<Arc<Node>>; 3]>;
type Backward = Box<dyn Fn(&Ctx, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;
type Hook = Box<dyn Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync>;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One recorded operation, or a leaf.
pub(crate) struct Node {
    id: u64,
    name: &'static str,
    shape: Shape,
    inputs: Inputs,
    /// Gradient-free operations that inputs without a node came from.
    cuts: Vec<&'static str>,
    /// `None` in a leaf, and once the graph was freed.
    backward: Mutex<Option<Backward>>,
    hooks: Mutex<Vec<Hook>>,
}

/// Which inputs want a gradient.
pub(super) type Needs = SmallVec<[bool; 8]>;

/// What a backward rule may ask while it runs.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{Ctx, custom, grad};
/// // The identity, whose gradient is turned around: what domain-adversarial training puts before its critic.
/// let reverse = |x: &Tensor| {
///     custom("reverse", &[x], |x| Ok(x[0].clone()), |_: &Ctx, grad: &Tensor| Ok(vec![Some(grad.neg()?)]))
/// };
/// let x = Tensor::ones(&gpu, &[2])?.leaf();
/// assert_eq!(grad(&reverse(&x)?.sum_all()?, &[&x])?[0].to_vec()?, [-1.0, -1.0]);
/// # Ok::<(), Error>(())
/// ```
pub struct Ctx {
    node: Arc<Node>,
    needs: Needs,
    create_graph: bool,
}

impl Ctx {
    /// Whether anybody wants the gradient of input `i`; return `None` for it otherwise.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::{custom, grad};
    /// let (a, b) = (Tensor::full(&gpu, &[1], 2.0)?.leaf(), Tensor::full(&gpu, &[1], 3.0)?);
    /// let (x, y) = (a.clone(), b.clone());
    /// let product = custom("product", &[&a, &b], |t| t[0].mul(t[1]), move |ctx, grad| {
    ///     let of = |i: usize, other: &Tensor| ctx.needs(i).then(|| grad.mul(other)).transpose();
    ///     Ok(vec![of(0, &y)?, of(1, &x)?]) // `b` is a constant: the second is `None`
    /// })?;
    /// assert_eq!(grad(&product.sum_all()?, &[&a])?[0].to_vec()?, [3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn needs(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }

    /// Whether the gradients must be differentiable. If not, a fused kernel without a backward rule will do.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::{custom, grad, grad_create_graph};
    /// let x = Tensor::ones(&gpu, &[1])?.leaf();
    /// let double = |wanted: bool| {
    ///     custom("double", &[&x], |x| x[0].mul_scalar(2.0), move |ctx, grad| {
    ///         assert_eq!(ctx.create_graph(), wanted);
    ///         Ok(vec![Some(grad.mul_scalar(2.0)?)])
    ///     })?.sum_all()
    /// };
    /// assert_eq!(grad(&double(false)?, &[&x])?[0].to_vec()?, [2.0]);
    /// assert_eq!(grad_create_graph(&double(true)?, &[&x])?[0].to_vec()?, [2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn create_graph(&self) -> bool {
        self.create_graph
    }

    /// The operation's own result, from the detached copy that its backward rule kept, attached to the graph again.
    /// (A rule that held its result itself would keep it alive forever.)
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::{custom, grad, grad_create_graph};
    /// let x = Tensor::zeros(&gpu, &[1])?.leaf();
    /// let (y, saved) = { let y = x.detach().exp()?; (y.clone(), y) };
    /// let y = custom("my_exp", &[&x], |_| Ok(y), move |ctx, grad| Ok(vec![Some(grad.mul(&ctx.output(&saved))?)]))?;
    /// let slope = grad_create_graph(&y.sum_all()?, &[&x])?.remove(0); // e^x again, in the graph
    /// assert!((grad(&slope.sum_all()?, &[&x])?[0].item()? - 1.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn output(&self, saved: &Tensor) -> Tensor {
        saved.with(saved.shape(), self.create_graph.then(|| self.node.clone()), None)
    }
}

impl Node {
    fn new(name: &'static str, shape: &[usize], inputs: &[&Tensor], backward: Option<Backward>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name,
            shape: shape.into(),
            inputs: inputs.iter().map(|t| t.0.node.clone()).collect(),
            cuts: inputs.iter().filter_map(|t| t.0.cut).collect(),
            backward: Mutex::new(backward),
            hooks: Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The operation's name; `leaf` for a leaf.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn inputs(&self) -> &[Option<Arc<Node>>] {
        &self.inputs
    }

    pub(crate) fn cuts(&self) -> &[&'static str] {
        &self.cuts
    }

    pub(crate) fn run_hooks(&self, mut grad: Tensor) -> Result<Tensor> {
        for hook in self.hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(changed) = hook(&grad)? {
                grad = changed;
            }
        }
        Ok(grad)
    }

    /// Gradients of the inputs. Frees the rule and what it saved unless `retain`.
    pub(crate) fn backward(
        self: &Arc<Self>,
        grad: &Tensor,
        needs: Needs,
        create_graph: bool,
        retain: bool,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut slot = self.backward.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = slot.take().ok_or_else(|| {
            Error::Gradient(format!(
                "the graph of `{}` was freed by an earlier backward pass; keep it with retain_graph",
                self.name
            ))
        })?;
        let ctx = Ctx { node: self.clone(), needs, create_graph };
        let outer = anomaly::enter(Some(self.name));
        // Rules take the element types of what the forward pass kept.
        let grads = Precision::F32.scope(|| rule(&ctx, grad));
        anomaly::enter(outer);
        if let Ok(grads) = &grads {
            anomaly::look_at_grads(self.name, grads);
        }
        if retain {
            *slot = Some(rule);
        }
        grads
    }
}

impl Drop for Node {
    /// Without this a long chain of nodes would be dropped by recursion and overflow the stack.
    fn drop(&mut self) {
        let mut stack: Vec<Arc<Node>> = self.inputs.drain(..).flatten().collect();
        // The rule may hold the same inputs: they are in `stack` now, so dropping it ends no chain.
        *self.backward.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        while let Some(node) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                stack.extend(node.inputs.drain(..).flatten());
                *node.backward.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
    }
}

impl Tensor {
    /// Gives `self`, a fresh result of operation `op` on `inputs`, its backward rule. The rule gets the gradient of the
    /// result and returns one gradient per input, `None` where [`Ctx::needs`] says that nobody wants it. It must be
    /// made of tensor operations, so that it can be differentiated again.
    pub(crate) fn record<F>(self, op: &'static str, inputs: &[&Tensor], backward: F) -> Tensor
    where
        F: Fn(&Ctx, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
    {
        anomaly::look(op, &self);
        let out = if recording() && inputs.iter().any(|t| t.requires_grad()) {
            let node = Node::new(op, self.shape(), inputs, Some(Box::new(backward)));
            self.attach(Some(node), None)
        } else {
            match inputs.iter().find_map(|t| t.0.cut) {
                Some(cut) => self.attach(None, Some(cut)),
                None => self,
            }
        };
        trace::note(op, inputs, &out);
        out
    }

    /// Marks `self`, a fresh result of `op`, as having no gradient: asking for one is an error that names `op`.
    pub(crate) fn record_cut(self, op: &'static str, inputs: &[&Tensor]) -> Tensor {
        anomaly::look(op, &self);
        let cut = inputs.iter().any(|t| t.requires_grad() || t.0.cut.is_some());
        let out = if cut { self.attach(None, Some(op)) } else { self };
        trace::note(op, inputs, &out);
        out
    }

    /// Names of all operations in the graph behind this tensor, those without a gradient included: for messages and tests.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[2])?.leaf();
    /// let loss = x.square()?.mul(&x.gt_scalar(0.0)?)?.sum_all()?;
    /// assert!(["leaf", "square", "mul", "gt_scalar"].iter().all(|op| loss.graph_ops().contains(op)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn graph_ops(&self) -> BTreeSet<&'static str> {
        let mut names: BTreeSet<&'static str> = self.0.cut.into_iter().collect();
        let mut seen = HashSet::new();
        let mut stack: Vec<Arc<Node>> = self.0.node.iter().cloned().collect();
        while let Some(node) = stack.pop() {
            if seen.insert(node.id) {
                names.insert(node.name);
                names.extend(&node.cuts);
                stack.extend(node.inputs.iter().flatten().cloned());
            }
        }
        names
    }

    /// The same values as a leaf: a variable that gradients can be taken with respect to.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[2])?;
    /// assert!(!x.requires_grad() && x.leaf().requires_grad() && !x.leaf().detach().requires_grad());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn leaf(&self) -> Tensor {
        self.with(self.shape(), Some(Node::new("leaf", self.shape(), &[], None)), None)
    }

    /// Whether it is a variable itself, and not the result of an operation on variables.
    pub(crate) fn is_leaf(&self) -> bool {
        self.0.node.as_ref().is_some_and(|n| n.inputs.is_empty())
    }

    /// The same values as a constant.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::full(&gpu, &[1], 3.0)?.leaf();
    /// let loss = x.mul(&x.detach())?.sum_all()?; // the second factor counts as a constant
    /// assert_eq!((loss.item()?, grad(&loss, &[&x])?[0].item()?), (9.0, 3.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn detach(&self) -> Tensor {
        self.with(self.shape(), None, None)
    }

    /// Calls `hook` with the gradient of this tensor in every backward pass; what it returns, if anything, replaces it.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::ones(&gpu, &[2])?.leaf();
    /// let y = x.mul_scalar(2.0)?;
    /// y.on_grad(|g| Ok(Some(g.mul_scalar(10.0)?)))?; // `None` would only look
    /// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?, [20.0, 20.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the tensor is a constant.
    pub fn on_grad(&self, hook: impl Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static) -> Result<()> {
        let Some(node) = &self.0.node else {
            return Err(Error::Gradient(format!("a hook on {:?}, a constant, would never run", self.shape())));
        };
        node.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
        Ok(())
    }
}
