"""A camera's RAW domain: colour matrix, white balance, Bayer mosaic, Malvar-He-Cutler demosaicing.

All of it is linear in the light, float32. Patterns name the colours of the top left 2 x 2 pixels, row by row.
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

Pattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)

SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to CIE XYZ, D65 (IEC 61966-2-1)."""

XYZ_TO_A7R3 = (
    np.array([[6640, -1847, -503], [-5238, 13010, 2474], [-993, 1673, 6527]], dtype=np.float64) / 10000
)
"""CIE XYZ to the RAW colours of Sony's A7R III (ILCE-7RM3), RealBlur's and RSBlur's camera: its D65 colour matrix in
Adobe's DNG converter, as LibRaw and dcraw list it."""


def srgb_to_camera() -> np.ndarray:
    """float64 (3, 3): linear sRGB to white-balanced camera RGB; rows sum to 1, so that white stays white."""
    m = XYZ_TO_A7R3 @ SRGB_TO_XYZ
    return m / m.sum(axis=1, keepdims=True)


# Malvar, He, Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004,
# figure 2; all over 8.
_GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], np.float32
)
_ROW = np.array(  # red at green in a red row, blue at green in a blue row
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
    np.float32,
)
_CROSS = np.array(  # red at blue, blue at red
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]],
    np.float32,
)


def _sites(pattern: Pattern) -> dict[str, list[tuple[int, int]]]:
    """Colour -> (row, column) of its pixels in the 2 x 2 cell."""
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    return {c: [at for at, name in zip(cells, pattern) if name == c] for c in "RGB"}


def mosaic(rgb: np.ndarray, pattern: Pattern = "RGGB") -> np.ndarray:
    """float32 (H, W, 3) -> (H, W): the one colour each pixel of the sensor sees."""
    raw = np.empty(rgb.shape[:2], rgb.dtype)
    for channel, colour in enumerate("RGB"):
        for y, x in _sites(pattern)[colour]:
            raw[y::2, x::2] = rgb[y::2, x::2, channel]
    return raw


def demosaic(raw: np.ndarray, pattern: Pattern = "RGGB") -> np.ndarray:
    """float32 (H, W) mosaic, at least 3 x 3 -> float32 (H, W, 3), by Malvar, He and Cutler's gradient-corrected
    linear interpolation. The border mirrors without repeating its pixels, which keeps the colours' order."""

    def filtered(kernel: np.ndarray) -> np.ndarray:
        return cv2.filter2D(raw, cv2.CV_32F, kernel / 8, borderType=cv2.BORDER_REFLECT_101)

    green, row, column, cross = (filtered(k) for k in (_GREEN, _ROW, np.ascontiguousarray(_ROW.T), _CROSS))
    out = np.empty((*raw.shape, 3), np.float32)
    sites = _sites(pattern)
    for y, x in sites["G"]:
        at = np.s_[y::2, x::2]
        red_row = any(ry == y for ry, _ in sites["R"])
        out[..., 1][at] = raw[at]
        out[..., 0][at] = (row if red_row else column)[at]
        out[..., 2][at] = (column if red_row else row)[at]
    for own, other, colour in ((0, 2, "R"), (2, 0, "B")):
        at = np.s_[sites[colour][0][0] :: 2, sites[colour][0][1] :: 2]
        out[..., own][at] = raw[at]
        out[..., 1][at] = green[at]
        out[..., other][at] = cross[at]
    return out


def gains_map(shape: tuple[int, int], pattern: Pattern, red: float, blue: float) -> np.ndarray:
    """float32 (H, W) white balance of each pixel of a mosaic; green's gain is 1."""
    gains = np.ones(shape, np.float32)
    for colour, gain in (("R", red), ("B", blue)):
        for y, x in _sites(pattern)[colour]:
            gains[y::2, x::2] = gain
    return gains
