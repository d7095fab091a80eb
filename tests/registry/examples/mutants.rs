//! Tests the tests: makes a small mistake in a kernel, runs the checks that use it, and expects one of them to fail.
//!
//! `cargo run --release -p shadegrad-conformance --example mutants -- --sample 400 [--seed 1] [--only NAME]`
//!
//! A mistake is one changed operator, comparison, number or choice of `min` and `max` somewhere in a kernel's expanded text.
//! Those that do not compile are not counted. Each is tried in a child process, which is given up (and the mistake counted as
//! caught) when a changed loop does not end. The mistakes that nobody noticed are listed at the end: each is a check that is
//! missing, or a change that makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shadegrad::rng::Stream;
use shadegrad::{Gpu, Options};
use shadegrad_conformance::{Check, open, suite};
use shadegrad_shaders::all;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Checks of a mistake, the quickest first, stop after this time.
const ENOUGH: Duration = Duration::from_secs(20);
/// A child that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

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
}

impl Mutant {
    fn apply(&self, text: &str) -> String {
        format!("{}{}{}", &text[..self.from], self.to, &text[self.from + self.len..])
    }

    /// The changed line, and what became of it.
    fn describe(&self, text: &str) -> String {
        let start = text[..self.from].rfind('\n').map_or(0, |i| i + 1);
        let end = text[self.from..].find('\n').map_or(text.len(), |i| self.from + i);
        let line = &text[start..end];
        let (at, was) = (self.from - start, &text[self.from..self.from + self.len]);
        format!("{}: `{}`: `{was}` at column {} becomes `{}`", self.kernel, line.trim(), at + 1, self.to)
    }
}

/// Every mistake that can be made in a text.
fn mutants(kernel: &str, text: &str) -> Vec<Mutant> {
    let mut all = Vec::new();
    let mut add = |from, len, to| all.push(Mutant { kernel: kernel.into(), from, len, to });
    let mut start = 0;
    let mut depth = 0i32;
    for line in text.split_inclusive('\n') {
        let code = line.split("//").next().unwrap_or_default();
        // Only inside functions: declarations of buffers and parameters are not arithmetic.
        if depth > 0 {
            for (was, to) in SWAPS {
                code.match_indices(was).for_each(|(i, _)| add(start + i, was.len(), to.to_string()));
            }
            for (i, number) in numbers(code) {
                if let Some(n) = number.strip_suffix('u').and_then(|n| n.parse::<u64>().ok()) {
                    add(start + i, number.len(), format!("{}u", n + 1));
                } else if let Ok(x) = number.parse::<f64>() {
                    add(start + i, number.len(), format!("{:?}", 1.25 * x + 0.25));
                }
            }
        }
        depth += code.matches('{').count() as i32 - code.matches('}').count() as i32;
        if code.trim_start().starts_with("struct") {
            depth = 0;
        }
        start += line.len();
    }
    all
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

/// Which checks use each kernel, the quickest first.
fn uses(gpu: &Gpu, only: &str) -> Fallible<BTreeMap<String, Vec<usize>>> {
    let mut uses: BTreeMap<String, Vec<(Duration, usize)>> = BTreeMap::new();
    for (i, check) in suite().into_iter().enumerate() {
        if ["device", "faults", "programs", "training"].contains(&check.family()) {
            continue;
        }
        gpu.start_profile()?;
        let start = Instant::now();
        let name = check.name().to_string();
        check.run().map_err(|e| format!("{name} fails without a mistake: {e}"))?;
        for kernel in gpu.profile()?.kernels {
            uses.entry(kernel.name.to_string()).or_default().push((start.elapsed(), i));
        }
    }
    let used: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
    let unused: Vec<&str> = all().iter().map(|k| &*k.name).filter(|k| !used.contains(k)).collect();
    println!("{} kernels are used by the checks on this device; {} are not", used.len(), unused.len());
    let quickest = |mut list: Vec<(Duration, usize)>| {
        list.sort();
        list.into_iter().map(|(_, i)| i).collect()
    };
    Ok(uses.into_iter().filter(|(k, _)| k.contains(only)).map(|(k, list)| (k, quickest(list))).collect())
}

fn text_of(kernel: &str) -> Fallible<String> {
    Ok(all().iter().find(|k| k.name == kernel).ok_or("no such kernel")?.source.to_string())
}

fn check(i: usize) -> Check {
    suite().swap_remove(i)
}

/// The child: one line `number<tab>what happened` for each mistake of standard input, which is told by
/// `kernel<tab>from<tab>len<tab>to<tab>checks`.
fn child() -> Fallible<()> {
    let gpu = open(Options::from_env()?)?;
    std::panic::set_hook(Box::new(|_| ()));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let [kernel, from, len, to, checks] = fields[..] else { return Err("five fields".into()) };
        let mutant = Mutant { kernel: kernel.into(), from: from.parse()?, len: len.parse()?, to: to.into() };
        gpu.replace_kernel(kernel, Some(mutant.apply(&text_of(kernel)?)));
        let mut verdict = "missed".to_string();
        let mut damaged = false;
        let start = Instant::now();
        for i in checks.split(',') {
            if start.elapsed() > ENOUGH {
                break;
            }
            let i = i.parse()?;
            if let Err(failure) = check(i).run() {
                let failure = failure.to_string();
                let invalid = failure.contains(&format!("kernel `{kernel}`: ")) || failure.contains("Shader {");
                verdict = if invalid { "invalid".into() } else { format!("caught by {}", check(i).name()) };
                // What it wrote outside of its buffers would be found again and again.
                gpu.replace_kernel(kernel, None);
                damaged = check(i).run().is_err();
                break;
            }
        }
        gpu.replace_kernel(kernel, None);
        println!("{verdict}");
        std::io::stdout().flush()?;
        if damaged {
            return Ok(());
        }
    }
    Ok(())
}

