//! Groups of units, and masks that link corresponding groups densely and others sparsely.

use shadegrad::rng::{Philox, Stream};
use shadegrad::{Error, Result};

use crate::papers::shared::mask::{Mask, probability};

/// How the units of a layer's two sides are put into groups.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::g2gnet::Grouping;
/// // Four units on either side in two groups.
/// assert_eq!(Grouping::Index.labels(4, 4, 2)?[0], [0, 0, 1, 1]);
/// assert_eq!(Grouping::Interleaved.labels(4, 4, 2)?[0], [0, 1, 0, 1]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Contiguous blocks: unit `j` of `n` is in group `j / (n / groups)`.
    Index,
    /// Blocks of a random order of the units, another one on each side.
    Random {
        /// Decides the orders.
        seed: u64,
    },
    /// Unit `j` is in group `j % groups`.
    Interleaved,
}

/// The streams of a seed that orders and masks are drawn from.
const ORDER_IN: u64 = 0x4732_4700;
const ORDER_OUT: u64 = 0x4732_4701;
const MASK: u64 = 0x4732_4702;

impl Grouping {
    /// The groups of `inputs` and `outputs` units.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::g2gnet::Grouping;
    /// let [inputs, outputs] = Grouping::Index.labels(6, 4, 2)?;
    /// assert_eq!((inputs, outputs), (vec![0, 0, 0, 1, 1, 1], vec![0, 0, 1, 1]));
    /// assert!(Grouping::Index.labels(6, 4, 3).is_err()); // 3 does not divide 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no groups, or their number does not divide that of the units.
    pub fn labels(self, inputs: usize, outputs: usize, groups: usize) -> Result<[Vec<usize>; 2]> {
        if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            return Err(Error::value(
                "group_mask",
                format!("{groups} groups of {inputs} inputs and {outputs} outputs; the number must divide both"),
            ));
        }
        let side = |n: usize, stream: u64| -> Vec<usize> {
            let size = n / groups;
            match self {
                Self::Index => (0..n).map(|j| j / size).collect(),
                Self::Interleaved => (0..n).map(|j| j % groups).collect(),
                Self::Random { seed } => {
                    let order = Philox::new(seed, stream).permutation(n as u32);
                    order.into_iter().map(|j| j as usize / size).collect()
                }
            }
        };
        Ok([side(inputs, ORDER_IN), side(outputs, ORDER_OUT)])
    }
}

/// Masks of group-to-group links: a weight between units of the same group exists with probability `p_intra`, another one
/// with `p_inter`. The expected density is `p_intra / groups + (1 - 1 / groups) p_inter`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::g2gnet::{GroupMask, Grouping};
/// let blocks = GroupMask { groups: 2, p_intra: 1.0, p_inter: 0.0, grouping: Grouping::Index };
/// let mask = blocks.sample(4, 4, 0)?;
/// assert_eq!(mask.positions(), [0, 1, 4, 5, 10, 11, 14, 15]); // two squares on the diagonal
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupMask {
    /// Groups on either side.
    pub groups: usize,
    /// Probability of a weight within a group.
    pub p_intra: f64,
    /// Probability of a weight between groups.
    pub p_inter: f64,
    /// Which units are in which group.
    pub grouping: Grouping,
}

impl GroupMask {
    /// Draws the mask of a layer.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::g2gnet::{GroupMask, Grouping};
    /// let links = GroupMask { groups: 8, p_intra: 1.0, p_inter: 0.15, grouping: Grouping::Random { seed: 3 } };
    /// let mask = links.sample(256, 128, 0)?;
    /// assert!((mask.density() - links.expected_density()).abs() < 0.02);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the number of groups does not divide both sides, or a probability does not lie in `0..=1`.
    pub fn sample(&self, outputs: usize, inputs: usize, seed: u64) -> Result<Mask> {
        probability("group_mask", "p_intra", self.p_intra)?;
        probability("group_mask", "p_inter", self.p_inter)?;
        let [from, to] = self.grouping.labels(inputs, outputs, self.groups)?;
        Ok(Mask::bernoulli(outputs, inputs, Stream::new(seed, MASK), |o, i| {
            if to[o] == from[i] { self.p_intra } else { self.p_inter }
        }))
    }

    /// The share of weights that exist on average.
    ///
    /// ```
    /// use shadegrad_models::papers::g2gnet::{GroupMask, Grouping};
    /// let links = GroupMask { groups: 8, p_intra: 1.0, p_inter: 0.15, grouping: Grouping::Index };
    /// assert!((links.expected_density() - 0.25625).abs() < 1e-12);
    /// ```
    pub fn expected_density(&self) -> f64 {
        let within = 1.0 / self.groups as f64;
        within * self.p_intra + (1.0 - within) * self.p_inter
    }
}
