//! The folder of a run, as others read it: its configuration and what it recorded.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::failure::usage;

/// The files of a run's folder.
pub const CONFIG: &str = "config.resolved.toml";
pub const ENVIRONMENT: &str = "environment.json";
pub const METRICS: &str = "metrics.jsonl";
pub const REPORT: &str = "report.html";
pub const PICTURES: &str = "pictures";
/// Held by the process that trains; what it says is that process's number.
const LOCK: &str = ".lock";

/// Takes a run's folder for this process alone, for as long as the result lives. The system gives it back however the process
/// ends, so that a killed run is in nobody's way.
///
/// # Errors
/// If another process has it, or nothing can be written there.
pub fn claim(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|e| {
        anyhow::anyhow!("{}: cannot be written ({e}); choose another folder with --out", folder.display())
    })?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(&path).ok().filter(|t| !t.trim().is_empty());
            let owner = owner.map_or("another process".into(), |id| format!("process {}", id.trim()));
            bail!(
                "{}: {owner} trains in this folder; let it end, stop it, or choose another folder with --out",
                folder.display()
            );
        }
        // Where the file system knows no locks, things are as they were without.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    // Only for people; the lock itself is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Gives up a folder that nothing came of.
pub fn unclaim(folder: &Path, claim: File) {
    drop(claim);
    // What cannot be removed does no harm.
    let _ = fs::remove_file(folder.join(LOCK));
}

/// A record after some steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    pub step: u64,
    pub loss: f64,
    pub lr: f64,
}

/// A record after an epoch. What was not measured is not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    pub epoch: u64,
    pub step: u64,
    pub train_loss: f64,
    pub test_loss: f64,
    pub accuracy: f64,
    pub top5: f64,
    pub ece: f64,
    pub brier: f64,
    pub seconds: f64,
    pub rate: f64,
}

/// How a run ended, as far as its records know.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum End {
    /// It goes on, or was killed.
    #[default]
    Open,
    /// As planned; the record of it.
    Finished(Value),
    /// Somebody ended it.
    Interrupted(String),
    /// By itself, with this message.
    Failed(String),
}

/// What a run recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub steps: Vec<StepRecord>,
    pub epochs: Vec<EpochRecord>,
    pub end: End,
}

impl Log {
    /// Reads metrics.jsonl; an empty log if there is none.
    ///
    /// # Errors
    /// If a line is no record. The last one may be cut off, as a run that was killed leaves it.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => bail!("{shown}: {e}; give the folder of a run"),
        };
        let mut log = Self::default();
        let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).peekable();
        while let Some((i, line)) = lines.next() {
            match serde_json::from_str::<Value>(line) {
                Ok(record) => log.add(&record),
                Err(_) if lines.peek().is_none() && !text.ends_with('\n') => {}
                Err(e) => bail!("{shown}: line {} is no record ({e}); remove it or restore the file", i + 1),
            }
        }
        Ok(log)
    }

    /// Takes up a record. One that goes back in time replaces what came after it: the run went on from there.
    fn add(&mut self, record: &Value) {
        let number = |key: &str| record[key].as_f64().unwrap_or(f64::NAN);
        let count = |key: &str| record[key].as_u64().unwrap_or(0);
        let message = |key: &str| record[key].as_str().unwrap_or_default().to_string();
        match record["event"].as_str() {
            Some("step") => {
                let step = count("step");
                while self.steps.pop_if(|s| s.step >= step).is_some() {}
                while self.epochs.pop_if(|e| e.step >= step).is_some() {}
                self.steps.push(StepRecord { step, loss: number("loss"), lr: number("lr") });
                self.end = End::Open;
            }
            Some("epoch") => {
                let epoch = count("epoch");
                while self.epochs.pop_if(|e| e.epoch >= epoch).is_some() {}
                let within = |part: &str, key: &str| record[part][key].as_f64().unwrap_or(f64::NAN);
                self.epochs.push(EpochRecord {
                    epoch,
                    step: count("step"),
                    train_loss: number("train_loss"),
                    test_loss: within("test", "loss"),
                    accuracy: within("test", "accuracy"),
                    top5: within("test", "top5"),
                    ece: within("test", "ece"),
                    brier: within("test", "brier"),
                    seconds: within("time", "seconds"),
                    rate: within("time", "images_per_s"),
                });
                self.end = End::Open;
            }
            Some("end") => self.end = End::Finished(record.clone()),
            Some("error") => self.end = End::Failed(message("error")),
            Some("interrupted") => {
                let said = ["message", "error"].map(message).into_iter().find(|m| !m.is_empty());
                self.end = End::Interrupted(said.unwrap_or_default());
            }
            // Of no concern here, or of a later version.
            _ => {}
        }
    }

    /// The last step that was recorded.
    pub fn last_step(&self) -> u64 {
        let (step, epoch) = (self.steps.last().map(|s| s.step), self.epochs.last().map(|e| e.step));
        step.max(epoch).unwrap_or(0)
    }

    /// The epoch with the highest test accuracy, the first of equal ones.
    pub fn best(&self) -> Option<&EpochRecord> {
        let measured = self.epochs.iter().filter(|e| e.accuracy.is_finite());
        measured.reduce(|best, e| if e.accuracy > best.accuracy { e } else { best })
    }

    /// One number of each step that was recorded, by step.
    pub fn by_step(&self, value: impl Fn(&StepRecord) -> f64) -> Vec<(f64, f64)> {
        self.steps.iter().map(|s| (s.step as f64, value(s))).collect()
    }

    /// One number of each epoch, by epoch.
    pub fn by_epoch(&self, value: impl Fn(&EpochRecord) -> f64) -> Vec<(f64, f64)> {
        self.epochs.iter().map(|e| (e.epoch as f64, value(e))).collect()
    }
}

