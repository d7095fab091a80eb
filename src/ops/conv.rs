//! Two-dimensional convolution, its two gradients as operations of their own, and the transposed convolution.
//!
//! The three are sums over the same products, each linear in both operands, so the gradients of each are the other two
//! and derivatives of any order need nothing else.

use shadegrad_kernels::conv::{self as k, Conv};
use smallvec::SmallVec;

use crate::autograd::Keeper;
use crate::error::{Error, Result};
use crate::precision::operands;
use crate::tensor::{DType, Tensor};

/// Geometry of a convolution. Pairs are (rows, columns).
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let image = Tensor::ones(&gpu, &[1, 4, 4, 1])?;
/// let weight = Tensor::ones(&gpu, &[1, 2, 3, 1])?; // two rows, three columns
/// let geometry = Conv2d { stride: [2, 1], padding: [0, 1], ..Conv2d::default() };
/// assert_eq!(image.conv2d(&weight, None, geometry)?.shape(), [1, 2, 4, 1]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Distance of neighbouring windows, in pixels.
    pub stride: [usize; 2],
    /// Zeros put around the image, in pixels, on both sides.
    pub padding: [usize; 2],
    /// Distance of neighbouring taps, in pixels.
    pub dilation: [usize; 2],
    /// Groups of channels that do not mix; as many as channels make the convolution depthwise.
    pub groups: usize,
}

impl Default for Conv2d {
    /// Stride 1, no padding, no dilation, one group.
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// The same stride and padding in both directions, no dilation, one group.
    ///
    /// ```
    /// # use shadegrad::*;
    /// let same = Conv2d::new(1, 1); // keeps the size with 3 x 3 weights
    /// assert_eq!((same.stride, same.padding, same.dilation, same.groups), ([1, 1], [1, 1], [1, 1], 1));
    /// ```
    pub fn new(stride: usize, padding: usize) -> Self {
        Self { stride: [stride; 2], padding: [padding; 2], ..Self::default() }
    }

    /// With the same dilation in both directions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (image, weight) = (Tensor::ones(&gpu, &[1, 8, 8, 1])?, Tensor::ones(&gpu, &[1, 3, 3, 1])?);
    /// let y = image.conv2d(&weight, None, Conv2d::new(1, 2).dilation(2))?; // nine taps over 5 x 5 pixels
    /// assert_eq!(y.shape(), [1, 8, 8, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation: [dilation; 2], ..self }
    }

    /// With groups.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 1, 1, 2])?;
    /// let weight = Tensor::from_slice(&gpu, &[10.0, 100.0], &[2, 1, 1, 1])?; // [outputs, 1, 1, inputs / groups]
    /// let depthwise = Conv2d::new(1, 0).groups(2);
    /// assert_eq!(image.conv2d(&weight, None, depthwise)?.to_vec()?, [10.0, 200.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Checks images `x` against weights `w` and computes the size of the result.
    fn plan(&self, op: &'static str, x: &[usize], w: &[usize]) -> Result<Conv> {
        let (&[n, h, width, c], &[outs, r, s, cg]) = (x, w) else {
            return Err(Error::shape(
                op,
                format!(
                    "images {x:?} and weights {w:?} must be [n, height, width, channels] and [out, rows, columns, in / groups]"
                ),
            ));
        };
        self.check(op)?;
        let groups = self.groups;
        if cg * groups != c {
            return Err(Error::shape(
                op,
                format!(
                    "weights {w:?} in {groups} groups take {} channels, the images {x:?} have {c}; the last dimension of \
                     the weights must be channels / groups",
                    cg * groups
                ),
            ));
        }
        if outs % groups != 0 {
            return Err(Error::shape(
                op,
                format!("weights {w:?} give {outs} channels, which do not divide into {groups} groups"),
            ));
        }
        if [r, s, c, outs, h, width].contains(&0) {
            return Err(Error::shape(
                op,
                format!("weights {w:?} for images {x:?}: every dimension but the number of images must be at least 1"),
            ));
        }
        let mut out = [0; 2];
        for d in 0..2 {
            let (size, taps) = ([h, width][d], [r, s][d]);
            let reach = self.dilation[d] * (taps - 1) + 1;
            let padded = size + 2 * self.padding[d];
            if padded < reach {
                return Err(Error::shape(
                    op,
                    format!(
                        "weights {w:?} with dilation {:?} reach over {reach} {}, the images {x:?} with padding {:?} have \
                         {padded}; pad more or use smaller weights",
                        self.dilation,
                        ["rows", "columns"][d],
                        self.padding
                    ),
                ));
            }
            out[d] = (padded - reach) / self.stride[d] + 1;
        }
        let Self { stride, padding, dilation, .. } = *self;
        Ok(Conv {
            n,
            size: [h, width],
            c,
            out,
            k: outs,
            taps: [r, s],
            stride,
            padding,
            dilation,
            groups,
            halves: false,
        })
    }

    /// The shape of the transposed convolution of `x [n, height, width, in]` with `w [in, rows, columns, out / groups]`.
    fn transposed(&self, op: &'static str, x: &[usize], w: &[usize], extra: [usize; 2]) -> Result<[usize; 4]> {
        self.check(op)?;
        let (&[n, h, width, c], &[ins, r, s, kg]) = (x, w) else {
            return Err(Error::shape(
                op,
                format!(
                    "images {x:?} and weights {w:?} must be [n, height, width, channels] and [in, rows, columns, out / \
                     groups]"
                ),
            ));
        };
        if ins != c {
            return Err(Error::shape(op, format!("weights {w:?} take {ins} channels, the images {x:?} have {c}")));
        }
        let mut size = [0; 2];
        for d in 0..2 {
            // More would be rows that no window of the convolution starts at.
            if extra[d] >= self.stride[d] {
                return Err(Error::value(
                    op,
                    format!("output padding {extra:?} must be less than the stride {:?}", self.stride),
                ));
            }
            let (rows, taps) = ([h, width][d], [r, s][d]);
            let reach =
                rows.saturating_sub(1) * self.stride[d] + self.dilation[d] * taps.saturating_sub(1) + 1 + extra[d];
            size[d] = reach.checked_sub(2 * self.padding[d]).filter(|&v| v > 0 && rows > 0).ok_or_else(|| {
                Error::shape(
                    op,
                    format!(
                        "images {x:?} with weights {w:?} reach over {reach} {}, padding {:?} leaves nothing of them; pad \
                         less",
                        ["rows", "columns"][d],
                        self.padding
                    ),
                )
            })?;
        }
        Ok([n, size[0], size[1], kg * self.groups])
    }

    fn check(&self, op: &'static str) -> Result<()> {
        if self.stride.contains(&0) || self.dilation.contains(&0) || self.groups == 0 {
            return Err(Error::value(
                op,
                format!(
                    "stride {:?}, dilation {:?} and groups {} must be at least 1",
                    self.stride, self.dilation, self.groups
                ),
            ));
        }
        Ok(())
    }
}

