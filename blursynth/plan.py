"""From clips and a recipe to shard tasks: deterministic, light, and the same for any number of workers.

Windows are held as integer arrays a clip and tasks are made one at a time, so that a plan of a million samples is a
matter of seconds and megabytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blursynth.recipe import Recipe
from blursynth.shards import SCHEMA

if TYPE_CHECKING:
    from blursynth.sources import Clip

CLIPS_PER_SHARD = 4  # so that a shard is not one scene
SHARDS_AT_LEAST = 16  # small jobs still have work for every core
SHARD_SAMPLES_MAX = 100
RUN_AT_LEAST = 8  # windows of a run that share flows, where windows overlap
SLUG_LENGTH = (
    60  # a tar name holds 100 characters, of which the rest of the key and the extension take under 40
)


@dataclass(frozen=True)
class WindowSpec:
    """Frames ``first..last``, both in, of clip number ``clip``; ``tiles`` of it at most become samples."""

    clip: int
    first: int
    last: int
    tiles: int = 1

    @property
    def frames(self) -> int:
        return self.last - self.first + 1

    @property
    def target(self) -> int:
        """The source frame that ``sharp`` is a copy of."""
        return (self.first + self.last) // 2


@dataclass(frozen=True)
class PlanClip:
    """A source clip as tasks know it."""

    clip: Clip
    split: str
    prefix: str  # start of its keys, unique in the plan
    sha256: str | None = None
    stamp: tuple[int, ...] | None = (
        None  # cheap proof, within a run, that the source is still what was hashed
    )

    def key(self, w: WindowSpec) -> str:
        return f"{self.prefix}_{w.first:06d}_{w.frames:02d}"

    def identity(self) -> dict[str, Any]:
        """What of this clip decides bytes, and nothing of the machine."""
        i = self.clip.info
        facts: dict[str, Any] = {
            "rel": self.clip.rel,
            "clip": self.clip.name,
            "dataset": self.clip.dataset,
            "split": self.split,
        }
        facts |= {
            "sha256": self.sha256,
            "frames": i.frames,
            "fps": i.fps,
            "width": i.width,
            "height": i.height,
        }
        return facts | {"decoder": i.decoder}


@dataclass(frozen=True)
class Run:
    """Windows of one clip in order, read in one pass."""

    source: PlanClip
    windows: tuple[WindowSpec, ...]


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to make one shard: paths and numbers only, a few kB to send."""

    shard: str  # "train-000000"
    split: str
    out: str
    runs: tuple[Run, ...]
    recipe: Recipe
    plan_sha256: str
    rife_weights: str | None = None

    @property
    def samples(self) -> int:
        """Most samples it can give, before rejects."""
        return sum(w.tiles for r in self.runs for w in r.windows)


@dataclass
class Plan:
    recipe: Recipe
    clips: list[PlanClip]
    short: list[tuple[str, str]]  # (clip, why) of clips that give no window
    sha256: str
    samples: int  # most samples, before rejects
    windows: int
    frames: int  # source frames that are decoded
    pixels: int  # of all samples together
    _arrays: list[np.ndarray] = field(repr=False)  # a clip: (n, 3) int32 of first, last, tiles
    _shards: list[tuple[str, str, list[tuple[int, int, int]]]] = field(
        repr=False
    )  # name, split, [(clip, begin, end)]

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def split_samples(self) -> dict[str, int]:
        """Most samples of each split, before rejects."""
        found: Counter[str] = Counter()
        for p, rows in zip(self.clips, self._arrays):
            found[p.split] += int(rows[:, 2].sum())
        return {split: n for split, n in sorted(found.items()) if n}

    @property
    def shards(self) -> list[str]:
        return [name for name, _, _ in self._shards]

    def tasks(
        self, out: str | Path, only: set[str] | None = None, rife_weights: str | None = None
    ) -> Iterator[ShardTask]:
        """Shard tasks in order, made as they are asked for; ``only``: names of the shards wanted."""
        for name, split, parts in self._shards:
            if only is not None and name not in only:
                continue
            runs = tuple(
                Run(self.clips[c], tuple(WindowSpec(c, *map(int, row)) for row in self._arrays[c][begin:end]))
                for c, begin, end in parts
            )
            yield ShardTask(name, split, str(out), runs, self.recipe, self.sha256, rife_weights)


