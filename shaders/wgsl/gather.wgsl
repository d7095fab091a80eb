// Reading and adding at places that an index tensor names. Indices past the end are clamped to the last element.
//   gather_$R     y[i] = x[offset(i) + index[i] * step] in at most R dimensions
//   rows_$U       x [outer, k, inner], index [len] -> y [outer, len, inner]; U elements at once
//   rows_bytes    the same for rows of bytes, outer = 1
//   scatter_full  y[offset(f) + index[f, j] * so] += s[f, j], one fibre f an invocation, j in order: no atomics
//   scatter_rows_$U  y [outer, k, inner] += s [outer, len, inner] at index [len]
//   fold          y += the sum of the partial results of chunks, in order
//   one_hot       y [n, k]: 1 where the column is the row's index, else 0
// The scatters split their work over invocations twice: into chunks of j, each with a partial result of its own, and into
// ranges of targets, of which every invocation reads all indices but adds only at its own.
#import divide

#kernel gather_$R : R in 2 4 8
#kernel rows_$U : U in 1 4
#kernel rows_bytes
#kernel scatter_full
#kernel scatter_rows_$U : U in 1 4
#kernel fold
#kernel one_hot

#if KERNEL == gather
// Dimensions of y and index, the last first, with the strides of x (0 along the axis).
struct GatherParams {
  n: u32, // elements of y
  gx: u32, // workgroups in x of the folded grid
  pad3: u32, // unused
  k: u32, // length of the axis in x
  step: u32, // stride of the axis in x
  pad0: u32, pad1: u32, pad2: u32,
  dims0: vec4<u32>, dims1: vec4<u32>,
  xs0: vec4<u32>, xs1: vec4<u32>,
}
var<immediate> p: GatherParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    var rest = i;
    var a = min(index[i], p.k - 1u) * p.step;
#for d in 0..R - 1
    {
      let r = sg_divide(rest, p.dims${d / 4}[${d % 4}]);
      a += r.y * p.xs${d / 4}[${d % 4}];
      rest = r.x;
    }
#endfor
    // The outermost dimension takes what is left.
    a += rest * p.xs${(R - 1) / 4}[${(R - 1) % 4}];
    y[i] = x[a];
  }
}
#endif

#if KERNEL == rows
#if U == 4
#define T vec4<u32>
#else
#define T u32
#endif
struct RowsParams {
  n: u32, // units of y
  gx: u32, // workgroups in x of the folded grid
  k: u32, // rows of x
  len: u32, // rows of y
  inner: u32, // units of a row
}
var<immediate> p: RowsParams;
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<$T>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    let c = sg_divide(i, p.inner);
    let o = sg_divide(c.x, p.len);
    let row = min(index[o.y], p.k - 1u);
    y[i] = x[(o.x * p.k + row) * p.inner + c.y];
  }
}
#endif

#if KERNEL == rows_bytes
struct BytesParams {
  words: u32, // of y, the last one perhaps partly used
  gx: u32, // workgroups in x of the folded grid
  k: u32, // rows of x
  len: u32, // rows of y
  row: u32, // bytes of a row
}
var<immediate> p: BytesParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.words) {
    var word = 0u;
#for b in 0..4
    {
      let at = sg_divide(4u * i + ${b}u, p.row);
      let source = min(index[min(at.x, p.len - 1u)], p.k - 1u) * p.row + at.y;
      word |= ((x[source / 4u] >> (8u * (source % 4u))) & 255u) << ${8 * b}u;
    }
#endfor
    y[i] = word;
  }
}
#endif

