//! Attention within windows, with a learned bias for each relative place.

use shadegrad::nn::{Cx, Init, Linear, Module, ParamId, Scope};
use shadegrad::window::{Windows, relative_bias};
use shadegrad::{Attention, Error, Result, Tensor};

/// Multi-head self-attention within windows of side M (Liu et al., 2021): parameters `qkv`, `proj` and
/// `relative_position_bias_table` `[(2 M - 1)^2, heads]`, which all windows share.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::coswin::WindowAttention;
/// let mut names = Builder::new();
/// let attention = WindowAttention::new(&mut names.root().sub("attn"), 4, 2, 2)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let map = Tensor::ones(&gpu, &[1, 4, 6, 4])?;
/// assert_eq!(attention.forward_map(&Cx::eval(&arena), &map, 0)?.shape(), [1, 4, 6, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WindowAttention {
    name: String,
    qkv: Linear,
    proj: Linear,
    table: ParamId,
    heads: usize,
    window: usize,
}

impl WindowAttention {
    /// A layer for tokens of width `dim`. First values: truncated normal 0.02, biases zero.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::WindowAttention;
    /// let mut names = Builder::new();
    /// WindowAttention::new(&mut names.root().sub("attn"), 4, 2, 2)?;
    /// let (qkv, proj, table) = (4 * 12 + 12, 4 * 4 + 4, 3 * 3 * 2);
    /// assert_eq!(names.tables()?.0.numel(), qkv + proj + table);
    /// assert!(WindowAttention::new(&mut names.root().sub("b"), 4, 3, 2).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the heads do not divide the width, or the window is 0.
    pub fn new(scope: &mut Scope<'_>, dim: usize, heads: usize, window: usize) -> Result<Self> {
        if heads == 0 || window == 0 || !dim.is_multiple_of(heads) {
            return Err(Error::value(
                "window attention",
                format!(
                    "width {dim}, {heads} heads, windows of side {window}: heads must divide the width, both be positive"
                ),
            ));
        }
        let (w, b) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        Ok(Self {
            name: scope.name().to_string(),
            qkv: Linear::with_init(&mut scope.sub("qkv"), dim, 3 * dim, w, b),
            proj: Linear::with_init(&mut scope.sub("proj"), dim, dim, w, b),
            table: scope.param("relative_position_bias_table", &[(2 * window - 1).pow(2), heads], w),
            heads,
            window,
        })
    }

    /// The table of biases.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::WindowAttention;
    /// let mut names = Builder::new();
    /// let attention = WindowAttention::new(&mut names.root().sub("attn"), 4, 2, 4)?;
    /// let (table, _) = names.tables()?;
    /// assert_eq!(table.entries()[attention.table().index()].shape, [7 * 7, 2]); // places from -3 to 3
    /// # Ok::<(), Error>(())
    /// ```
    pub fn table(&self) -> ParamId {
        self.table
    }

    /// Attention in windows that are given one by one, `[B windows, M^2, C]` with the windows of an image side by side.
    /// `mask` is added to the scores, `[windows, M^2, M^2]` ([`crate::papers::coswin::shift_mask`] makes it).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::coswin::WindowAttention;
    /// let mut names = Builder::new();
    /// let attention = WindowAttention::new(&mut names.root().sub("attn"), 4, 2, 2)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// // A map of 4 x 4 in four windows of 2 x 2, moved by one.
    /// let windows = Tensor::ones(&gpu, &[4, 4, 4])?;
    /// let mask = shadegrad_models::papers::coswin::shift_mask(&gpu, [4, 4], 2, 1)?;
    /// assert_eq!(attention.forward(&Cx::eval(&arena), &windows, Some(&mask))?.shape(), [4, 4, 4]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, cx: &Cx, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        const OP: &str = "window attention";
        let (n, heads) = (self.window * self.window, self.heads);
        let c = match *x.shape() {
            [_, tokens, c] if tokens == n => c,
            _ => return Err(Error::shape(OP, format!("takes windows [B windows, {n}, C], got {:?}", x.shape()))),
        };
        let all = x.dim(0);
        let count = match mask.map(Tensor::shape) {
            None => 1,
            Some(&[count, a, b]) if a == n && b == n && count > 0 && all.is_multiple_of(count) => count,
            Some(shape) => {
                return Err(Error::shape(
                    OP,
                    format!("a mask {shape:?} for {all} windows; it must be [windows of an image, {n}, {n}]"),
                ));
            }
        };
        let qkv = self.qkv.forward(cx, x)?.reshape(&[all, n, 3, heads, c / heads])?.permute(&[2, 0, 3, 1, 4])?;
        let mut bias = relative_bias(cx.param(self.table), self.window)?;
        if let Some(mask) = mask {
            bias = bias.unsqueeze(0)?.add(&mask.unsqueeze(1)?)?;
        }
        // The mask repeats over images: the windows of an image are then so many heads.
        let bias = bias.reshape(&[1, count * heads, n, n])?;
        let part = |i: usize| qkv.select_at(0, i)?.reshape(&[all / count, count * heads, n, c / heads]);
        let y = part(0)?.sdpa(&part(1)?, &part(2)?, Attention { bias: Some(&bias), ..Attention::default() })?;
        let y = y.reshape(&[all, heads, n, c / heads])?.permute(&[0, 2, 1, 3])?.reshape(&[all, n, c])?;
        cx.tap(&self.name, self.proj.forward(cx, &y)?)
    }

    /// Attention in the windows of a map `[B, H, W, C]`, which are moved by `shift` down and right; the same as
    /// [`WindowAttention::forward`] on the shifted map's windows with their mask.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::coswin::WindowAttention;
    /// let mut names = Builder::new();
    /// let attention = WindowAttention::new(&mut names.root().sub("attn"), 4, 2, 2)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let map = Tensor::ones(&gpu, &[2, 4, 4, 4])?;
    /// assert_eq!(attention.forward_map(&Cx::eval(&arena), &map, 1)?.shape(), [2, 4, 4, 4]);
    /// assert!(attention.forward_map(&Cx::eval(&arena), &map, 2).is_err()); // a whole window
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the windows do not divide the map, or the shift is not below their side.
    pub fn forward_map(&self, cx: &Cx, x: &Tensor, shift: usize) -> Result<Tensor> {
        let windows = Windows { heads: self.heads, window: self.window, shift, scale: None };
        let y = self.qkv.forward(cx, x)?.window_attention(Some(cx.param(self.table)), windows)?;
        cx.tap(&self.name, self.proj.forward(cx, &y)?)
    }
}
