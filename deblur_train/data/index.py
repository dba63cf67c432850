"""Reading shards (``blursynth.shards`` is the contract): an index of tar offsets, then random access without unpacking anything.

A shard is data from elsewhere: nothing of it is written to disk, names are only compared, and every size is checked
against the file's own before it is believed. What is broken is named and left out, never guessed.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blursynth.common.errors import UserError
from blursynth.common.text import counted
from blursynth.shards.schema import FORMATS, KEPT, KEY, MAX_JSON, problem_with
from blursynth.shards.shard import ShardError, read_sidecar
from blursynth.shards.store import StoreError, is_url, local_path
from blursynth.shards.tar import Member, TarFault, walk
from deblur_train.data.remote import fetch_shards


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
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels at the left, top, right and bottom that show light from outside the frame (`exposure.shake.border`)."""
    jpeg: int | None = None
    """Quality of the camera's JPEG on the blur."""
    source: str = ""
    """sha256 of the film or picture that it was made of; of a packed pair, of its sharp picture."""


@dataclass
class ShardIndex:
    """Every usable sample of one split, in shard order, and what had to be left out."""

    paths: list[Path]
    samples: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unfinished: bool = False
    """Whether the `make` that wrote the folder says that shards are missing, or did not come to say anything."""

    def report(self) -> list[str]:
        """Lines for a person: what was left out, most frequent reason first."""
        lines = []
        if self.unfinished:
            lines.append("its make has not finished, shards are missing; run the same make again to have all")
        for reason, n in Counter(f.reason for f in self.faults).most_common():
            places = [f.where for f in self.faults if f.reason == reason]
            lines.append(f"left out {n}x {reason}: {', '.join(places[:3])}{', ...' if n > 3 else ''}")
        return lines


def shaken_border(meta: dict[str, Any]) -> tuple[int, int, int, int]:
    """The sides of a sample that a camera's shake brought in from outside the frame; a tile has none of them."""
    try:
        left, top, right, bottom = (max(0, int(v)) for v in meta["exposure"]["shake"]["border"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0, 0, 0, 0
    return (0, 0, 0, 0) if meta.get("tile") else (left, top, right, bottom)


def index_shard(path: Path, number: int) -> tuple[list[Sample], list[Fault]]:
    """The samples of one shard. Never raises for what is inside; unreadable files become faults."""
    faults: list[Fault] = []
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    samples: list[Sample] = []
    try:
        with path.open("rb") as file:
            try:
                for member in walk(file):
                    _sort_in(member, path, groups, faults)
            except TarFault:  # what came before is whole
                empty = os.fstat(file.fileno()).st_size == 0
                faults.append(Fault(path.name, "empty file" if empty else "truncated or damaged tar"))
            for key, parts in groups.items():
                if found := _sample(file.fileno(), path, number, key, parts, faults):
                    samples.append(found)
    except OSError as e:
        return [], [Fault(path.name, f"cannot be read: {e.strerror}")]
    return samples, faults


def _sort_in(
    member: Member, path: Path, groups: dict[str, dict[str, tuple[int, int]]], faults: list[Fault]
) -> None:
    """Put a member with its sample's others, or say why it is left out."""
    where = f"{path.name}:{member.name[:60]!r}"
    key, _, suffix = member.name.partition(".")
    if not member.plain:
        faults.append(Fault(where, "link, folder or device, not a plain file"))
    elif not KEY.fullmatch(key):
        faults.append(Fault(where, "key holds other characters than A-Z a-z 0-9 _ -"))
    elif suffix in groups.setdefault(key, {}):
        faults.append(Fault(f"{path.name}:{key}", "member stands twice"))
    else:
        groups[key][suffix] = (member.offset, member.size)


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
    quality, crf = meta["camera"].get("jpeg"), str(meta["camera"]["crf"])
    return Sample(
        number,
        key,
        images["blur"],
        images["sharp"],
        images.get("linear"),
        clip=str(meta["source"]["clip"]),
        crf=str(path.parent / crf) if KEPT.fullmatch(crf) else crf,  # the curve lies beside the shards
        border=shaken_border(meta),
        jpeg=quality if type(quality) is int and 1 <= quality <= 100 else None,
        source=sys.intern(str(meta["source"]["sha256"])),
    )


def index_split(folder: str | Path, split: str) -> ShardIndex:
    """Index ``DATA/<split>-*.tar``, where DATA may be a URL (see ``remote``).

    Raises DataError when the folder is missing; no shard at all gives an empty index.
    """
    folder = local_path(str(folder))
    if is_url(folder):
        try:
            paths, unfinished = fetch_shards(folder, split)
        except StoreError as e:
            raise DataError(str(e)) from None
        index = ShardIndex(
            paths, faults=[Fault(n, "shard without a sidecar: not finished") for n in unfinished]
        )
    elif Path(folder).is_dir():
        index = ShardIndex(
            sorted(Path(folder).glob(f"{split}-*.tar")), unfinished=_is_unfinished(Path(folder))
        )
    else:
        raise DataError(
            f"{folder}: no such folder of shards; make one with 'blursynth make --src VIDEO --out {folder}'"
        )
    for number, path in enumerate(index.paths):
        samples, faults = index_shard(path, number)
        index.samples += samples
        index.faults += faults
    return index


def _is_unfinished(folder: Path) -> bool:
    try:
        held = json.loads((folder / "dataset.json").read_bytes())
    except FileNotFoundError:
        return (
            folder / "recipe.toml"
        ).is_file()  # the first thing that make writes; dataset.json is the last
    except (OSError, ValueError, RecursionError):
        return False  # `verify` tells
    return isinstance(held, dict) and held.get("complete") is False


def require_samples(index: ShardIndex, folder: str | Path, split: str) -> None:
    """Raise DataError, in one line, when there is nothing to train on."""
    if index.samples:
        return
    if not index.paths:
        raise DataError(f"{folder}: {_why_empty(Path(folder), split)}")
    why = index.faults[0] if index.faults else Fault(index.paths[0].name, "empty")
    raise DataError(
        f"{folder}: no usable sample in {counted(len(index.paths), f'{split} shard')}; first fault: {why.where}: {why.reason}"
    )


def _why_empty(folder: Path, split: str) -> str:
    """Why there is no shard of a split, out of the sidecars (of a URL's none are here), and what helps."""
    sides = [side for path in sorted(folder.glob(f"{split}-*.json")) if (side := _sidecar(path))]
    rejects: Counter[str] = Counter()
    for side in sides:
        rejects.update(side["counts"].get("rejected") or {})
    if rejects:
        why = ", ".join(f"{reason} {n}" for reason, n in rejects.most_common(3))
        loosen = (
            "a looser --gate, or --gate off"
            if any(r.startswith("gate:") for r in rejects)
            else "a shorter --window (blursynth audit tells where the film breaks)"
        )
        return f"every {split} sample was rejected ({why}): make it again with {loosen} and --overwrite"
    other = "val" if split == "train" else "train"
    if any(folder.glob(f"{other}-*.tar")):
        more = "a smaller" if split == "train" else "a larger"
        return f"holds {other} shards only: make it again from more clips, or with {more} --val-fraction, and --overwrite"
    return f"holds no {split}-*.tar shard; make some with 'blursynth make VIDEO --out {folder}'"


def _sidecar(path: Path) -> dict[str, Any] | None:
    try:
        return read_sidecar(path)
    except ShardError:
        return None
