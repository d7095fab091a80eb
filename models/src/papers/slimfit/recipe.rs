//! A small transformer trained on half of the classes, then fine-tuned on the other half: in full, by schedules at several
//! rates, with what is kept compressed or not, and with controls; accuracy and bytes.

use shadegrad::data::{DataPair, Dataset};
use shadegrad::nn::{Arena, Builder, Cx};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{FitOptions, Hooks, Images, Progress, Trainer, evaluate};
use shadegrad::{Error, Result};

use super::{ActiveLayers, BlockShape, Memory, Schedule, SlimConfig, SlimFit, SplitVit, SplitVitConfig};
use crate::papers::{Better, Chart, Context, Expect, Outcome, Preset, Role, describe};

/// Sizes of the experiment.
struct Size {
    patch: usize,
    width: usize,
    depth: usize,
    batch: usize,
    /// Pictures a class, for the first training and for fine-tuning; and to test on.
    pictures: [usize; 2],
    test: usize,
    epochs: [u64; 2],
    lr: [f32; 2],
}

/// An arm: its name, what it is for, the freezing rate, the schedule, and whether what is kept is compressed.
const ARMS: [(&str, Role, f64, Schedule, bool); 9] = [
    ("full", Role::Baseline, 0.0, Schedule::Dynamics, false),
    ("full, compressed", Role::Ablation, 0.0, Schedule::Dynamics, true),
    ("ILS 0.5", Role::Ablation, 0.5, Schedule::Dynamics, false),
    ("ILS 0.75", Role::Ablation, 0.75, Schedule::Dynamics, false),
    ("ILS 0.9", Role::Ablation, 0.9, Schedule::Dynamics, false),
    ("ILS 0.9, compressed", Role::Method, 0.9, Schedule::Dynamics, true),
    ("random 0.9", Role::Control, 0.9, Schedule::Random, false),
    ("ILS 0.95", Role::Ablation, 0.95, Schedule::Dynamics, false),
    ("all frozen", Role::Control, 0.0, Schedule::Nothing, false),
];

const ACCURACY: &str = "accuracy on the new classes";
const KEPT: &str = "kept for the backward pass";
const RATIO: &str = "share of the baseline";
const PEAK: &str = "peak of a step beyond the model";
const KIB: f64 = 1024.0;

