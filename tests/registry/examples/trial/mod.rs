//! What `mutants` and `rules` share: mistakes are tried one after the other in a child process that runs checks until one fails.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shadegrad::rng::Stream;
use shadegrad_conformance::{Check, suite};

pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A mistake is missed when checks that take so long together, measured without it, have passed. (By the clock: on a machine with
/// other work to do few checks take long.)
const ENOUGH: Duration = Duration::from_secs(60);
/// A child that says nothing for so long hangs: it reports every check that passes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The word after `name` in the command line.
pub fn option(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned()
}

/// Whether `name` stands in the command line.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

fn number(name: &str, default: u64) -> Fallible<u64> {
    Ok(option(name).map_or(Ok(default), |v| v.parse())?)
}

/// As many as `--sample` says of what lies in the groups, drawn with `--seed`: a group by chance, then one of its members, so that
/// large groups do not crowd out the others. With `--part 2/5` the second fifth of them, for sittings of bearable length.
pub fn draw<T>(mut groups: Vec<Vec<T>>) -> Fallible<Vec<T>> {
    let sample = number("--sample", 200)? as usize;
    let mut rng = Stream::new(number("--seed", 1)?, 0).philox();
    let mut chosen = Vec::new();
    while chosen.len() < sample && groups.iter().any(|l| !l.is_empty()) {
        let of = rng.next_u32() as usize % groups.len();
        if !groups[of].is_empty() {
            let which = rng.next_u32() as usize % groups[of].len();
            chosen.push(groups[of].swap_remove(which));
        }
    }
    if let Some((part, of)) = option("--part").as_deref().and_then(|p| p.split_once('/')) {
        let (part, of): (usize, usize) = (part.parse()?, of.parse()?);
        let mut i = 0;
        chosen.retain(|_| {
            i += 1;
            i % of == part % of
        });
    }
    Ok(chosen)
}

/// Changes that nobody can see: where (patterns with spaces between), line, change and reason, one entry a line between tabs. `…`
/// stands for any text.
pub struct Equivalent(Vec<[&'static str; 4]>);

impl Equivalent {
    /// Reads the text of such a list.
    pub fn new(text: &'static str) -> Fallible<Self> {
        let entry = |line: &'static str| -> Fallible<_> {
            let fields: Vec<&str> = line.split('\t').collect();
            Ok(<[&str; 4]>::try_from(fields).map_err(|_| format!("four fields, but this: {line}"))?)
        };
        let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        Ok(Self(lines.map(entry).collect::<Fallible<_>>()?))
    }

    fn covers(&self, [place, line, edit]: &[String; 3]) -> bool {
        self.0
            .iter()
            .any(|[places, l, e, _]| like(e, edit) && like(l, line) && places.split(' ').any(|p| like(p, place)))
    }
}

/// Whether a text is what the pattern says, in which `…` stands for anything.
fn like(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('…') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    while let Some((part, more)) = rest.split_once('…') {
        let Some(i) = text.find(part) else { return false };
        (text, rest) = (&text[i + part.len()..], more);
    }
    text.ends_with(rest)
}

/// How long a check took, and what it touched: kernels, or places in the backward rules.
pub type Used = (Duration, Vec<String>);

/// What the checks touch, by their names: read from the file of `--uses`, if there is one, and found out of the others by `run`.
/// Checks of memory and faults count allocations and steps, and would notice any mistake by accident or none.
pub fn measure(mut run: impl FnMut(Check) -> Fallible<Vec<String>>) -> Fallible<HashMap<String, Used>> {
    let mut known: HashMap<String, Used> = HashMap::new();
    let kept = option("--uses");
    for line in kept.as_ref().and_then(|f| std::fs::read_to_string(f).ok()).unwrap_or_default().lines() {
        let [name, took, touched] = line.split('\t').collect::<Vec<_>>()[..] else { return Err("three fields".into()) };
        let touched = touched.split_whitespace().map(String::from).collect();
        known.insert(name.into(), (Duration::from_micros(took.parse()?), touched));
    }
    let mut file = kept.map(|f| std::fs::OpenOptions::new().create(true).append(true).open(f)).transpose()?;
    for check in suite() {
        let name = check.name().to_string();
        if ["device", "faults", "programs", "training"].contains(&check.family()) || known.contains_key(&name) {
            continue;
        }
        let start = Instant::now();
        let touched = run(check)?;
        let took = start.elapsed();
        if let Some(file) = &mut file {
            writeln!(file, "{name}\t{}\t{}", took.as_micros(), touched.join(" "))?;
        }
        known.insert(name, (took, touched));
    }
    Ok(known)
}

/// Which checks touch what, and how long they take, the quickest first.
pub fn uses(measured: &HashMap<String, Used>) -> BTreeMap<String, Vec<(Duration, usize)>> {
    let mut uses: BTreeMap<String, Vec<(Duration, usize)>> = BTreeMap::new();
    for (i, check) in suite().iter().enumerate() {
        for what in measured.get(check.name()).map_or(&[][..], |(_, touched)| touched) {
            uses.entry(what.clone()).or_default().push((measured[check.name()].0, i));
        }
    }
    uses.values_mut().for_each(|list| list.sort());
    uses
}

/// One mistake to be tried.
pub struct Trial {
    /// Mistakes of one group are noticed by the same checks, most likely.
    pub group: String,
    /// What the child is told.
    pub what: String,
    /// The checks that may notice it.
    pub checks: Vec<(Duration, usize)>,
    /// Place, line and change, for people.
    pub shown: [String; 3],
}

/// Mistakes made, and undone: what a child needs besides the checks.
pub trait Mistake {
    /// Makes the mistake that `what` tells of.
    fn make(&mut self, what: &str) -> Fallible<()>;
    /// Takes it back.
    fn undo(&mut self) -> Fallible<()>;
    /// Whether a check failed because there is no such program, rather than a wrong one.
    fn invalid(&self, failure: &str) -> bool;
}

/// The child: for each line `what<tab>checks` of standard input one line that says what happened, and before it one line
/// `passed` for each check that noticed nothing.
pub fn child(mut mistake: impl Mistake) -> Fallible<()> {
    std::panic::set_hook(Box::new(|_| ()));
    let check = |i: usize| suite().swap_remove(i);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, checks) = line.rsplit_once('\t').ok_or("two fields")?;
        mistake.make(what)?;
        let mut verdict = "missed".to_string();
        let mut damaged = false;
        for i in checks.split(',') {
            let i = i.parse()?;
            let Err(failure) = check(i).run() else {
                println!("passed");
                std::io::stdout().flush()?;
                continue;
            };
            verdict = if mistake.invalid(&failure.to_string()) { "invalid".into() } else { format!("caught by {i}") };
            // What it wrote outside of its buffers would be found again and again.
            mistake.undo()?;
            damaged = check(i).run().is_err();
            break;
        }
        mistake.undo()?;
        println!("{verdict}");
        std::io::stdout().flush()?;
        if damaged {
            return Ok(());
        }
    }
    Ok(())
}

