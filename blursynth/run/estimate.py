"""``make --dry-run``: how many samples, how much disk, how long. Writes nothing."""

from __future__ import annotations

import contextlib
import os
import time

from blursynth.recipe import RunOptions
from blursynth.run.folder import Output
from blursynth.run.outcome import Rejected, Run
from blursynth.run.plan import Plan
from blursynth.run.report import Summary
from blursynth.run.task import default_synthesizer, sample_members
from blursynth.run.windows import read_windows
from blursynth.sources.find import Reject

REPEAT_BELOW_S = 20  # the first window also compiles; where that is affordable, time a second one
TRY_WINDOWS = 12  # a clip may begin with a title card or a still


def estimate(
    plan: Plan, run: RunOptions, unused: list[Reject], output: Output, warnings: list[str]
) -> Summary:
    """Measure one window and multiply."""
    workers = run.workers or os.cpu_count() or 1
    summary = Summary(
        run.out,
        plan.samples,
        shards=len(plan),
        splits=plan.split_samples,
        clips=len(plan.clips),
        clip_rejects=unused,
        warnings=warnings,
        dry_run=True,
        free_bytes=output.free_bytes(),
        workers=workers,
    )
    measured = _measure(plan, run.rife_weights)
    if measured is not None:
        seconds, size, pixels = measured
        summary.estimate_bytes = int(size / pixels * plan.pixels)
        summary.estimate_s = seconds / pixels * plan.pixels / workers
    return summary


def _measure(plan: Plan, rife_weights: str | None) -> tuple[float, int, int] | None:
    """Seconds, bytes and pixels of the samples of one window that synthesises; None where none of the first does."""
    recipe = plan.recipe
    run = next(plan.tasks(".")).runs[0]
    maker = default_synthesizer(recipe, rife_weights)
    for w in run.windows[:TRY_WINDOWS]:
        for again in (True, False):
            began = time.perf_counter()
            members: list[dict[str, bytes]] = []
            for window, frames, reason in read_windows(Run(run.source, (w,))):
                with contextlib.suppress(Rejected):
                    if reason is None:
                        members = [m for _, m in sample_members(recipe, run.source, window, frames, maker)]
            seconds = time.perf_counter() - began
            maker.forget(run.source.clip.rel, 2**31)
            if not members or seconds > REPEAT_BELOW_S or not again:
                break
        if members:
            info, tile = run.source.clip.info, recipe.tile
            pixels = len(members) * (tile * tile if tile else info.width * info.height)
            return seconds, sum(len(b) for parts in members for b in parts.values()), pixels
    return None
