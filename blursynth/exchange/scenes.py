"""What ``pack`` will write: which pair stands in which shard, under which key; a split never divides a scene."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blursynth.run.packing import shard_count
from blursynth.run.plan import key_prefixes
from blursynth.shards.partners import Pair, PairSet, Split
from blursynth.shards.schema import SCHEMA
from blursynth.shards.shard import file_sha256

JPEG_GROWS = 6  # times, about, when its pixels are stored as PNG


class PackPlan:
    """Which pair stands in which shard under which key: a function of the files' names, sizes and the settings."""

    def __init__(
        self,
        found: PairSet,
        base: Path,
        splits: dict[str, Split],
        settings: dict[str, Any],
        shard_samples: int | None = None,
    ) -> None:
        self.found, self.base, self.splits, self.settings = found, base, splits, settings
        names = [
            (f"{p.scene}_{p.name}" if p.scene != p.name else p.name, f"{p.scene}/{p.name}")
            for p in found.pairs
        ]
        keys = key_prefixes([(name.replace("/", "_"), rel) for name, rel in names])
        self.keys = {rel: keys[rel] for _, rel in names}
        self.shards: dict[str, list[Pair]] = {}
        for split in ("train", "val"):
            mine = _mixed([p for p in found.pairs if splits[p.scene] == split])
            count = shard_count(len(mine), sum(map(_stored_bytes, mine)))
            if shard_samples:
                count = -(-len(mine) // shard_samples)
            for n in range(count if mine else 0):
                first, end = (len(mine) * i // count for i in (n, n + 1))
                self.shards[f"{split}-{n:06d}"] = mine[first:end]
        self.recipe_sha256 = _digest({"pack": SCHEMA, **settings})
        rows = [
            [name, [[self.rel(p.blur), self.rel(p.sharp), *_stamp(p)] for p in pairs]]
            for name, pairs in self.shards.items()
        ]
        self.sha256 = _digest({"settings": settings, "shards": rows})

    def rel(self, path: Path) -> str:
        """As it goes into the shards: below the root, or the name alone; never a folder of this machine."""
        return path.relative_to(self.base).as_posix() if path.is_relative_to(self.base) else path.name

    def key(self, p: Pair) -> str:
        return self.keys[f"{p.scene}/{p.name}"]


def _stamp(pair: Pair) -> tuple[int, int]:
    try:
        return pair.blur.stat().st_size, pair.sharp.stat().st_size
    except OSError:
        return -1, -1  # told when it is read


def _stored_bytes(pair: Pair) -> int:
    """About what the pair takes in a shard."""
    sizes = zip((pair.blur, pair.sharp), _stamp(pair), strict=True)
    return sum(n * (JPEG_GROWS if path.suffix.lower() in (".jpg", ".jpeg") else 1) for path, n in sizes)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """Each scene spread evenly over the whole, so that a shard is not one scene."""
    count = Counter(p.scene for p in pairs)
    seen: Counter[str] = Counter()
    placed: list[tuple[float, int, Pair]] = []
    for p in pairs:
        placed.append(((seen[p.scene] + 0.5) / count[p.scene], len(placed), p))
        seen[p.scene] += 1
    return [p for _, _, p in sorted(placed, key=lambda x: x[:2])]


def assign_scenes(pairs: Sequence[Pair], val_fraction: float, seed: int) -> dict[str, Split]:
    """Split of every scene. Official ones hold; the rest is ranked by a hash of (seed, scene)."""
    group = _joined(pairs)
    official: dict[str, set[Split]] = defaultdict(set)
    members: dict[str, list[str]] = defaultdict(list)
    for p in pairs:
        official[group[p.scene]] |= {p.split} if p.split else set()
    for scene, head in group.items():
        members[head].append(scene)
    free = sorted(
        (h for h in members if not official[h]),
        key=lambda h: hashlib.sha256(f"{seed}:{h}".encode("utf-8", "surrogateescape")).hexdigest(),
    )
    if any(official.values()):
        wanted = 0  # the rest trains: val is what the set's authors held out
    elif val_fraction > 0 and len(free) >= 2:
        wanted = min(max(round(val_fraction * len(free)), 1), len(free) - 1)
    else:
        wanted = 0
    val = {*free[:wanted], *(h for h in members if "val" in official[h])}
    return {scene: "val" if head in val else "train" for scene, head in group.items()}


def _joined(pairs: Sequence[Pair]) -> dict[str, str]:
    """Scene -> the first scene of its group: scenes that hold one and the same sharp picture belong together."""
    head = {p.scene: p.scene for p in pairs}

    def find(scene: str) -> str:
        while head[scene] != scene:
            scene = head[scene]
        return scene

    sizes: dict[int, list[Pair]] = defaultdict(list)
    for p in pairs:
        sizes[_stamp(p)[1]].append(p)
    for alike in sizes.values():
        if len({p.scene for p in alike}) < 2:
            continue
        first: dict[str, str] = {}
        for p in alike:
            try:
                digest = file_sha256(p.sharp)
            except OSError:
                continue  # told when it is read
            a, b = find(first.setdefault(digest, p.scene)), find(p.scene)
            head[max(a, b)] = min(a, b)
    return {scene: find(scene) for scene in head}
