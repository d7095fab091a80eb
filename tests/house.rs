//! What holds for the sources as a whole: where they give up Rust's guarantees, whose code they bring along, and what
//! their documentation shows.

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
fn two_places_in_one_file_are_unsafe() {
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
    // Shaders without run-time checks, and the driver's store of compiled pipelines: wgpu has no safe form of either.
    let text = std::fs::read_to_string(root().join("kernels/src/pipeline.rs")).expect("text");
    assert_eq!(text.matches(&mark).count(), 2);
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

/// Folders and files of the libraries in which every public item has an example.
const WITH_EXAMPLES: &[&str] = &["kernels/src", "models/src", "shaders/src", "src"];

/// What a line declares, if that is public and something to show in use: no constants, fields, modules or re-exports.
fn declares(code: &str) -> bool {
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '(');
    let kind = ["fn", "struct", "enum", "trait", "union"];
    words.next() == Some("pub")
        && words.find(|w| !["const", "async", "unsafe"].contains(w)).is_some_and(|w| kind.contains(&w))
}

/// How many public items a formatted source declares outside its tests, and the lines of those without a code block in
/// their documentation. Methods of traits count as part of the trait. An item of a macro that passes documentation on
/// (`$(#[$doc])*`) is judged where the macro is called, and missing if that is nowhere in the file. What a build script
/// writes is no source, and not seen.
fn public_items(text: &str) -> (usize, Vec<(usize, &str)>) {
    let lines: Vec<&str> = text.lines().collect();
    let code = |i: usize| lines[i].trim_start();
    let indent = |i: usize| lines[i].len() - code(i).len();
    let (mut seen, mut missing) = (0, Vec::new());
    let (mut example, mut testing, mut passed_on) = (false, false, false);
    // Macros that pass documentation on: name, the line of the item and whether they are called.
    let (mut in_macro, mut macros): (&str, Vec<(&str, usize, bool)>) = ("", Vec::new());
    let mut i = 0;
    while i < lines.len() {
        let call = macros.iter_mut().find(|m| code(i).strip_prefix(m.0).is_some_and(|rest| rest.starts_with('!')));
        if let Some(doc) = code(i).strip_prefix("///") {
            example |= doc.trim_start().starts_with("```");
        } else if code(i).starts_with("#[") {
            testing |= code(i).starts_with("#[cfg(test)]") || code(i).starts_with("#[cfg(doctest)]");
            while !lines[i].ends_with(']') && i + 1 < lines.len() {
                i += 1;
            }
        } else if code(i).starts_with("$(#[") {
            passed_on = true;
        } else if !code(i).starts_with("//") {
            let first = i;
            if testing && !lines[i].ends_with([';', '}']) {
                // To the end of the item: a line as far to the left that closes it.
                i += 1;
                while i + 1 < lines.len()
                    && (lines[i].is_empty()
                        || indent(i) > indent(first)
                        || !(code(i).starts_with('}') || lines[i].ends_with(';')))
                {
                    i += 1;
                }
            } else if let Some(rest) = code(i).strip_prefix("macro_rules! ") {
                in_macro = rest.trim_end_matches([' ', '{']);
            } else if let Some(call) = call {
                call.2 = true;
                let mut docs = lines[i + 1..].iter().map(|l| l.trim_start()).take_while(|l| l.starts_with("///"));
                example = docs.any(|l| l[3..].trim_start().starts_with("```"));
                seen += 1;
                missing.extend((!example).then_some((first + 1, code(first))));
            } else if declares(code(i)) && !testing {
                if passed_on {
                    macros.push((in_macro, first, false));
                } else {
                    seen += 1;
                    missing.extend((!example).then_some((first + 1, code(first))));
                }
            }
            (example, testing, passed_on) = (false, false, false);
        }
        i += 1;
    }
    missing.extend(macros.iter().filter(|m| !m.2).map(|m| (m.1 + 1, code(m.1))));
    (seen, missing)
}

#[test]
fn every_public_item_has_an_example() {
    let (mut count, mut missing) = (0, Vec::new());
    for &part in WITH_EXAMPLES {
        let mut files = Vec::new();
        let path = root().join(part);
        if path.is_dir() {
            sources(&path, &mut files)
        } else {
            files.push(path)
        };
        files.sort();
        for file in files {
            let path = file.strip_prefix(root()).expect("below the root").display().to_string();
            // Modules of tests, and what they share.
            if path.split('/').any(|p| p == "tests" || p.starts_with("tests.") || p.starts_with("tests_")) {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("text");
            let (seen, without) = public_items(&text);
            count += seen;
            missing.extend(without.iter().map(|(line, item)| format!("{path}:{line}: {item}")));
        }
    }
    let listed = missing.join("\n");
    assert!(count > WITH_EXAMPLES.len(), "{count} items in {WITH_EXAMPLES:?}");
    assert!(missing.is_empty(), "{} of {count} public items have no example:\n{listed}", missing.len());
}

#[test]
fn a_missing_example_is_found() {
    let text = "\
/// Shown.
/// ```
/// use_it();
/// ```
#[derive(
    Clone,
)]
pub struct Shown;
impl Shown {
    /// Not shown.
    pub const fn bare(self) {}
    pub unsafe fn undocumented(self) {}
    pub(crate) fn hidden(self) {}
}
pub const NUMBER: usize = 3;
pub use other::Thing;
#[cfg(test)]
pub fn of_the_tests(
    a: usize,
) {
    pub struct Within;
}
macro_rules! table {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub enum $name {}
        /// Of the macro itself.
        pub fn same() {}
    };
}
table! {
    /// One with an example.
    ///
    /// ```
    /// ```
    First
}
table! {
    /// One without.
    Second
}
macro_rules! never_called {
    ($(#[$doc:meta])*) => {
        $(#[$doc])*
        pub struct Never;
    };
}
pub trait Last {
    fn method();
}
#[cfg(test)]
mod tests {
    pub fn helper() {}

    pub fn another() {}
}
";
    let (seen, missing) = public_items(text);
    let lines: Vec<usize> = missing.iter().map(|m| m.0).collect();
    assert_eq!((seen, lines), (7, vec![11, 12, 28, 38, 48, 45]), "{missing:?}");
}