def make_plan(
    clips: Sequence[Clip],
    splits: Mapping[str, str],
    recipe: Recipe,
    hashes: dict[str, str] | None = None,
    stamps: dict[str, tuple[int, ...]] | None = None,
    files: dict[str, str] | None = None,
) -> Plan:
    """Plan all shards. Nothing is opened.

    Args:
        splits: ``Clip.rel`` -> "train" or "val".
        hashes: ``Clip.rel`` -> sha256 of the source; may lack in a dry run.
        files: recipe key -> sha256 of a file the recipe names, part of the plan's identity.
    """
    hashes, stamps = hashes or {}, stamps or {}
    prefixes = key_prefixes([(c.name, c.rel) for c in clips])
    known = [PlanClip(c, splits[c.rel], prefixes[c.rel], hashes.get(c.rel), stamps.get(c.rel)) for c in clips]
    known.sort(key=lambda p: p.clip.rel)
    arrays, short = [], []
    for p in known:
        rows, why = _windows(p, recipe)
        arrays.append(rows)
        if why:
            short.append((p.clip.rel, why))
    if recipe.max_samples is not None:
        arrays = _spread(arrays, known, recipe.max_samples, recipe.seed)
    samples = int(sum(int(a[:, 2].sum()) for a in arrays))
    tile = recipe.tile
    pixels = sum(
        int(a[:, 2].sum()) * (tile * tile if tile else p.clip.info.width * p.clip.info.height)
        for a, p in zip(arrays, known)
    )
    frames = sum(int((a[:, 1] - a[:, 0] + 1).sum()) for a in arrays)
    plan_hash = _plan_sha256(recipe, known, files or {})
    shards = _shards(known, arrays, recipe, samples)
    return Plan(
        recipe, known, short, plan_hash, samples, sum(map(len, arrays)), frames, pixels, arrays, shards
    )


