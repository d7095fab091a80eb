//! Masks: which weights of a linear layer exist.

use shadegrad::rng::Stream;
use shadegrad::{Error, Gpu, Result, SparsePattern, Tensor};

/// Which weights of a matrix `[outputs, inputs]` exist, on the host. A weight's position is `output * inputs + input`.
///
/// ```
/// use shadegrad_models::papers::shared::mask::Mask;
/// // Weights on the diagonal and in the last column.
/// let mask = Mask::from_fn(2, 3, |output, input| output == input || input == 2);
/// assert_eq!(mask.positions(), [0, 2, 4, 5]);
/// assert_eq!(mask.density(), 4.0 / 6.0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    outputs: usize,
    inputs: usize,
    on: Vec<bool>,
}

impl Mask {
    /// The mask with weights where `exists(output, input)` says so, asked row by row.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let lower = Mask::from_fn(3, 3, |output, input| input <= output);
    /// assert_eq!(lower.fan_in(), [1, 2, 3]);
    /// ```
    pub fn from_fn(outputs: usize, inputs: usize, mut exists: impl FnMut(usize, usize) -> bool) -> Self {
        let on = (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))).map(|(o, i)| exists(o, i)).collect();
        Self { outputs, inputs, on }
    }

    /// Each weight exists with the probability `p(output, input)`, independently. A probability of 1 or more is certain.
    ///
    /// ```
    /// # use shadegrad::rng::Stream;
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let even = Mask::bernoulli(2, 4, Stream::new(0, 0), |_, input| if input % 2 == 0 { 1.0 } else { 0.0 });
    /// assert_eq!(even.positions(), [0, 2, 4, 6]);
    /// ```
    pub fn bernoulli(outputs: usize, inputs: usize, stream: Stream, p: impl Fn(usize, usize) -> f64) -> Self {
        let mut rng = stream.philox();
        Self::from_fn(outputs, inputs, |o, i| rng.uniform_f64() < p(o, i))
    }

    /// A random graph after Erdos and Renyi: every weight exists with the same probability.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Stream;
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::erdos_renyi(100, 100, 0.25, Stream::new(0, 0))?;
    /// assert!((0.22..0.28).contains(&mask.density()));
    /// assert!(Mask::erdos_renyi(2, 2, 1.5, Stream::new(0, 0)).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the density does not lie in `0..=1`.
    pub fn erdos_renyi(outputs: usize, inputs: usize, density: f64, stream: Stream) -> Result<Self> {
        probability("erdos_renyi", "density", density)?;
        Ok(Self::bernoulli(outputs, inputs, stream, |_, _| density))
    }

    /// All weights exist.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::full(2, 3).active(), 6);
    /// ```
    pub fn full(outputs: usize, inputs: usize) -> Self {
        Self { outputs, inputs, on: vec![true; outputs * inputs] }
    }

    /// Rows of the matrix.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::full(2, 3).outputs(), 2);
    /// ```
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::full(2, 3).inputs(), 3);
    /// ```
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether a weight exists.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::from_fn(2, 3, |output, input| output == 0 && input == 2);
    /// assert!(mask.get(0, 2) && !mask.get(1, 2));
    /// ```
    ///
    /// # Panics
    /// If there is no such row or column.
    pub fn get(&self, output: usize, input: usize) -> bool {
        assert!(input < self.inputs, "input {input} of {}", self.inputs);
        self.on[output * self.inputs + input]
    }

    /// Whether each position has a weight.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// assert_eq!(mask.as_slice(), [true, false, false, true]);
    /// ```
    pub fn as_slice(&self) -> &[bool] {
        &self.on
    }

    /// Number of weights.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::from_fn(4, 4, |output, input| output == input).active(), 4);
    /// ```
    pub fn active(&self) -> usize {
        self.on.iter().filter(|on| **on).count()
    }

    /// Share of positions that are weights; 0 for a matrix without elements.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::from_fn(4, 4, |output, input| output == input).density(), 0.25);
    /// ```
    pub fn density(&self) -> f64 {
        self.active() as f64 / self.on.len().max(1) as f64
    }

    /// The positions of the weights, rising.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// // `output * inputs + input`.
    /// assert_eq!(Mask::from_fn(2, 3, |output, _| output == 1).positions(), [3, 4, 5]);
    /// ```
    pub fn positions(&self) -> Vec<u32> {
        self.where_on(true)
    }

    /// The positions without a weight, rising.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// assert_eq!(Mask::from_fn(2, 3, |output, _| output == 1).holes(), [0, 1, 2]);
    /// ```
    pub fn holes(&self) -> Vec<u32> {
        self.where_on(false)
    }

    fn where_on(&self, wanted: bool) -> Vec<u32> {
        let indexed = self.on.iter().enumerate();
        indexed.filter(|(_, on)| **on == wanted).map(|(at, _)| at as u32).collect()
    }

    /// The number of weights in each row.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::from_fn(2, 3, |output, input| output == 0 || input == 1);
    /// assert_eq!(mask.fan_in(), [3, 1]);
    /// ```
    pub fn fan_in(&self) -> Vec<usize> {
        let row = |o: usize| self.on[o * self.inputs..][..self.inputs].iter().filter(|on| **on).count();
        (0..self.outputs).map(row).collect()
    }

    /// The mask without the weights at `remove` and with those at `add`; a position in both is there afterwards.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// let moved = mask.changed(&[0], &[1])?;
    /// assert_eq!(moved.positions(), [1, 3]);
    /// assert!(mask.changed(&[4], &[]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a position lies outside.
    pub fn changed(&self, remove: &[u32], add: &[u32]) -> Result<Self> {
        let mut new = self.clone();
        for (positions, on) in [(remove, false), (add, true)] {
            for &at in positions {
                let Some(slot) = new.on.get_mut(at as usize) else {
                    let [o, i] = [self.outputs, self.inputs];
                    return Err(Error::value("mask", format!("position {at} in a mask [{o}, {i}]; it lies outside")));
                };
                *slot = on;
            }
        }
        Ok(new)
    }

    /// Ones and zeros `[outputs, inputs]` on the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let ones = Mask::from_fn(2, 2, |output, input| output == input).tensor(&gpu)?;
    /// assert_eq!(ones.to_vec()?, [1.0, 0.0, 0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn tensor(&self, gpu: &Gpu) -> Result<Tensor> {
        let values: Vec<f32> = self.on.iter().map(|&on| f32::from(u8::from(on))).collect();
        Tensor::from_slice(gpu, &values, &[self.outputs, self.inputs])
    }

    /// For [`Tensor::sparse_linear`], which works on the weights that exist alone.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::mask::Mask;
    /// let mask = Mask::from_fn(2, 2, |output, input| output == input);
    /// let x = Tensor::from_slice(&gpu, &[1.0, 10.0], &[1, 2])?;
    /// // Two weights, 3 and 4, on the diagonal.
    /// let values = Tensor::from_slice(&gpu, &[3.0, 4.0], &[2])?;
    /// assert_eq!(x.sparse_linear(&values, &mask.pattern(&gpu)?, None)?.to_vec()?, [3.0, 40.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn pattern(&self, gpu: &Gpu) -> Result<SparsePattern> {
        SparsePattern::new(gpu, self.outputs, self.inputs, &self.positions())
    }
}

