//! Softmax along one axis.

use super::{A, map_lanes};

pub fn softmax(x: &A, axis: usize) -> A {
    log_softmax(x, axis).mapv_into(f64::exp)
}

/// `x - log(sum(exp(x)))`, shifted by the largest element so that nothing overflows.
pub fn log_softmax(x: &A, axis: usize) -> A {
    map_lanes(x, axis, |lane| {
        let top = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = lane.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
        lane.iter().map(|v| v - top - log_sum).collect()
    })
}
