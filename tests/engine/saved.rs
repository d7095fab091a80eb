//! What backward rules keep: nothing that no gradient needs, few bits where asked, and the ledger that says so.

use shadegrad::autograd::{
    Compact, Form, GradOptions, Ledger, grad, grad_create_graph, grad_with, keep_compactly, no_grad,
};
use shadegrad::nn::{Activation, Arena, Builder, Cx, Init, Linear, Mlp, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::{Conv2d, Error, Precision, Quantizer, Result, Tensor};

use super::gpu;

fn noise(shape: &[usize], stream: u64) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Philox::new(11, stream).fill_normal(&mut values, 0.0, 1.0);
    Tensor::from_slice(&gpu(), &values, shape).unwrap()
}

/// Bytes of what `f` keeps, named.
fn kept(f: impl FnOnce() -> Result<Tensor>) -> Vec<(&'static str, &'static str, u64)> {
    let ledger = Ledger::new(&[]);
    let y = ledger.watch(f).unwrap();
    let rows = ledger.rows().into_iter().filter(|r| r.live).map(|r| (r.op, r.what, r.bytes)).collect();
    assert_eq!(ledger.live(), ledger.peak());
    drop(y);
    assert_eq!(ledger.live(), 0);
    rows
}

#[test]
fn an_operand_is_kept_for_the_gradient_of_the_other_alone() {
    let (a, b) = (noise(&[6, 4], 1), noise(&[4, 5], 2));
    assert_eq!(kept(|| a.leaf().matmul(&b)), [("matmul", "right", 80)]);
    assert_eq!(kept(|| a.matmul(&b.leaf())), [("matmul", "left", 96)]);
    assert_eq!(kept(|| a.leaf().matmul(&b.leaf())).len(), 2);
    assert_eq!(kept(|| a.leaf().mul(&noise(&[4], 3))), [("mul", "right", 16)]);
    assert_eq!(kept(|| noise(&[4], 3).div(&a.leaf())).len(), 2);
    assert_eq!(kept(|| a.leaf().div(&noise(&[4], 3))), [("div", "right", 16)]);
    let (w, bias) = (noise(&[5, 4], 4), noise(&[5], 5).leaf());
    assert_eq!(kept(|| a.linear(&w, Some(&bias))), []);
    assert_eq!(kept(|| a.linear(&w.leaf(), None)), [("linear", "input", 96)]);
    assert_eq!(kept(|| a.leaf().linear(&w, Some(&bias))), [("linear", "weight", 80)]);
    let (x, k) = (noise(&[1, 4, 4, 2], 6), noise(&[3, 1, 1, 2], 7));
    assert_eq!(kept(|| x.leaf().conv2d(&k, None, Conv2d::default())), [("conv2d", "weight", 24)]);
    assert_eq!(kept(|| x.conv2d(&k.leaf(), None, Conv2d::default())), [("conv2d", "input", 128)]);
    // A norm whose shift alone is trained needs nothing.
    assert_eq!(kept(|| a.layer_norm(Some(&noise(&[4], 8)), Some(&noise(&[4], 9).leaf()), 1e-5)), []);
    assert_eq!(kept(|| no_grad(|| a.leaf().matmul(&b.leaf()))), []);
    // Gradients are those of before, and can be differentiated as far as the constants allow.
    let (x, w) = (a.leaf(), noise(&[5, 4], 4));
    let y = x.linear(&w, None).unwrap().square().unwrap().sum_all().unwrap();
    let first = grad_create_graph(&y, &[&x]).unwrap().remove(0);
    let second = grad(&first.square().unwrap().sum_all().unwrap(), &[&x]).unwrap().remove(0);
    // y = |x W^T|^2: the gradient is 2 x M with M = W^T W, and that of its square 8 x M M.
    let m = w.matmul_t(&w, true, false).unwrap();
    let want = a.matmul(&m).unwrap().matmul(&m).unwrap().mul_scalar(8.0).unwrap().to_vec().unwrap();
    for (g, e) in second.to_vec().unwrap().iter().zip(&want) {
        assert!((g - e).abs() <= 1e-4 * (1.0 + e.abs()), "{g} and {e}");
    }
}

