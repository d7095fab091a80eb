//! Fourier transforms of real images, as one-dimensional transforms of rows and of columns, and products of spectra.
//!
//! Images are `[N, H, W, C]`, spectra `[N, H, W / 2 + 1, C]` pairs of floats: the columns that symmetry does not already
//! give.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::fft as k;
use shadegrad_shaders::fft::{ComplexParams, FftParams};
use shadegrad_shaders::spectral::{self, SpectralParams};

use crate::memory::Storage;
use crate::{Class, Gpu, Result};

type Line = &'static Kernel<FftParams, 1, 1>;

/// Kernels made for lines of `n` points: real to half spectrum, back, and complex; each for one line and for four
/// neighbours at a time.
fn made_for(n: usize) -> Option<[(Line, Option<Line>); 3]> {
    Some(match n {
        2 => [
            (&k::FFT_REAL_2_1, Some(&k::FFT_REAL_2_4)),
            (&k::FFT_HALF_2_1, Some(&k::FFT_HALF_2_4)),
            (&k::FFT_FULL_2_1, Some(&k::FFT_FULL_2_4)),
        ],
        4 => [
            (&k::FFT_REAL_4_1, Some(&k::FFT_REAL_4_4)),
            (&k::FFT_HALF_4_1, Some(&k::FFT_HALF_4_4)),
            (&k::FFT_FULL_4_1, Some(&k::FFT_FULL_4_4)),
        ],
        7 => [
            (&k::FFT_REAL_7_1, Some(&k::FFT_REAL_7_4)),
            (&k::FFT_HALF_7_1, Some(&k::FFT_HALF_7_4)),
            (&k::FFT_FULL_7_1, Some(&k::FFT_FULL_7_4)),
        ],
        8 => [
            (&k::FFT_REAL_8_1, Some(&k::FFT_REAL_8_4)),
            (&k::FFT_HALF_8_1, Some(&k::FFT_HALF_8_4)),
            (&k::FFT_FULL_8_1, Some(&k::FFT_FULL_8_4)),
        ],
        14 => [
            (&k::FFT_REAL_14_1, Some(&k::FFT_REAL_14_4)),
            (&k::FFT_HALF_14_1, Some(&k::FFT_HALF_14_4)),
            (&k::FFT_FULL_14_1, Some(&k::FFT_FULL_14_4)),
        ],
        16 => [
            (&k::FFT_REAL_16_1, Some(&k::FFT_REAL_16_4)),
            (&k::FFT_HALF_16_1, Some(&k::FFT_HALF_16_4)),
            (&k::FFT_FULL_16_1, Some(&k::FFT_FULL_16_4)),
        ],
        28 => [
            (&k::FFT_REAL_28_1, Some(&k::FFT_REAL_28_4)),
            (&k::FFT_HALF_28_1, Some(&k::FFT_HALF_28_4)),
            (&k::FFT_FULL_28_1, Some(&k::FFT_FULL_28_4)),
        ],
        32 => [
            (&k::FFT_REAL_32_1, Some(&k::FFT_REAL_32_4)),
            (&k::FFT_HALF_32_1, Some(&k::FFT_HALF_32_4)),
            (&k::FFT_FULL_32_1, Some(&k::FFT_FULL_32_4)),
        ],
        56 => [(&k::FFT_REAL_56_1, None), (&k::FFT_HALF_56_1, None), (&k::FFT_FULL_56_1, None)],
        64 => [(&k::FFT_REAL_64_1, None), (&k::FFT_HALF_64_1, None), (&k::FFT_FULL_64_1, None)],
        _ => return None,
    })
}

/// What a pass over lines does.
#[derive(Clone, Copy)]
enum Kind {
    Real,
    Half,
    Full,
}

/// Transforms along the middle axis of `[outer][n][inner]`, for `n > 0` points.
fn pass(gpu: &Gpu, kind: Kind, x: &Storage, y: &Storage, dims: [usize; 3], scale: Scale, inverse: bool) -> Result<()> {
    let [outer, n, inner] = dims;
    let half = n / 2 + 1;
    let outs = if matches!(kind, Kind::Real) { half } else { n };
    // Four lines in registers pay where loads are dear; a graphics card would run out of registers beyond eight points.
    let four = inner.is_multiple_of(4) && (gpu.caps().class == Class::Software || n <= 8);
    let (kernel, v, lines): (Line, _, _) = match made_for(n).map(|all| all[kind as usize]) {
        Some((_, Some(kernel))) if four => (kernel, 4, outer * inner / 4),
        Some((kernel, _)) => (kernel, 1, outer * inner),
        None => {
            let any: [Line; 3] = [&k::FFT_ANY_REAL, &k::FFT_ANY_HALF, &k::FFT_ANY_FULL];
            (any[kind as usize], 1, outer * outs * inner)
        }
    };
    let (grid, gx) = gpu.grid((lines as u64).div_ceil(64))?;
    let params = FftParams {
        items: lines as u32,
        gx,
        inner: (inner / v) as u32,
        n: n as u32,
        edge: scale.edge,
        bulk: scale.bulk,
        inverse: inverse.into(),
    };
    gpu.dispatch(kernel, [x], [y], params, grid)
}

