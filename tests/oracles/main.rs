//! The reference operators of `tests/registry/oracle/`, held against numbers worked out by hand, published
//! test vectors and identities. No GPU and no engine: what every other test trusts is checked here.

mod attention;
mod conv;
mod elementwise;
mod fft;
mod index;
mod lif;
mod linalg;
mod loss;
mod matmul;
mod norm;
mod parametric;
mod pool;
mod random;
mod reduce;
mod resize;
mod scan;
mod softmax;
mod sparse;

use ndarray::{ArrayD, IxDyn};
use shadegrad_conformance::oracle::random::{Stream, normal};
use shadegrad_conformance::oracle::{self, A};

/// Standard normals, different for every shape.
fn noise(shape: &[usize]) -> A {
    let stream = shape.iter().fold(1, |h, &n| h * 31 + n as u64);
    normal(shape, Stream { seed: 7, stream })
}

fn indices(shape: &[usize], data: &[usize]) -> ArrayD<usize> {
    ArrayD::from_shape_vec(IxDyn(shape), data.to_vec()).expect("the data fill the shape")
}

/// The inner product over all elements.
fn dot(a: &A, b: &A) -> f64 {
    assert_eq!(a.shape(), b.shape());
    (a * b).sum()
}

#[track_caller]
fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}

#[track_caller]
fn close(a: &A, b: &A, tolerance: f64) {
    assert_eq!(a.shape(), b.shape());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance, "element {i}: {x} is not {y} within {tolerance}");
    }
}

/// `f` changes by what its claimed gradient says, at every element of `x`.
#[track_caller]
fn gradient(f: impl Fn(&A) -> f64, x: &A, claimed: &A, tolerance: f64) {
    let step = 1e-5;
    for i in 0..x.len() {
        let moved = |by: f64| {
            let mut x = x.clone();
            *x.iter_mut().nth(i).expect("an element") += by;
            f(&x)
        };
        near((moved(step) - moved(-step)) / (2.0 * step), *claimed.iter().nth(i).expect("an element"), tolerance);
    }
}
