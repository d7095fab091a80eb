//! Cells as data: operations, blocks, genotypes and the integers of the evolution.

use std::fmt;
use std::str::FromStr;

use shadegrad::rng::Philox;
use shadegrad::{Error, Result};

const OP: &str = "genotype";

/// An operation between two states of a cell, on C channels, with stride 1 or 2. All but the pools and the skip begin with
/// a ReLU; convolutions have no bias and a batch norm with scale and shift behind them.
///
/// ```
/// use shadegrad_models::papers::eeea_net::Op;
/// assert_eq!(Op::ALL.len(), 10);
/// assert_eq!(Op::ALL[Op::Conv71.index()], Op::Conv71);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Largest of 3x3 pixels.
    MaxPool,
    /// Mean of those of 3x3 pixels that lie on the image.
    AvgPool,
    /// The input itself; with stride 2 two 1x1 convolutions of half the channels, the second one pixel further.
    Skip,
    /// Twice depthwise 3x3 and 1x1.
    Sep3,
    /// Twice depthwise 5x5 and 1x1.
    Sep5,
    /// Depthwise 3x3 with dilation 2, and 1x1.
    Dil3,
    /// Depthwise 5x5 with dilation 2, and 1x1.
    Dil5,
    /// 1x7 and 7x1, both full convolutions.
    Conv71,
    /// 1x1, depthwise 3x3, 1x1; with stride 1 the input is added.
    Inv3,
    /// 1x1, depthwise 5x5, 1x1; with stride 1 the input is added.
    Inv5,
}

impl Op {
    /// All, in the order of their numbers in a chromosome.
    pub const ALL: [Self; 10] = [
        Self::MaxPool,
        Self::AvgPool,
        Self::Skip,
        Self::Sep3,
        Self::Sep5,
        Self::Dil3,
        Self::Dil5,
        Self::Conv71,
        Self::Inv3,
        Self::Inv5,
    ];

    /// Its number in a chromosome.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::Op;
    /// assert_eq!(Op::Skip.index(), 2);
    /// ```
    pub fn index(self) -> usize {
        self as usize
    }

    /// A short name, as in the text of a [`Genotype`].
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::Op;
    /// assert_eq!(Op::ALL.map(Op::name)[..4], ["max3", "avg3", "skip", "sep3"]);
    /// ```
    pub fn name(self) -> &'static str {
        ["max3", "avg3", "skip", "sep3", "sep5", "dil3", "dil5", "conv71", "inv3", "inv5"][self.index()]
    }
}

/// A block: the sum of two operations on two earlier states. States 0 and 1 are the outputs of the cell before last and of
/// the last cell; block `b`, from 0, makes state `b + 2`.
///
/// ```
/// use shadegrad_models::papers::eeea_net::{Block, Concat, Genotype, Op};
/// let block = Block { op1: Op::Skip, i1: 0, op2: Op::MaxPool, i2: 1 };
/// let genotype = Genotype { normal: vec![block], reduce: vec![block], concat: Concat::LooseEnds };
/// assert_eq!(genotype.to_string(), "skip.0 max3.1 ; skip.0 max3.1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The first operation.
    pub op1: Op,
    /// The state it reads.
    pub i1: usize,
    /// The second operation.
    pub op2: Op,
    /// The state it reads.
    pub i2: usize,
}

impl Block {
    /// Both operations with the states they read.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::{Block, Op};
    /// let block = Block { op1: Op::Skip, i1: 0, op2: Op::MaxPool, i2: 1 };
    /// assert_eq!(block.pairs(), [(Op::Skip, 0), (Op::MaxPool, 1)]);
    /// ```
    pub fn pairs(&self) -> [(Op, usize); 2] {
        [(self.op1, self.i1), (self.op2, self.i2)]
    }
}

/// Which states a cell's output is the concatenation of.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::eeea_net::{Concat, Genotype};
/// // Behind a cell stands what it gives, where that is not its loose ends.
/// let genotype: Genotype = "skip.0 max3.0 > all ; max3.0 avg3.0 > all".parse()?;
/// assert_eq!(genotype.concat, Concat::All);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Concat {
    /// The states of blocks that no block reads, as in the published genotypes.
    LooseEnds,
    /// The states of all blocks.
    All,
    /// These, in the normal and in the reduction cell.
    Explicit(Vec<usize>, Vec<usize>),
}

