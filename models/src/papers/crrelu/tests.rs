//! Eleven checks with their numbers, and what the library refuses.

use std::f64::consts::PI;

use shadegrad::autograd::{grad, vjp};
use shadegrad::nn::{Activation, Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::{Result, Tensor};

use super::eafo::{self, Density, Histogram, Identity, InvertibleFn, LeakyRelu, Logistic, Normal, Numeric};
use super::{Corrected, Crrelu, DynamicCrrelu, TabulatedActivation, preactivations, share_within};
use crate::papers::testing::gpu;
use crate::papers::{Context, Preset, Silent};
use crate::{Spec, Vit, VitConfig};

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(&gpu(), values, &[values.len()]).expect("upload")
}

fn scalar(v: f32) -> Tensor {
    Tensor::scalar(&gpu(), v).expect("upload")
}

#[track_caller]
fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tolerance * w.abs().max(1e-3), "element {i}: {g} is not {w}");
    }
}

#[track_caller]
fn near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} is not {want} within {tolerance}");
}

fn bump(x: f64) -> f64 {
    x * (-x * x / 2.0).exp()
}

fn bump_slope(x: f64) -> f64 {
    (1.0 - x * x) * (-x * x / 2.0).exp()
}

fn pdf(x: f64) -> f64 {
    Normal::STANDARD.p(x)
}

#[test]
fn check_1_values() -> Result<()> {
    let x = tensor(&[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]);
    let want = [
        -0.002706706,
        -0.006065307,
        -0.004412485,
        0.0,
        0.504412485,
        1.006065307,
        2.002706706,
        3.000333270,
    ];
    close(&x.crrelu(&scalar(0.01))?.to_vec()?, &want, 1e-6);
    Ok(())
}

#[test]
fn check_2_derivatives() -> Result<()> {
    let x = tensor(&[-2.0, -1.0, 0.0, 0.5, 1.0, 3f32.sqrt(), 2.0, 3.0]).leaf();
    let d = grad(&x.crrelu(&scalar(0.01))?.sum_all()?, &[&x])?;
    let got = d[0].to_vec()?;
    let want = [-0.004060058, 0.0, 0.01, 1.006618727, 1.0, 0.995537397, 0.995939942, 0.999111280];
    close(&got, &want, 1e-6);
    assert_eq!(got[4], 1.0, "the bump's slope vanishes at 1");
    Ok(())
}

#[test]
fn check_3_gradient_of_the_coefficient() -> Result<()> {
    let x = tensor(&[-1.0, 0.0, 2.0, 0.5, -2.0, 1.0]).reshape(&[2, 3])?.leaf();
    let g = tensor(&[1.0, 2.0, 3.0, -1.0, 0.5, 2.0]).reshape(&[2, 3])?;
    let eps = scalar(0.01).leaf();
    let d = vjp(&x.crrelu(&eps)?, &[&x, &eps], &g)?;
    let want = [0.0, 0.02, 2.987819826, -1.006618727, -0.002030029, 2.0];
    close(&d[0].to_vec()?, &want, 1e-6);
    close(&d[1].to_vec()?, &[0.841958624], 1e-6);
    Ok(())
}

#[test]
fn check_4_zero_coefficient_is_relu_to_the_bit_and_not_stuck() -> Result<()> {
    let mut values: Vec<f32> = (-600..600).map(|i| i as f32 * 0.0137).collect();
    values.extend([0.0, -0.0, 1e30, -1e30]);
    let (x, eps) = (tensor(&values).leaf(), scalar(0.0).leaf());
    let g = Tensor::normal(&gpu(), &[values.len()], Stream::new(3, 0), 0.0, 1.0)?;
    let (ours, relu) = (x.crrelu(&eps)?, x.relu()?);
    let bits = |t: &Tensor| t.to_vec().map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    assert_eq!(bits(&ours)?, bits(&relu)?);
    let d = vjp(&ours, &[&x, &eps], &g)?;
    assert_eq!(bits(&d[0])?, bits(&vjp(&relu, &[&x], &g)?[0])?);
    let want: f64 = values.iter().zip(g.to_vec()?).map(|(&x, g)| bump(f64::from(x)) * f64::from(g)).sum();
    assert!(want.abs() > 1.0);
    close(&d[1].to_vec()?, &[want], 1e-5);
    Ok(())
}

