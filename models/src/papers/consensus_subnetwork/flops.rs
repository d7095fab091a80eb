//! Operations of a network, counted by running it once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Cx, Module};
use shadegrad::{Result, Tensor};

/// Floating-point operations (two for a multiply-add) of every convolution and linear layer of `model`, by name, for one of
/// the samples `x` `[B, ..]`. Everything else is not counted, as is usual.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{ResidualMlp, Shape, flops};
/// let mut names = Builder::new();
/// let model = ResidualMlp::new(&mut names.root(), &Shape::full(), 64, 8, 1, 3);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let counts = flops(&model, &Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 64])?)?;
/// assert_eq!(counts[0], ("stem".into(), 2.0 * 64.0 * 8.0));
/// assert_eq!(counts.iter().map(|c| c.1).sum::<f64>(), 1024.0 + 2.0 * 128.0 + 48.0);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of the model.
pub fn flops(model: &dyn Module, cx: &Cx, x: &Tensor) -> Result<Vec<(String, f64)>> {
    let weights: HashMap<String, Vec<usize>> = (cx.params().iter())
        .filter_map(|(name, t)| Some((name.strip_suffix(".weight")?.to_string(), t.shape().to_vec())))
        .filter(|(_, shape)| matches!(shape.len(), 2 | 4))
        .collect();
    let found = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::new(Mutex::new(HashMap::new()));
    let (sink, inputs, samples) = (found.clone(), taken.clone(), x.dim(0).max(1) as f64);
    let watched = cx
        .replace_input("*", move |layer, x| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.to_string(), x.shape().to_vec());
            Ok(None)
        })
        .observe("*", move |layer, y| {
            let inputs = inputs.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(w), Some(x)) = (weights.get(layer), inputs.get(layer)) {
                let count = 2.0 * per_weight(x, w, y.shape()) * w.iter().product::<usize>() as f64;
                sink.lock().unwrap_or_else(PoisonError::into_inner).push((layer.to_string(), count / samples));
            }
            Ok(())
        });
    no_grad(|| model.forward(&watched, x))?;
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(found)
}

/// How often each element of the weight `w` is used on the way from `x` to `y`: at every position of the result, or of the
/// input where the convolution is transposed (its weight then begins with the channels of the input).
fn per_weight(x: &[usize], w: &[usize], y: &[usize]) -> f64 {
    let positions = |s: &[usize]| s.iter().rev().skip(1).product::<usize>() as f64;
    let transposed = w.len() == 4 && (y.last() != w.first() || (x.last() == y.last() && positions(x) < positions(y)));
    positions(if transposed { x } else { y })
}
