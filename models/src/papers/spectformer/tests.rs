//! The layer against hand-computed numbers and identities, the models against published sizes.

use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::nn::{Arena, Builder, Cx, Module, MultiHeadAttention, Params};
use shadegrad::rng::Philox;
use shadegrad::{Result, Tensor};

use super::*;
use crate::Spec;
use crate::papers::testing::gpu;

/// Even, odd, mixed, and a power of two.
const GRIDS: [(usize, usize); 5] = [(4, 4), (8, 8), (3, 5), (4, 6), (7, 7)];

/// A gate with this filter (pairs, `[h, w/2 + 1, c]`), the context that has it, and the filter as a leaf.
fn gate_with(grid: (usize, usize), c: usize, filter: &[f32]) -> (SpectralGate, Cx, Tensor) {
    let mut builder = Builder::new();
    let gate = SpectralGate::new(&mut builder.root(), grid, c, 0.02).unwrap();
    let (params, buffers) = builder.tables().unwrap();
    let k = Tensor::from_slice(&gpu(), filter, &[grid.0, grid.1 / 2 + 1, c, 2]).unwrap().leaf();
    let params = Params::new(params, vec![k.clone()]).unwrap();
    (gate, Cx::new(params, Params::new(buffers, vec![]).unwrap()), k)
}

fn tokens(data: &[f32], n: usize, c: usize) -> Tensor {
    Tensor::from_slice(&gpu(), data, &[n, data.len() / n / c, c]).unwrap()
}

/// Result, gradient of the input and of the filter, for the cotangent `g`.
fn layer(grid: (usize, usize), c: usize, filter: &[f32], x: &[f32], g: &[f32]) -> [Vec<f32>; 3] {
    let n = x.len() / (grid.0 * grid.1 * c);
    let (gate, cx, k) = gate_with(grid, c, filter);
    let x = tokens(x, n, c).leaf();
    let y = gate.forward(&cx, &x).unwrap();
    let g = tokens(g, n, c);
    let grads = grad_with(&[&y], &[&x, &k], Some(&[&g]), GradOptions::default()).unwrap();
    let read = |t: &Option<Tensor>| t.as_ref().unwrap().to_vec().unwrap();
    [y.to_vec().unwrap(), read(&grads[0]), read(&grads[1])]
}

fn noise(n: usize, stream: u64) -> Vec<f32> {
    let mut v = vec![0.0; n];
    Philox::new(11, stream).fill_normal(&mut v, 0.0, 1.0);
    v
}

fn filter_len((h, w): (usize, usize), c: usize) -> usize {
    h * (w / 2 + 1) * c * 2
}

#[track_caller]
fn close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance, "at {i}: {a} for {b}");
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The half spectrum of one image as pairs.
fn spectrum(x: &[f32], (h, w): (usize, usize)) -> Vec<f32> {
    let (re, im) = rfft2(&Tensor::from_slice(&gpu(), x, &[1, h, w, 1]).unwrap()).unwrap();
    assert_eq!(re.shape(), [1, h, w / 2 + 1, 1]);
    let back = irfft2(&re, &im, (h, w)).unwrap();
    close(&back.to_vec().unwrap(), x, 1e-5);
    let parts = re.to_vec().unwrap().into_iter().zip(im.to_vec().unwrap());
    parts.flat_map(|(a, b)| [a, b]).collect()
}

#[test]
fn identity_a_filter_of_ones_changes_nothing() {
    for grid in GRIDS {
        let c = 3;
        let ones: Vec<f32> = (0..filter_len(grid, c)).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect();
        let x = noise(2 * grid.0 * grid.1 * c, 1);
        let [y, ..] = layer(grid, c, &ones, &x, &x);
        close(&y, &x, 1e-5);
    }
}

