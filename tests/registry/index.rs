//! Rows of the index family.

use ndarray::ArrayD;
use shadegrad::Tensor;

use crate::case::{Case, fixed_ints, ints, rand};
use crate::oracle::index as oracle;
use crate::oracle::{A, array};

/// Indices from the f64 form in which oracles get them.
fn at(a: &A) -> ArrayD<usize> {
    a.map(|&v| v as usize)
}

/// Layouts that reach every copy kernel: blocks of four on both sides, on one, on none; batches of whole matrices.
const ORDERS: [(&[usize], &[usize]); 21] = [
    (&[3, 5], &[1, 0]),
    (&[4, 8], &[1, 0]),
    (&[33, 65], &[1, 0]),
    (&[2, 36, 40], &[0, 2, 1]),
    (&[2, 3, 4], &[2, 0, 1]),
    (&[4, 4, 4], &[2, 1, 0]),
    (&[8, 3, 4], &[2, 1, 0]),
    (&[2, 5, 7, 3], &[0, 3, 1, 2]),
    (&[2, 3, 5, 7], &[0, 2, 3, 1]),
    (&[2, 6, 6, 8], &[0, 3, 1, 2]),
    (&[2, 8, 6, 6], &[0, 2, 3, 1]),
    (&[2, 4, 3, 8], &[0, 2, 1, 3]),
    (&[2, 4, 3, 8], &[0, 2, 3, 1]),
    (&[2, 5, 3, 4], &[3, 2, 1, 0]),
    (&[2, 1, 3], &[1, 0, 2]),
    (&[1, 6, 1], &[2, 1, 0]),
    (&[2, 0, 3], &[2, 1, 0]),
    (&[4], &[0]),
    (&[2, 3, 2, 3, 2, 2], &[5, 3, 1, 0, 2, 4]),
    (&[2, 2, 1, 3, 2, 1, 2, 2], &[7, 0, 6, 1, 5, 2, 4, 3]),
    (&[2, 2, 2, 2, 2, 2, 2, 4], &[6, 4, 2, 0, 1, 3, 5, 7]),
];

fn copies(cases: &mut Vec<Case>) {
    for (shape, order) in ORDERS {
        let small = shape.iter().product::<usize>() <= 120;
        cases.push(
            Case::new(
                format!("index/permute_{shape:?}_{order:?}"),
                vec![rand(shape)],
                |t| t[0].permute(order),
                |a| oracle::permute(&a[0], order),
            )
            .grad(small),
        );
    }
    for (a, b) in [(0, 1), (1, 0), (0, 0), (1, 2), (0, 2)] {
        cases.push(Case::new(
            format!("index/transpose_{a}_{b}"),
            vec![rand(&[3, 4, 5])],
            move |t| t[0].transpose(a, b),
            move |x| oracle::transpose(&x[0], a, b),
        ));
    }
    let shapes: [(&[usize], &[usize]); 6] =
        [(&[2, 6], &[3, 4]), (&[12], &[2, 1, 6]), (&[1, 1], &[]), (&[], &[1]), (&[0, 3], &[2, 0]), (&[3, 5], &[15])];
    for (from, to) in shapes {
        cases.push(Case::new(
            format!("index/reshape_{from:?}_{to:?}"),
            vec![rand(from)],
            |t| t[0].reshape(to),
            |a| oracle::reshape(&a[0], to),
        ));
    }
    cases.push(Case::new(
        "index/flatten_squeeze_unsqueeze",
        vec![rand(&[2, 3, 1, 4])],
        |t| t[0].squeeze(2)?.flatten(1, 2)?.unsqueeze(1)?.unsqueeze(3),
        |a| oracle::reshape(&a[0], &[2, 1, 12, 1]),
    ));
    let case = Case::new(
        "index/permute_of_indices",
        vec![ints(&[4, 8], 1 << 20)],
        |t| t[0].transpose(0, 1)?.pad(&[(1, 0), (0, 2)], 7.0)?.flip(&[0]),
        |a| oracle::flip(&oracle::pad(&oracle::transpose(&a[0], 0, 1), &[(1, 0), (0, 2)], 7.0), &[0]),
    );
    cases.push(case.grad(false));
}

