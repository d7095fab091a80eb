//! The activations side by side in one network, nothing else changed: an MLP on the digits, a small ViT on photographs.

use shadegrad::nn::{Activation, Arena, Builder, Cx, Module};
use shadegrad::rng::Stream;
use shadegrad::train::Images;
use shadegrad::{Error, Result};

use super::{eafo, preactivations, share_within};
use crate::papers::{
    Better, Chart, Context, Curves, Expect, Outcome, Plan, Preset, Role, Trained, describe, train_on,
};
use crate::{Mlp, Spec, Vit, VitConfig};

const ACCURACY: &str = "test accuracy";
const LOSS: &str = "training loss";
const SHARE: &str = "inputs with |x| < 3";
const NUMBER: &str = "learned number";

const RELU: &str = "ReLU";
const CRRELU: &str = "CRReLU";

/// One activation of the comparison.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    role: Role,
    activation: Activation,
    frozen: bool,
}

const fn variant(name: &'static str, role: Role, activation: Activation) -> Variant {
    Variant { name, role, activation, frozen: false }
}

/// The start of the coefficient, that of public code.
const EPS0: f32 = 0.01;

const MAIN: [Variant; 5] = [
    variant(RELU, Role::Baseline, Activation::Relu),
    variant("PReLU", Role::Baseline, Activation::Prelu(0.25)),
    variant("GELU", Role::Control, Activation::Gelu),
    variant("SiLU", Role::Control, Activation::Silu),
    variant(CRRELU, Role::Method, Activation::Crrelu(EPS0)),
];

const FROZEN: &str = "CRReLU, eps fixed";
const NEGATIVE: &str = "CRReLU from -0.01";

/// What is left to ask where runs are cheap: the coefficient fixed, and started on the other side of zero.
const ABLATIONS: [Variant; 2] = [
    Variant { frozen: true, ..variant(FROZEN, Role::Ablation, Activation::Crrelu(EPS0)) },
    variant(NEGATIVE, Role::Ablation, Activation::Crrelu(-EPS0)),
];

const MORE: [Variant; 2] = [
    variant("ELU", Role::Control, Activation::Elu(1.0)),
    variant("Mish", Role::Control, Activation::Mish),
];

/// The network around the activation.
enum Net {
    Mlp(Vec<usize>),
    Vit { patch: usize, dim: usize, depth: usize },
}

impl Net {
    fn make(&self, builder: &mut Builder, spec: &Spec, activation: Activation) -> Result<Box<dyn Module>> {
        let scope = &mut builder.root();
        Ok(match self {
            Self::Mlp(hidden) => Box::new(Mlp::with_activation(scope, spec, hidden, activation)),
            &Self::Vit { patch, dim, depth } => {
                let base = VitConfig::micro(spec);
                let config =
                    VitConfig { patch, dim, depth, heads: 3, mlp: 4 * dim, activation, class_token: false, ..base };
                Box::new(Vit::new(scope, &config)?)
            }
        })
    }

    /// Layers whose results go into an activation. The last layer of the MLP has none behind it.
    fn before(&self) -> (&'static str, usize) {
        match self {
            Self::Mlp(hidden) => ("layers.?", hidden.len()),
            Self::Vit { depth, .. } => ("*.mlp.fc1", *depth),
        }
    }

    fn about(&self) -> String {
        match self {
            Self::Mlp(hidden) => format!("MLP with hidden layers of {hidden:?}"),
            Self::Vit { patch, dim, depth } => {
                format!("ViT without class token, patch {patch}, width {dim}, {depth} blocks, 3 heads, hidden {}", 4 * dim)
            }
        }
    }
}

struct Setting {
    net: Net,
    plan: Plan,
    pictures: (usize, usize),
    variants: Vec<Variant>,
}

