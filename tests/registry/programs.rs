//! Random programs of operations, run on the device and by the references in double precision.
//!
//! A program follows from its number alone. It runs once on the device, forward and back; values and gradients of all its
//! steps come back in one transfer. Each operation is then held against its reference by itself, at the values that the
//! device had for its inputs: its result, and its part in the gradient. For a random direction `d` of each value `x`,
//! `<dL/dx, d>` must be the sum, over the operations `f` that take `x`, of `<dL/df, f'(x) d>`, and `f'(x) d` is a central
//! difference of the reference. So what a check costs does not grow with the elements, errors do not add up along a program,
//! and one that fails names its operation. Now and then the whole program is differenced at once, and trained.

mod general;
mod learning;
mod moves;
mod shaped;

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use shadegrad::autograd::{GradOptions, custom, grad_with};
use shadegrad::kernels::{PendingRead, Storage};
use shadegrad::rng::Philox;
use shadegrad::{DType, Gpu, Result, Tensor};

use crate::case::gpu;
use crate::check::{Check, Failed};
use crate::oracle::A;

/// Programs that are checks of the suite.
const PROGRAMS: u64 = 60;
/// Operations of a program, about.
const STEPS: usize = 40;
/// Largest number of elements of a value.
const ELEMENTS: usize = 700;
/// Allowed error of a result, as a share of its largest element (or of a tenth of its inputs' largest).
const TOLERANCE: f64 = 2e-5;
/// Allowed error of a gradient in a random direction, as a share of the terms that it is made of.
const SLOPE_TOLERANCE: f64 = 1e-4;
/// How far values stay from where a function has a kink or a jump.
const GAP: f64 = 2e-4;

type Engine = Box<dyn Fn(&[&Tensor]) -> Result<Tensor> + Send + Sync>;
type Oracle = Box<dyn Fn(&[&A]) -> A + Send + Sync>;
/// The gradients of all inputs from the inputs and the gradient of the result.
type Backward = Box<dyn Fn(&[&A], &A) -> Vec<A> + Send + Sync>;

struct Step {
    /// The operation's name, then its arguments.
    what: String,
    inputs: Vec<usize>,
    engine: Engine,
    oracle: Oracle,
    /// Whether the result has a gradient.
    smooth: bool,
    /// Where the gradient is by definition not the slope.
    backward: Option<Backward>,
    /// Whether the result is one of the inputs, which the engine may hand back as it is: with that one's place in the graph,
    /// and so with its gradient.
    same: bool,
}

enum Node {
    Leaf(A),
    Constant(A),
    Indices(A),
    Step(Step),
}

impl Node {
    /// What it begins with, if it is no step.
    fn given(&self) -> Option<&A> {
        match self {
            Self::Leaf(x) | Self::Constant(x) | Self::Indices(x) => Some(x),
            Self::Step(_) => None,
        }
    }
}

