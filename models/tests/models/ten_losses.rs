//! Ten training steps from fixed weights on fixed real images, against a reference computed in double precision by
//! another framework (`scripts/reference/ten_losses.py`): losses to 1e-4, every gradient of the first step.

use std::path::PathBuf;

use serde_json::Value;
use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::{CrossEntropy, Tensor};
use shadegrad_models::{CifarResNet, Spec, Vit, VitConfig};

use super::gpu;
use super::weights_formula::formula;

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ten_losses");
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The sixteen images, normalised.
fn images(config: &Value) -> Tensor {
    let (mean, std) = (numbers(&config["mean"]), numbers(&config["std"]));
    let bytes = fixture("images.bin");
    let data: Vec<f32> =
        bytes.iter().enumerate().map(|(i, &b)| ((f64::from(b) / 255.0 - mean[i % 3]) / std[i % 3]) as f32).collect();
    Tensor::from_slice(&gpu(), &data, &[16, 32, 32, 3]).unwrap()
}

/// Puts the reference's initial weights in place of the model's own.
fn load_formula(arena: &Arena, config: &Value) {
    let state: Vec<(String, Vec<usize>, Vec<f32>)> = config["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let name = p["name"].as_str().unwrap();
            let shape: Vec<usize> = numbers(&p["shape"]).iter().map(|&d| d as usize).collect();
            let bound = match (p["fan_in"].as_f64(), p["gain_squared"].as_f64()) {
                (Some(fan), Some(gain)) => (3.0 / fan).sqrt() * gain.sqrt(),
                _ => p["bound"].as_f64().unwrap(),
            };
            let values = formula(name, shape.iter().product(), bound, p["offset"].as_f64().unwrap());
            (name.to_string(), shape, values)
        })
        .collect();
    let own = arena.buffers().iter().map(|(n, t)| (n.to_string(), t.shape().to_vec(), t.to_vec().unwrap()));
    arena.load(&state.into_iter().chain(own).collect::<Vec<_>>()).unwrap();
}

/// Trains and compares; returns the arena after the ten steps.
fn check<M: Module>(name: &str, make: impl FnOnce(&mut Scope<'_>) -> M, rule: Rule) -> Arena {
    let config: Value = serde_json::from_slice(&fixture(&format!("{name}.json"))).unwrap();
    let mut builder = Builder::new();
    let model = make(&mut builder.root());
    let arena = Arena::new(&gpu(), &builder, 0).unwrap();
    load_formula(&arena, &config);
    let mut optimizer = Optimizer::new(&arena, rule).unwrap();
    let lr = config["lr"].as_f64().unwrap() as f32;
    let x = images(&config);
    let labels: Vec<u32> = fixture("labels.bin").into_iter().map(u32::from).collect();
    let labels = Tensor::from_u32(&gpu(), &labels, &[16]).unwrap();
    let cx = Cx::train(&arena);
    for (step, want) in numbers(&config["losses"]).into_iter().enumerate() {
        let loss = model.forward(&cx, &x).unwrap().cross_entropy(&labels, CrossEntropy::default()).unwrap();
        arena.backward(&loss).unwrap();
        if step == 0 {
            gradients(name, &arena, &config);
        }
        let got = f64::from(loss.item().unwrap());
        assert!((got - want).abs() <= 1e-4 * want, "{name}, step {step}: loss {got}, the reference has {want}");
        optimizer.step(&arena, lr).unwrap();
    }
    if let Some(layers) = config["running_statistics"].as_object() {
        for (layer, stats) in layers {
            for (kind, want) in stats.as_object().unwrap() {
                let got = arena.buffers().by_name(&format!("{layer}.{kind}")).unwrap().to_vec().unwrap();
                close(&format!("{layer}.{kind}"), &got, &numbers(want), 1e-4);
            }
        }
    }
    arena
}

/// Every parameter's gradient, relative to the largest of its tensor.
fn gradients(name: &str, arena: &Arena, config: &Value) {
    let bytes = fixture(&format!("{name}.grads.f32"));
    let mut all = bytes.chunks_exact(4).map(|w| f64::from(f32::from_le_bytes([w[0], w[1], w[2], w[3]])));
    for p in config["parameters"].as_array().unwrap() {
        let parameter = p["name"].as_str().unwrap();
        let got = arena.grads().by_name(parameter).unwrap().to_vec().unwrap();
        let want: Vec<f64> = all.by_ref().take(got.len()).collect();
        close(&format!("gradient of {parameter}"), &got, &want, 1e-4);
    }
    assert!(all.next().is_none());
}

fn close(what: &str, got: &[f32], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!(
            (f64::from(g) - w).abs() <= tol * largest,
            "{what}[{i}] is {g}, the reference has {w} (largest {largest})"
        );
    }
}

#[test]
fn ten_losses_resnet20_with_batch_norm_and_momentum() {
    let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 5e-3 };
    check("resnet20", |s| CifarResNet::new(s, &Spec::cifar10(), 20).unwrap(), rule);
}

#[test]
fn ten_losses_vit_with_adamw() {
    check("vit", |s| Vit::new(s, &VitConfig::micro(&Spec::cifar10())).unwrap(), Rule::adamw(0.05));
}
