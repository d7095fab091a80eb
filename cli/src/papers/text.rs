//! Results of papers in words and tables.

use shadegrad_models::papers::{Comparison, Finding, Metric, Outcome, Verdict};

/// `12.34 %`, or `12.34 ± 0.56 %` where a spread is known.
fn value(metric: &Metric, mean: f64, spread: Option<f64>) -> String {
    let d = metric.decimals;
    let spread = spread.map(|s| format!(" ± {s:.d$}")).unwrap_or_default();
    let unit = if metric.unit.is_empty() { String::new() } else { format!(" {}", metric.unit) };
    format!("{mean:.d$}{spread}{unit}")
}

/// A difference of two figures: of per cents, points.
fn difference(metric: &Metric, finding: &Finding) -> String {
    let d = metric.decimals;
    let spread = finding.spread.map(|s| format!(" ± {s:.d$}")).unwrap_or_default();
    let unit = match metric.unit.as_str() {
        "" => String::new(),
        "%" => " points".into(),
        unit => format!(" {unit}"),
    };
    format!("{:+.d$}{spread}{unit}", finding.difference)
}

/// What a verdict means, with its grounds.
fn verdict(finding: &Finding) -> String {
    match finding.verdict {
        Verdict::Shown => format!("shown, by more than two standard errors over {} seeds", finding.seeds),
        Verdict::Undecided => format!("not decided: within two standard errors over {} seeds", finding.seeds),
        Verdict::Opposite => {
            format!("NOT shown: the opposite, by more than two standard errors over {} seeds", finding.seeds)
        }
        Verdict::OneSeed => "one seed: the spread is not known".into(),
    }
}

/// Header and rows: every arm with its figures, mean and standard deviation over the seeds.
pub fn arms(outcome: &Outcome) -> Vec<Vec<String>> {
    let mut header = vec!["arm".to_string(), "role".into()];
    header.extend(outcome.metrics.iter().map(|m| m.name.clone()));
    let mut rows = vec![header];
    for arm in &outcome.arms {
        let mut row = vec![arm.name.clone(), arm.role.name().into()];
        for metric in &outcome.metrics {
            let mean = outcome.mean(&arm.name, &metric.name);
            // Spread of a figure that does not vary, such as a number of parameters, says nothing.
            row.push(mean.map_or("-".into(), |(m, s)| value(metric, m, s.filter(|&s| s > 0.0))));
        }
        rows.push(row);
    }
    rows
}

/// Every statement with what the runs say about it, a line each.
pub fn verdicts(outcome: &Outcome) -> Vec<String> {
    let say = |c: &Comparison| outcome.judge(c).map_or("not measured in this run".into(), |f| verdict(&f));
    outcome.comparisons.iter().map(|c| format!("{} ({}): {}", c.claim, c.metric, say(c))).collect()
}

/// Header and rows: every comparison with both figures, the difference, the paper's figure and the verdict.
pub fn comparisons(outcome: &Outcome) -> Vec<Vec<String>> {
    let header = ["claim", "figure", "baseline", "method", "difference", "the paper's own", "what the runs say"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for c in &outcome.comparisons {
        rows.push(row(outcome, c).unwrap_or_else(|| vec![c.claim.clone(), c.metric.clone(), "not measured".into()]));
    }
    rows
}

fn row(outcome: &Outcome, c: &Comparison) -> Option<Vec<String>> {
    let metric = outcome.metrics.iter().find(|m| m.name == c.metric)?;
    let mean = |arm: &str| outcome.mean(arm, &c.metric).map(|(m, _)| format!("{arm} {}", value(metric, m, None)));
    let finding = outcome.judge(c)?;
    Some(vec![
        c.claim.clone(),
        c.metric.clone(),
        mean(&c.baseline)?,
        mean(&c.method)?,
        difference(metric, &finding),
        c.paper.clone(),
        verdict(&finding),
    ])
}

/// The main comparison in a line: `test accuracy 50.1 -> 53.2 %: +3.1 ± 0.4 points`.
pub fn headline(outcome: &Outcome) -> Option<String> {
    let c = outcome.comparisons.first()?;
    let metric = outcome.metrics.iter().find(|m| m.name == c.metric)?;
    let finding = outcome.judge(c)?;
    let (baseline, method) = (outcome.mean(&c.baseline, &c.metric)?.0, outcome.mean(&c.method, &c.metric)?.0);
    Some(format!(
        "{} {} against {} {} of {}: {}",
        c.method,
        value(metric, method, None),
        c.baseline,
        value(metric, baseline, None),
        c.metric,
        difference(metric, &finding)
    ))
}

/// Columns side by side; the first row is the header.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}")).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// A table in Markdown; the first row is the header.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let width = rows.first().map_or(0, Vec::len);
    for (i, row) in rows.iter().enumerate() {
        let mut cells: Vec<String> = row.iter().map(|c| c.replace('|', "\\|")).collect();
        cells.resize(width, String::new());
        out += &format!("| {} |\n", cells.join(" | "));
        if i == 0 {
            out += &format!("|{}\n", "---|".repeat(width));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadegrad_models::papers::{Better, Expect, Role};

    #[test]
    fn tables_show_figures_differences_and_verdicts() {
        let mut o =
            Outcome::new("d", "s").metric("accuracy", "%", Better::Higher, 1).metric("size", "", Better::Neither, 0);
        for (seed, (a, b)) in [(50.0, 53.0), (51.0, 54.2)].into_iter().enumerate() {
            o.record("base", Role::Baseline, seed as u64, &[("accuracy", a), ("size", 10.0)]).unwrap();
            o.record("new", Role::Method, seed as u64, &[("accuracy", b)]).unwrap();
        }
        o.compare("it helps", "accuracy", ("new", "base"), Expect::Higher, "+2 points");
        let text = columns(&arms(&o));
        assert!(text.contains("base  baseline  50.5 ± 0.7 %  10"), "{text}");
        assert!(text.lines().last().unwrap().ends_with('-'), "{text}");
        let text = columns(&comparisons(&o));
        assert!(text.contains("+3.1 ± 0.1 points  +2 points        shown, by more than two"), "{text}");
        assert_eq!(headline(&o).unwrap(), "new 53.6 % against base 50.5 % of accuracy: +3.1 ± 0.1 points");
        let text = markdown(&comparisons(&o));
        assert!(text.starts_with("| claim | figure |") && text.contains("|---|---|"), "{text}");
    }
}
