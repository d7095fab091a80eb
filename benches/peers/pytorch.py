#!/usr/bin/env python3
"""The training steps of models/benches/training on PyTorch: `pytorch.py [--device cuda|cpu] [--channels-last] [STEP..]`.

In float32 with TF32 off, and on an NVIDIA GPU once more with TF32 on. Prints the first step, the least and the median of the
warm ones in seconds, by processor time and by the clock. Needs torch and nothing else.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH = {"resnet20": 16, "resnet18": 4, "vit_tiny": 4, "spectformer_tiny": 32, "swin_block": 8, "lif_vgg": 8}
TIMESTEPS = 4
WINDOW, SHIFT = 4, 2
WARM = 9


def conv(a, b, kernel=3, stride=1, padding=1, bias=False):
    return nn.Conv2d(a, b, kernel, stride, padding, bias=bias)


class ResidualBlock(nn.Module):
    """With a projection as shortcut, or one without parameters (every second pixel, new channels zero)."""

    def __init__(self, a, b, stride, projection):
        super().__init__()
        self.conv1, self.bn1 = conv(a, b, stride=stride), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = conv(b, b), nn.BatchNorm2d(b)
        self.stride, self.widen, self.shortcut = stride, (b - a) // 2, None
        if projection and (stride > 1 or a != b):
            self.shortcut = nn.Sequential(conv(a, b, 1, stride, 0), nn.BatchNorm2d(b))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.widen:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.widen, self.widen))
        return F.relu(y + x)


def resnet(stages, projection):
    first = stages[0][0]
    layers, channels = [conv(3, first), nn.BatchNorm2d(first), nn.ReLU()], first
    for stage, (width, count) in enumerate(stages):
        for i in range(count):
            layers.append(ResidualBlock(channels, width, 2 if stage and not i else 1, projection))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.project, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x):
        n, tokens, c = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c))


class Block(nn.Module):
    """Norm first; `single` has one residual around mixer and MLP, else there is one around each."""

    def __init__(self, dim, mixer, hidden, single=False):
        super().__init__()
        self.norm1, self.norm2, self.mixer, self.single = nn.LayerNorm(dim), nn.LayerNorm(dim), mixer, single
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x):
        y = self.mixer(self.norm1(x))
        if self.single:
            return x + self.mlp(self.norm2(y))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """Patches of 4 pixels, positions, blocks, norm, head; on the class token or the mean."""

    def __init__(self, dim, blocks, class_token):
        super().__init__()
        self.embed = conv(3, dim, 4, 4, 0, True)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim)) if class_token else None
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64 + class_token, dim))
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x[:, 0] if self.cls is not None else x.mean(1))


class SpectralGate(nn.Module):
    def __init__(self, side, dim):
        super().__init__()
        self.weight, self.side = nn.Parameter(0.02 * torch.randn(side, side // 2 + 1, dim, 2)), side

    def forward(self, x):
        n, tokens, c = x.shape
        y = torch.fft.rfft2(x.view(n, self.side, self.side, c), dim=(1, 2)) * torch.view_as_complex(self.weight)
        return torch.fft.irfft2(y, s=(self.side, self.side), dim=(1, 2)).reshape(n, tokens, c)


class WindowAttention(nn.Module):
    """Takes and gives `[batch, side, side, dim]`, windows of 4 moved by 2."""

    def __init__(self, dim, side, heads):
        super().__init__()
        self.inner, self.heads = SelfAttention(dim, heads), heads
        self.table = nn.Parameter(0.02 * torch.randn((2 * WINDOW - 1) ** 2, heads))
        at = torch.arange(WINDOW * WINDOW)
        rows, columns = at // WINDOW, at % WINDOW
        offset = lambda t: t[:, None] - t[None, :] + WINDOW - 1
        self.register_buffer("places", offset(rows) * (2 * WINDOW - 1) + offset(columns))
        line = torch.arange(side)
        part = (line >= side - WINDOW).int() + (line >= side - SHIFT).int()
        parts = self.split((3 * part[:, None] + part[None, :])[None, :, :, None].float())[:, :, 0]
        self.register_buffer("mask", -100.0 * (parts[:, :, None] != parts[:, None, :]).float()[:, None])

    @staticmethod
    def split(x):
        n, side, _, c = x.shape
        k = side // WINDOW
        return x.view(n, k, WINDOW, k, WINDOW, c).transpose(2, 3).reshape(n * k * k, WINDOW * WINDOW, c)

    def forward(self, x):
        n, side, _, c = x.shape
        k = side // WINDOW
        y = self.split(torch.roll(x, (-SHIFT, -SHIFT), (1, 2)))
        q, key, v = self.inner.qkv(y).view(len(y), -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = (self.table[self.places].permute(2, 0, 1)[None] + self.mask).repeat(n, 1, 1, 1)
        y = F.scaled_dot_product_attention(q, key, v, attn_mask=bias).transpose(1, 2).reshape(y.shape)
        y = self.inner.project(y).view(n, k, k, WINDOW, WINDOW, c).transpose(2, 3).reshape(n, side, side, c)
        return torch.roll(y, (SHIFT, SHIFT), (1, 2))


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return (z > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        return grad * 0.3 * torch.clamp(1 - z.abs(), min=0)


class Lif(nn.Module):
    """Leaky integrate-and-fire neurons with a learned threshold and leak; time first."""

    def __init__(self):
        super().__init__()
        self.threshold, self.leak = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, currents):
        spikes, m = [], None
        for current in currents:
            u = current if m is None else self.leak * m + current
            s = Spike.apply(u / self.threshold - 1)
            # Backward, the spike in the reset is a constant.
            m = u - self.threshold * s.detach()
            spikes.append(s)
        return torch.stack(spikes)


class SpikingVgg(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [3, 16, 16, 32, 32, 64, 64]
        self.convs = nn.ModuleList(conv(a, b, bias=True) for a, b in zip(widths, widths[1:]))
        self.neurons = nn.ModuleList(Lif() for _ in range(7))
        self.hidden, self.head = nn.Linear(64 * 8 * 8, 128), nn.Linear(128, 10)

    def forward(self, x):
        n = len(x)
        currents = self.convs[0](x).expand(TIMESTEPS, -1, -1, -1, -1)
        for i, neurons in enumerate(self.neurons):
            spikes = neurons(currents).flatten(0, 1)
            if i in (1, 3):
                spikes = F.avg_pool2d(spikes, 2)
            if i < 5:
                spikes = self.convs[i + 1](spikes)
            elif i == 5:
                spikes = self.hidden(spikes.flatten(1))
            currents = spikes.unflatten(0, (TIMESTEPS, n))
        return self.head(currents).sum(0)


def network(name):
    if name == "resnet20":
        return resnet([(16, 3), (32, 3), (64, 3)], False)
    if name == "resnet18":
        return resnet([(64, 2), (128, 2), (256, 2), (512, 2)], True)
    if name == "vit_tiny":
        return Tokens(192, [Block(192, SelfAttention(192, 3), 768) for _ in range(12)], True)
    if name == "spectformer_tiny":
        spectral = [Block(64, SpectralGate(8, 64), 256, True) for _ in range(2)]
        return Tokens(64, spectral + [Block(64, SelfAttention(64, 4), 256) for _ in range(2)], False)
    if name == "swin_block":
        return Block(96, WindowAttention(96, 16, 3), 192)
    return SpikingVgg()


def measure(name, device, channels_last):
    torch.manual_seed(0)
    net = network(name).to(device)
    shape = (BATCH[name], 16, 16, 96) if name == "swin_block" else (BATCH[name], 3, 32, 32)
    x = 2 * torch.rand(shape, device=device) - 1
    if channels_last and name != "swin_block":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    labels = torch.full((BATCH[name],), 3, device=device)
    if name in ("resnet20", "resnet18", "lif_vgg"):
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)

    def step():
        cpu, wall = time.process_time(), time.perf_counter()
        if name == "swin_block":
            loss = net(x.detach().requires_grad_()).square().mean()
        else:
            loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() - cpu, time.perf_counter() - wall

    first = step()
    step()
    cpu, wall = zip(*(step() for _ in range(WARM)))
    return first, sorted(cpu), sorted(wall)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(BATCH))
    args = parser.parse_args()
    for name in args.steps:
        if name not in BATCH:
            parser.error(f"`{name}` is none of {', '.join(BATCH)}")
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {args.device}: {where}")
    print(f"{'step':<18} {'precision':<10} {'first cpu':>9} {'least cpu':>9} {'median':>9} {'wall':>9}")
    for tf32 in [False, True] if args.device == "cuda" else [False]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for name in args.steps or BATCH:
            first, cpu, wall = measure(name, args.device, args.channels_last)
            half = WARM // 2
            precision = "tf32" if tf32 else "fp32"
            print(f"{name:<18} {precision:<10} {first[0]:9.3f} {cpu[0]:9.3f} {cpu[half]:9.3f} {wall[half]:9.4f}")


if __name__ == "__main__":
    main()
