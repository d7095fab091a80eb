//! Ghost batch norm by hand and against gradients taken ghost by ghost; clipping, covariance, regimes and fits against
//! numbers.

use std::collections::HashMap;

use shadegrad::autograd::grad;
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, GhostBatchNorm, Ghosts, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::train::Minibatch;
use shadegrad::{CrossEntropy, Tensor};

use super::*;
use crate::papers::testing::gpu;

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&gpu(), values, shape).unwrap()
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Philox::new(seed, 1).fill_normal(&mut values, 0.3, 1.2);
    values
}

/// A layer over `channels` and its arena.
fn layer(channels: usize, ghosts: Ghosts) -> (GhostBatchNorm, Arena) {
    let mut names = Builder::new();
    let layer = GhostBatchNorm::new(&mut names.root().sub("norm"), channels, ghosts).unwrap();
    (layer, Arena::new(&gpu(), &names, 0).unwrap())
}

fn close(a: &[f32], b: &[f32], tol: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tol * (1.0 + y.abs()), "{i}: {x} and {y}\n{a:?}\n{b:?}");
    }
}

#[test]
fn ghosts_are_normalised_by_themselves() {
    let x = tensor(&[1.0, 3.0, 5.0, 7.0], &[4, 1]);
    for (size, want) in [(4, [-1.341639, -0.447213, 0.447213, 1.341639]), (2, [-0.999995, 0.999995, -0.999995, 0.999995])]
    {
        let (layer, arena) = layer(1, Ghosts::Size(size));
        close(&layer.forward(&Cx::train(&arena), &x).unwrap().to_vec().unwrap(), &want, 1e-6);
    }
}

#[test]
fn running_statistics_follow_ghost_by_ghost() {
    let x = tensor(&[1.0, 3.0, 5.0, 7.0], &[4, 1]);
    // One update with the mean of both ghosts would give a mean of 0.4 for ghosts of 2, too.
    for (size, mean, var) in [(2, 0.78, 1.19), (4, 0.4, 1.566667)] {
        let (layer, arena) = layer(1, Ghosts::Size(size));
        layer.forward(&Cx::train(&arena), &x).unwrap();
        let buffers = arena.buffers();
        close(&buffers.by_name("norm.running_mean").unwrap().to_vec().unwrap(), &[mean], 1e-6);
        close(&buffers.by_name("norm.running_var").unwrap().to_vec().unwrap(), &[var], 1e-6);
    }
}

#[test]
fn one_ghost_is_batch_norm_to_the_bit() {
    let x = tensor(&noise(6 * 2 * 2 * 3, 1), &[6, 2, 2, 3]).leaf();
    let g = tensor(&noise(6 * 2 * 2 * 3, 2), &[6, 2, 2, 3]);
    let bits = |module: &dyn Module, arena: &Arena| {
        let y = module.forward(&Cx::train(arena), &x).unwrap();
        let loss = y.mul(&g).unwrap().sum(&[0, 1, 2, 3], false).unwrap();
        arena.backward(&loss).unwrap();
        let y2 = module.forward(&Cx::train(arena), &x).unwrap();
        let loss = y2.mul(&g).unwrap().sum(&[0, 1, 2, 3], false).unwrap();
        let mut all = y.to_vec().unwrap();
        all.extend(grad(&loss, &[&x]).unwrap()[0].to_vec().unwrap());
        for params in [arena.grads(), arena.buffers()] {
            params.tensors().iter().for_each(|t| all.extend(t.to_vec().unwrap()));
        }
        all.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let (ghost, ghost_arena) = layer(3, Ghosts::Size(6));
    let mut names = Builder::new();
    let plain = BatchNorm2d::new(&mut names.root().sub("norm"), 3);
    let plain_arena = Arena::new(&gpu(), &names, 0).unwrap();
    assert_eq!(bits(&ghost, &ghost_arena), bits(&plain, &plain_arena));
}

/// A convolution, a norm and a linear layer.
struct Net<N>(Conv2d, N, Linear);

impl<N: Module> Module for Net<N> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let y = self.1.forward(cx, &self.0.forward(cx, x)?)?.relu()?;
        self.2.forward(cx, &y.flatten(1, 3)?)
    }
}

