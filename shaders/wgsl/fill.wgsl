// Constant and counting fills, four elements per invocation.
#kernel fill_f32 : T=f32
#kernel fill_u32 : T=u32
#kernel fill_arange

#if KERNEL == fill_arange
struct ArangeParams {
  n4: u32, // number of vec4 to write
  gx: u32, // workgroups in x of the folded grid
  start: u32, // the first value
  step: u32, // the difference between neighbours; wraps modulo 2^32
}
@group(0) @binding(0) var<storage, read_write> y: array<vec4<u32>>;
var<immediate> p: ArangeParams;
#elif T == f32
struct FillF32Params {
  n4: u32, // number of vec4 to write
  gx: u32, // workgroups in x of the folded grid
  value: f32, // the value
  pad: u32, // unused
}
@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
var<immediate> p: FillF32Params;
#else
struct FillU32Params {
  n4: u32, // number of vec4 to write
  gx: u32, // workgroups in x of the folded grid
  value: u32, // the value
  pad: u32, // unused
}
@group(0) @binding(0) var<storage, read_write> y: array<vec4<u32>>;
var<immediate> p: FillU32Params;
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lid: vec3<u32>) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid.x;
  if (i >= p.n4) {
    return;
  }
#if KERNEL == fill_arange
  y[i] = vec4<u32>(p.start) + (vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u)) * p.step;
#else
  y[i] = vec4<$T>(p.value);
#endif
}
