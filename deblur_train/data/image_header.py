"""The size of a picture out of its file's first bytes: known before a decoder takes memory for it.

The producer has a twin of this module: the two packages never import each other.
"""

from __future__ import annotations

import struct


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a PNG, WebP, JPEG or BMP claims; None for anything else or for no pixels.

    For PNG, WebP and BMP the first 40 bytes are enough; a JPEG says its size after its metadata.
    """
    try:
        w, h = _size(data)
    except (struct.error, IndexError, ValueError):
        return None
    return (w, h) if w > 0 and h > 0 else None


def _size(data: bytes) -> tuple[int, int]:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        w, h = struct.unpack_from(">II", data, 16)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        w, h = _webp(data)
    elif data[:2] == b"BM":
        w, h = struct.unpack_from("<ii", data, 18)
        h = abs(h)  # negative: stored from the top
    elif data[:2] == b"\xff\xd8":
        w, h = _jpeg(data)
    else:
        return 0, 0
    return w, h


def _webp(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8X":
        struct.unpack_from("<6x", data, 24)  # all there?
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8 ":
        w, h = struct.unpack_from("<HH", data, 26)
        return w & 0x3FFF, h & 0x3FFF
    return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    """From the frame header: the first marker C0 to CF that is not a table of codes (C4, C8, CC)."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            h, w = struct.unpack_from(">HH", data, at + 5)
            return w, h
        at += 2 + length
    return 0, 0
