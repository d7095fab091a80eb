//! The selection rule by hand, its bookkeeping, and that nothing but the choice of batches differs from plain training.

use shadegrad::data::digits;
use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{FitOptions, Images, NoHooks, Trainer, evaluate};
use shadegrad::{CrossEntropy, Tensor};

use super::*;
use crate::papers::testing::gpu;
use crate::{Spec, create};

fn schedule(batches: usize, delta: f64, policy: Policy, budget: u64) -> HardBatches {
    HardBatches::new(HardBatchesConfig { batches, delta, policy, budget, refresh_every: None }).unwrap()
}

/// Runs a round in which batch `i` has the loss `losses[i]`.
fn round(hard: &mut HardBatches, losses: &[f32]) -> Vec<usize> {
    let round = hard.next_round().unwrap();
    for &i in &round {
        hard.record_value(i, losses[i]).unwrap();
    }
    round
}

#[test]
fn selection_takes_the_highest_and_visits_by_index() {
    for losses in [[2.0, 1.0, 3.0, 0.5, 2.5], [2.0, 1.0, 2.5, 0.5, 3.0]] {
        let mut hard = schedule(5, 0.5, Policy::Highest, 100);
        assert_eq!(round(&mut hard, &losses), [0, 1, 2, 3, 4]);
        assert_eq!(round(&mut hard, &losses), [2, 4]);
    }
}

#[test]
fn ties_keep_the_order_before() {
    let mut hard = schedule(4, 0.5, Policy::Highest, 100);
    // Losses 2, 4, 1, 3 leave the order 1, 3, 0, 2; then all are equal, with 3 before 1.
    round(&mut hard, &[2.0, 4.0, 1.0, 3.0]);
    assert_eq!(hard.next_round().unwrap(), [1, 3]);
    hard.order = vec![3, 1, 0, 2];
    for i in [1, 3] {
        hard.record_value(i, 1.0).unwrap();
    }
    hard.losses = vec![1.0; 4];
    assert_eq!(hard.next_round().unwrap(), [1, 3]);
    assert_eq!(hard.order, [3, 1, 0, 2]);
}

#[test]
fn the_budget_is_met_exactly() {
    for (delta, lengths) in [(0.4, &[5, 2, 2, 2, 2, 2][..]), (0.6, &[5, 3, 3, 3, 1][..])] {
        let mut hard = schedule(5, delta, Policy::Highest, 15);
        let mut seen = Vec::new();
        while hard.updates() < hard.budget() {
            seen.push(round(&mut hard, &[5.0, 4.0, 3.0, 2.0, 1.0]).len());
        }
        assert_eq!(seen, lengths);
        assert_eq!(hard.updates(), 15);
        assert!(hard.next_round().unwrap().is_empty());
        assert_eq!(hard.stats().unwrap().visits.iter().sum::<u32>(), 15);
    }
}

#[test]
fn scripted_dynamics() {
    let mut hard = schedule(4, 0.25, Policy::Highest, 1000);
    hard.losses = vec![8.0, 4.0, 2.0, 1.0];
    // As if the first pass had been.
    hard.rounds = 1;
    let mut picks = Vec::new();
    for _ in 0..12 {
        let round = hard.next_round().unwrap();
        assert_eq!(round.len(), 1);
        picks.push(round[0]);
        let half = hard.losses[round[0]] / 2.0;
        hard.record_value(round[0], half).unwrap();
    }
    assert_eq!(picks, [0, 0, 1, 1, 0, 2, 2, 0, 1, 3, 3, 1]);
    assert_eq!(hard.losses, [0.5, 0.25, 0.5, 0.25]);
}

#[test]
fn every_batch_comes_back_unless_the_easiest_are_taken() {
    for (policy, all) in [(Policy::Highest, true), (Policy::Lowest, false)] {
        let mut hard = schedule(7, 0.3, policy, 10_000);
        round(&mut hard, &[9.0, 7.0, 5.0, 3.0, 2.0, 1.5, 1.0]);
        for _ in 0..60 {
            for i in hard.next_round().unwrap() {
                let less = hard.losses[i] * 0.8;
                hard.record_value(i, less).unwrap();
            }
        }
        assert_eq!(hard.stats().unwrap().visits.iter().all(|&v| v > 1), all, "{policy:?}");
    }
}

#[test]
fn random_rounds_are_distinct_and_repeatable() {
    let rounds = |seed| {
        let mut hard = schedule(10, 0.5, Policy::Random(seed), 1000);
        (0..5).map(|_| round(&mut hard, &[1.0; 10])).collect::<Vec<_>>()
    };
    let a = rounds(3);
    assert_eq!(a, rounds(3));
    assert_ne!(a, rounds(4));
    assert!(a[1..].iter().all(|r| r.len() == 5 && r.windows(2).all(|w| w[0] < w[1])));
    assert_ne!(a[1], a[2]);
}

