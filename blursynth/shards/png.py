"""PNG as photographs need it: written without a search for repeats, read without OpenCV where it is plain.

What a search for repeated bytes finds in a photograph is noise. The mean of two neighbours as prediction, and a Huffman code
for every 128 KB of what is left, take a sixth of the time of OpenCV's encoder and no more bytes. (Paeth's prediction: 8% fewer
bytes, for which libpng, and so most readers, decode 1.5 times as long.) Formats: ISO/IEC 15948, RFC 1950 and 1951.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from blursynth.common.compiled import compiled, inlined

try:
    from isal import isal_zlib as zlib  # inflates in half of zlib's time
except ImportError:  # no wheel for this machine
    import zlib  # type: ignore[no-redef]

MAX_PIXELS = 2**27  # 134 MP: above any camera of interest, below what would fill the memory when decoded
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAYS_NOTHING = frozenset([b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME"])
"""Chunks that do not change the codes as OpenCV reads them."""
_BLOCK = 1 << 17  # bytes that share a Huffman code
_LONGEST = 15  # bits of a code
_END, _SYMBOLS = 256, 286  # end of a block; literals, the end and lengths of repeats
_FIVE, _EIGHT, _HALF, _WORD, _BYTE, _LOW = (np.uint64(n) for n in (5, 8, 16, 32, 0xFF, 0xFFFF))


def read_rgb(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of a plain PNG: 8 bits, RGB, not interlaced, at most MAX_PIXELS, and every checksum right.
    None for all else, of which another decoder has to say whether it is damaged."""
    if (found := _packed(data)) is None:
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


def is_plain(data: bytes) -> bool:
    """Whether `read_rgb` may read it: all chunks are there and sound. Its pixels are not looked at."""
    return _packed(data) is not None


def _packed(data: bytes) -> tuple[tuple[int, int], bytearray] | None:
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


def write(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) RGB, uint8 or uint16. Equal pixels give equal bytes, on every machine. Raises ValueError."""
    if (
        pixels.ndim != 3
        or pixels.shape[2] != 3
        or not pixels.size
        or pixels.dtype not in (np.uint8, np.uint16)
    ):
        raise ValueError(f"a PNG needs (H, W, 3) of uint8 or uint16, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    depth = pixels.dtype.itemsize
    codes = np.ascontiguousarray(pixels, ">u2" if depth == 2 else np.uint8)
    filtered = _predict(codes.view(np.uint8).reshape(height, -1), 3 * depth).reshape(-1)
    words = np.empty(filtered.size // 2 + 64 * (filtered.size // _BLOCK + 2), np.uint32)
    eights = filtered[: filtered.size // 8 * 8].view("<u8").astype(np.uint64, copy=False)
    size = _deflate(filtered, eights, words)
    packed = words.astype("<u4", copy=False).view(np.uint8)[:size].data
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, 2, 0, 0, 0)
    rows = (b"\x78\x01", packed, struct.pack(">I", zlib.adler32(filtered)))  # RFC 1950
    return b"".join([SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", *rows), *_chunk(b"IEND")])


def _chunk(kind: bytes, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    check = zlib.crc32(kind)
    for part in parts:
        check = zlib.crc32(part, check)
    return [struct.pack(">I", sum(map(len, parts))), kind, *parts, struct.pack(">I", check)]


@compiled
def _predict(rows, step):
    """Rows of bytes (H, N), `step` bytes a pixel, less the mean of the byte to the left and the one above: (H, 1 + N), the
    filter's number first."""
    h, n = rows.shape
    out = np.empty((h, 1 + n), np.uint8)
    nothing = np.zeros(n, np.uint8)
    for y in range(h):
        row, to = rows[y], out[y, 1:]
        above = rows[y - 1] if y else nothing
        out[y, 0] = 3
        for i in range(step):
            to[i] = row[i] - (above[i] >> 1)
        left, to, row, above = row, to[step:], row[step:], above[step:]
        for i in range(n - step):
            to[i] = row[i] - np.uint8((np.uint16(left[i]) + np.uint16(above[i])) >> 1)
    return out


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


