//! Gates, terms and extraction in numbers; networks against themselves with gates forced.

use shadegrad::autograd::{GradOptions, grad, grad_with};
use shadegrad::data::digits;
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, LayerNorm, Linear, Module, Scope};
use shadegrad::rng::Philox;
use shadegrad::train::Images;
use shadegrad::{CrossEntropy, Result, Tensor};

use super::*;
use crate::Spec;
use crate::papers::testing::gpu;

fn tensor(v: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&gpu(), v, shape).unwrap()
}

fn noise(shape: &[usize], stream: u64) -> Tensor {
    let mut v = vec![0.0; shape.iter().product()];
    Philox::new(17, stream).fill_normal(&mut v, 0.0, 1.0);
    tensor(&v, shape)
}

fn close(got: &Tensor, want: &[f64], tolerance: f64) {
    let got = got.to_vec().unwrap();
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() <= tolerance, "{got:?}\n{want:?}");
    }
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Polarization alone, price alone: no ramp.
fn terms(costs: &[f64], polar: f32, act: f32, target: Option<f32>) -> ConsensusLoss {
    let config = LossConfig { lambda_polar: polar, lambda_act: act, target, squared: false, ramp: 0.0 };
    ConsensusLoss::new(&gpu(), costs, config).unwrap()
}

/// The example's gates: four samples, three units.
fn example() -> Vec<Tensor> {
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]].map(|g| tensor(&g, &[4, 1]).leaf()).to_vec()
}

fn mlp(blocks: usize) -> impl Fn(&mut Scope<'_>, &Shape) -> Result<ResidualMlp> + Send + Sync + 'static {
    move |s, shape| Ok(ResidualMlp::new(s, shape, 6, 8, blocks, 3))
}

fn wrapped(blocks: usize, config: GateConfig) -> (Gated<ResidualMlp>, Arena) {
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, mlp(blocks), &ResidualMlp::units(blocks), config).unwrap();
    let arena = Arena::new(&gpu(), &names, 5).unwrap();
    (gated, arena)
}

/// Sets every gate of a module's unit by its last bias, whatever the input.
fn force(arena: &Arena, signs: &[f32]) {
    let params = arena.params();
    let names = |end: &str| params.names().filter(|n| n.ends_with(end)).map(String::from).collect::<Vec<_>>();
    for name in names("fc2.weight").iter().filter(|n| n.starts_with("gates.")) {
        let id = params.id(name).unwrap();
        arena.set_value(id, &Tensor::zeros(&gpu(), params.get(id).shape()).unwrap()).unwrap();
    }
    for (name, sign) in names("fc2.bias").iter().filter(|n| n.starts_with("gates.")).zip(signs) {
        let id = params.id(name).unwrap();
        arena.set_value(id, &Tensor::full(&gpu(), params.get(id).shape(), 50.0 * sign).unwrap()).unwrap();
    }
}

#[test]
fn the_gate_is_a_step_with_a_sigmoids_gradient() {
    let s = tensor(&[-2.0, -0.1, 0.0, 0.1, 2.0], &[5]).leaf();
    let g = binary_gate(&s, Ste::SigmoidGrad).unwrap();
    close(&g, &[0.0, 0.0, 0.0, 1.0, 1.0], 0.0);
    let slope = grad(&g.sum_all().unwrap(), &[&s]).unwrap();
    close(&slope[0], &[0.104994, 0.249376, 0.25, 0.249376, 0.104994], 1e-6);
    let s = tensor(&[-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], &[6]).leaf();
    let g = binary_gate(&s, Ste::Identity).unwrap();
    close(&g, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 0.0);
    close(&grad(&g.sum_all().unwrap(), &[&s]).unwrap()[0], &[0.0, 1.0, 1.0, 1.0, 1.0, 0.0], 0.0);
}

#[test]
fn polarization_and_rate_of_the_example() {
    let gates = example();
    let t = terms(&[1.0; 3], 1.0, 0.0, None).compute(&gates, 1.0).unwrap();
    close(&t.polar, &[0.145833], 1e-6);
    close(&t.remaining, &[0.583333], 1e-6);
    let slopes = grad(&t.polar, &gates.iter().collect::<Vec<_>>()).unwrap();
    for (slope, want) in slopes.iter().zip([-0.083333, 0.041667, 0.0]) {
        close(slope, &[want; 4], 1e-6);
    }
}

