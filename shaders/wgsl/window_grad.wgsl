// Gradients of attention within windows (window.wgsl).
//   window_backward   the gradient of the map from that of y; with flag 2 the gradients of the scores, summed over the windows
//                     of each part: [parts][heads][key][query]
//   window_table      from those, summed over the parts, the gradient of the table [place][heads]
// A team has a window: its invocations are first its queries, then its keys, and the softmax passes between them through
// workgroup memory. N: most tokens of a window.
//   s8   a subgroup of eight: it loads a row once and broadcasts it; an invocation has R rows of its own
//   wg   an invocation has a row and loads the others by itself
#kernel window_backward_$D_$MODE_$N : D in 8 12 16 24 32, MODE in s8 wg, N in 16 64
#kernel window_table

#if KERNEL == window_table
struct WindowTableParams { count: u32, heads: u32, side: u32, gx: u32 }
var<immediate> p: WindowTableParams;
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let u = (wid.y * p.gx + wid.x) * 64u + lid;
    if (u >= p.count) {
        return;
    }
    let m = p.side;
    let n = m * m;
    let t = u / p.heads;
    let head = u - t * p.heads;
    // How far down and right of the key the query lies, both plus m - 1.
    let down = t / (2u * m - 1u);
    let right = t - down * (2u * m - 1u);
    var sum = 0.0;
    for (var ky = max(down, m - 1u) - down; ky < min(m, 2u * m - 1u - down); ky++) {
        for (var kx = max(right, m - 1u) - right; kx < min(m, 2u * m - 1u - right); kx++) {
            let query = (ky + down + 1u - m) * m + kx + right + 1u - m;
            sum += sums[(head * n + ky * m + kx) * n + query];
        }
    }
    y[u] = sum;
}
#else
#import window

