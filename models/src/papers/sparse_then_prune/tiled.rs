//! Attention with the penalty where the weights of all keys are never held at once.

use shadegrad::autograd::{custom, no_grad};
use shadegrad::{Error, Result, Tensor};

/// The weights of the keys `from..from + len` from the logarithms of the rows' sums.
struct Tiles {
    q: Tensor,
    k: Tensor,
    scale: f32,
    /// Ends of the tiles.
    cuts: Vec<(usize, usize)>,
}

impl Tiles {
    /// `scale q k^T` for a tile, `[B, H, L, t]`, and the tile's keys.
    fn scores(&self, (from, len): (usize, usize)) -> Result<(Tensor, Tensor)> {
        let k = self.k.narrow(2, from, len)?;
        Ok((self.q.matmul_t(&k, false, true)?.mul_scalar(self.scale)?, k))
    }

    /// The weights of a tile, and its keys.
    fn weights(&self, cut: (usize, usize), log_sum: &Tensor) -> Result<(Tensor, Tensor)> {
        let (scores, k) = self.scores(cut)?;
        Ok((scores.sub(log_sum)?.exp()?, k))
    }
}

/// `log(1 + a^2)` has the slope `2 a / (1 + a^2)`.
fn slope(a: &Tensor) -> Result<Tensor> {
    a.mul_scalar(2.0)?.div(&a.square()?.add_scalar(1.0)?)
}

fn add(sum: Option<Tensor>, one: Tensor) -> Result<Option<Tensor>> {
    Ok(Some(match sum {
        Some(before) => before.add(&one)?,
        None => one,
    }))
}

/// Attention over tiles of `tile` keys: `softmax(scale q k^T) v`, `[B, H, L, Dv]`, and the sum of `log(1 + A^2)` over all its
/// weights, without dimensions (over `B H L S` it is the paper's penalty). Neither pass holds more than a tile of weights:
/// for attention of one's own over many tokens.
///
/// The sum needs the rows' final normalisers and so a second pass over the keys. In the backward pass, with `c` the
/// sum's gradient, `dA = dO v^T + c 2A / (1 + A^2)` and `dS = A (dA - rowsum(dA A))`. The usual shortcut
/// `rowsum(dA A) = rowsum(dO O)` is only the first of that row's two terms; the second, `c rowsum(2 A^2 / (1 + A^2))`,
/// takes one more pass.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::tiled_attention;
/// let (q, k) = (Tensor::zeros(&gpu, &[1, 1, 2, 3])?, Tensor::zeros(&gpu, &[1, 1, 4, 3])?);
/// let v = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 1, 4, 1])?;
/// let (out, penalty) = tiled_attention(&q, &k, &v, 1.0, 2)?;
/// // Each of two queries has a quarter of its attention on each of four keys.
/// assert!(out.to_vec()?.iter().all(|o| (o - 2.5).abs() < 1e-6));
/// assert!((penalty.item()? - 8.0 * (1.0f32 + 0.0625).ln()).abs() < 1e-5);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the shapes are not `[B, H, L, D]`, `[B, H, S, D]` and `[B, H, S, Dv]`, or the tile is 0. Asking for second derivatives is
/// an error of the backward pass.
pub fn tiled_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, tile: usize) -> Result<(Tensor, Tensor)> {
    let fits = match (q.shape(), k.shape(), v.shape()) {
        (&[b, h, _, d], &[kb, kh, s, kd], &[vb, vh, vs, _]) => {
            [b, h, d, b, h, s] == [kb, kh, kd, vb, vh, vs] && q.numel() > 0 && v.numel() > 0
        }
        _ => false,
    };
    if !fits || tile == 0 {
        return Err(Error::shape(
            "tiled_attention",
            format!(
                "takes q [B, H, L, D], k [B, H, S, D], v [B, H, S, Dv] with elements and tiles of at least a key; got {:?}, {:?}, \
                 {:?}, tiles of {tile}",
                q.shape(),
                k.shape(),
                v.shape()
            ),
        ));
    }
    let keys = k.dim(2);
    let cuts = (0..keys).step_by(tile).map(|from| (from, tile.min(keys - from))).collect();
    let tiles = Tiles { q: q.detach(), k: k.detach(), scale, cuts };
    let values = v.detach();
    let (out, log_sum, sum) = no_grad(|| forward(&tiles, &values))?;
    let packed = no_grad(|| Tensor::concat(&[&out.reshape(&[out.numel()])?, &sum.reshape(&[1])?], 0))?;
    let (n, shape) = (out.numel(), out.shape().to_vec());
    let result = custom("tiled_attention", &[q, k, v], |_| Ok(packed), move |ctx, grad| {
        if ctx.create_graph() {
            return Err(Error::Gradient("tiled_attention has no second derivative; use sdpa for that".into()));
        }
        let d_out = grad.narrow(0, 0, n)?.reshape(out.shape())?;
        let c = grad.narrow(0, n, 1)?.reshape(&[1, 1, 1, 1])?;
        backward(&tiles, &values, &out, &log_sum, &d_out, &c)
    })?;
    Ok((result.narrow(0, 0, n)?.reshape(&shape)?, result.narrow(0, n, 1)?.reshape(&[])?))
}

