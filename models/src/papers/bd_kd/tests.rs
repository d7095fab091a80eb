//! Divergences, weights, losses and gradients of two samples in numbers; measures of calibration by hand.

use shadegrad::autograd::grad;
use shadegrad::data::digits;
use shadegrad::nn::Builder;
use shadegrad::{Gpu, Tensor};

use super::*;
use crate::papers::testing::gpu;
use crate::{Spec, create};

const TEACHER: [f32; 6] = [2.0, 0.0, -1.0, 0.5, 0.2, 0.0];
const STUDENT: [f32; 6] = [1.0, 0.5, 0.0, 3.0, 0.0, 0.0];

fn logits() -> (Gpu, Tensor, Tensor, Tensor) {
    let gpu = gpu();
    let of = |v: &[f32]| Tensor::from_slice(&gpu, v, &[2, 3]).unwrap().leaf();
    let (s, t) = (of(&STUDENT), of(&TEACHER));
    let labels = Tensor::from_u32(&gpu, &[0, 0], &[2]).unwrap();
    (gpu, s, t, labels)
}

fn bd(mode: Mode, nu: f32, tau: f32) -> BdKd {
    BdKd::new(BdKdConfig { mode, nu, tau, ..BdKdConfig::default() }).unwrap()
}

fn close(got: &Tensor, want: &[f64]) {
    let got = got.to_vec().unwrap();
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() < 2e-6 * (1.0 + w.abs()), "{got:?}\n{want:?}");
    }
}

#[test]
fn divergences_and_weights() {
    let (_, s, t, _) = logits();
    let d = bd(Mode::Balanced, 3.0, 1.0).divergences(&s, &t).unwrap();
    close(&d.forward, &[0.255111, 0.739725]);
    close(&d.reverse, &[0.323018, 0.522915]);
    // Entropies are 0.524267 and 1.077161 of the teacher, 1.020191 and 0.366594 of the student.
    close(&d.sharper, &[0.0, 1.0]);
    close(&d.flatter, &[1.0, 0.0]);
    let d = bd(Mode::Balanced, 3.0, 2.0).divergences(&s, &t).unwrap();
    close(&d.forward, &[0.091307, 0.207424]);
    close(&d.reverse, &[0.094178, 0.200482]);
}

#[test]
fn probabilities_of_the_example() {
    let (_, s, t, _) = logits();
    let p = [0.843795, 0.114195, 0.042010, 0.426013, 0.315598, 0.258390];
    close(&t.softmax(1).unwrap(), &p);
    close(&s.softmax(1).unwrap(), &[0.506480, 0.307196, 0.186324, 0.909443, 0.045279, 0.045279]);
}

#[test]
fn losses_of_both() {
    let (_, s, t, labels) = logits();
    let l = bd(Mode::Balanced, 3.0, 1.0).losses(&s, &t, &labels).unwrap();
    close(&l.student, &[2.370723]);
    close(&l.teacher, &[0.934533]);
    close(&l.sharper, &[0.5]);
    close(&bd(Mode::LabelsOnly, 1.0, 1.0).losses(&s, &t, &labels).unwrap().student, &[0.387597]);
}

/// Gradient of the mean over the batch of what `mode` adds to the labels' loss.
fn student_gradient(mode: Mode, nu: f32, tau: f32) -> Vec<f64> {
    let (_, s, t, labels) = logits();
    let with = |mode| {
        let loss = bd(mode, nu, tau).losses(&s, &t, &labels).unwrap().student;
        grad(&loss, &[&s]).unwrap()[0].to_vec().unwrap()
    };
    with(mode).iter().zip(with(Mode::LabelsOnly)).map(|(a, b)| f64::from(a - b)).collect()
}

#[test]
fn gradients() {
    let forward = [-0.337314, 0.193001, 0.144314, 0.483430, -0.270319, -0.213111];
    let reverse = [-0.422122, 0.204764, 0.217358, 0.214127, -0.111591, -0.102536];
    let balanced = [-0.801840, 0.403646, 0.398193, 0.832209, -0.461275, -0.370934];
    let hot = [-0.418606, 0.190544, 0.228062, 0.625160, -0.343611, -0.281549];
    for (mode, nu, tau, scale, want) in [
        (Mode::Forward, 1.0, 1.0, 0.5, forward),
        (Mode::Reverse, 1.0, 1.0, 0.5, reverse),
        (Mode::Balanced, 3.0, 1.0, 1.0, balanced),
        (Mode::Forward, 1.0, 2.0, 0.5, hot),
    ] {
        let got = student_gradient(mode, nu, tau);
        for (g, w) in got.iter().zip(want) {
            assert!((g - scale * w).abs() < 2e-6, "{mode:?} {tau}: {got:?}");
        }
        assert!(got.chunks(3).all(|row| row.iter().sum::<f64>().abs() < 1e-6));
    }
    // The teacher's is the negative of the forward one.
    let (_, s, t, labels) = logits();
    let with = |mode| {
        let loss = bd(mode, 1.0, 1.0).losses(&s, &t, &labels).unwrap().teacher;
        grad(&loss, &[&t]).unwrap()[0].to_vec().unwrap()
    };
    for ((a, b), f) in with(Mode::Both).iter().zip(with(Mode::LabelsOnly)).zip(forward) {
        assert!((f64::from(a - b) + 0.5 * f).abs() < 2e-6);
    }
}

