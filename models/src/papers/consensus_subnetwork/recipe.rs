//! A residual network with gates on its blocks, with and without price and polarization; gates that see no input, networks
//! of the same size from scratch, and blocks removed by the size of their weights.

use std::cell::RefCell;

use shadegrad::augment::Augment;
use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::rng::Philox;
use shadegrad::train::{EpochEnd, FitOptions, Flow, Hooks, Images, NoHooks, Progress, Trainer, evaluate};
use shadegrad::{Result, Tensor};

use super::{
    ConsensusLoss, GateConfig, GateForm, GateMeter, Gated, Keep, LossConfig, PrunableResNet, ResidualMlp, Shape, Unit, flops,
};
use crate::Spec;
use crate::papers::{Better, Context, Curves, Expect, Outcome, Preset, Role, describe};

/// An arm with gates.
struct Arm {
    name: &'static str,
    role: Role,
    free: bool,
    channels: bool,
    polar: f32,
    act: f32,
    target: Option<f32>,
}

const fn arm(name: &'static str, role: Role, polar: f32, act: f32, target: Option<f32>) -> Arm {
    Arm { name, role, free: false, channels: false, polar, act, target }
}

const BOTH: &str = "polar 2, price 2 above 0.5";
const PRICE: &str = "price 2 above 0.5";
const FREE: &str = "free gates, price 2 above 0.5";
const DENSE: &str = "whole network";
const SCRATCH: &str = "as many blocks from scratch";
const MAGNITUDE: &str = "blocks of least weight removed";

/// On a processor: the pilot's rows.
const SMALL: [Arm; 7] = [
    arm("gates only", Role::Ablation, 0.0, 0.0, None),
    arm("price 0.5", Role::Ablation, 0.0, 0.5, None),
    arm("polar 1, price 0.5", Role::Ablation, 1.0, 0.5, None),
    arm(PRICE, Role::Ablation, 0.0, 2.0, Some(0.5)),
    arm(BOTH, Role::Method, 2.0, 2.0, Some(0.5)),
    arm("polar 2, price 2 above 0.25", Role::Method, 2.0, 2.0, Some(0.25)),
    Arm { free: true, ..arm(FREE, Role::Control, 0.0, 2.0, Some(0.5)) },
];

/// On a GPU: the price is twice the polarization, which reaches the target.
const FULL: [Arm; 9] = [
    arm("gates only", Role::Ablation, 0.0, 0.0, None),
    arm(PRICE, Role::Ablation, 0.0, 2.0, Some(0.5)),
    arm("polar 1, price 2 above 0.75", Role::Method, 1.0, 2.0, Some(0.75)),
    arm(FULL_BOTH, Role::Method, 1.0, 2.0, Some(0.5)),
    arm("polar 1, price 2 above 0.25", Role::Method, 1.0, 2.0, Some(0.25)),
    arm("polar 2, price 4 above 0.5", Role::Ablation, 2.0, 4.0, Some(0.5)),
    Arm { free: true, ..arm(FREE, Role::Control, 0.0, 2.0, Some(0.5)) },
    Arm { channels: true, ..arm("channels, price 2 above 0.5", Role::Ablation, 0.0, 2.0, Some(0.5)) },
    Arm { channels: true, ..arm("channels, polar 1, price 2 above 0.5", Role::Method, 1.0, 2.0, Some(0.5)) },
];
const FULL_BOTH: &str = "polar 1, price 2 above 0.5";

const STATIC: &str = "static accuracy";
const DYNAMIC: &str = "gated accuracy";
const LOST: &str = "static - gated";
const AGREEMENT: &str = "agreement";

/// Network and training of a preset.
#[derive(Clone)]
struct Setting {
    net: Net,
    epochs: u64,
    batch: usize,
    lr: f32,
    hidden: usize,
    /// A tenth of the rate from 60 % on; else a cosine.
    step: bool,
    crop_flip: bool,
    /// Largest norm of the gradient; none if 0.
    clip: f32,
}

