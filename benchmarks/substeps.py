"""PSNR to the true exposure against the most sub-steps an interval takes (--fps-up), at several speeds.

    python benchmarks/substeps.py [--out docs/substeps.png]

The curve behind the default: more than about one sub-step a pixel of motion buys nothing.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click
import cv2
import numpy as np
import realism
from truth import psnr

from blursynth.camera.response import load_response
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import make_shutter
from blursynth.motion.flow import estimate_pair

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@click.command(help=__doc__)
@click.option("--speeds", default="1,2,4,6,10,16,24")
@click.option("--seeds", default="1,2,3,4")
@click.option("--size", default="720x1280")
@click.option("--out", default="docs/substeps.png")
def main(speeds: str, seeds: str, size: str, out: str) -> None:
    cv2.setNumThreads(1)
    h, w = map(int, size.split("x"))
    response = load_response("srgb")
    curves = {}
    for speed in map(float, speeds.split(",")):
        rows = []
        for seed in map(int, seeds.split(",")):
            frames, truth = realism.render(Path("scratch/scenes"), seed, speed, (h, w))
            pairs = [estimate_pair("dis", a, b) for a, b in pairwise(frames)]
            flows = [(p.forward, p.backward) for p in pairs]
            lights = [response.decode(f) for f in frames]
            shutter = make_shutter(h, 8)
            row = []
            for k in STEPS:
                blur = response.encode(ex.integrate_light(lights, flows, shutter, k))
                row.append(float(psnr(blur[realism.INNER], truth[realism.INNER])))
            rows.append(row)
        curves[speed] = np.mean(rows, 0)
        click.echo(
            f"{speed:5g} px/frame  "
            + "  ".join(f"x{k} {v:.2f}" for k, v in zip(STEPS, curves[speed], strict=True))
        )
    cv2.imwrite(out, plot(curves)[..., ::-1])
    click.echo(f"figure: {out}")


def plot(curves: dict[float, np.ndarray]) -> np.ndarray:
    """Line figure, RGB uint8: sub-steps on a log axis, dB, a line a speed, labelled at its end."""
    width, height, left, right, top, bottom = 1200, 760, 90, 170, 60, 80
    image = np.full((height, width, 3), 255, np.uint8)
    low = np.floor(min(c.min() for c in curves.values()) / 5) * 5
    high = np.ceil(max(c.max() for c in curves.values()) / 5) * 5

    def at(k: float, db: float) -> tuple[int, int]:
        x = left + (width - left - right) * np.log2(k) / np.log2(STEPS[-1])
        y = height - bottom - (height - top - bottom) * (db - low) / (high - low)
        return round(x), round(y)

    def text(
        words: str, spot: tuple[int, int], colour: tuple[int, int, int] = (60, 60, 60), size: float = 0.6
    ) -> None:
        cv2.putText(image, words, spot, cv2.FONT_HERSHEY_DUPLEX, size, colour, 1, cv2.LINE_AA)

    for k in STEPS:
        cv2.line(image, at(k, low), at(k, high), (232, 232, 232), 1)
        text(str(k), (at(k, low)[0] - 8, height - bottom + 28))
    for db in np.arange(low, high + 1, 5):
        cv2.line(image, at(1, db), at(STEPS[-1], db), (232, 232, 232), 1)
        text(f"{db:.0f}", (left - 44, at(1, db)[1] + 7))
    palette = [
        (68, 1, 84),
        (70, 50, 127),
        (54, 92, 141),
        (39, 127, 142),
        (31, 161, 135),
        (74, 193, 109),
        (200, 170, 20),
    ]
    label = 0  # labels go down the right edge, the highest curve's first, none over another
    for (speed, curve), colour in sorted(
        zip(curves.items(), palette, strict=False), key=lambda c: -c[0][1][-1]
    ):
        points = np.array([at(k, v) for k, v in zip(STEPS, curve, strict=True)], np.int32)
        cv2.polylines(image, [points], False, colour, 2, cv2.LINE_AA)
        for p in points:
            cv2.circle(image, (int(p[0]), int(p[1])), 4, colour, -1, cv2.LINE_AA)
        label = max(label + 20, int(points[-1][1]) + 6)
        text(f"{speed:g} px/frame", (width - right + 14, label), colour)
    text(
        "PSNR to the true exposure (dB) against the most sub-steps a frame interval takes",
        (left, 36),
        size=0.7,
    )
    text("sub-steps per interval (--fps-up)", (width // 2 - 160, height - 22))
    return image


if __name__ == "__main__":
    main()
