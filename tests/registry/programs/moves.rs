//! Operations that move elements and take them by index.

use ndarray::{ArrayD, IxDyn};
use shadegrad::{Result, Tensor};

use super::Maker;
use super::general::axes;
use crate::oracle::{self, A};

/// A step that only gives the elements another shape.
pub(super) fn shaped(
    m: &mut Maker,
    what: String,
    i: usize,
    to: Vec<usize>,
    engine: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Option<usize> {
    m.step(what, &[i], move |x| engine(x[0]), move |x| oracle::index::reshape(x[0], &to))
}

pub(super) fn reshape(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let shape = m.dims(i);
    let (rank, n) = (shape.len(), m.values[i].len());
    match m.below(4) {
        0 => {
            let start = m.below(rank);
            let end = start + m.below(rank - start);
            let joined: usize = shape[start..=end].iter().product();
            let to = [&shape[..start], &[joined], &shape[end + 1..]].concat();
            shaped(m, format!("flatten {start} {end}"), i, to, move |x| x.flatten(start, end))
        }
        1 if rank < 5 => {
            let axis = m.below(rank + 1);
            let to = [&shape[..axis], &[1], &shape[axis..]].concat();
            shaped(m, format!("unsqueeze {axis}"), i, to, move |x| x.unsqueeze(axis))
        }
        2 => {
            let axis = (0..rank).find(|&a| shape[a] == 1)?;
            let to = [&shape[..axis], &shape[axis + 1..]].concat();
            shaped(m, format!("squeeze {axis}"), i, to, move |x| x.squeeze(axis))
        }
        _ => {
            let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
            let first = m.from(&divisors);
            let rest: Vec<usize> = (1..=n / first).filter(|d| (n / first).is_multiple_of(*d)).collect();
            let second = m.from(&rest);
            let to = vec![first, second, n / first / second];
            let other = to.clone();
            shaped(m, format!("reshape {to:?}"), i, to, move |x| x.reshape(&other))
        }
    }
}

pub(super) fn permute(m: &mut Maker) -> Option<usize> {
    let i = m.find(|v| v.ndim() >= 2)?;
    let rank = m.values[i].ndim();
    if m.one_in(3) {
        let (a, b) = (m.below(rank), m.below(rank));
        return m.step(
            format!("transpose {a} {b}"),
            &[i],
            move |x| x[0].transpose(a, b),
            move |x| oracle::index::transpose(x[0], a, b),
        );
    }
    let order: Vec<usize> = m.rng.permutation(rank as u32).into_iter().map(|a| a as usize).collect();
    let other = order.clone();
    m.step(
        format!("permute {order:?}"),
        &[i],
        move |x| x[0].permute(&order),
        move |x| oracle::index::permute(x[0], &other),
    )
}

pub(super) fn slice(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (shape, axis) = (m.dims(i), m.below(m.values[i].ndim()));
    let n = shape[axis];
    let start = m.below(n);
    if m.one_in(4) {
        let to = [&shape[..axis], &shape[axis + 1..]].concat();
        return m.step(
            format!("select_at {axis} {start}"),
            &[i],
            move |x| x[0].select_at(axis, start),
            move |x| oracle::index::reshape(&oracle::index::slice(x[0], axis, start, start + 1, 1), &to),
        );
    }
    let end = start + 1 + m.below(n - start);
    let by = 1 + m.below(3);
    m.step(
        format!("slice {axis} {start}..{end} by {by}"),
        &[i],
        move |x| x[0].slice(axis, start, end, by),
        move |x| oracle::index::slice(x[0], axis, start, end, by),
    )
}

pub(super) fn pad(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let widths: Vec<(usize, usize)> = (0..m.values[i].ndim()).map(|_| (m.below(3) / 2, m.below(3))).collect();
    let (other, value) = (widths.clone(), m.from(&[0.0f32, 0.5, -1.0]));
    m.step(
        format!("pad {widths:?} {value}"),
        &[i],
        move |x| x[0].pad(&widths, value),
        move |x| oracle::index::pad(x[0], &other, f64::from(value)),
    )
}

pub(super) fn broadcast(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() < 4 && v.len() < 200,
        |m| {
            let n = 1 + m.below(6);
            m.noise(&[n, 1])
        },
    );
    let mut to: Vec<usize> = m.dims(i).iter().map(|&d| if d == 1 { 1 + m.below(4) } else { d }).collect();
    if m.one_in(2) {
        to.insert(0, 1 + m.below(3));
    }
    let other = to.clone();
    m.step(
        format!("broadcast_to {to:?}"),
        &[i],
        move |x| x[0].broadcast_to(&to),
        move |x| oracle::index::broadcast_to(x[0], &other),
    )
}

