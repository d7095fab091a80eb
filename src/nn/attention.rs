//! Multi-head self-attention.

use crate::error::{Error, Result};
use crate::nn::{Cx, Dropout, Init, Linear, Module, Scope};
use crate::ops::Attention;
use crate::tensor::Tensor;

/// Self-attention of `[N, tokens, width]` as timm's `Attention`: `qkv` gives queries, keys and values of all heads in one
/// product, `proj` mixes the heads.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = MultiHeadAttention::new(&mut names.root().sub("attn"), 16, 4, true, 0.0);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 5, 16])?)?;
/// assert_eq!(y.shape(), [2, 5, 16]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    name: String,
    qkv: Linear,
    proj: Linear,
    heads: usize,
    dropout: Dropout,
}

impl MultiHeadAttention {
    /// A layer with `heads` heads of `width / heads` each and dropout behind `proj`. First values as timm's ViT: truncated
    /// normal 0.02, biases zero.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// MultiHeadAttention::new(&mut names.root().sub("attn"), 16, 4, false, 0.1);
    /// let (table, _) = names.tables()?;
    /// let all: Vec<&str> = table.entries().iter().map(|e| e.name.as_str()).collect();
    /// assert_eq!(all, ["attn.qkv.weight", "attn.proj.weight", "attn.proj.bias"]);
    /// assert_eq!(table.entries()[0].shape, [48, 16]); // queries, keys and values
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, width: usize, heads: usize, qkv_bias: bool, dropout: f32) -> Self {
        let (w, b) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        Self {
            name: scope.name().to_string(),
            qkv: Linear::with_init(&mut scope.sub("qkv"), width, 3 * width, w, b.filter(|_| qkv_bias)),
            proj: Linear::with_init(&mut scope.sub("proj"), width, width, w, b),
            heads,
            dropout: Dropout(dropout),
        }
    }

    /// The layer with a bias, a mask or causality.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = MultiHeadAttention::new(&mut names.root().sub("attn"), 4, 2, true, 0.0);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::eval(&arena);
    /// let causal = Attention { causal: true, ..Attention::default() };
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 0.0, 1.0], &[1, 2, 4])?; // two tokens
    /// let both = layer.attend(&cx, &x, causal)?.narrow(1, 0, 1)?;
    /// let alone = layer.forward(&cx, &x.narrow(1, 0, 1)?)?; // the first token sees itself only
    /// assert!(both.sub(&alone)?.to_vec()?.iter().all(|d| d.abs() < 1e-6));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the input is not `[N, tokens, width]`, or the heads do not divide the width.
    pub fn attend(&self, cx: &Cx, x: &Tensor, options: Attention<'_>) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let &[n, tokens, width] = x.shape() else {
            return Err(Error::shape("attention", format!("takes [N, tokens, width], got {:?}", x.shape())));
        };
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            return Err(Error::shape("attention", format!("{} heads do not divide the width {width}", self.heads)));
        }
        let qkv = self.qkv.forward(cx, x)?.reshape(&[n, tokens, 3, self.heads, width / self.heads])?;
        let qkv = qkv.permute(&[2, 0, 3, 1, 4])?;
        let (q, k, v) = (qkv.select_at(0, 0)?, qkv.select_at(0, 1)?, qkv.select_at(0, 2)?);
        let heads = q.sdpa(&k, &v, options)?;
        let y = self.proj.forward(cx, &heads.permute(&[0, 2, 1, 3])?.reshape(&[n, tokens, width])?)?;
        cx.tap(&self.name, self.dropout.forward(cx, &y)?)
    }
}

impl Module for MultiHeadAttention {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.attend(cx, x, Attention::default())
    }
}
