//! Cross-entropy with its gradient, and one-hot targets.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::loss as k;
use shadegrad_shaders::loss::CeParams;

use crate::memory::Storage;
use crate::team::Team;
use crate::{Gpu, Result};

type Table = [[&'static Kernel<CeParams, 3, 2>; 5]; 2];

static HARD: Table = [
    [&k::CE_HARD_1_T1, &k::CE_HARD_1_S8, &k::CE_HARD_1_S32, &k::CE_HARD_1_W64, &k::CE_HARD_1_W256],
    [&k::CE_HARD_4_T1, &k::CE_HARD_4_S8, &k::CE_HARD_4_S32, &k::CE_HARD_4_W64, &k::CE_HARD_4_W256],
];
static SOFT: Table = [
    [&k::CE_SOFT_1_T1, &k::CE_SOFT_1_S8, &k::CE_SOFT_1_S32, &k::CE_SOFT_1_W64, &k::CE_SOFT_1_W256],
    [&k::CE_SOFT_4_T1, &k::CE_SOFT_4_S8, &k::CE_SOFT_4_S32, &k::CE_SOFT_4_W64, &k::CE_SOFT_4_W256],
];

/// What the rows of logits should become.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::loss::{Targets, cross_entropy};
/// let logits = gpu.alloc_from(&[0.0f32; 4], "logits")?; // two rows: both classes are equally likely
/// let (loss, dx) = (gpu.alloc(8, "loss")?, gpu.alloc(16, "dx")?);
/// let probs = gpu.alloc_from(&[1.0f32, 0.0, 0.25, 0.75], "probs")?;
/// cross_entropy(&gpu, &logits, (2, 2), Targets::Probs(&probs), None, 1.0, &loss, Some(&dx))?;
/// let near = |v: &f32, to: f32| (v - to).abs() < 1e-6;
/// assert!(gpu.read_as::<f32>(&loss)?.iter().all(|l| near(l, 2f32.ln())));
/// assert!(gpu.read_as::<f32>(&dx)?.iter().zip([-0.5, 0.5, 0.25, -0.25]).all(|(d, to)| near(d, to)));
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// A `u32` class per row, mixed with the uniform distribution by `smoothing`.
    Labels {
        /// The classes.
        labels: &'a Storage,
        /// Share of the uniform distribution.
        smoothing: f32,
    },
    /// A row of probabilities per row.
    Probs(&'a Storage),
}

/// Target of the other classes and of the label under label smoothing.
///
/// ```
/// # use shadegrad_kernels::*;
/// // Half of the probability is shared by four classes.
/// assert_eq!(loss::smoothed(0.5, 4), (0.125, 0.625));
/// ```
pub fn smoothed(smoothing: f32, classes: usize) -> (f32, f32) {
    let low = smoothing / classes as f32;
    (low, 1.0 - smoothing + low)
}

/// `loss[i] = scale * w_i * cross-entropy of row i`, and its gradient into `dx` if there is one to write.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::loss::{Targets, cross_entropy};
/// let logits = gpu.alloc_from(&[0.0f32, 0.0], "logits")?;
/// let labels = gpu.alloc_from(&[1u32], "labels")?;
/// let (loss, dx) = (gpu.alloc(4, "loss")?, gpu.alloc(8, "dx")?);
/// let targets = Targets::Labels { labels: &labels, smoothing: 0.0 };
/// cross_entropy(&gpu, &logits, (1, 2), targets, None, 1.0, &loss, Some(&dx))?;
/// assert!((gpu.read_as::<f32>(&loss)?[0] - 2f32.ln()).abs() < 1e-6);
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.5, -0.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn cross_entropy(
    gpu: &Gpu,
    x: &Storage,
    (rows, classes): (usize, usize),
    targets: Targets,
    weights: Option<&Storage>,
    scale: f32,
    loss: &Storage,
    dx: Option<&Storage>,
) -> Result<()> {
    let team = Team::pick(gpu, rows, classes);
    let vector = classes.is_multiple_of(4);
    let (grid, gx) = team.grid(gpu, rows)?;
    let (table, target, (low, high)) = match targets {
        Targets::Labels { labels, smoothing } => (&HARD, labels, smoothed(smoothing, classes)),
        Targets::Probs(probs) => (&SOFT, probs, (0.0, 0.0)),
    };
    let params = CeParams {
        rows: rows as u32,
        len: if vector { classes / 4 } else { classes } as u32,
        classes: classes as u32,
        gx,
        low,
        high,
        scale,
        weighted: weights.is_some().into(),
        store: dx.is_some().into(),
    };
    // The binding must exist; without a gradient nothing is written to it.
    let nowhere;
    let dx = match dx {
        Some(dx) => dx,
        None => {
            nowhere = gpu.alloc(16, "cross_entropy")?;
            &nowhere
        }
    };
    gpu.dispatch(team.of(table, vector), [x, target, weights.unwrap_or(x)], [loss, dx], params, grid)
}

/// `y[i][c]` = `high` where `c` is the label of row `i`, `low` elsewhere.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (labels, y) = (gpu.alloc_from(&[1u32, 0], "labels")?, gpu.alloc(16, "y")?);
/// loss::targets(&gpu, &labels, &y, (2, 2), loss::smoothed(0.5, 2))?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.25, 0.75, 0.75, 0.25]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn targets(
    gpu: &Gpu,
    labels: &Storage,
    y: &Storage,
    (rows, classes): (usize, usize),
    (low, high): (f32, f32),
) -> Result<()> {
    let n = rows * classes;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let params = k::TargetsParams { n: n as u32, classes: classes as u32, gx, low, high };
    gpu.dispatch(&k::LOSS_TARGETS, [labels], [y], params, grid)
}
