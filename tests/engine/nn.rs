//! Layers in their context: dropout, hooks, recomputed segments, per-sample gradients.

use std::sync::{Arc, Mutex};

use shadegrad::autograd::grad;
use shadegrad::nn::{
    Activation, Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, ConvTranspose2d, Cx, Dropout, Embedding, Flatten,
    GroupNorm, Identity, Init, InstanceNorm2d, LayerNorm, Linear, Mlp, Module, MultiHeadAttention, Sequential, Stats,
};
use shadegrad::rng::Philox;
use shadegrad::{Attention, Result, Tensor};

use super::gpu;

fn random(shape: &[usize], stream: u64) -> Result<Tensor> {
    let mut v = vec![0.0; shape.iter().product()];
    Philox::new(78, stream).fill_normal(&mut v, 0.0, 1.0);
    Tensor::from_slice(&gpu(), &v, shape)
}

fn close(a: &[f32], b: &[f32], tol: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tol * (1.0 + b.abs()), "{what}[{i}]: {a} against {b}");
    }
}

fn gradients(arena: &Arena, loss: &Tensor) -> Result<Vec<f32>> {
    arena.backward(loss)?;
    arena.grads_flat().to_vec()
}

#[test]
fn nn_shapes_and_names() -> Result<()> {
    let mut b = Builder::new();
    let mut root = b.root();
    let net = Sequential::new()
        .then(Conv2d::new(&mut root.sub(0), 3, 8, 3, ConvOptions::new(2, 1).no_bias().kaiming()))
        .then(Activation::Relu)
        .then(ConvTranspose2d::new(&mut root.sub(2), 8, 4, 2, ConvOptions::new(2, 0), 0))
        .then(Identity)
        .then(Flatten)
        .then(Linear::new(&mut root.sub(5), 6 * 8 * 4, 5, true));
    assert_eq!((net.len(), net.is_empty()), (6, false));
    let arena = Arena::new(&gpu(), &b, 0)?;
    let names: Vec<_> = arena.table().entries().iter().map(|e| (e.name.as_str(), e.shape.clone())).collect();
    let want = [
        ("0.weight", vec![8, 3, 3, 3]),
        ("2.weight", vec![8, 2, 2, 4]),
        ("2.bias", vec![4]),
        ("5.weight", vec![5, 192]),
        ("5.bias", vec![5]),
    ];
    assert_eq!(names, want);
    let y = net.forward(&Cx::eval(&arena), &random(&[2, 6, 8, 3], 0)?)?;
    assert_eq!(y.shape(), [2, 5]);
    assert!(gradients(&arena, &y.square()?.sum_all()?)?.iter().all(|g| g.is_finite()));
    Ok(())
}

