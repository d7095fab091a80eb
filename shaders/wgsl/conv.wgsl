// Dense convolution of NHWC images as an implicit matrix product: rows are pixels, columns are output channels, and the
// sum runs over taps and input channels. Channels come in quads (multiples of four per group; the host pads others).
//   fwd   y = conv(x, w)               weights [group][out][r][s][in quads]
//   bwd   dx = gradient for the image  weights [group][in][r][s][out quads], image = dy
// conv_s8_*  for drivers that run on the processor in subgroups of eight, where a load costs as much as tens of
//            multiplications: a lane holds 4 pixels x K channels; it loads the weights of one or two channels and the
//            others get them by broadcast.
// conv_p_*   for any device: an invocation holds 4 pixels x 8 channels.
// conv_tile_*  for graphics cards: tiles of BM pixels x BN channels out of workgroup memory in two buffers, 8 x 8 an
//            invocation. The sum runs over (tap, channel quad) in steps of four quads, so that a few channels under many
//            taps fill a step as well as many channels do.
#kernel conv_s8_${MODE}_$K : MODE in fwd bwd, K in 8 16
#kernel conv_p_$MODE : MODE in fwd bwd, K=8
#kernel conv_tile_${MODE}_${BM}_$BN : MODE in fwd bwd, BM in 64 128, BN in 64
#kernel conv_tile_${MODE}_${BM}_$BN : MODE in fwd bwd, BM in 128, BN in 16 32
// The same with images and weights as halves; sums, bias and result are floats.
#kernel conv_s8_${MODE}_${K}_$H : MODE in fwd bwd, K in 8 16, H in half
#kernel conv_p_${MODE}_$H : MODE in fwd bwd, H in half, K=8
#kernel conv_tile_${MODE}_${BM}_${BN}_$H : MODE in fwd bwd, BM in 64 128, BN in 64, H in half
#kernel conv_tile_${MODE}_${BM}_${BN}_$H : MODE in fwd bwd, BM in 128, BN in 16 32, H in half
#import conv

#if defined(H)
#import half
@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
fn xq(i: u32) -> vec4<f32> { return unpack4(x[i]); }
fn wq(i: u32) -> vec4<f32> { return unpack4(w[i]); }
#else
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
fn xq(i: u32) -> vec4<f32> { return x[i]; }
fn wq(i: u32) -> vec4<f32> { return w[i]; }
#endif
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

#if KERNEL != conv_tile
#if KERNEL == conv_s8
#define GROUP 8
#else
#define GROUP 32
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tile = wid.y * p.gx + wid.x;
    if (tile >= p.tiles) {
        return;
    }
    let kt = tile % p.ktiles;
    let gm = tile / p.ktiles;
    let group = gm % p.groups;
    let mc = gm / p.groups;
    let phase = mc / p.mtiles;
    let ay = conv_axis(phase / p.sx, p.oh, p.r, p.sy, p.py, p.dy, p.ty);
    let ax = conv_axis(phase % p.sx, p.ow, p.s, p.sx, p.px, p.dx, p.tx);
    let total = p.n * ay.count * ax.count;
    let m0 = (mc % p.mtiles) * ${4 * GROUP}u;
    if (m0 >= total) {
        return;
    }
    let m = m0 + lid * 4u;
    // Four consecutive pixels: where each reads (row, column, first row of its image) and writes.
    var col = m % ax.count;
    var row = m / ax.count % ay.count;
    var image = m / ax.count / ay.count;
#for j in 0..4
    let live$j = m + ${j}u < total;
    let iy$j = i32(row) * ay.step + ay.base;
    let ix$j = i32(col) * ax.step + ax.base;
    let top$j = image * p.h;
    let out$j = (image * p.oh + row * ay.spread + ay.first) * p.ow + col * ax.spread + ax.first;
#if j < 3
    col++;
    if (col == ax.count) {
        col = 0u;
        row++;
        if (row == ay.count) {
            row = 0u;
            image++;
        }
    }
#endif
#endfor
    let pixel = p.groups * p.cq;
    let taps = p.r * p.s * p.cq;
#if KERNEL == conv_s8
#for u in 0..(K / 8)
    let ch$u = group * p.kg + min(kt * ${K}u + ${8 * u}u + lid, p.kg - 1u);
    var b$u = 0.0;
    if (p.bias != 0u) {
        b$u = bias[ch$u];
    }
#endfor
#for k in 0..K
    let bias$k = subgroupBroadcast(b${k / 8}, ${k % 8}u);
#endfor
#else
#for k in 0..K
    let ch$k = group * p.kg + min(kt * ${K}u + ${k}u, p.kg - 1u);
    var bias$k = 0.0;
    if (p.bias != 0u) {
        bias$k = bias[ch$k];
    }
