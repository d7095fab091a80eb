//! Names: what a model declares while it is built.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::nn::{Init, Layout};

/// Slots of the arena start at multiples of this many floats: 256 bytes, the alignment of a storage view, and the block
/// of the optimiser's table.
pub(crate) const SLOT: usize = 64;

/// A parameter of a model: its place in the [`Table`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// let mut root = names.root();
/// let (a, b) = (root.param("a", &[2], Init::Zeros), root.param("b", &[3], Init::Ones));
/// assert!(a < b); // in the order of declaration
/// assert_eq!(names.tables()?.0.entries()[b.index()].name, "b");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub(crate) usize);

/// A buffer of a model, such as a running mean: its place in the buffers' [`Table`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// let layer = BatchNorm2d::new(&mut names.root().sub("bn"), 4);
/// let (_, buffers) = names.tables()?;
/// assert_eq!(buffers.entries()[layer.running_var().index()].name, "bn.running_var");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub(crate) usize);

impl ParamId {
    /// Its row in the table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 4, 2, true);
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.entries()[layer.weight().index()].shape, [2, 4]); // [out, in]
    /// # Ok::<(), Error>(())
    /// ```
    pub fn index(self) -> usize {
        self.0
    }
}

impl BufferId {
    /// Its row in the table.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let seen = names.root().buffer("seen", &[1], 0.0);
    /// let (_, buffers) = names.tables()?;
    /// assert_eq!(buffers.entries()[seen.index()].init, Init::Const(0.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn index(self) -> usize {
        self.0
    }
}

/// One row of a [`Table`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
/// let (table, _) = names.tables()?;
/// let bias = &table.entries()[1];
/// assert_eq!((bias.name.as_str(), &bias.shape[..]), ("fc.bias", &[2][..]));
/// assert_eq!((bias.offset, bias.len), (64, 2)); // the weight's six floats have a slot of 64
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The full name, as PyTorch has it: `layer1.0.conv1.weight`.
    pub name: String,
    /// Lengths of its dimensions.
    pub shape: Vec<usize>,
    /// First float within the flat buffer.
    pub offset: usize,
    /// Number of floats.
    pub len: usize,
    /// How its first values are drawn.
    pub init: Init,
    /// Whether weight decay acts on it unless its group says otherwise.
    pub decay: bool,
    /// The order of its elements in PyTorch's files.
    pub layout: Layout,
}

/// Names, shapes and places of a model's parameters (or buffers) in one flat buffer.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
/// let (table, buffers) = names.tables()?;
/// for e in table.entries() {
///     println!("{} {:?}", e.name, e.shape); // fc.weight [2, 3], fc.bias [2]
/// }
/// assert_eq!((table.numel(), buffers.numel()), (8, 0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    floats: usize,
}

impl Table {
    /// The rows in the order of declaration, which is the order in the buffer.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
    /// let (table, _) = names.tables()?;
    /// let lengths: Vec<usize> = table.entries().iter().map(|e| e.len).collect();
    /// assert_eq!(lengths, [6, 2]); // weight and bias
    /// # Ok::<(), Error>(())
    /// ```
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of rows.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
    /// let (table, _) = names.tables()?;
    /// assert_eq!((table.len(), table.numel()), (2, 8)); // weight and bias; their elements
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no rows.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// LayerNorm::new(&mut names.root().sub("norm"), 8, 1e-5);
    /// let (params, buffers) = names.tables()?;
    /// assert!(!params.is_empty() && buffers.is_empty()); // no running statistics
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Floats of the flat buffer, padding included.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
    /// let (table, _) = names.tables()?;
    /// assert_eq!((table.floats(), table.numel()), (128, 8)); // two slots of 64
    /// # Ok::<(), Error>(())
    /// ```
    pub fn floats(&self) -> usize {
        self.floats
    }

    /// Elements without padding: what is meant by the number of parameters.
    ///
    /// ```
    /// # use shadegrad::{Error, nn::{Builder, Conv2d, ConvOptions}};
    /// # let mut names = Builder::new();
    /// Conv2d::new(&mut names.root().sub("conv"), 3, 16, 3, ConvOptions::new(1, 1).no_bias());
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.numel(), 16 * 3 * 3 * 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn numel(&self) -> usize {
        self.entries.iter().map(|e| e.len).sum()
    }