fn setting(context: &Context) -> Setting {
    let all = |extra: &[&[Variant]]| MAIN.iter().chain(extra.iter().copied().flatten()).copied().collect();
    match (context.preset, context.has_data()) {
        (Preset::Full, _) => Setting {
            net: Net::Vit { patch: 4, dim: 192, depth: 9 },
            plan: Plan { smoothing: 0.1, crop_flip: true, ..Plan::adamw(100, 256, 1e-3, 0.05) },
            pictures: (usize::MAX, usize::MAX),
            variants: all(&[&MORE, &ABLATIONS]),
        },
        (Preset::Small, true) => Setting {
            net: Net::Vit { patch: 8, dim: 48, depth: 3 },
            plan: Plan { smoothing: 0.1, crop_flip: true, ..Plan::adamw(5, 64, 1e-3, 0.05) },
            pictures: (2000, 500),
            variants: all(&[]),
        },
        (preset, _) => Setting {
            net: Net::Mlp(vec![64; 3]),
            plan: Plan {
                decay_matrices_only: false,
                ..Plan::adamw(if preset == Preset::Smoke { 3 } else { 12 }, 50, 2e-3, 0.05)
            },
            pictures: (600, 360),
            variants: all(&[&ABLATIONS]),
        },
    }
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let Setting { net, plan, pictures, variants } = setting(context);
    let pair = context.subset(pictures.0, pictures.1)?;
    let (train, test) = context.upload(&pair)?;
    let d = &pair.train;
    let spec = Spec { height: d.height, width: d.width, channels: d.channels, classes: d.classes.len() };
    let about = format!(
        "{}; {} epochs of batches of {}, AdamW {} with decay 0.05, smoothing {}{}; only the activation differs",
        net.about(),
        plan.epochs,
        plan.batch,
        plan.lr,
        plan.smoothing,
        if plan.crop_flip { ", crop and mirror image" } else { "" }
    );
    let mut outcome = Outcome::new(describe(&pair), about)
        .metric(ACCURACY, "%", Better::Higher, 2)
        .metric(LOSS, "", Better::Lower, 4)
        .metric(SHARE, "%", Better::Neither, 1)
        .metric(NUMBER, "", Better::Neither, 4);
    let (mut accuracy, mut losses) = (Curves::default(), Curves::default());
    let mut learned = Chart::lines("What CRReLU learned", "activation, from the input", "eps");
    for seed in context.seeds.clone() {
        for v in &variants {
            let mut builder = Builder::new();
            let model = net.make(&mut builder, &spec, v.activation)?;
            let mut arena = Arena::new(&context.gpu, &builder, seed)?;
            if v.frozen {
                arena.freeze("*.eps")?;
            }
            let done = train_on(
                context,
                v.name,
                seed,
                (&train, &test),
                &plan,
                (model, arena),
                |step| step.cross_entropy(&step.logits()?),
                |_| Ok(()),
            )?;
            let loss = done.loss.last().copied().unwrap_or(f64::NAN);
            let mut row = vec![(ACCURACY, done.last()), (LOSS, loss), (SHARE, share(&net, &done, &test)?)];
            let numbers = numbers(&done)?;
            if !numbers.is_empty() {
                row.push((NUMBER, numbers.iter().sum::<f64>() / numbers.len() as f64));
            }
            if v.name == CRRELU {
                let points = numbers.iter().enumerate().map(|(i, &e)| ((i + 1) as f64, e)).collect();
                learned.push(&format!("seed {seed}"), points);
            }
            outcome.record(v.name, v.role, seed, &row)?;
            accuracy.push(v.name, done.accuracy);
            losses.push(v.name, done.loss);
        }
    }
    compare(&mut outcome, &variants);
    outcome.note(numbers_in_words(&learned));
    outcome.note(
        "The published code was not found: formula and start 0.01 are those of three public implementations, the theory is \
         derived from the paper's principle.",
    );
    if context.preset == Preset::Small && context.has_data() {
        outcome.note(
            "2,000 pictures and 5 epochs, for the sake of time on a processor; the networks are far from converged, and 500 test \
             pictures leave a standard deviation of 2 points to each figure.",
        );
    }
    if context.preset == Preset::Full {
        outcome.note("Run on CIFAR-100 as well by giving its folder as the data.");
    }
    outcome.charts = vec![
        accuracy.chart("Test accuracy", "epoch", "%"),
        losses.chart("Training loss", "epoch", "cross-entropy"),
        learned,
        entropy_of_the_bump(),
        entropy_of_bounded_functions(),
    ];
    Ok(outcome)
}

/// Learned numbers of the activations from the input to the output.
fn numbers(done: &Trained<Box<dyn Module>>) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for (name, value) in done.arena.params().iter() {
        if name.ends_with(".eps") || (name.contains("act") && name.ends_with(".weight")) {
            all.push(f64::from(value.to_vec()?[0]));
        }
    }
    Ok(all)
}