/// The checks that a mistake is tried with, in order: those that noticed others of its group, then the quickest, as many as
/// [`ENOUGH`] allows.
fn order(checks: &[(Duration, usize)], good: &HashMap<usize, usize>) -> Vec<String> {
    let mut list: Vec<_> = checks.to_vec();
    list.sort_by_key(|(_, i)| std::cmp::Reverse(good.get(i).copied().unwrap_or(0)));
    let mut time = Duration::ZERO;
    let enough = list.into_iter().take_while(|(took, _)| {
        time += *took;
        time - *took < ENOUGH
    });
    enough.map(|(_, i)| i.to_string()).collect()
}

/// Tries the mistakes one after the other in this program's `--child`; a child that ends or hangs is replaced.
fn judge(trials: &[Trial]) -> Fallible<Vec<String>> {
    let mut verdicts: Vec<String> = Vec::new();
    // How often each check noticed something in a group.
    let mut good: HashMap<&str, HashMap<usize, usize>> = HashMap::new();
    while verdicts.len() < trials.len() {
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
        while let Some(trial) = trials.get(verdicts.len()) {
            if trial.checks.is_empty() {
                println!("missed, for no check comes there\t{}", trial.shown.join("\t"));
                verdicts.push("missed".into());
                continue;
            }
            let good = good.entry(&trial.group).or_default();
            // A child that has ended does not read; the next one gets this mistake.
            if writeln!(input, "{}\t{}", trial.what, order(&trial.checks, good).join(",")).is_err() {
                break;
            }
            let answer = loop {
                let answer = receive.recv_timeout(PATIENCE);
                if answer.as_deref() != Ok("passed") {
                    break answer;
                }
            };
            let verdict = match answer {
                Ok(verdict) => verdict,
                Err(mpsc::RecvTimeoutError::Timeout) => "caught: it does not end".into(),
                // It died of this mistake, or had ended after the one before, with the line in its pipe.
                Err(mpsc::RecvTimeoutError::Disconnected) if process.wait()?.success() => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => "caught: it brings the process down".into(),
            };
            if verdict == "missed" {
                println!("missed\t{}", trial.shown.join("\t"));
            }
            if let Some(i) = verdict.strip_prefix("caught by ") {
                *good.entry(i.parse()?).or_default() += 1;
            }
            let over = verdict.starts_with("caught: ");
            verdicts.push(verdict);
            if verdicts.len().is_multiple_of(25) {
                println!("{} of {} tried", verdicts.len(), trials.len());
            }
            if over {
                break;
            }
        }
        drop(input);
        let _ = process.kill();
        process.wait()?;
        let _ = reader.join();
    }
    Ok(verdicts)
}

/// Tries all that are not listed as without effect, and prints what came out; with `--equivalent` also whether a check notices
/// one of those after all.
pub fn report(trials: Vec<Trial>, listed: &Equivalent) -> Fallible<()> {
    let all = trials.len();
    let (equivalent, rest): (Vec<Trial>, Vec<Trial>) = trials.into_iter().partition(|t| listed.covers(&t.shown));
    let verdicts = judge(&rest)?;
    let count = |word: &str| verdicts.iter().filter(|v| v.starts_with(word)).count();
    let (caught, missed) = (count("caught"), count("missed"));
    println!(
        "{all} mistakes: {} do not compile, {} are listed as without effect; of the others {caught} caught, {missed} missed: \
         {:.1} % caught",
        count("invalid"),
        equivalent.len(),
        100.0 * caught as f64 / (caught + missed).max(1) as f64
    );
    if flag("--equivalent") {
        let noticed = |v: &String| v != "missed" && v != "invalid";
        for (trial, verdict) in equivalent.iter().zip(judge(&equivalent)?).filter(|(_, v)| noticed(v)) {
            println!("listed, but {verdict}\t{}", trial.shown.join("\t"));
        }
    }
    Ok(())
}
