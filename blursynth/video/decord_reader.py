"""Frames through decord, for comparison and on request: forward from frame 0 only.

decord 0.6.0 gives wrong frames on random access into open groups of pictures and repeats neighbours over damage
without saying so. On whole files read forward its RGB equals PyAV's, at about half the speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

import numpy as np


def installed() -> bool:
    return find_spec("decord") is not None


def read_forward(path: str, first: int, last: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """(index, (H, W, 3) uint8 RGB or None) of ``first..last``; None from the first error on."""
    reader = None
    with suppress(Exception):  # decord's own error class is a plain RuntimeError in some builds
        from decord import VideoReader

        reader = VideoReader(path, num_threads=1)
    for i in range(last + 1):
        rgb = None
        if reader is not None and i < len(reader):
            try:
                rgb = reader.next().asnumpy()
            except Exception:
                reader = None  # nobody knows at which frame it would go on
        if i >= first:
            yield i, rgb
