"""An index of a data folder for ``inspect``: every sample's figures and where its pictures lie, no picture decoded.

Unlike ``shards.read_shard``, which refuses a shard at its first fault, this reader goes on: what is whole in a damaged
shard is shown, what is not is named and counted. Nothing is ever extracted; only plain members are looked at.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.preview.report import InspectError
from blursynth.shards.picture import MAX_PIXELS, decode_flow, decode_mask, image_size
from blursynth.shards.schema import FORMATS, KEY, MAX_JSON
from blursynth.shards.shard import MAX_MEMBER, ShardError
from blursynth.shards.tar import Member, TarFault, walk

_IMAGE_ROLES = {f"{role}.{ext}": role for role in ("blur", "sharp") for ext in FORMATS}
_LABEL_ROLES = {"flow.npy": "flow", "mask.png": "mask"}
_NEEDED = {"json", "blur", "sharp"}


@dataclass(slots=True)
class Entry:
    """One sample, small enough to hold a million of them."""

    shard: Path
    split: str
    key: str
    at: dict[str, tuple[int, int]]  # "json", "blur", "sharp" and labels -> (offset, bytes) in the shard
    extent: float  # px over the exposure, median of the picture; NaN when unknown
    extent_p95: float
    blur_px: float  # length of the blur as recorded; NaN when it is not
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
            if parts.keys() >= _NEEDED:
                samples += _add(shard, split, key, pending.pop(key), file, index)
    except TarFault as e:
        fault = str(e)
    index.oddities["incomplete sample"] += sum(bool(parts.keys() & _NEEDED) for parts in pending.values())
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
    role = "json" if ext == "json" else _IMAGE_ROLES.get(ext) or _LABEL_ROLES.get(ext)
    if role is None or not key:
        return None, ""  # more members are allowed (linear16...), they are just not shown
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
    size = image_size(file.read(min(40, at["sharp"][1])))
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
    flow, drawn = group(meta, "flow"), real(group(meta, "exposure").get("blur_px"))
    index.entries.append(
        Entry(
            shard=shard,
            split=split,
            key=key,
            at=at,
            extent=real(flow.get("median_px")) * frames,
            extent_p95=drawn if math.isfinite(drawn) else real(flow.get("p95_px")) * frames,
            blur_px=drawn,
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


def shards_named(dataset: dict[str, Any]) -> set[str]:
    """File names of all shards that a dataset.json lists."""
    names = set()
    for split in group(dataset, "splits").values():
        listed = split.get("shards") if isinstance(split, dict) else None
        for shard in listed if isinstance(listed, list) else ():
            if isinstance(shard, dict) and isinstance(shard.get("file"), str):
                names.add(shard["file"])
    return names


def sidecars(folder: Path) -> Iterator[dict[str, Any]]:
    """The readable sidecars of a data folder, also those of shards that hold no sample and so have no tar."""
    for path in sorted(folder.glob("*.json")):
        if re.search(r"-\d+$", path.stem) and (side := parse_json(read_bounded(path))) is not None:
            yield side


def read_pictures(entry: Entry) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """(JSON, blurred, sharp) of one sample; pictures (H, W, 3) uint8 RGB. Raises InspectError naming shard and key."""
    where = f"{entry.shard.name}: {entry.key[:80]!r}"
    try:
        with entry.shard.open("rb") as file:
            data = {role: _read_at(file, *entry.at[role]) for role in ("json", "blur", "sharp")}
    except OSError as e:
        raise InspectError(f"{where}: cannot be read ({e.strerror or e})") from None
    meta = parse_json(data["json"])
    if meta is None:
        raise InspectError(f"{where}: its JSON cannot be read")
    blur, sharp = (_decode(data[role], f"{where}: {role} picture") for role in ("blur", "sharp"))
    if blur.shape != sharp.shape:
        raise InspectError(f"{where}: blurred is {blur.shape[:2]}, sharp is {sharp.shape[:2]}")
    return meta, blur, sharp


def read_labels(entry: Entry, size: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(flow float32 (H, W, 2) px over the exposure, mask uint8 (H, W)) of one sample, None for one that is not there.

    size: height, width of the pair. Raises InspectError naming shard and key.
    """
    found: dict[str, np.ndarray] = {}
    for role in _LABEL_ROLES.values():
        if role not in entry.at:
            continue
        where = f"{entry.shard.name}: {entry.key[:80]!r}: {role}"
        try:
            with entry.shard.open("rb") as file:
                data = _read_at(file, *entry.at[role])
            found[role] = decode_flow(data, where) if role == "flow" else decode_mask(data, where)
        except OSError as e:
            raise InspectError(f"{where}: cannot be read ({e.strerror or e})") from None
        except ShardError as e:
            raise InspectError(str(e)) from None
        if found[role].shape[:2] != size:
            raise InspectError(f"{where} is {found[role].shape[:2]}, the pair is {size}")
    flow = found.get("flow")
    if flow is not None:
        flow = np.nan_to_num(flow.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return flow, found.get("mask")


def _read_at(file: Any, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _decode(data: bytes, what: str) -> np.ndarray:
    size = image_size(data[:40])
    if size is None or size[0] * size[1] > MAX_PIXELS:
        raise InspectError(f"{what}: not a PNG or lossless WebP of a sane size")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise InspectError(f"{what}: cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])


def parse_json(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object, or None for anything else (also for nesting deep enough to exhaust the stack)."""
    try:
        value = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_bounded(path: Path, limit: int = 64 << 20) -> bytes | None:
    """A small file's bytes; None when it is missing, unreadable or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


def group(meta: dict[str, Any], name: str) -> dict[str, Any]:
    """A sub-object of a sample's JSON; empty when it is absent or something else."""
    value = meta.get(name)
    return value if isinstance(value, dict) else {}


def real(value: Any) -> float:
    """A finite number as float; NaN for anything else (null, text, bool, infinity, a 400-digit integer)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
