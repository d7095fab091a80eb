// The gradient of a convolution for its weights: for every output channel k and column j = (tap, input quad), the sum
// over pixels of dy[pixel][k] * x[pixel moved by the tap][quad]. Channels come in quads, as in conv.wgsl. The pixels are
// split by image rows; each split writes its own sums, which conv_sum adds in order.
// conv_weight_s8_*  lanes are columns, JL of them each; dy is held across the lanes and broadcast.
//                   32: a load of dy serves one pixel with 32 channels; 16: two pixels with 16.
// conv_weight_p     for any device: an invocation holds 8 channels x 2 columns.
// conv_weight_tile_*  for graphics cards: tiles of BM channels x BN / 4 columns out of workgroup memory in two buffers, 8 x
//                   8 an invocation; splits are of pixels, not of rows, and the sum runs over them in steps of sixteen.
#kernel conv_weight_s8_${K}_$JL : K in 32, JL in 1
#kernel conv_weight_s8_${K}_$JL : K in 16, JL in 1 2
#kernel conv_weight_p : K=8, JL=2
#kernel conv_weight_tile_${BM}_$BN : BM in 32 64, BN in 64
#kernel conv_weight_tile_${BM}_$BN : BM in 16, BN in 128
// The same with x and dy as halves; sums are floats.
#kernel conv_weight_s8_${K}_${JL}_$H : K in 32, JL in 1, H in half
#kernel conv_weight_s8_${K}_${JL}_$H : K in 16, JL in 1 2, H in half
#kernel conv_weight_p_$H : H in half, K=8, JL=2
#kernel conv_weight_tile_${BM}_${BN}_$H : BM in 32 64, BN in 64, H in half
#kernel conv_weight_tile_${BM}_${BN}_$H : BM in 16, BN in 128, H in half

struct WeightParams {
    // Images: number, height, width, channel quads per group.
    n: u32, h: u32, w: u32, cq: u32,
    // dy: height, width, channel quads and channels per group.
    oh: u32, ow: u32, kq: u32, kg: u32,
    r: u32, s: u32, groups: u32,
    sy: u32, sx: u32, py: u32, px: u32, dy: u32, dx: u32,
    gx: u32, jtiles: u32, ktiles: u32, tiles: u32,
    // Image rows, or pixels, of one split.
    rows: u32,
}
var<immediate> p: WeightParams;
#if defined(H)
#import half
@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec2<u32>>;
fn xq(i: u32) -> vec4<f32> { return unpack4(x[i]); }
fn dq(i: u32) -> vec4<f32> { return unpack4(dy[i]); }
#else
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
fn xq(i: u32) -> vec4<f32> { return x[i]; }
fn dq(i: u32) -> vec4<f32> { return dy[i]; }
#endif
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;

#if KERNEL != conv_weight_tile
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
            let held = dq((row * p.ow + col) * outs + held_at);
#else
            let at = col + mine;
            let there = at < p.ow;
            let held = select(vec4<f32>(0.0), dq((row * p.ow + select(0u, at, there)) * outs + held_at), there);
#endif
#else
#for k in 0..(K / 4)
            let held$k = dq((row * p.ow + col) * outs + held_at$k);
#endfor
#endif
#for m in 0..PIXELS
#for u in 0..JL
            let in${u}_$m = ok$u && u32(ix$u) < p.w;
            let x${u}_$m = select(vec4<f32>(0.0), xq(select(0u, (base$u + u32(ix$u)) * pixel, in${u}_$m) + q$u), in${u}_$m);
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
#else
#define GROUP (BM * BN / 64)
#define AQ (BM / 4)
#define BQ (BN / 4)
#define TX (BN / 8)
#define LOADS_A (16 * AQ / GROUP)
#define LOADS_B (16 * BQ / GROUP)
// Distance of the pixels that one invocation loads.
#define HOP_A (GROUP / AQ)
#define HOP_B (GROUP / BQ)

