//! Checks against known numbers: windows, masks, attention by hand, what the branch does and does not reach, sizes.

use shadegrad::nn::{Arena, Builder, Cx, Module, Params};
use shadegrad::rng::Philox;
use shadegrad::window::Windows;
use shadegrad::{CrossEntropy, Result, Tensor};

use super::*;
use crate::papers::testing::gpu;

fn tensor(data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&gpu(), data, shape).unwrap()
}

fn noise(shape: &[usize], stream: u64) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Philox::new(5, stream).fill_uniform(&mut values, -1.0, 1.0);
    tensor(&values, shape)
}

fn close(got: &Tensor, want: &[f32], tol: f32) {
    let got = got.to_vec().unwrap();
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tol, "element {i}: {g}, expected {w}\n{got:?}");
    }
}

/// A layer or model that `make` builds, with its parameters.
fn built<M>(make: impl FnOnce(&mut Scope<'_>) -> Result<M>) -> (M, Arena) {
    let mut builder = Builder::new();
    let model = make(&mut builder.root()).unwrap();
    (model, Arena::new(&gpu(), &builder, 3).unwrap())
}

fn replaced(params: &Params, name: &str, f: impl Fn(&Tensor) -> Tensor) -> Params {
    let id = params.id(name).unwrap();
    params.with(id, f(params.get(id))).unwrap()
}

fn counting(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn windows_and_shift_of_the_map_of_sixteen() {
    let map = tensor(&counting(16), &[1, 4, 4, 1]);
    let windows = window_partition(&map, 2).unwrap();
    assert_eq!(windows.shape(), [4, 4, 1]);
    close(&windows, &[0., 1., 4., 5., 2., 3., 6., 7., 8., 9., 12., 13., 10., 11., 14., 15.], 0.0);
    let moved = cyclic_shift(&map, [-1, -1]).unwrap();
    close(&moved, &[5., 6., 7., 4., 9., 10., 11., 8., 13., 14., 15., 12., 1., 2., 3., 0.], 0.0);
    let windows = window_partition(&moved, 2).unwrap();
    close(&windows, &[5., 6., 9., 10., 7., 4., 11., 8., 13., 14., 1., 2., 15., 12., 3., 0.], 0.0);
    let back = window_reverse(&windows, 2, [4, 4]).unwrap();
    close(&cyclic_shift(&back, [1, 1]).unwrap(), &counting(16), 0.0);
    // Batch and channels, and a map that is not square.
    let map = noise(&[2, 4, 6, 3], 0);
    let again = window_reverse(&window_partition(&map, 2).unwrap(), 2, [4, 6]).unwrap();
    close(&again, &map.to_vec().unwrap(), 0.0);
}

#[test]
fn relative_places() {
    assert_eq!(relative_index(2), [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
    let index = relative_index(4);
    assert!((0..16).all(|a| index[17 * a] == 24));
    assert_eq!(index[..16], [24, 23, 22, 21, 17, 16, 15, 14, 10, 9, 8, 7, 3, 2, 1, 0]);
    assert_eq!(index[240..], [48, 47, 46, 45, 41, 40, 39, 38, 34, 33, 32, 31, 27, 26, 25, 24]);
    assert!((0..256).all(|i| index[i] + index[(i % 16) * 16 + i / 16] == 48));
    let mut uses = [0; 49];
    index.iter().for_each(|&t| uses[t as usize] += 1);
    for (t, &used) in uses.iter().enumerate() {
        let away = |i: usize| i.abs_diff(3);
        assert_eq!(used, (4 - away(t / 7)) * (4 - away(t % 7)), "offset {t}");
    }
    assert_eq!(uses.iter().sum::<usize>(), 256);
}

#[test]
fn shift_masks() {
    let mask = shift_mask(&gpu(), [4, 4], 2, 1).unwrap();
    assert_eq!(mask.shape(), [4, 4, 4]);
    let pairs = |f: fn(usize, usize) -> bool| (0..16).map(move |i| if f(i / 4, i % 4) { 0.0 } else { -100.0 });
    let want: Vec<f32> = pairs(|_, _| true)
        .chain(pairs(|a, b| a % 2 == b % 2))
        .chain(pairs(|a, b| a / 2 == b / 2))
        .chain(pairs(|a, b| a == b))
        .collect();
    close(&mask, &want, 0.0);
    let hidden = |side: usize| {
        let mask = shift_mask(&gpu(), [side, side], 4, 2).unwrap().to_vec().unwrap();
        mask.chunks(256).map(|w| w.iter().filter(|&&v| v != 0.0).count()).collect::<Vec<usize>>()
    };
    let counts = hidden(16);
    assert_eq!(counts.iter().sum::<usize>(), 960);
    for (k, &count) in counts.iter().enumerate() {
        let want = match k {
            3 | 7 | 11 | 12 | 13 | 14 => 128,
            15 => 192,
            _ => 0,
        };
        assert_eq!(count, want, "window {k}");
    }
    assert_eq!(hidden(8).iter().sum::<usize>(), 448);
    assert!(shift_mask(&gpu(), [8, 8], 4, 4).is_err());
    assert!(shift_mask(&gpu(), [8, 8], 4, 0).unwrap().to_vec().unwrap().iter().all(|&v| v == 0.0));
}

/// Windows of 2 x 2, two channels, one head, all weights the identity, biases zero, the table 0, 0.1, .. 0.8.
fn by_hand() -> (WindowAttention, Arena) {
    let (layer, arena) = built(|s| WindowAttention::new(s, 2, 1, 2));
    let eye = tensor(&[1., 0., 0., 1.], &[2, 2]);
    let mut params = arena.params().detach();
    params = replaced(&params, "qkv.weight", |_| Tensor::concat(&[&eye, &eye, &eye], 0).unwrap());
    params = replaced(&params, "proj.weight", |_| eye.clone());
    let table: Vec<f32> = (0..9).map(|t| 0.1 * t as f32).collect();
    params = replaced(&params, "relative_position_bias_table", |_| tensor(&table, &[9, 1]));
    arena.set_values(&params).unwrap();
    (layer, arena)
}

const TOKENS: [f32; 8] = [1., 0., 0., 1., 1., 1., 0., 0.];
const ATTENDED: [f32; 8] = [0.6915, 0.4715, 0.4997, 0.6665, 0.6695, 0.6440, 0.5250, 0.4963];
const TABLE_GRADIENT: [f32; 9] = [-0.0908, 0.0239, 0.1501, -0.1817, -0.0338, 0.2060, -0.1621, -0.0548, 0.1433];

#[test]
fn attention_by_hand() {
    let (layer, arena) = by_hand();
    let cx = Cx::train(&arena);
    let windows = tensor(&TOKENS, &[1, 4, 2]);
    let map = tensor(&TOKENS, &[1, 2, 2, 2]);
    for y in [layer.forward(&cx, &windows, None).unwrap(), layer.forward_map(&cx, &map, 0).unwrap()] {
        close(&y, &ATTENDED, 5.1e-5);
        let first = y.flatten(0, y.rank() - 2).unwrap().narrow(1, 0, 1).unwrap();
        arena.backward(&first.sum_all().unwrap()).unwrap();
        let table = arena.grads().by_name("relative_position_bias_table").unwrap();
        close(table, &TABLE_GRADIENT, 5.1e-5);
        assert!(table.to_vec().unwrap().iter().sum::<f32>().abs() < 1e-6);
    }
    let apart: Vec<f32> = (0..16).map(|i| if i / 8 == (i % 4) / 2 { 0.0 } else { -100.0 }).collect();
    let y = layer.forward(&cx, &windows, Some(&tensor(&apart, &[1, 4, 4]))).unwrap();
    close(&y, &[0.6915, 0.3085, 0.3527, 0.6473, 0.8197, 0.8197, 0.5250, 0.5250], 5.1e-5);
    assert!(layer.forward(&cx, &windows, Some(&tensor(&[0.0; 8], &[1, 2, 4]))).is_err());
    assert!(layer.forward(&cx, &map, None).is_err());
}

/// Attention in f64 within the parts of a map of side 8 that windows of side 4 moved by 2 leave in place: rows and columns
/// 0..2, 2..6 and 6..8.
fn in_regions(qkv: &[f32], table: &[f32], (batch, heads, d): (usize, usize, usize)) -> Vec<f32> {
    let c = heads * d;
    let part = |i: usize| (i + 2) / 4;
    let mut out = vec![0.0; batch * 64 * c];
    for b in 0..batch {
        for h in 0..heads {
            let at = |t: usize, which: usize, i: usize| f64::from(qkv[(b * 64 + t) * 3 * c + which * c + h * d + i]);
            for a in 0..64 {
                let (ya, xa) = (a / 8, a % 8);
                let seen = |t: &usize| part(t / 8) == part(ya) && part(t % 8) == part(xa);
                let scores: Vec<(usize, f64)> = (0..64)
                    .filter(seen)
                    .map(|t| {
                        let dot: f64 = (0..d).map(|i| at(a, 0, i) * at(t, 1, i)).sum();
                        let row = (ya + 3 - t / 8) * 7 + xa + 3 - t % 8;
                        (t, dot / (d as f64).sqrt() + f64::from(table[row * heads + h]))
                    })
                    .collect();
                let sum: f64 = scores.iter().map(|s| s.1.exp()).sum();
                for i in 0..d {
                    let y: f64 = scores.iter().map(|&(t, s)| s.exp() / sum * at(t, 2, i)).sum();
                    out[(b * 64 + a) * c + h * d + i] = y as f32;
                }
            }
        }
    }
    out
}

#[test]
fn a_shift_is_attention_in_unequal_windows() {
    let mut sizes: Vec<usize> =
        (0..9).map(|r| (0..64).filter(|t| (t / 8 + 2) / 4 * 3 + (t % 8 + 2) / 4 == r).count()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [4, 4, 4, 4, 8, 8, 8, 8, 16]);
    for (heads, d) in [(2, 3), (1, 16)] {
        let qkv = noise(&[2, 8, 8, 3 * heads * d], 1);
        let table = noise(&[49, heads], 2);
        let want = in_regions(&qkv.to_vec().unwrap(), &table.to_vec().unwrap(), (2, heads, d));
        let windows = Windows { heads, window: 4, shift: 2, scale: None };
        close(&qkv.window_attention(Some(&table), windows).unwrap(), &want, 1e-5);
    }
    // The layer on the map, and by way of the shifted map's windows and their mask.
    let (layer, arena) = built(|s| WindowAttention::new(s, 8, 2, 4));
    let cx = Cx::eval(&arena);
    let x = noise(&[2, 8, 8, 8], 3);
    let windows = window_partition(&cyclic_shift(&x, [-2, -2]).unwrap(), 4).unwrap();
    let mask = shift_mask(&gpu(), [8, 8], 4, 2).unwrap();
    let y = window_reverse(&layer.forward(&cx, &windows, Some(&mask)).unwrap(), 4, [8, 8]).unwrap();
    let y = cyclic_shift(&y, [2, 2]).unwrap();
    close(&layer.forward_map(&cx, &x, 2).unwrap(), &y.to_vec().unwrap(), 1e-5);
}

#[test]
fn patch_merging_order() {
    close(&PatchMerging::squares(&tensor(&counting(4), &[1, 2, 2, 1])).unwrap(), &[0., 2., 1., 3.], 0.0);
    let odd = PatchMerging::squares(&tensor(&counting(6), &[1, 3, 2, 1])).unwrap_err().to_string();
    assert!(odd.contains("even sides"), "{odd}");
}

/// Small images of two stages, the first with a shifted block.
fn small() -> SwinConfig {
    SwinConfig {
        patch: 1,
        embed: 8,
        depths: vec![2, 1],
        heads: vec![1, 2],
        drop_path: 0.0,
        ..SwinConfig::coswin(&Spec { height: 8, width: 8, channels: 1, classes: 10 })
    }
}

#[test]
fn without_its_branch_the_block_is_swins() {
    let config = small();
    let (model, arena) = built(|s| Swin::new(s, &config));
    let (plain, plain_arena) = built(|s| Swin::new(s, &SwinConfig { local: LocalBranch::None, ..config }));
    let x = noise(&[2, 8, 8, 1], 4);
    let want = plain.forward(&Cx::eval(&plain_arena), &x).unwrap().to_vec().unwrap();
    let mut zeroed = arena.params().clone();
    let mut closed = arena.params().clone();
    for name in arena.params().names().filter(|n| n.contains(".local.")) {
        if name.contains("conv2") {
            zeroed = replaced(&zeroed, name, |t| Tensor::zeros(t.gpu(), t.shape()).unwrap());
        }
        if name.ends_with("gate") {
            closed = replaced(&closed, name, |t| Tensor::full(t.gpu(), &[], -200.0).unwrap());
        }
    }
    let cx = Cx::eval(&arena);
    for params in [zeroed, closed] {
        assert_eq!(model.forward(&cx.with_params(&params), &x).unwrap().to_vec().unwrap(), want);
    }
    assert_ne!(model.forward(&cx, &x).unwrap().to_vec().unwrap(), want);
    let gates = model.gates(&arena).unwrap();
    assert_eq!(gates.len(), 3);
    assert!(gates.iter().all(|g| (g - 0.6224593).abs() < 1e-6), "{gates:?}");
    assert!(plain.gates(&plain_arena).unwrap().is_empty());
}

#[test]
fn only_the_branch_crosses_windows() {
    let change = |local: LocalBranch| {
        let config = SwinConfig { local, ..small() };
        let (block, arena) = built(|s| SwinBlock::new(s, &config, (8, 8, 1), false, 0.0));
        let mut values = noise(&[1, 8, 8, 8], 5).to_vec().unwrap();
        let at = |values: &[f32]| {
            let y = block.forward(&Cx::eval(&arena), &tensor(values, &[1, 8, 8, 8])).unwrap().to_vec().unwrap();
            y[4 * 8..5 * 8].to_vec()
        };
        let before = at(&values);
        values[3 * 8..4 * 8].iter_mut().for_each(|v| *v += 1.0);
        before.iter().zip(at(&values)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert_eq!(change(LocalBranch::None), 0.0);
    assert!(change(small().local) > 1e-3);
}

#[test]
fn label_smoothing() {
    let logits = tensor(&[2., 1., 0.], &[1, 3]);
    let labels = Tensor::from_u32(&gpu(), &[0], &[1]).unwrap();
    let loss = |smoothing| {
        let options = CrossEntropy { smoothing, ..CrossEntropy::default() };
        logits.cross_entropy(&labels, options).unwrap().item().unwrap()
    };
    assert!((loss(0.0) - 0.407606).abs() < 1e-6);
    assert!((loss(0.1) - 0.507606).abs() < 1e-6);
}

fn parameters(config: &SwinConfig) -> usize {
    let mut builder = Builder::new();
    Swin::new(&mut builder.root(), config).unwrap();
    builder.tables().unwrap().0.numel()
}

#[test]
fn parameter_counts() {
    let classes = |classes| Spec { classes, ..Spec::cifar10() };
    assert_eq!(parameters(&SwinConfig::coswin(&classes(10))), 23_460_300);
    assert_eq!(parameters(&SwinConfig::coswin(&classes(100))), 23_494_950);
    let tiny = Spec { height: 64, width: 64, channels: 3, classes: 200 };
    assert_eq!(SwinConfig::coswin(&tiny).patch, 4);
    assert_eq!(parameters(&SwinConfig::coswin(&tiny)), 23_536_906);
    let plain = parameters(&SwinConfig::swin(&classes(10)));
    assert_eq!((plain, 23_460_300 - plain), (7_048_612, 16_411_688));
    let branches: usize = [(96, 105, 2), (192, 211, 6), (384, 422, 4)]
        .iter()
        .map(|&(c, m, blocks)| blocks * (18 * c * m + m + c + 1))
        .sum();
    assert_eq!(branches, 16_411_688);
    // The settings of the small runs.
    let cifar = SwinConfig {
        patch: 4,
        embed: 24,
        depths: vec![2, 2],
        heads: vec![2, 4],
        drop_path: 0.0,
        ..SwinConfig::coswin(&classes(10))
    };
    let none = LocalBranch::None;
    assert_eq!(parameters(&SwinConfig { local: none, ..cifar.clone() }), 54_862);
    assert_eq!(parameters(&SwinConfig { local: none, embed: 44, ..cifar.clone() }), 177_522);
    assert_eq!(parameters(&cifar), 167_486);
    let digits = SwinConfig { depths: vec![2, 2], embed: 16, ..small() };
    assert_eq!(parameters(&SwinConfig { local: none, ..digits.clone() }), 24_464);
    assert_eq!(parameters(&SwinConfig { local: none, embed: 28, ..digits.clone() }), 72_152);
    assert_eq!(parameters(&digits), 74_780);
    // Of the full run, and the width at which Swin comes nearest without falling below.
    let full = SwinConfig { embed: 48, depths: vec![2, 4, 2], ..SwinConfig::coswin(&classes(10)) };
    assert_eq!(parameters(&full), 3_305_962);
    assert_eq!(parameters(&SwinConfig { local: none, embed: 87, ..full }), 3_357_811);
    // 63,862 with the norms before the attention, which are unused without it and left out here.
    assert_eq!(parameters(&SwinConfig { attention: false, ..digits }), 63_862 - 2 * (2 * 16 + 2 * 32));
}

#[test]
fn the_gate_has_its_gradient() {
    let (branch, arena) = built(|s| Ok(LocalConvBranch::new(s, 4, 1.1, 0.5)));
    let (x, v) = (noise(&[2, 9, 4], 6), noise(&[2, 9, 4], 7));
    let loss = branch.forward(&Cx::train(&arena), &x).unwrap().mul(&v).unwrap().sum_all().unwrap();
    let value = loss.item().unwrap();
    arena.backward(&loss).unwrap();
    let got = arena.grads().by_name("gate").unwrap().item().unwrap();
    // The result is sigmoid(w) times what does not depend on w.
    assert!((got - (1.0 - 0.6224593) * value).abs() < 1e-5 * value.abs().max(1.0), "{got} of {value}");

    // The whole block, by differences.
    let (block, arena) = built(|s| SwinBlock::new(s, &small(), (8, 8, 1), true, 0.0));
    let (x, v) = (noise(&[1, 8, 8, 8], 8), noise(&[1, 8, 8, 8], 9));
    let loss = |cx: &Cx| block.forward(cx, &x).unwrap().mul(&v).unwrap().sum_all().unwrap();
    arena.backward(&loss(&Cx::train(&arena))).unwrap();
    let got = arena.grads().by_name("local.gate").unwrap().item().unwrap();
    let at = |w: f32| {
        let params = replaced(arena.params(), "local.gate", |t| Tensor::full(t.gpu(), &[], w).unwrap());
        f64::from(loss(&Cx::eval(&arena).with_params(&params)).item().unwrap())
    };
    let slope = (at(0.51) - at(0.49)) / 0.02;
    assert!((f64::from(got) - slope).abs() < 1e-3 * slope.abs().max(1.0), "{got} against {slope}");
}

#[test]
fn shifts_and_stochastic_depth_follow_the_paper() {
    let mut builder = Builder::new();
    let model = Swin::new(&mut builder.root(), &SwinConfig::coswin(&Spec::cifar10())).unwrap();
    let shifts: Vec<usize> = model.blocks().map(SwinBlock::shift).collect();
    assert_eq!(shifts, [0, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0]);
    for (j, block) in model.blocks().enumerate() {
        assert!((block.drop_path() - 0.1 * j as f32 / 11.0).abs() < 1e-7);
    }
}

#[test]
fn every_variant_trains_all_its_parameters() {
    let x = noise(&[2, 8, 8, 1], 10);
    let labels = Tensor::from_u32(&gpu(), &[3, 7], &[2]).unwrap();
    for (attention, local) in [(true, LocalBranch::None), (true, small().local), (false, small().local)] {
        let config = SwinConfig { attention, local, drop_path: 0.2, ..small() };
        let (model, arena) = built(|s| Swin::new(s, &config));
        let cx = Cx::train(&arena).seeded(1, 2);
        let loss = model.forward(&cx, &x).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap();
        arena.backward(&loss).unwrap();
        assert!((loss.item().unwrap() - 10f32.ln()).abs() < 0.5);
        assert_eq!(model.forward_features(&cx, &x).unwrap().shape(), [2, 16, 16]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let base = small();
    for (config, text) in [
        (SwinConfig { patch: 3, ..base.clone() }, "multiple of the patch"),
        (SwinConfig { spec: Spec { width: 4, ..base.spec }, ..base.clone() }, "square images"),
        (SwinConfig { window: 3, ..base.clone() }, "windows of side 3"),
        (SwinConfig { patch: 8, ..base.clone() }, "cannot be halved"),
        (SwinConfig { heads: vec![3, 2], ..base.clone() }, "3 heads"),
        (SwinConfig { heads: vec![1], ..base.clone() }, "one of each"),
        (SwinConfig { attention: false, local: LocalBranch::None, ..base.clone() }, "keep one"),
    ] {
        let err = Swin::new(&mut Builder::new().root(), &config).map(|_| ()).unwrap_err().to_string();
        assert!(err.contains(text), "{err}");
    }
    let (branch, arena) = built(|s| Ok(LocalConvBranch::new(s, 4, 1.1, 0.5)));
    let err = branch.forward(&Cx::eval(&arena), &noise(&[1, 8, 4], 0)).unwrap_err().to_string();
    assert!(err.contains("square number"), "{err}");
    let qkv = noise(&[1, 4, 4, 6], 0);
    let windows = Windows { heads: 1, window: 2, shift: 1, scale: None };
    for wrong in [
        Windows { window: 3, ..windows },
        Windows { window: 0, ..windows },
        Windows { shift: 2, ..windows },
        Windows { heads: 4, ..windows },
        Windows { heads: 0, ..windows },
    ] {
        assert!(qkv.window_attention(None, wrong).is_err(), "{wrong:?}");
    }
    assert!(qkv.window_attention(Some(&noise(&[9, 2], 0)), windows).is_err());
    assert!(qkv.window_attention(Some(&noise(&[9, 1], 0)), windows).is_ok());
}

#[test]
fn multiply_adds() {
    // One stage of one block: 16 tokens of width 2, one window; patches of one pixel and channel; 10 classes.
    let spec = Spec { height: 4, width: 4, channels: 1, classes: 10 };
    let config = SwinConfig { patch: 1, embed: 2, depths: vec![1], heads: vec![1], ..SwinConfig::swin(&spec) };
    let block = 16 * 2 * 6 + 2 * 16 * 16 * 2 + 16 * 2 * 2 + 2 * 16 * 2 * 4;
    assert_eq!(config.macs().unwrap(), 16 * 2 + block + 2 * 10);
    let branch = LocalBranch::Conv3x3 { expand: 1.5, gate_init: 0.0 };
    assert_eq!(SwinConfig { local: branch, ..config }.macs().unwrap(), 16 * 2 + block + 2 * 9 * 2 * 3 * 16 + 2 * 10);
}
