//! Magnitude pruning in cycles, with a tenth of each cycle's weights chosen by AP or, as controls, among positive weights or
//! at random; and what taking whole units out does to the time a network needs.

use shadegrad::augment::Augment;
use shadegrad::data::ChannelStats;
use shadegrad::nn::{Arena, Builder, Cx, Module, Snapshot};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::train::{FitOptions, Hooks, Images, Progress, Trainer, evaluate};
use shadegrad::Result;

use super::{ApSign, CycleConfig, DeadNeurons, dead_neuron_rates, prune_cycle};
use crate::papers::shared::mlp::HeMlp;
use crate::papers::shared::prune::units::{Units, seconds_per_pass};
use crate::papers::shared::prune::{Pooling, PruneMasks};
use crate::papers::{Better, Chart, Context, Expect, Outcome, Preset, Role, describe};
use crate::{CifarResNet, Spec};

const ACCURACY: &str = "test accuracy";
const MEAN_ACCURACY: &str = "mean accuracy of the cycles";
const DYNAMIC: &str = "dynamic dead-neuron rate";
const MEAN_DYNAMIC: &str = "mean dynamic rate of the cycles";
const AT_ONCE: &str = "mean dynamic rate right after pruning";
const STATIC: &str = "static rate";
const WEIGHT_DEAD: &str = "weight-dead";
const LEFT: &str = "weights left";
const TIME: &str = "time of a forward pass";

const DENSE: &str = "not pruned";
const BASE: &str = "magnitude";
const AP: &str = "magnitude + AP";
const POSITIVE: &str = "magnitude + positive";
const RANDOM: &str = "magnitude + random";
const UNITS_MASKED: &str = "half the units masked";
const UNITS_OUT: &str = "half the units taken out";

struct Setting {
    /// Hidden widths of the MLP; ResNet-20 if there are none.
    hidden: &'static [usize],
    pictures: (usize, usize),
    cycles: usize,
    epochs: u64,
    batch: usize,
    lr: f32,
    /// Steps over which the rate rises.
    warmup: u64,
    /// Parts of the steps after which it falls to a tenth and to a hundredth.
    falls: [f64; 2],
    /// Inputs that dead neurons are counted over.
    inputs: usize,
}

fn setting(context: &Context) -> Setting {
    let mlp = Setting {
        hidden: &[300, 100],
        pictures: (4000, 2000),
        cycles: 16,
        epochs: 4,
        batch: 64,
        lr: 0.1,
        warmup: 40,
        falls: [0.5, 0.8],
        inputs: 1000,
    };
    match (context.preset, context.has_data()) {
        (Preset::Full, _) => Setting {
            hidden: &[],
            pictures: (usize::MAX, usize::MAX),
            cycles: 20,
            epochs: 30,
            batch: 128,
            lr: 0.1,
            warmup: 3910,
            falls: [0.6, 0.8],
            inputs: 5000,
        },
        (Preset::Small, true) => mlp,
        (Preset::Small, false) => Setting { hidden: &[64, 32], epochs: 10, cycles: 12, inputs: 360, ..mlp },
        (Preset::Smoke, _) => Setting { hidden: &[64, 32], epochs: 5, cycles: 5, inputs: 360, ..mlp },
    }
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let s = setting(context);
    let pair = context.subset(s.pictures.0, s.pictures.1)?;
    let mlp = !s.hidden.is_empty();
    let pair = if mlp && pair.train.height >= 28 { pair.shrink(2)? } else { pair };
    let (train, test) = if mlp {
        // Pixels stay within 0 and 1: the sign argument needs inputs that are not negative.
        let stats = ChannelStats { mean: vec![0.0; pair.train.channels], std: vec![1.0; pair.train.channels] };
        (Images::upload(&context.gpu, &pair.train, &stats)?, Images::upload(&context.gpu, &pair.test, &stats)?)
    } else {
        context.upload(&pair)?
    };
    let [h, w, c] = train.size();
    let what = if mlp { format!("MLP {}-{:?}-{}, inputs in 0..1", h * w * c, s.hidden, train.classes()) } else { "ResNet-20".into() };
    let setting = format!(
        "{what}, SGD with momentum 0.9, decay 5e-4, rate {}, batches of {}, {} cycles of {} epochs from the same first values, \
         20 % of the weights gone after each, of which 2 points by AP",
        s.lr, s.batch, s.cycles, s.epochs
    );
    let mut outcome = Outcome::new(describe(&pair), setting)
        .metric(ACCURACY, "%", Better::Higher, 2)
        .metric(MEAN_ACCURACY, "%", Better::Higher, 2)
        .metric(DYNAMIC, "", Better::Lower, 3)
        .metric(MEAN_DYNAMIC, "", Better::Lower, 3)
        .metric(AT_ONCE, "", Better::Lower, 3)
        .metric(STATIC, "", Better::Lower, 3)
        .metric(WEIGHT_DEAD, "", Better::Neither, 3)
        .metric(LEFT, "%", Better::Neither, 2)
        .metric(TIME, "ms", Better::Lower, 2);
    for cycle in levels(&s) {
        let [accuracy, dynamic] = at(cycle);
        outcome = outcome.metric(&accuracy, "%", Better::Higher, 2).metric(&dynamic, "", Better::Lower, 3);
    }
    let mut curves = Curves::default();
    for seed in context.seeds.clone() {
        let mut bench = Bench::new(context, &s, seed, (&train, &test))?;
        bench.run(&mut outcome, &mut curves)?;
    }
    compare(&mut outcome);
    notes(&mut outcome, &s);
    curves.charts(&mut outcome);
    Ok(outcome)
}