/// The largest magnitude.
fn largest(x: &A) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Makes a program, step by step.
struct Maker {
    rng: Philox,
    nodes: Vec<Node>,
    /// Every node's value in double precision.
    values: Vec<A>,
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u32) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn from<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Uniform in (lo, hi), of f32, so that both sides begin with the same numbers.
    fn range(&mut self, shape: &[usize], lo: f64, hi: f64) -> A {
        ArrayD::from_shape_fn(IxDyn(shape), |_| f64::from((lo + (hi - lo) * self.rng.uniform_f64()) as f32))
    }

    fn noise(&mut self, shape: &[usize]) -> A {
        self.range(shape, -1.0, 1.0)
    }

    /// Pairwise different values, for maxima and sorting.
    fn unequal(&mut self, shape: &[usize]) -> A {
        let n: usize = shape.iter().product();
        let order = self.rng.permutation(n as u32);
        let at = |&i: &u32| f64::from((4.0 * (f64::from(i) + 0.25 * self.rng.uniform_f64()) / n as f64 - 2.0) as f32);
        let data: Vec<f64> = order.iter().map(at).collect();
        A::from_shape_vec(IxDyn(shape), data).expect("as many values as the shape has elements")
    }

    fn given(&mut self, node: Node) -> usize {
        self.values.push(node.given().expect("not a step").clone());
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn leaf(&mut self, x: A) -> usize {
        self.given(Node::Leaf(x))
    }

    fn noisy(&mut self, shape: &[usize]) -> usize {
        let x = self.noise(shape);
        self.leaf(x)
    }

    fn constant(&mut self, x: A) -> usize {
        self.given(Node::Constant(x))
    }

    fn indices(&mut self, shape: &[usize], below: usize) -> usize {
        let x = ArrayD::from_shape_fn(IxDyn(shape), |_| f64::from(self.rng.below(below as u32)));
        self.given(Node::Indices(x))
    }

    /// One to four dimensions, mostly small, now and then longer than a vector, a subgroup or a workgroup.
    fn shape(&mut self) -> Vec<usize> {
        let rank = 1 + self.below(4);
        let long = self.below(4);
        let mut shape: Vec<usize> = (0..rank).map(|_| 1 + self.below(5)).collect();
        if long < rank && rank < 3 {
            shape[long] = if self.one_in(4) { 60 + self.below(80) } else { 5 + self.below(30) };
        }
        shape
    }

    /// `[N, H, W, C]`, with channels in fours and not.
    fn image(&mut self) -> Vec<usize> {
        let side = if self.one_in(5) { 9 } else { 5 };
        vec![1 + self.below(3), 1 + self.below(side), 1 + self.below(side), self.from(&[1, 2, 3, 4, 4, 5, 8])]
    }

    /// A value like this, the newer the likelier, so that programs are deep.
    fn find(&mut self, ok: impl Fn(&A) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.nodes.len())
            .filter(|&i| !matches!(self.nodes[i], Node::Indices(_) | Node::Constant(_)) && ok(&self.values[i]))
            .collect();
        if all.is_empty() {
            return None;
        }
        let back = self.below(all.len()).min(self.below(all.len()));
        Some(all[all.len() - 1 - back])
    }

    /// Such a value, or a new leaf where there is none and now and then.
    fn find_or(&mut self, ok: impl Fn(&A) -> bool, new: impl FnOnce(&mut Self) -> A) -> usize {
        let found = if self.one_in(6) { None } else { self.find(ok) };
        found.unwrap_or_else(|| {
            let x = new(self);
            self.leaf(x)
        })
    }

    fn any(&mut self) -> usize {
        self.find_or(
            |_| true,
            |m| {
                let shape = m.shape();
                m.noise(&shape)
            },
        )
    }

    /// A value with an axis.
    fn line(&mut self) -> usize {
        self.find_or(
            |v| v.ndim() > 0,
            |m| {
                let shape = m.shape();
                m.noise(&shape)
            },
        )
    }

    fn images(&mut self) -> usize {
        self.find_or(
            |v| v.ndim() == 4,
            |m| {
                let shape = m.image();
                m.noise(&shape)
            },
        )
    }

    fn dims(&self, i: usize) -> Vec<usize> {
        self.values[i].shape().to_vec()
    }

    fn push(&mut self, mut step: Step) -> Option<usize> {
        let inputs: Vec<&A> = step.inputs.iter().map(|&i| &self.values[i]).collect();
        let value = (step.oracle)(&inputs).as_standard_layout().into_owned();
        let size = largest(&value);
        if value.is_empty() || value.len() > ELEMENTS || value.ndim() > 6 || !size.is_finite() || size > 1e3 {
            return None;
        }
        step.same = inputs.contains(&&value);
        self.values.push(value);
        self.nodes.push(Node::Step(step));
        let last = self.nodes.len() - 1;
        // Values stay near 1: what is lost of huge or tiny numbers says nothing about an operation. Those tinier still are what
        // rounding left of zeros.
        if size > 3.0 || (1e-3..0.05).contains(&size) {
            let c = (1.0 / size) as f32;
            return self.step(
                format!("mul_scalar {c}"),
                &[last],
                move |x| x[0].mul_scalar(c),
                move |x| x[0] * f64::from(c),
            );
        }
        Some(last)
    }

    /// An operation and its reference; nothing if its result is too large.
    fn step(
        &mut self,
        what: impl Into<String>,
        inputs: &[usize],
        engine: impl Fn(&[&Tensor]) -> Result<Tensor> + Send + Sync + 'static,
        oracle: impl Fn(&[&A]) -> A + Send + Sync + 'static,
    ) -> Option<usize> {
        self.plain(what.into(), inputs, Box::new(engine), Box::new(oracle), true)
    }

    /// The same for an operation without a gradient.
    fn cut(
        &mut self,
        what: impl Into<String>,
        inputs: &[usize],
        engine: impl Fn(&[&Tensor]) -> Result<Tensor> + Send + Sync + 'static,
        oracle: impl Fn(&[&A]) -> A + Send + Sync + 'static,
    ) -> Option<usize> {
        self.plain(what.into(), inputs, Box::new(engine), Box::new(oracle), false)
    }

    fn plain(&mut self, what: String, inputs: &[usize], engine: Engine, oracle: Oracle, smooth: bool) -> Option<usize> {
        self.push(Step { what, inputs: inputs.to_vec(), engine, oracle, smooth, backward: None, same: false })
    }
}