fn parts(cases: &mut Vec<Case>) {
    let slices: [(&[usize], usize, usize, usize, usize); 13] = [
        (&[7], 0, 2, 5, 1),
        (&[7], 0, 0, 7, 3),
        (&[7], 0, 3, 3, 1),
        (&[7], 0, 0, 7, 1),
        (&[4, 5], 0, 1, 3, 1),
        (&[4, 5], 1, 1, 5, 2),
        (&[4, 8], 1, 4, 8, 1),
        (&[4, 8], 1, 3, 7, 1),
        (&[3, 4, 5], 1, 0, 4, 3),
        (&[3, 4, 4], 1, 1, 4, 2),
        (&[2, 3, 2, 2, 3], 3, 1, 2, 1),
        (&[0, 4], 1, 1, 3, 1),
        (&[3, 1], 1, 0, 1, 5),
    ];
    for (shape, axis, start, end, step) in slices {
        cases.push(Case::new(
            format!("index/slice_{shape:?}_{axis}_{start}..{end}_{step}"),
            vec![rand(shape)],
            move |t| t[0].slice(axis, start, end, step),
            move |a| oracle::slice(&a[0], axis, start, end, step),
        ));
    }
    cases.push(Case::new(
        "index/select_at",
        vec![rand(&[3, 4, 2])],
        |t| t[0].select_at(1, 2),
        |a| oracle::reshape(&oracle::slice(&a[0], 1, 2, 3, 1), &[3, 2]),
    ));
    type Pad = (&'static [usize], &'static [(usize, usize)], f32);
    let pads: [Pad; 8] = [
        (&[5], &[(2, 1)], 0.5),
        (&[5], &[(0, 0)], 0.5),
        (&[2, 3], &[(0, 1), (2, 0)], -1.0),
        (&[2, 4], &[(0, 1), (4, 0)], 0.0),
        (&[1, 3, 3, 4], &[(0, 0), (1, 1), (1, 1), (0, 0)], 0.0),
        (&[1, 3, 3, 4], &[(0, 0), (1, 2), (0, 1), (0, 4)], 2.0),
        (&[0, 3], &[(1, 1), (0, 1)], 3.0),
        (&[2, 1, 2, 1, 2], &[(1, 0), (0, 1), (0, 0), (1, 1), (0, 1)], 1.0),
    ];
    for (shape, widths, value) in pads {
        cases.push(Case::new(
            format!("index/pad_{shape:?}_{widths:?}"),
            vec![rand(shape)],
            move |t| t[0].pad(widths, value),
            move |a| oracle::pad(&a[0], widths, f64::from(value)),
        ));
    }
    let stretches: [(&[usize], &[usize]); 10] = [
        (&[], &[3, 4]),
        (&[1], &[5]),
        (&[4], &[3, 4]),
        (&[3, 1], &[3, 4]),
        (&[3, 1], &[3, 5]),
        (&[1, 4], &[2, 3, 4]),
        (&[2, 1, 4], &[2, 3, 4]),
        (&[2, 3], &[1, 2, 3]),
        (&[1, 3], &[0, 3]),
        (&[2, 1, 3, 1], &[2, 2, 3, 4]),
    ];
    for (from, to) in stretches {
        cases.push(Case::new(
            format!("index/broadcast_to_{from:?}_{to:?}"),
            vec![rand(from)],
            |t| t[0].broadcast_to(to),
            |a| oracle::broadcast_to(&a[0], to),
        ));
    }
    let flips: [(&[usize], &[usize]); 6] =
        [(&[5], &[0]), (&[3, 4], &[1]), (&[3, 4], &[0, 1]), (&[2, 4, 4], &[0]), (&[2, 3, 2], &[]), (&[0, 2], &[0, 1])];
    for (shape, axes) in flips {
        cases.push(Case::new(
            format!("index/flip_{shape:?}_{axes:?}"),
            vec![rand(shape)],
            |t| t[0].flip(axes),
            |a| oracle::flip(&a[0], axes),
        ));
    }
    let rolls: [(&[usize], usize, isize); 7] = [
        (&[5], 0, 2),
        (&[5], 0, -7),
        (&[3, 4], 1, 1),
        (&[3, 4], 0, -1),
        (&[1, 8, 8, 4], 1, -4),
        (&[2, 0], 1, 3),
        (&[4, 4], 1, 8),
    ];
    for (shape, axis, shift) in rolls {
        cases.push(
            Case::new(
                format!("index/roll_{shape:?}_{axis}_{shift}"),
                vec![rand(shape)],
                move |t| t[0].roll(axis, shift),
                move |a| oracle::roll(&a[0], axis, shift),
            )
            .grad(shape.len() < 4),
        );
    }
}

