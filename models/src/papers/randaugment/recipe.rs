//! One network under more and more augmentation; the two integers chosen on a validation set.

use std::time::Instant;

use shadegrad::augment::{Augment, Fill};
use shadegrad::data::Dataset;
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, Cx, Linear, Module, Scope};
use shadegrad::optim::Rule;
use shadegrad::train::{Images, evaluate};
use shadegrad::{CrossEntropy, Result, Tensor};

use super::{GridReport, Op, Pipeline, Preset as Scale, RandAugment, grid_search};
use crate::papers::{
    Better, Chart, Context, Curves, Expect, Outcome, Picture, Plan, Preset, Role, Trained, describe, train_on,
};
use crate::{Spec, WideResNet, conv};

const TEST: &str = "test accuracy";
const TRAIN: &str = "accuracy on the training set";
const GAP: &str = "training less test accuracy";
const SPEED: &str = "augmentation";
const STEP: &str = "training step";

const NONE: &str = "none";
const BASE: &str = "crop and mirror image";
const CUTOUT: &str = "and Cutout";
const OURS: &str = "and RandAugment";
const LINEAR: &str = "and RandAugment, Linear31";
const VARIED: &str = "and RandAugment, M drawn";

/// Four convolutions of 16, 32, 64 and 64 channels with batch norm and ReLU, the last three halving the image, a linear
/// layer on the mean over all pixels.
struct SmallNet {
    blocks: Vec<(Conv2d, BatchNorm2d)>,
    head: Linear,
}

impl SmallNet {
    fn new(scope: &mut Scope<'_>, spec: &Spec) -> Self {
        let mut channels = spec.channels;
        let mut block = |(i, (next, stride)): (usize, (usize, usize))| {
            let made = conv(scope, format!("conv{i}"), channels, next, 3, stride);
            channels = next;
            (made, BatchNorm2d::new(&mut scope.sub(format!("bn{i}")), next))
        };
        let blocks = [(16, 1), (32, 2), (64, 2), (64, 2)].into_iter().enumerate().map(&mut block).collect();
        Self { blocks, head: Linear::new(&mut scope.sub("fc"), 64, spec.classes, true) }
    }
}

impl Module for SmallNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, norm) in &self.blocks {
            x = norm.forward_relu(cx, &conv.forward(cx, &x)?)?;
        }
        self.head.forward(cx, &x.global_avg_pool()?)
    }
}

struct Setting {
    /// Pictures to train on, to choose by, to test on.
    pictures: [usize; 3],
    plan: Plan,
    wide: bool,
    /// Padding before the crop, probability of the mirror image, side of the hole.
    after: (usize, f32, usize),
    ns: Vec<usize>,
    ms: Vec<f32>,
}

fn setting(context: &Context) -> Setting {
    let plan = |epochs, batch, lr| Plan {
        rule: Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true, weight_decay: 5e-4 },
        warmup: 0.0,
        clip_norm: 0.0,
        decay_matrices_only: false,
        ..Plan::adamw(epochs, batch, lr, 0.0)
    };
    match (context.preset, context.has_data()) {
        (Preset::Full, _) => Setting {
            pictures: [usize::MAX; 3],
            plan: plan(100, 128, 0.1),
            wide: true,
            after: (4, 0.5, 16),
            ns: vec![1, 2, 3],
            ms: vec![2.0, 5.0, 9.0, 14.0],
        },
        (Preset::Small, true) => Setting {
            pictures: [500, 250, 500],
            plan: plan(12, 64, 0.05),
            wide: false,
            after: (4, 0.5, 8),
            ns: vec![1, 2],
            ms: vec![2.0, 9.0],
        },
        // Digits are not mirrored.
        (preset, _) => Setting {
            pictures: [400, 200, 360],
            plan: plan(if preset == Preset::Smoke { 2 } else { 20 }, 50, 0.05),
            wide: false,
            after: (1, 0.0, 2),
            ns: vec![1, 2],
            ms: if preset == Preset::Smoke { vec![2.0] } else { vec![2.0, 5.0, 9.0] },
        },
    }
}

