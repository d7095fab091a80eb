//! Small batches, large ones, and large ones with each remedy in turn; and how far the weights move.

use shadegrad::data::Sampler;
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Cx, Fan, GhostBatchNorm, Ghosts, Init, Linear, Module, Scope};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{Images, evaluate};
use shadegrad::{Result, Tensor};

use super::{DistanceProbe, LargeBatch, LargeBatchConfig, LogFit, LrRule, Regime};
use crate::papers::{Better, Chart, Context, Curves, Expect, Outcome, Preset, Role, describe};

/// A multi-layer perceptron with batch norm, cut into ghosts or not, and ReLU after each hidden layer.
struct Net {
    hidden: Vec<(Linear, Box<dyn Module>)>,
    head: Linear,
}

impl Net {
    fn new(scope: &mut Scope<'_>, widths: &[usize], ghost: Option<usize>) -> Result<Self> {
        let he = Init::KaimingNormal(Fan::In, std::f32::consts::SQRT_2);
        let linear = |scope: &mut Scope<'_>, i: usize| {
            Linear::with_init(&mut scope.sub(format!("linear.{i}")), widths[i], widths[i + 1], he, Some(Init::Zeros))
        };
        let last = widths.len() - 2;
        let mut hidden = Vec::new();
        for i in 0..last {
            let layer = linear(scope, i);
            let norm = BatchNorm2d::new(&mut scope.sub(format!("norm.{i}")), widths[i + 1]);
            let norm: Box<dyn Module> = match ghost {
                Some(size) => Box::new(GhostBatchNorm::over(norm, Ghosts::Size(size))?),
                None => Box::new(norm),
            };
            hidden.push((layer, norm));
        }
        Ok(Self { hidden, head: linear(scope, last) })
    }
}

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.flatten(1, x.rank() - 1)?;
        for (linear, norm) in &self.hidden {
            x = norm.forward(cx, &linear.forward(cx, &x)?)?.relu()?;
        }
        self.head.forward(cx, &x)
    }
}

/// Sizes of the experiment.
struct Size {
    width: usize,
    small: usize,
    large: usize,
    epochs: u64,
    /// How many times the epochs of the adapted regime are: the ratio of the batches on a GPU, less on a processor.
    stretch: u64,
    updates: u64,
}

/// An arm: name, role, whether the batch is large, the rate scaled, batch norm cut into ghosts, and the epochs stretched.
const VARIANTS: [(&str, Role, bool, bool, bool, bool); 6] = [
    ("small batch", Role::Baseline, false, false, false, false),
    ("large batch", Role::Baseline, true, false, false, false),
    ("large + ghosts", Role::Ablation, true, false, true, false),
    ("large + rate", Role::Ablation, true, true, false, false),
    ("large + rate + ghosts", Role::Ablation, true, true, true, false),
    ("large + rate + ghosts + updates", Role::Method, true, true, true, true),
];

const ACCURACY: &str = "test accuracy";

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let size = match (context.preset, context.has_data()) {
        (Preset::Smoke, _) => Size { width: 64, small: 32, large: 512, epochs: 4, stretch: 2, updates: 60 },
        (Preset::Small, false) => Size { width: 64, small: 32, large: 512, epochs: 20, stretch: 8, updates: 400 },
        (Preset::Small, true) => Size { width: 256, small: 64, large: 2048, epochs: 20, stretch: 8, updates: 1000 },
        (Preset::Full, _) => Size { width: 512, small: 128, large: 4096, epochs: 50, stretch: 32, updates: 10_000 },
    };
    let (train_n, test_n) = if context.preset == Preset::Small { (8000, 5000) } else { (usize::MAX, usize::MAX) };
    let pair = context.subset(train_n, test_n)?;
    let pair = if context.preset == Preset::Small && pair.train.height >= 28 { pair.shrink(2)? } else { pair };
    let (train, test) = context.upload(&pair)?;
    let widths = [train.size().iter().product(), size.width, size.width, size.width, train.classes()];
    let ratio = size.large / size.small;
    let mut outcome = Outcome::new(
        describe(&pair),
        format!(
            "MLP {widths:?} with batch norm, SGD with rate 0.1 and momentum 0.9, batches of {} against {}, {} epochs, a tenth \
             of the rate from 40 % and from 70 % of them",
            size.small, size.large, size.epochs
        ),
    )
    .metric(ACCURACY, "%", Better::Higher, 2)
    .metric("updates", "", Better::Neither, 0);
    let mut curves = Curves::default();
    for seed in context.seeds.clone() {
        for (name, role, large, rate, ghosts, updates) in VARIANTS {
            let how = LargeBatch::new(LargeBatchConfig {
                small_batch: size.small,
                batch: if large { size.large } else { size.small },
                lr_rule: if rate { LrRule::Sqrt } else { LrRule::None },
                ghost: None,
                clip: Some(5.0),
                adapt_regime: false,
                gradient_noise: None,
            })?;
            let epochs = size.epochs * if updates { size.stretch } else { 1 };
            let regime = Regime::new(0.1, &[(epochs * 2 / 5, 0.01), (epochs * 7 / 10, 0.001)], epochs)?;
            let run = Training {
                widths: &widths,
                ghost: ghosts.then_some(size.small),
                how: &how,
                regime: &how.adapt(&regime),
                batch: if large { size.large } else { size.small },
                seed,
            };
            let (accuracy, steps) = run.train(context, name, &train, &test)?;
            let last = accuracy.last().copied().unwrap_or(0.0);
            context.watch.say(&format!("{name}, seed {seed}: test accuracy {last:.2} % after {steps} updates"));
            outcome.record(name, role, seed, &[(ACCURACY, last), ("updates", steps as f64)])?;
            if !updates {
                curves.push(name, accuracy);
            }
        }
    }
    compare(&mut outcome);
    if size.stretch != ratio as u64 {
        outcome.note(format!(
            "The adapted regime here has {} times the epochs, not {ratio} times: a part of the updates of the small batch.",
            size.stretch
        ));
    }
    outcome.charts.push(curves.chart("Test accuracy at equal epochs", "epoch", "%"));
    diffusion(context, &mut outcome, &size, &widths, &train)?;
    Ok(outcome)
}

