//! Random networks of layers, trained for three steps by a random optimiser, against the same in double precision.
//!
//! A network follows from its number alone. At every step the loss is held against the reference's, the gradient against a
//! central difference of the reference's loss (in a random direction in which every parameter counts alike), the optimiser's
//! step against its formulas, running statistics against theirs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use shadegrad::nn::{
    Activation, Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, GroupNorm, InstanceNorm2d, LayerNorm, Linear,
    Mlp, Module, MultiHeadAttention, Params, Scope,
};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::{CrossEntropy, Gpu, Pool2d, Reduction, Result, Tensor};

use crate::case::gpu;
use crate::check::{Check, Failed};
use crate::oracle::optim::{Moments, norm, step};
use crate::oracle::{self, A, elementwise as e};

/// Networks that are checks of the suite.
const NETWORKS: u64 = 40;
/// Steps of training.
const STEPS: i32 = 3;
/// Allowed error of a gradient, as a share of the terms that it is made of.
const SLOPE_TOLERANCE: f64 = 1e-3;

/// What the references of layers share: parameters by name, and what they noticed.
struct Given<'a> {
    params: &'a BTreeMap<String, A>,
    /// Mean and biased variance of every batch normalisation, and over how many elements.
    statistics: RefCell<Vec<(String, A, A, usize)>>,
    /// How near an element came to a kink.
    kink: Cell<f64>,
    /// The least variance that a normalisation divided by.
    variance: Cell<f64>,
}

impl<'a> Given<'a> {
    fn new(params: &'a BTreeMap<String, A>) -> Self {
        Self {
            params,
            statistics: RefCell::default(),
            kink: Cell::new(f64::INFINITY),
            variance: Cell::new(f64::INFINITY),
        }
    }

    fn get(&self, scope: &str, name: &str) -> Option<&A> {
        self.params.get(&format!("{scope}.{name}"))
    }

    fn weight(&self, scope: &str) -> &A {
        self.get(scope, "weight").expect("a weight")
    }

    fn bent(&self, x: &A) {
        self.kink.set(x.iter().fold(self.kink.get(), |m, v| m.min(v.abs())));
    }

    fn spread(&self, variances: &A) {
        self.variance.set(variances.iter().fold(self.variance.get(), |m, v| m.min(*v)));
    }

    fn linear(&self, scope: &str, x: &A) -> A {
        oracle::matmul::linear(x, self.weight(scope), self.get(scope, "bias"))
    }

    fn activation(&self, scope: &str, how: Activation, x: &A) -> A {
        use Activation as F;
        if matches!(how, F::Relu | F::LeakyRelu(_) | F::Elu(_) | F::Prelu(_) | F::Crrelu(_)) {
            self.bent(x);
        }
        match how {
            F::Identity => x.clone(),
            F::Relu => x.mapv(e::relu),
            F::LeakyRelu(a) => x.mapv(|v| e::leaky_relu(v, f64::from(a))),
            F::Elu(a) => x.mapv(|v| e::elu(v, f64::from(a))),
            F::Gelu => x.mapv(e::gelu),
            F::GeluTanh => x.mapv(e::gelu_tanh),
            F::Silu => x.mapv(e::silu),
            F::Tanh => x.mapv(f64::tanh),
            F::Sigmoid => x.mapv(e::sigmoid),
            F::Softplus => x.mapv(e::softplus),
            F::Mish => x.mapv(e::mish),
            F::Prelu(_) => oracle::parametric::prelu(x, self.weight(scope)),
            F::Crrelu(_) => oracle::parametric::crrelu(x, self.get(scope, "eps").expect("a number")),
        }
    }

    fn batch_norm(&self, scope: &str, x: &A) -> A {
        let (y, mean, var) =
            oracle::norm::batch_norm(x, self.get(scope, "weight"), self.get(scope, "bias"), f64::from(1e-5f32));
        let count = x.len() / mean.len();
        self.spread(&var);
        self.statistics.borrow_mut().push((scope.into(), mean, var, count));
        y
    }
}

