// Element types: floats from and to halves (two in a word), bytes (four in a word) and unsigned integers; four elements an
// invocation.
#define GROUP 256

#kernel cast_f32_f16 : FROM=vec4<f32>, TO=vec2<u32>
#kernel cast_f16_f32 : FROM=vec2<u32>, TO=vec4<f32>
#kernel cast_f32_u8 : FROM=vec4<f32>, TO=u32
#kernel cast_u8_f32 : FROM=u32, TO=vec4<f32>
#kernel cast_f32_u32 : FROM=vec4<f32>, TO=vec4<u32>
#kernel cast_u32_f32 : FROM=vec4<u32>, TO=vec4<f32>
#kernel cast_u8_u32 : FROM=u32, TO=vec4<u32>
#kernel cast_u32_u8 : FROM=vec4<u32>, TO=u32

struct CastParams {
  n4: u32, // fours of elements
  gx: u32, // workgroups in x of the folded grid
}
var<immediate> p: CastParams;
@group(0) @binding(0) var<storage, read> x: array<$FROM>;
@group(0) @binding(1) var<storage, read_write> y: array<$TO>;

#if KERNEL == cast_f32_f16
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
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.n4) {
    let v = x[i];
#if KERNEL == cast_f32_f16
    y[i] = vec2<u32>(half_bits(v.x) | (half_bits(v.y) << 16u), half_bits(v.z) | (half_bits(v.w) << 16u));
#elif KERNEL == cast_f16_f32
    y[i] = vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
#elif KERNEL == cast_f32_u8 || KERNEL == cast_u32_u8
#if KERNEL == cast_f32_u8
    let w = vec4<u32>(clamp(v, vec4<f32>(0.0), vec4<f32>(255.0)));
#else
    let w = min(v, vec4<u32>(255u));
#endif
    y[i] = w.x | (w.y << 8u) | (w.z << 16u) | (w.w << 24u);
#elif KERNEL == cast_u8_f32 || KERNEL == cast_u8_u32
    y[i] = $TO(vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(255u));
#elif KERNEL == cast_f32_u32
    // The largest float below 2^32.
    y[i] = vec4<u32>(clamp(v, vec4<f32>(0.0), vec4<f32>(4294967040.0)));
#else
    y[i] = vec4<f32>(v);
#endif
  }
}
