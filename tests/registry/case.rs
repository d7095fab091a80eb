//! One row of the registry, and what is checked of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use ndarray::{ArrayD, IxDyn};
use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::rng::Philox;
use shadegrad::{DType, Error, Gpu, Options, Precision, Result, Tensor};

use crate::check::{Check, Outcome};
use crate::oracle::A;

static DEVICE: OnceLock<(Gpu, Options)> = OnceLock::new();

/// Opens the device that the suite shall run on, with run-time checks on, sentinels behind every buffer, fresh memory full of
/// NaN. Without this call the first check opens the one that the environment chooses.
///
/// # Errors
/// If there is no such device, or one was opened before.
pub fn open(options: Options) -> Result<Gpu> {
    let gpu = Gpu::new(guarded(options.clone()))?;
    DEVICE.set((gpu.clone(), options)).map_err(|_| Error::value("open", "the suite has its device already"))?;
    Ok(gpu)
}

fn guarded(options: Options) -> Options {
    Options { sentinels: true, checked: Some(true), ..options }
}

/// Environment variables (`SHADEGRAD_CLASS`, `SHADEGRAD_DISABLE`, `SHADEGRAD_LIMITS`) choose kernels and features as elsewhere.
fn device() -> &'static (Gpu, Options) {
    DEVICE.get_or_init(|| {
        let options = Options::from_env().expect("environment");
        (Gpu::new(guarded(options.clone())).expect("a GPU driver"), options)
    })
}

/// The device of all rows.
pub fn gpu() -> Gpu {
    device().0.clone()
}

/// The same device opened once more, so that its counters and memory are not shared, with some options changed.
pub fn own(change: impl FnOnce(&mut Options)) -> Gpu {
    let mut options = device().1.clone();
    change(&mut options);
    Gpu::new(options).expect("a device that opened before")
}

/// How the elements of an input are drawn.
enum Draw {
    Uniform(f64, f64),
    /// Uniform in (-1, 1), but at least this far from zero.
    Away(f64),
    /// Pairwise different by at least 0.01, in random order.
    Distinct,
    Ints(u32),
    Fixed(Vec<f64>),
    FixedInts(Vec<u32>),
}

/// One input of a row.
pub struct Input {
    shape: Vec<usize>,
    draw: Draw,
    /// Values that halves can hold.
    halves: bool,
}

fn input(shape: &[usize], draw: Draw) -> Input {
    Input { shape: shape.to_vec(), draw, halves: false }
}

/// Uniform in (-1, 1).
pub fn rand(shape: &[usize]) -> Input {
    input(shape, Draw::Uniform(-1.0, 1.0))
}
/// Uniform in (lo, hi).
pub fn range(shape: &[usize], lo: f64, hi: f64) -> Input {
    input(shape, Draw::Uniform(lo, hi))
}
/// Uniform in (-1, 1), at least `gap` away from zero: for functions with a kink there.
pub fn away(shape: &[usize], gap: f64) -> Input {
    input(shape, Draw::Away(gap))
}
/// Pairwise different: for maxima and sorting, whose gradients jump at ties.
pub fn distinct(shape: &[usize]) -> Input {
    input(shape, Draw::Distinct)
}
/// Indices below `max`.
pub fn ints(shape: &[usize], max: u32) -> Input {
    input(shape, Draw::Ints(max))
}
/// The values given.
pub fn fixed(values: &[f64], shape: &[usize]) -> Input {
    input(shape, Draw::Fixed(values.to_vec()))
}
/// The indices given.
pub fn fixed_ints(values: &[u32], shape: &[usize]) -> Input {
    input(shape, Draw::FixedInts(values.to_vec()))
}

impl Input {
    fn is_float(&self) -> bool {
        !matches!(self.draw, Draw::Ints(_) | Draw::FixedInts(_))
    }

