//! Attention: sizes around the tiles, different lengths, bias and masks of every broadcast, causal, hidden rows.

use shadegrad::Attention;
use shadegrad::window::Windows;

use crate::case::{Case, Input, fixed, rand};
use crate::oracle::attention as o;

/// Zeros and ones that hide about a third of the keys and the last query's whole row.
fn mask(shape: [usize; 4]) -> Input {
    let [b, h, l, s] = shape;
    let at = |i: usize| {
        let hidden_row = l > 1 && (i / s) % l == l - 1;
        if hidden_row || (i * 7919 + 3) % 10 < 3 { 0.0 } else { 1.0 }
    };
    fixed(&(0..b * h * l * s).map(at).collect::<Vec<_>>(), &shape)
}

/// One case of attention: batch, heads, queries, keys, depth of keys and of values; shapes of bias and mask.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    sizes: [usize; 6],
    bias: Option<[usize; 4]>,
    mask: Option<[usize; 4]>,
    causal: bool,
    scale: Option<f32>,
    recompute: Option<bool>,
}

const PLAIN: Row = Row {
    name: "plain",
    sizes: [1, 1, 3, 4, 4, 4],
    bias: None,
    mask: None,
    causal: false,
    scale: None,
    recompute: None,
};

impl Row {
    fn case(self) -> Case {
        let Self { name, sizes: [b, h, l, s, d, dv], bias, mask: hidden, causal, scale, recompute } = self;
        let mut inputs = vec![rand(&[b, h, l, d]), rand(&[b, h, s, d]), rand(&[b, h, s, dv])];
        inputs.extend(bias.map(|shape| rand(&shape)));
        inputs.extend(hidden.map(mask));
        let factor = scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        let at = 3 + usize::from(bias.is_some());
        let case = Case::new(
            format!("sdpa/{name}_{b}x{h}x{l}x{s}x{d}x{dv}"),
            inputs,
            move |t| {
                let options =
                    Attention { bias: bias.map(|_| &t[3]), mask: hidden.map(|_| &t[at]), causal, scale, recompute };
                t[0].sdpa(&t[1], &t[2], options)
            },
            move |a| {
                let (bias, hidden) = (bias.map(|_| &a[3]), hidden.map(|_| &a[at]));
                o::sdpa(&a[0], &a[1], &a[2], bias, hidden, causal, factor)
            },
        );
        // A bias that is equal for all keys has no effect: its gradient is zero but for rounding, and a tolerance
        // relative to zero would be none.
        let case = if bias.is_some_and(|shape| shape[3] == 1) { case.tol(100.0) } else { case };
        // A bias with a gradient of its own is not recomputed with.
        let fixed = if recompute == Some(true) { 3 } else { at };
        case.inputs_without_grad(&(fixed..=at).collect::<Vec<_>>())
    }
}

/// One case of attention within windows: images, height, width, heads, channels of a head; side and shift of the windows.
struct InWindows {
    name: &'static str,
    sizes: [usize; 5],
    window: [usize; 2],
    table: bool,
    scale: Option<f32>,
}

impl InWindows {
    fn case(self) -> Case {
        let Self { name, sizes: [b, h, w, heads, d], window: [m, shift], table, scale } = self;
        let mut inputs = vec![rand(&[b, h, w, 3 * heads * d])];
        inputs.extend(table.then(|| rand(&[(2 * m - 1) * (2 * m - 1), heads])));
        let factor = scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        Case::new(
            format!("window_attention/{name}_{b}x{h}x{w}x{heads}x{d}_{m}_{shift}"),
            inputs,
            move |t| t[0].window_attention(t.get(1), Windows { heads, window: m, shift, scale }),
            move |a| o::windows(&a[0], a.get(1), heads, m, shift, factor),
        )
    }
}