fn compare(outcome: &mut Outcome) {
    let [small, large, _, rate, both, all] = VARIANTS.map(|v| v.0);
    outcome.compare("small batches beat large ones at equal epochs", ACCURACY, (small, large), Expect::Higher, "+1.22 (F1)");
    outcome.compare("scaling the rate helps", ACCURACY, (rate, large), Expect::Higher, "+0.50 points (F1, MNIST)");
    outcome.compare("ghost batch norm helps on top", ACCURACY, (both, rate), Expect::Higher, "+0.05 points (F1, MNIST)");
    outcome.compare("more updates help most", ACCURACY, (all, both), Expect::Higher, "+0.93 points (F1, MNIST)");
    outcome.compare("they close the gap", ACCURACY, (all, small), Expect::Within(1.0), "+0.26 points (F1, MNIST)");
}

/// One arm.
struct Training<'a> {
    widths: &'a [usize],
    ghost: Option<usize>,
    how: &'a LargeBatch,
    regime: &'a Regime,
    batch: usize,
    seed: u64,
}

impl Training<'_> {
    /// Test accuracy in per cent after each epoch (after every tenth where there are many), and the updates.
    fn train(&self, context: &mut Context, name: &str, train: &Images, test: &Images) -> Result<(Vec<f64>, u64)> {
        let mut names = Builder::new();
        let net = Net::new(&mut names.root(), self.widths, self.ghost)?;
        let arena = Arena::new(&context.gpu, &names, self.seed)?;
        let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 1e-4 };
        let mut optimizer = self.how.clipped(Optimizer::new(&arena, rule)?);
        let mut batches = Sampler::new(train.len(), self.batch)?.seed(self.seed).drop_last(true)?;
        let (mut step, mut accuracy) = (0, Vec::new());
        let every = (self.regime.epochs / 20).max(1);
        for epoch in 0..self.regime.epochs {
            while let Some(batch) = batches.next_batch() {
                let batch = train.plain(&batch.indices)?;
                self.how.step(&net, &arena, &mut optimizer, &batch, self.regime.rate(epoch), (self.seed, step))?;
                step += 1;
            }
            if (epoch + 1) % every == 0 {
                accuracy.push(100.0 * evaluate(&net, &Cx::eval(&arena), test, 1000)?.accuracy);
            }
            let done = (epoch + 1) as f64 / self.regime.epochs as f64;
            context.watch.progress(&format!("{name}, seed {}", self.seed), done, &format!("{step} updates"));
        }
        Ok((accuracy, step))
    }
}

/// Distances from the start at a constant rate, without weight decay, for three batches and both remedies.
fn diffusion(context: &mut Context, outcome: &mut Outcome, size: &Size, widths: &[usize], train: &Images) -> Result<()> {
    let mut chart = Chart::lines("Distance of the weights from their start", "ln(updates)", "distance");
    let largest = train.len().min(512);
    let plans = [
        (32, None, 0.05),
        (largest.min(128), None, 0.05),
        (largest, None, 0.05),
        (largest, None, 0.2),
        (largest, Some(32), 0.2),
    ];
    for (batch, ghost, lr) in plans {
        let name = match ghost {
            Some(g) => format!("batch {batch}, ghosts of {g}, rate {lr}"),
            None => format!("batch {batch}, rate {lr}"),
        };
        let mut names = Builder::new();
        let net = Net::new(&mut names.root(), widths, ghost)?;
        let arena = Arena::new(&context.gpu, &names, 0)?;
        let how = LargeBatch::new(LargeBatchConfig {
            small_batch: 32,
            batch,
            lr_rule: LrRule::None,
            ghost: None,
            clip: Some(5.0),
            adapt_regime: false,
            gradient_noise: None,
        })?;
        let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        let mut optimizer = how.clipped(Optimizer::new(&arena, rule)?);
        let mut batches = Sampler::new(train.len(), batch)?.seed(0).drop_last(true)?;
        let mut probe = DistanceProbe::new(&arena, "linear.*.weight")?;
        let mut step = 0;
        while step < size.updates {
            let Some(drawn) = batches.next_batch() else { continue };
            let drawn = train.plain(&drawn.indices)?;
            how.step(&net, &arena, &mut optimizer, &drawn, lr, (0, step))?;
            step += 1;
            probe.record(step, &arena)?;
            context.watch.progress(&format!("distance, {name}"), step as f64 / size.updates as f64, "");
        }
        let LogFit { slope, r2, power_exponent, power_r2, .. } = probe.fit_log(10)?;
        outcome.note(format!(
            "Distance, {name}, {} updates, fitted from the tenth on: {slope:.2} for each e-fold (R2 {r2:.3}); power law with \
             exponent {power_exponent:.2} (R2 {power_r2:.3}).",
            size.updates
        ));
        chart.push(&name, probe.curve()?.into_iter().map(|(t, d)| (t.ln(), d)).collect());
    }
    outcome.charts.push(chart);
    Ok(())
}
