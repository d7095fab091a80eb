//! Pixels: drawings as pictures, pictures as PNG files, and grids of pictures.

use anyhow::{Context as _, Result, ensure};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::Picture;
use super::draw::{Anchor, Drawing, Paint, Shape, Stroke};

/// A picture as a PNG file.
///
/// # Errors
/// If it has not three bytes for each of its pixels, or none.
pub fn png(p: &Picture) -> Result<Vec<u8>> {
    let fits = p.width.checked_mul(p.height).and_then(|n| n.checked_mul(3)) == Some(p.rgb.len());
    ensure!(
        fits && !p.rgb.is_empty(),
        "picture `{}`: {} bytes for {} x {} pixels of red, green and blue",
        p.title,
        p.rgb.len(),
        p.width,
        p.height
    );
    let mut out = Vec::new();
    PngEncoder::new_with_quality(&mut out, CompressionType::Default, FilterType::Adaptive)
        .write_image(&p.rgb, u32::try_from(p.width)?, u32::try_from(p.height)?, ExtendedColorType::Rgb8)
        .with_context(|| format!("picture `{}`", p.title))?;
    Ok(out)
}

/// Pictures of one size in rows of `columns`, each pixel `scale` pixels wide, with gaps between them.
pub fn grid(title: &str, pictures: &[Picture], columns: usize, scale: usize) -> Picture {
    const GAP: usize = 2;
    let columns = columns.clamp(1, pictures.len().max(1));
    let (cell_w, cell_h) = pictures.iter().fold((1, 1), |(w, h), p| (w.max(p.width), h.max(p.height)));
    let (step_w, step_h) = (cell_w * scale + GAP, cell_h * scale + GAP);
    let width = columns * step_w + GAP;
    let height = pictures.len().div_ceil(columns) * step_h + GAP;
    let mut rgb = vec![128; width * height * 3];
    for (i, p) in pictures.iter().enumerate() {
        let (left, top) = (i % columns * step_w + GAP, i / columns * step_h + GAP);
        for y in 0..p.height * scale {
            for x in 0..p.width * scale {
                let from = (y / scale * p.width + x / scale) * 3;
                let to = ((top + y) * width + left + x) * 3;
                if let Some(pixel) = p.rgb.get(from..from + 3) {
                    rgb[to..to + 3].copy_from_slice(pixel);
                }
            }
        }
    }
    Picture { title: title.into(), width, height, rgb }
}

/// Pixels of a point of a drawing.
const SCALE: f64 = 2.0;
/// Height of the letters in pixels: those of a text of 12 points.
const LETTERS: RasterHeight = RasterHeight::Size32;
/// Rows of a letter above its base line.
const ASCENT: f64 = 25.0;

/// A drawing in its light colours, two pixels a point.
pub fn picture(d: &Drawing) -> Picture {
    let mut c = Canvas::new((d.width * SCALE).ceil() as usize, (d.height * SCALE).ceil() as usize);
    for shape in &d.shapes {
        let scaled = |points: &[[f64; 2]]| points.iter().map(|p| p.map(|v| v * SCALE)).collect::<Vec<_>>();
        match shape {
            Shape::Path { points, stroke } => c.path(&scaled(points), stroke),
            Shape::Area { points, paint, opacity } => c.area(&scaled(points), *paint, *opacity),
            Shape::Dot { at, radius, paint, opacity } => c.dot(at.map(|v| v * SCALE), radius * SCALE, *paint, *opacity),
            Shape::Text { at, text, anchor, paint, turned, .. } => {
                c.text(at.map(|v| v * SCALE), text, *anchor, *paint, *turned);
            }
        }
    }
    Picture { title: d.title.clone(), width: c.width, height: c.height, rgb: c.rgb }
}

struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, rgb: Paint::Paper.rgb().repeat(width * height) }
    }

    /// Covers a pixel by a share of a colour.
    fn blend(&mut self, x: i64, y: i64, paint: Paint, share: f64) {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height || share <= 0.0 {
            return;
        }
        let at = (y as usize * self.width + x as usize) * 3;
        for (old, new) in self.rgb[at..at + 3].iter_mut().zip(paint.rgb()) {
            let mixed = f64::from(*old) + share.min(1.0) * (f64::from(new) - f64::from(*old));
            *old = mixed.round() as u8;
        }
    }

    /// The pixels that a shape around `corners`, `reach` to all sides, can touch.
    fn pixels(&self, corners: &[[f64; 2]], reach: f64) -> impl Iterator<Item = (i64, i64)> + use<> {
        let span = |axis: usize, size: usize| {
            let values = || corners.iter().map(|c| c[axis]);
            let least = values().fold(f64::INFINITY, f64::min) - reach;
            let most = values().fold(f64::NEG_INFINITY, f64::max) + reach;
            let (least, most) = (least.floor().max(0.0) as i64, most.ceil().min(size as f64) as i64);
            least..most.max(least)
        };
        let (xs, ys) = (span(0, self.width), span(1, self.height));
        ys.flat_map(move |y| xs.clone().map(move |x| (x, y)))
    }

    fn path(&mut self, points: &[[f64; 2]], stroke: &Stroke) {
        let half = 0.5 * stroke.width * SCALE;
        let pieces = if stroke.dash > 0.0 { dashes(points, stroke.dash * SCALE) } else { pairs(points) };
        for [a, b] in pieces {
            for (x, y) in self.pixels(&[a, b], half + 1.0) {
                let distance = distance([x as f64 + 0.5, y as f64 + 0.5], a, b);
                self.blend(x, y, stroke.paint, (half + 0.5 - distance).clamp(0.0, 1.0));
            }
        }
    }

    fn dot(&mut self, at: [f64; 2], radius: f64, paint: Paint, opacity: f64) {
        for (x, y) in self.pixels(&[at], radius + 1.0) {
            let distance = distance([x as f64 + 0.5, y as f64 + 0.5], at, at);
            self.blend(x, y, paint, opacity * (radius + 0.5 - distance).clamp(0.0, 1.0));
        }
    }

    /// Sixteen samples a pixel, by the even-odd rule.
    fn area(&mut self, points: &[[f64; 2]], paint: Paint, opacity: f64) {
        const SUB: usize = 4;
        let rows = self
            .pixels(points, 0.0)
            .map(|(_, y)| y)
            .fold(None, |r: Option<[i64; 2]>, y| Some([r.map_or(y, |r| r[0]), y]));
        let Some([first, last]) = rows else { return };
        let mut cover = vec![0u8; self.width];
        for y in first..=last {
            cover.fill(0);
            for sub in 0..SUB {
                let level = y as f64 + (sub as f64 + 0.5) / SUB as f64;
                let mut crossings: Vec<f64> = closed(points)
                    .filter(|[a, b]| (a[1] <= level) != (b[1] <= level))
                    .map(|[a, b]| a[0] + (level - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
                    .collect();
                crossings.sort_by(f64::total_cmp);
                for inside in crossings.chunks_exact(2) {
                    // Samples lie in the middle of quarters of a pixel.
                    let sample = |v: f64| ((v * SUB as f64 - 0.5).ceil().max(0.0) as usize).min(self.width * SUB);
                    for s in sample(inside[0])..sample(inside[1]) {
                        cover[s / SUB] += 1;
                    }
                }
            }
            for (x, c) in cover.iter().enumerate().filter(|(_, c)| **c > 0) {
                self.blend(x as i64, y, paint, opacity * f64::from(*c) / (SUB * SUB) as f64);
            }
        }
    }

    fn text(&mut self, [x, y]: [f64; 2], text: &str, anchor: Anchor, paint: Paint, turned: bool) {
        let letter = get_raster_width(FontWeight::Regular, LETTERS) as f64;
        let length = letter * text.chars().count() as f64;
        let before = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => 0.5 * length,
            Anchor::End => length,
        };
        for (i, c) in text.chars().enumerate() {
            let glyph =
                get_raster(c, FontWeight::Regular, LETTERS).or_else(|| get_raster('?', FontWeight::Regular, LETTERS));
            let Some(glyph) = glyph else { continue };
            let along = (letter * i as f64 - before).round() as i64;
            for (row, values) in glyph.rows().enumerate() {
                for (column, v) in values.iter().enumerate() {
                    let (u, v, share) = (along + column as i64, row as i64 - ASCENT as i64, f64::from(*v) / 255.0);
                    let (dx, dy) = if turned { (v, -u) } else { (u, v) };
                    self.blend(x.round() as i64 + dx, y.round() as i64 + dy, paint, share);
                }
            }
        }
    }
}

fn pairs(points: &[[f64; 2]]) -> Vec<[[f64; 2]; 2]> {
    points.windows(2).map(|w| [w[0], w[1]]).collect()
}

fn closed(points: &[[f64; 2]]) -> impl Iterator<Item = [[f64; 2]; 2]> {
    points.iter().zip(points.iter().cycle().skip(1)).map(|(a, b)| [*a, *b])
}

