//! Spiking neurons. Their gradient is a surrogate, not the slope of the forward function, so it is computed inside the
//! row and held against the recurrence written out in f64.

use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::{LifOptions, Reset, Result, Surrogate, Tensor};

use crate::case::{Case, Input, fixed, ints, rand, range};
use crate::oracle::{A, array, lif};

/// Currents that make about every third neuron fire.
fn currents(shape: &[usize]) -> Input {
    range(shape, -0.6, 1.6)
}

/// Inputs of a row: currents `[T, ..]`, threshold, leak, cotangent of the spikes, and with a membrane to start from also
/// that and the cotangent of the last one.
fn inputs(shape: &[usize], membrane: bool) -> Vec<Input> {
    let mut all = vec![currents(shape), fixed(&[0.8], &[]), fixed(&[0.9], &[]), rand(shape)];
    if membrane {
        all.extend([rand(&shape[1..]), rand(&shape[1..])]);
    }
    all
}

/// All gradients of the engine one after the other: currents, threshold, leak, membrane.
fn gradients(t: &[Tensor], options: LifOptions) -> Result<Tensor> {
    let leaves: Vec<Tensor> = [0, 1, 2, 4].iter().filter_map(|&i| t.get(i)).map(Tensor::leaf).collect();
    let (x, threshold, leak) = (&leaves[0], &leaves[1], &leaves[2]);
    let targets: Vec<&Tensor> = leaves.iter().collect();
    let grads = match leaves.get(3) {
        None => {
            let spikes = x.lif(threshold, leak, &options)?;
            grad_with(&[&spikes], &targets, Some(&[&t[3]]), GradOptions::default())?
        }
        Some(start) => {
            let (spikes, last) = x.lif_from(start, threshold, leak, &options)?;
            grad_with(&[&spikes, &last], &targets, Some(&[&t[3], &t[5]]), GradOptions::default())?
        }
    };
    let flat: Vec<Tensor> = grads.into_iter().flatten().map(|g| g.reshape(&[g.numel()])).collect::<Result<_>>()?;
    Tensor::concat(&flat.iter().collect::<Vec<_>>(), 0)
}

fn flat(parts: &[&A]) -> A {
    let all: Vec<f64> = parts.iter().flat_map(|a| a.iter().copied()).collect();
    array(&[all.len()], &all)
}

/// The gradients again by the recurrence, one neuron at a time, for all options.
fn expected(a: &[A], options: LifOptions) -> A {
    let (threshold, leak) = (a[1].sum(), a[2].sum());
    let steps = a[0].shape()[0];
    let neurons: usize = a[0].shape()[1..].iter().product();
    let at = |x: &A, i: usize| x.as_slice().expect("row-major")[i];
    let slope = |z: f64| match options.surrogate {
        Surrogate::Linear { gamma } => f64::from(gamma) * (1.0 - z.abs()).max(0.0),
        Surrogate::Atan { alpha } => {
            let alpha = f64::from(alpha);
            alpha / 2.0 / (1.0 + (std::f64::consts::FRAC_PI_2 * alpha * z).powi(2))
        }
        Surrogate::Sigmoid { alpha } => {
            let s = 1.0 / (1.0 + (-f64::from(alpha) * z).exp());
            f64::from(alpha) * s * (1.0 - s)
        }
    };
    let hard = options.reset == Reset::Zero;
    let (mut dx, mut dstart, mut dthreshold, mut dleak) = (vec![0.0; steps * neurons], vec![], 0.0, 0.0);
    for i in 0..neurons {
        let mut m = a.get(4).map_or(0.0, |start| at(start, i));
        // Per step: membrane before, u, spike.
        let mut trace = Vec::new();
        for t in 0..steps {
            let u = leak * m + at(&a[0], t * neurons + i);
            let o = if u / threshold - 1.0 > 0.0 { 1.0 } else { 0.0 };
            trace.push((m, u, o));
            m = if hard { u * (1.0 - o) } else { u - threshold * o };
        }
        let mut dm = a.get(5).map_or(0.0, |g| at(g, i));
        for (t, (before, u, o)) in trace.into_iter().enumerate().rev() {
            let mut dspike = at(&a[3], t * neurons + i);
            if !options.detach_reset {
                dspike -= dm * if hard { u } else { threshold };
            }
            let dz = dspike * slope(u / threshold - 1.0);
            let du = dz / threshold + dm * if hard { 1.0 - o } else { 1.0 };
            dthreshold -= dz * u / (threshold * threshold) + if hard { 0.0 } else { dm * o };
            dleak += du * before;
            dx[t * neurons + i] = du;
            dm = leak * du;
        }
        if a.len() > 4 {
            dstart.push(dm);
        }
    }
    dx.extend([dthreshold, dleak]);
    dx.extend(dstart);
    array(&[dx.len()], &dx)
}

/// A row of [`gradients`]; spikes may sit on the threshold to rounding error only if the inputs were made so.
fn gradient_case(name: String, inputs: Vec<Input>, options: LifOptions, want: fn(&[A], LifOptions) -> A) -> Case {
    Case::new(name, inputs, move |t| gradients(t, options), move |a| want(a, options)).grad(false)
}

/// The same from the shared oracle, which knows the default options only.
fn by_oracle(a: &[A], _: LifOptions) -> A {
    let g = lif::lif_backward(&a[0], a.get(4), a[1].sum(), a[2].sum(), f64::from(0.3f32), &a[3], a.get(5));
    let parts = [&g.current, &g.threshold, &g.leak, &g.mem0];
    flat(&parts[..if a.len() > 4 { 4 } else { 3 }])
}

