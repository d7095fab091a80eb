//! What backward rules keep of a forward pass: whole tensors, packed ones, parts, or nothing; and a ledger of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::autograd::{Ctx, Node, recording};
use crate::error::{Error, Result};
use crate::ops::Quantizer;
use crate::tensor::{DType, Shape, Tensor};

/// How operations keep what their backward rules need, inside [`keep_compactly`]. Results are what they always are; what
/// changes is the gradients, which are computed from what is left. `None` keeps the whole tensor.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{Compact, Form, Ledger, keep_compactly};
/// let x = Tensor::ones(&gpu, &[1024])?.leaf();
/// let how = Compact { activation: Some(Quantizer::Q8), ..Compact::default() };
/// let ledger = Ledger::new(&[]);
/// let _y = ledger.watch(|| keep_compactly(&how, || x.gelu()))?;
/// let row = &ledger.rows()[0];
/// assert_eq!((row.form, row.whole_bytes, row.bytes), (Form::Packed(Quantizer::Q8), 4096, 1024));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compact {
    /// The input of GELU, of its tanh form and of SiLU.
    pub activation: Option<Quantizer>,
    /// Both operands of a matrix product of two activations, such as queries and keys.
    pub product: Option<Quantizer>,
    /// The result of softmax, with or without a mask; also where it is an operand of a matrix product.
    pub probability: Option<Quantizer>,
    /// The input of a linear layer with a trained weight, where it comes out of one of those activations (dropout between
    /// them does not matter).
    pub after_activation: Option<Quantizer>,
    /// The share of the normalised elements that a layer norm without a trained scale keeps: those of largest magnitude in
    /// the whole tensor, rounded down.
    pub norm_share: Option<f64>,
}

impl Compact {
    fn check(&self) -> Result<()> {
        const OP: &str = "keep_compactly";
        for how in [self.activation, self.product, self.probability, self.after_activation].into_iter().flatten() {
            how.check(OP)?;
        }
        match self.norm_share {
            Some(s) if !(s > 0.0 && s <= 1.0) => {
                Err(Error::value(OP, format!("a share of {s} of the normalised elements; give more than 0, at most 1")))
            }
            _ => Ok(()),
        }
    }
}

thread_local! {
    static COMPACT: Cell<Option<Compact>> = const { Cell::new(None) };
    static LEDGER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

/// Runs `f`, a forward pass, with operations on this thread keeping for their backward rules what `how` says (Ardakani et
/// al., "SlimFit", 2023, for fine-tuning). The results of `f` are the same to the bit. Gradients of gradients do not go
/// through what was not kept whole: asking for them is an error that names the operation.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{Compact, grad, keep_compactly};
/// let x = Tensor::from_slice(&gpu, &[0.3, 1.0], &[2])?.leaf();
/// let how = Compact { activation: Some(Quantizer::Q4), ..Compact::default() }; // steps of 1/2: 0.3 is kept as 0.5
/// let (y, whole) = (keep_compactly(&how, || x.gelu())?, x.gelu()?);
/// assert_eq!(y.to_vec()?, whole.to_vec()?);
/// let (near, exact) = (grad(&y.sum_all()?, &[&x])?[0].to_vec()?, grad(&whole.sum_all()?, &[&x])?[0].to_vec()?);
/// assert!((near[0] - exact[0]).abs() > 0.05 && (near[1] - exact[1]).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If a number of bits is not 4 or 8, a share does not lie in `0..=1` (0 excluded); those of `f`.
pub fn keep_compactly<T>(how: &Compact, f: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Guard(Option<Compact>);
    impl Drop for Guard {
        fn drop(&mut self) {
            COMPACT.set(self.0);
        }
    }
    how.check()?;
    let _guard = Guard(COMPACT.replace(Some(*how)));
    f()
}

/// How a tensor is kept.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{Form, Ledger};
/// let (x, c) = (Tensor::ones(&gpu, &[4])?.leaf(), Tensor::ones(&gpu, &[4])?);
/// let ledger = Ledger::new(&[]);
/// let _y = ledger.watch(|| x.mul(&c))?;
/// // The gradient for `x` needs `c` alone.
/// assert_eq!(ledger.rows().iter().map(|r| r.form).collect::<Vec<_>>(), [Form::Spared, Form::Whole]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// All of it; as halves in a region of mixed precision, where the operation reads or keeps halves.
    Whole,
    /// In few bits.
    Packed(Quantizer),
    /// Some elements, or a part of what would be kept otherwise.
    Part,
    /// Not at all: the gradient that needs it is not wanted.
    Spared,
}

