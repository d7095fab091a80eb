//! Results of papers as they are stored: `results.json` of a run, and the files under `docs/results`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use shadegrad::Gpu;
use shadegrad_models::papers::{Outcome, Paper, Preset};

use crate::date;

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
            date: date::today(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_results_can_be_read_and_belong_to_papers() {
        for stored in all(None).unwrap() {
            assert!(shadegrad_models::papers::find(&stored.slug).unwrap().is_built(), "{}", stored.slug);
            assert!(!stored.outcome.arms.is_empty() && !stored.seeds.is_empty());
        }
    }
}
