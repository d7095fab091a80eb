// One or two tensors in, one out, element by element.
//   unary_*    y = f(x), four elements an invocation; f may have two scalar parameters a, b
//   dunary_*   dx = dy * f'(x) in one pass, for activations
//   binary_*   z = f(x, y) where each operand is full (v), one scalar (s) or a row repeated over the leading dimensions (r)
//   tile_*     the same where the last dimension is a multiple of four and there are three more at most
//   bcast_*    the same under any broadcasting, one element an invocation
//   select_*   z = cond != 0 ? x : y, all full, or under any broadcasting
#import activation

#define GROUP 256

#kernel unary_$OP : OP in neg abs exp log log1p expm1 sqrt rsqrt recip sin cos tanh sigmoid softplus silu mish gelu gelu_tanh relu leaky_relu elu erf square sign floor ceil round clamp powf add_scalar mul_scalar gt_scalar ge_scalar lt_scalar le_scalar eq_scalar ne_scalar is_nan is_finite
#kernel dunary_$OP : OP in tanh sigmoid softplus silu mish gelu gelu_tanh relu leaky_relu elu square abs clamp
#kernel binary_$OP_$X$Y : OP in add sub mul div pow maximum minimum gt ge lt le eq ne, X in v s r, Y in v s r if (X == v) + (Y == v) > 0
#kernel bcast_$OP : OP in add sub mul div pow maximum minimum gt ge lt le eq ne
#kernel tile_$OP : OP in add sub mul div pow maximum minimum gt ge lt le eq ne first
#kernel select_$F : F in full bcast

#if KERNEL == unary || KERNEL == dunary
struct UnaryParams { n4: u32, gx: u32, a: f32, b: f32 }
var<immediate> p: UnaryParams;
#endif

#if KERNEL == unary
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

fn f(v: f32) -> f32 {
#if OP == neg
    return -v;
#elif OP == abs || OP == exp || OP == sqrt || OP == floor || OP == ceil || OP == round || OP == sign
    return $OP(v);
#elif OP == log || OP == log1p || OP == expm1 || OP == sin || OP == cos || OP == tanh || OP == sigmoid || OP == erf || OP == softplus || OP == silu || OP == mish || OP == gelu || OP == gelu_tanh
    return sg_$OP(v);
#elif OP == rsqrt
    return inverseSqrt(v);
#elif OP == recip
    return 1.0 / v;
#elif OP == relu
    // By bits, from the smallest number below zero to minus infinity. max() would turn NaN into 0 and hide it, and so do drivers
    // that make a max() of a comparison.
    return select(v, 0.0, bitcast<u32>(v) - 0x80000001u < 0x7f800000u);
#elif OP == leaky_relu
    return select(v, p.a * v, v < 0.0);
#elif OP == elu
    return select(v, p.a * sg_expm1(v), v < 0.0);
#elif OP == square
    return v * v;
#elif OP == clamp
    return select(select(v, p.b, v > p.b), p.a, v < p.a);
#elif OP == powf
    return sg_pow(v, p.a);
#elif OP == add_scalar
    return v + p.a;
#elif OP == mul_scalar
    return v * p.a;
#elif OP == gt_scalar
    return select(0.0, 1.0, v > p.a);
#elif OP == ge_scalar
    return select(0.0, 1.0, v >= p.a);
#elif OP == lt_scalar
    return select(0.0, 1.0, v < p.a);
#elif OP == le_scalar
    return select(0.0, 1.0, v <= p.a);
#elif OP == eq_scalar
    return select(0.0, 1.0, v == p.a);
#elif OP == ne_scalar
    return select(1.0, 0.0, v == p.a);
#elif OP == is_nan
    return select(0.0, 1.0, sg_is_nan(v));
#elif OP == is_finite
    return select(1.0, 0.0, sg_is_nan(v) || sg_is_inf(v));
#endif
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n4) {
        let v = x[i];
        y[i] = vec4<f32>(f(v.x), f(v.y), f(v.z), f(v.w));
    }
}
#endif

