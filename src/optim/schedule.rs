//! Learning rates as pure functions of the step, counted from 0, so that resuming needs no state. Steps behind the end
//! keep the last rate.
//!
//! ```
//! use shadegrad::optim::schedule::{cosine, warmup};
//! let rate = |step| warmup(step, 8, cosine(step, 1000, 1.0, 0.0));
//! assert_eq!(rate(0), 0.125); // an eighth of it in the first step
//! assert!(rate(500) < rate(100) && rate(1000) == 0.0);
//! ```

use std::f32::consts::PI;

/// `step / total`, at most 1.
fn progress(step: u64, total: u64) -> f32 {
    if total == 0 { 1.0 } else { (step.min(total) as f64 / total as f64) as f32 }
}

fn mix(from: f32, to: f32, t: f32) -> f32 {
    from + (to - from) * t
}

/// Always the same.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(constant(0.1), 0.1);
/// assert_eq!(warmup(0, 4, constant(1.0)), 0.25); // with a warm-up before
/// ```
pub fn constant(lr: f32) -> f32 {
    lr
}

/// Times `gamma` after every `every` steps.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(step(25, 10, 1.0, 0.5), 0.25);
/// ```
pub fn step(step: u64, every: u64, lr: f32, gamma: f32) -> f32 {
    lr * gamma.powi(step.checked_div(every).unwrap_or(0).min(i32::MAX as u64) as i32)
}

/// Times `gamma` at each of the `milestones` that `step` has reached.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(multi_step(80, &[50, 75], 1.0, 0.5), 0.25);
/// ```
pub fn multi_step(step: u64, milestones: &[u64], lr: f32, gamma: f32) -> f32 {
    lr * gamma.powi(milestones.iter().filter(|&&m| step >= m).count() as i32)
}

/// Straight lines between `(step, rate)` points in rising order; constant before the first and after the last.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(piecewise(5, &[(0, 0.0), (10, 1.0)]), 0.5);
/// ```
pub fn piecewise(step: u64, points: &[(u64, f32)]) -> f32 {
    let after = points.partition_point(|&(s, _)| s <= step);
    match (after.checked_sub(1).map(|i| points[i]), points.get(after)) {
        (Some((s0, a)), Some(&(s1, b))) => mix(a, b, progress(step - s0, s1 - s0)),
        (Some((_, a)), None) => a,
        (None, Some(&(_, b))) => b,
        (None, None) => 0.0,
    }
}

/// Half a cosine from `lr` down to `last` over `total` steps (Loshchilov and Hutter, 2017).
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!([cosine(0, 100, 0.1, 0.0), cosine(100, 100, 0.1, 0.0)], [0.1, 0.0]);
/// ```
pub fn cosine(step: u64, total: u64, lr: f32, last: f32) -> f32 {
    mix(last, lr, 0.5 * (1.0 + (PI * progress(step, total)).cos()))
}

/// [`cosine`] again and again: the first run has `first` steps, each following one `factor` times as many.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(cosine_restarts(10, 10, 2, 0.1, 0.0), 0.1); // the second run begins
/// ```
pub fn cosine_restarts(step: u64, first: u64, factor: u64, lr: f32, last: f32) -> f32 {
    let (mut start, mut len) = (0, first.max(1));
    while step - start >= len {
        start += len;
        len = len.saturating_mul(factor.max(1));
    }
    cosine(step - start, len, lr, last)
}

/// From `lr` to `last` along `(1 - step / total)^power`.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!(polynomial(50, 100, 1.0, 0.0, 2.0), 0.25);
/// ```
pub fn polynomial(step: u64, total: u64, lr: f32, last: f32, power: f32) -> f32 {
    mix(last, lr, (1.0 - progress(step, total)).powf(power))
}

