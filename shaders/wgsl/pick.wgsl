// Single elements along the middle of [outer][len][inner], by an index for each of [outer][count][inner].
//   pick_take   y[o][c][i] = x[o][idx[o][c][i]][i]
//   pick_put    the adjoint where no index comes twice in a lane: dx[o][idx[o][c][i]][i] = dy[o][c][i], the rest untouched
#define GROUP 256

#kernel pick_take
#kernel pick_put

struct PickParams {
  n: u32, // indices in all
  count: u32,
  len: u32,
  inner: u32,
  gx: u32, // workgroups in x of the folded grid
}
var<immediate> p: PickParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> idx: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u < p.n) {
    let at = (u / p.inner / p.count * p.len + min(idx[u], p.len - 1u)) * p.inner + u % p.inner;
#if KERNEL == pick_take
    y[u] = x[at];
#else
    y[at] = x[u];
#endif
  }
}
