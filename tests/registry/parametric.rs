//! Activations with a learned number, and those given by a table.

use shadegrad::Tensor;

use crate::case::{Case, Input, away, fixed, rand, range};
use crate::oracle::parametric as oracle;

fn number(v: f64) -> Input {
    fixed(&[v], &[])
}

fn crrelu(name: &str, x: Input, eps: Input) -> Case {
    Case::new(
        format!("parametric/crrelu_{name}"),
        vec![x, eps],
        |t| t[0].crrelu(&t[1]),
        |a| oracle::crrelu(&a[0], &a[1]),
    )
}

fn prelu(name: &str, x: Input, a: Input) -> Case {
    Case::new(format!("parametric/prelu_{name}"), vec![x, a], |t| t[0].prelu(&t[1]), |a| oracle::prelu(&a[0], &a[1]))
}

fn piecewise(name: &str, x: Input, grid: &[f64], values: &[f64]) -> Case {
    let k = grid.len();
    Case::new(
        format!("parametric/piecewise_linear_{name}"),
        vec![x, fixed(grid, &[k]), fixed(values, &[k])],
        |t| t[0].piecewise_linear(&t[1], &t[2]),
        |a| oracle::piecewise_linear(&a[0], &a[1], &a[2]),
    )
    .inputs_without_grad(&[1, 2])
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        crrelu("start", away(&[3, 5], 0.05), number(0.01)),
        crrelu("large", away(&[13], 0.05), number(0.8)),
        crrelu("negative", away(&[2, 7], 0.05), number(-0.7)),
        crrelu("far", range(&[9], 0.5, 5.0), number(0.5)),
        crrelu("vector_parameter", away(&[6], 0.05), fixed(&[0.3], &[1])),
        prelu("start", away(&[3, 5], 0.05), number(0.25)),
        prelu("negative", away(&[13], 0.05), number(-0.5)),
        prelu("vector_parameter", away(&[6], 0.05), fixed(&[0.3], &[1])),
        // Nothing of an infinite input or of one whose bump underflows may turn into NaN.
        crrelu("wide", fixed(&[-1e30, -1e3, -13.0, -12.0, 0.0, 12.0, 13.0, 1e3, 1e30], &[9]), number(0.5)).grad(false),
        crrelu("infinite", fixed(&[f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0], &[4]), number(0.5)).grad(false),
    ];
    // Sizes about a vector, a workgroup and a run of one; none. Differences are taken for the small ones.
    for shape in [&[][..], &[0], &[1], &[2], &[3], &[1, 1, 7], &[1023], &[1025], &[3, 5, 7, 11], &[8191], &[8195]] {
        let n: usize = shape.iter().product();
        let far = || away(shape, 0.05);
        cases.push(crrelu(&format!("{shape:?}"), far(), number(0.4)).grad(n < 64));
        cases.push(prelu(&format!("{shape:?}"), far(), number(0.4)).grad(n < 64));
    }
    // The sum over all elements by workgroups: elements around the limits of a run, in the last vector too.
    for n in [2047, 8192, 8193, 16387, 40001] {
        let sum = move |t: &[Tensor]| gradient_of_number(&t[0], &t[1], &t[2]);
        let inputs = vec![away(&[n], 0.05), number(0.4), rand(&[n])];
        let want = |a: &[crate::oracle::A]| oracle::crrelu_by_eps(&a[0], &a[2]);
        cases.push(Case::new(format!("parametric/crrelu_number_{n}"), inputs, sum, want).grad(false));
    }
    let (grid, values) = (&[-2.0, -0.5, 0.0, 0.25, 3.0][..], &[0.5, -1.0, 0.25, 0.25, 2.0][..]);
    let between = [-5.0, -2.2, -1.9, -0.6, -0.4, -0.1, 0.1, 0.2, 0.3, 2.9, 3.1, 40.0];
    cases.extend([
        piecewise("between", fixed(&between, &[3, 4]), grid, values),
        piecewise("two_knots", fixed(&[-1.0, 0.5, 2.0], &[3]), &[0.0, 1.0], &[1.0, -1.0]),
        piecewise("at_knots", fixed(grid, &[5]), grid, values).grad(false),
        piecewise("none", rand(&[0]), grid, values),
        piecewise("long", range(&[1031], -4.0, 4.0), grid, values).grad(false),
    ]);
    cases
}

/// The gradient for the number, so that its reduction is seen at sizes too large for differences.
fn gradient_of_number(x: &Tensor, eps: &Tensor, dy: &Tensor) -> shadegrad::Result<Tensor> {
    let eps = eps.detach().leaf();
    let y = x.detach().crrelu(&eps)?;
    let grads = shadegrad::autograd::vjp(&y, &[&eps], dy)?;
    Ok(grads[0].clone())
}