/// Every third cycle: 51 %, 26 %, 13 % of the weights are left there, and so on.
fn levels(s: &Setting) -> impl Iterator<Item = usize> {
    (3..s.cycles).step_by(3)
}

/// Names of accuracy and dynamic rate in a cycle.
fn at(cycle: usize) -> [String; 2] {
    let left = 100.0 * 0.8f64.powi(cycle as i32);
    let left = if left >= 10.0 { format!("{left:.0}") } else { format!("{left:.1}") };
    [format!("accuracy with {left} % left"), format!("dynamic rate with {left} % left")]
}

fn compare(outcome: &mut Outcome) {
    for (claim, metric, arms, expect, paper) in [
        ("AP makes pruned networks more accurate", ACCURACY, (AP, BASE), Expect::Higher, "+3 to 4 points (abstract, CIFAR)"),
        ("AP keeps neurons alive after retraining", MEAN_DYNAMIC, (AP, BASE), Expect::Lower, "no figure in the abstract"),
        ("AP keeps neurons alive at once", AT_ONCE, (AP, BASE), Expect::Lower, "follows from the sign"),
        ("positive weights do the opposite", AT_ONCE, (POSITIVE, BASE), Expect::Higher, "follows from the sign"),
        ("random weights do neither", AT_ONCE, (RANDOM, BASE), Expect::Within(0.01), "follows from the sign"),
        ("pruning itself lowers the dynamic rate", DYNAMIC, (BASE, DENSE), Expect::Lower, "stated (abstract)"),
        ("it is the negative weights that raise accuracy", ACCURACY, (AP, POSITIVE), Expect::Higher, "not in the abstract"),
        ("a mask alone saves no time", TIME, (UNITS_MASKED, DENSE), Expect::Within(2.0), "not in the paper"),
        ("units taken out do", TIME, (UNITS_OUT, UNITS_MASKED), Expect::Lower, "not in the paper"),
    ] {
        outcome.compare(claim, metric, arms, expect, paper);
    }
}

fn notes(outcome: &mut Outcome, s: &Setting) {
    outcome.note(format!(
        "Accuracy and rates are of the last cycle, after retraining, on the test set without augmentation; the dead neurons of \
         {} of its pictures. One training a cycle for every arm, equal sparsity to the weight. `{POSITIVE}` and `{RANDOM}` \
         take the same share among positive weights that barely moved, and at random: they tell the sign's effect from that \
         of any other choice.",
        s.inputs
    ));
    outcome.note(format!(
        "`{AT_ONCE}`: the networks of `{BASE}` pruned each way, not retrained, mean over its cycles."
    ));
    outcome.note(
        "`half the units`: the trained dense network without the half of each hidden layer (inner channels of each block in \
         ResNet-20) whose incoming weights are the smallest by norm, not retrained; masked, and in an arena with smaller \
         tensors. Both give the same logits to rounding. Times are the fastest of 40 passes over 1000 pictures (or the whole test \
         set, if it is smaller), the three networks taking turns.",
    );
    if !s.hidden.is_empty() {
        outcome.note(
            "An MLP on small pictures with few epochs a training: the mechanism shows here, the paper's gain of 3 to 4 points is \
             of convolutional networks on CIFAR with 25 cycles of 50 epochs.",
        );
    }
}

/// One seed.
struct Bench<'a, 'c, 'w> {
    context: &'c mut Context<'w>,
    s: &'a Setting,
    seed: u64,
    model: Box<dyn Module>,
    arena: Arena,
    init: Snapshot,
    data: (&'a Images, &'a Images),
}

/// What a trained network came to.
struct Measured {
    accuracy: f64,
    dead: DeadNeurons,
}

