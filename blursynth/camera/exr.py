"""EXR files: whether every part of the picture is there, and the primaries that its light counts in.

FFmpeg, which decodes them, leaves black what it cannot read and says nothing, and takes all light for BT.709.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from blursynth.camera.hdr import BT709, adapted_to_bt709
from blursynth.png.chunks import MAX_PIXELS

MAGIC = b"\x76\x2f\x31\x01"
TILED, DEEP, PARTS = 0x200, 0x800, 0x1000
"""Bits of the version field."""
ROWS = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256)
"""Rows of a chunk by compression: none, RLE, ZIPS, ZIP, PIZ, PXR24, B44, B44A, DWAA, DWAB."""
ZIPPED = (2, 3)

Attributes = dict[str, bytes]


def is_whole_exr(data: bytes) -> bool:
    """Whether FFmpeg decodes an EXR file's picture as it was written: each chunk of its rows or tiles lies where the table
    says, and what is zipped has its checksum and unpacks to its share of the picture.

    False also for what FFmpeg gets wrong: light stored as luminance and chroma, a display window that begins elsewhere
    than at 0; and for more than MAX_PIXELS. No header makes it take memory: a file that claims much has to hold much.
    """
    try:
        (version,) = struct.unpack_from("<4xi", data)
        if data[:4] != MAGIC or version & DEEP:
            return False
        head, at = _attributes(data, 8)
        more = bool(version & PARTS)
        while more:  # the tables of all parts stand behind the last header
            more = data[at] != 0
            at = _attributes(data, at)[1] if more else at + 1
        names = {name for name, _ in _channels(head["channels"])}
        if struct.unpack_from("<2i", head["displayWindow"]) != (0, 0) or names >= {"RY", "BY"}:
            return False
        return all(_chunks(data, at, head, tiled="tiles" in head, parts=bool(version & PARTS)))
    except (struct.error, KeyError, ValueError, IndexError, ZeroDivisionError):
        return False


def exr_to_bt709(data: bytes) -> np.ndarray | None:
    """(3, 3) float32 matrix from an EXR file's linear RGB to linear BT.709; None where it is BT.709 or says nothing that
    can be meant."""
    try:
        xy = struct.unpack("<8f", _attributes(data, 8)[0]["chromaticities"])
        if not np.isfinite(xy).all() or not all(xy[1::2]) or np.allclose(xy, BT709, atol=5e-4):
            return None
        return adapted_to_bt709(xy)
    except (struct.error, KeyError, ValueError, IndexError):  # LinAlgError is a ValueError
        return None


def _attributes(data: bytes, at: int) -> tuple[Attributes, int]:
    """The attributes of a header, and where it ends. Raises ValueError, IndexError or struct.error."""
    found: Attributes = {}
    while data[at]:
        name_end = data.index(b"\0", at)
        kind_end = data.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<I", data, kind_end + 1)
        start = kind_end + 5
        found[data[at:name_end].decode("latin-1")] = data[start : start + size]
        at = start + size
    return found, at + 1


def _channels(data: bytes) -> Iterator[tuple[str, int]]:
    """Names of the channels, and bytes of a pixel in each."""
    at = 0
    while data[at]:
        end = data.index(b"\0", at)
        (kind,) = struct.unpack_from("<i", data, end + 1)
        yield data[at:end].decode("latin-1"), 2 if kind == 1 else 4
        at = end + 17


def _chunks(data: bytes, table: int, head: Attributes, tiled: bool, parts: bool) -> Iterator[bool]:
    """Of each chunk that the picture needs, whether it is there."""
    left, top, right, bottom = struct.unpack("<4i", head["dataWindow"])
    width, height, compression = right - left + 1, bottom - top + 1, head["compression"][0]
    yield width > 0 and height > 0 and width * height <= MAX_PIXELS
    across, down = struct.unpack_from("<2I", head["tiles"]) if tiled else (width, ROWS[compression])
    columns, lines = -(-width // across), -(-height // down)
    end = table + 8 * columns * lines
    yield end <= len(data)
    pixel = sum(size for _, size in _channels(head["channels"]))
    for n, (at,) in enumerate(struct.iter_unpack("<Q", data[table:end])):
        y, x = divmod(n, columns)
        place = (x, y, 0, 0) if tiled else (top + y * down,)
        *found, size = struct.unpack_from(f"<{len(place)}iI", data, at + 4 * parts)
        start = at + 4 * (parts + len(place) + 1)
        yield tuple(found) == place and 0 < size <= len(data) - start
        if compression in ZIPPED:
            plain = min(across, width - x * across) * min(down, height - y * down) * pixel
            yield size == plain or _unpacks(data[start : start + size], plain)


def _unpacks(packed: bytes, size: int) -> bool:
    """Whether it is sound and of this size, unpacked. No more than that is unpacked."""
    stream = zlib.decompressobj()
    try:
        return len(stream.decompress(packed, size + 1)) == size and stream.eof
    except zlib.error:
        return False
