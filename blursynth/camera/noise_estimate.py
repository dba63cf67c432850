"""The noise of a source, measured in its own frames: variance = a * light + b, in linear light.

A high-pass that cancels planes (Immerkaer 1996) is applied to blocks of frames, and of differences between
neighbouring frames, which also cancel still texture. Blocks are sorted by brightness; in each class the blocks with
the least energy are those without texture or motion, and their quantile tells the noise (what 8-bit rounding adds is
taken off). A line through the classes, drawn to the lower ones where they disagree, is the Poisson-Gauss model
(Foi et al. 2008).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from blursynth.camera.response import Response

BLOCK = 8
BLOCKS_WANTED = 6000
"""Blocks measured in a frame: a grid over all of it, as fine as this number allows."""
QUANTILE = 0.02
QUANTILE_OF_NOISE = 0.487
"""The 0.02 quantile of a block's mean square over its expectation, for white noise (simulated; tests repeat it)."""
CLASSES = 8


def estimate_noise(frames: Sequence[np.ndarray], response: Response) -> tuple[np.ndarray, np.ndarray]:
    """Noise of uint8 (H, W, 3) frames in a row, or of one: float64 (3,) a and b with variance = a * x + b, RGB.

    x and the variance are in linear light, white = 1. Zeros where no block is fit to be measured.
    """
    c = (len(frames) - 1) // 2
    pairs = sorted({max(c - 1, 0), max(min(c, len(frames) - 2), 0)})
    measured = [
        _blocks(frames[i], frames[min(i + 1, len(frames) - 1)], response.light, _grid(frames[i].shape))
        for i in pairs
    ]
    mean, spatial, temporal = (np.concatenate(m) for m in zip(*measured))
    if len(frames) == 1:  # nothing to take the difference with
        temporal = spatial
    a, b = np.zeros(3), np.zeros(3)
    for channel in range(3):
        ok = spatial[:, channel] >= 0
        if np.count_nonzero(ok) >= 2 * CLASSES:
            a[channel], b[channel] = _fit(
                mean[ok, channel], spatial[ok, channel], temporal[ok, channel], response.light[:, channel]
            )
    return a, b


def _grid(shape: tuple[int, ...]) -> int:
    """Distance between the blocks measured, in pixels, so that there are about BLOCKS_WANTED of them."""
    return max(BLOCK, int(np.sqrt(shape[0] * shape[1] / BLOCKS_WANTED)))


@njit(cache=True, error_model="numpy")
def _blocks(first, second, light, step):
    """(n, 3) mean light of blocks, and mean square of the high-pass of the first frame and of the difference over
    sqrt(2); -1 where the block is clipped."""
    h, w = first.shape[0], first.shape[1]
    rows = max((h - BLOCK - 2) // step + 1, 0)
    columns = max((w - BLOCK - 2) // step + 1, 0)
    mean = np.zeros((rows * columns, 3), np.float32)
    spatial = np.full((rows * columns, 3), np.float32(-1))
    temporal = np.full((rows * columns, 3), np.float32(-1))
    side = BLOCK + 2
    f = np.empty((side, side), np.float32)
    g = np.empty((side, side), np.float32)
    for i in range(rows * columns):
        y0 = i // columns * step
        x0 = i % columns * step
        for c in range(3):
            clipped = False
            total = np.float32(0)
            for y in range(side):
                for x in range(side):
                    p = first[y0 + y, x0 + x, c]
                    q = second[y0 + y, x0 + x, c]
                    clipped = clipped or p <= 1 or p >= 254
                    f[y, x] = light[p, c]
                    g[y, x] = light[p, c] - light[q, c]
                    total += f[y, x]
            if clipped:
                continue
            mean[i, c] = total / np.float32(side * side)
            s = np.float32(0)
            t = np.float32(0)
            for y in range(1, side - 1):
                for x in range(1, side - 1):
                    u = _high_pass(f, y, x)
                    v = _high_pass(g, y, x)
                    s += u * u
                    t += v * v
            spatial[i, c] = s / np.float32(36 * BLOCK * BLOCK)
            temporal[i, c] = t / np.float32(72 * BLOCK * BLOCK)
    return mean, spatial, temporal


@njit(inline="always")
def _high_pass(f, y, x):
    """Immerkaer's mask, whose response to white noise of deviation s has deviation 6 s."""
    corners = f[y - 1, x - 1] + f[y - 1, x + 1] + f[y + 1, x - 1] + f[y + 1, x + 1]
    sides = f[y - 1, x] + f[y + 1, x] + f[y, x - 1] + f[y, x + 1]
    return corners - np.float32(2) * sides + np.float32(4) * f[y, x]


def _fit(
    mean: np.ndarray, spatial: np.ndarray, temporal: np.ndarray, light: np.ndarray
) -> tuple[float, float]:
    """(a, b), neither negative, from (n,) block measurements of one channel; light: (256,), of each code."""
    order = np.argsort(mean)
    x, v = np.empty(CLASSES), np.empty(CLASSES)
    for k, part in enumerate(np.array_split(order, CLASSES)):
        low = min(float(np.quantile(m[part], QUANTILE)) for m in (spatial, temporal))
        x[k] = float(np.median(mean[part]))
        code = min(max(int(np.searchsorted(light, x[k])), 1), 254)
        step = float(light[code + 1] - light[code - 1]) / 2
        v[k] = max(low / QUANTILE_OF_NOISE - step * step / 12, 0.0)
    a, b = 0.0, float(np.median(v))
    weight = np.ones(CLASSES)
    for _ in range(8):
        scale = np.maximum(a * x + b, 1e-9)
        above = v / scale - 1
        weight = np.minimum(1.0, 0.2 / np.maximum(above, 1e-9)) / scale**2
        a, b = _line(x, v, weight)
    return a, b


def _line(x: np.ndarray, v: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Weighted least squares v = a x + b with a, b >= 0."""
    sw, sx, sv = w.sum(), (w * x).sum(), (w * v).sum()
    sxx, sxv = (w * x * x).sum(), (w * x * v).sum()
    det = sw * sxx - sx * sx
    a = (sw * sxv - sx * sv) / det if det > 1e-12 * sw * sxx else 0.0
    b = (sv - a * sx) / sw
    if a < 0:
        return 0.0, max(sv / sw, 0.0)
    if b < 0:
        return max(sxv / sxx, 0.0), 0.0
    return float(a), float(b)
