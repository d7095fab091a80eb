//! The plain network of several experiments.

use shadegrad::nn::{Cx, Fan, Init, Linear, Module, Scope};
use shadegrad::{Result, Tensor};

/// A multi-layer perceptron with ReLU, He-normal weights and biases that start at zero.
pub(crate) struct HeMlp(Vec<Linear>);

impl HeMlp {
    /// Layers between the given widths, inputs first and classes last, in `layers.0`, `layers.1` and so on.
    pub(crate) fn new(scope: &mut Scope<'_>, widths: &[usize]) -> Self {
        let he = Init::KaimingNormal(Fan::In, std::f32::consts::SQRT_2);
        let layer = |(i, w): (usize, &[usize])| {
            Linear::with_init(&mut scope.sub(format!("layers.{i}")), w[0], w[1], he, Some(Init::Zeros))
        };
        Self(widths.windows(2).enumerate().map(layer).collect())
    }
}

impl Module for HeMlp {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.flatten(1, x.rank() - 1)?;
        for (i, layer) in self.0.iter().enumerate() {
            x = if i == 0 { layer.forward(cx, &x)? } else { layer.forward(cx, &x.relu()?)? };
        }
        Ok(x)
    }
}