type Reference = Box<dyn Fn(&Given, &A) -> A + Send + Sync>;

struct Layer {
    what: String,
    module: Box<dyn Module>,
    reference: Reference,
}

/// Layers one after the other.
#[derive(Default)]
struct Chain(Vec<Layer>);

impl Chain {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, l| l.module.forward(cx, &x))
    }

    fn reference(&self, given: &Given, x: &A) -> A {
        self.0.iter().fold(x.clone(), |x, l| (l.reference)(given, &x).as_standard_layout().into_owned())
    }

    fn what(&self) -> String {
        self.0.iter().map(|l| l.what.as_str()).collect::<Vec<_>>().join(", ")
    }
}

struct Residual(Arc<Chain>);

impl Module for Residual {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        x.add(&self.0.forward(cx, x)?)
    }
}

/// A function of tensors as a layer without parameters.
struct Plain<F>(F);

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> Module for Plain<F> {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        (self.0)(x)
    }
}

/// Batch normalisation and ReLU in one.
struct NormRelu(BatchNorm2d);

impl Module for NormRelu {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.0.forward_relu(cx, x)
    }
}

/// Makes layers for a shape that changes as they are added.
struct Maker<'a> {
    rng: &'a mut Philox,
    shape: Vec<usize>,
    count: usize,
}

