//! Two-dimensional convolution of NHWC images and its two gradients, as implicit matrix products.
//!
//! All kernels see channels in quads: where the channels of a group are not a multiple of four, they are padded with
//! zeros on the way in and cut back on the way out.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::conv as k;
use shadegrad_shaders::conv::ConvParams;
use shadegrad_shaders::conv_depthwise as kd;
use shadegrad_shaders::conv_depthwise::ConvParams as DepthwiseParams;
use shadegrad_shaders::conv_pack as pack;
use shadegrad_shaders::conv_pack::PackParams;
use shadegrad_shaders::conv_weight as kw;
use shadegrad_shaders::conv_weight::WeightParams;

use crate::adapter::Class;
use crate::cast::{Cast, cast};
use crate::memory::Storage;
use crate::{Gpu, Result};

/// Pixels whose products one split of a weight gradient sums before the splits are added: bounds the rounding error of
/// the sum and gives the device parallel work.
const SPLIT_PIXELS: usize = 1024;

/// The sizes of a convolution `x [n, h, w, c]`, weights `[k, r, s, c / groups]`, `y [n, oh, ow, k]`. Pairs are (rows,
/// columns).
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::conv::{Conv, forward};
/// // One image of 3 x 3, one channel; windows of 2 x 2.
/// let g = Conv {
///     n: 1, size: [3, 3], c: 1, out: [2, 2], k: 1, taps: [2, 2],
///     stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, halves: false,
/// };
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], "x")?;
/// let (w, y) = (gpu.alloc_from(&[0.0f32, 0.0, 0.0, 1.0], "w")?, gpu.alloc(16, "y")?);
/// forward(&gpu, &g, &x, &w, None, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [5.0, 6.0, 8.0, 9.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Images.
    pub n: usize,
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Channels of the image.
    pub c: usize,
    /// Height and width of the result.
    pub out: [usize; 2],
    /// Channels of the result.
    pub k: usize,
    /// Height and width of the weights.
    pub taps: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros put around the image.
    pub padding: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Whether both operands of a pass are halves, two in a word. Results and biases are floats, and so are all sums.
    pub halves: bool,
}

impl Conv {
    /// The same convolution of operands that are halves.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let g = conv::Conv { n: 1, size: [1, 2], c: 1, out: [1, 1], k: 1, taps: [1, 2], stride: [1, 1],
    /// #     padding: [0, 0], dilation: [1, 1], groups: 1, halves: false };
    /// let x = gpu.alloc_from(&[0x3c00u16, 0x4000], "x")?; // the halves 1 and 2, an image of 1 x 2
    /// let (w, y) = (gpu.alloc_from(&[0x4000u16, 0x3c00], "w")?, gpu.alloc(4, "y")?);
    /// conv::forward(&gpu, &g.halves(true), &x, &w, None, &y)?;
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [4.0]); // a float
    /// # Ok::<(), GpuError>(())
    /// ```
    #[must_use]
    pub fn halves(self, halves: bool) -> Self {
        Self { halves, ..self }
    }

    /// Bytes of an element of the operands.
    fn size(&self) -> u64 {
        if self.halves { 2 } else { 4 }
    }

    fn cg(&self) -> usize {
        self.c / self.groups
    }

    fn kg(&self) -> usize {
        self.k / self.groups
    }

    fn rs(&self) -> usize {
        self.taps[0] * self.taps[1]
    }

    fn is_depthwise(&self) -> bool {
        self.groups == self.c && self.groups == self.k && self.c > 1
    }

    /// Floating-point operations of each pass (a multiplication and an addition each).
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let g = conv::Conv {
    ///     n: 1, size: [3, 3], c: 1, out: [2, 2], k: 1, taps: [2, 2],
    ///     stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, halves: false,
    /// };
    /// assert_eq!(g.flops(), 2.0 * 4.0 * 4.0); // four results of four products each
    /// ```
    pub fn flops(&self) -> f64 {
        2.0 * (self.n * self.out[0] * self.out[1] * self.rs()) as f64 * (self.k * self.cg()) as f64
    }
}

