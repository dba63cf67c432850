"""``pack``: finished pairs, as the field keeps them, into shards. Bytes are kept; what is not known of a pair is null."""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blursynth import __version__
from blursynth.card.dataset_card import CARD_MARK
from blursynth.card.index import split_table, timm_info
from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UsageError
from blursynth.common.progress import Meter
from blursynth.common.text import counted, human_bytes
from blursynth.exchange.members import Unusable, pair_members
from blursynth.exchange.scenes import PackPlan, assign_scenes
from blursynth.run.folder import Output, OutputError
from blursynth.shards.layouts import find_pairs, match_folders
from blursynth.shards.partners import Pair, report
from blursynth.shards.schema import SCHEMA
from blursynth.shards.shard import ShardError, ShardWriter, dump_json, read_sidecar, shard_of, without_lists
from blursynth.shards.store import is_url, local_path
from blursynth.shards.table import write_table

AHEAD = 2 * (os.cpu_count() or 1)
Members = tuple[dict[str, bytes], int] | Unusable


@dataclass
class PackReport:
    """What was packed; ``failed`` are pairs that could not be used, ``notes`` what was not taken for a pair."""

    data: str
    splits: dict[str, int] = field(default_factory=dict)
    scenes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    copied: int = 0  # pictures whose bytes are the file's own
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        total = sum(self.splits.values())
        lines = [f"note: {n}" for n in self.notes] + [f"left out: {f}" for f in self.failed]
        parts = ", ".join(
            f"{n} {s} ({counted(self.scenes[s], 'scene')})" for s, n in sorted(self.splits.items())
        )
        lines.append(
            f"{self.data}: {counted(total, 'pair')} ({parts}), {human_bytes(self.bytes)}; {self.copied} of {2 * total} pictures copied byte for byte"
        )
        if self.failed:
            lines.append(f"{counted(len(self.failed), 'pair')} left out")
        if total:
            lines.append(
                f"look at it: blursynth inspect {self.data}   train on it: deblur-train fit --shards {self.data}"
            )
        return "\n".join(lines)


def pack(
    root: str | Path | None = None,
    out: str | Path = "data",
    *,
    blur: str | Path | None = None,
    sharp: str | Path | None = None,
    val_fraction: float = 0.1,
    gamma: bool = False,
    seed: int = 0,
    shard_samples: int | None = None,
    quiet: bool = True,
) -> PackReport:
    """Write finished pairs as shards, schema 1; the same call again writes the same bytes.

    PNG of 8 or 16 bits and lossless WebP are copied, anything else is decoded and stored as PNG. The scene is what a
    split never divides: ``val_fraction`` of the scenes go to val, unless the layout has official splits. Scenes that share
    a sharp picture stay together.

    Args:
        root: a folder in one of the layouts of ``shards.layouts``, or a list file.
        blur, sharp: two folders instead, with files of equal names or numbers.
        seed: another one keeps other scenes for val.
        quiet: no progress on stderr.
        gamma: take GoPro's ``blur_gamma`` instead of ``blur``.
        shard_samples: most pairs in one shard; default: about 400 MB, at least 50 pairs.

    Raises:
        UsageError, LayoutError: nothing to pack, or ``out`` holds something else.
    """
    if (root is None) == (blur is None or sharp is None) or (blur is None) != (sharp is None):
        raise UsageError("give either ROOT, or both --blur DIR and --sharp DIR")
    if not 0 <= val_fraction < 1:
        raise UsageError(f"--val-fraction must be at least 0 and below 1, got {val_fraction}")
    if shard_samples is not None and shard_samples < 1:
        raise UsageError(f"--shard-samples must be at least 1, got {shard_samples}")
    found = match_folders(str(blur), str(sharp)) if root is None else find_pairs(root, gamma)
    base = Path(str(blur)) if root is None else Path(root)
    if is_url(local_path(str(out))):
        raise UsageError(
            f"{out}: pack writes to a folder of this machine; upload that with the store's own tool"
        )
    out = Path(local_path(str(out)))
    output = Output(out)
    splits = assign_scenes(found.pairs, val_fraction, seed)
    plan = PackPlan(
        found,
        base if base.is_dir() else base.parent,
        splits,
        {"gamma": gamma, "val_fraction": val_fraction, "seed": seed},
        shard_samples,
    )
    with output.lock():
        _refuse_mix(output, plan)
        output.sweep()
        return _write(output, plan, quiet)


