//! Sparse linear layers against dense ones: time over sparsity, forward and with both gradients, and the sparsity from
//! which on the sparse layer is faster. One core's second on a software driver: see `support`.

mod support;

use std::cell::RefCell;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::rng::Philox;
use shadegrad::{Gpu, Options, Result, SparsePattern, Tensor};
use support::CpuTime;

/// Samples, outputs, inputs: the paper's hidden layers, and the smaller ones of runs on a processor.
const SIZES: [[usize; 3]; 2] = [[256, 1024, 1024], [64, 256, 256]];
const SPARSITY: [f64; 9] = [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99];

/// Runs `run` and keeps the shortest mean in `best`, in nanoseconds.
fn measure(gpu: &Gpu, b: &mut criterion::Bencher<'_, CpuTime>, best: &RefCell<f64>, run: &dyn Fn() -> Result<()>) {
    b.iter_custom(|times| {
        let spent = support::spent(gpu, times, || run().expect("a run"));
        let mean = spent.as_nanos() as f64 / times as f64;
        best.replace_with(|old| old.min(mean));
        spent
    });
}

/// The sparsity at which the times, falling with sparsity, pass `dense`; linear between two points.
fn crossing(times: &[(f64, f64)], dense: f64) -> String {
    match times.iter().position(|t| t.1 <= dense) {
        None => "beyond 0.99".into(),
        Some(0) => format!("below {}", times[0].0),
        Some(i) => {
            let ((s0, t0), (s1, t1)) = (times[i - 1], times[i]);
            format!("at {:.3}", s0 + (s1 - s0) * (t0 - dense) / (t0 - t1))
        }
    }
}

fn layers(c: &mut Criterion<CpuTime>) {
    let gpu =
        Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU driver");
    let options = GradOptions::default();
    for [batch, outputs, inputs] in SIZES {
        let fill = |shape: &[usize]| Tensor::full(&gpu, shape, 0.5).expect("memory");
        let (x, g) = (fill(&[batch, inputs]).leaf(), fill(&[batch, outputs]));
        let weight = fill(&[outputs, inputs]).leaf();
        let flops = (2 * batch * outputs * inputs) as u64;
        for backward in [false, true] {
            let pass = if backward { "forward_backward" } else { "forward" };
            let mut group = c.benchmark_group(format!("{pass}_{batch}x{outputs}x{inputs}"));
            group.throughput(Throughput::Elements(if backward { 3 * flops } else { flops }));
            let both = |y: Tensor, w: &Tensor| -> Result<()> {
                if backward {
                    grad_with(&[&y], &[&x, w], Some(&[&g]), options)?;
                }
                Ok(())
            };
            let dense = RefCell::new(f64::INFINITY);
            group.bench_function("dense", |b| measure(&gpu, b, &dense, &|| both(x.linear(&weight, None)?, &weight)));
            let mut times = Vec::new();
            for sparsity in SPARSITY {
                let mut rng = Philox::new(0, 0);
                let at: Vec<u32> = (0..(outputs * inputs) as u32).filter(|_| rng.uniform_f64() >= sparsity).collect();
                let pattern = SparsePattern::new(&gpu, outputs, inputs, &at).expect("a pattern");
                let values = fill(&[at.len()]).leaf();
                let best = RefCell::new(f64::INFINITY);
                // What it would be if the dense layer were as fast: the rate counts all weights, also those that are not.
                group.bench_function(BenchmarkId::new("sparse", sparsity), |b| {
                    measure(&gpu, b, &best, &|| both(x.sparse_linear(&values, &pattern, None)?, &values));
                });
                times.push((sparsity, best.into_inner()));
            }
            group.finish();
            let dense = dense.into_inner();
            println!("{pass} {batch}x{outputs}x{inputs}: dense {:.2} ms", dense * 1e-6);
            for (sparsity, t) in &times {
                println!("  sparsity {sparsity}: {:.2} ms, {:.2} of dense", t * 1e-6, t / dense);
            }
            println!("  the sparse layer is faster from a crossing {}", crossing(&times, dense));
        }
    }
}

criterion_group! {
    name = benches;
    config = support::settings(100, 400);
    targets = layers
}
criterion_main!(benches);
