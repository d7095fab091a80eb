//! The embedded 8x8 handwritten digits.

use super::{DataPair, Dataset};

/// 1797 records of a label and 64 pixels 0..=16, written by `scripts/make_digits.py`: the training part, then the test
/// part.
static RECORDS: &[u8; 1797 * RECORD] = include_bytes!("digits.bin");
const RECORD: usize = 65;
const TRAIN: usize = 1437;

/// Handwritten digits, 8x8x1: 1437 to train on and 360 to test, always the same split and order, each class in the same
/// proportion.
///
/// The source's pixels 0..=16 are scaled to bytes, `round(v * 255 / 16)`.
///
/// Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
/// 1998, doi:10.24432/C50P49, licensed CC BY 4.0; its test part of 1797 pictures, as scikit-learn distributes it.
/// Changes: scaled, split, packed.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let pair = digits();
/// assert_eq!((pair.train.len(), pair.test.len(), pair.train.classes.len()), (1437, 360, 10));
/// # Ok::<(), Error>(())
/// ```
pub fn digits() -> DataPair {
    let part = |records: &[u8], name: &str| Dataset {
        name: name.into(),
        images: records.chunks_exact(RECORD).flat_map(|r| r[1..].iter().map(|&v| scale(v))).collect(),
        labels: records.chunks_exact(RECORD).map(|r| u32::from(r[0])).collect(),
        height: 8,
        width: 8,
        channels: 1,
        classes: (0..10).map(|d| d.to_string()).collect(),
    };
    let (train, test) = RECORDS.split_at(TRAIN * RECORD);
    DataPair { train: part(train, "digits train"), test: part(test, "digits test") }
}

/// `round(v * 255 / 16)` for `v` in 0..=16.
fn scale(v: u8) -> u8 {
    ((u32::from(v) * 255 + 8) / 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_set_is_whole() {
        let d = digits();
        assert_eq!((d.train.len(), d.test.len()), (1437, 360));
        assert_eq!((d.train.images.len(), d.test.images.len()), (1437 * 64, 360 * 64));
        assert!(RECORDS.chunks(RECORD).all(|r| r[0] < 10 && r[1..].iter().all(|&v| v <= 16)));
        // The counts of the 1797 pictures, as the source's description gives them.
        let (a, b) = (d.train.class_counts(), d.test.class_counts());
        let all: Vec<usize> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
        assert_eq!(all, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        for (&n, &t) in all.iter().zip(&b) {
            assert!((t as f64 - n as f64 * 360.0 / 1797.0).abs() < 1.0, "a class is over- or under-represented: {b:?}");
        }
        let pair = DataPair::new(d.train.clone(), d.test).unwrap();
        // The source's first picture, a zero: its first row is 0 0 5 13 9 1 0 0.
        let (image, label) = pair.train.get(0).unwrap();
        assert_eq!((label, &image[..8]), (0, &[0, 0, 80, 207, 143, 16, 0, 0][..]));
    }

    #[test]
    fn no_test_picture_is_in_the_training_part() {
        let d = digits();
        let seen: std::collections::HashSet<&[u8]> = d.train.images.chunks(64).collect();
        assert!(d.test.images.chunks(64).all(|x| !seen.contains(x)));
    }

    #[test]
    fn pixels_are_rounded_to_the_nearest() {
        for v in 0..=16u8 {
            assert_eq!(scale(v), (f64::from(v) * 255.0 / 16.0).round() as u8);
        }
    }
}
