//! What training touches, what it holds in memory, and that it learns.

use shadegrad::data::digits;
use shadegrad::nn::{Arena, Builder, Cx, Linear, Module, Scope};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Stream;
use shadegrad::train::Images;
use shadegrad::{CrossEntropy, Error, Gpu, Options, Result, Tensor};

use super::*;
use crate::papers::testing::gpu;

/// A network of a user's own: two layers over the input and the state, and the time where there is one.
struct Mine(Linear, Linear);

impl Mine {
    fn new(scope: &mut Scope<'_>, inputs: usize, classes: usize) -> Self {
        Self(
            Linear::new(&mut scope.sub("a"), inputs, 32, true),
            Linear::new(&mut scope.sub("b"), 32, classes, true),
        )
    }
}

impl Block for Mine {
    fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let n = x.dim(0);
        let x = x.reshape(&[n, x.numel() / n])?;
        let time = time.map(|t| t.reshape(&[n, 1])).transpose()?;
        let parts: Vec<&Tensor> = [Some(&x), Some(z), time.as_ref()].into_iter().flatten().collect();
        self.1.forward(cx, &self.0.forward(cx, &Tensor::concat(&parts, 1)?)?.relu()?)
    }
}

/// Points around the corners of a triangle: three classes of two numbers.
fn triangle(gpu: &Gpu, count: usize) -> (Tensor, Vec<u32>) {
    let labels: Vec<u32> = (0..count as u32).map(|i| i % 3).collect();
    let mut rng = shadegrad::rng::Philox::new(4, 2);
    let x: Vec<f32> = (labels.iter())
        .flat_map(|&l| {
            let angle = f64::from(l) * std::f64::consts::TAU / 3.0;
            [(angle.cos() + 0.2 * rng.normal()) as f32, (angle.sin() + 0.2 * rng.normal()) as f32]
        })
        .collect();
    (Tensor::from_slice(gpu, &x, &[count, 2]).unwrap(), labels)
}

fn net(gpu: &Gpu, embedding: &Embedding, settings: Settings) -> NoPropDt<Mine> {
    let inputs = 2 + embedding.dim(3);
    NoPropDt::new(gpu, 0, 3, embedding, Schedule::standard(3).unwrap(), settings, |s, _| Ok(Mine::new(s, inputs, 3))).unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_step_touches_one_block() {
    let gpu = gpu();
    let (x, labels) = triangle(&gpu, 12);
    let mut net = net(&gpu, &Embedding::Learned { dim: 5 }, Settings::discrete());
    // Gradient buffers hold a mark that must stay where it is.
    for t in 1..=3 {
        let arena = net.arena(t).unwrap();
        arena.set_grads_flat(&Tensor::full(&gpu, &[arena.table().floats()], 7.5).unwrap()).unwrap();
    }
    let seen = |net: &NoPropDt<Mine>| -> Vec<[Vec<u32>; 3]> {
        (1..=3)
            .map(|t| {
                let a = net.arena(t).unwrap();
                [bits(a.values_flat()), bits(a.grads_flat()), bits(a.buffers_flat())]
            })
            .collect()
    };
    let (before, shared) = (seen(&net), bits(net.shared().values_flat()));
    net.train_block(2, &x, &labels, Stream::new(0, 1)).unwrap();
    let after = seen(&net);
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1][0], after[1][0]);
    assert_ne!(before[1][1], after[1][1]);
    assert_ne!(shared, bits(net.shared().values_flat()));
    for name in ["embedding", "out.weight", "out.bias"] {
        assert!(net.shared().grads().by_name(name).unwrap().to_vec().unwrap().iter().any(|g| *g != 0.0), "{name}");
    }
}

#[test]
fn blocks_learn_the_same_in_any_order() {
    let gpu = gpu();
    let (x, labels) = triangle(&gpu, 12);
    let after = |order: [usize; 3]| -> Vec<Vec<u32>> {
        let mut net = net(&gpu, &Embedding::OneHot, Settings::discrete());
        for step in 0..2 {
            for t in order {
                net.train_block(t, &x, &labels, Stream::new(t as u64, step)).unwrap();
            }
        }
        (1..=3).map(|t| bits(net.arena(t).unwrap().values_flat())).collect()
    };
    assert_eq!(after([1, 2, 3]), after([3, 1, 2]));
}

/// A device of its own, so that its memory is counted alone.
fn own() -> Gpu {
    Gpu::new(Options::from_env().unwrap()).unwrap()
}

/// Blocks with batch norm for 8 x 8 pictures, and a batch of them.
fn blocks() -> PaperNet {
    PaperNet::discrete([8, 8, 1], 10, 10).sized(None, 32)
}

