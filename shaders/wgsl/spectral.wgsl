// y = irfft2(rfft2(x) w): images [n][N][N][c] filtered by one learned spectrum [N][N / 2 + 1][c] in one pass. An invocation
// has one image plane (V: of 1 or 4 channels) whose half spectrum stays in private memory; only the image and the filter
// are read, only the image is written. Planes of 28 and more take a driver that computes on a processor half a minute to
// compile; they are filtered in three passes (fft.wgsl).
#define M ${N / 2 + 1}
#define GROUP 64

#kernel spectral_$N_$V : N in 4 7 8 14 16, V in 1 4, F=1

#if V == 4
alias T = vec4<f32>;
#define PAIRS vec4<f32>
#else
alias T = f32;
#define PAIRS vec2<f32>
#endif
#import dft

struct SpectralParams {
  items: u32,
  gx: u32,
  inner: u32, // channels in groups of V
  sign: f32, // of the imaginary part of the filter
}
var<immediate> p: SpectralParams;
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read> w: array<$PAIRS>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
  let inner = p.inner;
  let channel = i % inner;
  let plane = i / inner * ${N * N}u * inner + channel;
  let sign = p.sign;
  var re: array<T, ${N * M}>;
  var im: array<T, ${N * M}>;

  // Rows, real to half spectrum.
  for (var row = 0u; row < ${N}u; row += 1u) {
    let first = plane + row * ${N}u * inner;
    var v: array<T, $N>;
    var a: array<T, $M>;
    var b: array<T, $M>;
#for j in 0..N
    v[$j] = x[first + ${j}u * inner];
#endfor
    dft_real(&v, &a, &b);
#for k in 0..M
    re[row * ${M}u + ${k}u] = a[$k];
    im[row * ${M}u + ${k}u] = b[$k];
#endfor
  }

  // Columns: transform, multiply, and back (the transform with real and imaginary parts exchanged before and after).
  for (var column = 0u; column < ${M}u; column += 1u) {
    var a: array<T, $N>;
    var b: array<T, $N>;
#for j in 0..N
    a[$j] = re[${j * M}u + column];
    b[$j] = im[${j * M}u + column];
#endfor
    dft(&a, &b);
#for j in 0..N
    {
      let at = (${j * M}u + column) * inner + channel;
#if V == 4
      let c = w[2u * at];
      let d = w[2u * at + 1u];
      let wr = vec4<f32>(c.x, c.z, d.x, d.z);
      let wi = sign * vec4<f32>(c.y, c.w, d.y, d.w);
#else
      let c = w[at];
      let wr = c.x;
      let wi = sign * c.y;
#endif
      let r = a[$j] * wr - b[$j] * wi;
      b[$j] = a[$j] * wi + b[$j] * wr;
      a[$j] = r;
    }
#endfor
    dft(&b, &a);
#for k in 0..N
    re[${k * M}u + column] = a[$k];
    im[${k * M}u + column] = b[$k];
#endfor
  }

  // Rows, half spectrum to real.
  for (var row = 0u; row < ${N}u; row += 1u) {
    let first = plane + row * ${N}u * inner;
    var v: array<T, $N>;
    var a: array<T, $M>;
    var b: array<T, $M>;
#for k in 0..M
    a[$k] = re[row * ${M}u + ${k}u];
    b[$k] = im[row * ${M}u + ${k}u];
#endfor
    dft_half(&a, &b, 1.0 / ${N * N}.0, 2.0 / ${N * N}.0, &v);
#for j in 0..N
    y[first + ${j}u * inner] = v[$j];
#endfor
  }
}
