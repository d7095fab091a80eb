// Element types: floats from and to halves (two in a word), bytes (four in a word) and unsigned integers; four elements an
// invocation.
#define GROUP 256
#import half

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

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.n4) {
    let v = x[i];
#if KERNEL == cast_f32_f16
    y[i] = pack4(v);
#elif KERNEL == cast_f16_f32
    y[i] = unpack4(v);
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
