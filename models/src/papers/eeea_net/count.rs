//! Parameters and multiply-adds of a network, computed from its genotype without a device.

use shadegrad::{Error, Result};

use super::{Genotype, Op};

/// Size of a network of cells.
///
/// ```
/// use shadegrad_models::papers::eeea_net::NetCfg;
/// let cfg = NetCfg { c0: 8, layers: 5, ..NetCfg::proxy(10) };
/// assert_eq!(cfg.reductions(), [1, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetCfg {
    /// Channels of the first cells; the two reduction cells double them. Even.
    pub c0: usize,
    /// Cells, at least 3; those with numbers `layers / 3` and `2 layers / 3` (from 0) are reduction cells.
    pub layers: usize,
    /// Classes.
    pub classes: usize,
    /// Whether there is an auxiliary head for training. It needs maps of 8x8 pixels behind the second reduction cell:
    /// images of 32x32.
    pub aux: bool,
    /// Channels of an image.
    pub in_chans: usize,
}

impl NetCfg {
    /// The full network, which the threshold and the second objective are about: 36 channels, 20 cells.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::NetCfg;
    /// let cfg = NetCfg::full(100);
    /// assert_eq!((cfg.c0, cfg.layers, cfg.classes), (36, 20, 100));
    /// ```
    pub fn full(classes: usize) -> Self {
        Self { c0: 36, layers: 20, classes, aux: true, in_chans: 3 }
    }

    /// The network that is trained for each candidate: 16 channels, 8 cells.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::NetCfg;
    /// let cfg = NetCfg::proxy(10);
    /// assert_eq!((cfg.c0, cfg.layers), (16, 8));
    /// ```
    pub fn proxy(classes: usize) -> Self {
        Self { c0: 16, layers: 8, ..Self::full(classes) }
    }

    /// The numbers of the two reduction cells.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::NetCfg;
    /// assert_eq!((NetCfg::full(10).reductions(), NetCfg::proxy(10).reductions()), ([6, 13], [2, 5]));
    /// ```
    pub fn reductions(&self) -> [usize; 2] {
        [self.layers / 3, 2 * self.layers / 3]
    }
}

/// Channels of one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellPlan {
    /// Whether it halves the image.
    pub reduction: bool,
    /// Whether the cell before did, so that state 0 is twice as large as state 1.
    pub after_reduction: bool,
    /// Channels of its two inputs.
    pub inputs: [usize; 2],
    /// Channels of its states.
    pub width: usize,
    /// Channels of its output.
    pub output: usize,
}

/// The cells of a network.
pub(super) fn plan(genotype: &Genotype, cfg: &NetCfg) -> Result<Vec<CellPlan>> {
    genotype.buildable()?;
    let NetCfg { c0, layers, classes, in_chans, .. } = *cfg;
    if c0 == 0 || !c0.is_multiple_of(2) || layers < 3 || classes == 0 || in_chans == 0 {
        return Err(Error::value(
            "cell network",
            format!(
                "{c0} channels, {layers} cells, {classes} classes, images of {in_chans} channels; channels must be even, \
                 cells at least 3, nothing 0"
            ),
        ));
    }
    let mut inputs = [3 * c0; 2];
    let mut width = c0;
    let mut after_reduction = false;
    let mut cells = Vec::with_capacity(layers);
    for i in 0..layers {
        let reduction = cfg.reductions().contains(&i);
        if reduction {
            width *= 2;
        }
        let output = genotype.outputs(reduction).len() * width;
        cells.push(CellPlan { reduction, after_reduction, inputs, width, output });
        inputs = [inputs[1], output];
        after_reduction = reduction;
    }
    Ok(cells)
}

/// Operations of a block in the reduction cell halve the image where they read one of the cell's inputs.
pub(super) fn stride(reduction: bool, state: usize) -> usize {
    if reduction && state < 2 { 2 } else { 1 }
}

/// Parameters of an operation on `c` channels (an even number) with stride 1 or 2.
///
/// ```
/// use shadegrad_models::papers::eeea_net::{Op, op_params};
/// assert_eq!(op_params(Op::MaxPool, 4, 1), 0);
/// assert_eq!(op_params(Op::Conv71, 4, 1), 2 * 7 * 4 * 4 + 2 * 4);
/// assert_eq!((op_params(Op::Skip, 4, 1), op_params(Op::Skip, 4, 2)), (0, 4 * 4 + 2 * 4));
/// ```
pub fn op_params(op: Op, c: usize, stride: usize) -> usize {
    let norm = 2 * c;
    match op {
        Op::MaxPool | Op::AvgPool => 0,
        Op::Skip if stride == 1 => 0,
        Op::Skip => c * c + norm,
        Op::Sep3 | Op::Sep5 => 2 * (taps(op) * c + c * c + norm),
        Op::Dil3 | Op::Dil5 => taps(op) * c + c * c + norm,
        Op::Conv71 => 14 * c * c + norm,
        Op::Inv3 | Op::Inv5 => 2 * c * c + taps(op) * c + 3 * norm,
    }
}

