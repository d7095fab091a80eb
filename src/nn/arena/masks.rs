//! Elements that stay zero.

use shadegrad_kernels::optim as k;

use crate::error::{Error, Result};
use crate::nn::{Arena, flat};
use crate::tensor::{DType, Tensor};

impl Arena {
    /// Holds the parameters that match to a mask of their shape: elements where it is 0 are set to 0 now and stay 0 in
    /// every optimiser step; their gradients count as 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 2, 2, false);
    /// let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_mask("fc.weight", &Tensor::eye(&gpu, 2)?)?;
    /// let w = arena.params().get(layer.weight()).to_vec()?;
    /// assert_eq!((w[1], w[2]), (0.0, 0.0)); // and they stay 0 in every step of an optimiser
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing matches, or a shape differs.
    pub fn set_mask(&mut self, pattern: &str, mask: &Tensor) -> Result<()> {
        let rows = self.table.matching(pattern)?;
        for &i in &rows {
            let e = &self.table.entries()[i];
            if e.shape != mask.shape() || mask.dtype() != DType::F32 {
                return Err(Error::Params(format!(
                    "the mask for `{}` {:?} is {mask:?}; it must be alike",
                    e.name, e.shape
                )));
            }
        }
        let all = match &self.mask {
            // A mask may be shared with a fork: each change makes a new one.
            Some(old) => {
                let new = Tensor::empty(&self.gpu, &[self.table.floats()], DType::F32, "mask")?;
                flat::copy_into(old, new.storage(), 0)?;
                new
            }
            None => Tensor::ones(&self.gpu, &[self.table.floats()])?,
        };
        for i in rows {
            flat::copy_into(mask, all.storage(), self.table.entries()[i].offset)?;
        }
        self.mask = Some(all);
        self.apply_mask()
    }

    /// Lifts all masks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_mask("fc.weight", &Tensor::from_slice(&gpu, &[1.0, 0.0], &[1, 2])?)?;
    /// arena.clear_masks(); // what was set to zero stays so until it is trained again
    /// assert!(arena.mask_flat().is_none());
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clear_masks(&mut self) {
        self.mask = None;
    }

    /// All masks as one flat tensor of zeros and ones, if there are any.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// assert!(arena.mask_flat().is_none());
    /// arena.set_mask("*.weight", &Tensor::from_slice(&gpu, &[1.0, 0.0], &[1, 2])?)?;
    /// let mask = arena.mask_flat().map(Tensor::to_vec).transpose()?;
    /// assert_eq!(mask.map(|m| m[..2].to_vec()), Some(vec![1.0, 0.0])); // it lies as the values do
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mask_flat(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    /// Sets all masks from what [`Arena::mask_flat`] gave: from a checkpoint.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// let magnitudes = Tensor::arange(&gpu, 0, arena.table().floats())?.cast(DType::F32)?;
    /// arena.set_mask_flat(&magnitudes.ge_scalar(1.0)?)?; // all but the first float
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If its length is not [`crate::nn::Table::floats`].
    pub fn set_mask_flat(&mut self, mask: &Tensor) -> Result<()> {
        if mask.shape() != self.values.shape() || mask.dtype() != DType::F32 {
            return Err(Error::Params(format!("the mask is {mask:?}, the arena {:?}", self.values)));
        }
        mask.same_gpu("set_mask_flat", &self.values)?;
        self.mask = Some(mask.detach());
        self.apply_mask()
    }

    /// Sets masked elements to zero: after values were written by anything but an optimiser.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_mask("fc.weight", &Tensor::from_slice(&gpu, &[1.0, 0.0], &[1, 2])?)?;
    /// arena.set_value(layer.weight(), &Tensor::full(&gpu, &[1, 2], 5.0)?)?; // past the mask
    /// arena.apply_mask()?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [5.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn apply_mask(&self) -> Result<()> {
        match &self.mask {
            Some(mask) => Ok(k::mask(&self.gpu, mask.storage(), self.values.storage(), self.table.floats())?),
            None => Ok(()),
        }
    }
}
