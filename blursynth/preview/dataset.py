"""``inspect`` on a data folder: the figures of all its samples, and a few of them from the weakest blur to the strongest."""

from __future__ import annotations

import time
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.checks.explain import read_recipe
from blursynth.checks.measure import noise_sigma
from blursynth.checks.origin import Missing, Origin, pair_left_out
from blursynth.common.text import by_count, counted, human_bytes, number
from blursynth.common.untrusted import counts, group, read_bounded, real, rows, texts
from blursynth.pairs.flow_thumb import decode_flow_thumb
from blursynth.preview.index import Entry, Index, exposed_frames, index_data, read_sample
from blursynth.preview.rejects import LeftOut, rejected_cards
from blursynth.preview.report import Card, InspectError, InspectReport, Table, motion, pick_ranks, rank_name
from blursynth.preview.warnings import warnings_of, why_nothing
from blursynth.recipe import Recipe, RecipeError
from blursynth.run.outcome import WindowSpec
from blursynth.run.report import RunLog
from blursynth.sources.find import Clip
from blursynth.video.intervals import luma

_MEASURED = 60  # clips whose noise is measured, which decodes a picture of each
_RANKED_BY = {
    # The median of a picture with a still background is 0 whatever moves in it; its fastest 5 % always tell.
    "extent_p95": "motion of the fastest 5 % of the picture over the exposure",
    "extent": "median motion over the exposure",
    "lost": "file size of the blurred picture against the sharp one (the samples hold no flow figures)",
}
_SPLITS = {"train": 0, "val": 1, "test": 2}


def is_data(target: Path) -> bool:
    """Whether ``target`` is what ``blursynth make`` writes: a shard, or a folder that holds shards or their index."""
    if target.is_file():
        return target.suffix == ".tar"
    return (target / "dataset.json").is_file() or any(target.glob("*.tar"))


def inspect_data(target: Path, samples: int, seconds: float = 30.0) -> InspectReport:
    """Report on a data folder or a single shard, at most ``samples`` cards.

    seconds: how long pairs that were left out may be made again. Raises InspectError when there is neither a whole sample
    nor a window that was left out; the message says why.
    """
    index = index_data(target)
    report = InspectReport(str(target), "data", damaged=index.damaged, extent_unit="px over the exposure")
    rejects = Counter[str]()
    for side in index.sides:
        rejects.update(counts(group(side, "counts").get("rejected")))
    report.rejects = dict(rejects.most_common())
    left_out = [LeftOut.of(row, side) for side in index.sides for row in rows(side, "left_out")]
    if not index.entries and not left_out:
        raise InspectError(why_nothing(target, index, report))
    _figures(report, index)
    report.warnings += warnings_of(index)

    order, report.ranked_by = _ranking(index.entries)
    ranked = [index.entries[i] for i in order]
    taken: set[int] = set()
    for wanted in pick_ranks([e.split for e in ranked], samples):
        # A picture that cannot be decoded gives way to its nearest neighbour in rank.
        for position in sorted(range(len(ranked)), key=lambda p: abs(p - wanted))[:8]:
            if position in taken:
                continue
            taken.add(position)
            try:
                report.cards.append(_card(ranked[position], rank_name(position, len(ranked))))
                break
            except InspectError as e:
                report.damaged.append(str(e))
    if not report.cards and not left_out:
        tried = f"{counted(len(ranked), 'sample')}, and none of those tried can be decoded"
        raise InspectError(f"{target}: {tried}; {report.damaged[-1]}")
    report.left_out = _left_out(index, left_out, report.rejects, time.monotonic() + seconds)
    return report


def _left_out(index: Index, found: list[LeftOut], rejects: dict[str, int], deadline: float) -> list[Card]:
    """One window of each reason, from the source where it still is what it was."""
    start = RunLog.last_start(index.folder / "run.jsonl") or index.dataset
    try:
        recipe = read_recipe(index.folder)
    except RecipeError:
        recipe = None
    origin = Origin(texts(start.get("src")), recipe or Recipe(), search=False)

    def clip_of(w: LeftOut) -> Clip:
        rate = index.fps.get(w.clip, np.nan)
        return origin.clip({"path": w.clip, "sha256": w.sha256} | ({"fps": rate} if rate > 0 else {}))

    def pair_of(clip: Clip, w: LeftOut) -> list[np.ndarray]:
        if recipe is None or time.monotonic() > deadline:
            raise Missing("the recipe cannot be read" if recipe is None else "making pairs again takes long")
        return pair_left_out(clip, w.key, WindowSpec(0, w.first, w.last), recipe, start.get("rife_weights"))

    errors = [e for side in index.sides for e in texts(side.get("errors"))]
    return rejected_cards(found, rejects, clip_of, recipe, pair_of, errors)


def _ranking(entries: list[Entry]) -> tuple[list[int], str]:
    """Order from the weakest blur to the strongest, and what it goes by. Samples without the figure go first."""
    for figure in _RANKED_BY:
        values = np.array([getattr(e, figure) for e in entries])
        if 2 * np.isfinite(values).sum() > len(values):
            break
    keyed = [(v if np.isfinite(v) else -np.inf, e.key) for v, e in zip(values, entries)]
    return sorted(range(len(entries)), key=keyed.__getitem__), _RANKED_BY[figure]


