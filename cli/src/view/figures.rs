//! Bars, confusion matrices and reliability diagrams.

use shadegrad::metrics::{ConfusionMatrix, ReliabilityBin};

use super::draw::{Anchor, Drawing, Paint, Shape, Stroke, TEXT, shortened, text_width};
use super::plot::{nice_ticks, rounded, with_spread};

const WIDTH: f64 = 560.0;

/// One bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// Standard deviation or the like, drawn to both sides of the end; none for a single measurement.
    pub spread: Option<f64>,
}

/// Level bars from zero, one under the other, with their figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    pub title: String,
    /// What they measure.
    pub x: String,
    pub bars: Vec<Bar>,
}

/// Draws bars. One whose figure is not finite is named but has no length.
pub fn bars(b: &Bars) -> Drawing {
    const ROW: f64 = 24.0;
    let mut d = Drawing::new(&b.title, WIDTH, 0.0);
    let top = d.heading() + 14.0;
    let height = top + 40.0 + ROW * b.bars.len() as f64;
    d.height = height;
    let labels: Vec<String> = b.bars.iter().map(|bar| shortened(&bar.label, 34)).collect();
    let left = 16.0 + labels.iter().map(|l| text_width(l, TEXT)).fold(0.0, f64::max);
    let right = WIDTH - 130.0;
    let ends = b.bars.iter().flat_map(|bar| {
        let spread = bar.spread.filter(|s| s.is_finite()).unwrap_or(0.0);
        [bar.value - spread, bar.value + spread]
    });
    let [mut lo, mut hi] = ends.filter(|v| v.is_finite()).fold([0.0f64, 0.0], |[lo, hi], v| [lo.min(v), hi.max(v)]);
    if hi <= lo {
        [lo, hi] = [0.0, 1.0];
    }
    let at = |v: f64| left + (v - lo) / (hi - lo) * (right - left);
    let bottom = height - 38.0;
    for (v, text) in nice_ticks(lo, hi, 5) {
        d.line([at(v), top], [at(v), bottom], Paint::Grid, 1.0);
        d.text([at(v), bottom + 15.0], &text, TEXT, Anchor::Middle, Paint::Muted);
    }
    for (i, (bar, label)) in b.bars.iter().zip(&labels).enumerate() {
        let y = top + ROW * (i as f64 + 0.5);
        d.text([left - 8.0, y + 4.0], label, TEXT, Anchor::End, Paint::Ink);
        if !bar.value.is_finite() {
            d.text([left + 4.0, y + 4.0], "no figure", TEXT, Anchor::Start, Paint::Muted);
            continue;
        }
        let (from, to) = (at(0.0).min(at(bar.value)), at(0.0).max(at(bar.value)));
        d.rect([from, y - 8.0], [to - from, 16.0], Paint::Series(0), 0.75);
        let mut text = rounded(bar.value);
        if let Some(s) = bar.spread.filter(|s| s.is_finite()) {
            let [a, z] = [at(bar.value - s), at(bar.value + s)];
            d.line([a, y], [z, y], Paint::Ink, 1.5);
            for x in [a, z] {
                d.line([x, y - 4.0], [x, y + 4.0], Paint::Ink, 1.5);
            }
            text = with_spread(bar.value, s);
        }
        d.text([right + 10.0, y + 4.0], &text, TEXT, Anchor::Start, Paint::Ink);
    }
    d.line([at(0.0), top], [at(0.0), bottom], Paint::Muted, 1.0);
    d.text([0.5 * (left + right), height - 6.0], &shortened(&b.x, 60), TEXT, Anchor::Middle, Paint::Ink);
    d
}

