//! The softmax of attention.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::attention as k;
use shadegrad_shaders::attention::AttentionSoftmaxParams;

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
pub type Spread<'a> = Option<(&'a Storage, [usize; 4])>;

/// `y = softmax(scale * x + bias)` over the last axis of the scores `[B, H, L, S]`, over the keys whose mask is not 0 and,
/// if `causal`, whose index is not above the query's. Other keys get 0; a query that sees none gets zeros.
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
    let strides = |s: &Spread| {
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
    };
    let params = AttentionSoftmaxParams {
        rows: rows as u32,
        len: (keys / unit) as u32,
        heads: heads as u32,
        queries: queries as u32,
        gx,
        flags: u32::from(bias.is_some()) | u32::from(mask.is_some()) << 1 | u32::from(causal) << 2,
        scale,
        bias: strides(&bias),
        mask: strides(&mask),
        ..AttentionSoftmaxParams::default()
    };
    let reads = [x, bias.map_or(x, |b| b.0), mask.map_or(x, |m| m.0)];
    gpu.dispatch(team.of(&SOFTMAX, vector), reads, [y], params, grid)
}
