//! RandAugment: "Practical automated data augmentation with a reduced search space" (arXiv 1909.13719, NeurIPS 2020).
//!
//! In place of a learned augmentation policy there are two whole numbers: every time an image is drawn, `N` of fourteen
//! operations are applied to it one after the other, each with the one strength `M`. Both are found by trying a few
//! values ([`grid_search`]) on a validation set.
//!
//! The operations run on the device on whole batches of bytes, another one for each image ([`shadegrad::pixels`]), and are
//! equal to the last bit to those on the processor ([`op_apply`]) and to the Pillow library's. What is drawn for an image
//! depends on seed, epoch and its number alone.
//!
//! `M` has no meaning without its scale: three are in use ([`Preset`]), and "9" is 3.3 times weaker in one than in the
//! others. Every result should name the preset.
//!
//! ```
//! # use shadegrad::{Gpu, Options, data::digits};
//! use shadegrad::augment::{Augment, Fill};
//! use shadegrad::nn::{Arena, Builder, Conv2d, ConvOptions, Cx, Linear, Module};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad::train::{FitOptions, Images, NoHooks, Trainer};
//! use shadegrad::{Result, Tensor};
//! use shadegrad_models::papers::randaugment::{Pipeline, Preset, RandAugment};
//! struct Net(Conv2d, Linear);
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         self.1.forward(cx, &self.0.forward(cx, x)?.relu()?.global_avg_pool()?)
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! let mut names = Builder::new();
//! let conv = Conv2d::new(&mut names.root().sub("conv"), 1, 16, 3, ConvOptions::new(1, 1));
//! let model = Net(conv, Linear::new(&mut names.root().sub("out"), 16, 10, true));
//! let mut arena = Arena::new(&gpu, &names, 0)?;
//! let mut optimizer = Optimizer::new(&arena, Rule::sgd(5e-4))?;
//! let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?;
//! // Then the usual: crop, mirror image, cutout, on the normalised picture.
//! let after = Augment { pad: 1, fill: Fill::Mean, flip: 0.5, cutout: 2, ..train.normalise().clone() };
//! let pipeline = Pipeline::new(&train, Some(policy), after)?;
//! let options = FitOptions { epochs: 2, ..FitOptions::default() };
//! Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.05, options)
//!     .loss(|step| {
//!         let images = pipeline.batch(&step.batch.indices, 0, step.epoch)?;
//!         step.cross_entropy(&model.forward(step.cx, &images)?)
//!     })
//!     .fit(&train, Some(&test), &mut NoHooks)?;
//! # Ok(())
//! # }
//! ```

mod cpu;
mod recipe;
#[cfg(test)]
mod tests;

use shadegrad::augment::Augment;
use shadegrad::pixels::{PixelOp, PixelOps, Pixels};
use shadegrad::rng::{Philox, Stream};
use shadegrad::train::Images;
use shadegrad::{Error, Result, Tensor};

pub use cpu::{ImageU8, op_apply};

use super::Paper;

/// The paper.
pub static PAPER: Paper = Paper {
    slug: "randaugment",
    title: "RandAugment: Practical automated data augmentation with a reduced search space",
    source: "arXiv 1909.13719, NeurIPS 2020",
    claim: "two integers, how many operations and how strong, replace the search for an augmentation policy",
    data: "CIFAR-10",
    seeds: 2,
    recipe: Some(recipe::run),
};

/// What an operation takes: shear, pixels, degrees, blending factor, bits kept, threshold; 0 where it takes nothing.
pub type Param = f64;

/// The operations, in the paper's order.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{Op, Preset, RandAugment};
/// // All but the geometric operations.
/// let colours: Vec<Op> = Op::ALL.into_iter().filter(|op| *op as usize <= Op::Sharpness as usize).collect();
/// let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?.with_ops(&colours)?;
/// assert_eq!((Op::ALL.len(), policy.layers()), (14, 2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Op {
    Identity,
    AutoContrast,
    Equalize,
    Rotate,
    Solarize,
    Color,
    Posterize,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

impl Op {
    /// All fourteen.
    pub const ALL: [Self; 14] = [
        Self::Identity,
        Self::AutoContrast,
        Self::Equalize,
        Self::Rotate,
        Self::Solarize,
        Self::Color,
        Self::Posterize,
        Self::Contrast,
        Self::Brightness,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
    ];

