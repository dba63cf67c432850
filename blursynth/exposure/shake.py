"""Camera shake: the path that a hand-held camera's picture takes over an exposure.

A path is (P, 3): x px right, y px down, roll in degrees, of P places equally spaced in time over the exposure, ends
included, linear between. Relative to the target's instant, or to the path's own centre: content at p in the target stands at
R(roll) (p - c) + c + (x, y), with c = ((W - 1) / 2, (H - 1) / 2) and R = [[cos, -sin], [sin, cos]].

The model is a hand's: its angular velocity is a slow drift, a random process with inertia (the trajectories of
Boracchi, Foi 2012, "Modeling the performance of image restoration from motion blur"), plus physiological tremor, a
narrow band of 7 to 12 Hz (Gavant et al. 2011, "A physiological camera shake model for image stabilization systems";
Delbracio, Sapiro 2015, "Removing camera shake via weighted Fourier burst accumulation"). Short exposures draw nearly
straight streaks of it, long ones curls and cusps. A pitch or yaw moves the whole picture alike; roll turns it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

PLACES = 65
"""Places of a drawn path."""

HAND_S = (1 / 30, 1 / 2)
"""Exposure times, s, that a hand blurs: a path's shape is that of one drawn between them, evenly in its logarithm."""

DRIFT_S = (0.1, 0.5)
"""Time over which a hand's drift forgets its direction, s."""

MASS_S = 0.01
"""Lag of the hand's and the camera's mass, s, which smooths the drift."""

TREMOR_HZ = (7.0, 12.0)
"""Band of physiological tremor."""

TREMOR_SHARE = (0.2, 0.8)
"""Tremor's share of the angular velocity's energy."""

ROLL_SHARE = (0.1, 0.6)
"""Roll's angle against that of pitch and yaw, in path length."""

FOCAL = 1.0
"""Focal length in long sides of the picture: a camera's with a view 53 degrees wide."""


def draw_path(
    rng: np.random.Generator,
    px: float,
    width: int,
    height: int,
    target: float = 0.5,
    about: Literal["instant", "centre"] = "instant",
    profile: np.ndarray | None = None,
) -> np.ndarray:
    """A hand's path, float64 (PLACES, 3), whose translation has an arc length of px exactly.

    target: when in the exposure the target's instant lies, 0 to 1, where the path is zero; of one outside the
    exposure, the nearer end. about "centre": the path's mean over the exposure is zero instead, each moment weighed by
    ``profile`` (n,), the exposure's weights in time (None: all alike). A pure function of its arguments: the same numbers
    drawn from rng whatever px is.
    """
    seconds = HAND_S[0] * (HAND_S[1] / HAND_S[0]) ** rng.random()
    u = np.linspace(0, 1, PLACES)
    steps = np.stack(
        [_velocity(rng, (u[1:] + u[:-1]) / 2 * seconds) for _ in range(3)], 1
    )  # yaw, pitch, roll
    share = ROLL_SHARE[0] + (ROLL_SHARE[1] - ROLL_SHARE[0]) * rng.random()
    steps[:, :2] *= px / np.hypot(steps[:, 0], steps[:, 1]).sum()
    turn = math.degrees(share * px / (FOCAL * max(width, height)))  # length of the roll's path
    steps[:, 2] *= turn / np.abs(steps[:, 2]).sum()
    path = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)])
    if about == "centre":
        between, middles = (path[1:] + path[:-1]) / 2, (u[1:] + u[:-1]) / 2
        weights = None if profile is None else np.interp(middles, np.linspace(0, 1, len(profile)), profile)
        zero = np.average(between, axis=0, weights=weights)
    else:
        zero = np.array([np.interp(target, u, axis) for axis in path.T])
    return np.round(path - zero, 6)


def _velocity(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Angular velocity of one axis at equally spaced times t, s: drift with inertia plus tremor; no unit."""
    log_lo, log_hi = np.log(DRIFT_S)
    inertia = np.exp(-(t[1] - t[0]) / np.exp(log_lo + (log_hi - log_lo) * rng.random()))
    drift = rng.standard_normal(len(t))
    drift[1:] *= math.sqrt(1 - inertia**2)
    mass = np.exp(-(t[1] - t[0]) / MASS_S)
    held = drift[0]
    for n in range(1, len(t)):
        drift[n] += inertia * drift[n - 1]
    for n in range(len(t)):
        held = drift[n] = mass * held + (1 - mass) * drift[n]
    share = TREMOR_SHARE[0] + (TREMOR_SHARE[1] - TREMOR_SHARE[0]) * rng.random()
    hz, phase, swell = rng.uniform(*TREMOR_HZ), *rng.uniform(0, 2 * np.pi, 2)
    # Tremor comes and goes: its envelope beats about once in a second (a band some 2 Hz wide).
    tremor = np.sqrt(2) * np.sin(2 * np.pi * hz * t + phase) * (1 + 0.5 * np.sin(2 * np.pi * t + swell))
    return math.sqrt(1 - share) * drift + math.sqrt(share) * tremor


def path_length(path: np.ndarray) -> float:
    """Arc length, px, of the translation of a path (P, 3)."""
    return float(np.hypot(*np.diff(path[:, :2], axis=0).T).sum())


def border(path: np.ndarray, width: int, height: int) -> list[int]:
    """Pixels at the left, top, right and bottom of a picture that light from outside the frame can have touched.

    At a place of the path the frame's own light lies in the frame's picture, turned and moved: what lies beyond its
    sides came from outside.
    """
    cx, cy = (width - 1) / 2, (height - 1) / 2
    turn = np.radians(path[:, 2])
    cos, sin = np.cos(turn), np.sin(turn)
    # Where the corners left-top, right-top, right-bottom, left-bottom go, relative to where they were.
    gone = [
        ((cos - 1) * x - sin * y + path[:, 0], sin * x + (cos - 1) * y + path[:, 1])
        for x, y in ((-cx, -cy), (cx, -cy), (cx, cy), (-cx, cy))
    ]
    (lt, rt, rb, lb) = gone
    sides = (
        np.maximum(lt[0], lb[0]), np.maximum(lt[1], rt[1]), np.maximum(-rt[0], -rb[0]), np.maximum(-lb[1], -rb[1]),
    )  # fmt: skip
    # 1e-3: between two places the corners' arc may bulge by less than that.
    return [max(0, math.ceil(float(side.max()) - 1e-6)) if side.max() > 1e-3 else 0 for side in sides]


def widest_border(px: float, width: int, height: int) -> int:
    """Pixels at each side that no path of up to px can touch more of: `border` at its worst."""
    turn = ROLL_SHARE[1] * px / (FOCAL * max(width, height))
    return math.ceil(px + 2 * math.sin(turn / 2) * math.hypot(width - 1, height - 1) / 2)


def describe(path: np.ndarray, width: int, height: int) -> dict[str, object]:
    """A path as `exposure.shake` of a sample's JSON."""
    return {
        "px": round(path_length(path), 4),
        "path": [[float(v) for v in place] for place in path],
        "border": border(path, width, height),
    }
