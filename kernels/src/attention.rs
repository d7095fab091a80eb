//! The softmax of attention.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::attention as k;
use shadegrad_shaders::attention::AttentionSoftmaxParams;
use shadegrad_shaders::flash::{self as f, FlashParams};
use shadegrad_shaders::flash_grad::{self as g, FlashParams as GradParams, FlashRowParams};

use crate::memory::Storage;
use crate::team::Team;
use crate::{Class, Gpu, Result};

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

/// Depths of a head that have kernels; the order is that of the tables.
const DEPTHS: [usize; 3] = [16, 32, 64];

/// By depth: subgroups of eight, else.
type ByDepth<P, const W: usize> = [[&'static Kernel<P, 7, W>; 2]; 3];
static FORWARD: [[&Kernel<FlashParams, 5, 1>; 2]; 3] = [
    [&f::FLASH_FORWARD_16_S8, &f::FLASH_FORWARD_16_WG],
    [&f::FLASH_FORWARD_32_S8, &f::FLASH_FORWARD_32_WG],
    [&f::FLASH_FORWARD_64_S8, &f::FLASH_FORWARD_64_WG],
];
static KEEP: [[&Kernel<FlashParams, 5, 2>; 2]; 3] = [
    [&f::FLASH_KEEP_16_S8, &f::FLASH_KEEP_16_WG],
    [&f::FLASH_KEEP_32_S8, &f::FLASH_KEEP_32_WG],
    [&f::FLASH_KEEP_64_S8, &f::FLASH_KEEP_64_WG],
];
static QUERY: ByDepth<GradParams, 1> = [
    [&g::FLASH_QUERY_16_S8, &g::FLASH_QUERY_16_WG],
    [&g::FLASH_QUERY_32_S8, &g::FLASH_QUERY_32_WG],
    [&g::FLASH_QUERY_64_S8, &g::FLASH_QUERY_64_WG],
];
static KEY: ByDepth<GradParams, 1> = [
    [&g::FLASH_KEY_16_S8, &g::FLASH_KEY_16_WG],
    [&g::FLASH_KEY_32_S8, &g::FLASH_KEY_32_WG],
    [&g::FLASH_KEY_64_S8, &g::FLASH_KEY_64_WG],
];

/// Whether [`forward`] and [`backward`] have kernels for keys and values of this depth.
///
/// ```
/// # use shadegrad_kernels::*;
/// assert!(attention::has_forward(32) && !attention::has_forward(20));
/// ```
pub fn has_forward(depth: usize) -> bool {
    DEPTHS.contains(&depth)
}

/// Attention without a stored matrix of scores: its sizes and options. `bias` and `mask` are as in [`masked_softmax`].
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::attention::Flash;
/// // Two sequences of 100 tokens in eight heads, every token seeing those before it.
/// let shape = [2, 8, 100, 100];
/// let flash = Flash { shape, depth: 64, bias: None, mask: None, causal: true, scale: 0.125 };
/// assert!(attention::has_forward(flash.depth));
/// ```
#[derive(Clone, Copy)]
pub struct Flash<'a> {
    /// Batch, heads, queries, keys: `[B, H, L, S]`, none of them 0.
    pub shape: [usize; 4],
    /// Channels D of a head, in queries, keys and values: one of those that [`has_forward`] names.
    pub depth: usize,
    /// Added to the scaled scores.
    pub bias: Spread<'a>,
    /// 0 hides a key from a query.
    pub mask: Spread<'a>,
    /// Whether queries see no keys of higher index.
    pub causal: bool,
    /// Factor of the scores.
    pub scale: f32,
}

impl Flash<'_> {
    /// Whether recomputing the weights in [`backward`] takes less time on `gpu` than storing them takes. Measured on the
    /// software driver alone (`docs/performance.md`); elsewhere true where the scores are 256 MiB or more, for their memory.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::attention::Flash;
    /// let flash = Flash { shape: [1, 1, 4, 4], depth: 20, bias: None, mask: None, causal: false, scale: 1.0 };
    /// assert!(!flash.recompute_pays(&gpu)); // no kernels of this depth
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn recompute_pays(&self, gpu: &Gpu) -> bool {
        let [_, _, queries, keys] = self.shape;
        has_forward(self.depth)
            && match (gpu.caps().class, gpu.caps().subgroup) {
                (Class::Software, Some(8)) => queries.min(keys) >= 16,
                _ => self.shape.iter().product::<usize>() >= 1 << 26,
            }
    }

    fn row(&self) -> usize {
        // Other depths are refused before: see `has_forward`.
        DEPTHS.iter().position(|&d| d == self.depth).unwrap_or(0)
    }

    /// Parameters and grid for invocations that share out `rows` queries or keys of each head; `shuffles` by subgroups.
    fn params(&self, gpu: &Gpu, rows: usize, shuffles: bool) -> Result<(FlashParams, [u32; 3])> {
        let [batch, heads, queries, keys] = self.shape;
        // Rows of one workgroup: invocations times rows of each.
        let span = match (shuffles, self.depth) {
            (false, _) => 64,
            (true, 64) => 16,
            (true, _) => 32,
        };
        let blocks = rows.div_ceil(span);
        let (grid, gx) = gpu.grid((batch * heads * blocks) as u64)?;
        let (bias, mask) = (self.bias, self.mask);
        let params = FlashParams {
            all: (batch * heads) as u32,
            heads: heads as u32,
            queries: queries as u32,
            keys: keys as u32,
            blocks: blocks as u32,
            gx,
            flags: u32::from(bias.is_some()) | u32::from(mask.is_some()) << 1 | u32::from(self.causal) << 2,
            scale: self.scale,
            bias: strides(&bias, 1),
            mask: strides(&mask, 1),
            ..FlashParams::default()
        };
        Ok((params, grid))
    }

    /// Operations of `products` matrix products of the size of the scores.
    fn flops(&self, products: usize) -> f64 {
        (2 * products * self.shape.iter().product::<usize>() * self.depth) as f64
    }
}

