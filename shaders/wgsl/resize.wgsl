// Images at other sizes and samples at other positions, NHWC, U channels an invocation.
//   nearest, bilinear      y = x sampled; positions are whole numbers over a denominator, so that weights are exact
//   unnearest, unbilinear  their adjoints: every pixel looks for the samples it is part of
//   sample                 y = x at the positions of a grid, bilinear
//   sample_grid            gradient for the grid, one position an invocation
//   sample_x               gradient for x: one channel unit of one image an invocation, positions in order, for a range of
//                          its pixels; without atomics and always in the same order
//   corners                the pixels around the positions of a grid, for composing derivatives from other operations
#import divide

#kernel nearest_$U : U in 1 4
#kernel unnearest_$U : U in 1 4
#kernel bilinear_$U : U in 1 4
#kernel unbilinear_$U : U in 1 4
#kernel sample_$U : U in 1 4
#kernel sample_grid_$U : U in 1 4
#kernel sample_x_$U : U in 1 4
#kernel corners : U=1

#if U == 4
#define F vec4<f32>
#else
#define F f32
#endif

#if KERNEL == nearest || KERNEL == unnearest || KERNEL == bilinear || KERNEL == unbilinear
// Output o lies at max(o * m + m0, 0) / d of the input (bilinear).
struct ResizeParams {
  n: u32, // units of the result
  gx: u32, // workgroups in x of the folded grid
  c: u32, // units of a pixel
  h: u32, w: u32,
  oh: u32, ow: u32,
  my: i32, my0: i32, dy: i32,
  mx: i32, mx0: i32, dx: i32,
}
var<immediate> p: ResizeParams;
@group(0) @binding(0) var<storage, read> x: array<$F>;
@group(0) @binding(1) var<storage, read_write> y: array<$F>;

struct Place {
  low: u32, // the pixel before the position
  high: u32, // the pixel after it; the same one at the end
  f: f32, // distance from the first
}

// Where output o lies in the input.
fn place(o: u32, size: u32, m: i32, m0: i32, d: i32) -> Place {
  let q = sg_divide(u32(max(i32(o) * m + m0, 0)), u32(d));
  let low = min(q.x, size - 1u);
  return Place(low, min(low + 1u, size - 1u), f32(q.y) / f32(d));
}

// Share of output o that comes from input i of size.
fn share(o: u32, i: u32, size: u32, m: i32, m0: i32, d: i32) -> f32 {
  let at = place(o, size, m, m0, d);
  return select(0.0, 1.0 - at.f, at.low == i) + select(0.0, at.f, at.high == i);
}

