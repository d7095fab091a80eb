//! Mixed precision: the factor of the loss, copies in halves, memory, checkpoints, and devices without f16.

use shadegrad::data::digits;
use shadegrad::io::Checkpoint;
use shadegrad::kernels::Disabled;
use shadegrad::nn::{
    Activation, Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, GlobalAvgPool, Init, Linear, Module, Scope,
};
use shadegrad::optim::{LossScaling, Optimizer, Rule};
use shadegrad::train::{FitOptions, Hooks, Images, NoHooks, Pause, Place, Progress, Trainer};
use shadegrad::{DType, Error, Gpu, Options, Precision, Result, Tensor};

use super::gpu;

/// A device of a test's own.
fn own(change: impl FnOnce(&mut Options)) -> Gpu {
    let mut options = Options::from_env().unwrap();
    change(&mut options);
    Gpu::new(options).unwrap()
}

/// Blocks of convolution, batch norm and ReLU, the second of each pair with a shortcut, and a linear layer.
struct Net(Vec<(Conv2d, BatchNorm2d)>, Linear);

impl Net {
    fn new(scope: &mut Scope<'_>, channels: usize, blocks: usize) -> Self {
        let block = |i: usize| {
            let inputs = if i == 0 { 1 } else { channels };
            let options = ConvOptions::new(1, 1).no_bias();
            let conv = Conv2d::new(&mut scope.sub(format!("conv{i}")), inputs, channels, 3, options);
            (conv, BatchNorm2d::new(&mut scope.sub(format!("bn{i}")), channels))
        };
        let layers = (0..blocks).map(block).collect();
        Self(layers, Linear::new(&mut scope.sub("fc"), channels, 10, true))
    }
}

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, (conv, bn)) in self.0.iter().enumerate() {
            let y = bn.forward_relu(cx, &conv.forward(cx, &x)?)?;
            x = if i % 2 == 1 { Activation::Relu.apply(&y.add(&x)?.add_scalar(-0.1)?)? } else { y };
        }
        self.1.forward(cx, &GlobalAvgPool.forward(cx, &x)?)
    }
}

struct Run {
    model: Net,
    arena: Arena,
    optimizer: Optimizer,
    train: Images,
    precision: Precision,
    epochs: u64,
}

impl Run {
    fn new(gpu: &Gpu, precision: Precision, scaling: LossScaling) -> Self {
        let data = digits();
        let stats = data.train.channel_stats().unwrap();
        let mut names = Builder::new();
        let model = Net::new(&mut names.root(), 8, 3);
        let arena = Arena::new(gpu, &names, 0).unwrap();
        let optimizer = Optimizer::new(&arena, Rule::adamw(0.01)).unwrap().clip_norm(1.0);
        Self {
            model,
            optimizer: optimizer.loss_scaling(scaling).unwrap(),
            arena,
            train: Images::upload(gpu, &data.train.first_per_class(10).unwrap(), &stats).unwrap(),
            precision,
            epochs: 4,
        }
    }

    fn fit(&mut self, hooks: &mut dyn Hooks, from: Option<&std::path::Path>) -> Result<()> {
        let from = from.map(|p| Checkpoint::open(p)?.restore(&mut self.arena, &mut self.optimizer)).transpose()?;
        let (precision, epochs) = (self.precision, self.epochs);
        let options = FitOptions { epochs, batch: 25, seed: 3, record_every: 1, precision, ..FitOptions::default() };
        let trainer = Trainer::new(&self.model, &mut self.arena, &mut self.optimizer, |_| 0.01, options);
        let mut trainer = match from {
            Some(state) => trainer.resume(state),
            None => trainer,
        };
        trainer.fit(&self.train, None, hooks).map(|_| ())
    }

    fn bits(&self) -> Vec<u32> {
        let mut all: Vec<f32> = self.arena.state().unwrap().into_iter().flat_map(|w| w.2).collect();
        for (_, t) in self.optimizer.state() {
            all.extend(t.to_vec().unwrap());
        }
        all.iter().map(|v| v.to_bits()).collect()
    }
}