#[test]
fn check_5_antisymmetry() -> Result<()> {
    let values: Vec<f32> = (0..400).map(|i| i as f32 * 0.0131 - 2.6).collect();
    for eps in [0.01f32, 0.7, -1.3] {
        let (x, e) = (tensor(&values), scalar(eps));
        let (plus, minus) = (x.crrelu(&e)?, x.neg()?.crrelu(&e)?);
        let (odd, even) = (plus.sub(&minus)?.to_vec()?, plus.add(&minus)?.to_vec()?);
        for (i, &v) in values.iter().enumerate() {
            let v = f64::from(v);
            near(f64::from(odd[i]), v + 2.0 * f64::from(eps) * bump(v), 1e-6);
            // Exact but for the rounding of the two values.
            near(f64::from(even[i]), v.abs(), 3e-7);
        }
    }
    Ok(())
}

#[test]
fn check_6_gaussian_moments() -> Result<()> {
    let x = Tensor::normal(&gpu(), &[1_000_000], Stream::new(11, 0), 0.0, 1.0)?;
    for (eps, second) in [(0.01, 0.503554779), (0.1, 0.537279840), (-0.1, 0.466569162)] {
        let f = |x: f64| x.max(0.0) + eps * bump(x);
        near(eafo::expectation(&f, &Normal::STANDARD), 1.0 / (2.0 * PI).sqrt(), 1e-6);
        near(eafo::expectation(&|x| f(x).powi(2), &Normal::STANDARD), second, 1e-6);
        near(0.5 + eps / (2.0 * 2f64.sqrt()) + eps * eps / (3.0 * 3f64.sqrt()), second, 1e-9);
        let y = x.crrelu(&scalar(eps as f32))?;
        near(f64::from(y.mean_all()?.to_vec()?[0]), 0.398942, 3e-3);
        near(f64::from(y.square()?.mean_all()?.to_vec()?[0]), second, 3e-3);
    }
    Ok(())
}

/// Entropy of the identity plus `eps` times the bump, less that of the standard normal input.
fn rise(eps: f64) -> f64 {
    let n = &Normal::STANDARD;
    eafo::output_entropy(&|x| 1.0 + eps * bump_slope(x), n) - eafo::entropy(n)
}

#[test]
fn check_7_entropy_of_identity_and_bump() {
    near(eafo::entropy(&Normal::STANDARD), 0.5 * (2.0 * PI * std::f64::consts::E).ln(), 1e-10);
    for (eps, want) in [(0.01, 0.003516385), (-0.01, -0.003554876), (0.1, 0.033520841), (-0.1, -0.037383513)] {
        near(rise(eps), want, 1e-9);
    }
    near((rise(1e-5) - rise(-1e-5)) / 2e-5, 0.353553, 1e-6);
}

#[test]
fn check_8_the_distribution_function_is_the_worst() {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let slope = move |k: f64| move |x: f64| k * logistic(k * x) * (1.0 - logistic(k * x));
    let of = |df: &dyn Fn(f64) -> f64| eafo::output_entropy(df, &Normal::STANDARD);
    let cdf = of(&pdf);
    near(cdf, 0.0, 1e-9);
    let others = [
        (of(&|x: f64| 0.5 / x.cosh().powi(2)), -0.023343),
        (of(&slope(1.702)), -0.010043),
        (of(&slope(1.0)), -0.193180),
    ];
    for (got, want) in others {
        near(got, want, 1e-6);
        assert!(got < cdf);
    }
}

#[test]
fn check_9_first_variation() -> Result<()> {
    let eta = |y: f64| bump(y) / (2.0 * PI).sqrt();
    let slope = eafo::first_variation(&Identity, &Normal::STANDARD, &eta, (-12.0, 12.0))?;
    near(slope, -1.0 / (4.0 * PI.sqrt()), 1e-10);
    near(slope, -0.141047, 1e-6);
    near(slope, -0.353553 / (2.0 * PI).sqrt(), 1e-6);
    // And from the entropy itself, the inverse moved to either side.
    let moved = |delta: f64| {
        let steps = 24_000;
        let h = 24.0 / f64::from(steps);
        let term = |y: f64| {
            let q = pdf(y + delta * eta(y)) * (1.0 + delta * bump_slope(y) / (2.0 * PI).sqrt());
            if q > 0.0 { -q * q.ln() } else { 0.0 }
        };
        (0..=steps).map(|i| term(-12.0 + f64::from(i) * h)).sum::<f64>() * h
    };
    near((moved(1e-4) - moved(-1e-4)) / 2e-4, slope, 1e-7);
    Ok(())
}

/// The normal distribution function with its inverse, for the stationary point.
struct Cdf;

impl InvertibleFn for Cdf {
    fn value(&self, x: f64) -> f64 {
        // Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ..).
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + pdf(x) * sum
    }

