"""Where the flows of an interval disagree, and the vote of motions that settles what is seen there: compiled."""

from __future__ import annotations

import numpy as np

from blursynth.common.compiled import inlined, uncounted
from blursynth.walk import lanes
from blursynth.walk.lanes import U
from blursynth.walk.sample import add_both, both_flows, view

BLEND, FADE, ONE_SIDED = np.float32(0.07), np.float32(0.05), np.float32(0.05)
"""Votes, beside 1 for a motion borne out by both frames: the two-sided sample, the cross-fade, and a motion borne
out by one frame only. Chosen on the bench's scenes and the dropped-frame test of real clips."""

SPREAD = (np.float32(0.25), np.float32(0.04))
"""How far a motion m may miss and still count half in a vote: SPREAD[0] + SPREAD[1] |m|^2, px^2."""

APART = (np.float32(2.5), np.float32(0.02))
"""Flows that miss each other by more than APART[0] + APART[1] |m|^2, px^2, are put to the vote."""


@uncounted
def find_disputed(disputed, pair, y):
    """Where in row y the flows miss each other too far to be trusted: the first pixel of two decides for both."""
    fwd, bwd, w, h = pair.fwd, pair.bwd, pair.w, pair.h
    seen = view(w, h)
    py = np.float32(y)
    for j in range((w + 1) // 2):
        px = np.float32(2 * j)
        q = (U(y) * U(w) + U(2) * U(j)) * U(2)
        fx, fy, bx, by = fwd[q], fwd[q + U(1)], bwd[q], bwd[q + U(1)]
        at = lanes.four(px + fx, py + fy, px + bx, py + by)
        gx, gy, hx, hy = lanes.parts(both_flows(bwd, fwd, seen, at))
        apart2 = max((fx + gx) ** 2 + (fy + gy) ** 2, (bx + hx) ** 2 + (by + hy) ** 2)
        far2 = max(fx * fx + fy * fy, bx * bx + by * by)
        disputed[U(j)] = apart2 > APART[0] + APART[1] * far2


@inlined
def add_between(total, pair, seen, x, y, t, fx, fy, bx, by, s):
    """total + s * light at (x, y) and time t where both flows agree: SuperSloMo's two-sided sample."""
    u = np.float32(1) - t
    # -u t F01 + t^2 F10 = t (t (F01 + F10) - F01), and the same from the other frame.
    sx, sy = fx + bx, fy + by
    at = lanes.four(
        x + t * (t * sx - fx), y + t * (t * sy - fy), x + u * (u * sx - bx), y + u * (u * sy - by)
    )
    zero = np.float32(0)
    weight = lanes.four(u * s, zero, t * s, zero)
    return add_both(total, pair.first.smooth, pair.second.smooth, seen, at, weight)


@inlined
def add_vote(total, pair, seen, x, y, t, fx, fy, bx, by, s, fade):
    """total + s * light at (x, y) and time t where the flows disagree: a vote of motions, each as far as the frames bear
    it out.

    A motion m that is true for (x, t) is found again in frame 0 at x - t m (there the forward flow is m) and in
    frame 1 at x + (1 - t) m (there the backward flow is -m); content that is hidden in one frame is borne out by
    the other alone, and sampled from it alone. The two-sided sample and the cross-fade of what both frames have at
    (x, y), `fade`, keep a small vote each, so that nothing is torn where no motion is borne out.
    """
    one, zero = np.float32(1), np.float32(0)
    u = one - t
    first, second, w, h = pair.first.smooth, pair.second.smooth, pair.w, pair.h
    light = add_between(lanes.zeros8(), pair, seen, x, y, t, fx, fy, bx, by, BLEND)
    light = lanes.fma(fade, lanes.all8(FADE), light)
    votes = BLEND + FADE
    for candidate in range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        at = lanes.four(ax, ay, cx, cy)
        qx, qy, px, py = lanes.parts(both_flows(pair.fwd, pair.bwd, seen, at))
        spread = SPREAD[0] + SPREAD[1] * (mx * mx + my * my)
        in0 = spread / (spread + (qx - mx) ** 2 + (qy - my) ** 2)
        in1 = spread / (spread + (px + mx) ** 2 + (py + my) ** 2)
        in0 *= in0
        in1 *= in1
        if ax < 0 or ay < 0 or ax > w - 1 or ay > h - 1:
            in0 = zero
        if cx < 0 or cy < 0 or cx > w - 1 or cy > h - 1:
            in1 = zero
        vote = in0 * in1 + ONE_SIDED * (in0 * in0 + in1 * in1)
        w0 = u * in0 + np.float32(1e-4)
        w1 = t * in1 + np.float32(1e-4)
        share = vote / (w0 + w1)
        light = add_both(light, first, second, seen, at, lanes.four(share * w0, zero, share * w1, zero))
        votes += vote
    return lanes.fma(light, lanes.all8(s / votes), total)
