//! Rows of the matmul family: sizes around the edges of every kernel's tile, all transpositions, broadcast batches.

use shadegrad::kernels::matmul::{self as kernels, Dims, Epilogue};
use shadegrad::{DType, Tensor};

use crate::case::{Case, Input, rand};
use crate::oracle::matmul::{linear, matmul, matmul_t};

const TRANSPOSES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn flags(ta: bool, tb: bool) -> &'static str {
    match (ta, tb) {
        (false, false) => "nn",
        (false, true) => "nt",
        (true, false) => "tn",
        (true, true) => "tt",
    }
}

/// A `m x k` times `k x n` product of operands that lie as the flags say, under leading dimensions.
fn product(lead: [&[usize]; 2], [m, n, k]: [usize; 3], ta: bool, tb: bool) -> Case {
    let shape = |lead: &[usize], rows, cols, trans| {
        let matrix = if trans { [cols, rows] } else { [rows, cols] };
        [lead, &matrix].concat()
    };
    let join = |s: &[usize]| s.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let batch = match lead {
        [[], []] => String::new(),
        [a, b] => format!("_batch_{}_{}", join(a), join(b)),
    };
    let inputs: Vec<Input> = vec![rand(&shape(lead[0], m, k, ta)), rand(&shape(lead[1], k, n, tb))];
    Case::new(
        format!("matmul/{}_{m}x{n}x{k}{batch}", flags(ta, tb)),
        inputs,
        move |t| t[0].matmul_t(&t[1], ta, tb),
        move |a| matmul_t(&a[0], &a[1], ta, tb),
    )
}

/// A product with a bias of each column, by the kernels themselves: the engine has them add one to linear layers alone, which
/// are of one transposition.
fn biased([m, n, k]: [usize; 3], ta: bool, tb: bool, halves: bool) -> Case {
    let shape = |rows, cols, trans| if trans { [cols, rows] } else { [rows, cols] };
    let case = Case::new(
        format!("matmul/biased_{}_{m}x{n}x{k}{}", flags(ta, tb), if halves { "_half" } else { "" }),
        vec![rand(&shape(m, k, ta)), rand(&shape(k, n, tb)), rand(&[n])],
        move |t| {
            let operand = |t: &Tensor| if halves { t.cast(DType::F16) } else { Ok(t.clone()) };
            let (a, b, y) = (operand(&t[0])?, operand(&t[1])?, Tensor::zeros(t[0].gpu(), &[m, n])?);
            let (dims, epilogue) = (Dims::new(m, n, k, ta, tb).halves(halves), Epilogue { bias: Some(t[2].storage()) });
            kernels::matmul(t[0].gpu(), a.storage(), b.storage(), y.storage(), &dims, epilogue)?;
            Ok(y)
        },
        move |a| matmul_t(&a[0], &a[1], ta, tb) + &a[2],
    );
    // Random operands in halves are off by 2^-12 of themselves, and so are sums of products of both signs.
    if halves { case.grad(false).tol(100.0) } else { case.grad(false) }
}

