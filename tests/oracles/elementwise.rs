use crate::oracle::elementwise::*;
use crate::oracle::{A, array};
use crate::{close, near};

#[test]
fn erf_matches_tables() {
    // Abramowitz and Stegun, table 7.1, and further digits from the series.
    for (x, y) in [
        (0.0, 0.0),
        (0.1, 0.112_462_916_018_284_89),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
        (7.0, 1.0),
    ] {
        near(erf(x), y, 1e-15);
        near(erf(-x), -y, 1e-15);
    }
    // Both methods meet at 2.5, and the tail keeps its relative accuracy.
    near(erf(2.5 - 1e-9) - erf(2.5 + 1e-9), -2e-9 * 2.178_284_230_3e-3, 1e-15);
    near(erfc(5.0) / 1.537_459_794_428_034_8e-12, 1.0, 1e-14);
    near(erfc(-5.0) + erfc(5.0), 2.0, 1e-15);
}

#[test]
fn activations_by_hand() {
    near(sigmoid(0.0), 0.5, 0.0);
    near(sigmoid(-100.0) / (-100f64).exp(), 1.0, 1e-15);
    near(softplus(0.0), 2f64.ln(), 1e-16);
    near(softplus(1000.0), 1000.0, 0.0);
    near(softplus(-30.0) / (-30f64).exp(), 1.0, 1e-12);
    near(silu(2.0), 2.0 / (1.0 + (-2f64).exp()), 1e-15);
    near(mish(1.0), 0.865_098_388_267_310_3, 1e-14);
    near(gelu(1.0), 0.841_344_746_068_543, 1e-14);
    near(gelu(-1.0), -0.158_655_253_931_457, 1e-14);
    near(gelu_tanh(1.0), 0.841_191_990_608_276, 1e-12);
    assert_eq!([relu(-1.0), relu(2.0), leaky_relu(-2.0, 0.1), leaky_relu(3.0, 0.1)], [0.0, 2.0, -0.2, 3.0]);
    near(elu(-1.0, 0.5), 0.5 * ((-1f64).exp() - 1.0), 1e-16);
    assert_eq!(elu(2.0, 0.5), 2.0);
    assert_eq!([sign(-3.0), sign(0.0), sign(-0.0), sign(2.0)], [-1.0, 0.0, 0.0, 1.0]);
    assert_eq!([square(-3.0), rsqrt(4.0)], [9.0, 0.5]);
}

#[test]
fn masks_and_comparisons() {
    let table = |f: fn(f64, f64) -> f64| [f(1.0, 2.0), f(2.0, 2.0), f(3.0, 2.0)];
    assert_eq!(table(gt), [0.0, 0.0, 1.0]);
    assert_eq!(table(ge), [0.0, 1.0, 1.0]);
    assert_eq!(table(lt), [1.0, 0.0, 0.0]);
    assert_eq!(table(le), [1.0, 1.0, 0.0]);
    assert_eq!(table(eq), [0.0, 1.0, 0.0]);
    assert_eq!(table(ne), [1.0, 0.0, 1.0]);
    let special = [1.0, f64::NAN, f64::INFINITY];
    assert_eq!(special.map(is_nan), [0.0, 1.0, 0.0]);
    assert_eq!(special.map(is_finite), [1.0, 0.0, 0.0]);
}

#[test]
fn broadcasting() {
    let column = array(&[2, 1], &[10.0, 20.0]);
    let row = array(&[3], &[1.0, 2.0, 3.0]);
    let sum = binary(&column, &row, |a, b| a + b);
    close(&sum, &array(&[2, 3], &[11.0, 12.0, 13.0, 21.0, 22.0, 23.0]), 0.0);
    let picked = select(&array(&[2, 1], &[0.0, -2.0]), &row, &array(&[], &[9.0]));
    close(&picked, &array(&[2, 3], &[9.0, 9.0, 9.0, 1.0, 2.0, 3.0]), 0.0);
    close(&unary(&row, f64::sqrt), &array(&[3], &[1.0, 2f64.sqrt(), 3f64.sqrt()]), 0.0);
    assert_eq!(binary(&A::zeros(&[0, 3][..]), &row, f64::max).shape(), [0, 3]);
}
