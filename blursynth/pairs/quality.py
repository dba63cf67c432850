"""Scores of one sample, and the gates that turn scores into counted rejects.

All motion figures are per frame interval, in pixels, read on a grid of every fourth pixel. Where the two flows of an
interval disagree, one is wrong, or the content is hidden in one frame; that counts only where it shows. In a flat
area a flow is undefined and does no harm: all that it may lead to looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from blursynth.common.compiled import compiled, inlined
from blursynth.common.errors import UsageError
from blursynth.motion.flow import PairFlow, estimate_pair
from blursynth.walk.sample import sample2

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

GRID = 4
SHOWS = 8
"""Codes of luma, averaged over 3 x 3 pixels, by which a disagreement must change the picture to count. Over windows of
six clips the share of such pixels ranks with the error to dropped frames by -0.84 (Spearman), the share of all
disagreeing pixels by -0.39; 4, 12 and 16 codes give -0.75, -0.84 and -0.83."""
FAR = 8.0
"""px from which a disagreement is just wrong: capped there, `fb_error_px` ranks by -0.78, else by -0.70."""
DEFAULT_GATE = "occluded<0.1,fb_error_px<1,soft<0.3"
NAMES = ("median_px", "p95_px", "max_px", "fb_error_px", "occluded", "clipped", "soft", "heldout_db", "score")


class GateError(UsageError, ValueError):
    """A gate that cannot be read."""


@dataclass
class FlowStats:
    """Collects the motion statistics of a window, interval by interval."""

    length: list[np.ndarray] = field(default_factory=list)
    error: list[np.ndarray] = field(default_factory=list)
    hidden: list[float] = field(default_factory=list)
    total: np.ndarray | None = None
    last: tuple[np.ndarray, np.ndarray] | None = (
        None  # a frame and its luma: the next interval begins with it
    )

    def add(self, pair: PairFlow, first: np.ndarray, second: np.ndarray) -> None:
        """Both flows of one interval, and its frames, RGB uint8 (H, W, 3)."""
        backward = np.ascontiguousarray(pair.backward)
        before = self.last[1] if self.last is not None and self.last[0] is first else _luma(first)
        after = _luma(second)
        self.last = second, after
        motion, length, error, hidden = _compare(pair.forward, backward, before, after, GRID)
        self.length.append(length)
        self.error.append(error)
        self.hidden.append(hidden / len(length))
        self.total = motion if self.total is None else self.total + motion

    def summary(self) -> dict[str, float]:
        """The flow group of a sample's JSON."""
        length, error = np.concatenate(self.length), np.concatenate(self.error)
        median, p95 = np.percentile(length, [50, 95])
        return {
            "median_px": round(float(median), 3),
            "p95_px": round(float(p95), 3),
            "max_px": round(float(length.max()), 3),
            "fb_error_px": round(float(error.mean()), 4),
            "occluded": round(float(np.mean(self.hidden)), 4),
        }

    def mean_flow(self) -> np.ndarray:
        """Mean motion over the window, float32 (H / 4, W / 4, 2), px per interval of the full-size picture."""
        assert self.total is not None
        return (self.total / len(self.length)).astype(np.float32)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """uint8 (H, W): luma, averaged over 3 x 3 pixels against noise."""
    return cv2.blur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (3, 3))


@compiled
def _compare(forward, backward, first, second, grid):
    """Every `grid`th pixel's forward flow, its length, by how many px the backward flow there misses it where that
    shows, and how many pixels of those the occlusion test of Sundaram, Brox, Keutzer 2010 finds.

    A pixel goes to the second frame by one flow and comes back by the other. What shows is the greatest difference in
    luma between where it started, where it went, where it came back to and half the way between.
    """
    h, w = forward.shape[0], forward.shape[1]
    rows, columns = (h + grid - 1) // grid, (w + grid - 1) // grid
    motion = np.empty((rows, columns, 2), np.float32)
    length, error = np.empty(rows * columns, np.float32), np.zeros(rows * columns, np.float32)
    hidden = 0
    flat = backward.reshape(-1)
    for i in range(rows):
        for j in range(columns):
            y, x = i * grid, j * grid
            fx, fy = forward[y, x, 0], forward[y, x, 1]
            bx, by = sample2(flat, w, h, np.float32(x) + fx, np.float32(y) + fy)
            dx, dy = fx + bx, fy + by
            f2, b2, e2 = fx * fx + fy * fy, bx * bx + by * by, dx * dx + dy * dy
            k = i * columns + j
            motion[i, j, 0], motion[i, j, 1] = fx, fy
            length[k] = np.sqrt(f2)
            if e2 == 0:
                continue
            here = np.float32(first[y, x])
            change = abs(_at(second, x + fx, y + fy) - here)
            change = max(change, abs(_at(first, x + dx / 2, y + dy / 2) - here))
            change = max(change, abs(_at(first, x + dx, y + dy) - here))
            if change > SHOWS:
                error[k] = min(np.sqrt(e2), np.float32(FAR))
                hidden += e2 > 0.01 * (f2 + b2) + 0.5
    return motion, length, error, hidden