#[test]
fn nn_dropout_draws_anew_and_again() -> Result<()> {
    let mut b = Builder::new();
    b.root().param("unused", &[1], Init::Zeros);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let x = Tensor::ones(&gpu(), &[1000])?;
    let run = |cx: &Cx| Dropout(0.25).forward(cx, &x)?.to_vec();
    let cx = Cx::train(&arena).seeded(3, 5);
    let start = cx.draws();
    let (a, b) = (run(&cx)?, run(&cx)?);
    assert_ne!(a, b);
    assert_eq!(run(&cx.at(start))?, a);
    assert_ne!(run(&cx.seeded(3, 6))?, a);
    assert_ne!(run(&cx.seeded(4, 5))?, a);
    let kept = a.iter().filter(|v| **v != 0.0).count();
    assert!((700..800).contains(&kept) && a.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    assert_eq!(run(&Cx::eval(&arena))?, vec![1.0; 1000]);
    Ok(())
}

#[test]
fn nn_hooks_see_and_replace() -> Result<()> {
    let mut b = Builder::new();
    let mlp = Mlp::new(&mut b.root().sub("mlp"), 4, 8, Activation::Gelu, 0.0);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let cx = Cx::train(&arena)
        .observe("mlp.*", move |name, t| {
            sink.lock().expect("not poisoned").push((name.to_string(), t.shape().to_vec()));
            Ok(())
        })
        .replace("*.fc2", |_, t| Ok(Some(t.mul_scalar(0.0)?)));
    let y = mlp.forward(&cx, &random(&[3, 4], 0)?)?;
    assert!(y.to_vec()?.iter().all(|v| *v == 0.0));
    let want = [("mlp.fc1".to_string(), vec![3, 8]), ("mlp.fc2".to_string(), vec![3, 4])];
    assert_eq!(*seen.lock().expect("not poisoned"), want);
    Ok(())
}

#[test]
fn nn_inputs_are_seen_and_replaced() -> Result<()> {
    let mut b = Builder::new();
    let mlp = Mlp::new(&mut b.root().sub("mlp"), 4, 8, Activation::Gelu, 0.0);
    let norm = LayerNorm::new(&mut b.root().sub("norm"), 4, 1e-5);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let cx = Cx::eval(&arena)
        .replace_input("*", move |name, t| {
            sink.lock().expect("not poisoned").push((name.to_string(), t.shape().to_vec()));
            Ok(None)
        })
        .replace_input("mlp.fc2", |_, t| Ok(Some(t.mul_scalar(0.0)?)));
    let x = random(&[3, 4], 0)?.leaf();
    // Nothing of `x` comes through the second layer, whose bias is zero; what is added around it does.
    let y = mlp.forward(&cx, &norm.forward(&cx, &x)?)?.add(&x)?;
    assert_eq!(y.to_vec()?, x.to_vec()?);
    let dx = grad(&y.sum(&[0, 1], false)?, &[&x])?;
    assert!(dx[0].to_vec()?.iter().all(|v| *v == 1.0));
    let want =
        [("norm", vec![3, 4]), ("mlp.fc1", vec![3, 4]), ("mlp.fc2", vec![3, 8])].map(|(n, s)| (n.to_string(), s));
    assert_eq!(*seen.lock().expect("not poisoned"), want);
    Ok(())
}

#[test]
fn nn_checkpoint_changes_nothing_but_memory() -> Result<()> {
    let mut b = Builder::new();
    let mut root = b.root();
    let blocks: Vec<Mlp> = (0..3).map(|i| Mlp::new(&mut root.sub(i), 8, 16, Activation::Gelu, 0.3)).collect();
    let arena = Arena::new(&gpu(), &b, 2)?;
    let x = random(&[5, 8], 1)?;
    let seen = Arc::new(Mutex::new(0));
    let run = |checkpointed: bool| -> Result<(Vec<f32>, Vec<f32>, u64)> {
        let sink = seen.clone();
        let cx = Cx::train(&arena).seeded(1, 1).observe("1.fc1", move |_, _| {
            *sink.lock().expect("not poisoned") += 1;
            Ok(())
        });
        let mut y = x.clone();
        for (i, block) in blocks.iter().enumerate() {
            let block = block.clone();
            // The middle one in a nested segment.
            let branch = match (checkpointed, i) {
                (false, _) => block.forward(&cx, &y)?,
                (true, 1) => cx.checkpoint(&y, move |cx, x| {
                    let inner = block.clone();
                    cx.checkpoint(x, move |cx, x| inner.forward(cx, x))
                })?,
                (true, _) => cx.checkpoint(&y, move |cx, x| block.forward(cx, x))?,
            };
            y = y.add(&branch)?;
        }
        let loss = y.square()?.sum_all()?;
        Ok((y.to_vec()?, gradients(&arena, &loss)?, cx.draws()))
    };
    let (plain, again) = (run(false)?, run(true)?);
    close(&again.0, &plain.0, 0.0, "output");
    close(&again.1, &plain.1, 1e-6, "gradients");
    assert_eq!(again.2, plain.2);
    // Once in each of the two runs: not a second time where the segment is run again.
    assert_eq!(*seen.lock().expect("not poisoned"), 2);
    Ok(())
}

#[test]
fn nn_batch_norm_follows_the_context() -> Result<()> {
    let mut b = Builder::new();
    let bn = BatchNorm2d::new(&mut b.root().sub("bn"), 3);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let x = random(&[4, 2, 2, 3], 8)?.mul_scalar(2.0)?.add_scalar(1.0)?;
    let data = x.to_vec()?;
    let (mut mean, mut var) = ([0.0f64; 3], [0.0f64; 3]);
    for (i, v) in data.iter().enumerate() {
        mean[i % 3] += f64::from(*v) / 16.0;
    }
    for (i, v) in data.iter().enumerate() {
        var[i % 3] += (f64::from(*v) - mean[i % 3]).powi(2) / 16.0;
    }
    let normal = |mean: [f64; 3], var: [f64; 3]| -> Vec<f32> {
        let one = |(i, v): (usize, &f32)| ((f64::from(*v) - mean[i % 3]) / (var[i % 3] + 1e-5).sqrt()) as f32;
        data.iter().enumerate().map(one).collect()
    };
    close(&bn.forward(&Cx::eval(&arena), &x)?.to_vec()?, &normal([0.0; 3], [1.0; 3]), 1e-5, "at first");
    let train = Cx::train(&arena);
    close(&bn.forward(&train.with_stats(Stats::Batch), &x)?.to_vec()?, &normal(mean, var), 1e-5, "batch");
    close(&arena.buffers().by_name("bn.running_mean")?.to_vec()?, &[0.0; 3], 0.0, "left alone");
    close(&bn.forward(&train, &x)?.to_vec()?, &normal(mean, var), 1e-5, "update");
    // Momentum 0.1, the variance unbiased: 16 / 15.
    let (running_mean, running_var) = (mean.map(|m| 0.1 * m), var.map(|v| 0.9 + 0.1 * v * 16.0 / 15.0));
    close(&arena.buffers().by_name("bn.running_mean")?.to_vec()?, &running_mean.map(|v| v as f32), 1e-6, "mean");
    close(&arena.buffers().by_name("bn.running_var")?.to_vec()?, &running_var.map(|v| v as f32), 1e-6, "variance");
    close(&bn.forward(&Cx::eval(&arena), &x)?.to_vec()?, &normal(running_mean, running_var), 1e-5, "running");
    for cx in [Cx::eval(&arena), train.with_stats(Stats::Batch)] {
        let want = bn.forward(&cx, &x)?.relu()?.to_vec()?;
        close(&bn.forward_relu(&cx, &x)?.to_vec()?, &want, 1e-6, "with ReLU");
    }
    // A recomputed segment moves the statistics once.
    arena.reset()?;
    let (cx, layer) = (Cx::train(&arena), bn.clone());
    let y = cx.checkpoint(&x, move |cx, x| layer.forward(cx, x))?;
    arena.backward(&y.mul(&random(&[4, 2, 2, 3], 9)?)?.sum_all()?)?;
    close(&arena.buffers().by_name("bn.running_mean")?.to_vec()?, &running_mean.map(|v| v as f32), 1e-6, "once");
    Ok(())
}

/// Heads lie as in timm: `qkv` is `[3][heads][width / heads]`, heads side by side go into `proj`.
#[test]
fn nn_attention_matches_f64() -> Result<()> {
    let mut b = Builder::new();
    let layer = MultiHeadAttention::new(&mut b.root().sub("attn"), 4, 2, true, 0.0);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let names: Vec<&str> = arena.params().names().collect();
    assert_eq!(names, ["attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"]);
    let state: Vec<_> = arena
        .state()?
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape, v))| {
            let mut v = v;
            Philox::new(3, i as u64).fill_normal(&mut v, 0.0, 0.7);
            (name, shape, v)
        })
        .collect();
    arena.load(&state)?;
    let x = random(&[1, 3, 4], 2)?;
    let input: Vec<f64> = x.to_vec()?.into_iter().map(f64::from).collect();
    let linear = |x: &[f64], w: usize| -> Vec<f64> {
        let (w, b) = (&state[w].2, &state[w + 1].2);
        x.chunks(4)
            .flat_map(|x| {
                b.iter()
                    .enumerate()
                    .map(move |(o, b)| f64::from(*b) + (0..4).map(|i| x[i] * f64::from(w[4 * o + i])).sum::<f64>())
            })
            .collect()
    };
    for causal in [false, true] {
        let qkv = linear(&input, 0);
        let at = |part: usize, token: usize, head: usize, d: usize| qkv[12 * token + 4 * part + 2 * head + d];
        let mut mixed = vec![0.0; 12];
        for (head, l) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let seen = if causal { l + 1 } else { 3 };
            let score =
                |s: usize| ((0..2).map(|d| at(0, l, head, d) * at(1, s, head, d)).sum::<f64>() / 2f64.sqrt()).exp();
            let total: f64 = (0..seen).map(score).sum();
            for d in 0..2 {
                mixed[4 * l + 2 * head + d] = (0..seen).map(|s| score(s) / total * at(2, s, head, d)).sum();
            }
        }
        let want: Vec<f32> = linear(&mixed, 2).into_iter().map(|v| v as f32).collect();
        let got = layer.attend(&Cx::eval(&arena), &x, Attention { causal, ..Attention::default() })?;
        close(&got.to_vec()?, &want, 1e-5, "attention");
    }
    Ok(())
}

