//! Pooling layers and embeddings.

use crate::error::Result;
use crate::nn::{Cx, Init, Module, ParamId, Scope};
use crate::ops::Pool2d;
use crate::tensor::Tensor;

/// [`Tensor::max_pool2d`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?; // [N, H, W, C]
/// let y = MaxPool2d(Pool2d::new(2, 2, 0)).forward(&Cx::eval(&arena), &image)?;
/// assert_eq!((y.shape(), y.item()?), (&[1, 1, 1, 1][..], 4.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d(pub Pool2d);

impl Module for MaxPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.max_pool2d(self.0)
    }
}

/// [`Tensor::avg_pool2d`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?; // [N, H, W, C]
/// let y = AvgPool2d(Pool2d::new(2, 2, 0)).forward(&Cx::eval(&arena), &image)?;
/// assert_eq!((y.shape(), y.item()?), (&[1, 1, 1, 1][..], 2.5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d(pub Pool2d);

impl Module for AvgPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.avg_pool2d(self.0)
    }
}

/// [`Tensor::adaptive_avg_pool2d`] to this many rows and columns.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?; // [N, H, W, C]
/// let y = AdaptiveAvgPool2d(1, 2).forward(&Cx::eval(&arena), &image)?;
/// assert_eq!((y.shape(), y.to_vec()?), (&[1, 1, 2, 1][..], vec![2.0, 3.0])); // means of columns
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveAvgPool2d(pub usize, pub usize);

impl Module for AdaptiveAvgPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.adaptive_avg_pool2d(self.0, self.1)
    }
}

/// [`Tensor::global_avg_pool`]: `[N, H, W, C]` to `[N, C]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let head = Linear::with_init(&mut names.root(), 2, 1, Init::Ones, None);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let model = Sequential::new().then(GlobalAvgPool).then(head);
/// let image = Tensor::from_slice(&gpu, &[1.0, 10.0, 3.0, 30.0], &[1, 1, 2, 2])?; // two pixels, two channels
/// assert_eq!(model.forward(&Cx::eval(&arena), &image)?.to_vec()?, [22.0]); // 2 + 20
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GlobalAvgPool;

impl Module for GlobalAvgPool {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.global_avg_pool()
    }
}

/// A table of vectors, looked up by index: the parameter `weight` `[count, width]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let table = Embedding::new(&mut names.root().sub("words"), 100, 8);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = table.forward(&Cx::eval(&arena), &Tensor::from_u32(&gpu, &[3, 14, 15], &[3])?)?;
/// assert_eq!(y.shape(), [3, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    name: String,
    weight: ParamId,
}

impl Embedding {
    /// A table in this scope, standard normal at first.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let table = Embedding::new(&mut names.root().sub("words"), 4, 2);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = table.forward(&Cx::eval(&arena), &Tensor::from_u32(&gpu, &[3, 0, 3], &[1, 3])?)?;
    /// assert_eq!(y.shape(), [1, 3, 2]); // the indices' shape and the width
    /// let y = y.to_vec()?;
    /// assert_eq!(y[..2], y[4..]); // both of word 3
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, count: usize, width: usize) -> Self {
        let name = scope.name().to_string();
        Self { name, weight: scope.param("weight", &[count, width], Init::Normal(0.0, 1.0)) }
    }

    /// The table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let table = Embedding::new(&mut names.root().sub("words"), 3, 1);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = table.forward(&Cx::train(&arena), &Tensor::from_u32(&gpu, &[2, 2, 0], &[3])?)?;
    /// arena.backward(&y.sum_all()?)?;
    /// assert_eq!(arena.grads().get(table.weight()).to_vec()?, [1.0, 0.0, 2.0]); // how often each was looked up
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weight(&self) -> ParamId {
        self.weight
    }
}

impl Module for Embedding {
    /// Takes indices (`U32`) of any shape.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        cx.tap(&self.name, cx.param(self.weight).embedding(x)?)
    }
}
