//! Rounding and packing by hand, gradients against formulas, the schedule step by step, and the bytes that the engine
//! counts against the paper's formula, tensor by tensor.

use shadegrad::autograd::{GradOptions, SavedTensor, grad, grad_with};
use shadegrad::nn::{Arena, Builder, Cx, Init, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::{CrossEntropy, DType, Gpu, Options, Tensor};

use super::*;
use crate::papers::testing::gpu;

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&gpu(), values, shape).unwrap()
}

fn noise(n: usize, stream: u64, std: f64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Philox::new(7, stream).fill_normal(&mut values, 0.0, std);
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn close(a: &[f32], b: &[f32], tol: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tol * (1.0 + y.abs()), "{i}: {x} and {y}");
    }
}

/// Gradients of the inputs of `f` for the gradient `g` of its result.
fn gradients(f: impl FnOnce(&[Tensor]) -> Result<Tensor>, inputs: &[&Tensor], g: &Tensor) -> Vec<Vec<f32>> {
    let leaves: Vec<Tensor> = inputs.iter().map(|t| t.leaf()).collect();
    let y = f(&leaves).unwrap();
    let targets: Vec<&Tensor> = leaves.iter().collect();
    let grads = grad_with(&[&y], &targets, Some(&[g]), GradOptions::default()).unwrap();
    grads.into_iter().map(|g| g.unwrap().to_vec().unwrap()).collect()
}

#[test]
fn the_quantiser_by_hand() {
    let x = [-5.2, -1.3, -0.26, -0.25, 0.0, 0.24, 0.26, 0.75, 1.26, 9.0];
    let left = |how: Quantizer, x: &[f32]| {
        let t = tensor(x, &[x.len()]);
        let device = t.quantize(how).unwrap().dequantize(how, t.shape()).unwrap().to_vec().unwrap();
        let host: Vec<f32> = x.iter().map(|&v| how.apply(v)).collect();
        assert_eq!(device, host);
        device
    };
    assert_eq!(left(Quantizer::Q4, &x), [-4.0, -1.5, -0.5, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 3.5]);
    assert_eq!(
        left(Quantizer::Q8, &x),
        [-5.1875, -1.3125, -0.25, -0.25, 0.0, 0.25, 0.25, 0.75, 1.25, 7.9375]
    );
    let p = [0.001, 0.002, 0.5, 0.999, 1.0];
    let bytes = tensor(&p, &[5]).quantize(Quantizer::QU8).unwrap().to_bytes().unwrap();
    assert_eq!(bytes, [0, 1, 128, 255, 255, 0, 0, 0]);
    assert_eq!(left(Quantizer::QU8, &p), [0.0, 1.0 / 256.0, 0.5, 255.0 / 256.0, 255.0 / 256.0]);
}

#[test]
fn packing_by_hand_and_for_all_bytes() {
    let x = tensor(&[1.5, -4.0, 3.5, 0.0], &[4]);
    assert_eq!(x.quantize(Quantizer::Q4).unwrap().to_bytes().unwrap(), [191, 8, 0, 0]);
    // Seven values: the halves are four and three, and the pad is 0.
    let odd = tensor(&[0.5, 1.0, 1.5, 2.0, -0.5, -1.0, -1.5], &[7]).quantize(Quantizer::Q4).unwrap();
    assert_eq!(odd.to_bytes().unwrap(), [9 * 16 + 7, 10 * 16 + 6, 11 * 16 + 5, 12 * 16 + 8]);
    let all: Vec<u8> = (0..=255).collect();
    let words: Vec<u32> = all.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let words = Tensor::from_u32(&gpu(), &words, &[64]).unwrap();
    for (how, n) in [(Quantizer::Q4, 512), (Quantizer::Q8, 256), (Quantizer::QU8, 256)] {
        let again = words.dequantize(how, &[n]).unwrap().quantize(how).unwrap();
        assert_eq!(again.to_bytes().unwrap(), all, "{how:?}");
    }
}

