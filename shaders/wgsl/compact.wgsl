// Activations kept in few bits until the backward pass. A value is stored as q = round(x * scale), halves to even, held
// within lo..=hi, and read as q / scale, which is exact.
//   quantize_8    four values a word, the first in the lowest byte, negative ones in two's complement
//   quantize_4    byte j is 16 (a - lo) + (b - lo), where a is value j of the first half of all and b of the second
//   dequantize_*  the values again
//   dquantized_*  dx = dy * f'(value) in one pass: the values are never in memory
#import activation

#define GROUP 256

#kernel quantize_$BITS : BITS in 8 4
#kernel dequantize_$BITS : BITS in 8 4
#kernel dquantized_$BITS_$OP : BITS in 8 4, OP in gelu gelu_tanh silu

struct CompactParams {
  words: u32,
  gx: u32, // workgroups in x of the folded grid
  n: u32, // values
  half: u32, // half of them, rounded up
  lo: f32,
  hi: f32,
  scale: f32, // a power of two
  step: f32, // 1 / scale
}
var<immediate> p: CompactParams;

#if KERNEL == quantize
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;

// Value i; those behind the end count as 0, and so does NaN, which the forward pass shows anyway.
fn level(i: u32) -> i32 {
  let v = x[min(i, p.n - 1u)];
  return i32(select(clamp(round(v * p.scale), p.lo, p.hi), 0.0, i >= p.n || sg_is_nan(v)));
}
#else
@group(0) @binding(0) var<storage, read> words: array<u32>;
#if KERNEL == dequantize
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
#else
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#endif

fn put(i: u32, q: f32) {
  let v = q * p.step;
#if KERNEL == dequantize
  y[i] = v;
#else
  let d = sg_d$OP(v);
  // Where the slope is zero an infinite gradient must not become NaN.
  y[i] = select(dy[i] * d, 0.0, d == 0.0);
#endif
}
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let w = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (w >= p.words) {
    return;
  }
#if KERNEL == quantize
  var word = 0u;
  for (var k = 0u; k < 4u; k += 1u) {
    let j = 4u * w + k;
#if BITS == 8
    word |= (bitcast<u32>(level(j)) & 255u) << (8u * k);
#else
    let lo = i32(p.lo);
    let pair = u32(level(j) - lo) * 16u + u32(level(p.half + j) - lo);
    word |= select(0u, pair, j < p.half) << (8u * k);
#endif
  }
  words[w] = word;
#else
  let word = words[w];
  for (var k = 0u; k < 4u; k += 1u) {
    let j = 4u * w + k;
    let byte = (word >> (8u * k)) & 255u;
#if BITS == 8
    if (j < p.n) {
      put(j, f32(byte) - select(0.0, 256.0, p.lo < 0.0 && byte > 127u));
    }
#else
    if (j < p.half) {
      put(j, f32(byte >> 4u) + p.lo);
      if (p.half + j < p.n) {
        put(p.half + j, f32(byte & 15u) + p.lo);
      }
    }
#endif
  }
#endif
}
