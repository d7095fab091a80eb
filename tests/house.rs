//! What holds for the sources as a whole: where they give up Rust's guarantees, and whose code they bring along.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
}

#[test]
fn one_place_is_unsafe() {
    let mut all = Vec::new();
    sources(root(), &mut all);
    // Put together, for this file holds it otherwise, too.
    let mark = ["unsafe", " {"].concat();
    let found: Vec<_> = all
        .iter()
        .filter(|p| std::fs::read_to_string(p).expect("text").contains(&mark))
        .map(|p| p.strip_prefix(root()).expect("below the root").to_path_buf())
        .collect();
    assert_eq!(found, [Path::new("kernels/src/pipeline.rs")], "of {} files", all.len());
    for (library, of) in
        [("shaders", "shaders/src"), ("kernels", "kernels/src"), ("engine", "src"), ("models", "models/src")]
    {
        let text = std::fs::read_to_string(root().join(of).join("lib.rs")).expect("lib.rs");
        for lint in ["unsafe_code", "missing_docs", "clippy::unwrap_used", "clippy::expect_used", "clippy::panic"] {
            assert!(text.contains(lint), "{library} does not deny {lint}");
        }
    }
}

#[test]
fn every_dependency_has_a_licence_that_asks_for_no_more_than_ours() {
    // Of this platform: those of others were not downloaded to build here.
    let version = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).expect("rustc knows its host");
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let free = ["MIT", "Apache-2.0", "Zlib", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "Unlicense", "Unicode-3.0"];
    // One of the alternatives must do; of what stands between `AND`, each part.
    let permits = |part: &str| {
        part.split(" OR ").flat_map(|p| p.split('/')).any(|l| free.contains(&l.trim_matches([' ', '(', ')'])))
    };
    let packages = metadata["packages"].as_array().expect("packages");
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(|l| l.split(" AND ").all(permits)))
        .map(|p| format!("{}: {}", p["name"], p["license"]))
        .collect();
    assert!(packages.len() > 100 && refused.is_empty(), "{refused:?}");
}
