"""The compiled loop of integrate.py: one interval's light, walked pixel by pixel along its motion, on one core.

Names, here and in gpu.py:

- frames 0 and 1 bound the interval; t, 0 to 1, is a time in it, u = 1 - t; the window's clock counts frames: i + t
- f = (fx, fy) and b = (bx, by): flows to the next frame and back, px, at the place that is looked at
- k: sub-steps of a pixel; n = 0..k: its nodes, n = 0 at the opening `lo`, n = k at the closing `hi`
- x, y: the pixel that collects; p: its first number in a flat image of four lanes, q: in a flat flow
- qx, qy: where it looks; with a shaking camera that is elsewhere than at x, y
- the fourth lane of light is one, and sums up the weights

One long file: numba's cache knows a function by the file it stands in, and would keep what it inlined from another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import compiled, inlined

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


HOT_STEPS, HOT_STEP_PX, HOT_BLOCK = 256, np.float32(0.75), 8
"""Where the way crosses light above white, steps are HOT_STEP_PX, up to HOT_STEPS of them, whatever `fps_up`: a lamp's streak
would fall into dashes. Such light is looked for in blocks of HOT_BLOCK px."""

STILL = np.float32(1e-3)
"""Motion, px, below which a pixel stands still: it needs no interpolation, and keeps its bits."""


class Pair(NamedTuple):
    """Two frames and what lies between them, flat float32: light, quasi (H * W * 4), pre-filtered; flows (H * W * 2)."""

    light0: np.ndarray
    light1: np.ndarray
    quasi0: np.ndarray
    quasi1: np.ndarray
    fwd: np.ndarray
    bwd: np.ndarray
    w: int
    h: int


class Open(NamedTuple):
    """When rows collect light and what moves meanwhile: `shutter.Shutter`, and the camera's path in radians.

    start, stop (H,); profile: its P weights and their two running integrals (`shutter.Shutter.integrals`), float64;
    path (Q, 3) float32 of x, y px and roll, over start..stop; Q = 0: at rest; fine: by
    how much the sub-steps are shorter than a box's.
    """

    start: np.ndarray
    stop: np.ndarray
    profile: tuple[np.ndarray, np.ndarray, np.ndarray]
    boxed: bool
    path: np.ndarray
    fine: np.float32


class Nodes(NamedTuple):
    """Of a row, for every number of sub-steps k that one of its pixels takes: what its nodes n = 0..k are.

    time, weight (K + 1, K + 1); pose (K + 1, K + 1, 4), the camera's (see `_pose`); known (K + 1,): filled in yet?
    """

    time: np.ndarray
    weight: np.ndarray
    pose: np.ndarray
    known: np.ndarray


U = np.uintp
"""Index type: numba wraps negative signed indices, which would cost more than the fetch itself."""


@inlined
def _clamped(x, y, w, h):
    """Flat index of one sample's corner pixel, drawn into the image, and its bilinear weights."""
    x = min(max(x, np.float32(0)), np.float32(w - 1))
    y = min(max(y, np.float32(0)), np.float32(h - 1))
    return _corner(x, y, min(int(x), w - 2), min(int(y), h - 2), w)


@inlined
def _inside(x, y, w, h):
    """The same of a sample known to have all four pixels."""
    return _corner(x, y, int(x), int(y), w)


@inlined
def _corner(x, y, x0, y0, w):
    a = x - np.float32(x0)
    b = y - np.float32(y0)
    ab = a * b
    return U(y0) * U(w) + U(x0), np.float32(1) - a - b + ab, a - ab, b - ab, ab


@inlined
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


@inlined
def sample2(flow, w, h, x, y):
    """Bilinear sample of a flat (H * W * 2) flow."""
    p, w00, w01, w10, w11 = _clamped(x, y, w, h)
    i = p * U(2)
    j = i + U(w) * U(2)
    return (
        w00 * flow[i] + w01 * flow[i + U(2)] + w10 * flow[j] + w11 * flow[j + U(2)],
        w00 * flow[i + U(1)] + w01 * flow[i + U(3)] + w10 * flow[j + U(1)] + w11 * flow[j + U(3)],
    )


