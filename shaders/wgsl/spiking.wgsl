// Leaky integrate-and-fire neurons over T steps in one kernel. Step t of neuron i is element [t][i]; an invocation has V
// neurons and goes through time with the membrane m in registers:
//   u = leak m + x;  z = u / threshold - 1;  spike o = z > 0;  m = u - threshold o, or 0 where it fired
// lif_forward_M_V       spikes; M = 1: starts at a given membrane and gives the last one after the spikes
// lif_backward_M_V_P_S  gradients with the derivative of a spike replaced by the surrogate S of z. Nothing is kept from the
//                       forward pass: u is computed again, into registers (P = 1, up to 16 steps) or into what becomes
//                       the gradient (P = 0). Gradients of threshold and leak: one partial sum a workgroup.
// lif_unrolled_N_S      the same for exactly N steps, V = 4, M = 0, everything in registers
// lif_sum               adds the partial sums
#define GROUP 64
#define STEPS 16

#kernel lif_forward_$M_$V : M in 0 1, V in 1 4
#kernel lif_backward_$M_$V_$P_$S : M in 0 1, V in 1 4, P in 0 1, S in linear atan sigmoid
#kernel lif_unrolled_$N_$S : N in 1 2 3 4 5 6 8, S in linear atan sigmoid, M=0, V=4
#kernel lif_sum

#if KERNEL != lif_sum
#if V == 4
alias T = vec4<f32>;
#else
alias T = f32;
#endif

struct LifParams {
  items: u32, // groups of V neurons
  gx: u32,
  steps: u32,
  hard: u32, // reset to 0 instead of by subtraction
  through: u32, // the gradient also flows through the spike in the reset
  width: f32, // gamma (linear) or alpha (the others)
}
var<immediate> p: LifParams;
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read> threshold: array<f32>;
@group(0) @binding(2) var<storage, read> leak: array<f32>;
#endif

#if KERNEL != lif_sum
// 1 where the neuron fires.
fn fires(u: T, level: f32) -> T {
  return select(T(0.0), T(1.0), u / level - T(1.0) > T(0.0));
}

fn reset(u: T, o: T, level: f32) -> T {
  return select(u - level * o, select(u, T(0.0), o > T(0.5)), p.hard == 1u);
}
#endif

#if KERNEL == lif_forward
#if M == 1
@group(0) @binding(3) var<storage, read> start: array<T>;
@group(0) @binding(4) var<storage, read_write> y: array<T>;
#else
@group(0) @binding(3) var<storage, read_write> y: array<T>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.items) {
    let level = threshold[0];
    let keep = leak[0];
#if M == 1
    var m = start[i];
#else
    var m = T(0.0);
#endif
    for (var t = 0u; t < p.steps; t += 1u) {
      let u = keep * m + x[t * p.items + i];
      let o = fires(u, level);
      m = reset(u, o, level);
      y[t * p.items + i] = o;
    }
#if M == 1
    y[p.steps * p.items + i] = m;
#endif
  }
}
#endif

#if KERNEL == lif_backward || KERNEL == lif_unrolled
#if M == 1
@group(0) @binding(3) var<storage, read> start: array<T>;
@group(0) @binding(4) var<storage, read> dy: array<T>;
@group(0) @binding(5) var<storage, read_write> dx: array<T>;
@group(0) @binding(6) var<storage, read_write> partial: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> dstart: array<T>;
#else
@group(0) @binding(3) var<storage, read> dy: array<T>;
@group(0) @binding(4) var<storage, read_write> dx: array<T>;
@group(0) @binding(5) var<storage, read_write> partial: array<vec2<f32>>;
#endif
var<workgroup> sums: array<vec2<f32>, $GROUP>;

fn surrogate(z: T) -> T {
#if S == linear
  return p.width * max(T(0.0), T(1.0) - abs(z));
#elif S == atan
  let v = 1.5707964 * p.width * z;
  return 0.5 * p.width / (T(1.0) + v * v);
#else
  // Symmetric in z: by the absolute value, so that exp does not overflow.
  let e = exp(-min(p.width * abs(z), T(80.0)));
  return p.width * e / ((T(1.0) + e) * (T(1.0) + e));
#endif
}

