#!/usr/bin/env python3
"""The independent reference of the `ten_losses_*` tests: ten training steps of two networks in float64.

    ten_losses.py --out DIR                     # images.bin and labels.bin already in DIR
    ten_losses.py --out DIR --cifar FILE.bin    # chooses 16 consecutive records of a CIFAR-10 binary file instead

Needs `pip install jax numpy`; nothing here is shared with the engine but the definitions below. Everything that
follows is computed with JAX in float64, then again in float32 to measure how well conditioned the ten losses are,
and the gradient of the first step is compared with central differences. README.md in the output folder says what
the files hold.

Definitions
  images     NHWC, (byte/255 - mean)/std; the same 16 images at every step
  weights    value = offset + (2u-1)*bound, computed in float64 and rounded once to float32, with u of `formula`
             conv and linear weights: bound = sqrt(3/fan_in)*gain, gain = sqrt(2) for ResNet's convolutions, else 1;
             biases, class token, positions: bound 0.02; layer norm's weights: 1 +- 0.1
             batch norm: weights 0.25 +- 0.025, biases 0.5 +- 0.02, running mean 0, running variance 1
  layouts    conv [out][kh][kw][in], linear [out][in]
  losses     mean cross entropy, of the weights before the step's update, without weight decay
  SGD        g += wd*p; v = momentum*v + g (v = g at first); p -= lr*v
  AdamW      p *= 1 - lr*wd; m, v moments; p -= lr * (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)

Why batch norm starts at 0.25 and 0.5: ResNet-20 applies ReLU to three million numbers a step. With weight 1 and bias 0
a few of them lie within float32's rounding of zero, each of which turns a step-one gradient by half a percent and, ten
steps later, a loss by several. Two standard deviations above zero, 2 % of the numbers are still cut off, so that a
wrong mask shows, but 16 images can be chosen for which none is near enough to zero to change side.
"""
import argparse
import json
import math
import pathlib

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax import lax  # noqa: E402

BATCH, STEPS, CLASSES = 16, 10, 10
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
# The weight decay is larger than usual, so that ten losses to 1e-4 notice when it is missing.
SGD = dict(optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-3, decoupled=False)
ADAMW = dict(optimizer="adamw", lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.05, decoupled=True)
BN_EPS, BN_MOMENTUM, BN_WEIGHT, BN_BIAS = 1e-5, 0.1, 0.25, 0.5
DIM, DEPTH, HEADS, MLP, PATCH, LN_EPS = 64, 2, 4, 128, 4, 1e-6
MASK = (1 << 64) - 1


# ---------------------------------------------------------------- weights

def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def formula(name, numel, bound, offset):
    """The values of parameter `name`, as float32: a hash of the name and of the index, mapped to offset +- bound."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) ^ (np.arange(numel, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    return (offset + (2.0 * u - 1.0) * bound).astype(np.float32)


class Parameters:
    """Ordered descriptions of a network's parameters; `values` makes the weights."""

    def __init__(self):
        self.entries = []

    def add(self, name, shape, bound, offset=0.0, **extra):
        self.entries.append(dict(name=name, shape=list(shape), bound=bound, offset=offset, **extra))

    def weight(self, name, shape, gain_squared=1):
        fan_in = math.prod(shape[1:])
        bound = math.sqrt(3.0 / fan_in) * math.sqrt(gain_squared)
        self.add(name, shape, bound, fan_in=fan_in, gain_squared=gain_squared)

    def bias(self, name, n):
        self.add(name, [n], 0.02)

    def layer_norm(self, name, n):
        self.add(name + ".weight", [n], 0.1, 1.0)
        self.bias(name + ".bias", n)

    def batch_norm(self, name, n):
        self.add(name + ".weight", [n], 0.025, BN_WEIGHT)
        self.add(name + ".bias", [n], 0.02, BN_BIAS)

    def linear(self, name, out, inp):
        self.weight(name + ".weight", [out, inp])
        self.bias(name + ".bias", out)

    def values(self, dtype):
        """The weights: float32 values, held as `dtype`."""
        return {e["name"]: jnp.asarray(formula(e["name"], math.prod(e["shape"]), e["bound"], e["offset"])
                                       .reshape(e["shape"]), dtype) for e in self.entries}


def cross_entropy(logits, labels):
    return -jnp.mean(jax.nn.log_softmax(logits, axis=-1)[jnp.arange(len(labels)), labels])


