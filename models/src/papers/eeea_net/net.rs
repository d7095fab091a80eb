//! The network that a genotype describes. Parameters are named as in the code of DARTS, on which the published one builds.

use std::cell::RefCell;
use std::rc::Rc;

use shadegrad::nn::{BatchNorm2d, Conv2d, ConvOptions, Cx, Linear, Module, Scope};
use shadegrad::{Error, Pool2d, Result, Tensor};

use super::count::{CellPlan, divisible, plan, stride};
use super::{Genotype, NetCfg, Op};

/// Parameters that need no gradient, see [`CellNet`].
pub(super) const UNREAD: &str = "cells.*";

/// Stem, cells, global average pooling and a linear layer, built from a genotype.
///
/// As a [`Module`] it gives logits `[n, classes]` of images `[n, height, width, channels]` whose sides are multiples of 4;
/// [`CellNet::outputs`] also has the auxiliary head and drop-path.
///
/// A genotype may leave an input of its cells unread, even a whole cell: allow its parameters to be without a gradient
/// with `arena.allow_missing("cells.*")`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::CellNet;
/// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
/// # let cfg = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
/// // Three cells of one block each, 2 channels in the first.
/// let mut names = Builder::new();
/// let net = CellNet::new(&mut names.root(), &genotype, cfg)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = net.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 4, 4, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct CellNet {
    stem: (Conv2d, BatchNorm2d),
    cells: Vec<Cell>,
    /// The auxiliary head and the number of the cell it follows.
    aux: Option<(Aux, usize)>,
    classifier: Linear,
}

/// What a network gives.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::{CellNet, Outputs};
/// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
/// # let cfg = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
/// // Three cells of one block each, 2 channels in the first.
/// let mut names = Builder::new();
/// let net = CellNet::new(&mut names.root(), &genotype, cfg)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let out: Outputs = net.outputs(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 4, 4, 1])?, 0.0)?;
/// assert!(out.aux.is_none() && out.logits.shape() == [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct Outputs {
    /// Scores `[n, classes]`.
    pub logits: Tensor,
    /// Those of the auxiliary head, in training.
    pub aux: Option<Tensor>,
}

impl CellNet {
    /// The network of `genotype` with its parameters under `scope`. First values are uniform in `+-1 / sqrt(fan_in)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{CellNet, Genotype, NetCfg};
    /// let genotype = Genotype::published("EEEA_A")?;
    /// let mut names = Builder::new();
    /// CellNet::new(&mut names.root(), &genotype, NetCfg::proxy(10))?;
    /// assert!(names.tables()?.0.find("auxiliary_head.classifier.weight").is_some());
    /// let odd = NetCfg { c0: 15, ..NetCfg::proxy(10) };
    /// assert!(CellNet::new(&mut names.root(), &genotype, odd).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the genotype cannot be built ([`Genotype::buildable`]), or a size is out of range.
    pub fn new(scope: &mut Scope<'_>, genotype: &Genotype, cfg: NetCfg) -> Result<Self> {
        let plans = plan(genotype, &cfg)?;
        let mut s = scope.sub("stem");
        let wide = 3 * cfg.c0;
        let stem = (
            Conv2d::new(&mut s.sub(0), cfg.in_chans, wide, 3, ConvOptions::new(1, 1).no_bias()),
            BatchNorm2d::new(&mut s.sub(1), wide),
        );
        let cell = |(i, plan)| Cell::new(&mut scope.sub(format!("cells.{i}")), genotype, plan);
        let cells = plans.iter().enumerate().map(cell).collect();
        let after = cfg.reductions()[1];
        let aux = cfg.aux.then(|| {
            let head = Aux::new(&mut scope.sub("auxiliary_head"), plans[after].output, cfg.classes);
            (head, after)
        });
        let last = plans.last().map_or(wide, |p| p.output);
        let classifier = Linear::new(&mut scope.sub("classifier"), last, cfg.classes, true);
        Ok(Self { stem, cells, aux, classifier })
    }

