//! The network, and the application's buffer that it learns from.

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Builder, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{Budget, News, Pace};
use shadegrad::{DType, Gpu, Result, Tensor, wgpu};

/// Points that the application's buffer has room for.
pub const POINTS: usize = 256;
/// Samples of the decision field in each direction.
pub const SIDE: usize = 48;

/// A painted point: place in -1..1, class -1 or 1, and 1 where there is a point at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Point {
    pub x: f32,
    pub y: f32,
    pub class: f32,
    pub there: f32,
}

/// Two hidden layers: from a place to the score of the second class.
struct Net([Linear; 3]);

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let [first, second, last] = &self.0;
        // Sines of the place let a small network follow windings.
        let x = Tensor::concat(&[x, &x.mul_scalar(4.0)?.sin()?], 1)?;
        last.forward(cx, &second.forward(cx, &first.forward(cx, &x)?.tanh()?)?.tanh()?)
    }
}

/// All that one training needs. It is `Send`: made, with its first step, on a thread, and driven by the frame loop.
pub struct Learner {
    gpu: Gpu,
    net: Net,
    arena: Arena,
    optimizer: Optimizer,
    pace: Pace,
    /// The application's buffer of [`POINTS`] points, as a tensor.
    points: Tensor,
    /// The places `[SIDE * SIDE, 2]` at which the field is computed.
    grid: Tensor,
    /// Scores `[SIDE * SIDE, 1]` as of the last steps: the application binds this memory when it draws.
    pub field: Option<Tensor>,
}

impl Learner {
    /// A new network with the first values of `seed`, learning from `points`.
    pub fn new(gpu: &Gpu, points: &wgpu::Buffer, seed: u64) -> Result<Self> {
        let mut names = Builder::new();
        let mut linear = |name: &str, from, to| Linear::new(&mut names.root().sub(name), from, to, true);
        let net = Net([linear("first", 4, 48), linear("second", 48, 48), linear("last", 48, 1)]);
        let arena = Arena::new(gpu, &names, seed)?;
        let place = |i: usize| (i as f32 + 0.5) / SIDE as f32 * 2.0 - 1.0;
        let grid: Vec<f32> = (0..SIDE * SIDE).flat_map(|i| [place(i % SIDE), place(i / SIDE)]).collect();
        Ok(Self {
            optimizer: Optimizer::new(&arena, Rule::adamw(0.0))?,
            pace: Pace::new(gpu),
            points: Tensor::from_buffer(gpu, points.clone(), 0, &[POINTS, 4], DType::F32)?,
            grid: Tensor::from_slice(gpu, &grid, &[SIDE * SIDE, 2])?,
            field: None,
            gpu: gpu.clone(),
            net,
            arena,
        })
    }

    /// What a frame does: steps within the budget, and the field along with the first of them. Waits for nothing.
    pub fn frame(&mut self, rate: f32, budget: Budget) -> Result<News> {
        let Self { net, arena, optimizer, pace, points, grid, field, .. } = self;
        let mut drawn = None;
        let news = pace.drive(budget, |_| {
            if drawn.is_none() {
                drawn = Some(no_grad(|| net.forward(&Cx::eval(arena), grid))?);
            }
            let class = points.narrow(1, 2, 1)?;
            let there = points.narrow(1, 3, 1)?;
            let score = net.forward(&Cx::train(arena), &points.narrow(1, 0, 2)?)?;
            // Logistic loss over the points that are there.
            let losses = score.mul(&class)?.neg()?.softplus()?.mul(&there)?;
            let loss = losses.sum_all()?.div(&there.sum_all()?.add_scalar(1e-6)?)?;
            arena.backward(&loss)?;
            optimizer.step(arena, rate)?;
            Ok(loss)
        })?;
        if drawn.is_some() {
            *field = drawn;
        }
        Ok(news)
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.pace.step()
    }

    /// Bytes of device memory that the engine uses.
    pub fn memory(&self) -> u64 {
        self.gpu.memory().live
    }
}

/// Makes a learner and takes its first step, which compiles its kernels: for a thread, because it waits.
pub fn first_step(gpu: &Gpu, points: &wgpu::Buffer, seed: u64) -> Result<Learner> {
    let mut learner = Learner::new(gpu, points, seed)?;
    learner.frame(0.0, Budget { steps: 1, ..Budget::default() })?;
    learner.pace.finish()?;
    Ok(learner)
}