def conv(x, w, stride, padding):
    return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2,
                                    dimension_numbers=("NHWC", "OHWI", "NHWC"))


# ---------------------------------------------------------------- ResNet-20 (He et al. 2016, CIFAR form, shortcut A)

def resnet_blocks():
    """(name, input channels, output channels, stride) of the nine blocks."""
    channels = 16
    for stage, out in enumerate([16, 32, 64], 1):
        for block in range(3):
            yield f"layer{stage}.{block}", channels, out, 2 if stage > 1 and block == 0 else 1
            channels = out


def resnet_parameters():
    p = Parameters()
    p.weight("conv1.weight", [16, 3, 3, 3], 2)
    p.batch_norm("bn1", 16)
    for name, inp, out, _ in resnet_blocks():
        p.weight(name + ".conv1.weight", [out, 3, 3, inp], 2)
        p.batch_norm(name + ".bn1", out)
        p.weight(name + ".conv2.weight", [out, 3, 3, out], 2)
        p.batch_norm(name + ".bn2", out)
    p.linear("linear", CLASSES, 64)
    return p


def resnet_state(dtype):
    """Running statistics at the start: mean 0, variance 1."""
    sizes = {"bn1": 16}
    for name, _, out, _ in resnet_blocks():
        sizes[name + ".bn1"] = sizes[name + ".bn2"] = out
    return {k: (jnp.zeros(n, dtype), jnp.ones(n, dtype)) for k, n in sizes.items()}


def resnet(p, state, x, seen=None):
    """Logits in training mode, and the running statistics after this batch. Every ReLU's input goes to `seen`."""
    new = {}

    def relu(x):
        if seen is not None:
            seen.append(x)
        return jax.nn.relu(x)

    def norm(name, x):
        mean = jnp.mean(x, axis=(0, 1, 2))
        centred = x - mean
        var = jnp.mean(centred * centred, axis=(0, 1, 2))
        n = x.size // x.shape[-1]
        old_mean, old_var = state[name]
        # The batch is normalised by the biased variance, the running variance takes the unbiased one.
        new[name] = ((1 - BN_MOMENTUM) * old_mean + BN_MOMENTUM * mean,
                     (1 - BN_MOMENTUM) * old_var + BN_MOMENTUM * var * (n / (n - 1)))
        return centred / jnp.sqrt(var + BN_EPS) * p[name + ".weight"] + p[name + ".bias"]

    x = relu(norm("bn1", conv(x, p["conv1.weight"], 1, 1)))
    for name, inp, out, stride in resnet_blocks():
        y = relu(norm(name + ".bn1", conv(x, p[name + ".conv1.weight"], stride, 1)))
        y = norm(name + ".bn2", conv(y, p[name + ".conv2.weight"], 1, 1))
        if inp != out:
            side = (out - inp) // 2
            x = jnp.pad(x[:, ::2, ::2, :], ((0, 0), (0, 0), (0, 0), (side, side)))
        x = relu(y + x)
    x = jnp.mean(x, axis=(1, 2))
    return x @ p["linear.weight"].T + p["linear.bias"], new


@jax.jit
def resnet_margin(params, state, x):
    """The smallest distance of a ReLU's input from zero, and the share of inputs below zero."""
    seen = []
    resnet(params, state, x, seen)
    below = sum(jnp.sum(z < 0) for z in seen) / sum(z.size for z in seen)
    return jnp.min(jnp.stack([jnp.min(jnp.abs(z)) for z in seen])), below


# ---------------------------------------------------------------- ViT (pre-norm, class token)

