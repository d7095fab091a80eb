//! A checkpoint: all that a run needs to go on bit for bit.

use std::path::Path;

use serde_json::{Value, json};

use crate::data::Position;
use crate::error::{Error, Result};
use crate::io::weights::RESERVED;
use crate::io::{LoadOptions, Meta, Saved, Weights, write_safetensors};
use crate::nn::Arena;
use crate::optim::Optimizer;
use crate::tensor::Tensor;
use crate::train::{MeterState, TrainState};

/// Version of the format.
const VERSION: &str = "1";

/// Notes of the file.
const FORMAT: &str = "shadegrad.checkpoint";
const STATE: &str = "shadegrad.state";
const RULE: &str = "shadegrad.optimizer";
const SUM: &str = "shadegrad.sum";
const NOTE: &str = "note.";

/// Tensors besides the weights.
const MOMENTS: &str = "shadegrad.optimizer.";
const EXTRA: &str = "shadegrad.extra.";
const MASK: &str = "shadegrad.mask";
const RECENT: &str = "shadegrad.recent";
const NUMBERS: &str = "shadegrad.numbers";

/// Parameters, running statistics, masks, the optimiser's state and the place in the run, at one moment.
///
/// The file is in the safetensors format. The model's weights are in it with PyTorch's names and layouts, so any reader of
/// that format can use them; what else there is begins with `shadegrad.`. A check sum over everything tells damage.
///
/// ```
/// # use shadegrad::{data::*, nn::*, optim::*, train::{FitOptions, Images, NoHooks, Trainer}, *};
/// use shadegrad::io::Checkpoint;
/// use shadegrad::train::{Hooks, Pause};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
/// # let train = Images::upload(&gpu, &set, &set.channel_stats()?)?;
/// # let mut names = Builder::new();
/// # let model = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 4, 2, true));
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("run.safetensors");
///
/// struct Save(std::path::PathBuf);
/// impl Hooks for Save {
///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
///         if now.step == 2 {
///             Checkpoint::take(now.arena, now.optimizer, now.state()?)?.save(&self.0)?;
///         }
///         Ok(())
///     }
/// }
/// # let options = FitOptions { epochs: 4, ..FitOptions::default() };
/// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options.clone())
/// #     .fit(&train, None, &mut Save(path.clone()))?;
/// # let through = arena.values_flat().to_vec()?;
///
/// // Later, with the same model, optimiser and data:
/// let state = Checkpoint::open(&path)?.restore(&mut arena, &mut optimizer)?;
/// Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options)
///     .resume(state)
///     .fit(&train, None, &mut NoHooks)?;
/// # assert_eq!(arena.values_flat().to_vec()?, through);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The place in the run.
    pub state: TrainState,
    /// Texts of the program's own: its configuration, say.
    pub notes: Meta,
    /// Numbers of the program's own: an average of the weights, say.
    pub extra: Vec<(String, Vec<f32>)>,
    /// The update rule and its numbers.
    rule: String,
    /// Weights, moments and masks.
    tensors: Vec<Saved>,
}

/// The rule's name, which decides what the moments mean.
fn kind(rule: &str) -> &str {
    rule.split([' ', '{', '(']).next().unwrap_or(rule)
}

impl Checkpoint {
    /// Reads the state of a run from the device.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// let optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// let mut checkpoint = Checkpoint::take(&arena, &optimizer, state)?;
    /// checkpoint.notes.insert("config".into(), "epochs = 10".into()); // what else the program needs
    /// assert_eq!(checkpoint.state.step, 20);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a parameter is NaN or infinite: there is nothing to go on from; or the device reported a
    /// fault.
    pub fn take(arena: &Arena, optimizer: &Optimizer, state: TrainState) -> Result<Self> {
        if let Some(text) = arena.nonfinite()? {
            return Err(Error::NonFinite(format!(
                "step {}: there are {text}; use a lower learning rate, or clip the gradient's norm",
                state.step
            )));
        }
        let mut tensors = Weights::of(arena)?.tensors().to_vec();
        let flat = |name: String, t: &Tensor| Saved::f32(name, &[t.numel()], &t.to_vec()?);
        for (name, t) in optimizer.state() {
            tensors.push(flat(format!("{MOMENTS}{name}"), t)?);
        }
        if let Some(mask) = arena.mask_flat() {
            tensors.push(flat(MASK.into(), mask)?);
        }
        let rule = format!("{:?}", optimizer.rule());
        Ok(Self { state, notes: Meta::new(), extra: Vec::new(), rule, tensors })
    }

