"""Reading what may be damaged or hostile: bounded, nothing decoded before its header is seen, nothing on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from blursynth.preview.report import InspectError
from blursynth.shards.picture import MAX_PIXELS
from blursynth.shards.picture import image_size as picture_size

if TYPE_CHECKING:
    from blursynth.preview.index import Entry


def read_pictures(entry: Entry) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """(JSON, blurred, sharp) of one sample; pictures (H, W, 3) uint8 RGB. Raises InspectError naming shard and key."""
    where = f"{entry.shard.name}: {entry.key[:80]!r}"
    try:
        with entry.shard.open("rb") as file:
            data = {role: _read_at(file, *entry.at[role]) for role in ("json", "blur", "sharp")}
    except OSError as e:
        raise InspectError(f"{where}: cannot be read ({e.strerror or e})") from None
    meta = parse_json(data["json"])
    if meta is None:
        raise InspectError(f"{where}: its JSON cannot be read")
    blur, sharp = (_decode(data[role], f"{where}: {role} picture") for role in ("blur", "sharp"))
    if blur.shape != sharp.shape:
        raise InspectError(f"{where}: blurred is {blur.shape[:2]}, sharp is {sharp.shape[:2]}")
    return meta, blur, sharp


def _read_at(file: Any, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _decode(data: bytes, what: str) -> np.ndarray:
    size = picture_size(data[:40])
    if size is None or size[0] * size[1] > MAX_PIXELS:
        raise InspectError(f"{what}: not a PNG or lossless WebP of a sane size")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise InspectError(f"{what}: cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])


def parse_json(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object, or None for anything else (also for nesting deep enough to exhaust the stack)."""
    try:
        value = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_bounded(path: Path, limit: int = 64 << 20) -> bytes | None:
    """A small file's bytes; None when it is missing, unreadable or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


def group(meta: dict[str, Any], name: str) -> dict[str, Any]:
    """A sub-object of a sample's JSON; empty when it is absent or something else."""
    value = meta.get(name)
    return value if isinstance(value, dict) else {}


def real(value: Any) -> float:
    """A finite number as float; NaN for anything else (null, text, bool, infinity, a 400-digit integer)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
