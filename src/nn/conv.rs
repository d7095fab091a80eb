//! Convolutions over images `[N, height, width, channels]`.

use crate::error::Result;
use crate::nn::per_sample::Kind;
use crate::nn::{Cx, Fan, Init, Layout, Module, ParamId, Scope};
use crate::ops::Conv2d as Geometry;
use crate::tensor::Tensor;

/// What a convolution may have beside channels and kernel. As text: `ConvOptions::new(2, 1).no_bias()`.
///
/// ```
/// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
/// let options = ConvOptions::new(2, 1).no_bias().groups(4).kaiming();
/// assert_eq!((options.geometry.stride, options.geometry.groups), ([2, 2], 4));
/// assert_eq!((options.bias, options.init), (false, Some(Init::KaimingNormal(Fan::Out, 2f32.sqrt()))));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ConvOptions {
    /// Stride, padding, dilation and groups.
    pub geometry: Geometry,
    /// Whether there is a bias.
    pub bias: bool,
    /// First values of the weight; `None` for PyTorch's: uniform in `+-1 / sqrt(fan_in)`.
    pub init: Option<Init>,
    /// First values of the bias; `None` for the same.
    pub bias_init: Option<Init>,
}

impl Default for ConvOptions {
    /// Stride 1, no padding, one group, a bias.
    fn default() -> Self {
        Self { geometry: Geometry::default(), bias: true, init: None, bias_init: None }
    }
}

impl ConvOptions {
    /// Stride and padding, the same in both directions.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// let same = ConvOptions::new(1, 1); // for a kernel of 3: as large an image as before
    /// assert_eq!((same.geometry.stride, same.geometry.padding), ([1, 1], [1, 1]));
    /// assert!(same.bias);
    /// ```
    pub fn new(stride: usize, padding: usize) -> Self {
        Self { geometry: Geometry::new(stride, padding), ..Self::default() }
    }

    /// Without a bias: before a normalisation.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let mut names = Builder::new();
    /// let conv = Conv2d::new(&mut names.root().sub("conv1"), 3, 16, 3, ConvOptions::new(1, 1).no_bias());
    /// BatchNorm2d::new(&mut names.root().sub("bn1"), 16);
    /// assert_eq!(conv.bias(), None);
    /// assert_eq!(names.tables()?.0.len(), 3); // conv1.weight, bn1.weight, bn1.bias
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// With groups of channels that do not mix.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let mut names = Builder::new();
    /// let depthwise = Conv2d::new(&mut names.root(), 8, 8, 3, ConvOptions::new(1, 1).groups(8).no_bias());
    /// let (table, _) = names.tables()?;
    /// let weight = &table.entries()[depthwise.weight().index()];
    /// assert_eq!(weight.shape, [8, 3, 3, 1]); // [out, rows, columns, in / groups]
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { geometry: self.geometry.groups(groups), ..self }
    }

    /// With the same dilation in both directions.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let options = ConvOptions::new(1, 0).dilation(2); // a kernel of 3 reaches over 5 pixels
    /// let layer = Conv2d::new(&mut names.root(), 1, 1, 3, options);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 8, 8, 1])?)?;
    /// assert_eq!(y.shape(), [1, 4, 4, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { geometry: self.geometry.dilation(dilation), ..self }
    }

    /// With other first values of the weight.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let options = ConvOptions::new(1, 0).init(Init::Ones).zero_bias();
    /// let layer = Conv2d::new(&mut names.root(), 1, 1, 2, options);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &image)?.item()?, 10.0);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn init(self, init: Init) -> Self {
        Self { init: Some(init), ..self }
    }

    /// With a bias that starts at zero.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Conv2d::new(&mut names.root(), 3, 4, 3, ConvOptions::new(1, 1).zero_bias());
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let bias = layer.bias().map(|id| arena.params().get(id).to_vec()).transpose()?;
    /// assert_eq!(bias, Some(vec![0.0; 4]));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn zero_bias(self) -> Self {
        Self { bias_init: Some(Init::Zeros), ..self }
    }

    /// As torchvision's ResNets: normal with variance `2 / fan_out`.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// let options = ConvOptions::new(1, 1).kaiming().no_bias(); // before batch normalisation and ReLU
    /// assert_eq!(options.init, Some(Init::KaimingNormal(Fan::Out, 2f32.sqrt())));
    /// ```
    #[must_use]
    pub fn kaiming(self) -> Self {
        self.init(Init::KaimingNormal(Fan::Out, std::f32::consts::SQRT_2))
    }
}

/// Convolution: parameters `weight` `[out, rows, columns, in / groups]` and `bias` `[out]`. See [`Tensor::conv2d`].
///
/// ```
/// # use shadegrad::{Error, Gpu, Options, Tensor};
/// use shadegrad::nn::{Arena, Builder, Conv2d, ConvOptions, Cx, Module};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Conv2d::new(&mut names.root().sub("conv"), 3, 16, 3, ConvOptions::new(2, 1));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 8, 8, 3])?)?;
/// assert_eq!(y.shape(), [1, 4, 4, 16]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d {
    name: String,
    weight: ParamId,
    bias: Option<ParamId>,
    geometry: Geometry,
}

