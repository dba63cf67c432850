"""The compiled loop of exposure.py: one interval's light, walked pixel by pixel along its motion, on one core."""

from __future__ import annotations

import numpy as np
from numba import config as numba_config
from numba import njit

numba_config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]  # a pixel's four lanes in one register: 1.5x on the loop below

STEP_PX, SHORT_PX, SHORT_PATH = np.float32(1.5), np.float32(1.1), np.float32(3)
"""Longest sub-step in pixels, and the longest on paths up to SHORT_PATH, where each node weighs more. Neither
is 1.0: whole-pixel steps would visit one interpolation phase only."""

BLEND, FADE, ONE_SIDED = np.float32(0.07), np.float32(0.05), np.float32(0.05)
"""Votes, beside 1 for a motion borne out by both frames: the two-sided sample, the cross-fade, and a motion borne
out by one frame only. Chosen on the bench's scenes and the dropped-frame test of real clips."""

SPREAD = (np.float32(0.25), np.float32(0.04))
"""How far a motion m may miss and still count half in a vote: SPREAD[0] + SPREAD[1] |m|^2, px^2."""

APART = (np.float32(2.5), np.float32(0.02))
"""Flows that miss each other by more than APART[0] + APART[1] |m|^2, px^2, are put to the vote."""


STILL = np.float32(1e-3)
"""Motion, px, below which a pixel stands still: it needs no interpolation, and keeps its bits."""


U = np.uintp
"""Index type: numba wraps negative signed indices, which would cost more than the fetch itself."""


@njit(inline="always")
def _clamped(x, y, w, h):
    """Flat index of one sample's corner pixel, drawn into the image, and its bilinear weights."""
    x = min(max(x, np.float32(0)), np.float32(w - 1))
    y = min(max(y, np.float32(0)), np.float32(h - 1))
    return _corner(x, y, min(int(x), w - 2), min(int(y), h - 2), w)


@njit(inline="always")
def _inside(x, y, w, h):
    """The same of a sample known to have all four pixels."""
    return _corner(x, y, int(x), int(y), w)


@njit(inline="always")
def _corner(x, y, x0, y0, w):
    a = x - np.float32(x0)
    b = y - np.float32(y0)
    ab = a * b
    return U(y0) * U(w) + U(x0), np.float32(1) - a - b + ab, a - ab, b - ab, ab


@njit(inline="always")
def _sample4(fetch, im, w, h, x, y, s):
    """s * bilinear sample of a flat (H * W * 4) image: one SIMD register, whose fourth lane carries the weight."""
    p, w00, w01, w10, w11 = fetch(x, y, w, h)
    w00 *= s
    w01 *= s
    w10 *= s
    w11 *= s
    i = p * U(4)
    j = i + U(w) * U(4)
    return (
        w00 * im[i] + w01 * im[i + U(4)] + w10 * im[j] + w11 * im[j + U(4)],
        w00 * im[i + U(1)] + w01 * im[i + U(5)] + w10 * im[j + U(1)] + w11 * im[j + U(5)],
        w00 * im[i + U(2)] + w01 * im[i + U(6)] + w10 * im[j + U(2)] + w11 * im[j + U(6)],
        w00 * im[i + U(3)] + w01 * im[i + U(7)] + w10 * im[j + U(3)] + w11 * im[j + U(7)],
    )


@njit(inline="always")
def sample2(flow, w, h, x, y):
    """Bilinear sample of a flat (H * W * 2) flow."""
    p, w00, w01, w10, w11 = _clamped(x, y, w, h)
    i = p * U(2)
    j = i + U(w) * U(2)
    return (
        w00 * flow[i] + w01 * flow[i + U(2)] + w10 * flow[j] + w11 * flow[j + U(2)],
        w00 * flow[i + U(1)] + w01 * flow[i + U(3)] + w10 * flow[j + U(1)] + w11 * flow[j + U(3)],
    )


@njit(inline="always")
def _between(fetch, quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, s):
    """s * light at (x, y) and time t where both flows agree: SuperSloMo's two-sided sample."""
    u = np.float32(1) - t
    # -u t F01 + t^2 F10 = t (t (F01 + F10) - F01), and the same from the other frame.
    sx, sy = fx + bx, fy + by
    a0, a1, a2, a3 = _sample4(fetch, quasi0, w, h, x + t * (t * sx - fx), y + t * (t * sy - fy), u * s)
    c0, c1, c2, c3 = _sample4(fetch, quasi1, w, h, x + u * (u * sx - bx), y + u * (u * sy - by), t * s)
    return a0 + c0, a1 + c1, a2 + c2, a3 + c3


