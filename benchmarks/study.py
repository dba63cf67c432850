"""Does the recipe matter? One small generator, the same clips, steps and seeds; only the synthesis differs.

    python benchmarks/study.py --media ../shared/media --work scratch/study [--steps 7000] [--seeds 0,1,2] [--jobs 2]

Six training sets, each adding one stage to the one before: (a) `display`, the plain mean of display-encoded frames
(GoPro's recipe); (b) `linear`, the mean of light; `+flow`, light integrated along the motion; `+noise`; `+lights`, the
light of clipped lamps; (c) `ours`, a camera response drawn per sample. All are made from the same windows of the clips
and of scenes rendered from the CC0 stills. Evaluated on what none trained on: scenes of other pictures with a true
exposure and camera noise, REDS and GoPro pairs, Levin's real blur. Three real clips and 300 scenes, windows of three
frames, the config of study.toml.
Every stage skips what is finished, so a killed study goes on. Result: table on stdout, study.json and study.png.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import truth
from rich.console import Console
from rich.table import Table

from blursynth.run.make import make
from deblur_train.evaluation.metrics import psnr
from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import load_generator

OURS: dict[str, Any] = {
    "interp": "dis",
    "crf": "gamma1-2.6",
    "highlights": "auto",
    "noise": "restore+iso",
    "fps_up": 16,
}
SETS: dict[str, dict[str, Any]] = {
    "display": OURS | {"interp": "none", "crf": "display", "highlights": "off", "noise": "off"},
    "linear": OURS | {"interp": "none", "crf": "srgb", "highlights": "off", "noise": "off"},
    "+flow": OURS | {"crf": "srgb", "highlights": "off", "noise": "off"},
    "+noise": OURS | {"crf": "srgb", "highlights": "off"},
    "+lights": OURS | {"crf": "srgb"},
    "ours": OURS,
}
CONFIG = Path(__file__).with_name("study.toml")
CLIPS = ("bikes.mp4", "max-heromode.mp4", "solidWhiteRight.mp4")
"""Real clips to train on: small ones, of licences that allow it (BSD, Apache-2.0 or MIT, MIT)."""
WINDOW = 3
"""Frames in an exposure, for training and for the scenes tested on: what a network of this size learns to undo."""
SHOT_NOISE, READ_NOISE = 1e-3, 3e-5
"""Variance of the test scenes' noise, a * light + b with white at 1: a small sensor at a few hundred ISO."""
Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp: RGB uint8 (H, W, 3)


def training_scene(rng: np.random.Generator, stills: list[np.ndarray], size: tuple[int, int]) -> truth.Scene:
    """A scene of the bench's kind whose pictures are crops of the stills (linear light, BGR)."""
    scene = truth.Scene(int(rng.integers(1 << 30)), size=size, speed=rng.uniform(0.5, 6.0), lights=True)
    for layer in scene.layers:
        h, w = layer.im.shape[:2]
        lamps = layer.im.max(axis=2, keepdims=True) > 2  # lamps are 6; resized pictures pass 1 a little
        still = stills[rng.integers(len(stills))]
        k = max(h / still.shape[0], w / still.shape[1]) * rng.uniform(1.0, 3.5)
        big = cv2.resize(
            still, None, fx=k, fy=k, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC
        ).clip(0, 1)
        y, x = (int(rng.integers(b - s + 1)) for b, s in zip(big.shape[:2], (h, w), strict=True))
        layer.im = np.where(lamps, layer.im, big[y : y + h, x : x + w]).astype(np.float32)
    return scene


def write_sources(media: Path, src: Path, scenes: int) -> None:
    """Clips (links) and rendered scenes as folders of PNG frames, once."""
    done = src / "complete"
    if done.exists():
        return
    src.mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        clip = media / "video" / name
        link = src / clip.name
        if not link.is_symlink():
            link.symlink_to(clip.resolve())
    stills = [truth.to_linear(cv2.imread(str(p))) for p in sorted((media / "stills").glob("*.jpg"))]
    rng = np.random.default_rng(7)
    for i in range(scenes):
        folder = src / f"scene{i:03d}"
        folder.mkdir(exist_ok=True)
        for t, frame in enumerate(training_scene(rng, stills, (360, 640)).frames(WINDOW)):
            cv2.imwrite(str(folder / f"{t:06d}.png"), frame)
    done.touch()


def test_sets(media: Path) -> dict[str, list[Pair]]:
    """The pairs nobody trained on."""

    def read(p: Path) -> np.ndarray:
        return np.ascontiguousarray(cv2.imread(str(p))[..., ::-1])

    pairs = media / "pairs"
    reds = sorted(pairs.glob("reds_180p/*/blur/*.png"))
    sets = {f"scenes {s:g} px": [scene_pair(seed, s) for seed in range(101, 107)] for s in (2.0, 5.0)}
    sets["REDS"] = [(read(p), read(p.parents[1] / "sharp" / p.name)) for p in reds]
    sets["GoPro"] = [(read(pairs / "gopro/Flower_blur1.png"), read(pairs / "gopro/Flower_sharp1.png"))]
    sharp = read(pairs / "levin/gt/im1.png")
    sets["Levin"] = [(read(p), sharp) for p in sorted(pairs.glob("levin/im1_kernel*_img.png"))]
    return sets


def scene_pair(seed: int, speed: float, gain: float = 1.0) -> Pair:
    """A three-frame true exposure with lights and noise in linear light, and its noise-free centre frame.

    gain: of the noise's variance.
    """
    scene = truth.Scene(seed, size=(360, 640), speed=speed, lights=True)
    count, sub = WINDOW, 32
    light = np.mean([scene.at((k + 0.5) / sub, (count - 1) / 2) for k in range(sub * (count - 1))], axis=0)
    light = np.clip(light, 0, 1)  # the sensor saturates before it is read
    noise = np.random.default_rng(seed).standard_normal(light.shape)
    blur = truth.to_srgb8(light + noise * np.sqrt(gain * (SHOT_NOISE * light + READ_NOISE)))
    sharp = truth.to_srgb8(scene.at((count - 1) / 2, (count - 1) / 2))
    return np.ascontiguousarray(blur[..., ::-1]), np.ascontiguousarray(sharp[..., ::-1])


