//! Optimisers against scalar re-implementations in f64, over twenty steps; clipping, groups, masks, averages, skipping.

use shadegrad::nn::{Arena, Builder, Group, Init};
use shadegrad::optim::{Ema, Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::{Result, Tensor};

use shadegrad_conformance::oracle::optim::{Moments, norm, step as reference};

use super::gpu;

const STEPS: usize = 20;
const SHAPES: [(&str, &[usize]); 3] = [("a.weight", &[7, 11]), ("a.bias", &[7]), ("b.weight", &[64, 3])];

fn arena(seed: u64) -> Result<Arena> {
    let mut b = Builder::new();
    for (name, shape) in SHAPES {
        let (scope, leaf) = name.split_once('.').expect("a dot");
        b.root().sub(scope).param(leaf, shape, Init::Normal(0.0, 1.0));
    }
    Arena::new(&gpu(), &b, seed)
}

fn values(arena: &Arena) -> Result<Vec<Vec<f64>>> {
    Ok(arena.state()?.into_iter().map(|(_, _, v)| v.into_iter().map(f64::from).collect()).collect())
}

/// Gradients of step `t`, in the order of the table.
fn gradients(t: usize) -> Vec<Vec<f32>> {
    let mut rng = Philox::new(5, t as u64);
    SHAPES
        .iter()
        .map(|(_, shape)| {
            let mut g = vec![0.0; shape.iter().product()];
            rng.fill_normal(&mut g, 0.1, 1.0);
            g
        })
        .collect()
}

fn set_gradients(arena: &Arena, grads: &[Vec<f32>]) -> Result<()> {
    let tensors = arena.params().tensors().iter().zip(grads);
    let tensors = tensors.map(|(p, g)| Tensor::from_slice(&gpu(), g, p.shape())).collect::<Result<_>>()?;
    arena.set_grads(&shadegrad::nn::Params::new(arena.table().clone(), tensors)?)
}

/// What differs from a plain run.
#[derive(Default)]
struct Twist {
    max_norm: Option<f64>,
    max_value: Option<f64>,
    /// `a.bias`: half the rate, no decay, not adapted.
    group: bool,
    frozen: bool,
}

fn compare(rule: Rule, twist: Twist) -> Result<()> {
    let mut arena = arena(1)?;
    if twist.group {
        arena.group("a.bias", Group { lr: 0.5, weight_decay: 0.0, adapt: false })?;
    }
    if twist.frozen {
        arena.freeze("b.*")?;
    }
    let mut optimizer = Optimizer::new(&arena, rule)?;
    if let Some(max) = twist.max_norm {
        optimizer = optimizer.clip_norm(max as f32);
    }
    if let Some(max) = twist.max_value {
        optimizer = optimizer.clip_value(max as f32);
    }
    let mut want = values(&arena)?;
    let mut moments = vec![Moments::default(); want.len()];
    for t in 0..STEPS {
        let grads = gradients(t);
        set_gradients(&arena, &grads)?;
        let lr = 0.05 / (1.0 + t as f32);
        optimizer.step(&arena, lr)?;
        let mut g: Vec<Vec<f64>> = grads.iter().map(|g| g.iter().map(|&v| f64::from(v)).collect()).collect();
        let trained = |i: usize| !(twist.frozen && i == 2);
        if let Some(max) = twist.max_norm {
            let total: f64 = (0..3).filter(|&i| trained(i)).map(|i| norm(&g[i]).powi(2)).sum::<f64>().sqrt();
            let scale = (max / (total + 1e-6)).min(1.0);
            g.iter_mut().flatten().for_each(|v| *v *= scale);
            assert!((f64::from(optimizer.report()?.norm) / total - 1.0).abs() < 1e-5);
        }
        if let Some(max) = twist.max_value {
            g.iter_mut().flatten().for_each(|v| *v = v.clamp(-max, max));
        }
        for i in (0..3).filter(|&i| trained(i)) {
            let own = twist.group && i == 1;
            let lr = f64::from(lr) * if own { 0.5 } else { 1.0 };
            let decay = if own { 0.0 } else { 1.0 };
            reference(rule, &mut want[i], &g[i], &mut moments[i], t as i32 + 1, lr, decay, !own);
        }
    }
    for ((got, want), (name, _)) in values(&arena)?.iter().zip(&want).zip(SHAPES) {
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            // Twenty roundings of values about 1, and the driver's roots and quotients.
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{rule:?}: {name}[{i}] is {a}, should be {b}");
        }
    }
    // The padding between parameters stays zero.
    let (flat, table) = (arena.values_flat().to_vec()?, arena.table());
    let inside = |i: usize| table.entries().iter().any(|e| (e.offset..e.offset + e.len).contains(&i));
    assert!(flat.iter().enumerate().all(|(i, v)| *v == 0.0 || inside(i)), "padding was written");
    Ok(())
}

