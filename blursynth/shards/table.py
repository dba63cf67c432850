"""samples.csv: a row a sample, out of the samples' JSON, for spreadsheets, pandas and grep (RFC 4180, UTF-8)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO, Any

from blursynth.common.atomic import write_atomic
from blursynth.common.text import printable

NAME = "samples.csv"
COLUMNS: dict[str, tuple[str, str]] = {
    "key": ("", "name of the sample: its files in the shard begin with it"),
    "split": ("", "train or val"),
    "shard": ("", "the tar that holds it"),
    "dataset": ("source.dataset", "known data set that the clip is of"),
    "clip": ("source.clip", "name of the clip"),
    "path": ("source.path", "the clip's file or folder, below the source that was given"),
    "first": ("source.first", "first source frame of the exposure, from 0"),
    "last": ("source.last", "last source frame, included"),
    "target": ("source.target", "source frame that sharp is a copy of"),
    "fps": ("source.fps", "frames per second of the clip"),
    "shutter_ms": ("exposure.shutter_ms", "exposure time, ms"),
    "duty": ("exposure.duty", "exposure time over the time between two exposures"),
    "blur_px": ("exposure.blur_px", "95th percentile of the length that content moves over the exposure, px"),
    "shake_px": ("exposure.shake.px", "length of the camera shake that was added, px"),
    "median_px": ("flow.median_px", "median motion between two frames, px"),
    "p95_px": ("flow.p95_px", "95th percentile of it, px"),
    "max_px": ("flow.max_px", "largest motion between two frames, px"),
    "fb_error_px": ("flow.fb_error_px", "disagreement of the forward and backward flow, px"),
    "occluded": ("flow.occluded", "share of pixels that are covered or uncovered"),
    "crf": ("camera.crf", "camera response"),
    "noise": ("camera.noise.kind", "kind of noise that was added"),
    "noise_b1": ("", "its variance at light x is b1 * x + b2^2"),
    "noise_b2": ("", "see noise_b1"),
    "jpeg": ("camera.jpeg", "quality of the camera's JPEG"),
    "soft": ("quality.soft", "softness of the target beside the clip's best frames"),
    "score": ("quality.score", "0 to 1: how well the flow explains the frames"),
    "flags": ("quality.flags", "what is odd about the sample, words with a space between"),
    "tile_x": ("tile.x", "left edge of the tile in the frame, px"),
    "tile_y": ("tile.y", "top edge, px"),
    "tile": ("tile.size", "side of the tile, px"),
}
"""Column -> where its value stands in a sample's JSON ("": see `sample_row`), and what it means."""
NUMBERS = frozenset(COLUMNS) - {
    "key", "split", "shard", "dataset", "clip", "path", "crf", "noise", "flags",
}  # fmt: skip
HEADER = ",".join(COLUMNS) + "\r\n"


def sample_row(meta: dict[str, Any], shard: str) -> str:
    """The row of a sample, with its line end; ``shard``: name of its tar without the extension."""
    b1, b2 = _noise(_at(meta, "camera.noise"))
    special = {
        "key": _at(meta, "key"),
        "split": shard.partition("-")[0],
        "shard": f"{shard}.tar",
        "noise_b1": b1,
        "noise_b2": b2,
    }
    text = io.StringIO()
    csv.writer(text).writerow(
        [_cell(_at(meta, where) if where else special[name]) for name, (where, _) in COLUMNS.items()]
    )
    return text.getvalue()


def _at(meta: Any, where: str) -> Any:
    for key in where.split("."):
        meta = meta.get(key) if isinstance(meta, dict) else None
    return meta


def _noise(noise: Any) -> tuple[float | None, float | None]:
    """b1 and b2 of a camera's noise; of restored noise (variance a x + b a channel) their like, mean of the channels."""
    if not isinstance(noise, dict):
        return None, None
    if noise.get("kind") != "restore":
        return noise.get("b1"), noise.get("b2")
    try:
        a, b = (sum(map(float, noise[k])) / len(noise[k]) for k in "ab")
        return float(f"{a:.6g}"), float(f"{math.sqrt(b):.6g}")
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None, None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = " ".join(value)
    return safe_text(value if isinstance(value, str) else json.dumps(value))


def safe_text(text: str) -> str:
    """One line that no spreadsheet takes for a formula: what begins with = + - @ or ' gets a ' before it; control
    characters and bytes that are not UTF-8 are spelt out (``\\x1b``)."""
    text = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return "'" + text if text[:1] in ("=", "+", "-", "@", "'") else text


def write_table(folder: Path, rows: Iterable[str]) -> dict[str, Any]:
    """Write samples.csv, whole or not at all, out of the rows of each shard in order; its facts for the index.

    No more than one shard's rows are held. Raises OSError.
    """
    facts: dict[str, Any] = {"file": NAME, "rows": 0, "bytes": 0}
    digest = hashlib.sha256()

    def write(file: IO[bytes]) -> None:
        for text in chain([HEADER], rows):
            data = text.encode()
            file.write(data)
            digest.update(data)
            facts["rows"] += text.count("\r\n")
            facts["bytes"] += len(data)

    write_atomic(folder / NAME, write)
    return facts | {"rows": facts["rows"] - 1, "sha256": digest.hexdigest()}
