// Activations that more than one family uses.
#import math

// The last choice is for drivers whose max(), exp() or log() make a number of NaN.
fn sg_softplus(v: f32) -> f32 {
  return select(max(v, 0.0) + sg_log1p(exp(-abs(v))), v, sg_is_nan(v));
}

fn sg_silu(v: f32) -> f32 {
  return v * sg_sigmoid(v);
}

fn sg_mish(v: f32) -> f32 {
  return v * sg_tanh(sg_softplus(v));
}

// 1/sqrt(2)
fn sg_gelu(v: f32) -> f32 {
  return 0.5 * v * (1.0 + sg_erf(v * 0.70710678));
}

// sqrt(2/pi)
fn sg_gelu_tanh(v: f32) -> f32 {
  return 0.5 * v * (1.0 + sg_tanh(0.79788456 * (v + 0.044715 * v * v * v)));
}

// Slopes. 1/sqrt(2), 1/sqrt(2 pi)
fn sg_dgelu(v: f32) -> f32 {
  return 0.5 * (1.0 + sg_erf(v * 0.70710678)) + v * 0.39894228 * exp(-0.5 * v * v);
}

// sqrt(2/pi)
fn sg_dgelu_tanh(v: f32) -> f32 {
  let t = sg_tanh(0.79788456 * (v + 0.044715 * v * v * v));
  return 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * 0.79788456 * (1.0 + 0.134145 * v * v);
}

fn sg_dsilu(v: f32) -> f32 {
  let s = sg_sigmoid(v);
  return s * (1.0 + v * (1.0 - s));
}