def tile_corners(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    """(x, y) of the top left corners of a centred grid of tiles that do not overlap, row by row."""
    nx, ny = width // tile, height // tile
    x0, y0 = (width - nx * tile) // 2, (height - ny * tile) // 2
    return [(x0 + i * tile, y0 + j * tile) for j in range(ny) for i in range(nx)]


def key_prefixes(names: Sequence[tuple[str, str]]) -> dict[str, str]:
    """(name, rel) of every clip -> rel -> key prefix: the name in ``[A-Za-z0-9_-]``, and a hash where that lost
    something or two clips share a name (also where only the case differs: many file systems would mix them up)."""
    slugs = {
        rel: re.sub(r"[^A-Za-z0-9_-]+", "-", _ascii(name))[:SLUG_LENGTH].strip("-") or "clip"
        for name, rel in names
    }
    taken = Counter(s.lower() for s in slugs.values())
    prefixes = dict(slugs)
    for name, rel in names:
        if slugs[rel] != name or taken[slugs[rel].lower()] > 1:
            prefixes[rel] = (
                f"{slugs[rel]}-{hashlib.sha256(rel.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
            )
    if len({p.lower() for p in prefixes.values()}) != len(names):
        raise ValueError("two clips have one key prefix; the clips' relative paths must differ")
    return prefixes


def _ascii(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()


def _windows(p: PlanClip, recipe: Recipe) -> tuple[np.ndarray, str | None]:
    """(n, 3) int32 rows of first, last, tiles; and why there are none."""
    info, (lo, hi) = p.clip.info, recipe.window_range_of(p.clip.window_hint)
    tiles = len(tile_corners(info.width, info.height, recipe.tile)) if recipe.tile else 1
    none = np.zeros((0, 3), np.int32)
    if info.frames < lo:
        return none, f"{info.frames} frames, a window needs {lo}"
    if not tiles:
        return none, f"{info.width}x{info.height} is smaller than a tile of {recipe.tile}"
    most = (info.frames - lo) // (recipe.stride or lo) + 1
    if lo == hi:
        lengths = np.full(most, lo)
    else:
        lengths = _rng(recipe.seed, "window", p.clip.rel).integers(lo, hi + 1, most)
    if recipe.stride:
        first = np.arange(most) * recipe.stride
    else:
        first = np.cumsum(lengths) - lengths
    last = first + lengths - 1
    fits = last < info.frames
    rows = np.stack([first, last, np.full(most, tiles)], 1)[fits].astype(np.int32)
    return rows, None if len(rows) else f"{info.frames} frames, the windows drawn are longer"


def _rng(seed: int, *what: str) -> np.random.Generator:
    digest = hashlib.sha256("\0".join([str(seed), *what]).encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _spread(arrays: list[np.ndarray], clips: list[PlanClip], most: int, seed: int) -> list[np.ndarray]:
    """Keep ``most`` samples: as even over the clips as their lengths allow, and evenly spaced within each."""
    have = [int(a[:, 2].sum()) for a in arrays]
    # Short clips first, so that what they cannot give goes to the longer ones; ties in an order the seed decides.
    order = sorted(
        range(len(clips)), key=lambda i: (have[i], _rng(seed, "spread", clips[i].clip.rel).random())
    )
    kept, left = list(arrays), min(most, sum(have))
    for n, i in enumerate(order):
        quota = min(have[i], left // (len(order) - n))
        left -= quota
        rows = arrays[i]
        per_window = int(rows[0, 2]) if len(rows) else 1
        want = -(-quota // per_window)
        rows = rows[((np.arange(want) + 0.5) * len(rows) / max(want, 1)).astype(int)].copy()
        if want:
            rows[-1, 2] -= want * per_window - quota
        kept[i] = rows
    return kept


def _shards(
    clips: list[PlanClip], arrays: list[np.ndarray], recipe: Recipe, samples: int
) -> list[tuple[str, str, list[tuple[int, int, int]]]]:
    """Cut each clip into runs, deal the runs round-robin over the clips, fill shards in that order."""
    size = recipe.shard_samples or min(max(-(-samples // SHARDS_AT_LEAST), 1), SHARD_SAMPLES_MAX)
    overlap = recipe.stride is not None and recipe.stride < recipe.window_range[0] - 1
    shards = []
    for split in ("train", "val"):
        runs: list[tuple[int, float, int, int, int]] = []
        for c, (p, rows) in enumerate(zip(clips, arrays)):
            if p.split != split or not len(rows):
                continue
            per_shard = max(size // int(rows[0, 2]), 1)
            length = -(-per_shard // CLIPS_PER_SHARD)
            if overlap:
                length = max(length, min(per_shard, RUN_AT_LEAST))
            turn = float(_rng(recipe.seed, "order", p.clip.rel).random())
            runs += [
                (n, turn, c, b, min(b + length, len(rows))) for n, b in enumerate(range(0, len(rows), length))
            ]
        runs.sort()
        packed = _pack([(c, b, e) for _, _, c, b, e in runs], arrays, size)
        shards += [(f"{split}-{n:06d}", split, parts) for n, parts in enumerate(packed)]
    return shards


def _pack(
    runs: list[tuple[int, int, int]], arrays: list[np.ndarray], size: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Fill shards with whole windows up to ``size`` samples; a run is cut where the shard is full."""
    parts: list[tuple[int, int, int]] = []
    room = size
    for c, begin, end in runs:
        while begin < end:
            tiles = np.cumsum(arrays[c][begin:end, 2])
            fit = int(np.searchsorted(tiles, room, side="right"))
            if fit == 0 and not parts:
                fit = 1  # one window alone may have more tiles than a shard should
            if fit:
                if parts and parts[-1][0] == c and parts[-1][2] == begin:
                    parts[-1] = (c, parts[-1][1], begin + fit)  # one pass over the clip instead of two
                else:
                    parts.append((c, begin, begin + fit))
                room -= int(tiles[fit - 1])
                begin += fit
            if begin < end or room <= 0:
                yield parts
                parts, room = [], size
    if parts:
        yield parts


def _plan_sha256(recipe: Recipe, clips: list[PlanClip], files: dict[str, str]) -> str:
    facts = {
        "schema": SCHEMA,
        "recipe": recipe.sha256,
        "files": files,
        "clips": [p.identity() for p in clips],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