/// Draws a confusion matrix: a row for each true class, a column for each prediction, shaded by the share of the row;
/// counts and the names of the classes while there is room for them.
pub fn confusion(title: &str, m: &ConfusionMatrix, names: &[String]) -> Drawing {
    let n = m.classes();
    let with_text = n <= 20;
    let cell = if n <= 12 { 34.0 } else { (420.0 / n.max(1) as f64).max(1.0) };
    let names: Vec<String> = (0..n).map(|c| names.get(c).map_or(c.to_string(), |s| shortened(s, 14))).collect();
    let room = if with_text { names.iter().map(|s| text_width(s, TEXT)).fold(0.0, f64::max) + 8.0 } else { 8.0 };
    let (left, top) = (26.0 + room, 34.0);
    let side = cell * n as f64;
    // Names of columns are turned where they are wider than these.
    let turned = room - 8.0 > cell;
    let under = if !with_text {
        8.0
    } else if turned {
        room
    } else {
        18.0
    };
    let mut d = Drawing::new(title, (left + side + 12.0).max(240.0), top + side + under + 24.0);
    d.heading();
    for y in 0..n {
        let support = m.support(y);
        for p in 0..n {
            let count = m.count(y, p);
            let share = count as f64 / support.max(1) as f64;
            let at = [left + p as f64 * cell, top + y as f64 * cell];
            if count > 0 {
                // Few are to be seen, too.
                let paint = if y == p { Paint::Series(0) } else { Paint::Series(1) };
                d.rect(at, [cell, cell], paint, 0.08 + 0.92 * share);
            }
            if with_text {
                let paint = if count == 0 {
                    Paint::Grid
                } else if share > 0.5 {
                    Paint::Paper
                } else {
                    Paint::Ink
                };
                let size = if n <= 12 { TEXT } else { 9.0 };
                d.text([at[0] + 0.5 * cell, at[1] + 0.5 * cell + 4.0], &count.to_string(), size, Anchor::Middle, paint);
            }
        }
    }
    let corners = vec![[left, top], [left + side, top], [left + side, top + side], [left, top + side], [left, top]];
    d.shapes.push(Shape::Path { points: corners, stroke: Stroke { paint: Paint::Muted, width: 1.0, dash: 0.0 } });
    if with_text {
        for (c, name) in names.iter().enumerate() {
            let middle = (c as f64 + 0.5) * cell;
            d.text([left - 6.0, top + middle + 4.0], name, TEXT, Anchor::End, Paint::Muted);
            if turned {
                upright(&mut d, [left + middle + 4.0, top + side + 6.0], name, Anchor::End, Paint::Muted);
            } else {
                d.text([left + middle, top + side + 15.0], name, TEXT, Anchor::Middle, Paint::Muted);
            }
        }
    }
    upright(&mut d, [16.0, top + 0.5 * side], "true class", Anchor::Middle, Paint::Ink);
    let below = d.height - 8.0;
    d.text([left + 0.5 * side, below], "predicted class", TEXT, Anchor::Middle, Paint::Ink);
    d
}

fn upright(d: &mut Drawing, at: [f64; 2], text: &str, anchor: Anchor, paint: Paint) {
    d.shapes.push(Shape::Text { at, text: text.to_string(), size: TEXT, anchor, paint, turned: true });
}

/// Draws a reliability diagram: how often predictions of each confidence are right, over how many of them there are.
/// On the diagonal confidence is what it says (Guo et al., "On calibration of modern neural networks", 2017).
pub fn reliability(title: &str, bins: &[ReliabilityBin]) -> Drawing {
    const SIDE: f64 = 280.0;
    const LEFT: f64 = 64.0;
    const TOP: f64 = 50.0;
    const SHARES: f64 = 60.0;
    let mut d = Drawing::new(title, LEFT + SIDE + 20.0, TOP + SIDE + SHARES + 62.0);
    d.heading();
    d.text([8.0, 38.0], "bars: share that is right; dots: at the mean confidence", 11.0, Anchor::Start, Paint::Muted);
    let (x, y) = (|v: f64| LEFT + v * SIDE, |v: f64| TOP + (1.0 - v) * SIDE);
    let base = TOP + SIDE + 10.0 + SHARES;
    for i in 0..=5 {
        let v = f64::from(i) / 5.0;
        d.line([x(0.0), y(v)], [x(1.0), y(v)], Paint::Grid, 1.0);
        d.text([LEFT - 6.0, y(v) + 4.0], &format!("{v:.1}"), TEXT, Anchor::End, Paint::Muted);
        d.text([x(v), base + 16.0], &format!("{v:.1}"), TEXT, Anchor::Middle, Paint::Muted);
    }
    let total: usize = bins.iter().map(|b| b.count).sum();
    let width = 1.0 / bins.len().max(1) as f64;
    for (i, bin) in bins.iter().enumerate().filter(|(_, b)| b.count > 0) {
        let (from, w) = (x(i as f64 * width) + 1.0, SIDE * width - 2.0);
        d.rect([from, y(bin.accuracy)], [w, y(0.0) - y(bin.accuracy)], Paint::Series(0), 0.45);
        let share = bin.count as f64 / total as f64 * SHARES;
        d.rect([from, base - share], [w, share], Paint::Muted, 0.6);
    }
    let stroke = Stroke { paint: Paint::Ink, width: 1.2, dash: 4.0 };
    d.shapes.push(Shape::Path { points: vec![[x(0.0), y(0.0)], [x(1.0), y(1.0)]], stroke });
    for bin in bins.iter().filter(|b| b.count > 0) {
        let at = [x(bin.confidence), y(bin.accuracy)];
        d.shapes.push(Shape::Dot { at, radius: 3.5, paint: Paint::Series(1), opacity: 1.0 });
    }
    d.line([x(0.0), y(0.0)], [x(1.0), y(0.0)], Paint::Muted, 1.0);
    d.line([x(0.0), base], [x(1.0), base], Paint::Muted, 1.0);
    upright(&mut d, [18.0, TOP + 0.5 * SIDE], "accuracy", Anchor::Middle, Paint::Ink);
    upright(&mut d, [18.0, base - 0.5 * SHARES], "share", Anchor::Middle, Paint::Ink);
    d.text([x(0.5), base + 36.0], "confidence", TEXT, Anchor::Middle, Paint::Ink);
    d
}

