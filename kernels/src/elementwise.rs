//! Element by element: unary functions, their fused gradients, binary functions with broadcasting.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::elementwise as k;
use shadegrad_shaders::elementwise::{
    BcastParams, BinaryParams, SelectBcastParams, SelectParams, TileParams, UnaryParams,
};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Elements of one workgroup in the kernels over `vec4`s.
const GROUP: u64 = 256 * 4;

/// Names one kernel per variant of an enum.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $kernels:ident: [$ty:ty; $n:literal], $($variant:ident => [$($k:ident),+]),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum $name { $($variant),+ }

        impl $name {
            fn $kernels(self) -> [&'static $ty; $n] {
                match self { $(Self::$variant => [$(&k::$k),+]),+ }
            }
        }
    };
}

table! {
    /// Functions of one tensor. `a` and `b` are the scalars of those that have any.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::elementwise::{Unary, unary};
    /// let x = gpu.alloc_from(&[-2.0f32, 0.5, 3.0], "x")?;
    /// let y = gpu.alloc(12, "y")?;
    /// unary(&gpu, Unary::Clamp, &x, &y, 3, -1.0, 1.0)?; // from a to b
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [-1.0, 0.5, 1.0]);
    /// unary(&gpu, Unary::MulScalar, &x, &y, 3, 2.0, 0.0)?; // times a
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [-4.0, 1.0, 6.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    Unary, kernels: [Kernel<UnaryParams, 1, 1>; 1],
    Neg => [UNARY_NEG], Abs => [UNARY_ABS], Exp => [UNARY_EXP], Log => [UNARY_LOG], Log1p => [UNARY_LOG1P],
    Expm1 => [UNARY_EXPM1], Sqrt => [UNARY_SQRT], Rsqrt => [UNARY_RSQRT], Recip => [UNARY_RECIP], Sin => [UNARY_SIN],
    Cos => [UNARY_COS], Tanh => [UNARY_TANH], Sigmoid => [UNARY_SIGMOID], Softplus => [UNARY_SOFTPLUS],
    Silu => [UNARY_SILU], Mish => [UNARY_MISH], Gelu => [UNARY_GELU], GeluTanh => [UNARY_GELU_TANH], Relu => [UNARY_RELU],
    LeakyRelu => [UNARY_LEAKY_RELU], Elu => [UNARY_ELU], Erf => [UNARY_ERF], Square => [UNARY_SQUARE],
    Sign => [UNARY_SIGN], Floor => [UNARY_FLOOR], Ceil => [UNARY_CEIL], Round => [UNARY_ROUND],
    Clamp => [UNARY_CLAMP], Powf => [UNARY_POWF], AddScalar => [UNARY_ADD_SCALAR], MulScalar => [UNARY_MUL_SCALAR],
    GtScalar => [UNARY_GT_SCALAR], GeScalar => [UNARY_GE_SCALAR], LtScalar => [UNARY_LT_SCALAR],
    LeScalar => [UNARY_LE_SCALAR], EqScalar => [UNARY_EQ_SCALAR], NeScalar => [UNARY_NE_SCALAR],
    IsNan => [UNARY_IS_NAN], IsFinite => [UNARY_IS_FINITE],
}

table! {
    /// Functions whose gradient `dy * f'(x)` is one kernel.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::elementwise::{UnaryGrad, unary_grad};
    /// let (x, dy) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc_from(&[1.0f32, 1.0, 10.0], "dy")?);
    /// let dx = gpu.alloc(12, "dx")?;
    /// unary_grad(&gpu, UnaryGrad::Square, &x, &dy, &dx, 3, 0.0, 0.0)?;
    /// assert_eq!(gpu.read_as::<f32>(&dx)?, [2.0, 4.0, 60.0]); // 2 x dy
    /// # Ok::<(), GpuError>(())
    /// ```
    UnaryGrad, kernels: [Kernel<UnaryParams, 2, 1>; 1],
    Tanh => [DUNARY_TANH], Sigmoid => [DUNARY_SIGMOID], Softplus => [DUNARY_SOFTPLUS], Silu => [DUNARY_SILU],
    Mish => [DUNARY_MISH],
    Gelu => [DUNARY_GELU], GeluTanh => [DUNARY_GELU_TANH], Relu => [DUNARY_RELU], LeakyRelu => [DUNARY_LEAKY_RELU],
    Elu => [DUNARY_ELU], Square => [DUNARY_SQUARE], Abs => [DUNARY_ABS], Clamp => [DUNARY_CLAMP],
}

