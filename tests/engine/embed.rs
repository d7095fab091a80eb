//! Embedding: steps in an application's frame loop, memory shared both ways, several engines in one process, and errors
//! where the application's device is misused or lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shadegrad::data::digits;
use shadegrad::kernels::{GpuError, UserKernel, wgpu};
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{
    Budget, Evaluator, FitOptions, Hooks, Images, Mixing, Pace, Progress, Session, Trainer, evaluate,
};
use shadegrad::{DType, Error, Gpu, Options, Result, Tensor};

const USAGES: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

const LONG: Duration = Duration::from_secs(100);

/// A device as an application opens it, and how many errors its own handler heard.
struct App {
    device: wgpu::Device,
    queue: wgpu::Queue,
    heard: Arc<AtomicUsize>,
}

impl App {
    fn open() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let request = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&request)).expect("a GPU driver");
        let (required_features, required_limits) = Gpu::wanted(&adapter, &options());
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("application"),
            required_features,
            required_limits,
            ..Default::default()
        }))
        .expect("a device");
        let heard = Arc::new(AtomicUsize::new(0));
        let count = heard.clone();
        device.on_uncaptured_error(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        Self { device, queue, heard }
    }

    fn engine(&self) -> Gpu {
        Gpu::from_wgpu(self.device.clone(), self.queue.clone(), &options())
    }

    fn buffer(&self, floats: &[f32]) -> wgpu::Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(floats);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.len().next_multiple_of(16) as u64,
            usage: USAGES,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

fn options() -> Options {
    Options::from_env().unwrap()
}

/// Keeps the device busy: workgroups of 60,000 multiplications, each waiting for the one before. (Mesa's software driver
/// ends a shader's loops after 65,535 turns.)
fn spin(gpu: &Gpu, workgroups: u64) -> Result<Tensor> {
    let text = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
  var v = x[group.x % 4u];
  for (var i = 0u; i < 60000u; i++) { v = fract(v * 1.5 + 0.25); }
  y[group.x % 4u] = v;
}";
    let (x, y) = (Tensor::ones(gpu, &[4])?, Tensor::zeros(gpu, &[4])?);
    UserKernel::new("spin", text)?.dispatch(gpu, &[x.storage()], &[y.storage()], &[], gpu.grid(workgroups)?.0)?;
    Ok(y)
}

/// Workgroups of [`spin`] that take about `time`.
fn workgroups_for(gpu: &Gpu, time: Duration) -> u64 {
    spin(gpu, 1).unwrap().to_vec().unwrap();
    let (mut groups, mut took) = (8u64, Duration::ZERO);
    while took < time / 20 {
        groups *= 2;
        let started = Instant::now();
        spin(gpu, groups).unwrap().to_vec().unwrap();
        took = started.elapsed();
    }
    (groups as f64 * time.as_secs_f64() / took.as_secs_f64()) as u64
}

struct Net(Conv2d, BatchNorm2d, Linear);

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = self.1.forward(cx, &self.0.forward(cx, x)?)?.relu()?;
        self.2.forward(cx, &x.mean(&[1, 2], false)?)
    }
}

/// A network, what it is trained with, and 100 pictures.
struct Run {
    net: Net,
    arena: Arena,
    optimizer: Optimizer,
    train: Images,
}

impl Run {
    fn new(gpu: &Gpu) -> Result<Self> {
        let data = digits();
        let mut names = Builder::new();
        let net = Net(
            Conv2d::new(&mut names.root().sub("conv"), 1, 6, 3, ConvOptions::new(1, 1)),
            BatchNorm2d::new(&mut names.root().sub("norm"), 6),
            Linear::new(&mut names.root().sub("head"), 6, 10, true),
        );
        let arena = Arena::new(gpu, &names, 0)?;
        let optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
        let train = Images::upload(gpu, &data.train.first_per_class(10)?, &data.train.channel_stats()?)?;
        Ok(Self { net, arena, optimizer, train })
    }

