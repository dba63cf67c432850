"""PNG's chunks: read without trust, written, and whether they are those of a plain photograph (ISO/IEC 15948)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

try:
    from isal import isal_zlib as zlib  # inflates in half of zlib's time
except ImportError:  # no wheel for this machine
    import zlib  # type: ignore[no-redef]

MAX_PIXELS = 2**27  # 134 MP: above any camera of interest, below what would fill the memory when decoded
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAYS_NOTHING = frozenset([b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME"])
"""Chunks that do not change the codes as OpenCV reads them."""
_BEHIND_HEAD = 33  # bytes: signature and IHDR


def is_plain(data: bytes) -> bool:
    """Whether `reader.read_rgb` may read it: all chunks are there and sound. Its pixels are not looked at."""
    return packed_rows(data) is not None


def packed_rows(data: bytes) -> tuple[tuple[int, int], bytearray] | None:
    """(width, height) and the compressed rows of a plain PNG whose chunks are all there and sound; None for all else."""
    if data[:16] != SIGNATURE + b"\0\0\0\rIHDR" or data[24:29] != b"\x08\x02\0\0\0":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    if not 0 < width * height <= MAX_PIXELS:
        return None
    packed: bytearray | None = None  # no list of parts: a hostile file has millions of empty ones
    last, at = b"", 0
    try:
        for kind, content, end in chunks(data):
            if kind == b"IDAT":
                if packed is None:
                    packed = bytearray()
                elif last != kind:
                    return None
                packed += content
            elif kind not in _SAYS_NOTHING and last and not (kind == b"IEND" and not content):
                return None
            last, at = kind, end
            if kind == b"IEND":
                break
    except ValueError:
        return None
    if packed is None or last != b"IEND" or at != len(data):
        return None
    return (width, height), packed


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Kind, content and end of each chunk behind a PNG's signature. Raises ValueError at one that is cut or damaged."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if (
            end > len(data)
            or zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]
        ):
            raise ValueError("truncated or damaged PNG")
        yield data[at + 4 : at + 8], view[at + 8 : end - 4], end
        at = end


def chunk(kind: bytes, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """The bytes of a chunk whose content is these parts, in pieces to be joined."""
    check = zlib.crc32(kind)
    for part in parts:
        check = zlib.crc32(part, check)
    return [struct.pack(">I", sum(map(len, parts))), kind, *parts, struct.pack(">I", check)]


_OURS = b"".join(chunk(b"tEXt", b"Software\0blursynth"))


def signed(png: bytes) -> bytes:
    """A PNG that says it is blursynth's, so that it may be written over when it is made again."""
    return png[:_BEHIND_HEAD] + _OURS + png[_BEHIND_HEAD:]


def is_signed(path: Path) -> bool:
    """Whether the file is a PNG of `signed`. Raises OSError."""
    if not path.is_file():
        return False
    with path.open("rb") as f:
        head = f.read(_BEHIND_HEAD + len(_OURS))
    return head[:8] == SIGNATURE and head[_BEHIND_HEAD:] == _OURS
