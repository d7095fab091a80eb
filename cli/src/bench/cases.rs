//! What `shadegrad bench` measures.

use anyhow::Result;
use shadegrad::autograd::no_grad;
use shadegrad::kernels::conv::{self, Conv};
use shadegrad::rng::Stream;
use shadegrad::{Attention, Class, Conv2d, CrossEntropy, FftNorm, Gpu, LifOptions, Pool2d, Tensor};

/// A kernel, or the few of one operation, on one shape.
pub struct Case<'a> {
    pub name: String,
    /// Floating-point operations of a call.
    pub flop: f64,
    /// Bytes that must be read and written at least: every input and every result once.
    pub bytes: f64,
    pub run: Box<dyn Fn() -> Result<()> + 'a>,
}

/// A convolution of 3x3 taps that keeps the size.
fn layer(n: usize, side: usize, c: usize, k: usize) -> Conv {
    Conv {
        n,
        size: [side; 2],
        c,
        out: [side; 2],
        k,
        taps: [3; 2],
        stride: [1; 2],
        padding: [1; 2],
        dilation: [1; 2],
        groups: 1,
        halves: false,
    }
}

pub fn cases<'a>(gpu: &'a Gpu, quick: bool) -> Result<Vec<Case<'a>>> {
    let mut all = Vec::new();
    // Random numbers: a driver may be quicker with zeros.
    let mut stream = 0;
    let mut fill = |shape: &[usize]| {
        stream += 1;
        Tensor::uniform(gpu, shape, Stream::new(0, stream), -1.0, 1.0)
    };
    let graphics = gpu.caps().class != Class::Software;
    let mut sizes = vec![512];
    if !quick {
        sizes.extend([256, 1024]);
        if graphics {
            sizes.push(4096);
        }
    }
    for n in sizes {
        let (a, b) = (fill(&[n, n])?, fill(&[n, n])?);
        for (kind, ta, tb) in [("nn", false, false), ("nt", false, true), ("tn", true, false), ("tt", true, true)] {
            let (a, b) = (a.clone(), b.clone());
            all.push(Case {
                name: format!("matmul_{kind}_{n}"),
                flop: 2.0 * (n * n * n) as f64,
                bytes: 12.0 * (n * n) as f64,
                run: Box::new(move || {
                    a.matmul_t(&b, ta, tb)?;
                    Ok(())
                }),
            });
        }
    }
    // One row and eight against a matrix (two operations a weight: GB/s of weights are twice the GFLOP/s, and a quarter of
    // them), rows that begin anywhere, attention's scores, the gradient of a layer's weights.
    let mut shapes = vec![("matvec_1024", [1, 1, 1024, 1024], false, true)];
    if !quick {
        shapes.extend([
            ("matvec_8x1024", [1, 8, 1024, 1024], false, true),
            ("matmul_nn_513", [1, 513, 513, 513], false, false),
            ("matmul_nn_197x192x65", [1, 197, 192, 65], false, false),
            ("matmul_nt_96x49x49x32", [96, 49, 49, 32], false, true),
            ("matmul_tn_128x384x10000", [1, 128, 384, 10_000], true, false),
        ]);
    }
    for (name, [count, m, n, k], ta, tb) in shapes {
        let a = fill(&if ta { [count, k, m] } else { [count, m, k] })?;
        let b = fill(&if tb { [count, n, k] } else { [count, k, n] })?;
        all.push(Case {
            name: name.to_string(),
            flop: 2.0 * (count * m * n * k) as f64,
            bytes: 4.0 * (count * (m * k + k * n + m * n)) as f64,
            run: Box::new(move || {
                a.matmul_t(&b, ta, tb)?;
                Ok(())
            }),
        });
    }
    // The plain names are the layer that both classes of device have to do well; the others say what they are.
    let batch = if graphics { 64 } else { 4 };
    let mut layers = vec![(String::new(), layer(batch, 32, 64, 64))];
    if !quick {
        for (side, c) in [(32, 16), (16, 32), (8, 64), (8, 256)] {
            layers.push((format!("_{c}_{c}_{side}x{side}"), layer(4 * batch, side, c, c)));
        }
    }
    for (suffix, g) in layers {
        let x = fill(&[g.n, g.size[0], g.size[1], g.c])?;
        let y = fill(&[g.n, g.out[0], g.out[1], g.k])?;
        let w = fill(&[g.k, 3, 3, g.c])?;
        let flop = g.flops();
        for pass in ["fwd", "dgrad", "wgrad"] {
            let (x, y, w, g) = (x.clone(), y.clone(), w.clone(), g);
            let bytes = match pass {
                "fwd" => y.storage().bytes(),
                "dgrad" => x.storage().bytes(),
                _ => w.storage().bytes(),
            };
            let out = gpu.alloc(bytes, "bench")?;
            all.push(Case {
                name: format!("conv3x3_{pass}{suffix}"),
                flop,
                bytes: (x.storage().bytes() + y.storage().bytes() + w.storage().bytes()) as f64,
                run: Box::new(move || {
                    let (x, y, w) = (x.storage(), y.storage(), w.storage());
                    match pass {
                        "fwd" => conv::forward(gpu, &g, x, w, None, &out)?,
                        "dgrad" => conv::input_grad(gpu, &g, y, w, &out)?,
                        _ => conv::weight_grad(gpu, &g, x, y, &out)?,
                    }
                    Ok(())
                }),
            });
        }
    }
    if !quick {
        all.extend(families(gpu, if graphics { 16 } else { 1 })?);
    }
    Ok(all)
}

