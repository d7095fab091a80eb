//! Counter-based random numbers on the host: Philox4x32-10.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A counter-based
//! generator is a function of a key and a counter with no hidden state: draw number `n` of a stream can be computed
//! without drawing the ones before, the same seed gives the same bits on every machine, and the whole state that a
//! checkpoint has to keep is one position.

/// Multipliers of the two products of a round.
const MUL: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the two key words after each round (the golden ratio and the square root of 3, less one, as binary
/// fractions).
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The Philox4x32-10 block function: four random words of a 128-bit counter under a 64-bit key.
///
/// Words are in the order of the Random123 library, so its published known answers hold.
///
/// ```
/// # use shadegrad::rng::philox4x32_10;
/// assert_eq!(philox4x32_10([0; 4], [0; 2])[0], 0x6627_e8d5);
/// ```
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(MUL[0]) * u64::from(x0);
        let p1 = u64::from(MUL[1]) * u64::from(x2);
        (x0, x1, x2, x3) = ((p1 >> 32) as u32 ^ x1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ x3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [x0, x1, x2, x3]
}

/// The name of a sequence of random words: those of [`Philox::new`] with the same two numbers. Streams of one seed are
/// independent, so a layer takes one stream per step, made from its own number and the step's.
///
/// ```
/// # use shadegrad::rng::Stream;
/// // One for each step: the same words whenever that step runs.
/// let of_step = |step: u64| Stream { seed: 7, stream: step };
/// assert_eq!(of_step(3).philox().next_u64(), of_step(3).philox().next_u64());
/// assert_ne!(of_step(3).philox().next_u64(), of_step(4).philox().next_u64());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Key of the whole run.
    pub seed: u64,
    /// Which sequence under that key.
    pub stream: u64,
}

impl Stream {
    /// The stream `stream` of `seed`.
    ///
    /// ```
    /// # use shadegrad::rng::Stream;
    /// assert_eq!(Stream::new(7, 2), Stream { seed: 7, stream: 2 });
    /// ```
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream }
    }

    /// The generator at the start of the stream.
    ///
    /// ```
    /// # use shadegrad::rng::{Philox, Stream};
    /// let mut rng = Stream::new(7, 2).philox();
    /// assert_eq!(rng, Philox::new(7, 2));
    /// assert!((0.0..1.0).contains(&rng.uniform()));
    /// ```
    pub fn philox(self) -> Philox {
        Philox::new(self.seed, self.stream)
    }

    /// The `i`-th stream of a family named by this one. Distinct pairs of stream and `i` below 2^32 give distinct
    /// streams.
    ///
    /// ```
    /// # use shadegrad::rng::Stream;
    /// let epoch = Stream::new(7, 2); // its batches have streams of their own
    /// assert_eq!(epoch.child(5), Stream::new(7, (2 << 32) | 5));
    /// assert_ne!(epoch.child(0), epoch.child(1));
    /// ```
    #[must_use]
    pub fn child(self, i: u32) -> Self {
        Self { seed: self.seed, stream: (self.stream << 32) | u64::from(i) }
    }
}

/// A stream of random numbers: `seed` is the Philox key, `stream` the upper half of the counter, the position in the
/// stream the lower.
///
/// Two streams of one seed never overlap (each holds 2^64 words before its position wraps). Word `n` is word `n % 4` of
/// `philox4x32_10([b, b >> 32, stream, stream >> 32], [seed, seed >> 32])` with `b = n / 4`.
///
/// ```
/// # use shadegrad::rng::{Philox, philox4x32_10};
/// let mut rng = Philox::new(0, 0);
/// let words = [rng.next_u32(), rng.next_u32(), rng.next_u32(), rng.next_u32()];
/// assert_eq!(words, philox4x32_10([0; 4], [0; 2]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Philox {
    seed: u64,
    stream: u64,
    position: u64,
    block: [u32; 4],
}

impl Philox {
    /// The stream `stream` of `seed`, at its start.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let (mut a, mut b) = (Philox::new(7, 0), Philox::new(7, 1)); // two streams of one seed
    /// assert_ne!(a.next_u64(), b.next_u64());
    /// ```
    pub fn new(seed: u64, stream: u64) -> Self {
        Self::at(seed, stream, 0)
    }

    /// The stream `stream` of `seed` after `position` words have been drawn: continues what [`Philox::position`] saved.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// rng.normal(); // four words
    /// let saved = rng.position();
    /// assert_eq!(Philox::at(7, 0, saved).next_u32(), rng.next_u32());
    /// ```
    pub fn at(seed: u64, stream: u64, position: u64) -> Self {
        let mut rng = Self { seed, stream, position, block: [0; 4] };
        rng.fill_block();
        rng
    }

