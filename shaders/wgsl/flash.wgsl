// Attention in one pass without the matrix of scores (Dao, 2023), keys and values of equal depth D: an invocation has R
// queries in registers and runs over the keys four at a time, with a running maximum and sum.
//   s8   subgroups of eight: the subgroup loads a key once and broadcasts it
//   wg   keys pass through workgroup memory
// flash_keep also writes what the backward pass needs of each query: the largest score and one over the sum.
#kernel flash_forward_$D_$MODE : D in 16 32 64, MODE in s8 wg
#kernel flash_keep_$D_$MODE : D in 16 32 64, MODE in s8 wg
#import flash

#define D4 ${D / 4}
#if MODE == s8
#define WG 8
#define R ${D <= 32 ? 4 : 2}
#define REGS ${D4 >= 8 ? D4 / 8 : 1}
#define LOADERS ${D4 >= 8 ? 8 : D4}
#define KEYS 4
#else
#define WG 64
#define R 1
#define KEYS 16
var<workgroup> tile_k: array<vec4<f32>, ${KEYS * D4}>;
var<workgroup> tile_v: array<vec4<f32>, ${KEYS * D4}>;
#endif

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> mask: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
#if KERNEL == flash_keep
@group(0) @binding(6) var<storage, read_write> kept: array<vec2<f32>>;
#endif

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let group = wid.y * p.gx + wid.x;
    let live = group < p.all * p.blocks;
    let head = min(group / p.blocks, p.all - 1u);
    let first = group % p.blocks * ${WG * R}u;
#for r in 0..R
    let i$r = first + ${r * WG}u + lid;
    let at$r = min(i$r, p.queries - 1u);
    let bias$r = offset(p.bias, head, at$r);
    let mask$r = offset(p.mask, head, at$r);
    var m$r = LOWEST;
    var l$r = 0.0;
#for c in 0..D4
    let q${r}_$c = p.scale * q[(head * p.queries + at$r) * ${D4}u + ${c}u];
    var o${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
    // No query of this workgroup sees more.
    let end = select(p.keys, min(p.keys, first + ${WG * R}u), (p.flags & 4u) != 0u);
    for (var j0 = 0u; j0 < end; j0 += ${KEYS}u) {
#if MODE == s8
        let j = j0;
#for t in 0..4
        let row$t = (head * p.keys + min(j + ${t}u, p.keys - 1u)) * ${D4}u + lid % ${LOADERS}u;
#for n in 0..REGS
        let k${t}_$n = k[row$t + ${8 * n}u];
        let v${t}_$n = v[row$t + ${8 * n}u];
#endfor
#endfor
#else
        workgroupBarrier();
        for (var e = lid; e < ${KEYS * D4}u; e += ${WG}u) {
            let at = (head * p.keys + min(j0 + e / ${D4}u, p.keys - 1u)) * ${D4}u + e % ${D4}u;
            tile_k[e] = k[at];
            tile_v[e] = v[at];
        }
        workgroupBarrier();
        for (var t0 = 0u; t0 < ${KEYS}u; t0 += 4u) {
        let j = j0 + t0;
#endif
#for t in 0..4
#for r in 0..R
        var s${r}_$t = 0.0;
#endfor
#for c in 0..D4
#if MODE == s8
        let kc${t}_$c = subgroupBroadcast(k${t}_${c / 8}, ${c % 8}u);
#else
        let kc${t}_$c = tile_k[(t0 + ${t}u) * ${D4}u + ${c}u];
#endif
#for r in 0..R
        s${r}_$t += dot(q${r}_$c, kc${t}_$c);
#endfor
#endfor
#endfor
#for r in 0..R
#for t in 0..4
        let seen${r}_$t = visible(mask$r, at$r, j + ${t}u);
        let x${r}_$t = select(LOWEST, biased(s${r}_$t, bias$r, j + ${t}u), seen${r}_$t);
#endfor
        let top$r = max(max(max(x${r}_0, x${r}_1), max(x${r}_2, x${r}_3)), m$r);
        let fix$r = exp(m$r - top$r);
        m$r = top$r;
#for t in 0..4
        let e${r}_$t = select(0.0, exp(x${r}_$t - top$r), seen${r}_$t);
#endfor
        l$r = l$r * fix$r + ((e${r}_0 + e${r}_1) + (e${r}_2 + e${r}_3));
#for c in 0..D4
        o${r}_$c *= fix$r;
#endfor
#endfor
#for t in 0..4
#for c in 0..D4
#if MODE == s8
        let vc${t}_$c = subgroupBroadcast(v${t}_${c / 8}, ${c % 8}u);
#else
        let vc${t}_$c = tile_v[(t0 + ${t}u) * ${D4}u + ${c}u];
#endif
#for r in 0..R
        o${r}_$c += e${r}_$t * vc${t}_$c;
#endfor
#endfor
#endfor
#if MODE != s8
        }
#endif
    }
#for r in 0..R
    if (live && i$r < p.queries) {
        let share = select(0.0, 1.0 / l$r, l$r > 0.0);
#if KERNEL == flash_keep
        kept[head * p.queries + i$r] = vec2<f32>(m$r, share);
#endif
#for c in 0..D4
        y[(head * p.queries + i$r) * ${D4}u + ${c}u] = share * o${r}_$c;
#endfor
    }
#endfor
}
