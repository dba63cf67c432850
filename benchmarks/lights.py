"""Do the streaks of lamps come out white? Scenes with lights six times white, each setting of --highlights in turn.

    python benchmarks/lights.py [--seeds 1,2,3,4,5,6] [--speed 6] [--settings off,rsblur,auto,5] [--draws 12]

Nine frames of 360x640, `--interp dis`; the truth integrates 64 sub-frames an interval of unclipped light and clips
then, as a sensor does. PSNR in dB over the frame less an 8-pixel border, and the number of blown pixels (any channel
at 255) over the truth's: 1 is right, less is streaks left grey. Settings that draw a strength per sample are given
--draws samples of every scene, as in a data set; the spread is of their dB.
"""

from __future__ import annotations

import click
import cv2
import numpy as np
import realism
from rich.console import Console
from rich.table import Table
from truth import Scene, psnr

from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe


def blown(rgb: np.ndarray) -> int:
    """Pixels of a uint8 (H, W, 3) picture with a channel at 255."""
    return int(np.count_nonzero(rgb[realism.INNER].max(axis=2) == 255))


@click.command(help=__doc__)
@click.option("--seeds", default="1,2,3,4,5,6")
@click.option("--speed", default=6.0, help="Motion, px a frame.")
@click.option("--settings", default="off,rsblur,auto,5", help="Values of --highlights; 5 is the true excess.")
@click.option("--draws", default=12)
def main(seeds: str, speed: float, settings: str, draws: int) -> None:
    cv2.setNumThreads(1)
    scenes = []
    for seed in map(int, seeds.split(",")):
        scene = Scene(seed, size=(360, 640), speed=speed, lights=True)
        bgr = [*scene.frames(9), scene.exposure(9, 64)]
        images = [np.ascontiguousarray(f[..., ::-1]) for f in bgr]
        scenes.append((images[:9], images[9]))
    table = Table(title=f"{len(scenes)} scenes with lights of six times white, {speed:g} px a frame")
    for column in ("highlights", "samples a scene", "dB", "blown pixels / truth's"):
        table.add_column(column, justify="right")
    truly = sum(blown(t) for _, t in scenes)
    for setting in settings.split(","):
        maker = Synthesizer(Recipe(interp="dis", highlights=setting))
        samples = draws if maker.light.highlights.lo < maker.light.highlights.hi else 1
        db, found = np.zeros((samples, len(scenes))), 0
        for k in range(samples):
            for i, (frames, truth) in enumerate(scenes):
                rng = np.random.default_rng([i, k])
                made = maker.sample(f"{i}-{k}", frames, 0, 240.0, rng).blur_rgb
                db[k, i] = psnr(made[realism.INNER], truth[realism.INNER])
                found += blown(made)
        spread = f" ± {db.mean(1).std():.2f}" if samples > 1 else ""
        table.add_row(setting, str(samples), f"{db.mean():.2f}{spread}", f"{found / truly / samples:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
