//! Every matrix kernel against plain f64 loops, with operands inside larger storages and NaN around the result.

use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
use shadegrad_kernels::{Class, Disabled, Gpu, Options, Result, Storage};

/// All sets of kernels, on whatever adapter there is.
fn devices() -> Vec<(&'static str, Gpu)> {
    let open = |class, subgroups: bool, max_grid| {
        let disable = Disabled { subgroups: !subgroups, ..Disabled::default() };
        let options = Options { class: Some(class), disable, max_grid, ..Options::from_env().unwrap() };
        Gpu::new(options).unwrap_or_else(|e| panic!("{e}"))
    };
    vec![
        ("software", open(Class::Software, true, None)),
        ("software without subgroups", open(Class::Software, false, None)),
        ("integrated", open(Class::Integrated, true, Some(40))),
        ("discrete", open(Class::Discrete, true, None)),
    ]
}

fn upload(gpu: &Gpu, data: &[f32]) -> Result<Storage> {
    gpu.alloc_from(data, "test")
}

/// Small numbers with 24 significant bits, different everywhere.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Runs `d` on every device and compares the whole storage of the result, gaps included.
fn compare(devices: &[(&'static str, Gpu)], d: &Dims, with_bias: bool) {
    let reach = |o: &shadegrad_kernels::matmul::Operand, rows: usize, cols: usize| {
        let rows = if o.trans { cols } else { rows };
        o.offset + d.batch[0].max(1) * o.batch[0] + d.batch[1].max(1) * o.batch[1] + rows.max(1) * o.ld
    };
    let (a, b) = (numbers(reach(&d.a, d.m, d.k), 1), numbers(reach(&d.b, d.k, d.n), 2));
    let bias = numbers(d.n, 3);
    let mut want = vec![f64::NAN; reach(&d.c, d.m, d.n)];
    let mut scale = want.clone();
    for o in 0..d.batch[0] {
        for i in 0..d.batch[1] {
            let base = |x: &shadegrad_kernels::matmul::Operand| x.offset + o * x.batch[0] + i * x.batch[1];
            let at = |x: &shadegrad_kernels::matmul::Operand, r: usize, c: usize| {
                base(x) + if x.trans { c * x.ld + r } else { r * x.ld + c }
            };
            for r in 0..d.m {
                for c in 0..d.n {
                    let terms = (0..d.k).map(|k| f64::from(a[at(&d.a, r, k)]) * f64::from(b[at(&d.b, k, c)]));
                    let (sum, size) = terms.fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
                    let bias = if with_bias { f64::from(bias[c]) } else { 0.0 };
                    want[at(&d.c, r, c)] = f64::from(d.alpha) * sum + bias;
                    scale[at(&d.c, r, c)] = f64::from(d.alpha).abs() * size + bias.abs();
                }
            }
        }
    }
    for (name, gpu) in devices {
        let [sa, sb, sbias] = [&a, &b, &bias].map(|v| upload(gpu, v).unwrap());
        let sc = upload(gpu, &vec![f32::NAN; want.len()]).unwrap();
        let epilogue = Epilogue { bias: with_bias.then_some(&sbias) };
        matmul(gpu, &sa, &sb, &sc, d, epilogue).unwrap_or_else(|e| panic!("{e}"));
        let got = gpu.read_as::<f32>(&sc).unwrap();
        let tol = (4.0 + (d.k as f64).sqrt() / 2.0) * f64::from(f32::EPSILON) / 2.0;
        for (i, (&g, (&w, &s))) in got.iter().zip(want.iter().zip(&scale)).enumerate() {
            let fine = if w.is_nan() { g.is_nan() } else { (f64::from(g) - w).abs() <= tol * s + 1e-30 };
            assert!(fine, "{name}: element {i} is {g}, not {w}, of {d:?}, bias {with_bias}");
        }
    }
}

fn each_transpose(devices: &[(&'static str, Gpu)], m: usize, n: usize, k: usize) {
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        compare(devices, &Dims::new(m, n, k, ta, tb), (m + n + k).is_multiple_of(2));
    }
}

#[test]
fn sizes_around_the_edges_of_tiles() {
    let devices = devices();
    for (m, n, k) in [
        (1, 1, 1),
        (3, 5, 2),
        (8, 64, 16),
        (16, 10, 17),
        (17, 65, 19),
        (33, 31, 15),
        (64, 64, 64),
        (60, 68, 36),
        (127, 129, 33),
        (1, 100, 65),
        (100, 1, 65),
        (130, 8, 4),
        (5, 7, 0),
    ] {
        each_transpose(&devices, m, n, k);
    }
}

#[test]
fn long_sums_are_split() {
    let devices = devices();
    for (m, n, k) in [(16, 16, 4100), (10, 65, 2049), (64, 128, 1536)] {
        each_transpose(&devices, m, n, k);
    }
}

#[test]
fn the_largest_tile() {
    let devices = devices();
    // 15 x 14 tiles of 128 reach the number from which they are used.
    let discrete = &devices[3..];
    compare(discrete, &Dims::new(15 * 128, 14 * 128 - 3, 20, false, false), true);
    compare(discrete, &Dims::new(15 * 128, 14 * 128, 36, true, true), true);
}

#[test]
fn batches_repeat_and_lie_anywhere() {
    let devices = devices();
    compare(&devices, &Dims::new(5, 9, 6, false, true).batched(3, false, false), true);
    compare(&devices, &Dims::new(20, 70, 8, true, false).batched(11, true, false), false);
    for align in [0, 1] {
        let mut d = Dims::new(18, 12, 8, false, false);
        d.batch = [2, 3];
        (d.a.offset, d.a.ld, d.a.batch) = (4, 24, [24 * 18 + align, 8]);
        (d.b.offset, d.b.ld, d.b.batch) = (8 + align, 36, [0, 12]);
        (d.c.offset, d.c.ld, d.c.batch) = (3, 40, [18 * 40, 13]);
        d.alpha = -0.5;
        compare(&devices, &d, true);
        (d.a.trans, d.a.ld, d.b.trans) = (true, 20, true);
        compare(&devices, &d, false);
    }
}

#[test]
fn a_matrix_past_the_end_of_its_storage_is_an_error() {
    let (_, gpu) = devices().remove(0);
    let (a, b, c) =
        (upload(&gpu, &[0.0; 12]).unwrap(), upload(&gpu, &[0.0; 12]).unwrap(), upload(&gpu, &[0.0; 8]).unwrap());
    let text =
        matmul(&gpu, &a, &b, &c, &Dims::new(3, 3, 4, false, false), Epilogue::default()).unwrap_err().to_string();
    assert!(text.contains("needs 9 elements"), "{text}");
}