def _refuse_mix(output: Output, plan: PackPlan) -> None:
    """Shards of this very plan may lie there: a run that was killed is gone on with."""
    out = output.path
    if name := output.foreign_file():
        raise OutputError(
            f"{out}: holds a {name} that blursynth did not write; give another --out, or move it away"
        )
    shards = {s for p in out.iterdir() if (s := shard_of(p.name))}
    ours = set()
    for name in sorted(shards):
        try:
            side = read_sidecar(out / f"{name}.json")
        except ShardError as e:
            raise OutputError(f"{e}; or give another --out") from None
        if side is not None and side["plan_sha256"] != plan.sha256:
            raise OutputError(
                f"{out}: holds shards of other pairs or settings ({name}); give another --out, or remove them"
            )
        ours |= {name} if side is not None else set()
    if shards and not ours:
        raise OutputError(
            f"{out}: holds {min(shards)}.tar, which this command did not make; give another --out, or remove it"
        )


def _write(output: Output, plan: PackPlan, quiet: bool) -> PackReport:
    told = PackReport(str(output.path), notes=report(plan.found.left_out))
    sides: dict[str, dict[str, Any] | None] = {}
    scenes: dict[str, set[str]] = defaultdict(set)
    with (
        ThreadPoolExecutor() as pool,
        Meter("packing", len(plan.found.pairs), unit="pair", quiet=quiet) as meter,
    ):
        for name, pairs in plan.shards.items():
            split = name.partition("-")[0]
            left_out: list[dict[str, str]] = []
            with ShardWriter(output.path, name) as writer:
                for p, members in zip(pairs, _ahead(pool, lambda p: _try(p, plan), pairs), strict=True):
                    if isinstance(members, Unusable):
                        told.failed.append(f"{p.blur} and {p.sharp}: {members}")
                        detail = f"{p.blur.name} and {p.sharp.name} {members}."
                        clip = p.scene or p.name
                        left_out.append(
                            {"key": plan.key(p), "clip": clip, "reason": "unusable", "detail": detail}
                        )
                        continue
                    data, copied = members
                    writer.add(plan.key(p), data)
                    told.copied += copied
                    scenes[split].add(p.scene)
                fields: dict[str, Any] = {
                    "split": split,
                    "recipe_sha256": plan.recipe_sha256,
                    "plan_sha256": plan.sha256,
                    "version": __version__,
                }
                rejected = {"unusable": len(left_out)} if left_out else {}
                counts = {"written": writer.samples, "rejected": rejected}
                rest = {"counts": counts, "left_out": left_out, "sources": {}, "errors": []}
                side = writer.commit(fields | rest)
            sides[name] = without_lists(side)
            told.bytes += side["bytes"]
            told.splits[split] = told.splits.get(split, 0) + side["samples"]
            meter.advance(n=len(pairs))
    told.scenes = {s: len(scenes[s]) for s in told.splits}
    _write_index(output, plan, sides, told)
    return told


def _ahead(
    pool: ThreadPoolExecutor, make: Callable[[Pair], Members], pairs: Sequence[Pair]
) -> Iterator[Members]:
    """``map`` that holds few results at a time: a pair of 12 megapixels is some 50 MB."""
    waiting: deque[Future[Members]] = deque()
    for pair in pairs:
        waiting.append(pool.submit(make, pair))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _try(pair: Pair, plan: PackPlan) -> Members:
    try:
        return pair_members(pair, plan)
    except Unusable as e:
        return e


def _write_index(
    output: Output, plan: PackPlan, sides: dict[str, dict[str, Any] | None], told: PackReport
) -> None:
    splits, rejected = split_table(sides)
    index = {
        "schema": SCHEMA,
        "version": __version__,
        "recipe_sha256": plan.recipe_sha256,
        "plan_sha256": plan.sha256,
        "complete": True,
        "splits": splits,
        "rejected": rejected,
        "packed": plan.settings,
        "sources": [{"clip": s, "split": split} for s, split in sorted(plan.splits.items())],
        "not_used": [
            {"source": Path(w).name, "reason": "no pair", "detail": why} for w, why in plan.found.left_out
        ],
        "provenance": {},
        "table": write_table(output.path, output.rows(sides)),
    }
    write_atomic(output.path / "_info.json", dump_json(timm_info(splits)))
    if output.owns_card():
        write_atomic(output.path / "README.md", _card(splits).encode())
    write_atomic(output.path / "dataset.json", dump_json(index))  # last: it says that the others are there


def _card(splits: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {n} | {s['samples']} | {len(s['shards'])} | {human_bytes(s['bytes'])} |"
        for n, s in splits.items()
    )
    return f"""---
tags: [deblurring, motion-blur, webdataset, image-to-image]
---
{CARD_MARK}
# Blurred and sharp pairs, packed by Blursynth {__version__}

| split | samples | shards | size |
|---|---|---|---|
{rows}

Each sample of a shard: `KEY.blur.png` (input), `KEY.sharp.png` (target), `KEY.json`; `.webp` where the files were lossless
WebP. `samples.csv` has a row for each pair. The pairs were not made here: what is not known of their exposure is null. Their licence is that of their source.
"""