/// Of the inputs of all activations over 256 test pictures, the per cent on which the bump acts.
fn share(net: &Net, done: &Trained<Box<dyn Module>>, test: &Images) -> Result<f64> {
    let indices: Vec<u32> = (0..test.len().min(256) as u32).collect();
    let batch = test.batch(&indices, test.normalise(), Stream::new(0, 0))?;
    let (pattern, count) = net.before();
    let layers = preactivations(&done.model, &Cx::eval(&done.arena), &[batch.images], pattern)?;
    let inputs: Vec<f32> = layers.into_iter().take(count).flat_map(|l| l.1).collect();
    if inputs.is_empty() {
        return Err(Error::value("crrelu", "no layer was seen before an activation"));
    }
    Ok(100.0 * share_within(&inputs, 3.0))
}

fn compare(outcome: &mut Outcome, variants: &[Variant]) {
    let none = "abstract: better; no figure could be verified";
    for other in [RELU, "PReLU", "SiLU", "ELU", "Mish"] {
        if variants.iter().any(|v| v.name == other) {
            outcome.compare(&format!("better than {other}"), ACCURACY, (CRRELU, other), Expect::Higher, none);
        }
    }
    let gelu = "abstract: better than GELU for a language model; for images expected to be about equal";
    outcome.compare("about equal to GELU", ACCURACY, (CRRELU, "GELU"), Expect::Within(1.0), gelu);
    if variants.iter().any(|v| v.name == FROZEN) {
        let own = "not in the paper; a control";
        outcome.compare("learning eps helps", ACCURACY, (CRRELU, FROZEN), Expect::Higher, own);
        outcome.compare("the sign of the start matters little", ACCURACY, (NEGATIVE, CRRELU), Expect::Within(1.0), own);
    }
}

fn numbers_in_words(learned: &Chart) -> String {
    let all: Vec<f64> = learned.series.iter().flat_map(|s| &s.points).map(|p| p.1).collect();
    let rows: Vec<String> = (learned.series.iter())
        .map(|s| {
            let row: Vec<String> = s.points.iter().map(|p| format!("{:.4}", p.1)).collect();
            format!("{}: {}", s.name, row.join(", "))
        })
        .collect();
    format!(
        "Learned eps from the input to the output ({}); {} of {} are positive (started at {EPS0}). A positive eps raises \
         the output's entropy to first order, against the direction of the search.",
        rows.join("; "),
        all.iter().filter(|v| **v > 0.0).count(),
        all.len()
    )
}

fn bump_slope(x: f64) -> f64 {
    (1.0 - x * x) * (-0.5 * x * x).exp()
}

/// The change of entropy that the bump makes of the identity, for standard normal inputs.
fn entropy_of_the_bump() -> Chart {
    let input = eafo::Normal::STANDARD;
    let before = eafo::entropy(&input);
    let grid: Vec<f64> = (-40..=40).map(|i| f64::from(i) / 100.0).collect();
    let mut chart = Chart::lines("Output entropy of x + eps x exp(-x^2/2) for normal inputs", "eps", "change in nats");
    let exact = |e: f64| eafo::output_entropy(&|x| 1.0 + e * bump_slope(x), &input) - before;
    chart.push("exact", grid.iter().map(|&e| (e, exact(e))).collect());
    chart.push("first order, eps / (2 sqrt 2)", grid.iter().map(|&e| (e, e / 8f64.sqrt())).collect());
    chart
}

/// Functions from the real line to 0..1: all ways away from the distribution function lead down.
fn entropy_of_bounded_functions() -> Chart {
    let input = eafo::Normal::STANDARD;
    let density = |x: f64| eafo::Density::p(&input, x);
    let logistic = |k: f64, x: f64| {
        let s = 1.0 / (1.0 + (-k * x).exp());
        k * s * (1.0 - s)
    };
    let mut chart = Chart::lines(
        "Output entropy between the distribution function (0) and other bounded functions (1), normal inputs",
        "share of the other function",
        "nats",
    );
    let mut push = |name: &str, df: &dyn Fn(f64) -> f64| {
        let mixed = |t: f64| eafo::output_entropy(&|x| (1.0 - t) * density(x) + t * df(x), &input);
        chart.push(name, (0..=20).map(|i| f64::from(i) / 20.0).map(|t| (t, mixed(t))).collect());
    };
    push("logistic(1.702 x)", &|x| logistic(1.702, x));
    push("(1 + tanh x) / 2", &|x| logistic(2.0, x));
    push("logistic(x)", &|x| logistic(1.0, x));
    chart
}
