use shadegrad::autograd::grad;
use shadegrad::nn::{Arena, Builder, Cx, Module, ParamId};
use shadegrad::rng::Stream;
use shadegrad::{Attention, CrossEntropy, Result, Tensor};

use super::recipe::first_values;
use super::*;
use crate::papers::testing::gpu;
use crate::{Spec, Vit, VitConfig};

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&gpu(), values, shape).unwrap()
}

fn noise(shape: &[usize], stream: u64, std: f32) -> Tensor {
    Tensor::normal(&gpu(), shape, Stream::new(11, stream), 0.0, std).unwrap()
}

fn close(got: &[f32], want: &[f32], tol: f32) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tol, "{got:?} against {want:?}");
    }
}

/// The paper's small network on one-channel images of 28 x 28: 7 x 7 patches, width 48, three blocks with three heads.
fn small() -> VitConfig {
    let spec = Spec { height: 28, width: 28, channels: 1, classes: 10 };
    VitConfig { patch: 7, dim: 48, depth: 3, heads: 3, mlp: 192, ..VitConfig::micro(&spec) }
}

/// It with values larger than first ones, so that attention is uneven, and some images with labels.
fn vit() -> (Vit, Arena, Tensor, Tensor) {
    let mut names = Builder::new();
    let model = Vit::new(&mut names.root(), &small()).unwrap();
    let arena = Arena::new(&gpu(), &names, 2).unwrap();
    let flat = arena.values_flat();
    arena.set_values_flat(&flat.add(&noise(flat.shape(), 0, 0.15)).unwrap()).unwrap();
    let x = noise(&[4, 28, 28, 1], 1, 1.0);
    (model, arena, x, Tensor::from_u32(&gpu(), &[1, 2, 3, 4], &[4]).unwrap())
}

#[test]
fn the_penalty_by_hand() -> Result<()> {
    let rows = [0.25, 0.25, 0.25, 0.25, 1.0, 0.0, 0.0, 0.0, 0.7, 0.1, 0.1, 0.1];
    let a = tensor(&rows, &[1, 1, 3, 4]).leaf();
    let sums = a.square()?.log1p()?.sum(&[3], false)?.to_vec()?;
    close(&sums, &[0.242498, 2f32.ln(), 0.428627], 1e-6);
    let r = attn_penalty(std::slice::from_ref(&a), AttnPenalty::LogSquare, Layers::Last)?;
    close(&[r.item()?], &[0.113689], 1e-6);
    let slopes = grad(&r, &[&a])?[0].to_vec()?;
    let third = [0.078300, 0.016502, 0.016502, 0.016502];
    close(&slopes, &[&[0.039216; 4][..], &[0.083333, 0.0, 0.0, 0.0], &third].concat(), 1e-6);
    // What is not the paper's: T times as much, and the mean entropy of the rows.
    let of = |p| attn_penalty(std::slice::from_ref(&a), p, Layers::Last)?.item();
    close(&[of(AttnPenalty::LogSquareSum)?], &[4.0 * 0.113689], 4e-6);
    let entropy = (4f32.ln() - 0.7 * 0.7f32.ln() - 0.3 * 0.1f32.ln()) / 3.0;
    close(&[of(AttnPenalty::Entropy)?], &[entropy], 1e-6);
    // Over blocks: the last, or the mean.
    let flat = tensor(&[0.5; 8], &[1, 1, 4, 2]);
    let both = [a.detach(), flat];
    let last = attn_penalty(&both, AttnPenalty::LogSquare, Layers::Last)?.item()?;
    close(&[last], &[1.25f32.ln()], 1e-6);
    let all = attn_penalty(&both, AttnPenalty::LogSquare, Layers::All)?.item()?;
    close(&[all], &[0.5 * (1.25f32.ln() + 0.113689)], 1e-6);
    Ok(())
}

#[test]
fn descending_it_flattens_attention() -> Result<()> {
    let s = tensor(&[1.0, 0.0, -1.0], &[1, 1, 1, 3]).leaf();
    let a = s.softmax(3)?;
    close(&a.to_vec()?, &[0.665241, 0.244728, 0.090031], 1e-6);
    let r = attn_penalty(&[a], AttnPenalty::LogSquare, Layers::Last)?;
    close(&[r.item()?], &[0.144216], 1e-6);
    let slopes = grad(&r, &[&s])?[0].to_vec()?;
    close(&slopes, &[0.039838, -0.022911, -0.016927], 1e-6);
    assert!(slopes.iter().sum::<f32>().abs() < 1e-7);
    // A step down lowers the largest score.
    assert!(slopes[0] > 0.0);
    Ok(())
}

