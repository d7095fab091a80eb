//! Pruning of any model: masks over the parameters in its arena, what is removed and when, and what a mask leaves.
//!
//! [`PruneMasks`] are ones and zeros over chosen parameters, in one row: the *pool*. [`PruneMasks::apply`] hands them to
//! the arena, which holds weights to them on the device from then on: gradients of masked weights are zeroed before every
//! optimiser step and the weights after it, whatever momentum and decay do. Nothing of the model changes.
//!
//! - What goes: [`Criterion`] (magnitude, gradient, LAMP, random), [`Movement`], or any scores of one's own; over the
//!   whole pool or layer by layer ([`Pooling`]), by number or below a threshold.
//! - When: once, in cycles with a rewind ([`PruneMasks::rewind`]), or gradually ([`GradualPruner`]).
//! - What is left: [`PruneMasks::layers`].
//! - Whole units instead of single weights, first masked and then taken out of the network: [`units`].
//!
//! ```no_run
//! # use shadegrad::{Result, nn::{Arena, Module}, optim::Optimizer, train::{FitOptions, Images, NoHooks, Trainer}};
//! use shadegrad_models::papers::shared::prune::{Criterion, Pooling, PruneMasks};
//! # fn run(model: &dyn Module, arena: &mut Arena, optimizer: &mut Optimizer, train: &Images) -> Result<()> {
//! // A model that was trained: half of its matrices' weights go, the smallest first, and the rest trains on.
//! let mut masks = PruneMasks::of_matrices(arena)?;
//! let scores = masks.scores(arena, Criterion::Magnitude)?;
//! masks.remove_lowest(&scores, masks.share(0.5), Pooling::Global)?;
//! masks.apply(arena)?;
//! Trainer::new(model, arena, optimizer, |_| 1e-3, FitOptions::default()).fit(train, None, &mut NoHooks)?;
//! for layer in masks.layers() {
//!     println!("{}: {} of {} weights", layer.name, layer.alive, layer.total);
//! }
//! # Ok(())
//! # }
//! ```

mod criteria;
mod gradual;
#[cfg(test)]
mod tests;
pub mod units;

pub use criteria::{Criterion, Movement};
pub use gradual::{Gradual, GradualPruner};

use std::ops::Range;
use std::sync::Arc;

use shadegrad::nn::{Arena, Entry, Snapshot, Table};
use shadegrad::{Error, Result, Tensor};

use super::mask::lowest;

/// Over what weights compete.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::shared::prune::{Criterion, Pooling, PruneMasks};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # names.root().param("b", &[2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// let scores = masks.scores(&arena, Criterion::Magnitude)?;
/// // There is one layer here: both poolings take the same two weights.
/// assert_eq!(masks.clone().remove_lowest(&scores, 2, Pooling::Layer)?, [0, 3]);
/// assert_eq!(masks.remove_lowest(&scores, 2, Pooling::Global)?, [0, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// All layers together.
    #[default]
    Global,
    /// Each layer loses the same share of the weights that it has left.
    Layer,
}

/// What a layer has left.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::shared::prune::{LayerCount, PruneMasks};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # names.root().param("b", &[2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// masks.remove(&[0, 3])?;
/// assert_eq!(masks.layers(), [LayerCount { name: "w".into(), total: 4, alive: 2 }]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCount {
    /// The parameter's full name.
    pub name: String,
    /// Its weights.
    pub total: usize,
    /// Those that are not masked.
    pub alive: usize,
}

/// Masks over chosen parameters of a model, on the host. Positions count through the pool: the chosen parameters one after
/// the other in the order of the arena's table.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::shared::prune::{Criterion, Pooling, PruneMasks};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # names.root().param("b", &[2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// let scores = masks.scores(&arena, Criterion::Magnitude)?;
/// masks.remove_lowest(&scores, 2, Pooling::Global)?;
/// masks.apply(&mut arena)?;
/// assert_eq!(arena.params().by_name("w")?.to_vec()?, [0.0, -4.0, 2.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PruneMasks {
    table: Arc<Table>,
    /// Row of the table and range in the pool.
    spans: Vec<(usize, Range<usize>)>,
    on: Vec<bool>,
}

