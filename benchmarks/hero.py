"""The README's picture: one window four ways, from a scene whose true exposure is known.

    python benchmarks/hero.py [--seed 2] [--speed 16] [--out docs/hero.png]

Left to right: the sharp centre frame, the mean of the nine encoded frames (GoPro's recipe), ours, the true exposure.
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
import realism
import reference
from truth import psnr


@click.command(help=__doc__)
@click.option("--seed", default=2)
@click.option("--speed", default=16.0)
@click.option("--out", default="docs/hero.png")
@click.option("--cache", default="scratch/scenes")
def main(seed: int, speed: float, out: str, cache: str) -> None:
    cv2.setNumThreads(1)
    frames, truth = realism.render(Path(cache), seed, speed, (720, 1280))
    mean = realism.theirs(reference.naive_display)(frames)
    ours = realism.ours("deepflow", 16)(frames)
    # Where the two differ most: there is something to see.
    off = cv2.boxFilter(np.abs(mean.astype(np.float32) - truth).mean(2), -1, (320, 400))
    y, x = np.unravel_index(np.argmax(off[200:-200, 160:-160]), (320, 960))
    panels = []
    for name, picture in (
        ("sharp", frames[4]),
        ("mean of 9 frames", mean),
        ("blursynth", ours),
        ("true exposure", truth),
    ):
        db = "" if name in ("sharp", "true exposure") else f", {psnr(picture, truth):.1f} dB"
        panel = picture[y : y + 400, x : x + 320].copy()
        head = np.full((34, 320, 3), 255, np.uint8)
        cv2.putText(head, name + db, (8, 23), cv2.FONT_HERSHEY_DUPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
        panels.append(np.vstack([head, panel]))
    cv2.imwrite(out, np.hstack(panels)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
