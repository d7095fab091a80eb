//! The tape: higher orders, hooks, freeing, errors, depth.

use shadegrad::autograd::{
    GradOptions, checkpoint, custom, grad, grad_create_graph, grad_with, hvp, no_grad, trace, vjp,
};
use shadegrad::{Gpu, Options, Result, Tensor};

use super::gpu;

fn leaf(values: &[f32]) -> Tensor {
    Tensor::from_slice(&gpu(), values, &[values.len()]).unwrap().leaf()
}

/// Sum by broadcasting's adjoint, so that these tests stand on elementwise operations alone.
fn total(x: &Tensor) -> Result<Tensor> {
    x.sum_to(&[])
}

fn close(got: &Tensor, want: &[f32]) {
    let got = got.to_vec().unwrap();
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 2e-5 * w.abs().max(1.0), "{got:?} against {want:?}");
    }
}

#[test]
fn third_derivative_of_a_power() {
    let x = leaf(&[2.0, -1.0]);
    let y = total(&x.mul(&x).unwrap().mul(&x).unwrap().mul(&x).unwrap()).unwrap();
    let d1 = grad_create_graph(&y, &[&x]).unwrap().remove(0);
    close(&d1, &[32.0, -4.0]);
    let d2 = grad_create_graph(&total(&d1).unwrap(), &[&x]).unwrap().remove(0);
    close(&d2, &[48.0, 12.0]);
    let d3 = grad(&total(&d2).unwrap(), &[&x]).unwrap().remove(0);
    close(&d3, &[48.0, -24.0]);
}

#[test]
fn a_value_used_twice_adds_its_gradients() {
    let x = leaf(&[3.0]);
    let y = x.exp().unwrap();
    let z = total(&y.mul(&y).unwrap().add(&y).unwrap()).unwrap();
    close(&grad(&z, &[&x]).unwrap()[0], &[2.0 * 6.0f32.exp() + 3.0f32.exp()]);
}

#[test]
fn gradients_of_intermediate_values() {
    let x = leaf(&[1.0, 2.0]);
    let y = x.square().unwrap();
    let z = total(&y.mul_scalar(3.0).unwrap()).unwrap();
    let g = grad(&z, &[&y, &x]).unwrap();
    close(&g[0], &[3.0, 3.0]);
    close(&g[1], &[6.0, 12.0]);
}

#[test]
fn hessian_vector_product_and_vector_jacobian_product() {
    let x = leaf(&[1.0, 2.0]);
    let v = Tensor::from_slice(&gpu(), &[1.0, -1.0], &[2]).unwrap();
    // f = x0^3 x1 by a product of all; H = [[6 x0 x1, 3 x0^2], [3 x0^2, 0]] through two views of one vector is awkward
    // without slices, so f = sum x^4 with H = diag(12 x^2).
    let f = total(&x.square().unwrap().square().unwrap()).unwrap();
    close(&hvp(&f, &[&x], &[&v]).unwrap()[0], &[12.0, -48.0]);
    let y = x.exp().unwrap();
    close(&vjp(&y, &[&x], &v).unwrap()[0], &[1.0f32.exp(), -(2.0f32.exp())]);
    let linear = total(&x.mul_scalar(2.0).unwrap()).unwrap();
    close(&hvp(&linear, &[&x], &[&v]).unwrap()[0], &[0.0, 0.0]);
}

#[test]
fn the_graph_is_freed_by_backward_unless_kept() {
    let x = leaf(&[1.0]);
    let y = total(&x.exp().unwrap()).unwrap();
    let keep = GradOptions { retain_graph: true, ..GradOptions::default() };
    grad_with(&[&y], &[&x], None, keep).unwrap();
    grad(&y, &[&x]).unwrap();
    let text = grad(&y, &[&x]).unwrap_err().to_string();
    assert!(text.contains("freed") && text.contains("retain_graph"), "{text}");
}

#[test]
fn memory_falls_as_backward_goes_by() {
    let gpu = shadegrad::Gpu::new(shadegrad::Options::from_env().unwrap()).unwrap();
    let x = Tensor::ones(&gpu, &[1 << 16]).unwrap().leaf();
    let mut y = x.clone();
    for _ in 0..20 {
        y = y.square().unwrap();
    }
    let loss = total(&y).unwrap();
    drop(y);
    let before = gpu.memory().live;
    let g = grad(&loss, &[&x]).unwrap();
    drop(g);
    // The loss is still held; what the forward pass saved is not.
    assert!(gpu.memory().live <= before - 15 * (1 << 18), "{:?}", gpu.memory());
}

