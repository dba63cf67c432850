"""``inspect`` on a data folder: the figures of all its samples, and a few of them from the weakest blur to the strongest."""

from __future__ import annotations

import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.pairs.flow_thumb import decode_flow_thumb
from blursynth.preview.index import (
    Entry,
    Index,
    exposed_frames,
    group,
    index_shards,
    parse_json,
    read_bounded,
    read_labels,
    read_pictures,
    real,
    shards_named,
    sidecars,
)
from blursynth.preview.pictures import difference_map, to_display
from blursynth.preview.report import (
    Card,
    InspectError,
    InspectReport,
    number,
    pick_ranks,
    rank_name,
    size_text,
)
from blursynth.preview.source import SourceFlow


def is_data(target: Path) -> bool:
    """Whether ``target`` is what ``blursynth make`` writes: a shard, or a folder that holds shards or their index."""
    if target.is_file():
        return target.suffix == ".tar"
    return (target / "dataset.json").is_file() or any(target.glob("*.tar"))


def inspect_data(target: Path, samples: int, flow_seconds: float = 20.0) -> InspectReport:
    """Report on a data folder or a single shard, at most ``samples`` cards.

    Args:
        flow_seconds: how long flow may be recomputed from sources in all, where the samples carry none.
    Raises:
        InspectError: when there is not one whole sample; the message says why.
    """
    folder = target if target.is_dir() else target.parent
    shards = sorted(folder.glob("*.tar")) if target.is_dir() else [target]
    index = index_shards(shards)
    report = InspectReport(
        target=str(target), kind="data", damaged=index.damaged, extent_unit="px over the exposure"
    )
    whole_folder = target.is_dir()
    dataset = parse_json(read_bounded(folder / "dataset.json")) or {}
    _rejects(report, folder if whole_folder else None, target)
    if not index.entries:
        raise InspectError(_nothing(target, shards, index, report))
    _figures(report, index, folder, dataset)
    _warn(report, index, folder, shards, dataset, whole_folder)

    order, report.ranked_by = _ranking(index.entries)
    ranked = [index.entries[i] for i in order]
    sources = SourceFlow(folder, dataset, deadline=time.monotonic() + flow_seconds)
    taken: set[int] = set()
    for wanted in pick_ranks([e.split for e in ranked], max(1, samples)):
        # A picture that cannot be decoded gives way to its nearest neighbour in rank.
        for position in sorted(range(len(ranked)), key=lambda p: abs(p - wanted))[:8]:
            if position in taken:
                continue
            taken.add(position)
            try:
                card = _card(ranked[position], rank_name(position, len(ranked)), sources)
            except InspectError as e:
                report.damaged.append(str(e))
                continue
            report.cards.append(card)
            break
    if not report.cards:
        raise InspectError(
            f"{target}: {len(ranked)} samples, and none of those tried can be decoded; {report.damaged[-1]}"
        )
    return report


def _ranking(entries: list[Entry]) -> tuple[list[int], str]:
    """Order from the weakest blur to the strongest, and what it goes by. Samples without the figure go first."""
    p95 = np.array([e.extent_p95 for e in entries])
    if np.isfinite(p95).mean() > 0.5:
        # The median of a picture with a still background is 0 whatever moves in it; its fastest 5 % always tell.
        values, name = p95, "motion of the fastest 5 % of the picture over the exposure"
    elif np.isfinite(median := np.array([e.extent for e in entries])).mean() > 0.5:
        values, name = median, "median motion over the exposure"
    else:
        values = -np.array([e.size_ratio for e in entries])
        name = "file size of the blurred picture against the sharp one (the samples hold no flow figures)"
    keyed = [(v if np.isfinite(v) else -np.inf, e.key) for v, e in zip(values, entries)]
    return sorted(range(len(entries)), key=keyed.__getitem__), name


