#!/usr/bin/env python3
"""What Pillow makes of real pictures: the reference of RandAugment's fourteen operations.

    randaugment.py --images tests/fixtures/ten_losses/images.bin --out models/src/papers/randaugment/pillow.txt

Needs `pip install pillow`. The pictures are 16 of 32 x 32 x 3 bytes. A line of the result is

    operation number hash

with the operation's number (shear, pixels, degrees, factor, bits, threshold; 0 where there is none) and the 64-bit FNV-1a
of the bytes of all results, one picture after the other. `Chain` lines apply several operations in a row, and
`RGBA` lines do so with the opacity of AutoAugment's code: what geometry uncovers becomes transparent black, enhancing
keeps the opacity, the operations on values set it to 255.
"""
import argparse
import pathlib

from PIL import Image, ImageEnhance, ImageOps

FILL = (128, 64, 200)


def apply(image, op, v, fill):
    size = image.size
    affine = lambda m: image.transform(size, Image.Transform.AFFINE, m, fillcolor=fill)
    match op:
        case "Identity":
            return image
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Rotate":
            return image.rotate(v, fillcolor=fill)
        case "Solarize":
            return ImageOps.solarize(image, v)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return getattr(ImageEnhance, op)(image).enhance(v)
        case "Posterize":
            # Pillow takes 1 to 8 bits; none leaves black.
            return ImageOps.posterize(image, int(v)) if v >= 1 else image.point(lambda _: 0)
        case "ShearX":
            return affine((1, v, 0, 0, 1, 0))
        case "ShearY":
            return affine((1, 0, 0, v, 1, 0))
        case "TranslateX":
            return affine((1, 0, v, 0, 1, 0))
        case "TranslateY":
            return affine((1, 0, 0, 0, 1, v))


def with_opacity(image, op, v):
    if op in ("AutoContrast", "Equalize", "Solarize", "Posterize"):
        return apply(image.convert("RGB"), op, v, None).convert("RGBA")
    return apply(image, op, v, (0, 0, 0, 0))


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


SIGNED = {
    "Rotate": [2.0, 6.0, 21.0, 30.0, 42.0, 90.0],
    "ShearX": [0.06, 0.15, 0.27, 0.3, 0.42],
    "ShearY": [0.06, 0.15, 0.27, 0.3, 0.42],
    "TranslateX": [2.0, 7.0, 10.0, 31.0, 40.0],
    "TranslateY": [2.0, 7.0, 10.0, 31.0, 40.0],
}
FACTORS = [0.0, 0.1, 0.28, 0.46, 0.82, 1.0, 1.15, 1.36, 1.72, 1.9, 2.62]
OTHERS = {
    "Identity": [0.0],
    "AutoContrast": [0.0],
    "Equalize": [0.0],
    "Solarize": [0.0, 26.0, 128.0, 136.0, 178.5, 205.0, 255.0, 256.0],
    "Posterize": [float(b) for b in range(9)],
    **{op: FACTORS for op in ("Color", "Contrast", "Brightness", "Sharpness")},
}
CHAINS = [
    [("Brightness", 1.9), ("Solarize", 128.0)],
    [("Rotate", 21.0), ("AutoContrast", 0.0), ("ShearX", -0.27)],
    [("TranslateY", -7.0), ("Contrast", 1.72), ("Sharpness", 1.9)],
    [("Equalize", 0.0), ("Color", 0.1), ("Rotate", -30.0), ("Posterize", 4.0)],
    [("ShearY", 0.3), ("Equalize", 0.0), ("TranslateX", 10.0), ("Brightness", 0.46)],
    [("Color", 1.9), ("AutoContrast", 0.0), ("AutoContrast", 0.0), ("Sharpness", 0.1)],
]


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--images", type=pathlib.Path, required=True)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args = args.parse_args()
    data = args.images.read_bytes()
    pictures = [Image.frombytes("RGB", (32, 32), data[i : i + 3072]) for i in range(0, len(data), 3072)]
    lines = []

    def line(name, results):
        lines.append(f"{name} {fnv1a(b''.join(r.tobytes() for r in results)):016x}")

    cases = [(op, v) for op, vs in OTHERS.items() for v in vs]
    cases += [(op, s * v) for op, vs in SIGNED.items() for v in vs for s in (1, -1)]
    for op, v in cases:
        line(f"{op} {v!r}", [apply(p, op, v, FILL) for p in pictures])
    for chain in CHAINS:
        for mode in ("Chain", "RGBA"):
            results = []
            for p in pictures:
                p = p.convert("RGBA") if mode == "RGBA" else p
                for op, v in chain:
                    p = with_opacity(p, op, v) if mode == "RGBA" else apply(p, op, v, FILL)
                results.append(p)
            line(" ".join([mode, ",".join(f"{op}:{v!r}" for op, v in chain)]), results)
    args.out.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} lines of {len(pictures)} pictures, Pillow {Image.__version__}")


if __name__ == "__main__":
    main()
