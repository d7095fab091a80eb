use crate::oracle::array;
use crate::oracle::index::one_hot;
use crate::oracle::loss::*;
use crate::{close, indices, noise};

#[test]
fn by_hand() {
    let logits = array(&[2, 2], &[0.0, 3f64.ln(), 0.0, 0.0]);
    let labels = [1, 0];
    let losses = [-(0.75f64.ln()), 2f64.ln()];
    let ce = |smoothing, weights, reduction| cross_entropy(&logits, &labels, smoothing, weights, reduction);
    close(&ce(0.0, None, Reduction::None), &array(&[2], &losses), 1e-15);
    close(&ce(0.0, None, Reduction::Sum), &array(&[], &[losses[0] + losses[1]]), 1e-15);
    let weights = array(&[2], &[3.0, 1.0]);
    close(&ce(0.0, Some(&weights), Reduction::Mean), &array(&[], &[(3.0 * losses[0] + losses[1]) / 2.0]), 1e-15);
    let smooth = 0.8 * losses[0] + 0.1 * (losses[0] - 0.25f64.ln());
    close(&ce(0.2, None, Reduction::None), &array(&[2], &[smooth, losses[1]]), 1e-15);
}

#[test]
fn smoothing_is_a_soft_target() {
    let logits = noise(&[4, 5]);
    let labels = [0, 4, 2, 2];
    let targets = one_hot(&indices(&[4], &labels), 5).mapv(|p| 0.9 * p + 0.1 / 5.0);
    for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
        let hard = cross_entropy(&logits, &labels, 0.1, None, reduction);
        close(&hard, &cross_entropy_soft(&logits, &targets, reduction), 1e-14);
    }
}
