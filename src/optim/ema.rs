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
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// assert_eq!(average.params().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// arena.set_value(layer.weight(), &Tensor::full(&gpu, &[1, 2], 3.0)?)?;
    /// average.update(&arena, 0.75)?;
    /// assert_eq!(average.params().get(layer.weight()).to_vec()?, [1.5, 1.5]); // 0.75 * 1 + 0.25 * 3
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// assert!(average.params().tensors().iter().all(|t| !t.requires_grad()));
    /// arena.set_values(average.params())?; // at the end of a run
    /// # Ok::<(), Error>(())
    /// ```
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The averaged running statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let norm = BatchNorm2d::new(&mut names.root(), 1).momentum(1.0);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// norm.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[4.0, 8.0], &[2, 1])?)?; // their mean is 6
    /// average.update(&arena, 0.5)?;
    /// assert_eq!(average.buffers().by_name("running_mean")?.to_vec()?, [3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffers(&self) -> &Params {
        &self.stats
    }

    /// Evaluation with the averaged values and statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// arena.set_value(layer.weight(), &Tensor::full(&gpu, &[1, 2], 5.0)?)?;
    /// let x = Tensor::ones(&gpu, &[1, 2])?;
    /// assert_eq!(layer.forward(&average.eval(), &x)?.item()?, 2.0);
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &x)?.item()?, 10.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn eval(&self) -> Cx {
        Cx::new(self.params.clone(), self.stats.clone())
    }

    /// The averages as flat tensors, values and then statistics: what a checkpoint keeps, and what
    /// [`Arena::set_values_flat`] takes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let average = Ema::new(&arena)?;
    /// let (values, buffers) = average.flat();
    /// assert_eq!((values.numel(), buffers.numel()), (arena.table().floats(), 0));
    /// arena.set_values_flat(values)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn flat(&self) -> (&Tensor, &Tensor) {
        (&self.values, &self.buffers)
    }

    /// Sets the averages from flat values.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (average, later) = (Ema::new(&arena)?, Ema::new(&arena)?);
    /// let (values, buffers) = average.flat();
    /// later.load(&values.to_vec()?, &buffers.to_vec()?)?; // from a checkpoint
    /// assert!(later.load(&[1.0], &[]).is_err()); // of another length
    /// # Ok::<(), Error>(())
    /// ```
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
