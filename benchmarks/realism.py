"""How far is each method's blur from a true long exposure? Ours and the alternatives in turn, in one run.

    python benchmarks/realism.py scenes [--seeds 1,2,3,4,5,6] [--speeds 2,6,16] [--methods plain,dis,deepflow,...]
    python benchmarks/realism.py shake [--speeds 0,6] [--shake 8]
    python benchmarks/realism.py dropframe VIDEO... [--keep 4] [--methods plain,dis,deepflow]

`scenes` renders known motion (truth.py: 64 sub-frames an interval are the truth) and gives each method the same nine
8-bit frames. `shake` does so with a camera that shakes during the exposure. `dropframe` keeps every KEEP-th frame of real clips and holds the blur made from those against the
linear mean of all real frames; windows across a scene cut are left out, as `blursynth make` leaves them out. PSNR in dB
over the frame less an 8-pixel border; seconds are of one core, in process, decoding and encoding not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import reference
from rich.console import Console
from rich.table import Table
from truth import Scene, psnr, to_linear, to_srgb8

from blursynth.pairs.synthesis import Sample, Synthesizer
from blursynth.recipe import Recipe
from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.intervals import IntervalChecker

Frames = list[np.ndarray]  # RGB uint8 (H, W, 3)
INNER = np.s_[8:-8, 8:-8]


def ours(interp: str, fps_up: int, **options: float | str) -> Callable[[Frames], np.ndarray]:
    recipe = Recipe(interp=interp, fps_up=fps_up, **options)  # type: ignore[arg-type]

    def run(frames: Frames) -> np.ndarray:
        return Synthesizer(recipe).sample("bench", frames, 0, 240.0, np.random.default_rng(0)).blur_rgb

    return run


def theirs(fn: Callable[..., np.ndarray], *args: object) -> Callable[[Frames], np.ndarray]:
    """A reference method works on BGR."""
    return lambda frames: fn([f[..., ::-1].copy() for f in frames], *args)[..., ::-1]


def plain(frames: Frames) -> np.ndarray:
    """Linear mean with trapezoid ends: what the frames alone know of the exposure."""
    weight = np.ones(len(frames))
    weight[[0, -1]] = 0.5
    return to_srgb8(np.average([to_linear(f) for f in frames], 0, weight))


def methods(names: str, fps_up: int) -> dict[str, Callable[[Frames], np.ndarray]]:
    table: dict[str, Callable[[Frames], np.ndarray]] = {
        "plain": theirs(reference.naive_linear),
        "plain-display": theirs(reference.naive_display),
        "article": theirs(reference.article, fps_up),
        "bidir-deepflow": theirs(reference.bidir, fps_up, "deepflow"),
        "bidir-dis": theirs(reference.bidir, fps_up, "dis_fast"),
        "ffmpeg-mci": theirs(reference.ffmpeg_mci, fps_up),
        "trapezoid": plain,
    } | {k: ours(k, fps_up) for k in ("dis", "deepflow", "deepflow-opencv", "rife", "none")}
    table |= {f"{k}-half": ours(k, fps_up, flow_scale=0.5) for k in ("dis", "deepflow")}
    unknown = [n for n in names.split(",") if n not in table]
    if unknown:
        raise click.UsageError(f"unknown methods {unknown}; known: {', '.join(table)}")
    return {n: table[n] for n in names.split(",")}


def report(title: str, names: list[str], rows: list[tuple[str, list[float], list[float]]]) -> None:
    """Print a table: a row a scene, dB and seconds a method, means last."""
    table = Table(title=title)
    for column in ("scene", *(f"{n} dB" for n in names), *(f"{n} s" for n in names)):
        table.add_column(column, justify="left" if column == "scene" else "right")
    db, seconds = (np.array([r[i] for r in rows]) for i in (1, 2))
    for name, d, s in rows:
        table.add_row(name, *(f"{v:.2f}" for v in d), *(f"{v:.2f}" for v in s))
    table.add_section()
    table.add_row("mean", *(f"{v:.2f}" for v in db.mean(0)), *(f"{v:.2f}" for v in seconds.mean(0)))
    Console(width=200).print(table)


def measure(
    table: dict[str, Callable[[Frames], np.ndarray]], frames: Frames, truth: np.ndarray
) -> tuple[list[float], list[float]]:
    db, seconds = [], []
    for run in table.values():
        start = time.perf_counter()
        out = run(frames)
        seconds.append(time.perf_counter() - start)
        db.append(float(psnr(out[INNER], truth[INNER])))
    return db, seconds


@click.group(help=__doc__)
def main() -> None:
    cv2.setNumThreads(1)


@main.command()
@click.option("--seeds", default="1,2,3,4,5,6")
@click.option("--speeds", default="2,6,16")
@click.option("--size", default="720x1280")
@click.option("--methods", "names", default="plain,dis,deepflow")
@click.option("--fps-up", default=16)
@click.option("--cache", default="scratch/scenes", help="Rendered scenes are kept here.")
def scenes(seeds: str, speeds: str, size: str, names: str, fps_up: int, cache: str) -> None:
    table = methods(names, fps_up)
    h, w = map(int, size.split("x"))
    for speed in map(float, speeds.split(",")):
        rows = []
        for seed in map(int, seeds.split(",")):
            frames, truth = render(Path(cache), seed, speed, (h, w))
            if not rows:
                measure(
                    table, [f[:64, :64].copy() for f in frames[:3]], truth[:64, :64]
                )  # compile, outside the clock
            rows.append((f"seed {seed}", *measure(table, frames, truth)))
        report(f"{size}, {speed:g} px a frame, 9 frames, x{fps_up}", list(table), rows)


def render(cache: Path, seed: int, speed: float, size: tuple[int, int]) -> tuple[Frames, np.ndarray]:
    """Nine frames and the true exposure of a scene without lights, RGB uint8, from the cache where they are there."""
    path = cache / f"scene{seed:03d}_v{speed:g}_{size[0]}x{size[1]}.npz"
    if not path.exists():
        scene = Scene(seed, size=size, speed=speed, lights=False)
        bgr = [*scene.frames(9), scene.exposure(9, 64)]
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=np.stack([f[..., ::-1] for f in bgr]))
    images = np.load(path)["images"]
    return list(images[:9]), images[9]


@main.command()
@click.option("--seeds", default="1,2,3,4,5,6")
@click.option("--speeds", default="0,6", help="0: a still scene.")
@click.option("--shake", default=8.0, help="px of the camera's path")
@click.option("--size", default="720x1280")
@click.option("--methods", "names", default="dis,deepflow")
@click.option("--device", default="cpu")
def shake(seeds: str, speeds: str, shake: float, size: str, names: str, device: str) -> None:
    """Scenes whose camera shakes while it exposes, held against `--shake`; and what the shake costs."""
    h, w = map(int, size.split("x"))
    for speed in map(float, speeds.split(",")):
        rows = []
        for seed in map(int, seeds.split(",")):
            scene = Scene(seed, size=(h, w), speed=speed, lights=False)
            frames = [f[..., ::-1].copy() for f in scene.frames(9)]
            db, seconds = [], []
            for interp in names.split(","):
                recipes = [
                    Recipe(interp=interp, shake=px, device=device)  # type: ignore[arg-type]
                    for px in (None, str(shake))
                ]
                for recipe in recipes if not rows else ():  # compile, outside the clock
                    expose(recipe, [f[:64, :64].copy() for f in frames[:3]], seed)
                for recipe in recipes:
                    start = time.perf_counter()
                    sample = expose(recipe, frames, seed)
                    seconds.append(time.perf_counter() - start)
                told = sample.exposure["shake"]
                truth = scene.exposure(9, 64, path=told["path"])[..., ::-1]
                left, top, right, bottom = (8 + v for v in told["border"])
                inner = np.s_[top : h - bottom, left : w - right]
                db.append(float(psnr(sample.blur_rgb[inner], truth[inner])))
            rows.append((f"seed {seed}", db, seconds))
        columns = [f"{n}{s}" for n in names.split(",") for s in ("", " shaken")]
        table = Table(title=f"{size}, {speed:g} px a frame, 9 frames, shake {shake:g} px, {device}")
        for column in ("scene", *(f"{n} dB" for n in names.split(",")), *(f"{c} s" for c in columns)):
            table.add_column(column, justify="left" if column == "scene" else "right")
        for name, d, s in rows:
            table.add_row(name, *(f"{v:.2f}" for v in (*d, *s)))
        table.add_section()
        db, seconds = (np.array([r[i] for r in rows]).mean(0) for i in (1, 2))
        table.add_row("mean", *(f"{v:.2f}" for v in (*db, *seconds)))
        ratios = ", ".join(
            f"{n} x{seconds[2 * i + 1] / seconds[2 * i]:.2f}" for i, n in enumerate(names.split(","))
        )
        Console(width=200).print(table, f"cost of the shake: {ratios}")


def expose(recipe: Recipe, frames: Frames, seed: int) -> Sample:
    return Synthesizer(recipe).sample("bench", frames, 0, 240.0, np.random.default_rng(seed))


@main.command()
@click.argument("videos", nargs=-1, required=True)
@click.option("--keep", default=4)
@click.option("--intervals", default=2)
@click.option("--count", default=6)
@click.option("--methods", "names", default="trapezoid,dis,deepflow")
def dropframe(videos: tuple[str, ...], keep: int, intervals: int, count: int, names: str) -> None:
    table = methods(names, keep)
    span = keep * intervals
    for video in videos:
        info = probe_clip(Path(video))
        total = min(info.frames, 400)
        step = max(span + 1, (total - span - 1) // count)
        rows = []
        for start in (c * step for c in range(count)):
            if start + span >= total:
                break
            window, cut = [], False
            checker = IntervalChecker()
            for frame in read_frames(info, start, start + span):
                cut |= checker.push(frame) == "cut" or frame.rgb is None
                window.append(frame.rgb)
            if cut:
                click.echo(f"{info.path} {start}: a cut or a fault in the window, left out")
                continue
            rows.append((f"{start:05d}", *measure(table, window[::keep], plain(window))))
        if rows:
            report(f"{Path(video).name}, every {keep}th frame kept", list(table), rows)


if __name__ == "__main__":
    main()