/// What an arm does to a picture.
#[derive(Clone)]
struct How {
    name: String,
    role: Role,
    policy: Option<RandAugment>,
    after: Augment,
}

/// What the arms share.
struct Bench {
    plan: Plan,
    spec: Spec,
    wide: bool,
}

impl Bench {
    fn train(
        &self,
        context: &mut Context,
        how: &How,
        seed: u64,
        (train, test): (&Images, &Images),
    ) -> Result<(Trained<Box<dyn Module>>, Pipeline)> {
        let mut builder = Builder::new();
        let model: Box<dyn Module> = if self.wide {
            Box::new(WideResNet::new(&mut builder.root(), &self.spec, 16, 4, 0.0)?)
        } else {
            Box::new(SmallNet::new(&mut builder.root(), &self.spec))
        };
        let arena = Arena::new(&context.gpu, &builder, seed)?;
        let pipeline = Pipeline::new(train, how.policy.clone(), how.after.clone())?;
        let trained = train_on(
            context,
            &how.name,
            seed,
            (train, test),
            &self.plan,
            (model, arena),
            |step| {
                let images = pipeline.batch(&step.batch.indices, seed, step.epoch)?;
                step.cross_entropy(&step.model.forward(step.cx, &images)?)
            },
            |_| Ok(()),
        )?;
        Ok((trained, pipeline))
    }
}

/// Pictures a second that a pipeline makes, and that the training step without it takes: the best of several rounds, since
/// whatever else the machine does only adds time. The device is waited for at the end of a round.
fn speeds(bench: &Bench, done: &Trained<Box<dyn Module>>, pipeline: &Pipeline, train: &Images) -> Result<(f64, f64)> {
    let ids: Vec<u32> = (0..train.len().min(bench.plan.batch) as u32).collect();
    let images = pipeline.batch(&ids, 0, 0)?;
    let mut arena = done.arena.fork()?;
    let mut optimizer = bench.plan.optimizer(&mut arena)?;
    let labels: Vec<u32> = ids.iter().map(|&i| train.labels()[i as usize]).collect();
    let labels = Tensor::from_u32(arena.gpu(), &labels, &[labels.len()])?;
    let made = fastest(ids.len(), || pipeline.batch(&ids, 0, 1)?.slice(0, 0, 1, 1))?;
    let trained = fastest(ids.len(), || {
        let logits = done.model.forward(&Cx::train(&arena), &images)?;
        let loss = logits.cross_entropy(&labels, CrossEntropy::default())?;
        arena.backward(&loss)?;
        optimizer.step(&arena, 1e-4)?;
        Ok(loss)
    })?;
    Ok((made, trained))
}

