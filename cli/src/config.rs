//! What a training run is told: by flags, by a TOML file, and by defaults that follow from model and data.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args as _, ValueEnum};
use serde::{Deserialize, Serialize};

use shadegrad::did_you_mean;

use crate::failure::usage;
use crate::runs::CONFIG;

/// Arguments of `shadegrad train`.
#[derive(clap::Args)]
pub struct Args {
    /// Read settings from a TOML file whose keys are the names of these options; options given here go before it.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Go on with a run that was interrupted, in its folder, from its last checkpoint; it keeps its settings
    #[arg(long, value_name = "RUN", conflicts_with = "config")]
    pub resume: Option<PathBuf>,
    /// With --resume, the checkpoint: `last`, `previous` (should the last be damaged), `best`, or a step
    #[arg(long, value_name = "WHICH", requires = "resume", default_value = "last")]
    pub from: String,
    /// Look at every result and gradient, and name the operation that first made a NaN or an infinity; slow
    #[arg(long)]
    pub detect_anomaly: bool,
    /// Show curves, throughput, kernels and memory on the whole terminal; `q` gives it back and the run goes on
    #[arg(long)]
    pub tui: bool,
    #[command(flatten)]
    pub settings: Settings,
}

/// What can be set, in both places. `None` is: not set here.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// Model; `shadegrad models` lists them [default: cnn]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// `digits` (embedded), or the folder of a data set; `shadegrad data` says how it must look [default: digits]
    #[arg(long, value_name = "digits|FOLDER")]
    pub data: Option<String>,
    /// Passes over the training set [default: 10 for digits, else 30]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Samples of a step [default: 32 for digits, 128 for networks trained with sgd, else 64]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Highest learning rate [default: 0.1 with sgd, 0.002 for digits, else 0.001]
    #[arg(long, value_name = "RATE")]
    pub lr: Option<f64>,
    /// [default: sgd for resnet, wrn and vgg; else adamw]
    #[arg(long, value_enum)]
    pub optimizer: Option<OptimizerName>,
    /// How the learning rate runs [default: cosine]
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleName>,
    /// Epochs over which the rate rises from zero at the start, a fraction too [default: 1 for vit, else 0]
    #[arg(long, value_name = "EPOCHS")]
    pub warmup: Option<f64>,
    /// Weight decay [default: 0.0005 with sgd, 0.05 for vit, else 0.01]
    #[arg(long, value_name = "RATE")]
    pub weight_decay: Option<f64>,
    /// Momentum of sgd, rmsprop and lars [default: 0.9]
    #[arg(long, value_name = "0..1")]
    pub momentum: Option<f64>,
    /// Scale gradients of a larger norm down to this one; 0 never does [default: 0]
    #[arg(long, value_name = "NORM")]
    pub clip_norm: Option<f64>,
    /// Share of the uniform distribution in the targets [default: 0]
    #[arg(long, value_name = "0..1")]
    pub label_smoothing: Option<f64>,
    /// What happens to training pictures, separated by commas [default: crop,flip for CIFAR, flip for folders, else none]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub augment: Option<Vec<AugmentName>>,
    /// Decides first values, order, augmentation and dropout: the same seed gives the same run [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
    /// Train on a balanced subset: the first N / classes pictures of each class; 0 is all [default: 0]
    #[arg(long, value_name = "N")]
    pub train_limit: Option<usize>,
    /// Test on a balanced subset likewise [default: 0]
    #[arg(long, value_name = "N")]
    pub test_limit: Option<usize>,
    /// Number formats: f32, or `mixed` for products of halves summed in f32 with half the memory between layers, where the
    /// device has f16 [default: f32]
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionName>,
    /// Steps between two records in metrics.jsonl [default: 20]
    #[arg(long, value_name = "STEPS")]
    pub record_every: Option<u64>,
    /// Save a checkpoint every so many steps too, besides after every epoch; 0 does not [default: 0]
    #[arg(long, value_name = "STEPS")]
    pub checkpoint_every: Option<u64>,
    /// Checkpoints that stay, besides the best one [default: 3]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Start from the weights of a file: safetensors, or a state dictionary of PyTorch (.pt, .pth)
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Names that --weights may lack or have in other shapes, separated by commas: `fc.*` for other classes
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub weights_allow: Option<Vec<String>>,
    /// Folder for metrics.jsonl and config.resolved.toml [default: runs/<model>-<data>-<n>]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Device by index or part of its name; `shadegrad devices` lists them [default: the best]
    #[arg(long, value_name = "DEVICE")]
    pub adapter: Option<String>,
}