#[test]
fn neither_network_gets_the_others_gradient() {
    let (_, s, t, labels) = logits();
    let l = bd(Mode::Balanced, 2.0, 1.0).losses(&s, &t, &labels).unwrap();
    let both = l.student.add(&l.teacher).unwrap();
    let sum = grad(&both, &[&s, &t]).unwrap();
    let l = bd(Mode::Balanced, 2.0, 1.0).losses(&s, &t, &labels).unwrap();
    assert_eq!(grad(&l.student, &[&s]).unwrap()[0].to_vec().unwrap(), sum[0].to_vec().unwrap());
    assert_eq!(grad(&l.teacher, &[&t]).unwrap()[0].to_vec().unwrap(), sum[1].to_vec().unwrap());
    let l = bd(Mode::Balanced, 2.0, 1.0).losses(&s, &t, &labels).unwrap();
    // Not connected at all: asking is an error that says so.
    assert!(grad(&l.student, &[&t]).is_err() && grad(&l.teacher, &[&s]).is_err());
}

#[test]
fn invariances() {
    let (gpu, s, t, labels) = logits();
    let shifted = s.add_scalar(7.0).unwrap();
    let loss = |bd: BdKd, s: &Tensor| bd.losses(s, &t, &labels).unwrap().student.item().unwrap();
    let balanced = bd(Mode::Balanced, 3.0, 1.0);
    assert!((loss(balanced, &s) - loss(balanced, &shifted)).abs() < 1e-5);
    assert_eq!(loss(bd(Mode::Balanced, 1.0, 1.0), &s), loss(bd(Mode::Both, 1.0, 1.0), &s));
    let same = Tensor::from_slice(&gpu, &TEACHER, &[2, 3]).unwrap().leaf();
    let d = balanced.divergences(&same, &t).unwrap();
    for zero in [&d.forward, &d.reverse, &d.sharper, &d.flatter] {
        close(zero, &[0.0, 0.0]);
    }
    let gap = grad(&d.forward.add(&d.reverse).unwrap().sum(&[0], false).unwrap(), &[&same]).unwrap();
    close(&gap[0], &[0.0; 6]);
}

#[test]
fn several_networks_are_averaged() {
    let (_, s, t, labels) = logits();
    let b = bd(Mode::Balanced, 2.0, 1.0);
    let one = b.student_loss(&s, &[&t], &labels).unwrap().item().unwrap();
    let twice = b.student_loss(&s, &[&t, &t], &labels).unwrap().item().unwrap();
    assert!((one - twice).abs() < 1e-6);
    let with_itself = b.student_loss(&s, &[&t, &s], &labels).unwrap().item().unwrap();
    let alone = bd(Mode::LabelsOnly, 1.0, 1.0).student_loss(&s, &[&t], &labels).unwrap().item().unwrap();
    assert!((with_itself - 0.5 * (one + alone)).abs() < 1e-6);
    assert!(b.student_loss(&s, &[], &labels).unwrap_err().to_string().contains("no other network"));
}

/// Probabilities of ten classes, of which the first has `confidence` and the others share what is left; right where the
/// label is the first.
fn ten_classes(confidence: &[f32], right: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let rows = confidence.iter().flat_map(|&c| {
        let rest = (1.0 - c) / 9.0;
        std::iter::once(c).chain([rest; 9])
    });
    (rows.collect(), right.iter().map(|&r| 1 - r).collect())
}

