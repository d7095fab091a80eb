//! What products and factorisations refuse, and in which words.

use shadegrad::{Result, Tensor};

use crate::gpu;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(&gpu(), shape).expect("memory")
}

fn refusal(result: Result<Tensor>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn misfits_are_named_with_their_shapes() {
    let text = refusal(zeros(&[2, 3]).matmul(&zeros(&[4, 5])));
    assert!(text.contains("[2, 3]") && text.contains("[4, 5]") && text.contains("equal"), "{text}");
    let text = refusal(zeros(&[2, 3]).matmul_t(&zeros(&[4, 3]), true, true));
    assert!(text.contains("transposed"), "{text}");
    let text = refusal(zeros(&[3]).matmul(&zeros(&[3, 2])));
    assert!(text.contains("reshape"), "{text}");
    let text = refusal(zeros(&[2, 1, 1]).matmul(&zeros(&[3, 1, 1])));
    assert!(text.contains("broadcast"), "{text}");
    let text = refusal(zeros(&[2, 3]).linear(&zeros(&[4, 3]), Some(&zeros(&[3]))));
    assert!(text.contains("bias [3]"), "{text}");
    let text = refusal(zeros(&[2, 3]).cholesky());
    assert!(text.contains("not square"), "{text}");
    let text = refusal(zeros(&[2, 2]).solve_triangular(&zeros(&[3, 1]), false, false));
    assert!(text.contains("[2, m]"), "{text}");
}

#[test]
fn a_matrix_that_is_not_positive_definite_gives_nan_or_an_error() {
    let mut data = vec![0.0f32; 3 * 40 * 40];
    for matrix in 0..3 {
        for i in 0..40 {
            data[(matrix * 40 + i) * 40 + i] = if (matrix, i) == (1, 35) { -1.0 } else { 2.0 };
        }
    }
    let a = Tensor::from_slice(&gpu(), &data, &[3, 40, 40]).expect("memory");
    let l = a.cholesky().expect("no read-back, no error").to_vec().expect("device");
    let pivot = |matrix: usize, i: usize| l[(matrix * 40 + i) * 40 + i];
    assert!(pivot(1, 35).is_nan());
    assert!((pivot(1, 34) - 2.0f32.sqrt()).abs() < 1e-6 && (pivot(2, 39) - 2.0f32.sqrt()).abs() < 1e-6);
    let text = refusal(a.cholesky_checked());
    assert!(text.contains("matrix 1") && text.contains("pivot 35"), "{text}");
}
