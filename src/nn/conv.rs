//! Convolutions over images `[N, height, width, channels]`.

use crate::error::Result;
use crate::nn::per_sample::Kind;
use crate::nn::{Cx, Fan, Init, Layout, Module, ParamId, Scope};
use crate::ops::Conv2d as Geometry;
use crate::tensor::Tensor;

/// What a convolution may have beside channels and kernel. As text: `ConvOptions::new(2, 1).no_bias()`.
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
    pub fn new(stride: usize, padding: usize) -> Self {
        Self { geometry: Geometry::new(stride, padding), ..Self::default() }
    }

    /// Without a bias: before a normalisation.
    #[must_use]
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// With groups of channels that do not mix.
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { geometry: self.geometry.groups(groups), ..self }
    }

    /// With the same dilation in both directions.
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { geometry: self.geometry.dilation(dilation), ..self }
    }

    /// With other first values of the weight.
    #[must_use]
    pub fn init(self, init: Init) -> Self {
        Self { init: Some(init), ..self }
    }

    /// With a bias that starts at zero.
    #[must_use]
    pub fn zero_bias(self) -> Self {
        Self { bias_init: Some(Init::Zeros), ..self }
    }

    /// As torchvision's ResNets: normal with variance `2 / fan_out`.
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
    pub fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, kernel: usize, options: ConvOptions) -> Self {
        Self::rect(scope, inputs, outputs, [kernel; 2], options)
    }

    /// A layer with a kernel of this many rows and columns.
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
    pub fn weight(&self) -> ParamId {
        self.weight
    }

    /// The bias, if there is one.
    pub fn bias(&self) -> Option<ParamId> {
        self.bias
    }

    /// Stride, padding, dilation and groups.
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
