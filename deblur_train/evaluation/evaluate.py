"""Measure a checkpoint on pairs of blurred and sharp frames, always beside the blurred input itself."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from blursynth.common.atomic import write_atomic
from blursynth.common.progress import Meter
from deblur_train.data.index import DataError, index_split
from deblur_train.data.pictures import DecodeError, ShardReader
from deblur_train.evaluation.metrics import edge_retention, lpips_metric, psnr, ssim
from deblur_train.evaluation.plot import contact_sheet, save_png
from deblur_train.inference.restorer import fallbacks
from deblur_train.inference.tiles import restore
from deblur_train.media.pictures import EXTENSIONS, ImageError, read_picture
from deblur_train.models.base import Generator
from deblur_train.models.checkpoint import load_generator
from deblur_train.models.norm import NormStats

Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp: (H, W, 3) uint8 RGB
PSNR_CAP = 100.0  # dB, stands for equal images in means


@dataclass(frozen=True)
class PairSource:
    """Pairs to measure on: their names, a way to read one (raises DecodeError or ImageError), and remarks."""

    names: list[str]
    read: Callable[[int], Pair]
    remarks: list[str]


def _spread(n: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the numbers 0..n-1, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(limit or n, n)).round())]


def pairs_from_shards(folder: str, split: str, limit: int | None) -> PairSource:
    """Samples of a split, evenly spread when limited. Raises DataError when there is none."""
    index = index_split(folder, split)
    if not index.samples:
        reason = f"; {index.report()[0]}" if index.faults else ""
        other = "train" if split == "val" else "val"
        raise DataError(
            f"{folder}: no usable {split} sample{reason} (choose another --split, for example {other})"
        )
    chosen = [index.samples[i] for i in _spread(len(index.samples), limit)]
    reader = ShardReader(index.paths)
    return PairSource([s.key for s in chosen], lambda i: reader.pair(chosen[i]), index.report())


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
    lonely = len(sides[0]) + len(sides[1]) - 2 * len(names)
    names = [names[i] for i in _spread(len(names), limit)]

    def read(i: int) -> Pair:
        a, b = (read_picture(side[names[i]]).rgb for side in sides)
        if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
            raise ImageError("the two images differ in size, or are not 8-bit")
        return a, b

    return PairSource(names, read, [f"{lonely} images have no partner of the same name"] if lonely else [])


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
    with Meter("measuring", len(source.names), unit="image", console=console or Console()) as meter:
        for remark in source.remarks:
            meter.say(f"warning: {remark}")
        for i, name in enumerate(source.names):
            try:
                blur, sharp = source.read(i)
            except (DecodeError, ImageError) as e:
                meter.say(f"warning: {name}: {e}; not measured")
                continue
            restored = restore(generator, blur)
            row: dict[str, Any] = {"name": name}
            for metric, measure in metrics.items():
                after, before = measure(restored, sharp), measure(blur, sharp)
                row |= {metric: after, f"{metric}_blurred": before, f"{metric}_delta": after - before}
            rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
            meter.advance(f"{row['psnr']:.2f} dB ({row['psnr_delta']:+.2f})")
        if fallbacks(generator):
            meter.say(f"warning: {fallbacks(generator)}")
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
        write_atomic(report, (json.dumps(result, indent=1) + "\n").encode())
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(report.with_suffix(".csv"), table.getvalue().encode())
        save_png(report.with_suffix(".png"), sheet(source, generator, rows))
    return result


def _capped_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return min(psnr(a, b), PSNR_CAP)


def sheet(source: PairSource, generator: Generator, rows: list[dict[str, Any]]) -> np.ndarray:
    """The contact sheet: the worst, the median and the best image by gain in PSNR; blurred | restored | sharp."""
    order = sorted(rows, key=lambda r: r["psnr_delta"])
    shown = []
    for label, row in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        # Restored a second time: keeping every picture until the ranking is known would fill the memory.
        blur, sharp = source.read(source.names.index(row["name"]))
        caption = f"{label}: {row['name']}  {row['psnr_blurred']:.2f} -> {row['psnr']:.2f} dB ({row['psnr_delta']:+.2f}), SSIM {row['ssim']:.4f}"
        shown.append((caption, [blur, restore(generator, blur), sharp]))
    return contact_sheet(shown, ["blurred", "restored", "sharp"])
