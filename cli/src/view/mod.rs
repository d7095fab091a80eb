//! Pictures and pages of results: charts, matrices, grids of pictures, and [`page`], which puts them into one HTML file
//! that needs nothing but itself.
//!
//! ```text
//! let html = view::page("the title", &[
//!     Section::Text("What was done.".into()),
//!     Section::Table(Table { title: "Results".into(), head, rows }),
//!     Section::Chart(chart),
//!     Section::Pictures { title: "Samples".into(), pictures },
//! ]);
//! ```

mod draw;
mod figures;
mod plot;
mod raster;

pub use draw::Drawing;
pub use figures::{Bar, Bars, confusion, reliability};
pub use plot::chart;
pub use raster::{grid, picture, png};
// What a chart holds is what a recipe of a paper brings back.
pub use shadegrad_models::papers::{Chart, Picture, Series, Style};

/// A table of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Above it; may be empty.
    pub title: String,
    /// The columns' names; may be empty.
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A part of a page. All texts are plain texts.
#[derive(Clone, Debug)]
pub enum Section {
    /// A heading over what follows.
    Heading(String),
    /// Paragraphs, with empty lines between them.
    Text(String),
    /// A text that stands out: how a run ended.
    Notice(String),
    /// A text whose lines are kept.
    Code(String),
    /// A table.
    Table(Table),
    /// A chart; those that follow each other stand side by side where there is room.
    Chart(Chart),
    /// Bars; likewise.
    Bars(Bars),
    /// Any drawing; likewise.
    Drawing(Drawing),
    /// Pictures with their titles under them, small ones enlarged.
    Pictures { title: String, pictures: Vec<Picture> },
}

/// What a browser may do with a page: show what is in it. It could not fetch anything if it wanted to.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

const CSS: &str = "\
:root{color-scheme:light dark}\
body{margin:0 auto;padding:1.5rem;max-width:76rem;font:15px/1.5 system-ui,sans-serif;background:#fff;color:#1b1f24}\
h1{font-size:1.5rem;margin:0 0 1rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:1rem 0 .4rem}\
p{max-width:48rem;white-space:pre-line}\
.notice{max-width:48rem;padding:.6rem .9rem;border-left:4px solid #c2500a;background:#f4f6f8;white-space:pre-line}\
pre{padding:.7rem .9rem;background:#f4f6f8;overflow-x:auto;font:13px/1.45 ui-monospace,monospace}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .8rem .25rem 0;text-align:left;border-bottom:1px solid #d8dee4;vertical-align:top}\
th{font-weight:600}.n{text-align:right}\
.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,28rem),1fr));gap:1rem;margin-top:.8rem}\
.row svg{width:100%;height:auto}\
.pictures{display:flex;flex-wrap:wrap;gap:.7rem}\
figure{margin:0;max-width:100%}figure img{display:block;max-width:100%;image-rendering:pixelated}\
figcaption{font-size:12px;line-height:1.3;margin-top:.2rem;white-space:pre-line;color:#57606a}\
@media(prefers-color-scheme:dark){body{background:#14171c;color:#e6e9ee}.notice,pre{background:#1e232b}\
th,td{border-color:#333a44}figcaption{color:#9aa4b0}}\
@media print{.row{grid-template-columns:1fr 1fr}}";

