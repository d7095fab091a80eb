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
/// # use shadegrad::*;
/// use shadegrad::io::{Checkpoint, Checkpoints};
/// # fn save(checkpoint: &Checkpoint) -> Result<()> {
/// let folder = Checkpoints::open("run/checkpoints", 3)?; // the last three stay
/// folder.save(checkpoint)?;
/// let (step, path) = Checkpoints::list("run/checkpoints".as_ref())?.pop().expect("a checkpoint");
/// println!("step {step} in {}", path.display());
/// # Ok(())
/// # }
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
    /// # Errors
    /// If it cannot be written.
    pub fn save_best(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let path = Self::best(&self.folder);
        checkpoint.save(&path)?;
        Ok(path)
    }

    /// Steps and paths of the checkpoints in a folder, the newest last; none if there is no such folder.
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
    pub fn best(folder: &Path) -> PathBuf {
        folder.join(BEST)
    }
}
