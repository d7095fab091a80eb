//! Attention within the windows of a map.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::window::{self as f, WindowParams};
use shadegrad_shaders::window_grad::{self as b, WindowParams as GradParams, WindowTableParams};

use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// Depths of a head that have kernels; the order is that of the tables.
const DEPTHS: [usize; 5] = [8, 12, 16, 24, 32];

/// By depth: subgroups of eight, else.
static FORWARD: [[&Kernel<WindowParams, 2, 1>; 2]; 5] = [
    [&f::WINDOW_FORWARD_8_S8, &f::WINDOW_FORWARD_8_WG],
    [&f::WINDOW_FORWARD_12_S8, &f::WINDOW_FORWARD_12_WG],
    [&f::WINDOW_FORWARD_16_S8, &f::WINDOW_FORWARD_16_WG],
    [&f::WINDOW_FORWARD_24_S8, &f::WINDOW_FORWARD_24_WG],
    [&f::WINDOW_FORWARD_32_S8, &f::WINDOW_FORWARD_32_WG],
];

/// By depth and most tokens of a window (16, 64): subgroups of eight, else.
static BACKWARD: [[[&Kernel<GradParams, 3, 2>; 2]; 2]; 5] = [
    [
        [&b::WINDOW_BACKWARD_8_S8_16, &b::WINDOW_BACKWARD_8_WG_16],
        [&b::WINDOW_BACKWARD_8_S8_64, &b::WINDOW_BACKWARD_8_WG_64],
    ],
    [
        [&b::WINDOW_BACKWARD_12_S8_16, &b::WINDOW_BACKWARD_12_WG_16],
        [&b::WINDOW_BACKWARD_12_S8_64, &b::WINDOW_BACKWARD_12_WG_64],
    ],
    [
        [&b::WINDOW_BACKWARD_16_S8_16, &b::WINDOW_BACKWARD_16_WG_16],
        [&b::WINDOW_BACKWARD_16_S8_64, &b::WINDOW_BACKWARD_16_WG_64],
    ],
    [
        [&b::WINDOW_BACKWARD_24_S8_16, &b::WINDOW_BACKWARD_24_WG_16],
        [&b::WINDOW_BACKWARD_24_S8_64, &b::WINDOW_BACKWARD_24_WG_64],
    ],
    [
        [&b::WINDOW_BACKWARD_32_S8_16, &b::WINDOW_BACKWARD_32_WG_16],
        [&b::WINDOW_BACKWARD_32_S8_64, &b::WINDOW_BACKWARD_32_WG_64],
    ],
];

/// Tokens of a window that the smaller backward kernels take, and the larger.
const SMALL: usize = 16;
const LARGE: usize = 64;

/// Windows of a map of queries, keys and values `[batch][height][width][3][heads][depth]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::window::Windows;
/// // Windows of 7 x 7 on maps of 56 x 56, moved by three.
/// let scale = 32f32.sqrt().recip();
/// let windows = Windows { batch: 8, size: [56, 56], heads: 3, depth: 32, side: 7, shift: 3, scale };
/// assert!(windows.size.iter().all(|n| n.is_multiple_of(windows.side)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Images.
    pub batch: usize,
    /// Height and width of the map, multiples of `side`.
    pub size: [usize; 2],
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub depth: usize,
    /// Side of a window.
    pub side: usize,
    /// By how much windows are moved down and right, below `side`.
    pub shift: usize,
    /// Factor of the scores.
    pub scale: f32,
}

impl Windows {
    /// Windows of all images.
    fn count(&self) -> usize {
        self.batch * self.size[0] * self.size[1] / self.tokens()
    }

    fn tokens(&self) -> usize {
        self.side * self.side
    }

    fn flops_of_a_product(&self) -> f64 {
        (2 * self.count() * self.heads * self.tokens().pow(2) * self.depth) as f64
    }

    /// Whether there are kernels for these on `gpu`, forward and backward.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let windows = window::Windows { batch: 1, size: [8, 8], heads: 1, depth: 8, side: 4, shift: 0, scale: 1.0 };
    /// assert!(windows.have_kernels(&gpu));
    /// assert!(!window::Windows { depth: 10, ..windows }.have_kernels(&gpu));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn have_kernels(&self, gpu: &Gpu) -> bool {
        let bytes = if self.tokens() <= SMALL { 4 * 8 * SMALL * SMALL } else { 8 * LARGE * LARGE };
        DEPTHS.contains(&self.depth) && self.tokens() <= LARGE && bytes <= gpu.caps().workgroup_bytes as usize
    }

    /// Parts over which [`backward`] adds up the gradients of the scores.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let windows = window::Windows { batch: 1, size: [8, 8], heads: 2, depth: 8, side: 2, shift: 0, scale: 1.0 };
    /// let parts = windows.parts(&gpu);
    /// let sums = gpu.alloc((4 * parts * windows.heads * 2usize.pow(4)) as u64, "sums")?;
    /// assert!(parts >= 1 && sums.bytes() >= 4 * 2 * 16);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn parts(&self, gpu: &Gpu) -> usize {
        // Enough workgroups to fill the device, few enough parts to be added up in no time.
        let groups = if gpu.caps().class == Class::Software { 32 } else { 1024 };
        let teams = self.teams(gpu);
        (groups / self.heads).max(1).min(self.count().div_ceil(teams)) * teams
    }

    /// Windows that a workgroup of the backward pass works on at a time.
    fn teams(&self, gpu: &Gpu) -> usize {
        if subgroups_of_eight(gpu) || self.tokens() > SMALL { 1 } else { 4 }
    }

    fn row(&self) -> usize {
        // Depths that have no kernels are refused before: see `have_kernels`.
        DEPTHS.iter().position(|&d| d == self.depth).unwrap_or(0)
    }
}

