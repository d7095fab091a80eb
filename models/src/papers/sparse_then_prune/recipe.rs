//! A small ViT with the penalty at several strengths, pruned at once at several shares; at full size pre-trained on some
//! classes of the data and fine-tuned on the others.

use shadegrad::augment::Augment;
use shadegrad::data::{ChannelStats, DataPair, Dataset};
use shadegrad::nn::{Arena, Builder, Cx, Init};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::train::{FitOptions, Hooks, Images, Progress, Trainer, evaluate};
use shadegrad::{Error, Result, Tensor};

use super::{
    AttentionStats, AttnPenalty, Layers, OneCycle, OneCycleConfig, SparseLoss, attention_stats, prune_global_l1, weights,
};
use crate::papers::{Better, Chart, Context, Expect, Outcome, Preset, Role, describe};
use crate::{Spec, Vit, VitConfig};

const MEAN: &str = "accuracy, mean over the shares";
const DENSE: &str = "test accuracy, not pruned";
const ENTROPY: &str = "entropy of the last block's attention";
const LOG_SQUARE: &str = "penalty of the last block";
/// Shares after which a network is trained for one more epoch, at full size.
const RETRAINED_AT: [f64; 2] = [0.5, 0.7];

const NONE: &str = "no penalty";
const PAPER: &str = "lambda 0.01";
const FLAT: &str = "lambda 10";
const SPARSE: &str = "lambda -10";

/// How the networks are trained.
#[derive(Clone, Copy, PartialEq)]
enum Training {
    /// From first values, AdamW with the rate falling along a line.
    Scratch { epochs: u64, batch: usize, lr: f32 },
    /// Pre-trained without a penalty on four fifths of the classes, fine-tuned with it on the others in one cycle.
    FineTune { before: u64, epochs: u64, batch: usize, lr: f32 },
}

