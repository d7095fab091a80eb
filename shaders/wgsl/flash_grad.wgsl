// Gradients of attention without the matrix of scores (Dao, 2023): weights are computed again, from what the forward pass
// kept of each query. No invocation adds to another's result, so the order of all sums is fixed.
//   flash_rows    (largest score, one over the sum, dy . y) of each query, an invocation a query
//   flash_query   dq: an invocation has R queries in registers and runs over the keys
//   flash_key     dk, and dv behind it: an invocation has R keys in registers and runs over the queries
// Modes as in flash.wgsl.
#kernel flash_rows
#kernel flash_query_$D_$MODE : D in 16 32 64, MODE in s8 wg
#kernel flash_key_$D_$MODE : D in 16 32 64, MODE in s8 wg

#if KERNEL == flash_rows
// quads: those of a row.
struct FlashRowParams { rows: u32, quads: u32, gx: u32, pad: u32 }
var<immediate> p: FlashRowParams;
@group(0) @binding(0) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kept: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * 64u + lid;
    if (row >= p.rows) {
        return;
    }
    // In the order of the other kernels' sums, so that a query that sees one key gets no gradient, not one of rounding.
    var s = 0.0;
    for (var c = 0u; c < p.quads; c++) {
        s += dot(y[row * p.quads + c], dy[row * p.quads + c]);
    }
    rows[row] = vec4<f32>(kept[row], s, 0.0);
}
#else
#import flash

#define D4 ${D / 4}
#if MODE == s8
#define WG 8
#define R ${D <= 32 ? 4 : 2}
#define REGS ${D4 >= 8 ? D4 / 8 : 1}
#define LOADERS ${D4 >= 8 ? 8 : D4}
#define STEP 8
#else
#define WG 64
#define R 1
#define STEP 16
// Rows of the two operands that pass by.
var<workgroup> tile_a: array<vec4<f32>, ${STEP * D4}>;
var<workgroup> tile_b: array<vec4<f32>, ${STEP * D4}>;
#if KERNEL == flash_key
var<workgroup> tile_rows: array<vec4<f32>, $STEP>;
#endif
#endif

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> mask: array<f32>;
// apart: quads from the start of dk to that of dv.
@group(0) @binding(7) var<storage, read_write> grads: array<vec4<f32>>;

