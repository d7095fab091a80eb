//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011), and what is made
//! of its words.
//!
//! Word `i` of a stream is word `i % 4` of the block with the counter
//! `[i/4 low, i/4 high, stream low, stream high]` (32 bits each) under the key `[seed low, seed high]`.
//! Element `i` (row-major) of every sample takes word `i`, except that normals come in pairs.

use super::{A, array};
use std::f64::consts::TAU;

/// One number names a sequence: streams of one seed are independent.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub seed: u64,
    pub stream: u64,
}

/// The block of four words at `counter` under `key`: ten rounds of two 32 x 32 -> 64 bit products.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    for _ in 0..10 {
        let (high0, low0) = product(0xD251_1F53, counter[0]);
        let (high1, low1) = product(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        // The key schedule: the golden ratio and sqrt(3) - 1 in 32 bits.
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The first `n` words of a stream.
pub fn words(s: Stream, n: usize) -> Vec<u32> {
    let halves = |x: u64| [x as u32, (x >> 32) as u32];
    let block = |b: u64| {
        let ([b0, b1], [s0, s1]) = (halves(b), halves(s.stream));
        philox4x32_10([b0, b1, s0, s1], halves(s.seed))
    };
    (0..n.div_ceil(4) as u64).flat_map(block).take(n).collect()
}

/// The upper 24 bits of a word as a number in [0, 1): exact in f32.
fn unit(word: u32) -> f64 {
    f64::from(word >> 8) / f64::from(1 << 24)
}

/// Uniform in [0, 1).
pub fn uniform(shape: &[usize], s: Stream) -> A {
    let n = shape.iter().product();
    array(shape, &words(s, n).into_iter().map(unit).collect::<Vec<_>>())
}

/// 1 with probability `p`, else 0: whether the upper 24 bits of the word are below `ceil(p 2^24)`, which is
/// the same as [`uniform`] below `p`.
pub fn bernoulli(shape: &[usize], p: f64, s: Stream) -> A {
    let threshold = (p * f64::from(1 << 24)).ceil() as u32;
    let n = shape.iter().product();
    array(shape, &words(s, n).into_iter().map(|w| if w >> 8 < threshold { 1.0 } else { 0.0 }).collect::<Vec<_>>())
}

/// Standard normals by Box and Muller: with `a`, `b` the units of words 2i and 2i + 1, elements 2i and
/// 2i + 1 are `r cos(2 pi b)` and `r sin(2 pi b)`, `r = sqrt(-2 log(a + 2^-24))`. The shift keeps the
/// logarithm finite.
pub fn normal(shape: &[usize], s: Stream) -> A {
    let n: usize = shape.iter().product();
    let pairs = words(s, n.next_multiple_of(2));
    let values = pairs.chunks(2).flat_map(|w| {
        let r = (-2.0 * (unit(w[0]) + 1.0 / f64::from(1 << 24)).ln()).sqrt();
        let angle = TAU * unit(w[1]);
        [r * angle.cos(), r * angle.sin()]
    });
    array(shape, &values.take(n).collect::<Vec<_>>())
}

/// A permutation of `0..n`: the order that stably sorts `uniform(n)`.
pub fn permutation(n: usize, s: Stream) -> Vec<usize> {
    super::scan::sort(&uniform(&[n], s), 0, false).1.into_iter().collect()
}

/// Zero where `uniform < p`, elsewhere `x / (1 - p)`.
pub fn dropout(x: &A, p: f64, s: Stream) -> A {
    drop_by(x, &bernoulli(x.shape(), p, s), p)
}

/// [`dropout`] of whole samples: one number for each index of the first axis.
pub fn drop_path(x: &A, p: f64, s: Stream) -> A {
    let mut shape = vec![1; x.ndim()];
    shape[0] = x.shape()[0];
    drop_by(x, &bernoulli(&shape, p, s), p)
}

fn drop_by(x: &A, dropped: &A, p: f64) -> A {
    super::elementwise::binary(x, dropped, |x, dropped| if dropped == 1.0 { 0.0 } else { x / (1.0 - p) })
}
