// Copies 4-byte elements between strided layouts: every operation that only moves elements is one of these.
// Every map has a variant for at most R dimensions: drivers without branches compute what the others would skip.
//   map_1      y[y0 + sum r ys] = x[x0 + sum r xs] for every r of dims
//   map_4      the same for whole vec4s: strides and offsets are in vec4s
//   map_g4     four elements of x, xb apart, become one vec4 of y
//   map_s4     one element of x fills one vec4 of y
//   map_t4     a 4x4 block: four vec4s of x, xb apart, are transposed into four vec4s of y, ya apart
//   transpose_tile  batches of matrices through workgroup memory, so that reads and writes are both contiguous
//   triangle   the part of matrices on and below (or above) a diagonal, zeros elsewhere
#import divide

#kernel map_$U_$R : U in 1 4 g4 s4 t4, R in 2 3 4 8
#kernel transpose_tile
#kernel triangle

#if KERNEL == map
// Up to eight dimensions, the last first. Strides may be negative: sums wrap modulo 2^32.
struct MapParams {
  n: u32, // product of dims
  gx: u32, // workgroups in x of the folded grid
  pad0: u32, // unused
  x0: u32, // first element of x
  y0: u32, // first element of y
  xb: u32, // see above
  ya: u32, // see above
  pad1: u32, // unused
  dims0: vec4<u32>, dims1: vec4<u32>,
  xs0: vec4<u32>, xs1: vec4<u32>,
  ys0: vec4<u32>, ys1: vec4<u32>,
}
var<immediate> p: MapParams;

#if U == 1
#define X u32
#define Y u32
#elif U == g4 || U == s4
#define X u32
#define Y vec4<u32>
#else
#define X vec4<u32>
#define Y vec4<u32>
#endif
@group(0) @binding(0) var<storage, read> x: array<$X>;
@group(0) @binding(1) var<storage, read_write> y: array<$Y>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    var rest = i;
    var a = p.x0;
    var b = p.y0;
#for d in 0..R - 1
    {
      let r = sg_divide(rest, p.dims${d / 4}[${d % 4}]);
      a += r.y * p.xs${d / 4}[${d % 4}];
      b += r.y * p.ys${d / 4}[${d % 4}];
      rest = r.x;
    }
#endfor
    // The outermost dimension takes what is left.
    a += rest * p.xs${(R - 1) / 4}[${(R - 1) % 4}];
    b += rest * p.ys${(R - 1) / 4}[${(R - 1) % 4}];
#if U == 1 || U == 4
    y[b] = x[a];
#elif U == s4
    y[b] = vec4<u32>(x[a]);
#elif U == g4
    y[b] = vec4<u32>(x[a], x[a + p.xb], x[a + 2u * p.xb], x[a + 3u * p.xb]);
#else
    let v0 = x[a];
    let v1 = x[a + p.xb];
    let v2 = x[a + 2u * p.xb];
    let v3 = x[a + 3u * p.xb];
    y[b] = vec4<u32>(v0.x, v1.x, v2.x, v3.x);
    y[b + p.ya] = vec4<u32>(v0.y, v1.y, v2.y, v3.y);
    y[b + 2u * p.ya] = vec4<u32>(v0.z, v1.z, v2.z, v3.z);
    y[b + 3u * p.ya] = vec4<u32>(v0.w, v1.w, v2.w, v3.w);
#endif
  }
}
#endif

#if KERNEL == transpose_tile
struct TileParams {
  rows: u32, // of one matrix of x
  cols: u32,
  tiles_r: u32, // tiles of 32 that cover the rows
  tiles_c: u32,
  count: u32, // tiles in all matrices
  gx: u32, // workgroups in x of the folded grid
}
var<immediate> p: TileParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
// 33 words a row: the column that the second loop reads lies in 32 different banks.
var<workgroup> tile: array<u32, 1056>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let t = wid.y * p.gx + wid.x;
  let q = t / p.tiles_c;
  let c0 = (t - q * p.tiles_c) * 32u;
  let m = q / p.tiles_r;
  let r0 = (q - m * p.tiles_r) * 32u;
  let base = m * p.rows * p.cols;
  let lx = lid % 32u;
  let ly = lid / 32u;
  let live = t < p.count;
#for k in 0..4
  if (live && r0 + ly + ${8 * k}u < p.rows && c0 + lx < p.cols) {
    tile[(ly + ${8 * k}u) * 33u + lx] = x[base + (r0 + ly + ${8 * k}u) * p.cols + c0 + lx];
  }
#endfor
  workgroupBarrier();
#for k in 0..4
  if (live && c0 + ly + ${8 * k}u < p.cols && r0 + lx < p.rows) {
    y[base + (c0 + ly + ${8 * k}u) * p.rows + r0 + lx] = tile[lx * 33u + ly + ${8 * k}u];
  }
#endfor
}
#endif

#if KERNEL == triangle
struct TriangleParams {
  n: u32, // elements
  gx: u32, // workgroups in x of the folded grid
  rows: u32,
  cols: u32,
  diagonal: i32, // keeps column - row <= diagonal (or >=)
  upper: u32, // 1: >=
}
var<immediate> p: TriangleParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    let q = sg_divide(i, p.cols);
    let c = i32(q.y);
    let r = i32(sg_divide(q.x, p.rows).y);
    let keep = select(c - r <= p.diagonal, c - r >= p.diagonal, p.upper == 1u);
    y[i] = select(0u, x[i], keep);
  }
}
#endif
