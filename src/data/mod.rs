//! Data sets on the host: what a set is, the readers of the usual file layouts, the embedded digits, made-up sets and
//! the order in which a training run visits them. Nothing here touches a GPU.
//!
//! | what | where |
//! |---|---|
//! | any folder on disk, its layout found by itself | [`open`] |
//! | MNIST, Fashion-MNIST, EMNIST and others in IDX files, `.gz` too | [`idx`] |
//! | CIFAR-10 and CIFAR-100, binary version | [`cifar`] |
//! | a folder of PNG or JPEG pictures per class | `folder` (cargo feature `datasets`) |
//! | 1797 handwritten digits, 8x8, embedded | [`digits()`] |
//! | made-up sets for tests | [`synthetic`] |
//! | epochs, shuffling, batches, subsets | [`loader`] |
//!
//! ```
//! use shadegrad::data::{Sampler, digits};
//! let (train, validation) = digits().train.split(0.1, 0)?; // a tenth of every class
//! let mut sampler = Sampler::new(train.len(), 64)?.seed(0);
//! while let Some(batch) = sampler.next_batch() {
//!     let (images, labels) = train.batch(&batch.indices)?; // bytes [batch, 8, 8, 1]
//!     assert_eq!(images.len(), labels.len() * 64);
//! }
//! assert_eq!(train.len() + validation.len(), 1437);
//! # Ok::<(), shadegrad::Error>(())
//! ```

use std::ops::Range;

use crate::error::{Error, Result};

pub mod cifar;
pub mod digits;
#[cfg(feature = "datasets")]
pub mod folder;
pub mod idx;
pub mod loader;
mod open;
pub mod synthetic;

pub use cifar::CifarLabels;
pub use digits::digits;
pub use loader::{Batch, Position, Sampler};
pub use open::{DataFormat, OpenOptions, open};

/// Labelled pictures in memory: bytes, rows of pixels of channels (NHWC), one label each.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let pixels = vec![0, 64, 128, 255]; // two pictures of 1 x 2 grey pixels
/// let set = Dataset::new("two", pixels, vec![0, 1], [1, 2, 1], vec!["dark".into(), "light".into()])?;
/// assert_eq!(set.get(1), Some((&[128u8, 255][..], 1)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// What the set is called in logs and reports.
    pub name: String,
    /// `len * height * width * channels` bytes, NHWC, 0..=255.
    pub images: Vec<u8>,
    /// One label per picture, each under `classes.len()`.
    pub labels: Vec<u32>,
    /// Rows of a picture.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Channels of a pixel: 1 for grey, 3 for RGB.
    pub channels: usize,
    /// The name of each label.
    pub classes: Vec<String>,
}

/// A training and a test set of the same picture size and classes.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let pair = digits();
/// let DataPair { train, test } = &pair;
/// assert_eq!((train.len(), test.len()), (1437, 360));
/// assert_eq!(train.classes, test.classes);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPair {
    /// What is trained on.
    pub train: Dataset,
    /// What is only measured.
    pub test: Dataset,
}

/// Mean and standard deviation of each channel, on the scale where a byte of 255 is 1.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let set = Dataset::new("two", vec![0, 255], vec![0, 0], [1, 1, 1], vec!["all".into()])?;
/// assert_eq!(set.channel_stats()?, ChannelStats { mean: vec![0.5], std: vec![0.5] });
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStats {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel over all pixels (divided by their number, not by one less).
    pub std: Vec<f32>,
}