fn all_rules() -> [Rule; 11] {
    let (betas, eps) = ([0.9, 0.999], 1e-8);
    [
        Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.1 },
        Rule::sgd(0.0),
        Rule::Sgd { momentum: 0.9, dampening: 0.3, nesterov: false, weight_decay: 0.1 },
        Rule::Sgd { momentum: 0.8, dampening: 0.0, nesterov: true, weight_decay: 0.01 },
        Rule::Adam { betas, eps, weight_decay: 0.1 },
        Rule::AdamW { betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.1 },
        // A short memory of the second moment, so that it falls below its largest value often.
        Rule::AmsGrad { betas: [0.8, 0.7], eps: 1e-6, weight_decay: 0.1 },
        Rule::RmsProp { alpha: 0.99, eps, momentum: 0.0, weight_decay: 0.0 },
        Rule::RmsProp { alpha: 0.9, eps, momentum: 0.7, weight_decay: 0.1 },
        Rule::Lamb { betas, eps: 1e-6, weight_decay: 0.1 },
        Rule::Lars { momentum: 0.9, nesterov: true, eta: 0.02, eps: 1e-8, weight_decay: 0.1 },
    ]
}

#[test]
fn optim_rules_match_f64() -> Result<()> {
    all_rules().into_iter().try_for_each(|rule| compare(rule, Twist::default()))
}

#[test]
fn optim_groups_and_frozen_match_f64() -> Result<()> {
    all_rules().into_iter().try_for_each(|rule| compare(rule, Twist { group: true, frozen: true, ..Twist::default() }))
}

#[test]
fn optim_clipping_matches_f64() -> Result<()> {
    for rule in [Rule::sgd(0.01), Rule::Lars { momentum: 0.9, nesterov: false, eta: 0.1, eps: 1e-8, weight_decay: 0.0 }]
    {
        compare(rule, Twist { max_norm: Some(2.0), ..Twist::default() })?;
        compare(rule, Twist { max_norm: Some(1e6), max_value: Some(0.5), frozen: true, ..Twist::default() })?;
    }
    Ok(())
}

#[test]
fn optim_skips_what_is_not_finite() -> Result<()> {
    let arena = arena(2)?;
    let rule = Rule::adam();
    let mut optimizer = Optimizer::new(&arena, rule)?.skip_nonfinite();
    let mut want = values(&arena)?;
    let mut moments = vec![Moments::default(); want.len()];
    let mut t = 0;
    for step in 0..6 {
        let mut grads = gradients(step);
        match step {
            1 => grads[0][76] = f32::NAN,
            4 => grads[2][0] = f32::NEG_INFINITY,
            _ => {}
        }
        set_gradients(&arena, &grads)?;
        optimizer.step(&arena, 0.01)?;
        if step != 1 && step != 4 {
            t += 1;
            for i in 0..3 {
                let g: Vec<f64> = grads[i].iter().map(|&v| f64::from(v)).collect();
                reference(rule, &mut want[i], &g, &mut moments[i], t, f64::from(0.01f32), 1.0, true);
            }
        }
    }
    let report = optimizer.report()?;
    assert_eq!((report.applied, report.skipped), (4, 2));
    for (a, b) in values(&arena)?.iter().flatten().zip(want.iter().flatten()) {
        assert!((a - b).abs() < 2e-6 * (1.0 + b.abs()), "{a} for {b}");
    }
    Ok(())
}

