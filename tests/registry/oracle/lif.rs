//! Leaky integrate-and-fire neurons over T steps, after Chowdhury, Rathi and Roy, "One Timestep is All You
//! Need" (arXiv 2110.05929) and its released code.
//!
//! Per neuron, with current a, threshold V > 0 and leak l (both scalars), membrane m starting at `mem0` or 0:
//!
//! ```text
//! u_t = l m_{t-1} + a_t          integrate
//! o_t = 1 if u_t / V - 1 > 0     fire (strictly above), spikes are 0 or 1, never V
//! m_t = u_t - V o_t              soft reset within the step, so the next step leaks the reset too
//! ```
//!
//! Backward the spike has the surrogate derivative `h_t = gamma max(0, 1 - |u_t / V - 1|)` with respect to
//! `u_t / V - 1`, and the spike inside the reset is a constant (the reset still depends on V).

use super::{A, array};
use ndarray::Axis;

/// Result of [`lif_forward`].
pub struct Lif {
    /// `[T, ..]`, 0 or 1.
    pub spikes: A,
    /// The membrane after the last step, `[..]`.
    pub membrane: A,
    /// `u_t`, the membrane before the reset, `[T, ..]`: a comparison of spikes is only meaningful where this
    /// is not on the threshold.
    pub potential: A,
}

/// Gradients of [`lif_backward`].
pub struct LifGrad {
    /// `[T, ..]`.
    pub current: A,
    /// `[..]`.
    pub mem0: A,
    /// Scalar.
    pub threshold: A,
    /// Scalar.
    pub leak: A,
}

/// `current [T, ..]`, `mem0 [..]`.
pub fn lif_forward(current: &A, mem0: Option<&A>, threshold: f64, leak: f64) -> Lif {
    let mut membrane = start(current, mem0);
    let mut spikes = A::zeros(current.raw_dim());
    let mut potential = A::zeros(current.raw_dim());
    for (t, a) in current.outer_iter().enumerate() {
        let u = leak * &membrane + a;
        let o = u.mapv(|u| if u / threshold - 1.0 > 0.0 { 1.0 } else { 0.0 });
        membrane = &u - threshold * &o;
        spikes.index_axis_mut(Axis(0), t).assign(&o);
        potential.index_axis_mut(Axis(0), t).assign(&u);
    }
    Lif { spikes, membrane, potential }
}

fn start(current: &A, mem0: Option<&A>) -> A {
    mem0.cloned().unwrap_or_else(|| A::zeros(&current.shape()[1..]))
}

/// Backward through time with the surrogate, from the gradients of the spikes `[T, ..]` and of the last
/// membrane `[..]` (zero if absent). From the last step to the first, with `gm` the gradient of `m_t`:
///
/// ```text
/// gu  = gm + go_t h_t / V
/// ga_t = gu
/// gl += sum gu m_{t-1}
/// gV += sum (-gm o_t - go_t h_t u_t / V^2)
/// gm  = l gu
/// ```
pub fn lif_backward(
    current: &A,
    mem0: Option<&A>,
    threshold: f64,
    leak: f64,
    gamma: f64,
    grad_spikes: &A,
    grad_membrane: Option<&A>,
) -> LifGrad {
    let Lif { spikes, potential, .. } = lif_forward(current, mem0, threshold, leak);
    let mut grad_current = A::zeros(current.raw_dim());
    let mut grad_m = grad_membrane.cloned().unwrap_or_else(|| A::zeros(&current.shape()[1..]));
    let (mut grad_threshold, mut grad_leak) = (0.0, 0.0);
    for t in (0..current.shape()[0]).rev() {
        let at = |x: &A, t: usize| x.index_axis(Axis(0), t).to_owned();
        let (u, o) = (at(&potential, t), at(&spikes, t));
        let before = if t == 0 { start(current, mem0) } else { at(&potential, t - 1) - threshold * at(&spikes, t - 1) };
        let through_spike = at(grad_spikes, t) * u.mapv(|u| gamma * (1.0 - (u / threshold - 1.0).abs()).max(0.0));
        let grad_u = &grad_m + &through_spike / threshold;
        grad_leak += (&grad_u * &before).sum();
        grad_threshold -= (&grad_m * &o).sum() + (through_spike * &u).sum() / (threshold * threshold);
        grad_m = leak * &grad_u;
        grad_current.index_axis_mut(Axis(0), t).assign(&grad_u);
    }
    LifGrad {
        current: grad_current,
        mem0: grad_m,
        threshold: array(&[], &[grad_threshold]),
        leak: array(&[], &[grad_leak]),
    }
}
