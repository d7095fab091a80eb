//! Mixed precision: the rows of the products and of what keeps halves for its backward pass once more in a mixed region,
//! with numbers that halves can hold (see [`Case::mixed`]); then numbers that they cannot.

use shadegrad::{Conv2d, DType, Precision, Tensor};

use crate::case::{Case, range};
use crate::oracle::{conv as oracle, matmul};
use crate::{conv, elementwise, norm};

/// What a product of positive numbers may differ by when both operands are rounded to halves, 2^-11 of themselves each:
/// `(1 + 2^-11)^2 - 1` of the sum. The registry compares shares of the largest element, which is at least the sum at hand,
/// with a tolerance of 1e-5 that covers the sum's own rounding in f32.
fn rounding() -> f64 {
    ((1.0 + 2f64.powi(-11)).powi(2) - 1.0) / 1e-5 + 1.0
}

/// Numbers that halves cannot hold, all of one sign.
fn rounded() -> Vec<Case> {
    let mixed = |run: fn(&[Tensor]) -> shadegrad::Result<Tensor>| move |t: &[Tensor]| Precision::Mixed.scope(|| run(t));
    let p = Conv2d::new(2, 1);
    let g = oracle::Conv { stride: p.stride, padding: p.padding, dilation: p.dilation, groups: p.groups };
    let product = vec![range(&[9, 37], 0.1, 1.0), range(&[37, 13], 0.1, 1.0)];
    let images = vec![range(&[2, 7, 6, 5], 0.1, 1.0), range(&[9, 3, 3, 5], 0.1, 1.0)];
    let halves = |t: &[Tensor]| t[0].cast(DType::F16)?.matmul(&t[1]);
    vec![
        Case::new("matmul/rounded", product, mixed(|t| t[0].matmul(&t[1])), |a| matmul::matmul(&a[0], &a[1])),
        // One operand in halves makes the product one of halves, outside of a region too.
        Case::new("matmul/rounded_by_type", vec![range(&[3, 5], 0.1, 1.0), range(&[5, 4], 0.1, 1.0)], halves, |a| {
            matmul::matmul(&a[0], &a[1])
        }),
        Case::new("conv2d/rounded", images, mixed(|t| t[0].conv2d(&t[1], None, Conv2d::new(2, 1))), move |a| {
            oracle::conv2d(&a[0], &a[1], None, &g)
        }),
    ]
    .into_iter()
    .map(|c| c.tol(rounding()).grad(false))
    .collect()
}

pub fn cases() -> Vec<Case> {
    let keeps = ["relu", "leaky_relu", "gelu", "gelu_tanh", "silu"].map(|f| format!("elementwise/{f}"));
    let activations = elementwise::cases().into_iter().filter(|c| keeps.iter().any(|k| k == c.name()));
    let own = |c: &Case| !c.name().contains("biased");
    let products = conv::cases().into_iter().chain(crate::matmul::cases().into_iter().filter(own));
    let rows = products.chain(norm::cases()).chain(activations).map(Case::mixed);
    rows.chain(rounded()).collect()
}