fn pictures(gpu: &Gpu, count: usize) -> (Tensor, Vec<u32>) {
    let x = Tensor::normal(gpu, &[count, 8, 8, 1], Stream::new(1, 1), 0.0, 1.0).unwrap();
    (x, (0..count as u32).map(|i| i % 10).collect())
}

/// Bytes that `step` had in use at most, beyond what was there before it.
fn working(gpu: &Gpu, mut step: impl FnMut()) -> u64 {
    step();
    gpu.reset_peak();
    let before = gpu.memory().live;
    step();
    gpu.memory().peak - before
}

#[test]
fn memory_of_a_step_does_not_grow_with_depth_and_that_of_back_propagation_does() {
    let local = |depth: usize| {
        let gpu = own();
        let (x, labels) = pictures(&gpu, 128);
        let schedule = Schedule::standard(depth).unwrap();
        let make = |s: &mut Scope<'_>, _: usize| blocks().build(s);
        let mut net = NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, schedule, Settings::discrete(), make).unwrap();
        let mut step = 0;
        working(&gpu, || {
            step += 1;
            net.train_block(1 + step as usize % depth, &x, &labels, Stream::new(0, step)).unwrap();
        })
    };
    let global = |depth: usize| {
        let gpu = own();
        let (x, labels) = pictures(&gpu, 128);
        let labels = Tensor::labels(&gpu, &labels, 10).unwrap();
        let mut names = Builder::new();
        let make = |s: &mut Scope<'_>, _: usize| blocks().build(s);
        let model = BackPropagated::new(&mut names.root(), 10, &Embedding::OneHot, depth, make).unwrap();
        let arena = Arena::new(&gpu, &names, 0).unwrap();
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(1e-3)).unwrap();
        working(&gpu, || {
            let logits = model.forward(&Cx::train(&arena), &x).unwrap();
            arena.backward(&logits.cross_entropy(&labels, CrossEntropy::default()).unwrap()).unwrap();
            optimizer.step(&arena, 1e-3).unwrap();
        })
    };
    let (shallow, deep) = (local(2), local(12));
    assert_eq!(shallow, deep, "bytes of a step with 2 and with 12 blocks");
    let (few, many) = (global(2), global(12));
    // Six times the blocks: nearly six times the memory.
    assert!(many > 4 * few && many > 4 * deep, "{few} and {many} bytes, against {deep}");
}

#[test]
fn parked_blocks_leave_the_device_and_change_nothing() {
    // Everything that is ever in use: weights, moments and gradients too, from the first block to a prediction.
    let peak = |depth: usize| {
        let gpu = own();
        let samples = pictures(&gpu, 64);
        let settings = Settings { park: true, batch: 64, ..Settings::discrete() };
        let make = |s: &mut Scope<'_>, _: usize| blocks().build(s);
        let mut net =
            NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, Schedule::standard(depth).unwrap(), settings, make).unwrap();
        net.fit(&samples, 1, |_, _| Ok(())).unwrap();
        let trained = gpu.memory().peak;
        let p = net.predict(&samples.0, 1, Stream::new(3, 0)).unwrap();
        (trained, p.to_vec().unwrap(), gpu.memory().peak)
    };
    let (two, _, _) = peak(2);
    let (six, parked, later) = peak(6);
    assert_eq!((two, later), (six, six), "bytes with 2 and with 6 blocks");
    let gpu = own();
    let samples = pictures(&gpu, 64);
    let settings = Settings { batch: 64, ..Settings::discrete() };
    let make = |s: &mut Scope<'_>, _: usize| blocks().build(s);
    let mut net = NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, Schedule::standard(6).unwrap(), settings, make).unwrap();
    net.fit(&samples, 1, |_, _| Ok(())).unwrap();
    let free = net.predict(&samples.0, 1, Stream::new(3, 0)).unwrap();
    assert_eq!(free.to_vec().unwrap(), parked);
    assert!(gpu.memory().peak > six);
}

