//! Draws the dashboard.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LineGauge, Paragraph, Row, Sparkline, Table};

use super::state::{Curve, Kernels, Now, State};
use crate::report::{bytes, duration, thousands};

/// Below these there is room for text only.
const WIDTH: u16 = 60;
const HEIGHT: u16 = 18;

/// Series by number, of the sixteen colours that every terminal has.
const COLOURS: [Color; 2] = [Color::Cyan, Color::Yellow];

/// Draws all of it.
pub fn draw(frame: &mut Frame, state: &State) {
    let area = frame.area();
    if area.width < WIDTH || area.height < HEIGHT {
        return small(frame, state, area);
    }
    let [head, gauge, charts, middle, log, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(3),
        Constraint::Length(9),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Line::from(state.title.as_str()).bold(), head);
    progress(frame, state, gauge);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let losses = [("training", &state.loss), ("test", &state.test_loss)];
    chart(frame, left, "Loss by step", &losses, state.steps as f64);
    let epochs = state.now.as_ref().map_or(0, |n| n.epochs);
    chart(frame, right, "Test accuracy by epoch, %", &[("", &state.accuracy)], epochs as f64);
    let [left, right] = Layout::horizontal([Constraint::Length(40), Constraint::Fill(1)]).areas(middle);
    figures(frame, state, left);
    kernels(frame, state, right);
    lines(frame, state, log);
    frame.render_widget(keys(), foot);
}

fn keys() -> Line<'static> {
    Line::from("q: give the terminal back, the run goes on   Ctrl-C: save and end").dark_gray()
}

/// What fits a terminal of any size.
fn small(frame: &mut Frame, state: &State, area: Rect) {
    let mut all = vec![Line::from(state.title.as_str()).bold()];
    match &state.now {
        None => all.push(Line::from("the first step is on its way")),
        Some(n) => {
            all.push(Line::from(format!("step {}/{}  epoch {}/{}", n.step, state.steps, n.epoch, n.epochs)));
            let (memory, left) = (bytes(n.live), duration(n.left));
            all.push(Line::from(format!("loss {:.4}  {:.0} images/s  left {left}  memory {memory}", n.loss, n.rate)));
        }
    }
    let room = usize::from(area.height).saturating_sub(all.len() + 1);
    all.extend(state.lines.iter().rev().take(room).rev().map(|l| Line::from(l.as_str())));
    all.push(keys());
    frame.render_widget(Paragraph::new(all), area);
}

fn progress(frame: &mut Frame, state: &State, area: Rect) {
    let (ratio, label) = match &state.now {
        None => (0.0, "the first step is on its way; it compiles the kernels".to_string()),
        Some(n) => {
            let (left, so_far) = (duration(n.left), duration(n.seconds));
            (
                n.step as f64 / state.steps.max(1) as f64,
                format!(
                    "step {}/{}  epoch {}/{}  {so_far} so far, {left} left",
                    thousands(n.step as usize),
                    thousands(state.steps as usize),
                    n.epoch,
                    n.epochs
                ),
            )
        }
    };
    let gauge =
        LineGauge::default().ratio(ratio.clamp(0.0, 1.0)).label(label).filled_style(Style::new().fg(COLOURS[0]));
    frame.render_widget(gauge, area);
}

/// A number short enough for an axis.
fn short(v: f64) -> String {
    match v.abs() {
        a if a >= 1e5 => format!("{v:.1e}"),
        a if a >= 100.0 || v == 0.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        a if a >= 0.01 => format!("{v:.3}"),
        _ => format!("{v:.1e}"),
    }
}

