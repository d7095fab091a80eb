// The small kernels between those of norm.wgsl. A group is `span` neighbouring columns of one batch.
//   norm_finish   merges the chunks into each group's mean and variance and each column's coefficients
//   norm_dfinish  merges sums into the coefficients of dx and, where groups are columns (W = 1), dgamma and dbeta
//   norm_dparams  dgamma and dbeta otherwise
//   norm_fixed    coefficients from given statistics
//   norm_running  running statistics
#kernel norm_finish : WG=64
#kernel norm_dfinish_$W : W in 0 1, WG=64
#kernel norm_dparams : WG=64
#kernel norm_fixed
#kernel norm_running

#if KERNEL == norm_running
// running = keep * running + (1 - keep) * statistic, the variance times unbias = n / (n - 1).
struct RunningParams { n: u32, gx: u32, keep: f32, unbias: f32 }
var<immediate> p: RunningParams;
@group(0) @binding(0) var<storage, read> mean: array<f32>;
@group(0) @binding(1) var<storage, read> variance: array<f32>;
@group(0) @binding(2) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> running_var: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 64u + lid;
    if (i < p.n) {
        running_mean[i] = p.keep * running_mean[i] + (1.0 - p.keep) * mean[i];
        running_var[i] = p.keep * running_var[i] + (1.0 - p.keep) * p.unbias * variance[i];
    }
}
#endif

#if KERNEL == norm_fixed
struct FixedParams { n: u32, gx: u32, eps: f32, affine: u32 }
var<immediate> p: FixedParams;
@group(0) @binding(0) var<storage, read> mean: array<f32>;
@group(0) @binding(1) var<storage, read> variance: array<f32>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read_write> coef: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 64u + lid;
    if (i < p.n) {
        var slope = inverseSqrt(variance[i] + p.eps);
        var shift = 0.0;
        if ((p.affine & 1u) != 0u) {
            slope *= gamma[i];
        }
        if ((p.affine & 2u) != 0u) {
            shift = beta[i];
        }
        coef[i] = mean[i];
        coef[i + p.n] = slope;
        coef[i + 2u * p.n] = shift;
    }
}
#endif

#if KERNEL == norm_finish || KERNEL == norm_dfinish || KERNEL == norm_dparams
// A workgroup handles tx groups (norm_dparams: columns). affine: bit 0 gamma, bit 1 beta are given.
// scaled: whether norm_dparams multiplies by 1 / deviation.
struct FinishParams {
    batch: u32, rows: u32, cols: u32, span: u32, chunk: u32, chunks: u32, tx: u32, gx: u32,
    eps: f32, affine: u32, scaled: u32,
}
var<immediate> p: FinishParams;
#endif

#if KERNEL == norm_finish
@group(0) @binding(0) var<storage, read> part_mean: array<f32>;
@group(0) @binding(1) var<storage, read> part_m2: array<f32>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> coef: array<f32>;
var<workgroup> cells: array<vec3<f32>, $WG>;

// Count, mean and centred sum of squares of two sets together.
fn merge(u: vec3<f32>, v: vec3<f32>) -> vec3<f32> {
    let n = u.x + v.x;
    let share = v.x / max(n, 1.0);
    let d = v.y - u.y;
    return vec3<f32>(n, u.y + share * d, u.z + v.z + d * d * (u.x * share));
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let groups = p.cols / p.span;
    let q = (wid.y * p.gx + wid.x) * p.tx + lid % p.tx;
    let lane = lid / p.tx;
    let step = ${WG}u / p.tx;
    let b = q / groups;
    let first = (q - b * groups) * p.span;
    let live = b < p.batch;
    let items = select(0u, p.chunks * p.span, live);
    var m = vec3<f32>(0.0);
    for (var i = lane; i < items; i += step) {
        let k = i / p.span;
        let at = (b * p.chunks + k) * p.cols + first + (i - k * p.span);
        let n = min(p.chunk, p.rows - k * p.chunk);
        m = merge(m, vec3<f32>(f32(n), part_mean[at], part_m2[at]));
    }
    cells[lid] = m;
    for (var s = ${WG / 2}u; s >= p.tx; s /= 2u) {
        workgroupBarrier();
        if (lid < s) {
            cells[lid] = merge(cells[lid], cells[lid + s]);
        }
    }
    workgroupBarrier();
    m = cells[lid % p.tx];
    if (live) {
        let v = m.z / m.x;
        if (lane == 0u) {
            mean[q] = m.y;
            variance[q] = v;
        }
        let r = inverseSqrt(v + p.eps);
        let size = p.batch * p.cols;
        for (var c = first + lane; c < first + p.span; c += step) {
            let to = b * p.cols + c;
            var slope = r;
            var shift = 0.0;
            if ((p.affine & 1u) != 0u) {
                slope *= gamma[c];
            }
            if ((p.affine & 2u) != 0u) {
                shift = beta[c];
            }
            coef[to] = m.y;
            coef[to + size] = slope;
            coef[to + 2u * size] = shift;
        }
    }
}
#endif

