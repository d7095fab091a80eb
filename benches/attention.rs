//! Training of attention that computes its weights again in the backward pass, against attention that stores them: forward
//! and backward, by processor time, both in turns. One core's second on a software driver: see `support`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::{Attention, Gpu, Options, Result, Tensor};
use support::CpuTime;

/// Batch, heads, tokens, channels of a head; about equally much work each.
const SIZES: [[usize; 4]; 13] = [
    [128, 4, 4, 32],
    [128, 4, 8, 32],
    [128, 2, 8, 64],
    [64, 4, 16, 32],
    [32, 4, 32, 32],
    [16, 4, 64, 32],
    [2, 2, 256, 32],
    [1, 1, 1024, 32],
    [16, 2, 64, 64],
    [2, 1, 256, 64],
    [1, 1, 1024, 64],
    [16, 4, 64, 16],
    [2, 2, 256, 16],
];

fn training(c: &mut Criterion<CpuTime>) {
    let gpu =
        Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU driver");
    let mut group = c.benchmark_group("attention");
    for [batch, heads, tokens, depth] in SIZES {
        let fill = |value: f32| Tensor::full(&gpu, &[batch, heads, tokens, depth], value).expect("memory");
        let [q, k, v] = [0.1, 0.2, 0.3].map(|value| fill(value).leaf());
        let dy = fill(1.0);
        let product = 2 * batch * heads * tokens * tokens * depth;
        for causal in [false, true] {
            for (passes, products) in [("forward", 2), ("both", 6)] {
                // What the composed passes multiply; recomputing adds three products.
                group.throughput(Throughput::Elements((products * product) as u64));
                for (name, recompute) in [("recompute", true), ("store", false)] {
                    let options = Attention { causal, recompute: Some(recompute), ..Attention::default() };
                    let step = || -> Result<()> {
                        let y = q.sdpa(&k, &v, options)?;
                        if passes == "both" {
                            grad_with(&[&y], &[&q, &k, &v], Some(&[&dy]), GradOptions::default())?;
                        }
                        Ok(())
                    };
                    let mask = if causal { "causal_" } else { "" };
                    let row = BenchmarkId::new(format!("{passes}_{mask}{tokens}x{depth}"), name);
                    group.bench_function(row, |b| {
                        b.iter_custom(|times| support::spent(&gpu, times, || step().expect("a step")));
                    });
                }
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(100, 400);
    targets = training
}
criterion_main!(benches);