/// Nodes in the order of computation.
struct Program {
    number: u64,
    nodes: Vec<Node>,
}

impl Program {
    fn new(number: u64) -> Self {
        let mut m = Maker { rng: Philox::new(0x70726F67, number), nodes: Vec::new(), values: Vec::new() };
        m.any();
        while m.nodes.iter().filter(|n| matches!(n, Node::Step(_))).count() < STEPS {
            let before = m.nodes.len();
            let kinds = general::KINDS.len() + shaped::KINDS.len();
            let kind = m.below(kinds);
            let make = general::KINDS.iter().chain(shaped::KINDS).nth(kind).expect("one of all");
            if make(&mut m).is_none() {
                m.nodes.truncate(before);
                m.values.truncate(before);
            }
        }
        Self { number, nodes: m.nodes }
    }

    fn given(&self) -> Vec<A> {
        self.nodes.iter().map(|n| n.given().cloned().unwrap_or_else(|| A::zeros(IxDyn(&[0])))).collect()
    }

    /// Every node's value in double precision; `given` has those of the nodes that are no steps.
    fn oracle(&self, given: &[A]) -> Vec<A> {
        let mut values: Vec<A> = Vec::with_capacity(self.nodes.len());
        for (node, given) in self.nodes.iter().zip(given) {
            values.push(match node {
                Node::Step(step) => {
                    let inputs: Vec<&A> = step.inputs.iter().map(|&i| &values[i]).collect();
                    (step.oracle)(&inputs).as_standard_layout().into_owned()
                }
                _ => given.clone(),
            });
        }
        values
    }

    fn step(&self, i: usize) -> Option<&Step> {
        if let Node::Step(step) = &self.nodes[i] { Some(step) } else { None }
    }

    /// Steps that take value `j`.
    fn users(&self, j: usize) -> impl Iterator<Item = (usize, &Step)> {
        (0..self.nodes.len()).filter_map(|i| Some((i, self.step(i)?))).filter(move |(_, s)| s.inputs.contains(&j))
    }

    /// Nodes that no other uses: their weighted sum is what is differentiated.
    fn sinks(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&i| self.users(i).next().is_none()).collect()
    }

    /// The steps that lead to a node, one a line.
    fn steps_to(&self, last: usize) -> String {
        let mut wanted = vec![last];
        for i in (0..=last).rev() {
            if let (true, Some(step)) = (wanted.contains(&i), self.step(i)) {
                wanted.extend(&step.inputs);
            }
        }
        let values = self.oracle(&self.given());
        let line = |i: usize| match &self.nodes[i] {
            Node::Step(Step { what, inputs, .. }) => format!("  {i}: {what} of {inputs:?}: {:?}", values[i].shape()),
            Node::Leaf(x) => format!("  {i}: leaf {:?}", x.shape()),
            Node::Constant(x) | Node::Indices(x) => format!("  {i}: constant {:?}", x.shape()),
        };
        (0..=last).filter(|i| wanted.contains(i)).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A program on the device: what it began with, and where its values and gradients will be.
struct Launched<'a> {
    program: &'a Program,
    given: Vec<A>,
    /// What each sink that has a gradient is weighted with.
    weights: BTreeMap<usize, A>,
    values: Vec<Tensor>,
    /// By node, of those that have one.
    grads: Vec<Option<Tensor>>,
}

/// Bytes for the device, each piece at a place where a view may begin.
#[derive(Default)]
struct Upload(Vec<u8>);

