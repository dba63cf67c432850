"""Single pictures as sources: read upright and in all their bits, and how soft one is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from blursynth.shards.picture import MAX_PIXELS, image_size
from blursynth.video.stills import is_whole

HEAD = 1 << 18  # bytes in which a header and its metadata lie
SOFT = 0.56
"""`sharpness` below which a picture is soft. 61 sharp photographs score 0.50 to 1.08, all but two above; the same under
a Gaussian of 2 px 0.50 to 0.59 with a median of 0.52, under a 9 px pan a median of 0.54."""
STRONGEST = 1e-3  # share of neighbouring pixels whose difference counts as an edge


def photo_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) of a picture as `read_photo` gives it, or None; only its header is decoded where that is enough."""
    try:
        with Path(path).open("rb") as f:
            head = f.read(HEAD)
    except OSError:
        return None
    size = image_size(head)
    if size is None or b"Exif" in head or b"eXIf" in head:  # it may lie on its side
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            return None
        small = cv2.IMREAD_REDUCED_COLOR_8 if head[:2] == b"\xff\xd8" else cv2.IMREAD_COLOR
        rgb = _decode(path, small)
        if rgb is None:
            return None
        h, w = rgb.shape[:2]
        return (w, h) if size is None else size[::-1] if (w > h) != (size[0] > size[1]) and w != h else size
    return size


def read_photo(path: str | Path) -> np.ndarray | None:
    """A picture as (H, W, 3) RGB, uint8 or uint16 as the file has it, upright by its EXIF; None when it is not whole.

    Grey becomes RGB, alpha is dropped (not blended), a colour profile is not applied.
    """
    return _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)


def to_8_bits(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of uint8 or uint16 ones, rounded."""
    return codes if codes.dtype == np.uint8 else ((codes.astype(np.uint32) + 128) // 257).astype(np.uint8)


def sharpness(rgb: np.ndarray) -> float:
    """How steep the strongest edges are, RGB uint8 (H, W, 3): about 1 where an edge takes one pixel, 0.5 where it is soft.

    The largest steps between neighbouring pixels over those of the picture at half its size, in the direction that
    has less. A picture without edges is soft.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return min(_steepest(grey, axis) / max(_steepest(half, axis), 1) for axis in (0, 1))


def _steepest(grey: np.ndarray, axis: int) -> int:
    step = cv2.absdiff(grey[:, 1:], grey[:, :-1]) if axis else cv2.absdiff(grey[1:], grey[:-1])
    above = np.cumsum(np.bincount(step.ravel(), minlength=256)[::-1])
    return 255 - int(np.searchsorted(above, STRONGEST * above[-1]))


def _decode(path: str | Path, flags: int) -> np.ndarray | None:
    try:
        data = np.fromfile(path, np.uint8)  # cv2.imread fails on non-ASCII paths on Windows
    except OSError:
        return None
    content = data.tobytes()
    size = image_size(content)
    if not is_whole(content) or (size is not None and size[0] * size[1] > MAX_PIXELS):
        return None
    try:
        bgr = cv2.imdecode(data, flags)
    except cv2.error:
        return None
    if bgr is None or bgr.size == 0 or bgr.dtype not in (np.uint8, np.uint16):
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
