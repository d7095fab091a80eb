//! Every operator of the engine once more, in f64 on the CPU, written to be read rather than to be fast.
//!
//! Only forward functions: a gradient is checked against central differences of these, a second-order
//! gradient against mixed differences. The one exception is [`lif`], whose surrogate gradient is not the
//! derivative of its forward. Results are always in standard (row-major) layout. Inputs that break a
//! precondition panic: the engine's own error messages are tested elsewhere.
//!
//! The oracles themselves are held against hand-computed numbers and identities in `tests/oracles/`.

pub mod attention;
pub mod conv;
pub mod elementwise;
pub mod fft;
pub mod index;
pub mod lif;
pub mod linalg;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optim;
pub mod parametric;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod resize;
pub mod scan;
pub mod softmax;
pub mod sparse;

use ndarray::{ArrayD, ArrayViewD, Axis, Dimension, IxDyn};

/// The array type of all oracles.
pub type A = ArrayD<f64>;

/// An array of `shape` from row-major data.
pub fn array(shape: &[usize], data: &[f64]) -> A {
    A::from_shape_vec(IxDyn(shape), data.to_vec()).expect("the data fill the shape")
}

/// An array of `shape` whose element at index `i` is `f(i)`.
fn build<T>(shape: &[usize], mut f: impl FnMut(&[usize]) -> T) -> ArrayD<T> {
    ArrayD::from_shape_fn(IxDyn(shape), |i| f(i.slice()))
}

/// The shape as fixed-size array, for destructuring.
fn dims<const R: usize>(shape: &[usize]) -> [usize; R] {
    shape.try_into().unwrap_or_else(|_| panic!("rank {R} expected, got shape {shape:?}"))
}

/// The common shape of two arrays by the rules of numpy: align at the last axis, 1 stretches.
fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (1, n) | (n, 1) => n,
            (m, n) if m == n => n,
            _ => panic!("{a:?} and {b:?} do not broadcast"),
        })
        .collect()
}

/// A view of `x` stretched to `shape`.
fn stretch<'a>(x: &'a A, shape: &[usize]) -> ArrayViewD<'a, f64> {
    x.broadcast(IxDyn(shape)).unwrap_or_else(|| panic!("{:?} does not broadcast to {shape:?}", x.shape()))
}

/// Replaces every one-dimensional lane along `axis` by `f(lane)`, which has the same length.
fn map_lanes(x: &A, axis: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> A {
    let mut out = A::zeros(x.raw_dim());
    for (from, mut to) in x.lanes(Axis(axis)).into_iter().zip(out.lanes_mut(Axis(axis))) {
        to.iter_mut().zip(f(&from.to_vec())).for_each(|(t, v)| *t = v);
    }
    out
}
