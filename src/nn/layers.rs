//! Linear layers, dropout and sequences.

use crate::error::Result;
use crate::nn::per_sample::Kind;
use crate::nn::{Activation, ActivationLayer, Cx, Init, Module, ParamId, Scope};
use crate::tensor::Tensor;

/// `y[.., out] = x[.., in] w^T + b`: parameters `weight` `[out, in]` and `bias` `[out]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Linear::new(&mut names.root().sub("fc"), 8, 2, true);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[4, 8])?)?;
/// assert_eq!(y.shape(), [4, 2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Linear {
    /// A layer in this scope. First values as `torch.nn.Linear`: uniform in `+-1 / sqrt(inputs)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 8, 2, true);
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.entries()[layer.weight().index()].shape, [2, 8]); // [out, in]
    /// assert_eq!(table.entries()[1].name, "fc.bias");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, bias: bool) -> Self {
        let init = Init::FanIn(inputs);
        Self::with_init(scope, inputs, outputs, init, bias.then_some(init))
    }

    /// A layer with other first values, without a bias where that has none.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Linear::with_init(&mut names.root(), 2, 1, Init::Ones, Some(Init::Const(0.5)));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &x)?.to_vec()?, [3.5, 7.5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_init(scope: &mut Scope<'_>, inputs: usize, outputs: usize, weight: Init, bias: Option<Init>) -> Self {
        Self {
            name: scope.name().to_string(),
            weight: scope.param("weight", &[outputs, inputs], weight),
            bias: bias.map(|init| scope.param("bias", &[outputs], init)),
        }
    }

    /// The weight.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 2, 1, false);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_value(layer.weight(), &Tensor::from_slice(&gpu, &[2.0, 3.0], &[1, 2])?)?;
    /// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 2])?)?;
    /// assert_eq!(y.to_vec()?, [5.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weight(&self) -> ParamId {
        self.weight
    }

    /// The bias, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// let with = Linear::new(&mut root.sub("a"), 2, 1, true);
    /// let without = Linear::new(&mut root.sub("b"), 2, 1, false);
    /// assert_eq!(without.bias(), None);
    /// assert_eq!(with.bias().map(ParamId::index), Some(1)); // after its weight
    /// ```
    pub fn bias(&self) -> Option<ParamId> {
        self.bias
    }
}

impl Module for Linear {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let y = x.linear(cx.param(self.weight), self.bias.map(|b| cx.param(b)))?;
        cx.capture(|| Ok((Kind::Linear(self.weight, self.bias), x.detach())), &y)?;
        cx.tap(&self.name, y)
    }
}

/// Sets each element to zero with probability `p` in training and scales the others by `1 / (1 - p)`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::ones(&gpu, &[1000])?;
/// let y = Dropout(0.5).forward(&Cx::train(&arena).seeded(1, 0), &x)?.to_vec()?;
/// assert!(y.iter().all(|&v| v == 0.0 || v == 2.0));
/// assert_eq!(Dropout(0.5).forward(&Cx::eval(&arena), &x)?.to_vec()?, [1.0; 1000]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dropout(pub f32);

impl Module for Dropout {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        if !cx.training() || self.0 == 0.0 {
            return Ok(x.clone());
        }
        x.dropout(self.0, cx.draw())
    }
}

/// Stochastic depth: sets the whole branch of a sample to zero with probability `p` in training and scales the others by
/// `1 / (1 - p)` (Huang et al., 2016). For the branch of a residual block, before the addition.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let branch = Tensor::ones(&gpu, &[8, 3])?; // eight samples
/// let y = DropPath(0.5).forward(&Cx::train(&arena).seeded(1, 0), &branch)?.to_vec()?;
/// assert!(y.chunks(3).all(|sample| sample == [0.0; 3] || sample == [2.0; 3]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DropPath(pub f32);

impl Module for DropPath {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        if !cx.training() || self.0 == 0.0 {
            return Ok(x.clone());
        }
        x.drop_path(self.0, cx.draw())
    }
}

