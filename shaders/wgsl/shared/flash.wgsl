// What the kernels of attention without a matrix of scores share; they bind `bias` and `mask`.
// all: batch * heads; blocks: workgroups of one head. flags: bit 0 bias, bit 1 mask, bit 2 causal. bias, mask: strides over
// batch, head, query and key. apart: see flash_grad.wgsl.
struct FlashParams {
    all: u32, heads: u32, queries: u32, keys: u32, blocks: u32, gx: u32, flags: u32, scale: f32,
    bias: vec4<u32>, mask: vec4<u32>,
    apart: u32, pad0: u32, pad1: u32, pad2: u32,
}
var<immediate> p: FlashParams;
const LOWEST = -3.0e38;

fn offset(strides: vec4<u32>, head: u32, query: u32) -> u32 {
    let b = head / p.heads;
    return b * strides.x + (head - b * p.heads) * strides.y + query * strides.z;
}

fn visible(row: u32, query: u32, key: u32) -> bool {
    var r = key < p.keys && ((p.flags & 4u) == 0u || key <= query);
    if (r && (p.flags & 2u) != 0u) {
        r = mask[row + key * p.mask.w] != 0.0;
    }
    return r;
}

fn biased(s: f32, row: u32, key: u32) -> f32 {
    var r = s;
    if ((p.flags & 1u) != 0u) {
        r += bias[row + min(key, p.keys - 1u) * p.bias.w];
    }
    return select(r, LOWEST, r < LOWEST);
}