impl Dataset {
    /// A set from its parts, checked: `images` holds `labels.len() * height * width * channels` bytes in NHWC order and
    /// every label is under `classes.len()`.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let classes = vec!["dark".to_string(), "light".to_string()];
    /// let pixels = vec![0, 10, 250, 255]; // two pictures of 1 x 2 grey pixels
    /// let set = Dataset::new("two", pixels.clone(), vec![0, 1], [1, 2, 1], classes.clone())?;
    /// assert_eq!((set.len(), set.image_len()), (2, 2));
    /// assert!(Dataset::new("two", pixels, vec![0, 2], [1, 2, 1], classes).is_err()); // there is no class 2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] when the sizes do not fit, [`Error::Value`] when a label has no class or a size is 0.
    pub fn new(
        name: impl Into<String>,
        images: Vec<u8>,
        labels: Vec<u32>,
        [height, width, channels]: [usize; 3],
        classes: Vec<String>,
    ) -> Result<Self> {
        const OP: &str = "Dataset::new";
        let name = name.into();
        if height == 0 || width == 0 || channels == 0 {
            let found = format!("{name}: pictures of {height}x{width}x{channels}; every size must be at least 1");
            return Err(Error::value(OP, found));
        }
        let want = height.checked_mul(width).and_then(|v| v.checked_mul(channels)?.checked_mul(labels.len()));
        if want != Some(images.len()) {
            return Err(Error::shape(
                OP,
                format!(
                    "{name}: {} bytes for {} labels and pictures of {height}x{width}x{channels}; give labels x height \
                     x width \
                     x channels bytes, one byte a value",
                    images.len(),
                    labels.len()
                ),
            ));
        }
        if let Some(i) = labels.iter().position(|&l| l as usize >= classes.len()) {
            return Err(Error::value(
                OP,
                format!(
                    "{name}: label {} of picture {i}, but there are {} classes; labels count from 0, name every class",
                    labels[i],
                    classes.len()
                ),
            ));
        }
        Ok(Self { name, images, labels, height, width, channels, classes })
    }

