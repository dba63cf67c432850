"""Light above white: what a clipped source pixel had, and a blurred streak shows.

A source sample at code 255 has lost its energy, so its streak comes out grey where a camera's is white. The exposure
is linear in the frames, so giving those samples their light back before integration carries it through the same
interpolation, at no cost. Light is in units of white: a lamp six times as bright as white has 5 above white.

- ``rsblur`` (Rim et al., ECCV 2022): B += alpha * M, with M the mean over sub-frames of [sample is clipped] and
  alpha ~ U(0.25, 1.75) per sample.
- ``A`` or ``LO-HI``: A above white at the core of every clipped area, and RIM * A at its rim, whose pixels the light
  covers only in part. Where a pixel's brightest channel below white has light m, its clipped channels get (1 - m) of
  that: a red lamp keeps its colour, and a sky whose green just misses white does not turn magenta.
- ``auto``: the same, with A drawn log-uniformly from AUTO, for small bright blobs only (lamps, glints): large white
  areas, sky, and specks within them keep their value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

RSBLUR_ALPHA = (0.25, 1.75)
"""RSBlur's range of alpha, in units of white."""

AUTO = (1.0, 8.0)
"""Range of `auto`'s strength, in units of white: how far a lamp is above white is lost, so samples differ in it."""

RIM = 0.3
"""Share of a light's excess at the outermost clipped pixels.

On six scenes with lights of known energy, exposures made with RIM = 1, 0.5, 0.4, 0.3, 0.2 scored 38.0, 42.5, 43.3,
43.7, 43.6 dB, and had 1.64, 1.18, 1.09, 1.01, 0.93 times the truth's blown pixels.
"""

BLOB_HEIGHT = 1 / 12
"""Longest side of a blob that `auto` takes for a light, as a share of the picture's shorter side; its area: a quarter
of the square."""
SURROUND = 1 / 8
"""Side of the square around a blob, as a share of the picture's shorter side, that must not be bright itself."""
BRIGHT_CODE = 230
BRIGHT_SHARE = 0.25
"""A blob is not a light where more than this share of its surround has a channel of at least BRIGHT_CODE."""

CLIFF = 0.5
"""Least share of the fall from white to the surround that must lie at the first pixel outside a blob: 0.6 to 1 for
lamps six times white, 0.2 to 0.35 for photographed white patches that just reach 255, in the same scenes."""

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
SQUARE = np.ones((3, 3), np.uint8)
LIGHT_OF_CODE = (np.arange(256) / 255) ** 2.2
"""Near enough to any response curve to compare a blob with its surround."""


@dataclass(frozen=True)
class Highlights:
    """kind; lo, hi: range of the light above white, in units of white."""

    kind: Literal["off", "rsblur", "range", "auto"]
    lo: float = 0.0
    hi: float = 0.0

    def draw(self, u: float) -> float:
        """Light above white of one sample, from a uniform draw u in [0, 1); 0 when off."""
        if self.kind == "auto":
            return math.exp(math.log(self.lo) + u * math.log(self.hi / self.lo))
        return self.lo + u * (self.hi - self.lo)

    def excess(self, rgb: np.ndarray, alpha: float) -> float | np.ndarray:
        """Light that the frame's samples had above white, for `Response.decode`.

        rgb: uint8 (H, W, 3). Returns a float where all samples at code 255 get the same, 0 where there is nothing to
        restore, else float32 (H, W, 3) that is zero wherever the code is below 255.
        """
        if not alpha or self.kind == "off":
            return 0.0
        if self.kind == "rsblur":
            return alpha
        mask = cv2.threshold(rgb, 254, 1, cv2.THRESH_BINARY)[1]
        if not cv2.hasNonZero(mask.reshape(len(mask), -1)):
            return 0.0
        if self.kind == "auto":
            lights = find_lights(rgb)
            if not cv2.hasNonZero(lights):
                return 0.0
            mask = cv2.bitwise_and(mask, mask, mask=lights)
        core = cv2.erode(mask, CROSS, borderType=cv2.BORDER_REPLICATE)
        found = cv2.addWeighted(mask, RIM * alpha, core, (1 - RIM) * alpha, 0, dtype=cv2.CV_32F)
        red, green, blue = cv2.split(mask)
        most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
        y, x = np.nonzero(cv2.compare(most, least, cv2.CMP_GT))  # a channel is clipped and another is not
        if len(x):
            below = np.where(mask[y, x] == 0, rgb[y, x], 0).max(axis=1)
            found[y, x] *= (1 - LIGHT_OF_CODE[below]).astype(np.float32)[:, None]
        return found


