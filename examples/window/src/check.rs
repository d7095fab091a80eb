//! `--frames`: the window runs by itself, paints some points, and says whether it stayed responsive while it trained: by what
//! was seen in which frame, and with `--times` by the time between frames as well, which other work on the machine disturbs.

use std::time::Instant;

use egui::{Event, Modifiers, PointerButton, Pos2};

use crate::interface::Interface;

/// Frames between two points that are painted.
const EVERY: u64 = 8;

/// What a run by itself has seen so far.
pub struct Check {
    frames: u64,
    /// Whether the times between frames decide, too.
    pub times: bool,
    opened: Instant,
    last: Option<Instant>,
    /// Milliseconds between frames: while the first step was taken on its thread, paused after it, and in training.
    starting: Vec<f64>,
    resting: Vec<f64>,
    training: Vec<f64>,
    /// Seconds until the first step was there.
    first_step: Option<f64>,
    /// Frames in which the device had done steps since the frame before.
    with_steps: u64,
    losses: usize,
    /// Points painted, and of them those that were there when their frame was drawn.
    painted: (u64, u64),
    points: usize,
}

impl Check {
    pub fn new(frames: u64) -> Self {
        Self {
            frames,
            times: false,
            opened: Instant::now(),
            last: None,
            starting: Vec::new(),
            resting: Vec::new(),
            training: Vec::new(),
            first_step: None,
            with_steps: 0,
            losses: 0,
            painted: (0, 0),
            points: 0,
        }
    }

    fn frame(&self) -> u64 {
        self.training.len() as u64
    }

    /// Before a frame: what the pointer does in it. Points of one class in a corner of the other's.
    pub fn events(&mut self, interface: &Interface) -> Vec<Event> {
        self.points = interface.points();
        let n = self.frame() / EVERY;
        let at = interface.field.lerp_inside(egui::vec2(0.06 + 0.035 * (n % 8) as f32, 0.94 - 0.05 * (n / 8) as f32));
        let button = |pressed| Event::PointerButton {
            pos: Pos2::new(at.x, at.y),
            button: PointerButton::Primary,
            pressed,
            modifiers: Modifiers::NONE,
        };
        match self.frame() % EVERY {
            2 => vec![Event::PointerMoved(at)],
            4 => vec![button(true)],
            6 => vec![button(false)],
            _ => Vec::new(),
        }
    }

    /// After a frame; whether the run is over.
    pub fn drawn(&mut self, interface: &mut Interface) -> bool {
        let now = Instant::now();
        let apart = self.last.replace(now).map(|before| (now - before).as_secs_f64() * 1e3);
        if interface.paused {
            self.resting.extend(apart);
            interface.paused = (self.resting.len() as u64) < self.frames / 4;
        } else if self.first_step.is_some() {
            if self.frame() % EVERY == 4 {
                self.painted.0 += 1;
                self.painted.1 += u64::from(interface.points() > self.points);
            }
            self.with_steps += u64::from(interface.losses.len() > self.losses);
            self.losses = interface.losses.len();
            self.training.extend(apart);
        } else {
            self.starting.extend(apart);
            if interface.step().is_some() {
                self.first_step = Some(self.opened.elapsed().as_secs_f64());
                interface.paused = true;
            }
        }
        self.frame() >= self.frames || interface.failure().is_some()
    }

    /// The report, and what was wrong.
    pub fn report(&self, interface: &Interface) -> (String, Vec<String>) {
        let quantile = |times: &[f64], q: f64| {
            let mut sorted = times.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get((sorted.len().saturating_sub(1) as f64 * q) as usize).copied().unwrap_or(f64::NAN)
        };
        let (rest, late) = (quantile(&self.resting, 0.5), quantile(&self.training, 0.95));
        let seconds = self.training.iter().sum::<f64>() / 1e3;
        let longest = self.starting.iter().copied().fold(0.0, f64::max);
        let losses = &interface.losses;
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len().max(1) as f32;
        let ends = (mean(&losses[..losses.len().min(10)]), mean(&losses[losses.len().saturating_sub(10)..]));
        let steps = interface.step().unwrap_or(0);
        let text = format!(
            "first step after {:.1} s; meanwhile {} frames, at most {longest:.0} ms apart\n\
             {} frames and {steps} steps in {seconds:.1} s: {:.1} frames/s, {:.1} steps/s\n\
             frames apart: median {:.1} ms, 95 of 100 within {late:.1} ms, at most {:.1} ms; paused: median {rest:.1} ms\n\
             {} frames with news of steps; {} of {} painted points in the frame of their click\n\
             loss {:.4} -> {:.4}",
            self.first_step.unwrap_or(f64::NAN),
            self.starting.len(),
            self.training.len(),
            self.training.len() as f64 / seconds,
            losses.len() as f64 / seconds,
            quantile(&self.training, 0.5),
            quantile(&self.training, 1.0),
            self.with_steps,
            self.painted.1,
            self.painted.0,
            ends.0,
            ends.1,
        );
        let mut wrong = Vec::new();
        let mut want = |holds: bool, text: &str| {
            if !holds {
                wrong.push(text.to_string());
            }
        };
        want(interface.failure().is_none(), interface.failure().unwrap_or_default());
        want(self.frame() >= self.frames, "the window closed before its frames were drawn");
        // What a step of this network takes on one busy processor beside the drawing, which `rest` measures.
        want(!self.times || late < 4.0 * rest + 50.0, "frames came far later than without training");
        want(self.with_steps * 4 > self.frame(), "in three of four frames no step had been done");
        want(self.painted.1 == self.painted.0 && self.painted.0 > 0, "a click was not seen in its frame");
        want(ends.1 < 0.7 * ends.0, "the loss did not fall");
        (text, wrong)
    }
}
