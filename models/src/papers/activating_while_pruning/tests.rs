use shadegrad::nn::{Activation, Arena, Builder, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::{Philox, Stream};
use shadegrad::{CrossEntropy, Result, Tensor};

use super::dead::pool;
use super::*;
use crate::papers::shared::mlp::HeMlp;
use crate::papers::testing::gpu;

/// One linear layer without a bias, `weight` of these rows.
fn layer(rows: &[&[f32]]) -> (Linear, Arena) {
    let mut names = Builder::new();
    let layer = Linear::new(&mut names.root(), rows[0].len(), rows.len(), false);
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    set(&arena, "weight", &rows.concat());
    (layer, arena)
}

fn set(arena: &Arena, name: &str, values: &[f32]) {
    let id = arena.params().id(name).unwrap();
    let shape = arena.params().get(id).shape().to_vec();
    arena.set_value(id, &Tensor::from_slice(&gpu(), values, &shape).unwrap()).unwrap();
}

/// A layer of one row with these weights.
fn row(weights: &[f32]) -> (Arena, PruneMasks) {
    let (_, arena) = layer(&[weights]);
    let masks = PruneMasks::of_matrices(&arena).unwrap();
    (arena, masks)
}

fn zeros(masks: &PruneMasks) -> Vec<usize> {
    masks.as_slice().iter().enumerate().filter(|(_, on)| !**on).map(|(i, _)| i).collect()
}

fn shares(total: f64, ap: f64) -> CycleConfig {
    CycleConfig { total, ap, ..CycleConfig::default() }
}

const END: [f32; 10] = [0.9, -0.05, 0.4, -0.6, 0.02, -0.3, 0.1, -0.2, 0.7, -0.01];
const START: [f32; 10] = [0.5, -0.35, 0.45, -0.55, 0.30, -0.28, 0.6, -0.9, 0.1, -0.02];

#[test]
fn selection_by_hand() -> Result<()> {
    let (arena, mut masks) = row(&END);
    let mut plain = masks.clone();
    let report = prune_cycle(&mut masks, &arena, &START, &shares(0.3, 0.1))?;
    assert_eq!((report.removed_base, report.removed_ap, report.alive), (vec![4, 9], vec![5], 7));
    assert_eq!(zeros(&masks), [4, 5, 9]);
    prune_cycle(&mut plain, &arena, &START, &shares(0.3, 0.0))?;
    assert_eq!(zeros(&plain), [1, 4, 9]);
    Ok(())
}

#[test]
fn exactly_k_go_where_the_script_takes_one_more() -> Result<()> {
    let (arena, mut masks) = row(&END);
    let report = prune_cycle(&mut masks, &arena, &START, &shares(0.3, 0.1))?;
    // The script prunes all candidates up to and including the K-th of the sorted scores, counted from 0.
    let score = |i: usize| (END[i] - START[i]).abs();
    let mut sorted: Vec<f32> = [1, 3, 5, 7].map(score).to_vec();
    sorted.sort_by(f32::total_cmp);
    let by_script: Vec<usize> = [1, 3, 5, 7].into_iter().filter(|&i| score(i) <= sorted[1]).collect();
    assert_eq!(by_script, [3, 5]);
    assert_eq!(report.removed_ap.len(), 1);
    assert_eq!(report.alive, 10 - report.removed_base.len() - report.removed_ap.len());
    Ok(())
}

#[test]
fn the_budget_is_kept_to_the_weight() -> Result<()> {
    let mut rng = Philox::new(1, 0);
    let mut draw = || (0..10_000).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let (end, start) = (draw(), draw());
    let (arena, fresh) = row(&end);
    for (sign, ap, pooling) in [
        (ApSign::Negative, 0.02, Pooling::Global),
        (ApSign::Negative, 0.0, Pooling::Global),
        (ApSign::Positive, 0.02, Pooling::Layer),
        (ApSign::Random(3), 0.02, Pooling::Global),
    ] {
        let mut masks = fresh.clone();
        let config = CycleConfig { sign, pooling, ..shares(0.2, ap) };
        let report = prune_cycle(&mut masks, &arena, &start, &config)?;
        let by_ap = (ap * 10_000.0).round() as usize;
        assert_eq!((report.removed_base.len(), report.removed_ap.len()), (2000 - by_ap, by_ap));
        assert_eq!((report.alive, masks.alive(), report.layers[0].alive), (8000, 8000, 8000));
        let kind = |at: &u32| match sign {
            ApSign::Negative => end[*at as usize] < 0.0,
            ApSign::Positive => end[*at as usize] > 0.0,
            ApSign::Random(_) => true,
        };
        assert!(report.removed_ap.iter().all(kind));
    }
    Ok(())
}

#[test]
fn without_a_negative_weight_a_unit_fires_more() -> Result<()> {
    let x = Tensor::from_slice(&gpu(), &[1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 1.0], &[3, 4])?;
    let (unit, mut arena) = layer(&[&[0.5, -0.2, -0.4, 0.1]]);
    let sums = |arena: &Arena| unit.forward(&Cx::eval(arena), &x)?.to_vec();
    let close = |got: &[f32], want: [f32; 3]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6);
    assert!(close(&sums(&arena)?, [-0.2, -0.6, 0.9]));
    let mut masks = PruneMasks::of_matrices(&arena)?;
    masks.remove(&[2])?;
    masks.apply(&mut arena)?;
    assert!(close(&sums(&arena)?, [0.6, -0.2, 0.9]));
    // Any weights, any inputs that are not negative.
    let x = Tensor::normal(&gpu(), &[64, 7], Stream::new(2, 0), 0.0, 1.0)?.abs()?;
    for seed in 0..5 {
        let mut rng = Philox::new(seed, 9);
        let weights: Vec<f32> = (0..7).map(|_| rng.normal() as f32).collect();
        for (at, &w) in weights.iter().enumerate() {
            let (unit, mut arena) = layer(&[&weights]);
            let before = unit.forward(&Cx::eval(&arena), &x)?.to_vec()?;
            let mut masks = PruneMasks::of_matrices(&arena)?;
            masks.remove(&[at as u32])?;
            masks.apply(&mut arena)?;
            let after = unit.forward(&Cx::eval(&arena), &x)?.to_vec()?;
            // Rounding of seven products.
            let risen = before.iter().zip(&after).map(|(b, a)| if w < 0.0 { a - b } else { b - a });
            assert!(risen.fold(f32::INFINITY, f32::min) > -1e-5);
        }
    }
    Ok(())
}

