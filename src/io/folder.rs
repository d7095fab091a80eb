//! The checkpoints of a run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::Checkpoint;
use crate::io::atomic::{cannot_write, remove_unfinished};

const FIRST: &str = "step-";
const LAST: &str = ".safetensors";
const BEST: &str = "best.safetensors";

/// A folder with a run's last checkpoints, one file each, named by their step, and the best one. For one process at a time.
///
/// ```
/// # use shadegrad::{data::Position, nn::*, optim::*, train::*, *};
/// use shadegrad::io::{Checkpoint, Checkpoints};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # Linear::new(&mut names.root(), 2, 1, true);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let position = Position { epoch: 2, step: 0 };
/// # let meter = MeterState::default();
/// # let state = TrainState { position, step: 20, best: None, meter, seconds: 3.5, seed: 0, batch: 64, samples: 640 };
/// # let checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
/// # let root = tempfile::tempdir().expect("a folder");
/// # let path = root.path().join("checkpoints");
/// let folder = Checkpoints::open(&path, 3)?; // the last three stay
/// folder.save(&checkpoint)?;
/// let (step, file) = Checkpoints::list(&path)?.pop().expect("a checkpoint");
/// assert_eq!((step, file), (20, path.join("step-000000020.safetensors")));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Makes the folder if need be and removes what a killed process left half written. Of the checkpoints by step the
    /// last `keep` stay, at least one.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// # let root = tempfile::tempdir().expect("a folder");
    /// let folder = root.path().join("run/checkpoints");
    /// Checkpoints::open(&folder, 3)?; // makes it
    /// assert!(folder.is_dir() && Checkpoints::list(&folder)?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, &e))?;
        remove_unfinished(&folder);
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Saves a checkpoint under its step and removes the oldest beyond those that are kept.
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
    /// # let root = tempfile::tempdir().expect("a folder");
    /// let mut checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
    /// let folder = Checkpoints::open(root.path(), 2)?;
    /// for step in [20, 40, 60] {
    ///     checkpoint.state.step = step;
    ///     folder.save(&checkpoint)?;
    /// }
    /// let steps: Vec<u64> = Checkpoints::list(root.path())?.iter().map(|(step, _)| *step).collect();
    /// assert_eq!(steps, [40, 60]); // the last two
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be written; then nothing is removed.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let path = self.folder.join(format!("{FIRST}{:09}{LAST}", checkpoint.state.step));
        checkpoint.save(&path)?;
        let all = Self::list(&self.folder)?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            // One that cannot be removed is in nobody's way.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }

    /// Saves a checkpoint as the best one.
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
    /// # let root = tempfile::tempdir().expect("a folder");
    /// let checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
    /// let path = Checkpoints::open(root.path(), 2)?.save_best(&checkpoint)?; // not counted among the last
    /// assert_eq!(path, Checkpoints::best(root.path()));
    /// assert_eq!(Checkpoint::open(&path)?.state.step, 20);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_best(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let path = Self::best(&self.folder);
        checkpoint.save(&path)?;
        Ok(path)
    }

    /// Steps and paths of the checkpoints in a folder, the newest last; none if there is no such folder.
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
    /// # let root = tempfile::tempdir().expect("a folder");
    /// assert!(Checkpoints::list(&root.path().join("none"))?.is_empty());
    /// let checkpoint = Checkpoint::take(&arena, &Optimizer::new(&arena, Rule::adam())?, state)?;
    /// let path = Checkpoints::open(root.path(), 2)?.save(&checkpoint)?;
    /// assert_eq!(Checkpoints::list(root.path())?, [(20, path)]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(folder, &e)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(folder, &e))?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|n| n.strip_prefix(FIRST)?.strip_suffix(LAST)?.parse().ok());
            all.extend(step.map(|s: u64| (s, entry.path())));
        }
        all.sort();
        Ok(all)
    }

    /// Where the best checkpoint of a folder lies, if there is one.
    ///
    /// ```
    /// # use shadegrad::{data::Position, io::*, nn::*, optim::*, train::*, *};
    /// let path = Checkpoints::best("run/checkpoints".as_ref());
    /// assert_eq!(path, std::path::Path::new("run/checkpoints/best.safetensors"));
    /// ```
    pub fn best(folder: &Path) -> PathBuf {
        folder.join(BEST)
    }
}
