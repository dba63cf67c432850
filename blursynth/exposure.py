"""The light of an exposure, integrated straight from source frames and the flows between them.

B = integral of p(t) L(t) dt / integral of p(t) dt, with L linear light and p the shutter's profile (DESIGN section 4).
No intermediate frame is ever built: each pixel walks its own motion path through every interval, with as many
sub-steps as the path has pixels, and adds up what it meets.

Four choices make this both fast and close to a true exposure (figures in benchmarks/RESULTS.md):

- **Trapezoid nodes.** The source frames themselves are exact samples at t = 0 and 1, so they carry the end weights
  and only the interior of an interval is interpolated. A still pixel needs no interpolation at all.
- **Two-sided backward sampling** with the flows to both frames (SuperSloMo, Jiang et al. 2018, eq. 4).
- **Quasi-interpolation.** Bilinear sampling along a path blurs by the triangle kernel, whose variance is 1/6 px^2
  an axis. Sampling from frames pre-filtered by [-1, 14, -1] / 12 cancels that to fourth order (Condat, Blu,
  Unser 2005) for one small filter a frame instead of a bicubic fetch a sub-step.
- **A vote where the flows disagree** (occlusions, moving edges, failed matches): each candidate motion counts as
  far as the two frames bear it out, and content hidden in one frame is taken from the other alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import config as numba_config
from numba import njit

numba_config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]  # a pixel's four lanes in one register: 1.5x on the loop below

QUASI = np.array([-1 / 12, 14 / 12, -1 / 12], np.float32)
"""Pre-filter that makes phase-averaged bilinear sampling exact to fourth order."""

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


@dataclass(frozen=True)
class Shutter:
    """When each row collects light, in frames from the window's first frame.

    start, stop: float32 (H,), the row's exposure; profile: float32 (P,), weight over [start, stop], linearly
    interpolated; all ones is a box.
    """

    start: np.ndarray
    stop: np.ndarray
    profile: np.ndarray

    @property
    def boxed(self) -> bool:
        return bool(np.all(self.profile == self.profile[0]))


def make_shutter(
    height: int, intervals: int, duty: float = 1.0, readout: float = 0.0, profile: np.ndarray | None = None
) -> Shutter:
    """Exposure of a window of `intervals` frame intervals, centred in it.

    duty: share of the window that is exposed (0, 1]. readout: frames between the first row's exposure and the
    last's (rolling shutter); rows are symmetric about the window's centre. The exposure is shortened where the
    readout would push it out of the window.

    Raises ValueError where readout leaves no exposure.
    """
    length = min(duty * intervals, intervals - readout)
    if length <= 0:
        raise ValueError(f"readout of {readout:.3g} frames leaves no exposure in {intervals} intervals")
    offset = readout * ((np.arange(height) + 0.5) / height - 0.5)
    start = intervals / 2 - length / 2 + offset
    ones = np.ones(2, np.float32) if profile is None else np.asarray(profile, np.float32)
    return Shutter(start.astype(np.float32), (start + length).astype(np.float32), ones)


U = np.uintp
"""Index type: numba wraps negative signed indices, which would cost more than the fetch itself."""


@njit(inline="always")
def _fetch(x, y, w, h):
    """Flat index of one sample's clamped corner pixel, and its bilinear weights."""
    x = min(max(x, np.float32(0)), np.float32(w - 1))
    y = min(max(y, np.float32(0)), np.float32(h - 1))
    x0 = min(int(x), w - 2)
    y0 = min(int(y), h - 2)
    a = x - np.float32(x0)
    b = y - np.float32(y0)
    ab = a * b
    return U(y0) * U(w) + U(x0), np.float32(1) - a - b + ab, a - ab, b - ab, ab


@njit(inline="always")
def _sample4(im, w, h, x, y, s):
    """s * bilinear sample of a flat (H * W * 4) image: one SIMD register, whose fourth lane carries the weight."""
    p, w00, w01, w10, w11 = _fetch(x, y, w, h)
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
def _sample2(flow, w, h, x, y):
    """Bilinear sample of a flat (H * W * 2) flow."""
    p, w00, w01, w10, w11 = _fetch(x, y, w, h)
    i = p * U(2)
    j = i + U(w) * U(2)
    return (
        w00 * flow[i] + w01 * flow[i + U(2)] + w10 * flow[j] + w11 * flow[j + U(2)],
        w00 * flow[i + U(1)] + w01 * flow[i + U(3)] + w10 * flow[j + U(1)] + w11 * flow[j + U(3)],
    )


