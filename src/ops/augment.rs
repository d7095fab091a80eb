//! Training images on the device: random crop, mirror image, cutout and normalising of bytes in one kernel, and the mixing
//! of pairs of samples.
//!
//! A data set that fits is uploaded once as bytes `[N, H, W, C]`; a batch is then a list of indices.

use shadegrad_kernels::augment as k;
use shadegrad_kernels::random::Source;

use crate::error::{Error, Result};
use crate::rng::{Philox, Stream};
use crate::tensor::{DType, Tensor};

/// What lies beyond the edge of an image.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::augment::{Augment, Fill};
/// use shadegrad::rng::Stream;
/// let white = Tensor::from_bytes(&gpu, &[255; 16], &[1, 4, 4, 1])?;
/// let augment = Augment { pad: 3, fill: Fill::Reflect, ..Augment::none(&[0.0], &[1.0]) };
/// let batch = augment.apply(&white, &Tensor::arange(&gpu, 0, 1)?, Stream::new(7, 0))?;
/// assert!(batch.to_vec()?.iter().all(|v| (v - 1.0).abs() < 1e-5)); // wherever the crop is, nothing black comes in
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Zero bytes, that is black before normalising.
    #[default]
    Black,
    /// The image mirrored, its edge pixels not repeated.
    Reflect,
    /// The mean colour: 0 after normalising.
    Mean,
}

/// Images to batches, `value = (byte / 255 - mean) / std` by channel. [`Augment::none`] only normalises.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::augment::Augment;
/// use shadegrad::rng::Stream;
/// let pictures = Tensor::from_bytes(&gpu, &[0; 4 * 32 * 32 * 3], &[4, 32, 32, 3])?;
/// let chosen = Tensor::from_u32(&gpu, &[2, 0], &[2])?;
/// let augment = Augment { cutout: 16, ..Augment::crop_flip(&[0.5], &[0.25]) };
/// let batch = augment.apply(&pictures, &chosen, Stream::new(1, 0))?;
/// assert_eq!(batch.shape(), [2, 32, 32, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Pixels added on each side before a random crop.
    pub pad: usize,
    /// What they are.
    pub fill: Fill,
    /// Height and width of the crop; the image's own if `None`.
    pub crop: Option<[usize; 2]>,
    /// Probability of the mirror image.
    pub flip: f32,
    /// Side of a square at a random place that is set to 0 after normalising (DeVries and Taylor, 2017); 0 for none.
    pub cutout: usize,
    /// Means of the channels, for bytes scaled to 0..1; one for each channel or one for all.
    pub mean: Vec<f32>,
    /// Standard deviations likewise.
    pub std: Vec<f32>,
}