#[test]
fn two_by_two_by_hand() {
    let x = [1.0, 2.0, 3.0, 4.0];
    close(&spectrum(&x, (2, 2)), &[5.0, 0.0, -1.0, 0.0, -2.0, 0.0, 0.0, 0.0], 1e-6);
    let k = [1.0, 0.0, 2.0, 1.0, 0.5, -1.0, -1.0, 0.5];
    let [y, dx, dk] = layer((2, 2), 1, &k, &x, &[1.0, 0.0, 0.0, 2.0]);
    close(&y, &[1.0, 3.0, 2.0, 4.0], 1e-6);
    close(&dx, &[-0.625, 1.875, 1.125, 0.625], 1e-6);
    close(&dk, &[7.5, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0, 0.0], 1e-6);
}

#[test]
fn two_by_three_by_hand() {
    let x = [1.0, 2.0, 0.0, 0.0, -1.0, 3.0];
    let xh = [2.0412, 0.0, -0.4082, std::f32::consts::FRAC_1_SQRT_2, 0.4082, 0.0, 0.4082, -2.1213];
    close(&spectrum(&x, (2, 3)), &xh, 6e-5);
    let k = [1.0, 0.5, 0.0, 1.0, 2.0, 0.0, 1.0, -1.0];
    let [y, dx, dk] = layer((2, 3), 1, &k, &x, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    close(&y, &[-0.8094, 4.2321, 0.0774, 1.3214, -1.4107, 1.5893], 6e-5);
    close(&dx, &[0.0774, -1.6547, 0.0774, 6.0774, 4.3453, 6.0774], 6e-5);
    close(&dk, &[12.5, 0.0, 2.0, 1.1547, -1.5, 0.0, 0.0, 0.0], 6e-5);
}

#[test]
fn a_phase_ramp_shifts() {
    let ramp = |sign: f64| -> Vec<f32> {
        let turns = (0..4).flat_map(|u| (0..3).map(move |v| f64::from(u) / 4.0 + f64::from(v) * 2.0 / 4.0));
        turns.map(|t| sign * std::f64::consts::TAU * t).flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect()
    };
    let mut x = vec![0.0; 16];
    x[0] = 1.0;
    for (sign, (row, column)) in [(-1.0, (1, 2)), (1.0, (3, 2))] {
        let [y, ..] = layer((4, 4), 1, &ramp(sign), &x, &x);
        let mut want = vec![0.0; 16];
        want[4 * row + column] = 1.0;
        close(&y, &want, 1e-6);
    }
}

#[test]
fn four_by_four_in_numbers() {
    let x: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let k: Vec<f32> = (0..12).flat_map(|t| [0.1 * t as f32, 0.05 * t as f32 - 0.2]).collect();
    let want = [
        [-3.05, -3.15, -3.15, -2.65],
        [-1.85, -1.95, -1.95, -1.45],
        [0.55, 0.45, 0.45, 0.95],
        [4.15, 4.05, 4.05, 4.55],
    ]
    .concat();
    // The loss is half the squared length of the result, so its cotangent is the result.
    let [y, dx, dk] = layer((4, 4), 1, &k, &x, &want);
    close(&y, &want, 1e-5);
    assert!((dot(&y, &y) / 2.0 - 60.82).abs() < 1e-3);
    close(&dx[..4], &[-23025.0, -22625.0, -22375.0, -21975.0].map(|v| v * 1e-4), 1e-5);
    let (re, im): (Vec<f32>, Vec<f32>) = dk.chunks(2).map(|z| (z[0], z[1])).unzip();
    close(&re, &[0.0, 1.6, 0.8, 76.8, 0.0, 0.0, 38.4, 0.0, 0.0, 76.8, 0.0, 0.0], 2e-4);
    close(&im, &[0.0, -2.4, 0.0, -19.2, 0.0, 0.0, 0.0, 0.0, 0.0, 19.2, 0.0, 0.0], 2e-4);
}

#[test]
fn it_is_a_circular_convolution_with_its_spatial_kernel() {
    for grid in GRIDS {
        let ((h, w), c) = (grid, 4);
        let k = noise(filter_len(grid, c), 2);
        let (gate, cx, _) = gate_with(grid, c, &k);
        let kernel = gate.spatial_kernel(&cx).unwrap();
        assert_eq!(kernel.shape(), [h, w, c]);
        let kernel = kernel.to_vec().unwrap();
        let x = noise(h * w * c, 3);
        let y = gate.forward(&cx, &tokens(&x, 1, c)).unwrap().to_vec().unwrap();
        let mut want = vec![0.0; y.len()];
        for (i, out) in want.iter_mut().enumerate() {
            let (row, column, channel) = (i / c / w, i / c % w, i % c);
            let sum: f64 = (0..h * w)
                .map(|t| {
                    let from = (row + h - t / w) % h * w + (column + w - t % w) % w;
                    f64::from(kernel[t * c + channel]) * f64::from(x[from * c + channel])
                })
                .sum();
            *out = sum as f32;
        }
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        close(&y, &want, 1e-5 * largest);
    }
}

#[test]
fn the_adjoint_is_the_gate_of_the_conjugate_filter() {
    for grid in GRIDS {
        let (c, n) = (2, 3);
        let k = noise(filter_len(grid, c), 4);
        let conj: Vec<f32> = k.chunks(2).flat_map(|z| [z[0], -z[1]]).collect();
        let (x, g) = (noise(n * grid.0 * grid.1 * c, 5), noise(n * grid.0 * grid.1 * c, 6));
        let [y, dx, _] = layer(grid, c, &k, &x, &g);
        let [back, ..] = layer(grid, c, &conj, &g, &x);
        close(&dx, &back, 1e-5);
        let (a, b) = (dot(&y, &g), dot(&x, &back));
        assert!((a - b).abs() < 1e-5 * (dot(&y, &y) * dot(&g, &g)).sqrt(), "{grid:?}: {a} {b}");
    }
}

#[test]
fn anti_hermitian_filters_do_nothing_and_get_no_gradient() {
    for grid in GRIDS {
        let ((h, w), half) = (grid, grid.1 / 2 + 1);
        let k = noise(filter_len(grid, 1), 7);
        let (x, g) = (noise(2 * h * w, 8), noise(2 * h * w, 9));
        let [y, _, dk] = layer(grid, 1, &k, &x, &g);
        let s = noise(2 * h, 10);
        let columns = if w % 2 == 0 { vec![0, w / 2] } else { vec![0] };
        for v in columns {
            let mut other = k.clone();
            for u in 0..h {
                let (at, mirror) = (2 * (u * half + v), (h - u) % h);
                other[at] += s[2 * u] - s[2 * mirror];
                other[at + 1] += s[2 * u + 1] + s[2 * mirror + 1];
                let twin = 2 * (mirror * half + v);
                close(&[dk[at], dk[at + 1]], &[dk[twin], -dk[twin + 1]], 1e-4);
            }
            assert!(other.iter().zip(&k).any(|(a, b)| (a - b).abs() > 0.1));
            close(&layer(grid, 1, &other, &x, &g)[0], &y, 2e-5);
        }
    }
}

#[test]
fn the_first_filters_shrink_white_noise_as_computed() {
    for (grid, want) in [((8, 8), 7.0e-4), ((4, 6), 8e-4 * (1.0 - 1.0 / 6.0)), ((7, 7), 8e-4 - 4e-4 / 7.0)] {
        let (n, c) = (4, 1024);
        let mut builder = Builder::new();
        let gate = SpectralGate::new(&mut builder.root(), grid, c, SpectralGate::INIT_STD).unwrap();
        let arena = Arena::new(&gpu(), &builder, 3).unwrap();
        let x = noise(n * grid.0 * grid.1 * c, 12);
        let y = gate.forward(&Cx::eval(&arena), &tokens(&x, n, c)).unwrap().to_vec().unwrap();
        let gain = dot(&y, &y) / dot(&x, &x);
        // Some 50,000 independent filter values: one standard deviation is 0.7 %.
        assert!((gain / want - 1.0).abs() < 0.025, "{grid:?}: {gain:e} for {want:e}");
    }
}

#[test]
fn parameter_counts_of_the_isotropic_models() {
    let (imagenet, cifar) = (Spec::imagenet(), Spec::cifar10());
    for (config, count) in [
        (SpectFormerConfig::t(&imagenet), 9_158_376),
        (SpectFormerConfig::xs(&imagenet), 20_028_520),
        (SpectFormerConfig::s(&imagenet), 32_449_768),
        (SpectFormerConfig::b(&imagenet), 57_159_656),
        (SpectFormerConfig::cifar(&cifar), 3_629_194),
    ] {
        assert_eq!(config.num_params().unwrap(), count, "{config:?}");
    }
    let alphas = |config: SpectFormerConfig, counts: &[(usize, usize)]| {
        for &(alpha, count) in counts {
            for order in [Order::SpectralFirst, Order::AttentionFirst] {
                let config = config.clone().with_alpha(alpha, order).unwrap();
                assert_eq!(config.num_params().unwrap(), count, "{config:?}");
            }
        }
    };
    alphas(SpectFormerConfig::cifar(&cifar), &[(0, 4_027_786), (9, 2_832_010)]);
    alphas(SpectFormerConfig::tiny(&cifar), &[(0, 207_946), (1, 196_426), (2, 184_906), (4, 161_866)]);
    // An attention block of the CIFAR size has 132,864 more than a spectral one.
    let of = |a| SpectFormerConfig::cifar(&cifar).with_alpha(a, Order::SpectralFirst).unwrap().num_params().unwrap();
    assert_eq!(of(3) - of(4), 132_864);
    // The 8x8 digits with a token a pixel.
    let digits = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    for (pattern, count) in [("aa", 27_914), ("sa", 26_250), ("ss", 24_586), ("as", 26_250)] {
        let config = SpectFormerConfig { patch: 1, dim: 32, heads: 2, ..SpectFormerConfig::tiny(&digits) };
        assert_eq!(config.with_pattern(pattern.parse().unwrap()).num_params().unwrap(), count, "{pattern}");
    }
}

#[test]
fn parameter_counts_of_the_hierarchical_models() {
    let imagenet = Spec::imagenet();
    for (config, count, with_labels) in [
        (HierarchicalConfig::s(&imagenet), 21_777_928, 22_226_928),
        (HierarchicalConfig::b(&imagenet), 32_539_880, 33_052_880),
        (HierarchicalConfig::l(&imagenet), 54_162_792, 54_675_792),
    ] {
        assert_eq!(config.num_params().unwrap(), count, "{config:?}");
        assert_eq!(config.with_token_labels().num_params().unwrap(), with_labels);
    }
}

#[test]
fn multiply_adds() {
    let macs = |config: &SpectFormerConfig| SpectFormer::new(&mut Builder::new().root(), config).unwrap().macs();
    let tiny = SpectFormerConfig::tiny(&Spec::cifar10());
    // Patches, head; a block of attention: 4 n d^2 + 2 n^2 d + 8 n d^2 for 64 tokens of width 64.
    let (ends, attention) = (64 * 48 * 64 + 640, 12 * 64 * 64 * 64 + 2 * 64 * 64 * 64);
    assert_eq!(macs(&tiny.clone().with_alpha(0, Order::SpectralFirst).unwrap()), ends + 4 * attention);
    // A spectral block has 2 n log2 n + 4 * 8 * 5 a channel in place of 4 n d^2 + 2 n^2 d.
    let spectral = 64 * (2 * 64 * 6 + 4 * 8 * 5) + 8 * 64 * 64 * 64;
    assert_eq!(macs(&tiny), ends + 2 * attention + 2 * spectral);
    // The sizes for 224 x 224 images in giga.
    let giga = |n: u64| (n as f64 / 1e8).round() / 10.0;
    let imagenet = Spec::imagenet();
    let all = [
        SpectFormerConfig::t(&imagenet),
        SpectFormerConfig::xs(&imagenet),
        SpectFormerConfig::s(&imagenet),
        SpectFormerConfig::b(&imagenet),
    ];
    assert_eq!(all.each_ref().map(|c| giga(macs(c))), [1.8, 4.0, 6.6, 11.6]);
    let large = [HierarchicalConfig::s, HierarchicalConfig::b, HierarchicalConfig::l]
        .map(|make| giga(SpectFormerH::new(&mut Builder::new().root(), &make(&imagenet)).unwrap().macs()));
    assert_eq!(large, [4.1, 6.6, 13.2]);
}

/// `x` `[n, h w, c]` moved round the grid by `(a, b)`.
fn rolled(x: &Tensor, (h, w): (usize, usize), (a, b): (isize, isize)) -> Result<Tensor> {
    let map = x.reshape(&[x.dim(0), h, w, x.dim(2)])?;
    map.roll(1, a)?.roll(2, b)?.reshape(x.shape())
}

#[test]
fn a_gate_moves_with_its_input_and_attention_with_positions_does_not() {
    let (grid, c, by) = ((4, 6), 8, (3, 2));
    let (gate, cx, _) = gate_with(grid, c, &noise(filter_len(grid, c), 13));
    let x = tokens(&noise(2 * 24 * c, 14), 2, c);
    let moved = rolled(&gate.forward(&cx, &x).unwrap(), grid, by).unwrap();
    let y = gate.mix(&cx, &rolled(&x, grid, by).unwrap(), grid).unwrap();
    close(&y.to_vec().unwrap(), &moved.to_vec().unwrap(), 1e-5);

    let mut builder = Builder::new();
    let layer = MultiHeadAttention::new(&mut builder.root(), c, 2, true, 0.0);
    let arena = Arena::new(&gpu(), &builder, 0).unwrap();
    let cx = Cx::eval(&arena);
    // Weights of a usual size, so that attention is not uniform.
    arena.set_values_flat(&arena.values_flat().mul_scalar(50.0).unwrap()).unwrap();
    let positions = tokens(&noise(24 * c, 15), 1, c);
    let difference = |positions: &Tensor| {
        let run = |x: &Tensor| layer.mix(&cx, &x.add(positions).unwrap(), grid).unwrap();
        let moved = rolled(&run(&x), grid, by).unwrap();
        let d = run(&rolled(&x, grid, by).unwrap()).sub(&moved).unwrap().to_vec().unwrap();
        d.iter().fold(0.0f32, |m, v| m.max(v.abs()))
    };
    assert!(difference(&positions) > 0.1);
    // It is the positions that make the difference: without them attention does not know the grid.
    assert!(difference(&positions.mul_scalar(0.0).unwrap()) < 1e-4);
}

#[test]
fn patterns() {
    for (depth, alpha, order, text) in [
        (4, 2, Order::SpectralFirst, "ssaa"),
        (4, 1, Order::AttentionFirst, "aaas"),
        (3, 0, Order::SpectralFirst, "aaa"),
        (2, 2, Order::AttentionFirst, "ss"),
    ] {
        let pattern = Pattern::new(depth, alpha, order).unwrap();
        assert_eq!((pattern.to_string(), pattern.depth(), pattern.alpha()), (text.to_string(), depth, alpha));
        assert_eq!(text.parse::<Pattern>().unwrap(), pattern);
    }
    let text = |r: Result<Pattern>| r.unwrap_err().to_string();
    assert!(text(Pattern::new(4, 5, Order::SpectralFirst)).contains("alpha 5 of 4 blocks"));
    assert!(text("ssxa".parse()).contains("`x` in pattern `ssxa`"));
    assert!(text("".parse()).contains("a letter for each block"));
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let mut builder = Builder::new();
    let mut root = builder.root();
    let cifar = Spec::cifar10();
    let gate = |grid| SpectralGate::new(&mut Builder::new().root(), grid, 4, 0.02).map(|_| ()).unwrap_err().to_string();
    assert!(gate((0, 4)).contains("a grid of 0 x 4") && gate((4, 0)).contains("at least 1"));
    let mut vanilla = |config: SpectFormerConfig| SpectFormer::new(&mut root, &config).map(|_| ()).unwrap_err().to_string();
    let tiny = SpectFormerConfig::tiny(&cifar);
    assert!(vanilla(SpectFormerConfig { patch: 5, ..tiny.clone() }).contains("multiples of 5"));
    assert!(vanilla(SpectFormerConfig { patch: 0, ..tiny.clone() }).contains("patch 0"));
    assert!(vanilla(SpectFormerConfig { heads: 7, ..tiny.clone() }).contains("64 does not divide into 7 heads"));
    assert!(tiny.clone().with_alpha(5, Order::SpectralFirst).unwrap_err().to_string().contains("alpha 5 of 4"));
    let mut h = HierarchicalConfig::cifar(&cifar);
    h.stages[2].heads = 3;
    let text = SpectFormerH::new(&mut root, &h).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("stage 3: width 160 does not divide into 3 heads"), "{text}");

    let (gate, cx, _) = gate_with((4, 6), 2, &noise(filter_len((4, 6), 2), 16));
    let error = |shape: &[usize], grid| {
        let x = Tensor::ones(&gpu(), shape).unwrap();
        gate.mix(&cx, &x, grid).unwrap_err().to_string()
    };
    assert!(error(&[1, 20, 2], (4, 6)).contains("takes [B, 24, 2]"));
    assert!(error(&[1, 24, 3], (4, 6)).contains("with 2 channels"));
    assert!(error(&[24, 2], (4, 6)).contains("takes [B, tokens, C]"));
    assert!(error(&[1, 24, 2], (6, 4)).contains("6 x 4 grid for a filter of 4 x 6"));
    let part = Tensor::ones(&gpu(), &[1, 4, 3, 2]).unwrap();
    assert!(irfft2(&part, &part, (4, 6)).unwrap_err().to_string().contains("4 columns"));
    assert!(irfft2(&part, &part, (5, 4)).unwrap_err().to_string().contains("5 x 4 grid takes"));

    let mut builder = Builder::new();
    let model = SpectFormer::new(&mut builder.root(), &tiny).unwrap();
    let arena = Arena::new(&gpu(), &builder, 0).unwrap();
    let large = Tensor::ones(&gpu(), &[1, 48, 32, 3]).unwrap();
    assert!(model.forward(&Cx::eval(&arena), &large).unwrap_err().to_string().contains("other than the model's 8 x 8"));
}