impl Upload {
    const ALIGN: usize = 256;

    /// The place of these values.
    fn add(&mut self, x: &A, indices: bool) -> (u64, u64) {
        let at = self.0.len();
        for v in x {
            let bytes = if indices { (*v as u32).to_le_bytes() } else { (*v as f32).to_le_bytes() };
            self.0.extend(bytes);
        }
        let bytes = self.0.len() - at;
        self.0.resize((self.0.len() + 15).next_multiple_of(Self::ALIGN), 0);
        (at as u64, bytes as u64)
    }
}

/// Programs that were submitted together, and their results on the way back.
struct Flight<'a> {
    programs: Vec<Launched<'a>>,
    read: PendingRead,
    _all: Storage,
}

/// Runs programs forward and back, from these given values, and asks for all values and gradients at once.
fn launch<'a>(gpu: &Gpu, programs: &[(&'a Program, Vec<A>)]) -> std::result::Result<Flight<'a>, Failed> {
    let mut upload = Upload::default();
    let mut places = Vec::new();
    for (program, given) in programs {
        let nodes = program.nodes.iter().zip(given);
        let of: Vec<_> = nodes.map(|(n, x)| n.given().map(|_| upload.add(x, matches!(n, Node::Indices(_))))).collect();
        places.push(of);
    }
    let memory = gpu.alloc(upload.0.len() as u64, "programs")?;
    gpu.upload(&memory, &upload.0)?;
    let mut launched = Vec::new();
    for ((program, given), places) in programs.iter().zip(places) {
        let named = |e: shadegrad::Error| {
            Failed::Wrong(format!("program {}: {e}\n{}", program.number, program.steps_to(program.nodes.len() - 1)))
        };
        let mut values: Vec<Tensor> = Vec::new();
        for (i, node) in program.nodes.iter().enumerate() {
            values.push(match (node, places[i]) {
                (Node::Step(step), _) => {
                    let inputs: Vec<&Tensor> = step.inputs.iter().map(|&i| &values[i]).collect();
                    let y = (step.engine)(&inputs).map_err(named)?;
                    if step.same && y.requires_grad() {
                        custom("itself", &[&y], |y| Ok(y[0].clone()), |_, g| Ok(vec![Some(g.clone())]))?
                    } else {
                        y
                    }
                }
                (_, Some((at, bytes))) => {
                    let view = memory.view(at, bytes).ok_or("a view at a place that is none")?;
                    let dtype = if matches!(node, Node::Indices(_)) { DType::U32 } else { DType::F32 };
                    let x = Tensor::from_storage(gpu, view, given[i].shape(), dtype)?;
                    if matches!(node, Node::Leaf(_)) { x.leaf() } else { x }
                }
                (_, None) => return Err("a node without a value".into()),
            });
        }
        let mut rng = Philox::new(0x73696E6B, program.number);
        let mut weights = BTreeMap::new();
        for i in program.sinks().into_iter().filter(|&i| values[i].requires_grad()) {
            let w =
                ArrayD::from_shape_fn(IxDyn(values[i].shape()), |_| f64::from((2.0 * rng.uniform_f64() - 1.0) as f32));
            weights.insert(i, w);
        }
        let cotangents: Vec<Tensor> = weights
            .values()
            .map(|w| Tensor::from_slice(gpu, &w.iter().map(|&v| v as f32).collect::<Vec<_>>(), w.shape()))
            .collect::<Result<_>>()?;
        let outs: Vec<&Tensor> = weights.keys().map(|&i| &values[i]).collect();
        let wanted: Vec<usize> = (0..values.len()).filter(|&i| values[i].requires_grad()).collect();
        // Both forms of backward passes: the fused one, and the one that is differentiable again.
        let first_only = program.nodes.iter().any(|n| matches!(n, Node::Step(Step { backward: Some(_), .. })));
        let create_graph = program.number % 2 == 1 && !first_only;
        let options = GradOptions { allow_unused: true, create_graph, ..GradOptions::default() };
        let targets: Vec<&Tensor> = wanted.iter().map(|&i| &values[i]).collect();
        let found = grad_with(&outs, &targets, Some(&cotangents.iter().collect::<Vec<_>>()), options).map_err(named)?;
        let mut grads = vec![None; values.len()];
        for (i, g) in wanted.into_iter().zip(found) {
            grads[i] = g;
        }
        launched.push(Launched { program, given: given.clone(), weights, values, grads });
    }
    let all = |f: &mut dyn FnMut(&Tensor) -> Result<()>| -> Result<()> {
        for l in &launched {
            let values =
                l.values.iter().zip(&l.program.nodes).filter(|(_, n)| matches!(n, Node::Step(_))).map(|(v, _)| v);
            values.chain(l.grads.iter().flatten()).try_for_each(&mut *f)?;
        }
        Ok(())
    };
    let mut total = 0;
    all(&mut |t| {
        total += 4 * t.numel() as u64;
        Ok(())
    })?;
    let results = gpu.alloc(total.max(4), "programs")?;
    let mut at = 0;
    all(&mut |t| {
        let bytes = 4 * t.numel() as u64;
        gpu.copy(t.storage(), 0, &results, at, bytes)?;
        at += bytes;
        Ok(())
    })?;
    let read = gpu.read_async(&results)?;
    gpu.flush()?;
    Ok(Flight { programs: launched, read, _all: results })
}