#[test]
fn nn_embedding_gets_rows_and_gradients() -> Result<()> {
    let mut b = Builder::new();
    let table = Embedding::new(&mut b.root().sub("e"), 5, 2);
    let arena = Arena::new(&gpu(), &b, 0)?;
    let index = Tensor::from_u32(&gpu(), &[4, 0, 4], &[3])?;
    let y = table.forward(&Cx::train(&arena), &index)?;
    let rows = arena.params().get(table.weight()).to_vec()?;
    assert_eq!(y.to_vec()?, [&rows[8..10], &rows[0..2], &rows[8..10]].concat());
    let g = gradients(&arena, &y.sum_all()?)?;
    assert_eq!(g[..10], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    Ok(())
}

/// A network with all kinds of layers that per-sample gradients know; the linear layer in the middle is used twice.
struct Net {
    conv: Conv2d,
    norm: GroupNorm,
    grouped: Conv2d,
    instance: InstanceNorm2d,
    batch: BatchNorm2d,
    layer: LayerNorm,
    tied: Linear,
    head: Linear,
}

impl Net {
    fn new(b: &mut Builder) -> Self {
        let mut root = b.root();
        Self {
            conv: Conv2d::new(&mut root.sub("conv"), 2, 4, 3, ConvOptions::new(2, 1)),
            grouped: Conv2d::new(&mut root.sub("grouped"), 4, 6, 2, ConvOptions::new(1, 0).groups(2).dilation(2)),
            norm: GroupNorm::new(&mut root.sub("norm"), 2, 4),
            instance: InstanceNorm2d::new(&mut root.sub("instance"), 6, true),
            batch: BatchNorm2d::new(&mut root.sub("batch"), 6),
            layer: LayerNorm::new(&mut root.sub("layer"), 6, 1e-6),
            tied: Linear::new(&mut root.sub("tied"), 6, 6, true),
            head: Linear::new(&mut root.sub("head"), 3 * 2 * 6, 3, false),
        }
    }
}

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let h = self.norm.forward(cx, &self.conv.forward(cx, x)?)?.tanh()?;
        let h = self.instance.forward(cx, &self.grouped.forward(cx, &h)?)?;
        let mut h = self.layer.forward(cx, &self.batch.forward(cx, &h)?.tanh()?)?;
        for _ in 0..2 {
            h = self.tied.forward(cx, &h)?.tanh()?;
        }
        self.head.forward(cx, &Flatten.forward(cx, &h)?)
    }
}

