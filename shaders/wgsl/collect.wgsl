// Up to seven arrays of floats into one, each to a place of its own: gradients into an arena, where a copy command for
// each would cost the host, and a barrier, more than its few bytes do.
#define GROUP 64
#kernel collect

struct CollectParams {
  n4: u32, // fours of floats in all arrays
  gx: u32, // workgroups in x of the folded grid
#for I in 0..7
  end${I}: u32, // fours of the arrays up to this one
  len${I}: u32, // floats of the array
  to${I}: u32, // its place, in fours
#endfor
}
var<immediate> p: CollectParams;
#for I in 0..7
@group(0) @binding($I) var<storage, read> x${I}: array<vec4<f32>>;
#endfor
@group(0) @binding(7) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  var begin = 0u;
#for I in 0..7
  if (i >= begin && i < p.end${I}) {
    let k = i - begin;
    // What lies behind the end is padding, which must be zero.
    let at = vec4<u32>(4u * k) + vec4<u32>(0u, 1u, 2u, 3u);
    y[p.to${I} + k] = select(vec4<f32>(0.0), x${I}[k], at < vec4<u32>(p.len${I}));
  }
  begin = p.end${I};
#endfor
}
