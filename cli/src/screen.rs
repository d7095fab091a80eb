//! Who has the terminal: nobody, and then lines are printed as they come, or a dashboard, which must not be written over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has the terminal.
pub trait Screen: Send + Sync {
    /// Shows a line.
    fn line(&self, text: &str);
    /// Gives the terminal back as it was.
    fn restore(&self);
}

static OWNER: Mutex<Option<Arc<dyn Screen>>> = Mutex::new(None);

fn owner() -> MutexGuard<'static, Option<Arc<dyn Screen>>> {
    OWNER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands the terminal to `screen`.
#[cfg_attr(not(feature = "tui"), expect(dead_code))]
pub fn take(screen: Arc<dyn Screen>) {
    *owner() = Some(screen);
}

/// The terminal is nobody's again.
#[cfg_attr(not(feature = "tui"), expect(dead_code))]
pub fn release() {
    *owner() = None;
}

/// Shows a line where a dashboard has the terminal; `false` where none has.
pub fn line(text: &str) -> bool {
    // Not under the lock: the dashboard may be giving the terminal back.
    let screen = owner().clone();
    screen.inspect(|s| s.line(text)).is_some()
}

/// Gives the terminal back, before the process leaves without another word.
pub fn restore() {
    let screen = owner().clone();
    if let Some(screen) = screen {
        screen.restore();
    }
}
