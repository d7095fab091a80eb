// Operations on batches of byte images, each pixel one word: red in the lowest byte, opacity in the highest; grey images
// have their value three times.
//   pack_C     bytes of chosen images of C channels to words, opaque
//   operate    one operation for each image, read from a record of eight words, one image a workgroup
//   unpack_C   words to bytes of C channels: 1 grey, 2 grey and opacity, 3 colour, 4 colour and opacity
#define GROUP 256

#kernel pack_$C : C in 1 3
#kernel operate
#kernel unpack_$C : C in 1 2 3 4

#if KERNEL == pack
struct PackParams { items: u32, gx: u32, images: u32, pixels: u32 }
var<immediate> p: PackParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.items) {
    let b = i / p.pixels;
    let at = (min(chosen[b], p.images - 1u) * p.pixels + (i - b * p.pixels)) * ${C}u;
#if C == 1
    let v = (x[at / 4u] >> (8u * (at & 3u))) & 0xffu;
    y[i] = 0xff000000u | (v * 0x010101u);
#else
    // Three bytes may lie in two words.
    let shift = 8u * (at & 3u);
    let low = x[at / 4u] >> shift;
    let high = select(x[(at + 2u) / 4u] << (32u - shift), 0u, shift < 16u);
    y[i] = 0xff000000u | ((low | high) & 0xffffffu);
#endif
  }
}
#endif

#if KERNEL == unpack
struct UnpackParams { items: u32, gx: u32, bytes: u32 }
var<immediate> p: UnpackParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i < p.items) {
    var word = 0u;
#for k in 0..4
    if (4u * i + ${k}u < p.bytes) {
      let pixel = (4u * i + ${k}u) / ${C}u;
      let channel = 4u * i + ${k}u - pixel * ${C}u;
#if C == 2
      let source = 3u * channel;
#else
      let source = channel;
#endif
      word |= ((x[pixel] >> (8u * source)) & 0xffu) << ${8 * k}u;
    }
#endfor
    y[i] = word;
  }
}
#endif

#if KERNEL == operate
// none: 0, which the compiler does not know.
struct OperateParams { images: u32, gx: u32, w: u32, h: u32, fill: u32, none: u32 }
var<immediate> p: OperateParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
// For each image: kind, number, and for kind 1 six numbers of 16.16 bits.
@group(0) @binding(1) var<storage, read> records: array<u32>;
// For each lowest and highest value: where stretching in double precision falls one short of a whole number.
@group(0) @binding(2) var<storage, read> short: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

const AFFINE: u32 = 1u;
const AUTO_CONTRAST: u32 = 2u;
const EQUALIZE: u32 = 3u;
const SOLARIZE: u32 = 4u;
const POSTERIZE: u32 = 5u;
const COLOR: u32 = 6u;
const CONTRAST: u32 = 7u;
const BRIGHTNESS: u32 = 8u;

var<workgroup> bins: array<atomic<u32>, 768>;
var<workgroup> total: atomic<u32>;
var<workgroup> lut: array<u32, 768>;

fn byte(v: u32, c: u32) -> u32 {
  return (v >> (8u * c)) & 0xffu;
}

fn rgb(v: u32) -> vec3<u32> {
  return vec3<u32>(v & 0xffu, (v >> 8u) & 0xffu, (v >> 16u) & 0xffu);
}

fn joined(c: vec3<u32>, opacity: u32) -> u32 {
  return c.x | (c.y << 8u) | (c.z << 16u) | (opacity & 0xff000000u);
}

fn grey(v: u32) -> u32 {
  let c = rgb(v);
  return (19595u * c.x + 38470u * c.y + 7471u * c.z + 32768u) >> 16u;
}

// d + f (v - d), cut to a whole number and to a byte. The product is rounded before the sum on every device: what passes
// through the exclusive or cannot be fused with the addition.
fn blend(d: vec3<u32>, v: vec3<u32>, f: f32) -> vec3<u32> {
  let product = f * vec3<f32>(vec3<i32>(v) - vec3<i32>(d));
  let rounded = bitcast<vec3<f32>>(bitcast<vec3<u32>>(product) ^ vec3<u32>(p.none));
  return vec3<u32>(clamp(vec3<f32>(d) + rounded, vec3<f32>(0.0), vec3<f32>(255.0)));
}