impl Conv2d {
    /// A layer with a square kernel in this scope.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let mut names = Builder::new();
    /// let layer = Conv2d::new(&mut names.root().sub("conv"), 3, 16, 3, ConvOptions::new(1, 1));
    /// let (table, _) = names.tables()?;
    /// let all: Vec<_> = table.entries().iter().map(|e| (e.name.as_str(), &e.shape[..])).collect();
    /// assert_eq!(all, [("conv.weight", &[16, 3, 3, 3][..]), ("conv.bias", &[16][..])]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, kernel: usize, options: ConvOptions) -> Self {
        Self::rect(scope, inputs, outputs, [kernel; 2], options)
    }

    /// A layer with a kernel of this many rows and columns.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let row = Conv2d::rect(&mut names.root(), 1, 1, [1, 3], ConvOptions::new(1, 0).init(Init::Ones).no_bias());
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 1, 4, 1])?; // one row of four pixels
    /// assert_eq!(row.forward(&Cx::eval(&arena), &image)?.to_vec()?, [6.0, 9.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rect(
        scope: &mut Scope<'_>,
        inputs: usize,
        outputs: usize,
        [rows, columns]: [usize; 2],
        options: ConvOptions,
    ) -> Self {
        // Groups that do not divide the channels are an error of the first forward pass, which names the shapes.
        let per_group = inputs / options.geometry.groups.max(1);
        let fan_in = Init::FanIn(rows * columns * per_group);
        let shape = [outputs, rows, columns, per_group];
        let weight = scope.param("weight", &shape, options.init.unwrap_or(fan_in));
        scope.layout(weight, Layout::ChannelsLast);
        Self {
            name: scope.name().to_string(),
            weight,
            bias: options.bias.then(|| scope.param("bias", &[outputs], options.bias_init.unwrap_or(fan_in))),
            geometry: options.geometry,
        }
    }

    /// The weight.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Conv2d::new(&mut names.root(), 1, 2, 1, ConvOptions::default().no_bias());
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_value(layer.weight(), &Tensor::from_slice(&gpu, &[2.0, 3.0], &[2, 1, 1, 1])?)?; // two filters
    /// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 1, 1, 1])?)?;
    /// assert_eq!(y.to_vec()?, [2.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weight(&self) -> ParamId {
        self.weight
    }

    /// The bias, if there is one.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// let layer = Conv2d::new(&mut root.sub("a"), 3, 8, 3, ConvOptions::new(1, 1));
    /// let plain = Conv2d::new(&mut root.sub("b"), 3, 8, 3, ConvOptions::new(1, 1).no_bias());
    /// assert!(layer.bias().is_some() && plain.bias().is_none());
    /// ```
    pub fn bias(&self) -> Option<ParamId> {
        self.bias
    }

    /// Stride, padding, dilation and groups.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let mut names = Builder::new();
    /// let layer = Conv2d::new(&mut names.root(), 3, 8, 3, ConvOptions::new(2, 1));
    /// assert_eq!((layer.geometry().stride, layer.geometry().padding), ([2, 2], [1, 1]));
    /// ```
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl Module for Conv2d {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let y = x.conv2d(cx.param(self.weight), self.bias.map(|b| cx.param(b)), self.geometry)?;
        cx.capture(|| Ok((Kind::Conv(self.weight, self.bias, self.geometry), x.detach())), &y)?;
        cx.tap(&self.name, y)
    }
}

/// Transposed convolution: parameters `weight` `[in, kernel, kernel, out / groups]` and `bias` `[out]`. See
/// [`Tensor::conv_transpose2d`].
///
/// ```
/// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let options = ConvOptions::new(2, 0).init(Init::Ones).no_bias();
/// let layer = ConvTranspose2d::new(&mut names.root().sub("up"), 1, 1, 2, options, 0);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 1, 2, 1])?)?;
/// assert_eq!(y.shape(), [1, 2, 4, 1]);
/// assert_eq!(y.to_vec()?, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]); // each pixel a square
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    name: String,
    weight: ParamId,
    bias: Option<ParamId>,
    geometry: Geometry,
    output_padding: usize,
}

impl ConvTranspose2d {
    /// A layer with a square kernel in this scope; `output_padding` rows and columns more at the end.
    ///
    /// ```
    /// # use shadegrad::{Error, Gpu, Options, Tensor, nn::*};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = ConvTranspose2d::new(&mut names.root(), 8, 4, 3, ConvOptions::new(2, 1), 1);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 5, 5, 8])?)?;
    /// assert_eq!(y.shape(), [1, 10, 10, 4]); // (5 - 1) * 2 - 2 * 1 + 3 + 1
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        scope: &mut Scope<'_>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        options: ConvOptions,
        output_padding: usize,
    ) -> Self {
        let per_group = outputs / options.geometry.groups.max(1);
        // PyTorch takes the second dimension of its `[in, out / groups, kernel, kernel]` for the fan-in.
        let fan_in = Init::FanIn(kernel * kernel * per_group);
        let shape = [inputs, kernel, kernel, per_group];
        let weight = scope.param("weight", &shape, options.init.unwrap_or(fan_in));
        scope.layout(weight, Layout::ChannelsLast);
        Self {
            name: scope.name().to_string(),
            weight,
            bias: options.bias.then(|| scope.param("bias", &[outputs], options.bias_init.unwrap_or(fan_in))),
            geometry: options.geometry,
            output_padding,
        }
    }
}

impl Module for ConvTranspose2d {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let (w, b) = (cx.param(self.weight), self.bias.map(|b| cx.param(b)));
        cx.tap(&self.name, x.conv_transpose2d(w, b, self.geometry, [self.output_padding; 2])?)
    }
}