fn net(ghost: Option<usize>) -> (Box<dyn Module>, Arena) {
    let mut names = Builder::new();
    let mut root = names.root();
    let conv = Conv2d::new(&mut root.sub("conv"), 2, 4, 3, ConvOptions::new(1, 1));
    let norm = BatchNorm2d::new(&mut root.sub("norm"), 4);
    let head = Linear::new(&mut root.sub("head"), 36, 3, true);
    let model: Box<dyn Module> = match ghost {
        Some(size) => Box::new(Net(conv, GhostBatchNorm::over(norm, Ghosts::Size(size)).unwrap(), head)),
        None => Box::new(Net(conv, norm, head)),
    };
    (model, Arena::new(&gpu(), &names, 3).unwrap())
}

fn minibatch(n: usize) -> Minibatch {
    let labels: Vec<u32> = (0..n as u32).map(|i| i * 7 % 3).collect();
    Minibatch {
        images: tensor(&noise(n * 18, 5), &[n, 3, 3, 2]),
        labels: Tensor::from_u32(&gpu(), &labels, &[n]).unwrap(),
        soft: None,
        indices: (0..n as u32).collect(),
    }
}

fn gradients(arena: &Arena) -> HashMap<String, Vec<f32>> {
    arena.grads().iter().map(|(name, t)| (name.to_string(), t.to_vec().unwrap())).collect()
}

#[test]
fn ghosts_in_one_pass_are_gradients_taken_ghost_by_ghost() {
    let batch = minibatch(12);
    let whole = |ghost: Option<usize>| {
        let (model, arena) = net(ghost);
        let logits = model.forward(&Cx::train(&arena), &batch.images).unwrap();
        arena.backward(&logits.cross_entropy(&batch.labels, CrossEntropy::default()).unwrap()).unwrap();
        gradients(&arena)
    };
    let (layer, plain) = (whole(Some(4)), whole(None));
    // Ghost by ghost through a model with ordinary batch norm.
    let (model, arena) = net(None);
    let large = LargeBatch::new(config(4, 12, Some(4))).unwrap();
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0)).unwrap();
    let report = large.step(model.as_ref(), &arena, &mut optimizer, &batch, 0.0, (0, 0)).unwrap();
    assert_eq!(report.ghosts, 3);
    let summed = gradients(&arena);
    let mut apart = 0.0f32;
    for (name, want) in &summed {
        close(&layer[name], want, 1e-5);
        apart = plain[name].iter().zip(want).fold(apart, |m, (a, b)| m.max((a - b).abs()));
    }
    assert!(apart > 1e-3, "ordinary batch norm over all samples must differ: {apart}");
}

fn config(small_batch: usize, batch: usize, ghost: Option<usize>) -> LargeBatchConfig {
    LargeBatchConfig {
        small_batch,
        batch,
        lr_rule: LrRule::Sqrt,
        ghost,
        clip: None,
        adapt_regime: true,
        gradient_noise: None,
    }
}

#[test]
fn order_matters_between_ghosts_and_not_within() {
    let values = noise(8 * 3, 9);
    let forward = |order: [usize; 8]| {
        let (layer, arena) = layer(3, Ghosts::Size(4));
        let x: Vec<f32> = order.iter().flat_map(|&i| values[3 * i..3 * i + 3].to_vec()).collect();
        let y = layer.forward(&Cx::train(&arena), &tensor(&x, &[8, 3])).unwrap().to_vec().unwrap();
        let mut back = vec![0.0; 24];
        for (at, &i) in order.iter().enumerate() {
            back[3 * i..3 * i + 3].copy_from_slice(&y[3 * at..3 * at + 3]);
        }
        back
    };
    let plain = forward([0, 1, 2, 3, 4, 5, 6, 7]);
    close(&forward([2, 0, 3, 1, 4, 7, 6, 5]), &plain, 1e-5);
    let swapped = forward([4, 1, 2, 3, 0, 5, 6, 7]);
    assert!(swapped.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));
}

