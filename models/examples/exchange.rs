//! The engine's side of `scripts/reference/exchange.py check`: reads PyTorch's weights and writes its own, with the logits
//! of both.

use std::path::Path;

use shadegrad::autograd::no_grad;
use shadegrad::io::{LoadOptions, Weights};
use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::{Error, Gpu, Options, Result, Tensor};
use shadegrad_models::weights::canonical;
use shadegrad_models::{LeNet, Spec, Vgg, VggConfig, Vit, VitConfig, create};

/// The model of a case, and the side of its pictures.
fn model(case: &str, scope: &mut Scope<'_>) -> Result<(Box<dyn Module>, usize)> {
    let spec = |side, classes| Spec { height: side, width: side, channels: 3, classes };
    Ok(match case {
        "resnet18" => (create("resnet18", scope, &spec(96, 1000))?, 96),
        "vit_tiny" => (create("vit_tiny", scope, &spec(224, 1000))?, 224),
        "lenet" => (Box::new(LeNet::new(scope, &spec(32, 10))?), 32),
        "torchvision_vit" => (Box::new(Vit::new(scope, &VitConfig::micro(&spec(32, 10)))?), 32),
        _ => {
            let stages = vec![vec![8], vec![16, 16]];
            let hidden = vec![32, 32];
            let config = VggConfig { stages, hidden, grid: 7, dropout: 0.5, channels: 3, classes: 10 };
            (Box::new(Vgg::new(scope, &config)?), 32)
        }
    })
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or_else(|| Error::value("exchange", "give the folder"))?;
    let folder = Path::new(&folder);
    let gpu = Gpu::new(Options::from_env()?)?;
    for case in ["resnet18", "vit_tiny", "vgg_narrow", "lenet", "torchvision_vit"] {
        let mut builder = Builder::new();
        let (model, side) = model(case, &mut builder.root())?;
        let file = |name: &str| folder.join(format!("{case}.{name}"));
        let read = |name: &str| std::fs::read(file(name)).map_err(|e| Error::io(file(name), &e));
        let pictures: Vec<f32> = read("pictures.f32")?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let x = Tensor::from_slice(&gpu, &pictures, &[2, side, side, 3])?;
        let arena = Arena::new(&gpu, &builder, 7)?;
        for way in ["ours.safetensors", "theirs.pth", "theirs.safetensors"] {
            if way.starts_with("ours") {
                Weights::of(&arena)?.save(file(way))?;
            } else {
                canonical(Weights::open(file(way))?)?.load_into(&arena, &LoadOptions::strict())?;
            }
            let logits = no_grad(|| model.forward(&Cx::eval(&arena), &x))?.to_bytes()?;
            let path = file(&format!("{way}.logits.f32"));
            std::fs::write(&path, logits).map_err(|e| Error::io(path, &e))?;
        }
    }
    Ok(())
}
