"""The shutter: when each row of the sensor collects light, and by what weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blursynth.camera.response import read_npy
from blursynth.recipe import RecipeError


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