#[test]
fn the_slope_of_gelu_from_four_bits() {
    let at = [-0.5, 0.0, 0.5, 1.0, 3.5];
    let ones = tensor(&[1.0; 5], &[5]);
    let slope = gradients(|x| gelu_q4(&x[0]), &[&tensor(&at, &[5])], &ones);
    close(&slope[0], &[0.132505, 0.5, 0.867495, 1.083315, 1.002822], 1e-6);
    let n = 15001;
    let grid: Vec<f32> = (0..n).map(|i| -4.0 + i as f32 * 5e-4).collect();
    let (x, ones) = (tensor(&grid, &[n]), Tensor::ones(&gpu(), &[n]).unwrap());
    let exact = gradients(|x| x[0].gelu(), &[&x], &ones);
    let rounded = gradients(|x| gelu_q4(&x[0]), &[&x], &ones);
    let (mut most, mut place) = (0.0, 0.0);
    for ((a, b), x) in exact[0].iter().zip(&rounded[0]).zip(&grid) {
        if (a - b).abs() > most {
            (most, place) = ((a - b).abs(), *x);
        }
    }
    assert!((0.19..=0.2).contains(&most) && (place.abs() - 0.25).abs() < 2e-3, "{most} at {place}");
    let leaf = x.leaf();
    assert_eq!(bits(&gelu_q4(&leaf).unwrap().to_vec().unwrap()), bits(&leaf.gelu().unwrap().to_vec().unwrap()));
}

/// A transformer of the small run's sizes on pictures of 8 x 8: 17 tokens of width 48, 3 heads.
fn split_vit(gpu: &Gpu, depth: usize) -> (SplitVit, Arena) {
    let config = SplitVitConfig { side: 8, channels: 1, patch: 2, width: 48, depth, heads: 3, classes: 5 };
    let mut names = Builder::new();
    let model = SplitVit::new(&mut names.root(), &config).unwrap();
    (model, Arena::new(gpu, &names, 3).unwrap())
}

fn pictures(gpu: &Gpu, n: usize) -> (Tensor, Tensor) {
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 5).collect();
    (
        Tensor::from_slice(gpu, &noise(n * 64, 1, 1.0), &[n, 8, 8, 1]).unwrap(),
        Tensor::from_u32(gpu, &labels, &[n]).unwrap(),
    )
}

fn loss(model: &dyn Module, arena: &Arena, (x, y): &(Tensor, Tensor)) -> Result<Tensor> {
    model.forward(&Cx::train(arena), x)?.cross_entropy(y, CrossEntropy::default())
}

fn options(schedule: Schedule) -> SlimConfig {
    SlimConfig { schedule, ..SlimConfig::default() }
}

#[test]
fn without_compression_gradients_are_the_engines_to_the_bit() {
    let gpu = gpu();
    let (model, mut arena) = split_vit(&gpu, 2);
    let batch = pictures(&gpu, 3);
    arena.backward(&loss(&model, &arena, &batch).unwrap()).unwrap();
    let want = bits(&arena.grads_flat().to_vec().unwrap());
    let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.0, ..options(Schedule::Dynamics).uncompressed() }).unwrap();
    slim.plan(&mut arena).unwrap();
    let value = slim.forward(|| loss(&model, &arena, &batch)).unwrap();
    arena.backward(&value).unwrap();
    assert_eq!(bits(&arena.grads_flat().to_vec().unwrap()), want);
    // A norm that keeps all of its normalised elements has the gradient of one that keeps its input.
    let (x, g) = (tensor(&noise(10 * 16, 2, 2.0), &[10, 16]), tensor(&noise(10 * 16, 3, 1.0), &[10, 16]));
    let (scale, shift) = (tensor(&noise(16, 4, 1.0), &[16]), tensor(&noise(16, 5, 1.0), &[16]));
    let pruned = gradients(|x| layer_norm_pruned(&x[0], &scale, &shift, 1e-12, 1.0), &[&x], &g);
    let active = gradients(|x| x[0].layer_norm(Some(&scale.leaf()), Some(&shift), 1e-12), &[&x], &g);
    close(&pruned[0], &active[0], 2e-6);
}

