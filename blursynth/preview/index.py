"""An index of a data folder for ``inspect``: every sample's figures and where its pictures lie, no picture decoded.

Unlike ``shards.read_shard``, which refuses a shard at its first fault, this reader goes on: what is whole in a damaged
shard is shown, what is not is named and counted. Nothing is ever extracted; only plain members are looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blursynth.preview.read import group, parse_json, picture_size, read_bounded, real
from blursynth.shards.schema import FORMATS, KEY, MAX_JSON
from blursynth.shards.shard import MAX_MEMBER
from blursynth.shards.tar import Member, TarFault, walk

_IMAGE_ROLES = {f"{role}.{ext}": role for role in ("blur", "sharp") for ext in FORMATS}


@dataclass(slots=True)
class Entry:
    """One sample, small enough to hold a million of them."""

    shard: Path
    split: str
    key: str
    at: dict[str, tuple[int, int]]  # "json", "blur", "sharp" -> (offset, bytes) in the shard
    extent: float  # px over the exposure, median of the picture; NaN when unknown
    extent_p95: float
    size_ratio: float  # bytes of the blurred PNG over the sharp one's: small when the blur is strong


@dataclass
class Index:
    """All entries of a data folder and what was counted on the way."""

    entries: list[Entry] = field(default_factory=list)
    shards: Counter[str] = field(default_factory=Counter)  # per split
    bytes: Counter[str] = field(default_factory=Counter)  # per split
    clips: dict[str, set[str]] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    recipes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    oddities: Counter[str] = field(
        default_factory=Counter
    )  # members and samples that were passed over, by reason
    damaged: list[str] = field(default_factory=list)


def split_of(shard: Path) -> str:
    """'train-000003.tar' -> 'train'; any other name stands for itself."""
    return re.sub(r"-\d+$", "", shard.stem)


def index_shards(shards: list[Path]) -> Index:
    """Read the headers and JSON members of all shards. Never raises for a bad shard: it is named in ``damaged``."""
    index = Index()
    for shard in shards:
        split = split_of(shard)
        index.shards[split] += 1
        try:
            index.bytes[split] += shard.stat().st_size
            with shard.open("rb") as file:
                fault = _index_one(shard, split, file, index)
        except OSError as e:
            fault = f"cannot be read ({e.strerror or e})"
        if fault:
            index.damaged.append(f"{shard.name}: {fault}")
    return index


def _index_one(shard: Path, split: str, file: Any, index: Index) -> str | None:
    """Add one shard's whole samples to the index; returns what is wrong with the shard, or None."""
    size = shard.stat().st_size
    pending: dict[str, dict[str, tuple[int, int]]] = {}
    samples, fault = 0, None
    try:
        for member in walk(file):
            role, key = _role(member, index)
            if role is None:
                continue
            parts = pending.setdefault(key, {})
            parts[role] = (member.offset, member.size)
            if len(parts) == 3:
                samples += _add(shard, split, key, pending.pop(key), file, index)
    except TarFault as e:
        fault = str(e)
    index.oddities["incomplete sample"] += len(pending)
    if fault:
        return f"{fault}; {samples} whole sample{'s' * (samples != 1)} before that" if size else fault
    return _against_sidecar(shard, samples, size)


def _role(member: Member, index: Index) -> tuple[str | None, str]:
    """What a member is ("json", "blur", "sharp", or None to pass over) and its key."""
    if not member.plain:
        index.oddities["link, folder or device in a shard"] += 1
        return None, ""
    if "/" in member.name or "\\" in member.name:
        index.oddities["member with a path in its name"] += 1
        return None, ""
    key, _, ext = member.name.partition(".")
    role = "json" if ext == "json" else _IMAGE_ROLES.get(ext)
    if role is None or not key:
        return None, ""  # more members are allowed (linear16, flow...), they are just not shown
    if member.size > (MAX_JSON if role == "json" else MAX_MEMBER):
        index.oddities[f"{role} member larger than any real one"] += 1
        return None, ""
    return role, key


def _add(shard: Path, split: str, key: str, at: dict[str, tuple[int, int]], file: Any, index: Index) -> int:
    """One complete sample into the index; returns 1, or 0 when its JSON is not usable."""
    file.seek(at["json"][0])
    meta = parse_json(file.read(at["json"][1]))
    if meta is None:
        index.oddities["sample whose JSON cannot be read"] += 1
        return 0
    if meta.get("schema") != 1:
        index.oddities["sample of another schema than 1"] += 1
    if not KEY.fullmatch(key):
        index.oddities["key outside [A-Za-z0-9_-]"] += 1
    file.seek(at["sharp"][0])
    size = picture_size(file.read(min(40, at["sharp"][1])))
    index.sizes[f"{size[0]} × {size[1]}" if size else "unknown size"] += 1
    source = group(meta, "source")
    clip = str(source.get("path") or source.get("clip") or "?")
    index.clips.setdefault(split, set()).add(f"{source.get('dataset') or ''}\0{clip}")
    index.recipes[str(meta.get("recipe_sha256") or "")] += 1
    quality = group(meta, "quality")
    flags = quality.get("flags")
    index.flags.update(str(f) for f in flags) if isinstance(flags, list) else None
    index.scores.append(real(quality.get("score")))
    frames = exposed_frames(meta)
    flow = group(meta, "flow")
    index.entries.append(
        Entry(
            shard=shard,
            split=split,
            key=key,
            at=at,
            extent=real(flow.get("median_px")) * frames,
            extent_p95=real(flow.get("p95_px")) * frames,
            size_ratio=at["blur"][1] / max(1, at["sharp"][1]),
        )
    )
    return 1


def _against_sidecar(shard: Path, samples: int, size: int) -> str | None:
    side = parse_json(read_bounded(shard.with_suffix(".json")))
    if side is None:
        return None  # told once for the whole folder, by the caller
    if isinstance(side.get("bytes"), int) and side["bytes"] != size:
        return f"has {size:,} bytes, its sidecar says {side['bytes']:,}"
    if isinstance(side.get("samples"), int) and side["samples"] != samples:
        return f"holds {samples} readable samples, its sidecar says {side['samples']}"
    return None


def exposed_frames(meta: dict[str, Any]) -> float:
    """Length of the exposure in frame intervals, the factor from px/frame to px over the exposure; NaN when unknown."""
    source = group(meta, "source")
    span = real(source.get("last")) - real(source.get("first"))
    # With a duty below 1 only part of the window is exposed: the shutter time knows.
    by_shutter = real(group(meta, "exposure").get("shutter_ms")) * real(source.get("fps")) / 1000
    return by_shutter if 0 < by_shutter <= span else span


def sidecars(folder: Path) -> Iterator[dict[str, Any]]:
    """The readable sidecars of a data folder, also those of shards that hold no sample and so have no tar."""
    for path in sorted(folder.glob("*.json")):
        if re.search(r"-\d+$", path.stem) and (side := parse_json(read_bounded(path))) is not None:
            yield side
