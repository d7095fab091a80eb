//! What the guide says: its first page is run as a newcomer would, the other pages' commands and messages must exist.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::runs::{interrupt, wait_for};
use crate::{Shade, texts};

/// The program that the first page shows, compiled into this test.
#[path = "../../../models/examples/digits.rs"]
mod program;

/// Set for the process that is to be [`program`].
const PROGRAM: &str = "SHADEGRAD_TEST_PROGRAM";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All pages of the documentation.
fn pages() -> Vec<PathBuf> {
    let docs = root().join("docs");
    let mut all = vec![root().join("README.md")];
    for folder in [docs.clone(), docs.join("guide")] {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
        all.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    all
}

/// A fenced block of a page.
struct Block {
    /// The line before it.
    mark: String,
    language: String,
    body: String,
}

/// The blocks of a page in `language`.
fn blocks(text: &str, language: &str) -> Vec<Block> {
    let (mut out, mut before, mut open): (Vec<Block>, &str, Option<Block>) = (Vec::new(), "", None);
    for line in text.lines() {
        match open.take() {
            Some(block) if line.trim() == "```" => out.push(block),
            Some(block) => open = Some(Block { body: block.body + line + "\n", ..block }),
            None => match line.trim().strip_prefix("```") {
                Some(language) => {
                    let (mark, language) = (before.to_string(), language.to_string());
                    open = Some(Block { mark, language, body: String::new() });
                }
                None => before = line,
            },
        }
    }
    out.retain(|block| block.language == language);
    out
}

/// Runs as the program of the guide where [`the_first_page_is_what_happens`] asks for it.
#[test]
fn the_program_of_the_guide() {
    if std::env::var_os(PROGRAM).is_some() {
        program::main().expect("the program");
    }
}

/// The commands of the page, in its order, in a folder of its own. Only building the command is left out: this test has
/// it already, and the program of its own.
#[test]
fn the_first_page_is_what_happens() {
    let text = page(&root().join("docs/guide/start.md"));
    let source = page(&root().join("models/examples/digits.rs"));
    let shown: Vec<String> = blocks(&text, "rust,no_run").into_iter().map(|b| b.body).collect();
    assert_eq!(shown, std::slice::from_ref(&source), "the page shows models/examples/digits.rs");
    assert!(source.lines().filter(|l| !l.trim().is_empty()).count() <= 20, "it is to be short");
    let s = Shade::new();
    let mut said = String::new();
    for block in blocks(&text, "sh") {
        for line in block.body.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            said = match words.as_slice() {
                ["cargo", "install", "--path", "cli"] => continue,
                ["cargo", "run", "--release", "-p", "shadegrad-models", "--example", "digits"] => run_program(&s),
                ["shadegrad", args @ ..] if block.mark.contains("interrupted") => interrupted(&s, args),
                ["shadegrad", args @ ..] => s.good(args),
                _ => panic!("a command that this test cannot run: {line}"),
            };
            check(&s, &words, &said);
        }
    }
    // The last was the program: its accuracy is that of the run's best epoch.
    let end = s.metrics("runs/second").pop().expect("a record");
    let best = end["best"]["accuracy"].as_f64().expect("the best accuracy");
    let line = format!("{:.2} % of 360 digits are read correctly", 100.0 * best);
    assert!(best > 0.97 && said.contains(&line), "{line}\n{said}");
}

/// What the page promises of a command.
fn check(s: &Shade, words: &[&str], said: &str) {
    let promised: &[&str] = match words {
        ["shadegrad", "doctor"] => &["everything that training needs is there"],
        [.., "--epochs", "4", "--out", "runs/first"] => {
            let report = s.read("runs/first/report.html");
            for part in ["Confusion", "Calibration", "Worst mistakes", "Filters of the first layer", "Configuration"] {
                assert!(report.contains(part), "no {part} in the report");
            }
            &["epoch 4/4", "done in", "report: runs/first/report.html", "runs/first/metrics.jsonl"]
        }
        [.., "--resume", "runs/second"] => &["going on after step", "done in"],
        [_, "compare", ..] => {
            assert!(s.path("compare.html").exists());
            &["epochs 4", "epochs 10"]
        }
        [_, "weights", "export", ..] => &["digits.safetensors"],
        [_, "weights", "inspect", ..] => &["F32", "tensors"],
        _ => &[],
    };
    for word in promised {
        assert!(said.contains(word), "{words:?}: no {word:?} in\n{said}");
    }
}

/// A run that gets Ctrl-C after its first epoch.
fn interrupted(s: &Shade, args: &[&str]) -> String {
    let mut child = s.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command starts");
    wait_for(&mut child, &s.path("runs/second"), 45);
    interrupt(&child);
    let out = child.wait_with_output().expect("an end");
    let (_, stderr) = texts(&out);
    assert_eq!(out.status.code(), Some(130), "{stderr}");
    for word in ["finishing the step and saving", "go on with: shadegrad train --resume runs/second"] {
        assert!(stderr.contains(word), "no {word:?} in\n{stderr}");
    }
    stderr
}

fn run_program(s: &Shade) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "guide::the_program_of_the_guide", "--nocapture"]);
    let out = command.env(PROGRAM, "1").current_dir(s.path("")).output().expect("the program starts");
    let (stdout, stderr) = texts(&out);
    assert!(out.status.success(), "{stdout}\n{stderr}");
    stdout
}

/// `--help` behind a command's arguments makes it read them and do nothing.
#[test]
fn every_command_of_the_documentation_exists() {
    let s = Shade::new();
    let mut count = 0;
    for path in pages() {
        for block in blocks(&page(&path), "sh") {
            for line in block.body.lines() {
                let line = line.split(" #").next().unwrap_or_default().replace('\'', "");
                let Some(args) = line.strip_prefix("shadegrad ") else { continue };
                let args: Vec<&str> = args.split_whitespace().chain(["--help"]).collect();
                let out = s.run_env(&args, &[]);
                assert!(out.status.success(), "{}: {line}\n{}", path.display(), texts(&out).1);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} commands");
}

/// A relative link leads somewhere.
#[test]
fn the_links_of_the_documentation_lead_somewhere() {
    let mut count = 0;
    for path in pages() {
        let text = page(&path);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            let found = path.parent().is_some_and(|folder| folder.join(file).exists());
            assert!(found, "{}: {target} does not exist", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}

fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            *out += &page(&path);
        }
    }
}

/// A message that nobody gives any more helps nobody.
#[test]
fn the_messages_of_the_troubleshooting_page_are_given() {
    let mut all = String::new();
    for folder in ["src", "kernels/src", "cli/src"] {
        sources(&root().join(folder), &mut all);
    }
    // Texts go over lines with a backslash, and the next line's indentation is not part of them.
    let mut joined = String::new();
    for (i, part) in all.split("\\\n").enumerate() {
        joined += if i == 0 { part } else { part.trim_start() };
    }
    let text = page(&root().join("docs/guide/troubleshooting.md"));
    // A heading in capitals is no message.
    let messages = text.lines().filter_map(|l| l.strip_prefix("### ")).filter(|l| !l.starts_with(char::is_uppercase));
    let messages: Vec<&str> = messages.collect();
    assert!(messages.len() > 15);
    for message in messages {
        assert!(joined.contains(message), "no source says {message:?}");
    }
}
