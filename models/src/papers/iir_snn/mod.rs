//! Spiking networks that need one timestep: Chowdhury, Rathi and Roy, "One Timestep is All You Need: Training Spiking
//! Neural Networks with Ultra Low Latency", arXiv 2110.05929 (2021), with its released code.
//!
//! A network with ReLUs and average pooling is trained ([`Ann`]), its batch norms are folded and its ReLUs replaced by
//! leaky integrate-and-fire neurons ([`SpikingNet::from_ann`], [`Lif`]), whose thresholds come from the currents of
//! training images ([`SpikingNet::balance_thresholds`]). The spiking network is then trained with a surrogate gradient at
//! five timesteps, and again at four, three, two and one, each time from the parameters of the time before ([`run`]).
//! Weights, thresholds and leaks are all learned.
//!
//! With a model of one's own, any list of [`Layer`]s:
//!
//! ```no_run
//! use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Linear};
//! use shadegrad::train::Images;
//! use shadegrad::{Pool2d, Surrogate};
//! use shadegrad_models::papers::iir_snn::{Ann, Balance, IirSchedule, Layer, SpikingNet, energy_pj, run};
//! # fn example(gpu: shadegrad::Gpu, train: Images, val: Images, calibration: shadegrad::Tensor) -> shadegrad::Result<()> {
//! let mut builder = Builder::new();
//! let mut root = builder.root();
//! let ann = Ann::new(vec![
//!     Conv2d::new(&mut root.sub("conv"), 3, 32, 3, ConvOptions::new(1, 1).no_bias()).into(),
//!     BatchNorm2d::new(&mut root.sub("norm"), 32).into(),
//!     Layer::Relu,
//!     Layer::AvgPool(Pool2d::new(2, 2, 0)),
//!     Layer::Flatten,
//!     Linear::new(&mut root.sub("fc"), 32 * 16 * 16, 10, false).into(),
//! ]);
//! let arena = Arena::new(&gpu, &builder, 0)?;
//! // ... train `ann`, which is a `Module`, with any loop; then:
//! let net = SpikingNet::from_ann(&ann, &arena, Surrogate::Linear { gamma: 0.3 })?;
//! net.balance_thresholds(&calibration, &Balance::default())?;
//! let reports = run(&net, &train, &val, &IirSchedule::default(), &mut |epoch| {
//!     println!("{epoch:?}");
//!     Ok(())
//! })?;
//! let rates = &reports[reports.len() - 1].rates;
//! println!("{:?}", energy_pj(&net.macs([32, 32, 3])?, rates, 1)?);
//! # Ok(())
//! # }
//! ```

mod ann;
mod balance;
mod iir;
mod lif;
mod net;
mod recipe;
#[cfg(test)]
mod tests;

pub use ann::{Ann, Feature, Layer, VggPlan};
pub use balance::{Balance, percentile};
pub use iir::{IirSchedule, StageEpoch, StageReport, accuracy, run};
pub use lif::Lif;
pub use net::{ACCUMULATE_PJ, AtTimesteps, Energy, MAC_PJ, MIN_THRESHOLD, SpikingNet, energy_pj};
#[cfg(test)]
pub(crate) use net::{NormValues, fold_batch_norm};

use super::Paper;

/// The paper.
pub const PAPER: Paper = Paper {
    slug: "iir-snn",
    title: "One Timestep is All You Need: Training Spiking Neural Networks with Ultra Low Latency",
    source: "arXiv 2110.05929",
    claim: "lowering the timesteps from 5 to 1 in stages gives spiking networks that need a single step",
    data: "CIFAR-10",
    seeds: 2,
    recipe: Some(recipe::run),
};
