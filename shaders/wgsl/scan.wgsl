// Running sums and sorting along the middle of [outer][len][inner].
//   scan_totals      sum of each chunk
//   scan_sums        running sums of a chunk, one thread each, from the offset of the chunk (O = 1) or from 0
//   sort_keys        order-preserving integer keys and places along the axis, in rows padded to a power of two
//   sort_local       the steps of a bitonic network that stay within BLOCK neighbours, in workgroup memory
//   sort_step        one step of the network, over any distance
//   sort_take        the first values of each row and where they came from
// Pairs of key and place are all different, so the network, which is not stable by itself, sorts stably.
#import math

#define GROUP 256
#define BLOCK 1024

#kernel scan_totals
#kernel scan_sums_$O : O in 0 1
#kernel sort_keys
#kernel sort_local
#kernel sort_step
#kernel sort_take

#if KERNEL == scan_totals || KERNEL == scan_sums
struct ScanParams {
  units: u32, // chunks in all
  chunks: u32, // of one lane
  chunk: u32, // elements of a chunk
  len: u32,
  inner: u32,
  gx: u32, // workgroups in x of the folded grid
  reverse: u32, // 1 to run from the end
  exclusive: u32, // 1 to leave out the element itself
}
var<immediate> p: ScanParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
#if KERNEL == scan_sums && O == 1
@group(0) @binding(1) var<storage, read> offset: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#else
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u >= p.units) {
    return;
  }
  let i = u % p.inner;
  let c = u / p.inner % p.chunks;
  let base = u / p.inner / p.chunks * p.len;
  let end = min(c * p.chunk + p.chunk, p.len);
#if KERNEL == scan_sums && O == 1
  var sum = offset[u];
#else
  var sum = 0.0;
#endif
  for (var l = c * p.chunk; l < end; l++) {
    let at = (base + select(l, p.len - 1u - l, p.reverse == 1u)) * p.inner + i;
    let next = sum + x[at];
#if KERNEL == scan_sums
    y[at] = select(next, sum, p.exclusive == 1u);
#endif
    sum = next;
  }
#if KERNEL == scan_totals
  y[u] = sum;
#endif
}

#elif KERNEL == sort_keys
struct SortKeysParams {
  n: u32, // places in all rows
  padded: u32, // length of a row
  len: u32,
  inner: u32,
  gx: u32, // workgroups in x of the folded grid
  descending: u32, // 1 to put the largest first
}
var<immediate> p: SortKeysParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> pairs: array<vec2<u32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u >= p.n) {
    return;
  }
  let place = u & (p.padded - 1u);
  let row = u >> firstTrailingBit(p.padded);
  let v = x[(row / p.inner * p.len + min(place, p.len - 1u)) * p.inner + row % p.inner];
  let b = bitcast<u32>(select(v, 0.0, v == 0.0));
  var k = select(select(b ^ 0x80000000u, ~b, (b >> 31u) == 1u), 0xffffffffu, sg_is_nan(v));
  k = select(k, ~k, p.descending == 1u);
  pairs[u] = vec2<u32>(select(0xffffffffu, k, place < p.len), place);
}

#elif KERNEL == sort_local || KERNEL == sort_step
struct SortStepParams {
  n: u32, // pairs in all rows
  padded: u32, // length of a row
  first: u32, // sort_local: size of the first merge; sort_step: of this one
  last: u32, // sort_local: size of the last merge; sort_step: the distance
  gx: u32, // workgroups in x of the folded grid
}
var<immediate> p: SortStepParams;

fn after(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y > b.y);
}

#if KERNEL == sort_step
@group(0) @binding(0) var<storage, read_write> pairs: array<vec2<u32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let t = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  let i = 2u * t - (t & (p.last - 1u));
  let j = i + p.last;
  if (j < p.n) {
    let a = pairs[i];
    let b = pairs[j];
    if (after(a, b) == ((i & (p.padded - 1u) & p.first) == 0u)) {
      pairs[i] = b;
      pairs[j] = a;
    }
  }
}
#else
@group(0) @binding(0) var<storage, read_write> pairs: array<vec2<u32>>;
var<workgroup> block: array<vec2<u32>, $BLOCK>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let base = (wid.y * p.gx + wid.x) * ${BLOCK}u;
  for (var t = lid; t < ${BLOCK}u; t += ${GROUP}u) {
    if (base + t < p.n) {
      block[t] = pairs[base + t];
    }
  }
  for (var size = p.first; size <= p.last; size = size << 1u) {
    for (var d = min(size, ${BLOCK}u) >> 1u; d > 0u; d = d >> 1u) {
      workgroupBarrier();
      for (var t = lid; t < ${BLOCK / 2}u; t += ${GROUP}u) {
        let i = 2u * t - (t & (d - 1u));
        let a = block[i];
        let b = block[i + d];
        if (after(a, b) == (((base + i) & (p.padded - 1u) & size) == 0u)) {
          block[i] = b;
          block[i + d] = a;
        }
      }
    }
  }
  workgroupBarrier();
  for (var t = lid; t < ${BLOCK}u; t += ${GROUP}u) {
    if (base + t < p.n) {
      pairs[base + t] = block[t];
    }
  }
}
#endif

#elif KERNEL == sort_take
struct SortTakeParams {
  n: u32, // values written
  padded: u32, // length of a row of pairs
  len: u32,
  inner: u32,
  count: u32, // values written of each row
  gx: u32, // workgroups in x of the folded grid
}
var<immediate> p: SortTakeParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> yi: array<u32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let u = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (u >= p.n) {
    return;
  }
  let i = u % p.inner;
  let l = u / p.inner % p.count;
  let o = u / p.inner / p.count;
  let place = min(pairs[(o * p.inner + i) * p.padded + l].y, p.len - 1u);
  y[u] = x[(o * p.len + place) * p.inner + i];
  yi[u] = place;
}
#endif