    /// Scores of images, in training with those of the auxiliary head (where there is one) and with every operation but
    /// the identity dropped for whole samples with probability `drop_path`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
    /// use shadegrad_models::papers::eeea_net::CellNet;
    /// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
    /// # let cfg = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
    /// // Three cells of one block each, 2 channels in the first.
    /// let mut names = Builder::new();
    /// let net = CellNet::new(&mut names.root(), &genotype, cfg)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, x) = (Cx::train(&arena).seeded(0, 0), Tensor::ones(&gpu, &[2, 4, 4, 1])?);
    /// // Every operation is dropped for a third of the samples.
    /// assert_eq!(net.outputs(&cx, &x, 0.33)?.logits.shape(), [2, 10]);
    /// assert!(net.outputs(&cx, &Tensor::ones(&gpu, &[2, 6, 6, 1])?, 0.0).is_err()); // no multiple of 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the sides of the images are not multiples of 4, or do not fit the auxiliary head.
    pub fn outputs(&self, cx: &Cx, x: &Tensor, drop_path: f32) -> Result<Outputs> {
        if let &[_, h, w, _] = x.shape() {
            divisible([h, w])?;
        }
        let stem = self.stem.1.forward(cx, &self.stem.0.forward(cx, x)?)?;
        let mut s1 = State::new(stem);
        let mut s0 = s1.clone();
        let mut aux = None;
        for (i, cell) in self.cells.iter().enumerate() {
            let out = State::new(cell.forward(cx, &s0, &s1, drop_path)?);
            if let Some((head, after)) = &self.aux
                && *after == i
                && cx.training()
            {
                aux = Some(head.forward(cx, &out)?);
            }
            s0 = std::mem::replace(&mut s1, out);
        }
        Ok(Outputs { logits: self.classifier.forward(cx, &s1.x.global_avg_pool()?)?, aux })
    }
}

impl Module for CellNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        Ok(self.outputs(cx, x, 0.0)?.logits)
    }
}

/// A tensor and, once someone asked for it, its positive part: most operations on one state begin with the same ReLU.
pub(super) struct State {
    x: Tensor,
    positive: RefCell<Option<Tensor>>,
}

impl State {
    pub(super) fn new(x: Tensor) -> Rc<Self> {
        Rc::new(Self { x, positive: RefCell::new(None) })
    }

    fn relu(&self) -> Result<Tensor> {
        let mut kept = self.positive.borrow_mut();
        if let Some(y) = &*kept {
            return Ok(y.clone());
        }
        Ok(kept.insert(self.x.relu()?).clone())
    }
}

/// A convolution and the norm behind it.
fn conv_norm(scope: &mut Scope<'_>, at: usize, from: usize, to: usize) -> (Conv2d, BatchNorm2d) {
    (
        Conv2d::new(&mut scope.sub(at), from, to, 1, ConvOptions::default().no_bias()),
        BatchNorm2d::new(&mut scope.sub(at + 1), to),
    )
}

/// Two 1x1 convolutions of stride 2, the second on the image without its first row and column.
pub(super) struct HalvingSkip {
    convs: [Conv2d; 2],
    norm: BatchNorm2d,
}

impl HalvingSkip {
    fn new(scope: &mut Scope<'_>, from: usize, to: usize) -> Self {
        let options = ConvOptions::default().no_bias();
        Self {
            convs: [1, 2].map(|i| Conv2d::new(&mut scope.sub(format!("conv_{i}")), from, to / 2, 1, options)),
            norm: BatchNorm2d::new(&mut scope.sub("bn"), to),
        }
    }

    /// Of the positive part of a state.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        // The stride is taken before the convolution: that moves a quarter of the pixels and leaves a plain product.
        let part = |i: usize| -> Result<Tensor> {
            let picked = x.slice(1, i, x.dim(1), 2)?.slice(2, i, x.dim(2), 2)?;
            self.convs[i].forward(cx, &picked)
        };
        self.norm.forward(cx, &Tensor::concat(&[&part(0)?, &part(1)?], 3)?)
    }
}

/// Depthwise and 1x1 convolution with a norm.
pub(super) struct Separable {
    depthwise: Conv2d,
    pointwise: Conv2d,
    norm: BatchNorm2d,
}

impl Separable {
    fn new(scope: &mut Scope<'_>, at: usize, c: usize, kernel: usize, stride: usize, dilation: usize) -> Self {
        let (pointwise, norm) = conv_norm(scope, at + 1, c, c);
        Self { depthwise: depthwise(scope, at, c, kernel, stride, dilation), pointwise, norm }
    }

    fn before_norm(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.pointwise.forward(cx, &self.depthwise.forward(cx, x)?)
    }
}