/// Update rules by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum OptimizerName {
    Sgd,
    Adam,
    AdamW,
    RmsProp,
    Lamb,
    Lars,
}

/// Number formats by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum PrecisionName {
    F32,
    Mixed,
}

/// Schedules by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// The same rate all along.
    Constant,
    /// Down to zero along half a cosine.
    Cosine,
    /// A tenth after half and again after three quarters of the steps.
    Step,
    /// Up during the first 30 % of the steps, then down to nearly zero.
    OneCycle,
}

/// Augmentations by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentName {
    /// Nothing.
    None,
    /// Moved at random by up to an eighth of the side.
    Crop,
    /// Mirrored half the time.
    Flip,
    /// A square of half the side blanked at random.
    Cutout,
    /// Blended in pairs.
    Mixup,
    /// A rectangle of another picture pasted in.
    Cutmix,
}

/// The settings of a run, complete.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    pub model: String,
    pub data: String,
    pub epochs: u64,
    pub batch: usize,
    pub lr: f64,
    pub optimizer: OptimizerName,
    pub schedule: ScheduleName,
    pub warmup: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    pub clip_norm: f64,
    pub label_smoothing: f64,
    pub augment: Vec<AugmentName>,
    pub seed: u64,
    pub train_limit: usize,
    pub test_limit: usize,
    pub precision: PrecisionName,
    pub record_every: u64,
    pub checkpoint_every: u64,
    pub keep: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights_allow: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Not repeated by a run from this configuration.
    #[serde(skip)]
    pub out: Option<PathBuf>,
}

/// More would take for ever.
const MOST_EPOCHS: u64 = 1_000_000_000;

/// The embedded data set's name.
pub const DIGITS: &str = "digits";

impl Settings {
    /// The settings of a file.
    fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| usage(format!("{shown}: {e}; give --config the path of a TOML file")))?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|e| usage(format!("{shown} is not valid TOML; correct it:\n{e}")))?;
        let command = Self::augment_args(clap::Command::new("train"));
        let known: Vec<&str> = command.get_arguments().filter_map(|a| a.get_long()).collect();
        let mut clean = toml::Table::new();
        for (key, value) in table {
            // The flags have dashes; underscores are as common in TOML.
            let name = key.replace('_', "-");
            if !known.contains(&name.as_str()) {
                return Err(usage(format!(
                    "{shown}: unknown key `{key}`{}. Known are {}",
                    did_you_mean(&name, &known),
                    known.join(", ")
                )));
            }
            let one = toml::Table::from_iter([(name.clone(), value.clone())]);
            Self::deserialize(one)
                .map_err(|e| usage(format!("{shown}: key `{key}`: {}; correct it", e.to_string().trim())))?;
            clean.insert(name, value);
        }
        Self::deserialize(clean).map_err(|e| usage(format!("{shown}: {e}; correct it")))
    }

    /// These settings, and those of `other` where these are not set.
    fn over(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            data: self.data.or(other.data),
            epochs: self.epochs.or(other.epochs),
            batch: self.batch.or(other.batch),
            lr: self.lr.or(other.lr),
            optimizer: self.optimizer.or(other.optimizer),
            schedule: self.schedule.or(other.schedule),
            warmup: self.warmup.or(other.warmup),
            weight_decay: self.weight_decay.or(other.weight_decay),
            momentum: self.momentum.or(other.momentum),
            clip_norm: self.clip_norm.or(other.clip_norm),
            label_smoothing: self.label_smoothing.or(other.label_smoothing),
            augment: self.augment.or(other.augment),
            seed: self.seed.or(other.seed),
            train_limit: self.train_limit.or(other.train_limit),
            test_limit: self.test_limit.or(other.test_limit),
            precision: self.precision.or(other.precision),
            record_every: self.record_every.or(other.record_every),
            checkpoint_every: self.checkpoint_every.or(other.checkpoint_every),
            keep: self.keep.or(other.keep),
            weights: self.weights.or(other.weights),
            weights_allow: self.weights_allow.or(other.weights_allow),
            out: self.out.or(other.out),
            adapter: self.adapter.or(other.adapter),
        }
    }
}

