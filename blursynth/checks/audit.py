"""Check film before pairs are made of it (``blursynth audit``).

Reads every frame once. The checks on intervals are the ones ``make`` applies (intervals.py); the rest says what
``make`` cannot repair: false frame rates, blur that is already there, clipped light, motion too large or too small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from blursynth.checks.audit_table import AuditReport, RejectedItem
from blursynth.checks.measure import (
    blend_residual,
    clipped_share,
    directional_energy,
    duplicate_period,
    motion_px,
    noise_sigma,
    phase_contrast,
    soft_frames,
)
from blursynth.recipe import LEAST_SIDE, Recipe
from blursynth.sources.find import Clip, find_clips
from blursynth.video.clip import ClipInfo, Frame, read_as, read_frames
from blursynth.video.intervals import IntervalChecker, luma, thumbnail
from blursynth.video.packets import packet_index
from blursynth.video.takes import folder_order
from blursynth.video.verdict import WINDOW, ClipAudit, judge


def audit_source(
    srcs: Sequence[str | Path],
    fps: float | None = None,
    max_frames: int | None = None,
    progress: Callable[[Clip, int], None] | None = None,
    window: int = WINDOW,
    recipe: Recipe | None = None,
) -> AuditReport:
    """Audit every clip that ``make`` would find, read as ``make`` would read it.

    Returns the report: a row for each clip, what was rejected, and ``exit_code``. Raises SourceError when there is no clip.

    Args:
        srcs: videos, folders of videos or frames.
        fps: frames a second of all sources, whatever their files say; default: the recipe's, else the file's own.
        max_frames: look at the first so many frames of each clip.
        progress: called as ``progress(clip, index)`` for each frame.
        window: frames of the windows that are counted.
        recipe: its ``fps``, ``fps_unknown``, ``crf`` and ``deinterlace`` count.
    """
    recipe = recipe or Recipe()
    recipe = recipe.model_copy(update={"fps": fps}) if fps else recipe
    clips, rejects = find_clips(srcs, recipe.fps or recipe.fps_unknown, recipe.deinterlace)
    small = [c for c in clips if min(c.info.width, c.info.height) < LEAST_SIDE]
    return AuditReport(
        clips=[audit_clip(c, max_frames, progress, window, recipe) for c in clips if c not in small],
        rejects=[
            *(RejectedItem(what=r.what, reason=r.reason, detail=r.detail) for r in rejects),
            *(
                RejectedItem(
                    what=c.rel,
                    reason="too small",
                    detail=f"{c.info.width}x{c.info.height} px; a source needs {LEAST_SIDE} px a side",
                )
                for c in small
            ),
        ],
    )


class _Tally:
    """What accumulates while a clip's frames go by: numbers per frame, never frames."""

    def __init__(self, n: int, keeps_light: bool):
        self.keeps_light = keeps_light  # the film holds light above white
        self.every = max(1, n // 60)  # the dearer measurements on about 60 frames a clip
        self.checker = IntervalChecker()
        self.found: dict[str, list[int]] = {
            "cut": [],
            "duplicate": [],
            "gap": [],
            "decode": [],
            "size": [],
            "rate": [],
        }
        self.faults: Counter[str] = Counter()
        self.energy = np.full((n, 4), np.nan)
        self.blend = np.full(n, np.nan)
        self.samples: list[tuple[float, float, float]] = []  # clipped high, clipped low, noise
        self.motion: list[tuple[float, float]] = []
        self.thumbs: list[np.ndarray | None] = [None, None]
        self.last: Frame | None = None

    def add(self, i: int, frame: Frame) -> None:
        reason = self.checker.push(frame)
        if reason:
            self.found[reason].append(frame.index)
        if frame.fault:
            self.faults[frame.fault] += 1
        thumb = None if frame.rgb is None else thumbnail(frame.rgb)
        if frame.rgb is not None:
            # Full resolution, middle quarter: blur of a few pixels is gone from a thumbnail.
            h, w = frame.rgb.shape[:2]
            self.energy[i] = directional_energy(luma(frame.rgb[h // 4 : h - h // 4, w // 4 : w - w // 4]))
            before, middle = self.thumbs
            if thumb is not None and before is not None and middle is not None and reason != "cut":
                self.blend[i - 1] = blend_residual(before, middle, thumb)
            if i % self.every == 0:
                high, low = clipped_share(frame.rgb)
                if self.keeps_light:  # code 255 has not lost its light there
                    high = 0.0
                self.samples.append((high, low, noise_sigma(luma(frame.rgb))))
                if self.last is not None and self.last.rgb is not None and not reason:
                    self.motion.append(motion_px(self.last.rgb, frame.rgb))
        self.thumbs = [None, thumb] if reason == "cut" else [self.thumbs[1], thumb]
        self.last = frame


def _takes(info: ClipInfo) -> list[str]:
    try:
        return folder_order(info.path).takes if info.kind == "frames" else []
    except OSError:  # gone: its frames are told as unreadable
        return []


def audit_clip(
    clip: Clip,
    max_frames: int | None = None,
    progress: Callable[[Clip, int], None] | None = None,
    window: int = WINDOW,
    recipe: Recipe | None = None,
) -> ClipAudit:
    """Audit one clip; never raises for bad data."""
    info, against = read_as(clip.info, recipe or Recipe())
    n = min(info.frames, max_frames or info.frames)
    tally = _Tally(n, info.transfer != "srgb")
    for frame in read_frames(info, 0, n - 1):
        tally.add(frame.index, frame)
        if progress:
            progress(clip, frame.index)
    found = tally.found
    duplicates = sorted({*found["duplicate"], *tally.checker.revised})
    bad = {i for v in found.values() for i in v} | set(duplicates)
    starts = range(0, n - window + 1, window)
    samples = np.array(tally.samples) if tally.samples else np.zeros((1, 3))
    motion = np.array(tally.motion) if tally.motion else np.zeros((1, 2))
    sharpness = np.sqrt(tally.energy.mean(axis=1))
    rate, jitter = _timing(clip)
    audit = ClipAudit(
        clip=clip.rel,
        path=info.path,
        dataset=clip.dataset,
        frames=info.frames,
        read=n,
        width=info.width,
        height=info.height,
        decoder=info.decoder,
        transfer=info.transfer,
        gamut=info.gamut,
        fps=info.fps,
        fps_measured=rate,
        rate_jitter=jitter,
        faults=dict(tally.faults),
        gaps=found["gap"],
        rate_changes=found["rate"],
        cuts=found["cut"],
        takes=_takes(info),
        duplicates=duplicates,
        duplicate_period=duplicate_period(duplicates) if len(duplicates) > 0.1 * n else None,
        blend_period=phase_contrast(tally.blend, low=0.4),
        soft_period=phase_contrast(sharpness, low=0.85),
        soft_share=float(soft_frames(tally.energy, found["cut"]).mean()),
        clipped_high=float(samples[:, 0].mean()),
        clipped_low=float(samples[:, 1].mean()),
        noise_sigma=float(np.median(samples[:, 2])),
        motion_px=float(np.median(motion[:, 0])),
        motion_p95_px=float(np.median(motion[:, 1])),
        window=window,
        windows=sum(not bad.intersection(range(s + 1, s + window)) for s in starts),
        windows_possible=len(starts),
        verdict="ok",
        advice=[],
    )
    verdict, advice = judge(audit)
    verdict = "warn" if against and verdict == "ok" else verdict
    return audit.model_copy(update={"verdict": verdict, "advice": advice + against})


def _timing(clip: Clip) -> tuple[float | None, float | None]:
    if clip.info.kind == "frames":
        return None, None
    index = packet_index(clip.info.path)
    timing = index.timing
    if not len(timing.starts):
        return None, None
    longest = int(np.argmax(np.diff([*timing.starts.tolist(), index.frames])))
    return timing.rate(int(timing.starts[longest])), timing.jitter
