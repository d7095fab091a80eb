//! Random small programs of operations, run on the device and by the references in double precision: values of every step,
//! gradients, and three steps of training.
//!
//! A program follows from its number alone. One that fails is reported from the first step whose value is wrong, with only the
//! steps that lead there.

use ndarray::{ArrayD, IxDyn};
use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::rng::Philox;
use shadegrad::{Conv2d, Pool2d, Result, Tensor};

use crate::case::gpu;
use crate::check::{Check, Failed};
use crate::oracle::{self, A};

/// Programs that are checks of the suite.
const PROGRAMS: u64 = 150;
/// Largest number of elements of a value.
const ELEMENTS: usize = 600;
/// Allowed error of a value, as a share of its largest element, after several operations.
const TOLERANCE: f64 = 1e-4;

type Engine = Box<dyn Fn(&[&Tensor]) -> Result<Tensor> + Send + Sync>;
type Oracle = Box<dyn Fn(&[&A]) -> A + Send + Sync>;

enum Node {
    Leaf(A),
    Step { what: String, inputs: Vec<usize>, engine: Engine, oracle: Oracle },
}

/// Nodes in the order of computation.
struct Program(Vec<Node>);

fn below(rng: &mut Philox, n: usize) -> usize {
    rng.next_u32() as usize % n
}

fn noise(rng: &mut Philox, shape: &[usize]) -> A {
    // From f32, so that both sides begin with the same numbers.
    ArrayD::from_shape_fn(IxDyn(shape), |_| f64::from((2.0 * rng.uniform_f64() - 1.0) as f32))
}