@inlined
def _between(fetch, quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, s):
    """s * light at (x, y) and time t where both flows agree: SuperSloMo's two-sided sample."""
    u = np.float32(1) - t
    # -u t F01 + t^2 F10 = t (t (F01 + F10) - F01), and the same from the other frame.
    sx, sy = fx + bx, fy + by
    a0, a1, a2, a3 = _sample4(fetch, quasi0, w, h, x + t * (t * sx - fx), y + t * (t * sy - fy), u * s)
    c0, c1, c2, c3 = _sample4(fetch, quasi1, w, h, x + u * (u * sx - bx), y + u * (u * sy - by), t * s)
    return a0 + c0, a1 + c1, a2 + c2, a3 + c3


@inlined
def _vote(pair, x, y, t, fx, fy, bx, by, s, f0, f1, f2, f3):
    """s * light at (x, y) and time t where the flows disagree: a vote of motions, each as far as the frames bear it out.

    A motion m that is true for (x, t) is found again in frame 0 at x - t m (there the forward flow is m) and in
    frame 1 at x + (1 - t) m (there the backward flow is -m); content that is hidden in one frame is borne out by
    the other alone, and sampled from it alone. The two-sided sample and the cross-fade (FADE times it: f0..f3) keep
    a small vote each, so that nothing is torn where no motion is borne out.
    """
    one = np.float32(1)
    u = one - t
    quasi0, quasi1, w, h = pair.quasi0, pair.quasi1, pair.w, pair.h
    r0, r1, r2, r3 = _between(_clamped, quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, BLEND)
    r0 += f0
    r1 += f1
    r2 += f2
    r3 += f3
    for candidate in range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        qx, qy = sample2(pair.fwd, w, h, ax, ay)
        px, py = sample2(pair.bwd, w, h, cx, cy)
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


@inlined
def _contested(pair, p, x, y, t, fx, fy, bx, by, s):
    """`_vote` at the pixel (x, y) itself."""
    l0, l1 = pair.light0, pair.light1
    u = np.float32(1) - t
    f0 = FADE * (u * l0[p + U(0)] + t * l1[p + U(0)])
    f1 = FADE * (u * l0[p + U(1)] + t * l1[p + U(1)])
    f2 = FADE * (u * l0[p + U(2)] + t * l1[p + U(2)])
    f3 = FADE * (u * l0[p + U(3)] + t * l1[p + U(3)])
    return _vote(pair, x, y, t, fx, fy, bx, by, s, f0, f1, f2, f3)


@inlined
def _contested_at(pair, x, y, t, fx, fy, bx, by, s):
    """`_vote` at any place."""
    a0, a1, a2, a3 = _sample4(_clamped, pair.light0, pair.w, pair.h, x, y, FADE * (np.float32(1) - t))
    c0, c1, c2, c3 = _sample4(_clamped, pair.light1, pair.w, pair.h, x, y, FADE * t)
    return _vote(pair, x, y, t, fx, fy, bx, by, s, a0 + c0, a1 + c1, a2 + c2, a3 + c3)


@inlined
def _moments(profile, at):
    """Integrals of the profile, linear between its P weights, and of place times profile, from 0 to `at` (0..P - 1)."""
    weights, sums, firsts = profile
    last = len(weights) - 1
    at = min(max(at, 0.0), float(last))
    j = min(int(at), last - 1)
    a, p, d = at - j, weights[j], weights[j + 1] - weights[j]
    mass = a * (p + a * d / 2)
    return sums[j] + mass, firsts[j] + j * mass + a * a * (p / 2 + a * d / 3)


