"""TIFF files as OpenCV decodes them right: alpha that is left alone, and kinds that it gets wrong without a word."""

from __future__ import annotations

import struct
from collections.abc import Iterator

TAGS = BITS, PHOTOMETRIC, SAMPLES, PLANES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 284, 338, 339
WIDTHS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}  # kinds of integers
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
        at, form = alpha
        return data[:at] + struct.pack(form, ASSOCIATED) + data[at + struct.calcsize(form) :]
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


def _found(data: bytes, order: str) -> tuple[dict[int, int], tuple[int, str] | None]:
    """The first value of each tag that matters, and place and format of EXTRA_SAMPLES's; nothing for what is no TIFF."""
    found: dict[int, int] = {}
    alpha = None
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return found, alpha
    try:
        for tag, at, form in _values(data, order):
            if tag in TAGS and tag not in found:  # of one that stands twice libtiff takes the first
                (found[tag],) = struct.unpack_from(form, data, at)
                alpha = (at, form) if tag == EXTRA_SAMPLES else alpha
    except (struct.error, OverflowError):
        pass  # cut off, or leading beyond all files: the decoder says so
    return found, alpha


def _values(data: bytes, order: str) -> Iterator[tuple[int, int, str]]:
    """Tag, and place and format of the first value, of each that holds integers in the first directory of a TIFF or BigTIFF.

    All of them have 16 bits by the standard; libtiff takes other widths, too.
    """
    big = b"+" in data[2:4]
    word, head, number, size = ("Q", 8, "Q", 20) if big else ("I", 4, "H", 12)
    (at,) = struct.unpack_from(order + word, data, head)
    (entries,) = struct.unpack_from(order + number, data, at)
    at += struct.calcsize(number)
    for entry in range(at, at + entries * size, size):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, entry)
        place = entry + 4 + struct.calcsize(word)
        if (form := WIDTHS.get(kind)) is None:
            continue
        if count * struct.calcsize(order + form) > struct.calcsize(word):
            (place,) = struct.unpack_from(order + word, data, place)
        yield tag, place, order + form