// First and past-last output that may hold input i.
fn holders(i: u32, size: u32, count: u32, m: i32, m0: i32, d: i32) -> vec2<u32> {
  if (m == 0) {
    return vec2<u32>(0u, count);
  }
  let first = sg_divide(u32(max(d * (i32(i) - 1) - m0, 0)), u32(m)).x;
  let end = min(sg_divide(u32(max(d * (i32(i) + 1) - m0, 0)), u32(m)).x + 1u, count);
  return vec2<u32>(select(first, 0u, i == 0u), select(end, count, i + 1u == size));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.n) {
    let pixel = sg_divide(i, p.c);
    let c = pixel.y;
#if KERNEL == nearest || KERNEL == bilinear
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
#endif
#if KERNEL == nearest
    y[i] = x[base + (sg_divide(oy * p.h, p.oh).x * p.w + sg_divide(ox * p.w, p.ow).x) * p.c];
#elif KERNEL == unnearest
    var sum = $F(0.0);
    let y0 = sg_divide(iy * p.oh + p.h - 1u, p.h).x;
    let y1 = sg_divide((iy + 1u) * p.oh + p.h - 1u, p.h).x;
    let x0 = sg_divide(ix * p.ow + p.w - 1u, p.w).x;
    let x1 = sg_divide((ix + 1u) * p.ow + p.w - 1u, p.w).x;
    for (var oy = y0; oy < y1; oy++) {
      for (var ox = x0; ox < x1; ox++) {
        sum += x[base + (oy * p.ow + ox) * p.c];
      }
    }
    y[i] = sum;
#elif KERNEL == bilinear
    let ay = place(oy, p.h, p.my, p.my0, p.dy);
    let ax = place(ox, p.w, p.mx, p.mx0, p.dx);
    let top = base + ay.low * p.w * p.c;
    let bottom = base + ay.high * p.w * p.c;
    let upper = x[top + ax.low * p.c] * (1.0 - ax.f) + x[top + ax.high * p.c] * ax.f;
    let lower = x[bottom + ax.low * p.c] * (1.0 - ax.f) + x[bottom + ax.high * p.c] * ax.f;
    y[i] = upper * (1.0 - ay.f) + lower * ay.f;
#else
    let ys = holders(iy, p.h, p.oh, p.my, p.my0, p.dy);
    let xs = holders(ix, p.w, p.ow, p.mx, p.mx0, p.dx);
    var sum = $F(0.0);
    for (var oy = ys.x; oy < ys.y; oy++) {
      let wy = share(oy, iy, p.h, p.my, p.my0, p.dy);
      if (wy > 0.0) {
        for (var ox = xs.x; ox < xs.y; ox++) {
          sum += x[base + (oy * p.ow + ox) * p.c] * (wy * share(ox, ix, p.w, p.mx, p.mx0, p.dx));
        }
      }
    }
    y[i] = sum;
#endif
  }
}
#endif

#if KERNEL == sample || KERNEL == sample_grid || KERNEL == sample_x || KERNEL == corners
struct SampleParams {
  n: u32, // invocations
  gx: u32, // workgroups in x of the folded grid
  c: u32, // units of a pixel
  h: u32, w: u32,
  m: u32, // positions an image
  border: u32, // 1: positions outside move to the border; 0: pixels outside are 0
  per_range: u32, // sample_x: pixels of a range
  images: u32,
}
var<immediate> p: SampleParams;

#if KERNEL == sample
@group(0) @binding(0) var<storage, read> x: array<$F>;
@group(0) @binding(1) var<storage, read> grid: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<$F>;
#elif KERNEL == sample_grid
@group(0) @binding(0) var<storage, read> x: array<$F>;
@group(0) @binding(1) var<storage, read> grid: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<$F>;
@group(0) @binding(3) var<storage, read_write> dgrid: array<vec2<f32>>;
#elif KERNEL == sample_x
@group(0) @binding(0) var<storage, read> grid: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<$F>;
@group(0) @binding(2) var<storage, read_write> dx: array<$F>;
#else
@group(0) @binding(0) var<storage, read> grid: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> mask: array<f32>;
@group(0) @binding(3) var<storage, read_write> low: array<vec2<f32>>;
#endif

struct Place {
  corner: vec2<i32>, // the pixel up and left
  f: vec2<f32>, // distance from it
  slope: vec2<f32>, // of the position, in pixels, for the grid
}

fn place(g: vec2<f32>) -> Place {
  let size = vec2<f32>(f32(p.w), f32(p.h));
  var at = ((g + 1.0) * size - 1.0) * 0.5;
  var out: Place;
  out.slope = size * 0.5;
  if (p.border == 1u) {
    out.slope = select(vec2<f32>(0.0), out.slope, (at >= vec2<f32>(0.0)) & (at <= size - 1.0));
    at = clamp(at, vec2<f32>(0.0), size - 1.0);
  } else {
    // Far positions would overflow an integer; two pixels outside nothing is left.
    at = clamp(at, vec2<f32>(-2.0), size + 1.0);
  }
  let whole = floor(at);
  out.corner = vec2<i32>(whole);
  out.f = at - whole;
  return out;
}

fn inside(iy: i32, ix: i32) -> bool {
  return iy >= 0 && iy < i32(p.h) && ix >= 0 && ix < i32(p.w);
}