/// What was compared.
#[derive(Clone, Default, Debug)]
pub struct Compared {
    /// Operations whose result was compared.
    pub forward: u64,
    /// Those of them that were in a gradient that was compared.
    pub backward: u64,
    /// How often each was.
    pub by_name: BTreeMap<String, u64>,
}

impl Compared {
    /// Adds what another run compared.
    pub fn add(&mut self, other: &Compared) {
        self.forward += other.forward;
        self.backward += other.backward;
        other.by_name.iter().for_each(|(name, n)| *self.by_name.entry(name.clone()).or_default() += n);
    }
}

/// Values and gradients of a program as the device had them.
struct Landed<'a> {
    program: &'a Program,
    given: Vec<A>,
    weights: BTreeMap<usize, A>,
    values: Vec<A>,
    grads: Vec<Option<A>>,
    /// Which values have a gradient by the engine's account.
    tracked: Vec<bool>,
}

fn land(flight: Flight) -> std::result::Result<Vec<Landed>, Failed> {
    let bytes = flight.read.wait()?;
    let mut words = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let mut take = |shape: &[usize]| {
        let n = shape.iter().product();
        A::from_shape_vec(IxDyn(shape), words.by_ref().take(n).collect()).map_err(|e| Failed::Wrong(e.to_string()))
    };
    let mut all = Vec::new();
    for l in flight.programs {
        let mut values = Vec::new();
        for ((node, t), given) in l.program.nodes.iter().zip(&l.values).zip(&l.given) {
            values.push(if node.given().is_some() { given.clone() } else { take(t.shape())? });
        }
        let grads = l
            .grads
            .iter()
            .map(|g| g.as_ref().map(|g| take(g.shape())).transpose())
            .collect::<std::result::Result<_, _>>()?;
        let tracked = l.values.iter().map(Tensor::requires_grad).collect();
        all.push(Landed { program: l.program, given: l.given, weights: l.weights, values, grads, tracked });
    }
    Ok(all)
}

/// `sum_i a_i b_i` and the root of the sum of the squares of its terms.
fn dot(a: &A, b: &A) -> (f64, f64) {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        sum += a * b;
        squares += (a * b) * (a * b);
    }
    (sum, squares.sqrt())
}

fn norm(a: &A) -> f64 {
    a.iter().map(|v| v * v).sum::<f64>().sqrt()
}

