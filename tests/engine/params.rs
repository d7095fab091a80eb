//! The arena and parameters: names, gradients by name, freezing, loading, functional use, second order.

use shadegrad::nn::{Activation, Arena, Builder, Cx, Init, Linear, Module, Params};
use shadegrad::rng::Philox;
use shadegrad::{Result, Tensor};

use super::gpu;

struct Net {
    fc1: Linear,
    fc2: Linear,
}

impl Net {
    fn new(b: &mut Builder) -> Self {
        let mut root = b.root();
        Self { fc1: Linear::new(&mut root.sub("fc1"), 3, 5, true), fc2: Linear::new(&mut root.sub("fc2"), 5, 2, true) }
    }
}

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.fc2.forward(cx, &Activation::Tanh.apply(&self.fc1.forward(cx, x)?)?)
    }
}

fn net() -> Result<(Net, Arena)> {
    let mut b = Builder::new();
    let net = Net::new(&mut b);
    let arena = Arena::new(&gpu(), &b, 9)?;
    Ok((net, arena))
}

fn random(shape: &[usize], stream: u64) -> Result<Tensor> {
    let mut v = vec![0.0; shape.iter().product()];
    Philox::new(77, stream).fill_normal(&mut v, 0.0, 1.0);
    Tensor::from_slice(&gpu(), &v, shape)
}

/// Mean of squares: any smooth scalar.
fn loss(net: &Net, cx: &Cx, x: &Tensor) -> Result<Tensor> {
    net.forward(cx, x)?.square()?.sum_to(&[])?.mul_scalar(0.1)
}

fn vectors(params: &Params) -> Result<Vec<Vec<f32>>> {
    params.tensors().iter().map(Tensor::to_vec).collect()
}

fn close(a: &[Vec<f32>], b: &[Vec<f32>], tol: f32) {
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() <= tol * (1.0 + b.abs()), "{a} against {b}");
    }
}

