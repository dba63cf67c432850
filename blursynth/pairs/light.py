"""The light of one window: what the sensor collects, and what its target shows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from blursynth.camera.highlights import parse_highlights
from blursynth.camera.response import Response
from blursynth.exposure.backend import Integrator
from blursynth.exposure.shake import describe, draw_path
from blursynth.exposure.shutter import Shutter, exposed_frames, load_profile, make_shutter
from blursynth.exposure.streak import SHORTEST, Streaks
from blursynth.motion.flow import SolvedPair, estimate_pair, solve_pair
from blursynth.pairs.labels import content_motion
from blursynth.pairs.quality import FlowStats
from blursynth.recipe import LEAST_SIDE, Recipe, RecipeError


@dataclass(frozen=True)
class Window:
    """The frames of one sample: RGB uint8 (H, W, 3) each, frames[i] is the clip's frame first + i."""

    clip_id: str
    frames: Sequence[np.ndarray]
    first: int
    fps: float | None
    stride: int
    above: Sequence[np.ndarray | None] = ()
    """Light of each frame above white, float16 (H, W, 3) in units of white, where the film holds it."""

    @property
    def centre(self) -> int:
        return (len(self.frames) - 1) // 2


@dataclass(frozen=True)
class Draws:
    """What chance decides of one sample."""

    duty: float
    """Share of the window that is exposed."""
    highlight: float
    """Light of clipped pixels above white, in units of white."""
    jpeg: int | None
    response: Response
    """The source's curve."""
    noise: np.random.Generator
    shake: np.random.Generator
    streak: float
    """Uniform, 0 to 1: which length of `blur_px` is drawn."""


@dataclass(frozen=True)
class Light:
    """What the sensor collects in one window, and what its target shows."""

    linear: np.ndarray
    """Linear light of the exposure, float32 (H, W, 3), white = 1, before noise."""
    sharp: np.ndarray
    """RGB uint8 (H, W, 3), codes of the source's response."""
    motion: FlowStats
    spent: float
    """Frame intervals of light in the exposure."""
    substeps: dict[str, float]
    """mean: a pixel's for each frame interval of exposure; max: the most in one interval, which may be open for a part
    only, so that mean can be above max."""
    effective_frames: float
    """Frames' noise in one pixel: 1 / effective_frames of the variance is left."""
    blur_px: float | None = None
    """95th percentile of the length of content's way over the exposure, px; not known of a plain mean."""
    content: tuple[np.ndarray, np.ndarray] | None = None
    """`labels.content_motion`, where labels are asked for."""
    shake: dict[str, Any] | None = None
    """The camera's path as the sample's JSON has it (`shake.describe`)."""
    integrator: str | None = None
    """What integrated on a GPU: "triton" or "torch"."""


def _opening(intervals: int, length: float) -> tuple[float, float]:
    """When the middle row of a window opens and closes, in frames: centred."""
    return (intervals - length) / 2, (intervals + length) / 2


