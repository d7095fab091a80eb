//! The exactness checks of the mathematics, and what may be asked of the layer and of the rules beyond them.

use shadegrad::nn::{Activation, Arena, Builder, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::{Philox, Stream};
use shadegrad::{CrossEntropy, Tensor};

use super::*;
use crate::Spec;
use crate::papers::testing::gpu;

fn groups(groups: usize, p_inter: f64, grouping: Grouping) -> GroupMask {
    GroupMask { groups, p_intra: 1.0, p_inter, grouping }
}

fn rows(mask: &Mask) -> Vec<String> {
    let bit = |o: usize, i: usize| if mask.get(o, i) { '1' } else { '0' };
    (0..mask.outputs()).map(|o| (0..mask.inputs()).map(|i| bit(o, i)).collect()).collect()
}

fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut v = vec![0.0; shape.iter().product()];
    Philox::new(seed, 77).fill_uniform(&mut v, -1.0, 1.0);
    Tensor::from_slice(&gpu(), &v, shape).unwrap()
}

/// A layer alone, its parameters and its arena's optimiser.
struct Alone {
    layer: MaskedLinear,
    arena: Arena,
}

fn alone(mask: Mask, bias: bool, executor: Executor) -> Alone {
    let mut builder = Builder::new();
    let layer = MaskedLinear::new(&mut builder.root().sub("fc"), mask, bias, executor);
    let arena = Arena::new(&gpu(), &builder, 3).unwrap();
    layer.attach(&arena, 3).unwrap();
    Alone { layer, arena }
}

fn near(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance, "element {i}: {g} for {w}");
    }
}

// Check 1.
#[test]
fn masks_of_four_and_eight_units() {
    let index = groups(2, 0.0, Grouping::Index).sample(4, 4, 0).unwrap();
    assert_eq!(rows(&index), ["1100", "1100", "0011", "0011"]);
    let interleaved = groups(2, 0.0, Grouping::Interleaved);
    assert_eq!(rows(&interleaved.sample(4, 4, 0).unwrap()), ["1010", "0101", "1010", "0101"]);
    assert_eq!(rows(&interleaved.sample(4, 8, 0).unwrap()), ["10101010", "01010101", "10101010", "01010101"]);
    // Random groups are of equal size, and others for another seed.
    let random = |seed| groups(2, 0.0, Grouping::Random { seed }).sample(8, 16, 0).unwrap();
    assert!(random(1).fan_in().iter().all(|&n| n == 8) && random(1) != random(2) && random(1) == random(1));
}

#[test]
fn what_cannot_be_grouped_is_named() {
    let err = |m: GroupMask, o, i| m.sample(o, i, 0).unwrap_err().to_string();
    assert!(err(groups(3, 0.0, Grouping::Index), 6, 8).contains("3 groups of 8 inputs and 6 outputs"));
    assert!(err(groups(0, 0.0, Grouping::Index), 6, 8).contains("0 groups"));
    assert!(err(groups(2, 1.5, Grouping::Index), 4, 4).contains("p_inter 1.5"));
    let negative = GroupMask { p_intra: -0.1, ..groups(2, 0.5, Grouping::Index) };
    assert!(err(negative, 4, 4).contains("p_intra -0.1"));
    let spec = Spec { height: 30, width: 30, channels: 3, classes: 10 };
    let config = G2gConfig::paper(&spec, 64, Wiring::Dense, 0);
    assert!(G2gMlp::new(&mut Builder::new().root(), &config).err().unwrap().to_string().contains("30 x 30"));
}

