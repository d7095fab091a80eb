// One-dimensional Fourier transforms along one axis of a tensor seen as [outer][n][inner]: the rows and columns of the
// two-dimensional ones. An invocation has one line (V: of 1 or 4 neighbours in `inner`) in registers, so neighbouring
// invocations read neighbouring memory and nothing is shared. Complex numbers are stored as pairs.
//   fft_real_n   real to half spectrum: y[k] = s w[k] sum_j x[j] e^(-2 pi i jk / n), k <= n / 2
//   fft_half_n   half spectrum to real: x[j] = s sum_k w[k] Re(y[k] e^(2 pi i jk / n))
//   fft_full_n   complex to complex, either sign
//   fft_filter_n complex to complex, times w or conj(w) [n][inner], and back, unscaled: the middle of a filter
//   fft_any_*    the first three for any n, one output an invocation
// s w[k] is `edge` for k = 0 and the middle of an even n, `bulk` elsewhere. Known n: see shared/dft.wgsl.
#define GROUP 64

#kernel fft_real_$N_$V : N in 2 4 7 8 14 16 28 32, V in 1 4, KIND=real, F=1
#kernel fft_real_$N_1 : N in 56 64, V=1, KIND=real, F=1
#kernel fft_half_$N_$V : N in 2 4 7 8 14 16 28 32, V in 1 4, KIND=half, F=1
#kernel fft_half_$N_1 : N in 56 64, V=1, KIND=half, F=1
#kernel fft_full_$N_$V : N in 2 4 7 8 14 16, V in 1 4, KIND=full, F=1
#kernel fft_full_$N_$V : N in 28 32, V in 1 4, KIND=full, F=4
#kernel fft_full_$N_1 : N in 56 64, V=1, KIND=full, F=8
#kernel fft_filter_$N_$V : N in 2 4 7 8 14 16, V in 1 4, KIND=filter, F=1
#kernel fft_filter_$N_$V : N in 28 32, V in 1 4, KIND=filter, F=4
#kernel fft_filter_$N_1 : N in 56 64, V=1, KIND=filter, F=8
#kernel fft_any_$KIND : KIND in real half full, N=0, V=1
#kernel complex_mul_$V : V in 2 4, KIND=mul

#if KIND == mul
// z = x y or x conj(y), complex numbers as pairs; y is repeated over the leading dimensions. V: floats at a time.
struct ComplexParams {
  items: u32,
  gx: u32,
  row: u32, // length of y, in groups of V
  sign: f32, // of the imaginary part of y
}
var<immediate> p: ComplexParams;
@group(0) @binding(0) var<storage, read> x: array<vec$V<f32>>;
@group(0) @binding(1) var<storage, read> y: array<vec$V<f32>>;
@group(0) @binding(2) var<storage, read_write> z: array<vec$V<f32>>;

fn times(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(a.x * b.x - p.sign * a.y * b.y, p.sign * a.x * b.y + a.y * b.x);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.items) {
    let a = x[i];
    let b = y[i % p.row];
#if V == 2
    z[i] = times(a, b);
#else
    z[i] = vec4<f32>(times(a.xy, b.xy), times(a.zw, b.zw));
#endif
  }
}
#else
struct FftParams {
  items: u32,
  gx: u32,
  inner: u32, // in groups of V
  n: u32,
  edge: f32,
  bulk: f32,
  inverse: u32, // full: the sign of the exponent is plus; filter: conj(w)
}
var<immediate> p: FftParams;

#if V == 4
alias T = vec4<f32>;
#else
alias T = f32;
#endif

#if KIND == real
@group(0) @binding(0) var<storage, read> x: array<T>;
#elif V == 4
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
#endif
#if KIND == half
@group(0) @binding(1) var<storage, read_write> y: array<T>;
#elif KIND == filter && V == 4
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
#elif KIND == filter
@group(0) @binding(1) var<storage, read> w: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<f32>>;
#elif V == 4
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read_write> y: array<vec2<f32>>;
#endif

#if KIND != half
fn put(at: u32, re: T, im: T) {
#if V == 4
  y[2u * at] = vec4<f32>(re.x, im.x, re.y, im.y);
  y[2u * at + 1u] = vec4<f32>(re.z, im.z, re.w, im.w);
#else
  y[at] = vec2<f32>(re, im);
#endif
}
#endif

