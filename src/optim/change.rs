//! How far parameters move in a step.

use shadegrad_kernels::Storage;
use shadegrad_kernels::change as k;

use crate::error::{Error, Result};
use crate::nn::{Arena, ParamId};
use crate::tensor::{DType, Tensor};

/// Floats of a block of the arena.
const BLOCK: usize = 64;

/// The values of some parameters before a step, to tell afterwards how far they moved relative to their size: one copy of
/// these parameters and three dispatches, however many they are.
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.5)));
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let ids = [layer.weight(), arena.params().id("fc.bias")?];
/// let before = RelativeChange::start(&arena, &ids)?;
/// arena.set_value(ids[0], &Tensor::from_slice(&gpu, &[0.5, 1.0], &[1, 2])?)?; // in place of a step
/// assert_eq!(before.measure(&arena, 1e-3)?, [0.25, 0.0]); // weight and bias
/// # Ok::<(), Error>(())
/// ```
pub struct RelativeChange {
    blocks: usize,
    places: Storage,
    before: Tensor,
    spans: Storage,
    tensors: usize,
}

impl RelativeChange {
    /// Keeps the values that the parameters `which` have now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let before = RelativeChange::start(&arena, &[layer.weight()])?; // before `Optimizer::step`
    /// assert_eq!(before.measure(&arena, 1e-3)?, [0.0]);
    /// assert!(RelativeChange::start(&arena, &[]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none, or the device refuses.
    pub fn start(arena: &Arena, which: &[ParamId]) -> Result<Self> {
        let (gpu, entries) = (arena.gpu(), arena.table().entries());
        let mut places = Vec::new();
        let mut spans = Vec::with_capacity(which.len());
        for id in which {
            let Some(e) = entries.get(id.index()) else {
                return Err(Error::Params(format!(
                    "parameter {} of {}; take ids of this model",
                    id.index(),
                    entries.len()
                )));
            };
            let count = e.len.max(1).div_ceil(BLOCK);
            spans.push([places.len() as u32, count as u32, e.len as u32, 0]);
            places.extend((0..count).map(|b| (e.offset / BLOCK + b) as u32));
        }
        if places.is_empty() {
            return Err(Error::value("relative_change", "no parameters; name at least one"));
        }
        let blocks = places.len();
        let places = gpu.alloc_from(&places, "change")?;
        let before = Tensor::empty(gpu, &[blocks * BLOCK], DType::F32, "values before a step")?;
        k::keep(gpu, (&places, blocks), arena.values_flat().storage(), before.storage())?;
        Ok(Self { blocks, places, before, tensors: spans.len(), spans: gpu.alloc_from(&spans, "change")? })
    }

    /// The mean over each parameter's elements of `|before - now| / max(|before|, least)`, in the order that was given.
    /// Waits for the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let bias = arena.params().id("fc.bias")?;
    /// let before = RelativeChange::start(&arena, &[bias])?;
    /// arena.set_value(bias, &Tensor::full(&gpu, &[1], 0.25)?)?;
    /// assert_eq!(before.measure(&arena, 0.5)?, [0.5]); // 0.25 / max(0, 0.5)
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `least` is not positive, or the device reported a fault.
    pub fn measure(&self, arena: &Arena, least: f32) -> Result<Vec<f32>> {
        if !(least > 0.0 && least.is_finite()) {
            return Err(Error::value("relative_change", format!("least {least}; give a small positive number")));
        }
        let mean = Tensor::empty(arena.gpu(), &[self.tensors], DType::F32, "change")?;
        k::mean(
            arena.gpu(),
            (&self.places, self.blocks),
            (arena.values_flat().storage(), self.before.storage()),
            (&self.spans, self.tensors),
            least,
            mean.storage(),
        )?;
        mean.to_vec()
    }
}
