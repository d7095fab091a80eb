//! The update rules of optimisers, one tensor at a time.

use shadegrad::optim::Rule;

/// State of one tensor in f64.
#[derive(Clone, Default)]
pub struct Moments {
    m: Vec<f64>,
    v: Vec<f64>,
    /// The largest `v` so far.
    top: Vec<f64>,
}

/// The root of the sum of squares.
pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// One step of one tensor as PyTorch (or the paper) writes it; `t` counts from 1. The weight decay counts `wd_scale` times;
/// `adapt` says whether LAMB and LARS look at the norms.
pub fn step(rule: Rule, x: &mut [f64], g: &[f64], s: &mut Moments, t: i32, lr: f64, wd_scale: f64, adapt: bool) {
    let f = f64::from;
    let n = x.len();
    s.m.resize(n, 0.0);
    s.v.resize(n, 0.0);
    s.top.resize(n, 0.0);
    // The numbers that the decimal constants stand for.
    let d = |v: f32| v.to_string().parse::<f64>().expect("a number");
    match rule {
        Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
            for i in 0..n {
                let g = g[i] + f(weight_decay) * wd_scale * x[i];
                let b = if t == 1 { g } else { d(momentum) * s.m[i] + (1.0 - d(dampening)) * g };
                s.m[i] = b;
                x[i] -= lr
                    * if momentum == 0.0 {
                        g
                    } else if nesterov {
                        g + d(momentum) * b
                    } else {
                        b
                    };
            }
        }
        Rule::Adam { betas, eps, weight_decay }
        | Rule::AmsGrad { betas, eps, weight_decay }
        | Rule::AdamW { betas, eps, weight_decay } => {
            let decoupled = matches!(rule, Rule::AdamW { .. });
            let wd = f(weight_decay) * wd_scale;
            for i in 0..n {
                let g = if decoupled { g[i] } else { g[i] + wd * x[i] };
                if decoupled {
                    x[i] *= 1.0 - lr * wd;
                }
                s.m[i] = d(betas[0]) * s.m[i] + (1.0 - d(betas[0])) * g;
                s.v[i] = d(betas[1]) * s.v[i] + (1.0 - d(betas[1])) * g * g;
                let (c1, c2) = (1.0 - d(betas[0]).powi(t), 1.0 - d(betas[1]).powi(t));
                s.top[i] = s.top[i].max(s.v[i]);
                let v = if matches!(rule, Rule::AmsGrad { .. }) { s.top[i] } else { s.v[i] };
                x[i] -= lr / c1 * s.m[i] / (v.sqrt() / c2.sqrt() + f(eps));
            }
        }
        Rule::RmsProp { alpha, eps, momentum, weight_decay } => {
            for i in 0..n {
                let g = g[i] + f(weight_decay) * wd_scale * x[i];
                s.v[i] = d(alpha) * s.v[i] + (1.0 - d(alpha)) * g * g;
                let u = g / (s.v[i].sqrt() + f(eps));
                s.m[i] = d(momentum) * s.m[i] + u;
                x[i] -= lr * s.m[i];
            }
        }
        Rule::Lamb { betas, eps, weight_decay } => {
            let u: Vec<f64> = (0..n)
                .map(|i| {
                    s.m[i] = d(betas[0]) * s.m[i] + (1.0 - d(betas[0])) * g[i];
                    s.v[i] = d(betas[1]) * s.v[i] + (1.0 - d(betas[1])) * g[i] * g[i];
                    let (m, v) = (s.m[i] / (1.0 - d(betas[0]).powi(t)), s.v[i] / (1.0 - d(betas[1]).powi(t)));
                    m / (v.sqrt() + f(eps)) + f(weight_decay) * wd_scale * x[i]
                })
                .collect();
            let ratio = if adapt && norm(x) > 0.0 && norm(&u) > 0.0 { norm(x) / norm(&u) } else { 1.0 };
            x.iter_mut().zip(&u).for_each(|(x, u)| *x -= lr * ratio * u);
        }
        Rule::Lars { momentum, nesterov, eta, eps, weight_decay } => {
            let wd = f(weight_decay) * wd_scale;
            let ratio = if adapt && norm(x) > 0.0 && norm(g) > 0.0 {
                f(eta) * norm(x) / (norm(g) + wd * norm(x) + f(eps))
            } else {
                1.0
            };
            for i in 0..n {
                let g = ratio * (g[i] + wd * x[i]);
                s.m[i] = d(momentum) * s.m[i] + g;
                x[i] -= lr * if nesterov { g + d(momentum) * s.m[i] } else { s.m[i] };
            }
        }
    }
}
