//! Fourier transforms of real images, as one-dimensional transforms of rows and of columns, and products of spectra.
//!
//! Images are `[N, H, W, C]`, spectra `[N, H, W / 2 + 1, C]` pairs of floats: the columns that symmetry does not already
//! give.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::fft as k;
use shadegrad_shaders::fft::{ComplexParams, FftParams};
use shadegrad_shaders::spectral::{self, SpectralParams};

use crate::memory::Storage;
use crate::{Class, Gpu, GpuError, Result};

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

type Filter = &'static Kernel<FftParams, 2, 1>;

/// Kernels that filter columns of `n` points, for one line and for four neighbours at a time.
fn filter_for(n: usize) -> Option<(Filter, Option<Filter>)> {
    Some(match n {
        2 => (&k::FFT_FILTER_2_1, Some(&k::FFT_FILTER_2_4)),
        4 => (&k::FFT_FILTER_4_1, Some(&k::FFT_FILTER_4_4)),
        7 => (&k::FFT_FILTER_7_1, Some(&k::FFT_FILTER_7_4)),
        8 => (&k::FFT_FILTER_8_1, Some(&k::FFT_FILTER_8_4)),
        14 => (&k::FFT_FILTER_14_1, Some(&k::FFT_FILTER_14_4)),
        16 => (&k::FFT_FILTER_16_1, Some(&k::FFT_FILTER_16_4)),
        28 => (&k::FFT_FILTER_28_1, Some(&k::FFT_FILTER_28_4)),
        32 => (&k::FFT_FILTER_32_1, Some(&k::FFT_FILTER_32_4)),
        56 => (&k::FFT_FILTER_56_1, None),
        64 => (&k::FFT_FILTER_64_1, None),
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

/// Whether an invocation takes four lines of `n` points. Four in registers pay where loads are dear; a graphics card would
/// run out of registers beyond eight points.
fn takes_four(gpu: &Gpu, n: usize, inner: usize) -> bool {
    inner.is_multiple_of(4) && (gpu.caps().class == Class::Software || n <= 8)
}

/// Transforms along the middle axis of `[outer][n][inner]`, for `n > 0` points.
fn pass(gpu: &Gpu, kind: Kind, x: &Storage, y: &Storage, dims: [usize; 3], scale: Scale, inverse: bool) -> Result<()> {
    let [outer, n, inner] = dims;
    let half = n / 2 + 1;
    let outs = if matches!(kind, Kind::Real) { half } else { n };
    let four = takes_four(gpu, n, inner);
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
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::fft::{Scale, half_to_real, real_to_half};
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?; // an image of 1 x 4
/// let (spectrum, back) = (gpu.alloc(8 * 3, "spectrum")?, gpu.alloc(16, "back")?);
/// real_to_half(&gpu, &x, &spectrum, [1, 1, 4, 1], Scale { edge: 1.0, bulk: 1.0 })?;
/// // The inverse divides by the pixels; the middle columns count twice.
/// half_to_real(&gpu, &spectrum, &back, [1, 1, 4, 1], Scale { edge: 0.25, bulk: 0.5 })?;
/// assert!(gpu.read_as::<f32>(&back)?.iter().zip(1u8..).all(|(x, to)| (x - f32::from(to)).abs() < 1e-5));
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Of the columns without a mirror image.
    pub edge: f32,
    /// Of the others.
    pub bulk: f32,
}

/// `y[ky, kx] = s[kx] sum x[j, i] e^(-2 pi i (ky j / H + kx i / W))` of images `[N, H, W, C]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::fft::{Scale, real_to_half};
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?; // an image of 1 x 4
/// let y = gpu.alloc(8 * 3, "y")?; // 4 / 2 + 1 pairs
/// real_to_half(&gpu, &x, &y, [1, 1, 4, 1], Scale { edge: 1.0, bulk: 1.0 })?;
/// let expected = [10.0, 0.0, -2.0, 2.0, -2.0, 0.0];
/// assert!(gpu.read_as::<f32>(&y)?.iter().zip(expected).all(|(y, to)| (y - to).abs() < 1e-5));
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::fft::{Scale, half_to_real};
/// let y = gpu.alloc_from(&[[4.0f32, 0.0], [0.0, 0.0], [8.0, 0.0]], "y")?; // the mean, and the fastest wave
/// let x = gpu.alloc(16, "x")?;
/// half_to_real(&gpu, &y, &x, [1, 1, 4, 1], Scale { edge: 0.25, bulk: 0.5 })?;
/// let expected = [3.0, -1.0, 3.0, -1.0];
/// assert!(gpu.read_as::<f32>(&x)?.iter().zip(expected).all(|(x, to)| (x - to).abs() < 1e-5));
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0], "x")?, gpu.alloc_from(&[3.0f32, 4.0], "y")?);
/// let z = gpu.alloc(8, "z")?;
/// fft::complex_mul(&gpu, &x, &y, &z, 1, 1, false)?;
/// assert_eq!(gpu.read_as::<f32>(&z)?, [-5.0, 10.0]); // (1 + 2i)(3 + 4i)
/// fft::complex_mul(&gpu, &x, &y, &z, 1, 1, true)?;
/// assert_eq!(gpu.read_as::<f32>(&z)?, [11.0, 2.0]); // (1 + 2i)(3 - 4i)
/// # Ok::<(), GpuError>(())
/// ```
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

