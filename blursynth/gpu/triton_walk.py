"""One interval of an exposure in one Triton kernel: what walk/loop.py does, a warp of pixels at a time; for exposure/gpu.py.

Names are walk/loop.py's, and the pieces stand as in that room: triton_vote.py has what walk/vote.py has. A program walks
a tile of the picture, by default a warp of 32 pixels, as long as the one of them that takes most steps; the light of each
is summed up in registers. Triton comes with torch's CUDA wheels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from blursynth.gpu.tensors import Interval, Light, Opening
from blursynth.gpu.triton_frame import light_of, prefilter_kernel
from blursynth.gpu.triton_nodes import looks, pose_at, shares
from blursynth.gpu.triton_sample import flow_at, sample
from blursynth.gpu.triton_steps import count, crosses_hot, shaken_way, shared
from blursynth.gpu.triton_vote import add_vote, find_disputed
from blursynth.walk.loop import STILL
from blursynth.walk.steps import FAR, HOT_STEP_PX, HOT_STEPS, STEP_PX
from blursynth.walk.vote import BLEND

TILE = (8, 4)
"""Columns and rows that a program walks: columns a multiple of BLOCK, both together a power of two."""
PIXELS = (32, 4)
"""Columns and rows that a program of the other kernels takes."""

_STILL, _FAR2 = tl.constexpr(float(STILL)), tl.constexpr(float(FAR) ** 2)
_STEP_PX, _HOT_STEP_PX = tl.constexpr(float(STEP_PX)), tl.constexpr(float(HOT_STEP_PX))
_HOT_STEPS = tl.constexpr(HOT_STEPS)
_BLEND = tl.constexpr(float(BLEND))


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

    fx, fy = flow_at(fwd, p, inside)
    bx, by = flow_at(bwd, p, inside)
    f2, b2 = fx * fx + fy * fy, bx * bx + by * by
    sound = f2 + b2 < _FAR2
    fx, fy = tl.where(sound, fx, 0.0), tl.where(sound, fy, 0.0)
    bx, by = tl.where(sound, bx, 0.0), tl.where(sound, by, 0.0)

    # Sub-steps: of two rows that are open at the same times the first decides for both under a shaking camera.
    if path is not None:
        before = tl.maximum(y - 1, 0)
        twin = (y % 2 == 1) & (tl.load(start + before) == opens) & (tl.load(stop + before) == closes)
        row = tl.where(twin, before, y)
        way = shaken_way(fwd, bwd, path, places, x - x % 2, row, lo, hi, opened, length, on, w, h)
        way = tl.minimum(tl.where(way > 0, way, 0.0), 1e9)
        reach = way / tl.where(on, span, 1.0)
        k = count(way * fine, kmax)
    else:
        row = y
        reach = tl.where(sound, tl.sqrt(tl.maximum(f2, b2)), 0.0)
        k = count(shared(tl.where(inside, reach, 0.0), SIZE) * span * fine, kmax)
    if hot is not None:
        way = reach * span
        far = on & (k >= kmax) & (way > kmax * _STEP_PX)
        if tl.max(far.to(tl.int32)) > 0:
            q = row * w + x
            gx, gy = flow_at(fwd, q, far)
            hx, hy = flow_at(bwd, q, far)
            near = crosses_hot(hot, x, row, gx, gy, hx, hy, reach, far, w, h)
            need = tl.minimum(tl.maximum(tl.ceil(way / _HOT_STEP_PX), kmax), tl.maximum(kmax, _HOT_STEPS))
            k = tl.where(near, need.to(tl.int32), k)
            if path is None:
                k = shared(tl.where(inside, k, 0), SIZE)
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
        light0, light1 = light_of(codes0, table0, above0, p, on), light_of(codes1, table1, above1, p, on)
        walks = on & (reach >= _STILL)
        vote = vote & walks & (tl.load(disputed + (y // 2) * half_w + x // 2, mask=on, other=0) != 0)
        doubted = tl.max(vote.to(tl.int32)) > 0
    n = tl.min(tl.where(walks, first, 1))
    end = tl.max(tl.where(walks, last, -1))
    if profile is not None:
        at0, at1 = lo + (n - 1) * dt, tl.where(n == k, hi, lo + n * dt)
        _early, late = shares(profile, parts, at0, at1, at0, at1, opened, length)
        late = tl.where(n > 0, late, 0.0)
    while n <= end:
        here = walks & (n >= first) & (n <= last)
        t = tl.where(n == k, hi, lo + n * dt)
        if profile is not None:
            after = tl.where(n + 1 == k, hi, lo + (n + 1) * dt)
            early, next_late = shares(profile, parts, t, after, t, after, opened, length)
            weight = late + tl.where(n == k, 0.0, early)
            late = next_late
        else:
            weight = tl.where((n == 0) | (n == k), dt * 0.5, dt)
        weight = tl.where(here, weight, 0.0)
        u = 1 - t
        voting = here & vote
        if path is not None:
            turn, sin, dx, dy, _far = pose_at(path, places, (t - opened) / length)
            px, py, ix, iy = looks(x.to(tl.float32), y.to(tl.float32), turn, sin, dx, dy, w, h)
            fx, fy = flow_at(fwd, iy * w + ix, here)
            bx, by = flow_at(bwd, iy * w + ix, here)
            voting = voting & (t > 0) & (t < 1)
            voting = voting & (tl.load(disputed + (iy // 2) * half_w + ix // 2, mask=voting, other=0) != 0)
            doubted = tl.max(voting.to(tl.int32)) > 0
        s = tl.where(voting, _BLEND, weight)
        sx, sy = fx + bx, fy + by
        light = sample(smooth0, px + t * (t * sx - fx), py + t * (t * sy - fy), u * s, here, w, h)
        light += sample(smooth1, px + u * (u * sx - bx), py + u * (u * sy - by), t * s, here, w, h)
        if doubted:
            if path is not None:
                fade = sample(smooth0, px, py, u, voting, w, h) + sample(smooth1, px, py, t, voting, w, h)
            else:
                fade = u[:, None] * light0 + t[:, None] * light1
            voted, votes = add_vote(
                light, fade, smooth0, smooth1, fwd, bwd, px, py, t, fx, fy, bx, by, voting, w, h
            )
            light = tl.where(voting[:, None], voted * (weight / votes)[:, None], light)
        total += light
        n += 1
    if path is None:
        if profile is not None:
            a, b = shares(
                profile, parts, lo, hi, tl.zeros_like(lo), tl.full(lo.shape, 1.0, tl.float32), opened, length
            )
            second, third = lo + dt, tl.where(k == 1, lo, lo + (k - 1) * dt)
            second = tl.where(k == 1, hi, second)
            end0, _late = shares(profile, parts, lo, second, lo, second, opened, length)
            _early, end1 = shares(profile, parts, third, hi, third, hi, opened, length)
        else:
            a = span * (0.5 * ((1 - lo) + (1 - hi)))
            b = span * (0.5 * (lo + hi))
            end0, end1 = dt * 0.5, dt * 0.5
        end0, end1 = tl.where(lo == 0, end0, 0.0), tl.where(hi == 1, end1, 0.0)
        total += tl.where(walks, end0, a)[:, None] * light0 + tl.where(walks, end1, b)[:, None] * light1
    at = acc + p[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(at, tl.load(at, mask=on[:, None], other=0.0) + total, mask=on[:, None])


def prefilter(light: Light, plain: bool = False) -> Tensor:
    """`tensors.prefilter`: float16 (H, W, 4)."""
    h, w = light.codes.shape[:2]
    out = torch.empty(h, w, 4, dtype=torch.float16, device=light.codes.device)
    grid = (triton.cdiv(w, PIXELS[0]), triton.cdiv(h, PIXELS[1]))
    prefilter_kernel[grid](
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
    find_disputed[grid](disputed, fwd, bwd, w, h, COLUMNS=PIXELS[0], ROWS=PIXELS[1])
    grid = (triton.cdiv(w, TILE[0]), triton.cdiv(h, TILE[1]))
    _walk[grid](
        acc, tally, first.codes, first.table, above[0], interval.smooth[0], second.codes, second.table, above[1],
        interval.smooth[1], fwd, bwd, disputed, hot, opening.start, opening.stop, opening.profile, opening.path, float(i),
        w, h, max_steps * opening.fine, float(opening.fine),
        0 if opening.profile is None else opening.profile.shape[1],
        0 if opening.path is None else len(opening.path), len(tally),
        COLUMNS=TILE[0], ROWS=TILE[1], num_warps=max(1, TILE[0] * TILE[1] // 32),
    )  # fmt: skip