/// Which augmentation a data set usually gets.
fn usual_augment(data: &str) -> Vec<AugmentName> {
    use shadegrad::data::DataFormat;
    if data == DIGITS {
        return vec![AugmentName::None];
    }
    match DataFormat::detect(Path::new(data)) {
        Ok((DataFormat::Cifar10 | DataFormat::Cifar100, _)) => vec![AugmentName::Crop, AugmentName::Flip],
        Ok((DataFormat::Folder, _)) => vec![AugmentName::Flip],
        // A folder that cannot be read is reported when it is opened.
        _ => vec![AugmentName::None],
    }
}

impl Config {
    /// Flags over file over defaults, checked.
    pub fn resolve(args: Args) -> Result<Self> {
        let s = match &args.config {
            Some(path) => args.settings.over(Settings::read(path)?),
            None => args.settings,
        };
        let model = s.model.unwrap_or_else(|| "cnn".to_string());
        crate::models::check(&model)?;
        let data = s.data.unwrap_or_else(|| DIGITS.to_string());
        let digits = data == DIGITS;
        let (heavy, vit) = (["resnet", "wrn", "vgg"].iter().any(|p| model.starts_with(p)), model.starts_with("vit"));
        let optimizer = s.optimizer.unwrap_or(if heavy { OptimizerName::Sgd } else { OptimizerName::AdamW });
        let sgd = matches!(optimizer, OptimizerName::Sgd | OptimizerName::Lars);
        let config = Self {
            epochs: s.epochs.unwrap_or(if digits { 10 } else { 30 }),
            batch: s.batch.unwrap_or(match (digits, sgd) {
                (true, _) => 32,
                (_, true) => 128,
                _ => 64,
            }),
            lr: s.lr.unwrap_or(match (sgd, digits) {
                (true, _) => 0.1,
                (_, true) => 0.002,
                _ => 0.001,
            }),
            optimizer,
            schedule: s.schedule.unwrap_or(ScheduleName::Cosine),
            warmup: s.warmup.unwrap_or(if vit { 1.0 } else { 0.0 }),
            weight_decay: s.weight_decay.unwrap_or(match (sgd, vit) {
                (true, _) => 5e-4,
                (_, true) => 0.05,
                _ => 0.01,
            }),
            momentum: s.momentum.unwrap_or(0.9),
            clip_norm: s.clip_norm.unwrap_or(0.0),
            label_smoothing: s.label_smoothing.unwrap_or(0.0),
            augment: s.augment.unwrap_or_else(|| usual_augment(&data)),
            seed: s.seed.unwrap_or(0),
            train_limit: s.train_limit.unwrap_or(0),
            test_limit: s.test_limit.unwrap_or(0),
            precision: s.precision.unwrap_or(PrecisionName::F32),
            record_every: s.record_every.unwrap_or(20),
            checkpoint_every: s.checkpoint_every.unwrap_or(0),
            keep: s.keep.unwrap_or(3),
            weights: s.weights,
            weights_allow: s.weights_allow.unwrap_or_default(),
            adapter: s.adapter,
            out: s.out,
            model,
            data,
        };
        config.check()?;
        Ok(config)
    }

    /// The configuration of the run in a folder, which goes on.
    pub fn of_run(run: &Path, settings: Settings) -> Result<Self> {
        let path = run.join(CONFIG);
        if !path.exists() {
            return Err(usage(format!(
                "{}: holds no run ({CONFIG} is missing); give --resume its folder",
                run.display()
            )));
        }
        // What changes none of the run's numbers, or is for another machine to choose.
        let Settings { checkpoint_every, keep, adapter, .. } = settings.clone();
        let free = Settings { checkpoint_every, keep, adapter, ..Settings::default() };
        if free != settings {
            return Err(usage(
                "--resume: a run keeps its settings; only --checkpoint-every, --keep and --adapter may be given. To \
                 train on with others, start a new run with --weights",
            ));
        }
        let config = Some(path);
        let args =
            Args { config, resume: None, from: String::new(), detect_anomaly: false, tui: false, settings: free };
        Self::resolve(args)
    }

