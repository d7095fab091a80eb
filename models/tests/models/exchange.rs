//! Weights exchanged with PyTorch: what it wrote is read, and its logits come out; names and shapes of torchvision and
//! timm. The fixtures are of `scripts/reference/exchange.py`, which also checks the other direction with PyTorch itself.

use std::path::PathBuf;

use serde_json::Value;
use shadegrad::autograd::no_grad;
use shadegrad::io::{LoadOptions, Saved, Weights};
use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::{Result, Tensor};
use shadegrad_models::weights::canonical;
use shadegrad_models::{LeNet, Spec, Vgg, VggConfig, Vit, VitConfig, create};

use super::gpu;
use super::weights_formula::formula;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchange").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).expect("the fixture")).expect("JSON")
}

fn sizes(v: &Value) -> Vec<usize> {
    v.as_array().expect("a shape").iter().map(|d| d.as_u64().expect("a size") as usize).collect()
}

/// The weights of a case under PyTorch's names and in its layouts.
fn weights_of(case: &Value) -> Weights {
    let tensors = case["tensors"].as_array().expect("tensors").iter().map(|t| {
        let (name, shape) = (t[0].as_str().expect("a name"), sizes(&t[1]));
        let numbers = (t[2].as_f64().expect("a bound"), t[3].as_f64().expect("an offset"));
        let values = formula(name, shape.iter().product(), numbers.0, numbers.1);
        Saved::f32(name, &shape, &values).expect("a tensor")
    });
    Weights::new(tensors.collect(), Default::default())
}

/// PyTorch's logits with these weights, and the same weights out again.
fn check(name: &str, make: impl FnOnce(&mut Scope<'_>) -> Result<Box<dyn Module>>) {
    let fixture = json("exchange.json");
    let case = &fixture["cases"][name];
    let mut builder = Builder::new();
    let model = make(&mut builder.root()).expect("a model");
    let arena = Arena::new(&gpu(), &builder, 0).expect("an arena");
    let given = canonical(weights_of(case)).expect("names");
    given.load_into(&arena, &LoadOptions::strict()).expect("the same names and shapes");
    let side = case["side"].as_u64().expect("a side") as usize;
    let pictures = formula("pictures", 2 * side * side * 3, 1.5, 0.0);
    let x = Tensor::from_slice(&gpu(), &pictures, &[2, side, side, 3]).expect("pictures");
    let got = no_grad(|| model.forward(&Cx::eval(&arena), &x)).expect("logits").to_vec().expect("logits");
    let want: Vec<f64> = case["logits"].as_array().expect("logits").iter().filter_map(Value::as_f64).collect();
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= 1e-4, "{name}: logit {i} is {g}, PyTorch has {w}");
    }
    // What goes out is what came in, to the last bit: PyTorch gets back its own numbers.
    let out = Weights::of(&arena).expect("weights");
    assert_eq!(out.tensors().len(), given.tensors().len());
    for t in given.tensors() {
        let back = out.get(t.name()).unwrap_or_else(|| panic!("{} is missing", t.name()));
        assert!(back.shape() == t.shape() && back.to_bytes() == t.to_bytes(), "{}", t.name());
    }
}

fn spec(side: usize, classes: usize) -> Spec {
    Spec { height: side, width: side, channels: 3, classes }
}

#[test]
fn exchange_torchvision_resnet18() {
    check("resnet18", |s| create("resnet18", s, &spec(96, 1000)));
}

#[test]
fn exchange_timm_vit() {
    check("vit_tiny", |s| create("vit_tiny", s, &spec(224, 1000)));
}

#[test]
fn exchange_torchvision_vit() {
    check("torchvision_vit", |s| Ok(Box::new(Vit::new(s, &VitConfig::micro(&spec(32, 10)))?)));
}