@compiled
def _shares(profile, lo, hi, t0, t1, opened, length):
    """The profile's light from lo to hi, in frames of full light, shared out to its instants t0 and t1 as light that
    changes evenly between them would be: exact for any profile."""
    per_frame = (len(profile[0]) - 1) / length
    a, b = (lo - opened) * per_frame, (hi - opened) * per_frame
    m0, f0 = _moments(profile, a)
    m1, f1 = _moments(profile, b)
    at0, at1 = (t0 - opened) * per_frame, (t1 - opened) * per_frame
    late = ((f1 - f0) - at0 * (m1 - m0)) / (at1 - at0)
    return (m1 - m0 - late) / per_frame, late / per_frame


@inlined
def _pose(path, share):
    """Where the camera's picture at `share` (0 to 1) of the path looks: the pixel at c + (X, Y) sees what lies at
    c + (X, Y) + (turn X + sin Y + x, turn Y - sin X + y) in the frames; returns turn (cos - 1), sin, x, y."""
    last = path.shape[0] - 1
    at = min(max(share * np.float32(last), np.float32(0)), np.float32(last))
    j = min(int(at), last - 1)
    a = at - np.float32(j)
    dx = path[j, 0] + a * (path[j + 1, 0] - path[j, 0])
    dy = path[j, 1] + a * (path[j + 1, 1] - path[j, 1])
    roll = path[j, 2] + a * (path[j + 1, 2] - path[j, 2])
    sin, half = np.sin(roll), np.sin(roll * np.float32(0.5))
    turn = np.float32(-2) * half * half
    cos = turn + np.float32(1)
    return turn, sin, -(cos * dx + sin * dy), sin * dx - cos * dy


@inlined
def _reflect(v, last):
    """A coordinate beyond the picture's first or last pixel, mirrored there."""
    v = abs(v)
    v = last - abs(last - v)
    return min(max(v, np.float32(0)), last)


@compiled
def _fill(nodes, k, lo, hi, opened, length, shutter):
    """The nodes of pixels of k sub-steps in a row that collects from lo to hi of this interval, having opened at
    `opened` for `length` frames."""
    shaken = shutter.path.shape[0] > 0
    dt = (hi - lo) / np.float32(k)
    for n in range(k + 1):
        t = hi if n == k else lo + np.float32(n) * dt
        nodes.time[k, n] = t
        nodes.weight[k, n] = dt * np.float32(0.5) if n == 0 or n == k else dt
        if shaken:
            turn, sin, dx, dy = _pose(shutter.path, (t - opened) / length)
            nodes.pose[k, n, 0], nodes.pose[k, n, 1], nodes.pose[k, n, 2], nodes.pose[k, n, 3] = (
                turn,
                sin,
                dx,
                dy,
            )
    if not shutter.boxed:
        nodes.weight[k, : k + 1] = 0
        for n in range(k):
            a, b = nodes.time[k, n], nodes.time[k, n + 1]
            early, late = _shares(shutter.profile, a, b, a, b, opened, length)
            nodes.weight[k, n] += np.float32(early)
            nodes.weight[k, n + 1] += np.float32(late)
    nodes.known[k] = True


@inlined
def _count(path, kmax):
    """Sub-steps of a path, px."""
    k = np.int32(
        np.ceil(max(path * (np.float32(1) / STEP_PX), min(path, SHORT_PATH) * (np.float32(1) / SHORT_PX)))
    )
    return min(max(k, np.int32(1)), np.int32(kmax))


@compiled
def _plan_row(steps, reach, fwd, bwd, first, w, span, fine, kmax):
    """Sub-steps and longer motion, px, of each pixel of a row, whose first pixel is number `first`.

    A loop of its own, which the compiler turns into SIMD: inside the other one it cost a quarter of the whole.
    """
    for x in range(w):
        q = (first + x) * 2
        fx, fy, bx, by = fwd[q], fwd[q + 1], bwd[q], bwd[q + 1]
        length = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by))
        steps[x] = _count(length * span * fine, kmax)
        reach[x] = length