impl PruneMasks {
    /// Masks over the parameters that `prunable` chooses. What the arena masks already is masked here too.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// assert_eq!(PruneMasks::new(&arena, |e| e.name == "w" || e.name == "b")?.len(), 6);
    /// assert!(PruneMasks::new(&arena, |e| e.name == "c").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it chooses none, or the device refuses.
    pub fn new(arena: &Arena, prunable: impl Fn(&Entry) -> bool) -> Result<Self> {
        let table = arena.table().clone();
        let (mut spans, mut end) = (Vec::new(), 0);
        for (row, e) in table.entries().iter().enumerate().filter(|(_, e)| prunable(e)) {
            spans.push((row, end..end + e.len));
            end += e.len;
        }
        if end == 0 {
            let names: Vec<&str> = table.entries().iter().take(4).map(|e| e.name.as_str()).collect();
            return Err(Error::value(
                "PruneMasks",
                format!(
                    "none of the {} parameters ({}, ..) is chosen; nothing could be pruned",
                    table.len(),
                    names.join(", ")
                ),
            ));
        }
        let mut masks = Self { table, spans, on: vec![true; end] };
        if let Some(mask) = arena.mask_flat() {
            masks.on = masks.pool(mask)?.into_iter().map(|m| m != 0.0).collect();
        }
        Ok(masks)
    }

    /// Masks over all parameters of two dimensions or more: the weights of linear layers and convolutions, no biases and
    /// no norms.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// assert_eq!(PruneMasks::of_matrices(&arena)?.len(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PruneMasks::new`].
    pub fn of_matrices(arena: &Arena) -> Result<Self> {
        Self::new(arena, |e| e.shape.len() > 1)
    }