    fn inverse(&self, y: f64) -> [f64; 3] {
        let (mut low, mut high) = (-8.0, 8.0);
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if self.value(middle) < y { low = middle } else { high = middle }
        }
        let (x, p) = (low, pdf(low));
        [x, 1.0 / p, x / (p * p)]
    }
}

#[test]
fn check_10_direction() -> Result<()> {
    let n = &Normal::STANDARD;
    let ys = [0.02, 0.2, 0.5, 0.77, 0.99];
    for eta in eafo::correction(&Cdf, n, &ys)? {
        near(eta, 0.0, 1e-9);
    }
    near(eafo::correction(&Logistic, n, &[Logistic.value(1.0)])?[0], 0.66197, 1e-5);
    let leaky = LeakyRelu { slope: 0.25 };
    for x in [-2.0, -0.7, -0.1] {
        near(eafo::correction(&leaky, n, &[0.25 * x])?[0], x * pdf(x) / 0.25, 1e-12);
    }
    near(eafo::correction(&leaky, n, &[1.5])?[0], 1.5 * pdf(1.5), 1e-12);
    // A numeric inverse finds the same.
    let numeric = Numeric::new(|x| Logistic.value(x), -20.0, 20.0)?;
    for y in [0.1, 0.5, 0.731058578630005] {
        near(eafo::correction(&numeric, n, &[y])?[0], eafo::correction(&Logistic, n, &[y])?[0], 1e-6);
    }
    // Where a function is flat, or does not reach, there is no direction.
    assert!(eafo::correction(&LeakyRelu { slope: 0.0 }, n, &[-1.0]).is_err());
    assert!(eafo::correction(&numeric, n, &[1.5]).is_err());
    assert!(Numeric::new(|x: f64| -x, 0.0, 1.0).is_err());
    let stationary = Numeric::new(|x| Cdf.value(x), -3.0, 3.0)?;
    let direct = eafo::bump(&Cdf, n, &[-1.0, 0.0, 0.5]).unwrap_err().to_string();
    assert!(direct.contains("stationary"), "{direct}");
    near(eafo::correction(&stationary, n, &[0.3])?[0], 0.0, 1e-6);
    Ok(())
}

#[test]
fn check_11_numerical_gradients() -> Result<()> {
    const H: f32 = 1e-3;
    let values: Vec<f32> = [-2.5, -1.6, -0.4, -0.2, 0.1, 0.3, 0.7, 1.2, 2.0].to_vec();
    for eps in [0.01f32, 0.5] {
        let x = tensor(&values).leaf();
        let slopes = grad(&x.crrelu(&scalar(eps))?.sum_all()?, &[&x])?[0].to_vec()?;
        let at = |h: f32| tensor(&values.iter().map(|v| v + h).collect::<Vec<_>>()).crrelu(&scalar(eps))?.to_vec();
        let (up, down) = (at(H)?, at(-H)?);
        for (i, &s) in slopes.iter().enumerate() {
            // Divided by the distance of the points as single precision has them.
            let distance = (values[i] + H) - (values[i] - H);
            let difference = f64::from(up[i] - down[i]) / f64::from(distance);
            near(difference, f64::from(s), 1e-3 * f64::from(s).abs().max(0.05));
        }
        let loss = |e: &Tensor| tensor(&values).crrelu(e)?.square()?.sum_all();
        let e = scalar(eps).leaf();
        let slope = f64::from(grad(&loss(&e)?, &[&e])?[0].to_vec()?[0]);
        let at = |h: f32| Ok::<_, shadegrad::Error>(f64::from(loss(&scalar(eps + h))?.to_vec()?[0]));
        let distance = f64::from((eps + 0.02) - (eps - 0.02));
        near((at(0.02)? - at(-0.02)?) / distance, slope, 1e-3 * slope.abs());
    }
    Ok(())
}

#[test]
fn second_derivative_of_the_bump() -> Result<()> {
    let values = [-2.0f32, -0.6, 0.4, 1.3];
    let x = tensor(&values).leaf();
    let y = x.crrelu(&scalar(0.3))?.sum_all()?;
    let hv = shadegrad::autograd::hvp(&y, &[&x], &[&tensor(&[1.0; 4])])?;
    let want = values.map(f64::from).map(|v| 0.3 * bump(v) * (v * v - 3.0));
    close(&hv[0].to_vec()?, &want, 1e-5);
    Ok(())
}

