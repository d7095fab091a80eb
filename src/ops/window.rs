//! Attention within the windows of an image (Liu et al., "Swin Transformer", 2021): the moves in and out of windows, and
//! attention with a relative position bias and shifted windows straight from the map of queries, keys and values.

use shadegrad_kernels::Gpu;
use shadegrad_kernels::window as k;

use crate::autograd::{composite_grads, wanted};
use crate::error::{Error, Result};
use crate::ops::Attention;
use crate::tensor::{DType, Tensor};

/// What the shift mask adds to a hidden pair: enough for a weight of `e^-100`, which is no longer one beside another.
const HIDDEN: f32 = -100.0;

/// How [`Tensor::window_attention`] divides a map.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::Windows;
/// let qkv = Tensor::ones(&gpu, &[1, 4, 4, 48])?; // queries, keys and values of two heads with 8 channels
/// let windows = Windows { heads: 2, window: 2, shift: 1, scale: None };
/// let y = qkv.window_attention(None, windows)?;
/// assert_eq!(y.shape(), [1, 4, 4, 16]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Heads; they share the channels evenly.
    pub heads: usize,
    /// Side of a window, M.
    pub window: usize,
    /// By how much the windows are moved down and right, below M. Those at the edge then hold parts from opposite sides of
    /// the map, and a token sees those of its own part only.
    pub shift: usize,
    /// Factor of the scores; `1 / sqrt(channels of a head)` if `None`.
    pub scale: Option<f32>,
}

/// The sides of a map `[B, H, W, C]` that windows of side `m` divide.
fn sides(op: &'static str, x: &Tensor, m: usize) -> Result<[usize; 4]> {
    match *x.shape() {
        [b, h, w, c] if m > 0 && h.is_multiple_of(m) && w.is_multiple_of(m) => Ok([b, h, w, c]),
        [_, h, w, _] => Err(Error::shape(
            op,
            format!("windows of side {m} do not divide a map of {h} x {w}; pad it or take another window"),
        )),
        _ => Err(Error::shape(op, format!("takes a map [B, H, W, C], got {:?}", x.shape()))),
    }
}

/// Tokens by window: a map `[B, H, W, C]` as `[B H W / m^2, m^2, C]`, windows of an image in rows, tokens of a window in
/// rows. `m` is the side of a window.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::window_partition;
/// let map: Vec<f32> = (0..16u8).map(f32::from).collect();
/// let windows = window_partition(&Tensor::from_slice(&gpu, &map, &[1, 4, 4, 1])?, 2)?;
/// assert_eq!(windows.shape(), [4, 4, 1]); // [windows, tokens, channels]
/// assert_eq!(windows.select_at(0, 0)?.to_vec()?, [0.0, 1.0, 4.0, 5.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the windows do not divide the map.
pub fn window_partition(x: &Tensor, m: usize) -> Result<Tensor> {
    let [b, h, w, c] = sides("window_partition", x, m)?;
    let x = x.reshape(&[b, h / m, m, w / m, m, c])?.permute(&[0, 1, 3, 2, 4, 5])?;
    x.reshape(&[b * (h / m) * (w / m), m * m, c])
}

/// The map `[B, H, W, C]` of height and width `size` from its windows of side `m`: the inverse of [`window_partition`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::{window_partition, window_reverse};
/// let map = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[1, 2, 4, 1])?;
/// let windows = window_partition(&map, 2)?;
/// assert_eq!(window_reverse(&windows, 2, [2, 4])?.to_vec()?, map.to_vec()?);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If these are not the windows of such a map.
pub fn window_reverse(windows: &Tensor, m: usize, size: [usize; 2]) -> Result<Tensor> {
    const OP: &str = "window_reverse";
    let [h, w] = size;
    if m == 0 || !h.is_multiple_of(m) || !w.is_multiple_of(m) {
        return Err(Error::shape(OP, format!("windows of side {m} do not divide a map of {h} x {w}")));
    }
    let count = (h / m) * (w / m);
    match *windows.shape() {
        [all, n, c] if n == m * m && count > 0 && all.is_multiple_of(count) => {
            let b = all / count;
            let x = windows.reshape(&[b, h / m, w / m, m, m, c])?.permute(&[0, 1, 3, 2, 4, 5])?;
            x.reshape(&[b, h, w, c])
        }
        _ => Err(Error::shape(
            OP,
            format!("a map of {h} x {w} has {count} windows [{}, C] each; got {:?}", m * m, windows.shape()),
        )),
    }
}