#[cfg(test)]
mod tests {
    use shadegrad::metrics::{Scores, reliability_bins};

    use super::*;

    fn texts(d: &Drawing) -> Vec<&str> {
        d.shapes
            .iter()
            .filter_map(|s| if let Shape::Text { text, .. } = s { Some(text.as_str()) } else { None })
            .collect()
    }

    #[test]
    fn bars_carry_their_figures() {
        let bar = |label: &str, value, spread| Bar { label: label.into(), value, spread };
        let b = Bars {
            title: "Accuracy".into(),
            x: "%".into(),
            bars: vec![bar("base", 91.25, Some(0.5)), bar("worse", -3.0, None), bar("none", f64::NAN, None)],
        };
        let d = bars(&b);
        for word in ["base", "91.25 ± 0.50", "-3", "no figure", "%"] {
            assert!(texts(&d).contains(&word), "{word}: {:?}", texts(&d));
        }
        assert!(!d.inline_svg().contains("NaN"));
        assert!(!bars(&Bars::default()).inline_svg().contains("NaN"));
    }

    #[test]
    fn confusion_shows_counts_while_they_fit() {
        let mut m = ConfusionMatrix::of(3);
        m.add_predictions(&[0, 0, 1, 1, 2], &[0, 0, 0, 1, 2]).unwrap();
        let d = confusion("Confusion", &m, &["cat".into(), "dog".into(), "newt".into()]);
        assert_eq!(texts(&d).iter().filter(|t| t.parse::<u64>().is_ok()).count(), 9);
        assert_eq!(texts(&d).iter().filter(|t| **t == "newt").count(), 2);
        assert_eq!(d.shapes.iter().filter(|s| matches!(s, Shape::Area { .. })).count(), 4);
        let many = confusion("Confusion", &ConfusionMatrix::of(100), &[]);
        assert!(many.width < 500.0 && texts(&many).len() == 3, "{:?}", texts(&many));
        assert!(!confusion("None", &ConfusionMatrix::of(0), &[]).inline_svg().contains("NaN"));
    }

    #[test]
    fn reliability_puts_dots_where_the_bins_are() {
        let p = [0.9, 0.1, 0.9, 0.1, 0.6, 0.4];
        let bins = reliability_bins(Scores::probabilities(&p, 2), &[0, 1, 0], 5).unwrap();
        let d = reliability("Calibration", &bins);
        let dots: Vec<[f64; 2]> =
            d.shapes.iter().filter_map(|s| if let Shape::Dot { at, .. } = s { Some(*at) } else { None }).collect();
        assert_eq!(dots.len(), 2);
        // 0.9 confident, right half the time: right of and below the diagonal.
        assert!(
            (dots[1][0] - (64.0 + 0.9 * 280.0)).abs() < 1e-3 && (dots[1][1] - (50.0 + 140.0)).abs() < 1e-3,
            "{dots:?}"
        );
        assert!(!reliability("None", &[]).inline_svg().contains("NaN"));
    }
}