#[test]
fn calibration_errors_by_hand() {
    let (p, labels) = ten_classes(&[0.95, 0.92, 0.83, 0.72, 0.66, 0.55, 0.35, 0.31], &[1, 1, 0, 1, 0, 1, 0, 1]);
    let with = |bins| Calibration::from_probabilities(&p, 10, &labels, bins).unwrap();
    for (bins, want) in [(5, 0.233750), (15, 0.423750), (1, 0.036250)] {
        assert!((with(bins).ece() - want).abs() < 1e-6, "{bins}: {}", with(bins).ece());
    }
    assert!((with(5).mce() - 0.45).abs() < 1e-6);
    assert!((with(5).adaptive_ece(4).unwrap() - 0.153750).abs() < 1e-6);
    assert!((with(5).overconfidence() - 0.036250).abs() < 1e-6);
    assert_eq!(with(5).accuracy(), 0.625);
    let seen = shadegrad::metrics::ece(shadegrad::metrics::Scores::probabilities(&p, 10), &labels, 15).unwrap();
    assert!((seen - with(15).ece()).abs() < 1e-12);
}

#[test]
fn other_measures_by_hand() {
    let p = [0.7, 0.19, 0.11, 0.1, 0.51, 0.39];
    let c = Calibration::from_probabilities(&p, 3, &[0, 2], 5).unwrap();
    assert!((c.nll() - 0.649142).abs() < 1e-6 && (c.brier() - 0.390200).abs() < 1e-6, "{} {}", c.nll(), c.brier());
    assert!((c.classwise_ece(5).unwrap() - 0.303333).abs() < 1e-6, "{}", c.classwise_ece(5).unwrap());
}

#[test]
fn temperature_of_four_samples() {
    let logits = [2.0, 0.0].repeat(4);
    let labels = [0, 0, 0, 1];
    let scaler = TemperatureScaler::fit(&logits, 2, &labels).unwrap();
    assert!((scaler.temperature() - 2.0 / 3f64.ln()).abs() < 1e-5, "{}", scaler.temperature());
    let nll = |z: &[f32]| Calibration::from_logits(z, 2, &labels, 15).unwrap().nll();
    assert!((nll(&logits) - 0.626928).abs() < 1e-6);
    assert!((nll(&scaler.apply(&logits)) - 0.562335).abs() < 1e-6);
    let accuracy = |z: &[f32]| Calibration::from_logits(z, 2, &labels, 15).unwrap().accuracy();
    assert_eq!(accuracy(&logits), accuracy(&scaler.apply(&logits)));
}

#[test]
fn a_pair_trains_on_the_users_models() {
    let gpu = gpu();
    let data = digits().train.first_per_class(40).unwrap();
    let images = Images::upload(&gpu, &data, &data.channel_stats().unwrap()).unwrap();
    let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    let run = || {
        let (mut large, mut small) = (Builder::new(), Builder::new());
        let teacher = create("cnn", &mut large.root(), &spec).unwrap();
        let student = create("mlp", &mut small.root(), &spec).unwrap();
        let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        let mut pair = OnlineDistiller {
            teacher: Learner::new(teacher.as_ref(), Arena::new(&gpu, &large, 0).unwrap(), rule).unwrap(),
            student: Learner::new(student.as_ref(), Arena::new(&gpu, &small, 1).unwrap(), rule).unwrap(),
            loss: bd(Mode::Balanced, 2.0, 1.0),
        };
        let mut losses = Vec::new();
        pair.fit(&images, 6, 50, 0, |_, _| 0.05, |_, e| {
            losses.push((e.student, e.teacher, e.sharper));
            Ok(())
        })
        .unwrap();
        losses
    };
    let losses = run();
    assert!(losses[5].0 < 0.6 * losses[0].0 && losses[5].1 < 0.6 * losses[0].1, "{losses:?}");
    assert!(losses.iter().all(|l| (0.0..=1.0).contains(&l.2)));
    assert_eq!(losses, run());
}

#[test]
fn mistakes_are_errors() {
    let good = BdKdConfig::default();
    for wrong in [
        BdKdConfig { nu: 0.5, ..good },
        BdKdConfig { tau: 0.0, ..good },
        BdKdConfig { lambda: -1.0, ..good },
        BdKdConfig { lambda_teacher: f32::NAN, ..good },
    ] {
        assert!(BdKd::new(wrong).unwrap_err().to_string().contains("nu is at least 1"));
    }
    let (gpu, s, _, labels) = logits();
    let other = Tensor::zeros(&gpu, &[2, 4]).unwrap();
    let err = bd(Mode::Both, 1.0, 1.0).losses(&s, &other, &labels).unwrap_err().to_string();
    assert!(err.contains("[2, 3]") && err.contains("[2, 4]"), "{err}");
    assert!(Calibration::from_logits(&[0.0, 1.0], 2, &[2], 15).is_err());
    assert!(Calibration::from_logits(&[0.0, f32::NAN], 2, &[1], 15).is_err());
    assert!(Calibration::from_logits(&[0.0, 1.0], 2, &[1], 0).is_err());
    assert!(TemperatureScaler::fit(&[], 2, &[]).is_err());
}