#[test]
fn polarization_is_the_variance_of_hard_gates_and_more_for_soft_ones() {
    let loss = terms(&[1.0; 3], 1.0, 0.0, None);
    let all = Tensor::concat(&example().iter().collect::<Vec<_>>(), 1).unwrap();
    let variance = all.var(&[0], 0, false).unwrap().mean_all().unwrap().item().unwrap();
    close(&loss.compute(&example(), 1.0).unwrap().polar, &[variance.into()], 1e-6);
    // Neither the variance nor the mean of p (1 - p), which are 0 for one of these each.
    let one = terms(&[1.0], 1.0, 0.0, None);
    for soft in [[0.5, 0.5], [1.0, 0.0]] {
        close(&one.compute(&[tensor(&soft, &[2, 1])], 1.0).unwrap().polar, &[0.25], 1e-7);
    }
}

#[test]
fn the_price_is_what_lies_above_the_target() {
    let costs = [0.5, 0.3, 0.2];
    let gates = example();
    let inputs: Vec<&Tensor> = gates.iter().collect();
    let above = terms(&costs, 0.0, 1.0, Some(0.5)).compute(&gates, 1.0).unwrap();
    close(&above.remaining, &[0.675], 1e-6);
    close(&above.total, &[0.175], 1e-6);
    for (slope, c) in grad(&above.total, &inputs).unwrap().iter().zip(costs) {
        close(slope, &[c / 4.0; 4], 1e-6);
    }
    let below = terms(&costs, 0.0, 1.0, Some(0.7)).compute(&gates, 1.0).unwrap();
    close(&below.total, &[0.0], 0.0);
    for slope in grad(&below.total, &inputs).unwrap() {
        close(&slope, &[0.0; 4], 0.0);
    }
    let config = LossConfig { lambda_polar: 0.0, lambda_act: 2.0, target: Some(0.5), squared: true, ramp: 0.2 };
    let squared = ConsensusLoss::new(&gpu(), &[5.0, 3.0, 2.0], config).unwrap();
    // 2 * 0.175^2 at the end, half of it half way up the ramp, and nothing at the start.
    for (progress, want) in [(1.0, 0.06125), (0.1, 0.030625), (0.0, 0.0)] {
        close(&squared.compute(&gates, progress).unwrap().total, &[want], 1e-6);
    }
}

#[test]
fn with_all_gates_open_it_is_the_plain_network_to_the_bit() {
    let x = noise(&[5, 6], 1);
    let labels = Tensor::from_u32(&gpu(), &[0, 2, 1, 1, 0], &[5]).unwrap();
    let (gated, arena) = wrapped(3, GateConfig::default());
    force(&arena, &[1.0; 3]);
    let mut names = Builder::new();
    let plain = mlp(3)(&mut names.root(), &Shape::full()).unwrap();
    let own = Arena::new(&gpu(), &names, 5).unwrap();
    let out = gated.run(&Cx::train(&arena), &x).unwrap();
    assert!(out.gates.iter().all(|g| g.to_vec().unwrap() == [1.0; 5] && g.shape() == [5, 1]));
    let logits = plain.forward(&Cx::train(&own), &x).unwrap();
    assert_eq!(bits(&out.logits), bits(&logits));
    arena.backward(&out.logits.cross_entropy(&labels, CrossEntropy::default()).unwrap()).unwrap();
    own.backward(&logits.cross_entropy(&labels, CrossEntropy::default()).unwrap()).unwrap();
    for (name, want) in own.grads().iter() {
        assert_eq!(bits(arena.grads().by_name(name).unwrap()), bits(want), "{name}");
    }
    // With all of them closed, the stem and the head are left.
    force(&arena, &[-1.0; 3]);
    let closed = gated.forward(&Cx::train(&arena), &x).unwrap();
    let mut names = Builder::new();
    let none = Shape::full().without(["blocks.0", "blocks.1", "blocks.2"]);
    let short = mlp(3)(&mut names.root(), &none).unwrap();
    let rest = Arena::new(&gpu(), &names, 5).unwrap();
    assert_eq!(rest.table().len(), 4);
    assert_eq!(bits(&closed), bits(&short.forward(&Cx::train(&rest), &x).unwrap()));
}

