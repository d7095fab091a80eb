//! Results of papers as they are stored: `results.json` of a run, and the files under `docs/results`.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use shadegrad::Gpu;
use shadegrad_models::papers::{Outcome, Paper, Preset};

/// What one run of a paper found, and on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The paper.
    pub slug: String,
    /// `smoke`, `small` or `full`.
    pub preset: String,
    /// Name of the data set.
    pub data: String,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The device.
    pub adapter: String,
    /// Its driver.
    pub driver: String,
    /// Of this command.
    pub version: String,
    /// Day of the run, UTC.
    pub date: String,
    /// How long it took.
    pub seconds: f64,
    /// What came out.
    pub outcome: Outcome,
}

/// Those that the command was built with.
const EMBEDDED: &[&str] = include!(concat!(env!("OUT_DIR"), "/results.rs"));

impl Stored {
    /// The result of a run that ends now.
    pub fn new(
        paper: &Paper,
        preset: Preset,
        data: &str,
        seeds: &[u64],
        gpu: &Gpu,
        seconds: f64,
        outcome: Outcome,
    ) -> Self {
        let device = gpu.description();
        Self {
            slug: paper.slug.into(),
            preset: preset.name().into(),
            data: data.into(),
            seeds: seeds.to_vec(),
            adapter: device.name.clone(),
            driver: device.driver.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            date: today(),
            seconds: seconds.round(),
            outcome,
        }
    }

    /// Reads `results.json` or a file under `docs/results`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| {
            format!("{}: not a result of `shadegrad run` of this version; repeat the run", path.display())
        })
    }

    /// The result as text.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Its file under `docs/results`: a later run of the same paper, preset and data takes the place of an earlier one.
    pub fn file_name(&self) -> String {
        let data: String = self.data.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("{}.{}.{}.json", self.slug, self.preset, data.to_lowercase())
    }

    /// Full runs before small ones before smokes, given data before the embedded digits, the newest first.
    fn rank(&self) -> (usize, bool, std::cmp::Reverse<&str>) {
        let preset = Preset::ALL.iter().rev().position(|p| p.name() == self.preset).unwrap_or(usize::MAX);
        (preset, self.data == "digits", std::cmp::Reverse(&self.date))
    }
}

/// The results that the command was built with, or those in `folder`; those that say most first.
pub fn all(folder: Option<&Path>) -> Result<Vec<Stored>> {
    let mut all = Vec::new();
    match folder {
        None => {
            for text in EMBEDDED {
                all.push(serde_json::from_str(text).context("a result that the command was built with")?);
            }
        }
        Some(folder) if folder.exists() => {
            for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "json") {
                    all.push(Stored::read(&path)?);
                }
            }
        }
        Some(_) => {}
    }
    all.sort_by(|a: &Stored, b| a.rank().cmp(&b.rank()).then_with(|| a.file_name().cmp(&b.file_name())));
    Ok(all)
}

/// `2026-01-31`, UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (y, m, d) = civil((seconds / 86_400) as i64);
    format!("{y:04}-{m:02}-{d:02}")
}

/// Year, month and day of the day `days` after 1 January 1970. Years are counted from March, so that the leap day comes
/// last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (d, m) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (year + era * 400 + i64::from(m <= 2), m, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }

    #[test]
    fn stored_results_can_be_read_and_belong_to_papers() {
        for stored in all(None).unwrap() {
            assert!(shadegrad_models::papers::find(&stored.slug).unwrap().is_built(), "{}", stored.slug);
            assert!(!stored.outcome.arms.is_empty() && !stored.seeds.is_empty());
        }
    }
}
