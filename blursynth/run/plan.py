"""From clips and a recipe to shard tasks: deterministic, light, and the same for any number of workers.

Windows are held as integer arrays a clip and tasks are made one at a time, so that a plan of a million samples is a
matter of seconds and megabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blursynth.recipe import Recipe
from blursynth.run.keys import key_prefixes
from blursynth.run.packing import named_rng, pack_shards, spread
from blursynth.shards.shard import SCHEMA

if TYPE_CHECKING:
    from blursynth.sources.find import Clip


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
        arrays = spread(arrays, known, recipe.max_samples, recipe.seed)
    samples = int(sum(int(a[:, 2].sum()) for a in arrays))
    tile = recipe.tile
    pixels = sum(
        int(a[:, 2].sum()) * (tile * tile if tile else p.clip.info.width * p.clip.info.height)
        for a, p in zip(arrays, known)
    )
    frames = sum(int((a[:, 1] - a[:, 0] + 1).sum()) for a in arrays)
    plan_hash = _plan_sha256(recipe, known, files or {})
    shards = pack_shards(known, arrays, recipe, samples)
    return Plan(
        recipe, known, short, plan_hash, samples, sum(map(len, arrays)), frames, pixels, arrays, shards
    )


def tile_corners(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    """(x, y) of the top left corners of a centred grid of tiles that do not overlap, row by row."""
    nx, ny = width // tile, height // tile
    x0, y0 = (width - nx * tile) // 2, (height - ny * tile) // 2
    return [(x0 + i * tile, y0 + j * tile) for j in range(ny) for i in range(nx)]


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
        lengths = named_rng(recipe.seed, "window", p.clip.rel).integers(lo, hi + 1, most)
    if recipe.stride:
        first = np.arange(most) * recipe.stride
    else:
        first = np.cumsum(lengths) - lengths
    last = first + lengths - 1
    fits = last < info.frames
    rows = np.stack([first, last, np.full(most, tiles)], 1)[fits].astype(np.int32)
    return rows, None if len(rows) else f"{info.frames} frames, the windows drawn are longer"


def _plan_sha256(recipe: Recipe, clips: list[PlanClip], files: dict[str, str]) -> str:
    facts = {
        "schema": SCHEMA,
        "recipe": recipe.sha256,
        "files": files,
        "clips": [p.identity() for p in clips],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