fn resnet8(s: &mut Scope<'_>, shape: &Shape) -> Result<PrunableResNet> {
    PrunableResNet::new(s, shape, &Spec { height: 8, width: 8, channels: 3, classes: 10 }, 8)
}

#[test]
fn a_convolutional_network_with_open_gates_trains_as_it_would_without() {
    let x = noise(&[4, 8, 8, 3], 3);
    let labels = Tensor::from_u32(&gpu(), &[0, 9, 4, 4], &[4]).unwrap();
    let mut names = Builder::new();
    let plain = resnet8(&mut names.root(), &Shape::full()).unwrap();
    let own = Arena::new(&gpu(), &names, 2).unwrap();
    let logits = plain.forward(&Cx::train(&own), &x).unwrap();
    own.backward(&logits.cross_entropy(&labels, CrossEntropy::default()).unwrap()).unwrap();
    for units in [PrunableResNet::layer_units(8).unwrap(), PrunableResNet::channel_units(8).unwrap()] {
        let mut names = Builder::new();
        let gated = Gated::new(&mut names, resnet8, &units, GateConfig::default()).unwrap();
        let arena = Arena::new(&gpu(), &names, 2).unwrap();
        force(&arena, &[1.0; 3]);
        let out = gated.forward(&Cx::train(&arena), &x).unwrap();
        arena.backward(&out.cross_entropy(&labels, CrossEntropy::default()).unwrap()).unwrap();
        assert_eq!(bits(&out), bits(&logits));
        // The fused norm and ReLU of the network without hooks rounds its gradient in another order.
        for (name, want) in own.grads().iter() {
            let want: Vec<f64> = want.to_vec().unwrap().into_iter().map(f64::from).collect();
            close(arena.grads().by_name(name).unwrap(), &want, 2e-5);
        }
        // Batch norm sees all samples, also those that a gate closes in front of nothing.
        for (name, want) in own.buffers().iter() {
            assert_eq!(bits(arena.buffers().by_name(name).unwrap()), bits(want), "{name}");
        }
    }
}

#[test]
fn the_extracted_network_is_the_gated_one_where_inputs_agree() {
    let (gated, arena) = wrapped(4, GateConfig::default());
    force(&arena, &[1.0, -1.0, 1.0, -1.0]);
    let x = noise(&[7, 6], 2);
    let mut meter = gated.meter();
    meter.push(&gated.run(&Cx::eval(&arena), &x).unwrap().gates).unwrap();
    let consensus = meter.read().unwrap();
    assert_eq!(consensus.mean, [[1.0], [0.0], [1.0], [0.0]]);
    assert_eq!((consensus.samples, consensus.agreement(), consensus.undecided(0.05)), (7, (1.0, 1.0), 0));
    let keep = consensus.keep(0.5).unwrap();
    let small = gated.extract(&arena, &keep, &x).unwrap();
    let want: Vec<f64> =
        gated.forward(&Cx::eval(&arena), &x).unwrap().to_vec().unwrap().into_iter().map(f64::from).collect();
    close(&small.model.forward(&Cx::eval(&small.arena), &x).unwrap(), &want, 1e-6);
    close(&gated.frozen(&keep).unwrap().forward(&Cx::eval(&arena), &x).unwrap(), &want, 1e-6);
    // A block has two norms' and two layers' worth of parameters; a module 8 * 16 + 16 + 16 + 1.
    let block = 2 * 8 + 2 * (8 * 8 + 8);
    let report = &small.report;
    assert_eq!(report.gate_parameters, 4 * 161);
    assert_eq!(report.parameters, (56 + 27 + 4 * block, 56 + 27 + 2 * block));
    assert_eq!(small.arena.table().numel(), arena.table().numel() - 2 * block - 4 * 161);
    assert_eq!(report.removed, ["blocks.1", "blocks.3"]);
    assert_eq!(report.flops, (2.0 * (48 + 24 + 8 * 64) as f64, 2.0 * (48 + 24 + 4 * 64) as f64));
}

/// Convolution, norm, ReLU, convolution.
struct Two(Conv2d, BatchNorm2d, Conv2d);

