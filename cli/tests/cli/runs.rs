//! Runs that are stopped, killed, out of room or out of numbers, and weights in and out: through the command itself.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use shadegrad::io::{Checkpoint, Checkpoints, Saved, Weights};

use crate::{Shade, texts};

/// A small run: 10 steps in each of 4 epochs.
const SMALL: &[&str] = &[
    "train",
    "--model",
    "mlp",
    "--train-limit",
    "100",
    "--test-limit",
    "50",
    "--batch",
    "10",
    "--epochs",
    "4",
    "--record-every",
    "3",
    "--augment",
    "crop",
];

/// Waits until a checkpoint of at least `step` is there, or the run has ended.
pub fn wait_for(child: &mut Child, run: &Path, step: u64) {
    let start = Instant::now();
    while Checkpoints::list(&run.join("checkpoints")).is_ok_and(|l| l.last().is_none_or(|c| c.0 < step)) {
        if child.try_wait().expect("a child").is_some() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint of step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ctrl-C, as a terminal sends it.
#[cfg(unix)]
pub fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

#[test]
fn a_killed_run_leaves_a_checkpoint_and_ends_as_the_unbroken_one() {
    let s = Shade::new();
    s.good(&[SMALL, &["--out", "whole"]].concat());
    let start = [SMALL, &["--out", "killed", "--checkpoint-every", "1", "--keep", "2"]].concat();
    let resume = ["train", "--resume", "killed"];
    // Killed without warning after some steps, at moments that fall anywhere in a step or a save.
    for (n, pause) in [(3, 0), (12, 3), (19, 7), (20, 1)] {
        let args: &[&str] = if n == 3 { &start } else { &resume };
        let mut child =
            s.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
        wait_for(&mut child, &s.path("killed"), n);
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().expect("kill");
        child.wait().expect("an end");
        // Every file that has its name is whole.
        let list = Checkpoints::list(&s.path("killed").join("checkpoints")).expect("a list");
        assert!((1..=3).contains(&list.len()), "{list:?}");
        for (step, path) in &list {
            assert_eq!(Checkpoint::open(path).expect("a good checkpoint").state.step, *step);
        }
        assert!(list.last().is_some_and(|l| l.0 >= n), "{list:?}");
    }
    let text = s.good(&resume);
    assert!(text.contains("going on after step"), "{text}");
    assert_eq!(s.records("killed"), s.records("whole"));
    assert_eq!(s.bits("killed"), s.bits("whole"));
    s.bad(&resume, 2, &["this run has ended", "--weights"]);
}

#[test]
#[cfg(unix)]
fn one_interrupt_saves_and_says_how_to_go_on() {
    let s = Shade::new();
    let args: Vec<&str> = SMALL.iter().map(|&a| if a == "4" { "1000" } else { a }).chain(["--out", "run"]).collect();
    let mut child = s.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command starts");
    wait_for(&mut child, &s.path("run"), 10);
    interrupt(&child);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130));
    let (_, stderr) = texts(&output);
    for word in ["finishing the step", "saved after step", "shadegrad train --resume run"] {
        assert!(stderr.contains(word), "no {word:?} in\n{stderr}");
    }
    let records = s.records("run");
    assert_eq!(records.last().expect("a record")["event"], "interrupted");
    let saved = s.last("run").state.step;
    assert!(stderr.contains(&format!("step {saved};")), "{stderr}");
    let page = std::fs::read_to_string(s.path("run").join("report.html")).expect("a report");
    assert!(page.contains(&format!("Interrupted: saved after step {saved};")), "the report says how it ended");
}

