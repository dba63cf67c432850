"""A flow refined by DeepFlow's energy, fast: spread over the edges of things, then solved by rounds of one linear system.

The energy is that of Brox et al. (2004) as DeepFlow (Weinzaepfel et al. 2013) and OpenCV's VariationalRefinement weigh it:
brightness and gradient constancy, each divided by the gradient it is measured with, and the flow's gradient, all under
a robust penalty sqrt(s^2 + eps^2). A round draws the second frame along the flow, sets up the linear system of the flow
with the penalties' weights as they stand, and relaxes it by a few red-black sweeps; a few sweeps a round and more rounds
come closer for the same time than many sweeps a round (benchmarks/RESULTS.md).

Before the first round, each pixel may take over the flow that stands SPREAD_PX away: a start from coarse patches is wrong by
some pixels along the edges of what moves, and the energy's own minimum is too shallow to leave it there.

Inside, planes are float32 (H, W) in grey codes, 0 to 255, or px. The system lies on a checkerboard, in two halves whose
neighbours stand side by side: `plane[c, 1 + i, 1 + k]` is the pixel of row i and column 2k + (i + c) % 2.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from blursynth.common.compiled import compiled, uncounted
from blursynth.walk import lanes
from blursynth.walk.lanes import U

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

F32 = np.float32

ROUNDS, SWEEPS, OMEGA = 5, 3, F32(1.6)
SMOOTHNESS, BRIGHTNESS, GRADIENT = F32(12.5), F32(2.5), F32(5.0)
"""Weights of the energy's three terms, for 8-bit codes."""
EPS2_FLOW, EPS2_CODES = F32(0.1), F32(0.03)
"""eps^2 of the penalties: of the flow's gradient, and of what the constancies miss, both in px^2. OpenCV's is 1e-6, at which a
weight hardly leaves where it started: larger ones are closer to the truth after a few rounds."""
ZETA2, STAY = F32(0.01), F32(0.01)
"""Added to a squared gradient before it divides, codes^2; and to the system's diagonal, so that flat areas stay."""

SPREAD_PX = 8
BIAS, MISS = 0.6, 20.0
"""By how many codes another flow must miss less, mean of 3x3 px, to be taken over; above MISS codes all count alike."""
FARTHEST = 1e5
"""A longer motion, px, or one that is not a number, counts as none."""


