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
from typing import Any, Literal

import numpy as np

from blursynth.camera.bayer import PATTERNS
from blursynth.camera.grain import grained
from blursynth.camera.noise_estimate import COUNTS, Noise, estimate_noise, measure_noise
from blursynth.camera.raw_noise import BLUE_GAIN, RED_GAIN, camera_variance, raw_noise
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

GREY = 0.18
"""Light at which a source's noise is held against a camera's."""
LIGHTS = np.array([0.1, 0.2, 0.4])
"""Light at which what is left of a source's noise is held against what there was."""


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
    normal = grained(rng.standard_normal(linear.shape, dtype=np.float32), missing)
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