// The weight of a key: `row` is what is known of the query.
fn weight(s: f32, row: vec4<f32>, seen: bool) -> f32 {
    return select(0.0, exp(s - row.x) * row.y, seen);
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let group = wid.y * p.gx + wid.x;
    let live = group < p.all * p.blocks;
    let head = min(group / p.blocks, p.all - 1u);
    let first = group % p.blocks * ${WG * R}u;
#if KERNEL == flash_query
#for r in 0..R
    let i$r = first + ${r * WG}u + lid;
    let at$r = min(i$r, p.queries - 1u);
    let bias$r = offset(p.bias, head, at$r);
    let mask$r = offset(p.mask, head, at$r);
    let row$r = rows[head * p.queries + at$r];
#for c in 0..D4
    let own${r}_$c = p.scale * q[(head * p.queries + at$r) * ${D4}u + ${c}u];
    let slope${r}_$c = dy[(head * p.queries + at$r) * ${D4}u + ${c}u];
    var da${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
    // No query of this workgroup sees more.
    let begin = 0u;
    let end = select(p.keys, min(p.keys, first + ${WG * R}u), (p.flags & 4u) != 0u);
    let count = p.keys;
#else
#for r in 0..R
    let i$r = first + ${r * WG}u + lid;
    let at$r = min(i$r, p.keys - 1u);
#for c in 0..D4
    let own${r}_$c = p.scale * k[(head * p.keys + at$r) * ${D4}u + ${c}u];
    let slope${r}_$c = v[(head * p.keys + at$r) * ${D4}u + ${c}u];
    var da${r}_$c = vec4<f32>(0.0);
    var db${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
    let bias_head = offset(p.bias, head, 0u);
    let mask_head = offset(p.mask, head, 0u);
    // No query before sees a key of this workgroup.
    let begin = select(0u, first, (p.flags & 4u) != 0u);
    let end = p.queries;
    let count = p.queries;
#endif
    for (var j0 = begin; j0 < end; j0 += ${STEP}u) {
#if MODE == s8
#if KERNEL == flash_key
        let eight = rows[head * p.queries + min(j0 + lid, p.queries - 1u)];
#endif
#else
        workgroupBarrier();
        for (var e = lid; e < ${STEP * D4}u; e += ${WG}u) {
            let at = (head * count + min(j0 + e / ${D4}u, count - 1u)) * ${D4}u + e % ${D4}u;
#if KERNEL == flash_query
            tile_a[e] = k[at];
            tile_b[e] = v[at];
#else
            tile_a[e] = q[at];
            tile_b[e] = dy[at];
#endif
        }
#if KERNEL == flash_key
        if (lid < ${STEP}u) {
            tile_rows[lid] = rows[head * p.queries + min(j0 + lid, p.queries - 1u)];
        }
#endif
        workgroupBarrier();
#endif
        for (var t = 0u; t < min(${STEP}u, end - j0); t++) {
            let j = j0 + t;
#if MODE == s8
            let loaded = (head * count + j) * ${D4}u + lid % ${LOADERS}u;
#for n in 0..REGS
#if KERNEL == flash_query
            let a_$n = k[loaded + ${8 * n}u];
            let b_$n = v[loaded + ${8 * n}u];
#else
            let a_$n = q[loaded + ${8 * n}u];
            let b_$n = dy[loaded + ${8 * n}u];
#endif
#endfor
#endif
#if KERNEL == flash_key
#if MODE == s8
            let row = vec4<f32>(subgroupShuffle(eight.x, t), subgroupShuffle(eight.y, t), subgroupShuffle(eight.z, t), 0.0);
#else
            let row = tile_rows[t];
#endif
            let bias_at = bias_head + j * p.bias.z;
            let mask_at = mask_head + j * p.mask.z;
#endif
#for r in 0..R
            var s$r = 0.0;
            var g$r = 0.0;
#endfor
#for c in 0..D4
#if MODE == s8
            let ac_$c = subgroupBroadcast(a_${c / 8}, ${c % 8}u);
            let bc_$c = subgroupBroadcast(b_${c / 8}, ${c % 8}u);
#else
            let ac_$c = tile_a[t * ${D4}u + ${c}u];
            let bc_$c = tile_b[t * ${D4}u + ${c}u];
#endif
#for r in 0..R
            s$r += dot(own${r}_$c, ac_$c);
            g$r += dot(slope${r}_$c, bc_$c);
#endfor
#endfor
#for r in 0..R
#if KERNEL == flash_query
            let e$r = weight(biased(s$r, bias$r, j), row$r, visible(mask$r, at$r, j));
            let d$r = e$r * (g$r - row$r.z);
#else
            let e$r = weight(biased(s$r, bias_at, at$r), row, visible(mask_at, j, at$r));
            let d$r = e$r * (g$r - row.z);
#endif
#for c in 0..D4
            da${r}_$c += d$r * ac_$c;
#if KERNEL == flash_key
            db${r}_$c += e$r * bc_$c;
#endif
#endfor
#endfor
        }
    }
#for r in 0..R
#if KERNEL == flash_query
    if (live && i$r < p.queries) {
        let to = (head * p.queries + i$r) * ${D4}u;
#else
    if (live && i$r < p.keys) {
        let to = (head * p.keys + i$r) * ${D4}u;
#endif
#for c in 0..D4
        grads[to + ${c}u] = p.scale * da${r}_$c;
#if KERNEL == flash_key
        grads[p.apart + to + ${c}u] = db${r}_$c;
#endif
#endfor
    }
#endfor
}
#endif