    fn trainer(&mut self, options: &FitOptions) -> Trainer<'_> {
        Trainer::new(&self.net, &mut self.arena, &mut self.optimizer, |step| 0.01 / (1 + step) as f32, options.clone())
    }

    fn values(&self) -> Result<Vec<f32>> {
        Ok([self.arena.values_flat().to_vec()?, self.arena.buffers_flat().to_vec()?].concat())
    }
}

fn fit_options() -> FitOptions {
    FitOptions { epochs: 3, batch: 30, record_every: 1, mixing: Mixing::Mixup(0.4), ..FitOptions::default() }
}

fn one_by_one() -> Budget {
    Budget { steps: 1, ..Budget::default() }
}

/// What a session came to: the loss of every step, the mean of every epoch, the last values.
#[derive(Default)]
struct Driven {
    losses: Vec<f32>,
    epochs: Vec<(u64, f64)>,
    values: Vec<f32>,
}

/// A whole session, driven by `budget`.
fn drive(run: &mut Run, options: &FitOptions, budget: Budget) -> Result<Driven> {
    let mut session = Session::new(&run.train, options)?;
    let mut driven = Driven::default();
    loop {
        let Run { net, arena, optimizer, train } = run;
        let rate = |step| 0.01 / (1 + step) as f32;
        let now = Trainer::new(net, arena, optimizer, rate, options.clone()).advance(&mut session, train, budget)?;
        driven.losses.extend(now.news.losses.iter().map(|l| l.1));
        driven.epochs.extend(now.epochs);
        if now.done {
            assert_eq!((session.step(), session.steps(), now.news.under_way), (12, 12, 0));
            return Ok(Driven { values: run.values()?, ..driven });
        }
        std::thread::yield_now();
    }
}