#[test]
fn missing_gradients_are_errors_that_name_the_cause() {
    let x = leaf(&[1.5]);
    let y = total(&x.floor().unwrap()).unwrap();
    let text = grad(&y, &[&x]).unwrap_err().to_string();
    assert!(text.contains("floor"), "{text}");
    let z = total(&x.floor().unwrap().add(&leaf(&[1.0])).unwrap()).unwrap();
    let text = grad(&z, &[&x]).unwrap_err().to_string();
    assert!(text.contains("does not depend on input 0") && text.contains("floor"), "{text}");
    let unused = GradOptions { allow_unused: true, ..GradOptions::default() };
    assert!(grad_with(&[&z], &[&x], None, unused).unwrap()[0].is_none());
    let constant = x.detach();
    let text = grad(&total(&x).unwrap(), &[&constant]).unwrap_err().to_string();
    assert!(text.contains("constant") && text.contains("leaf"), "{text}");
    let text = grad(&x.exp().unwrap().add(&leaf(&[1.0, 2.0])).unwrap(), &[&x]).unwrap_err().to_string();
    assert!(text.contains("not a scalar"), "{text}");
    let hidden = no_grad(|| total(&x.exp().unwrap())).unwrap();
    assert!(grad(&hidden, &[&x]).unwrap_err().to_string().contains("no_grad"));
}

#[test]
fn hooks_see_and_change_gradients() {
    use std::sync::{Arc, Mutex};
    let x = leaf(&[1.0, 2.0]);
    let y = x.square().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    y.on_grad(move |g| {
        log.lock().unwrap().push(g.to_vec()?);
        Ok(Some(g.mul_scalar(10.0)?))
    })
    .unwrap();
    let g = grad(&total(&y).unwrap(), &[&x]).unwrap();
    assert_eq!(*seen.lock().unwrap(), vec![vec![1.0, 1.0]]);
    close(&g[0], &[20.0, 40.0]);
    assert!(x.detach().on_grad(|_| Ok(None)).is_err());
}

#[test]
fn straight_through_and_custom_functions() {
    let x = leaf(&[0.2, 0.7, 1.6]);
    let hard = x.round().unwrap();
    let y = x.straight_through(&hard).unwrap();
    close(&y, &[0.0, 1.0, 2.0]);
    close(&grad(&total(&y.square().unwrap()).unwrap(), &[&x]).unwrap()[0], &[0.0, 2.0, 4.0]);

    // A cube with a backward rule of its own, differentiable again.
    let cube = |x: &Tensor| {
        let saved = x.clone();
        custom(
            "cube",
            &[x],
            |v| v[0].square()?.mul(v[0]),
            move |_, g| Ok(vec![Some(g.mul(&saved.square()?.mul_scalar(3.0)?)?)]),
        )
    };
    let y = total(&cube(&x).unwrap()).unwrap();
    let d1 = grad_create_graph(&y, &[&x]).unwrap().remove(0);
    close(&d1, &[0.12, 1.47, 7.68]);
    close(&grad(&total(&d1).unwrap(), &[&x]).unwrap()[0], &[1.2, 4.2, 9.6]);
}

#[test]
fn checkpoint_gives_the_same_gradients_to_second_order() {
    let f = |v: &[Tensor]| v[0].mul(&v[1])?.sigmoid()?.mul(&v[0]);
    for checkpointed in [false, true] {
        let (x, w) = (leaf(&[0.3, -0.8]), leaf(&[1.1, 0.4]));
        // w2 depends on x: the path through it must count once.
        let w2 = w.mul(&x).unwrap();
        let y = if checkpointed { checkpoint(&[&x, &w2], f).unwrap() } else { f(&[x.clone(), w2.clone()]).unwrap() };
        let g = grad_create_graph(&total(&y).unwrap(), &[&x, &w]).unwrap();
        let h = grad(&total(&g[0].mul(&g[1]).unwrap()).unwrap(), &[&x, &w]).unwrap();
        // y = x s(w x^2): values from f64 differentiation by hand with s = sigmoid, s1 = s', s2 = s'', s3 = s'''.
        let want = |x: f64, w: f64| {
            let s = 1.0 / (1.0 + (-w * x * x).exp());
            let s1 = s * (1.0 - s);
            let s2 = s1 * (1.0 - 2.0 * s);
            let s3 = s2 * (1.0 - 2.0 * s) - 2.0 * s1 * s1;
            let (gx, gw) = (s + 2.0 * w * x * x * s1, x.powi(3) * s1);
            let gxx = 6.0 * w * x * s1 + 4.0 * w * w * x.powi(3) * s2;
            let gxw = 3.0 * x * x * s1 + 2.0 * w * x.powi(4) * s2;
            let gww = x.powi(5) * s2;
            let _ = s3;
            (gx, gw, gxx * gw + gx * gxw, gxw * gw + gx * gww)
        };
        let all: Vec<_> = [(0.3, 1.1), (-0.8, 0.4)].iter().map(|&(x, w)| want(x, w)).collect();
        close(&g[0], &all.iter().map(|t| t.0 as f32).collect::<Vec<_>>());
        close(&g[1], &all.iter().map(|t| t.1 as f32).collect::<Vec<_>>());
        close(&h[0], &all.iter().map(|t| t.2 as f32).collect::<Vec<_>>());
        close(&h[1], &all.iter().map(|t| t.3 as f32).collect::<Vec<_>>());
    }
}

