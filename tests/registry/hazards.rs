//! What drivers, fast arithmetic and odd sizes do to kernels: one test per hazard, each from somebody's bug report.

use shadegrad::autograd::{checkpoint, grad, grad_create_graph};
use shadegrad::kernels::UserKernel;
use shadegrad::{DType, Tensor};

use crate::case::{gpu, own};
use crate::check::checks;

checks! {
    "hazards":
    saturating_functions_neither_overflow_nor_lose_their_sign,
    slopes_of_saturated_functions_are_finite,
    nan_is_recognised_and_survives,
    nan_survives_reductions_wherever_it_is,
    extremes_of_infinities_and_of_nothing_but_the_lowest,
    the_gradient_of_an_extreme_goes_to_the_first_of_equals,
    powers_follow_the_table,
    what_is_not_selected_does_not_leak,
    sums_of_ones_are_exact,
    rounding_errors_of_sums_stay_small,
    slopes_at_kinks_are_as_documented,
    casts_to_words_end_where_words_do,
    numbers_in_order_are,
    an_input_that_a_checkpoint_does_not_use_gets_zeros,
    the_pivot_that_fails_is_named,
    grids_beyond_the_limit_fold,
    division_of_whole_numbers_is_exact,
    tensors_without_elements_work,
    errors_name_the_operation_and_the_shapes,
    two_runs_give_the_same_bits,
}

fn tensor(data: &[f32]) -> Tensor {
    Tensor::from_slice(&gpu(), data, &[data.len()]).unwrap()
}

fn values(t: shadegrad::Result<Tensor>) -> Vec<f32> {
    t.unwrap().to_vec().unwrap()
}

