// Mixed precision over an arena: the values as halves, and the factor of the loss.
//   halves    the values of every parameter as halves, from the byte on at which its floats begin: those places satisfy
//             every device's alignment
//   unscale   gradients divided by the factor of the loss, in place
//   rescale   the factor of the next step: halved where this step was left out because a gradient was not finite, doubled
//             after `patience` good steps in a row
#define GROUP 256
#kernel halves
#kernel unscale
#kernel rescale

#if KERNEL == halves
#import half
struct HalvesParams { n4: u32, gx: u32 }
var<immediate> p: HalvesParams;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
// The parameter of each block of 64 floats, and the first block of each parameter.
@group(0) @binding(1) var<storage, read> owners: array<u32>;
@group(0) @binding(2) var<storage, read> firsts: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec2<u32>>;
#elif KERNEL == unscale
struct UnscaleParams { n4: u32, gx: u32 }
var<immediate> p: UnscaleParams;
@group(0) @binding(0) var<storage, read> state: array<f32>;
@group(0) @binding(1) var<storage, read_write> grads: array<vec4<f32>>;
#else
struct RescaleParams { patience: f32, least: f32, most: f32, pad: f32 }
var<immediate> p: RescaleParams;
// The optimiser's scalars: element 1 says whether the step was taken.
@group(0) @binding(0) var<storage, read> s: array<f32>;
// Factor, its reciprocal, good steps since it last changed, steps left out.
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
#endif

#if KERNEL == rescale
@compute @workgroup_size(1)
fn main() {
    // Factors are powers of two: neither they nor their reciprocals are ever rounded.
    if (s[1] > 0.5) {
        let good = state[2] + 1.0;
        if (good < p.patience) {
            state[2] = good;
        } else {
            state[2] = 0.0;
            if (state[0] < p.most) {
                state[0] *= 2.0;
                state[1] *= 0.5;
            }
        }
    } else {
        state[2] = 0.0;
        state[3] += 1.0;
        if (state[0] > p.least) {
            state[0] *= 0.5;
            state[1] *= 2.0;
        }
    }
}
#else
@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    if (i < p.n4) {
#if KERNEL == halves
        let first = firsts[owners[i / 16u]] * 16u;
        y[first + i] = pack4(x[i]);
#else
        grads[i] *= state[1];
#endif
    }
}
#endif
