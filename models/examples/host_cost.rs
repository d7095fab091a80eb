//! What a training step costs the host: `cargo run --release -p shadegrad-models --example host_cost -- [MODEL] [SIZE] [BATCH]`.
//!
//! Processor time of the recording thread and heap allocations per dispatch, on warm steps: recording (the engine's
//! operations, its recorder, and wgpu's noting of commands), then `finish` (where wgpu checks and encodes) with `submit`.
//! Beside it the same for a bare loop over wgpu with as many dispatches, which is the least that any program on wgpu pays.

use allocation_counter::measure;
use cpu_time::ThreadTime;
use shadegrad::kernels::wgpu;
use shadegrad::nn::{Arena, Builder, Cx};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::{CrossEntropy, Gpu, Options, Result, Tensor};
use shadegrad_models::{Spec, create};

/// Rounds of a measurement; the least counts, since other work on the machine only adds.
const ROUNDS: usize = 15;

/// Processor microseconds and allocations of something; the most there is where one was not measured.
#[derive(Clone, Copy)]
struct Cost {
    micros: f64,
    allocations: u64,
}

/// Whether allocations are counted in this round, which takes time itself, or time is measured.
#[derive(Clone, Copy)]
struct Counting(bool);

impl Cost {
    const MOST: Self = Self { micros: f64::INFINITY, allocations: u64::MAX };

    fn of<T>(counting: Counting, f: impl FnOnce() -> T) -> (T, Self) {
        if !counting.0 {
            let start = ThreadTime::now();
            let out = f();
            return (out, Self { micros: start.elapsed().as_secs_f64() * 1e6, ..Self::MOST });
        }
        let mut out = None;
        let counted = measure(|| out = Some(f()));
        (out.expect("it ran"), Self { allocations: counted.count_total, ..Self::MOST })
    }

    fn least(self, other: Self) -> Self {
        Self { micros: self.micros.min(other.micros), allocations: self.allocations.min(other.allocations) }
    }
}

fn line(what: &str, cost: Cost, dispatches: u64) {
    let n = dispatches as f64;
    println!("{what:<44} {:>8.2} us {:>8.2} allocations", cost.micros / n, cost.allocations as f64 / n);
}