#if MODE == s8
#define TEAM 8
#define TEAMS 1
#define R 2
#elif N == 64
#define TEAM 64
#define TEAMS 1
#define R 1
#else
#define TEAM 16
#define TEAMS 4
#define R 1
#endif
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dqkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;
// By key, then query: scores and then their softmax; the softmax's gradient and then the scores'.
var<workgroup> weights: array<f32, ${TEAMS * N * N}>;
var<workgroup> slopes: array<f32, ${TEAMS * N * N}>;

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n = p.side * p.side;
    let stride = 2u * p.side - 1u;
    let corner = (p.side - 1u) * (stride + 1u);
    let group = wid.y * p.gx + wid.x;
    let head = group % p.heads;
    let slot = group / p.heads * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let cells = lid / ${TEAM}u * ${N * N}u;
    let column = head * ${D4}u;
    for (var turn = 0u; turn < p.rounds; turn++) {
        let window = turn * p.parts + slot;
        let live = slot < p.parts && window < p.windows;
        let here = place(min(window, p.windows - 1u));
        // An invocation's rows are queries: softmax, its gradient, that of the scores and of the queries.
        for (var start = 0u; start < n; start += ${TEAM * R}u) {
#for r in 0..R
            let i$r = start + lane + ${r * TEAM}u;
            let ty$r = min(i$r, n - 1u) / p.side;
            let tx$r = min(i$r, n - 1u) - ty$r * p.side;
            let pixel$r = pixel(here, ty$r, tx$r);
            let quarter$r = quarter(here, ty$r, tx$r);
            let place$r = corner + ty$r * stride + tx$r;
            var m$r = LOWEST;
#for c in 0..D4
            let q${r}_$c = p.scale * qkv[pixel$r * 3u * p.quads + column + ${c}u];
            let g${r}_$c = dy[pixel$r * p.quads + column + ${c}u];
#endfor
#endfor
            var ky = 0u;
            var kx = 0u;
            var kp = 0u;
            for (var j = 0u; j < n; j++) {
                let row = pixel(here, ky, kx) * 3u * p.quads + p.quads + column;
                let kq = quarter(here, ky, kx);
#if MODE == s8
                let k = qkv[row + min(lid, ${D4 - 1}u)];
                let v = qkv[row + p.quads + min(lid, ${D4 - 1}u)];
#endif
#for r in 0..R
                var s$r = 0.0;
                var d$r = 0.0;
#endfor
#for c in 0..D4
#if MODE == s8
                let k$c = subgroupBroadcast(k, ${c}u);
                let v$c = subgroupBroadcast(v, ${c}u);
#else
                let k$c = qkv[row + ${c}u];
                let v$c = qkv[row + p.quads + ${c}u];
#endif
#for r in 0..R
                s$r += dot(q${r}_$c, k$c);
                d$r += dot(g${r}_$c, v$c);
#endfor
#endfor
#for r in 0..R
                let x$r = score(s$r, place$r, kp, head, kq == quarter$r);
                m$r = max(m$r, x$r);
                if (i$r < n) {
                    weights[cells + j * n + i$r] = x$r;
                    slopes[cells + j * n + i$r] = d$r;
                }
#endfor
                let wrap = kx + 1u == p.side;
                kx = select(kx + 1u, 0u, wrap);
                ky += select(0u, 1u, wrap);
                kp += select(1u, p.side, wrap);
            }
#for r in 0..R
            var l$r = 0.0;
            var mean$r = 0.0;
            if (i$r < n) {
                for (var j = 0u; j < n; j++) {
                    let at = cells + j * n + i$r;
                    let x = weights[at];
                    let e = select(0.0, exp(x - m$r), x > LOWEST);
                    weights[at] = e;
                    l$r += e;
                    mean$r += e * slopes[at];
                }
            }
            let share$r = select(0.0, 1.0 / l$r, l$r > 0.0);
            mean$r *= share$r;
#for c in 0..D4
            var a${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
            ky = 0u;
            kx = 0u;
            for (var j = 0u; j < n; j++) {
                let row = pixel(here, ky, kx) * 3u * p.quads + p.quads + column;
                let wrap = kx + 1u == p.side;
                kx = select(kx + 1u, 0u, wrap);
                ky += select(0u, 1u, wrap);
#if MODE == s8
                let k = qkv[row + min(lid, ${D4 - 1}u)];
#endif
#for r in 0..R
                var slope$r = 0.0;
                if (i$r < n) {
                    let at = cells + j * n + i$r;
                    let weight = weights[at] * share$r;
                    slope$r = weight * (slopes[at] - mean$r);
                    weights[at] = weight;
                    slopes[at] = slope$r;
                    if ((p.flags & 2u) != 0u && slot < p.parts) {
                        let sum = ((slot * p.heads + head) * n + j) * n + i$r;
                        if (turn == 0u) {
                            sums[sum] = select(0.0, slope$r, live);
                        } else if (live) {
                            sums[sum] += slope$r;
                        }
                    }
                }
#endfor
#for c in 0..D4
#if MODE == s8
                let k$c = subgroupBroadcast(k, ${c}u);
#else
                let k$c = qkv[row + ${c}u];
#endif
#for r in 0..R
                a${r}_$c += slope$r * k$c;
#endfor
#endfor
            }
#for r in 0..R
            if (live && i$r < n) {
#for c in 0..D4
                dqkv[pixel$r * 3u * p.quads + column + ${c}u] = p.scale * a${r}_$c;
#endfor
            }
#endfor
        }
        workgroupBarrier();
        // An invocation's rows are keys.
        for (var start = 0u; start < n; start += ${TEAM * R}u) {
#for r in 0..R
            let i$r = start + lane + ${r * TEAM}u;
            let key$r = min(i$r, n - 1u);
            let pixel$r = pixel(here, key$r / p.side, key$r % p.side);
#for c in 0..D4
            var a${r}_$c = vec4<f32>(0.0);
            var b${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
            var ty = 0u;
            var tx = 0u;
            for (var j = 0u; j < n; j++) {
                let there = pixel(here, ty, tx);
                let wrap = tx + 1u == p.side;
                tx = select(tx + 1u, 0u, wrap);
                ty += select(0u, 1u, wrap);
                let row = there * 3u * p.quads + column;
#if MODE == s8
                let q = qkv[row + min(lid, ${D4 - 1}u)];
                let g = dy[there * p.quads + column + min(lid, ${D4 - 1}u)];
#endif
#for r in 0..R
                let weight$r = weights[cells + key$r * n + j];
                let slope$r = slopes[cells + key$r * n + j];
#endfor
#for c in 0..D4
#if MODE == s8
                let q$c = subgroupBroadcast(q, ${c}u);
                let g$c = subgroupBroadcast(g, ${c}u);
#else
                let q$c = qkv[row + ${c}u];
                let g$c = dy[there * p.quads + column + ${c}u];
#endif
#for r in 0..R
                a${r}_$c += slope$r * q$c;
                b${r}_$c += weight$r * g$c;
#endfor
#endfor
            }
#for r in 0..R
            if (live && i$r < n) {
                let row = pixel$r * 3u * p.quads + p.quads + column;
#for c in 0..D4
                dqkv[row + ${c}u] = p.scale * a${r}_$c;
                dqkv[row + p.quads + ${c}u] = b${r}_$c;
#endfor
            }
#endfor
        }
        workgroupBarrier();
    }
}
#endif
