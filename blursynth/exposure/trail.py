"""How content went on its way: what something else covers goes on as it went before."""

from __future__ import annotations

import numpy as np

APART = 0.5, 0.01
"""px^2, and share of both flows' squares, by which flows there and back may miss each other (Sundaram, Brox, Keutzer 2010)."""

ALL = slice(None)


class Trail:
    """The motion of content that is followed one way in time, frame by frame.

    A flow at the place of covered content is the motion of what covers it: followed, it drags along the background
    that a moving thing passes over. Covered is where the flows there and back miss each other (`APART`).
    """

    def __init__(self, *shape: int) -> None:
        """shape: of the places that are followed; ``rows`` below is a slice of its first axis."""
        self.motion = np.zeros((*shape, 2), np.float32)  # px a frame in the direction of the way
        self.known = np.zeros(shape, bool)
        self.covered = np.zeros(shape, bool)

    def begin(self, step: np.ndarray, back: np.ndarray, rows: slice = ALL) -> None:
        """The flow the other way from where the trail begins, and back: it serves what is covered at once."""
        self.known[rows] = _agree(step, back)
        self.motion[rows] = -step

    def follow(self, step: np.ndarray, back: np.ndarray, rows: slice = ALL) -> np.ndarray:
        """The motion of content over an interval in which the flow there is ``step`` and, where it leads, ``back``."""
        agree = _agree(step, back)
        again = agree & _agree(step, -self.motion[rows])
        self.covered[rows] = (self.covered[rows] & ~again) | (self.known[rows] & ~agree)
        step = np.where(self.covered[rows][..., None], self.motion[rows], step)
        self.known[rows] |= agree
        self.motion[rows] = step
        return step


def _agree(step: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether the flow back (..., 2) returns to where the flow there began."""
    miss, size = ((v * v).sum(-1) for v in (step + back, np.concatenate([step, back], -1)))
    return miss <= APART[0] + APART[1] * size