/// Refuses what is no probability.
///
/// # Errors
/// If `p` does not lie in `0..=1`.
pub(crate) fn probability(op: &'static str, what: &str, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::value(op, format!("{what} {p}; it must lie between 0 and 1")))
}

/// The `n` positions of lowest key, all where there are fewer: exactly that many, ties going to the lower position.
/// Rising by position.
pub(crate) fn lowest(positions: &[u32], n: usize, key: impl Fn(u32) -> f32) -> Vec<u32> {
    let mut keyed: Vec<(f32, u32)> = positions.iter().map(|&at| (key(at), at)).collect();
    if n < keyed.len() {
        keyed.select_nth_unstable_by(n, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        keyed.truncate(n);
    }
    let mut chosen: Vec<u32> = keyed.into_iter().map(|k| k.1).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_position_and_exactly_n_are_chosen() {
        let keys = [3.0, 0.0, 0.0, 0.0, -0.5, 0.0];
        let key = |at: u32| keys[at as usize];
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(lowest(&all, 3, key), [1, 2, 4]);
        assert!(lowest(&all, 0, key).is_empty());
        assert_eq!(lowest(&all, 9, key), all);
        assert_eq!(lowest(&all, 2, |at| -key(at)), [0, 1]);
    }

    #[test]
    fn changes_and_counts() {
        let m = Mask::from_fn(2, 3, |o, i| o == 0 || i == 2);
        assert_eq!((m.active(), m.positions(), m.holes()), (4, vec![0, 1, 2, 5], vec![3, 4]));
        assert_eq!(m.fan_in(), [3, 1]);
        assert!(m.get(1, 2) && !m.get(1, 0));
        let new = m.changed(&[0, 5], &[3, 5]).unwrap();
        assert_eq!(new.positions(), [1, 2, 3, 5]);
        assert!(m.changed(&[6], &[]).unwrap_err().to_string().contains("position 6"));
        assert!(Mask::erdos_renyi(2, 2, 1.5, Stream::new(0, 0)).unwrap_err().to_string().contains("density 1.5"));
        assert_eq!(Mask::erdos_renyi(3, 4, 1.0, Stream::new(0, 0)).unwrap(), Mask::full(3, 4));
    }
}
