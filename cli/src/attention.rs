//! Where a model looks: the weights of its attention as heat maps over pictures of the test set. They are taken by tracing
//! a few forward passes, so a model knows nothing of it and an ordinary step does nothing for it.

use shadegrad::Result;
use shadegrad::autograd::{no_grad, trace};
use shadegrad::nn::{Arena, Cx, Module};
use shadegrad::train::Images;

use crate::view::Picture;

/// Pictures that are looked at.
const SHOWN: usize = 8;

/// Heat maps, three pictures for each of the data set's: itself, the last layer's, that of the layers together.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    pub pictures: Vec<Picture>,
    /// Layers that the last of the three joins.
    pub layers: usize,
    /// Whether a class token asks; otherwise the mean of all.
    pub class_token: bool,
}

/// The weights of a layer for one picture, mean over its heads: a row for each of `queries`, summing to 1.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    queries: usize,
    keys: usize,
    weights: Vec<f64>,
}

/// How the patches lie that are a layer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    rows: usize,
    columns: usize,
    /// Whether a class token comes before them.
    class: bool,
}

impl Grid {
    /// That of `tokens` square patches over a picture, with or without a class token. There is at most one: numbers of
    /// patches of different sides differ by more than one, unless one of them covers all.
    fn of(tokens: usize, height: usize, width: usize) -> Option<Self> {
        (1..=height.min(width)).filter(|p| height.is_multiple_of(*p) && width.is_multiple_of(*p)).find_map(|p| {
            let (rows, columns) = (height / p, width / p);
            let class = tokens == rows * columns + 1;
            (class || tokens == rows * columns).then_some(Self { rows, columns, class })
        })
    }
}

impl Layer {
    /// The layer for a batch of one, `[1, heads, queries, keys]`; `None` for weights of another shape, as of windows.
    fn new(shape: &[usize], values: &[f32]) -> Option<Self> {
        let &[1, heads, queries, keys] = shape else { return None };
        if heads * queries * keys == 0 {
            return None;
        }
        let mut weights = vec![0.0; queries * keys];
        for head in values.chunks_exact(queries * keys) {
            weights.iter_mut().zip(head).for_each(|(w, v)| *w += f64::from(*v) / heads as f64);
        }
        Some(Self { queries, keys, weights })
    }

    /// How much each patch is asked for: by the class token, or by all queries.
    fn patches(&self, grid: Grid) -> Vec<f64> {
        let asking = if grid.class { 1 } else { self.queries };
        let mut sum = vec![0.0; self.keys];
        for row in self.weights.chunks_exact(self.keys).take(asking) {
            sum.iter_mut().zip(row).for_each(|(s, w)| *s += w / asking as f64);
        }
        sum.split_off(usize::from(grid.class))
    }
}

/// What comes of all layers together: each passes on half of what it was given and half of what it asked for (Abnar and
/// Zuidema, "Quantifying attention flow in transformers", 2020, with the residual connection as its section 3 has it).
fn rollout(layers: &[&Layer]) -> Option<Layer> {
    let n = layers.first()?.keys;
    let mut flow = vec![0.0; n * n];
    (0..n).for_each(|i| flow[i * n + i] = 1.0);
    for layer in layers {
        let mut next = vec![0.0; n * n];
        for (i, row) in next.chunks_exact_mut(n).enumerate() {
            for j in 0..n {
                let share = 0.5 * layer.weights[i * n + j] + if i == j { 0.5 } else { 0.0 };
                row.iter_mut().zip(&flow[j * n..][..n]).for_each(|(r, f)| *r += share * f);
            }
        }
        flow = next;
    }
    Some(Layer { queries: n, keys: n, weights: flow })
}

/// From black over red and yellow to white.
fn hot(v: f64) -> [f64; 3] {
    [3.0 * v, 3.0 * v - 1.0, 3.0 * v - 2.0].map(|c| 255.0 * c.clamp(0.0, 1.0))
}

/// A picture in grey with a map over it, on the map's own scale.
fn over(picture: &Picture, title: &str, map: &[f64], grid: Grid) -> Picture {
    let [low, high] = map.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| [l.min(*v), h.max(*v)]);
    let scaled = |v: f64| if high > low { (v - low) / (high - low) } else { 0.5 };
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for (i, pixel) in picture.rgb.chunks_exact(3).enumerate() {
        let (y, x) = (i / picture.width, i % picture.width);
        let (row, column) = (y * grid.rows / picture.height, x * grid.columns / picture.width);
        let heat = hot(scaled(map[row * grid.columns + column]));
        let grey = pixel.iter().map(|&c| f64::from(c)).sum::<f64>() / 3.0;
        rgb.extend(heat.map(|h| (0.4 * grey + 0.6 * h).round() as u8));
    }
    Picture { title: title.into(), rgb, ..picture.clone() }
}

