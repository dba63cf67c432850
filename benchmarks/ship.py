"""The model that comes with the package: a run of the study, its correction scaled by what validation pairs ask for.

    python benchmarks/ship.py --media ../shared/media --run scratch/study/runs/ours-1 --out deblur_train/weights/mobilenet-dsc.safetensors

A network trained for minutes corrects too much where a picture is sharp already. Its last convolution is scaled by the
factor of 0.5, 0.65, 0.8 or 1 with the best mean gain over five validation sets: scenes at 2 and 5 px a frame with noise
and without (other seeds than the test's), and display means of clips that nobody trained on. Then every held-out pair
of the study is measured once.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
import study
import torch

from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import load_generator, read_state, save_generator
from deblur_train.models.generator import FPNGenerator

SCALES = (0.5, 0.65, 0.8, 1.0)
CLIPS = {"cam03.mp4": 7, "05_default_juggle.mp4": 5, "demo.mp4": 5}  # and the frames of a mean


def validation_sets(media: Path) -> dict[str, list[study.Pair]]:
    sets = {
        f"{kind} {speed:g} px": [study.scene_pair(seed, speed, gain) for seed in seeds]
        for kind, gain, seeds in (("noisy", 1.0, range(201, 205)), ("clean", 0.02, range(205, 209)))
        for speed in (2.0, 5.0)
    }
    sets["display means"] = [
        pair for name, n in CLIPS.items() for pair in display_means(media / "video" / name, n)
    ]
    return sets


def display_means(clip: Path, n: int) -> list[study.Pair]:
    """Means of ``n`` display-encoded frames around frames 30 and 70, halved in size, and those frames."""
    video, frames = cv2.VideoCapture(str(clip)), []
    while (read := video.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))

    def half(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).round().astype(np.uint8)

    means = {c: np.mean(frames[c - n // 2 : c + n // 2 + 1], axis=0, dtype=np.float32) for c in (30, 70)}
    return [(half(mean), half(frames[c])) for c, mean in means.items()]


def gains(
    generator: FPNGenerator, sets: dict[str, list[study.Pair]], blurred: dict[str, list[float]]
) -> dict[str, list[float]]:
    """PSNR above the blurred input's, ``blurred``, dB, of every pair."""
    restored = study.scores(partial(restore, generator), sets)
    return {s: [r - b for r, b in zip(restored[s], blurred[s], strict=True)] for s in sets}


def scaled(checkpoint: Path, scale: float) -> FPNGenerator:
    generator = load_generator(checkpoint)
    last = generator.final[-1]
    with torch.no_grad():
        for p in last.parameters():
            p.mul_(scale)
    return generator


@click.command(help=__doc__)
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--run", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(media: Path, run: Path, out: Path) -> None:
    checkpoint = run / "last.safetensors"
    validation = validation_sets(media)
    blurred = study.scores(lambda blur: blur, validation)
    best, best_gain = 1.0, -np.inf
    for scale in SCALES:
        means = {
            s: float(np.mean(v)) for s, v in gains(scaled(checkpoint, scale), validation, blurred).items()
        }
        mean = float(np.mean(list(means.values())))
        click.echo(f"{scale:g}: mean {mean:+.2f} dB; " + ", ".join(f"{s} {g:+.2f}" for s, g in means.items()))
        if mean > best_gain:
            best, best_gain = scale, mean
    generator = scaled(checkpoint, best)
    _, info = read_state(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    extra = {
        "crop": info.get("crop", "96"),
        "trained_by": "benchmarks/study.py, then benchmarks/ship.py",
        "correction_scale": f"{best:g}",
        "licence": "MIT",
    }
    save_generator(out, "mobilenet-dsc", generator.state_dict(), extra)
    click.echo(f"{out}: scale {best:g}, {out.stat().st_size} bytes; held-out pairs:")
    held_out = study.test_sets(media)
    blurred = study.scores(lambda blur: blur, held_out)
    for s, values in gains(load_generator(out), held_out, blurred).items():
        wins = sum(v > 0 for v in values)
        click.echo(
            f"  {s}: mean {np.mean(values):+.2f} dB, least {min(values):+.2f}, {wins} of {len(values)} above the input"
        )


if __name__ == "__main__":
    main()
