use crate::oracle::attention::{sdpa, windows};
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

/// Queries, keys or values of one head of a map `[1, H, W, 3 D]`, as `[1, 1, H W, D]`.
fn part(qkv: &A, which: usize) -> A {
    let &[_, h, w, c3] = qkv.shape() else { panic!("{:?}", qkv.shape()) };
    let d = c3 / 3;
    index::reshape(&index::slice(qkv, 3, which * d, (which + 1) * d, 1), &[1, 1, h * w, d])
}

#[test]
fn one_window_is_attention_with_a_bias() {
    let (qkv, table) = (noise(&[1, 2, 2, 9]), noise(&[9, 1]));
    let places = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]];
    let bias = A::from_shape_fn(&[1, 1, 4, 4][..], |i| table[[places[i[2]][i[3]], 0]]);
    let expected = sdpa(&part(&qkv, 0), &part(&qkv, 1), &part(&qkv, 2), Some(&bias), None, false, 0.6);
    close(&windows(&qkv, Some(&table), 1, 2, 0, 0.6), &index::reshape(&expected, &[1, 2, 2, 3]), 1e-15);
}

#[test]
fn shifted_windows_end_at_the_edges() {
    let qkv = noise(&[1, 4, 4, 6]);
    let y = windows(&qkv, None, 1, 2, 1, 1.0);
    let cut = |x: &A, from: usize| index::slice(&index::slice(x, 1, from, from + 2, 1), 2, from, from + 2, 1);
    // The window in the middle is whole.
    close(&cut(&y, 1), &windows(&cut(&qkv, 1), None, 1, 2, 0, 1.0), 1e-15);
    // A corner sees itself alone, a token at an edge its one neighbour there.
    let values = index::slice(&qkv, 3, 4, 6, 1);
    let corner = |x: &A| index::slice(&index::slice(x, 1, 0, 1, 1), 2, 0, 1, 1);
    close(&corner(&y), &corner(&values), 1e-15);
    let pair =
        |x: &A| index::reshape(&index::slice(&index::slice(x, 1, 0, 1, 1), 2, 1, 3, 1), &[1, 1, 2, x.shape()[3]]);
    let p = pair(&qkv);
    let expected = sdpa(&part(&p, 0), &part(&p, 1), &part(&p, 2), None, None, false, 1.0);
    close(&pair(&y), &expected, 1e-15);
}