    /// Weights in the pool.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// assert_eq!(masks.len(), 4); // with those that are masked
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.on.len()
    }

    /// Whether the pool is empty; it never is.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// assert!(!PruneMasks::of_matrices(&arena)?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// Weights that are not masked.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// assert_eq!(masks.alive(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn alive(&self) -> usize {
        self.on.iter().filter(|on| **on).count()
    }

    /// Share of the pool that is masked.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// assert_eq!(masks.sparsity(), 0.25);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sparsity(&self) -> f64 {
        1.0 - self.alive() as f64 / self.len() as f64
    }

    /// Whether each weight of the pool is there.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// assert_eq!(masks.as_slice(), [true, false, true, true]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn as_slice(&self) -> &[bool] {
        &self.on
    }

    /// The positions of the weights that are there, rising.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// assert_eq!(masks.positions(), [0, 2, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn positions(&self) -> Vec<u32> {
        (0..self.len() as u32).filter(|&at| self.on[at as usize]).collect()
    }

    /// The chosen parameters and their ranges in the pool.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let masks = PruneMasks::new(&arena, |_| true)?;
    /// let spans: Vec<_> = masks.spans().map(|(e, range)| (e.name.as_str(), range)).collect();
    /// assert_eq!(spans, [("w", 0..4), ("b", 4..6)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn spans(&self) -> impl Iterator<Item = (&Entry, Range<usize>)> {
        self.spans.iter().map(|(row, range)| (&self.table.entries()[*row], range.clone()))
    }

    /// What each of the chosen parameters has left.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let masks = PruneMasks::new(&arena, |_| true)?;
    /// let left: Vec<usize> = masks.layers().iter().map(|l| l.alive).collect();
    /// assert_eq!(left, [4, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn layers(&self) -> Vec<LayerCount> {
        let count = |range: Range<usize>| self.on[range].iter().filter(|on| **on).count();
        self.spans().map(|(e, range)| LayerCount { name: e.name.clone(), total: e.len, alive: count(range) }).collect()
    }

    /// The mask of a parameter, row-major; `None` if it was not chosen.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::new(&arena, |_| true)?;
    /// masks.remove(&[5])?;
    /// assert_eq!(masks.of("b"), Some(&[true, false][..]));
    /// assert_eq!(masks.of("c"), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of(&self, name: &str) -> Option<&[bool]> {
        let (_, range) = self.spans().find(|(e, _)| e.name == name)?;
        Some(&self.on[range])
    }

    /// Sets the mask of a parameter: what comes back this way starts from the 0 that it was held to.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.set("w", &[true, true, false, false])?;
    /// assert_eq!(masks.positions(), [0, 1]);
    /// assert!(masks.set("b", &[true, false]).is_err()); // no matrix
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it was not chosen, or has another number of elements.
    pub fn set(&mut self, name: &str, mask: &[bool]) -> Result<()> {
        let found = self.spans().find(|(e, _)| e.name == name).map(|(_, range)| range);
        let Some(range) = found.filter(|r| r.len() == mask.len()) else {
            return Err(Error::value(
                "PruneMasks",
                format!(
                    "a mask of {} elements for `{name}`; it must be a chosen parameter's of the same size",
                    mask.len()
                ),
            ));
        };
        self.on[range].copy_from_slice(mask);
        Ok(())
    }

    /// The pool's elements of a flat tensor laid out as the arena: its values, its gradients, a movement. One read-back.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// assert_eq!(masks.pool(arena.values_flat())?, [0.1, -4.0, 2.0, -0.3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If its length is not that of the arena's table.
    pub fn pool(&self, flat: &Tensor) -> Result<Vec<f32>> {
        if flat.shape() != [self.table.floats()] {
            return Err(Error::shape(
                "PruneMasks",
                format!("{flat:?} for an arena of {} floats; give one flat tensor of it", self.table.floats()),
            ));
        }
        let all = flat.to_vec()?;
        Ok(self.spans().flat_map(|(e, _)| all[e.offset..][..e.len].iter().copied()).collect())
    }

    /// The number of weights that a share of those left comes to: `ceil((alive - 1) share)`, which is what lies strictly
    /// below the percentile of that share (with linear interpolation) where no two are equal.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// assert_eq!((masks.share(0.2), masks.share(0.5), masks.share(1.0)), (1, 2, 3));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn share(&self, share: f64) -> usize {
        removal(self.alive(), share)
    }

    /// Masks the weights at these positions.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[0, 3])?;
    /// assert_eq!(masks.positions(), [1, 2]);
    /// assert!(masks.remove(&[4]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If one lies outside the pool.
    pub fn remove(&mut self, positions: &[u32]) -> Result<()> {
        if let Some(at) = positions.iter().find(|&&at| at as usize >= self.len()) {
            return Err(Error::value(
                "PruneMasks",
                format!("position {at} in a pool of {}; it lies outside", self.len()),
            ));
        }
        positions.iter().for_each(|&at| self.on[at as usize] = false);
        Ok(())
    }

    /// Masks exactly `count` of the weights that are left, those of lowest score; ties go to the lower position. Returns
    /// their positions, rising. With [`Pooling::Layer`] each layer's part is that of its weights among those left, rounded
    /// so that the sum is right.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Pooling, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// // Scores of one's own; of equal ones the first goes.
    /// assert_eq!(masks.remove_lowest(&[5.0, 1.0, 1.0, 2.0], 1, Pooling::Global)?, [1]);
    /// assert_eq!(masks.remove_lowest(&[5.0, 1.0, 1.0, 2.0], 2, Pooling::Global)?, [2, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are more or fewer scores than weights, one of them is NaN, or fewer weights are left than are to go.
    pub fn remove_lowest(&mut self, scores: &[f32], count: usize, pooling: Pooling) -> Result<Vec<u32>> {
        self.check_scores(scores)?;
        let alive = self.positions();
        if count > alive.len() {
            return Err(Error::value(
                "PruneMasks",
                format!("{count} weights of {} are to go; ask for fewer, or begin with new masks", alive.len()),
            ));
        }
        let key = |at: u32| scores[at as usize];
        let chosen = match pooling {
            Pooling::Global => lowest(&alive, count, key),
            Pooling::Layer => {
                let layers: Vec<Vec<u32>> = (self.spans.iter())
                    .map(|(_, r)| (r.start as u32..r.end as u32).filter(|&at| self.on[at as usize]).collect())
                    .collect();
                let parts = apportion(count, &layers.iter().map(Vec::len).collect::<Vec<_>>());
                layers.iter().zip(parts).flat_map(|(layer, n)| lowest(layer, n, key)).collect()
            }
        };
        self.remove(&chosen)?;
        Ok(chosen)
    }

    /// Masks the weights whose score is below the threshold, and returns how many.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Criterion, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// let sizes = masks.scores(&arena, Criterion::Magnitude)?;
    /// assert_eq!(masks.remove_below(&sizes, 1.0)?, 2);
    /// assert_eq!(masks.positions(), [1, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PruneMasks::remove_lowest`].
    pub fn remove_below(&mut self, scores: &[f32], threshold: f32) -> Result<usize> {
        self.check_scores(scores)?;
        let below: Vec<u32> = self.positions().into_iter().filter(|&at| scores[at as usize] < threshold).collect();
        self.remove(&below)?;
        Ok(below.len())
    }

    fn check_scores(&self, scores: &[f32]) -> Result<()> {
        let wrong = |what: String| Err(Error::value("PruneMasks", what));
        if scores.len() != self.len() {
            return wrong(format!("{} scores for {} weights; `pool` gives one for each", scores.len(), self.len()));
        }
        // A masked weight's score counts for nothing.
        match scores.iter().zip(&self.on).position(|(s, on)| *on && s.is_nan()) {
            Some(at) => wrong(format!("the score of the weight at {at} is NaN; did the training diverge?")),
            None => Ok(()),
        }
    }

    /// Hands the masks to the arena: masked weights are 0 from now on, and stay 0 through every optimiser step. Masks that
    /// the arena has for other parameters stay.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// masks.apply(&mut arena)?;
    /// assert_eq!(arena.params().by_name("w")?.to_vec()?, [0.1, 0.0, 2.0, -0.3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another model, or the device refuses.
    pub fn apply(&self, arena: &mut Arena) -> Result<()> {
        let floats = self.table.floats();
        if arena.table().floats() != floats {
            let has = arena.table().floats();
            return Err(Error::value(
                "PruneMasks",
                format!("masks of {floats} floats for an arena of {has}; take its own"),
            ));
        }
        let mut flat = arena.mask_flat().map_or_else(|| Ok(vec![1.0; floats]), Tensor::to_vec)?;
        for (e, range) in self.spans() {
            let to = &mut flat[e.offset..][..e.len];
            to.iter_mut().zip(&self.on[range]).for_each(|(m, &on)| *m = f32::from(u8::from(on)));
        }
        arena.set_mask_flat(&Tensor::from_slice(arena.gpu(), &flat, &[floats])?)
    }

    /// Sets the arena back to a snapshot, running statistics and biases included, and the masked weights to 0: the rewind
    /// of iterative pruning. Make a new optimiser afterwards, so that no momentum is left over.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::PruneMasks;
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # names.root().param("b", &[2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights `w` [[0.1, -4.0], [2.0, -0.3]] and the biases `b`.
    /// let first = arena.snapshot()?;
    /// arena.set_value(w, &Tensor::ones(&gpu, &[2, 2])?)?; // in place of a training
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// masks.remove(&[1])?;
    /// masks.rewind(&mut arena, &first)?;
    /// assert_eq!(arena.params().by_name("w")?.to_vec()?, [0.1, 0.0, 2.0, -0.3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the snapshot is that of another model.
    pub fn rewind(&self, arena: &mut Arena, snapshot: &Snapshot) -> Result<()> {
        arena.restore(snapshot)?;
        self.apply(arena)
    }
}

/// `ceil((alive - 1) share)`, whatever the last bits of the share are.
pub(crate) fn removal(alive: usize, share: f64) -> usize {
    let exact = alive.saturating_sub(1) as f64 * share;
    ((exact - 1e-9 * exact.max(1.0)).ceil().max(0.0) as usize).min(alive)
}

/// Whole parts of `count` in proportion to the sizes, by largest remainders; none exceeds its size.
fn apportion(count: usize, sizes: &[usize]) -> Vec<usize> {
    let total = sizes.iter().sum::<usize>().max(1) as u128;
    let exact = |size: usize| count as u128 * size as u128;
    let mut parts: Vec<usize> = sizes.iter().map(|&s| (exact(s) / total) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(exact(sizes[i]) % total), i));
    let left = count - parts.iter().sum::<usize>();
    order.into_iter().take(left).for_each(|i| parts[i] += 1);
    parts
}