#[derive(Clone, Copy)]
enum Net {
    Mlp { inputs: usize, width: usize, blocks: usize, classes: usize },
    Conv(Spec, usize),
}

impl Net {
    fn make(self, scope: &mut Scope<'_>, shape: &Shape) -> Result<Box<dyn Module>> {
        Ok(match self {
            Self::Mlp { inputs, width, blocks, classes } => {
                Box::new(ResidualMlp::new(scope, shape, inputs, width, blocks, classes))
            }
            Self::Conv(spec, depth) => Box::new(PrunableResNet::new(scope, shape, &spec, depth)?),
        })
    }

    fn units(self, channels: bool) -> Result<Vec<Unit>> {
        match self {
            Self::Mlp { blocks, .. } => Ok(ResidualMlp::units(blocks)),
            Self::Conv(_, depth) if channels => PrunableResNet::channel_units(depth),
            Self::Conv(_, depth) => PrunableResNet::layer_units(depth),
        }
    }
}

impl Setting {
    fn of(context: &Context, train: &Images) -> Self {
        let [height, width, channels] = train.size();
        let (inputs, classes) = (height * width * channels, train.classes());
        let (epochs, blocks) = match (context.preset, context.has_data()) {
            (Preset::Smoke, _) => (3, 3),
            (_, false) => (16, 8),
            _ => (6, 8),
        };
        let mlp = Net::Mlp { inputs, width: 64, blocks, classes };
        match context.preset {
            Preset::Full => Self {
                net: Net::Conv(Spec { height, width, channels, classes }, 56),
                epochs: 160,
                batch: 128,
                lr: 0.1,
                hidden: 16,
                step: false,
                crop_flip: true,
                clip: 0.0,
            },
            _ => Self { net: mlp, epochs, batch: 100, lr: 0.05, hidden: 8, step: true, crop_flip: false, clip: 1.0 },
        }
    }

