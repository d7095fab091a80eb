//! Finding the operation that first made a NaN or an infinity.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

#[derive(Default)]
struct Watch {
    /// What was found, and the layer whose result came next.
    found: Option<(String, Option<String>)>,
    /// The operation whose backward rule runs.
    backward: Option<&'static str>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Runs `f` on this thread and looks at the result of every operation and at every gradient on the way: the first that
/// holds a NaN or an infinity becomes the error, which names the operation, the layer whose result came next, and
/// whether the backward pass made it. Every result is read from the device, which is many times slower.
///
/// ```no_run
/// # fn step(arena: &shadegrad::nn::Arena, x: &shadegrad::Tensor) -> shadegrad::Result<()> {
/// use shadegrad::autograd::detect_anomaly;
/// detect_anomaly(|| arena.backward(&x.log()?.mean(&[0], false)?))
/// # }
/// ```
///
/// # Errors
/// [`Error::NonFinite`] as said; otherwise those of `f`.
pub fn detect_anomaly<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Puts back what was there, also when `f` panics.
    struct Guard(Option<Watch>);
    impl Drop for Guard {
        fn drop(&mut self) {
            WATCH.set(self.0.take());
        }
    }
    let guard = Guard(WATCH.replace(Some(Watch::default())));
    let result = f();
    let found = WATCH.take().and_then(|w| w.found);
    drop(guard);
    match found {
        Some((text, Some(layer))) => {
            Err(Error::NonFinite(format!("{text}, on the way to the result of the layer `{layer}`")))
        }
        Some((text, None)) => Err(Error::NonFinite(text)),
        None => result,
    }
}

/// Whether anything is still to be found on this thread.
fn searching() -> bool {
    WATCH.with_borrow(|w| w.as_ref().is_some_and(|w| w.found.is_none()))
}

/// How many elements are not finite, as text; `None` if all are.
pub(crate) fn nonfinite(values: &[f32]) -> Option<String> {
    let nan = values.iter().filter(|v| v.is_nan()).count();
    let infinite = values.iter().filter(|v| v.is_infinite()).count();
    (nan + infinite > 0).then(|| format!("{nan} NaN and {infinite} infinite of {} elements", values.len()))
}

fn look_at(tensor: &Tensor, text: impl FnOnce(&str, Option<&'static str>) -> String) {
    if tensor.dtype() != DType::F32 || tensor.numel() == 0 {
        return;
    }
    // A fault of the device is reported by whoever needs the result.
    let Some(count) = tensor.to_vec().ok().and_then(|v| nonfinite(&v)) else { return };
    WATCH.with_borrow_mut(|w| {
        if let Some(w) = w {
            w.found = Some((text(&count, w.backward), None));
        }
    });
}

/// Looks at the result of `op`.
pub(crate) fn look(op: &'static str, result: &Tensor) {
    if searching() {
        look_at(result, |count, backward| match backward {
            Some(of) => format!("`{op}`, in the backward pass of `{of}`, made {count} {:?}", result.shape()),
            None => format!("`{op}` made {count} {:?}", result.shape()),
        });
    }
}

/// Looks at the gradients that the backward rule of `op` returned.
pub(crate) fn look_at_grads(op: &'static str, grads: &[Option<Tensor>]) {
    for (i, g) in grads.iter().enumerate() {
        if let Some(g) = g
            && searching()
        {
            look_at(g, |count, _| {
                format!("the backward pass of `{op}` made {count} {:?}, the gradient of its input {i}", g.shape())
            });
        }
    }
}

/// Notes that the backward rule of `op` runs, and returns what ran before.
pub(crate) fn enter(op: Option<&'static str>) -> Option<&'static str> {
    WATCH.with_borrow_mut(|w| w.as_mut().and_then(|w| std::mem::replace(&mut w.backward, op)))
}

/// Notes that the result of a layer is there: what was found since the last one is in it.
pub(crate) fn leave_layer(name: &str) {
    super::saved::leave_layer(name);
    WATCH.with_borrow_mut(|w| {
        if let Some(Watch { found: Some((_, layer @ None)), backward: None }) = w {
            *layer = Some(name.to_string());
        }
    });
}