/// A tensor that a backward rule keeps, or would keep: a row of a [`Ledger`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::Ledger;
/// let x = Tensor::ones(&gpu, &[2, 3])?.leaf();
/// let ledger = Ledger::new(&[]);
/// let y = ledger.watch(|| x.square())?;
/// let row = ledger.rows().remove(0);
/// assert_eq!((row.op, row.what, row.shape, row.bytes, row.live), ("square", "input", vec![2, 3], 24, true));
/// drop(y); // the rule, and with it what it kept
/// assert!(!ledger.rows()[0].live);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SavedTensor {
    /// The layer that ended next: its own for what a layer keeps, the following one's for functions between layers. Empty
    /// behind the last.
    pub layer: String,
    /// The operation.
    pub op: &'static str,
    /// What of the operation it is, such as `input`.
    pub what: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it is kept.
    pub form: Form,
    /// Bytes kept. Memory that several rules keep counts once, in the first row.
    pub bytes: u64,
    /// Bytes that would be kept if everything were kept whole; once for each tensor.
    pub whole_bytes: u64,
    /// Bytes of the buffer on the device, which may be a size larger; counted as `bytes` are.
    pub buffer_bytes: u64,
    /// Whether it is still kept.
    pub live: bool,
}

#[derive(Default)]
struct Book {
    rows: Vec<SavedTensor>,
    ignored: Vec<u64>,
    /// Rules that keep a piece of memory, and its bytes.
    uses: HashMap<(u64, u64), (usize, u64)>,
    /// Tensors whose whole size was counted.
    sources: HashMap<(u64, u64), ()>,
    live: u64,
    peak: u64,
    /// The first row without a layer.
    unnamed: usize,
}