#[test]
fn steps_from_a_frame_loop_are_those_of_fit_to_the_last_bit() -> Result<()> {
    #[derive(Default)]
    struct Watch(Vec<f32>);
    impl Hooks for Watch {
        fn record(&mut self, now: &Progress) -> Result<()> {
            self.0.push(now.loss as f32);
            Ok(())
        }
    }
    let (gpu, options) = (super::gpu(), fit_options());
    let mut watch = Watch::default();
    let mut plain = Run::new(&gpu)?;
    let train = Run::new(&gpu)?.train;
    let summary = plain.trainer(&options).fit(&train, None, &mut watch)?;
    for budget in [one_by_one(), Budget { steps: 64, host: LONG, frame: LONG }] {
        let Driven { losses, epochs, values } = drive(&mut Run::new(&gpu)?, &options, budget)?;
        assert_eq!((&losses, &values), (&watch.0, &plain.values()?));
        assert_eq!(epochs.iter().map(|e| e.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert!((epochs[2].1 - summary.last.train_loss).abs() < 1e-9, "{epochs:?}, {summary:?}");
    }
    Ok(())
}

#[test]
fn a_call_begins_what_its_budget_allows_in_one_submission() -> Result<()> {
    let app = App::open();
    let gpu = app.engine();
    let mut run = Run::new(&gpu)?;
    let options = FitOptions { epochs: 100, ..fit_options() };
    let mut session = Session::new(&run.train, &options)?;
    let train = Run::new(&gpu)?.train;
    let mut most = 0;
    for call in 0..60 {
        let budget = Budget { steps: 5, host: LONG, frame: LONG };
        let before = gpu.counters();
        let news = run.trainer(&options).advance(&mut session, &train, budget)?.news;
        let after = gpu.counters();
        assert!(news.under_way <= 5 && news.begun <= news.under_way, "call {call}: {news:?}");
        assert!(call > 0 || news.begun == 1, "the first call begins one step: {news:?}");
        assert_eq!(after.submits - before.submits, u64::from(news.begun > 0), "{before:?} {after:?} {news:?}");
        most = most.max(news.begun);
        // A long frame: the device has nothing left to do when the next call comes.
        if call > 10 {
            gpu.wait()?;
        }
    }
    assert_eq!(most, 5, "the number of steps did not rise to what the budget allows");
    let taken = session.step();
    let paused = Budget { steps: 0, ..Budget::default() };
    let mut losses = run.trainer(&options).settle(&mut session)?.news.losses;
    let now = run.trainer(&options).advance(&mut session, &train, paused)?;
    losses.extend(&now.news.losses);
    assert_eq!((session.step(), now.news.begun, now.news.under_way), (taken, 0, 0));
    assert_eq!(losses.last().map(|l| l.0), Some(taken - 1));
    // Without time on the host, and where frames suffer, it is one step a call, whatever the steps.
    for budget in [
        Budget { steps: 64, host: Duration::ZERO, frame: LONG },
        Budget { steps: 64, host: LONG, frame: Duration::ZERO },
    ] {
        let mut begun = Vec::new();
        for _ in 0..10 {
            begun.push(run.trainer(&options).advance(&mut session, &train, budget)?.news.begun);
            gpu.wait()?;
        }
        assert_eq!(begun[4..], [1; 6], "{begun:?}");
    }
    Ok(())
}

#[test]
fn no_call_waits_for_the_device() -> Result<()> {
    let app = App::open();
    let gpu = app.engine();
    let workgroups = workgroups_for(&gpu, Duration::from_millis(600));
    let (x, mut pace) = (Tensor::ones(&gpu, &[1])?, Pace::new(&gpu));
    // Compiles what the calls below use.
    pace.drive(one_by_one(), |_| x.add_scalar(1.0))?;
    assert_eq!(pace.finish()?, [(0, 2.0)]);
    let mut value = None;
    let before = gpu.counters();
    let news = pace.drive(one_by_one(), |_| {
        value = Some(spin(&gpu, workgroups)?.read_later()?);
        // As many kernels as otherwise make three submissions.
        (0..500).try_fold(x.clone(), |y, _| y.add_scalar(1.0))
    })?;
    assert_eq!(news.begun, 1);
    assert_eq!(gpu.counters().submits - before.submits, 1);
    let mut value = value.expect("the step was recorded");
    for _ in 0..100 {
        assert_eq!(value.try_get()?, None);
        let news = pace.drive(Budget::default(), |_| x.add_scalar(1.0))?;
        assert_eq!((news.begun, news.under_way), (0, 1));
    }
    // All calls are over, and the step under way still runs: none of them waited for it.
    assert_eq!(value.try_get()?, None);
    assert_eq!(pace.finish()?, [(1, 501.0)]);
    assert!(value.try_get()?.is_some_and(|v| v.len() == 4));
    assert!(value.try_get().is_err_and(|e| e.to_string().contains("taken already")));
    assert_eq!(app.heard(), 0);
    Ok(())
}

#[test]
fn reading_later_needs_no_flush_and_keeps_the_values_of_its_moment() -> Result<()> {
    let gpu = App::open().engine();
    let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?;
    let mut early = x.read_later()?;
    gpu.upload(x.storage(), bytemuck::cast_slice(&[5.0f32, 6.0]))?;
    let late = x.read_later()?;
    let values = loop {
        match early.try_get()? {
            Some(values) => break values,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!((values, late.wait()?), (vec![1.0, 2.0], vec![5.0, 6.0]));
    assert!(Tensor::arange(&gpu, 0, 4)?.read_later().is_err_and(|e| e.to_string().contains("F32")));
    Ok(())
}

#[test]
fn evaluation_in_portions_is_the_whole_one() -> Result<()> {
    let run = Run::new(&super::gpu())?;
    let whole = evaluate(&run.net, &Cx::eval(&run.arena), &run.train, 16)?;
    let mut portions = Evaluator::new(&run.train, 16)?;
    let mut calls = 0;
    let found = loop {
        calls += 1;
        let budget = Budget { steps: 2, ..Budget::default() };
        if let Some(found) = portions.advance(&run.net, &Cx::eval(&run.arena), &run.train, budget)? {
            break found;
        }
        std::thread::yield_now();
    };
    assert_eq!(found, whole);
    assert!(calls > 3, "{calls} calls for 7 batches, two at a time");
    assert!(Evaluator::new(&run.train, 0).is_err());
    Ok(())
}

#[test]
fn buffers_go_both_ways_without_a_copy() -> Result<()> {
    let app = App::open();
    let gpu = app.engine();
    // The application's buffer is the engine's tensor ..
    let theirs = app.buffer(&[1.0, 2.0, 3.0, 4.0]);
    let x = Tensor::from_buffer(&gpu, theirs.clone(), 0, &[4], DType::F32)?;
    let y = x.mul_scalar(10.0)?;
    let before = gpu.counters();
    app.queue.write_buffer(&theirs, 0, bytemuck::cast_slice(&[9.0f32]));
    assert_eq!(x.add_scalar(0.0)?.to_vec()?, [9.0, 2.0, 3.0, 4.0]);
    assert_eq!(gpu.counters().uploaded, before.uploaded);
    // .. commands recorded before the application's write and not flushed see the new value, as the documentation says.
    assert_eq!(y.to_vec()?[0], 90.0);
    // .. and the engine's tensor is a binding of the application's own pipeline, which writes its own buffer.
    let module = app.device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(
            "@group(0) @binding(0) var<storage, read> x: array<f32>;
             @group(0) @binding(1) var<storage, read_write> y: array<f32>;
             @compute @workgroup_size(4)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x] + 0.5; }"
                .into(),
        ),
    });
    let pipeline = app.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let square = x.square()?;
    let out = app.buffer(&[0.0; 4]);
    let group = app.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(square.binding()?) },
            wgpu::BindGroupEntry { binding: 1, resource: out.as_entire_binding() },
        ],
    });
    let mut encoder = app.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    app.queue.submit([encoder.finish()]);
    let out = Tensor::from_buffer(&gpu, out, 0, &[2, 2], DType::F32)?;
    assert_eq!(out.to_vec()?, [81.5, 4.5, 9.5, 16.5]);
    assert_eq!(gpu.counters().uploaded, before.uploaded, "a value went through the processor");
    assert!(Tensor::from_buffer(&gpu, theirs, 0, &[5], DType::F32).is_err());
    assert_eq!(app.heard(), 0);
    Ok(())
}

