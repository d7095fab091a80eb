//! The same blocks trained alone, by back-propagation, in continuous time and by flow matching, beside a plain network; and
//! what becomes of a prediction when the input, the order of the blocks or the noise is changed.

use shadegrad::data::DataPair;
use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::train::{EpochEnd, FitOptions, Flow, Hooks, Images, Progress, Trainer, evaluate};
use shadegrad::{CrossEntropy, Error, Gpu, Result, Tensor};

use super::{BackPropagated, Chain, Embedding, NoPropCt, NoPropDt, NoPropFm, Noise, PaperBlock, PaperNet, Plain};
use super::{Sampler, Schedule, Settings, accuracy};
use crate::papers::{Better, Chart, Context, Curves, Expect, Outcome, Preset, Role, describe};

/// Sizes of the experiment.
struct Size {
    /// Channels of the convolutions, if there are any, and width of a block.
    net: (Option<[usize; 3]>, usize),
    blocks: usize,
    batch: usize,
    /// Passes of every block over the data; as many of the back-propagated blocks.
    epochs: u64,
    /// The back-propagated blocks go on to this many times the passes.
    longer: u64,
    /// Passes in continuous time and flow matching.
    continuous_epochs: u64,
    plain_epochs: u64,
    /// Steps of a prediction in continuous time and flow matching.
    steps: usize,
    /// Predictions that accuracies are averaged over.
    repeats: u64,
    /// Whether embeddings are learned too.
    learned: bool,
    /// Other weights of the error, other depths, whether targets are held fixed and gamma linear.
    etas: &'static [f32],
    depths: &'static [usize],
    fixed_targets: bool,
    linear_gamma: bool,
}

const ACCURACY: &str = "test accuracy";
const MEMORY: &str = "memory of a step";
const WEIGHTS: &str = "weights";
const DISCRETE: &str = "NoProp-DT";
const CONTINUOUS: &str = "NoProp-CT";
const FLOW: &str = "NoProp-FM";
const BLOCKS: &str = "back-propagated blocks";
const LONGER: &str = "back-propagated blocks, longer";
const PLAIN: &str = "plain network";
const LEARNED: &str = "NoProp-DT, learned embeddings";
const FIXED: &str = "NoProp-DT, learned embeddings, fixed targets";
const REVERSED: &str = "NoProp-DT, blocks reversed";

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let mlp = Size {
        net: (None, 64),
        blocks: 10,
        batch: 128,
        epochs: 20,
        longer: 3,
        continuous_epochs: 100,
        plain_epochs: 40,
        steps: 100,
        repeats: 2,
        learned: true,
        etas: &[0.01, 1.0],
        depths: &[3],
        fixed_targets: true,
        linear_gamma: false,
    };
    let (pair, size) = match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => {
            let (blocks, epochs, continuous_epochs, steps) = (3, 16, 32, 20);
            let (etas, depths, learned, fixed_targets) = (&[][..], &[][..], false, false);
            let shorter = Size { blocks, epochs, longer: 1, continuous_epochs, steps, repeats: 1, ..mlp };
            (context.subset(640, 200)?, Size { etas, depths, learned, fixed_targets, ..shorter })
        }
        (Preset::Small, false) => (context.subset(1280, 360)?, mlp),
        (Preset::Small, true) => {
            let pair = context.subset(2560, 2000)?;
            let pair = if pair.train.height >= 28 { pair.shrink(2)? } else { pair };
            let (etas, depths, learned, fixed_targets) = (&[][..], &[][..], false, false);
            let sized = Size { epochs: 16, continuous_epochs: 80, plain_epochs: 32, steps: 50, ..mlp };
            (pair, Size { etas, depths, learned, fixed_targets, ..sized })
        }
        (Preset::Full, _) => {
            let sized = Size { net: (Some([32, 64, 128]), 256), epochs: 100, longer: 1, plain_epochs: 100, ..mlp };
            let depths = &[3, 20];
            (context.pair(), Size { steps: 1000, repeats: 5, depths, linear_gamma: true, ..sized })
        }
    };
    let (train, test) = context.upload(&pair)?;
    let mut outcome = Outcome::new(describe(&pair), setting(&pair, &size))
        .metric(ACCURACY, "%", Better::Higher, 2)
        .metric(MEMORY, "MiB", Better::Lower, 2)
        .metric(WEIGHTS, "", Better::Neither, 0);
    let mut chain = Curves::default();
    let mut losses = Chart::lines("Loss of each block at the end", "block", "loss");
    for seed in context.seeds.clone() {
        let mut arm = Arms { context: &mut *context, outcome: &mut outcome, train: &train, test: &test, size: &size, seed };
        arm.plain()?;
        arm.back_propagated()?;
        let plain = Variant { eta: 0.1, blocks: size.blocks, detach: false };
        let (net, last) = arm.discrete(DISCRETE, Role::Method, &Embedding::OneHot, plain)?;
        if seed == 0 {
            losses.push(DISCRETE, (1..).map(f64::from).zip(last).collect());
        }
        chain.push(DISCRETE, arm.along_the_chain(&net)?);
        arm.controls(&net)?;
        drop(net);
        arm.continuous()?;
        arm.flow()?;
        arm.ablations(plain)?;
    }
    compare(&mut outcome, &size);
    notes(&mut outcome, context.preset, &size);
    outcome.charts.push(chain.chart("Accuracy of the class read from z_t", "block", "%"));
    outcome.charts.push(losses);
    Ok(outcome)
}

