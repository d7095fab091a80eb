//! Leaky integrate-and-fire neurons over time, after Chowdhury, Rathi and Roy (2021) with the usual variations.
//!
//! ```text
//! u_t = leak m_{t-1} + x_t           integrate
//! o_t = 1 if u_t / threshold > 1     fire, strictly above; spikes are 0 or 1
//! m_t = u_t - threshold o_t          or 0 where o_t = 1: reset, within the step
//! ```
//!
//! All steps are one kernel. Its backward pass replaces the derivative of a spike by a surrogate and computes the
//! membranes again instead of keeping them.

use shadegrad_kernels::spiking as k;
pub use shadegrad_kernels::spiking::Surrogate;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What a spike does to the membrane.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let currents = Tensor::from_slice(&gpu, &[1.75, 0.5], &[2, 1])?; // two steps of one neuron
/// let one = Tensor::scalar(&gpu, 1.0)?; // threshold and leak
/// let spikes = |reset: Reset| currents.lif(&one, &one, &LifOptions { reset, ..LifOptions::default() })?.to_vec();
/// assert_eq!(spikes(Reset::Subtract)?, [1.0, 1.0]); // 0.75 stays
/// assert_eq!(spikes(Reset::Zero)?, [1.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Subtracts the threshold.
    #[default]
    Subtract,
    /// Sets it to 0.
    Zero,
}

/// Choices of [`Tensor::lif`]. The default is that of Chowdhury et al.: surrogate `0.3 max(0, 1 - |z|)`, reset by
/// subtraction, its spike a constant in the backward pass.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::grad;
/// let options = LifOptions { surrogate: Surrogate::Atan { alpha: 2.0 }, ..LifOptions::default() };
/// let (current, one) = (Tensor::ones(&gpu, &[1, 1])?.leaf(), Tensor::scalar(&gpu, 1.0)?);
/// let spike = current.lif(&one, &one, &options)?; // just at the threshold
/// assert_eq!(spike.to_vec()?, [0.0]);
/// assert!((grad(&spike.sum_all()?, &[&current])?[0].item()? - 1.0).abs() < 1e-5); // alpha / 2
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LifOptions {
    /// Stands for the derivative of a spike.
    pub surrogate: Surrogate,
    /// What a spike does to the membrane.
    pub reset: Reset,
    /// Whether the spike in the reset is a constant in the backward pass. (A threshold that is subtracted has a gradient
    /// either way.)
    pub detach_reset: bool,
}

impl Default for LifOptions {
    fn default() -> Self {
        Self { surrogate: Surrogate::Linear { gamma: 0.3 }, reset: Reset::Subtract, detach_reset: true }
    }
}

impl Tensor {
    /// Spikes `[T, ..]` of neurons with the currents `[T, ..]`, starting from a membrane of 0. Threshold (positive) and
    /// leak have one element each; all three have gradients, by the surrogate. A second derivative does not exist:
    /// asking for one is an error.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let currents = Tensor::full(&gpu, &[4, 1], 0.6)?; // four steps of one neuron
    /// let (threshold, leak) = (Tensor::scalar(&gpu, 1.0)?, Tensor::scalar(&gpu, 1.0)?);
    /// // 0.6, 1.2: a spike, 0.2 stays; 0.8, 1.4: a spike.
    /// assert_eq!(currents.lif(&threshold, &leak, &LifOptions::default())?.to_vec()?, [0.0, 1.0, 0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a type is not `F32`, the currents have no time axis, threshold or leak has not one element, or a number of the
    /// surrogate is not positive.
    pub fn lif(&self, threshold: &Tensor, leak: &Tensor, options: &LifOptions) -> Result<Tensor> {
        self.lif_rows(None, threshold, leak, options)
    }