/// Samples a second of `work` on `samples` of them.
fn fastest(samples: usize, mut work: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    const TIMES: usize = 3;
    work()?.to_vec()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begin = Instant::now();
        for _ in 1..TIMES {
            work()?;
        }
        work()?.to_vec()?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    Ok((TIMES * samples) as f64 / best.max(1e-9))
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let Setting { pictures: [train, validation, test], plan, wide, after: (pad, flip, hole), ns, ms } =
        setting(context);
    let pair = context.subset(train.saturating_add(validation), test)?;
    // A tenth where all are taken, as the paper's 5,000 of 50,000.
    let share = if train == usize::MAX { 0.1 } else { validation as f64 / (train + validation) as f64 };
    let (fit, choose) = pair.train.split(share, 0)?;
    // The paper trains on everything once N and M are chosen; the small runs leave the pictures to choose by aside.
    let last = if wide { &pair.train } else { &fit };
    let stats = fit.channel_stats()?;
    let upload = |d: &Dataset| Images::upload(&context.gpu, d, &stats);
    let (fit_set, choose_set, test_set, last_set) = (upload(&fit)?, upload(&choose)?, upload(&pair.test)?, upload(last)?);
    let d = &pair.train;
    let spec = Spec { height: d.height, width: d.width, channels: d.channels, classes: d.classes.len() };
    let bench = Bench { plan, spec, wide };

    let plain = fit_set.normalise().clone();
    let crop = Augment { pad, fill: Fill::Mean, flip, ..plain.clone() };
    let cutout = Augment { cutout: hole, ..crop.clone() };
    // The paper's runs have Cutout under everything.
    let under = if wide { cutout.clone() } else { crop.clone() };
    let how = |name: &str, role: Role, policy: Option<RandAugment>, after: &Augment| How {
        name: name.into(),
        role,
        policy,
        after: after.clone(),
    };
    let policy = |n: usize, m: f32| RandAugment::extrapolated(n, m, Scale::AutoAugCifar);
    let seed = context.seeds.first().copied().unwrap_or(0);
    let grid = grid_search(&ns, &ms, |n, m| {
        let arm = how(&format!("N = {n}, M = {m}"), Role::Method, Some(policy(n, m)?), &under);
        Ok(bench.train(context, &arm, seed, (&fit_set, &choose_set))?.0.last() as f32)
    })?;
    let (n, m) = grid.best;
    let mut arms = vec![
        how(NONE, Role::Control, None, &plain),
        how(BASE, Role::Baseline, None, &crop),
        how(CUTOUT, Role::Baseline, None, &cutout),
        how(OURS, Role::Method, Some(policy(n, m)?), &under),
        how(LINEAR, Role::Ablation, Some(RandAugment::extrapolated(n, 3.0 * m, Scale::Linear31)?), &under),
    ];
    if wide {
        arms.push(how(VARIED, Role::Ablation, Some(policy(n, m)?.varied()), &under));
        for left_out in Op::ALL {
            let rest: Vec<Op> = Op::ALL.into_iter().filter(|&op| op != left_out).collect();
            arms.push(how(&without(left_out), Role::Ablation, Some(policy(n, m)?.with_ops(&rest)?), &under));
        }
    }
    let name = if wide { "WRN-16-4" } else { "four convolutions of 16, 32, 64 and 64 channels" };
    let about = format!(
        "{name}; {} epochs of batches of {}, SGD with Nesterov momentum {} and decay 5e-4, cosine; {pad} pixels of padding, \
         holes of {hole}; N = {n}, M = {m} by {} ({} pictures to choose by)",
        bench.plan.epochs,
        bench.plan.batch,
        bench.plan.lr,
        Scale::AutoAugCifar.name(),
        choose.len(),
    );
    let described = shadegrad::data::DataPair::new(last.clone(), pair.test.clone())?;
    let mut outcome = Outcome::new(describe(&described), about)
        .metric(TEST, "%", Better::Higher, 2)
        .metric(TRAIN, "%", Better::Neither, 2)
        .metric(GAP, "points", Better::Lower, 2)
        .metric(SPEED, "pictures/s", Better::Higher, 0)
        .metric(STEP, "pictures/s", Better::Neither, 0);
    let mut accuracy = Curves::default();
    for seed in context.seeds.clone() {
        for arm in &arms {
            let (done, pipeline) = bench.train(context, arm, seed, (&last_set, &test_set))?;
            let own = 100.0 * evaluate(&done.model, &done.cx(), &last_set, 256)?.accuracy;
            let (made, step) = speeds(&bench, &done, &pipeline, &last_set)?;
            let row = [(TEST, done.last()), (TRAIN, own), (GAP, own - done.last()), (SPEED, made), (STEP, step)];
            outcome.record(&arm.name, arm.role, seed, &row)?;
            accuracy.push(&arm.name, done.accuracy);
        }
    }
    compare(&mut outcome, wide);
    outcome.note(grid_in_words(&grid));
    outcome.note(
        "The speeds are the best of three rounds of batches as in training; that of the augmentation includes normalising, \
         crop and mirror image.",
    );
    if context.preset == Preset::Small && context.has_data() {
        outcome.note(
            "500 pictures and 12 epochs, for the sake of time on a processor; 250 others to choose N and M by, with one seed: \
             pairs that differ by less than four points there are alike.",
        );
    }
    if !context.has_data() {
        outcome.note("On 8x8 pictures equalising does nothing (fewer than 255 pixels), and digits are not mirrored.");
    }
    outcome.charts = vec![accuracy.chart("Test accuracy", "epoch", "%"), grid_chart(&grid)];
    outcome.pictures = vec![sheet(&fit_set, n.max(1))?];
    Ok(outcome)
}

