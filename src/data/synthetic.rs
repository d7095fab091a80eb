//! Made-up sets: no files, the same bytes on every machine.
//!
//! ```
//! use shadegrad::data::synthetic::blobs_pair;
//! let pair = blobs_pair(100, 20, 10, [16, 16, 3], 0)?; // seed 0
//! assert_eq!((pair.train.len(), pair.train.get(13).map(|(_, label)| label)), (100, Some(3)));
//! # Ok::<(), shadegrad::Error>(())
//! ```

use super::{DataPair, Dataset};
use crate::error::{Error, Result};
use crate::rng::Philox;

/// Stream of the classes' places and colours; picture `i` draws from stream `PICTURES + i`.
const CLASSES: u64 = 0x5359_4E00_0000_0000;
const PICTURES: u64 = 0x5359_4E01_0000_0000;

/// `n` pictures of `height` x `width` x `channels` with one round spot each, on noise. Spot place and colour belong to
/// the class and jitter a little; picture `i` has label `i % classes`. A small network learns it in a few steps, and
/// nothing does at chance.
///
/// Only additions, multiplications and divisions are used, so the bytes do not depend on the machine. The classes
/// depend on `seed` (and the sizes) alone and picture `i` on `seed` and `i`: a larger `n` only appends.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let set = synthetic::blobs(20, 2, 8, 8, 3, 0)?;
/// assert_eq!((set.len(), set.class_counts()), (20, vec![10, 10]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] when a size or `classes` is 0 or the bytes do not fit in memory's address range.
pub fn blobs(n: usize, classes: usize, height: usize, width: usize, channels: usize, seed: u64) -> Result<Dataset> {
    const OP: &str = "synthetic::blobs";
    if classes == 0 || height == 0 || width == 0 || channels == 0 || u32::try_from(classes).is_err() {
        let found =
            format!("{classes} classes of pictures of {height}x{width}x{channels}; every number must be at least 1");
        return Err(Error::value(OP, found));
    }
    let Some(bytes) = height.checked_mul(width).and_then(|v| v.checked_mul(channels)?.checked_mul(n)) else {
        return Err(Error::value(
            OP,
            format!("{n} pictures of {height}x{width}x{channels} are too many bytes; ask for fewer"),
        ));
    };
    let mut rng = Philox::new(seed, CLASSES);
    let spots: Vec<Spot> = (0..classes).map(|k| Spot::of_class(k, classes, channels, &mut rng)).collect();
    let mut images = Vec::with_capacity(bytes);
    let mut labels = Vec::with_capacity(n);
    for i in 0..n {
        let spot = &spots[i % classes];
        let mut rng = Philox::new(seed, PICTURES.wrapping_add(i as u64));
        let mut jitter = |by: f64| (rng.uniform_f64() - 0.5) * by;
        let (cy, cx) = (spot.y + jitter(0.12), spot.x + jitter(0.12));
        let gain = 1.0 + jitter(0.3);
        for y in 0..height {
            for x in 0..width {
                let dy = (y as f64 + 0.5) / height as f64 - cy;
                let dx = (x as f64 + 0.5) / width as f64 - cx;
                let bump = (1.0 - (dy * dy + dx * dx) / (RADIUS * RADIUS)).max(0.0);
                for &colour in &spot.colour {
                    let v = 48.0 + gain * bump * colour + jitter(60.0);
                    images.push(v.clamp(0.0, 255.0) as u8);
                }
            }
        }
        labels.push((i % classes) as u32);
    }
    let names = (0..classes).map(|k| format!("blob {k}")).collect();
    Dataset::new(format!("blobs (seed {seed})"), images, labels, [height, width, channels], names)
}

/// A training and a test set of the same classes: the first `train` and the next `test` pictures of [`blobs`].
///
/// ```
/// # use shadegrad::{data::*, *};
/// let pair = synthetic::blobs_pair(30, 10, 5, [8, 8, 3], 0)?; // [height, width, channels]
/// assert_eq!((pair.train.len(), pair.test.len()), (30, 10));
/// assert_eq!(pair.test.class_counts(), [2; 5]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`blobs`].
pub fn blobs_pair(train: usize, test: usize, classes: usize, [h, w, c]: [usize; 3], seed: u64) -> Result<DataPair> {
    let Some(n) = train.checked_add(test) else {
        return Err(Error::value(
            "synthetic::blobs_pair",
            format!("{train} + {test} pictures are too many; ask for fewer"),
        ));
    };
    let (train, test) = blobs(n, classes, h, w, c, seed)?.split_at(train)?;
    DataPair::new(train, test)
}

/// A spot's reach, as a part of the picture's side.
const RADIUS: f64 = 0.35;

struct Spot {
    y: f64,
    x: f64,
    colour: Vec<f64>,
}

impl Spot {
    /// Class `k`'s place lies in its own cell of a square lattice, so that no two classes coincide; the colour is
    /// drawn.
    fn of_class(k: usize, classes: usize, channels: usize, rng: &mut Philox) -> Self {
        let side = (1..).find(|s: &usize| s.saturating_mul(*s) >= classes).unwrap_or(1);
        let mut place = |cell: usize| (cell as f64 + 0.5 + 0.3 * (rng.uniform_f64() - 0.5)) / side as f64;
        let (y, x) = (place(k / side), place(k % side));
        Self { y, x, colour: (0..channels).map(|_| 90.0 + 90.0 * rng.uniform_f64()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_bytes_and_more_only_appends() {
        let a = blobs(20, 4, 8, 8, 3, 1).unwrap();
        let b = blobs(30, 4, 8, 8, 3, 1).unwrap();
        assert_eq!(a, b.subset_range(0..20).unwrap());
        assert_ne!(a.images, blobs(20, 4, 8, 8, 3, 2).unwrap().images);
        assert_eq!(a.class_counts(), [5; 4]);
        assert_eq!((a.images.len(), a.get(0).unwrap().0.len()), (20 * 192, 192));
    }

    #[test]
    fn classes_can_be_told_apart() {
        // The nearest class mean of the training part labels nearly all of the test part.
        let pair = blobs_pair(200, 100, 10, [8, 8, 1], 0).unwrap();
        let size = pair.train.image_len();
        let mut means = vec![vec![0.0f64; size]; 10];
        for i in 0..pair.train.len() {
            let (image, label) = pair.train.get(i).unwrap();
            means[label as usize].iter_mut().zip(image).for_each(|(m, &v)| *m += f64::from(v) / 20.0);
        }
        let far = |image: &[u8], m: &[f64]| image.iter().zip(m).map(|(&v, m)| (f64::from(v) - m).powi(2)).sum::<f64>();
        let right = (0..pair.test.len()).filter(|&i| {
            let (image, label) = pair.test.get(i).unwrap();
            let best = (0..10).min_by(|&a, &b| far(image, &means[a]).total_cmp(&far(image, &means[b])));
            best == Some(label as usize)
        });
        assert!(right.count() >= 95);
    }

    #[test]
    fn sizes_are_checked() {
        assert!(blobs(0, 2, 4, 4, 1, 0).unwrap().is_empty());
        assert!(blobs(4, 0, 4, 4, 1, 0).unwrap_err().to_string().contains("at least 1"));
        assert!(blobs(4, 2, 4, 0, 1, 0).is_err());
        assert!(blobs(usize::MAX, 2, 4, 4, 1, 0).unwrap_err().to_string().contains("too many"));
        assert!(blobs_pair(usize::MAX, 1, 2, [1, 1, 1], 0).is_err());
    }
}