#[test]
fn nn_per_sample_equals_the_loop() -> Result<()> {
    const N: usize = 4;
    let mut b = Builder::new();
    let net = Net::new(&mut b);
    let mut arena = Arena::new(&gpu(), &b, 5)?;
    for frozen in [false, true] {
        if frozen {
            arena.freeze("conv.bias")?;
            arena.freeze("tied.weight")?;
        }
        let x = random(&[N, 10, 8, 2], 3)?;
        // Samples are apart only where batch normalisation takes running statistics.
        let loss = |cx: &Cx, x: &Tensor| net.forward(&cx.with_stats(Stats::Running), x)?.square()?.sum_all();
        let mut singles = Vec::new();
        for n in 0..N {
            singles.push(gradients(&arena, &loss(&Cx::train(&arena), &x.slice(0, n, n + 1, 1)?)?)?);
        }
        let (cx, capture) = Cx::train(&arena).capturing();
        let per_sample = capture.backward(&loss(&cx, &x)?, arena.params(), N)?;
        let all = per_sample.gradients()?;
        assert_eq!(all.len(), if frozen { 13 } else { 15 });
        for (id, g) in &all {
            let e = &arena.table().entries()[id.index()];
            assert_eq!(g.shape()[1..], e.shape);
            let g = g.to_vec()?;
            for (n, single) in singles.iter().enumerate() {
                close(&g[n * e.len..][..e.len], &single[e.offset..][..e.len], 2e-5, &e.name);
            }
        }
        let norms: Vec<f32> = singles.iter().map(|g| g.iter().map(|v| v * v).sum()).collect();
        close(&per_sample.squared_norms()?.to_vec()?, &norms, 5e-5, "squared norms");
        let weights = [0.5, -1.0, 2.0, 0.0];
        let sum: Vec<f32> =
            (0..singles[0].len()).map(|i| singles.iter().zip(weights).map(|(g, w)| g[i] * w).sum()).collect();
        let got = per_sample.weighted(&Tensor::from_slice(&gpu(), &weights, &[N])?)?;
        close(&got.to_flat()?.to_vec()?, &sum, 5e-5, "weighted");
    }
    Ok(())
}