#[test]
fn compression_leaves_the_forward_pass_and_bends_the_gradients() {
    let gpu = gpu();
    let (model, mut arena) = split_vit(&gpu, 2);
    let batch = pictures(&gpu, 3);
    let exact = loss(&model, &arena, &batch).unwrap();
    arena.backward(&exact).unwrap();
    let plain = arena.grads_flat().to_vec().unwrap();
    let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.0, ..options(Schedule::Dynamics) }).unwrap();
    slim.plan(&mut arena).unwrap();
    let value = slim.forward(|| loss(&model, &arena, &batch)).unwrap();
    assert_eq!(value.item().unwrap().to_bits(), exact.item().unwrap().to_bits());
    arena.backward(&value).unwrap();
    let bent = arena.grads_flat().to_vec().unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = dot(&plain, &bent) / (dot(&plain, &plain) * dot(&bent, &bent)).sqrt();
    assert!(bits(&plain) != bits(&bent) && cosine > 0.98, "{cosine}");
}

#[test]
fn products_of_attention_from_eight_bits() {
    let (q, k) = (tensor(&noise(2 * 5 * 4, 1, 1.5), &[2, 5, 4]), tensor(&noise(2 * 5 * 4, 2, 1.5), &[2, 5, 4]));
    let g = tensor(&noise(2 * 5 * 5, 3, 1.0), &[2, 5, 5]);
    let left = |t: &Tensor| t.quantize(Quantizer::Q8).unwrap().dequantize(Quantizer::Q8, t.shape()).unwrap();
    let got = gradients(|t| matmul_q8(&t[0], &t[1]), &[&q, &k], &g);
    close(&got[0], &g.matmul(&left(&k)).unwrap().to_vec().unwrap(), 1e-6);
    close(&got[1], &g.matmul_t(&left(&q), true, false).unwrap().to_vec().unwrap(), 1e-6);
    // softmax(S) V: dP = G V^T, dS = dP P - P rowsum(dP P), dV = P^T G, with what is left of P and V.
    let (s, v) = (tensor(&noise(2 * 5 * 5, 4, 2.0), &[2, 5, 5]), tensor(&noise(2 * 5 * 3, 5, 1.5), &[2, 5, 3]));
    let g = tensor(&noise(2 * 5 * 3, 6, 1.0), &[2, 5, 3]);
    let got = gradients(|t| softmax_matmul_q8(&t[0], &t[1]), &[&s, &v], &g);
    let p = s.softmax(2).unwrap();
    let p = p.quantize(Quantizer::QU8).unwrap().dequantize(Quantizer::QU8, p.shape()).unwrap();
    let weighted = g.matmul_t(&left(&v), false, true).unwrap().mul(&p).unwrap();
    let ds = weighted.sub(&p.mul(&weighted.sum(&[2], true).unwrap()).unwrap()).unwrap();
    close(&got[0], &ds.to_vec().unwrap(), 1e-6);
    close(&got[1], &p.matmul_t(&g, true, false).unwrap().to_vec().unwrap(), 1e-6);
    let exact = gradients(|t| t[0].softmax(2)?.matmul(&t[1]), &[&s, &v], &g);
    assert_ne!(bits(&got[0]), bits(&exact[0]));
}

#[test]
fn pruning_of_a_norm_shows_in_the_sums_over_features() {
    const ROWS: usize = 12;
    const LEN: usize = 20;
    const SHARE: f64 = 0.1;
    let (x, g) = (noise(ROWS * LEN, 1, 1.0), noise(ROWS * LEN, 2, 1.0));
    let scale: Vec<f32> = noise(LEN, 3, 0.3).into_iter().map(|v| 1.0 + v).collect();
    let (xt, gt) = (tensor(&x, &[ROWS, LEN]), tensor(&g, &[ROWS, LEN]));
    let (scale_t, shift) = (tensor(&scale, &[LEN]), tensor(&[0.0; LEN], &[LEN]));
    let exact = gradients(|t| t[0].layer_norm(Some(&scale_t), Some(&shift), 1e-12), &[&xt], &gt).remove(0);
    let pruned = gradients(|t| layer_norm_pruned(&t[0], &scale_t, &shift, 1e-12, SHARE), &[&xt], &gt).remove(0);
    let n = xt.layer_norm(None, None, 1e-12).unwrap().to_vec().unwrap();
    let mut order: Vec<usize> = (0..n.len()).collect();
    order.sort_by(|&i, &j| n[j].abs().total_cmp(&n[i].abs()).then(i.cmp(&j)));
    let mut left = vec![0.0f64; n.len()];
    order.iter().take(24).for_each(|&i| left[i] = f64::from(n[i]));
    let mut broken = 0;
    for r in 0..ROWS {
        let at = r * LEN..(r + 1) * LEN;
        let row: Vec<f64> = x[at.clone()].iter().map(|&v| f64::from(v)).collect();
        let mean = row.iter().sum::<f64>() / LEN as f64;
        let s = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / LEN as f64 + 1e-12).sqrt();
        let h: Vec<f64> = at.clone().map(|i| f64::from(g[i]) * f64::from(scale[i % LEN])).collect();
        let kept = &left[at.clone()];
        let mean_h = h.iter().sum::<f64>() / LEN as f64;
        let mean_hn = h.iter().zip(kept).map(|(a, b)| a * b).sum::<f64>() / LEN as f64;
        let want: Vec<f32> = (0..LEN).map(|c| ((h[c] - mean_h - mean_hn * kept[c]) / s) as f32).collect();
        close(&pruned[at.clone()], &want, 1e-5);
        let sum = |v: &[f32]| v[at.clone()].iter().map(|&v| f64::from(v)).sum::<f64>();
        assert!(sum(&exact).abs() < 1e-4, "{}", sum(&exact));
        let predicted = -mean_hn * kept.iter().sum::<f64>() / s;
        assert!((sum(&pruned) - predicted).abs() < 1e-4, "{} and {predicted}", sum(&pruned));
        broken += usize::from(predicted.abs() > 1e-2);
    }
    assert!(broken >= 4, "only {broken} rows show it");
}

