"""``inspect`` before synthesis: what moves in a video or a folder of frames, what would be rejected, what blur would look like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blursynth.preview.flow import dis_flow, speeds
from blursynth.preview.moments import SPAN, Interval, Moment, measure, moments, varied
from blursynth.preview.pictures import difference_map, to_display
from blursynth.preview.ranks import pick_ranks, rank_name
from blursynth.preview.report import Card, InspectError, InspectReport, number

if TYPE_CHECKING:
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
