// Pooling of NHWC images, U channels an invocation. M names the windows: a fixed kernel (window), as many as needed to
// cover the image (adaptive), a fixed kernel of which only the part on the image counts (inside), or, for the adjoints, a
// kernel that tiles the image exactly (tiles).
//   max     y = largest element of the window, arg = its pixel iy * w + ix, the first on ties; NaN wins
//   pick    y = x at arg: the adjoint of unmax
//   unmax   dx = sum of dy over the windows whose largest element this is; every pixel looks for its windows
//   avg     y = sum over the window / its area (window: kh * kw, also where it reaches past the
//           image; adaptive and inside: its pixels)
//   unavg   dx = sum of dy / area over the windows that hold the pixel
#import divide

#kernel max_$U_$M : U in 1 4, M in window adaptive
#kernel avg_$U_$M : U in 1 4, M in window adaptive inside
#kernel unmax_$U_$M : U in 1 4, M in window adaptive tiles
#kernel unavg_$U_$M : U in 1 4, M in window adaptive inside tiles
#kernel pick_$U : U in 1 4

struct PoolParams {
  n: u32, // units of the result (tiles: of dy)
  gx: u32, // workgroups in x of the folded grid
  c: u32, // units of a pixel
  h: u32, w: u32, // image
  oh: u32, ow: u32, // windows
  kh: u32, kw: u32,
  sh: u32, sw: u32,
  ph: u32, pw: u32, // padding before the first row and column
  scale: f32, // 1 / (kh * kw)
}
var<immediate> p: PoolParams;

#if U == 4
#define F vec4<f32>
#define I vec4<u32>
#else
#define F f32
#define I u32
#endif

#if KERNEL == max
@group(0) @binding(0) var<storage, read> x: array<$F>;
@group(0) @binding(1) var<storage, read_write> y: array<$F>;
@group(0) @binding(2) var<storage, read_write> arg: array<$I>;
#elif KERNEL == avg
@group(0) @binding(0) var<storage, read> x: array<$F>;
@group(0) @binding(1) var<storage, read_write> y: array<$F>;
#elif KERNEL == pick
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> arg: array<$I>;
@group(0) @binding(2) var<storage, read_write> y: array<$F>;
#elif KERNEL == unmax
@group(0) @binding(0) var<storage, read> dy: array<$F>;
@group(0) @binding(1) var<storage, read> arg: array<$I>;
@group(0) @binding(2) var<storage, read_write> dx: array<$F>;
#else
@group(0) @binding(0) var<storage, read> dy: array<$F>;
@group(0) @binding(1) var<storage, read_write> dx: array<$F>;
#endif

// First and past-last pixel of window o along one axis.
fn span(o: u32, size: u32, count: u32, kernel: u32, stride: u32, padding: u32) -> vec2<u32> {
#if M == adaptive
  return vec2<u32>(sg_divide(o * size, count).x, sg_divide((o + 1u) * size + count - 1u, count).x);
#else
  let a = o * stride;
  return vec2<u32>(max(a, padding) - padding, min(max(a + kernel, padding) - padding, size));
#endif
}

// First and past-last window that holds pixel i along one axis.
fn holders(i: u32, size: u32, count: u32, kernel: u32, stride: u32, padding: u32) -> vec2<u32> {
#if M == adaptive
  return vec2<u32>(sg_divide(i * count, size).x, sg_divide((i + 1u) * count + size - 1u, size).x);
#else
  let a = i + padding;
  return vec2<u32>(sg_divide(max(a + stride, kernel) - kernel, stride).x, min(sg_divide(a, stride).x + 1u, count));
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    let pixel = sg_divide(i, p.c);
    let c = pixel.y;
#if KERNEL == max || KERNEL == avg || KERNEL == pick || M == tiles
    let row = sg_divide(pixel.x, p.ow);
    let ox = row.y;
    let image = sg_divide(row.x, p.oh);
    let oy = image.y;
    let base = image.x * p.h * p.w * p.c + c;
#else
    let row = sg_divide(pixel.x, p.w);
    let ix = row.y;
    let image = sg_divide(row.x, p.h);
    let iy = image.y;
    let base = image.x * p.oh * p.ow * p.c + c;
    let ys = holders(iy, p.h, p.oh, p.kh, p.sh, p.ph);
    let xs = holders(ix, p.w, p.ow, p.kw, p.sw, p.pw);
#endif
#if KERNEL == max || KERNEL == avg
    let ys = span(oy, p.h, p.oh, p.kh, p.sh, p.ph);
    let xs = span(ox, p.w, p.ow, p.kw, p.sw, p.pw);
#endif
#if KERNEL == max
    var at = ys.x * p.w + xs.x;
    var best = x[base + at * p.c];
    var place = $I(at);
    for (var iy = ys.x; iy < ys.y; iy++) {
      for (var ix = xs.x; ix < xs.y; ix++) {
        at = iy * p.w + ix;
        let v = x[base + at * p.c];
        // NaN by its bits: comparisons with it may be optimised away.
        let better = (v > best) | ((bitcast<$I>(v) & $I(0x7fffffffu)) > $I(0x7f800000u));
        // A NaN found earlier stays.
        let keep = (bitcast<$I>(best) & $I(0x7fffffffu)) > $I(0x7f800000u);
        place = select(place, $I(at), better & !keep);
        best = select(best, v, better & !keep);
      }
    }
    y[i] = best;
    arg[i] = place;
#elif KERNEL == avg
    var sum = $F(0.0);
    for (var iy = ys.x; iy < ys.y; iy++) {
      for (var ix = xs.x; ix < xs.y; ix++) {
        sum += x[base + (iy * p.w + ix) * p.c];
      }
    }
#if M == adaptive || M == inside
    y[i] = sum / f32((ys.y - ys.x) * (xs.y - xs.x));
#else
    y[i] = sum * p.scale;
#endif
#elif KERNEL == pick
    let at = min(arg[i], $I(p.h * p.w - 1u));
#if U == 4
    let four = at * (4u * p.c) + vec4<u32>(4u * base) + vec4<u32>(0u, 1u, 2u, 3u);
    y[i] = vec4<f32>(x[four.x], x[four.y], x[four.z], x[four.w]);
#else
    y[i] = x[base + at * p.c];
#endif
#elif M == tiles
    let g = dy[i];
#if KERNEL == unmax
    let at = arg[i];
#endif
    for (var ky = 0u; ky < p.kh; ky++) {
      for (var kx = 0u; kx < p.kw; kx++) {
        let to = (oy * p.kh + ky) * p.w + ox * p.kw + kx;
#if KERNEL == unmax
        dx[base + to * p.c] = select($F(0.0), g, at == $I(to));
#else
        dx[base + to * p.c] = g * p.scale;
#endif
      }
    }
#else
    var sum = $F(0.0);
    for (var oy = ys.x; oy < ys.y; oy++) {
      for (var ox = xs.x; ox < xs.y; ox++) {
        let o = base + (oy * p.ow + ox) * p.c;
#if KERNEL == unmax
        sum += select($F(0.0), dy[o], arg[o] == $I(iy * p.w + ix));
#elif M == adaptive || M == inside
        let wy = span(oy, p.h, p.oh, p.kh, p.sh, p.ph);
        let wx = span(ox, p.w, p.ow, p.kw, p.sw, p.pw);
        sum += dy[o] / f32((wy.y - wy.x) * (wx.y - wx.x));
#else
        sum += dy[o] * p.scale;
#endif
      }
    }
    dx[i] = sum;
#endif
  }
}