impl Maker<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u32) as usize
    }

    fn from<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn channels(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn set_channels(&mut self, c: usize) {
        let last = self.shape.len() - 1;
        self.shape[last] = c;
    }

    fn any_activation(&mut self) -> Activation {
        use Activation as F;
        self.from(&[
            F::Relu,
            F::LeakyRelu(0.125),
            F::Elu(0.75),
            F::Gelu,
            F::GeluTanh,
            F::Silu,
            F::Tanh,
            F::Sigmoid,
            F::Softplus,
            F::Mish,
            F::Prelu(0.25),
            F::Crrelu(0.0625),
        ])
    }

    fn plain(
        what: impl Into<String>,
        engine: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
        want: impl Fn(&A) -> A + Send + Sync + 'static,
    ) -> Layer {
        Layer { what: what.into(), module: Box::new(Plain(engine)), reference: Box::new(move |_, x| want(x)) }
    }

    fn activation(&mut self, scope: &mut Scope) -> Layer {
        let (how, name) = (self.any_activation(), scope.name().to_string());
        let reference: Reference = Box::new(move |g, x| g.activation(&name, how, x));
        Layer { what: format!("{how:?}"), module: Box::new(how.layer(scope)), reference }
    }

    fn linear(&mut self, scope: &mut Scope, outputs: usize) -> Layer {
        let (name, bias, inputs) = (scope.name().to_string(), self.below(3) > 0, self.channels());
        self.set_channels(outputs);
        Layer {
            what: format!("linear {outputs}"),
            module: Box::new(Linear::new(scope, inputs, outputs, bias)),
            reference: Box::new(move |g, x| g.linear(&name, x)),
        }
    }

    /// A convolution, of unchanged size if `same`.
    fn conv(&mut self, scope: &mut Scope, same: bool) -> Layer {
        let (name, c) = (scope.name().to_string(), self.channels());
        let kernel = self.from(&[1, 3, 3]);
        let stride = if same || self.shape[1].min(self.shape[2]) < 3 { 1 } else { 1 + self.below(2) };
        let groups = if self.below(3) == 0 { self.from(&[1, c]) } else { 1 };
        let outputs = if same { c } else { groups * self.from(&[1, 2, 4]) };
        let mut options = ConvOptions::new(stride, kernel / 2).groups(groups);
        options.bias = self.below(2) == 0;
        let p = options.geometry;
        let geometry =
            oracle::conv::Conv { stride: p.stride, padding: p.padding, dilation: p.dilation, groups: p.groups };
        for d in 1..3 {
            self.shape[d] = (self.shape[d] + 2 * p.padding[d - 1] - kernel) / stride + 1;
        }
        self.set_channels(outputs);
        Layer {
            what: format!("conv {kernel}x{kernel} stride {stride} groups {groups} to {outputs}"),
            module: Box::new(Conv2d::new(scope, c, outputs, kernel, options)),
            reference: Box::new(move |g, x| oracle::conv::conv2d(x, g.weight(&name), g.get(&name, "bias"), &geometry)),
        }
    }

    /// A normalisation that suits the shape.
    fn norm(&mut self, scope: &mut Scope) -> Layer {
        let (name, c, rank) = (scope.name().to_string(), self.channels(), self.shape.len());
        let per_image: usize = self.shape[1..rank - 1].iter().product();
        let eps = f64::from(1e-5f32);
        match self.below(5) {
            // Few elements have nearly no variance now and then, and then no digits.
            0 if rank == 4 && per_image >= 6 => Layer {
                what: "instance norm".into(),
                module: Box::new(InstanceNorm2d::new(scope, c, true)),
                reference: Box::new(move |g, x| {
                    oracle::norm::instance_norm(x, g.get(&name, "weight"), g.get(&name, "bias"), eps)
                }),
            },
            1 if rank == 4 && per_image >= 6 => {
                let all: Vec<usize> = (1..=c).filter(|n| c.is_multiple_of(*n)).collect();
                let groups = self.from(&all);
                Layer {
                    what: format!("group norm {groups}"),
                    module: Box::new(GroupNorm::new(scope, groups, c)),
                    reference: Box::new(move |g, x| {
                        oracle::norm::group_norm(x, groups, g.get(&name, "weight"), g.get(&name, "bias"), eps)
                    }),
                }
            }
            2 if c >= 4 => Layer {
                what: "layer norm".into(),
                module: Box::new(LayerNorm::new(scope, c, 1e-5)),
                reference: Box::new(move |g, x| {
                    g.spread(&oracle::reduce::var(x, &[x.ndim() - 1], 0, false));
                    oracle::norm::layer_norm(x, g.get(&name, "weight"), g.get(&name, "bias"), eps)
                }),
            },
            3 => Layer {
                what: "batch norm and relu".into(),
                module: Box::new(NormRelu(BatchNorm2d::new(scope, c))),
                reference: Box::new(move |g, x| {
                    let y = g.batch_norm(&name, x);
                    g.bent(&y);
                    y.mapv(e::relu)
                }),
            },
            _ => Layer {
                what: "batch norm".into(),
                module: Box::new(BatchNorm2d::new(scope, c)),
                reference: Box::new(move |g, x| g.batch_norm(&name, x)),
            },
        }
    }

    fn pool(&mut self) -> Layer {
        let shape = self.shape.clone();
        if shape[1].min(shape[2]) < 2 {
            return self.globally();
        }
        let (kernel, stride) = self.from(&[(2, 2), (2, 1), (3, 2)]);
        let padding = kernel / 3;
        let p = Pool2d::new(kernel, stride, padding);
        let o = oracle::pool::Pool { kernel: p.kernel, stride: p.stride, padding: p.padding };
        for d in 1..3 {
            self.shape[d] = (self.shape[d] + 2 * padding - kernel) / stride + 1;
        }
        if self.below(2) == 0 {
            Self::plain(format!("max pool {p:?}"), move |x| x.max_pool2d(p), move |x| oracle::pool::max_pool2d(x, &o).0)
        } else {
            Self::plain(format!("avg pool {p:?}"), move |x| x.avg_pool2d(p), move |x| oracle::pool::avg_pool2d(x, &o))
        }
    }

    fn globally(&mut self) -> Layer {
        self.shape = vec![self.shape[0], self.channels()];
        Self::plain("global pool", |x| x.global_avg_pool(), oracle::pool::global_avg_pool)
    }

    fn reshape(&mut self, what: &str, to: Vec<usize>) -> Layer {
        self.shape = to.clone();
        let other = to.clone();
        Self::plain(what, move |x| x.reshape(&to), move |x| oracle::index::reshape(x, &other))
    }

    fn attention(&mut self, scope: &mut Scope) -> Layer {
        let (name, width) = (scope.name().to_string(), self.channels());
        let all: Vec<usize> = (1..=width).filter(|h| width.is_multiple_of(*h)).collect();
        let heads = self.from(&all);
        let module = MultiHeadAttention::new(scope, width, heads, self.below(2) == 0, 0.0);
        let reference: Reference = Box::new(move |g, x| {
            let [n, tokens, width] = [x.shape()[0], x.shape()[1], x.shape()[2]];
            let d = width / heads;
            let qkv = g.linear(&format!("{name}.qkv"), x);
            let part = |p: usize| {
                A::from_shape_fn(IxDyn(&[n, heads, tokens, d]), |i| qkv[[i[0], i[2], (p * heads + i[1]) * d + i[3]]])
            };
            let y = oracle::attention::sdpa(&part(0), &part(1), &part(2), None, None, false, 1.0 / (d as f64).sqrt());
            let joined = A::from_shape_fn(IxDyn(&[n, tokens, width]), |i| y[[i[0], i[2] / d, i[1], i[2] % d]]);
            g.linear(&format!("{name}.proj"), &joined)
        });
        Layer { what: format!("attention {heads}"), module: Box::new(module), reference }
    }

    fn mlp(&mut self, scope: &mut Scope) -> Layer {
        let (name, width, how) = (scope.name().to_string(), self.channels(), self.any_activation());
        let hidden = 2 + self.below(9);
        let reference: Reference = Box::new(move |g, x| {
            let h = g.activation(&format!("{name}.act"), how, &g.linear(&format!("{name}.fc1"), x));
            g.linear(&format!("{name}.fc2"), &h)
        });
        Layer {
            what: format!("mlp {hidden} {how:?}"),
            module: Box::new(Mlp::new(scope, width, hidden, how, 0.0)),
            reference,
        }
    }

    /// Layers that keep the shape, around which the input goes unchanged.
    fn residual(&mut self, scope: &mut Scope) -> Layer {
        let mut inside = Chain::default();
        for i in 0..1 + self.below(3) {
            let scope = &mut scope.sub(i);
            inside.0.push(match (self.shape.len(), self.below(4)) {
                (4, 0) => self.conv(scope, true),
                (3, 0) => self.attention(scope),
                (2, 0) => {
                    let c = self.channels();
                    self.linear(scope, c)
                }
                (4, 1) => self.conv(scope, true),
                (_, 1) => self.mlp(scope),
                (_, 2) => self.norm(scope),
                _ => self.activation(scope),
            });
        }
        let inside = Arc::new(inside);
        let other = inside.clone();
        Layer {
            what: format!("residual ({})", inside.what()),
            module: Box::new(Residual(inside)),
            reference: Box::new(move |g, x| x + &other.reference(g, x)),
        }
    }

    fn next(&mut self, scope: &mut Scope) -> Layer {
        self.count += 1;
        let [n, c] = [self.shape[0], self.channels()];
        match (self.shape.len(), self.below(7)) {
            (4, 0 | 1) => self.conv(scope, false),
            (4, 2) => self.pool(),
            (4, 3) if self.count > 2 => {
                let tokens = self.shape[1] * self.shape[2];
                self.reshape("tokens", vec![n, tokens, c])
            }
            (3, 0 | 1) => self.attention(scope),
            (3, 2) => self.mlp(scope),
            (2, 0 | 1) => {
                let outputs = 2 + self.below(8);
                self.linear(scope, outputs)
            }
            (2, 2) => self.mlp(scope),
            (_, 3 | 4) => self.norm(scope),
            (_, 5) => self.activation(scope),
            _ => self.residual(scope),
        }
    }
}

