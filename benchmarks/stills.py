"""What a 256 px pair of a still costs: its own light alone against the whole picture integrated and then cut.

    python benchmarks/stills.py [--size 4000x3000] [--shakes 4,12,30] [--rounds 5]
    python benchmarks/stills.py --layers 1,3 [--size 1920x1280] [--shakes 12]: a pair with so many layers against one without

In process, CPU seconds of one thread, the two in turn; no decoding and no encoding. The error is that of the crop
against 1,000 moments of the same path, each sampled by a cubic from the picture at twice its size, in codes (rms).
"""

from __future__ import annotations

import statistics
import time

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from blursynth.camera.response import load_response
from blursynth.exposure.shake import draw_path
from blursynth.exposure.still import expose_still, reach
from blursynth.pairs.layers import Donor
from blursynth.pairs.still import _cut
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe

SRGB = load_response("srgb")
MOMENTS = 1000


def photograph(width: int, height: int, finest: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) with a photograph's spectrum: octaves of noise of equal strength, from 2^finest px up."""
    rng = np.random.default_rng(0)
    out = np.zeros((height, width, 3), np.float32)
    for k in range(finest, 10):
        small = rng.standard_normal((height // 2**k + 2, width // 2**k + 2, 3)).astype(np.float32)
        out += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 24 * out, 0, 255).astype(np.uint8)


def crop_light(rgb: np.ndarray, path: np.ndarray, part: tuple[int, int, int, int]) -> np.ndarray:
    """Linear light (h, w, 3) of a part; of the whole picture where the part is that."""
    middle = ((rgb.shape[1] - 1) / 2, (rgb.shape[0] - 1) / 2)
    box = reach(path, part, middle)
    return expose_still(SRGB.decode(_cut(rgb, box)), box, part, path, middle).light[..., :3]


def finely(rgb: np.ndarray, path: np.ndarray, part: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = part
    x0, y0, x1, y1 = reach(path, part, ((rgb.shape[1] - 1) / 2, (rgb.shape[0] - 1) / 2))
    twice = cv2.resize(
        SRGB.decode(rgb[y0:y1, x0:x1])[..., :3], None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4
    )
    cx, cy = (rgb.shape[1] - 1) / 2, (rgb.shape[0] - 1) / 2
    y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
    total = np.zeros((*x.shape, 3))
    for u in (np.arange(MOMENTS) + 0.5) / MOMENTS:
        dx, dy, roll = (np.interp(u, np.linspace(0, 1, len(path)), axis) for axis in path.T)
        c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        px, py = x - cx - dx, y - cy - dy
        at = (c * px + s * py + cx - x0, c * py - s * px + cy - y0)
        total += cv2.remap(twice, *(np.float32(2 * v + 0.5) for v in at), cv2.INTER_CUBIC)
    return total / MOMENTS


def layer_costs(rgb: np.ndarray, shakes: str, counts: list[int], rounds: int) -> None:
    """CPU seconds of a 256 px pair under so many layers, against none. Donors are JPEGs that are decoded each time: `first`,
    pictures that this process has not met; `again`, pictures that it has cut a layer from before."""
    file = cv2.imencode(".jpg", rgb)[1]

    def read() -> np.ndarray:
        return cv2.imdecode(file, cv2.IMREAD_COLOR)

    table = Table(title=f"a pair of 256 px out of {rgb.shape[1]}x{rgb.shape[0]}, CPU s")
    for name in (
        "shake px",
        "layers",
        "without",
        "first",
        "again",
        "decode",
        "first / without",
        "again / without",
    ):
        table.add_column(name, justify="right")
    for px in shakes.split(","):
        maker = Synthesizer(
            Recipe.model_validate({"stills": True, "shake": px, "tile": 256, "gate": "default"})
        )
        for count in counts:
            spent: dict[str, list[float]] = {"without": [], "first": [], "again": [], "decode": []}
            for n in range(rounds + 1):  # the first compiles
                donors = {
                    "without": [],
                    "first": [Donor((count, n, k), read) for k in range(count)],
                    "again": [Donor((count, 0, k), read) for k in range(count)],
                }
                for name in ("without", "first", "again"):
                    rng, began = np.random.default_rng(n), time.process_time()
                    maker.still(rgb, rng, donors[name])
                    if n:
                        spent[name].append(time.process_time() - began)
                began = time.process_time()
                read()
                spent["decode"].append(time.process_time() - began)
            a, b, c, d = (statistics.median(v) for v in spent.values())
            table.add_row(px, str(count), *(f"{v:.3f}" for v in (a, b, c, d)), f"{b / a:.2f}", f"{c / a:.2f}")
    Console().print(table)


@click.command()
@click.option("--size", default="4000x3000")
@click.option("--shakes", default="4,12,30")
@click.option("--rounds", default=5)
@click.option("--layers", help="Counts of layers, in place of the table of crops.")
@click.option("--finest", default=2, help="Finest detail of the picture, 2^N px.")
def main(size: str, shakes: str, rounds: int, layers: str | None, finest: int) -> None:
    cv2.setNumThreads(1)
    width, height = map(int, size.split("x"))
    rgb = photograph(width, height, finest)
    if layers is not None:
        layer_costs(rgb, shakes, [int(n) for n in layers.split(",")], rounds)
        return
    part = (width // 3, height // 3, width // 3 + 256, height // 3 + 256)
    table = Table(title=f"a crop of 256 px out of {size}, CPU s")
    for name in ("shake px", "crop", "whole", "whole / crop", "error, codes rms"):
        table.add_column(name, justify="right")
    crop_light(rgb, draw_path(np.random.default_rng(0), 1, width, height), part)  # compiles
    for px in map(float, shakes.split(",")):
        path = draw_path(np.random.default_rng(int(px)), px, width, height)
        spent: dict[str, list[float]] = {"crop": [], "whole": []}
        for n in range(rounds):
            for name, what in (("crop", part), ("whole", (0, 0, width, height))):
                if name == "whole" and n > 0:
                    continue
                began = time.process_time()
                got = crop_light(rgb, path, what)
                spent[name].append(time.process_time() - began)
                if name == "crop":
                    ours = got
        error = SRGB.encode(ours).astype(float) - SRGB.encode(finely(rgb, path, part).astype(np.float32))
        crop, whole = (statistics.median(spent[k]) for k in ("crop", "whole"))
        rms = np.sqrt(np.mean(error**2))
        table.add_row(f"{px:g}", f"{crop:.3f}", f"{whole:.2f}", f"{whole / crop:.0f}", f"{rms:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