// Check 2.
#[test]
fn without_links_between_groups_a_layer_is_one_dense_layer_for_each_group() {
    let (n, g) = (12, 3);
    let x = noise(&[5, n], 1);
    for executor in [Executor::Dense, Executor::Sparse] {
        for (grouping, unit) in [
            // Unit k of group q in the layer's own order.
            (Grouping::Index, (|q, k| q * 4 + k) as fn(usize, usize) -> usize),
            (Grouping::Interleaved, |q, k| k * 3 + q),
        ] {
            let a = alone(groups(g, 0.0, grouping).sample(n, n, 0).unwrap(), true, executor);
            let (w, b) =
                (a.layer.matrix(&a.arena).unwrap(), a.arena.params().by_name("fc.bias").unwrap().to_vec().unwrap());
            let y = a.layer.forward(&Cx::eval(&a.arena), &x).unwrap().to_vec().unwrap();
            let xs = x.to_vec().unwrap();
            let mut want = vec![0.0; 5 * n];
            for (s, q, k) in (0..5).flat_map(|s| (0..g).flat_map(move |q| (0..n / g).map(move |k| (s, q, k)))) {
                let o = unit(q, k);
                let slice = (0..n / g).map(|j| w[o * n + unit(q, j)] * xs[s * n + unit(q, j)]);
                want[s * n + o] = slice.sum::<f32>() + b[o];
            }
            near(&y, &want, 1e-5);
        }
    }
    // The permutation of the units: pi(j) = (j mod G) (n / G) + j / G turns interleaved groups into contiguous ones.
    let pi = |j: usize| (j % g) * (n / g) + j / g;
    let index = groups(g, 0.0, Grouping::Index).sample(n, n, 0).unwrap();
    let interleaved = groups(g, 0.0, Grouping::Interleaved).sample(n, n, 0).unwrap();
    assert!((0..n).all(|o| (0..n).all(|i| interleaved.get(o, i) == index.get(pi(o), pi(i)))));
}

/// Share of the inputs that an output depends on through two layers.
fn reach(n: usize, g: usize, second: Grouping) -> f64 {
    let first = groups(g, 0.0, Grouping::Index).sample(n, n, 0).unwrap();
    let second = groups(g, 0.0, second).sample(n, n, 0).unwrap();
    let seen = |o, i| (0..n).any(|m| second.get(o, m) && first.get(m, i));
    (0..n * n).filter(|at| seen(at / n, at % n)).count() as f64 / (n * n) as f64
}

// Check 3.
#[test]
fn index_then_interleaved_sees_all_inputs() {
    for (n, g, want) in [(64, 8, 1.0), (16, 4, 1.0), (8, 4, 0.5), (32, 8, 0.5)] {
        assert_eq!(reach(n, g, Grouping::Interleaved), want, "{n} units, {g} groups");
        assert_eq!(reach(n, g, Grouping::Index), 1.0 / g as f64);
    }
}

// Check 4.
#[test]
fn density_of_a_mask_of_a_million() {
    let density = |p| groups(8, p, Grouping::Index).sample(1024, 1024, 5).unwrap().density();
    assert!((density(0.15) - 0.25625).abs() < 0.001, "{}", density(0.15));
    assert_eq!((density(0.0), density(1.0)), (0.125, 1.0));
    assert!((groups(8, 0.15, Grouping::Index).expected_density() - 0.25625).abs() < 1e-12);
    let er = Mask::erdos_renyi(1024, 1024, 0.25625, Stream::new(5, 0)).unwrap();
    assert!((er.density() - 0.25625).abs() < 0.0015, "{}", er.density());
}

fn adam() -> Rule {
    Rule::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
}

