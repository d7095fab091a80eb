//! Parameter counts against the published ones.

use shadegrad_models::{Spec, create, names, parameter_count};

#[test]
fn parameter_counts_are_the_published_ones() {
    let cifar = Spec::cifar10();
    let cifar100 = Spec { classes: 100, ..cifar };
    let imagenet = Spec::imagenet();
    let grey = Spec { height: 32, width: 32, channels: 1, classes: 10 };
    for (name, spec, count) in [
        // He et al. 2015, table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M.
        ("resnet20", cifar, 269_722),
        ("resnet32", cifar, 464_154),
        ("resnet44", cifar, 658_586),
        ("resnet56", cifar, 853_018),
        ("resnet110", cifar, 1_727_962),
        // torchvision's documented num_params.
        ("resnet18", imagenet, 11_689_512),
        ("resnet34", imagenet, 21_797_672),
        ("resnet50", imagenet, 25_557_032),
        ("wide_resnet50_2", imagenet, 68_883_240),
        ("vgg11", imagenet, 132_868_840),
        ("vgg13", imagenet, 133_053_736),
        ("vgg16", imagenet, 138_365_992),
        ("vgg19", imagenet, 143_678_248),
        // Zagoruyko and Komodakis 2016, table 4: 36.5M, 2.7M, 2.2M.
        ("wrn28_10", cifar, 36_479_194),
        ("wrn16_4", cifar, 2_748_890),
        ("wrn40_2", cifar, 2_243_546),
        // timm's vit_{tiny,small,base}_patch16_224.
        ("vit_tiny", imagenet, 5_717_416),
        ("vit_small", imagenet, 22_050_664),
        ("vit_base", imagenet, 86_567_656),
        // Patro et al. 2023, from their training logs: T, XS, S, B; and the hierarchical S without token labels.
        ("spectformer_t", imagenet, 9_158_376),
        ("spectformer_xs", imagenet, 20_028_520),
        ("spectformer_s", imagenet, 32_449_768),
        ("spectformer_b", imagenet, 57_159_656),
        ("spectformer_h_s", imagenet, 21_777_928),
        // LeNet-5: 156 + 2416 + 48120 + 10164 + 850.
        ("lenet", grey, 61_706),
        ("resnet18", cifar100, 11_220_132),
    ] {
        assert_eq!(parameter_count(name, &spec).unwrap(), count, "{name}");
    }
}

#[test]
fn every_model_can_be_made_for_cifar() {
    for (name, about) in names() {
        assert!(parameter_count(name, &Spec::cifar10()).unwrap() > 0 && !about.is_empty(), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let mut builder = shadegrad::nn::Builder::new();
    let text =
        |r: shadegrad::Result<_>| -> String { r.map(|_: Box<dyn shadegrad::nn::Module>| ()).unwrap_err().to_string() };
    let spec = Spec::cifar10();
    let err = text(create("resnet21", &mut builder.root(), &spec));
    assert!(err.contains("did you mean `resnet20`") && err.contains("vit_tiny"), "{err}");
    let err = text(create("resnet20", &mut builder.root(), &Spec { width: 30, ..spec }));
    assert!(err.contains("multiples of 4"), "{err}");
    let err = text(create("vgg16", &mut builder.root(), &Spec { height: 8, width: 8, ..spec }));
    assert!(err.contains("32 x 32"), "{err}");
    let err = text(create("lenet", &mut builder.root(), &Spec { height: 8, width: 8, ..spec }));
    assert!(err.contains("cnn"), "{err}");
}