pub(super) fn flip(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let axes = axes(m, m.values[i].ndim());
    let other = axes.clone();
    m.step(format!("flip {axes:?}"), &[i], move |x| x[0].flip(&axes), move |x| oracle::index::flip(x[0], &other))
}

pub(super) fn roll(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (axis, by) = (m.below(m.values[i].ndim()), m.below(9) as isize - 4);
    m.step(
        format!("roll {axis} {by}"),
        &[i],
        move |x| x[0].roll(axis, by),
        move |x| oracle::index::roll(x[0], axis, by),
    )
}

pub(super) fn concat(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (mut shape, axis) = (m.dims(i), m.below(m.values[i].ndim()));
    shape[axis] = 1 + m.below(5);
    let j = m.noisy(&shape);
    // One of them may be there twice.
    let parts = if m.one_in(3) { vec![i, j, i] } else { vec![j, i] };
    m.step(format!("concat {axis}"), &parts, move |x| Tensor::concat(x, axis), move |x| oracle::index::concat(x, axis))
}

pub(super) fn stack(m: &mut Maker) -> Option<usize> {
    let i = m.find(|v| v.ndim() < 5)?;
    let (shape, axis) = (m.dims(i), m.below(m.values[i].ndim() + 1));
    let j = m.find_or(|v| v.shape() == shape, |m| m.noise(&shape));
    m.step(format!("stack {axis}"), &[i, j], move |x| Tensor::stack(x, axis), move |x| oracle::index::stack(x, axis))
}

pub(super) fn split(m: &mut Maker) -> Option<usize> {
    let i = m.find(|v| v.ndim() > 0 && v.shape()[0] > 1)?;
    let n = m.dims(i)[0];
    let (first, back) = (1 + m.below(n - 1), m.one_in(2));
    let (from, to) = if back { (first, n) } else { (0, first) };
    m.step(
        format!("split {first} {back}"),
        &[i],
        move |x| Ok(x[0].split(0, &[first, n - first])?.remove(usize::from(back))),
        move |x| oracle::index::slice(x[0], 0, from, to, 1),
    )
}

/// Indices from numbers.
pub(super) fn at(x: &A) -> ArrayD<usize> {
    x.mapv(|v| v as usize)
}

pub(super) fn gather(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (shape, axis) = (m.dims(i), m.below(m.values[i].ndim()));
    let mut index: Vec<usize> = shape.iter().map(|&d| 1 + m.below(d)).collect();
    index[axis] = 1 + m.below(9);
    let j = m.indices(&index, shape[axis]);
    m.step(
        format!("gather {axis}"),
        &[i, j],
        move |x| x[0].gather(axis, x[1]),
        move |x| oracle::index::gather(x[0], axis, &at(x[1])),
    )
}

pub(super) fn scatter(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (shape, axis) = (m.dims(i), m.below(m.values[i].ndim()));
    let mut index: Vec<usize> = shape.iter().map(|&d| 1 + m.below(d)).collect();
    index[axis] = 1 + m.below(9);
    let (j, source) = (m.indices(&index, shape[axis]), m.noisy(&index));
    m.step(
        format!("scatter_add {axis}"),
        &[i, j, source],
        move |x| x[0].scatter_add(axis, x[1], x[2]),
        move |x| oracle::index::scatter_add(x[0], axis, &at(x[1]), x[2]),
    )
}