def score(image: np.ndarray, sharp: np.ndarray, shift: int) -> float:
    """PSNR in dB less an 8-pixel border, the best over shifts of up to ``shift`` px (Levin's kernels are off centre)."""
    m = 8 + shift
    inner = sharp[m:-m, m:-m]
    h, w = sharp.shape[:2]
    return max(
        float(psnr(image[m + y : h - m + y, m + x : w - m + x], inner))
        for y in range(-shift, shift + 1)
        for x in range(-shift, shift + 1)
    )


def train(work: Path, name: str, seed: int, steps: int) -> None:
    """One run of the real command, resumed where it stopped."""
    run = work / "runs" / f"{name}-{seed}"
    if (run / "finished").exists():
        return
    config = work / f"{name}-{seed}.toml"
    config.write_text(CONFIG.read_text().replace("steps = 7000", f"steps = {steps}\nseed = {seed}"))
    command = [
        sys.executable,
        "-m",
        "deblur_train.cli.main",
        "fit",
        "--shards",
        work / "data" / name,
        "--config",
        config,
        "--out",
        run,
    ]
    done = subprocess.run([*map(str, command), *(["--resume"] if run.exists() else [])], capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise click.ClickException(f"{run}: training failed: {done.stderr.strip().splitlines()[-1]}")
    (run / "finished").touch()


def scores(answer: Callable[[np.ndarray], np.ndarray], sets: dict[str, list[Pair]]) -> dict[str, list[float]]:
    """PSNR in dB of the answer to every blurred picture."""
    return {s: [score(answer(b), y, 6 if s == "Levin" else 0) for b, y in pairs] for s, pairs in sets.items()}


def measure(work: Path, names: list[str], seeds: list[int], sets: dict[str, list[Pair]]) -> dict[str, Any]:
    """PSNR of every run on every test set, and of the blurred input; dB, mean over a set's pairs."""

    def means(answer: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        return {s: float(np.mean(v)) for s, v in scores(answer, sets).items()}

    result: dict[str, Any] = {"blurred input": {s: [v] for s, v in means(lambda blur: blur).items()}}
    for name in names:
        files = [str(work / "runs" / f"{name}-{seed}" / "last.safetensors") for seed in seeds]
        runs = [means(partial(restore, load_generator(file, "tracked"))) for file in files]
        result[name] = {s: [run[s] for run in runs] for s in sets}
    return result


def picture(work: Path, names: list[str], sets: dict[str, list[Pair]]) -> np.ndarray:
    """Crops of one pair a set: input, each training set's answer (first seed), sharp; RGB uint8."""
    rows = []
    for pairs in sets.values():
        blur, sharp = pairs[0]
        y, x = (max(0, (n - 176) // 2) for n in blur.shape[:2])
        row = [blur]
        for name in names:
            generator = load_generator(str(work / "runs" / f"{name}-0" / "last.safetensors"), "tracked")
            row.append(restore(generator, blur))
        rows.append(np.hstack([im[y : y + 176, x : x + 176] for im in (*row, sharp)]))
    sheet = np.vstack([np.full((28, rows[0].shape[1], 3), 255, np.uint8), *rows])
    for i, title in enumerate(("blurred", *names, "sharp")):
        cv2.putText(
            sheet, title, (176 * i + 6, 20), cv2.FONT_HERSHEY_DUPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA
        )
    return sheet


@click.command(help=__doc__)
@click.option("--media", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("scratch/study"))
@click.option("--steps", default=7000)
@click.option("--seeds", default="0,1,2")
@click.option("--scenes", default=300)
@click.option("--samples", default=400, help="Windows in each training set.")
@click.option("--jobs", default=2, help="Runs trained side by side, one thread each.")
@click.option("--sets", "names", default=",".join(SETS))
def main(
    media: Path, work: Path, steps: int, seeds: str, scenes: int, samples: int, jobs: int, names: str
) -> None:
    chosen, numbers = names.split(","), [int(s) for s in seeds.split(",")]
    write_sources(media, work / "src", scenes)
    for name in chosen:
        summary = make(work / "src", work / "data" / name, **SETS[name], window=str(WINDOW), stride=WINDOW, gate="off",
                       max_samples=samples, val_fraction=0.1, workers=jobs)  # fmt: skip
        click.echo(f"{name}: {summary.samples} samples")
    with ThreadPoolExecutor(jobs) as pool:
        # Seeds outside: a study cut short has all sets for some seeds, not some sets for all seeds.
        tasks = [pool.submit(train, work, name, seed, steps) for seed in numbers for name in chosen]
        for task in tasks:
            task.result()
    sets = test_sets(media)
    result = measure(work, chosen, numbers, sets)
    (work / "study.json").write_text(
        json.dumps({"steps": steps, "seeds": numbers, "psnr_db": result}, indent=1)
    )
    cv2.imwrite(str(work / "study.png"), picture(work, chosen, sets)[..., ::-1])
    table = Table(title=f"PSNR in dB, mean ± spread over {len(numbers)} seeds, {steps} steps")
    for column in ("trained on", *sets):
        table.add_column(column, justify="right")
    for name, row in result.items():
        table.add_row(
            name, *(f"{np.mean(v):.2f}" + (f" ± {np.std(v):.2f}" if len(v) > 1 else "") for v in row.values())
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
