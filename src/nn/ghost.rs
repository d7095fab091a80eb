//! Batch normalisation over parts of a batch.

use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::nn::{BatchNorm2d, Cx, Module, Scope, Stats};
use crate::tensor::Tensor;

/// Into what a batch is cut.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// let mut layer = |name: &str, ghosts| GhostBatchNorm::new(&mut names.root().sub(name), 8, ghosts);
/// assert_eq!(layer("a", Ghosts::Size(4))?.pieces(12), [4, 4, 4]);
/// assert_eq!(layer("b", Ghosts::Pieces(2))?.pieces(12), [6, 6]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ghosts {
    /// Ghost batches of this many samples: `max(1, floor(batch / size))` pieces.
    Size(usize),
    /// This many pieces whatever the batch, as gradient accumulation over a batch cut in pieces has it.
    Pieces(usize),
}

/// Ghost batch normalisation of `[N, .., C]` (Hoffer, Hubara and Soudry, "Train longer, generalize better", 2017): in
/// training each piece of the batch is normalised by its own statistics, and the running statistics follow every piece in
/// turn. In evaluation it is [`BatchNorm2d`], with the same parameters and buffers under the same names.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let layer = GhostBatchNorm::new(&mut names.root(), 1, Ghosts::Size(2))?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::from_slice(&gpu, &[0.0, 2.0, 10.0, 30.0], &[4, 1])?;
/// let y = layer.forward(&Cx::train(&arena), &x)?.round()?; // each pair by its own mean and variance
/// assert_eq!(y.to_vec()?, [-1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GhostBatchNorm {
    norm: BatchNorm2d,
    ghosts: Ghosts,
}

impl GhostBatchNorm {
    /// A layer with PyTorch's defaults of batch norm.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = GhostBatchNorm::new(&mut names.root().sub("bn1"), 16, Ghosts::Size(32))?;
    /// assert_eq!(layer.pieces(128), [32; 4]);
    /// assert!(GhostBatchNorm::new(&mut names.root().sub("bn2"), 16, Ghosts::Size(0)).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the size or the number of pieces is 0.
    pub fn new(scope: &mut Scope<'_>, channels: usize, ghosts: Ghosts) -> Result<Self> {
        Self::over(BatchNorm2d::new(scope, channels), ghosts)
    }

    /// Cuts the batches of a layer that exists.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let norm = BatchNorm2d::new(&mut names.root().sub("bn1"), 16).momentum(0.05);
    /// let layer = GhostBatchNorm::over(norm, Ghosts::Pieces(4))?;
    /// assert_eq!(layer.pieces(128), [32; 4]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GhostBatchNorm::new`].
    pub fn over(norm: BatchNorm2d, ghosts: Ghosts) -> Result<Self> {
        if matches!(ghosts, Ghosts::Size(0) | Ghosts::Pieces(0)) {
            return Err(Error::value("GhostBatchNorm", format!("{ghosts:?}: give at least 1")));
        }
        Ok(Self { norm, ghosts })
    }

    /// Lengths of the pieces of a batch of `samples`: equal, but for a shorter last one. There may be fewer than asked for.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = GhostBatchNorm::new(&mut names.root(), 16, Ghosts::Size(4))?;
    /// assert_eq!(layer.pieces(10), [5, 5]); // floor(10 / 4) pieces
    /// assert_eq!(layer.pieces(11), [6, 5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn pieces(&self, samples: usize) -> Vec<usize> {
        let count = match self.ghosts {
            Ghosts::Size(size) => samples / size,
            Ghosts::Pieces(count) => count,
        };
        let len = samples.div_ceil(count.max(1)).max(1);
        (0..samples).step_by(len).map(|start| len.min(samples - start)).collect()
    }

    /// Normalises `count` equal pieces of `x` in one pass: they become channels beside the channels.
    fn normalise(&self, cx: &Cx, x: &Tensor, count: usize) -> Result<Tensor> {
        let channels = x.dim(x.rank() - 1);
        let rows = x.numel() / (count * channels).max(1);
        let side_by_side =
            x.reshape(&[count, rows, channels])?.permute(&[1, 0, 2])?.reshape(&[rows, count * channels])?;
        let out = side_by_side.batch_norm(None, None, self.norm.epsilon())?;
        if cx.stats() == Stats::Update && rows > 1 {
            no_grad(|| self.follow(cx, &out.mean, &out.var, (count, rows, channels)))?;
        }
        out.y.reshape(&[rows, count, channels])?.permute(&[1, 0, 2])?.reshape(x.shape())
    }

    /// The running statistics after one update for each piece: `(1 - a)^n` of the old ones and a weighted mean of the
    /// pieces'.
    fn follow(
        &self,
        cx: &Cx,
        mean: &Tensor,
        var: &Tensor,
        (count, rows, channels): (usize, usize, usize),
    ) -> Result<()> {
        let a = f64::from(self.norm.share());
        let taken = 1.0 - (1.0 - a).powi(count as i32);
        let weights: Vec<f32> =
            (0..count).map(|j| (a * (1.0 - a).powi((count - 1 - j) as i32) / taken) as f32).collect();
        let weights = Tensor::from_slice(mean.gpu(), &weights, &[count, 1])?;
        let weighted = |t: &Tensor| t.reshape(&[count, channels])?.mul(&weights)?.sum(&[0], false);
        self.norm.follow(cx, (&weighted(mean)?, &weighted(var)?), rows, taken as f32)
    }
}

impl Module for GhostBatchNorm {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let pieces = if cx.stats() == Stats::Running || x.rank() < 2 { Vec::new() } else { self.pieces(x.dim(0)) };
        let [first, .., last] = pieces[..] else { return self.norm.forward(cx, x) };
        let x = &cx.enter(self.norm.name(), x)?;
        let equal = if last == first { pieces.len() } else { pieces.len() - 1 };
        let mut y = self.normalise(cx, &x.narrow(0, 0, equal * first)?, equal)?;
        if last != first {
            let rest = self.normalise(cx, &x.narrow(0, equal * first, last)?, 1)?;
            y = Tensor::concat(&[&y, &rest], 0)?;
        }
        let (Some(gamma), Some(beta)) = (self.norm.weight(), self.norm.bias()) else {
            return cx.tap(self.norm.name(), y);
        };
        cx.tap(self.norm.name(), y.mul(cx.param(gamma))?.add(cx.param(beta))?)
    }
}