/// Notes the losses, and may save and stop after a step.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop: Option<(u64, std::path::PathBuf)>,
}

impl Hooks for Watch {
    fn record(&mut self, now: &Progress) -> Result<()> {
        self.losses.push(now.loss);
        Ok(())
    }

    fn pause(&mut self, now: &mut Pause) -> Result<()> {
        match &self.stop {
            Some((step, path)) if *step == now.step && now.place == Place::Step => {
                Checkpoint::take(now.arena, now.optimizer, now.state()?)?.save(path)?;
                Err(Error::Interrupted("as asked".into()))
            }
            _ => Ok(()),
        }
    }
}

/// Doubled after three good steps; overflows at first, so that all of it is used within a few steps.
const LIVELY: LossScaling = LossScaling { init: 16_777_216.0, patience: 3 };

fn small_arena(gpu: &Gpu) -> Result<Arena> {
    let mut b = Builder::new();
    // Lengths that are no multiples of four, nor of a block of 64.
    for (name, shape) in [("a", &[7, 11][..]), ("b", &[7]), ("c", &[3, 3, 3, 5]), ("d", &[64, 3])] {
        b.root().sub(name).param("weight", shape, Init::Normal(0.0, 1.0));
    }
    Arena::new(gpu, &b, 1)
}

/// Gradients of one value everywhere, but for one element.
fn set_grads(arena: &Arena, all: f32, one: f32) -> Result<()> {
    arena.set_grads_flat(&Tensor::full(arena.gpu(), &[arena.table().floats()], all)?)?;
    let d = arena.grads().by_name("d.weight")?;
    let mut values = vec![all; d.numel()];
    values[100] = one;
    arena.gpu().upload(d.storage(), bytemuck::cast_slice(&values))?;
    Ok(())
}

fn flat_bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.to_vec()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn one_dispatch_makes_halves_of_all_parameters_and_gradients_reach_the_floats() -> Result<()> {
    let gpu = own(|_| ());
    let arena = small_arena(&gpu)?;
    let before = gpu.counters().dispatches;
    let params = arena.params_with_halves()?;
    assert_eq!(gpu.counters().dispatches - before, 1);
    let (x, w) = (Tensor::full(&gpu, &[5, 11], 0.37)?, params.by_name("a.weight")?);
    let product = |w: &Tensor| Precision::Mixed.scope(|| x.linear(w, None));
    let (with, without) = (product(w)?, product(&arena.params().by_name("a.weight")?.clone())?);
    assert_eq!(with.to_vec()?, without.to_vec()?);
    assert!(with.dtype() == DType::F32 && with.to_vec()? != x.linear(w, None)?.to_vec()?);
    // The leaf is the arena's own.
    let targets = [arena.params().by_name("a.weight")?];
    let [a, b] =
        [with, without].map(|y| shadegrad::autograd::grad(&y.sum_to(&[]).unwrap(), &targets).unwrap().remove(0));
    assert_eq!((a.to_vec()?, a.dtype()), (b.to_vec()?, DType::F32));
    let half = half::f16::from_f32(0.37).to_f32();
    assert!(a.to_vec()?.iter().all(|&g| (g - 5.0 * half).abs() < 1e-6));
    // Convolutions, and a parameter behind others.
    let x = Tensor::full(&gpu, &[1, 4, 4, 5], 0.2)?;
    let p = shadegrad::Conv2d::new(1, 1);
    let y = |w: &Tensor| Precision::Mixed.scope(|| x.conv2d(w, None, p)?.to_vec());
    assert_eq!(y(params.by_name("c.weight")?)?, y(arena.params().by_name("c.weight")?)?);
    Ok(())
}

