//! EEEA-Net: An Early Exit Evolutionary Neural Architecture Search (Termritthikun et al., 2021, arXiv 2108.06156).
//!
//! A network is a stack of two kinds of cells, found by evolution: each candidate is trained small and briefly (its
//! *proxy*), and ordered by error and by the parameters of its *full* network. The early exit is one of the search, not of
//! the network: a random candidate whose full network has too many parameters is drawn again before anything is trained.
//!
//! | what | where |
//! |---|---|
//! | cells as data, the published ones, integers and text | [`Genotype`] |
//! | parameters and multiply-adds without a device | [`param_count`], [`mac_count`] |
//! | the network | [`CellNet`] |
//! | fronts, crowding, hypervolume | [`nsga2`] |
//! | crossover, mutation, inversion, tournament | [`genetics`] |
//! | the search, resumable | [`Search`] |
//! | training of proxies and of what was found | [`train_cells`], [`proxy_accuracy`] |
//!
//! A search on data of one's own, for networks of fewer than 3 million parameters, continued if it was interrupted:
//!
//! ```no_run
//! use shadegrad::train::Images;
//! use shadegrad_models::papers::eeea_net::{NetCfg, Search, TrainCfg, proxy_accuracy};
//! # fn search(gpu: &shadegrad::Gpu, train: &Images, valid: &Images) -> shadegrad::Result<()> {
//! let search = Search { beta: Some(3_000_000), ..Search::default() };
//! let mut evaluate =
//!     |g: &_| proxy_accuracy(gpu, g, NetCfg::proxy(10), &TrainCfg::proxy(0), (train, valid));
//! let report = search.run_saved("search.json".as_ref(), &mut evaluate)?;
//! println!("{} rejected, best front:", report.rejected);
//! for found in &report.front {
//!     println!("{:.1} %, {} parameters: {}", 100.0 * found.accuracy, found.params, found.genotype);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where this departs from the published code: duplicates in the initial population are drawn again (there the population
//! shrinks); the inversion exchanges (there it copies; [`Search::compat`]); crowding distances are those of each front
//! (there they are paired wrongly); the seconds of an epoch do not take part in crowding, so that a search can be repeated
//! (again [`Search::compat`]); accuracies are those of data held out from training, where the code takes the test set;
//! cells give their loose ends, as in the published genotypes (the code's decoder gives all blocks; [`Concat::All`]); and
//! the non-local layer that the code builds and never uses is left out.

mod count;
mod genotype;
mod net;
mod recipe;
mod search;
mod state;
mod train;

pub mod genetics;
pub mod nsga2;

pub use count::{NetCfg, aux_param_count, mac_count, op_params, param_count};
pub use genotype::{Block, Concat, Genotype, Op, PUBLISHED};
pub use net::{CellNet, Outputs};
pub use search::{Draws, Individual, Search, SearchReport};
pub use train::{TrainCfg, Trained, proxy_accuracy, train_cells};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "eeea-net",
    title: "EEEA-Net: An Early Exit Evolutionary Neural Architecture Search",
    source: "arXiv 2108.06156",
    claim: "refusing large architectures before training makes evolutionary search cheaper at equal error",
    data: "CIFAR-10",
    seeds: 2,
    recipe: Some(recipe::run),
};

#[cfg(test)]
mod tests;
