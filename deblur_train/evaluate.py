"""Measure a checkpoint on pairs of blurred and sharp frames, always beside the blurred input itself."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from .checkpoint import load_generator, write_atomically
from .image_file import EXTENSIONS, ImageError, read_picture
from .inference import restore
from .metrics import edge_retention, lpips_metric, psnr, ssim
from .norm import NormStats
from .plot import contact_sheet, save_png
from .progress import Meter
from .shards import DataError, DecodeError, ShardReader, index_split

Pair = tuple[str, np.ndarray, np.ndarray]  # name, blurred, sharp: (H, W, 3) uint8 RGB
PSNR_CAP = 100.0  # dB, stands for equal images in means


@dataclass(frozen=True)
class PairSource:
    """Pairs to measure on: how many at most, and a way to go through them; what fails is told to ``note``."""

    count: int
    pairs: Callable[[Callable[[str], None]], Iterator[Pair]]


def pairs_from_shards(folder: str, split: str, limit: int | None) -> PairSource:
    """Samples of a split, evenly spread when limited. Raises DataError when there is none."""
    index = index_split(folder, split)
    if not index.samples:
        reason = f"; {index.report()[0]}" if index.faults else ""
        other = "train" if split == "val" else "val"
        raise DataError(
            f"{folder}: no usable {split} sample{reason} (choose another --split, for example {other})"
        )
    n = len(index.samples)
    chosen = np.unique(np.linspace(0, n - 1, min(limit or n, n)).round().astype(int))

    def pairs(note: Callable[[str], None]) -> Iterator[Pair]:
        reader = ShardReader(index.paths)
        for line in index.report():
            note(f"warning: {line}")
        for i in chosen:
            sample = index.samples[int(i)]
            try:
                yield (sample.key, *reader.pair(sample))
            except DecodeError as e:
                note(f"warning: {index.paths[sample.shard].name}:{sample.key}: {e}")
        reader.close()

    return PairSource(len(chosen), pairs)


def pairs_from_folders(blur: str, sharp: str, limit: int | None) -> PairSource:
    """Files of equal relative path and stem in two folders. Raises DataError when none match."""
    sides = []
    for folder in (Path(blur), Path(sharp)):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in EXTENSIONS]
        sides.append({str(p.relative_to(folder).with_suffix("")): p for p in files})
    names = [n for n in sides[0] if n in sides[1]]
    if not names:
        raise DataError(f"{blur} and {sharp}: no two images of the same name")
    chosen = [
        names[int(i)]
        for i in np.unique(np.linspace(0, len(names) - 1, min(limit or len(names), len(names))).round())
    ]

    def pairs(note: Callable[[str], None]) -> Iterator[Pair]:
        lonely = len(sides[0]) + len(sides[1]) - 2 * len(names)
        if lonely:
            note(f"warning: {lonely} images have no partner of the same name")
        for name in chosen:
            try:
                a, b = (read_picture(side[name]).rgb for side in sides)
                if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
                    raise ImageError(f"{name}: the two images differ in size, or are not 8-bit")
                yield name, a, b
            except ImageError as e:
                note(f"warning: {e}")

    return PairSource(len(chosen), pairs)


def evaluate(
    source: PairSource,
    checkpoint: str,
    report: Path | None = None,
    norm_stats: NormStats = "tracked",
    device: str = "cpu",
    lpips: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure; returns (and writes to ``report``, with a CSV and a contact sheet beside it) per-image and mean values.

    Means are over images. Each metric stands as ``psnr`` (restored), ``psnr_blurred`` (input) and ``psnr_delta``.
    """
    metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "psnr": _capped_psnr,
        "ssim": ssim,
        "edge_retention": edge_retention,
    }
    if lpips:
        metrics["lpips"] = lpips_metric(device)
    generator = load_generator(checkpoint, norm_stats).to(device)
    rows: list[dict[str, Any]] = []
    pictures: dict[str, list[np.ndarray]] = {}
    with Meter(console or Console(), "measuring", source.count, unit="image") as meter:
        for name, blur, sharp in source.pairs(meter.say):
            restored = restore(generator, blur)
            row: dict[str, Any] = {"name": name}
            for metric, measure in metrics.items():
                after, before = measure(restored, sharp), measure(blur, sharp)
                row |= {metric: after, f"{metric}_blurred": before, f"{metric}_delta": after - before}
            rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
            _keep_extremes(pictures, rows, name, [blur, restored, sharp])
            meter.advance(f"{row['psnr']:.2f} dB ({row['psnr_delta']:+.2f})")
    if not rows:
        raise DataError("no pair could be read; see the warnings above")
    means = {k: round(statistics.fmean(r[k] for r in rows), 6) for k in rows[0] if k != "name"}
    result = {
        "checkpoint": str(checkpoint),
        "norm_stats": norm_stats,
        "images": len(rows),
        "mean": means,
        "per_image": rows,
    }
    if report is not None:
        write_atomically(report, lambda f: f.write((json.dumps(result, indent=1) + "\n").encode()))
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(report.with_suffix(".csv"), lambda f: f.write(table.getvalue().encode()))
        save_png(report.with_suffix(".png"), sheet(rows, pictures))
    return result


def _capped_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return min(psnr(a, b), PSNR_CAP)


def _ranked(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The worst, the median and the best image by gain in PSNR."""
    order = sorted(rows, key=lambda r: r["psnr_delta"])
    picks = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    return list(picks.items())


def _keep_extremes(
    pictures: dict[str, list[np.ndarray]], rows: list[dict[str, Any]], name: str, new: list[np.ndarray]
) -> None:
    """Keep only the pictures that may still be shown: memory must not grow with the number of images."""
    pictures[name] = [_thumbnail(p) for p in new]
    order = sorted((r for r in rows if r["name"] in pictures), key=lambda r: r["psnr_delta"])
    if len(order) > 33:
        # The median of a stream is only approximately among the kept ones: drop from the crowded quarters first.
        drop = order[len(order) // 4] if len(rows) % 2 else order[3 * len(order) // 4]
        pictures.pop(drop["name"], None)


def _thumbnail(p: np.ndarray, width: int = 480) -> np.ndarray:
    if p.shape[1] <= width:
        return p
    return cv2.resize(
        p, (width, max(1, round(p.shape[0] * width / p.shape[1]))), interpolation=cv2.INTER_AREA
    )


def sheet(rows: list[dict[str, Any]], pictures: dict[str, list[np.ndarray]]) -> np.ndarray:
    """The contact sheet: worst, median and best by gain; blurred | restored | sharp."""
    shown = []
    for label, row in _ranked([r for r in rows if r["name"] in pictures]):
        caption = f"{label}: {row['name']}  {row['psnr_blurred']:.2f} -> {row['psnr']:.2f} dB ({row['psnr_delta']:+.2f}), SSIM {row['ssim']:.4f}"
        shown.append((caption, pictures[row["name"]]))
    return contact_sheet(shown, ["blurred", "restored", "sharp"])
