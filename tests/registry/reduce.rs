//! Reductions over every choice of axes, short and long.

use shadegrad::{Result, Tensor};

use crate::case::{Case, Input, distinct, fixed, rand, range};
use crate::oracle::A;
use crate::oracle::reduce as oracle;

type Engine = fn(&Tensor, &[usize], bool) -> Result<Tensor>;
type Oracle = fn(&A, &[usize], bool) -> A;

const SUMS: [(&str, Engine, Oracle); 3] = [
    ("sum", Tensor::sum, oracle::sum),
    ("mean", Tensor::mean, oracle::mean),
    ("logsumexp", Tensor::logsumexp, oracle::logsumexp),
];
const EXTREMES: [(&str, Engine, Oracle); 2] = [("max", Tensor::max, oracle::max), ("min", Tensor::min, oracle::min)];

fn row(name: &str, input: Input, axes: &[usize], keep: bool, engine: Engine, want: Oracle) -> Case {
    let (a, b) = (axes.to_vec(), axes.to_vec());
    Case::new(format!("reduce/{name}"), vec![input], move |t| engine(&t[0], &a, keep), move |x| want(&x[0], &b, keep))
}

/// All subsets of `0..rank`.
fn subsets(rank: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..1 << rank).map(move |m| (0..rank).filter(|i| m >> i & 1 == 1).collect())
}

