use shadegrad::data::digits;
use shadegrad::io::{LoadOptions, Weights};
use shadegrad::nn::{Arena, Builder, Cx};
use shadegrad::train::{Images, evaluate};
use shadegrad::{Gpu, Options, Result};
use shadegrad_models::{Spec, create};

pub fn main() -> Result<()> {
    let gpu = Gpu::new(Options::from_env()?)?;
    let mut names = Builder::new();
    let model = create("cnn", &mut names.root(), &Spec { height: 8, width: 8, channels: 1, classes: 10 })?;
    let arena = Arena::new(&gpu, &names, 0)?;
    Weights::open("digits.safetensors")?.load_into(&arena, &LoadOptions::strict())?;
    let data = digits();
    let test = Images::upload(&gpu, &data.test, &data.train.channel_stats()?)?;
    let found = evaluate(&model, &Cx::eval(&arena), &test, 120)?;
    println!("{:.2} % of {} digits are read correctly", 100.0 * found.accuracy, found.count);
    Ok(())
}
