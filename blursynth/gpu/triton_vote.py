"""Where the flows of an interval disagree, and the vote that settles what is seen there, in Triton: walk/vote.py's."""

from __future__ import annotations

import triton
import triton.language as tl

from blursynth.gpu.triton_sample import flow_at, flow_between, sample
from blursynth.walk.vote import APART, BLEND, FADE, ONE_SIDED, SPREAD

_BLEND, _FADE, _ONE_SIDED = (tl.constexpr(float(v)) for v in (BLEND, FADE, ONE_SIDED))
_SPREAD0, _SPREAD1 = tl.constexpr(float(SPREAD[0])), tl.constexpr(float(SPREAD[1]))
_APART0, _APART1 = tl.constexpr(float(APART[0])), tl.constexpr(float(APART[1]))


@triton.jit
def add_vote(light, fade, smooth0, smooth1, fwd, bwd, x, y, t, fx, fy, bx, by, on, w, h):
    """walk/vote.py's `add_vote` for pixels `on`: light, which is the two-sided sample * BLEND, and the other votes'; and
    the votes in all."""
    u = 1 - t
    last_x, last_y = (w - 1).to(tl.float32), (h - 1).to(tl.float32)
    light += fade * _FADE
    votes = tl.full(t.shape, _BLEND + _FADE, tl.float32)
    for candidate in tl.static_range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        qx, qy = flow_between(fwd, ax, ay, on, w, h)
        px, py = flow_between(bwd, cx, cy, on, w, h)
        spread = _SPREAD0 + _SPREAD1 * (mx * mx + my * my)
        in0 = spread / (spread + (qx - mx) * (qx - mx) + (qy - my) * (qy - my))
        in1 = spread / (spread + (px + mx) * (px + mx) + (py + my) * (py + my))
        in0 = tl.where((ax >= 0) & (ay >= 0) & (ax <= last_x) & (ay <= last_y), in0 * in0, 0.0)
        in1 = tl.where((cx >= 0) & (cy >= 0) & (cx <= last_x) & (cy <= last_y), in1 * in1, 0.0)
        vote = in0 * in1 + _ONE_SIDED * (in0 * in0 + in1 * in1)
        w0, w1 = u * in0 + 1e-4, t * in1 + 1e-4
        share = vote / (w0 + w1)
        light += sample(smooth0, ax, ay, share * w0, on, w, h)
        light += sample(smooth1, cx, cy, share * w1, on, w, h)
        votes += vote
    return light, votes


@triton.jit(do_not_specialize=["w", "h"])
def find_disputed(out, fwd, bwd, w, h, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Where the flows miss each other, by the first of each two by two pixels: walk/vote.py's `find_disputed`."""
    m = tl.arange(0, COLUMNS * ROWS)
    i, j = tl.program_id(0) * COLUMNS + m % COLUMNS, tl.program_id(1) * ROWS + m // COLUMNS
    half_w = (w + 1) // 2
    on = (i < half_w) & (j < (h + 1) // 2)
    x, y = 2.0 * i, 2.0 * j
    fx, fy = flow_at(fwd, (2 * j) * w + 2 * i, on)
    bx, by = flow_at(bwd, (2 * j) * w + 2 * i, on)
    gx, gy = flow_between(bwd, x + fx, y + fy, on, w, h)
    hx, hy = flow_between(fwd, x + bx, y + by, on, w, h)
    gx, gy, hx, hy = fx + gx, fy + gy, bx + hx, by + hy
    apart2 = tl.maximum(gx * gx + gy * gy, hx * hx + hy * hy)
    far2 = tl.maximum(fx * fx + fy * fy, bx * bx + by * by)
    tl.store(out + j * half_w + i, (apart2 > _APART0 + _APART1 * far2).to(tl.uint8), mask=on)
