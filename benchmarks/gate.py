"""Does the gate keep the better windows? Kept and rejected ones of real clips, by their error to dropped frames.

    python benchmarks/gate.py VIDEO... [--keep 2,4] [--gate default]

Of every KEEP-th frame, windows of three frames are exposed (DIS) and held against the linear mean of all real frames
of the same time, so the error is that of what was interpolated. Windows across a scene cut are left out, as
`blursynth make` leaves them out. PSNR in dB over the frame less an 8-pixel border, at most 960 pixels wide. `rank` is
Spearman's correlation of the error with the sample's `score`: -1 would order the windows perfectly.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import cv2
import numpy as np
from realism import INNER, plain
from rich.console import Console
from rich.table import Table
from truth import psnr

from blursynth.checks.audit import IntervalChecker
from blursynth.pairs.quality import failed_gate, parse_gate
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.sharpness import softness

STEP = 16
"""Frames between windows."""
MOST = 400
"""Frames looked at of each clip."""


def windows(path: Path, keep: int):
    """(frames of the window, its softness) of one clip, for each window without a cut or a fault."""
    info, checker, span = probe_clip(path), IntervalChecker(), 2 * keep
    scale = min(1.0, 960 / max(info.width, info.height))
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for frame in read_frames(info, 0, min(info.frames, MOST) - 1):
        if checker.push(frame) == "cut" or frame.rgb is None:
            held.clear()
        if frame.rgb is not None:
            small = cv2.resize(frame.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            held.append((small, frame.rgb))
        if len(held) > span and (frame.index - span) % STEP == 0:
            part = held[-span - 1 :]
            yield [small for small, _ in part], softness(info, part[keep][1])
        del held[: -span - 1]


def judge(path: Path, keep: int, gate: str) -> list[tuple[float, float, str | None]]:
    """(dB, score, reason) of each window of one clip."""
    out = []
    for frames, soft in windows(path, keep):
        maker = Synthesizer(Recipe(interp="dis"))
        s = maker.sample("bench", frames[::keep], 0, 30.0, np.random.default_rng(0))
        db = float(psnr(s.blur_rgb[INNER], plain(frames)[INNER]))
        why = failed_gate(parse_gate(gate), {"soft": soft} | s.quality | s.flow)
        out.append((db, s.quality["score"], why))
    return out


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation."""
    return float(np.corrcoef(*(np.argsort(np.argsort(v)) for v in (a, b)))[0, 1])


@click.command(help=__doc__)
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--keep", "keeps", default="2,4")
@click.option("--gate", default="default")
def main(videos: tuple[Path, ...], keeps: str, gate: str) -> None:
    cv2.setNumThreads(1)
    table = Table(title=f"gate {gate}")
    for column in ("clip", "every", "kept", "dB", "rejected", "dB", "reasons"):
        table.add_column(column, justify="left" if column in ("clip", "reasons") else "right")
    every: list[tuple[float, float, str | None]] = []
    for keep in map(int, keeps.split(",")):
        for video in videos:
            rows = judge(video, keep, gate)
            every += rows
            add(table, video.stem, str(keep), rows)
    table.add_section()
    add(table, "all", keeps, every)
    Console(width=140).print(table)
    db, score = (np.array([r[i] for r in every]) for i in (0, 1))
    print(f"rank of score with error over {len(every)} windows: {-rank(score, db):.2f}")


def add(table: Table, name: str, keep: str, rows: list[tuple[float, float, str | None]]) -> None:
    kept, lost = ([r[0] for r in rows if (r[2] is None) == good] for good in (True, False))
    why = Counter(r[2] for r in rows if r[2])
    table.add_row(
        name, keep, str(len(kept)), f"{np.mean(kept):.1f}" if kept else "",
        str(len(lost)), f"{np.mean(lost):.1f}" if lost else "", ", ".join(f"{k} {n}" for k, n in why.items()),
    )  # fmt: skip


if __name__ == "__main__":
    main()
