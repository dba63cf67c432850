"""Temporal smoothing that does not ghost: restored neighbours are warped onto a frame and averaged where they agree.

A restored video flickers: each frame is restored on its own. The plain mean of N frames calms that and doubles whatever
moves. Here each neighbour first goes where optical flow says the frame's content was, and counts pixel by pixel as far
as it then looks the same. Frames are ``(H, W, 3)`` uint8 or uint16 RGB, display-encoded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

PATCH = 7  # pixels a side over which "looks the same" is judged
FLOOR, CEILING = 4.0, 17.0  # codes (of 255) of rms difference taken for noise: always, and at most
TOLERANCE = 1.5  # a patch may differ by this much more than the frame's usual (in variance) at full weight
FALL = 2.0  # how fast weight falls beyond it: exp(-FALL * excess)
CUT = 0.25  # share of agreeing pixels below which the neighbour is another scene
MIN_SIDE = 64  # DIS needs some room for its pyramid and patches


@dataclass(frozen=True)
class _Frame:
    rgb: np.ndarray
    grey: np.ndarray  # float32, codes of 255
    blurred: np.ndarray  # uint8, for flow: noise moves nowhere


class Smoother:
    """``push`` frames in order; each call gives the frames that are ready, smoothed; ``flush`` gives the rest.

    A frame is blended with up to ``before`` and ``after`` neighbours; it is ready ``after`` frames later. Keeps
    ``before + after + 1`` frames, however long the video.
    """

    def __init__(self, before: int = 1, after: int = 1) -> None:
        self.before, self.after = before, after
        self._window: deque[_Frame] = deque()
        self._at = 0  # place in the window of the next frame to give out
        # DIS at a quarter of the resolution: 0.3 of half resolution's time, and finer motion does not change a mean.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def push(self, rgb: np.ndarray) -> list[np.ndarray]:
        if self._window and self._window[0].rgb.shape != rgb.shape:
            raise ValueError(f"frame of shape {rgb.shape} after {self._window[0].rgb.shape}")
        self._window.append(_prepare(rgb))
        return self._ready(self.after)

    def flush(self) -> list[np.ndarray]:
        done = self._ready(0)
        self._window.clear()
        self._at = 0
        return done

    def _ready(self, wait: int) -> list[np.ndarray]:
        done = []
        while self._at + wait < len(self._window):
            window = list(self._window)
            near = window[max(0, self._at - self.before) : self._at + self.after + 1]
            done.append(self._blend(window[self._at], [f for f in near if f is not window[self._at]]))
            self._at += 1
            if self._at > self.before:
                self._window.popleft()
                self._at -= 1
        return done

    def _blend(self, frame: _Frame, others: list[_Frame]) -> np.ndarray:
        total = frame.rgb.astype(np.float32)
        weights = np.ones(frame.grey.shape, np.float32)
        for other in others:
            x, y = _places(self._motion(frame.blurred, other.blurred))
            weight = _agreement(frame.grey, cv2.remap(other.grey, x, y, cv2.INTER_CUBIC), x, y)
            if weight is None:
                continue
            warped = cv2.remap(other.rgb, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            total += warped.astype(np.float32) * weight[..., None]
            weights += weight
        return np.rint(total / weights[..., None]).astype(frame.rgb.dtype)

    def _motion(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32: where in ``b``, relative to here, the content of ``a`` is."""
        if np.array_equal(a, b):
            return np.zeros((*a.shape, 2), np.float32)
        h, w = a.shape
        more = (max(0, MIN_SIDE - h), max(0, MIN_SIDE - w))
        if any(more):
            a, b = (cv2.copyMakeBorder(x, 0, more[0], 0, more[1], cv2.BORDER_REPLICATE) for x in (a, b))
        return self._flow.calc(a, b, None)[:h, :w]  # type: ignore[call-overload]  # None: no initial flow


def _prepare(rgb: np.ndarray) -> _Frame:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if rgb.dtype == np.uint16:
        grey /= 257
    return _Frame(rgb, grey, cv2.GaussianBlur(np.rint(grey).astype(np.uint8), (0, 0), 1.2))


def _places(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow to coordinates: where each pixel's content is, x and y as float32 ``(H, W)``."""
    h, w = flow.shape[:2]
    x = flow[..., 0] + np.arange(w, dtype=np.float32)
    y = flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]
    return x, y


def _agreement(grey: np.ndarray, warped: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Weights 0 to 1, float32: how far a warped neighbour looks the same. None: it is another scene.

    What the frames differ by in most places is noise and flicker, which are to be averaged away; it is measured, within
    bounds, so that a noisy video is smoothed and a cut is not. A patch that differs by clearly more holds other content.
    """
    difference = cv2.boxFilter((grey - warped) ** 2, -1, (PATCH, PATCH))
    usual = float(np.clip(np.median(difference[::4, ::4]), FLOOR**2, CEILING**2))
    weight = np.exp(-FALL * np.maximum(difference / usual - TOLERANCE, 0))
    h, w = grey.shape
    weight *= (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return weight if np.mean(weight > 0.5) >= CUT else None
