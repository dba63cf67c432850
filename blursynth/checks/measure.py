"""Measurements of one clip for the audit: sharpness, clipping, noise, motion, cadence. Pure functions of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from blursynth.video.intervals import luma


def directional_energy(gray: np.ndarray) -> np.ndarray:
    """(4,) mean squared second difference along 0, 45, 90, 135 degrees: motion blur takes it along its direction."""
    g = gray.astype(np.float32)
    c = g[1:-1, 1:-1]
    pairs = [
        (g[1:-1, :-2], g[1:-1, 2:]),
        (g[2:, :-2], g[:-2, 2:]),
        (g[:-2, 1:-1], g[2:, 1:-1]),
        (g[:-2, :-2], g[2:, 2:]),
    ]
    return np.array([float(np.mean(np.square(a + b - 2 * c))) for a, b in pairs])


def soft_frames(
    energies: np.ndarray, shots: Sequence[int], share: float = 0.35, reach: int = 15
) -> np.ndarray:
    """(n,) bool: frames that hold less than ``share`` of the detail that their own neighbourhood can show.

    ``energies`` is (n, 4) from ``directional_energy``, NaN rows for frames not measured; ``shots`` are the first
    frames of scenes. A frame is compared direction by direction with the sharpest frame within ``reach`` frames
    of the same scene, so content that is smooth by nature does not count as blur.
    """
    n = len(energies)
    out = np.zeros(n, bool)
    bounds = [0, *sorted(s for s in shots if 0 < s < n), n]
    for a, b in pairwise(bounds):
        for i in range(a, b):
            near = energies[max(a, i - reach) : min(b, i + reach + 1)]
            if np.isnan(energies[i]).any() or np.isnan(near).all():
                continue
            best = np.nanmax(near, axis=0)
            out[i] = bool(np.any((best > 1.0) & (energies[i] < share * best)))
    return out


def clipped_share(rgb: np.ndarray) -> tuple[float, float]:
    """Shares of pixels with a channel at 255 and with all channels at 0, on every 4th pixel."""
    p = rgb[::4, ::4]
    return float((p == 255).any(axis=2).mean()), float((p == 0).all(axis=2).mean())


def noise_sigma(gray: np.ndarray, block: int = 16) -> float:
    """Noise in code values: median over the quietest tenth of blocks of Immerkaer's estimate.

    J. Immerkaer, Fast Noise Variance Estimation, 1996: the mask below cancels constant and linear signal, and its
    response to white noise of deviation s has deviation 6 s. Flat blocks keep texture out; clipped ones, which have
    lost their noise, are left out.
    """
    g = gray.astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    r = cv2.filter2D(g, -1, mask)[1:-1, 1:-1] / 6.0
    h, w = (r.shape[0] // block) * block, (r.shape[1] // block) * block
    if not h or not w:
        return 0.0

    def blocks(x: np.ndarray) -> np.ndarray:
        return (
            x[:h, :w].reshape(h // block, block, w // block, block).swapaxes(1, 2).reshape(-1, block * block)
        )

    sigma = np.sqrt(np.mean(np.square(blocks(r)), axis=1))
    level = blocks(g[1:-1, 1:-1]).mean(axis=1)
    usable = np.sort(sigma[(level > 8) & (level < 247)])
    return float(np.median(usable[: max(1, len(usable) // 10)])) if len(usable) else 0.0


def motion_px(a: np.ndarray, b: np.ndarray, side: int = 320) -> tuple[float, float]:
    """Median and 95th percentile of motion between two RGB frames, in px of the full frame (DIS, ultrafast)."""
    ga, gb = luma(a, side), luma(b, side)
    if min(ga.shape) < 16:
        return 0.0, 0.0
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = dis.calc(ga, gb, None)  # type: ignore[call-overload]
    size = np.hypot(flow[..., 0], flow[..., 1]) * (max(a.shape[:2]) / max(ga.shape))
    return float(np.median(size)), float(np.percentile(size, 95))


def duplicate_period(duplicates: Sequence[int]) -> int | None:
    """P when repeats come every P frames (at least 4 of them, 80% at that distance); else None."""
    steps = np.diff(np.array(sorted(duplicates)))
    if len(steps) < 3:
        return None
    values, counts = np.unique(steps, return_counts=True)
    best = int(np.argmax(counts))
    return int(values[best]) if counts[best] >= 0.8 * len(steps) else None


def phase_contrast(series: np.ndarray, low: float, periods: Sequence[int] = (2, 3, 4, 5)) -> int | None:
    """Period P of which one phase has a median below ``low`` times that of all other frames; else None.

    Of the periods that qualify the shortest is given. NaN entries are left out.
    """
    for p in periods:
        medians = [
            np.nanmedian(series[k::p]) if np.isfinite(series[k::p]).sum() >= 4 else np.nan for k in range(p)
        ]
        if np.isnan(medians).any():
            continue
        k = int(np.argmin(medians))
        others = np.delete(np.array(medians), k)
        if others.min() > 0 and medians[k] < low * others.min():
            return p
    return None


def blend_residual(before: np.ndarray, frame: np.ndarray, after: np.ndarray) -> float:
    """How far a thumbnail is from the mean of its neighbours, in units of their difference; NaN without motion.

    0 for a frame made by blending its neighbours; a filmed one is far off wherever edges move.
    """
    b, f, a = (x.astype(np.float32) for x in (before, frame, after))
    moved = np.abs(a - b)
    if moved.mean() < 0.5:
        return float("nan")
    return float(np.abs(f - (a + b) / 2).mean() / moved.mean())