#if KERNEL == norm_dfinish
@group(0) @binding(0) var<storage, read> part_s: array<f32>;
@group(0) @binding(1) var<storage, read> part_t: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read> coef: array<f32>;
@group(0) @binding(4) var<storage, read_write> dcoef: array<f32>;
#if W == 1
@group(0) @binding(5) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(6) var<storage, read_write> dbeta: array<f32>;
#endif
var<workgroup> cells: array<vec2<f32>, $WG>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let groups = p.cols / p.span;
    let q = (wid.y * p.gx + wid.x) * p.tx + lid % p.tx;
    let lane = lid / p.tx;
    let step = ${WG}u / p.tx;
    let b = q / groups;
    let first = (q - b * groups) * p.span;
    let live = b < p.batch;
    let size = p.batch * p.cols;
    let items = select(0u, p.chunks * p.span, live);
    var sums = vec2<f32>(0.0);
    for (var i = lane; i < items; i += step) {
        let k = i / p.span;
        let c = first + (i - k * p.span);
        let at = (b * p.chunks + k) * p.cols + c;
#if W == 1
        sums += vec2<f32>(part_s[at], part_t[at]);
#else
        sums += coef[size + b * p.cols + c] * vec2<f32>(part_s[at], part_t[at]);
#endif
    }
    cells[lid] = sums;
    for (var s = ${WG / 2}u; s >= p.tx; s /= 2u) {
        workgroupBarrier();
        if (lid < s) {
            cells[lid] += cells[lid + s];
        }
    }
    workgroupBarrier();
    sums = cells[lid % p.tx];
    if (live) {
        let r = inverseSqrt(variance[q] + p.eps);
#if W == 1
        if (lane == 0u) {
            dgamma[q] = r * sums.y;
            dbeta[q] = sums.x;
        }
        sums *= coef[size + q];
#endif
        let share = 1.0 / f32(p.rows * p.span);
        for (var c = first + lane; c < first + p.span; c += step) {
            dcoef[b * p.cols + c] = share * sums.x;
            dcoef[size + b * p.cols + c] = -share * r * r * sums.y;
        }
    }
}
#endif

#if KERNEL == norm_dparams
@group(0) @binding(0) var<storage, read> part_s: array<f32>;
@group(0) @binding(1) var<storage, read> part_t: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<f32>;
var<workgroup> cells: array<vec2<f32>, $WG>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let c = (wid.y * p.gx + wid.x) * p.tx + lid % p.tx;
    let step = ${WG}u / p.tx;
    let items = select(0u, p.batch * p.chunks, c < p.cols);
    var sums = vec2<f32>(0.0);
    for (var i = lid / p.tx; i < items; i += step) {
        let at = i * p.cols + c;
        var t = part_t[at];
        if (p.scaled != 0u) {
            t *= inverseSqrt(variance[(i / p.chunks) * (p.cols / p.span) + c / p.span] + p.eps);
        }
        sums += vec2<f32>(part_s[at], t);
    }
    cells[lid] = sums;
    for (var s = ${WG / 2}u; s >= p.tx; s /= 2u) {
        workgroupBarrier();
        if (lid < s) {
            cells[lid] += cells[lid + s];
        }
    }
    if (lid < p.tx && c < p.cols) {
        dgamma[c] = cells[lid].y;
        dbeta[c] = cells[lid].x;
    }
}
#endif
