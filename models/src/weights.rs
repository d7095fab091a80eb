//! Weights under the names that other implementations give them.
//!
//! The models here are named as torchvision's ResNet, wide ResNet and VGG and timm's ResNet and ViT are, so those files
//! load as they are. [`canonical`] brings the others to the same names: torchvision's ViT, timm's VGG, and models that
//! were wrapped when they were saved.
//!
//! ```no_run
//! use shadegrad::io::{LoadOptions, Weights};
//! # fn load(arena: &shadegrad::nn::Arena) -> shadegrad::Result<()> {
//! let file = shadegrad_models::weights::canonical(Weights::open("vit_b_16.pth")?)?;
//! file.load_into(arena, &LoadOptions::strict())?;
//! # Ok(())
//! # }
//! ```

use shadegrad::Result;
use shadegrad::io::{Checkpoint, Saved, Weights};

/// What `DataParallel`, `torch.compile` and averaged models put before every name.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "ema_model."];

/// torchvision's parts of a ViT and timm's: whole beginnings first.
const VIT: &[(&str, &str)] = &[
    ("class_token", "cls_token"),
    ("conv_proj.", "patch_embed.proj."),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.ln.", "norm."),
    ("heads.head.", "head."),
];

/// The same within a block.
const VIT_BLOCK: &[(&str, &str)] = &[
    ("ln_1.", "norm1."),
    ("ln_2.", "norm2."),
    ("self_attention.in_proj_weight", "attn.qkv.weight"),
    ("self_attention.in_proj_bias", "attn.qkv.bias"),
    ("self_attention.out_proj.", "attn.proj."),
    ("mlp.linear_1.", "mlp.fc1."),
    ("mlp.linear_2.", "mlp.fc2."),
    ("mlp.0.", "mlp.fc1."),
    ("mlp.3.", "mlp.fc2."),
];

/// timm's parts of a VGG's head, which are convolutions there, and torchvision's.
const VGG: &[(&str, &str)] =
    &[("pre_logits.fc1.", "classifier.0."), ("pre_logits.fc2.", "classifier.3."), ("head.fc.", "classifier.6.")];

/// The same weights under the names used here; those that are known already stay.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::io::{Saved, Weights};
/// use shadegrad_models::weights::canonical;
/// // As a model that was wrapped for several devices saves itself.
/// let file = Weights::new(vec![Saved::f32("module.fc.bias", &[2], &[0.5, 1.0])?], Default::default());
/// let weights = canonical(file)?;
/// assert_eq!(weights.tensors()[0].name(), "fc.bias");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// None for weights from a file.
pub fn canonical(weights: Weights) -> Result<Weights> {
    let mut weights = weights;
    for wrapper in WRAPPERS {
        // State of a checkpoint has names of its own, which no wrapper changes.
        let mut model = weights.tensors().iter().filter(|t| !Checkpoint::is_state(t.name())).peekable();
        if model.peek().is_some() && model.all(|t| t.name().starts_with(wrapper)) {
            weights = weights.map(|t| Ok(Some(strip(t, wrapper))))?;
        }
    }
    if weights.get("class_token").is_some() && weights.get("conv_proj.weight").is_some() {
        return weights.map(|t| Ok(Some(vit(t))));
    }
    if weights.get("pre_logits.fc1.weight").is_some() {
        return weights.map(|t| vgg(t).map(Some));
    }
    Ok(weights)
}

fn strip(t: Saved, wrapper: &str) -> Saved {
    match t.name().strip_prefix(wrapper).map(str::to_string) {
        Some(name) => t.renamed(name),
        None => t,
    }
}

/// `name` with the beginning that the table knows replaced.
fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

fn vit(t: Saved) -> Saved {
    let block = |name: &str| {
        let (number, rest) = name.strip_prefix("encoder.layers.encoder_layer_")?.split_once('.')?;
        Some(format!("blocks.{number}.{}", replaced(rest, VIT_BLOCK)?))
    };
    match replaced(t.name(), VIT).or_else(|| block(t.name())) {
        Some(name) => t.renamed(name),
        None => t,
    }
}

fn vgg(t: Saved) -> Result<Saved> {
    let Some(name) = replaced(t.name(), VGG) else { return Ok(t) };
    match *t.shape() {
        // A convolution over the whole map is a linear layer, its columns by channel, row and column.
        [out, channels, h, w] => Ok(t.reshaped(&[out, channels * h * w])?.renamed(name)),
        _ => Ok(t.renamed(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        let tensors = list.iter().map(|(n, s)| Saved::f32(*n, s, &vec![0.0; s.iter().product()]).unwrap());
        let weights = canonical(Weights::new(tensors.collect(), Default::default())).unwrap();
        weights.tensors().iter().map(|t| (t.name().to_string(), t.shape().to_vec())).collect()
    }

    #[test]
    fn other_names_become_ours() {
        let all = names(&[
            ("module.class_token", &[1, 1, 2]),
            ("module.conv_proj.weight", &[2, 1, 1, 1]),
            ("module.encoder.layers.encoder_layer_11.mlp.3.bias", &[2]),
            ("module.encoder.layers.encoder_layer_0.self_attention.in_proj_bias", &[6]),
            ("module.encoder.ln.bias", &[2]),
            ("module.heads.head.weight", &[3, 2]),
        ]);
        let all: Vec<&str> = all.iter().map(|n| n.0.as_str()).collect();
        let want = [
            "cls_token",
            "patch_embed.proj.weight",
            "blocks.11.mlp.fc2.bias",
            "blocks.0.attn.qkv.bias",
            "norm.bias",
            "head.weight",
        ];
        assert_eq!(all, want);
        let all = names(&[("pre_logits.fc1.weight", &[4, 3, 2, 2]), ("head.fc.bias", &[5]), ("features.0.bias", &[3])]);
        let want = [("classifier.0.weight", vec![4, 12]), ("classifier.6.bias", vec![5]), ("features.0.bias", vec![3])];
        assert_eq!(all, want.map(|(n, s)| (n.to_string(), s)));
        // A prefix that only some have belongs to the model.
        assert_eq!(names(&[("module.a", &[1]), ("b", &[1])])[0].0, "module.a");
    }
}
