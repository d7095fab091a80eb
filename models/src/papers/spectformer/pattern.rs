//! Which block mixes tokens how.

use std::fmt;
use std::str::FromStr;

use shadegrad::{Error, Result};

/// What mixes the tokens of a block.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::spectformer::{Mixer, Pattern};
/// let pattern: Pattern = "sa".parse()?;
/// assert_eq!(pattern.mixers(), [Mixer::Spectral, Mixer::Attention]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mixer {
    /// A [`SpectralGate`](super::SpectralGate): `s` in a pattern.
    Spectral,
    /// Multi-head self-attention: `a` in a pattern.
    Attention,
}

/// Which kind of block comes first.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::spectformer::{Order, Pattern};
/// let inverse = Pattern::new(4, 1, Order::AttentionFirst)?;
/// assert_eq!(inverse.to_string(), "aaas");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The paper's.
    #[default]
    SpectralFirst,
    /// The inverse, its control.
    AttentionFirst,
}

/// The mixer of each block, first to last; as text a letter each: `ssaa`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::spectformer::{Order, Pattern};
/// let pattern: Pattern = "ssaa".parse()?;
/// assert_eq!(pattern, Pattern::new(4, 2, Order::SpectralFirst)?);
/// assert!("ssxa".parse::<Pattern>().is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<Mixer>);

impl Pattern {
    /// `alpha` spectral blocks of `depth`, the others attention.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::{Order, Pattern};
    /// assert_eq!(Pattern::new(12, 4, Order::SpectralFirst)?.to_string(), "ssssaaaaaaaa");
    /// assert!(Pattern::new(2, 3, Order::SpectralFirst).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `alpha` is larger than `depth`, or there are no blocks.
    pub fn new(depth: usize, alpha: usize, order: Order) -> Result<Self> {
        if depth == 0 || alpha > depth {
            return Err(Error::value(
                "spectformer",
                format!("alpha {alpha} of {depth} blocks; takes at least one block and at most as many spectral ones"),
            ));
        }
        let mut pattern = Self::first(alpha, depth);
        if order == Order::AttentionFirst {
            pattern.0.reverse();
        }
        Ok(pattern)
    }

    /// The first `alpha` of `depth` spectral.
    pub(super) fn first(alpha: usize, depth: usize) -> Self {
        Self((0..depth).map(|i| if i < alpha { Mixer::Spectral } else { Mixer::Attention }).collect())
    }

    /// The mixers, first to last.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::{Mixer, Order, Pattern};
    /// assert!(Pattern::new(3, 3, Order::SpectralFirst)?.mixers().iter().all(|m| *m == Mixer::Spectral));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mixers(&self) -> &[Mixer] {
        &self.0
    }

    /// Number of blocks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::Pattern;
    /// assert_eq!("sas".parse::<Pattern>()?.depth(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Number of spectral blocks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::Pattern;
    /// assert_eq!("sas".parse::<Pattern>()?.alpha(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn alpha(&self) -> usize {
        self.0.iter().filter(|&&m| m == Mixer::Spectral).count()
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mixer = |c| match c {
            's' => Ok(Mixer::Spectral),
            'a' => Ok(Mixer::Attention),
            _ => Err(Error::value("spectformer", format!("`{c}` in pattern `{text}`; s is spectral, a attention: `ssaa`"))),
        };
        let mixers: Vec<Mixer> = text.chars().map(mixer).collect::<Result<_>>()?;
        if mixers.is_empty() {
            return Err(Error::value("spectformer", "an empty pattern; a letter for each block: `ssaa`"));
        }
        Ok(Self(mixers))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|m| f.write_str(if *m == Mixer::Spectral { "s" } else { "a" }))
    }
}
