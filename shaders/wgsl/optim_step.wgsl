// Optimiser steps in place over a flat arena. Four invocations share a block of 64 floats, four vec4s each, so that the
// tables are read once for four. Source and formulas: src/optim/rule.rs.
// A block of 64 floats belongs to one parameter; its row: rate multiplier, decay multiplier, 0 frozen | 1 trained |
// 2 adapted too, trust ratio.
// s: 0 scale of gradients, 1 apply (0 skips the step), 5 skipped, 6 norm, 7 applied; from own = 8 on four floats a
// parameter: bias corrections 1 - beta^t, its steps before this one, its steps.
#define GROUP 256
#kernel step_$RULE : RULE in sgd momentum adam amsgrad rmsprop lamb lars
#kernel measure_$RULE : RULE in lamb lars

struct StepParams {
    n4: u32, gx: u32, flags: u32, pad: u32,
    lr: f32, decay: f32, clip: f32, eps: f32,
    beta1: f32, beta2: f32, one_beta1: f32, one_beta2: f32,
}
var<immediate> p: StepParams;
@group(0) @binding(0) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> owners: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> s: array<f32>;
#if KERNEL == step
@group(0) @binding(4) var<storage, read_write> value: array<vec4<f32>>;
#if RULE != sgd
@group(0) @binding(5) var<storage, read_write> m: array<vec4<f32>>;
#if RULE != momentum && RULE != lars
@group(0) @binding(6) var<storage, read_write> v: array<vec4<f32>>;
#endif
#if RULE == amsgrad
@group(0) @binding(7) var<storage, read_write> top: array<vec4<f32>>;
#endif
#endif
#else
@group(0) @binding(4) var<storage, read> value: array<vec4<f32>>;
// Sums of squares of the values and of the step (LARS: of the gradient), by block.
@group(0) @binding(5) var<storage, read_write> sums: array<vec2<f32>>;
#if RULE == lamb
@group(0) @binding(6) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> v: array<vec4<f32>>;
#endif
var<workgroup> part: array<vec2<f32>, $GROUP>;
#endif

const NESTEROV = 1u;
const DECOUPLED = 2u;
const HAS_MOMENTUM = 4u;
const CLIP = 8u;

// The gradient after scaling and clipping.
fn gradient(i: u32) -> vec4<f32> {
    let g = grads[i] * s[0];
    return select(g, clamp(g, vec4<f32>(-p.clip), vec4<f32>(p.clip)), (p.flags & CLIP) != 0u);
}

#if RULE == lamb
// The step before the trust ratio, from the moments as they are now.
fn direction(i: u32, decay: f32, own: u32) -> vec4<f32> {
    return (m[i] / s[own]) / (sqrt(v[i] / s[own + 1u]) + p.eps) + decay * value[i];
}
#endif

#if KERNEL == step
fn update(i: u32, lr: f32, decay: f32, trust: f32, own: u32) {
    let x = value[i];
#if RULE == lamb
    value[i] = x - lr * trust * direction(i, decay, own);
#elif RULE == sgd
    value[i] = x - lr * (gradient(i) + decay * x);
#elif RULE == momentum
    let g = gradient(i) + decay * x;
    // The first step takes the gradient as it is; one_beta1 is 1 - dampening.
    let b = select(p.beta1 * m[i] + p.one_beta1 * g, g, s[own + 2u] == 0.0);
    m[i] = b;
    value[i] = x - lr * select(b, g + p.beta1 * b, (p.flags & NESTEROV) != 0u);
#elif RULE == lars
    let b = p.beta1 * m[i] + trust * (gradient(i) + decay * x);
    m[i] = b;
    value[i] = x - lr * select(b, trust * (gradient(i) + decay * x) + p.beta1 * b, (p.flags & NESTEROV) != 0u);
#elif RULE == adam || RULE == amsgrad
    let decoupled = (p.flags & DECOUPLED) != 0u;
    let g = gradient(i) + select(decay, 0.0, decoupled) * x;
    let m1 = p.beta1 * m[i] + p.one_beta1 * g;
    let v1 = p.beta2 * v[i] + p.one_beta2 * g * g;
    m[i] = m1;
    v[i] = v1;
    let kept = x * (1.0 - select(0.0, lr * decay, decoupled));
#if RULE == amsgrad
    let most = max(top[i], v1);
    top[i] = most;
#else
    let most = v1;
#endif
    value[i] = kept - (lr / s[own]) * m1 / (sqrt(most) / sqrt(s[own + 1u]) + p.eps);
#elif RULE == rmsprop
    let g = gradient(i) + decay * x;
    let v1 = p.beta2 * v[i] + p.one_beta2 * g * g;
    v[i] = v1;
    let u = g / (sqrt(v1) + p.eps);
    if ((p.flags & HAS_MOMENTUM) != 0u) {
        let b = p.beta1 * m[i] + u;
        m[i] = b;
        value[i] = x - lr * b;
    } else {
        value[i] = x - lr * u;
    }
#endif
}
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let t = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
    let block = t / 4u;
    let first = block * 16u + t % 4u;
#if KERNEL == measure
    var squares = vec2<f32>(0.0);
    if (first < p.n4) {
        let owner = owners[block];
        let row = rows[owner];
        if (row.z > 0.5 && s[1] > 0.5) {
            for (var k = 0u; k < 16u; k += 4u) {
                let i = first + k;
                let x = value[i];
                let g = gradient(i);
#if RULE == lamb
                m[i] = p.beta1 * m[i] + p.one_beta1 * g;
                v[i] = p.beta2 * v[i] + p.one_beta2 * g * g;
                let u = direction(i, p.decay * row.y, 8u + 4u * owner);
#else
                let u = g;
#endif
                squares += vec2<f32>(dot(x, x), dot(u, u));
            }
        }
    }
    part[lid] = squares;
    workgroupBarrier();
    if (lid % 4u == 0u && first < p.n4) {
        sums[block] = part[lid] + part[lid + 1u] + part[lid + 2u] + part[lid + 3u];
    }
#else
    if (first >= p.n4 || s[1] < 0.5) {
        return;
    }
    let owner = owners[block];
    let row = rows[owner];
    if (row.z < 0.5) {
        return;
    }
    let lr = p.lr * row.x;
    let decay = p.decay * row.y;
    for (var k = 0u; k < 16u; k += 4u) {
        update(first + k, lr, decay, row.w, 8u + 4u * owner);
    }
#endif
}
