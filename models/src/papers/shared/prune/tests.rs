use shadegrad::nn::{Arena, Builder, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::{CrossEntropy, Result, Tensor};

use super::units::{Units, seconds_per_pass};
use super::*;
use crate::papers::shared::mlp::HeMlp;
use crate::papers::testing::gpu;

/// An MLP 6-5-3 and its arena.
fn net(seed: u64) -> (HeMlp, Arena) {
    let mut names = Builder::new();
    let model = HeMlp::new(&mut names.root(), &[6, 5, 3]);
    let arena = Arena::new(&gpu(), &names, seed).unwrap();
    (model, arena)
}

fn backward(model: &dyn Module, arena: &Arena) {
    let x = Tensor::normal(&gpu(), &[8, 6], Stream::new(1, 2), 0.0, 1.0).unwrap();
    let y = Tensor::from_u32(&gpu(), &[0, 1, 2, 0, 1, 2, 0, 1], &[8]).unwrap();
    let loss = model.forward(&Cx::train(arena), &x).unwrap().cross_entropy(&y, CrossEntropy::default()).unwrap();
    arena.backward(&loss).unwrap();
}

/// One linear layer `a` of 2x3 and one `b` of 1x2 with these weights.
fn two(a: [f32; 6], b: [f32; 2]) -> Arena {
    let mut names = Builder::new();
    Linear::new(&mut names.root().sub("a"), 3, 2, true);
    Linear::new(&mut names.root().sub("b"), 2, 1, false);
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    for (name, shape, values) in [("a.weight", [2, 3], &a[..]), ("b.weight", [1, 2], &b[..])] {
        let id = arena.params().id(name).unwrap();
        arena.set_value(id, &Tensor::from_slice(&gpu(), values, &shape).unwrap()).unwrap();
    }
    arena
}

#[test]
fn the_pool_is_the_chosen_parameters_in_order() -> Result<()> {
    let arena = two([1.0, -2.0, 3.0, -4.0, 5.0, -6.0], [7.0, -8.0]);
    let masks = PruneMasks::of_matrices(&arena)?;
    assert_eq!((masks.len(), masks.alive(), masks.sparsity()), (8, 8, 0.0));
    assert_eq!(masks.pool(arena.values_flat())?, [1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0]);
    let spans: Vec<_> = masks.spans().map(|(e, r)| (e.name.clone(), r)).collect();
    assert_eq!(spans, [("a.weight".to_string(), 0..6), ("b.weight".to_string(), 6..8)]);
    let err = PruneMasks::new(&arena, |_| false).unwrap_err().to_string();
    assert!(err.contains("none of the 3 parameters"), "{err}");
    Ok(())
}

#[test]
fn exactly_so_many_go_globally_and_by_layer() -> Result<()> {
    let arena = two([1.0, -2.0, 3.0, -4.0, 5.0, -6.0], [0.5, -0.25]);
    let mut masks = PruneMasks::of_matrices(&arena)?;
    let scores = masks.scores(&arena, Criterion::Magnitude)?;
    let mut by_layer = masks.clone();
    assert_eq!(masks.remove_lowest(&scores, 3, Pooling::Global)?, [0, 6, 7]);
    // 4 of 8: three of the six, one of the two.
    assert_eq!(by_layer.remove_lowest(&scores, 4, Pooling::Layer)?, [0, 1, 2, 7]);
    let left: Vec<_> = by_layer.layers().into_iter().map(|l| (l.total, l.alive)).collect();
    assert_eq!(left, [(6, 3), (2, 1)]);
    // Those that are gone are not chosen again.
    assert_eq!(masks.remove_lowest(&scores, 2, Pooling::Global)?, [1, 2]);
    assert_eq!(masks.remove_below(&scores, 6.0)?, 2);
    assert_eq!(masks.positions(), [5]);
    assert_eq!(masks.of("a.weight").unwrap(), [false, false, false, false, false, true]);
    assert!(masks.of("a.bias").is_none());
    let err = |r: Result<Vec<u32>>| r.unwrap_err().to_string();
    assert!(err(masks.remove_lowest(&scores, 2, Pooling::Global)).contains("2 weights of 1"));
    assert!(err(masks.remove_lowest(&scores[1..], 1, Pooling::Global)).contains("7 scores for 8"));
    assert!(err(masks.remove_lowest(&[f32::NAN; 8], 1, Pooling::Global)).contains("NaN"));
    assert!(masks.remove(&[8]).is_err() && masks.set("a.bias", &[true; 2]).is_err());
    masks.set("b.weight", &[true, false])?;
    assert_eq!(masks.alive(), 2);
    Ok(())
}

#[test]
fn shares_are_those_of_the_percentile() {
    // numpy: percentile(range(10), 20) = 1.8, so 0 and 1 lie below it.
    for (alive, share, want) in
        [(10, 0.2, 2), (10_000, 0.18, 1800), (10_000, 0.2, 2000), (101, 0.18, 18), (1, 0.5, 0), (0, 0.5, 0)]
    {
        assert_eq!(removal(alive, share), want, "{share} of {alive}");
    }
    assert_eq!(apportion(7, &[10, 10, 1]), [4, 3, 0]);
    assert_eq!(apportion(21, &[10, 10, 1]), [10, 10, 1]);
    assert_eq!(apportion(0, &[3, 0]), [0, 0]);
}

#[test]
fn scores_by_hand() -> Result<()> {
    let arena = two([3.0, -1.0, 2.0, 0.0, 0.0, 1.0], [-4.0, 3.0]);
    let mut masks = PruneMasks::of_matrices(&arena)?;
    // LAMP: squares over the sum of those not smaller; ties count the later position first.
    let want = [1.0, 1.0 / 15.0, 4.0 / 13.0, 0.0, 0.0, 1.0 / 14.0, 1.0, 9.0 / 25.0];
    for (got, want) in masks.scores(&arena, Criterion::Lamp)?.iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
    }
    // A layer's largest weight goes last: one weight of each layer is left when six of eight are gone.
    masks.remove_lowest(&masks.scores(&arena, Criterion::Lamp)?, 6, Pooling::Global)?;
    assert_eq!(masks.positions(), [0, 6]);
    let grads = Tensor::full(&gpu(), &[arena.table().floats()], -2.0)?;
    arena.set_grads_flat(&grads)?;
    assert_eq!(masks.scores(&arena, Criterion::Gradient)?, [6.0, 2.0, 4.0, 0.0, 0.0, 2.0, 8.0, 6.0]);
    let mut movement = Movement::new(&arena)?;
    movement.add(&arena)?;
    movement.add(&arena)?;
    assert_eq!(movement.scores(&masks)?, [12.0, -4.0, 8.0, 0.0, 0.0, 4.0, -16.0, 12.0]);
    let random = |seed| masks.scores(&arena, Criterion::Random(seed));
    assert!(random(1)? == random(1)? && random(1)? != random(2)?);
    Ok(())
}

