// Normalisation by statistics over rows: batch, group and instance norm of [batch][rows][cols], where the columns are
// channels. Batch norm has one batch, group norm one an image. norm_finish.wgsl holds the small kernels in between.
//   norm_stats    mean and centred sum of squares of each column in each chunk of rows
//   norm_apply    y = (x - mean) * slope + beta, optionally ReLU
//   norm_sums     sums of dy and dy * (x - mean) of each column in each chunk (rows: x normalised by rows, layer norm)
//   norm_dx       dx = slope * dy - e + f * (x - mean)
// Coefficients lie as [k][batch][cols]. Moments are merged as by Chan, Golub and LeVeque (1979): no E[x^2] - E[x]^2.
#kernel norm_stats_$V_$WG : V in 1 4, WG in 64 256
#kernel norm_apply_$V_$WG_$ACT : V in 1 4, WG in 64 256, ACT in id relu
#kernel norm_sums_$V_$WG_$ACT : V in 1 4, WG in 64 256, ACT in id relu rows
#kernel norm_dx_$V_$WG_$ACT : V in 1 4, WG in 64 256, ACT in id relu

#if V == 4
#define T vec4<f32>
#else
#define T f32
#endif
// cols counts elements of V floats. A workgroup is tx columns wide and handles one of `chunks` chunks of `chunk` rows.
struct NormParams {
    batch: u32, rows: u32, cols: u32, chunk: u32, chunks: u32, tx: u32, blocks: u32, gx: u32,
}
var<immediate> p: NormParams;

// This invocation's column of batch b, and its rows lo, lo + step, .. below hi: none if it has no column.
struct Place { b: u32, k: u32, col: u32, lo: u32, hi: u32, step: u32, live: bool }

fn place(group: u32, lid: u32) -> Place {
    var q: Place;
    let rest = group / p.blocks;
    q.col = (group - rest * p.blocks) * p.tx + lid % p.tx;
    q.b = rest / p.chunks;
    q.k = rest - q.b * p.chunks;
    q.live = q.b < p.batch && q.col < p.cols;
    q.hi = select(0u, min(p.rows, (q.k + 1u) * p.chunk), q.live);
#if WG == 64
    // Software drivers run an invocation to its end before the next: its rows should be neighbours in the cache.
    let run = (p.chunk * p.tx + ${WG - 1}u) / ${WG}u;
    q.step = 1u;
    q.lo = q.k * p.chunk + lid / p.tx * run;
    q.hi = min(q.hi, q.lo + run);
#else
    q.step = ${WG}u / p.tx;
    q.lo = q.k * p.chunk + lid / p.tx;
#endif
    return q;
}

#if KERNEL == norm_stats
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read_write> part_mean: array<$T>;
@group(0) @binding(2) var<storage, read_write> part_m2: array<$T>;
var<workgroup> cell_n: array<f32, $WG>;
var<workgroup> cell_mean: array<$T, $WG>;
var<workgroup> cell_m2: array<$T, $WG>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let q = place(wid.y * p.gx + wid.x, lid);
    let base = q.b * p.rows * p.cols + q.col;
    var n = 0.0;
    var mean = $T(0.0);
    var m2 = $T(0.0);
    var r = q.lo;
    // Four rows at a time: four loads under way, one division.
    for (; r + 3u * q.step < q.hi; r += 4u * q.step) {
#for i in 0..4
        let v$i = x[base + (r + ${i}u * q.step) * p.cols];
#endfor
        let m = 0.25 * ((v0 + v1) + (v2 + v3));
#for i in 0..4
        let d$i = v$i - m;
#endfor
        let d = m - mean;
        let share = 4.0 / (n + 4.0);
        mean += share * d;
        m2 += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3) + d * d * (n * share);
        n += 4.0;
    }
    for (; r < q.hi; r += q.step) {
        let d = x[base + r * p.cols] - mean;
        n += 1.0;
        let share = 1.0 / n;
        mean += share * d;
        m2 += d * d * (1.0 - share);
    }
    cell_n[lid] = n;
    cell_mean[lid] = mean;
    cell_m2[lid] = m2;
    for (var s = ${WG / 2}u; s >= p.tx; s /= 2u) {
        workgroupBarrier();
        if (lid < s) {
            let nb = cell_n[lid + s];
            let d = cell_mean[lid + s] - cell_mean[lid];
            let share = nb / max(cell_n[lid] + nb, 1.0);
            cell_mean[lid] += share * d;
            cell_m2[lid] += cell_m2[lid + s] + d * d * (cell_n[lid] * share);
            cell_n[lid] += nb;
        }
    }
    if (lid < p.tx && q.live) {
        let to = (q.b * p.chunks + q.k) * p.cols + q.col;
        part_mean[to] = cell_mean[lid];
        part_m2[to] = cell_m2[lid];
    }
}
#endif

#if KERNEL == norm_apply
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> coef: array<$T>;
@group(0) @binding(2) var<storage, read_write> y: array<$T>;

