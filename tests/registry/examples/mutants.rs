//! Tests the tests: makes a small mistake in a kernel, runs the checks that use it, and expects one of them to fail.
//!
//! `cargo run --release -p shadegrad-conformance --example mutants -- --sample 400 [--seed 1] [--only NAME] [--uses FILE]
//! [--equivalent]`
//!
//! A mistake is one changed operator, comparison, number or choice of `min` and `max` somewhere in a kernel's expanded text; in a
//! function of `shaders/wgsl/shared` it is made in all kernels that import the function, as it would be in the source. Those that do
//! not compile are not counted. Each is tried in a child process, which is given up (and the mistake counted as caught) when a
//! changed loop does not end. The mistakes that nobody noticed are listed: each is a check that is missing, or a change that makes
//! no difference. The latter stand with their reasons in `mutants.equivalent`, are counted apart and are tried only with
//! `--equivalent`, to see whether a check notices them after all.
//!
//! Which checks use which kernel is found by running them all once; with `--uses` it is kept in a file for the next time.

use std::collections::{BTreeMap, HashMap, HashSet};

use shadegrad::{Gpu, Options};
use shadegrad_conformance::{open, user_kernels};
use shadegrad_shaders::all;

use trial::{Equivalent, Fallible, Mistake, Trial, draw, flag, measure, option, report, uses};

mod trial;

/// What stands in the text and what takes its place.
const SWAPS: [(&str, &str); 18] = [
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" / ", " * "),
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
    (" == ", " != "),
    (" != ", " == "),
    (" && ", " || "),
    (" || ", " && "),
    (" % ", " / "),
    (" += ", " -= "),
    ("min(", "max("),
    ("max(", "min("),
    (" << ", " >> "),
    (" >> ", " << "),
];

/// A mistake: in this kernel, `from` bytes on, `len` bytes become `to`.
struct Mutant {
    kernel: String,
    from: usize,
    len: usize,
    to: String,
    /// The function it is in.
    function: String,
}

impl Mutant {
    fn apply(&self, text: &str) -> String {
        format!("{}{}{}", &text[..self.from], self.to, &text[self.from + self.len..])
    }

    /// The kernel, the changed line, and what becomes of what at which column of it.
    fn describe(&self, text: &str) -> [String; 3] {
        let start = text[..self.from].rfind('\n').map_or(0, |i| i + 1);
        let end = text[self.from..].find('\n').map_or(text.len(), |i| self.from + i);
        let line = &text[start..end];
        let indent = line.len() - line.trim_start().len();
        let was = &text[self.from..self.from + self.len];
        let edit = format!("{}: {} -> {}", self.from - start - indent + 1, was.trim(), self.to.trim());
        [self.kernel.clone(), line.trim().into(), edit]
    }
}

/// Every mistake that can be made in a text, but for those that provably make no difference.
fn mutants(kernel: &str, text: &str) -> Vec<Mutant> {
    let mut all = Vec::new();
    let alive = reached(text);
    let mut start = 0;
    let mut depth = 0i32;
    let mut function = String::new();
    for line in text.split_inclusive('\n') {
        let code = line.split("//").next().unwrap_or_default();
        if depth == 0
            && let Some(name) = code.split("fn ").nth(1).and_then(|f| f.split('(').next())
        {
            function = name.to_string();
        }
        let mut add =
            |from, len, to| all.push(Mutant { kernel: kernel.into(), from, len, to, function: function.clone() });
        // Only inside functions: declarations of buffers and parameters are not arithmetic. And only inside functions that
        // the entry point calls: the others came with an import and never run.
        if depth > 0 && alive.contains(&function) {
            for (was, to) in SWAPS {
                let places =
                    code.match_indices(was).filter(|(i, _)| !without_effect(&code[..*i], was, &code[i + was.len()..]));
                places.for_each(|(i, _)| add(start + i, was.len(), to.to_string()));
            }
            for (i, number) in numbers(code) {
                if multiplies_zero(&code[..i], &code[i + number.len()..]) {
                    continue;
                }
                if let Some(n) = number.strip_suffix('u').and_then(|n| n.parse::<u64>().ok()) {
                    add(start + i, number.len(), format!("{}u", n + 1));
                } else if let Ok(x) = number.parse::<f64>() {
                    add(start + i, number.len(), format!("{:?}", 1.25 * x + 0.25));
                }
            }
        }
        depth += code.matches('{').count() as i32 - code.matches('}').count() as i32;
        start += line.len();
    }
    all
}