struct Setting {
    pictures: (usize, usize),
    patch: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    dropout: f32,
    training: Training,
    shares: &'static [f64],
    lambdas: Vec<(&'static str, Role, f32)>,
    /// Pictures that attention is measured on.
    measured: usize,
}

const LAMBDAS: &[(&str, Role, f32)] = &[
    (NONE, Role::Baseline, 0.0),
    (PAPER, Role::Method, 0.01),
    ("lambda 1", Role::Ablation, 1.0),
    (FLAT, Role::Ablation, 10.0),
    (SPARSE, Role::Control, -10.0),
];

fn setting(context: &Context, side: usize) -> Setting {
    // Sixteen patches and the class token, whatever the pictures are.
    let small = Setting {
        pictures: (2500, 2000),
        patch: side / 4,
        dim: 48,
        depth: 3,
        heads: 3,
        dropout: 0.0,
        training: Training::Scratch { epochs: 5, batch: 50, lr: 1.5e-3 },
        shares: &[0.1, 0.3, 0.5, 0.6, 0.7],
        lambdas: LAMBDAS.to_vec(),
        measured: 500,
    };
    match (context.preset, context.has_data()) {
        (Preset::Full, _) => Setting {
            pictures: (usize::MAX, usize::MAX),
            patch: 4,
            dim: 192,
            depth: 6,
            dropout: 0.1,
            training: Training::FineTune { before: 60, epochs: 20, batch: 128, lr: 0.02 },
            shares: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
            lambdas: vec![
                LAMBDAS[0], LAMBDAS[1], LAMBDAS[2], LAMBDAS[3], ("lambda 100", Role::Ablation, 100.0), LAMBDAS[4],
            ],
            ..small
        },
        (Preset::Small, true) => small,
        (Preset::Small, false) => Setting { pictures: (usize::MAX, usize::MAX), ..small },
        (Preset::Smoke, _) => Setting {
            pictures: (800, 360),
            dim: 24,
            depth: 2,
            heads: 2,
            training: Training::Scratch { epochs: 3, batch: 50, lr: 3e-3 },
            shares: &[0.1, 0.5],
            lambdas: vec![LAMBDAS[0], LAMBDAS[1], LAMBDAS[3], LAMBDAS[4]],
            measured: 200,
            ..small
        },
    }
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let side = context.pair().train.height;
    let s = setting(context, side);
    let pair = context.subset(s.pictures.0, s.pictures.1)?;
    let (old, pair) = match s.training {
        Training::Scratch { .. } => (None, pair),
        Training::FineTune { .. } => {
            let (old, new) = by_classes(&pair)?;
            (Some(old), new)
        }
    };
    let mut outcome = Outcome::new(describe(&pair), describe_training(&s, old.as_ref()))
        .metric(MEAN, "%", Better::Higher, 2)
        .metric(DENSE, "%", Better::Higher, 2);
    for share in s.shares {
        outcome = outcome.metric(&at(*share), "%", Better::Higher, 2);
    }
    outcome = outcome.metric(ENTROPY, "nats", Better::Neither, 3).metric(LOG_SQUARE, "", Better::Neither, 5);
    let fine_tuned = old.is_some();
    for share in RETRAINED_AT.into_iter().filter(|_| fine_tuned) {
        outcome = outcome.metric(&retrained(share), "%", Better::Higher, 2);
    }
    let upload = |context: &Context, pair: &DataPair| -> Result<(Images, Images)> {
        let channels = pair.train.channels;
        let stats = ChannelStats { mean: vec![0.5; channels], std: vec![0.5; channels] };
        Ok((Images::upload(&context.gpu, &pair.train, &stats)?, Images::upload(&context.gpu, &pair.test, &stats)?))
    };
    let data = upload(context, &pair)?;
    let old = old.map(|old| upload(context, &old)).transpose()?;
    let mut curves: Vec<(&str, Vec<Vec<f64>>)> = s.lambdas.iter().map(|l| (l.0, Vec::new())).collect();
    for seed in context.seeds.clone() {
        let bench = Bench { s: &s, seed, side, channels: pair.train.channels };
        let start = old.as_ref().map(|old| bench.pre_train(context, old)).transpose()?;
        for (i, &(arm, role, lambda)) in s.lambdas.iter().enumerate() {
            let (row, curve) = bench.arm(context, arm, lambda, (&data.0, &data.1), start.as_ref())?;
            let row: Vec<(&str, f64)> = row.iter().map(|(name, v)| (name.as_str(), *v)).collect();
            outcome.record(arm, role, seed, &row)?;
            curves[i].1.push(curve);
        }
    }
    compare(&mut outcome);
    notes(&mut outcome, &s, data.1.len());
    let mut chart = Chart::lines("Accuracy after pruning at once", "share of the weights pruned", "%");
    for (arm, seeds) in curves {
        let mean = |i: usize| seeds.iter().map(|c| c[i]).sum::<f64>() / seeds.len().max(1) as f64;
        let points = [0.0].iter().chain(s.shares).enumerate().map(|(i, &share)| (share, mean(i)));
        chart.push(arm, points.collect());
    }
    outcome.charts.push(chart);
    Ok(outcome)
}

fn at(share: f64) -> String {
    format!("accuracy at {:.0} %", 100.0 * share)
}

fn retrained(share: f64) -> String {
    format!("{}, retrained", at(share))
}

fn describe_training(s: &Setting, old: Option<&DataPair>) -> String {
    let net = format!("ViT of width {}, {} blocks, {} heads, patches of {}", s.dim, s.depth, s.heads, s.patch);
    match s.training {
        Training::Scratch { epochs, batch, lr } => {
            format!("{net}; AdamW, rate {lr} falling to 0 along a line, decay 0.01, {epochs} epochs of batches of {batch}")
        }
        Training::FineTune { before, epochs, batch, lr } => format!(
            "{net}, dropout {}; {before} epochs of AdamW on the other {} classes, then {epochs} of SGD in one cycle up to {lr}, \
             decay 1e-4, batches of {batch}",
            s.dropout,
            old.map_or(0, |o| o.train.classes.len())
        ),
    }
}

fn compare(outcome: &mut Outcome) {
    for (claim, metric, arms, expect, paper) in [
        ("the penalty keeps accuracy after pruning", MEAN, (PAPER, NONE), Expect::Higher, "+0.568 points (CIFAR-10), +1.764 (CIFAR-100)"),
        ("the penalty raises accuracy itself", DENSE, (PAPER, NONE), Expect::Higher, "+0.12 points (CIFAR-100)"),
        ("at the paper's strength it changes nothing that shows", MEAN, (PAPER, NONE), Expect::Within(1.0), "follows from its size"),
        ("it makes attention flatter, not sparser", ENTROPY, (FLAT, NONE), Expect::Higher, "follows from its convexity"),
        ("with its sign turned it makes attention sparser", ENTROPY, (SPARSE, NONE), Expect::Lower, "follows from its convexity"),
        ("a thousand times the strength helps pruning", MEAN, (FLAT, NONE), Expect::Higher, "not in the paper"),
    ] {
        outcome.compare(claim, metric, arms, expect, paper);
    }
}

fn notes(outcome: &mut Outcome, s: &Setting, tested: usize) {
    let shares: Vec<String> = s.shares.iter().map(|s| format!("{:.0} %", 100.0 * s)).collect();
    outcome.note(format!(
        "`{MEAN}` is over {}: the paper's number. The smallest weights of all layers together go at once, from a copy each \
         time, without retraining.",
        shares.join(", ")
    ));
    outcome.note(format!(
        "`{SPARSE}` turns the sign of the penalty and is not the paper's, nor are the larger factors. The attention is measured on \
         {} test pictures; its entropy is at most ln 17 = 2.833 nats with 16 patches and a class token.",
        s.measured
    ));
    outcome.note(format!(
        "One of the {tested} test pictures is {:.2} points: a difference of that size means nothing, however alike the seeds are.",
        100.0 / tested.max(1) as f64
    ));
    outcome.note("Pruned weights stay in memory: fewer of them are not zero, nothing is faster.");
    match s.training {
        Training::Scratch { .. } => outcome.note(
            "The paper fine-tunes ViT-B/16 from ImageNet-21k at 384 pixels for 20 epochs of one cycle; this is a network with \
             0.1 % of its weights, trained from first values.",
        ),
        Training::FineTune { .. } => outcome.note(
            "One data set takes the place of two: the network is pre-trained on four fifths of its classes and fine-tuned on the \
             others. The last epoch is kept.",
        ),
    }
}

/// The first four fifths of the classes and the others, labels from 0 in both.
fn by_classes(pair: &DataPair) -> Result<(DataPair, DataPair)> {
    let classes = pair.train.classes.len();
    let cut = classes * 4 / 5;
    if cut == 0 || cut == classes {
        return Err(Error::value("sparse-then-prune", format!("{classes} classes; pre-training on some needs at least 2")));
    }
    let part = |data: &Dataset, from: usize, to: usize| -> Result<Dataset> {
        let within = |label: &u32| (from..to).contains(&(*label as usize));
        let chosen = data.labels.iter().enumerate().filter(|(_, l)| within(l)).map(|(i, _)| i as u32);
        let part = data.subset(&chosen.collect::<Vec<_>>())?;
        let labels = part.labels.iter().map(|l| l - from as u32).collect();
        Ok(Dataset { labels, classes: data.classes[from..to].to_vec(), ..part })
    };
    let both = |from, to| DataPair::new(part(&pair.train, from, to)?, part(&pair.test, from, to)?);
    Ok((both(0, cut)?, both(cut, classes)?))
}

/// The first values of the small network: matrices and filters normal with deviation `1 / sqrt(fan-in)`, cut at two
/// deviations, the head's a tenth of that; class token and positions 0.02, cut likewise; biases 0, scales 1.
pub(super) fn first_values(arena: &Arena, seed: u64) -> Result<()> {
    let table = arena.table();
    let mut all = vec![0.0f32; table.floats()];
    for e in table.entries() {
        let to = &mut all[e.offset..][..e.len];
        let fan_in = e.shape.iter().skip(1).product::<usize>().max(1) as f32;
        let std = match e.name.as_str() {
            "cls_token" | "pos_embed" => 0.02,
            "head.weight" => 0.1 / fan_in.sqrt(),
            _ => 1.0 / fan_in.sqrt(),
        };
        if e.name.ends_with("bias") {
            continue;
        }
        if e.shape.len() == 1 {
            to.fill(1.0);
            continue;
        }
        Init::TruncNormal(1.0).fill(to, &e.name, &e.shape, seed);
        to.iter_mut().for_each(|v| *v *= std);
    }
    arena.set_values_flat(&Tensor::from_slice(arena.gpu(), &all, &[all.len()])?)
}

/// One seed.
struct Bench<'a> {
    s: &'a Setting,
    seed: u64,
    side: usize,
    channels: usize,
}

