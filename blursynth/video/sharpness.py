"""How sharp a frame's edges are beside its clip's best frames: to leave out targets that are blurred themselves.

An edge's width is its contrast over its steepest step: 1 px for a perfect edge, L px for one that a motion of L px has
smeared. Unlike the energy of detail it hardly depends on what the picture shows, so frames of a clip compare.
Widths are measured across the picture and down it: a blur in any direction widens one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from blursynth.common.compiled import compiled
from blursynth.video.clip import ClipInfo, read_frames
from blursynth.video.packets import packet_index
from blursynth.video.picture import Converter
from blursynth.video.reader import open_video

REACH = 6
"""An edge is looked at over this many pixels to either side."""
CONTRAST = 48
"""Codes that an edge must have: enough that noise does not steepen it."""
EDGES = 200
"""Fewest edges that say something."""
SHARPEST = 0.9
"""Quantile of the steepness that stands for a frame: its sharpest tenth, for much of a sharp picture is out of focus."""
ROWS = 180
"""Rows measured of a frame, about."""

FRAMES = 16
"""Frames of a clip that are looked at: keyframes, which cost one decode each, spread over it; where there are fewer,
also frames of its beginning."""
STEP = 16
"""Most frames decoded to come to the next frame of the beginning."""
BEST = 0.9
"""Quantile over those frames that stands for the clip's best."""
WIDER = 0.3
"""Softness from which a target is left out by default. Frames of six sharp clips lie below 0.15; a motion of 3 px
brings them to 0.23-0.5, 6 px to 0.35-0.66."""


def softness(info: ClipInfo, rgb: np.ndarray) -> float | None:
    """How much wider a frame's edges are than those of its clip's best frames: 0 as sharp, 0.5 twice as wide.

    rgb: uint8 (H, W, 3), a frame of the clip. None where the clip, or the frame, has too few edges to tell. A pure
    function of the clip's bytes and the frame.
    """
    here, best = edge_sharpness(rgb), clip_sharpness(info)
    known = np.isfinite(here) & np.isfinite(best)
    if not known.any():
        return None
    return round(max(0.0, float(np.max(1 - here[known] / best[known]))), 4)


def edge_sharpness(rgb: np.ndarray) -> np.ndarray:
    """One over the width in px of a frame's sharp edges, across and down: float64 (2,), 0..1.

    rgb: uint8 (H, W, 3), display-encoded. NaN for a direction with too few edges.
    """
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.array([_sharpest(_steepness(g, ROWS)) for g in (gray, np.ascontiguousarray(gray.T))])


def clip_sharpness(info: ClipInfo) -> np.ndarray:
    """`edge_sharpness` of the clip's best frames, float64 (2,); NaN for a direction that none of them has edges in.

    Kept for the clips of this process: each of its shards asks again.
    """
    stamp = Path(info.path).stat()
    return _clip_sharpness(info, stamp.st_size, stamp.st_mtime_ns)


@lru_cache(maxsize=4096)
def _clip_sharpness(info: ClipInfo, size: int, mtime_ns: int) -> np.ndarray:
    measured = np.array([edge_sharpness(rgb) for rgb in _spread(info)]).reshape(-1, 2)
    columns = (m[np.isfinite(m)] for m in measured.T)
    return np.array([np.quantile(m, BEST) if len(m) else np.nan for m in columns])


def _spread(info: ClipInfo) -> Iterator[np.ndarray]:
    """RGB of FRAMES frames of the clip, as far as they can be read."""
    left, step = FRAMES, max(info.frames // FRAMES, 1)
    if info.kind == "video" and not info.deinterlaced:  # a keyframe shows two fields at once
        keys = packet_index(info.path).keys
        if len(keys) > 1:
            chosen = keys[np.unique(np.linspace(0, len(keys) - 1, FRAMES).astype(int))]
            left -= len(chosen)
            yield from _keyframes(info, chosen.tolist())
        step = min(step, STEP)
        info = replace(info, decoder="av")  # decord would start at the first frame each time
    for i in range(0, info.frames, step)[:left] if left else ():
        yield from (f.rgb for f in read_frames(info, i, i) if f.rgb is not None)


def _keyframes(info: ClipInfo, pts: Sequence[int]) -> Iterator[np.ndarray]:
    """RGB of the keyframes with these timestamps, one decode each; those that fail are left out. What surrounds a
    keyframe is not looked at, so damage may go unseen: good for measuring, not for samples."""
    container, stream = open_video(info.path)
    convert = Converter(info.transfer, info.gamut)
    stream.codec_context.skip_frame = "NONKEY"
    with closing(container):
        for at in pts:
            try:
                container.seek(at, stream=stream, backward=True)
                frame = next(container.decode(stream), None)
                if frame is not None:
                    yield convert.picture(frame)[0]
            except (av.error.FFmpegError, OSError, ValueError):
                continue


def _sharpest(counts: np.ndarray) -> float:
    if counts.sum() < EDGES:
        return float("nan")
    return float(np.searchsorted(np.cumsum(counts), SHARPEST * counts.sum()) + 0.5) / len(counts)


@compiled
def _steepness(gray, rows):
    """(256,) counts of steepest step over contrast, 0..1, of the edges along about so many rows."""
    h, w = gray.shape
    counts = np.zeros(256, np.int64)
    for y in range(0, h, max(h // rows, 1)):
        for x in range(REACH, w - REACH, 2):
            low = high = np.int64(gray[y, x - REACH])
            last, steepest = low, np.int64(0)
            for k in range(x - REACH + 1, x + REACH + 1):
                v = np.int64(gray[y, k])
                low, high = min(low, v), max(high, v)
                steepest = max(steepest, abs(v - last))
                last = v
            if high - low >= CONTRAST:
                counts[255 * steepest // (high - low)] += 1
    return counts


SOFT = 0.56
"""`steepness` below which a picture is soft. 61 sharp photographs score 0.50 to 1.08, all but two above; the same under
a Gaussian of 2 px 0.50 to 0.59 with a median of 0.52, under a 9 px pan a median of 0.54."""
_STRONGEST = 1e-3  # share of neighbouring pixels whose difference counts as an edge


def steepness(rgb: np.ndarray) -> float:
    """How steep the strongest edges are, RGB uint8 (H, W, 3): about 1 where an edge takes one pixel, 0.5 where it is soft.

    The largest steps between neighbouring pixels over those of the picture at half its size, in the direction that
    has less. A picture without edges is soft.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return min(_steepest(grey, axis) / max(_steepest(half, axis), 1) for axis in (0, 1))


def _steepest(grey: np.ndarray, axis: int) -> int:
    step = cv2.absdiff(grey[:, 1:], grey[:, :-1]) if axis else cv2.absdiff(grey[1:], grey[:-1])
    rows = (1 << 24) // step.shape[1]  # counts are float32 there, exact up to so many pixels
    counts = np.zeros(256, np.int64)
    for top in range(0, len(step), rows):
        counts += cv2.calcHist([step[top : top + rows]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    above = np.cumsum(counts[::-1])
    return 255 - int(np.searchsorted(above, _STRONGEST * above[-1]))