table! {
    /// Functions of two tensors; the comparisons give 0 or 1. Kernels: full-full, full-scalar, full-row, scalar-full,
    /// row-full.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::elementwise::{Binary, binary};
    /// let (x, limit) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc_from(&[2.0f32], "limit")?);
    /// let z = gpu.alloc(12, "z")?;
    /// binary(&gpu, Binary::Maximum, (&x, &[3]), (&limit, &[]), &z, &[3])?;
    /// assert_eq!(gpu.read_as::<f32>(&z)?, [2.0, 2.0, 3.0]);
    /// binary(&gpu, Binary::Lt, (&x, &[3]), (&limit, &[]), &z, &[3])?;
    /// assert_eq!(gpu.read_as::<f32>(&z)?, [1.0, 0.0, 0.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    Binary, kernels: [Kernel<BinaryParams, 2, 1>; 5],
    Add => [BINARY_ADD_VV, BINARY_ADD_VS, BINARY_ADD_VR, BINARY_ADD_SV, BINARY_ADD_RV],
    Sub => [BINARY_SUB_VV, BINARY_SUB_VS, BINARY_SUB_VR, BINARY_SUB_SV, BINARY_SUB_RV],
    Mul => [BINARY_MUL_VV, BINARY_MUL_VS, BINARY_MUL_VR, BINARY_MUL_SV, BINARY_MUL_RV],
    Div => [BINARY_DIV_VV, BINARY_DIV_VS, BINARY_DIV_VR, BINARY_DIV_SV, BINARY_DIV_RV],
    Pow => [BINARY_POW_VV, BINARY_POW_VS, BINARY_POW_VR, BINARY_POW_SV, BINARY_POW_RV],
    Maximum => [BINARY_MAXIMUM_VV, BINARY_MAXIMUM_VS, BINARY_MAXIMUM_VR, BINARY_MAXIMUM_SV, BINARY_MAXIMUM_RV],
    Minimum => [BINARY_MINIMUM_VV, BINARY_MINIMUM_VS, BINARY_MINIMUM_VR, BINARY_MINIMUM_SV, BINARY_MINIMUM_RV],
    Gt => [BINARY_GT_VV, BINARY_GT_VS, BINARY_GT_VR, BINARY_GT_SV, BINARY_GT_RV],
    Ge => [BINARY_GE_VV, BINARY_GE_VS, BINARY_GE_VR, BINARY_GE_SV, BINARY_GE_RV],
    Lt => [BINARY_LT_VV, BINARY_LT_VS, BINARY_LT_VR, BINARY_LT_SV, BINARY_LT_RV],
    Le => [BINARY_LE_VV, BINARY_LE_VS, BINARY_LE_VR, BINARY_LE_SV, BINARY_LE_RV],
    Eq => [BINARY_EQ_VV, BINARY_EQ_VS, BINARY_EQ_VR, BINARY_EQ_SV, BINARY_EQ_RV],
    Ne => [BINARY_NE_VV, BINARY_NE_VS, BINARY_NE_VR, BINARY_NE_SV, BINARY_NE_RV],
}

