#!/usr/bin/env python3
"""Write src/data/digits.bin, the 8x8 digits that the engine embeds.

    pip install scikit-learn
    python scripts/make_digits.py            # writes the file
    python scripts/make_digits.py --check    # compares it with the one in the tree

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, licence CC BY 4.0. scikit-learn carries its test part: 1797 pictures, pixels 0..16.

The file is 1797 records of 65 bytes, a label and 64 pixels in rows; the first 1437 are the training part, the last 360
the test part. The split is stratified and uses no random numbers: of each class's pictures, in the order of the
source, the test part takes the ones nearest to evenly spaced places. Both parts keep the order of the source.
"""
import pathlib
import sys

TEST = 360
OUT = pathlib.Path(__file__).resolve().parent.parent / "src" / "data" / "digits.bin"


def build():
    import numpy as np
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels, labels = source.data.astype(np.uint8), source.target.astype(np.uint8)
    assert (pixels == source.data).all() and pixels.shape == (1797, 64) and pixels.max() == 16
    counts = np.bincount(labels, minlength=10)
    # Largest remainder: whole shares first, then one more for the classes with the largest rests.
    share = counts * TEST
    take = share // len(labels)
    rest = share % len(labels)
    for c in sorted(range(10), key=lambda c: (-rest[c], c))[: TEST - take.sum()]:
        take[c] += 1
    in_test = np.zeros(len(labels), bool)
    for c in range(10):
        members = np.flatnonzero(labels == c)
        places = (2 * np.arange(take[c]) + 1) * counts[c] // (2 * take[c])
        in_test[members[places]] = True
    assert in_test.sum() == TEST
    records = np.concatenate([labels[:, None], pixels], 1)
    return records[~in_test].tobytes() + records[in_test].tobytes()


def main():
    data = build()
    if "--check" in sys.argv[1:]:
        if OUT.read_bytes() != data:
            sys.exit(f"{OUT} differs from what this script makes; run it without --check")
        print(f"{OUT.name} is up to date")
        return
    OUT.write_bytes(data)
    print(f"wrote {OUT.name}, {len(data)} bytes")


if __name__ == "__main__":
    main()
