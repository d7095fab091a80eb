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
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::parametric::{Parametric, forward};
/// let (x, a) = (gpu.alloc_from(&[-1.0f32, 0.0, 2.0], "x")?, gpu.alloc_from(&[0.0f32], "a")?);
/// let y = gpu.alloc(12, "y")?;
/// for f in [Parametric::Crrelu, Parametric::Prelu] {
///     forward(&gpu, f, &x, &a, &y, 3)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 0.0, 2.0]); // with a = 0 either is ReLU
/// }
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::parametric::{Parametric, forward};
/// let (x, a) = (gpu.alloc_from(&[-4.0f32, 2.0], "x")?, gpu.alloc_from(&[0.25f32], "a")?);
/// let y = gpu.alloc(8, "y")?;
/// forward(&gpu, Parametric::Prelu, &x, &a, &y, 2)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [-1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::parametric::{Parametric, backward};
/// let (x, a) = (gpu.alloc_from(&[-4.0f32, 2.0], "x")?, gpu.alloc_from(&[0.25f32], "a")?);
/// let dy = gpu.alloc_from(&[1.0f32, 1.0], "dy")?;
/// let (dx, da) = (gpu.alloc(8, "dx")?, gpu.alloc(4, "da")?);
/// backward(&gpu, Parametric::Prelu, [&x, &a, &dy], [&dx, &da], 2)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.25, 1.0]);
/// assert_eq!(gpu.read_as::<f32>(&da)?, [-4.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::parametric::{Piecewise, piecewise};
/// // |x| by its values at -1, 0 and 1.
/// let points = gpu.alloc_from(&[-1.0f32, 0.0, 1.0], "points")?;
/// let values = gpu.alloc_from(&[1.0f32, 0.0, 1.0], "values")?;
/// let (x, y) = (gpu.alloc_from(&[-3.0f32, 0.0], "x")?, gpu.alloc(8, "y")?);
/// piecewise(&gpu, Piecewise::Value, &x, (&points, &values, 3), &y, 2)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0, 0.0]);
/// piecewise(&gpu, Piecewise::Slope, &x, (&points, &values, 3), &y, 2)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [-1.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::parametric::{Piecewise, piecewise};
/// let points = gpu.alloc_from(&[0.0f32, 1.0, 2.0], "points")?;
/// let values = gpu.alloc_from(&[0.0f32, 1.0, 0.0], "values")?; // a hat
/// let (x, y) = (gpu.alloc_from(&[0.5f32, 1.5, 3.0], "x")?, gpu.alloc(12, "y")?);
/// piecewise(&gpu, Piecewise::Value, &x, (&points, &values, 3), &y, 3)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.5, 0.5, -1.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
