//! Spiking neurons over all time steps at once.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::spike_bits::{self as bits, SpikeBitsParams};
use shadegrad_shaders::spiking as k;
use shadegrad_shaders::spiking::{LifParams, LifSumParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// What stands for the derivative of a spike with respect to `z = u / threshold - 1`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_kernels::spiking::{Lif, Surrogate, backward};
/// # let lif = |surrogate| Lif { steps: 1, neurons: 1, hard_reset: false, through_reset: false, surrogate };
/// # let (x, dy) = (gpu.alloc_from(&[1.0f32], "x")?, gpu.alloc_from(&[1.0f32], "dy")?);
/// # let (threshold, leak) = (gpu.alloc_from(&[1.0f32], "threshold")?, gpu.alloc_from(&[0.5f32], "leak")?);
/// # let (dx, dthreshold, dleak) = (gpu.alloc(4, "dx")?, gpu.alloc(4, "dthreshold")?, gpu.alloc(4, "dleak")?);
/// // The slope of a neuron that reaches its threshold of 1 exactly: the height of each.
/// for (surrogate, height) in [
///     (Surrogate::Linear { gamma: 0.5 }, 0.5),
///     (Surrogate::Atan { alpha: 2.0 }, 1.0),
///     (Surrogate::Sigmoid { alpha: 4.0 }, 1.0),
/// ] {
///     backward(&gpu, &lif(surrogate), &x, [&threshold, &leak], None, &dy, &dx, [&dthreshold, &dleak])?;
///     assert_eq!(gpu.read_as::<f32>(&dx)?, [height]);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Surrogate {
    /// `gamma max(0, 1 - |z|)` (Bellec et al., 2018).
    Linear {
        /// Its height.
        gamma: f32,
    },
    /// `alpha / 2 / (1 + (pi alpha z / 2)^2)` (Fang et al., 2021).
    Atan {
        /// Twice its height.
        alpha: f32,
    },
    /// The slope of `sigmoid(alpha z)`.
    Sigmoid {
        /// Four times its height.
        alpha: f32,
    },
}

/// How neurons behave; all share one threshold and one leak.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::spiking::{Lif, Surrogate, forward};
/// let surrogate = Surrogate::Linear { gamma: 0.5 };
/// let (x, y) = (gpu.alloc_from(&[1.5f32, 0.75], "x")?, gpu.alloc(8, "y")?); // two steps of one neuron
/// let (threshold, leak) = (gpu.alloc_from(&[1.0f32], "threshold")?, gpu.alloc_from(&[1.0f32], "leak")?);
/// for (hard_reset, spikes) in [(true, [1.0, 0.0]), (false, [1.0, 1.0])] {
///     let lif = Lif { steps: 2, neurons: 1, hard_reset, through_reset: false, surrogate };
///     forward(&gpu, &lif, &x, [&threshold, &leak], None, &y)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, spikes); // what was left over the threshold counts, or not
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lif {
    /// Time steps.
    pub steps: usize,
    /// Neurons.
    pub neurons: usize,
    /// After a spike the membrane is 0, instead of reduced by the threshold.
    pub hard_reset: bool,
    /// The gradient also flows through the spike in the reset.
    pub through_reset: bool,
    /// The surrogate of the backward pass.
    pub surrogate: Surrogate,
}

/// Invocations of one workgroup.
const GROUP: u64 = 64;
/// Steps of one dispatch where a membrane comes in or goes out.
const PIECE: usize = 8;
/// Backward kernels that start from no membrane.
type Without = &'static Kernel<LifParams, 4, 2>;

