"""Camera noise on the integrated light.

Averaging many frames, and interpolating between them, takes away the noise that a camera's one long exposure has.
RSBlur (Rim et al., ECCV 2022) measured what that costs: a network trained on noise-free synthetic blur is 1.6 dB worse
on real blur. All figures here are in linear light, white = 1.

- ``rsblur``, ``realblur``, ``B1,B2``: Poisson-Gauss noise b1 * Poisson(x / b1) + N(0, b2) in a Bayer RAW domain, then
  demosaicing. b2 is a standard deviation: RSBlur's code multiplies a standard normal draw by it
  (github.com/rimchang/RSBlur, Uformer-RSBlur/ISP/utils.py, add_Poisson_noise_random). From the same code
  (dataset/dataset_RealisticDeblur.py): the gains, one of the four Bayer patterns at random, white balance before
  demosaicing, and no noise where the light is at white.
- ``restore``, ``restore:LEVEL``: the source's own noise is measured (noise_estimate.py) and what averaging removed is
  put back, to LEVEL times the standard deviation of one source frame; LEVEL is 1 where not given.
- ``iso``: the same at a gain drawn per sample, for a data set that serves cameras from low to high sensitivity.
- ``restore+rsblur``, ``restore+realblur``, ``restore+iso``: `restore`, or that camera's noise where it is more than the source has:
  codecs remove noise, so that there is often nothing left in a video to measure.

With ``iso`` and after ``restore+`` only the noise is demosaiced. The frames went through a mosaic in their own camera; a
second one takes detail from the blurred picture that its sharp target keeps, and a network learns to draw that into
every picture (benchmarks/RESULTS.md: 0.2 dB on REDS). The other cameras do as the published code does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numba import njit

from blursynth.camera.bayer import PATTERNS, Pattern, demosaic, gains_map, mosaic, srgb_to_camera
from blursynth.camera.noise_estimate import estimate_noise
from blursynth.camera.response import CameraError, Response

RSBLUR = (1e-4, 9.15e-4)
"""(b1, b2) of RSBlur's camera as released: 1.0000e-04, 9.1504e-04."""
REALBLUR = (8.89e-5, 2.94e-5)
"""(b1, b2) of RealBlur's camera as released: 8.8915e-05, 2.9430e-05."""
SPREAD = (0.5, 1.5)
"""Both are multiplied by a uniform draw from this range, per sample."""
ISO_GAIN = (0.25, 32.0)
"""`iso`: RSBlur's camera at gains from this range, drawn log-uniformly per sample, for users' cameras differ more than
one camera's frames. At gain 1 white is 10,000 photons: the range goes from 40,000, a large sensor at base sensitivity,
to 310, a phone's small pixels at ISO 800 or so, where exposures grow long. In units of white, b1 grows with the gain and
b2, read noise, with its square root: at high gain most of it comes before the amplifier."""
RED_GAIN = (1.9, 2.4)
BLUE_GAIN = (1.5, 1.9)
"""White balance, drawn per sample."""

GREY = 0.18
"""Light at which a source's noise is held against a camera's."""

POISSON_BELOW = 50
"""Counts from which the normal distribution of equal variance stands for Poisson's: at 50 its skewness is 0.14."""


@dataclass(frozen=True)
class NoiseModel:
    """kind: what a setting asks for; b1, b2: RAW noise; spread: whether both are varied per sample; level: see
    `restore`; least: camera whose noise stands in where the source has less."""

    kind: Literal["rsblur", "realblur", "iso", "raw", "restore"]
    b1: float = 0.0
    b2: float = 0.0
    spread: bool = False
    level: float = 1.0
    least: NoiseModel | None = None