// The table of channel c from its histogram.
fn build(c: u32, kind: u32) {
  let base = 256u * c;
  var low = 256u;
  var high = 0u;
  for (var i = 0u; i < 256u; i++) {
    if (atomicLoad(&bins[base + i]) > 0u) {
      low = min(low, i);
      high = i;
    }
  }
  let size = p.w * p.h;
  let step = (size - atomicLoad(&bins[base + high])) / 255u;
  let flat = high <= low || (kind == EQUALIZE && step == 0u);
  var sum = step / 2u;
  // 255 / distance has this many whole multiples; where it is exact there is nothing to fall short.
  let distance = max(high, low + 1u) - low;
  let parts = select(1u, 3u, distance % 3u == 0u) * select(1u, 5u, distance % 5u == 0u) * select(1u, 17u, distance % 17u == 0u);
  let falls = select(0u, short[min(low, 255u) * 256u + high], parts <= 17u);
  for (var i = 0u; i < 256u; i++) {
    var v = i;
    if (!flat) {
      if (kind == EQUALIZE) {
        v = min(255u, sum / step);
        sum += atomicLoad(&bins[base + i]);
      } else {
        let over = 255u * (clamp(i, low, high) - low);
        v = over / distance;
        if (over % distance == 0u && v > 0u) {
          v -= (falls >> (v * parts / 255u - 1u)) & 1u;
        }
      }
    }
    lut[base + i] = v;
  }
}

fn smoothed(base: u32, cx: u32, cy: u32) -> vec3<u32> {
  var sum = 4u * rgb(x[base + cy * p.w + cx]);
  for (var dy = 0u; dy < 3u; dy++) {
    for (var dx = 0u; dx < 3u; dx++) {
      sum += rgb(x[base + (cy + dy - 1u) * p.w + cx + dx - 1u]);
    }
  }
  // A thirteenth, rounded: never half way.
  return (2u * sum + vec3<u32>(13u)) / vec3<u32>(26u);
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  // The last row of a folded grid may be longer than needed: such a group does the last image and writes nothing.
  let place = wid.y * p.gx + wid.x;
  let image = min(place, p.images - 1u);
  let size = p.w * p.h;
  let base = image * size;
  let kind = records[8u * image];
  let number = records[8u * image + 1u];
  for (var i = lid; i < 768u; i += ${GROUP}u) {
    atomicStore(&bins[i], 0u);
  }
  if (lid == 0u) {
    atomicStore(&total, 0u);
  }
  workgroupBarrier();
  if (kind == AUTO_CONTRAST || kind == EQUALIZE) {
    for (var i = lid; i < size; i += ${GROUP}u) {
      let v = x[base + i];
      atomicAdd(&bins[byte(v, 0u)], 1u);
      atomicAdd(&bins[256u + byte(v, 1u)], 1u);
      atomicAdd(&bins[512u + byte(v, 2u)], 1u);
    }
  } else if (kind == CONTRAST) {
    var sum = 0u;
    for (var i = lid; i < size; i += ${GROUP}u) {
      sum += grey(x[base + i]);
    }
    atomicAdd(&total, sum);
  }
  workgroupBarrier();
  if ((kind == AUTO_CONTRAST || kind == EQUALIZE) && lid < 3u) {
    build(lid, kind);
  }
  workgroupBarrier();
  let mean = (2u * atomicLoad(&total) + size) / (2u * size);
  let factor = bitcast<f32>(number);
  // Where the place in the input of an output pixel begins and how it moves with column and row.
  let r = 8u * image + 2u;
  let m = array<i32, 6>(
    bitcast<i32>(records[r]), bitcast<i32>(records[r + 1u]), bitcast<i32>(records[r + 2u]),
    bitcast<i32>(records[r + 3u]), bitcast<i32>(records[r + 4u]), bitcast<i32>(records[r + 5u]));
  for (var i = lid; i < size && place < p.images; i += ${GROUP}u) {
    let v = x[base + i];
    let c = rgb(v);
    let row = i / p.w;
    let column = i - row * p.w;
    var out = v;
    if (kind == AFFINE) {
      let u = (m[0] + m[1] * i32(column) + m[2] * i32(row)) >> 16u;
      let w = (m[3] + m[4] * i32(column) + m[5] * i32(row)) >> 16u;
      let inside = u >= 0 && w >= 0 && u < i32(p.w) && w < i32(p.h);
      let at = select(0u, u32(w) * p.w + u32(u), inside);
      out = select(p.fill, x[base + at], inside);
    } else if (kind == AUTO_CONTRAST || kind == EQUALIZE) {
      out = joined(vec3<u32>(lut[c.x], lut[256u + c.y], lut[512u + c.z]), 0xff000000u);
    } else if (kind == SOLARIZE) {
      out = joined(select(vec3<u32>(255u) - c, c, c < vec3<u32>(number)), 0xff000000u);
    } else if (kind == POSTERIZE) {
      out = joined(c & vec3<u32>(number), 0xff000000u);
    } else if (kind >= COLOR) {
      var d = vec3<u32>(0u);
      if (kind == COLOR) {
        d = vec3<u32>(grey(v));
      } else if (kind == CONTRAST) {
        d = vec3<u32>(mean);
      } else if (kind > BRIGHTNESS) {
        d = c;
        if (row > 0u && column > 0u && row + 1u < p.h && column + 1u < p.w) {
          d = smoothed(base, column, row);
        }
      }
      out = joined(blend(d, c, factor), v);
    }
    y[base + i] = out;
  }
}
#endif
