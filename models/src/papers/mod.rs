//! Papers' algorithms, each as a library, a recipe and tests.
//!
//! A paper has a folder of its own here: `mod.rs` with what one uses on a model and data of one's own, and its
//! [`Paper`]; `recipe.rs` with the experiment that shows the paper's claim against its baseline at three sizes
//! ([`Preset`]); `tests.rs` with checks of the mathematics against known numbers. Adding one means a folder and a line in
//! the list below. What several papers share stands beside them: [`Context`] (what a recipe runs on), [`Outcome`] (what
//! it brings back) and `train_on` (training of a classifier in a recipe).
//!
//! ```no_run
//! use shadegrad::Gpu;
//! use shadegrad_models::papers::{Context, Preset, Silent, find};
//! # fn main() -> shadegrad::Result<()> {
//! let gpu = Gpu::new(shadegrad::Options::from_env()?)?;
//! let paper = find("crrelu")?;
//! let outcome = paper.run(&mut Context::new(&gpu, Preset::Smoke, &mut Silent))?;
//! for comparison in &outcome.comparisons {
//!     println!("{}: {:?}", comparison.claim, outcome.judge(comparison));
//! }
//! # Ok(())
//! # }
//! ```

mod classify;
mod frame;
mod outcome;
mod planned;
pub mod shared;

pub(crate) use classify::{Plan, Trained, train_on};
pub(crate) use frame::describe;
pub use frame::{Context, Paper, Preset, Silent, Watch, data_name};
pub(crate) use outcome::Curves;
pub use outcome::{
    Arm, Better, Chart, Comparison, Expect, Finding, Metric, Outcome, Picture, Role, Run, Series, Style, Verdict,
};

use shadegrad::{Error, Result, did_you_mean};

/// Declares the modules of the papers that are built, and their list.
macro_rules! papers {
    ($($module:ident)*) => {
        $(pub mod $module;)*
        const BUILT: &[&Paper] = &[$(&$module::PAPER),*];
    };
}

// One line for each, in the order of the alphabet.
papers! {
    activating_while_pruning
    bd_kd
    consensus_subnetwork
    coswin
    crrelu
    eeea_net
    g2gnet
    hard_samples
    iir_snn
    noprop
    randaugment
    slimfit
    sparse_then_prune
    spectformer
    train_longer
}

/// Every paper: those that are built and those that are not yet, by slug.
///
/// ```
/// use shadegrad_models::papers::all;
/// let papers = all();
/// assert_eq!(papers.len(), 36);
/// assert!(papers.iter().any(|p| p.slug == "coswin" && p.is_built()));
/// ```
pub fn all() -> Vec<&'static Paper> {
    let planned = planned::PLANNED.iter().filter(|p| BUILT.iter().all(|b| b.slug != p.slug));
    let mut all: Vec<&Paper> = BUILT.iter().copied().chain(planned).collect();
    all.sort_by_key(|p| p.slug);
    all
}

/// The paper called `slug`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::find;
/// assert_eq!(find("noprop")?.data, "MNIST");
/// let text = find("no-prop").err().map(|e| e.to_string());
/// assert!(text.is_some_and(|t| t.contains("did you mean `noprop`")));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If there is none; the text names the nearest.
pub fn find(slug: &str) -> Result<&'static Paper> {
    let all = all();
    all.iter().find(|p| p.slug == slug).copied().ok_or_else(|| {
        let slugs: Vec<&str> = all.iter().map(|p| p.slug).collect();
        Error::value(
            "papers",
            format!("no paper is called `{slug}`{}; there are {}", did_you_mean(slug, &slugs), slugs.join(", ")),
        )
    })
}

/// What the papers' tests share.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::OnceLock;

    use shadegrad::{Gpu, Options};

    /// One device for all tests, chosen by the environment as everywhere.
    pub fn gpu() -> Gpu {
        static GPU: OnceLock<Gpu> = OnceLock::new();
        GPU.get_or_init(|| Gpu::new(Options::from_env().expect("environment")).expect("a GPU driver")).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        let slugs: Vec<&str> = all().iter().map(|p| p.slug).collect();
        assert_eq!(slugs.len(), 36);
        assert!(slugs.is_sorted() && slugs.windows(2).all(|w| w[0] != w[1]), "{slugs:?}");
        assert!(BUILT.iter().all(|p| p.is_built() && p.seeds >= 2));
        for paper in all() {
            assert!(!paper.title.is_empty() && !paper.claim.is_empty() && paper.source.starts_with("arXiv "));
        }
    }

    #[test]
    fn unknown_and_unbuilt_papers_are_errors() {
        let err = find("coswine").unwrap_err().to_string();
        assert!(err.contains("did you mean `coswin`"), "{err}");
        if let Some(planned) = all().into_iter().find(|p| !p.is_built()) {
            let err = planned.run(&mut Context::new(&testing::gpu(), Preset::Smoke, &mut Silent)).unwrap_err();
            assert!(err.to_string().contains("not built yet"), "{err}");
        }
    }
}