fn joins(cases: &mut Vec<Case>) {
    let joined: [(&[&[usize]], usize); 7] = [
        (&[&[3], &[2]], 0),
        (&[&[2, 3], &[2, 1], &[2, 4]], 1),
        (&[&[2, 4], &[2, 8]], 1),
        (&[&[2, 3], &[1, 3]], 0),
        (&[&[2, 0, 2], &[2, 3, 2]], 1),
        (&[&[2, 3, 2]], 2),
        (&[&[1, 2, 4], &[3, 2, 4]], 0),
    ];
    for (shapes, axis) in joined {
        cases.push(Case::new(
            format!("index/concat_{shapes:?}_{axis}"),
            shapes.iter().map(|s| rand(s)).collect(),
            move |t| Tensor::concat(&t.iter().collect::<Vec<_>>(), axis),
            move |a| oracle::concat(&a.iter().collect::<Vec<_>>(), axis),
        ));
    }
    for axis in 0..3 {
        cases.push(Case::new(
            format!("index/stack_{axis}"),
            vec![rand(&[2, 3]), rand(&[2, 3]), rand(&[2, 3])],
            move |t| Tensor::stack(&t.iter().collect::<Vec<_>>(), axis),
            move |a| oracle::stack(&a.iter().collect::<Vec<_>>(), axis),
        ));
    }
    cases.push(Case::new(
        "index/split",
        vec![rand(&[3, 7])],
        |t| {
            let p = t[0].split(1, &[2, 1, 4])?;
            Tensor::concat(&[&p[2], &p[0], &p[1]], 1)
        },
        |a| oracle::roll(&a[0], 1, 4),
    ));
    // More bytes than the copy engine's threshold.
    cases.push(
        Case::new(
            "index/concat_large",
            vec![rand(&[70000]), rand(&[3]), rand(&[65540])],
            |t| Tensor::concat(&t.iter().collect::<Vec<_>>(), 0),
            |a| oracle::concat(&a.iter().collect::<Vec<_>>(), 0),
        )
        .grad(false),
    );
}

/// The sum over `x` masked by `keep(row, column)` of its last two dimensions.
fn masked(x: &A, keep: impl Fn(i64, i64) -> bool) -> A {
    let rank = x.ndim();
    let mut out = x.clone();
    for (i, v) in out.indexed_iter_mut() {
        if !keep(i[rank - 2] as i64, i[rank - 1] as i64) {
            *v = 0.0;
        }
    }
    out
}