/// Which dense kernels a device runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dense {
    /// Weights broadcast within subgroups of eight, for processors.
    Broadcast,
    /// Tiles in workgroup memory, for graphics cards.
    Tiled,
    /// No subgroups, no workgroup memory.
    Portable,
}

/// Workgroup memory of the largest tile.
const TILE_BYTES: u32 = 2 * 16 * (128 + 64) * 4;
/// Workgroups below which a large graphics card has idle processors.
const FILL: usize = 264;

fn dense(gpu: &Gpu) -> Dense {
    match (gpu.caps().class, gpu.caps().subgroup) {
        (Class::Software, Some(8)) => Dense::Broadcast,
        (Class::Discrete, _) if gpu.caps().workgroup_bytes >= TILE_BYTES => Dense::Tiled,
        _ => Dense::Portable,
    }
}

/// `y = conv(x, w) + bias`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let g = conv::Conv { n: 1, size: [3, 3], c: 1, out: [2, 2], k: 1, taps: [2, 2], stride: [1, 1],
/// #     padding: [0, 0], dilation: [1, 1], groups: 1, halves: false };
/// // `g` is the geometry in the example of `Conv`: an image of 3 x 3, windows of 2 x 2.
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], "x")?;
/// let (w, bias) = (gpu.alloc_from(&[1.0f32; 4], "w")?, gpu.alloc_from(&[0.5f32], "bias")?);
/// let y = gpu.alloc(4 * 4, "y")?;
/// conv::forward(&gpu, &g, &x, &w, Some(&bias), &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [12.5, 16.5, 24.5, 28.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(gpu: &Gpu, g: &Conv, x: &Storage, w: &Storage, bias: Option<&Storage>, y: &Storage) -> Result<()> {
    if g.is_depthwise() {
        let (x, w) = (floats(gpu, g, x)?, floats(gpu, g, w)?);
        return depthwise(gpu, g, Pass::Forward, &x, &w, bias, y);
    }
    let (cg, kg) = (g.cg(), g.kg());
    let x = pad(gpu, x, g.n * g.size[0] * g.size[1] * g.groups, cg, g.halves)?;
    let w = pad(gpu, w, g.k * g.rs(), cg, g.halves)?;
    let side = Side { quads: cg.div_ceil(4), out: g.out, channels: kg };
    gather(gpu, g, Pass::Forward, &side, &x, &w, bias, y)
}