def vit_parameters():
    p = Parameters()
    p.add("cls_token", [1, 1, DIM], 0.02)
    p.add("pos_embed", [1, 1 + (32 // PATCH) ** 2, DIM], 0.02)
    p.weight("patch_embed.proj.weight", [DIM, PATCH, PATCH, 3])
    p.bias("patch_embed.proj.bias", DIM)
    for i in range(DEPTH):
        b = f"blocks.{i}"
        p.layer_norm(b + ".norm1", DIM)
        p.linear(b + ".attn.qkv", 3 * DIM, DIM)
        p.linear(b + ".attn.proj", DIM, DIM)
        p.layer_norm(b + ".norm2", DIM)
        p.linear(b + ".mlp.fc1", MLP, DIM)
        p.linear(b + ".mlp.fc2", DIM, MLP)
    p.layer_norm("norm", DIM)
    p.linear("head", CLASSES, DIM)
    return p


def vit(p, state, x):
    def linear(name, x):
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    def norm(name, x):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        var = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / jnp.sqrt(var + LN_EPS) * p[name + ".weight"] + p[name + ".bias"]

    def gelu(x):
        return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))

    n = x.shape[0]
    x = conv(x, p["patch_embed.proj.weight"], PATCH, 0) + p["patch_embed.proj.bias"]
    x = x.reshape(n, -1, DIM)
    x = jnp.concatenate([jnp.broadcast_to(p["cls_token"], (n, 1, DIM)), x], axis=1) + p["pos_embed"]
    length, head = x.shape[1], DIM // HEADS
    for i in range(DEPTH):
        b = f"blocks.{i}"
        # [n, l, 3, heads, head] -> three of [n, heads, l, head]
        qkv = linear(b + ".attn.qkv", norm(b + ".norm1", x)).reshape(n, length, 3, HEADS, head)
        q, k, v = jnp.transpose(qkv, (2, 0, 3, 1, 4))
        attention = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / math.sqrt(head), axis=-1)
        y = jnp.transpose(attention @ v, (0, 2, 1, 3)).reshape(n, length, DIM)
        x = x + linear(b + ".attn.proj", y)
        x = x + linear(b + ".mlp.fc2", gelu(linear(b + ".mlp.fc1", norm(b + ".norm2", x))))
    return linear("head", norm("norm", x)[:, 0]), state


# ---------------------------------------------------------------- training

def update(config, t, params, grads, slots):
    """Step t = 1, 2, ...; `slots` are the optimiser's buffers. Python's floats take on the arrays' type."""
    lr, wd = config["lr"], config["weight_decay"]
    new, new_slots = {}, {}
    for k, p in params.items():
        g = grads[k]
        if config["optimizer"] == "sgd":
            g = g + wd * p
            v = config["momentum"] * slots[k] + g if t > 1 else g
            new[k], new_slots[k] = p - lr * v, v
        else:
            b1, b2 = config["beta1"], config["beta2"]
            m, v = slots[k] if t > 1 else (jnp.zeros_like(p), jnp.zeros_like(p))
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            step = (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + config["eps"])
            new[k], new_slots[k] = p * (1 - lr * wd) - lr * step, (m, v)
    return new, new_slots


def normalise(images, dtype):
    return (images.astype(dtype) / dtype(255) - np.asarray(MEAN, dtype)) / np.asarray(STD, dtype)


def objective(network, labels):
    def loss(params, state, x):
        logits, state = network(params, state, x)
        return cross_entropy(logits, labels), state
    return loss


def train(network, config, params, state, images, labels, dtype, noise=0.0):
    """Ten steps. With `noise`, every gradient is disturbed by that fraction of its tensor's root mean square."""
    gradient = jax.jit(jax.value_and_grad(objective(network, labels), has_aux=True))
    x = normalise(images, dtype)
    rng, losses, first, slots = np.random.default_rng(1), [], None, None
    for t in range(1, STEPS + 1):
        (loss, state), grads = gradient(params, state, x)
        losses.append(float(loss))
        first = first or {k: np.asarray(g) for k, g in grads.items()}
        if noise:
            grads = {k: g + noise * jnp.sqrt(jnp.mean(g * g)) * rng.standard_normal(g.shape).astype(dtype)
                     for k, g in grads.items()}
        params, slots = update(config, t, params, grads, slots)
    assert all(v.dtype == dtype for v in params.values())
    return losses, first, state


def check_gradient(network, params, state, images, labels, grads):
    """Largest error of the float64 gradient against central differences, along one random direction per tensor.

    Relative to the length of the tensor's gradient. The differences are extrapolated from two step lengths, short
    ones, so that few ReLUs change side."""
    loss = jax.jit(lambda p, x: objective(network, labels)(p, state, x)[0])
    x = normalise(images, np.float64)
    rng, worst = np.random.default_rng(2), (0.0, "")
    for k, p in params.items():
        d = rng.standard_normal(p.shape)
        d /= np.linalg.norm(d)
        # A direction with a known share of the gradient in it, so that the error is relative to something.
        g = grads[k] / np.linalg.norm(grads[k])
        d = (d + g) / np.linalg.norm(d + g)

        def slope(h):
            up, down = dict(params, **{k: p + h * d}), dict(params, **{k: p - h * d})
            return float(loss(up, x) - loss(down, x)) / (2 * h)

        measured = (4 * slope(5e-6) - slope(1e-5)) / 3
        error = abs(measured - float(np.sum(grads[k] * d))) / float(np.linalg.norm(grads[k]))
        worst = max(worst, (error, k))
    return worst


