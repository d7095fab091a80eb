//! Curves and scatter plots.

use super::draw::{Anchor, Drawing, Paint, SERIES, Shape, Stroke, TEXT, shortened, text_width};
use super::{Chart, Series, Style};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 340.0;

/// Points of a curve that are drawn; of more, the extremes of short stretches.
const POINTS: usize = 800;

/// The text that makes an axis logarithmic when its label ends with it.
const LOG: &str = "(log)";

/// Draws a chart. Numbers that are not finite are left out, and interrupt a curve; an axis whose label ends with
/// `(log)` is logarithmic and leaves out those that are not positive.
pub fn chart(c: &Chart) -> Drawing {
    let mut d = Drawing::new(&c.title, WIDTH, HEIGHT);
    let title = d.heading();
    let top = legend(&mut d, c, title) + 12.0;
    let [logx, logy] = [&c.x, &c.y].map(|label| label.trim_end().ends_with(LOG));
    let drawn = |p: &(f64, f64)| plottable(p.0, logx) && plottable(p.1, logy);
    let points = || c.series.iter().flat_map(|s| s.points.iter()).filter(|p| drawn(p));
    let mut ys: Vec<f64> = points().map(|p| p.1).collect();
    for s in &c.series {
        // A band widens the axis where its curve is drawn.
        let band = s.band.iter().flatten().zip(&s.points).filter(|(_, p)| drawn(p));
        ys.extend(band.flat_map(|(b, _)| [b.0, b.1]).filter(|v| plottable(*v, logy)));
    }
    let Some(xr) = range(points().map(|p| p.0)) else {
        d.text([WIDTH / 2.0, HEIGHT / 2.0], "nothing to show yet", TEXT, Anchor::Middle, Paint::Muted);
        return d;
    };
    let yr = range(ys.into_iter()).unwrap_or(xr);
    let scatter = c.style == Style::Scatter;
    let bottom = HEIGHT - 44.0;
    let y = Axis::new(padded(yr, logy, true), logy, bottom, top, 6);
    let labels = y.labels();
    let widest = labels.iter().map(|(_, l)| text_width(l, TEXT)).fold(0.0, f64::max);
    let (left, right) = (widest + 34.0, WIDTH - 16.0);
    let mut x = Axis::new(padded(xr, logx, scatter), logx, left, right, 8);
    // There is no half of an epoch or a step.
    x.whole = points().all(|p| p.0.fract() == 0.0);
    frame(&mut d, c, &x, &y, &labels);
    for (i, s) in c.series.iter().enumerate() {
        if !scatter {
            band(&mut d, s, i, &x, &y);
        }
    }
    for (i, s) in c.series.iter().enumerate() {
        if scatter {
            for p in s.points.iter().filter(|p| drawn(p)) {
                marker(&mut d, [x.at(p.0), y.at(p.1)], i, 0.75);
            }
        } else {
            curve(&mut d, s, i, &x, &y);
        }
    }
    d
}

fn plottable(v: f64, log: bool) -> bool {
    v.is_finite() && (!log || v > 0.0)
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |r: Option<[f64; 2]>, v| Some(r.map_or([v, v], |[lo, hi]| [lo.min(v), hi.max(v)])))
}

/// A range with some air, which does not suggest numbers that cannot be: not below 0 or above 1 for shares.
fn padded([lo, hi]: [f64; 2], log: bool, air: bool) -> [f64; 2] {
    if log {
        let air = if air { (hi / lo).powf(0.04) } else { 1.0 };
        return if hi > lo { [lo / air, hi * air] } else { [lo / 2.0, hi * 2.0] };
    }
    if hi <= lo {
        let by = if lo == 0.0 { 1.0 } else { lo.abs() * 0.1 };
        return [lo - by, hi + by];
    }
    if !air {
        return [lo, hi];
    }
    let by = (hi - lo) * 0.05;
    let low = if lo >= 0.0 && lo < 0.35 * hi { 0.0 } else { lo - by };
    let high = if lo >= 0.0 && hi <= 1.0 { (hi + by).min(1.0) } else { hi + by };
    [low, high]
}