@njit(inline="always")
def _contested(light0, light1, quasi0, quasi1, fwd, bwd, w, h, p, x, y, t, fx, fy, bx, by, s):
    """s * light at (x, y) and time t where the flows disagree: a vote of motions, each as far as the frames bear it out.

    A motion m that is true for (x, t) is found again in frame 0 at x - t m (there the forward flow is m) and in
    frame 1 at x + (1 - t) m (there the backward flow is -m); content that is hidden in one frame is borne out by
    the other alone, and sampled from it alone. The two-sided sample and the cross-fade keep a small vote each, so
    that nothing is torn where no motion is borne out.
    """
    one = np.float32(1)
    u = one - t
    r0, r1, r2, r3 = _between(_clamped, quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, BLEND)
    r0 += FADE * (u * light0[p + U(0)] + t * light1[p + U(0)])
    r1 += FADE * (u * light0[p + U(1)] + t * light1[p + U(1)])
    r2 += FADE * (u * light0[p + U(2)] + t * light1[p + U(2)])
    r3 += FADE * (u * light0[p + U(3)] + t * light1[p + U(3)])
    for candidate in range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        qx, qy = sample2(fwd, w, h, ax, ay)
        px, py = sample2(bwd, w, h, cx, cy)
        spread = SPREAD[0] + SPREAD[1] * (mx * mx + my * my)
        in0 = one / (one + ((qx - mx) ** 2 + (qy - my) ** 2) / spread)
        in1 = one / (one + ((px + mx) ** 2 + (py + my) ** 2) / spread)
        in0 *= in0
        in1 *= in1
        if ax < 0 or ay < 0 or ax > w - 1 or ay > h - 1:
            in0 = np.float32(0)
        if cx < 0 or cy < 0 or cx > w - 1 or cy > h - 1:
            in1 = np.float32(0)
        vote = in0 * in1 + ONE_SIDED * (in0 * in0 + in1 * in1)
        w0 = u * in0 + np.float32(1e-4)
        w1 = t * in1 + np.float32(1e-4)
        a0, a1, a2, a3 = _sample4(_clamped, quasi0, w, h, ax, ay, vote * w0 / (w0 + w1))
        c0, c1, c2, c3 = _sample4(_clamped, quasi1, w, h, cx, cy, vote * w1 / (w0 + w1))
        r0 += a0 + c0
        r1 += a1 + c1
        r2 += a2 + c2
        r3 += a3 + c3
    s /= r3
    return r0 * s, r1 * s, r2 * s, r3 * s


@njit(inline="always")
def _weight(t, start, to_profile, profile):
    """The shutter's weight at time t, in frames of the window."""
    last = profile.shape[0] - 1
    at = min(max((t - start) * to_profile, np.float32(0)), np.float32(last))
    j = min(int(at), last - 1)
    return profile[j] + (at - np.float32(j)) * (profile[j + 1] - profile[j])


@njit(cache=True, error_model="numpy")
def _plan_row(steps, reach, fwd, bwd, first, w, span, kmax):
    """Sub-steps and longer motion, px, of each pixel of a row, whose first pixel is number `first`.

    A loop of its own, which the compiler turns into SIMD: inside the other one it cost a quarter of the whole.
    """
    per_step, per_short = np.float32(1) / STEP_PX, np.float32(1) / SHORT_PX
    for x in range(w):
        q = (first + x) * 2
        fx, fy, bx, by = fwd[q], fwd[q + 1], bwd[q], bwd[q + 1]
        length = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by))
        path = length * span
        k = np.int32(np.ceil(max(path * per_step, min(path, SHORT_PATH) * per_short)))
        steps[x] = min(max(k, np.int32(1)), np.int32(kmax))
        reach[x] = length