def choose(file):
    """Of the file's consecutive sets of 16, the one with ReLU inputs farthest from zero in ResNet's first step."""
    records = np.fromfile(file, np.uint8).reshape(-1, BATCH, 3073)
    # The file holds one plane per colour; the fixture holds rows of pixels.
    images = np.ascontiguousarray(records[:, :, 1:].reshape(-1, BATCH, 3, 32, 32).transpose(0, 1, 3, 4, 2))
    params, state = resnet_parameters().values(np.float32), resnet_state(np.float32)
    margins = [float(resnet_margin(params, state, normalise(x, np.float32))[0]) for x in images]
    best = int(np.argmax(margins))
    print(f"records {best * BATCH}..{best * BATCH + BATCH}: margin {margins[best]:.2e}")
    return images[best], records[best, :, 0]


def deviation(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b))


def digits(x):
    """Numbers with 15 significant digits."""
    return [float(f"{float(v):.15g}") for v in np.ravel(x)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the fixture's folder")
    parser.add_argument("--cifar", type=pathlib.Path, help="a CIFAR-10 binary file to take new images from")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    if args.cifar:
        images, labels = choose(args.cifar)
        images.tofile(args.out / "images.bin")
        labels.tofile(args.out / "labels.bin")
    images = np.fromfile(args.out / "images.bin", np.uint8).reshape(BATCH, 32, 32, 3)
    labels = np.fromfile(args.out / "labels.bin", np.uint8).astype(np.int32)
    print("labels", labels.tolist())
    margin, below = resnet_margin(resnet_parameters().values(np.float64), resnet_state(np.float64),
                                  normalise(images, np.float64))
    print(f"resnet20: smallest ReLU input at step one {margin:.2e}, {below:.1%} below zero")

    jobs = [
        ("resnet20", resnet, resnet_parameters(), resnet_state, SGD,
         dict(bn_eps=BN_EPS, bn_momentum=BN_MOMENTUM, shortcut="A")),
        ("vit", vit, vit_parameters(), lambda dtype: {}, ADAMW,
         dict(image=32, patch=PATCH, dim=DIM, depth=DEPTH, heads=HEADS, mlp=MLP, ln_eps=LN_EPS, gelu="erf")),
    ]
    for name, network, parameters, state, config, architecture in jobs:
        values = parameters.values(np.float64)
        losses, grads, stats = train(network, config, values, state(np.float64), images, labels, np.float64)
        single, single_grads, _ = train(network, config, parameters.values(np.float32), state(np.float32),
                                        images, labels, np.float32)
        noisy, _, _ = train(network, config, values, state(np.float64), images, labels, np.float64, 1e-5)
        worst = max((float(np.abs(single_grads[k] - grads[k]).max() / np.abs(grads[k]).max()), k) for k in grads)
        total = sum(math.prod(e["shape"]) for e in parameters.entries)
        print(f"{name}: {total} parameters\n  losses {losses}")
        print(f"  float32: losses deviate by {deviation(single, losses):.2e}, gradients by {worst[0]:.2e} of their "
              f"tensor's largest ({worst[1]})")
        print(f"  gradients disturbed by 1e-5 of their size: losses deviate by {deviation(noisy, losses):.2e}")
        print("  central differences deviate by %.1e (%s)" % check_gradient(
            network, values, state(np.float64), images, labels, grads))
        document = dict(
            model=name, batch=BATCH, classes=CLASSES, mean=MEAN, std=STD, **config, **architecture,
            float32_loss_deviation=float(f"{deviation(single, losses):.2g}"),
            losses=digits(losses), parameter_count=total, parameters=parameters.entries)
        if stats:
            document["running_statistics"] = {
                k: dict(running_mean=digits(stats[k][0]), running_var=digits(stats[k][1]))
                for k in ["bn1", "layer3.2.bn2"]}
        lines = [f" {json.dumps(k)}: " + ("[\n  " + ",\n  ".join(map(json.dumps, v)) + "\n ]"
                                         if k == "parameters" else json.dumps(v)) for k, v in document.items()]
        (args.out / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        flat = np.concatenate([grads[e["name"]].ravel() for e in parameters.entries])
        flat.astype("<f4").tofile(args.out / f"{name}.grads.f32")


if __name__ == "__main__":
    main()
