// Cross-entropy of rows of logits and its gradient in one kernel, and one-hot targets.
//   ce_hard   labels; a label beyond the last class counts as the last (the host checks labels when it uploads them)
//   ce_soft   a distribution per row, which need not sum to one
// Row i loses scale * w_i * sum_c t_ic (lse_i - x_ic), where t mixes the one-hot label with the uniform distribution.
#kernel ce_$KIND_$V_$MODE : KIND in hard soft, V in 1 4, MODE in t1 s8 s32 w64 w256
#kernel loss_targets

#if KERNEL == loss_targets
// t = low, and high in the column of the label; n = rows * classes.
struct TargetsParams { n: u32, classes: u32, gx: u32, low: f32, high: f32 }
var<immediate> p: TargetsParams;
@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 256u + lid;
    if (i < p.n) {
        let row = i / p.classes;
        let label = min(labels[row], p.classes - 1u);
        y[i] = select(p.low, p.high, i - row * p.classes == label);
    }
}
#else
#import math
#import lanes
#import team

// len counts elements of V floats. low, high: target of the other classes and of the label. weighted, store: 0 or 1.
struct CeParams { rows: u32, len: u32, classes: u32, gx: u32, low: f32, high: f32, scale: f32, weighted: u32, store: u32 }
var<immediate> p: CeParams;
@group(0) @binding(0) var<storage, read> x: array<$T>;
#if KIND == hard
@group(0) @binding(1) var<storage, read> labels: array<u32>;
#else
@group(0) @binding(1) var<storage, read> probs: array<$T>;
#endif
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<$T>;

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let at = min(row, p.rows - 1u);
    let base = at * p.len;
#if KIND == hard
    let label = $TU(min(labels[at], p.classes - 1u));
#endif
    var m = LOWEST;
    var s = 0.0;
    var mass = 0.0;
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let v = no_less(x[base + c]);
        let higher = max(m, hmax(v));
        s = s * exp(m - higher) + hsum(exp(v - $T(higher)));
        m = higher;
#if KIND == soft
        mass += hsum(probs[base + c]);
#endif
    }
    let top = team_max(m, lid);
    let sums = team_sum2(vec2<f32>(s * exp(m - top), mass), lid);
    let log_sum = sg_log(sums.x);
#if KIND == hard
    let total = 1.0;
#else
    let total = sums.y;
#endif
    var factor = p.scale;
    if (p.weighted != 0u) {
        factor *= weights[at];
    }
    var lost = 0.0;
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let v = no_less(x[base + c]) - $T(top);
#if KIND == hard
        let t = select($T(p.low), $T(p.high), lane_columns(c) == label);
#else
        let t = probs[base + c];
#endif
        lost += hsum(t * ($T(log_sum) - v));
        if (p.store != 0u && row < p.rows) {
            dx[base + c] = $T(factor) * (exp(v) * $T(total / sums.x) - t);
        }
    }
    lost = team_sum(lost, lid);
    if (lane == 0u && row < p.rows) {
        loss[row] = factor * lost;
    }
}
#endif
