"""Dense inverse search: the motion of small patches, from coarse to fine, spread over the pixels and refined; compiled.

Kroeger, Timofte, Dai, Van Gool 2016. At each scale every patch of 8x8 px starts from the flow of the scale before, tries
what its neighbours found (from the upper left, then from the lower right), and descends: Gauss-Newton steps on the squared
difference less its mean, with the first frame's gradients, so that a step costs one look into the second frame. A
pixel's flow is the mean of the patches over it, each by how well it fits there; a median takes out what stands alone, and
rounds of the variational solver put edges where the frames have them.

Frames are float32, grey codes, repeated PAD px beyond their rim. A look takes eight pixels of a row in a register, and a
patch eight of those. Both directions of a pair share the frames' scales and gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from blursynth.common.compiled import compiled, inlined, uncounted
from blursynth.motion.variational import Solver
from blursynth.walk import lanes
from blursynth.walk.lanes import U

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

F32 = np.float32

SIDE, SMALL, PAD = 8, 4, 16
STRIDE, DENSE = 4, 2
"""px of a patch's side and from patch to patch: 8 and 4; at the finest scale, where the motion is fast, 4 and 2, which find
thin things that move far."""
FAST_PX, FAST_SHARE = 3.75, 0.001
"""A flow that is longer than this, px of the finest scale, in more than this share of the frame is fast."""
DESCENTS = 3
"""Gauss-Newton steps of a patch, after each of the two tries of its neighbours."""
ROUNDS, DENSE_ROUNDS = 3, 1
"""Rounds of the variational solver at the finest scale; coarser ones have one. More than one smooths dense patches away."""
NEAR = F32(0.05)
"""A neighbour's flow that is as close as this to a patch's own, px, is not tried."""
FARTHEST = F32(SIDE)
"""A patch that leaves where it started by more than this, px, has lost its way and stays."""
FLAT = 256
"""Added to the squared gradients of a patch at the finest scale, codes^2 / px^2: what two codes of noise put there; a quarter
of it at each coarser one, as of noise. A patch with less to see than that hardly leaves its start: with 1 everywhere dark
doors and walls of compressed film moved by 13 px while all else moved by 0.7."""


class Scale(NamedTuple):
    """A frame at one scale, float32 (H, W); it and its derivatives with PAD px around, flat."""

    plain: np.ndarray
    image: np.ndarray
    along_x: np.ndarray
    along_y: np.ndarray


def search(a: np.ndarray, b: np.ndarray, dense: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Flows from a to b and back, float32 (H, W, 2) px; a, b: grey (H, W) uint8, at least SIDE px a side.

    dense: whether the finest scale has small patches close together; None: where the motion is fast.
    Raises ValueError for frames too small or of unequal size.
    """
    if a.shape != b.shape or min(a.shape) < SIDE:
        raise ValueError(f"frames {a.shape} and {b.shape} must have one size, at least {SIDE} px a side")
    firsts, seconds = _scales(a), _scales(b)
    there = back = np.zeros((2, *firsts[-1].plain.shape), F32)
    for level in range(len(firsts) - 1, -1, -1):
        first, second = firsts[level], seconds[level]
        solver = Solver(*first.plain.shape)
        there, back = (
            _solve(one, other, _grown(flow, one.plain.shape), dense, level, solver)
            for one, other, flow in ((first, second, there), (second, first, back))
        )
    return cv2.merge(list(there)), cv2.merge(list(back))