def parse_highlights(text: str) -> Highlights:
    """'off', 'rsblur', 'auto', 'A' or 'LO-HI' (light above white). Raises ValueError."""
    if text == "off":
        return Highlights("off")
    if text == "rsblur":
        return Highlights("rsblur", *RSBLUR_ALPHA)
    if text == "auto":
        return Highlights("auto", *AUTO)
    try:
        parts = [float(p) for p in text.split("-")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not 0 <= parts[0] <= parts[-1] <= 100:
        raise ValueError("must be off, rsblur, auto, A or LO-HI (light above white, 0 to 100)")
    return Highlights("range", parts[0], parts[-1])


def find_lights(rgb: np.ndarray) -> np.ndarray:
    """Where small bright blobs are clipped: uint8 (H, W), 1 or 0, of an RGB uint8 (H, W, 3) frame."""
    red, green, blue = cv2.split(rgb)
    peak = cv2.max(cv2.max(red, green), blue)
    clipped = cv2.threshold(peak, 254, 1, cv2.THRESH_BINARY)[1]
    lights = np.zeros_like(clipped)
    y, x = np.nonzero(clipped)
    if not len(x):
        return lights
    side = min(rgb.shape[:2])
    longest = max(4.0, BLOB_HEIGHT * side)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(clipped, connectivity=8)
    window = max(9, round(SURROUND * side)) | 1
    bright = cv2.threshold(peak, BRIGHT_CODE - 1, 1, cv2.THRESH_BINARY)[1]
    share = cv2.blur(bright.astype(np.float32), (window, window), borderType=cv2.BORDER_REFLECT_101)
    cx, cy = np.rint(centres).astype(int).T
    keep = (stats[:, cv2.CC_STAT_WIDTH] <= longest) & (stats[:, cv2.CC_STAT_HEIGHT] <= longest)
    keep &= (stats[:, cv2.CC_STAT_AREA] <= longest**2 / 4) & (share[cy, cx] <= BRIGHT_SHARE)
    keep[0] = False
    of = labels[y, x]
    x, y, of = (v[keep[of]] for v in (x, y, of))
    stays = _cliff(peak, x, y, of, count)[of] >= CLIFF
    lights[y[stays], x[stays]] = 1
    return lights


def _cliff(peak: np.ndarray, x: np.ndarray, y: np.ndarray, blob: np.ndarray, count: int) -> np.ndarray:
    """Share of each blob's fall from white to its surround that its first pixel outside takes; (count,) 0..1.

    A lamp's soft edge is clipped along with it, so what is left of the fall comes at once; a patch that peaks near
    white falls off as slowly as the lens makes it. x, y, blob: the blobs' pixels.
    """
    inside = np.zeros(peak.shape, np.float32)
    inside[y, x] = blob
    near = cv2.dilate(inside, SQUARE)
    far = cv2.dilate(near, SQUARE)
    rings = []
    for outer, inner in ((near, inside), (far, near)):
        ring = np.flatnonzero(cv2.compare(outer, inner, cv2.CMP_GT).ravel())
        of = outer.ravel()[ring].astype(np.int64)
        light = np.bincount(of, LIGHT_OF_CODE[peak.ravel()[ring]], count)
        rings.append(light / np.maximum(np.bincount(of, minlength=count), 1))
    return (1 - rings[0]) / np.maximum(1 - np.minimum(*rings), 1e-6)
