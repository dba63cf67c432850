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

from blursynth.common.compiled import compiled

F32 = np.float32

ROUNDS, SWEEPS, OMEGA = 4, 4, F32(1.6)
SMOOTHNESS, BRIGHTNESS, GRADIENT = F32(12.5), F32(2.5), F32(5.0)
"""Weights of the energy's three terms, for 8-bit codes."""
EPS2_FLOW, EPS2_CODES = F32(0.1), F32(0.03)
"""eps^2 of the penalties: of the flow's gradient, and of what the constancies miss, both in px^2. OpenCV's is 1e-6, at which a
weight hardly leaves where it started: larger ones are closer to the truth after a few rounds."""
ZETA2, STAY = F32(0.01), F32(0.01)
"""Added to a squared gradient before it divides, codes^2; and to the system's diagonal, so that flat areas stay."""

SPREAD_PX = 8
BIAS, MISS = F32(0.6), F32(20.0)
"""By how many codes another flow must miss less, mean of 3x3 px, to be taken over; above MISS codes all count alike."""
ALIKE2 = F32(0.01)
"""Flows nearer than this, px^2, are one: nothing to try."""
FARTHEST = F32(1e5)
"""A longer motion, px, or one that is not a number, counts as none."""


def refine(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The flow from first to second, float32 (H, W, 2) px, from a start as large as the frames.

    first, second: grey codes, float32 (H, W). Raises ValueError unless all three have one size of at least 2x2 px.
    """
    h, w = first.shape
    if min(h, w) < 2 or second.shape != (h, w) or flow.shape != (h, w, 2):
        raise ValueError(f"frames {first.shape}, {second.shape} and flow {flow.shape} must have one size")
    a, b, flow = (np.ascontiguousarray(x, np.float32) for x in (first, second, flow))
    u, v = (cv2.medianBlur(x, 5) for x in _spread(a, b, *cv2.split(flow)))
    middle, change, inside, along_x, along_y = np.empty((5, h, w), np.float32)
    system = np.zeros((9, 2, h + 2, (w + 1) // 2 + 2), np.float32)
    rows = np.empty((9, w), np.float32)
    for _ in range(ROUNDS):
        _draw(a, b, u, v, middle, change, inside)
        _slopes(middle, along_x, along_y)
        _set_up(along_x, along_y, change, inside, u, v, system, rows)
        _relax(system, h, w, SWEEPS)
        _read(system, u, v)
    return cv2.merge((u, v))


def _spread(a: np.ndarray, b: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow u, v, each pixel's own or that from SPREAD_PX beside, above or below, whichever the frames bear out."""
    own, tried = np.empty((2, *a.shape), np.float32)
    _miss(a, b, u, v, 0, 0, own, own)
    least = cv2.blur(own, (3, 3))
    for dx, dy in ((SPREAD_PX, 0), (-SPREAD_PX, 0), (0, SPREAD_PX), (0, -SPREAD_PX)):
        _miss(a, b, u, v, dx, dy, own, tried)
        u, v = _take(cv2.blur(tried, (3, 3)), tried, least, own, u, v, dx, dy)
    return u, v


@compiled
def _sample(flat, w, h, x, y):
    """Bilinear sample of a flat image at (x, y), drawn into it; whatever x and y are, its four pixels are the image's."""
    x = min(max(x, F32(0)), F32(w - 1))
    y = min(max(y, F32(0)), F32(h - 1))
    x0 = min(max(np.int32(x), np.int32(0)), np.int32(w - 2))
    y0 = min(max(np.int32(y), np.int32(0)), np.int32(h - 2))
    fx, fy = x - F32(x0), y - F32(y0)
    p = np.uintp(y0) * np.uintp(w) + np.uintp(x0)
    q = p + np.uintp(w)
    one = np.uintp(1)
    upper = flat[p] + fx * (flat[p + one] - flat[p])
    lower = flat[q] + fx * (flat[q + one] - flat[q])
    return upper + fy * (lower - upper)


@compiled
def _miss(a, b, u, v, dx, dy, own, out):
    """out: by how many codes the frames differ along the flow that stands at (x - dx, y - dy); own, where it is the same."""
    h, w = a.shape
    flat = b.reshape(-1)
    for i in range(h):
        there = min(max(i - dy, 0), h - 1)
        for j in range(w):
            k = min(max(j - dx, 0), w - 1)
            cu, cv = u[there, k], v[there, k]
            du, dv = cu - u[i, j], cv - v[i, j]
            if (dx != 0 or dy != 0) and du * du + dv * dv < ALIKE2:
                out[i, j] = own[i, j]
            else:
                out[i, j] = min(abs(_sample(flat, w, h, F32(j) + cu, F32(i) + cv) - a[i, j]), MISS)


@compiled
def _take(mean, miss, least, own, u, v, dx, dy):
    """The flow after each pixel has taken over the one at (x - dx, y - dy), where that misses less; least, own: kept so."""
    h, w = u.shape
    nu, nv = u.copy(), v.copy()
    for i in range(h):
        there = min(max(i - dy, 0), h - 1)
        for j in range(w):
            if mean[i, j] < least[i, j] - BIAS:
                k = min(max(j - dx, 0), w - 1)
                nu[i, j], nv[i, j] = u[there, k], v[there, k]
                least[i, j], own[i, j] = mean[i, j], miss[i, j]
    return nu, nv


@compiled
def _draw(a, b, u, v, middle, change, inside):
    """b drawn along the flow: middle, its mean with a; change, b less a; inside: 1 where the flow ends in the frame, else 0."""
    h, w = a.shape
    flat = b.reshape(-1)
    for i in range(h):
        for j in range(w):
            if not abs(u[i, j]) + abs(v[i, j]) < FARTHEST:
                u[i, j], v[i, j] = F32(0), F32(0)
            x, y = F32(j) + u[i, j], F32(i) + v[i, j]
            there = _sample(flat, w, h, x, y)
            middle[i, j] = F32(0.5) * (a[i, j] + there)
            change[i, j] = there - a[i, j]
            within = x >= F32(0) and x <= F32(w - 1) and y >= F32(0) and y <= F32(h - 1)
            inside[i, j] = F32(1) if within else F32(0)


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
def _set_up(along_x, along_y, change, inside, u, v, system, rows):
    """Fill the checkerboards of the system: the flow u, v; the inverse of each pixel's own 2x2 block, times OMEGA (three
    numbers); its right-hand side (two); the weights of its links to the right and below.

    rows: room for nine rows of work.
    """
    h, w = u.shape
    i11, i12, i22, c1, c2 = rows[0], rows[1], rows[2], rows[3], rows[4]
    right, down, up, left = rows[5], rows[6], rows[7], rows[8]
    down[:] = F32(0)
    for i in range(h):
        above, below = max(i - 1, 0), min(i + 1, h - 1)
        for j in range(w):
            up[j] = down[j]
        # What holds a pixel to its neighbours to the right and below.
        ui, vi, ub, vb = u[i], v[i], u[below], v[below]
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
        # Brightness and gradient constancy, linear in the flow.
        ix, iy, iz, within = along_x[i], along_y[i], change[i], inside[i]
        ixu, ixd, iyu, iyd = along_x[above], along_x[below], along_y[above], along_y[below]
        izu, izd = change[above], change[below]
        _slope(ix, i11)  # their place is filled last
        _slope(iz, i12)
        for j in range(w):
            x, y, z, xx, xz = ix[j], iy[j], iz[j], i11[j], i12[j]
            xy, yy, yz = (
                F32(0.5) * (ixd[j] - ixu[j]),
                F32(0.5) * (iyd[j] - iyu[j]),
                F32(0.5) * (izd[j] - izu[j]),
            )
            n = F32(1) / (x * x + y * y + ZETA2)
            g = within[j] * BRIGHTNESS * n / math.sqrt(z * z * n + EPS2_CODES)
            n1, n2 = F32(1) / (xx * xx + xy * xy + ZETA2), F32(1) / (yy * yy + xy * xy + ZETA2)
            e = within[j] * GRADIENT / math.sqrt(xz * xz * n1 + yz * yz * n2 + EPS2_CODES)
            n1 *= e
            n2 *= e
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
        for c in range(2):
            p = (i + c) & 1
            n = (w - p + 1) // 2
            for t in range(9):
                row = ui[p:]
                if t == 1:
                    row = vi[p:]
                elif t > 1:
                    row = rows[t - 2, p:]
                out = system[t, c, i + 1, 1 : 1 + n]
                for k in range(n):
                    out[k] = row[2 * k]


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
    for i in range(h):
        for c in range(2):
            p = (i + c) & 1
            n = (w - p + 1) // 2
            su, sv, ru, rv = (
                system[0, c, i + 1, 1 : 1 + n],
                system[1, c, i + 1, 1 : 1 + n],
                u[i, p:],
                v[i, p:],
            )
            for k in range(n):
                ru[2 * k], rv[2 * k] = su[k], sv[k]
