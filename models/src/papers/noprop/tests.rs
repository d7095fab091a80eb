//! Schedules, marginals, chains and losses in numbers.

use shadegrad::autograd::grad;
use shadegrad::nn::{Arena, Builder, Cx, Init, Linear, Module, Scope};
use shadegrad::rng::{Philox, Stream};
use shadegrad::{Gpu, Result, Tensor};

use super::flow::{arrival, between};
use super::head::Head;
use super::nets::time_embedding;
use super::*;
use crate::papers::testing::gpu;

fn near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-12), "{got} for {want}");
}

fn schedule() -> Schedule {
    Schedule::from_abar(&[0.1, 0.5, 0.9]).unwrap()
}

/// Scores from a linear layer over the input, the state and the time, if there is one.
struct Joint(Linear);

impl Joint {
    fn new(scope: &mut Scope<'_>, inputs: usize, classes: usize) -> Self {
        Self(Linear::new(&mut scope.sub("fc"), inputs, classes, true))
    }
}

impl Block for Joint {
    fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let time = time.map(|t| t.reshape(&[t.numel(), 1])).transpose()?;
        let parts: Vec<&Tensor> = [Some(x), Some(z), time.as_ref()].into_iter().flatten().collect();
        self.0.forward(cx, &Tensor::concat(&parts, 1)?)
    }
}

/// Says what its input says.
struct Oracle;

impl Oracle {
    fn new(scope: &mut Scope<'_>) -> Self {
        scope.param("none", &[1], Init::Zeros);
        Self
    }
}

impl Block for Oracle {
    fn logits(&self, _: &Cx, x: &Tensor, _: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
        Ok(x.clone())
    }
}

/// Scores that make a softmax exactly one-hot.
fn certain(gpu: &Gpu, labels: &[u32], classes: usize) -> Tensor {
    Tensor::from_u32(gpu, labels, &[labels.len()]).unwrap().one_hot(classes).unwrap().mul_scalar(1e4).unwrap()
}

#[test]
fn coefficients_of_the_example() {
    let s = schedule();
    for (t, snr) in [0.111_111_1, 1.0, 9.0].into_iter().enumerate() {
        near(s.snr(t).unwrap(), snr, 1e-6);
    }
    for (t, want) in [(1, [0.628_539_4, 0.248_452_0, 0.444_444_4]), (2, [0.843_274_0, 0.149_071_2, 0.088_888_9])] {
        let (a, b, c) = s.coeffs(t).unwrap();
        for (got, want) in [a, b, c].into_iter().zip(want) {
            near(got, want, 1e-6);
        }
        // What the posterior gains in knowledge of u.
        near(a * a / c, [0.888_888_9, 8.0][t - 1], 1e-7);
        near(s.gain(t).unwrap(), [0.888_888_9, 8.0][t - 1], 1e-7);
    }
}

#[test]
fn marginals_are_kept_by_every_step_of_any_schedule() {
    let mut rng = Philox::new(3, 0);
    let mut random: Vec<f64> = (0..20).map(|_| 0.001 + 0.998 * rng.uniform_f64()).collect();
    random.sort_unstable_by(f64::total_cmp);
    let curve = GammaNet::new(&mut Builder::new().root(), Noise::Linear { low: -3.0, high: 6.0 }).unwrap();
    let mut names = Builder::new();
    names.root().param("none", &[1], Init::Zeros);
    let curve = curve.curve(&Arena::new(&gpu(), &names, 0).unwrap()).unwrap();
    for s in [
        schedule(),
        Schedule::standard(10).unwrap(),
        Schedule::standard(49).unwrap(),
        Schedule::from_abar(&random).unwrap(),
        curve.steps(1000).unwrap(),
    ] {
        for t in 1..=s.blocks() {
            let (a, b, c) = s.coeffs(t).unwrap();
            let (now, before) = (s.abar(t).unwrap(), s.abar(t - 1).unwrap());
            near(a + b * before.sqrt(), now.sqrt(), 1e-12);
            near(b * b * (1.0 - before) + c, 1.0 - now, 1e-12);
            near(a * a / c, s.gain(t).unwrap(), 1e-8);
            // The quiet step keeps the marginal too.
            let (a, b) = s.quiet(t).unwrap();
            near(a + b * before.sqrt(), now.sqrt(), 1e-12);
            near(b * b * (1.0 - before), 1.0 - now, 1e-12);
        }
    }
}

