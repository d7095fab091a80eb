//! Activations with a learned number, and those given by a table.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::parametric as k;
use shadegrad_shaders::parametric::{ParametricGradParams, ParametricParams, PiecewiseParams};

use crate::memory::Storage;
use crate::reduce::{Reduce, reduce};
use crate::{Gpu, Result};

const GROUP: u64 = 256;
/// Most workgroups of [`backward`], and so the most partial sums.
const PARTIALS: usize = 1024;
/// Fewest vec4s worth a workgroup of their own: eight an invocation.
const RUN: usize = 2048;

/// Functions `f(x, a)` of a tensor and one number `a` in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parametric {
    /// `max(x, 0) + a x exp(-x^2 / 2)`.
    Crrelu,
    /// `x` where positive, `a x` elsewhere.
    Prelu,
}

impl Parametric {
    fn kernels(self) -> (&'static Kernel<ParametricParams, 2, 1>, &'static Kernel<ParametricGradParams, 3, 2>) {
        match self {
            Self::Crrelu => (&k::PARAMETRIC_FORWARD_CRRELU, &k::PARAMETRIC_BACKWARD_CRRELU),
            Self::Prelu => (&k::PARAMETRIC_FORWARD_PRELU, &k::PARAMETRIC_BACKWARD_PRELU),
        }
    }
}

/// `y = f(x, a)` over `n` floats.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn forward(gpu: &Gpu, f: Parametric, x: &Storage, a: &Storage, y: &Storage, n: usize) -> Result<()> {
    let n4 = n.div_ceil(4);
    let (grid, gx) = gpu.grid((n4 as u64).div_ceil(GROUP))?;
    gpu.dispatch(f.kernels().0, [x, a], [y], ParametricParams { n4: n4 as u32, gx }, grid)
}

/// `dx = dy * df/dx` over `n` floats, and `da`, one float: the sum of `dy * df/da`, added up in a tree.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn backward(gpu: &Gpu, f: Parametric, [x, a, dy]: [&Storage; 3], [dx, da]: [&Storage; 2], n: usize) -> Result<()> {
    let n4 = n.div_ceil(4);
    let run4 = n4.div_ceil(PARTIALS).max(RUN).next_multiple_of(GROUP as usize);
    let groups = n4.div_ceil(run4);
    let params = ParametricGradParams { n: n as u32, n4: n4 as u32, run4: run4 as u32 };
    let grid = [groups as u32, 1, 1];
    if groups == 1 {
        return gpu.dispatch(f.kernels().1, [x, a, dy], [dx, da], params, grid);
    }
    let partial = gpu.alloc(4 * groups as u64, "partials")?;
    gpu.dispatch(f.kernels().1, [x, a, dy], [dx, &partial], params, grid)?;
    reduce(gpu, Reduce::Sum, &partial, da, [1, groups, 1], 1.0)
}

/// What [`piecewise`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piecewise {
    /// The function.
    Value,
    /// Its slope; at a knot that of the line to the right.
    Slope,
}

/// The straight lines between the points `(grid[i], values[i])`, `knots >= 2` of them with rising `grid`, at the `n`
/// floats of `x`. The first and the last line go on beyond the grid.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn piecewise(
    gpu: &Gpu,
    what: Piecewise,
    x: &Storage,
    (points, values, knots): (&Storage, &Storage, usize),
    y: &Storage,
    n: usize,
) -> Result<()> {
    let kernel = match what {
        Piecewise::Value => &k::PIECEWISE_VALUE,
        Piecewise::Slope => &k::PIECEWISE_SLOPE,
    };
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(kernel, [x, points, values], [y], PiecewiseParams { n: n as u32, gx, knots: knots as u32 }, grid)
}
