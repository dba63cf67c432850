"""What ``inspect`` warns of in a data set, and why there is nothing to show."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from blursynth.common.text import by_count, counted
from blursynth.common.untrusted import group, rows, texts
from blursynth.preview.index import Index
from blursynth.preview.report import InspectReport


def warnings_of(index: Index) -> list[str]:
    """What is odd in a data set, a line each: lost or foreign files, mixed recipes, splits that share a clip, no validation."""
    warn: list[str] = []
    dataset = index.dataset
    errors = sum(len(texts(side.get("errors"))) for side in index.sides)
    if errors:
        warn.append(
            f"{counted(errors, 'window')} failed with an error of the synthesis (listed in the sidecars)"
        )
    if not index.sides:
        warn.append(
            "no sidecar beside the shards: what was left out is unknown, the run may not have finished"
        )
    elif not index.entries:
        warn.append("no sample was kept: every window was left out, for the reasons shown")
    known = [r for r in index.recipes if r]
    if len(known) > 1:
        warn.append(f"samples of {len(known)} different recipes: " + ", ".join(r[:12] for r in known[:4]))
    for a, b in combinations(sorted(index.clips), 2):
        if shared := {c for c in index.clips[a] & index.clips[b] if not c.endswith("\0?")}:
            such = f"{counted(len(shared), 'source clip')} (such as {min(shared).partition(chr(0))[2][:80]})"
            warn.append(f"{a} and {b} share {such}: validation would flatter")
    warn += [f"{count:,} × {oddity}" for oddity, count in index.oddities.most_common() if count]
    if not index.is_folder:
        return warn
    again = "`blursynth make` with the same options resumes it"
    if parts := sum(1 for _ in index.folder.glob("*.part")):
        warn.append(f"{counted(parts, 'unfinished file')} (.part): a run is going on or was stopped; {again}")
    if not dataset:
        warn.append("no readable dataset.json: the run may not have finished")
    elif dataset.get("complete") is False:
        warn.append(f"dataset.json says that the run did not finish; {again}")
    unused = rows(dataset, "not_used")
    for what in unused[:5]:
        warn.append(f"source not used: {str(what.get('source'))[:80]} ({str(what.get('reason'))[:40]})")
    if len(unused) > 5:
        warn.append(f"and {len(unused) - 5} more sources not used, listed in dataset.json")
    of = group(dataset, "splits")
    named = {str(shard.get("file")) for split in of for shard in rows(group(of, split), "shards")}
    if missing := sorted(named - {s.name for s in index.files}):
        warn.append(
            f"{counted(len(missing), 'shard')} named in dataset.json but not there: {', '.join(missing[:4])}"
        )
    if "val" not in index.shards and "test" not in index.shards:
        warn.append("no validation split: give more clips, or a larger --val-fraction")
    return warn


def why_nothing(target: Path, index: Index, report: InspectReport) -> str:
    """Why there is no sample to show, in a line."""
    of = counted(len(index.files), "shard")
    if index.damaged:
        return f"{target}: no whole sample in {of}; {index.damaged[0]}"
    if not index.files:
        lost = f"; {counted(sum(report.rejects.values()), report.noun)} left out: {by_count(report.rejects)}"
        return f"{target}: no shards (*.tar){lost if report.rejects else ''}; run `blursynth make --out {target}`"
    odd = by_count({what: n for what, n in index.oddities.items() if n}, 3)
    return f"{target}: {of}, no sample in them" + (f" ({odd})" if odd else "")
