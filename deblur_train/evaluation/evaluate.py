"""Measure a checkpoint on pairs of blurred and sharp frames, always beside the blurred input itself."""

from __future__ import annotations

import csv
import io
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from rich.console import Console

from blursynth.common.atomic import refuse_device, write_atomic
from blursynth.common.errors import UsageError
from blursynth.common.progress import Meter
from blursynth.shards.picture import to_8_bits
from deblur_train.data.pictures import DecodeError
from deblur_train.distributed import choose_device
from deblur_train.evaluation.align import align as align_pictures
from deblur_train.evaluation.align import aligned_psnr, aligned_ssim
from deblur_train.evaluation.metrics import edge_retention, lpips_metric, psnr, psnr_y, ssim
from deblur_train.evaluation.pair_sources import PairSource, choose_pairs, require_pairs
from deblur_train.evaluation.plot import contact_sheet, save_png
from deblur_train.evaluation.restored import Answer, answers_from_folder
from deblur_train.inference.restorer import Restorer, Tile, load_restorer
from deblur_train.inference.tiles import RestoreError
from deblur_train.media.pictures import ImageError
from deblur_train.models.checkpoint import shipped_checkpoint
from deblur_train.models.norm import NormStats

PSNR_CAP = 100.0  # dB, stands for equal images in means


def evaluate(
    source: PairSource | None = None,
    checkpoint: str | Path | None = None,
    report: str | Path | None = None,
    norm_stats: NormStats = "tracked",
    device: str = "cpu",
    lpips: bool = False,
    console: Console | None = None,
    align: Literal["ecc"] | None = None,
    tile: Tile = "auto",
    restored: str | Path | None = None,
    y_channel: bool = False,
    *,
    shards: str | Path | None = None,
    pairs: str | Path | None = None,
    blur: str | Path | None = None,
    sharp: str | Path | None = None,
    split: str = "val",
    limit: int | None = None,
) -> dict[str, Any]:
    """Measure; returns (and writes to ``report``, with a CSV and a contact sheet beside it) per-image and mean values.

    Means are over images; ``left_out`` names the pairs that could not be measured, and why. Each metric stands as
    ``psnr`` (restored), ``psnr_blurred`` (input) and ``psnr_delta``. ``align="ecc"`` is RealBlur's protocol, PSNR and SSIM
    alone; see ``align``. ``evaluate(shards="data")`` and ``evaluate(checkpoint="best.safetensors", pairs="GOPRO_Large")`` are
    the command's calls from Python.

    Args:
        source: what to measure on, or one of ``shards``, ``pairs``, or ``blur`` and ``sharp``, with ``split`` and ``limit``.
        checkpoint: of ours, an official one, or an exported file; None: the model that comes with the package.
        device: ``cpu``, ``cuda`` or ``auto``.
        y_channel: also ``psnr_y``, PSNR of BT.601 luma.
        tile: as in ``predict``: large pictures in tiles, where free memory asks for it.
        restored: a folder of pictures that another method made, measured instead of the checkpoint's.
        norm_stats: as in ``load_generator``. lpips: also LPIPS (extra ``lpips``). report: the JSON to write.

    Raises UsageError, DataError, LayoutError, CheckpointError or ExportError, each in one line.
    """
    if align not in (None, "ecc"):
        raise UsageError(f"align: must be 'ecc' or None, not {align!r}")
    if report is not None and Path(report).suffix.lower() in (".csv", ".png"):
        raise UsageError(
            f"report {report}: give it another ending; a CSV and a PNG of that name go beside it"
        )
    if report is not None:
        _require_place(Path(report))
    if align and (lpips or y_channel):
        raise UsageError("align: measures PSNR and SSIM alone; leave out lpips and y_channel")
    if source is None:
        source = choose_pairs(shards, pairs, blur, sharp, split, limit)
    elif shards or pairs or blur or sharp:
        raise UsageError("source: given beside shards, pairs, blur or sharp; give one")
    checkpoint = checkpoint or shipped_checkpoint()
    device = choose_device(device)
    measure = _aligned if align else _plain(lpips, y_channel, device)
    restorer = None if restored else load_restorer(checkpoint, norm_stats, tile, device)
    answer: Answer = (
        answers_from_folder(restored, source.names)
        if restored
        else lambda _, blur: cast(Restorer, restorer)(blur)
    )
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    with Meter("measuring", len(source.names), unit="image", console=console or Console()) as meter:
        for remark in source.remarks:
            meter.say(f"warning: {remark}")
        for i, name in enumerate(source.names):
            try:
                blurred, target = source.read(i)
                afters, befores = measure(answer(name, blurred), target), measure(blurred, target)
            except (DecodeError, ImageError, RestoreError) as e:
                left_out.append(f"{name}: {e}")
                meter.say(f"warning: {left_out[-1]}; not measured")
                continue
            row: dict[str, Any] = {"name": name}
            for metric, after in afters.items():
                before = befores[metric]
                row |= {metric: after, f"{metric}_blurred": before, f"{metric}_delta": after - before}
            rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
            meter.advance(f"{row['psnr']:.2f} dB ({row['psnr_delta']:+.2f})")
        if restorer and restorer.warning():
            meter.say(f"warning: {restorer.warning()}")
    require_pairs([r["name"] for r in rows], left_out)
    means = {k: round(statistics.fmean(r[k] for r in rows), 6) for k in rows[0] if k != "name"}
    result = {
        "checkpoint": None if restored else str(checkpoint),
        "restored": str(restored) if restored else None,
        "norm_stats": restorer.norm_stats if restorer else None,
        "align": align,
        "images": len(rows),
        "left_out": left_out,
        "mean": means,
        "per_image": rows,
    }
    if report is not None:
        report = Path(report)
        write_atomic(report, (json.dumps(result, indent=1) + "\n").encode())
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(report.with_suffix(".csv"), table.getvalue().encode())
        save_png(report.with_suffix(".png"), sheet(source, answer, rows))
    return result


