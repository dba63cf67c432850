"""Camera noise on the integrated light.

Averaging many frames, and interpolating between them, takes away the noise that a camera's one long exposure has.
RSBlur (Rim et al., ECCV 2022) measured what that costs: a network trained on noise-free synthetic blur is 1.6 dB worse
on real blur. All figures here are in linear light, white = 1.

- ``rsblur``, ``realblur``, ``B1,B2``: Poisson-Gauss noise b1 * Poisson(x / b1) + N(0, b2) in a Bayer RAW domain, then
  demosaicing. b2 is a standard deviation: RSBlur's code multiplies a standard normal draw by it
  (github.com/rimchang/RSBlur, Uformer-RSBlur/ISP/utils.py, add_Poisson_noise_random). From the same code
  (dataset/dataset_RealisticDeblur.py): the gains, one of the four Bayer patterns at random, white balance before
  demosaicing, and no noise where the light is at white.
- ``rgb:B1,B2``: variance b1 x + b2^2 in each channel of linear RGB, no mosaic: what `blursynth match` measures.
- ``restore``, ``restore:LEVEL``: the noise of the source and what is left of it in the exposure are measured
  (noise_estimate.py); what is missing is put back, of the same grain, to LEVEL times the standard deviation of one source
  frame; LEVEL is 1 where not given. How much averaging leaves depends on motion and codec, so it is not computed.
- ``iso``: the same at a gain drawn per sample, for a data set that serves cameras from low to high sensitivity.
- ``restore+rsblur``, ``restore+realblur``, ``restore+iso``: `restore`, or that camera's noise where
  its variance in RGB, at a mid grey, is more than the source's: codecs remove noise, so that there is often nothing left in a video to measure.

With ``iso`` and after ``restore+`` only the noise is demosaiced. The frames went through a mosaic in their own camera; a
second one takes detail from the blurred picture that its sharp target keeps, and a network learns to draw that into
every picture (benchmarks/RESULTS.md: 0.2 dB on REDS). The other cameras do as the published code does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np

from blursynth.camera.bayer import PATTERNS, Pattern, demosaic, gains_map, mosaic, srgb_to_camera
from blursynth.camera.noise_estimate import (
    BLOCK,
    CENTRES,
    COUNTS,
    RINGS,
    Noise,
    estimate_noise,
    measure_noise,
    shown_power,
)
from blursynth.camera.response import CameraError, Response
from blursynth.common.compiled import compiled

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
LIGHTS = np.array([0.1, 0.2, 0.4])
"""Light at which what is left of a source's noise is held against what there was."""
KERNEL = 11
"""Side of the filter that gives noise its grain."""
SHARPENINGS = 4
"""Times that what is asked of that filter is held against what it shows; four leave 5% of a demosaicing's grain, where none left 30%."""

POISSON_BELOW = 50
"""Counts from which the normal distribution of equal variance stands for Poisson's: at 50 its skewness is 0.14."""


@dataclass(frozen=True)
class NoiseModel:
    """kind: what a setting asks for; b1, b2: RAW noise; spread: whether both are varied per sample; level: see
    `restore`; least: camera whose noise stands in where the source has less."""

    kind: Literal["rsblur", "realblur", "iso", "raw", "rgb", "restore"]
    b1: float = 0.0
    b2: float = 0.0
    spread: bool = False
    level: float = 1.0
    least: NoiseModel | None = None