/// Those made for a number of steps, by surrogate.
fn unrolled(steps: usize) -> Option<[Without; 3]> {
    Some(match steps {
        1 => [&k::LIF_UNROLLED_1_LINEAR, &k::LIF_UNROLLED_1_ATAN, &k::LIF_UNROLLED_1_SIGMOID],
        2 => [&k::LIF_UNROLLED_2_LINEAR, &k::LIF_UNROLLED_2_ATAN, &k::LIF_UNROLLED_2_SIGMOID],
        3 => [&k::LIF_UNROLLED_3_LINEAR, &k::LIF_UNROLLED_3_ATAN, &k::LIF_UNROLLED_3_SIGMOID],
        4 => [&k::LIF_UNROLLED_4_LINEAR, &k::LIF_UNROLLED_4_ATAN, &k::LIF_UNROLLED_4_SIGMOID],
        5 => [&k::LIF_UNROLLED_5_LINEAR, &k::LIF_UNROLLED_5_ATAN, &k::LIF_UNROLLED_5_SIGMOID],
        6 => [&k::LIF_UNROLLED_6_LINEAR, &k::LIF_UNROLLED_6_ATAN, &k::LIF_UNROLLED_6_SIGMOID],
        8 => [&k::LIF_UNROLLED_8_LINEAR, &k::LIF_UNROLLED_8_ATAN, &k::LIF_UNROLLED_8_SIGMOID],
        _ => return None,
    })
}

impl Lif {
    /// Neurons of one invocation: rows of steps stay aligned to four only if their length is a multiple of four.
    fn width(&self) -> usize {
        if self.neurons.is_multiple_of(4) { 4 } else { 1 }
    }

    /// Of the steps from `first` on, as many as a piece has.
    fn params(&self, gx: u32, first: usize) -> LifParams {
        let (Surrogate::Linear { gamma: width }
        | Surrogate::Atan { alpha: width }
        | Surrogate::Sigmoid { alpha: width }) = self.surrogate;
        LifParams {
            items: (self.neurons / self.width()) as u32,
            gx,
            first: first as u32,
            steps: (self.steps - first).min(PIECE) as u32,
            hard: self.hard_reset.into(),
            through: self.through_reset.into(),
            width,
            ..LifParams::default()
        }
    }

    /// First steps of the pieces.
    fn pieces(&self) -> std::iter::StepBy<std::ops::Range<usize>> {
        (0..self.steps).step_by(PIECE)
    }

    /// A membrane of zeros, or a copy of one.
    fn membrane(&self, gpu: &Gpu, start: Option<&Storage>) -> Result<Storage> {
        let state = gpu.alloc(self.bytes(), "lif membrane")?;
        match start {
            Some(start) => gpu.copy(start, 0, &state, 0, self.bytes())?,
            None => gpu.zero(&state)?,
        }
        Ok(state)
    }

    /// Bytes of one step.
    fn bytes(&self) -> u64 {
        self.neurons as u64 * 4
    }

    fn grid(&self, gpu: &Gpu) -> Result<([u32; 3], u32)> {
        gpu.grid(((self.neurons / self.width()) as u64).div_ceil(GROUP))
    }
}

/// Spikes `[steps][neurons]` of currents of that shape. With `start`, the membrane to begin with, the membrane after the
/// last step follows the spikes as one more row.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::spiking::{Lif, Surrogate, forward};
/// let surrogate = Surrogate::Atan { alpha: 2.0 };
/// let lif = Lif { steps: 4, neurons: 1, hard_reset: true, through_reset: false, surrogate };
/// let (threshold, leak) = (gpu.alloc_from(&[1.0f32], "threshold")?, gpu.alloc_from(&[0.5f32], "leak")?);
/// let (x, y) = (gpu.alloc_from(&[0.75f32; 4], "x")?, gpu.alloc(16, "y")?);
/// forward(&gpu, &lif, &x, [&threshold, &leak], None, &y)?; // 0.75, 1.125, 0.75, 1.125
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(
    gpu: &Gpu,
    lif: &Lif,
    x: &Storage,
    [threshold, leak]: [&Storage; 2],
    start: Option<&Storage>,
    y: &Storage,
) -> Result<()> {
    let (grid, gx) = lif.grid(gpu)?;
    let four = lif.width() == 4;
    if start.is_none() && lif.steps <= PIECE {
        let kernel = if four { &k::LIF_FORWARD_0_4 } else { &k::LIF_FORWARD_0_1 };
        return gpu.dispatch(kernel, [x, threshold, leak], [y], lif.params(gx, 0), grid);
    }
    let state = lif.membrane(gpu, start)?;
    let kernel = if four { &k::LIF_FORWARD_1_4 } else { &k::LIF_FORWARD_1_1 };
    for first in lif.pieces() {
        gpu.dispatch(kernel, [x, threshold, leak], [y, &state], lif.params(gx, first), grid)?;
    }
    match start {
        Some(_) => gpu.copy(&state, 0, y, lif.steps as u64 * lif.bytes(), lif.bytes()),
        None => Ok(()),
    }
}

