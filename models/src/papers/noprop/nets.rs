//! The networks of the paper's figure 6, and what they are compared with.

#[cfg(test)]
use shadegrad::nn::Arena;
use shadegrad::nn::{BatchNorm2d, Conv2d, ConvOptions, Cx, Dropout, Init, Layout, Linear, Module, ParamId, Scope};
use shadegrad::{Error, Pool2d, Result, Tensor};

use super::head::Head;
use super::{Block, Embedding, Readout, run_block};

/// Width of the time's embedding.
const TIME: usize = 64;

/// What a block of figure 6 is made of.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::noprop::PaperNet;
/// let net = PaperNet { dropout: 0.0, ..PaperNet::discrete([28, 28, 1], 10, 20) };
/// let mut names = Builder::new();
/// net.build(&mut names.root())?;
/// assert!(names.tables()?.0.find("image.conv2.weight").is_some());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaperNet {
    /// Height, width and channels of a picture.
    pub size: [usize; 3],
    /// Classes.
    pub classes: usize,
    /// Length of an embedding.
    pub dim: usize,
    /// Channels of the three convolutions (3 x 3, padding 1, which the paper does not name); without them one more fully
    /// connected layer with ReLU takes their place.
    pub channels: Option<[usize; 3]>,
    /// Width of the fully connected layers; the last but one has half of it.
    pub width: usize,
    /// Whether the time is an input and batch norm is left out: for [`super::NoPropCt`] and [`super::NoPropFm`].
    pub continuous: bool,
    /// Share of the convolutions' results that dropout sets to zero.
    pub dropout: f32,
    /// Whether `z` is a picture and has an image path of its own: for [`Embedding::Prototype`]. Then `dim` is the number of
    /// values of a picture.
    pub pictured: bool,
}

impl PaperNet {
    /// The paper's block of discrete time: 32, 64 and 128 channels, width 256, dropout 0.2.
    ///
    /// ```
    /// use shadegrad_models::papers::noprop::PaperNet;
    /// let net = PaperNet::discrete([28, 28, 1], 10, 20);
    /// assert_eq!((net.channels, net.width, net.continuous), (Some([32, 64, 128]), 256, false));
    /// ```
    pub fn discrete(size: [usize; 3], classes: usize, dim: usize) -> Self {
        let channels = Some([32, 64, 128]);
        Self { size, classes, dim, channels, width: 256, continuous: false, dropout: 0.2, pictured: false }
    }