fn act(v: $T) -> $T {
#if ACT == relu
    return select(v, $T(0.0), v < $T(0.0));
#else
    return v;
#endif
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let q = place(wid.y * p.gx + wid.x, lid);
    if (q.lo >= q.hi) {
        return;
    }
    let at = q.b * p.cols + q.col;
    let mean = coef[at];
    let slope = coef[at + p.batch * p.cols];
    let beta = coef[at + 2u * p.batch * p.cols];
    let base = q.b * p.rows * p.cols + q.col;
    // Four rows at a time: four loads under way.
    let stride = q.step * p.cols;
    var i = base + q.lo * p.cols;
    var left = (q.hi - q.lo + q.step - 1u) / q.step;
    for (; left >= 4u; left -= 4u) {
#for j in 0..4
        let v$j = x[i + ${j}u * stride];
#endfor
#for j in 0..4
        y[i + ${j}u * stride] = act((v$j - mean) * slope + beta);
#endfor
        i += 4u * stride;
    }
    for (; left > 0u; left--) {
        y[i] = act((x[i] - mean) * slope + beta);
        i += stride;
    }
}
#endif

#if KERNEL == norm_sums
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> dy: array<$T>;
#if ACT == rows
// Mean and 1 / deviation of each row.
@group(0) @binding(2) var<storage, read> coef: array<vec2<f32>>;
#else
@group(0) @binding(2) var<storage, read> coef: array<$T>;
#endif
@group(0) @binding(3) var<storage, read_write> part_s: array<$T>;
@group(0) @binding(4) var<storage, read_write> part_t: array<$T>;
var<workgroup> cell_s: array<$T, $WG>;
var<workgroup> cell_t: array<$T, $WG>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let q = place(wid.y * p.gx + wid.x, lid);
    let base = q.b * p.rows * p.cols + q.col;
    var s = $T(0.0);
    var t = $T(0.0);
#if ACT != rows
    let at = select(0u, q.b * p.cols + q.col, q.live);
    let mean = coef[at];
#endif
#if ACT == relu
    let slope = coef[at + p.batch * p.cols];
    let beta = coef[at + 2u * p.batch * p.cols];
#endif
    var r = q.lo;
    // Four rows at a time, then the rest one by one.
#for n in 0..2
#define ROWS ${n == 0 ? 4 : 1}
    for (; r + ${ROWS - 1}u * q.step < q.hi; r += ${ROWS}u * q.step) {
#for j in 0..ROWS
        let i$j = base + (r + ${j}u * q.step) * p.cols;
        var g$j = dy[i$j];
        let v$j = x[i$j];
#if ACT == rows
        let c$j = coef[r + ${j}u * q.step];
#endif
#endfor
#for j in 0..ROWS
#if ACT == rows
        let d$j = (v$j - $T(c${j}.x)) * c${j}.y;
#else
        let d$j = v$j - mean;
#endif
#if ACT == relu
        g$j = select($T(0.0), g$j, d$j * slope + beta > $T(0.0));
#endif
        s += g$j;
        t += g$j * d$j;
#endfor
    }
#endfor
    cell_s[lid] = s;
    cell_t[lid] = t;
    for (var h = ${WG / 2}u; h >= p.tx; h /= 2u) {
        workgroupBarrier();
        if (lid < h) {
            cell_s[lid] += cell_s[lid + h];
            cell_t[lid] += cell_t[lid + h];
        }
    }
    if (lid < p.tx && q.live) {
        let to = (q.b * p.chunks + q.k) * p.cols + q.col;
        part_s[to] = cell_s[lid];
        part_t[to] = cell_t[lid];
    }
}
#endif

#if KERNEL == norm_dx
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> dy: array<$T>;
@group(0) @binding(2) var<storage, read> coef: array<$T>;
@group(0) @binding(3) var<storage, read> dcoef: array<$T>;
@group(0) @binding(4) var<storage, read_write> dx: array<$T>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let q = place(wid.y * p.gx + wid.x, lid);
    if (q.lo >= q.hi) {
        return;
    }
    let at = q.b * p.cols + q.col;
    let mean = coef[at];
    let slope = coef[at + p.batch * p.cols];
#if ACT == relu
    let beta = coef[at + 2u * p.batch * p.cols];
#endif
    let e = dcoef[at];
    let f = dcoef[at + p.batch * p.cols];
    let base = q.b * p.rows * p.cols + q.col;
    let stride = q.step * p.cols;
    var i = base + q.lo * p.cols;
    var left = (q.hi - q.lo + q.step - 1u) / q.step;
#for n in 0..2
#define ROWS ${n == 0 ? 4 : 1}
    for (; left >= ${ROWS}u; left -= ${ROWS}u) {
#for j in 0..ROWS
        let v$j = x[i + ${j}u * stride];
        var g$j = dy[i + ${j}u * stride];
#endfor
#for j in 0..ROWS
        let d$j = v$j - mean;
#if ACT == relu
        g$j = select($T(0.0), g$j, d$j * slope + beta > $T(0.0));
#endif
        dx[i + ${j}u * stride] = (slope * g$j - e) + f * d$j;
#endfor
        i += ${ROWS}u * stride;
    }
#endfor
}
#endif