#[test]
fn gradients_vanish_along_mean_and_scale_of_each_ghost() {
    let (layer, arena) = layer(2, Ghosts::Size(3));
    let x = tensor(&noise(6 * 4 * 2, 11), &[6, 2, 2, 2]).leaf();
    let y = layer.forward(&Cx::train(&arena), &x).unwrap();
    let loss = y.mul(&tensor(&noise(48, 12), &[6, 2, 2, 2])).unwrap().sum(&[0, 1, 2, 3], false).unwrap();
    let dx = grad(&loss, &[&x]).unwrap()[0].to_vec().unwrap();
    let y = y.to_vec().unwrap();
    for (ghost, channel) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let at = (0..12).map(|i| (ghost * 12 + i) * 2 + channel);
        let (sum, along) = at.fold((0.0, 0.0), |(s, a), i| (s + dx[i], a + dx[i] * y[i]));
        assert!(sum.abs() < 1e-4 && along.abs() < 1e-3, "{sum} {along}");
    }
}

#[test]
fn uneven_batches_are_cut_as_by_accumulation() {
    let (by_count, arena) = layer(2, Ghosts::Pieces(8));
    assert_eq!(by_count.pieces(10), [2; 5]);
    assert_eq!(by_count.pieces(848), [106; 8]);
    assert_eq!(by_count.pieces(11), [2, 2, 2, 2, 2, 1]);
    let (by_size, _) = layer(2, Ghosts::Size(4));
    assert_eq!((by_size.pieces(3), by_size.pieces(12), by_size.pieces(10)), (vec![3], vec![4; 3], vec![5; 2]));
    let large = LargeBatch::new(config(128, 2048, Some(256))).unwrap();
    assert_eq!(large.pieces(848).iter().map(|p| p.1).collect::<Vec<_>>(), [106; 8]);
    // The shorter last piece is normalised by itself and does not move the statistics when it is a single sample.
    let values = noise(22, 4);
    let y = by_count.forward(&Cx::train(&arena), &tensor(&values, &[11, 2])).unwrap().to_vec().unwrap();
    assert_eq!(&y[20..], [0.0, 0.0]);
    let moved = arena.buffers().by_name("norm.running_mean").unwrap().to_vec().unwrap();
    let mut want = [0.0f32; 2];
    for pair in values[..20].chunks(4) {
        (0..2).for_each(|c| want[c] = 0.9 * want[c] + 0.1 * 0.5 * (pair[c] + pair[2 + c]));
    }
    close(&moved, &want, 1e-5);
}

#[test]
fn evaluation_uses_the_running_statistics() {
    let (layer, arena) = layer(2, Ghosts::Size(2));
    let x = tensor(&noise(12, 3), &[6, 2]);
    layer.forward(&Cx::train(&arena), &x).unwrap();
    let whole = layer.forward(&Cx::eval(&arena), &x).unwrap().to_vec().unwrap();
    let first = layer.forward(&Cx::eval(&arena), &x.narrow(0, 0, 1).unwrap()).unwrap().to_vec().unwrap();
    assert_eq!(whole[..2], first[..]);
}

#[test]
fn clipping_is_by_the_norm_of_all_gradients() {
    for (a, b, want) in [(6.0, 8.0, [3.0, 4.0]), (0.6, 0.8, [0.6, 0.8])] {
        let mut names = Builder::new();
        let ids = ["a", "b"].map(|n| names.root().param(n, &[1], shadegrad::nn::Init::Zeros));
        let arena = Arena::new(&gpu(), &names, 0).unwrap();
        let cx = Cx::train(&arena);
        let loss = cx.param(ids[0]).mul_scalar(a).unwrap().add(&cx.param(ids[1]).mul_scalar(b).unwrap()).unwrap();
        arena.backward(&loss.sum(&[0], false).unwrap()).unwrap();
        let large = LargeBatch::new(LargeBatchConfig { clip: Some(5.0), ..config(1, 1, None) }).unwrap();
        let rule = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        large.clipped(Optimizer::new(&arena, rule).unwrap()).step(&arena, 1.0).unwrap();
        let moved: Vec<f32> = ids.iter().map(|&id| -arena.params().get(id).item().unwrap()).collect();
        close(&moved, &want, 1e-6);
    }
}

