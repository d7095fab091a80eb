//! `shadegrad train --tui`: a run as curves and figures on the whole terminal. A thread of its own draws and listens to
//! the keys, so that a step of any length does not hold it up; the training hands it what it would have printed.
//! `q` or Escape gives the terminal back and the run goes on with plain lines.

mod draw;
mod state;

use std::io::{IsTerminal as _, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::crossterm::{cursor, execute};
use shadegrad::kernels::Profile;
use shadegrad::train::{EpochEnd, Progress};

use crate::failure::usage;
use crate::interrupt;
use crate::report::say;
use crate::runs::Log;
use crate::screen::{self, Screen};
use state::State;

/// How long the thread waits for a key before it looks whether there is something new to draw.
const LISTEN: Duration = Duration::from_millis(150);

/// Whether the terminal is ours, and has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The dashboard of a run. Dropping it gives the terminal back.
pub struct Dashboard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Whether it still has the terminal. Changes with `state` locked.
    attached: AtomicBool,
    /// Set when the run has ended.
    ended: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the terminal back and prints what the dashboard kept to itself.
    fn detach(&self, last: Option<&str>) {
        let state = self.state();
        if self.attached.swap(false, Ordering::SeqCst) {
            restore();
            screen::release();
            for line in &state.lines {
                say(line);
            }
            if let Some(last) = last {
                say(last);
            }
        }
    }
}

impl Screen for Shared {
    fn line(&self, text: &str) {
        let mut state = self.state();
        if self.attached.load(Ordering::SeqCst) {
            state.line(text);
        } else {
            say(text);
        }
    }

    fn restore(&self) {
        restore();
    }
}

/// Gives the terminal back as it was, once.
fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // There is nothing left to try if these fail.
        let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

/// Refuses where there is no terminal to draw on.
pub fn check() -> Result<()> {
    if std::io::stdin().is_terminal() && stdout().is_terminal() {
        return Ok(());
    }
    Err(usage("--tui: standard input and output are no terminal; leave it out, the lines then say the same"))
}

impl Dashboard {
    /// Takes the terminal for a run of `steps` steps that has recorded `log` so far.
    ///
    /// # Errors
    /// If there is no terminal.
    pub fn open(title: String, steps: u64, log: &Log) -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // A message on the other screen would go with it.
                restore();
                before(info);
            }));
        });
        enable_raw_mode().context("--tui: the terminal cannot be set up; leave it out")?;
        TAKEN.store(true, Ordering::SeqCst);
        let taken = execute!(stdout(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        let mut terminal = match taken {
            Ok(terminal) => terminal,
            Err(e) => {
                restore();
                return Err(e).context("--tui: the terminal cannot be drawn on; leave it out");
            }
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(title, steps, log)),
            attached: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        });
        screen::take(shared.clone());
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(move || {
            let said = match watch(&own, &mut terminal) {
                Ok(Left::Ended) => None,
                Ok(Left::Key) => Some("the run goes on; Ctrl-C finishes the step and saves".to_string()),
                // A terminal that went away takes no run with it.
                Err(e) => Some(format!("the dashboard has ended: {e}")),
            };
            own.detach(said.as_deref());
        });
        match thread {
            Ok(thread) => Ok(Self { shared, thread: Some(thread) }),
            Err(e) => {
                shared.detach(None);
                Err(e).context("--tui: no thread for it; leave it out")
            }
        }
    }

    /// Whether it has the terminal; the lines are somebody else's concern from when it has not.
    pub fn attached(&self) -> bool {
        self.shared.attached.load(Ordering::SeqCst)
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        self.shared.line(text);
    }

    /// How the run stands, with `live` bytes in use on the device.
    pub fn progress(&self, now: &Progress, live: u64) {
        self.shared.state().progress(now, live);
    }

    /// What an epoch brought.
    pub fn epoch(&self, end: &EpochEnd) {
        self.shared.state().epoch(end);
    }

    /// The kernels of the step `step`; `None` where the device measures no times.
    pub fn kernels(&self, step: u64, profile: Option<&Profile>) {
        self.shared.state().kernels(step, profile);
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It has printed its own panic.
            let _ = thread.join();
        }
        self.shared.detach(None);
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why the dashboard gave the terminal back.
enum Left {
    /// The run has ended.
    Ended,
    /// Somebody asked for it.
    Key,
}

/// Draws what is new and does what the keys say.
fn watch<W: std::io::Write>(shared: &Shared, terminal: &mut Terminal<CrosstermBackend<W>>) -> std::io::Result<Left> {
    let mut drawn = None;
    while !shared.ended.load(Ordering::SeqCst) {
        {
            let state = shared.state();
            if drawn != Some(state.version) {
                terminal.draw(|frame| draw::draw(frame, &state))?;
                drawn = Some(state.version);
            }
        }
        if !event::poll(LISTEN)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                // The terminal hands it on as a key while it is ours, and sends no signal.
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => interrupt::ask(),
                KeyCode::Char('q') | KeyCode::Esc => return Ok(Left::Key),
                _ => {}
            },
            Event::Resize(..) => drawn = None,
            _ => {}
        }
    }
    Ok(Left::Ended)
}
