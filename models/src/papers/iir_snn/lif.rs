//! The neuron: leaky integrate-and-fire with a threshold and a leak that are learned.

use shadegrad::nn::{Cx, Init, Module, ParamId, Scope};
use shadegrad::{Error, LifOptions, Result, Surrogate, Tensor};

const OP: &str = "Lif";

/// A layer of leaky integrate-and-fire neurons that share one threshold `V` and one leak `l`, both learned: parameters
/// `threshold` and `leak`, one element each. With currents `a_t` and a membrane that starts at `m_0 = 0`
///
/// ```text
/// u_t = l m_{t-1} + a_t        integrate
/// o_t = 1 if u_t / V - 1 > 0   fire; spikes are 0 or 1, never V
/// m_t = u_t - V o_t            reset within the step, so that the next one leaks the reset too
/// ```
///
/// Backward, the surrogate stands for the derivative of a spike with respect to `u / V - 1`, and the spike in the reset
/// is a constant while its `V` is not. All steps are one kernel each way ([`Tensor::lif`]).
#[derive(Clone, Debug)]
pub struct Lif {
    name: String,
    threshold: ParamId,
    leak: ParamId,
    options: LifOptions,
}

impl Lif {
    /// Neurons in this scope that start with threshold `v0` and leak `leak0`. The paper's surrogate is
    /// `Surrogate::Linear { gamma: 0.3 }`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::iir_snn::Lif;
    /// let mut names = Builder::new();
    /// let surrogate = Surrogate::Linear { gamma: 0.3 };
    /// Lif::new(&mut names.root().sub("neurons"), 1.0, 0.9, surrogate)?;
    /// assert!(names.tables()?.0.find("neurons.threshold").is_some());
    /// assert!(Lif::new(&mut names.root(), 0.0, 0.9, surrogate).is_err()); // no threshold
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `v0` is not positive or `leak0` is above 1.
    pub fn new(scope: &mut Scope<'_>, v0: f32, leak0: f32, surrogate: Surrogate) -> Result<Self> {
        if !(v0 > 0.0 && v0.is_finite()) {
            return Err(Error::value(OP, format!("a threshold of {v0}; it must be positive")));
        }
        if !(leak0 <= 1.0 && leak0.is_finite()) {
            return Err(Error::value(OP, format!("a leak of {leak0}; at most 1, above it a membrane grows by itself")));
        }
        Ok(Self {
            name: scope.name().to_string(),
            threshold: scope.param("threshold", &[1], Init::Const(v0)),
            leak: scope.param("leak", &[1], Init::Const(leak0)),
            options: LifOptions { surrogate, ..LifOptions::default() },
        })
    }

    /// The threshold.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::iir_snn::Lif;
    /// let mut names = Builder::new();
    /// let lif = Lif::new(&mut names.root().sub("neurons"), 0.5, 1.0, Surrogate::Linear { gamma: 0.3 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().get(lif.threshold()).to_vec()?, [0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn threshold(&self) -> ParamId {
        self.threshold
    }

    /// The leak.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::iir_snn::Lif;
    /// let mut names = Builder::new();
    /// let lif = Lif::new(&mut names.root().sub("neurons"), 1.0, 0.9, Surrogate::Linear { gamma: 0.3 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().get(lif.leak()).to_vec()?, [0.9]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn leak(&self) -> ParamId {
        self.leak
    }

    /// One step: spikes and the membrane after it, both of the current's shape. Without a membrane it starts at 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::iir_snn::Lif;
    /// let mut names = Builder::new();
    /// let lif = Lif::new(&mut names.root().sub("neurons"), 1.0, 1.0, Surrogate::Linear { gamma: 0.3 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, current) = (Cx::eval(&arena), Tensor::from_slice(&gpu, &[0.75], &[1])?);
    /// let (first, membrane) = lif.step(&cx, &current, None)?;
    /// let (second, membrane) = lif.step(&cx, &current, Some(&membrane))?;
    /// assert_eq!((first.item()?, second.item()?), (0.0, 1.0));
    /// assert_eq!(membrane.item()?, 0.5); // 0.75 + 0.75, less the threshold
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the membrane has another shape.
    pub fn step(&self, cx: &Cx, current: &Tensor, membrane: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let start = match membrane {
            Some(m) => m.clone(),
            None => Tensor::zeros(current.gpu(), current.shape())?,
        };
        let (spikes, membrane) = self.steps(cx, &current.reshape(&with_time(1, current.shape()))?, &start)?;
        Ok((cx.tap(&self.name, spikes.reshape(current.shape())?)?, membrane))
    }

    /// Some steps from a membrane `[..]` on: spikes `[T, ..]` of currents `[T, ..]`, and the last membrane.
    pub(super) fn steps(&self, cx: &Cx, currents: &Tensor, membrane: &Tensor) -> Result<(Tensor, Tensor)> {
        currents.lif_from(membrane, cx.param(self.threshold), cx.param(self.leak), &self.options)
    }

    /// The spikes of all steps for their currents, in one pass through time.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::iir_snn::Lif;
    /// let mut names = Builder::new();
    /// let lif = Lif::new(&mut names.root().sub("neurons"), 1.0, 1.0, Surrogate::Linear { gamma: 0.3 })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let currents = vec![Tensor::from_slice(&gpu, &[0.75, 2.0], &[2])?; 2];
    /// let spikes = lif.forward_seq(&Cx::eval(&arena), &currents)?;
    /// assert_eq!((spikes[0].to_vec()?, spikes[1].to_vec()?), (vec![0.0, 1.0], vec![1.0, 1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no currents or their shapes differ.
    pub fn forward_seq(&self, cx: &Cx, currents: &[Tensor]) -> Result<Vec<Tensor>> {
        let Some(first) = currents.first() else {
            return Err(Error::shape(OP, "a sequence of no steps; give at least one current"));
        };
        let spikes = self.forward(cx, &Tensor::stack(&currents.iter().collect::<Vec<_>>(), 0)?)?;
        (0..currents.len()).map(|t| spikes.slice(0, t, t + 1, 1)?.reshape(first.shape())).collect()
    }
}

impl Module for Lif {
    /// Takes currents `[T, ..]`, time first.
    fn forward(&self, cx: &Cx, currents: &Tensor) -> Result<Tensor> {
        cx.tap(&self.name, currents.lif(cx.param(self.threshold), cx.param(self.leak), &self.options)?)
    }
}

/// `[steps, ..shape]`.
pub(super) fn with_time(steps: usize, shape: &[usize]) -> Vec<usize> {
    [&[steps], shape].concat()
}
