// Softmax (soft) and its logarithm (log), and their gradients.
//   *_row   along contiguous rows, a team of invocations a row; len counts elements of V floats
//   *_held  the same of rows of at most N vec4s an invocation, kept in registers: every element is read once
//   *_col   [outer][len][inner] along the middle, an invocation a column (of V neighbouring columns)
// The largest element is subtracted first; sums and maxima are taken in one read (Milakov and Gimelshein, 2018).
#import math
#import lanes

#kernel softmax_row_$OP_$V_$MODE : OP in soft log, V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel dsoftmax_row_$OP_$V_$MODE : OP in soft log, V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel softmax_held_${OP}_${MODE}_$N : OP in soft log, MODE in s8 s32, N in 1 2 4 8, V=4
#kernel dsoftmax_held_${OP}_${MODE}_$N : OP in soft log, MODE in s8 s32, N in 1 2 4 8, V=4
#kernel softmax_col_$OP_$V : OP in soft log, V in 1 4
#kernel dsoftmax_col_$OP_$V : OP in soft log, V in 1 4

#if KERNEL == softmax_row || KERNEL == softmax_held || KERNEL == softmax_col
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read_write> y: array<$T>;

fn result(v: $T, top: $T, sum: $T) -> $T {
#if OP == soft
    return exp(v - top) / sum;
#elif V == 4
    return v - top - vec4<f32>(sg_log(sum.x), sg_log(sum.y), sg_log(sum.z), sg_log(sum.w));
#else
    return v - top - sg_log(sum);
#endif
}
#else
@group(0) @binding(0) var<storage, read> y: array<$T>;
@group(0) @binding(1) var<storage, read> dy: array<$T>;
@group(0) @binding(2) var<storage, read_write> dx: array<$T>;

fn term(i: u32) -> $T {
#if OP == soft
    return y[i] * dy[i];
#else
    return dy[i];
#endif
}

fn result(i: u32, sum: $T) -> $T {
#if OP == soft
    return y[i] * (dy[i] - sum);
#else
    return dy[i] - exp(y[i]) * sum;
#endif
}
#endif

#if KERNEL == softmax_row || KERNEL == dsoftmax_row || KERNEL == softmax_held || KERNEL == dsoftmax_held
#import team
struct SoftmaxRowParams { rows: u32, len: u32, gx: u32, pad: u32 }
var<immediate> p: SoftmaxRowParams;

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let base = min(row, p.rows - 1u) * p.len;
#if KERNEL == softmax_held
    var m = LOWEST;
#for i in 0..N
    let c$i = lane + ${i * TEAM}u;
    var v$i = vec4<f32>(LOWEST);
    if (c$i < p.len) {
        v$i = no_less(x[base + c$i]);
    }
    m = max(m, hmax(v$i));
#endfor
    let top = team_max(m, lid);
    var s = 0.0;
#for i in 0..N
    // Beyond the end counts nothing, also in a row of nothing but LOWEST.
    let e$i = select(vec4<f32>(0.0), exp(v$i - vec4<f32>(top)), c$i < p.len);
    s += hsum(e$i);
#endfor
    let sum = team_sum(s, lid);
#if OP == log
    let log_sum = sg_log(sum);
#endif
    if (row < p.rows) {
#for i in 0..N
        if (c$i < p.len) {
#if OP == soft
            y[base + c$i] = e$i / vec4<f32>(sum);
#else
            y[base + c$i] = v$i - vec4<f32>(top) - vec4<f32>(log_sum);
#endif
        }
#endfor
    }
#elif KERNEL == dsoftmax_held
    var s = vec4<f32>(0.0);
#for i in 0..N
    let c$i = lane + ${i * TEAM}u;
    var y$i = vec4<f32>(0.0);
    var g$i = vec4<f32>(0.0);
    if (c$i < p.len) {
        y$i = y[base + c$i];
        g$i = dy[base + c$i];
    }
#if OP == soft
    s += y$i * g$i;
#else
    s += g$i;
#endif
#endfor
    let sum = vec4<f32>(team_sum(hsum(s), lid));
    if (row < p.rows) {
#for i in 0..N
        if (c$i < p.len) {
#if OP == soft
            dx[base + c$i] = y$i * (g$i - sum);
#else
            dx[base + c$i] = g$i - exp(y$i) * sum;
#endif
        }
#endfor
    }
#elif KERNEL == softmax_row
    var m = LOWEST;
    var s = 0.0;
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let v = no_less(x[base + c]);
        let higher = max(m, hmax(v));
        s = s * exp(m - higher) + hsum(exp(v - $T(higher)));
        m = higher;
    }
    let top = team_max(m, lid);
    let sum = team_sum(s * exp(m - top), lid);
    if (row < p.rows) {
        for (var c = lane; c < p.len; c += ${TEAM}u) {
            y[base + c] = result(no_less(x[base + c]), $T(top), $T(sum));
        }
    }
#else
    var s = $T(0.0);
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        s += term(base + c);
    }
    let sum = team_sum(hsum(s), lid);
    if (row < p.rows) {
        for (var c = lane; c < p.len; c += ${TEAM}u) {
            dx[base + c] = result(base + c, $T(sum));
        }
    }
#endif
}
#endif

#if KERNEL == softmax_col || KERNEL == dsoftmax_col
// inner counts elements of V floats; n = outer * inner.
struct SoftmaxColParams { n: u32, len: u32, inner: u32, gx: u32 }
var<immediate> p: SoftmaxColParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 64u + lid;
    if (i >= p.n) {
        return;
    }
    let base = i / p.inner * p.len * p.inner + i % p.inner;
#if KERNEL == softmax_col
    var m = $T(LOWEST);
    var s = $T(0.0);
    for (var l = 0u; l < p.len; l++) {
        let v = no_less(x[base + l * p.inner]);
        let higher = max(m, v);
        s = s * exp(m - higher) + exp(v - higher);
        m = higher;
    }
    for (var l = 0u; l < p.len; l++) {
        y[base + l * p.inner] = result(no_less(x[base + l * p.inner]), m, s);
    }
#else
    var s = $T(0.0);
    for (var l = 0u; l < p.len; l++) {
        s += term(base + l * p.inner);
    }
    for (var l = 0u; l < p.len; l++) {
        dx[base + l * p.inner] = result(base + l * p.inner, s);
    }
#endif
}
#endif