fn two(s: &mut Scope<'_>, shape: &Shape, widths: [usize; 3]) -> Result<Two> {
    let inner = shape.width("a", widths[1]);
    Ok(Two(
        Conv2d::new(&mut s.sub("a"), widths[0], inner, 3, ConvOptions::new(1, 1)),
        BatchNorm2d::new(&mut s.sub("norm"), inner),
        Conv2d::new(&mut s.sub("b"), inner, widths[2], 3, ConvOptions::new(1, 1)),
    ))
}

impl Module for Two {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.2.forward(cx, &self.1.forward_relu(cx, &self.0.forward(cx, x)?)?)
    }
}

#[test]
fn channels_are_cut_out_of_convolutions_and_norm() {
    let mut names = Builder::new();
    let units = [Unit::channels("a", Some("norm"), "b")];
    let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    let gated = Gated::new(&mut names, |s, shape| two(s, shape, [3, 4, 2]), &units, config).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    let params = arena.params();
    let set = |name: &str, v: &[f32; 4]| arena.set_value(params.id(name).unwrap(), &tensor(v, &[4])).unwrap();
    set("gates.a.channels.logit", &[50.0, -50.0, 50.0, 50.0]);
    set("norm.weight", &[1.0, 2.0, 0.5, 1.5]);
    set("norm.bias", &[0.3, 0.9, -0.2, 0.1]);
    let x = noise(&[3, 6, 5, 3], 4);
    // Running statistics of their own for each channel.
    gated.forward(&Cx::train(&arena), &x).unwrap();
    let out = gated.run(&Cx::eval(&arena), &x).unwrap();
    assert_eq!(out.gates[0].to_vec().unwrap(), [1.0, 0.0, 1.0, 1.0].repeat(3));
    let mut meter = gated.meter();
    meter.push(&out.gates).unwrap();
    let keep = meter.read().unwrap().keep(0.5).unwrap();
    let small = gated.extract(&arena, &keep, &x).unwrap();
    let shapes = ["a.weight", "a.bias", "norm.weight", "b.weight"]
        .map(|n| small.arena.params().by_name(n).unwrap().shape().to_vec());
    assert_eq!(shapes, [vec![3, 3, 3, 3], vec![3], vec![3], vec![2, 3, 3, 3]]);
    let whole = arena.buffers().by_name("norm.running_mean").unwrap().to_vec().unwrap();
    let left = small.arena.buffers().by_name("norm.running_mean").unwrap().to_vec().unwrap();
    assert_eq!(left, [whole[0], whole[2], whole[3]]);
    close(small.arena.params().by_name("norm.bias").unwrap(), &[0.3, -0.2, 0.1], 1e-7);
    let want: Vec<f64> = out.logits.to_vec().unwrap().into_iter().map(f64::from).collect();
    close(&small.model.forward(&Cx::eval(&small.arena), &x).unwrap(), &want, 1e-6);
    close(&gated.frozen(&keep).unwrap().forward(&Cx::eval(&arena), &x).unwrap(), &want, 1e-6);
    assert_eq!(small.report.removed, ["a"]);
}

#[test]
fn branches_and_channels_are_pruned_together() {
    let units = [PrunableResNet::layer_units(14).unwrap(), PrunableResNet::channel_units(14).unwrap()].concat();
    assert_eq!(units.len(), 4 + 6);
    let make = |s: &mut Scope<'_>, shape: &Shape| {
        PrunableResNet::new(s, shape, &Spec { height: 8, width: 8, channels: 3, classes: 10 }, 14)
    };
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, make, &units, GateConfig::default()).unwrap();
    let arena = Arena::new(&gpu(), &names, 1).unwrap();
    let x = noise(&[4, 8, 8, 3], 8);
    gated.forward(&Cx::train(&arena), &x).unwrap();
    let mut rng = Philox::new(3, 3);
    let mut meter = gated.meter();
    meter.push(&gated.run(&Cx::eval(&arena), &x).unwrap().gates).unwrap();
    let mut keep = meter.read().unwrap().keep(0.5).unwrap();
    for open in &mut keep.open {
        open.iter_mut().for_each(|o| *o = rng.below(2) == 0);
        open[0] |= open.len() > 1;
    }
    keep.open[1] = vec![false];
    let small = gated.extract(&arena, &keep, &x).unwrap();
    let want: Vec<f64> = (gated.frozen(&keep).unwrap().forward(&Cx::eval(&arena), &x).unwrap().to_vec().unwrap())
        .into_iter()
        .map(f64::from)
        .collect();
    close(&small.model.forward(&Cx::eval(&small.arena), &x).unwrap(), &want, 1e-5);
    assert!(small.report.flops.1 < 0.8 * small.report.flops.0 && small.report.parameters.1 < small.report.parameters.0);
}

