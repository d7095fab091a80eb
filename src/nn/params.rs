//! A model's parameters as tensors.

use std::sync::Arc;

use crate::autograd::{GradOptions, grad_with};
use crate::error::{Error, Result};
use crate::nn::build::glob;
use crate::nn::{Entry, ParamId, Table, flat};
use crate::tensor::{DType, Tensor};

/// One tensor per row of a [`Table`]. Cheap to clone. Any set of tensors of the right shapes can take the place of any
/// other in a forward pass, such as the result of an inner training step that gradients flow through.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::grad_create_graph;
/// // A step of an inner loop that gradients flow through.
/// let mut names = Builder::new();
/// let layer = Linear::new(&mut names.root(), 2, 1, false);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let (cx, x) = (Cx::train(&arena), Tensor::ones(&gpu, &[4, 2])?);
/// let w = arena.params().get(layer.weight());
/// let g = grad_create_graph(&layer.forward(&cx, &x)?.square()?.sum_all()?, &[w])?.remove(0);
/// let stepped = Params::new(arena.table().clone(), vec![w.sub(&g.mul_scalar(0.1)?)?])?;
/// let after = layer.forward(&cx.with_params(&stepped), &x)?;
/// assert!(after.requires_grad());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Params {
    table: Arc<Table>,
    tensors: Arc<[Tensor]>,
}

impl Params {
    /// Parameters from one tensor per row.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// let (table, _) = names.tables()?;
    /// let own = Params::new(table.clone(), vec![Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?])?;
    /// assert_eq!(own.by_name("fc.weight")?.to_vec()?, [3.0, 4.0]);
    /// assert!(Params::new(table, vec![Tensor::ones(&gpu, &[2])?]).is_err()); // of another shape
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are more or fewer tensors than rows, or a shape differs; the text names the parameter.
    pub fn new(table: Arc<Table>, tensors: Vec<Tensor>) -> Result<Self> {
        if table.len() != tensors.len() {
            return Err(Error::Params(format!("{} tensors for {} parameters", tensors.len(), table.len())));
        }
        for (e, t) in table.entries().iter().zip(&tensors) {
            check(e, t)?;
        }
        Ok(Self { table, tensors: tensors.into() })
    }

    /// The parameters that lie in the flat tensor: views of its memory, through which gradients flow to it.
    ///
    /// ```
    /// # use shadegrad::{autograd::grad, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// let (table, _) = names.tables()?; // slots of 64 floats for weight and bias
    /// let flat = Tensor::full(&gpu, &[table.floats()], 0.5)?.leaf();
    /// let params = Params::from_flat(&table, &flat)?;
    /// assert_eq!(params.get(layer.weight()).to_vec()?, [0.5, 0.5]);
    /// let sum = params.by_name("fc.bias")?.sum_all()?;
    /// assert_eq!(grad(&sum, &[&flat])?[0].to_vec()?.iter().sum::<f32>(), 1.0); // at the bias alone
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `flat` is not one dimension of the table's [`Table::floats`] floats.
    pub fn from_flat(table: &Arc<Table>, flat: &Tensor) -> Result<Self> {
        if flat.shape() != [table.floats()] || flat.dtype() != DType::F32 {
            return Err(Error::shape(
                "from_flat",
                format!(
                    "{flat:?} does not fit a table of {} floats; flatten parameters with `to_flat`",
                    table.floats()
                ),
            ));
        }
        let tensors = table.entries().iter().map(|e| flat::take(flat, e.offset, &e.shape)).collect::<Result<_>>()?;
        Ok(Self { table: table.clone(), tensors })
    }

    /// All parameters side by side in one tensor of [`Table::floats`] floats, with zeros between; gradients flow through.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(3.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let flat = arena.params().to_flat()?.to_vec()?;
    /// assert_eq!(flat.len(), arena.table().floats());
    /// assert_eq!((flat[..3].to_vec(), flat[64]), (vec![1.0, 1.0, 0.0], 3.0)); // the weight, zeros, the bias
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no parameters, or the device refuses.
    pub fn to_flat(&self) -> Result<Tensor> {
        let offsets: Vec<usize> = self.table.entries().iter().map(|e| e.offset).collect();
        flat::place(&self.refs(), &offsets, self.table.floats())
    }