impl Binary {
    fn broadcast(self) -> &'static Kernel<BcastParams, 2, 1> {
        match self {
            Self::Add => &k::BCAST_ADD,
            Self::Sub => &k::BCAST_SUB,
            Self::Mul => &k::BCAST_MUL,
            Self::Div => &k::BCAST_DIV,
            Self::Pow => &k::BCAST_POW,
            Self::Maximum => &k::BCAST_MAXIMUM,
            Self::Minimum => &k::BCAST_MINIMUM,
            Self::Gt => &k::BCAST_GT,
            Self::Ge => &k::BCAST_GE,
            Self::Lt => &k::BCAST_LT,
            Self::Le => &k::BCAST_LE,
            Self::Eq => &k::BCAST_EQ,
            Self::Ne => &k::BCAST_NE,
        }
    }

    fn tile(self) -> &'static Kernel<TileParams, 2, 1> {
        match self {
            Self::Add => &k::TILE_ADD,
            Self::Sub => &k::TILE_SUB,
            Self::Mul => &k::TILE_MUL,
            Self::Div => &k::TILE_DIV,
            Self::Pow => &k::TILE_POW,
            Self::Maximum => &k::TILE_MAXIMUM,
            Self::Minimum => &k::TILE_MINIMUM,
            Self::Gt => &k::TILE_GT,
            Self::Ge => &k::TILE_GE,
            Self::Lt => &k::TILE_LT,
            Self::Le => &k::TILE_LE,
            Self::Eq => &k::TILE_EQ,
            Self::Ne => &k::TILE_NE,
        }
    }
}

/// `y = f(x)` over `n` floats.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::elementwise::{Unary, unary};
/// let (x, y) = (gpu.alloc_from(&[-1.0f32, 2.0, -3.0], "x")?, gpu.alloc(12, "y")?);
/// unary(&gpu, Unary::Relu, &x, &y, 3, 0.0, 0.0)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 2.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unary(gpu: &Gpu, f: Unary, x: &Storage, y: &Storage, n: usize, a: f32, b: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(f.kernels()[0], [x], [y], UnaryParams { n4: n.div_ceil(4) as u32, gx, a, b }, grid)
}

/// `dx = dy * f'(x)` over `n` floats.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::elementwise::{UnaryGrad, unary_grad};
/// let (x, dy) = (gpu.alloc_from(&[-1.0f32, 2.0], "x")?, gpu.alloc_from(&[5.0f32, 5.0], "dy")?);
/// let dx = gpu.alloc(8, "dx")?;
/// unary_grad(&gpu, UnaryGrad::LeakyRelu, &x, &dy, &dx, 2, 0.5, 0.0)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [2.5, 5.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unary_grad(
    gpu: &Gpu,
    f: UnaryGrad,
    x: &Storage,
    dy: &Storage,
    dx: &Storage,
    n: usize,
    a: f32,
    b: f32,
) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(f.kernels()[0], [x, dy], [dx], UnaryParams { n4: n.div_ceil(4) as u32, gx, a, b }, grid)
}

/// How one operand of [`binary`] lies under the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Full,
    Scalar,
    /// Repeated over the leading dimensions; its length.
    Row(usize),
    Other,
}

/// How `shape` (numpy-aligned to the right) lies under `out`.
fn fit(shape: &[usize], out: &[usize]) -> Fit {
    let n: usize = shape.iter().product();
    let trimmed = &shape[shape.iter().take_while(|&&d| d == 1).count()..];
    if n == out.iter().product() {
        Fit::Full
    } else if n == 1 {
        Fit::Scalar
    } else if out.ends_with(trimmed) && n.is_multiple_of(4) {
        Fit::Row(n)
    } else {
        Fit::Other
    }
}