#if KERNEL == dunary
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;

fn df(v: f32) -> f32 {
#if OP == tanh
    let t = sg_tanh(v);
    return 1.0 - t * t;
#elif OP == sigmoid
    let s = sg_sigmoid(v);
    return s * (1.0 - s);
#elif OP == softplus
    return sg_sigmoid(v);
#elif OP == silu || OP == gelu || OP == gelu_tanh
    return sg_d$OP(v);
#elif OP == mish
    let t = sg_tanh(sg_softplus(v));
    return t + v * sg_sigmoid(v) * (1.0 - t * t);
#elif OP == relu
    return select(0.0, 1.0, v > 0.0);
#elif OP == leaky_relu
    return select(p.a, 1.0, v > 0.0);
#elif OP == elu
    return select(p.a * exp(v), 1.0, v > 0.0);
#elif OP == square
    return 2.0 * v;
#elif OP == abs
    return sign(v);
#elif OP == clamp
    return select(0.0, 1.0, v >= p.a && v <= p.b);
#endif
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n4) {
        let v = x[i];
        let d = vec4<f32>(df(v.x), df(v.y), df(v.z), df(v.w));
        // Where the slope is zero an infinite gradient must not become NaN.
        dx[i] = select(dy[i] * d, vec4<f32>(0.0), d == vec4<f32>(0.0));
    }
}
#endif

#if KERNEL == binary || KERNEL == bcast || KERNEL == tile
fn f(u: f32, v: f32) -> f32 {
#if OP == add
    return u + v;
#elif OP == sub
    return u - v;
#elif OP == mul
    return u * v;
#elif OP == div
    return u / v;
#elif OP == pow
    return sg_pow(u, v);
#elif OP == maximum
    return select(select(u, v, v > u), v, sg_is_nan(v));
#elif OP == minimum
    return select(select(u, v, v < u), v, sg_is_nan(v));
#elif OP == gt
    return select(0.0, 1.0, u > v);
#elif OP == ge
    return select(0.0, 1.0, u >= v);
#elif OP == lt
    return select(0.0, 1.0, u < v);
#elif OP == le
    return select(0.0, 1.0, u <= v);
#elif OP == eq
    return select(0.0, 1.0, u == v);
#elif OP == ne
    return select(1.0, 0.0, u == v);
#elif OP == first
    return u;
#endif
}
#endif

#if KERNEL == tile
// [outer][mid][rows][inner4 vec4s]. An operand has vec4s along the inner dimension (v = 1; its strides count vec4s) or one
// number for all of it (v = 0); a stride of 0 repeats it. Whole numbers divide slowly, so that an invocation does eight rows.
struct TileParams {
    inner4: u32, rows: u32, mid: u32, xv: u32, yv: u32,
    xrow: u32, xmid: u32, xouter: u32,
    yrow: u32, ymid: u32, youter: u32,
}
var<immediate> p: TileParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#if OP == first
@group(0) @binding(1) var<storage, read_write> z: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> z: array<vec4<f32>>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t = wid.x * ${GROUP}u + lid;
    let block = t / p.inner4;
    let j = t - block * p.inner4;
    let outer = wid.z / p.mid;
    let mid = wid.z - outer * p.mid;
    let end = min(8u * block + 8u, p.rows);
    let xbase = mid * p.xmid + outer * p.xouter + p.xv * j;
    let ybase = mid * p.ymid + outer * p.youter + p.yv * j;
    var u = vec4<f32>(0.0);
    var v = vec4<f32>(0.0);
    for (var row = 8u * block; row < end; row++) {
#for k in 0..2
#if k == 0 || OP != first
        if (p.${k == 0 ? xrow : yrow} != 0u || row == 8u * block) {
            let i = ${k == 0 ? xbase : ybase} + row * p.${k == 0 ? xrow : yrow};
            if (p.${k == 0 ? xv : yv} == 1u) {
                ${k == 0 ? u : v} = ${k == 0 ? x : y}[i];
            } else {
                ${k == 0 ? u : v} = vec4<f32>(${k == 0 ? x : y}[i / 4u][i % 4u]);
            }
        }
#endif
#endfor
        z[(wid.z * p.rows + row) * p.inner4 + j] = vec4<f32>(f(u.x, v.x), f(u.y, v.y), f(u.z, v.z), f(u.w, v.w));
    }
}
#endif