#[test]
fn the_factor_halves_and_doubles_and_a_step_left_out_changes_nothing_else() -> Result<()> {
    let arena = small_arena(&gpu())?;
    let scaling = LossScaling { init: 8.0, patience: 2 };
    let mut optimizer = Optimizer::new(&arena, Rule::adam())?.loss_scaling(scaling)?;
    let state = |o: &Optimizer| -> Result<Vec<Vec<u32>>> {
        o.state().iter().take(2).map(|(_, t)| flat_bits(t)).chain([flat_bits(arena.values_flat())]).collect()
    };
    let mut factors = vec![optimizer.loss_factor()?.unwrap()];
    // Good, good (doubled), infinite, NaN, good, good (doubled), minus infinity.
    for bad in [None, None, Some(f32::INFINITY), Some(f32::NAN), None, None, Some(f32::NEG_INFINITY)] {
        set_grads(&arena, 0.5, bad.unwrap_or(0.25))?;
        let before = state(&optimizer)?;
        optimizer.step(&arena, 0.01)?;
        assert_eq!(state(&optimizer)? == before, bad.is_some(), "{bad:?}");
        factors.push(optimizer.loss_factor()?.unwrap());
    }
    assert_eq!(factors, [8.0, 8.0, 16.0, 8.0, 4.0, 4.0, 8.0, 4.0]);
    let report = optimizer.report()?;
    assert_eq!((report.applied, report.skipped), (4, 3));
    assert!(arena.nonfinite()?.is_none());
    Ok(())
}

#[test]
fn the_factor_stays_within_its_range() -> Result<()> {
    let arena = small_arena(&gpu())?;
    for (init, grad, bound) in [(2f32.powi(-23), f32::NAN, 2f32.powi(-24)), (2f32.powi(23), 1.0, 2f32.powi(24))] {
        let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.loss_scaling(LossScaling { init, patience: 1 })?;
        for _ in 0..3 {
            set_grads(&arena, grad, grad)?;
            optimizer.step(&arena, 0.0)?;
        }
        assert_eq!(optimizer.loss_factor()?, Some(bound));
    }
    for (init, patience) in
        [(3.0, 1), (0.0, 1), (2f32.powi(25), 1), (f32::INFINITY, 1), (-2.0, 1), (f32::NAN, 1), (2.0, 0)]
    {
        let err = Optimizer::new(&arena, Rule::adam())?.loss_scaling(LossScaling { init, patience });
        assert!(matches!(err, Err(Error::Value { .. })), "{init} {patience}");
    }
    Ok(())
}

#[test]
fn a_factor_changes_no_bit_of_a_step_in_f32() -> Result<()> {
    let one = || LossScaling { init: 1.0, patience: 100 };
    let mut plain = Run::new(&gpu(), Precision::F32, one());
    let mut scaled = Run::new(&gpu(), Precision::F32, LossScaling { init: 1024.0, ..one() });
    plain.fit(&mut NoHooks, None)?;
    scaled.fit(&mut NoHooks, None)?;
    let values = |r: &Run| flat_bits(r.arena.values_flat());
    assert_eq!(values(&plain)?, values(&scaled)?);
    Ok(())
}

