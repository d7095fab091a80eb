use crate::oracle::conv::*;
use crate::oracle::{A, array, matmul};
use crate::{close, dot, noise};

const PLAIN: Conv = Conv { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 };

#[test]
fn by_hand() {
    let x = array(&[1, 3, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let w = array(&[1, 2, 2, 1], &[1.0, 2.0, 3.0, 4.0]);
    let y = conv2d(&x, &w, Some(&array(&[1], &[0.5])), &PLAIN);
    close(&y, &array(&[1, 2, 2, 1], &[37.5, 47.5, 67.5, 77.5]), 0.0);
    let strided = Conv { stride: [2, 2], padding: [1, 1], ..PLAIN };
    close(&conv2d(&x, &w, None, &strided), &array(&[1, 2, 2, 1], &[4.0, 18.0, 36.0, 77.0]), 0.0);
    let dilated = Conv { dilation: [2, 2], ..PLAIN };
    close(&conv2d(&x, &w, None, &dilated), &array(&[1, 1, 1, 1], &[64.0]), 0.0);
    let ones = array(&[1, 2, 2, 1], &[1.0; 4]);
    let spread = [1.0, 3.0, 2.0, 4.0, 10.0, 6.0, 3.0, 7.0, 4.0];
    close(&conv_transpose2d(&ones, &w, None, &PLAIN, [0, 0]), &array(&[1, 3, 3, 1], &spread), 0.0);
}

#[test]
fn groups_see_their_own_channels() {
    let (x, w) = (noise(&[2, 4, 4, 4]), noise(&[6, 3, 3, 2]));
    let y = conv2d(&x, &w, None, &Conv { groups: 2, padding: [1, 1], ..PLAIN });
    let part = |x: &A, axis: usize, from: usize, to: usize| crate::oracle::index::slice(x, axis, from, to, 1);
    let second = conv2d(&part(&x, 3, 2, 4), &part(&w, 0, 3, 6), None, &Conv { padding: [1, 1], ..PLAIN });
    close(&part(&y, 3, 3, 6), &second, 1e-13);
}

#[test]
fn one_by_one_is_a_matrix_product() {
    let (x, w) = (noise(&[2, 3, 2, 4]), noise(&[5, 1, 1, 4]));
    let rows = crate::oracle::index::reshape(&w, &[5, 4]);
    close(&conv2d(&x, &w, None, &PLAIN), &matmul::linear(&x, &rows, None), 1e-14);
}

#[test]
fn adjoints() {
    for (p, x_shape, w_shape) in [
        (PLAIN, [2, 5, 4, 3], [2, 3, 2, 3]),
        (Conv { stride: [2, 3], padding: [1, 2], ..PLAIN }, [1, 6, 7, 2], [4, 3, 3, 2]),
        (Conv { dilation: [2, 1], padding: [2, 0], groups: 2, ..PLAIN }, [2, 5, 5, 4], [2, 3, 3, 2]),
        (Conv { stride: [2, 2], padding: [1, 1], groups: 3, ..PLAIN }, [1, 5, 6, 3], [6, 3, 3, 1]),
    ] {
        let (x, w) = (noise(&x_shape), noise(&w_shape));
        let y = conv2d(&x, &w, None, &p);
        let dy = noise(y.shape());
        let product = dot(&y, &dy);
        assert!((product - dot(&x, &conv2d_input_grad(&dy, &w, &x_shape, &p))).abs() < 1e-11);
        assert!((product - dot(&w, &conv2d_weight_grad(&dy, &x, &w_shape, &p))).abs() < 1e-11);
        // The transposed convolution is that adjoint, once the rows the stride cannot reach are given back.
        let lost =
            |d: usize| (x_shape[d + 1] + 2 * p.padding[d] - p.dilation[d] * (w_shape[d + 1] - 1) - 1) % p.stride[d];
        let bias = noise(&[x_shape[3]]);
        let up = conv_transpose2d(&dy, &w, Some(&bias), &p, [lost(0), lost(1)]);
        close(&(up - &bias), &conv2d_input_grad(&dy, &w, &x_shape, &p), 1e-13);
    }
}