// Check 5.
#[test]
fn weights_off_the_mask_get_no_gradient_and_stay_zero() {
    let mask = groups(2, 0.3, Grouping::Index).sample(6, 8, 1).unwrap();
    let a = alone(mask.clone(), true, Executor::Dense);
    let x = noise(&[7, 8], 2);
    let loss = |arena: &Arena| a.layer.forward(&Cx::eval(arena), &x).unwrap().square().unwrap().sum_to(&[]).unwrap();
    a.arena.backward(&loss(&a.arena)).unwrap();
    let gradient = a.arena.grads().by_name("fc.weight").unwrap().to_vec().unwrap();
    let on = mask.as_slice();
    assert!(gradient.iter().zip(on).all(|(g, on)| *on || *g == 0.0));
    assert!(gradient.iter().zip(on).all(|(g, on)| !*on || *g != 0.0));
    // A finite difference along a weight that does not exist.
    let id = a.arena.params().id("fc.weight").unwrap();
    let before = a.arena.params().detach();
    let hole = mask.holes()[3] as usize;
    let moved = |by: f32| {
        let mut w = before.get(id).to_vec().unwrap();
        w[hole] += by;
        let w = Tensor::from_slice(&gpu(), &w, &[6, 8]).unwrap();
        let cx = Cx::new(before.with(id, w).unwrap(), a.arena.buffers().clone());
        a.layer.forward(&cx, &x).unwrap().square().unwrap().sum_to(&[]).unwrap().item().unwrap()
    };
    assert_eq!(moved(0.5), moved(-0.5));

    let mut optimizer = Optimizer::new(&a.arena, adam()).unwrap();
    for _ in 0..100 {
        a.arena.backward(&loss(&a.arena)).unwrap();
        optimizer.step(&a.arena, 1e-2).unwrap();
    }
    let w = a.arena.params().get(id).to_vec().unwrap();
    assert!(w.iter().zip(on).all(|(w, on)| *on == (*w != 0.0)));
}

// Check 6.
#[test]
fn first_values_follow_the_fan_in_of_each_row() {
    // Half of the rows with 4 of 16 inputs, half with all.
    let mask = Mask::from_fn(4000, 16, |o, i| o % 2 == 0 || i % 4 == o % 4);
    let a = alone(mask.clone(), true, Executor::Dense);
    let w = a.layer.matrix(&a.arena).unwrap();
    let of = |odd: usize| -> Vec<f64> {
        let pairs = w.iter().enumerate().zip(mask.as_slice());
        pairs.filter(|((at, _), on)| **on && (at / 16) % 2 == odd).map(|((_, w), _)| f64::from(*w)).collect()
    };
    for (odd, fan_in) in [(1, 4.0f64), (0, 16.0)] {
        let v = of(odd);
        let bound = 1.0 / fan_in.sqrt() + 1e-6;
        let largest = v.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(largest <= bound && largest > 0.99 * bound, "{largest} for {bound}");
        let variance = v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64;
        assert!((variance * 3.0 * fan_in - 1.0).abs() < 0.03, "fan in {fan_in}: {variance}");
    }
    assert!(w.iter().zip(mask.as_slice()).all(|(w, on)| *on || *w == 0.0));
    // Mean fan-in 10.
    let b = a.arena.params().by_name("fc.bias").unwrap().to_vec().unwrap();
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!((0.31..=0.316_228).contains(&largest), "{largest}");
    // Rows without inputs, and the values that a dense layer of that name starts from.
    let empty = alone(Mask::from_fn(2, 3, |_, _| false), true, Executor::Dense);
    assert_eq!(empty.layer.matrix(&empty.arena).unwrap(), [0.0; 6]);
    let full = alone(Mask::full(5, 7), true, Executor::Dense);
    let mut builder = Builder::new();
    Linear::new(&mut builder.root().sub("fc"), 7, 5, true);
    let linear = Arena::new(&gpu(), &builder, 3).unwrap();
    let dense = linear.params().by_name("fc.weight").unwrap().to_vec().unwrap();
    near(&full.layer.matrix(&full.arena).unwrap(), &dense, 0.0);
}

// Check 7.
#[test]
fn correlation_by_hand() {
    let pre = Tensor::from_slice(&gpu(), &[1.0, 0.0, 2.0, 1.0, 0.0, 2.0], &[3, 2]).unwrap();
    let post = Tensor::from_slice(&gpu(), &[1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 3.0, 1.0], &[3, 3]).unwrap();
    let ch = hebbian_score(&pre, &post).unwrap();
    assert_eq!(ch.shape(), [3, 2]);
    near(&ch.to_vec().unwrap(), &[1.0, 0.4, 0.0, 0.894_427, 0.316_228, 0.632_456], 1e-6);
    // A dead unit has no correlation, and no division by zero.
    let dead = Tensor::zeros(&gpu(), &[3, 2]).unwrap();
    assert_eq!(hebbian_score(&pre, &dead).unwrap().to_vec().unwrap(), [0.0; 4]);
    assert_eq!(hebbian_score(&dead, &dead).unwrap().to_vec().unwrap(), [0.0; 4]);
    assert!(hebbian_score(&pre, &noise(&[4, 2], 0)).unwrap_err().to_string().contains("3 samples"));
}

