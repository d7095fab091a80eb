// Reductions of [outer][len][inner] over the middle. Every group is cut into chunks; a unit is one chunk of one group and
// leaves one partial, so that long reductions are short sums of short sums, done in as many passes as it takes.
//   reduce_rows_*    inner = 1, one thread a unit
//   reduce_lanes_*   inner = 1, G lanes a unit, neighbours reading neighbours; joined by shuffles within subgroups of S
//                    lanes (S = 0: none) and through workgroup memory beyond
//   reduce_cols_*    one thread a unit of V neighbouring columns
// V = 4 reads vec4s: rows must then start at multiples of 4, columns come in fours.
// Maxima and minima compare order-preserving integer keys: NaN ranks first, both zeros are equal, and no driver's idea of
// fast arithmetic matters. The arg reductions also give the index of the first winner; later passes (P = 1) read it.
#import math

#define GROUP 256

#kernel reduce_rows_$OP_$V : OP in sum max min, V in 1 4
#kernel reduce_rows_$OP_$V_$P : OP in argmax argmin, V in 1 4, P in 0 1
#kernel reduce_lanes_$OP_$V_$G_$S : OP in sum max min, V in 1 4, G in 32 256, S in 0 8 32
#kernel reduce_lanes_$OP_$V_$G_$S_$P : OP in argmax argmin, V in 1 4, G in 32 256, S in 0 8 32, P in 0 1
#kernel reduce_cols_$OP_$V : OP in sum max min, V in 1 4
#kernel reduce_cols_$OP_$V_$P : OP in argmax argmin, V in 1 4, P in 0 1

#if OP == argmax || OP == argmin
#define ARG 1
#else
#define ARG 0
#define P 0
#endif
#if OP == sum
#define WORD f32
#define ZERO 0.0
#else
#define WORD u32
#define ZERO 0u
#endif
#if V == 4
#define ACC vec4<$WORD>
#define DATA vec4<f32>
#define INDEX vec4<u32>
#define MASK vec4<bool>
#else
#define ACC $WORD
#define DATA f32
#define INDEX u32
#define MASK bool
#endif

struct ReduceParams {
  units: u32, // threads (rows, cols) or teams of lanes
  chunks: u32, // units of one group
  chunk: u32, // elements of a unit; a multiple of 4 where rows are read as vec4
  len: u32, // elements of a group
  inner: u32, // columns, in Vs
  gx: u32, // workgroups in x of the folded grid
  scale: f32, // the result of a sum is multiplied by this
  div: u32, // an index i into the tensor is written as i / div % wrap
  wrap: u32,
}
var<immediate> p: ReduceParams;

@group(0) @binding(0) var<storage, read> x: array<$DATA>;
#if KERNEL == reduce_cols
#define OUT $DATA
#define OUT_INDEX $INDEX
#else
#define OUT f32
#define OUT_INDEX u32
#endif
#if P == 1
@group(0) @binding(1) var<storage, read> xi: array<$INDEX>;
@group(0) @binding(2) var<storage, read_write> y: array<$OUT>;
@group(0) @binding(3) var<storage, read_write> yi: array<$OUT_INDEX>;
#elif ARG
@group(0) @binding(1) var<storage, read_write> y: array<$OUT>;
@group(0) @binding(2) var<storage, read_write> yi: array<$OUT_INDEX>;
#else
@group(0) @binding(1) var<storage, read_write> y: array<$OUT>;
#endif

#if OP == max || OP == argmax
#define FLIP 0u
#elif OP == min || OP == argmin
#define FLIP 0x7fffffffu
#endif

#if OP != sum
// Larger is better; 0 is below every number's key.
fn key(v: f32) -> u32 {
  let b = bitcast<u32>(select(v, 0.0, v == 0.0));
  let k = select(b ^ 0x80000000u, ~b, (b >> 31u) == 1u);
#if FLIP == 0u
  return select(k, 0xffffffffu, sg_is_nan(v));
#else
  return select(~k, 0xffffffffu, sg_is_nan(v));
#endif
}

fn value(k: u32) -> f32 {
#if FLIP == 0u
  let j = k;
#else
  let j = select(~k, k, k == 0xffffffffu);
#endif
  return bitcast<f32>(select(~j, j ^ 0x80000000u, (j >> 31u) == 1u));
}
#endif

fn term(v: $DATA) -> $ACC {
#if OP == sum
  return v;
#elif V == 4
  return vec4<u32>(key(v.x), key(v.y), key(v.z), key(v.w));
#else
  return key(v);
#endif
}

// The running result of a thread, per column of V.
struct Acc {
  a: $ACC,
#if ARG
  i: $INDEX,
#endif
}

// Takes the elements v with the indices i where `valid`; indices rise within a thread.
fn take(s: Acc, v: $DATA, i: $INDEX, valid: $MASK) -> Acc {
  let t = select($ACC($ZERO), term(v), valid);
#if ARG
  let better = t > s.a;
  return Acc(select(s.a, t, better), select(s.i, i, better));
#elif OP == sum
  return Acc(s.a + t);
#else
  return Acc(max(s.a, t));
#endif
}

