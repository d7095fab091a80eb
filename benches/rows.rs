//! Softmax and layer norm of short rows: kernels that keep a row in registers against those that read it again, which are
//! put in their place on a second device. Bytes that must be read and written, by processor time: see `support`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::kernels::norm::{Affine, layer_norm, layer_norm_grad};
use shadegrad::kernels::softmax::{Lanes, softmax, softmax_grad};
use shadegrad::{Gpu, Options, Result};
use shadegrad_shaders::{layer_norm as l, softmax as s};
use support::CpuTime;

/// Floats of a row, of 2^18 in all.
const LENGTHS: [usize; 7] = [20, 32, 64, 96, 128, 192, 256];
const ALL: usize = 1 << 18;

/// A device on which rows are read again. Subgroups of eight only: others have the same kernels here.
fn again() -> Result<Gpu> {
    let gpu = Gpu::new(Options { checked: Some(false), ..Options::from_env()? })?;
    for n in [1, 2, 4, 8] {
        for (held, text) in [
            ("layer_norm_held", &l::LAYER_NORM_4_S8.info.source),
            ("dlayer_norm_held", &l::DLAYER_NORM_4_S8.info.source),
            ("softmax_held_soft", &s::SOFTMAX_ROW_SOFT_4_S8.info.source),
            ("dsoftmax_held_soft", &s::DSOFTMAX_ROW_SOFT_4_S8.info.source),
        ] {
            gpu.replace_kernel(&format!("{held}_s8_{n}"), Some(text.to_string()));
        }
    }
    Ok(gpu)
}

fn rows(c: &mut Criterion<CpuTime>) {
    let held = Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU");
    let again = again().expect("a GPU");
    let mut group = c.benchmark_group("rows");
    for len in LENGTHS {
        let rows = ALL / len;
        let lanes = Lanes { outer: rows, len, inner: 1 };
        for what in ["softmax", "dsoftmax", "layer_norm", "dlayer_norm"] {
            let planes = if what.starts_with('d') { 3 } else { 2 };
            group.throughput(Throughput::Bytes((4 * planes * rows * len) as u64));
            for (name, gpu) in [("held", &held), ("again", &again)] {
                let fill = |n: usize| gpu.alloc_from(&vec![0.5f32; n], "bench").expect("memory");
                let (x, dy, y, stat, gamma) = (fill(ALL), fill(ALL), fill(ALL), fill(2 * rows), fill(len));
                let affine = Affine { gamma: Some(&gamma), beta: Some(&gamma) };
                let run = || match what {
                    "softmax" => softmax(gpu, false, &x, &y, lanes),
                    "dsoftmax" => softmax_grad(gpu, false, &x, &dy, &y, lanes),
                    "layer_norm" => layer_norm(gpu, &x, (rows, len), affine, 1e-5, (&y, &stat)),
                    _ => layer_norm_grad(gpu, (&x, &dy), (rows, len), Some(&gamma), &stat, &y, None),
                };
                group.bench_function(BenchmarkId::new(format!("{what}_{len}"), name), |b| {
                    b.iter_custom(|times| support::spent(gpu, times, || run().expect("a run")));
                });
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(30, 200);
    targets = rows
}
criterion_main!(benches);
