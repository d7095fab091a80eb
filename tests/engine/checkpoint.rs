//! Runs that are interrupted and go on: bit for bit the run that was not. Checkpoints that are damaged, foreign or of
//! another run. What `detect_anomaly` names.

use std::path::{Path, PathBuf};

use shadegrad::autograd::detect_anomaly;
use shadegrad::data::digits;
use shadegrad::io::{Checkpoint, Checkpoints, LoadOptions, Weights, write_safetensors};
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, Dropout, Layout, Linear, Module, Scope};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{EpochEnd, FitOptions, Flow, Hooks, Images, Mixing, Pause, Place, Progress, Trainer};
use shadegrad::{Error, Result, Tensor};

use crate::gpu;

/// A little of everything that has state or draws: convolution, batch norm, dropout.
struct Net(Conv2d, BatchNorm2d, Dropout, Linear);

impl Net {
    fn new(scope: &mut Scope<'_>) -> Self {
        let head = Linear::new(&mut scope.sub("fc"), 4 * 4 * 4, 10, true);
        scope.layout(head.weight(), Layout::Flattened([4, 4, 4]));
        Self(
            Conv2d::new(&mut scope.sub("conv"), 1, 4, 3, ConvOptions::new(2, 1).no_bias()),
            BatchNorm2d::new(&mut scope.sub("bn"), 4),
            Dropout(0.1),
            head,
        )
    }
}

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = self.1.forward_relu(cx, &self.0.forward(cx, x)?)?;
        self.3.forward(cx, &self.2.forward(cx, &x.flatten(1, 3)?)?)
    }
}

struct Run {
    model: Net,
    arena: Arena,
    optimizer: Optimizer,
    train: Images,
    test: Images,
}

impl Run {
    fn new(rule: Rule) -> Self {
        let data = digits();
        let stats = data.train.channel_stats().unwrap();
        let mut names = Builder::new();
        let model = Net::new(&mut names.root());
        let arena = Arena::new(&gpu(), &names, 0).unwrap();
        Self {
            model,
            optimizer: Optimizer::new(&arena, rule).unwrap().clip_norm(1.0),
            arena,
            train: Images::upload(&gpu(), &data.train.first_per_class(10).unwrap(), &stats).unwrap(),
            test: Images::upload(&gpu(), &data.test.first_per_class(5).unwrap(), &stats).unwrap(),
        }
    }

    /// Trains, from a checkpoint if one is given.
    fn fit(&mut self, hooks: &mut Watch, from: Option<&Path>) -> Result<()> {
        let from = from.map(|p| Checkpoint::open(p)?.restore(&mut self.arena, &mut self.optimizer)).transpose()?;
        let mut augment = self.train.normalise().clone();
        (augment.pad, augment.flip) = (1, 0.5);
        // Four steps an epoch; records that do not end where epochs do.
        let options = FitOptions {
            epochs: 3,
            batch: 30,
            seed: 5,
            record_every: 3,
            augment: Some(augment),
            mixing: Mixing::Mixup(0.4),
            ..FitOptions::default()
        };
        let rate = |step| 0.02 / (1.0 + step as f32);
        let trainer = Trainer::new(&self.model, &mut self.arena, &mut self.optimizer, rate, options);
        let mut trainer = match from {
            Some(state) => trainer.resume(state),
            None => trainer,
        };
        trainer.fit(&self.train, Some(&self.test), hooks).map(|_| ())
    }

    fn bits(&self) -> Vec<u32> {
        let mut all: Vec<f32> = self.arena.state().unwrap().into_iter().flat_map(|w| w.2).collect();
        for (_, t) in self.optimizer.state() {
            all.extend(t.to_vec().unwrap());
        }
        all.iter().map(|v| v.to_bits()).collect()
    }
}

/// Notes every number of a run, and may save and stop it.
#[derive(Default)]
struct Watch {
    told: Vec<String>,
    stop: Option<(u64, Place)>,
    save_to: Option<PathBuf>,
}