fn setting(pair: &DataPair, size: &Size) -> String {
    let (channels, width) = size.net;
    let image = channels.map_or_else(|| "two layers".to_string(), |c| format!("convolutions {c:?}"));
    let Size { blocks, epochs, longer, continuous_epochs, plain_epochs, batch, steps, .. } = size;
    let further = if *longer > 1 { format!(" (longer: {})", longer * epochs) } else { String::new() };
    format!(
        "{blocks} blocks ({image}, width {width}) over {} classes; AdamW at 1e-3 with decay 1e-3, batches of {batch}; every \
         block and the back-propagated ones {epochs} epochs{further}, continuous time and flow matching {continuous_epochs} and \
         {steps} steps, the plain network {plain_epochs}",
        pair.train.classes.len()
    )
}

/// What a run of discrete time differs in.
#[derive(Clone, Copy)]
struct Variant {
    eta: f32,
    blocks: usize,
    detach: bool,
}

/// Runs and records the arms of one seed.
struct Arms<'a, 'w> {
    context: &'a mut Context<'w>,
    outcome: &'a mut Outcome,
    train: &'a Images,
    test: &'a Images,
    size: &'a Size,
    seed: u64,
}

/// Most bytes in use during `step` beyond those before it, in MiB. Cached buffers of another size do not count.
fn working(gpu: &Gpu, step: impl FnOnce() -> Result<()>) -> Result<f64> {
    gpu.reset_peak();
    let before = gpu.memory().live;
    step()?;
    Ok((gpu.memory().peak - before) as f64 / f64::from(1 << 20))
}

impl Arms<'_, '_> {
    fn block(&self, dim: usize, continuous: bool) -> PaperNet {
        let (channels, width) = self.size.net;
        let net = PaperNet::discrete(self.train.size(), self.train.classes(), dim).sized(channels, width);
        PaperNet { continuous, ..net }
    }

    /// Mean accuracy in per cent over several predictions.
    fn measure(&self, mut predict: impl FnMut(&Tensor, Stream) -> Result<Tensor>) -> Result<f64> {
        let repeats = self.size.repeats;
        let one = |i: u64| accuracy(self.test, 1000, Stream::new(1_000_000 + 1000 * self.seed + i, 0), &mut predict);
        Ok(100.0 * (0..repeats).map(one).sum::<Result<f64>>()? / repeats as f64)
    }

    fn record(&mut self, name: &str, role: Role, right: f64, memory: Option<f64>, weights: Option<usize>) -> Result<()> {
        let mut values = vec![(ACCURACY, right)];
        values.extend(memory.map(|m| (MEMORY, m)));
        values.extend(weights.map(|w| (WEIGHTS, w as f64)));
        self.outcome.record(name, role, self.seed, &values)?;
        self.context.watch.say(&format!("{name}, seed {}: test accuracy {right:.2} %", self.seed));
        Ok(())
    }

    /// A batch to measure the memory of a step on.
    fn batch(&self) -> Result<(Tensor, Vec<u32>)> {
        let n = self.size.batch.min(self.train.len());
        let indices: Vec<u32> = (0..n as u32).collect();
        Ok((self.train.plain(&indices)?.images, self.train.labels()[..n].to_vec()))
    }

