//! Puts the stored results of the papers into the command, so that `shadegrad papers` knows them wherever it runs, and
//! the commit it is built from, where that is known.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    results();
    commit();
}

fn results() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../docs/results");
    // A folder that is not there would count as changed every time.
    let watched = if folder.exists() { folder.as_path() } else { folder.parent().unwrap_or(&folder) };
    println!("cargo:rerun-if-changed={}", watched.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect()).unwrap_or_default();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let file = fs::canonicalize(&file).expect("a file that was just listed");
        println!("cargo:rerun-if-changed={}", file.display());
        writeln!(text, "    include_str!({:?}),", file.display().to_string()).expect("writing to a string");
    }
    text.push(']');
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("results.rs");
    fs::write(out, text).expect("the build's own folder");
}

/// A number, no path of the machine. Whoever builds from an archive can give it as `SHADEGRAD_COMMIT`.
fn commit() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SHADEGRAD_COMMIT");
    if let Ok(given) = env::var("SHADEGRAD_COMMIT") {
        println!("cargo:rustc-env=SHADEGRAD_COMMIT={given}");
        return;
    }
    // A copy of the sources within another repository is not at that one's commit.
    if git(&["ls-files", "--error-unmatch", "build.rs"]).is_none() {
        return;
    }
    // What git writes with every commit and checkout.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|p| Path::new(p).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=SHADEGRAD_COMMIT={commit}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_string())
}