impl Hooks for Watch {
    fn record(&mut self, now: &Progress) -> Result<()> {
        self.told.push(format!("step {} {} {:x} {}", now.step, now.epoch, now.loss.to_bits(), now.lr));
        Ok(())
    }

    fn epoch(&mut self, end: &EpochEnd, _: &mut Arena) -> Result<Flow> {
        let test = end.test.as_ref().unwrap();
        let (train, test) = (end.train_loss.to_bits(), test.loss.to_bits());
        self.told.push(format!("epoch {} {} {train:x} {test:x} {}", end.epoch, end.step, end.lr));
        Ok(Flow::Continue)
    }

    fn pause(&mut self, now: &mut Pause) -> Result<()> {
        let Some(path) = &self.save_to else { return Ok(()) };
        if self.stop.is_some_and(|(step, place)| {
            step == now.step && std::mem::discriminant(&place) == std::mem::discriminant(&now.place)
        }) {
            let mut checkpoint = Checkpoint::take(now.arena, now.optimizer, now.state()?)?;
            checkpoint.notes.insert("why".into(), "test".into());
            checkpoint.extra.push(("mine".into(), vec![1.5, -0.0]));
            checkpoint.save(path)?;
            return Err(Error::Interrupted("as asked".into()));
        }
        Ok(())
    }
}

#[test]
fn an_interrupted_run_ends_as_the_unbroken_one_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    for rule in [Rule::adamw(0.05), Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true, weight_decay: 1e-4 }] {
        let (mut whole, mut told) = (Run::new(rule), Watch::default());
        whole.fit(&mut told, None).unwrap();
        // In the middle of an epoch, behind its last step but before its evaluation, behind that, before the first step.
        let end = Place::EpochEnd { best: false };
        for stop in [(6, Place::Step), (8, Place::Step), (8, end), (0, Place::Start)] {
            let path = folder.path().join("c.safetensors");
            let (mut first, mut second) = (Run::new(rule), Run::new(rule));
            let mut before = Watch { stop: Some(stop), save_to: Some(path.clone()), ..Watch::default() };
            let err = first.fit(&mut before, None).unwrap_err();
            assert!(matches!(err, Error::Interrupted(_)), "{err}");
            let mut after = Watch::default();
            second.fit(&mut after, Some(&path)).unwrap();
            assert_eq!([before.told, after.told].concat(), told.told, "{stop:?}");
            assert_eq!(second.bits(), whole.bits(), "{stop:?}");
        }
    }
    let read = Checkpoint::open(folder.path().join("c.safetensors")).unwrap();
    assert_eq!((read.notes["why"].as_str(), &read.extra[..]), ("test", &[("mine".to_string(), vec![1.5, -0.0])][..]));
}

/// A checkpoint after two steps.
fn saved(folder: &Path) -> PathBuf {
    let path = folder.join("c.safetensors");
    let mut watch = Watch { stop: Some((2, Place::Step)), save_to: Some(path.clone()), ..Watch::default() };
    Run::new(Rule::adamw(0.0)).fit(&mut watch, None).unwrap_err();
    path
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path());
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let err = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(err.contains("c.safetensors") && err.contains(word), "{word}: {err}");
    };
    refused(&good[..good.len() / 2], "cut off");
    refused(b"", "empty");
    refused(b"PK\x03\x04nothing", "cut off");
    refused(b"#!/bin/sh", "safetensors");
    // One bit, anywhere: in the length, the header's texts and numbers, the data.
    for at in (0..good.len()).step_by(good.len() / 200) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(read) = Checkpoint::open(&path) {
            // Only white space of the header may differ.
            assert_eq!((bytes[at] ^ 1, read.state.step), (b' ', 2), "byte {at}");
        }
    }
    let weights = Weights::of(&Run::new(Rule::adamw(0.0)).arena).unwrap();
    write_safetensors(&path, weights.tensors(), weights.meta()).unwrap();
    assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("no checkpoint"));
    std::fs::write(&path, &good).unwrap();
    // Another optimiser, other data.
    let mut other = Run::new(Rule::Lamb { betas: [0.9, 0.999], eps: 1e-6, weight_decay: 0.0 });
    let err = other.fit(&mut Watch::default(), Some(&path)).unwrap_err().to_string();
    assert!(err.contains("AdamW") && err.contains("Lamb"), "{err}");
    let mut other = Run::new(Rule::adamw(0.0));
    std::mem::swap(&mut other.train, &mut other.test);
    let err = other.fit(&mut Watch::default(), Some(&path)).unwrap_err().to_string();
    assert!(err.contains("number of training samples 100, this one 50"), "{err}");
}