/// `y = softmax(scale q k^T + bias) v` over the visible keys (see [`masked_softmax`]) without storing the scores, for `q`
/// and `y` `[B, H, L, D]`, `k` and `v` `[B, H, S, D]`. `kept`, where given, receives what [`backward`] needs of each query:
/// `[B, H, L, 2]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::attention::{Flash, forward};
/// // One query of 0 and two keys, so that both values count half.
/// let (q, k) = (gpu.alloc_from(&[0.0f32; 16], "q")?, gpu.alloc_from(&[1.0f32; 32], "k")?);
/// let v = gpu.alloc_from(&[[1.0f32; 16], [3.0; 16]], "v")?;
/// let y = gpu.alloc(4 * 16, "y")?;
/// let flash = Flash { shape: [1, 1, 1, 2], depth: 16, bias: None, mask: None, causal: false, scale: 0.25 };
/// forward(&gpu, (&q, &k, &v), &flash, (&y, None))?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.0; 16]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(
    gpu: &Gpu,
    (q, k, v): (&Storage, &Storage, &Storage),
    flash: &Flash,
    (y, kept): (&Storage, Option<&Storage>),
) -> Result<()> {
    let shuffles = gpu.caps().subgroup == Some(8);
    let (params, grid) = flash.params(gpu, flash.shape[2], shuffles)?;
    gpu.note_flops(flash.flops(2));
    let reads = [q, k, v, flash.bias.map_or(q, |b| b.0), flash.mask.map_or(q, |m| m.0)];
    let (row, column) = (flash.row(), usize::from(!shuffles));
    match kept {
        None => gpu.dispatch(FORWARD[row][column], reads, [y], params, grid),
        Some(kept) => gpu.dispatch(KEEP[row][column], reads, [y, kept], params, grid),
    }
}