#[test]
fn engines_in_one_process_do_not_know_of_each_other() -> Result<()> {
    let app = App::open();
    let (first, second, shared) = (Gpu::new(options())?, Gpu::new(options())?, app.engine());
    // Step by step in turns on this thread ..
    let budget = one_by_one();
    let options = fit_options();
    let mut runs = [Run::new(&first)?, Run::new(&second)?, Run::new(&shared)?];
    let mut sessions: Vec<_> = runs.iter().map(|r| Session::new(&r.train, &options)).collect::<Result<_>>()?;
    let mut done = [false; 3];
    while done != [true; 3] {
        for ((run, session), done) in runs.iter_mut().zip(&mut sessions).zip(&mut done) {
            let Run { net, arena, optimizer, train } = run;
            let rate = |step| 0.01 / (1 + step) as f32;
            *done = Trainer::new(net, arena, optimizer, rate, options.clone()).advance(session, train, budget)?.done;
        }
    }
    let values = runs.iter().map(Run::values).collect::<Result<Vec<_>>>()?;
    assert!(values[0] == values[1] && values[1] == values[2]);
    // .. and on threads of their own, two of them on one engine.
    let together: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let spawn =
            |gpu: Gpu| scope.spawn(move || drive(&mut Run::new(&gpu)?, &fit_options(), budget).map(|d| d.values));
        let threads = [spawn(first.clone()), spawn(first.clone()), spawn(second.clone()), spawn(shared.clone())];
        threads.into_iter().map(|t| t.join().expect("no panic")).collect::<Result<_>>()
    })?;
    assert!(together.iter().all(|v| v == &values[0]));
    assert!(Tensor::ones(&first, &[1])?.add(&Tensor::ones(&shared, &[1])?).is_err());
    // The application's device outlives its engine, and a second engine on it starts from nothing.
    drop((runs, sessions, shared));
    let again = app.engine();
    assert_eq!((again.memory().live, again.counters().dispatches), (0, 0));
    assert_eq!(Tensor::ones(&again, &[2])?.to_vec()?, [1.0, 1.0]);
    assert_eq!(app.heard(), 0);
    Ok(())
}