#[test]
fn plans_are_fixed_and_leave_out_the_remainder() {
    let plan = BatchPlan::new(23, 5, Some(7)).unwrap();
    assert_eq!((plan.len(), &plan), (4, &BatchPlan::new(23, 5, Some(7)).unwrap()));
    let mut all: Vec<u32> = (0..4).flat_map(|i| plan.batch(i).unwrap().to_vec()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
    assert_eq!(BatchPlan::new(23, 5, None).unwrap().batch(1).unwrap(), [5, 6, 7, 8, 9]);
}

#[test]
fn refreshing_is_asked_for_and_replaces_the_losses() {
    let config =
        HardBatchesConfig { batches: 3, delta: 0.4, policy: Policy::Highest, budget: 100, refresh_every: Some(2) };
    let mut hard = HardBatches::new(config).unwrap();
    let mut asked = Vec::new();
    for _ in 0..5 {
        round(&mut hard, &[3.0, 2.0, 1.0]);
        asked.push(hard.wants_refresh());
    }
    assert_eq!(asked, [false, false, true, false, true]);
    hard.refresh(&[1.0, 2.0, 9.0]).unwrap();
    assert_eq!(hard.next_round().unwrap(), [2]);
}

#[test]
fn mistakes_are_errors() {
    let new = |batches, delta| HardBatches::new(HardBatchesConfig {
        batches,
        delta,
        policy: Policy::Highest,
        budget: 9,
        refresh_every: None,
    });
    for wrong in [new(0, 0.5), new(3, 0.0), new(3, 1.1), new(3, f64::NAN)] {
        assert!(wrong.unwrap_err().to_string().contains("delta above 0"));
    }
    let mut hard = new(3, 0.4).unwrap();
    let round = hard.next_round().unwrap();
    assert!(hard.next_round().unwrap_err().to_string().contains("was not recorded yet"));
    for i in round {
        hard.record_value(i, 1.0).unwrap();
    }
    assert!(hard.record_value(2, 1.0).unwrap_err().to_string().contains("not in this round"));
    let next = hard.next_round().unwrap();
    let nan = Tensor::from_slice(&gpu(), &[f32::NAN], &[]).unwrap();
    hard.record(next[0], &nan).unwrap();
    assert!(hard.next_round().unwrap_err().to_string().contains("is NaN"));
    assert!(BatchPlan::new(3, 4, None).is_err() && BatchPlan::new(3, 0, None).is_err());
    assert!(BatchPlan::new(8, 4, None).unwrap().batch(2).is_err());
}

/// A network with batch norm, data of 320 samples in batches of 32, and a step of plain SGD with momentum.
struct Bench {
    model: Box<dyn Module>,
    arena: Arena,
    optimizer: Optimizer,
    images: Images,
    plan: BatchPlan,
}

const SGD: Rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };

impl Bench {
    fn new(model: &str) -> Self {
        let data = digits().train.subset_range(0..320).unwrap();
        let mut names = Builder::new();
        let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
        let model = create(model, &mut names.root(), &spec).unwrap();
        let arena = Arena::new(&gpu(), &names, 1).unwrap();
        let optimizer = Optimizer::new(&arena, SGD).unwrap();
        let images = Images::upload(&gpu(), &data, &data.channel_stats().unwrap()).unwrap();
        Self { model, arena, optimizer, images, plan: BatchPlan::new(320, 32, None).unwrap() }
    }

    fn loss(&self, cx: &Cx, i: usize) -> Tensor {
        let batch = self.images.plain(self.plan.batch(i).unwrap()).unwrap();
        let logits = self.model.forward(cx, &batch.images).unwrap();
        logits.cross_entropy(&batch.labels, CrossEntropy::default()).unwrap()
    }

    fn step(&mut self, hard: &mut HardBatches, i: usize, lr: f32) {
        let loss = self.loss(&Cx::train(&self.arena).seeded(0, hard.updates()), i);
        self.arena.backward(&loss).unwrap();
        self.optimizer.step(&self.arena, lr).unwrap();
        hard.record(i, &loss).unwrap();
    }

    fn bits(&self) -> Vec<u32> {
        let mut all = self.arena.values_flat().to_vec().unwrap();
        all.extend(self.arena.buffers_flat().to_vec().unwrap());
        for (_, state) in self.optimizer.state() {
            all.extend(state.to_vec().unwrap());
        }
        all.iter().map(|v| v.to_bits()).collect()
    }
}

#[test]
fn all_batches_in_order_are_plain_training_to_the_bit() {
    let mut ours = Bench::new("cnn");
    let mut hard = schedule(10, 1.0, Policy::All, 20);
    while hard.updates() < 20 {
        for i in hard.next_round().unwrap() {
            ours.step(&mut hard, i, 0.05);
        }
    }
    let mut plain = Bench::new("cnn");
    let options = FitOptions { epochs: 2, batch: 32, shuffle: false, ..FitOptions::default() };
    Trainer::new(plain.model.as_ref(), &mut plain.arena, &mut plain.optimizer, |_| 0.05, options)
        .fit(&plain.images, None, &mut NoHooks)
        .unwrap();
    assert_eq!(ours.bits(), plain.bits());
    // With delta 1 the highest are all.
    let mut highest = Bench::new("cnn");
    let mut hard = schedule(10, 1.0, Policy::Highest, 20);
    while hard.updates() < 20 {
        for i in hard.next_round().unwrap() {
            highest.step(&mut hard, i, 0.05);
        }
    }
    assert_eq!(highest.bits(), plain.bits());
}