fn saturating_functions_neither_overflow_nor_lose_their_sign() {
    let x = tensor(&[-1e3, -100.0, -50.0, 0.0, 50.0, 100.0, 1e3, f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(values(x.tanh()), [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0, -1.0]);
    assert_eq!(values(x.erf()), [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0, -1.0]);
    let s = values(x.sigmoid());
    assert_eq!((s[3], &s[5..8]), (0.5, &[1.0; 3][..]), "{s:?}");
    assert!(s[0] < 1e-38 && s[1] < 1e-38 && s[8] < 1e-38 && s.iter().all(|v| *v >= 0.0), "{s:?}");
    let p = values(x.softplus());
    assert!(p[0] < 1e-38 && p[1] < 1e-38 && p[5..8] == [100.0, 1e3, f32::INFINITY], "{p:?}");
    for y in [x.gelu(), x.gelu_tanh(), x.silu()] {
        let y = values(y);
        assert!(y[..2].iter().all(|v| v.abs() < 1e-20) && y[4..7] == [50.0, 100.0, 1e3], "{y:?}");
    }
}

fn slopes_of_saturated_functions_are_finite() {
    let x = tensor(&[-1e3, -100.0, 100.0, 1e3]).leaf();
    for f in
        [Tensor::tanh, Tensor::sigmoid, Tensor::softplus, Tensor::silu, Tensor::gelu, Tensor::gelu_tanh, Tensor::erf]
    {
        let y = f(&x).unwrap().sum_all().unwrap();
        let g = values(Ok(grad(&y, &[&x]).unwrap().remove(0)));
        assert!(g.iter().all(|v| (-1e-6..=1.000_001).contains(v)), "{y:?}: {g:?}");
    }
}

fn nan_is_recognised_and_survives() {
    let payload = f32::from_bits(0xffc1_2345);
    let x = tensor(&[f32::NAN, 1.0, payload, f32::INFINITY, -2.0]);
    assert_eq!(values(x.is_nan()), [1.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(values(x.is_finite()), [0.0, 1.0, 0.0, 0.0, 1.0]);
    let functions: [(&str, shadegrad::Result<Tensor>); 17] = [
        ("relu", x.relu()),
        ("leaky_relu", x.leaky_relu(0.1)),
        ("elu", x.elu(1.0)),
        ("clamp", x.clamp(-1.0, 1.0)),
        ("tanh", x.tanh()),
        ("sigmoid", x.sigmoid()),
        ("softplus", x.softplus()),
        ("gelu", x.gelu()),
        ("gelu_tanh", x.gelu_tanh()),
        ("silu", x.silu()),
        ("erf", x.erf()),
        ("square", x.square()),
        ("powf", x.powf(2.0)),
        ("maximum", x.maximum(&tensor(&[0.0]))),
        ("maximum, other side", tensor(&[0.0]).maximum(&x)),
        ("minimum", x.minimum(&tensor(&[0.0]))),
        ("minimum, other side", tensor(&[0.0]).minimum(&x)),
    ];
    for (name, y) in functions {
        let nan: Vec<bool> = values(y).iter().map(|v| v.is_nan()).collect();
        assert_eq!(nan[..3], [true, false, true], "{name}");
        assert!(!nan[4], "{name}");
    }
}

fn nan_survives_reductions_wherever_it_is() {
    for (n, at) in [(1, 0), (5, 4), (64, 1), (1030, 1029), (5000, 2777)] {
        let mut data: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        data[at] = f32::NAN;
        for shape in [[1, n, 1], [1, n, 2]] {
            let doubled: Vec<f32> = data.iter().flat_map(|&v| vec![v; shape[2]]).collect();
            let x = Tensor::from_slice(&gpu(), &doubled, &shape).unwrap();
            for x in [x.clone(), x.leaf()] {
                for y in [x.max(&[1], false), x.min(&[1], false), x.sum(&[1], false)] {
                    assert!(values(y).iter().all(|v| v.is_nan()), "{shape:?} at {at}");
                }
                for y in [x.argmax(1, false), x.argmin(1, false)] {
                    assert!(y.unwrap().to_vec_u32().unwrap().iter().all(|&i| i as usize == at), "{shape:?} at {at}");
                }
            }
        }
    }
    let (sorted, _) = tensor(&[2.0, f32::NAN, 1.0]).sort(0, false).unwrap();
    let sorted = values(Ok(sorted));
    assert!(sorted[..2] == [1.0, 2.0] && sorted[2].is_nan(), "{sorted:?}");
}

fn extremes_of_infinities_and_of_nothing_but_the_lowest() {
    let x = Tensor::from_slice(&gpu(), &[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::MIN, f32::NEG_INFINITY], &[2, 2])
        .unwrap();
    assert_eq!(values(x.max(&[1], false)), [f32::NEG_INFINITY, f32::MIN]);
    assert_eq!(x.argmax(1, false).unwrap().to_vec_u32().unwrap(), [0, 0]);
    assert_eq!(values(x.neg().unwrap().min(&[1], false)), [f32::INFINITY, f32::MAX]);
    assert_eq!(values(x.logsumexp(&[1], false))[0], f32::NEG_INFINITY);
    let zeros = tensor(&[-0.0, 0.0, -0.0]);
    assert_eq!(zeros.argmax(0, false).unwrap().to_vec_u32().unwrap(), [0]);
    assert_eq!(zeros.argmin(0, false).unwrap().to_vec_u32().unwrap(), [0]);
}

fn the_gradient_of_an_extreme_goes_to_the_first_of_equals() {
    for n in [3, 64, 1030, 5000] {
        let mut data = vec![0.0; 2 * n];
        data[n / 2..n].fill(4.0);
        data[n + 1..].fill(4.0);
        let x = Tensor::from_slice(&gpu(), &data, &[2, n]).unwrap().leaf();
        let firsts = |axes: &[usize]| {
            let y = x.max(axes, false).unwrap().sum_all().unwrap();
            let g = values(Ok(grad(&y, &[&x]).unwrap().remove(0)));
            (0..g.len()).filter(|&i| g[i] != 0.0).map(|i| (i, g[i])).collect::<Vec<_>>()
        };
        assert_eq!(firsts(&[1]), [(n / 2, 1.0), (n + 1, 1.0)]);
        assert_eq!(firsts(&[0, 1]), [(n / 2, 1.0)]);
    }
}

fn powers_follow_the_table() {
    let nan = f32::NAN;
    let table = [
        (0.0, 0.0, 1.0),
        (-2.0, 0.0, 1.0),
        (nan, 0.0, 1.0),
        (1.0, nan, 1.0),
        (-2.0, 3.0, -8.0),
        (-2.0, 2.0, 4.0),
        (-2.0, -1.0, -0.5),
        (-2.0, 0.5, nan),
        (0.0, 2.5, 0.0),
        (0.0, -1.0, f32::INFINITY),
        (4.0, 0.5, 2.0),
        (nan, 1.0, nan),
    ];
    let close = |a: f32, b: f32| (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-5 * b.abs();
    let x = tensor(&table.map(|t| t.0));
    let y = values(x.pow(&tensor(&table.map(|t| t.1))));
    for (i, (base, power, expected)) in table.into_iter().enumerate() {
        assert!(close(y[i], expected), "{base}^{power} = {}, expected {expected}", y[i]);
        if !power.is_nan() {
            let z = values(tensor(&[base]).powf(power))[0];
            assert!(close(z, expected), "{base}^({power}) = {z}, expected {expected}");
        }
    }
    // Slopes at the corner of 0^0 and of whole powers at 0.
    let (x, y) = (tensor(&[0.0, 0.0, 0.0]).leaf(), tensor(&[0.0, 1.0, 2.0]).leaf());
    let out = x.pow(&y).unwrap().sum_all().unwrap();
    let g = grad(&out, &[&x, &y]).unwrap();
    assert_eq!(values(Ok(g[0].clone())), [0.0, 1.0, 0.0]);
    assert_eq!(values(Ok(g[1].clone())), [0.0, 0.0, 0.0]);
}

fn what_is_not_selected_does_not_leak() {
    let cond = tensor(&[1.0, 0.0, 1.0, 0.0]);
    let a = tensor(&[1.0, f32::NAN, 2.0, f32::INFINITY]).leaf();
    let b = tensor(&[f32::NAN, 3.0, -f32::MAX, 4.0]).leaf();
    let y = cond.select(&a, &b).unwrap();
    assert_eq!(values(Ok(y.clone())), [1.0, 3.0, 2.0, 4.0]);
    // Not even through gradients that overflowed.
    let upstream = tensor(&[f32::INFINITY, 1.0, 1.0, f32::INFINITY]);
    let g = shadegrad::autograd::vjp(&y, &[&a, &b], &upstream).unwrap();
    assert_eq!(values(Ok(g[0].clone())), [f32::INFINITY, 0.0, 1.0, 0.0]);
    assert_eq!(values(Ok(g[1].clone())), [0.0, 1.0, 0.0, f32::INFINITY]);
    let x = tensor(&[-1.0, 1.0]).leaf();
    let dx = shadegrad::autograd::vjp(&x.relu().unwrap(), &[&x], &tensor(&[f32::INFINITY, 2.0])).unwrap();
    assert_eq!(values(Ok(dx[0].clone())), [0.0, 2.0]);
}

fn sums_of_ones_are_exact() {
    let ones = Tensor::ones(&gpu(), &[10_000_000]).unwrap();
    assert_eq!(ones.sum_all().unwrap().item().unwrap(), 1e7);
    let million = ones.reshape(&[10, 1_000_000]).unwrap();
    assert_eq!(values(million.sum(&[1], false)), [1e6; 10]);
    assert_eq!(values(ones.reshape(&[1_000_000, 10]).unwrap().sum(&[0], false)), [1e6; 10]);
    assert_eq!(*values(ones.cumsum(0)).last().unwrap(), 1e7);
    // Thirty million do not fit a float's 24 bits, but short sums of short sums come close.
    let many = Tensor::ones(&gpu(), &[30_000_001]).unwrap().sum_all().unwrap().item().unwrap();
    assert!((many / 30_000_001.0 - 1.0).abs() < 1e-6, "{many}");
}

fn rounding_errors_of_sums_stay_small() {
    let n = 1 << 20;
    let data: Vec<f32> =
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32).collect();
    let exact: f64 = data.iter().map(|&v| f64::from(v)).sum();
    for shape in [[1, n, 1], [n, 1, 1], [n / 4, 1, 4]] {
        let x = Tensor::from_slice(&gpu(), &data, &shape).unwrap();
        let sums = values(x.sum(&[0, 1], false));
        let total: f64 = sums.iter().map(|&v| f64::from(v)).sum();
        assert!((total / exact - 1.0).abs() < 1e-6, "{shape:?}: {total} for {exact}");
    }
}

fn grids_beyond_the_limit_fold() {
    // A limit of 7 in one dimension takes 49 workgroups; one of 150 reaches 20 million elements.
    let small = own(|o| o.max_grid = Some(7));
    let n = 7 * 7 * 1024 - 5;
    let x = Tensor::full(&small, &[n], 0.5).unwrap();
    let y = x.mul_scalar(2.0).unwrap().add(&x).unwrap().to_vec().unwrap();
    assert!(y.len() == n && y.iter().all(|&v| v == 1.5));
    assert_eq!(x.sum_all().unwrap().item().unwrap(), n as f32 / 2.0);
    let error = Tensor::full(&small, &[10 * n], 0.5).unwrap_err().to_string();
    assert!(error.contains("workgroups"), "{error}");

    let large = own(|o| o.max_grid = Some(150));
    let x = Tensor::full(&large, &[20_000_000], 0.25).unwrap();
    assert_eq!(x.add_scalar(0.25).unwrap().sum_all().unwrap().item().unwrap(), 1e7);
}

/// Differences say nothing there; both forms of the backward pass must agree with the documentation.
fn slopes_at_kinks_are_as_documented() {
    type Function = fn(&Tensor) -> shadegrad::Result<Tensor>;
    let functions: [(&str, Function, [f32; 5]); 6] = [
        ("relu", Tensor::relu, [0.0, 0.0, 0.0, 1.0, 1.0]),
        ("abs", Tensor::abs, [-1.0, -1.0, 0.0, 1.0, 1.0]),
        ("leaky_relu", |x| x.leaky_relu(0.25), [0.25, 0.25, 0.25, 1.0, 1.0]),
        ("elu", |x| x.add_scalar(0.0)?.elu(0.5)?.mul_scalar(2.0), [0.0, 0.0, 1.0, 2.0, 2.0]),
        ("clamp", |x| x.clamp(-1.0, 1.0), [0.0, 1.0, 1.0, 1.0, 0.0]),
        ("prelu", |x| x.prelu(&Tensor::scalar(x.gpu(), 0.25)?), [0.25, 0.25, 0.25, 1.0, 1.0]),
    ];
    for (name, f, slopes) in functions {
        let x = tensor(&[-2.0, -1.0, 0.0, 1.0, 2.0]).leaf();
        for slope in [grad, grad_create_graph] {
            let got = values(Ok(slope(&f(&x).unwrap().sum_all().unwrap(), &[&x]).unwrap().remove(0)));
            // The exponential of ELU is held to its rows; here only its kink.
            let at = if name == "elu" { 2..5 } else { 0..5 };
            assert_eq!(got[at.clone()], slopes[at], "{name}");
        }
    }
}

/// To the bit: the tolerance of the rows is wider than the step between the largest words that floats can hold.
fn casts_to_words_end_where_words_do() {
    let x = tensor(&[1e12, f32::INFINITY, 4_294_967_040.0, 4_294_966_784.0, 16_777_217.0, -1.0, 0.5]);
    let words = x.cast(DType::U32).unwrap().to_vec_u32().unwrap();
    assert_eq!(words, [4_294_967_040, 4_294_967_040, 4_294_967_040, 4_294_966_784, 16_777_216, 0, 0]);
}

fn numbers_in_order_are() {
    for n in [0, 1, 255, 257, 1500] {
        let numbers = Tensor::arange(&gpu(), 7, n).unwrap().to_vec_u32().unwrap();
        assert_eq!(numbers, (7..7 + n as u32).collect::<Vec<_>>());
    }
}

fn an_input_that_a_checkpoint_does_not_use_gets_zeros() {
    let (x, y) = (tensor(&[1.0, 2.0]).leaf(), tensor(&[3.0]).leaf());
    let out = checkpoint(&[&x, &y], |inputs| inputs[0].square()).unwrap().sum_all().unwrap();
    let grads = grad(&out, &[&x, &y]).unwrap();
    assert_eq!((grads[0].to_vec().unwrap(), grads[1].to_vec().unwrap()), (vec![2.0, 4.0], vec![0.0]));
}

/// In more matrices than a workgroup looks through, and for every way in which a number is no pivot.
fn the_pivot_that_fails_is_named() {
    let small = Tensor::from_slice(&gpu(), &[1e-4, 0.0, 0.0, 1e-6], &[2, 2]).unwrap();
    assert_eq!(values(small.cholesky_checked()), [1e-2, 0.0, 0.0, 1e-3]);
    for (bad, at) in [(0.0, 68), (-1.0, 3), (f32::NAN, 68), (f32::INFINITY, 3)] {
        let mut matrices = [1.0, 0.5, 0.5, 2.0].repeat(70);
        matrices[4 * at + 3] = bad;
        let error =
            Tensor::from_slice(&gpu(), &matrices, &[70, 2, 2]).unwrap().cholesky_checked().unwrap_err().to_string();
        assert!(error.contains(&format!("matrix {at} ")) && error.contains("pivot 1 "), "{bad}: {error}");
    }
}

/// The name and the text of a kernel that divides by the function that all maps of indices divide by.
pub(crate) const DIVIDE: (&str, &str) = (
    "divide_check",
    "
#import divide
@group(0) @binding(0) var<storage, read> n: array<u32>;
@group(0) @binding(1) var<storage, read> d: array<u32>;
@group(0) @binding(2) var<storage, read_write> q: array<vec2<u32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&n)) {
    q[id.x] = sg_divide(n[id.x], d[id.x]);
  }
}",
);

/// Around multiples of small, large and awkward divisors: where a quotient of floats is off by one, which only tensors of millions
/// of elements would show. (41 and 47 are the first whose reciprocal times themselves is less than 1 in floats.)
fn division_of_whole_numbers_is_exact() {
    const TOP: u32 = (1 << 31) - 1;
    let mut divisors: Vec<u32> = (1..=64).chain([82, 97, 100, 255, 257, 1000, 4095, 4097, 12_345, 65_535]).collect();
    divisors.extend((16..31).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + 1]));
    divisors.extend([TOP - 1, TOP]);
    let (mut n, mut d) = (Vec::new(), Vec::new());
    for divisor in divisors {
        let most = TOP / divisor;
        for k in (0..40).chain((0..24).map(|e| most >> e)).chain((1..16).map(|i| most - most.min(i))) {
            let multiple = k.min(most) * divisor;
            for dividend in [multiple.saturating_sub(1), multiple, multiple.saturating_add(1).min(TOP)] {
                n.push(dividend);
                d.push(divisor);
            }
        }
    }
    let (gpu, count) = (gpu(), n.len());
    let of = |data: &[u32]| Tensor::from_u32(&gpu, data, &[count]).unwrap();
    let out = Tensor::from_u32(&gpu, &vec![0; 2 * count], &[2 * count]).unwrap();
    let kernel = UserKernel::new(DIVIDE.0, DIVIDE.1).unwrap();
    let groups = [(count as u32).div_ceil(64), 1, 1];
    kernel.dispatch(&gpu, &[of(&n).storage(), of(&d).storage()], &[out.storage()], &[], groups).unwrap();
    let results = out.to_vec_u32().unwrap();
    for (i, (n, d)) in n.iter().zip(&d).enumerate() {
        assert_eq!((results[2 * i], results[2 * i + 1]), (n / d, n % d), "{n} / {d}");
    }
}