#[test]
fn masks_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path());
    let state = Checkpoint::open(&path).unwrap().state;
    let mut run = Run::new(Rule::adamw(0.0));
    let mask = Tensor::from_slice(&gpu(), &[1.0, 0.0, 1.0, 0.0], &[4]).unwrap();
    run.arena.set_mask("bn.weight", &mask).unwrap();
    Checkpoint::take(&run.arena, &run.optimizer, state).unwrap().save(&path).unwrap();
    let mut other = Run::new(Rule::adamw(0.0));
    Checkpoint::open(&path).unwrap().restore(&mut other.arena, &mut other.optimizer).unwrap();
    let flat = |run: &Run| run.arena.mask_flat().unwrap().to_vec().unwrap();
    assert_eq!(flat(&other), flat(&run));
    assert_eq!(other.bits(), run.bits());
}

#[test]
fn a_folder_keeps_the_last_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(saved(folder.path())).unwrap();
    let folder = folder.path().join("all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".step-000000001.safetensors.7.unfinished"), "half").unwrap();
    let all = Checkpoints::open(&folder, 2).unwrap();
    for step in [0, 5, 10, 100] {
        checkpoint.state.step = step;
        all.save(&checkpoint).unwrap();
    }
    all.save_best(&checkpoint).unwrap();
    let steps: Vec<u64> = Checkpoints::list(&folder).unwrap().into_iter().map(|c| c.0).collect();
    assert_eq!(steps, [10, 100]);
    assert_eq!(Checkpoint::open(Checkpoints::best(&folder)).unwrap().state.step, 100);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    assert!(Checkpoints::list(&folder.join("none")).unwrap().is_empty());
}

#[test]
fn weights_that_do_not_fit_are_listed() {
    let run = Run::new(Rule::adamw(0.0));
    let weights = Weights::of(&run.arena).unwrap();
    assert_eq!(weights.get("conv.weight").unwrap().shape(), [4, 1, 3, 3]);
    let changed = weights.clone().map(|t| {
        Ok(match t.name() {
            "bn.weight" => Some(t.renamed("bn.wieght")),
            "fc.bias" => None,
            "conv.weight" => Some(t.reshaped(&[4, 3, 3, 1])?),
            _ => Some(t),
        })
    });
    let changed = changed.unwrap();
    let before = run.bits();
    let err = changed.load_into(&run.arena, &LoadOptions::strict()).unwrap_err().to_string();
    for word in [
        "nothing was changed",
        "2 missing in the file",
        "`bn.weight` [4] - is it `bn.wieght`",
        "`fc.bias` [10]",
        "1 not in the model",
        "`conv.weight` is [4, 1, 3, 3] in the model, [4, 3, 3, 1] in the file",
    ] {
        assert!(err.contains(word), "{word}: {err}");
    }
    assert_eq!(run.bits(), before);
    let allow = LoadOptions::allowing(&["bn.*", "fc.bias", "conv.weight"]);
    let loaded = changed.load_into(&run.arena, &allow).unwrap();
    assert_eq!((loaded.set, loaded.left.len()), (4, 4));
    weights.load_into(&run.arena, &LoadOptions::strict()).unwrap();
    assert_eq!(run.bits(), before);
}