// Check 8.
#[test]
fn an_event_keeps_the_number_of_edges_and_takes_the_right_ones() {
    let mut rng = Philox::new(1, 1);
    let mask = groups(4, 0.2, Grouping::Index).sample(40, 32, 2).unwrap();
    let edges = mask.positions();
    let mut weights = vec![0.0; edges.len()];
    rng.fill_uniform(&mut weights, -1.0, 1.0);
    // Many equal scores, as with dead units.
    let scores: Vec<f32> = (0..40 * 32).map(|_| (rng.uniform() - 0.5).max(0.0)).collect();
    let weight = |at: &u32| weights[edges.binary_search(at).unwrap()].abs();
    for prune in [Prune::Set, Prune::Random, Prune::Hebbian, Prune::Three] {
        for grow in [Grow::Random, Grow::Hebbian] {
            for exclude_just_pruned in [false, true] {
                let dst = Dst { fraction: 0.1, prune, grow, exclude_just_pruned, ..Dst::default() };
                let change = dst.choose(&mask, &weights, Some(&scores), Stream::new(9, 0)).unwrap();
                let n = edges.len() / 10;
                assert_eq!((change.pruned.len(), change.grown.len()), (n, n), "{dst:?}");
                assert!(change.pruned.windows(2).all(|w| w[0] < w[1]) && change.grown.windows(2).all(|w| w[0] < w[1]));
                let without = mask.changed(&change.pruned, &[]).unwrap();
                assert_eq!(without.active(), edges.len() - n);
                let new = without.changed(&[], &change.grown).unwrap();
                assert_eq!(new.active(), edges.len());
                if exclude_just_pruned {
                    assert!(change.grown.iter().all(|at| !change.pruned.contains(at)));
                }
                if prune == Prune::Set {
                    let largest = change.pruned.iter().map(weight).fold(0.0, f32::max);
                    assert!(without.positions().iter().all(|at| weight(at) >= largest));
                }
                if prune == Prune::Hebbian {
                    let largest = change.pruned.iter().map(|&at| scores[at as usize]).fold(0.0, f32::max);
                    assert!(without.positions().iter().all(|&at| scores[at as usize] >= largest));
                }
                if grow == Grow::Hebbian {
                    let least = change.grown.iter().map(|&at| scores[at as usize]).fold(f32::MAX, f32::min);
                    let left = new.holes().into_iter().filter(|at| !exclude_just_pruned || !change.pruned.contains(at));
                    assert!(left.into_iter().all(|at| scores[at as usize] <= least));
                }
            }
        }
    }
}

