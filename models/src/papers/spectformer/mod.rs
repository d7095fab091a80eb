//! SpectFormer: spectral gates first, attention later (Patro et al., "SpectFormer: Frequency and Attention is what you need
//! in a Vision Transformer", WACV 2025).
//!
//! The first blocks of the transformer mix tokens with a learned filter in the two-dimensional Fourier domain, a
//! [`SpectralGate`] (Rao et al., "Global Filter Networks for Image Classification", NeurIPS 2021); the others attend.
//! [`SpectFormer`] is the isotropic network, [`SpectFormerH`] the hierarchical one. In the former a spectral block has one
//! residual, `x + MLP(LN(gate(LN(x))))`, in the latter two.
//!
//! Any pattern of blocks is a string, and any [`TokenMixer`] can stand in a block:
//!
//! ```
//! use shadegrad::nn::{Builder, MultiHeadAttention};
//! use shadegrad_models::Spec;
//! use shadegrad_models::papers::spectformer::{Mixer, SpectFormer, SpectFormerConfig, SpectralGate};
//! let config = SpectFormerConfig::tiny(&Spec::cifar10()).with_pattern("sasa".parse()?);
//! assert_eq!(config.num_params()?, 184_906);
//!
//! // Gates that start at a tenth of the paper's size, in the same places.
//! let mut builder = Builder::new();
//! let model = SpectFormer::with_mixers(&mut builder.root(), &config, |scope, _block, kind| match kind {
//!     Mixer::Spectral => Ok(Box::new(SpectralGate::new(&mut scope.sub("filter"), config.grid(), config.dim, 0.002)?)),
//!     Mixer::Attention => Ok(Box::new(MultiHeadAttention::new(&mut scope.sub("attn"), config.dim, 4, true, 0.0))),
//! })?;
//! assert!(model.macs() < 15_000_000);
//! # Ok::<(), shadegrad::Error>(())
//! ```
//!
//! The gate alone, as a layer of another model: it takes and gives tokens `[batch, h w, channels]`.
//!
//! ```no_run
//! use shadegrad::nn::{Arena, Builder, Cx, Module};
//! use shadegrad_models::papers::spectformer::SpectralGate;
//! # fn main() -> shadegrad::Result<()> {
//! # let gpu = shadegrad::Gpu::new(shadegrad::Options::from_env()?)?;
//! let mut builder = Builder::new();
//! let gate = SpectralGate::new(&mut builder.root().sub("mix"), (14, 14), 64, SpectralGate::INIT_STD)?;
//! let arena = Arena::new(&gpu, &builder, 0)?;
//! let tokens = shadegrad::Tensor::ones(&gpu, &[8, 14 * 14, 64])?;
//! let mixed = gate.forward(&Cx::train(&arena), &tokens)?;
//! # let _ = mixed;
//! # Ok(())
//! # }
//! ```

mod gate;
mod hierarchical;
mod pattern;
mod recipe;
mod vanilla;

#[cfg(test)]
mod tests;

pub use gate::{SpectralGate, TokenMixer, irfft2, rfft2};
pub use hierarchical::{HierarchicalConfig, Logits, SpectFormerH, Stage, Stem};
pub use pattern::{Mixer, Order, Pattern};
pub use vanilla::{SpectFormer, SpectFormerConfig};

use crate::papers::Paper;

/// The paper and its recipe.
pub static PAPER: Paper = Paper {
    slug: "spectformer",
    title: "SpectFormer: Frequency and Attention is what you need in a Vision Transformer",
    source: "arXiv 2304.06446, WACV 2025",
    claim: "spectral blocks first and attention blocks later beat all-spectral and all-attention transformers",
    data: "CIFAR-10",
    seeds: 2,
    recipe: Some(recipe::run),
};
