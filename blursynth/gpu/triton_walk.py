"""One interval of an exposure in one Triton kernel: what walk/loop.py does, a warp of pixels at a time; for exposure/gpu.py.

Names are walk/loop.py's. A program walks a tile of the picture, by default a warp of 32 pixels, as long as the one of
them that takes most steps; the light of each is summed up in registers. Triton comes with torch's CUDA wheels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from blursynth.gpu.tensors import Interval, Light, Opening
from blursynth.walk.frame import CENTRE, SIDE
from blursynth.walk.loop import STILL
from blursynth.walk.steps import (
    BLOCK,
    FAR,
    HOT_BLOCK,
    HOT_STEP_PX,
    HOT_STEPS,
    SHORT_PATH,
    SHORT_PX,
    STEP_PX,
)
from blursynth.walk.vote import APART, BLEND, FADE, ONE_SIDED, SPREAD

TILE = (8, 4)
"""Columns and rows that a program walks: columns a multiple of BLOCK, both together a power of two."""
PIXELS = (32, 4)
"""Columns and rows that a program of the other kernels takes."""

_SIDE, _CENTRE = tl.constexpr(float(SIDE)), tl.constexpr(float(CENTRE))
_STILL, _FAR2 = tl.constexpr(float(STILL)), tl.constexpr(float(FAR) ** 2)
_BLOCK = tl.constexpr(BLOCK)
_PER_STEP, _PER_SHORT, _SHORT_PATH = (
    tl.constexpr(1 / float(STEP_PX)), tl.constexpr(1 / float(SHORT_PX)), tl.constexpr(float(SHORT_PATH)),
)  # fmt: skip
_STEP_PX, _HOT_STEP_PX = tl.constexpr(float(STEP_PX)), tl.constexpr(float(HOT_STEP_PX))
_HOT_STEPS, _HOT_BLOCK = tl.constexpr(HOT_STEPS), tl.constexpr(HOT_BLOCK)
_MOST_PIECES = tl.constexpr(4096)
_BLEND, _FADE, _ONE_SIDED = (tl.constexpr(float(v)) for v in (BLEND, FADE, ONE_SIDED))
_SPREAD0, _SPREAD1 = tl.constexpr(float(SPREAD[0])), tl.constexpr(float(SPREAD[1]))
_APART0, _APART1 = tl.constexpr(float(APART[0])), tl.constexpr(float(APART[1]))


@triton.jit
def _clamp(v, last):
    """v within 0..last; 0 where it is not a number."""
    return tl.minimum(tl.where(v > 0, v, 0.0), last)


@triton.jit
def _light(codes, table, above, p, on):
    """Light of pixels p (N,), (N, 4): walk/frame.py's `light_of`."""
    c = tl.arange(0, 4)[None, :]
    at = p[:, None] * 3 + c
    rgb = on[:, None] & (c < 3)
    code = tl.load(codes + at, mask=rgb, other=0).to(tl.int32)
    light = tl.load(table + code * 4 + c, mask=rgb, other=1.0)
    if above is not None:
        light += tl.load(above + at, mask=rgb, other=0.0).to(tl.float32)
    return light


@triton.jit
def _corner(x, y, w, h):
    """Number of the upper left pixel of samples at x, y, drawn onto the picture, and how far right of it and below."""
    x, y = _clamp(x, (w - 1).to(tl.float32)), _clamp(y, (h - 1).to(tl.float32))
    left, top = tl.minimum(x.to(tl.int32), w - 2), tl.minimum(y.to(tl.int32), h - 2)
    return top * w + left, x - left, y - top


@triton.jit
def _sample(smooth, x, y, weight, on, w, h):
    """weight (N,) * bilinear samples (N, 4) of a float16 (H * W * 4) image."""
    p, a, b = _corner(x, y, w, h)
    at = smooth + p[:, None] * 4 + tl.arange(0, 4)[None, :]
    on, b = on[:, None], b[:, None]
    left = tl.load(at, mask=on, other=0.0).to(tl.float32)
    left += b * (tl.load(at + w * 4, mask=on, other=0.0).to(tl.float32) - left)
    right = tl.load(at + 4, mask=on, other=0.0).to(tl.float32)
    right += b * (tl.load(at + 4 + w * 4, mask=on, other=0.0).to(tl.float32) - right)
    share = a * weight
    return left * (weight - share)[:, None] + right * share[:, None]