    /// Number of pictures.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// assert_eq!(synthetic::blobs(20, 2, 8, 8, 3, 0)?.len(), 20);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no pictures.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let set = synthetic::blobs(20, 2, 8, 8, 3, 0)?;
    /// assert!(!set.is_empty() && set.subset(&[])?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one picture: `height * width * channels`.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let set = synthetic::blobs(20, 2, 8, 8, 3, 0)?;
    /// assert_eq!(set.image_len(), 8 * 8 * 3);
    /// assert_eq!(set.images.len(), set.len() * set.image_len());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Picture `i` (HWC bytes) and its label, or `None` past the end.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into()];
    /// let set = Dataset::new("two", vec![0, 10, 250, 255], vec![0, 1], [1, 2, 1], classes)?;
    /// assert_eq!(set.get(1), Some((&[250, 255][..], 1)));
    /// assert_eq!(set.get(2), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get(&self, i: usize) -> Option<(&[u8], u32)> {
        let label = *self.labels.get(i)?;
        let size = self.image_len();
        Some((&self.images[i * size..][..size], label))
    }

    /// The pictures (`indices.len()` x HWC bytes) and labels at `indices`, in that order; an index may repeat.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into()];
    /// let set = Dataset::new("two", vec![0, 10, 250, 255], vec![0, 1], [1, 2, 1], classes)?;
    /// let (images, labels) = set.batch(&[1, 1, 0])?;
    /// assert_eq!(images, [250, 255, 250, 255, 0, 10]);
    /// assert_eq!(labels, [1, 1, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when an index is past the end.
    pub fn batch(&self, indices: &[u32]) -> Result<(Vec<u8>, Vec<u32>)> {
        let mut images = Vec::with_capacity(indices.len() * self.image_len());
        let mut labels = Vec::with_capacity(indices.len());
        for &i in indices {
            let Some((image, label)) = self.get(i as usize) else {
                let detail =
                    format!("index {i} in {}, which holds {} pictures; indices count from 0", self.name, self.len());
                return Err(Error::value("Dataset::batch", detail));
            };
            images.extend_from_slice(image);
            labels.push(label);
        }
        Ok((images, labels))
    }

    /// A set of the pictures at `indices`, in that order, copied.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into()];
    /// let set = Dataset::new("three", vec![0, 128, 255], vec![0, 1, 1], [1, 1, 1], classes)?;
    /// let some = set.subset(&[2, 0])?;
    /// assert_eq!((some.images, some.labels), (vec![255, 0], vec![1, 0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when an index is past the end.
    pub fn subset(&self, indices: &[u32]) -> Result<Self> {
        let (images, labels) = self.batch(indices)?;
        Ok(Self { name: self.name.clone(), images, labels, classes: self.classes.clone(), ..*self })
    }

    /// A set of the pictures of a range, copied.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into()];
    /// let set = Dataset::new("three", vec![0, 128, 255], vec![0, 1, 1], [1, 1, 1], classes)?;
    /// assert_eq!(set.subset_range(1..3)?.images, [128, 255]);
    /// assert!(set.subset_range(1..4).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when the range is turned round or ends past the last picture.
    pub fn subset_range(&self, range: Range<usize>) -> Result<Self> {
        let Some(labels) = self.labels.get(range.clone()) else {
            let detail = format!(
                "pictures {}..{} of {}, which holds {}; ask for fewer",
                range.start,
                range.end,
                self.name,
                self.len()
            );
            return Err(Error::value("Dataset::subset_range", detail));
        };
        let size = self.image_len();
        let images = self.images[range.start * size..range.end * size].to_vec();
        Ok(Self { name: self.name.clone(), images, labels: labels.to_vec(), classes: self.classes.clone(), ..*self })
    }

    /// The first `n` pictures of every class, in the order of the set.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into()];
    /// let set = Dataset::new("four", vec![200, 0, 1, 201], vec![1, 0, 0, 1], [1, 1, 1], classes)?;
    /// let few = set.first_per_class(1)?;
    /// assert_eq!((few.images, few.labels), (vec![200, 0], vec![1, 0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when a class has fewer than `n`.
    pub fn first_per_class(&self, n: usize) -> Result<Self> {
        self.subset(&loader::first_per_class(&self.labels, self.classes.len(), n)?)
    }

    /// The pictures at a `by`-th of their height and width: means of squares of `by` x `by` pixels, rounded. Pixels that
    /// do not fill a square are left out.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["all".into()];
    /// let set = Dataset::new("one", vec![10, 20, 30, 41], vec![0], [2, 2, 1], classes)?;
    /// let small = set.shrink(2)?;
    /// assert_eq!((small.height, small.width), (1, 1));
    /// assert_eq!(small.images, [25]); // the mean 25.25, rounded
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when `by` is 0 or larger than a picture.
    pub fn shrink(&self, by: usize) -> Result<Self> {
        let (h, w, c) = (self.height / by.max(1), self.width / by.max(1), self.channels);
        if by == 0 || h == 0 || w == 0 {
            return Err(Error::value(
                "Dataset::shrink",
                format!("pictures of {}x{} by {by}; shrink by 1 up to the shorter side", self.height, self.width),
            ));
        }
        let area = by * by;
        let mut images = Vec::with_capacity(self.len() * h * w * c);
        for picture in self.images.chunks_exact(self.image_len()) {
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                images.extend((0..c).map(|k| {
                    let at = |i: usize| ((y * by + i / by) * self.width + x * by + i % by) * c + k;
                    let sum: usize = (0..area).map(|i| usize::from(picture[at(i)])).sum();
                    ((sum + area / 2) / area) as u8
                }));
            }
        }
        let (labels, classes) = (self.labels.clone(), self.classes.clone());
        Ok(Self { name: self.name.clone(), images, labels, classes, height: h, width: w, channels: c })
    }

    /// Cuts the set in order: the first `n` pictures and the rest.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let (train, validation) = digits().train.split_at(1200)?;
    /// assert_eq!((train.len(), validation.len()), (1200, 237));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when the set holds fewer than `n`.
    pub fn split_at(&self, n: usize) -> Result<(Self, Self)> {
        Ok((self.subset_range(0..n)?, self.subset_range(n.min(self.len())..self.len())?))
    }

    /// Splits off `fraction` of every class, chosen by `seed`: returns (the rest, the part split off), each in the
    /// order of the set.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let set = synthetic::blobs(20, 2, 4, 4, 1, 0)?; // ten pictures of each class
    /// let (rest, part) = set.split(0.2, 7)?;
    /// assert_eq!((rest.class_counts(), part.class_counts()), (vec![8, 8], vec![2, 2]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when `fraction` is not between 0 and 1 or either part would be empty.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (rest, part) = loader::stratified_split(&self.labels, self.classes.len(), fraction, seed)?;
        Ok((self.subset(&rest)?, self.subset(&part)?))
    }

    /// How many pictures each class has.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let classes = vec!["dark".into(), "light".into(), "none".into()];
    /// let set = Dataset::new("three", vec![0, 128, 255], vec![0, 1, 1], [1, 1, 1], classes)?;
    /// assert_eq!(set.class_counts(), [1, 2, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &l in &self.labels {
            counts[l as usize] += 1;
        }
        counts
    }

    /// Mean and standard deviation of each channel over every pixel of every picture, in 0..1. The sums are exact
    /// integers.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let stats = digits().train.channel_stats()?;
    /// assert_eq!((stats.mean.len(), stats.std.len()), (1, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when the set is empty.
    pub fn channel_stats(&self) -> Result<ChannelStats> {
        if self.is_empty() {
            let detail = format!("{} holds no pictures; there is no mean to take", self.name);
            return Err(Error::value("Dataset::channel_stats", detail));
        }
        let n = (self.len() * self.height * self.width) as u128;
        let mut sums = vec![(0u64, 0u64); self.channels];
        for pixel in self.images.chunks_exact(self.channels) {
            for (s, &v) in sums.iter_mut().zip(pixel) {
                s.0 += u64::from(v);
                s.1 += u64::from(v) * u64::from(v);
            }
        }
        let mean = sums.iter().map(|s| (s.0 as f64 / n as f64 / 255.0) as f32).collect();
        // n * sum(x^2) - sum(x)^2 is n^2 times the variance, without cancellation in integers.
        let spread = |s: &(u64, u64)| (n * u128::from(s.1) - u128::from(s.0) * u128::from(s.0)) as f64;
        let std = sums.iter().map(|s| (spread(s).sqrt() / n as f64 / 255.0) as f32).collect();
        Ok(ChannelStats { mean, std })
    }
}

