//! Sparse feed-forward networks of densely linked groups ("Neuro-inspired Ensemble-to-Ensemble Communication Primitives for
//! Sparse and Efficient ANNs", arXiv 2508.14140).
//!
//! The units of two neighbouring layers are put into the same number of groups. Links between corresponding groups are dense
//! and those between other groups rare ([`GroupMask`]); the mask may change during training ([`Dst`]): edges are pruned, and
//! others grown between correlated units ([`hebbian_score`]). [`MaskedLinear`] is a layer for any model:
//!
//! ```no_run
//! use shadegrad::nn::{Activation, Arena, Builder, Cx, Linear, Module};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad_models::papers::g2gnet::{Activations, Dst, Executor, GroupMask, Grouping, MaskedLinear};
//! # fn train(gpu: shadegrad::Gpu, x: shadegrad::Tensor, labels: shadegrad::Tensor) -> shadegrad::Result<()> {
//! let mask = GroupMask { groups: 8, p_intra: 1.0, p_inter: 0.15, grouping: Grouping::Index }.sample(256, 512, 0)?;
//! let executor = Executor::faster(gpu.caps(), mask.density());
//! let mut builder = Builder::new();
//! let hidden = MaskedLinear::new(&mut builder.root().sub("hidden"), mask, true, executor);
//! let head = Linear::new(&mut builder.root().sub("head"), 256, 10, true);
//! let arena = Arena::new(&gpu, &builder, 0)?;
//! hidden.attach(&arena, 0)?;
//!
//! let mut optimizer = Optimizer::new(&arena, Rule::adam())?;
//! let dst = Dst { every: 100, ..Dst::default() };
//! let activations = Activations::new();
//! for step in 0..1000 {
//!     let cx = activations.watch(&Cx::train(&arena).seeded(0, step));
//!     let logits = head.forward(&cx, &hidden.forward_with(&cx, &x, Activation::Relu)?)?;
//!     arena.backward(&logits.cross_entropy(&labels, Default::default())?)?;
//!     optimizer.step(&arena, 1e-3)?;
//!     dst.maybe_step(step, &[&hidden], &activations, &arena, &optimizer)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Sparse weights save work with [`Executor::Sparse`], which stores and multiplies only those that exist; from which
//! sparsity on that is faster than whole matrices is in `docs/performance.md`.
//!
//! The paper's own code was not found. Grouping, masks, first values and the rules of pruning and growing are those of a
//! public companion code base that ports the architecture to spiking neurons; that the paper has the same constants is a
//! reconstruction. There a pruned edge that grows again in the same event keeps its old value; here it starts from 0.

mod dst;
mod group;
mod layer;
mod model;
mod recipe;
#[cfg(test)]
mod tests;

pub use crate::papers::shared::mask::Mask;
pub use dst::{Activations, Dst, DstReport, Grow, Prune, hebbian_score};
pub use group::{GroupMask, Grouping};
pub use layer::{Change, Executor, MaskedLinear};
pub use model::{G2gConfig, G2gMlp, Pattern, Wiring};

use super::Paper;

/// The paper.
pub const PAPER: Paper = Paper {
    slug: "g2gnet",
    title: "Neuro-inspired Ensemble-to-Ensemble Communication Primitives for Sparse and Efficient ANNs",
    source: "arXiv 2508.14140, 2025",
    claim: "sparse layers of densely linked groups keep or raise accuracy with a quarter of the weights",
    data: "CIFAR-10",
    seeds: 3,
    recipe: Some(recipe::run),
};
