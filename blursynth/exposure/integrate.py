"""The light of an exposure, integrated straight from source frames and the flows between them.

B = integral of p(t) L(t) dt / integral of p(t) dt, with L linear light and p the shutter's profile.
No intermediate frame is ever built: each pixel walks its own motion path through every interval, with as many
sub-steps as the path has pixels, and adds up what it meets.

Four choices make this both fast and close to a true exposure (figures in benchmarks/RESULTS.md):

- **Trapezoid nodes.** The source frames themselves are exact samples at t = 0 and 1, so they carry the end weights
  and only the interior of an interval is interpolated. A still pixel needs no interpolation at all.
- **Two-sided backward sampling** with the flows to both frames (SuperSloMo, Jiang et al. 2018, eq. 4).
- **Quasi-interpolation.** Bilinear sampling along a path blurs by the triangle kernel, whose variance is 1/6 px^2
  an axis. Sampling from frames pre-filtered by [-1, 14, -1] / 12 cancels that to fourth order (Condat, Blu,
  Unser 2005) for one small filter a frame instead of a bicubic fetch a sub-step.
- **A vote where the flows disagree** (occlusions, moving edges, failed matches): each candidate motion counts as
  far as the two frames bear it out, and content hidden in one frame is taken from the other alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from blursynth.exposure.shutter import Shutter
from blursynth.walk.frame import CENTRE, SIDE, Frame, Pair, prefilter
from blursynth.walk.loop import accumulate, mean
from blursynth.walk.nodes import Open

QUASI = np.array([SIDE, CENTRE, SIDE], np.float32)
"""Pre-filter that makes phase-averaged bilinear sampling exact to fourth order."""


class Coded(NamedTuple):
    """A frame's linear light by its codes: that of code v in channel c is table[v, c].

    codes: uint8 (H, W, 3); table: float32 (256, 4); above: what light is on top of that, float16 (H, W, 3), or None.
    """

    codes: np.ndarray
    table: np.ndarray
    above: np.ndarray | None = None

    def smooth(self) -> np.ndarray:
        """The frame's `quasi` version, float16 (H, W, 4)."""
        hot: np.ndarray | None = None
        if self.above is not None:
            hot = np.any(self.above, axis=2)
        elif self.table.max() > 1:
            hot = np.any(self.codes == 255, axis=2)
        if hot is None or not hot.any():
            return self._sampled(np.zeros((0, 0), bool))
        return self._sampled(cv2.dilate(hot.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)

    def plain(self) -> np.ndarray:
        """The frame's light itself, float16 (H, W, 4)."""
        return self._sampled(np.ones(self.codes.shape[:2], bool))

    def _sampled(self, near: np.ndarray) -> np.ndarray:
        h, w = self.codes.shape[:2]
        out = np.empty((h, w, 4), np.float16)
        prefilter(_frame(self, out), near.reshape(-1), w, h)
        return out


def _frame(light: Coded | np.ndarray, smooth: np.ndarray) -> Frame:
    """Light and its `quasi` version as the loop takes them: `Coded` or float32 (H, W, 4), and (H, W, 4) of any float."""
    smooth = np.ascontiguousarray(smooth, np.float16).view(np.uint16).reshape(-1)
    codes, above, plain = np.zeros(0, np.uint8), np.zeros(0, np.uint16), np.zeros(0, np.float32)
    if not isinstance(light, Coded):
        plain = np.ascontiguousarray(light).reshape(-1)
        return Frame(codes, np.zeros((1, 4), np.float32), above, plain, smooth)
    codes = np.ascontiguousarray(light.codes).reshape(-1)
    if light.above is not None:
        above = np.ascontiguousarray(light.above, np.float16).view(np.uint16).reshape(-1)
    return Frame(codes, light.table, above, plain, smooth)


def quasi(
    light: np.ndarray, restored: bool = True, kernels: Sequence[np.ndarray] = (QUASI, QUASI)
) -> np.ndarray:
    """Frame to sample from between nodes: light (H, W, 4) float32, pre-filtered; unchanged around clipped light.

    Light above 1 (restored highlights) is a step of several whites, where the filter's negative lobes would ring.
    restored: whether there can be any; the search for it costs as much as the filter. kernels: along x and y.
    """
    out = cv2.sepFilter2D(light, -1, kernels[0], kernels[1], borderType=cv2.BORDER_REPLICATE)
    if not restored:
        return out
    hot = cv2.bitwise_not(cv2.inRange(light, (-1.0,) * 4, (1.0,) * 4))
    if cv2.countNonZero(hot):
        near = cv2.dilate(hot, np.ones((5, 5), np.uint8)) > 0
        out[near] = light[near]
    return out


class Exposure:
    """Collects the light of one window, interval by interval; holds two frames and one accumulator.

    path: the camera's (P, 3) over each row's exposure, px, px, degrees (`shake.py`); None: at rest.
    """

    def __init__(
        self, height: int, width: int, shutter: Shutter, max_steps: int, path: np.ndarray | None = None
    ):
        """Raises ValueError for a picture, shutter or path that the loop cannot walk."""
        check_window(height, width, shutter, max_steps, path)
        self.acc = np.zeros((height, width, 4), np.float32)
        self.held = np.zeros(0 if path is None else height * width, np.float32)
        self.after: int | None = None
        self.shutter = shutter
        self.open = Open(
            shutter.start,
            shutter.stop,
            shutter.integrals,
            shutter.boxed,
            radians(path),
            np.float32(shutter.fine),
        )
        self.max_steps = max_steps
        self.steps = 0
        self.longest = 0

    def add(
        self,
        i: int,
        light: tuple[Coded | np.ndarray, Coded | np.ndarray],
        smooth: tuple[np.ndarray, np.ndarray],
        forward: np.ndarray,
        backward: np.ndarray,
    ) -> None:
        """Interval i: linear light of its two frames, `Coded` or float32 (H, W, 4), the fourth channel one; their `quasi`
        versions (H, W, 4), float16 or float32; both flows. Under a shaking camera the intervals come in turn."""
        if np.max(self.shutter.stop) <= i or np.min(self.shutter.start) >= i + 1:
            return
        if self.held.size and self.after not in (None, i):
            raise ValueError(f"under a shaking camera interval {self.after} comes next, got {i}")
        self.after = i + 1
        h, w = self.acc.shape[:2]
        # The compiled loop trusts them.
        for a in light:
            if isinstance(a, Coded):
                _check(a.codes, (h, w, 3), np.uint8)
                _check(a.table, (256, 4), np.float32)
                if a.above is not None:
                    _check(a.above, (h, w, 3), np.float16)
            else:
                _check(a, (h, w, 4), np.float32)
        for a in smooth:
            _check(a, (h, w, 4), np.float32, np.float16)
        for a in (forward, backward):
            _check(a, (h, w, 2), np.float32)
        fwd, bwd = (np.ascontiguousarray(a).reshape(-1) for a in (forward, backward))
        pair = Pair(_frame(light[0], smooth[0]), _frame(light[1], smooth[1]), fwd, bwd, w, h)
        steps, longest, sound = accumulate(
            self.acc.reshape(-1), self.held, pair, self.open, i, self.max_steps
        )
        if not sound:
            raise ValueError(f"the flow of interval {i} is not finite")
        self.steps += steps
        self.longest = max(self.longest, longest)

    def linear(self) -> np.ndarray:
        """Mean light of the exposure, float32 (H, W, 3). Raises ValueError where a pixel collected none."""
        if self.held.size and not (self.after and self.after >= self.shutter.stop.max()):
            raise ValueError(
                f"under a shaking camera interval {self.after or 0} and those after it are missing"
            )
        check_collected(self.acc[..., 3].min())
        return mean(self.acc)


def _check(array: np.ndarray, shape: tuple[int, ...], *kinds: type) -> None:
    """Raises ValueError unless an array has this shape and one of these types, the first of which it is told to have."""
    if array.shape != shape or array.dtype not in kinds:
        raise ValueError(f"need {np.dtype(kinds[0])} {shape}, got {array.dtype} {array.shape}")


def check_window(height: int, width: int, shutter: Shutter, max_steps: int, path: np.ndarray | None) -> None:
    """Raises ValueError for a picture, shutter or path that no exposure can be walked with."""
    if height < 2 or width < 2 or shutter.start.shape != (height,) or shutter.stop.shape != (height,):
        raise ValueError(
            f"an exposure needs at least 2x2 px and a shutter of {height} rows, got {width}x{height} px and "
            f"{shutter.start.shape[0]} rows"
        )
    if max_steps < 1 or not (path is None or (path.ndim == 2 and path.shape[1] == 3 and len(path) > 1)):
        raise ValueError("max_steps must be positive, and a camera's path (P, 3) with P of at least 2")


def check_collected(least: float) -> None:
    """Raises ValueError unless the least weight that a pixel collected is positive: no 0 / 0 goes on as light."""
    if not least > 0:
        raise ValueError(
            "a pixel collected no light: an interval was left out, or light or flow is not finite"
        )


def radians(path: np.ndarray | None) -> np.ndarray:
    """A camera's path (P, 3) as the loops take it, float32, its roll in radians; (0, 3) for a camera at rest."""
    if path is None:
        return np.zeros((0, 3), np.float32)
    return (path * [1, 1, np.pi / 180]).astype(np.float32)


def integrate_light(
    lights: Sequence[np.ndarray],
    flows: Sequence[tuple[np.ndarray, np.ndarray]],
    shutter: Shutter,
    max_steps: int = 16,
    path: np.ndarray | None = None,
) -> np.ndarray:
    """Exposure of N frames of linear light, float32 (H, W, 4), and their N - 1 (forward, backward) flows.

    path: the camera's, as `Exposure` takes it. Returns float32 (H, W, 3) linear light.
    """
    h, w = lights[0].shape[:2]
    exposure = Exposure(h, w, shutter, max_steps, path)
    before = quasi(lights[0])
    for i, (forward, backward) in enumerate(flows):
        after = quasi(lights[i + 1])
        exposure.add(i, (lights[i], lights[i + 1]), (before, after), forward, backward)
        before = after
    return exposure.linear()