impl Augment {
    /// Only normalising. A crop smaller than the image is then still taken at random: set it for training only.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::augment::Augment;
    /// use shadegrad::rng::Stream;
    /// let images = Tensor::from_bytes(&gpu, &[0, 255], &[2, 1, 1, 1])?;
    /// let batch = Augment::none(&[0.5], &[0.5]).apply(&images, &Tensor::arange(&gpu, 0, 2)?, Stream::new(7, 0))?;
    /// assert!(batch.to_vec()?.iter().zip([-1.0, 1.0]).all(|(v, want)| (v - want).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn none(mean: &[f32], std: &[f32]) -> Self {
        Self { pad: 0, fill: Fill::Black, crop: None, flip: 0.0, cutout: 0, mean: mean.to_vec(), std: std.to_vec() }
    }

    /// The usual choice for CIFAR: four pixels of padding, random crop to the image's size, mirrored half the time.
    ///
    /// ```
    /// # use shadegrad::augment::Augment;
    /// let (mean, std) = ([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]); // of CIFAR-10
    /// let augment = Augment::crop_flip(&mean, &std);
    /// assert_eq!((augment.pad, augment.flip, augment.cutout), (4, 0.5, 0));
    /// ```
    pub fn crop_flip(mean: &[f32], std: &[f32]) -> Self {
        Self { pad: 4, flip: 0.5, ..Self::none(mean, std) }
    }

    pub(crate) fn recipe(&self, shape: &[usize]) -> Result<k::Recipe> {
        const OP: &str = "augment";
        let [_, h, w, c @ 1..=4] = *shape else {
            return Err(Error::shape(
                OP,
                format!("images are {shape:?}; takes bytes [N, H, W, C] with 1 to 4 channels"),
            ));
        };
        let [oh, ow] = self.crop.unwrap_or([h, w]);
        if oh == 0 || ow == 0 || oh > h + 2 * self.pad || ow > w + 2 * self.pad {
            return Err(Error::shape(
                OP,
                format!("a crop of {oh}x{ow} out of {h}x{w} with {} pixels of padding does not exist", self.pad),
            ));
        }
        if self.fill == Fill::Reflect && self.pad >= h.min(w) {
            return Err(Error::value(
                OP,
                format!("reflection by {} pixels needs images larger than that, got {h}x{w}", self.pad),
            ));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(Error::value(OP, format!("flip = {} is not a probability", self.flip)));
        }
        let channel = |name: &str, v: &[f32], i: usize| match v {
            [one] => Ok(*one),
            _ if v.len() == c => Ok(v[i]),
            _ => Err(Error::value(OP, format!("{} values for {name}, the images have {c} channels", v.len()))),
        };
        let (mut scale, mut bias) = ([0.0; 4], [0.0; 4]);
        for i in 0..c {
            let (mean, std) = (channel("mean", &self.mean, i)?, channel("std", &self.std, i)?);
            if !(mean.is_finite() && std.is_finite() && std > 0.0) {
                return Err(Error::value(OP, format!("mean {mean}, std {std}: they must be finite, std positive")));
            }
            scale[i] = (1.0 / (255.0 * f64::from(std))) as f32;
            bias[i] = (-f64::from(mean) / f64::from(std)) as f32;
        }
        Ok(k::Recipe {
            size: [h, w, c],
            crop: [oh, ow],
            pad: self.pad,
            beyond: match self.fill {
                Fill::Black => k::Beyond::Black,
                Fill::Reflect => k::Beyond::Reflect,
                Fill::Mean => k::Beyond::Mean,
            },
            flip: self.flip,
            cutout: self.cutout,
            scale,
            bias,
        })
    }

    /// The batch `[B, H, W, C]` (`F32`) of the images (`U8`, `[N, H, W, C]`) that `indices` (`U32`, `[B]`) name. Use one
    /// stream an epoch. What happens to an image depends on the stream and its index only, not on the batch it is in.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::augment::Augment;
    /// use shadegrad::rng::Stream;
    /// let images = Tensor::from_bytes(&gpu, &[1, 2, 3, 4, 5, 6, 7, 8], &[2, 2, 2, 1])?;
    /// let augment = Augment::crop_flip(&[0.0], &[1.0]);
    /// let batch = |chosen: &[u32]| {
    ///     augment.apply(&images, &Tensor::from_u32(&gpu, chosen, &[chosen.len()])?, Stream::new(7, 0))?.to_vec()
    /// };
    /// assert_eq!(batch(&[1, 0])?[..4], batch(&[1])?); // alone or not, an image comes out the same
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If types or shapes differ from these, or the settings do not fit the images.
    pub fn apply(&self, images: &Tensor, indices: &Tensor, s: Stream) -> Result<Tensor> {
        images.want("augment", DType::U8)?;
        indices.want("augment", DType::U32)?;
        images.same_gpu("augment", indices)?;
        let recipe = self.recipe(images.shape())?;
        let n = images.dim(0);
        let &[batch] = indices.shape() else {
            return Err(Error::shape("augment", format!("indices are {:?}; takes one dimension", indices.shape())));
        };
        if n == 0 && batch > 0 {
            return Err(Error::shape("augment", format!("{batch} images out of none: {:?}", images.shape())));
        }
        let [oh, ow] = recipe.crop;
        let out = Tensor::empty(images.gpu(), &[batch, oh, ow, recipe.size[2]], DType::F32, "augment")?;
        if out.numel() > 0 {
            let source = Source { seed: s.seed, stream: s.stream };
            let (x, chosen, y) = (images.storage(), indices.storage(), out.storage());
            k::augment(images.gpu(), x, n, chosen, batch, y, &recipe, source)?;
        }
        Ok(out)
    }
}

/// How the samples of a batch are mixed in pairs, each with one partner.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::augment::Mix;
/// use shadegrad::rng::Stream;
/// let (x, labels) = (Tensor::ones(&gpu, &[4, 8, 8, 1])?, Tensor::labels(&gpu, &[0, 1, 2, 0], 3)?);
/// let mix = Mix::mixup(4, 0.2, Stream::new(1, 0))?;
/// let (mixed, targets) = (mix.apply(&x)?, mix.targets(&labels, 3)?);
/// assert_eq!((mixed.shape(), targets.shape()), (&[4, 8, 8, 1][..], &[4, 3][..]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Share of the sample itself in its target; the partner has the rest.
    pub lambda: f32,
    /// For each sample the other one: a permutation.
    pub partner: Vec<u32>,
    /// Cutmix: the part `[y0, x0, y1, x1]` (upper ends not included) that comes from the partner. Without it the samples
    /// are blended, `lambda x + (1 - lambda) x[partner]`.
    pub rect: Option<[u32; 4]>,
}