/// Values in (lo, hi), of f32.
fn range(rng: &mut Philox, shape: &[usize], lo: f64, hi: f64) -> A {
    ArrayD::from_shape_fn(IxDyn(shape), |_| f64::from((lo + (hi - lo) * rng.uniform_f64()) as f32))
}

fn tensor(gpu: &Gpu, x: &A) -> Result<Tensor> {
    Tensor::from_slice(gpu, &x.iter().map(|&v| v as f32).collect::<Vec<_>>(), x.shape())
}

fn rule(rng: &mut Philox) -> Rule {
    let (betas, weight_decay) = ([0.9, 0.99], [0.0, 0.1][rng.below(2) as usize]);
    let eps = 1e-6;
    match rng.below(8) {
        0 => Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay },
        1 => Rule::Sgd { momentum: 0.9, dampening: 0.25, nesterov: false, weight_decay },
        2 => Rule::Sgd { momentum: 0.8, dampening: 0.0, nesterov: true, weight_decay },
        3 => Rule::Adam { betas, eps, weight_decay },
        4 => [Rule::AmsGrad { betas, eps, weight_decay }, Rule::AdamW { betas, eps, weight_decay }]
            [rng.below(2) as usize],
        5 => Rule::RmsProp { alpha: 0.9, eps, momentum: 0.7, weight_decay },
        6 => Rule::Lamb { betas, eps, weight_decay },
        _ => Rule::Lars { momentum: 0.9, nesterov: false, eta: 0.02, eps: 1e-8, weight_decay },
    }
}

