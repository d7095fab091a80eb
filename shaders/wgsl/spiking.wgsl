// Leaky integrate-and-fire neurons over T steps in one kernel. Step t of neuron i is element [t][i]; an invocation has V
// neurons and goes through time with the membrane m in registers:
//   u = leak m + x;  z = u / threshold - 1;  spike o = z > 0;  m = u - threshold o, or 0 where it fired
// lif_forward_M_V    spikes of the steps first .. first + steps. M = 1: with a state, the membrane, that is followed
// lif_membrane_V     the membrane after these steps alone
// lif_backward_M_V_S gradients of up to N = 8 steps with the derivative of a spike replaced by the surrogate S of z. Nothing
//                    is kept from the forward pass: u is computed again, into registers by name (an array that is indexed
//                    at run time lies in memory). M = 1: from a given membrane on, with the gradient of the membrane as a
//                    state that is followed back. Gradients of threshold and leak: one partial sum a workgroup.
// lif_unrolled_N_S   the same for exactly N steps, V = 4, M = 0
// lif_sum            adds the partial sums
// Longer runs are done in pieces of 8 steps: each step reads and writes planes of its own, and a processor loses track of
// more than a few such streams at once.
#define GROUP 64

#kernel lif_forward_$M_$V : M in 0 1, V in 1 4
#kernel lif_membrane_$V : V in 1 4, M=1
#kernel lif_backward_$M_$V_$S : M in 0 1, V in 1 4, S in linear atan sigmoid, N=8
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
  first: u32,
  steps: u32,
  hard: u32, // reset to 0 instead of by subtraction
  through: u32, // the gradient also flows through the spike in the reset
  ends: u32, // what comes after these steps: 0 others, 1 nothing, 2 a gradient of the membrane, in the row behind them
  part: u32, // first of the partial sums
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

#if KERNEL == lif_forward || KERNEL == lif_membrane
#if KERNEL == lif_forward
@group(0) @binding(3) var<storage, read_write> y: array<T>;
#if M == 1
@group(0) @binding(4) var<storage, read_write> state: array<T>;
#endif
#else
@group(0) @binding(3) var<storage, read> start: array<T>;
@group(0) @binding(4) var<storage, read_write> state: array<T>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.items) {
    let level = threshold[0];
    let keep = leak[0];
#if KERNEL == lif_membrane
    var m = start[i];
#elif M == 1
    var m = state[i];
#else
    var m = T(0.0);
#endif
    for (var t = p.first; t < p.first + p.steps; t += 1u) {
      let u = keep * m + x[t * p.items + i];
      let o = fires(u, level);
      m = reset(u, o, level);
#if KERNEL == lif_forward
      y[t * p.items + i] = o;
#endif
    }
#if M == 1
    state[i] = m;
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
@group(0) @binding(7) var<storage, read_write> dstate: array<T>;
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
    var dm = T(0.0);
#if M == 1
    let m0 = start[i];
    if (p.ends == 0u) {
      dm = dstate[i];
    } else if (p.ends == 2u) {
      dm = dy[(p.first + p.steps) * p.items + i];
    }
#else
    let m0 = T(0.0);
#endif
#for t in 0..N
#if KERNEL == lif_unrolled
    let x$t = x[${t}u * p.items + i];
#else
    // Steps past the end are computed and left out below.
    let x$t = x[(p.first + min(${t}u, p.steps - 1u)) * p.items + i];
#endif
    let u$t = keep * m$t + x$t;
    let z$t = u$t / level - T(1.0);
    let o$t = select(T(0.0), T(1.0), z$t > T(0.0));
    let m${t + 1} = reset(u$t, o$t, level);
#endfor
#for back in 0..N
#define t ${N - 1 - back}
#if KERNEL == lif_unrolled
    {
      let at = ${t}u * p.items + i;
#else
    if (${t}u < p.steps) {
      let at = (p.first + ${t}u) * p.items + i;
#endif
      let reset_slope = select(T(-level), -u$t, p.hard == 1u);
      let own = dy[at] + select(T(0.0), dm * reset_slope, p.through == 1u);
      let dspike = own * surrogate(z$t) / level;
      let du = dspike + select(dm, dm * (T(1.0) - o$t), p.hard == 1u);
      dx[at] = du;
      dkeep += du * m$t;
      dlevel -= dspike * u$t / level + select(dm * o$t, T(0.0), p.hard == 1u);
      dm = keep * du;
    }
#endfor
#if M == 1
    dstate[i] = dm;
#endif
  }
  sums[lid] = vec2<f32>(total(dlevel), total(dkeep));
  // Two barriers in place of a tree's six: on a processor they cost more than the additions.
  workgroupBarrier();
  if (lid < 8u) {
    for (var k = lid + 8u; k < ${GROUP}u; k += 8u) {
      sums[lid] += sums[k];
    }
  }
  workgroupBarrier();
  if (lid == 0u) {
    for (var k = 1u; k < 8u; k += 1u) {
      sums[0] += sums[k];
    }
    partial[p.part + group] = sums[0];
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
