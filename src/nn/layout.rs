//! How a parameter lies in PyTorch's files, where that differs from here.

/// The order of a parameter's elements in files, which is PyTorch's.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// let here = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]; // one filter of [1, 2] pixels and 3 channels
/// let shape = [1, 1, 2, 3];
/// let there = Layout::ChannelsLast.outside(&shape, here.clone());
/// assert_eq!(Layout::ChannelsLast.outside_shape(&shape), [1, 3, 1, 2]);
/// assert_eq!(there, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
/// assert_eq!(Layout::ChannelsLast.inside(&shape, there), here);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The same in both.
    #[default]
    Same,
    /// A convolution's weight: `[out, height, width, in]` here, `[out, in, height, width]` there.
    ChannelsLast,
    /// The weight of a linear layer behind a flattened image of `[height, width, channels]`: its columns are in that order
    /// here, and there by channel, row and column.
    Flattened([usize; 3]),
}

impl Layout {
    /// The shape there of what has `shape` here.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// assert_eq!(Layout::ChannelsLast.outside_shape(&[16, 3, 3, 8]), [16, 8, 3, 3]);
    /// assert_eq!(Layout::Flattened([4, 4, 8]).outside_shape(&[10, 128]), [10, 128]);
    /// ```
    pub fn outside_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::ChannelsLast, &[a, h, w, b]) => vec![a, b, h, w],
            _ => shape.to_vec(),
        }
    }

    /// `[rows, pixels, channels]` here, which are `[rows, channels, pixels]` there; `None` where nothing moves.
    fn block(self, shape: &[usize]) -> Option<[usize; 3]> {
        match (self, shape) {
            (Self::ChannelsLast, &[a, h, w, b]) => Some([a, h * w, b]),
            (Self::Flattened([h, w, c]), &[rows, columns]) if h * w * c == columns => Some([rows, h * w, c]),
            _ => None,
        }
    }

    /// Elements in the order there, from those of `shape` here.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// let columns = vec![0.0, 1.0, 2.0, 3.0]; // of an image of [1, 2] pixels with 2 channels
    /// let there = Layout::Flattened([1, 2, 2]).outside(&[1, 4], columns);
    /// assert_eq!(there, [0.0, 2.0, 1.0, 3.0]); // the first channel's pixels, then the second's
    /// ```
    pub fn outside(self, shape: &[usize], data: Vec<f32>) -> Vec<f32> {
        match self.block(shape) {
            Some([rows, pixels, channels]) => transposed(&data, [rows, pixels, channels]),
            None => data,
        }
    }

    /// Elements in the order here, for `shape` here, from those there.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// let there = vec![0.0, 1.0, 2.0, 3.0]; // [out 1, in 2, height 1, width 2]
    /// let here = Layout::ChannelsLast.inside(&[1, 1, 2, 2], there);
    /// assert_eq!(here, [0.0, 2.0, 1.0, 3.0]); // [out 1, height 1, width 2, in 2]
    /// ```
    pub fn inside(self, shape: &[usize], data: Vec<f32>) -> Vec<f32> {
        match self.block(shape) {
            Some([rows, pixels, channels]) => transposed(&data, [rows, channels, pixels]),
            None => data,
        }
    }
}

/// `[n, a, b]` as `[n, b, a]`.
fn transposed(data: &[f32], [n, a, b]: [usize; 3]) -> Vec<f32> {
    if data.len() != n * a * b || data.is_empty() {
        return data.to_vec();
    }
    let mut out = Vec::with_capacity(data.len());
    for block in data.chunks_exact(a * b) {
        for j in 0..b {
            out.extend((0..a).map(|i| block[i * b + j]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
        // Filter 1, row 0, column 1, channel 2 of [2, 1, 4, 3].
        let conv = Layout::ChannelsLast;
        let outside = conv.outside(&[2, 1, 4, 3], data.clone());
        assert_eq!(conv.outside_shape(&[2, 1, 4, 3]), [2, 3, 1, 4]);
        assert_eq!(outside[12 + 2 * 4 + 1], data[12 + 3 + 2]);
        assert_eq!(conv.inside(&[2, 1, 4, 3], outside), data);
        let flat = Layout::Flattened([2, 2, 3]);
        let outside = flat.outside(&[2, 12], data.clone());
        assert_eq!(outside[12 + 2 * 4 + 3], data[12 + 3 * 3 + 2]);
        assert_eq!(flat.inside(&[2, 12], outside), data);
        assert_eq!(Layout::Same.outside(&[24], data.clone()), data);
    }
}