// Check 8, in the network: only what was pruned changes the function, for both ways of storing.
#[test]
fn growing_does_not_change_the_function() {
    let mask = groups(4, 0.2, Grouping::Index).sample(16, 24, 2).unwrap();
    let x = noise(&[9, 24], 3);
    for executor in [Executor::Dense, Executor::Sparse] {
        let a = alone(mask.clone(), true, executor);
        let mut optimizer = Optimizer::new(&a.arena, adam()).unwrap();
        let activations = Activations::new();
        let cx = activations.watch(&Cx::train(&a.arena));
        let y = a.layer.forward_with(&cx, &x, Activation::Relu).unwrap();
        a.arena.backward(&y.square().unwrap().sum_to(&[]).unwrap()).unwrap();
        optimizer.step(&a.arena, 1e-2).unwrap();
        let before = a.layer.matrix(&a.arena).unwrap();
        let dst = Dst { every: 1, fraction: 0.2, exclude_just_pruned: true, ..Dst::default() };
        assert_eq!(dst.maybe_step(0, &[&a.layer], &activations, &a.arena, &optimizer).unwrap(), []);
        let reports = dst.maybe_step(1, &[&a.layer], &activations, &a.arena, &optimizer).unwrap();
        let [DstReport { layer, change }] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((layer.as_str(), change.pruned.len()), ("fc", mask.active() / 5));
        let mut want = before.clone();
        change.pruned.iter().for_each(|&at| want[at as usize] = 0.0);
        assert_eq!(a.layer.matrix(&a.arena).unwrap(), want);
        assert_eq!(a.layer.mask().active(), mask.active());
        // The layer computes with that matrix.
        let y = a.layer.forward(&Cx::eval(&a.arena), &x).unwrap();
        let w = Tensor::from_slice(&gpu(), &want, &[16, 24]).unwrap();
        let bias = a.arena.params().by_name("fc.bias").unwrap().detach();
        near(&y.to_vec().unwrap(), &x.linear(&w, Some(&bias)).unwrap().to_vec().unwrap(), 1e-5);
        // Moments of what was pruned or grown are zero, and of nothing else.
        let entry = &a.arena.table().entries()[a.arena.table().find("fc.weight").unwrap()];
        let (_, moment) = optimizer.state()[0];
        let moment = moment.to_vec().unwrap()[entry.offset..][..entry.len].to_vec();
        let edges = a.layer.mask().positions();
        for (e, &at) in edges.iter().enumerate() {
            let m = moment[if executor == Executor::Sparse { e } else { at as usize }];
            assert_eq!(m == 0.0, change.grown.contains(&at), "position {at}: {m}");
        }
    }
}

// Check 9.
#[test]
fn an_event_by_hand() {
    let mask = Mask::from_fn(2, 2, |o, i| [[1, 1], [1, 0]][o][i] == 1);
    let dst = Dst { fraction: 0.4, every: 1, ..Dst::default() };
    let change = dst.choose(&mask, &[0.5, -0.1, 0.2], Some(&[0.9, 0.3, 0.2, 0.8]), Stream::new(0, 0)).unwrap();
    assert_eq!(change, Change { pruned: vec![1], grown: vec![3] });
    for executor in [Executor::Dense, Executor::Sparse] {
        let a = alone(mask.clone(), false, executor);
        let w: &[f32] = if executor == Executor::Dense { &[0.5, -0.1, 0.2, 0.0] } else { &[0.5, -0.1, 0.2] };
        let id = a.arena.params().id("fc.weight").unwrap();
        let w = Tensor::from_slice(&gpu(), w, a.arena.params().get(id).shape()).unwrap();
        a.arena.set_values(&a.arena.params().with(id, w).unwrap()).unwrap();
        let optimizer = Optimizer::new(&a.arena, adam()).unwrap();
        a.layer.rewire(&change, &a.arena, &optimizer).unwrap();
        assert_eq!(rows(&a.layer.mask()), ["10", "11"]);
        assert_eq!(a.layer.matrix(&a.arena).unwrap(), [0.5, 0.0, 0.2, 0.0]);
    }
    // An edge that is pruned and the best to grow comes back at once, as zero, unless that is excluded.
    let back = dst.choose(&mask, &[0.5, -0.1, 0.2], Some(&[0.9, 0.9, 0.2, 0.8]), Stream::new(0, 0)).unwrap();
    assert_eq!(back, Change { pruned: vec![1], grown: vec![1] });
    let a = alone(mask.clone(), false, Executor::Sparse);
    let before = a.layer.matrix(&a.arena).unwrap();
    a.layer.rewire(&back, &a.arena, &Optimizer::new(&a.arena, adam()).unwrap()).unwrap();
    assert_eq!(a.layer.matrix(&a.arena).unwrap(), [before[0], 0.0, before[2], 0.0]);
    assert_eq!(a.layer.mask(), mask);
    let excluded = Dst { exclude_just_pruned: true, ..dst };
    let other = excluded.choose(&mask, &[0.5, -0.1, 0.2], Some(&[0.9, 0.9, 0.2, 0.8]), Stream::new(0, 0)).unwrap();
    assert_eq!(other.grown, [3]);
}