    fn check(self, param: Param) -> Result<()> {
        if param.is_finite() {
            return Ok(());
        }
        Err(Error::value("randaugment", format!("{self:?} with {param}: its number must be finite")))
    }

    /// From output to input places, for the geometric ones, in an image of this height and width: shears about the top
    /// left corner, turns about the middle, counter-clockwise on the screen.
    fn matrix(self, v: Param, [h, w]: [usize; 2]) -> Option<[f64; 6]> {
        let (h, w) = (h as f64, w as f64);
        Some(match self {
            Self::ShearX => [1.0, v, 0.0, 0.0, 1.0, 0.0],
            Self::ShearY => [1.0, 0.0, 0.0, v, 1.0, 0.0],
            Self::TranslateX => [1.0, 0.0, v, 0.0, 1.0, 0.0],
            Self::TranslateY => [1.0, 0.0, 0.0, 0.0, 1.0, v],
            Self::Rotate => {
                let (s, c) = v.to_radians().sin_cos();
                let (x, y) = (0.5 * w, 0.5 * h);
                [c, -s, x - c * x + s * y, s, c, y - s * x - c * y]
            }
            _ => return None,
        })
    }

    /// As the kernels take it, for images of this height and width.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::pixels::PixelOp;
    /// use shadegrad_models::papers::randaugment::Op;
    /// assert_eq!(Op::Solarize.on_device(127.5, [32, 32])?, PixelOp::Solarize(128));
    /// assert!(Op::Rotate.on_device(f64::NAN, [32, 32]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the number is not finite.
    pub fn on_device(self, param: Param, size: [usize; 2]) -> Result<PixelOp> {
        self.check(param)?;
        Ok(match self {
            Self::Identity => PixelOp::Identity,
            Self::AutoContrast => PixelOp::AutoContrast,
            Self::Equalize => PixelOp::Equalize,
            // Values below the threshold are those below the next whole number.
            Self::Solarize => PixelOp::Solarize(param.clamp(0.0, 256.0).ceil() as u32),
            Self::Posterize => PixelOp::Posterize(param.clamp(0.0, 8.0) as u32),
            Self::Color => PixelOp::Color(param as f32),
            Self::Contrast => PixelOp::Contrast(param as f32),
            Self::Brightness => PixelOp::Brightness(param as f32),
            Self::Sharpness => PixelOp::Sharpness(param as f32),
            Self::Rotate | Self::ShearX | Self::ShearY | Self::TranslateX | Self::TranslateY => {
                self.matrix(param, size).map_or(PixelOp::Identity, PixelOp::Affine)
            }
        })
    }
}

/// What lies beyond the edge of an image that was moved.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{Fill, ImageU8, Op, op_apply};
/// let image = ImageU8::new(1, 2, 1, vec![10, 20])?;
/// let grey = op_apply(Op::TranslateX, 1.0, &image, Fill::Colour([128; 3]))?;
/// assert_eq!((grey.data, grey.opacity), (vec![20, 128], vec![255, 255]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The data set's mean: black and transparent, and 0 once the image is normalised. Transparency moves with its pixel;
    /// the operations on values (AutoContrast, Equalize, Solarize, Posterize) end it.
    Mean,
    /// A colour, at once an ordinary pixel; grey images take the first.
    Colour([u8; 3]),
}

impl Fill {
    fn rgba(self) -> [u8; 4] {
        match self {
            Self::Mean => [0; 4],
            Self::Colour([r, g, b]) => [r, g, b, 255],
        }
    }
}

/// The scale of `M` and the colour of what is uncovered.
///
/// ```
/// use shadegrad_models::papers::randaugment::{Op, Preset};
/// // The same M is not the same strength.
/// let at_nine = |preset: Preset| preset.param(Op::ShearX, 9.0, false, [32, 32]);
/// assert!((at_nine(Preset::AutoAugCifar) - 0.27).abs() < 1e-12);
/// assert!((at_nine(Preset::Linear31) - 0.09).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// That of AutoAugment's code for CIFAR, from the same authors; 10 is the maximum. The one for the paper's figures.
    AutoAugCifar,
    /// That of the authors' code for ImageNet; 10 is the maximum. Posterize and Solarize get weaker as `M` grows, and 100
    /// pixels of translation are for large images.
    TpuImageNet,
    /// torchvision's; 30 is the maximum, and every operation gets stronger with `M`.
    Linear31,
}