@compiled
def _arc(path, a, b):
    """Length, px, of the path's translation from share a to share b of it."""
    last = path.shape[0] - 1
    total = np.float32(0)
    for j in range(last):
        inside = min(b * last, np.float32(j + 1)) - max(a * last, np.float32(j))
        if inside > 0:
            total += inside * np.sqrt((path[j + 1, 0] - path[j, 0]) ** 2 + (path[j + 1, 1] - path[j, 1]) ** 2)
    return np.float32(total)


@compiled
def _plan_shaken_row(steps, reach, pair, shutter, y, lo, hi, opened, length, kmax):
    """The same of row y under a shaking camera: of the motion of what the pixel looks at in the middle, the scene's and
    the camera's in one, and of what the camera's path is longer than straight."""
    w, h, path, span = pair.w, pair.h, shutter.path, hi - lo
    a, b = (lo - opened) / length, (hi - opened) / length
    opening, middle, closing = _pose(path, a), _pose(path, (a + b) * np.float32(0.5)), _pose(path, b)
    straight = np.sqrt((closing[2] - opening[2]) ** 2 + (closing[3] - opening[3]) ** 2)
    curl = max(_arc(path, a, b) - straight, np.float32(0))
    cx, cy = np.float32(w - 1) / 2, np.float32(h - 1) / 2
    yy = np.float32(y) - cy
    for x in range(0, w, 2):
        xx = np.float32(x) - cx
        qx = _reflect(np.float32(x) + middle[0] * xx + middle[1] * yy + middle[2], np.float32(w - 1))
        qy = _reflect(np.float32(y) + middle[0] * yy - middle[1] * xx + middle[3], np.float32(h - 1))
        q = (U(qy + np.float32(0.5)) * U(w) + U(qx + np.float32(0.5))) * U(2)
        turn, sin = closing[0] - opening[0], closing[1] - opening[1]
        sx = (
            turn * xx + sin * yy + closing[2] - opening[2]
        )  # how far its look moves; content moves the other way
        sy = turn * yy - sin * xx + closing[3] - opening[3]
        fx, fy = pair.fwd[q] * span - sx, pair.fwd[q + U(1)] * span - sy
        bx, by = pair.bwd[q] * span + sx, pair.bwd[q + U(1)] * span + sy
        way = np.sqrt(max(fx * fx + fy * fy, bx * bx + by * by)) + curl
        steps[x] = _count(way * shutter.fine, kmax)
        reach[x] = way / span
        if x + 1 < w:  # the first pixel of two decides for both
            steps[x + 1], reach[x + 1] = steps[x], reach[x]


