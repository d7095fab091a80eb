//! Ctrl-C (and the system's request to end): once, the run finishes its step and saves; twice, it leaves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::screen;

/// Requests so far.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Exit status of a run that was asked to end, as shells have it.
pub const STATUS: u8 = 130;

/// Listens from now on.
pub fn listen() -> Result<()> {
    static LISTENING: OnceLock<()> = OnceLock::new();
    if LISTENING.set(()).is_ok() {
        ctrlc::set_handler(ask).context("listening for Ctrl-C")?;
    }
    Ok(())
}

/// A request: the signal, or the key where a dashboard has the terminal.
pub fn ask() {
    const TEXT: &str = "finishing the step and saving; once more leaves at once";
    if ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
        screen::restore();
        std::process::exit(i32::from(STATUS));
    }
    if !screen::line(TEXT) {
        // The terminal shows ^C in the line.
        eprintln!("\n{TEXT}");
    }
}

/// Whether the run was asked to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst) > 0
}