/// Gradients of the queries, and of keys and values, where they were wanted.
pub type Gradients = (Option<Storage>, Option<(Storage, Storage)>);

/// Gradients of [`forward`] for `q`, `k` and `v` from that of its result, `dy`, and from what it kept. `wanted` says whether
/// the queries' gradient, and those of keys and values, are to be computed at all. The weights are computed again, so that
/// memory grows with L + S, not with L S; all sums have a fixed order.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::attention::{Flash, backward, forward};
/// // Two equal keys: each value has half of the weight.
/// let (q, k) = (gpu.alloc_from(&[0.0f32; 16], "q")?, gpu.alloc_from(&[1.0f32; 32], "k")?);
/// let v = gpu.alloc_from(&[[1.0f32; 16], [3.0; 16]], "v")?;
/// let (y, kept) = (gpu.alloc(4 * 16, "y")?, gpu.alloc(8, "kept")?);
/// let flash = Flash { shape: [1, 1, 1, 2], depth: 16, bias: None, mask: None, causal: false, scale: 0.25 };
/// forward(&gpu, (&q, &k, &v), &flash, (&y, Some(&kept)))?;
/// let dy = gpu.alloc_from(&[1.0f32; 16], "dy")?;
/// let (dq, dkv) = backward(&gpu, (&q, &k, &v), &flash, (&y, &kept, &dy), (true, true))?;
/// let (_, dv) = dkv.expect("wanted");
/// assert_eq!(gpu.read_as::<f32>(&dv)?, [0.5; 32]);
/// assert_eq!(gpu.read_as::<f32>(&dq.expect("wanted"))?, [0.0; 16]); // the weights stay equal
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::alloc`] and [`Gpu::dispatch`].
pub fn backward(
    gpu: &Gpu,
    (q, k, v): (&Storage, &Storage, &Storage),
    flash: &Flash,
    (y, kept, dy): (&Storage, &Storage, &Storage),
    wanted: (bool, bool),
) -> Result<Gradients> {
    const LABEL: &str = "attention gradients";
    let [batch, heads, queries, keys] = flash.shape;
    let shuffles = gpu.caps().subgroup == Some(8);
    let (row, column) = (flash.row(), usize::from(!shuffles));
    let all = batch * heads * queries;
    let rows = gpu.alloc(16 * all as u64, LABEL)?;
    let (grid, gx) = gpu.grid((all as u64).div_ceil(64))?;
    let params = FlashRowParams { rows: all as u32, quads: (flash.depth / 4) as u32, gx, ..Default::default() };
    gpu.dispatch(&g::FLASH_ROWS, [y, dy, kept], [&rows], params, grid)?;
    let reads = [q, k, v, dy, &rows, flash.bias.map_or(q, |b| b.0), flash.mask.map_or(q, |m| m.0)];
    let mut dq = None;
    if wanted.0 {
        let (params, grid) = flash.params(gpu, queries, shuffles)?;
        let to = gpu.alloc((4 * all * flash.depth) as u64, LABEL)?;
        gpu.note_flops(flash.flops(3));
        gpu.dispatch(QUERY[row][column], reads, [&to], bytemuck::cast::<_, GradParams>(params), grid)?;
        dq = Some(to);
    }
    let mut dkv = None;
    if wanted.1 {
        let (params, grid) = flash.params(gpu, keys, shuffles)?;
        let bytes = (4 * batch * heads * keys * flash.depth) as u64;
        // Both in one buffer, since eight can be bound; a view begins at a multiple of 256 bytes.
        let apart = bytes.next_multiple_of(256);
        let both = gpu.alloc(apart + bytes, LABEL)?;
        let params = GradParams { apart: (apart / 16) as u32, ..bytemuck::cast(params) };
        gpu.note_flops(flash.flops(4));
        gpu.dispatch(KEY[row][column], reads, [&both], params, grid)?;
        dkv = both.view(0, bytes).zip(both.view(apart, bytes));
    }
    Ok((dq, dkv))
}