class OutOfReach(Exception):
    """The window's motion cannot give the blur asked for, only blur of ``least`` to ``most`` px."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(f"{least:.1f} to {most:.1f} px")
        self.least, self.most = least, most


class NoExposure(Exception):
    """The readout is as long as the window, `most_ms`, or longer: no row would be open."""

    def __init__(self, most_ms: float) -> None:
        super().__init__(f"{most_ms:.4g} ms")
        self.most_ms = most_ms


class LightCollector:
    """Collects the light of windows by one recipe; keeps the flows of pairs that later windows cross."""

    def __init__(self, recipe: Recipe, rife_weights: str | None = None):
        """Raises RecipeError: no CUDA device, RIFE's weights missing, a profile that cannot be used."""
        self.recipe = recipe
        self.highlights = parse_highlights(recipe.highlights)
        self.profile = load_profile(recipe.profile)
        self.integrator = Integrator(recipe, rife_weights)
        self.flows: dict[tuple[str, int], SolvedPair] = {}

    def collect(self, window: Window, draws: Draws) -> Light:
        """Raises NoExposure, OutOfReach, RecipeError where a readout has no frame rate, ValueError for frames of
        unequal or too small a shape."""
        shape = window.frames[0].shape
        if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < LEAST_SIDE:
            raise ValueError(f"frames must be (H, W, 3) of at least {LEAST_SIDE} px a side, got {shape}")
        if any(f.shape != shape or f.dtype != np.uint8 for f in window.frames):
            raise ValueError(f"frames must be uint8 of one shape, {shape}")
        return (
            self._plain_mean(window, draws) if self.recipe.interp == "none" else self._expose(window, draws)
        )

    def forget(self, clip_id: str, before: int) -> None:
        """Drop cached flows of the clip's pairs that start before this frame."""
        for key in [k for k in self.flows if k[0] == clip_id and k[1] < before]:
            del self.flows[key]

    def _expose(self, window: Window, draws: Draws) -> Light:
        """Exposure of the light between the frames; the target is the centre frame, or, under a rolling shutter,
        the centre instant of each row. Raises RecipeError where how many frames the readout takes is not known,
        NoExposure where it leaves none."""
        recipe, frames = self.recipe, window.frames
        (h, w), intervals = frames[0].shape[:2], len(frames) - 1
        if recipe.readout_ms and not window.fps:
            raise RecipeError(f"readout_ms {recipe.readout_ms}: the frame rate is not known: give fps")
        readout = recipe.readout_ms / 1000 * (window.fps or 0.0)
        if readout >= intervals:
            raise NoExposure(1000 * intervals / (window.fps or 1.0))
        # A rolling shutter's rows are each as long open; the target shows the middle of each.
        target = intervals / 2 if readout else float(window.centre)
        streaks = Streaks(h, w, target)
        pairs: Sequence[SolvedPair] = ()  # as solved: of a large frame all full ones take a gigabyte
        duty = draws.duty
        if recipe.blur_range is not None or recipe.labels:
            pairs = [self._pair(window, i) for i in range(intervals)]
            for solved in pairs:
                streaks.add(solved.full())
        if recipe.blur_range is not None:
            duty = self._reach(streaks, draws, intervals, readout)
        shutter = make_shutter(h, intervals, duty, readout, self.profile)
        path = self._shake(
            draws, w, h, target, *_opening(intervals, exposed_frames(intervals, duty, readout))
        )
        exposure = self.integrator.collect(frames, shutter, path)
        instant = None
        if readout:
            moment = intervals / 2 + readout * ((np.arange(h) + 0.5) / h - 0.5)
            at = Shutter(
                (moment - 5e-4).astype(np.float32), (moment + 5e-4).astype(np.float32), np.ones(2, np.float32)
            )
            instant = self.integrator.collect(frames, at)
        motion = FlowStats()
        light, smooth = self._place(window, 0, draws)
        for i in range(intervals):
            pair = (pairs[i] if pairs else self._pair(window, i)).full()
            if not pairs:
                streaks.add(pair)
            motion.add(pair, frames[i], frames[i + 1])
            next_light, next_smooth = self._place(window, i + 1, draws)
            lights = light, next_light
            exposure.add(i, lights, (smooth, next_smooth), pair.forward, pair.backward)
            if instant is not None:  # one moment has one phase: the pre-filter would sharpen it
                plain = self.integrator.unfiltered(light), self.integrator.unfiltered(next_light)
                instant.add(i, lights, plain, pair.forward, pair.backward)
                del plain
            light, smooth = next_light, next_smooth
            del pair, lights, next_light, next_smooth  # of a large frame each is a hundred megabytes
        del light, smooth
        span = float(np.mean(shutter.stop - shutter.start))
        steps = exposure.steps / (h * w * max(span, 1e-6))
        return Light(
            linear=exposure.linear(),
            sharp=frames[window.centre].copy()
            if instant is None
            else draws.response.encode(instant.linear()),
            motion=motion,
            # Interpolated light runs from one frame's own exposure to another's, so the source's open time (its
            # interval less the dead time) adds to the shutter.
            spent=exposed_frames(intervals, duty, readout) + recipe.source_duty,
            substeps={"mean": round(steps, 3), "max": exposure.longest},
            # A moving pixel meets other pixels at each sub-step: measured on noise moved by 0 to 32 px a frame.
            effective_frames=span * (1 + 1.7 * (max(steps, 1) - 1)),
            blur_px=round(
                streaks.length(
                    streaks.trace(), *_opening(intervals, exposed_frames(intervals, duty, readout)), path
                ),
                3,
            ),
            content=content_motion(pairs, target, shutter, readout, path) if recipe.labels else None,
            shake=None if path is None else describe(path, w, h),
            integrator=getattr(exposure, "integrator", None),
        )

    def _reach(self, streaks: Streaks, draws: Draws, intervals: int, readout: float) -> float:
        """The exposed share of the window, at most draws.duty, whose streaks are as long as drawn from the recipe's
        range, cut to what the window gives. Raises OutOfReach."""
        assert self.recipe.blur_range is not None
        low, high = self.recipe.blur_range
        trace = streaks.trace()
        most = exposed_frames(intervals, draws.duty, readout)

        def reach(frames: float) -> float:
            path = self._shake(draws, *streaks.size[::-1], streaks.target, *_opening(intervals, frames))
            return streaks.length(trace, *_opening(intervals, frames), path)

        shortest = min(SHORTEST, most)
        least, longest = reach(shortest), reach(most)
        if longest < low or least > high:
            raise OutOfReach(least, longest)
        low, high = max(low, least), min(high, longest)
        wanted = low + (high - low) * draws.streak
        a, b = shortest, most
        for _ in range(20):  # to a millionth of the window
            middle = (a + b) / 2
            a, b = (middle, b) if reach(middle) < wanted else (a, middle)
        return b / intervals

    def _shake(
        self, draws: Draws, width: int, height: int, target: float, start: float, stop: float
    ) -> np.ndarray | None:
        """The camera's path over an exposure from start to stop, the target's instant `target`, in frames; the same
        hand's however long the exposure is."""
        if self.recipe.shake_range is None:
            return None
        low, high = self.recipe.shake_range
        rng = copy.deepcopy(draws.shake)
        px = low + (high - low) * rng.random()
        about, at = self.recipe.shake_about, (target - start) / (stop - start)
        return draw_path(rng, px, width, height, at, about, self.profile)

    def _plain_mean(self, window: Window, draws: Draws) -> Light:
        """Mean of the N frames in the response's domain (GoPro's recipe with crf display); exact for 8-bit codes."""
        frames, centre, count = window.frames, window.centre, len(window.frames)
        motion = FlowStats()
        pair = estimate_pair("dis", frames[centre], frames[centre + 1], 0.25)
        motion.add(pair, frames[centre], frames[centre + 1])
        if self.recipe.crf == "display":
            # Integers sum exactly; the light of the mean code encodes to round(mean).
            total = np.zeros(frames[0].shape, np.int64)
            for f in frames:
                total += f
            linear: np.ndarray = (total / (255.0 * count)).astype(np.float32)
            for f in frames if draws.highlight else ():
                excess = self.highlights.excess(f, draws.highlight)
                linear += (excess if isinstance(excess, np.ndarray) else excess * (f == 255)) / np.float32(
                    count
                )
        else:
            acc = np.zeros((*frames[0].shape[:2], 4), np.float32)
            for i in range(count):
                acc = cv2.add(acc, self._decode(window, i, draws))
            linear = acc[..., :3] / np.float32(count)
        # N frames averaged hold N frames' light.
        light = Light(linear, frames[centre].copy(), motion, count, {"mean": 1.0, "max": 1}, float(count))
        if not self.recipe.labels:
            return light
        pairs = [solve_pair("dis", a, b) for a, b in pairwise(frames)]
        shutter = make_shutter(len(frames[0]), count - 1)
        return replace(light, content=content_motion(pairs, float(centre), shutter))

    def _above(self, window: Window, i: int, draws: Draws) -> float | np.ndarray:
        """Light of frame i above white, as `Response.decode` takes it.

        What the film itself holds above white is taken as it is; the recipe's highlights are a guess for film that
        holds none.
        """
        if window.above:
            above = window.above[i]
            return 0.0 if above is None else above
        return self.highlights.excess(window.frames[i], draws.highlight)

    def _decode(self, window: Window, i: int, draws: Draws) -> np.ndarray:
        """Linear light of frame i with what its pixels have above white, float32 (H, W, 4)."""
        return draws.response.decode(window.frames[i], self._above(window, i, draws))

    def _place(self, window: Window, i: int, draws: Draws) -> tuple[Any, Any]:
        """`_decode`'s light and its `quasi` version, where the integrator works."""
        return self.integrator.place(window.frames[i], draws.response, self._above(window, i, draws))

    def _pair(self, window: Window, i: int) -> SolvedPair:
        """Flows between frames i and i + 1, kept only where another window crosses them too."""
        key = (window.clip_id, window.first + i)
        pair = self.flows.get(key) or self.integrator.flows(window.frames[i], window.frames[i + 1])
        if (self.recipe.stride or len(window.frames)) < len(window.frames) - 1:
            self.flows[key] = pair
        else:
            self.flows.pop(key, None)
        return pair