/// Forward passes of everything that is bound by memory, and attention; `scale` times the sizes of a processor's.
fn families(gpu: &Gpu, scale: usize) -> Result<Vec<Case<'static>>> {
    let mut stream = 1000;
    let mut fill = |shape: &[usize]| {
        stream += 1;
        Tensor::uniform(gpu, shape, Stream::new(0, stream), -1.0, 1.0)
    };
    let mut all = Vec::new();
    let mut add = |name: &str, flop: f64, bytes: usize, call: Box<dyn Fn() -> shadegrad::Result<Tensor>>| {
        let run = Box::new(move || Ok(no_grad(&call).map(|_| ())?));
        all.push(Case { name: name.to_string(), flop, bytes: bytes as f64, run });
    };
    let n = scale << 20;
    let (rows, cols) = (scale << 10, 1 << 10);
    let (x, y) = (fill(&[rows, cols])?, fill(&[rows, cols])?);
    let (a, b) = (x.clone(), y);
    add("add_1Mi", n as f64, 12 * n, Box::new(move || a.add(&b)));
    let a = x.clone();
    add("relu_1Mi", n as f64, 8 * n, Box::new(move || a.relu()));
    let a = x.clone();
    add("gelu_1Mi", 0.0, 8 * n, Box::new(move || a.gelu()));
    let a = x.clone();
    add("sum_rows_1024", n as f64, 4 * n, Box::new(move || a.sum(&[1], false)));
    let a = x.clone();
    add("softmax_1024", 0.0, 8 * n, Box::new(move || a.softmax(1)));
    let (gamma, beta) = (fill(&[cols])?, fill(&[cols])?);
    let a = x.clone();
    add("layer_norm_1024", 0.0, 8 * n, Box::new(move || a.layer_norm(Some(&gamma), Some(&beta), 1e-5)));
    let labels = Tensor::from_u32(gpu, &[3].repeat(rows), &[rows])?;
    let a = x;
    add("cross_entropy_1024", 0.0, 4 * n, Box::new(move || a.cross_entropy(&labels, CrossEntropy::default())));
    let images = fill(&[16 * scale, 32, 32, 64])?;
    let (gamma, beta) = (fill(&[64])?, fill(&[64])?);
    let a = images.clone();
    // Statistics first, so that the images are read twice.
    add("batch_norm_relu_64", 0.0, 12 * n, Box::new(move || Ok(a.batch_norm_relu(Some(&gamma), Some(&beta), 1e-5)?.y)));
    let a = images.clone();
    add("max_pool_2x2", 0.0, 5 * n, Box::new(move || a.max_pool2d(Pool2d::new(2, 2, 0))));
    let w = fill(&[64, 3, 3, 1])?;
    let depthwise = Conv2d::new(1, 1).groups(64);
    let a = images;
    add("depthwise3x3_64", 18.0 * n as f64, 8 * n, Box::new(move || a.conv2d(&w, None, depthwise)));
    let (heads, length, width) = (4 * scale, 256, 64);
    let [q, k, v] = [(); 3].map(|()| fill(&[1, heads, length, width]));
    let (q, k, v) = (q?, k?, v?);
    add(
        "attention_256x64",
        4.0 * (heads * length * length * width) as f64,
        16 * heads * length * width,
        Box::new(move || q.sdpa(&k, &v, Attention::default())),
    );
    let grid = fill(&[16 * scale, 14, 14, 64])?;
    let points = grid.numel();
    // The usual count of a real transform: 2.5 n log2 n.
    let transform = 2.5 * points as f64 * (14.0f64 * 14.0).log2();
    let filter = fill(&[14, 8, 64, 2])?;
    let a = grid.clone();
    let spectrum = 4 * 2 * points / 14 * 8;
    add("rfft2_14x14", transform, 4 * points + spectrum, Box::new(move || a.rfft2(FftNorm::Ortho)));
    add("spectral_filter_14x14", 2.0 * transform, 8 * points, Box::new(move || grid.spectral_filter(&filter)));
    let currents = fill(&[8, 32 * scale, 4096])?;
    let (threshold, leak) = (Tensor::full(gpu, &[1], 0.5)?, Tensor::full(gpu, &[1], 0.9)?);
    let steps = currents.numel();
    let options = LifOptions::default();
    add("lif_8", 5.0 * steps as f64, 8 * steps, Box::new(move || currents.lif(&threshold, &leak, &options)));
    Ok(all)
}
