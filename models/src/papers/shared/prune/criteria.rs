//! Scores: the lower, the sooner a weight goes.

use shadegrad::nn::Arena;
use shadegrad::rng::Stream;
use shadegrad::{Result, Tensor};

use super::PruneMasks;

/// What a weight's score is made of. Masked weights score 0.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::shared::prune::{Criterion, PruneMasks};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[1, 2], Init::Zeros);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
/// // A model with the weights [3, -1].
/// let masks = PruneMasks::of_matrices(&arena)?;
/// assert_eq!(masks.scores(&arena, Criterion::Magnitude)?, [3.0, 1.0]);
/// // The largest of a layer scores 1, the other 1 / (9 + 1).
/// assert_eq!(masks.scores(&arena, Criterion::Lamp)?, [1.0, 0.1]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// `|w|` (Han et al., 2015).
    Magnitude,
    /// `|w g|` with the arena's gradients as they are (connection sensitivity; SNIP, Lee et al., 2019). Take
    /// [`Arena::backward`] of a loss first.
    Gradient,
    /// `w^2` over the sum of the squares of the layer's weights that are not smaller (LAMP, Lee et al., 2021): a layer's
    /// largest weight scores 1, so that no layer goes before the others are down to one weight.
    Lamp,
    /// At random, with this seed.
    Random(u64),
}

impl PruneMasks {
    /// The score of every weight of the pool; read from the device at once.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Criterion, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[1, 2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
    /// // A model with the weights [3, -1].
    /// arena.backward(&arena.params().get(w).square()?.sum_all()?)?; // gradients [6, -2]
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// assert_eq!(masks.scores(&arena, Criterion::Gradient)?, [18.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another model, or the device refuses.
    pub fn scores(&self, arena: &Arena, criterion: Criterion) -> Result<Vec<f32>> {
        let weights = || self.pool(arena.values_flat());
        match criterion {
            Criterion::Magnitude => Ok(weights()?.into_iter().map(f32::abs).collect()),
            Criterion::Gradient => {
                let grads = self.pool(arena.grads_flat())?;
                Ok(weights()?.into_iter().zip(grads).map(|(w, g)| (w * g).abs()).collect())
            }
            Criterion::Lamp => Ok(self.lamp(&weights()?)),
            Criterion::Random(seed) => {
                let mut rng = Stream::new(seed, 0x5052_0000_0000_0000).philox();
                Ok((0..self.len()).map(|_| rng.uniform_f64() as f32).collect())
            }
        }
    }

    /// LAMP scores of weights, layer by layer over those that are left.
    fn lamp(&self, weights: &[f32]) -> Vec<f32> {
        let mut scores = vec![0.0; weights.len()];
        for (_, range) in self.spans() {
            let mut order: Vec<usize> = range.filter(|&at| self.on[at]).collect();
            order.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()).then(b.cmp(&a)));
            let mut sum = 0.0f64;
            for at in order {
                let square = f64::from(weights[at]).powi(2);
                sum += square;
                scores[at] = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
            }
        }
        scores
    }
}

/// Movement of weights in training, `-sum_t w_t g_t` (Sanh et al., 2020): high for those that go away from 0. It is summed
/// on the device.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::shared::prune::{Movement, PruneMasks};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[1, 2], Init::Zeros);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
/// // A model with the weights [3, -1].
/// let mut movement = Movement::new(&arena)?;
/// arena.backward(&arena.params().get(w).square()?.sum_all()?)?; // gradients [6, -2]
/// movement.add(&arena)?;
/// // Both go towards 0, the first one faster.
/// assert_eq!(movement.scores(&PruneMasks::of_matrices(&arena)?)?, [-18.0, -2.0]);
/// # Ok::<(), Error>(())
/// ```
pub struct Movement {
    sum: Tensor,
}

impl Movement {
    /// Nothing has moved yet.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Movement, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[1, 2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
    /// // A model with the weights [3, -1].
    /// let movement = Movement::new(&arena)?;
    /// assert_eq!(movement.scores(&PruneMasks::of_matrices(&arena)?)?, [0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(arena: &Arena) -> Result<Self> {
        Ok(Self { sum: Tensor::zeros(arena.gpu(), &[arena.table().floats()])? })
    }

    /// Adds the arena's values times gradients: after every backward pass, before the optimiser's step. (After it, as in
    /// [`shadegrad::train::Hooks::stepped`], the values are those of the next step, which differ by the rate.)
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Movement, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[1, 2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
    /// // A model with the weights [3, -1].
    /// let mut movement = Movement::new(&arena)?;
    /// arena.backward(&arena.params().get(w).sum_all()?.neg()?)?; // gradients [-1, -1]
    /// movement.add(&arena)?;
    /// movement.add(&arena)?;
    /// assert_eq!(movement.scores(&PruneMasks::of_matrices(&arena)?)?, [6.0, -2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another model, or the device refuses.
    pub fn add(&mut self, arena: &Arena) -> Result<()> {
        self.sum = self.sum.sub(&arena.values_flat().mul(arena.grads_flat())?)?;
        Ok(())
    }

    /// The scores so far.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Movement, Pooling, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[1, 2], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[3.0, -1.0], &[1, 2])?)?;
    /// // A model with the weights [3, -1].
    /// let mut movement = Movement::new(&arena)?;
    /// arena.backward(&arena.params().get(w).sum_all()?)?;
    /// movement.add(&arena)?;
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// let scores = movement.scores(&masks)?;
    /// assert_eq!(masks.remove_lowest(&scores, 1, Pooling::Global)?, [0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the masks are those of another model.
    pub fn scores(&self, masks: &PruneMasks) -> Result<Vec<f32>> {
        masks.pool(&self.sum)
    }
}
