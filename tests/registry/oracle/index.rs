//! Operators that only move elements.

use super::{A, build, stretch};
use ndarray::{ArrayD, Dimension, IxDyn};

/// The same elements in row-major order under another shape.
pub fn reshape(x: &A, shape: &[usize]) -> A {
    A::from_shape_vec(IxDyn(shape), x.iter().copied().collect()).expect("same number of elements")
}

/// Axis `d` of the result is axis `order[d]` of `x`.
pub fn permute(x: &A, order: &[usize]) -> A {
    let shape: Vec<_> = order.iter().map(|&d| x.shape()[d]).collect();
    build(&shape, |i| {
        let mut from = vec![0; order.len()];
        order.iter().zip(i).for_each(|(&d, &v)| from[d] = v);
        x[&from[..]]
    })
}

/// Exchanges axes `a` and `b`.
pub fn transpose(x: &A, a: usize, b: usize) -> A {
    let mut order: Vec<_> = (0..x.ndim()).collect();
    order.swap(a, b);
    permute(x, &order)
}

/// An array of `shape` that takes element `i` of `x` from where `from(i[axis])` points along `axis`.
fn along(x: &A, axis: usize, len: usize, from: impl Fn(usize) -> usize) -> A {
    let mut shape = x.shape().to_vec();
    shape[axis] = len;
    build(&shape, |i| {
        let mut i = i.to_vec();
        i[axis] = from(i[axis]);
        x[&i[..]]
    })
}

/// Elements `start, start+step, ..` below `end` along `axis`.
pub fn slice(x: &A, axis: usize, start: usize, end: usize, step: usize) -> A {
    along(x, axis, (end - start).div_ceil(step), |i| start + i * step)
}

/// Adds `before` and `after` elements of `value` at the two ends of each axis.
pub fn pad(x: &A, widths: &[(usize, usize)], value: f64) -> A {
    let shape: Vec<_> = x.shape().iter().zip(widths).map(|(n, (before, after))| before + n + after).collect();
    build(&shape, |i| {
        let from: Option<Vec<_>> = i.iter().zip(widths).map(|(i, (before, _))| i.checked_sub(*before)).collect();
        from.and_then(|from| x.get(&from[..]).copied()).unwrap_or(value)
    })
}

/// Stretches axes of length 1, and adds axes in front, to reach `shape`.
pub fn broadcast_to(x: &A, shape: &[usize]) -> A {
    stretch(x, shape).as_standard_layout().into_owned()
}

/// Joins arrays that agree in all other axes along `axis`.
pub fn concat(parts: &[&A], axis: usize) -> A {
    let mut shape = parts[0].shape().to_vec();
    shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
    build(&shape, |i| {
        let mut i = i.to_vec();
        let part = parts.iter().find(|p| {
            let inside = i[axis] < p.shape()[axis];
            if !inside {
                i[axis] -= p.shape()[axis];
            }
            inside
        });
        part.expect("the parts cover the axis")[&i[..]]
    })
}

/// Joins arrays of one shape along a new axis `axis`.
pub fn stack(parts: &[&A], axis: usize) -> A {
    let mut shape = parts[0].shape().to_vec();
    shape.insert(axis, parts.len());
    build(&shape, |i| {
        let mut rest = i.to_vec();
        let part = rest.remove(axis);
        parts[part][&rest[..]]
    })
}

/// Reverses the order along each of `axes`.
pub fn flip(x: &A, axes: &[usize]) -> A {
    axes.iter().fold(x.clone(), |x, &axis| {
        let n = x.shape()[axis];
        along(&x, axis, n, |i| n - 1 - i)
    })
}

/// Moves every element `shift` places up along `axis`, around the end.
pub fn roll(x: &A, axis: usize, shift: isize) -> A {
    let n = x.shape()[axis];
    along(x, axis, n, |i| (i as isize - shift).rem_euclid(n as isize) as usize)
}

/// `out[i] = x[i with i[axis] = index[i]]`. `index` may be shorter than `x` in the other axes.
pub fn gather(x: &A, axis: usize, index: &ArrayD<usize>) -> A {
    build(index.shape(), |i| {
        let mut from = i.to_vec();
        from[axis] = index[i];
        x[&from[..]]
    })
}

/// `x` with `x[i with i[axis] = index[i]] += src[i]` for every `i` of `index`; the adjoint of [`gather`].
pub fn scatter_add(x: &A, axis: usize, index: &ArrayD<usize>, src: &A) -> A {
    let mut out = x.clone();
    for (i, &to) in index.indexed_iter() {
        let mut target = i.slice().to_vec();
        target[axis] = to;
        out[&target[..]] += src[i];
    }
    out
}

/// The slices `index[0], index[1], ..` of `x` along `axis`.
pub fn index_select(x: &A, axis: usize, index: &[usize]) -> A {
    along(x, axis, index.len(), |i| index[i])
}

/// `[.., n]`: 1 where the last index equals the element, else 0.
pub fn one_hot(index: &ArrayD<usize>, n: usize) -> A {
    let mut shape = index.shape().to_vec();
    shape.push(n);
    build(&shape, |i| {
        let (class, rest) = i.split_last().expect("rank at least 1");
        if index[rest] == *class { 1.0 } else { 0.0 }
    })
}

/// Rows of `table [n, d]`: `[.., d]`.
pub fn embedding(table: &A, index: &ArrayD<usize>) -> A {
    let mut shape = index.shape().to_vec();
    shape.push(table.shape()[1]);
    build(&shape, |i| {
        let (column, rest) = i.split_last().expect("rank at least 1");
        table[[index[rest], *column]]
    })
}
