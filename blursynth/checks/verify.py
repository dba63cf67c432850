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

from blursynth.checks.lookalikes import near_duplicates, picture_hash
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.text import counted, one_line
from blursynth.shards.picture import decode_image
from blursynth.shards.schema import parse_sample_json
from blursynth.shards.shard import ShardError, read_shard, read_sidecar
from blursynth.shards.table import HEADER, sample_row
from blursynth.shards.table import NAME as TABLE

REMEDY = "the same make or pack command makes it again"
"""What helps where a tar is gone or damaged."""
HASHES_PER_CLIP = 12  # frames of a clip that are compared with other splits, spread by their keys


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


@dataclass
class _Shard:
    """What one shard tells; small, so that a data set of any size can be verified."""

    name: str
    samples: int = 0
    bytes: int = 0
    keys: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # sha256 -> path
    hashes: dict[str, list[np.ndarray]] = field(default_factory=dict)  # sha256 -> packed bits
    csv: str | None = (
        None  # its rows of samples.csv, as the sidecar has them; None: made before there were any
    )
    rows: list[str] = field(default_factory=list)  # as the samples' JSON has them
    problems: list[str] = field(default_factory=list)


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
        for shard in pool.map(lambda n: _check_one(files, n, decode), names):
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


def _check_one(files: ShardFiles, name: str, decode: bool) -> _Shard:
    with files.at_hand(f"{name}.json", f"{name}.tar") as root:
        shard = _check_shard(root, name, decode)
        shard.problems = [files.told(p, root) for p in shard.problems]
        return shard


def _check_shard(root: Path, name: str, decode: bool) -> _Shard:
    shard = _Shard(name)
    tar = root / f"{name}.tar"
    try:
        side = read_sidecar(root / f"{name}.json")
    except ShardError as e:
        shard.problems.append(str(e))
        return shard
    if side is None:
        shard.problems.append(f"{tar}: has no sidecar; run the same make again to finish it")
        return shard
    shard.problems += [f"{name}: failed sample: {e}" for e in side.get("errors", [])]
    shard.csv = side.get("csv")
    if not side["samples"]:
        if tar.exists():
            shard.problems.append(f"{tar}: is there though its sidecar counts no samples")
        return shard
    try:
        shard.bytes = tar.stat().st_size
        with tar.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        shard.problems.append(f"{tar}: {e.strerror or e}; {REMEDY}")
        return shard
    if shard.bytes != side["bytes"]:
        shard.problems.append(f"{tar}: {shard.bytes} bytes, its sidecar says {side['bytes']}; {REMEDY}")
    elif digest != side.get("sha256"):
        shard.problems.append(
            f"{tar}: its sha256 is not the sidecar's: the bytes have changed; remove it; {REMEDY}"
        )
    try:
        for sample in read_shard(tar):
            _check_sample(shard, side, sample, decode)
    except ShardError as e:
        shard.problems.append(str(e))
    if shard.samples != side["samples"]:
        shard.problems.append(
            f"{tar}: {counted(shard.samples, 'sample')}, its sidecar says {side['samples']}"
        )
    if shard.csv is not None and not shard.problems and "".join(shard.rows) != shard.csv:
        shard.problems.append(
            f"{root / name}.json: its rows of samples.csv are not what the samples' JSON says"
        )
    shard.rows = []
    return shard


def _check_sample(shard: _Shard, side: dict[str, Any], sample: dict[str, Any], decode: bool) -> None:
    key = sample["__key__"]
    shard.samples += 1
    shard.keys.append(key)
    where = f"{shard.name}.tar: {key}"
    images = {e.partition(".")[0]: e for e in sample if e.partition(".")[0] in ("blur", "sharp", "linear")}
    missing = [n for n in ("blur", "sharp") if n not in images] + [n for n in ("json",) if n not in sample]
    if missing:
        shard.problems.append(f"{where}: lacks {', '.join(missing)}")
        return
    try:
        meta = parse_sample_json(sample["json"])
    except ValueError as e:
        shard.problems.append(f"{where}.json: {e}")
        return
    shard.rows.append(sample_row(json.loads(sample["json"]), shard.name))
    if meta.key != key:
        shard.problems.append(f"{where}.json: says its key is {meta.key}")
    if meta.recipe_sha256 != side["recipe_sha256"]:
        shard.problems.append(f"{where}.json: is of another recipe than its shard")
    for picture in (meta.source, *(meta.source.layers or ())):
        shard.sources[picture.sha256] = picture.path
    if not decode:
        return
    try:
        pictures = {n: decode_image(sample[e], f"{where}.{e}") for n, e in images.items()}
    except ShardError as e:
        shard.problems.append(str(e))
        return
    if len({p.shape for p in pictures.values()}) != 1:
        shard.problems.append(
            f"{where}: sizes differ: " + ", ".join(f"{n} {p.shape}" for n, p in pictures.items())
        )
    bits = shard.hashes.setdefault(meta.source.sha256, [])
    if len(bits) < HASHES_PER_CLIP and (h := picture_hash(pictures["sharp"])) is not None:
        bits.append(h)


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
