"""Noise with a grain: white noise through a short filter, so that it shows the spectrum that was measured."""

from __future__ import annotations

import cv2
import numpy as np

from blursynth.camera.noise_estimate import BLOCK, CENTRES, COUNTS, RINGS, shown_power

KERNEL = 11
"""Side of the filter that gives noise its grain."""
SHARPENINGS = 4
"""Times that what is asked of that filter is held against what it shows; four leave 5% of a demosaicing's grain, where none left 30%."""


def grained(white: np.ndarray, power: np.ndarray) -> np.ndarray:
    """White noise, float32 (H, W, 3), with these powers by frequency, (3, RINGS); its variance stays 1."""
    out = np.empty_like(white)
    for c in range(3):
        spread = power[c].max() - power[c].min()
        plain = spread <= 0.15 * power[c].max()
        out[..., c] = white[..., c] if plain else cv2.filter2D(white[..., c], -1, kernel(power[c]))
    return out


def kernel(power: np.ndarray) -> np.ndarray:
    """float32 (KERNEL, KERNEL) filter of zero phase, sum of squares 1, whose noise shows these powers, (RINGS,), to
    noise_estimate.py: a short filter and short blocks each smooth a spectrum, so what is asked of the filter is sharper."""
    wanted = power / (power @ COUNTS / COUNTS.sum())
    asked = wanted
    for _ in range(SHARPENINGS):
        asked = asked * np.clip(wanted / np.maximum(shown_power(_filter(asked)), 1e-6), 0.5, 2)
        asked[0] = asked[1] * wanted[0] / max(wanted[1], 1e-6)  # nobody measures the first: the picture's own
    return _filter(asked).astype(np.float32)


def _filter(power: np.ndarray) -> np.ndarray:
    """A filter, as `kernel`'s, whose response has these powers, but for what it loses by being short."""
    size = 4 * BLOCK
    f = np.fft.fftfreq(size) * 2 * BLOCK  # units of pi / BLOCK
    radius = np.hypot(f[:, None], f[None])
    amplitude = np.sqrt(np.interp(radius, CENTRES[:RINGS], power))
    whole = np.fft.fftshift(np.fft.ifft2(amplitude).real)
    at = slice(size // 2 - KERNEL // 2, size // 2 + KERNEL // 2 + 1)
    short = whole[at, at]
    return short / np.sqrt((short**2).sum())