fn weight_shape(g: &Conv) -> [usize; 4] {
    [g.k, g.taps[0], g.taps[1], g.c / g.groups]
}

fn image_shape(g: &Conv) -> [usize; 4] {
    [g.n, g.size[0], g.size[1], g.c]
}

fn result_shape(g: &Conv) -> [usize; 4] {
    [g.n, g.out[0], g.out[1], g.k]
}

/// Checks that a gradient has the shape of the convolution's result.
fn want_result(op: &'static str, g: &Conv, dy: &Tensor) -> Result<()> {
    if dy.shape() == result_shape(g) {
        return Ok(());
    }
    Err(Error::shape(
        op,
        format!(
            "the gradient is {:?}, but the convolution of {:?} with weights {:?} gives {:?}",
            dy.shape(),
            image_shape(g),
            weight_shape(g),
            result_shape(g)
        ),
    ))
}

impl Tensor {
    /// Convolution (cross-correlation, as in every framework) of images `[n, height, width, channels]` with weights
    /// `[out, rows, columns, channels / groups]` and a bias `[out]`: `[n, oh, ow, out]` with
    /// `oh = (height + 2 padding - dilation (rows - 1) - 1) / stride + 1`, rounded down.
    ///
    /// Images and weights are floats, or halves (`F16`) if one of them is or in a region of [`crate::Precision::Mixed`]: then the
    /// products are exact and their sums f32. The result is always `F32`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let images = Tensor::ones(&gpu, &[1, 4, 4, 3])?; // [batch, height, width, channels]
    /// let weight = Tensor::ones(&gpu, &[8, 3, 3, 3])?; // [outputs, height, width, inputs]
    /// let y = images.conv2d(&weight, None, Conv2d::new(1, 1))?; // stride 1, padding 1
    /// assert_eq!(y.shape(), [1, 4, 4, 8]);
    /// assert_eq!(y.to_vec()?[0], 12.0); // in the corner four of nine taps meet a pixel, of three channels
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, a stride is 0, or the weights reach beyond the padded image.
    pub fn conv2d(&self, w: &Tensor, bias: Option<&Tensor>, p: Conv2d) -> Result<Tensor> {
        const OP: &str = "conv2d";
        let (x, weights) = operands(OP, self, w)?;
        let g = p.plan(OP, x.shape(), w.shape())?.halves(x.dtype() == DType::F16);
        if let Some(b) = bias {
            b.want(OP, DType::F32)?;
            x.same_gpu(OP, b)?;
            if b.shape() != [g.k] {
                return Err(Error::shape(
                    OP,
                    format!("the bias is {:?}, weights {:?} need [{}]", b.shape(), w.shape(), g.k),
                ));
            }
        }
        let out = Tensor::empty(self.gpu(), &result_shape(&g), DType::F32, OP)?;
        if out.numel() > 0 {
            k::forward(self.gpu(), &g, x.storage(), weights.storage(), bias.map(Tensor::storage), out.storage())?;
        }
        let (of_x, of_w) = (x.clone(), weights.clone());
        let inputs: SmallVec<[&Tensor; 3]> = [&of_x, &of_w].into_iter().chain(bias).collect();
        let biased = bias.is_some();
        // Images and weights are needed for the gradient of the other alone.
        let keep = Keeper::new(OP, &inputs);
        let dtype = x.dtype();
        let x = keep.whole_if(w.requires_grad(), "input", &x);
        let weights = keep.whole_if(self.requires_grad(), "weight", &weights);
        Ok(out.record("conv2d", &inputs, move |ctx, grad| {
            // Rounded once for both.
            let dy = grad.cast(dtype)?;
            let dx = || dy.conv2d_input_grad(&weights.get(ctx)?, x.shape(), p);
            let dw = || x.get(ctx)?.conv2d_weight_grad(&dy, weights.shape(), p);
            let mut grads = vec![ctx.needs(0).then(dx).transpose()?, ctx.needs(1).then(dw).transpose()?];
            if biased {
                grads.push(ctx.needs(2).then(|| grad.sum_to(&[g.k])).transpose()?);
            }
            Ok(grads)
        }))
    }

