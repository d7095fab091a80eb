// Training images on their way to the network.
//   augment_*  bytes of chosen images to normalised floats, with random crop, mirror image and cutout in one pass;
//              C channels, P output pixels of one row an invocation
//   packed_*   the same from a batch whose pixels are words (see pixels.wgsl): transparent ones become 0
//   mix_*      weights times a batch plus weights times the same batch in another order, the weights differing inside a
//              rectangle: mixup, cutmix and their adjoints
//   soft_*     targets of mixed labels
#import philox

#kernel augment_$C_$P : C in 1 2 3 4, P in 1 4
#kernel packed_$C : C in 1 3, P=1
#kernel mix_$V : V in 1 4
#kernel soft_targets

#if KERNEL == augment || KERNEL == packed
struct AugmentParams {
  items: u32, // invocations
  gx: u32,
  images: u32,
  reflect: u32, // beyond the edge: 0 black, 1 mirrored without repeating the edge, 2 the mean
  h: u32,
  w: u32,
  oh: u32,
  ow: u32,
  pad: u32,
  cutout: u32, // side of the square, 0 for none
  flip: u32, // an image is mirrored if the upper 24 bits of its word are below this
  seed_lo: u32,
  seed_hi: u32,
  stream_lo: u32,
  stream_hi: u32,
  // value = byte * scale + bias
  scale: vec4<f32>,
  bias: vec4<f32>,
}
var<immediate> p: AugmentParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;
#if P == 4
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#endif

// i mirrored into 0..n; one reflection is enough because the padding is less than n.
fn mirrored(i: i32, n: i32) -> i32 {
  let low = abs(i);
  return clamp(select(low, 2 * (n - 1) - low, low >= n), 0, n - 1);
}

fn pixel(image: u32, oy: u32, ox: u32, draw: vec4<u32>) -> vec4<f32> {
  // Where the window lies in the padded image: equally likely places, by the upper half of a product.
  let dy = sg_mulhi(draw.x, p.h + 2u * p.pad - p.oh + 1u);
  let dx = sg_mulhi(draw.y, p.w + 2u * p.pad - p.ow + 1u);
  let flip = (draw.z >> 8u) < p.flip;
  let column = select(ox, p.ow - 1u - ox, flip);
  var sy = i32(oy + dy) - i32(p.pad);
  var sx = i32(column + dx) - i32(p.pad);
  let inside = sy >= 0 && sy < i32(p.h) && sx >= 0 && sx < i32(p.w);
  sy = mirrored(sy, i32(p.h));
  sx = mirrored(sx, i32(p.w));
#if KERNEL == packed
  let word = x[(image * p.h + u32(sy)) * p.w + u32(sx)];
  let solid = word >= 0x01000000u;
  var bytes = vec4<f32>(f32(word & 0xffu), f32((word >> 8u) & 0xffu), f32((word >> 16u) & 0xffu), 0.0);
#else
  let solid = true;
  let at = ((image * p.h + u32(sy)) * p.w + u32(sx)) * ${C}u;
  let first = x[at / 4u];
#if C == 3
  // Three bytes may lie in two words.
  let second = x[(at + 2u) / 4u];
#endif
  var bytes = vec4<f32>(0.0);
#for c in 0..C
  {
    let b = (at & 3u) + ${c}u;
#if C == 3
    let word = select(first, second, b >= 4u);
#else
    let word = first;
#endif
    bytes[$c] = f32((word >> (8u * (b & 3u))) & 0xffu);
  }
#endfor
#endif
  // Reflection shows pixels of the image, which may be transparent; black padding hides what it lies over.
  let mean = select(!solid, p.reflect == 2u, !inside && p.reflect != 1u);
  bytes = select(vec4<f32>(0.0), bytes, inside || p.reflect == 1u);
  // The square's centre is any pixel of the result; it may reach beyond the edge.
  let cy = ((draw.w >> 16u) * p.oh) >> 16u;
  let cx = ((draw.w & 0xffffu) * p.ow) >> 16u;
  let ty = oy + p.cutout / 2u - cy;
  let tx = ox + p.cutout / 2u - cx;
  return select(bytes * p.scale + p.bias, vec4<f32>(0.0), mean || (ty < p.cutout && tx < p.cutout));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 64u + lid;
  if (i >= p.items) {
    return;
  }
  let row = p.ow / ${P}u;
  let ox = i % row * ${P}u;
  let oy = i / row % p.oh;
#if KERNEL == packed
  let image = i / (row * p.oh);
  let name = chosen[image];
#else
  let image = min(chosen[i / (row * p.oh)], p.images - 1u);
  let name = image;
#endif
  let draw = sg_random(name, vec2<u32>(p.seed_lo, p.seed_hi), vec2<u32>(p.stream_lo, p.stream_hi));
#for q in 0..P
  let v$q = pixel(image, oy, ox + ${q}u, draw);
#endfor
#if P == 4
#for o in 0..C
  y[i * ${C}u + ${o}u] = vec4<f32>(v${4 * o / C}[${4 * o % C}], v${(4 * o + 1) / C}[${(4 * o + 1) % C}], v${(4 * o + 2) / C}[${(4 * o + 2) % C}], v${(4 * o + 3) / C}[${(4 * o + 3) % C}]);
#endfor
#else
#for c in 0..C
  y[i * ${C}u + ${c}u] = v0[$c];
#endfor
#endif
}
#endif

#if KERNEL == mix
// The sample is [h][w][c], of `inner` groups of V elements; the rectangle y0..y1, x0..x1.
struct MixParams {
  items: u32,
  gx: u32,
  inner: u32,
  batch: u32,
  w: u32,
  c: u32,
  y0: u32,
  x0: u32,
  y1: u32,
  x1: u32,
  own_out: f32,
  own_in: f32,
  other_out: f32,
  other_in: f32,
}
var<immediate> p: MixParams;
#if V == 4
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
#endif
@group(0) @binding(1) var<storage, read> partner: array<u32>;
#if V == 4
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#endif

fn inside(f: u32) -> bool {
  let px = f / p.c % p.w;
  let py = f / (p.c * p.w);
  return px >= p.x0 && px < p.x1 && py >= p.y0 && py < p.y1;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.items) {
    let b = i / p.inner;
    let f = i - b * p.inner;
    let own = x[i];
    let other = x[min(partner[b], p.batch - 1u) * p.inner + f];
#if V == 4
    let within = vec4<bool>(inside(4u * f), inside(4u * f + 1u), inside(4u * f + 2u), inside(4u * f + 3u));
    let a = select(vec4<f32>(p.own_out), vec4<f32>(p.own_in), within);
    let o = select(vec4<f32>(p.other_out), vec4<f32>(p.other_in), within);
#else
    let a = select(p.own_out, p.own_in, inside(f));
    let o = select(p.other_out, p.other_in, inside(f));
#endif
    y[i] = a * own + o * other;
  }
}
#endif

#if KERNEL == soft_targets
struct SoftParams {
  items: u32,
  gx: u32,
  classes: u32,
  batch: u32,
  lambda: f32,
  rest: f32, // 1 - lambda
}
var<immediate> p: SoftParams;
@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> partner: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * 256u + lid;
  if (i < p.items) {
    let b = i / p.classes;
    let k = i - b * p.classes;
    let other = labels[min(partner[b], p.batch - 1u)];
    y[i] = select(0.0, p.lambda, labels[b] == k) + select(0.0, p.rest, other == k);
  }
}
#endif