/// The classes `from..from + count` alone, numbered from 0, at most `each` pictures of each.
fn classes(data: &Dataset, from: usize, count: usize, each: usize) -> Result<Dataset> {
    let mut left = vec![each; count];
    let mut indices = Vec::new();
    for (i, &label) in data.labels.iter().enumerate() {
        if let Some(n) = (label as usize).checked_sub(from).and_then(|c| left.get_mut(c)).filter(|n| **n > 0) {
            *n -= 1;
            indices.push(i as u32);
        }
    }
    let (images, labels) = data.batch(&indices)?;
    let labels = labels.into_iter().map(|l| l - from as u32).collect();
    let names = data.classes[from..from + count].to_vec();
    Dataset::new(data.name.clone(), images, labels, [data.height, data.width, data.channels], names)
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let all = usize::MAX;
    let size = |pictures, test, epochs| Size {
        patch: 2,
        width: 48,
        depth: 3,
        batch: 50,
        pictures,
        test,
        epochs,
        lr: [1e-3; 2],
    };
    let mut size = match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => size([60, 30], 20, [1, 1]),
        (Preset::Small, false) => size([all, 100], all, [8, 3]),
        (Preset::Small, true) => size([1000, 300], 500, [6, 3]),
        (Preset::Full, _) => Size {
            width: 192,
            depth: 12,
            batch: 128,
            lr: [3e-4; 2],
            ..size([all, all], all, [60, 10])
        },
    };
    let pair = context.pair();
    let (side, count) = (pair.train.height, pair.train.classes.len() / 2);
    if side != pair.train.width || side < 8 || side % 4 != 0 || count < 2 {
        let detail = format!("{}x{side} pictures of {} classes; give square ones with a side that 4 divides, and 4 \
                              classes or more", pair.train.width, pair.train.classes.len());
        return Err(Error::value("slimfit", detail));
    }
    // 16 patches, and at full size patches of 4 pixels, as the paper's small transformers have.
    size.patch = if context.preset == Preset::Full { 4 } else { side / 4 };
    let half = |from: usize, each: usize| {
        DataPair::new(classes(&pair.train, from, count, each)?, classes(&pair.test, from, count, size.test)?)
    };
    let (old, new) = (half(0, size.pictures[0])?, half(count, size.pictures[1])?);
    let config = SplitVitConfig {
        side,
        channels: old.train.channels,
        patch: size.patch,
        width: size.width,
        depth: size.depth,
        heads: 3,
        classes: count,
    };
    let mut outcome = Outcome::new(
        format!("{}; first trained on {} others of its first {count} classes", describe(&new), old.train.len()),
        format!(
            "ViT of {} blocks of width {}, {} tokens, {} layers to schedule; AdamW with a rate falling from {} along a \
             line, batches of {}, {} epochs of fine-tuning",
            size.depth,
            size.width,
            config.tokens(),
            3 + 8 * size.depth,
            size.lr[1],
            size.batch,
            size.epochs[1]
        ),
    )
    .metric(ACCURACY, "%", Better::Higher, 1)
    .metric(KEPT, "KiB", Better::Lower, 0)
    .metric(RATIO, "%", Better::Lower, 1)
    .metric(PEAK, "KiB", Better::Lower, 0);
    let experiment = Experiment { size, config };
    let (old, new) = (context.upload(&old)?, context.upload(&new)?);
    let mut scatter = Chart::scatter("Accuracy and memory", KEPT, ACCURACY);
    let mut visits = Chart::lines("Steps in which each layer was trained", "layer", "steps");
    let mut frontier: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for seed in context.seeds.clone() {
        let first = experiment.first_training(context, seed, &old)?;
        for arm in &ARMS {
            let found = experiment.fine_tune(context, seed, &new, &first, arm)?;
            let (name, role, ..) = *arm;
            let kept = found.memory.peak as f64 / KIB;
            let ratio = 100.0 * found.memory.peak as f64 / found.memory.whole().max(1) as f64;
            let figures = [(ACCURACY, found.accuracy), (KEPT, kept), (RATIO, ratio), (PEAK, found.peak as f64 / KIB)];
            outcome.record(name, role, seed, &figures)?;
            match frontier.iter_mut().find(|f| f.0 == name) {
                Some(f) => f.1.push((kept, found.accuracy)),
                None => frontier.push((name.to_string(), vec![(kept, found.accuracy)])),
            }
            if Some(&seed) == context.seeds.first() {
                experiment.notes(&mut outcome, name, &found);
                if matches!(name, "ILS 0.9" | "random 0.9") {
                    let steps = found.visits.iter().enumerate();
                    visits.push(name, steps.map(|(i, (_, n))| (i as f64, *n as f64)).collect());
                }
            }
        }
    }
    frontier.into_iter().for_each(|(name, points)| scatter.push(&name, points));
    outcome.charts.extend([scatter, visits]);
    let method = "ILS 0.9, compressed";
    outcome.compare("less is kept", KEPT, (method, "full"), Expect::Lower, "memory 2.2 times lower on average (abstract)");
    outcome.compare("at little cost", ACCURACY, (method, "full"), Expect::Within(0.4), "0.2 % on average (abstract)");
    outcome.compare(
        "compression alone costs nothing",
        ACCURACY,
        ("full, compressed", "full"),
        Expect::Within(1.5),
        "not reported alone",
    );
    outcome.compare(
        "compression costs the schedule nothing",
        ACCURACY,
        (method, "ILS 0.9"),
        Expect::Within(2.0),
        "not reported alone",
    );
    outcome.compare(
        "dynamics choose better than chance",
        ACCURACY,
        ("ILS 0.9", "random 0.9"),
        Expect::Higher,
        "not reported at this size",
    );
    outcome.compare(
        "some layers are better than none",
        ACCURACY,
        ("ILS 0.9", "all frozen"),
        Expect::Higher,
        "not reported",
    );
    outcome.note(
        "Fine-tuning takes few steps from a small first training on other classes of the same data; the paper takes \
         thousands from ImageNet-21k, where freezing costs less. The data is cut in halves because a recipe gets one set.",
    );
    outcome.note(
        "`kept` counts activations alone, as the engine has them: the most of any step. The last column is the peak of the \
         device's memory in a step beyond what is there before it (weights, gradients, moments, data): activations, what is \
         unpacked again, gradients on the way. Gradients and moments of frozen layers stay allocated in the arena, so the \
         saving on them that the paper also has is not in these figures.",
    );
    Ok(outcome)
}

