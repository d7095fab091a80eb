//! Convolution: every option alone and together, channels around multiples of four, and shapes around the tiles.

use std::fmt::Display;

use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::{Conv2d, Tensor};

use crate::case::{Case, rand};
use crate::oracle::conv::{self as oracle, Conv};

fn geometry(p: &Conv2d) -> Conv {
    Conv { stride: p.stride, padding: p.padding, dilation: p.dilation, groups: p.groups }
}

/// A convolution with a bias; `x [n, h, w, c]`, weights `[k, r, s]`.
fn conv(name: impl Display, x: [usize; 4], [k, r, s]: [usize; 3], p: Conv2d) -> Case {
    let inputs = vec![rand(&x), rand(&[k, r, s, x[3] / p.groups]), rand(&[k])];
    Case::new(
        format!("conv2d/{name}"),
        inputs,
        move |t: &[Tensor]| t[0].conv2d(&t[1], Some(&t[2]), p),
        move |a| oracle::conv2d(&a[0], &a[1], Some(&a[2]), &geometry(&p)),
    )
}

/// A transposed convolution with a bias; `x [n, h, w, k]`, weights `[r, s, c / groups]`.
fn transposed(name: impl Display, x: [usize; 4], [r, s, cg]: [usize; 3], p: Conv2d, extra: [usize; 2]) -> Case {
    let inputs = vec![rand(&x), rand(&[x[3], r, s, cg]), rand(&[cg * p.groups])];
    Case::new(
        format!("conv_transpose2d/{name}"),
        inputs,
        move |t: &[Tensor]| t[0].conv_transpose2d(&t[1], Some(&t[2]), p, extra),
        move |a| oracle::conv_transpose2d(&a[0], &a[1], Some(&a[2]), &geometry(&p), extra),
    )
}

/// The two gradients as forward operations, for sizes whose finite differences would take too long: the gradient of
/// `sum(conv(x, w) * dy)`, taken by the engine, against the oracle's adjoints.
fn adjoints(name: impl Display, x: [usize; 4], [k, r, s]: [usize; 3], p: Conv2d) -> [Case; 2] {
    let g = geometry(&p);
    let w = [k, r, s, x[3] / p.groups];
    let out = |d: usize| (x[d + 1] + 2 * p.padding[d] - p.dilation[d] * (w[d + 1] - 1) - 1) / p.stride[d] + 1;
    let y = [x[0], out(0), out(1), k];
    let pull = move |x: &Tensor, w: &Tensor, dy: &Tensor, of_weights: bool| -> shadegrad::Result<Tensor> {
        let (x, w) = (x.leaf(), w.leaf());
        let y = x.conv2d(&w, None, p)?;
        let of = if of_weights { &w } else { &x };
        let options = GradOptions { create_graph: true, ..GradOptions::default() };
        let grads = grad_with(&[&y], &[of], Some(&[dy]), options)?;
        Ok(grads.into_iter().flatten().next().expect("the image and the weights were used"))
    };
    [
        Case::new(
            format!("conv2d_input_grad/{name}"),
            vec![rand(&x), rand(&w), rand(&y)],
            move |t: &[Tensor]| pull(&t[0], &t[1], &t[2], false),
            move |a| oracle::conv2d_input_grad(&a[2], &a[1], &x, &g),
        )
        .grad(false),
        Case::new(
            format!("conv2d_weight_grad/{name}"),
            vec![rand(&x), rand(&w), rand(&y)],
            move |t: &[Tensor]| pull(&t[0], &t[1], &t[2], true),
            move |a| oracle::conv2d_weight_grad(&a[2], &a[0], &w, &g),
        )
        .grad(false),
    ]
}

fn pair(p: Conv2d, f: impl Fn(&mut Conv2d)) -> Conv2d {
    let mut p = p;
    f(&mut p);
    p
}