fn step(
    what: impl Into<String>,
    inputs: &[usize],
    engine: impl Fn(&[&Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    oracle: impl Fn(&[&A]) -> A + Send + Sync + 'static,
) -> Node {
    Node::Step { what: what.into(), inputs: inputs.to_vec(), engine: Box::new(engine), oracle: Box::new(oracle) }
}

type Unary = (&'static str, fn(&Tensor) -> Result<Tensor>, fn(f64) -> f64);

const UNARY: [Unary; 12] = [
    ("sin", Tensor::sin, f64::sin),
    ("cos", Tensor::cos, f64::cos),
    ("tanh", Tensor::tanh, f64::tanh),
    ("sigmoid", Tensor::sigmoid, oracle::elementwise::sigmoid),
    ("softplus", Tensor::softplus, oracle::elementwise::softplus),
    ("silu", Tensor::silu, oracle::elementwise::silu),
    ("gelu", Tensor::gelu, oracle::elementwise::gelu),
    ("erf", Tensor::erf, oracle::elementwise::erf),
    ("square", Tensor::square, oracle::elementwise::square),
    ("neg", Tensor::neg, |x| -x),
    ("exp", Tensor::exp, f64::exp),
    ("expm1", Tensor::expm1, f64::exp_m1),
];

type Binary = (&'static str, fn(&Tensor, &Tensor) -> Result<Tensor>, fn(f64, f64) -> f64);

const BINARY: [Binary; 4] = [
    ("add", Tensor::add, |a, b| a + b),
    ("sub", Tensor::sub, |a, b| a - b),
    ("mul", Tensor::mul, |a, b| a * b),
    ("maximum", Tensor::maximum, f64::max),
];

impl Program {
    fn new(number: u64) -> Self {
        let mut rng = Philox::new(0x70726F67, number);
        let mut program = Self(Vec::new());
        for _ in 0..2 + below(&mut rng, 2) {
            let shape = shape(&mut rng);
            program.0.push(Node::Leaf(noise(&mut rng, &shape)));
        }
        for _ in 0..3 + below(&mut rng, 8) {
            let values = program.oracle(&program.leaves());
            program.grow(&mut rng, &values);
            // Values stay near 1: differences of huge numbers say nothing about an operation.
            let last = program.0.len() - 1;
            let values = program.oracle(&program.leaves());
            let size = largest(&values[last]);
            if size > 3.0 {
                let c = (1.0 / size) as f32;
                let scaled =
                    step(format!("mul_scalar {c}"), &[last], move |x| x[0].mul_scalar(c), move |x| x[0] * f64::from(c));
                program.0.push(scaled);
            }
        }
        program
    }

    fn leaves(&self) -> Vec<A> {
        self.0.iter().filter_map(|n| if let Node::Leaf(x) = n { Some(x.clone()) } else { None }).collect()
    }

    /// Adds a step on random values, and the leaves that it needs.
    fn grow(&mut self, rng: &mut Philox, values: &[A]) {
        // The newest values are taken more often, so that programs are deep.
        let pick = |rng: &mut Philox| values.len() - 1 - below(rng, values.len()).min(below(rng, values.len()));
        let i = pick(rng);
        let shape = values[i].shape().to_vec();
        let rank = shape.len();
        let axis = below(rng, rank);
        let node = match below(rng, 17) {
            0..3 => {
                let (name, engine, want) = UNARY[below(rng, UNARY.len())];
                step(name, &[i], move |x| engine(x[0]), move |x| x[0].mapv(want))
            }
            3..6 => {
                let (name, engine, want) = BINARY[below(rng, BINARY.len())];
                let other =
                    (0..values.len()).filter(|&j| fits(&shape, values[j].shape())).nth(below(rng, values.len()));
                let j = other.unwrap_or_else(|| {
                    // A leaf that is repeated along some of the axes.
                    let small: Vec<usize> = shape.iter().map(|&d| if below(rng, 3) == 0 { 1 } else { d }).collect();
                    let from = below(rng, rank);
                    self.0.push(Node::Leaf(noise(rng, &small[from..])));
                    self.0.len() - 1
                });
                step(name, &[i, j], move |x| engine(x[0], x[1]), move |x| oracle::elementwise::binary(x[0], x[1], want))
            }
            6 if rank >= 2 => {
                let (rows, cols) = (shape[rank - 1], 1 + below(rng, 6));
                self.0.push(Node::Leaf(noise(rng, &[rows, cols])));
                let w = self.0.len() - 1;
                step("matmul", &[i, w], |x| x[0].matmul(x[1]), |x| oracle::matmul::matmul(x[0], x[1]))
            }
            7 if rank >= 2 => {
                let outputs = 1 + below(rng, 9);
                self.0.push(Node::Leaf(noise(rng, &[outputs, shape[rank - 1]])));
                self.0.push(Node::Leaf(noise(rng, &[outputs])));
                let w = self.0.len() - 2;
                step(
                    "linear",
                    &[i, w, w + 1],
                    |x| x[0].linear(x[1], Some(x[2])),
                    |x| oracle::matmul::linear(x[0], x[1], Some(x[2])),
                )
            }
            8 => {
                let keep = rank == 1 || below(rng, 2) == 0;
                match below(rng, 3) {
                    0 => step(
                        format!("sum {axis} {keep}"),
                        &[i],
                        move |x| x[0].sum(&[axis], keep),
                        move |x| oracle::reduce::sum(x[0], &[axis], keep),
                    ),
                    1 => step(
                        format!("mean {axis} {keep}"),
                        &[i],
                        move |x| x[0].mean(&[axis], keep),
                        move |x| oracle::reduce::mean(x[0], &[axis], keep),
                    ),
                    _ => step(
                        format!("logsumexp {axis} {keep}"),
                        &[i],
                        move |x| x[0].logsumexp(&[axis], keep),
                        move |x| oracle::reduce::logsumexp(x[0], &[axis], keep),
                    ),
                }
            }
            9 => step(
                format!("softmax {axis}"),
                &[i],
                move |x| x[0].softmax(axis),
                move |x| oracle::softmax::softmax(x[0], axis),
            ),
            10 => step(
                format!("cumsum {axis}"),
                &[i],
                move |x| x[0].cumsum(axis),
                move |x| oracle::scan::cumsum(x[0], axis),
            ),
            11 => {
                let mut order: Vec<usize> = rng.permutation(rank as u32).into_iter().map(|a| a as usize).collect();
                if order.is_sorted() {
                    order.reverse();
                }
                let other = order.clone();
                step(
                    format!("permute {order:?}"),
                    &[i],
                    move |x| x[0].permute(&order),
                    move |x| oracle::index::permute(x[0], &other),
                )
            }
            12 => {
                let n = shape[axis];
                let start = below(rng, n);
                let end = start + 1 + below(rng, n - start);
                let by = 1 + below(rng, 2);
                step(
                    format!("slice {axis} {start}..{end} by {by}"),
                    &[i],
                    move |x| x[0].slice(axis, start, end, by),
                    move |x| oracle::index::slice(x[0], axis, start, end, by),
                )
            }
            13 => step(
                format!("concat with its mirror image {axis}"),
                &[i],
                move |x| Tensor::concat(&[x[0], &x[0].flip(&[axis])?], axis),
                move |x| oracle::index::concat(&[x[0], &oracle::index::flip(x[0], &[axis])], axis),
            ),
            14 => step(
                "layer_norm",
                &[i],
                |x| x[0].layer_norm(None, None, 0.1),
                |x| oracle::norm::layer_norm(x[0], None, None, f64::from(0.1f32)),
            ),
            15 if rank == 4 => {
                let [k, r] = [1 + below(rng, 5), 1 + below(rng, 3.min(shape[1]).min(shape[2]))];
                let p = Conv2d::new(1 + below(rng, 2), below(rng, r));
                self.0.push(Node::Leaf(noise(rng, &[k, r, r, shape[3]])));
                let geometry =
                    oracle::conv::Conv { stride: p.stride, padding: p.padding, dilation: p.dilation, groups: p.groups };
                step(
                    format!("conv2d {p:?}"),
                    &[i, self.0.len() - 1],
                    move |x| x[0].conv2d(x[1], None, p),
                    move |x| oracle::conv::conv2d(x[0], x[1], None, &geometry),
                )
            }
            16 if rank == 4 && shape[1] > 1 && shape[2] > 1 => step(
                "avg_pool2d 2 1 0",
                &[i],
                |x| x[0].avg_pool2d(Pool2d::new(2, 1, 0)),
                |x| {
                    let pool = oracle::pool::Pool { kernel: [2; 2], stride: [1; 2], padding: [0; 2] };
                    oracle::pool::avg_pool2d(x[0], &pool)
                },
            ),
            _ => step(
                format!("roll {axis} 1"),
                &[i],
                move |x| x[0].roll(axis, 1),
                move |x| oracle::index::roll(x[0], axis, 1),
            ),
        };
        self.0.push(node);
        let grown = self.oracle(&self.leaves());
        if grown.iter().any(|v| v.len() > ELEMENTS || v.is_empty()) {
            self.0.truncate(values.len());
            let last = values.len() - 1;
            self.0.push(step("tanh", &[last], |x| x[0].tanh(), |x| x[0].mapv(f64::tanh)));
        }
    }

    /// Every node's value, in double precision.
    fn oracle(&self, leaves: &[A]) -> Vec<A> {
        let mut leaves = leaves.iter();
        let mut values: Vec<A> = Vec::new();
        for node in &self.0 {
            let value = match node {
                Node::Leaf(_) => leaves.next().expect("a value for every leaf").clone(),
                Node::Step { inputs, oracle, .. } => {
                    oracle(&inputs.iter().map(|&i| &values[i]).collect::<Vec<_>>()).as_standard_layout().into_owned()
                }
            };
            values.push(value);
        }
        values
    }

    /// Every node's value, on the device, and the leaves among them.
    fn engine(&self, leaves: &[A]) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let mut from = leaves.iter();
        let (mut values, mut made): (Vec<Tensor>, Vec<Tensor>) = Default::default();
        for node in &self.0 {
            let value = match node {
                Node::Leaf(_) => {
                    let leaf = tensor(from.next().expect("a value for every leaf"))?.leaf();
                    made.push(leaf.clone());
                    leaf
                }
                Node::Step { inputs, engine, .. } => engine(&inputs.iter().map(|&i| &values[i]).collect::<Vec<_>>())?,
            };
            values.push(value);
        }
        Ok((values, made))
    }

    /// What a node is computed from.
    fn inputs(&self, node: usize) -> &[usize] {
        match &self.0[node] {
            Node::Leaf(_) => &[],
            Node::Step { inputs, .. } => inputs,
        }
    }

    /// Nodes that no other uses: their weighted sum is what is differentiated.
    fn sinks(&self) -> Vec<usize> {
        let used = |i: &usize| self.0.iter().any(|n| matches!(n, Node::Step { inputs, .. } if inputs.contains(i)));
        (0..self.0.len()).filter(|i| !used(i)).collect()
    }

    /// The steps that lead to a node, one a line.
    fn steps_to(&self, last: usize) -> String {
        let mut wanted = vec![last];
        for i in (0..=last).rev() {
            if let (true, Node::Step { inputs, .. }) = (wanted.contains(&i), &self.0[i]) {
                wanted.extend(inputs);
            }
        }
        let values = self.oracle(&self.leaves());
        let line = |i: usize| match &self.0[i] {
            Node::Leaf(x) => format!("  {i}: leaf {:?}", x.shape()),
            Node::Step { what, inputs, .. } => format!("  {i}: {what} of {inputs:?}: {:?}", values[i].shape()),
        };
        (0..=last).filter(|i| wanted.contains(i)).map(line).collect::<Vec<_>>().join("\n")
    }
}

fn tensor(x: &A) -> Result<Tensor> {
    let data: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    Tensor::from_slice(&gpu(), &data, x.shape())
}

fn array(x: &Tensor) -> Result<A> {
    let data = x.to_vec()?.into_iter().map(f64::from).collect();
    Ok(A::from_shape_vec(IxDyn(x.shape()), data).expect("as many values as the shape has elements"))
}

/// One to four dimensions, mostly small, now and then longer than a vector or a subgroup.
fn shape(rng: &mut Philox) -> Vec<usize> {
    let rank = 1 + below(rng, 4);
    let long = below(rng, 4);
    (0..rank).map(|i| if i == long && rank < 3 { 5 + below(rng, 30) } else { 1 + below(rng, 5) }).collect()
}

/// Whether `b` stretches to `a`.
fn fits(a: &[usize], b: &[usize]) -> bool {
    b.len() <= a.len() && a.iter().rev().zip(b.iter().rev()).all(|(a, b)| a == b || *b == 1)
}

/// The largest magnitude.
fn largest(x: &A) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// The largest difference, as a share of the largest element or of `scale`.
fn error(got: &A, expected: &A, scale: f64) -> f64 {
    let largest = largest(expected).max(scale);
    let worst = (got - expected).iter().fold(0.0f64, |m, x| if x.is_nan() { f64::INFINITY } else { m.max(x.abs()) });
    worst / largest
}

/// Runs a program by both; the number of operations that were run and differentiated.
///
/// # Errors
/// The steps that lead to the first wrong value, or the gradient that is wrong.
pub fn run(number: u64) -> std::result::Result<u64, Failed> {
    let program = Program::new(number);
    let mut leaves = program.leaves();
    let sinks = program.sinks();
    let mut rng = Philox::new(0x73696E6B, number);
    let values = program.oracle(&leaves);
    let weights: Vec<A> = sinks.iter().map(|&s| noise(&mut rng, values[s].shape())).collect();
    let total = |leaves: &[A]| -> f64 {
        let values = program.oracle(leaves);
        sinks.iter().zip(&weights).map(|(&s, w)| (w * &values[s]).sum()).sum()
    };
    let cotangents: Vec<Tensor> = weights.iter().map(tensor).collect::<Result<_>>()?;
    let steps = if leaves.iter().map(|l| l.len()).sum::<usize>() <= 120 { 3 } else { 1 };
    for training in 0..steps {
        let values_of = program.oracle(&leaves);
        let (values, made) = program.engine(&leaves)?;
        for (i, (value, expected)) in values.iter().zip(&values_of).enumerate() {
            // What cancels is as exact as what it was made of.
            let scale = program.inputs(i).iter().map(|&j| largest(&values_of[j])).fold(1e-3, f64::max);
            if value.shape() != expected.shape() || error(&array(value)?, expected, scale) > TOLERANCE {
                return Err(format!(
                    "program {number}, step of training {training}: value {i} is {value:?}, expected {expected:?}\n{}",
                    program.steps_to(i)
                )
                .into());
            }
        }
        let outs: Vec<&Tensor> = sinks.iter().map(|&s| &values[s]).collect();
        let options = GradOptions { allow_unused: true, ..GradOptions::default() };
        let grads =
            grad_with(&outs, &made.iter().collect::<Vec<_>>(), Some(&cotangents.iter().collect::<Vec<_>>()), options)?;
        let mut next = leaves.clone();
        for (k, grad) in grads.into_iter().enumerate() {
            let got = grad.map_or(Ok(A::zeros(leaves[k].raw_dim())), |g| array(&g))?;
            let slope = |j: usize, h: f64| {
                let mut moved = leaves.clone();
                let at = |moved: &mut Vec<A>, by: f64| {
                    *moved[k].iter_mut().nth(j).expect("an element") =
                        leaves[k].iter().nth(j).expect("an element") + by;
                };
                at(&mut moved, h);
                let plus = total(&moved);
                at(&mut moved, -h);
                (plus - total(&moved)) / (2.0 * h)
            };
            // All elements of the small, one in several of others; where a maximum changes sides between two points, closer ones
            // tell.
            let stride = leaves[k].len().div_ceil(60);
            let some: Vec<usize> = (0..leaves[k].len()).step_by(stride).collect();
            let pick = |f: &dyn Fn(usize) -> f64| {
                A::from_shape_vec(IxDyn(&[some.len()]), some.iter().map(|&j| f(j)).collect()).expect("as many")
            };
            let flat = got.iter().copied().collect::<Vec<f64>>();
            let here = pick(&|j| flat[j]);
            let off =
                [1e-5, 1e-7].iter().map(|&h| error(&here, &pick(&|j| slope(j, h)), 1e-3)).fold(f64::INFINITY, f64::min);
            if off > 10.0 * TOLERANCE {
                return Err(format!(
                    "program {number}, step of training {training}: the gradient of leaf {k} is off by {off:.1e} of its largest \
                     element: {here:?}\n{}",
                    program.steps_to(program.0.len() - 1)
                )
                .into());
            }
            next[k] = (&leaves[k] - &(got * 0.05)).mapv(|x| f64::from(x as f32));
        }
        leaves = next;
    }
    gpu().check_sentinels()?;
    let operations = program.0.iter().filter(|n| matches!(n, Node::Step { .. })).count();
    Ok((operations * steps) as u64)
}

/// The first programs, as checks of the suite.
pub(crate) fn checks() -> Vec<Check> {
    (0..PROGRAMS).map(|n| Check::new(format!("programs/{n}"), move || run(n).map(|_| ()))).collect()
}
