use crate::close;
use crate::oracle::array;
use crate::oracle::sparse::*;

#[test]
fn by_hand() {
    // [[0, 2, 0], [3, 0, 4]]
    let (v, at) = (array(&[3], &[2.0, 3.0, 4.0]), [1, 3, 5]);
    close(&dense(&v, &at, [2, 3]), &array(&[2, 3], &[0.0, 2.0, 0.0, 3.0, 0.0, 4.0]), 0.0);
    let x = array(&[1, 3], &[1.0, 10.0, 100.0]);
    let bias = array(&[2], &[0.5, 0.25]);
    close(&sparse_linear(&x, &v, Some(&bias), &at, [2, 3]), &array(&[1, 2], &[20.5, 403.25]), 0.0);
    let g = array(&[1, 2], &[1.0, 10.0]);
    close(&sparse_linear_t(&g, &v, &at, [2, 3]), &array(&[1, 3], &[30.0, 2.0, 40.0]), 0.0);
    close(&sparse_outer(&x, &g, &at), &array(&[3], &[10.0, 10.0, 1000.0]), 0.0);
}