#[test]
fn a_run_begins_on_a_thread_and_goes_on_in_the_frame_loop() -> Result<()> {
    let gpu = App::open().engine();
    let on_thread = gpu.clone();
    let (mut run, mut session) = std::thread::spawn(move || {
        let run = Run::new(&on_thread)?;
        let mut session = Session::new(&run.train, &fit_options())?;
        let (mut run, train) = (run, Run::new(&on_thread)?.train);
        let first = run.trainer(&fit_options()).advance(&mut session, &train, Budget::default())?;
        assert_eq!(first.news.begun, 1);
        Ok::<_, Error>((run, session))
    })
    .join()
    .expect("no panic")?;
    let pipelines = gpu.counters().pipelines_created;
    let train = Run::new(&gpu)?.train;
    while !run.trainer(&fit_options()).advance(&mut session, &train, Budget::default())?.done {
        std::thread::yield_now();
    }
    // An epoch's last batch is shorter and may take another variant of a kernel; nothing else is left to compile.
    assert!(gpu.counters().pipelines_created - pipelines <= 6, "{pipelines} before, {:?}", gpu.counters());
    Ok(())
}

#[test]
fn a_destroyed_device_of_the_application_is_an_error() -> Result<()> {
    let app = App::open();
    let gpu = app.engine();
    let mut run = Run::new(&gpu)?;
    let train = Run::new(&gpu)?.train;
    let options = FitOptions { epochs: 1000, ..fit_options() };
    let mut session = Session::new(&train, &options)?;
    run.trainer(&options).advance(&mut session, &train, Budget::default())?;
    run.trainer(&options).settle(&mut session)?;
    let x = Tensor::ones(&gpu, &[4])?;
    let big = gpu.alloc(2 << 20, "big")?;
    let mut pending = x.read_later()?;
    gpu.flush()?;
    app.device.destroy();
    // Whatever is called, in whatever order, is an error or has nothing to do with the device; nothing panics.
    let lost = (0..50).find_map(|_| run.trainer(&options).advance(&mut session, &train, one_by_one()).err());
    let lost = lost.expect("steps on a destroyed device fail");
    assert!(matches!(lost, Error::Gpu(GpuError::Lost { .. } | GpuError::Driver { .. })), "{lost}");
    let _ = pending.try_get();
    let _ = gpu.upload(x.storage(), &[0; 16]);
    let _ = gpu.upload(&big, &vec![0; 2 << 20]);
    let err = x.to_vec().unwrap_err();
    assert!(matches!(err, Error::Gpu(GpuError::Lost { .. })), "{err}");
    // From here on the engine knows: every later call says so, with what to do.
    for result in [x.add_scalar(1.0).map(|_| ()), Tensor::zeros(&gpu, &[3]).map(|_| ()), Run::new(&gpu).map(|_| ())] {
        let err = result.unwrap_err();
        assert!(matches!(&err, Error::Gpu(GpuError::Lost { .. })) && err.to_string().contains("checkpoint"), "{err}");
    }
    let _ = run.trainer(&options).settle(&mut session);
    assert_eq!(run.trainer(&options).settle(&mut session)?.news.under_way, 0);
    assert_eq!(app.heard(), 0);
    Ok(())
}

