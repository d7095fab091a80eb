//! `shadegrad papers`: what there is and what was measured; writes docs/papers.md.

mod report;
mod results;
mod run;
mod text;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shadegrad_models::papers::{Paper, all};

use crate::report::{duration, say, thousands};
use results::Stored;
pub use run::{Args as RunArgs, run as run_recipe};
pub use text::columns;

#[derive(clap::Args)]
pub struct Args {
    /// A JSON array instead of lines.
    #[arg(long)]
    json: bool,
    /// Take the results from `results` in this folder in place of those the command was built with, and write
    /// `papers.md` there.
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
    /// Put the result of this run among those in `--docs`.
    #[arg(long, value_name = "RUN", requires = "docs")]
    record: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = args.docs.as_ref().map(|d| d.join("results"));
    if let (Some(folder), false) = (&folder, args.record.is_empty()) {
        record(folder, &args.record)?;
    }
    let stored = results::all(folder.as_deref())?;
    if let Some(docs) = &args.docs {
        let path = docs.join("papers.md");
        fs::write(&path, page(&stored)).with_context(|| path.display().to_string())?;
    }
    if args.json {
        let rows: Vec<Value> = all().into_iter().map(|p| as_json(p, &stored)).collect();
        say(serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for paper in all() {
        say(format!("{:<26} {:<9} {}", paper.slug, state(paper, &stored), paper.title));
        say(format!("{:36} {}", "", paper.claim));
        if let Some((result, figure)) = last_figure(paper, &stored) {
            say(format!("{:36} {} on {}: {figure}", "", result.preset, result.data));
        }
    }
    Ok(())
}

/// Copies results of runs to where they are kept.
fn record(folder: &Path, runs: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for run in runs {
        let result = Stored::read(&run.join(run::RESULTS))?;
        let path = folder.join(result.file_name());
        fs::write(&path, result.to_json()?).with_context(|| path.display().to_string())?;
        say(format!("recorded {}", path.display()));
    }
    Ok(())
}

/// `planned`, `built`, or `measured` once a run larger than a smoke is stored.
fn state(paper: &Paper, stored: &[Stored]) -> &'static str {
    match (paper.is_built(), of(paper, stored).any(|r| r.preset != "smoke")) {
        (false, _) => "planned",
        (true, false) => "built",
        (true, true) => "measured",
    }
}

fn of<'a>(paper: &Paper, stored: &'a [Stored]) -> impl Iterator<Item = &'a Stored> {
    stored.iter().filter(|r| r.slug == paper.slug)
}

fn last_figure<'a>(paper: &Paper, stored: &'a [Stored]) -> Option<(&'a Stored, String)> {
    of(paper, stored).find_map(|r| Some((r, text::headline(&r.outcome)?)))
}

fn as_json(paper: &Paper, stored: &[Stored]) -> Value {
    let results: Vec<Value> = of(paper, stored)
        .map(|r| {
            let findings: Vec<Value> = r
                .outcome
                .comparisons
                .iter()
                .map(|c| json!({ "comparison": c, "finding": r.outcome.judge(c) }))
                .collect();
            json!({ "run": r, "findings": findings })
        })
        .collect();
    json!({
        "slug": paper.slug,
        "title": paper.title,
        "source": paper.source,
        "claim": paper.claim,
        "state": state(paper, stored),
        "figure": last_figure(paper, stored).map(|f| f.1),
        "results": results,
    })
}

/// docs/papers.md.
fn page(stored: &[Stored]) -> String {
    let mut out = String::from(
        "# Papers\n\n\
         This page is written by `shadegrad papers --docs docs` from the stored results under `docs/results`; it is not \
         edited by hand. A verdict follows from the differences between arms with the same seed: *shown* and *not shown* \
         mean by more than two standard errors of their mean. That is the spread between seeds alone: two or three seeds \
         tell it badly, and all share one test set, of which 500 pictures leave an accuracy of a half uncertain by two \
         points. *planned* papers cannot be run yet; *built* ones pass the \
         checks of their mathematics; *measured* ones have a stored run larger than a smoke.\n\n",
    );
    let mut rows = vec![["paper", "state", "claim", "last figure"].map(String::from).to_vec()];
    for paper in all() {
        let name = if of(paper, stored).next().is_some() {
            format!("[{0}](#{0})", paper.slug)
        } else {
            paper.slug.to_string()
        };
        let figure = last_figure(paper, stored).map(|(r, f)| format!("{} on {}: {f}", r.preset, r.data));
        rows.push(vec![name, state(paper, stored).into(), paper.claim.into(), figure.unwrap_or_default()]);
    }
    out += &text::markdown(&rows);
    for paper in all() {
        let mut results = of(paper, stored).peekable();
        if results.peek().is_none() {
            continue;
        }
        let _ = write!(out, "\n## {}\n\n{} ({}).\n", paper.slug, paper.title, paper.source);
        for r in results {
            let _ = write!(out, "\n{}", section(r));
        }
    }
    out
}

/// One stored run.
fn section(r: &Stored) -> String {
    let o = &r.outcome;
    let data = if r.data == "digits" { "" } else { " --data FOLDER" };
    let mut out = format!(
        "### {slug}: {preset}, {data_name}\n\n\
         `shadegrad run {slug} --preset {preset}{data} --seeds {seeds}`, {date}, version {version}, on {adapter} \
         ({driver}), {time}.\n\n{what}. {setting}.\n\n{arms}",
        slug = r.slug,
        preset = r.preset,
        data_name = r.data,
        seeds = seeds(&r.seeds),
        date = r.date,
        version = r.version,
        adapter = r.adapter,
        driver = r.driver,
        time = duration(r.seconds),
        what = o.data.trim_end_matches('.'),
        setting = o.setting.trim_end_matches('.'),
        arms = text::markdown(&text::arms(o)),
    );
    if !o.comparisons.is_empty() {
        let _ = write!(out, "\n{}", text::markdown(&text::comparisons(o)));
    }
    for note in &o.notes {
        let _ = write!(out, "\n- {note}");
    }
    if !o.notes.is_empty() {
        out.push('\n');
    }
    out
}

/// `3` for the seeds 0, 1 and 2, else a list.
fn seeds(seeds: &[u64]) -> String {
    if seeds.iter().copied().eq(0..seeds.len() as u64) {
        return thousands(seeds.len());
    }
    let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
    // A comma makes a list of a single number.
    if list.len() == 1 { format!("{},", list[0]) } else { list.join(",") }
}
