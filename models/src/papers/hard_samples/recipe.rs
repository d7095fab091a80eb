//! Fixed order, shuffled, hardest, random and easiest batches at equal numbers of updates.

use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{Images, evaluate};
use shadegrad::{CrossEntropy, Result};

use super::{BatchPlan, HardBatches, HardBatchesConfig, Policy, Stats};
use crate::papers::{Better, Chart, Context, Curves, Expect, Outcome, Preset, Role, describe};
use crate::papers::shared::mlp::HeMlp;
use crate::{CifarResNet, Spec};

/// An arm: its name, what it is for, the policy, delta, and whether the batches are cut anew after each pass.
type Variant = (&'static str, Role, fn(u64) -> Policy, f64, bool);

const VARIANTS: [Variant; 7] = [
    ("fixed order", Role::Baseline, |_| Policy::All, 1.0, false),
    ("shuffled", Role::Control, |_| Policy::All, 1.0, true),
    ("hardest 0.8", Role::Method, |_| Policy::Highest, 0.8, false),
    ("hardest 0.5", Role::Method, |_| Policy::Highest, 0.5, false),
    ("hardest 0.2", Role::Method, |_| Policy::Highest, 0.2, false),
    ("random 0.5", Role::Control, Policy::Random, 0.5, false),
    ("easiest 0.5", Role::Control, |_| Policy::Lowest, 0.5, false),
];

/// Share of its own best accuracy at which a run has generalised.
const GENERALISED: f64 = 0.99;

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let (train_n, test_n, batch, epochs) = match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => (1000, 360, 50, 4),
        (Preset::Small, true) => (5000, 2000, 64, 15),
        (Preset::Small, false) => (1437, 360, 32, 15),
        (Preset::Full, _) => (usize::MAX, usize::MAX, 128, 50),
    };
    let pair = context.subset(train_n, test_n)?;
    let (train, test) = context.upload(&pair)?;
    let full = context.preset == Preset::Full;
    let [h, w, c] = train.size();
    let network = if full { "ResNet-20".to_string() } else { format!("MLP {}-192-96-{}", h * w * c, train.classes()) };
    let mut outcome = Outcome::new(
        describe(&pair),
        format!("{network}, SGD with rate 0.005 and momentum 0.9, batches of {batch}, updates of {epochs} epochs"),
    )
    .metric("best test accuracy", "%", Better::Higher, 2)
    .metric("epochs to 99 % of it", "", Better::Lower, 1)
    .metric("final training loss", "", Better::Lower, 3)
    .metric("Gini of visits", "", Better::Neither, 3);
    let mut curves = Curves::default();
    let mut visits = Chart::lines("How often each batch was trained on, first seed", "batch, by falling visits", "visits");
    for seed in context.seeds.clone() {
        for (name, role, policy, delta, reshuffle) in VARIANTS {
            let mut names = Builder::new();
            let model: Box<dyn Module> = if full {
                let spec = Spec { height: h, width: w, channels: c, classes: train.classes() };
                Box::new(CifarResNet::new(&mut names.root(), &spec, 20)?)
            } else {
                Box::new(HeMlp::new(&mut names.root(), &[h * w * c, 192, 96, train.classes()]))
            };
            let arena = Arena::new(&context.gpu, &names, seed)?;
            let mut accuracy = Vec::new();
            let label = format!("{name}, seed {seed}");
            let how = How { policy: policy(seed), delta, reshuffle, batch, epochs, seed };
            let stats = train_by(&how, model.as_ref(), &arena, &train, |done| {
                accuracy.push(100.0 * evaluate(&model, &Cx::eval(&arena), &test, 500)?.accuracy);
                context.watch.progress(&label, done, &format!("test accuracy {:.2} %", accuracy[accuracy.len() - 1]));
                Ok(())
            })?;
            let best = accuracy.iter().copied().fold(0.0, f64::max);
            let reached = accuracy.iter().position(|&a| a >= GENERALISED * best).map_or(f64::NAN, |i| (i + 1) as f64);
            let loss = evaluate(&model, &Cx::eval(&arena), &train, 500)?.loss;
            context.watch.say(&format!("{label}: best test accuracy {best:.2} %, final training loss {loss:.3}"));
            outcome.record(name, role, seed, &[
                ("best test accuracy", best),
                ("epochs to 99 % of it", reached),
                ("final training loss", loss),
                ("Gini of visits", stats.gini()),
            ])?;
            curves.push(name, accuracy);
            if Some(&seed) == context.seeds.first() && !reshuffle {
                let mut v = stats.visits.clone();
                v.sort_unstable_by(|a, b| b.cmp(a));
                visits.push(name, v.iter().enumerate().map(|(i, &n)| (i as f64, f64::from(n))).collect());
            }
        }
    }
    let (accuracy, loss) = ("best test accuracy", "final training loss");
    let mixed = "CIFAR-10: 69.2 against 69.6 (ResNet-18), 64.6 against 63.1 (ResNet-50)";
    outcome.compare("the hardest half beats the fixed order", accuracy, ("hardest 0.5", "fixed order"), Expect::Higher, mixed);
    outcome.compare(
        "it generalises in fewer epochs",
        "epochs to 99 % of it",
        ("hardest 0.5", "fixed order"),
        Expect::Lower,
        "-26.47 % (EfficientNet-B4, STL-10)",
    );
    outcome.compare("choosing by loss beats choosing at random", accuracy, ("hardest 0.5", "random 0.5"), Expect::Higher, "none");
    outcome.compare("it beats plain shuffling", accuracy, ("hardest 0.5", "shuffled"), Expect::Higher, "none");
    outcome.compare("the easiest half leaves the rest unlearnt", loss, ("easiest 0.5", "fixed order"), Expect::Higher, "none");
    outcome.note("The paper's baseline visits the batches in one fixed order; shuffling is the stronger ordinary baseline.");
    outcome.note("Evaluation is in inference mode; the paper's script evaluates in training mode.");
    outcome.charts.push(curves.chart("Test accuracy", "updates / batches", "%"));
    outcome.charts.push(visits);
    Ok(outcome)
}