    /// Names, shapes and places.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let zeros = arena.params().map(|_, t| t.mul_scalar(0.0))?;
    /// assert_eq!(zeros.table().numel(), 3); // the model's names and shapes go along
    /// # Ok::<(), Error>(())
    /// ```
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The tensor of a parameter.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    /// If the id is that of another, larger model.
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The tensors in the order of the table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let shapes: Vec<&[usize]> = arena.params().tensors().iter().map(Tensor::shape).collect();
    /// assert_eq!(shapes, [&[1, 2][..], &[1][..]]); // weight and bias
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors as most functions of [`crate::autograd`] take them.
    ///
    /// ```
    /// # use shadegrad::{autograd::grad, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[1, 2])?)?;
    /// let grads = grad(&y.sum_all()?, &arena.params().refs())?;
    /// assert_eq!((grads[0].to_vec()?, grads[1].to_vec()?), (vec![1.0, 1.0], vec![1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn refs(&self) -> Vec<&Tensor> {
        self.tensors.iter().collect()
    }

    /// The full names in the order of the table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().names().collect::<Vec<_>>(), ["fc.weight", "fc.bias"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.table.entries().iter().map(|e| e.name.as_str())
    }

    /// Names and tensors in the order of the table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// for (name, tensor) in arena.params().iter() {
    ///     println!("{name}: {tensor:?}"); // fc.weight: Tensor([1, 2], F32, leaf)
    /// }
    /// let count: usize = arena.params().iter().map(|(_, t)| t.numel()).sum();
    /// assert_eq!(count, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names().zip(self.tensors.iter())
    }

    /// The id of the parameter called `name`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().id("fc.weight")?, layer.weight());
    /// assert!(arena.params().id("conv.weight").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none.
    pub fn id(&self, name: &str) -> Result<ParamId> {
        let row = self.table.find(name).ok_or_else(|| Error::Params(format!("no parameter is called `{name}`")))?;
        Ok(ParamId(row))
    }

    /// The tensor of the parameter called `name`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.5)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().by_name("fc.bias")?.to_vec()?, [0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(&self, name: &str) -> Result<&Tensor> {
        Ok(self.get(self.id(name)?))
    }

    /// The same parameters but for one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let other = arena.params().with(layer.weight(), Tensor::from_slice(&gpu, &[2.0, 3.0], &[1, 2])?)?;
    /// let (x, cx) = (Tensor::ones(&gpu, &[1, 2])?, Cx::eval(&arena));
    /// assert_eq!(layer.forward(&cx.with_params(&other), &x)?.item()?, 5.0);
    /// assert_eq!(layer.forward(&cx, &x)?.item()?, 2.0); // the arena's are as they were
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If its shape differs.
    pub fn with(&self, id: ParamId, tensor: Tensor) -> Result<Self> {
        check(&self.table.entries()[id.0], &tensor)?;
        let mut tensors = self.tensors.to_vec();
        tensors[id.0] = tensor;
        Ok(Self { table: self.table.clone(), tensors: tensors.into() })
    }

    /// A function of each parameter.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(1.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let of_weights = |e: &Entry| if e.name.ends_with("bias") { 1.0 } else { 0.5 };
    /// let halved = arena.params().map(|e, t| t.mul_scalar(of_weights(e)))?;
    /// assert_eq!(halved.by_name("fc.weight")?.to_vec()?, [0.5, 0.5]);
    /// assert_eq!(halved.by_name("fc.bias")?.to_vec()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`, or if it changes a shape.
    pub fn map(&self, mut f: impl FnMut(&Entry, &Tensor) -> Result<Tensor>) -> Result<Self> {
        let rows = self.table.entries().iter().zip(self.tensors.iter());
        Self::new(self.table.clone(), rows.map(|(e, t)| f(e, t)).collect::<Result<_>>()?)
    }

    /// A function of each parameter and its counterpart.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let start = arena.params().map(|_, t| t.detach().mul_scalar(3.0))?;
    /// let middle = arena.params().zip(&start, |a, b| a.add(b)?.mul_scalar(0.5))?; // halfway between two models
    /// assert_eq!(middle.get(layer.weight()).to_vec()?, [2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`, or if shapes differ.
    pub fn zip(&self, other: &Params, mut f: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Self> {
        if other.tensors.len() != self.tensors.len() {
            return Err(Error::Params(format!("{} parameters against {}", self.tensors.len(), other.tensors.len())));
        }
        let pairs = self.tensors.iter().zip(other.tensors.iter());
        Self::new(self.table.clone(), pairs.map(|(a, b)| f(a, b)).collect::<Result<_>>()?)
    }

    /// `self + scale * other`: an inner step of gradient descent when `other` are gradients and `scale` is minus the rate.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let w = arena.params();
    /// let loss = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 2], 4.0)?)?.sum_all()?;
    /// let inner = w.add_scaled(&w.grad(&loss, true, &[])?, -0.25)?; // one step of gradient descent
    /// assert_eq!(inner.get(layer.weight()).to_vec()?, [0.0, 0.0]); // 1 - 0.25 * 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If shapes differ.
    pub fn add_scaled(&self, other: &Params, scale: f32) -> Result<Self> {
        self.zip(other, |a, b| a.add(&b.mul_scalar(scale)?))
    }

    /// The same values as constants.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let fixed = arena.params().detach(); // a teacher's, say
    /// let y = layer.forward(&Cx::eval(&arena).with_params(&fixed), &Tensor::ones(&gpu, &[1, 2])?)?;
    /// assert!(arena.params().tensors()[0].requires_grad() && !y.requires_grad());
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn detach(&self) -> Self {
        Self { table: self.table.clone(), tensors: self.tensors.iter().map(Tensor::detach).collect() }
    }

    /// The same values as new leaves.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let own = arena.params().detach().leaves();
    /// let y = layer.forward(&Cx::eval(&arena).with_params(&own), &Tensor::ones(&gpu, &[1, 2])?)?;
    /// assert_eq!(own.grad(&y.sum_all()?, false, &[])?.get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn leaves(&self) -> Self {
        Self { table: self.table.clone(), tensors: self.tensors.iter().map(Tensor::leaf).collect() }
    }

    /// Gradients of the scalar `loss` with respect to all parameters that need one; zeros for those that do not (frozen
    /// ones) and for those that match a [`glob`] in `may_miss`. With `create_graph` they are differentiable.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let unused = Linear::new(&mut names.root().sub("spare"), 1, 1, false);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[2, 1], 3.0)?)?; // two rows
    /// let grads = arena.params().grad(&y.sum_all()?, false, &["spare.*"])?; // which the loss does not see
    /// assert_eq!(grads.by_name("fc.weight")?.to_vec()?, [6.0]);
    /// assert_eq!(grads.by_name("spare.weight")?.to_vec()?, [0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a parameter gets no gradient: the text names all of them and the operations on the way that have none.
    pub fn grad(&self, loss: &Tensor, create_graph: bool, may_miss: &[&str]) -> Result<Params> {
        let found = self.try_grad(loss, create_graph, may_miss)?;
        let rows = self.tensors.iter().zip(found);
        let tensors =
            rows.map(|(t, g)| g.map_or_else(|| Tensor::zeros(t.gpu(), t.shape()), Ok)).collect::<Result<_>>()?;
        Ok(Self { table: self.table.clone(), tensors })
    }

    /// [`Params::grad`] with `None` in place of the zeros.
    pub(crate) fn try_grad(&self, loss: &Tensor, create_graph: bool, may_miss: &[&str]) -> Result<Vec<Option<Tensor>>> {
        let wanted: Vec<usize> = (0..self.tensors.len()).filter(|&i| self.tensors[i].requires_grad()).collect();
        let targets: Vec<&Tensor> = wanted.iter().map(|&i| &self.tensors[i]).collect();
        // A constant loss gets the text of `grad_with`, which knows why it is one.
        let options = GradOptions { create_graph, allow_unused: loss.requires_grad(), ..GradOptions::default() };
        let found = grad_with(&[loss], &targets, None, options)?;
        let mut grads = vec![None; self.tensors.len()];
        let mut missing = Vec::new();
        for (&i, g) in wanted.iter().zip(found) {
            let name = &self.table.entries()[i].name;
            if g.is_none() && !may_miss.iter().any(|p| glob(p, name)) {
                missing.push(name.as_str());
            }
            grads[i] = g;
        }
        if missing.is_empty() {
            return Ok(grads);
        }
        Err(Error::Gradient(format!(
            "no gradient reaches {} of {} parameters: {}{}; freeze them, or allow it with `allow_missing`",
            missing.len(),
            wanted.len(),
            missing.join(", "),
            crate::autograd::cuts_on_the_way(&[loss])
        )))
    }
}

fn check(e: &Entry, t: &Tensor) -> Result<()> {
    if t.shape() == e.shape && t.dtype() == DType::F32 {
        return Ok(());
    }
    Err(Error::Params(format!("`{}` is {:?} of F32, got {:?} of {:?}", e.name, e.shape, t.shape(), t.dtype())))
}