def parse_noise(text: str) -> NoiseModel | None:
    """off, a CAMERA (rsblur, realblur, iso), B1,B2, restore, restore:LEVEL or restore+CAMERA. Raises CameraError."""
    if text == "off":
        return None
    if text == "rsblur":
        return NoiseModel("rsblur", *RSBLUR, spread=True)
    if text == "realblur":
        return NoiseModel("realblur", *REALBLUR, spread=True)
    if text == "iso":
        return NoiseModel("iso", *RSBLUR)
    if text in ("restore+rsblur", "restore+realblur", "restore+iso"):
        return NoiseModel("restore", least=parse_noise(text.partition("+")[2]))
    try:
        if text == "restore" or text.startswith("restore:"):
            level = float(text.partition(":")[2] or 1)
            if 0 < level <= 10:
                return NoiseModel("restore", level=level)
        else:
            b1, b2 = (float(b) for b in text.split(","))
            if 0 < b1 <= 0.1 and 0 <= b2 <= 0.1:
                return NoiseModel("raw", b1, b2)
    except ValueError:
        pass
    raise CameraError(
        f"noise {text!r} is not off, rsblur, realblur, iso, B1,B2 (0 to 0.1), restore, restore:LEVEL (0 to 10), "
        "restore+rsblur, restore+realblur or restore+iso"
    )


def add_noise(
    linear: np.ndarray,
    response: Response,
    noise: NoiseModel | None,
    frames: Sequence[np.ndarray],
    rng: np.random.Generator,
    effective_frames: float,
    camera: Response | None = None,
) -> tuple[np.ndarray, dict[str, Any] | None]:
    """Encode linear light, float32 (H, W, 3), with the camera's noise.

    frames: the window's source frames, uint8 (H, W, 3), seen through `response`. effective_frames: how many frames'
    noise went into one pixel of `linear`, so that 1 / effective_frames of the variance is left in it. camera: the
    response that encodes, where it is another than the source's.

    Returns uint8 (H, W, 3) codes, and what was drawn, for the sample's JSON.
    """
    camera = camera or response
    if noise is None:
        return camera.encode(linear), None
    if noise.kind == "restore":
        a, b = estimate_noise(frames, response)
        least = noise.least
        if least is not None and np.mean(a * GREY + b) < least.b1 * GREY + least.b2**2:
            noisy, meta = _raw(linear, least, rng, detail=True)
        else:
            noisy, meta = _restore(linear, a, b, noise.level, rng, effective_frames)
    else:
        noisy, meta = _raw(linear, noise, rng, detail=noise.kind == "iso")
    return camera.encode(noisy), meta


def _raw(
    linear: np.ndarray, noise: NoiseModel, rng: np.random.Generator, detail: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    low, high = SPREAD if noise.spread else (1.0, 1.0)
    b1, b2 = noise.b1 * rng.uniform(low, high), noise.b2 * rng.uniform(low, high)
    if noise.kind == "iso":
        gain = math.exp(rng.uniform(math.log(ISO_GAIN[0]), math.log(ISO_GAIN[1])))
        b1, b2 = b1 * gain, b2 * math.sqrt(gain)
    red, blue = rng.uniform(*RED_GAIN), rng.uniform(*BLUE_GAIN)
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    clipped = np.clip(linear, 0, 1)
    noisy = raw_noise(clipped, b1, b2, red, blue, pattern, rng, detail)
    np.copyto(noisy, 1, where=clipped >= 1)
    meta = {"kind": noise.kind, "b1": b1, "b2": b2, "red_gain": red, "blue_gain": blue, "pattern": pattern}
    return noisy, meta


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


def _restore(
    linear: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    level: float,
    rng: np.random.Generator,
    effective_frames: float,
) -> tuple[np.ndarray, dict[str, Any]]:
    left = 1 / max(effective_frames, 1.0)
    missing = max(level * level - left, 0.0)
    normal = rng.standard_normal(linear.shape, dtype=np.float32)
    noisy = _add_normal(
        np.ascontiguousarray(linear, np.float32),
        normal,
        (a * missing).astype(np.float32),
        (b * missing).astype(np.float32),
    )
    meta = {
        "kind": "restore",
        "a": [float(f"{v:.6g}") for v in a],
        "b": [float(f"{v:.6g}") for v in b],
        "level": level,
        "left": round(left, 6),
    }
    return noisy, meta


@njit(cache=True, error_model="numpy")
def _add_normal(linear, normal, a, b):
    """linear + sqrt(a * linear + b) * normal, channel by channel; light at white or above stays (a sensor clips there)."""
    h, w = linear.shape[0], linear.shape[1]
    out = np.empty((h, w, 3), np.float32)
    for y in range(h):
        for x in range(w):
            for c in range(3):
                v = linear[y, x, c]
                if v < np.float32(1):
                    v += np.sqrt(a[c] * max(v, np.float32(0)) + b[c]) * normal[y, x, c]
                out[y, x, c] = v
    return out