#[test]
fn a_users_network_learns_by_all_three() {
    let gpu = gpu();
    let (train, test) = (triangle(&gpu, 192), triangle(&gpu, 96));
    let settings = |s: Settings| Settings { lr: 0.01, batch: 32, ..s };
    let measure = |f: &dyn Fn(&Tensor, Stream) -> Result<Tensor>| accuracy(&test, 96, Stream::new(9, 0), f).unwrap();
    let mut discrete = net(&gpu, &Embedding::OneHot, settings(Settings::discrete()));
    let log = discrete.fit(&train, 8, |_, _| Ok(())).unwrap();
    assert!(log.len() == 8 && log[7].losses.len() == 3 && log[7].losses[2] < log[0].losses[2]);
    let right = measure(&|x, s| discrete.predict(x, 2, s));
    assert!(right > 0.95, "discrete time: {right}");
    // Without the input nothing is left of it: the label does not leak.
    let blind = measure(&|x, s| discrete.predict(&x.mul_scalar(0.0)?, 1, s));
    assert!(blind < 0.6, "without the input: {blind}");
    let make = |s: &mut Scope<'_>| Ok(Mine::new(s, 2 + 3 + 1, 3));
    let rule = Rule::adam();
    let s = Settings { rule, ..settings(Settings::continuous()) };
    let mut continuous = NoPropCt::new(&gpu, 0, 3, &Embedding::OneHot, Noise::default(), s, make).unwrap();
    continuous.fit(&train, 24, |_, _| Ok(())).unwrap();
    for how in [Sampler::Stochastic, Sampler::Deterministic] {
        let right = measure(&|x, s| continuous.predict(x, 20, how, 1, s));
        assert!(right > 0.85, "{how:?}: {right}");
    }
    let curve = continuous.curve().unwrap();
    assert!(curve.gamma(0.0) > curve.gamma(0.5) && curve.gamma(0.5) > curve.gamma(1.0));
    let mut flow = NoPropFm::new(&gpu, 0, 3, &Embedding::OneHot, 0.0, s, make).unwrap();
    flow.fit(&train, 24, |_, _| Ok(())).unwrap();
    let right = measure(&|x, s| flow.predict(x, 20, 1, s));
    assert!(right > 0.9, "flow matching: {right}");
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let gpu = gpu();
    let train = triangle(&gpu, 24);
    let run = || {
        let settings = Settings { batch: 10, ..Settings::discrete() };
        let mut net = net(&gpu, &Embedding::Learned { dim: 2 }, settings);
        net.fit(&train, 2, |_, _| Ok(())).unwrap();
        let p = net.predict(&train.0, 2, Stream::new(5, 1)).unwrap();
        // Rows of probabilities.
        assert!(p.to_vec().unwrap().chunks(3).all(|r| (r.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        (bits(net.shared().values_flat()), bits(&p))
    };
    assert_eq!(run(), run());
}

#[test]
fn prototypes_are_the_medoids() {
    let gpu = gpu();
    // Class 0 lies at 0, 1 and 10: median distances 5.5, 5 and 9.5. Class 1 has one member.
    let x = Tensor::from_slice(&gpu, &[0.0, -4.0, 10.0, 1.0], &[4, 1]).unwrap();
    let found = Embedding::prototypes(&(x.clone(), vec![0, 1, 0, 0]), 2).unwrap();
    assert_eq!(found, Embedding::Prototype { rows: vec![1.0, -4.0] });
    assert_eq!(found.dim(2), 1);
    let err = Embedding::prototypes(&(x.clone(), vec![0, 0, 0, 0]), 2).unwrap_err().to_string();
    assert!(err.contains("class 1 has no sample"), "{err}");
    assert!(Embedding::prototypes(&(x, vec![0, 5, 0, 0]), 2).unwrap_err().to_string().contains("label 5"));
    // As pictures, they go through an image path of their own.
    let digits = digits().train.first_per_class(5).unwrap();
    let images = Images::upload(&gpu, &digits, &digits.channel_stats().unwrap()).unwrap();
    let embedding = Embedding::prototypes(&images, 10).unwrap();
    let block = PaperNet { pictured: true, ..PaperNet::discrete([8, 8, 1], 10, 64).sized(Some([2, 3, 4]), 16) };
    let make = |s: &mut Scope<'_>, _: usize| block.build(s);
    let settings = Settings { batch: 50, ..Settings::discrete() };
    let mut net = NoPropDt::new(&gpu, 0, 10, &embedding, Schedule::standard(2).unwrap(), settings, make).unwrap();
    let Embedding::Prototype { rows } = &embedding else { panic!("{embedding:?}") };
    assert_eq!(&net.shared().params().by_name("embedding").unwrap().to_vec().unwrap(), rows);
    net.fit(&images, 1, |_, _| Ok(())).unwrap();
    assert_ne!(&net.shared().params().by_name("embedding").unwrap().to_vec().unwrap(), rows);
}

#[test]
fn learned_embeddings_start_orthonormal_where_they_can() {
    let gpu = gpu();
    let w = net(&gpu, &Embedding::Learned { dim: 5 }, Settings::discrete());
    let w = w.shared().params().by_name("embedding").unwrap().clone();
    let gram = w.matmul_t(&w, false, true).unwrap().to_vec().unwrap();
    for (i, g) in gram.iter().enumerate() {
        assert!((g - f32::from(u8::from(i % 4 == 0))).abs() < 1e-5, "{gram:?}");
    }
    let w = net(&gpu, &Embedding::Learned { dim: 2 }, Settings::discrete());
    assert_eq!(w.shared().params().by_name("embedding").unwrap().shape(), [3, 2]);
}

#[test]
fn the_paths_of_figure_6_run_in_all_variants() {
    let gpu = gpu();
    let data = digits().train.first_per_class(2).unwrap();
    let images = Images::upload(&gpu, &data, &data.channel_stats().unwrap()).unwrap();
    let narrow = |net: PaperNet| net.sized(Some([2, 3, 4]), 16);
    let (dt, ct) = (narrow(PaperNet::discrete([8, 8, 1], 10, 10)), narrow(PaperNet::continuous([8, 8, 1], 10, 10)));
    let settings = Settings { batch: 20, ..Settings::continuous() };
    let mut c = NoPropCt::new(&gpu, 0, 10, &Embedding::OneHot, Noise::default(), settings, |s| ct.build(s)).unwrap();
    c.fit(&images, 1, |_, _| Ok(())).unwrap();
    let mut f = NoPropFm::new(&gpu, 0, 10, &Embedding::OneHot, 0.1, settings, |s| ct.build(s)).unwrap();
    f.fit(&images, 1, |_, _| Ok(())).unwrap();
    let mut names = Builder::new();
    let make = |s: &mut Scope<'_>, _: usize| dt.build(s);
    let model = BackPropagated::new(&mut names.root(), 10, &Embedding::Learned { dim: 10 }, 3, make).unwrap();
    let arena = Arena::new(&gpu, &names, 0).unwrap();
    model.fill(&arena).unwrap();
    let batch = images.plain(&[0, 1, 2, 3]).unwrap();
    let logits = model.forward(&Cx::train(&arena), &batch.images).unwrap();
    // Gradients reach the first block through all others, and every gate.
    arena.backward(&logits.cross_entropy(&batch.labels, CrossEntropy::default()).unwrap()).unwrap();
    for name in ["gates.1", "gates.3", "blocks.1.image.conv0.weight", "embedding"] {
        assert!(arena.grads().by_name(name).unwrap().to_vec().unwrap().iter().any(|g| *g != 0.0), "{name}");
    }
    let err = run_block(&dt.build(&mut Builder::new().root()).unwrap(), &Cx::train(&arena), &batch.images, &logits, Some(&logits));
    assert!(err.is_err());
}

#[test]
fn mistakes_are_errors() {
    let gpu = gpu();
    let (x, labels) = triangle(&gpu, 6);
    let text = |e: Result<Losses>| e.unwrap_err().to_string();
    let mut one_hot = net(&gpu, &Embedding::OneHot, Settings::discrete());
    let at = Stream::new(0, 0);
    assert!(text(one_hot.train_block(0, &x, &labels, at)).contains("block 0 of 3"));
    assert!(text(one_hot.train_block(4, &x, &labels, at)).contains("block 4 of 3"));
    assert!(text(one_hot.train_block(1, &x, &[0, 1, 2, 3, 0, 0], at)).contains("label 3 of sample 3"));
    assert!(text(one_hot.train_block(1, &x, &labels[..5], at)).contains("5 labels"));
    assert!(one_hot.path_from(&x, &x, Chain::default(), at).unwrap_err().to_string().contains("give [6, 3]"));
    // A block with another number of classes.
    let wrong = NoPropDt::new(&gpu, 0, 3, &Embedding::OneHot, Schedule::standard(2).unwrap(), Settings::discrete(), |s, _| {
        Ok(Mine::new(s, 5, 4))
    });
    assert!(text(wrong.unwrap().losses(1, &x, &labels, at)).contains("one score for each of 3 classes"));
    let rows = vec![0.0; 7];
    let bad = NoPropDt::new(&gpu, 0, 3, &Embedding::Prototype { rows }, Schedule::standard(2).unwrap(), Settings::discrete(), |s, _| {
        Ok(Mine::new(s, 5, 3))
    });
    assert!(bad.err().unwrap().to_string().contains("7 numbers for 3 prototypes"));
    for abar in [&[0.5][..], &[0.0, 0.5], &[0.5, 1.0], &[0.5, 0.5], &[0.6, 0.5], &[0.1, f64::NAN]] {
        assert!(Schedule::from_abar(abar).is_err(), "{abar:?}");
    }
    let s = Schedule::standard(3).unwrap();
    assert!(s.coeffs(0).is_err() && s.coeffs(4).is_err() && s.abar(4).is_err());
    let noise = Noise::Linear { low: 1.0, high: 1.0 };
    assert!(GammaNet::new(&mut Builder::new().root(), noise).is_err());
    // A loss that is no number ends the run, and says where.
    let broken = (x.mul_scalar(f32::MAX).unwrap().mul_scalar(f32::MAX).unwrap(), labels);
    let end = one_hot.fit(&broken, 1, |_, _| Ok(())).unwrap_err();
    assert!(matches!(&end, Error::NonFinite(text) if text.starts_with("block 1: ")), "{end}");
}