fn nothing() -> Acc {
#if ARG
  return Acc($ACC($ZERO), $INDEX(0xffffffffu));
#else
  return Acc($ACC($ZERO));
#endif
}

#if KERNEL == reduce_cols
@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u >= p.units) {
    return;
  }
  let q = u % p.inner;
  let start = u / p.inner % p.chunks * p.chunk;
  let end = min(start + p.chunk, p.len);
  let outer = u / p.inner / p.chunks * p.len;
  var s = nothing();
  for (var l = start; l < end; l++) {
    let at = (outer + l) * p.inner + q;
#if P == 1
    let i = xi[at];
#elif V == 4
    let i = vec4<u32>(4u * at) + vec4<u32>(0u, 1u, 2u, 3u);
#else
    let i = at;
#endif
    s = take(s, x[at], i, $MASK(true));
  }
#if OP == sum
  y[u] = s.a * p.scale;
#elif V == 4
  y[u] = vec4<f32>(value(s.a.x), value(s.a.y), value(s.a.z), value(s.a.w));
#else
  y[u] = value(s.a);
#endif
#if ARG
  yi[u] = s.i / p.div % p.wrap;
#endif
}

#else
#if ARG
#define BEST Best
struct Best { k: u32, i: u32 }

// The better key; the lower index among equals.
fn join(a: Best, b: Best) -> Best {
  let second = b.k > a.k || (b.k == a.k && b.i < a.i);
  return Best(select(a.k, b.k, second), select(a.i, b.i, second));
}
#else
#define BEST $WORD
fn join(a: $WORD, b: $WORD) -> $WORD {
#if OP == sum
  return a + b;
#else
  return max(a, b);
#endif
}
#endif

// One result from a thread's V.
fn fold(s: Acc) -> $BEST {
#if V == 4 && ARG
  return join(join(Best(s.a.x, s.i.x), Best(s.a.y, s.i.y)), join(Best(s.a.z, s.i.z), Best(s.a.w, s.i.w)));
#elif V == 4
  return join(join(s.a.x, s.a.y), join(s.a.z, s.a.w));
#elif ARG
  return Best(s.a, s.i);
#else
  return s.a;
#endif
}

fn put(at: u32, r: $BEST) {
#if ARG
  y[at] = value(r.k);
  yi[at] = r.i / p.div % p.wrap;
#elif OP == sum
  y[at] = r * p.scale;
#else
  y[at] = value(r);
#endif
}

// The part of unit u that belongs to one of `lanes` lanes.
fn part(u: u32, lane: u32, lanes: u32) -> Acc {
  let row = u / p.chunks * p.len;
  let start = u % p.chunks * p.chunk;
  let end = select(0u, min(start + p.chunk, p.len), u < p.units);
  var s = nothing();
  for (var j = start + ${V}u * lane; j < end; j += ${V}u * lanes) {
    let at = (row + j) / ${V}u;
#if V == 4
    let e = vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u);
    let valid = e < vec4<u32>(end);
#else
    let e = j;
    let valid = true;
#endif
#if P == 1
    let i = xi[at];
#else
    let i = e + row;
#endif
    s = take(s, x[at], i, valid);
  }
  return s;
}

#if KERNEL == reduce_rows
@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u < p.units) {
    put(u, fold(part(u, 0u, 1u)));
  }
}

#else
#if S == 0
var<workgroup> held: array<$BEST, $GROUP>;
#elif S < G
var<workgroup> held: array<$BEST, ${GROUP / S}>;
#endif

#if S > 0
fn shuffled(b: $BEST, mask: u32) -> $BEST {
#if ARG
  return Best(subgroupShuffleXor(b.k, mask), subgroupShuffleXor(b.i, mask));
#else
  return subgroupShuffleXor(b, mask);
#endif
}
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP / G}u + lid / ${G}u;
  let lane = lid % ${G}u;
  var best = fold(part(u, lane, ${G}u));
#if S == 0
  held[lid] = best;
  for (var s = ${G / 2}u; s > 0u; s >>= 1u) {
    workgroupBarrier();
    if (lane < s) {
      held[lid] = join(held[lid], held[lid + s]);
    }
  }
  best = held[lid];
#else
#for b in 0..6
#if (1 << b) < S
  best = join(best, shuffled(best, ${1 << b}u));
#endif
#endfor
#if S < G
  if (lid % ${S}u == 0u) {
    held[lid / ${S}u] = best;
  }
  workgroupBarrier();
  if (lane == 0u) {
    for (var s = 1u; s < ${G / S}u; s++) {
      best = join(best, held[lid / ${S}u + s]);
    }
  }
#endif
#endif
  if (lane == 0u && u < p.units) {
    put(u, best);
  }
}
#endif
#endif
