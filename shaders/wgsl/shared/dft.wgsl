// Discrete Fourier transforms of N points in registers, unscaled. The importer defines N, M = N / 2 + 1, F and the type T of
// a point. Twiddle factors are constant expressions, which the translator evaluates in f64; cosine and sine of the driver
// may be off by 5e-4. Sums use the symmetry of j and -j.

// Real to half spectrum: re[k] + i im[k] = sum_j v[j] e^(-2 pi i jk / N) for k < M.
fn dft_real(v: ptr<function, array<T, $N>>, re: ptr<function, array<T, $M>>, im: ptr<function, array<T, $M>>) {
#for j in 1..(N + 1) / 2
  let e$j = (*v)[$j] + (*v)[${N - j}];
  let o$j = (*v)[$j] - (*v)[${N - j}];
#endfor
#for k in 0..M
  {
#if N % 2 == 0 && k % 2 == 0
    var c = (*v)[0] + (*v)[${N / 2}];
#elif N % 2 == 0
    var c = (*v)[0] - (*v)[${N / 2}];
#else
    var c = (*v)[0];
#endif
    var s = T(0.0);
#for j in 1..(N + 1) / 2
    c += e$j * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    s -= o$j * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
    (*re)[$k] = c;
    (*im)[$k] = s;
  }
#endfor
}

// Half spectrum to real: v[j] = sum_k w[k] Re((re[k] + i im[k]) e^(2 pi i jk / N)); w is `edge` for k = 0 and the middle of an
// even N, `bulk` elsewhere.
fn dft_half(re: ptr<function, array<T, $M>>, im: ptr<function, array<T, $M>>, edge: f32, bulk: f32, v: ptr<function, array<T, $N>>) {
#for j in 0..M
  {
    var even = T(0.0);
    var odd = T(0.0);
#for k in 1..(N + 1) / 2
    even += (*re)[$k] * cos(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
    odd += (*im)[$k] * sin(6.283185307179586 * ${j * k % N}.0 / ${N}.0);
#endfor
#if N % 2 == 0 && j % 2 == 0
    let ends = edge * ((*re)[0] + (*re)[${N / 2}]);
#elif N % 2 == 0
    let ends = edge * ((*re)[0] - (*re)[${N / 2}]);
#else
    let ends = edge * (*re)[0];
#endif
    (*v)[$j] = ends + bulk * (even - odd);
#if j > 0 && 2 * j != N
    (*v)[${N - j}] = ends + bulk * (even + odd);
#endif
  }
#endfor
}

// Complex, in place: z[k] = sum_j z[j] e^(-2 pi i jk / N). N points as F (1, or even) times G: G sums of F points, then F of G.
// For the other sign exchange real and imaginary parts before and after.
fn dft(re: ptr<function, array<T, $N>>, im: ptr<function, array<T, $N>>) {
#define G ${N / F}
#for g in 0..G
#if F == 1
  let ur0_$g = (*re)[$g];
  let ui0_$g = (*im)[$g];
#else
  // Points g, g + G, ..: the factor of output k is e^(-2 pi i gk / N).
#for j in 1..F / 2
  let er${j}_$g = (*re)[${j * G + g}] + (*re)[${(F - j) * G + g}];
  let ei${j}_$g = (*im)[${j * G + g}] + (*im)[${(F - j) * G + g}];
  let or${j}_$g = (*re)[${j * G + g}] - (*re)[${(F - j) * G + g}];
  let oi${j}_$g = (*im)[${j * G + g}] - (*im)[${(F - j) * G + g}];
#endfor
#for k in 0..F / 2 + 1
#if k % 2 == 0
  var cr${k}_$g = (*re)[$g] + (*re)[${F / 2 * G + g}];
  var ci${k}_$g = (*im)[$g] + (*im)[${F / 2 * G + g}];
#else
  var cr${k}_$g = (*re)[$g] - (*re)[${F / 2 * G + g}];
  var ci${k}_$g = (*im)[$g] - (*im)[${F / 2 * G + g}];
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
      (*re)[${f + F * k}] = cr + si;
      (*im)[${f + F * k}] = ci - sr;
#if k > 0 && 2 * k != G
      (*re)[${f + F * (G - k)}] = cr - si;
      (*im)[${f + F * (G - k)}] = ci + sr;
#endif
    }
#endfor
  }
#endfor
}