fn without(op: Op) -> String {
    format!("and RandAugment without {op:?}")
}

fn compare(outcome: &mut Outcome, wide: bool) {
    let paper = "CIFAR-10, WRN-28-10, over crop, mirror image and Cutout: 96.1 to 97.3 %";
    outcome.compare(
        "RandAugment improves on the usual augmentation",
        TEST,
        (OURS, if wide { CUTOUT } else { BASE }),
        Expect::Higher,
        paper,
    );
    outcome.compare("it narrows the gap to the training set", GAP, (OURS, BASE), Expect::Lower, "no figure");
    outcome.compare("crop and mirror image help", TEST, (BASE, NONE), Expect::Higher, "no figure");
    outcome.compare("another scale does as well", TEST, (LINEAR, OURS), Expect::Within(2.0), "no figure");
    if wide {
        let about = "within about 0.1 points";
        outcome.compare("a constant strength does as well as a drawn one", TEST, (VARIED, OURS), Expect::Within(0.3), about);
        for op in [Op::Rotate, Op::ShearX, Op::ShearY, Op::TranslateX, Op::TranslateY] {
            let claim = format!("{op:?} is worth having");
            outcome.compare(&claim, TEST, (OURS, &without(op)), Expect::Higher, "geometric ones carry most of the gain");
        }
    }
}

fn grid_in_words(grid: &GridReport) -> String {
    let rows: Vec<String> = grid.table.iter().map(|(n, m, a)| format!("N = {n}, M = {m}: {a:.1} %")).collect();
    format!("Validation accuracy over the grid: {}.", rows.join("; "))
}

fn grid_chart(grid: &GridReport) -> Chart {
    let mut chart = Chart::lines("Choosing N and M", "M", "validation accuracy, %");
    let mut ns: Vec<usize> = grid.table.iter().map(|r| r.0).collect();
    ns.dedup();
    for n in ns {
        let points = grid.table.iter().filter(|r| r.0 == n).map(|r| (f64::from(r.1), f64::from(r.2))).collect();
        chart.push(&format!("N = {n}"), points);
    }
    chart
}

/// Rows of the same eight pictures: as they are, then at rising strength.
fn sheet(data: &Images, n: usize) -> Result<Picture> {
    const COLUMNS: usize = 8;
    let [h, w, c] = data.size();
    let ids: Vec<u32> = (0..data.len().min(COLUMNS) as u32).collect();
    let on = shadegrad::pixels::PixelOps::new(data.pixels().gpu())?;
    let strengths = [None, Some(2.0), Some(5.0), Some(9.0)];
    let (width, height) = (COLUMNS * (w + 1) - 1, strengths.len() * (h + 1) - 1);
    let mut rgb = vec![255; 3 * width * height];
    for (row, strength) in strengths.into_iter().enumerate() {
        let policy = RandAugment::new(if strength.is_some() { n } else { 0 }, strength.unwrap_or(0.0), Scale::AutoAugCifar)?;
        let bytes = policy.apply_batch(&on, data.pixels(), &ids, 0, 0)?.bytes(false)?.to_bytes()?;
        for (i, pixel) in bytes.chunks(c).enumerate() {
            let (column, y, x) = (i / (h * w), i / w % h, i % w);
            let at = 3 * ((row * (h + 1) + y) * width + column * (w + 1) + x);
            for k in 0..3 {
                rgb[at + k] = pixel[k.min(c - 1)];
            }
        }
    }
    Ok(Picture {
        title: format!("As they are, and after N = {n} operations of strength M = 2, 5, 9"),
        width,
        height,
        rgb,
    })
}
