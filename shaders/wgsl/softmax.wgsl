// Softmax (soft) and its logarithm (log), and their gradients.
//   *_row   along contiguous rows, a team of invocations a row; len counts elements of V floats
//   *_col   [outer][len][inner] along the middle, an invocation a column (of V neighbouring columns)
// The largest element is subtracted first; sums and maxima are taken in one read (Milakov and Gimelshein, 2018).
#import math
#import lanes

#kernel softmax_row_$OP_$V_$MODE : OP in soft log, V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel dsoftmax_row_$OP_$V_$MODE : OP in soft log, V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel softmax_col_$OP_$V : OP in soft log, V in 1 4
#kernel dsoftmax_col_$OP_$V : OP in soft log, V in 1 4

#if KERNEL == softmax_row || KERNEL == softmax_col
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

#if KERNEL == softmax_row || KERNEL == dsoftmax_row
#import team
struct SoftmaxRowParams { rows: u32, len: u32, gx: u32, pad: u32 }
var<immediate> p: SoftmaxRowParams;

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let base = min(row, p.rows - 1u) * p.len;
#if KERNEL == softmax_row
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
