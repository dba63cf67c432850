"""The shutter: when each row of the sensor collects light, and by what weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blursynth.camera.response import read_npy
from blursynth.recipe import RecipeError

FINE = 3
"""Sub-steps of a profile that is no box, for one of a box."""


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

    @property
    def fine(self) -> int:
        """By how much sub-steps are shorter than a box's: the light between two is taken to change evenly, which a
        profile that opens and closes within a step shows."""
        return 1 if self.boxed else FINE

    @property
    def integrals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The profile p, float64 (P,), its greatest weight 1, and at each of its instants 0..P - 1 the integrals of p
        and of instant times p from the opening on."""
        p = self.profile.astype(np.float64) / max(float(self.profile.max()), np.finfo(float).tiny)
        a, b, j = p[:-1], p[1:], np.arange(len(p) - 1)
        mass = (a + b) / 2
        first = j * mass + a / 6 + b / 3
        return p, np.append(0, np.cumsum(mass)), np.append(0, np.cumsum(first))

    def weights(self, i: int, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Times in interval i of the k + 1 nodes of given rows (R,), float32 (k + 1, R), and the weights, float32, by
        which light that changes evenly from node to node gives the exposure, in frames of full light: exact for any
        profile. Zero for a row that does not collect in this interval."""
        start, stop = self.start[rows].astype(np.float64), self.stop[rows].astype(np.float64)
        lo, hi = np.clip(start - i, 0, 1), np.clip(stop - i, 0, 1)
        t = lo + np.linspace(0, 1, k + 1)[:, None] * (hi - lo)
        t[-1] = hi
        p, sums, firsts = self.integrals
        last = len(p) - 1
        per_frame = last / (stop - start)
        at = np.clip((t + i - start) * per_frame, 0, last)
        j = np.minimum(at.astype(int), last - 1)
        a, d = at - j, p[j + 1] - p[j]
        part = a * (p[j] + a * d / 2)
        mass = np.diff(sums[j] + part, axis=0)
        first = np.diff(firsts[j] + j * part + a * a * (p[j] / 2 + a * d / 3), axis=0)
        step = np.diff(at, axis=0)
        late = (first - at[:-1] * mass) / np.where(step > 0, step, 1)
        weights = np.zeros(t.shape)
        weights[:-1] += (mass - late) / per_frame
        weights[1:] += late / per_frame
        return t.astype(np.float32), weights.astype(np.float32)


def exposed_frames(intervals: int, duty: float, readout: float) -> float:
    """Frames that each row is open in a window of `intervals`: `duty` of it, less where the readout needs the rest."""
    return min(duty * intervals, intervals - readout)


def make_shutter(
    height: int, intervals: int, duty: float = 1.0, readout: float = 0.0, profile: np.ndarray | None = None
) -> Shutter:
    """Exposure of a window of `intervals` frame intervals, centred in it.

    duty: share of the window that is exposed (0, 1]. readout: frames between the first row's exposure and the
    last's (rolling shutter); rows are symmetric about the window's centre. The exposure is shortened where the
    readout would push it out of the window.

    Raises ValueError where readout leaves no exposure.
    """
    length = exposed_frames(intervals, duty, readout)
    if length <= 0:
        raise ValueError(f"readout of {readout:.3g} frames leaves no exposure in {intervals} intervals")
    offset = readout * ((np.arange(height) + 0.5) / height - 0.5)
    start = intervals / 2 - length / 2 + offset
    ones = np.ones(2, np.float32) if profile is None else np.asarray(profile, np.float32)
    return Shutter(start.astype(np.float32), (start + length).astype(np.float32), ones)


def load_profile(name: str) -> np.ndarray | None:
    """Weights over the exposure: None for a box, (0, 1, 0) for a triangle, or a FILE.npy of shape (P,), P >= 2.

    Raises RecipeError.
    """
    if name == "box":
        return None
    if name == "triangle":
        return np.array([0, 1, 0], np.float32)
    path = Path(name)
    if path.suffix != ".npy":
        raise RecipeError(f"profile {name!r} is not box, triangle or a FILE.npy")
    try:
        p = read_npy(path).astype(np.float32)
    except (OSError, ValueError) as e:
        raise RecipeError(f"profile {path}: {e}") from None
    if p.ndim != 1 or len(p) < 2 or not np.all(np.isfinite(p)) or p.min() < 0 or p.sum() <= 0:
        raise RecipeError(
            f"profile {path}: need a 1-d array of at least two weights, none negative, some positive"
        )
    return p
