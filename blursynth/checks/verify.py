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

import numpy as np

from blursynth.checks.lookalikes import near_duplicates
from blursynth.checks.shard_check import HASHES_PER_CLIP, check_shard
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.text import counted, one_line
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
    """Checksums, counts, keys, sample JSON, samples.csv, split leaks, near-duplicates over splits, every image.

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
    table, tabled = hashlib.sha256(HEADER.encode()), False
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
            tabled = tabled or shard.csv is not None
            for key in shard.keys:
                if key in keys:
                    report.problems.append(f"{shard.name}.tar: key {key} stands in {keys[key]}.tar too")
                keys[key] = shard.name
            sources[split] |= shard.sources
            for sha, bits in shard.hashes.items():
                kept = hashes[split][sha]
                kept += bits[: HASHES_PER_CLIP - len(kept)]
    with files.at_hand("dataset.json", TABLE) as root:
        found = _index_problems(root, report, names)
        found += _table_problems(root / TABLE, table.hexdigest()) if tabled else []
        report.problems += [files.told(p, root) for p in found]
    report.problems += _leaks(sources)
    report.problems += near_duplicates(hashes, sources)
    return report


def _index_problems(root: Path, report: Report, names: list[str]) -> list[str]:
    path = root / "dataset.json"
    try:
        index = json.loads(path.read_bytes())
        listed = {
            s["file"].removesuffix(".tar"): s for split in index["splits"].values() for s in split["shards"]
        }
        counts = {name: split["samples"] for name, split in index["splits"].items()}
        complete = index["complete"]
    except FileNotFoundError:
        return [f"{path}: is not there; run the same make again to finish"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        return [f"{path}: not a readable index ({type(e).__name__}: {e})"]
    problems = [f"{path}: lists {n}.tar, which is not there" for n in sorted(listed.keys() - set(names))]
    if not complete:
        problems.append(
            f"{path}: says that shards are missing; run the same make again (--retry-failed for failed ones)"
        )
    if counts.get("train") == 0:
        problems.append(
            f"{path}: no train sample was kept, so there is nothing to train on; loosen --gate or --window"
        )
    for split, n in report.splits.items():
        if counts.get(split, 0) != n:
            problems.append(f"{path}: counts {counts.get(split, 0)} {split} samples, the shards hold {n}")
    return problems


def _table_problems(path: Path, sha256: str) -> list[str]:
    try:
        with path.open("rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
    except FileNotFoundError:
        return [f"{path}: is not there; run the same make again to finish"]
    except OSError as e:
        return [f"{path}: {e.strerror or e}"]
    return (
        [] if found == sha256 else [f"{path}: its rows are not those of the shards; run the same make again"]
    )


def _leaks(sources: dict[str, dict[str, str]]) -> list[str]:
    train, val = sources.get("train", {}), sources.get("val", {})
    return [
        f"leak: {train[s]} is in train and {val[s]} in val: the same source bytes"
        for s in sorted(train.keys() & val.keys())
    ]
