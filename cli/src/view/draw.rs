//! Drawings: lists of shapes with colours by their role, written as SVG here and as pixels in [`super::raster`].

use std::fmt::Write as _;

/// What a colour stands for. Each has one value on a light and one on a dark background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// The background.
    Paper,
    /// Text and axes.
    Ink,
    /// Text that steps back.
    Muted,
    /// Lines behind the data.
    Grid,
    /// Data, by the number of its series; colours repeat after [`SERIES`].
    Series(usize),
}

/// Colours of series that differ.
pub const SERIES: usize = 8;

/// Red, green and blue on a light and on a dark background: paper, ink, muted, grid, then the series. The series keep
/// apart for the common kinds of colour blindness by lightness as well as by hue, and have a contrast of at least 4 to
/// the paper.
const COLOURS: [[u32; 2]; 4 + SERIES] = [
    [0xff_ff_ff, 0x14_17_1c],
    [0x1b_1f_24, 0xe6_e9_ee],
    [0x57_60_6a, 0x9a_a4_b0],
    [0xd8_de_e4, 0x33_3a_44],
    [0x00_68_b5, 0x5e_b0_ff],
    [0xc2_50_0a, 0xff_9a_4d],
    [0x00_7a_5a, 0x3f_cf_9f],
    [0xa3_41_8a, 0xe5_8b_d0],
    [0x80_66_00, 0xe3_c2_4a],
    [0x3d_3d_3d, 0xd0_d0_d0],
    [0x5b_4b_c4, 0xa9_9c_ff],
    [0xb3_30_3f, 0xff_85_90],
];

impl Paint {
    fn row(self) -> usize {
        match self {
            Self::Paper => 0,
            Self::Ink => 1,
            Self::Muted => 2,
            Self::Grid => 3,
            Self::Series(i) => 4 + i % SERIES,
        }
    }

    /// Red, green and blue on a light background.
    pub fn rgb(self) -> [u8; 3] {
        let [_, r, g, b] = COLOURS[self.row()][0].to_be_bytes();
        [r, g, b]
    }
}

/// The colours as style rules: class `d<n>` sets the current colour, which every shape uses.
pub fn css() -> String {
    let rules = |theme: usize| {
        COLOURS.iter().enumerate().fold(String::new(), |mut out, (i, c)| {
            let _ = write!(out, ".d{i}{{color:#{:06x}}}", c[theme]);
            out
        })
    };
    format!("{}@media(prefers-color-scheme:dark){{{}}}", rules(0), rules(1))
}

/// Where a text's place lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    pub paint: Paint,
    pub width: f64,
    /// Lengths of strokes and gaps, alike; 0 for none.
    pub dash: f64,
}

/// One shape. Coordinates are in points from the upper left.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Straight lines from point to point.
    Path { points: Vec<[f64; 2]>, stroke: Stroke },
    /// A filled polygon.
    Area { points: Vec<[f64; 2]>, paint: Paint, opacity: f64 },
    /// A filled circle.
    Dot { at: [f64; 2], radius: f64, paint: Paint, opacity: f64 },
    /// One line of text; `at` is on its base line. `turned`: upwards.
    Text { at: [f64; 2], text: String, size: f64, anchor: Anchor, paint: Paint, turned: bool },
}

/// A drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// What it shows, for those who cannot see it.
    pub title: String,
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
}

/// Size of most texts.
pub const TEXT: f64 = 12.0;

/// About how wide a text is.
pub fn text_width(text: &str, size: f64) -> f64 {
    0.58 * size * text.chars().count() as f64
}

/// A text of at most `most` characters, its end left out if need be.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(2)).chain("..".chars()).collect()
}

impl Drawing {
    /// An empty one.
    pub fn new(title: &str, width: f64, height: f64) -> Self {
        Self { title: title.to_string(), width, height, shapes: Vec::new() }
    }

    /// A line of one width and colour.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], paint: Paint, width: f64) {
        self.shapes.push(Shape::Path { points: vec![from, to], stroke: Stroke { paint, width, dash: 0.0 } });
    }

    /// A filled rectangle.
    pub fn rect(&mut self, [x, y]: [f64; 2], [w, h]: [f64; 2], paint: Paint, opacity: f64) {
        let points = vec![[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
        self.shapes.push(Shape::Area { points, paint, opacity });
    }

    /// The drawing's title above it, in two lines if need be; returns the base line of the last one.
    pub fn heading(&mut self) -> f64 {
        const SIZE: f64 = 14.0;
        let most = ((self.width - 16.0) / text_width("x", SIZE)) as usize;
        let mut lines = vec![String::new()];
        for word in self.title.clone().split_whitespace() {
            let last = lines.len() - 1;
            if lines[last].is_empty() {
                lines[last] = word.into();
            } else if last > 0 || lines[last].chars().count() + 1 + word.chars().count() <= most {
                lines[last] += &format!(" {word}");
            } else {
                lines.push(word.into());
            }
        }
        let mut y = 20.0;
        for (i, line) in lines.iter().enumerate() {
            y += if i > 0 { 18.0 } else { 0.0 };
            self.text([8.0, y], &shortened(line, most), SIZE, Anchor::Start, Paint::Ink);
        }
        y
    }

    /// A level text.
    pub fn text(&mut self, at: [f64; 2], text: &str, size: f64, anchor: Anchor, paint: Paint) {
        self.shapes.push(Shape::Text { at, text: text.to_string(), size, anchor, paint, turned: false });
    }

    /// As an element for a page that has the rules of [`css`].
    pub fn inline_svg(&self) -> String {
        // Letters of all drawings of a page are about as large.
        self.svg(&format!(" style=\"max-width:{:.0}px\"", 1.2 * self.width), "")
    }

    /// As a file of its own: with its rules, in a light and a dark version chosen by the viewer.
    pub fn svg_file(&self) -> String {
        let paper =
            format!("<rect class=\"d0\" fill=\"currentColor\" width=\"{}\" height=\"{}\"/>", self.width, self.height);
        let style = format!("<style>{}</style>{paper}", css());
        let size = format!(" width=\"{}\" height=\"{}\"", self.width, self.height);
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", self.svg(&size, &style))
    }

    fn svg(&self, size: &str, before: &str) -> String {
        let title = super::escape(&self.title);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\"{size} viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"system-ui,sans-serif\">{before}",
            number(self.width),
            number(self.height),
        );
        for shape in &self.shapes {
            write_shape(&mut out, shape);
        }
        out.push_str("</svg>");
        out
    }
}

