// Attention within the windows of a map of queries, keys and values [B][H][W][3][heads][D] (Liu et al., 2021). Windows, the
// shift and its mask, heads and the table of relative biases are all in the indices: nothing is moved.
//   y [B][H][W][heads][D] = softmax(scale q k^T + bias) v over the keys that the query sees
// D is a multiple of 4.
//   s8   a subgroup of eight: it loads a key once and broadcasts it; an invocation has R queries
//   wg   an invocation has a query and loads the keys by itself
#kernel window_forward_$D_$MODE : D in 8 12 16 24 32, MODE in s8 wg
#import window

#if MODE == s8
#define TEAM 8
#define R 2
#else
#define TEAM 64
#define R 1
#endif
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size($TEAM)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n = p.side * p.side;
    let stride = 2u * p.side - 1u;
    let corner = (p.side - 1u) * (stride + 1u);
    let all = p.windows * p.heads;
    let group = wid.y * p.gx + wid.x;
#if MODE == s8
    let live = group < all * p.blocks;
    let problem = min(group / p.blocks, all - 1u);
    let first = group % p.blocks * ${TEAM * R}u + lid;
#else
    let item = group * ${TEAM}u + lid;
    let live = item < all * n;
    let problem = min(item / n, all - 1u);
    let first = item % n;
#endif
    let window = problem / p.heads;
    let head = problem - window * p.heads;
    let here = place(window);
    let column = head * ${D4}u;
#for r in 0..R
    let i$r = first + ${r * TEAM}u;
    let ty$r = min(i$r, n - 1u) / p.side;
    let tx$r = min(i$r, n - 1u) - ty$r * p.side;
    let pixel$r = pixel(here, ty$r, tx$r);
    let quarter$r = quarter(here, ty$r, tx$r);
    let place$r = corner + ty$r * stride + tx$r;
    var m$r = LOWEST;
    var l$r = 0.0;
#for c in 0..D4
    let q${r}_$c = p.scale * qkv[pixel$r * 3u * p.quads + column + ${c}u];
    var o${r}_$c = vec4<f32>(0.0);
#endfor
#endfor
    // The key's row, column and place in the table, without division.
    var ky = 0u;
    var kx = 0u;
    var kp = 0u;
    for (var j = 0u; j < n; j += 4u) {
#for t in 0..4
        let in$t = j + ${t}u < n;
        let row$t = pixel(here, min(ky, p.side - 1u), kx) * 3u * p.quads + p.quads + column;
        let kq$t = quarter(here, ky, kx);
        let kp$t = min(kp, corner);
        let wrap$t = kx + 1u == p.side;
        kx = select(kx + 1u, 0u, wrap$t);
        ky += select(0u, 1u, wrap$t);
        kp += select(1u, p.side, wrap$t);
#if MODE == s8
        let k$t = qkv[row$t + min(lid, ${D4 - 1}u)];
        let v$t = qkv[row$t + p.quads + min(lid, ${D4 - 1}u)];
#endif
#for r in 0..R
        var s${r}_$t = 0.0;
#endfor
#for c in 0..D4
#if MODE == s8
        let kc${t}_$c = subgroupBroadcast(k$t, ${c}u);
#else
        let kc${t}_$c = qkv[row$t + ${c}u];
#endif
#for r in 0..R
        s${r}_$t += dot(q${r}_$c, kc${t}_$c);
#endfor
#endfor
#endfor
#for r in 0..R
#for t in 0..4
        let seen${r}_$t = in$t && kq$t == quarter$r;
        let x${r}_$t = score(s${r}_$t, place$r, kp$t, head, seen${r}_$t);
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
        let vc${t}_$c = subgroupBroadcast(v$t, ${c}u);
#else
        let vc${t}_$c = qkv[row$t + p.quads + ${c}u];
#endif
#for r in 0..R
        o${r}_$c += e${r}_$t * vc${t}_$c;
#endfor
#endfor
#endfor
    }
#for r in 0..R
    if (live && i$r < n) {
#for c in 0..D4
        y[pixel$r * p.quads + column + ${c}u] = o${r}_$c / l$r;
#endfor
    }
#endfor
}
