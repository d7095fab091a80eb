// Scalar functions that are accurate and finite where drivers' own are not.
// exp2 and log of drivers carry a few ulp, some lose all relative accuracy of log near 1 and of tanh near 0, and fast
// math may remove tests such as x != x. NaN goes in and comes out; no infinity arises from a finite, representable result.

const SG_MAGNITUDE = 0x7fffffffu;
const SG_INF_BITS = 0x7f800000u;

// NaN by its bits: comparisons with itself are optimised away on some drivers.
fn sg_is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & SG_MAGNITUDE) > SG_INF_BITS;
}

fn sg_is_inf(x: f32) -> bool {
  return (bitcast<u32>(x) & SG_MAGNITUDE) == SG_INF_BITS;
}

// Infinity and NaN made from a value of run time: as constants they are errors in WGSL.
fn sg_inf(x: f32) -> f32 {
  return bitcast<f32>((bitcast<u32>(x) & 0u) | SG_INF_BITS);
}

fn sg_nan(x: f32) -> f32 {
  return bitcast<f32>((bitcast<u32>(x) & 0u) | 0x7fc00000u);
}

// Odd Taylor polynomial below 1/4 (remainder 9e-9 relative), (1 - e) / (1 + e) with e = exp(-2|x|) above.
fn sg_tanh(x: f32) -> f32 {
  let a = abs(x);
  let z = x * x;
  let near = x + x * z * (-0.33333334 + z * (0.13333334 + z * (-0.05396825 + z * 0.021869488)));
  let e = exp(-2.0 * min(a, 15.0));
  let t = (1.0 - e) / (1.0 + e);
  let far = select(t, -t, x < 0.0);
  return select(select(far, near, a < 0.25), x, sg_is_nan(x));
}

// By sign, so that exp never overflows.
fn sg_sigmoid(x: f32) -> f32 {
  let e = exp(-min(abs(x), 100.0));
  let r = 1.0 / (1.0 + e);
  return select(select(e * r, r, x >= 0.0), x, sg_is_nan(x));
}

// Minimax fits: erf(x) / x in x^2 on [0, 1] (1.3e-9 relative), -log(erfc(x)) on [1, 4] (1.1e-9 of erf); 1 beyond.
fn sg_erf(x: f32) -> f32 {
  let a = min(abs(x), 4.0);
  let z = a * a;
  let near = x * (1.1283791 + z * (-0.37612626 + z * (0.112835854 + z * (-0.026853811 + z * (0.005188328
    + z * (-0.000801019 + z * 0.0000785386))))));
  let q = 0.0003537089 + a * (1.12704 + a * (0.638225615 + a * (0.10303743 + a * (-0.02180535
    + a * (0.002939616 - a * 0.00018557487)))));
  let t = 1.0 - exp(-q);
  let far = select(t, -t, x < 0.0);
  return select(select(far, near, a < 1.0), x, sg_is_nan(x));
}

// Taylor series within 1/2 of zero (remainder 6e-10 relative).
fn sg_expm1(x: f32) -> f32 {
  let s = x * (0.5 + x * (0.16666667 + x * (0.041666667 + x * (0.008333334 + x * (0.0013888889
    + x * (0.0001984127 + x * (0.000024801587 + x * 0.0000027557319)))))));
  return select(exp(x) - 1.0, x + x * s, abs(x) < 0.5);
}

// 2 atanh(x / (2 + x)) near zero (remainder 6e-9 relative); log alone has no relative accuracy there.
fn sg_log1p(x: f32) -> f32 {
  let s = x / (2.0 + x);
  let z = s * s;
  let near = 2.0 * s * (1.0 + z * (0.33333334 + z * (0.2 + z * (0.14285715 + z * 0.11111111))));
  return select(log(1.0 + x), near, x > -0.3 && x < 0.45);
}

// The same for log near 1, where x - 1 is exact. Not every driver's log of 0 is infinite.
fn sg_log(x: f32) -> f32 {
  return select(select(log(x), sg_log1p(x - 1.0), x > 0.7 && x < 1.45), -sg_inf(x), x == 0.0);
}

// sin(x + quarters pi / 2) for |x| below 16384: the nearest multiple of pi / 2 comes off in three parts, the first of so few
// bits that its product is exact; minimax fits in x^2 of the rest, within pi / 4 (4e-9). WGSL asks 5e-4 of drivers, and
// nothing beyond pi.
fn sg_wave(x: f32, quarters: u32) -> f32 {
  let q = round(x * 0.63661975);
  let t = ((x - q * 1.5703125) - q * 0.0004837513) - q * 7.54979e-8;
  let z = t * t;
  let s = t + t * z * (-0.16666655 + z * (0.008332155 - z * 0.00019514085));
  let c = 1.0 - 0.5 * z + z * z * (0.041666646 + z * (-0.0013887337 + z * 0.000024434845));
  let k = bitcast<u32>(i32(q)) + quarters;
  let r = select(s, c, (k & 1u) == 1u);
  return select(r, -r, (k & 2u) == 2u);
}

fn sg_sin(x: f32) -> f32 {
  if (abs(x) < 16384.0) { return sg_wave(x, 0u); }
  return sin(x);
}

fn sg_cos(x: f32) -> f32 {
  if (abs(x) < 16384.0) { return sg_wave(x, 1u); }
  return cos(x);
}

// IEEE 754 pow but for the sign of zeros: x^0 = 1^y = 1; 0^y is 0 or infinity; a negative base takes whole exponents.
fn sg_pow(x: f32, y: f32) -> f32 {
  let a = abs(x);
  let whole = floor(y) == y;
  let odd = whole && floor(0.5 * y) * 2.0 != y;
  var r = pow(select(a, 1.0, a == 0.0), y);
  r = select(r, select(0.0, sg_inf(y), y < 0.0), a == 0.0);
  r = select(r, a, y == 1.0);
  r = select(r, x * x, y == 2.0);
  r = select(r, -r, x < 0.0 && odd);
  r = select(r, sg_nan(x), (x < 0.0 && !whole) || sg_is_nan(x) || sg_is_nan(y));
  return select(r, 1.0, y == 0.0 || x == 1.0);
}
