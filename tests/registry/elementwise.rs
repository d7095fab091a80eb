//! Functions of single elements, broadcasting, comparison, selection, element types.

use shadegrad::{DType, Result, Tensor};

use crate::case::{Case, Input, away, fixed, ints, rand, range};
use crate::oracle::A;
use crate::oracle::elementwise as oracle;

/// A row of a function of one tensor.
fn unary(
    name: &str,
    input: Input,
    engine: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    want: impl Fn(f64) -> f64 + Send + Sync + 'static,
) -> Case {
    Case::new(format!("elementwise/{name}"), vec![input], move |t| engine(&t[0]), move |a| oracle::unary(&a[0], &want))
}

/// Elements for six workgroups, not a multiple of a vector: grids fold there in tests, into whole rows, so that no workgroup too
/// many does what another left out.
const LONG: [usize; 1] = [5125];

/// Values repeated to the length that makes grids fold.
fn repeated(values: &[f64]) -> Input {
    fixed(&(0..LONG[0]).map(|i| values[i % values.len()]).collect::<Vec<_>>(), &LONG)
}

/// Magnitudes from tiny to huge, of both signs.
fn wide() -> Input {
    let sizes =
        [1e-6, 3e-5, 1e-3, 0.02, 0.24, 0.26, 0.49, 0.51, 0.99, 1.01, 2.5, 3.99, 4.01, 7.3, 14.9, 15.1, 40.0, 80.0];
    let values: Vec<f64> = sizes.iter().flat_map(|&v| [v, -v]).chain([0.0]).collect();
    fixed(&values, &[values.len()])
}

/// Every function whose gradient can be checked at random points, on `s`.
fn smooth_unaries(s: [usize; 1]) -> Vec<Case> {
    vec![
        unary("neg", rand(&s), Tensor::neg, |x| -x),
        unary("abs", away(&s, 0.1), Tensor::abs, f64::abs),
        unary("exp", range(&s, -3.0, 3.0), Tensor::exp, f64::exp),
        unary("log", range(&s, 0.2, 3.0), Tensor::log, f64::ln),
        unary("log1p", range(&s, -0.6, 2.0), Tensor::log1p, f64::ln_1p),
        unary("expm1", range(&s, -2.0, 2.0), Tensor::expm1, f64::exp_m1),
        unary("sqrt", range(&s, 0.3, 3.0), Tensor::sqrt, f64::sqrt),
        unary("rsqrt", range(&s, 0.3, 3.0), Tensor::rsqrt, oracle::rsqrt),
        unary("recip", range(&s, 0.4, 3.0), Tensor::recip, f64::recip),
        unary("recip_negative", range(&s, -3.0, -0.4), Tensor::recip, f64::recip),
        unary("sin", range(&s, -6.0, 6.0), Tensor::sin, f64::sin),
        unary("cos", range(&s, -6.0, 6.0), Tensor::cos, f64::cos),
        unary("tanh", range(&s, -3.0, 3.0), Tensor::tanh, f64::tanh),
        unary("sigmoid", range(&s, -6.0, 6.0), Tensor::sigmoid, oracle::sigmoid),
        unary("softplus", range(&s, -6.0, 6.0), Tensor::softplus, oracle::softplus),
        unary("silu", range(&s, -6.0, 6.0), Tensor::silu, oracle::silu),
        unary("mish", range(&s, -6.0, 6.0), Tensor::mish, oracle::mish),
        unary("gelu", range(&s, -4.0, 4.0), Tensor::gelu, oracle::gelu),
        unary("gelu_tanh", range(&s, -4.0, 4.0), Tensor::gelu_tanh, oracle::gelu_tanh),
        unary("relu", away(&s, 0.1), Tensor::relu, oracle::relu),
        unary("leaky_relu", away(&s, 0.1), |x| x.leaky_relu(0.125), |x| oracle::leaky_relu(x, 0.125)),
        unary("elu", away(&s, 0.1), |x| x.elu(0.75), |x| oracle::elu(x, 0.75)),
        unary("erf", range(&s, -3.0, 3.0), Tensor::erf, oracle::erf),
        unary("square", rand(&s), Tensor::square, oracle::square),
        unary("add_scalar", rand(&s), |x| x.add_scalar(0.625), |x| x + 0.625),
        unary("mul_scalar", rand(&s), |x| x.mul_scalar(-1.5), |x| -1.5 * x),
    ]
}