#[test]
fn the_arena_holds_weights_to_the_masks() -> Result<()> {
    let (model, mut arena) = net(3);
    let start = arena.snapshot()?;
    let first = arena.values_flat().to_vec()?;
    let mut masks = PruneMasks::of_matrices(&arena)?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(5e-4))?;
    // The masks grow under way and the optimiser stays: its momentum must not bring weights back.
    for count in [0, 9, 9] {
        let scores = masks.scores(&arena, Criterion::Magnitude)?;
        masks.remove_lowest(&scores, count, Pooling::Global)?;
        masks.apply(&mut arena)?;
        for _ in 0..5 {
            backward(&model, &arena);
            optimizer.step(&arena, 0.1)?;
        }
        let values = masks.pool(arena.values_flat())?;
        assert!(values.iter().zip(masks.as_slice()).all(|(v, &on)| (v.to_bits() == 0) != on));
        let grads = masks.pool(arena.grads_flat())?;
        assert!(grads.iter().zip(masks.as_slice()).all(|(g, &on)| on || g.to_bits() == 0));
    }
    masks.rewind(&mut arena, &start)?;
    let rewound = arena.values_flat().to_vec()?;
    for e in arena.table().entries() {
        for i in 0..e.len {
            let on = masks.of(&e.name).is_none_or(|m| m[i]);
            assert_eq!(rewound[e.offset + i].to_bits(), if on { first[e.offset + i].to_bits() } else { 0 });
        }
    }
    // New masks begin from what the arena has; other parameters' masks stay.
    assert_eq!(PruneMasks::of_matrices(&arena)?.as_slice(), masks.as_slice());
    let mut biases = PruneMasks::new(&arena, |e| e.name == "layers.0.bias")?;
    biases.remove(&[2])?;
    biases.apply(&mut arena)?;
    masks.apply(&mut arena)?;
    assert_eq!(arena.params().by_name("layers.0.bias")?.to_vec()?[2], 0.0);
    assert!(!PruneMasks::new(&arena, |e| e.name == "layers.0.bias")?.as_slice()[2]);
    Ok(())
}