/// The functions that the entry point calls, by way of others too, and itself.
fn reached(text: &str) -> HashSet<String> {
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let mut bodies: HashMap<&str, String> = HashMap::new();
    let mut name = "";
    for line in code {
        if let Some(f) = line.split("fn ").nth(1).filter(|f| f.contains('(')) {
            name = f.split('(').next().unwrap_or_default();
            // What stands behind the function's own name.
            bodies.entry(name).or_default().push_str(&f[name.len()..]);
        } else {
            bodies.entry(name).or_default().push_str(line);
        }
    }
    let calls = |body: &str, f: &str| {
        body.match_indices(&format!("{f}("))
            .any(|(i, _)| !body[..i].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    };
    let mut alive = HashSet::from(["main".to_string()]);
    let mut waiting = vec!["main"];
    while let Some(f) = waiting.pop() {
        let Some(body) = bodies.get(f) else { continue };
        for callee in bodies.keys().filter(|c| !c.is_empty() && calls(body, c)) {
            if alive.insert(callee.to_string()) {
                waiting.push(callee);
            }
        }
    }
    alive
}

/// Whether a swapped operator gives the same by the numbers beside it.
fn without_effect(before: &str, was: &str, after: &str) -> bool {
    let next = after.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).next().unwrap_or_default();
    let in_a_name = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match was {
        // Adding nothing is subtracting nothing; so is shifting by nothing, in either direction.
        " + " | " - " | " << " | " >> " => ["0", "0u", "0.0"].contains(&next),
        // Dividing by one is multiplying by one.
        " / " => ["1", "1u", "1.0"].contains(&next),
        // A name that ends in these letters is another function's, and the result would not compile.
        "min(" | "max(" => in_a_name,
        _ => false,
    }
}

/// Whether the number between these two is a factor of a product in which the literal beside it is zero.
fn multiplies_zero(before: &str, after: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let left = before.strip_suffix(" * ").and_then(|b| b.rsplit(|c| !word(c)).next()).unwrap_or_default();
    let right = after.strip_prefix(" * ").and_then(|a| a.split(|c| !word(c)).next()).unwrap_or_default();
    [left, right].iter().any(|n| ["0", "0u", "0.0"].contains(n))
}

/// The decimal numbers in a line: `12u`, `0.5`. Neither parts of names nor bit patterns.
fn numbers(code: &str) -> Vec<(usize, &str)> {
    let bytes = code.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    let mut found = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        if !word(bytes[i]) {
            i += 1;
            continue;
        }
        let end = (i..bytes.len()).find(|&j| !word(bytes[j])).unwrap_or(bytes.len());
        let text = &code[i..end];
        let is_unsigned = text.strip_suffix('u').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        let is_float = text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if is_unsigned || is_float {
            found.push((i, text));
        }
        i = end;
    }
    found
}

/// The expanded texts of all kernels by their names: the engine's, and those that checks bring along.
fn texts() -> Fallible<BTreeMap<String, String>> {
    let mut texts: BTreeMap<String, String> =
        all().iter().map(|k| (k.name.to_string(), k.source.to_string())).collect();
    for (name, wgsl) in user_kernels() {
        texts.insert(name.into(), shadegrad_shaders::preprocess(name, wgsl, &[])?);
    }
    Ok(texts)
}

/// The functions of the shared sources.
fn shared() -> Fallible<HashSet<String>> {
    let mut names = HashSet::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/wgsl/shared"))? {
        let text = std::fs::read_to_string(file?.path())?;
        names.extend(text.lines().filter_map(|l| Some(l.strip_prefix("fn ")?.split('(').next()?.to_string())));
    }
    Ok(names)
}

/// Where a function stands in a text.
fn function_in<'a>(text: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let start = text.find(&format!("fn {name}("))?;
    let mut depth = 0;
    for (i, c) in text[start..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == '}' && depth == 0 {
            return Some((start, &text[start..=start + i]));
        }
    }
    None
}

/// Kernels in the place of those of a device.
struct Replaced {
    gpu: Gpu,
    texts: BTreeMap<String, String>,
    shared: HashSet<String>,
    now: Vec<String>,
}

