//! Files: weights in and out with PyTorch's names and layouts, checkpoints that survive, and writing that is whole or not
//! at all.
//!
//! - [`Weights`] reads safetensors and PyTorch's `.pt`/`.pth` state dictionaries and writes safetensors.
//! - [`Checkpoint`] is all that a run needs to go on bit for bit; [`Checkpoints`] is the folder of a run's last ones.
//! - [`write_atomic`] is how both are written.
//!
//! Files are not trusted: sizes are checked against what is there before anything is allocated, and nothing is executed.
//!
//! ```
//! # let folder = tempfile::tempdir().expect("a folder");
//! use shadegrad::io::{Meta, Saved, Weights};
//! let path = folder.path().join("model.safetensors");
//! let weight = Saved::f32("fc.weight", &[1, 2], &[0.5, -0.5])?;
//! Weights::new(vec![weight], Meta::new()).save(&path)?;
//! assert_eq!(Weights::open(&path)?.get("fc.weight").map(Saved::to_f32), Some(vec![0.5, -0.5]));
//! # Ok::<(), shadegrad::Error>(())
//! ```

mod atomic;
mod checkpoint;
mod folder;
mod pickle;
mod safetensors;
mod saved;
mod torch;
mod weights;
mod zip;

pub use atomic::write_atomic;
pub use checkpoint::Checkpoint;
pub use folder::Checkpoints;
pub use safetensors::{Meta, write_safetensors};
pub use saved::{FileType, Saved};
pub use weights::{LoadOptions, Loaded, Weights};