#[test]
fn the_gradient_of_a_gate_is_the_sum_of_what_it_lets_through() {
    let (gated, arena) = wrapped(1, GateConfig { init_bias: 0.1, ..GateConfig::default() });
    let x = noise(&[6, 6], 6);
    let cx = Cx::train(&arena);
    let keep = |open: bool| Keep { units: vec!["blocks.0".into()], open: vec![vec![open]] };
    // Without a head, so that the loss is the sum of the block's result.
    let inner = |open| {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
        let sink = seen.clone();
        let watched = Cx::eval(&arena).replace_input("head", move |_, t| {
            *sink.lock().unwrap() = Some(t.detach());
            Ok(None)
        });
        gated.frozen(&keep(open)).unwrap().forward(&watched, &x).unwrap();
        seen.lock().unwrap().take().unwrap()
    };
    let branch = inner(true).sub(&inner(false)).unwrap().sum(&[1], false).unwrap();
    let branch: Vec<f64> = branch.to_vec().unwrap().into_iter().map(f64::from).collect();
    let block = std::sync::Arc::new(std::sync::Mutex::new(None));
    let sink = block.clone();
    let watched = cx.replace_input("head", move |_, t| {
        *sink.lock().unwrap() = Some(t.clone());
        Ok(None)
    });
    let out = gated.run(&watched, &x).unwrap();
    let loss = block.lock().unwrap().take().unwrap().sum_all().unwrap();
    let bias = arena.params().by_name("gates.blocks.0.branch.fc2.bias").unwrap();
    let options = GradOptions { allow_unused: true, ..GradOptions::default() };
    let found = grad_with(&[&loss], &[&out.gates[0], bias], None, options).unwrap();
    close(found[0].as_ref().unwrap(), &branch, 2e-5);
    // The step's own slope is 0: central differences of the surrogate `g + sigmoid(s) - sigmoid(s0)` at `s0`.
    let weight = |name: &str| {
        let t = arena.params().by_name(&format!("gates.blocks.0.branch.{name}")).unwrap().to_vec().unwrap();
        t.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let (w1, b1, w2, b2) = (weight("fc1.weight"), weight("fc1.bias"), weight("fc2.weight"), weight("fc2.bias")[0]);
    // The gate reads what the norm of the block reads: the stem's result, which is what a closed block gives.
    let reads: Vec<f64> = inner(false).to_vec().unwrap().into_iter().map(f64::from).collect();
    let score = |sample: usize| {
        let a = &reads[8 * sample..8 * sample + 8];
        let unit = |h: usize| (b1[h] + (0..8).map(|c| w1[8 * h + c] * a[c]).sum::<f64>()).max(0.0) * w2[h];
        b2 + (0..16).map(unit).sum::<f64>()
    };
    let gates = out.gates[0].to_vec().unwrap();
    let sigmoid = |s: f64| 1.0 / (1.0 + (-s).exp());
    let h = 1e-5;
    let mut want = 0.0;
    for i in 0..6 {
        assert_eq!(gates[i] > 0.5, score(i) > 0.0);
        want += branch[i] * (sigmoid(score(i) + h) - sigmoid(score(i) - h)) / (2.0 * h);
    }
    close(found[1].as_ref().unwrap(), &[want], 1e-4 * (1.0 + want.abs()));
}

#[test]
fn polarization_moves_gates_towards_the_majority() {
    let loss = terms(&[1.0], 1.0, 0.0, None);
    for (open, direction) in [(6, 1.0), (2, -1.0), (4, 0.0)] {
        let mut philox = Philox::new(open, 0);
        let s: Vec<f32> = (0..8)
            .map(|i| (0.1 + philox.uniform_f64() as f32) * if i < open { 1.0 } else { -1.0 })
            .collect();
        let t = tensor(&s, &[8, 1]).leaf();
        let gates = [binary_gate(&t, Ste::SigmoidGrad).unwrap()];
        let polar = loss.compute(&gates, 1.0).unwrap().polar;
        let slope = grad(&polar, &[&t]).unwrap()[0].to_vec().unwrap();
        for (s, g) in s.iter().zip(slope) {
            let moved = s - 10.0 * g;
            assert!(if direction == 0.0 { moved == *s } else { (moved - s) * direction > 0.0 }, "{open}: {s} to {moved}");
        }
    }
}

#[test]
fn operations_are_two_for_a_multiply_add() {
    let count = |widths: [usize; 3]| {
        let mut names = Builder::new();
        let model = two(&mut names.root(), &Shape::full(), widths).unwrap();
        let arena = Arena::new(&gpu(), &names, 0).unwrap();
        let x = Tensor::zeros(&gpu(), &[2, 8, 8, widths[0]]).unwrap();
        flops(&model, &Cx::eval(&arena), &x).unwrap()
    };
    assert_eq!(count([16, 32, 1])[0], ("a".to_string(), 589_824.0));
    assert_eq!(count([10, 20, 1])[0], ("a".to_string(), 230_400.0));
}

#[test]
fn blocks_of_the_published_network_cost_the_same() {
    let make = |s: &mut Scope<'_>, shape: &Shape| PrunableResNet::new(s, shape, &Spec::cifar10(), 56);
    let one = Tensor::zeros(&gpu(), &[1, 32, 32, 3]).unwrap();
    let (layers, channels) = (PrunableResNet::layer_units(56).unwrap(), PrunableResNet::channel_units(56).unwrap());
    assert_eq!((layers.len(), channels.len()), (25, 27));
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, make, &[layers, channels].concat(), GateConfig::default()).unwrap();
    let costs = gated.costs(&Arena::new(&gpu(), &names, 0).unwrap(), &one).unwrap();
    assert!(costs.units[..25].iter().all(|&u| u == (9_437_184.0, 1)), "{:?}", costs.units);
    assert_eq!(costs.units[25..].iter().map(|u| u.1).sum::<usize>(), 9 * (16 + 32 + 64));
    // All channels of an inner block's first convolution carry the whole of both convolutions.
    assert!((costs.units[25].0 * 16.0 - 9_437_184.0).abs() < 1.0);
    // 25 blocks, the two that change shape (less in their first convolution, and their shortcut), stem and head.
    let changing = |c: usize, side: usize| 2.0 * (side * side * (c / 2 * c * 9 + c * c * 9 + c / 2 * c)) as f64;
    let rest = 2.0 * (1024 * 27 * 16 + 64 * 10) as f64 + changing(32, 16) + changing(64, 8);
    assert_eq!(costs.total, 25.0 * 9_437_184.0 + rest);
}