fn unaries() -> Vec<Case> {
    let s = [13];
    let mut cases = smooth_unaries(s);
    cases.extend(smooth_unaries(LONG).into_iter().map(|c| c.named("_long").no_second_order("the short rows have it")));
    let kinks = [-3.0, -0.6, -0.4, 0.0, 0.2, 0.7, 0.8, 9.0];
    cases.extend([
        unary("clamp", fixed(&kinks, &[2, 4]), |x| x.clamp(-0.5, 0.75), |x| x.clamp(-0.5, 0.75)),
        unary("clamp_long", repeated(&kinks), |x| x.clamp(-0.5, 0.75), |x| x.clamp(-0.5, 0.75)),
    ]);
    for p in [-1.5f32, -1.0, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0] {
        let f = move |x: f64| x.powf(f64::from(p));
        cases.push(unary(&format!("powf_{p}"), range(&s, 0.4, 2.0), move |x| x.powf(p), f));
        let long = unary(&format!("powf_{p}_long"), range(&LONG, 0.4, 2.0), move |x| x.powf(p), f);
        cases.push(long.no_second_order("the short rows have it"));
        if p.fract() == 0.0 {
            cases.push(unary(&format!("powf_{p}_negative"), range(&s, -2.0, -0.4), move |x| x.powf(p), f));
        }
    }
    // Every size about a workgroup and a vector, and none.
    for shape in [&[][..], &[0], &[1], &[2], &[3], &[5], &[2, 0, 3], &[1, 1, 7], &[1023], &[1025], &[3, 5, 7, 11]] {
        let grad = shape.iter().product::<usize>() < 64;
        cases.push(unary(&format!("exp_{shape:?}"), rand(shape), Tensor::exp, f64::exp).grad(grad));
        cases.push(unary(&format!("tanh_{shape:?}"), rand(shape), Tensor::tanh, f64::tanh).grad(grad));
    }
    let halves: Vec<f64> = (-9..=9).map(|i| f64::from(i) / 2.0).chain([1.25, -1.75, 1e6, -3e7]).collect();
    let steps = || repeated(&halves);
    let odd = repeated(&[f64::NAN, 1.0, f64::INFINITY, -0.0, f64::NEG_INFINITY, f64::from(f32::MAX), 1e-38]);
    cases.extend(
        [
            unary("sign", steps(), Tensor::sign, oracle::sign),
            unary("floor", steps(), Tensor::floor, f64::floor),
            unary("ceil", steps(), Tensor::ceil, f64::ceil),
            unary("round", steps(), Tensor::round, f64::round_ties_even),
            unary("gt_scalar", steps(), |x| x.gt_scalar(1.5), |x| oracle::gt(x, 1.5)),
            unary("ge_scalar", steps(), |x| x.ge_scalar(1.5), |x| oracle::ge(x, 1.5)),
            unary("lt_scalar", steps(), |x| x.lt_scalar(1.5), |x| oracle::lt(x, 1.5)),
            unary("le_scalar", steps(), |x| x.le_scalar(1.5), |x| oracle::le(x, 1.5)),
            unary("eq_scalar", steps(), |x| x.eq_scalar(1.5), |x| oracle::eq(x, 1.5)),
            unary("ne_scalar", steps(), |x| x.ne_scalar(1.5), |x| oracle::ne(x, 1.5)),
            unary("is_finite", odd, Tensor::is_finite, oracle::is_finite),
            unary("is_nan", repeated(&[f64::NAN, 1.0, f64::INFINITY, 0.0, -f64::NAN]), Tensor::is_nan, oracle::is_nan),
            unary("clamp_wide", wide(), |x| x.clamp(-1.0, 2.0), |x| x.clamp(-1.0, 2.0)),
            // Each value to its own magnitude; exp's error grows with its argument on every device.
            unary("tanh_wide", wide(), Tensor::tanh, f64::tanh).relative(),
            unary("erf_wide", wide(), Tensor::erf, oracle::erf).relative(),
            unary("expm1_wide", wide(), Tensor::expm1, f64::exp_m1).relative().tol(2.0),
            unary("sigmoid_wide", wide(), Tensor::sigmoid, oracle::sigmoid).relative().tol(2.0),
            unary("softplus_wide", wide(), Tensor::softplus, oracle::softplus).relative().tol(2.0),
            unary("log1p_wide", range(&[257], -0.9, 0.9), Tensor::log1p, f64::ln_1p).relative(),
            unary("log_near_one", range(&[257], 0.6, 1.6), Tensor::log, f64::ln).relative(),
            unary("sin_far", range(&[257], -16000.0, 16000.0), Tensor::sin, f64::sin),
            unary("cos_far", range(&[257], -16000.0, 16000.0), Tensor::cos, f64::cos),
            unary("gelu_wide", wide(), Tensor::gelu, oracle::gelu),
            unary("silu_wide", wide(), Tensor::silu, oracle::silu),
            unary("mish_wide", wide(), Tensor::mish, oracle::mish),
        ]
        .map(|c| c.grad(false)),
    );
    cases
}

