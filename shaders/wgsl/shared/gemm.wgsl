// What every matrix product C = alpha * op(A) op(B) + bias has in common: parameters, operands, a workgroup's part.
// TA and TB say how an operand lies in memory: n is [rows][columns], t the transpose. V is 4 where its rows may be read as
// vec4s, 1 where they may not. With H the operands are halves, two in a word; sums, bias and result are floats all the same.
// With L operands are read 64 bits at a time, whatever V, and the result is written so where V is 4: on software drivers a load
// costs by its numbers, not by their bytes. x4 and w4 then read the four elements from the last multiple of four on.
// Offsets and strides in elements. A batch is outer x inner; each operand has a stride for both, 0 where it is repeated.
// Element (r, c) of the result is at r * crs + c * ccs. Each workgroup sums `span` of K; partial results lie `sp` apart.
// bias: 0 none, 1 per column, 2 per row. band: tiles go down that many rows of tiles before they go on to the next columns, so
// that what they share is still in the cache.
struct GemmParams {
    m: u32, n: u32, k: u32, gx: u32,
    lda: u32, ldb: u32, crs: u32, ccs: u32,
    a0: u32, b0: u32, c0: u32, count: u32,
    ao: u32, ai: u32, bo: u32, bi: u32,
    co: u32, ci: u32, sp: u32, inner: u32,
    tiles_m: u32, tiles_n: u32, splits: u32, span: u32,
    bias: u32, alpha: f32, band: u32,
}
var<immediate> p: GemmParams;

#if defined(H)
#import half
#endif
#if defined(L)
#if defined(H)
@group(0) @binding(0) var<storage, read> x: array<u64>;
@group(0) @binding(1) var<storage, read> w: array<u64>;
fn four(v: u64) -> vec4<f32> { return unpack4(vec2<u32>(u32(v), u32(v >> 32u))); }
#else
@group(0) @binding(0) var<storage, read> x: array<vec2<u64>>;
@group(0) @binding(1) var<storage, read> w: array<vec2<u64>>;
fn four(v: vec2<u64>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(v.x), u32(v.x >> 32u), u32(v.y), u32(v.y >> 32u)));
}
#endif
fn x1(i: u32) -> f32 { return four(x[i >> 2u])[i & 3u]; }
fn w1(i: u32) -> f32 { return four(w[i >> 2u])[i & 3u]; }
fn x4(i: u32) -> vec4<f32> { return four(x[i >> 2u]); }
fn w4(i: u32) -> vec4<f32> { return four(w[i >> 2u]); }
#elif defined(H) && V == 4
@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
fn x1(i: u32) -> f32 { return unpack4(x[i >> 2u])[i & 3u]; }
fn w1(i: u32) -> f32 { return unpack4(w[i >> 2u])[i & 3u]; }
fn x4(i: u32) -> vec4<f32> { return unpack4(x[i >> 2u]); }
fn w4(i: u32) -> vec4<f32> { return unpack4(w[i >> 2u]); }
#elif defined(H)
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
fn x1(i: u32) -> f32 { return unpack2x16float(x[i >> 1u])[i & 1u]; }
fn w1(i: u32) -> f32 { return unpack2x16float(w[i >> 1u])[i & 1u]; }
fn x4(i: u32) -> vec4<f32> { return vec4<f32>(x1(i), x1(i + 1u), x1(i + 2u), x1(i + 3u)); }
fn w4(i: u32) -> vec4<f32> { return vec4<f32>(w1(i), w1(i + 1u), w1(i + 2u), w1(i + 3u)); }
#elif V == 4
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
fn x1(i: u32) -> f32 { return x[i >> 2u][i & 3u]; }
fn w1(i: u32) -> f32 { return w[i >> 2u][i & 3u]; }
fn x4(i: u32) -> vec4<f32> { return x[i >> 2u]; }
fn w4(i: u32) -> vec4<f32> { return w[i >> 2u]; }
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
fn x1(i: u32) -> f32 { return x[i]; }
fn w1(i: u32) -> f32 { return w[i]; }
fn x4(i: u32) -> vec4<f32> { return vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]); }
fn w4(i: u32) -> vec4<f32> { return vec4<f32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]); }
#endif
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#if defined(L) && V == 4
@group(0) @binding(3) var<storage, read_write> y: array<vec2<u64>>;
fn bits(v: vec4<f32>) -> vec2<u64> {
    let b = bitcast<vec4<u32>>(v);
    return vec2<u64>(u64(b.x) | (u64(b.y) << 32u), u64(b.z) | (u64(b.w) << 32u));
}
#else
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#endif

// A workgroup's part of the work: tile numbers, first element of each matrix, range of K.
struct Part { tm: u32, tn: u32, a: u32, b: u32, c: u32, k0: u32, k1: u32 }

fn part_of(id: u32) -> Part {
    let tiles = p.tiles_m * p.tiles_n;
    let z = id / tiles;
    let at = id - z * tiles;
    let top = at / (p.band * p.tiles_n) * p.band;
    let height = min(p.band, p.tiles_m - top);
    let tn = (at - top * p.tiles_n) / height;
    let tm = at - top * p.tiles_n - tn * height + top;
    let batch = z / p.splits;
    let split = z - batch * p.splits;
    let o = batch / p.inner;
    let i = batch - o * p.inner;
    let k0 = split * p.span;
    return Part(tm, tn, p.a0 + o * p.ao + i * p.ai, p.b0 + o * p.bo + i * p.bi,
        p.c0 + o * p.co + i * p.ci + split * p.sp, k0, min(k0 + p.span, p.k));
}