fn depthwise(scope: &mut Scope<'_>, at: usize, c: usize, kernel: usize, stride: usize, dilation: usize) -> Conv2d {
    let options = ConvOptions::new(stride, dilation * (kernel / 2)).dilation(dilation).groups(c).no_bias();
    Conv2d::new(&mut scope.sub(at), c, c, kernel, options)
}

/// An operation with its parameters and stride.
pub(super) enum Layer {
    MaxPool(usize),
    AvgPool(usize),
    Identity,
    Halve(HalvingSkip),
    /// Depthwise separable convolutions, each with a ReLU before.
    Separable(Vec<Separable>),
    Asymmetric(Conv2d, Conv2d, BatchNorm2d),
    Inverted(Box<Inverted>),
}

/// 1x1, depthwise and 1x1 convolution, each with its norm.
pub(super) struct Inverted {
    first: (Conv2d, BatchNorm2d),
    depthwise: (Conv2d, BatchNorm2d),
    last: (Conv2d, BatchNorm2d),
    /// Whether the input is added: with stride 1.
    residual: bool,
}

impl Layer {
    pub(super) fn new(scope: &mut Scope<'_>, op: Op, c: usize, stride: usize) -> Self {
        let kernel = if matches!(op, Op::Sep5 | Op::Dil5 | Op::Inv5) { 5 } else { 3 };
        match op {
            Op::MaxPool => Self::MaxPool(stride),
            Op::AvgPool => Self::AvgPool(stride),
            Op::Skip if stride == 1 => Self::Identity,
            Op::Skip => Self::Halve(HalvingSkip::new(scope, c, c)),
            Op::Sep3 | Op::Sep5 => {
                let mut s = scope.sub("op");
                Self::Separable(vec![
                    Separable::new(&mut s, 1, c, kernel, stride, 1),
                    Separable::new(&mut s, 5, c, kernel, 1, 1),
                ])
            }
            Op::Dil3 | Op::Dil5 => {
                Self::Separable(vec![Separable::new(&mut scope.sub("op"), 1, c, kernel, stride, 2)])
            }
            Op::Conv71 => {
                let mut s = scope.sub("op");
                let mut conv = |at: usize, taps: [usize; 2], strides: [usize; 2]| {
                    let mut options = ConvOptions::default().no_bias();
                    options.geometry.stride = strides;
                    options.geometry.padding = taps.map(|t| t / 2);
                    Conv2d::rect(&mut s.sub(at), c, c, taps, options)
                };
                let (wide, tall) = (conv(1, [1, 7], [1, stride]), conv(2, [7, 1], [stride, 1]));
                Self::Asymmetric(wide, tall, BatchNorm2d::new(&mut s.sub(3), c))
            }
            Op::Inv3 | Op::Inv5 => {
                let mut s = scope.sub("op");
                let middle = depthwise(&mut s, 4, c, kernel, stride, 1);
                Self::Inverted(Box::new(Inverted {
                    first: conv_norm(&mut s, 1, c, c),
                    depthwise: (middle, BatchNorm2d::new(&mut s.sub(5), c)),
                    last: conv_norm(&mut s, 6, c, c),
                    residual: stride == 1,
                }))
            }
        }
    }

    pub(super) fn forward(&self, cx: &Cx, state: &State) -> Result<Tensor> {
        match self {
            Self::MaxPool(stride) => state.x.max_pool2d(Pool2d::new(3, *stride, 1)),
            Self::AvgPool(stride) => state.x.avg_pool2d_inside(Pool2d::new(3, *stride, 1)),
            Self::Identity => Ok(state.x.clone()),
            Self::Halve(skip) => skip.forward(cx, &state.relu()?),
            Self::Separable(parts) => {
                let mut x = state.relu()?;
                for (i, part) in parts.iter().enumerate() {
                    let y = part.before_norm(cx, &x)?;
                    let last = i + 1 == parts.len();
                    x = if last { part.norm.forward(cx, &y)? } else { part.norm.forward_relu(cx, &y)? };
                }
                Ok(x)
            }
            Self::Asymmetric(wide, tall, norm) => {
                norm.forward(cx, &tall.forward(cx, &wide.forward(cx, &state.relu()?)?)?)
            }
            Self::Inverted(inverted) => {
                let Inverted { first, depthwise, last, residual } = &**inverted;
                let x = first.1.forward_relu(cx, &first.0.forward(cx, &state.relu()?)?)?;
                let x = depthwise.1.forward(cx, &depthwise.0.forward(cx, &x)?)?;
                let x = last.1.forward(cx, &last.0.forward(cx, &x)?)?;
                if *residual { x.add(&state.x) } else { Ok(x) }
            }
        }
    }
}