/// The second Ctrl-C does not wait for the step. The network and its batch are such that a step takes long.
#[test]
#[cfg(unix)]
fn the_second_interrupt_leaves_at_once() {
    let s = Shade::new();
    let args = ["train", "--model", "resnet110", "--batch", "1437", "--epochs", "9", "--out", "run"];
    let mut child = s.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command starts");
    wait_for(&mut child, &s.path("run"), 0);
    let stderr = BufReader::new(child.stderr.take().expect("standard error"));
    interrupt(&child);
    let mut lines = stderr.lines().map(|l| l.expect("a line"));
    assert!(lines.any(|l| l.contains("once more leaves at once")));
    let start = Instant::now();
    interrupt(&child);
    let status = child.wait().expect("an end");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(130));
    let rest: Vec<String> = lines.collect();
    assert!(rest.is_empty(), "{rest:?}");
    // What was there is whole, and the run goes on from it.
    assert_eq!(s.last("run").state.step, 0);
    assert_ne!(s.records("run").last().map(|r| r["event"].clone()), Some("interrupted".into()));
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_previous_one_used_on_demand() {
    let s = Shade::new();
    s.good(&[SMALL, &["--out", "whole"]].concat());
    let folder = s.path("whole").join("checkpoints");
    let list = Checkpoints::list(&folder).expect("a list");
    assert_eq!(list.iter().map(|c| c.0).collect::<Vec<_>>(), [20, 30, 40]);
    let best = Checkpoint::open(Checkpoints::best(&folder)).expect("the best");
    assert_eq!(best.state.best.expect("an epoch").0 * 10, best.state.step);
    // As if it had been killed in the last epoch, and the disk had lost a byte.
    let (records, bits) = (s.records("whole"), s.bits("whole"));
    std::fs::remove_file(&list[2].1).expect("remove");
    let mut bytes = std::fs::read(&list[1].1).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 64;
    std::fs::write(&list[1].1, bytes).expect("write");
    let words = ["step-000000030.safetensors", "damaged", "--from previous"];
    s.bad(&["train", "--resume", "whole"], 1, &words);
    s.good(&["train", "--resume", "whole", "--from", "previous"]);
    assert_eq!((s.records("whole"), s.bits("whole")), (records, bits));
    // What cannot be.
    s.bad(&["train", "--resume", "nowhere"], 2, &["nowhere", "holds no run"]);
    s.bad(&["train", "--resume", "whole", "--lr", "1"], 2, &["keeps its settings", "--weights"]);
    s.bad(&["train", "--resume", "whole", "--from", "first"], 2, &["--from first", "previous"]);
    s.bad(&["train", "--resume", "whole", "--from", "7"], 2, &["no 7 checkpoint", "steps 20, 30, 40"]);
    s.bad(&["train", "--resume", "whole", "--config", "c.toml"], 2, &["--resume", "--config"]);
}

/// A limit on the size of files stands for a full disk: it is found before the first step.
#[test]
#[cfg(unix)]
fn a_full_disk_is_noticed_before_the_training() {
    let s = Shade::new();
    let script =
        format!("trap '' XFSZ; ulimit -f 250; exec {} {} --out run", env!("CARGO_BIN_EXE_shadegrad"), SMALL.join(" "));
    let out = Command::new("sh").args(["-c", &script]).current_dir(s.path("")).output().expect("sh");
    let (stdout, stderr) = texts(&out);
    assert_eq!(out.status.code(), Some(1), "{stdout}\n{stderr}");
    assert!(stderr.contains("step-000000000.safetensors") && stderr.contains("make room"), "{stderr}");
    assert!(!stdout.contains("first step"), "{stdout}");
    assert_eq!(std::fs::read_dir(s.path("run/checkpoints")).expect("the folder").count(), 0);
    // A file where the folder should be.
    std::fs::create_dir(s.path("other")).expect("a folder");
    std::fs::write(s.path("other/checkpoints"), "").expect("a file");
    s.bad(&[SMALL, &["--out", "other"]].concat(), 1, &["checkpoints", "cannot be written"]);
}

#[test]
fn the_operation_behind_a_nan_is_named_and_the_last_good_checkpoint() {
    let s = Shade::new();
    let args = ["train", "--model", "mlp", "--lr", "1e36", "--train-limit", "100", "--batch", "20", "--out"];
    let words = ["step 2: `linear` made", "of 2560 elements [20, 128]", "the layer `layers.1`"];
    let text = s.bad(&[&args[..], &["a", "--detect-anomaly"]].concat(), 3, &words);
    assert!(text.contains("last good checkpoint") && text.contains("step-000000000.safetensors"), "{text}");
    s.bad(&[&args[..], &["b"]].concat(), 3, &["the loss of step", "last good checkpoint"]);
}

/// Ends a child at once, wherever it is.
fn kill(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("an end");
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let s = Shade::new();
    let spawn = |args: &[&str]| {
        s.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
    };
    // Longer than anybody waits.
    let long: Vec<&str> = SMALL.iter().map(|&a| if a == "4" { "100000" } else { a }).collect();
    let start = [&long[..], &["--out", "run", "--checkpoint-every", "1"]].concat();
    let resume = ["train", "--resume", "run"];
    let mut first = spawn(&start);
    wait_for(&mut first, &s.path("run"), 2);
    let owner = format!("process {} trains in this folder", first.id());
    for args in [&start[..], &resume[..]] {
        s.bad(args, 1, &["run: ", &owner, "--out"]);
    }
    // The refused ones changed nothing, and a killed one leaves nothing that keeps the next one out.
    kill(first);
    let at = s.checkpoints("run").last().expect("a checkpoint").0;
    let mut next = spawn(&resume);
    wait_for(&mut next, &s.path("run"), at + 2);
    assert!(next.try_wait().expect("a child").is_none(), "the run that goes on has ended");
    kill(next);
    assert!(s.checkpoints("run").last().expect("a checkpoint").0 >= at + 2);
}

