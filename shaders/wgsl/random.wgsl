// Random tensors and the operations that drop by chance. Element i takes word i of a stream (`rng::Stream`).
//   random_bits       the words themselves
//   random_uniform    lo + (hi - lo) u
//   random_normal     mean + std z, Box and Muller on pairs of words
//   random_bernoulli  1 with a probability, else 0
//   drop_element      0 by chance, else x scaled
//   drop_path_*       the same by whole samples of `inner` elements; 4: `inner` is a multiple of four
#import math
#import philox

#define GROUP 256

#kernel random_bits
#kernel random_uniform
#kernel random_normal
#kernel random_bernoulli
#kernel drop_element
#kernel drop_path_$V : V in 1 4

struct RandomParams {
  n4: u32,
  gx: u32,
  seed_lo: u32,
  seed_hi: u32,
  stream_lo: u32,
  stream_hi: u32,
  // bernoulli, drop: an event where the upper 24 bits are below this.
  threshold: u32,
  // drop_path: elements of one sample.
  inner: u32,
  // uniform: lo, hi - lo, the largest float below hi. normal: mean, std. drop: a is the scale.
  a: f32,
  b: f32,
  c: f32,
}
var<immediate> p: RandomParams;

#if KERNEL == random_bits
@group(0) @binding(0) var<storage, read_write> y: array<vec4<u32>>;
#elif KERNEL == drop_element || KERNEL == drop_path
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
#endif

#if KERNEL == random_normal
// cos and sin of 2 pi b for b in [0, 1): the nearest quarter turn comes off exactly, the rest is within an eighth
// (Taylor remainders below 1e-8). Drivers' own may be off by 5e-4.
fn turn(b: f32) -> vec2<f32> {
  let q = round(4.0 * b);
  let t = (4.0 * b - q) * 1.5707964;
  let z = t * t;
  let s = t * (1.0 + z * (-0.16666667 + z * (0.008333334 + z * (-0.0001984127 + z * 0.0000027557319))));
  let c = 1.0 + z * (-0.5 + z * (0.041666667 + z * (-0.0013888889 + z * 0.0000248015873)));
  let odd = select(vec2<f32>(c, s), vec2<f32>(-s, c), (u32(q) & 1u) == 1u);
  return select(odd, -odd, (u32(q) & 2u) == 2u);
}

fn pair(a: f32, b: f32) -> vec2<f32> {
  // The shift keeps the logarithm finite.
  return sqrt(max(-2.0 * sg_log(a + 5.9604645e-8), 0.0)) * turn(b);
}
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.n4) {
    let seed = vec2<u32>(p.seed_lo, p.seed_hi);
    let stream = vec2<u32>(p.stream_lo, p.stream_hi);
#if KERNEL == drop_path && V == 4
    let dropped = vec4<bool>((sg_random_word(4u * i / p.inner, seed, stream) >> 8u) < p.threshold);
#elif KERNEL == drop_path
    var w: vec4<u32>;
#for e in 0..4
    w[$e] = sg_random_word((4u * i + ${e}u) / p.inner, seed, stream);
#endfor
    let dropped = (w >> vec4<u32>(8u)) < vec4<u32>(p.threshold);
#else
    let w = sg_random(i, seed, stream);
    let dropped = (w >> vec4<u32>(8u)) < vec4<u32>(p.threshold);
#endif
#if KERNEL == random_bits
    y[i] = w;
#elif KERNEL == random_uniform
    let v = p.a + p.b * sg_unit(w);
    // Rounding may land on hi; the interval is half open.
    y[i] = min(v, vec4<f32>(p.c));
#elif KERNEL == random_normal
    let u = sg_unit(w);
    y[i] = p.a + p.b * vec4<f32>(pair(u.x, u.y), pair(u.z, u.w));
#elif KERNEL == random_bernoulli
    y[i] = select(vec4<f32>(0.0), vec4<f32>(1.0), dropped);
#else
    y[i] = select(x[i] * p.a, vec4<f32>(0.0), dropped);
#endif
  }
}
