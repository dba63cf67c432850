"""``make --dry-run``: how many samples, how much disk, how long. Writes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from blursynth.run.folder import Output
from blursynth.run.plan import Plan, Run, WindowSpec
from blursynth.run.report import Summary
from blursynth.run.task import default_synthesizer, sample_members
from blursynth.run.windows import read_windows

if TYPE_CHECKING:
    from blursynth.run.make import Job

REPEAT_BELOW_S = 20  # the first window also compiles; where that is affordable, time a second one
TRY_WINDOWS = 12  # a clip may begin with a title card or a still


def estimate(job: Job, output: Output) -> Summary:
    """Plan, and measure one window."""
    plan, workers = job.plan, job.run.workers or os.cpu_count() or 1
    summary = Summary(
        job.run.out,
        plan.samples,
        shards=len(plan),
        clips=len(plan.clips),
        clip_rejects=job.unused,
        dry_run=True,
        workers=workers,
    )
    summary.splits = plan.split_samples
    measured = _measure(plan, job)
    if measured is not None:
        seconds, size, pixels = measured
        summary.estimate_bytes = int(size / pixels * plan.pixels)
        summary.estimate_s = seconds / pixels * plan.pixels / workers
    summary.free_bytes = output.free_bytes()
    return summary


def _measure(plan: Plan, job: Job) -> tuple[float, int, int] | None:
    """Seconds, bytes and pixels of the samples of one window that synthesises; None where none of the first does."""
    task = next(plan.tasks("."))
    source = task.runs[0].source
    maker = default_synthesizer(job.recipe, job.run.rife_weights)
    for w in task.runs[0].windows[:TRY_WINDOWS]:
        for again in (True, False):
            began = time.perf_counter()
            for window, frames, reason in read_windows(Run(source, (WindowSpec(*vars(w).values()),))):
                members = (
                    []
                    if reason
                    else [
                        m
                        for m in sample_members(job.recipe, source, window, frames, maker)
                        if not isinstance(m, str)
                    ]
                )
            seconds = time.perf_counter() - began
            maker.forget(source.clip.rel, 2**31)
            if not members or seconds > REPEAT_BELOW_S or not again:
                break
        if members:
            info, tile = source.clip.info, job.recipe.tile
            pixels = len(members) * (tile * tile if tile else info.width * info.height)
            return seconds, sum(len(b) for _, parts in members for b in parts.values()), pixels
    return None