/// Factors of the first and (even width) middle column, and of the columns that also stand for their mirror image.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Of the columns without a mirror image.
    pub edge: f32,
    /// Of the others.
    pub bulk: f32,
}

/// `y[ky, kx] = s[kx] sum x[j, i] e^(-2 pi i (ky j / H + kx i / W))` of images `[N, H, W, C]`.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn real_to_half(gpu: &Gpu, x: &Storage, y: &Storage, [n, h, w, c]: [usize; 4], scale: Scale) -> Result<()> {
    if h == 1 {
        return pass(gpu, Kind::Real, x, y, [n, w, c], scale, false);
    }
    let rows = gpu.alloc(y.bytes(), "fft rows")?;
    pass(gpu, Kind::Real, x, &rows, [n * h, w, c], scale, false)?;
    pass(gpu, Kind::Full, &rows, y, [n, h, (w / 2 + 1) * c], scale, false)
}

/// `x[j, i] = sum s[kx] Re(y[ky, kx] e^(2 pi i (ky j / H + kx i / W)))`, images `[N, H, W, C]`: the adjoint of
/// [`real_to_half`] with the same factors.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn half_to_real(gpu: &Gpu, y: &Storage, x: &Storage, [n, h, w, c]: [usize; 4], scale: Scale) -> Result<()> {
    if h == 1 {
        return pass(gpu, Kind::Half, y, x, [n, w, c], scale, true);
    }
    let columns = gpu.alloc(y.bytes(), "fft columns")?;
    pass(gpu, Kind::Full, y, &columns, [n, h, (w / 2 + 1) * c], scale, true)?;
    pass(gpu, Kind::Half, &columns, x, [n * h, w, c], scale, true)
}

/// `z = x y`, or `x conj(y)`, of `n` complex numbers as pairs; `y` has `row` of them and repeats.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn complex_mul(gpu: &Gpu, x: &Storage, y: &Storage, z: &Storage, n: usize, row: usize, conj: bool) -> Result<()> {
    let four = row.is_multiple_of(2) || row == n;
    let per = if four { 2 } else { 1 };
    let items = n.div_ceil(per);
    let (grid, gx) = gpu.grid((items as u64).div_ceil(256))?;
    let sign = if conj { -1.0 } else { 1.0 };
    let params = ComplexParams { items: items as u32, gx, row: row.div_ceil(per) as u32, sign };
    gpu.dispatch(if four { &k::COMPLEX_MUL_4 } else { &k::COMPLEX_MUL_2 }, [x, y], [z], params, grid)
}

/// Whether [`spectral`] has a kernel for images of this height and width.
pub fn has_spectral([h, w]: [usize; 2]) -> bool {
    h == w && matches!(h, 7 | 8 | 14 | 16)
}

/// `y = irfft2(rfft2(x) w)`, or with `conj(w)`, in one kernel for the square images `[n, side, side, c]` that
/// [`has_spectral`] names.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn spectral(gpu: &Gpu, x: &Storage, w: &Storage, y: &Storage, [n, side, c]: [usize; 3], conj: bool) -> Result<()> {
    let kernels: [&'static Kernel<SpectralParams, 2, 1>; 2] = match side {
        7 => [&spectral::SPECTRAL_7_1, &spectral::SPECTRAL_7_4],
        8 => [&spectral::SPECTRAL_8_1, &spectral::SPECTRAL_8_4],
        14 => [&spectral::SPECTRAL_14_1, &spectral::SPECTRAL_14_4],
        _ => [&spectral::SPECTRAL_16_1, &spectral::SPECTRAL_16_4],
    };
    // Four planes at once only where loads are dear; a graphics card has no room for so much private memory.
    let v = if c.is_multiple_of(4) && gpu.caps().class == Class::Software { 4 } else { 1 };
    let items = n * c / v;
    let (grid, gx) = gpu.grid((items as u64).div_ceil(64))?;
    let params = SpectralParams { items: items as u32, gx, inner: (c / v) as u32, sign: if conj { -1.0 } else { 1.0 } };
    gpu.dispatch(kernels[usize::from(v == 4)], [x, w], [y], params, grid)
}
