"""Midpoint frames of triplets: RIFE, our DIS flows through the integrator, and the plain mean, in dB.

    python benchmarks/rife_triplets.py DIR [--rife-weights FILE] [--device cpu|cuda]

DIR holds a folder a triplet with frame10.png, frame10i11.png (the truth), frame11.png, as Middlebury's `other-data`
does. PSNR over all pixels and channels of 8-bit RGB. "rife" is the network's own blend of display codes, the usual
figure; "rife light" blends the same warps in linear light, as exposures are made.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from blursynth.camera.response import load_response
from blursynth.exposure.integrate import Exposure, quasi
from blursynth.exposure.rife import Rife, find_weights
from blursynth.exposure.shutter import Shutter
from blursynth.motion.flow import estimate_pair

NAMES = ("frame10.png", "frame10i11.png", "frame11.png")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def read_triplets(folder: Path) -> dict[str, list[np.ndarray]]:
    """Name -> [before, truth, after], RGB uint8, of every folder below that holds the three files."""
    found = {}
    for truth in sorted(folder.rglob(NAMES[1])):
        images = [cv2.imread(str(truth.with_name(n))) for n in NAMES]
        found[truth.parent.name] = [cv2.cvtColor(i, cv2.COLOR_BGR2RGB) for i in images]
    return found


def midpoints(net: Rife, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Guess -> frame halfway between a and b, RGB uint8."""
    response = load_response("srgb")
    h, w = a.shape[:2]
    light = response.decode(a), response.decode(b)
    instant = Shutter(*(np.full(h, 0.5 + d, np.float32) for d in (-5e-4, 5e-4)), np.ones(2, np.float32))
    dis = Exposure(h, w, instant, 16)
    pair = estimate_pair("dis", a, b)
    dis.add(0, light, (quasi(light[0]), quasi(light[1])), pair.forward, pair.backward)
    return {
        "plain mean": np.rint((a.astype(np.float32) + b) / 2).astype(np.uint8),
        "dis": response.encode(dis.linear()),
        "rife": net.frame(a, b, 0.5),
        "rife light": response.encode(net.light(a, b, *light, 0.5)),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", type=Path)
    p.add_argument("--rife-weights")
    p.add_argument("--device", default="cpu")
    a = p.parse_args()
    net = Rife(find_weights(a.rife_weights), a.device)
    triplets = read_triplets(a.dir)
    if not triplets:
        raise SystemExit(f"{a.dir}: no folder with {', '.join(NAMES)}")
    rows = {}
    for name, (before, truth, after) in triplets.items():
        start = time.perf_counter()
        rows[name] = {k: psnr(v, truth) for k, v in midpoints(net, before, after).items()}
        rows[name]["s"] = time.perf_counter() - start
    rows["mean"] = {k: float(np.mean([r[k] for r in rows.values()])) for k in next(iter(rows.values()))}
    print(f"{'dB':14s}" + "".join(f"{k:>12s}" for k in rows["mean"]))
    for name, row in rows.items():
        print(f"{name:14s}" + "".join(f"{v:12.2f}" for v in row.values()))


if __name__ == "__main__":
    main()