    fn optimizer(&self, arena: &Arena) -> Result<Optimizer> {
        let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 1e-4 };
        let optimizer = Optimizer::new(arena, rule)?;
        Ok(if self.clip > 0.0 { optimizer.clip_norm(self.clip) } else { optimizer })
    }

    fn rate(&self, step: u64, steps: u64) -> f32 {
        if self.step {
            schedule::multi_step(step, &[steps * 6 / 10], self.lr, 0.1)
        } else {
            schedule::cosine(step, steps, self.lr, 0.0)
        }
    }

    fn steps(&self, train: &Images) -> u64 {
        self.epochs * (train.len() as u64).div_ceil(self.batch as u64)
    }

    fn options(&self, train: &Images, seed: u64) -> FitOptions {
        let plain = train.normalise().clone();
        let augment = if self.crop_flip { Augment { pad: 4, flip: 0.5, ..plain } } else { plain };
        FitOptions { epochs: self.epochs, batch: self.batch, seed, augment: Some(augment), ..FitOptions::default() }
    }

    fn describe(&self) -> String {
        let net = match self.net {
            Net::Mlp { inputs, width, blocks, classes } => {
                format!("residual MLP {inputs}-{width}-{classes} with {blocks} gated blocks of width {width}")
            }
            Net::Conv(_, depth) => format!("ResNet-{depth} with gates on its blocks (or their inner channels)"),
        };
        let rate = if self.step { "a tenth of it from 60 % on" } else { "falling along a cosine" };
        format!(
            "{net}; SGD with momentum 0.9, decay 1e-4 and rate {}, {rate}{}, {} epochs of batches of {}",
            self.lr,
            if self.clip > 0.0 { ", gradients clipped to norm 1" } else { "" },
            self.epochs,
            self.batch
        )
    }
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let (train_n, test_n) = match context.preset {
        Preset::Smoke => (600, 360),
        Preset::Small => (5000, 4000),
        Preset::Full => (usize::MAX, usize::MAX),
    };
    let full = context.preset == Preset::Full;
    let pair = context.subset(train_n, test_n)?;
    let pair = if !full && pair.train.height >= 28 { pair.shrink(2)? } else { pair };
    let (train, test) = context.upload(&pair)?;
    let few = pair.test.subset_range(0..pair.test.len().min(1000))?;
    let few = Images::upload(&context.gpu, &few, &pair.train.channel_stats()?)?;
    let setting = Setting::of(context, &train);
    let mut outcome = Outcome::new(describe(&pair), setting.describe())
        .metric(STATIC, "%", Better::Higher, 2)
        .metric(DYNAMIC, "%", Better::Higher, 2)
        .metric(LOST, "points", Better::Higher, 2)
        .metric("remaining", "%", Better::Neither, 1)
        .metric(AGREEMENT, "%", Better::Higher, 2)
        .metric("R_polar", "", Better::Lower, 4)
        .metric("units kept", "", Better::Neither, 1)
        .metric("operations kept", "%", Better::Lower, 1);
    let (mut gap, mut undecided) = (Curves::default(), Curves::default());
    let (arms, main) = if full { (&FULL[..], FULL_BOTH) } else { (&SMALL[..], BOTH) };
    for seed in context.seeds.clone() {
        let mut found = Found { outcome: &mut outcome, gap: &mut gap, undecided: &mut undecided };
        let mut kept = None;
        for arm in arms {
            let keep = gated(context, &setting, arm, seed, (&train, &test, &few), &mut found)?;
            if arm.name == main {
                kept = Some(keep);
            }
        }
        let Some(kept) = kept else { continue };
        controls(context, &setting, &kept, seed, (&train, &test), &mut outcome)?;
    }
    let none = "the abstract gives no figure";
    outcome.compare(
        "half of it can go for less than a point",
        STATIC,
        (main, DENSE),
        Expect::Within(1.0),
        "CIFAR-10 and -100: less than 1 % for half of the connections (abstract)",
    );
    outcome.compare("polarization: the static network is the gated one", LOST, (main, PRICE), Expect::Higher, none);
    outcome.compare("polarization makes inputs agree", AGREEMENT, (main, PRICE), Expect::Higher, none);
    outcome.compare("it beats a network of its size from scratch", STATIC, (main, SCRATCH), Expect::Higher, none);
    outcome.compare("it beats gates that see no input", STATIC, (main, FREE), Expect::Higher, none);
    outcome.compare("it beats removing blocks of least weight", STATIC, (main, MAGNITUDE), Expect::Higher, none);
    outcome.note(
        "Remaining, agreement and R_polar are means over the test set; units are kept by the majority of the training set. \
         The price rises over the first fifth of the training.",
    );
    if !full {
        outcome.note(
            "Polarization as strong as the price holds gates open that most inputs want open: the target is missed on that \
             side: only a price above the polarization closes what is open. Six epochs, for the sake of time on a \
             processor. With last layers of the blocks that start at full He-normal size and gradients that are not \
             clipped, the whole network diverges at this rate, and gates close to keep it from that.",
        );
    }
    outcome.charts.push(gap.chart("Static less gated accuracy on 1000 test pictures", "epoch", "points"));
    outcome.charts.push(undecided.chart("Gates that are open for 5 to 95 % of the inputs", "epoch", "gates"));
    Ok(outcome)
}

/// Where arms leave what they measured.
struct Found<'o> {
    outcome: &'o mut Outcome,
    gap: &'o mut Curves,
    undecided: &'o mut Curves,
}