#[test]
fn a_frozen_linear_layer_keeps_nothing_and_passes_the_same_gradient() {
    let (b, t, inputs, outputs) = (2, 17, 48, 96);
    let x = tensor(&noise(b * t * inputs, 1, 1.0), &[b, t, inputs]);
    let (w, bias) = (tensor(&noise(outputs * inputs, 2, 0.2), &[outputs, inputs]), tensor(&noise(outputs, 3, 1.0), &[outputs]));
    let g = tensor(&noise(b * t * outputs, 4, 1.0), &[b, t, outputs]);
    let run = |frozen: bool, gelu: bool, compact: Compact| {
        let (x, bias, w) = (x.leaf(), bias.leaf(), if frozen { w.clone() } else { w.leaf() });
        let ledger = Ledger::new(&[&w]);
        let y = ledger
            .watch(|| keep_compactly(&compact, || if gelu { x.gelu() } else { x.mul_scalar(1.0) }?.linear(&w, Some(&bias))))
            .unwrap();
        let (kept, rows) = (ledger.live(), ledger.rows());
        let wanted = GradOptions { allow_unused: true, ..GradOptions::default() };
        let grads = grad_with(&[&y], &[&x, &bias, &w], Some(&[&g]), wanted).unwrap();
        assert_eq!(grads[2].is_none(), frozen);
        assert_eq!(ledger.live(), 0);
        let grads: Vec<Vec<u32>> = grads[..2].iter().map(|g| bits(&g.as_ref().unwrap().to_vec().unwrap())).collect();
        (kept, grads, rows)
    };
    let (active, want, _) = run(false, false, Compact::default());
    let (frozen, got, rows) = run(true, false, Compact::default());
    assert_eq!((active - frozen, got), ((4 * b * t * inputs) as u64, want));
    assert_eq!((frozen, rows[0].bytes, rows[0].whole_bytes), (0, 0, (4 * b * t * inputs) as u64));
    // Behind GELU an active layer keeps a byte a value.
    let compact = Compact { after_activation: Some(Quantizer::Q8), ..Compact::default() };
    let (active, want, _) = run(false, true, compact);
    let (frozen, got, _) = run(true, true, compact);
    assert_eq!((active - frozen, got), ((b * t * inputs) as u64, want));
}