// [buffer][16 pixels][channel quads or columns].
var<workgroup> td: array<vec4<f32>, ${2 * 16 * AQ}>;
var<workgroup> tx: array<vec4<f32>, ${2 * 16 * BQ}>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tile = wid.y * p.gx + wid.x;
    if (tile >= p.tiles) {
        return;
    }
    let kt = tile % p.ktiles;
    let gj = tile / p.ktiles;
    let jt = gj % p.jtiles;
    let gs = gj / p.jtiles;
    let group = gs % p.groups;
    let split = gs / p.groups;
    let columns = p.r * p.s * p.cq;
    let pixel = p.groups * p.cq;
    let outs = p.groups * p.kq;
    let first = split * p.rows;
    let end = min(first + p.rows, p.n * p.oh * p.ow);
    let steps = (end - first + 15u) / 16u;
    // What this invocation loads: one quad of dy and one column of x, of several pixels.
    let row_a = lid / ${AQ}u;
    let quad_a = kt * ${AQ}u + lid % ${AQ}u;
    let live_a = quad_a < p.kq;
    let at_a = group * p.kq + min(quad_a, p.kq - 1u);
    let row_b = lid / ${BQ}u;
    let j = jt * ${BQ}u + lid % ${BQ}u;
    let live_b = j < columns;
    let tap = j / p.cq;
    let fy = i32(tap / p.s * p.dy) - i32(p.py);
    let fx = i32(tap % p.s * p.dx) - i32(p.px);
    let at_b = group * p.cq + j % p.cq;
#for u in 0..LOADS_A
    var a$u = vec4<f32>(0.0);
#endfor
#for u in 0..LOADS_B
    var b$u = vec4<f32>(0.0);
#endfor
    let tx_at = lid % ${TX}u;
    let ty_at = lid / ${TX}u;
#for i in 0..8
#for h in 0..2
    var c${i}_$h = vec4<f32>(0.0);
#endfor
#endfor
    for (var step = 0u; step <= steps; step++) {
        if (step < steps) {
            let m = first + step * 16u;
#for u in 0..LOADS_A
            {
                let at = m + row_a + ${u * HOP_A}u;
                let ok = live_a && at < end;
                a$u = select(vec4<f32>(0.0), dq(select(0u, at * outs, ok) + at_a), ok);
            }
#endfor
            var at = m + row_b;
            var col = at % p.ow;
            var line = at / p.ow;
            var row = line % p.oh;
            var image = line / p.oh;
#for u in 0..LOADS_B
            {
                let iy = u32(i32(row * p.sy) + fy);
                let ix = u32(i32(col * p.sx) + fx);
                let ok = live_b && at < end && iy < p.h && ix < p.w;
                b$u = select(vec4<f32>(0.0), xq(select(0u, ((image * p.h + iy) * p.w + ix) * pixel, ok) + at_b), ok);
            }
#if u + 1 < LOADS_B
            at += ${HOP_B}u;
            col += ${HOP_B}u;
            while (col >= p.ow) {
                col -= p.ow;
                row++;
                if (row == p.oh) {
                    row = 0u;
                    image++;
                }
            }
#endif
#endfor
        }
        if (step > 0u) {
            let from_d = ((step - 1u) % 2u) * ${16 * AQ}u;
            let from_x = ((step - 1u) % 2u) * ${16 * BQ}u;
            for (var k = 0u; k < 16u; k += 4u) {
#for c in 0..4
                {
#for h in 0..2
                    let f$h = td[from_d + (k + ${c}u) * ${AQ}u + ty_at + ${h * AQ / 2}u];
                    let g$h = tx[from_x + (k + ${c}u) * ${BQ}u + tx_at + ${h * BQ / 2}u];
#endfor
#for i in 0..8
#for h in 0..2
                    c${i}_$h = fma(vec4<f32>(f${i / 4}[${i % 4}]), g$h, c${i}_$h);
#endfor
#endfor
                }
#endfor
            }
        }
        if (step < steps) {
            let to_d = (step % 2u) * ${16 * AQ}u + lid;
            let to_x = (step % 2u) * ${16 * BQ}u + lid;
#for u in 0..LOADS_A
            td[to_d + ${u * GROUP}u] = a$u;
#endfor
#for u in 0..LOADS_B
            tx[to_x + ${u * GROUP}u] = b$u;
#endfor
        }
        workgroupBarrier();
    }
#for i in 0..8
    {
        let k = (kt * ${AQ}u + ty_at + ${i / 4 * (AQ / 2)}u) * 4u + ${i % 4}u;
        if (k < p.kg) {
            let to = ((split * p.groups + group) * p.kg + k) * columns;
#for h in 0..2
            {
                let column = jt * ${BQ}u + tx_at + ${h * BQ / 2}u;
                if (column < columns) {
                    dw[to + column] = c${i}_$h;
                }
            }
#endfor
        }
    }
#endfor
}
#endif