def _require_place(report: Path) -> None:
    """The report can be written: known before hours of measuring. Raises UsageError."""
    beside = [] if report.is_dir() else [report.with_suffix(".csv"), report.with_suffix(".png")]
    for path in (report, *beside):
        if path.is_dir():
            raise UsageError(f"report {path}: is a folder; give the name of a file")
    others = [path.name for path in beside if path.exists() and not report.exists()]  # the JSON comes first
    if others:
        raise UsageError(
            f"report {report}: {others[0]} beside it is no report's and would be written over; give another name"
        )
    try:
        refuse_device(report)
        report.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=report.parent):
            pass
    except OSError as e:
        raise UsageError(
            f"report {report}: cannot be written there: {e.strerror}; give another place"
        ) from None


Measure = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""(picture, sharp) to values by name."""


def _plain(lpips: bool, y_channel: bool, device: str) -> Measure:
    metrics = {"psnr": _capped_psnr, "ssim": ssim, "edge_retention": edge_retention}
    if y_channel:
        metrics["psnr_y"] = lambda a, b: min(psnr_y(a, b), PSNR_CAP)
    if lpips:
        metrics["lpips"] = lpips_metric(device)
    return lambda picture, sharp: {name: f(picture, sharp) for name, f in metrics.items()}


def _aligned(picture: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    found = align_pictures(picture, sharp)
    return {"psnr": min(aligned_psnr(found), PSNR_CAP), "ssim": aligned_ssim(found)}


def _capped_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return min(psnr(a, b), PSNR_CAP)


def sheet(source: PairSource, answer: Answer, rows: list[dict[str, Any]]) -> np.ndarray:
    """The contact sheet: the worst, the median and the best image by gain in PSNR; blurred | restored | sharp."""
    order = sorted(rows, key=lambda r: r["psnr_delta"])
    shown = []
    for label, row in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        # Restored a second time: keeping every picture until the ranking is known would fill the memory.
        blur, sharp = source.read(source.names.index(row["name"]))
        caption = f"{label}: {row['name']}  {row['psnr_blurred']:.2f} -> {row['psnr']:.2f} dB ({row['psnr_delta']:+.2f}), SSIM {row['ssim']:.4f}"
        shown.append((caption, [to_8_bits(p) for p in (blur, answer(row["name"], blur), sharp)]))
    return contact_sheet(shown, ["blurred", "restored", "sharp"])