#[test]
fn dead_neuron_rates_by_hand() -> Result<()> {
    let outputs = [1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 4.0];
    let rates = pool(&[("u".into(), vec![1.0, 4.0, 4.0, 1.0], vec![false, false, true, false])], 4);
    assert_eq!((rates.dynamic, rates.static_dead, rates.weight_dead), (0.25, 1.0 / 3.0, 0.25));
    let layer_rates = &rates.layers[0];
    assert_eq!((layer_rates.units, layer_rates.weight_dead, layer_rates.static_dead), (4, 1, 1));
    // The other poolings would be 0.625 over all units, 0.5 over all but the weight-dead.
    assert_eq!((0.25 + 1.0 + 1.0 + 0.25) / 4.0, 0.625);
    assert_eq!((0.25 + 1.0 + 0.25) / 3.0, 0.5);
    // The same through a model, in two batches: unit 1 passes on minus its input, so it is silent though it has a weight.
    let identity: [&[f32]; 4] = [&[1.0, 0.0, 0.0, 0.0], &[-1.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 1.0, 0.0], &[0.0, 0.0, 0.0, 1.0]];
    let (units, mut arena) = layer(&identity);
    let mut masks = PruneMasks::of_matrices(&arena)?;
    masks.remove(&[8, 9, 10, 11])?;
    masks.apply(&mut arena)?;
    let x = Tensor::from_slice(&gpu(), &outputs, &[4, 4])?;
    let forward = |x: &Tensor| Activation::Relu.apply(&units.forward(&Cx::eval(&arena), x)?);
    let mut counter = DeadNeuronCounter::new(&arena, DeadOptions::default(), || forward(&x.narrow(0, 0, 1)?))?;
    counter.add(3, || forward(&x.narrow(0, 0, 3)?))?;
    counter.add(1, || forward(&x.narrow(0, 3, 1)?))?;
    let got = counter.finish()?;
    assert_eq!((got.dynamic, got.static_dead, got.weight_dead, got.inputs), (0.25, 1.0 / 3.0, 0.25, 4));
    assert_eq!((got.layers.len(), got.layers[0].name.as_str()), (1, "weight"));
    Ok(())
}