#if KERNEL == scatter_full
// Dimensions of a fibre, the last first, with the strides of y and of s. dims1.w: elements of y.
struct ScatterParams {
  gx: u32, // workgroups in x of the folded grid
  fibres: u32,
  len: u32, // length of the axis in index and s
  k: u32, // and in y
  si: u32, // stride of the axis in index and s
  so: u32, // and in y
  per_chunk: u32, // values of j a chunk
  per_range: u32, // targets a range
  dims0: vec4<u32>, dims1: vec4<u32>,
  ys0: vec4<u32>, ys1: vec4<u32>,
  ss0: vec4<u32>, ss1: vec4<u32>,
}
var<immediate> p: ScatterParams;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read> s: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let t = (wid.y * p.gx + wid.x) * 64u + lid;
  let ranges = (p.k + p.per_range - 1u) / p.per_range;
  let part = t / p.fibres;
  let chunk = part / ranges;
  if (chunk * p.per_chunk < p.len) {
    var rest = t - part * p.fibres;
    var a = 0u;
    var b = chunk * p.dims1.w;
#for d in 0..7
    {
      let q = rest / p.dims${d / 4}[${d % 4}];
      let r = rest - q * p.dims${d / 4}[${d % 4}];
      a += r * p.ss${d / 4}[${d % 4}];
      b += r * p.ys${d / 4}[${d % 4}];
      rest = q;
    }
#endfor
    let first = (part - chunk * ranges) * p.per_range;
    let end = min(p.len, (chunk + 1u) * p.per_chunk);
    for (var j = chunk * p.per_chunk; j < end; j++) {
      let v = min(index[a + j * p.si], p.k - 1u);
      // Wraps below `first`.
      if (v - first < p.per_range) {
        y[b + v * p.so] += s[a + j * p.si];
      }
    }
  }
}
#endif

#if KERNEL == scatter_rows
#if U == 4
#define T vec4<f32>
#else
#define T f32
#endif
struct ScatterRowsParams {
  gx: u32, // workgroups in x of the folded grid
  outer: u32,
  len: u32, // rows of s
  k: u32, // rows of y
  inner: u32, // units of a row
  per_chunk: u32, // rows of s a chunk
  per_range: u32, // rows of y a range
  total: u32, // units of y
}
var<immediate> p: ScatterRowsParams;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read> s: array<$T>;
@group(0) @binding(2) var<storage, read_write> y: array<$T>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let t = (wid.y * p.gx + wid.x) * 64u + lid;
  let ranges = (p.k + p.per_range - 1u) / p.per_range;
  let fibres = p.outer * p.inner;
  let part = t / fibres;
  let chunk = part / ranges;
  if (chunk * p.per_chunk < p.len) {
    let f = t - part * fibres;
    let o = f / p.inner;
    let c = f - o * p.inner;
    let a = o * p.len * p.inner + c;
    let b = chunk * p.total + o * p.k * p.inner + c;
    let first = (part - chunk * ranges) * p.per_range;
    let end = min(p.len, (chunk + 1u) * p.per_chunk);
    for (var j = chunk * p.per_chunk; j < end; j++) {
      let v = min(index[j], p.k - 1u);
      // Wraps below `first`.
      if (v - first < p.per_range) {
        y[b + v * p.inner] += s[a + j * p.inner];
      }
    }
  }
}
#endif

#if KERNEL == fold
struct FoldParams {
  n: u32, // elements of y
  gx: u32, // workgroups in x of the folded grid
  chunks: u32,
}
var<immediate> p: FoldParams;
@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    var sum = y[i];
    for (var c = 0u; c < p.chunks; c++) {
      sum += parts[c * p.n + i];
    }
    y[i] = sum;
  }
}
#endif

#if KERNEL == one_hot
struct OneHotParams {
  n4: u32, // vec4s of y
  gx: u32, // workgroups in x of the folded grid
  rows: u32,
  k: u32, // columns
}
var<immediate> p: OneHotParams;
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

fn hot(e: u32) -> f32 {
  let r = sg_divide(e, p.k);
  // The padding after the last row has no index.
  return select(0.0, 1.0, index[min(r.x, p.rows - 1u)] == r.y);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n4) {
    y[i] = vec4<f32>(hot(4u * i), hot(4u * i + 1u), hot(4u * i + 2u), hot(4u * i + 3u));
  }
}
#endif