fn layer(lead: &[usize], input: usize, out: usize, bias: bool) -> Case {
    let x = [lead, &[input]].concat();
    let mut inputs = vec![rand(&x), rand(&[out, input])];
    if bias {
        inputs.push(rand(&[out]));
    }
    Case::new(
        format!("matmul/linear_{lead:?}_{input}_{out}{}", if bias { "_bias" } else { "" }),
        inputs,
        |t| t[0].linear(&t[1], t.get(2)),
        |a| linear(&a[0], &a[1], a.get(2)),
    )
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new(
        "matmul/matmul",
        vec![rand(&[3, 5]), rand(&[5, 4])],
        |t| t[0].matmul(&t[1]),
        |a| matmul(&a[0], &a[1]),
    )];
    // With gradients: whatever a product is made of, its gradients are products of the same numbers.
    for (ta, tb) in TRANSPOSES {
        for size in [[1, 1, 1], [3, 5, 2], [4, 4, 4], [9, 1, 7], [1, 8, 9]] {
            cases.push(product([&[], &[]], size, ta, tb));
        }
        cases.push(product([&[3], &[3]], [2, 3, 4], ta, tb));
        cases.push(product([&[3], &[]], [2, 3, 4], ta, tb));
        cases.push(product([&[], &[2, 2]], [3, 2, 1], ta, tb));
        cases.push(product([&[2, 1], &[1, 3]], [2, 2, 3], ta, tb));
        cases.push(product([&[2, 1, 2], &[1, 2, 1]], [1, 2, 3], ta, tb));
    }
    for size in [[0, 3, 2], [3, 0, 2], [3, 2, 0]] {
        cases.push(product([&[], &[]], size, false, true));
    }
    cases.push(product([&[0], &[0]], [2, 3, 2], false, false));
    // Without: around the edges of tiles (8, 16 or 24 rows, 32, 64 and 128), of vec4s and of steps along K (4 and 16).
    let edges = [
        [7, 63, 15],
        [8, 64, 16],
        [9, 65, 17],
        [16, 33, 31],
        [17, 31, 32],
        [32, 17, 33],
        [65, 9, 4],
        [64, 128, 63],
        [63, 127, 65],
        [129, 65, 12],
        [100, 100, 100],
        [127, 2, 255],
        [1, 257, 129],
        [257, 1, 64],
        [23, 65, 21],
        [24, 64, 22],
        [25, 96, 23],
        [72, 68, 24],
        [47, 130, 27],
        [1, 66, 40],
    ];
    for size in edges {
        for (ta, tb) in TRANSPOSES {
            cases.push(product([&[], &[]], size, ta, tb).grad(false));
        }
    }
    // Every row of a tile of 16 as the last one, and every column of a quad in both halves of a tile of 64, with results that are
    // whole quads: one element too many then lands in the guard zone. In K whole quads, and not.
    let rows = (17..=32).map(|m| [m, 36]);
    let columns = (33..=35).chain(65..=68).map(|n| [20, n]);
    for [m, n] in rows.chain(columns) {
        for (ta, tb) in TRANSPOSES {
            for k in [4, 5] {
                cases.push(product([&[], &[]], [m, n, k], ta, tb).grad(false));
            }
        }
    }
    for size in [[20, 36, 5], [20, 35, 4], [36, 5, 4], [35, 4, 5], [3, 70, 5], [5, 67, 4], [9, 65, 8], [70, 3, 5]] {
        for (ta, tb) in TRANSPOSES {
            cases.push(biased(size, ta, tb, false));
            cases.push(biased(size, ta, tb, true));
        }
    }
    // Long sums, which some devices split over workgroups. The error of a sum grows with the root of its length.
    for (ta, tb) in TRANSPOSES {
        cases.push(product([&[], &[]], [16, 24, 2053], ta, tb).grad(false).tol(4.0));
    }
    // More tiles one below the other than a cache holds: they are taken in bands, and the last one is lower.
    cases.push(product([&[], &[]], [150, 130, 1030], true, false).grad(false).tol(4.0));
    cases.push(product([&[2], &[2]], [149, 131, 1031], false, true).grad(false).tol(4.0));
    cases.push(product([&[5, 2], &[5, 1]], [31, 33, 18], false, true).grad(false));
    cases.push(product([&[7], &[]], [13, 40, 24], false, false).grad(false));
    cases.push(product([&[70], &[70]], [5, 6, 3], true, false).grad(false));

    for bias in [false, true] {
        cases.push(layer(&[3], 4, 5, bias));
        cases.push(layer(&[2, 3], 5, 2, bias));
        cases.push(layer(&[], 3, 4, bias));
        cases.push(layer(&[0], 3, 4, bias));
        cases.push(layer(&[2], 0, 3, bias));
        cases.push(layer(&[100], 30, 70, bias).grad(false));
        cases.push(layer(&[4, 16], 64, 10, bias).grad(false));
        cases.push(layer(&[2], 1500, 10, bias).grad(false).tol(4.0));
    }
    cases
}