@njit(inline="always")
def _between(quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, s):
    """s * light at (x, y) and time t where both flows agree: SuperSloMo's two-sided sample."""
    u = np.float32(1) - t
    # -u t F01 + t^2 F10 = t (t (F01 + F10) - F01), and the same from the other frame.
    sx, sy = fx + bx, fy + by
    a0, a1, a2, a3 = _sample4(quasi0, w, h, x + t * (t * sx - fx), y + t * (t * sy - fy), u * s)
    c0, c1, c2, c3 = _sample4(quasi1, w, h, x + u * (u * sx - bx), y + u * (u * sy - by), t * s)
    return a0 + c0, a1 + c1, a2 + c2, a3 + c3


@njit(inline="always")
def _contested(light0, light1, quasi0, quasi1, fwd, bwd, w, h, p, x, y, t, fx, fy, bx, by):
    """Light at (x, y) and time t where the flows disagree: a vote of motions, each as far as the frames bear it out.

    A motion m that is true for (x, t) is found again in frame 0 at x - t m (there the forward flow is m) and in
    frame 1 at x + (1 - t) m (there the backward flow is -m); content that is hidden in one frame is borne out by
    the other alone, and sampled from it alone. The two-sided sample and the cross-fade keep a small vote each, so
    that nothing is torn where no motion is borne out.
    """
    one = np.float32(1)
    u = one - t
    r0, r1, r2, r3 = _between(quasi0, quasi1, w, h, x, y, t, fx, fy, bx, by, BLEND)
    r0 += FADE * (u * light0[p + U(0)] + t * light1[p + U(0)])
    r1 += FADE * (u * light0[p + U(1)] + t * light1[p + U(1)])
    r2 += FADE * (u * light0[p + U(2)] + t * light1[p + U(2)])
    r3 += FADE * (u * light0[p + U(3)] + t * light1[p + U(3)])
    for candidate in range(2):
        mx, my = (fx, fy) if candidate == 0 else (-bx, -by)
        ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
        qx, qy = _sample2(fwd, w, h, ax, ay)
        px, py = _sample2(bwd, w, h, cx, cy)
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
        a0, a1, a2, a3 = _sample4(quasi0, w, h, ax, ay, vote * w0 / (w0 + w1))
        c0, c1, c2, c3 = _sample4(quasi1, w, h, cx, cy, vote * w1 / (w0 + w1))
        r0 += a0 + c0
        r1 += a1 + c1
        r2 += a2 + c2
        r3 += a3 + c3
    return r0 / r3, r1 / r3, r2 / r3, one


@njit(inline="always")
def _weight(t, start, to_profile, profile):
    """The shutter's weight at time t, in frames of the window."""
    last = profile.shape[0] - 1
    at = min(max((t - start) * to_profile, np.float32(0)), np.float32(last))
    j = min(int(at), last - 1)
    return profile[j] + (at - np.float32(j)) * (profile[j + 1] - profile[j])


@njit(cache=True, error_model="numpy")
def _accumulate(acc, light0, light1, quasi0, quasi1, fwd, bwd, w, h, start, stop, profile, boxed, i, kmax):
    """Add interval i's share of every row's exposure to acc; returns sub-steps taken in all, and the most by one pixel.

    All images and flows are flat: (H * W * 4) and (H * W * 2).
    """
    one = np.float32(1)
    half = np.float32(0.5)
    steps = 0
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
        for x in range(w):
            p = (U(y) * U(w) + U(x)) * U(4)
            q = p // U(2)
            px, py = np.float32(x), np.float32(y)  # an int64 beside a float32 would make float64
            fx, fy = fwd[q], fwd[q + U(1)]
            bx, by = bwd[q], bwd[q + U(1)]
            move2 = max(fx * fx + fy * fy, bx * bx + by * by)
            path = np.sqrt(move2) * span
            k = min(max(int(np.ceil(max(path / STEP_PX, min(path, SHORT_PATH) / SHORT_PX))), 1), kmax)
            steps += k
            longest = max(longest, k)
            dt = span / np.float32(k)
            w0 = np.float32(0)  # weight of the pixel itself in frame 0 ...
            w1 = np.float32(0)  # ... and in frame 1
            s0 = np.float32(0)
            s1 = np.float32(0)
            s2 = np.float32(0)
            s3 = np.float32(0)
            still = move2 < np.float32(1e-6)
            # The source frames are exact: a node at t = 0 or 1 is theirs, whatever moves.
            n0, n1 = 0, k + 1
            if lo == 0 or still:
                w0 += (one - lo) * half * dt * at_lo
                w1 += lo * half * dt * at_lo
                n0 = 1
            if hi == 1 or still:
                w0 += (one - hi) * half * dt * at_hi
                w1 += hi * half * dt * at_hi
                n1 = k
            contested = False
            if k > 1:
                gx, gy = _sample2(bwd, w, h, px + fx, py + fy)
                hx, hy = _sample2(fwd, w, h, px + bx, py + by)
                apart2 = max((fx + gx) ** 2 + (fy + gy) ** 2, (bx + hx) ** 2 + (by + hy) ** 2)
                contested = apart2 > APART[0] + APART[1] * move2
            if contested:
                for n in range(n0, n1):
                    t = hi if n == k else lo + np.float32(n) * dt
                    wt = dt * half if n == 0 or n == k else dt
                    if not boxed:
                        wt *= _weight(t, opened, to_profile, profile)
                    a0, a1, a2, a3 = _contested(
                        light0, light1, quasi0, quasi1, fwd, bwd, w, h, p, px, py, t, fx, fy, bx, by
                    )
                    s0 += a0 * wt
                    s1 += a1 * wt
                    s2 += a2 * wt
                    s3 += a3 * wt
            else:
                for n in range(n0, n1):
                    t = hi if n == k else lo + np.float32(n) * dt
                    wt = dt * half if n == 0 or n == k else dt
                    if not boxed:
                        wt *= _weight(t, opened, to_profile, profile)
                    a0, a1, a2, a3 = _between(quasi0, quasi1, w, h, px, py, t, fx, fy, bx, by, wt)
                    s0 += a0
                    s1 += a1
                    s2 += a2
                    s3 += a3
            acc[p] += w0 * light0[p] + w1 * light1[p] + s0
            acc[p + U(1)] += w0 * light0[p + U(1)] + w1 * light1[p + U(1)] + s1
            acc[p + U(2)] += w0 * light0[p + U(2)] + w1 * light1[p + U(2)] + s2
            acc[p + U(3)] += w0 * light0[p + U(3)] + w1 * light1[p + U(3)] + s3
    return steps, longest


