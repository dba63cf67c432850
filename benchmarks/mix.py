"""What mixing costs: batches a second of the crop stream over two sets by weight, against one set of the same frames.

    python benchmarks/mix.py

Both decode equally many frames of one size, in turn, several times; processor time, so that other work does not count.
Prints each round's ratio and their median (1: mixing costs nothing).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from blursynth import pack
from deblur_train.data.index import index_split
from deblur_train.data.stream import CropOptions, CropStream


def make_set(folder: Path, count: int, seed: int) -> Path:
    """Shards of ``count`` pairs of 360 x 640, through the public command."""
    rng = np.random.default_rng(seed)
    for role in ("blur", "sharp"):
        (folder / role).mkdir(parents=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (45, 80, 3)).astype(np.uint8)
        sharp = cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC)
        for role, image in (("sharp", sharp), ("blur", cv2.GaussianBlur(sharp, (0, 0), 2))):
            cv2.imwrite(str(folder / role / f"{i:06}.png"), image)
    pack(blur=folder / "blur", sharp=folder / "sharp", out=folder / "data", val_fraction=0)
    return folder / "data"


def seconds(stream: CropStream, batches: int) -> float:
    began = time.process_time()
    for number in range(batches):
        stream.batch(number)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=64)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    options = CropOptions(8, 128, augment="dihedral")
    with tempfile.TemporaryDirectory() as held:
        sets = [index_split(make_set(Path(held) / str(i), 24, i), "train") for i in range(2)]
        ratios = []
        for seed in range(args.rounds):
            one = seconds(CropStream(sets[0], options, seed), args.batches)
            two = seconds(CropStream(sets, options, seed, mix=(3, 1)), args.batches)
            ratios.append(one / two)
            print(f"round {seed + 1}: {ratios[-1]:.3f}", flush=True)
    print(f"mixed over single, batches a second: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
