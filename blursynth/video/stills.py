"""Picture files: numbered frames of a folder, each checked to be whole before it is believed."""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from blursynth.shards.picture import MAX_PIXELS, image_size

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_NUMBER = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``f2.png`` comes before ``f10.png``."""
    return [(0, int(t), t) if t.isdecimal() else (1, 0, t.casefold()) for t in _NUMBER.split(name) if t]


def frame_files(folder: str | Path) -> list[Path]:
    """Picture files right inside a folder, in natural order; hidden files do not count."""
    st = Path(folder).stat()
    return [Path(folder) / n for n in _names(str(folder), st.st_mtime_ns)]


@lru_cache(maxsize=16)
def _names(folder: str, mtime_ns: int) -> list[str]:
    names = [
        p.name for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    ]
    return sorted(names, key=lambda n: (natural_key(n), n))


def number_gaps(names: list[str]) -> frozenset[int]:
    """Positions i whose number is further from the one before than usual: frames are missing in between.

    The number is the last run of digits of the stem; the usual step is the commonest one, so a folder that was
    thinned evenly (every 7th frame) has no gaps. Names without numbers have none either.
    """
    found = [_NUMBER.findall(Path(n).stem) for n in names]
    if len(names) < 3 or not all(found):
        return frozenset()
    steps = np.diff(np.array([int(f[-1]) for f in found], dtype=np.float64))
    values, counts = np.unique(steps, return_counts=True)
    usual = values[np.argmax(counts)]
    return frozenset((np.flatnonzero(steps > 1.5 * usual) + 1).tolist()) if usual > 0 else frozenset()


def read_still(path: str | Path) -> np.ndarray | None:
    """A picture as (H, W, 3) uint8 RGB, or None when it cannot be read whole.

    Grey becomes RGB, alpha is dropped (not blended), 16 bits become 8 by rounding x / 257. EXIF orientation is
    ignored: frames of one clip must keep one geometry, and extracted frames carry no such tag.
    """
    try:
        data = np.fromfile(path, np.uint8)  # cv2.imread fails on non-ASCII paths on Windows
    except OSError:
        return None
    content = data.tobytes()
    size = image_size(content)
    if not _is_whole(content) or (size is not None and size[0] * size[1] > MAX_PIXELS):
        return None
    try:
        img = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if img is None or img.size == 0:
        return None
    if img.dtype == np.uint16:
        img = ((img.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if img.dtype != np.uint8:
        return None
    if img.ndim == 2 or img.shape[2] <= 2:
        return np.repeat(img.reshape(*img.shape[:2], -1)[..., :1], 3, axis=2)
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB if img.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


def still_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) of a picture, or None when it cannot be read."""
    img = read_still(path)
    return None if img is None else (img.shape[1], img.shape[0])


def _is_whole(data: bytes) -> bool:
    """False for a file that ends early: cv2 would fill the missing rows with grey and say nothing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" in data[-64:]
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data[-4096:]
    if data[:4] == b"RIFF" and len(data) >= 8:
        return len(data) >= struct.unpack_from("<I", data, 4)[0]
    if data[:2] == b"BM" and len(data) >= 6:
        return len(data) >= struct.unpack_from("<I", data, 2)[0]
    return len(data) > 0