#if N == 0
// e^(2 pi i j / n): the nearest quarter turn comes off in integers, the rest is within an eighth (remainder 1e-8).
fn root(j: u32, n: u32) -> vec2<f32> {
  let q = (8u * j + n) / (2u * n);
  let t = f32(i32(4u * j) - i32(q * n)) / f32(n) * 1.5707964;
  let z = t * t;
  let s = t * (1.0 + z * (-0.16666667 + z * (0.008333334 + z * (-0.0001984127 + z * 0.0000027557319))));
  let c = 1.0 + z * (-0.5 + z * (0.041666667 + z * (-0.0013888889 + z * 0.0000248015873)));
  let odd = select(vec2<f32>(c, s), vec2<f32>(-s, c), (q & 1u) == 1u);
  return select(odd, -odd, (q & 2u) == 2u);
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
  let half = p.n / 2u + 1u;
#if KIND == real
  let ins = p.n;
  let outs = half;
#elif KIND == half
  let ins = half;
  let outs = p.n;
#else
  let ins = p.n;
  let outs = p.n;
#endif
  let r = i % p.inner;
  let k = (i / p.inner) % outs;
  let src = i / (p.inner * outs) * ins * p.inner + r;
  var re = 0.0;
  var im = 0.0;
  var turn = 0u;
  for (var j = 0u; j < ins; j += 1u) {
    let w = root(turn, p.n);
    let v = x[src + j * p.inner];
#if KIND == real
    re += v * w.x;
    im -= v * w.y;
#elif KIND == half
    let weight = select(p.bulk, p.edge, j == 0u || 2u * j == p.n);
    re += weight * (v.x * w.x - v.y * w.y);
#else
    let s = select(-w.y, w.y, p.inverse == 1u);
    re += v.x * w.x - v.y * s;
    im += v.x * s + v.y * w.x;
#endif
    turn += k;
    turn -= select(0u, p.n, turn >= p.n);
  }
#if KIND == real
  let weight = select(p.bulk, p.edge, k == 0u || 2u * k == p.n);
  put(i, weight * re, weight * im);
#elif KIND == half
  y[i] = re;
#else
  put(i, re, im);
#endif
}
#else
#define M ${N / 2 + 1}
#import dft

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
  let inner = p.inner;
#if KIND == half
#define INS $M
#else
#define INS $N
#endif
#if KIND == real
#define OUTS $M
#else
#define OUTS $N
#endif
  let src = i / inner * ${INS}u * inner + i % inner;
  let dst = i / inner * ${OUTS}u * inner + i % inner;

#if KIND == real
  var v: array<T, $N>;
#for j in 0..N
  v[$j] = x[src + ${j}u * inner];
#endfor
#else
  var re: array<T, $INS>;
  var im: array<T, $INS>;
#if KIND == full
  // The inverse is the transform with real and imaginary parts exchanged before and after.
  let swap = p.inverse == 1u;
#else
  let swap = false;
#endif
#for j in 0..INS
  {
#if V == 4
    let a = x[2u * (src + ${j}u * inner)];
    let b = x[2u * (src + ${j}u * inner) + 1u];
    let r = vec4<f32>(a.x, a.z, b.x, b.z);
    let i = vec4<f32>(a.y, a.w, b.y, b.w);
#else
    let a = x[src + ${j}u * inner];
    let r = a.x;
    let i = a.y;
#endif
    re[$j] = select(r, i, swap);
    im[$j] = select(i, r, swap);
  }
#endfor
#endif

#if KIND == real
  var re: array<T, $M>;
  var im: array<T, $M>;
  dft_real(&v, &re, &im);
  let edge = p.edge;
  let bulk = p.bulk;
#for k in 0..M
#if k == 0 || 2 * k == N
  put(dst + ${k}u * inner, re[$k] * edge, im[$k] * edge);
#else
  put(dst + ${k}u * inner, re[$k] * bulk, im[$k] * bulk);
#endif
#endfor
#elif KIND == half
  var v: array<T, $N>;
  dft_half(&re, &im, p.edge, p.bulk, &v);
#for j in 0..N
  y[dst + ${j}u * inner] = v[$j];
#endfor
#elif KIND == filter
  dft(&re, &im);
  let sign = select(1.0, -1.0, p.inverse == 1u);
#for k in 0..N
  {
    let at = ${k}u * inner + i % inner;
#if V == 4
    let a = w[2u * at];
    let b = w[2u * at + 1u];
    let wr = vec4<f32>(a.x, a.z, b.x, b.z);
    let wi = sign * vec4<f32>(a.y, a.w, b.y, b.w);
#else
    let wr = w[at].x;
    let wi = sign * w[at].y;
#endif
    let r = re[$k] * wr - im[$k] * wi;
    im[$k] = re[$k] * wi + im[$k] * wr;
    re[$k] = r;
  }
#endfor
  dft(&im, &re);
#for k in 0..N
  put(dst + ${k}u * inner, re[$k], im[$k]);
#endfor
#else
  dft(&re, &im);
#for k in 0..N
  put(dst + ${k}u * inner, select(re[$k], im[$k], swap), select(im[$k], re[$k], swap));
#endfor
#endif
}
#endif
#endif
