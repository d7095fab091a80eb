//! Swin with the branch, without it, without it but as many parameters, and the branch alone: one training for all.

use shadegrad::augment::Mix;
use shadegrad::nn::Arena;
use shadegrad::nn::Builder;
use shadegrad::rng::Stream;
use shadegrad::train::{Minibatch, Step};
use shadegrad::{Result, Tensor};

use super::{LocalBranch, Swin, SwinConfig};
use crate::Spec;
use crate::papers::{Better, Context, Curves, Expect, Outcome, Plan, Preset, Role, describe, train_on};

const ACCURACY: &str = "test accuracy";
const EARLY: &str = "after 2 epochs";
const PARAMETERS: &str = "parameters";
const MACS: &str = "multiply-adds";
const GATE: &str = "mean gate";

const SWIN: &str = "swin";
const COSWIN: &str = "coswin";
const WIDE: &str = "swin-wide";
const ALONE: &str = "conv-only";

/// What sets one size of the experiment apart.
struct Size {
    train: usize,
    test: usize,
    config: SwinConfig,
    /// The width at which Swin has about as many parameters as CoSwin.
    wide: usize,
    plan: Plan,
    /// Half of the batches mixed, by cutmix and mixup alike.
    mixes: bool,
}

fn size(context: &Context, spec: &Spec) -> Size {
    let base = SwinConfig { drop_path: 0.0, ..SwinConfig::coswin(spec) };
    let plan = |epochs, batch, lr| Plan { decay_matrices_only: false, ..Plan::adamw(epochs, batch, lr, 0.05) };
    if context.preset == Preset::Full {
        let config = SwinConfig { embed: 48, depths: vec![2, 4, 2], drop_path: 0.1, ..base };
        let plan = Plan { smoothing: 0.1, crop_flip: true, ..plan(50, 128, 1e-3) };
        return Size { train: usize::MAX, test: usize::MAX, config, wide: 87, plan, mixes: true };
    }
    if context.has_data() {
        let config = SwinConfig { patch: 4, embed: 24, depths: vec![2, 2], heads: vec![2, 4], ..base };
        let plan = Plan { smoothing: 0.1, crop_flip: true, ..plan(8, 32, 1e-3) };
        return Size { train: 2000, test: 1000, config, wide: 44, plan, mixes: false };
    }
    let config = SwinConfig { patch: 1, embed: 16, depths: vec![2, 2], heads: vec![1, 2], ..base };
    let smoke = context.preset == Preset::Smoke;
    let (train, test, epochs) = if smoke { (600, 300, 3) } else { (usize::MAX, usize::MAX, 15) };
    Size { train, test, config, wide: 28, plan: plan(epochs, 50, 3e-3), mixes: false }
}

