// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011): integer operations only, so the same bits on every device.

// The upper half of a 64-bit product, from 16-bit halves: WGSL has no wide multiplication.
fn sg_mulhi(a: u32, b: u32) -> u32 {
  let al = a & 0xffffu;
  let ah = a >> 16u;
  let bl = b & 0xffffu;
  let bh = b >> 16u;
  let mid = ah * bl + ((al * bl) >> 16u);
  return ah * bh + (mid >> 16u) + ((al * bh + (mid & 0xffffu)) >> 16u);
}

fn sg_philox_round(c: vec4<u32>, k: vec2<u32>) -> vec4<u32> {
  let h0 = sg_mulhi(0xd2511f53u, c.x);
  let h1 = sg_mulhi(0xcd9e8d57u, c.z);
  return vec4<u32>(h1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, h0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
}

// Four random words of a 128-bit counter under a 64-bit key.
fn sg_philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
  var c = counter;
  // The key grows by the golden ratio and the square root of 3, less one, as binary fractions.
#for i in 0..10
  c = sg_philox_round(c, key + ${i}u * vec2<u32>(0x9e3779b9u, 0xbb67ae85u));
#endfor
  return c;
}

// Words 4b to 4b + 3 of the stream `stream` of `seed` (each low word first).
fn sg_random(b: u32, seed: vec2<u32>, stream: vec2<u32>) -> vec4<u32> {
  return sg_philox(vec4<u32>(b, 0u, stream), seed);
}

// Word n of a stream.
fn sg_random_word(n: u32, seed: vec2<u32>, stream: vec2<u32>) -> u32 {
  let w = sg_random(n / 4u, seed, stream);
  let low = select(w.x, w.y, (n & 1u) == 1u);
  let high = select(w.z, w.w, (n & 1u) == 1u);
  return select(low, high, (n & 2u) == 2u);
}

// The upper 24 bits as a number in [0, 1), without rounding.
fn sg_unit(w: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(w >> vec4<u32>(8u)) * 5.9604645e-8;
}