#[test]
fn a_step_of_the_schedule_by_hand() {
    let mut s = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0).unwrap().with_distances(vec![3.0, 1.0, 2.0, 4.0]).unwrap();
    assert_eq!(s.plan(), [0, 3]);
    s.observe(&[0.1, 0.2]).unwrap();
    assert_eq!(s.distances(), [0.1, 1.0, 2.0, 0.2]);
    assert_eq!(s.plan(), [1, 2]);
    assert!(s.observe(&[0.1]).is_err());
    s.observe(&[0.3, f64::NAN]).unwrap();
    assert_eq!((s.distances(), s.visits()), (&[0.1, 0.3, 0.0, 0.2][..], &[1, 1, 1, 1][..]));
    // Equal distances keep their order: the first are frozen.
    let mut s = Scheduler::new(3, 0.4, Schedule::Dynamics, 1.0, 0).unwrap().with_distances(vec![1.0; 3]).unwrap();
    assert_eq!((s.frozen(), s.plan()), (1, &[1, 2][..]));
    for (layers, rate, frozen) in [(99, 0.9, 89), (99, 0.95, 94), (99, 0.75, 74), (27, 0.9, 24), (27, 0.5, 13), (10, 0.7, 7)] {
        assert_eq!(Scheduler::new(layers, rate, Schedule::Dynamics, 1.0, 0).unwrap().frozen(), frozen);
    }
}

#[test]
fn the_distance_is_the_mean_relative_change() {
    let gpu = gpu();
    let mut names = Builder::new();
    let (a, b) = {
        let mut root = names.root();
        (root.param("a", &[3], Init::Zeros), root.param("b", &[70, 3], Init::Const(2.0)))
    };
    let arena = Arena::new(&gpu, &names, 0).unwrap();
    arena.set_value(a, &tensor(&[1.0, -2.0, 4.0], &[3])).unwrap();
    let both = RelativeChange::start(&arena, &[b, a]).unwrap();
    arena.set_value(a, &tensor(&[1.1, -2.0, 3.0], &[3])).unwrap();
    arena.set_value(b, &Tensor::full(&gpu, &[70, 3], 2.5).unwrap()).unwrap();
    close(&both.measure(&arena, 1e-8).unwrap(), &[0.25, 0.116_667], 1e-6);
    // Weights of zero are divided by the least, not by themselves.
    arena.set_value(a, &Tensor::zeros(&gpu, &[3]).unwrap()).unwrap();
    let zero = RelativeChange::start(&arena, &[a]).unwrap();
    arena.set_value(a, &tensor(&[0.0, 0.003, 0.0], &[3])).unwrap();
    close(&zero.measure(&arena, 0.01).unwrap(), &[0.1], 1e-6);
    assert!(zero.measure(&arena, 0.0).is_err() && RelativeChange::start(&arena, &[]).is_err());
}

#[test]
fn every_layer_is_trained_early() {
    let visited = |mut s: Scheduler| {
        let mut rng = Philox::new(1, 1);
        for _ in 0..9 {
            let changes: Vec<f64> = s.plan().to_vec().iter().map(|_| 0.01 + rng.uniform_f64()).collect();
            s.observe(&changes).unwrap();
        }
        s.visits().iter().filter(|&&v| v > 0).count()
    };
    for seed in 0..20 {
        assert_eq!(visited(Scheduler::new(27, 0.9, Schedule::Dynamics, 1e7, seed).unwrap()), 27);
    }
    let zero = Scheduler::new(27, 0.9, Schedule::Dynamics, 1.0, 0).unwrap().with_distances(vec![0.0; 27]).unwrap();
    assert!(visited(zero) < 27);
    // The same for a model, whose layers are the paper's eight a block and three in front.
    let gpu = gpu();
    let (model, mut arena) = split_vit(&gpu, 3);
    let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01)).unwrap();
    let mut slim = SlimFit::new(&arena, SlimConfig::default()).unwrap();
    assert_eq!((slim.layers().len(), slim.layers()[2]), (27, "patch_embed.weight"));
    let batch = pictures(&gpu, 2);
    for _ in 0..9 {
        assert_eq!(slim.plan(&mut arena).unwrap().active.len(), 3);
        let value = slim.forward(|| loss(&model, &arena, &batch)).unwrap();
        arena.backward(&value).unwrap();
        optimizer.step(&arena, 1e-3).unwrap();
        slim.observe(&arena).unwrap();
    }
    assert_eq!(slim.scheduler().visits(), [1; 27]);
}