@triton.jit
def _flow(flow, p, on):
    """x and y (N,) of a flow at pixels p."""
    return tl.split(tl.load(flow + p[:, None] * 2 + tl.arange(0, 2)[None, :], mask=on[:, None], other=0.0))


@triton.jit
def _flow_between(flow, x, y, on, w, h):
    """x and y (N,) of bilinear samples of a flow."""
    p, a, b = _corner(x, y, w, h)
    at, on = flow + p[:, None] * 2 + tl.arange(0, 2)[None, :], on[:, None]
    a, b = a[:, None], b[:, None]
    left = tl.load(at, mask=on, other=0.0)
    left += b * (tl.load(at + w * 2, mask=on, other=0.0) - left)
    right = tl.load(at + 2, mask=on, other=0.0)
    right += b * (tl.load(at + 2 + w * 2, mask=on, other=0.0) - right)
    return tl.split(left + a * (right - left))


@triton.jit
def _count(way, kmax):
    """Sub-steps of a way, px: walk/steps.py's `_count`."""
    k = tl.ceil(tl.maximum(way * _PER_STEP, tl.minimum(way, _SHORT_PATH) * _PER_SHORT))
    return tl.minimum(tl.maximum(k.to(tl.int32), 1), kmax)


@triton.jit
def _shared(v, SIZE: tl.constexpr):
    """Of each _BLOCK neighbours the largest."""
    blocks = tl.reshape(v, [SIZE // _BLOCK, _BLOCK])
    most = tl.max(blocks, 1)[:, None]
    return tl.reshape(tl.broadcast_to(most, [SIZE // _BLOCK, _BLOCK]), [SIZE])


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
def _shares(profile, parts, lo, hi, t0, t1, opened, length):
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
def _pose(path, places, share):
    """walk/nodes.py's `pose_at`, and how long the path is up to there, px; path: x, y, roll, length of each of `places`."""
    at = _clamp(share * (places - 1), (places - 1).to(tl.float32))
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
    return _clamp(last - tl.abs(last - tl.abs(v)), last)


@triton.jit
def _looks(x, y, turn, sin, dx, dy, w, h):
    """Where pixels look under poses of the camera, mirrored at the picture's sides, and the nearest pixel there."""
    last_x, last_y = (w - 1).to(tl.float32), (h - 1).to(tl.float32)
    xx, yy = x - 0.5 * last_x, y - 0.5 * last_y
    qx = _mirrored(x + (turn * xx + sin * yy + dx), last_x)
    qy = _mirrored(y + (turn * yy - sin * xx + dy), last_y)
    return qx, qy, (qx + 0.5).to(tl.int32), (qy + 0.5).to(tl.int32)


@triton.jit
def _shaken_way(fwd, bwd, path, places, x, y, lo, hi, opened, length, on, w, h):
    """Way, px, of what pixels look at under a shaking camera: walk/steps.py's `plan_shaken_row`."""
    first, last = (lo - opened) / length, (hi - opened) / length
    turn0, sin0, x0, y0, far0 = _pose(path, places, first)
    turn1, sin1, x1, y1, far1 = _pose(path, places, last)
    turn, sin, dx, dy, _far = _pose(path, places, (first + last) * 0.5)
    _qx, _qy, ix, iy = _looks(x.to(tl.float32), y.to(tl.float32), turn, sin, dx, dy, w, h)
    q = iy * w + ix
    turn, sin, dx, dy = turn1 - turn0, sin1 - sin0, x1 - x0, y1 - y0
    xx, yy = x - 0.5 * (w - 1).to(tl.float32), y - 0.5 * (h - 1).to(tl.float32)
    sx, sy = turn * xx + sin * yy + dx, turn * yy - sin * xx + dy
    fx, fy = _flow(fwd, q, on)
    bx, by = _flow(bwd, q, on)
    span = hi - lo
    fx, fy, bx, by = fx * span - sx, fy * span - sy, bx * span + sx, by * span + sy
    curl = tl.maximum(far1 - far0 - tl.sqrt(dx * dx + dy * dy), 0.0)
    return tl.sqrt(tl.maximum(fx * fx + fy * fy, bx * bx + by * by)) + curl


@triton.jit
def _crosses_hot(hot, x, y, fx, fy, bx, by, reach, far, w, h):
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
            ix = _clamp(x + s * mx, last_x).to(tl.int32) // _HOT_BLOCK
            iy = _clamp(y + s * my, last_y).to(tl.int32) // _HOT_BLOCK
            near = near | (tl.load(hot + iy * wide + ix, mask=here, other=0) != 0)
        n += 1
    return near


@triton.jit
def _votes(light, fade, smooth0, smooth1, fwd, bwd, x, y, t, fx, fy, bx, by, on, w, h):
    """walk/vote.py's `add_vote` for pixels `on`: light, which is the two-sided sample * BLEND, and the other votes'; and
    the votes in all."""
    u = 1 - t
    last_x, last_y = (w - 1).to(tl.float32), (h - 1).to(tl.float32)
    light += fade * _FADE
    votes = tl.full(t.shape, _BLEND + _FADE, tl.float32)
    for candidate in tl.static_range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        qx, qy = _flow_between(fwd, ax, ay, on, w, h)
        px, py = _flow_between(bwd, cx, cy, on, w, h)
        spread = _SPREAD0 + _SPREAD1 * (mx * mx + my * my)
        in0 = spread / (spread + (qx - mx) * (qx - mx) + (qy - my) * (qy - my))
        in1 = spread / (spread + (px + mx) * (px + mx) + (py + my) * (py + my))
        in0 = tl.where((ax >= 0) & (ay >= 0) & (ax <= last_x) & (ay <= last_y), in0 * in0, 0.0)
        in1 = tl.where((cx >= 0) & (cy >= 0) & (cx <= last_x) & (cy <= last_y), in1 * in1, 0.0)
        vote = in0 * in1 + _ONE_SIDED * (in0 * in0 + in1 * in1)
        w0, w1 = u * in0 + 1e-4, t * in1 + 1e-4
        share = vote / (w0 + w1)
        light += _sample(smooth0, ax, ay, share * w0, on, w, h)
        light += _sample(smooth1, cx, cy, share * w1, on, w, h)
        votes += vote
    return light, votes


@triton.jit(do_not_specialize=["i", "w", "h", "kmax", "fine", "parts", "places", "rows"])
def _walk(
    acc, tally, codes0, table0, above0, smooth0, codes1, table1, above1, smooth1, fwd, bwd, disputed, hot, start, stop,
    profile, path, i, w, h, kmax, fine, parts, places, rows, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Adds interval i to acc; arguments as `add_interval` passes them, None for what the exposure does without."""
    SIZE: tl.constexpr = COLUMNS * ROWS
    m = tl.arange(0, SIZE)
    x, y = tl.program_id(0) * COLUMNS + m % COLUMNS, tl.program_id(1) * ROWS + m // COLUMNS
    inside = (x < w) & (y < h)
    x, y = tl.minimum(x, w - 1), tl.minimum(y, h - 1)
    p = y * w + x
    opens, closes = tl.load(start + y), tl.load(stop + y)
    opened, length = opens - i, closes - opens
    lo, hi = tl.minimum(tl.maximum(opened, 0.0), 1.0), tl.minimum(tl.maximum(closes - i, 0.0), 1.0)
    span = hi - lo
    on = inside & (span > 0)

    fx, fy = _flow(fwd, p, inside)
    bx, by = _flow(bwd, p, inside)
    f2, b2 = fx * fx + fy * fy, bx * bx + by * by
    sound = f2 + b2 < _FAR2
    fx, fy = tl.where(sound, fx, 0.0), tl.where(sound, fy, 0.0)
    bx, by = tl.where(sound, bx, 0.0), tl.where(sound, by, 0.0)

    # Sub-steps: of two rows that are open at the same times the first decides for both under a shaking camera.
    if path is not None:
        before = tl.maximum(y - 1, 0)
        twin = (y % 2 == 1) & (tl.load(start + before) == opens) & (tl.load(stop + before) == closes)
        row = tl.where(twin, before, y)
        way = _shaken_way(fwd, bwd, path, places, x - x % 2, row, lo, hi, opened, length, on, w, h)
        way = tl.minimum(tl.where(way > 0, way, 0.0), 1e9)
        reach = way / tl.where(on, span, 1.0)
        k = _count(way * fine, kmax)
    else:
        row = y
        reach = tl.where(sound, tl.sqrt(tl.maximum(f2, b2)), 0.0)
        k = _count(_shared(tl.where(inside, reach, 0.0), SIZE) * span * fine, kmax)
    if hot is not None:
        way = reach * span
        far = on & (k >= kmax) & (way > kmax * _STEP_PX)
        if tl.max(far.to(tl.int32)) > 0:
            q = row * w + x
            gx, gy = _flow(fwd, q, far)
            hx, hy = _flow(bwd, q, far)
            near = _crosses_hot(hot, x, row, gx, gy, hx, hy, reach, far, w, h)
            need = tl.minimum(tl.maximum(tl.ceil(way / _HOT_STEP_PX), kmax), tl.maximum(kmax, _HOT_STEPS))
            k = tl.where(near, need.to(tl.int32), k)
            if path is None:
                k = _shared(tl.where(inside, k, 0), SIZE)
    k = tl.where(on, k, 0)
    counts = tally + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) % rows * 3
    tl.atomic_add(counts, tl.sum(k).to(tl.int64))
    tl.atomic_max(counts + 1, tl.max(k).to(tl.int64))
    faults = tl.sum((inside & (sound == 0)).to(tl.int32))
    if faults > 0:
        tl.atomic_add(counts + 2, faults.to(tl.int64))

    # Nodes n = 0..k. With the camera at rest the frames themselves are those at t = 0 and 1, and a still pixel has no
    # others; under a shaking one the two-sided sample is the frame's there.
    dt = span / tl.maximum(k, 1)
    px, py = x.to(tl.float32), y.to(tl.float32)
    first, last = tl.where(lo == 0, 1, 0), tl.where(hi == 1, k - 1, k)
    walks = on
    vote = on & (k > 1)
    half_w = (w + 1) // 2
    total = tl.zeros([SIZE, 4], tl.float32)
    late = tl.zeros([SIZE], tl.float32)
    if path is not None:
        first, last = tl.zeros([SIZE], tl.int32), k
    else:
        light0, light1 = _light(codes0, table0, above0, p, on), _light(codes1, table1, above1, p, on)
        walks = on & (reach >= _STILL)
        vote = vote & walks & (tl.load(disputed + (y // 2) * half_w + x // 2, mask=on, other=0) != 0)
        doubted = tl.max(vote.to(tl.int32)) > 0
    n = tl.min(tl.where(walks, first, 1))
    end = tl.max(tl.where(walks, last, -1))
    if profile is not None:
        at0, at1 = lo + (n - 1) * dt, tl.where(n == k, hi, lo + n * dt)
        _early, late = _shares(profile, parts, at0, at1, at0, at1, opened, length)
        late = tl.where(n > 0, late, 0.0)
    while n <= end:
        here = walks & (n >= first) & (n <= last)
        t = tl.where(n == k, hi, lo + n * dt)
        if profile is not None:
            after = tl.where(n + 1 == k, hi, lo + (n + 1) * dt)
            early, next_late = _shares(profile, parts, t, after, t, after, opened, length)
            weight = late + tl.where(n == k, 0.0, early)
            late = next_late
        else:
            weight = tl.where((n == 0) | (n == k), dt * 0.5, dt)
        weight = tl.where(here, weight, 0.0)
        u = 1 - t
        voting = here & vote
        if path is not None:
            turn, sin, dx, dy, _far = _pose(path, places, (t - opened) / length)
            px, py, ix, iy = _looks(x.to(tl.float32), y.to(tl.float32), turn, sin, dx, dy, w, h)
            fx, fy = _flow(fwd, iy * w + ix, here)
            bx, by = _flow(bwd, iy * w + ix, here)
            voting = voting & (t > 0) & (t < 1)
            voting = voting & (tl.load(disputed + (iy // 2) * half_w + ix // 2, mask=voting, other=0) != 0)
            doubted = tl.max(voting.to(tl.int32)) > 0
        s = tl.where(voting, _BLEND, weight)
        sx, sy = fx + bx, fy + by
        light = _sample(smooth0, px + t * (t * sx - fx), py + t * (t * sy - fy), u * s, here, w, h)
        light += _sample(smooth1, px + u * (u * sx - bx), py + u * (u * sy - by), t * s, here, w, h)
        if doubted:
            if path is not None:
                fade = _sample(smooth0, px, py, u, voting, w, h) + _sample(smooth1, px, py, t, voting, w, h)
            else:
                fade = u[:, None] * light0 + t[:, None] * light1
            voted, votes = _votes(
                light, fade, smooth0, smooth1, fwd, bwd, px, py, t, fx, fy, bx, by, voting, w, h
            )
            light = tl.where(voting[:, None], voted * (weight / votes)[:, None], light)
        total += light
        n += 1
    if path is None:
        if profile is not None:
            a, b = _shares(
                profile, parts, lo, hi, tl.zeros_like(lo), tl.full(lo.shape, 1.0, tl.float32), opened, length
            )
            second, third = lo + dt, tl.where(k == 1, lo, lo + (k - 1) * dt)
            second = tl.where(k == 1, hi, second)
            end0, _late = _shares(profile, parts, lo, second, lo, second, opened, length)
            _early, end1 = _shares(profile, parts, third, hi, third, hi, opened, length)
        else:
            a = span * (0.5 * ((1 - lo) + (1 - hi)))
            b = span * (0.5 * (lo + hi))
            end0, end1 = dt * 0.5, dt * 0.5
        end0, end1 = tl.where(lo == 0, end0, 0.0), tl.where(hi == 1, end1, 0.0)
        total += tl.where(walks, end0, a)[:, None] * light0 + tl.where(walks, end1, b)[:, None] * light1
    at = acc + p[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(at, tl.load(at, mask=on[:, None], other=0.0) + total, mask=on[:, None])


@triton.jit(do_not_specialize=["w", "h"])
def _dispute(out, fwd, bwd, w, h, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Where the flows miss each other, by the first of each two by two pixels: walk/vote.py's `find_disputed`."""
    m = tl.arange(0, COLUMNS * ROWS)
    i, j = tl.program_id(0) * COLUMNS + m % COLUMNS, tl.program_id(1) * ROWS + m // COLUMNS
    half_w = (w + 1) // 2
    on = (i < half_w) & (j < (h + 1) // 2)
    x, y = 2.0 * i, 2.0 * j
    fx, fy = _flow(fwd, (2 * j) * w + 2 * i, on)
    bx, by = _flow(bwd, (2 * j) * w + 2 * i, on)
    gx, gy = _flow_between(bwd, x + fx, y + fy, on, w, h)
    hx, hy = _flow_between(fwd, x + bx, y + by, on, w, h)
    gx, gy, hx, hy = fx + gx, fy + gy, bx + hx, by + hy
    apart2 = tl.maximum(gx * gx + gy * gy, hx * hx + hy * hy)
    far2 = tl.maximum(fx * fx + fy * fy, bx * bx + by * by)
    tl.store(out + j * half_w + i, (apart2 > _APART0 + _APART1 * far2).to(tl.uint8), mask=on)


@triton.jit(do_not_specialize=["w", "h"])
def _prefilter(
    out, codes, table, above, w, h, PLAIN: tl.constexpr, RESTORED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """walk/frame.py's `prefilter`; PLAIN: the light as it is; RESTORED: so around light above white."""
    m = tl.arange(0, COLUMNS * ROWS)
    x, y = tl.program_id(0) * COLUMNS + m % COLUMNS, tl.program_id(1) * ROWS + m // COLUMNS
    on = (x < w) & (y < h)
    x, y = tl.minimum(x, w - 1), tl.minimum(y, h - 1)
    light = _light(codes, table, above, y * w + x, on)
    if not PLAIN:
        left, right = tl.maximum(x - 1, 0), tl.minimum(x + 1, w - 1)
        smooth = tl.zeros_like(light)
        for dy in tl.static_range(-1, 2):
            row = tl.minimum(tl.maximum(y + dy, 0), h - 1) * w
            ends = _light(codes, table, above, row + left, on) + _light(codes, table, above, row + right, on)
            filtered = _CENTRE * _light(codes, table, above, row + x, on) + _SIDE * ends
            smooth += filtered * (_CENTRE if dy == 0 else _SIDE)
        if RESTORED:
            near = x < 0
            for place in range(25):
                here = tl.minimum(tl.maximum(y + place // 5 - 2, 0), h - 1) * w
                here += tl.minimum(tl.maximum(x + place % 5 - 2, 0), w - 1)
                for c in tl.static_range(3):
                    if above is not None:
                        near = near | (tl.load(above + here * 3 + c, mask=on, other=0.0) != 0)
                    else:
                        near = near | (tl.load(codes + here * 3 + c, mask=on, other=0) == 255)
            smooth = tl.where(near[:, None], light, smooth)
        light = smooth
    at = out + (y * w + x)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(at, light.to(tl.float16), mask=on[:, None])


def prefilter(light: Light, plain: bool = False) -> Tensor:
    """`tensors.prefilter`: float16 (H, W, 4)."""
    h, w = light.codes.shape[:2]
    out = torch.empty(h, w, 4, dtype=torch.float16, device=light.codes.device)
    grid = (triton.cdiv(w, PIXELS[0]), triton.cdiv(h, PIXELS[1]))
    _prefilter[grid](
        out, light.codes, light.table, light.above, w, h, PLAIN=plain, RESTORED=light.hot is not None,
        COLUMNS=PIXELS[0], ROWS=PIXELS[1],
    )  # fmt: skip
    return out


def add_interval(
    acc: Tensor, tally: Tensor, interval: Interval, opening: Opening, i: int, max_steps: int
) -> None:
    """`torch_walk.add_interval`; the programs share the rows of tally."""
    first, second = interval.lights
    assert isinstance(first, Light) and isinstance(second, Light)
    h, w = first.codes.shape[:2]
    above = [first.above, second.above]
    if (above[0] is None) != (above[1] is None):  # the kernel takes both or none
        above = [torch.zeros_like(first.codes, dtype=torch.float16) if v is None else v for v in above]
    hot = first.hot if second.hot is None else second.hot if first.hot is None else first.hot | second.hot
    fwd, bwd = interval.forward.contiguous(), interval.backward.contiguous()
    half_h, half_w = (h + 1) // 2, (w + 1) // 2
    disputed = torch.empty(half_h, half_w, dtype=torch.uint8, device=acc.device)
    grid = (triton.cdiv(half_w, PIXELS[0]), triton.cdiv(half_h, PIXELS[1]))
    _dispute[grid](disputed, fwd, bwd, w, h, COLUMNS=PIXELS[0], ROWS=PIXELS[1])
    grid = (triton.cdiv(w, TILE[0]), triton.cdiv(h, TILE[1]))
    _walk[grid](
        acc, tally, first.codes, first.table, above[0], interval.smooth[0], second.codes, second.table, above[1],
        interval.smooth[1], fwd, bwd, disputed, hot, opening.start, opening.stop, opening.profile, opening.path, float(i),
        w, h, max_steps * opening.fine, float(opening.fine),
        0 if opening.profile is None else opening.profile.shape[1],
        0 if opening.path is None else len(opening.path), len(tally),
        COLUMNS=TILE[0], ROWS=TILE[1], num_warps=max(1, TILE[0] * TILE[1] // 32),
    )  # fmt: skip