/// An MLP 6-8-3, its arena, and a batch that makes gradients.
fn net(seed: u64) -> (HeMlp, Arena) {
    let mut names = Builder::new();
    let model = HeMlp::new(&mut names.root(), &[6, 8, 3]);
    let arena = Arena::new(&gpu(), &names, seed).unwrap();
    (model, arena)
}

fn backward(model: &dyn Module, arena: &Arena, seed: u64) {
    let x = Tensor::normal(&gpu(), &[8, 6], Stream::new(seed, 2), 0.0, 1.0).unwrap().abs().unwrap();
    let y = Tensor::from_u32(&gpu(), &[0, 1, 2, 0, 1, 2, 0, 1], &[8]).unwrap();
    let loss = model.forward(&Cx::train(arena), &x).unwrap().cross_entropy(&y, CrossEntropy::default()).unwrap();
    arena.backward(&loss).unwrap();
}

#[test]
fn masks_hold_also_when_they_change_under_momentum() -> Result<()> {
    let (model, mut arena) = net(1);
    let mut masks = PruneMasks::of_matrices(&arena)?;
    let start = masks.pool(arena.values_flat())?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(5e-4))?;
    for cycle in 0..4 {
        for step in 0..6 {
            backward(&model, &arena, 10 * cycle + step);
            optimizer.step(&arena, 0.1)?;
            let values = masks.pool(arena.values_flat())?;
            let bad = values.iter().zip(masks.as_slice()).filter(|(v, on)| !**on && v.to_bits() != 0).count();
            assert_eq!(bad, 0, "cycle {cycle}, step {step}");
        }
        prune_cycle(&mut masks, &arena, &start, &shares(0.3, 0.05))?;
        masks.apply(&mut arena)?;
    }
    // The momentum of what was masked is not 0: zeroing gradients alone would have moved the weights.
    let moments = optimizer.state().into_iter().find(|s| s.0 == "moment1").unwrap().1.clone();
    assert!(masks.pool(&moments)?.iter().zip(masks.as_slice()).any(|(m, on)| !on && *m != 0.0));
    Ok(())
}

#[test]
fn masked_is_dense_with_zeros_to_the_bit() -> Result<()> {
    let (model, mut arena) = net(2);
    let mut masks = PruneMasks::of_matrices(&arena)?;
    let start = masks.pool(arena.values_flat())?;
    prune_cycle(&mut masks, &arena, &start, &shares(0.5, 0.1))?;
    let dense = arena.fork()?;
    masks.apply(&mut arena)?;
    dense.set_values_flat(arena.values_flat())?;
    let x = Tensor::normal(&gpu(), &[5, 6], Stream::new(4, 4), 0.0, 1.0)?;
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let logits = |a: &Arena| model.forward(&Cx::eval(a), &x)?.to_vec();
    assert_eq!(bits(logits(&arena)?), bits(logits(&dense)?));
    backward(&model, &arena, 5);
    backward(&model, &dense, 5);
    // The optimiser masks the gradients; with rate 0 it does nothing else.
    Optimizer::new(&arena, Rule::sgd(0.0))?.step(&arena, 0.0)?;
    let (got, want) = (masks.pool(arena.grads_flat())?, masks.pool(dense.grads_flat())?);
    for ((got, want), &on) in got.iter().zip(&want).zip(masks.as_slice()) {
        assert_eq!(got.to_bits(), if on { want.to_bits() } else { 0 });
    }
    assert!(want.iter().zip(masks.as_slice()).any(|(g, on)| !on && *g != 0.0));
    Ok(())
}