/// A data set in IDX files: `count` pictures of 6 by 6 in four classes.
fn idx(s: &Shade, part: &str, count: u32) {
    let header = |kind: u8, dims: &[u32]| -> Vec<u8> {
        [0, 0, 8, kind].into_iter().chain(dims.iter().flat_map(|d| d.to_be_bytes())).collect()
    };
    let pixels = (0..count * 36).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    s.write(
        &format!("set/{part}-images-idx3-ubyte"),
        header(3, &[count, 6, 6]).into_iter().chain(pixels).collect::<Vec<u8>>(),
    );
    let labels = (0..count).map(|i| (i % 4) as u8);
    s.write(
        &format!("set/{part}-labels-idx1-ubyte"),
        header(1, &[count]).into_iter().chain(labels).collect::<Vec<u8>>(),
    );
}

#[test]
fn data_that_change_under_a_run_are_noticed_and_nothing_is_lost() {
    let s = Shade::new();
    idx(&s, "train", 100);
    idx(&s, "t10k", 40);
    let args =
        ["train", "--data", "set", "--model", "mlp", "--batch", "10", "--epochs", "4", "--record-every", "3", "--out"];
    s.good(&[&args[..], &["whole"]].concat());
    let file = "set/train-images-idx3-ubyte";
    let pictures = std::fs::read(s.path(file)).expect("the pictures");
    let spawn = |out: &str| {
        let args = [&args[..], &[out, "--checkpoint-every", "1"]].concat();
        let mut child =
            s.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
        wait_for(&mut child, &s.path(out), 3);
        child
    };
    // A run holds its data: the file may shrink to nothing meanwhile.
    let mut child = spawn("shrunk");
    s.write(file, &pictures[..200]);
    assert!(child.wait().expect("an end").success());
    assert_eq!((s.bits("shrunk"), s.records("shrunk")), (s.bits("whole"), s.records("whole")));
    // One that is to go on reads them again, and says what is wrong before it touches anything.
    s.write(file, &pictures);
    kill(spawn("broken"));
    let resume = ["train", "--resume", "broken"];
    let before = (s.checkpoints("broken"), s.read("broken/metrics.jsonl"));
    s.write(file, &pictures[..200]);
    s.bad(&resume, 1, &["train-images-idx3-ubyte"]);
    let mut other = pictures.clone();
    other[777] ^= 1;
    s.write(file, &other);
    s.bad(&resume, 2, &["set", "not the pictures and labels", "broken", "--weights"]);
    assert_eq!((s.checkpoints("broken"), s.read("broken/metrics.jsonl")), before);
    s.write(file, &pictures);
    s.good(&resume);
    assert_eq!((s.bits("broken"), s.records("broken")), (s.bits("whole"), s.records("whole")));
}

#[test]
fn weights_go_out_and_in() {
    let s = Shade::new();
    s.good(&[SMALL, &["--out", "run"]].concat());
    let text = s.good(&["weights", "export", "run", "--out", "w.safetensors"]);
    assert!(text.contains("6 tensors") && text.contains("26,122 numbers"), "{text}");
    let text = s.good(&["weights", "inspect", "w.safetensors"]);
    assert!(text.contains("layers.0.weight  F32   [128, 64]") && text.contains("note format: pt"), "{text}");
    let json: Value = serde_json::from_str(&s.good(&["weights", "inspect", "w.safetensors", "--json"])).expect("JSON");
    assert_eq!(json["tensors"].as_array().map(Vec::len), Some(6));
    // A run that starts from them, with a rate so low that they stay.
    let start = ["--weights", "w.safetensors", "--lr", "1e-30", "--weight-decay", "0", "--out", "next"];
    let text = s.good(&[SMALL, &start].concat());
    assert!(text.contains("weights: 6 tensors"), "{text}");
    let same = |a: &Weights, b: &Weights| {
        a.tensors().iter().all(|t| b.get(t.name()).is_some_and(|o| o.to_bytes() == t.to_bytes()))
    };
    let file = Weights::open(s.path("w.safetensors")).expect("weights");
    assert!(same(&file, &s.last("next").weights()));
    // A head of other classes is let through by name.
    let head = Saved::f32("layers.2.weight", &[3, 128], &[0.0; 384]).expect("a tensor");
    let other = file.map(|t| Ok(Some(if t.name() == head.name() { head.clone() } else { t }))).expect("a map");
    other.save(s.path("other.safetensors")).expect("a file");
    let start = [SMALL, &["--weights", "other.safetensors", "--out", "third"]].concat();
    s.bad(&start, 1, &["`layers.2.weight` is [10, 128] in the model, [3, 128] in the file", "--weights-allow"]);
    let text = s.good(&[&start[..], &["--weights-allow", "layers.2.*"]].concat());
    assert!(text.contains("left as they were: layers.2.weight"), "{text}");
    s.bad(&["weights", "inspect", "none.pt"], 1, &["none.pt"]);
    std::fs::write(s.path("x.pt"), "x").expect("a file");
    s.bad(&["weights", "export", "x.pt", "--out", "y"], 1, &["x.pt", "safetensors"]);
}
