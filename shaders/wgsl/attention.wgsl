// Softmax of attention scores: rows of keys, one row per batch, head and query, a team of invocations a row.
//   p = softmax(scale * x + bias) over the visible keys, 0 at the others; a row that sees no key is 0
// The gradient is that of an ordinary softmax: hidden keys have p = 0.
#import lanes
#import team

#kernel attention_softmax_$V_$MODE : V in 1 4, MODE in t1 s8 s32 w64 w256

// len counts elements of V floats. flags: bit 0 bias, bit 1 mask, bit 2 causal. bias_*, mask_*: strides over batch, head,
// query and key, in the same elements, 0 where repeated.
struct AttentionSoftmaxParams {
    rows: u32, len: u32, heads: u32, queries: u32, gx: u32, flags: u32, scale: f32, pad: u32,
    bias: vec4<u32>, mask: vec4<u32>,
}
var<immediate> p: AttentionSoftmaxParams;
@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> bias: array<$T>;
@group(0) @binding(2) var<storage, read> mask: array<$T>;
@group(0) @binding(3) var<storage, read_write> y: array<$T>;

// Offsets of a row in the bias and in the mask.
struct Place { base: u32, query: u32, bias: u32, mask: u32 }

fn logit(q: Place, c: u32) -> $T {
    var v = p.scale * x[q.base + c];
    if ((p.flags & 1u) != 0u) {
        v += bias[q.bias + c * p.bias.w];
    }
    return no_less(v);
}

// 1 where the query sees the key, else 0.
fn visible(q: Place, c: u32) -> $T {
    var r = $T(1.0);
    if ((p.flags & 2u) != 0u) {
        r = select($T(1.0), $T(0.0), mask[q.mask + c * p.mask.w] == $T(0.0));
    }
    if ((p.flags & 4u) != 0u) {
        r = select(r, $T(0.0), lane_columns(c) > $TU(q.query));
    }
    return r;
}

@compute @workgroup_size(${TEAM * TEAMS})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = (wid.y * p.gx + wid.x) * ${TEAMS}u + lid / ${TEAM}u;
    let lane = lid % ${TEAM}u;
    let at = min(row, p.rows - 1u);
    let head = at / p.queries;
    let b = head / p.heads;
    let h = head - b * p.heads;
    let l = at - head * p.queries;
    let q = Place(at * p.len, l, b * p.bias.x + h * p.bias.y + l * p.bias.z, b * p.mask.x + h * p.mask.y + l * p.mask.z);
    var m = LOWEST;
    var s = 0.0;
    for (var c = lane; c < p.len; c += ${TEAM}u) {
        let seen = visible(q, c);
        let v = select($T(LOWEST), logit(q, c), seen != $T(0.0));
        let higher = max(m, hmax(v));
        s = s * exp(m - higher) + hsum(select($T(0.0), exp(v - $T(higher)), seen != $T(0.0)));
        m = higher;
    }
    let top = team_max(m, lid);
    let sum = team_sum(s * exp(m - top), lid);
    if (row < p.rows) {
        for (var c = lane; c < p.len; c += ${TEAM}u) {
            let e = exp(logit(q, c) - $T(top)) / sum;
            y[q.base + c] = select($T(0.0), e, visible(q, c) != $T(0.0));
        }
    }
}