impl Preset {
    /// The strength that its constants are meant for.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::Preset;
    /// assert_eq!((Preset::AutoAugCifar.maximum(), Preset::Linear31.maximum()), (10.0, 30.0));
    /// ```
    pub fn maximum(self) -> f64 {
        match self {
            Self::AutoAugCifar | Self::TpuImageNet => 10.0,
            Self::Linear31 => 30.0,
        }
    }

    /// As results should name it.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::Preset;
    /// assert_eq!(Preset::Linear31.name(), "Linear31, maximum 30");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::AutoAugCifar => "AutoAugCifar, maximum 10",
            Self::TpuImageNet => "TpuImageNet, maximum 10",
            Self::Linear31 => "Linear31, maximum 30",
        }
    }

    /// The colour of what is uncovered.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::{Fill, Preset};
    /// assert_eq!(Preset::TpuImageNet.fill(), Fill::Colour([128; 3]));
    /// ```
    pub fn fill(self) -> Fill {
        match self {
            Self::AutoAugCifar => Fill::Mean,
            Self::TpuImageNet => Fill::Colour([128; 3]),
            Self::Linear31 => Fill::Colour([0; 3]),
        }
    }

    /// The number of `op` at strength `m` for an image of this height and width; `negative` turns the direction of those
    /// that have one. Linear beyond the maximum but for bits and thresholds, which end at 0.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::{Op, Preset};
    /// let preset = Preset::AutoAugCifar;
    /// assert_eq!(preset.param(Op::Rotate, 9.0, true, [32, 32]), -27.0); // degrees
    /// assert_eq!(preset.param(Op::Posterize, 5.0, false, [32, 32]), 2.0); // bits kept
    /// ```
    pub fn param(self, op: Op, m: f64, negative: bool, [h, w]: [usize; 2]) -> Param {
        let signed = |v: f64| if negative { -v } else { v };
        // The product first: 30 * 21 / 10 is 63, where 30 * 2.1 may fall short of it.
        let part = |most: f64| most * m / self.maximum();
        let side = |n: usize| match self {
            Self::AutoAugCifar => part(10.0).trunc(),
            Self::TpuImageNet => part(100.0),
            // torchvision scales with the side along which it moves.
            Self::Linear31 => (150.0 * n as f64 * m / (331.0 * self.maximum())).trunc(),
        };
        match op {
            Op::Identity | Op::AutoContrast | Op::Equalize => 0.0,
            Op::ShearX | Op::ShearY => signed(part(0.3)),
            Op::TranslateX => signed(side(w)),
            Op::TranslateY => signed(side(h)),
            Op::Rotate if self == Self::AutoAugCifar => signed(part(30.0).trunc()),
            Op::Rotate => signed(part(30.0)),
            Op::Color | Op::Contrast | Op::Brightness | Op::Sharpness => match self {
                Self::Linear31 => 1.0 + signed(part(0.9)),
                _ => part(1.8) + 0.1,
            },
            Op::Posterize => match self {
                Self::AutoAugCifar => 4.0 - part(4.0).trunc(),
                Self::TpuImageNet => part(4.0).trunc(),
                Self::Linear31 => 8.0 - part(4.0).round_ties_even(),
            }
            .clamp(0.0, 8.0),
            Op::Solarize => match self {
                Self::AutoAugCifar => 256.0 - part(256.0).trunc(),
                Self::TpuImageNet => part(256.0).trunc(),
                Self::Linear31 => 255.0 - part(255.0),
            }
            .clamp(0.0, 256.0),
        }
    }
}

/// The stream of a run's seed from which policies are drawn.
const POLICY: u64 = 0x5241_0000_0000_0000;
/// The most operations in a row.
const MOST: usize = 16;

/// The policy: how many operations, how strong, by which scale.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{Preset, RandAugment};
/// let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?;
/// // What is done to image 7 in epoch 3 depends on nothing else.
/// let plan = policy.plan([32, 32], 0, 3, 7);
/// assert_eq!((plan.len(), &plan), (2, &policy.plan([32, 32], 0, 3, 7)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RandAugment {
    n: usize,
    m: f32,
    preset: Preset,
    fill: Fill,
    ops: Vec<Op>,
    varied: bool,
}