    /// The paper's block of continuous time and flow matching.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::PaperNet;
    /// let mut names = Builder::new();
    /// PaperNet::continuous([28, 28, 1], 10, 20).build(&mut names.root())?;
    /// let table = names.tables()?.0;
    /// assert!(table.find("time.weight").is_some() && table.find("fuse.0.norm.weight").is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn continuous(size: [usize; 3], classes: usize, dim: usize) -> Self {
        Self { continuous: true, ..Self::discrete(size, classes, dim) }
    }

    /// Narrower, with other channels or without convolutions.
    ///
    /// ```
    /// use shadegrad_models::papers::noprop::PaperNet;
    /// let net = PaperNet::discrete([8, 8, 1], 10, 10).sized(None, 32);
    /// assert_eq!((net.channels, net.width), (None, 32));
    /// ```
    #[must_use]
    pub fn sized(self, channels: Option<[usize; 3]>, width: usize) -> Self {
        Self { channels, width, ..self }
    }

    /// The block, its parameters in this scope.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::noprop::PaperNet;
    /// let mut names = Builder::new();
    /// PaperNet::discrete([8, 8, 1], 10, 10).sized(Some([4, 8, 8]), 16).build(&mut names.root())?;
    /// assert!(names.tables()?.0.find("fuse.1.linear.weight").is_some());
    /// let small = PaperNet::discrete([2, 2, 1], 10, 10); // too small to be pooled twice
    /// assert!(small.build(&mut names.root()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a size is 0, pictures are too small to be pooled twice, or `pictured` has embeddings that are no pictures.
    pub fn build(&self, scope: &mut Scope<'_>) -> Result<PaperBlock> {
        let (width, values) = (self.width, self.size.iter().product::<usize>());
        if width < 2 || self.classes == 0 || self.dim == 0 {
            let Self { classes, dim, .. } = self;
            let text = format!("width {width}, {classes} classes, embeddings of {dim}; width at least 2, the others 1");
            return Err(Error::value("PaperNet", text));
        }
        if self.pictured && self.dim != values {
            let text = format!("embeddings of {} as pictures of {:?}; their length must be {values}", self.dim, self.size);
            return Err(Error::shape("PaperNet", text));
        }
        let image = ImagePath::new(&mut scope.sub("image"), self)?;
        let label = if self.pictured {
            LabelPath::Picture(ImagePath::new(&mut scope.sub("label"), self)?, self.size)
        } else if self.continuous {
            LabelPath::Plain(Linear::new(&mut scope.sub("label"), self.dim, width, true))
        } else {
            let mut scope = scope.sub("label");
            let inputs = [self.dim, width, width];
            LabelPath::Residual([0, 1, 2].map(|i| Dense::new(&mut scope.sub(i), inputs[i], width, true)))
        };
        let time = self.continuous.then(|| Linear::new(&mut scope.sub("time"), TIME, width, true));
        let parts = if self.continuous { 3 } else { 2 };
        let normed = !self.continuous;
        Ok(PaperBlock {
            image,
            label,
            time,
            fuse: [
                Dense::new(&mut scope.sub("fuse.0"), parts * width, width, normed),
                Dense::new(&mut scope.sub("fuse.1"), width, width / 2, normed),
            ],
            last: Linear::new(&mut scope.sub("last"), width / 2, self.classes, true),
        })
    }
}

/// A fully connected layer with batch norm or without.
struct Dense(Linear, Option<BatchNorm2d>);

impl Dense {
    fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, normed: bool) -> Self {
        let norm = normed.then(|| BatchNorm2d::new(&mut scope.sub("norm"), outputs));
        Self(Linear::new(&mut scope.sub("linear"), inputs, outputs, true), norm)
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let y = self.0.forward(cx, x)?;
        self.1.as_ref().map_or_else(|| Ok(y.clone()), |norm| norm.forward(cx, &y))
    }

    fn forward_relu(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let y = self.0.forward(cx, x)?;
        self.1.as_ref().map_or_else(|| y.relu(), |norm| norm.forward_relu(cx, &y))
    }
}

/// From pictures to `[n, width]`.
struct ImagePath {
    convolutions: Vec<Conv2d>,
    dropout: Dropout,
    first: Option<Linear>,
    close: Dense,
    /// Without batch norm a ReLU closes the path.
    relu: bool,
}

impl ImagePath {
    fn new(scope: &mut Scope<'_>, net: &PaperNet) -> Result<Self> {
        let [mut height, mut width, mut depth] = net.size;
        let mut convolutions = Vec::new();
        if let Some(channels) = net.channels {
            for (i, next) in channels.into_iter().enumerate() {
                convolutions.push(Conv2d::new(&mut scope.sub(format!("conv{i}")), depth, next, 3, ConvOptions::new(1, 1)));
                depth = next;
            }
            (height, width) = (height / 4, width / 4);
        }
        let mut values = height * width * depth;
        if values == 0 {
            let [h, w, c] = net.size;
            let text = format!("pictures of {h} x {w} x {c}; 4 x 4 at the least, or `channels: None`");
            return Err(Error::shape("PaperNet", text));
        }
        let flattened = Layout::Flattened([height, width, depth]);
        let mut first = None;
        if net.channels.is_none() {
            let linear = Linear::new(&mut scope.sub("first"), values, net.width, true);
            scope.layout(linear.weight(), flattened);
            (first, values) = (Some(linear), net.width);
        }
        let close = Dense::new(&mut scope.sub("close"), values, net.width, !net.continuous);
        if net.channels.is_some() {
            // PyTorch flattens channels first.
            scope.layout(close.0.weight(), flattened);
        }
        Ok(Self { convolutions, dropout: Dropout(net.dropout), first, close, relu: net.continuous })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, conv) in self.convolutions.iter().enumerate() {
            x = conv.forward(cx, &x)?.relu()?;
            if i != 1 {
                x = x.max_pool2d(Pool2d::new(2, 2, 0))?;
            }
            x = self.dropout.forward(cx, &x)?;
        }
        let mut x = if x.rank() > 2 { x.flatten(1, x.rank() - 1)? } else { x };
        if let Some(first) = &self.first {
            x = first.forward(cx, &x)?.relu()?;
        }
        if self.relu { self.close.forward_relu(cx, &x) } else { self.close.forward(cx, &x) }
    }
}

