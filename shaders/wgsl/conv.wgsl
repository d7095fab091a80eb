// Dense convolution of NHWC images as an implicit matrix product: rows are pixels, columns are output channels, and the
// sum runs over taps and input channels. Channels come in quads (multiples of four per group; the host pads others).
//   fwd   y = conv(x, w)               weights [group][out][r][s][in quads]
//   bwd   dx = gradient for the image  weights [group][in][r][s][out quads], image = dy
// conv_s8_*  for drivers that run on the processor in subgroups of eight, where a load costs as much as tens of
//            multiplications: a lane holds 4 pixels x K channels; it loads the weights of one or two channels and the
//            others get them by broadcast.
// conv_p_*   for any device: an invocation holds 4 pixels x 8 channels.
#kernel conv_s8_${MODE}_$K : MODE in fwd bwd, K in 8 16
#kernel conv_p_$MODE : MODE in fwd bwd, K=8
#import conv

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

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
                let x$j = select(vec4<f32>(0.0), x[i$j + q], ok$j);
#endfor
#if KERNEL == conv_s8
#for u in 0..(K / 8)
                let held$u = w[ch$u * taps + at + q];
#endfor
#endif
#for k in 0..K
#if KERNEL == conv_s8
                let w$k = subgroupBroadcast(held${k / 8}, ${k % 8}u);
#else
                let w$k = w[ch$k * taps + at + q];
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