/// Passes its input on.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let mut root = names.root();
/// # Linear::new(&mut root.sub("fc"), 1, 1, false);
/// let (inputs, outputs) = (2, 2); // of a residual block
/// let shortcut: Box<dyn Module> = if inputs == outputs {
///     Box::new(Identity)
/// } else {
///     Box::new(Linear::new(&mut root.sub("shortcut"), inputs, outputs, false))
/// };
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?;
/// assert_eq!(shortcut.forward(&Cx::eval(&arena), &x)?.to_vec()?, [1.0, 2.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Module for Identity {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }
}

/// Merges all dimensions but the first.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let images = Tensor::ones(&gpu, &[2, 4, 4, 3])?; // [N, H, W, C]
/// assert_eq!(Flatten.forward(&Cx::eval(&arena), &images)?.shape(), [2, 48]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Module for Flatten {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        let n = x.shape().first().copied().unwrap_or(1);
        x.reshape(&[n, x.shape().iter().skip(1).product()])
    }
}

/// Modules one after the other.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let mut root = names.root();
/// let model = Sequential::new()
///     .then(Flatten)
///     .then(Linear::new(&mut root.sub(0), 16, 32, true))
///     .then(Activation::Relu.layer(&mut root.sub(1)))
///     .then(Linear::new(&mut root.sub(2), 32, 10, true));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// assert_eq!(model.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 4, 4, 1])?)?.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Module>>);

impl Sequential {
    /// An empty sequence.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let mut model = Sequential::new();
    /// for i in 0..3 {
    ///     model = model.then(Linear::with_init(&mut names.root().sub(i), 1, 1, Init::Const(2.0), None));
    /// }
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(model.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 1])?)?.item()?, 8.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more at the end. PyTorch numbers the members: build each in `scope.sub(0)`, `scope.sub(1)` ...
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// let model = Sequential::new()
    ///     .then(Linear::with_init(&mut root.sub(0), 2, 1, Init::Const(-1.0), None))
    ///     .then(Activation::LeakyRelu(0.5));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = model.forward(&Cx::eval(&arena), &Tensor::from_slice(&gpu, &[1.0, 3.0], &[1, 2])?)?;
    /// assert_eq!(y.to_vec()?, [-2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn then(mut self, module: impl Module + 'static) -> Self {
        self.0.push(Box::new(module));
        self
    }

    /// Number of modules.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// let model = Sequential::new().then(Flatten).then(Activation::Relu);
    /// assert_eq!(model.len(), 2);
    /// ```
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// assert!(Sequential::new().is_empty());
    /// assert!(!Sequential::new().then(Flatten).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Module for Sequential {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, m| m.forward(cx, &x))
    }
}

/// Two linear layers `fc1` and `fc2` with an activation between and dropout behind each: the MLP of a transformer block.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Mlp::new(&mut names.root().sub("mlp"), 8, 32, Activation::Gelu, 0.0);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[4, 8])?)?;
/// assert_eq!(y.shape(), [4, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: ActivationLayer,
    dropout: Dropout,
}

impl Mlp {
    /// An MLP from `width` to `hidden` to `width`. First values as timm's ViT: truncated normal 0.02, biases zero. The
    /// parameter of an activation that has one is in the scope `act`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Mlp::new(&mut names.root().sub("mlp"), 8, 32, Activation::Prelu(0.25), 0.1);
    /// let (table, _) = names.tables()?;
    /// let shape = |name: &str| table.find(name).map(|row| table.entries()[row].shape.clone());
    /// assert_eq!(shape("mlp.fc1.weight"), Some(vec![32, 8]));
    /// assert_eq!(shape("mlp.act.weight"), Some(vec![1])); // PReLU's own number
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, width: usize, hidden: usize, activation: Activation, dropout: f32) -> Self {
        let (w, b) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        Self {
            fc1: Linear::with_init(&mut scope.sub("fc1"), width, hidden, w, b),
            fc2: Linear::with_init(&mut scope.sub("fc2"), hidden, width, w, b),
            activation: activation.layer(&mut scope.sub("act")),
            dropout: Dropout(dropout),
        }
    }
}

impl Module for Mlp {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let h = self.activation.forward(cx, &self.fc1.forward(cx, x)?)?;
        let h = self.dropout.forward(cx, &h)?;
        self.dropout.forward(cx, &self.fc2.forward(cx, &h)?)
    }
}
