//! Losses: every option of cross-entropy, and the losses that are made of other operations.

use shadegrad::{CrossEntropy, Reduction, Tensor};

use crate::case::{Case, away, fixed, ints, rand, range};
use crate::oracle::{A, array, loss as o};

const REDUCTIONS: [(&str, Reduction, o::Reduction); 3] = [
    ("mean", Reduction::Mean, o::Reduction::Mean),
    ("sum", Reduction::Sum, o::Reduction::Sum),
    ("none", Reduction::None, o::Reduction::None),
];

fn labels(a: &A) -> Vec<usize> {
    a.iter().map(|&v| v as usize).collect()
}

/// Reduces losses of elements; the mean divides by `n`.
fn reduce(losses: A, reduction: Reduction, n: usize) -> A {
    match reduction {
        Reduction::None => losses,
        Reduction::Sum => array(&[], &[losses.sum()]),
        Reduction::Mean => array(&[], &[losses.sum() / n as f64]),
    }
}

/// The gradient with respect to the logits that the fused kernel made, or that of the tensor operations.
fn logits_grad(t: &[Tensor], options: CrossEntropy, graph: bool) -> shadegrad::Result<Tensor> {
    let x = t[0].leaf();
    let loss = x.cross_entropy(&t[1], options)?;
    let grads = if graph {
        shadegrad::autograd::grad_create_graph(&loss, &[&x])?
    } else {
        shadegrad::autograd::grad(&loss, &[&x])?
    };
    Ok(grads[0].detach())
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Classes for one invocation a row, for eight, for a subgroup and for workgroups, in fours and not; many rows and few.
    for (n, c) in
        [(1, 1), (5, 3), (4, 8), (40, 4), (3, 21), (4, 9), (36, 3), (5, 40), (200, 10), (2, 301), (2, 1100), (300, 20)]
    {
        for (name, reduction, ro) in REDUCTIONS {
            let smoothing = if c == 3 { 0.0 } else { 0.1 };
            all.push(Case::new(
                format!("cross_entropy/{n}x{c}_{name}"),
                vec![range(&[n, c], -3.0, 3.0), ints(&[n], c as u32)],
                move |t| t[0].cross_entropy(&t[1], CrossEntropy { smoothing, reduction, ..Default::default() }),
                move |a| o::cross_entropy(&a[0], &labels(&a[1]), f64::from(smoothing), None, ro),
            ));
        }
    }
    // Without anybody who wants a gradient there is none to store.
    for (n, c) in [(40, 3), (40, 4), (5, 3), (5, 4)] {
        all.push(
            Case::new(
                format!("cross_entropy/{n}x{c}_of_constants"),
                vec![range(&[n, c], -3.0, 3.0), ints(&[n], c as u32)],
                |t| t[0].detach().cross_entropy(&t[1], CrossEntropy::default()),
                |a| o::cross_entropy(&a[0], &labels(&a[1]), 0.0, None, o::Reduction::Mean),
            )
            .grad(false),
        );
    }
    for (name, reduction, ro) in REDUCTIONS {
        all.push(Case::new(
            format!("cross_entropy/weights_{name}"),
            vec![range(&[6, 5], -3.0, 3.0), ints(&[6], 5), range(&[6], 0.2, 2.0)],
            move |t| {
                let options = CrossEntropy { smoothing: 0.2, weights: Some(&t[2]), reduction };
                t[0].cross_entropy(&t[1], options)
            },
            move |a| o::cross_entropy(&a[0], &labels(&a[1]), f64::from(0.2f32), Some(&a[2]), ro),
        ));
        for (n, c) in [(5, 6), (3, 21), (4, 9), (36, 3), (5, 40), (200, 10), (2, 301), (2, 1100), (300, 20)] {
            all.push(Case::new(
                format!("cross_entropy_soft/{n}x{c}_{name}"),
                vec![range(&[n, c], -3.0, 3.0), range(&[n, c], 0.0, 1.0)],
                move |t| t[0].cross_entropy_soft(&t[1], reduction),
                move |a| o::cross_entropy_soft(&a[0], &a[1], ro),
            ));
        }
        all.push(Case::new(
            format!("nll_loss/{name}"),
            vec![range(&[5, 3], -3.0, 0.0), ints(&[5], 3)],
            move |t| t[0].nll_loss(&t[1], reduction),
            move |a| {
                let picked: Vec<f64> = labels(&a[1]).iter().enumerate().map(|(i, &l)| -a[0][[i, l]]).collect();
                reduce(array(&[picked.len()], &picked), reduction, picked.len())
            },
        ));
        all.push(Case::new(
            format!("mse_loss/{name}"),
            vec![rand(&[3, 5]), rand(&[3, 5])],
            move |t| t[0].mse_loss(&t[1], reduction),
            move |a| reduce((&a[0] - &a[1]).mapv(|d| d * d), reduction, a[0].len()),
        ));
        all.push(Case::new(
            format!("bce_with_logits/{name}"),
            vec![range(&[3, 5], -6.0, 6.0), range(&[3, 5], 0.0, 1.0)],
            move |t| t[0].bce_with_logits(&t[1], reduction),
            move |a| {
                let loss = ndarray::Zip::from(&a[0])
                    .and(&a[1])
                    .map_collect(|&x, &t| x.max(0.0) - x * t + (-x.abs()).exp().ln_1p());
                reduce(loss, reduction, a[0].len())
            },
        ));
        all.push(Case::new(
            format!("kl_div/{name}"),
            vec![range(&[3, 5], -4.0, -0.1), range(&[3, 5], 0.1, 1.0)],
            move |t| t[0].kl_div(&t[1], reduction),
            move |a| reduce(&a[1] * &(a[1].mapv(f64::ln) - &a[0]), reduction, a[0].shape()[0]),
        ));
        // |x - 0| stays away from delta = 0.5 and from the kink of the second derivative there.
        all.push(Case::new(
            format!("huber_loss/{name}"),
            vec![fixed(&[-2.0, -0.7, -0.4, -0.1, 0.2, 0.45, 0.6, 1.5], &[2, 4]), fixed(&[0.0; 8], &[2, 4])],
            move |t| t[0].huber_loss(&t[1], 0.5, reduction),
            move |a| {
                let loss =
                    (&a[0] - &a[1]).mapv(|d: f64| if d.abs() <= 0.5 { 0.5 * d * d } else { 0.5 * (d.abs() - 0.25) });
                reduce(loss, reduction, a[0].len())
            },
        ));
    }
    all.push(
        Case::new(
            "kl_div/zero_targets",
            vec![range(&[2, 2], -4.0, -0.1), fixed(&[0.0, 1.0, 0.5, 0.5], &[2, 2])],
            |t| t[0].kl_div(&t[1], Reduction::None),
            |a| {
                ndarray::Zip::from(&a[0]).and(&a[1]).map_collect(|&x, &t| if t == 0.0 { 0.0 } else { t * (t.ln() - x) })
            },
        )
        .grad(false),
    );
    for (n, c) in [(130, 10), (33, 64), (3, 1000), (5, 1003), (2, 5001), (0, 4), (300, 1)] {
        all.push(
            Case::new(
                format!("cross_entropy/{n}x{c}"),
                vec![range(&[n, c], -9.0, 9.0), ints(&[n], c as u32)],
                |t| t[0].cross_entropy(&t[1], CrossEntropy { reduction: Reduction::None, ..Default::default() }),
                |a| o::cross_entropy(&a[0], &labels(&a[1]), 0.0, None, o::Reduction::None),
            )
            .grad(false),
        );
        if n == 0 {
            continue;
        }
        for graph in [false, true] {
            all.push(
                Case::new(
                    format!("cross_entropy/{n}x{c}_dlogits{}", if graph { "_graph" } else { "" }),
                    vec![range(&[n, c], -9.0, 9.0), ints(&[n], c as u32)],
                    move |t| {
                        let options = CrossEntropy { smoothing: 0.1, reduction: Reduction::Sum, weights: None };
                        logits_grad(t, options, graph)
                    },
                    |a| {
                        let mut p = crate::oracle::softmax::softmax(&a[0], 1);
                        let (e, c) = (f64::from(0.1f32), a[0].shape()[1]);
                        p.mapv_inplace(|v| v - e / c as f64);
                        labels(&a[1]).iter().enumerate().for_each(|(i, &l)| p[[i, l]] -= 1.0 - e);
                        p
                    },
                )
                .grad(false),
            );
        }
    }
    all.push(
        Case::new(
            "cross_entropy/label_clamped",
            vec![rand(&[6, 3]), ints(&[6], 9)],
            |t| t[0].cross_entropy(&t[1], CrossEntropy { reduction: Reduction::None, ..Default::default() }),
            |a| {
                let clamped: Vec<usize> = labels(&a[1]).iter().map(|&l| l.min(2)).collect();
                o::cross_entropy(&a[0], &clamped, 0.0, None, o::Reduction::None)
            },
        )
        .grad(false),
    );
    all.push(
        Case::new(
            "cross_entropy/confident",
            vec![away(&[3, 4], 0.5), ints(&[3], 4)],
            |t| {
                t[0].mul_scalar(1e3)?
                    .cross_entropy(&t[1], CrossEntropy { reduction: Reduction::None, ..Default::default() })
            },
            |a| o::cross_entropy(&(&a[0] * 1e3), &labels(&a[1]), 0.0, None, o::Reduction::None),
        )
        .grad(false),
    );
    all
}
