// Four halves in two words: core WGSL, so that any device can read and write them.

// pack2x16float leaves infinity or nothing of what lies beyond the largest half, device by device: hold it there. NaN and
// infinity are put together from their bits.
fn half_bits(v: f32) -> u32 {
  let b = bitcast<u32>(v);
  let m = b & 0x7fffffffu;
  let sign = (b >> 16u) & 0x8000u;
  let held = pack2x16float(vec2<f32>(clamp(v, -65504.0, 65504.0), 0.0)) & 0xffffu;
  // 65520 is where rounding to nearest leaves the range.
  return select(select(held, sign | 0x7c00u, m >= 0x477ff000u), sign | 0x7e00u, m > 0x7f800000u);
}

fn pack4(v: vec4<f32>) -> vec2<u32> {
  return vec2<u32>(half_bits(v.x) | (half_bits(v.y) << 16u), half_bits(v.z) | (half_bits(v.w) << 16u));
}

fn unpack4(v: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
