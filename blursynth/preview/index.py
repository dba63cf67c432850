"""An index of a data folder for ``inspect``: every sample's figures and where its pictures lie, no picture decoded.

Unlike ``shards.read_shard``, which refuses a shard at its first fault, this reader goes on: what is whole in a damaged
shard is shown, what is not is named and counted. Nothing is ever extracted; only plain members are looked at.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.common.text import counted
from blursynth.common.untrusted import group, parse_json, read_json, real, rows, texts
from blursynth.preview.report import InspectError
from blursynth.shards.picture import decode_flow, decode_image, decode_mask, image_size, to_8_bits
from blursynth.shards.schema import FORMATS, KEY, MAX_JSON
from blursynth.shards.shard import MAX_MEMBER, ShardError
from blursynth.shards.tar import Member, TarFault, walk

_ROLES = {f"{role}.{ext}": role for role in ("blur", "sharp") for ext in FORMATS}
_ROLES |= {"json": "json", "flow.npy": "flow", "mask.png": "mask"}
_NEEDED = {"json", "blur", "sharp"}


@dataclass(slots=True)
class Entry:
    """One sample, small enough to hold a million of them. Figures are NaN where they are not known."""

    shard: Path
    split: str
    key: str
    clip: str  # its path, as the sidecars count it; "?" where it is not named
    at: dict[str, tuple[int, int]]  # "json", "blur", "sharp" and labels -> (offset, bytes) in the shard
    motion: tuple[float, float]  # px/frame: median of the picture, and what its fastest 5 % exceed
    frames: float  # length of the exposure in frame intervals
    fps: float
    blur_px: float  # length of the blur as recorded

    @property
    def extent(self) -> float:
        """px over the exposure, median of the picture."""
        return self.motion[0] * self.frames

    @property
    def extent_p95(self) -> float:
        return self.blur_px if math.isfinite(self.blur_px) else self.motion[1] * self.frames

    @property
    def lost(self) -> float:
        """Share of the sharp picture's bytes that the blurred one lacks: large when the blur is strong."""
        return 1 - self.at["blur"][1] / max(1, self.at["sharp"][1])


@dataclass
class Index:
    """A data folder, or a single shard of one: all entries, what was counted on the way, and what lies beside them."""

    folder: Path
    is_folder: bool
    files: list[Path]
    dataset: dict[str, Any] = field(default_factory=dict)  # dataset.json
    sides: list[dict[str, Any]] = field(default_factory=list)  # sidecars, also of shards that hold no sample
    fps: dict[str, float] = field(default_factory=dict)  # of each source, as dataset.json has it
    entries: list[Entry] = field(default_factory=list)
    shards: Counter[str] = field(default_factory=Counter)  # per split
    bytes: Counter[str] = field(default_factory=Counter)  # per split
    clips: dict[str, set[str]] = field(default_factory=dict)  # split -> data set NUL path
    sizes: Counter[str] = field(default_factory=Counter)
    recipes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)  # what was passed over, by reason
    damaged: list[str] = field(default_factory=list)


def index_data(target: Path) -> Index:
    """Read the headers and JSON members of all shards. Never raises for a bad shard: it is named in ``damaged``."""
    is_folder = target.is_dir()
    folder = target if is_folder else target.parent
    index = Index(folder, is_folder, sorted(folder.glob("*.tar")) if is_folder else [target])
    index.dataset = read_json(folder / "dataset.json") or {}
    index.fps = {str(s.get("rel")): real(s.get("fps")) for s in rows(index.dataset, "sources")}
    beside = sorted(folder.glob("*.json")) if is_folder else [target.with_suffix(".json")]
    index.sides = [s for p in beside if (s := read_json(p)) and re.search(r"-\d+$", p.stem)]
    for shard in index.files:
        split = re.sub(r"-\d+$", "", shard.stem)  # any other name stands for itself
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
        return f"{fault}; {counted(samples, 'whole sample')} before that" if size else fault
    side = read_json(shard.with_suffix(".json")) or {}  # that none is there is told once for the whole folder
    if isinstance(side.get("bytes"), int) and side["bytes"] != size:
        return f"has {size:,} bytes, its sidecar says {side['bytes']:,}"
    if isinstance(side.get("samples"), int) and side["samples"] != samples:
        return f"holds {counted(samples, 'readable sample')}, its sidecar says {side['samples']}"
    return None


