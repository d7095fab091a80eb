//! Number formats of a training step.

use std::cell::Cell;

use crate::autograd::recording;
use crate::error::Result;
use crate::tensor::{DType, Tensor};
use crate::{Error, Gpu};

/// Number formats of a training step.
///
/// What happens in a mixed region ([`Precision::scope`]):
///
/// | what | stored | computed |
/// | --- | --- | --- |
/// | `conv2d`, `conv_transpose2d`, `matmul`, `linear` and their gradients | operands as halves | products exact, sums and results in f32 |
/// | inputs that batch, group, instance and layer norm, ReLU, leaky ReLU, GELU and SiLU keep for the backward pass | halves | in f32, from the halves |
/// | everything else | f32 | f32 |
/// | parameters, gradients of parameters, optimiser | f32 | f32 |
///
/// So results are `F32` tensors whatever the region, any model runs in it, and what lies between two layers during the
/// backward pass is about half as large. The gradient of a product's result is rounded to a half before it is multiplied:
/// multiply the loss by the optimiser's factor ([`crate::optim::Optimizer::scale_loss`]), or small gradients vanish.
///
/// [`crate::train::Trainer`] does all of this by [`crate::train::FitOptions::precision`]. In a loop of one's own:
///
/// ```no_run
/// use shadegrad::nn::{Arena, Cx, Module};
/// use shadegrad::optim::{LossScaling, Optimizer, Rule};
/// use shadegrad::{Precision, Result, Tensor};
///
/// fn train(arena: &Arena, model: &impl Module, x: &Tensor) -> Result<()> {
///     let mut optimizer = Optimizer::new(arena, Rule::adamw(0.05))?.loss_scaling(LossScaling::default())?;
///     for step in 0..1000 {
///         // The weights as halves, by one dispatch.
///         let cx = Cx::train(arena).with_params(&arena.params_with_halves()?).seeded(0, step);
///         let loss = Precision::Mixed.scope(|| model.forward(&cx, x)?.square()?.mean(&[0, 1], false))?;
///         arena.backward(&optimizer.scale_loss(&loss)?)?;
///         optimizer.step(arena, 1e-3)?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats throughout.
    #[default]
    F32,
    /// Products of halves summed in f32, activations kept as halves; see above.
    Mixed,
}

thread_local! {
    static NOW: Cell<Precision> = const { Cell::new(Precision::F32) };
}

impl Precision {
    /// Runs `f` with this precision on this thread. Backward passes need no region: they take what the forward pass kept.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::full(&gpu, &[1, 1], 1.0 + 1.0 / 4096.0)?; // more digits than a half has
    /// let squared = |p: Precision| p.scope(|| x.matmul(&x)?.item());
    /// assert_eq!(squared(Precision::Mixed)?, 1.0);
    /// assert!(squared(Precision::F32)? > 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Before(Precision);
        impl Drop for Before {
            fn drop(&mut self) {
                NOW.set(self.0);
            }
        }
        let _before = Before(NOW.replace(self));
        f()
    }

    /// The precision on this thread now.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!(Precision::now(), Precision::F32);
    /// assert_eq!(Precision::Mixed.scope(Precision::now), Precision::Mixed);
    /// ```
    pub fn now() -> Self {
        NOW.get()
    }

    /// What to train with on this device: mixed precision only where it has f16, else [`Precision::F32`] with a note that
    /// says so. (The kernels take halves as packed words and would run anywhere; a device without the type unpacks them
    /// in software, and saves memory at the cost of time.)
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (precision, note) = Precision::Mixed.on(&gpu);
    /// // Either the device has the type, or a note says why not.
    /// assert_eq!(precision == Precision::Mixed, gpu.caps().f16);
    /// assert_eq!(precision == Precision::F32, note.is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn on(self, gpu: &Gpu) -> (Self, Option<String>) {
        match self {
            Self::Mixed if !gpu.caps().f16 => {
                let name = &gpu.description().name;
                (Self::F32, Some(format!("{name} has no f16: mixed precision is off, the run is in f32")))
            }
            other => (other, None),
        }
    }
}

impl Tensor {
    /// The values as halves: those that came with the tensor, or rounded now. An operation's result is rounded once for
    /// all that read it, and all keep the same halves. A leaf or constant may be written to meanwhile, as the arena is.
    pub(crate) fn to_half(&self) -> Result<Tensor> {
        if self.dtype() == DType::F16 {
            return Ok(self.clone());
        }
        if let Some(half) = self.0.half.get() {
            return Ok(half.clone());
        }
        let half = self.cast(DType::F16)?;
        if half.requires_grad() && !self.is_leaf() {
            let _ = self.0.half.set(half.clone());
        }
        Ok(half)
    }

    /// What a backward rule keeps of an activation: itself, or its halves in a mixed region. `cast(F32)` gives it back.
    pub(crate) fn keep(&self) -> Result<Tensor> {
        if Precision::now() == Precision::Mixed && recording() && self.requires_grad() {
            return self.to_half();
        }
        Ok(self.clone())
    }
}

/// The operands of a product in one element type: halves in a mixed region, and where one of them is.
pub(crate) fn operands(op: &'static str, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    a.same_gpu(op, b)?;
    for t in [a, b] {
        if !matches!(t.dtype(), DType::F32 | DType::F16) {
            let detail = format!("takes F32 or F16, got {:?} of shape {:?}; cast it first", t.dtype(), t.shape());
            return Err(Error::DType { op, detail });
        }
    }
    if Precision::now() == Precision::Mixed || a.dtype() == DType::F16 || b.dtype() == DType::F16 {
        return Ok((a.to_half()?, b.to_half()?));
    }
    Ok((a.clone(), b.clone()))
}