@inlined
def _at(image, x, y):
    """A uint8 (H, W) picture at the pixel nearest to a place; outside, its border."""
    h, w = image.shape
    column = min(max(np.intp(x + 0.5), 0), w - 1)
    return np.float32(image[min(max(np.intp(y + 0.5), 0), h - 1), column])


def _grid(height: int, width: int) -> np.ndarray:
    """Each pixel's own (x, y), float32 (H, W, 2)."""
    at = np.empty((height, width, 2), np.float32)
    at[..., 0] = np.arange(width)
    at[..., 1] = np.arange(height)[:, None]
    return at


def heldout_db(before: np.ndarray, middle: np.ndarray, after: np.ndarray) -> float:
    """PSNR in dB of the middle frame predicted from its neighbours, at half resolution (RGB uint8 (H, W, 3)).

    The one honest test of interpolation that real footage allows: drop a real frame, predict it, compare. The
    motion bridged is twice that of an interval.
    """
    size = (max(8, before.shape[1] // 2), max(8, before.shape[0] // 2))
    a, m, c = (cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in (before, middle, after))
    pair = estimate_pair("dis-coarse", a, c, 0.5)
    here = _grid(size[1], size[0])
    quarter = (pair.backward - pair.forward) / 4
    x, y = (
        cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        for image, at in ((a, here + quarter), (c, here - quarter))
    )
    # Twice the mean of both and twice the frame, in integers.
    twice = cv2.add(x, y, dtype=cv2.CV_16S), cv2.add(m, m, dtype=cv2.CV_16S)
    mse = cv2.norm(*twice, cv2.NORM_L2SQR) / (4 * m.size)
    return round(min(99.0, 10 * np.log10(255**2 / max(mse, 1e-9))), 2)


def clipped_share(frames: Sequence[np.ndarray]) -> float:
    """Share of the window's pixels with a channel at 255: their energy above white is lost."""
    hit = seen = 0
    for f in frames:
        red, green, blue = np.moveaxis(f[::GRID, ::GRID], -1, 0)
        most = np.maximum(
            np.maximum(red, green), blue
        )  # `.max(axis=-1)` over three values is five times slower
        hit, seen = hit + int(np.count_nonzero(most == 255)), seen + most.size
    return round(hit / seen, 4)


def score(flow: dict[str, float], heldout: float | None) -> float:
    """0..1, higher is better: visible share x agreement of the flows x (held-out PSNR, 15 dB -> 0, 35 dB -> 1)."""
    s = (1 - flow["occluded"]) / (1 + flow["fb_error_px"] ** 2)
    if heldout is not None:
        s *= min(1.0, max(0.0, (heldout - 15) / 20))
    return round(s, 4)


def parse_gate(text: str) -> list[tuple[str, str, float]]:
    """'off' -> []; 'default'; or 'NAME<VALUE,NAME>VALUE': each what a sample must satisfy. Raises GateError."""
    if text == "off":
        return []
    gates = []
    for part in (DEFAULT_GATE if text == "default" else text).split(","):
        m = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([0-9.]+)\s*", part)
        if not m or m[1] not in NAMES:
            raise GateError(
                f"gate {part!r}: need off, default or NAME<VALUE (or >) with NAME one of {', '.join(NAMES)}"
            )
        gates.append((m[1], m[2], float(m[3])))
    return gates


def failed_gate(gates: Sequence[tuple[str, str, float]], values: dict[str, float | None]) -> str | None:
    """The reason of the first gate the values fail, as 'gate:NAME'; None when all hold or are not measured."""
    for name, sign, bound in gates:
        v = values.get(name)
        if v is not None and not (v < bound if sign == "<" else v > bound):
            return f"gate:{name}"
    return None