/// Trains an arm with gates, extracts its static network and measures both. Returns what was kept.
fn gated(
    context: &mut Context,
    setting: &Setting,
    arm: &Arm,
    seed: u64,
    (train, test, few): (&Images, &Images, &Images),
    found: &mut Found<'_>,
) -> Result<Keep> {
    let config = GateConfig {
        form: if arm.free { GateForm::Free } else { GateForm::Module(setting.hidden) },
        ..GateConfig::default()
    };
    let mut names = Builder::new();
    let net = setting.net;
    let model = Gated::new(&mut names, move |s, shape| net.make(s, shape), &net.units(arm.channels)?, config)?;
    let mut arena = Arena::new(&context.gpu, &names, seed)?;
    let mut optimizer = setting.optimizer(&arena)?;
    let one = train.plain(&[0])?.images;
    let costs = model.costs(&arena, &one)?.gates();
    let LossConfig { squared, ramp, .. } = LossConfig::default();
    let config = LossConfig { lambda_polar: arm.polar, lambda_act: arm.act, target: arm.target, squared, ramp };
    let loss = ConsensusLoss::new(&context.gpu, &costs, config)?;
    let steps = setting.steps(train);
    let meter = RefCell::new(model.meter());
    let label = format!("{}, seed {seed}", arm.name);
    let mut watch =
        Watching { context, model: &model, meter: &meter, test: few, label: &label, gap: Vec::new(), undecided: Vec::new() };
    Trainer::new(&model, &mut arena, &mut optimizer, |k| setting.rate(k, steps), setting.options(train, seed))
        .loss(|step| {
            let out = model.run(step.cx, &step.batch.images)?;
            meter.borrow_mut().push(&out.gates)?;
            step.cross_entropy(&out.logits)?.add(&loss.compute(&out.gates, step.step as f64 / steps as f64)?.total)
        })
        .fit(train, None, &mut watch)?;
    let Watching { gap, undecided, .. } = watch;
    let keep = model.consensus(&arena, train, 500)?.keep(0.5)?;
    let small = model.extract(&arena, &keep, &one)?;
    let dynamic = 100.0 * evaluate(&model, &Cx::eval(&arena), test, 500)?.accuracy;
    let fixed = 100.0 * evaluate(&small.model, &Cx::eval(&small.arena), test, 500)?.accuracy;
    let votes = model.consensus(&arena, test, 500)?;
    let (whole, left) = small.report.flops;
    context.watch.say(&format!(
        "{label}: gated {dynamic:.2} %, static {fixed:.2} % with {} of {} units",
        keep.kept_units(),
        keep.units.len()
    ));
    found.outcome.record(arm.name, arm.role, seed, &[
        (STATIC, fixed),
        (DYNAMIC, dynamic),
        (LOST, fixed - dynamic),
        ("remaining", 100.0 * votes.remaining(&costs)?),
        (AGREEMENT, 100.0 * votes.agreement().1),
        ("R_polar", votes.polar()),
        ("units kept", keep.kept_units() as f64),
        ("operations kept", 100.0 * left / whole),
    ])?;
    found.gap.push(arm.name, gap);
    found.undecided.push(arm.name, undecided);
    Ok(keep)
}

/// Looks at the gates and at the static network after every epoch.
struct Watching<'a, 'c, 'w> {
    context: &'c mut Context<'w>,
    model: &'a Gated<Box<dyn Module>>,
    meter: &'a RefCell<GateMeter>,
    test: &'a Images,
    label: &'a str,
    gap: Vec<f64>,
    undecided: Vec<f64>,
}

impl Hooks for Watching<'_, '_, '_> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }

    fn epoch(&mut self, _: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
        let votes = self.meter.borrow_mut().read()?;
        let cx = Cx::eval(arena);
        let accuracy = |model: &dyn Module| Ok::<_, shadegrad::Error>(100.0 * evaluate(model, &cx, self.test, 500)?.accuracy);
        self.gap.push(accuracy(&self.model.frozen(&votes.keep(0.5)?)?)? - accuracy(self.model)?);
        self.undecided.push(votes.undecided(0.05) as f64);
        Ok(Flow::Continue)
    }
}