#[test]
fn mixed_training_survives_overflows_and_ends_where_f32_does() -> Result<()> {
    let ends = |precision, scaling| -> Result<(Watch, Run)> {
        let (mut run, mut watch) = (Run::new(&gpu(), precision, scaling), Watch::default());
        run.epochs = 16;
        run.fit(&mut watch, None)?;
        Ok((watch, run))
    };
    let floats = ends(Precision::F32, LossScaling::default())?.0.losses;
    let halves = ends(Precision::Mixed, LossScaling::default())?.0.losses;
    let (Watch { losses: lively, .. }, run) = ends(Precision::Mixed, LossScaling { patience: 10, ..LIVELY })?;
    let report = run.optimizer.report()?;
    if gpu().caps().f16 {
        // 2^24 times a gradient is beyond the largest half: the first steps are left out, and later ones now and then.
        assert!(report.skipped >= 3 && report.applied >= 50, "{report:?}");
        assert!(run.optimizer.loss_factor()? < Some(LIVELY.init) && halves[0] != floats[0]);
    }
    assert_eq!(report.skipped + report.applied, 64);
    assert!(run.arena.nonfinite()?.is_none());
    // The factor is not part of the first loss.
    assert!((halves[0] - floats[0]).abs() < 5e-3 && lively[0] == halves[0], "{} for {}", halves[0], floats[0]);
    let end = |losses: &[f64]| losses[56..].iter().sum::<f64>() / 8.0;
    let ends = [&floats, &halves, &lively].map(|l| end(l));
    println!("{report:?}, losses at the end: f32, mixed, mixed with steps left out: {ends:.4?}");
    assert!((ends[1] / ends[0] - 1.0).abs() < 0.05 && ends[2] < 0.8 * lively[0], "{ends:?}");
    Ok(())
}

#[test]
fn a_mixed_run_goes_on_to_the_last_bit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let make = || Run::new(&gpu(), Precision::Mixed, LIVELY);
    let (mut whole, mut told) = (make(), Watch::default());
    whole.fit(&mut told, None)?;
    // Among the first overflows, and later.
    for step in [2, 9] {
        let path = folder.path().join("c.safetensors");
        let mut before = Watch { stop: Some((step, path.clone())), ..Watch::default() };
        assert!(matches!(make().fit(&mut before, None), Err(Error::Interrupted(_))));
        let (mut second, mut after) = (make(), Watch::default());
        second.fit(&mut after, Some(&path))?;
        assert_eq!([before.losses, after.losses].concat(), told.losses, "{step}");
        assert_eq!(second.bits(), whole.bits(), "{step}");
    }
    Ok(())
}

/// Bytes that the graph of a forward pass holds, and the most that a whole step has in use beside the arena.
fn memory(precision: Precision) -> Result<(u64, u64)> {
    let gpu = own(|_| ());
    let mut names = Builder::new();
    let model = Net::new(&mut names.root(), 16, 8);
    let arena = Arena::new(&gpu, &names, 0)?;
    let x = Tensor::full(&gpu, &[16, 32, 32, 1], 0.5)?;
    let labels = Tensor::from_u32(&gpu, &[3; 16], &[16])?;
    let before = gpu.memory().live;
    gpu.reset_peak();
    let cx = Cx::train(&arena).with_params(&arena.params_with_halves()?);
    let copies = gpu.memory().live - before;
    let loss =
        precision.scope(|| model.forward(&cx, &x)?.cross_entropy(&labels, shadegrad::CrossEntropy::default()))?;
    let kept = gpu.memory().live - before - copies;
    arena.backward(&loss)?;
    let peak = gpu.memory().peak - before - copies;
    // Nothing holds itself: all of it goes with the graph.
    drop((loss, cx));
    assert_eq!(gpu.memory().live, before);
    Ok((kept, peak))
}

#[test]
fn a_mixed_graph_holds_half_the_memory() -> Result<()> {
    let ((floats, peak_floats), (halves, peak_halves)) = (memory(Precision::F32)?, memory(Precision::Mixed)?);
    println!("kept {floats} and {halves} bytes, at most {peak_floats} and {peak_halves}");
    let share = halves as f64 / floats as f64;
    assert!((0.49..0.52).contains(&share), "{halves} of {floats} bytes: {share:.3}");
    assert!(peak_halves as f64 <= 0.75 * peak_floats as f64, "{peak_halves} of {peak_floats} bytes");
    Ok(())
}

