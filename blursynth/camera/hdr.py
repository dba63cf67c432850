"""Film that holds more than SDR: its light out of PQ, HLG or linear codes, in BT.709, with white where SDR has it.

White is HDR reference white (ITU-R BT.2408-7): 203 cd/m2 in PQ, the signal 0.75 in HLG. PQ says what a display shows;
HLG what the camera saw (the inverse OETF; no display's OOTF is in it). Log footage carries no tag and is not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import cv2
import numpy as np

Transfer = Literal["srgb", "pq", "hlg", "linear"]
Gamut = Literal["bt709", "bt2020", "p3"]

WHITE_NITS = 203.0
HLG_WHITE = 0.75

_CHROMATICITIES: dict[Gamut, tuple[float, ...]] = {  # x, y of red, green, blue; white is D65
    "bt709": (0.640, 0.330, 0.300, 0.600, 0.150, 0.060),  # ITU-R BT.709-6
    "bt2020": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # ITU-R BT.2020-2
    "p3": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # SMPTE EG 432-1
}
_D65 = (0.3127, 0.3290)
BT709 = (*_CHROMATICITIES["bt709"], *_D65)
"""x, y of red, green, blue and white."""
# Bradford's cone responses (ICC.1:2022, annex E).
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def transfer_light(name: Transfer, code: np.ndarray) -> np.ndarray:
    """Linear light, in units of SDR white, of codes 0..1; float64, the shape of ``code``."""
    v = np.clip(np.asarray(code, np.float64), 0, 1)
    if name == "pq":  # SMPTE ST 2084, ITU-R BT.2100-2 table 4
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        p = v ** (1 / m2)
        return 10000 / WHITE_NITS * (np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1)
    if name == "hlg":
        return _hlg(v) / _hlg(np.array(HLG_WHITE))
    if name == "linear":
        return v
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1


def _hlg(v: np.ndarray) -> np.ndarray:
    """Inverse OETF, ITU-R BT.2100-2 table 5: scene light 0..1 of a signal 0..1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(v <= 0.5, v * v / 3, (np.exp((v - c) / a) + b) / 12)


@cache
def to_bt709(gamut: Gamut) -> np.ndarray:
    """(3, 3) float32 matrix from linear RGB of a gamut to linear BT.709."""
    return adapted_to_bt709((*_CHROMATICITIES[gamut], *_D65))


def adapted_to_bt709(xy: Sequence[float]) -> np.ndarray:
    """(3, 3) float32 matrix to linear BT.709 from linear RGB of x, y of red, green, blue and white; white stays white."""
    source, white = _to_xyz(xy)
    target, d65 = _to_xyz(BT709)
    if not np.allclose(white, d65):
        source = np.linalg.solve(_CONES, np.diag((_CONES @ d65) / (_CONES @ white)) @ _CONES) @ source
    return (np.linalg.inv(target) @ source).astype(np.float32)


def _to_xyz(xy: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) float64 (SMPTE RP 177): columns are the primaries, scaled so that their sum is white; and white, (3,)."""
    x, y = np.array(xy).reshape(4, 2).T
    columns = np.stack([x / y, np.ones(4), (1 - (x + y)) / y])
    primaries, white = columns[:, :3], columns[:, 3]
    return primaries * np.linalg.solve(primaries, white), white


@cache
def _table(name: Transfer) -> np.ndarray:
    """(65536,) float32: the light of every 16-bit code."""
    return transfer_light(name, np.arange(65536) / 65535).astype(np.float32)


def codes_to_light(codes: np.ndarray, transfer: Transfer, gamut: Gamut) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 full-range RGB codes -> float32 linear BT.709, in units of SDR white."""
    table = _table(transfer)
    if codes.dtype == np.uint8:
        table = table[::257]  # v / 255 = 257 v / 65535
    return light_to_bt709(table[codes], gamut)


def light_to_bt709(light: np.ndarray, gamut: Gamut) -> np.ndarray:
    """(H, W, 3) float32 linear RGB of a gamut in BT.709; colours outside it have negative parts."""
    return light if gamut == "bt709" else cv2.transform(light, to_bt709(gamut))


def split_at_white(light: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Linear light (H, W, 3) float32 -> sRGB codes, uint8, and the light above white, float16; None without any."""
    from blursynth.camera.response import load_response  # numba: SDR film, which is most, does without

    rgb = load_response("srgb").encode(light)
    if float(light.max(initial=0)) <= 1:
        return rgb, None
    return rgb, np.clip(light - 1, 0, np.finfo(np.float16).max).astype(np.float16)