fn arg(name: &str, shape: &[usize], axis: usize, keep: bool, values: Option<Vec<f64>>) -> [Case; 2] {
    let input = || values.as_ref().map_or_else(|| distinct(shape), |v| fixed(v, shape));
    let index = |i: ndarray::ArrayD<usize>| i.mapv(|i| i as f64);
    [
        Case::new(
            format!("reduce/argmax_{name}"),
            vec![input()],
            move |t| t[0].argmax(axis, keep),
            move |a| index(oracle::argmax(&a[0], axis, keep)),
        ),
        Case::new(
            format!("reduce/argmin_{name}"),
            vec![input()],
            move |t| t[0].argmin(axis, keep),
            move |a| index(oracle::argmin(&a[0], axis, keep)),
        ),
    ]
    .map(|c| c.grad(false))
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Gradients over every choice of axes of one small tensor, also in another order than the tensor's.
    for (i, axes) in subsets(3).chain([vec![2, 0], vec![1, 0, 2]]).enumerate() {
        let keep = i % 2 == 0;
        for (name, engine, want) in SUMS {
            cases.push(row(&format!("{name}_{axes:?}"), range(&[3, 2, 4], -2.0, 2.0), &axes, keep, engine, want));
        }
        for (name, engine, want) in EXTREMES {
            cases.push(row(&format!("{name}_{axes:?}"), distinct(&[3, 2, 4]), &axes, keep, engine, want));
        }
        for correction in [0, 1] {
            let n: usize = axes.iter().map(|&a| [3, 2, 4][a]).product();
            if n > correction {
                let (a, b) = (axes.clone(), axes.clone());
                cases.push(Case::new(
                    format!("reduce/var_{axes:?}_correction{correction}"),
                    vec![rand(&[3, 2, 4])],
                    move |t| t[0].var(&a, correction, keep),
                    move |x| oracle::var(&x[0], &b, correction, keep),
                ));
            }
        }
    }
    // Lengths about vectors, subgroups, chunks and workgroups, by rows and by columns.
    let shapes: [&[usize]; 19] = [
        &[1, 1],
        &[2, 31],
        &[3, 32],
        &[300, 5],
        &[5, 33],
        &[2, 64],
        &[7, 127],
        &[3, 1024],
        &[2, 1025],
        &[1, 1027],
        &[1, 65_537],
        &[2, 20_002],
        &[5000, 3],
        &[1100, 8],
        &[65, 257],
        &[2, 513, 4],
        &[3, 130, 5],
        &[2, 7, 1, 9, 2],
        &[40, 33, 12],
    ];
    for shape in shapes {
        for axes in subsets(shape.len()).filter(|a| !a.is_empty() && a.len() < 4) {
            for (name, engine, want) in SUMS.into_iter().take(2).chain(EXTREMES) {
                let name = format!("{name}_{shape:?}_{axes:?}");
                cases.push(row(&name, rand(shape), &axes, true, engine, want).grad(false));
            }
            // Where no gradient is wanted, extremes have kernels that note no places.
            let constant: [(&str, Engine, Oracle); 2] = [
                ("max", |t, axes, keep| t.detach().max(axes, keep), oracle::max),
                ("min", |t, axes, keep| t.detach().min(axes, keep), oracle::min),
            ];
            for (name, engine, want) in constant {
                let name = format!("{name}_of_constants_{shape:?}_{axes:?}");
                cases.push(row(&name, rand(shape), &axes, true, engine, want).grad(false));
            }
        }
        for axis in 0..shape.len() {
            cases.extend(arg(&format!("{shape:?}_{axis}"), shape, axis, axis % 2 == 0, None));
        }
    }
    // The gradient of an extreme through several passes over values and indices.
    for (shape, axes) in
        [(&[3usize, 2, 20][..], &[0usize, 2][..]), (&[90, 2], &[0]), (&[2, 90], &[1]), (&[2, 3, 2, 3], &[0, 2])]
    {
        for (name, engine, want) in EXTREMES {
            let name = format!("{name}_passes_{shape:?}_{axes:?}");
            cases.push(row(&name, distinct(shape), axes, false, engine, want));
        }
    }
    // Ties: the lowest index, also across vectors, lanes and chunks.
    let tied = |n: usize| (0..n).map(|i| ((i * 7 + 3) % 11) as f64).collect::<Vec<_>>();
    for n in [5, 64, 1030, 5000] {
        cases.extend(arg(&format!("ties_row_{n}"), &[1, n], 1, false, Some(tied(n))));
        cases.extend(arg(&format!("ties_column_{n}"), &[n, 2], 0, false, Some(tied(2 * n))));
    }
    // Zeros of both signs are equal: the first wins.
    let pairs = [("negative_first", [-0.0, 0.0]), ("positive_first", [0.0, -0.0]), ("and_more", [0.125, 0.0])];
    for (name, zeros) in pairs {
        for (shape, axis) in [([1, 5], 1), ([2, 8], 1), ([1, 36], 1), ([1, 90], 1), ([1, 1028], 1), ([1, 1030], 1)]
            .into_iter()
            .chain([([5, 2], 0), ([5, 4], 0), ([90, 2], 0), ([90, 4], 0), ([1100, 2], 0)])
        {
            let along = |i: usize| if axis == 1 { i % shape[1] } else { i / shape[1] };
            let values = (0..shape[0] * shape[1]).map(|i| zeros[along(i) % 2]).collect();
            cases.extend(arg(&format!("zeros_{name}_{shape:?}"), &shape, axis, false, Some(values)));
        }
    }
    cases.extend(arg("one", &[3, 1], 1, false, None));
    // Nothing: a sum is 0, and there is no result to choose where nothing is left.
    for (shape, axes) in [(&[0usize][..], &[0usize][..]), (&[2, 0, 3], &[1]), (&[0, 3], &[1]), (&[0, 3], &[])] {
        cases.push(
            row(&format!("sum_{shape:?}_{axes:?}"), rand(shape), axes, false, Tensor::sum, oracle::sum).grad(false),
        );
    }
    cases.push(row("max_[0, 3]_[1]", rand(&[0, 3]), &[1], false, Tensor::max, oracle::max).grad(false));
    cases.extend(arg("[0, 3]_1", &[0, 3], 1, false, None));
    cases.push(row("sum_scalar", rand(&[]), &[], false, Tensor::sum, oracle::sum));
    let tops = range(&[4, 9], -90.0, 90.0);
    cases.push(row("logsumexp_wide", tops, &[1], false, Tensor::logsumexp, oracle::logsumexp).grad(false));
    let lowest = fixed(&[f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY, 1.0], &[2, 2]);
    cases.push(row("logsumexp_of_nothing", lowest, &[1], false, Tensor::logsumexp, oracle::logsumexp).grad(false));
    // Large values, small variance: the mean must go first.
    let far = range(&[3, 50], 1000.0, 1001.0);
    let var: Oracle = |x, axes, keep| oracle::var(x, axes, 1, keep);
    // The inputs themselves carry errors of 3e-5 of their spread.
    cases.push(row("var_far", far, &[1], true, |x, axes, keep| x.var(axes, 1, keep), var).grad(false).tol(20.0));
    let all = Case::new(
        "reduce/sum_all",
        vec![rand(&[2, 3, 2])],
        |t| t[0].sum_all(),
        |a| oracle::sum(&a[0], &[0, 1, 2], false),
    );
    let mean =
        Case::new("reduce/mean_all", vec![rand(&[2, 3])], |t| t[0].mean_all(), |a| oracle::mean(&a[0], &[0, 1], false));
    cases.extend([all, mean]);
    for (from, to) in [
        (&[2usize, 3, 4][..], &[4usize][..]),
        (&[2, 3, 4], &[3, 1]),
        (&[2, 3, 4], &[2, 1, 4]),
        (&[2, 3, 4], &[]),
        (&[2, 3], &[1, 1]),
        (&[3], &[3]),
        (&[0, 3], &[3]),
    ] {
        let (a, b) = (to.to_vec(), to.to_vec());
        cases.push(Case::new(
            format!("reduce/sum_to_{from:?}_{to:?}"),
            vec![rand(from)],
            move |t| t[0].sum_to(&a),
            move |x| oracle::sum_to(&x[0], &b),
        ));
    }
    cases
}