/// Gradients for the currents, and `[threshold, leak]`, and with `start` (and where its gradient goes) the membrane to
/// begin with, from that of what [`forward`] wrote.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::spiking::{Lif, Surrogate, backward};
/// let surrogate = Surrogate::Linear { gamma: 1.0 };
/// let lif = Lif { steps: 1, neurons: 1, hard_reset: false, through_reset: false, surrogate };
/// let (threshold, leak) = (gpu.alloc_from(&[1.0f32], "threshold")?, gpu.alloc_from(&[0.5f32], "leak")?);
/// let (x, dy) = (gpu.alloc_from(&[0.75f32], "x")?, gpu.alloc_from(&[1.0f32], "dy")?);
/// let (dx, dthreshold, dleak) = (gpu.alloc(4, "dx")?, gpu.alloc(4, "dthreshold")?, gpu.alloc(4, "dleak")?);
/// backward(&gpu, &lif, &x, [&threshold, &leak], None, &dy, &dx, [&dthreshold, &dleak])?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.75]); // 1 - |0.75 / 1 - 1|
/// assert_eq!(gpu.read_as::<f32>(&dthreshold)?, [-0.5625]); // times -0.75 / 1^2
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn backward(
    gpu: &Gpu,
    lif: &Lif,
    x: &Storage,
    [threshold, leak]: [&Storage; 2],
    start: Option<(&Storage, &Storage)>,
    dy: &Storage,
    dx: &Storage,
    [dthreshold, dleak]: [&Storage; 2],
) -> Result<()> {
    type With = &'static Kernel<LifParams, 5, 3>;
    let (grid, gx) = lif.grid(gpu)?;
    // The last row of a folded grid may be longer than needed, and writes too.
    let groups = u64::from(grid[0]) * u64::from(grid[1]);
    let sums = groups * lif.pieces().len().max(1) as u64;
    let partial = gpu.alloc(sums * 8, "lif partial sums")?;
    let four = lif.width() == 4;
    let surrogate = match lif.surrogate {
        Surrogate::Linear { .. } => 0,
        Surrogate::Atan { .. } => 1,
        Surrogate::Sigmoid { .. } => 2,
    };
    let sum =
        |n: u64| gpu.dispatch(&k::LIF_SUM, [&partial], [dthreshold, dleak], LifSumParams { n: n as u32 }, [1, 1, 1]);
    if start.is_none() && lif.steps <= PIECE {
        let kernels: [Without; 3] = if four {
            [&k::LIF_BACKWARD_0_4_LINEAR, &k::LIF_BACKWARD_0_4_ATAN, &k::LIF_BACKWARD_0_4_SIGMOID]
        } else {
            [&k::LIF_BACKWARD_0_1_LINEAR, &k::LIF_BACKWARD_0_1_ATAN, &k::LIF_BACKWARD_0_1_SIGMOID]
        };
        let kernel = unrolled(lif.steps).filter(|_| four).unwrap_or(kernels)[surrogate];
        gpu.dispatch(kernel, [x, threshold, leak, dy], [dx, &partial], lif.params(gx, 0), grid)?;
        return sum(sums);
    }
    // The membranes that the pieces start from, first to last, then the pieces back.
    let mut starts = vec![lif.membrane(gpu, start.map(|s| s.0))?];
    let kernel = if four { &k::LIF_MEMBRANE_4 } else { &k::LIF_MEMBRANE_1 };
    for first in lif.pieces().take(lif.pieces().len().saturating_sub(1)) {
        let after = gpu.alloc(lif.bytes(), "lif membrane")?;
        let before = &starts[starts.len() - 1];
        gpu.dispatch(kernel, [x, threshold, leak, before], [&after], lif.params(gx, first), grid)?;
        starts.push(after);
    }
    let kernels: [With; 3] = if four {
        [&k::LIF_BACKWARD_1_4_LINEAR, &k::LIF_BACKWARD_1_4_ATAN, &k::LIF_BACKWARD_1_4_SIGMOID]
    } else {
        [&k::LIF_BACKWARD_1_1_LINEAR, &k::LIF_BACKWARD_1_1_ATAN, &k::LIF_BACKWARD_1_1_SIGMOID]
    };
    let dstate = match start {
        Some((_, dstart)) => dstart.clone(),
        None => gpu.alloc(lif.bytes(), "lif membrane")?,
    };
    for ((piece, first), before) in lif.pieces().enumerate().zip(&starts).rev() {
        let last = first + PIECE >= lif.steps;
        let mut params = lif.params(gx, first);
        params.ends = if last { 1 + u32::from(start.is_some()) } else { 0 };
        params.part = (piece as u64 * groups) as u32;
        gpu.dispatch(kernels[surrogate], [x, threshold, leak, before, dy], [dx, &partial, &dstate], params, grid)?;
    }
    if lif.steps == 0 {
        gpu.copy(dy, 0, &dstate, 0, lif.bytes())?;
        return sum(0);
    }
    sum(sums)
}

