//! A small perceptron taught by a larger one in five ways, and alone; accuracy and calibration of both.

use shadegrad::data::{DataPair, Dataset};
use shadegrad::nn::{Arena, Builder, Module};
use shadegrad::optim::Rule;
use shadegrad::train::{Images, evaluate};
use shadegrad::{Error, Result};

use super::{BdKd, BdKdConfig, Calibration, Learner, Mode, OnlineDistiller, TemperatureScaler};
use crate::papers::shared::mlp::HeMlp;
use crate::papers::{Better, Context, Curves, Expect, Outcome, Preset, Role, describe};
use crate::{CifarResNet, Spec};

/// An arm: its name, what it is for, what the student learns, and nu.
const VARIANTS: [(&str, Role, Mode, f32); 6] = [
    ("labels only", Role::Baseline, Mode::LabelsOnly, 1.0),
    ("forward", Role::Baseline, Mode::Forward, 1.0),
    ("reverse", Role::Ablation, Mode::Reverse, 1.0),
    ("both", Role::Control, Mode::Both, 1.0),
    ("balanced, nu 2", Role::Method, Mode::Balanced, 2.0),
    ("balanced, nu 3", Role::Ablation, Mode::Balanced, 3.0),
];

const BINS: usize = 15;
const ACCURACY: &str = "student accuracy";
const ECE: &str = "student ECE";

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let (train_n, test_n, batch, epochs) = match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => (600, 360, 50, 4),
        (Preset::Small, false) => (1437, 360, 50, 16),
        (Preset::Small, true) => (6600, 4000, 100, 16),
        (Preset::Full, _) => (usize::MAX, usize::MAX, 128, 100),
    };
    let full = context.preset == Preset::Full;
    let pair = context.subset(train_n, test_n)?;
    let pair = if !full && pair.train.height >= 32 { pair.shrink(2)? } else { pair };
    let (train, held_out) = hold_out(&pair.train)?;
    let pair = DataPair::new(train, pair.test)?;
    let (train, test) = context.upload(&pair)?;
    let held_out = Images::upload(&context.gpu, &held_out, &pair.train.channel_stats()?)?;
    let inputs: usize = train.size().iter().product();
    let (lr, drops, networks) = if full {
        (0.1, [epochs / 2, epochs * 3 / 4], "ResNet-56 teaches ResNet-8".to_string())
    } else {
        let c = train.classes();
        (0.02, [epochs * 9 / 16, epochs * 13 / 16], format!("MLP {inputs}-256-128-{c} teaches MLP {inputs}-32-32-{c}"))
    };
    let mut outcome = Outcome::new(
        describe(&pair),
        format!(
            "{networks}; SGD with momentum 0.9, decay 5e-4 and rate {lr}, a tenth from epochs {drops:?} on, {epochs} epochs \
             of batches of {batch}"
        ),
    )
    .metric(ACCURACY, "%", Better::Higher, 2)
    .metric(ECE, "%", Better::Lower, 2)
    .metric("student NLL", "", Better::Lower, 3)
    .metric("student overconfidence", "%", Better::Neither, 2)
    .metric("best temperature", "", Better::Neither, 2)
    .metric("ECE at it", "%", Better::Lower, 2)
    .metric("teacher accuracy", "%", Better::Higher, 2)
    .metric("teacher ECE", "%", Better::Lower, 2);
    let (mut accuracy, mut sharper) = (Curves::default(), Curves::default());
    for seed in context.seeds.clone() {
        for (name, role, mode, nu) in VARIANTS {
            let (mut large, mut small) = (Builder::new(), Builder::new());
            let (teacher, student) = if full {
                (resnet(&mut large, &train, 56)?, resnet(&mut small, &train, 8)?)
            } else {
                (mlp(&mut large, &[inputs, 256, 128, train.classes()]), mlp(&mut small, &[inputs, 32, 32, train.classes()]))
            };
            let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 5e-4 };
            let mut both = OnlineDistiller {
                teacher: Learner::new(teacher.as_ref(), Arena::new(&context.gpu, &large, seed)?, rule)?,
                // Another seed: two networks of one shape must not begin alike.
                student: Learner::new(student.as_ref(), Arena::new(&context.gpu, &small, seed + 1000)?, rule)?,
                loss: BdKd::new(BdKdConfig { nu, mode, ..BdKdConfig::default() })?,
            };
            let rate = |step: u64, steps: u64| {
                let epoch = step * epochs / steps.max(1);
                lr * 0.1f32.powi(drops.iter().filter(|&&d| epoch >= d).count() as i32)
            };
            let (mut curve, mut shares) = (Vec::new(), Vec::new());
            let label = format!("{name}, seed {seed}");
            both.fit(&train, epochs, batch, seed, rate, |pair, now| {
                curve.push(100.0 * evaluate(student.as_ref(), &pair.student.eval(), &test, 500)?.accuracy);
                shares.push(100.0 * now.sharper);
                let text = format!("loss {:.3} (teacher {:.3})", now.student, now.teacher);
                context.watch.progress(&label, now.epoch as f64 / epochs as f64, &text);
                Ok(())
            })?;
            let scores = |l: &Learner, data: &Images| Ok::<_, Error>(evaluate(l.model, &l.eval(), data, 500)?.logits);
            let measure = |logits: &[f32]| Calibration::from_logits(logits, test.classes(), test.labels(), BINS);
            let logits = scores(&both.student, &test)?;
            let (student, teacher) = (measure(&logits)?, measure(&scores(&both.teacher, &test)?)?);
            let apart = scores(&both.student, &held_out)?;
            let scaler = TemperatureScaler::fit(&apart, held_out.classes(), held_out.labels())?;
            let scaled = measure(&scaler.apply(&logits))?;
            context.watch.say(&format!(
                "{label}: student {:.2} % with ECE {:.2} %, teacher {:.2} %",
                100.0 * student.accuracy(),
                100.0 * student.ece(),
                100.0 * teacher.accuracy()
            ));
            outcome.record(name, role, seed, &[
                (ACCURACY, 100.0 * student.accuracy()),
                (ECE, 100.0 * student.ece()),
                ("student NLL", student.nll()),
                ("student overconfidence", 100.0 * student.overconfidence()),
                ("best temperature", scaler.temperature()),
                ("ECE at it", 100.0 * scaled.ece()),
                ("teacher accuracy", 100.0 * teacher.accuracy()),
                ("teacher ECE", 100.0 * teacher.ece()),
            ])?;
            accuracy.push(name, curve);
            sharper.push(name, shares);
        }
    }
    let (ours, none) = ("balanced, nu 2", "the abstract gives no figure");
    outcome.compare("the student is better calibrated", ECE, (ours, "labels only"), Expect::Lower, none);
    outcome.compare("the student is more accurate", ACCURACY, (ours, "labels only"), Expect::Higher, none);
    outcome.compare("balancing beats the forward divergence", ACCURACY, (ours, "forward"), Expect::Higher, none);
    outcome.compare("balancing calibrates better than both unweighted", ECE, (ours, "both"), Expect::Lower, none);
    outcome.compare("the reverse divergence alone calibrates less", ECE, ("reverse", ours), Expect::Higher, none);
    outcome.note("Temperature and nu of the paper are not published in its abstract; nu 2 and 3 at temperature 1 here.");
    outcome.charts.push(accuracy.chart("Test accuracy of the student", "epoch", "%"));
    outcome.charts.push(sharper.chart("Samples for which the student is sharper than the teacher", "epoch", "%"));
    Ok(outcome)
}

/// Splits off an eleventh, of every class, to fit temperatures on.
fn hold_out(data: &Dataset) -> Result<(Dataset, Dataset)> {
    data.split(1.0 / 11.0, 0)
}

fn mlp(names: &mut Builder, widths: &[usize]) -> Box<dyn Module> {
    Box::new(HeMlp::new(&mut names.root(), widths))
}

fn resnet(names: &mut Builder, data: &Images, depth: usize) -> Result<Box<dyn Module>> {
    let [height, width, channels] = data.size();
    let spec = Spec { height, width, channels, classes: data.classes() };
    Ok(Box::new(CifarResNet::new(&mut names.root(), &spec, depth)?))
}