/// `Beta(alpha, alpha)` from two gamma variates (Marsaglia and Tsang, 2000).
fn beta(rng: &mut Philox, alpha: f64) -> f64 {
    let (a, b) = (gamma(rng, alpha), gamma(rng, alpha));
    // Both underflow for tiny alpha, whose distribution is nearly that of a coin.
    if a + b > 0.0 { a / (a + b) } else { f64::from(rng.next_u32() >> 31) }
}

fn gamma(rng: &mut Philox, alpha: f64) -> f64 {
    if alpha < 1.0 {
        let u = 1.0 - rng.uniform_f64();
        return gamma(rng, alpha + 1.0) * u.powf(1.0 / alpha);
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let z = rng.normal();
        let v = (1.0 + c * z).powi(3);
        let u = 1.0 - rng.uniform_f64();
        if v > 0.0 && u.ln() < 0.5 * z * z + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

fn check_alpha(op: &'static str, alpha: f64) -> Result<()> {
    if alpha.is_finite() && alpha > 0.0 {
        return Ok(());
    }
    Err(Error::value(op, format!("alpha = {alpha} must be positive and finite")))
}

impl Mix {
    /// Blending with a share drawn from `Beta(alpha, alpha)` (mixup: Zhang et al., 2018).
    ///
    /// ```
    /// # use shadegrad::augment::Mix;
    /// use shadegrad::rng::Stream;
    /// let mix = Mix::mixup(4, 0.2, Stream::new(7, 0))?;
    /// let mut partner = mix.partner.clone();
    /// partner.sort();
    /// assert!((0.0..=1.0).contains(&mix.lambda) && partner == [0, 1, 2, 3] && mix.rect.is_none());
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `alpha` is not positive.
    pub fn mixup(batch: usize, alpha: f64, s: Stream) -> Result<Self> {
        check_alpha("mixup", alpha)?;
        let mut rng = s.philox();
        let lambda = beta(&mut rng, alpha) as f32;
        Ok(Self { lambda, partner: rng.permutation(batch as u32), rect: None })
    }

    /// Pasting a rectangle of the partner (cutmix: Yun et al., 2019) for images of the given height and width. Its area
    /// is that of a share drawn from `Beta(alpha, alpha)`, its centre any pixel; what reaches beyond the edge is cut off
    /// and `lambda` is the share that is left of the image.
    ///
    /// ```
    /// # use shadegrad::augment::Mix;
    /// use shadegrad::rng::Stream;
    /// let mix = Mix::cutmix(4, [32, 32], 1.0, Stream::new(7, 0))?;
    /// let [y0, x0, y1, x1] = mix.rect.expect("a part of the image");
    /// assert!((mix.lambda - (1.0 - ((y1 - y0) * (x1 - x0)) as f32 / 1024.0)).abs() < 1e-6);
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `alpha` is not positive or the image has no pixels.
    pub fn cutmix(batch: usize, [h, w]: [usize; 2], alpha: f64, s: Stream) -> Result<Self> {
        check_alpha("cutmix", alpha)?;
        if h == 0 || w == 0 {
            return Err(Error::shape("cutmix", format!("images of {h}x{w} have no pixels")));
        }
        let mut rng = s.philox();
        let side = (1.0 - beta(&mut rng, alpha)).sqrt();
        let (y0, y1) = span(rng.below(h as u32), h, side);
        let (x0, x1) = span(rng.below(w as u32), w, side);
        let lambda = 1.0 - f64::from((y1 - y0) * (x1 - x0)) / (h * w) as f64;
        let partner = rng.permutation(batch as u32);
        Ok(Self { lambda: lambda as f32, partner, rect: Some([y0, x0, y1, x1]) })
    }

    fn partners(&self, op: &'static str, like: &Tensor) -> Result<Tensor> {
        if like.shape().first() != Some(&self.partner.len()) {
            return Err(Error::shape(
                op,
                format!("{:?}: the first axis must be the {} samples to be mixed", like.shape(), self.partner.len()),
            ));
        }
        Tensor::from_u32(like.gpu(), &self.partner, &[self.partner.len()])
    }

    /// The mixed batch, of the shape of `x` (`[B, ..]`; `[B, H, W, C]` if a rectangle is pasted). Differentiable.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::augment::Mix;
    /// let mix = Mix { lambda: 0.75, partner: vec![1, 0], rect: None };
    /// let batch = Tensor::from_slice(&gpu, &[0.0, 4.0], &[2, 1])?;
    /// assert_eq!(mix.apply(&batch)?.to_vec()?, [1.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape does not fit the number of partners or the rectangle.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        const OP: &str = "mix";
        let partner = self.partners(OP, x)?;
        let mut inverse = vec![u32::MAX; self.partner.len()];
        for (b, &other) in self.partner.iter().enumerate() {
            match inverse.get_mut(other as usize) {
                Some(slot @ &mut u32::MAX) => *slot = b as u32,
                _ => {
                    return Err(Error::value(
                        OP,
                        format!("the partners are no permutation: {other} is not unique in 0..{}", self.partner.len()),
                    ));
                }
            }
        }
        let inverse = Tensor::from_u32(x.gpu(), &inverse, partner.shape())?;
        let weights = match (self.rect, x.shape()) {
            (None, _) => k::MixWeights { rect: [0; 4], own: [self.lambda; 2], other: [1.0 - self.lambda; 2] },
            (Some(rect @ [y0, x0, y1, x1]), &[_, h, w, _])
                if y0 <= y1 && x0 <= x1 && y1 as usize <= h && x1 as usize <= w =>
            {
                k::MixWeights { rect, own: [1.0, 0.0], other: [0.0, 1.0] }
            }
            (Some(rect), shape) => {
                return Err(Error::shape(
                    OP,
                    format!("the rectangle {rect:?} (y0, x0, y1, x1) is not within images {shape:?}"),
                ));
            }
        };
        mixed(x, partner, inverse, weights)
    }

    /// Soft targets `[B, classes]` (`F32`) of the labels `[B]` (`U32`): `lambda` at the sample's own, the rest at its
    /// partner's.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::augment::Mix;
    /// let mix = Mix { lambda: 0.75, partner: vec![1, 0], rect: None };
    /// let targets = mix.targets(&Tensor::labels(&gpu, &[0, 2], 3)?, 3)?;
    /// assert_eq!(targets.to_vec()?, [0.75, 0.0, 0.25, 0.25, 0.0, 0.75]);
    /// let loss = Tensor::zeros(&gpu, &[2, 3])?.cross_entropy_soft(&targets, Reduction::Mean)?;
    /// assert!((loss.item()? - 3f32.ln()).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the labels are not one `U32` for each sample.
    pub fn targets(&self, labels: &Tensor, classes: usize) -> Result<Tensor> {
        labels.want("mix", DType::U32)?;
        let partner = self.partners("mix", labels)?;
        if labels.rank() != 1 {
            return Err(Error::shape("mix", format!("labels are {:?}; takes one dimension", labels.shape())));
        }
        let batch = self.partner.len();
        let out = Tensor::empty(labels.gpu(), &[batch, classes], DType::F32, "mix")?;
        if out.numel() > 0 {
            let (x, o) = (labels.storage(), partner.storage());
            k::soft_targets(labels.gpu(), x, o, out.storage(), batch, classes, self.lambda)?;
        }
        Ok(out)
    }
}

/// A stretch of about `side * n` pixels around `centre`, cut off at 0 and `n`.
fn span(centre: u32, n: usize, side: f64) -> (u32, u32) {
    let half = (side * n as f64) as u32 / 2;
    (centre.saturating_sub(half), (centre + half).min(n as u32))
}

/// The linear map of [`Mix::apply`]. Its adjoint is the same map with the inverse permutation.
fn mixed(x: &Tensor, partner: Tensor, inverse: Tensor, weights: k::MixWeights) -> Result<Tensor> {
    x.want("mix", DType::F32)?;
    let out = Tensor::empty(x.gpu(), x.shape(), DType::F32, "mix")?;
    if out.numel() > 0 {
        let wc = if let [_, _, w, c] = *x.shape() { [w, c] } else { [1, 1] };
        k::mix(x.gpu(), x.storage(), partner.storage(), out.storage(), x.numel(), x.dim(0), wc, weights)?;
    }
    Ok(out.record("mix", &[x], move |_, grad| Ok(vec![Some(mixed(grad, inverse.clone(), partner.clone(), weights)?)])))
}