/// From numbers to places.
struct Axis {
    lo: f64,
    hi: f64,
    log: bool,
    from: f64,
    to: f64,
    /// Ticks at most.
    most: usize,
    /// Ticks are whole numbers.
    whole: bool,
}

impl Axis {
    fn new([lo, hi]: [f64; 2], log: bool, from: f64, to: f64, most: usize) -> Self {
        Self { lo, hi, log, from, to, most, whole: false }
    }

    fn at(&self, v: f64) -> f64 {
        let share = if self.log {
            // Below a logarithmic axis is its end.
            (v.max(self.lo) / self.lo).ln() / (self.hi / self.lo).ln()
        } else {
            (v - self.lo) / (self.hi - self.lo)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// The ticks and their texts.
    fn labels(&self) -> Vec<(f64, String)> {
        if self.log {
            return log_ticks(self.lo, self.hi, self.most).into_iter().map(|v| (v, plain(v))).collect();
        }
        let (step, all) = ticks(self.lo, self.hi, self.most, if self.whole { 1.0 } else { 0.0 });
        let largest = self.lo.abs().max(self.hi.abs());
        all.into_iter().map(|v| (v, label(v, step, largest))).collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` and one, from `lo` to `hi`, at least
/// `least` apart; and their distance.
fn ticks(lo: f64, hi: f64, most: usize, least: f64) -> (f64, Vec<f64>) {
    let rough = (hi - lo) / most as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough * 0.999_999)
        .unwrap_or(rough)
        .max(least);
    let first = (lo / step - 1e-9).ceil();
    let count = ((hi / step + 1e-9).floor() - first).max(0.0) as usize + 1;
    (step, (0..count).map(|i| (first + i as f64) * step).collect())
}

/// Round numbers from `lo` to `hi`, about `most` of them, and their texts.
pub fn nice_ticks(lo: f64, hi: f64, most: usize) -> Vec<(f64, String)> {
    Axis::new([lo, hi], false, 0.0, 1.0, most).labels()
}

/// A figure to four digits.
pub fn rounded(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return v.to_string();
    }
    let magnitude = v.abs().log10().floor();
    if !(-4.0..6.0).contains(&magnitude) {
        return short_exponent(v);
    }
    let decimals = (3.0 - magnitude).max(0.0) as usize;
    let text = format!("{v:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A figure and its spread, both to the second digit of the spread.
pub fn with_spread(v: f64, spread: f64) -> String {
    let magnitude = spread.abs().log10().floor();
    if !(-6.0..6.0).contains(&magnitude) {
        return format!("{} ± {}", rounded(v), rounded(spread));
    }
    let decimals = (1.0 - magnitude).max(0.0) as usize;
    format!("{v:.decimals$} ± {spread:.decimals$}")
}

/// Powers of ten, or every second and so on; with their twofold and fivefold if there are less than three.
fn log_ticks(lo: f64, hi: f64, most: usize) -> Vec<f64> {
    let (first, last) = ((lo.log10() - 1e-9).ceil() as i32, (hi.log10() + 1e-9).floor() as i32);
    let stride = ((last - first).max(0) as usize / most + 1) as i32;
    let powers: Vec<f64> = (first..=last).filter(|p| p.rem_euclid(stride) == 0).map(|p| 10f64.powi(p)).collect();
    if powers.len() >= 3 {
        return powers;
    }
    let all = (first - 1..=last).flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p)));
    let within: Vec<f64> = all.filter(|v| *v >= lo * (1.0 - 1e-9) && *v <= hi * (1.0 + 1e-9)).collect();
    if within.len() >= 2 { within } else { vec![lo, hi] }
}

/// A tick's text: as many decimals as the distance needs, thousands and millions short.
fn label(v: f64, step: f64, largest: f64) -> String {
    let (divisor, unit) = match largest {
        l if l >= 1e12 => return format!("{v:e}"),
        l if l >= 1e9 => (1e9, "G"),
        l if l >= 1e6 => (1e6, "M"),
        l if l >= 1e4 => (1e3, "k"),
        l if l < 1e-3 => return if v == 0.0 { "0".into() } else { short_exponent(v) },
        _ => (1.0, ""),
    };
    let decimals = (-(step / divisor).log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize;
    let text = format!("{:.decimals$}", v / divisor);
    // Zero has no sign.
    let text = if text.trim_start_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-') } else { &text };
    if v == 0.0 { text.to_string() } else { format!("{text}{unit}") }
}

/// A number of few digits.
fn plain(v: f64) -> String {
    if (1e-3..1e5).contains(&v) { ((v * 1e6).round() / 1e6).to_string() } else { short_exponent(v) }
}

/// Three digits and an exponent.
fn short_exponent(v: f64) -> String {
    let text = format!("{v:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn frame(d: &mut Drawing, c: &Chart, x: &Axis, y: &Axis, ylabels: &[(f64, String)]) {
    for (v, text) in ylabels {
        let at = y.at(*v);
        d.line([x.from, at], [x.to, at], Paint::Grid, 1.0);
        d.text([x.from - 6.0, at + 4.0], text, TEXT, Anchor::End, Paint::Muted);
    }
    let labels = x.labels();
    // As many texts as fit side by side.
    let widest = labels.iter().map(|(_, l)| text_width(l, TEXT)).fold(1.0, f64::max) + 10.0;
    let fit = ((x.to - x.from) / widest).floor().max(1.0) as usize;
    let every = labels.len().div_ceil(fit).max(1);
    for (i, (v, text)) in labels.iter().enumerate() {
        let at = x.at(*v);
        d.line([at, y.from], [at, y.from + 4.0], Paint::Muted, 1.0);
        if i % every == 0 {
            d.text([at, y.from + 17.0], text, TEXT, Anchor::Middle, Paint::Muted);
        }
    }
    d.line([x.from, y.from], [x.to, y.from], Paint::Muted, 1.0);
    let middle = 0.5 * (y.from + y.to);
    d.text([0.5 * (x.from + x.to), HEIGHT - 8.0], &shortened(&c.x, 70), TEXT, Anchor::Middle, Paint::Ink);
    d.shapes.push(Shape::Text {
        at: [14.0, middle],
        text: shortened(&c.y, 40),
        size: TEXT,
        anchor: Anchor::Middle,
        paint: Paint::Ink,
        turned: true,
    });
}

/// Names of the series in rows under the title; returns where they end.
fn legend(d: &mut Drawing, c: &Chart, title: f64) -> f64 {
    let mut y = title + 8.0;
    if c.series.iter().all(|s| s.name.is_empty()) {
        return y;
    }
    let mut x = 8.0;
    y += 12.0;
    for (i, s) in c.series.iter().enumerate() {
        let name = shortened(&s.name, 60);
        let width = 26.0 + text_width(&name, TEXT) + 14.0;
        if x > 8.0 && x + width > WIDTH {
            x = 8.0;
            y += 16.0;
        }
        match c.style {
            Style::Line => {
                d.shapes.push(Shape::Path { points: vec![[x, y - 4.0], [x + 20.0, y - 4.0]], stroke: stroke(i) })
            }
            Style::Scatter => marker(d, [x + 10.0, y - 4.0], i, 1.0),
        }
        d.text([x + 26.0, y], &name, TEXT, Anchor::Start, Paint::Ink);
        x += width;
    }
    y
}

/// The line of a series: those of the later colours, which are more like the first ones, are dashed, and dotted when the
/// colours repeat.
fn stroke(i: usize) -> Stroke {
    let dash = if i >= SERIES { 2.5 } else { [0.0, 6.0][usize::from(i >= 5)] };
    Stroke { paint: Paint::Series(i), width: 1.8, dash }
}

/// The point of a series: neighbours differ in form, not by colour alone.
fn marker(d: &mut Drawing, [x, y]: [f64; 2], i: usize, opacity: f64) {
    let paint = Paint::Series(i);
    let points = match i % 4 {
        0 => return d.shapes.push(Shape::Dot { at: [x, y], radius: 3.2, paint, opacity }),
        1 => vec![[x - 2.9, y - 2.9], [x + 2.9, y - 2.9], [x + 2.9, y + 2.9], [x - 2.9, y + 2.9]],
        2 => vec![[x, y - 4.0], [x + 3.8, y + 2.8], [x - 3.8, y + 2.8]],
        _ => vec![[x, y - 4.2], [x + 4.2, y], [x, y + 4.2], [x - 4.2, y]],
    };
    d.shapes.push(Shape::Area { points, paint, opacity });
}

fn band(d: &mut Drawing, s: &Series, i: usize, x: &Axis, y: &Axis) {
    let Some(band) = &s.band else { return };
    let ok = |k: usize| {
        let (p, b) = (s.points[k], band[k]);
        plottable(p.0, x.log) && plottable(p.1, y.log) && b.0.is_finite() && b.1.is_finite()
    };
    let n = s.points.len().min(band.len());
    for run in runs(n, ok) {
        let upper = run.clone().map(|k| [x.at(s.points[k].0), y.at(band[k].1)]);
        let lower = run.clone().rev().map(|k| [x.at(s.points[k].0), y.at(band[k].0)]);
        let points = upper.chain(lower).collect();
        d.shapes.push(Shape::Area { points, paint: Paint::Series(i), opacity: 0.16 });
    }
}

fn curve(d: &mut Drawing, s: &Series, i: usize, x: &Axis, y: &Axis) {
    for run in runs(s.points.len(), |k| plottable(s.points[k].0, x.log) && plottable(s.points[k].1, y.log)) {
        let points: Vec<[f64; 2]> = thinned(&s.points[run]).into_iter().map(|p| [x.at(p.0), y.at(p.1)]).collect();
        if let [only] = points[..] {
            // A line of one point would not be seen.
            marker(d, only, i, 1.0);
        } else {
            d.shapes.push(Shape::Path { points, stroke: stroke(i) });
        }
    }
}

/// The stretches of `0..n` for which `ok` holds.
fn runs(n: usize, ok: impl Fn(usize) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut start = None;
    for k in 0..=n {
        match (k < n && ok(k), start) {
            (true, None) => start = Some(k),
            (false, Some(from)) => {
                out.push(from..k);
                start = None;
            }
            _ => {}
        }
    }
    out
}

/// About [`POINTS`] points at the most: of each short stretch the first, lowest, highest and last, so that no peak is
/// lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(POINTS);
    for stretch in points.chunks(points.len().div_ceil(POINTS / 4)) {
        let by = |a: &usize, b: &usize| stretch[*a].1.total_cmp(&stretch[*b].1);
        let (low, high) = ((0..stretch.len()).min_by(by).unwrap_or(0), (0..stretch.len()).max_by(by).unwrap_or(0));
        let mut keep = vec![0, low, high, stretch.len() - 1];
        keep.sort_unstable();
        keep.dedup();
        out.extend(keep.into_iter().map(|k| stretch[k]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.into(), points, band: None }
    }

    fn texts(d: &Drawing) -> Vec<&str> {
        d.shapes
            .iter()
            .filter_map(|s| if let Shape::Text { text, .. } = s { Some(text.as_str()) } else { None })
            .collect()
    }

    fn shown(x: &str, y: &str, style: Style, series: Vec<Series>) -> Drawing {
        chart(&Chart { title: "t".into(), x: x.into(), y: y.into(), style, series })
    }

    #[test]
    fn ticks_are_round_numbers() {
        let texts =
            |lo, hi| Axis::new([lo, hi], false, 0.0, 1.0, 6).labels().into_iter().map(|l| l.1).collect::<Vec<_>>();
        assert_eq!(texts(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(-0.3, 0.25), ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(texts(0.0, 50_000.0), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(texts(1.0, 5.0), ["1", "2", "3", "4", "5"]);
        assert_eq!(texts(0.0, 2.2e-4), ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]);
        assert_eq!(texts(0.92, 0.96), ["0.92", "0.93", "0.94", "0.95", "0.96"]);
    }

    #[test]
    fn epochs_are_whole() {
        let points = vec![(1.0, 1.0), (2.0, 2.0), (3.0, 2.0)];
        let shown = |points| texts(&shown("epoch", "%", Style::Line, vec![series("", points)])).join(" ");
        assert!(shown(points.clone()).contains("1 2 3") && !shown(points).contains("1.5"));
        assert!(shown(vec![(1.0, 1.0), (2.5, 2.0)]).contains("1.2"));
    }

    #[test]
    fn figures_are_as_exact_as_their_spread() {
        assert_eq!(with_spread(88.523, 0.4242), "88.52 ± 0.42");
        assert_eq!(with_spread(1234.5, 56.0), "1234 ± 56");
        assert_eq!(with_spread(0.5, 0.0), "0.5 ± 0");
    }

    #[test]
    fn logarithmic_ticks() {
        let texts = |lo: f64, hi: f64| log_ticks(lo, hi, 6).into_iter().map(plain).collect::<Vec<_>>();
        assert_eq!(texts(1e-3, 10.0), ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(texts(0.15, 3.0), ["0.2", "0.5", "1", "2"]);
        assert_eq!(texts(1e-12, 1.0), ["1e-12", "1e-9", "1e-6", "0.001", "1"]);
        assert_eq!(texts(1.1, 1.9).len(), 2);
    }

    #[test]
    fn a_curve_is_broken_where_there_is_no_number() {
        let points =
            vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.5), (4.0, 1.0), (5.0, f64::INFINITY), (6.0, 1.2)];
        let d = shown("step", "loss", Style::Line, vec![series("", points)]);
        let data = |s: &&Shape| match s {
            Shape::Path { stroke, .. } => stroke.paint == Paint::Series(0),
            Shape::Dot { .. } => true,
            _ => false,
        };
        assert_eq!(d.shapes.iter().filter(data).count(), 3, "two lines and a point");
        assert!(!d.inline_svg().contains("NaN") && !d.inline_svg().contains("inf"));
    }

    #[test]
    fn odd_inputs_are_drawn_too() {
        for points in [vec![], vec![(0.0, f64::NAN)], vec![(1.0, 1.0)], vec![(0.0, 0.0), (1.0, 0.0)], vec![(-1.0, 0.0)]]
        {
            for (x, y) in [("x", "y"), ("x (log)", "y (log)")] {
                for style in [Style::Line, Style::Scatter] {
                    let s = Series { name: "s".into(), points: points.clone(), band: Some(vec![(f64::NAN, 1.0)]) };
                    let svg = shown(x, y, style, vec![s]).inline_svg();
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
                }
            }
        }
        assert!(texts(&shown("x", "y", Style::Line, vec![])).contains(&"nothing to show yet"));
    }

    #[test]
    fn bands_and_legends() {
        let mut s = series("mean of 3 seeds", vec![(0.0, 1.0), (1.0, 2.0)]);
        s.band = Some(vec![(0.5, 1.5), (1.0, 30.0)]);
        let d = shown("epoch", "loss", Style::Line, vec![s, series("other", vec![(0.0, 1.0), (1.0, 1.0)])]);
        assert!(texts(&d).contains(&"mean of 3 seeds") && texts(&d).contains(&"30"), "{:?}", texts(&d));
        let areas = d.shapes.iter().filter(|s| matches!(s, Shape::Area { points, .. } if points.len() == 4)).count();
        assert_eq!(areas, 1);
    }

    #[test]
    fn long_curves_keep_their_peaks() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), (f64::from(i) * 0.01).sin())).collect();
        points[55_555].1 = 7.0;
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS + 8, "{}", kept.len());
        assert!(kept.contains(&(55_555.0, 7.0)) && kept[0] == points[0] && kept.last() == points.last());
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
    }
}
