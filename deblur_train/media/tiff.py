"""The TIFF structure, which an EXIF block is too: its directory, how it turns a picture, its alpha and its profile."""

from __future__ import annotations

import struct

TIFF = (b"II*\0", b"MM\0*")
ORIENTATION, ICC_TAG, EXTRA_SAMPLES = 0x0112, 34675, 338


def order_of(tiff: bytes) -> str:
    """Its byte order as `struct` writes it. Raises KeyError for anything else."""
    return {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]


def directory(tiff: bytes) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    """The first directory: {tag: (type, count, its four value bytes)}, and where the next one stands (0: none)."""
    order = order_of(tiff)
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, at)
    entries = {}
    for i in range(count):
        tag, kind, n = struct.unpack_from(order + "HHI", tiff, at + 2 + 12 * i)
        entries[tag] = (kind, n, tiff[at + 10 + 12 * i : at + 14 + 12 * i])
    return entries, struct.unpack_from(order + "I", tiff, at + 2 + 12 * count)[0]


def orientation_of(tiff: bytes) -> int:
    """The orientation tag, 1-8; 1 where there is none. Read entry by entry: a block cut off behind the tag still says how to turn the picture."""
    try:
        order = order_of(tiff)
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for i in range(count):
            tag, kind, n, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * i)
            if (tag, kind, n) == (ORIENTATION, 3, 1):
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


def for_upright(exif: bytes) -> bytes:
    """An EXIF block for the restored, upright picture: orientation 1, and no thumbnail (it shows the blurred one)."""
    block = bytearray(exif)
    try:
        order = order_of(exif)
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for i in range(count):
            entry = at + 2 + 12 * i
            if struct.unpack_from(order + "HHI", exif, entry) == (ORIENTATION, 3, 1):
                struct.pack_into(order + "H", block, entry + 8, 1)
        struct.pack_into(order + "I", block, at + 2 + 12 * count, 0)
    except (struct.error, KeyError):
        return exif
    return bytes(block)


def alpha_as_stored(data: bytes) -> bytes:
    """A TIFF whose decoder leaves colours under its alpha as they are stored; other bytes as they are.

    libtiff multiplies the colours of 8-bit pictures by an alpha that is called unassociated (ExtraSamples 2): the
    transparent parts would come out dark. Called associated (1), they stay.
    """
    if data[:4] not in TIFF:
        return data
    try:
        order = order_of(data)
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for i in range(count):
            entry = at + 2 + 12 * i
            tag, kind, n, value = struct.unpack_from(order + "HHIH", data, entry)
            if (tag, kind, n, value) == (EXTRA_SAMPLES, 3, 1, 2):
                return data[: entry + 8] + struct.pack(order + "H", 1) + data[entry + 10 :]
    except struct.error:
        pass
    return data


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