#[test]
fn deep_graphs_do_not_overflow_the_stack() {
    let run = || {
        let x = leaf(&[0.0]);
        let mut y = x.clone();
        for _ in 0..20_000 {
            y = y.add_scalar(1e-3).unwrap();
        }
        let g = grad(&y, &[&x]).unwrap();
        close(&g[0], &[1.0]);
        // And dropped without a backward pass.
        let mut z = x.clone();
        for _ in 0..20_000 {
            z = z.square().unwrap();
        }
        drop(z);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_trace_shows_operations_with_inputs_and_graph() {
    let x = leaf(&[-1.0, 2.0]);
    let (y, seen) = trace(&[], || x.mul_scalar(3.0)?.relu()?.add(&x)).unwrap();
    assert_eq!(seen.iter().map(|t| t.op).collect::<Vec<_>>(), ["mul_scalar", "relu", "add"]);
    close(&seen[1].output, &[0.0, 6.0]);
    assert!(seen[1].inputs[0].storage().same_buffer(seen[0].output.storage()));
    // What was seen is in the graph: d/dx of the ReLU's output alone.
    close(&grad(&total(&seen[1].output).unwrap(), &[&x]).unwrap()[0], &[0.0, 3.0]);
    close(&y, &[-1.0, 8.0]);
    // By name, without recording, nested, and nothing afterwards.
    let (inner, outer) = trace(&["relu", "sign"], || {
        let (_, inner) = no_grad(|| trace(&["exp"], || x.exp()?.relu()))?;
        x.sign()?.neg()?;
        Ok(inner)
    })
    .unwrap();
    assert_eq!((inner.len(), inner[0].op), (1, "exp"));
    assert_eq!(outer.iter().map(|t| t.op).collect::<Vec<_>>(), ["sign"]);
    assert!(trace(&[], || x.matmul(&x)).is_err());
    assert!(trace(&[], || Ok(())).unwrap().1.is_empty());
}

#[test]
fn attention_shows_its_weights_to_a_trace() {
    let noise =
        |i: u64, shape: &[usize]| Tensor::normal(&gpu(), shape, shadegrad::rng::Stream::new(7, i), 0.0, 1.0).unwrap();
    let [q, k, v] = [0, 1, 2].map(|i| noise(i, &[2, 3, 5, 16]));
    let attend = || q.sdpa(&k, &v, shadegrad::Attention::default());
    let (y, seen) = no_grad(|| trace(&["masked_softmax"], attend)).unwrap();
    assert_eq!((seen.len(), seen[0].output.shape()), (1, &[2, 3, 5, 5][..]));
    let rows = seen[0].output.sum(&[3], false).unwrap().to_vec().unwrap();
    assert!(rows.iter().all(|r| (r - 1.0).abs() < 1e-5));
    // The kernel that never holds them gives the same.
    close(&attend().unwrap(), &y.to_vec().unwrap());
    let map = noise(3, &[1, 4, 4, 48]);
    let windows = shadegrad::window::Windows { heads: 2, window: 2, shift: 0, scale: None };
    let (y, seen) = no_grad(|| trace(&["masked_softmax"], || map.window_attention(None, windows))).unwrap();
    assert_eq!(seen.len(), 1);
    close(&map.window_attention(None, windows).unwrap(), &y.to_vec().unwrap());
}

/// Bytes that a training step of attention over `tokens` tokens takes at most, beside its operands and gradients' seed.
fn attention_peak(tokens: usize, recompute: bool) -> u64 {
    // One of its own: others' memory does not count.
    let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
    let x = Tensor::full(&gpu, &[1, 1, tokens, 16], 0.1).unwrap().leaf();
    let dy = Tensor::full(&gpu, &[1, 1, tokens, 16], 1.0).unwrap();
    let before = gpu.memory().live;
    gpu.reset_peak();
    let options = shadegrad::Attention { recompute: Some(recompute), ..Default::default() };
    let y = x.sdpa(&x, &x, options).unwrap();
    grad_with(&[&y], &[&x], Some(&[&dy]), GradOptions::default()).unwrap();
    gpu.memory().peak - before
}

#[test]
fn recomputed_attention_never_holds_its_weights() {
    // Forward and backward: twice the tokens take twice the memory, not four times, and less than one matrix of weights.
    let [half, all] = [512, 1024].map(|tokens| attention_peak(tokens, true));
    assert!(all <= 2 * half + 4096, "{half} bytes for 512 tokens, {all} for 1024");
    assert!(all < 4 * 1024 * 1024, "{all}");
    assert!(attention_peak(1024, false) >= 2 * 4 * 1024 * 1024);
}