#[test]
fn optim_masks_hold() -> Result<()> {
    for rule in [Rule::sgd(0.1), Rule::adamw(0.1), Rule::Lamb { betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.1 }] {
        let mut arena = arena(3)?;
        let mask: Vec<f32> = (0..77).map(|i| (i % 3 != 0) as u8 as f32).collect();
        let wrong = arena.set_mask("a.bias", &Tensor::from_slice(&gpu(), &mask, &[7, 11])?);
        assert!(wrong.expect_err("a shape that differs").to_string().contains("`a.bias`"));
        arena.set_mask("a.weight", &Tensor::from_slice(&gpu(), &mask, &[7, 11])?)?;
        let mut optimizer = Optimizer::new(&arena, rule)?;
        for t in 0..3 {
            set_gradients(&arena, &gradients(t))?;
            optimizer.step(&arena, 0.1)?;
        }
        let all = values(&arena)?;
        for (v, m) in all[0].iter().zip(&mask) {
            assert_eq!(*v == 0.0, *m == 0.0, "{rule:?}");
        }
        assert!(all[1].iter().chain(&all[2]).all(|v| *v != 0.0));
    }
    Ok(())
}

#[test]
fn optim_ema_follows() -> Result<()> {
    let arena = arena(4)?;
    let ema = Ema::new(&arena)?;
    let mut want = values(&arena)?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    for t in 0..5 {
        set_gradients(&arena, &gradients(t))?;
        optimizer.step(&arena, 0.1)?;
        ema.update(&arena, 0.9)?;
        for (a, b) in want.iter_mut().flatten().zip(values(&arena)?.iter().flatten()) {
            *a = 0.9 * *a + 0.1 * b;
        }
    }
    let got = ema.params().tensors().iter().map(Tensor::to_vec).collect::<Result<Vec<_>>>()?;
    for (a, b) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((f64::from(*a) - b).abs() < 1e-6 * (1.0 + b.abs()), "{a} for {b}");
    }
    assert!(ema.update(&arena, 1.5).is_err());
    Ok(())
}

#[test]
fn optim_state_resumes_exactly() -> Result<()> {
    for rule in all_rules() {
        let first = arena(6)?;
        let mut optimizer = Optimizer::new(&first, rule)?.clip_norm(1.0);
        let mut other: Option<(Arena, Optimizer)> = None;
        for t in 0..6 {
            if t == 3 {
                let copy = first.fork()?;
                let mut resumed = Optimizer::new(&copy, rule)?.clip_norm(1.0);
                let state = optimizer
                    .state()
                    .iter()
                    .map(|(n, t)| Ok((n.to_string(), t.to_vec()?)))
                    .collect::<Result<Vec<_>>>()?;
                resumed.load_state(&state)?;
                let short = [("scalars".to_string(), vec![0.0; 3])];
                assert!(resumed.load_state(&short).is_err());
                other = Some((copy, resumed));
            }
            set_gradients(&first, &gradients(t))?;
            optimizer.step(&first, 0.01)?;
            if let Some((arena, optimizer)) = &mut other {
                set_gradients(arena, &gradients(t))?;
                optimizer.step(arena, 0.01)?;
            }
        }
        let (resumed, _) = other.expect("made at step 3");
        assert_eq!(values(&first)?, values(&resumed)?, "{rule:?}");
    }
    Ok(())
}

#[test]
fn optim_wrong_numbers_are_errors() -> Result<()> {
    let arena = arena(0)?;
    let bad = [
        Rule::Adam { betas: [1.0, 0.999], eps: 1e-8, weight_decay: 0.0 },
        Rule::adamw(-1.0),
        Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: true, weight_decay: 0.0 },
    ];
    for rule in bad {
        assert!(Optimizer::new(&arena, rule).is_err(), "{rule:?}");
    }
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    assert!(optimizer.set_rule(Rule::adam()).is_err());
    optimizer.set_rule(Rule::sgd(0.1))
}
