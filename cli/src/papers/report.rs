//! The report of a paper's run: what was measured, what it says about the claim, curves and pictures.

use std::fs;
use std::path::Path;

use serde_json::Value;
use shadegrad::{Error, Gpu, Result};
use shadegrad_models::papers::{Metric, Outcome, Paper};

use super::results::Stored;
use super::text;
use crate::folder;
use crate::report::duration;
use crate::runs::{ENVIRONMENT, PICTURES, REPORT};
use crate::view::{self, Bar, Bars, Section, Table};

/// Writes report.html, environment.json and the charts and pictures of a run.
///
/// # Errors
/// If the folder cannot be written.
pub fn write(out: &Path, paper: &Paper, run: &Stored, gpu: &Gpu) -> Result<()> {
    let mut environment = folder::environment(gpu);
    environment["seeds"] = run.seeds.clone().into();
    folder::write(&out.join(ENVIRONMENT), format!("{environment:#}\n").as_bytes())?;
    let pictures = out.join(PICTURES);
    fs::create_dir_all(&pictures).map_err(|e| Error::io(&pictures, &e))?;
    // Titles may repeat, names of files may not.
    let mut taken: Vec<String> = Vec::new();
    let mut name = |title: &str| {
        let base = folder::file_name(title);
        let name =
            (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") }).find(|n| !taken.contains(n));
        let name = name.unwrap_or(base);
        taken.push(name.clone());
        name
    };
    for chart in &run.outcome.charts {
        folder::save_drawing(&pictures, &name(&chart.title), &view::chart(chart))?;
    }
    for picture in &run.outcome.pictures {
        folder::save_picture(&pictures, &name(&picture.title), picture)?;
    }
    let title = format!("{}: {} run on {}", paper.slug, run.preset, run.data);
    folder::write(&out.join(REPORT), view::page(&title, &sections(paper, run, &environment)).as_bytes())
}

fn sections(paper: &Paper, run: &Stored, environment: &Value) -> Vec<Section> {
    let o = &run.outcome;
    let mut out = vec![Section::Notice(text::headline(o).unwrap_or_else(|| "No comparison was measured.".into()))];
    out.push(Section::Text(format!(
        "{} ({}). Claim: {}.\n\nPreset {}, on {}. {}.\nIt took {}.",
        paper.title,
        paper.source,
        paper.claim.trim_end_matches('.'),
        run.preset,
        o.data.trim_end_matches('.'),
        o.setting.trim_end_matches('.'),
        duration(run.seconds)
    )));
    if run.preset == "smoke" {
        out.push(Section::Text(
            "A smoke shows that the experiment runs; its figures say nothing about the claim.".into(),
        ));
    }
    out.push(Section::Heading("Figures".into()));
    out.push(Section::Table(table("Means and standard deviations over the seeds", text::arms(o))));
    // Measures that hardly anything was recorded of have no bars.
    out.extend(o.metrics.iter().filter_map(|m| bars(o, m)).map(Section::Bars));
    if !o.comparisons.is_empty() {
        out.push(Section::Heading("What the runs say".into()));
        out.push(Section::Table(table("", text::comparisons(o))));
    }
    if !o.charts.is_empty() {
        out.push(Section::Heading("Curves".into()));
        out.extend(o.charts.iter().cloned().map(Section::Chart));
    }
    if !o.pictures.is_empty() {
        out.push(Section::Heading("Pictures".into()));
        out.push(Section::Pictures { title: String::new(), pictures: o.pictures.clone() });
    }
    if !o.notes.is_empty() {
        out.push(Section::Heading("Notes".into()));
        out.push(Section::Text(o.notes.join("\n\n")));
    }
    out.push(Section::Heading("Every seed".into()));
    out.push(Section::Table(seeds(o)));
    out.push(Section::Heading("Environment".into()));
    out.push(Section::Table(folder::rows(environment)));
    out
}

/// Rows of which the first is the header.
fn table(title: &str, mut rows: Vec<Vec<String>>) -> Table {
    let head = if rows.is_empty() { Vec::new() } else { rows.remove(0) };
    Table { title: title.into(), head, rows }
}

fn bars(o: &Outcome, metric: &Metric) -> Option<Bars> {
    let bars: Vec<Bar> = o
        .arms
        .iter()
        .filter_map(|a| {
            let (value, spread) = o.mean(&a.name, &metric.name)?;
            Some(Bar { label: a.name.clone(), value, spread })
        })
        .collect();
    (bars.len() > 1).then(|| Bars { title: metric.name.clone(), x: metric.unit.clone(), bars })
}

fn seeds(o: &Outcome) -> Table {
    let mut head = vec!["arm".to_string(), "seed".into()];
    head.extend(
        o.metrics.iter().map(|m| if m.unit.is_empty() { m.name.clone() } else { format!("{}, {}", m.name, m.unit) }),
    );
    let rows = o.arms.iter().flat_map(|a| {
        a.runs.iter().map(|r| {
            let figures =
                r.values.iter().zip(&o.metrics).map(|(v, m)| v.map_or("-".into(), |v| format!("{v:.*}", m.decimals)));
            [a.name.clone(), r.seed.to_string()].into_iter().chain(figures).collect()
        })
    });
    Table { title: String::new(), head, rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadegrad_models::papers::{Better, Chart, Expect, Picture, Role};

    #[test]
    fn a_report_has_all_that_was_found() {
        let mut o = Outcome::new("digits", "a network.").metric("accuracy", "%", Better::Higher, 1);
        for seed in 0..2 {
            o.record("base", Role::Baseline, seed, &[("accuracy", 50.0 + seed as f64)]).unwrap();
            o.record("new", Role::Method, seed, &[("accuracy", 53.0 + seed as f64)]).unwrap();
        }
        o.compare("it helps", "accuracy", ("new", "base"), Expect::Higher, "+2");
        o.note("only two seeds");
        let mut chart = Chart::lines("Loss of all", "epoch", "nats");
        chart.push("base", vec![(1.0, 2.0), (2.0, 1.0)]);
        o.charts.push(chart);
        o.pictures.push(Picture { title: "a filter".into(), width: 1, height: 1, rgb: vec![1, 2, 3] });
        let run = Stored {
            slug: "s".into(),
            preset: "smoke".into(),
            data: "digits".into(),
            seeds: vec![0, 1],
            adapter: "a".into(),
            driver: "d".into(),
            version: "1".into(),
            date: "2026-01-31".into(),
            seconds: 3.0,
            outcome: o,
        };
        let paper = shadegrad_models::papers::all()[0];
        let html = view::page("t", &sections(paper, &run, &serde_json::json!({ "version": "1" })));
        for word in
            ["+3.0", "it helps", "Loss of all", "a filter", "only two seeds", "50.5 ± 0.7", "A smoke shows", "54.0"]
        {
            assert!(html.contains(word), "no {word:?}");
        }
    }
}