#[test]
fn mistakes_with_the_applications_buffers_are_errors_here_and_unheard_there() -> Result<()> {
    let (app, other) = (App::open(), App::open());
    let gpu = app.engine();
    // One buffer imported twice: no kernel may read the one and write the other.
    let buffer = app.buffer(&[1.0; 256]);
    let (a, b) = (gpu.import(buffer.clone(), 0, 64)?, gpu.import(buffer.clone(), 256, 64)?);
    assert!(a.same_buffer(&b));
    let copy = UserKernel::new(
        "copy",
        "@group(0) @binding(0) var<storage, read> x: array<f32>;
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(1) fn main() { y[0] = x[0]; }",
    )?;
    let err = copy.dispatch(&gpu, &[&a], &[&b], &[], [1, 1, 1]).unwrap_err().to_string();
    assert!(err.contains("share one buffer"), "{err}");
    // A kernel may write straight into it.
    let x = Tensor::full(&gpu, &[16], 7.0)?;
    copy.dispatch(&gpu, &[x.storage()], &[&b], &[], [1, 1, 1])?;
    assert_eq!(Tensor::from_storage(&gpu, b.clone(), &[16], DType::F32)?.to_vec()?[..2], [7.0, 1.0]);
    let readonly = app.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 256,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert!(gpu.import(readonly, 0, 16).is_err_and(|e| e.to_string().contains("COPY_DST")));
    // Destroyed under the engine's hands, or of another device: an error, and the engine goes on.
    let foreign = Tensor::from_buffer(&gpu, other.buffer(&[1.0; 4]), 0, &[4], DType::F32)?;
    let gone = Tensor::from_buffer(&gpu, buffer.clone(), 0, &[4], DType::F32)?;
    buffer.destroy();
    for bad in [gone, foreign] {
        let err = bad.add_scalar(1.0).and_then(|y| y.to_vec()).unwrap_err();
        assert!(matches!(&err, Error::Gpu(GpuError::Dispatch { .. } | GpuError::Driver { .. })), "{err}");
        assert_eq!(Tensor::ones(&gpu, &[2])?.add_scalar(1.0)?.to_vec()?, [2.0, 2.0]);
    }
    assert_eq!((app.heard(), other.heard()), (0, 0));
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_of_a_later_call() -> Result<()> {
    let gpu = super::gpu();
    let mut pace = Pace::new(&gpu).starting_at(40);
    let losses = [1.0, f32::NAN, 3.0];
    let mut step = |n: u64| Tensor::scalar(&gpu, losses[n as usize - 40]);
    assert_eq!(pace.drive(one_by_one(), &mut step)?.begun, 1);
    assert_eq!(pace.finish()?, [(40, 1.0)]);
    pace.drive(one_by_one(), &mut step)?;
    let err = pace.finish().unwrap_err();
    assert!(matches!(&err, Error::NonFinite(text) if text.contains("the loss of step 42 ")), "{err}");
    assert_eq!((pace.step(), pace.under_way()), (42, 0));
    let wide = pace.drive(one_by_one(), |_| Tensor::ones(&gpu, &[2]));
    assert!(wide.is_err_and(|e| e.to_string().contains("not one float")));
    let failed = pace.drive(one_by_one(), |_| Err(Error::value("mine", "no data")));
    assert!(failed.is_err_and(|e| e.to_string().contains("no data")));
    assert_eq!(pace.step(), 42);
    Ok(())
}

#[test]
fn operators_give_errors() -> Result<()> {
    let gpu = super::gpu();
    let (a, b) = (Tensor::full(&gpu, &[2], 6.0)?, Tensor::full(&gpu, &[2], 3.0)?);
    let all = [(&a + &b)?, (&a - &b)?, (&a * &b)?, (&a / &b)?, (-&a)?];
    assert_eq!(all.iter().map(|t| t.to_vec().unwrap()[1]).collect::<Vec<_>>(), [9.0, 3.0, 18.0, 2.0, -6.0]);
    assert!((&a + &Tensor::ones(&gpu, &[3])?).is_err());
    Ok(())
}

#[test]
fn the_page_shows_an_operation_in_under_sixty_lines() {
    let page = include_str!("../../docs/add-an-op.md");
    let program = page.split("```rust\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a program");
    assert!(program.contains("BACKWARD") && program.contains("fn main") && program.lines().count() < 60);
}
