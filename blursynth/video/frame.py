"""A clip as it is known before it is decoded, one frame of it, and what a film's time stamps say of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from blursynth.camera.hdr import Gamut, Transfer
from blursynth.common.errors import UserError

Decoder = Literal["av", "decord", "image"]
Break = Literal["gap", "rate"]


class ClipError(UserError):
    """A clip that cannot be used. The message is one line: the file, what is wrong, what to do."""

    def __init__(self, path: str | Path, wrong: str, todo: str, kind: str = "unreadable"):
        self.reason = f"{path}: {wrong}; {todo}"
        self.kind = kind  # one word or two, for counting
        super().__init__(self.reason)


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before it is decoded. Small and picklable; travels to the workers."""

    path: str  # absolute: a video file, a folder of frames, or a picture
    kind: Literal["video", "frames", "still"]
    frames: int  # presentation-order count that the container promises; fields, where they are taken apart
    fps: float | None
    width: int  # after rotation is applied
    height: int
    decoder: Decoder  # decided once, so that all workers agree
    transfer: Transfer = "srgb"  # the curve of its codes
    gamut: Gamut = "bt709"  # its primaries
    deinterlaced: bool = False  # frames are fields, each filled up to a picture
    plain: bool = False  # 8 bits, 4:2:0, even size, upright: decord gives it as PyAV does
    films: int = 1  # video streams; the first is used


@dataclass
class Frame:
    """One frame, or the news that it cannot be trusted."""

    index: int  # presentation order, 0-based
    rgb: (
        np.ndarray | None
    )  # (H, W, 3) uint8 display-encoded RGB, a still's as its file has it; None on a fault
    time_s: float | None  # seconds after the first frame
    fault: str | None  # "decode", "size", "unreadable", "truncated", "interlaced"
    broken: Break | None = None  # the source itself says that the step from the frame before is no usual one
    rate: float | None = None  # frames a second around it, by the source's time stamps
    above: np.ndarray | None = (
        None  # (H, W, 3) float16 light above white, in units of white; None: there is none
    )


# Time

UNEVEN = 0.2
"""A step may differ from its stretch's by this share (cameras' clocks jitter), and by one tick where the rate gives no
whole number of ticks (containers round)."""
GAP = 1.5
"""A step of this many steps on either side of it means that frames are missing in between."""
COARSE = 2.0
"""Ticks a step below which one tick hides a missing frame; the sum of the steps then tells."""


@dataclass(frozen=True)
class Timing:
    """Stretches of even steps. Frame i's stretch is the last one that starts at or before it."""

    breaks: dict[int, Break]  # i: the step from frame i - 1 to i is of no stretch
    starts: np.ndarray  # (stretches,) int64: first frame of each
    rates: np.ndarray  # (stretches,) float64: frames a second; NaN where a stretch is one frame
    jitter: float  # spread of all steps (95th - 5th percentile) over their median: 0 for a constant rate

    def rate(self, i: int) -> float | None:
        """Frames a second of the stretch that frame i lies in."""
        if not len(self.starts):
            return None
        rate = float(self.rates[np.searchsorted(self.starts, i, side="right") - 1])
        return rate if rate > 0 else None


UNTIMED = Timing({}, np.zeros(0, np.int64), np.zeros(0), 0.0)


def find_timing(pts: np.ndarray, tick_s: float, nominal: float | None) -> Timing:
    """Stretches of a film's ascending time stamps, (frames,) int64 in ticks of ``tick_s`` seconds.

    The rate of a stretch is its intervals over its time. Where the ``nominal`` rate gives the same time to within
    rounding, the stretch has that: 30000/1001 and not what milliseconds make of it.
    """
    if len(pts) < 2 or tick_s <= 0:
        return UNTIMED
    steps = np.diff(pts).astype(np.float64)
    ideal = 1 / (nominal * tick_s) if nominal else 0.5
    breaks = _breaks(steps.tolist(), 0.0 if abs(ideal - round(ideal)) < 1e-3 else 1.0)
    starts = np.array([0, *breaks], np.int64)
    ends = np.array([*(i - 1 for i in breaks), len(pts) - 1], np.int64)
    count, ticks = (ends - starts).astype(np.float64), (pts[ends] - pts[starts]).astype(np.float64)
    rates = np.where(ticks > 0, count / np.maximum(ticks * tick_s, 1e-12), np.nan).round(6)
    if nominal:
        off = np.abs(count / (nominal * tick_s) - ticks)
        rates[off <= np.maximum(1.0, 1e-3 * ticks)] = nominal  # a lone frame among them
    usual = float(np.median(steps))
    spread = float(np.subtract(*np.percentile(steps, [95, 5])))
    return Timing(breaks, starts, rates, max(0.0, spread - 1) / usual if usual > 0 else 0.0)


def _breaks(steps: list[float], slack: float) -> dict[int, Break]:
    """Steps that are not of the stretch before them: index of the frame each ends at, and what it looks like.

    slack: ticks by which rounding can change a step.
    """
    breaks: dict[int, Break] = {}
    count, total = 0, 0.0  # steps of the stretch at hand, and their sum
    low, high = 0.0, float("inf")  # what its mean step can be, were every stamp within slack
    for k, step in enumerate(steps):
        mean = total / count if count else step
        least, most = (total + step - slack) / (count + 1), (total + step + slack) / (count + 1)
        even = abs(step - mean) <= UNEVEN * mean + slack
        if even and slack and mean < COARSE:
            even = max(low, least) <= min(high, most)
        if even:
            count, total, low, high = count + 1, total + step, max(low, least), min(high, most)
            continue
        after = steps[k + 1] if k + 1 < len(steps) else mean
        breaks[k + 1] = "gap" if step > GAP * max(mean, after) else "rate"
        count, total, low, high = 0, 0.0, 0.0, float("inf")
    return breaks
