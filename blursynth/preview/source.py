"""``inspect`` before synthesis: what moves in a video or a folder of frames, what would be left out, what blur would look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blursynth.checks.contact_sheet import shrunk
from blursynth.checks.measure import motion_px, noise_sigma
from blursynth.common.text import by_count, counted, number
from blursynth.motion.flow import estimate_pair
from blursynth.pairs.synthesis import integrate_exposure
from blursynth.preview.rejects import LeftOut, rejected_cards
from blursynth.preview.report import Card, InspectError, InspectReport, Table, motion, pick_ranks, rank_name
from blursynth.recipe import LEAST_SIDE, Recipe
from blursynth.run.outcome import PlanClip, Run, WindowSpec
from blursynth.run.windows import LEAD_IN, read_windows
from blursynth.sources.find import Clip, SourceError, find_clips
from blursynth.video.clip import read_frames
from blursynth.video.intervals import luma
from blursynth.video.verdict import WINDOW

LOOK_FRAMES = 900  # decoded in all; of a long source, windows spread over it are looked at
_CLIPS = 40
_FAST = 0.05  # of the width a frame: from there on interpolation is at its limit


@dataclass(frozen=True)
class Look:
    """A window of a clip that was looked at. Figures are NaN where it may not be exposed."""

    clip: Clip
    first: int
    last: int
    left_out: LeftOut | None = None
    median: float = np.nan  # px/frame, in its middle
    p95: float = np.nan
    noise: float = np.nan  # 8-bit codes


def inspect_source(target: Path, samples: int, look_frames: int = LOOK_FRAMES) -> InspectReport:
    """Report on a video, a folder of videos or a folder of frames.

    samples: how many windows to show; one of each reason that would be left out comes after them. look_frames: about how
    many frames to decode. Raises InspectError when no clip is usable or no frame can be decoded.
    """
    try:
        clips, unusable = find_clips([str(target)])
    except SourceError as e:
        raise InspectError(str(e), 2) from None
    report = InspectReport(str(target), "source", noun="window", extent_name="Motion", extent_unit="px/frame")
    report.ranked_by = "motion of the fastest 5 % of the picture, px/frame"
    report.warnings += [f"not used: {reject.detail}" for reject in unusable[:10]]
    if len(unusable) > 10:
        report.warnings.append(f"and {len(unusable) - 10} more files that are not used")
    if len(clips) > _CLIPS:
        report.warnings.append(f"{_CLIPS} of {len(clips):,} clips, spread evenly, are looked at")
        clips = [clips[round(i * (len(clips) - 1) / (_CLIPS - 1))] for i in range(_CLIPS)]
    looks = [look for clip in clips for look in look_at(clip, look_frames // len(clips))]
    usable = sorted((x for x in looks if not x.left_out), key=lambda x: (x.p95, x.clip.rel, x.first))
    _figures(report, clips, looks)

    for rank in pick_ranks([x.clip.rel for x in usable], samples) if usable else ():
        report.cards.append(_card(usable[rank], rank_name(rank, len(usable))))
    found = {x.clip.rel: x.clip for x in looks}
    left_out = [x.left_out for x in looks if x.left_out]
    report.left_out = rejected_cards(left_out, report.rejects, lambda window: found[window.clip])
    if not usable:
        report.warnings.append("no window may be exposed: make would give no sample of this source")
    if not report.cards and not any(card.layers for card in report.left_out):
        raise InspectError(f"{target}: no frame of {counted(len(clips), 'clip')} can be decoded")
    return report


def windows_of(frames: int, budget: int) -> tuple[WindowSpec, ...]:
    """Windows end to end, or, where that is more than the budget of frames, spread from the first to the last."""
    size = min(WINDOW, frames - 1 + frames % 2)  # an odd number has a centre frame
    starts: list[int] = list(range(0, frames - size + 1, WINDOW))
    if len(starts) * WINDOW > budget:
        count = max(2, budget // (WINDOW + LEAD_IN))
        starts = sorted({round(i * (frames - size) / (count - 1)) for i in range(count)})
    return tuple(WindowSpec(0, start, start + size - 1) for start in starts)


def look_at(clip: Clip, budget: int) -> Iterator[Look]:
    """The windows of a clip that the budget of frames allows, judged as ``make`` does."""
    windows = windows_of(clip.info.frames, budget)
    for w, frames, fault in read_windows(Run(PlanClip(clip, "train", ""), windows)):
        if fault is not None:
            left_out = LeftOut("", clip.rel, w.first, w.last, fault.reason, fault.values)
            yield Look(clip, w.first, w.last, left_out)
            continue
        here, after = (frames[w.target - w.first + i].rgb for i in (0, 1))
        assert here is not None and after is not None
        yield Look(clip, w.first, w.last, None, *motion_px(here, after), noise_sigma(luma(here)))


def _card(look: Look, rank: str) -> Card:
    clip, frames = look.clip, list(read_frames(look.clip.info, look.first, look.last))
    n = (len(frames) - 1) // 2
    pictures, at = [f.rgb for f in frames if f.rgb is not None], look.first + n
    time = f" ({number(at / clip.info.fps)} s)" if clip.info.fps else ""
    facts = [
        ("Clip", " / ".join(v for v in (clip.dataset, clip.rel) if v)),
        ("Frames", f"{look.first}–{look.last}, shown is {at}{time}"),
        ("motion px", motion(look.median, look.p95)),
    ]
    card = Card(f"{clip.rel} · frame {at}", rank, facts, extent=look.p95)
    card.show(("Frame", pictures[n]), ("Next frame", pictures[n + 1]))
    card.flow = estimate_pair("dis", pictures[n], pictures[n + 1]).forward
    card.flow_note = f"DIS, frame {at} to the next"
    small = [shrunk(rgb) for rgb in pictures]
    if min(small[0].shape[:2]) >= LEAST_SIDE:
        blurred = integrate_exposure(small, Recipe(interp="dis"), clip.info.fps)
        card.layers.insert(0, ("Blur preview", blurred))
        card.flicker = (1, 2)
        facts.append(("Blur preview", f"{len(small)} frames, DIS, linear light"))
    return card


def _figures(report: InspectReport, clips: list[Clip], looks: list[Look]) -> None:
    rows = []
    for clip in clips:
        info, own = clip.info, [x for x in looks if x.clip is clip]
        good = [x for x in own if not x.left_out]
        median, p95, noise = np.median([(x.median, x.p95, x.noise) for x in good] or [(np.nan,) * 3], axis=0)
        lost = by_count(Counter(x.left_out.reason for x in own if x.left_out)) or "–"
        fps, size = number(info.fps or np.nan), f"{info.width} × {info.height}"
        figures = (f"{info.frames:,}", fps, size, motion(median, p95), number(noise, 2))
        rows.append([clip.rel, *figures, f"{len(good)} of {len(own)}", lost])
        report.samples[clip.rel] = len(good)
    columns = ["Clip", "Frames", "fps", "Size", "motion px", "noise", "Usable windows", "Left out"]
    report.tables.append(Table("Clips", columns, rows, ("motion px", "noise")))
    report.sizes = dict(Counter(f"{c.info.width} × {c.info.height}" for c in clips))
    report.rejects = dict(Counter(x.left_out.reason for x in looks if x.left_out).most_common())
    report.extent_median = np.array([x.median for x in looks])
    report.extent_p95 = np.array([x.p95 for x in looks])
    total, seen = sum(c.info.frames for c in clips), sum(x.last - x.first + 1 for x in looks)
    report.headline = f"{counted(len(clips), 'clip')}, {total:,} frames; looked at {seen:,} of them, in {counted(len(looks), 'window')}"
    speed = report.extent_p95[np.isfinite(report.extent_p95)]
    if speed.size and np.median(speed) > _FAST * max(c.info.width for c in clips):
        fast = f"the fastest 5 % move {number(float(np.median(speed)), 2)} px a frame: much for interpolation"
        report.warnings.append(f"{fast}; a higher frame rate would serve better")