#[test]
fn rewinding_restores_what_is_alive_and_the_biases() -> Result<()> {
    let (model, mut arena) = net(3);
    let first = arena.values_flat().to_vec()?;
    let mut ap = ActivateWhilePruning::new(&arena, Config::default(), |e| e.shape.len() > 1)?;
    let mut starts = Vec::new();
    let mut remaining = Vec::new();
    let reports = ap.run(&mut arena, 3, |arena, phase| {
        starts.push(arena.values_flat().to_vec()?);
        remaining.push((phase.cycle, phase.again, phase.remaining));
        let mut optimizer = Optimizer::new(arena, Rule::sgd(5e-4))?;
        for step in 0..4 {
            backward(&model, arena, step);
            optimizer.step(arena, 0.1)?;
        }
        Ok(())
    })?;
    // 72 weights: ceil(71 0.2) = 15, then of 57 ceil(56 0.2) = 12.
    assert_eq!(reports.iter().map(|r| r.alive).collect::<Vec<_>>(), [57, 45]);
    assert_eq!(remaining, [(0, false, 1.0), (1, false, 57.0 / 72.0), (2, false, 45.0 / 72.0)]);
    assert_eq!(ap.masks().alive(), 45);
    // What a cycle starts from is the first values with zeros, biases as they were, though training moved them all.
    for (start, report) in starts[1..].iter().zip(&reports) {
        let mut zeros = 0;
        for e in arena.table().entries() {
            for at in e.offset..e.offset + e.len {
                let rewound = start[at].to_bits() == first[at].to_bits();
                let masked = e.shape.len() > 1 && start[at].to_bits() == 0;
                assert!(rewound || masked, "{} {}", e.name, at - e.offset);
                zeros += usize::from(masked);
            }
        }
        assert_eq!(zeros, 72 - report.alive);
    }
    assert!(arena.values_flat().to_vec()?.iter().zip(&first).any(|(a, b)| a != b));
    Ok(())
}

#[test]
fn two_trainings_a_cycle_and_new_values_each() -> Result<()> {
    let (model, mut arena) = net(3);
    let first = arena.values_flat().to_vec()?;
    let config = Config { restart: Restart::Reinit(7), twice: true, ..Config::default() };
    let mut ap = ActivateWhilePruning::new(&arena, config, |e| e.shape.len() > 1)?;
    let mut seen: Vec<(usize, bool, usize, Vec<f32>)> = Vec::new();
    ap.run(&mut arena, 3, |arena, phase| {
        let left = (72.0 * phase.remaining).round() as usize;
        seen.push((phase.cycle, phase.again, left, arena.values_flat().to_vec()?));
        backward(&model, arena, 1);
        Optimizer::new(arena, Rule::sgd(5e-4))?.step(arena, 0.1)
    })?;
    let order: Vec<_> = seen.iter().map(|s| (s.0, s.1, s.2)).collect();
    assert_eq!(order, [(0, false, 72), (1, false, 72), (1, true, 57), (2, false, 57), (2, true, 45)]);
    // The second training begins from the cycle's own first values, less what went; another cycle has others.
    let alive_of = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| **b != 0.0 && a == b).count();
    assert_eq!(alive_of(&seen[1].3, &seen[2].3), 57);
    assert!(alive_of(&seen[1].3, &seen[3].3) == 0 && alive_of(&first, &seen[1].3) == 0);
    Ok(())
}

