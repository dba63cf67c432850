"""``verify``: is a folder of shards what it says it is, and fit to train on?

Reads every byte once; writes and extracts nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.checks.index_check import BESIDE, index_problems, table_problems
from blursynth.checks.lookalikes import near_duplicates
from blursynth.checks.shard_check import HASHES_PER_CLIP, check_shard
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.text import counted, one_line
from blursynth.shards.schema import KEPT
from blursynth.shards.table import HEADER
from blursynth.shards.table import NAME as TABLE


@dataclass
class Report:
    """``problems`` is empty for sound data; each names its file."""

    data: str
    shards: int = 0
    samples: int = 0
    bytes: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        lines = [one_line(f"problem: {p}") for p in self.problems]
        splits = ", ".join(f"{n} {s}" for s, n in sorted(self.splits.items()))
        verdict = counted(len(self.problems), "problem") if self.problems else "sound"
        return "\n".join(
            [
                *lines,
                f"{self.data}: {counted(self.samples, 'sample')} ({splits}) in {counted(self.shards, 'shard')}: {verdict}",
            ]
        )


def verify(data: str | Path, decode: bool = True, workers: int | None = None) -> Report:
    """Checksums, counts, keys, sample JSON, the files beside the shards, split leaks, near-duplicates over splits, every image.

    Args:
        data: a folder of shards, or the URL of one: each shard is fetched, checked and dropped again.
        decode: also decode every image and compare sharp frames over the splits.
        workers: threads; default: as many as there are cores, at most 8.

    Returns the report; ``problems`` is empty for sound data.

    Raises:
        OutputError: ``data`` is not a folder of shards, or cannot be reached.
    """
    files = ShardFiles(data)
    names = files.shards()
    report = Report(str(data))
    keys: dict[str, str] = {}
    sources: dict[str, dict[str, str]] = defaultdict(dict)  # split -> sha256 -> path
    hashes: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    sides: dict[str, dict[str, Any]] = {}
    table, tabled, size = hashlib.sha256(HEADER.encode()), False, len(HEADER)
    with ThreadPoolExecutor(
        workers or min(8, os.cpu_count() or 1)
    ) as pool:  # decoding lets go of the interpreter lock
        for shard in pool.map(lambda n: check_shard(files, n, decode), names):
            split = shard.name.partition("-")[0]
            report.problems += shard.problems
            report.shards += 1
            report.samples += shard.samples
            report.bytes += shard.bytes
            report.splits[split] = report.splits.get(split, 0) + shard.samples
            table.update((shard.csv or "").encode())
            size += len((shard.csv or "").encode())
            tabled = tabled or shard.csv is not None
            sides |= {shard.name: shard.side} if shard.side else {}
            for key in shard.keys:
                if key in keys:
                    report.problems.append(f"{shard.name}.tar: key {key} stands in {keys[key]}.tar too")
                keys[key] = shard.name
            sources[split] |= shard.sources
            for sha, bits in shard.hashes.items():
                kept = hashes[split][sha]
                kept += bits[: HASHES_PER_CLIP - len(kept)]
    with files.at_hand(*BESIDE, *filter(KEPT.fullmatch, files.names)) as root:
        told = {"file": TABLE, "rows": report.samples, "bytes": size, "sha256": table.hexdigest()}
        found = index_problems(root, names, report.splits, sides, told if tabled else None)
        found += table_problems(root / TABLE, table.hexdigest()) if tabled else []
        report.problems += [files.told(p, root) for p in found]
    report.problems += _leaks(sources)
    report.problems += near_duplicates(hashes, sources)
    return report


def _leaks(sources: dict[str, dict[str, str]]) -> list[str]:
    train, val = sources.get("train", {}), sources.get("val", {})
    return [
        f"leak: {train[s]} is in train and {val[s]} in val: the same source bytes"
        for s in sorted(train.keys() & val.keys())
    ]
