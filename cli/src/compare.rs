//! `shadegrad compare`: runs over each other, those that differ only by their seed as one with its spread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use shadegrad::metrics::MeanStd;

use crate::folder::write;
use crate::papers::columns;
use crate::report::{duration, say};
use crate::runs::{End, EpochRecord, Run};
use crate::view::{Bar, Bars, Chart, Section, Series, Table, page};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs of `shadegrad train`.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page that is written.
    #[arg(long, value_name = "FILE.html", default_value = "compare.html")]
    out: PathBuf,
}

/// Settings that do not make a run another one: the seed, where it runs, and what it writes.
const INDIFFERENT: [&str; 5] = ["seed", "adapter", "record-every", "checkpoint-every", "keep"];

/// Runs that differ by their seeds at most.
struct Group {
    name: String,
    runs: Vec<Run>,
}

pub fn run(args: &Args) -> Result<()> {
    let runs: Vec<Run> = args.runs.iter().map(|folder| Run::open(folder)).collect::<Result<_>>()?;
    let groups = grouped(runs);
    let figures = figures(&groups);
    let rows: Vec<Vec<String>> = std::iter::once(&figures.head).chain(&figures.rows).cloned().collect();
    say(columns(&rows).trim_end());
    let settings = settings(&groups);
    let title = format!("shadegrad: {} compared", several(groups.len(), "configuration"));
    let mut sections = vec![Section::Text(
        "Lines are means over the seeds of a configuration, as far as all of its runs go; bands are one standard deviation \
         (over n - 1) to both sides."
            .into(),
    )];
    sections.push(Section::Table(Table { title: "Figures".into(), ..figures }));
    sections.push(Section::Heading("Curves".into()));
    sections.extend(charts(&groups).into_iter().map(Section::Chart));
    let bars = groups.iter().filter_map(|g| {
        let m = mean(g, |e| 100.0 * e.accuracy)?;
        Some(Bar { label: g.name.clone(), value: m.mean, spread: m.std })
    });
    sections.push(Section::Bars(Bars {
        title: "Test accuracy after the last epoch".into(),
        x: "%".into(),
        bars: bars.collect(),
    }));
    sections.push(Section::Heading("Settings that differ".into()));
    if settings.rows.is_empty() {
        sections.push(Section::Text("None but seeds.".into()));
    } else {
        sections.push(Section::Table(settings));
    }
    sections.push(Section::Heading("Runs".into()));
    sections.push(Section::Table(each(&groups)));
    write(&args.out, page(&title, &sections).as_bytes())?;
    say(format!("curves: {}", args.out.display()));
    Ok(())
}

/// Puts runs of the same configuration together, in the order given, and names the configurations by what tells them
/// apart.
fn grouped(runs: Vec<Run>) -> Vec<Group> {
    let mut keyed: Vec<(String, Group)> = Vec::new();
    for run in runs {
        let key = key(&run);
        match keyed.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.runs.push(run),
            None => keyed.push((key, Group { name: String::new(), runs: vec![run] })),
        }
    }
    let mut groups: Vec<Group> = keyed.into_iter().map(|(_, g)| g).collect();
    let differing = differing(&groups);
    for group in &mut groups {
        let of = |key: &String| {
            let value = shown(&group.runs[0], key);
            // A model is known by its name alone.
            if key == "model" { value } else { format!("{key} {value}") }
        };
        let parts: Vec<String> = differing.iter().map(of).collect();
        let name = if parts.is_empty() || parts.len() > 4 { group.runs[0].name() } else { parts.join(", ") };
        group.name = match group.runs.len() {
            1 => name,
            n => format!("{name} ({n} seeds)"),
        };
    }
    groups
}

/// The configuration without what does not matter.
fn key(run: &Run) -> String {
    let rest = run.config.iter().filter(|(k, _)| !INDIFFERENT.contains(&k.as_str()));
    // A table is sorted by its keys.
    rest.map(|(k, v)| format!("{k} = {v}\n")).collect()
}

/// Settings that are not the same in all groups; the model first.
fn differing(groups: &[Group]) -> Vec<String> {
    let mut values: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for key in groups.iter().flat_map(|g| g.runs[0].config.keys()) {
        values.entry(key).or_insert_with(|| groups.iter().map(|g| shown(&g.runs[0], key)).collect());
    }
    let differs = |(key, v): &(&&String, &Vec<String>)| {
        !INDIFFERENT.contains(&key.as_str()) && v.windows(2).any(|w| w[0] != w[1])
    };
    let mut out: Vec<String> = values.iter().filter(differs).map(|(k, _)| k.to_string()).collect();
    out.sort_by_key(|k| k != "model");
    out
}