/// From `p` to the line from `a` to `b`.
fn distance(p: [f64; 2], a: [f64; 2], b: [f64; 2]) -> f64 {
    let (d, q) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let square = d[0] * d[0] + d[1] * d[1];
    let t = if square > 0.0 { ((d[0] * q[0] + d[1] * q[1]) / square).clamp(0.0, 1.0) } else { 0.0 };
    (q[0] - t * d[0]).hypot(q[1] - t * d[1])
}

/// The pieces that are drawn of a line with strokes and gaps of `length`, measured along it.
fn dashes(points: &[[f64; 2]], length: f64) -> Vec<[[f64; 2]; 2]> {
    let mut out = Vec::new();
    let mut walked = 0.0;
    for [a, b] in pairs(points) {
        let whole = (b[0] - a[0]).hypot(b[1] - a[1]);
        let at = |s: f64| [a[0] + s / whole * (b[0] - a[0]), a[1] + s / whole * (b[1] - a[1])];
        let mut s = 0.0;
        // A stretch ends where the piece or the dash does.
        while whole > 0.0 && s < whole {
            let phase = (walked + s) / length;
            let next = (((phase + 1e-9).floor() + 1.0) * length - walked).min(whole);
            if ((phase + 1e-9).floor() as u64).is_multiple_of(2) {
                out.push([at(s), at(next)]);
            }
            s = next;
        }
        walked += whole;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_round_trip() {
        let p = Picture { title: "p".into(), width: 2, height: 2, rgb: (0..12).collect() };
        let read = image::load_from_memory(&png(&p).unwrap()).unwrap().to_rgb8();
        assert_eq!((read.dimensions(), read.into_raw()), ((2, 2), p.rgb.clone()));
        let err = png(&Picture { height: 3, ..p }).unwrap_err().to_string();
        assert!(err.contains("12 bytes for 2 x 3 pixels"), "{err}");
        assert!(png(&Picture::default()).is_err());
    }

    #[test]
    fn grids_hold_every_picture() {
        let one = |v: u8| Picture { title: String::new(), width: 1, height: 1, rgb: vec![v; 3] };
        let g = grid("g", &[one(1), one(2), one(3)], 2, 3);
        assert_eq!((g.width, g.height), (12, 12));
        for (v, count) in [(1, 27), (2, 27), (3, 27)] {
            assert_eq!(g.rgb.iter().filter(|b| **b == v).count(), count);
        }
        assert!(png(&grid("none", &[], 4, 2)).is_ok());
    }

    #[test]
    fn areas_cover_as_much_as_they_are_large() {
        let mut d = Drawing::new("", 20.0, 20.0);
        d.shapes.push(Shape::Area {
            points: vec![[2.0, 2.0], [12.0, 2.0], [2.0, 12.0]],
            paint: Paint::Ink,
            opacity: 1.0,
        });
        let p = picture(&d);
        let [ink, paper] = [Paint::Ink, Paint::Paper].map(|p| f64::from(p.rgb()[0]));
        let cover: f64 = p.rgb.iter().step_by(3).map(|v| (paper - f64::from(*v)) / (paper - ink)).sum();
        // Half of ten by ten points, four pixels a point.
        assert!((cover - 200.0).abs() < 4.0, "{cover}");
    }

    #[test]
    fn lines_and_letters_leave_ink() {
        let mut d = Drawing::new("", 60.0, 20.0);
        d.line([0.0, 10.0], [60.0, 10.0], Paint::Ink, 2.0);
        let row = |p: &Picture, y: usize| p.rgb[y * p.width * 3..][..p.width * 3].iter().filter(|v| **v < 100).count();
        let p = picture(&d);
        assert_eq!((row(&p, 19), row(&p, 20), row(&p, 10)), (360, 360, 0));
        let mut d = Drawing::new("", 60.0, 20.0);
        d.text([30.0, 14.0], "Wg±", 12.0, Anchor::Middle, Paint::Ink);
        let dark = picture(&d).rgb.iter().filter(|v| **v < 100).count();
        assert!(dark > 100, "{dark}");
    }

    #[test]
    fn dashes_are_as_long_as_their_gaps() {
        let pieces = dashes(&[[0.0, 0.0], [3.0, 0.0], [10.0, 0.0]], 2.0);
        let length: f64 = pieces.iter().map(|[a, b]| (b[0] - a[0]).hypot(b[1] - a[1])).sum();
        assert!((length - 6.0).abs() < 1e-9, "{pieces:?}");
    }
}
