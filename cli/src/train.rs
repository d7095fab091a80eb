//! `shadegrad train`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use shadegrad::data::{self, DataPair, Dataset, OpenOptions};
use shadegrad::nn::{Arena, Builder, Module};
use shadegrad::optim::{LossScaling, Optimizer, Rule, schedule};
use shadegrad::train::{FitOptions, Images, Mixing, Trainer};
use shadegrad::{Gpu, Precision};
use shadegrad_models::{Spec, create};

use crate::config::{Args, AugmentName, Config, DIGITS, OptimizerName, PrecisionName, ScheduleName};
use crate::dashboard::{self, Dashboard};
use crate::devices;
use crate::failure::usage;
use crate::journal::{Journal, Subject};
use crate::report::{Reporter, duration, say, thousands};
use crate::resume::{self, Saver};
use crate::{interrupt, runs, weights};

pub fn run(args: Args) -> Result<()> {
    interrupt::listen()?;
    let tui = args.tui;
    if tui {
        dashboard::check()?;
    }
    let (detect_anomaly, resumed) = (args.detect_anomaly, args.resume.clone());
    let mut claimed = None;
    let (config, from) = match &resumed {
        Some(run) => {
            let config = Config::of_run(run, args.settings)?;
            claimed = Some(runs::claim(run)?);
            let from = resume::find(run, &args.from)?;
            if from.checkpoint.state.position.epoch >= config.epochs {
                return Err(usage(format!("{}: this run has ended; start a new one with --weights", run.display())));
            }
            (config, Some(from))
        }
        None => (Config::resolve(args)?, None),
    };
    // Before anything that takes time: reading data, finding a device, compiling kernels.
    say(format!("shadegrad {}: training {} on {}", env!("CARGO_PKG_VERSION"), config.model, config.data));
    let out = match resumed {
        Some(run) => Output { path: run, new: None, claim: claimed },
        None => Output::new(&config)?,
    };
    let prepared = prepare(&config, from.is_none());
    let Prepared { gpu, model, mut arena, train, test, pictures, digest } = match prepared {
        Ok(prepared) => prepared,
        Err(err) => {
            out.withdraw();
            return Err(err);
        }
    };
    // Held to the end.
    let Output { path: out, claim: _claim, .. } = out;
    let per_epoch = (train.len() as u64).div_ceil(config.batch as u64);
    let steps = per_epoch * config.epochs;
    say(format!(
        "run: {} epochs of {per_epoch} steps of {}, {:?} with rate {} ({:?}), seed {}; files in {}",
        config.epochs,
        config.batch,
        config.optimizer,
        config.lr,
        config.schedule,
        config.seed,
        out.display()
    ));

    let (rule, plain) = rule_of(&config);
    if plain {
        // The usual recipe of the decoupled optimisers: biases and normalisation do not decay.
        arena.no_decay_for_vectors(&[])?;
    }
    let mut optimizer = Optimizer::new(&arena, rule)?;
    if config.clip_norm > 0.0 {
        optimizer = optimizer.clip_norm(config.clip_norm as f32);
    }
    let (precision, note) = precision_of(&config).on(&gpu);
    if let Some(note) = note {
        say(format!("note: {note}"));
    }
    if precision == Precision::Mixed {
        optimizer = optimizer.loss_scaling(LossScaling::default())?;
    }
    let options = FitOptions { precision, ..fit_options(&config, &train) };
    let rate = rate_of(&config, per_epoch, steps);
    let state = match &from {
        Some(from) => {
            let state = from.checkpoint.restore(&mut arena, &mut optimizer)?;
            // Before anything in the folder is changed.
            state.check(&options, train.len())?;
            same_data(&out, &digest, &config.data)?;
            say(format!("going on after step {} from {}", state.step, from.path.display()));
            resume::rewind(&out, &state)?;
            Some(state)
        }
        None => None,
    };
    let subject = Subject { model: model.as_ref(), images: &test, test: pictures, digest };
    let journal = Journal::new(&out, &config, steps, &gpu, subject)?;
    let dashboard = if tui {
        let title = format!("{} on {}: {}", config.model, config.data, gpu.description().name);
        Some(Dashboard::open(title, steps, &runs::Log::read(&out.join(runs::METRICS))?)?)
    } else {
        None
    };
    let mut reporter = Reporter::new(&gpu, &out, journal, dashboard)?;
    if let Some(state) = &state {
        reporter.write(&json!({ "event": "resumed", "step": state.step }))?;
    }
    let mut trainer =
        Trainer::new(model.as_ref(), &mut arena, &mut optimizer, rate, options).detect_anomaly(detect_anomaly);
    if let Some(state) = state {
        trainer = trainer.resume(state);
    }
    let warm = reporter.warm_up(|progress| trainer.warm_up(&train, progress));
    let mut saver = Saver::new(&mut reporter, &out, config.keep, config.checkpoint_every)?;
    let fitted = warm.and_then(|()| trainer.fit(&train, Some(&test), &mut saver));
    drop(trainer);
    reporter.finish();
    let summary = match fitted {
        Ok(summary) => summary,
        Err(err) => {
            // What was recorded so far stays, and says how it ended.
            let event = if matches!(err, shadegrad::Error::Interrupted(_)) { "interrupted" } else { "error" };
            let _ = reporter.write(&json!({ "event": event, "error": err.to_string() }));
            if event == "error"
                && let Some(remedy) = resume::remedy(&out)
            {
                eprintln!("{remedy}");
            }
            return Err(err.into());
        }
    };

    let last = summary.last.test.as_ref().context("no evaluation was made")?;
    let (epoch, best) = summary.best.unwrap_or((summary.last.epoch, last.accuracy));
    let peak = gpu.memory().peak;
    reporter.write(&json!({
        "event": "end",
        "steps": summary.steps,
        "accuracy": last.accuracy,
        "loss": last.loss,
        "best": { "epoch": epoch, "accuracy": best },
        "time": { "seconds": summary.seconds, "peak_memory_bytes": peak },
    }))?;
    say(format!(
        "done in {}: test accuracy {:.2} % (best {:.2} % after epoch {epoch}), test loss {:.4}, at most {} of device memory",
        duration(summary.seconds),
        100.0 * last.accuracy,
        100.0 * best,
        last.loss,
        crate::report::bytes(peak)
    ));
    if let Some(factor) = optimizer.loss_factor()? {
        let report = optimizer.report()?;
        let (skipped, all) = (report.skipped, summary.steps);
        say(format!(
            "mixed precision: {skipped} of {all} steps left out by overflow, factor of the loss {factor} at the end"
        ));
    }
    say(format!("report: {}", out.join(runs::REPORT).display()));
    say(format!("every step and epoch: {}", out.join(runs::METRICS).display()));
    Ok(())
}

