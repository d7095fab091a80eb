//! `shadegrad run`: the experiment of a paper.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shadegrad::data::{self, DataPair, OpenOptions};
use shadegrad::{Gpu, did_you_mean};
use shadegrad_models::papers::{self, Context, Outcome, Paper, Preset, Watch, data_name};

use super::results::Stored;
use super::{report, text};
use crate::devices;
use crate::failure::usage;
use crate::folder::write;
use crate::report::{duration, say};
use crate::runs::REPORT;
use crate::train::new_run;

/// The file of a run that `shadegrad papers --record` takes.
pub const RESULTS: &str = "results.json";

/// Lines in a file come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    /// Name of the paper; `shadegrad papers` lists them
    #[arg(conflicts_with = "all")]
    slug: Option<String>,
    /// Run every paper that is built
    #[arg(long)]
    all: bool,
    /// smoke: under half a minute; small: minutes; full: for a GPU
    #[arg(long, default_value = "smoke", value_parser = str::parse::<Preset>)]
    preset: Preset,
    /// Folder of a data set for the presets small and full; `shadegrad data` says how it must look [default: the
    /// embedded digits]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Number of seeds, or a list of seeds with commas [default: the paper's own number; one for smoke]
    #[arg(long, value_name = "N", value_parser = parse_seeds)]
    seeds: Option<Seeds>,
    /// Folder for the results [default: runs/<paper>-<preset>-<n>]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Device by index or part of its name
    #[arg(long)]
    adapter: Option<String>,
}

#[derive(Clone, Debug)]
struct Seeds(Vec<u64>);

fn parse_seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || format!("`{text}` is neither a number of seeds from 1 nor a list such as 0,1,5");
    let numbers: Vec<&str> = text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
    let parsed: Vec<u64> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let seeds = match parsed[..] {
        [n] if !text.contains(',') => (0..n).collect(),
        _ => parsed,
    };
    let mut unique = seeds.clone();
    unique.sort_unstable();
    unique.dedup();
    if seeds.is_empty() || unique.len() != seeds.len() { Err(wrong()) } else { Ok(Seeds(seeds)) }
}

pub fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Paper> = match &args.slug {
        Some(slug) => vec![find(slug)?],
        None if args.all => papers::all().into_iter().filter(|p| p.is_built()).collect(),
        None => return Err(usage("name a paper, or give --all; `shadegrad papers` lists them")),
    };
    if args.data.is_none() && args.preset == Preset::Full {
        return Err(usage(format!("--preset full needs --data: `{}` is run on {}", chosen[0].slug, chosen[0].data)));
    }
    if args.data.is_some() && args.preset == Preset::Smoke {
        return Err(usage("--preset smoke runs on the embedded digits; leave --data out, or choose small or full"));
    }
    let pair = args.data.as_deref().map(open).transpose()?;
    let gpu = devices::open(args.adapter.as_deref())?;
    devices::announce(&gpu);
    let mut failed = Vec::new();
    for paper in &chosen {
        let name = format!("{}-{}", paper.slug, args.preset);
        let out = match &args.out {
            Some(out) if args.all => out.join(&name),
            Some(out) => out.clone(),
            None => new_run(&name)?,
        };
        match one(&gpu, paper, args, pair.clone(), &out) {
            Err(err) if args.all => {
                say(format!("{}: {err:#}", paper.slug));
                failed.push(paper.slug);
            }
            done => done?,
        }
    }
    anyhow::ensure!(failed.is_empty(), "{} of {} papers failed: {}", failed.len(), chosen.len(), failed.join(", "));
    Ok(())
}

fn find(slug: &str) -> Result<&'static Paper> {
    let slugs: Vec<&str> = papers::all().iter().map(|p| p.slug).collect();
    let paper = papers::all().into_iter().find(|p| p.slug == slug).ok_or_else(|| {
        usage(format!("no paper is called `{slug}`{}; `shadegrad papers` lists them", did_you_mean(slug, &slugs)))
    })?;
    if !paper.is_built() {
        return Err(usage(format!("`{slug}` is planned but not built yet; `shadegrad papers` says which are")));
    }
    Ok(paper)
}

fn open(folder: &Path) -> Result<DataPair> {
    if !folder.exists() {
        return Err(usage(format!(
            "--data {}: no such folder; give the folder of a data set (`shadegrad data` says how it must look)",
            folder.display()
        )));
    }
    Ok(data::open(folder, &OpenOptions::default())?)
}

/// Runs one paper, shows what came out and writes it to `out`.
fn one(gpu: &Gpu, paper: &Paper, args: &Args, pair: Option<DataPair>, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("{}: choose another folder with --out", out.display()))?;
    say(format!("{}: {}", paper.slug, paper.title));
    say(format!("claim: {}", paper.claim));
    let mut shower = Shower::new();
    let mut context = Context::new(gpu, args.preset, &mut shower).folder(out.to_path_buf());
    if let Some(pair) = pair {
        context = context.data(pair);
    }
    if let Some(seeds) = &args.seeds {
        context = context.seeds(seeds.0.clone());
    }
    let began = Instant::now();
    let outcome = paper.run(&mut context)?;
    let seconds = began.elapsed().as_secs_f64();
    let (pair, seeds) = (context.pair(), context.seeds.clone());
    shower.finish();
    show(&outcome, seconds);
    let stored = Stored::new(paper, args.preset, data_name(&pair), &seeds, gpu, seconds, outcome);
    write(&out.join(RESULTS), stored.to_json()?.as_bytes())?;
    report::write(out, paper, &stored, gpu)?;
    say(format!("results: {}; report: {}", out.join(RESULTS).display(), out.join(REPORT).display()));
    Ok(())
}

fn show(outcome: &Outcome, seconds: f64) {
    say(format!("\n{}\n{}\n\n{}", outcome.data, outcome.setting, text::columns(&text::arms(outcome))));
    if !outcome.comparisons.is_empty() {
        let mut table = text::comparisons(outcome);
        table.iter_mut().for_each(|row| row.truncate(VERDICT));
        say(text::columns(&table));
    }
    for line in text::verdicts(outcome) {
        say(line);
    }
    for note in &outcome.notes {
        say(format!("note: {note}"));
    }
    say(format!("done in {}", duration(seconds)));
}

/// The column of [`text::comparisons`] that stands in lines of its own on a terminal.
const VERDICT: usize = 6;

/// A bar on a terminal, a line now and then elsewhere.
struct Shower {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Shower {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, said: Instant::now() }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Shower {
    fn say(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
        self.said = Instant::now();
    }

    fn progress(&mut self, part: &str, done: f64, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position((1000.0 * done) as u64);
            bar.set_message(format!("{part}  {text}"));
        } else if self.said.elapsed() > LINE_EVERY {
            say(format!("{part}: {:.0} %  {text}", 100.0 * done));
            self.said = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_list() {
        assert_eq!(parse_seeds("3").unwrap().0, [0, 1, 2]);
        assert_eq!(parse_seeds("4,1").unwrap().0, [4, 1]);
        assert_eq!(parse_seeds("7,").unwrap().0, [7]);
        for wrong in ["", "0", "a", "1,1", "-1", ","] {
            assert!(parse_seeds(wrong).unwrap_err().contains("neither"), "{wrong}");
        }
    }
}