/// From `z` to `[n, width]`.
enum LabelPath {
    Residual([Dense; 3]),
    Plain(Linear),
    Picture(ImagePath, [usize; 3]),
}

impl LabelPath {
    fn forward(&self, cx: &Cx, z: &Tensor) -> Result<Tensor> {
        match self {
            Self::Residual([first, second, third]) => {
                let h = first.forward_relu(cx, z)?;
                h.add(&third.forward(cx, &second.forward_relu(cx, &h)?)?)
            }
            Self::Plain(linear) => linear.forward(cx, z)?.relu(),
            Self::Picture(path, [h, w, c]) => path.forward(cx, &z.reshape(&[z.dim(0), *h, *w, *c])?),
        }
    }
}

/// A block of figure 6: an image path, a label path and, in continuous time, a path of the time, joined by three fully
/// connected layers.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::noprop::{PaperBlock, PaperNet};
/// # use shadegrad_models::papers::noprop::Block;
/// let mut names = Builder::new();
/// let block: PaperBlock = PaperNet::discrete([2, 2, 1], 10, 10).sized(None, 8).build(&mut names.root())?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let cx = Cx::eval(&arena);
/// let features = block.features(&cx, &Tensor::ones(&gpu, &[3, 2, 2, 1])?)?;
/// let logits = block.logits(&cx, &features, &Tensor::zeros(&gpu, &[3, 10])?, None)?;
/// assert_eq!(logits.shape(), [3, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct PaperBlock {
    image: ImagePath,
    label: LabelPath,
    time: Option<Linear>,
    fuse: [Dense; 2],
    last: Linear,
}

/// Sine and cosine of `1000 t w_k` with `w_k = 10000^(-k / 32)`, `[n, 64]` for times `[n]` (Vaswani et al., 2017; the paper
/// does not name its frequencies).
pub(super) fn time_embedding(times: &Tensor) -> Result<Tensor> {
    let half = TIME / 2;
    let rates: Vec<f32> = (0..half).map(|k| (1000.0 * 10_000f64.powf(-(k as f64) / half as f64)) as f32).collect();
    let rates = Tensor::from_slice(times.gpu(), &rates, &[1, half])?;
    let angles = times.reshape(&[times.numel(), 1])?.mul(&rates)?;
    Tensor::concat(&[&angles.sin()?, &angles.cos()?], 1)
}

impl Block for PaperBlock {
    fn features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.image.forward(cx, x)
    }

    fn logits(&self, cx: &Cx, features: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let label = self.label.forward(cx, z)?;
        let joined = match (&self.time, time) {
            (None, None) => Tensor::concat(&[features, &label], 1)?,
            (Some(layer), Some(time)) => {
                let time = layer.forward(cx, &time_embedding(time)?)?.relu()?;
                Tensor::concat(&[features, &label, &time], 1)?
            }
            (layer, _) => {
                let (made, given) = if layer.is_some() { ("takes", "none came") } else { ("takes no", "one came") };
                let text = format!("the block {made} time, {given}; set `continuous` for NoPropCt and NoPropFm only");
                return Err(Error::value("PaperBlock", text));
            }
        };
        let h = self.fuse[1].forward_relu(cx, &self.fuse[0].forward_relu(cx, &joined)?)?;
        self.last.forward(cx, &h)
    }
}