    /// The gradient of a convolution for its images: `self` is the gradient of the result, `w` the weights.
    pub(crate) fn conv2d_input_grad(&self, w: &Tensor, x_shape: &[usize], p: Conv2d) -> Result<Tensor> {
        const OP: &str = "conv2d_input_grad";
        let (dy, weights) = operands(OP, self, w)?;
        let g = p.plan(OP, x_shape, w.shape())?.halves(dy.dtype() == DType::F16);
        want_result(OP, &g, self)?;
        let out = Tensor::empty(self.gpu(), x_shape, DType::F32, OP)?;
        if out.numel() > 0 {
            k::input_grad(self.gpu(), &g, dy.storage(), weights.storage(), out.storage())?;
        }
        let (of_dy, of_w) = (dy.clone(), weights.clone());
        Ok(out.record("conv2d_input_grad", &[&of_dy, &of_w], move |ctx, grad| {
            let by_dy = || grad.conv2d(&weights, None, p);
            let by_w = || grad.conv2d_weight_grad(&dy, weights.shape(), p);
            Ok(vec![ctx.needs(0).then(by_dy).transpose()?, ctx.needs(1).then(by_w).transpose()?])
        }))
    }

    /// The gradient of a convolution for its weights: `self` are the images, `dy` the gradient of the result.
    pub(crate) fn conv2d_weight_grad(&self, dy: &Tensor, w_shape: &[usize], p: Conv2d) -> Result<Tensor> {
        const OP: &str = "conv2d_weight_grad";
        let (x, grad_y) = operands(OP, self, dy)?;
        let g = p.plan(OP, x.shape(), w_shape)?.halves(x.dtype() == DType::F16);
        want_result(OP, &g, dy)?;
        let out = if dy.numel() == 0 {
            Tensor::zeros(self.gpu(), w_shape)?
        } else {
            let out = Tensor::empty(self.gpu(), w_shape, DType::F32, OP)?;
            k::weight_grad(self.gpu(), &g, x.storage(), grad_y.storage(), out.storage())?;
            out
        };
        let (of_x, of_dy) = (x.clone(), grad_y.clone());
        Ok(out.record("conv2d_weight_grad", &[&of_x, &of_dy], move |ctx, grad| {
            let by_x = || grad_y.conv2d_input_grad(grad, x.shape(), p);
            let by_dy = || x.conv2d(grad, None, p);
            Ok(vec![ctx.needs(0).then(by_x).transpose()?, ctx.needs(1).then(by_dy).transpose()?])
        }))
    }

