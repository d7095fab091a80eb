// Depthwise convolution: every channel has its own weights, here as [tap][channel quad]. An invocation holds one channel
// quad of a strip of neighbouring pixels.
//   fwd, bwd   as in conv.wgsl. S = 0: any geometry. Other S: stride 1, S columns of taps at distance D, where the strip's
//              window slides through registers and every pixel is read once a row.
//   conv_depthwise_weight_*   the gradient for the weights: an invocation holds one quad under up to T taps of one row,
//              and sums over a split of the image rows; conv_sum adds the splits. SLIDE = 0: any geometry; otherwise
//              stride 1 and dilation SLIDE along the row, where the window slides.
#kernel conv_depthwise_${MODE}_$S : MODE in fwd bwd, S in 0 3 5 7, D=1
#kernel conv_depthwise_${MODE}_${S}_dilated : MODE in fwd bwd, S in 3 5, D=2
#kernel conv_depthwise_weight_${SLIDE}_$T : SLIDE in 0 1 2, T in 3 4 5, MODE=fwd, S=0, D=1
#define GROUP 64
#import conv

#if KERNEL == conv_depthwise
// Here mtiles is the strips of a row, ktiles the rows of an image (both of the largest phase), tiles the invocations.
#if S == 0
#define STRIP 4
#else
#define STRIP 8
#endif
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let id = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (id >= p.tiles) {
        return;
    }
    let q = id % p.cq;
    let strip = id / p.cq;
    let line = strip / p.mtiles;
    let image_phase = line / p.ktiles;
    let image = image_phase % p.n;
    let phase = image_phase / p.n;
    let ay = conv_axis(phase / p.sx, p.oh, p.r, p.sy, p.py, p.dy, p.ty);
    let ax = conv_axis(phase % p.sx, p.ow, p.s, p.sx, p.px, p.dx, p.tx);
    let row = line % p.ktiles;
    let col = strip % p.mtiles * ${STRIP}u;
    if (row >= ay.count || col >= ax.count) {
        return;
    }
    var start = vec4<f32>(0.0);
    if (p.bias != 0u) {
        start = bias[q];
    }
#for j in 0..STRIP
    var c$j = start;
#endfor
    var iy = i32(row) * ay.step + ay.base;
    for (var r = ay.tap; r < p.r; r += p.ty) {
        if (u32(iy) < p.h) {
            let at = (image * p.h + u32(iy)) * p.w;
#if S == 0
            var ix = i32(col) * ax.step + ax.base;
            for (var s = ax.tap; s < p.s; s += p.tx) {
                let tap = w[(r * p.s + s) * p.cq + q];
#for j in 0..STRIP
                let ix$j = u32(ix + $j * ax.step);
                let ok$j = ix$j < p.w;
                c$j = fma(select(vec4<f32>(0.0), x[select(0u, at + ix$j, ok$j) * p.cq + q], ok$j), tap, c$j);
#endfor
                ix += ax.hop;
            }
#else
#if MODE == fwd
            let left = i32(col) + ax.base;
#else
            let left = i32(col) + ax.base - ${(S - 1) * D};
#endif
#for e in 0..(STRIP + (S - 1) * D)
            let ix$e = u32(left + $e);
            let ok$e = ix$e < p.w;
            let v$e = select(vec4<f32>(0.0), x[select(0u, at + ix$e, ok$e) * p.cq + q], ok$e);
#endfor
#for t in 0..S
            let tap$t = w[(r * ${S}u + ${t}u) * p.cq + q];
#for j in 0..STRIP
#if MODE == fwd
            c$j = fma(v${j + t * D}, tap$t, c$j);
#else
            c$j = fma(v${j + (S - 1 - t) * D}, tap$t, c$j);
#endif
#endfor
#endfor
#endif
        }
        iy += ay.hop;
    }
    let to = (image * p.oh + row * ay.spread + ay.first) * p.ow + ax.first;
#for j in 0..STRIP
    if (col + ${j}u < ax.count) {
        y[(to + (col + ${j}u) * ax.spread) * p.cq + q] = c$j;
    }
#endfor
}
#endif

#if KERNEL == conv_depthwise_weight
// Here mtiles is the blocks of T taps in a row of taps, ktiles the image rows of a split, tiles the invocations; oh and
// ow are the size of dy.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;

fn fetch(base: u32, column: i32, q: u32) -> vec4<f32> {
    let there = u32(column) < p.w;
    return select(vec4<f32>(0.0), x[select(0u, base + u32(column), there) * p.cq + q], there);
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let id = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (id >= p.tiles) {
        return;
    }
    let q = id % p.cq;
    let block = id / p.cq;
    let s = block % p.mtiles * ${T}u;
    let r = block / p.mtiles % p.r;
    let split = block / p.mtiles / p.r;
#for t in 0..T
    var c$t = vec4<f32>(0.0);
#endfor
    let end = min((split + 1u) * p.ktiles, p.n * p.oh);
    for (var row = split * p.ktiles; row < end; row++) {
        let image = row / p.oh;
        let iy = u32(i32((row - image * p.oh) * p.sy + r * p.dy) - i32(p.py));
        if (iy < p.h) {
            let base = (image * p.h + iy) * p.w;
            var ix = i32(s * p.dx) - i32(p.px);
#if SLIDE
#for t in 0..(SLIDE * (T - 1))
            var v$t = fetch(base, ix + $t, q);
#endfor
#endif
            for (var col = 0u; col < p.ow; col++) {
                let d = dy[(row * p.ow + col) * p.cq + q];
#if SLIDE
                let v${SLIDE * (T - 1)} = fetch(base, ix + ${SLIDE * (T - 1)}, q);
#for t in 0..T
                c$t = fma(d, v${t * SLIDE}, c$t);
#endfor
#for t in 0..(SLIDE * (T - 1))
                v$t = v${t + 1};
#endfor
                ix += 1;
#else
#for t in 0..T
                c$t = fma(d, fetch(base, ix + i32(${t}u * p.dx), q), c$t);
#endfor
                ix += i32(p.sx);
#endif
            }
        }
    }
#for t in 0..T
    if (s + ${t}u < p.s) {
        dw[((split * p.r + r) * p.s + s + ${t}u) * p.cq + q] = c$t;
    }
#endfor
}
#endif