#[test]
fn histogram_finds_the_bump() -> Result<()> {
    let samples = Tensor::normal(&gpu(), &[1_000_000], Stream::new(5, 0), 0.0, 1.0)?.to_vec()?;
    let density = Histogram::fit(&samples)?;
    let xs: Vec<f64> = (-60..=60).map(|i| f64::from(i) / 10.0).collect();
    let found = eafo::bump(&Identity, &density, &xs)?;
    for (&x, &b) in xs.iter().zip(&found) {
        near(b, bump(x), 0.05);
    }
    near(eafo::expectation(&|_| 1.0, &density), 1.0, 1e-3);
    assert_eq!((density.p(7.0), density.slope(-7.0)), (0.0, 0.0));
    // Of the fitted normal, the bump is CRReLU's own.
    for (&x, b) in xs.iter().zip(eafo::bump(&Identity, &Normal::STANDARD, &xs)?) {
        near(b, bump(x), 1e-12);
    }
    assert!(Histogram::fit(&[]).is_err() && Histogram::fit(&[1.0, 1.0]).is_err());
    assert!(Normal::new(0.0, 0.0).is_err() && Normal::fit(&[f32::NAN]).is_err());
    Ok(())
}

#[test]
fn tabulated_bump_follows_the_formula() -> Result<()> {
    let xs: Vec<f64> = (-200..=200).map(|i| f64::from(i) / 40.0).collect();
    let table = TabulatedActivation::new(&gpu(), &xs, &eafo::bump(&Identity, &Normal::STANDARD, &xs)?)?;
    let mut builder = Builder::new();
    let layer = Corrected::new(&mut builder.root(), Activation::Relu, table.clone(), 0.3)?;
    let arena = Arena::new(&gpu(), &builder, 0)?;
    let x = Tensor::normal(&gpu(), &[4000], Stream::new(9, 0), 0.0, 1.5)?.leaf();
    let cx = Cx::train(&arena);
    let eps = cx.params().by_name("eps")?;
    let g = Tensor::normal(&gpu(), &[4000], Stream::new(10, 0), 0.0, 1.0)?;
    let ours = layer.forward(&cx, &x)?;
    let formula = x.crrelu(eps)?;
    let (a, b) = (ours.to_vec()?, formula.to_vec()?);
    // The error of a line over a fortieth is at most max |b''| / (8 40^2).
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.3 * 1.4 / 12_800.0 + 1e-6));
    let (da, db) = (vjp(&ours, &[eps], &g)?[0].to_vec()?[0], vjp(&formula, &[eps], &g)?[0].to_vec()?[0]);
    assert!((da - db).abs() < 0.02, "{da} {db}");
    let slopes = vjp(&table.apply(&x)?, &[&x], &Tensor::ones(&gpu(), &[4000])?)?[0].to_vec()?;
    for (s, v) in slopes.iter().zip(x.to_vec()?) {
        near(f64::from(*s), if v.abs() < 5.0 { bump_slope(f64::from(v)) } else { 0.0 }, 0.02);
    }
    let wrong = [(vec![0.0], vec![0.0]), (vec![0.0, 1.0], vec![0.0]), (vec![0.0, 0.0], vec![0.0; 2])];
    assert!(wrong.iter().all(|(x, y)| TabulatedActivation::new(&gpu(), x, y).is_err()));
    assert!(TabulatedActivation::new(&gpu(), &[0.0, 1.0], &[0.0, f64::NAN]).is_err());
    assert!(Corrected::new(&mut Builder::new().root(), Activation::Prelu(0.1), table, 0.1).is_err());
    Ok(())
}

#[test]
fn the_coefficient_trains_without_decay_and_a_fixed_one_stays() -> Result<()> {
    assert!(Crrelu::new(&mut Builder::new().root(), f32::NAN, true).is_err());
    assert!(DynamicCrrelu::new(&mut Builder::new().root(), f32::INFINITY).is_err());
    let mut builder = Builder::new();
    let learned = Crrelu::new(&mut builder.root().sub("a"), 0.5, true)?;
    let fixed = Crrelu::new(&mut builder.root().sub("b"), 0.25, false)?;
    let arena = Arena::new(&gpu(), &builder, 0)?;
    assert_eq!((learned.param().is_some(), fixed.param()), (true, None));
    let x = tensor(&[0.5, -1.0, 2.0]);
    let step = |target: f32, optimizer: &mut Optimizer| -> Result<()> {
        let cx = Cx::train(&arena);
        let y = fixed.forward(&cx, &learned.forward(&cx, &x)?)?;
        arena.backward(&y.sum_all()?.mul_scalar(target)?)?;
        optimizer.step(&arena, 0.1)
    };
    let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.9))?;
    step(0.0, &mut optimizer)?;
    let cx = Cx::eval(&arena);
    assert_eq!((learned.eps(&cx)?, fixed.eps(&cx)?), (0.5, 0.25), "a gradient of 0: decay alone would move it");
    step(1.0, &mut optimizer)?;
    assert!((learned.eps(&cx)? - 0.5).abs() > 1e-3);
    assert_eq!(fixed.eps(&cx)?, 0.25);
    Ok(())
}

