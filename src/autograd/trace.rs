//! Seeing the operations of any model as they run.

use std::cell::RefCell;

use crate::error::Result;
use crate::tensor::Tensor;

/// An operation that [`trace`] saw.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::trace;
/// let x = Tensor::from_slice(&gpu, &[-1.0, 2.0, -3.0], &[3])?;
/// let (_, seen) = trace(&["relu"], || x.relu()?.mul_scalar(3.0))?;
/// assert_eq!((seen.len(), seen[0].op), (1, "relu"));
/// let dead = seen[0].output.to_vec()?.iter().filter(|v| **v == 0.0).count();
/// assert_eq!(dead, 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Traced {
    /// Its name, such as `relu`, `linear` or `masked_softmax`.
    pub op: &'static str,
    /// What it worked on, as far as gradients could flow there: `linear` has input, weight and bias.
    pub inputs: Vec<Tensor>,
    /// Its result, in the graph where one is recorded: a loss may be made of it.
    pub output: Tensor,
}

struct Wanted {
    /// Names; all operations if empty.
    ops: Vec<String>,
    seen: Vec<Traced>,
}

thread_local! {
    static WANTED: RefCell<Option<Wanted>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread and returns, beside its result, the operations named in `ops` (all if empty) in the order in
/// which they ran: the outputs of every ReLU, or the weights of every attention, of a model that knows nothing of it.
///
/// What was seen is kept alive, so memory is not used twice while `f` runs. Attention forms its weights under a trace:
/// [`Tensor::sdpa`] and [`Tensor::window_attention`] leave out the kernels that never hold them, here and now; what they
/// give is the same to rounding. A trace within a trace takes over until it ends.
///
/// ```no_run
/// # fn maps(model: &dyn shadegrad::nn::Module, cx: &shadegrad::nn::Cx, x: &shadegrad::Tensor) -> shadegrad::Result<()> {
/// use shadegrad::autograd::trace;
/// let (logits, seen) = trace(&["masked_softmax"], || model.forward(cx, x))?;
/// for attention in &seen {
///     println!("weights {:?}", attention.output.shape());
/// }
/// # let _ = logits;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `f`.
pub fn trace<T>(ops: &[&str], f: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Traced>)> {
    /// Puts back what was there, also when `f` panics.
    struct Guard(Option<Wanted>);
    impl Drop for Guard {
        fn drop(&mut self) {
            WANTED.set(self.0.take());
        }
    }
    let wanted = Wanted { ops: ops.iter().map(ToString::to_string).collect(), seen: Vec::new() };
    let guard = Guard(WANTED.replace(Some(wanted)));
    let result = f();
    let seen = WANTED.take().map_or_else(Vec::new, |w| w.seen);
    drop(guard);
    Ok((result?, seen))
}

/// Whether the operation `op` is looked for on this thread.
pub(crate) fn wanted(op: &str) -> bool {
    WANTED.with_borrow(|w| w.as_ref().is_some_and(|w| w.ops.is_empty() || w.ops.iter().any(|o| o == op)))
}

/// Notes an operation that is looked for.
pub(crate) fn note(op: &'static str, inputs: &[&Tensor], output: &Tensor) {
    if !wanted(op) {
        return;
    }
    let inputs = inputs.iter().map(|t| (*t).clone()).collect();
    WANTED.with_borrow_mut(|w| {
        if let Some(w) = w {
            w.seen.push(Traced { op, inputs, output: output.clone() });
        }
    });
}
