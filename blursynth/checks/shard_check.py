"""Is one shard what its sidecar says: bytes, members, samples' JSON, pictures that decode?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.checks.lookalikes import picture_hash
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.text import counted
from blursynth.common.untrusted import counts, group
from blursynth.shards.picture import decode_image
from blursynth.shards.schema import parse_sample_json
from blursynth.shards.shard import ShardError, file_sha256, read_shard, read_sidecar, without_lists
from blursynth.shards.table import sample_row

REMEDY = "the same make or pack command makes it again"
"""What helps where a tar is gone or damaged."""
HASHES_PER_CLIP = 12  # frames of a clip that are compared with other splits, spread by their keys


@dataclass
class ShardReport:
    """What one shard tells; small, so that a data set of any size can be verified."""

    name: str
    samples: int = 0
    bytes: int = 0
    keys: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # sha256 -> path
    hashes: dict[str, list[np.ndarray]] = field(default_factory=dict)  # sha256 -> packed bits
    csv: str | None = None
    """Its rows of samples.csv: the samples' own, the sidecar's where not all could be read; None: made before there were any."""
    rows: list[str] = field(default_factory=list)  # as the samples' JSON has them
    side: dict[str, Any] | None = None  # its sidecar, where there is a sound one
    clips: Counter[str] = field(default_factory=Counter)  # path of a clip -> samples
    problems: list[str] = field(default_factory=list)


def check_shard(files: ShardFiles, name: str, decode: bool) -> ShardReport:
    """Read every byte of a shard; ``decode``: every picture too. Its problems name their files."""
    with files.at_hand(f"{name}.json", f"{name}.tar") as root:
        shard = _check_files(root, name, decode)
        shard.problems = [files.told(p, root) for p in shard.problems]
        return shard


def _check_files(root: Path, name: str, decode: bool) -> ShardReport:
    shard = ShardReport(name)
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
    shard.side, shard.csv = without_lists(side), side.get("csv")
    if side.get("shard") != tar.name:
        shard.problems.append(f"{root / name}.json: is the sidecar of {side.get('shard')}")
    if not side["samples"]:
        if tar.exists():
            shard.problems.append(f"{tar}: is there though its sidecar counts no samples")
        return shard
    try:
        shard.bytes = tar.stat().st_size
        digest = file_sha256(tar)
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
            f"{root / name}.json: its rows of samples.csv are not what the samples' JSON says; "
            f"remove it; {REMEDY}"
        )
        shard.csv = "".join(shard.rows)  # so that samples.csv is not blamed for it too
    shard.rows = []
    if "clips" in side["counts"] and not shard.problems:  # of a packed shard there are none
        clips = group(side["counts"], "clips")
        written = counts({rel: group(clips, rel).get("written") for rel in clips})
        if written != shard.clips or side["counts"].get("written") != shard.samples:
            shard.problems.append(f"{root / name}.json: counts other samples of a clip than the tar holds")
    return shard


def _check_sample(shard: ShardReport, side: dict[str, Any], sample: dict[str, Any], decode: bool) -> None:
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
    if meta.version != side.get("version"):
        shard.problems.append(f"{where}.json: is of another version than its shard")
    sources = group(side, "sources")
    for picture in (meta.source, *(meta.source.layers or ())):
        shard.sources[picture.sha256] = picture.path
        if sources and sources.get(picture.path) != picture.sha256:
            shard.problems.append(f"{where}.json: its shard's sidecar names another {picture.path}")
    shard.clips[meta.source.path] += 1
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
