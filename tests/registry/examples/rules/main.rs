//! Tests the tests: makes a small mistake in a backward rule, runs the checks that reach it, and expects one of them to fail.
//!
//! `cargo run --release -p shadegrad-conformance --example rules -- --sample 200 [--seed 1] [--only FILE] [--uses FILE]
//! [--equivalent] [--to FOLDER] [--target FOLDER] [--build]`
//!
//! A copy of the sources, in a folder of its own, gets all mistakes at once (see `edit.rs`): each changed place asks at run time
//! whether its number is the one that is wrong now. The copy is built once, together with this program, which then goes on there:
//! it finds out which check reaches which places, makes the mistakes one after the other and tells what nobody noticed. What makes
//! no difference stands with its reason in `rules.equivalent`. The engine itself knows nothing of all this.
//!
//! `--to` names the folder of the copy, `--target` cargo's folder for it (a copy of one in which the engine was built saves minutes;
//! that of another working tree must not be shared, since cargo takes the two for one), and `--build` stops when the copy is built.
//! A mistake whose text does not compile is taken out of the copy, and is not counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use shadegrad::Options;
use shadegrad_conformance::open;

use edit::{Site, sites, written};
use trial::{Equivalent, Fallible, Mistake, Trial, draw, flag, measure, option, report, uses};

mod edit;
#[path = "../trial/mod.rs"]
mod trial;

/// What the copy's crate gets besides the changed sources.
const WRONG: &str = include_str!("wrong.txt");
/// The variable that names the file with the number of the mistake that is made now.
const NOW: &str = "SHADEGRAD_WRONG";
/// What stands in that file while the places that a check reaches are noted.
const NOTE: &str = "note";

/// Where backward rules are: files below `src`, and functions that only they call.
const RULES: [(&str, &[&str]); 26] = [
    ("autograd/composite.rs", &["composite_grads"]),
    ("autograd/mod.rs", &["grad_with", "add", "needed_nodes"]),
    ("nn/flat.rs", &[]),
    ("ops/attention.rs", &[]),
    ("ops/augment.rs", &[]),
    ("ops/binary.rs", &[]),
    ("ops/compact.rs", &["packed_slope"]),
    ("ops/conv.rs", &["conv2d_input_grad", "conv2d_weight_grad"]),
    ("ops/elementwise.rs", &["unary_grad"]),
    ("ops/fft.rs", &[]),
    ("ops/gather.rs", &["scattered", "scattered_rows"]),
    ("ops/index.rs", &[]),
    ("ops/linalg.rs", &[]),
    ("ops/loss.rs", &["composite", "column", "rows"]),
    ("ops/matmul.rs", &[]),
    ("ops/norm.rs", &["standardise", "affine", "composite", "grads", "pick"]),
    ("ops/parametric.rs", &[]),
    ("ops/pool.rs", &["unpool", "pick_pooled", "unavg"]),
    ("ops/random.rs", &[]),
    ("ops/reduce.rs", &[]),
    ("ops/resize.rs", &["sample_grads", "unresample"]),
    ("ops/scan.rs", &["put", "take"]),
    ("ops/softmax.rs", &[]),
    ("ops/sparse.rs", &[]),
    ("ops/spiking.rs", &["lif_gradients"]),
    ("ops/window.rs", &["composed"]),
];

fn copy(from: &Path, to: &Path) -> Fallible<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if name == "target" || name == "runs" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Writes the changed sources, without the mistakes in `out`.
fn write(root: &Path, to: &Path, files: &BTreeMap<&str, Vec<Site>>, out: &BTreeSet<usize>) -> Fallible<()> {
    for (file, sites) in files {
        let text = std::fs::read_to_string(root.join("src").join(file))?;
        let target = to.join("src").join(file);
        let text = written(&text, sites.iter().filter(|s| !out.contains(&s.id)));
        if std::fs::read_to_string(&target)? != text {
            std::fs::write(target, text)?;
        }
    }
    Ok(())
}

/// `file:line` of the errors in what the compiler says.
fn complaints(text: &str) -> Vec<(String, usize)> {
    let places = text.lines().filter(|l| l.contains(": error")).filter_map(|l| {
        let mut parts = l.split(':');
        let file = parts.next()?.strip_prefix("src/")?.to_string();
        Some((file, parts.next()?.parse().ok()?))
    });
    places.collect()
}