/// Heat maps of `model` with the parameters of `arena` over the first pictures of the test set `images`, which are those
/// of `shown`; none if it has no attention over patches of the whole picture.
///
/// # Errors
/// Those of the model.
pub fn maps(
    model: &dyn Module,
    arena: &Arena,
    images: &Images,
    shown: impl Fn(usize) -> Result<Picture>,
) -> Result<Maps> {
    let [height, width, _] = images.size();
    let mut out = Maps::default();
    for i in 0..images.len().min(SHOWN) {
        let batch = images.plain(&[i as u32])?;
        let (_, seen) = trace(&["masked_softmax"], || no_grad(|| model.forward(&Cx::eval(arena), &batch.images)))?;
        let mut layers = Vec::new();
        for traced in &seen {
            layers.extend(Layer::new(traced.output.shape(), &traced.output.to_vec()?));
        }
        let Some((last, grid)) = layers.last().and_then(|l| Some((l, Grid::of(l.keys, height, width)?))) else {
            return Ok(Maps::default());
        };
        let joined: Vec<&Layer> =
            layers.iter().rev().take_while(|l| l.keys == last.keys && l.queries == l.keys).collect();
        let joined: Vec<&Layer> = joined.into_iter().rev().collect();
        let picture = shown(i)?;
        out.pictures.push(picture.clone());
        out.pictures.push(over(&picture, "last layer", &last.patches(grid), grid));
        if let Some(all) = rollout(&joined) {
            out.pictures.push(over(&picture, "all layers", &all.patches(grid), grid));
        }
        (out.layers, out.class_token) = (joined.len(), grid.class);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_found_by_their_number() {
        let grid = |rows, columns, class| Some(Grid { rows, columns, class });
        assert_eq!(Grid::of(65, 32, 32), grid(8, 8, true));
        assert_eq!(Grid::of(64, 32, 32), grid(8, 8, false));
        assert_eq!(Grid::of(197, 224, 224), grid(14, 14, true));
        assert_eq!(Grid::of(8, 8, 16), grid(2, 4, false));
        assert_eq!(Grid::of(50, 32, 32), None);
        for (height, width) in [(32, 32), (8, 12), (24, 36)] {
            for tokens in 2..200 {
                let fits = |p: &usize| {
                    let n = (height / p) * (width / p);
                    height % p == 0 && width % p == 0 && (n == tokens || n + 1 == tokens)
                };
                let count = (1..=height.min(width)).filter(fits).count();
                assert!(count <= 1 || tokens == 2, "{tokens} tokens of {height}x{width}");
            }
        }
    }

    #[test]
    fn heads_are_averaged_and_the_class_token_asks() {
        // Two heads, a class token and two patches: rows sum to 1.
        let head = |own: f32| [[own, 0.75 - own, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].concat();
        let layer = Layer::new(&[1, 2, 3, 3], &[head(0.5), head(0.25)].concat()).unwrap();
        assert_eq!(layer.weights[..3], [0.375, 0.375, 0.25]);
        assert_eq!(layer.patches(Grid { rows: 1, columns: 2, class: true }), [0.375, 0.25]);
        let all = layer.patches(Grid { rows: 1, columns: 3, class: false });
        assert!((all[1] - (0.375 + 1.0) / 3.0).abs() < 1e-12, "{all:?}");
        // Windows are a batch.
        assert_eq!(Layer::new(&[4, 2, 3, 3], &[0.0; 72]), None);
    }

    #[test]
    fn the_flow_through_layers_is_the_product() {
        let layer = |w: [f64; 4]| Layer { queries: 2, keys: 2, weights: w.to_vec() };
        let (a, b) = (layer([0.0, 1.0, 0.5, 0.5]), layer([1.0, 0.0, 1.0, 0.0]));
        // A' = (A + I) / 2 and so on; the second layer's times the first's.
        let flow = rollout(&[&a, &b]).unwrap();
        assert_eq!(flow.weights, [0.5, 0.5, 0.375, 0.625]);
        assert!(rollout(&[]).is_none());
    }

    #[test]
    fn the_most_asked_patch_is_the_brightest() {
        let picture = Picture { title: "a".into(), width: 4, height: 2, rgb: vec![100; 24] };
        let p = over(&picture, "map", &[0.1, 0.9], Grid { rows: 1, columns: 2, class: true });
        assert_eq!((&p.rgb[..3], &p.rgb[9..12]), (&[40, 40, 40][..], &[193, 193, 193][..]));
        assert_eq!((p.rgb.len(), p.title.as_str()), (24, "map"));
        // All the same: no division by nothing.
        over(&picture, "flat", &[0.5, 0.5], Grid { rows: 1, columns: 2, class: false });
    }
}
