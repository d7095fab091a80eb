//! Whole training steps, in floating-point operations of their convolutions and linear layers per second. One core's second on
//! a software driver: see `support`.

#[path = "../../benches/support/mod.rs"]
mod support;
mod training;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::{Gpu, Options};
use support::CpuTime;

fn steps(c: &mut Criterion<CpuTime>) {
    let options = Options { checked: Some(false), ..Options::from_env().expect("environment") };
    let gpu = Gpu::new(options).expect("a GPU driver");
    let mut group = c.benchmark_group("step");
    for name in training::NAMES {
        let mut step = training::step(&gpu, name).expect("a network");
        group.throughput(Throughput::Elements(step.flop as u64));
        group.bench_function(format!("{name}_{}", training::batch(name)), |b| {
            b.iter_custom(|times| support::spent(&gpu, times, || step.run().expect("the step runs")));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(500, 3000);
    targets = steps
}
criterion_main!(benches);