/// The map `[B, H, W, C]` moved by `dy` rows down and `dx` columns right, around the edges.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::cyclic_shift;
/// let map = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 2, 3, 1])?;
/// assert_eq!(cyclic_shift(&map, [0, 1])?.to_vec()?, [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
/// assert_eq!(cyclic_shift(&map, [-1, 0])?.to_vec()?, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If it is no map.
pub fn cyclic_shift(x: &Tensor, [dy, dx]: [isize; 2]) -> Result<Tensor> {
    if x.rank() != 4 {
        return Err(Error::shape("cyclic_shift", format!("takes a map [B, H, W, C], got {:?}", x.shape())));
    }
    x.roll(1, dy)?.roll(2, dx)
}

/// For the tokens `a`, `b` of a window of side `m`, in rows, the row of the table of relative biases:
/// `(ya - yb + m - 1) (2 m - 1) + xa - xb + m - 1`, as `[m^2][m^2]`.
///
/// ```
/// # use shadegrad::window::relative_index;
/// let index = relative_index(2); // four tokens, nine relative places
/// assert_eq!(index[..4], [4, 3, 1, 0]); // from the first token to itself, right, below, and below right
/// ```
pub fn relative_index(m: usize) -> Vec<u32> {
    let n = m * m;
    (0..n * n)
        .map(|i| {
            let (a, b) = (i / n, i % n);
            let (dy, dx) = (a / m + m - 1 - b / m, a % m + m - 1 - b % m);
            (dy * (2 * m - 1) + dx) as u32
        })
        .collect()
}

/// Whether token `a` sees token `b`, `[windows][m^2][m^2]`, where windows were moved by `shift`: rows and columns of the
/// moved map fall into what came from before the last windows, the last windows' own part, and what came around the edge.
fn visible([h, w]: [usize; 2], m: usize, shift: usize) -> Vec<bool> {
    let part = |i: usize, len: usize| usize::from(i + m >= len) + usize::from(i + shift >= len);
    let region = |window: usize, t: usize| {
        let (y, x) = ((window / (w / m)) * m + t / m, (window % (w / m)) * m + t % m);
        3 * part(y, h) + part(x, w)
    };
    let n = m * m;
    let all = (0..(h / m) * (w / m)).flat_map(|k| (0..n * n).map(move |i| (k, i / n, i % n)));
    all.map(|(k, a, b)| region(k, a) == region(k, b)).collect()
}

fn check_shift(op: &'static str, [h, w]: [usize; 2], m: usize, shift: usize) -> Result<()> {
    if m == 0 || !h.is_multiple_of(m) || !w.is_multiple_of(m) || shift >= m {
        return Err(Error::value(
            op,
            format!(
                "a shift of {shift} of windows of side {m} on {h} x {w}; windows must divide the map, a shift be below the window"
            ),
        ));
    }
    Ok(())
}

/// What is added to the scores of windows that were moved by `shift` below 0 and left: `[windows, m^2, m^2]`, 0 where two
/// tokens come from the same part of the map of height and width `size`, -100 where they do not. All 0 without a shift.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::shift_mask;
/// let mask = shift_mask(&gpu, [4, 4], 2, 1)?; // four windows of four tokens
/// assert_eq!(mask.select_at(0, 0)?.to_vec()?, [0.0; 16]); // from one place of the map
/// // The four tokens of the last come from four corners: each sees itself.
/// assert_eq!(mask.select_at(0, 3)?.sum_all()?.item()?, -1200.0);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the windows do not divide the map, or the shift is not below `m`.
pub fn shift_mask(gpu: &Gpu, size: [usize; 2], m: usize, shift: usize) -> Result<Tensor> {
    check_shift("shift_mask", size, m, shift)?;
    let values: Vec<f32> = visible(size, m, shift).iter().map(|&v| if v { 0.0 } else { HIDDEN }).collect();
    Tensor::from_slice(gpu, &values, &[size[0] * size[1] / (m * m), m * m, m * m])
}