/// Scales the rate `then` of another schedule up along a line during the first `steps` steps: by `(step + 1) / steps`, so
/// that no step has rate zero.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert_eq!([warmup(0, 4, 1.0), warmup(3, 4, 1.0), warmup(9, 4, 1.0)], [0.25, 1.0, 1.0]);
/// ```
pub fn warmup(step: u64, steps: u64, then: f32) -> f32 {
    if step < steps { then * ((step + 1) as f64 / steps as f64) as f32 } else { then }
}

/// One cycle (Smith and Topin, 2018) as PyTorch's `OneCycleLR` with two phases: half a cosine from `max / div` up to `max`
/// during the first `rise` part of the `total` steps, then one down to `max / div / final_div` at the last.
///
/// ```
/// # use shadegrad::optim::schedule::*;
/// assert!((one_cycle(29, 100, 1.0, 0.3, 25.0, 1e4) - 1.0).abs() < 1e-6); // the top
/// ```
pub fn one_cycle(step: u64, total: u64, max: f32, rise: f32, div: f32, final_div: f32) -> f32 {
    let (now, last) = (step.min(total.saturating_sub(1)) as f32, total.saturating_sub(1) as f32);
    let peak = rise * total as f32 - 1.0;
    let (from, to, t) = if now <= peak {
        (max / div, max, if peak > 0.0 { now / peak } else { 1.0 })
    } else {
        (max, max / div / final_div, if last > peak { (now - peak) / (last - peak) } else { 1.0 })
    };
    mix(to, from, 0.5 * (1.0 + (PI * t).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-6, "{a} for {b}");
    }

    #[test]
    fn by_hand() {
        close(constant(0.3), 0.3);
        for (s, want) in [(0, 1.0), (9, 1.0), (10, 0.1), (25, 0.01)] {
            close(step(s, 10, 1.0, 0.1), want);
        }
        close(step(5, 0, 1.0, 0.1), 1.0);
        for (s, want) in [(0, 1.0), (29, 1.0), (30, 0.1), (79, 0.1), (80, 0.01)] {
            close(multi_step(s, &[30, 80], 1.0, 0.1), want);
        }
        for (s, want) in [(0, 0.0), (5, 0.5), (10, 1.0), (15, 0.6), (20, 0.2), (99, 0.2)] {
            close(piecewise(s, &[(0, 0.0), (10, 1.0), (20, 0.2)]), want);
        }
        close(piecewise(3, &[(5, 0.7)]), 0.7);
        close(piecewise(3, &[]), 0.0);
        for (s, want) in [(0, 1.0), (25, 0.1 + 0.9 * 0.853_553_4), (50, 0.55), (100, 0.1), (200, 0.1)] {
            close(cosine(s, 100, 1.0, 0.1), want);
        }
        // Runs of 10, 20, 40 steps.
        for (s, want) in [(0, 1.0), (5, 0.5), (10, 1.0), (20, 0.5), (30, 1.0), (50, 0.5)] {
            close(cosine_restarts(s, 10, 2, 1.0, 0.0), want);
        }
        for (s, want) in [(0, 1.0), (50, 0.25), (100, 0.0), (101, 0.0)] {
            close(polynomial(s, 100, 1.0, 0.0, 2.0), want);
        }
        for (s, want) in [(0, 0.2), (1, 0.4), (4, 1.0), (5, 1.0)] {
            close(warmup(s, 5, 1.0), want);
        }
        close(warmup(0, 0, 1.0), 1.0);
    }

    /// `torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=10)`: peak at step 2, end at step 9.
    #[test]
    fn one_cycle_by_hand() {
        for (s, want) in [(0, 0.04), (1, 0.52), (2, 1.0), (9, 4e-6), (50, 4e-6)] {
            close(one_cycle(s, 10, 1.0, 0.3, 25.0, 1e4), want);
        }
        // Half way down lies the mean of both ends.
        close(one_cycle(11, 22, 1.0, 2.0 / 22.0, 25.0, 1e4), 0.5 * (1.0 + 4e-6));
    }
}