@njit(inline="always")
def _find_disputed(disputed, reach, fwd, bwd, y, w, h):
    """Where in row y the flows miss each other too far to be trusted: the first pixel of two decides for both."""
    for j in range((w + 1) // 2):
        px, py = np.float32(2 * j), np.float32(y)
        q = (U(y) * U(w) + U(2) * U(j)) * U(2)
        fx, fy, bx, by = fwd[q], fwd[q + U(1)], bwd[q], bwd[q + U(1)]
        gx, gy = sample2(bwd, w, h, px + fx, py + fy)
        hx, hy = sample2(fwd, w, h, px + bx, py + by)
        apart2 = max((fx + gx) ** 2 + (fy + gy) ** 2, (bx + hx) ** 2 + (by + hy) ** 2)
        far = reach[U(2) * U(j)]
        disputed[U(j)] = apart2 > APART[0] + APART[1] * far * far


@njit(cache=True, error_model="numpy")
def accumulate(acc, light0, light1, quasi0, quasi1, fwd, bwd, w, h, start, stop, profile, boxed, i, kmax):
    """Add interval i's share of every row's exposure to acc; returns sub-steps taken in all, and the most by one pixel.

    All images and flows are flat: (H * W * 4) and (H * W * 2).
    """
    one = np.float32(1)
    half = np.float32(0.5)
    steps = np.empty(w, np.int32)
    reach = np.empty(w, np.float32)
    disputed = np.zeros((w + 1) // 2, np.bool_)  # of a block of two by two pixels, by its first
    decided = -1
    taken = 0
    longest = 0
    for y in range(h):
        lo = min(max(start[y] - np.float32(i), np.float32(0)), one)
        hi = min(max(stop[y] - np.float32(i), np.float32(0)), one)
        span = hi - lo
        if span <= 0:
            continue
        opened = start[y] - np.float32(i)
        to_profile = np.float32(profile.shape[0] - 1) / (stop[y] - start[y])
        at_lo, at_hi = one, one
        if not boxed:
            at_lo = _weight(lo, opened, to_profile, profile)
            at_hi = _weight(hi, opened, to_profile, profile)
        # Weights of the two frames at the end nodes, in sub-steps: of a still pixel's exposure both are theirs; of a
        # moving pixel's those at t = 0 and t = 1, where the frames are exact.
        still0 = half * ((one - lo) * at_lo + (one - hi) * at_hi)
        still1 = half * (lo * at_lo + hi * at_hi)
        moving0, first = (half * at_lo, 1) if lo == 0 else (np.float32(0), 0)
        moving1, after = (half * at_hi, 0) if hi == 1 else (np.float32(0), 1)
        _plan_row(steps, reach, fwd, bwd, y * w, w, span, kmax)
        if y % 2 == 0 or decided != y - 1:
            _find_disputed(disputed, reach, fwd, bwd, y, w, h)
            decided = y
        for x in range(w):
            p = (U(y) * U(w) + U(x)) * U(4)
            q = p // U(2)
            k = steps[U(x)]
            far = reach[U(x)]
            taken += k
            longest = max(longest, k)
            dt = span / np.float32(k)
            px, py = np.float32(x), np.float32(y)  # an int64 beside a float32 would make float64
            fx, fy = fwd[q], fwd[q + U(1)]
            bx, by = bwd[q], bwd[q + U(1)]
            still = far < STILL
            n0 = k if still else first
            n1 = k + (0 if still else after)
            contested = k > 1 and disputed[U(x) // U(2)]
            inside = (
                px >= far and py >= far and px + far < w - 1 and py + far < h - 1
            )  # no sample lies further off
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for n in range(n0, n1):
                t = hi if n == k else lo + np.float32(n) * dt
                wt = dt * half if n == 0 or n == k else dt
                if not boxed:
                    wt *= _weight(t, opened, to_profile, profile)
                if contested:
                    a0, a1, a2, a3 = _contested(
                        light0, light1, quasi0, quasi1, fwd, bwd, w, h, p, px, py, t, fx, fy, bx, by, wt
                    )
                elif inside:
                    a0, a1, a2, a3 = _between(_inside, quasi0, quasi1, w, h, px, py, t, fx, fy, bx, by, wt)
                else:
                    a0, a1, a2, a3 = _between(_clamped, quasi0, quasi1, w, h, px, py, t, fx, fy, bx, by, wt)
                s0 += a0
                s1 += a1
                s2 += a2
                s3 += a3
            w0 = dt * (still0 if still else moving0)
            w1 = dt * (still1 if still else moving1)
            acc[p] += w0 * light0[p] + w1 * light1[p] + s0
            acc[p + U(1)] += w0 * light0[p + U(1)] + w1 * light1[p + U(1)] + s1
            acc[p + U(2)] += w0 * light0[p + U(2)] + w1 * light1[p + U(2)] + s2
            acc[p + U(3)] += w0 * light0[p + U(3)] + w1 * light1[p + U(3)] + s3
    return taken, longest


@njit(cache=True, error_model="numpy")
def mean(acc):
    """Collected light over its weight, (H, W, 4) -> (H, W, 3)."""
    h, w = acc.shape[0], acc.shape[1]
    out = np.empty((h, w, 3), np.float32)
    for y in range(h):
        for x in range(w):
            weight = acc[y, x, 3]
            for c in range(3):
                out[y, x, c] = acc[y, x, c] / weight
    return out
