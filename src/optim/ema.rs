//! Exponential moving average of a model's values.

use shadegrad_kernels::optim as k;

use crate::error::{Error, Result};
use crate::nn::{Arena, Cx, Params};
use crate::tensor::{DType, Tensor};

/// An exponential moving average of an arena's values and running statistics:
/// `average = decay average + (1 - decay) value`.
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Linear::new(&mut names.root(), 1, 1, false);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let average = Ema::new(&arena)?;
/// average.update(&arena, 0.99)?; // after every step
/// let cx = Cx::new(average.params().clone(), average.buffers().clone());
/// layer.forward(&cx, &Tensor::ones(&gpu, &[1, 1])?)?;
/// # Ok::<(), Error>(())
/// ```
pub struct Ema {
    values: Tensor,
    buffers: Tensor,
    params: Params,
    stats: Params,
}

impl Ema {
    /// An average that starts at the arena's values.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(arena: &Arena) -> Result<Self> {
        let copy = |t: &Tensor| {
            let new = Tensor::empty(t.gpu(), t.shape(), DType::F32, "average")?;
            t.gpu().copy(t.storage(), 0, new.storage(), 0, t.numel() as u64 * 4)?;
            Ok::<_, Error>(new)
        };
        let (values, buffers) = (copy(arena.values_flat())?, copy(arena.buffers_flat())?);
        let params = Params::from_flat(arena.table(), &values)?;
        let stats = Params::from_flat(arena.buffer_table(), &buffers)?;
        Ok(Self { values, buffers, params, stats })
    }

    /// Moves the average towards the arena's present values.
    ///
    /// # Errors
    /// If the decay is not within `0..=1`, the arena is that of another model, or the device refuses.
    pub fn update(&self, arena: &Arena, decay: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(Error::value("ema", format!("the decay {decay} is not within 0..=1")));
        }
        for (from, to) in [(arena.values_flat(), &self.values), (arena.buffers_flat(), &self.buffers)] {
            if from.shape() != to.shape() {
                return Err(Error::Params(format!("the average is {:?}, the arena {:?}", to.shape(), from.shape())));
            }
            if to.numel() > 0 {
                k::ema(to.gpu(), from.storage(), to.storage(), to.numel(), decay)?;
            }
        }
        Ok(())
    }

    /// The averaged values, as constants.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The averaged running statistics.
    pub fn buffers(&self) -> &Params {
        &self.stats
    }

    /// Evaluation with the averaged values and statistics.
    pub fn eval(&self) -> Cx {
        Cx::new(self.params.clone(), self.stats.clone())
    }

    /// The averages as flat tensors, values and then statistics: what a checkpoint keeps, and what
    /// [`Arena::set_values_flat`] takes.
    pub fn flat(&self) -> (&Tensor, &Tensor) {
        (&self.values, &self.buffers)
    }

    /// Sets the averages from flat values.
    ///
    /// # Errors
    /// If a length differs.
    pub fn load(&self, values: &[f32], buffers: &[f32]) -> Result<()> {
        for (data, to) in [(values, &self.values), (buffers, &self.buffers)] {
            if data.len() != to.numel() {
                return Err(Error::Params(format!("the average has {} floats, got {}", to.numel(), data.len())));
            }
            to.gpu().upload(to.storage(), bytemuck::cast_slice(data))?;
        }
        Ok(())
    }
}
