// What a step needs to know beforehand: the norm of all gradients, whether they are finite, bias corrections, trust ratios.
#define GROUP 256
#kernel norm_partial
#kernel prepare
#kernel trust_$RULE : RULE in lamb lars

#if KERNEL == norm_partial
// run4: vec4s of one workgroup, a multiple of 16.
struct NormParams { n4: u32, run4: u32 }
var<immediate> p: NormParams;
@group(0) @binding(0) var<storage, read> grads: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> owners: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4<f32>>;
// Sum of squares, elements that are not finite.
@group(0) @binding(3) var<storage, read_write> partial: array<vec2<f32>>;
#elif KERNEL == prepare
struct PrepareParams {
    partials: u32, flags: u32, max_norm: f32, tensors: u32,
    beta1: f32, beta2: f32, one_beta1: f32, one_beta2: f32,
}
var<immediate> p: PrepareParams;
@group(0) @binding(0) var<storage, read> partial: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> s: array<f32>;
#else
struct TrustParams { eta: f32, decay: f32, eps: f32, pad: u32 }
var<immediate> p: TrustParams;
// First block and number of blocks of each parameter.
@group(0) @binding(0) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> partial: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> rows: array<vec4<f32>>;
#endif

var<workgroup> part: array<vec2<f32>, $GROUP>;

fn total(lid: u32, mine: vec2<f32>) -> vec2<f32> {
    part[lid] = mine;
    workgroupBarrier();
    for (var step = ${GROUP / 2}u; step > 0u; step >>= 1u) {
        if (lid < step) {
            part[lid] += part[lid + step];
        }
        workgroupBarrier();
    }
    return part[0];
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    var sum = vec2<f32>(0.0);
#if KERNEL == norm_partial
    let start = wid.x * p.run4;
    let end = min(start + p.run4, p.n4);
    for (var i = start + lid; i < end; i += ${GROUP}u) {
        if (rows[owners[i / 16u]].z > 0.5) {
            let g = grads[i];
            let bits = bitcast<vec4<u32>>(g) & vec4<u32>(0x7fffffffu);
            let bad = select(vec4<f32>(0.0), vec4<f32>(1.0), bits >= vec4<u32>(0x7f800000u));
            sum += vec2<f32>(dot(g, g), dot(bad, vec4<f32>(1.0)));
        }
    }
    sum = total(lid, sum);
    if (lid == 0u) {
        partial[wid.x] = sum;
    }
#elif KERNEL == prepare
    for (var i = lid; i < p.partials; i += ${GROUP}u) {
        sum += partial[i];
    }
    sum = total(lid, sum);
    let skip = sum.y > 0.0 && (p.flags & 2u) != 0u;
    if (lid == 0u) {
        let norm = sqrt(sum.x);
        // PyTorch's clip_grad_norm_: never a scale above one.
        s[0] = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), (p.flags & 1u) != 0u);
        s[1] = select(1.0, 0.0, skip);
        s[6] = norm;
        s[select(7u, 5u, skip)] += 1.0;
    }
    // A frozen parameter takes no step: its count and its corrections stay.
    for (var i = lid; i < p.tensors; i += ${GROUP}u) {
        if (!skip && rows[i].z > 0.5) {
            let own = 8u + 4u * i;
            // 1 - beta^t without the power, which drivers compute roughly.
            s[own] = p.beta1 * s[own] + p.one_beta1;
            s[own + 1u] = p.beta2 * s[own + 1u] + p.one_beta2;
            s[own + 2u] = s[own + 3u];
            s[own + 3u] += 1.0;
        }
    }
#else
    let span = spans[wid.x];
    for (var i = lid; i < span.y; i += ${GROUP}u) {
        sum += partial[span.x + i];
    }
    sum = total(lid, sum);
    if (lid == 0u) {
        let norms = sqrt(sum);
        var ratio = 1.0;
        if (rows[wid.x].z > 1.5 && norms.x > 0.0 && norms.y > 0.0) {
#if RULE == lamb
            ratio = norms.x / norms.y;
#else
            ratio = p.eta * norms.x / (norms.y + p.decay * rows[wid.x].y * norms.x + p.eps);
#endif
        }
        rows[wid.x].w = ratio;
    }
#endif
}
