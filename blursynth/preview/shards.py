"""``inspect`` on a data folder: the figures of all its samples, and a few of them from the weakest blur to the strongest."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from blursynth.pairs.flow_thumb import decode_flow_thumb
from blursynth.preview.dataset import figures, rejects, warnings
from blursynth.preview.flow import SourceFlow
from blursynth.preview.index import Entry, Index, exposed_frames, index_shards
from blursynth.preview.pictures import difference_map, to_display
from blursynth.preview.ranks import pick_ranks, rank_name
from blursynth.preview.read import group, parse_json, read_bounded, read_pictures, real
from blursynth.preview.report import Card, InspectError, InspectReport, number


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
    rejects(report, folder if whole_folder else None, target)
    if not index.entries:
        raise InspectError(_nothing(target, shards, index, report))
    figures(report, index, folder, dataset)
    warnings(report, index, folder, shards, dataset, whole_folder)

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
    if flow is None:
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

    shutter = real(exposure.get("shutter_ms"))
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
        ("Median motion", px("median_px")),
        ("Fastest 5 %", px("p95_px")),
        ("Quality score", number(score) if np.isfinite(score) else "not recorded"),
        ("Flow", note),
    ]
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
