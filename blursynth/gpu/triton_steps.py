"""How many sub-steps a pixel takes, in Triton: walk/steps.py's."""

from __future__ import annotations

import triton
import triton.language as tl

from blursynth.gpu.triton_nodes import looks, pose_at
from blursynth.gpu.triton_sample import clamp, flow_at
from blursynth.walk.steps import BLOCK, HOT_BLOCK, SHORT_PATH, SHORT_PX, STEP_PX

_BLOCK, _HOT_BLOCK = tl.constexpr(BLOCK), tl.constexpr(HOT_BLOCK)
_PER_STEP, _PER_SHORT, _SHORT_PATH = (
    tl.constexpr(1 / float(STEP_PX)), tl.constexpr(1 / float(SHORT_PX)), tl.constexpr(float(SHORT_PATH)),
)  # fmt: skip
_MOST_PIECES = tl.constexpr(4096)


@triton.jit
def count(way, kmax):
    """Sub-steps of a way, px: walk/steps.py's `_count`."""
    k = tl.ceil(tl.maximum(way * _PER_STEP, tl.minimum(way, _SHORT_PATH) * _PER_SHORT))
    return tl.minimum(tl.maximum(k.to(tl.int32), 1), kmax)


@triton.jit
def shared(v, SIZE: tl.constexpr):
    """Of each _BLOCK neighbours the largest."""
    blocks = tl.reshape(v, [SIZE // _BLOCK, _BLOCK])
    most = tl.max(blocks, 1)[:, None]
    return tl.reshape(tl.broadcast_to(most, [SIZE // _BLOCK, _BLOCK]), [SIZE])


@triton.jit
def shaken_way(fwd, bwd, path, places, x, y, lo, hi, opened, length, on, w, h):
    """Way, px, of what pixels look at under a shaking camera: walk/steps.py's `plan_shaken_row`."""
    first, last = (lo - opened) / length, (hi - opened) / length
    turn0, sin0, x0, y0, far0 = pose_at(path, places, first)
    turn1, sin1, x1, y1, far1 = pose_at(path, places, last)
    turn, sin, dx, dy, _far = pose_at(path, places, (first + last) * 0.5)
    _qx, _qy, ix, iy = looks(x.to(tl.float32), y.to(tl.float32), turn, sin, dx, dy, w, h)
    q = iy * w + ix
    turn, sin, dx, dy = turn1 - turn0, sin1 - sin0, x1 - x0, y1 - y0
    xx, yy = x - 0.5 * (w - 1).to(tl.float32), y - 0.5 * (h - 1).to(tl.float32)
    sx, sy = turn * xx + sin * yy + dx, turn * yy - sin * xx + dy
    fx, fy = flow_at(fwd, q, on)
    bx, by = flow_at(bwd, q, on)
    span = hi - lo
    fx, fy, bx, by = fx * span - sx, fy * span - sy, bx * span + sx, by * span + sy
    curl = tl.maximum(far1 - far0 - tl.sqrt(dx * dx + dy * dy), 0.0)
    return tl.sqrt(tl.maximum(fx * fx + fy * fy, bx * bx + by * by)) + curl


@triton.jit
def crosses_hot(hot, x, y, fx, fy, bx, by, reach, far, w, h):
    """Which pixels' ways cross light above white: walk/steps.py's `add_steps`."""
    pieces = tl.minimum(tl.ceil(tl.where(far, reach, 1.0) / _HOT_BLOCK), _MOST_PIECES).to(tl.int32)
    most = tl.max(pieces)
    wide = w // _HOT_BLOCK + 1
    last_x, last_y = (w - 1).to(tl.float32), (h - 1).to(tl.float32)
    near = far & (x < 0)
    n = -most
    while n <= most:
        s = n / pieces.to(tl.float32)
        here = far & (n >= -pieces) & (n <= pieces)
        for candidate in tl.static_range(2):
            mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
            ix = clamp(x + s * mx, last_x).to(tl.int32) // _HOT_BLOCK
            iy = clamp(y + s * my, last_y).to(tl.int32) // _HOT_BLOCK
            near = near | (tl.load(hot + iy * wide + ix, mask=here, other=0) != 0)
        n += 1
    return near