/// An account of what backward rules keep, tensor by tensor: opened around a forward pass, it follows what is kept there
/// until it is let go of.
///
/// ```no_run
/// # fn step(arena: &shadegrad::nn::Arena, x: &shadegrad::Tensor) -> shadegrad::Result<()> {
/// use shadegrad::autograd::Ledger;
/// let ledger = Ledger::new(&[arena.values_flat()]);
/// let loss = ledger.watch(|| x.gelu()?.mean_all())?;
/// println!("{} bytes kept", ledger.live());
/// arena.backward(&loss)?;
/// assert_eq!(ledger.live(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// An empty account. Views of the tensors `ignored` do not count: an arena's values, which are there anyway.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let (x, c) = (Tensor::ones(&gpu, &[4])?.leaf(), Tensor::ones(&gpu, &[4])?);
    /// let kept = |ignored: &[&Tensor]| {
    ///     let ledger = Ledger::new(ignored);
    ///     let _y = ledger.watch(|| x.mul(&c))?;
    ///     Ok::<_, Error>(ledger.live())
    /// };
    /// assert_eq!((kept(&[])?, kept(&[&c])?), (16, 0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(ignored: &[&Tensor]) -> Self {
        let ledger = Self::default();
        ledger.book().ignored = ignored.iter().map(|t| t.storage().serial()).collect();
        ledger
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` with this account open on this thread, in place of any other.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let x = Tensor::ones(&gpu, &[4])?.leaf();
    /// let ledger = Ledger::new(&[]);
    /// let y = x.square()?; // not watched
    /// let z = ledger.watch(|| y.square())?;
    /// assert_eq!((ledger.rows().len(), z.to_vec()?), (1, vec![1.0; 4]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn watch<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Guard(Option<Ledger>);
        impl Drop for Guard {
            fn drop(&mut self) {
                LEDGER.set(self.0.take());
            }
        }
        let _guard = Guard(LEDGER.replace(Some(self.clone())));
        f()
    }

    /// All that was kept so far, in order.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let x = Tensor::ones(&gpu, &[4])?.leaf();
    /// let ledger = Ledger::new(&[]);
    /// let _y = ledger.watch(|| x.square()?.exp())?;
    /// let what: Vec<_> = ledger.rows().iter().map(|r| (r.op, r.what)).collect();
    /// assert_eq!(what, [("square", "input"), ("exp", "result")]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rows(&self) -> Vec<SavedTensor> {
        self.book().rows.clone()
    }

    /// Bytes that are kept now.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::{Ledger, grad};
    /// let x = Tensor::ones(&gpu, &[4])?.leaf();
    /// let ledger = Ledger::new(&[]);
    /// let loss = ledger.watch(|| x.square()?.sum_all())?;
    /// assert_eq!(ledger.live(), 16);
    /// grad(&loss, &[&x])?; // the backward pass lets go of it
    /// assert_eq!(ledger.live(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn live(&self) -> u64 {
        self.book().live
    }

    /// The most bytes that were kept at once.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let x = Tensor::ones(&gpu, &[4])?.leaf();
    /// let ledger = Ledger::new(&[]);
    /// ledger.watch(|| x.square())?; // the result is dropped at once
    /// assert_eq!((ledger.live(), ledger.peak()), (0, 16));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn peak(&self) -> u64 {
        self.book().peak
    }

    /// Forgets the rows; what is still kept stays counted.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let x = Tensor::ones(&gpu, &[4])?.leaf();
    /// let ledger = Ledger::new(&[]);
    /// let _y = ledger.watch(|| x.square())?;
    /// ledger.clear();
    /// assert_eq!((ledger.rows().len(), ledger.live()), (0, 16));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clear(&self) {
        let mut book = self.book();
        book.rows.clear();
        book.sources.clear();
        book.unnamed = 0;
        book.peak = book.live;
    }
}

/// Notes that the layer `name` ended: what was kept since the last one is on its account.
pub(super) fn leave_layer(name: &str) {
    LEDGER.with_borrow(|l| {
        if let Some(ledger) = l {
            let mut book = ledger.book();
            let first = book.unnamed;
            book.rows[first..].iter_mut().for_each(|r| r.layer = name.to_string());
            book.unnamed = book.rows.len();
        }
    });
}

/// Takes a row's bytes off the account when the rule lets go of them.
struct Entry {
    ledger: Ledger,
    key: (u64, u64),
    row: (usize, &'static str),
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        if let Some((uses, bytes)) = book.uses.get_mut(&self.key) {
            *uses -= 1;
            if *uses == 0 {
                let bytes = *bytes;
                book.uses.remove(&self.key);
                book.live -= bytes;
            }
        }
        // The rows may have been cleared meanwhile, and be those of another pass.
        if let Some(row) = book.rows.get_mut(self.row.0).filter(|r| r.op == self.row.1) {
            row.live = false;
        }
    }
}

fn key(t: &Tensor) -> (u64, u64) {
    (t.storage().serial(), t.storage().offset())
}

/// Writes a row: `kept` (if anything) is kept in place of `source`, of which `whole` bytes would be.
fn note(
    (op, what): (&'static str, &'static str),
    kept: Option<&Tensor>,
    form: Form,
    source: Option<&Tensor>,
) -> Option<Entry> {
    let ledger = LEDGER.with_borrow(Clone::clone)?;
    let shown = source.or(kept)?;
    let mut book = ledger.book();
    let known = |t: &Tensor, book: &Book| book.ignored.contains(&t.storage().serial());
    if known(shown, &book) {
        return None;
    }
    let whole_bytes = match source {
        Some(t) if book.sources.insert(key(t), ()).is_none() => t.storage().bytes(),
        _ => 0,
    };
    let (mut bytes, mut buffer_bytes) = (0, 0);
    if let Some(t) = kept {
        let uses = book.uses.entry(key(t)).or_insert((0, t.storage().bytes()));
        uses.0 += 1;
        if uses.0 == 1 {
            (bytes, buffer_bytes) = (t.storage().bytes(), t.storage().buffer_bytes());
        }
    }
    book.live += bytes;
    book.peak = book.peak.max(book.live);
    let (shape, live) = (shown.shape().to_vec(), kept.is_some());
    let row = (book.rows.len(), op);
    book.rows.push(SavedTensor { layer: String::new(), op, what, shape, form, bytes, whole_bytes, buffer_bytes, live });
    drop(book);
    kept.map(|t| Entry { ledger, key: key(t), row })
}

/// Makes what one operation saves.
pub(crate) struct Keeper {
    op: &'static str,
    on: bool,
}

impl Keeper {
    /// For the operation `op` on these inputs: saves nothing if its rule will not be recorded.
    pub(crate) fn new(op: &'static str, inputs: &[&Tensor]) -> Self {
        Self { op, on: recording() && inputs.iter().any(|t| t.requires_grad()) }
    }

    /// How to keep things, if they are kept at all and not simply whole.
    pub(crate) fn compact(&self) -> Option<Compact> {
        COMPACT.get().filter(|_| self.on)
    }

    fn saved(&self, kept: Kept, shape: &[usize], entry: Option<Entry>) -> Saved {
        Saved { op: self.op, kept, shape: shape.into(), _entry: entry }
    }

    /// Saves all of `t`.
    pub(crate) fn whole(&self, what: &'static str, t: &Tensor) -> Saved {
        if !self.on {
            return self.saved(Kept::Nothing, t.shape(), None);
        }
        self.saved(Kept::Whole(t.clone()), t.shape(), note((self.op, what), Some(t), Form::Whole, Some(t)))
    }

    /// Saves all of `t`, as halves in a mixed region; [`Saved::floats`] gives it back.
    pub(crate) fn half(&self, what: &'static str, t: &Tensor) -> Result<Saved> {
        if !self.on {
            return Ok(self.saved(Kept::Nothing, t.shape(), None));
        }
        let kept = t.keep()?;
        let entry = note((self.op, what), Some(&kept), Form::Whole, Some(t));
        Ok(self.saved(Kept::Whole(kept), t.shape(), entry))
    }

    /// Saves all of `t` if `wanted`, and otherwise nothing.
    pub(crate) fn whole_if(&self, wanted: bool, what: &'static str, t: &Tensor) -> Saved {
        if wanted { self.whole(what, t) } else { self.spared(what, t) }
    }

    /// Saves nothing of `t`, which would be needed for a gradient that nobody wants.
    pub(crate) fn spared(&self, what: &'static str, t: &Tensor) -> Saved {
        if self.on {
            note((self.op, what), None, Form::Spared, Some(t));
        }
        self.saved(Kept::Nothing, t.shape(), None)
    }

    /// Saves `t` in few bits, those that it has already if it has them.
    pub(crate) fn packed(&self, what: &'static str, t: &Tensor, how: Quantizer) -> Result<Saved> {
        if !self.on {
            return Ok(self.saved(Kept::Nothing, t.shape(), None));
        }
        let words = match t.packed() {
            Some((words, own)) if *own == how => words.clone(),
            _ => t.detach().quantize(how)?,
        };
        let entry = note((self.op, what), Some(&words), Form::Packed(how), Some(t));
        Ok(self.saved(Kept::Packed(words, how), t.shape(), entry))
    }

    /// Saves `part` in place of `source`, if it stands for one.
    pub(crate) fn part(&self, what: &'static str, part: &Tensor, source: Option<&Tensor>) -> Saved {
        if !self.on {
            return self.saved(Kept::Nothing, part.shape(), None);
        }
        let entry = note((self.op, what), Some(part), Form::Part, source);
        self.saved(Kept::Whole(part.clone()), part.shape(), entry)
    }
}

enum Kept {
    Nothing,
    Whole(Tensor),
    Packed(Tensor, Quantizer),
}

/// What a backward rule has of a tensor.
pub(crate) struct Saved {
    op: &'static str,
    kept: Kept,
    shape: Shape,
    _entry: Option<Entry>,
}

impl Saved {
    /// The shape that the tensor had.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The tensor: whole, or what is left of it.
    ///
    /// # Errors
    /// If gradients of gradients need what was not kept whole.
    pub(crate) fn get(&self, ctx: &Ctx) -> Result<Tensor> {
        match &self.kept {
            Kept::Whole(t) => Ok(t.clone()),
            Kept::Packed(words, how) => {
                self.only_once(ctx)?;
                words.dequantize(*how, &self.shape)
            }
            Kept::Nothing => Err(Error::Gradient(format!(
                "`{}` kept nothing of {:?}, since no input that needs it was trained when it ran",
                self.op, self.shape
            ))),
        }
    }

    /// [`Saved::get`] in 32 bits, whatever it was kept in.
    pub(crate) fn floats(&self, ctx: &Ctx) -> Result<Tensor> {
        self.get(ctx)?.cast(DType::F32)
    }

    /// The words, if it was packed, after the check of [`Saved::get`].
    pub(crate) fn words(&self, ctx: &Ctx) -> Result<Option<(&Tensor, Quantizer)>> {
        match &self.kept {
            Kept::Packed(words, how) => {
                self.only_once(ctx)?;
                Ok(Some((words, *how)))
            }
            _ => Ok(None),
        }
    }

    /// Refuses gradients of gradients.
    pub(crate) fn only_once(&self, ctx: &Ctx) -> Result<()> {
        if !ctx.create_graph() {
            return Ok(());
        }
        Err(Error::Gradient(format!(
            "`{}` did not keep {:?} whole, so its gradient cannot be differentiated again; run the forward pass outside \
             `keep_compactly`",
            self.op, self.shape
        )))
    }

    /// The words of a packed tensor, for others that keep the same.
    pub(crate) fn pack(&self) -> Option<Arc<(Tensor, Quantizer)>> {
        match &self.kept {
            Kept::Packed(words, how) => Some(Arc::new((words.clone(), *how))),
            _ => None,
        }
    }
}

/// Operations that show their input under another shape or order.
const VIEWS: &[&str] = &["reshape", "permute", "broadcast_to", "slice", "identity", "flat_take"];

/// Follows a tensor back through single-input operations called `through`.
fn origin(t: &Tensor, through: &[&str]) -> Option<Arc<Node>> {
    let mut node = t.0.node.clone()?;
    while through.contains(&node.name()) {
        let Some(next) = node.inputs().first().cloned().flatten() else { break };
        node = next;
    }
    Some(node)
}

/// Whether it is a leaf, or one in another shape.
pub(crate) fn is_parameter(t: &Tensor) -> bool {
    origin(t, VIEWS).is_some_and(|n| n.name() == "leaf")
}

/// Whether it comes out of one of these operations, but for dropout and shape.
pub(crate) fn comes_from(t: &Tensor, ops: &[&str]) -> bool {
    origin(t, &[VIEWS, &["dropout"]].concat()).is_some_and(|n| ops.contains(&n.name()))
}