/// Model, optimiser and schedule, the same for all arms.
struct Experiment {
    size: Size,
    config: SplitVitConfig,
}

/// What an arm came to.
struct Found {
    accuracy: f64,
    memory: Memory,
    /// Bytes beyond those in use before the first step.
    peak: u64,
    /// Layers and the steps they were trained in.
    visits: Vec<(String, u64)>,
    compact: shadegrad::autograd::Compact,
}

/// Shows the progress, and lets the method watch.
struct Watcher<'c, 'w> {
    context: &'c mut Context<'w>,
    label: String,
    slim: Option<&'c mut SlimFit>,
}

impl Hooks for Watcher<'_, '_> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(&self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }

    fn stepped(&mut self, step: u64, arena: &mut Arena, optimizer: &mut Optimizer) -> Result<()> {
        self.slim.as_mut().map_or(Ok(()), |slim| slim.stepped(step, arena, optimizer))
    }
}

impl Experiment {
    /// AdamW as in the paper's scripts.
    fn optimizer(&self, arena: &Arena) -> Result<Optimizer> {
        Optimizer::new(arena, Rule::AdamW { betas: [0.9, 0.999], eps: 1e-6, weight_decay: 0.01 })
    }

    fn options(&self, phase: usize, seed: u64, images: &Images) -> (FitOptions, u64) {
        let batch = self.size.batch;
        let steps = self.size.epochs[phase] * images.len().div_ceil(batch) as u64;
        (FitOptions { epochs: self.size.epochs[phase], batch, seed, ..FitOptions::default() }, steps)
    }

    /// The rate of a step, along a line down to nearly 0.
    fn rate(&self, phase: usize, steps: u64) -> impl Fn(u64) -> f32 + use<> {
        let lr = self.size.lr[phase];
        move |step| lr * (steps - step.min(steps)) as f32 / (steps + 1) as f32
    }

    fn names(&self) -> Result<(SplitVit, Builder)> {
        let mut names = Builder::new();
        let model = SplitVit::new(&mut names.root(), &self.config)?;
        Ok((model, names))
    }

    /// Trains on the first half of the classes, all layers.
    fn first_training(&self, context: &mut Context, seed: u64, (train, test): &(Images, Images)) -> Result<Arena> {
        let (model, names) = self.names()?;
        let mut arena = Arena::new(&context.gpu, &names, seed)?;
        let mut optimizer = self.optimizer(&arena)?;
        let (options, steps) = self.options(0, seed, train);
        let mut watcher = Watcher { context, label: format!("first training, seed {seed}"), slim: None };
        let rate = self.rate(0, steps);
        Trainer::new(&model, &mut arena, &mut optimizer, rate, options).fit(train, None, &mut watcher)?;
        let accuracy = 100.0 * evaluate(&model, &Cx::eval(&arena), test, 250)?.accuracy;
        let line = format!("first training, seed {seed}: {accuracy:.1} % on the first classes after {steps} steps");
        watcher.context.watch.say(&line);
        Ok(arena)
    }