#[test]
fn frozen_means_frozen() {
    let gpu = gpu();
    let (model, mut arena) = split_vit(&gpu, 1);
    let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01)).unwrap();
    let batch = pictures(&gpu, 2);
    let step = |arena: &Arena, optimizer: &mut Optimizer| {
        arena.backward(&loss(&model, arena, &batch).unwrap()).unwrap();
        optimizer.step(arena, 1e-3).unwrap();
    };
    for _ in 0..3 {
        step(&arena, &mut optimizer);
    }
    let state = |arena: &Arena, optimizer: &Optimizer| {
        let mut flat: Vec<Vec<f32>> = optimizer.state().iter().map(|(_, t)| t.to_vec().unwrap()).collect();
        flat.push(arena.values_flat().to_vec().unwrap());
        flat
    };
    let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() }).unwrap();
    let plan = slim.plan(&mut arena).unwrap();
    let before = state(&arena, &optimizer);
    step(&arena, &mut optimizer);
    let after = state(&arena, &optimizer);
    let mut moved = 0;
    for (i, e) in arena.table().entries().iter().enumerate() {
        let frozen = plan.frozen.contains(&e.name);
        let own = |all: &[Vec<f32>]| {
            let mut flat: Vec<u32> = [0, 1, 3].iter().flat_map(|&k| bits(&all[k][e.offset..][..e.len])).collect();
            flat.extend(bits(&all[2][8 + 4 * i..][..4]));
            flat
        };
        let still = own(&before) == own(&after);
        assert_eq!(still, frozen, "{}", e.name);
        assert_eq!(after[2][8 + 4 * i + 3], if frozen { 3.0 } else { 4.0 });
        assert!(!frozen || before[0][e.offset..][..e.len].iter().any(|m| *m != 0.0), "{} has no moment", e.name);
        moved += usize::from(!still);
    }
    assert!(moved > plan.active.len() && plan.frozen.len() == 5);
    // A layer that comes back goes on with its own count: its step is what a run without the others' steps gives.
    let (solo, mut twin) = {
        let mut names = Builder::new();
        let layer = Linear::new(&mut names.root().sub("l"), 4, 2, false);
        (layer, Arena::new(&gpu, &names, 1).unwrap())
    };
    let x = tensor(&noise(12, 9, 1.0), &[3, 4]);
    let run = |arena: &mut Arena, pauses: bool| {
        arena.reset().unwrap();
        let mut optimizer = Optimizer::new(arena, Rule::adamw(0.1)).unwrap();
        for i in 0..4 {
            if pauses && i == 2 {
                arena.freeze("*").unwrap();
                arena.zero_grad().unwrap();
                (0..5).for_each(|_| optimizer.step(arena, 0.1).unwrap());
                arena.unfreeze("*").unwrap();
            }
            arena.backward(&solo.forward(&Cx::train(arena), &x).unwrap().square().unwrap().mean_all().unwrap()).unwrap();
            optimizer.step(arena, 0.1).unwrap();
        }
        bits(&arena.values_flat().to_vec().unwrap())
    };
    assert_eq!(run(&mut twin, true), run(&mut twin, false));
}

const BLOCK: BlockShape = BlockShape { batch: 2, tokens: 17, width: 48, heads: 3, hidden: 192 };

#[test]
fn the_byte_formula() {
    let slim = SlimConfig::default().compact().unwrap().unwrap();
    let none = ActiveLayers::default();
    assert_eq!(BLOCK.bytes(&Compact::default(), ActiveLayers::ALL), 111_384);
    // 12,774 with two bytes of padding behind the weights of attention.
    assert_eq!(BLOCK.bytes(&slim, none), 12_776);
    let vit_b = BlockShape { batch: 1, tokens: 197, width: 768, heads: 12, hidden: 3072 };
    assert_eq!(vit_b.bytes(&Compact::default(), ActiveLayers::ALL), 11_545_776);
    assert_eq!(vit_b.bytes(&slim, none), 1_465_828);
    let small = BlockShape { batch: 50, ..BLOCK };
    assert_eq!(small.bytes(&Compact::default(), ActiveLayers::ALL), 2_784_600);
    // 43,350 weights take 43,352 bytes, two more than the formula's 319,430.
    assert_eq!(small.bytes(&slim, none), 319_432);
    let fc1 = ActiveLayers { fc1: true, ..none };
    let fc2 = ActiveLayers { fc2: true, ..none };
    let norm = ActiveLayers { norm1: true, ..none };
    assert_eq!(small.bytes(&slim, fc1) - small.bytes(&slim, none), 163_200);
    assert_eq!(small.bytes(&slim, fc2) - small.bytes(&slim, none), 163_200);
    // 3.2 E and the deviations, which the whole input makes superfluous.
    assert_eq!(small.bytes(&slim, norm) - small.bytes(&slim, none), 130_560 - 4 * 850);
}