fn tensors_without_elements_work() {
    let g = gpu();
    for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4]] {
        let x = Tensor::zeros(&g, shape).unwrap().leaf();
        let y = x.exp().unwrap().add(&x).unwrap().relu().unwrap().mul(&Tensor::scalar(&g, 2.0).unwrap()).unwrap();
        assert_eq!((y.shape(), y.to_vec().unwrap().len()), (shape, 0));
        let total = y.sum_all().unwrap();
        assert_eq!(total.item().unwrap(), 0.0);
        assert_eq!(grad(&total, &[&x]).unwrap()[0].shape(), shape);
        let error = x.max(&(0..shape.len()).collect::<Vec<_>>(), false).unwrap_err().to_string();
        assert!(error.starts_with("max: ") && error.contains("no elements"), "{error}");
        assert!(x.mean_all().is_err());
    }
    let rows = Tensor::zeros(&g, &[3, 0]).unwrap();
    assert_eq!(values(rows.sum(&[1], true)), [0.0; 3]);
    assert_eq!(rows.max(&[0], false).unwrap().shape(), [0]);
}

fn errors_name_the_operation_and_the_shapes() {
    let (a, b) = (Tensor::zeros(&gpu(), &[2, 3]).unwrap(), Tensor::zeros(&gpu(), &[4]).unwrap());
    let texts = [
        (a.add(&b).unwrap_err(), ["add: ", "[2, 3]", "[4]"]),
        (a.sum(&[2], false).unwrap_err(), ["sum: ", "[2, 3]", "axis 2"]),
        (a.sum(&[1, 1], false).unwrap_err(), ["sum: ", "[1, 1]", "twice"]),
        (a.var(&[0], 2, false).unwrap_err(), ["var: ", "[2, 3]", "2 elements"]),
        (a.topk(4, 1, true).unwrap_err(), ["topk: ", "[2, 3]", "3 elements"]),
        (a.sum_to(&[2]).unwrap_err(), ["sum_to: ", "[2]", "[2, 3]"]),
        (a.select(&a, &b).unwrap_err(), ["select: ", "[2, 3]", "[4]"]),
        (a.clamp(1.0, 0.0).unwrap_err(), ["clamp: ", "1", "0"]),
        (a.add(&Tensor::arange(&gpu(), 0, 3).unwrap()).unwrap_err(), ["add: ", "U32", "cast"]),
    ];
    for (error, words) in texts {
        let text = error.to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
    }
}

fn two_runs_give_the_same_bits() {
    let data: Vec<f32> = (0..100_003).map(|i| ((i * 7919) % 104_729) as f32 * 1e-3).collect();
    let run = || {
        let x = tensor(&data).leaf();
        let y = x.sin().unwrap().square().unwrap().sum_all().unwrap();
        let g = grad(&y, &[&x]).unwrap().remove(0);
        (y.to_bytes().unwrap(), g.to_bytes().unwrap(), x.cumsum(0).unwrap().to_bytes().unwrap())
    };
    assert!(run() == run());
}
