use crate::oracle::array;
use crate::oracle::pool::*;
use crate::{close, indices, noise};

#[test]
fn windows_by_hand() {
    let x = array(&[1, 3, 3, 1], &[1.0, 2.0, 3.0, 4.0, 9.0, 6.0, 7.0, 9.0, 5.0]);
    let p = Pool { kernel: [2, 2], stride: [1, 1], padding: [0, 0] };
    let (y, at) = max_pool2d(&x, &p);
    close(&y, &array(&[1, 2, 2, 1], &[9.0; 4]), 0.0);
    assert_eq!(at, indices(&[1, 2, 2, 1], &[4, 4, 4, 4]));
    close(&avg_pool2d(&x, &p), &array(&[1, 2, 2, 1], &[4.0, 5.0, 7.25, 7.25]), 0.0);
    let padded = Pool { kernel: [2, 2], stride: [2, 2], padding: [1, 1] };
    close(&max_pool2d(&x, &padded).0, &array(&[1, 2, 2, 1], &[1.0, 3.0, 7.0, 9.0]), 0.0);
    assert_eq!(max_pool2d(&x, &padded).1, indices(&[1, 2, 2, 1], &[0, 2, 6, 4]));
    close(&avg_pool2d(&x, &padded), &array(&[1, 2, 2, 1], &[0.25, 1.25, 2.75, 7.25]), 0.0);
    close(&avg_pool2d_inside(&x, &padded), &array(&[1, 2, 2, 1], &[1.0, 2.5, 5.5, 7.25]), 0.0);
}

#[test]
fn padding_never_wins() {
    let x = array(&[1, 2, 2, 1], &[-1.0, -2.0, -3.0, -4.0]);
    let p = Pool { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
    close(&max_pool2d(&x, &p).0, &array(&[1, 1, 1, 1], &[-1.0]), 0.0);
}

#[test]
fn adaptive_windows_cover_the_image() {
    let row = array(&[1, 1, 5, 1], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    close(&adaptive_avg_pool2d(&row, 1, 3), &array(&[1, 1, 3, 1], &[1.5, 3.0, 4.5]), 1e-15);
    let (y, at) = adaptive_max_pool2d(&row, 1, 3);
    close(&y, &array(&[1, 1, 3, 1], &[2.0, 4.0, 5.0]), 0.0);
    assert_eq!(at, indices(&[1, 1, 3, 1], &[1, 3, 4]));
    let x = noise(&[2, 4, 6, 3]);
    let halves = Pool { kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
    close(&adaptive_avg_pool2d(&x, 2, 3), &avg_pool2d(&x, &halves), 1e-15);
    let whole = crate::oracle::index::reshape(&adaptive_avg_pool2d(&x, 1, 1), &[2, 3]);
    close(&global_avg_pool(&x), &whole, 1e-15);
}