impl<'a, 'c, 'w> Bench<'a, 'c, 'w> {
    fn new(context: &'c mut Context<'w>, s: &'a Setting, seed: u64, data: (&'a Images, &'a Images)) -> Result<Self> {
        let [height, width, channels] = data.0.size();
        let classes = data.0.classes();
        let mut names = Builder::new();
        let model: Box<dyn Module> = if s.hidden.is_empty() {
            Box::new(CifarResNet::new(&mut names.root(), &Spec { height, width, channels, classes }, 20)?)
        } else {
            let widths = [&[height * width * channels], s.hidden, &[classes]].concat();
            Box::new(HeMlp::new(&mut names.root(), &widths))
        };
        let arena = Arena::new(&context.gpu, &names, seed)?;
        let init = arena.snapshot()?;
        Ok(Self { context, s, seed, model, arena, init, data })
    }

    /// Trains what the arena holds. All arms see the same order in the same cycle.
    fn train(&mut self, arm: &str, cycle: usize) -> Result<()> {
        let (s, train) = (self.s, self.data.0);
        let steps = s.epochs * (train.len() as u64).div_ceil(s.batch as u64);
        let falls = s.falls.map(|f| (f * steps as f64) as u64);
        let rate = |k| schedule::warmup(k, s.warmup.min(steps / 4), schedule::multi_step(k, &falls, s.lr, 0.1));
        let plain = train.normalise();
        let crop = Augment { pad: 4, flip: 0.5, ..plain.clone() };
        let options = FitOptions {
            epochs: s.epochs,
            batch: s.batch,
            seed: self.seed * 1000 + cycle as u64,
            augment: Some(if s.hidden.is_empty() { crop } else { plain.clone() }),
            ..FitOptions::default()
        };
        let mut optimizer = Optimizer::new(&self.arena, Rule::sgd(5e-4))?;
        let label = format!("{arm}, seed {}, cycle {}/{}", self.seed, cycle + 1, s.cycles);
        let mut watcher = Watcher { context: &mut *self.context, label };
        Trainer::new(self.model.as_ref(), &mut self.arena, &mut optimizer, rate, options).fit(train, None, &mut watcher)?;
        Ok(())
    }

    fn measure(&self, arena: &Arena) -> Result<Measured> {
        let accuracy = 100.0 * evaluate(self.model.as_ref(), &Cx::eval(arena), self.data.1, 500)?.accuracy;
        Ok(Measured { accuracy, dead: dead_neuron_rates(self.model.as_ref(), arena, self.data.1, self.s.inputs)? })
    }

    fn run(&mut self, outcome: &mut Outcome, curves: &mut Curves) -> Result<()> {
        let seed = self.seed;
        let fresh = PruneMasks::of_matrices(&self.arena)?;
        let start = fresh.pool(self.arena.values_flat())?;
        self.train(DENSE, 0)?;
        let (dense, trained) = (self.measure(&self.arena)?, self.arena.snapshot()?);
        self.units(outcome, &dense)?;
        let arms = [
            (BASE, Role::Baseline, 0.0, ApSign::Negative),
            (AP, Role::Method, 0.02, ApSign::Negative),
            (POSITIVE, Role::Control, 0.02, ApSign::Positive),
            (RANDOM, Role::Control, 0.02, ApSign::Random(seed)),
        ];
        let configs = arms.map(|(_, _, ap, sign)| CycleConfig { ap, sign, ..CycleConfig::default() });
        let mut at_once = [0.0; 4];
        for (i, (arm, role, ..)) in arms.into_iter().enumerate() {
            let (mut masks, mut start) = (fresh.clone(), start.clone());
            masks.rewind(&mut self.arena, &trained)?;
            let mut sums = (0.0, 0.0);
            let (mut last, mut found) = (None, Vec::new());
            curves.push(arm, 100.0, &dense);
            for cycle in 1..self.s.cycles {
                if i == 0 {
                    for (sum, config) in at_once.iter_mut().zip(&configs) {
                        let (mut masks, mut fork) = (masks.clone(), self.arena.fork()?);
                        prune_cycle(&mut masks, &fork, &start, config)?;
                        masks.apply(&mut fork)?;
                        *sum += dead_neuron_rates(self.model.as_ref(), &fork, self.data.1, self.s.inputs)?.dynamic;
                    }
                }
                prune_cycle(&mut masks, &self.arena, &start, &configs[i])?;
                masks.rewind(&mut self.arena, &self.init)?;
                start = masks.pool(self.arena.values_flat())?;
                self.train(arm, cycle)?;
                let now = self.measure(&self.arena)?;
                sums = (sums.0 + now.accuracy, sums.1 + now.dead.dynamic);
                curves.push(arm, 100.0 * (1.0 - masks.sparsity()), &now);
                if levels(self.s).any(|level| level == cycle) {
                    found.extend(at(cycle).into_iter().zip([now.accuracy, now.dead.dynamic]));
                }
                last = Some(now);
            }
            let Some(last) = last else { continue };
            let left = 100.0 * (1.0 - masks.sparsity());
            self.context.watch.say(&format!(
                "{arm}, seed {seed}: {left:.1} % of the weights, test accuracy {:.2} %, dynamic rate {:.3}",
                last.accuracy, last.dead.dynamic
            ));
            let n = (self.s.cycles - 1) as f64;
            let mut row = row(&last, left);
            row.extend([(MEAN_ACCURACY, sums.0 / n), (MEAN_DYNAMIC, sums.1 / n), (AT_ONCE, at_once[i] / n)]);
            row.extend(found.iter().map(|(name, value)| (name.as_str(), *value)));
            outcome.record(arm, role, seed, &row)?;
        }
        Ok(())
    }

