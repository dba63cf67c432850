"""Metadata of image files: EXIF block, ICC profile and the rest, taken from the bytes of one file and put into another's.

Byte work on purpose. OpenCV's imencodeWithMetadata (4.12) cannot write a profile above 64 kB into a JPEG, loses XMP of
JPEG and damages that of PNG, knows no TIFF, and prints about profiles that it dislikes; the containers are simple (JPEG
segments, PNG chunks, RIFF chunks of WebP, TIFF tags).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deblur_train.media.tiff import ICC_TAG, TIFF, directory, order_of, orientation_of, with_profile

PNG = b"\x89PNG\r\n\x1a\n"
ICC_MARK = b"ICC_PROFILE\0"
ICC_LIMIT = 16 << 20  # bytes of a profile; real ones have at most a few million
XMP_MARKS = (b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0")
PNG_EXTRAS = {
    b"gAMA": "gAMA",
    b"cHRM": "cHRM",
    b"pHYs": "resolution",
    b"tEXt": "text",
    b"zTXt": "text",
    b"iTXt": "text",
}
TIFF_EXTRAS = {34665: "EXIF", 700: "XMP", 282: "resolution", 270: "text", 33723: "IPTC"}


@dataclass(frozen=True)
class Metadata:
    exif: bytes | None = None  # the TIFF structure inside an EXIF block
    icc: bytes | None = None
    orientation: int = 1  # 1-8
    cmyk: bool = False  # stored as CMYK or YCCK
    several: bool = False  # an animation, or pages: decoders give the first picture
    extras: tuple[
        bytes, ...
    ] = ()  # what else there is, as it stands in the file: segments of a JPEG, chunks of a PNG
    names: tuple[str, ...] = ()  # of what else there is


def read_metadata(data: bytes) -> Metadata:
    """What JPEG, PNG, WebP or TIFF bytes say beside their pixels; what is nonsense is left out."""
    try:
        if data[:2] == b"\xff\xd8":
            found = _read_jpeg(data)
        elif data[:8] == PNG:
            found = _read_png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            found = _read_webp(data)
        elif data[:4] in TIFF:
            entries, following = directory(data)
            icc = entries.get(ICC_TAG)
            at = struct.unpack_from(order_of(data) + "I", icc[2])[0] if icc else 0
            found = Metadata(data, data[at : at + icc[1]] if icc else None, several=following != 0)
            found = replace(found, names=tuple(name for tag, name in TIFF_EXTRAS.items() if tag in entries))
            # The whole file is the structure; its orientation counts, but it is no block for another file.
            return replace(found, exif=None, orientation=orientation_of(data))
        else:
            return Metadata()
    except (struct.error, IndexError, KeyError, zlib.error):
        return Metadata()
    return replace(found, orientation=orientation_of(found.exif)) if found.exif else found


def exif_orientation(data: bytes) -> int:
    """The orientation tag (1-8) of an image file's bytes; 1 when there is none or it is nonsense."""
    return read_metadata(data).orientation


def profile_fits(icc: bytes, grey: bool) -> bool:
    """Does the profile describe the channels that are written (ICC.1:2022, header bytes 16-19)?"""
    return icc[16:20] == (b"GRAY" if grey else b"RGB ")


def embed(data: bytes, exif: bytes | None, icc: bytes | None, extras: tuple[bytes, ...] = ()) -> bytes:
    """The bytes of an encoded JPEG, PNG, WebP or TIFF with an EXIF block and a profile added; others as they are.

    A TIFF takes the profile only: its own directory is what an EXIF block would say. ``extras``: of the same container.
    """
    if not exif and not icc and not extras:
        return data
    if data[:2] == b"\xff\xd8":
        return _into_jpeg(data, exif, icc, extras)
    if data[:8] == PNG:
        chunks = [_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc))] if icc else []
        chunks += [_png_chunk(b"eXIf", exif)] if exif else []
        return data[:33] + b"".join((*chunks, *extras)) + data[33:]  # behind IHDR
    if data[:4] == b"RIFF":
        return _into_webp(data, exif, icc)
    if data[:4] in TIFF and icc:
        return with_profile(data, icc)
    return data


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of its content, end) up to the scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], at + 4, at + 2 + length
        at += 2 + length