/// The result, the logarithms of the rows' sums `[B, H, L, 1]`, and the sum of `log(1 + A^2)`.
fn forward(tiles: &Tiles, v: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let mut state: Option<(Tensor, Tensor, Tensor)> = None;
    for &cut in &tiles.cuts {
        let (scores, _) = tiles.scores(cut)?;
        let v = v.narrow(2, cut.0, cut.1)?;
        let top = scores.max(&[3], true)?;
        state = Some(match state {
            None => {
                let p = scores.sub(&top)?.exp()?;
                (p.matmul(&v)?, p.sum(&[3], true)?, top)
            }
            Some((out, sum, before)) => {
                let top = before.maximum(&top)?;
                let (p, fade) = (scores.sub(&top)?.exp()?, before.sub(&top)?.exp()?);
                (out.mul(&fade)?.add(&p.matmul(&v)?)?, sum.mul(&fade)?.add(&p.sum(&[3], true)?)?, top)
            }
        });
    }
    let (out, sum, top) = state.ok_or_else(|| Error::shape("tiled_attention", "no keys"))?;
    let log_sum = top.add(&sum.log()?)?;
    let mut penalty = None;
    for &cut in &tiles.cuts {
        let (a, _) = tiles.weights(cut, &log_sum)?;
        penalty = add(penalty, a.square()?.log1p()?.sum_all()?)?;
    }
    let penalty = penalty.ok_or_else(|| Error::shape("tiled_attention", "no keys"))?;
    Ok((out.div(&sum)?, log_sum, penalty))
}

fn backward(
    tiles: &Tiles,
    v: &Tensor,
    out: &Tensor,
    log_sum: &Tensor,
    d_out: &Tensor,
    c: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let mut own = None;
    for &cut in &tiles.cuts {
        let (a, _) = tiles.weights(cut, log_sum)?;
        own = add(own, slope(&a)?.mul(&a)?.sum(&[3], true)?)?;
    }
    let mut row = d_out.mul(out)?.sum(&[3], true)?;
    if let Some(own) = own {
        row = row.add(&own.mul(c)?)?;
    }
    let (mut dq, mut dk, mut dv) = (None, Vec::new(), Vec::new());
    for &cut in &tiles.cuts {
        let (a, k) = tiles.weights(cut, log_sum)?;
        let da = d_out.matmul_t(&v.narrow(2, cut.0, cut.1)?, false, true)?.add(&slope(&a)?.mul(c)?)?;
        let ds = a.mul(&da.sub(&row)?)?.mul_scalar(tiles.scale)?;
        dq = add(dq, ds.matmul(&k)?)?;
        dk.push(ds.matmul_t(&tiles.q, true, false)?);
        dv.push(a.matmul_t(d_out, true, false)?);
    }
    let join = |parts: Vec<Tensor>| Tensor::concat(&parts.iter().collect::<Vec<_>>(), 2);
    Ok(vec![dq, Some(join(dk)?), Some(join(dv)?)])
}
