"""Dense optical flow between two frames: DIS, DeepFlow's energy solved fast, OpenCV's DeepFlow.

A flow is float32 (H, W, 2) in pixels per frame interval: the content at x in the first frame is at x + flow(x)
in the second. Every estimator is a pure function of its two frames, so a pair's flow can be shared by all
windows that cross it and comes out the same in any order. (RIFE predicts the light between two frames rather
than one flow; it lives in rife.py behind the integrator.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from blursynth.motion.dis import search
from blursynth.motion.variational import refine

MIN_SIDE = 64
"""DIS's scales and patches need some room; smaller frames are padded to this."""

REPAIR = (
    "this OpenCV has no cv2.optflow.createOptFlow_DeepFlow: another OpenCV build overwrote the contrib build; repair with\n"
    "  pip install --force-reinstall --no-deps opencv-contrib-python-headless"
)


@dataclass(frozen=True)
class PairFlow:
    """Flows of one frame pair, both directions, float32 (H, W, 2), pixels per interval."""

    forward: np.ndarray
    backward: np.ndarray

    def one(self, back: bool) -> np.ndarray:
        return self.backward if back else self.forward


@dataclass(frozen=True)
class SolvedPair:
    """Flows of one frame pair as they were solved, on smaller frames: of a large frame a sixteenth of the full ones' memory."""

    solved: tuple[np.ndarray, np.ndarray]
    frames: tuple[int, int]
    """(width, height) of the frames that were given to the solver, with their padding."""
    inside: tuple[int, int]
    """(width, height) of those without it."""
    size: tuple[int, int]
    """(width, height) of the frames themselves."""

    def full(self) -> PairFlow:
        """The flows of every pixel, in its pixels."""
        return PairFlow(self.one(back=False), self.one(back=True))

    def one(self, back: bool) -> np.ndarray:
        """That of one direction."""
        columns, rows = self.inside
        cut = resize_flow(self.solved[back], self.frames)[:rows, :columns]
        return resize_flow(cut, self.size)


FlowFn = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(grey (H, W) uint8, grey (H, W) uint8) -> flows (h, w, 2) float32 there and back, of the frames or of smaller ones, in
pixels of their own."""


def coarse_flow(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DIS as cheap as it is good on frames already shrunk, grey uint8 (H, W), at least MIN_SIDE a side; in their pixels."""
    return search(a, b, dense=False)


LEAST_SOLVED = 160
"""Frames are not shrunk below this short side, px: on a 272-row clip, halves cost 0.25 dB of the blur."""


def _flow_dis(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solved on frames shrunk to a quarter, small ones to a half or not at all."""
    shrink = 4 if max(a.shape) > 1000 else 2
    while shrink > 1 and min(a.shape) < shrink * LEAST_SOLVED:
        shrink //= 2
    if shrink == 1:
        return search(a, b, dense=True)
    size = (round(a.shape[1] / shrink), round(a.shape[0] / shrink))
    a, b = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (a, b))
    return search(a, b)


def _flow_deepflow(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeepFlow's variational energy (brightness + gradient constancy, robust smoothness; Weinzaepfel et al. 2013).

    OpenCV's class solves it on a pyramid with a 0.95 step, some 60 levels from 25 pixels up. Started from `_flow_dis`, one
    level does, of large frames at half their size (`variational.py`; benchmarks/RESULTS.md).
    """
    scale = 0.5 if max(a.shape) > 720 else 1.0
    size = (round(a.shape[1] * scale), round(a.shape[0] * scale))
    there, back = (resize_flow(flow, size) for flow in _flow_dis(a, b))
    a, b = (
        cv2.resize(cv2.GaussianBlur(x, (0, 0), 0.6), size, interpolation=cv2.INTER_AREA).astype(np.float32)
        for x in (a, b)
    )
    return refine(a, b, there), refine(b, a, back)


def _flow_deepflow_opencv(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solver = cv2.optflow.createOptFlow_DeepFlow()
    return solver.calc(a, b, None), solver.calc(b, a, None)  # type: ignore[call-overload]  # None: no initial flow


FLOWS: dict[str, FlowFn] = {
    "dis": _flow_dis,
    "dis-coarse": coarse_flow,  # for statistics: no recipe names it
    "deepflow": _flow_deepflow,
    "deepflow-opencv": _flow_deepflow_opencv,
}


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow resampled to (width, height), its vectors scaled along."""
    h, w = flow.shape[:2]
    if (w, h) == size:
        return np.ascontiguousarray(flow)
    scale = np.array([size[0] / w, size[1] / h], np.float32)
    if size[0] * size[1] > w * h:  # the cheaper end to scale at
        return cv2.resize(flow * scale, size, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR) * scale


def estimate_pair(kind: str, first: np.ndarray, second: np.ndarray, scale: float = 1.0) -> PairFlow:
    """Flows between two frames of every pixel; see `solve_pair`."""
    return solve_pair(kind, first, second, scale).full()


def solve_pair(kind: str, first: np.ndarray, second: np.ndarray, scale: float = 1.0) -> SolvedPair:
    """Flows between two frames, RGB uint8 (H, W, 3) display-encoded, both directions.

    scale below 1 estimates on frames shrunk by it. Raises ValueError for an unknown kind and RuntimeError with
    the repair where OpenCV lacks DeepFlow.
    """
    if kind not in FLOWS:
        raise ValueError(f"no flow named {kind!r}; known: {', '.join(FLOWS)}")
    if kind == "deepflow-opencv" and not hasattr(getattr(cv2, "optflow", None), "createOptFlow_DeepFlow"):
        raise RuntimeError(REPAIR)
    h, w = first.shape[:2]
    a, b = (_grey(f, scale) for f in (first, second))
    still = np.array_equal(a, b)  # such a pair moves by exactly nothing
    there, back = np.zeros((2, 2, 2, 2), np.float32) if still else FLOWS[kind](a, b)
    inside = max(1, round(w * scale)), max(1, round(h * scale))
    return SolvedPair((there, back), (a.shape[1], a.shape[0]), inside, (w, h))


def _grey(rgb: np.ndarray, scale: float) -> np.ndarray:
    """What flow is estimated on: uint8, shrunk by scale, padded to MIN_SIDE."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if scale != 1.0:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    below, beside = (max(0, MIN_SIDE - n) for n in grey.shape)
    return cv2.copyMakeBorder(grey, 0, below, 0, beside, cv2.BORDER_REPLICATE) if below or beside else grey