def _card(entry: Entry, rank: str, sources: SourceFlow) -> Card:
    meta, blur, sharp = read_pictures(entry)
    source, exposure, motion, quality = (group(meta, g) for g in ("source", "exposure", "flow", "quality"))
    frames = exposed_frames(meta)
    flow, note = decode_flow_thumb(motion), "mean motion of the window, from the sample's own thumbnail"
    labelled, mask = read_labels(entry, sharp.shape[:2])
    if labelled is not None:
        flow, note = labelled, "where content goes over the exposure, from the label KEY.flow.npy"
    elif source.get("kind") == "still":
        note = "a still: the camera alone moves, along the path in the sample's JSON"
    elif flow is None:
        flow, note = sources.of(source, sharp)
    elif group(meta, "tile"):
        note = "mean motion of the whole frame that this tile was cut from, from the sample's own thumbnail"

    def px(name: str) -> str:
        each = real(motion.get(name))
        return (
            f"{number(each, 2)} px/frame, {number(each * frames, 2)} px in all"
            if np.isfinite(each)
            else "not recorded"
        )

    shutter, blur_px = real(exposure.get("shutter_ms")), real(exposure.get("blur_px"))
    shaken = real(group(exposure, "shake").get("px"))
    duty, score = real(exposure.get("duty")), real(quality.get("score"))
    facts = [
        ("Clip", " / ".join(str(v) for v in (source.get("dataset"), source.get("clip")) if v) or "unknown"),
        (
            "Frames",
            f"{source['first']}–{source.get('last')}, sharp is {source.get('target')}"
            if source.get("first") is not None
            else "not recorded",
        ),
        (
            "Window",
            f"{exposure['window']} frames, {exposure.get('interp')}"
            if exposure.get("window") is not None
            else "not recorded",
        ),
        (
            "Shutter",
            f"{number(shutter)} ms" + (f", duty {number(duty)}" if np.isfinite(duty) else "")
            if np.isfinite(shutter)
            else "rate unknown",
        ),
        ("Blur", f"{number(blur_px)} px long" if np.isfinite(blur_px) else "not recorded"),
        ("Shake", f"{number(shaken)} px of path" if np.isfinite(shaken) else "none"),
        ("Median motion", px("median_px")),
        ("Fastest 5 %", px("p95_px")),
        ("Quality score", number(score) if np.isfinite(score) else "not recorded"),
        ("Flow", note),
    ]
    if mask is not None:
        facts.append(("Mask", f"{100 * float(np.mean(mask > 0)):.0f} % of the picture moves"))
    flags = quality.get("flags")
    return Card(
        title=entry.key,
        rank=rank,
        split=entry.split,
        layers=[("Blurred", to_display(blur)), ("Sharp", to_display(sharp))],
        flicker=(0, 1),
        difference=difference_map(blur, sharp),
        difference_of="",
        flow=flow,
        flow_note=note,
        flow_unit="px/frame" if labelled is None else "px",
        facts=facts,
        extent=entry.extent_p95,
        size=f"{sharp.shape[1]} × {sharp.shape[0]}",
        flags=[str(f) for f in flags] if isinstance(flags, list) else [],
    )


def _nothing(target: Path, shards: list[Path], index: Index, report: InspectReport) -> str:
    if index.damaged:
        return (
            f"{target}: no whole sample in {len(shards)} shard{'s' * (len(shards) != 1)}; {index.damaged[0]}"
        )
    if not shards:
        why = (
            f"; {sum(report.rejects.values())} windows were rejected: "
            + ", ".join(f"{k} {v}" for k, v in report.rejects.items())
            if report.rejects
            else ""
        )
        return f"{target}: no shards (*.tar){why}; run `blursynth make --out {target}`"
    odd = ", ".join(f"{n} × {what}" for what, n in index.oddities.most_common(3) if n)
    return f"{target}: {len(shards)} shard{'s' * (len(shards) != 1)}, no sample in them" + (
        f" ({odd})" if odd else ""
    )


_SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}


def _figures(report: InspectReport, index: Index, folder: Path, dataset: dict[str, Any]) -> None:
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
    if all(np.isfinite(e.blur_px) for e in index.entries):
        report.fastest_name = "Length of the blur (blur_px)"
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


def _rejects(report: InspectReport, folder: Path | None, target: Path) -> None:
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


def _warn(
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
    named = shards_named(dataset)
    if missing := sorted(named - {s.name for s in shards}):
        warn.append(
            f"{len(missing)} shard{'s' * (len(missing) != 1)} named in dataset.json but not there: {', '.join(missing[:4])}"
        )
    if "val" not in index.shards and "test" not in index.shards:
        warn.append("no validation split: give more clips, or a larger --val-fraction")
