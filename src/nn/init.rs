//! First values of parameters, drawn on the host so that every device starts from the same bits.

use crate::rng::Philox;

/// Which number of connections a variance is divided by. For a weight `[out][in]` or `[out][kh][kw][in]`, fan-in is the
/// product of all dimensions but the first, fan-out that of all but the last.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let he = Init::KaimingUniform(Fan::In, 1.0); // three inputs: within +-sqrt(3 / 3)
/// let layer = Linear::with_init(&mut names.root(), 3, 64, he, None);
/// let w = Arena::new(&gpu, &names, 0)?.params().get(layer.weight()).to_vec()?;
/// assert!(w.iter().all(|v| v.abs() <= 1.0) && w.iter().any(|v| v.abs() > 0.9));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// Connections into one output: keeps the variance of activations.
    In,
    /// Connections out of one input: keeps the variance of gradients.
    Out,
}

/// How a parameter's first values are drawn. Formulas as in `torch.nn.init`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let mut root = names.root();
/// let ids = [root.param("a", &[2, 2], Init::Const(0.5)), root.param("b", &[2, 2], Init::Orthogonal(2.0))];
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let [a, b] = ids.map(|id| arena.params().get(id));
/// assert_eq!(a.to_vec()?, [0.5; 4]);
/// let product = b.matmul_t(b, false, true)?.to_vec()?; // 2^2 times the identity
/// assert!(product.iter().zip([4.0, 0.0, 0.0, 4.0]).all(|(p, want)| (p - want).abs() < 1e-5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All one value.
    Const(f32),
    /// Uniform in `low..high`.
    Uniform(f32, f32),
    /// Normal with this mean and standard deviation.
    Normal(f32, f32),
    /// Normal with mean 0 and this standard deviation, drawn again outside `-2..2` (an absolute bound, as PyTorch's and
    /// timm's `trunc_normal_` have it).
    TruncNormal(f32),
    /// Uniform in `+-gain * sqrt(3 / fan)` (He et al., 2015; gain is `sqrt(2)` for ReLU).
    KaimingUniform(Fan, f32),
    /// Normal with standard deviation `gain / sqrt(fan)`.
    KaimingNormal(Fan, f32),
    /// Uniform in `+-gain * sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, 2010).
    XavierUniform(f32),
    /// Normal with standard deviation `gain * sqrt(2 / (fan_in + fan_out))`.
    XavierNormal(f32),
    /// Uniform in `+-1 / sqrt(n)`: PyTorch's default of weights and biases of layers whose fan-in is `n`.
    FanIn(usize),
    /// Orthonormal rows, or columns where there are more rows, times `gain` (Saxe et al., 2013). The shape is read as
    /// `[first][all others]`.
    Orthogonal(f32),
}

/// Gain of Kaiming initialisation before a ReLU.
#[cfg(test)]
const RELU_GAIN: f32 = std::f32::consts::SQRT_2;

fn fans(shape: &[usize]) -> (f64, f64) {
    let product = |s: &[usize]| s.iter().product::<usize>().max(1) as f64;
    match shape {
        [] => (1.0, 1.0),
        [n] => (*n as f64, *n as f64),
        _ => (product(&shape[1..]), product(&shape[..shape.len() - 1])),
    }
}

/// FNV-1a, 64 bits: the random stream of a parameter follows from its name alone.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Init {
    /// Fills `out` with the first values of the parameter `name` of this shape. Each name has a random stream of its
    /// own: another parameter more or less does not change these.
    ///
    /// ```
    /// # use shadegrad::nn::Init;
    /// let (mut first, mut again, mut other) = ([0.0; 8], [0.0; 8], [0.0; 8]);
    /// Init::FanIn(4).fill(&mut first, "fc.weight", &[2, 4], 7); // seed 7
    /// Init::FanIn(4).fill(&mut again, "fc.weight", &[2, 4], 7);
    /// Init::FanIn(4).fill(&mut other, "fc2.weight", &[2, 4], 7);
    /// assert!(first == again && first != other);
    /// assert!(first.iter().all(|v| v.abs() <= 0.5)); // 1 / sqrt(4)
    /// ```
    pub fn fill(self, out: &mut [f32], name: &str, shape: &[usize], seed: u64) {
        let mut rng = Philox::new(seed, fnv1a(name));
        let (fan_in, fan_out) = fans(shape);
        let fan = |f| if f == Fan::In { fan_in } else { fan_out };
        let mut uniform = |out: &mut [f32], bound: f64| rng.fill_uniform(out, -bound as f32, bound as f32);
        match self {
            Self::Zeros => out.fill(0.0),
            Self::Ones => out.fill(1.0),
            Self::Const(v) => out.fill(v),
            Self::KaimingUniform(f, gain) => uniform(out, f64::from(gain) * (3.0 / fan(f)).sqrt()),
            Self::XavierUniform(gain) => uniform(out, f64::from(gain) * (6.0 / (fan_in + fan_out)).sqrt()),
            Self::FanIn(n) => uniform(out, 1.0 / (n.max(1) as f64).sqrt()),
            Self::Uniform(low, high) => rng.fill_uniform(out, low, high),
            Self::Normal(mean, std) => rng.fill_normal(out, mean.into(), std.into()),
            Self::KaimingNormal(f, gain) => rng.fill_normal(out, 0.0, f64::from(gain) / fan(f).sqrt()),
            Self::XavierNormal(gain) => rng.fill_normal(out, 0.0, f64::from(gain) * (2.0 / (fan_in + fan_out)).sqrt()),
            Self::TruncNormal(std) => out.fill_with(|| {
                loop {
                    let v = f64::from(std) * rng.normal();
                    if v.abs() <= 2.0 {
                        return v as f32;
                    }
                }
            }),
            Self::Orthogonal(gain) => orthogonal(out, shape.first().copied().unwrap_or(1), gain, &mut rng),
        }
    }
}

