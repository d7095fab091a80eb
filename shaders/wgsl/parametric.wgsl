// Activations that have numbers of their own.
//   parametric_forward_*    y = f(x, a), where a[0] is one learned number for the whole tensor
//   parametric_backward_*   dx = dy * df/dx, and one partial sum a workgroup of dy * df/da
//       crrelu  max(x, 0) + a x exp(-x^2 / 2)
//       prelu   x where positive, a x elsewhere
//   piecewise_*             straight lines between the points (grid[i], values[i]), or the slope of the line at x
#define GROUP 256

#kernel parametric_forward_$OP : OP in crrelu prelu
#kernel parametric_backward_$OP : OP in crrelu prelu
#kernel piecewise_$F : F in value slope

#if KERNEL == parametric_forward
struct ParametricParams { n4: u32, gx: u32 }
var<immediate> p: ParametricParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
#elif KERNEL == parametric_backward
// run4: vec4s of one workgroup, a multiple of the group.
struct ParametricGradParams { n: u32, n4: u32, run4: u32 }
var<immediate> p: ParametricGradParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;
#endif

#if KERNEL != piecewise
#if OP == crrelu
// Beyond |x| = sqrt(160) the bump is below 1e-33: zero, so that an infinite x meets no product with zero.
fn by_parameter(v: f32) -> f32 {
  let s = v * v;
  return select(v * exp(-0.5 * s), 0.0, s > 160.0);
}

fn slope(v: f32, e: f32) -> f32 {
  let s = v * v;
  return select(0.0, 1.0, v > 0.0) + e * select((1.0 - s) * exp(-0.5 * s), 0.0, s > 160.0);
}

fn f(v: f32, e: f32) -> f32 {
  // Not max(): that would turn NaN into 0 and hide it.
  return select(v, 0.0, v < 0.0) + e * by_parameter(v);
}
#else
fn by_parameter(v: f32) -> f32 {
  return select(v, 0.0, v > 0.0);
}

fn slope(v: f32, e: f32) -> f32 {
  return select(e, 1.0, v > 0.0);
}

fn f(v: f32, e: f32) -> f32 {
  return select(e * v, v, v > 0.0);
}
#endif
#endif

#if KERNEL == parametric_forward
@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.n4) {
    let v = x[i];
    let e = a[0];
    y[i] = vec4<f32>(f(v.x, e), f(v.y, e), f(v.z, e), f(v.w, e));
  }
}
#endif

#if KERNEL == parametric_backward
var<workgroup> part: array<f32, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let start = wid.x * p.run4;
  let end = min(start + p.run4, p.n4);
  let e = a[0];
  var sum = vec4<f32>(0.0);
  for (var i = start + lid; i < end; i += ${GROUP}u) {
    let v = x[i];
    let g = dy[i];
    let d = vec4<f32>(slope(v.x, e), slope(v.y, e), slope(v.z, e), slope(v.w, e));
    // Where the slope is zero an infinite gradient must not become NaN.
    dx[i] = select(g * d, vec4<f32>(0.0), d == vec4<f32>(0.0));
    let da = vec4<f32>(by_parameter(v.x), by_parameter(v.y), by_parameter(v.z), by_parameter(v.w));
    // What lies behind the last element belongs to nobody.
    let mine = vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4<u32>(p.n);
    sum += select(vec4<f32>(0.0), g * da, mine);
  }
  part[lid] = (sum.x + sum.y) + (sum.z + sum.w);
  workgroupBarrier();
  for (var step = ${GROUP / 2}u; step > 0u; step >>= 1u) {
    if (lid < step) {
      part[lid] += part[lid + step];
    }
    workgroupBarrier();
  }
  if (lid == 0u) {
    partial[wid.x] = part[0];
  }
}
#endif

#if KERNEL == piecewise
struct PiecewiseParams { n: u32, gx: u32, knots: u32 }
var<immediate> p: PiecewiseParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> grid: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.n) {
    let v = x[i];
    // The line that begins at the last knot not above v; the first and the last line go on beyond the grid.
    var lo = 0u;
    var hi = p.knots - 1u;
    while (hi - lo > 1u) {
      let middle = (lo + hi) / 2u;
      if (grid[middle] <= v) {
        lo = middle;
      } else {
        hi = middle;
      }
    }
    let slope = (values[lo + 1u] - values[lo]) / (grid[lo + 1u] - grid[lo]);
#if F == value
    y[i] = values[lo] + slope * (v - grid[lo]);
#else
    y[i] = slope;
#endif
  }
}
#endif
