"""How many sub-steps each pixel of a row takes: as many as its way has pixels, shared by neighbours; compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import inlined, uncounted
from blursynth.walk import lanes
from blursynth.walk.frame import above_white, read_light
from blursynth.walk.lanes import U
from blursynth.walk.nodes import pose_at

BLOCK = 8
"""Neighbours in a row that take as many sub-steps as the one that needs most: they are walked together."""

STEP_PX, SHORT_PX, SHORT_PATH = np.float32(1.5), np.float32(1.1), np.float32(3)
"""Longest sub-step in pixels, and the longest on paths up to SHORT_PATH, where each node weighs more. Neither
is 1.0: whole-pixel steps would visit one interpolation phase only."""

HOT_STEPS, HOT_STEP_PX, HOT_BLOCK = 256, np.float32(0.75), 8
"""Where the way crosses light above white, steps are HOT_STEP_PX, up to HOT_STEPS of them, whatever `fps_up`: a lamp's
streak would fall into dashes. Such light is looked for in blocks of HOT_BLOCK px."""

FAR = np.float32(1e9)
"""Flows of a row whose lengths come to more than this, px, are a fault."""


class Row(NamedTuple):
    """A row's flows, one array a component, sub-steps, and longer motion in px; up to a whole number of blocks."""

    fx: np.ndarray
    fy: np.ndarray
    bx: np.ndarray
    by: np.ndarray
    steps: np.ndarray
    reach: np.ndarray


@inlined
def _count(path, kmax):
    """Sub-steps of a path, px."""
    k = np.int32(
        np.ceil(max(path * (np.float32(1) / STEP_PX), min(path, SHORT_PATH) * (np.float32(1) / SHORT_PX)))
    )
    return min(max(k, np.int32(1)), np.int32(kmax))


@uncounted
def plan_row(row, fwd, bwd, first, w, span, fine, kmax):
    """Reads the flows of a row, whose first pixel is number `first`, and counts its steps, as many for each of a block as
    the one that needs most. The longest motion, px, and whether all flows are numbers."""
    _split(row.fx, row.fy, fwd, first, w)
    _split(row.bx, row.by, bwd, first, w)
    longest, total = lanes.zeros8(), lanes.zeros8()
    for x in range(U(0), U(w), U(BLOCK)):
        fx, fy = lanes.load8(row.fx, x), lanes.load8(row.fy, x)
        bx, by = lanes.load8(row.bx, x), lanes.load8(row.by, x)
        f2 = lanes.fma(fx, fx, lanes.mul(fy, fy))
        b2 = lanes.fma(bx, bx, lanes.mul(by, by))
        total = lanes.add(total, lanes.add(f2, b2))
        reach = lanes.root(lanes.larger(f2, b2))
        longest = lanes.larger(longest, reach)
        lanes.store8(row.reach, x, reach)
        lanes.store8(row.steps, x, lanes.whole8(_count(lanes.largest(reach) * span * fine, kmax)))
    return lanes.largest(longest), lanes.sum8(total) < FAR * FAR


@uncounted
def _split(xs, ys, flow, first, w):
    """A row's flow by its components."""
    blocks = U(w) // U(BLOCK) * U(BLOCK)
    for x in range(U(0), blocks, U(BLOCK)):
        q = (U(first) + x) * U(2)
        early, late = lanes.load8(flow, q), lanes.load8(flow, q + U(BLOCK))
        lanes.store8(xs, x, lanes.evens(early, late))
        lanes.store8(ys, x, lanes.odds(early, late))
    for x in range(blocks, U(w)):
        q = (U(first) + x) * U(2)
        xs[x], ys[x] = flow[q], flow[q + U(1)]


@uncounted
def share_steps(steps, w):
    """Gives each block the most sub-steps that one of its pixels takes."""
    for x in range(0, w, BLOCK):
        end = min(x + BLOCK, w)
        most = steps[x]
        for j in range(x + 1, end):
            most = max(most, steps[j])
        for j in range(x, end):
            steps[j] = most


@inlined
def reflect(v, last):
    """A coordinate beyond the picture's first or last pixel, mirrored there."""
    v = abs(v)
    v = last - abs(last - v)
    return min(max(v, np.float32(0)), last)


@uncounted
def _arc(path, a, b):
    """Length, px, of the path's translation from share a to share b of it."""
    last = path.shape[0] - 1
    total = np.float32(0)
    for j in range(last):
        inside = min(b * last, np.float32(j + 1)) - max(a * last, np.float32(j))
        if inside > 0:
            total += inside * np.sqrt((path[j + 1, 0] - path[j, 0]) ** 2 + (path[j + 1, 1] - path[j, 1]) ** 2)
    return np.float32(total)


