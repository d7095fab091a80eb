//! Matrix products in floating-point operations per second, and Cholesky factors. One core's second on a software driver:
//! see `support`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::kernels::linalg;
use shadegrad::kernels::matmul::{Dims, Epilogue, matmul};
use shadegrad::{Gpu, Options, Tensor};
use support::CpuTime;

fn measure(gpu: &Gpu, b: &mut criterion::Bencher<'_, CpuTime>, run: &dyn Fn()) {
    b.iter_custom(|times| support::spent(gpu, times, run));
}

fn products(c: &mut Criterion<CpuTime>) {
    let gpu =
        Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU driver");
    let fill = |n: usize| Tensor::full(&gpu, &[n], 0.5).expect("memory");
    let mut group = c.benchmark_group("matmul");
    // Squares, rows that begin anywhere, a layer forward, its weight gradient, a classifier, one row and eight, attention.
    let all = ["nn", "nt", "tn", "tt"];
    let sizes: [([usize; 4], &[&str]); 18] = [
        ([512, 512, 512, 1], &all),
        ([513, 513, 513, 1], &all),
        ([256, 256, 256, 1], &all),
        ([1024, 1024, 1024, 1], &["nn", "tn"]),
        ([196, 192, 64, 1], &["nn"]),
        ([197, 192, 65, 1], &["nn"]),
        ([128, 64, 128, 1], &all),
        ([256, 384, 128, 1], &["nt"]),
        ([1024, 512, 128, 1], &["nt"]),
        ([128, 384, 10_000, 1], &["tn"]),
        ([64, 64, 65_536, 1], &["tn"]),
        ([128, 10, 512, 1], &["nt"]),
        ([1, 1024, 1024, 1], &["nt", "nn"]),
        ([8, 1024, 1024, 1], &["nt", "nn"]),
        ([16, 16, 16, 256], &["nt"]),
        ([32, 32, 32, 96], &["nt", "nn"]),
        ([49, 49, 32, 96], &["nt", "nn"]),
        ([64, 64, 64, 96], &["nt"]),
    ];
    for ([m, n, k, batch], kinds) in sizes {
        let (x, w, y) = (fill(batch * m * k), fill(batch * k * n), fill(batch * m * n));
        group.throughput(Throughput::Elements((2 * batch * m * n * k) as u64));
        for kind in kinds {
            let d = Dims::new(m, n, k, kind.starts_with('t'), kind.ends_with('t')).batched(batch, false, false);
            group.bench_function(BenchmarkId::new(*kind, format!("{m}x{n}x{k}x{batch}")), |b| {
                measure(&gpu, b, &|| {
                    matmul(&gpu, x.storage(), w.storage(), y.storage(), &d, Epilogue::default()).expect("matmul");
                });
            });
        }
    }
    for n in [64, 256] {
        let a = Tensor::eye(&gpu, n).expect("memory");
        let l = fill(n * n);
        group.throughput(Throughput::Elements((n * n * n / 3) as u64));
        group.bench_function(BenchmarkId::new("cholesky", n), |b| {
            measure(&gpu, b, &|| linalg::cholesky(&gpu, a.storage(), l.storage(), 1, n).expect("cholesky"));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(200, 1000);
    targets = products
}
criterion_main!(benches);
