//! Two-dimensional convolution (cross-correlation, as in every framework) of NHWC images with weights
//! `[out][kh][kw][in / groups]`, and its two adjoints. All three are sums over the same products.

use super::{A, dims};

/// Geometry of a convolution; pairs are (height, width), padding is zeros on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

/// One product of a convolution: the indices into the image, the weight and the result.
struct Tap {
    x: [usize; 4],
    w: [usize; 4],
    y: [usize; 4],
}

/// Height and width of the result for an input of `size` and a kernel of `kernel`.
fn output_size(size: [usize; 2], kernel: [usize; 2], p: &Conv) -> [usize; 2] {
    [0, 1].map(|d| (size[d] + 2 * p.padding[d] - p.dilation[d] * (kernel[d] - 1) - 1) / p.stride[d] + 1)
}

/// Calls `f` for every product `y[n, oy, ox, k] += x[n, iy, ix, c] w[k, r, s, c - first of the group]`
/// that does not fall into the padding.
fn for_each_tap(x: &[usize], w: &[usize], p: &Conv, mut f: impl FnMut(Tap)) {
    let [batch, height, width, channels] = dims(x);
    let [outputs, kh, kw, group_in] = dims(w);
    assert_eq!(channels, group_in * p.groups, "channels of {x:?} and {w:?}");
    let group_out = outputs / p.groups;
    let [oh, ow] = output_size([height, width], [kh, kw], p);
    // The input row (column) that output `o` sees through kernel row (column) `r`.
    let input = |d: usize, o: usize, r: usize, size: usize| {
        (o * p.stride[d] + r * p.dilation[d]).checked_sub(p.padding[d]).filter(|&i| i < size)
    };
    for n in 0..batch {
        for (oy, r) in pairs(oh, kh) {
            let Some(iy) = input(0, oy, r, height) else { continue };
            for (ox, s) in pairs(ow, kw) {
                let Some(ix) = input(1, ox, s, width) else { continue };
                for (k, c) in pairs(outputs, group_in) {
                    let channel = k / group_out * group_in + c;
                    f(Tap { x: [n, iy, ix, channel], w: [k, r, s, c], y: [n, oy, ox, k] });
                }
            }
        }
    }
}

fn pairs(m: usize, n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..m).flat_map(move |i| (0..n).map(move |j| (i, j)))
}

/// `x [N, H, W, C]`, `w [K, R, S, C/groups]`, `bias [K]` -> `[N, OH, OW, K]`.
pub fn conv2d(x: &A, w: &A, bias: Option<&A>, p: &Conv) -> A {
    let [n, height, width, _] = dims(x.shape());
    let [k, kh, kw, _] = dims(w.shape());
    let [oh, ow] = output_size([height, width], [kh, kw], p);
    let mut y = super::build(&[n, oh, ow, k], |i| bias.map_or(0.0, |b| b[i[3]]));
    for_each_tap(x.shape(), w.shape(), p, |t| y[t.y] += x[t.x] * w[t.w]);
    y
}

/// The adjoint of [`conv2d`] in its image: `dy [N, OH, OW, K]` -> `x_shape`.
pub fn conv2d_input_grad(dy: &A, w: &A, x_shape: &[usize], p: &Conv) -> A {
    let mut dx = A::zeros(x_shape);
    for_each_tap(x_shape, w.shape(), p, |t| dx[t.x] += dy[t.y] * w[t.w]);
    dx
}

/// The adjoint of [`conv2d`] in its weight: `dy [N, OH, OW, K]`, `x [N, H, W, C]` -> `w_shape`.
pub fn conv2d_weight_grad(dy: &A, x: &A, w_shape: &[usize], p: &Conv) -> A {
    let mut dw = A::zeros(w_shape);
    for_each_tap(x.shape(), w_shape, p, |t| dw[t.w] += dy[t.y] * x[t.x]);
    dw
}

/// Transposed convolution of `x [N, H, W, K]` with `w [K, R, S, C/groups]`, `bias [C]`: the adjoint of the
/// [`conv2d`] with the same weight, applied to an image of
/// `(H - 1) stride - 2 padding + dilation (R - 1) + 1 + output_padding` rows, and columns alike.
pub fn conv_transpose2d(x: &A, w: &A, bias: Option<&A>, p: &Conv, output_padding: [usize; 2]) -> A {
    let [n, height, width, _] = dims(x.shape());
    let [_, kh, kw, group_in] = dims(w.shape());
    let (size, kernel) = ([height, width], [kh, kw]);
    let [oh, ow] = [0, 1].map(|d| {
        (size[d] - 1) * p.stride[d] + p.dilation[d] * (kernel[d] - 1) + 1 + output_padding[d] - 2 * p.padding[d]
    });
    let mut y = conv2d_input_grad(x, w, &[n, oh, ow, group_in * p.groups], p);
    if let Some(bias) = bias {
        y += bias;
    }
    y
}
