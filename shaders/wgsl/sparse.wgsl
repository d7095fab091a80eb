// Linear layers whose weights are sparse: only the weights that exist are stored and multiplied. The entries of a row (of
// one output) lie one after the other by rising column (input); `start` has the first entry of every row, and at the end
// the number of entries. Samples come last in all operands ([inputs][samples], [outputs][samples]), in units of four, so
// that neighbouring invocations read neighbouring samples of the same input.
//   sparse_apply_P        y[o, b] = sum over the entries of row o of value * x[index, b], + bias[o]
//   sparse_outer          of each entry the sum over b of g[row, b] * x[index, b]: the gradient of its value
//   sparse_apply_sub_P_N, sparse_outer_sub_N
//                         the same for software drivers with subgroups of 8, where every load is dear: a lane has N units,
//                         entries are loaded by all lanes together and go round by broadcasts
// P = 1: the value of entry e is value[via[e]]: the transposed pattern over the values of the original. All sums are in the
// order of entries (or of samples by lanes), so that results repeat.
#kernel sparse_apply_$P : P in 0 1
#kernel sparse_outer : P=0
#kernel sparse_apply_sub_$P_$N : P in 0 1, N in 1 2
#kernel sparse_outer_sub_$N : N in 1 2, P=0

struct SparseParams {
  units: u32, // of four samples
  inputs: u32,
  outputs: u32,
  entries: u32,
  blocks: u32, // of 8 N units
  per: u32, // outputs of a workgroup
  count: u32, // workgroups with work
  gx: u32,
  bias: u32, // 1 if there is one
}
var<immediate> p: SparseParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> index: array<u32>;

fn input_of(e: u32) -> u32 {
  return min(index[e], p.inputs - 1u) * p.units;
}

#if KERNEL == sparse_apply || KERNEL == sparse_apply_sub
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> value: array<f32>;
@group(0) @binding(4) var<storage, read> via: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

fn value_of(e: u32) -> f32 {
#if P == 1
  return value[min(via[e], p.entries - 1u)];
#else
  return value[e];
#endif
}
#endif

#if KERNEL == sparse_apply
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 64u + lid;
  let o = i / p.units;
  if (o < p.outputs) {
    let b = i - o * p.units;
    var sum = vec4<f32>(0.0);
    let end = start[o + 1u];
    for (var e = start[o]; e < end; e++) {
      sum = fma(vec4<f32>(value_of(e)), x[input_of(e) + b], sum);
    }
    if (p.bias == 1u) {
      sum += vec4<f32>(bias[o]);
    }
    y[i] = sum;
  }
}
#endif

#if KERNEL == sparse_apply_sub
@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let id = wid.y * p.gx + wid.x;
  if (id >= p.count) {
    return;
  }
  let range = id / p.blocks;
  let first = (id - range * p.blocks) * ${8 * N}u + lane;
  // Units past the end repeat the last one; what they give is not stored.
#for n in 0..N
  let b_$n = min(first + ${8 * n}u, p.units - 1u);
#endfor
  let last = min((range + 1u) * p.per, p.outputs);
  for (var o = range * p.per; o < last; o++) {
    var e = start[o];
    let end = start[o + 1u];
#for n in 0..N
    var sum_$n = vec4<f32>(0.0);
#endfor
    for (; e + 8u <= end; e += 8u) {
      let i = input_of(e + lane);
      let v = value_of(e + lane);
#for l in 0..8
      let i_$l = subgroupBroadcast(i, ${l}u);
      let v_$l = vec4<f32>(subgroupBroadcast(v, ${l}u));
#for n in 0..N
      sum_$n = fma(v_$l, x[i_$l + b_$n], sum_$n);
#endfor
#endfor
    }
    // What is left of the row. A loop of at most one turn, not a condition: software drivers run both sides of those.
    for (; e < end; e += 8u) {
      let at = min(e + lane, end - 1u);
      let i = input_of(at);
      let v = value_of(at);
      for (var l = 0u; e + l < end; l++) {
        let i_l = subgroupShuffle(i, l);
        let v_l = vec4<f32>(subgroupShuffle(v, l));
#for n in 0..N
        sum_$n = fma(v_l, x[i_l + b_$n], sum_$n);
#endfor
      }
    }
    for (var once = 0u; once < p.bias; once++) {
      let add = vec4<f32>(bias[o]);
#for n in 0..N
      sum_$n += add;
#endfor
    }
#for n in 0..N
    if (first + ${8 * n}u < p.units) {
      y[o * p.units + b_$n] = sum_$n;
    }
#endfor
  }
}
#endif

