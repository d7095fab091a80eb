//! What a run saves while it goes on, and how it goes on from there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use shadegrad::io::{Checkpoint, Checkpoints, write_atomic};
use shadegrad::nn::Arena;
use shadegrad::optim::Optimizer;
use shadegrad::train::{EpochEnd, Flow, Hooks, Pause, Place, Progress, TrainState};
use shadegrad::{Error, did_you_mean};

use crate::failure::usage;
use crate::interrupt;
use crate::runs::METRICS;

/// The folder of checkpoints in a run's folder.
const FOLDER: &str = "checkpoints";

/// The run in the folder `run` as an argument of a command.
fn shown(run: &Path) -> String {
    let text = run.display().to_string();
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// Watches a run for another watcher, and saves it: before the first step, every so many steps, after every epoch, and
/// when it is asked to end.
pub struct Saver<'a, H: Hooks> {
    inner: &'a mut H,
    run: PathBuf,
    folder: Checkpoints,
    every: u64,
    /// Step of the last checkpoint, and whether it was behind an epoch's evaluation.
    saved: Option<(u64, bool)>,
}

impl<'a, H: Hooks> Saver<'a, H> {
    /// Saves into the folder of the run `run` every `every` steps, if that is not 0.
    pub fn new(inner: &'a mut H, run: &Path, keep: usize, every: u64) -> Result<Self> {
        let folder = Checkpoints::open(run.join(FOLDER), keep)?;
        Ok(Self { inner, run: run.into(), folder, every, saved: None })
    }

    fn save(&mut self, now: &mut Pause) -> shadegrad::Result<()> {
        let end = matches!(now.place, Place::EpochEnd { .. });
        if self.saved == Some((now.step, end)) {
            return Ok(());
        }
        let checkpoint = Checkpoint::take(now.arena, now.optimizer, now.state()?)?;
        // The records up to here go to the disk before what makes them count.
        let records = self.run.join(METRICS);
        let file = fs::OpenOptions::new().append(true).open(&records);
        file.and_then(|f| f.sync_all()).map_err(|e| Error::io(&records, &e))?;
        self.folder.save(&checkpoint)?;
        self.saved = Some((now.step, end));
        if now.place == (Place::EpochEnd { best: true }) {
            self.folder.save_best(&checkpoint)?;
        }
        Ok(())
    }
}

impl<H: Hooks> Hooks for Saver<'_, H> {
    fn progress(&mut self, now: &Progress) -> shadegrad::Result<()> {
        self.inner.progress(now)
    }

    fn record(&mut self, now: &Progress) -> shadegrad::Result<()> {
        self.inner.record(now)
    }

    fn stepped(&mut self, step: u64, arena: &mut Arena, optimizer: &mut Optimizer) -> shadegrad::Result<()> {
        self.inner.stepped(step, arena, optimizer)
    }

    fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> shadegrad::Result<Flow> {
        self.inner.epoch(end, arena)
    }

    fn pause(&mut self, now: &mut Pause) -> shadegrad::Result<()> {
        self.inner.pause(now)?;
        let due = match now.place {
            // A disk without room for a checkpoint is found here, not after hours.
            Place::Start | Place::EpochEnd { .. } => true,
            Place::Step => self.every > 0 && now.step.is_multiple_of(self.every),
        };
        let asked = interrupt::asked();
        if due || asked {
            self.save(now)?;
        }
        if asked {
            let command = format!("shadegrad train --resume {}", shown(&self.run));
            return Err(Error::Interrupted(format!("saved after step {}; go on with: {command}", now.step)));
        }
        Ok(())
    }
}

/// The last words of a run that ended with an error: where it can go on from.
pub fn remedy(run: &Path) -> Option<String> {
    let (step, path) = Checkpoints::list(&run.join(FOLDER)).ok()?.pop()?;
    Some(format!("the last good checkpoint is {} (step {step})", path.display()))
}

/// Where a run goes on from.
pub struct From {
    pub checkpoint: Checkpoint,
    pub path: PathBuf,
}