    fn check(&self) -> Result<()> {
        let wrong = |name: &str, value: String, range: &str| Err(usage(format!("--{name} {value}: give {range}")));
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch", self.batch as u64),
            ("record-every", self.record_every),
            ("keep", self.keep as u64),
        ] {
            if value == 0 {
                return wrong(name, "0".into(), "at least 1");
            }
        }
        let empty = |path: &Option<PathBuf>| path.as_ref().is_some_and(|p| p.as_os_str().is_empty());
        for (name, empty) in
            [("data", self.data.is_empty()), ("weights", empty(&self.weights)), ("out", empty(&self.out))]
        {
            if empty {
                return wrong(name, "\"\"".into(), "a path");
            }
        }
        // Steps are counted in 64 bits.
        if self.epochs > MOST_EPOCHS {
            return wrong("epochs", self.epochs.to_string(), &format!("at most {MOST_EPOCHS}"));
        }
        if !(self.lr > 0.0 && (self.lr as f32).is_finite()) {
            return wrong("lr", self.lr.to_string(), "a positive number, such as 0.01");
        }
        for (name, value) in
            [("warmup", self.warmup), ("weight-decay", self.weight_decay), ("clip-norm", self.clip_norm)]
        {
            if !(value >= 0.0 && (value as f32).is_finite()) {
                return wrong(name, value.to_string(), "0 or more");
            }
        }
        for (name, value) in [("momentum", self.momentum), ("label-smoothing", self.label_smoothing)] {
            if !(0.0..1.0).contains(&value) {
                return wrong(name, value.to_string(), "a number from 0 to below 1");
            }
        }
        use AugmentName::{Cutmix, Mixup, None};
        let has = |a| self.augment.contains(&a);
        if has(None) && self.augment.len() > 1 {
            return Err(usage("--augment none goes with no other; leave one out"));
        }
        if has(Mixup) && has(Cutmix) {
            return Err(usage("--augment mixup and cutmix do not go together; leave one out"));
        }
        Ok(())
    }

    /// The configuration as a file that `--config` takes.
    pub fn to_toml(&self) -> Result<String> {
        let mut repeatable = self.clone();
        if self.data != DIGITS {
            // The run may be repeated from another folder.
            repeatable.data = std::path::absolute(&self.data)?.display().to_string();
        }
        repeatable.weights = self.weights.as_ref().map(std::path::absolute).transpose()?;
        let body = toml::to_string(&repeatable).context("writing the configuration as TOML")?;
        Ok(format!(
            "# shadegrad {}: `shadegrad train --config` with this file repeats the run.\n{body}",
            env!("CARGO_PKG_VERSION")
        ))
    }
}

#[cfg(test)]
mod tests {
    use shadegrad::rng::Philox;

    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    fn args(settings: Settings) -> Args {
        Args { config: None, resume: None, from: "last".into(), detect_anomaly: false, tui: false, settings }
    }

    #[test]
    fn files_are_read_and_flags_go_before_them() {
        let file =
            read("epochs = 3\nweight_decay = 0.5\nlr = 1\naugment = [\"crop\", \"flip\"]\noptimizer = \"adamw\"")
                .unwrap();
        let flags = Settings { epochs: Some(7), ..Settings::default() };
        let both = flags.over(file);
        assert_eq!((both.epochs, both.weight_decay, both.lr), (Some(7), Some(0.5), Some(1.0)));
        assert_eq!(both.augment, Some(vec![AugmentName::Crop, AugmentName::Flip]));
        assert_eq!(both.optimizer, Some(OptimizerName::AdamW));
    }

    #[test]
    fn mistakes_in_files_name_key_and_remedy() {
        for (text, words) in [
            ("epoch = 3", &["unknown key `epoch`", "did you mean `epochs`"][..]),
            ("epochs = \"three\"", &["key `epochs`", "correct it"][..]),
            ("optimizer = \"adamx\"", &["key `optimizer`", "adamw"][..]),
            ("epochs = ", &["not valid TOML", "correct it"][..]),
            ("[train]\nepochs = 3", &["unknown key `train`", "Known are model"][..]),
        ] {
            let err = read(text).unwrap_err();
            assert!(err.is::<crate::failure::Usage>());
            for word in words {
                assert!(err.to_string().contains(word), "{text}: {err}");
            }
        }
        let err = Settings::read(Path::new("/nowhere/c.toml")).unwrap_err().to_string();
        assert!(err.contains("/nowhere/c.toml") && err.contains("give --config"), "{err}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (set, word) in [
            (Settings { epochs: Some(0), ..Settings::default() }, "--epochs 0"),
            (Settings { epochs: Some(i64::MAX as u64), ..Settings::default() }, "--epochs 9223372036854775807"),
            (Settings { batch: Some(0), ..Settings::default() }, "--batch 0"),
            (Settings { data: Some(String::new()), ..Settings::default() }, "--data \"\": give a path"),
            (Settings { out: Some(PathBuf::new()), ..Settings::default() }, "--out \"\""),
            (Settings { lr: Some(0.0), ..Settings::default() }, "--lr 0"),
            (Settings { lr: Some(f64::NAN), ..Settings::default() }, "--lr NaN"),
            (Settings { momentum: Some(1.0), ..Settings::default() }, "--momentum 1"),
            (Settings { label_smoothing: Some(-0.1), ..Settings::default() }, "--label-smoothing -0.1"),
            (Settings { augment: Some(vec![AugmentName::None, AugmentName::Flip]), ..Settings::default() }, "none"),
            (Settings { augment: Some(vec![AugmentName::Mixup, AugmentName::Cutmix]), ..Settings::default() }, "mixup"),
        ] {
            let err = Config::resolve(args(set)).unwrap_err();
            assert!(err.is::<crate::failure::Usage>() && err.to_string().contains(word), "{err}");
        }
    }