impl RandAugment {
    /// `n` operations of strength `m`.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::{Preset, RandAugment};
    /// assert!(RandAugment::new(2, 9.0, Preset::AutoAugCifar).is_ok());
    /// assert!(RandAugment::new(2, 14.0, Preset::AutoAugCifar).is_err()); // beyond its maximum of 10
    /// ```
    ///
    /// # Errors
    /// If `n` is above 16, or `m` negative, not a number or above the preset's maximum.
    pub fn new(n: usize, m: f32, preset: Preset) -> Result<Self> {
        if f64::from(m) > preset.maximum() {
            return Err(Error::value(
                "randaugment",
                format!(
                    "strength {m} is beyond the maximum of {}; check the preset, or allow it with `extrapolated`",
                    preset.name()
                ),
            ));
        }
        Self::extrapolated(n, m, preset)
    }

    /// With a strength that may be above the preset's maximum: the paper uses 14 of 10 for CIFAR-100.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::{Preset, RandAugment};
    /// assert!(RandAugment::extrapolated(2, 14.0, Preset::AutoAugCifar).is_ok());
    /// ```
    ///
    /// # Errors
    /// If `n` is above 16, or `m` negative or not finite.
    pub fn extrapolated(n: usize, m: f32, preset: Preset) -> Result<Self> {
        if n > MOST || !m.is_finite() || m < 0.0 {
            return Err(Error::value(
                "randaugment",
                format!("{n} operations of strength {m}; takes 0 to {MOST} of a strength that is finite and not negative"),
            ));
        }
        Ok(Self { n, m, preset, fill: preset.fill(), ops: Op::ALL.to_vec(), varied: false })
    }

    /// Draws from these operations in place of all fourteen.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Op, Preset, RandAugment};
    /// let flat = RandAugment::new(3, 9.0, Preset::AutoAugCifar)?.with_ops(&[Op::Identity])?;
    /// assert_eq!(flat.plan([8, 8], 0, 0, 0), [(Op::Identity, 0.0); 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none.
    pub fn with_ops(self, ops: &[Op]) -> Result<Self> {
        if ops.is_empty() {
            return Err(Error::value("randaugment", "an empty list of operations; give at least one"));
        }
        Ok(Self { ops: ops.to_vec(), ..self })
    }

