//! Training images: bytes to normalised floats with random crop, mirror image and cutout; mixing of two orders of a batch.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::augment as k;
use shadegrad_shaders::augment::{AugmentParams, MixParams, SoftParams};

use crate::memory::Storage;
use crate::random::Source;
use crate::{Gpu, Result};

/// What lies beyond the edge of an image.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::augment::{Beyond, Recipe, augment};
/// # let recipe = Recipe { size: [2, 2, 1], crop: [4, 4], pad: 1, beyond: Beyond::Black, flip: 0.0, cutout: 0,
/// #     scale: [1.0; 4], bias: [5.0; 4] };
/// # let source = random::Source { seed: 0, stream: 0 };
/// // An image of 2 x 2 pixels of 1 with a frame around it; values are bytes plus 5.
/// let (x, chosen) = (gpu.alloc_from(&[1u8; 4], "x")?, gpu.alloc_from(&[0u32], "chosen")?);
/// let y = gpu.alloc(4 * 16, "y")?;
/// for (beyond, corner) in [(Beyond::Black, 5.0), (Beyond::Reflect, 6.0), (Beyond::Mean, 0.0)] {
///     augment(&gpu, &x, 1, &chosen, 1, &y, &Recipe { beyond, ..recipe }, source)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?[0], corner);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Zero bytes.
    Black,
    /// The image mirrored; the padding must be less than height and width.
    Reflect,
    /// 0 after normalising.
    Mean,
}

/// What [`augment`] does. Word 0 of block `id` of the random source gives an image's crop row, word 1 the column (upper
/// half of the product with the number of places), word 2 whether it is mirrored, the halves of word 3 the centre of
/// the square; `id` is the image's number in the data set, so the batch it comes in makes no difference.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::augment::{Beyond, Recipe, augment};
/// let mirror = Recipe {
///     size: [2, 2, 1], crop: [2, 2], pad: 0, beyond: Beyond::Black, flip: 1.0, cutout: 0,
///     scale: [1.0; 4], bias: [0.0; 4],
/// };
/// let (x, chosen) = (gpu.alloc_from(&[1u8, 2, 3, 4], "x")?, gpu.alloc_from(&[0u32], "chosen")?);
/// let y = gpu.alloc(16, "y")?;
/// augment(&gpu, &x, 1, &chosen, 1, &y, &mirror, random::Source { seed: 0, stream: 0 })?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.0, 1.0, 4.0, 3.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Height, width and channels (1 to 4) of the stored images.
    pub size: [usize; 3],
    /// Height and width of the result, at most those of the padded image.
    pub crop: [usize; 2],
    /// Pixels added on each side before the crop.
    pub pad: usize,
    /// What they are.
    pub beyond: Beyond,
    /// Probability of the mirror image.
    pub flip: f32,
    /// Side of the square set to 0 after normalising; 0 for none.
    pub cutout: usize,
    /// `value = byte * scale + bias` by channel.
    pub scale: [f32; 4],
    /// See `scale`.
    pub bias: [f32; 4],
}

impl Recipe {
    fn params(&self, gpu: &Gpu, items: usize, images: usize, source: Source) -> Result<(AugmentParams, [u32; 3])> {
        let ([h, w, _], [oh, ow]) = (self.size, self.crop);
        let (grid, gx) = gpu.grid((items as u64).div_ceil(64))?;
        let params = AugmentParams {
            items: items as u32,
            gx,
            images: images as u32,
            reflect: match self.beyond {
                Beyond::Black => 0,
                Beyond::Reflect => 1,
                Beyond::Mean => 2,
            },
            h: h as u32,
            w: w as u32,
            oh: oh as u32,
            ow: ow as u32,
            pad: self.pad as u32,
            cutout: self.cutout as u32,
            flip: (f64::from(self.flip) * f64::from(1 << 24)).ceil() as u32,
            seed_lo: source.seed as u32,
            seed_hi: (source.seed >> 32) as u32,
            stream_lo: source.stream as u32,
            stream_hi: (source.stream >> 32) as u32,
            scale: self.scale,
            bias: self.bias,
            ..AugmentParams::default()
        };
        Ok((params, grid))
    }
}

