//! Rows of the pooling family.

use shadegrad::Pool2d;

use crate::case::{Case, distinct, fixed, rand};
use crate::oracle::pool as oracle;

fn same(p: Pool2d) -> oracle::Pool {
    oracle::Pool { kernel: p.kernel, stride: p.stride, padding: p.padding }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let wide = |kernel, stride, padding| Pool2d { kernel, stride, padding };
    // Images, windows. Channels in ones and in fours; tiling, overlapping, gapped and padded windows.
    let rows: [(&[usize], Pool2d); 18] = [
        (&[1, 1, 1, 1], Pool2d::new(1, 1, 0)),
        // More channels than a vector, in tiles and in windows that overlap.
        (&[2, 6, 6, 12], Pool2d::new(2, 2, 0)),
        (&[2, 5, 6, 8], Pool2d::new(3, 2, 1)),
        (&[1, 4, 5, 8], Pool2d::new(3, 1, 1)),
        (&[2, 6, 6, 3], Pool2d::new(3, 3, 0)),
        (&[2, 4, 4, 3], Pool2d::new(2, 2, 0)),
        (&[1, 4, 6, 4], Pool2d::new(2, 2, 0)),
        (&[1, 5, 5, 4], Pool2d::new(2, 2, 0)),
        (&[1, 5, 6, 2], Pool2d::new(3, 2, 1)),
        (&[1, 5, 5, 4], Pool2d::new(3, 1, 1)),
        (&[1, 7, 7, 1], Pool2d::new(2, 3, 0)),
        (&[1, 6, 3, 4], wide([3, 1], [3, 1], [0, 0])),
        (&[2, 5, 4, 2], wide([3, 2], [1, 3], [1, 1])),
        (&[1, 6, 6, 4], wide([5, 4], [2, 3], [2, 0])),
        (&[1, 1, 1, 5], Pool2d::new(1, 1, 0)),
        (&[1, 3, 3, 4], Pool2d::new(3, 3, 0)),
        (&[0, 4, 4, 4], Pool2d::new(2, 2, 0)),
        (&[2, 4, 4, 0], Pool2d::new(2, 2, 0)),
    ];
    for (shape, p) in rows {
        let name = format!("{shape:?}_{:?}_{:?}_{:?}", p.kernel, p.stride, p.padding);
        cases.push(Case::new(
            format!("pool/max_{name}"),
            vec![distinct(shape)],
            move |t| t[0].max_pool2d(p),
            move |a| oracle::max_pool2d(&a[0], &same(p)).0,
        ));
        cases.push(
            Case::new(
                format!("pool/max_indices_{name}"),
                vec![distinct(shape)],
                move |t| Ok(t[0].max_pool2d_indices(p)?.1),
                move |a| oracle::max_pool2d(&a[0], &same(p)).1.mapv(|i| i as f64),
            )
            .grad(false),
        );
        cases.push(Case::new(
            format!("pool/avg_{name}"),
            vec![rand(shape)],
            move |t| t[0].avg_pool2d(p),
            move |a| oracle::avg_pool2d(&a[0], &same(p)),
        ));
        cases.push(Case::new(
            format!("pool/avg_inside_{name}"),
            vec![rand(shape)],
            move |t| t[0].avg_pool2d_inside(p),
            move |a| oracle::avg_pool2d_inside(&a[0], &same(p)),
        ));
    }
    let rows: [(&[usize], usize, usize); 10] = [
        (&[2, 6, 5, 12], 3, 2),
        (&[2, 6, 5, 3], 3, 2),
        (&[2, 4, 4, 4], 2, 2),
        (&[1, 5, 7, 2], 2, 3),
        (&[1, 5, 7, 4], 3, 4),
        (&[1, 3, 2, 1], 5, 3),
        (&[1, 6, 5, 3], 1, 1),
        (&[1, 1, 1, 4], 3, 2),
        (&[0, 4, 4, 4], 2, 2),
        (&[1, 4, 4, 2], 0, 2),
    ];
    for (shape, oh, ow) in rows {
        cases.push(Case::new(
            format!("pool/adaptive_avg_{shape:?}_{oh}x{ow}"),
            vec![rand(shape)],
            move |t| t[0].adaptive_avg_pool2d(oh, ow),
            move |a| oracle::adaptive_avg_pool2d(&a[0], oh, ow),
        ));
        cases.push(Case::new(
            format!("pool/adaptive_max_{shape:?}_{oh}x{ow}"),
            vec![distinct(shape)],
            move |t| t[0].adaptive_max_pool2d(oh, ow),
            move |a| oracle::adaptive_max_pool2d(&a[0], oh, ow).0,
        ));
    }
    for shape in [&[2, 3, 3, 4][..], &[1, 7, 5, 3], &[3, 1, 1, 2], &[0, 2, 2, 3]] {
        cases.push(Case::new(
            format!("pool/global_avg_{shape:?}"),
            vec![rand(shape)],
            |t| t[0].global_avg_pool(),
            |a| oracle::global_avg_pool(&a[0]),
        ));
    }
    // Twice in a row, and a product of two poolings: second derivatives that are not zero.
    cases.push(Case::new(
        "pool/squares",
        vec![distinct(&[1, 4, 4, 4])],
        |t| t[0].square()?.max_pool2d(Pool2d::new(3, 1, 1))?.mul(&t[0])?.avg_pool2d(Pool2d::new(2, 2, 0)),
        |a| {
            let m = oracle::max_pool2d(&a[0].mapv(|v| v * v), &same(Pool2d::new(3, 1, 1))).0;
            oracle::avg_pool2d(&(m * &a[0]), &same(Pool2d::new(2, 2, 0)))
        },
    ));
    // The first of equal elements, and NaN.
    let ties = [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 0.0, 0.0, 3.0];
    cases.push(
        Case::new(
            "pool/max_ties",
            vec![fixed(&ties, &[1, 3, 3, 1])],
            |t| Ok(t[0].max_pool2d_indices(Pool2d::new(2, 1, 0))?.1),
            |a| oracle::max_pool2d(&a[0], &same(Pool2d::new(2, 1, 0))).1.mapv(|i| i as f64),
        )
        .grad(false),
    );
    for c in [1, 4] {
        let x: Vec<f64> = (0..4 * c).map(|i| if i == c { f64::NAN } else { i as f64 }).collect();
        cases.push(
            Case::new(
                format!("pool/max_nan_{c}"),
                vec![fixed(&x, &[1, 2, 2, c])],
                |t| t[0].max_pool2d(Pool2d::new(2, 2, 0)),
                move |a| {
                    a[0].slice(ndarray::s![.., 1..2, 1..2, ..])
                        .mapv(|v| if v == (3 * c) as f64 { f64::NAN } else { v })
                        .into_dyn()
                },
            )
            .grad(false),
        );
    }
    // Gradients of more pixels than a row of the grid has in tests.
    for shape in [[1, 37, 40, 1], [1, 37, 40, 4]] {
        let p = Pool2d::new(2, 2, 0);
        let max = Case::new(
            format!("pool/max_many_{shape:?}"),
            vec![distinct(&shape)],
            move |t| t[0].max_pool2d(p),
            move |a| oracle::max_pool2d(&a[0], &same(p)).0,
        );
        let avg = Case::new(
            format!("pool/avg_many_{shape:?}"),
            vec![rand(&shape)],
            move |t| t[0].avg_pool2d(p),
            move |a| oracle::avg_pool2d(&a[0], &same(p)),
        );
        cases.extend([max, avg].map(|c| c.no_second_order("the small rows have it")));
    }
    for shape in [&[2, 33, 17, 8][..], &[1, 32, 32, 3]] {
        let p = Pool2d::new(3, 2, 1);
        cases.push(
            Case::new(
                format!("pool/max_large_{shape:?}"),
                vec![rand(shape)],
                move |t| t[0].max_pool2d(p),
                move |a| oracle::max_pool2d(&a[0], &same(p)).0,
            )
            .grad(false),
        );
    }
    cases
}