/// Wide layers with few positions take the products of pairs of positions; the other way the gradients themselves.
#[test]
fn nn_per_sample_norms_both_ways() -> Result<()> {
    for (rows, width) in [(2, 40), (30, 6)] {
        let mut b = Builder::new();
        let layer = Linear::new(&mut b.root().sub("l"), width, width, true);
        let arena = Arena::new(&gpu(), &b, 1)?;
        let (cx, capture) = Cx::train(&arena).capturing();
        let loss = layer.forward(&cx, &random(&[3, rows, width], 4)?)?.tanh()?.sum_all()?;
        let per_sample = capture.backward(&loss, arena.params(), 3)?;
        let mut want = [0.0; 3];
        for (_, g) in per_sample.gradients()? {
            let g = g.to_vec()?;
            for (w, g) in want.iter_mut().zip(g.chunks(g.len() / 3)) {
                *w += g.iter().map(|v| v * v).sum::<f32>();
            }
        }
        close(&per_sample.squared_norms()?.to_vec()?, &want, 1e-5, "squared norms");
    }
    Ok(())
}

#[test]
fn nn_per_sample_says_what_it_cannot() -> Result<()> {
    let mut b = Builder::new();
    let l = Linear::new(&mut b.root().sub("l"), 4, 4, true);
    let t = ConvTranspose2d::new(&mut b.root().sub("t"), 4, 4, 1, ConvOptions::new(1, 0), 0);
    let arena = Arena::new(&gpu(), &b, 1)?;
    let (cx, capture) = Cx::train(&arena).capturing();
    let loss = t.forward(&cx, &l.forward(&cx, &random(&[3, 2, 2, 4], 4)?)?)?.sum_all()?;
    let text = capture.backward(&loss, arena.params(), 3).err().expect("a transposed convolution").to_string();
    assert!(text.contains("t.weight, t.bias"), "{text}");
    let loss = l.forward(&cx, &random(&[3, 4], 4)?)?.sum_all()?;
    let text = capture.backward(&loss, arena.params(), 2).err().expect("three samples, not two").to_string();
    assert!(text.contains("does not divide into 2 samples"), "{text}");
    Ok(())
}
