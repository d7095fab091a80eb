use crate::oracle::array;
use crate::oracle::resize::*;
use crate::{close, noise};

#[test]
fn lines_by_hand() {
    let x = array(&[1, 1, 2, 1], &[10.0, 20.0]);
    close(&resize_nearest(&x, 1, 4), &array(&[1, 1, 4, 1], &[10.0, 10.0, 20.0, 20.0]), 0.0);
    close(&resize_nearest(&x, 1, 3), &array(&[1, 1, 3, 1], &[10.0, 10.0, 20.0]), 0.0);
    close(&resize_bilinear(&x, 1, 4, false), &array(&[1, 1, 4, 1], &[10.0, 12.5, 17.5, 20.0]), 1e-14);
    close(&resize_bilinear(&x, 1, 3, true), &array(&[1, 1, 3, 1], &[10.0, 15.0, 20.0]), 1e-14);
    let four = array(&[1, 1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    close(&resize_bilinear(&four, 1, 2, false), &array(&[1, 1, 2, 1], &[1.5, 3.5]), 1e-14);
    close(&resize_bilinear(&four, 1, 1, true), &array(&[1, 1, 1, 1], &[1.0]), 0.0);
    close(&resize_nearest(&four, 2, 2), &array(&[1, 2, 2, 1], &[1.0, 3.0, 1.0, 3.0]), 0.0);
}

#[test]
fn same_size_is_the_identity() {
    let x = noise(&[2, 3, 5, 2]);
    close(&resize_nearest(&x, 3, 5), &x, 0.0);
    close(&resize_bilinear(&x, 3, 5, false), &x, 1e-14);
    close(&resize_bilinear(&x, 3, 5, true), &x, 1e-14);
}

/// Positions of the centres of `oh x ow` equal cells.
fn centres(n: usize, oh: usize, ow: usize) -> crate::A {
    let centre = |i: usize, of: usize| (2 * i + 1) as f64 / of as f64 - 1.0;
    crate::A::from_shape_fn(&[n, oh, ow, 2][..], |i| if i[3] == 0 { centre(i[2], ow) } else { centre(i[1], oh) })
}

#[test]
fn sampling_at_the_centres() {
    let x = noise(&[2, 3, 5, 2]);
    close(&grid_sample(&x, &centres(2, 3, 5), Outside::Zeros), &x, 1e-14);
    // With the border repeated, the centres of other cells are what a resize takes.
    close(&grid_sample(&x, &centres(2, 4, 7), Outside::Border), &resize_bilinear(&x, 4, 7, false), 1e-13);
}

#[test]
fn outside_the_image() {
    let x = array(&[1, 1, 2, 1], &[10.0, 20.0]);
    // Column positions: -1 is half a pixel left of the first centre, 1.5 is a pixel right of the last.
    let grid = array(&[1, 1, 3, 2], &[-1.0, 0.0, 1.5, 0.0, 0.0, 1.0]);
    close(&grid_sample(&x, &grid, Outside::Zeros), &array(&[1, 1, 3, 1], &[5.0, 0.0, 7.5]), 1e-14);
    close(&grid_sample(&x, &grid, Outside::Border), &array(&[1, 1, 3, 1], &[10.0, 20.0, 15.0]), 1e-14);
}