#if KERNEL == binary
// row4: length of a repeated row in vec4s.
struct BinaryParams { n4: u32, gx: u32, row4: u32 }
var<immediate> p: BinaryParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> z: array<vec4<f32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n4) {
#if X == v
        let u = x[i];
#elif X == s
        let u = vec4<f32>(x[0].x);
#else
        let u = x[i % p.row4];
#endif
#if Y == v
        let v = y[i];
#elif Y == s
        let v = vec4<f32>(y[0].x);
#else
        let v = y[i % p.row4];
#endif
        z[i] = vec4<f32>(f(u.x, v.x), f(u.y, v.y), f(u.z, v.z), f(u.w, v.w));
    }
}
#endif

#if KERNEL == bcast
// Up to eight dimensions, the last first: its length, and each operand's stride (0 where it is repeated).
struct BcastParams {
    n: u32, gx: u32, rank: u32, pad: u32,
    dims0: vec4<u32>, dims1: vec4<u32>,
    xs0: vec4<u32>, xs1: vec4<u32>,
    ys0: vec4<u32>, ys1: vec4<u32>,
}
var<immediate> p: BcastParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> z: array<f32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n) {
        var rest = i;
        var a = 0u;
        var b = 0u;
#for d in 0..8
        if (p.rank > ${d}u) {
            let q = rest / p.dims${d / 4}[${d % 4}];
            let r = rest - q * p.dims${d / 4}[${d % 4}];
            a += r * p.xs${d / 4}[${d % 4}];
            b += r * p.ys${d / 4}[${d % 4}];
            rest = q;
        }
#endfor
        z[i] = f(x[a], y[b]);
    }
}
#endif

#if KERNEL == select
#if F == full
struct SelectParams { n4: u32, gx: u32 }
var<immediate> p: SelectParams;
#define T vec4<f32>
#else
// Up to six dimensions, the last first: its length, and each operand's stride (0 where it is repeated).
struct SelectBcastParams {
    dims0: vec4<u32>, cs0: vec4<u32>, xs0: vec4<u32>, ys0: vec4<u32>,
    dims_cs: vec4<u32>, xs_ys: vec4<u32>,
    n: u32, gx: u32,
}
var<immediate> p: SelectBcastParams;
#define T f32
#endif
@group(0) @binding(0) var<storage, read> cond: array<$T>;
@group(0) @binding(1) var<storage, read> x: array<$T>;
@group(0) @binding(2) var<storage, read> y: array<$T>;
@group(0) @binding(3) var<storage, read_write> z: array<$T>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
#if F == full
    if (i < p.n4) {
        z[i] = select(y[i], x[i], cond[i] != vec4<f32>(0.0));
    }
#else
    if (i < p.n) {
        var rest = i;
        var c = 0u;
        var a = 0u;
        var b = 0u;
#for d in 0..4
        let q$d = rest / p.dims0[$d];
        let r$d = rest - q$d * p.dims0[$d];
        c += r$d * p.cs0[$d];
        a += r$d * p.xs0[$d];
        b += r$d * p.ys0[$d];
        rest = q$d;
#endfor
        // The fifth dimension and what is left, the sixth.
        let last = rest / p.dims_cs.x;
        let r4 = rest - last * p.dims_cs.x;
        c += r4 * p.dims_cs.z + last * p.dims_cs.w;
        a += r4 * p.xs_ys.x + last * p.xs_ys.y;
        b += r4 * p.xs_ys.z + last * p.xs_ys.w;
        z[i] = select(y[b], x[a], cond[c] != 0.0);
    }
#endif
}
#endif