    /// How many 32-bit words have been drawn from the start of the stream.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// (rng.next_u32(), rng.next_u64(), rng.normal());
    /// assert_eq!(rng.position(), 1 + 2 + 4);
    /// ```
    pub fn position(&self) -> u64 {
        self.position
    }

    fn fill_block(&mut self) {
        let b = self.position / 4;
        let counter = [b as u32, (b >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        self.block = philox4x32_10(counter, [self.seed as u32, (self.seed >> 32) as u32]);
    }

    /// The next 32 random bits.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(0, 0);
    /// assert_eq!([rng.next_u32(), rng.next_u32()], [0x6627_e8d5, 0xe169_c58d]);
    /// ```
    pub fn next_u32(&mut self) -> u32 {
        let word = self.block[(self.position % 4) as usize];
        self.position = self.position.wrapping_add(1);
        if self.position.is_multiple_of(4) {
            self.fill_block();
        }
        word
    }

    /// The next 64 random bits (two words, the first one low).
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// assert_eq!(Philox::new(0, 0).next_u64(), 0xe169_c58d_6627_e8d5);
    /// ```
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1) with 24 bits: every value is a multiple of 2^-24, exact in `f32`, and the same on a GPU.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// // The upper 24 bits of the word 0x6627_e8d5.
    /// assert_eq!(Philox::new(0, 0).uniform(), 0x66_27e8 as f32 / 16_777_216.0);
    /// ```
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1) with 53 bits.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// let mean = (0..1000).map(|_| rng.uniform_f64()).sum::<f64>() / 1000.0;
    /// assert!((mean - 0.5).abs() < 0.05);
    /// ```
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform among `0..n`, without bias: a draw that falls into the incomplete last cycle of `n` is drawn again
    /// (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// let dice: Vec<u32> = (0..100).map(|_| 1 + rng.below(6)).collect();
    /// assert!((1..=6).all(|face| dice.contains(&face)) && dice.iter().all(|d| *d <= 6));
    /// ```
    ///
    /// # Panics
    /// When `n` is 0: there is nothing to choose from.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "Philox::below: n is 0, there is nothing to choose from; check for an empty set first");
        let reject_under = n.wrapping_neg() % n;
        loop {
            let wide = u64::from(self.next_u32()) * u64::from(n);
            if wide as u32 >= reject_under {
                return (wide >> 32) as u32;
            }
        }
    }

    /// Two independent standard normal numbers from four words (Box and Muller, 1958), with 53-bit uniforms.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// let (x, y) = rng.normal_pair(); // a point in the plane, by all directions alike
    /// assert_eq!((x, rng.position()), (Philox::new(7, 0).normal(), 4));
    /// assert_ne!(x, y);
    /// ```
    pub fn normal_pair(&mut self) -> (f64, f64) {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform_f64()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// One standard normal number. Uses four words and keeps nothing back, so that the position stays the whole state;
    /// [`Philox::fill_normal`] wastes none.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut rng = Philox::new(7, 0);
    /// let within = (0..1000).filter(|_| rng.normal().abs() < 1.0).count();
    /// assert!((600..760).contains(&within), "{within}"); // 68 of 100 are expected
    /// ```
    pub fn normal(&mut self) -> f64 {
        self.normal_pair().0
    }

    /// Fills `out` with uniform numbers in `[low, high)`.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut weights = [0.0; 64];
    /// Philox::new(7, 0).fill_uniform(&mut weights, -0.1, 0.1);
    /// assert!(weights.iter().all(|w| (-0.1..0.1).contains(w)));
    /// ```
    pub fn fill_uniform(&mut self, out: &mut [f32], low: f32, high: f32) {
        let (base, width) = (f64::from(low), f64::from(high) - f64::from(low));
        for v in out {
            let x = (base + width * f64::from(self.uniform())) as f32;
            // Rounding to f32 may land on `high`; the interval is half open.
            *v = if x >= high && high > low { high.next_down() } else { x };
        }
    }

    /// Fills `out` with normal numbers of the given mean and standard deviation.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut heights = [0.0; 10_000];
    /// Philox::new(7, 0).fill_normal(&mut heights, 175.0, 7.0);
    /// assert!((heights.iter().sum::<f32>() / 10_000.0 - 175.0).abs() < 0.5);
    /// ```
    pub fn fill_normal(&mut self, out: &mut [f32], mean: f64, std: f64) {
        for pair in out.chunks_mut(2) {
            let (a, b) = self.normal_pair();
            pair[0] = (mean + std * a) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (mean + std * b) as f32;
            }
        }
    }

    /// Shuffles a slice in place: Fisher and Yates, each order equally likely.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut names = ["a", "b", "c", "d"];
    /// Philox::new(7, 0).shuffle(&mut names);
    /// names.sort();
    /// assert_eq!(names, ["a", "b", "c", "d"]); // each is still there
    /// ```
    ///
    /// # Panics
    /// When the slice holds more than `u32::MAX` elements.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        assert!(u32::try_from(items.len()).is_ok(), "Philox::shuffle: {} elements, at most 2^32 - 1 fit", items.len());
        for i in (1..items.len()).rev() {
            let j = self.below(i as u32 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// The numbers `0..n` in random order.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// let mut order = Philox::new(7, 0).permutation(5);
    /// assert_eq!(order, Philox::new(7, 0).permutation(5));
    /// order.sort();
    /// assert_eq!(order, [0, 1, 2, 3, 4]);
    /// ```
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        // The three philox4x32 10 lines of the file kat_vectors of the Random123 distribution (1.14.0).
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    #[test]
    fn position_is_the_whole_state() {
        let mut a = Philox::new(7, 3);
        for _ in 0..13 {
            a.next_u32();
        }
        a.normal();
        a.below(10);
        let mut b = Philox::at(7, 3, a.position());
        assert_eq!(a, b);
        assert_eq!((0..9).map(|_| a.next_u32()).collect::<Vec<_>>(), (0..9).map(|_| b.next_u32()).collect::<Vec<_>>());
    }

    #[test]
    fn stream_words_are_the_documented_blocks() {
        let (seed, stream) = (0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210_u64);
        let mut rng = Philox::new(seed, stream);
        let words: Vec<u32> = (0..8).map(|_| rng.next_u32()).collect();
        for b in 0..2 {
            let want = philox4x32_10([b, 0, 0x7654_3210, 0xfedc_ba98], [0x89ab_cdef, 0x0123_4567]);
            assert_eq!(words[4 * b as usize..][..4], want);
        }
        assert_ne!(Philox::new(1, 0).next_u64(), Philox::new(0, 1).next_u64());
        // The block number crosses into the second counter word.
        let far = Philox::at(seed, stream, 1 << 34).next_u32();
        assert_eq!(far, philox4x32_10([0, 1, 0x7654_3210, 0xfedc_ba98], [0x89ab_cdef, 0x0123_4567])[0]);
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut rng = Philox::new(1, 1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Chi-squared with 6 degrees of freedom: 22.5 is passed once in a thousand seeds.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 22.5, "{counts:?}");
        assert!((0..100).all(|_| rng.below(1) == 0));
        // Just over half the range: nearly every second word is rejected, and the mean stays in the middle.
        let n = (1 << 31) + 1;
        let mean = (0..20_000).map(|_| f64::from(rng.below(n))).sum::<f64>() / 20_000.0 / f64::from(n);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }

    #[test]
    #[should_panic(expected = "nothing to choose from")]
    fn below_zero_panics() {
        Philox::new(0, 0).below(0);
    }

    #[test]
    fn uniform_and_normal_moments() {
        let mut rng = Philox::new(3, 0);
        let mut u = vec![0.0; 40_000];
        rng.fill_uniform(&mut u, -2.0, 2.0);
        assert!(u.iter().all(|v| (-2.0..2.0).contains(v)));
        let mean = u.iter().map(|&v| f64::from(v)).sum::<f64>() / 4e4;
        assert!(mean.abs() < 0.03, "{mean}");
        let mut z = vec![0.0; 40_001];
        rng.fill_normal(&mut z, 1.0, 2.0);
        let n = z.len() as f64;
        let mean = z.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let central = |p: i32| z.iter().map(|&v| (f64::from(v) - mean).powi(p)).sum::<f64>() / n;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert!((central(2) - 4.0).abs() < 0.15, "{}", central(2));
        assert!((central(4) / central(2).powi(2) - 3.0).abs() < 0.15);
        let x = Philox::new(9, 9).uniform();
        assert_eq!(x * 16_777_216.0, (x * 16_777_216.0).trunc());
    }

    #[test]
    fn permutations_are_permutations() {
        let mut p = Philox::new(5, 2).permutation(1000);
        assert_ne!(p, (0..1000).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..1000).collect::<Vec<_>>());
        assert!(Philox::new(5, 2).permutation(0).is_empty());
        // All six orders of three, about equally often.
        let mut counts = std::collections::HashMap::new();
        let mut rng = Philox::new(11, 0);
        for _ in 0..6000 {
            *counts.entry(rng.permutation(3)).or_insert(0u32) += 1;
        }
        assert!(counts.len() == 6 && counts.values().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}
