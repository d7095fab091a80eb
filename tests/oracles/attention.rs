use crate::oracle::attention::sdpa;
use crate::oracle::{array, index, matmul, softmax};
use crate::{A, close, noise};

#[test]
fn is_softmax_of_scores_times_values() {
    let (q, k, v) = (noise(&[2, 3, 4, 5]), noise(&[2, 3, 6, 5]), noise(&[2, 3, 6, 2]));
    let bias = noise(&[1, 3, 4, 6]);
    let scores = matmul::matmul_t(&q, &k, false, true) * 0.3 + &bias;
    let expected = matmul::matmul(&softmax::softmax(&scores, 3), &v);
    close(&sdpa(&q, &k, &v, Some(&bias), None, false, 0.3), &expected, 1e-14);
}

#[test]
fn a_masked_key_is_as_if_absent() {
    let (q, k, v) = (noise(&[1, 2, 3, 4]), noise(&[1, 2, 5, 4]), noise(&[1, 2, 5, 3]));
    let mask = array(&[1, 1, 1, 5], &[1.0, 1.0, 1.0, 0.0, 0.0]);
    let first = |x: &A| index::slice(x, 2, 0, 3, 1);
    let masked = sdpa(&q, &k, &v, None, Some(&mask), false, 1.0);
    close(&masked, &sdpa(&q, &first(&k), &first(&v), None, None, false, 1.0), 1e-15);
}

#[test]
fn causal_and_empty_rows() {
    let (q, k, v) = (noise(&[1, 1, 3, 2]), noise(&[1, 1, 4, 2]), noise(&[1, 1, 4, 2]));
    let lower = A::from_shape_fn(&[1, 1, 3, 4][..], |i| if i[3] <= i[2] { 1.0 } else { 0.0 });
    let causal = sdpa(&q, &k, &v, None, None, true, 1.0);
    close(&causal, &sdpa(&q, &k, &v, None, Some(&lower), false, 1.0), 0.0);
    // The first query sees only the first key, whatever the scores.
    close(&index::slice(&causal, 2, 0, 1, 1), &index::slice(&v, 2, 0, 1, 1), 1e-15);
    let nothing = sdpa(&q, &k, &v, None, Some(&array(&[1, 1, 1, 1], &[0.0])), false, 1.0);
    close(&nothing, &array(&[1, 1, 3, 2], &[0.0; 6]), 0.0);
}