    /// Transposed convolution of images `[n, height, width, in]` with weights `[in, rows, columns, out / groups]` and a
    /// bias `[out]`: the adjoint of [`Tensor::conv2d`] with the same weights, onto images of
    /// `(height - 1) stride - 2 padding + dilation (rows - 1) + 1 + output_padding` rows, and columns alike.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::full(&gpu, &[1, 1, 1, 1], 2.0)?;
    /// let weight = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?; // [inputs, .., outputs]
    /// let y = image.conv_transpose2d(&weight, None, Conv2d::new(2, 0), [0, 0])?; // twice the size
    /// assert_eq!((y.shape(), y.to_vec()?), (&[1, 2, 2, 1][..], vec![2.0, 4.0, 6.0, 8.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, or the output padding is not less than the stride.
    pub fn conv_transpose2d(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        p: Conv2d,
        output_padding: [usize; 2],
    ) -> Result<Tensor> {
        const OP: &str = "conv_transpose2d";
        let shape = p.transposed(OP, self.shape(), w.shape(), output_padding)?;
        if let Some(b) = bias
            && b.shape() != [shape[3]]
        {
            return Err(Error::shape(
                OP,
                format!("the bias is {:?}, weights {:?} need [{}]", b.shape(), w.shape(), shape[3]),
            ));
        }
        let y = self.conv2d_input_grad(w, &shape, p)?;
        bias.map_or(Ok(y.clone()), |b| y.add(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(p: Conv2d, x: &[usize], w: &[usize]) -> String {
        p.plan("conv2d", x, w).unwrap_err().to_string()
    }

    #[test]
    fn sizes() {
        let size = |p: Conv2d, h: usize, r: usize| p.plan("conv2d", &[1, h, h, 4], &[8, r, r, 4]).unwrap().out[0];
        assert_eq!(size(Conv2d::new(1, 1), 32, 3), 32);
        assert_eq!(size(Conv2d::new(2, 1), 32, 3), 16);
        assert_eq!(size(Conv2d::new(2, 3), 224, 7), 112);
        assert_eq!(size(Conv2d::new(1, 2).dilation(2), 9, 3), 9);
        assert_eq!(size(Conv2d::default(), 3, 3), 1);
        let up = |p: Conv2d, h: usize, extra: usize| {
            p.transposed("conv_transpose2d", &[1, h, h, 8], &[8, 3, 3, 4], [extra; 2]).unwrap()
        };
        assert_eq!(up(Conv2d::new(2, 1), 16, 1), [1, 32, 32, 4]);
        assert_eq!(up(Conv2d::default(), 4, 0), [1, 6, 6, 4]);
        assert_eq!(up(Conv2d::new(2, 1).groups(2), 2, 0), [1, 3, 3, 8]);
    }

    #[test]
    fn errors_name_the_shapes_and_the_remedy() {
        let same = Conv2d::new(1, 1);
        for (text, words) in [
            (error(same, &[8, 8, 3], &[4, 3, 3, 3]), ["[8, 8, 3]", "height"]),
            (error(same, &[1, 8, 8, 3], &[4, 3, 3, 4]), ["take 4 channels", "have 3"]),
            (error(same.groups(2), &[1, 8, 8, 4], &[3, 3, 3, 2]), ["3 channels", "2 groups"]),
            (error(Conv2d::default(), &[1, 2, 8, 3], &[4, 3, 3, 3]), ["reach over 3 rows", "pad more"]),
            (error(same.dilation(4), &[1, 8, 6, 3], &[4, 3, 3, 3]), ["reach over 9 columns", "have 8"]),
            (error(Conv2d::new(0, 1), &[1, 8, 8, 3], &[4, 3, 3, 3]), ["stride [0, 0]", "at least 1"]),
            (error(same.groups(0), &[1, 8, 8, 3], &[4, 3, 3, 3]), ["groups 0", "at least 1"]),
            (error(same, &[1, 8, 8, 3], &[0, 3, 3, 3]), ["[0, 3, 3, 3]", "at least 1"]),
        ] {
            assert!(text.starts_with("conv2d: "), "{text}");
            assert!(words.iter().all(|w| text.contains(w)), "{text} lacks one of {words:?}");
        }
    }

    #[test]
    fn errors_of_the_transposed_convolution() {
        let error = |p: Conv2d, x: &[usize], w: &[usize], extra: [usize; 2]| {
            p.transposed("conv_transpose2d", x, w, extra).unwrap_err().to_string()
        };
        let p = Conv2d::new(2, 1);
        for (text, word) in [
            (error(p, &[1, 4, 4, 8], &[8, 3, 3, 4], [2, 0]), "less than the stride"),
            (error(p, &[1, 4, 4, 6], &[8, 3, 3, 4], [1, 1]), "take 8 channels"),
            (error(p, &[4, 4, 8], &[8, 3, 3, 4], [1, 1]), "must be [n, height, width, channels]"),
            (error(Conv2d::new(1, 3), &[1, 2, 9, 8], &[8, 3, 3, 4], [0, 0]), "pad less"),
        ] {
            assert!(text.starts_with("conv_transpose2d: ") && text.contains(word), "{text}");
        }
    }
}
