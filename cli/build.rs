//! Puts the stored results of the papers into the command, so that `shadegrad papers` knows them wherever it runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../docs/results");
    println!("cargo:rerun-if-changed={}", folder.display());
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
