#!/usr/bin/env python3
"""Weights exchanged with PyTorch, torchvision and timm, in both directions.

    exchange.py check [FOLDER]     runs both programs on each other's weights and compares logits to 1e-4
    exchange.py fixture            writes models/tests/fixtures/exchange, which the tests read without PyTorch
    exchange.py types FILE         writes one of its files alone, as another version of PyTorch does

Needs torch, torchvision, timm, safetensors and numpy (the fixture is of 1.13, 0.14, 0.9.16; `types` and `check` also ran with
2.5.1, 0.20.1, 1.0.31). `check` builds and runs the engine's side, models/examples/exchange.rs.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "models/tests/fixtures/exchange"


def formula(name, numel, bound, offset):
    """As models/tests/models/weights_formula.rs: the same float32 numbers, bit for bit."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & (2**64 - 1)
    with np.errstate(over="ignore"):
        z = np.uint64(h) ^ (np.arange(numel, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    return (offset + (2.0 * u - 1.0) * bound).astype(np.float32)


def bounds(name, shape):
    """Half the width and the middle of the range of a tensor's values."""
    if name.endswith("running_var"):
        return 0.5, 1.0
    if len(shape) == 1 and name.endswith("weight"):
        return 0.1, 0.6
    if len(shape) < 2 or "token" in name or "pos_embed" in name:
        return 0.1, 0.0
    fan_in = int(np.prod(shape[1:]))
    return float(np.sqrt((6.0 if len(shape) == 4 else 3.0) / fan_in)), 0.0


class LeNet(nn.Module):
    """LeNet-5 as it is usually written in PyTorch, with ReLU and max pooling."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * 5 * 5, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc2(torch.relu(self.fc1(torch.flatten(x, 1)))))
        return self.fc3(x)


def narrow_vgg():
    """torchvision's VGG with few channels."""
    features = torchvision.models.vgg.make_layers([8, "M", 16, 16, "M"], batch_norm=True)
    net = torchvision.models.vgg.VGG(features, num_classes=10)
    net.classifier = nn.Sequential(
        nn.Linear(16 * 7 * 7, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(),
        nn.Linear(32, 10),
    )
    return net


def torchvision_vit():
    """torchvision's ViT, small; its names are not timm's."""
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=4, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)


# Name, model, side of the pictures.
CASES = [
    ("resnet18", lambda: torchvision.models.resnet18(), 96),
    ("vit_tiny", lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False), 224),
    ("vgg_narrow", narrow_vgg, 32),
    ("lenet", LeNet, 32),
    ("torchvision_vit", torchvision_vit, 32),
]

# Models whose names and shapes alone are compared.
NAMES = [
    ("resnet34", lambda: torchvision.models.resnet34()),
    ("resnet50", lambda: torchvision.models.resnet50()),
    ("wide_resnet50_2", lambda: torchvision.models.wide_resnet50_2()),
    ("vgg11", lambda: torchvision.models.vgg11_bn()),
    ("vgg16", lambda: torchvision.models.vgg16_bn()),
    ("vit_small", lambda: timm.create_model("vit_small_patch16_224", pretrained=False)),
    ("vit_base", lambda: timm.create_model("vit_base_patch16_224", pretrained=False)),
    ("resnet18", lambda: timm.create_model("resnet18", pretrained=False)),
    ("vgg16", lambda: timm.create_model("vgg16_bn", pretrained=False)),
    ("vit_base", lambda: torchvision.models.vit_b_16()),
]


def pictures(side):
    """Two pictures, [2, side, side, 3]."""
    return formula("pictures", 2 * side * side * 3, 1.5, 0.0).reshape(2, side, side, 3)


def with_formula(net):
    state = net.state_dict()
    for name, t in state.items():
        if t.is_floating_point():
            bound, offset = bounds(name, t.shape)
            state[name] = torch.from_numpy(formula(name, t.numel(), bound, offset).reshape(t.shape))
    net.load_state_dict(state)
    return net.eval()


def logits(net, side):
    with torch.no_grad():
        x = torch.from_numpy(pictures(side)).permute(0, 3, 1, 2).contiguous()
        return net.eval()(x).numpy()


def check(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, make, side in CASES:
        net = with_formula(make())
        torch.save(net.state_dict(), folder / f"{name}.theirs.pth")
        safetensors.torch.save_file(net.state_dict(), folder / f"{name}.theirs.safetensors")
        pictures(side).tofile(folder / f"{name}.pictures.f32")
    subprocess.run(["cargo", "build", "-q", "--workspace", "--example", "exchange"], cwd=ROOT, check=True)
    subprocess.run([ROOT / "target/debug/examples/exchange", folder], check=True)
    worst = 0.0
    for name, make, side in CASES:
        for way in ["theirs.pth", "theirs.safetensors", "ours.safetensors"]:
            net = make()
            path = folder / f"{name}.{way}"
            if way.startswith("ours"):
                state = safetensors.torch.load_file(path)
                if name == "torchvision_vit":
                    print(f"{name:<16} {way:<20} is named as timm's, which torchvision does not read")
                    continue
                net.load_state_dict(state, strict=True)
            else:
                with_formula(net)
            want = logits(net, side)
            got = np.fromfile(folder / f"{name}.{way}.logits.f32", np.float32).reshape(want.shape)
            error = np.abs(got - want).max()
            worst = max(worst, error)
            print(f"{name:<16} {way:<20} largest logit {np.abs(want).max():8.4f}  largest difference {error:.2e}")
    if not worst <= 1e-4:
        sys.exit(f"differences up to {worst}")


def fixture():
    FIXTURE.mkdir(parents=True, exist_ok=True)
    cases = {}
    for name, make, side in CASES:
        net = with_formula(make())
        cases[name] = {
            "side": side,
            "tensors": [[n, list(t.shape), *bounds(n, t.shape)] for n, t in net.state_dict().items()
                        if t.is_floating_point()],
            "logits": [float(v) for v in logits(net, side).ravel()],
        }
    names = [[name, [[n, list(t.shape)] for n, t in make().state_dict().items()]] for name, make in NAMES]
    made_with = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    (FIXTURE / "exchange.json").write_text(json.dumps({"made_with": made_with, "cases": cases}) + "\n")
    (FIXTURE / "names.json").write_text(json.dumps(names) + "\n")

    base, want = types(FIXTURE / "types.pth")
    (FIXTURE / "types.json").write_text(json.dumps(want) + "\n")
    torch.save({"w": base}, FIXTURE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"w": base, "optimizer": torch.optim.SGD([base], 0.1)}, FIXTURE / "object.pth")
    torch.jit.script(nn.Linear(2, 2)).save(str(FIXTURE / "script.pt"))


def types(file):
    """One file with every type, strides, shared memory and nesting that are read; its first tensor, and all values."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    state = collections.OrderedDict(
        plain=base, transposed=base.t(), part=base[1:3, 2:5], stepped=base[:, ::2],
        scalar=torch.tensor(2.5), empty=torch.zeros(0, 3), half=base.half(), brain=base.bfloat16(),
        double=base.double() / 3, long=torch.tensor([1, -(2**40)]), flags=torch.tensor([True, False]),
        parameter=nn.Parameter(base[0]),
    )
    torch.save({"epoch": 3, "lr": 0.1, "state_dict": state, "names": ["a", "b"]}, file)
    return base, {n: t.detach().float().reshape(-1).tolist() for n, t in state.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["fixture"]:
        fixture()
    elif sys.argv[1:2] == ["types"] and len(sys.argv) == 3:
        types(sys.argv[2])
    elif sys.argv[1:2] == ["check"]:
        check(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()))
    else:
        sys.exit(__doc__)