    /// With another colour of what is uncovered.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Fill, Preset, RandAugment};
    /// let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?.with_fill(Fill::Colour([128; 3]));
    /// assert_eq!(policy.fill(), Fill::Colour([128; 3]));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_fill(self, fill: Fill) -> Self {
        Self { fill, ..self }
    }

    /// Draws the strength of each operation uniformly from 0 to `m` (an ablation of the paper).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Op, Preset, RandAugment};
    /// let policy = RandAugment::new(1, 10.0, Preset::AutoAugCifar)?.with_ops(&[Op::Solarize])?.varied();
    /// let thresholds: Vec<f64> = (0..9).map(|image| policy.plan([8, 8], 0, 0, image)[0].1).collect();
    /// assert!(thresholds.iter().any(|t| *t > 0.0)); // at full strength all would be 0
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn varied(self) -> Self {
        Self { varied: true, ..self }
    }

    /// The colour of what is uncovered.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Fill, Preset, RandAugment};
    /// assert_eq!(RandAugment::new(2, 9.0, Preset::AutoAugCifar)?.fill(), Fill::Mean);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fill(&self) -> Fill {
        self.fill
    }

    /// The operations in a row.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Preset, RandAugment};
    /// assert_eq!(RandAugment::new(3, 4.0, Preset::Linear31)?.layers(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn layers(&self) -> usize {
        self.n
    }

    /// What is done to image `index` of height and width `size` in this epoch of the run.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{Op, Preset, RandAugment};
    /// let policy = RandAugment::new(1, 10.0, Preset::AutoAugCifar)?.with_ops(&[Op::Solarize])?;
    /// assert_eq!(policy.plan([8, 8], 0, 0, 5), [(Op::Solarize, 0.0)]); // from a threshold of 0 on
    /// # Ok::<(), Error>(())
    /// ```
    pub fn plan(&self, size: [usize; 2], seed: u64, epoch: u64, index: u64) -> Vec<(Op, Param)> {
        // A key for each epoch, a stream for each image: nothing depends on the batch.
        let key = Philox::new(seed, POLICY.wrapping_add(epoch)).next_u64();
        let mut rng = Philox::new(key, index);
        (0..self.n)
            .map(|_| {
                let op = self.ops[rng.below(self.ops.len() as u32) as usize];
                let negative = rng.next_u32() >> 31 == 1;
                let share = if self.varied { rng.uniform_f64() } else { 1.0 };
                (op, self.preset.param(op, share * f64::from(self.m), negative, size))
            })
            .collect()
    }

    /// The operations of `plan` on the processor.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::{ImageU8, Op, Preset, RandAugment};
    /// let policy = RandAugment::new(1, 10.0, Preset::AutoAugCifar)?.with_ops(&[Op::Solarize])?;
    /// let mut image = ImageU8::new(1, 2, 1, vec![10, 20])?;
    /// policy.apply_cpu(&mut image, &policy.plan([1, 2], 0, 0, 0))?;
    /// assert_eq!(image.data, [245, 235]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn apply_cpu(&self, image: &mut ImageU8, plan: &[(Op, Param)]) -> Result<()> {
        for &(op, param) in plan {
            *image = op_apply(op, param, image, self.fill)?;
        }
        Ok(())
    }

    /// The images (`U8`, `[N, H, W, C]`, 1 or 3 channels) that `ids` name, each after its own plan, in one dispatch a layer.
    /// [`Pixels::bytes`] gives them back; under [`Fill::Mean`] ask for the opacity, too.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::pixels::PixelOps;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::randaugment::{Op, Preset, RandAugment};
    /// let policy = RandAugment::new(1, 10.0, Preset::AutoAugCifar)?.with_ops(&[Op::Solarize])?;
    /// let images = Tensor::from_bytes(&gpu, &[10, 20, 30, 40], &[2, 1, 2, 1])?;
    /// let pixels = policy.apply_batch(&PixelOps::new(&gpu)?, &images, &[1], 0, 0)?; // the second image
    /// assert_eq!(pixels.bytes(false)?.to_bytes()?, [225, 215]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If type or shape differ from these.
    pub fn apply_batch(&self, on: &PixelOps, images: &Tensor, ids: &[u32], seed: u64, epoch: u64) -> Result<Pixels> {
        let indices = Tensor::from_u32(images.gpu(), ids, &[ids.len()])?;
        self.apply_at(on, images, (ids, &indices), seed, epoch)
    }

    fn apply_at(
        &self,
        on: &PixelOps,
        images: &Tensor,
        (ids, indices): (&[u32], &Tensor),
        seed: u64,
        epoch: u64,
    ) -> Result<Pixels> {
        let mut pixels = on.gather(images, indices)?;
        let [_, h, w] = pixels.size();
        let plans: Vec<_> = ids.iter().map(|&i| self.plan([h, w], seed, epoch, u64::from(i))).collect();
        for layer in 0..self.n {
            let ops: Vec<PixelOp> =
                plans.iter().map(|p| p[layer].0.on_device(p[layer].1, [h, w])).collect::<Result<_>>()?;
            pixels = on.apply(&pixels, &ops, self.fill.rgba())?;
        }
        Ok(pixels)
    }
}

/// From a data set on the device to batches for a model: the policy on the bytes first, then normalising, crop, mirror image
/// and cutout.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::randaugment::{Pipeline, Preset, RandAugment};
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?;
/// let pipeline = Pipeline::new(&images, Some(policy), images.normalise().clone())?;
/// let (first, again) = (pipeline.batch(&[3, 5], 0, 1)?, pipeline.batch(&[3, 5], 0, 1)?);
/// assert_eq!(first.to_vec()?, again.to_vec()?); // the same pictures in the same epoch
/// # Ok::<(), Error>(())
/// ```
pub struct Pipeline {
    on: PixelOps,
    images: Tensor,
    policy: Option<RandAugment>,
    after: Augment,
}