    /// The values, rounded to f32 (or further, to halves) so that both sides compute from the same numbers.
    fn values(&self, rng: &mut Philox) -> A {
        let n: usize = self.shape.iter().product();
        let mut uniform = |lo: f64, hi: f64| lo + (hi - lo) * rng.uniform_f64();
        let data: Vec<f64> = match &self.draw {
            Draw::Uniform(lo, hi) => (0..n).map(|_| uniform(*lo, *hi)).collect(),
            Draw::Away(gap) => (0..n)
                .map(|_| {
                    let x = uniform(-1.0, 1.0);
                    x.signum() * (gap + (1.0 - gap) * x.abs())
                })
                .collect(),
            Draw::Distinct => {
                let order = rng.permutation(n as u32);
                order.iter().map(|&i| 0.02 * (f64::from(i) - n as f64 / 2.0) + 0.005 * rng.uniform_f64()).collect()
            }
            Draw::Ints(max) => (0..n).map(|_| f64::from(rng.next_u32() % max)).collect(),
            Draw::Fixed(v) => v.clone(),
            Draw::FixedInts(v) => v.iter().map(|&x| f64::from(x)).collect(),
        };
        let round = |x: f64| if self.halves { half::f16::from_f64(x).to_f64() } else { f64::from(x as f32) };
        let data = data.into_iter().map(round).collect();
        ArrayD::from_shape_vec(IxDyn(&self.shape), data).expect("as many values as the shape has elements")
    }

    fn tensor(&self, values: &A) -> Result<Tensor> {
        if self.is_float() {
            let data: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            Tensor::from_slice(&gpu(), &data, &self.shape)
        } else {
            let data: Vec<u32> = values.iter().map(|&x| x as u32).collect();
            Tensor::from_u32(&gpu(), &data, &self.shape)
        }
    }
}

type Run = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;
type Aspect = fn(&Case) -> Outcome;
type Oracle = Box<dyn Fn(&[A]) -> A + Send + Sync>;

/// A row: an operation on given inputs, and its oracle.
pub struct Case {
    name: String,
    inputs: Vec<Input>,
    run: Run,
    oracle: Oracle,
    grad: bool,
    second: bool,
    fixed_inputs: Vec<usize>,
    tol: f64,
    relative: bool,
}

/// Allowed error of values and first gradients, as a share of the largest element.
const TOLERANCE: f64 = 1e-5;
/// The same for second derivatives, which pass through more rounding and through differences of differences.
const SECOND_TOLERANCE: f64 = 2e-4;

/// Elements of an input that central differences are taken of at most, drawn by chance.
const DIFFERENCES: usize = 256;