/// What a run needs besides its configuration.
struct Prepared {
    gpu: Gpu,
    model: Box<dyn Module>,
    arena: Arena,
    train: Images,
    test: Images,
    /// The test set as it was read, for the report.
    pictures: Dataset,
    /// [`digest`] of the data.
    digest: String,
}

/// Reads the data, opens the device and makes the model, saying what they are; `fresh` for a run that does not go on from
/// a checkpoint.
fn prepare(config: &Config, fresh: bool) -> Result<Prepared> {
    let pair = open(config)?;
    let spec = spec_of(&pair.train);
    say(format!(
        "data: {} pictures to train on, {} to test, {}x{}x{}, {} classes",
        thousands(pair.train.len()),
        thousands(pair.test.len()),
        spec.height,
        spec.width,
        spec.channels,
        spec.classes
    ));
    let mut builder = Builder::new();
    let model = create(&config.model, &mut builder.root(), &spec)?;
    let gpu = devices::open(config.adapter.as_deref())?;
    devices::announce(&gpu);
    let arena = Arena::new(&gpu, &builder, config.seed)?;
    say(format!("model: {}, {} parameters", config.model, thousands(arena.table().numel())));
    if let (Some(path), true) = (&config.weights, fresh) {
        weights::start_from(path, &config.weights_allow, &arena)?;
    }
    let digest = digest(&pair);
    let stats = pair.train.channel_stats()?;
    let train = Images::upload(&gpu, &pair.train, &stats)?;
    let test = Images::upload(&gpu, &pair.test, &stats)?;
    Ok(Prepared { gpu, model, arena, train, test, pictures: pair.test, digest })
}

