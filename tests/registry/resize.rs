//! Rows of the resizing family.

use shadegrad::Outside;

use crate::case::{Case, fixed, rand, range};
use crate::oracle::resize as oracle;

fn same(outside: Outside) -> oracle::Outside {
    match outside {
        Outside::Zeros => oracle::Outside::Zeros,
        Outside::Border => oracle::Outside::Border,
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let rows: [(&[usize], usize, usize); 13] = [
        (&[2, 3, 2, 8], 4, 5),
        (&[1, 2, 3, 4], 4, 6),
        (&[2, 3, 2, 1], 5, 4),
        (&[1, 4, 4, 2], 2, 2),
        (&[1, 5, 6, 3], 2, 4),
        (&[1, 3, 3, 4], 7, 1),
        (&[1, 1, 4, 2], 3, 3),
        (&[1, 4, 1, 4], 1, 5),
        (&[1, 1, 1, 1], 2, 3),
        (&[1, 3, 4, 4], 3, 4),
        (&[0, 2, 2, 2], 4, 4),
        (&[1, 2, 2, 2], 0, 4),
        (&[1, 7, 2, 1], 3, 11),
    ];
    for (shape, oh, ow) in rows {
        cases.push(Case::new(
            format!("resize/nearest_{shape:?}_{oh}x{ow}"),
            vec![rand(shape)],
            move |t| t[0].resize_nearest(oh, ow),
            move |a| oracle::resize_nearest(&a[0], oh, ow),
        ));
        for align in [false, true] {
            cases.push(Case::new(
                format!("resize/bilinear_{shape:?}_{oh}x{ow}_{align}"),
                vec![rand(shape)],
                move |t| t[0].resize_bilinear(oh, ow, align),
                move |a| oracle::resize_bilinear(&a[0], oh, ow, align),
            ));
        }
    }
    cases.push(Case::new(
        "resize/squares",
        vec![rand(&[1, 3, 3, 2])],
        |t| t[0].resize_bilinear(4, 5, false)?.square()?.resize_nearest(2, 7),
        |a| oracle::resize_nearest(&oracle::resize_bilinear(&a[0], 4, 5, false).mapv(|v| v * v), 2, 7),
    ));
    // Gradients of more pixels than a row of the grid has in tests.
    for shape in [[1, 37, 40, 1], [1, 37, 40, 4]] {
        let nearest = Case::new(
            format!("resize/nearest_many_{shape:?}"),
            vec![rand(&shape)],
            |t| t[0].resize_nearest(20, 30),
            |a| oracle::resize_nearest(&a[0], 20, 30),
        );
        let bilinear = Case::new(
            format!("resize/bilinear_many_{shape:?}"),
            vec![rand(&shape)],
            |t| t[0].resize_bilinear(20, 30, false),
            |a| oracle::resize_bilinear(&a[0], 20, 30, false),
        );
        cases.extend([nearest, bilinear].map(|c| c.no_second_order("the small rows have it")));
    }
    for (shape, oh, ow) in [(&[2, 32, 32, 3][..], 64, 48), (&[1, 33, 17, 8], 16, 40)] {
        cases.push(
            Case::new(
                format!("resize/bilinear_large_{shape:?}"),
                vec![rand(shape)],
                move |t| t[0].resize_bilinear(oh, ow, false),
                move |a| oracle::resize_bilinear(&a[0], oh, ow, false),
            )
            .grad(false),
        );
    }
    samples(&mut cases);
    cases
}

fn samples(cases: &mut Vec<Case>) {
    let rows: [(&[usize], usize, usize); 6] = [
        (&[1, 4, 5, 4], 3, 2),
        (&[2, 3, 4, 3], 2, 3),
        (&[1, 5, 3, 1], 1, 7),
        (&[2, 1, 1, 2], 2, 2),
        (&[0, 3, 3, 2], 2, 2),
        (&[1, 3, 3, 2], 0, 2),
    ];
    for outside in [Outside::Zeros, Outside::Border] {
        for (shape, oh, ow) in rows {
            let grid = [shape[0], oh, ow, 2];
            cases.push(Case::new(
                format!("resize/grid_sample_{shape:?}_{oh}x{ow}_{outside:?}"),
                // Positions past the edges too. Where they are on a pixel's centre the slope jumps: none is.
                vec![rand(shape), range(&grid, -1.4, 1.4)],
                move |t| t[0].grid_sample(&t[1], outside),
                move |a| oracle::grid_sample(&a[0], &a[1], same(outside)),
            ));
        }
        // Through the centres, exactly and at the corners of the image; far outside.
        let grid = [-1.0, -1.0, 1.0, 1.0, 0.0, 0.0, -0.5, 0.5, 7.0, -9.0, 1e9, 0.0];
        cases.push(
            Case::new(
                format!("resize/grid_sample_places_{outside:?}"),
                vec![rand(&[1, 4, 4, 4]), fixed(&grid, &[1, 2, 3, 2])],
                move |t| t[0].grid_sample(&t[1], outside),
                move |a| oracle::grid_sample(&a[0], &a[1], same(outside)),
            )
            .inputs_without_grad(&[1]),
        );
        cases.push(
            Case::new(
                format!("resize/grid_sample_large_{outside:?}"),
                vec![rand(&[2, 17, 13, 8]), range(&[2, 20, 11, 2], -1.2, 1.2)],
                move |t| t[0].grid_sample(&t[1], outside),
                move |a| oracle::grid_sample(&a[0], &a[1], same(outside)),
            )
            .grad(false),
        );
    }
}