#[test]
fn gradual_pruning_follows_the_cube() -> Result<()> {
    let schedule = Gradual { first: 0.0, last: 0.8, begin: 10, every: 5, times: 4 };
    for (step, want) in [(9, 0.0), (10, 0.0), (14, 0.0), (15, 0.4625), (20, 0.7), (25, 0.7875), (30, 0.8), (99, 0.8)] {
        assert!((schedule.sparsity(step) - want).abs() < 1e-12, "{step}");
    }
    let due: Vec<u64> = (0..60).filter(|&s| schedule.is_due(s)).collect();
    assert_eq!(due, [10, 15, 20, 25, 30]);
    let (_, mut arena) = net(1);
    let masks = PruneMasks::of_matrices(&arena)?;
    assert_eq!(masks.len(), 45);
    let mut pruner = GradualPruner::new(masks.clone(), schedule, Criterion::Magnitude, Pooling::Global)?;
    let mut gone = Vec::new();
    for step in 0..40 {
        if pruner.stepped(step, &mut arena)? {
            gone.push(45 - pruner.masks().alive());
        }
    }
    assert_eq!(gone, [0, 21, 32, 35, 36]);
    let wrong = Gradual { first: 0.5, last: 0.2, ..schedule };
    assert!(GradualPruner::new(masks, wrong, Criterion::Magnitude, Pooling::Global).is_err());
    Ok(())
}

/// A network of this crate on small images with noise in every parameter and statistic, and two images.
fn zoo(name: &str, channels: usize) -> (Box<dyn Module>, Arena, Tensor) {
    let side = if name == "lenet" { 16 } else { 8 };
    let spec = crate::Spec { height: side, width: side, channels, classes: 10 };
    let mut names = Builder::new();
    let model = crate::create(name, &mut names.root(), &spec).unwrap();
    let arena = Arena::new(&gpu(), &names, 1).unwrap();
    let noise = |t: &Tensor, i| Tensor::normal(&gpu(), t.shape(), Stream::new(3, i), 0.0, 0.1).unwrap();
    arena.set_values_flat(&arena.values_flat().add(&noise(arena.values_flat(), 0)).unwrap()).unwrap();
    if arena.buffer_table().floats() > 0 {
        let stats = arena.buffers_flat().add(&noise(arena.buffers_flat(), 1).abs().unwrap()).unwrap();
        arena.set_buffers_flat(&stats).unwrap();
    }
    let x = Tensor::normal(&gpu(), &[2, side, side, channels], Stream::new(3, 2), 0.0, 1.0).unwrap();
    (model, arena, x)
}

#[test]
fn units_that_can_go_are_found_in_any_model() {
    let found = |name: &str, channels| {
        let (model, arena, x) = zoo(name, channels);
        let units = Units::find(model.as_ref(), &arena, &x).unwrap();
        units.groups().iter().map(|g| (g.name.clone(), g.units)).collect::<Vec<_>>()
    };
    let names = |found: &[(String, usize)]| found.iter().map(|g| g.0.clone()).collect::<Vec<_>>();
    // A chain: all layers but the last.
    let cnn = found("cnn", 1);
    assert_eq!(names(&cnn), ["conv1.weight", "conv2.weight", "conv3.weight"]);
    assert_eq!(cnn.iter().map(|g| g.1).collect::<Vec<_>>(), [32, 64, 64]);
    // Residual networks: the inner layer of each block; what is added to the stream stays.
    let resnet = names(&found("resnet20", 3));
    assert_eq!(resnet.len(), 9);
    assert!(resnet.iter().all(|n| n.starts_with("layer") && n.ends_with("conv1.weight")), "{resnet:?}");
    // Transformers: the hidden units of each MLP.
    assert_eq!(names(&found("vit_micro", 3)), ["blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight"]);
}