/// Tries the mistakes one after the other; a child that ends or hangs is replaced.
fn judge(chosen: &[Mutant], uses: &BTreeMap<String, Vec<usize>>) -> Fallible<Vec<String>> {
    let mut verdicts: Vec<String> = Vec::new();
    while verdicts.len() < chosen.len() {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut input = process.stdin.take().ok_or("standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("standard output")?);
        let (send, receive) = mpsc::channel();
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        while let Some(mutant) = chosen.get(verdicts.len()) {
            let checks: Vec<String> = uses[&mutant.kernel].iter().map(ToString::to_string).collect();
            let Mutant { kernel, from, len, to } = mutant;
            // A child that has ended does not read; the next one gets this mistake.
            if writeln!(input, "{kernel}\t{from}\t{len}\t{to}\t{}", checks.join(",")).is_err() {
                break;
            }
            match receive.recv_timeout(PATIENCE) {
                Ok(verdict) => verdicts.push(verdict),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    verdicts.push("caught: it does not end".into());
                    break;
                }
                // It died of this mistake, or had ended after the one before, with the line in its pipe.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    if !process.wait()?.success() {
                        verdicts.push("caught: it brings the process down".into());
                    }
                    break;
                }
            }
            if verdicts.len().is_multiple_of(25) {
                println!("{} of {} tried", verdicts.len(), chosen.len());
            }
        }
        drop(input);
        let _ = process.kill();
        process.wait()?;
        let _ = reader.join();
    }
    Ok(verdicts)
}

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--child") {
        return child();
    }
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let sample: usize = value("--sample").map_or(Ok(200), |v| v.parse())?;
    let seed: u64 = value("--seed").map_or(Ok(1), |v| v.parse())?;
    let only = value("--only").map_or("", String::as_str);

    let uses = uses(&open(Options::from_env()?)?, only)?;
    let mut rng = Stream::new(seed, 0).philox();
    // A kernel by chance, then a mistake in it: families with many variants do not crowd out the others' texts.
    let mut left: Vec<Vec<Mutant>> = uses.keys().map(|k| Ok(mutants(k, &text_of(k)?))).collect::<Fallible<Vec<_>>>()?;
    println!("{} mistakes can be made in them", left.iter().map(Vec::len).sum::<usize>());
    let mut chosen = Vec::new();
    while chosen.len() < sample && left.iter().any(|l| !l.is_empty()) {
        let of = rng.next_u32() as usize % left.len();
        if !left[of].is_empty() {
            let which = rng.next_u32() as usize % left[of].len();
            chosen.push(left[of].swap_remove(which));
        }
    }
    let verdicts = judge(&chosen, &uses)?;
    let count = |word: &str| verdicts.iter().filter(|v| v.starts_with(word)).count();
    let (caught, missed) = (count("caught"), count("missed"));
    for (mutant, _) in chosen.iter().zip(&verdicts).filter(|(_, v)| *v == "missed") {
        println!("missed: {}", mutant.describe(&text_of(&mutant.kernel)?));
    }
    println!(
        "{} mistakes: {} do not compile, {caught} caught, {missed} missed: {:.1} % caught",
        chosen.len(),
        count("invalid"),
        100.0 * caught as f64 / (caught + missed).max(1) as f64
    );
    Ok(())
}
