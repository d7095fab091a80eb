//! A Swin block in burn: windows are moved, copied out, attended and copied back.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};

const WINDOW: usize = 4;
const SHIFT: i64 = 2;
const TOKENS: usize = WINDOW * WINDOW;

#[derive(Module, Debug)]
pub struct SwinBlock {
    norm1: LayerNorm,
    qkv: Linear,
    table: Param<Tensor<2>>,
    project: Linear,
    norm2: LayerNorm,
    mlp: (Linear, Linear),
    /// For each pair of tokens of a window, its row of the table.
    places: Tensor<1, Int>,
    /// `[windows, 1, tokens, tokens]`: far below zero where the move brought strangers together.
    mask: Tensor<4>,
    heads: usize,
}

/// Which part of the image a token came from before the move, by its row or column after it.
fn region(at: usize, side: usize) -> usize {
    usize::from(at >= side - WINDOW) + usize::from(at >= side - SHIFT as usize)
}

impl SwinBlock {
    pub fn new(dim: usize, side: usize, heads: usize, device: &Device) -> Self {
        let places: Vec<i32> = (0..TOKENS * TOKENS)
            .map(|i| {
                let (a, b) = (i / TOKENS, i % TOKENS);
                let offset = |of: fn(usize) -> usize| of(a) + WINDOW - 1 - of(b);
                (offset(|t| t / WINDOW) * (2 * WINDOW - 1) + offset(|t| t % WINDOW)) as i32
            })
            .collect();
        let across = side / WINDOW;
        let windows = across * across;
        let part = |window: usize, token: usize| {
            let row = window / across * WINDOW + token / WINDOW;
            let column = window % across * WINDOW + token % WINDOW;
            3 * region(row, side) + region(column, side)
        };
        let mask: Vec<f32> = (0..windows * TOKENS * TOKENS)
            .map(|i| {
                let (w, a, b) = (i / (TOKENS * TOKENS), i / TOKENS % TOKENS, i % TOKENS);
                if part(w, a) == part(w, b) { 0.0 } else { -100.0 }
            })
            .collect();
        Self {
            norm1: LayerNormConfig::new(dim).init(device),
            qkv: LinearConfig::new(dim, 3 * dim).init(device),
            table: Initializer::Normal { mean: 0.0, std: 0.02 }.init([(2 * WINDOW - 1).pow(2), heads], device),
            project: LinearConfig::new(dim, dim).init(device),
            norm2: LayerNormConfig::new(dim).init(device),
            mlp: (LinearConfig::new(dim, 2 * dim).init(device), LinearConfig::new(2 * dim, dim).init(device)),
            places: Tensor::from_data(TensorData::new(places, [TOKENS * TOKENS]), device),
            mask: Tensor::from_data(TensorData::new(mask, [windows, 1, TOKENS, TOKENS]), device),
            heads,
        }
    }

    /// Takes and gives `[batch, side, side, dim]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, side, _, c] = x.dims();
        let (across, heads, each) = (side / WINDOW, self.heads, c / self.heads);
        let windows = across * across;
        let y = self.norm1.forward(x.clone()).roll(&[-SHIFT, -SHIFT], &[1, 2]);
        let y = y.reshape([n, across, WINDOW, across, WINDOW, c].map(|d| d as i32)).permute([0, 1, 3, 2, 4, 5]);
        let qkv = self.qkv.forward(y.reshape([n * windows, TOKENS, c]));
        let qkv = qkv.reshape([n * windows, TOKENS, 3, heads, each]).permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().narrow(0, i, 1).squeeze_dim::<4>(0));
        let scores = q.matmul(k.swap_dims(2, 3)) / (each as f32).sqrt();
        let bias = self.table.val().select(0, self.places.clone()).swap_dims(0, 1).reshape([1, heads, TOKENS, TOKENS]);
        let scores = (scores + bias).reshape([n, windows, heads, TOKENS, TOKENS]) + self.mask.clone().unsqueeze_dim(0);
        let y = softmax(scores.reshape([n * windows, heads, TOKENS, TOKENS]), 3).matmul(v);
        let y = self.project.forward(y.swap_dims(1, 2).reshape([n * windows, TOKENS, c]));
        let y = y.reshape([n, across, across, WINDOW, WINDOW, c].map(|d| d as i32)).permute([0, 1, 3, 2, 4, 5]);
        let x = x + y.reshape([n, side, side, c]).roll(&[SHIFT, SHIFT], &[1, 2]);
        x.clone() + self.mlp.1.forward(gelu(self.mlp.0.forward(self.norm2.forward(x))))
    }
}
