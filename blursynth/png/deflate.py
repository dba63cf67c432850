"""Deflate for what prediction leaves of a photograph: a Huffman code for every 128 KB, no search for repeats; compiled."""

from __future__ import annotations

import numpy as np

from blursynth.common.compiled import compiled, inlined

BLOCK = 1 << 17  # bytes that share a Huffman code
_LONGEST = 15  # bits of a code
_END, _SYMBOLS = 256, 286  # end of a block; literals, the end and lengths of repeats
_FIVE, _EIGHT, _HALF, _WORD, _BYTE, _LOW = (np.uint64(n) for n in (5, 8, 16, 32, 0xFF, 0xFFFF))


@compiled
def deflate(data, eights, out):
    """`data` as a deflate stream in out, uint32 (its bits from the lowest up); how many bytes. eights: the same data as
    uint64, less a rest.

    Blocks of dynamic codes. Of repeats only runs of zeros are told, 16 bytes or more from one multiple of 8 to another, and
    only by lengths that are one symbol: 258 bytes, or 3 to 10.
    """
    n = len(data)
    runs = np.empty((BLOCK // 16 + 1, 2), np.int64)  # from and to which eight there are zeros
    counts = np.empty((4, _SYMBOLS), np.int64)  # four, so that a symbol need not wait for its last count
    codes, sizes = np.empty(_SYMBOLS, np.uint64), np.empty(_SYMBOLS, np.int64)
    pending = bits = at = np.uint64(0)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
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