/// Words of up to 24 steps, which single precision holds; and longer runs there and back.
fn bit_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [&[1, 1][..], &[5, 7], &[16, 2, 33], &[24, 129], &[3, 0]] {
        cases.push(
            Case::new(
                format!("spiking/pack_spikes_{shape:?}"),
                vec![range(shape, 0.0, 1.0)],
                |t| t[0].pack_spikes(),
                |a| {
                    let steps = a[0].outer_iter().enumerate();
                    let word = |sum: A, (t, x): (usize, ndarray::ArrayViewD<f64>)| {
                        sum + x.mapv(|v| if v > 0.5 { (1u32 << t) as f64 } else { 0.0 })
                    };
                    steps.fold(A::zeros(&a[0].shape()[1..]), word).insert_axis(ndarray::Axis(0))
                },
            )
            .grad(false)
            .relative(),
        );
    }
    for (steps, rows, neurons) in [(1, 1, 5), (24, 1, 66), (32, 1, 3), (33, 2, 70), (64, 2, 1)] {
        cases.push(
            Case::new(
                format!("spiking/unpack_spikes_{steps}_{neurons}"),
                vec![ints(&[rows, neurons], 1 << 24)],
                move |t| t[0].unpack_spikes(steps),
                move |a| {
                    A::from_shape_fn(ndarray::IxDyn(&[steps, neurons]), |at| {
                        let word = a[0][[at[0] / 32, at[1]].as_slice()] as u32;
                        f64::from((word >> (at[0] % 32)) & 1)
                    })
                },
            )
            .grad(false),
        );
    }
    for shape in [&[32, 5][..], &[70, 2, 9]] {
        cases.push(
            Case::new(
                format!("spiking/unpack_spikes_of_pack_spikes_{shape:?}"),
                vec![range(shape, 0.0, 1.0)],
                |t| t[0].pack_spikes()?.unpack_spikes(t[0].dim(0)),
                |a| a[0].mapv(|v| if v > 0.5 { 1.0 } else { 0.0 }),
            )
            .grad(false),
        );
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = bit_cases();
    let default = LifOptions::default();
    // Few and many steps (beyond those kept in registers), neurons with and without groups of four, several workgroups.
    let shapes: &[&[usize]] = &[
        &[1],
        &[5],
        &[1, 4],
        &[3, 7],
        &[4, 2, 3, 4],
        &[1, 8],
        &[2, 12],
        &[3, 4],
        &[4, 260],
        &[5, 2, 4],
        &[6, 4],
        &[8, 8],
        &[16, 5],
        &[17, 8],
        &[2, 0],
        &[0, 3],
        &[5, 300],
        &[20, 67],
        &[40, 16],
        &[3, 2052],
    ];
    for &shape in shapes {
        for membrane in [false, true] {
            let name = format!("{shape:?}{}", if membrane { "_from" } else { "" });
            cases.push(
                Case::new(
                    format!("spiking/lif_{name}"),
                    inputs(shape, membrane),
                    move |t| {
                        if !membrane {
                            return t[0].lif(&t[1], &t[2], &default);
                        }
                        let (spikes, last) = t[0].lif_from(&t[4], &t[1], &t[2], &default)?;
                        let flat = |t: &Tensor| t.reshape(&[t.numel()]);
                        Tensor::concat(&[&flat(&spikes)?, &flat(&last)?], 0)
                    },
                    |a| {
                        let y = lif::lif_forward(&a[0], a.get(4), a[1].sum(), a[2].sum());
                        if a.len() > 4 { flat(&[&y.spikes, &y.membrane]) } else { y.spikes }
                    },
                )
                .grad(false),
            );
            cases.push(gradient_case(
                format!("spiking/lif_gradient_{name}"),
                inputs(shape, membrane),
                default,
                by_oracle,
            ));
        }
    }
    let surrogates =
        [Surrogate::Linear { gamma: 0.5 }, Surrogate::Atan { alpha: 2.0 }, Surrogate::Sigmoid { alpha: 4.0 }];
    for surrogate in surrogates {
        for reset in [Reset::Subtract, Reset::Zero] {
            for detach_reset in [true, false] {
                for (shape, membrane) in
                    // The first have kernels for their number of steps.
                    [1, 2, 3, 4, 5, 6, 8]
                        .iter()
                        .flat_map(|&steps| {
                            // And with work for a whole workgroup and more.
                            let many = (reset == Reset::Subtract && !detach_reset).then(|| (vec![steps, 300], false));
                            [(vec![steps, 8], false)].into_iter().chain(many)
                        })
                        .chain([
                            (vec![6, 9], false),
                            (vec![5, 2, 4], true),
                            (vec![19, 4], true),
                            (vec![18, 3], false),
                        ])
                {
                    let shape = &shape[..];
                    cases.push(gradient_case(
                        format!("spiking/lif_gradient_{surrogate:?}_{reset:?}_{detach_reset}_{shape:?}"),
                        inputs(shape, membrane),
                        LifOptions { surrogate, reset, detach_reset },
                        expected,
                    ));
                }
            }
        }
    }
    // By hand: threshold 1, leak 1/2, currents 0.6, 0.9, 0.2 give u = 0.6, 1.2, 0.3.
    cases.push(
        Case::new(
            "spiking/lif_gradient_by_hand",
            vec![fixed(&[0.6, 0.9, 0.2], &[3]), fixed(&[1.0], &[1]), fixed(&[0.5], &[1]), fixed(&[1.0; 3], &[3])],
            move |t| gradients(t, default),
            |_| array(&[5], &[0.3225, 0.285, 0.09, -0.468, 0.189]),
        )
        .grad(false),
    );
    cases
}