/// Bytes that the ledger has for the tensors of [`BlockShape::predict`] in block 0, and for statistics of its norms.
fn counted(rows: &[SavedTensor]) -> (Vec<(&'static str, u64)>, u64) {
    let sum = |f: &dyn Fn(&str, &str, &str) -> bool| {
        let of = |r: &&SavedTensor| r.layer.strip_prefix("blocks.0.").is_some_and(|l| f(l, r.op, r.what));
        rows.iter().filter(of).map(|r| r.bytes).sum::<u64>()
    };
    let norm = |l: &'static str| sum(&|layer, op, what| (layer, op) == (l, "layer_norm") && what != "statistics");
    let linear = |l: &'static [&'static str]| sum(&|layer, op, what| l.contains(&layer) && (op, what) == ("linear", "input"));
    let mut products = rows.iter().filter(|r| r.layer == "blocks.0.proj" && r.op == "matmul").map(|r| r.bytes);
    let mut two = || products.next().unwrap() + products.next().unwrap();
    let (qk, pv) = (two(), two());
    let counted = vec![
        ("norm1", norm("norm1")),
        ("input of q, k and v", linear(&["q", "k", "v"])),
        ("queries and keys", qk),
        ("probabilities", sum(&|_, op, _| op == "masked_softmax")),
        ("values", pv),
        ("input of proj", linear(&["proj"])),
        ("norm2", norm("norm2")),
        ("input of fc1", linear(&["fc1"])),
        ("input of gelu", sum(&|_, op, _| op == "gelu")),
        ("input of fc2", linear(&["fc2"])),
    ];
    (counted, sum(&|_, _, what| what == "statistics"))
}

#[test]
fn the_engines_account_is_the_prediction_tensor_by_tensor() {
    // A device of its own, so that the pool holds nothing else.
    let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
    let batch = pictures(&gpu, 2);
    let none = ActiveLayers::default();
    let sets: [(&[&str], ActiveLayers); 9] = [
        (&["norm1", "q", "k", "v", "proj", "norm2", "fc1", "fc2"], ActiveLayers::ALL),
        (&[], none),
        (&["norm1"], ActiveLayers { norm1: true, ..none }),
        (&["k"], ActiveLayers { qkv: true, ..none }),
        (&["q", "v"], ActiveLayers { qkv: true, ..none }),
        (&["proj"], ActiveLayers { proj: true, ..none }),
        (&["norm2"], ActiveLayers { norm2: true, ..none }),
        (&["fc1"], ActiveLayers { fc1: true, ..none }),
        (&["fc2"], ActiveLayers { fc2: true, ..none }),
    ];
    for (names, active) in sets {
        for compress in [true, false] {
            let (model, mut arena) = split_vit(&gpu, 1);
            let config = options(Schedule::Nothing);
            let config = if compress { config } else { config.uncompressed() };
            let how = config.compact().unwrap().unwrap_or_default();
            let mut slim = SlimFit::new(&arena, config).unwrap();
            slim.plan(&mut arena).unwrap();
            for name in names {
                arena.unfreeze(&format!("blocks.0.{name}.weight")).unwrap();
            }
            // Bytes in use before the pass, and after it with its loss alone.
            let before = gpu.memory().live;
            let value = slim.forward(|| loss(&model, &arena, &batch)).unwrap();
            let held = gpu.memory().live - before;
            let memory = slim.memory();
            let (tensors, statistics) = counted(&memory.tensors);
            assert_eq!(tensors, BLOCK.predict(&how, active), "{names:?}, compression {compress}");
            assert_eq!(statistics, BLOCK.statistics(&how, active));
            // The pool holds what the account says, in its sizes, and the loss, whose buffer is the smallest.
            let listed: u64 = memory.tensors.iter().filter(|t| t.live).map(|t| t.buffer_bytes).sum();
            let batch_bytes: u64 = memory.tensors.iter().filter(|t| t.op == "conv2d").map(|t| t.buffer_bytes).sum();
            assert_eq!(held, listed - batch_bytes + 256, "{names:?}, compression {compress}");
            // What the baseline would keep is known without running it.
            let whole = BLOCK.bytes(&Compact::default(), ActiveLayers::ALL) + 16 * 34;
            let block: u64 = memory.tensors.iter().filter(|t| t.layer.starts_with("blocks.")).map(|t| t.whole_bytes).sum();
            assert_eq!(block, whole, "{names:?}, compression {compress}");
            assert_eq!(memory.peak, memory.kept());
            arena.backward(&value).unwrap();
            assert_eq!(slim.keeper().live(), 0);
        }
    }
}