fn matrices(cases: &mut Vec<Case>) {
    for shape in [&[4, 4][..], &[2, 3, 3], &[1, 1], &[2, 0, 0]] {
        cases.push(Case::new(
            format!("index/diagonal_{shape:?}"),
            vec![rand(shape)],
            |t| t[0].diagonal(),
            |a| {
                let n = a[0].shape()[a[0].ndim() - 1];
                let batch = &a[0].shape()[..a[0].ndim() - 2];
                let flat = oracle::reshape(&a[0], &[batch.iter().product(), n * n]);
                let picked: Vec<f64> =
                    flat.outer_iter().flat_map(|m| (0..n).map(|i| m[i * n + i]).collect::<Vec<_>>()).collect();
                array(&[batch, &[n]].concat(), &picked)
            },
        ));
        cases.push(Case::new(
            format!("index/diagonal_matrix_{shape:?}"),
            vec![rand(&shape[..shape.len() - 1])],
            |t| t[0].diagonal_matrix(),
            |a| {
                let n = a[0].shape()[a[0].ndim() - 1];
                let mut wide = a[0].shape().to_vec();
                wide.insert(wide.len() - 1, 1);
                let full = [&a[0].shape()[..a[0].ndim() - 1], &[n, n]].concat();
                let rows = oracle::broadcast_to(&oracle::reshape(&a[0], &wide), &full);
                masked(&rows, |r, c| r == c)
            },
        ));
        for diagonal in [0, -1, 2] {
            cases.push(Case::new(
                format!("index/tril_{shape:?}_{diagonal}"),
                vec![rand(shape)],
                move |t| t[0].tril(diagonal),
                move |a| masked(&a[0], |r, c| c - r <= i64::from(diagonal)),
            ));
        }
    }
    cases.push(Case::new("index/triu", vec![rand(&[2, 3, 5])], |t| t[0].triu(1), |a| masked(&a[0], |r, c| c > r)));
    cases.push(
        Case::new(
            "index/eye",
            vec![rand(&[3])],
            |t| Tensor::eye(t[0].gpu(), 5),
            |_| masked(&A::ones(vec![5, 5]), |r, c| r == c),
        )
        .grad(false),
    );
}

