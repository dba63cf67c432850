"""May the light between two neighbouring frames be exposed? Cuts, duplicates, faults and gaps, as frames stream by.

Works on thumbnails (longer side 160 px, area-averaged luma), about 2 ms a 720p frame. Figures behind the
thresholds were measured on real clips with known cuts and with repeated frames encoded at CRF 18 and 30;
tests/test_audit.py holds those that need no outside media.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from blursynth.video.clip import Frame

_SIDE = 160  # thumbnail's longer side: 8 source px a thumbnail px at 720p
_BLOCK, _REACH = 16, 8  # block matched, and how far: 64 px a frame at 720p
_TEXTURED = 3.0  # code values of standard deviation below which a block says nothing
MATCH = 0.7  # correlation at which a block counts as found again
FOUND = 0.4  # share found: at most 0.15 over true cuts, at least 0.62 in fast motion and behind passing cars
_SURE = 0.65  # share found in one direction that settles it; another scene reaches 0.4
NEAR = 0.2  # change over the usual change: up to 0.16 for repeats, from 0.28 for real slow-downs
_ALIVE = 1.0  # code values of usual change below which a clip counts as static
_STILL = 8  # so many repeats in a row are a still scene; also how many first intervals may be judged late


class IntervalChecker:
    """Judges the interval from each frame to the one before it. O(1) memory: one frame and a few numbers.

    A repeated frame is called a duplicate only when it breaks the pace of the intervals before it, so a static
    clip stays usable. A run's first interval has no past: it passes, and ``revised`` names it (and others of the
    first few) as soon as the pace shows that it was a repeat.
    """

    def __init__(self) -> None:
        self._last: Frame | None = None
        self._thumb: np.ndarray | None = None
        self._start_over()
        self.revised: dict[int, str] = {}  # frame index -> "duplicate": passed first, known better now
        self.change = 0.0  # mean of the largest 5% of differences of the interval just closed, code values

    def push(self, frame: Frame) -> str | None:
        """Why the interval (previous frame -> this) may not be exposed; None when it may, or for the first frame.

        "cut": another scene. "duplicate": the frame repeats the one before while the clip moves. "decode": one of
        the two frames cannot be trusted (also truncated or unreadable). "size": one has another size. "gap": the
        source itself says that frames are missing in between. "rate": its time is not that of the intervals before
        it. A first frame with a fault is named too.
        """
        last, thumb = self._last, self._thumb
        self._last = frame
        self._thumb = None if frame.rgb is None else thumbnail(frame.rgb)
        self.change = 0.0
        if last is None:
            return _fault(frame)
        if reason := _fault(frame) or _fault(last):
            return reason
        assert (
            frame.rgb is not None and last.rgb is not None and thumb is not None and self._thumb is not None
        )
        if frame.rgb.shape != last.rgb.shape:
            return "size"
        difference = cv2.absdiff(self._thumb, thumb)
        if is_cut(thumb, self._thumb, float(difference.mean())):
            self._start_over()  # another scene moves at another pace
            return "cut"
        self.change = top_change(difference)
        repeated = self._is_repeat(frame.index, self.change)
        return "duplicate" if repeated else frame.broken

    def _start_over(self) -> None:
        self._moves: deque[float] = deque(maxlen=5)  # changes of the last intervals that were no repeats
        self._opening: list[int] = []  # first intervals of a scene that passed without a past to tell by
        self._seen = self._repeats = 0

    def _is_repeat(self, index: int, change: float) -> bool:
        self._seen += 1
        moves = list(self._moves)
        # The lower of two medians: neither a flash nor a thing that leaves the picture sets the pace.
        pace = min(np.median(moves[-3:]), np.median(moves)) if moves else 0.0
        if pace > _ALIVE and change <= NEAR * pace:
            self._repeats += 1
            if self._repeats > _STILL:  # so long a pause is a scene that stands still
                self._start_over()
                self._seen = _STILL
            return True
        if self._seen <= _STILL:
            if self._opening and change > _ALIVE and pace <= NEAR * change:  # the scene began with repeats
                self.revised.update(dict.fromkeys(self._opening, "duplicate"))
                self._moves.clear()
            self._opening = [*self._opening, index] if not self._moves or pace <= _ALIVE else []
        self._repeats = 0
        self._moves.append(change)
        return False


def _fault(frame: Frame) -> str | None:
    if frame.rgb is not None and frame.fault is None:
        return None
    return "size" if frame.fault == "size" else "decode"


def luma(rgb: np.ndarray, side: int | None = None) -> np.ndarray:
    """(h, w) uint8 luma of an RGB frame, its longer side at most ``side`` px (area-averaged)."""
    h, w = rgb.shape[:2]
    if side and max(h, w) > side:
        s = side / max(h, w)
        rgb = cv2.resize(rgb, (max(1, round(w * s)), max(1, round(h * s))), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """(h, w) uint8 luma, longer side about 160 px, of an (H, W, 3) uint8 RGB frame."""
    h, w = rgb.shape[:2]
    k = max(1, min(round(max(h, w) / _SIDE), min(h, w) // _BLOCK))
    # A whole number of pixels a thumbnail pixel: OpenCV averages those several times faster.
    return cv2.resize(luma(rgb)[: h // k * k, : w // k * k], (w // k, h // k), interpolation=cv2.INTER_AREA)


def top_change(difference: np.ndarray) -> float:
    """Mean of the largest 5% of absolute differences: sees a small thing move in a still picture."""
    d = difference.ravel()
    k = max(1, d.size // 20)
    return float(np.partition(d, -k)[-k:].mean())


def is_cut(a: np.ndarray, b: np.ndarray, mean_difference: float) -> bool:
    """True when hardly any block of either thumbnail is found again in the other.

    Correlation ignores brightness and contrast, so a lamp switched on or a flash is no cut, and the search
    follows motion. Pictures without texture can only be told apart by their brightness.
    """
    if mean_difference < min(4.0, 0.25 * float(b.std())):
        return False
    found, blocks = found_again(a, b, _SURE)
    if blocks >= 8 and found > _SURE * blocks:
        return False  # the other direction costs as much again
    back, others = found_again(b, a)
    if blocks + others < 8:
        return mean_difference > 30
    return found + back < FOUND * (blocks + others)


def found_again(a: np.ndarray, b: np.ndarray, enough: float = 1.0) -> tuple[int, int]:
    """How many of the textured blocks of ``a`` are found again within reach in ``b``, and how many there are. The search
    ends where more than the share ``enough`` is found."""
    blocks = textured(a)
    wide = cv2.copyMakeBorder(b, _REACH, _REACH, _REACH, _REACH, cv2.BORDER_REFLECT_101)
    found = 0
    for y, x in blocks:
        area = wide[y : y + _BLOCK + 2 * _REACH, x : x + _BLOCK + 2 * _REACH]
        likeness = cv2.matchTemplate(area, a[y : y + _BLOCK, x : x + _BLOCK], cv2.TM_CCOEFF_NORMED)
        found += cv2.minMaxLoc(likeness)[1] > MATCH
        if found > enough * len(blocks):
            break
    return found, len(blocks)


def textured(thumb: np.ndarray) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of a thumbnail's blocks that have texture."""
    rows, columns = (n // _BLOCK for n in thumb.shape)
    whole = thumb[: rows * _BLOCK, : columns * _BLOCK].astype(np.int64)
    blocks = whole.reshape(rows, _BLOCK, columns, _BLOCK)
    n, total, squares = _BLOCK**2, blocks.sum((1, 3)), (blocks**2).sum((1, 3))
    there = n * squares - total**2 >= (n * _TEXTURED) ** 2
    return [(int(y) * _BLOCK, int(x) * _BLOCK) for y, x in zip(*np.nonzero(there), strict=True)]