#[test]
fn losses_are_read_once_a_round_and_never_after_a_batch() {
    // A device of its own: other tests read from the shared one.
    let gpu = shadegrad::Gpu::new(shadegrad::Options::from_env().unwrap()).unwrap();
    let data = digits().train.subset_range(0..320).unwrap();
    let mut names = Builder::new();
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    let model = create("mlp", &mut names.root(), &spec).unwrap();
    let arena = Arena::new(&gpu, &names, 1).unwrap();
    let mut optimizer = Optimizer::new(&arena, SGD).unwrap();
    let images = Images::upload(&gpu, &data, &data.channel_stats().unwrap()).unwrap();
    let plan = BatchPlan::new(320, 32, None).unwrap();
    let mut hard = schedule(10, 0.5, Policy::Highest, 30);
    let read_backs = || gpu.counters().read_backs;
    let mut lengths = Vec::new();
    while hard.updates() < 30 {
        let before = read_backs();
        let round = hard.next_round().unwrap();
        assert_eq!(read_backs() - before, u64::from(!lengths.is_empty()), "the losses of a round in one read-back");
        for &i in &round {
            let batch = images.plain(plan.batch(i).unwrap()).unwrap();
            let logits = model.forward(&Cx::train(&arena), &batch.images).unwrap();
            let loss = logits.cross_entropy(&batch.labels, CrossEntropy::default()).unwrap();
            arena.backward(&loss).unwrap();
            optimizer.step(&arena, 0.05).unwrap();
            hard.record(i, &loss).unwrap();
        }
        assert_eq!(read_backs() - before, u64::from(!lengths.is_empty()), "nothing is read while batches are trained on");
        lengths.push(round.len());
    }
    assert_eq!(lengths, [10, 5, 5, 5, 5]);
}

#[test]
fn recorded_losses_are_those_before_the_update() {
    // Without learning they are the initial model's.
    let mut bench = Bench::new("mlp");
    let want: Vec<f32> = (0..10).map(|i| bench.loss(&Cx::train(&bench.arena), i).item().unwrap()).collect();
    let mut hard = schedule(10, 0.3, Policy::Highest, 100);
    for i in hard.next_round().unwrap() {
        bench.step(&mut hard, i, 0.0);
    }
    assert_eq!(hard.stats().unwrap().losses, want);
    // With learning, each equals the loss computed just before its step.
    let mut bench = Bench::new("mlp");
    let mut hard = schedule(10, 0.3, Policy::Highest, 100);
    let mut want = [0.0; 10];
    for _ in 0..3 {
        let before = hard.stats().unwrap().losses;
        let round = hard.next_round().unwrap();
        for &i in &round {
            want[i] = bench.loss(&Cx::train(&bench.arena).seeded(0, hard.updates()), i).item().unwrap();
            bench.step(&mut hard, i, 0.05);
        }
        let after = hard.stats().unwrap().losses;
        assert_eq!(after, want);
        // What was not in the round is unchanged to the bit.
        assert!((0..10).filter(|i| !round.contains(i)).all(|i| before[i].to_bits() == after[i].to_bits()));
    }
}

#[test]
fn evaluation_leaves_training_alone() {
    let run = |evaluated: bool| {
        let mut bench = Bench::new("cnn");
        let mut hard = schedule(10, 0.5, Policy::Highest, 20);
        while hard.updates() < 20 {
            for i in hard.next_round().unwrap() {
                bench.step(&mut hard, i, 0.05);
            }
            if evaluated {
                evaluate(bench.model.as_ref(), &Cx::eval(&bench.arena), &bench.images, 100).unwrap();
            }
        }
        bench.bits()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn top_k_in_batch_keeps_the_hardest_samples() {
    let gpu = gpu();
    let logits = Tensor::from_slice(&gpu, &[0.0, 0.0, 3.0, 0.0, 0.0, 3.0], &[3, 2]).unwrap().leaf();
    let labels = Tensor::from_u32(&gpu, &[0, 0, 0], &[3]).unwrap();
    // Losses ln 2, log1p(e^-3) and 3 + log1p(e^-3): the last and the first are hardest.
    let loss = top_k_in_batch(&logits, &labels, 2).unwrap();
    let want = (2f64.ln() + 3.0 + (-3f64).exp().ln_1p()) / 2.0;
    assert!((f64::from(loss.item().unwrap()) - want).abs() < 1e-6);
    let grad = shadegrad::autograd::grad(&loss, &[&logits]).unwrap()[0].to_vec().unwrap();
    // Half the softmax minus one-hot for the kept samples, zero for the other.
    let p = 1.0 / (1.0 + (-3f32).exp());
    for (g, want) in grad.iter().zip([-0.25, 0.25, 0.0, 0.0, -0.5 * p, 0.5 * p]) {
        assert!((g - want).abs() < 1e-6, "{grad:?}");
    }
    assert!(top_k_in_batch(&logits, &labels, 0).is_err() && top_k_in_batch(&logits, &labels, 4).is_err());
}
