// One-dimensional Fourier transforms along one axis of a tensor seen as [outer][n][inner]: the rows and columns of the
// two-dimensional ones. An invocation has one line (V: of 1 or 4 neighbours in `inner`) in registers, so neighbouring
// invocations read neighbouring memory and nothing is shared. Complex numbers are stored as pairs.
//   fft_real_n   real to half spectrum: y[k] = s w[k] sum_j x[j] e^(-2 pi i jk / n), k <= n / 2
//   fft_half_n   half spectrum to real: x[j] = s sum_k w[k] Re(y[k] e^(2 pi i jk / n))
//   fft_full_n   complex to complex, either sign
//   fft_any_*    the same for any n, one output an invocation
// s w[k] is `edge` for k = 0 and the middle of an even n, `bulk` elsewhere. Twiddle factors of known n are constant
// expressions, which the translator evaluates in f64; cosine and sine of the driver may be off by 5e-4.
// n points as F times G: G sums of F points, then F of G; F = 1 is the plain sum. Sums use the symmetry of j and -j.
#define GROUP 64

#kernel fft_real_$N_$V : N in 2 4 7 8 14 16 28 32, V in 1 4, KIND=real
#kernel fft_real_$N_1 : N in 56 64, V=1, KIND=real
#kernel fft_half_$N_$V : N in 2 4 7 8 14 16 28 32, V in 1 4, KIND=half
#kernel fft_half_$N_1 : N in 56 64, V=1, KIND=half
#kernel fft_full_$N_$V : N in 2 4 7 8 14 16, V in 1 4, KIND=full, F=1
#kernel fft_full_$N_$V : N in 28 32, V in 1 4, KIND=full, F=4
#kernel fft_full_$N_1 : N in 56 64, V=1, KIND=full, F=8
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
  inverse: u32, // full: the sign of the exponent is plus
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
fn at(i: u32, j: u32, n: u32) -> u32 {
  return (i / p.inner * n + j) * p.inner + i % p.inner;
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
#if KIND == real
  let src = at(i, 0u, ${N}u);
  let dst = at(i, 0u, ${N / 2 + 1}u);
#elif KIND == half
  let src = at(i, 0u, ${N / 2 + 1}u);
  let dst = at(i, 0u, ${N}u);
#else
  let src = at(i, 0u, ${N}u);
#endif

#if KIND == real
#for j in 0..N
  let v$j = x[src + ${j}u * p.inner];
#endfor
#for j in 1..(N + 1) / 2
  let e$j = v$j + v${N - j};
  let o$j = v$j - v${N - j};
#endfor
#for k in 0..N / 2 + 1
  {
#if N % 2 == 0 && k % 2 == 0
    var re = v0 + v${N / 2};
#elif N % 2 == 0
    var re = v0 - v${N / 2};
#else
    var re = v0;
#endif
    var im = T(0.0);
#for j in 1..(N + 1) / 2
    re += e$j * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    im -= o$j * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
#if k == 0 || 2 * k == N
    put(dst + ${k}u * p.inner, re * p.edge, im * p.edge);
#else
    put(dst + ${k}u * p.inner, re * p.bulk, im * p.bulk);
#endif
  }
#endfor

#else
#if KIND == half
#define M ${N / 2 + 1}
#else
#define M $N
#endif
#for j in 0..M
#if V == 4
  let a$j = x[2u * (src + ${j}u * p.inner)];
  let b$j = x[2u * (src + ${j}u * p.inner) + 1u];
  let r$j = vec4<f32>(a$j.x, a$j.z, b$j.x, b$j.z);
  let i$j = vec4<f32>(a$j.y, a$j.w, b$j.y, b$j.w);
#else
  let a$j = x[src + ${j}u * p.inner];
  let r$j = a$j.x;
  let i$j = a$j.y;
#endif
#endfor
#endif

#if KIND == half
#for j in 0..N / 2 + 1
  {
    var even = T(0.0);
    var odd = T(0.0);
#for k in 1..(N + 1) / 2
    even += r$k * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    odd += i$k * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
#if N % 2 == 0 && j % 2 == 0
    let ends = p.edge * (r0 + r${N / 2});
#elif N % 2 == 0
    let ends = p.edge * (r0 - r${N / 2});
#else
    let ends = p.edge * r0;
#endif
    y[dst + ${j}u * p.inner] = ends + p.bulk * (even - odd);
#if j > 0 && 2 * j != N
    y[dst + ${N - j}u * p.inner] = ends + p.bulk * (even + odd);
#endif
  }
#endfor
#endif

#if KIND == full
#define G ${N / F}
  // The inverse is the transform with real and imaginary parts exchanged before and after.
  let swap = p.inverse == 1u;
#for j in 0..N
  let vr$j = select(r$j, i$j, swap);
  let vi$j = select(i$j, r$j, swap);
#endfor
#for g in 0..G
#if F == 1
  let ur0_$g = vr$g;
  let ui0_$g = vi$g;
#else
  // F (even) points g, g + G, ..: the factor of output k is e^(-2 pi i gk / n).
#for j in 1..F / 2
  let er${j}_$g = vr${j * G + g} + vr${(F - j) * G + g};
  let ei${j}_$g = vi${j * G + g} + vi${(F - j) * G + g};
  let or${j}_$g = vr${j * G + g} - vr${(F - j) * G + g};
  let oi${j}_$g = vi${j * G + g} - vi${(F - j) * G + g};
#endfor
#for k in 0..F / 2 + 1
#if k % 2 == 0
  var cr${k}_$g = vr$g + vr${F / 2 * G + g};
  var ci${k}_$g = vi$g + vi${F / 2 * G + g};
#else
  var cr${k}_$g = vr$g - vr${F / 2 * G + g};
  var ci${k}_$g = vi$g - vi${F / 2 * G + g};
#endif
  var sr${k}_$g = T(0.0);
  var si${k}_$g = T(0.0);
#for j in 1..F / 2
  cr${k}_$g += er${j}_$g * cos(6.283185307179586 * ${j * k % F}.0 / ${F}.0);
  ci${k}_$g += ei${j}_$g * cos(6.283185307179586 * ${j * k % F}.0 / ${F}.0);
  sr${k}_$g += or${j}_$g * sin(6.283185307179586 * ${j * k % F}.0 / ${F}.0);
  si${k}_$g += oi${j}_$g * sin(6.283185307179586 * ${j * k % F}.0 / ${F}.0);
#endfor
#endfor
#for k in 0..F
#define Q ${(k < F - k) * k + (k >= F - k) * (F - k) * (k > 0)}
#if k <= F / 2
  let tr${k}_$g = cr${Q}_$g + si${Q}_$g;
  let ti${k}_$g = ci${Q}_$g - sr${Q}_$g;
#else
  let tr${k}_$g = cr${Q}_$g - si${Q}_$g;
  let ti${k}_$g = ci${Q}_$g + sr${Q}_$g;
#endif
  let ur${k}_$g = tr${k}_$g * cos(6.283185307179586 * ${g * k % N}.0 / ${N}.0) + ti${k}_$g * sin(6.283185307179586 * ${g * k % N}.0 / ${N}.0);
  let ui${k}_$g = ti${k}_$g * cos(6.283185307179586 * ${g * k % N}.0 / ${N}.0) - tr${k}_$g * sin(6.283185307179586 * ${g * k % N}.0 / ${N}.0);
#endfor
#endif
#endfor

#for f in 0..F
  {
#for j in 1..(G + 1) / 2
    let er$j = ur${f}_$j + ur${f}_${G - j};
    let ei$j = ui${f}_$j + ui${f}_${G - j};
    let or$j = ur${f}_$j - ur${f}_${G - j};
    let oi$j = ui${f}_$j - ui${f}_${G - j};
#endfor
#for k in 0..G / 2 + 1
    {
#if G % 2 == 0 && k % 2 == 0
      var cr = ur${f}_0 + ur${f}_${G / 2};
      var ci = ui${f}_0 + ui${f}_${G / 2};
#elif G % 2 == 0
      var cr = ur${f}_0 - ur${f}_${G / 2};
      var ci = ui${f}_0 - ui${f}_${G / 2};
#else
      var cr = ur${f}_0;
      var ci = ui${f}_0;
#endif
      var sr = T(0.0);
      var si = T(0.0);
#for j in 1..(G + 1) / 2
      cr += er$j * cos(6.283185307179586 * ${j * k % G}.0 / ${G}.0);
      ci += ei$j * cos(6.283185307179586 * ${j * k % G}.0 / ${G}.0);
      sr += or$j * sin(6.283185307179586 * ${j * k % G}.0 / ${G}.0);
      si += oi$j * sin(6.283185307179586 * ${j * k % G}.0 / ${G}.0);
#endfor
      put(src + ${f + F * k}u * p.inner, select(cr + si, ci - sr, swap), select(ci - sr, cr + si, swap));
#if k > 0 && 2 * k != G
      put(src + ${f + F * (G - k)}u * p.inner, select(cr - si, ci + sr, swap), select(ci + sr, cr - si, swap));
#endif
    }
#endfor
  }
#endfor
#endif
}
#endif
#endif