    /// Fine-tunes a copy with a new head on the second half of the classes.
    fn fine_tune(
        &self,
        context: &mut Context,
        seed: u64,
        (train, test): &(Images, Images),
        first: &Arena,
        &(name, _, freeze, schedule, compress): &(&str, Role, f64, Schedule, bool),
    ) -> Result<Found> {
        let (model, names) = self.names()?;
        let mut arena = first.fork()?;
        let fresh = Arena::new(&context.gpu, &names, seed + 1000)?;
        for part in ["head.weight", "head.bias"] {
            let id = arena.params().id(part)?;
            arena.set_value(id, fresh.params().get(id))?;
        }
        drop(fresh);
        let mut optimizer = self.optimizer(&arena)?;
        let config = SlimConfig { freeze, schedule, seed, ..SlimConfig::default() };
        let config = if compress { config } else { config.uncompressed() };
        let compact = config.compact()?.unwrap_or_default();
        let mut slim = SlimFit::new(&arena, config)?;
        slim.plan(&mut arena)?;
        let keep = slim.keeper();
        let (options, steps) = self.options(1, seed, train);
        let gpu = context.gpu.clone();
        gpu.reset_peak();
        let before = gpu.memory().live;
        let label = format!("{name}, seed {seed}");
        let mut watcher = Watcher { context, label: label.clone(), slim: Some(&mut slim) };
        let rate = self.rate(1, steps);
        let summary = Trainer::new(&model, &mut arena, &mut optimizer, rate, options)
            .loss(move |step| keep.run(|| step.cross_entropy(&step.logits()?)))
            .fit(train, None, &mut watcher)?;
        let peak = gpu.memory().peak.saturating_sub(before);
        let accuracy = 100.0 * evaluate(&model, &Cx::eval(&arena), test, 250)?.accuracy;
        let memory = slim.memory();
        context.watch.say(&format!(
            "{label}: {accuracy:.1} %, {:.0} KiB kept, loss {:.3}, {:.0} s",
            memory.peak as f64 / KIB,
            summary.last.train_loss,
            summary.seconds
        ));
        let visits = slim.layers().iter().map(|l| l.to_string()).zip(slim.scheduler().visits().iter().copied()).collect();
        Ok(Found { accuracy, memory, peak, visits, compact })
    }

    /// What a reader wants to see of the first seed: bytes by category against the prediction, and which layers were
    /// trained.
    fn notes(&self, outcome: &mut Outcome, name: &str, found: &Found) {
        if matches!(name, "full" | "ILS 0.9" | "ILS 0.9, compressed" | "all frozen") {
            let parts = found.memory.by_category().into_iter().filter(|s| s.kept > 0 || s.whole > 0);
            let parts: Vec<String> =
                parts.map(|s| format!("{} {:.0} of {:.0}", s.name, s.kept as f64 / KIB, s.whole as f64 / KIB)).collect();
            outcome.note(format!("KiB kept in the last step of `{name}`, by operation: {}.", parts.join("; ")));
        }
        if matches!(name, "full" | "full, compressed" | "all frozen") {
            let active = if name == "all frozen" { ActiveLayers::default() } else { ActiveLayers::ALL };
            // The last batch of an epoch may be shorter; the account is of the last step.
            let rows = found.memory.tensors.iter().find(|t| t.layer.starts_with("blocks.0.")).map_or(0, |t| t.shape[0]);
            let shape = BlockShape {
                batch: rows,
                tokens: self.config.tokens(),
                width: self.config.width,
                heads: self.config.heads,
                hidden: 4 * self.config.width,
            };
            let counted: u64 =
                found.memory.tensors.iter().filter(|t| t.layer.starts_with("blocks.0.")).map(|t| t.bytes).sum();
            outcome.note(format!(
                "A block of `{name}` at {rows} samples: {counted} bytes counted; {} predicted by the paper's accounting and \
                 {} of statistics of norms, which its code computes again.",
                shape.bytes(&found.compact, active),
                shape.statistics(&found.compact, active)
            ));
        }
        if name == "ILS 0.9" {
            let mut visits = found.visits.clone();
            visits.sort_by_key(|v| std::cmp::Reverse(v.1));
            let listed: Vec<String> = visits.iter().map(|(layer, n)| format!("{layer} {n}")).collect();
            outcome.note(format!("Steps in which `{name}` trained each layer: {}.", listed.join(", ")));
        }
    }
}