/// Kernels for square images of this side, for one channel and for four at a time.
fn square(side: usize) -> Option<[&'static Kernel<SpectralParams, 2, 1>; 2]> {
    use spectral as s;
    Some(match side {
        4 => [&s::SPECTRAL_4_1, &s::SPECTRAL_4_4],
        7 => [&s::SPECTRAL_7_1, &s::SPECTRAL_7_4],
        8 => [&s::SPECTRAL_8_1, &s::SPECTRAL_8_4],
        14 => [&s::SPECTRAL_14_1, &s::SPECTRAL_14_4],
        16 => [&s::SPECTRAL_16_1, &s::SPECTRAL_16_4],
        _ => return None,
    })
}

/// Whether [`spectral()`] filters images of this height and width.
///
/// ```
/// # use shadegrad_kernels::*;
/// assert!(fft::has_spectral([7, 7]) && fft::has_spectral([14, 20]));
/// assert!(!fft::has_spectral([9, 9])); // transform, multiply and transform back
/// ```
pub fn has_spectral([h, w]: [usize; 2]) -> bool {
    (h == w && square(h).is_some()) || (h > 1 && filter_for(h).is_some())
}

/// `y = irfft2(rfft2(x) w)`, or with `conj(w)`, for the images `[n, h, w, c]` that [`has_spectral`] names: small squares in
/// one kernel; else rows, columns with the product between there and back, rows.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut image = [0.0f32; 16]; // 4 x 4, one channel
/// image[5] = 1.0;
/// let (x, y) = (gpu.alloc_from(&image, "x")?, gpu.alloc(4 * 16, "y")?);
/// let w = gpu.alloc_from(&[[0.5f32, 0.0]; 4 * 3], "w")?; // [4, 4 / 2 + 1, 1] factors
/// fft::spectral(&gpu, &x, &w, &y, [1, 4, 4, 1], false)?;
/// assert!(gpu.read_as::<f32>(&y)?.iter().zip(image).all(|(y, x)| (y - 0.5 * x).abs() < 1e-6));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// If there is no kernel for this height; as [`Gpu::dispatch`].
pub fn spectral(gpu: &Gpu, x: &Storage, w: &Storage, y: &Storage, size: [usize; 4], conj: bool) -> Result<()> {
    let [n, h, width, c] = size;
    let Some(kernels) = square(h).filter(|_| h == width) else {
        return by_columns(gpu, x, w, y, size, conj);
    };
    // Four planes at once only where loads are dear; a graphics card has no room for so much private memory.
    let v = if c.is_multiple_of(4) && gpu.caps().class == Class::Software { 4 } else { 1 };
    let items = n * c / v;
    let (grid, gx) = gpu.grid((items as u64).div_ceil(64))?;
    let sign = if conj { -1.0 } else { 1.0 };
    let params = SpectralParams { items: items as u32, gx, inner: (c / v) as u32, sign };
    gpu.dispatch(kernels[usize::from(v == 4)], [x, w], [y], params, grid)
}

fn by_columns(
    gpu: &Gpu,
    x: &Storage,
    w: &Storage,
    y: &Storage,
    [n, h, width, c]: [usize; 4],
    conj: bool,
) -> Result<()> {
    let Some((one, four)) = filter_for(h) else {
        let reason = "there is none for images of this height; transform, multiply and transform back".to_string();
        return Err(GpuError::Shader { kernel: format!("fft_filter_{h}"), reason });
    };
    let inner = (width / 2 + 1) * c;
    let rows = gpu.alloc((n * h * inner * 8) as u64, "fft rows")?;
    pass(gpu, Kind::Real, x, &rows, [n * h, width, c], Scale { edge: 1.0, bulk: 1.0 }, false)?;
    let columns = gpu.alloc(rows.bytes(), "fft columns")?;
    let (kernel, v) = match four.filter(|_| takes_four(gpu, h, inner)) {
        Some(four) => (four, 4),
        None => (one, 1),
    };
    let lines = n * inner / v;
    let (grid, gx) = gpu.grid((lines as u64).div_ceil(64))?;
    let params =
        FftParams { items: lines as u32, gx, inner: (inner / v) as u32, inverse: conj.into(), ..FftParams::default() };
    gpu.dispatch(kernel, [&rows, w], [&columns], params, grid)?;
    let edge = 1.0 / (h * width) as f32;
    pass(gpu, Kind::Half, &columns, y, [n * h, width, c], Scale { edge, bulk: 2.0 * edge }, true)
}
