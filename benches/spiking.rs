//! Leaky integrate-and-fire neurons over time: all steps in one kernel against the same composed of element-wise
//! operations, step by step. Processor time on a software driver: see `support`. The rate counts neurons times steps.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::autograd::{GradOptions, custom, grad_with, no_grad};
use shadegrad::rng::Stream;
use shadegrad::{Gpu, LifOptions, Options, Result, Tensor};
use support::CpuTime;

/// A batch of 64 of 4096 neurons.
const NEURONS: [usize; 2] = [64, 4096];

/// A spike where `z > 0`, with the surrogate's gradient.
fn spike(z: &Tensor) -> Result<Tensor> {
    let kept = z.detach();
    custom(
        "spike",
        &[z],
        |z| z[0].gt_scalar(0.0),
        move |_, grad| {
            let slope = kept.abs()?.neg()?.add_scalar(1.0)?.relu()?.mul_scalar(0.3)?;
            Ok(vec![Some(grad.mul(&slope)?)])
        },
    )
}

/// Spikes of each step, composed.
fn composed(currents: &[Tensor], threshold: &Tensor, leak: &Tensor) -> Result<Vec<Tensor>> {
    let (mut membrane, mut spikes): (Option<Tensor>, _) = (None, Vec::new());
    for a in currents {
        let u = match &membrane {
            Some(m) => m.mul(leak)?.add(a)?,
            None => a.clone(),
        };
        let o = spike(&u.div(threshold)?.add_scalar(-1.0)?)?;
        membrane = Some(u.sub(&o.detach().mul(threshold)?)?);
        spikes.push(o);
    }
    Ok(spikes)
}

fn lif(c: &mut Criterion<CpuTime>) {
    let gpu =
        Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU driver");
    let mut group = c.benchmark_group("lif");
    for steps in [1, 2, 4, 5, 8, 16, 32] {
        let shape = [steps, NEURONS[0], NEURONS[1]];
        let x = Tensor::uniform(&gpu, &shape, Stream::new(0, 0), -0.5, 1.5).expect("memory").leaf();
        let one_step = |t: usize| {
            let slice = no_grad(|| x.slice(0, t, t + 1, 1)?.reshape(&NEURONS)).expect("memory");
            slice.leaf()
        };
        let parts: Vec<Tensor> = (0..steps).map(one_step).collect();
        let threshold = Tensor::full(&gpu, &[1], 0.9).expect("memory").leaf();
        let leak = Tensor::full(&gpu, &[1], 0.95).expect("memory").leaf();
        let (whole, part) =
            (Tensor::ones(&gpu, &shape).expect("memory"), Tensor::ones(&gpu, &NEURONS).expect("memory"));
        let options = LifOptions::default();
        let forward = || x.lif(&threshold, &leak, &options).map(|s| vec![s]);
        let backward = |outputs: Vec<Tensor>, inputs: &[&Tensor], cotangent: &Tensor| {
            let cotangents = vec![cotangent; outputs.len()];
            let outputs: Vec<&Tensor> = outputs.iter().collect();
            grad_with(&outputs, inputs, Some(&cotangents), GradOptions { allow_unused: true, ..GradOptions::default() })
        };
        type Pass<'a> = (&'a str, Box<dyn Fn() + 'a>);
        let runs: [Pass<'_>; 4] = [
            ("forward_fused", Box::new(|| drop(no_grad(forward).expect("lif")))),
            ("forward_composed", Box::new(|| drop(no_grad(|| composed(&parts, &threshold, &leak)).expect("ops")))),
            (
                "both_fused",
                Box::new(|| drop(backward(forward().expect("lif"), &[&x, &threshold, &leak], &whole).expect("lif"))),
            ),
            (
                "both_composed",
                Box::new(|| {
                    let inputs: Vec<&Tensor> = parts.iter().chain([&threshold, &leak]).collect();
                    drop(backward(composed(&parts, &threshold, &leak).expect("ops"), &inputs, &part).expect("ops"));
                }),
            ),
        ];
        group.throughput(Throughput::Elements((steps * NEURONS[0] * NEURONS[1]) as u64));
        for (name, run) in &runs {
            group.bench_function(BenchmarkId::new(*name, steps), |b| {
                b.iter_custom(|times| support::spent(&gpu, times, run));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(200, 1000);
    targets = lif
}
criterion_main!(benches);
