//! Random tensors, dropout and stochastic depth.
//!
//! Nothing here has hidden state: a [`Stream`] names the numbers, element `i` (row-major) takes word `i` of it. A mask is
//! never stored; the backward pass draws it again.

use shadegrad_kernels::{Gpu, random as k};

use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::tensor::{DType, Tensor};

fn source(s: Stream) -> k::Source {
    k::Source { seed: s.seed, stream: s.stream }
}

/// Checks a probability.
fn probability(op: &'static str, p: f32) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::value(op, format!("p = {p} is not a probability; give a number from 0 to 1")))
}

impl Tensor {
    /// The words of a stream as they are (`U32`).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::{Philox, Stream};
    /// let words = Tensor::random_bits(&gpu, &[2], Stream::new(7, 0))?.to_vec_u32()?;
    /// let mut host = Philox::new(7, 0); // the same words on the processor
    /// assert_eq!(words, [host.next_u32(), host.next_u32()]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses; so for all functions here.
    pub fn random_bits(gpu: &Gpu, shape: &[usize], s: Stream) -> Result<Tensor> {
        let out = Self::empty(gpu, shape, DType::U32, "random_bits")?;
        if out.numel() > 0 {
            k::bits(gpu, source(s), out.storage(), out.numel())?;
        }
        Ok(out)
    }

    /// Uniform in `[lo, hi)`: `lo + (hi - lo) u` with `u` the upper 24 bits of the word over 2^24. For 0 and 1 the same
    /// bits on every device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::{Philox, Stream};
    /// let x = Tensor::uniform(&gpu, &[2, 3], Stream::new(7, 0), 0.0, 1.0)?.to_vec()?;
    /// let mut host = Philox::new(7, 0);
    /// assert!(x.iter().all(|v| *v == host.uniform()));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the interval is not finite or reversed.
    pub fn uniform(gpu: &Gpu, shape: &[usize], s: Stream, lo: f32, hi: f32) -> Result<Tensor> {
        if !(lo.is_finite() && hi.is_finite() && (hi - lo).is_finite() && lo <= hi) {
            return Err(Error::value("uniform", format!("the interval {lo}..{hi} is not finite or reversed")));
        }
        let out = Self::empty(gpu, shape, DType::F32, "uniform")?;
        if out.numel() > 0 {
            k::uniform(gpu, source(s), out.storage(), out.numel(), lo, hi)?;
        }
        Ok(out)
    }

    /// Normal with the given mean and standard deviation, by pairs of words (Box and Muller, 1958). Equal across devices
    /// up to rounding of logarithm and root.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::Stream;
    /// let stream = || Stream::new(7, 0); // seed and number
    /// let (a, b) = (Tensor::normal(&gpu, &[100], stream(), 0.0, 1.0)?, Tensor::normal(&gpu, &[100], stream(), 0.0, 1.0)?);
    /// assert_eq!(a.to_vec()?, b.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the standard deviation is negative or either is not finite.
    pub fn normal(gpu: &Gpu, shape: &[usize], s: Stream, mean: f32, std: f32) -> Result<Tensor> {
        if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
            return Err(Error::value(
                "normal",
                format!("mean {mean}, standard deviation {std}: both must be finite, the latter not negative"),
            ));
        }
        let out = Self::empty(gpu, shape, DType::F32, "normal")?;
        if out.numel() > 0 {
            k::normal(gpu, source(s), out.storage(), out.numel(), mean, std)?;
        }
        Ok(out)
    }

    /// 1 with probability `p`, else 0: where [`Tensor::uniform`] of the same stream is below `p`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::Stream;
    /// let coins = Tensor::bernoulli(&gpu, &[1000], Stream::new(7, 0), 0.25)?;
    /// assert!(coins.to_vec()?.iter().all(|c| *c == 0.0 || *c == 1.0));
    /// assert!((coins.mean_all()?.item()? - 0.25).abs() < 0.06);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `p` is not a probability.
    pub fn bernoulli(gpu: &Gpu, shape: &[usize], s: Stream, p: f32) -> Result<Tensor> {
        probability("bernoulli", p)?;
        let out = Self::empty(gpu, shape, DType::F32, "bernoulli")?;
        if out.numel() > 0 {
            k::bernoulli(gpu, source(s), out.storage(), out.numel(), p)?;
        }
        Ok(out)
    }

    /// The numbers `0..n` in random order (`U32`): the order that sorts [`Tensor::uniform`] of the stream, equal numbers
    /// keeping theirs.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::Stream;
    /// let order = Tensor::permutation(&gpu, 5, Stream::new(7, 0))?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0, 3.0, 4.0], &[5])?;
    /// let shuffled = x.index_select(0, &order)?;
    /// assert_eq!(shuffled.sort(0, false)?.0.to_vec()?, x.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn permutation(gpu: &Gpu, n: usize, s: Stream) -> Result<Tensor> {
        Self::uniform(gpu, &[n], s, 0.0, 1.0)?.argsort(0, false)
    }

    /// 0 where [`Tensor::uniform`] of the stream is below `p`, `x / (1 - p)` elsewhere (Srivastava et al., 2014). Give
    /// every layer and step a stream of its own; the same one gives the same mask.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::Stream;
    /// let y = Tensor::ones(&gpu, &[1000])?.dropout(0.5, Stream::new(7, 0))?.to_vec()?;
    /// assert!(y.iter().all(|v| *v == 0.0 || *v == 2.0)); // the mean stays
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `p` is not a probability or the tensor is not `F32`.
    pub fn dropout(&self, p: f32, s: Stream) -> Result<Tensor> {
        self.drop_runs("dropout", p, s, 1)
    }

    /// [`Tensor::dropout`] of whole samples, one decision for each index of the first axis: stochastic depth (Huang et
    /// al., 2016) when applied to the branch of a residual block.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::rng::Stream;
    /// let branch = Tensor::ones(&gpu, &[4, 3])?; // four samples
    /// let y = branch.drop_path(0.5, Stream::new(7, 0))?.to_vec()?;
    /// assert!(y.chunks(3).all(|sample| sample == [0.0; 3] || sample == [2.0; 3]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::dropout`]; also for a tensor without dimensions.
    pub fn drop_path(&self, p: f32, s: Stream) -> Result<Tensor> {
        let Some(samples) = self.shape().first() else {
            return Err(Error::shape("drop_path", "got a scalar; the first axis must count the samples"));
        };
        self.drop_runs("drop_path", p, s, self.numel() / (*samples).max(1))
    }

    /// The linear map behind both; it is its own adjoint.
    fn drop_runs(&self, op: &'static str, p: f32, s: Stream, inner: usize) -> Result<Tensor> {
        probability(op, p)?;
        self.want(op, DType::F32)?;
        if p == 0.0 {
            return Ok(self.clone());
        }
        let out = Self::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            k::drop(self.gpu(), source(s), self.storage(), out.storage(), out.numel(), inner, p)?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.drop_runs(op, p, s, inner)?)])))
    }
}
