"""Labels of a pair: how far its content moves over the exposure, and where it moves at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np

from blursynth.exposure.shutter import Shutter
from blursynth.exposure.trail import Trail
from blursynth.motion.flow import PairFlow, SolvedPair

STEPS = 8
"""Places on the way from the target's instant to each end of the exposure, for the length of the path."""
BAND = 256
"""Rows of a picture that are worked on at a time."""
MOVES = 1.0
"""px of path from which a pixel counts as moving."""


def content_motion(
    pairs: Sequence[PairFlow | SolvedPair],
    target: float,
    shutter: Shutter,
    readout: float = 0.0,
    shake: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The way of each of the target's pixels over the exposure.

    Args:
        pairs: flows of the window's intervals, in order.
        target: when the target is, of its middle row; frames from the window's first, like the shutter's times.
        readout: frames between the first row's target and the last's.
        shake: (P, 3) path of the camera over the exposure (`exposure.shake`), or None.
    Returns:
        float32 (H, W, 2), px (x right, y down) from where the content is at the start to where it is at the end; and
        float32 (H, W), the length of the path between, px.
    """
    flows = _Flows(pairs)
    h, w = flows.of(0, False).shape[:2]
    here = np.empty((h, w, 2), np.float32)
    here[..., 0], here[..., 1] = np.arange(w), np.arange(h)[:, None]
    start, stop = shutter.start.astype(float), shutter.stop.astype(float)
    moment = target + readout * ((np.arange(h) + 0.5) / h - 0.5)
    inside = np.clip(moment, start, stop)
    here_inside = _advance(here, flows, moment, inside)
    share = float(np.mean((inside - start) / (stop - start)))

    ends, length = [], np.zeros((h, w), np.float32)
    for end, u_end in ((start, 0.0), (stop, 1.0)):
        at, when = here_inside, inside
        seen = _shaken(at, shake, share)
        trail = _trail(here, flows, moment, later=u_end == 1)
        for k in range(1, STEPS + 1):
            then = inside + (end - inside) * k / STEPS
            at = _advance(at, flows, when, then, trail)
            now = _shaken(at, shake, share + (u_end - share) * k / STEPS)
            for rows in _bands(np.arange(h)):
                length[rows] += cv2.magnitude(*cv2.split(now[rows] - seen[rows]))
            seen, when = now, then
        ends.append(seen)
    return ends[1] - ends[0], length


class _Flows:
    """The full flows of an interval; the last two that were asked for are kept, for small steps in time ask again."""

    def __init__(self, pairs: Sequence[PairFlow | SolvedPair]) -> None:
        self.count = len(pairs)
        self.of: Callable[[int, bool], np.ndarray] = lru_cache(maxsize=2)(lambda i, back: pairs[i].one(back))


def _trail(here: np.ndarray, flows: _Flows, moment: np.ndarray, later: bool) -> Trail:
    """The trail of content at these places (H, W, 2) and times (H,), one way in time; it begins at a row's nearest frame."""
    trail = Trail(*here.shape[:2])
    frames = np.rint(moment).astype(int)
    for frame in np.unique(frames):
        i = frame - 1 if later else frame
        if not 0 <= i < flows.count:
            continue
        away, back = flows.of(i, later), flows.of(i, not later)
        for rows in _bands(np.flatnonzero(frames == frame)):
            step = _sample(away, here[rows])
            trail.begin(step, _sample(back, here[rows] + step), rows)
    return trail


def _bands(rows: np.ndarray) -> list[slice]:
    """Neighbouring rows in the portions that are worked on at a time: what comes and goes then takes little memory."""
    return [slice(y, min(y + BAND, rows[-1] + 1)) for y in range(rows[0], rows[-1] + 1, BAND)]


def _advance(
    at: np.ndarray, flows: _Flows, now: np.ndarray, then: np.ndarray, trail: Trail | None = None
) -> np.ndarray:
    """Where content at these places (H, W, 2) and times (H,) is at other times (H,), all later or all earlier."""
    if np.array_equal(now, then):
        return at
    later = bool(np.all(then >= now))
    first, last = int(np.floor(min(now.min(), then.min()))), int(np.ceil(max(now.max(), then.max())))
    order = range(max(first, 0), min(last, flows.count))
    for i in order if later else reversed(order):
        early, late = (now, then) if later else (then, now)
        amount = np.clip(np.minimum(late, i + 1) - np.maximum(early, i), 0, None).astype(np.float32)
        if not amount.any():
            continue
        flow = flows.of(i, not later)
        back = None if trail is None else flows.of(i, later)
        # A flow starts at its own frame: of content that is on the way, it stands where that content was.
        gone = np.clip((now - i) if later else (i + 1 - now), 0, 1).astype(np.float32)
        moved = at.copy()
        for rows in _bands(
            np.flatnonzero(amount)
        ):  # content of the others is not on its way in this interval
            step = _sample(flow, at[rows])
            if gone.any():
                if trail is not None:
                    step = np.where(trail.known[rows][..., None], trail.motion[rows], step)
                step = _sample(flow, at[rows] - gone[rows, None, None] * step)
            if trail is not None and back is not None:
                arrived = at[rows] + (1 - gone[rows, None, None]) * step
                step = trail.follow(step, _sample(back, arrived), rows)
            moved[rows] = at[rows] + amount[rows, None, None] * step
        at = moved
    return at


def _sample(flow: np.ndarray, at: np.ndarray) -> np.ndarray:
    return cv2.remap(flow, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _shaken(at: np.ndarray, shake: np.ndarray | None, u: float) -> np.ndarray:
    """Places (H, W, 2) as the shaking camera sees them at a share u of the exposure."""
    if shake is None:
        return at
    x, y, degrees = (np.interp(u, np.linspace(0, 1, len(shake)), axis) for axis in shake.T)
    h, w = at.shape[:2]
    centre, turn = np.array([(w - 1) / 2, (h - 1) / 2]), np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array([x, y]) + centre - rotation @ centre
    return cv2.transform(at, np.column_stack([rotation, shift]).astype(np.float32))


def moving_mask(length: np.ndarray) -> np.ndarray:
    """uint8 (H, W): 255 where the path is longer than MOVES px, else 0."""
    return np.where(length > MOVES, 255, 0).astype(np.uint8)