#[test]
fn rows_lie_between_uniform_and_one_hot() -> Result<()> {
    const T: usize = 17;
    let (low, high) = ((1.0f64 / 289.0).ln_1p() as f32, 2f32.ln() / 17.0);
    close(&[low, high], &[0.003454, 0.040773], 1e-6);
    let rows = noise(&[64, T], 3, 2.0).softmax(1)?;
    let means = rows.square()?.log1p()?.mean(&[1], false)?.to_vec()?;
    assert!(means.iter().all(|m| (low..=high).contains(m)), "{means:?}");
    let mut hot = vec![0.0; T];
    hot[5] = 1.0;
    let of = |row: &[f32]| {
        attn_penalty(&[tensor(row, &[1, 1, 1, T])], AttnPenalty::LogSquare, Layers::Last)?.item()
    };
    close(&[of(&[1.0 / 17.0; T])?, of(&hot)?], &[low, high], 1e-8);
    Ok(())
}

/// Gradients of the penalty alone, by parameter.
fn gradients(layers: Layers) -> (Arena, Vec<(String, Vec<f32>)>) {
    let (model, mut arena, x, _) = vit();
    arena.allow_missing("*");
    let (_, maps) = attention_maps(|| model.forward(&Cx::train(&arena), &x)).unwrap();
    assert_eq!((maps.len(), maps[0].shape()), (3, &[4, 3, 17, 17][..]));
    arena.backward(&attn_penalty(&maps, AttnPenalty::LogSquare, layers).unwrap()).unwrap();
    let grads = arena.grads().iter().map(|(name, g)| (name.to_string(), g.to_vec().unwrap())).collect();
    (arena, grads)
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

#[test]
fn only_the_last_block_is_penalised() {
    let (_, grads) = gradients(Layers::Last);
    let of = |name: &str| &grads.iter().find(|g| g.0 == name).unwrap().1;
    for name in ["norm.weight", "norm.bias", "head.weight", "head.bias"] {
        assert_eq!(largest(of(name)), 0.0, "{name}");
    }
    for name in ["attn.proj.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc2.weight", "norm2.weight"] {
        assert_eq!(largest(of(&format!("blocks.2.{name}"))), 0.0, "{name}");
        assert!(largest(of(&format!("blocks.1.{name}"))) > 0.0, "{name}");
    }
    // Queries, keys and values are rows of one parameter.
    let (weight, bias) = (of("blocks.2.attn.qkv.weight"), of("blocks.2.attn.qkv.bias"));
    let part = |all: &[f32], i: usize| largest(&all[i * all.len() / 3..(i + 1) * all.len() / 3]);
    assert!(part(weight, 0) > 1e-6 && part(weight, 1) > 1e-6);
    assert_eq!((part(weight, 2), part(bias, 2)), (0.0, 0.0));
    // A shift that all keys share changes no softmax.
    assert!(part(bias, 0) > 1e-7 && part(bias, 1) < 1e-3 * part(bias, 0), "{} {}", part(bias, 0), part(bias, 1));
    assert!(part(of("blocks.0.attn.qkv.weight"), 2) > 0.0);
}

#[test]
fn penalising_all_blocks_reaches_each_directly() -> Result<()> {
    let (arena, grads) = gradients(Layers::All);
    let (model, _, x, _) = vit();
    let of = |name: &str| &grads.iter().find(|g| g.0 == name).unwrap().1;
    for name in ["attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"] {
        assert_eq!(largest(of(&format!("blocks.2.{name}"))), 0.0, "{name}");
    }
    assert_eq!(largest(&of("blocks.2.attn.qkv.weight")[2 * 48 * 48..]), 0.0);
    // Central differences along the gradient itself, one block at a time, in queries and keys.
    for block in 0..3 {
        let name = format!("blocks.{block}.attn.qkv.weight");
        let id: ParamId = arena.params().id(&name)?;
        let (start, mut along) = (arena.params().get(id).to_vec()?, of(&name).clone());
        along[2 * 48 * 48..].fill(0.0);
        let square: f32 = along.iter().map(|g| g * g).sum();
        let step = 0.05 / square.sqrt();
        let at = |by: f32| {
            let moved: Vec<f32> = start.iter().zip(&along).map(|(w, g)| w + by * g).collect();
            arena.set_value(id, &tensor(&moved, &[144, 48]))?;
            let (_, maps) = no_grad(|| attention_maps(|| model.forward(&Cx::eval(&arena), &x)))?;
            // In double precision over the entries: the mean of so many is too coarse in single.
            let mean = |a: &Tensor| {
                let all = a.to_vec()?;
                Ok::<_, shadegrad::Error>(all.iter().map(|&a| f64::from(a).powi(2).ln_1p()).sum::<f64>() / all.len() as f64)
            };
            maps.iter().map(mean).sum::<Result<f64>>().map(|s| s / 3.0)
        };
        let difference = (at(step)? - at(-step)?) / f64::from(2.0 * step);
        at(0.0)?;
        assert!((difference / f64::from(square) - 1.0).abs() < 0.02, "block {block}: {difference} for {square}");
    }
    Ok(())
}

#[test]
fn lambda_zero_is_the_plain_model_to_the_bit() -> Result<()> {
    let bits = |lambda: Option<f32>| {
        let (model, arena, x, y) = vit();
        let cx = Cx::train(&arena).seeded(3, 0);
        let plain = |logits: &Tensor| logits.cross_entropy(&y, CrossEntropy::default());
        let forward = || model.forward(&cx, &x);
        let loss = match lambda {
            Some(lambda) => {
                let sparse = SparseLoss { lambda, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
                sparse.add(forward, plain)?
            }
            None => plain(&forward()?)?,
        };
        arena.backward(&loss)?;
        let all = [loss.to_vec()?, arena.grads_flat().to_vec()?].concat();
        Ok::<_, shadegrad::Error>(all.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let plain = bits(None)?;
    assert_eq!(bits(Some(0.0))?, plain);
    assert_ne!(bits(Some(1.0))?, plain);
    // Looking at the attention changes no logits but for the order of sums (kernels that never hold the weights are left
    // out), in training and where the penalty is measured in evaluation.
    let (model, arena, x, _) = vit();
    for cx in [Cx::train(&arena), Cx::eval(&arena)] {
        let plain = model.forward(&cx, &x)?.to_vec()?;
        let (watched, maps) = attention_maps(|| model.forward(&cx, &x))?;
        close(&watched.to_vec()?, &plain, 1e-5 * largest(&plain).max(1.0));
        assert_eq!(maps.len(), 3);
    }
    Ok(())
}

/// Three tensors of the names and weights of the counting example.
fn three() -> Arena {
    let mut names = Builder::new();
    let parts: [(&str, &[f32]); 3] = [("a", &[0.5, -0.1, 0.3]), ("b", &[-0.05, 0.08]), ("c", &[0.2, -0.6, 0.01, 0.4])];
    for (name, values) in parts {
        names.root().sub(name).param("weight", &[values.len()], shadegrad::nn::Init::Zeros);
    }
    let arena = Arena::new(&gpu(), &names, 0).unwrap();
    for (name, values) in parts {
        let id = arena.params().id(&format!("{name}.weight")).unwrap();
        arena.set_value(id, &tensor(values, &[values.len()])).unwrap();
    }
    arena
}

#[test]
fn so_many_go_over_all_layers_pooled() -> Result<()> {
    let mut arena = three();
    let report = prune_global_l1(&mut arena, 0.4, weights(""))?;
    assert_eq!((report.total, report.pruned, report.threshold), (9, 4, 0.1));
    let values = |arena: &Arena, name: &str| arena.params().by_name(name)?.to_vec();
    assert_eq!(values(&arena, "a.weight")?, [0.5, 0.0, 0.3]);
    assert_eq!(values(&arena, "b.weight")?, [0.0, 0.0]);
    assert_eq!(values(&arena, "c.weight")?, [0.2, -0.6, 0.0, 0.4]);
    assert_eq!(report.per_tensor, [("a.weight".into(), 1, 3), ("b.weight".into(), 2, 2), ("c.weight".into(), 1, 4)]);
    // Forty per cent of each tensor alone would take -0.1, -0.05, 0.01 and 0.2 instead.
    let mut alone = three();
    for (name, gone) in [("a.weight", 1), ("b.weight", 1), ("c.weight", 2)] {
        let report = prune_global_l1(&mut alone, 0.4, |e| e.name == name)?;
        assert_eq!(report.pruned, gone);
    }
    assert_eq!(values(&alone, "c.weight")?, [0.0, -0.6, 0.0, 0.4]);
    // The paper's network: k = round(0.1 n).
    assert_eq!((0.1f64 * 85_550_592.0).round_ties_even(), 8_555_059.0);
    Ok(())
}

#[test]
fn what_can_be_pruned_is_the_papers_set() -> Result<()> {
    let (_, mut arena, ..) = vit();
    let count = 49 * 48 + 3 * (2 * 48 + 4 * 48 * 48 + 2 * 48 * 192) + 480;
    assert_eq!(count, 86_064);
    let before = arena.values_flat().to_vec()?;
    let report = prune_global_l1(&mut arena, 0.5, weights("norm.weight"))?;
    assert_eq!((report.total, report.pruned), (86_064, 43_032));
    let after = arena.values_flat().to_vec()?;
    let mut untouched = 0;
    for e in arena.table().entries() {
        let range = e.offset..e.offset + e.len;
        let zeros = after[range.clone()].iter().filter(|v| **v == 0.0).count();
        let listed = report.per_tensor.iter().find(|t| t.0 == e.name);
        match listed {
            Some((_, gone, total)) => assert_eq!((*gone, *total), (zeros, e.len), "{}", e.name),
            None => {
                assert_eq!(before[range.clone()], after[range], "{}", e.name);
                untouched += 1;
            }
        }
    }
    // Patch bias, class token, positions, head's bias, last norm: 2; each block: two norms' and four layers' biases.
    assert_eq!(untouched, 1 + 1 + 1 + 1 + 2 + 3 * 6);
    // ViT-B/16 at 384 pixels with 10 classes, by its table alone.
    let spec = Spec { height: 384, width: 384, channels: 3, classes: 10 };
    let mut names = Builder::new();
    Vit::new(&mut names.root(), &VitConfig { patch: 16, ..VitConfig::base(&spec) })?;
    let (table, _) = names.tables()?;
    let chosen = weights("norm.weight");
    assert_eq!(table.entries().iter().filter(|e| chosen(e)).map(|e| e.len).sum::<usize>(), 85_550_592);
    Ok(())
}

#[test]
fn rate_and_momentum_of_one_cycle() -> Result<()> {
    let config = OneCycleConfig { pct: 0.25, ..OneCycleConfig::paper(200) };
    let cycle = OneCycle::new(config)?;
    for (step, lr, momentum) in [
        (0, 4.0e-5, 0.95),
        (24, 5.046152e-4, 0.901603),
        (49, 1e-3, 0.85),
        (100, 7.408779e-4, 0.875912),
        (199, 4e-9, 0.95),
    ] {
        let (got, m) = (cycle.lr(step), cycle.momentum(step));
        assert!((got / lr - 1.0).abs() < 1e-6 || (got - lr).abs() < 1e-10, "{step}: {got} for {lr}");
        assert!((m - momentum).abs() < 1e-6, "{step}: {m} for {momentum}");
    }
    // 500 steps of warm-up where there are more; the code's share would pass 1 otherwise.
    assert_eq!(OneCycleConfig::paper(2000).pct, 0.25);
    assert_eq!(OneCycleConfig::paper(400).pct, 0.3);
    let err = |config| OneCycle::new(config).unwrap_err().to_string();
    assert!(err(OneCycleConfig { pct: 1.0, ..config }).contains("200 steps, 1 of them rising"));
    assert!(err(OneCycleConfig { pct: 0.005, ..config }).contains("more than one step"));
    assert!(err(OneCycleConfig { momentum: Some((0.95, 0.85)), ..config }).contains("momenta"));
    // As a watcher it sets each step's momentum.
    let mut arena = three();
    let mut optimizer = Optimizer::new(&arena, cycle.rule(0))?;
    let mut watcher = cycle.clone();
    watcher.stepped(48, &mut arena, &mut optimizer)?;
    assert_eq!(optimizer.rule(), cycle.rule(49));
    Ok(())
}

#[test]
fn pruning_again_changes_nothing_and_shares_are_nested() -> Result<()> {
    let (_, mut arena, ..) = vit();
    let zeros = |arena: &Arena| {
        let values = arena.values_flat().to_vec()?;
        Ok::<_, shadegrad::Error>(values.iter().map(|v| *v == 0.0).collect::<Vec<_>>())
    };
    let mut last = zeros(&arena)?;
    for share in [0.1, 0.3, 0.3, 0.5] {
        let mut straight = arena.fork()?;
        straight.clear_masks();
        let report = prune_global_l1(&mut arena, share, weights("norm.weight"))?;
        let now = zeros(&arena)?;
        assert!(last.iter().zip(&now).all(|(before, now)| !before || *now));
        assert_eq!(report.pruned, (share * 86_064.0).round_ties_even() as usize);
        // The zeros without their masks are found again.
        prune_global_l1(&mut straight, share, weights("norm.weight"))?;
        assert_eq!(zeros(&straight)?, now);
        if report.threshold == 0.0 {
            assert_eq!(now, last);
        }
        last = now;
    }
    assert_eq!(prune_global_l1(&mut arena, 0.2, weights("norm.weight"))?.pruned, 43_032);
    Ok(())
}

#[test]
fn tiles_agree_with_the_whole_attention() -> Result<()> {
    for (l, s, tile) in [(17, 17, 5), (9, 33, 8), (4, 6, 6), (3, 5, 100)] {
        let shapes = [[2, 3, l, 16], [2, 3, s, 16], [2, 3, s, 12]];
        let [q, k, v] = [0, 1, 2].map(|i| noise(&shapes[i], 20 + i as u64, 1.5).leaf());
        let scale = 0.25;
        let entries = (2 * 3 * l * s) as f32;
        let lambda = 40.0;
        let cotangent = noise(&[2, 3, l, 12], 30, 1.0);
        let run = |tiled: bool| -> Result<(Vec<f32>, f32, Vec<Vec<f32>>)> {
            let (out, r) = if tiled {
                let (out, sum) = tiled_attention(&q, &k, &v, scale, tile)?;
                (out, sum.mul_scalar(1.0 / entries)?)
            } else {
                let attend = || q.sdpa(&k, &v, Attention { scale: Some(scale), ..Attention::default() });
                let (out, maps) = attention_maps(attend)?;
                (out, attn_penalty(&maps, AttnPenalty::LogSquare, Layers::Last)?)
            };
            let loss = out.mul(&cotangent)?.sum_all()?.add(&r.mul_scalar(lambda)?)?;
            let grads = grad(&loss, &[&q, &k, &v])?;
            Ok((out.to_vec()?, r.item()?, grads.iter().map(Tensor::to_vec).collect::<Result<_>>()?))
        };
        let (whole, tiles) = (run(false)?, run(true)?);
        close(&tiles.0, &whole.0, 1e-5);
        assert!((tiles.1 / whole.1 - 1.0).abs() <= 1e-6, "{} against {}", tiles.1, whole.1);
        for (got, want) in tiles.2.iter().zip(&whole.2) {
            close(got, want, 2e-5 * largest(want).max(1.0));
        }
    }
    let q = noise(&[1, 1, 2, 4], 0, 1.0).leaf();
    assert!(tiled_attention(&q, &q, &q, 1.0, 0).is_err());
    let (out, _) = tiled_attention(&q, &q, &q, 1.0, 1)?;
    let second = shadegrad::autograd::grad_create_graph(&out.sum_all()?, &[&q]);
    assert!(second.unwrap_err().to_string().contains("no second derivative"));
    Ok(())
}

#[test]
fn without_its_second_term_the_shortcut_is_wrong() -> Result<()> {
    // dS = A (dA - rowsum(dA A)): with the penalty, rowsum(dO O) is only a part of that row.
    let [q, k, v] = [0, 1, 2].map(|i| noise(&[1, 1, 6, 8], 40 + i, 1.0));
    let (_, maps) = no_grad(|| attention_maps(|| q.sdpa(&k, &v, Attention::default())))?;
    let a = &maps[0];
    let (d_out, c) = (noise(&[1, 1, 6, 8], 50, 1.0), 3.0);
    let own = a.mul_scalar(2.0)?.div(&a.square()?.add_scalar(1.0)?)?.mul_scalar(c)?;
    let da = d_out.matmul_t(&v, false, true)?.add(&own)?;
    let row = da.mul(a)?.sum(&[3], false)?.to_vec()?;
    let shortcut = d_out.mul(&a.matmul(&v)?)?.sum(&[3], false)?;
    let corrected = shortcut.add(&own.mul(a)?.sum(&[3], false)?)?.to_vec()?;
    close(&corrected, &row, 1e-4);
    let apart: Vec<f32> = shortcut.to_vec()?.iter().zip(&row).map(|(a, b)| a - b).collect();
    assert!(apart.iter().all(|d| d.abs() > 0.1), "{apart:?}");
    Ok(())
}

#[test]
fn attention_is_measured_by_block() -> Result<()> {
    let pair = shadegrad::data::digits();
    let stats = pair.test.channel_stats()?;
    let images = Images::upload(&gpu(), &pair.test, &stats)?;
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    let mut names = Builder::new();
    let model = Vit::new(&mut names.root(), &VitConfig { patch: 2, ..VitConfig::micro(&spec) })?;
    let arena = Arena::new(&gpu(), &names, 0)?;
    // Without queries attention is uniform.
    for block in 0..2 {
        let id = arena.params().id(&format!("blocks.{block}.attn.qkv.weight"))?;
        arena.set_value(id, &Tensor::zeros(&gpu(), &[192, 64])?)?;
    }
    let found = attention_stats(&model, &Cx::eval(&arena), &images, 150)?;
    for block in 0..2 {
        assert!((found.entropy[block] - 17f64.ln()).abs() < 1e-5, "{found:?}");
        assert!((found.log_square[block] - (1.0 + 1.0 / 289.0f64).ln()).abs() < 1e-7, "{found:?}");
    }
    Ok(())
}

#[test]
fn first_values_are_those_of_the_small_network() -> Result<()> {
    let mut names = Builder::new();
    Vit::new(&mut names.root(), &small())?;
    let arena = Arena::new(&gpu(), &names, 0)?;
    first_values(&arena, 4)?;
    for e in arena.table().entries() {
        let values = arena.params().by_name(&e.name)?.to_vec()?;
        let fan_in = e.shape[1..].iter().product::<usize>() as f32;
        let std = match e.name.as_str() {
            n if n.ends_with("bias") => 0.0,
            "cls_token" | "pos_embed" => 0.02,
            "head.weight" => 0.1 / fan_in.sqrt(),
            _ if e.shape.len() == 1 => {
                assert!(values.iter().all(|v| *v == 1.0));
                continue;
            }
            _ => 1.0 / fan_in.sqrt(),
        };
        assert!(largest(&values) <= 2.0 * std + 1e-7, "{}", e.name);
        let measured = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        // A normal cut at two deviations keeps 0.8796 of its own; 48 values of the class token are few.
        assert!((measured - 0.8796 * std).abs() <= 0.25 * std, "{}: {measured} for {std}", e.name);
    }
    Ok(())
}

#[test]
fn mistakes_are_errors() -> Result<()> {
    let mut arena = three();
    let err = |r: Result<PruneReport>| r.unwrap_err().to_string();
    assert!(err(prune_global_l1(&mut arena, 1.5, weights(""))).contains("a share of 1.5"));
    assert!(err(prune_global_l1(&mut arena, f64::NAN, weights(""))).contains("NaN"));
    assert!(err(prune_global_l1(&mut arena, 0.5, |_| false)).contains("could be pruned"));
    let none = attn_penalty(&[], AttnPenalty::LogSquare, Layers::Last).unwrap_err().to_string();
    assert!(none.contains("attention_maps"), "{none}");
    let sparse = SparseLoss { lambda: 1.0, penalty: AttnPenalty::LogSquare, layers: Layers::All };
    let x = noise(&[2, 3], 0, 1.0).leaf();
    let total = |y: &Tensor| y.sum_all();
    assert!(sparse.add(|| x.relu(), total).unwrap_err().to_string().contains("no attention weights"));
    let q = noise(&[1, 1, 2, 4], 0, 1.0);
    let constant = sparse.add(|| q.sdpa(&q, &q, Attention::default())?.add(&x.sum_all()?), total);
    assert!(constant.unwrap_err().to_string().contains("constants"));
    let infinite = SparseLoss { lambda: f32::INFINITY, ..sparse };
    assert!(infinite.add(|| x.relu(), total).unwrap_err().to_string().contains("finite"));
    // Patches that do not divide the image.
    let mut names = Builder::new();
    assert!(Vit::new(&mut names.root(), &VitConfig { patch: 5, ..small() }).is_err());
    Ok(())
}