#[test]
fn the_cosine_schedule_of_ten_blocks() {
    let s = Schedule::standard(10).unwrap();
    let shares = [0.001, 0.0241, 0.0940, 0.2031, 0.3408, 0.4938, 0.6474, 0.7868, 0.8986, 0.9719, 0.999];
    for (got, want) in s.shares().iter().zip(shares) {
        assert!((got - want).abs() < 5.1e-5, "{got} for {want}");
    }
    let gains = [0.0237, 0.0791, 0.1511, 0.2620, 0.4585, 0.8605, 1.8543, 5.1685, 25.78, 964.4];
    for (t, want) in gains.into_iter().enumerate() {
        near(s.gain(t + 1).unwrap(), want, 2.5e-3);
    }
    let open = Schedule::cosine(10, 0.008, 1e-3, 1.0 - 1e-9).unwrap();
    near(open.snr(10).unwrap(), 6434.0, 1e-3);
    let tied = Schedule::standard(50).unwrap_err().to_string();
    assert!(tied.contains("abar_0 = 0.001 and abar_1 = 0.001 do not rise"), "{tied}");
}

#[test]
fn an_oracle_chain_ends_at_its_marginal() {
    // In numbers: the skip connections multiply to next to nothing.
    let s = schedule();
    let kept: f64 = (1..=2).map(|t| s.coeffs(t).unwrap().1).product();
    near(kept, 1.0 / 27.0, 1e-12);
    let (mut mean, mut variance) = (0.7, 1.0);
    for t in 1..=2 {
        let (a, b, c) = s.coeffs(t).unwrap();
        (mean, variance) = (a + b * mean, b * b * variance + c);
    }
    near(mean, 0.9f64.sqrt() + kept * (0.7 - 0.1f64.sqrt()), 1e-12);
    // On the device: step by step with the same noise, and over many samples.
    let gpu = gpu();
    let n = 4000;
    let labels = vec![3u32; n];
    let settings = Settings::discrete();
    let net = NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, schedule(), settings, |s, _| Ok(Oracle::new(s))).unwrap();
    let stream = Stream::new(5, 9);
    let path = net.path(&certain(&gpu, &labels, 10), Chain::default(), stream).unwrap();
    let path: Vec<Vec<f32>> = path.iter().map(|z| z.to_vec().unwrap()).collect();
    for t in 1..=2 {
        let (a, b, c) = s.coeffs(t).unwrap();
        let e = Tensor::normal(&gpu, &[n, 10], noise(stream, t), 0.0, 1.0).unwrap().to_vec().unwrap();
        for (i, z) in path[t].iter().enumerate() {
            let u = f64::from(u8::from(i % 10 == 3));
            let want = a * u + b * f64::from(path[t - 1][i]) + c.sqrt() * f64::from(e[i]);
            assert!((f64::from(*z) - want).abs() < 2e-6, "{t} {i}: {z} for {want}");
        }
    }
    let column = |k: usize| path[2].iter().skip(k).step_by(10).map(|&z| f64::from(z)).sum::<f64>() / n as f64;
    let want = 0.9f64.sqrt() - kept * 0.1f64.sqrt();
    // Five standard errors of a mean of 4000 numbers of variance 0.1.
    assert!((column(3) - want).abs() < 0.025 && column(4).abs() < 0.025, "{} {}", column(3), column(4));
    let others = path[2].iter().enumerate().filter(|(i, _)| i % 10 != 3).map(|(_, z)| f64::from(z * z));
    let seen = others.sum::<f64>() / (9 * n) as f64;
    near(seen, kept * kept + (1.0 - 0.9) - kept * kept * 0.9, 0.04);
}

