//! Running sums, sorting and the k best.

use crate::case::{Case, Input, distinct, fixed, rand};
use crate::oracle::scan as oracle;

/// Values and indices of a sort.
fn sort(name: &str, input: impl Fn() -> Input, axis: usize, descending: bool, grad: bool) -> [Case; 2] {
    [
        Case::new(
            format!("scan/sort_{name}"),
            vec![input()],
            move |t| Ok(t[0].sort(axis, descending)?.0),
            move |a| oracle::sort(&a[0], axis, descending).0,
        )
        .grad(grad),
        Case::new(
            format!("scan/argsort_{name}"),
            vec![input()],
            move |t| t[0].argsort(axis, descending),
            move |a| oracle::sort(&a[0], axis, descending).1.mapv(|i| i as f64),
        )
        .grad(false),
    ]
}

fn topk(shape: &[usize], k: usize, axis: usize, largest: bool) -> [Case; 2] {
    let name = format!("{shape:?}_{k}_axis{axis}{}", if largest { "" } else { "_smallest" });
    let grad = shape.iter().product::<usize>() < 64;
    [
        Case::new(
            format!("scan/topk_{name}"),
            vec![distinct(shape)],
            move |t| Ok(t[0].topk(k, axis, largest)?.0),
            move |a| oracle::topk(&a[0], k, axis, largest).0,
        )
        .grad(grad),
        Case::new(
            format!("scan/topk_places_{name}"),
            vec![distinct(shape)],
            move |t| Ok(t[0].topk(k, axis, largest)?.1),
            move |a| oracle::topk(&a[0], k, axis, largest).1.mapv(|i| i as f64),
        )
        .grad(false),
    ]
}

pub fn cases() -> Vec<Case> {
    // The square makes the gradient of the sorted values depend on them, so that its own gradients are taken too.
    let squared = |n: usize| {
        Case::new(
            format!("scan/sort_squared_{n}"),
            vec![distinct(&[n, n])],
            |t| t[0].sort(1, true)?.0.square(),
            |a| oracle::sort(&a[0], 1, true).0.mapv(|x| x * x),
        )
    };
    let mut cases = vec![squared(4), squared(1)];
    let scans: [(&[usize], usize); 17] = [
        (&[1], 0),
        (&[7], 0),
        (&[3, 4, 2], 0),
        (&[3, 4, 2], 1),
        (&[3, 4, 2], 2),
        (&[63], 0),
        (&[64], 0),
        (&[65], 0),
        (&[2, 70], 1),
        (&[70, 2], 0),
        (&[0], 0),
        (&[3, 0], 0),
        (&[3, 1000], 1),
        (&[1000, 3], 0),
        (&[2, 300, 5], 1),
        (&[1, 9000], 1),
        (&[300_001], 0),
    ];
    for (shape, axis) in scans {
        let case = Case::new(
            format!("scan/cumsum_{shape:?}_axis{axis}"),
            vec![rand(shape)],
            move |t| t[0].cumsum(axis),
            move |a| oracle::cumsum(&a[0], axis),
        );
        cases.push(case.grad(shape.iter().product::<usize>() < 150));
    }
    let sorts: [(&[usize], usize); 15] = [
        (&[1], 0),
        (&[2], 0),
        (&[7], 0),
        (&[3, 5, 2], 0),
        (&[3, 5, 2], 1),
        (&[3, 5, 2], 2),
        (&[0, 3], 1),
        (&[3, 0], 1),
        (&[40, 33], 1),
        (&[300, 9], 0),
        (&[1024], 0),
        (&[2, 1025], 1),
        (&[3000, 2], 0),
        (&[1, 4097], 1),
        (&[257, 3], 1),
    ];
    for (i, (shape, axis)) in sorts.into_iter().enumerate() {
        let descending = i % 2 == 1;
        let grad = shape.iter().product::<usize>() < 64;
        cases.extend(sort(&format!("{shape:?}_axis{axis}"), || distinct(shape), axis, descending, grad));
    }
    // Equal elements keep their order in both directions; both zeros are equal.
    let tied: Vec<f64> = (0..3000).map(|i| f64::from((i * 37) % 9 - 4)).collect();
    let zeros = [0.0, -0.0, 1.0, -0.0, 0.0, -1.0];
    for descending in [false, true] {
        cases.extend(sort(&format!("ties_{descending}"), || fixed(&tied, &[3000]), 0, descending, false));
        cases.extend(sort(&format!("zeros_{descending}"), || fixed(&zeros, &[6]), 0, descending, false));
    }
    let spread = [1e30, -1e30, 1e-30, -1e-30, f64::INFINITY, f64::NEG_INFINITY, 0.5, -0.5];
    cases.extend(sort("magnitudes", || fixed(&spread, &[8]), 0, false, false));
    cases.extend(topk(&[6], 1, 0, true));
    cases.extend(topk(&[6], 6, 0, false));
    cases.extend(topk(&[6], 0, 0, true));
    cases.extend(topk(&[4, 7], 3, 1, true));
    cases.extend(topk(&[7, 4], 3, 0, true));
    cases.extend(topk(&[2, 5, 3], 2, 1, false));
    cases.extend(topk(&[3, 2000], 5, 1, true));
    cases
}