#[test]
fn dynamic_variant_follows_its_inputs() -> Result<()> {
    let mut builder = Builder::new();
    let layer = DynamicCrrelu::new(&mut builder.root(), 0.2)?;
    let arena = Arena::new(&gpu(), &builder, 0)?;
    let x = Tensor::normal(&gpu(), &[20_000], Stream::new(2, 0), 3.0, 0.5)?;
    for _ in 0..80 {
        layer.forward(&Cx::train(&arena), &x)?;
    }
    let cx = Cx::eval(&arena);
    let mean = f64::from(cx.buffers().by_name("running_mean")?.to_vec()?[0]);
    let deviation = f64::from(cx.buffers().by_name("running_var")?.to_vec()?[0]).sqrt();
    near(mean, 3.0, 0.02);
    near(deviation, 0.5, 0.02);
    let at = [2.0f32, 3.0, 3.6, -4.0];
    let want = at.map(f64::from).map(|v| v.max(0.0) + 0.2 * bump((v - mean) / deviation));
    close(&layer.forward(&cx, &tensor(&at))?.to_vec()?, &want, 1e-5);
    Ok(())
}

#[test]
fn networks_take_every_activation() -> Result<()> {
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    let small = VitConfig { dim: 12, heads: 3, mlp: 24, class_token: false, ..VitConfig::micro(&spec) };
    let plain = count(&VitConfig { activation: Activation::Relu, ..small })?;
    for (activation, more) in [
        (Activation::Prelu(0.25), 2),
        (Activation::Gelu, 0),
        (Activation::Silu, 0),
        (Activation::Elu(1.0), 0),
        (Activation::Mish, 0),
        (Activation::Crrelu(0.01), 2),
    ] {
        assert_eq!(count(&VitConfig { activation, ..small })?, plain + more, "{activation:?}");
    }
    let config = VitConfig { activation: Activation::Crrelu(0.01), ..small };
    let mut builder = Builder::new();
    let model = Vit::new(&mut builder.root(), &config)?;
    let mut arena = Arena::new(&gpu(), &builder, 0)?;
    // A step with a rate that would be seen: the coefficients have a gradient of their own.
    let x = Tensor::normal(&gpu(), &[5, 8, 8, 1], Stream::new(1, 0), 0.0, 1.0)?;
    assert_eq!(model.forward(&Cx::eval(&arena), &x)?.shape(), [5, 10]);
    let loss = model.forward(&Cx::train(&arena), &x)?.square()?.sum_all()?;
    arena.backward(&loss)?;
    assert_ne!(arena.grads().by_name("blocks.1.mlp.act.eps")?.to_vec()?, [0.0]);
    arena.no_decay_for_vectors(&[])?;
    let before = preactivations(&model, &Cx::eval(&arena), &[x.clone(), x], "*.mlp.fc1")?;
    let names: Vec<&str> = before.iter().map(|b| b.0.as_str()).collect();
    assert_eq!(names, ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]);
    assert!(before.iter().all(|b| b.1.len() == 2 * 5 * 16 * 24));
    assert!(preactivations(&model, &Cx::eval(&arena), &[], "*.nothing").is_err());
    assert_eq!(share_within(&[-4.0, -2.9, 3.0, 1.0], 3.0), 0.5);
    let nan = VitConfig { activation: Activation::Crrelu(f32::NAN), ..small };
    assert!(Vit::new(&mut Builder::new().root(), &nan).is_err());
    Ok(())
}

#[test]
fn recipe_brings_back_every_arm() -> Result<()> {
    let outcome = super::PAPER.run(&mut Context::new(&gpu(), Preset::Smoke, &mut Silent))?;
    assert_eq!(outcome.arms.len(), 7);
    assert!(outcome.comparisons.iter().all(|c| outcome.judge(c).is_some()));
    let fixed = outcome.mean("CRReLU, eps fixed", "learned number").map(|m| m.0 as f32);
    assert_eq!(fixed, Some(0.01));
    let learned = outcome.mean("CRReLU", "learned number").map(|m| m.0);
    assert!(learned.is_some_and(|e| (e - 0.01).abs() > 1e-3), "{learned:?}");
    assert!(outcome.charts.iter().all(|c| !c.series.is_empty()));
    Ok(())
}

fn count(config: &VitConfig) -> Result<usize> {
    let mut builder = Builder::new();
    Vit::new(&mut builder.root(), config)?;
    Ok(builder.tables()?.0.numel())
}