#[test]
fn params_have_pytorch_names_and_streams_of_their_own() -> Result<()> {
    let (_, arena) = net()?;
    assert_eq!(arena.params().names().collect::<Vec<_>>(), ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
    assert_eq!(arena.params().by_name("fc2.weight")?.shape(), [2, 5]);
    assert!(arena.params().by_name("fc3.weight").is_err());
    // Another layer in front changes nothing for the ones behind.
    let mut b = Builder::new();
    b.root().sub("fc0").param("weight", &[100], Init::Normal(0.0, 1.0));
    Net::new(&mut b);
    let wider = Arena::new(&gpu(), &b, 9)?;
    assert_eq!(wider.params().by_name("fc2.weight")?.to_vec()?, arena.params().by_name("fc2.weight")?.to_vec()?);
    let first = vectors(arena.params())?;
    arena.set_values_flat(&Tensor::zeros(&gpu(), &[arena.table().floats()])?)?;
    assert!(vectors(arena.params())?.iter().flatten().all(|v| *v == 0.0));
    arena.reset()?;
    assert_eq!(vectors(arena.params())?, first);
    Ok(())
}

#[test]
fn params_gradients_land_in_the_arena() -> Result<()> {
    let (net, arena) = net()?;
    let x = random(&[4, 3], 1)?;
    let l = loss(&net, &Cx::train(&arena), &x)?;
    arena.backward(&l)?;
    let want = vectors(&arena.params().grad(&loss(&net, &Cx::train(&arena), &x)?, false, &[])?)?;
    assert_eq!(vectors(arena.grads())?, want);
    // In parts: twice a half is the whole, and overwriting forgets.
    arena.zero_grad()?;
    for _ in 0..2 {
        arena.backward_add(&loss(&net, &Cx::train(&arena), &x)?, 0.5)?;
    }
    close(&vectors(arena.grads())?, &want, 1e-6);
    arena.backward(&loss(&net, &Cx::train(&arena), &x)?)?;
    assert_eq!(vectors(arena.grads())?, want);
    let flat = arena.grads_flat().to_vec()?;
    assert_eq!(flat.iter().filter(|v| **v != 0.0).count(), want.iter().flatten().filter(|v| **v != 0.0).count());
    Ok(())
}

#[test]
fn params_missing_gradients_are_named() -> Result<()> {
    let (net, mut arena) = net()?;
    let x = random(&[4, 3], 1)?;
    let half = |arena: &Arena| net.fc1.forward(&Cx::train(arena), &x)?.square()?.sum_to(&[]);
    let text = arena.backward(&half(&arena)?).expect_err("fc2 has no gradient").to_string();
    assert!(
        text.contains("2 of 4") && text.contains("fc2.weight, fc2.bias") && text.contains("allow_missing"),
        "{text}"
    );
    // The operation that cuts the path is named.
    let cut = net.fc2.forward(&Cx::train(&arena), &net.fc1.forward(&Cx::train(&arena), &x)?.sign()?)?.sum_to(&[])?;
    let text = arena.backward(&cut).expect_err("sign has no gradient").to_string();
    assert!(text.contains("`sign`") && text.contains("fc1.weight, fc1.bias"), "{text}");
    arena.allow_missing("fc2.*");
    arena.backward(&half(&arena)?)?;
    assert!(arena.grads().by_name("fc2.weight")?.to_vec()?.iter().all(|v| *v == 0.0));
    assert!(arena.grads().by_name("fc1.weight")?.to_vec()?.iter().any(|v| *v != 0.0));
    // A constant loss says so.
    let text = arena.backward(&Tensor::ones(&gpu(), &[])?).expect_err("a constant").to_string();
    assert!(text.contains("constant"), "{text}");
    Ok(())
}

#[test]
fn params_freeze_by_pattern() -> Result<()> {
    let (net, mut arena) = net()?;
    let x = random(&[4, 3], 1)?;
    arena.backward(&loss(&net, &Cx::train(&arena), &x)?)?;
    arena.freeze("fc1.*")?;
    assert!(arena.is_frozen("fc1.bias")? && !arena.is_frozen("fc2.bias")?);
    assert!(!arena.params().by_name("fc1.weight")?.requires_grad());
    assert!(arena.grads().by_name("fc1.weight")?.to_vec()?.iter().all(|v| *v == 0.0));
    arena.backward(&loss(&net, &Cx::train(&arena), &x)?)?;
    assert!(arena.grads().by_name("fc1.weight")?.to_vec()?.iter().all(|v| *v == 0.0));
    assert!(arena.freeze("conv*").is_err());
    arena.unfreeze("*")?;
    arena.backward(&loss(&net, &Cx::train(&arena), &x)?)?;
    assert!(arena.grads().by_name("fc1.weight")?.to_vec()?.iter().any(|v| *v != 0.0));
    Ok(())
}

#[test]
fn params_load_is_strict() -> Result<()> {
    let (_, arena) = net()?;
    let state = arena.state()?;
    let mut other = state.clone();
    other.remove(0);
    other[0].0 = "fc1.biass".into();
    other[1].1 = vec![5, 2];
    let text = arena.load(&other).expect_err("three mistakes").to_string();
    for part in ["missing: fc1.weight, fc1.bias", "unexpected: fc1.biass", "fc2.weight is [2, 5], given [5, 2]"] {
        assert!(text.contains(part), "{text}");
    }
    let changed: Vec<_> =
        state.iter().map(|(n, s, v)| (n.clone(), s.clone(), v.iter().map(|x| x + 1.0).collect())).collect();
    let before = arena.snapshot()?;
    arena.load(&changed)?;
    assert_eq!(arena.state()?, changed);
    arena.restore(&before)?;
    assert_eq!(arena.state()?, state);
    let fork = arena.fork()?;
    arena.load(&changed)?;
    assert_eq!(fork.state()?, state);
    Ok(())
}

#[test]
fn params_flat_both_ways() -> Result<()> {
    let (net, arena) = net()?;
    let x = random(&[4, 3], 1)?;
    let flat = arena.params().to_flat()?;
    assert_eq!(flat.to_vec()?, arena.values_flat().to_vec()?);
    let leaf = arena.values_flat().leaf();
    let params = Params::from_flat(arena.table(), &leaf)?;
    let l = loss(&net, &Cx::train(&arena).with_params(&params), &x)?;
    let g = shadegrad::autograd::grad(&l, &[&leaf])?.remove(0);
    arena.backward(&loss(&net, &Cx::train(&arena), &x)?)?;
    for (a, b) in g.to_vec()?.iter().zip(arena.grads_flat().to_vec()?) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    // And through `to_flat` to the leaves.
    let weights = random(&[arena.table().floats()], 2)?;
    let got = arena.params().grad(&arena.params().to_flat()?.mul(&weights)?.sum_to(&[])?, false, &[])?;
    let want = Params::from_flat(arena.table(), &weights)?;
    assert_eq!(vectors(&got)?, vectors(&want)?);
    let text = Params::from_flat(arena.table(), &x).expect_err("a wrong shape").to_string();
    assert!(text.contains("to_flat"), "{text}");
    Ok(())
}

/// The loss after one inner step of gradient descent, differentiated with respect to the first parameters (Finn et al.,
/// 2017), against central differences.
#[test]
fn params_second_order_through_an_inner_step() -> Result<()> {
    let (net, arena) = net()?;
    let (x, x2) = (random(&[4, 3], 1)?, random(&[6, 3], 2)?);
    let outer = |params: &Params| -> Result<Tensor> {
        let cx = Cx::train(&arena).with_params(params);
        let g = params.grad(&loss(&net, &cx, &x)?, true, &[])?;
        let stepped = params.add_scaled(&g, -0.5)?;
        loss(&net, &cx.with_params(&stepped), &x2)
    };
    let got = arena.params().grad(&outer(arena.params())?, false, &[])?;
    for direction in 0..3 {
        let d = arena.params().map(|e, _| random(&e.shape, 10 + 7 * direction + e.offset as u64))?;
        let eps = 1e-2;
        let at =
            |s: f32| -> Result<f64> { Ok(outer(&arena.params().detach().add_scaled(&d, s)?.leaves())?.item()?.into()) };
        let want = (at(eps)? - at(-eps)?) / (2.0 * f64::from(eps));
        let mut slope = 0.0;
        for (g, d) in got.tensors().iter().zip(d.tensors()) {
            slope += g.to_vec()?.iter().zip(d.to_vec()?).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        }
        // f32 noise of the loss over the step, and the third derivative times its square.
        assert!((slope - want).abs() < 5e-3 * (1.0 + want.abs()), "{slope} against {want}");
    }
    Ok(())
}

#[test]
fn params_given_twice_is_an_error() {
    let mut b = Builder::new();
    Net::new(&mut b);
    Net::new(&mut b);
    let text = Arena::new(&gpu(), &b, 0).err().expect("names given twice").to_string();
    assert!(text.contains("fc1.weight") && text.contains("given twice"), "{text}");
}

/// Nine parameters take two dispatches of the kernel that collects small gradients; none of these lengths is a whole number of
/// its fours but one, and one is too long for it.
#[test]
fn gradients_of_all_lengths_arrive_and_what_lies_between_stays_zero() -> Result<()> {
    let gpu = gpu();
    let lengths = [1usize, 2, 3, 5, 63, 64, 65, 130, 70_000];
    let mut b = Builder::new();
    let ids: Vec<_> = lengths.iter().map(|&n| b.root().param(&format!("p{n}"), &[n], Init::Normal(0.0, 1.0))).collect();
    let arena = Arena::new(&gpu, &b, 0)?;
    let factors: Vec<Tensor> =
        lengths.iter().enumerate().map(|(i, &n)| random(&[n], i as u64)).collect::<Result<_>>()?;
    let mut loss = Tensor::zeros(&gpu, &[])?;
    for (id, f) in ids.iter().zip(&factors) {
        loss = loss.add(&arena.params().get(*id).mul(f)?.sum_all()?)?;
    }
    arena.backward(&loss)?;
    let mut rest = arena.grads_flat().to_vec()?;
    for ((id, f), e) in ids.iter().zip(&factors).zip(arena.table().entries()) {
        assert_eq!(arena.grads().get(*id).to_vec()?, f.to_vec()?, "{}", e.name);
        rest[e.offset..][..e.len].fill(0.0);
    }
    assert!(rest.iter().all(|v| *v == 0.0), "padding was written");
    Ok(())
}