/// What the logits of a batch are judged by.
enum Goal {
    Labels(Vec<u32>, f32),
    Values(A),
}

impl Goal {
    fn loss(&self, logits: &Tensor) -> Result<Tensor> {
        match self {
            Self::Labels(labels, smoothing) => {
                let labels = Tensor::from_u32(logits.gpu(), labels, &[labels.len()])?;
                logits.cross_entropy(&labels, CrossEntropy { smoothing: *smoothing, ..CrossEntropy::default() })
            }
            Self::Values(t) => logits.mse_loss(&tensor(logits.gpu(), t)?, Reduction::Mean),
        }
    }

    fn reference(&self, logits: &A) -> f64 {
        match self {
            Self::Labels(labels, smoothing) => {
                let labels: Vec<usize> = labels.iter().map(|&l| l as usize).collect();
                let mean = oracle::loss::Reduction::Mean;
                oracle::loss::cross_entropy(logits, &labels, f64::from(*smoothing), None, mean).sum()
            }
            Self::Values(t) => (logits - t).mapv(|d| d * d).sum() / t.len() as f64,
        }
    }
}

fn dot(a: &A, b: &A) -> (f64, f64) {
    let terms: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
    (terms.iter().sum(), norm(&terms))
}

/// Trains network `number`; the steps whose loss and gradient were compared: not those where an element is at a kink, or a
/// normalisation divides by next to nothing.
///
/// # Errors
/// The first figure that is wrong, and the network.
pub fn run(number: u64) -> std::result::Result<u32, Failed> {
    let gpu = gpu();
    let mut rng = Philox::new(0x6E657473, number);
    let (n, c) = (3 + rng.below(3) as usize, 1 + rng.below(5) as usize);
    let shape = match rng.below(4) {
        0 => vec![n, 4 + c],
        1 => vec![n, 2 + rng.below(5) as usize, 2 * c],
        _ => vec![n, 3 + rng.below(4) as usize, 3 + rng.below(4) as usize, c],
    };
    let x = range(&mut rng, &shape, -1.0, 1.0);
    let mut names = Builder::new();
    let mut net = Chain::default();
    let depth = 2 + rng.below(6) as usize;
    let mut m = Maker { rng: &mut rng, shape, count: 0 };
    let mut root = names.root();
    for i in 0..depth {
        net.0.push(m.next(&mut root.sub(i)));
    }
    if m.shape.len() > 2 {
        let (n, rest) = (m.shape[0], m.shape[1..].iter().product());
        net.0.push(if m.shape.len() == 4 && m.below(2) == 0 {
            m.globally()
        } else {
            m.reshape("flatten", vec![n, rest])
        });
    }
    let classes = 2 + m.below(5);
    net.0.push(m.linear(&mut root.sub("head"), classes));
    let goal = if rng.below(3) > 0 {
        Goal::Labels((0..n).map(|_| rng.below(classes as u32)).collect(), [0.0, 0.125][rng.below(2) as usize])
    } else {
        Goal::Values(range(&mut rng, &[n, classes], -1.0, 1.0))
    };
    let (rule, lr) = (rule(&mut rng), 0.015625f32);
    let what = format!("network {number}: {:?}, {}, trained by {rule:?}", x.shape(), net.what());
    let wrong = |text: String| -> Failed { format!("{text}\n{what}").into() };

    let arena = Arena::new(&gpu, &names, number)?;
    // Away from the first values, which are zeros and ones for many and tiny for some.
    let firsts: Vec<Tensor> = (arena.state()?.into_iter().take(arena.table().len()))
        .map(|(_, shape, v)| {
            let noise = range(&mut rng, &shape, -0.3, 0.3);
            let data: Vec<f32> = v.iter().zip(&noise).map(|(v, n)| v + *n as f32).collect();
            Tensor::from_slice(&gpu, &data, &shape)
        })
        .collect::<Result<_>>()?;
    arena.set_values(&Params::new(arena.table().clone(), firsts)?)?;
    let mut optimizer = Optimizer::new(&arena, rule)?;
    let decays: Vec<f64> = arena.table().entries().iter().map(|e| if e.decay { 1.0 } else { 0.0 }).collect();
    let mut moments = vec![Moments::default(); decays.len()];
    let mut running: BTreeMap<String, A> = BTreeMap::new();
    let images = tensor(&gpu, &x)?;
    let mut compared = 0;
    for t in 1..=STEPS {
        let params = named(&arena.state()?);
        let loss = goal.loss(&net.forward(&Cx::train(&arena), &images)?)?;
        arena.backward(&loss)?;
        let given = Given::new(&params);
        let want = goal.reference(&net.reference(&given, &x));
        let got = f64::from(loss.item()?);
        // Divided by less, rounding errors of the elements are no small ones of the result.
        let steady = given.variance.get() > 1e-3;
        let off = (got - want).abs();
        if steady && (off.is_nan() || off > 1e-4 * want.abs().max(0.01)) {
            return Err(wrong(format!("step {t}: the loss is {got:e}, expected {want:e}")));
        }
        let grads: Vec<A> = arena.grads().tensors().iter().map(array).collect::<Result<_>>()?;
        if steady && given.kink.get() > 1e-5 {
            let order: Vec<&String> = in_order(&arena, &params).map(|p| p.0).collect();
            slopes(&net, &goal, &x, &params, &order, &grads).map_err(|e| wrong(format!("step {t}: {e}")))?;
            compared += 1;
        }
        optimizer.step(&arena, lr)?;
        let after = arena.state()?;
        for (i, ((name, x), grad)) in in_order(&arena, &params).zip(&grads).enumerate() {
            let (mut x, g): (Vec<f64>, Vec<f64>) = (x.iter().copied().collect(), grad.iter().copied().collect());
            step(rule, &mut x, &g, &mut moments[i], t, f64::from(lr), decays[i], true);
            let off = x.iter().zip(&after[i].2).map(|(want, got)| (want - f64::from(*got)).abs() / (1.0 + want.abs()));
            let off = off.fold(0.0f64, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v) });
            if off > 2e-5 {
                return Err(wrong(format!("step {t}: {name} is off by {off:.1e} after the optimiser's step")));
            }
        }
        for (scope, mean, var, count) in given.statistics.borrow().iter() {
            for (name, batch) in
                [("running_mean", mean.clone()), ("running_var", var * (*count as f64 / (*count as f64 - 1.0)))]
            {
                let name = format!("{scope}.{name}");
                let first = if name.ends_with("var") { 1.0 } else { 0.0 };
                let before = running.entry(name.clone()).or_insert_with(|| A::from_elem(batch.raw_dim(), first));
                let momentum = f64::from(0.1f32);
                *before = &*before * (1.0 - momentum) + batch * momentum;
                let got = array(arena.buffers().by_name(&name)?)?;
                let off =
                    got.iter().zip(before.iter()).fold(0.0f64, |m, (a, b)| m.max((a - b).abs() / (1.0 + b.abs())));
                if off > 1e-4 {
                    return Err(wrong(format!("step {t}: {name} is off by {off:.1e}")));
                }
            }
        }
    }
    gpu.check_sentinels()?;
    Ok(compared)
}

