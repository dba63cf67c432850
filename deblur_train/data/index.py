"""Reading shards (schema 1, DESIGN section 3): an index of tar offsets, then random access without unpacking anything.

A shard is data from elsewhere: nothing of it is written to disk, names are only compared, and every size is checked
against the file's own before it is believed. What is broken is named and left out, never guessed.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blursynth.common.errors import UserError
from deblur_train.data.remote import RemoteError, fetch_shards
from deblur_train.data.tar_headers import FAULTS, BoundedHeader

SCHEMA = 1
KEY = re.compile(r"[A-Za-z0-9_-]+")
FORMATS = ("png", "webp")
MAX_JSON = 1 << 20
MAX_PIXELS = 1 << 27

# Groups of a sample's JSON and the keys each must hold; more may be added by the producer.
REQUIRED: dict[str, tuple[str, ...]] = {
    "": (
        "schema",
        "key",
        "seed",
        "recipe_sha256",
        "version",
        "source",
        "exposure",
        "camera",
        "flow",
        "quality",
    ),
    "source": ("dataset", "clip", "path", "sha256", "fps", "first", "last", "target"),
    "exposure": (
        "window",
        "stride",
        "fps_up",
        "interp",
        "profile",
        "shutter_ms",
        "duty",
        "readout_ms",
        "substeps",
    ),
    "camera": ("crf", "highlights", "noise"),
    "flow": ("median_px", "p95_px", "max_px", "fb_error_px", "occluded"),
    "quality": ("score", "flags"),
}


class DataError(UserError):
    """Shards that cannot be trained on; the message names the place, what is wrong and what to do."""


@dataclass(frozen=True)
class Fault:
    where: str  # shard, or shard and key
    reason: str


@dataclass(frozen=True)
class Sample:
    """Where a sample lies: ``(offset, size)`` in bytes of its members in shard number ``shard``."""

    shard: int
    key: str
    blur: tuple[int, int]
    sharp: tuple[int, int]
    linear: tuple[int, int] | None
    clip: str
    crf: str


@dataclass
class ShardIndex:
    """Every usable sample of one split, in shard order, and what had to be left out."""

    paths: list[Path]
    samples: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def report(self) -> list[str]:
        """Lines for a person: what was left out, most frequent reason first."""
        lines = []
        for reason, n in Counter(f.reason for f in self.faults).most_common():
            places = [f.where for f in self.faults if f.reason == reason]
            lines.append(f"left out {n}x {reason}: {', '.join(places[:3])}{', ...' if n > 3 else ''}")
        return lines


def problem_with(meta: Any, key: str) -> str | None:
    """Why a sample's JSON does not keep the contract, or None."""
    if not isinstance(meta, dict):
        return "JSON is not an object"
    if meta.get("schema") != SCHEMA:
        return f"schema is {meta.get('schema')!r}, not {SCHEMA}"
    for group, names in REQUIRED.items():
        inside = meta if not group else meta[group]
        if not isinstance(inside, dict):
            return f"JSON key {group!r} is not an object"
        for name in names:
            if name not in inside:
                return f"JSON lacks {(group + '.' if group else '') + name!r}"
    if meta["key"] != key:
        return "JSON is of another sample"
    return None


def _members(path: Path, faults: list[Fault]) -> Iterable[tuple[str, int, int]]:
    """(name, offset, size) of the regular files whose bytes are all there."""
    size = path.stat().st_size
    damaged = Fault(path.name, "truncated or damaged tar" if size else "empty file")
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=BoundedHeader) as tar:
            for m in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                if not m.isreg() or m.issparse():
                    faults.append(
                        Fault(f"{path.name}:{m.name[:60]!r}", "link, folder or device, not a plain file")
                    )
                elif m.offset_data + m.size <= size:
                    yield m.name, m.offset_data, m.size
            # A cut between two members, and garbage, look like the end to tarfile; a real one is a block of zeros.
            file.seek(tar.offset)
            if file.read(512) != bytes(512):
                faults.append(damaged)
    except FAULTS:
        faults.append(damaged)  # what came before is whole


def index_shard(path: Path, number: int) -> tuple[list[Sample], list[Fault]]:
    """The samples of one shard. Never raises for what is inside; unreadable files become faults."""
    faults: list[Fault] = []
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        for name, offset, length in _members(path, faults):
            key, _, suffix = name.partition(".")
            if not KEY.fullmatch(key):
                faults.append(
                    Fault(f"{path.name}:{name[:60]!r}", "key holds other characters than A-Z a-z 0-9 _ -")
                )
            elif suffix in groups.setdefault(key, {}):
                faults.append(Fault(f"{path.name}:{key}", "member stands twice"))
            else:
                groups[key][suffix] = (offset, length)
        with path.open("rb") as f:
            samples = [
                s
                for key, parts in groups.items()
                if (s := _sample(f.fileno(), path, number, key, parts, faults))
            ]
    except OSError as e:
        return [], [Fault(path.name, f"cannot be read: {e.strerror}")]
    return samples, faults


def _sample(
    fd: int, path: Path, number: int, key: str, parts: dict[str, tuple[int, int]], faults: list[Fault]
) -> Sample | None:
    where = f"{path.name}:{key}"
    images = {}
    for role in ("blur", "sharp", "linear"):
        found = [parts[f"{role}.{ext}"] for ext in FORMATS if f"{role}.{ext}" in parts]
        if found:
            images[role] = found[0]
        elif role != "linear":
            faults.append(Fault(where, f"sample lacks its {role} image"))
            return None
    if "json" not in parts:
        faults.append(Fault(where, "sample lacks its json"))
        return None
    offset, size = parts["json"]
    try:
        meta = json.loads(os.pread(fd, min(size, MAX_JSON), offset))
    except (ValueError, RecursionError):
        faults.append(Fault(where, "JSON cannot be parsed"))
        return None
    problem = problem_with(meta, key)
    if problem:
        faults.append(Fault(where, problem))
        return None
    clip, crf = str(meta["source"]["clip"]), str(meta["camera"]["crf"])
    return Sample(number, key, images["blur"], images["sharp"], images.get("linear"), clip, crf)


def index_split(folder: str | Path, split: str) -> ShardIndex:
    """Index ``DATA/<split>-*.tar``, where DATA may be a URL (see ``remote``).

    Raises DataError when the folder is missing; no shard at all gives an empty index.
    """
    folder = str(folder).removeprefix("file://")
    if "://" in folder:
        try:
            paths, unfinished = fetch_shards(folder, split)
        except RemoteError as e:
            raise DataError(str(e)) from None
        index = ShardIndex(
            paths, faults=[Fault(n, "shard without a sidecar: not finished") for n in unfinished]
        )
    elif Path(folder).is_dir():
        index = ShardIndex(sorted(Path(folder).glob(f"{split}-*.tar")))
    else:
        raise DataError(
            f"{folder}: no such folder of shards; make one with 'blursynth make --src VIDEO --out {folder}'"
        )
    for number, path in enumerate(index.paths):
        samples, faults = index_shard(path, number)
        index.samples += samples
        index.faults += faults
    return index


def require_samples(index: ShardIndex, folder: str | Path, split: str) -> None:
    """Raise DataError, in one line, when there is nothing to train on."""
    if index.samples:
        return
    if not index.paths:
        raise DataError(f"{folder}: holds no {split}-*.tar shard; make some with 'blursynth make'")
    why = index.faults[0] if index.faults else Fault(index.paths[0].name, "empty")
    raise DataError(
        f"{folder}: no usable sample in {len(index.paths)} {split} shard(s); first fault: {why.where}: {why.reason}"
    )