    #[test]
    fn the_resolved_file_gives_the_same_configuration() {
        let config = Config::resolve(args(Settings::default())).unwrap();
        let text = config.to_toml().unwrap();
        let again = Config::resolve(args(read(&text).unwrap())).unwrap();
        assert_eq!(text, again.to_toml().unwrap());
        assert!(text.contains("lr = 0.002"), "{text}");
    }

    /// A configuration with a few random mistakes.
    fn spoilt(valid: &str, rng: &mut Philox) -> String {
        let mut lines: Vec<String> = valid.lines().map(String::from).collect();
        const VALUES: [&str; 24] = [
            "0",
            "-1",
            "1e999",
            "nan",
            "-inf",
            "9223372036854775807",
            "99999999999999999999",
            "0x7fffffffffffffff",
            "1.5",
            "true",
            "\"\"",
            "\"none\"",
            "[]",
            "[\"flip\", \"flip\"]",
            "[[1], {}]",
            "{}",
            "{ a = { b = [1] } }",
            "''",
            "\"\\uD800\"",
            "\"\"\"",
            "1979-05-27T07:32:00Z",
            "\"../../..\"",
            "\"\\u0000\"",
            "3_000",
        ];
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(lines.len() as u32) as usize;
            let key = lines[at].split('=').next().unwrap_or_default().trim().to_string();
            match rng.below(8) {
                0..4 => lines[at] = format!("{key} = {}", VALUES[rng.below(VALUES.len() as u32) as usize]),
                4 => lines.insert(at, lines[rng.below(lines.len() as u32) as usize].clone()),
                5 => lines[at] = format!("{key} = {}", "[".repeat(1 + rng.below(3000) as usize)),
                6 => lines.insert(at, "[train.a]".into()),
                _ => {
                    let mut bytes = std::mem::take(&mut lines[at]).into_bytes();
                    let i = rng.below(bytes.len() as u32 + 1) as usize;
                    bytes.splice(i..i, [rng.next_u32() as u8, b"\"=[]{}.#\\"[rng.below(9) as usize]]);
                    lines[at] = String::from_utf8_lossy(&bytes).into_owned();
                }
            }
        }
        lines.join("\n")
    }

    #[test]
    fn spoilt_files_are_refused_or_taken_and_never_a_panic() {
        let valid = Config::resolve(args(Settings::default())).unwrap().to_toml().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spoilt.toml");
        let cases = std::env::var("SHADEGRAD_FUZZ").ok().map_or(600, |v| v.parse().unwrap());
        let mut refused = 0;
        for case in 0..cases {
            let text = spoilt(&valid, &mut Philox::new(3, case));
            std::fs::write(&path, &text).unwrap();
            match Settings::read(&path).and_then(|s| Config::resolve(args(s))) {
                // What is taken can be written down and read again.
                Ok(config) => {
                    let again = config.to_toml().unwrap();
                    std::fs::write(&path, &again).unwrap();
                    let read = Settings::read(&path).unwrap_or_else(|e| panic!("case {case}: {e}\n{text}"));
                    assert_eq!(Config::resolve(args(read)).unwrap().to_toml().unwrap(), again, "case {case}");
                }
                Err(err) => {
                    refused += 1;
                    let shown = err.to_string();
                    let named = shown.contains("spoilt.toml") || shown.contains("--") || shown.contains("model");
                    assert!(named && shown.len() < 8000, "case {case}: {shown}\n{text}");
                }
            }
        }
        assert!(refused > cases / 3 && refused < cases, "{refused} of {cases} refused");
    }
}
