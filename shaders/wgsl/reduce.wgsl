// Reductions of [outer][len][inner] over the middle.
#define GROUP 256
#kernel reduce_sum

struct ReduceParams { outer: u32, len: u32, inner: u32, gx: u32 }
var<immediate> p: ReduceParams;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.outer * p.inner) {
        let base = i / p.inner * p.len * p.inner + i % p.inner;
        var sum = 0.0;
        for (var k = 0u; k < p.len; k++) {
            sum += x[base + k * p.inner];
        }
        y[i] = sum;
    }
}