type Row = Vec<(String, f64)>;

impl Bench<'_> {
    fn net(&self, context: &Context, classes: usize) -> Result<(Vit, Arena)> {
        let s = self.s;
        let spec = Spec { height: self.side, width: self.side, channels: self.channels, classes };
        let config = VitConfig {
            patch: s.patch,
            dim: s.dim,
            depth: s.depth,
            heads: s.heads,
            mlp: 4 * s.dim,
            dropout: s.dropout,
            ..VitConfig::micro(&spec)
        };
        let mut names = Builder::new();
        let model = Vit::new(&mut names.root(), &config)?;
        let arena = Arena::new(&context.gpu, &names, self.seed)?;
        first_values(&arena, self.seed)?;
        Ok((model, arena))
    }

    /// A network that knows the other classes.
    fn pre_train(&self, context: &mut Context, (train, test): &(Images, Images)) -> Result<Arena> {
        let (model, mut arena) = self.net(context, train.classes())?;
        let Training::FineTune { before, batch, .. } = self.s.training else { return Ok(arena) };
        let steps = before * (train.len() as u64).div_ceil(batch as u64);
        let rate = |k| schedule::warmup(k, steps / 6, schedule::cosine(k, steps, 1e-3, 0.0));
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.05))?;
        let mut watcher = Watcher { context: &mut *context, label: format!("pre-training, seed {}", self.seed), cycle: None };
        let options = self.options(train, before, batch);
        Trainer::new(&model, &mut arena, &mut optimizer, rate, options).fit(train, None, &mut watcher)?;
        let accuracy = 100.0 * evaluate(&model, &Cx::eval(&arena), test, 500)?.accuracy;
        context.watch.say(&format!("pre-training, seed {}: test accuracy {accuracy:.2} % on its own classes", self.seed));
        Ok(arena)
    }

    fn options(&self, train: &Images, epochs: u64, batch: usize) -> FitOptions {
        let plain = train.normalise();
        let crop = Augment { pad: 4, flip: 0.5, ..plain.clone() };
        let augment = if matches!(self.s.training, Training::FineTune { .. }) { crop } else { plain.clone() };
        FitOptions { epochs, batch, seed: self.seed, augment: Some(augment), ..FitOptions::default() }
    }

    /// Trains with one factor and prunes: the figures, and accuracy from unpruned to the last share. Networks of one seed
    /// share first values, order and dropout.
    fn arm(
        &self,
        context: &mut Context,
        arm: &str,
        lambda: f32,
        (train, test): (&Images, &Images),
        start: Option<&Arena>,
    ) -> Result<(Row, Vec<f64>)> {
        let (model, mut arena) = self.net(context, train.classes())?;
        let sparse = SparseLoss { lambda, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
        let label = format!("{arm}, seed {}", self.seed);
        match self.s.training {
            Training::Scratch { epochs, batch, lr } => {
                let steps = epochs * (train.len() as u64).div_ceil(batch as u64);
                let rate = |k| schedule::polynomial(k, steps, lr, 0.0, 1.0);
                let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
                let mut watcher = Watcher { context: &mut *context, label: label.clone(), cycle: None };
                Trainer::new(&model, &mut arena, &mut optimizer, rate, self.options(train, epochs, batch))
                    .loss(|step| sparse.loss(step))
                    .fit(train, None, &mut watcher)?;
            }
            Training::FineTune { epochs, batch, lr, .. } => {
                if let Some(start) = start {
                    adopt(start, &arena, self.seed)?;
                }
                let steps = epochs * (train.len() as u64).div_ceil(batch as u64);
                let cycle = OneCycle::new(OneCycleConfig { max_lr: lr, ..OneCycleConfig::paper(steps) })?;
                let mut optimizer = Optimizer::new(&arena, cycle.rule(0))?;
                let rate = |k| cycle.lr(k);
                let mut watcher =
                    Watcher { context: &mut *context, label: label.clone(), cycle: Some(cycle.clone()) };
                Trainer::new(&model, &mut arena, &mut optimizer, rate, self.options(train, epochs, batch))
                    .loss(|step| sparse.loss(step))
                    .fit(train, None, &mut watcher)?;
            }
        }
        let accuracy = |arena: &Arena| Ok::<_, Error>(100.0 * evaluate(&model, &Cx::eval(arena), test, 500)?.accuracy);
        let AttentionStats { entropy, log_square } = attention_stats(&model, &Cx::eval(&arena), test, self.s.measured)?;
        let last = |v: &[f64]| v.last().copied().unwrap_or(f64::NAN);
        let dense = accuracy(&arena)?;
        let mut curve = vec![dense];
        let mut row: Row = vec![
            (DENSE.into(), dense),
            (ENTROPY.into(), last(&entropy)),
            (LOG_SQUARE.into(), last(&log_square)),
        ];
        for (share, found) in super::prune_sweep(&arena, self.s.shares, weights("norm.weight"), accuracy)? {
            row.push((at(share), found));
            curve.push(found);
        }
        let mean = curve[1..].iter().sum::<f64>() / self.s.shares.len() as f64;
        row.push((MEAN.into(), mean));
        context.watch.say(&format!(
            "{label}: test accuracy {dense:.2} %, {mean:.2} % on average after pruning, entropy {:.3}",
            last(&entropy)
        ));
        if let Training::FineTune { batch, .. } = self.s.training {
            // One more epoch with the masks held.
            for share in RETRAINED_AT {
                let mut pruned = arena.fork()?;
                prune_global_l1(&mut pruned, share, weights("norm.weight"))?;
                let mut optimizer = Optimizer::new(&pruned, Rule::sgd(1e-4))?;
                let label = format!("{label}, retraining at {share}");
                let mut watcher = Watcher { context: &mut *context, label, cycle: None };
                Trainer::new(&model, &mut pruned, &mut optimizer, |_| 1e-3, self.options(train, 1, batch))
                    .loss(|step| sparse.loss(step))
                    .fit(train, None, &mut watcher)?;
                row.push((retrained(share), accuracy(&pruned)?));
            }
        }
        Ok((row, curve))
    }
}