@compiled
def _find_disputed(disputed, pair, y):
    """Where in row y the flows miss each other too far to be trusted: the first pixel of two decides for both."""
    fwd, bwd, w, h = pair.fwd, pair.bwd, pair.w, pair.h
    for j in range((w + 1) // 2):
        px, py = np.float32(2 * j), np.float32(y)
        q = (U(y) * U(w) + U(2) * U(j)) * U(2)
        fx, fy, bx, by = fwd[q], fwd[q + U(1)], bwd[q], bwd[q + U(1)]
        gx, gy = sample2(bwd, w, h, px + fx, py + fy)
        hx, hy = sample2(fwd, w, h, px + bx, py + by)
        apart2 = max((fx + gx) ** 2 + (fy + gy) ** 2, (bx + hx) ** 2 + (by + hy) ** 2)
        far2 = max(fx * fx + fy * fy, bx * bx + by * by)
        disputed[U(j)] = apart2 > APART[0] + APART[1] * far2


@compiled
def _find_hot(pair):
    """Blocks of HOT_BLOCK px that light above white of either frame lies in or beside; and whether there are any."""
    w, h = pair.w, pair.h
    hot = np.zeros((h // HOT_BLOCK + 1, w // HOT_BLOCK + 1), np.bool_)
    found = False
    for y in range(h):
        for x in range(w):
            p = (y * w + x) * 4
            peak = max(max(pair.light0[p], pair.light0[p + 1]), pair.light0[p + 2])
            peak = max(max(peak, pair.light1[p]), max(pair.light1[p + 1], pair.light1[p + 2]))
            if peak > 1:
                found = True
                for j in range(max(y // HOT_BLOCK - 1, 0), min(y // HOT_BLOCK + 2, hot.shape[0])):
                    for i in range(max(x // HOT_BLOCK - 1, 0), min(x // HOT_BLOCK + 2, hot.shape[1])):
                        hot[j, i] = True
    return hot, found


@compiled
def _add_steps(steps, reach, pair, hot, y, span, kmax):
    """More steps for pixels of row y whose way, `reach * span` px, is longer than kmax steps and crosses hot light."""
    w, h = pair.w, pair.h
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


@inlined
def _most(row):
    """The largest of positive numbers. numpy's own would load numba's linear algebra, and scipy with it, at each start."""
    most = np.float32(0)
    for x in range(len(row)):
        most = max(most, row[x])
    return most


@compiled
def accumulate(acc, held, pair, shutter, i, kmax):
    """Add interval i's share of every row's exposure to acc, flat (H * W * 4); at most kmax sub-steps a pixel.

    held, flat (H * W), of a shaking camera: weight of the interval's last frame that the next interval takes the light
    of, together with its own.

    Returns the sub-steps taken in all, and the most by one pixel.
    """
    zero, one = np.float32(0), np.float32(1)
    w, h = pair.w, pair.h
    shaken = shutter.path.shape[0] > 0
    kmax = int(kmax * shutter.fine)
    side = max(kmax, HOT_STEPS) + 1
    hot, found, sought = np.zeros((0, 0), np.bool_), False, False
    nodes = Nodes(
        np.empty((side, side), np.float32), np.empty((side, side), np.float32),
        np.empty((side if shaken else 0, side, 4), np.float32), np.zeros(side, np.bool_),
    )  # fmt: skip
    steps = np.empty(w, np.int32)
    reach = np.empty(w, np.float32)
    disputed = np.zeros(((h + 1) // 2, (w + 1) // 2), np.bool_)  # a block of two by two pixels, by its first
    for y in range(0, h, 2):
        _find_disputed(disputed[y // 2], pair, y)
    margin = _farthest(pair, shutter.path) if shaken else zero
    taken, longest = 0, 0
    was = (zero, zero, zero, zero)
    for y in range(h):
        opened, length = shutter.start[y] - np.float32(i), shutter.stop[y] - shutter.start[y]
        lo = min(max(opened, zero), one)
        hi = min(max(shutter.stop[y] - np.float32(i), zero), one)
        if hi <= lo:
            continue
        planned = shaken and y % 2 == 1 and was == (opened, length, lo, hi)
        if was != (opened, length, lo, hi):  # rows of a rolling shutter have times of their own
            was = (opened, length, lo, hi)
            nodes.known[:] = False
        if planned:
            pass  # of two rows that are open at the same times the first decides for both
        elif shaken:
            _plan_shaken_row(steps, reach, pair, shutter, y, lo, hi, opened, length, kmax)
        else:
            _plan_row(steps, reach, pair.fwd, pair.bwd, y * w, w, hi - lo, shutter.fine, kmax)
        if _most(reach) * (hi - lo) > np.float32(kmax) * STEP_PX:
            if not sought:
                hot, found = _find_hot(pair)
                sought = True
            if found:
                _add_steps(steps, reach, pair, hot, y, hi - lo, kmax)
        if shaken:
            k, most = _collect_shaken_row(
                acc, held, pair, shutter, nodes, steps, disputed, y, i, lo, hi, opened, length, margin
            )
        else:
            k, most = _collect_row(
                acc, pair, shutter, nodes, steps, reach, disputed, y, lo, hi, opened, length
            )
        taken += k
        longest = max(longest, most)
    return taken, longest


@compiled
def _collect_row(acc, pair, shutter, nodes, steps, reach, disputed, y, lo, hi, opened, length):
    """Row y of `accumulate`, with the camera at rest: the frames themselves are the nodes at t = 0 and 1."""
    half, one = np.float32(0.5), np.float32(1)
    w, h = pair.w, pair.h
    light0, light1, quasi0, quasi1, fwd, bwd = (
        pair.light0,
        pair.light1,
        pair.quasi0,
        pair.quasi1,
        pair.fwd,
        pair.bwd,
    )
    # Weights of the two frames, where they are exact: a still pixel's exposure is theirs alone.
    if shutter.boxed:
        still0 = (hi - lo) * (half * ((one - lo) + (one - hi)))
        still1 = (hi - lo) * (half * (lo + hi))
    else:
        early, late = _shares(shutter.profile, lo, hi, np.float32(0), one, opened, length)
        still0, still1 = np.float32(early), np.float32(late)
    first, after = (1 if lo == 0 else 0), (0 if hi == 1 else 1)
    taken, longest = 0, 0
    for x in range(w):
        p = (U(y) * U(w) + U(x)) * U(4)
        q = p // U(2)
        k = steps[U(x)]
        far = reach[U(x)]
        taken += k
        longest = max(longest, k)
        if not nodes.known[k]:
            _fill(nodes, k, lo, hi, opened, length, shutter)
        px, py = np.float32(x), np.float32(y)  # an int64 beside a float32 would make float64
        fx, fy = fwd[q], fwd[q + U(1)]
        bx, by = bwd[q], bwd[q + U(1)]
        still = far < STILL
        contested = k > 1 and disputed[U(y) // U(2), U(x) // U(2)]
        inside = (
            px >= far and py >= far and px + far < w - 1 and py + far < h - 1
        )  # no sample lies further off
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for n in range(k if still else first, k + (0 if still else after)):
            t, wt = nodes.time[U(k), U(n)], nodes.weight[U(k), U(n)]
            if contested:
                a0, a1, a2, a3 = _contested(pair, p, px, py, t, fx, fy, bx, by, wt)
            elif inside:
                a0, a1, a2, a3 = _between(_inside, quasi0, quasi1, w, h, px, py, t, fx, fy, bx, by, wt)
            else:
                a0, a1, a2, a3 = _between(_clamped, quasi0, quasi1, w, h, px, py, t, fx, fy, bx, by, wt)
            s0 += a0
            s1 += a1
            s2 += a2
            s3 += a3
        w0 = still0 if still else (nodes.weight[U(k), U(0)] if first == 1 else np.float32(0))
        w1 = still1 if still else (nodes.weight[U(k), U(k)] if after == 0 else np.float32(0))
        acc[p] += w0 * light0[p] + w1 * light1[p] + s0
        acc[p + U(1)] += w0 * light0[p + U(1)] + w1 * light1[p + U(1)] + s1
        acc[p + U(2)] += w0 * light0[p + U(2)] + w1 * light1[p + U(2)] + s2
        acc[p + U(3)] += w0 * light0[p + U(3)] + w1 * light1[p + U(3)] + s3
    return taken, longest


@inlined
def _look(nodes, k, n, xx, yy, px, py, w, h, inside):
    """Where the pixel c + (xx, yy) = (px, py) looks at node n of k; outside the frame is its mirror image."""
    turn, sin = nodes.pose[U(k), U(n), U(0)], nodes.pose[U(k), U(n), U(1)]
    qx = px + (turn * xx + sin * yy + nodes.pose[U(k), U(n), U(2)])
    qy = py + (turn * yy - sin * xx + nodes.pose[U(k), U(n), U(3)])
    if not inside:
        qx, qy = _reflect(qx, np.float32(w - 1)), _reflect(qy, np.float32(h - 1))
    return qx, qy


@compiled
def _farthest(pair, path):
    """The most, px, that the camera's path and a flow together can lead a pixel astray."""
    flow2 = np.float32(0)
    for q in range(pair.w * pair.h):
        fx, fy, bx, by = pair.fwd[2 * q], pair.fwd[2 * q + 1], pair.bwd[2 * q], pair.bwd[2 * q + 1]
        flow2 = max(flow2, max(fx * fx + fy * fy, bx * bx + by * by))
    radius = np.sqrt(np.float32(pair.w * pair.w + pair.h * pair.h)) / 2
    sway = np.float32(0)
    for j in range(path.shape[0]):
        sway = max(sway, np.float32(np.sqrt(path[j, 0] ** 2 + path[j, 1] ** 2) + abs(path[j, 2]) * radius))
    return np.sqrt(flow2) + sway + np.float32(1)


@compiled
def _collect_shaken_row(
    acc, held, pair, shutter, nodes, steps, disputed, y, i, lo, hi, opened, length, margin
):
    """Row y of `accumulate` under a shaking camera: at each node the pixel looks elsewhere, and meets the motion there."""
    w, h = pair.w, pair.h
    quasi0, quasi1, fwd, bwd = pair.quasi0, pair.quasi1, pair.fwd, pair.bwd
    half = np.float32(0.5)
    goes_on = shutter.stop[y] > np.float32(
        i + 1
    )  # the frame at the end is the next interval's first: sampled once
    first, after = (1 if lo == 0 else 0), (0 if hi == 1 else 1)
    last_x, last_y = np.float32(w - 1), np.float32(h - 1)
    xx0, yy = np.float32(-0.5) * last_x, np.float32(y) - np.float32(0.5) * last_y
    taken, longest = 0, 0
    for x in range(w):
        p = (U(y) * U(w) + U(x)) * U(4)
        k = steps[U(x)]
        taken += k
        longest = max(longest, k)
        if not nodes.known[k]:
            _fill(nodes, k, lo, hi, opened, length, shutter)
        px, py = np.float32(x), np.float32(y)
        xx = px + xx0
        inside = px >= margin and py >= margin and px + margin < last_x and py + margin < last_y
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        if lo == 0:  # frame 0 itself, wherever the camera points
            qx, qy = _look(nodes, k, 0, xx, yy, px, py, w, h, inside)
            wt = nodes.weight[U(k), U(0)] + held[p // U(4)]
            s0, s1, s2, s3 = _sample4(_clamped, quasi0, w, h, qx, qy, wt)
        for n in range(first, k + after):
            t, wt = nodes.time[U(k), U(n)], nodes.weight[U(k), U(n)]
            qx, qy = _look(nodes, k, n, xx, yy, px, py, w, h, inside)
            # The flow of the nearest pixel: between pixels of one motion it hardly changes, across an edge of two
            # motions a mean of both would be neither.
            ix, iy = U(qx + half), U(qy + half)
            q = (iy * U(w) + ix) * U(2)
            fx, fy, bx, by = fwd[q], fwd[q + U(1)], bwd[q], bwd[q + U(1)]
            if k > 1 and disputed[iy // U(2), ix // U(2)]:
                a0, a1, a2, a3 = _contested_at(pair, qx, qy, t, fx, fy, bx, by, wt)
            elif inside:
                a0, a1, a2, a3 = _between(_inside, quasi0, quasi1, w, h, qx, qy, t, fx, fy, bx, by, wt)
            else:
                a0, a1, a2, a3 = _between(_clamped, quasi0, quasi1, w, h, qx, qy, t, fx, fy, bx, by, wt)
            s0 += a0
            s1 += a1
            s2 += a2
            s3 += a3
        if goes_on:
            held[p // U(4)] = nodes.weight[U(k), U(k)]
        elif hi == 1:
            qx, qy = _look(nodes, k, k, xx, yy, px, py, w, h, inside)
            a0, a1, a2, a3 = _sample4(_clamped, quasi1, w, h, qx, qy, nodes.weight[U(k), U(k)])
            s0 += a0
            s1 += a1
            s2 += a2
            s3 += a3
        acc[p] += s0
        acc[p + U(1)] += s1
        acc[p + U(2)] += s2
        acc[p + U(3)] += s3
    return taken, longest


@compiled
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
