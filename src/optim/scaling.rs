//! Dynamic scaling of the loss.

use shadegrad_kernels::Gpu;
use shadegrad_kernels::mixed as k;

use crate::error::{Error, Result};
use crate::nn::Arena;
use crate::tensor::{DType, Tensor};

/// The factors that are used, both powers of two: they and their reciprocals are exact, and so is what they multiply
/// unless it leaves the range of f32.
const RANGE: [f32; 2] = [1.0 / 16_777_216.0, 16_777_216.0];

/// How the factor of the loss moves (Micikevicius et al., "Mixed precision training", 2018, section 3.2): it starts at
/// `init`, is halved at every step whose gradients hold a NaN or an infinity, and doubled after `patience` other steps in
/// a row, within 2^-24 and 2^24.
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let options = LossScaling { init: 1024.0, patience: 2 };
/// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?.loss_scaling(options)?;
/// for value in [f32::INFINITY, 1.0, 1.0] {
///     arena.set_grads_flat(&Tensor::full(&gpu, &[arena.table().floats()], value)?)?;
///     optimizer.step(&arena, 0.1)?;
/// }
/// assert_eq!(optimizer.loss_factor()?, Some(1024.0)); // halved by the first step, doubled after two good ones
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaling {
    /// First factor, a power of two.
    pub init: f32,
    /// Good steps in a row before the factor is doubled.
    pub patience: u32,
}

impl Default for LossScaling {
    /// 65536, doubled after 2000 steps.
    fn default() -> Self {
        Self { init: 65536.0, patience: 2000 }
    }
}

/// The factor and its counts, on the device.
pub(super) struct Scaler {
    options: LossScaling,
    /// Factor, reciprocal, good steps since it last changed, steps left out.
    pub(super) state: Tensor,
}

impl Scaler {
    pub(super) fn new(gpu: &Gpu, options: LossScaling) -> Result<Self> {
        let LossScaling { init, patience } = options;
        let exact = init.to_bits() & 0x007f_ffff == 0;
        if !(exact && (RANGE[0]..=RANGE[1]).contains(&init)) || patience == 0 {
            return Err(Error::value(
                "loss_scaling",
                format!("{options:?}: init must be a power of two from 2^-24 to 2^24, patience at least 1"),
            ));
        }
        Ok(Self { options, state: Tensor::from_slice(gpu, &[init, 1.0 / init, 0.0, 0.0], &[k::STATE])? })
    }

    /// The factor as a scalar: a view, so that it is what the last step made of it.
    pub(super) fn factor(&self) -> Result<Tensor> {
        let first = self.state.storage().view(0, 4);
        let first = first.ok_or_else(|| Error::value("loss_scaling", "the factor has no memory"))?;
        Tensor::from_storage(self.state.gpu(), first, &[], DType::F32)
    }

    pub(super) fn unscale(&self, arena: &Arena) -> Result<()> {
        let grads = arena.grads_flat();
        Ok(k::unscale(arena.gpu(), self.state.storage(), grads.storage(), grads.numel())?)
    }

    pub(super) fn follow(&self, scalars: &Tensor) -> Result<()> {
        let patience = self.options.patience;
        Ok(k::rescale(scalars.gpu(), scalars.storage(), self.state.storage(), patience, RANGE)?)
    }
}
