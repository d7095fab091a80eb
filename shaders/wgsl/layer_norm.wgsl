// Layer norm of contiguous rows, a team of invocations a row: forward and the gradient of the input. (norm_sums_*_rows
// and norm_dparams give those of gamma and beta.) dlayer_norm_kept takes what was kept of the normalised elements, 0 for
// the others, in place of x, and 1 / sqrt(var + eps) of each row. *_held keep a row of at most N vec4s an invocation in
// registers, so that it is read once.
#import lanes
#import team

#kernel layer_norm_$V_$MODE : V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel dlayer_norm_$V_$MODE : V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel dlayer_norm_kept_$V_$MODE : V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel layer_norm_held_${MODE}_$N : MODE in s8 s32, N in 1 2 4 8, V=4
#kernel dlayer_norm_held_${MODE}_$N : MODE in s8 s32, N in 1 2 4 8, V=4

// len counts elements of V floats. affine: bit 0 gamma, bit 1 beta are given.
struct LayerParams { rows: u32, len: u32, gx: u32, affine: u32, eps: f32 }
var<immediate> p: LayerParams;

#if KERNEL == layer_norm || KERNEL == layer_norm_held
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> gamma: array<$T>;
@group(0) @binding(2) var<storage, read> beta: array<$T>;
@group(0) @binding(3) var<storage, read_write> y: array<$T>;
@group(0) @binding(4) var<storage, read_write> stat: array<vec2<f32>>;

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let base = min(row, p.rows - 1u) * p.len;
#if KERNEL == layer_norm_held
#for i in 0..N
    let c$i = lane + ${i * TEAM}u;
    var x$i = vec4<f32>(0.0);
    if (c$i < p.len) {
        x$i = x[base + c$i];
    }
#endfor
    let pivot = subgroupBroadcast(x0.x, 0u);
    var s = vec4<f32>(0.0);
#for i in 0..N
    s += select(vec4<f32>(0.0), x$i - vec4<f32>(pivot), c$i < p.len);
#endfor
    let n = f32(p.len * 4u);
    let mean = pivot + team_sum(hsum(s), lid) / n;
    s = vec4<f32>(0.0);
#for i in 0..N
    let d$i = select(vec4<f32>(0.0), x$i - vec4<f32>(mean), c$i < p.len);
    s += d$i * d$i;
#endfor
    let r = inverseSqrt(team_sum(hsum(s), lid) / n + p.eps);
    if (row < p.rows) {
        if (lane == 0u) {
            stat[row] = vec2<f32>(mean, r);
        }
#for i in 0..N
        if (c$i < p.len) {
            var v = d$i * r;
            if ((p.affine & 1u) != 0u) {
                v *= gamma[c$i];
            }
            if ((p.affine & 2u) != 0u) {
                v += beta[c$i];
            }
            y[base + c$i] = v;
        }
#endfor
    }
#else
    // The mean as an offset from the row's first element: a large common offset costs no digits.
#if V == 4
    let pivot = x[base].x;
#else
    let pivot = x[base];
#endif
    var s = $T(0.0);
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        s += x[base + c] - $T(pivot);
    }
    let n = f32(p.len * ${V}u);
    let mean = pivot + team_sum(hsum(s), lid) / n;
    s = $T(0.0);
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let d = x[base + c] - $T(mean);
        s += d * d;
    }
    let r = inverseSqrt(team_sum(hsum(s), lid) / n + p.eps);
    if (row < p.rows) {
        if (lane == 0u) {
            stat[row] = vec2<f32>(mean, r);
        }
        for (var c = lane; c < p.len; c += ${TEAM}u) {
            var v = (x[base + c] - $T(mean)) * r;
            if ((p.affine & 1u) != 0u) {
                v *= gamma[c];
            }
            if ((p.affine & 2u) != 0u) {
                v += beta[c];
            }
            y[base + c] = v;
        }
    }
#endif
}
#else
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> dy: array<$T>;
@group(0) @binding(2) var<storage, read> gamma: array<$T>;
#if KERNEL == dlayer_norm_kept
@group(0) @binding(3) var<storage, read> stat: array<f32>;
#else
@group(0) @binding(3) var<storage, read> stat: array<vec2<f32>>;
#endif
@group(0) @binding(4) var<storage, read_write> dx: array<$T>;

fn slope(i: u32, c: u32) -> $T {
    if ((p.affine & 1u) != 0u) {
        return dy[i] * gamma[c];
    }
    return dy[i];
}

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let at = min(row, p.rows - 1u);
    let base = at * p.len;
#if KERNEL == dlayer_norm_kept
    let mean = 0.0;
    let r = stat[at];
    let within = 1.0;
#else
    let mean = stat[at].x;
    let r = stat[at].y;
    let within = r * r;
#endif
#if KERNEL == dlayer_norm_held
    var s = vec4<f32>(0.0);
    var t = vec4<f32>(0.0);
#for i in 0..N
    let c$i = lane + ${i * TEAM}u;
    var d$i = vec4<f32>(0.0);
    var g$i = vec4<f32>(0.0);
    if (c$i < p.len) {
        d$i = x[base + c$i] - vec4<f32>(mean);
        g$i = slope(base + c$i, c$i);
    }
    s += g$i;
    t += g$i * d$i;
#endfor
    let sums = team_sum2(vec2<f32>(hsum(s), hsum(t)), lid) / f32(p.len * 4u);
    if (row < p.rows) {
#for i in 0..N
        if (c$i < p.len) {
            dx[base + c$i] = r * ((g$i - vec4<f32>(sums.x)) - d$i * (within * sums.y));
        }
#endfor
    }
#else
    var s = $T(0.0);
    var t = $T(0.0);
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let g = slope(base + c, c);
        s += g;
        t += g * (x[base + c] - $T(mean));
    }
    let sums = team_sum2(vec2<f32>(hsum(s), hsum(t)), lid) / f32(p.len * ${V}u);
    if (row < p.rows) {
        for (var c = lane; c < p.len; c += ${TEAM}u) {
            let d = x[base + c] - $T(mean);
            dx[base + c] = r * ((slope(base + c, c) - $T(sums.x)) - d * (within * sums.y));
        }
    }
#endif
}
#endif