type Engine2 = fn(&Tensor, &Tensor) -> Result<Tensor>;
type Oracle2 = fn(f64, f64) -> f64;

fn binary(name: String, inputs: [Input; 2], engine: Engine2, want: Oracle2) -> Case {
    Case::new(
        format!("elementwise/{name}"),
        inputs.into(),
        move |t| engine(&t[0], &t[1]),
        move |a| oracle::binary(&a[0], &a[1], want),
    )
}

fn binaries() -> Vec<Case> {
    let smooth: [(&str, Engine2, Oracle2); 5] = [
        ("add", Tensor::add, |a, b| a + b),
        ("sub", Tensor::sub, |a, b| a - b),
        ("mul", Tensor::mul, |a, b| a * b),
        ("div", Tensor::div, |a, b| a / b),
        ("pow", Tensor::pow, f64::powf),
    ];
    let others: [(&str, Engine2, Oracle2); 8] = [
        ("maximum", Tensor::maximum, f64::max),
        ("minimum", Tensor::minimum, f64::min),
        ("gt", Tensor::gt, oracle::gt),
        ("ge", Tensor::ge, oracle::ge),
        ("lt", Tensor::lt, oracle::lt),
        ("le", Tensor::le, oracle::le),
        ("eq", Tensor::eq, oracle::eq),
        ("ne", Tensor::ne, oracle::ne),
    ];
    // Full, scalar, row (a multiple of four and not), column, both repeated, and nothing at all.
    let shapes: [(&[usize], &[usize]); 13] = [
        (&[5], &[5]),
        (&[], &[]),
        (&[3, 4], &[]),
        (&[1], &[2, 3]),
        (&[2, 3, 4], &[4]),
        (&[8], &[3, 8]),
        (&[2, 3, 3], &[1, 3, 3]),
        (&[2, 3], &[3]),
        (&[3, 1], &[3, 4]),
        (&[3, 1], &[1, 5]),
        (&[2, 3, 1, 2], &[3, 2, 1]),
        (&[0, 3], &[3]),
        (&[2, 0], &[2, 1]),
    ];
    let mut cases = Vec::new();
    for (i, (a, b)) in shapes.into_iter().enumerate() {
        for (j, (name, engine, want)) in smooth.into_iter().enumerate() {
            let inputs = [range(a, 0.4, 2.0), range(b, 0.5, 1.5)];
            // The backward rules do not depend on the shape but for the sum over repeats.
            let case = binary(format!("{name}_{a:?}_{b:?}"), inputs, engine, want);
            cases.push(if (i + j) % 3 == 0 || name == "mul" { case } else { case.grad(false) });
        }
        for (name, engine, want) in others {
            let whole = |shape: &[usize], step: usize| {
                let n: usize = shape.iter().product();
                fixed(&(0..n).map(|k| (k * step % 5) as f64 - 2.0).collect::<Vec<_>>(), shape)
            };
            let case = binary(format!("{name}_{a:?}_{b:?}"), [whole(a, 3), whole(b, 7)], engine, want);
            // At ties central differences give each side half, as the rule does; second differences know no rule there.
            cases.push(case.grad(name.ends_with("imum")).no_second_order("kinks at ties"));
        }
    }
    // Vectors along the last dimension, by blocks of eight rows, under one to three more; then dimensions too many for that.
    let tiles: [(&[usize], &[usize]); 9] = [
        (&[17, 12], &[17, 1]),
        (&[9, 1], &[9, 8]),
        (&[2, 1, 8], &[2, 9, 8]),
        (&[2, 9, 1], &[2, 1, 4]),
        (&[2, 1, 3, 1], &[1, 8, 1, 4]),
        (&[3, 5, 1, 8], &[5, 10, 1]),
        (&[2, 3, 1, 2, 4], &[2, 1, 5, 2, 1]),
        (&[2, 1, 2, 1, 2, 4], &[1, 3, 1, 3, 1, 4]),
        (&[300, 1, 4], &[7, 1]),
    ];
    for (a, b) in tiles {
        let grad = a.len() == 2;
        cases.push(binary(format!("sub_{a:?}_{b:?}"), [rand(a), rand(b)], Tensor::sub, |a, b| a - b).grad(grad));
        cases.push(binary(format!("gt_{a:?}_{b:?}"), [rand(a), rand(b)], Tensor::gt, oracle::gt).grad(false));
    }
    // Each operation has kernels of its own for each of these: every element, one for all, a row for all, blocks of rows, and
    // dimensions of every kind; all of them on more workgroups than a row of the grid has.
    let long: [(&[usize], &[usize]); 12] = [
        (&[3, 5, 1, 8], &[5, 10, 1]),
        (&[41, 125], &[41, 125]),
        (&[5125], &[]),
        (&[], &[5125]),
        (&[46, 112], &[112]),
        (&[112], &[46, 112]),
        (&[70, 1, 16], &[70, 5, 1]),
        (&[2, 1, 3, 1, 2, 1, 2, 1], &[1, 2, 1, 2, 1, 3, 1, 2]),
        (&[5, 1, 7, 1, 3, 1, 2, 1], &[1, 5, 1, 2, 1, 3, 1, 3]),
        (&[5, 1, 7], &[1, 3, 1]),
        (&[2, 1, 3, 1, 2], &[1, 2, 1, 3, 1]),
        (&[2, 1, 3, 1, 2, 1, 2], &[1, 2, 1, 2, 1, 3, 1]),
    ];
    for (a, b) in long {
        for (name, engine, want) in smooth.into_iter().chain(others) {
            // Sixteenths: many are equal, and comparisons see them so.
            let grid = |shape: &[usize], step: usize| {
                let n: usize = shape.iter().product();
                fixed(&(0..n).map(|k| (1 + (k * step + 19) % 37) as f64 / 16.0).collect::<Vec<_>>(), shape)
            };
            cases
                .push(binary(format!("{name}_long_{a:?}_{b:?}"), [grid(a, 11), grid(b, 17)], engine, want).grad(false));
        }
    }
    cases.push(binary("div_negative".into(), [rand(&[9]), range(&[9], -2.0, -0.5)], Tensor::div, |a, b| a / b));
    let distinct = [fixed(&[0.5, -1.0, 2.0, 0.25], &[4]), fixed(&[0.75, -2.0, 1.0, 0.5], &[4])];
    cases.push(binary("maximum_smooth".into(), distinct, Tensor::maximum, f64::max));
    cases
}