/// Curves over each other, from 0 to `end` if the run is known to go so far.
fn chart(frame: &mut Frame, area: Rect, title: &str, curves: &[(&str, &Curve)], end: f64) {
    let block = Block::bordered().title(title.to_string());
    let points = || curves.iter().flat_map(|c| &c.1.points);
    if points().next().is_none() {
        frame.render_widget(Paragraph::new("nothing yet").dark_gray().block(block), area);
        return;
    }
    let [mut low, mut high] = points().fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], p| [l.min(p.1), h.max(p.1)]);
    let room = if high > low { 0.05 * (high - low) } else { 0.05 * high.abs().max(1.0) };
    // What cannot be negative has no axis below zero.
    low = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
    high += room;
    let last = points().fold(end.max(1.0), |m, p| m.max(p.0));
    let sets = curves.iter().enumerate().map(|(i, (name, curve))| {
        // A single point has no line.
        let kind = if curve.points.len() > 1 { GraphType::Line } else { GraphType::Scatter };
        let set = Dataset::default().marker(Marker::Braille).graph_type(kind).data(&curve.points);
        set.name(*name).style(Style::new().fg(COLOURS[i % COLOURS.len()]))
    });
    let x = Axis::default().bounds([0.0, last]).labels(["0".to_string(), thousands(last as usize)]);
    let y = Axis::default().bounds([low, high]).labels([short(low), short(0.5 * (low + high)), short(high)]);
    let mut chart = Chart::new(sets.collect()).block(block).x_axis(x).y_axis(y);
    chart = chart.hidden_legend_constraints((Constraint::Percentage(50), Constraint::Percentage(50)));
    if curves.len() < 2 {
        chart = chart.legend_position(None);
    }
    frame.render_widget(chart, area);
}

fn figures(frame: &mut Frame, state: &State, area: Rect) {
    let block = Block::bordered().title("Now");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let now = state.now.clone().unwrap_or(Now { loss: f64::NAN, lr: f64::NAN, rate: f64::NAN, ..Now::default() });
    let known = |v: f64, text: String| if v.is_finite() { text } else { "-".into() };
    let rows = [
        ("loss", known(now.loss, format!("{:.4}", now.loss))),
        ("learning rate", known(now.lr, format!("{:.3e}", now.lr))),
        ("best test", state.best.map_or("-".into(), |(a, e)| format!("{:.2} % (epoch {e})", 100.0 * a))),
        ("memory", format!("{}, at most {}", bytes(now.live), bytes(now.peak))),
        ("data wait", format!("{:.0} %", 100.0 * now.data_wait)),
        ("images/s", known(now.rate, thousands(now.rate.round() as usize))),
    ];
    let row = |(name, value): (&'static str, String)| {
        Line::from(vec![Span::from(format!("{name:<14}")).dark_gray(), Span::from(value)])
    };
    let [text, spark] = Layout::vertical([Constraint::Length(6), Constraint::Fill(1)]).areas(inside);
    frame.render_widget(Paragraph::new(rows.map(row).to_vec()), text);
    let rates: Vec<u64> = state.rate.points.iter().rev().take(usize::from(spark.width)).map(|p| p.1 as u64).collect();
    let rates: Vec<u64> = rates.into_iter().rev().collect();
    frame.render_widget(Sparkline::default().data(&rates).style(Style::new().fg(COLOURS[0])), spark);
}

fn kernels(frame: &mut Frame, state: &State, area: Rect) {
    let (step, ms, rows) = match &state.kernels {
        Kernels::Step { step, ms, rows } => (step, ms, rows),
        other => {
            let text = match other {
                Kernels::Never => "this device measures no times",
                _ => "measured in a step now and then",
            };
            let block = Block::bordered().title("Kernels");
            frame.render_widget(Paragraph::new(text).dark_gray().block(block), area);
            return;
        }
    };
    let title = format!("Kernels of step {}: {ms:.1} ms", thousands(*step as usize));
    let shown = rows.iter().take(usize::from(area.height).saturating_sub(2)).map(|r| {
        Row::new([
            r.name.clone(),
            format!("{:>3} x", r.count),
            format!("{:>8.2} ms", r.ms),
            format!("{:>4.0} %", 100.0 * r.share),
        ])
    });
    let widths = [Constraint::Fill(1), Constraint::Length(5), Constraint::Length(11), Constraint::Length(6)];
    frame.render_widget(Table::new(shown, widths).block(Block::bordered().title(title)), area);
}