pub(super) fn rows(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (mut shape, axis, len) = (m.dims(i), m.below(m.values[i].ndim()), 1 + m.below(8));
    let j = m.indices(&[len], shape[axis]);
    if m.one_in(2) {
        return m.step(
            format!("index_select {axis}"),
            &[i, j],
            move |x| x[0].index_select(axis, x[1]),
            move |x| oracle::index::index_select(x[0], axis, &at(x[1]).into_iter().collect::<Vec<_>>()),
        );
    }
    shape[axis] = len;
    let source = m.noisy(&shape);
    m.step(
        format!("index_add {axis}"),
        &[i, j, source],
        move |x| x[0].index_add(axis, x[1], x[2]),
        move |x| {
            let mut line = vec![1; x[0].ndim()];
            line[axis] = len;
            let index = oracle::index::broadcast_to(&oracle::index::reshape(x[1], &line), x[2].shape());
            oracle::index::scatter_add(x[0], axis, &at(&index), x[2])
        },
    )
}

pub(super) fn embedding(m: &mut Maker) -> Option<usize> {
    let table = m.find_or(
        |v| v.ndim() == 2,
        |m| {
            let (n, d) = (1 + m.below(7), 1 + m.below(9));
            m.noise(&[n, d])
        },
    );
    let shape: Vec<usize> = (0..m.below(3)).map(|_| 1 + m.below(4)).collect();
    let index = m.indices(&shape, m.dims(table)[0]);
    m.step("embedding", &[table, index], |x| x[0].embedding(x[1]), |x| oracle::index::embedding(x[0], &at(x[1])))
}

pub(super) fn one_hot(m: &mut Maker) -> Option<usize> {
    let (shape, n) = ([1 + m.below(5), 1 + m.below(3)], 1 + m.below(6));
    let index = m.indices(&shape, n);
    m.cut(format!("one_hot {n}"), &[index], move |x| x[0].one_hot(n), move |x| oracle::index::one_hot(&at(x[0]), n))
}

pub(super) fn diagonal(m: &mut Maker) -> Option<usize> {
    if m.one_in(2) {
        let i = m.find_or(
            |v| v.ndim() >= 2 && square(v),
            |m| {
                let n = 1 + m.below(6);
                m.noise(&[2, n, n])
            },
        );
        return m.step(
            "diagonal",
            &[i],
            |x| x[0].diagonal(),
            |x| {
                let (batch, [n, _]) = x[0].shape().split_last_chunk().expect("a matrix");
                A::from_shape_fn(IxDyn(&[batch, &[*n]].concat()), |i| {
                    let i = ndarray::Dimension::slice(&i);
                    x[0][&[i, &[i[i.len() - 1]]].concat()[..]]
                })
            },
        );
    }
    let i = m.find(|v| (1..5).contains(&v.ndim()) && v.shape()[v.ndim() - 1] < 8)?;
    m.step(
        "diagonal_matrix",
        &[i],
        |x| x[0].diagonal_matrix(),
        |x| {
            let n = x[0].shape()[x[0].ndim() - 1];
            A::from_shape_fn(IxDyn(&[x[0].shape(), &[n]].concat()), |i| {
                let (last, rest) = ndarray::Dimension::slice(&i).split_last().expect("rank at least 2");
                if rest[rest.len() - 1] == *last { x[0][rest] } else { 0.0 }
            })
        },
    )
}

pub(super) fn square(v: &A) -> bool {
    v.shape()[v.ndim() - 1] == v.shape()[v.ndim() - 2]
}

pub(super) fn triangles(m: &mut Maker) -> Option<usize> {
    let i = m.find(|v| v.ndim() >= 2)?;
    let (d, upper) = (m.below(5) as i32 - 2, m.one_in(2));
    m.step(
        format!("{} {d}", if upper { "triu" } else { "tril" }),
        &[i],
        move |x| if upper { x[0].triu(d) } else { x[0].tril(d) },
        move |x| {
            let mut out = x[0].clone();
            let rank = out.ndim();
            for (i, v) in out.indexed_iter_mut() {
                let above = i[rank - 1] as i32 - i[rank - 2] as i32;
                if (upper && above < d) || (!upper && above > d) {
                    *v = 0.0;
                }
            }
            out
        },
    )
}