#[test]
fn a_layer_never_loses_its_last_channel() {
    let consensus = Consensus {
        units: ["branch", "few", "some"].map(String::from).to_vec(),
        mean: vec![vec![0.2], vec![0.1, 0.4, 0.4], vec![0.5, 0.49, 0.96]],
        samples: 100,
    };
    let keep = consensus.keep(0.5).unwrap();
    assert_eq!(keep.open, [vec![false], vec![false, true, false], vec![true, false, true]]);
    assert_eq!((keep.kept_units(), keep.gates(), keep.is_full()), (2, (3, 7), false));
    assert_eq!(consensus.undecided(0.05), 6);
    assert!((consensus.agreement().0 - 0.5).abs() < 1e-12);
    assert!((consensus.agreement().1 - (0.8 + 0.9 + 0.6 + 0.6 + 0.5 + 0.51 + 0.96) / 7.0).abs() < 1e-12);
    assert!((consensus.polar() - (0.16 + 0.09 + 0.24 + 0.24 + 0.25 + 0.2499 + 0.0384) / 7.0).abs() < 1e-12);
    assert!((consensus.remaining(&[7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).unwrap() - (1.4 + 0.96) / 8.0).abs() < 1e-12);
    assert!(consensus.keep(0.0).is_err() && consensus.remaining(&[1.0]).is_err());
}

#[test]
fn noise_is_for_training_and_free_gates_see_no_input() {
    let config = GateConfig { init_bias: 0.0, gumbel: true, ..GateConfig::default() };
    let (gated, arena) = wrapped(1, config);
    let x = noise(&[400, 6], 9);
    let id = arena.params().id("gates.blocks.0.branch.fc2.weight").unwrap();
    arena.set_value(id, &Tensor::zeros(&gpu(), &[1, 16]).unwrap()).unwrap();
    let open = |cx: &Cx| gated.run(cx, &x).unwrap().gates[0].to_vec().unwrap().iter().sum::<f32>();
    assert_eq!(open(&Cx::eval(&arena)), 0.0);
    let (a, b) = (open(&Cx::train(&arena).seeded(1, 1)), open(&Cx::train(&arena).seeded(1, 1)));
    assert!((150.0..250.0).contains(&a) && a == b, "{a} {b}");
    let free = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    let (gated, arena) = wrapped(2, free);
    let loss = gated.run(&Cx::train(&arena), &x).unwrap();
    assert!(loss.gates.iter().all(|g| g.shape() == [400, 1] && g.to_vec().unwrap().iter().all(|v| *v == 1.0)));
    // Detached gates do not reach what they read.
    for detach in [false, true] {
        let (gated, arena) = wrapped(1, GateConfig { detach, ..GateConfig::default() });
        let gates = gated.run(&Cx::train(&arena), &x).unwrap().gates;
        let stem = arena.params().by_name("stem.weight").unwrap();
        let options = GradOptions { allow_unused: true, ..GradOptions::default() };
        let found = grad_with(&[&gates[0].sum_all().unwrap()], &[stem], None, options).unwrap();
        assert_eq!(found[0].is_none(), detach);
    }
}

#[test]
fn the_consensus_is_asked_over_a_data_set() {
    let pair = digits();
    let data = Images::upload(&gpu(), &pair.test, &pair.test.channel_stats().unwrap()).unwrap();
    let mut names = Builder::new();
    let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 10));
    let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig { init_bias: 0.0, ..GateConfig::default() });
    let gated = gated.unwrap();
    let arena = Arena::new(&gpu(), &names, 3).unwrap();
    let consensus = gated.consensus(&arena, &data, 100).unwrap();
    let all: Vec<u32> = (0..data.len() as u32).collect();
    let gates = gated.run(&Cx::eval(&arena), &data.plain(&all).unwrap().images).unwrap().gates;
    for (mean, gates) in consensus.mean.iter().zip(&gates) {
        let want = gates.to_vec().unwrap().iter().sum::<f32>() / 360.0;
        assert!((mean[0] - f64::from(want)).abs() < 1e-6);
    }
    assert_eq!(consensus.samples, 360);
    assert!(gated.consensus(&arena, &data, 0).is_err());
}