fn total(v: T) -> f32 {
#if V == 4
  return (v.x + v.y) + (v.z + v.w);
#else
  return v;
#endif
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let group = wid.y * p.gx + wid.x;
  let i = group * ${GROUP}u + lid;
  let level = threshold[0];
  let keep = leak[0];
  var dlevel = T(0.0);
  var dkeep = T(0.0);
  if (i < p.items) {
#if KERNEL == lif_unrolled
    let m0 = T(0.0);
#for t in 0..N
    let u$t = keep * m$t + x[${t}u * p.items + i];
    let z$t = u$t / level - T(1.0);
    let o$t = select(T(0.0), T(1.0), z$t > T(0.0));
    let m${t + 1} = reset(u$t, o$t, level);
#endfor
    var dm = T(0.0);
#for back in 0..N
#define t ${N - 1 - back}
    {
      let reset_slope = select(T(-level), -u$t, p.hard == 1u);
      let own = dy[${t}u * p.items + i] + select(T(0.0), dm * reset_slope, p.through == 1u);
      let dspike = own * surrogate(z$t) / level;
      let du = dspike + select(dm, dm * (T(1.0) - o$t), p.hard == 1u);
      dx[${t}u * p.items + i] = du;
      dkeep += du * m$t;
      dlevel -= dspike * u$t / level + select(dm * o$t, T(0.0), p.hard == 1u);
      dm = keep * du;
    }
#endfor
#else
#if M == 1
    let first = start[i];
#else
    let first = T(0.0);
#endif
#if P == 1
    var us: array<T, $STEPS>;
#endif
    var m = first;
    for (var t = 0u; t < p.steps; t += 1u) {
      let u = keep * m + x[t * p.items + i];
#if P == 1
      us[t] = u;
#else
      dx[t * p.items + i] = u;
#endif
      m = reset(u, fires(u, level), level);
    }
#if M == 1
    var dm = dy[p.steps * p.items + i];
#else
    var dm = T(0.0);
#endif
    // u of the step at hand; that of the step before gives the membrane it started from.
    var u = T(0.0);
    if (p.steps > 0u) {
#if P == 1
      u = us[p.steps - 1u];
#else
      u = dx[(p.steps - 1u) * p.items + i];
#endif
    }
    for (var back = p.steps; back > 0u; back -= 1u) {
      let t = back - 1u;
      var before = T(0.0);
      var m0 = first;
      if (t > 0u) {
#if P == 1
        before = us[t - 1u];
#else
        before = dx[(t - 1u) * p.items + i];
#endif
        m0 = reset(before, fires(before, level), level);
      }
      let o = fires(u, level);
      let own = dy[t * p.items + i];
      let reset_slope = select(T(-level), -u, p.hard == 1u);
      let dspike = (own + select(T(0.0), dm * reset_slope, p.through == 1u)) * surrogate(u / level - T(1.0)) / level;
      let du = dspike + select(dm, dm * (T(1.0) - o), p.hard == 1u);
      dx[t * p.items + i] = du;
      dkeep += du * m0;
      dlevel -= dspike * u / level + select(dm * o, T(0.0), p.hard == 1u);
      dm = keep * du;
      u = before;
    }
#endif
#if M == 1
    dstart[i] = dm;
#endif
  }
  sums[lid] = vec2<f32>(total(dlevel), total(dkeep));
  for (var half = ${GROUP / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      sums[lid] += sums[lid + half];
    }
  }
  if (lid == 0u) {
    partial[group] = sums[0];
  }
}
#endif

#if KERNEL == lif_sum
struct LifSumParams { n: u32 }
var<immediate> p: LifSumParams;
@group(0) @binding(0) var<storage, read> partial: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> dthreshold: array<f32>;
@group(0) @binding(2) var<storage, read_write> dleak: array<f32>;
var<workgroup> sums: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lid: u32) {
  var sum = vec2<f32>(0.0);
  for (var i = lid; i < p.n; i += 64u) {
    sum += partial[i];
  }
  sums[lid] = sum;
  workgroupBarrier();
  if (lid == 0u) {
    var all = vec2<f32>(0.0);
    for (var i = 0u; i < 64u; i += 1u) {
      all += sums[i];
    }
    dthreshold[0] = all.x;
    dleak[0] = all.y;
  }
}
#endif