@uncounted
def plan_shaken_row(row, pair, shutter, y, lo, hi, opened, length, kmax):
    """The same of row y under a shaking camera: of the motion of what the pixel looks at in the middle, the scene's and
    the camera's in one, and of what the camera's path is longer than straight."""
    w, h, path, span = pair.w, pair.h, shutter.path, hi - lo
    steps, reach = row.steps, row.reach
    a, b = (lo - opened) / length, (hi - opened) / length
    opening, middle, closing = pose_at(path, a), pose_at(path, (a + b) * np.float32(0.5)), pose_at(path, b)
    straight = np.sqrt((closing[2] - opening[2]) ** 2 + (closing[3] - opening[3]) ** 2)
    curl = max(_arc(path, a, b) - straight, np.float32(0))
    cx, cy = np.float32(w - 1) / 2, np.float32(h - 1) / 2
    yy = np.float32(y) - cy
    longest = np.float32(0)
    for x in range(0, w, 2):
        xx = np.float32(x) - cx
        qx = reflect(np.float32(x) + middle[0] * xx + middle[1] * yy + middle[2], np.float32(w - 1))
        qy = reflect(np.float32(y) + middle[0] * yy - middle[1] * xx + middle[3], np.float32(h - 1))
        q = (U(qy + np.float32(0.5)) * U(w) + U(qx + np.float32(0.5))) * U(2)
        turn, sin = closing[0] - opening[0], closing[1] - opening[1]
        # How far its look moves; content moves the other way.
        sx = turn * xx + sin * yy + closing[2] - opening[2]
        sy = turn * yy - sin * xx + closing[3] - opening[3]
        fx, fy = pair.fwd[q] * span - sx, pair.fwd[q + U(1)] * span - sy
        bx, by = pair.bwd[q] * span + sx, pair.bwd[q + U(1)] * span + sy
        way = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by)) + curl
        steps[x] = _count(way * shutter.fine, kmax)
        reach[x] = way / span
        longest = max(longest, reach[x])
        if x + 1 < w:  # the first pixel of two decides for both
            steps[x + 1], reach[x + 1] = steps[x], reach[x]
    return longest


@uncounted
def find_hot(hot, row, pair):
    """Marks blocks of HOT_BLOCK px that light above white of either frame lies in or beside; whether there are any.

    row: float32 (4 w), to work in.
    """
    w, h = pair.w, pair.h
    found = False
    for n in range(2):
        frame = pair.first if n == 0 else pair.second
        if not above_white(frame):
            continue
        for y in range(h):
            read_light(row, U(0), frame, y * w, w)
            for x in range(w):
                if max(max(row[4 * x], row[4 * x + 1]), row[4 * x + 2]) > 1:
                    found = True
                    for j in range(max(y // HOT_BLOCK - 1, 0), min(y // HOT_BLOCK + 2, hot.shape[0])):
                        for i in range(max(x // HOT_BLOCK - 1, 0), min(x // HOT_BLOCK + 2, hot.shape[1])):
                            hot[j, i] = True
    return found


@uncounted
def add_steps(row, pair, hot, y, span, kmax):
    """More steps for pixels of row y whose way, `reach * span` px, is longer than kmax steps and crosses hot light."""
    w, h = pair.w, pair.h
    steps, reach = row.steps, row.reach
    for x in range(w):
        path = reach[x] * span
        if steps[x] < kmax or path <= np.float32(kmax) * STEP_PX:
            continue
        q = (y * w + x) * 2
        pieces = int(np.ceil(reach[x] / HOT_BLOCK))
        for n in range(-pieces, pieces + 1):
            s = np.float32(n) / np.float32(pieces)
            near = False
            for candidate in range(2):
                mx = pair.fwd[q] if candidate == 0 else -pair.bwd[q]
                my = pair.fwd[q + 1] if candidate == 0 else -pair.bwd[q + 1]
                ix = int(min(max(np.float32(x) + s * mx, np.float32(0)), np.float32(w - 1))) // HOT_BLOCK
                iy = int(min(max(np.float32(y) + s * my, np.float32(0)), np.float32(h - 1))) // HOT_BLOCK
                near = near or hot[iy, ix]
            if near:
                steps[x] = min(
                    max(np.int32(np.ceil(path / HOT_STEP_PX)), np.int32(kmax)), np.int32(max(kmax, HOT_STEPS))
                )
                break
