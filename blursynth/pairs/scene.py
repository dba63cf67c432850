"""How far what a still shows travels over its exposure: all of it with the camera, and layers with motions of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from blursynth.exposure.layered import Layer, topmost
from blursynth.exposure.still import path_lengths, places
from blursynth.pairs.labels import BAND


@dataclass
class Scene:
    """What moves in a part of a still: all of it with the camera, and layers with motions of their own."""

    part: tuple[int, int, int, int]
    middle: tuple[float, float]
    layers: list[Layer]

    def content(self, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel's content goes from the exposure's start to its end, (h, w, 2), and how far in all, (h, w)."""
        left, top, right, bottom = self.part
        flow, length = np.empty((bottom - top, right - left, 2)), np.empty((bottom - top, right - left))
        for start in range(top, bottom, BAND):
            rows = replace(self, part=(left, start, right, min(start + BAND, bottom)))
            y, x = (v.ravel() for v in np.mgrid[start : rows.part[3], left:right])
            to = slice(start - top, rows.part[3] - top)
            ways, lengths = rows._ways(path, x, y)
            flow[to], length[to] = ways.reshape(flow[to].shape), lengths.reshape(length[to].shape)
        return flow, length

    def blur_px(self, path: np.ndarray) -> float:
        """95th percentile over the part of how far its content travels, px."""
        left, top, right, bottom = self.part
        x, y = np.meshgrid(np.linspace(left, right - 1, 12), np.linspace(top, bottom - 1, 12))
        return float(np.percentile(self._ways(path, x.ravel(), y.ravel())[1], 95))

    def _ways(self, path: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) and (N,): end minus start, and length of the way, of what shows at places of the target."""
        points = np.stack([x, y], 1).astype(np.float64)
        left, top, right, bottom = self.part
        seen = topmost(self.layers, (bottom - top, right - left), (left, top))
        of = seen[np.rint(y).astype(int) - top, np.rint(x).astype(int) - left]
        flow, length = np.empty(points.shape), np.empty(len(points))
        for n in range(-1, len(self.layers)):
            mine = of == n
            if mine.any():
                motion = self.layers[n].motion if n >= 0 else None
                start, end = places(
                    path[[0, -1]], points[mine], self.middle, None if motion is None else motion[[0, -1]]
                )
                flow[mine] = end - start
                length[mine] = path_lengths(path, points[mine], self.middle, motion)
        return flow, length