def _read_jpeg(data: bytes) -> Metadata:
    exif, parts, cmyk = None, {}, False
    extras: list[bytes] = []
    names: list[str] = []
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE0 and data[start : start + 5] == b"JFIF\0" and data[start + 7] in (1, 2):
            extras.append(data[start - 4 : end])  # dots an inch or a centimetre
            names.append("resolution")
        elif marker == 0xE1 and data[start:end].startswith(XMP_MARKS):
            extras.append(_upright_xmp(data[start - 4 : end]))
            names.append("XMP")
        elif marker == 0xED or marker == 0xFE:
            extras.append(data[start - 4 : end])
            names.append("IPTC" if marker == 0xED else "text")
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            exif = exif or data[start + 6 : end]
        elif marker == 0xE2 and data[start : start + 12] == ICC_MARK:
            parts[data[start + 12]] = data[start + 14 : end]
        elif marker in (0xC0, 0xC1, 0xC2, 0xC3):
            cmyk = data[start + 5] == 4
    icc = b"".join(parts[k] for k in sorted(parts)) or None
    return Metadata(exif, icc, cmyk=cmyk, extras=tuple(extras), names=tuple(dict.fromkeys(names)))


def _upright_xmp(xmp: bytes) -> bytes:
    """XMP may repeat the orientation; the restored picture is upright."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[1-8]", rb"\g<1>1", xmp)


def _read_png(data: bytes) -> Metadata:
    found, at = Metadata(), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if name == b"eXIf":
            found = replace(found, exif=content)
        elif name == b"iCCP":
            packed = content[content.index(b"\0") + 2 :] if b"\0" in content else b""
            found = replace(found, icc=zlib.decompressobj().decompress(packed, ICC_LIMIT) or None)
        elif name == b"acTL":
            found = replace(found, several=True)
        elif name in PNG_EXTRAS:
            said = "XMP" if content.startswith(b"XML:com.adobe.xmp\0") else PNG_EXTRAS[name]
            whole = _png_chunk(name, _upright_xmp(content) if said == "XMP" else content)
            names = dict.fromkeys((*found.names, said))
            found = replace(found, extras=(*found.extras, whole), names=tuple(names))
        at += 12 + length
    return found


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _read_webp(data: bytes) -> Metadata:
    chunks = dict(_riff_chunks(data))
    exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None
    names = ("XMP",) if b"XMP " in chunks else ()
    return Metadata(exif, chunks.get(b"ICCP"), several=b"ANIM" in chunks, names=names)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _into_jpeg(data: bytes, exif: bytes | None, icc: bytes | None, extras: tuple[bytes, ...]) -> bytes:
    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    added = [segment(0xE1, b"Exif\0\0" + exif)] if exif and len(exif) < 65000 else []
    pieces = [icc[i : i + 65000] for i in range(0, len(icc), 65000)] if icc else []
    added += [segment(0xE2, ICC_MARK + bytes([i + 1, len(pieces)]) + p) for i, p in enumerate(pieces)]
    added += [e for e in extras if e[1] != 0xE0]
    first = next(
        (e for e in extras if e[1] == 0xE0), b""
    )  # JFIF, which stays first; its own for the resolution
    at = 2
    for marker, start, end in _jpeg_segments(data):
        if marker != 0xE0:
            break
        first, at = first or data[start - 4 : end], end
    return data[:2] + first + b"".join(added) + data[at:]


def _into_webp(data: bytes, exif: bytes | None, icc: bytes | None) -> bytes:
    """In the extended layout (WebP container specification): VP8X, ICCP, the picture, EXIF. The picture is lossless."""
    chunks = list(_riff_chunks(data))
    if chunks[0][0] == b"VP8X":
        head = bytearray(chunks.pop(0)[1])
    else:
        (bits,) = struct.unpack_from("<I", chunks[0][1], 1)
        head = bytearray(10)
        head[0] = 0x10 if bits >> 28 & 1 else 0
        head[4:7] = (bits & 0x3FFF).to_bytes(3, "little")
        head[7:10] = (bits >> 14 & 0x3FFF).to_bytes(3, "little")
    head[0] |= (0x20 if icc else 0) | (0x08 if exif else 0)
    chunks = [(b"VP8X", bytes(head)), *([(b"ICCP", icc)] if icc else []), *chunks]
    chunks += [(b"EXIF", exif)] if exif else []
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