// Check 10.
#[test]
fn parameter_counts() {
    let spec = Spec::cifar10();
    let count = |width, wiring| {
        let mut builder = Builder::new();
        let model = G2gMlp::new(&mut builder.root(), &G2gConfig::paper(&spec, width, wiring, 0)).unwrap();
        let all = builder.tables().unwrap().0.numel();
        (model.head_parameters(), all)
    };
    let encoder = 8 * 8 * 3 * 32 + 32;
    assert_eq!(count(1024, Wiring::Dense), (2_634_762, 2_634_762 + encoder));
    assert_eq!(count(469, Wiring::Dense), (686_157, 686_157 + encoder));
    assert_eq!(count(100, Wiring::Dense).0, 72_510);
    // 685,066 on average; the standard deviation of the links between groups is 541.
    let (sparse, stored) = count(1024, Wiring::paper(Pattern::Mixer));
    assert!(sparse.abs_diff(685_066) < 2200, "{sparse}");
    assert_eq!(stored, 2_634_762 + encoder);
    let small = count(256, Wiring::ErdosRenyi(0.25625)).0;
    assert!(small.abs_diff(70_512) < 1000, "{small}");
}

#[test]
fn features_are_in_the_order_of_channels() {
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 3 };
    let mut builder = Builder::new();
    let config = G2gConfig { channels: 2, widths: vec![8], ..G2gConfig::paper(&spec, 8, Wiring::Dense, 0) };
    let model = G2gMlp::new(&mut builder.root(), &config).unwrap();
    let arena = Arena::new(&gpu(), &builder, 0).unwrap();
    let x = noise(&[1, 8, 8, 1], 4);
    let features = model.features(&Cx::eval(&arena), &x).unwrap();
    assert_eq!(features.shape(), [1, 32]);
    let (w, b) = (arena.params().by_name("encoder.weight").unwrap(), arena.params().by_name("encoder.bias").unwrap());
    let (w, b, x) = (w.to_vec().unwrap(), b.to_vec().unwrap(), x.to_vec().unwrap());
    let mut want = vec![0.0; 32];
    for (c, row, column) in (0..32).map(|i| (i / 16, i / 4 % 4, i % 4)) {
        let patch = (0..4).map(|k| w[c * 4 + k] * x[(2 * row + k / 2) * 8 + 2 * column + k % 2]);
        want[c * 16 + row * 4 + column] = (patch.sum::<f32>() + b[c]).max(0.0);
    }
    near(&features.to_vec().unwrap(), &want, 1e-5);
}

#[test]
fn both_executors_train_alike() {
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 4 };
    let (x, g) = (noise(&[20, 8, 8, 1], 5), gpu());
    let labels = Tensor::from_u32(&g, &(0..20).map(|i| i % 4).collect::<Vec<_>>(), &[20]).unwrap();
    let run = |executor| {
        let mut builder = Builder::new();
        let config = G2gConfig { executor, ..G2gConfig::paper(&spec, 64, Wiring::paper(Pattern::Mixer), 1) };
        let model = G2gMlp::new(&mut builder.root(), &config).unwrap();
        let arena = Arena::new(&g, &builder, 1).unwrap();
        model.attach(&arena, 1).unwrap();
        // Plain descent: Adam divides by the square root of gradients that are zero but for rounding.
        let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 1e-4 };
        let mut optimizer = Optimizer::new(&arena, rule).unwrap();
        let dst = Dst { every: 5, fraction: 0.1, prune: Prune::Three, exclude_just_pruned: true, ..Dst::default() };
        let activations = Activations::new();
        let mut losses = Vec::new();
        for step in 0..12 {
            let cx = activations.watch(&Cx::train(&arena).seeded(1, step));
            let loss = model.forward(&cx, &x).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap();
            losses.push(loss.item().unwrap());
            arena.backward(&loss).unwrap();
            optimizer.step(&arena, 0.05).unwrap();
            dst.maybe_step(step, &model.masked_layers(), &activations, &arena, &optimizer).unwrap();
        }
        let layers = model.masked_layers();
        let matrices: Vec<Vec<f32>> = layers.iter().map(|l| l.matrix(&arena).unwrap()).collect();
        (losses, matrices, arena.table().numel())
    };
    let (dense, sparse) = (run(Executor::Dense), run(Executor::Sparse));
    near(&sparse.0, &dense.0, 1e-4);
    for (s, d) in sparse.1.iter().zip(&dense.1) {
        near(s, d, 1e-4);
    }
    assert!(sparse.0[11] < sparse.0[0] && sparse.2 < dense.2);
}