/// One HTML file of `sections` under a title: styles, drawings and pictures are in it, so that it opens from disk, by
/// mail or from an archive alike. It has no scripts and asks for nothing over the network.
pub fn page(title: &str, sections: &[Section]) -> String {
    let shown = escape(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{shown}</title>\n\
         <style>{CSS}{}</style>\n</head>\n<body>\n<h1>{shown}</h1>\n",
        draw::css()
    );
    let mut in_row = false;
    for section in sections {
        let drawing = match section {
            Section::Chart(c) => Some(chart(c)),
            Section::Bars(b) => Some(figures::bars(b)),
            Section::Drawing(d) => Some(d.clone()),
            _ => None,
        };
        if drawing.is_some() != in_row {
            out.push_str(if in_row { "</div>\n" } else { "<div class=\"row\">\n" });
            in_row = !in_row;
        }
        match drawing {
            Some(d) => {
                out.push_str(&d.inline_svg());
                out.push('\n');
            }
            None => write_section(&mut out, section),
        }
    }
    if in_row {
        out.push_str("</div>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn write_section(out: &mut String, section: &Section) {
    match section {
        Section::Heading(text) => *out += &format!("<h2>{}</h2>\n", escape(text)),
        Section::Text(text) => {
            for paragraph in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
                *out += &format!("<p>{}</p>\n", escape(paragraph));
            }
        }
        Section::Notice(text) => *out += &format!("<div class=\"notice\">{}</div>\n", escape(text)),
        Section::Code(text) => *out += &format!("<pre>{}</pre>\n", escape(text.trim_end())),
        Section::Table(table) => write_table(out, table),
        Section::Pictures { title, pictures } => {
            subtitle(out, title);
            out.push_str("<div class=\"pictures\">\n");
            for picture in pictures {
                write_picture(out, picture);
            }
            out.push_str("</div>\n");
        }
        // Drawn by the caller, side by side.
        Section::Chart(_) | Section::Bars(_) | Section::Drawing(_) => {}
    }
}

fn subtitle(out: &mut String, title: &str) {
    if !title.is_empty() {
        *out += &format!("<h3>{}</h3>\n", escape(title));
    }
}

fn write_table(out: &mut String, table: &Table) {
    subtitle(out, &table.title);
    out.push_str("<div class=\"wide\"><table>\n");
    // Numbers are aligned at their ends: a column is of numbers if every cell begins as one.
    let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0).max(table.head.len());
    let numeric = |c: usize| {
        let mut cells = table.rows.iter().filter_map(|r| r.get(c)).filter(|t| !t.is_empty()).peekable();
        cells.peek().is_some() && cells.all(|t| t.starts_with(|s: char| s.is_ascii_digit() || "+-−.±".contains(s)))
    };
    let numeric: Vec<bool> = (0..columns).map(|c| c > 0 && numeric(c)).collect();
    let mut row = |cells: &[String], tag: &str| {
        out.push_str("<tr>");
        for (c, text) in cells.iter().enumerate() {
            let class = if numeric[c] { " class=\"n\"" } else { "" };
            *out += &format!("<{tag}{class}>{}</{tag}>", escape(text));
        }
        out.push_str("</tr>\n");
    };
    if !table.head.is_empty() {
        row(&table.head, "th");
    }
    for cells in &table.rows {
        row(cells, "td");
    }
    out.push_str("</table></div>\n");
}

/// Small pictures are shown at least this wide.
const SMALL: usize = 96;

fn write_picture(out: &mut String, picture: &Picture) {
    let title = escape(&picture.title);
    match png(picture) {
        Ok(bytes) => {
            let width = picture.width * SMALL.div_ceil(picture.width.max(1));
            *out += &format!(
                "<figure style=\"width:min(100%,{width}px)\"><img alt=\"{title}\" width=\"{width}\" \
                 src=\"data:image/png;base64,{}\">",
                base64(&bytes)
            );
        }
        Err(err) => *out += &format!("<figure><div class=\"notice\">{}</div>", escape(&err.to_string())),
    }
    if !title.is_empty() {
        *out += &format!("<figcaption>{title}</figcaption>");
    }
    out.push_str("</figure>\n");
}

/// A text as it is written into HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No other control characters may be in XML.
            c if c < ' ' && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { digit.into() } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn a_page_needs_nothing_but_itself() {
        let line = Series { name: "a<b".into(), points: vec![(0.0, 1.0), (1.0, 2.0)], band: None };
        let chart =
            Chart { title: "Loss".into(), x: "step".into(), y: "nats".into(), series: vec![line], ..Chart::default() };
        let picture = Picture { title: "two".into(), width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, 255] };
        let broken = Picture { title: "torn".into(), width: 2, height: 2, rgb: vec![0] };
        let html = page(
            "A run & more",
            &[
                Section::Notice("running".into()),
                Section::Heading("One".into()),
                Section::Text("first\n\nsecond <script>".into()),
                Section::Chart(chart.clone()),
                Section::Chart(chart),
                Section::Table(Table {
                    title: String::new(),
                    head: vec!["name".into(), "value".into()],
                    rows: vec![vec!["1".into(), "2.5".into()], vec!["b".into(), "-3".into()]],
                }),
                Section::Pictures { title: "P".into(), pictures: vec![picture, broken] },
                Section::Code("x = 1".into()),
            ],
        );
        assert!(html.starts_with("<!doctype html>") && html.contains("<title>A run &amp; more</title>"));
        assert!(!html.contains("<script") && html.contains("<p>second &lt;script&gt;</p>"));
        // Nothing is fetched: the only addresses are the name of the SVG format and pictures inside the page.
        assert_eq!(html.matches("://").count(), html.matches("http://www.w3.org/2000/svg").count());
        assert_eq!(html.matches("src=").count(), html.matches("src=\"data:").count());
        assert_eq!(html.matches("<div class=\"row\">").count(), 1, "charts stand side by side");
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("<td>1</td><td class=\"n\">2.5</td>"), "{html}");
        assert!(html.contains("torn"));
        assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
        assert_eq!(html.matches("<figure").count(), html.matches("</figure>").count());
    }
}
