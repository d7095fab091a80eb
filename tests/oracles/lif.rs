use crate::oracle::array;
use crate::oracle::lif::*;
use crate::{close, dot, near, noise};

#[test]
fn three_steps_by_hand() {
    let a = array(&[3], &[0.6, 0.9, 0.2]);
    let f = lif_forward(&a, None, 1.0, 0.5);
    close(&f.potential, &array(&[3], &[0.6, 1.2, 0.3]), 1e-15);
    close(&f.spikes, &array(&[3], &[0.0, 1.0, 0.0]), 0.0);
    close(&f.membrane, &array(&[], &[0.3]), 1e-15);
    let g = lif_backward(&a, None, 1.0, 0.5, 0.3, &array(&[3], &[1.0; 3]), None);
    close(&g.current, &array(&[3], &[0.3225, 0.285, 0.09]), 1e-15);
    close(&g.threshold, &array(&[], &[-0.468]), 1e-15);
    close(&g.leak, &array(&[], &[0.189]), 1e-15);
}

#[test]
fn five_steps_of_the_paper_notes() {
    let a = array(&[5], &[0.5, 0.7, 0.3, 1.4, 0.1]);
    let f = lif_forward(&a, None, 0.8, 0.9);
    close(&f.potential, &array(&[5], &[0.5, 1.15, 0.615, 1.9535, 1.13815]), 1e-14);
    close(&f.membrane, &array(&[], &[0.33815]), 1e-14);
    let g = lif_backward(&a, None, 0.8, 0.9, 0.3, &array(&[5], &[1.0, -2.0, 0.5, 1.0, 2.0]), None);
    let expected = [0.2555224547, 0.0234971719, 0.4948579688, 0.3896859375, 0.4329843750];
    close(&g.current, &array(&[5], &expected), 1e-10);
    close(&g.threshold, &array(&[], &[-1.1019067354]), 1e-10);
    close(&g.leak, &array(&[], &[0.9240532031]), 1e-10);
}

#[test]
fn spike_counts_of_a_constant_current() {
    for (a, v, t, count) in [(0.25, 1.0, 10, 2.0), (1.0, 1.0, 5, 4.0), (1.75, 1.0, 5, 5.0), (-0.2, 1.0, 5, 0.0)] {
        let f = lif_forward(&array(&[t], &vec![a; t]), None, v, 1.0);
        assert_eq!(f.spikes.sum(), count);
        near(a * t as f64, f.membrane.sum() + v * count, 1e-12);
    }
}

#[test]
fn split_sequences_chain() {
    let (a, go, gm) = (noise(&[4, 3]), noise(&[4, 3]), noise(&[3]));
    let part = |x: &crate::A, from: usize| crate::oracle::index::slice(x, 0, from, from + 2, 1);
    let whole = lif_backward(&a, None, 0.7, 0.8, 0.3, &go, Some(&gm));
    let middle = lif_forward(&part(&a, 0), None, 0.7, 0.8).membrane;
    let late = lif_backward(&part(&a, 2), Some(&middle), 0.7, 0.8, 0.3, &part(&go, 2), Some(&gm));
    let early = lif_backward(&part(&a, 0), None, 0.7, 0.8, 0.3, &part(&go, 0), Some(&late.mem0));
    close(&part(&whole.current, 2), &late.current, 1e-15);
    close(&part(&whole.current, 0), &early.current, 1e-15);
    close(&whole.threshold, &(late.threshold + early.threshold), 1e-14);
    close(&whole.leak, &(late.leak + early.leak), 1e-14);
}

#[test]
fn scaling_currents_and_threshold_together_changes_nothing() {
    // Euler's identity for a function of degree 0: it fails if a term of the threshold's gradient is missing.
    let (a, go) = (noise(&[5, 4]), noise(&[5, 4]));
    let g = lif_backward(&a, None, 0.6, 0.9, 0.3, &go, None);
    near(dot(&a, &g.current) + 0.6 * g.threshold.sum(), 0.0, 1e-13);
}