#if KERNEL == sparse_outer
@group(0) @binding(2) var<storage, read> row: array<u32>;
@group(0) @binding(3) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let e = (wid.y * p.gx + wid.x) * 64u + lid;
  if (e < p.entries) {
    let first = min(row[e], p.outputs - 1u) * p.units;
    let i = input_of(e);
    var sum = vec4<f32>(0.0);
    for (var b = 0u; b < p.units; b++) {
      sum = fma(g[first + b], x[i + b], sum);
    }
    d[e] = (sum.x + sum.y) + (sum.z + sum.w);
  }
}
#endif

#if KERNEL == sparse_outer_sub
@group(0) @binding(2) var<storage, read> start: array<u32>;
@group(0) @binding(3) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let id = wid.y * p.gx + wid.x;
  if (id >= p.count) {
    return;
  }
  let high = (lane & 4u) > 0u;
  let middle = (lane & 2u) > 0u;
  let low = (lane & 1u) > 0u;
  let last = min((id + 1u) * p.per, p.outputs);
  for (var o = id * p.per; o < last; o++) {
    let end = start[o + 1u];
    for (var block = 0u; block < p.blocks; block++) {
      // Units past the end count as zero.
#for n in 0..N
      let u_$n = block * ${8 * N}u + lane + ${8 * n}u;
      let b_$n = min(u_$n, p.units - 1u);
      let g_$n = select(vec4<f32>(0.0), g[o * p.units + b_$n], u_$n < p.units);
#endfor
      var e = start[o];
      for (; e + 8u <= end; e += 8u) {
        let i = input_of(e + lane);
#for l in 0..8
        let i_$l = subgroupBroadcast(i, ${l}u);
#if N == 2
        let s_$l = dot(g_0, x[i_$l + b_0]) + dot(g_1, x[i_$l + b_1]);
#else
        let s_$l = dot(g_0, x[i_$l + b_0]);
#endif
#endfor
        // Eight sums over eight lanes by halves: lane l ends with sum l.
#for l in 0..4
        let t_$l = select(s_$l, s_${l + 4}, high) + subgroupShuffleXor(select(s_${l + 4}, s_$l, high), 4u);
#endfor
#for l in 0..2
        let w_$l = select(t_$l, t_${l + 2}, middle) + subgroupShuffleXor(select(t_${l + 2}, t_$l, middle), 2u);
#endfor
        var sum = select(w_0, w_1, low) + subgroupShuffleXor(select(w_1, w_0, low), 1u);
        for (var once = 0u; once < min(block, 1u); once++) {
          sum = d[e + lane] + sum;
        }
        d[e + lane] = sum;
      }
      for (; e < end; e += 8u) {
        let at = min(e + lane, end - 1u);
        let i = input_of(at);
        var sum = 0.0;
        for (var l = 0u; e + l < end; l++) {
          let i_l = subgroupShuffle(i, l);
          var s = dot(g_0, x[i_l + b_0]);
#if N == 2
          s += dot(g_1, x[i_l + b_1]);
#endif
          s += subgroupShuffleXor(s, 4u);
          s += subgroupShuffleXor(s, 2u);
          s += subgroupShuffleXor(s, 1u);
          sum = select(sum, s, lane == l);
        }
        for (var once = 0u; once < min(block, 1u); once++) {
          sum = d[at] + sum;
        }
        if (e + lane < end) {
          d[e + lane] = sum;
        }
      }
    }
  }
}
#endif
