//! Training images: bytes to normalised floats with random crop, mirror image and cutout; mixing of two orders of a batch.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::augment as k;
use shadegrad_shaders::augment::{AugmentParams, MixParams, SoftParams};

use crate::memory::Storage;
use crate::random::Source;
use crate::{Gpu, Result};

/// What lies beyond the edge of an image.
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