/// How an arm is trained.
struct How {
    policy: Policy,
    delta: f64,
    reshuffle: bool,
    batch: usize,
    epochs: u64,
    seed: u64,
}

/// Trains until the budget is spent; calls `evaluate` with the share done after every `b` updates.
fn train_by(
    how: &How,
    model: &dyn Module,
    arena: &Arena,
    images: &Images,
    mut evaluate: impl FnMut(f64) -> Result<()>,
) -> Result<Stats> {
    let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(arena, rule)?;
    let mut plan = BatchPlan::new(images.len(), how.batch, Some(how.seed))?;
    let batches = plan.len() as u64;
    let config = HardBatchesConfig {
        batches: plan.len(),
        delta: how.delta,
        policy: how.policy,
        budget: how.epochs * batches,
        refresh_every: None,
    };
    let mut hard = HardBatches::new(config)?;
    while hard.updates() < hard.budget() {
        if how.reshuffle {
            plan = BatchPlan::new(images.len(), how.batch, Some(how.seed + (hard.updates() << 20)))?;
        }
        for i in hard.next_round()? {
            let batch = images.plain(plan.batch(i)?)?;
            let logits = model.forward(&Cx::train(arena).seeded(how.seed, hard.updates()), &batch.images)?;
            let loss = logits.cross_entropy(&batch.labels, CrossEntropy::default())?;
            arena.backward(&loss)?;
            optimizer.step(arena, 0.005)?;
            hard.record(i, &loss)?;
            if hard.updates().is_multiple_of(batches) {
                evaluate(hard.updates() as f64 / hard.budget() as f64)?;
            }
        }
    }
    hard.stats()
}
