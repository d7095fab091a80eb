//! The experiment: one network, the kinds of its blocks and their order changed, nothing else.

use shadegrad::data::{DataPair, Dataset};
use shadegrad::nn::{Arena, Builder, Group};
use shadegrad::train::Mixing;
use shadegrad::Result;

use super::{Order, Pattern, SpectFormer, SpectFormerConfig};
use crate::Spec;
use crate::papers::{Better, Context, Curves, Expect, Outcome, Plan, Preset, Role, describe, train_on};

const LAST: &str = "test accuracy";
const OVER_ALL: &str = "mean over epochs";

/// A network, its training and the patterns of its blocks.
struct Setup {
    pair: DataPair,
    config: SpectFormerConfig,
    plan: Plan,
    /// The names of the arms that the comparisons are about.
    attention: String,
    mixed: String,
    spectral: String,
    inverse: Option<String>,
    /// All arms.
    arms: Vec<(String, Role, Pattern)>,
    notes: Vec<&'static str>,
}

/// Attention alone, `alpha` spectral blocks first, only spectral ones, and `alpha` spectral blocks last.
fn arms(depth: usize, alpha: usize, inverse: bool) -> Result<[Option<(String, Role, Pattern)>; 4]> {
    let arm = |alpha, order, role| -> Result<_> {
        let pattern = Pattern::new(depth, alpha, order)?;
        Ok(Some((pattern.to_string(), role, pattern)))
    };
    Ok([
        arm(0, Order::SpectralFirst, Role::Baseline)?,
        arm(alpha, Order::SpectralFirst, Role::Method)?,
        arm(depth, Order::SpectralFirst, Role::Control)?,
        if inverse { arm(alpha, Order::AttentionFirst, Role::Ablation)? } else { None },
    ])
}

impl Setup {
    fn new(pair: DataPair, config: SpectFormerConfig, plan: Plan, inverse: bool) -> Result<Self> {
        let all = arms(config.pattern.depth(), config.pattern.alpha(), inverse)?;
        let name = |i: usize| all[i].as_ref().map(|a| a.0.clone());
        Ok(Self {
            attention: name(0).unwrap_or_default(),
            mixed: name(1).unwrap_or_default(),
            spectral: name(2).unwrap_or_default(),
            inverse: name(3),
            arms: all.into_iter().flatten().collect(),
            pair,
            config,
            plan,
            notes: Vec::new(),
        })
    }
}

fn spec(data: &Dataset) -> Spec {
    Spec { height: data.height, width: data.width, channels: data.channels, classes: data.classes.len() }
}

/// The digits as 1,200 to train on and 597 to test, a larger test part than their own.
fn digits(pair: &DataPair) -> Result<DataPair> {
    let (train, rest) = pair.train.split_at(1200.min(pair.train.len()))?;
    let test = Dataset {
        images: [rest.images, pair.test.images.clone()].concat(),
        labels: [rest.labels, pair.test.labels.clone()].concat(),
        ..pair.test.clone()
    };
    DataPair::new(train, test)
}

