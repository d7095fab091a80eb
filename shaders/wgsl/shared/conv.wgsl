// The geometry shared by all kernels that gather: a convolution, and its gradient for the image, which is a convolution
// of the gradient with the weights transposed. There, result rows h fall into phases h % stride; a phase meets only the
// taps with (h + padding - tap * dilation) % stride == 0, so nothing is scattered and nothing multiplied by a stride's
// zeros.
struct ConvParams {
    // Images read: number, height, width, channel quads per group.
    n: u32, h: u32, w: u32, cq: u32,
    // Result: height, width, channel quads and channels per group.
    oh: u32, ow: u32, kq: u32, kg: u32,
    r: u32, s: u32, groups: u32, bias: u32,
    sy: u32, sx: u32, py: u32, px: u32, dy: u32, dx: u32,
    // Distance between taps of one phase.
    ty: u32, tx: u32,
    gx: u32, mtiles: u32, ktiles: u32, tiles: u32,
}
var<immediate> p: ConvParams;

// One dimension of one phase: position i of `count` is element i * spread + first of the result, and reads element
// i * step + base + t * hop of the image under tap `tap` + t * (distance of taps).
struct Axis { first: u32, count: u32, spread: u32, step: i32, base: i32, hop: i32, tap: u32 }

#if MODE == fwd
fn conv_axis(phase: u32, len: u32, taps: u32, stride: u32, pad: u32, dil: u32, apart: u32) -> Axis {
    return Axis(0u, len, 1u, i32(stride), -i32(pad), i32(dil), 0u);
}
#else
fn conv_axis(phase: u32, len: u32, taps: u32, stride: u32, pad: u32, dil: u32, apart: u32) -> Axis {
    let want = (phase + pad) % stride;
    var tap = 0u;
    while (tap < taps && (tap * dil) % stride != want) {
        tap++;
    }
    let count = select(0u, (len - phase + stride - 1u) / stride, len > phase);
    let base = (i32(phase + pad) - i32(tap * dil)) / i32(stride);
    return Axis(phase, count, stride, 1, base, -i32(apart * dil / stride), tap);
}
#endif