/// The two cells that a network is a stack of.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::eeea_net::{Genotype, Op};
/// let text = "skip.0 max3.0 | sep3.1 skip.0 ; max3.0 avg3.0 | inv3.1 dil3.1";
/// let genotype: Genotype = text.parse()?;
/// assert_eq!((genotype.blocks(), genotype.normal[1].op1), (2, Op::Sep3));
/// assert_eq!(genotype.to_string(), text);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Genotype {
    /// Blocks of the cell that keeps the image's size.
    pub normal: Vec<Block>,
    /// Blocks of the cell that halves it.
    pub reduce: Vec<Block>,
    /// What a cell gives.
    pub concat: Concat,
}

/// Names and texts of published genotypes: the four of the paper's search (thresholds none, 3, 4 and 5 million) and
/// DARTS-V2 (Liu et al., 2019) as a reference.
pub const PUBLISHED: [(&str, &str); 5] = [
    (
        "EA",
        "dil3.0 max3.0 | inv5.1 dil5.1 | avg3.1 avg3.1 | inv5.3 inv3.2 | sep3.4 max3.3 ; \
         avg3.0 inv3.0 | inv5.1 dil3.0 | inv3.0 dil5.0 | max3.3 skip.3 | max3.0 sep3.0",
    ),
    (
        "EEEA_A",
        "max3.0 inv3.0 | dil3.1 max3.0 | skip.2 inv3.0 | avg3.2 skip.3 | avg3.4 skip.3 ; \
         skip.0 dil3.0 | max3.1 avg3.0 | dil3.0 avg3.0 | skip.2 skip.3 | dil3.3 dil5.0",
    ),
    (
        "EEEA_B",
        "skip.0 max3.0 | max3.1 skip.1 | skip.1 skip.2 | dil3.3 sep3.1 | max3.4 sep3.4 ; \
         skip.0 inv5.0 | avg3.0 dil3.1 | inv3.1 skip.1 | max3.1 avg3.1 | avg3.2 dil3.3",
    ),
    (
        "EEEA_C",
        "dil5.0 max3.0 | inv5.0 inv3.0 | dil5.2 inv3.2 | sep5.1 skip.2 | sep3.1 avg3.4 ; \
         inv3.0 dil3.0 | avg3.0 inv3.0 | dil5.1 max3.1 | skip.3 max3.3 | inv5.4 inv3.2",
    ),
    (
        "DARTS_V2",
        "sep3.0 sep3.1 | sep3.0 sep3.1 | sep3.1 skip.0 | skip.0 dil3.2 > 2,3,4,5 ; \
         max3.0 max3.1 | skip.2 max3.1 | max3.0 skip.2 | skip.2 max3.1 > 2,3,4,5",
    ),
];

