"""Figures and warnings of a whole data folder, for ``inspect``: from the index of its shards, its sidecars and its recipe."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.preview.index import Index, sidecars
from blursynth.preview.read import group, parse_json, read_bounded
from blursynth.preview.report import InspectReport, size_text

_SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}


def figures(report: InspectReport, index: Index, folder: Path, dataset: dict[str, Any]) -> None:
    counts = Counter(e.split for e in index.entries)
    splits = sorted(index.shards, key=lambda s: (_SPLIT_ORDER.get(s, 9), s))
    report.samples = {s: counts[s] for s in splits}
    report.columns = ["Split", "Samples", "Share", "Clips", "Shards", "On disk"]
    total = max(1, len(index.entries))
    report.rows = [
        [
            s,
            f"{counts[s]:,}",
            f"{100 * counts[s] / total:.0f} %",
            f"{len(index.clips.get(s, ())):,}",
            f"{index.shards[s]:,}",
            size_text(index.bytes[s]),
        ]
        for s in splits
    ]
    report.bytes = sum(index.bytes.values())
    report.headline = f"{total:,} samples in {sum(index.shards.values()):,} shards, {size_text(report.bytes)}"
    report.extent_median = np.array([e.extent for e in index.entries])
    report.extent_p95 = np.array([e.extent_p95 for e in index.entries])
    report.sizes = dict(index.sizes)
    scores = np.array(index.scores)
    report.scores = scores[np.isfinite(scores)]
    report.flags = dict(index.flags)
    report.recipe = _recipe(folder, dataset)
    report.recipe_name = str(report.recipe.get("name") or "")
    report.recipe_sha256 = index.recipes.most_common(1)[0][0]


def _recipe(folder: Path, dataset: dict[str, Any]) -> dict[str, Any]:
    """The resolved recipe, from recipe.toml or else from dataset.json; empty when neither can be read."""
    data = read_bounded(folder / "recipe.toml", 1 << 20)
    if data is not None:
        try:
            return tomllib.loads(data.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
            pass
    return group(dataset, "recipe")


def rejects(report: InspectReport, folder: Path | None, target: Path) -> None:
    """Rejects by reason, summed over sidecars, so that an unfinished run is told right; dataset.json may lag behind."""
    if folder is not None:
        sides = list(sidecars(folder))
    else:
        side = parse_json(read_bounded(target.with_suffix(".json")))
        sides = [side] if side else []
    total: Counter[str] = Counter()
    errors = 0
    for side in sides:
        for reason, n in group(group(side, "counts"), "rejected").items():
            if type(n) is int and n > 0:
                total[str(reason)] += n
        listed = side.get("errors")
        errors += len(listed) if isinstance(listed, list) else 0
    report.rejects = dict(total.most_common())
    if errors:
        report.warnings.append(
            f"{errors:,} window{'s' * (errors != 1)} failed with an error of the synthesis (listed in the sidecars)"
        )
    if not sides:
        report.warnings.append(
            "no sidecar beside the shards: rejects are unknown, the run may not have finished"
        )


def warnings(
    report: InspectReport,
    index: Index,
    folder: Path,
    shards: list[Path],
    dataset: dict[str, Any],
    whole: bool,
) -> None:
    warn = report.warnings
    known = [r for r in index.recipes if r]
    if len(known) > 1:
        warn.append(f"samples of {len(known)} different recipes: " + ", ".join(r[:12] for r in known[:4]))
    splits = sorted(index.clips)
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            if shared := {c for c in index.clips[a] & index.clips[b] if not c.endswith("\0?")}:
                clip = min(shared).partition("\0")[2]
                warn.append(
                    f"{a} and {b} share {len(shared)} source clip{'s' * (len(shared) != 1)} (such as {clip[:80]}): validation would flatter"
                )
    for oddity, count in index.oddities.most_common():
        if count:
            warn.append(f"{count:,} × {oddity}")
    if not whole:
        return
    if parts := sum(1 for _ in folder.glob("*.part")):
        warn.append(
            f"{parts} unfinished file{'s' * (parts != 1)} (.part): a run is going on or was stopped; `blursynth make` with the same options resumes it"
        )
    if not dataset:
        warn.append("no readable dataset.json: the run may not have finished")
    elif dataset.get("complete") is False:
        warn.append(
            "dataset.json says that the run did not finish; `blursynth make` with the same options resumes it"
        )
    unused = (
        [u for u in dataset.get("not_used") or () if isinstance(u, dict)]
        if isinstance(dataset.get("not_used"), list)
        else []
    )
    for what in unused[:5]:
        warn.append(f"source not used: {str(what.get('source'))[:80]} ({str(what.get('reason'))[:40]})")
    if len(unused) > 5:
        warn.append(f"and {len(unused) - 5} more sources not used, listed in dataset.json")
    named = set(re.findall(r"[\w.-]+\.tar", " ".join(_strings(dataset.get("shards"))))) | set(
        re.findall(r"[\w.-]+\.tar", " ".join(_strings(dataset.get("splits"))))
    )
    if missing := sorted(named - {s.name for s in shards}):
        warn.append(
            f"{len(missing)} shard{'s' * (len(missing) != 1)} named in dataset.json but not there: {', '.join(missing[:4])}"
        )
    if "val" not in index.shards and "test" not in index.shards:
        warn.append("no validation split: give more clips, or a larger --val-fraction")


def _strings(value: Any, depth: int = 0) -> list[str]:
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [s for v in below for s in _strings(v, depth + 1)] if depth < 5 else []