#endfor
#endif
#for j in 0..4
#for k in 0..K
    var c${j}_$k = bias$k;
#endfor
#endfor
    var fy = 0;
    for (var r = ay.tap; r < p.r; r += p.ty) {
        var fx = 0;
        for (var s = ax.tap; s < p.s; s += p.tx) {
#for j in 0..4
            let ty$j = u32(iy$j + fy);
            let tx$j = u32(ix$j + fx);
            let ok$j = live$j && ty$j < p.h && tx$j < p.w;
            let i$j = select(0u, ((top$j + ty$j) * p.w + tx$j) * pixel + group * p.cq, ok$j);
#endfor
            let at = (r * p.s + s) * p.cq;
            for (var q = 0u; q < p.cq; q++) {
#for j in 0..4
                let x$j = select(vec4<f32>(0.0), xq(i$j + q), ok$j);
#endfor
#if KERNEL == conv_s8
#for u in 0..(K / 8)
                let held$u = wq(ch$u * taps + at + q);
#endfor
#endif
#for k in 0..K
#if KERNEL == conv_s8
                let w$k = subgroupBroadcast(held${k / 8}, ${k % 8}u);
#else
                let w$k = wq(ch$k * taps + at + q);
#endif
#for j in 0..4
                c${j}_$k = fma(x$j.x, w$k.x, fma(x$j.y, w$k.y, fma(x$j.z, w$k.z, fma(x$j.w, w$k.w, c${j}_$k))));
#endfor
#endfor
            }
            fx += ax.hop;
        }
        fy += ay.hop;
    }
    let outs = p.groups * p.kq;
#for k in 0..(K / 4)
    if (kt * ${K / 4}u + ${k}u < p.kq) {
        let o = group * p.kq + kt * ${K / 4}u + ${k}u;
#for j in 0..4
        if (live$j) {
            y[out$j * outs + o] = vec4<f32>(c${j}_${4 * k}, c${j}_${4 * k + 1}, c${j}_${4 * k + 2}, c${j}_${4 * k + 3});
        }
#endfor
    }
#endfor
}
#else
#define GROUP (BM * BN / 64)
#define AQ (BM / 4)
#define BQ (BN / 4)
// Columns of invocations; blocks of 4 pixels (channels) x 1 quad that each loads per step.
#define TX (BN / 8)
#define LOADS_A (BM / GROUP)
#define LOADS_B ((BN + GROUP - 1) / GROUP)

// [buffer][16 terms of the sum][pixels or channels], the columns of quad q exchanged by an exclusive or with 2 q: stores of
// neighbouring invocations would meet in one bank otherwise.
var<workgroup> tx: array<vec4<f32>, ${2 * 16 * AQ}>;
var<workgroup> tw: array<vec4<f32>, ${2 * 16 * BQ}>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tile = wid.y * p.gx + wid.x;
    if (tile >= p.tiles) {
        return;
    }
    let kt = tile % p.ktiles;
    let gm = tile / p.ktiles;
    let group = gm % p.groups;
    let mc = gm / p.groups;
    let phase = mc / p.mtiles;
    let ay = conv_axis(phase / p.sx, p.oh, p.r, p.sy, p.py, p.dy, p.ty);
    let ax = conv_axis(phase % p.sx, p.ow, p.s, p.sx, p.px, p.dx, p.tx);
    let total = p.n * ay.count * ax.count;
    let m0 = (mc % p.mtiles) * ${BM}u;
    if (m0 >= total) {
        return;
    }
    let pixel = p.groups * p.cq;
    let taps_x = (p.s - min(ax.tap, p.s) + p.tx - 1u) / p.tx;
    let taps_y = (p.r - min(ay.tap, p.r) + p.ty - 1u) / p.ty;
    let terms = taps_y * taps_x * p.cq;
    let steps = (terms + 3u) / 4u;
    let quad = lid % 4u;
    let block = lid / 4u;
    // What this invocation loads: blocks of four pixels, each with the place it reads at, and four channels.
#for u in 0..LOADS_A
#for j in 0..4
    let m${u}_$j = m0 + (block + ${u * GROUP / 4}u) * 4u + ${j}u;
    let live${u}_$j = m${u}_$j < total;
    let my${u}_$j = m${u}_$j / ax.count;
    let iy${u}_$j = i32(my${u}_$j % ay.count) * ay.step + ay.base;
    let ix${u}_$j = i32(m${u}_$j % ax.count) * ax.step + ax.base;
    let top${u}_$j = my${u}_$j / ay.count * p.h;
    var a${u}_$j = vec4<f32>(0.0);