#[test]
fn statistics_follow_what_is_left() {
    let pair = digits();
    let data = Images::upload(&gpu(), &pair.test, &pair.test.channel_stats().unwrap()).unwrap();
    let mut names = Builder::new();
    let model = two(&mut names.root(), &Shape::full(), [1, 4, 2]).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    let before = arena.values_flat().to_vec().unwrap();
    refresh_statistics(&model, &arena, &data, 90).unwrap();
    assert_eq!(arena.values_flat().to_vec().unwrap(), before);
    assert!(arena.buffers().by_name("norm.running_mean").unwrap().to_vec().unwrap().iter().all(|m| *m != 0.0));
}

/// Two layers one after the other: nothing goes around the second.
struct Chain(Linear, LayerNorm, Linear, bool);

impl Module for Chain {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let h = self.0.forward(cx, x)?;
        if !self.3 {
            return self.2.forward(cx, &self.1.forward(cx, &h)?);
        }
        // A segment that is computed twice.
        let (norm, fc) = (self.1.clone(), self.2.clone());
        h.add(&cx.checkpoint(&h, move |cx, h| fc.forward(cx, &norm.forward(cx, h)?))?)
    }
}

fn chain(twice: bool) -> impl Fn(&mut Scope<'_>, &Shape) -> Result<Chain> + Send + Sync + 'static {
    move |s, _| {
        let stem = Linear::new(&mut s.sub("stem"), 6, 4, true);
        let mut block = s.sub("block");
        let norm = LayerNorm::new(&mut block.sub("norm"), 4, 1e-5);
        Ok(Chain(stem, norm, Linear::new(&mut block.sub("fc"), 4, 4, true), twice))
    }
}

#[test]
fn mistakes_are_errors_that_say_what_to_do() {
    let text = |e: Result<()>| e.unwrap_err().to_string();
    let wrap = |units: &[Unit]| Gated::new(&mut Builder::new(), mlp(2), units, GateConfig::default()).map(|_| ());
    assert!(text(wrap(&[])).contains("there is no unit"));
    let unknown = text(wrap(&[Unit::layer("blocks.7", "norm", "fc2")]));
    assert!(unknown.contains("no layer is called `blocks.7.norm`") && unknown.contains("blocks.0.norm,"), "{unknown}");
    let twice = Unit::layer("blocks.0", "norm", "fc2");
    assert!(text(wrap(&[twice.clone(), twice])).contains("comes twice"));
    assert!(text(wrap(&[Unit::channels("stem", None, "blocks.0.fc1"), Unit::channels("head", None, "stem")])).contains("makes 3"));
    for (target, lambda, ramp, costs, word) in [
        (Some(0.0), 1.0, 0.0, [1.0, 1.0], "target 0"),
        (Some(1.5), 1.0, 0.0, [1.0, 1.0], "target 1.5"),
        (None, -1.0, 0.0, [1.0, 1.0], "-1"),
        (None, 1.0, 2.0, [1.0, 1.0], "ramp 2"),
        (None, 1.0, 0.0, [0.0, 0.0], "sum to 0"),
    ] {
        let config = LossConfig { lambda_polar: lambda, lambda_act: 1.0, target, squared: false, ramp };
        let err = ConsensusLoss::new(&gpu(), &costs, config).unwrap_err().to_string();
        assert!(err.contains(word), "{err}");
    }
    let loss = terms(&[1.0; 2], 1.0, 1.0, None);
    assert!(loss.compute(&example(), 1.0).unwrap_err().to_string().contains("3 gates for 2 costs"));
    assert!(loss.compute(&[], 1.0).is_err());
    assert!(loss.compute(&[tensor(&[1.0], &[1, 1]), tensor(&[1.0; 2], &[2, 1])], 1.0).is_err());

    // What cannot be pruned.
    let x = noise(&[3, 6], 0);
    let unit = [Unit::layer("block", "norm", "fc")];
    let closed = Keep { units: vec!["block".into()], open: vec![vec![false]] };
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, chain(false), &unit, GateConfig::default()).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    let err = gated.extract(&arena, &closed, &x).err().unwrap().to_string();
    assert!(err.contains("cut the network in two"), "{err}");
    let other = Keep { units: vec!["block".into()], open: vec![vec![false, true]] };
    assert!(gated.extract(&arena, &other, &x).err().unwrap().to_string().contains("this model"));

    // A gate in a segment that is computed twice has no gradient; a constructor may not build what is closed.
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, chain(true), &unit, GateConfig::default()).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    assert!(gated.run(&Cx::train(&arena), &x).unwrap_err().to_string().contains("computed twice"));
    let err = gated.extract(&arena, &closed, &x).err().unwrap().to_string();
    assert!(err.contains("which is closed; ask `Shape::has`"), "{err}");

    // A block that changes shape, and a gate behind what it gates.
    let mut names = Builder::new();
    let gated = Gated::new(&mut names, resnet8, &[Unit::layer("layer2.0", "conv1", "bn2")], GateConfig::default()).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    let err = gated.run(&Cx::train(&arena), &noise(&[2, 8, 8, 3], 0)).unwrap_err().to_string();
    assert!(err.contains("leave it out of the units"), "{err}");
    let mut names = Builder::new();
    let late = [Unit::layer("blocks.0", "fc2", "norm")];
    let gated = Gated::new(&mut names, mlp(1), &late, GateConfig::default()).unwrap();
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    assert!(gated.run(&Cx::train(&arena), &x).unwrap_err().to_string().contains("did not come by in time"));
}