/// Copies, changes and builds; returns the program that was built.
fn prepare(to: &Path, target: &Path) -> Fallible<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    copy(&root, to)?;
    std::fs::write(to.join("src/wrong.rs"), WRONG)?;
    let lib = std::fs::read_to_string(root.join("src/lib.rs"))?;
    std::fs::write(to.join("src/lib.rs"), format!("{lib}\n#[allow(unused)]\nmod wrong;\n"))?;
    let mut files: BTreeMap<&str, Vec<Site>> = BTreeMap::new();
    let mut next = 1;
    for (file, helpers) in RULES {
        files.insert(file, sites(&std::fs::read_to_string(root.join("src").join(file))?, helpers, &mut next)?);
    }
    let mut out = BTreeSet::new();
    loop {
        write(&root, to, &files, &out)?;
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(["build", "--workspace", "--example", "rules", "--message-format", "short"]);
        cargo.args((!cfg!(debug_assertions)).then_some("--release"));
        let built = cargo.current_dir(to).env("CARGO_TARGET_DIR", target).output()?;
        if built.status.success() {
            break;
        }
        let text = String::from_utf8_lossy(&built.stderr).into_owned();
        let before = out.len();
        for (file, line) in complaints(&text) {
            // The lines of the copy are those of the source, but for one more at the top.
            let on_line = |s: &&Site| s.lines.contains(&(line - 1));
            out.extend(files.get(&*file).into_iter().flatten().filter(on_line).map(|s| s.id));
        }
        println!("{} places do not compile", out.len());
        if out.len() == before {
            return Err(format!("no mistake explains this: {text}").into());
        }
    }
    let mut list = String::new();
    for (file, sites) in &files {
        for site in sites.iter().filter(|s| !out.contains(&s.id)) {
            for (i, change) in site.changes.iter().enumerate() {
                list += &format!("{}\t{file}\t{}\t{}: {change}\n", site.id + i, site.text, site.column);
            }
        }
    }
    std::fs::write(to.join("wrong.list"), list)?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let program = to.join("rules");
    std::fs::copy(target.join(profile).join("examples/rules"), &program)?;
    Ok(program)
}

/// The file that tells which mistake is made.
struct Now(PathBuf);

impl Now {
    fn new() -> Fallible<Self> {
        Ok(Self(std::env::var_os(NOW).ok_or("no file tells which mistake to make")?.into()))
    }
}

impl Mistake for Now {
    fn make(&mut self, what: &str) -> Fallible<()> {
        Ok(std::fs::write(&self.0, what)?)
    }

    fn undo(&mut self) -> Fallible<()> {
        Ok(std::fs::write(&self.0, "0")?)
    }

    fn invalid(&self, _: &str) -> bool {
        false
    }
}

fn main() -> Fallible<()> {
    if flag("--child") {
        open(Options::from_env()?)?;
        return trial::child(Now::new()?);
    }
    if std::env::var_os(NOW).is_none() {
        let to = option("--to").map_or_else(|| std::env::temp_dir().join("shadegrad-rules"), PathBuf::from);
        std::fs::create_dir_all(&to)?;
        let to = to.canonicalize()?;
        let target = option("--target").map_or_else(|| Ok(to.join("target")), |t| Path::new(&t).canonicalize())?;
        let program = prepare(&to, &target)?;
        if flag("--build") {
            return Ok(());
        }
        let status = Command::new(program).args(std::env::args().skip(1)).env(NOW, to.join("wrong.now")).status()?;
        return if status.success() { Ok(()) } else { Err("the built copy failed".into()) };
    }

    open(Options::from_env()?)?;
    let mut now = Now::new()?;
    let notes = now.0.with_extension("notes");
    let measured = measure(|check| {
        now.make(NOTE)?;
        std::fs::write(&notes, "")?;
        let name = check.name().to_string();
        check.run().map_err(|e| format!("{name} fails without a mistake: {e}"))?;
        now.undo()?;
        let reached: BTreeSet<String> = std::fs::read_to_string(&notes)?.lines().map(String::from).collect();
        Ok(reached.into_iter().collect())
    })?;
    let uses = uses(&measured);
    let only = option("--only").unwrap_or_default();
    let (mut groups, mut unreached) = (BTreeMap::<String, Vec<Trial>>::new(), 0);
    let list = std::fs::read_to_string(now.0.with_extension("list"))?;
    for line in list.lines() {
        let [id, file, text, change] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err("four fields".into());
        };
        if !file.contains(&only) {
            continue;
        }
        let checks = uses.get(id).cloned().unwrap_or_default();
        unreached += usize::from(checks.is_empty());
        let shown = [file, text, change].map(String::from);
        groups.entry(file.into()).or_default().push(Trial { group: file.into(), what: id.into(), checks, shown });
    }
    println!("{} mistakes can be made, {unreached} of them where no check comes", list.lines().count());
    report(draw(groups.into_values().collect())?, &Equivalent::new(include_str!("../rules.equivalent"))?)
}
