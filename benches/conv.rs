//! Convolution, its gradient for the image and for the weights, in floating-point operations per second. One core's
//! second on a software driver: see `support`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadegrad::kernels::conv::{self, Conv};
use shadegrad::{Gpu, Options, Tensor};
use support::CpuTime;

/// Images of `n x size x size x c`, weights `k x taps x taps`, padded to keep the size.
fn layer(n: usize, size: usize, c: usize, k: usize, taps: usize, stride: usize, groups: usize) -> Conv {
    let pad = taps / 2;
    let out = (size + 2 * pad - taps) / stride + 1;
    Conv {
        n,
        size: [size; 2],
        c,
        out: [out; 2],
        k,
        taps: [taps; 2],
        stride: [stride; 2],
        padding: [pad; 2],
        dilation: [1; 2],
        groups,
        halves: false,
    }
}

fn passes(c: &mut Criterion<CpuTime>) {
    let gpu =
        Gpu::new(Options { checked: Some(false), ..Options::from_env().expect("environment") }).expect("a GPU driver");
    // The layers of ResNet-20 on 32 x 32 images, then wider ones, then depthwise.
    let layers = [
        ("first_3_16_32x32", layer(16, 32, 3, 16, 3, 1, 1)),
        ("16_16_32x32", layer(16, 32, 16, 16, 3, 1, 1)),
        ("16_32_32x32_stride_2", layer(16, 32, 16, 32, 3, 2, 1)),
        ("32_32_16x16", layer(16, 16, 32, 32, 3, 1, 1)),
        ("32_64_16x16_stride_2", layer(16, 16, 32, 64, 3, 2, 1)),
        ("64_64_8x8", layer(16, 8, 64, 64, 3, 1, 1)),
        ("64_64_32x32", layer(4, 32, 64, 64, 3, 1, 1)),
        ("1x1_64_128_16x16", layer(4, 16, 64, 128, 1, 1, 1)),
        ("1x1_32_64_16x16_stride_2", layer(8, 16, 32, 64, 1, 2, 1)),
        ("depthwise_64_32x32", layer(4, 32, 64, 64, 3, 1, 64)),
        ("depthwise_64_32x32_7x7", layer(4, 32, 64, 64, 7, 1, 64)),
    ];
    let mut group = c.benchmark_group("conv");
    for (name, g) in layers {
        let fill = |shape: &[usize]| Tensor::full(&gpu, shape, 0.5).expect("memory");
        let x = fill(&[g.n, g.size[0], g.size[1], g.c]);
        let y = fill(&[g.n, g.out[0], g.out[1], g.k]);
        let w = fill(&[g.k, g.taps[0], g.taps[1], g.c / g.groups]);
        let (x, y, w) = (x.storage(), y.storage(), w.storage());
        let out = gpu.alloc(x.bytes().max(y.bytes()).max(w.bytes()), "bench").expect("memory");
        group.throughput(Throughput::Elements(g.flops() as u64));
        let mut pass = |what: &str, run: &dyn Fn()| {
            group.bench_function(BenchmarkId::new(what, name), |b| {
                b.iter_custom(|times| support::spent(&gpu, times, run));
            });
        };
        pass("forward", &|| conv::forward(&gpu, &g, x, w, None, &out).expect("forward"));
        pass("input_grad", &|| conv::input_grad(&gpu, &g, y, w, &out).expect("input_grad"));
        pass("weight_grad", &|| conv::weight_grad(&gpu, &g, x, y, &out).expect("weight_grad"));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(200, 1000);
    targets = passes
}
criterion_main!(benches);
