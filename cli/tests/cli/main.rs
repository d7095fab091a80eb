//! The command itself, as a person and a script meet it. Every error must say what to do and end with a status that is not
//! zero.

mod command;
mod dashboard;
#[cfg(unix)]
mod guide;
mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use shadegrad::io::{Checkpoint, Checkpoints, Weights};
use tempfile::TempDir;

/// The command in a folder of its own.
struct Shade {
    dir: TempDir,
}

impl Shade {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    fn run_env(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        self.command(args).envs(env.iter().copied()).output().expect("the command starts")
    }

    /// Standard output of a run that must succeed.
    fn good(&self, args: &[&str]) -> String {
        let out = self.run_env(args, &[]);
        let (stdout, stderr) = texts(&out);
        assert!(out.status.success(), "{args:?}: {:?}\n{stdout}\n{stderr}", out.status);
        stdout
    }

    /// Standard error of a run that must fail with `status`, saying all of `words`.
    fn bad_env(&self, args: &[&str], env: &[(&str, &str)], status: i32, words: &[&str]) -> String {
        let out = self.run_env(args, env);
        let (stdout, stderr) = texts(&out);
        assert_eq!(out.status.code(), Some(status), "{args:?}\n{stdout}\n{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?}: no {word:?} in\n{stderr}");
        }
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        stderr
    }

    fn bad(&self, args: &[&str], status: i32, words: &[&str]) -> String {
        self.bad_env(args, &[], status, words)
    }

    /// `train` with `args` on a few digits.
    fn train(&self, out: &str, args: &[&str]) -> String {
        let mut all = vec!["train", "--train-limit", "100", "--test-limit", "50", "--batch", "20", "--out", out];
        all.extend(args);
        self.good(&all)
    }

    /// metrics.jsonl of a run, without the figures that depend on the machine's speed.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = self.read(&format!("{run}/metrics.jsonl"));
        let lines = text.lines().map(|l| serde_json::from_str(l).expect("a JSON line"));
        lines
            .map(|mut v: Value| {
                v.as_object_mut().expect("an object").remove("time");
                v
            })
            .collect()
    }

    /// [`Shade::metrics`] without those that say that the run was resumed.
    fn records(&self, run: &str) -> Vec<Value> {
        self.metrics(run).into_iter().filter(|v| v["event"] != "resumed").collect()
    }

    fn checkpoints(&self, run: &str) -> Vec<(u64, PathBuf)> {
        Checkpoints::list(&self.path(run).join("checkpoints")).expect("a list")
    }

    fn last(&self, run: &str) -> Checkpoint {
        Checkpoint::open(&self.checkpoints(run).last().expect("a checkpoint").1).expect("a good checkpoint")
    }

    /// All numbers of the last checkpoint, as bits.
    fn bits(&self, run: &str) -> Vec<(String, Vec<u8>)> {
        let file = Weights::open(&self.checkpoints(run).last().expect("a checkpoint").1).expect("a file");
        let kept = file.tensors().iter().filter(|t| t.name() != "shadegrad.numbers");
        kept.map(|t| (t.name().to_string(), t.to_bytes())).collect()
    }
}

fn texts(out: &Output) -> (String, String) {
    (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn str_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
