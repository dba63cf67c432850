"""Noise that a camera's sensor adds in its Bayer RAW domain, as linear RGB shows it; noise.py says by which cameras."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from blursynth.camera.bayer import PATTERNS, Pattern, demosaic, gains_map, mosaic, srgb_to_camera

RED_GAIN = (1.9, 2.4)
BLUE_GAIN = (1.5, 1.9)
"""White balance, drawn per sample."""

POISSON_BELOW = 50
"""Counts from which the normal distribution of equal variance stands for Poisson's: at 50 its skewness is 0.14."""


def camera_variance(b1: float, b2: float, light: float) -> np.ndarray:
    """float64 (3,): variance that a grey of this light has in linear RGB, behind the mosaic, white balance and colour
    matrix that make it several times that of the RAW pixels."""
    shot, read = _unit_variances()
    return b1 * light * shot + b2 * b2 * read


@cache
def _unit_variances() -> tuple[np.ndarray, np.ndarray]:
    """RGB variance per b1 * light and per b2^2 at mean gains, from one patch of noise through `raw_noise`'s chain."""
    red, blue, pattern = float(np.mean(RED_GAIN)), float(np.mean(BLUE_GAIN)), PATTERNS[0]
    gains = gains_map((256, 256), pattern, red, blue)
    normal = np.random.default_rng(0).standard_normal(gains.shape, dtype=np.float32)
    to_srgb = np.linalg.inv(srgb_to_camera()).astype(np.float32)
    # A RAW pixel of grey is light / gain: variance b1 light / gain + b2^2, times gain^2.
    return tuple(  # type: ignore[return-value]
        cv2.transform(demosaic(normal * spread, pattern), to_srgb).reshape(-1, 3).astype(float).var(0)
        for spread in (np.sqrt(gains), gains)
    )


def raw_noise(
    linear: np.ndarray,
    b1: float,
    b2: float,
    red_gain: float,
    blue_gain: float,
    pattern: Pattern,
    rng: np.random.Generator,
    detail: bool = False,
) -> np.ndarray:
    """float32 (H, W, 3) linear sRGB, 0..1, as a camera with this noise delivers it; float32, may leave 0..1.

    b1: light of one photon in the unbalanced RAW domain; b2: standard deviation of the read noise there. detail: the
    noise alone goes through demosaicing, and `linear` keeps its detail.
    """
    to_camera = srgb_to_camera()
    balanced = mosaic(cv2.transform(linear, to_camera.astype(np.float32)), pattern)
    gains = gains_map(linear.shape[:2], pattern, red_gain, blue_gain)
    raw = np.maximum(balanced / gains, 0)
    normal = rng.standard_normal(raw.shape, dtype=np.float32)
    noisy = raw + np.sqrt(raw * np.float32(b1) + np.float32(b2 * b2)) * normal
    few = raw < np.float32(POISSON_BELOW * b1)
    photons = rng.poisson(raw[few] / np.float32(b1))
    noisy[few] = photons * np.float32(b1) + np.float32(b2) * normal[few]
    to_srgb = np.linalg.inv(to_camera).astype(np.float32)
    if detail:  # demosaicing is linear
        return linear + cv2.transform(demosaic((noisy - raw) * gains, pattern), to_srgb)
    return cv2.transform(demosaic(noisy * gains, pattern), to_srgb)