impl Case {
    /// A row named `family/row`. Gradients of all float inputs are checked, to second order, unless told otherwise.
    pub fn new(
        name: impl Into<String>,
        inputs: Vec<Input>,
        run: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
        oracle: impl Fn(&[A]) -> A + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            inputs,
            run: Box::new(run),
            oracle: Box::new(oracle),
            grad: true,
            second: true,
            fixed_inputs: Vec::new(),
            tol: 1.0,
            relative: false,
        }
    }

    /// Whether gradients are checked: not for operations that have none, nor for shapes too large for differences.
    pub fn grad(mut self, on: bool) -> Self {
        self.grad = on;
        self
    }
    /// First gradients only, for the reason given.
    pub fn no_second_order(mut self, _reason: &str) -> Self {
        self.second = false;
        self
    }
    /// Float inputs that are constants: masks, grids of labels.
    pub fn inputs_without_grad(mut self, which: &[usize]) -> Self {
        self.fixed_inputs = which.to_vec();
        self
    }
    /// Multiplies the tolerance; the caller says why in a comment.
    pub fn tol(mut self, factor: f64) -> Self {
        self.tol = factor;
        self
    }
    /// Compares each value relative to itself instead of to the largest.
    pub fn relative(mut self) -> Self {
        self.relative = true;
        self
    }

    /// The same row in a mixed region. Its inputs, and what its gradients are multiplied by, are numbers that halves can
    /// hold: rounding them changes nothing, products of two are exact in f32, and every value, first and second
    /// derivative must come out as close to the oracle as in f32.
    pub fn mixed(mut self) -> Self {
        self.name = self.name.replace('/', "/mixed_");
        for input in self.inputs.iter_mut().filter(|i| i.is_float()) {
            input.halves = true;
        }
        let run = self.run;
        self.run = Box::new(move |t| Precision::Mixed.scope(|| run(t)));
        self
    }

    /// Uniform numbers in (-1, 1) as the row's inputs are rounded.
    fn directions(&self, shape: &[usize]) -> Input {
        Input { halves: self.inputs.iter().any(|i| i.halves), ..rand(shape) }
    }

    /// Adds to the name.
    pub fn named(mut self, suffix: &str) -> Self {
        self.name += suffix;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checks of this row.
    pub fn checks(self) -> Vec<Check> {
        let case = Arc::new(self);
        let mut aspects: Vec<(&str, Aspect)> = vec![("forward", Self::forward)];
        if case.grad {
            aspects.push(("grad", Self::first_order));
        }
        if case.grad && case.second {
            aspects.push(("grad_of_grad", Self::second_order));
        }
        aspects
            .into_iter()
            .map(|(aspect, check)| {
                let case = case.clone();
                Check::new(format!("{}/{aspect}", case.name), move || check(&case))
            })
            .collect()
    }

    fn rng(&self, stream: u64) -> Philox {
        let seed = self
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        Philox::new(seed, stream)
    }

    fn values(&self) -> Vec<A> {
        let mut rng = self.rng(0);
        self.inputs.iter().map(|i| i.values(&mut rng)).collect()
    }

    fn tensors(&self, values: &[A], leaves: bool) -> Result<Vec<Tensor>> {
        let make = |(i, (input, v)): (usize, (&Input, &A))| {
            let t = input.tensor(v)?;
            Ok(if leaves && self.differentiated(i) { t.leaf() } else { t })
        };
        self.inputs.iter().zip(values).enumerate().map(make).collect()
    }

    fn differentiated(&self, i: usize) -> bool {
        self.inputs[i].is_float() && !self.fixed_inputs.contains(&i)
    }

    /// Indices of the inputs that gradients are taken of.
    fn wanted(&self) -> Vec<usize> {
        (0..self.inputs.len()).filter(|&i| self.differentiated(i)).collect()
    }

    fn forward(&self) -> Outcome {
        let values = self.values();
        let tensors = self.tensors(&values, true)?;
        let before: Vec<Vec<u8>> = tensors.iter().map(Tensor::to_bytes).collect::<Result<_>>()?;
        let out = (self.run)(&tensors)?;
        note_op(&out);
        let expected = (self.oracle)(&values);
        if out.shape() != expected.shape() {
            return Err(format!("shape {:?}, the oracle has {:?}", out.shape(), expected.shape()).into());
        }
        let got = host(&out)?;
        compare("value", &got, expected.as_slice().expect("row-major"), self.tol * TOLERANCE, self.relative)?;
        let again = (self.run)(&tensors)?;
        if again.to_bytes()? != out.to_bytes()? {
            return Err("two runs differ".into());
        }
        for (i, (t, b)) in tensors.iter().zip(&before).enumerate() {
            if t.to_bytes()? != *b {
                return Err(format!("input {i} was changed").into());
            }
        }
        gpu().check_sentinels().map_err(|e| e.to_string())?;
        Ok(())
    }

    /// `<weights, oracle(x)>`: the scalar whose gradients are compared.
    fn scalar(&self, weights: &A, x: &[A]) -> f64 {
        (weights * &(self.oracle)(x)).sum()
    }

    fn weights(&self, shape: &[usize]) -> A {
        self.directions(shape).values(&mut self.rng(1))
    }

    fn first_order(&self) -> Outcome {
        let values = self.values();
        let tensors = self.tensors(&values, true)?;
        let out = (self.run)(&tensors)?;
        let weights = self.weights(out.shape());
        let cotangent = rand(out.shape()).tensor(&weights)?;
        let wanted = self.wanted();
        let targets: Vec<&Tensor> = wanted.iter().map(|&i| &tensors[i]).collect();
        // Differences at all elements, or at some of the many.
        let mut rng = self.rng(3);
        let expected: Vec<Vec<(usize, f64)>> = wanted
            .iter()
            .map(|&i| {
                let n = values[i].len();
                let mut at = if n <= DIFFERENCES { (0..n as u32).collect() } else { rng.permutation(n as u32) };
                at.truncate(DIFFERENCES);
                at.into_iter().map(|j| (j as usize, self.slope(&weights, &values, i, j as usize))).collect()
            })
            .collect();
        // Both forms of the backward pass: the fused one, and the one that is differentiable again.
        let mut first: Option<Vec<Vec<f64>>> = None;
        for create_graph in [false, true] {
            if create_graph && !self.second {
                continue;
            }
            let options = GradOptions { create_graph, retain_graph: true, allow_unused: false };
            let grads = grad_with(&[&out], &targets, Some(&[&cotangent]), options)?;
            let mut all = Vec::new();
            for ((&i, grad), expected) in wanted.iter().zip(grads).zip(&expected) {
                let grad = grad.ok_or("no gradient")?;
                note_op(&grad);
                let got = host(&grad)?;
                let (at, slopes): (Vec<usize>, Vec<f64>) = expected.iter().copied().unzip();
                let here: Vec<f64> = at.iter().map(|&j| got[j]).collect();
                let what = format!("gradient of input {i} (create_graph {create_graph})");
                compare(&what, &here, &slopes, self.tol * TOLERANCE, false)?;
                all.push(got);
            }
            // Where differences were taken of some elements only, the two forms answer for each other at the rest.
            for (i, (a, b)) in first.iter().flatten().zip(&all).enumerate() {
                compare(&format!("gradient {i}, both forms"), b, a, self.tol * TOLERANCE, false)?;
            }
            first = Some(all);
        }
        // One of several inputs alone: a rule that computes what nobody asked for in its place would go unnoticed.
        if wanted.len() > 1 && !self.inputs.iter().any(|i| i.halves) {
            let alone = self.rng(4).next_u32() as usize % wanted.len();
            let options = GradOptions { create_graph: false, retain_graph: true, allow_unused: false };
            let grads = grad_with(&[&out], &[targets[alone]], Some(&[&cotangent]), options)?;
            let got = host(grads[0].as_ref().ok_or("no gradient")?)?;
            let what = format!("gradient of input {} alone", wanted[alone]);
            let all = first.as_ref().and_then(|f| f.get(alone)).ok_or("no gradient")?;
            compare(&what, &got, all, self.tol * TOLERANCE, false)?;
        }
        gpu().check_sentinels().map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Central difference along element `j` of input `i`.
    fn slope(&self, weights: &A, values: &[A], i: usize, j: usize) -> f64 {
        const H: f64 = 1e-5;
        let mut x = values.to_vec();
        let at = |x: &mut Vec<A>, v: f64| x[i].as_slice_mut().expect("row-major")[j] = v;
        let centre = values[i].as_slice().expect("row-major")[j];
        at(&mut x, centre + H);
        let plus = self.scalar(weights, &x);
        at(&mut x, centre - H);
        (plus - self.scalar(weights, &x)) / (2.0 * H)
    }

    /// Hessian-vector products: `u . H v` for a random `v` and several `u`, against mixed differences.
    fn second_order(&self) -> Outcome {
        const H: f64 = 2e-4;
        let values = self.values();
        let tensors = self.tensors(&values, true)?;
        let out = (self.run)(&tensors)?;
        let weights = self.weights(out.shape());
        let cotangent = rand(out.shape()).tensor(&weights)?;
        let wanted = self.wanted();
        let targets: Vec<&Tensor> = wanted.iter().map(|&i| &tensors[i]).collect();
        let options = GradOptions { create_graph: true, ..GradOptions::default() };
        let grads = grad_with(&[&out], &targets, Some(&[&cotangent]), options)?;
        let grads: Vec<Tensor> = grads.into_iter().map(|g| g.ok_or("no gradient")).collect::<Result<_, _>>()?;
        let mut rng = self.rng(2);
        let mut directions =
            || -> Vec<A> { wanted.iter().map(|&i| self.directions(&self.inputs[i].shape).values(&mut rng)).collect() };
        let v = directions();
        let v_tensors: Vec<Tensor> = v.iter().map(|d| Ok(rand(d.shape()).tensor(d)?.leaf())).collect::<Result<_>>()?;
        let products = grad_with(
            &grads.iter().collect::<Vec<_>>(),
            &targets,
            Some(&v_tensors.iter().collect::<Vec<_>>()),
            GradOptions { allow_unused: true, create_graph: true, ..GradOptions::default() },
        )?;
        products.iter().flatten().for_each(note_op);
        let products: Vec<Option<Vec<f64>>> =
            products.into_iter().map(|p| p.map(|t| host(&t)).transpose()).collect::<Result<_>>()?;
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let u = directions();
            let dot: f64 = products
                .iter()
                .zip(&u)
                .filter_map(|(p, u)| p.as_ref().map(|p| p.iter().zip(u.iter()).map(|(a, b)| a * b).sum::<f64>()))
                .sum();
            let shifted = |a: f64, b: f64| {
                let mut x = values.clone();
                for (k, &i) in wanted.iter().enumerate() {
                    x[i] = &x[i] + &(&u[k] * (a * H)) + &v[k] * (b * H);
                }
                self.scalar(&weights, &x)
            };
            let mixed =
                (shifted(1.0, 1.0) - shifted(1.0, -1.0) - shifted(-1.0, 1.0) + shifted(-1.0, -1.0)) / (4.0 * H * H);
            got.push(dot);
            expected.push(mixed);
        }
        compare("Hessian-vector product", &got, &expected, self.tol * SECOND_TOLERANCE, false)?;
        gpu().check_sentinels().map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// The elements of any tensor as f64.
fn host(t: &Tensor) -> Result<Vec<f64>> {
    Ok(match t.dtype() {
        DType::U32 => t.to_vec_u32()?.into_iter().map(f64::from).collect(),
        _ => t.to_vec()?.into_iter().map(f64::from).collect(),
    })
}

/// Fails with the worst element if any differs by more than `tol` of the largest (or of itself, if `relative`).
fn compare(what: &str, got: &[f64], expected: &[f64], tol: f64, relative: bool) -> Outcome {
    if got.len() != expected.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), expected.len()).into());
    }
    let largest = expected.iter().filter(|x| x.is_finite()).fold(1e-3f64, |m, x| m.max(x.abs()));
    let mut worst = (0.0, 0);
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let excess = if g == e || (g.is_nan() && e.is_nan()) {
            0.0
        } else if !g.is_finite() || !e.is_finite() {
            f64::INFINITY
        } else {
            (g - e).abs() / (if relative { e.abs().max(1e-6) } else { largest } * tol)
        };
        if excess > worst.0 {
            worst = (excess, i);
        }
    }
    let (excess, i) = worst;
    if excess > 1.0 {
        return Err(format!(
            "{what}: element {i} of {} is {:e}, expected {:e}: {excess:.1} times the tolerance (largest element {largest:e})",
            got.len(),
            got[i],
            expected[i]
        )
        .into());
    }
    Ok(())
}

fn seen_ops() -> &'static Mutex<BTreeSet<&'static str>> {
    static SEEN: OnceLock<Mutex<BTreeSet<&'static str>>> = OnceLock::new();
    SEEN.get_or_init(Mutex::default)
}

/// Notes the operations behind `t`, for [`all_ops_covered`].
fn note_op(t: &Tensor) {
    seen_ops().lock().expect("no panic while held").extend(t.graph_ops());
}

/// The operations recorded by the sources in `folder` that came out of no row run so far. An operation without a gradient leaves
/// no trace on constants such as labels: for it a row in `rows` that bears its name will do.
pub fn uncovered(folder: &Path, rows: &[String]) -> Vec<String> {
    let seen = seen_ops().lock().expect("no panic while held");
    let mut missing = BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("src/ops") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        for (marker, is_cut) in [(".record(\"", false), (".record_cut(\"", true)] {
            for part in text.split(marker).skip(1) {
                let name = part.split('"').next().unwrap_or_default();
                let named = is_cut && rows.iter().any(|r| r.contains(name));
                if !seen.contains(name) && !named {
                    missing.insert(name.to_string());
                }
            }
        }
    }
    missing.into_iter().collect()
}