def parse_noise(text: str) -> NoiseModel | None:
    """off, a CAMERA (rsblur, realblur, iso), B1,B2, rgb:B1,B2, restore, restore:LEVEL or restore+CAMERA. Raises CameraError."""
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
            rgb = text.startswith("rgb:")
            b1, b2 = (float(b) for b in text.removeprefix("rgb:").split(","))
            if (b1 >= 0 if rgb else b1 > 0) and b1 <= 0.1 and 0 <= b2 <= 0.1:
                return NoiseModel("rgb" if rgb else "raw", b1, b2)
    except ValueError:
        pass
    raise CameraError(
        f"noise {text!r} is not off, rsblur, realblur, iso, B1,B2 or rgb:B1,B2 (0 to 0.1), restore, restore:LEVEL (0 to 10), "
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
    if noise.kind == "rgb":
        normal = rng.standard_normal(linear.shape, dtype=np.float32)
        noisy = _add_normal(linear, normal, np.full(3, noise.b1), np.full(3, noise.b2**2))
        return camera.encode(noisy), {"kind": "rgb", "b1": noise.b1, "b2": noise.b2}
    if noise.kind != "restore":
        return _photographed(linear, _draw_camera(noise, rng), rng, camera, detail=noise.kind == "iso")
    source = estimate_noise(frames, response)
    if noise.least is not None:
        drawn = _draw_camera(noise.least, rng)
        if np.mean(source.variance(GREY)) < np.mean(camera_variance(drawn["b1"], drawn["b2"], GREY)):
            return _photographed(linear, drawn, rng, camera, detail=True)
    noisy, meta = _restore(linear, source, noise.level, rng, effective_frames, response)
    return camera.encode(noisy), meta


def _draw_camera(noise: NoiseModel, rng: np.random.Generator) -> dict[str, Any]:
    """One camera of the model: what `raw_noise` needs, for the sample's JSON."""
    low, high = SPREAD if noise.spread else (1.0, 1.0)
    b1, b2 = noise.b1 * rng.uniform(low, high), noise.b2 * rng.uniform(low, high)
    if noise.kind == "iso":
        gain = math.exp(rng.uniform(math.log(ISO_GAIN[0]), math.log(ISO_GAIN[1])))
        b1, b2 = b1 * gain, b2 * math.sqrt(gain)
    red, blue = rng.uniform(*RED_GAIN), rng.uniform(*BLUE_GAIN)
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    return {"kind": noise.kind, "b1": b1, "b2": b2, "red_gain": red, "blue_gain": blue, "pattern": pattern}


def _photographed(
    linear: np.ndarray, drawn: dict[str, Any], rng: np.random.Generator, camera: Response, detail: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    clipped = np.clip(linear, 0, 1)
    b1, b2, red, blue, pattern = (drawn[k] for k in ("b1", "b2", "red_gain", "blue_gain", "pattern"))
    noisy = raw_noise(clipped, b1, b2, red, blue, pattern, rng, detail)
    np.copyto(noisy, 1, where=clipped >= 1)
    return camera.encode(noisy), drawn


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


def _restore(
    linear: np.ndarray,
    source: Noise,
    level: float,
    rng: np.random.Generator,
    effective_frames: float,
    response: Response,
) -> tuple[np.ndarray, dict[str, Any]]:
    linear = np.ascontiguousarray(linear, np.float32)
    there = np.array([source.variance(x) for x in LIGHTS]).mean(0)
    remains = measure_noise([linear], response.light[1], response.light[254])
    left = np.array([remains.variance(x) for x in LIGHTS]).mean(0)
    # Where nothing could be measured: frames' noise that averages.
    share = np.where(
        (there > 0) & (left > 0), left / np.maximum(there, 1e-12), 1 / max(effective_frames, 1.0)
    )
    missing = np.maximum(level * level * source.grain - share[:, None] * remains.grain, 0.0)
    power = missing @ COUNTS / COUNTS.sum()
    normal = _grained(rng.standard_normal(linear.shape, dtype=np.float32), missing)
    noisy = _add_normal(linear, normal, source.a * power, source.b * power)
    meta = {
        "kind": "restore",
        "a": [float(f"{v:.6g}") for v in source.a],
        "b": [float(f"{v:.6g}") for v in source.b],
        "grain": [[round(float(v), 3) for v in ring] for ring in source.grain],
        "level": level,
        "left": round(float(share.mean()), 6),
    }
    return noisy, meta


def _grained(white: np.ndarray, power: np.ndarray) -> np.ndarray:
    """White noise, float32 (H, W, 3), with these powers by frequency, (3, RINGS); its variance stays 1."""
    out = np.empty_like(white)
    for c in range(3):
        spread = power[c].max() - power[c].min()
        plain = spread <= 0.15 * power[c].max()
        out[..., c] = white[..., c] if plain else cv2.filter2D(white[..., c], -1, _kernel(power[c]))
    return out


def _kernel(power: np.ndarray) -> np.ndarray:
    """float32 (KERNEL, KERNEL) filter of zero phase, sum of squares 1, whose noise shows these powers, (RINGS,), to
    noise_estimate.py: a short filter and short blocks each smooth a spectrum, so what is asked of the filter is sharper."""
    wanted = power / (power @ COUNTS / COUNTS.sum())
    asked = wanted
    for _ in range(SHARPENINGS):
        asked = asked * np.clip(wanted / np.maximum(shown_power(_filter(asked)), 1e-6), 0.5, 2)
        asked[0] = asked[1] * wanted[0] / max(wanted[1], 1e-6)  # nobody measures the first: the picture's own
    return _filter(asked).astype(np.float32)


def _filter(power: np.ndarray) -> np.ndarray:
    """A filter, as `_kernel`'s, whose response has these powers, but for what it loses by being short."""
    size = 4 * BLOCK
    f = np.fft.fftfreq(size) * 2 * BLOCK  # units of pi / BLOCK
    radius = np.hypot(f[:, None], f[None])
    amplitude = np.sqrt(np.interp(radius, CENTRES[:RINGS], power))
    kernel = np.fft.fftshift(np.fft.ifft2(amplitude).real)
    at = slice(size // 2 - KERNEL // 2, size // 2 + KERNEL // 2 + 1)
    kernel = kernel[at, at]
    return kernel / np.sqrt((kernel**2).sum())


def _add_normal(linear: np.ndarray, normal: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """linear + sqrt(a * linear + b) * normal, (H, W, 3), channel by channel; light at white or above stays (a sensor
    clips there). Raises ValueError for arrays of other shapes: the compiled loop trusts them."""
    if (
        linear.ndim != 3
        or linear.shape[2] != 3
        or normal.shape != linear.shape
        or a.shape != (3,)
        or b.shape != (3,)
    ):
        raise ValueError(
            f"noise needs light and normal numbers (H, W, 3), a and b (3,), got {linear.shape}, {normal.shape}, "
            f"{a.shape}, {b.shape}"
        )
    return _add(linear, normal, a, b)


@compiled
def _add(linear, normal, a, b):
    h, w = linear.shape[0], linear.shape[1]
    out = np.empty((h, w, 3), np.float32)
    for y in range(h):
        for x in range(w):
            for c in range(3):
                v = linear[y, x, c]
                if v < np.float32(1):
                    v += np.float32(np.sqrt(a[c] * max(v, np.float32(0)) + b[c])) * normal[y, x, c]
                out[y, x, c] = v
    return out