#endfor
#endfor
#for u in 0..LOADS_B
#for j in 0..4
    let ch${u}_$j = group * p.kg + min(kt * ${BN}u + (block + ${u * GROUP / 4}u) * 4u + ${j}u, p.kg - 1u);
    var b${u}_$j = vec4<f32>(0.0);
#endfor
#endfor
    let tx_at = lid % ${TX}u;
    let ty_at = lid / ${TX}u;
#for i in 0..8
#for h in 0..2
    var c${i}_$h = vec4<f32>(0.0);
#endfor
#endfor
    // Step -1 only loads; every other step loads the next one while it computes.
    for (var step = 0u; step <= steps; step++) {
        if (step < steps) {
            let term = step * 4u + quad;
            let inside = term < terms;
            let tap = term / p.cq;
            let q = term - tap * p.cq;
            let t_y = tap / max(taps_x, 1u);
            let t_x = tap - t_y * taps_x;
            let fy = i32(t_y) * ay.hop;
            let fx = i32(t_x) * ax.hop;
            let at = select(0u, ((ay.tap + t_y * p.ty) * p.s + ax.tap + t_x * p.tx) * p.cq + q, inside);
#for u in 0..LOADS_A
#for j in 0..4
            {
                let row = u32(iy${u}_$j + fy);
                let col = u32(ix${u}_$j + fx);
                let ok = inside && live${u}_$j && row < p.h && col < p.w;
                let i = select(0u, ((top${u}_$j + row) * p.w + col) * pixel + group * p.cq + q, ok);
                a${u}_$j = select(vec4<f32>(0.0), xq(i), ok);
            }
#endfor
#endfor
#if BN < GROUP
            if (lid < ${BN}u) {
#endif
#for u in 0..LOADS_B
#for j in 0..4
                b${u}_$j = select(vec4<f32>(0.0), wq(ch${u}_$j * (p.r * p.s * p.cq) + at), inside);
#endfor
#endfor
#if BN < GROUP
            }
#endif
        }
        if (step > 0u) {
            let from_x = ((step - 1u) % 2u) * ${16 * AQ}u;
            let from_w = ((step - 1u) % 2u) * ${16 * BQ}u;
            // A loop, as the text of all sixteen would leave the instruction cache of some cards.
            for (var k = 0u; k < 4u; k++) {
#for c in 0..4
                {
#for h in 0..2
                    let f$h = tx[from_x + k * ${4 * AQ}u + ${c * AQ}u + ((ty_at + ${h * AQ / 2}u) ^ (2u * k))];
                    let g$h = tw[from_w + k * ${4 * BQ}u + ${c * BQ}u + ((tx_at + ${h * BQ / 2}u) ^ ((2u * k) % ${BQ}u))];
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
            let to_x = (step % 2u) * ${16 * AQ}u + quad * ${4 * AQ}u;
            let to_w = (step % 2u) * ${16 * BQ}u + quad * ${4 * BQ}u;
#for u in 0..LOADS_A
#for c in 0..4
            tx[to_x + ${c * AQ}u + ((block + ${u * GROUP / 4}u) ^ (2u * quad))] = vec4<f32>(a${u}_0[$c], a${u}_1[$c], a${u}_2[$c], a${u}_3[$c]);
#endfor
#endfor
#if BN < GROUP
            if (lid < ${BN}u) {
#endif
#for u in 0..LOADS_B
#for c in 0..4
                tw[to_w + ${c * BQ}u + ((block + ${u * GROUP / 4}u) ^ ((2u * quad) % ${BQ}u))] = vec4<f32>(b${u}_0[$c], b${u}_1[$c], b${u}_2[$c], b${u}_3[$c]);
#endfor
#endfor
#if BN < GROUP
            }
#endif
        }
        workgroupBarrier();
    }
    let outs = p.groups * p.kq;
#for h in 0..2
    {
        let oq = kt * ${BQ}u + tx_at + ${h * BQ / 2}u;
        if (oq < p.kq) {
            var add = vec4<f32>(0.0);
            if (p.bias != 0u) {
#for c in 0..4
                add[$c] = bias[group * p.kg + min(oq * 4u + ${c}u, p.kg - 1u)];
#endfor
            }
#for i in 0..8
            {
                let m = m0 + (ty_at + ${i / 4 * (AQ / 2)}u) * 4u + ${i % 4}u;
                if (m < total) {
                    let my = m / ax.count;
                    let row = (my / ay.count) * p.oh + my % ay.count * ay.spread + ay.first;
                    let to = row * p.ow + m % ax.count * ax.spread + ax.first;
                    y[to * outs + group * p.kq + oq] = c${i}_$h + add;
                }
            }
#endfor
        }
    }
#endfor
}
#endif
