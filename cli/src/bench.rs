//! `shadegrad bench`: the kernels that training time is made of, by processor time and by the clock.

use std::time::Instant;

use anyhow::Result;
use cpu_time::ProcessTime;
use serde_json::{Value, json};
use shadegrad::kernels::conv::{self, Conv};
use shadegrad::rng::Stream;
use shadegrad::{Class, Gpu, Options, Tensor};

use crate::devices;
use crate::report::say;

#[derive(clap::Args)]
pub struct Args {
    /// A few kernels and seconds instead of all.
    #[arg(long)]
    quick: bool,
    /// A JSON array instead of a table.
    #[arg(long)]
    json: bool,
    /// Device by index or part of its name [default: the best]
    #[arg(long, value_name = "DEVICE")]
    adapter: Option<String>,
}

/// Measurements of each kernel, of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 3;

struct Case<'a> {
    name: String,
    flop: f64,
    run: Box<dyn Fn() -> Result<()> + 'a>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut options = Options::from_env()?;
    // What is measured is what a release build runs.
    options.checked = options.checked.or(Some(false));
    if args.adapter.is_some() {
        options.adapter.clone_from(&args.adapter);
    }
    let gpu = Gpu::new(options)?;
    if !args.json {
        devices::announce(&gpu);
        say(format!("{:<28} {:>8} {:>10} {:>12} {:>16}", "kernel", "GFLOP", "ms", "GFLOP/s", "GFLOP per CPU s"));
    }
    let seconds = if args.quick { 0.4 } else { 1.0 };
    let mut rows = Vec::new();
    for case in cases(&gpu, args.quick)? {
        let row = measure(&gpu, &case, seconds)?;
        if !args.json {
            let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
            say(format!(
                "{:<28} {:>8.3} {:>10.3} {:>12.1} {:>16.2}",
                case.name,
                number("gflop"),
                1e3 * number("wall_s"),
                number("gflop_per_s"),
                number("gflop_per_cpu_s")
            ));
        }
        rows.push(row);
    }
    if args.json {
        say(serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

/// Runs a case for about `seconds` a round and returns its figures, those of one call.
fn measure(gpu: &Gpu, case: &Case, seconds: f64) -> Result<Value> {
    // The first call compiles, the second fills the caches.
    for _ in 0..2 {
        (case.run)()?;
    }
    gpu.wait()?;
    let start = Instant::now();
    (case.run)()?;
    gpu.wait()?;
    let calls = (seconds / start.elapsed().as_secs_f64().max(1e-6)).clamp(1.0, 1e5) as usize;
    let (mut wall, mut cpu) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (clock, process) = (Instant::now(), ProcessTime::now());
        for _ in 0..calls {
            (case.run)()?;
        }
        gpu.wait()?;
        wall = wall.min(clock.elapsed().as_secs_f64() / calls as f64);
        cpu = cpu.min(process.elapsed().as_secs_f64() / calls as f64);
    }
    let gflop = case.flop * 1e-9;
    Ok(json!({
        "name": case.name,
        "gflop": gflop,
        "calls": calls * ROUNDS,
        "wall_s": wall,
        "cpu_s": cpu,
        "gflop_per_s": gflop / wall,
        "gflop_per_cpu_s": gflop / cpu,
        "device": gpu.description().name,
    }))
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

fn cases<'a>(gpu: &'a Gpu, quick: bool) -> Result<Vec<Case<'a>>> {
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
    Ok(all)
}