def _role(member: Member, index: Index) -> tuple[str | None, str]:
    """What a member is ("json", "blur"..., or None to pass over) and its key."""
    key, _, ext = member.name.partition(".")
    role = _ROLES.get(ext)
    if not member.plain:
        index.oddities["link, folder or device in a shard"] += 1
    elif "/" in member.name or "\\" in member.name:
        index.oddities["member with a path in its name"] += 1
    elif role is not None and member.size > (MAX_JSON if role == "json" else MAX_MEMBER):
        index.oddities[f"{role} member larger than any real one"] += 1
    elif key:
        return role, key  # more members are allowed (linear16...), they are just not shown
    return None, ""


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
    source, quality = group(meta, "source"), group(meta, "quality")
    clip = sys.intern(str(source.get("path") or source.get("clip") or "?"))
    index.clips.setdefault(split, set()).add(f"{source.get('dataset') or ''}\0{clip}")
    index.recipes[str(meta.get("recipe_sha256") or "")] += 1
    index.flags.update(texts(quality.get("flags")))
    index.scores.append(real(quality.get("score")))
    flow = group(meta, "flow")
    moves = real(flow.get("median_px")), real(flow.get("p95_px"))
    fps, drawn = real(source.get("fps")), real(group(meta, "exposure").get("blur_px"))
    index.entries.append(Entry(shard, split, key, clip, at, moves, exposed_frames(meta), fps, drawn))
    return 1


def exposed_frames(meta: dict[str, Any]) -> float:
    """Length of the exposure in frame intervals, the factor from px/frame to px over the exposure; NaN when unknown."""
    source = group(meta, "source")
    span = real(source.get("last")) - real(source.get("first"))
    # With a duty below 1 only part of the window is exposed: the shutter time knows.
    by_shutter = real(group(meta, "exposure").get("shutter_ms")) * real(source.get("fps")) / 1000
    return by_shutter if 0 < by_shutter <= span else span


def read_sample(
    entry: Entry,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """JSON, blurred, sharp, (H, W, 3) uint8 RGB, and, where there are labels, flow, (H, W, 2) float32 px over the
    exposure, and mask, (H, W) uint8. Raises InspectError naming shard and key."""
    where = f"{entry.shard.name}: {entry.key[:80]!r}"
    data = {}
    try:
        with entry.shard.open("rb") as file:
            for role, (offset, size) in entry.at.items():
                file.seek(offset)
                data[role] = file.read(size)
        blur, sharp = (to_8_bits(decode_image(data[r], f"{where}: {r} picture")) for r in ("blur", "sharp"))
        flow = decode_flow(data["flow"], f"{where}: flow") if "flow" in data else None
        mask = decode_mask(data["mask"], f"{where}: mask") if "mask" in data else None
    except OSError as e:
        raise InspectError(f"{where}: cannot be read ({e.strerror or e})") from None
    except ShardError as e:
        raise InspectError(str(e)) from None
    meta = parse_json(data["json"])
    if meta is None:
        raise InspectError(f"{where}: its JSON cannot be read")
    for role, picture in (("sharp picture", sharp), ("flow", flow), ("mask", mask)):
        if picture is not None and picture.shape[:2] != blur.shape[:2]:
            raise InspectError(f"{where}: {role} is {picture.shape[:2]}, blurred is {blur.shape[:2]}")
    if flow is not None:
        flow = np.nan_to_num(flow.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return meta, blur, sharp, flow, mask
