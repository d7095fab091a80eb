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
    pub fn have_kernels(&self, gpu: &Gpu) -> bool {
        let bytes = if self.tokens() <= SMALL { 4 * 8 * SMALL * SMALL } else { 8 * LARGE * LARGE };
        DEPTHS.contains(&self.depth) && self.tokens() <= LARGE && bytes <= gpu.caps().workgroup_bytes as usize
    }

    /// Parts over which [`backward`] adds up the gradients of the scores.
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
/// # Errors
/// As [`Gpu::dispatch`].
pub fn table_grad(gpu: &Gpu, sums: &Storage, heads: usize, side: usize, y: &Storage) -> Result<()> {
    let count = (2 * side - 1).pow(2) * heads;
    let (grid, gx) = gpu.grid(count.div_ceil(64) as u64)?;
    let params = WindowTableParams { count: count as u32, heads: heads as u32, side: side as u32, gx };
    gpu.dispatch(&b::WINDOW_TABLE, [sums], [y], params, grid)
}