/// The whole network, one as small as `kept` from scratch, and the whole one without its blocks of least weight.
fn controls(
    context: &mut Context,
    setting: &Setting,
    kept: &Keep,
    seed: u64,
    (train, test): (&Images, &Images),
    outcome: &mut Outcome,
) -> Result<()> {
    let one = train.plain(&[0])?.images;
    let work = |model: &dyn Module, arena: &Arena, x: &Tensor| {
        Ok::<_, shadegrad::Error>(flops(model, &Cx::eval(arena), x)?.iter().map(|l| l.1).sum::<f64>())
    };
    let units: Vec<&str> = kept.units.iter().map(String::as_str).collect();
    let gone = units.len() - kept.kept_units();
    let mut record = |name: &str, role, accuracy: f64, units: usize, operations: f64| {
        context.watch.say(&format!("{name}, seed {seed}: {accuracy:.2} %"));
        let figures =
            [(STATIC, accuracy), ("units kept", units as f64), ("operations kept", 100.0 * operations)];
        outcome.record(name, role, seed, &figures)
    };
    let (model, arena) = plain(&context.gpu, setting, &Shape::full(), seed, train)?;
    let whole = work(&model, &arena, &one)?;
    record(DENSE, Role::Baseline, percent(&model, &arena, test)?, units.len(), 1.0)?;

    // By the mean size of a block's weights, from the trained network.
    let state = arena.state()?;
    let mean_size = |scope: &str| {
        let own = state.iter().filter(|w| w.0.starts_with(&format!("{scope}.")) && w.1.len() > 1).flat_map(|w| &w.2);
        let (sum, n) = own.fold((0.0, 0.0f64), |(sum, n), v| (sum + f64::from(v.abs()), n + 1.0));
        sum / n.max(1.0)
    };
    let mut by_size = units.clone();
    by_size.sort_by(|a, b| mean_size(a).total_cmp(&mean_size(b)));
    let shape = Shape::full().without(by_size[..gone].iter().copied());
    let (model, small) = build(&context.gpu, setting, &shape, seed)?;
    let known = |name: &String| [small.table(), small.buffer_table()].iter().any(|t| t.find(name).is_some());
    small.load(&state.into_iter().filter(|w| known(&w.0)).collect::<Vec<_>>())?;
    let operations = work(&model, &small, &one)? / whole;
    record(MAGNITUDE, Role::Control, percent(&model, &small, test)?, units.len() - gone, operations)?;

    // Which blocks exist is drawn: they are all alike before training.
    let mut drawn = units.clone();
    let mut rng = Philox::new(seed, 0x434f_4e53);
    (1..drawn.len()).rev().for_each(|i| drawn.swap(i, rng.below(i as u32 + 1) as usize));
    let shape = Shape::full().without(drawn[..gone].iter().copied());
    let (model, small) = plain(&context.gpu, setting, &shape, seed, train)?;
    let operations = work(&model, &small, &one)? / whole;
    record(SCRATCH, Role::Control, percent(&model, &small, test)?, units.len() - gone, operations)
}

fn percent(model: &dyn Module, arena: &Arena, test: &Images) -> Result<f64> {
    Ok(100.0 * evaluate(model, &Cx::eval(arena), test, 500)?.accuracy)
}

type Built = (Box<dyn Module>, Arena);

fn build(gpu: &shadegrad::Gpu, setting: &Setting, shape: &Shape, seed: u64) -> Result<Built> {
    let mut names = Builder::new();
    let model = setting.net.make(&mut names.root(), shape)?;
    let arena = Arena::new(gpu, &names, seed)?;
    Ok((model, arena))
}

/// Trains a network without gates.
fn plain(gpu: &shadegrad::Gpu, setting: &Setting, shape: &Shape, seed: u64, train: &Images) -> Result<Built> {
    let (model, mut arena) = build(gpu, setting, shape, seed)?;
    let mut optimizer = setting.optimizer(&arena)?;
    let steps = setting.steps(train);
    Trainer::new(&model, &mut arena, &mut optimizer, |k| setting.rate(k, steps), setting.options(train, seed)).fit(
        train,
        None,
        &mut NoHooks,
    )?;
    Ok((model, arena))
}