fn setup(context: &Context) -> Result<Setup> {
    let of_digits = |pair: DataPair, epochs, inverse| {
        let tiny = SpectFormerConfig { patch: 1, dim: 32, heads: 2, ..SpectFormerConfig::tiny(&spec(&pair.train)) };
        let config = tiny.with_pattern("sa".parse()?);
        Setup::new(pair, config, Plan::adamw(epochs, 50, 3e-3, 0.05), inverse)
    };
    match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => of_digits(context.subset(400, 200)?, 4, false),
        (Preset::Small, false) => {
            let mut setup = of_digits(digits(&context.pair())?, 15, true)?;
            setup.notes.push("Two seeds do not rank the variants that have a spectral block; take five or more.");
            Ok(setup)
        }
        (Preset::Small, true) => {
            let pair = context.subset(1000, 500)?;
            let config = SpectFormerConfig { dim: 48, heads: 3, ..SpectFormerConfig::tiny(&spec(&pair.train)) };
            let plan = Plan { smoothing: 0.1, crop_flip: true, ..Plan::adamw(8, 32, 1e-3, 0.05) };
            let mut setup = Setup::new(pair, config, plan, true)?;
            setup.notes.push(
                "1,000 pictures, 8 epochs and a width of 48: sizes for a processor. Networks this small and this briefly \
                 trained say who learns faster, not who is better in the end.",
            );
            Ok(setup)
        }
        (Preset::Full, _) => {
            let pair = context.pair();
            let config = SpectFormerConfig::cifar(&spec(&pair.train));
            let plan = Plan {
                smoothing: 0.1,
                crop_flip: true,
                mixing: Mixing::Mixup(0.8),
                ..Plan::adamw(100, 128, 1e-3, 0.05)
            };
            let depth = config.pattern.depth();
            let mut setup = Setup::new(pair, config, plan, true)?;
            let six = Pattern::new(depth, 6, Order::SpectralFirst)?;
            setup.arms.push((six.to_string(), Role::Ablation, six));
            setup.notes.push("Mixup in every batch, without the paper's cutmix and RandAugment; the rate falls to 0.");
            Ok(setup)
        }
    }
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let setup = setup(context)?;
    let Setup { pair, config, plan, .. } = &setup;
    let (train, test) = context.upload(pair)?;
    let mut outcome = Outcome::new(
        describe(pair),
        format!(
            "{} blocks of width {}, {} heads, patches of {}; AdamW {} with decay 0.05, {} epochs of batches of {}",
            config.pattern.depth(),
            config.dim,
            config.heads,
            config.patch,
            plan.lr,
            plan.epochs,
            plan.batch
        ),
    )
    .metric(LAST, "%", Better::Higher, 2)
    .metric(OVER_ALL, "%", Better::Higher, 2)
    .metric("parameters", "", Better::Neither, 0)
    .metric("multiply-adds", "M", Better::Lower, 2)
    .metric("time per step", "ms", Better::Lower, 1);
    let mut curves = Curves::default();
    let steps = plan.epochs * (train.len() as u64).div_ceil(plan.batch as u64);
    for seed in context.seeds.clone() {
        for (name, role, pattern) in &setup.arms {
            let mut builder = Builder::new();
            let model = SpectFormer::new(&mut builder.root(), &config.clone().with_pattern(pattern.clone()))?;
            let macs = model.macs();
            let mut arena = Arena::new(&context.gpu, &builder, seed)?;
            // The filters decay like every tensor of more than one dimension; the positions, which are one, do not.
            arena.group("pos_embed", Group { weight_decay: 0.0, ..Group::default() })?;
            let done = train_on(
                context,
                name,
                seed,
                (&train, &test),
                plan,
                (model, arena),
                |step| step.cross_entropy(&step.logits()?),
                |_| Ok(()),
            )?;
            let mean = done.accuracy.iter().sum::<f64>() / done.accuracy.len().max(1) as f64;
            outcome.record(
                name,
                *role,
                seed,
                &[
                    (LAST, done.last()),
                    (OVER_ALL, mean),
                    ("parameters", done.parameters as f64),
                    ("multiply-adds", macs as f64 / 1e6),
                    ("time per step", 1e3 * done.seconds / steps as f64),
                ],
            )?;
            curves.push(name, done.accuracy);
        }
    }
    compare(&mut outcome, &setup);
    outcome.charts.push(curves.chart("Test accuracy", "epoch", "%"));
    Ok(outcome)
}

fn compare(outcome: &mut Outcome, setup: &Setup) {
    let Setup { attention, mixed, spectral, .. } = setup;
    let higher = Expect::Higher;
    outcome.compare(
        "spectral blocks first, attention later, is better than attention alone",
        LAST,
        (mixed, attention),
        higher,
        "claimed of ImageNet-1k (abstract); no figure for this size",
    );
    outcome.compare(
        "it learns faster",
        OVER_ALL,
        (mixed, attention),
        higher,
        "not claimed; what short runs are able to show",
    );
    outcome.compare(
        "spectral blocks first, attention later, is better than spectral blocks alone",
        LAST,
        (mixed, spectral),
        higher,
        "ImageNet-1k: 76.9, 80.2, 81.7, 82.1 % for T, XS, S, B against 74.6, 78.6, 80.0, 80.7 % of GFNets, which are smaller",
    );
    if let Some(inverse) = &setup.inverse {
        outcome.compare(
            "spectral blocks belong before attention, not after it",
            LAST,
            (mixed, inverse),
            higher,
            "claimed of ImageNet-1k; no figure for this size",
        );
    }
    outcome.note(
        "Arms are equal in depth and width, not in size: every spectral block has fewer parameters and multiply-adds than an \
         attention block.",
    );
    outcome.note("Time per step is by the clock, the evaluation after each epoch included.");
    for note in &setup.notes {
        outcome.note(*note);
    }
}
