"""Plain PNG read without OpenCV, with every checksum looked at: the codes of a photograph, or nothing."""

from __future__ import annotations

import numpy as np

from blursynth.common.compiled import compiled, inlined
from blursynth.png.chunks import packed_rows, zlib


def read_rgb(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of a plain PNG: 8 bits, RGB, not interlaced, at most MAX_PIXELS, and every checksum right.
    None for all else, of which another decoder has to say whether it is damaged."""
    if (found := packed_rows(data)) is None:
        return None
    (width, height), packed = found
    size = height * (1 + 3 * width)
    try:
        out = np.empty((height, width, 3), np.uint8)
        stream = zlib.decompressobj()
        filtered = stream.decompress(packed, size)
        if len(filtered) != size or stream.decompress(stream.unconsumed_tail, 1):
            return None
    except (zlib.error, MemoryError):  # type: ignore[misc]
        return None
    if not stream.eof or stream.unused_data:
        return None
    sound = _restore(np.frombuffer(filtered, np.uint8).reshape(height, -1), out.reshape(height, -1))
    return out if sound else None


@compiled
def _restore(filtered, out):
    """Undo the filters of RGB rows of 8 bits, (H, 1 + N) into (H, N). False where a row names none."""
    h, n = out.shape
    nothing, one, two = (
        np.zeros(n, np.uint8),
        np.uintp(1),
        np.uintp(2),
    )  # unsigned: no place is counted from the end
    for y in range(h):
        kind, row, to = filtered[y, 0], filtered[y, 1:], out[y]
        above = out[y - 1] if y else nothing
        r = g = b = r0 = g0 = b0 = np.uint32(0)  # of the pixel to the left, and of the one above it
        if kind == 0:
            to[:] = row
        elif kind == 1:
            for i in range(n // 3):
                k = np.uintp(3 * i)
                r, g, b = _byte(r + row[k]), _byte(g + row[k + one]), _byte(b + row[k + two])
                to[k], to[k + one], to[k + two] = r, g, b
        elif kind == 2:
            for i in range(n):
                to[i] = row[i] + above[i]
        elif kind == 3:
            for i in range(n // 3):
                k = np.uintp(3 * i)
                r = _byte(row[k] + ((r + above[k]) >> one))
                g = _byte(row[k + one] + ((g + above[k + one]) >> one))
                b = _byte(row[k + two] + ((b + above[k + two]) >> one))
                to[k], to[k + one], to[k + two] = r, g, b
        elif kind == 4:
            for i in range(n // 3):
                k = np.uintp(3 * i)
                r1, g1, b1 = np.uint32(above[k]), np.uint32(above[k + one]), np.uint32(above[k + two])
                r = _byte(row[k] + _paeth(r, r1, r0))
                g = _byte(row[k + one] + _paeth(g, g1, g0))
                b = _byte(row[k + two] + _paeth(b, b1, b0))
                to[k], to[k + one], to[k + two] = r, g, b
                r0, g0, b0 = r1, g1, b1
        else:
            return False
    return True


@inlined
def _byte(value):
    return np.uint32(value & 255)


@inlined
def _paeth(left, up, corner):
    """Whichever of the three is nearest to left + up - corner."""
    x, y = np.int32(up) - np.int32(corner), np.int32(left) - np.int32(corner)
    a, b, c = abs(x), abs(y), abs(x + y)
    return left if a <= b and a <= c else up if b <= c else corner
