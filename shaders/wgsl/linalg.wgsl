// Factorisation and substitution of square matrices by blocks of 32; what lies between the blocks is matrix products.
//   linalg_lower       the lower triangle of (A + A^T) / 2, zeros above
//   linalg_factor      Cholesky factor of one diagonal block, in place
//   linalg_solve_*     substitution with one diagonal block: one column of the right side per invocation
//                      (own: into a matrix of its own; inside: block, right side and solution in one matrix)
//   linalg_pivot       index of the first diagonal element that is not a positive number
#import math
#kernel linalg_lower
#kernel linalg_factor
#kernel linalg_solve_$WHERE : WHERE in own inside
#kernel linalg_pivot
#define BLOCK 32

#if KERNEL == linalg_lower
struct LowerParams { n: u32, count: u32, gx: u32 }
var<immediate> p: LowerParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 256u + lid;
    if (i < p.count) {
        let row = i / p.n;
        let col = i - row * p.n;
        let first = row / p.n * p.n;
        let r = row - first;
        // Element (c, r) of the same matrix.
        let mirror = (first + col) * p.n + r;
        y[i] = select(0.0, 0.5 * (x[i] + x[mirror]), col <= r);
    }
}
#endif

#if KERNEL == linalg_factor
// Block of `w` rows at `j0` of each n x n matrix. What the columns to its left contribute is in `done`, `step` floats
// apart from matrix to matrix, rows of w; nothing where j0 is 0.
struct FactorParams { n: u32, j0: u32, w: u32, step: u32, count: u32, gx: u32 }
var<immediate> p: FactorParams;
@group(0) @binding(0) var<storage, read> done: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> s: array<f32, ${BLOCK * BLOCK}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let matrix = wid.y * p.gx + wid.x;
    if (matrix >= p.count) {
        return;
    }
    let base = (matrix * p.n + p.j0) * p.n + p.j0;
    let size = p.w * p.w;
    for (var e = lid; e < size; e += 64u) {
        let r = e / p.w;
        let c = e - r * p.w;
        var v = y[base + r * p.n + c];
        if (p.j0 > 0u) {
            v -= done[matrix * p.step + e];
        }
        s[r * ${BLOCK}u + c] = v;
    }
    workgroupBarrier();
    for (var c = 0u; c < p.w; c++) {
        let d = s[c * ${BLOCK + 1}u];
        workgroupBarrier();
        // Not a root of a negative number, which some drivers take for positive: NaN says that this is no factor.
        let root = select(sg_nan(d), sqrt(abs(d)), d > 0.0);
        if (lid < p.w && lid >= c) {
            s[lid * ${BLOCK}u + c] = select(s[lid * ${BLOCK}u + c] / root, root, lid == c);
        }
        workgroupBarrier();
        let left = p.w - c - 1u;
        for (var e = lid; e < left * left; e += 64u) {
            let r = c + 1u + e / left;
            let q = c + 1u + e % left;
            if (q <= r) {
                s[r * ${BLOCK}u + q] -= s[r * ${BLOCK}u + c] * s[q * ${BLOCK}u + c];
            }
        }
        workgroupBarrier();
    }
    for (var e = lid; e < size; e += 64u) {
        let r = e / p.w;
        let c = e - r * p.w;
        if (c <= r) {
            y[base + r * p.n + c] = s[r * ${BLOCK}u + c];
        }
    }
}
#endif

#if KERNEL == linalg_solve
// Solves for w elements of each of `cols` columns. Offset, distance of matrices, of elements along the block, and of
// columns: of the triangle (t: row and column), the right side (b), the sum known already (k, if has_k) and the solution (y).
// Backward substitution starts at the last element.
struct SolveParams {
    w: u32, cols: u32, groups: u32, gx: u32,
    t0: u32, tm: u32, ti: u32, tj: u32,
    b0: u32, bm: u32, bi: u32, bc: u32,
    k0: u32, km: u32, ki: u32, kc: u32,
    y0: u32, ym: u32, yi: u32, yc: u32,
    has_k: u32, backward: u32, count: u32,
}
var<immediate> p: SolveParams;
#if WHERE == own
@group(0) @binding(0) var<storage, read> tri: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> known: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#define TRI tri
#define RIGHT b
#else
@group(0) @binding(0) var<storage, read> known: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
#define TRI y
#define RIGHT y
#endif

// The block in the order of substitution.
var<workgroup> s: array<f32, ${BLOCK * BLOCK}>;

fn place(i: u32) -> u32 {
    return select(i, p.w - 1u - i, p.backward == 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let id = wid.y * p.gx + wid.x;
    if (id >= p.count) {
        return;
    }
    let matrix = id / p.groups;
    let col = (id - matrix * p.groups) * 64u + lid;
    for (var e = lid; e < p.w * p.w; e += 64u) {
        let i = e / p.w;
        let j = e - i * p.w;
        // The other triangle is not read: it may hold anything.
        if (j <= i) {
            let v = $TRI[p.t0 + matrix * p.tm + place(i) * p.ti + place(j) * p.tj];
            s[i * ${BLOCK}u + j] = v;
        }
    }
    workgroupBarrier();
    if (col < p.cols) {
        var v: array<f32, $BLOCK>;
        for (var i = 0u; i < p.w; i++) {
            let at = place(i);
            var sum = $RIGHT[p.b0 + matrix * p.bm + at * p.bi + col * p.bc];
            if (p.has_k == 1u) {
                sum -= known[p.k0 + matrix * p.km + at * p.ki + col * p.kc];
            }
            for (var j = 0u; j < i; j++) {
                sum -= s[i * ${BLOCK}u + j] * v[j];
            }
            v[i] = sum / s[i * ${BLOCK + 1}u];
            y[p.y0 + matrix * p.ym + at * p.yi + col * p.yc] = v[i];
        }
    }
}
#endif

#if KERNEL == linalg_pivot
struct PivotParams { n: u32, count: u32, gx: u32 }
var<immediate> p: PivotParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 64u + lid;
    if (i < p.count) {
        var first = p.n;
        for (var r = p.n; r > 0u; r--) {
            let d = x[(i * p.n + r - 1u) * p.n + r - 1u];
            first = select(first, r - 1u, sg_is_nan(d) || sg_is_inf(d) || d <= 0.0);
        }
        y[i] = first;
    }
}
#endif