impl DataPair {
    /// Both parts through [`Dataset::shrink`].
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let pair = digits().shrink(2)?;
    /// assert_eq!([pair.train.height, pair.test.width], [4, 4]); // from 8 x 8
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn shrink(&self, by: usize) -> Result<Self> {
        Ok(Self { train: self.train.shrink(by)?, test: self.test.shrink(by)? })
    }

    /// A pair, checked to have one picture size and one list of classes.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let (train, test) = synthetic::blobs(20, 2, 4, 4, 1, 0)?.split_at(15)?;
    /// let pair = DataPair::new(train.clone(), test)?;
    /// assert_eq!((pair.train.len(), pair.test.len()), (15, 5));
    /// assert!(DataPair::new(train, digits().test).is_err()); // of another size
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] when the two differ.
    pub fn new(train: Dataset, test: Dataset) -> Result<Self> {
        let size = |d: &Dataset| [d.height, d.width, d.channels];
        if size(&train) != size(&test) || train.classes != test.classes {
            return Err(Error::shape(
                "DataPair::new",
                format!(
                    "{} has pictures of {:?} (height, width, channels) and {} classes, {} has {:?} and {}; both must \
                     agree, the \
                     classes' names included",
                    train.name,
                    size(&train),
                    train.classes.len(),
                    test.name,
                    size(&test),
                    test.classes.len()
                ),
            ));
        }
        Ok(Self { train, test })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Dataset {
        let images = (0..6 * 4).collect();
        let classes = vec!["a".into(), "b".into(), "c".into()];
        Dataset::new("small", images, vec![0, 1, 2, 0, 1, 2], [2, 1, 2], classes).unwrap()
    }

    #[test]
    fn pictures_shrink_by_means() {
        let images = vec![1, 2, 90, 3, 5, 91, 10, 11, 92, 12, 13, 93, 7, 7, 7];
        let data = Dataset::new("t", images, vec![0], [5, 3, 1], vec!["a".into()]).unwrap();
        let half = data.shrink(2).unwrap();
        // (1 + 2 + 3 + 5 + 2) / 4 and (10 + 11 + 12 + 13 + 2) / 4; the last row and column fill no square.
        assert_eq!((half.height, half.width, half.images), (2, 1, vec![3, 12]));
        assert_eq!(data.shrink(1).unwrap(), data);
        assert!(data.shrink(0).is_err() && data.shrink(4).unwrap_err().to_string().contains("5x3"));
    }

    #[test]
    fn parts_must_fit() {
        let make = |bytes: usize, labels: &[u32], hwc: [usize; 3], classes: usize| {
            let names = (0..classes).map(|i| i.to_string()).collect();
            Dataset::new("t", vec![0; bytes], labels.to_vec(), hwc, names).map(|_| ()).map_err(|e| e.to_string())
        };
        assert!(make(8, &[0, 1], [2, 2, 1], 2).is_ok());
        assert!(make(0, &[], [2, 2, 1], 0).is_ok());
        let short = make(7, &[0, 1], [2, 2, 1], 2).unwrap_err();
        assert!(short.contains("7 bytes") && short.contains("2x2x1") && short.contains("give labels"), "{short}");
        let label = make(8, &[0, 2], [2, 2, 1], 2).unwrap_err();
        assert!(label.contains("label 2 of picture 1") && label.contains("2 classes"), "{label}");
        assert!(make(0, &[0], [0, 2, 1], 1).unwrap_err().contains("at least 1"));
        assert!(make(8, &[0, 1], [usize::MAX, 3, 1], 2).is_err(), "the product overflows");
    }

    #[test]
    fn pictures_are_taken_by_index_and_range() {
        let d = small();
        assert_eq!(d.get(1), Some((&[4, 5, 6, 7][..], 1)));
        assert_eq!(d.get(6), None);
        let s = d.subset(&[5, 0, 5]).unwrap();
        assert_eq!((s.len(), &s.labels[..]), (3, &[2, 0, 2][..]));
        assert_eq!(s.get(2).unwrap().0, &[20, 21, 22, 23]);
        assert_eq!(d.subset_range(2..4).unwrap(), d.subset(&[2, 3]).unwrap());
        assert_eq!(d.batch(&[]).unwrap(), (vec![], vec![]));
        assert!(d.subset(&[6]).unwrap_err().to_string().contains("index 6"));
        assert!(d.subset_range(4..7).unwrap_err().to_string().contains("4..7"));
        #[allow(clippy::reversed_empty_ranges)]
        let turned = d.subset_range(3..1);
        assert!(turned.is_err());
        let (a, b) = d.split_at(4).unwrap();
        assert_eq!((a.len(), b.len(), b.get(0)), (4, 2, d.get(4)));
        assert!(d.split_at(7).is_err());
        assert_eq!(d.first_per_class(1).unwrap(), d.subset_range(0..3).unwrap());
        assert!(d.first_per_class(3).is_err());
        assert_eq!(d.class_counts(), [2, 2, 2]);
    }

    #[test]
    fn split_is_stratified_and_repeatable() {
        let (rest, part) = small().split(0.5, 3).unwrap();
        assert_eq!((rest.class_counts(), part.class_counts()), (vec![1; 3], vec![1; 3]));
        assert_eq!(small().split(0.5, 3).unwrap(), (rest, part));
        assert!(small().split(0.0, 3).is_err());
    }

    #[test]
    fn channel_statistics() {
        // Channel 0 holds 0 and 255 equally often; channel 1 is constant.
        let images = vec![0, 51, 255, 51, 255, 51, 0, 51];
        let d = Dataset::new("t", images, vec![0, 0], [2, 1, 2], vec!["x".into()]).unwrap();
        let s = d.channel_stats().unwrap();
        assert_eq!((s.mean, s.std), (vec![0.5, 0.2], vec![0.5, 0.0]));
        assert!(d.subset(&[]).unwrap().channel_stats().is_err());
    }

    #[test]
    fn pairs_must_agree() {
        let d = small();
        assert!(DataPair::new(d.clone(), d.subset(&[0]).unwrap()).is_ok());
        let mut other = d.clone();
        other.classes[2] = "z".into();
        assert!(DataPair::new(d.clone(), other).is_err());
        let flat = Dataset { height: 1, width: 2, ..d.clone() };
        assert!(DataPair::new(d, flat).unwrap_err().to_string().contains("both must agree"));
    }
}