#[test]
fn the_ledger_counts_memory_once_and_names_layers() {
    let gpu = gpu();
    let mut names = Builder::new();
    let mlp = Mlp::new(&mut names.root().sub("mlp"), 8, 16, Activation::Gelu, 0.1);
    let mut arena = Arena::new(&gpu, &names, 0).unwrap();
    let x = noise(&[5, 8], 1);
    let ledger = Ledger::new(&[arena.values_flat()]);
    let watch = |arena: &Arena| {
        ledger.clear();
        ledger.watch(|| mlp.forward(&Cx::train(arena).seeded(1, 2), &x)).unwrap()
    };
    let y = watch(&arena);
    let rows: Vec<_> = ledger.rows().into_iter().map(|r| (r.layer, r.op, r.what, r.bytes)).collect();
    let row = |layer: &str, op, bytes| (layer.to_string(), op, "input", bytes);
    assert_eq!(rows, [row("mlp.fc1", "linear", 160), row("mlp.fc2", "gelu", 320), row("mlp.fc2", "linear", 320)]);
    drop(y);
    // Two layers on one input keep it once; a frozen one spares it, and the baseline still counts it once.
    let two =
        |a: &Tensor, b: &Tensor| kept(|| x.linear(a, None)?.add(&x.linear(b, None)?)).iter().map(|r| r.2).sum::<u64>();
    let w = noise(&[8, 8], 2);
    assert_eq!((two(&w.leaf(), &w.leaf()), two(&w.leaf(), &w)), (160, 160));
    arena.freeze("mlp.fc2.weight").unwrap();
    let _y = watch(&arena);
    let last = ledger.rows().pop().unwrap();
    assert_eq!((last.form, last.bytes, last.whole_bytes, last.live), (Form::Spared, 0, 320, false));
    // Behind dropout it is still the layer after the activation, and keeps a byte a value when it is trained.
    arena.unfreeze("*").unwrap();
    ledger.clear();
    let how = Compact { after_activation: Some(Quantizer::Q8), ..Compact::default() };
    let _z = ledger.watch(|| keep_compactly(&how, || mlp.forward(&Cx::train(&arena).seeded(1, 2), &x))).unwrap();
    let last = ledger.rows().pop().unwrap();
    assert_eq!((last.form, last.bytes, last.whole_bytes), (Form::Packed(Quantizer::Q8), 80, 320));
}

#[test]
fn few_bits_are_asked_for_in_their_scope_alone() {
    let x = noise(&[3, 8], 1).leaf();
    let how = Compact { activation: Some(Quantizer::Q4), product: Some(Quantizer::Q8), ..Compact::default() };
    assert_eq!(kept(|| keep_compactly(&how, || x.silu())), [("silu", "input", 12)]);
    assert_eq!(kept(|| x.silu()), [("silu", "input", 96)]);
    // Also after an error inside.
    let failed = keep_compactly(&how, || Err::<(), _>(Error::value("test", "no")));
    assert!(failed.is_err());
    assert_eq!(kept(|| x.gelu()), [("gelu", "input", 96)]);
    // Leaves are parameters: products with them are layers, and those are exact. So is the sign that ReLU needs.
    let w = noise(&[8, 2], 2).leaf();
    assert_eq!(kept(|| keep_compactly(&how, || x.matmul(&w))), [("matmul", "left", 96), ("matmul", "right", 64)]);
    assert_eq!(kept(|| keep_compactly(&how, || x.relu())), [("relu", "input", 96)]);
    for wrong in [
        Compact { activation: Some(Quantizer { int: 9, frac: 9, unsigned: false }), ..Compact::default() },
        Compact { norm_share: Some(0.0), ..Compact::default() },
        Compact { norm_share: Some(f64::NAN), ..Compact::default() },
    ] {
        assert!(keep_compactly(&wrong, || x.gelu()).is_err());
    }
    // Weights of attention behind dropout are not held to the range of queries and keys.
    let p = noise(&[2, 4, 4], 3).leaf().softmax(2).unwrap().dropout(0.5, shadegrad::rng::Stream::new(1, 1)).unwrap();
    let v = noise(&[2, 4, 3], 4).leaf().mul_scalar(1.0).unwrap();
    let rows = kept(|| keep_compactly(&how, || p.matmul(&v)));
    assert_eq!(rows, [("matmul", "left", 128), ("matmul", "right", 24)]);
}

