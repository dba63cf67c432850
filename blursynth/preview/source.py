"""``inspect`` before synthesis: what moves in a video or a folder of frames, what would be rejected, what blur would look like."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.preview.pictures import difference_map, to_display
from blursynth.preview.report import Card, InspectError, InspectReport, number, pick_ranks, rank_name
from blursynth.sources.find import Clip

LOOK_FRAMES = 900  # decoded in all to measure motion; a long source is looked at in spans spread over it
_CLIPS = 40


def inspect_source(target: Path, samples: int, look_frames: int = LOOK_FRAMES) -> InspectReport:
    """Report on a video, a folder of videos or a folder of frames.

    Args:
        samples: how many moments to show; up to a quarter of them are rejected intervals, where there are any.
        look_frames: about how many frames to decode for the figures.
    Raises:
        InspectError: when no clip is usable or no frame can be decoded.
    """
    from blursynth.sources.find import SourceError, find_clips

    try:
        clips, unusable = find_clips([str(target)])
    except SourceError as e:
        raise InspectError(str(e), 2) from None
    report = InspectReport(
        target=str(target),
        kind="source",
        rejects_of="intervals",
        extent_name="Motion",
        extent_unit="px/frame",
    )
    for reject in unusable[:10]:
        report.warnings.append(f"not used: {reject.detail}")
    if len(unusable) > 10:
        report.warnings.append(f"and {len(unusable) - 10} more files that are not used")
    looked = (
        clips
        if len(clips) <= _CLIPS
        else [clips[round(i * (len(clips) - 1) / (_CLIPS - 1))] for i in range(_CLIPS)]
    )
    intervals = [
        step
        for n, clip in enumerate(looked)
        for step in measure(n, clip, max(SPAN, look_frames // len(looked)))
    ]
    _figures(report, looked, len(clips), intervals)

    usable, rejected = moments(intervals)
    shown = min(len(rejected), samples // 4) if usable else min(len(rejected), samples)
    picks: list[tuple[Moment, str]] = []
    if usable:
        usable.sort(key=lambda m: (m.speed, m.clip, m.first))
        ranks = pick_ranks([str(m.clip) for m in usable], max(1, samples - shown))
        picks = [(usable[r], rank_name(r, len(usable))) for r in ranks]
    else:
        report.warnings.append(
            "no run of usable intervals is long enough for a blur; rejected ones are shown instead"
        )
    picks += [(m, f"rejected: {m.verdict}") for m in varied(rejected, shown)]
    preview = _Preview()
    for moment, rank in picks:
        card = _card(looked[moment.clip], moment, rank, preview)
        if card is not None:
            report.cards.append(card)
    if not report.cards:
        raise InspectError(
            f"{target}: no frame of {len(looked)} clip{'s' * (len(looked) != 1)} can be decoded, or fewer than two in a row"
        )
    report.ranked_by = "motion of the fastest 5 % of the picture, px/frame"
    return report


class _Preview:
    """What a window would look like blurred: by the synthesiser with DIS, or the plain mean where there is none."""

    def __init__(self) -> None:
        self.maker: Any = None
        try:
            from blursynth.pairs.synthesis import Synthesizer
            from blursynth.recipe import Recipe
        except (
            ImportError
        ):  # a part of the package that does not load here must not cost the rest of the preview
            return
        self.maker = Synthesizer(Recipe.model_validate({"interp": "dis"}))

    def blur(self, frames: list[np.ndarray], clip: Clip, first: int) -> tuple[np.ndarray, str]:
        """``frames``: (H, W, 3) uint8 RGB each, already at display size. Returns the blurred picture and its label."""
        if self.maker is not None:
            sample = self.maker.sample(
                clip.rel, frames, first, clip.info.fps, np.random.default_rng(0), stride=len(frames)
            )
            self.maker.forget(clip.rel, first + len(frames))
            if sample.blur_rgb is not None:
                return sample.blur_rgb, f"{len(frames)} frames, DIS, linear light"
        return linear_mean(frames), f"plain linear-light mean of {len(frames)} frames"


def linear_mean(frames: list[np.ndarray]) -> np.ndarray:
    """Mean of sRGB frames in linear light. ``frames``: (H, W, 3) uint8 each. Returns (H, W, 3) uint8 sRGB."""
    x = np.arange(256) / 255
    decode = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
    light = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        light += decode[frame]
    light /= len(frames)
    encoded = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055
    )
    return np.rint(255 * np.clip(encoded, 0, 1)).astype(np.uint8)


def _card(clip: Clip, moment: Moment, rank: str, preview: _Preview) -> Card | None:
    """The pictures of a moment; None when its frames are not to be had (a rejected interval at a damaged frame)."""
    from blursynth.video.clip import read_frames

    frames = [f.rgb for f in read_frames(clip.info, moment.first, moment.last)]
    whole = [f for f in frames if f is not None]
    if len(whole) < len(frames) or len({f.shape for f in whole}) > 1:
        return None
    centre = min(moment.target - moment.first, len(whole) - 2)
    here, after = whole[centre], whole[centre + 1]
    flow = None if moment.verdict == "cut" else dis_flow(here, after, fine=True)
    small = [to_display(f) for f in whole]
    layers = [("Frame", small[centre]), ("Next frame", small[centre + 1])]
    at = moment.first + centre
    facts = [
        ("Clip", " / ".join(v for v in (clip.dataset, clip.rel) if v)),
        (
            "Frames",
            f"{moment.first}–{moment.last}, shown is {at}"
            + (f" ({number(at / clip.info.fps)} s)" if clip.info.fps else ""),
        ),
    ]
    if flow is not None:
        median, p95 = speeds(flow)
        facts += [
            ("Median motion", f"{number(median, 2)} px/frame"),
            ("Fastest 5 %", f"{number(p95, 2)} px/frame"),
        ]
    if moment.verdict is None:
        blurred, label = preview.blur(small, clip, moment.first)
        layers.insert(0, ("Blur preview", blurred))
        facts.append(("Blur preview", label))
    note = f"DIS, frame {at} to {at + 1}" if flow is not None else "nothing moves from one scene to another"
    facts.append(("Flow", note))
    return Card(
        title=f"{clip.rel} · frame {at}",
        rank=rank,
        split="",
        layers=layers,
        flicker=(len(layers) - 2, len(layers) - 1),
        difference=difference_map(here, after),
        difference_of="of the two frames",
        flow=flow,
        flow_note=note,
        facts=facts,
        extent=moment.speed,
        size=f"{here.shape[1]} × {here.shape[0]}",
        rejected=moment.verdict is not None,
    )


def _figures(report: InspectReport, looked: list[Clip], clips: int, intervals: list[Interval]) -> None:
    report.columns = ["Clip", "Frames", "fps", "Size", "Looked at", "Usable"]
    seen, good = Counter(s.clip for s in intervals), Counter(s.clip for s in intervals if s.verdict is None)
    for n, clip in enumerate(looked):
        i = clip.info
        share = f"{100 * good[n] / seen[n]:.0f} %" if seen[n] else "–"
        rate = number(i.fps) if i.fps else "?"
        report.rows.append(
            [clip.rel, f"{i.frames:,}", rate, f"{i.width} × {i.height}", f"{seen[n]:,}", share]
        )
        report.samples[clip.rel] = good[n]
    report.sizes = dict(Counter(f"{c.info.width} × {c.info.height}" for c in looked))
    report.rejects = dict(Counter(s.verdict for s in intervals if s.verdict is not None).most_common())
    report.extent_median = np.array([s.median for s in intervals])
    report.extent_p95 = np.array([s.p95 for s in intervals])
    total = sum(c.info.frames for c in looked)
    part = "all" if len(intervals) >= total - len(looked) else "a spread"
    report.headline = f"{len(looked):,} clip{'s' * (len(looked) != 1)}, {total:,} frames; {len(intervals):,} intervals between frames looked at ({part})"
    if clips > len(looked):
        report.warnings.append(
            f"{clips:,} clips are there; {len(looked)} of them, spread evenly, are looked at"
        )
    # Below about a pixel a frame there is next to nothing to blur; above a tenth of the width flow cannot follow.
    speed = report.extent_p95[np.isfinite(report.extent_p95)]
    if speed.size and np.median(speed) > 0.05 * max(c.info.width for c in looked):
        report.warnings.append(
            f"the fastest 5 % move {number(float(np.median(speed)), 2)} px a frame: much for interpolation; a higher frame rate would serve better"
        )


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


_MEASURE_PX = 480  # DIS at this size takes some 10 ms a pair and still sees motion of a quarter of a pixel


def dis_flow(
    first: np.ndarray, second: np.ndarray, longest: int = _MEASURE_PX, fine: bool = False
) -> np.ndarray:
    """DIS flow from one frame to the next, computed at a reduced size.

    ``first``, ``second``: (H, W, 3) uint8 RGB of one shape. Returns (h, w, 2) float32, (dx, dy) in pixels of the full
    size, h and w at most ``longest``. ``fine`` takes DIS's medium preset: for the eye, as the fast one is blocky.
    """
    a, b = (cv2.cvtColor(to_display(f, longest), cv2.COLOR_RGB2GRAY) for f in (first, second))
    h, w = a.shape
    pad = [max(0, 16 - h), max(0, 16 - w)]  # DIS needs a patch or two to stand on
    if any(pad):
        a, b = (cv2.copyMakeBorder(g, 0, pad[0], 0, pad[1], cv2.BORDER_REPLICATE) for g in (a, b))
    dis: Any = cv2.DISOpticalFlow.create(
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
    )
    flow = dis.calc(a, b, None)[:h, :w]
    return flow * np.array([first.shape[1] / w, first.shape[0] / h], np.float32)


def speeds(flow: np.ndarray) -> tuple[float, float]:
    """Median and 95th percentile of the speed of an (H, W, 2) flow, in its unit."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    median, p95 = np.percentile(speed, [50, 95])
    return float(median), float(p95)


