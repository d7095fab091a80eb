use crate::oracle::random::*;
use crate::oracle::{A, array};
use crate::{close, near};

const S: Stream = Stream { seed: 0x299f_31d0_a409_3822, stream: 5 };

#[test]
fn published_vectors() {
    // The three vectors for philox4x32-10 that Random123 publishes.
    let zero = philox4x32_10([0; 4], [0; 2]);
    assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = philox4x32_10([u32::MAX; 4], [u32::MAX; 2]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn words_follow_the_counter() {
    let w = words(S, 10);
    assert_eq!(w[..4], philox4x32_10([0, 0, 5, 0], [0xa409_3822, 0x299f_31d0]));
    assert_eq!(w[8..], philox4x32_10([2, 0, 5, 0], [0xa409_3822, 0x299f_31d0])[..2]);
    assert_eq!(words(S, 3), w[..3]);
}

#[test]
fn moments() {
    let u = uniform(&[100, 100], S);
    assert!(u.iter().all(|&u| (0.0..1.0).contains(&u) && (u * 16_777_216.0).fract() == 0.0));
    near(u.sum() / 1e4, 0.5, 0.01);
    let n = normal(&[9_999], S);
    near(n.sum() / 9_999.0, 0.0, 0.04);
    near(n.mapv(|v| v * v).sum() / 9_999.0, 1.0, 0.05);
    near(n.mapv(|v| v.powi(4)).sum() / 9_999.0, 3.0, 0.4);
}

#[test]
fn bernoulli_is_uniform_below_p() {
    let u = uniform(&[1000], S);
    for p in [0.0, 0.3, 0.5, 1.0, u[77]] {
        close(&bernoulli(&[1000], p, S), &u.mapv(|u| if u < p { 1.0 } else { 0.0 }), 0.0);
    }
}

#[test]
fn permutations_hold_every_index() {
    let p = permutation(1000, S);
    let mut sorted = p.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().enumerate().all(|(i, &v)| i == v));
    assert_ne!(p, sorted);
    assert_ne!(p, permutation(1000, Stream { stream: 6, ..S }));
    assert!(permutation(0, S).is_empty());
}

#[test]
fn dropping() {
    let x = array(&[1000, 2], &[1.0; 2000]);
    let y = dropout(&x, 0.25, S);
    close(&y, &bernoulli(&[1000, 2], 0.25, S).mapv(|d| (1.0 - d) / 0.75), 0.0);
    near(y.sum() / 2000.0, 1.0, 0.05);
    let paths = drop_path(&x, 0.25, S);
    assert!(paths.rows().into_iter().all(|row| row[0] == row[1]));
    let kept = bernoulli(&[1000, 1], 0.25, S).mapv(|d| (1.0 - d) / 0.75);
    close(&paths, &(x.clone() * kept), 0.0);
    close(&dropout(&x, 0.0, S), &x, 0.0);
    close(&dropout(&x, 1.0, S), &A::zeros(x.raw_dim()), 0.0);
}
