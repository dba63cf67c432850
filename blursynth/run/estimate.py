"""``make --dry-run``: how many samples, how much disk, how long. Writes nothing."""

from __future__ import annotations

import os
import time
from collections import Counter

from blursynth.recipe import RunOptions
from blursynth.run.folder import Output
from blursynth.run.outcome import Rejected, Run
from blursynth.run.plan import Plan
from blursynth.run.report import Summary
from blursynth.run.task import default_synthesizer, sample_members
from blursynth.run.windows import read_windows
from blursynth.sources.find import Reject

REPEAT_BELOW_S = 20  # the first window also compiles; where that is affordable, time a second one
TRY_WINDOWS, TRY_CLIPS = 12, 4  # a clip may begin with a title card or a still


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
    if isinstance(measured, Counter):
        told = ", ".join(f"{reason} {n}" for reason, n in measured.most_common())
        summary.no_estimate = f"none of the {measured.total()} windows tried gives a sample ({told})"
    else:
        seconds, size, pixels = measured
        summary.estimate_bytes = int(size / pixels * plan.pixels)
        summary.estimate_s = seconds / pixels * plan.pixels / workers
    return summary


def _measure(plan: Plan, rife_weights: str | None) -> tuple[float, int, int] | Counter[str]:
    """Seconds, bytes and pixels of the samples of one window that synthesises; why none does, where none of some does."""
    recipe = plan.recipe
    maker = default_synthesizer(recipe, rife_weights)
    runs = plan.first_runs()[:TRY_CLIPS]
    reasons: Counter[str] = Counter()
    for run, w in ((r, w) for r in runs for w in r.windows[: TRY_WINDOWS // len(runs)]):
        for again in (True, False):
            began = time.perf_counter()
            members: list[dict[str, bytes]] = []
            for window, frames, fault in read_windows(Run(run.source, (w,))):
                try:
                    if fault is not None:
                        raise fault
                    members = [m for _, m in sample_members(recipe, run.source, window, frames, maker)]
                except Rejected as e:
                    reasons[e.reason] += 1
            seconds = time.perf_counter() - began
            maker.forget(run.source.clip.rel, 2**31)
            if not members or seconds > REPEAT_BELOW_S or not again:
                break
        if members:
            info, tile = run.source.clip.info, recipe.tile
            pixels = len(members) * (tile * tile if tile else info.width * info.height)
            return seconds, sum(len(b) for parts in members for b in parts.values()), pixels
    return reasons