/// The four gradients of the covariance checks.
const FOUR: [[f64; 2]; 4] = [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]];

/// Diagonal of the second moment of means over the given batches; the mean of the four is zero.
fn moment(batches: &[Vec<usize>]) -> [f64; 2] {
    let mut m = [0.0; 2];
    for batch in batches {
        for (c, m) in m.iter_mut().enumerate() {
            let mean = batch.iter().map(|&i| FOUR[i][c]).sum::<f64>() / batch.len() as f64;
            *m += mean * mean / batches.len() as f64;
        }
    }
    m
}

#[test]
fn covariance_falls_with_the_batch_and_the_root_rule_restores_it() {
    let without: Vec<Vec<usize>> = (0..4).flat_map(|i| (i + 1..4).map(move |j| vec![i, j])).collect();
    let with: Vec<Vec<usize>> = (0..4).flat_map(|i| (0..4).map(move |j| vec![i, j])).collect();
    let single: Vec<Vec<usize>> = (0..4).map(|i| vec![i]).collect();
    let (m, n) = (2.0, 4.0);
    let one = moment(&single);
    assert_eq!(one, [0.5, 2.0]);
    let large = LargeBatch::new(config(1, 2, None)).unwrap();
    for (c, one) in one.into_iter().enumerate() {
        // Cov = C / M (1 - M / N) N / (N - 1) without replacement, C / M with.
        assert!((moment(&without)[c] - one / m * (1.0 - m / n) * n / (n - 1.0)).abs() < 1e-12);
        assert!((moment(&with)[c] - one / m).abs() < 1e-12);
        assert!((large.rate_factor().powi(2) * moment(&with)[c] - one).abs() < 1e-12);
    }
}

#[test]
fn noise_on_the_losses_restores_the_covariance_too() {
    // Batches of two with replacement, factors of mean 1 and variance k - 1 = 1: the second moment is that of one sample.
    let mut philox = Philox::new(5, 0);
    let mut m = [0.0f64; 2];
    let draws = 20_000;
    for _ in 0..draws {
        let mut mean = [0.0; 2];
        for _ in 0..2 {
            let (i, z) = (philox.below(4) as usize, 1.0 + philox.normal());
            (0..2).for_each(|c| mean[c] += 0.5 * z * FOUR[i][c]);
        }
        (0..2).for_each(|c| m[c] += mean[c] * mean[c] / f64::from(draws));
    }
    assert!((m[0] / 0.5 - 1.0).abs() < 0.05 && (m[1] / 2.0 - 1.0).abs() < 0.05, "{m:?}");
}

#[test]
fn noise_of_variance_zero_is_the_ordinary_gradient() {
    let batch = minibatch(8);
    let run = |noise: Option<f32>| {
        let (model, arena) = net(None);
        let large = LargeBatch::new(LargeBatchConfig { gradient_noise: noise, ..config(4, 8, None) }).unwrap();
        let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0)).unwrap();
        large.step(model.as_ref(), &arena, &mut optimizer, &batch, 0.0, (3, 1)).unwrap();
        gradients(&arena)
    };
    let (plain, zero, noisy) = (run(None), run(Some(0.0)), run(Some(3.0)));
    for (name, want) in &plain {
        close(&zero[name], want, 1e-5);
    }
    assert!(noisy["head.bias"].iter().zip(&plain["head.bias"]).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn regimes_are_stretched_and_scaled() {
    let regime = Regime::new(0.1, &[(81, 0.01), (122, 0.001), (164, 1e-4)], 200).unwrap();
    let large = LargeBatch::new(config(128, 2048, None)).unwrap();
    let adapted = large.adapt(&regime);
    assert_eq!(adapted.epochs, 3200);
    assert_eq!(adapted.rates.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1296, 1952, 2624]);
    close(&adapted.rates.iter().map(|r| r.1).collect::<Vec<_>>(), &[0.4, 0.04, 0.004, 4e-4], 1e-6);
    assert_eq!((adapted.rate(1295), adapted.rate(1296)), (adapted.rates[0].1, adapted.rates[1].1));
    let uneven = LargeBatch::new(config(128, 2000, None)).unwrap();
    assert_eq!(uneven.adapt(&regime).epochs, 3200);
    assert!((uneven.rate_factor() - 3.9528).abs() < 1e-4);
}