/// One residual around gate and MLP: with an MLP that gives zero the whole block is the identity, with a second residual
/// it would not be; and the gate's result is not added as it is.
#[test]
fn a_spectral_block_has_one_residual() {
    let spec = Spec { height: 4, width: 4, channels: 1, classes: 2 };
    let tokens_of = |pattern: &str, silence: &str| {
        let config = SpectFormerConfig { patch: 1, dim: 8, heads: 2, ..SpectFormerConfig::tiny(&spec) };
        let config = config.with_pattern(pattern.parse().unwrap());
        let mut builder = Builder::new();
        let model = SpectFormer::new(&mut builder.root(), &config).unwrap();
        let arena = Arena::new(&gpu(), &builder, 5).unwrap();
        let quiet = arena.params().map(|e, t| if e.name.contains(silence) { t.mul_scalar(0.0) } else { Ok(t.clone()) });
        let cx = Cx::eval(&arena).with_params(&quiet.unwrap());
        let x = Tensor::from_slice(&gpu(), &noise(32, 17), &[2, 4, 4, 1]).unwrap();
        // The last norm hides a scale but not another direction.
        model.tokens(&cx, &x).unwrap().to_vec().unwrap()
    };
    // The mixer works, the MLP is silent: what went in comes out of a spectral block, not out of an attention block.
    let silent = tokens_of("s", "blocks.0.");
    close(&tokens_of("s", "mlp.fc2"), &silent, 1e-6);
    let attention = tokens_of("a", "mlp.fc2");
    assert!(attention.iter().zip(&silent).any(|(a, b)| (a - b).abs() > 1e-3));
}

