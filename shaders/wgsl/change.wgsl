// How far parameters moved, relative to their size. Parameters lie in blocks of 64 floats in a flat arena; those that are
// looked at have their blocks side by side in a copy.
//   change_keep  copies the blocks
//   change_sums  sum of |before - now| / max(|before|, least) of each block
//   change_mean  mean over each parameter, a workgroup each
#define GROUP 256

#kernel change_keep
#kernel change_sums
#kernel change_mean

struct ChangeParams { blocks: u32, gx: u32, least: f32, pad: u32 }
var<immediate> p: ChangeParams;

#if KERNEL == change_keep || KERNEL == change_sums
@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<vec4<f32>>;
#if KERNEL == change_keep
@group(0) @binding(2) var<storage, read_write> before: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read> before: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let b = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (b < p.blocks) {
    let start = 16u * places[b];
#if KERNEL == change_keep
    for (var i = 0u; i < 16u; i += 1u) {
      before[16u * b + i] = values[start + i];
    }
#else
    var sum = 0.0;
    for (var i = 0u; i < 16u; i += 1u) {
      let old = before[16u * b + i];
      sum += dot(abs(old - values[start + i]) / max(abs(old), vec4<f32>(p.least)), vec4<f32>(1.0));
    }
    sums[b] = sum;
#endif
  }
}
#else
// First block, blocks, floats, unused.
@group(0) @binding(0) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
var<workgroup> part: array<f32, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let span = spans[wid.x];
  var sum = 0.0;
  for (var i = lid; i < span.y; i += ${GROUP}u) {
    sum += sums[span.x + i];
  }
  part[lid] = sum;
  workgroupBarrier();
  for (var step = ${GROUP / 2}u; step > 0u; step >>= 1u) {
    if (lid < step) {
      part[lid] += part[lid + step];
    }
    workgroupBarrier();
  }
  if (lid == 0u) {
    mean[wid.x] = part[0] / f32(max(span.z, 1u));
  }
}
#endif