#[test]
fn exchange_torchvision_vgg() {
    let (stages, hidden) = (vec![vec![8], vec![16, 16]], vec![32, 32]);
    let config = VggConfig { stages, hidden, grid: 7, dropout: 0.5, channels: 3, classes: 10 };
    check("vgg_narrow", |s| Ok(Box::new(Vgg::new(s, &config)?)));
}

#[test]
fn exchange_lenet_whose_flattened_columns_move() {
    check("lenet", |s| Ok(Box::new(LeNet::new(s, &spec(32, 10))?)));
}

/// Names and shapes alone, for models whose weights are large.
#[test]
fn exchange_names_of_torchvision_and_timm() {
    for row in json("names.json").as_array().expect("rows") {
        let name = row[0].as_str().expect("a name");
        let mut builder = Builder::new();
        create(name, &mut builder.root(), &Spec::imagenet()).expect("a model");
        let (table, buffers) = builder.tables().expect("tables");
        let entries = table.entries().iter().chain(buffers.entries());
        let mut ours: Vec<_> = entries.map(|e| (e.name.clone(), e.layout.outside_shape(&e.shape))).collect();
        // Shapes of many megabytes, without the megabytes: a name is replaced as that of a tensor of one element a row.
        let theirs = row[1].as_array().expect("tensors").iter();
        let mut theirs: Vec<_> = theirs
            .map(|t| (t[0].as_str().expect("a name").to_string(), sizes(&t[1])))
            .filter(|(n, _)| !n.ends_with("num_batches_tracked"))
            .map(|(n, shape)| {
                if n.starts_with("pre_logits") && shape.len() == 4 {
                    (n, vec![shape[0], shape[1..].iter().product()])
                } else {
                    (n, shape)
                }
            })
            .collect();
        let stand_ins = theirs.iter().map(|(n, _)| Saved::f32(n.as_str(), &[1], &[0.0]).expect("a tensor"));
        let renamed = canonical(Weights::new(stand_ins.collect(), Default::default())).expect("names");
        for (row, t) in theirs.iter_mut().zip(renamed.tensors()) {
            row.0 = t.name().to_string();
        }
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn exchange_every_type_and_stride_of_a_pth_file() {
    let want = json("types.json");
    let want = want.as_object().expect("tensors");
    for version in ["types.pth", "types_torch_2.5.pth"] {
        let file = Weights::open(path(version)).expect("a file of torch.save");
        assert_eq!(file.tensors().len(), want.len(), "{version}");
        for (name, values) in want {
            let values: Vec<f32> =
                values.as_array().expect("values").iter().filter_map(Value::as_f64).map(|v| v as f32).collect();
            let got = file.get(name).unwrap_or_else(|| panic!("no {name}")).to_f32();
            assert_eq!(got, values, "{version}: {name}");
        }
        assert_eq!(file.get("transposed").expect("a tensor").shape(), [6, 4]);
    }
}

#[test]
fn exchange_other_files_of_pytorch_are_refused_by_name() {
    for (name, words) in [
        ("legacy.pth", &["before 1.6"][..]),
        ("object.pth", &["torch.optim.sgd.SGD", "nothing is executed", "state_dict"]),
        ("script.pt", &["TorchScript"]),
    ] {
        let err = Weights::open(path(name)).expect_err(name).to_string();
        for word in words.iter().chain(&[name]) {
            assert!(err.contains(word), "{name}: {err}");
        }
    }
    // Cut off or changed anywhere: an error, or the same tensors, never a panic.
    let good = std::fs::read(path("types.pth")).expect("the file");
    let folder = std::env::temp_dir().join(format!("shadegrad-exchange-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let damaged = folder.join("x.pth");
    for at in (0..good.len()).step_by(37) {
        std::fs::write(&damaged, &good[..at]).expect("a file");
        assert!(Weights::open(&damaged).is_err(), "{at} bytes");
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&damaged, &bytes).expect("a file");
        if let Ok(file) = Weights::open(&damaged) {
            file.tensors().iter().for_each(|t| drop(t.to_f32()));
        }
    }
    std::fs::remove_dir_all(&folder).expect("remove");
}