pub fn cases() -> Vec<Case> {
    let one = Conv2d::default();
    let mut rows = Vec::new();
    // Every size of the weights, stride, padding and dilation, one at a time and in directions that differ.
    for taps in 1..=7 {
        let p = Conv2d::new(1, taps / 2);
        rows.push(conv(format!("taps_{taps}"), [1, 5, 4, 1], [2, taps, taps], p));
        rows.push(conv(format!("taps_{taps}x1"), [1, 7, 2, 2], [1, taps, 1], one));
        rows.push(conv(format!("taps_1x{taps}"), [1, 2, 7, 2], [1, 1, taps], one));
    }
    for stride in 1..=3 {
        for padding in 0..=3 {
            let p = Conv2d::new(stride, padding);
            rows.push(conv(format!("stride_{stride}_padding_{padding}"), [1, 6, 5, 1], [2, 3, 3], p));
            rows.push(conv(
                format!("stride_{stride}_padding_{padding}_dilation_2"),
                [1, 6, 7, 1],
                [1, 3, 2],
                p.dilation(2),
            ));
        }
        let uneven = pair(one, |p| (p.stride, p.padding) = ([stride, 2], [1, 0]));
        rows.push(conv(format!("stride_{stride}x2"), [2, 5, 7, 1], [1, 3, 3], uneven));
    }
    // Stride and dilation with a common factor: some rows of the image meet no tap at all.
    let common = pair(one, |p| (p.stride, p.padding, p.dilation) = ([2, 3], [1, 2], [2, 3]));
    rows.push(conv("stride_meets_dilation", [1, 7, 8, 1], [2, 3, 2], common));
    rows.push(conv("stride_beyond_taps", [1, 7, 7, 2], [2, 1, 2], Conv2d::new(3, 0)));
    rows.push(conv("window_is_the_image", [2, 3, 3, 3], [5, 3, 3], one));
    rows.push(conv("one_pixel", [3, 1, 1, 5], [4, 1, 1], one));
    rows.push(conv("one_pixel_padded", [2, 1, 1, 2], [3, 3, 3], Conv2d::new(1, 1)));
    rows.push(conv("no_images", [0, 4, 4, 2], [3, 3, 3], Conv2d::new(1, 1)));
    // Channels around a multiple of four and around the tiles of the kernels.
    for (c, k) in [(1, 1), (2, 3), (3, 2), (3, 16), (4, 4), (5, 8), (8, 5), (16, 2), (1, 17), (17, 1), (7, 9)] {
        rows.push(conv(format!("channels_{c}_{k}"), [1, 3, 2, c], [k, 2, 2], Conv2d::new(1, 1)));
    }
    for (c, groups, k) in [(2, 2, 2), (4, 2, 6), (6, 3, 3), (8, 2, 8), (8, 4, 4), (4, 4, 8), (5, 5, 10)] {
        let p = Conv2d::new(1, 1).groups(groups);
        rows.push(conv(format!("groups_{groups}_channels_{c}_{k}"), [1, 3, 3, c], [k, 2, 3], p));
        rows.push(conv(
            format!("groups_{groups}_channels_{c}_{k}_stride_2"),
            [1, 4, 3, c],
            [k, 3, 2],
            pair(p, |p| p.stride = [2, 2]),
        ));
    }
    for c in [1, 3, 4, 6, 8] {
        let p = Conv2d::new(1, 1).groups(c);
        rows.push(conv(format!("depthwise_{c}"), [1, 4, 5, c], [c, 3, 3], p));
        rows.push(conv(format!("depthwise_{c}_stride_2"), [2, 3, 4, c], [c, 2, 3], pair(p, |p| p.stride = [2, 2])));
        rows.push(conv(format!("depthwise_{c}_dilation_2"), [1, 4, 3, c], [c, 2, 2], p.dilation(2)));
    }
    // Rows of taps that fill a block by one, by all and by half.
    for taps in [1, 4, 6] {
        let (w, p) = ([4, 2, taps], pair(Conv2d::new(1, 1).groups(4), |p| p.padding = [0, 2]));
        rows.push(conv(format!("depthwise_2x{taps}"), [1, 3, 9, 4], w, p));
        rows.push(conv(format!("depthwise_2x{taps}_dilation_2"), [1, 4, 9, 4], w, p.dilation(2)));
        rows.push(conv(format!("depthwise_2x{taps}_stride_2"), [1, 3, 9, 4], w, pair(p, |p| p.stride = [1, 2])));
    }
    rows.push(conv("depthwise_5x5", [1, 6, 5, 4], [4, 5, 5], Conv2d::new(1, 2).groups(4)));
    for taps in [3, 5] {
        let (w, p) = ([4, taps, taps], Conv2d::new(1, taps - 1).groups(4).dilation(2));
        rows.push(conv(format!("depthwise_{taps}x{taps}_dilation_2"), [1, 6, 9, 4], w, p));
        rows.push(conv(
            format!("depthwise_{taps}x{taps}_dilation_2_stride_2"),
            [1, 6, 5, 4],
            w,
            pair(p, |p| p.stride = [2, 2]),
        ));
        // Dilations that differ: that along the rows of taps decides which kernel runs.
        rows.push(conv(
            format!("depthwise_{taps}x{taps}_dilation_3_2"),
            [1, 7, 6, 4],
            w,
            pair(p, |p| p.dilation = [3, 2]),
        ));
        rows.push(conv(
            format!("depthwise_{taps}x{taps}_dilation_1_3"),
            [1, 5, 7, 4],
            w,
            pair(p, |p| p.dilation = [1, 3]),
        ));
    }
    // Every place where an image may end within the strip of pixels that an invocation holds.
    for width in 1..=8 {
        for (taps, dilation) in [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2)] {
            let p = pair(Conv2d::new(1, dilation * (taps / 2)).groups(4).dilation(dilation), |p| p.padding[0] = 0);
            let p = pair(p, |p| p.dilation[0] = 1);
            let row =
                conv(format!("depthwise_{taps}_dilation_{dilation}_width_{width}"), [1, 1, width, 4], [4, 1, taps], p);
            rows.push(row.no_second_order("the rows above have it"));
        }
    }
    rows.push(conv("depthwise_7x7", [1, 8, 7, 2], [2, 7, 7], Conv2d::new(1, 3).groups(2)));
    rows.push(conv("depthwise_7x7_8", [1, 9, 8, 8], [8, 7, 7], Conv2d::new(1, 3).groups(8)));
    rows.push(conv("depthwise_7x7_8_stride_2", [1, 9, 10, 8], [8, 7, 7], Conv2d::new(2, 3).groups(8)));
    rows.push(conv("depthwise_5x5_8_stride_2", [2, 7, 8, 8], [8, 5, 5], Conv2d::new(2, 2).groups(8)));
    let dilated = Conv2d::new(2, 4).groups(8).dilation(2);
    rows.push(conv("depthwise_5x5_8_stride_2_dilation_2", [1, 9, 8, 8], [8, 5, 5], dilated));
    let dilated = Conv2d::new(1, 2).groups(8).dilation(2);
    rows.push(conv("depthwise_3x3_8_dilation_2", [2, 7, 8, 8], [8, 3, 3], dilated));
    rows.push(conv("depthwise_no_images", [0, 4, 4, 4], [4, 3, 3], Conv2d::new(1, 1).groups(4)));
    // Transposed, with the rows that the stride leaves open given back.
    for stride in 1..=3 {
        for extra in 0..stride {
            let p = Conv2d::new(stride, 1);
            rows.push(transposed(format!("stride_{stride}_extra_{extra}"), [1, 3, 2, 3], [3, 3, 2], p, [extra; 2]));
        }
    }
    rows.push(transposed("plain", [2, 2, 3, 1], [2, 3, 1], one, [0, 0]));
    rows.push(transposed("dilation", [1, 3, 3, 2], [2, 3, 2], Conv2d::new(2, 1).dilation(2), [1, 0]));
    rows.push(transposed("groups", [1, 3, 2, 4], [3, 2, 3], Conv2d::new(2, 1).groups(2), [1, 1]));
    rows.push(transposed("depthwise", [1, 3, 2, 4], [3, 3, 1], Conv2d::new(2, 1).groups(4), [0, 1]));
    rows.push(transposed("no_images", [0, 3, 2, 4], [3, 3, 2], one, [0, 0]));
    // Larger shapes: forward only, and the two gradients as results.
    let same = Conv2d::new(1, 1);
    // Weight gradients in several sums: of more weights than a workgroup adds, and of every kernel for depthwise taps.
    rows.extend(adjoints("sums_of_many_weights", [1, 4, 300, 12], [12, 3, 3], same));
    for taps in [3, 5, 6] {
        let depthwise = pair(Conv2d::new(1, 1).groups(4), |p| p.padding = [0, 2]);
        let w = [4, 2, taps];
        rows.extend(adjoints(format!("depthwise_sums_{taps}"), [1, 3, 300, 4], w, depthwise));
        rows.extend(adjoints(format!("depthwise_sums_{taps}_dilation_2"), [1, 4, 300, 4], w, depthwise.dilation(2)));
        let apart = pair(depthwise, |p| p.stride = [1, 2]);
        rows.extend(adjoints(format!("depthwise_sums_{taps}_stride_2"), [2, 4, 300, 4], w, apart));
    }
    for (name, x, w, p) in [
        ("3x3_3_16", [2, 9, 9, 3], [16, 3, 3], same),
        ("3x3_16_16", [2, 9, 8, 16], [16, 3, 3], same),
        ("3x3_16_32_stride_2", [2, 9, 8, 16], [32, 3, 3], Conv2d::new(2, 1)),
        ("1x1_16_32_stride_2", [2, 8, 9, 16], [32, 1, 1], Conv2d::new(2, 0)),
        ("1x1_33_17", [2, 6, 5, 33], [17, 1, 1], one),
        ("3x3_32_32", [1, 8, 9, 32], [32, 3, 3], same),
        ("3x3_20_36", [1, 7, 7, 20], [36, 3, 3], same),
        ("3x3_65_10", [1, 6, 6, 65], [10, 3, 3], same),
        ("3x3_64_68", [1, 8, 8, 64], [68, 3, 3], same),
        ("3x3_8_72_wide", [1, 2, 70, 8], [72, 3, 3], same),
        ("7x7_3_20_stride_2", [1, 21, 20, 3], [20, 7, 7], Conv2d::new(2, 3)),
        ("many_pixels", [5, 17, 33, 2], [5, 3, 3], Conv2d::new(1, 0)),
        ("many_images", [70, 5, 5, 4], [8, 3, 3], same),
        ("one_row", [1, 1, 300, 4], [4, 1, 5], one),
        ("one_column", [1, 300, 1, 4], [4, 5, 1], one),
        ("groups_4_of_8_12", [2, 7, 6, 32], [48, 3, 3], Conv2d::new(1, 1).groups(4)),
        ("groups_2_of_17_18_stride_2", [1, 9, 7, 34], [36, 3, 3], Conv2d::new(2, 1).groups(2)),
        ("depthwise_36", [2, 13, 11, 36], [36, 3, 3], Conv2d::new(1, 1).groups(36)),
        ("depthwise_33_stride_2", [2, 13, 12, 33], [33, 3, 3], Conv2d::new(2, 1).groups(33)),
        ("depthwise_12_7x7", [1, 14, 19, 12], [12, 7, 7], Conv2d::new(1, 3).groups(12)),
        ("depthwise_8_5x5_dilation_2", [3, 15, 14, 8], [8, 5, 5], Conv2d::new(1, 4).groups(8).dilation(2)),
    ] {
        rows.push(conv(name, x, w, p).grad(false));
        rows.extend(adjoints(name, x, w, p));
    }
    rows
}
