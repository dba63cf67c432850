"""Moments of a source worth a look: where it moves little, usually and most, and where it may not be exposed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from blursynth.preview.flow import dis_flow, speeds

if TYPE_CHECKING:
    from blursynth.sources.find import Clip

WINDOW = 9  # frames of the blur that is previewed, the default recipe's window
SPAN = 2 * WINDOW  # frames looked at in one go where a source is too long to look at all of it


@dataclass(frozen=True)
class Interval:
    """From frame ``index - 1`` to ``index`` of a clip."""

    clip: int
    index: int
    verdict: str | None  # why it may not be exposed; None when it may
    median: float  # px/frame; NaN where there is no flow to speak of
    p95: float


@dataclass(frozen=True)
class Moment:
    """Frames ``first..last`` of a clip, both in; ``verdict`` where they are shown because they are rejected."""

    clip: int
    first: int
    last: int
    speed: float  # px/frame, of the fastest 5 %
    verdict: str | None = None

    @property
    def target(self) -> int:
        return (self.first + self.last) // 2


def spans(frames: int, budget: int) -> list[tuple[int, int]]:
    """Frame ranges, both ends in, to look at: the whole clip where the budget allows it, else spans spread over it."""
    if frames <= budget:
        return [(0, frames - 1)]
    count = max(1, budget // SPAN)
    starts = {
        round(i * (frames - SPAN) / max(1, count - 1)) if count > 1 else (frames - SPAN) // 2
        for i in range(count)
    }
    return [(start, start + SPAN - 1) for start in sorted(starts)]


def measure(number_: int, clip: Clip, budget: int) -> Iterator[Interval]:
    from blursynth.video.clip import read_frames
    from blursynth.video.intervals import IntervalChecker

    for first, last in spans(clip.info.frames, budget):
        checker = IntervalChecker()
        before: np.ndarray | None = None
        found: list[Interval] = []
        for frame in read_frames(clip.info, first, last):
            verdict = checker.push(frame)
            if frame.rgb is None and verdict is None:
                verdict = frame.fault or "decode"
            if frame.index > first:
                median = p95 = np.nan
                if verdict is None and before is not None and frame.rgb is not None:
                    median, p95 = speeds(dis_flow(before, frame.rgb))
                found.append(Interval(number_, frame.index, verdict, median, p95))
            before = frame.rgb
        # The checker judges a scene's first intervals once it has seen more of it.
        for step in found:
            late = checker.revised.get(step.index)
            yield (
                replace(step, verdict=late, median=np.nan, p95=np.nan)
                if late and step.verdict is None
                else step
            )


def moments(intervals: list[Interval]) -> tuple[list[Moment], list[Moment]]:
    """Windows that tile the runs of usable intervals, and every rejected interval."""
    usable: list[Moment] = []
    rejected: list[Moment] = []
    run: list[Interval] = []

    def close() -> None:
        frames = min(WINDOW, len(run) + 1)
        frames -= 1 - frames % 2  # an odd number has a centre frame
        if frames >= 3:
            steps = frames - 1
            for at in range(0, len(run) - steps + 1, WINDOW):
                part = run[at : at + steps]
                usable.append(
                    Moment(
                        part[0].clip, part[0].index - 1, part[-1].index, float(np.mean([s.p95 for s in part]))
                    )
                )
        run.clear()

    for step in intervals:
        if run and (step.clip != run[-1].clip or step.index != run[-1].index + 1):
            close()
        if step.verdict is None and np.isfinite(step.p95):
            run.append(step)
            continue
        close()
        if step.verdict is not None:
            rejected.append(Moment(step.clip, step.index - 1, step.index, np.nan, step.verdict))
    close()
    return usable, rejected


def varied(rejected: list[Moment], count: int) -> list[Moment]:
    """Of each reason in turn, those spread evenly over the source."""
    by_reason: dict[str, list[Moment]] = {}
    for moment in rejected:
        by_reason.setdefault(str(moment.verdict), []).append(moment)
    chosen: list[Moment] = []
    for i, group in enumerate(by_reason.values()):
        share = count // len(by_reason) + (i < count % len(by_reason))
        chosen += [
            group[round(j * (len(group) - 1) / max(1, share - 1))] for j in range(min(share, len(group)))
        ]
    return chosen