#[test]
fn what_several_products_read_is_rounded_once() -> Result<()> {
    let gpu = own(|_| ());
    let x = Tensor::full(&gpu, &[4, 8], 0.3)?.leaf().mul_scalar(2.0)?;
    let w = Tensor::full(&gpu, &[8, 8], 0.5)?.cast(DType::F16)?;
    let before = gpu.counters().dispatches;
    let both = Precision::Mixed.scope(|| x.linear(&w, None)?.add(&x.matmul(&w)?));
    assert_eq!((both?.requires_grad(), gpu.counters().dispatches - before), (true, 4));
    // A leaf is not: between two readings an optimiser may have stepped.
    let leaf = Tensor::full(&gpu, &[8, 8], 1.0)?.leaf();
    let read = || Precision::Mixed.scope(|| x.matmul(&leaf)?.to_vec());
    let first = read()?[0];
    gpu.upload(leaf.storage(), bytemuck::cast_slice(&[2.0f32; 64]))?;
    assert_eq!(read()?[0], 2.0 * first);
    Ok(())
}

#[test]
fn a_segment_that_is_run_again_is_run_in_its_region() -> Result<()> {
    let arena = small_arena(&gpu())?;
    let x = Tensor::full(&gpu(), &[5, 11], 0.37)?;
    let grad = |again: bool| -> Result<Vec<f32>> {
        let w = arena.params().by_name("a.weight")?;
        let f = |t: &[Tensor]| t[0].linear(&t[1], None)?.gelu()?.square()?.sum_to(&[]);
        let inputs = [&x, w];
        let loss = Precision::Mixed.scope(|| match again {
            true => shadegrad::autograd::checkpoint(&inputs, f),
            false => f(&inputs.map(Tensor::clone)),
        })?;
        shadegrad::autograd::grad(&loss, &[w])?[0].to_vec()
    };
    assert_eq!(grad(true)?, grad(false)?);
    Ok(())
}

#[test]
fn a_device_without_f16_trains_in_f32_and_says_so() -> Result<()> {
    let without = own(|o| o.disable = Disabled { f16: true, ..o.disable });
    let (precision, note) = Precision::Mixed.on(&without);
    assert_eq!(precision, Precision::F32);
    assert!(note.is_some_and(|n| n.contains("no f16") && n.contains("f32") && n.contains(&without.description().name)));
    assert_eq!(Precision::F32.on(&without), (Precision::F32, None));
    let mut losses = Vec::new();
    for precision in [Precision::Mixed, Precision::F32] {
        let mut watch = Watch::default();
        Run::new(&without, precision, LossScaling::default()).fit(&mut watch, None)?;
        losses.push(watch.losses);
    }
    assert_eq!(losses[0], losses[1]);
    if gpu().caps().f16 {
        assert_eq!(Precision::Mixed.on(&gpu()), (Precision::Mixed, None));
    }
    Ok(())
}

#[test]
fn regions_nest_and_mistakes_are_named() -> Result<()> {
    let inner = Precision::Mixed.scope(|| (Precision::now(), Precision::F32.scope(Precision::now), Precision::now()));
    assert_eq!(inner, (Precision::Mixed, Precision::F32, Precision::Mixed));
    assert_eq!(Precision::now(), Precision::F32);
    let gpu = gpu();
    let labels = Tensor::from_u32(&gpu, &[1, 2], &[1, 2])?;
    let err = labels.matmul(&Tensor::ones(&gpu, &[2, 1])?).unwrap_err().to_string();
    assert!(err.contains("matmul") && err.contains("F16") && err.contains("U32"), "{err}");
    let err = Tensor::ones(&gpu, &[2])?.cast(DType::F16)?.relu().unwrap_err().to_string();
    assert!(err.contains("relu") && err.contains("cast it first"), "{err}");
    if gpu.caps().f16 {
        let mut run = Run::new(&gpu, Precision::Mixed, LossScaling::default());
        run.optimizer = Optimizer::new(&run.arena, Rule::adam())?;
        let err = run.fit(&mut NoHooks, None).unwrap_err().to_string();
        assert!(err.contains("loss_scaling"), "{err}");
    }
    Ok(())
}