#[test]
fn prior_divergence_in_numbers() {
    for (abar, dim, want) in [(0.1, 10, 0.076_802_6), (0.001, 10, 0.000_502_502), (0.5, 2, 0.443_147_2)] {
        near(Schedule::from_abar(&[abar, 0.99]).unwrap().prior(1.0, dim), want, 1e-6);
    }
    // And as the losses give it, in single precision.
    let gpu = gpu();
    let x = certain(&gpu, &[0, 7], 10);
    let s = Schedule::from_abar(&[0.001, 0.9]).unwrap();
    let net = NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, s, Settings::discrete(), |s, _| Ok(Oracle::new(s))).unwrap();
    let prior = net.losses(1, &x, &[0, 7], Stream::new(0, 0)).unwrap().prior.unwrap().item().unwrap();
    near(prior.into(), 0.000_502_502, 1e-6);
}

#[test]
fn uniform_logits_guess_the_mean_embedding() {
    let gpu = gpu();
    let mut names = Builder::new();
    let head = Head::new(&mut names.root(), 10, &Embedding::OneHot, Some(Readout::Linear)).unwrap();
    let cx = Cx::eval(&Arena::new(&gpu, &names, 0).unwrap());
    let guess = head.guess(&cx, &Tensor::zeros(&gpu, &[1, 10]).unwrap()).unwrap();
    assert!(guess.to_vec().unwrap().iter().all(|v| (v - 0.1).abs() < 1e-7));
    let label = Tensor::from_u32(&gpu, &[4], &[1]).unwrap();
    let error = super::head::mean_square_error(&guess, &head.embed(&cx, &label).unwrap()).unwrap();
    near(error.item().unwrap().into(), 0.9, 1e-6);
}

#[test]
fn softmax_times_embeddings_backward() {
    let gpu = gpu();
    let mut rng = Philox::new(1, 1);
    let mut draw = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let (n, m, d) = (4, 5, 3);
    let (logits, w, g) = (draw(n * m), draw(m * d), draw(n * d));
    let (tl, tw) = (
        Tensor::from_slice(&gpu, &logits, &[n, m]).unwrap().leaf(),
        Tensor::from_slice(&gpu, &w, &[m, d]).unwrap().leaf(),
    );
    let tg = Tensor::from_slice(&gpu, &g, &[n, d]).unwrap();
    let loss = tl.softmax(1).unwrap().matmul(&tw).unwrap().mul(&tg).unwrap().sum_all().unwrap();
    let grads = grad(&loss, &[&tl, &tw]).unwrap();
    let value = |logits: &[f64], w: &[f64]| -> f64 {
        (0..n)
            .map(|i| {
                let p = softmax(&logits[i * m..][..m]);
                (0..d).map(|k| f64::from(g[i * d + k]) * (0..m).map(|j| p[j] * w[j * d + k]).sum::<f64>()).sum::<f64>()
            })
            .sum()
    };
    let (logits, w) = (wide(&logits), wide(&w));
    let h = 1e-5;
    for (at, got) in grads[0].to_vec().unwrap().into_iter().enumerate() {
        let moved = |by: f64| value(&nudged(&logits, at, by), &w);
        assert!((f64::from(got) - (moved(h) - moved(-h)) / (2.0 * h)).abs() < 2e-6);
    }
    for (at, got) in grads[1].to_vec().unwrap().into_iter().enumerate() {
        let moved = |by: f64| value(&logits, &nudged(&w, at, by));
        assert!((f64::from(got) - (moved(h) - moved(-h)) / (2.0 * h)).abs() < 2e-6);
    }
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(x)).collect()
}

