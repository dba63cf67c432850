"""What ``match`` measures in a set of pictures: noise, JPEG, clipping, exposure; as lines, a table and a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from blursynth.camera.noise_estimate import Noise, estimate_noise
from blursynth.camera.response import load_response
from blursynth.common.errors import UsageError
from blursynth.exchange.photo_file import PhotoFacts

LIGHTS = np.array([0.05, 0.2, 0.6])
"""Light, white = 1, at which noise is told and compared."""


@dataclass(frozen=True)
class Statistics:
    """Of a set of pictures. deviation: noise in linear light at LIGHTS, mean of RGB; coarse: power of the grain at low
    over that at high frequencies, 1 for white noise; clipped: share of pixels with a channel at 255."""

    pictures: int
    deviation: np.ndarray
    coarse: float
    clipped: float
    quality: tuple[int, int] | None
    subsampling: str | None
    exposure_ms: tuple[float, float, float] | None


def measure(pictures: Sequence[tuple[np.ndarray, PhotoFacts]]) -> tuple[Statistics, Noise]:
    """Statistics, and the noise that is the median over the pictures."""
    srgb = load_response("srgb")
    found = [n for n in (estimate_noise([rgb], srgb) for rgb, _ in pictures) if n.variance(0.2).any()]
    if not found:
        raise UsageError(
            "no picture has areas flat enough to measure noise in; give larger ones, not scaled down"
        )
    noise = Noise(*(np.median([getattr(n, k) for n in found], axis=0) for k in ("a", "b", "grain")))
    facts = [f for _, f in pictures]
    qualities = [f.quality for f in facts if f.quality]
    kinds = Counter(f.subsampling for f in facts if f.subsampling)
    times = [1000 * f.exposure_s for f in facts if f.exposure_s]
    statistics = Statistics(
        pictures=len(pictures),
        deviation=_deviation(noise, LIGHTS),
        coarse=float(noise.grain[:, 1:3].mean() / max(noise.grain[:, -2:].mean(), 1e-3)),
        clipped=float(np.mean([(rgb == 255).any(2).mean() for rgb, _ in pictures])),
        quality=(min(qualities), max(qualities)) if qualities else None,
        subsampling=kinds.most_common(1)[0][0] if kinds else None,
        exposure_ms=(min(times), float(np.median(times)), max(times)) if times else None,
    )
    return statistics, noise


def _deviation(noise: Noise, lights: np.ndarray) -> np.ndarray:
    """Of the noise at these lights, white = 1, mean of RGB."""
    return np.array([np.sqrt(noise.variance(x).mean()) for x in lights])


def describe(s: Statistics, b1: float, b2: float) -> list[str]:
    percent = ", ".join(f"{100 * d:.2f}% at {100 * x:g}%" for x, d in zip(LIGHTS, s.deviation, strict=True))
    lines = [
        f"noise: variance {b1:g} x + {b2:g}^2 in linear RGB before the JPEG; in the photos {percent} light",
        f"grain: {s.coarse:.1f} times the power at low frequencies as at high ones (white noise: 1)",
        f"clipped: {100 * s.clipped:.2f}% of the pixels have a channel at 255",
    ]
    if s.quality:
        lines.append(
            f"JPEG: quality {s.quality[0]} to {s.quality[1]}, {s.subsampling or 'subsampling not known'}"
        )
    if s.exposure_ms:
        low, middle, high = s.exposure_ms
        lines.append(f"exposure: {low:.3g} to {high:.3g} ms, median {middle:.3g} ms (EXIF)")
    return lines


def distances(a: Statistics, b: Statistics) -> list[str]:
    """The distance between two sets, statistic by statistic."""
    rows: list[tuple[str, ...]] = [("", "photos", "made", "distance")]
    for x, p, q in zip(LIGHTS, a.deviation, b.deviation, strict=True):
        rows.append(
            (
                f"noise at {100 * x:g}% light, %",
                f"{100 * p:.3f}",
                f"{100 * q:.3f}",
                f"x{q / max(p, 1e-9):.2f}",
            )
        )
    rows.append(("grain, low over high", f"{a.coarse:.2f}", f"{b.coarse:.2f}", f"x{b.coarse / a.coarse:.2f}"))
    clipped = (100 * a.clipped, 100 * b.clipped)
    rows.append(("clipped, %", *(f"{v:.2f}" for v in clipped), f"{clipped[1] - clipped[0]:+.2f}"))
    p, q = ([sum(s.quality) / 2] if s.quality else [] for s in (a, b))
    words = tuple(f"{v[0]:.0f}" if v else "none" for v in (p, q))
    rows.append(
        ("JPEG quality", *words, f"{q[0] - p[0]:+.0f}" if p and q else ("0" if p == q else "differs"))
    )
    wide = [max(len(r[i]) for r in rows) for i in range(4)]
    return [r[0].ljust(wide[0]) + "".join("  " + r[i].rjust(wide[i]) for i in (1, 2, 3)) for r in rows]


def chart(photos: Noise, made: Noise) -> bytes:
    """PNG: deviation of the noise over light, of the photos (black) and of the made set (red), 0 to 80% light."""
    h, w, left, bottom = 400, 600, 60, 40
    x = np.linspace(0.01, 0.8, 80)
    curves = [_deviation(n, x) for n in (photos, made)]
    top = 1.1 * max(float(c.max()) for c in curves) or 1.0
    image = np.full((h, w, 3), 255, np.uint8)
    cv2.rectangle(image, (left, 10), (w - 10, h - bottom), (160, 160, 160), 1)
    for curve, colour, name, row in zip(
        curves, ((0, 0, 0), (30, 30, 220)), ("photos", "made"), (30, 50), strict=True
    ):
        px = left + x / 0.8 * (w - 10 - left)
        py = h - bottom - curve / top * (h - bottom - 10)
        points = np.stack([px, py], 1).round().astype(np.int32)
        cv2.polylines(image, [points], False, colour, 2, cv2.LINE_AA)
        cv2.putText(image, name, (left + 10, row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    for text, at in (
        (f"{100 * top:.2f}%", (4, 22)), ("0", (44, h - bottom)), ("light 0", (left, h - 14)),
        ("80%", (w - 45, h - 14)), ("noise (deviation, linear light)", (230, h - 14)),
    ):  # fmt: skip
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA)
    return cv2.imencode(".png", image)[1].tobytes()