fn selections() -> Vec<Case> {
    let shapes: [[&[usize]; 3]; 11] = [
        [&[6], &[6], &[6]],
        [&[], &[], &[]],
        [&[2, 3], &[], &[]],
        [&[2, 1], &[3], &[2, 3]],
        [&[3], &[2, 3], &[2, 1]],
        [&[4, 1, 1], &[1, 3, 1], &[1, 1, 2]],
        [&[0, 2], &[2], &[1]],
        [&[2, 1, 2, 1, 1, 2, 1, 2], &[1, 2, 1, 2, 1, 1, 2, 1], &[1, 1, 2, 1, 2, 1, 1, 1]],
        [&[3, 1, 2, 1, 2], &[1, 2, 1, 3, 1], &[3, 2, 1, 1, 2]],
        [&[2, 1, 3, 1, 2, 1, 3], &[1, 2, 1, 3, 1, 2, 1], &[1; 7]],
        [&[2, 1, 3, 1, 3, 1], &[1, 2, 1, 2, 1, 2], &[2, 2, 1, 1, 1, 1]],
    ];
    let select = |a: &[A]| oracle::select(&a[0], &a[1], &a[2]);
    let mut cases = Vec::new();
    for [c, a, b] in shapes {
        let n: usize = c.iter().product();
        let cond: Vec<f64> = (0..n).map(|i| [0.0, 1.0, -2.0, 0.0, 0.5][i % 5]).collect();
        let inputs = vec![fixed(&cond, c), rand(a), rand(b)];
        let case =
            Case::new(format!("elementwise/select_{c:?}_{a:?}_{b:?}"), inputs, |t| t[0].select(&t[1], &t[2]), select);
        cases.push(case.inputs_without_grad(&[0]));
    }
    cases
}