def refine(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The flow from first to second, float32 (H, W, 2) px, from a start as large as the frames.

    first, second: grey codes, float32 (H, W). Raises ValueError unless all three have one size of at least 2x2 px.
    """
    h, w = first.shape
    if min(h, w) < 2 or second.shape != (h, w) or flow.shape != (h, w, 2):
        raise ValueError(f"frames {first.shape}, {second.shape} and flow {flow.shape} must have one size")
    a, b, flow = (np.ascontiguousarray(x, np.float32) for x in (first, second, flow))
    u, v = cv2.split(flow)
    if (odd := ~(np.maximum(np.abs(u), np.abs(v)) < FARTHEST)).any():
        u[odd] = v[odd] = 0
    u, v = (cv2.medianBlur(x, 5) for x in _spread(a, b, u, v))
    Solver(h, w).improve(a, b, u, v, ROUNDS)
    return cv2.merge((u, v))


class Solver:
    """Rounds of the linear system, of flows of one size; holds its memory."""

    def __init__(self, h: int, w: int):
        self._slopes = np.empty((2, h, w), np.float32)
        self._system = np.zeros((9, 2, h + 2, (w + 1) // 2 + 2), np.float32)
        self._rows = np.empty((10, w + w % 2), np.float32)

    def improve(self, a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray, rounds: int) -> None:
        """Bring the flow u, v from a to b nearer to the energy's least, in place; float32 (H, W) all."""
        h, w = a.shape
        for _ in range(rounds):
            there = _draw(b, u, v)
            _slopes(cv2.addWeighted(a, 0.5, there, 0.5, 0), *self._slopes)
            _set_up(*self._slopes, cv2.subtract(there, a), u, v, self._system, self._rows)
            _relax(self._system, h, w, SWEEPS)
            _read(self._system, u, v)


def _spread(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow u, v, each pixel's own or that from SPREAD_PX beside, above or below, whichever the frames bear out."""
    h, w = a.shape
    least = _miss(a, b, u, v)
    for dx, dy in ((SPREAD_PX, 0), (-SPREAD_PX, 0), (0, SPREAD_PX), (0, -SPREAD_PX)):
        from_there = np.s_[SPREAD_PX - dy : SPREAD_PX - dy + h, SPREAD_PX - dx : SPREAD_PX - dx + w]
        cu, cv = (cv2.copyMakeBorder(x, *(SPREAD_PX,) * 4, cv2.BORDER_REPLICATE)[from_there] for x in (u, v))
        miss = _miss(a, b, cu, cv)
        better = cv2.compare(cv2.add(miss, BIAS), least, cv2.CMP_LT)  # type: ignore[call-overload]
        u, v, least = (cv2.copyTo(x, better, y) for x, y in ((cu, u), (cv, v), (miss, least)))
    return u, v


def _miss(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """By how many codes the frames differ along the flow, mean of 3x3 px."""
    return cv2.blur(cv2.min(cv2.absdiff(_draw(b, u, v), a), MISS), (3, 3))  # type: ignore[call-overload]


def _draw(b: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The second frame drawn along the flow, beyond its edges as at them."""
    h, w = u.shape
    x, y = u + np.arange(w, dtype=np.float32), v + np.arange(h, dtype=np.float32)[:, None]
    return cv2.remap(b, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@compiled
def _slope(row, out):
    """Derivative of a row along it, central, one-sided at its ends, as half of what OpenCV's solver takes."""
    w = row.shape[0]
    left, right, inner = row[0 : w - 2], row[2:w], out[1 : w - 1]
    for j in range(w - 2):
        inner[j] = F32(0.5) * (right[j] - left[j])
    out[0] = F32(0.5) * (row[1] - row[0])
    out[w - 1] = F32(0.5) * (row[w - 1] - row[w - 2])


@compiled
def _slopes(image, along_x, along_y):
    """Derivatives of an image."""
    h, w = image.shape
    for i in range(h):
        above, below, out = image[max(i - 1, 0)], image[min(i + 1, h - 1)], along_y[i]
        for j in range(w):
            out[j] = F32(0.5) * (below[j] - above[j])
        _slope(image[i], along_x[i])


@compiled
def _set_up(along_x, along_y, change, u, v, system, rows):
    """Fill the checkerboards of the system: the flow u, v; the inverse of each pixel's own 2x2 block, times OMEGA (three
    numbers); its right-hand side (two); the weights of its links to the right and below.

    rows: room for ten rows of work, of an even width.
    """
    h, w = u.shape
    ui, vi, i11, i12, i22, c1, c2 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    right, down, up = rows[7], rows[8], rows[9]
    left, flat, flat_rows = np.empty(w, np.float32), system.reshape(-1), rows.reshape(-1)
    down[:] = F32(0)
    for i in range(h):
        above, below = max(i - 1, 0), min(i + 1, h - 1)
        for j in range(w):
            up[j] = down[j]
        # What holds a pixel to its neighbours to the right and below.
        ui[:w], vi[:w] = u[i], v[i]
        ub, vb = u[below], v[below]
        ur, vr = ui[1:w], vi[1:w]
        for j in range(w - 1):
            ux, vx, uy, vy = ur[j] - ui[j], vr[j] - vi[j], ub[j] - ui[j], vb[j] - vi[j]
            right[j] = SMOOTHNESS / math.sqrt(ux * ux + vx * vx + uy * uy + vy * vy + EPS2_FLOW)
        uy, vy = ub[w - 1] - ui[w - 1], vb[w - 1] - vi[w - 1]
        right[w - 1] = SMOOTHNESS / math.sqrt(uy * uy + vy * vy + EPS2_FLOW)
        last = F32(0) if i == h - 1 else F32(1)
        for j in range(w):
            down[j] = last * right[j]
        right[w - 1] = F32(0)
        left[0] = F32(0)
        shifted = left[1:w]
        for j in range(w - 1):
            shifted[j] = right[j]
        # Brightness and gradient constancy, linear in the flow, where it ends inside the frame.
        ix, iy, iz = along_x[i], along_y[i], change[i]
        ixu, ixd, iyu, iyd = along_x[above], along_x[below], along_y[above], along_y[below]
        izu, izd = change[above], change[below]
        _slope(ix, i11)  # their place is filled last
        _slope(iz, i12)
        for j in range(w):
            px, py = F32(j) + ui[j], F32(i) + vi[j]
            inside = px >= F32(0) and px <= F32(w - 1) and py >= F32(0) and py <= F32(h - 1)
            known = F32(1) if inside else F32(0)
            x, y, z, xx, xz = ix[j], iy[j], iz[j], i11[j], i12[j]
            xy, yy, yz = (
                F32(0.5) * (ixd[j] - ixu[j]),
                F32(0.5) * (iyd[j] - iyu[j]),
                F32(0.5) * (izd[j] - izu[j]),
            )
            # Each penalty's weight over its squared gradient, n or n1 and n2, with one root and one division.
            n, n1, n2 = x * x + y * y + ZETA2, xx * xx + xy * xy + ZETA2, yy * yy + xy * xy + ZETA2
            g = known * BRIGHTNESS / math.sqrt(n * (z * z + EPS2_CODES * n))
            both = n1 * n2
            e = known * GRADIENT / math.sqrt(both * (xz * xz * n2 + yz * yz * n1 + EPS2_CODES * both))
            n1, n2 = e * n2, e * n1
            a11 = g * x * x + n1 * xx * xx + n2 * xy * xy + STAY
            a12 = g * x * y + n1 * xx * xy + n2 * xy * yy
            a22 = g * y * y + n1 * xy * xy + n2 * yy * yy + STAY
            c1[j] = a11 * ui[j] + a12 * vi[j] - g * x * z - n1 * xx * xz - n2 * xy * yz
            c2[j] = a12 * ui[j] + a22 * vi[j] - g * y * z - n1 * xy * xz - n2 * yy * yz
            links = right[j] + left[j] + down[j] + up[j]
            a11 += links
            a22 += links
            q = OMEGA / (a11 * a22 - a12 * a12)
            i11[j], i12[j], i22[j] = q * a22, -q * a12, q * a11
        c, width = i & 1, U(rows.shape[1])
        half = U(system.shape[3])
        board = U(system.shape[2]) * half
        even = U(c) * board + U(i + 1) * half + U(1)
        odd = U(1 - c) * board + U(i + 1) * half + U(1)
        for t in range(U(9)):
            _deal(flat_rows, t * width, flat, U(2) * t * board + even, U(2) * t * board + odd, w)


@compiled
def _relax(system, h, w, sweeps):
    """Red-black sweeps of successive over-relaxation, as a wave: each runs two rows behind the one before, in the cache."""
    for s in range(h + 2 * sweeps):
        for k in range(sweeps):
            i = s - 2 * k
            if 0 <= i < h:
                _relax_row(system, 0, i, w)
            if 0 <= i - 1 < h:
                _relax_row(system, 1, i - 1, w)


@compiled
def _relax_row(system, c, i, w):
    """Relax the pixels of colour c in row i."""
    p, o, r = (i + c) & 1, 1 - c, i + 1
    n = (w - p + 1) // 2
    u, v = system[0, c, r, 1 : 1 + n], system[1, c, r, 1 : 1 + n]
    i11, i12, i22 = system[2, c, r, 1 : 1 + n], system[3, c, r, 1 : 1 + n], system[4, c, r, 1 : 1 + n]
    c1, c2 = system[5, c, r, 1 : 1 + n], system[6, c, r, 1 : 1 + n]
    wr, wd = system[7, c, r, 1 : 1 + n], system[8, c, r, 1 : 1 + n]
    wl, wu = system[7, o, r, p : p + n], system[8, o, r - 1, 1 : 1 + n]
    ul, ur = system[0, o, r, p : p + n], system[0, o, r, p + 1 : p + 1 + n]
    uu, ud = system[0, o, r - 1, 1 : 1 + n], system[0, o, r + 1, 1 : 1 + n]
    vl, vr = system[1, o, r, p : p + n], system[1, o, r, p + 1 : p + 1 + n]
    vu, vd = system[1, o, r - 1, 1 : 1 + n], system[1, o, r + 1, 1 : 1 + n]
    keep = F32(1) - OMEGA
    for k in range(n):
        r1 = c1[k] + wl[k] * ul[k] + wr[k] * ur[k] + wu[k] * uu[k] + wd[k] * ud[k]
        r2 = c2[k] + wl[k] * vl[k] + wr[k] * vr[k] + wu[k] * vu[k] + wd[k] * vd[k]
        u[k] = keep * u[k] + i11[k] * r1 + i12[k] * r2
        v[k] = keep * v[k] + i12[k] * r1 + i22[k] * r2


@compiled
def _read(system, u, v):
    """The flow, off its checkerboards."""
    h, w = u.shape
    flat, us, vs = system.reshape(-1), u.reshape(-1), v.reshape(-1)
    half = U(system.shape[3])
    board = U(system.shape[2]) * half
    for i in range(h):
        even = U(i & 1) * board + U(i + 1) * half + U(1)
        odd = U(1 - (i & 1)) * board + U(i + 1) * half + U(1)
        _weave(flat, even, odd, us, U(i) * U(w), w)
        _weave(flat, U(2) * board + even, U(2) * board + odd, vs, U(i) * U(w), w)


@uncounted
def _deal(row, p, boards, even, odd, w):
    """Numbers of a row, those of even columns and those of odd ones apart."""
    whole = U(w) // U(16) * U(16)
    for x in range(U(0), whole, U(16)):
        a, b = lanes.load8(row, p + x), lanes.load8(row, p + x + U(8))
        lanes.store8(boards, even + x // U(2), lanes.evens(a, b))
        lanes.store8(boards, odd + x // U(2), lanes.odds(a, b))
    for x in range(whole, U(w)):
        boards[(odd if x & U(1) else even) + x // U(2)] = row[p + x]


@uncounted
def _weave(boards, even, odd, row, p, w):
    """The same back into a row."""
    whole = U(w) // U(16) * U(16)
    for x in range(U(0), whole, U(16)):
        a, b = lanes.load8(boards, even + x // U(2)), lanes.load8(boards, odd + x // U(2))
        lanes.store8(row, p + x, lanes.woven_low(a, b))
        lanes.store8(row, p + x + U(8), lanes.woven_high(a, b))
    for x in range(whole, U(w)):
        row[p + x] = boards[(odd if x & U(1) else even) + x // U(2)]