#[test]
fn logarithms_are_fitted_and_power_laws_told_apart() {
    let d = |t: f64| 2.0 + 3.0 * t.ln();
    let points: Vec<_> = [1.0, 10.0, 100.0, 1000.0].map(|t| (t, d(t))).into();
    for (p, want) in points.iter().zip([2.0, 8.907755, 15.815511, 22.723266]) {
        assert!((p.1 - want).abs() < 1e-6);
    }
    let fit = fit_log(&points).unwrap();
    assert!((fit.intercept - 2.0).abs() < 1e-9 && (fit.slope - 3.0).abs() < 1e-9 && (fit.r2 - 1.0).abs() < 1e-12);
    assert!(fit.power_r2 < fit.r2);
    let fit = fit_log(&[1.0, 10.0, 100.0, 1000.0f64].map(|t| (t, t.sqrt()))).unwrap();
    assert!(fit.r2 < fit.power_r2 && (fit.power_exponent - 0.5).abs() < 1e-12);
    for wrong in [&[(1.0, 1.0), (2.0, 2.0)][..], &[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], &[(1.0, 1.0); 3]] {
        assert!(fit_log(wrong).is_err());
    }
}

#[test]
fn distances_count_the_named_weights_only() {
    let (_, arena) = net(None);
    let mut probe = DistanceProbe::new(&arena, "head.*").unwrap();
    let moved = arena.params().map(|entry, t| match entry.name.as_str() {
        "head.weight" => t.add_scalar(0.5),
        "conv.weight" => t.add_scalar(9.0),
        _ => Ok(t.clone()),
    });
    probe.record(1, &arena).unwrap();
    arena.set_values(&moved.unwrap()).unwrap();
    probe.record(2, &arena).unwrap();
    let curve = probe.curve().unwrap();
    assert_eq!(curve[0], (1.0, 0.0));
    // 108 weights by a half each.
    assert!((curve[1].1 - 27f64.sqrt()).abs() < 1e-4, "{curve:?}");
    assert!(DistanceProbe::new(&arena, "nothing.*").is_err());
}

#[test]
fn roughness_of_a_linear_function_is_two() {
    let (_, arena) = net(None);
    let start = arena.values_flat().to_vec().unwrap();
    let id = arena.params().id("head.bias").unwrap();
    let loss = || Ok(f64::from(arena.params().get(id).to_vec()?[0]));
    let found = roughness(&arena, 2.0, 600, 1, loss).unwrap();
    assert!((found.exponent - 2.0).abs() < 0.3, "{found:?}");
    assert_eq!(arena.values_flat().to_vec().unwrap(), start);
}

#[test]
fn mistakes_are_errors() {
    let good = config(128, 2048, Some(128));
    for (wrong, word) in [
        (LargeBatchConfig { ghost: Some(0), ..good }, "ghosts of 0"),
        (LargeBatchConfig { ghost: Some(4096), ..good }, "ghosts of 4096"),
        (LargeBatchConfig { clip: Some(0.0), ..good }, "clipped to 0"),
        (LargeBatchConfig { batch: 0, ..good }, "at least 1"),
        (LargeBatchConfig { gradient_noise: Some(-1.0), ..good }, "variance -1"),
    ] {
        let err = LargeBatch::new(wrong).unwrap_err().to_string();
        assert!(err.contains(word), "{err}");
    }
    assert!(Regime::new(0.1, &[(5, 0.1), (5, 0.2)], 9).is_err() && Regime::new(0.0, &[], 9).is_err());
    assert!(GhostBatchNorm::new(&mut Builder::new().root(), 3, Ghosts::Size(0)).is_err());
}
