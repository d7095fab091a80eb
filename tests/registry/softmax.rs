//! Softmax and its logarithm: short and long rows, rows that vec4s do and do not fit, and inner axes.

use crate::case::{Case, fixed, rand, range};
use crate::oracle::softmax as o;

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Shape and axis; few elements, so that gradients can be taken by differences.
    for (shape, axis) in [
        (&[1][..], 0),
        (&[7], 0),
        (&[8], 0),
        (&[3, 1], 1),
        (&[5, 4], 1),
        (&[40, 3], 1),
        (&[5, 17], 1),
        // Odd rows that are whole quads together: what is written past the end lands in the guard zone.
        (&[4, 9], 1),
        (&[36, 3], 1),
        (&[3, 36], 1),
        (&[4, 5], 0),
        (&[6, 8], 0),
        (&[2, 3, 4], 1),
        (&[2, 5, 3], 1),
        (&[2, 1, 3, 2], 2),
    ] {
        all.push(Case::new(
            format!("softmax/{shape:?}_axis{axis}"),
            vec![range(shape, -3.0, 3.0)],
            move |t| t[0].softmax(axis),
            move |a| o::softmax(&a[0], axis),
        ));
        all.push(Case::new(
            format!("log_softmax/{shape:?}_axis{axis}"),
            vec![range(shape, -3.0, 3.0)],
            move |t| t[0].log_softmax(axis),
            move |a| o::log_softmax(&a[0], axis),
        ));
    }
    for (shape, axis) in [
        // Rows held in registers: their largest, and the next.
        (&[3, 32][..], 1),
        (&[3, 68], 1),
        (&[2, 128], 1),
        (&[2, 132], 1),
        (&[3, 256], 1),
        (&[3, 260], 1),
        (&[2, 63], 1),
        (&[2, 64], 1),
        (&[130, 65], 1),
        (&[33, 100], 1),
        (&[3, 1027], 1),
        (&[2, 5000], 1),
        (&[257, 16], 1),
        (&[70, 3, 20], 1),
        (&[0, 5], 1),
        (&[3, 0], 0),
    ] {
        all.push(
            Case::new(
                format!("softmax/{shape:?}_axis{axis}"),
                vec![range(shape, -9.0, 9.0)],
                move |t| t[0].softmax(axis),
                move |a| o::softmax(&a[0], axis),
            )
            .grad((1..10_000).contains(&shape.iter().product::<usize>()))
            .no_second_order("the small rows have it"),
        );
        all.push(
            Case::new(
                format!("log_softmax/{shape:?}_axis{axis}"),
                vec![range(shape, -9.0, 9.0)],
                move |t| t[0].log_softmax(axis),
                move |a| o::log_softmax(&a[0], axis),
            )
            .grad((1..10_000).contains(&shape.iter().product::<usize>()))
            .no_second_order("the small rows have it"),
        );
    }
    // Large offsets must not overflow, hidden entries must not become NaN.
    all.push(
        Case::new(
            "softmax/large",
            vec![fixed(&[1e4, 1e4 + 1.0, -1e4, 3e38, 3e38, -3e38], &[2, 3])],
            |t| t[0].softmax(1),
            |a| o::softmax(&a[0], 1),
        )
        .grad(false),
    );
    all.push(
        Case::new(
            "softmax/all_hidden",
            vec![fixed(&[f64::NEG_INFINITY; 6], &[2, 3])],
            |t| t[0].softmax(1),
            |a| a[0].mapv(|_| 1.0 / 3.0),
        )
        .grad(false),
    );
    all.push(
        Case::new(
            "log_softmax/one_certain",
            vec![fixed(&[0.0, -60.0, -70.0, -80.0], &[1, 4])],
            |t| t[0].log_softmax(1),
            |a| o::log_softmax(&a[0], 1),
        )
        .grad(false),
    );
    // Sums just above 1, whose logarithm has a series of its own.
    for shape in [&[3, 4], &[4, 5]] {
        let x: Vec<f64> =
            (0..shape[0] * shape[1]).map(|i| if i % shape[1] == 1 { 2.0 } else { -0.3 * i as f64 }).collect();
        all.push(Case::new(
            format!("log_softmax/nearly_certain_{shape:?}"),
            vec![fixed(&x, shape)],
            |t| t[0].log_softmax(1),
            |a| o::log_softmax(&a[0], 1),
        ));
    }
    // A gradient through a product, so that the incoming gradient is no constant.
    all.push(Case::new(
        "softmax/weighted",
        vec![rand(&[4, 6]), rand(&[4, 6])],
        |t| t[0].softmax(1)?.mul(&t[1]),
        |a| o::softmax(&a[0], 1) * &a[1],
    ));
    all
}