/// Every parameter of both networks gets a gradient, and a few steps fit a batch.
#[test]
fn both_networks_learn_a_batch() {
    use shadegrad::optim::{Optimizer, Rule};
    let gpu = gpu();
    let spec = Spec { height: 16, width: 16, channels: 3, classes: 3 };
    let x = Tensor::from_slice(&gpu, &noise(6 * 16 * 16 * 3, 18), &[6, 16, 16, 3]).unwrap();
    let labels = Tensor::from_u32(&gpu, &[0, 1, 2, 0, 1, 2], &[6]).unwrap();
    let targets = labels.one_hot(3).unwrap();
    let token_targets = targets.unsqueeze(1).unwrap();

    let fit = |builder: &Builder, loss: &dyn Fn(&Cx) -> Result<Tensor>| {
        let arena = Arena::new(&gpu, builder, 1).unwrap();
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.0)).unwrap().clip_norm(1.0);
        let mut losses = Vec::new();
        for step in 0..25 {
            let loss = loss(&Cx::train(&arena).seeded(0, step)).unwrap();
            arena.backward(&loss).unwrap();
            optimizer.step(&arena, 3e-3).unwrap();
            losses.push(loss.item().unwrap());
        }
        assert!(losses[24] < 0.5 * losses[0], "{losses:?}");
        arena
    };
    let config = SpectFormerConfig { dim: 16, heads: 2, drop_path: 0.1, ..SpectFormerConfig::tiny(&spec) };
    let mut builder = Builder::new();
    let model = SpectFormer::new(&mut builder.root(), &config).unwrap();
    fit(&builder, &|cx| model.forward(cx, &x)?.cross_entropy_soft(&targets, shadegrad::Reduction::Mean));

    let small = |mixer, dim, heads| Stage { mixer, dim, depth: 1, heads, mlp_ratio: 2 };
    let stages = vec![small(Mixer::Spectral, 12, 0), small(Mixer::Attention, 16, 2)];
    let config = HierarchicalConfig { stages, drop_path: 0.1, ..HierarchicalConfig::cifar(&spec).with_token_labels() };
    let mut builder = Builder::new();
    let model = SpectFormerH::new(&mut builder.root(), &config).unwrap();
    let arena = fit(&builder, &|cx| {
        let logits = model.logits(cx, &x)?;
        let tokens = logits.tokens.as_ref().map(|t| token_targets.broadcast_to(t.shape())).transpose()?;
        logits.token_label_loss(&targets, &tokens.unwrap_or_else(|| targets.clone()))
    });
    // A test's logits: the image's and half the best token's.
    let cx = Cx::eval(&arena);
    let logits = model.logits(&cx, &x).unwrap();
    let (image, tokens) = (logits.image.to_vec().unwrap(), logits.tokens.as_ref().unwrap());
    assert_eq!(tokens.shape(), [6, 16, 3]);
    let tokens = tokens.to_vec().unwrap();
    let want: Vec<f32> = (0..18)
        .map(|i| {
            let of = (0..16).map(|t| tokens[(i / 3 * 16 + t) * 3 + i % 3]);
            image[i] + 0.5 * of.fold(f32::NEG_INFINITY, f32::max)
        })
        .collect();
    close(&model.forward(&cx, &x).unwrap().to_vec().unwrap(), &want, 1e-6);
    // Without the head there is nothing to label tokens with.
    let plain = Logits { tokens: None, ..logits };
    assert!(plain.token_label_loss(&targets, &targets).unwrap_err().to_string().contains("with_token_labels"));
    assert_eq!(plain.combined().unwrap().to_vec().unwrap(), image);
}

/// The published hierarchical networks run, on images of a quarter of the published side.
#[test]
fn the_published_stems_and_grids_fit_each_other() {
    let spec = Spec { height: 32, width: 48, channels: 3, classes: 5 };
    for config in [HierarchicalConfig::s(&spec), HierarchicalConfig::cifar(&spec)] {
        let config = HierarchicalConfig {
            stages: config.stages.iter().map(|s| Stage { depth: 1, ..*s }).collect(),
            ..config.with_token_labels()
        };
        let mut builder = Builder::new();
        let model = SpectFormerH::new(&mut builder.root(), &config).unwrap();
        let arena = Arena::new(&gpu(), &builder, 0).unwrap();
        let x = Tensor::ones(&gpu(), &[2, 32, 48, 3]).unwrap();
        let y = model.forward(&Cx::eval(&arena), &x).unwrap();
        assert_eq!(y.shape(), [2, 5]);
        assert!(y.to_vec().unwrap().iter().all(|v| v.is_finite()));
        let other = Tensor::ones(&gpu(), &[2, 64, 48, 3]).unwrap();
        let text = model.forward(&Cx::eval(&arena), &other).unwrap_err().to_string();
        assert!(text.contains("build it for this size"), "{text}");
    }
}