impl Landed<'_> {
    fn inputs(&self, step: &Step) -> Vec<&A> {
        step.inputs.iter().map(|&i| &self.values[i]).collect()
    }

    fn fail(&self, at: usize, text: String) -> Failed {
        format!("program {}: {text}\n{}", self.program.number, self.program.steps_to(at)).into()
    }

    /// Every operation at the values that the device had.
    fn check(&self) -> std::result::Result<Compared, Failed> {
        let mut compared = Compared::default();
        for (i, got) in self.values.iter().enumerate() {
            let Some(step) = self.program.step(i) else { continue };
            let inputs = self.inputs(step);
            let expected = (step.oracle)(&inputs);
            if got.shape() != expected.shape() {
                let text =
                    format!("value {i}, {}: shape {:?}, expected {:?}", step.what, got.shape(), expected.shape());
                return Err(self.fail(i, text));
            }
            // What cancels is as exact as what it was made of.
            let scale = inputs.iter().map(|x| 0.1 * largest(x)).fold(largest(&expected).max(1e-3), f64::max);
            for (at, (g, e)) in got.iter().zip(expected.iter()).enumerate() {
                let off = (g - e).abs();
                if off.is_nan() || off > TOLERANCE * scale {
                    let text = format!(
                        "value {i}, {}: element {at} of {:?} is {g:e}, expected {e:e}: off by {:.1e} of {scale:.1e}",
                        step.what,
                        got.shape(),
                        (g - e).abs() / scale
                    );
                    return Err(self.fail(i, text));
                }
            }
            let follows = step.smooth && step.inputs.iter().any(|&j| self.tracked[j]);
            if self.tracked[i] != follows {
                let text = format!("value {i}, {}: has a gradient: {}, should: {follows}", step.what, self.tracked[i]);
                return Err(self.fail(i, text));
            }
            compared.forward += 1;
            compared.backward += u64::from(self.grads[i].is_some());
            let name = step.what.split(' ').next().unwrap_or_default();
            *compared.by_name.entry(name.into()).or_default() += 1;
        }
        let mut rng = Philox::new(0x646972, self.program.number);
        for j in (0..self.values.len()).filter(|&j| self.tracked[j]) {
            let sign = |r: &mut Philox| if r.next_u32().is_multiple_of(2) { 1.0 } else { -1.0 };
            let direction = ArrayD::from_shape_fn(IxDyn(self.values[j].shape()), |_| {
                sign(&mut rng) * (0.5 + 0.5 * rng.uniform_f64())
            });
            // Closer points tell where the wider ones lie on two sides of a kink.
            let off = [1e-5, 1e-7].iter().map(|&h| self.slope_error(j, &direction, h)).find(|off| *off <= 1.0);
            if off.is_none() {
                let users: Vec<String> = self.program.users(j).map(|(i, s)| format!("{i} {}", s.what)).collect();
                let off = self.slope_error(j, &direction, 1e-5);
                let text = format!(
                    "the gradient of value {j} {:?} is off by {off:.1} times the tolerance; it comes from: {}",
                    self.values[j].shape(),
                    users.join("; ")
                );
                return Err(self.fail(self.program.users(j).map(|(i, _)| i).last().unwrap_or(j), text));
            }
        }
        Ok(compared)
    }

    /// How far the gradient of value `j` is from what its users' gradients make of it, in tolerances.
    fn slope_error(&self, j: usize, direction: &A, h: f64) -> f64 {
        let (mut expected, mut scale) = self.weights.get(&j).map_or((0.0, 0.0), |w| dot(w, direction));
        for (i, step) in self.program.users(j) {
            let Some(grad) = &self.grads[i] else { continue };
            let inputs = self.inputs(step);
            if let Some(backward) = &step.backward {
                let grads = backward(&inputs, grad);
                for (slot, g) in step.inputs.iter().zip(&grads).filter(|(slot, _)| **slot == j) {
                    let (term, size) = dot(g, if *slot == j { direction } else { g });
                    expected += term;
                    scale += size + 0.05 * norm(grad);
                }
            } else {
                let moved = |by: f64| {
                    let x = &self.values[j] + &(direction * by);
                    let inputs: Vec<&A> =
                        step.inputs.iter().map(|&k| if k == j { &x } else { &self.values[k] }).collect();
                    (step.oracle)(&inputs)
                };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                let (term, size) = dot(grad, &slope);
                expected += term;
                // Terms cancel in most backward rules: those of a softmax along one element are gone.
                scale += 0.1 * size + 0.05 * norm(grad);
            }
        }
        let (got, size) = self.grads[j].as_ref().map_or((0.0, 0.0), |g| dot(g, direction));
        let off = (got - expected).abs() / (SLOPE_TOLERANCE * (scale + size) + 1e-9);
        // NaN is no pass.
        if off.is_nan() { f64::INFINITY } else { off }
    }

    /// The gradient of the whole program by the references alone, in a random direction of all leaves at once.
    fn check_whole(&self) -> std::result::Result<(), Failed> {
        let mut rng = Philox::new(0x77686F6C65, self.program.number);
        let leaves: Vec<bool> = self.program.nodes.iter().map(|n| matches!(n, Node::Leaf(_))).collect();
        let direction: Vec<A> =
            self.given.iter().map(|x| ArrayD::from_shape_fn(x.raw_dim(), |_| 2.0 * rng.uniform_f64() - 1.0)).collect();
        let total = |by: f64| -> f64 {
            let moved = |(i, x): (usize, &A)| if leaves[i] { x + &(&direction[i] * by) } else { x.clone() };
            let values = self.program.oracle(&self.given.iter().enumerate().map(moved).collect::<Vec<_>>());
            self.weights.iter().map(|(&i, w)| dot(w, &values[i]).0).sum()
        };
        let (mut got, mut scale) = (0.0, 0.0);
        for (i, g) in self.grads.iter().enumerate().filter(|(i, _)| leaves[*i]) {
            let (term, size) = g.as_ref().map_or((0.0, 0.0), |g| dot(g, &direction[i]));
            got += term;
            scale += size;
        }
        let surrogate = self.program.nodes.iter().any(|n| matches!(n, Node::Step(Step { backward: Some(_), .. })));
        let off = [1e-6, 1e-8].iter().map(|h| ((total(*h) - total(-*h)) / (2.0 * h) - got).abs());
        let off = off.fold(f64::INFINITY, f64::min) / (scale + 1e-3);
        if off > 10.0 * SLOPE_TOLERANCE && !surrogate {
            let text = format!("the gradient of the whole is off by {off:.1e}");
            return Err(self.fail(self.program.nodes.len() - 1, text));
        }
        Ok(())
    }
}