fn subgroups_of_eight(gpu: &Gpu) -> bool {
    gpu.caps().subgroup == Some(8)
}

/// `y = softmax(scale q k^T + bias) v` within each window, `[batch][height][width][heads][depth]`, for windows that
/// [have kernels](Windows::have_kernels). `table` holds the bias, `[(2 side - 1)^2][heads]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::window::{Windows, forward};
/// let windows = Windows { batch: 1, size: [2, 2], heads: 1, depth: 8, side: 2, shift: 0, scale: 1.0 };
/// // Queries and keys of 0 attend to all four tokens alike; the values are 0, 1, 2, 3.
/// let map: Vec<f32> = (0..4).flat_map(|t| [[0.0; 8], [0.0; 8], [t as f32; 8]]).flatten().collect();
/// let (qkv, y) = (gpu.alloc_from(&map, "qkv")?, gpu.alloc(4 * 4 * 8, "y")?);
/// forward(&gpu, (&qkv, None), &windows, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.5; 4 * 8]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(gpu: &Gpu, (qkv, table): (&Storage, Option<&Storage>), windows: &Windows, y: &Storage) -> Result<()> {
    let shuffles = subgroups_of_eight(gpu);
    let all = windows.count() * windows.heads;
    // Queries of a window in one workgroup, or any 64 queries.
    let blocks = windows.tokens().div_ceil(16);
    let groups = if shuffles { all * blocks } else { (all * windows.tokens()).div_ceil(64) };
    let (grid, gx) = gpu.grid(groups as u64)?;
    let params = WindowParams {
        windows: windows.count() as u32,
        heads: windows.heads as u32,
        side: windows.side as u32,
        shift: windows.shift as u32,
        height: windows.size[0] as u32,
        width: windows.size[1] as u32,
        quads: (windows.heads * windows.depth / 4) as u32,
        blocks: blocks as u32,
        gx,
        flags: u32::from(table.is_some()),
        scale: windows.scale,
        ..WindowParams::default()
    };
    gpu.note_flops(2.0 * windows.flops_of_a_product());
    let kernel = FORWARD[windows.row()][usize::from(!shuffles)];
    gpu.dispatch(kernel, [qkv, table.unwrap_or(qkv)], [y], params, grid)
}

/// Gradient `dqkv` of the map from that of [`forward`]'s result, `dy`. `sums`, where given, receives what [`table_grad`]
/// takes after adding up its parts: `[parts][heads][side^4]`, with [`Windows::parts`] parts.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::window::{Windows, backward};
/// let windows = Windows { batch: 1, size: [2, 2], heads: 1, depth: 8, side: 2, shift: 0, scale: 1.0 };
/// let qkv = gpu.alloc_from(&[0.0f32; 4 * 24], "qkv")?; // four tokens that attend to all alike
/// let (dy, dqkv) = (gpu.alloc_from(&[1.0f32; 4 * 8], "dy")?, gpu.alloc(4 * 4 * 24, "dqkv")?);
/// backward(&gpu, (&qkv, None, &dy), &windows, (&dqkv, None))?;
/// let of_a_token = &gpu.read_as::<f32>(&dqkv)?[..24];
/// assert_eq!(of_a_token[..16], [0.0; 16]); // query and key
/// assert_eq!(of_a_token[16..], [1.0; 8]); // value: a quarter of four results
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn backward(
    gpu: &Gpu,
    (qkv, table, dy): (&Storage, Option<&Storage>, &Storage),
    windows: &Windows,
    (dqkv, sums): (&Storage, Option<&Storage>),
) -> Result<()> {
    let shuffles = subgroups_of_eight(gpu);
    let parts = windows.parts(gpu);
    let (grid, gx) = gpu.grid((parts / windows.teams(gpu) * windows.heads) as u64)?;
    let params = GradParams {
        windows: windows.count() as u32,
        heads: windows.heads as u32,
        side: windows.side as u32,
        shift: windows.shift as u32,
        height: windows.size[0] as u32,
        width: windows.size[1] as u32,
        quads: (windows.heads * windows.depth / 4) as u32,
        parts: parts as u32,
        rounds: windows.count().div_ceil(parts) as u32,
        gx,
        flags: u32::from(table.is_some()) | u32::from(sums.is_some()) << 1,
        scale: windows.scale,
        ..GradParams::default()
    };
    gpu.note_flops(5.0 * windows.flops_of_a_product());
    let kernel = BACKWARD[windows.row()][usize::from(windows.tokens() > SMALL)][usize::from(!shuffles)];
    // What is not written still needs a buffer of its own.
    let none = if sums.is_none() { Some(gpu.alloc(16, "window_attention")?) } else { None };
    let sums = sums.or(none.as_ref()).unwrap_or(dqkv);
    gpu.dispatch(kernel, [qkv, table.unwrap_or(qkv), dy], [dqkv, sums], params, grid)
}

/// Gradient `[(2 side - 1)^2][heads]` of the table from the sums of [`backward`], `[heads][side^4]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // Windows of 2 x 2: 16 pairs of tokens, 9 distances.
/// let (sums, y) = (gpu.alloc_from(&[1.0f32; 16], "sums")?, gpu.alloc(4 * 9, "y")?);
/// window::table_grad(&gpu, &sums, 1, 2, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn table_grad(gpu: &Gpu, sums: &Storage, heads: usize, side: usize, y: &Storage) -> Result<()> {
    let count = (2 * side - 1).pow(2) * heads;
    let (grid, gx) = gpu.grid(count.div_ceil(64) as u64)?;
    let params = WindowTableParams { count: count as u32, heads: heads as u32, side: side as u32, gx };
    gpu.dispatch(&b::WINDOW_TABLE, [sums], [y], params, grid)
}