def _card(entry: Entry, rank: str) -> Card:
    meta, blur, sharp, flow, mask = read_sample(entry)
    source, exposure, moves, quality = (group(meta, g) for g in ("source", "exposure", "flow", "quality"))
    unit, note = "px/frame", "mean motion of the window, from the sample's own thumbnail"
    if flow is not None:
        unit, note = "px", "where content goes over the exposure, from the label KEY.flow.npy"
    elif source.get("kind") == "still":
        note = "a still: the camera alone moves, along the path in the sample's JSON"
    elif (flow := decode_flow_thumb(moves)) is None:
        note = "not stored with the sample"
    elif group(meta, "tile"):
        note = "mean motion of the whole frame that this tile was cut from, from the sample's own thumbnail"

    def figure(of: dict[str, Any], name: str, unit: str = "") -> str:
        return f"{number(real(of.get(name)))}{unit}" if np.isfinite(real(of.get(name))) else ""

    shutter, duty = figure(exposure, "shutter_ms", " ms"), figure(exposure, "duty")
    px = [real(moves.get(name)) for name in ("median_px", "p95_px")]
    over = motion(*(p * exposed_frames(meta) for p in px))
    film = source.get("kind") != "still"
    framed, window = film and source.get("first") is not None, film and exposure.get("window")
    facts = {
        "Clip": " / ".join(str(v) for v in (source.get("dataset"), source.get("clip")) if v) or "unknown",
        "Frames": f"{source['first']}–{source.get('last')}, sharp is {source.get('target')}"
        if framed
        else "",
        "Window": f"{counted(window, 'frame')}, {exposure.get('interp')}" if window else "",
        "Shutter": shutter + (f", duty {duty}" if shutter and duty else ""),
        "Blur px": figure(exposure, "blur_px"),
        "Shake": figure(group(exposure, "shake"), "px", " px of path"),
        "motion px": f"{motion(*px)}, over the exposure {over}" if np.isfinite(px[1]) else "",
        "Score": figure(quality, "score"),
        "Mask": f"{100 * np.mean(mask > 0):.0f} % of the picture moves" if mask is not None else "",
        "Flow": note,
    }
    told = [(name, value) for name, value in facts.items() if value]
    card = Card(entry.key, rank, told, flow=flow, flow_note=note, flow_unit=unit, split=entry.split)
    card.flags, card.extent = texts(quality.get("flags")), entry.extent_p95
    return card.show(("Blurred", blur), ("Sharp", sharp))


def _figures(report: InspectReport, index: Index) -> None:
    kept = Counter(e.split for e in index.entries)
    report.samples = {s: kept[s] for s in sorted(index.shards, key=lambda s: (_SPLITS.get(s, 9), s))}
    total = len(index.entries)
    table = []
    for s in report.samples:
        counted_ = (kept[s], len(index.clips.get(s, ())), index.shards[s])
        share = f"{100 * kept[s] / max(1, total):.0f} %"
        table.append([s, *(f"{n:,}" for n in counted_), share, human_bytes(index.bytes[s])])
    report.tables.append(Table("Splits", ["Split", "Samples", "Clips", "Shards", "Share", "On disk"], table))
    report.tables.append(_clips(index))
    size = human_bytes(sum(index.bytes.values()))
    report.headline = f"{counted(total, 'sample')} in {counted(len(index.files), 'shard')}, {size}"
    report.extent_median = np.array([e.extent for e in index.entries])
    report.extent_p95 = np.array([e.extent_p95 for e in index.entries])
    if all(np.isfinite(e.blur_px) for e in index.entries):
        report.fastest_name = "Length of the blur (blur_px)"
    report.sizes, report.flags = dict(index.sizes), dict(index.flags)
    report.scores = np.array([s for s in index.scores if np.isfinite(s)])
    report.recipe = _recipe(index)
    report.recipe_name = str(report.recipe.get("name") or "")
    told = str(index.dataset.get("recipe_sha256") or "")
    report.recipe_sha256 = next(iter(dict(index.recipes.most_common(1))), told)


def _clips(index: Index) -> Table:
    """Each clip's own row; those of which most was left out first."""
    own: dict[str, list[Entry]] = defaultdict(list)
    for entry in index.entries:
        own[entry.clip].append(entry)
    lost: dict[str, Counter[str]] = defaultdict(Counter)
    for side in index.sides:
        clips = group(group(side, "counts"), "clips")
        for clip in clips:
            lost[clip].update(counts(group(clips, clip).get("rejected")))
    table: list[list[str]] = []
    for clip in sorted(own.keys() | lost.keys(), key=lambda c: (-lost[c].total() / max(1, len(own[c])), c)):
        entries = sorted(own[clip], key=lambda e: e.key)
        rate = next((e.fps for e in entries), index.fps.get(clip, np.nan))
        moves = np.median([e.motion for e in entries if e.motion[1] >= 0] or [(np.nan, np.nan)], axis=0)
        blur_px = np.median([e.blur_px for e in entries if e.blur_px >= 0] or [np.nan])
        noise = _noise(entries) if len(table) < _MEASURED else np.nan
        figures = (
            number(rate),
            motion(*moves),
            number(blur_px, 2),
            number(noise, 2),
            by_count(lost[clip]) or "–",
        )
        table.append([clip, f"{len(entries):,}", *figures])
    columns = ["Clip", "Samples kept", "fps", "motion px", "blur px", "noise", "Left out"]
    return Table("Clips", columns, table, ("motion px", "blur px", "noise"))


def _noise(entries: list[Entry]) -> float:
    """Of the sharp picture in the middle of a clip, 8-bit codes; NaN where there is none."""
    try:
        return noise_sigma(luma(read_sample(entries[len(entries) // 2])[2])) if entries else np.nan
    except InspectError:
        return np.nan


def _recipe(index: Index) -> dict[str, Any]:
    """The resolved recipe, from recipe.toml or else from dataset.json; empty when neither can be read."""
    try:
        data = read_bounded(index.folder / "recipe.toml", 1 << 20)
        return tomllib.loads(data.decode("utf-8")) if data is not None else group(index.dataset, "recipe")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return group(index.dataset, "recipe")