/// The four networks of a size.
fn arms(size: &Size) -> [(&'static str, Role, SwinConfig); 4] {
    let (full, none) = (size.config.clone(), LocalBranch::None);
    [
        (SWIN, Role::Baseline, SwinConfig { local: none, ..full.clone() }),
        (COSWIN, Role::Method, full.clone()),
        (WIDE, Role::Control, SwinConfig { local: none, embed: size.wide, ..full.clone() }),
        (ALONE, Role::Ablation, SwinConfig { attention: false, ..full }),
    ]
}

/// Streams of the run's seed from which mixing draws; the step is added.
const MIXING: u64 = 0x434f_5357_0000_0000;

/// Cross-entropy of a batch that is mixed with probability one half: cutmix or mixup with shares from `Beta(1, 1)`.
fn mixed_loss(step: &Step, classes: usize) -> Result<Tensor> {
    let stream = Stream::new(step.options.seed, MIXING + step.step);
    let draw = stream.philox().uniform_f64();
    // The draws of the mixing itself come from a stream of their own.
    let stream = Stream::new(step.options.seed ^ 1 << 63, MIXING + step.step);
    let images = &step.batch.images;
    let n = images.dim(0);
    let mix = match draw {
        d if d < 0.25 => Mix::cutmix(n, [images.dim(1), images.dim(2)], 1.0, stream)?,
        d if d < 0.5 => Mix::mixup(n, 1.0, stream)?,
        _ => return step.cross_entropy(&step.logits()?),
    };
    let batch = Minibatch {
        images: mix.apply(images)?,
        labels: step.batch.labels.clone(),
        soft: Some(mix.targets(&step.batch.labels, classes)?),
        indices: step.batch.indices.clone(),
    };
    let step = Step { batch: &batch, ..*step };
    step.cross_entropy(&step.logits()?)
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let whole = context.pair();
    let spec = Spec {
        height: whole.train.height,
        width: whole.train.width,
        channels: whole.train.channels,
        classes: whole.train.classes.len(),
    };
    let size = size(context, &spec);
    let pair = context.subset(size.train, size.test)?;
    let (train, test) = context.upload(&pair)?;
    let c = &size.config;
    let mut outcome = Outcome::new(
        describe(&pair),
        format!(
            "patches of {}, width {} ({} for {WIDE}), depths {:?}, heads {:?}, windows of {}; AdamW {} with decay 0.05 on all \
             parameters, batch {}, {} epochs",
            c.patch, c.embed, size.wide, c.depths, c.heads, c.window, size.plan.lr, size.plan.batch, size.plan.epochs
        ),
    )
    .metric(ACCURACY, "%", Better::Higher, 2)
    .metric(EARLY, "%", Better::Higher, 2)
    .metric(PARAMETERS, "", Better::Neither, 0)
    .metric(MACS, "M", Better::Neither, 2)
    .metric(GATE, "", Better::Neither, 3);
    let mut curves = Curves::default();
    for seed in context.seeds.clone() {
        for (name, role, config) in arms(&size) {
            let mut builder = Builder::new();
            let model = Swin::new(&mut builder.root(), &config)?;
            let arena = Arena::new(&context.gpu, &builder, seed)?;
            let loss = |step: &Step| {
                if size.mixes { mixed_loss(step, spec.classes) } else { step.cross_entropy(&step.logits()?) }
            };
            let data = (&train, &test);
            let run = train_on(context, name, seed, data, &size.plan, (model, arena), loss, |_| Ok(()))?;
            let early = run.accuracy[1.min(run.accuracy.len() - 1)];
            let mut values = vec![
                (ACCURACY, run.last()),
                (EARLY, early),
                (PARAMETERS, run.parameters as f64),
                (MACS, config.macs()? as f64 / 1e6),
            ];
            let gates = run.model.gates(&run.arena)?;
            if !gates.is_empty() {
                values.push((GATE, f64::from(gates.iter().sum::<f32>()) / gates.len() as f64));
            }
            outcome.record(name, role, seed, &values)?;
            curves.push(name, run.accuracy);
        }
    }
    outcome.compare(
        "the branch raises the accuracy of the same Swin",
        ACCURACY,
        (COSWIN, SWIN),
        Expect::Higher,
        "96.63 against 94.46 on CIFAR-10 at full size (its README and abstract)",
    );
    outcome.compare(
        "most of all early in training",
        EARLY,
        (COSWIN, SWIN),
        Expect::Higher,
        "about 65 against 50 after the first epoch (its curve)",
    );
    outcome.compare(
        "a Swin of as many parameters does not make up for it",
        ACCURACY,
        (COSWIN, WIDE),
        Expect::Higher,
        "not in the paper",
    );
    outcome.compare(
        "attention adds to what the branch does alone",
        ACCURACY,
        (COSWIN, ALONE),
        Expect::Higher,
        "not in the paper",
    );
    outcome.note(
        "The branch holds most of the parameters: the comparison at equal size is that with swin-wide, and conv-only, which has \
         no attention at all, tells how much of the result is the convolutions'.",
    );
    outcome.note("The mean gate is that of sigmoid(w) over the blocks; it starts at 0.622.");
    match context.preset {
        Preset::Full => outcome.note(
            "One pass over the data an epoch, 50 epochs, width 48; the paper has 300 passes, width 96, and AutoAugment and \
             random erasing besides.",
        ),
        _ if context.has_data() => outcome.note(
            "Chosen for a processor: 2,000 pictures, 8 epochs, batches of 32; crops and mirror images only.",
        ),
        _ => outcome.note("On the digits, without augmentation: a check that the parts work together."),
    }
    outcome.charts.push(curves.chart("Test accuracy", "epoch", "%"));
    Ok(outcome)
}
