"""TIFF files as OpenCV decodes them right: alpha that is left alone, and kinds that it gets wrong without a word."""

from __future__ import annotations

import struct
from collections.abc import Iterator

BITS, PHOTOMETRIC, SAMPLES, PLANES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 284, 338, 339
GREY_OR_RGB = (1, 2)  # black is 0, and RGB
NO_RGB = (8, 9, 10, 32803, 34892)  # CIELab, ICCLab, ITULab, a Bayer mosaic, LinearRaw
UNASSOCIATED, ASSOCIATED = 2, 1
FLOAT = 3


def for_opencv(data: bytes) -> bytes | None:
    """The bytes to give to OpenCV for a picture's; None for a TIFF that it would decode to other colours.

    Those are, in more than 8 bits, channels stored apart and white as 0, and light that is no RGB. libtiff multiplies the
    colours of 8-bit pictures by an alpha that is called unassociated, so that transparent parts come out dark: called
    associated, they stay. What is no TIFF is returned as it is.
    """
    order = "<" if data[:2] == b"II" else ">"
    found, alpha = _found(data, order)
    if _is_wrong(found):
        return None
    if alpha is not None and found[EXTRA_SAMPLES] == UNASSOCIATED:
        return data[:alpha] + struct.pack(order + "H", ASSOCIATED) + data[alpha + 2 :]
    return data


def unread_kind(data: bytes) -> str | None:
    """What kind of TIFF this is where it is one that is not read, in words; None for all else."""
    found, _ = _found(data, "<" if data[:2] == b"II" else ">")
    if found.get(SAMPLE_FORMAT) == FLOAT:
        return "a float TIFF"
    return (
        "a kind of TIFF that is not read right (no RGB, or channels apart in 16 bits)"
        if _is_wrong(found)
        else None
    )


def _is_wrong(found: dict[int, int]) -> bool:
    kind, deep = found.get(PHOTOMETRIC, 2), found.get(BITS, 1) > 8
    apart = found.get(PLANES, 1) == 2 and found.get(SAMPLES, 1) > 1
    return kind in NO_RGB or (deep and (apart or kind not in GREY_OR_RGB))


def _found(data: bytes, order: str) -> tuple[dict[int, int], int | None]:
    """The first value of each tag of 16 bits, and where that of EXTRA_SAMPLES stands; nothing for what is no TIFF."""
    found: dict[int, int] = {}
    alpha = None
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return found, alpha
    try:
        for tag, at in _shorts(data, order):
            (found[tag],) = struct.unpack_from(order + "H", data, at)
            alpha = at if tag == EXTRA_SAMPLES else alpha
    except struct.error:
        pass  # cut off: the decoder says so
    return found, alpha


def _shorts(data: bytes, order: str) -> Iterator[tuple[int, int]]:
    """Tag and place of the first of each tag's 16-bit values, in the first directory of a TIFF or BigTIFF."""
    big = b"+" in data[2:4]
    word, head, number, size = ("Q", 8, "Q", 20) if big else ("I", 4, "H", 12)
    (at,) = struct.unpack_from(order + word, data, head)
    (entries,) = struct.unpack_from(order + number, data, at)
    at += struct.calcsize(number)
    for entry in range(at, at + entries * size, size):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, entry)
        place = entry + 4 + struct.calcsize(word)
        if 2 * count > struct.calcsize(word):
            (place,) = struct.unpack_from(order + word, data, place)
        if kind == 3:
            yield tag, place