/// All values of a pre-trained network but those of the head, which is drawn as a linear layer's.
fn adopt(from: &Arena, to: &Arena, seed: u64) -> Result<()> {
    for (name, value) in from.params().iter().filter(|(name, _)| !name.starts_with("head.")) {
        to.set_value(to.params().id(name)?, value)?;
    }
    for e in to.table().entries().iter().filter(|e| e.name.starts_with("head.")) {
        let width = from.params().by_name("head.weight")?.dim(1);
        let mut values = vec![0.0; e.len];
        Init::FanIn(width).fill(&mut values, &e.name, &e.shape, seed);
        to.set_value(to.params().id(&e.name)?, &Tensor::from_slice(to.gpu(), &values, &e.shape)?)?;
    }
    Ok(())
}

/// Passes on the progress, and steps to the cycle's momentum.
struct Watcher<'c, 'w> {
    context: &'c mut Context<'w>,
    label: String,
    cycle: Option<OneCycle>,
}

impl Hooks for Watcher<'_, '_> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(&self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }

    fn stepped(&mut self, step: u64, arena: &mut Arena, optimizer: &mut Optimizer) -> Result<()> {
        self.cycle.as_mut().map_or(Ok(()), |cycle| cycle.stepped(step, arena, optimizer))
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn classes_are_split_and_numbered_anew() -> Result<()> {
        let (old, new) = by_classes(&shadegrad::data::digits())?;
        assert_eq!((old.train.classes.len(), new.train.classes.len()), (8, 2));
        assert_eq!(new.train.classes, ["8", "9"]);
        assert_eq!(old.train.len() + new.train.len(), 1437);
        assert!(new.test.labels.iter().all(|l| *l < 2) && old.test.labels.contains(&7));
        Ok(())
    }
}