/// Gram-Schmidt, twice for accuracy, on normal vectors: the orthogonal factor of a QR decomposition whose signs are those
/// of the draws, so uniform among all orthogonal matrices.
fn orthogonal(out: &mut [f32], rows: usize, gain: f32, rng: &mut Philox) {
    if out.is_empty() {
        return;
    }
    let cols = out.len() / rows;
    let (count, len) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut v: Vec<f64> = (0..len).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            for b in &basis {
                let dot: f64 = b.iter().zip(&v).map(|(x, y)| x * y).sum();
                v.iter_mut().zip(b).for_each(|(x, y)| *x -= dot * y);
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        // A draw that lies in the span of the others has no direction left; the next one will.
        if norm > 1e-6 {
            basis.push(v.into_iter().map(|x| x / norm).collect());
        }
    }
    for (i, o) in out.iter_mut().enumerate() {
        let (r, c) = (i / cols, i % cols);
        *o = gain * if rows <= cols { basis[r][c] } else { basis[c][r] } as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(init: Init, shape: &[usize]) -> Vec<f32> {
        let mut v = vec![0.0; shape.iter().product()];
        init.fill(&mut v, "w", shape, 7);
        v
    }

    fn std(v: &[f32]) -> f64 {
        (v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / v.len() as f64).sqrt()
    }

    #[test]
    fn spreads() {
        let shape = [64, 3, 3, 32];
        for (init, want) in [
            (Init::KaimingNormal(Fan::In, RELU_GAIN), (2.0f64 / 288.0).sqrt()),
            (Init::KaimingNormal(Fan::Out, RELU_GAIN), (2.0f64 / 576.0).sqrt()),
            (Init::KaimingUniform(Fan::In, RELU_GAIN), (2.0f64 / 288.0).sqrt()),
            (Init::XavierNormal(1.0), (2.0f64 / 864.0).sqrt()),
            (Init::XavierUniform(1.0), (2.0f64 / 864.0).sqrt()),
            (Init::FanIn(288), (1.0f64 / 288.0 / 3.0).sqrt()),
            (Init::TruncNormal(0.02), 0.02),
            (Init::Uniform(-1.0, 1.0), (1.0f64 / 3.0).sqrt()),
        ] {
            let got = std(&draw(init, &shape));
            assert!((got / want - 1.0).abs() < 0.03, "{init:?}: {got} for {want}");
        }
        assert!(draw(Init::TruncNormal(3.0), &[1000]).iter().all(|v| v.abs() <= 2.0));
    }

    #[test]
    fn orthogonal_is() {
        for (rows, cols) in [(5, 12), (12, 5), (6, 6)] {
            let v = draw(Init::Orthogonal(2.0), &[rows, cols]);
            let k = rows.min(cols);
            for a in 0..k {
                for b in 0..k {
                    let dot: f64 = if rows <= cols {
                        (0..cols).map(|c| f64::from(v[a * cols + c]) * f64::from(v[b * cols + c])).sum()
                    } else {
                        (0..rows).map(|r| f64::from(v[r * cols + a]) * f64::from(v[r * cols + b])).sum()
                    };
                    let want = if a == b { 4.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{rows}x{cols} {a} {b} {dot}");
                }
            }
        }
    }

    #[test]
    fn a_name_is_a_stream() {
        let mut other = vec![0.0; 4];
        Init::Normal(0.0, 1.0).fill(&mut other, "v", &[4], 7);
        assert_ne!(draw(Init::Normal(0.0, 1.0), &[4]), other);
        assert_eq!(draw(Init::Normal(0.0, 1.0), &[4]), draw(Init::Normal(0.0, 1.0), &[4]));
    }
}