def _scales(grey: np.ndarray) -> list[Scale]:
    """A frame and its halves, down to where a patch or two fill it."""
    images: list[np.ndarray] = [grey.astype(F32)]
    while min(images[-1].shape) >= 2 * SIDE and max(images[-1].shape) >= 5 * SIDE:
        h, w = images[-1].shape
        images.append(cv2.resize(images[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    return [_scale(image) for image in images]


def _scale(image: np.ndarray) -> Scale:
    padded = cv2.copyMakeBorder(image, PAD, PAD, PAD, PAD, cv2.BORDER_REPLICATE)
    slopes = (cv2.Sobel(padded, cv2.CV_32F, *axes, ksize=3, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    return Scale(image, padded.reshape(-1), *(slope.reshape(-1) for slope in slopes))


def _grown(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The flow (2, h, w) of a scale, for one of `size` (H, W)."""
    if flow.shape[1:] == size:
        return flow
    h, w = size
    along = (F32(w / flow.shape[2]), F32(h / flow.shape[1]))
    return np.stack([cv2.resize(x * k, (w, h)) for x, k in zip(flow, along, strict=True)])


def _solve(
    first: Scale, second: Scale, start: np.ndarray, dense: bool | None, level: int, solver: Solver
) -> np.ndarray:
    """The flow (2, H, W) of one scale from that of the one before."""
    h, w = first.plain.shape
    finest = level == 0
    if finest and dense is None:
        length2 = np.square(start[0]) + np.square(start[1])
        dense = np.count_nonzero(length2 > FAST_PX**2) > FAST_SHARE * length2.size
    dense = finest and bool(dense)
    side, stride = (SMALL, DENSE) if dense else (SIDE, STRIDE)
    found = np.empty((2, *(-(-(n - side) // stride) + 1 for n in (h, w))), F32)
    _find(first, second, start, found, stride, side, F32(FLAT / 4**level))
    total = np.zeros((3, h * w), F32)
    _spread(first, second, found, total[0], total[1], total[2], w, h, stride, side)
    weight, u, v = total.reshape(3, h, w)
    u, v = (cv2.medianBlur(cv2.divide(x, weight), 3) for x in (u, v))
    rounds = DENSE_ROUNDS if dense else ROUNDS if finest else 1
    solver.improve(first.plain, second.plain, u, v, rounds)
    return np.stack([u, v])


@inlined
def _corner(at, move, size):
    """Where a patch at `at` looks when it moves: drawn to where it still touches the frame; in the padded frame."""
    return min(max(F32(at) + move, F32(1 - SIDE)), F32(size - 1)) + F32(PAD)


@inlined
def _moved(x, y, u, v, w, h):
    """The patch at x, y when it moves by (u, v): its first pixel in the padded frame, and how far right and down of it."""
    at_x, at_y = _corner(x, u, w), _corner(y, v, h)
    left, top = np.int32(at_x), np.int32(at_y)
    q = U(top) * U(w + 2 * PAD) + U(left)
    return q, lanes.all8(at_x - F32(left)), lanes.all8(at_y - F32(top))


@inlined
def _row(image, q, right):
    """Eight pixels from q on, drawn `right` of a pixel further right."""
    here = lanes.load8(image, q)
    return lanes.fma(right, lanes.sub(lanes.load8(image, q + U(1)), here), here)


@inlined
def _two_rows(image, q, wide, right):
    """Four pixels of each of two rows, from q on."""
    here = lanes.load4by2(image, q, q + wide)
    return lanes.fma(right, lanes.sub(lanes.load4by2(image, q + U(1), q + wide + U(1)), here), here)


@inlined
def _less(above, below, down, here):
    """What lies `down` of the way from above to below, less what is here."""
    return lanes.sub(lanes.fma(down, lanes.sub(below, above), above), here)


@inlined
def _two_rows_less(image, p, other, q, wide, right, down):
    """By what a small patch's two rows from p on differ from the other frame's from q on."""
    above, below = _two_rows(other, q, wide, right), _two_rows(other, q + wide, wide, right)
    return _less(above, below, down, lanes.load4by2(image, p, p + wide))


@uncounted
def _look(first, second, p, x, y, u, v, w, h, side):
    """By what the patch of the first frame at x, y, number p of its padded frame, differs from the second's (u, v) further:
    sums of d, d^2, d gx and d gy."""
    image, along_x, along_y, other = first.image, first.along_x, first.along_y, second.image
    wide = U(w + 2 * PAD)
    q, right, down = _moved(x, y, u, v, w, h)
    s, s2, sx, sy = lanes.zeros8(), lanes.zeros8(), lanes.zeros8(), lanes.zeros8()
    if side == SMALL:  # two rows of four at a time
        for _ in range(SMALL // 2):
            d = _two_rows_less(image, p, other, q, wide, right, down)
            s, s2 = lanes.add(s, d), lanes.fma(d, d, s2)
            sx = lanes.fma(d, lanes.load4by2(along_x, p, p + wide), sx)
            sy = lanes.fma(d, lanes.load4by2(along_y, p, p + wide), sy)
            p += U(2) * wide
            q += U(2) * wide
        return lanes.parts(lanes.sums(s, s2, sx, sy))
    above = _row(other, q, right)
    for _ in range(SIDE):
        q += wide
        below = _row(other, q, right)
        d = _less(above, below, down, lanes.load8(image, p))
        above = below
        s, s2 = lanes.add(s, d), lanes.fma(d, d, s2)
        sx = lanes.fma(d, lanes.load8(along_x, p), sx)
        sy = lanes.fma(d, lanes.load8(along_y, p), sy)
        p += wide
    return lanes.parts(lanes.sums(s, s2, sx, sy))


@uncounted
def _template(first, p, wide, out, side, flat):
    """Of the patch at p: the inverse of its gradients' 2x2 products less their means, and the means."""
    s, t = lanes.zeros8(), lanes.zeros8()
    xx, xy, yy = lanes.zeros8(), lanes.zeros8(), lanes.zeros8()
    along_x, along_y, rows = first.along_x, first.along_y, 2 if side == SMALL else 1
    for _ in range(side // rows):
        if side == SMALL:
            x, y = lanes.load4by2(along_x, p, p + wide), lanes.load4by2(along_y, p, p + wide)
        else:
            x, y = lanes.load8(along_x, p), lanes.load8(along_y, p)
        s, t = lanes.add(s, x), lanes.add(t, y)
        xx, xy, yy = lanes.fma(x, x, xx), lanes.fma(x, y, xy), lanes.fma(y, y, yy)
        p += U(rows) * wide
    area = F32(1) / F32(side * side)
    mx, my = lanes.sum8(s) * area, lanes.sum8(t) * area
    a = lanes.sum8(xx) - mx * mx / area + flat
    b = lanes.sum8(xy) - mx * my / area
    c = lanes.sum8(yy) - my * my / area + flat
    one = F32(1) / (a * c - b * b)
    out[0], out[1], out[2], out[3], out[4] = c * one, -b * one, a * one, mx, my


@compiled
def _find(first, second, start, found, stride, side, flat):
    """Fills found, (2, rows, columns), with the motion of each patch, from start (2, H, W)."""
    h, w = start.shape[1], start.shape[2]
    rows, columns = found.shape[1], found.shape[2]
    wide, area = U(w + 2 * PAD), F32(1) / F32(side * side)
    us, vs, template = found[0], found[1], np.empty((rows, columns, 5), F32)
    for i in range(rows):
        y = min(i * stride, h - side)  # the last may lie closer to the one before
        for j in range(columns):
            x = min(j * stride, w - side)
            _template(first, U(y + PAD) * wide + U(x + PAD), wide, template[i, j], side, flat)
            us[i, j], vs[i, j] = (
                start[0, y + side // 2, x + side // 2],
                start[1, y + side // 2, x + side // 2],
            )
    for back in range(2):
        step = -1 if back else 1
        for m in range(rows):
            i = rows - 1 - m if back else m
            y = min(i * stride, h - side)
            for n in range(columns):
                j = columns - 1 - n if back else n
                x = min(j * stride, w - side)
                p = U(y + PAD) * wide + U(x + PAD)
                u, v = us[i, j], vs[i, j]
                s, s2, sx, sy = _look(first, second, p, x, y, u, v, w, h, side)
                least = s2 - s * s * area
                for beside in range(2):
                    if (n if beside else m) == 0:
                        continue
                    ni, nj = (i, j - step) if beside else (i - step, j)
                    tu, tv = us[ni, nj], vs[ni, nj]
                    if abs(tu - u) + abs(tv - v) < NEAR:
                        continue
                    t, t2, tx, ty = _look(first, second, p, x, y, tu, tv, w, h, side)
                    if t2 - t * t * area < least:
                        u, v, s, sx, sy, least = tu, tv, t, tx, ty, t2 - t * t * area
                i11, i12, i22 = template[i, j, 0], template[i, j, 1], template[i, j, 2]
                mx, my = template[i, j, 3], template[i, j, 4]
                from_u, from_v = u, v
                for _ in range(DESCENTS):
                    sx, sy = sx - s * mx, sy - s * my
                    tu, tv = u - (i11 * sx + i12 * sy), v - (i12 * sx + i22 * sy)
                    if not (tu - from_u) ** 2 + (tv - from_v) ** 2 < FARTHEST * FARTHEST:
                        break
                    s, s2, sx, sy = _look(first, second, p, x, y, tu, tv, w, h, side)
                    if not s2 - s * s * area < least:
                        break
                    u, v, least = tu, tv, s2 - s * s * area
                us[i, j], vs[i, j] = u, v


@compiled
def _spread(first, second, found, weights, us, vs, w, h, stride, side):
    """Adds each patch's flow, by its weight, to the pixels under it: flat (H * W) sums of weights, weighed u and v. A weight
    is one over the squared difference, in codes, that the flow leaves there, or over 1."""
    rows, columns = found.shape[1], found.shape[2]
    image, other = first.image, second.image
    wide, one = U(w + 2 * PAD), lanes.all8(F32(1))
    for i in range(rows):
        y = min(i * stride, h - side)
        for j in range(columns):
            x = min(j * stride, w - side)
            p, o = U(y + PAD) * wide + U(x + PAD), U(y) * U(w) + U(x)
            q, right, down = _moved(x, y, found[0, i, j], found[1, i, j], w, h)
            u, v = lanes.all8(found[0, i, j]), lanes.all8(found[1, i, j])
            if side == SMALL:
                for _ in range(SMALL // 2):
                    d = _two_rows_less(image, p, other, q, wide, right, down)
                    weight = lanes.over(one, lanes.larger(one, lanes.mul(d, d)))
                    o2 = o + U(w)
                    lanes.store4by2(weights, o, o2, lanes.add(weight, lanes.load4by2(weights, o, o2)))
                    lanes.store4by2(us, o, o2, lanes.fma(weight, u, lanes.load4by2(us, o, o2)))
                    lanes.store4by2(vs, o, o2, lanes.fma(weight, v, lanes.load4by2(vs, o, o2)))
                    p += U(2) * wide
                    q += U(2) * wide
                    o += U(2) * U(w)
                continue
            above = _row(other, q, right)
            for _ in range(SIDE):
                q += wide
                below = _row(other, q, right)
                d = _less(above, below, down, lanes.load8(image, p))
                above = below
                weight = lanes.over(one, lanes.larger(one, lanes.mul(d, d)))
                lanes.store8(weights, o, lanes.add(weight, lanes.load8(weights, o)))
                lanes.store8(us, o, lanes.fma(weight, u, lanes.load8(us, o)))
                lanes.store8(vs, o, lanes.fma(weight, v, lanes.load8(vs, o)))
                p += wide
                o += U(w)