fn gathers(cases: &mut Vec<Case>) {
    // Shapes of the tensor and of the index, axis; the last three are large enough for chunks and ranges.
    let shapes: [(&[usize], &[usize], usize, bool); 13] = [
        (&[6], &[9], 0, true),
        (&[3], &[1], 0, true),
        (&[3, 4], &[3, 2], 1, true),
        (&[3, 4], &[5, 4], 0, true),
        (&[3, 4, 2], &[2, 6, 1], 1, true),
        (&[2, 3, 4, 2], &[1, 3, 3, 2], 2, true),
        (&[3, 1], &[3, 4], 1, true),
        (&[3, 0], &[3, 0], 1, true),
        (&[3, 4], &[0, 4], 0, true),
        (&[1, 2, 1, 2, 2, 3], &[1, 2, 1, 2, 2, 4], 5, true),
        (&[10], &[700], 0, false),
        (&[33, 7], &[400, 5], 0, false),
        (&[3, 1000], &[2, 90], 1, false),
    ];
    for (shape, index, axis, grad) in shapes {
        let max = (shape[axis] as u32).max(1);
        cases.push(
            Case::new(
                format!("index/gather_{shape:?}_{index:?}_{axis}"),
                vec![rand(shape), ints(index, max)],
                move |t| t[0].gather(axis, &t[1]),
                move |a| oracle::gather(&a[0], axis, &at(&a[1])),
            )
            .grad(grad),
        );
        cases.push(
            Case::new(
                format!("index/scatter_add_{shape:?}_{index:?}_{axis}"),
                vec![rand(shape), ints(index, max), rand(index)],
                move |t| t[0].scatter_add(axis, &t[1], &t[2]),
                move |a| oracle::scatter_add(&a[0], axis, &at(&a[1]), &a[2]),
            )
            .grad(grad),
        );
    }
    let rows: [(&[usize], usize, usize, bool); 11] = [
        (&[5], 0, 7, true),
        (&[3], 0, 1, true),
        (&[4, 3], 0, 6, true),
        (&[4, 8], 0, 5, true),
        (&[3, 4], 1, 5, true),
        (&[2, 3, 4], 1, 2, true),
        (&[4, 3], 0, 0, true),
        (&[4, 0], 0, 3, true),
        (&[3, 8], 0, 600, false),
        (&[2, 5, 3], 1, 500, false),
        (&[900, 4], 0, 40, false),
    ];
    for (shape, axis, len, grad) in rows {
        let select = move |a: &A, i: &A| oracle::index_select(a, axis, &at(i).iter().copied().collect::<Vec<_>>());
        let mut source = shape.to_vec();
        source[axis] = len;
        cases.push(
            Case::new(
                format!("index/index_select_{shape:?}_{axis}_{len}"),
                vec![rand(shape), ints(&[len], shape[axis] as u32)],
                move |t| t[0].index_select(axis, &t[1]),
                move |a| select(&a[0], &a[1]),
            )
            .grad(grad),
        );
        cases.push(
            Case::new(
                format!("index/index_add_{shape:?}_{axis}_{len}"),
                vec![rand(shape), ints(&[len], shape[axis] as u32), rand(&source)],
                move |t| t[0].index_add(axis, &t[1], &t[2]),
                move |a| {
                    let mut line = vec![1; a[0].ndim()];
                    line[axis] = len;
                    let index = oracle::broadcast_to(&oracle::reshape(&a[1], &line), a[2].shape());
                    oracle::scatter_add(&a[0], axis, &at(&index), &a[2])
                },
            )
            .grad(grad),
        );
    }
    for (table, index) in [(&[5, 3][..], &[2, 4][..]), (&[7, 4], &[6]), (&[3, 8], &[]), (&[4, 2], &[2, 0])] {
        let max = table[0] as u32;
        cases.push(Case::new(
            format!("index/embedding_{table:?}_{index:?}"),
            vec![rand(table), ints(index, max)],
            |t| t[0].embedding(&t[1]),
            |a| oracle::embedding(&a[0], &at(&a[1])),
        ));
    }
    for (shape, n) in [(&[4][..], 5), (&[2, 3], 4), (&[], 3), (&[3], 1), (&[0], 4), (&[700], 3)] {
        cases.push(
            Case::new(
                format!("index/one_hot_{shape:?}_{n}"),
                vec![ints(shape, n as u32)],
                move |t| t[0].one_hot(n),
                move |a| oracle::one_hot(&at(&a[0]), n),
            )
            .grad(false),
        );
    }
    // Past the end: the last element, and for one_hot nothing.
    cases.push(
        Case::new(
            "index/clamped",
            vec![rand(&[3, 2]), fixed_ints(&[1, 7, u32::MAX, 0], &[4])],
            |t| t[0].index_select(0, &t[1]),
            |a| oracle::index_select(&a[0], 0, &[1, 2, 2, 0]),
        )
        .grad(true),
    );
    cases.push(
        Case::new(
            "index/one_hot_outside",
            vec![fixed_ints(&[1, 7, 0], &[3])],
            |t| t[0].one_hot(2),
            |_| array(&[3, 2], &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]),
        )
        .grad(false),
    );
    // Rows of bytes: lengths that are and are not whole words.
    for row in [1usize, 3, 4, 5, 16, 21] {
        let bytes: Vec<u8> = (0..9 * row).map(|i| (i * 37 % 251) as u8).collect();
        let expected = bytes.clone();
        cases.push(
            Case::new(
                format!("index/byte_rows_{row}"),
                vec![fixed_ints(&[8, 0, 3, 3, 7], &[5])],
                move |t| {
                    let picked = Tensor::from_bytes(t[0].gpu(), &bytes, &[9, row])?.index_select(0, &t[0])?;
                    let words: Vec<u32> = picked.to_bytes()?[..5 * row].iter().map(|&b| b.into()).collect();
                    Tensor::from_u32(t[0].gpu(), &words, &[5, row])
                },
                move |_| {
                    let all: Vec<f64> = expected.iter().map(|&b| b.into()).collect();
                    oracle::index_select(&array(&[9, row], &all), 0, &[8, 0, 3, 3, 7])
                },
            )
            .grad(false),
        );
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    copies(&mut cases);
    parts(&mut cases);
    joins(&mut cases);
    matrices(&mut cases);
    gathers(&mut cases);
    cases
}