/// A file as PyTorch writes it for a model with batch normalisation: each layer's number of batches is in it too.
#[test]
fn the_number_of_batches_that_pytorch_counts_is_passed_over() {
    let (run, other) = (Run::new(Rule::adamw(0.0)), Run::new(Rule::adamw(0.0)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    Weights::of(&run.arena).unwrap().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (size, rest) = bytes.split_at(8);
    let (head, data) = rest.split_at(u64::from_le_bytes(size.try_into().unwrap()) as usize);
    let with = |name: &str, dtype: &str, shape: &[usize], value: &[u8]| {
        let mut head: serde_json::Value = serde_json::from_slice(head).unwrap();
        let offsets = [data.len(), data.len() + value.len()];
        head[name] = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        let mut text = head.to_string();
        text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
        std::fs::write(&path, [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data, value].concat()).unwrap();
        Weights::open(&path).unwrap().load_into(&other.arena, &LoadOptions::strict())
    };
    // As PyTorch has it, and as programs that convert all of a file to one type leave it.
    let name = "bn.num_batches_tracked";
    assert_eq!(with(name, "I64", &[], &1000i64.to_le_bytes()).unwrap().left, Vec::<String>::new());
    with(name, "F32", &[1], &1000f32.to_le_bytes()).unwrap();
    with("num_batches_tracked", "F16", &[], &[0, 60]).unwrap();
    assert_eq!(other.bits(), run.bits());
    // Nothing else is.
    let err = with("bn.num_batches", "I64", &[], &[0; 8]).unwrap_err().to_string();
    assert!(err.contains("1 not in the model") && err.contains("`bn.num_batches`"), "{err}");
    let err = with(name, "F32", &[2], &[0; 8]).unwrap_err().to_string();
    assert!(err.contains("1 not in the model") && err.contains(name), "{err}");
}

#[test]
fn the_operation_that_made_the_first_nan_is_named() {
    let told = |f: &dyn Fn(&Tensor) -> Result<()>| {
        let x = Tensor::from_slice(&gpu(), &[4.0, 1.0, 0.0], &[3]).unwrap().leaf();
        detect_anomaly(|| f(&x)).unwrap_err().to_string()
    };
    let grad = |y: Tensor, x: &Tensor| shadegrad::autograd::grad(&y.sum_to(&[])?, &[x]).map(|_| ());
    let text = told(&|x| grad(x.log()?.exp()?.mul(x)?, x));
    assert!(text.contains("`log` made 0 NaN and 1 infinite of 3"), "{text}");
    // Finite forward, infinite backward.
    let text = told(&|x| grad(x.sqrt()?, x));
    assert!(text.contains("backward pass of `sqrt`"), "{text}");
    // What is finite passes, and afterwards nothing is watched.
    let x = Tensor::from_slice(&gpu(), &[4.0], &[1]).unwrap();
    assert_eq!(detect_anomaly(|| x.sqrt()?.item()).unwrap(), 2.0);
    assert!(x.mul_scalar(0.0).unwrap().log().unwrap().item().unwrap().is_infinite());

    let mut run = Run::new(Rule::adamw(0.0));
    let big = FitOptions { epochs: 2, batch: 30, ..FitOptions::default() };
    let mut trainer = Trainer::new(&run.model, &mut run.arena, &mut run.optimizer, |_| 1e36, big).detect_anomaly(true);
    let err = trainer.fit(&run.train, None, &mut Watch::default()).unwrap_err();
    let text = err.to_string();
    assert!(matches!(err, Error::NonFinite(_)) && text.contains("step 2: `batch_norm"), "{text}");
    assert!(text.contains("the layer `bn`"), "{text}");
}