fn taps(op: Op) -> usize {
    if matches!(op, Op::Sep5 | Op::Dil5 | Op::Inv5) { 25 } else { 9 }
}

/// Multiply-adds of an operation's convolutions; `from` and `to` are rows and columns before and after it.
fn op_macs(op: Op, c: usize, from: [usize; 2], to: [usize; 2]) -> usize {
    let (before, after) = (from[0] * from[1], to[0] * to[1]);
    match op {
        Op::MaxPool | Op::AvgPool => 0,
        Op::Skip => {
            if from == to {
                0
            } else {
                after * c * c
            }
        }
        Op::Sep3 | Op::Sep5 => 2 * after * (taps(op) * c + c * c),
        Op::Dil3 | Op::Dil5 => after * (taps(op) * c + c * c),
        Op::Conv71 => 7 * c * c * (from[0] * to[1] + after),
        Op::Inv3 | Op::Inv5 => before * c * c + after * (taps(op) * c + c * c),
    }
}

/// Trainable parameters of the network, without the auxiliary head.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::{CellNet, param_count};
/// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
/// # let cfg = NetCfg { c0: 4, layers: 3, classes: 10, aux: false, in_chans: 3 };
/// // As many as the network has that is built.
/// let mut names = Builder::new();
/// CellNet::new(&mut names.root(), &genotype, cfg)?;
/// assert_eq!(param_count(&genotype, &cfg)?, names.tables()?.0.numel());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the genotype cannot be built, or a size is out of range.
pub fn param_count(genotype: &Genotype, cfg: &NetCfg) -> Result<usize> {
    let cells = plan(genotype, cfg)?;
    let mut sum = 9 * cfg.in_chans * 3 * cfg.c0 + 6 * cfg.c0;
    let mut last = 0;
    for cell in cells {
        sum += (cell.inputs[0] + cell.inputs[1] + 4) * cell.width;
        let pairs = genotype.cell(cell.reduction).iter().flat_map(|b| b.pairs());
        sum += pairs.map(|(op, i)| op_params(op, cell.width, stride(cell.reduction, i))).sum::<usize>();
        last = cell.output;
    }
    Ok(sum + last * cfg.classes + cfg.classes)
}

/// Parameters of the auxiliary head.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::eeea_net::Genotype;
/// use shadegrad_models::papers::eeea_net::{CellNet, NetCfg, aux_param_count, param_count};
/// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
/// # let cfg = NetCfg { c0: 4, layers: 3, classes: 10, aux: false, in_chans: 3 };
/// // Three cells of one block each, 4 channels in the first.
/// let mut names = Builder::new();
/// CellNet::new(&mut names.root(), &genotype, NetCfg { aux: true, ..cfg })?;
/// let head = names.tables()?.0.numel() - param_count(&genotype, &cfg)?;
/// assert_eq!(aux_param_count(&genotype, &cfg)?, head);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`param_count`].
pub fn aux_param_count(genotype: &Genotype, cfg: &NetCfg) -> Result<usize> {
    let cells = plan(genotype, cfg)?;
    let c = cells[cfg.reductions()[1]].output;
    Ok(c * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + 768 * cfg.classes + cfg.classes)
}

/// Multiply-adds of convolutions and the linear layer for one image of this height and width, without the auxiliary head.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::mac_count;
/// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
/// # let cfg = NetCfg { c0: 4, layers: 3, classes: 10, aux: false, in_chans: 3 };
/// // Three cells of one block each, 4 channels in the first.
/// let (small, large) = (mac_count(&genotype, &cfg, (32, 32))?, mac_count(&genotype, &cfg, (64, 64))?);
/// let linear = 16 * 10; // the same whatever the size of the image
/// assert_eq!(large - linear, 4 * (small - linear));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`param_count`]; also if height or width is not a multiple of 4.
pub fn mac_count(genotype: &Genotype, cfg: &NetCfg, (h, w): (usize, usize)) -> Result<u64> {
    let cells = plan(genotype, cfg)?;
    divisible([h, w])?;
    let mut size = [h, w];
    let mut sum = h * w * 9 * cfg.in_chans * 3 * cfg.c0;
    let mut last = 0;
    for cell in cells {
        sum += size[0] * size[1] * (cell.inputs[0] + cell.inputs[1]) * cell.width;
        let half = if cell.reduction { size.map(|s| s / 2) } else { size };
        for (op, i) in genotype.cell(cell.reduction).iter().flat_map(|b| b.pairs()) {
            sum += op_macs(op, cell.width, if i < 2 { size } else { half }, half);
        }
        (size, last) = (half, cell.output);
    }
    Ok((sum + last * cfg.classes) as u64)
}

/// Refuses images that cannot be halved twice.
pub(super) fn divisible([h, w]: [usize; 2]) -> Result<()> {
    if h > 0 && w > 0 && h.is_multiple_of(4) && w.is_multiple_of(4) {
        return Ok(());
    }
    Err(Error::shape("cell network", format!("images of {h} x {w}; both sides must be multiples of 4; resize them")))
}
