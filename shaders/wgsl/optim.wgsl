// In place over flat buffers of parameters: accumulation, masks, exponential averages.
#define GROUP 256
#kernel accumulate
#kernel mask
#kernel ema

struct FlatParams { n: u32, gx: u32, scale: f32, pad: u32 }
var<immediate> p: FlatParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (4u * i < p.n) {
        let v = x[i];
        let now = y[i];
#if KERNEL == accumulate
        let next = now + p.scale * v;
        // Behind the end lies padding that must stay zero, or the next tensor.
        let at = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
        y[i] = select(now, next, at < vec4<u32>(p.n));
#elif KERNEL == mask
        y[i] = select(now * v, vec4<f32>(0.0), v == vec4<f32>(0.0));
#else
        y[i] = now + p.scale * (v - now);
#endif
    }
}