/// Brings an input of a cell to its width.
enum Preprocess {
    Conv(Conv2d, BatchNorm2d),
    Halve(HalvingSkip),
}

impl Preprocess {
    fn new(scope: &mut Scope<'_>, from: usize, to: usize, halve: bool) -> Self {
        if halve {
            return Self::Halve(HalvingSkip::new(scope, from, to));
        }
        let (conv, norm) = conv_norm(&mut scope.sub("op"), 1, from, to);
        Self::Conv(conv, norm)
    }

    fn forward(&self, cx: &Cx, state: &State) -> Result<Tensor> {
        let x = state.relu()?;
        match self {
            Self::Conv(conv, norm) => norm.forward(cx, &conv.forward(cx, &x)?),
            Self::Halve(skip) => skip.forward(cx, &x),
        }
    }
}

struct Cell {
    preprocess: [Preprocess; 2],
    /// Two for each block, with the state they read.
    layers: Vec<(Layer, usize)>,
    outputs: Vec<usize>,
}

impl Cell {
    fn new(scope: &mut Scope<'_>, genotype: &Genotype, plan: &CellPlan) -> Self {
        let CellPlan { reduction, after_reduction, inputs, width, .. } = *plan;
        let preprocess = [
            Preprocess::new(&mut scope.sub("preprocess0"), inputs[0], width, after_reduction),
            Preprocess::new(&mut scope.sub("preprocess1"), inputs[1], width, false),
        ];
        let pairs = genotype.cell(reduction).iter().flat_map(|b| b.pairs()).enumerate();
        let layer =
            |(i, (op, at))| (Layer::new(&mut scope.sub(format!("_ops.{i}")), op, width, stride(reduction, at)), at);
        Self { preprocess, layers: pairs.map(layer).collect(), outputs: genotype.outputs(reduction) }
    }

    fn forward(&self, cx: &Cx, s0: &State, s1: &State, drop_path: f32) -> Result<Tensor> {
        let mut states =
            vec![State::new(self.preprocess[0].forward(cx, s0)?), State::new(self.preprocess[1].forward(cx, s1)?)];
        let run = |states: &[Rc<State>], (layer, at): &(Layer, usize)| {
            let y = layer.forward(cx, &states[*at])?;
            let drop = drop_path > 0.0 && cx.training() && !matches!(layer, Layer::Identity);
            if drop { y.drop_path(drop_path, cx.draw()) } else { Ok(y) }
        };
        for pair in self.layers.chunks_exact(2) {
            let sum = run(&states, &pair[0])?.add(&run(&states, &pair[1])?)?;
            states.push(State::new(sum));
        }
        let outputs: Vec<&Tensor> = self.outputs.iter().map(|&s| &states[s].x).collect();
        Tensor::concat(&outputs, 3)
    }
}

/// A small classifier on maps of 8x8 pixels, for a second loss in training.
struct Aux {
    convs: [(Conv2d, BatchNorm2d); 2],
    classifier: Linear,
}

impl Aux {
    fn new(scope: &mut Scope<'_>, from: usize, classes: usize) -> Self {
        let mut s = scope.sub("features");
        let mut conv = |at: usize, from: usize, to: usize, kernel: usize| {
            let conv = Conv2d::new(&mut s.sub(at), from, to, kernel, ConvOptions::default().no_bias());
            (conv, BatchNorm2d::new(&mut s.sub(at + 1), to))
        };
        let convs = [conv(2, from, 128, 1), conv(5, 128, 768, 2)];
        Self { convs, classifier: Linear::new(&mut scope.sub("classifier"), 768, classes, true) }
    }

    fn forward(&self, cx: &Cx, state: &State) -> Result<Tensor> {
        if state.x.shape()[1..3] != [8, 8] {
            return Err(Error::shape(
                "auxiliary head",
                format!(
                    "maps of {:?}; it takes 8x8 pixels, those of 32x32 images. Build the network without it (`aux: false`)",
                    state.x.shape()
                ),
            ));
        }
        let mut x = state.relu()?.avg_pool2d(Pool2d::new(5, 3, 0))?;
        for (conv, norm) in &self.convs {
            x = norm.forward_relu(cx, &conv.forward(cx, &x)?)?;
        }
        self.classifier.forward(cx, &x.flatten(1, 3)?)
    }
}
