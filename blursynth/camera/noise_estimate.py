"""The noise of pictures, measured in themselves: its level, variance = a * light + b, and its grain.

The flattest blocks of each brightness, by the gradient of the smoothed picture, show noise and nothing else; their mean
power by spatial frequency (8 x 8 DCT, in rings) is the noise's, whether it is white, went through a demosaicing, or
through a codec. What 8-bit rounding adds is taken off. A line through the classes of brightness, drawn to the lower
ones where they disagree, is the Poisson-Gauss model (Foi et al. 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from blursynth.camera.response import Response
from blursynth.common.compiled import compiled

BLOCK = 8
BLOCKS_WANTED = 6000
"""Blocks measured in a picture: a grid over all of it, as fine as this number allows."""
CLASSES = 8
FLATTEST = 0.06
"""Share of the blocks of a brightness that are taken for flat."""
STEEPEST = (1.0, 1.3, 2.1, 2.2, 2.5)
"""Most power of each ring in that of the next higher one. Noise flattens towards low frequencies, even that of a
demosaicing or a codec (1.3, 2.1, 2.0, 2.1 measured in simulated ones); texture goes on growing, and is cut off here."""
DARK = 1.0
"""Weight of no noise at no light, in units of a class of brightness."""
SMOOTH = 2.0
"""Deviation in px of the Gaussian that noise is smoothed by before flatness is judged."""

_U = np.hypot(*np.mgrid[:BLOCK, :BLOCK])
RINGS = 7
_RING = np.minimum(np.searchsorted([1.5, 2.5, 3.5, 4.5, 6.0, 8.0], _U, side="right"), RINGS - 1).astype(
    np.int64
)
COUNTS = np.bincount(_RING.ravel(), minlength=RINGS).astype(np.float64)
"""Coefficients in each ring; the first holds the mean and the slopes of a block, which are the picture's own."""
CENTRES = np.array([_U[k == _RING].mean() for k in range(RINGS)])
"""Frequency of each ring, in units of pi / BLOCK a pixel."""
_k, _n = np.mgrid[:BLOCK, :BLOCK]
_DCT = (np.cos(np.pi * (2 * _n + 1) * _k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)).astype(np.float32)
_DCT[0] /= np.float32(np.sqrt(2))
_LAGS = np.stack([np.correlate(row, row, "full") for row in _DCT.astype(np.float64)])
"""(BLOCK, 2 BLOCK - 1): power of a cosine of noise by the lags of the noise's correlation along it."""