/// The gradient of a convolution for its image: `dx` from `dy`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let g = conv::Conv { n: 1, size: [3, 3], c: 1, out: [2, 2], k: 1, taps: [2, 2], stride: [1, 1],
/// #     padding: [0, 0], dilation: [1, 1], groups: 1, halves: false };
/// // `g` is the geometry in the example of `Conv`: an image of 3 x 3, windows of 2 x 2.
/// let (dy, w) = (gpu.alloc_from(&[1.0f32; 4], "dy")?, gpu.alloc_from(&[1.0f32; 4], "w")?);
/// let dx = gpu.alloc(4 * 9, "dx")?;
/// conv::input_grad(&gpu, &g, &dy, &w, &dx)?;
/// // In how many windows each pixel lies.
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn input_grad(gpu: &Gpu, g: &Conv, dy: &Storage, w: &Storage, dx: &Storage) -> Result<()> {
    if g.is_depthwise() {
        let (dy, w) = (floats(gpu, g, dy)?, floats(gpu, g, w)?);
        return depthwise(gpu, g, Pass::Backward, &dy, &w, None, dx);
    }
    let (cg, kg) = (g.cg(), g.kg());
    let dy = pad(gpu, dy, g.n * g.out[0] * g.out[1] * g.groups, kg, g.halves)?;
    let to = kg.next_multiple_of(4);
    let n = g.c * g.rs() * to;
    let wt = gpu.alloc(g.size() * n as u64, "conv weights")?;
    let params = PackParams { length: kg as u32, to: to as u32, taps: g.rs() as u32, inner: cg as u32, ..elements(n) };
    let kernel = if g.halves { &pack::CONV_TRANSPOSE_HALF } else { &pack::CONV_TRANSPOSE };
    rearrange(gpu, kernel, w, &wt, params)?;
    let side = Side { quads: kg.div_ceil(4), out: g.size, channels: cg };
    gather(gpu, g, Pass::Backward, &side, &dy, &wt, None, dx)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

/// What a pass reads and writes, per group.
struct Side {
    /// Channel quads of the images read.
    quads: usize,
    /// Height and width of the result.
    out: [usize; 2],
    /// Channels of the result.
    channels: usize,
}

/// A dense kernel by halves, then by direction.
type Table = [[&'static Kernel<ConvParams, 3, 1>; 2]; 2];

static S8_16: Table = [[&k::CONV_S8_FWD_16, &k::CONV_S8_BWD_16], [&k::CONV_S8_FWD_16_HALF, &k::CONV_S8_BWD_16_HALF]];
static S8_8: Table = [[&k::CONV_S8_FWD_8, &k::CONV_S8_BWD_8], [&k::CONV_S8_FWD_8_HALF, &k::CONV_S8_BWD_8_HALF]];
static TILE_128_16: Table = [
    [&k::CONV_TILE_FWD_128_16, &k::CONV_TILE_BWD_128_16],
    [&k::CONV_TILE_FWD_128_16_HALF, &k::CONV_TILE_BWD_128_16_HALF],
];
static TILE_128_32: Table = [
    [&k::CONV_TILE_FWD_128_32, &k::CONV_TILE_BWD_128_32],
    [&k::CONV_TILE_FWD_128_32_HALF, &k::CONV_TILE_BWD_128_32_HALF],
];
static TILE_64_64: Table =
    [[&k::CONV_TILE_FWD_64_64, &k::CONV_TILE_BWD_64_64], [&k::CONV_TILE_FWD_64_64_HALF, &k::CONV_TILE_BWD_64_64_HALF]];
static TILE_128_64: Table = [
    [&k::CONV_TILE_FWD_128_64, &k::CONV_TILE_BWD_128_64],
    [&k::CONV_TILE_FWD_128_64_HALF, &k::CONV_TILE_BWD_128_64_HALF],
];
static PORTABLE: Table = [[&k::CONV_P_FWD, &k::CONV_P_BWD], [&k::CONV_P_FWD_HALF, &k::CONV_P_BWD_HALF]];

/// Runs the dense gather of either direction on padded operands, and cuts the result's channels back.
fn gather(
    gpu: &Gpu,
    g: &Conv,
    pass: Pass,
    side: &Side,
    x: &Storage,
    w: &Storage,
    bias: Option<&Storage>,
    y: &Storage,
) -> Result<()> {
    let rows = g.n * side.out[0] * side.out[1] * g.groups;
    let padded = side.channels.next_multiple_of(4);
    let whole = if padded == side.channels { y.clone() } else { gpu.alloc(4 * (rows * padded) as u64, "conv")? };
    let forward = pass == Pass::Forward;
    // Result pixels of one phase; the first phase has the most.
    let phases = if forward { [1, 1] } else { g.stride };
    let per_phase = g.n * side.out[0].div_ceil(phases[0]) * side.out[1].div_ceil(phases[1]);
    // Tiles of the graphics cards' kernels that are as good as full, if the tile is 128 pixels by 64 channels.
    let large = per_phase / 128 * side.channels.div_ceil(64) * g.groups * phases[0] * phases[1];
    // (kernels, pixels of a tile, channels of a tile)
    let (kernels, pixels, channels) = match dense(gpu) {
        Dense::Broadcast if side.channels > 8 => (&S8_16, 32, 16),
        Dense::Broadcast => (&S8_8, 32, 8),
        Dense::Tiled if side.channels <= 16 => (&TILE_128_16, 128, 16),
        Dense::Tiled if side.channels <= 32 => (&TILE_128_32, 128, 32),
        Dense::Tiled if large < FILL => (&TILE_64_64, 64, 64),
        Dense::Tiled => (&TILE_128_64, 128, 64),
        Dense::Portable => (&PORTABLE, 128, 8),
    };
    let kernel = kernels[usize::from(g.halves)][usize::from(!forward)];
    let mtiles = per_phase.div_ceil(pixels);
    let ktiles = side.channels.div_ceil(channels);
    let tiles = mtiles * ktiles * g.groups * phases[0] * phases[1];
    let (grid, gx) = gpu.grid(tiles as u64)?;
    let params = ConvParams {
        cq: side.quads as u32,
        kq: (padded / 4) as u32,
        kg: side.channels as u32,
        groups: g.groups as u32,
        bias: u32::from(bias.is_some()),
        gx,
        mtiles: mtiles as u32,
        ktiles: ktiles as u32,
        tiles: tiles as u32,
        ..geometry(g, pass)
    };
    gpu.note_flops(g.flops());
    gpu.dispatch(kernel, [x, w, bias.unwrap_or(w)], [&whole], params, grid)?;
    cut(gpu, &whole, y, rows, side.channels)
}

/// The part of a gather's parameters that no kernel chooses.
fn geometry(g: &Conv, pass: Pass) -> ConvParams {
    let apart =
        |d: usize| (1..=g.stride[d]).find(|t| (t * g.dilation[d]).is_multiple_of(g.stride[d])).unwrap_or(1) as u32;
    let (size, out, hop) = match pass {
        Pass::Forward => (g.size, g.out, [1, 1]),
        Pass::Backward => (g.out, g.size, [apart(0), apart(1)]),
    };
    ConvParams {
        n: g.n as u32,
        h: size[0] as u32,
        w: size[1] as u32,
        oh: out[0] as u32,
        ow: out[1] as u32,
        r: g.taps[0] as u32,
        s: g.taps[1] as u32,
        sy: g.stride[0] as u32,
        sx: g.stride[1] as u32,
        py: g.padding[0] as u32,
        px: g.padding[1] as u32,
        dy: g.dilation[0] as u32,
        dx: g.dilation[1] as u32,
        ty: hop[0],
        tx: hop[1],
        ..ConvParams::default()
    }
}

/// Either direction of a depthwise convolution.
fn depthwise(
    gpu: &Gpu,
    g: &Conv,
    pass: Pass,
    x: &Storage,
    w: &Storage,
    bias: Option<&Storage>,
    y: &Storage,
) -> Result<()> {
    let quads = g.c.div_ceil(4);
    let (size, out, phases) = match pass {
        Pass::Forward => (g.size, g.out, [1, 1]),
        Pass::Backward => (g.out, g.size, g.stride),
    };
    let x = pad(gpu, x, g.n * size[0] * size[1], g.c, false)?;
    let bias = bias.map(|b| pad(gpu, b, 1, g.c, false)).transpose()?;
    let taps = gpu.alloc((16 * g.rs() * quads) as u64, "conv weights")?;
    let params =
        PackParams { length: g.rs() as u32, to: 4 * quads as u32, rows: g.c as u32, ..elements(4 * g.rs() * quads) };
    rearrange(gpu, &pack::CONV_SWAP, w, &taps, params)?;
    let pixels = g.n * out[0] * out[1];
    let whole = if g.c.is_multiple_of(4) { y.clone() } else { gpu.alloc((16 * pixels * quads) as u64, "conv")? };
    // The distance of taps within a row, where the window slides along it.
    let apart = if g.stride == [1, 1] { g.dilation[1] } else { 0 };
    let (kernel, strip): (&Kernel<_, 3, 1>, usize) = match (pass, g.taps[1], apart) {
        (Pass::Forward, 3, 1) => (&kd::CONV_DEPTHWISE_FWD_3, 8),
        (Pass::Forward, 3, 2) => (&kd::CONV_DEPTHWISE_FWD_3_DILATED, 8),
        (Pass::Forward, 5, 1) => (&kd::CONV_DEPTHWISE_FWD_5, 8),
        (Pass::Forward, 5, 2) => (&kd::CONV_DEPTHWISE_FWD_5_DILATED, 8),
        (Pass::Forward, 7, 1) => (&kd::CONV_DEPTHWISE_FWD_7, 8),
        (Pass::Forward, ..) => (&kd::CONV_DEPTHWISE_FWD_0, 4),
        (Pass::Backward, 3, 1) => (&kd::CONV_DEPTHWISE_BWD_3, 8),
        (Pass::Backward, 3, 2) => (&kd::CONV_DEPTHWISE_BWD_3_DILATED, 8),
        (Pass::Backward, 5, 1) => (&kd::CONV_DEPTHWISE_BWD_5, 8),
        (Pass::Backward, 5, 2) => (&kd::CONV_DEPTHWISE_BWD_5_DILATED, 8),
        (Pass::Backward, 7, 1) => (&kd::CONV_DEPTHWISE_BWD_7, 8),
        (Pass::Backward, ..) => (&kd::CONV_DEPTHWISE_BWD_0, 4),
    };
    let strips = out[1].div_ceil(phases[1]).div_ceil(strip);
    let rows = out[0].div_ceil(phases[0]);
    let threads = phases[0] * phases[1] * g.n * rows * strips * quads;
    let (grid, gx) = gpu.grid(threads.div_ceil(64) as u64)?;
    let params = DepthwiseParams {
        cq: quads as u32,
        bias: u32::from(bias.is_some()),
        gx,
        mtiles: strips as u32,
        ktiles: rows as u32,
        tiles: threads as u32,
        ..bytemuck::cast(geometry(g, pass))
    };
    gpu.note_flops(g.flops());
    gpu.dispatch(kernel, [&x, &taps, bias.as_ref().unwrap_or(&taps)], [&whole], params, grid)?;
    cut(gpu, &whole, y, pixels, g.c)
}

fn depthwise_weight(gpu: &Gpu, g: &Conv, x: &Storage, dy: &Storage, dw: &Storage) -> Result<()> {
    let quads = g.c.div_ceil(4);
    let x = pad(gpu, &floats(gpu, g, x)?, g.n * g.size[0] * g.size[1], g.c, false)?;
    let dy = pad(gpu, &floats(gpu, g, dy)?, g.n * g.out[0] * g.out[1], g.c, false)?;
    let image_rows = g.n * g.out[0];
    let rows = (SPLIT_PIXELS / 2 / g.out[1]).clamp(1, image_rows);
    let splits = image_rows.div_ceil(rows);
    // Taps of a row that an invocation holds: all of the usual rows, so that none is idle.
    let held = if matches!(g.taps[1], 3 | 5) { g.taps[1] } else { 4 };
    let blocks = g.taps[1].div_ceil(held);
    let threads = splits * g.taps[0] * blocks * quads;
    let packed = 4 * g.rs() * quads;
    let sums = gpu.alloc(4 * packed as u64, "conv")?;
    let parts = if splits == 1 { sums.clone() } else { gpu.alloc(4 * (splits * packed) as u64, "conv partial sums")? };
    let table: [[&Kernel<DepthwiseParams, 2, 1>; 3]; 3] = [
        [&kd::CONV_DEPTHWISE_WEIGHT_0_3, &kd::CONV_DEPTHWISE_WEIGHT_0_4, &kd::CONV_DEPTHWISE_WEIGHT_0_5],
        [&kd::CONV_DEPTHWISE_WEIGHT_1_3, &kd::CONV_DEPTHWISE_WEIGHT_1_4, &kd::CONV_DEPTHWISE_WEIGHT_1_5],
        [&kd::CONV_DEPTHWISE_WEIGHT_2_3, &kd::CONV_DEPTHWISE_WEIGHT_2_4, &kd::CONV_DEPTHWISE_WEIGHT_2_5],
    ];
    let slide = if g.stride[1] == 1 && g.dilation[1] <= 2 { g.dilation[1] } else { 0 };
    let kernel = table[slide][held - 3];
    let (grid, gx) = gpu.grid(threads.div_ceil(64) as u64)?;
    let params = DepthwiseParams {
        cq: quads as u32,
        gx,
        mtiles: blocks as u32,
        ktiles: rows as u32,
        tiles: threads as u32,
        ..bytemuck::cast(geometry(g, Pass::Forward))
    };
    gpu.note_flops(g.flops());
    gpu.dispatch(kernel, [&x, &dy], [&parts], params, grid)?;
    if splits > 1 {
        let params = PackParams { length: splits as u32, ..elements(packed) };
        rearrange(gpu, &pack::CONV_SUM, &parts, &sums, params)?;
    }
    let params =
        PackParams { length: 4 * quads as u32, to: g.rs() as u32, rows: g.rs() as u32, ..elements(g.c * g.rs()) };
    rearrange(gpu, &pack::CONV_SWAP, &sums, dw, params)
}

/// The gradient of a convolution for its weights: `dw` from `x` and `dy`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let g = conv::Conv { n: 1, size: [3, 3], c: 1, out: [2, 2], k: 1, taps: [2, 2], stride: [1, 1],
/// #     padding: [0, 0], dilation: [1, 1], groups: 1, halves: false };
/// // `g` is the geometry in the example of `Conv`: an image of 3 x 3, windows of 2 x 2.
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], "x")?;
/// let (dy, dw) = (gpu.alloc_from(&[1.0f32, 0.0, 0.0, 10.0], "dy")?, gpu.alloc(16, "dw")?);
/// conv::weight_grad(&gpu, &g, &x, &dy, &dw)?;
/// assert_eq!(gpu.read_as::<f32>(&dw)?, [51.0, 62.0, 84.0, 95.0]); // x[i, j] + 10 x[i + 1, j + 1]
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn weight_grad(gpu: &Gpu, g: &Conv, x: &Storage, dy: &Storage, dw: &Storage) -> Result<()> {
    if g.is_depthwise() {
        return depthwise_weight(gpu, g, x, dy, dw);
    }
    let (cg, kg) = (g.cg(), g.kg());
    let (cq, kq) = (cg.div_ceil(4), kg.div_ceil(4));
    let x = pad(gpu, x, g.n * g.size[0] * g.size[1] * g.groups, cg, g.halves)?;
    let dy = pad(gpu, dy, g.n * g.out[0] * g.out[1] * g.groups, kg, g.halves)?;
    let columns = g.rs() * cq;
    let dense = dense(gpu);
    // (kernel of floats and of halves, columns of a tile, channels of a tile, tiles of a workgroup)
    let (kernels, wide, channels, per_group): ([&Kernel<WeightParams, 2, 1>; 2], _, _, _) = match dense {
        Dense::Broadcast if kg > 16 => ([&kw::CONV_WEIGHT_S8_32_1, &kw::CONV_WEIGHT_S8_32_1_HALF], 8, 32, 1),
        Dense::Broadcast if columns > 8 => ([&kw::CONV_WEIGHT_S8_16_2, &kw::CONV_WEIGHT_S8_16_2_HALF], 16, 16, 1),
        Dense::Broadcast => ([&kw::CONV_WEIGHT_S8_16_1, &kw::CONV_WEIGHT_S8_16_1_HALF], 8, 16, 1),
        Dense::Tiled if kg <= 16 => ([&kw::CONV_WEIGHT_TILE_16_128, &kw::CONV_WEIGHT_TILE_16_128_HALF], 32, 16, 1),
        Dense::Tiled if kg <= 32 => ([&kw::CONV_WEIGHT_TILE_32_64, &kw::CONV_WEIGHT_TILE_32_64_HALF], 16, 32, 1),
        Dense::Tiled => ([&kw::CONV_WEIGHT_TILE_64_64, &kw::CONV_WEIGHT_TILE_64_64_HALF], 16, 64, 1),
        Dense::Portable => ([&kw::CONV_WEIGHT_P, &kw::CONV_WEIGHT_P_HALF], 2, 8, 32),
    };
    let kernel = kernels[usize::from(g.halves)];
    let (jtiles, ktiles) = (columns.div_ceil(wide), kg.div_ceil(channels));
    let image_rows = g.n * g.out[0];
    let (rows, splits) = if dense == Dense::Tiled {
        // As many splits as fill the card, none shorter than a few steps of sixteen pixels.
        let pixels = image_rows * g.out[1];
        let wanted = (2 * FILL).div_ceil(g.groups * jtiles * ktiles).max(pixels.div_ceil(4 * SPLIT_PIXELS));
        let rows = pixels.div_ceil(wanted).next_multiple_of(16).max(64);
        (rows, pixels.div_ceil(rows))
    } else {
        let rows = (SPLIT_PIXELS / g.out[1]).clamp(1, image_rows);
        (rows, image_rows.div_ceil(rows))
    };
    let tiles = splits * g.groups * jtiles * ktiles;
    let packed = g.k * columns * 4;
    let sums = if cg.is_multiple_of(4) { dw.clone() } else { gpu.alloc(4 * packed as u64, "conv")? };
    let parts = if splits == 1 { sums.clone() } else { gpu.alloc(4 * (splits * packed) as u64, "conv partial sums")? };
    let (grid, gx) = gpu.grid(tiles.div_ceil(per_group) as u64)?;
    let params = WeightParams {
        n: g.n as u32,
        h: g.size[0] as u32,
        w: g.size[1] as u32,
        cq: cq as u32,
        oh: g.out[0] as u32,
        ow: g.out[1] as u32,
        kq: kq as u32,
        kg: kg as u32,
        r: g.taps[0] as u32,
        s: g.taps[1] as u32,
        groups: g.groups as u32,
        sy: g.stride[0] as u32,
        sx: g.stride[1] as u32,
        py: g.padding[0] as u32,
        px: g.padding[1] as u32,
        dy: g.dilation[0] as u32,
        dx: g.dilation[1] as u32,
        gx,
        jtiles: jtiles as u32,
        ktiles: ktiles as u32,
        tiles: tiles as u32,
        rows: rows as u32,
    };
    gpu.note_flops(g.flops());
    gpu.dispatch(kernel, [&x, &dy], [&parts], params, grid)?;
    if splits > 1 {
        let params = PackParams { length: splits as u32, ..elements(packed) };
        rearrange(gpu, &pack::CONV_SUM, &parts, &sums, params)?;
    }
    cut(gpu, &sums, dw, g.k * g.rs(), cg)
}

/// Parameters of a rearrangement with `n` results.
fn elements(n: usize) -> PackParams {
    PackParams { n: n as u32, n4: n.div_ceil(4) as u32, ..PackParams::default() }
}

fn rearrange(gpu: &Gpu, kernel: &Kernel<PackParams, 1, 1>, x: &Storage, y: &Storage, params: PackParams) -> Result<()> {
    let (grid, gx) = gpu.grid(u64::from(params.n4).div_ceil(256))?;
    gpu.dispatch(kernel, [x], [y], PackParams { gx, ..params }, grid)
}

/// `x [rows][from]` with its rows padded to a multiple of four; `x` itself where they are one.
fn pad(gpu: &Gpu, x: &Storage, rows: usize, from: usize, halves: bool) -> Result<Storage> {
    if from.is_multiple_of(4) {
        return Ok(x.clone());
    }
    let to = from.next_multiple_of(4);
    let (kernel, size) = if halves { (&pack::CONV_REPACK_HALF, 2) } else { (&pack::CONV_REPACK, 4) };
    let out = gpu.alloc(size * (rows * to) as u64, "conv padded")?;
    let params = PackParams { length: from as u32, to: to as u32, ..elements(rows * to) };
    rearrange(gpu, kernel, x, &out, params)?;
    Ok(out)
}

/// `x` as floats, for the depthwise kernels: they have no variant that reads halves.
fn floats(gpu: &Gpu, g: &Conv, x: &Storage) -> Result<Storage> {
    if !g.halves {
        return Ok(x.clone());
    }
    let n = x.bytes() / 2;
    let out = gpu.alloc(4 * n, "conv")?;
    cast(gpu, Cast::F16ToF32, x, &out, n as usize)?;
    Ok(out)
}

/// The opposite of [`pad`]: `y [rows][to]` from rows padded to a multiple of four. Nothing to do where `to` is one.
fn cut(gpu: &Gpu, whole: &Storage, y: &Storage, rows: usize, to: usize) -> Result<()> {
    if to.is_multiple_of(4) {
        return Ok(());
    }
    // `from` exceeds `to`, so every element of the result is read.
    let params = PackParams { length: to.next_multiple_of(4) as u32, to: to as u32, ..elements(rows * to) };
    rearrange(gpu, &pack::CONV_REPACK, whole, y, params)
}