def quasi(light: np.ndarray, restored: bool = True) -> np.ndarray:
    """Frame to sample from between nodes: light (H, W, 4) float32, pre-filtered; unchanged around clipped light.

    Light above 1 (restored highlights) is a step of several whites, where the filter's negative lobes would ring.
    restored: whether there can be any; the search for it costs as much as the filter.
    """
    out = cv2.sepFilter2D(light, -1, QUASI, QUASI, borderType=cv2.BORDER_REPLICATE)
    if not restored:
        return out
    hot = cv2.bitwise_not(cv2.inRange(light, (-1.0,) * 4, (1.0,) * 4))
    if cv2.countNonZero(hot):
        near = cv2.dilate(hot, np.ones((5, 5), np.uint8)) > 0
        out[near] = light[near]
    return out


class Exposure:
    """Collects the light of one window, interval by interval; holds two frames and one accumulator."""

    def __init__(self, height: int, width: int, shutter: Shutter, max_steps: int):
        self.acc = np.zeros((height, width, 4), np.float32)
        self.shutter = shutter
        self.max_steps = max_steps
        self.steps = 0
        self.longest = 0

    def add(
        self,
        i: int,
        light: tuple[np.ndarray, np.ndarray],
        smooth: tuple[np.ndarray, np.ndarray],
        forward: np.ndarray,
        backward: np.ndarray,
    ) -> None:
        """Interval i: linear light of its two frames, their `quasi` versions (all float32 (H, W, 4), the
        fourth channel one), both flows."""
        if np.max(self.shutter.stop) <= i or np.min(self.shutter.start) >= i + 1:
            return
        h, w = self.acc.shape[:2]
        flat = [np.ascontiguousarray(a).reshape(-1) for a in (*light, *smooth, forward, backward)]
        steps, longest = _accumulate(  # type: ignore[call-arg]  # numba's stub knows no splat
            self.acc.reshape(-1), *flat, w, h, self.shutter.start, self.shutter.stop, self.shutter.profile,
            self.shutter.boxed, i, self.max_steps,
        )  # fmt: skip
        self.steps += steps
        self.longest = max(self.longest, longest)

    def linear(self) -> np.ndarray:
        """Mean light of the exposure, float32 (H, W, 3)."""
        return self.acc[..., :3] / self.acc[..., 3:]


def integrate_light(
    lights: Sequence[np.ndarray],
    flows: Sequence[tuple[np.ndarray, np.ndarray]],
    shutter: Shutter,
    max_steps: int = 16,
) -> np.ndarray:
    """Exposure of N frames of linear light, float32 (H, W, 4), and their N - 1 (forward, backward) flows.

    Returns float32 (H, W, 3) linear light.
    """
    h, w = lights[0].shape[:2]
    exposure = Exposure(h, w, shutter, max_steps)
    before = quasi(lights[0])
    for i, (forward, backward) in enumerate(flows):
        after = quasi(lights[i + 1])
        exposure.add(i, (lights[i], lights[i + 1]), (before, after), forward, backward)
        before = after
    return exposure.linear()
