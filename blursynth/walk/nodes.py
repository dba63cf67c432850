"""When a row collects light, by what weight, and where a shaking camera looks then: compiled.

n = 0..k are the nodes of a pixel of k sub-steps, n = 0 at the opening `lo`, n = k at the closing `hi` of the interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blursynth.common.compiled import inlined, uncounted


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

    time, weight (K + 1, K + 1); pose (K + 1, K + 1, 4), the camera's (see `pose_at`); known (K + 1,): filled in yet?
    """

    time: np.ndarray
    weight: np.ndarray
    pose: np.ndarray
    known: np.ndarray


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


@uncounted
def shares(profile, lo, hi, t0, t1, opened, length):
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
def pose_at(path, share):
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


@uncounted
def fill(nodes, k, lo, hi, opened, length, shutter):
    """The nodes of pixels of k sub-steps in a row that collects from lo to hi of this interval, having opened at
    `opened` for `length` frames."""
    shaken = shutter.path.shape[0] > 0
    dt = (hi - lo) / np.float32(k)
    for n in range(k + 1):
        t = hi if n == k else lo + np.float32(n) * dt
        nodes.time[k, n] = t
        nodes.weight[k, n] = dt * np.float32(0.5) if n == 0 or n == k else dt
        if shaken:
            turn, sin, dx, dy = pose_at(shutter.path, (t - opened) / length)
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
            early, late = shares(shutter.profile, a, b, a, b, opened, length)
            nodes.weight[k, n] += np.float32(early)
            nodes.weight[k, n + 1] += np.float32(late)
    nodes.known[k] = True
