// The gradient of a convolution for its weights: for every output channel k and column j = (tap, input quad), the sum
// over pixels of dy[pixel][k] * x[pixel moved by the tap][quad]. Channels come in quads, as in conv.wgsl. The pixels are
// split by image rows; each split writes its own sums, which conv_sum adds in order.
// conv_weight_s8_*  lanes are columns, JL of them each; dy is held across the lanes and broadcast.
//                   32: a load of dy serves one pixel with 32 channels; 16: two pixels with 16.
// conv_weight_p     for any device: an invocation holds 8 channels x 2 columns.
#kernel conv_weight_s8_${K}_$JL : K in 32, JL in 1
#kernel conv_weight_s8_${K}_$JL : K in 16, JL in 1 2
#kernel conv_weight_p : K=8, JL=2

struct WeightParams {
    // Images: number, height, width, channel quads per group.
    n: u32, h: u32, w: u32, cq: u32,
    // dy: height, width, channel quads and channels per group.
    oh: u32, ow: u32, kq: u32, kg: u32,
    r: u32, s: u32, groups: u32,
    sy: u32, sx: u32, py: u32, px: u32, dy: u32, dx: u32,
    gx: u32, jtiles: u32, ktiles: u32, tiles: u32, rows: u32,
}
var<immediate> p: WeightParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;

#if KERNEL == conv_weight_s8
#define GROUP 8
#define PIXELS (32 / K)
#else
#define GROUP 32
#define PIXELS 1
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let columns = p.r * p.s * p.cq;
#if KERNEL == conv_weight_s8
    let tile = wid.y * p.gx + wid.x;
    if (tile >= p.tiles) {
        return;
    }
#else
    let tile = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (tile >= p.tiles) {
        return;
    }
#endif
    let kt = tile % p.ktiles;
    let gj = tile / p.ktiles;
#if KERNEL == conv_weight_s8
    let jt = (gj % p.jtiles) * ${8 * JL}u + lid;
#define APART 8
#else
    let jt = (gj % p.jtiles) * ${JL}u;
#define APART 1
#endif
    let gs = gj / p.jtiles;
    let group = gs % p.groups;
    let split = gs / p.groups;
    let pixel = p.groups * p.cq;
    let outs = p.groups * p.kq;
#for u in 0..JL
    let live$u = jt + ${APART * u}u < columns;
    let j$u = min(jt + ${APART * u}u, columns - 1u);
    let tap$u = j$u / p.cq;
    let fy$u = i32(tap$u / p.s * p.dy) - i32(p.py);
    let fx$u = i32(tap$u % p.s * p.dx) - i32(p.px);
    let q$u = group * p.cq + j$u % p.cq;
#for k in 0..K
    var c${u}_$k = vec4<f32>(0.0);
#endfor
#endfor
#if KERNEL == conv_weight_s8
    // Which pixel and which four channels of dy this lane holds.
    let mine = lid / ${K / 4}u;
    let held_at = group * p.kq + min(kt * ${K / 4}u + lid % ${K / 4}u, p.kq - 1u);
#else
#for k in 0..(K / 4)
    let held_at$k = group * p.kq + min(kt * ${K / 4}u + ${k}u, p.kq - 1u);
#endfor
#endif
    let end = min((split + 1u) * p.rows, p.n * p.oh);
    for (var row = split * p.rows; row < end; row++) {
        let image = row / p.oh;
        let y = i32((row - image * p.oh) * p.sy);
#for u in 0..JL
        let iy$u = u32(y + fy$u);
        let ok$u = iy$u < p.h;
        let base$u = (image * p.h + iy$u) * p.w;
        var ix$u = fx$u;
#endfor
        for (var col = 0u; col < p.ow; col += ${PIXELS}u) {
#if KERNEL == conv_weight_s8
#if PIXELS == 1
            let held = dy[(row * p.ow + col) * outs + held_at];
#else
            let at = col + mine;
            let there = at < p.ow;
            let held = select(vec4<f32>(0.0), dy[(row * p.ow + select(0u, at, there)) * outs + held_at], there);
#endif
#else
#for k in 0..(K / 4)
            let held$k = dy[(row * p.ow + col) * outs + held_at$k];
#endfor
#endif
#for m in 0..PIXELS
#for u in 0..JL
            let in${u}_$m = ok$u && u32(ix$u) < p.w;
            let x${u}_$m = select(vec4<f32>(0.0), x[select(0u, (base$u + u32(ix$u)) * pixel, in${u}_$m) + q$u], in${u}_$m);
            ix$u += i32(p.sx);
#endfor
#for k in 0..K
#if KERNEL == conv_weight_s8
            let d${k}_$m = vec4<f32>(subgroupBroadcast(held[${k % 4}], ${m * (K / 4) + k / 4}u));
#else
            let d${k}_$m = vec4<f32>(held${k / 4}[${k % 4}]);
#endif
#for u in 0..JL
            c${u}_$k = fma(d${k}_$m, x${u}_$m, c${u}_$k);
#endfor
#endfor
#endfor
        }
    }
    let first = split * p.groups * p.kg + group * p.kg;
#for k in 0..K
    if (kt * ${K}u + ${k}u < p.kg) {
        let at = (first + kt * ${K}u + ${k}u) * columns;
#for u in 0..JL
        if (live$u) {
            dw[at + j$u] = c${u}_$k;
        }
#endfor
    }
#endfor
}
