//! How many invocations share a row in the kernels that import `team.wgsl`.

use crate::{Class, Gpu, Result};

/// A team's mode; the order is that of the tables of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Team {
    /// One invocation a row.
    T1,
    /// A subgroup of eight.
    S8,
    /// A subgroup of 32.
    S32,
    /// A workgroup of 64.
    W64,
    /// A workgroup of 256.
    W256,
}

/// Elements of a row that an invocation may hold, by kernel.
const HELD: [usize; 4] = [1, 2, 4, 8];

/// Floats of a row up to which one invocation handles it alone, if there are rows enough to keep the others busy.
const ALONE: usize = 16;

impl Team {
    /// The mode for `rows` rows of `len` floats.
    pub(crate) fn pick(gpu: &Gpu, rows: usize, len: usize) -> Self {
        let caps = gpu.caps();
        match (caps.class, caps.subgroup) {
            _ if len <= ALONE && rows >= 32 => Self::T1,
            (_, Some(8)) => Self::S8,
            // Workgroup memory costs a software driver more than idle invocations do.
            (Class::Software, None) if rows >= 128 || len <= 64 => Self::T1,
            (_, Some(32)) if len <= 4096 => Self::S32,
            _ if len <= 512 => Self::W64,
            _ => Self::W256,
        }
    }

    /// Picks from a table of two rows of kernels (scalars, then `vec4`s), each ordered by mode.
    pub(crate) fn of<K: Copy>(self, table: &[[K; 5]; 2], vector: bool) -> K {
        table[usize::from(vector)][self as usize]
    }

    /// Picks, from a table by subgroup size (8, 32) and elements held, the kernel that keeps a row of `len` floats in
    /// registers, if there is one.
    pub(crate) fn held<K: Copy>(self, table: &[[K; 4]; 2], len: usize) -> Option<K> {
        let (kernels, size) = match self {
            Self::S8 => (&table[0], 8),
            Self::S32 => (&table[1], 32),
            _ => return None,
        };
        let fits = HELD.iter().position(|n| len.div_ceil(4 * size) <= *n)?;
        len.is_multiple_of(4).then_some(kernels[fits])
    }

    /// The grid for `rows` rows, and its width.
    pub(crate) fn grid(self, gpu: &Gpu, rows: usize) -> Result<([u32; 3], u32)> {
        let per_group = match self {
            Self::T1 => 64,
            Self::S32 => 4,
            Self::S8 | Self::W64 | Self::W256 => 1,
        };
        gpu.grid((rows as u64).div_ceil(per_group))
    }
}
