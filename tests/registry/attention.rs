//! Attention: sizes around the tiles, different lengths, bias and masks of every broadcast, causal, hidden rows.

use shadegrad::Attention;

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
}

const PLAIN: Row = Row { name: "plain", sizes: [1, 1, 3, 4, 4, 4], bias: None, mask: None, causal: false, scale: None };

impl Row {
    fn case(self) -> Case {
        let Self { name, sizes: [b, h, l, s, d, dv], bias, mask: hidden, causal, scale } = self;
        let mut inputs = vec![rand(&[b, h, l, d]), rand(&[b, h, s, d]), rand(&[b, h, s, dv])];
        inputs.extend(bias.map(|shape| rand(&shape)));
        inputs.extend(hidden.map(mask));
        let factor = scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        let at = 3 + usize::from(bias.is_some());
        let case = Case::new(
            format!("sdpa/{name}_{b}x{h}x{l}x{s}x{d}x{dv}"),
            inputs,
            move |t| {
                let options = Attention { bias: bias.map(|_| &t[3]), mask: hidden.map(|_| &t[at]), causal, scale };
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
        if hidden.is_some() { case.inputs_without_grad(&[at]) } else { case }
    }
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
        all.push(Row { name: "large", sizes, bias, mask, causal, scale: None }.case().grad(false));
    }
    all
}
