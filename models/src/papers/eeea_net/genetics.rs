//! Variation and selection of chromosomes: lists of integers as [`super::Genotype::to_chromosome`] gives them.

use shadegrad::rng::Philox;

use super::{Op, nsga2};

/// Values that the gene at `at` may take (from 0) in a chromosome of this length: operations, or the states that its block
/// may read.
///
/// ```
/// use shadegrad_models::papers::eeea_net::genetics::values;
/// // Of two blocks a cell: an operation, the state of a first block, and that of a second.
/// assert_eq!([0, 1, 5].map(|at| values(at, 16)), [10, 1, 2]);
/// ```
pub fn values(at: usize, length: usize) -> usize {
    let block = at % (length / 2) / 4;
    if at.is_multiple_of(2) { Op::ALL.len() } else { block + 1 }
}

/// A uniformly random chromosome for this many blocks a cell.
///
/// ```
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::genetics::random;
/// use shadegrad_models::papers::eeea_net::Genotype;
/// let genes = random(2, &mut Philox::new(0, 0));
/// assert_eq!(genes.len(), 16);
/// assert!(Genotype::from_chromosome(&genes).is_ok());
/// ```
pub fn random(blocks: usize, rng: &mut Philox) -> Vec<usize> {
    let length = 8 * blocks;
    (0..length).map(|at| draw(at, length, rng)).collect()
}

fn draw(at: usize, length: usize, rng: &mut Philox) -> usize {
    rng.below(values(at, length) as u32) as usize
}

fn below(n: usize, rng: &mut Philox) -> usize {
    rng.below(n as u32) as usize
}

/// A child that has each gene from either parent with probability one half. The parents are of one length.
///
/// ```
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::genetics::crossover;
/// let child = crossover(&[1; 8], &[2; 8], &mut Philox::new(0, 0));
/// assert!(child.iter().all(|g| *g == 1 || *g == 2));
/// ```
pub fn crossover(a: &[usize], b: &[usize], rng: &mut Philox) -> Vec<usize> {
    a.iter().zip(b).map(|(&x, &y)| if rng.next_u32() >> 31 == 0 { x } else { y }).collect()
}

/// Draws operation and state at one random place anew.
///
/// ```
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::genetics::mutate;
/// let parent = vec![2, 0, 0, 0, 3, 0, 1, 0];
/// let mut child = parent.clone();
/// mutate(&mut child, &mut Philox::new(0, 0));
/// assert!(child.iter().zip(&parent).filter(|(a, b)| a != b).count() <= 2);
/// ```
pub fn mutate(genes: &mut [usize], rng: &mut Philox) {
    let length = genes.len();
    let at = 2 * below(length / 2, rng);
    genes[at] = draw(at, length, rng);
    genes[at + 1] = draw(at + 1, length, rng);
}

/// Exchanges two neighbouring pairs of operation and state within a cell. A state that its new block may not read is drawn
/// anew.
///
/// With `compat` the first pair becomes a copy of the second and nothing else happens, also across the border of the two
/// cells: what the published code does.
///
/// ```
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::genetics::invert;
/// // One block a cell: each cell has but one pair of neighbours.
/// let mut genes = vec![2, 0, 0, 0, 3, 0, 1, 0];
/// invert(&mut genes, false, &mut Philox::new(0, 0));
/// assert!(genes == [0, 0, 2, 0, 3, 0, 1, 0] || genes == [2, 0, 0, 0, 1, 0, 3, 0]);
/// ```
pub fn invert(genes: &mut [usize], compat: bool, rng: &mut Philox) {
    let length = genes.len();
    let pairs = length / 2;
    let first = if compat {
        below(pairs - 1, rng)
    } else {
        // Neighbours within the normal cell, then within the reduction cell.
        let at = below(pairs - 2, rng);
        if at < pairs / 2 - 1 { at } else { at + 1 }
    };
    let (a, b) = (2 * first, 2 * first + 2);
    if compat {
        genes.copy_within(b..b + 2, a);
    } else {
        genes.swap(a, b);
        genes.swap(a + 1, b + 1);
    }
    for at in [a + 1, b + 1] {
        if genes[at] >= values(at, length) {
            genes[at] = draw(at, length, rng);
        }
    }
}

/// Two parents: `2 k` distinct ones are drawn, with `k` half the number of `objectives` rounded down; of each half the
/// first one is chosen unless a later one of its half dominates it. Dominance is by the first two objectives. `None` with
/// fewer than two.
///
/// ```
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::genetics::tournament;
/// let objectives = [vec![9.0, 1.0], vec![5.0, 3.0], vec![7.0, 2.0], vec![8.0, 4.0]];
/// let parents = tournament(&objectives, &mut Philox::new(0, 0));
/// assert!(parents.is_some_and(|(a, b)| a != b));
/// assert_eq!(tournament(&objectives[..1], &mut Philox::new(0, 0)), None);
/// ```
pub fn tournament(objectives: &[Vec<f64>], rng: &mut Philox) -> Option<(usize, usize)> {
    let half = objectives.len() / 2;
    let drawn = rng.permutation(objectives.len() as u32);
    let champion = |entrants: &[u32]| {
        entrants.iter().map(|&i| i as usize).reduce(|champion, challenger| {
            let beaten = nsga2::dominates(&objectives[challenger], &objectives[champion], 2);
            if beaten { challenger } else { champion }
        })
    };
    Some((champion(&drawn[..half])?, champion(&drawn[half..2 * half])?))
}