/// Runs `count` programs from number `first` on, some at a time, and says which failed.
///
/// # Errors
/// If the device fails, as against a program.
pub fn run_programs(
    gpu: &Gpu,
    first: u64,
    count: u64,
    mut failed: impl FnMut(Failed),
) -> std::result::Result<Compared, Failed> {
    /// Programs that are on the device at a time.
    const TOGETHER: u64 = 16;
    let mut compared = Compared::default();
    for start in (first..first + count).step_by(TOGETHER as usize) {
        let programs: Vec<Program> = (start..(start + TOGETHER).min(first + count)).map(Program::new).collect();
        let with: Vec<_> = programs.iter().map(|p| (p, p.given())).collect();
        let landed = match launch(gpu, &with).and_then(land) {
            Ok(landed) => landed,
            // One that cannot even run must not hide the others.
            Err(_) => {
                let mut some = Vec::new();
                for one in with.chunks(1) {
                    match launch(gpu, one).and_then(land) {
                        Ok(l) => some.extend(l),
                        Err(e) => failed(e),
                    }
                }
                some
            }
        };
        for l in landed {
            match l.check() {
                Ok(c) => compared.add(&c),
                Err(e) => failed(e),
            }
        }
    }
    Ok(compared)
}

/// Runs a program and holds it against the references step by step and as a whole; every fourth twice more, each time from where
/// the gradient leads.
fn run(number: u64) -> std::result::Result<(), Failed> {
    let program = Program::new(number);
    let mut given = program.given();
    for training in 0..if number.is_multiple_of(4) { 3 } else { 1 } {
        let landed = land(launch(&gpu(), &[(&program, given.clone())])?)?.pop().ok_or("no program came back")?;
        // Where a step leads to is not chosen: it may be at a kink, and only operations are held to account there.
        landed.check()?;
        if training == 0 {
            landed.check_whole()?;
        }
        for ((x, grad), node) in given.iter_mut().zip(&landed.grads).zip(&program.nodes) {
            if let (Some(g), Node::Leaf(_)) = (grad, node) {
                let rate = 0.01 / largest(g).max(1.0);
                *x = (&*x - &(g * rate)).mapv(|v| f64::from(v as f32));
            }
        }
    }
    gpu().check_sentinels()?;
    Ok(())
}

/// The first programs, as checks of the suite.
pub(crate) fn checks() -> Vec<Check> {
    (0..PROGRAMS).map(|n| Check::new(format!("programs/{n}"), move || run(n))).collect()
}