impl Replaced {
    fn new() -> Fallible<Self> {
        Ok(Self { gpu: open(Options::from_env()?)?, texts: texts()?, shared: shared()?, now: Vec::new() })
    }
}

impl Mistake for Replaced {
    fn make(&mut self, what: &str) -> Fallible<()> {
        let [kernel, from, len, to, function] = what.split('\t').collect::<Vec<_>>()[..] else {
            return Err("five fields".into());
        };
        let (kernel, to, function) = (kernel.to_string(), to.to_string(), function.to_string());
        let mutant = Mutant { kernel, from: from.parse()?, len: len.parse()?, to, function };
        let text = &self.texts[&mutant.kernel];
        let changed = mutant.apply(text);
        if self.shared.contains(&mutant.function)
            && let (Some((_, was)), Some((_, is))) =
                (function_in(text, &mutant.function), function_in(&changed, &mutant.function))
        {
            for (name, other) in &self.texts {
                if let Some((start, _)) = function_in(other, &mutant.function).filter(|(_, f)| *f == was) {
                    let text = format!("{}{is}{}", &other[..start], &other[start + was.len()..]);
                    self.gpu.replace_kernel(name, Some(text));
                    self.now.push(name.clone());
                }
            }
        } else {
            self.gpu.replace_kernel(&mutant.kernel, Some(changed));
            self.now.push(mutant.kernel);
        }
        Ok(())
    }

    fn undo(&mut self) -> Fallible<()> {
        self.now.drain(..).for_each(|name| self.gpu.replace_kernel(&name, None));
        Ok(())
    }

    fn invalid(&self, failure: &str) -> bool {
        failure.contains("Shader {") || self.now.iter().any(|k| failure.contains(&format!("kernel `{k}`: ")))
    }
}

fn main() -> Fallible<()> {
    if flag("--child") {
        return trial::child(Replaced::new()?);
    }
    let gpu = open(Options::from_env()?)?;
    let measured = measure(|check| {
        gpu.start_profile()?;
        let name = check.name().to_string();
        check.run().map_err(|e| format!("{name} fails without a mistake: {e}"))?;
        Ok(gpu.profile()?.kernels.iter().map(|k| k.name.to_string()).collect())
    })?;
    let (uses, texts, shared) = (uses(&measured), texts()?, shared()?);
    let unused = texts.keys().filter(|k| !uses.contains_key(*k)).count();
    println!("{} kernels are used by the checks on this device; {unused} are not", uses.len());
    let only = option("--only").unwrap_or_default();
    let chosen: Vec<&String> =
        uses.keys().filter(|k| k.contains(&only) && all().iter().any(|a| a.name == ***k)).collect();
    let mistakes: Vec<Vec<Mutant>> = chosen.iter().map(|k| mutants(k, &texts[*k])).collect();
    println!("{} mistakes can be made in them", mistakes.iter().map(Vec::len).sum::<usize>());
    let trial = |m: Mutant| {
        let text = &texts[&m.kernel];
        let everywhere = shared.contains(&m.function).then(|| function_in(text, &m.function)).flatten();
        // In a shared function the checks of all kernels that have it may notice the mistake: those made for it first.
        let mut checks = uses[&m.kernel].clone();
        if let Some((_, function)) = everywhere {
            let having = |own: bool| {
                let of = uses.iter().filter(move |(k, _)| own == all().iter().all(|a| a.name != ***k));
                of.filter(|(k, _)| texts.get(*k).is_some_and(|t| t.contains(function))).flat_map(|(_, list)| list)
            };
            let mut seen = HashSet::new();
            let list = having(true).chain(&checks).chain(having(false)).filter(|(_, i)| seen.insert(*i)).copied();
            checks = list.collect();
        }
        Trial {
            group: if everywhere.is_some() { m.function.clone() } else { m.kernel.clone() },
            what: [&m.kernel, &m.from.to_string(), &m.len.to_string(), &m.to, &m.function].map(|s| &**s).join("\t"),
            checks,
            shown: m.describe(text),
        }
    };
    let trials = draw(mistakes)?.into_iter().map(trial).collect();
    report(trials, &Equivalent::new(include_str!("mutants.equivalent"))?)
}
