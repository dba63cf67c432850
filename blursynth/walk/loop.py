"""The compiled loop of integrate.py: one interval's light, walked pixel by pixel along its motion, on one core.

Names, here, in the rest of the room and in gpu.py:

- frames 0 and 1 (first, second) bound the interval; t, 0 to 1, is a time in it, u = 1 - t; the window's clock counts
  frames: i + t
- f = (fx, fy) and b = (bx, by): flows to the next frame and back, px, at the place that is looked at
- k: sub-steps of a pixel; n = 0..k: its nodes, n = 0 at the opening `lo`, n = k at the closing `hi`
- x, y: the pixel that collects; p: its first number in a flat image of four lanes, q: in a flat flow
- qx, qy: where it looks; with a shaking camera that is elsewhere than at x, y
- the fourth lane of light is one, and sums up the weights
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import compiled, inlined, uncounted
from blursynth.walk import lanes
from blursynth.walk.frame import light_of
from blursynth.walk.lanes import U
from blursynth.walk.nodes import Nodes, fill, shares
from blursynth.walk.sample import add_both, add_one, view
from blursynth.walk.steps import (
    BLOCK,
    FAR,
    HOT_BLOCK,
    HOT_STEPS,
    STEP_PX,
    Row,
    add_steps,
    find_hot,
    plan_row,
    plan_shaken_row,
    reflect,
    share_steps,
)
from blursynth.walk.vote import add_between, add_vote, find_disputed

WALK = "6023d1089568"  # of `blursynth/walk`, whose code is compiled into this file's: test_walk.py says what to put

STILL = np.float32(1e-3)
"""Motion, px, below which a pixel stands still: it needs no interpolation, and keeps its bits."""


class Looks(NamedTuple):
    """Where the pixels of a block look in one frame, node by node, and what they take: BLOCK numbers a node.

    at: uint32, the first number of the sample's upper left pixel; down: share of the row below; left, right: weights of
    the two columns.
    """

    at: np.ndarray
    down: np.ndarray
    left: np.ndarray
    right: np.ndarray


@compiled
def accumulate(acc, held, pair, shutter, i, kmax):
    """Add interval i's share of every row's exposure to acc, flat (H * W * 4); at most kmax sub-steps a pixel.

    held, flat (H * W), of a shaking camera: weight of the interval's last frame that the next interval takes the light
    of, together with its own.

    Returns the sub-steps taken in all, the most by one pixel, and whether all flows are numbers.
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
    padded, n = (w + BLOCK - 1) // BLOCK * BLOCK, side * BLOCK
    f = np.zeros((5, padded), np.float32)
    row = Row(f[0], f[1], f[2], f[3], np.zeros(padded, np.int32), f[4])
    g = np.empty((6, n), np.float32)
    looks = Looks(np.empty(n, np.uint32), g[0], g[1], g[2]), Looks(np.empty(n, np.uint32), g[3], g[4], g[5])
    disputed = np.zeros(((h + 1) // 2, (w + 1) // 2), np.bool_)  # a block of two by two pixels, by its first
    sound, margin = True, zero
    if shaken:  # looks at rows far from its own
        margin, sound = _farthest(pair, shutter.path)
        for y in range(0, h, 2):
            find_disputed(disputed[y // 2], pair, y)
    taken, longest = 0, 0
    was = (zero, zero, zero, zero)
    for y in range(h):
        opened, length = shutter.start[y] - np.float32(i), shutter.stop[y] - shutter.start[y]
        lo = min(max(opened, zero), one)
        hi = min(max(shutter.stop[y] - np.float32(i), zero), one)
        if not shaken and y % 2 == 0:
            find_disputed(disputed[y // 2], pair, y)
        if hi <= lo or not sound:
            continue
        planned = shaken and y % 2 == 1 and was == (opened, length, lo, hi)
        if was != (opened, length, lo, hi):  # rows of a rolling shutter have times of their own
            was = (opened, length, lo, hi)
            nodes.known[:] = False
        if planned:
            farthest = zero  # of two rows that are open at the same times the first decides for both
        elif shaken:
            farthest = plan_shaken_row(row, pair, shutter, y, lo, hi, opened, length, kmax)
        else:
            farthest, sound = plan_row(row, pair.fwd, pair.bwd, y * w, w, hi - lo, shutter.fine, kmax)
        if farthest * (hi - lo) > np.float32(kmax) * STEP_PX:
            if not sought:
                hot = np.zeros((h // HOT_BLOCK + 1, w // HOT_BLOCK + 1), np.bool_)
                found = find_hot(hot, np.empty(4 * w, np.float32), pair)
                sought = True
            if found:
                add_steps(row, pair, hot, y, hi - lo, kmax)
                if not shaken:
                    share_steps(row.steps, w)
        if shaken:
            k, most = _collect_shaken_row(
                acc, held, pair, shutter, nodes, row, disputed, y, i, lo, hi, opened, length, margin
            )
        elif sound:
            k, most = _collect_row(acc, pair, shutter, nodes, row, looks, disputed, y, lo, hi, opened, length)
        taken += k
        longest = max(longest, most)
    return taken, longest, sound


@uncounted
def _collect_row(acc, pair, shutter, nodes, row, looks, disputed, y, lo, hi, opened, length):
    """Row y of `accumulate`, with the camera at rest: the frames themselves are the nodes at t = 0 and 1."""
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    w, h = pair.w, pair.h
    fx, fy, bx, by, steps, reach = row
    smooth0, smooth1 = pair.first.smooth, pair.second.smooth
    looks0, looks1 = looks
    seen, below = view(w, h), U(w) * U(4)
    # Weights of the two frames, where they are exact: a still pixel's exposure is theirs alone.
    if shutter.boxed:
        still0 = (hi - lo) * (half * ((one - lo) + (one - hi)))
        still1 = (hi - lo) * (half * (lo + hi))
    else:
        early, late = shares(shutter.profile, lo, hi, zero, one, opened, length)
        still0, still1 = np.float32(early), np.float32(late)
    first, after = (1 if lo == 0 else 0), (0 if hi == 1 else 1)
    taken, longest = 0, 0
    for x0 in range(0, w, BLOCK):
        k, count = steps[U(x0)], min(BLOCK, w - x0)
        taken += k * count
        longest = max(longest, k)
        if not nodes.known[k]:
            fill(nodes, k, lo, hi, opened, length, shutter)
        end0 = nodes.weight[U(k), U(0)] if first == 1 else zero
        end1 = nodes.weight[U(k), U(k)] if after == 0 else zero
        end = _look(looks, row, nodes, k, first, k + after, x0, y, w, h)
        for j in range(U(count)):
            x = U(x0) + j
            p = (U(y) * U(w) + x) * U(4)
            still = reach[x] < STILL
            total = lanes.zeros8()
            if not still and k > 1 and disputed[U(y) // U(2), x // U(2)]:
                for n in range(first, k + after):
                    t, wt = nodes.time[U(k), U(n)], nodes.weight[U(k), U(n)]
                    px, py = np.float32(x), np.float32(y)  # an int64 beside a float32 would make float64
                    fade = lanes.mul(lanes.all4(one - t), light_of(pair.first, p // U(4)))
                    fade = lanes.widened(lanes.fma(lanes.all4(t), light_of(pair.second, p // U(4)), fade))
                    total = add_vote(total, pair, seen, px, py, t, fx[x], fy[x], bx[x], by[x], wt, fade)
            elif not still:
                m = j
                while m < end:
                    total = _add(total, smooth0, looks0, m, below)
                    total = _add(total, smooth1, looks1, m, below)
                    m += U(BLOCK)
            light = lanes.add(lanes.load4(acc, p), lanes.fold(total))
            light = lanes.fma(lanes.all4(still0 if still else end0), light_of(pair.first, p // U(4)), light)
            light = lanes.fma(lanes.all4(still1 if still else end1), light_of(pair.second, p // U(4)), light)
            lanes.store4(acc, p, light)
    return taken, longest


@inlined
def _add(total, smooth, looks, m, below):
    """total + look m into an image, whose rows are `below` numbers apart."""
    at = U(looks.at[m])
    upper = lanes.load8(smooth, at)
    lower = lanes.load8(smooth, at + below)
    between = lanes.fma(lanes.all8(looks.down[m]), lanes.sub(lower, upper), upper)
    return lanes.fma(between, lanes.halves(looks.left[m], looks.right[m]), total)


@inlined
def _look(looks, row, nodes, k, first, end, x0, y, w, h):
    """Fills the looks of the block that starts at x0 into both frames, at nodes first..end - 1: SuperSloMo's two-sided
    sample, as `vote.add_between` has it. Returns the number of looks into a frame."""
    at = U(x0)
    fx, fy = lanes.load8(row.fx, at), lanes.load8(row.fy, at)
    bx, by = lanes.load8(row.bx, at), lanes.load8(row.by, at)
    sx, sy = lanes.add(fx, bx), lanes.add(fy, by)
    px, py = lanes.add(lanes.all8(np.float32(x0)), lanes.count8()), lanes.all8(np.float32(y))
    m = U(0)
    for n in range(first, end):
        t, wt = nodes.time[U(k), U(n)], nodes.weight[U(k), U(n)]
        u = np.float32(1) - t
        for frame in range(2):
            v, gx, gy = (t, fx, fy) if frame == 0 else (u, bx, by)
            time = lanes.all8(v)
            ax = lanes.fma(time, lanes.sub(lanes.mul(time, sx), gx), px)
            ay = lanes.fma(time, lanes.sub(lanes.mul(time, sy), gy), py)
            _place(
                looks[0] if frame == 0 else looks[1], m, ax, ay, lanes.all8((np.float32(1) - v) * wt), w, h
            )
        m += U(BLOCK)
    return m


@inlined
def _place(looks, m, ax, ay, weight, w, h):
    """Writes looks m..m + 7: at places ax, ay of an image, with this weight."""
    ax = lanes.clamp(ax, lanes.all8(np.float32(w - 1)))
    ay = lanes.clamp(ay, lanes.all8(np.float32(h - 1)))
    x, y = lanes.whole(ax, lanes.whole8(np.int32(w - 2))), lanes.whole(ay, lanes.whole8(np.int32(h - 2)))
    right = lanes.mul(lanes.sub(ax, lanes.floats(x)), weight)
    lanes.store8(looks.at, m, lanes.lane_of(x, y, lanes.whole8(np.int32(w))))
    lanes.store8(looks.down, m, lanes.sub(ay, lanes.floats(y)))
    lanes.store8(looks.left, m, lanes.sub(weight, right))
    lanes.store8(looks.right, m, right)


@inlined
def _turned(nodes, k, n, xx, yy, px, py, w, h, inside):
    """Where the pixel c + (xx, yy) = (px, py) looks at node n of k; outside the frame is its mirror image."""
    turn, sin = nodes.pose[U(k), U(n), U(0)], nodes.pose[U(k), U(n), U(1)]
    qx = px + (turn * xx + sin * yy + nodes.pose[U(k), U(n), U(2)])
    qy = py + (turn * yy - sin * xx + nodes.pose[U(k), U(n), U(3)])
    if not inside:
        qx, qy = reflect(qx, np.float32(w - 1)), reflect(qy, np.float32(h - 1))
    return qx, qy


@uncounted
def _farthest(pair, path):
    """The most, px, that the camera's path and a flow together can lead a pixel astray; whether all flows are numbers."""
    flow2, faults = np.float32(0), 0
    for q in range(pair.w * pair.h):
        fx, fy, bx, by = pair.fwd[2 * q], pair.fwd[2 * q + 1], pair.bwd[2 * q], pair.bwd[2 * q + 1]
        f2, b2 = fx * fx + fy * fy, bx * bx + by * by
        faults += not f2 + b2 < FAR * FAR
        flow2 = max(flow2, max(f2, b2))
    radius = np.sqrt(np.float32(pair.w * pair.w + pair.h * pair.h)) / 2
    sway = np.float32(0)
    for j in range(path.shape[0]):
        sway = max(sway, np.float32(np.sqrt(path[j, 0] ** 2 + path[j, 1] ** 2) + abs(path[j, 2]) * radius))
    return np.sqrt(flow2) + sway + np.float32(1), faults == 0


@uncounted
def _collect_shaken_row(acc, held, pair, shutter, nodes, row, disputed, y, i, lo, hi, opened, length, margin):
    """Row y of `accumulate` under a shaking camera: at each node the pixel looks elsewhere, and meets the motion there."""
    w, h, steps = pair.w, pair.h, row.steps
    smooth0, smooth1, fwd, bwd = pair.first.smooth, pair.second.smooth, pair.fwd, pair.bwd
    half, seen = np.float32(0.5), view(w, h)
    # The frame at the end is the next interval's first: sampled once.
    goes_on = shutter.stop[y] > np.float32(i + 1)
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
            fill(nodes, k, lo, hi, opened, length, shutter)
        px, py = np.float32(x), np.float32(y)
        xx = px + xx0
        inside = px >= margin and py >= margin and px + margin < last_x and py + margin < last_y
        total = lanes.zeros8()
        if lo == 0:  # frame 0 itself, wherever the camera points
            qx, qy = _turned(nodes, k, 0, xx, yy, px, py, w, h, inside)
            wt = nodes.weight[U(k), U(0)] + held[p // U(4)]
            total = add_one(total, smooth0, seen, qx, qy, wt)
        for n in range(first, k + after):
            t, wt = nodes.time[U(k), U(n)], nodes.weight[U(k), U(n)]
            qx, qy = _turned(nodes, k, n, xx, yy, px, py, w, h, inside)
            # The flow of the nearest pixel: between pixels of one motion it hardly changes, across an edge of two
            # motions a mean of both would be neither.
            ix, iy = U(qx + half), U(qy + half)
            q = (iy * U(w) + ix) * U(2)
            fx, fy, bx, by = fwd[q], fwd[q + U(1)], bwd[q], bwd[q + U(1)]
            if k > 1 and disputed[iy // U(2), ix // U(2)]:
                zero, u = np.float32(0), np.float32(1) - t
                at, time_shares = lanes.four(qx, qy, qx, qy), lanes.four(u, zero, t, zero)
                fade = add_both(lanes.zeros8(), smooth0, smooth1, seen, at, time_shares)
                total = add_vote(total, pair, seen, qx, qy, t, fx, fy, bx, by, wt, fade)
            else:
                total = add_between(total, pair, seen, qx, qy, t, fx, fy, bx, by, wt)
        if goes_on:
            held[p // U(4)] = nodes.weight[U(k), U(k)]
        elif hi == 1:
            qx, qy = _turned(nodes, k, k, xx, yy, px, py, w, h, inside)
            total = add_one(total, smooth1, seen, qx, qy, nodes.weight[U(k), U(k)])
        lanes.store4(acc, p, lanes.add(lanes.load4(acc, p), lanes.fold(total)))
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