/// A number for all pictures and labels, which those of changed files have another of.
fn digest(pair: &DataPair) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for set in [&pair.train, &pair.test] {
        add(set.len() as u64);
        for bytes in set.images.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            add(u64::from_le_bytes(word));
        }
        set.labels.iter().for_each(|&l| add(u64::from(l)));
    }
    format!("{hash:016x}")
}

/// Refuses to go on with data other than the run in the folder `run` began with.
fn same_data(run: &Path, digest: &str, data: &str) -> Result<()> {
    let text = fs::read_to_string(run.join(runs::ENVIRONMENT)).unwrap_or_default();
    // A run from before this was recorded is believed.
    match serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()["data_digest"].as_str() {
        Some(before) if before != digest => Err(usage(format!(
            "{data}: these are not the pictures and labels that the run in {} began with; put those back, or start a new run \
             with --weights",
            run.display()
        ))),
        _ => Ok(()),
    }
}

/// The folder for the results.
struct Output {
    path: PathBuf,
    /// Made by this run; `None` in a run that goes on, which made nothing.
    new: Option<bool>,
    /// Keeps other processes out.
    claim: Option<fs::File>,
}

impl Output {
    /// Makes the folder and writes the configuration into it: what cannot be written is found before the training and
    /// not after.
    fn new(config: &Config) -> Result<Self> {
        let (path, new, claim) = match &config.out {
            Some(out) => {
                let new = !out.exists();
                fs::create_dir_all(out).map_err(|e| not_writable(out, &e))?;
                let claim = runs::claim(out)?;
                if out.join("metrics.jsonl").exists() {
                    bail!("{}: holds another run; choose another folder with --out, or remove it", out.display());
                }
                (out.clone(), new, claim)
            }
            None => {
                let data = Path::new(&config.data).file_name().map_or("data".into(), |n| n.to_string_lossy());
                let out = new_run(&format!("{}-{data}", config.model))?;
                let claim = runs::claim(&out)?;
                (out, true, claim)
            }
        };
        fs::write(path.join(runs::CONFIG), config.to_toml()?).map_err(|e| not_writable(&path, &e))?;
        Ok(Self { path, new: Some(new), claim: Some(claim) })
    }

    /// Removes what [`Output::new`] made, for a run that did not begin.
    fn withdraw(self) {
        let Some(new) = self.new else { return };
        // What cannot be removed does no harm.
        let _ = fs::remove_file(self.path.join(runs::CONFIG));
        if let Some(claim) = self.claim {
            runs::unclaim(&self.path, claim);
        }
        if new && fs::remove_dir(&self.path).is_ok() {
            // The folder of runs goes too if this was the first; it stays if it is not empty.
            if self.path.parent() == Some(Path::new(RUNS)) {
                let _ = fs::remove_dir(RUNS);
            }
        }
    }
}

/// Where runs without a folder of their own go.
const RUNS: &str = "runs";

fn not_writable(out: &Path, e: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{}: cannot be written ({e}); choose another folder with --out", out.display())
}

/// The first folder `runs/<name>-<n>` that does not exist yet, made.
pub fn new_run(name: &str) -> Result<PathBuf> {
    let root = Path::new(RUNS);
    fs::create_dir_all(root).map_err(|e| not_writable(root, &e))?;
    for n in 1u32.. {
        let out = root.join(format!("{name}-{n}"));
        match fs::create_dir(&out) {
            Ok(()) => return Ok(out),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(not_writable(&out, &e)),
        }
    }
    bail!("{}: too many runs; remove some, or choose a folder with --out", root.display())
}