/// The biases `[heads, m^2, m^2]` that the table `[(2 m - 1)^2, heads]` holds by relative place (see [`relative_index`]).
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::window::relative_bias;
/// let table: Vec<f32> = (0..9u8).map(f32::from).collect();
/// let bias = relative_bias(&Tensor::from_slice(&gpu, &table, &[9, 1])?, 2)?; // of one head
/// assert_eq!(bias.shape(), [1, 4, 4]);
/// assert_eq!(bias.diagonal()?.to_vec()?, [4.0; 4]); // a token and itself
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the table has another number of rows.
pub fn relative_bias(table: &Tensor, m: usize) -> Result<Tensor> {
    let rows = (2 * m).saturating_sub(1).pow(2);
    let n = m * m;
    match *table.shape() {
        [r, heads] if r == rows && m > 0 => {
            let index = Tensor::from_u32(table.gpu(), &relative_index(m), &[n * n])?;
            table.index_select(0, &index)?.reshape(&[n, n, heads])?.permute(&[2, 0, 1])
        }
        _ => Err(Error::shape(
            "relative_bias",
            format!("windows of side {m} need a table [{rows}, heads], got {:?}", table.shape()),
        )),
    }
}

impl Tensor {
    /// Attention within windows of a map of queries, keys and values `[B, H, W, 3 C]` (channels `[3][heads][C / heads]`),
    /// giving `[B, H, W, C]`. `table` holds the relative position bias, `[(2 M - 1)^2, heads]`.
    ///
    /// With a shift, the map is as if moved up and left by it around the edges, and back afterwards; a token sees the
    /// tokens of its window that lie in the same part of the map.
    ///
    /// One kernel forward and one backward (and two small ones for the table's gradient) where a head has 8, 12, 16, 24 or
    /// 32 channels and a window at most 64 tokens; otherwise, and for gradients that are to be differentiated again, windows
    /// are copied out and back.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::window::Windows;
    /// let (pixel, table) = (Tensor::ones(&gpu, &[1, 4, 4, 1])?, Tensor::zeros(&gpu, &[9, 1])?.leaf());
    /// let qk = Tensor::zeros(&gpu, &[1, 4, 4, 16])?; // queries and keys of 8 channels: all weights are equal
    /// let qkv = Tensor::concat(&[&qk, &pixel.broadcast_to(&[1, 4, 4, 8])?], 3)?;
    /// let y = qkv.window_attention(Some(&table), Windows { heads: 1, window: 2, shift: 0, scale: None })?;
    /// assert!(y.shape() == [1, 4, 4, 8] && y.to_vec()?.iter().all(|v| (v - 1.0).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn window_attention(&self, table: Option<&Tensor>, windows: Windows) -> Result<Tensor> {
        const OP: &str = "window_attention";
        let Windows { heads, window: m, shift, scale } = windows;
        self.want(OP, DType::F32)?;
        let [b, h, w, c3] = sides(OP, self, m)?;
        check_shift(OP, [h, w], m, shift)?;
        if heads == 0 || !c3.is_multiple_of(3 * heads) {
            return Err(Error::shape(
                OP,
                format!(
                    "{c3} channels are not queries, keys and values of {heads} heads; their number must be a multiple of three times the heads"
                ),
            ));
        }
        if let Some(table) = table {
            table.want(OP, DType::F32)?;
            self.same_gpu(OP, table)?;
            if table.shape() != [(2 * m - 1).pow(2), heads] {
                return Err(Error::shape(
                    OP,
                    format!(
                        "windows of side {m} with {heads} heads need a table [{}, {heads}], got {:?}",
                        (2 * m - 1).pow(2),
                        table.shape()
                    ),
                ));
            }
        }
        let gpu = self.gpu();
        let depth = c3 / 3 / heads;
        let scale = scale.unwrap_or(1.0 / (depth.max(1) as f32).sqrt());
        let all = k::Windows { batch: b, size: [h, w], heads, depth, side: m, shift, scale };
        // Whoever looks for the weights of attention must find them.
        if self.numel() == 0 || !all.have_kernels(gpu) || wanted("masked_softmax") {
            return composed(self, table, windows);
        }
        let y = Tensor::empty(gpu, &[b, h, w, c3 / 3], DType::F32, OP)?;
        k::forward(gpu, (self.storage(), table.map(Tensor::storage)), &all, y.storage())?;
        let inputs: Vec<&Tensor> = [Some(self), table].into_iter().flatten().collect();
        let owned: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
        Ok(y.record(OP, &inputs, move |ctx, grad| {
            if ctx.create_graph() {
                return composite_grads(ctx, &owned, grad, |xs| composed(&xs[0], xs.get(1), windows));
            }
            let gpu = grad.gpu();
            let (qkv, table) = (&owned[0], owned.get(1));
            let dqkv = Tensor::empty(gpu, qkv.shape(), DType::F32, OP)?;
            let sums = match table {
                Some(_) if ctx.needs(1) => {
                    Some(Tensor::empty(gpu, &[all.parts(gpu), heads * m.pow(4)], DType::F32, OP)?)
                }
                _ => None,
            };
            let reads = (qkv.storage(), table.map(Tensor::storage), grad.storage());
            k::backward(gpu, reads, &all, (dqkv.storage(), sums.as_ref().map(Tensor::storage)))?;
            let mut grads = vec![Some(dqkv)];
            if let Some(table) = table {
                grads.push(match sums {
                    Some(parts) => {
                        let dtable = Tensor::empty(gpu, table.shape(), DType::F32, OP)?;
                        k::table_grad(gpu, parts.sum(&[0], false)?.storage(), heads, m, dtable.storage())?;
                        Some(dtable)
                    }
                    None => None,
                });
            }
            Ok(grads)
        }))
    }
}