class SourceFlow:
    """Flow recomputed from the sources of a data folder, for samples that carry no thumbnail of it."""

    def __init__(self, folder: Path, dataset: dict[str, Any], deadline: float):
        self.roots = _recorded_sources(dataset, folder)
        self.deadline = deadline
        self.clips: dict[str, Any] = {}

    def of(self, source: dict[str, Any], sharp: np.ndarray) -> tuple[np.ndarray | None, str]:
        """(flow or None, what it is or why there is none) for a sample's ``source`` group.

        The source's target frame must equal ``sharp``, (H, W, 3) uint8 RGB, byte for byte: a file of that name could
        by now be another one, and flow of other frames would be worse than none.
        """
        rel, target, last = source.get("path"), source.get("target"), source.get("last")
        if not isinstance(rel, str) or not rel or type(target) is not int or type(last) is not int:
            return None, "not stored with the sample, and its source is not named"
        missing = "not stored with the sample, and its source is not where it was"
        if time.monotonic() > self.deadline:
            return None, "not stored with the sample; recomputing it for more samples would take long"
        if not 0 <= target < last:
            return None, missing
        info = self._clip(rel)
        if info is None or last >= info.frames:
            return None, missing
        from blursynth.video.clip import read_frames

        frames = [f.rgb for f in read_frames(info, target, target + 1)]
        if len(frames) != 2 or frames[0] is None or frames[1] is None:
            return None, "not stored with the sample, and its source can no longer be decoded there"
        if frames[0].shape != sharp.shape or not np.array_equal(frames[0], sharp):
            return None, "not stored with the sample, and its source is no longer the same picture"
        return dis_flow(
            frames[0], frames[1]
        ), f"recomputed (DIS) from source frames {target} and {target + 1}"

    def _clip(self, rel: str) -> Any:
        if rel not in self.clips:
            from blursynth.video.clip import ClipError, probe_clip

            self.clips[rel] = None
            for root in self.roots:
                for path in (root / rel, root.parent / rel, root):
                    # `rel` comes out of a shard: it may name a file below the roots, never climb out of them.
                    if (
                        ".." in Path(rel).parts
                        or Path(rel).is_absolute()
                        or not path.exists()
                        or path.name != Path(rel).name
                    ):
                        continue
                    try:
                        self.clips[rel] = probe_clip(path)
                    except ClipError:
                        continue
                    return self.clips[rel]
        return self.clips[rel]


def _recorded_sources(dataset: dict[str, Any], folder: Path) -> list[Path]:
    """Where the sources were: the ``src`` of the last start in run.jsonl, or of dataset.json where a program put it there."""
    from blursynth.run.report import RunLog

    found = (RunLog.last_start(folder / "run.jsonl") or dataset).get("src")
    return [Path(text) for text in found if isinstance(text, str) and text] if isinstance(found, list) else []
