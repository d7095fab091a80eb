use crate::close;
use crate::oracle::array;
use crate::oracle::parametric::*;

#[test]
fn crrelu_by_hand() {
    let x = array(&[4], &[-1.0, 0.0, 1.0, 2.0]);
    let e = |v: f64| v * (-v * v / 2.0).exp();
    let want = array(&[4], &[-0.5 * e(1.0), 0.0, 1.0 + 0.5 * e(1.0), 2.0 + 0.5 * e(2.0)]);
    close(&crrelu(&x, &array(&[], &[0.5])), &want, 1e-15);
    let by_eps = crrelu_by_eps(&x, &array(&[4], &[1.0, 5.0, 2.0, -1.0]));
    close(&by_eps, &array(&[], &[-e(1.0) + 2.0 * e(1.0) - e(2.0)]), 1e-15);
}

#[test]
fn prelu_and_lines_by_hand() {
    let x = array(&[3], &[-2.0, 0.0, 3.0]);
    close(&prelu(&x, &array(&[1], &[0.25])), &array(&[3], &[-0.5, 0.0, 3.0]), 0.0);
    let (grid, values) = (array(&[3], &[0.0, 1.0, 3.0]), array(&[3], &[0.0, 2.0, 1.0]));
    let x = array(&[6], &[-1.0, 0.25, 1.0, 2.0, 3.0, 5.0]);
    close(&piecewise_linear(&x, &grid, &values), &array(&[6], &[-2.0, 0.5, 2.0, 1.5, 1.0, 0.0]), 0.0);
}