@compiled
def _deflate(data, eights, out):
    """`data` as a deflate stream in out, uint32 (its bits from the lowest up); how many bytes. eights: the same data as
    uint64, less a rest.

    Blocks of dynamic codes. Of repeats only runs of zeros are told, 16 bytes or more from one multiple of 8 to another, and
    only by lengths that are one symbol: 258 bytes, or 3 to 10.
    """
    n = len(data)
    runs = np.empty((_BLOCK // 16 + 1, 2), np.int64)  # from and to which eight there are zeros
    counts = np.empty((4, _SYMBOLS), np.int64)  # four, so that a symbol need not wait for its last count
    codes, sizes = np.empty(_SYMBOLS, np.uint64), np.empty(_SYMBOLS, np.int64)
    pending = bits = at = np.uint64(0)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        found = _count(data, eights, start, stop, runs, counts)
        _code(counts[0], sizes, codes)
        # Last block or not, dynamic codes, all symbols, two distances, and how long the 19 codes of the lengths are:
        # those of 0 to 15 have 4 bits, those of repeats none.
        head = (stop == n) | 2 << 1 | (_SYMBOLS - 257) << 3 | 1 << 8 | 15 << 13
        pending, bits, at = _put(pending, bits, at, out, np.uint64(head), np.uint64(17))
        for k in range(19):
            pending, bits, at = _put(pending, bits, at, out, np.uint64(4 * (k > 2)), np.uint64(3))
        for s in range(_SYMBOLS + 2):
            size = _reversed(sizes[s] if s < _SYMBOLS else 1, 4)
            pending, bits, at = _put(pending, bits, at, out, np.uint64(size), np.uint64(4))
        for s in range(_SYMBOLS):
            # A length is followed by its distance, one byte: the first code, a 0.
            codes[s] |= np.uint64(sizes[s] + (s > _END)) << _HALF
        word = start // 8
        for r in range(found + 1):
            for k in range(word, runs[r, 0]):
                eight = eights[k]
                for _ in range(4):
                    a, b = codes[eight & _BYTE], codes[eight >> _EIGHT & _BYTE]
                    eight >>= _HALF
                    first = a >> _HALF
                    both = (a & _LOW) | (b & _LOW) << first
                    pending, bits, at = _put(pending, bits, at, out, both, first + (b >> _HALF))
            word = runs[r, 1]
            left = 8 * (word - runs[r, 0])
            while left:
                s, length = _zeros(left, 8 * (word - runs[r, 0]))
                pending, bits, at = _put(pending, bits, at, out, codes[s] & _LOW, codes[s] >> _HALF)
                left -= length
        for k in range(8 * word, stop):
            s = data[k]
            pending, bits, at = _put(pending, bits, at, out, codes[s] & _LOW, codes[s] >> _HALF)
        pending, bits, at = _put(pending, bits, at, out, codes[_END] & _LOW, codes[_END] >> _HALF)
    out[at] = np.uint32(pending)
    return 4 * at + (bits + np.uint64(7)) // _EIGHT


@inlined
def _put(pending, bits, at, out, value, width):
    """Put up to 32 bits behind those that are pending, up to 31; what is pending then."""
    pending |= value << bits
    bits += width
    out[at] = np.uint32(pending)
    full = bits & _WORD
    return pending >> full, bits - full, at + (full >> _FIVE)


@inlined
def _count(data, eights, start, stop, runs, counts):
    """Where a block has runs of zeros, ended by one of no length, and, in the first row, how often each symbol occurs; how
    many runs."""
    counts[:] = 0
    found, k, last = 0, start // 8, min(stop // 8, len(eights))
    while k < last:
        eight = eights[k]
        if eight == 0 and k + 1 < last and eights[k + 1] == 0:
            runs[found, 0] = k
            while k < last and eights[k] == 0:
                k += 1
            runs[found, 1] = k
            left = all_ = 8 * (k - runs[found, 0])
            while left:
                s, length = _zeros(left, all_)
                counts[0, s] += 1
                left -= length
            found += 1
            continue
        for _ in range(2):
            counts[0, eight & _BYTE] += 1
            counts[1, eight >> _EIGHT & _BYTE] += 1
            counts[2, eight >> _HALF & _BYTE] += 1
            counts[3, eight >> _EIGHT >> _HALF & _BYTE] += 1
            eight >>= _WORD
        k += 1
    runs[found, 0] = runs[found, 1] = last
    for k in range(8 * last, stop):
        counts[0, data[k]] += 1
    for s in range(_SYMBOLS):
        counts[0, s] += counts[1, s] + counts[2, s] + counts[3, s]
    counts[0, _END] = 1
    return found


@inlined
def _zeros(left, run):
    """The symbol that tells of a run of so many zeros, of which so many are left, and how many it is."""
    if left == run or left < 3:
        return 0, 1
    if left >= 258:
        return 285, 258
    return 254 + min(left, 10), min(left, 10)


@inlined
def _code(counts, sizes, codes):
    """Huffman's code of symbols that occur so often, no longer than _LONGEST: bits of each and the code, first bit lowest."""
    order, n = np.empty(_SYMBOLS, np.int64), 0  # those that occur, rare ones first
    tree, weight = np.empty(2 * _SYMBOLS, np.int64), np.empty(2 * _SYMBOLS, np.int64)
    depth = np.empty(2 * _SYMBOLS, np.int64)
    while True:
        n = 0
        for s in range(_SYMBOLS):
            if counts[s]:
                k = n
                while k and counts[order[k - 1]] > counts[s]:
                    order[k] = order[k - 1]
                    k -= 1
                order[k], n = s, n + 1
        for k in range(n):
            weight[k] = counts[order[k]]
        leaf, node = 0, n
        for new in range(n, 2 * n - 1):  # the two lightest of leaves and nodes, both in ascending order
            total = 0
            for _ in range(2):
                if node >= new or (leaf < n and weight[leaf] <= weight[node]):
                    took, leaf = leaf, leaf + 1
                else:
                    took, node = node, node + 1
                tree[took] = new
                total += weight[took]
            weight[new] = total
        depth[2 * n - 2] = longest = 0
        for k in range(2 * n - 3, -1, -1):
            depth[k] = depth[tree[k]] + 1
            longest = max(longest, depth[k])
        if longest <= _LONGEST:
            break
        for k in range(n):  # rarer symbols come nearer to the common ones
            counts[order[k]] = (counts[order[k]] + 1) // 2
    sizes[:] = 0
    for k in range(n):
        sizes[order[k]] = depth[k]
    code = 0
    for size in range(1, _LONGEST + 1):
        code <<= 1
        for s in range(_SYMBOLS):
            if sizes[s] == size:
                codes[s] = np.uint64(_reversed(code, size))
                code += 1


@inlined
def _reversed(value, width):
    """The lowest `width` bits in reverse."""
    turned = 0
    for k in range(width):
        turned |= (value >> k & 1) << (width - 1 - k)
    return turned