/// `z = f(x, y)` with numpy's broadcasting: `out` must be the broadcast of both shapes, at most eight dimensions.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::elementwise::{Binary, binary};
/// let x = gpu.alloc_from(&[10.0f32, 20.0], "x")?; // [2, 1]
/// let y = gpu.alloc_from(&[1.0f32, 2.0, 3.0], "y")?; // [3]
/// let z = gpu.alloc(4 * 6, "z")?;
/// binary(&gpu, Binary::Add, (&x, &[2, 1]), (&y, &[3]), &z, &[2, 3])?;
/// assert_eq!(gpu.read_as::<f32>(&z)?, [11.0, 12.0, 13.0, 21.0, 22.0, 23.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn binary(
    gpu: &Gpu,
    f: Binary,
    (x, xshape): (&Storage, &[usize]),
    (y, yshape): (&Storage, &[usize]),
    z: &Storage,
    out: &[usize],
) -> Result<()> {
    let n: usize = out.iter().product();
    let (fast, row) = match (fit(xshape, out), fit(yshape, out)) {
        (Fit::Full, Fit::Full) => (Some(0), 0),
        (Fit::Full, Fit::Scalar) => (Some(1), 0),
        (Fit::Full, Fit::Row(r)) => (Some(2), r),
        (Fit::Scalar, Fit::Full) => (Some(3), 0),
        (Fit::Row(r), Fit::Full) => (Some(4), r),
        _ => (None, 0),
    };
    // Rows repeated by their index alone cost a division a vector: blocks of rows come first.
    let joined = joined(out, [xshape, yshape]);
    if (fast.is_none() || row > 0)
        && let Some((params, grid)) = tile(gpu, &joined)
    {
        return gpu.dispatch(f.tile(), [x, y], [z], params, grid);
    }
    if let Some(i) = fast {
        let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
        let params = BinaryParams { n4: n.div_ceil(4) as u32, gx, row4: (row / 4) as u32 };
        return gpu.dispatch(f.kernels()[i], [x, y], [z], params, grid);
    }
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let (mut dims, mut xs, mut ys) = ([1; 8], [0; 8], [0; 8]);
    for (i, &(d, [x, y])) in joined.iter().enumerate() {
        (dims[i], xs[i], ys[i]) = (d, x, y);
    }
    let half = |v: [u32; 8], i: usize| [v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]];
    let params = BcastParams {
        n: n as u32,
        gx,
        rank: joined.len() as u32,
        dims0: half(dims, 0),
        dims1: half(dims, 1),
        xs0: half(xs, 0),
        xs1: half(xs, 1),
        ys0: half(ys, 0),
        ys1: half(ys, 1),
        ..BcastParams::default()
    };
    gpu.dispatch(f.broadcast(), [x, y], [z], params, grid)
}

/// Copies `x` over `out`, which its shape must broadcast to, by joined vectors; false, with nothing done, where that
/// takes another kernel.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let row = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "row")?;
/// let z = gpu.alloc(4 * 8, "z")?;
/// assert!(elementwise::broadcast(&gpu, (&row, &[4]), &z, &[2, 4])?);
/// assert_eq!(gpu.read_as::<f32>(&z)?, [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
/// assert!(!elementwise::broadcast(&gpu, (&row, &[3]), &z, &[2, 3])?); // no vectors of four
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn broadcast(gpu: &Gpu, (x, xshape): (&Storage, &[usize]), z: &Storage, out: &[usize]) -> Result<bool> {
    let dims: Vec<_> = joined(out, [xshape]).into_iter().map(|(d, [x])| (d, [x, 0])).collect();
    let Some((params, grid)) = tile(gpu, &dims) else { return Ok(false) };
    gpu.dispatch(&k::TILE_FIRST, [x], [z], params, grid)?;
    Ok(true)
}

/// The parameters of a tile kernel over up to four dimensions as [`joined`] gives them, if it takes them.
fn tile(gpu: &Gpu, dims: &[(u32, [u32; 2])]) -> Option<(TileParams, [u32; 3])> {
    let at = |i: usize| dims.get(i).copied().unwrap_or((1, [0; 2]));
    let [(inner, [xv, yv]), (rows, row), (mid, mids), (outer, outers)] = [at(0), at(1), at(2), at(3)];
    let groups = u64::from(inner / 4 * rows.div_ceil(8)).div_ceil(256);
    let limit = u64::from(gpu.caps().max_grid);
    if dims.len() > 4 || !inner.is_multiple_of(4) || groups > limit || u64::from(mid) * u64::from(outer) > limit {
        return None;
    }
    // The inner stride is 1 or 0. Vectors are counted in fours, which divide all strides of a tensor that has them.
    let strides = |k: usize, v: u32| [row[k], mids[k], outers[k]].map(|s| if v == 1 { s / 4 } else { s });
    let ([xrow, xmid, xouter], [yrow, ymid, youter]) = (strides(0, xv), strides(1, yv));
    let params = TileParams { inner4: inner / 4, rows, mid, xv, yv, xrow, xmid, xouter, yrow, ymid, youter };
    Some((params, [groups as u32, 1, mid * outer]))
}