/// A run on disk.
#[derive(Clone, Debug)]
pub struct Run {
    pub folder: PathBuf,
    pub config: toml::Table,
    pub log: Log,
}

impl Run {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// If it is none, saying what is missing or cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        if !folder.is_dir() {
            return Err(usage(format!("{shown}: no such folder; give the folders of runs, such as runs/cnn-digits-1")));
        }
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path)
            .map_err(|e| usage(format!("{shown}: no folder of a training run: {CONFIG}: {e}; give one that has it")))?;
        let config = toml::from_str(&text).with_context(|| format!("{}: not valid TOML", path.display()))?;
        let log = Log::read(&folder.join(METRICS))?;
        Ok(Self { folder: folder.into(), config, log })
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        self.folder.file_name().map_or_else(|| self.folder.display().to_string(), |n| n.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Result<Log> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        fs::write(&path, text).unwrap();
        Log::read(&path)
    }

    const STEP: &str = r#"{"event":"step","step":5,"epoch":1,"loss":2.5,"lr":0.1}"#;
    const EPOCH: &str = r#"{"event":"epoch","epoch":1,"step":6,"train_loss":2.0,"test":{"loss":1.5,"accuracy":0.5,"top5":null,"ece":0.1,"brier":0.6},"time":{"seconds":1,"images_per_s":9}}"#;

    #[test]
    fn records_are_read() {
        let l = log(&format!("{STEP}\n{EPOCH}\n")).unwrap();
        assert_eq!((l.steps.len(), l.epochs[0].accuracy, l.last_step()), (1, 0.5, 6));
        assert!(l.epochs[0].top5.is_nan() && l.end == End::Open);
        let error = r#"{"event":"error","error":"the loss is NaN"}"#;
        assert_eq!(log(&format!("{STEP}\n{error}\n")).unwrap().end, End::Failed("the loss is NaN".into()));
        let later = r#"{"event":"something new","x":1}"#;
        assert_eq!(log(&format!("{STEP}\n{later}\n")).unwrap().steps.len(), 1);
        assert_eq!(Log::read(Path::new("/nowhere/metrics.jsonl")).unwrap(), Log::default());
    }

    #[test]
    fn a_run_that_went_on_again_counts_once() {
        let again = STEP.replace("2.5", "2.25");
        let error = r#"{"event":"interrupted","message":"saved"}"#;
        let l = log(&format!("{STEP}\n{EPOCH}\n{error}\n{again}\n")).unwrap();
        assert_eq!((l.steps.len(), l.steps[0].loss, l.epochs.len(), l.end), (1, 2.25, 0, End::Open));
    }

    #[test]
    fn a_line_cut_off_at_the_end_is_left_out_and_no_other() {
        assert_eq!(log(&format!("{STEP}\n{}", &EPOCH[..40])).unwrap().epochs.len(), 0);
        let err = log(&format!("{}\n{STEP}\n", &EPOCH[..40])).unwrap_err().to_string();
        assert!(err.contains("line 1 is no record"), "{err}");
    }

    #[test]
    fn the_best_epoch_is_the_first_of_equals() {
        let epoch = |n: u64, accuracy: f64| {
            EPOCH.replace("\"epoch\":1", &format!("\"epoch\":{n}")).replace("0.5", &accuracy.to_string())
        };
        let l = log(&[epoch(1, 0.25), epoch(2, 0.75), epoch(3, 0.75)].join("\n")).unwrap();
        assert_eq!(l.best().unwrap().epoch, 2);
    }
}
