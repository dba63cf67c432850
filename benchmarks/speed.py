"""What a 720p 9-frame window costs, whole `blursynth make` against the alternatives, in one run on one core.

    python benchmarks/speed.py [--speed 6] [--windows 6] [--interps none,dis] [--references bidir-dis] [--workers]

Ours: two runs of the real command (process start, decoding, flow, exposure, PNG, fsync and all) on 1 and on
--windows clips of nine frames; the slope between them is the cost of a window, the start-up drops out. The
references run in process on one window, PNG decoding and encoding added. CPU seconds of one thread (children's
counted), ours before and after the references, so that other programs and a drifting clock disturb the ratio little;
the two-worker ratio is of wall time, also as a slope.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import realism
from rich.console import Console
from rich.table import Table
from truth import Scene

BIN = Path(sys.executable).parent / "blursynth"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ONE_THREAD.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed copy has its .pyc files


def write_clips(folder: Path, seeds: range, speed: float) -> None:
    """Each seed's nine frames as PNGs in a folder of its own."""
    for seed in seeds:
        # No two alike: `make` leaves exact duplicates out.
        frames = Scene(seed, size=(720, 1280), speed=speed, lights=False).frames(9)
        clip = folder / f"scene{seed:03d}"
        clip.mkdir(parents=True)
        for i, frame in enumerate(frames):
            cv2.imwrite(str(clip / f"{i:06d}.png"), frame)


def make_seconds(src: Path, interp: str, workers: int = 1) -> tuple[float, float]:
    """(wall, CPU) seconds of one `blursynth make` over a folder of clips."""
    with tempfile.TemporaryDirectory() as out:
        command = [BIN, "make", "--src", src, "--out", out, "--window", "9", "--interp", interp, "--crf", "srgb",
                   "--highlights", "off", "--noise", "off", "--gate", "off", "--val-fraction", "0", "--shard-samples", "1",
                   "--workers", str(workers), "--quiet"]  # fmt: skip
        start, spent = time.perf_counter(), cpu_seconds()
        subprocess.run([str(c) for c in command], check=True, env=ONE_THREAD, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start, cpu_seconds() - spent


def cpu_seconds() -> float:
    """User and system time of this process and its ended children."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def reference_seconds(name: str, clip: Path) -> float:
    """CPU seconds of one window by a reference method, with decoding and two PNGs written."""
    run = realism.methods(name, 16)[name]
    start = cpu_seconds()
    frames = [cv2.imread(str(p))[..., ::-1].copy() for p in sorted(clip.glob("*.png"))]
    out = run(frames)
    for picture in (out, frames[4]):
        cv2.imencode(".png", picture[..., ::-1])
    return cpu_seconds() - start


@click.command(help=__doc__)
@click.option("--speed", default=6.0, help="Motion of the scenes, px a frame.")
@click.option("--windows", default=6)
@click.option("--interps", default="none,dis,deepflow")
@click.option("--references", default="bidir-deepflow,ffmpeg-mci", help="Comma list, or empty.")
@click.option("--workers", "two", is_flag=True, help="Also two workers against one.")
def main(speed: float, windows: int, interps: str, references: str, two: bool) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as tmp:
        one, many, double = Path(tmp, "one"), Path(tmp, "many"), Path(tmp, "double")
        write_clips(one, range(1, 2), speed)
        write_clips(many, range(1, windows + 1), speed)
        for name in interps.split(","):
            make_seconds(one, name)  # compile and warm the file cache
        cost = dict.fromkeys([*interps.split(","), *filter(None, references.split(","))], 0.0)
        for turn in ("before", "after"):
            for name in interps.split(","):
                small, large = make_seconds(one, name)[1], make_seconds(many, name)[1]
                further = (large - small) / (windows - 1)
                cost[name] += further / 2
                click.echo(
                    f"{name}, {turn}: CPU s of 1 window {small:.2f}, of {windows} windows {large:.2f}, of the start "
                    f"{small - further:.2f}"
                )
            if turn == "before":
                cost |= {
                    name: reference_seconds(name, one / "scene001")
                    for name in filter(None, references.split(","))
                }
        table = Table(
            title=f"720p, {speed:g} px a frame, one core: CPU seconds per 9-frame window, and ratios (row / column)"
        )
        for column in ("method", "s/window", *(f"x {c}" for c in cost)):
            table.add_column(column, justify="right")
        for name, seconds in cost.items():
            table.add_row(name, f"{seconds:.2f}", *(f"{seconds / other:.1f}" for other in cost.values()))
        Console(width=160).print(table)
        if two:
            write_clips(double, range(1, 4 * windows + 1), speed)
            slope, whole = {}, {}
            for w in (1, 2):
                whole[w] = make_seconds(double, "dis", w)[0]
                slope[w] = whole[w] - make_seconds(many, "dis", w)[0]
            click.echo(
                f"two workers against one, wall time: {slope[1] / slope[2]:.2f}x a further window, "
                f"{whole[1] / whole[2]:.2f}x a whole run of {4 * windows} windows with its start-up"
            )


if __name__ == "__main__":
    main()
