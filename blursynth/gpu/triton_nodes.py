"""When a pixel collects light, by what weight, and where a shaking camera looks then, in Triton: walk/nodes.py's."""

from __future__ import annotations

import triton
import triton.language as tl

from blursynth.gpu.triton_sample import clamp


@triton.jit
def _moments(profile, at, parts):
    """walk/nodes.py's `_moments`, float64; profile: three rows of `parts`."""
    last = (parts - 1).to(tl.float64)
    at = tl.minimum(tl.maximum(at, 0.0), last)
    j = tl.minimum(at.to(tl.int32), parts - 2)
    p = tl.load(profile + j)
    a, d = at - j, tl.load(profile + j + 1) - p
    mass = a * (p + a * d * 0.5)
    first = j * mass + a * a * (p * 0.5 + a * d / 3)
    return tl.load(profile + parts + j) + mass, tl.load(profile + 2 * parts + j) + first


@triton.jit
def shares(profile, parts, lo, hi, t0, t1, opened, length):
    """walk/nodes.py's `shares`."""
    per_frame = (parts - 1).to(tl.float64) / length.to(tl.float64)
    m0, f0 = _moments(profile, (lo - opened).to(tl.float64) * per_frame, parts)
    m1, f1 = _moments(profile, (hi - opened).to(tl.float64) * per_frame, parts)
    at0 = (t0 - opened).to(tl.float64) * per_frame
    at1 = (t1 - opened).to(tl.float64) * per_frame
    apart = tl.where(at1 > at0, at1 - at0, 1.0)
    late = ((f1 - f0) - at0 * (m1 - m0)) / apart
    return ((m1 - m0 - late) / per_frame).to(tl.float32), (late / per_frame).to(tl.float32)


@triton.jit
def _sin(x):
    """Sine of x within a turn or so, by that of x / 9: libdevice's has code for any angle, and compiles for long."""
    s = x * (1 / 9)
    s2 = s * s
    s = s * (1 + s2 * (-1 / 6 + s2 * (1 / 120 + s2 * (-1 / 5040 + s2 * (1 / 362880)))))
    s = s * (3 - 4 * s * s)
    return s * (3 - 4 * s * s)


@triton.jit
def pose_at(path, places, share):
    """walk/nodes.py's `pose_at`, and how long the path is up to there, px; path: x, y, roll, length of each of `places`."""
    at = clamp(share * (places - 1), (places - 1).to(tl.float32))
    j = tl.minimum(at.to(tl.int32), places - 2)
    a = at - j
    at = path + j[:, None] * 4 + tl.arange(0, 4)[None, :]
    here = tl.load(at)
    here += a[:, None] * (tl.load(at + 4) - here)
    even, odd = tl.split(tl.reshape(here, [here.shape[0], 2, 2]))
    dx, roll = tl.split(even)
    dy, far = tl.split(odd)
    sin, half = _sin(roll), _sin(roll * 0.5)
    turn = -2 * half * half
    return turn, sin, -((turn + 1) * dx + sin * dy), sin * dx - (turn + 1) * dy, far


@triton.jit
def _mirrored(v, last):
    """walk/steps.py's `reflect`."""
    return clamp(last - tl.abs(last - tl.abs(v)), last)


@triton.jit
def looks(x, y, turn, sin, dx, dy, w, h):
    """Where pixels look under poses of the camera, mirrored at the picture's sides, and the nearest pixel there."""
    last_x, last_y = (w - 1).to(tl.float32), (h - 1).to(tl.float32)
    xx, yy = x - 0.5 * last_x, y - 0.5 * last_y
    qx = _mirrored(x + (turn * xx + sin * yy + dx), last_x)
    qy = _mirrored(y + (turn * yy - sin * xx + dy), last_y)
    return qx, qy, (qx + 0.5).to(tl.int32), (qy + 0.5).to(tl.int32)
