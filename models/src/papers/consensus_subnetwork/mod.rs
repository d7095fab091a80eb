//! A static sub-network found in one training: Zhi, Babbar, Liu, Sun, Silavong, Shi and Moran, "Learning a Consensus
//! Sub-Network with Polarization Regularization and One Pass Training", 2023, arXiv 2302.10798.
//!
//! Small modules decide for every input which residual branches (or channels) are open, and are trained together with the
//! network: a gate is a step, its gradient that of a sigmoid ([`binary_gate`]). A price on what is open makes the network
//! small; polarization `m (1 - m)` of each gate's mean `m` over the batch makes all inputs agree ([`ConsensusLoss`]). Then
//! gates are constants: [`Gated::consensus`] asks the training set, [`Gated::extract`] builds the network without what is
//! closed and without gates. There is no second training.
//!
//! [`Gated`] works on any model whose layers have names, through hooks: what can go is said by [`Unit`]s. All that is asked
//! of the model is a constructor that can leave out what its [`Shape`] says.
//!
//! ```
//! use shadegrad::nn::{Arena, Builder, Cx, LayerNorm, Linear, Module, Scope};
//! use shadegrad::{Result, Tensor};
//! use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, GateConfig, Gated, LossConfig, Shape, Unit};
//! # use shadegrad::{Gpu, Options, data::digits, optim::{Optimizer, Rule}};
//! # use shadegrad::train::{FitOptions, Images, NoHooks, Trainer, evaluate};
//! struct Net(Linear, Vec<(LayerNorm, Linear)>, Linear);
//! fn net(s: &mut Scope<'_>, shape: &Shape) -> Result<Net> {
//!     let stem = Linear::new(&mut s.sub("stem"), 64, 32, true);
//!     let kept = (0..4).map(|i| format!("blocks.{i}")).filter(|name| shape.has(name));
//!     let block = |name: String| {
//!         let mut b = s.sub(name);
//!         (LayerNorm::new(&mut b.sub("norm"), 32, 1e-5), Linear::new(&mut b.sub("fc"), 32, 32, true))
//!     };
//!     Ok(Net(stem, kept.map(block).collect(), Linear::new(&mut s.sub("head"), 32, 10, true)))
//! }
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         let mut x = self.0.forward(cx, &x.flatten(1, 3)?)?;
//!         for (norm, fc) in &self.1 {
//!             x = x.add(&fc.forward(cx, &norm.forward(cx, &x)?.relu()?)?)?;
//!         }
//!         self.2.forward(cx, &x)
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! # let options = FitOptions { epochs: 2, ..FitOptions::default() };
//! let units: Vec<Unit> = (0..4).map(|i| Unit::layer(&format!("blocks.{i}"), "norm", "fc")).collect();
//! let mut names = Builder::new();
//! let gated = Gated::new(&mut names, net, &units, GateConfig::default())?;
//! let mut arena = Arena::new(&gpu, &names, 0)?;
//! let mut optimizer = Optimizer::new(&arena, Rule::sgd(1e-4))?;
//! let small_is_good = ConsensusLoss::new(&gpu, &gated.uniform_costs(), LossConfig::default())?;
//! let steps = (options.epochs * train.len() as u64 / options.batch as u64) as f64;
//! Trainer::new(&gated, &mut arena, &mut optimizer, |_| 0.05, options)
//!     .loss(|step| {
//!         let out = gated.run(step.cx, &step.batch.images)?;
//!         step.cross_entropy(&out.logits)?.add(&small_is_good.compute(&out.gates, step.step as f64 / steps)?.total)
//!     })
//!     .fit(&train, None, &mut NoHooks)?;
//! let consensus = gated.consensus(&arena, &train, 256)?;
//! let small = gated.extract(&arena, &consensus.keep(0.5)?, &train.plain(&[0])?.images)?;
//! let accuracy = evaluate(&small.model, &Cx::eval(&small.arena), &test, 256)?.accuracy;
//! println!("{accuracy:.3} with {:?}", small.report);
//! # Ok(())
//! # }
//! ```
//!
//! Choices where the paper's abstract leaves room: statistics of batch norm are those of all samples, also of those that a
//! gate closes; blocks that change shape are not gated; channels are gated in front of the convolution that takes them,
//! behind norm and activation, so that a closed gate still has a gradient.

mod extract;
mod flops;
mod gate;
mod gated;
mod loss;
mod net;
mod recipe;
#[cfg(test)]
mod tests;
mod unit;
mod vote;

pub use extract::{Extracted, Report, refresh_statistics};
pub use flops::flops;
pub use gate::{GateConfig, GateForm, Ste, binary_gate};
pub use gated::{Costs, Frozen, GATES, Gated, GatedOutput};
pub use loss::{ConsensusLoss, LossConfig, Terms};
pub use net::{PrunableResNet, ResidualMlp};
pub use unit::{Shape, Unit};
pub use vote::{Consensus, GateMeter, Keep};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "consensus-subnetwork",
    title: "Learning a Consensus Sub-Network with Polarization Regularization and One Pass Training",
    source: "arXiv 2302.10798",
    claim: "gates polarised during one training leave a smaller network of nearly the same accuracy",
    data: "MNIST",
    seeds: 3,
    recipe: Some(recipe::run),
};
