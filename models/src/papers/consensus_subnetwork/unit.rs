//! What may be left out of a network: residual branches and channels, by the names of their layers.

use std::collections::{BTreeMap, BTreeSet};

use shadegrad::nn::Table;
use shadegrad::{Error, Result};

/// What is gated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The result of the layer `last`, which is added to what goes around the branch. All parameters under `scope` go
    /// with it.
    Branch { scope: String, last: String },
    /// The input of `next`: the channels that `conv` makes, behind `norm` and the activation.
    Channels { conv: String, norm: Option<String>, next: String },
}

/// A part of a network that a gate decides about.
///
/// ```
/// use shadegrad_models::papers::consensus_subnetwork::Unit;
/// // Whole residual blocks, or the channels inside of them.
/// let block = Unit::layer("layer1.0", "conv1", "bn2");
/// let inner = Unit::channels("layer1.0.conv1", Some("layer1.0.bn1"), "layer1.0.conv2");
/// assert_eq!((block.name(), inner.name()), ("layer1.0", "layer1.0.conv1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub(super) name: String,
    /// The layer whose input the gate reads.
    pub(super) reads: String,
    pub(super) place: Place,
    inputs: Option<usize>,
}

impl Unit {
    /// Layer pruning: the residual branch whose layers are named under `scope`. `first` (a name within the scope) is the layer
    /// whose input is the block's input; `last` the one whose result is added to the shortcut, be it a layer or a place
    /// that the model taps itself. What comes between `last` and the sum stops the gradient of a closed gate: an activation
    /// there must be behind a tap.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Unit;
    /// // The block's layers are `blocks.3.norm` up to `blocks.3.fc2`.
    /// let unit = Unit::layer("blocks.3", "norm", "fc2");
    /// assert_eq!(unit.name(), "blocks.3");
    /// ```
    pub fn layer(scope: &str, first: &str, last: &str) -> Self {
        Self {
            name: scope.into(),
            reads: format!("{scope}.{first}"),
            place: Place::Branch { scope: scope.into(), last: format!("{scope}.{last}") },
            inputs: None,
        }
    }

    /// Channel pruning: the channels that the convolution (or linear layer) `conv` makes, which go through `norm` and an
    /// activation into the layer `next` and nowhere else. Full names. The gates read the input of `conv` and multiply that
    /// of `next`.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Unit;
    /// let unit = Unit::channels("mlp.fc1", None, "mlp.fc2");
    /// assert_eq!(unit.name(), "mlp.fc1");
    /// ```
    pub fn channels(conv: &str, norm: Option<&str>, next: &str) -> Self {
        Self {
            name: conv.into(),
            reads: conv.into(),
            place: Place::Channels { conv: conv.into(), norm: norm.map(String::from), next: next.into() },
            inputs: None,
        }
    }

    /// Says how many channels the gate reads, where that is not the last dimension of the weight of the layer it reads from:
    /// grouped convolutions, or a place that the model enters itself.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Unit;
    /// // `conv1` has groups: its weight tells the channels of one group only.
    /// let unit = Unit::layer("block", "conv1", "bn2").inputs(64);
    /// assert_ne!(unit, Unit::layer("block", "conv1", "bn2"));
    /// ```
    #[must_use]
    pub fn inputs(self, channels: usize) -> Self {
        Self { inputs: Some(channels), ..self }
    }

    /// Its name: the scope of a branch, the convolution of channels.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Unit;
    /// assert_eq!(Unit::channels("conv1", Some("bn1"), "conv2").name(), "conv1");
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Channels that the gate reads and gates that it has, from the shapes of the weights.
    pub(super) fn sizes(&self, params: &Table) -> Result<(usize, usize)> {
        let inputs = match self.inputs {
            Some(channels) => channels,
            None => *self.weight(params, &self.reads)?.last().unwrap_or(&1),
        };
        let Place::Channels { conv, norm, next } = &self.place else { return Ok((inputs, 1)) };
        let made = *self.weight(params, conv)?.first().unwrap_or(&1);
        let used = *self.weight(params, next)?.last().unwrap_or(&1);
        if made != used {
            return Err(Error::shape(
                "Unit",
                format!(
                    "`{conv}` makes {made} channels, `{next}` takes {used}; name the layer that the channels go into \
                     next, which must not have groups"
                ),
            ));
        }
        if let Some(norm) = norm {
            self.weight(params, norm)?;
        }
        Ok((inputs, made))
    }

    fn weight<'t>(&self, params: &'t Table, layer: &str) -> Result<&'t [usize]> {
        let entries = params.entries();
        params.find(&format!("{layer}.weight")).map(|i| &entries[i].shape[..]).ok_or_else(|| {
            let some: Vec<&str> = entries.iter().filter_map(|e| e.name.strip_suffix(".weight")).take(4).collect();
            Error::value(
                "Unit",
                format!(
                    "unit `{}`: no layer is called `{layer}`; names are like {}. For a place of the model's own say how \
                     many channels it has with `inputs`",
                    self.name,
                    some.join(", ")
                ),
            )
        })
    }
}

/// What is left of a network: a model's constructor asks it which parts to build.
///
/// ```
/// use shadegrad_models::papers::consensus_subnetwork::Shape;
/// let shape = Shape::full().without(["blocks.1"]);
/// let names: Vec<String> = (0..3).map(|i| format!("blocks.{i}")).filter(|n| shape.has(n)).collect();
/// assert_eq!(names, ["blocks.0", "blocks.2"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub(super) closed: BTreeSet<String>,
    pub(super) widths: BTreeMap<String, usize>,
}

impl Shape {
    /// The whole network.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Shape;
    /// assert!(Shape::full().has("blocks.0"));
    /// ```
    pub fn full() -> Self {
        Self::default()
    }

    /// Without these branches.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Shape;
    /// let shape = Shape::full().without(["layer1.0", "layer3.2"]);
    /// assert!(!shape.has("layer3.2") && shape.has("layer3.1"));
    /// ```
    #[must_use]
    pub fn without<'n>(mut self, scopes: impl IntoIterator<Item = &'n str>) -> Self {
        self.closed.extend(scopes.into_iter().map(String::from));
        self
    }

    /// Whether the residual branch `scope` is part of the network.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Shape;
    /// assert!(!Shape::full().without(["blocks.0"]).has("blocks.0"));
    /// ```
    pub fn has(&self, scope: &str) -> bool {
        !self.closed.contains(scope)
    }

    /// How many channels the layer `conv` makes, which are `full` in the whole network.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Shape;
    /// assert_eq!(Shape::full().width("conv1", 16), 16);
    /// ```
    pub fn width(&self, conv: &str, full: usize) -> usize {
        self.widths.get(conv).copied().unwrap_or(full)
    }
}