/// The checkpoint of the run in the folder `run` that `which` names: `last`, `previous`, `best`, or a step.
pub fn find(run: &Path, which: &str) -> Result<From> {
    let folder = run.join(FOLDER);
    if !run.is_dir() {
        return Err(usage(format!("{}: no such folder; give that of a run", run.display())));
    }
    let all = Checkpoints::list(&folder)?;
    let last = all.len().checked_sub(1);
    let path = match which {
        "last" => last.map(|i| all[i].1.clone()),
        "previous" => last.and_then(|i| i.checked_sub(1)).map(|i| all[i].1.clone()),
        "best" => Some(Checkpoints::best(&folder)).filter(|p| p.exists()),
        step => {
            let Ok(step) = step.parse::<u64>() else {
                let hint = did_you_mean(step, &["last", "previous", "best"]);
                return Err(usage(format!("--from {step}: give last, previous, best, or a step{hint}")));
            };
            all.iter().find(|c| c.0 == step).map(|c| c.1.clone())
        }
    };
    let Some(path) = path else {
        let there: Vec<String> = all.iter().map(|c| c.0.to_string()).collect();
        let there = if there.is_empty() { "none".into() } else { format!("those of the steps {}", there.join(", ")) };
        return Err(usage(format!("{}: there is no {which} checkpoint; there are {there}", folder.display())));
    };
    match Checkpoint::open(&path) {
        Ok(checkpoint) => Ok(From { checkpoint, path }),
        Err(err) => {
            let older = last.is_some_and(|i| i > 0 && all[i].1 == path);
            let remedy = if older { "\nthe one before it is used with: --from previous" } else { "" };
            Err(anyhow::Error::from(err).context(format!("cannot go on from this checkpoint{remedy}")))
        }
    }
}

/// Takes out of a run's records and checkpoints what came after `state`: a run that ended there wrote it, and the one that
/// goes on writes it again.
pub fn rewind(run: &Path, state: &TrainState) -> Result<()> {
    let path = run.join(METRICS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(&path, &e).into()),
    };
    let kept: Vec<&str> = text.lines().filter(|line| before(line, state)).collect();
    write_atomic(&path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))?;
    // Later checkpoints would be taken for the newest ones, and the run will make them again.
    for (_, later) in Checkpoints::list(&run.join(FOLDER))?.iter().filter(|c| c.0 > state.step) {
        fs::remove_file(later).map_err(|e| Error::io(later, &e))?;
    }
    Ok(())
}

/// Whether a record was made before the run stood at `state`. A line that a kill cut off was not.
fn before(line: &str, state: &TrainState) -> bool {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return false };
    let number = |key: &str| record[key].as_u64();
    match record["event"].as_str() {
        Some("error" | "interrupted" | "end") => false,
        // Behind an epoch's last step its evaluation may still be to come.
        Some("epoch") => number("epoch").is_some_and(|e| e <= state.position.epoch),
        _ => number("step").is_none_or(|s| s <= state.step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadegrad::data::Position;
    use shadegrad::train::MeterState;

    #[test]
    fn records_after_the_checkpoint_go() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"event":"run","version":1}"#,
            r#"{"event":"step","step":5}"#,
            r#"{"event":"epoch","epoch":1,"step":5}"#,
            r#"{"event":"step","step":10}"#,
            r#"{"event":"epoch","epoch":2,"step":10}"#,
            r#"{"event":"step","step":15}"#,
            r#"{"event":"error","error":"x"}"#,
            r#"{"event":"st"#,
        ];
        let path = folder.path().join(METRICS);
        for (position, step, kept) in [((1, 5), 10, 4), ((2, 0), 10, 5), ((0, 5), 5, 2), ((0, 0), 0, 1)] {
            fs::write(&path, lines.join("\n")).unwrap();
            let (epoch, in_epoch) = position;
            let state = TrainState {
                position: Position { epoch, step: in_epoch },
                step,
                best: None,
                meter: MeterState::default(),
                seconds: 0.0,
                seed: 0,
                batch: 1,
                samples: 1,
            };
            rewind(folder.path(), &state).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(), lines[..kept]);
        }
    }

    #[test]
    fn folders_with_spaces_are_quoted() {
        assert_eq!([shown(Path::new("a/b")), shown(Path::new("a b"))], ["a/b", "\"a b\""]);
    }
}
