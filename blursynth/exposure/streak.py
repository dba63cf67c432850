"""The length of the way that content takes over an exposure: what a sample's blur measures, and how to reach one asked."""

from __future__ import annotations

import numpy as np

from blursynth.exposure.trail import Trail
from blursynth.motion.flow import PairFlow

PLACES = 4000
"""About so many places of the picture are followed, in a grid."""

READINGS = 60_000
"""About so many vectors are kept of a flow: every fourth of 720 rows. The edge of what moves is found to within them."""

PIECES = 8
"""Straight pieces of a way in one interval: under a shaking camera it is curved."""

SHORTEST = 0.02
"""Least exposure that is chosen to reach a length, in frames."""


class Streaks:
    """Follows a grid of places of the target through the flows of a window."""

    def __init__(self, height: int, width: int, target: float):
        """target: the target's instant, in frames from the window's first."""
        self.step, self.apart = (max(1, round(np.sqrt(height * width / n))) for n in (PLACES, READINGS))
        self.size, self.target = (height, width), target
        self.flows: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, pair: PairFlow) -> None:
        """The flows of the next interval; only a grid of them is kept."""
        grid = np.s_[:: self.apart, :: self.apart]
        self.flows.append((pair.forward[grid].copy(), pair.backward[grid].copy()))

    def trace(self) -> np.ndarray:
        """Where each place's content stands at each frame, (N, M, 2) px, x first: found at the target's frame and
        followed from there by the flows forward and back, each read at the nearest place that is kept of it. What
        something else covers on the way goes on as it went (`exposure.trail`)."""
        height, width = self.size
        start = np.stack(np.meshgrid(np.arange(0, width, self.step), np.arange(0, height, self.step)), -1)
        n = len(self.flows)
        centre = min(int(self.target), n - 1)
        at = {centre: start.reshape(-1, 2).astype(float)}
        for way, frames in ((1, range(centre, n)), (-1, range(centre, 0, -1))):
            trail = Trail(len(at[centre]))
            if 0 <= centre - way <= n:
                trail.begin(*self._there_and_back(at[centre], centre, -way))
            for i in frames:
                at[i + way] = at[i] + trail.follow(*self._there_and_back(at[i], i, way))
        return np.stack([at[i] for i in range(n + 1)])

    def _there_and_back(self, places: np.ndarray, frame: int, way: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow at places (M, 2) of a frame to the next (way 1) or the one before (-1), and that back where it leads."""
        forward, backward = self.flows[min(frame, frame + way)]
        there, back = (forward, backward) if way == 1 else (backward, forward)
        step = self._read(there, places)
        return step, self._read(back, places + step)

    def _read(self, flow: np.ndarray, places: np.ndarray) -> np.ndarray:
        x, y = np.rint(places / self.apart).astype(int).T
        return flow[y.clip(0, flow.shape[0] - 1), x.clip(0, flow.shape[1] - 1)]

    def length(self, trace: np.ndarray, start: float, stop: float, path: np.ndarray | None = None) -> float:
        """95th percentile, px, of the way of content from `start` to `stop`, in frames of the window.

        trace: see `trace`; path: the camera's over start..stop, (P, 3) of x, y px and degrees; None: at rest.
        """
        knots = np.arange(np.ceil(start), np.floor(stop) + 1)
        if path is not None:
            knots = np.concatenate([knots, np.linspace(start, stop, max(len(trace) * PIECES, len(path)))])
        times = np.unique(np.concatenate([[start], knots, [stop]]).clip(start, stop))
        before, way = None, np.zeros(trace.shape[1])
        for t in times:
            i = min(int(t), len(trace) - 2)
            at = trace[i] + (t - i) * (trace[i + 1] - trace[i])
            if path is not None:
                at = self._shaken(at, path, (t - start) / (stop - start))
            if before is not None:
                way += np.hypot(*(at - before).T)
            before = at
        return float(np.percentile(way, 95))

    def _shaken(self, places: np.ndarray, path: np.ndarray, share: float) -> np.ndarray:
        x, y, roll = (np.interp(share, np.linspace(0, 1, len(path)), v) for v in path.T)
        c = (np.array(self.size[::-1]) - 1) / 2
        cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        v = places - c
        return np.stack([cos * v[:, 0] - sin * v[:, 1], sin * v[:, 0] + cos * v[:, 1]], 1) + c + (x, y)