#[test]
fn without_units_the_network_is_the_masked_one_and_smaller() -> Result<()> {
    for (name, channels) in [("cnn", 1), ("resnet20", 3), ("vit_micro", 3), ("lenet", 1), ("mlp", 1)] {
        let (model, mut arena, x) = zoo(name, channels);
        arena.freeze("*.bias")?;
        let units = Units::find(model.as_ref(), &arena, &x)?;
        for pooling in [Pooling::Layer, Pooling::Global] {
            let keep = units.strongest(&arena, 0.5, pooling)?;
            let gone = keep.iter().flatten().filter(|k| !**k).count();
            assert!(gone * 2 + 2 * keep.len() >= keep.iter().flatten().count(), "{name}: {gone} gone");
            let small = units.remove(model.as_ref(), &arena, &keep, &x)?;
            assert!(
                small.table().numel() < arena.table().numel()
                    && small.is_frozen(units.groups()[0].name.as_str()).is_ok()
            );
            let mut masked = arena.fork()?;
            units.mask(&mut masked, &keep)?;
            let run = |a: &Arena| model.forward(&Cx::eval(a), &x)?.to_vec();
            let (full, masked_out, small_out) = (run(&arena)?, run(&masked)?, run(&small)?);
            for (a, b) in masked_out.iter().zip(&small_out) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{name}: {a} against {b}");
            }
            assert!(full.iter().zip(&small_out).any(|(a, b)| (a - b).abs() > 1e-3), "{name}: the units did nothing");
        }
    }
    Ok(())
}

#[test]
fn parameters_of_a_smaller_network_by_hand() -> Result<()> {
    // 6-5-3 with one of five hidden units gone: 6 4 + 4 + 4 3 + 3.
    let (model, mut arena) = net(5);
    let x = Tensor::normal(&gpu(), &[2, 6], Stream::new(1, 1), 0.0, 1.0)?;
    let units = Units::find(&model, &arena, &x)?;
    let keep = vec![vec![true, true, false, true, true]];
    let mut masks = PruneMasks::of_matrices(&arena)?;
    masks.remove(&[0, 13])?;
    masks.apply(&mut arena)?;
    let small = units.remove(&model, &arena, &keep, &x)?;
    assert_eq!(small.table().numel(), 43);
    let first = arena.params().by_name("layers.0.weight")?.to_vec()?;
    let cut = small.params().by_name("layers.0.weight")?.to_vec()?;
    assert_eq!(cut, [&first[..12], &first[18..]].concat());
    let last = arena.params().by_name("layers.1.weight")?.to_vec()?;
    let cut = small.params().by_name("layers.1.weight")?.to_vec()?;
    assert_eq!(cut[..4], [last[0], last[1], last[3], last[4]]);
    // The masks came along: one of the two was in the unit that went.
    assert_eq!(PruneMasks::of_matrices(&small)?.alive(), 4 * 6 + 4 * 3 - 1);
    let err = |keep: &[Vec<bool>]| units.remove(&model, &arena, keep, &x).err().unwrap().to_string();
    assert!(err(&[vec![false; 5]]).contains("0 of 5"));
    assert!(err(&[vec![true; 4]]).contains("4 of 4"));
    assert!(units.strongest(&arena, 1.0, Pooling::Layer).is_err());
    let mut lone = Builder::new();
    let layer = Linear::new(&mut lone.root().sub("fc"), 6, 2, true);
    let lone = Arena::new(&gpu(), &lone, 0)?;
    assert!(Units::find(&layer, &lone, &x).unwrap_err().to_string().contains("nothing can be taken out"));
    Ok(())
}

#[test]
fn the_smaller_network_trains() -> Result<()> {
    let (model, arena, x) = zoo("cnn", 1);
    let units = Units::find(model.as_ref(), &arena, &x)?;
    let small = units.remove(model.as_ref(), &arena, &units.strongest(&arena, 0.7, Pooling::Layer)?, &x)?;
    let mut optimizer = Optimizer::new(&small, Rule::sgd(0.0))?;
    let y = Tensor::from_u32(&gpu(), &[3, 4], &[2])?;
    let mut losses = Vec::new();
    for _ in 0..8 {
        let loss = model.forward(&Cx::train(&small), &x)?.cross_entropy(&y, CrossEntropy::default())?;
        small.backward(&loss)?;
        optimizer.step(&small, 0.02)?;
        losses.push(loss.item()?);
    }
    assert!(losses[7] < 0.7 * losses[0], "{losses:?}");
    let seconds = seconds_per_pass(model.as_ref(), &[&arena, &small], &x, 3)?;
    assert!(seconds.len() == 2 && seconds.iter().all(|s| *s > 0.0));
    Ok(())
}
