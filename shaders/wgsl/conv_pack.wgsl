// Rearrangements around the convolutions, four elements of the result an invocation.
//   conv_repack      [rows][length] -> [rows][to]: channels padded with zeros to a multiple of four, or cut back
//   conv_transpose   weights [group][out][taps][in] -> [group][in][taps][out, padded to `to`]
//   conv_swap        [rows][cols] -> [cols][rows, padded to `to`]
//   conv_sum         the sum over `length` partial results, in order
#kernel conv_repack
#kernel conv_transpose
#kernel conv_swap
#kernel conv_sum
// Of halves, to halves.
#kernel conv_repack_$H : H in half
#kernel conv_transpose_$H : H in half
#define GROUP 256

// n: elements of the result; n4: its quads.
struct PackParams { n: u32, n4: u32, gx: u32, length: u32, to: u32, rows: u32, taps: u32, inner: u32 }
var<immediate> p: PackParams;
#if KERNEL == conv_sum
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
#elif defined(H)
#import half
@group(0) @binding(0) var<storage, read> x: array<u32>;
fn x1(i: u32) -> f32 { return unpack2x16float(x[i >> 1u])[i & 1u]; }
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
fn x1(i: u32) -> f32 { return x[i]; }
#endif
#if defined(H)
@group(0) @binding(1) var<storage, read_write> y: array<vec2<u32>>;
#else
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
#endif

#if KERNEL != conv_sum
fn value(i: u32) -> f32 {
    let c = i % p.to;
    let rest = i / p.to;
#if KERNEL == conv_repack
    if (c >= p.length || i >= p.n) {
        return 0.0;
    }
    return x1(rest * p.length + c);
#elif KERNEL == conv_transpose
    if (c >= p.length) {
        return 0.0;
    }
    let tap = rest % p.taps;
    let out = rest / p.taps;
    let group = out / p.inner;
    return x1(((group * p.length + c) * p.taps + tap) * p.inner + out % p.inner);
#else
    if (c >= p.rows || i >= p.n) {
        return 0.0;
    }
    return x1(c * p.length + rest);
#endif
}
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n4) {
#if KERNEL == conv_sum
        var sum = x[i];
        for (var s = 1u; s < p.length; s++) {
            sum += x[s * p.n4 + i];
        }
        y[i] = sum;
#else
        let e = 4u * i;
        let v = vec4<f32>(value(e), value(e + 1u), value(e + 2u), value(e + 3u));
#if defined(H)
        y[i] = pack4(v);
#else
        y[i] = v;
#endif
#endif
    }
}
