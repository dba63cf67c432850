"""What a JPEG file says of its camera: quality and colour subsampling from its tables, exposure time from its EXIF."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

# ITU-T T.81 (JPEG), table K.1: the luminance table that libjpeg scales by quality; here row by row.
LUMINANCE = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
     51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
     120, 101, 72, 92, 95, 98, 112, 100, 103, 99],
)  # fmt: skip
_EXIF_IFD, _EXPOSURE_TIME, _RATIONAL = 0x8769, 0x829A, 5


@dataclass(frozen=True)
class PhotoFacts:
    """quality: 1 to 100 on libjpeg's scale; subsampling: "4:2:0" and the like; exposure_s: seconds. None: not said."""

    quality: int | None = None
    subsampling: str | None = None
    exposure_s: float | None = None


def photo_facts(data: bytes) -> PhotoFacts:
    """Facts of a file's bytes; all None for what is no JPEG. Never raises for damaged files."""
    quality = subsampling = exposure = None
    for marker, part in _segments(data):
        if marker == 0xDB and quality is None:
            quality = _quality(part)
        elif marker in (0xC0, 0xC1, 0xC2) and subsampling is None:
            subsampling = _subsampling(part)
        elif marker == 0xE1 and part.startswith(b"Exif\0\0") and exposure is None:
            exposure = _exposure(part[6:])
    return PhotoFacts(quality, subsampling, exposure)


def scaled_table(quality: int) -> np.ndarray:
    """(64,) luminance table of libjpeg at a quality of 1 to 100, row by row."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((LUMINANCE * scale + 50) // 100, 1, 255)


def _segments(data: bytes):  # type: ignore[no-untyped-def]
    """(marker, content) of a JPEG's segments up to its picture data."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA or size < 2:
            return
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def _quality(part: bytes) -> int | None:
    """Quality whose table is nearest to table 0 of a DQT segment. The order of the coefficients does not matter to the
    mean of their logarithms, and cameras' own tables have the nearest one by strength."""
    wide = part[0] >> 4 if part else 0
    if not part or part[0] & 15 or len(part) < 1 + 64 * (1 + wide):
        return None
    table = np.frombuffer(part[1 : 1 + 64 * (1 + wide)], ">u2" if wide else "u1").astype(float)
    if table.min() < 1:
        return None
    seen = np.sort(np.log(table))
    errors = [np.abs(seen - np.sort(np.log(scaled_table(q)))).mean() for q in range(1, 101)]
    return 1 + int(np.argmin(errors))


def _subsampling(part: bytes) -> str | None:
    if len(part) < 6 or len(part) < 6 + 3 * part[5]:
        return None
    if part[5] < 3:
        return "grey"
    factors = [(part[6 + 3 * i + 1] >> 4, part[6 + 3 * i + 1] & 15) for i in range(3)]
    (h, v), (ch, cv) = factors[0], factors[1]
    known = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    return known.get((h // max(ch, 1), v // max(cv, 1)))


def _exposure(tiff: bytes) -> float | None:
    """ExposureTime, in seconds, of the TIFF structure in an EXIF segment."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None

    def entry(directory: int, wanted: int) -> tuple[int, int] | None:
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * i)
            if tag == wanted:
                return kind, value
        return None

    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        link = entry(first, _EXIF_IFD)
        found = entry(link[1], _EXPOSURE_TIME) if link else None
        if found is None or found[0] != _RATIONAL:
            return None
        top, bottom = struct.unpack_from(order + "II", tiff, found[1])
    except struct.error:
        return None
    return top / bottom if top and bottom else None