/// Row-major strides of `shape`, last dimension first, 0 where the dimension is repeated.
fn broadcast_strides(shape: &[usize]) -> [u32; 8] {
    let mut strides = [0; 8];
    let mut step = 1;
    for (slot, &d) in strides.iter_mut().zip(shape.iter().rev()) {
        *slot = if d == 1 { 0 } else { step };
        step *= d as u32;
    }
    strides
}

/// Dimensions of `shape`, last first, neighbours joined wherever all of `operands` (numpy-aligned to the right) lie alike
/// under them: length, and each operand's stride (0 where it is repeated).
fn joined<const K: usize>(shape: &[usize], operands: [&[usize]; K]) -> Vec<(u32, [u32; K])> {
    let strides = operands.map(broadcast_strides);
    let mut dims: Vec<(u32, [u32; K])> = Vec::with_capacity(shape.len());
    for (i, &d) in shape.iter().rev().enumerate().filter(|(_, d)| **d != 1) {
        let s = strides.map(|s| s[i]);
        match dims.last_mut() {
            Some((n, before)) if (0..K).all(|k| s[k] == before[k] * *n) => *n *= d as u32,
            _ => dims.push((d as u32, s)),
        }
    }
    dims
}

/// Whether [`select`] takes these shapes: too many dimensions that no two operands share must be broadcast before.
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::elementwise::select_fits;
/// assert!(select_fits([&[2, 3], &[1, 3], &[2, 1]], &[2, 3]));
/// // Repeated along every other one of seven dimensions, no two of which are one.
/// let (odd, even): ([usize; 7], [usize; 7]) = ([2, 1, 2, 1, 2, 1, 2], [1, 2, 1, 2, 1, 2, 1]);
/// assert!(!select_fits([&odd, &even, &even], &[2; 7]));
/// ```
pub fn select_fits(shapes: [&[usize]; 3], out: &[usize]) -> bool {
    joined(out, shapes).len() <= 6
}

/// `z = cond != 0 ? x : y` with numpy's broadcasting: `out` must be the broadcast of the three shapes, which
/// [`select_fits`] must accept.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let cond = gpu.alloc_from(&[1.0f32, 0.0, 2.0], "cond")?;
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc_from(&[-1.0f32], "y")?);
/// let z = gpu.alloc(12, "z")?;
/// elementwise::select(&gpu, [(&cond, &[3]), (&x, &[3]), (&y, &[1])], &z, &[3])?;
/// assert_eq!(gpu.read_as::<f32>(&z)?, [1.0, -1.0, 3.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn select(gpu: &Gpu, inputs: [(&Storage, &[usize]); 3], z: &Storage, out: &[usize]) -> Result<()> {
    let n: usize = out.iter().product();
    let storages = inputs.map(|i| i.0);
    if inputs.iter().all(|i| fit(i.1, out) == Fit::Full) {
        let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
        return gpu.dispatch(&k::SELECT_FULL, storages, [z], SelectParams { n4: n.div_ceil(4) as u32, gx }, grid);
    }
    let mut dims = joined(out, inputs.map(|i| i.1));
    dims.resize(6, (1, [0; 3]));
    let operand = |k: usize| [0, 1, 2, 3].map(|d| dims[d].1[k]);
    let [(d4, [c4, x4, y4]), (_, [c5, x5, y5])] = [dims[4], dims[5]];
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let params = SelectBcastParams {
        dims0: [0, 1, 2, 3].map(|d| dims[d].0),
        cs0: operand(0),
        xs0: operand(1),
        ys0: operand(2),
        dims_cs: [d4, 0, c4, c5],
        xs_ys: [x4, x5, y4, y5],
        n: n as u32,
        gx,
        ..Default::default()
    };
    gpu.dispatch(&k::SELECT_BCAST, storages, [z], params, grid)
}