/// The stream of a run's seed from which crops and mirror images are drawn.
const AFTER: u64 = 0x5241_0001_0000_0000;

impl Pipeline {
    /// The pictures of `data`; without a policy only what comes `after`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::randaugment::Pipeline;
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let plain = Pipeline::new(&images, None, images.normalise().clone())?;
    /// assert_eq!(plain.batch(&[0], 0, 0)?.to_vec()?, images.plain(&[0])?.images.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(data: &Images, policy: Option<RandAugment>, after: Augment) -> Result<Self> {
        let images = data.pixels().clone();
        Ok(Self { on: PixelOps::new(images.gpu())?, images, policy, after })
    }

    /// The pictures that `ids` name, as floats `[B, H, W, C]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::randaugment::{Pipeline, Preset, RandAugment};
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let policy = RandAugment::new(1, 5.0, Preset::Linear31)?;
    /// let pipeline = Pipeline::new(&images, Some(policy), images.normalise().clone())?;
    /// assert_eq!(pipeline.batch(&[4, 1, 7], 0, 0)?.shape(), [3, 8, 8, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the pictures have not 1 or 3 channels, or the settings do not fit them.
    pub fn batch(&self, ids: &[u32], seed: u64, epoch: u64) -> Result<Tensor> {
        let indices = Tensor::from_u32(self.images.gpu(), ids, &[ids.len()])?;
        let stream = Stream::new(seed, AFTER.wrapping_add(epoch));
        match &self.policy {
            None => self.after.apply(&self.images, &indices, stream),
            Some(policy) => {
                let pixels = policy.apply_at(&self.on, &self.images, (ids, &indices), seed, epoch)?;
                pixels.augment(&self.after, &indices, stream)
            }
        }
    }
}

/// Floats in 0..=1 as bytes, `trunc(255 x + 1/2)`; what lies beyond is held.
///
/// ```
/// use shadegrad_models::papers::randaugment::quantise;
/// assert_eq!(quantise(&[0.0, 0.5, 1.0, 2.0]), [0, 128, 255, 255]);
/// ```
pub fn quantise(values: &[f32]) -> Vec<u8> {
    values.iter().map(|&v| (255.0 * f64::from(v) + 0.5).clamp(0.0, 255.0) as u8).collect()
}

/// What a [`grid_search`] found.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{GridReport, grid_search};
/// let report: GridReport = grid_search(&[1], &[4.0, 8.0], |_, m| Ok(m / 10.0))?;
/// assert_eq!((report.best, report.table.len()), ((1, 8.0), 2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GridReport {
    /// The best pair.
    pub best: (usize, f32),
    /// All pairs with their validation accuracy, in the order in which they were tried.
    pub table: Vec<(usize, f32, f32)>,
}

/// Tries every pair of `ns` and `ms` with `train_and_validate`, which trains in full and gives the accuracy on a
/// **validation** set: choosing on the test set is the usual silent error. Of equal ones the smaller N wins, then the
/// smaller M.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::grid_search;
/// // In place of a training each; all but one pair are equally good.
/// let report = grid_search(&[1, 2], &[5.0, 9.0], |n, m| Ok(if (n, m) == (2, 5.0) { 0.9 } else { 0.8 }))?;
/// assert_eq!(report.best, (2, 5.0));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of `train_and_validate`; if a list is empty, or an accuracy is not a number.
pub fn grid_search<F: FnMut(usize, f32) -> Result<f32>>(
    ns: &[usize],
    ms: &[f32],
    mut train_and_validate: F,
) -> Result<GridReport> {
    let mut table = Vec::new();
    for &n in ns {
        for &m in ms {
            let accuracy = train_and_validate(n, m)?;
            if accuracy.is_nan() {
                return Err(Error::value("grid_search", format!("the accuracy with N = {n}, M = {m} is not a number")));
            }
            table.push((n, m, accuracy));
        }
    }
    let order = |a: &&(usize, f32, f32), b: &&(usize, f32, f32)| {
        b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)).then(a.1.total_cmp(&b.1))
    };
    match table.iter().min_by(order) {
        Some(&(n, m, _)) => Ok(GridReport { best: (n, m), table }),
        None => Err(Error::value("grid_search", "nothing to try: give at least one N and one M")),
    }
}