    /// The row called `name`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Linear::new(&mut names.root().sub("fc"), 3, 2, true);
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.find("fc.bias").map(|row| table.entries()[row].len), Some(2));
    /// assert_eq!(table.find("fc.scale"), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The rows whose names match the [`glob`] `pattern`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// Mlp::new(&mut names.root().sub("mlp"), 8, 32, Activation::Gelu, 0.0);
    /// let (table, _) = names.tables()?; // mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias
    /// assert_eq!(table.matching("*.bias")?, [1, 3]);
    /// assert!(table.matching("conv*").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none: the pattern is then a mistake.
    pub fn matching(&self, pattern: &str) -> Result<Vec<usize>> {
        let rows: Vec<usize> = (0..self.len()).filter(|&i| glob(pattern, &self.entries[i].name)).collect();
        if rows.is_empty() {
            let some: Vec<&str> = self.entries.iter().take(4).map(|e| e.name.as_str()).collect();
            return Err(Error::Params(format!("no name matches `{pattern}`; names are like {}", some.join(", "))));
        }
        Ok(rows)
    }

    fn push(&mut self, name: String, shape: &[usize], init: Init, decay: bool) -> bool {
        let (row, len) = (self.entries.len(), shape.iter().product::<usize>());
        let new = self.by_name.insert(name.clone(), row).is_none();
        let (shape, layout) = (shape.to_vec(), Layout::Same);
        self.entries.push(Entry { name, shape, offset: self.floats, len, init, decay, layout });
        // An empty parameter still takes a slot, so that every slot can be bound.
        self.floats += len.max(1).next_multiple_of(SLOT);
        new
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters (dots included) and `?` for one.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// assert!(glob("blocks.*.weight", "blocks.3.fc.weight") && !glob("fc?.*", "fc.weight"));
/// # Ok::<(), Error>(())
/// ```
pub fn glob(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j) = (0, 0);
    // Where the last star was, and how much of the name it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while j < n.len() {
        if p.get(i) == Some(&b'*') {
            star = Some((i, j));
            i += 1;
        } else if p.get(i).is_some_and(|&c| c == b'?' || c == n[j]) {
            i += 1;
            j += 1;
        } else if let Some((s, eaten)) = star {
            star = Some((s, eaten + 1));
            i = s + 1;
            j = eaten + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&c| c == b'*')
}

/// Collects the names, shapes and first values of a model's parameters and buffers while it is built.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// let mut names = Builder::new();
/// let mut root = names.root();
/// let mut block = root.sub("block");
/// Linear::new(&mut block.sub("fc1"), 4, 8, true);
/// block.param("scale", &[4], Init::Ones);
/// let (params, _buffers) = names.tables()?;
/// let all: Vec<&str> = params.entries().iter().map(|e| e.name.as_str()).collect();
/// assert_eq!(all, ["block.fc1.weight", "block.fc1.bias", "block.scale"]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    params: Table,
    buffers: Table,
    twice: Vec<String>,
}

impl Builder {
    /// An empty one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 3, 2, false);
    /// assert_eq!(names.tables()?.0.entries()[layer.weight().index()].name, "fc.weight");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope without a prefix.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// let mut names = Builder::new();
    /// let mut root = names.root();
    /// assert_eq!(root.name(), "");
    /// root.param("scale", &[4], Init::Ones);
    /// assert_eq!(names.tables()?.0.find("scale"), Some(0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn root(&mut self) -> Scope<'_> {
        Scope { builder: self, prefix: String::new() }
    }

    /// The tables of parameters and buffers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// names.root().param("scale", &[4], Init::Ones);
    /// let (params, buffers) = names.tables()?;
    /// assert_eq!((params.len(), buffers.len()), (1, 0));
    /// names.root().param("scale", &[4], Init::Ones);
    /// assert!(names.tables().is_err()); // the name is taken
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a name was given twice.
    pub fn tables(&self) -> Result<(Arc<Table>, Arc<Table>)> {
        if !self.twice.is_empty() {
            return Err(Error::Params(format!(
                "given twice: {}; put each layer into a scope of its own with `sub`",
                self.twice.join(", ")
            )));
        }
        Ok((Arc::new(self.params.clone()), Arc::new(self.buffers.clone())))
    }
}

/// A place in the tree of names. Layers declare their parameters in the scope they are given.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let mut names = Builder::new();
/// let mut root = names.root();
/// let mut layer1 = root.sub("layer1");
/// let block = &mut layer1.sub(0);
/// Linear::new(&mut block.sub("fc"), 4, 4, false);
/// assert_eq!(names.tables()?.0.entries()[0].name, "layer1.0.fc.weight");
/// # Ok::<(), Error>(())
/// ```
pub struct Scope<'a> {
    builder: &'a mut Builder,
    prefix: String,
}

