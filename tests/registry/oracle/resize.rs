//! Sampling NHWC images at other positions. Conventions are those of PyTorch's `interpolate` and `grid_sample`.

use super::{A, build, dims};

/// Pixel `floor(o size / outputs)` for output pixel `o`, in integers.
pub fn resize_nearest(x: &A, oh: usize, ow: usize) -> A {
    let [n, height, width, c] = dims(x.shape());
    build(&[n, oh, ow, c], |i| x[[i[0], i[1] * height / oh, i[2] * width / ow, i[3]]])
}

/// Position in the input of output pixel `o`. With `align_corners` the centres of the corner pixels
/// coincide (a single output is at 0); without, the outer edges of the images do, and positions before the
/// first centre are moved onto it.
fn source(o: usize, outputs: usize, size: usize, align_corners: bool) -> f64 {
    match (align_corners, outputs) {
        (true, 1) => 0.0,
        (true, _) => o as f64 * (size - 1) as f64 / (outputs - 1) as f64,
        (false, _) => ((o as f64 + 0.5) * size as f64 / outputs as f64 - 0.5).max(0.0),
    }
}

/// The two pixels around a position in `0..=size-1` with their weights.
fn neighbours(at: f64, size: usize) -> [(usize, f64); 2] {
    let low = (at.floor() as usize).min(size - 1);
    let fraction = at - low as f64;
    [(low, 1.0 - fraction), ((low + 1).min(size - 1), fraction)]
}

/// Bilinear interpolation to `oh x ow`.
pub fn resize_bilinear(x: &A, oh: usize, ow: usize, align_corners: bool) -> A {
    let [n, height, width, c] = dims(x.shape());
    build(&[n, oh, ow, c], |i| {
        let rows = neighbours(source(i[1], oh, height, align_corners), height);
        let columns = neighbours(source(i[2], ow, width, align_corners), width);
        rows.iter().flat_map(|&(iy, wy)| columns.map(|(ix, wx)| wy * wx * x[[i[0], iy, ix, i[3]]])).sum()
    })
}

/// What [`grid_sample`] finds outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Pixels outside are zero.
    Zeros,
    /// Positions outside move to the nearest pixel centre of the border.
    Border,
}

/// Bilinear samples of `x [N, H, W, C]` at `grid [N, oh, ow, 2]` of (x, y) positions: -1 and 1 are the outer
/// edges of the image (`align_corners = false`), so pixel `i` of `size` lies at `(2 i + 1) / size - 1`.
pub fn grid_sample(x: &A, grid: &A, outside: Outside) -> A {
    let [n, height, width, c] = dims(x.shape());
    let [_, oh, ow, _] = dims(grid.shape());
    let position = |g: f64, size: usize| {
        let at = ((g + 1.0) * size as f64 - 1.0) / 2.0;
        if outside == Outside::Border { at.clamp(0.0, (size - 1) as f64) } else { at }
    };
    build(&[n, oh, ow, c], |i| {
        let (px, py) = (position(grid[[i[0], i[1], i[2], 0]], width), position(grid[[i[0], i[1], i[2], 1]], height));
        let mut sum = 0.0;
        for (iy, wy) in [(py.floor(), 1.0 - (py - py.floor())), (py.floor() + 1.0, py - py.floor())] {
            for (ix, wx) in [(px.floor(), 1.0 - (px - px.floor())), (px.floor() + 1.0, px - px.floor())] {
                if (0.0..height as f64).contains(&iy) && (0.0..width as f64).contains(&ix) {
                    sum += wy * wx * x[[i[0], iy as usize, ix as usize, i[3]]];
                }
            }
        }
        sum
    })
}
