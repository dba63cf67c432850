"""The TIFF structure, which an EXIF block is too: its directory, how it turns a picture, and its profile."""

from __future__ import annotations

import struct
from collections.abc import Iterator

TIFF = (b"II*\0", b"MM\0*")
ORIENTATION, ICC_TAG = 0x0112, 34675


def order_of(tiff: bytes) -> str:
    """Its byte order as `struct` writes it. Raises KeyError for anything else."""
    return {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]


def _first(tiff: bytes) -> tuple[str, int, int]:
    """Byte order, where the 12-byte entries of the first directory begin, and how many it should have."""
    order = order_of(tiff)
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, at)
    return order, at + 2, count


def _shorts(tiff: bytes, wanted: int) -> Iterator[tuple[str, int]]:
    """Byte order and place of a tag's single 16-bit value. Entry by entry: a block cut off behind the tag still gives it."""
    order, at, count = _first(tiff)
    for entry in range(at, at + 12 * count, 12):
        if struct.unpack_from(order + "HHI", tiff, entry) == (wanted, 3, 1):
            yield order, entry + 8


def directory(tiff: bytes) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    """The first directory: {tag: (type, count, its four value bytes)}, and where the next one stands (0: none)."""
    order, at, count = _first(tiff)
    end, entries = at + 12 * count, {}
    for entry in range(at, end, 12):
        tag, kind, n = struct.unpack_from(order + "HHI", tiff, entry)
        entries[tag] = (kind, n, tiff[entry + 8 : entry + 12])
    return entries, struct.unpack_from(order + "I", tiff, end)[0]


def orientation_of(tiff: bytes) -> int:
    """The orientation tag, 1-8; 1 where there is none."""
    try:
        for order, at in _shorts(tiff, ORIENTATION):
            (value,) = struct.unpack_from(order + "H", tiff, at)
            return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


def for_upright(exif: bytes) -> bytes:
    """An EXIF block for the restored, upright picture: orientation 1, and no thumbnail (it shows the blurred one)."""
    block = bytearray(exif)
    try:
        for order, at in _shorts(exif, ORIENTATION):
            struct.pack_into(order + "H", block, at, 1)
        order, at, count = _first(exif)
        struct.pack_into(order + "I", block, at + 12 * count, 0)
    except (struct.error, KeyError):
        return exif
    return bytes(block)


def with_profile(data: bytes, icc: bytes) -> bytes:
    """The file with a colour profile: the profile and a copy of the first directory with its tag go to the end; the header points there."""
    order = order_of(data)
    entries, following = directory(data)
    data += b"\0" * (len(data) % 2)
    at_icc = len(data)
    data += icc + b"\0" * (len(icc) % 2)
    entries[ICC_TAG] = (7, len(icc), struct.pack(order + "I", at_icc))
    table = b"".join(
        struct.pack(order + "HHI", tag, kind, n) + value for tag, (kind, n, value) in sorted(entries.items())
    )
    copied = struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", following)
    return data[:4] + struct.pack(order + "I", len(data)) + data[8:] + copied