/// Steps whose spikes share a word.
///
/// ```
/// # use shadegrad_kernels::*;
/// assert_eq!(100usize.div_ceil(spiking::WORD_STEPS), 4); // words of a neuron over 100 steps
/// ```
pub const WORD_STEPS: usize = 32;

fn bits_params(gpu: &Gpu, steps: usize, neurons: usize) -> Result<(SpikeBitsParams, [u32; 3])> {
    let items = steps.div_ceil(WORD_STEPS) * neurons;
    let (grid, gx) = gpu.grid((items as u64).div_ceil(GROUP))?;
    Ok((SpikeBitsParams { items: items as u32, gx, neurons: neurons as u32, steps: steps as u32 }, grid))
}

/// Zeros and ones `[steps][neurons]` as bits: step `t` is bit `t % 32` of word `[t / 32][neuron]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let spikes = gpu.alloc_from(&[[1.0f32, 0.0], [0.0, 1.0], [1.0, 1.0]], "spikes")?; // three steps of two
/// let words = gpu.alloc(8, "words")?;
/// spiking::pack(&gpu, &spikes, &words, 3, 2)?;
/// assert_eq!(gpu.read_as::<u32>(&words)?, [0b101, 0b110]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn pack(gpu: &Gpu, spikes: &Storage, words: &Storage, steps: usize, neurons: usize) -> Result<()> {
    let (params, grid) = bits_params(gpu, steps, neurons)?;
    gpu.dispatch(&bits::SPIKES_PACK, [spikes], [words], params, grid)
}

/// What [`pack`] packed.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let words = gpu.alloc_from(&[0b101u32, 0b110], "words")?;
/// let spikes = gpu.alloc(4 * 6, "spikes")?;
/// spiking::unpack(&gpu, &words, &spikes, 3, 2)?;
/// assert_eq!(gpu.read_as::<[f32; 2]>(&spikes)?, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unpack(gpu: &Gpu, words: &Storage, spikes: &Storage, steps: usize, neurons: usize) -> Result<()> {
    let (params, grid) = bits_params(gpu, steps, neurons)?;
    gpu.dispatch(&bits::SPIKES_UNPACK, [words], [spikes], params, grid)
}