// Pixel of the image, in range for any input.
fn pixel(iy: i32, ix: i32) -> u32 {
  return u32(clamp(iy, 0, i32(p.h) - 1)) * p.w + u32(clamp(ix, 0, i32(p.w) - 1));
}

#if KERNEL == sample || KERNEL == sample_grid
fn fetch(base: u32, iy: i32, ix: i32) -> $F {
  if (inside(iy, ix)) {
    return x[base + pixel(iy, ix) * p.c];
  }
  return $F(0.0);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 64u + lid;
  if (i < p.n) {
#if KERNEL == sample
    let q = sg_divide(i, p.c);
    let at = place(grid[q.x]);
    let base = sg_divide(q.x, p.m).x * p.h * p.w * p.c + q.y;
    let iy = at.corner.y;
    let ix = at.corner.x;
    let top = fetch(base, iy, ix) * (1.0 - at.f.x) + fetch(base, iy, ix + 1) * at.f.x;
    let bottom = fetch(base, iy + 1, ix) * (1.0 - at.f.x) + fetch(base, iy + 1, ix + 1) * at.f.x;
    y[i] = top * (1.0 - at.f.y) + bottom * at.f.y;
#elif KERNEL == sample_grid
    let at = place(grid[i]);
    let base = (i / p.m) * p.h * p.w * p.c;
    let iy = at.corner.y;
    let ix = at.corner.x;
    var sx = $F(0.0);
    var sy = $F(0.0);
    for (var c = 0u; c < p.c; c++) {
      let v00 = fetch(base + c, iy, ix);
      let v01 = fetch(base + c, iy, ix + 1);
      let v10 = fetch(base + c, iy + 1, ix);
      let v11 = fetch(base + c, iy + 1, ix + 1);
      let g = dy[i * p.c + c];
      sx += g * ((v01 - v00) * (1.0 - at.f.y) + (v11 - v10) * at.f.y);
      sy += g * ((v10 - v00) * (1.0 - at.f.x) + (v11 - v01) * at.f.x);
    }
#if U == 4
    dgrid[i] = vec2<f32>(sx.x + sx.y + sx.z + sx.w, sy.x + sy.y + sy.z + sy.w) * at.slope;
#else
    dgrid[i] = vec2<f32>(sx, sy) * at.slope;
#endif
#elif KERNEL == sample_x
    // Neighbouring invocations: channels, then images, then ranges.
    let q = i / p.c;
    let c = i - q * p.c;
    let range = q / p.images;
    let b = q - range * p.images;
    let first = range * p.per_range;
    let base = b * p.h * p.w * p.c + c;
    for (var o = b * p.m; o < (b + 1u) * p.m; o++) {
      let at = place(grid[o]);
      let iy = at.corner.y;
      let ix = at.corner.x;
#for k in 0..4
      {
        let t = pixel(iy + ${k / 2}, ix + ${k % 2});
        // t - first wraps where t is below the range.
        if (inside(iy + ${k / 2}, ix + ${k % 2}) && t - first < p.per_range) {
#if k / 2 == 0
          let wy = 1.0 - at.f.y;
#else
          let wy = at.f.y;
#endif
#if k % 2 == 0
          let wx = 1.0 - at.f.x;
#else
          let wx = at.f.x;
#endif
          dx[base + t * p.c] += dy[o * p.c + c] * (wy * wx);
        }
      }
#endfor
    }
#else
    let at = place(grid[i]);
    low[i] = vec2<f32>(at.corner);
#for k in 0..4
    index[${k}u * p.n + i] = (i / p.m) * p.h * p.w + pixel(at.corner.y + ${k / 2}, at.corner.x + ${k % 2});
    mask[${k}u * p.n + i] = select(0.0, 1.0, inside(at.corner.y + ${k / 2}, at.corner.x + ${k % 2}));
#endfor
#endif
  }
}
#endif