fn array(x: &Tensor) -> Result<A> {
    let data = x.to_vec()?.into_iter().map(f64::from).collect();
    Ok(A::from_shape_vec(IxDyn(x.shape()), data).expect("as many values as the shape has elements"))
}

fn named(state: &[shadegrad::nn::Weight]) -> BTreeMap<String, A> {
    let of = |(name, shape, v): &shadegrad::nn::Weight| {
        let data = v.iter().map(|&v| f64::from(v)).collect();
        (name.clone(), A::from_shape_vec(IxDyn(shape), data).expect("as many values as the shape has elements"))
    };
    state.iter().map(of).collect()
}

/// The parameters in the order of the table, which is that of the gradients.
fn in_order<'a>(arena: &'a Arena, params: &'a BTreeMap<String, A>) -> impl Iterator<Item = (&'a String, &'a A)> {
    arena.table().entries().iter().filter_map(|e| params.get_key_value(&e.name))
}

/// The first networks, as checks of the suite.
pub(crate) fn checks() -> Vec<Check> {
    (0..NETWORKS).map(|n| Check::new(format!("networks/{n}"), move || run(n).map(|_| ()))).collect()
}

/// Holds gradients against a difference of the loss in a random direction; where that is off, against one for each parameter.
fn slopes(
    net: &Chain,
    goal: &Goal,
    x: &A,
    params: &BTreeMap<String, A>,
    names: &[&String],
    grads: &[A],
) -> std::result::Result<(), String> {
    const H: f64 = 1e-6;
    let mut rng = Philox::new(0x736C6F7065, grads.len() as u64);
    let mut directions: Vec<A> =
        names.iter().map(|name| params[*name].mapv(|_| 2.0 * rng.uniform_f64() - 1.0)).collect();
    // Every parameter counts alike, but for those whose gradient is nothing beside the others'.
    let sizes: Vec<f64> = directions.iter().zip(grads).map(|(d, g)| dot(g, d).1).collect();
    let top = sizes.iter().copied().fold(1e-6, f64::max);
    directions.iter_mut().zip(&sizes).for_each(|(d, s)| *d *= top / s.max(0.1 * top));
    let difference = |which: Option<usize>| -> f64 {
        let at = |by: f64| {
            let mut moved = params.clone();
            for (i, name) in names.iter().enumerate().filter(|(i, _)| which.is_none_or(|w| w == *i)) {
                *moved.get_mut(*name).expect("a parameter") += &(&directions[i] * by);
            }
            goal.reference(&net.reference(&Given::new(&moved), x))
        };
        (at(H) - at(-H)) / (2.0 * H)
    };
    let terms: Vec<(f64, f64)> = grads.iter().zip(&directions).map(|(g, d)| dot(g, d)).collect();
    let sum: f64 = terms.iter().map(|t| t.0).sum();
    let scale = terms.iter().map(|t| t.1 * t.1).sum::<f64>().sqrt() + 0.1 * top;
    let off = (difference(None) - sum).abs() / scale;
    if off <= SLOPE_TOLERANCE {
        return Ok(());
    }
    let each: Vec<String> = (0..names.len())
        .map(|i| (i, (difference(Some(i)) - terms[i].0).abs() / (terms[i].1 + 0.1 * top)))
        .filter(|(_, off)| *off > SLOPE_TOLERANCE)
        .map(|(i, off)| format!("{} by {off:.1e}", names[i]))
        .collect();
    Err(format!("the gradient is off by {off:.1e} of its terms; of single parameters: {}", each.join(", ")))
}