#[test]
fn a_rule_without_its_input_says_so() {
    let (x, w) = (noise(&[3, 4], 1).leaf(), noise(&[2, 4], 2));
    let y = x.linear(&w, None).unwrap();
    let options = GradOptions { allow_unused: true, ..GradOptions::default() };
    let g = Tensor::ones(&gpu(), &[3, 2]).unwrap();
    assert!(grad_with(&[&y], &[&w], Some(&[&g]), options).unwrap()[0].is_none());
    let how = Compact { norm_share: Some(0.5), ..Compact::default() };
    let y = keep_compactly(&how, || x.layer_norm(None, None, 1e-5)).unwrap().square().unwrap().sum_all().unwrap();
    let text = grad_create_graph(&y, &[&x]).unwrap_err().to_string();
    assert!(text.contains("layer_norm") && text.contains("outside `keep_compactly`"), "{text}");
}

#[test]
fn frozen_parameters_count_no_steps() {
    let gpu = gpu();
    let mut names = Builder::new();
    let layer = Linear::with_init(&mut names.root().sub("l"), 4, 3, Init::FanIn(4), Some(Init::Zeros));
    for rule in [Rule::adamw(0.1), Rule::amsgrad(), Rule::sgd(0.01)] {
        let mut arena = Arena::new(&gpu, &names, 0).unwrap();
        let weight = arena.params().id("l.weight").unwrap();
        let mut optimizer = Optimizer::new(&arena, rule).unwrap();
        let x = noise(&[5, 4], 1);
        // The weight's gradient does not depend on anything that moves, so its steps are those of a run of its own.
        let run = |arena: &mut Arena, optimizer: &mut Optimizer, schedule: &[bool]| {
            for &frozen in schedule {
                arena.freeze_only(&[weight][..usize::from(frozen)]).unwrap();
                arena.backward(&layer.forward(&Cx::train(arena), &x).unwrap().sum_all().unwrap()).unwrap();
                optimizer.step(arena, 0.01).unwrap();
            }
            arena.params().get(weight).to_vec().unwrap()
        };
        let paused = run(&mut arena, &mut optimizer, &[true, false, true, true, false, false]);
        arena.freeze_only(&[]).unwrap();
        arena.reset().unwrap();
        let mut fresh = Optimizer::new(&arena, rule).unwrap();
        assert_eq!(paused, run(&mut arena, &mut fresh, &[false; 3]), "{rule:?}");
        assert_eq!(optimizer.report().unwrap().applied, 6);
    }
}

#[test]
fn few_bits_and_halves_go_together() {
    let gpu = gpu();
    let mut names = Builder::new();
    let mlp = Mlp::new(&mut names.root().sub("mlp"), 8, 16, Activation::Gelu, 0.0);
    let arena = Arena::new(&gpu, &names, 0).unwrap();
    let x = noise(&[5, 8], 1);
    let how = Compact { activation: Some(Quantizer::Q4), after_activation: Some(Quantizer::Q8), ..Compact::default() };
    let run = |how: &Compact| {
        let ledger = Ledger::new(&[arena.values_flat()]);
        let y = Precision::Mixed.scope(|| ledger.watch(|| keep_compactly(how, || mlp.forward(&Cx::train(&arena), &x))));
        arena.backward(&y.unwrap().square().unwrap().sum_all().unwrap()).unwrap();
        let kept = ledger.rows().iter().filter(|r| r.what == "input").map(|r| r.bytes).collect::<Vec<_>>();
        (kept, arena.grads_flat().to_vec().unwrap())
    };
    // Halves of both layers' inputs and of GELU's; then half a byte and a byte a value where bits were asked for.
    let (whole, exact) = run(&Compact::default());
    let (few, bent) = run(&how);
    assert_eq!((whole, few), (vec![80, 160, 160], vec![80, 40, 80]));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let cosine = dot(&exact, &bent) / (dot(&exact, &exact) * dot(&bent, &bent)).sqrt();
    assert!(exact != bent && cosine > 0.9, "{cosine}");
}