/// The nearest half.
fn half(x: f64) -> f64 {
    if x == 0.0 || x.abs() >= 65520.0 {
        return if x == 0.0 { x } else { x.signum() * f64::INFINITY };
    }
    let step = 2f64.powf(x.abs().log2().floor().max(-14.0) - 10.0);
    (x / step).round_ties_even() * step
}

fn casts() -> Vec<Case> {
    let there_and_back = |dtype: DType| move |x: &Tensor| x.cast(dtype)?.cast(DType::F32);
    let odd = [65504.0, -65519.0, 65520.0, 1e6, -1e30, 6e-5, 0.1, 0.0, -1.0, 2049.0, 2051.0];
    let bytes = [-3.0, -0.5, 0.0, 0.99, 1.0, 127.5, 254.9, 255.0, 256.0, 1e9];
    let words = [-1.0, 0.0, 0.75, 7.99, 16_777_216.0, 4_294_967_040.0, 1e12];
    let cut = |max: f64| move |x: f64| x.clamp(0.0, max).trunc();
    let mut cases = vec![
        unary("cast_f16", rand(&[3, 5]), there_and_back(DType::F16), half),
        unary("cast_f16_odd", fixed(&odd, &[11]), there_and_back(DType::F16), half),
        unary("cast_u8", fixed(&bytes, &[2, 5]), there_and_back(DType::U8), cut(255.0)),
        unary("cast_u32", fixed(&words, &[7]), there_and_back(DType::U32), cut(4_294_967_040.0)),
        unary("cast_from_u32", ints(&[1029], 1 << 24), |x| x.cast(DType::F32), |x| x),
        unary("cast_u32_u8", ints(&[7], 300), |x| x.cast(DType::U8)?.cast(DType::U32), |x| x.min(255.0)),
        unary("cast_same", ints(&[7], 300), |x| x.cast(DType::U32), |x| x),
    ];
    let long = LONG[0];
    cases.push(unary("cast_u32_u8_long", ints(&LONG, 256), |x| x.cast(DType::U8)?.cast(DType::U32), |x| x));
    cases.push(unary("cast_u32_long", range(&LONG, 0.0, 9e6), there_and_back(DType::U32), f64::trunc));
    for n in [0, 1, 2, 3, 6, 1030, long] {
        cases.push(unary(&format!("cast_f16_{n}"), rand(&[n]), there_and_back(DType::F16), half));
        cases.push(unary(&format!("cast_u8_{n}"), range(&[n], 0.0, 256.0), there_and_back(DType::U8), cut(255.0)));
    }
    cases.into_iter().map(|c| c.grad(false)).collect()
}

pub fn cases() -> Vec<Case> {
    [unaries(), binaries(), selections(), casts()].into_iter().flatten().collect()
}
