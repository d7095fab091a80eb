//! A Swin block with attention within windows in one kernel against the same block whose windows are copied out and back:
//! training (forward and backward) and inference. One core's second on a software driver: see `support`.

#[path = "../../benches/support/mod.rs"]
mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shadegrad::autograd::no_grad;
use shadegrad::nn::{Activation, Arena, Builder, Cx, LayerNorm, Mlp, Module, Scope};
use shadegrad::{Gpu, Options, Result, Tensor};
use shadegrad_models::papers::coswin::{WindowAttention, cyclic_shift, shift_mask, window_partition, window_reverse};
use support::CpuTime;

const WINDOW: usize = 4;
const SHIFT: usize = 2;

struct Block {
    norm1: LayerNorm,
    attention: WindowAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(scope: &mut Scope<'_>, dim: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(&mut scope.sub("norm1"), dim, 1e-5),
            attention: WindowAttention::new(&mut scope.sub("attn"), dim, heads, WINDOW)?,
            norm2: LayerNorm::new(&mut scope.sub("norm2"), dim, 1e-5),
            mlp: Mlp::new(&mut scope.sub("mlp"), dim, 2 * dim, Activation::Gelu, 0.0),
        })
    }

    /// With the mask, the windows are copied.
    fn forward(&self, cx: &Cx, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let h = self.norm1.forward(cx, x)?;
        let a = match mask {
            None => self.attention.forward_map(cx, &h, SHIFT)?,
            Some(mask) => {
                let back = SHIFT as isize;
                let windows = window_partition(&cyclic_shift(&h, [-back, -back])?, WINDOW)?;
                let y = self.attention.forward(cx, &windows, Some(mask))?;
                cyclic_shift(&window_reverse(&y, WINDOW, [x.dim(1), x.dim(2)])?, [back, back])?
            }
        };
        let x = x.add(&a)?;
        x.add(&self.mlp.forward(cx, &self.norm2.forward(cx, &x)?)?)
    }
}

fn blocks(c: &mut Criterion<CpuTime>) {
    let options = Options { checked: Some(false), ..Options::from_env().expect("environment") };
    let gpu = Gpu::new(options).expect("a GPU driver");
    let mut group = c.benchmark_group("swin_block");
    // Images, side of the grid, width, heads: the first stage of the small run, and the paper's.
    for (name, [batch, side, dim, heads]) in [("small_64", [64, 8, 24, 2]), ("paper_8", [8, 16, 96, 3])] {
        let mut builder = Builder::new();
        let block = Block::new(&mut builder.root(), dim, heads).expect("a block");
        let arena = Arena::new(&gpu, &builder, 0).expect("memory");
        let x = Tensor::full(&gpu, &[batch, side, side, dim], 0.5).expect("memory");
        let mask = shift_mask(&gpu, [side, side], WINDOW, SHIFT).expect("memory");
        for (how, mask) in [("composed", Some(&mask)), ("fused", None)] {
            let train = || {
                // The map needs a gradient as it does within a network.
                let loss = block.forward(&Cx::train(&arena), &x.leaf(), mask)?.sum_all()?;
                arena.backward(&loss)
            };
            let infer = || no_grad(|| block.forward(&Cx::eval(&arena), &x, mask)).map(|_| ());
            let passes: [(&str, &dyn Fn() -> Result<()>); 2] = [("train", &train), ("infer", &infer)];
            for (what, pass) in passes {
                group.bench_function(BenchmarkId::new(format!("{what}_{how}"), name), |b| {
                    b.iter_custom(|times| support::spent(&gpu, times, || pass().expect("the block runs")));
                });
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = support::settings(500, 2000);
    targets = blocks
}
criterion_main!(benches);