/// The control: the image path of one block and the same layers after it, without a label or noise.
pub(crate) struct Plain {
    image: ImagePath,
    fuse: [Dense; 2],
    last: Linear,
}

impl Plain {
    /// The network that a block of `net` without label and time is.
    ///
    /// # Errors
    /// As [`PaperNet::build`].
    pub(crate) fn new(scope: &mut Scope<'_>, net: &PaperNet) -> Result<Self> {
        let (width, normed) = (net.width, !net.continuous);
        Ok(Self {
            image: ImagePath::new(&mut scope.sub("image"), net)?,
            fuse: [
                Dense::new(&mut scope.sub("fuse.0"), width, width, normed),
                Dense::new(&mut scope.sub("fuse.1"), width, width / 2, normed),
            ],
            last: Linear::new(&mut scope.sub("last"), width / 2, net.classes, true),
        })
    }
}

impl Module for Plain {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let h = self.image.forward(cx, x)?;
        self.last.forward(cx, &self.fuse[1].forward_relu(cx, &self.fuse[0].forward_relu(cx, &h)?)?)
    }
}

/// The paper's baseline: the same blocks in the same order, trained together by back-propagation through all of them.
/// `z_0` is noise, `z_t = (1 - r_t) z_(t-1) + r_t u_hat_t(z_(t-1), x)` with `r_t = tanh(w_t)` learned, and the result are the
/// scores of `p_out(y | z_T)`.
pub(crate) struct BackPropagated<B> {
    blocks: Vec<B>,
    gates: Vec<ParamId>,
    head: Head,
}

impl<B: Block> BackPropagated<B> {
    /// `depth` blocks that `make` builds, block `t` counted from 1. The gates start at one half; the paper names no value.
    ///
    /// # Errors
    /// If there are no blocks, or embeddings do not fit the classes.
    pub(crate) fn new(
        scope: &mut Scope<'_>,
        classes: usize,
        embedding: &Embedding,
        depth: usize,
        mut make: impl FnMut(&mut Scope<'_>, usize) -> Result<B>,
    ) -> Result<Self> {
        if depth == 0 {
            return Err(Error::value("BackPropagated", "no blocks; take at least one"));
        }
        let head = Head::new(scope, classes, embedding, Some(Readout::Linear))?;
        let half = 0.5f32.atanh();
        let mut gate = |t: usize| scope.sub("gates").param_without_decay(&t.to_string(), &[1], Init::Const(half));
        let gates = (1..=depth).map(&mut gate).collect();
        let blocks = (1..=depth).map(|t| make(&mut scope.sub("blocks").sub(t), t)).collect::<Result<_>>()?;
        Ok(Self { blocks, gates, head })
    }

    /// Sets the first values of prototypes in a new arena; nothing for other embeddings.
    #[cfg(test)]
    pub(crate) fn fill(&self, arena: &Arena) -> Result<()> {
        self.head.fill(arena)
    }
}

impl<B: Block> Module for BackPropagated<B> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let n = x.shape().first().copied().unwrap_or(0);
        let mut z = Tensor::normal(x.gpu(), &[n, self.head.dim], cx.draw(), 0.0, 1.0)?;
        for (block, gate) in self.blocks.iter().zip(&self.gates) {
            let guess = self.head.guess(cx, &run_block(block, cx, x, &z, None)?)?;
            z = z.add(&guess.sub(&z)?.mul(&cx.param(*gate).tanh()?)?)?;
        }
        self.head.scores(cx, &z)
    }
}