/// Images `chosen[..batch]` of the `images` in `x` (bytes, NHWC) to floats `y`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_kernels::augment::{Beyond, Recipe, augment};
/// # let plain = Recipe { size: [1, 2, 1], crop: [1, 2], pad: 0, beyond: Beyond::Black, flip: 0.0, cutout: 0,
/// #     scale: [0.0; 4], bias: [0.0; 4] };
/// let x = gpu.alloc_from(&[1u8, 2, 3, 4, 5, 6], "x")?; // three grey images of 1 x 2
/// let (chosen, y) = (gpu.alloc_from(&[2u32, 0], "chosen")?, gpu.alloc(16, "y")?);
/// let recipe = Recipe { scale: [2.0; 4], bias: [-1.0; 4], ..plain }; // no crop, no mirror image
/// augment(&gpu, &x, 3, &chosen, 2, &y, &recipe, random::Source { seed: 0, stream: 0 })?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [9.0, 11.0, 1.0, 3.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`]; so for all functions here.
pub fn augment(
    gpu: &Gpu,
    x: &Storage,
    images: usize,
    chosen: &Storage,
    batch: usize,
    y: &Storage,
    recipe: &Recipe,
    source: Source,
) -> Result<()> {
    let ([_, _, c], [oh, ow]) = (recipe.size, recipe.crop);
    let kernels: [[&'static Kernel<AugmentParams, 2, 1>; 2]; 4] = [
        [&k::AUGMENT_1_1, &k::AUGMENT_1_4],
        [&k::AUGMENT_2_1, &k::AUGMENT_2_4],
        [&k::AUGMENT_3_1, &k::AUGMENT_3_4],
        [&k::AUGMENT_4_1, &k::AUGMENT_4_4],
    ];
    let four = ow.is_multiple_of(4);
    let items = batch * oh * if four { ow / 4 } else { ow };
    let (params, grid) = recipe.params(gpu, items, images, source)?;
    gpu.dispatch(kernels[c - 1][usize::from(four)], [x, chosen], [y], params, grid)
}

/// The same on a batch whose pixels are words, as [`crate::pixels`] has them (1 or 3 channels), transparent ones becoming 0;
/// `names` are the numbers of the images in their data set.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_kernels::augment::{Beyond, Recipe, augment_packed};
/// # let recipe = Recipe { size: [1, 2, 3], crop: [1, 2], pad: 0, beyond: Beyond::Black, flip: 0.0, cutout: 0,
/// #     scale: [2.0; 4], bias: [0.0; 4] };
/// let x = gpu.alloc_from(&[0xff03_0201u32, 0x0003_0201], "x")?; // 1 x 2: the second pixel is transparent
/// let (names, y) = (gpu.alloc_from(&[0u32], "names")?, gpu.alloc(4 * 6, "y")?);
/// augment_packed(&gpu, &x, &names, 1, &y, &recipe, random::Source { seed: 0, stream: 0 })?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.0, 4.0, 6.0, 0.0, 0.0, 0.0]); // twice the bytes
/// # Ok::<(), GpuError>(())
/// ```
pub fn augment_packed(
    gpu: &Gpu,
    x: &Storage,
    names: &Storage,
    batch: usize,
    y: &Storage,
    recipe: &Recipe,
    source: Source,
) -> Result<()> {
    let kernel = if recipe.size[2] == 1 { &k::PACKED_1 } else { &k::PACKED_3 };
    let (params, grid) = recipe.params(gpu, batch * recipe.crop[0] * recipe.crop[1], batch, source)?;
    gpu.dispatch(kernel, [x, names], [y], params, grid)
}

/// Weights of [`mix`]: outside and inside the rectangle.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::augment::{MixWeights, mix};
/// // The upper left pixel is the partner's, the others the image's own.
/// let cut = MixWeights { rect: [0, 0, 1, 1], own: [1.0, 0.0], other: [0.0, 1.0] };
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "x")?; // two images of 2 x 2
/// let (partner, y) = (gpu.alloc_from(&[1u32, 0], "partner")?, gpu.alloc(32, "y")?);
/// mix(&gpu, &x, &partner, &y, 8, 2, [2, 1], cut)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [5.0, 2.0, 3.0, 4.0, 1.0, 6.0, 7.0, 8.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MixWeights {
    /// Rows and columns of the rectangle, `[y0, x0, y1, x1]`, the upper ends not included.
    pub rect: [u32; 4],
    /// Of the sample itself.
    pub own: [f32; 2],
    /// Of its partner.
    pub other: [f32; 2],
}

/// `y[b] = own x[b] + other x[partner[b]]` over samples of the shape `[_, w, c]`, `n` elements in all.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::augment::{MixWeights, mix};
/// let weights = MixWeights { rect: [0; 4], own: [0.75, 0.0], other: [0.25, 0.0] }; // the same everywhere
/// let x = gpu.alloc_from(&[1.0f32, 2.0], "x")?; // two samples of one number
/// let (partner, y) = (gpu.alloc_from(&[1u32, 0], "partner")?, gpu.alloc(8, "y")?);
/// mix(&gpu, &x, &partner, &y, 2, 2, [1, 1], weights)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.25, 1.75]);
/// # Ok::<(), GpuError>(())
/// ```
pub fn mix(
    gpu: &Gpu,
    x: &Storage,
    partner: &Storage,
    y: &Storage,
    n: usize,
    batch: usize,
    [w, c]: [usize; 2],
    weights: MixWeights,
) -> Result<()> {
    let v = if (n / batch).is_multiple_of(4) { 4 } else { 1 };
    let (grid, gx) = gpu.grid((n / v) as u64 / 256 + 1)?;
    let [y0, x0, y1, x1] = weights.rect;
    let params = MixParams {
        items: (n / v) as u32,
        gx,
        inner: (n / batch / v) as u32,
        batch: batch as u32,
        w: w as u32,
        c: c as u32,
        y0,
        x0,
        y1,
        x1,
        own_out: weights.own[0],
        own_in: weights.own[1],
        other_out: weights.other[0],
        other_in: weights.other[1],
    };
    gpu.dispatch(if v == 4 { &k::MIX_4 } else { &k::MIX_1 }, [x, partner], [y], params, grid)
}

/// `y[b, k]`: `lambda` at the label of `b` plus `1 - lambda` at that of its partner.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (labels, partner) = (gpu.alloc_from(&[0u32, 1], "labels")?, gpu.alloc_from(&[1u32, 0], "partner")?);
/// let y = gpu.alloc(16, "y")?;
/// augment::soft_targets(&gpu, &labels, &partner, &y, 2, 2, 0.75)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.75, 0.25, 0.25, 0.75]);
/// # Ok::<(), GpuError>(())
/// ```
pub fn soft_targets(
    gpu: &Gpu,
    labels: &Storage,
    partner: &Storage,
    y: &Storage,
    batch: usize,
    classes: usize,
    lambda: f32,
) -> Result<()> {
    let items = batch * classes;
    let (grid, gx) = gpu.grid((items as u64).div_ceil(256))?;
    let params = SoftParams {
        items: items as u32,
        gx,
        classes: classes as u32,
        batch: batch as u32,
        lambda,
        rest: 1.0 - lambda,
    };
    gpu.dispatch(&k::SOFT_TARGETS, [labels, partner], [y], params, grid)
}