#[test]
fn what_is_missing_is_named() {
    let mut builder = Builder::new();
    let mask = groups(2, 0.5, Grouping::Index).sample(4, 4, 0).unwrap();
    let layer = MaskedLinear::new(&mut builder.root().sub("fc"), mask.clone(), true, Executor::Sparse);
    let arena = Arena::new(&gpu(), &builder, 0).unwrap();
    let x = noise(&[2, 4], 0);
    let err = layer.forward(&Cx::eval(&arena), &x).unwrap_err().to_string();
    assert!(err.contains("`fc` has no values yet; call `attach`"), "{err}");
    layer.attach(&arena, 0).unwrap();
    let optimizer = Optimizer::new(&arena, adam()).unwrap();
    let dst = Dst { every: 1, fraction: 0.5, ..Dst::default() };
    let err = dst.maybe_step(1, &[&layer], &Activations::new(), &arena, &optimizer).unwrap_err().to_string();
    assert!(err.contains("no activations of `fc`"), "{err}");
    let err = dst.choose(&mask, &vec![0.0; mask.active()], None, Stream::new(0, 0)).unwrap_err().to_string();
    assert!(err.contains("Hebbian rules need scores"), "{err}");
    let err = Dst { fraction: 2.0, ..dst }.choose(&mask, &[], None, Stream::new(0, 0)).unwrap_err().to_string();
    assert!(err.contains("a fraction of 2"), "{err}");
    let fewer = Change { pruned: vec![mask.positions()[0]], grown: vec![] };
    let err = layer.rewire(&fewer, &arena, &optimizer).unwrap_err().to_string();
    assert!(err.contains("their number is fixed"), "{err}");
    let hole = Change { pruned: vec![mask.holes()[0]], grown: vec![] };
    assert!(layer.rewire(&hole, &arena, &optimizer).unwrap_err().to_string().contains("1 edges to prune of which 0"));
    let mut other = Builder::new();
    Linear::new(&mut other.root().sub("a"), 4, 4, true);
    let other = Arena::new(&gpu(), &other, 0).unwrap();
    assert!(layer.attach(&other, 0).unwrap_err().to_string().contains("`fc.weight`"));
}

#[test]
fn events_come_when_they_are_due() {
    let dst = Dst { every: 10, stop_after: Some(30), prune: Prune::Random, grow: Grow::Random, ..Dst::default() };
    let due: Vec<u64> = (0..60).filter(|&s| dst.due(s)).collect();
    assert_eq!(due, [10, 20, 30]);
    assert!(!dst.needs_activations() && Dst::default().needs_activations());
    // A third by magnitude, a third at random, the rest by correlation.
    let mask = Mask::full(1, 12);
    let weights: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let scores: Vec<f32> = (0..12).map(|i| 12.0 - i as f32).collect();
    let three = Dst { fraction: 0.7, prune: Prune::Three, ..Dst::default() };
    let change = three.choose(&mask, &weights, Some(&scores), Stream::new(4, 0)).unwrap();
    assert_eq!(change.pruned.len(), 8);
    // The four highest positions have the lowest scores; the random third comes before, so it only adds to them.
    assert!([0, 1, 8, 9, 10, 11].iter().all(|at| change.pruned.contains(at)), "{change:?}");
}