/// The last of what would have been printed.
fn lines(frame: &mut Frame, state: &State, area: Rect) {
    let block = Block::bordered().title("Said");
    let room = usize::from(block.inner(area).height);
    let shown: Vec<Line> = state.lines.iter().rev().take(room).rev().map(|l| Line::from(l.as_str())).collect();
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use shadegrad::kernels::{KernelTime, Profile};
    use shadegrad::train::{EpochEnd, Evaluation, Progress};

    use super::*;
    use crate::runs::Log;

    /// The letters on a terminal of a size, without spaces at the ends of lines.
    fn shown(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_string() + "\n").collect()
    }

    fn empty() -> State {
        State::new("cnn on digits: a device".into(), 450, &Log::default())
    }

    /// In the middle of a run of 10 epochs of 45 steps.
    fn running() -> State {
        let mut state = empty();
        state.line("31 kernels compiled: 1.3 s");
        for step in 1..=225u64 {
            let now = Progress {
                epoch: 1 + (step - 1) / 45,
                epochs: 10,
                step,
                steps: 450,
                loss: 0.1 + 2.2 / (1.0 + step as f64 / 30.0),
                lr: 1e-3,
                seconds: 0.1 * step as f64,
                rate: 800.0 + 4.0 * (step % 50) as f64,
                left: 0.1 * (450 - step) as f64,
                data_wait: 0.04,
                memory: 16 << 20,
            };
            state.progress(&now, 12 << 20);
            if step % 45 == 0 {
                let epoch = step / 45;
                let accuracy = 1.0 - 0.5f64.powi(epoch as i32 + 1);
                let test = Evaluation {
                    count: 360,
                    loss: 1.0 / epoch as f64,
                    accuracy,
                    top5: None,
                    ece: 0.1,
                    brier: 0.1,
                    logits: Vec::new(),
                };
                let end = EpochEnd {
                    epoch,
                    epochs: 10,
                    step,
                    train_loss: 1.0,
                    lr: 1e-3,
                    test: Some(test),
                    seconds: 1.0,
                    rate: 800.0,
                };
                state.epoch(&end);
                state.line(&format!("epoch {epoch}/10  test accuracy {:.2} %", 100.0 * accuracy));
            }
        }
        let kernel = |name: &str, count, ms: f64| KernelTime {
            name: name.into(),
            count,
            seconds: ms * 1e-3,
            ..KernelTime::default()
        };
        let all = vec![kernel("conv_fwd", 3, 12.0), kernel("conv_wgrad", 3, 9.0), kernel("bn_apply_relu", 3, 3.0)];
        state.kernels(180, Some(&Profile { kernels: all, ..Profile::default() }));
        state
    }

    /// Compares with a file beside this one; the message of a failure is the new content.
    fn same(name: &str, now: &str, then: &str) {
        assert!(now == then, "snapshots/{name} is now:\n{now}");
    }

    #[test]
    fn before_the_first_step() {
        same("start.txt", &shown(&empty(), 80, 24), include_str!("snapshots/start.txt"));
    }

    #[test]
    fn in_the_middle_of_a_run() {
        same("running.txt", &shown(&running(), 110, 34), include_str!("snapshots/running.txt"));
    }

    #[test]
    fn on_a_small_terminal() {
        same("small.txt", &shown(&running(), 56, 8), include_str!("snapshots/small.txt"));
        // Any size at all is drawn.
        for (width, height) in [(1, 1), (3, 40), (200, 2), (WIDTH, HEIGHT), (WIDTH, 60), (300, HEIGHT)] {
            shown(&running(), width, height);
        }
    }

    #[test]
    fn where_no_times_are_measured_and_figures_are_missing() {
        let mut state = running();
        state.kernels(0, None);
        assert!(shown(&state, 110, 34).contains("this device measures no times"));
        let mut log = Log::default();
        log.steps.push(crate::runs::StepRecord { step: 20, loss: 2.0, lr: 0.1 });
        let resumed = State::new("resumed".into(), 100, &log);
        let text = shown(&resumed, 110, 34);
        assert!(text.contains("the first step is on its way") && text.contains("training"), "{text}");
    }

    #[test]
    fn numbers_of_an_axis_are_short() {
        let all = [0.0, 0.001, 0.5, 12.34, 123.4, 1_234_567.0].map(short);
        assert_eq!(all, ["0", "1.0e-3", "0.500", "12.3", "123", "1.2e6"]);
    }
}