impl Scope<'_> {
    /// The scope `name` within this one. Numbers are fine: `scope.sub(0)`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// let mut blocks = root.sub("blocks");
    /// let all: Vec<Linear> = (0..3).map(|i| Linear::new(&mut blocks.sub(i), 4, 4, false)).collect();
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.entries()[all[2].weight().index()].name, "blocks.2.weight");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sub(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.join(&name.to_string());
        Scope { builder: self.builder, prefix }
    }

    /// The full name of this scope, empty at the root.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// assert_eq!(names.root().sub("layer1").sub(0).name(), "layer1.0");
    /// assert_eq!(names.root().name(), "");
    /// ```
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn join(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Declares a parameter. A name given twice is an error when the [`crate::nn::Arena`] is made.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let scale = names.root().sub("gate").param("scale", &[2], Init::Const(0.5));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.params().get(scale).to_vec()?, [0.5, 0.5]);
    /// assert_eq!(arena.params().by_name("gate.scale")?.shape(), [2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> ParamId {
        self.declare(name, shape, init, true)
    }

    /// [`Scope::param`] without weight decay, whatever the optimiser's rule: for numbers that are no weights, such as the
    /// coefficient of an activation. [`crate::nn::Arena::group`] can say otherwise.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// root.param("weight", &[4, 4], Init::Zeros);
    /// root.param_without_decay("slope", &[1], Init::Const(0.25));
    /// let (table, _) = names.tables()?;
    /// assert_eq!((table.entries()[0].decay, table.entries()[1].decay), (true, false));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn param_without_decay(&mut self, name: &str, shape: &[usize], init: Init) -> ParamId {
        self.declare(name, shape, init, false)
    }

    fn declare(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> ParamId {
        let full = self.join(name);
        let table = &mut self.builder.params;
        let id = ParamId(table.len());
        if !table.push(full.clone(), shape, init, decay) {
            self.builder.twice.push(full);
        }
        id
    }

    /// Says how the elements of a parameter lie in PyTorch's files, where that differs from here.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut scope = names.root();
    /// let kernel = scope.param("kernel", &[8, 3, 3, 4], Init::Zeros); // [out, rows, columns, in]
    /// scope.layout(kernel, Layout::ChannelsLast);
    /// let (table, _) = names.tables()?;
    /// let e = &table.entries()[kernel.index()];
    /// assert_eq!(e.layout.outside_shape(&e.shape), [8, 4, 3, 3]); // PyTorch's
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    /// If the id is that of another, larger model.
    pub fn layout(&mut self, id: ParamId, layout: Layout) {
        self.builder.params.entries[id.0].layout = layout;
    }

    /// Declares a buffer that is filled with `value`: state without a gradient.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// root.param("scale", &[2], Init::Ones);
    /// let peak = root.buffer("peak", &[2], 1.5);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(Cx::eval(&arena).buffer(peak).to_vec()?, [1.5, 1.5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffer(&mut self, name: &str, shape: &[usize], value: f32) -> BufferId {
        let full = self.join(name);
        let table = &mut self.builder.buffers;
        let id = BufferId(table.len());
        if !table.push(full.clone(), shape, Init::Const(value), true) {
            self.builder.twice.push(full);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("*", "a.b", true),
            ("layer1.*", "layer1.0.weight", true),
            ("layer1.*", "layer10.weight", false),
            ("*.bias", "fc.bias", true),
            ("*bn?.weight", "layer1.0.bn2.weight", true),
            ("fc.weight", "fc.weight", true),
            ("fc.weight", "fc.weights", false),
            ("*a*b", "xaxbxab", true),
            ("*a*b", "xaxbxa", false),
            ("", "", true),
            ("", "x", false),
            ("**", "", true),
        ] {
            assert_eq!(glob(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn slots_are_aligned_and_names_unique() {
        let mut b = Builder::new();
        let mut root = b.root();
        root.param("w", &[65], Init::Zeros);
        root.sub("a").sub(0).param("w", &[0, 3], Init::Zeros);
        root.sub("a").param("b", &[], Init::Zeros);
        let (t, _) = b.tables().unwrap();
        let rows: Vec<_> = t.entries().iter().map(|e| (e.name.as_str(), e.offset, e.len)).collect();
        assert_eq!(rows, [("w", 0, 65), ("a.0.w", 128, 0), ("a.b", 192, 1)]);
        assert_eq!((t.floats(), t.numel()), (256, 66));
        assert!(t.matching("z*").unwrap_err().to_string().contains("no name matches `z*`"));
        b.root().param("w", &[1], Init::Zeros);
        assert!(b.tables().unwrap_err().to_string().contains("given twice: w"));
    }
}