    /// Trains a model by back-propagation through all of it for these epochs and records it after each of them.
    fn whole(&mut self, names: &[(&str, u64)], role: Role, model: &dyn Module, mut arena: Arena) -> Result<()> {
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(1e-3))?;
        let epochs = names.last().map_or(0, |n| n.1);
        let options = FitOptions { epochs, batch: self.size.batch, seed: self.seed, ..FitOptions::default() };
        let label = format!("{}, seed {}", names[0].0, self.seed);
        // Without noise in the model one prediction says all.
        let repeats = if role == Role::Baseline { self.size.repeats } else { 1 };
        let (test, seed) = (self.test, self.seed);
        let measure = |arena: &Arena| {
            let one = |i: u64| {
                let cx = Cx::eval(arena).seeded(1_000_000 + 1000 * seed + i, 0);
                Ok::<_, Error>(100.0 * evaluate(model, &cx, test, 1000)?.accuracy)
            };
            Ok((0..repeats).map(one).sum::<Result<f64>>()? / repeats as f64)
        };
        let mut told = Told { context: &mut *self.context, label: &label, names, measure, right: Vec::new() };
        Trainer::new(model, &mut arena, &mut optimizer, |_| 1e-3, options).fit(self.train, None, &mut told)?;
        let right = told.right;
        let (x, labels) = self.batch()?;
        let labels = Tensor::labels(&self.context.gpu, &labels, self.train.classes())?;
        let memory = working(&self.context.gpu, || {
            let logits = model.forward(&Cx::train(&arena), &x)?;
            arena.backward(&logits.cross_entropy(&labels, CrossEntropy::default())?)?;
            optimizer.step(&arena, 1e-3)
        })?;
        for ((name, _), right) in names.iter().zip(right) {
            self.record(name, role, right, Some(memory), Some(arena.table().numel()))?;
        }
        Ok(())
    }

    fn plain(&mut self) -> Result<()> {
        let mut names = Builder::new();
        let model = Plain::new(&mut names.root(), &self.block(1, false))?;
        let arena = Arena::new(&self.context.gpu, &names, self.seed)?;
        self.whole(&[(PLAIN, self.size.plain_epochs)], Role::Control, &model, arena)
    }

    fn back_propagated(&mut self) -> Result<()> {
        let (mut names, classes) = (Builder::new(), self.train.classes());
        let block = self.block(classes, false);
        let depth = self.size.blocks;
        let model = BackPropagated::new(&mut names.root(), classes, &Embedding::OneHot, depth, |s, _| block.build(s))?;
        let arena = Arena::new(&self.context.gpu, &names, self.seed)?;
        let Size { epochs, longer, .. } = *self.size;
        let marks = [(BLOCKS, epochs), (LONGER, longer * epochs)];
        self.whole(&marks[..if longer > 1 { 2 } else { 1 }], Role::Baseline, &model, arena)
    }

    /// Trains in discrete time; the net and the losses of its blocks in the last epoch.
    fn discrete(
        &mut self,
        name: &str,
        role: Role,
        embedding: &Embedding,
        how: Variant,
    ) -> Result<(NoPropDt<PaperBlock>, Vec<f64>)> {
        let classes = self.train.classes();
        let block = self.block(embedding.dim(classes), false);
        let settings =
            Settings { eta: how.eta, batch: self.size.batch, detach_targets: how.detach, ..Settings::discrete() };
        let schedule = Schedule::standard(how.blocks)?;
        let gpu = &self.context.gpu.clone();
        let mut net = NoPropDt::new(gpu, self.seed, classes, embedding, schedule, settings, |s, _| block.build(s))?;
        let (label, epochs) = (format!("{name}, seed {}", self.seed), self.size.epochs);
        let log = net.fit(self.train, epochs, |_, end| {
            let last = end.losses.last().copied().unwrap_or(f64::NAN);
            let text = format!("epoch {}/{epochs}  loss of the last block {last:.4}", end.epoch);
            self.context.watch.progress(&label, end.epoch as f64 / epochs as f64, &text);
            Ok(())
        })?;
        let right = self.measure(|x, noise| net.predict(x, 1, noise))?;
        let (weights, (x, labels)) = (net.parameters()?, self.batch()?);
        // The step goes to a copy of the first block's turn: its weights are not used any more than those measured.
        let kept = net.arena(1).map(Arena::snapshot).transpose()?;
        let shared = net.shared().snapshot()?;
        let memory = working(gpu, || net.train_block(1, &x, &labels, Stream::new(self.seed, 0)).map(|_| ()))?;
        if let (Some(arena), Some(kept)) = (net.arena(1), &kept) {
            arena.restore(kept)?;
        }
        net.shared().restore(&shared)?;
        self.record(name, role, right, Some(memory), Some(weights))?;
        Ok((net, log.into_iter().last().map_or_else(Vec::new, |e| e.losses)))
    }

    /// Accuracy in per cent of the class read after each block.
    fn along_the_chain(&self, net: &NoPropDt<PaperBlock>) -> Result<Vec<f64>> {
        let mut right = Vec::with_capacity(self.size.blocks);
        for t in 1..=self.size.blocks {
            right.push(self.measure(|x, noise| net.read(&net.path(x, Chain::default(), noise)?[t]))?);
        }
        Ok(right)
    }

    /// Other predictions of the same blocks.
    fn controls(&mut self, net: &NoPropDt<PaperBlock>) -> Result<()> {
        let (quiet, back) = (Chain { quiet_end: true, ..Chain::default() }, Chain { reversed: true, ..Chain::default() });
        let right = self.measure(|x, noise| net.predict_by(x, 1, back, noise))?;
        self.record(REVERSED, Role::Control, right, None, None)?;
        let right = self.measure(|x, noise| net.predict(&x.mul_scalar(0.0)?, 1, noise))?;
        self.record("NoProp-DT, input zero", Role::Control, right, None, None)?;
        let right = self.measure(|x, noise| net.predict_by(x, 1, quiet, noise))?;
        self.record("NoProp-DT, no noise at the end", Role::Ablation, right, None, None)?;
        let right = self.measure(|x, noise| net.predict(x, 5, noise))?;
        self.record("NoProp-DT, mean of 5 chains", Role::Ablation, right, None, None)
    }

    fn ablations(&mut self, plain: Variant) -> Result<()> {
        let (one_hot, learned) = (Embedding::OneHot, Embedding::Learned { dim: 20 });
        if self.size.learned {
            self.discrete(LEARNED, Role::Ablation, &learned, plain)?;
        }
        if self.size.fixed_targets {
            let how = Variant { detach: true, ..plain };
            self.discrete(FIXED, Role::Ablation, &learned, how)?;
        }
        for &eta in self.size.etas {
            self.discrete(&format!("{DISCRETE}, eta {eta}"), Role::Ablation, &one_hot, Variant { eta, ..plain })?;
        }
        for &blocks in self.size.depths {
            let how = Variant { blocks, ..plain };
            self.discrete(&format!("{DISCRETE}, {blocks} blocks"), Role::Ablation, &one_hot, how)?;
        }
        Ok(())
    }

    /// The settings of continuous time and flow matching. The penalty of 1e-3 holds back narrow fully connected blocks, so
    /// it goes with the convolutions alone.
    fn adam(&self) -> Settings {
        let settings = Settings { batch: self.size.batch, ..Settings::continuous() };
        if self.size.net.0.is_some() { settings } else { Settings { rule: Rule::adam(), ..settings } }
    }

    fn continuous(&mut self) -> Result<()> {
        let classes = self.train.classes();
        let block = self.block(classes, true);
        let kinds: &[(&str, Role, Noise)] = &[
            (CONTINUOUS, Role::Method, Noise::default()),
            ("NoProp-CT, linear gamma", Role::Ablation, Noise::Linear { low: -3.0, high: 6.0 }),
        ];
        let gpu = &self.context.gpu.clone();
        for &(name, role, kind) in kinds.iter().take(if self.size.linear_gamma { 2 } else { 1 }) {
            let one_hot = &Embedding::OneHot;
            let mut net = NoPropCt::new(gpu, self.seed, classes, one_hot, kind, self.adam(), |s| block.build(s))?;
            let (label, epochs) = (format!("{name}, seed {}", self.seed), self.size.continuous_epochs);
            net.fit(self.train, epochs, |_, end| {
                let text = format!("epoch {}/{epochs}  loss {:.4}", end.epoch, end.losses[0]);
                self.context.watch.progress(&label, end.epoch as f64 / epochs as f64, &text);
                Ok(())
            })?;
            let steps = self.size.steps;
            let right = self.measure(|x, noise| net.predict(x, steps, Sampler::Stochastic, 1, noise))?;
            let quiet = self.measure(|x, noise| net.predict(x, steps, Sampler::Deterministic, 1, noise))?;
            let (weights, (x, labels)) = (net.arena().table().numel(), self.batch()?);
            let memory = working(gpu, || net.train_step(&x, &labels, Stream::new(self.seed, 0)).map(|_| ()))?;
            self.record(name, role, right, Some(memory), Some(weights))?;
            self.record(&format!("{name}, deterministic"), Role::Ablation, quiet, None, None)?;
        }
        Ok(())
    }

    fn flow(&mut self) -> Result<()> {
        let classes = self.train.classes();
        let block = self.block(classes, true);
        let gpu = &self.context.gpu.clone();
        let mut net =
            NoPropFm::new(gpu, self.seed, classes, &Embedding::OneHot, 0.0, self.adam(), |s| block.build(s))?;
        let (label, epochs) = (format!("{FLOW}, seed {}", self.seed), self.size.continuous_epochs);
        net.fit(self.train, epochs, |_, end| {
            let text = format!("epoch {}/{epochs}  loss {:.4}", end.epoch, end.losses[0]);
            self.context.watch.progress(&label, end.epoch as f64 / epochs as f64, &text);
            Ok(())
        })?;
        let right = self.measure(|x, noise| net.predict(x, self.size.steps, 1, noise))?;
        let (weights, (x, labels)) = (net.arena().table().numel(), self.batch()?);
        let memory = working(gpu, || net.train_step(&x, &labels, Stream::new(self.seed, 0)).map(|_| ()))?;
        self.record(FLOW, Role::Method, right, Some(memory), Some(weights))
    }
}