fn nudged(v: &[f64], at: usize, by: f64) -> Vec<f64> {
    let mut v = v.to_vec();
    v[at] += by;
    v
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// An arena of a noise schedule alone, beside a parameter that there always is.
fn gamma(noise: Noise, seed: u64) -> (GammaNet, Arena) {
    let mut names = Builder::new();
    let net = GammaNet::new(&mut names.root().sub("gamma"), noise).unwrap();
    names.root().param("none", &[1], Init::Zeros);
    (net, Arena::new(&gpu(), &names, seed).unwrap())
}

#[test]
fn the_linear_schedule_of_continuous_time() {
    let (net, arena) = gamma(Noise::Linear { low: -3.0, high: 6.0 }, 0);
    let curve = net.curve(&arena).unwrap();
    let times = [0.0, 0.5, 1.0];
    for (t, abar, snr, slope) in [
        (0.0, 0.002_472_6, 0.002_478_75, 0.022_308_8),
        (0.5, 0.182_425_5, 0.223_13, 2.008_17),
        (1.0, 0.952_574_1, 20.0855, 180.770),
    ] {
        near(curve.abar(t), abar, 2e-5);
        near(curve.snr(t), snr, 1e-5);
        near(curve.snr_slope(t), slope, 1e-5);
    }
    // Simpson's rule over the slope.
    let n = 2000;
    let weight = |k: usize| if k == 0 || k == n { 1.0 } else if k % 2 == 1 { 4.0 } else { 2.0 };
    let area: f64 = (0..=n).map(|k| weight(k) * curve.snr_slope(k as f64 / n as f64)).sum::<f64>() / (3 * n) as f64;
    near(area, 20.0831, 1e-5);
    near(area, curve.snr(1.0) - curve.snr(0.0), 1e-10);
    let t = Tensor::from_slice(arena.gpu(), &times.map(|t| t as f32), &[3]).unwrap();
    let (value, slope) = net.eval(&Cx::eval(&arena), &t).unwrap();
    assert_eq!(value.to_vec().unwrap(), [6.0, 1.5, -3.0]);
    assert_eq!(slope.to_vec().unwrap(), [-9.0; 3]);
}

#[test]
fn the_learned_schedule_falls_for_any_parameters() {
    for seed in 0..8 {
        let (net, arena) = gamma(Noise::Learned { low: -3.0, high: 6.0, width: 16 }, seed);
        if seed > 0 {
            let mut rng = Philox::new(seed, 7);
            let wild = arena.params().map(|e, t| {
                let values: Vec<f32> = (0..e.len).map(|_| (3.0 * rng.normal()) as f32).collect();
                Tensor::from_slice(t.gpu(), &values, &e.shape)
            });
            arena.set_values(&wild.unwrap()).unwrap();
        }
        let curve = net.curve(&arena).unwrap();
        let cx = Cx::eval(&arena);
        let times: Vec<f32> = (0..=64).map(|k| k as f32 / 64.0).collect();
        let t = Tensor::from_slice(arena.gpu(), &times, &[65]).unwrap();
        let (high, low) = net.ends(&cx, &t).unwrap();
        near(curve.gamma(0.0), high.item().unwrap().into(), 1e-6);
        near(curve.gamma(1.0), low.item().unwrap().into(), 1e-6);
        if seed == 0 {
            near(curve.gamma(0.0), 6.0, 1e-6);
            near(curve.gamma(1.0), -3.0, 1e-6);
        }
        let (value, slope) = net.eval(&cx, &t).unwrap();
        let (value, slope) = (value.to_vec().unwrap(), slope.to_vec().unwrap());
        for (i, &t) in times.iter().enumerate() {
            let t = f64::from(t);
            assert!(slope[i] < 0.0 && (i == 0 || value[i] < value[i - 1]), "{seed} {t}");
            assert!((f64::from(value[i]) - curve.gamma(t)).abs() < 2e-5, "{} for {}", value[i], curve.gamma(t));
            near(slope[i].into(), curve.slope(t), 1e-4);
            let h = 1e-5;
            near(curve.slope(t), (curve.gamma(t + h) - curve.gamma(t - h)) / (2.0 * h), 1e-5);
        }
        assert_eq!(curve.steps(100).unwrap().blocks(), 100);
    }
}

#[test]
fn a_deterministic_step_with_the_exact_embedding_keeps_the_noise() {
    let gpu = gpu();
    let labels = [0, 3, 1, 2, 2, 0];
    let (settings, noise_of) = (Settings::continuous(), Noise::Linear { low: -3.0, high: 6.0 });
    let net = NoPropCt::new(&gpu, 0, 4, &Embedding::OneHot, noise_of, settings, |s| Ok(Oracle::new(s))).unwrap();
    let curve = net.curve().unwrap();
    let (first, last) = (curve.abar(0.0), curve.abar(1.0));
    let mut rng = Philox::new(2, 2);
    let e: Vec<f64> = (0..24).map(|_| rng.normal()).collect();
    let u = |i: usize| f64::from(u8::from(labels[i / 4] as usize == i % 4));
    let at = |abar: f64| -> Vec<f64> { (0..24).map(|i| abar.sqrt() * u(i) + (1.0 - abar).sqrt() * e[i]).collect() };
    let start: Vec<f32> = at(first).into_iter().map(|v| v as f32).collect();
    let start = Tensor::from_slice(&gpu, &start, &[6, 4]).unwrap();
    for steps in [1, 7, 100] {
        let z = net.denoise(&certain(&gpu, &labels, 4), &start, steps, Sampler::Deterministic, Stream::new(0, 0)).unwrap();
        for (got, want) in z.to_vec().unwrap().into_iter().zip(at(last)) {
            assert!((f64::from(got) - want).abs() < 1e-5, "{steps} steps: {got} for {want}");
        }
    }
}

#[test]
fn a_flow_with_the_exact_velocity_arrives() {
    let gpu = gpu();
    let labels = [0u32, 3, 1, 2, 2, 0];
    let to = Tensor::from_u32(&gpu, &labels, &[6]).unwrap().one_hot(4).unwrap();
    let from = Tensor::normal(&gpu, &[6, 4], Stream::new(4, 4), 0.0, 1.0).unwrap();
    let velocity = to.sub(&from).unwrap();
    let settings = Settings::continuous();
    let net = NoPropFm::new(&gpu, 0, 4, &Embedding::OneHot, 0.0, settings, |s| Ok(Oracle::new(s))).unwrap();
    let largest = from.to_vec().unwrap().into_iter().fold(1.0, |m: f32, v| m.max(v.abs()));
    for steps in [1, 1000] {
        // Each addition may round by half a unit in the last place, and so did the velocity.
        let tolerance = (steps + 2) as f32 * 0.5 * f32::EPSILON * largest;
        let z = net.follow(&velocity, &from, steps).unwrap();
        for (got, want) in z.to_vec().unwrap().into_iter().zip(to.to_vec().unwrap()) {
            assert!((got - want).abs() < tolerance, "{steps} steps: {got} for {want}");
        }
    }
    let times = Tensor::from_slice(&gpu, &[0.0, 0.2, 0.5, 0.7, 0.99, 1.0], &[6]).unwrap();
    let z = between(&from, &to, &times).unwrap();
    for (got, want) in arrival(&z, &velocity, &times).unwrap().to_vec().unwrap().into_iter().zip(to.to_vec().unwrap()) {
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
    }
    assert!(net.follow(&velocity, &from, 0).unwrap_err().to_string().contains("0 steps"));
}

/// Parameters on the host, in double precision.
struct Host(Vec<shadegrad::nn::Weight>);

impl Host {
    fn new(arenas: &[&Arena]) -> Self {
        Self(arenas.iter().flat_map(|a| a.state().unwrap()).collect())
    }

    fn get(&self, end: &str) -> Vec<f64> {
        wide(&self.0.iter().find(|w| w.0.ends_with(end)).unwrap().2)
    }

    /// `x w^T + b` of the layer whose name ends so.
    fn linear(&self, end: &str, x: &[f64]) -> Vec<f64> {
        let (w, b) = (self.get(&format!("{end}.weight")), self.get(&format!("{end}.bias")));
        b.iter().enumerate().map(|(o, b)| b + x.iter().zip(&w[o * x.len()..]).map(|(x, w)| x * w).sum::<f64>()).collect()
    }

    fn row(&self, label: u32, dim: usize) -> Vec<f64> {
        self.get("embedding")[label as usize * dim..][..dim].to_vec()
    }

    /// `p W`.
    fn mix(&self, p: &[f64], dim: usize) -> Vec<f64> {
        let w = self.get("embedding");
        (0..dim).map(|k| p.iter().enumerate().map(|(j, p)| p * w[j * dim + k]).sum()).collect()
    }
}

fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

const LABELS: [u32; 5] = [2, 0, 1, 1, 2];
const STREAM: Stream = Stream { seed: 11, stream: 6 };
const DIM: usize = 4;

fn inputs(gpu: &Gpu) -> (Tensor, Vec<f64>) {
    let x = Tensor::normal(gpu, &[5, 2], Stream::new(8, 8), 0.0, 1.0).unwrap();
    let host = wide(&x.to_vec().unwrap());
    (x, host)
}

fn drawn(gpu: &Gpu, i: usize) -> Vec<f64> {
    wide(&Tensor::normal(gpu, &[5, DIM], noise(STREAM, i), 0.0, 1.0).unwrap().to_vec().unwrap())
}

fn noised(u: &[f64], abar: f64, e: &[f64], i: usize) -> Vec<f64> {
    (0..DIM).map(|k| abar.sqrt() * u[k] + (1.0 - abar).sqrt() * e[i * DIM + k]).collect()
}

fn discrete(gpu: &Gpu) -> NoPropDt<Joint> {
    let settings = Settings { eta: 0.7, ..Settings::discrete() };
    let embedding = Embedding::Learned { dim: DIM };
    NoPropDt::new(gpu, 0, 3, &embedding, schedule(), settings, |s, _| Ok(Joint::new(s, 2 + DIM, 3))).unwrap()
}

fn continuous(gpu: &Gpu) -> NoPropCt<Joint> {
    let settings = Settings { eta: 0.7, ..Settings::continuous() };
    let noise = Noise::Learned { low: -1.0, high: 3.0, width: 5 };
    NoPropCt::new(gpu, 0, 3, &Embedding::Learned { dim: DIM }, noise, settings, |s| Ok(Joint::new(s, 3 + DIM, 3))).unwrap()
}

fn flow(gpu: &Gpu, sigma: f32) -> NoPropFm<Joint> {
    let embedding = Embedding::Learned { dim: DIM };
    NoPropFm::new(gpu, 0, 3, &embedding, sigma, Settings::continuous(), |s| Ok(Joint::new(s, 3 + DIM, 3))).unwrap()
}

#[test]
fn the_loss_of_a_block_in_double_precision() {
    let gpu = gpu();
    let (x, xs) = inputs(&gpu);
    let net = discrete(&gpu);
    let s = schedule();
    for t in 1..=2 {
        let host = Host::new(&[net.arena(t).unwrap(), net.shared()]);
        let (e_last, e_before) = (drawn(&gpu, 0), drawn(&gpu, 1));
        let (mut classification, mut prior, mut error) = (0.0, 0.0, 0.0);
        for (i, &label) in LABELS.iter().enumerate() {
            let u = host.row(label, DIM);
            let last = noised(&u, s.abar(2).unwrap(), &e_last, i);
            let before = noised(&u, s.abar(t - 1).unwrap(), &e_before, i);
            classification -= softmax(&host.linear("out", &last))[label as usize].ln();
            prior += s.prior(u.iter().map(|v| v * v).sum(), DIM);
            let logits = host.linear("fc", &[&xs[2 * i..][..2], &before].concat());
            error += square_distance(&host.mix(&softmax(&logits), DIM), &u);
        }
        let total = (classification + prior + error * (2.0 / 2.0) * 0.7 * s.gain(t).unwrap()) / 5.0;
        let got = net.losses(t, &x, &LABELS, STREAM).unwrap();
        near(got.classification.unwrap().item().unwrap().into(), classification / 5.0, 1e-5);
        near(got.prior.unwrap().item().unwrap().into(), prior / 5.0, 1e-5);
        near(got.error.item().unwrap().into(), error / 5.0, 1e-5);
        near(got.total.item().unwrap().into(), total, 1e-5);
    }
}

#[test]
fn the_loss_in_continuous_time_in_double_precision() {
    let gpu = gpu();
    let (x, xs) = inputs(&gpu);
    let net = continuous(&gpu);
    let (host, curve) = (Host::new(&[net.arena()]), net.curve().unwrap());
    let times = wide(&Tensor::uniform(&gpu, &[5], noise(STREAM, 2), 0.0, 1.0).unwrap().to_vec().unwrap());
    let (e_last, e_t) = (drawn(&gpu, 0), drawn(&gpu, 1));
    let mut total = 0.0;
    for (i, &label) in LABELS.iter().enumerate() {
        let (u, t) = (host.row(label, DIM), times[i]);
        let last = noised(&u, curve.abar(1.0), &e_last, i);
        total -= softmax(&host.linear("out", &last))[label as usize].ln();
        let from = Schedule::from_abar(&[curve.abar(0.0), 0.99]).unwrap();
        total += from.prior(u.iter().map(|v| v * v).sum(), DIM);
        let logits = host.linear("fc", &[&xs[2 * i..][..2], &noised(&u, curve.abar(t), &e_t, i), &[t]].concat());
        total += 0.5 * 0.7 * curve.snr_slope(t) * square_distance(&host.mix(&softmax(&logits), DIM), &u);
    }
    near(net.losses(&x, &LABELS, STREAM).unwrap().total.item().unwrap().into(), total / 5.0, 1e-5);
}

#[test]
fn the_loss_of_flow_matching_in_double_precision() {
    let gpu = gpu();
    let (x, xs) = inputs(&gpu);
    let net = flow(&gpu, 0.3);
    let host = Host::new(&[net.arena()]);
    let times = wide(&Tensor::uniform(&gpu, &[5], noise(STREAM, 2), 0.0, 1.0).unwrap().to_vec().unwrap());
    let (from, spread) = (drawn(&gpu, 0), drawn(&gpu, 1));
    let mut total = 0.0;
    for (i, &label) in LABELS.iter().enumerate() {
        let (u, t) = (host.row(label, DIM), times[i]);
        let z: Vec<f64> = (0..DIM)
            .map(|k| t * u[k] + (1.0 - t) * from[i * DIM + k] + f64::from(0.3f32) * spread[i * DIM + k])
            .collect();
        let v = host.mix(&host.linear("fc", &[&xs[2 * i..][..2], &z, &[t]].concat()), DIM);
        total += (0..DIM).map(|k| (v[k] - (u[k] - from[i * DIM + k])).powi(2)).sum::<f64>();
        let end: Vec<f64> = (0..DIM).map(|k| z[k] + (1.0 - t) * v[k]).collect();
        total -= softmax(&host.linear("out", &end))[label as usize].ln();
    }
    near(net.losses(&x, &LABELS, STREAM).unwrap().total.item().unwrap().into(), total / 5.0, 1e-5);
}

/// Compares the gradients in `arenas` with differences of `loss` along a random direction in each parameter.
fn check_gradients(arenas: &[&Arena], loss: impl Fn() -> f64) {
    let h = 0.02f32;
    for arena in arenas {
        let (mut state, grads) = (arena.state().unwrap(), arena.grads().clone());
        for at in 0..arena.table().len() {
            let grad = wide(&grads.tensors()[at].to_vec().unwrap());
            let mut rng = Philox::new(9, at as u64);
            let way: Vec<f64> = grad.iter().map(|_| rng.normal()).collect();
            let norm = way.iter().map(|v| v * v).sum::<f64>().sqrt();
            let before = state[at].2.clone();
            let mut moved = |by: f32| {
                let values = before.iter().zip(&way).map(|(v, w)| v + by * (w / norm) as f32).collect();
                state[at].2 = values;
                arena.load(&state).unwrap();
                loss()
            };
            // Four points: what is left is of the fourth order.
            let (near_by, far) = (moved(h) - moved(-h), moved(2.0 * h) - moved(-2.0 * h));
            let difference = (8.0 * near_by - far) / (12.0 * f64::from(h));
            moved(0.0);
            let got: f64 = grad.iter().zip(&way).map(|(g, w)| g * w / norm).sum();
            let name = &arena.table().entries()[at].name;
            assert!((got - difference).abs() < 4e-4 * (1.0 + got.abs()), "{name}: {got} for {difference}");
        }
    }
}

#[test]
fn gradients_reach_embeddings_and_schedule_by_every_way() {
    let gpu = gpu();
    let (x, _) = inputs(&gpu);
    let value = |l: Losses| f64::from(l.total.item().unwrap());
    let net = discrete(&gpu);
    let arenas = [net.arena(2).unwrap(), net.shared()];
    crate::papers::shared::joint::backward_into(&net.losses(2, &x, &LABELS, STREAM).unwrap().total, &arenas).unwrap();
    check_gradients(&arenas, || value(net.losses(2, &x, &LABELS, STREAM).unwrap()));
    let net = continuous(&gpu);
    net.arena().backward(&net.losses(&x, &LABELS, STREAM).unwrap().total).unwrap();
    check_gradients(&[net.arena()], || value(net.losses(&x, &LABELS, STREAM).unwrap()));
    let net = flow(&gpu, 0.0);
    net.arena().backward(&net.losses(&x, &LABELS, STREAM).unwrap().total).unwrap();
    check_gradients(&[net.arena()], || value(net.losses(&x, &LABELS, STREAM).unwrap()));
}

#[test]
fn the_distance_readout_in_double_precision() {
    let gpu = gpu();
    let mut names = Builder::new();
    let readout = Some(Readout::Distance { sigma: 0.5 });
    let head = Head::new(&mut names.root(), 3, &Embedding::Learned { dim: DIM }, readout).unwrap();
    let arena = Arena::new(&gpu, &names, 0).unwrap();
    let z = Tensor::normal(&gpu, &[1, DIM], STREAM, 0.0, 1.0).unwrap();
    let host = Host::new(&[&arena]);
    let v = host.mix(&softmax(&host.linear("out", &wide(&z.to_vec().unwrap()))), DIM);
    let scores: Vec<f64> = (0..3).map(|y| -square_distance(&v, &host.row(y, DIM)) / (2.0 * 0.25)).collect();
    let got = head.scores(&Cx::eval(&arena), &z).unwrap().to_vec().unwrap();
    for (got, want) in got.into_iter().zip(scores) {
        assert!((f64::from(got) - want).abs() < 1e-5, "{got} for {want}");
    }
}

#[test]
fn times_become_sines_and_cosines() {
    let gpu = gpu();
    let t = Tensor::from_slice(&gpu, &[0.0, 0.004], &[2]).unwrap();
    let e = time_embedding(&t).unwrap().to_vec().unwrap();
    assert!(e[..32].iter().all(|v| *v == 0.0) && e[32..64].iter().all(|v| (*v - 1.0).abs() < 1e-6));
    for k in 0..32 {
        let angle = 4.0 * 10_000f64.powf(-f64::from(k) / 32.0);
        let at = 64 + k as usize;
        assert!((f64::from(e[at]) - angle.sin()).abs() < 1e-5 && (f64::from(e[at + 32]) - angle.cos()).abs() < 1e-5);
    }
}

#[test]
fn parameter_counts_of_the_paper() {
    let count = |net: PaperNet| {
        let mut names = Builder::new();
        net.build(&mut names.root()).unwrap();
        names.tables().unwrap().0.numel()
    };
    let (mnist, cifar) = ([28, 28, 1], [32, 32, 3]);
    assert_eq!(count(PaperNet::discrete(cifar, 10, 10)), 2_493_386);
    assert_eq!(count(PaperNet::discrete(mnist, 10, 10)), 2_001_290);
    assert_eq!(count(PaperNet::discrete(cifar, 100, 100)), 2_528_036);
    assert_eq!(count(PaperNet::continuous(cifar, 10, 10)), 2_441_162);
    assert_eq!(count(PaperNet::continuous(mnist, 10, 10)), 1_949_066);
}
