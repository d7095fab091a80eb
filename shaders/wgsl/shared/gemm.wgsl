// What every matrix product C = alpha * op(A) op(B) + bias has in common: parameters, operands, a workgroup's part.
// TA and TB say how an operand lies in memory: n is [rows][columns], t the transpose. V is 4 where its rows may be read as
// vec4s, 1 where they may not. With H the operands are halves, two in a word; sums, bias and result are floats all the same.
// Offsets and strides in elements. A batch is outer x inner; each operand has a stride for both, 0 where it is repeated.
// Element (r, c) of the result is at r * crs + c * ccs. Each workgroup sums `span` of K; partial results lie `sp` apart.
// bias: 0 none, 1 per column, 2 per row.
struct GemmParams {
    m: u32, n: u32, k: u32, gx: u32,
    lda: u32, ldb: u32, crs: u32, ccs: u32,
    a0: u32, b0: u32, c0: u32, count: u32,
    ao: u32, ai: u32, bo: u32, bi: u32,
    co: u32, ci: u32, sp: u32, inner: u32,
    tiles_m: u32, tiles_n: u32, splits: u32, span: u32,
    bias: u32, alpha: f32,
}
var<immediate> p: GemmParams;

#if defined(H)
#import half
#endif
#if defined(H) && V == 4
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
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// A workgroup's part of the work: tile numbers, first element of each matrix, range of K.
struct Part { tm: u32, tn: u32, a: u32, b: u32, c: u32, k0: u32, k1: u32 }

fn part_of(id: u32) -> Part {
    let tn = id / p.tiles_m;
    let z = tn / p.tiles_n;
    let batch = z / p.splits;
    let split = z - batch * p.splits;
    let o = batch / p.inner;
    let i = batch - o * p.inner;
    let k0 = split * p.span;
    return Part(id - tn * p.tiles_m, tn - z * p.tiles_n, p.a0 + o * p.ao + i * p.ai, p.b0 + o * p.bo + i * p.bi,
        p.c0 + o * p.co + i * p.ci + split * p.sp, k0, min(k0 + p.span, p.k));
}