#[test]
fn mistakes_are_errors() {
    let gpu = gpu();
    let (_, mut arena) = split_vit(&gpu, 1);
    let error = |config: SlimConfig| SlimFit::new(&arena, config).err().unwrap().to_string();
    for freeze in [1.0, -0.1, f64::NAN] {
        let text = error(SlimConfig { freeze, ..SlimConfig::default() });
        assert!(text.contains("freezing rate") && text.contains("less than 1"), "{text}");
    }
    for keep_ln in [0.0, 1.1, f64::NAN] {
        assert!(error(SlimConfig { keep_ln, ..SlimConfig::default() }).contains("at most 1"));
    }
    assert!(error(SlimConfig { gelu_bits: 5, ..SlimConfig::default() }).contains("4, 8, or 32"));
    assert!(error(SlimConfig { probs_bits: 16, ..SlimConfig::default() }).contains("weights of attention"));
    assert!(error(SlimConfig { schedulable: |_| false, ..SlimConfig::default() }).contains("no layer"));
    let mut slim = SlimFit::new(&arena, SlimConfig::default()).unwrap();
    assert!(slim.observe(&arena).unwrap_err().to_string().contains("without a plan"));
    slim.plan(&mut arena).unwrap();
    assert!(tensor(&[1.0], &[1]).quantize(Quantizer { int: 3, frac: 3, unsigned: false }).is_err());
    assert!(tensor(&[1.0], &[1]).quantize(Quantizer::Q8).unwrap().dequantize(Quantizer::Q8, &[5]).is_err());
    assert_eq!(tensor(&[1.0], &[1]).quantize(Quantizer::Q8).unwrap().dtype(), DType::U32);
    // Gradients of gradients do not go through what is not there.
    let x = tensor(&[0.3, -0.7], &[2]).leaf();
    let y = gelu_q4(&x).unwrap().sum_all().unwrap();
    let text = shadegrad::autograd::grad_create_graph(&y, &[&x]).unwrap_err().to_string();
    assert!(text.contains("gelu") && text.contains("keep_compactly"), "{text}");
    assert!(grad(&gelu_q4(&x).unwrap().sum_all().unwrap(), &[&x]).is_ok());
}

#[test]
fn layers_that_a_user_froze_stay_frozen_and_any_model_works() {
    let gpu = gpu();
    let spec = crate::Spec { height: 8, width: 8, channels: 1, classes: 5 };
    let mut names = Builder::new();
    let model = crate::create("vit_micro", &mut names.root(), &spec).unwrap();
    let mut arena = Arena::new(&gpu, &names, 0).unwrap();
    arena.freeze("patch_embed.*").unwrap();
    let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01)).unwrap();
    let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.75, ..SlimConfig::default() }).unwrap();
    let layers = slim.layers().len();
    // Two blocks of six weights, the class token and the positions.
    assert_eq!(layers, 14);
    let batch = pictures(&gpu, 4);
    for _ in 0..3 {
        let plan = slim.plan(&mut arena).unwrap();
        assert_eq!((plan.active.len(), plan.frozen.len()), (4, 10));
        assert!(arena.is_frozen("patch_embed.proj.weight").unwrap() && !arena.is_frozen("head.weight").unwrap());
        let value = slim.forward(|| loss(model.as_ref(), &arena, &batch)).unwrap();
        arena.backward(&value).unwrap();
        optimizer.step(&arena, 1e-3).unwrap();
        slim.observe(&arena).unwrap();
    }
    let memory = slim.memory();
    assert!(memory.kept() * 3 < memory.whole(), "{} of {}", memory.kept(), memory.whole());
    assert!(memory.by_category().iter().any(|s| s.name == "gelu input" && s.whole == 8 * s.kept));
    assert_eq!(memory.by_layer().iter().map(|s| s.kept).sum::<u64>(), memory.kept());
}