#[test]
fn zeros_and_masked_weights_are_no_candidates() -> Result<()> {
    let (mut arena, mut masks) = row(&[0.0, -0.0, -0.9, -0.8, 0.7, 0.6, -0.5, 0.4]);
    masks.remove(&[6])?;
    masks.apply(&mut arena)?;
    // The two zeros are alive and did not move at all, and yet AP leaves them alone; the base method gets nothing.
    let scores = Base::Scores((0..8).map(|i| -(i as f32)).collect());
    let start = [0.0, -0.0, -0.1, -0.7, 0.7, 0.6, -0.5, 0.4];
    let config = CycleConfig { base: scores, ..shares(2.0 / 6.0, 2.0 / 6.0) };
    let report = prune_cycle(&mut masks, &arena, &start, &config)?;
    assert_eq!((report.removed_base.len(), report.removed_ap), (0, vec![2, 3]));
    Ok(())
}

#[test]
fn too_few_negative_weights_are_made_up_for() -> Result<()> {
    let positive: Vec<f32> = (1..=100).map(|i| i as f32).collect();
    let (arena, mut masks) = row(&positive);
    let report = prune_cycle(&mut masks, &arena, &positive, &shares(0.2, 0.05))?;
    // ceil(99 0.2) = 20 go, 5 of them meant for AP.
    assert_eq!((report.removed_base.len(), report.removed_ap.len(), report.topped_up.len()), (15, 0, 5));
    assert_eq!((report.topped_up, report.alive), ((15..20).collect(), 80));
    // One that is negative goes by AP, four are made up for.
    let mut one = positive.clone();
    one[50] = -51.0;
    let (arena, mut masks) = row(&one);
    let report = prune_cycle(&mut masks, &arena, &one, &shares(0.2, 0.05))?;
    assert_eq!((report.removed_ap, report.topped_up.len(), report.alive), (vec![50], 4, 80));
    Ok(())
}

#[test]
fn rates_of_any_model_know_its_weights() -> Result<()> {
    let spec = crate::Spec { height: 8, width: 8, channels: 3, classes: 10 };
    let x = Tensor::normal(&gpu(), &[6, 8, 8, 3], Stream::new(1, 0), 0.0, 1.0)?;
    let rates = |name: &str, masked: &str| -> Result<DeadNeurons> {
        let mut names = Builder::new();
        let model = crate::create(name, &mut names.root(), &spec)?;
        let mut arena = Arena::new(&gpu(), &names, 1)?;
        let mut masks = PruneMasks::of_matrices(&arena)?;
        let (len, rows) = (masks.of(masked).unwrap().len(), arena.params().by_name(masked)?.dim(0));
        // The first two filters.
        masks.set(masked, &(0..len).map(|i| i >= 2 * len / rows).collect::<Vec<_>>())?;
        masks.apply(&mut arena)?;
        let forward = || model.forward(&Cx::eval(&arena), &x);
        let mut counter = DeadNeuronCounter::new(&arena, DeadOptions::default(), forward)?;
        counter.add(6, forward)?;
        counter.finish()
    };
    let cnn = rates("cnn", "conv2.weight")?;
    let made: Vec<&str> = cnn.layers.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(made, ["conv1.weight", "conv2.weight", "conv3.weight"]);
    // 8x8 positions of two channels, before pooling.
    assert_eq!(cnn.layers.iter().map(|l| l.weight_dead).collect::<Vec<_>>(), [0, 128, 0]);
    assert_eq!(cnn.layers[1].units, 64 * 64);
    assert!(cnn.dynamic > 0.1 && cnn.dynamic < 0.9, "{}", cnn.dynamic);
    // In a residual block the ReLU after the addition hears the shortcut, too.
    let resnet = rates("resnet20", "layer1.0.conv2.weight")?;
    assert_eq!(resnet.layers.len(), 19);
    assert!(resnet.layers.iter().all(|l| l.weight_dead == 0) && resnet.layers[2].name == "relu 2");
    let inner = rates("resnet20", "layer1.0.conv1.weight")?;
    assert_eq!(inner.layers[1].weight_dead, 128);
    Ok(())
}

