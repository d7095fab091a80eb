//! The softmax of attention.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::attention as k;
use shadegrad_shaders::attention::AttentionSoftmaxParams;
use shadegrad_shaders::flash::{self as f, FlashParams};

use crate::memory::Storage;
use crate::team::Team;
use crate::{Gpu, Result};

static SOFTMAX: [[&Kernel<AttentionSoftmaxParams, 3, 1>; 5]; 2] = [
    [
        &k::ATTENTION_SOFTMAX_1_T1,
        &k::ATTENTION_SOFTMAX_1_S8,
        &k::ATTENTION_SOFTMAX_1_S32,
        &k::ATTENTION_SOFTMAX_1_W64,
        &k::ATTENTION_SOFTMAX_1_W256,
    ],
    [
        &k::ATTENTION_SOFTMAX_4_T1,
        &k::ATTENTION_SOFTMAX_4_S8,
        &k::ATTENTION_SOFTMAX_4_S32,
        &k::ATTENTION_SOFTMAX_4_W64,
        &k::ATTENTION_SOFTMAX_4_W256,
    ],
];

/// An operand that broadcasts to the scores: its memory and its shape `[B|1, H|1, L|1, S|1]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let scores = gpu.alloc_from(&[0.0f32; 4], "scores")?; // [1, 1, 2, 2]
/// let (mask, y) = (gpu.alloc_from(&[1.0f32, 0.0], "mask")?, gpu.alloc(16, "y")?);
/// let mask: attention::Spread = Some((&mask, [1, 1, 1, 2])); // the same for both queries
/// attention::masked_softmax(&gpu, &scores, [1, 1, 2, 2], (None, mask), false, 1.0, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 0.0, 1.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
pub type Spread<'a> = Option<(&'a Storage, [usize; 4])>;

/// `y = softmax(scale * x + bias)` over the last axis of the scores `[B, H, L, S]`, over the keys whose mask is not 0 and,
/// if `causal`, whose index is not above the query's. Other keys get 0; a query that sees none gets zeros.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (scores, y) = (gpu.alloc_from(&[0.0f32; 4], "scores")?, gpu.alloc(16, "y")?);
/// attention::masked_softmax(&gpu, &scores, [1, 1, 2, 2], (None, None), true, 1.0, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 0.0, 0.5, 0.5]); // the first query sees one key
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn masked_softmax(
    gpu: &Gpu,
    x: &Storage,
    shape: [usize; 4],
    (bias, mask): (Spread, Spread),
    causal: bool,
    scale: f32,
    y: &Storage,
) -> Result<()> {
    let [batch, heads, queries, keys] = shape;
    let rows = batch * heads * queries;
    let whole = |s: &Spread| s.is_none_or(|(_, shape)| shape[3] == keys);
    let vector = keys.is_multiple_of(4) && whole(&bias) && whole(&mask);
    let unit = if vector { 4 } else { 1 };
    let team = Team::pick(gpu, rows, keys);
    let (grid, gx) = team.grid(gpu, rows)?;
    let params = AttentionSoftmaxParams {
        rows: rows as u32,
        len: (keys / unit) as u32,
        heads: heads as u32,
        queries: queries as u32,
        gx,
        flags: u32::from(bias.is_some()) | u32::from(mask.is_some()) << 1 | u32::from(causal) << 2,
        scale,
        bias: strides(&bias, unit),
        mask: strides(&mask, unit),
        ..AttentionSoftmaxParams::default()
    };
    let reads = [x, bias.map_or(x, |b| b.0), mask.map_or(x, |m| m.0)];
    gpu.dispatch(team.of(&SOFTMAX, vector), reads, [y], params, grid)
}

/// Strides over batch, head, query and key in elements of `unit` floats, 0 where repeated.
fn strides(s: &Spread, unit: usize) -> [u32; 4] {
    let mut out = [0; 4];
    let Some((_, shape)) = s else { return out };
    let mut step = 1;
    for d in (0..4).rev() {
        if shape[d] > 1 {
            out[d] = if d == 3 { 1 } else { (step / unit) as u32 };
        }
        step *= shape[d];
    }
    out
}

/// Whether [`forward`] has a kernel for keys and values of this depth.
///
/// ```
/// # use shadegrad_kernels::*;
/// assert!(attention::has_forward(32) && !attention::has_forward(20));
/// ```
pub fn has_forward(depth: usize) -> bool {
    matches!(depth, 16 | 32 | 64)
}

/// `y = softmax(scale q k^T + bias) v` over the visible keys (see [`masked_softmax`]) without storing the scores, for `q`
/// and `y` `[B, H, L, D]`, `k` and `v` `[B, H, S, D]`. `shape` is `[B, H, L, S]`, `depth` D: one of those that
/// [`has_forward`] names.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // One query of 0 and two keys, so that both values count half.
/// let (q, k) = (gpu.alloc_from(&[0.0f32; 16], "q")?, gpu.alloc_from(&[1.0f32; 32], "k")?);
/// let v = gpu.alloc_from(&[[1.0f32; 16], [3.0; 16]], "v")?;
/// let y = gpu.alloc(4 * 16, "y")?;
/// attention::forward(&gpu, (&q, &k, &v), ([1, 1, 1, 2], 16), (None, None), false, 0.25, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.0; 16]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(
    gpu: &Gpu,
    (q, k, v): (&Storage, &Storage, &Storage),
    (shape, depth): ([usize; 4], usize),
    (bias, mask): (Spread, Spread),
    causal: bool,
    scale: f32,
    y: &Storage,
) -> Result<()> {
    let [batch, heads, queries, keys] = shape;
    let shuffles = gpu.caps().subgroup == Some(8);
    // Queries of one workgroup: invocations times queries of each.
    let (kernel, span) = match (depth, shuffles) {
        (16, true) => (&f::FLASH_FORWARD_16_S8, 32),
        (16, false) => (&f::FLASH_FORWARD_16_WG, 64),
        (32, true) => (&f::FLASH_FORWARD_32_S8, 32),
        (32, false) => (&f::FLASH_FORWARD_32_WG, 64),
        (_, true) => (&f::FLASH_FORWARD_64_S8, 16),
        (_, false) => (&f::FLASH_FORWARD_64_WG, 64),
    };
    let blocks = queries.div_ceil(span);
    let (grid, gx) = gpu.grid((batch * heads * blocks) as u64)?;
    let params = FlashParams {
        all: (batch * heads) as u32,
        heads: heads as u32,
        queries: queries as u32,
        keys: keys as u32,
        blocks: blocks as u32,
        gx,
        flags: u32::from(bias.is_some()) | u32::from(mask.is_some()) << 1 | u32::from(causal) << 2,
        scale,
        bias: strides(&bias, 1),
        mask: strides(&mask, 1),
    };
    gpu.note_flops((4 * batch * heads * queries * keys * depth) as f64);
    let reads = [q, k, v, bias.map_or(q, |b| b.0), mask.map_or(q, |m| m.0)];
    gpu.dispatch(kernel, reads, [y], params, grid)
}