/// A coordinate, to a hundredth of a point.
fn number(v: f64) -> String {
    let text = format!("{v:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn coordinates(points: &[[f64; 2]]) -> String {
    let each: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", number(*x), number(*y))).collect();
    each.join(" ")
}

fn write_shape(out: &mut String, shape: &Shape) {
    // Writing to a string does not fail.
    let _ = match shape {
        Shape::Path { points, stroke } => {
            let dash = if stroke.dash > 0.0 {
                format!(" stroke-dasharray=\"{}\"", number(stroke.dash))
            } else {
                String::new()
            };
            write!(
                out,
                "<polyline class=\"d{}\" points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"{}\" \
                 stroke-linejoin=\"round\"{dash}/>",
                stroke.paint.row(),
                coordinates(points),
                number(stroke.width)
            )
        }
        Shape::Area { points, paint, opacity } => write!(
            out,
            "<polygon class=\"d{}\" points=\"{}\" fill=\"currentColor\" fill-opacity=\"{}\"/>",
            paint.row(),
            coordinates(points),
            number(*opacity)
        ),
        Shape::Dot { at: [x, y], radius, paint, opacity } => write!(
            out,
            "<circle class=\"d{}\" cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"currentColor\" fill-opacity=\"{}\"/>",
            paint.row(),
            number(*x),
            number(*y),
            number(*radius),
            number(*opacity)
        ),
        Shape::Text { at: [x, y], text, size, anchor, paint, turned } => {
            let (x, y) = (number(*x), number(*y));
            let turn = if *turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            write!(
                out,
                "<text class=\"d{}\" x=\"{x}\" y=\"{y}\" font-size=\"{}\" text-anchor=\"{anchor}\" \
                 fill=\"currentColor\"{turn}>{}</text>",
                paint.row(),
                number(*size),
                super::escape(text)
            )
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_elements() {
        let mut d = Drawing::new("a < b", 100.0, 50.0);
        d.line([0.0, 1.0], [2.5, 3.333], Paint::Series(9), 1.5);
        d.rect([1.0, 2.0], [3.0, 4.0], Paint::Grid, 0.5);
        d.text([5.0, 6.0], "x & \"y\"", TEXT, Anchor::End, Paint::Ink);
        let inline = d.inline_svg();
        assert!(inline.starts_with("<svg ") && inline.ends_with("</svg>") && !inline.contains("<style>"), "{inline}");
        assert!(inline.contains("aria-label=\"a &lt; b\""), "{inline}");
        assert!(inline.contains("class=\"d5\" points=\"0,1 2.5,3.33\""), "{inline}");
        assert!(inline.contains("points=\"1,2 4,2 4,6 1,6\""), "{inline}");
        assert!(inline.contains(">x &amp; &quot;y&quot;</text>"), "{inline}");
        let file = d.svg_file();
        assert!(file.starts_with("<?xml") && file.contains("prefers-color-scheme:dark"), "{file}");
        // Every class that a shape can have has a colour on either background.
        for i in 0..4 + SERIES {
            assert_eq!(file.matches(&format!(".d{i}{{color:#")).count(), 2);
        }
    }

    #[test]
    fn series_can_be_told_from_the_paper() {
        let luminance = |colour: u32| {
            let part = |shift: u32| {
                let v = f64::from(colour >> shift & 255) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * part(16) + 0.7152 * part(8) + 0.0722 * part(0)
        };
        for theme in [0, 1] {
            let paper = luminance(COLOURS[0][theme]);
            for row in [1, 2].into_iter().chain(4..4 + SERIES) {
                let colour = luminance(COLOURS[row][theme]);
                let contrast = (paper.max(colour) + 0.05) / (paper.min(colour) + 0.05);
                assert!(contrast > 4.0, "row {row}, theme {theme}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn long_titles_take_two_lines() {
        let lines = |title: &str| {
            let mut d = Drawing::new(title, 200.0, 100.0);
            let y = d.heading();
            let of = |s: &Shape| if let Shape::Text { text, .. } = s { text.clone() } else { String::new() };
            (y, d.shapes.iter().map(of).collect::<Vec<_>>())
        };
        assert_eq!(lines("short one"), (20.0, vec!["short one".to_string()]));
        let (y, two) = lines("a title that is too long for a line and also too long for two");
        assert_eq!((y, two.len(), two[0].as_str()), (38.0, 2, "a title that is too"));
        assert!(two[1].ends_with(".."), "{two:?}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcd..");
    }
}