fn in_windows() -> Vec<Case> {
    let row = |name, sizes, window, table| InWindows { name, sizes, window, table, scale: None };
    let mut all: Vec<Case> = [
        // Every depth that has kernels, with windows that the smaller and the larger backward kernels take.
        row("shift", [1, 4, 4, 2, 8], [2, 1], true),
        row("plain", [2, 4, 2, 1, 12], [2, 0], false),
        InWindows { scale: Some(0.4), ..row("scale", [1, 4, 4, 1, 16], [4, 1], true) },
        row("wide", [1, 2, 4, 2, 24], [2, 1], true),
        row("wide", [1, 3, 3, 1, 32], [3, 0], true),
        row("four", [1, 8, 8, 1, 8], [4, 2], true),
        row("one_token", [1, 2, 3, 1, 8], [1, 0], true),
        row("seven", [1, 7, 7, 1, 8], [7, 3], true),
        row("five", [1, 5, 5, 1, 32], [5, 2], true),
        row("five", [1, 5, 5, 1, 24], [5, 0], false),
        row("five", [1, 5, 5, 1, 16], [5, 1], true),
        row("five", [1, 5, 5, 1, 12], [5, 4], true),
        // Heads beside each other, for every depth and both sizes of window.
        row("heads", [1, 5, 5, 2, 8], [5, 1], true),
        row("heads", [1, 5, 5, 2, 12], [5, 1], true),
        row("heads", [1, 5, 5, 2, 16], [5, 1], true),
        row("heads", [1, 5, 5, 2, 24], [5, 1], true),
        row("heads", [1, 5, 5, 2, 32], [5, 1], true),
        row("heads", [2, 4, 4, 2, 12], [2, 1], true),
        row("heads", [2, 4, 4, 2, 16], [2, 1], true),
        row("heads", [2, 4, 4, 2, 32], [2, 1], true),
        // Windows of sixteen tokens, of which an invocation has two, for every depth.
        row("four", [1, 4, 4, 1, 8], [4, 1], true),
        row("four", [1, 4, 4, 1, 12], [4, 1], true),
        row("four", [1, 4, 4, 1, 16], [4, 1], true),
        row("four", [1, 4, 4, 1, 24], [4, 1], true),
        row("four", [1, 4, 4, 1, 32], [4, 1], true),
        // More windows than parts, which they do not divide.
        row("many", [3, 8, 8, 1, 8], [2, 1], true),
        // Without kernels of their own.
        row("odd", [1, 4, 4, 2, 5], [2, 1], true),
        row("odd", [2, 3, 3, 1, 3], [3, 0], false),
    ]
    .map(InWindows::case)
    .into();
    for (sizes, window, table) in [
        ([2, 16, 16, 3, 32], [4, 2], true),
        ([1, 16, 8, 2, 24], [8, 3], true),
        ([1, 14, 14, 2, 32], [7, 3], true),
        ([5, 12, 12, 2, 16], [4, 2], false),
        ([1, 9, 9, 1, 8], [9, 4], true),
        ([0, 4, 4, 1, 8], [2, 1], true),
    ] {
        all.push(row("large", sizes, window, table).case().grad(false));
    }
    all
}

/// Training that stores no scores: every depth, lengths within, at and around the blocks of queries and keys.
fn recomputed() -> Vec<Case> {
    let row = |name, sizes| Row { name, sizes, recompute: Some(true), ..PLAIN };
    let mut all: Vec<Case> = [
        row("recompute", [1, 1, 1, 1, 16, 16]),
        row("recompute", [1, 2, 5, 7, 16, 16]),
        row("recompute", [2, 1, 17, 9, 64, 64]),
        row("recompute", [1, 1, 3, 70, 16, 16]),
        row("recompute", [1, 1, 70, 3, 32, 32]),
        Row { causal: true, ..row("recompute_causal", [1, 1, 33, 35, 16, 16]) },
        Row { causal: true, ..row("recompute_causal", [1, 1, 9, 40, 32, 32]) },
        Row { causal: true, scale: Some(0.7), ..row("recompute_causal", [1, 1, 40, 9, 64, 64]) },
        Row { bias: Some([1, 2, 5, 9]), ..row("recompute_bias", [2, 2, 5, 9, 32, 32]) },
        Row { bias: Some([2, 1, 5, 1]), ..row("recompute_bias", [2, 2, 5, 3, 16, 16]) },
        Row { mask: Some([2, 1, 1, 9]), ..row("recompute_mask", [2, 2, 5, 9, 64, 64]) },
        Row { mask: Some([1, 2, 6, 1]), ..row("recompute_mask", [2, 2, 6, 9, 16, 16]) },
        Row {
            bias: Some([1, 1, 19, 21]),
            mask: Some([1, 2, 19, 21]),
            causal: true,
            scale: Some(1.3),
            ..row("recompute_everything", [1, 2, 19, 21, 32, 32])
        },
    ]
    .map(Row::case)
    .into();
    // Some of the gradients alone.
    for (name, without) in [("queries", &[1, 2][..]), ("keys", &[0, 2]), ("values", &[0, 1]), ("keys_values", &[0])] {
        let case = row("recompute", [1, 1, 6, 7, 16, 16]).case().named(&format!("_{name}"));
        all.push(case.inputs_without_grad(without));
    }
    all
}

pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = [
        PLAIN,
        Row { name: "one", sizes: [1, 1, 1, 1, 1, 1], ..PLAIN },
        Row { name: "odd", sizes: [1, 2, 3, 5, 3, 2], ..PLAIN },
        Row { name: "scale", sizes: [2, 1, 2, 3, 4, 4], scale: Some(0.7), ..PLAIN },
        Row { name: "causal", sizes: [1, 1, 4, 4, 4, 4], causal: true, ..PLAIN },
        Row { name: "causal_long", sizes: [1, 1, 5, 3, 4, 4], causal: true, ..PLAIN },
        Row { name: "causal_wide", sizes: [1, 1, 2, 8, 4, 4], causal: true, ..PLAIN },
        Row { name: "bias", sizes: [2, 1, 2, 4, 4, 4], bias: Some([2, 1, 2, 4]), ..PLAIN },
        Row { name: "bias_heads", sizes: [1, 2, 2, 4, 4, 4], bias: Some([1, 2, 1, 1]), ..PLAIN },
        Row { name: "bias_all", sizes: [1, 2, 2, 3, 4, 4], bias: Some([1, 1, 2, 3]), ..PLAIN },
        Row { name: "mask", sizes: [1, 2, 3, 4, 4, 4], mask: Some([1, 2, 3, 4]), ..PLAIN },
        Row { name: "mask_keys", sizes: [2, 1, 2, 5, 4, 4], mask: Some([2, 1, 1, 5]), ..PLAIN },
        Row { name: "mask_queries", sizes: [1, 1, 3, 4, 4, 4], mask: Some([1, 1, 3, 1]), ..PLAIN },
        Row {
            name: "everything",
            sizes: [1, 2, 3, 4, 4, 4],
            bias: Some([1, 2, 3, 4]),
            mask: Some([1, 1, 3, 4]),
            causal: true,
            scale: Some(1.3),
            ..PLAIN
        },
    ]
    .map(Row::case)
    .into();
    for (sizes, bias, mask, causal) in [
        ([2, 3, 33, 49, 32, 32], None, None, false),
        ([1, 2, 64, 64, 32, 32], None, None, true),
        ([1, 1, 31, 65, 16, 16], Some([1, 1, 31, 65]), None, false),
        ([3, 2, 49, 49, 32, 32], Some([1, 2, 49, 49]), Some([3, 1, 49, 49]), false),
        ([1, 1, 130, 130, 64, 64], None, Some([1, 1, 1, 130]), true),
        ([1, 2, 9, 600, 8, 12], Some([1, 2, 9, 600]), Some([1, 1, 9, 600]), false),
        ([2, 2, 7, 20, 24, 24], None, Some([2, 2, 7, 1]), true),
        ([1, 1, 2, 3000, 4, 4], None, None, false),
        ([2, 0, 3, 4, 4, 4], None, None, false),
        ([1, 1, 0, 4, 4, 4], None, None, false),
    ] {
        all.push(Row { name: "large", sizes, bias, mask, causal, ..PLAIN }.case().grad(false));
    }
    all.extend(recomputed());
    all.extend(in_windows());
    all
}