/// Passes on the progress and measures after the epochs that are asked for.
struct Told<'c, 'w, F> {
    context: &'c mut Context<'w>,
    label: &'c str,
    names: &'c [(&'c str, u64)],
    measure: F,
    right: Vec<f64>,
}

impl<F: Fn(&Arena) -> Result<f64>> Hooks for Told<'_, '_, F> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }

    fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
        if self.names.iter().any(|n| n.1 == end.epoch) {
            self.right.push((self.measure)(arena)?);
        }
        Ok(Flow::Continue)
    }
}

fn compare(outcome: &mut Outcome, size: &Size) {
    let at = "points (table 1, MNIST, one-hot)";
    let mut say = |claim: &str, metric: &str, arms: (&str, &str), expect: Expect, paper: &str| {
        outcome.compare(claim, metric, arms, expect, paper);
    };
    let better = format!("+0.01 {at}");
    say("blocks that learn alone do as well as back-propagated ones", ACCURACY, (DISCRETE, BLOCKS), Expect::Higher, &better);
    say("a step needs less memory", MEMORY, (DISCRETE, BLOCKS), Expect::Lower, "0.49 against 0.87 GB (MNIST)");
    let none = "no comparison in the paper";
    say("and do as well as a plain network", ACCURACY, (DISCRETE, PLAIN), Expect::Within(1.0), none);
    say("discrete time beats continuous time", ACCURACY, (DISCRETE, CONTINUOUS), Expect::Higher, &format!("+1.63 {at}"));
    say("flow matching beats continuous time", ACCURACY, (FLOW, CONTINUOUS), Expect::Higher, &format!("+1.37 {at}"));
    if size.longer > 1 {
        let claim = format!("also against {} times the training of those", size.longer);
        say(&claim, ACCURACY, (DISCRETE, LONGER), Expect::Higher, none);
    }
    if size.learned {
        let paper = "+0.02 points (table 1, MNIST, 20 numbers)";
        say("learned embeddings do as well as one-hot ones", ACCURACY, (LEARNED, DISCRETE), Expect::Within(1.0), paper);
    }
    if size.learned && size.fixed_targets {
        say("gradients through the targets draw learned embeddings together", ACCURACY, (FIXED, LEARNED), Expect::Higher, none);
    }
    say("the order of the blocks matters", ACCURACY, (DISCRETE, REVERSED), Expect::Higher, none);
}

fn notes(outcome: &mut Outcome, preset: Preset, size: &Size) {
    outcome.note(
        "The memory of a step is what it had in use beyond weights, moments and data, by the engine's own count; weights \
         are those of all blocks. An epoch of the blocks that learn alone is one pass over the data for each of them: as \
         many evaluations of a block as an epoch of the back-propagated ones.",
    );
    outcome.note(
        "The paper does not publish its cosine schedule, first values of the continuous schedule or of the baseline's gates; \
         they are chosen here: shares clamped to 0.001 and 0.999, gamma from 6 to -3, gates of one half.",
    );
    if preset != Preset::Full {
        outcome.note(format!(
            "Far smaller than the paper's: fully connected blocks of width {} (the paper's have three convolutions and width \
             256), {} epochs (100), predictions in {} steps in continuous time (1000).",
            size.net.1, size.epochs, size.steps
        ));
    }
}
