//! A warm training step makes nothing new on the device, and little on the host.

use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::{CrossEntropy, Gpu, Options, Tensor};
use shadegrad_models::{Spec, create};

/// Trains `name` on made-up images with a device of its own; `watch` sees each step's number.
fn train(name: &str, spec: &Spec, batch: usize, steps: usize, mut watch: impl FnMut(usize, &Gpu)) {
    let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
    let mut builder = Builder::new();
    let model = create(name, &mut builder.root(), spec).unwrap();
    let arena = Arena::new(&gpu, &builder, 0).unwrap();
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(1e-4)).unwrap();
    let n = batch * spec.height * spec.width * spec.channels;
    let pixels: Vec<f32> = (0..n).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    let labels: Vec<u32> = (0..batch).map(|i| (i % spec.classes) as u32).collect();
    let cx = Cx::train(&arena);
    for step in 0..steps {
        // Uploading the batch is part of a step.
        let x = Tensor::from_slice(&gpu, &pixels, &[batch, spec.height, spec.width, spec.channels]).unwrap();
        let y = Tensor::from_u32(&gpu, &labels, &[batch]).unwrap();
        let loss = model.forward(&cx, &x).unwrap().cross_entropy(&y, CrossEntropy::default()).unwrap();
        arena.backward(&loss).unwrap();
        optimizer.step(&arena, 0.01).unwrap();
        drop((x, y, loss));
        gpu.wait().unwrap();
        watch(step, &gpu);
    }
}

#[test]
fn a_warm_step_creates_no_buffer_pipeline_or_bind_group() {
    for (name, batch) in [("resnet20", 2), ("vit_micro", 2)] {
        let mut before = None;
        train(name, &Spec::cifar10(), batch, 8, |step, gpu| {
            let c = gpu.counters();
            let made = (c.buffers_created, c.pipelines_created, c.bind_groups_created);
            if step == 2 {
                before = Some(made);
            } else if step > 2 {
                assert_eq!(Some(made), before, "{name}, step {step}: buffers, pipelines, bind groups");
            }
        });
    }
}

#[test]
fn a_warm_step_allocates_little_on_the_host() {
    let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
    let spec = Spec { height: 8, width: 8, channels: 3, classes: 10 };
    let mut builder = Builder::new();
    let model = create("resnet18", &mut builder.root(), &spec).unwrap();
    let arena = Arena::new(&gpu, &builder, 0).unwrap();
    let mut optimizer = Optimizer::new(&arena, Rule::sgd(1e-4)).unwrap();
    let x = Tensor::ones(&gpu, &[1, 8, 8, 3]).unwrap();
    let labels = Tensor::from_u32(&gpu, &[3], &[1]).unwrap();
    let cx = Cx::train(&arena);
    let mut step = || {
        // Nothing is submitted meanwhile: that is the driver's to pay.
        let _gathering = gpu.gather();
        let before = gpu.counters();
        let made = allocation_counter::measure(|| {
            let loss = model.forward(&cx, &x).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap();
            arena.backward(&loss).unwrap();
            optimizer.step(&arena, 0.01).unwrap();
        });
        let after = gpu.counters();
        gpu.wait().unwrap();
        assert_eq!(after.submits, before.submits);
        (made.count_total, after.dispatches - before.dispatches)
    };
    (0..2).for_each(|_| {
        step();
    });
    let (allocations, dispatches) = step();
    assert!(dispatches > 200, "{dispatches} dispatches");
    // What is left: three for a result (the tensor, its loan of memory, its node), the backward rule and its list of gradients.
    assert!(allocations <= 4 * dispatches, "{allocations} allocations in {dispatches} dispatches");
}

#[test]
fn memory_after_300_steps_is_that_after_30() {
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    let mut at_30 = None;
    train("cnn", &spec, 4, 300, |step, gpu| {
        let m = gpu.memory();
        let held = (m.live, m.cached, m.live_buffers);
        if step == 29 {
            at_30 = Some(held);
        } else if step == 299 {
            assert_eq!(Some(held), at_30);
        }
    });
}
