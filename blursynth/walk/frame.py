"""Two frames and the flows between them as the loop reads them: exact light of a pixel, and an image to sample from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import compiled, inlined, uncounted
from blursynth.walk import lanes
from blursynth.walk.lanes import U

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

SIDE, CENTRE = np.float32(-1 / 12), np.float32(14 / 12)
"""Pre-filter that makes phase-averaged bilinear sampling exact to fourth order."""


class Frame(NamedTuple):
    """A frame's linear light, flat arrays, a fourth lane of ones beside RGB.

    codes: uint8 (H * W * 3), the light of code v in channel c being table[v, c], float32 (256, 4); above: what is on
    top of that, float16 (H * W * 3) seen as uint16, or empty. Or, without codes, light: float32 (H * W * 4).
    smooth: float16 (H * W * 4) seen as uint16, what is sampled between nodes: the light, pre-filtered.
    """

    codes: np.ndarray
    table: np.ndarray
    above: np.ndarray
    light: np.ndarray
    smooth: np.ndarray


class Pair(NamedTuple):
    """Two frames, flat float32 (H * W * 2) flows, width and height."""

    first: Frame
    second: Frame
    fwd: np.ndarray
    bwd: np.ndarray
    w: int
    h: int


@inlined
def light_of(frame, p):
    """Light of pixel number p: four lanes."""
    if frame.light.size > 0:
        return lanes.load4(frame.light, p * U(4))
    codes, table, j = frame.codes, frame.table, p * U(3)
    red, green, blue = table[codes[j], U(0)], table[codes[j + U(1)], U(1)], table[codes[j + U(2)], U(2)]
    light = lanes.four(red, green, blue, np.float32(1))
    if frame.above.size > 0:
        above = frame.above
        red, green, blue = lanes.half(above, j), lanes.half(above, j + U(1)), lanes.half(above, j + U(2))
        light = lanes.add(light, lanes.four(red, green, blue, np.float32(0)))
    return light


@uncounted
def read_light(out, at, frame, p, count):
    """Light of `count` pixels from number p on, into out, float32, from its number `at` on."""
    for x in range(U(count)):
        lanes.store4(out, U(at) + x * U(4), light_of(frame, U(p) + x))


@uncounted
def above_white(frame):
    """Whether a frame may hold light above white."""
    red, green, blue = frame.table[-1, 0], frame.table[-1, 1], frame.table[-1, 2]
    return frame.light.size > 0 or frame.above.size > 0 or max(max(red, green), blue) > 1


@compiled
def prefilter(frame, near, w, h):
    """Fills frame.smooth with the frame's light, filtered by (SIDE, CENTRE, SIDE) along x and y, its rim repeated.

    near: bool (H * W), where the light is taken as it is; or empty. Three filtered rows are held at a time.
    """
    row = np.empty(4 * (w + 2) + 8, np.float32)  # a pixel before, and one behind
    filtered = np.empty((3, 4 * w + 8), np.float32)
    for y in range(h + 1):
        if y < h:
            read_light(row, U(4), frame, y * w, w)
            for c in range(4):
                row[c], row[4 * (w + 1) + c] = row[4 + c], row[4 * w + c]
            _along(filtered[y % 3], row, w)
        if y > 0:
            rows = filtered[max(y - 2, 0) % 3], filtered[(y - 1) % 3], filtered[min(y, h - 1) % 3]
            _across(frame.smooth, (y - 1) * w, rows[0], rows[1], rows[2], w)
    if near.size > 0:
        for p in range(w * h):
            if near[p]:
                read_light(row, U(0), frame, p, 1)
                lanes.store4(frame.smooth, U(p) * U(4), lanes.load4(row, U(0)))


@uncounted
def _along(out, row, w):
    side, centre = lanes.all8(SIDE), lanes.all8(CENTRE)
    for i in range(U(0), U(4 * w), U(8)):
        ends = lanes.add(lanes.load8(row, i), lanes.load8(row, i + U(8)))
        lanes.store8(out, i, lanes.fma(centre, lanes.load8(row, i + U(4)), lanes.mul(side, ends)))


@uncounted
def _across(out, p, above, here, below, w):
    """Pixels from number p on."""
    side, centre = lanes.all8(SIDE), lanes.all8(CENTRE)
    for n in range(U(0), U(4 * w), U(8)):
        i = min(n, U(4 * w - 8))  # the last eight may overlap those before
        ends = lanes.add(lanes.load8(above, i), lanes.load8(below, i))
        lanes.store8(out, U(p) * U(4) + i, lanes.fma(centre, lanes.load8(here, i), lanes.mul(side, ends)))