def shown_power(kernel: np.ndarray) -> np.ndarray:
    """(RINGS,) power by which blocks show white noise of variance 1 after a filter, (K, K) with K odd."""
    reach, n = BLOCK - 1, 2 * (len(kernel) + BLOCK)
    correlation = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(kernel, (n, n))) ** 2).real)
    near = correlation[n // 2 - reach : n // 2 + reach + 1, n // 2 - reach : n // 2 + reach + 1]
    return np.bincount(_RING.ravel(), (_LAGS @ near @ _LAGS.T).ravel()) / COUNTS


@dataclass(frozen=True)
class Noise:
    """Per channel, RGB: variance = a * x + b in linear light x, white = 1; both float64 (3,). grain: float64
    (3, RINGS), its power by frequency over that of white noise of this variance. Zeros where nothing could be
    measured, and white grain."""

    a: np.ndarray
    b: np.ndarray
    grain: np.ndarray

    def variance(self, light: float) -> np.ndarray:
        """float64 (3,) at this light."""
        return self.a * light + self.b


def estimate_noise(frames: Sequence[np.ndarray], response: Response) -> Noise:
    """Noise of one picture, or of the middle of several of one film: uint8 (H, W, 3) RGB, seen through `response`."""
    c = (len(frames) - 1) // 2
    steps = np.gradient(response.light.astype(np.float64), axis=0)
    lights = [np.ascontiguousarray(response.decode(f)[..., :3]) for f in frames[c : c + 2]]
    return measure_noise(lights, response.light[1], response.light[254], response.light, steps)


def measure_noise(
    lights: Sequence[np.ndarray],
    low: np.ndarray,
    high: np.ndarray,
    codes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Noise:
    """Noise of pictures of linear light, float32 (H, W, 3). low, high: (3,), light that counts as clipped. codes, steps:
    (256, 3), the light of each code and how far the next is, where the pictures are of 8 bits."""
    parts = [_measure(light, low.astype(np.float32), high.astype(np.float32)) for light in lights]
    mean, rings, slope = (np.concatenate(p) for p in zip(*parts, strict=True))
    a, b, grain = np.zeros(3), np.zeros(3), np.ones((3, RINGS))
    for channel in range(3):
        ok = rings[:, channel, 1] >= 0
        if np.count_nonzero(ok) < 4 * CLASSES:
            continue
        x, power = _flat_power(mean[ok, channel], rings[ok, channel], slope[ok])
        if codes is not None and steps is not None:
            step = np.interp(x, codes[:, channel], steps[:, channel])
            power = np.maximum(power - step[:, None] ** 2 / 12, 0.0)
        variance = power @ COUNTS / COUNTS.sum()
        a[channel], b[channel] = _fit(x, variance)
        weight = variance > 1e-12
        if weight.any():
            shape = (power[weight] / variance[weight, None]).mean(0)
            grain[channel] = shape / (shape @ COUNTS / COUNTS.sum())
    return Noise(a, b, grain)


def _measure(
    light: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 3) mean light, (n, 3, RINGS) power, -1 where clipped, and (n,) slope of the smoothed picture, of blocks."""
    if light.ndim != 3 or light.shape[2] != 3 or low.shape != (3,) or high.shape != (3,):
        raise ValueError(  # the compiled loop trusts them
            f"noise is measured in light (H, W, 3) between limits (3,), got {light.shape}, {low.shape}, {high.shape}"
        )
    h, w = light.shape[:2]
    if min(h, w) < 2 * BLOCK:
        return np.zeros((0, 3)), np.zeros((0, 3, RINGS)), np.zeros(0)
    step = (
        max(BLOCK - 1, int(np.sqrt(h * w / BLOCKS_WANTED))) | 1
    )  # odd: every place on a codec's grid of blocks
    smooth = cv2.GaussianBlur(light @ np.full(3, 1 / 3, np.float32), (0, 0), SMOOTH)
    slope = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(smooth, cv2.CV_32F, 0, 1) ** 2
    slopes = cv2.boxFilter(slope, -1, (BLOCK, BLOCK), anchor=(0, 0), borderType=cv2.BORDER_REFLECT_101)
    mean, rings = _blocks(light, low, high, step, _DCT, _RING, RINGS)
    rows, columns = (h - BLOCK) // step + 1, (w - BLOCK) // step + 1
    at = slopes[: rows * step : step, : columns * step : step]
    return mean, rings, at.ravel()


@compiled
def _blocks(light, low, high, step, dct, ring, count):
    h, w = light.shape[0], light.shape[1]
    n = dct.shape[0]
    rows, columns = (h - n) // step + 1, (w - n) // step + 1
    mean = np.zeros((rows * columns, 3), np.float64)
    rings = np.full((rows * columns, 3, count), -1.0)
    half = np.empty((n, n), np.float32)
    sizes = np.zeros(count)
    for u in range(n):
        for v in range(n):
            sizes[ring[u, v]] += 1
    for i in range(rows * columns):
        y0, x0 = i // columns * step, i % columns * step
        for c in range(3):
            clipped = False
            total = 0.0
            for y in range(n):
                for x in range(n):
                    p = light[y0 + y, x0 + x, c]
                    clipped = clipped or p <= low[c] or p >= high[c]
                    total += p
            if clipped:
                continue
            mean[i, c] = total / (n * n)
            for y in range(n):
                for u in range(n):
                    s = np.float32(0)
                    for x in range(n):
                        s += dct[u, x] * light[y0 + y, x0 + x, c]
                    half[y, u] = s
            rings[i, c] = 0
            for v in range(n):
                for u in range(n):
                    s = np.float32(0)
                    for y in range(n):
                        s += dct[v, y] * half[y, u]
                    rings[i, c, ring[v, u]] += s * s / sizes[ring[v, u]]
    return mean, rings


def _flat_power(mean: np.ndarray, rings: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(CLASSES,) light and (CLASSES, RINGS) mean power of the flattest blocks of each brightness, of one channel."""
    x, power = np.empty(CLASSES), np.empty((CLASSES, RINGS))
    for k, part in enumerate(np.array_split(np.argsort(mean, kind="stable"), CLASSES)):
        flat = part[np.argsort(slope[part], kind="stable")][: max(4, int(len(part) * FLATTEST))]
        total = rings[flat, 2:] @ COUNTS[2:]
        usual = flat[total <= 4 * np.median(total) + 1e-12]  # a block with an edge that its slope hides
        x[k], power[k] = mean[usual].mean(), rings[usual].mean(0)
    for k in reversed(range(len(STEEPEST))):
        power[:, k] = np.minimum(power[:, k] if k else np.inf, STEEPEST[k] * power[:, k + 1])
    return x, power


def _fit(x: np.ndarray, v: np.ndarray) -> tuple[float, float]:
    """(a, b), neither negative, through variances v at light x; classes that lie above the line weigh little.

    Where the picture has no dark areas, what the noise is there is not seen: DARK draws the line towards none, as
    where photons make it all.
    """
    a, b = 0.0, float(np.median(v))
    x, v = np.append(x, 0.0), np.append(v, 0.0)
    for _ in range(8):
        scale = np.maximum(a * x + b, 1e-9)
        weight = np.minimum(1.0, 0.2 / np.maximum(v / scale - 1, 1e-9)) / scale**2
        weight[-1] = DARK * float(np.median(weight[:-1]))
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