fn open(config: &Config) -> Result<DataPair> {
    let pair = if config.data == DIGITS {
        data::digits()
    } else {
        let path = Path::new(&config.data);
        if !path.exists() {
            return Err(usage(format!(
                "--data {}: no such folder; give the folder of a data set (`shadegrad data` says how it must look), or \
                 `{DIGITS}` for the embedded one",
                config.data
            )));
        }
        data::open(path, &OpenOptions { seed: config.seed, ..OpenOptions::default() })?
    };
    Ok(DataPair {
        train: limited("train-limit", pair.train, config.train_limit)?,
        test: limited("test-limit", pair.test, config.test_limit)?,
    })
}

/// A balanced subset of about `limit` pictures; all of them for 0.
fn limited(flag: &str, data: Dataset, limit: usize) -> Result<Dataset> {
    if limit == 0 || limit >= data.len() {
        return Ok(data);
    }
    let classes = data.classes.len();
    if limit < classes {
        return Err(usage(format!("--{flag} {limit}: there are {classes} classes; give at least one picture of each")));
    }
    data.first_per_class(limit / classes).with_context(|| format!("--{flag} {limit}"))
}

fn spec_of(data: &Dataset) -> Spec {
    Spec { height: data.height, width: data.width, channels: data.channels, classes: data.classes.len() }
}

fn precision_of(config: &Config) -> Precision {
    match config.precision {
        PrecisionName::F32 => Precision::F32,
        PrecisionName::Mixed => Precision::Mixed,
    }
}

/// The update rule, and whether biases and normalisation are kept from decay.
fn rule_of(config: &Config) -> (Rule, bool) {
    let (momentum, weight_decay) = (config.momentum as f32, config.weight_decay as f32);
    let betas = [0.9, 0.999];
    match config.optimizer {
        OptimizerName::Sgd => (Rule::Sgd { momentum, dampening: 0.0, nesterov: false, weight_decay }, false),
        OptimizerName::Adam => (Rule::Adam { betas, eps: 1e-8, weight_decay }, false),
        OptimizerName::AdamW => (Rule::adamw(weight_decay), true),
        OptimizerName::RmsProp => (Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum, weight_decay }, false),
        OptimizerName::Lamb => (Rule::Lamb { betas, eps: 1e-6, weight_decay }, true),
        OptimizerName::Lars => (Rule::Lars { momentum, nesterov: false, eta: 1e-3, eps: 1e-8, weight_decay }, true),
    }
}

/// The learning rate of each step.
fn rate_of(config: &Config, per_epoch: u64, steps: u64) -> impl Fn(u64) -> f32 + use<> {
    let (lr, name) = (config.lr as f32, config.schedule);
    let warm = (config.warmup * per_epoch as f64).round() as u64;
    move |step| {
        let rate = match name {
            ScheduleName::Constant => lr,
            // The cosine begins where the rise ends.
            ScheduleName::Cosine => schedule::cosine(step.saturating_sub(warm), steps.saturating_sub(warm), lr, 0.0),
            ScheduleName::Step => schedule::multi_step(step, &[steps / 2, steps * 3 / 4], lr, 0.1),
            ScheduleName::OneCycle => schedule::one_cycle(step, steps, lr, 0.3, 25.0, 1e4),
        };
        schedule::warmup(step, warm, rate)
    }
}

fn fit_options(config: &Config, train: &Images) -> FitOptions {
    let has = |name| config.augment.contains(&name);
    let [height, width, _] = train.size();
    let side = height.min(width);
    let mut augment = train.normalise().clone();
    if has(AugmentName::Crop) {
        augment.pad = (side / 8).max(1);
    }
    if has(AugmentName::Flip) {
        augment.flip = 0.5;
    }
    if has(AugmentName::Cutout) {
        augment.cutout = side / 2;
    }
    let mixing = if has(AugmentName::Mixup) {
        Mixing::Mixup(0.2)
    } else if has(AugmentName::Cutmix) {
        Mixing::Cutmix(1.0)
    } else {
        Mixing::Off
    };
    FitOptions {
        epochs: config.epochs,
        batch: config.batch,
        seed: config.seed,
        augment: Some(augment),
        mixing,
        smoothing: config.label_smoothing as f32,
        record_every: config.record_every,
        ..FitOptions::default()
    }
}