    /// [`Tensor::lif`] in pieces: starts from `membrane` `[..]` and also gives the membrane after the last step.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (one, start) = (Tensor::scalar(&gpu, 1.0)?, Tensor::from_slice(&gpu, &[0.5], &[1])?);
    /// let currents = Tensor::from_slice(&gpu, &[0.75, 0.5], &[2, 1])?;
    /// let (spikes, membrane) = currents.lif_from(&start, &one, &one, &LifOptions::default())?;
    /// assert_eq!((spikes.to_vec()?, membrane.to_vec()?), (vec![1.0, 0.0], vec![0.75])); // 1.25: a spike; 0.25 + 0.5
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::lif`]; also if the membrane has not the shape of one step.
    pub fn lif_from(
        &self,
        membrane: &Tensor,
        threshold: &Tensor,
        leak: &Tensor,
        options: &LifOptions,
    ) -> Result<(Tensor, Tensor)> {
        let rows = self.lif_rows(Some(membrane), threshold, leak, options)?;
        let steps = self.dim(0);
        Ok((rows.slice(0, 0, steps, 1)?, rows.slice(0, steps, steps + 1, 1)?.reshape(membrane.shape())?))
    }

    /// Spikes `[T, ..]` as bits, `U32` `[ceil(T / 32), ..]`: a 32nd of the memory for what is kept of long runs. Step `t`
    /// is bit `t % 32` of row `t / 32`; whatever is above 1/2 counts as a spike. No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let spikes = Tensor::from_slice(&gpu, &[1.0, 0.0, 1.0], &[3, 1])?; // three steps of one neuron
    /// let words = spikes.pack_spikes()?;
    /// assert_eq!((words.shape(), words.to_vec_u32()?), (&[1, 1][..], vec![0b101]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the type is not `F32` or there is no time axis.
    pub fn pack_spikes(&self) -> Result<Tensor> {
        const OP: &str = "pack_spikes";
        self.want(OP, DType::F32)?;
        let Some((&steps, neurons)) = self.shape().split_first() else {
            return Err(Error::shape(OP, "got a scalar; takes [T, ..] with time first"));
        };
        let mut shape = self.shape().to_vec();
        shape[0] = steps.div_ceil(k::WORD_STEPS);
        let words = Tensor::empty(self.gpu(), &shape, DType::U32, OP)?;
        if words.numel() > 0 {
            k::pack(self.gpu(), self.storage(), words.storage(), steps, neurons.iter().product())?;
        }
        Ok(words.record_cut("pack_spikes", &[self]))
    }

    /// The spikes of the first `steps` steps from what [`Tensor::pack_spikes`] gave.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let spikes = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[3, 2])?;
    /// assert_eq!(spikes.pack_spikes()?.unpack_spikes(3)?.to_vec()?, spikes.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the type is not `U32` or the rows are not those of so many steps.
    pub fn unpack_spikes(&self, steps: usize) -> Result<Tensor> {
        const OP: &str = "unpack_spikes";
        self.want(OP, DType::U32)?;
        let rows = steps.div_ceil(k::WORD_STEPS);
        let Some((_, neurons)) = self.shape().split_first().filter(|(r, _)| **r == rows) else {
            return Err(Error::shape(
                OP,
                format!(
                    "{:?} for {steps} steps, which take {rows} rows of words; give the steps that were packed",
                    self.shape()
                ),
            ));
        };
        let mut shape = self.shape().to_vec();
        shape[0] = steps;
        let spikes = Tensor::empty(self.gpu(), &shape, DType::F32, OP)?;
        if spikes.numel() > 0 {
            k::unpack(self.gpu(), self.storage(), spikes.storage(), steps, neurons.iter().product())?;
        }
        Ok(spikes.record_cut("unpack_spikes", &[self]))
    }

    /// The spikes, and with a membrane to start from one more row, the last membrane.
    fn lif_rows(
        &self,
        membrane: Option<&Tensor>,
        threshold: &Tensor,
        leak: &Tensor,
        options: &LifOptions,
    ) -> Result<Tensor> {
        const OP: &str = "lif";
        let Some((&steps, neurons)) = self.shape().split_first() else {
            return Err(Error::shape(OP, "the current is a scalar; takes [T, ..] with time first"));
        };
        for t in [Some(self), Some(threshold), Some(leak), membrane].into_iter().flatten() {
            t.want(OP, DType::F32)?;
            self.same_gpu(OP, t)?;
        }
        for (name, t) in [("threshold", threshold), ("leak", leak)] {
            if t.numel() != 1 {
                return Err(Error::shape(OP, format!("{name} is {:?}; takes one element for the layer", t.shape())));
            }
        }
        if let Some(m) = membrane.filter(|m| m.shape() != neurons) {
            return Err(Error::shape(
                OP,
                format!("the membrane is {:?}, currents {:?} take {neurons:?}", m.shape(), self.shape()),
            ));
        }
        let (Surrogate::Linear { gamma: width }
        | Surrogate::Atan { alpha: width }
        | Surrogate::Sigmoid { alpha: width }) = options.surrogate;
        if !(width > 0.0 && width.is_finite()) {
            return Err(Error::value(OP, format!("{:?}: its number must be positive", options.surrogate)));
        }
        let lif = k::Lif {
            steps,
            neurons: neurons.iter().product(),
            hard_reset: options.reset == Reset::Zero,
            through_reset: !options.detach_reset,
            surrogate: options.surrogate,
        };
        let mut shape = self.shape().to_vec();
        shape[0] += usize::from(membrane.is_some());
        let out = Tensor::empty(self.gpu(), &shape, DType::F32, OP)?;
        if out.numel() > 0 {
            let start = membrane.map(Tensor::storage);
            k::forward(self.gpu(), &lif, self.storage(), [threshold.storage(), leak.storage()], start, out.storage())?;
        }
        let saved = [Some(self), Some(threshold), Some(leak), membrane].map(|t| t.cloned());
        let inputs: Vec<&Tensor> = [Some(self), Some(threshold), Some(leak), membrane].into_iter().flatten().collect();
        Ok(out.record(OP, &inputs, move |ctx, grad| {
            let [Some(x), Some(threshold), Some(leak), start] = &saved else { return Ok(Vec::new()) };
            let grads = lif_gradients(&lif, x, threshold, leak, start.as_ref(), grad)?;
            let mut from: Vec<&Tensor> = vec![grad, x, threshold, leak];
            from.extend(start);
            Ok(grads.into_iter().enumerate().map(|(i, g)| ctx.needs(i).then(|| once(g, &from))).collect())
        }))
    }
}

/// A gradient that cannot be differentiated again: the surrogate is no derivative of anything.
fn once(grad: Tensor, from: &[&Tensor]) -> Tensor {
    const NAME: &str = "gradient of lif";
    grad.record(NAME, from, |_, _| {
        Err(Error::Gradient(
            "`lif` has a surrogate gradient, which has no derivative; take second derivatives only along paths without \
             spiking neurons, or detach them"
                .into(),
        ))
    })
}

/// Gradients for currents, threshold, leak and, if given, the first membrane.
fn lif_gradients(
    lif: &k::Lif,
    x: &Tensor,
    threshold: &Tensor,
    leak: &Tensor,
    start: Option<&Tensor>,
    grad: &Tensor,
) -> Result<Vec<Tensor>> {
    let like = |t: &Tensor| Tensor::empty(x.gpu(), t.shape(), DType::F32, "lif");
    let mut grads = vec![like(x)?, like(threshold)?, like(leak)?];
    if let Some(start) = start {
        grads.push(like(start)?);
    }
    if grad.numel() == 0 {
        // No neurons: nothing depends on threshold and leak.
        return Ok(vec![
            grads[0].clone(),
            Tensor::zeros(x.gpu(), threshold.shape())?,
            Tensor::zeros(x.gpu(), leak.shape())?,
        ]
        .into_iter()
        .chain(grads.get(3).cloned())
        .collect());
    }
    let started = start.map(|s| (s.storage(), grads[3].storage()));
    let (layer, layer_grads) = ([threshold.storage(), leak.storage()], [grads[1].storage(), grads[2].storage()]);
    k::backward(x.gpu(), lif, x.storage(), layer, started, grad.storage(), grads[0].storage(), layer_grads)?;
    Ok(grads)
}