    /// The model's weights.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// let checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
    /// let weights = checkpoint.weights(); // without moments, notes and place
    /// assert_eq!(weights.tensors().iter().map(Saved::name).collect::<Vec<_>>(), ["fc.weight"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weights(&self) -> Weights {
        Weights::new(self.tensors.clone(), Meta::new()).weights_only()
    }

    /// Sets an arena and an optimiser to what was saved; returns the place in the run, for
    /// [`crate::train::Trainer::resume`].
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// let mut optimizer = Optimizer::new(&arena, Rule::adam())?;
    /// let checkpoint = Checkpoint::take(&arena, &optimizer, state)?;
    /// arena.set_value(layer.weight(), &Tensor::zeros(&gpu, &[1, 2])?)?; // what came after is lost
    /// let state = checkpoint.restore(&mut arena, &mut optimizer)?; // for `Trainer::resume`
    /// assert_eq!((state.step, arena.params().get(layer.weight()).to_vec()?), (20, vec![1.0, 1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Params`] if the checkpoint is that of another model or optimiser; the arena may then be partly set.
    pub fn restore(&self, arena: &mut Arena, optimizer: &mut Optimizer) -> Result<TrainState> {
        let (saved, now) = (kind(&self.rule), format!("{:?}", optimizer.rule()));
        if saved != kind(&now) {
            return Err(Error::Params(format!(
                "the checkpoint is of the optimiser {saved}, not {}; resume with the same",
                kind(&now)
            )));
        }
        self.weights().load_into(arena, &LoadOptions::strict())?;
        let moments =
            self.tensors.iter().filter_map(|t| Some((t.name().strip_prefix(MOMENTS)?.to_string(), t.to_f32())));
        optimizer.load_state(&moments.collect::<Vec<_>>())?;
        match self.tensors.iter().find(|t| t.name() == MASK) {
            Some(mask) => arena.set_mask_flat(&Tensor::from_slice(arena.gpu(), &mask.to_f32(), mask.shape())?)?,
            None => arena.clear_masks(),
        }
        Ok(self.state.clone())
    }

    /// Writes the file, whole or not at all.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// let path = folder.path().join("run.safetensors");
    /// Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?.save(&path)?;
    /// assert_eq!(Weights::open(&path)?.weights_only().tensors().len(), 1); // any reader finds the weight
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let s = &self.state;
        let state = json!({
            "epoch": s.position.epoch,
            "epoch_step": s.position.step,
            "step": s.step,
            "best_epoch": s.best.map(|b| b.0),
            "seed": s.seed,
            "batch": s.batch,
            "samples": s.samples,
        });
        let mut tensors = self.tensors.clone();
        // Numbers that must come back to the last bit are kept as such and not as text.
        let recent: Vec<f64> = s.meter.recent.iter().flat_map(|&(loss, n)| [loss, n as f64]).collect();
        let numbers = [s.best.map_or(0.0, |b| b.1), s.seconds, s.meter.sum, s.meter.weight];
        tensors.extend([Saved::f64(RECENT, &recent), Saved::f64(NUMBERS, &numbers)]);
        for (name, data) in &self.extra {
            tensors.push(Saved::f32(format!("{EXTRA}{name}"), &[data.len()], data)?);
        }
        let mut meta: Meta = self.notes.iter().map(|(k, v)| (format!("{NOTE}{k}"), v.clone())).collect();
        let fixed = [(FORMAT, VERSION.to_string()), (STATE, state.to_string()), (RULE, self.rule.clone())];
        meta.extend(fixed.map(|(k, v)| (k.to_string(), v)));
        meta.insert(SUM.into(), sum_of(&tensors, &meta));
        write_safetensors(path.as_ref(), &tensors, &meta)
    }

    /// Reads a checkpoint.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let path = folder.path().join("run.safetensors");
    /// let mut checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
    /// checkpoint.extra.push(("temperature".into(), vec![0.5]));
    /// checkpoint.save(&path)?;
    /// let checkpoint = Checkpoint::open(&path)?;
    /// assert_eq!((checkpoint.state.best, checkpoint.state.seconds), (Some((1, 0.9)), 3.5));
    /// assert_eq!(checkpoint.extra, [("temperature".to_string(), vec![0.5])]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Data`] if the file is none, is damaged, or of a later version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = Weights::open(path)?;
        Self::parse(&file).map_err(|detail| Error::data(path, detail))
    }

    fn parse(file: &Weights) -> Result<Self, String> {
        let meta = file.meta();
        match meta.get(FORMAT).map(String::as_str) {
            Some(VERSION) => {}
            Some(other) => return Err(format!("is a checkpoint of version {other}, this program reads {VERSION}")),
            None => return Err("holds weights, but is no checkpoint; start a new run from them (`--weights`)".into()),
        }
        if meta.get(SUM) != Some(&sum_of(file.tensors(), meta)) {
            return Err("is damaged: its content does not fit its check sum; take an earlier checkpoint".into());
        }
        let broken = || "is no checkpoint of this program: parts are missing".to_string();
        let state: Value = serde_json::from_str(meta.get(STATE).ok_or_else(broken)?).map_err(|_| broken())?;
        let int = |key: &str| state[key].as_u64().ok_or_else(broken);
        let size = |key: &str| int(key).and_then(|n| usize::try_from(n).map_err(|_| broken()));
        let numbers = file.get(NUMBERS).ok_or_else(broken)?.to_f64();
        let &[accuracy, seconds, sum, weight] = &numbers[..] else { return Err(broken()) };
        let recent = file.get(RECENT).ok_or_else(broken)?.to_f64();
        let recent = recent.as_chunks::<2>().0.iter().map(|&[loss, n]| (loss, n as usize)).collect();
        let state = TrainState {
            position: Position { epoch: int("epoch")?, step: int("epoch_step")? },
            step: int("step")?,
            best: state["best_epoch"].as_u64().map(|epoch| (epoch, accuracy)),
            meter: MeterState { recent, sum, weight },
            seconds,
            seed: int("seed")?,
            batch: size("batch")?,
            samples: size("samples")?,
        };
        let mut extra = Vec::new();
        let mut tensors = Vec::new();
        for t in file.tensors() {
            match t.name().strip_prefix(EXTRA) {
                Some(name) => extra.push((name.to_string(), t.to_f32())),
                None if t.name() == NUMBERS || t.name() == RECENT => {}
                None => tensors.push(t.clone()),
            }
        }
        let notes = meta.iter().filter_map(|(k, v)| Some((k.strip_prefix(NOTE)?.to_string(), v.clone()))).collect();
        Ok(Self { state, notes, extra, rule: meta.get(RULE).ok_or_else(broken)?.clone(), tensors })
    }

    /// Whether a file's tensor belongs to a checkpoint's other state and not to the model.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// assert!(Checkpoint::is_state("shadegrad.optimizer.moment1"));
    /// assert!(!Checkpoint::is_state("layer1.0.conv1.weight"));
    /// ```
    pub fn is_state(name: &str) -> bool {
        name.starts_with(RESERVED)
    }
}

/// A sum over names, types, shapes, elements and notes, in hexadecimal.
fn sum_of(tensors: &[Saved], meta: &Meta) -> String {
    let mut order: Vec<&Saved> = tensors.iter().collect();
    order.sort_by(|a, b| a.name().cmp(b.name()));
    let mut sum = Sum(0);
    for t in order {
        let head = format!("{} {} {:?}", t.name(), t.dtype().name(), t.shape());
        sum.add(head.as_bytes());
        sum.add(&t.to_bytes());
    }
    for (key, value) in meta.iter().filter(|(k, _)| *k != SUM) {
        sum.add(key.as_bytes());
        sum.add(value.as_bytes());
    }
    format!("{:016x}", sum.0)
}

/// Multiplies and turns, eight bytes at a time. Each step is one-to-one in the word and in the sum so far: a changed word
/// always changes the sum, several do but for one case in 2^64.
struct Sum(u64);

impl Sum {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64 + 1);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|w| self.word(u64::from_le_bytes(*w)));
        self.word(rest.iter().fold(0, |v, &b| v << 8 | u64::from(b)));
    }
}