impl Genotype {
    /// One of [`PUBLISHED`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// assert_eq!(Genotype::published("eeea_a")?.blocks(), 5);
    /// assert!(Genotype::published("EEEA_Z").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn published(name: &str) -> Result<Self> {
        match PUBLISHED.iter().find(|p| p.0.eq_ignore_ascii_case(name)) {
            Some((_, text)) => text.parse(),
            None => Err(Error::value(
                OP,
                format!("no published genotype is called `{name}`; there are {}", PUBLISHED.map(|p| p.0).join(", ")),
            )),
        }
    }

    /// A uniformly random one with this many blocks in each cell and loose ends: block `b` reads states `0..=b`.
    ///
    /// ```
    /// # use shadegrad::rng::Philox;
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let genotype = Genotype::random(5, &mut Philox::new(0, 0));
    /// assert!(genotype.validate().is_ok() && genotype.blocks() == 5);
    /// ```
    pub fn random(blocks: usize, rng: &mut Philox) -> Self {
        let mut cell = || (0..blocks).map(|b| random_block(b, rng)).collect();
        Self { normal: cell(), reduce: cell(), concat: Concat::LooseEnds }
    }

    /// Blocks of each cell.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let text = "skip.0 max3.0 | sep3.1 skip.0 ; max3.0 avg3.0 | inv3.1 dil3.1";
    /// let genotype: Genotype = text.parse()?;
    /// assert_eq!(genotype.blocks(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn blocks(&self) -> usize {
        self.normal.len()
    }

    /// The cell of a kind.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let text = "skip.0 max3.0 | sep3.1 skip.0 ; max3.0 avg3.0 | inv3.1 dil3.1";
    /// let genotype: Genotype = text.parse()?;
    /// assert_eq!(genotype.cell(true), genotype.reduce);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cell(&self, reduction: bool) -> &[Block] {
        if reduction { &self.reduce } else { &self.normal }
    }

    /// The states that make up the output of the normal or the reduction cell, in rising order (explicit lists in theirs).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let text = "skip.0 max3.0 | sep3.1 skip.0 ; max3.0 avg3.0 | inv3.1 dil3.1";
    /// let genotype: Genotype = text.parse()?;
    /// // No block reads states 2 and 3, which the two blocks make.
    /// assert_eq!(genotype.outputs(false), [2, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn outputs(&self, reduction: bool) -> Vec<usize> {
        let cell = self.cell(reduction);
        match &self.concat {
            Concat::All => (2..cell.len() + 2).collect(),
            Concat::Explicit(_, reduce) if reduction => reduce.clone(),
            Concat::Explicit(normal, _) => normal.clone(),
            Concat::LooseEnds => {
                let read = |s: usize| cell.iter().any(|b| b.i1 == s || b.i2 == s);
                (2..cell.len() + 2).filter(|&s| !read(s)).collect()
            }
        }
    }

    /// Whether a network can be built from it: equally many blocks in both cells, block `b` reads states `0..=b + 1`,
    /// and the output consists of states of blocks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// // The second block reads what the first one makes.
    /// let genotype: Genotype = "skip.0 max3.0 | skip.2 skip.0 ; skip.0 max3.0 | skip.2 skip.0".parse()?;
    /// assert!(genotype.buildable().is_ok());
    /// let text = "skip.2 max3.0 ; skip.0 max3.0"; // a block that reads itself
    /// assert!(text.parse::<Genotype>().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If not, naming cell and block.
    pub fn buildable(&self) -> Result<()> {
        self.check(1)
    }

    /// Whether the evolution can have made it: as [`Genotype::buildable`], but block `b` reads states `0..=b` only.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// // DARTS lets its first block read both inputs, which the evolution never does.
    /// let darts = Genotype::published("DARTS_V2")?;
    /// assert!(darts.buildable().is_ok() && darts.validate().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If not, naming cell and block.
    pub fn validate(&self) -> Result<()> {
        self.check(0)
    }

    fn check(&self, further: usize) -> Result<()> {
        if self.normal.is_empty() || self.normal.len() != self.reduce.len() {
            return Err(Error::value(
                OP,
                format!(
                    "{} blocks in the normal and {} in the reduction cell; both need the same number, at least 1",
                    self.normal.len(),
                    self.reduce.len()
                ),
            ));
        }
        for reduction in [false, true] {
            let kind = if reduction { "reduction" } else { "normal" };
            for (b, block) in self.cell(reduction).iter().enumerate() {
                if block.i1.max(block.i2) > b + further {
                    return Err(Error::value(
                        OP,
                        format!(
                            "block {b} of the {kind} cell reads states {} and {}; it may read states 0 to {}",
                            block.i1,
                            block.i2,
                            b + further
                        ),
                    ));
                }
            }
            let outputs = self.outputs(reduction);
            let mut sorted = outputs.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let last = self.blocks() + 1;
            if outputs.is_empty() || sorted.len() != outputs.len() || outputs.iter().any(|&s| s < 2 || s > last) {
                return Err(Error::value(
                    OP,
                    format!(
                        "the {kind} cell gives states {outputs:?}; it must give at least one of 2 to {last}, each once"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// `4 * blocks * 2` integers: the normal cell's blocks, then the reduction cell's, each as operation, state, operation,
    /// state. What a cell gives is not part of it.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// assert_eq!(genotype.to_chromosome(), [2, 0, 0, 0, 3, 0, 1, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_chromosome(&self) -> Vec<usize> {
        let blocks = self.normal.iter().chain(&self.reduce);
        blocks.flat_map(|b| [b.op1.index(), b.i1, b.op2.index(), b.i2]).collect()
    }

    /// The genotype of a chromosome, with loose ends.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::Genotype;
    /// let genotype = Genotype::from_chromosome(&[2, 0, 0, 0, 3, 0, 1, 0])?;
    /// assert_eq!(genotype.to_string(), "skip.0 max3.0 ; sep3.0 avg3.0");
    /// assert!(Genotype::from_chromosome(&[10, 0, 0, 0, 3, 0, 1, 0]).is_err()); // there is no operation 10
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the length is not a multiple of 8, an operation is not one, or a block reads a state out of its range.
    pub fn from_chromosome(genes: &[usize]) -> Result<Self> {
        if genes.is_empty() || !genes.len().is_multiple_of(8) {
            return Err(Error::value(OP, format!("{} genes; 8 for each block of the two cells", genes.len())));
        }
        let op = |gene: usize| {
            Op::ALL.get(gene).copied().ok_or_else(|| Error::value(OP, format!("operation {gene}; there are 0 to 9")))
        };
        let cell = |genes: &[usize]| {
            let block = |g: &[usize]| Ok(Block { op1: op(g[0])?, i1: g[1], op2: op(g[2])?, i2: g[3] });
            genes.chunks_exact(4).map(block).collect::<Result<Vec<Block>>>()
        };
        let (normal, reduce) = genes.split_at(genes.len() / 2);
        let made = Self { normal: cell(normal)?, reduce: cell(reduce)?, concat: Concat::LooseEnds };
        made.validate()?;
        Ok(made)
    }

    /// The same cells with another output.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{Concat, Genotype};
    /// let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// assert_eq!(genotype.concat(Concat::All).to_string(), "skip.0 max3.0 > all ; sep3.0 avg3.0 > all");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn concat(self, concat: Concat) -> Self {
        Self { concat, ..self }
    }

    /// FNV-1a of the chromosome and of the outputs: equal for genotypes that build the same network, the same on every
    /// machine.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{Concat, Genotype};
    /// let text = "skip.0 max3.0 | sep3.1 skip.0 ; max3.0 avg3.0 | inv3.1 dil3.1";
    /// let genotype: Genotype = text.parse()?;
    /// // No block is read by another: giving all is giving the loose ends.
    /// assert_eq!(genotype.hash(), genotype.clone().concat(Concat::All).hash());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn hash(&self) -> u64 {
        let mut words = self.to_chromosome();
        for reduction in [false, true] {
            words.push(usize::MAX);
            words.extend(self.outputs(reduction));
        }
        let bytes = words.into_iter().flat_map(|w| (w as u64).to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

/// A random block at place `b` of its cell.
fn random_block(b: usize, rng: &mut Philox) -> Block {
    let mut op = || (Op::ALL[rng.below(10) as usize], rng.below(b as u32 + 1) as usize);
    let ((op1, i1), (op2, i2)) = (op(), op());
    Block { op1, i1, op2, i2 }
}

impl fmt::Display for Genotype {
    /// `max3.0 inv3.0 | dil3.1 max3.0 ; skip.0 dil3.0 | max3.1 avg3.0`: blocks of the normal cell, a semicolon, those of
    /// the reduction cell; behind a cell `> 2,3` or `> all` where it does not give its loose ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reduction in [false, true] {
            if reduction {
                f.write_str(" ; ")?;
            }
            for (i, b) in self.cell(reduction).iter().enumerate() {
                let bar = if i > 0 { " | " } else { "" };
                write!(f, "{bar}{}.{} {}.{}", b.op1.name(), b.i1, b.op2.name(), b.i2)?;
            }
            match &self.concat {
                Concat::LooseEnds => {}
                Concat::All => f.write_str(" > all")?,
                Concat::Explicit(..) => {
                    let states: Vec<String> = self.outputs(reduction).iter().map(ToString::to_string).collect();
                    write!(f, " > {}", states.join(","))?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Genotype {
    type Err = Error;

    /// Reads what [`Genotype`] displays.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::value(OP, format!("{what} in `{text}`; write cells as `max3.0 inv3.0 | dil3.1 skip.0 ; ..`"))
        };
        let pair = |word: &str| -> Result<(Op, usize)> {
            let (name, state) = word.split_once('.').ok_or_else(|| wrong(format!("no state in `{word}`")))?;
            let op = Op::ALL.into_iter().find(|o| o.name() == name);
            let op = op.ok_or_else(|| wrong(format!("no operation `{name}`")))?;
            Ok((op, state.parse().map_err(|_| wrong(format!("`{state}` is no state")))?))
        };
        let block = |words: &str| -> Result<Block> {
            let pairs = words.split_whitespace().map(pair).collect::<Result<Vec<_>>>()?;
            match pairs[..] {
                [(op1, i1), (op2, i2)] => Ok(Block { op1, i1, op2, i2 }),
                _ => Err(wrong(format!("{} operations in a block", pairs.len()))),
            }
        };
        let cell = |part: &str| -> Result<(Vec<Block>, Option<String>)> {
            let (blocks, states) = part.split_once('>').map_or((part, None), |(b, s)| (b, Some(s.trim().to_string())));
            Ok((blocks.split('|').map(block).collect::<Result<_>>()?, states))
        };
        let (normal, reduce) = text.split_once(';').ok_or_else(|| wrong("one cell".into()))?;
        let ((normal, n), (reduce, r)) = (cell(normal)?, cell(reduce)?);
        let list = |s: &str| -> Result<Vec<usize>> {
            s.split(',').map(|v| v.trim().parse().map_err(|_| wrong(format!("`{v}` is no state")))).collect()
        };
        let concat = match (n.as_deref(), r.as_deref()) {
            (None, None) => Concat::LooseEnds,
            (Some("all"), Some("all")) => Concat::All,
            (Some(n), Some(r)) => Concat::Explicit(list(n)?, list(r)?),
            _ => return Err(wrong("the output of one cell only".into())),
        };
        let made = Self { normal, reduce, concat };
        made.buildable()?;
        Ok(made)
    }
}