/// Recording, finishing and submitting `count` dispatches with wgpu alone: three buffers read, one written, a hundred bytes
/// of immediates, another bind group each time and another pipeline every second time.
fn bare(gpu: &Gpu, count: u64) -> [Cost; 3] {
    let device = gpu.device();
    let text = |factor: u32| {
        let members: String = (0..25).map(|i| format!("m{i}: u32, ")).collect();
        format!(
            "struct P {{ {members} }} var<immediate> p: P;
             @group(0) @binding(0) var<storage, read> a: array<f32>;
             @group(0) @binding(1) var<storage, read> b: array<f32>;
             @group(0) @binding(2) var<storage, read> c: array<f32>;
             @group(0) @binding(3) var<storage, read_write> y: array<f32>;
             @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {{
               y[i] = f32(p.m0 + p.m24) + {factor}.0 * (a[i] + b[i] + c[i]);
             }}"
        )
    };
    let entry = |i: u32| wgpu::BindGroupLayoutEntry {
        binding: i,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: i < 3 },
            has_dynamic_offset: false,
            min_binding_size: wgpu::BufferSize::new(16),
        },
        count: None,
    };
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[entry(0), entry(1), entry(2), entry(3)],
    });
    let whole = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 128,
    });
    let pipelines: Vec<_> = (1..3)
        .map(|i| {
            let source = wgpu::ShaderSource::Wgsl(text(i).into());
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&whole),
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            })
        })
        .collect();
    let buffers: Vec<_> = (0..100)
        .map(|_| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 1024,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })
        .collect();
    let groups: Vec<_> = (0..count as usize)
        .map(|i| {
            let entries = [0, 1, 2, 3].map(|j| wgpu::BindGroupEntry {
                binding: j,
                resource: buffers[(i + 7 * j as usize) % buffers.len()].as_entire_binding(),
            });
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries })
        })
        .collect();
    let mut least = [Cost::MOST; 3];
    for round in 0..ROUNDS {
        let counting = Counting(round % 3 == 2);
        let (encoder, record) = Cost::of(counting, || {
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (i, group) in groups.iter().enumerate() {
                pass.set_pipeline(&pipelines[i / 2 % 2]);
                pass.set_bind_group(0, group, &[]);
                pass.set_immediates(0, &[i as u8; 100]);
                pass.dispatch_workgroups(1, 1, 1);
            }
            drop(pass);
            encoder
        });
        let (commands, finish) = Cost::of(counting, || encoder.finish());
        let (_, submit) = Cost::of(counting, || gpu.queue().submit([commands]));
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        least = [least[0].least(record), least[1].least(finish), least[2].least(submit)];
    }
    least
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "resnet18".into());
    let mut number = |default: usize| args.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (size, batch) = (number(32), number(1));
    let gpu = Gpu::new(Options { checked: Some(false), ..Options::from_env()? })?;
    let spec = Spec { height: size, width: size, channels: 3, classes: 10 };
    let mut builder = Builder::new();
    let model = create(&name, &mut builder.root(), &spec)?;
    let arena = Arena::new(&gpu, &builder, 0)?;
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(1e-4))?;
    let x = Tensor::zeros(&gpu, &[batch, size, size, 3])?;
    let labels = Tensor::from_u32(&gpu, &vec![3; batch], &[batch])?;
    let cx = Cx::train(&arena);
    let mut parts = [Cost::MOST; 4];
    let (mut before, mut dispatches) = (gpu.counters(), 0);
    for round in 0..ROUNDS + 3 {
        // Gathered, so that nothing is submitted before it is asked for.
        let gathering = gpu.gather();
        let counting = Counting(round % 3 == 2);
        let mut step = || -> Result<[Cost; 3]> {
            let (loss, forward) =
                Cost::of(counting, || model.forward(&cx, &x)?.cross_entropy(&labels, CrossEntropy::default()));
            let loss = loss?;
            let (done, backward) = Cost::of(counting, || arena.backward(&loss));
            done?;
            let (done, update) = Cost::of(counting, || optimizer.step(&arena, 0.01));
            done?;
            Ok([forward, backward, update])
        };
        let [forward, backward, update] = step()?;
        let (done, submit) = Cost::of(counting, || gpu.flush());
        done?;
        drop(gathering);
        gpu.wait()?;
        let now = gpu.counters();
        dispatches = now.dispatches - before.dispatches;
        if round >= 3 {
            for (least, cost) in parts.iter_mut().zip([forward, backward, update, submit]) {
                *least = least.least(cost);
            }
        }
        if round == ROUNDS + 2 {
            println!(
                "{name}, {batch} images of {size}x{size}: {dispatches} dispatches; made in a warm step: {} pipelines, {} bind \
                 groups, {} buffers",
                now.pipelines_created - before.pipelines_created,
                now.bind_groups_created - before.bind_groups_created,
                now.buffers_created - before.buffers_created
            );
        }
        before = now;
    }
    println!("per dispatch:");
    let sum = |costs: &[Cost]| Cost {
        micros: costs.iter().map(|c| c.micros).sum(),
        allocations: costs.iter().map(|c| c.allocations).sum(),
    };
    line("recording", sum(&parts[..3]), dispatches);
    for (what, cost) in ["  of it the forward pass", "  the backward pass", "  the optimiser"].into_iter().zip(parts) {
        line(what, cost, dispatches);
    }
    line("finish and submit", parts[3], dispatches);
    // The same commands, kept.
    let (done, plan) = gpu.capture(|| {
        let loss = model.forward(&cx, &x)?.cross_entropy(&labels, CrossEntropy::default())?;
        arena.backward(&loss)?;
        optimizer.step(&arena, 0.01)
    })?;
    done?;
    gpu.wait()?;
    let mut replayed = [Cost::MOST; 2];
    for round in 0..ROUNDS {
        let (gathering, counting) = (gpu.gather(), Counting(round % 3 == 2));
        let (done, record) = Cost::of(counting, || plan.replay());
        done?;
        let (done, submit) = Cost::of(counting, || gpu.flush());
        done?;
        drop(gathering);
        gpu.wait()?;
        replayed = [replayed[0].least(record), replayed[1].least(submit)];
    }
    line("a captured step replayed: recording", replayed[0], dispatches);
    line("  finish and submit", replayed[1], dispatches);
    let [record, finish, submit] = bare(&gpu, dispatches);
    line("bare wgpu, recording", record, dispatches);
    line("bare wgpu, finish", finish, dispatches);
    line("bare wgpu, submit", submit, dispatches);
    Ok(())
}