    /// The trained network, and half of its units masked and taken out.
    fn units(&mut self, outcome: &mut Outcome, dense: &Measured) -> Result<()> {
        let (model, test) = (self.model.as_ref(), self.data.1);
        let x = test.plain(&[0, 1])?.images;
        let units = Units::find(model, &self.arena, &x)?;
        let keep = units.strongest(&self.arena, 0.5, Pooling::Layer)?;
        let small = units.remove(model, &self.arena, &keep, &x)?;
        let mut masked = self.arena.fork()?;
        units.mask(&mut masked, &keep)?;
        let many = test.plain(&(0..test.len().min(1000) as u32).collect::<Vec<_>>())?.images;
        let times = seconds_per_pass(model, &[&self.arena, &masked, &small], &many, 40)?;
        let left = 100.0 * small.table().numel() as f64 / masked.table().numel() as f64;
        let (masked, small) = (self.measure(&masked)?, self.measure(&small)?);
        for ((arm, measured, left), seconds) in
            [(DENSE, dense, 100.0), (UNITS_MASKED, &masked, left), (UNITS_OUT, &small, left)].into_iter().zip(times)
        {
            let mut row = row(measured, left);
            row.push((TIME, 1e3 * seconds));
            outcome.record(arm, Role::Control, self.seed, &row)?;
            self.context.watch.say(&format!(
                "{arm}, seed {}: {left:.1} % of the parameters, test accuracy {:.2} %, {:.2} ms",
                self.seed,
                measured.accuracy,
                1e3 * seconds
            ));
        }
        Ok(())
    }
}

fn row<'a>(m: &Measured, left: f64) -> Vec<(&'a str, f64)> {
    vec![
        (ACCURACY, m.accuracy),
        (DYNAMIC, m.dead.dynamic),
        (STATIC, m.dead.static_dead),
        (WEIGHT_DEAD, m.dead.weight_dead),
        (LEFT, left),
    ]
}

/// Passes on the progress.
struct Watcher<'c, 'w> {
    context: &'c mut Context<'w>,
    label: String,
}

impl Hooks for Watcher<'_, '_> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(&self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }
}

/// Accuracy and dynamic rate of each arm at each sparsity, for each seed one after the other.
#[derive(Default)]
struct Curves(Vec<(String, Vec<[f64; 3]>)>);

impl Curves {
    fn push(&mut self, arm: &str, left: f64, m: &Measured) {
        let point = [left, m.accuracy, m.dead.dynamic];
        match self.0.iter_mut().find(|a| a.0 == arm) {
            Some((_, points)) => points.push(point),
            None => self.0.push((arm.into(), vec![point])),
        }
    }

    /// Means over the seeds.
    fn charts(self, outcome: &mut Outcome) {
        for (which, title, y) in [(1, "Test accuracy", "%"), (2, "Dynamic dead-neuron rate", "")] {
            let mut chart = Chart::lines(&format!("{title} after each training"), "log2 of the share of weights left", y);
            for (arm, points) in &self.0 {
                let mut means: Vec<(f64, f64, f64)> = Vec::new();
                for p in points {
                    let x = (p[0] / 100.0).log2();
                    match means.iter_mut().find(|m| (m.0 - x).abs() < 1e-6) {
                        Some(m) => (m.1, m.2) = (m.1 + p[which], m.2 + 1.0),
                        None => means.push((x, p[which], 1.0)),
                    }
                }
                chart.push(arm, means.into_iter().map(|(x, sum, n)| (x, sum / n)).collect());
            }
            outcome.charts.push(chart);
        }
    }
}
