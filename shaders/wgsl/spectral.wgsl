// y = irfft2(rfft2(x) w): images [n][N][N][c] filtered by one learned spectrum [N][N / 2 + 1][c] in one pass. An invocation
// has one image plane (V: of 1 or 4 channels) whose half spectrum stays in private memory; only the image and the filter
// are read, only the image is written. The transforms are those of fft.wgsl: sums that use the symmetry of j and -j, with
// twiddle factors as constant expressions.
#define GROUP 64
#define M ${N / 2 + 1}

#kernel spectral_$N_$V : N in 7 8 14 16, V in 1 4

#if V == 4
alias T = vec4<f32>;
#else
alias T = f32;
#endif

struct SpectralParams {
  items: u32,
  gx: u32,
  inner: u32, // channels in groups of V
  sign: f32, // of the imaginary part of the filter
}
var<immediate> p: SpectralParams;
@group(0) @binding(0) var<storage, read> x: array<T>;
#if V == 4
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read> w: array<vec2<f32>>;
#endif
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
  let channel = i % p.inner;
  let plane = i / p.inner * ${N * N}u * p.inner + channel;
  var re: array<T, ${N * M}>;
  var im: array<T, ${N * M}>;

  // Rows, real to half spectrum.
  for (var row = 0u; row < ${N}u; row += 1u) {
    let first = plane + row * ${N}u * p.inner;
#for j in 0..N
    let v$j = x[first + ${j}u * p.inner];
#endfor
#for j in 1..(N + 1) / 2
    let e$j = v$j + v${N - j};
    let o$j = v$j - v${N - j};
#endfor
#for k in 0..M
    {
#if N % 2 == 0 && k % 2 == 0
      var c = v0 + v${N / 2};
#elif N % 2 == 0
      var c = v0 - v${N / 2};
#else
      var c = v0;
#endif
      var s = T(0.0);
#for j in 1..(N + 1) / 2
      c += e$j * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
      s -= o$j * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
      re[row * ${M}u + ${k}u] = c;
      im[row * ${M}u + ${k}u] = s;
    }
#endfor
  }

  // Columns: transform, multiply, and back (the transform with real and imaginary parts exchanged before and after).
  for (var column = 0u; column < ${M}u; column += 1u) {
#for pass in 0..2
#for j in 0..N
#if pass == 0
    let vr0_$j = re[${j * M}u + column];
    let vi0_$j = im[${j * M}u + column];
#else
#if V == 4
    let a$j = w[2u * ((${j * M}u + column) * p.inner + channel)];
    let b$j = w[2u * ((${j * M}u + column) * p.inner + channel) + 1u];
    let wr$j = vec4<f32>(a$j.x, a$j.z, b$j.x, b$j.z);
    let wi$j = p.sign * vec4<f32>(a$j.y, a$j.w, b$j.y, b$j.w);
#else
    let a$j = w[(${j * M}u + column) * p.inner + channel];
    let wr$j = a$j.x;
    let wi$j = p.sign * a$j.y;
#endif
    let vi1_$j = zr0_$j * wr$j - zi0_$j * wi$j;
    let vr1_$j = zr0_$j * wi$j + zi0_$j * wr$j;
#endif
#endfor
#for j in 1..(N + 1) / 2
    let er${pass}_$j = vr${pass}_$j + vr${pass}_${N - j};
    let ei${pass}_$j = vi${pass}_$j + vi${pass}_${N - j};
    let or${pass}_$j = vr${pass}_$j - vr${pass}_${N - j};
    let oi${pass}_$j = vi${pass}_$j - vi${pass}_${N - j};
#endfor
#for k in 0..M
#if N % 2 == 0 && k % 2 == 0
    var cr${pass}_$k = vr${pass}_0 + vr${pass}_${N / 2};
    var ci${pass}_$k = vi${pass}_0 + vi${pass}_${N / 2};
#elif N % 2 == 0
    var cr${pass}_$k = vr${pass}_0 - vr${pass}_${N / 2};
    var ci${pass}_$k = vi${pass}_0 - vi${pass}_${N / 2};
#else
    var cr${pass}_$k = vr${pass}_0;
    var ci${pass}_$k = vi${pass}_0;
#endif
    var sr${pass}_$k = T(0.0);
    var si${pass}_$k = T(0.0);
#for j in 1..(N + 1) / 2
    cr${pass}_$k += er${pass}_$j * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    ci${pass}_$k += ei${pass}_$j * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    sr${pass}_$k += or${pass}_$j * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    si${pass}_$k += oi${pass}_$j * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
    let zr${pass}_$k = cr${pass}_$k + si${pass}_$k;
    let zi${pass}_$k = ci${pass}_$k - sr${pass}_$k;
#if k > 0 && 2 * k != N
    let zr${pass}_${N - k} = cr${pass}_$k - si${pass}_$k;
    let zi${pass}_${N - k} = ci${pass}_$k + sr${pass}_$k;
#endif
#endfor
#endfor
#for k in 0..N
    re[${k * M}u + column] = zi1_$k;
    im[${k * M}u + column] = zr1_$k;
#endfor
  }

  // Rows, half spectrum to real.
  for (var row = 0u; row < ${N}u; row += 1u) {
    let first = plane + row * ${N}u * p.inner;
#for k in 0..M
    let r$k = re[row * ${M}u + ${k}u];
    let i$k = im[row * ${M}u + ${k}u];
#endfor
#for j in 0..M
    {
      var even = T(0.0);
      var odd = T(0.0);
#for k in 1..(N + 1) / 2
      even += r$k * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
      odd += i$k * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
#if N % 2 == 0 && j % 2 == 0
      let ends = r0 + r${N / 2};
#elif N % 2 == 0
      let ends = r0 - r${N / 2};
#else
      let ends = r0;
#endif
      y[first + ${j}u * p.inner] = (ends + 2.0 * (even - odd)) * (1.0 / ${N * N}.0);
#if j > 0 && 2 * j != N
      y[first + ${N - j}u * p.inner] = (ends + 2.0 * (even + odd)) * (1.0 / ${N * N}.0);
#endif
    }
#endfor
  }
}