/// [`Tensor::window_attention`] made of other operations.
fn composed(qkv: &Tensor, table: Option<&Tensor>, windows: Windows) -> Result<Tensor> {
    let Windows { heads, window: m, shift, scale } = windows;
    let &[b, h, w, c3] = qkv.shape() else {
        return Err(Error::shape("window_attention", format!("takes a map [B, H, W, 3 C], got {:?}", qkv.shape())));
    };
    let (n, count, d) = (m * m, h * w / (m * m), c3 / 3 / heads);
    let back = shift as isize;
    let tokens = window_partition(&cyclic_shift(qkv, [-back, -back])?, m)?;
    let tokens = tokens.reshape(&[b * count, n, 3, heads, d])?.permute(&[2, 0, 3, 1, 4])?;
    let bias = table.map(|t| relative_bias(t, m)).transpose()?;
    // A mask differs between windows: these are then so many heads, over which bias and mask are repeated.
    let (shape, bias, mask) = if shift == 0 {
        (vec![b * count, heads, n, d], bias.map(|t| t.unsqueeze(0)).transpose()?, None)
    } else {
        let all = |t: &Tensor| t.broadcast_to(&[count, heads, n, n])?.reshape(&[1, count * heads, n, n]);
        let seen: Vec<f32> = visible([h, w], m, shift).iter().map(|&v| f32::from(u8::from(v))).collect();
        let seen = Tensor::from_slice(qkv.gpu(), &seen, &[count, 1, n, n])?;
        (vec![b, count * heads, n, d], bias.map(|t| all(&t)).transpose()?, Some(all(&seen)?))
    };
    let part = |i: usize| tokens.select_at(0, i)?.reshape(&shape);
    let options = Attention { bias: bias.as_ref(), mask: mask.as_ref(), scale, ..Attention::default() };
    let y = part(0)?.sdpa(&part(1)?, &part(2)?, options)?;
    let y = y.reshape(&[b * count, heads, n, d])?.permute(&[0, 2, 1, 3])?.reshape(&[b * count, n, heads * d])?;
    cyclic_shift(&window_reverse(&y, m, [h, w])?, [back, back])
}