/// A setting of a run as a text.
fn shown(run: &Run, key: &str) -> String {
    match run.config.get(key) {
        None => "not set".into(),
        Some(toml::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// A number of the last epoch of every run that has one.
fn mean(group: &Group, value: impl Fn(&EpochRecord) -> f64) -> Option<MeanStd> {
    let all: Vec<f64> = group.runs.iter().filter_map(|r| r.log.epochs.last()).map(value).collect();
    MeanStd::of(&all).ok()
}

fn figures(groups: &[Group]) -> Table {
    let head =
        ["configuration", "runs", "epochs", "test accuracy %", "best %", "test loss", "calibration error", "time"];
    let with = |m: Option<MeanStd>, decimals: usize| match m {
        None => "-".to_string(),
        Some(MeanStd { mean, std: Some(std), .. }) => format!("{mean:.decimals$} ± {std:.decimals$}"),
        Some(m) => format!("{:.decimals$}", m.mean),
    };
    let row = |g: &Group| {
        let epochs: Vec<usize> = g.runs.iter().map(|r| r.log.epochs.len()).collect();
        let (least, most) = (epochs.iter().min().unwrap_or(&0), epochs.iter().max().unwrap_or(&0));
        let best: Vec<f64> = g.runs.iter().filter_map(|r| r.log.best()).map(|e| 100.0 * e.accuracy).collect();
        vec![
            g.name.clone(),
            g.runs.len().to_string(),
            if least == most { most.to_string() } else { format!("{least} to {most}") },
            with(mean(g, |e| 100.0 * e.accuracy), 2),
            with(MeanStd::of(&best).ok(), 2),
            with(mean(g, |e| e.test_loss), 4),
            with(mean(g, |e| e.ece), 4),
            mean(g, |e| e.seconds).map_or("-".into(), |m| duration(m.mean)),
        ]
    };
    Table { title: String::new(), head: head.map(String::from).to_vec(), rows: groups.iter().map(row).collect() }
}

/// The settings that differ, a column for each group.
fn settings(groups: &[Group]) -> Table {
    let head = std::iter::once(String::new()).chain(groups.iter().map(|g| g.name.clone())).collect();
    let row = |key: String| {
        let cells = groups.iter().map(|g| shown(&g.runs[0], &key));
        std::iter::once(key.clone()).chain(cells).collect()
    };
    Table { title: String::new(), head, rows: differing(groups).into_iter().map(row).collect() }
}

/// Every run.
fn each(groups: &[Group]) -> Table {
    let head = ["folder", "configuration", "seed", "epochs", "test accuracy %", "end"].map(String::from).to_vec();
    let row = |(g, r): (&Group, &Run)| {
        let end = match &r.log.end {
            End::Finished(_) => "finished".into(),
            End::Interrupted(_) => "interrupted".into(),
            End::Failed(message) => format!("failed: {message}"),
            End::Open => "under way or killed".into(),
        };
        let accuracy = r.log.epochs.last().map_or("-".into(), |e| format!("{:.2}", 100.0 * e.accuracy));
        let epochs = r.log.epochs.len().to_string();
        vec![r.folder.display().to_string(), g.name.clone(), shown(r, "seed"), epochs, accuracy, end]
    };
    let rows = groups.iter().flat_map(|g| g.runs.iter().map(move |r| (g, r))).map(row).collect();
    Table { title: String::new(), head, rows }
}

fn charts(groups: &[Group]) -> Vec<Chart> {
    let chart = |title: &str, x: &str, y: &str, points: &dyn Fn(&Run) -> Vec<(f64, f64)>| {
        let series = groups.iter().map(|g| {
            let each: Vec<_> = g.runs.iter().map(points).collect();
            averaged(&g.name, &each)
        });
        Chart { series: series.collect(), ..Chart::lines(title, x, y) }
    };
    vec![
        chart("Test accuracy", "epoch", "%", &|r| r.log.by_epoch(|e| 100.0 * e.accuracy)),
        chart("Test loss", "epoch", "nats", &|r| r.log.by_epoch(|e| e.test_loss)),
        chart("Training loss, last steps", "step", "nats", &|r| r.log.by_step(|s| s.loss)),
        chart("Training loss, whole epochs", "epoch", "nats", &|r| r.log.by_epoch(|e| e.train_loss)),
        chart("Calibration error", "epoch", "expected calibration error", &|r| r.log.by_epoch(|e| e.ece)),
        chart("Learning rate", "step", "rate", &|r| r.log.by_step(|s| s.lr)),
        // Times are those of each machine: runs are not averaged along them, the first one stands for its group.
        chart("Test accuracy by time, first run of each", "seconds", "%", &|r| {
            let first = groups.iter().any(|g| std::ptr::eq(&raw const g.runs[0], r));
            if first { r.log.epochs.iter().map(|e| (e.seconds, 100.0 * e.accuracy)).collect() } else { Vec::new() }
        }),
    ]
}

/// The mean of several curves where all of them have a point, and a standard deviation to both sides.
fn averaged(name: &str, each: &[Vec<(f64, f64)>]) -> Series {
    let each: Vec<&Vec<(f64, f64)>> = each.iter().filter(|e| !e.is_empty()).collect();
    let mut series = Series { name: name.into(), ..Series::default() };
    let Some((first, rest)) = each.split_first() else { return series };
    let mut band = Vec::new();
    for &(x, y) in first.iter() {
        let others = rest.iter().map(|r| r.binary_search_by(|p| p.0.total_cmp(&x)).ok().map(|i| r[i].1));
        let Some(values) = std::iter::once(Some(y)).chain(others).collect::<Option<Vec<f64>>>() else { continue };
        // A curve has a gap where a run has no number.
        let m = MeanStd::of(&values).ok();
        let (mean, std) = m.map_or((f64::NAN, 0.0), |m| (m.mean, m.std.unwrap_or(0.0)));
        series.points.push((x, mean));
        band.push((mean - std, mean + std));
    }
    series.band = (each.len() > 1).then_some(band);
    series
}

/// `1 thing`, `2 things`.
fn several(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Log;

    fn made(folder: &str, config: &str, accuracies: &[f64]) -> Run {
        let epoch = |(i, a): (usize, &f64)| EpochRecord {
            epoch: i as u64 + 1,
            step: 10 * (i as u64 + 1),
            train_loss: 1.0,
            test_loss: 2.0,
            accuracy: *a,
            top5: f64::NAN,
            ece: 0.1,
            brier: 0.2,
            seconds: 1.0,
            rate: 10.0,
        };
        let log = Log { epochs: accuracies.iter().enumerate().map(epoch).collect(), ..Log::default() };
        Run { folder: folder.into(), config: toml::from_str(config).unwrap(), log }
    }

    #[test]
    fn runs_that_differ_by_seed_are_one_configuration() {
        let groups = grouped(vec![
            made("a", "model = \"mlp\"\nlr = 0.1\nseed = 0", &[0.5, 0.6]),
            made("b", "model = \"cnn\"\nlr = 0.1\nseed = 0", &[0.5]),
            made("c", "model = \"mlp\"\nlr = 0.1\nseed = 1\nadapter = \"x\"", &[0.7, 0.8, 0.9]),
        ]);
        let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["mlp (2 seeds)", "cnn"]);
        let rows = figures(&groups).rows;
        // The last epochs' 0.6 and 0.9: mean 0.75, deviation 0.2121.
        assert_eq!(rows[0][2..5], ["2 to 3", "75.00 ± 21.21", "75.00 ± 21.21"]);
        assert_eq!(rows[1][1..4], ["1", "1", "50.00"]);
        assert_eq!(settings(&groups).rows, [["model", "mlp", "cnn"]]);
    }

    #[test]
    fn equal_runs_are_named_by_their_folder() {
        let groups = grouped(vec![made("x/one", "lr = 0.1\nseed = 0", &[])]);
        assert_eq!(groups[0].name, "one");
        assert_eq!(figures(&groups).rows[0][3], "-");
        let groups = grouped(vec![made("a", "lr = 0.1", &[]), made("b", "lr = 0.2\nclip-norm = 1", &[])]);
        assert_eq!(groups[1].name, "clip-norm 1, lr 0.2");
        assert_eq!(groups[0].name, "clip-norm not set, lr 0.1");
    }

    #[test]
    fn curves_are_averaged_where_all_runs_are() {
        let s = averaged("s", &[vec![(1.0, 1.0), (2.0, 2.0), (3.0, 9.0)], vec![(1.0, 3.0), (2.0, 2.0)], vec![]]);
        assert_eq!(s.points, [(1.0, 2.0), (2.0, 2.0)]);
        let band = s.band.unwrap();
        assert!((band[0].0 - (2.0 - 2f64.sqrt())).abs() < 1e-12 && band[1] == (2.0, 2.0), "{band:?}");
        assert_eq!(averaged("s", &[vec![(1.0, 1.0)]]).band, None);
        assert_eq!(averaged("s", &[]).points, []);
    }
}