#[test]
fn gradual_pruning_takes_its_part_by_ap() -> Result<()> {
    let (model, mut arena) = net(4);
    let masks = PruneMasks::of_matrices(&arena)?;
    let schedule = Gradual { first: 0.0, last: 0.75, begin: 2, every: 3, times: 3 };
    let config = CycleConfig { total: 0.2, ap: 0.05, ..CycleConfig::default() };
    let mut ap = GradualAp::new(&arena, masks.clone(), schedule, config.clone())?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(5e-4))?;
    let mut went = Vec::new();
    for step in 0..14 {
        backward(&model, &arena, step);
        optimizer.step(&arena, 0.05)?;
        let before = ap.masks().pool(arena.values_flat())?;
        if let Some(report) = ap.stepped(step, &mut arena)? {
            assert!(report.removed_ap.iter().all(|&at| before[at as usize] < 0.0));
            went.push((report.removed_base.len(), report.removed_ap.len() + report.topped_up.len(), report.alive));
        }
    }
    // 72 weights; sparsity 0, then 0.75 (1 - (2/3)^3) = 0.528, 0.722, 0.75: 0, 38, 52 and 54 are gone, a quarter by AP.
    assert_eq!(went, [(0, 0, 72), (29, 9, 34), (11, 3, 20), (2, 0, 18)]);
    assert_eq!(PruneMasks::of_matrices(&arena)?.alive(), 18);
    let none = CycleConfig { total: 0.0, ap: 0.0, ..config };
    assert!(GradualAp::new(&arena, masks, schedule, none).is_err());
    Ok(())
}

#[test]
fn mistakes_are_errors() -> Result<()> {
    let (arena, mut masks) = row(&END);
    let err = |r: Result<CycleReport>| r.unwrap_err().to_string();
    assert!(err(prune_cycle(&mut masks, &arena, &START, &shares(0.1, 0.2))).contains("0.2 of them by AP"));
    assert!(err(prune_cycle(&mut masks, &arena, &START, &shares(1.0, 0.2))).contains("must lie in 0..1"));
    assert!(err(prune_cycle(&mut masks, &arena, &START[1..], &shares(0.2, 0.1))).contains("9 first weights for 10"));
    let (diverged, mut fresh) = row(&[f32::NAN, 1.0]);
    assert!(err(prune_cycle(&mut fresh, &diverged, &[0.0; 2], &shares(0.5, 0.0))).contains("diverged"));
    assert_eq!((masks.alive(), fresh.alive()), (10, 2));
    assert!(ActivateWhilePruning::new(&arena, Config::default(), |_| false).is_err());
    // GELU has no zeros of its own.
    let mut names = Builder::new();
    let fc = Linear::new(&mut names.root(), 4, 4, true);
    let arena = Arena::new(&gpu(), &names, 0)?;
    let x = Tensor::normal(&gpu(), &[8, 4], Stream::new(1, 0), 0.0, 1.0)?;
    let forward = || fc.forward(&Cx::eval(&arena), &x)?.gelu();
    let counter = |op: &str, zero_tol| DeadNeuronCounter::new(&arena, DeadOptions { op: op.into(), zero_tol }, forward);
    let text = |c: Result<DeadNeuronCounter>| c.err().unwrap().to_string();
    assert!(text(counter("relu", 0.0)).contains("runs no `relu`"));
    assert!(text(counter("gelu", 0.0)).contains("give a threshold above 0"));
    let mut gelu = counter("gelu", 0.01)?;
    assert!(gelu.add(3, forward).unwrap_err().to_string().contains("for 3 samples"));
    let mut gelu = counter("gelu", 0.01)?;
    gelu.add(8, forward)?;
    let rates = gelu.finish()?;
    assert!(rates.dynamic > 0.0 && rates.dynamic < 0.5, "{rates:?}");
    assert!(counter("gelu", 0.01)?.finish().unwrap_err().to_string().contains("no inputs"));
    Ok(())
}
