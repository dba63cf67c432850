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
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from blursynth.common.text import counted
from blursynth.exposure.shake import widest_border
from blursynth.recipe import LEAST_SIDE, Recipe
from blursynth.run.outcome import PlanClip, Run, ShardTask, WindowSpec
from blursynth.run.packing import Parts, cut, named_rng, pack_shards, piece_ends, piece_windows, spread
from blursynth.shards.shard import SCHEMA
from blursynth.sources.find import Clip, Reject

LAYOUT = 2  # of shards: what an earlier one left unfinished cannot be gone on with
SLUG_LENGTH = 60  # a tar name holds 100 characters; the rest of the key and the extension take under 40


@dataclass
class Plan:
    recipe: Recipe
    clips: list[PlanClip]
    short: list[Reject]  # clips that give no window
    sha256: str
    samples: int  # most samples, before rejects
    windows: int
    frames: int  # source frames that are decoded
    pixels: int  # of all samples together
    piece: int  # windows, about, that a worker makes at a time
    _arrays: list[np.ndarray] = field(repr=False)  # a clip: (n, 4) int32 of first, last, tiles, draw
    _shards: list[tuple[str, str, Parts]] = field(repr=False)  # name, split, windows

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
        """Shard tasks in order, made as they are asked for; ``only``: names of the shards wanted.

        A large shard is several tasks, each a piece of it.
        """
        stills = self._stills()
        for name, split, parts in self._shards:
            if only is not None and name not in only:
                continue
            pieces = list(cut(parts, piece_ends(parts, self.piece)))
            for n, piece in enumerate(pieces):
                yield ShardTask(
                    name,
                    split,
                    str(out),
                    self._runs(piece, stills[split]),
                    self.recipe,
                    self.sha256,
                    rife_weights,
                    n,
                    len(pieces),
                )

    def first_runs(self) -> tuple[Run, ...]:
        """The runs of the first shard."""
        _, split, parts = self._shards[0]
        return self._runs(parts, self._stills()[split])

    def _stills(self) -> dict[str, list[PlanClip]]:
        return {s: [p for p in self.clips if p.split == s and p.still] for s in ("train", "val")}

    def _runs(self, parts: Parts, stills: Sequence[PlanClip]) -> tuple[Run, ...]:
        return tuple(
            Run(self.clips[c], tuple(self._window(c, row, stills) for row in self._arrays[c][begin:end]))
            for c, begin, end in parts
        )

    def _window(self, c: int, row: np.ndarray, stills: Sequence[PlanClip]) -> WindowSpec:
        first, last, tiles, draw = map(int, row)
        w = WindowSpec(c, first, last, tiles, draw)
        if not self.clips[c].still or not self.recipe.layers_range[1]:
            return w
        return replace(w, donors=choose_donors(self.clips[c], self.clips[c].key(w), stills, self.recipe))


def choose_donors(
    source: PlanClip, key: str, stills: Sequence[PlanClip], recipe: Recipe
) -> tuple[PlanClip, ...]:
    """The pictures that the layers of one sample are cut from: of its own split; its own where there is no other."""
    rng = named_rng(recipe.seed, "layers", key)
    low, high = recipe.layers_range
    others = [p for p in stills if p.clip.rel != source.clip.rel] or [source]
    return tuple(others[i] for i in rng.integers(0, len(others), int(rng.integers(low, high + 1))))


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
            short.append(why)
    if recipe.max_samples is not None:
        arrays = spread(arrays, known, recipe.max_samples, recipe.seed)
    samples = int(sum(int(a[:, 2].sum()) for a in arrays))
    tile = recipe.tile
    pixels = sum(
        int(a[:, 2].sum()) * (tile * tile if tile else p.clip.info.width * p.clip.info.height)
        for a, p in zip(arrays, known)
    )
    lengths = [int((a[:, 1] - a[:, 0] + 1).sum()) for a in arrays]
    seen = sum(n * p.clip.info.width * p.clip.info.height for n, p in zip(lengths, known))
    windows = sum(map(len, arrays))
    return Plan(
        recipe,
        known,
        short,
        sha256=_plan_sha256(recipe, known, files or {}),
        samples=samples,
        windows=windows,
        frames=sum(lengths),
        pixels=pixels,
        piece=piece_windows(windows, seen, recipe),
        _arrays=arrays,
        _shards=pack_shards(known, arrays, recipe),
    )


def tile_corners(
    width: int, height: int, tile: int, shake: tuple[float, float] | None = None
) -> list[tuple[int, int]]:
    """(x, y) of the top left corners of a centred grid of tiles that do not overlap, row by row.

    shake: `Recipe.shake_range`; tiles then stay clear of the sides that light from outside the frame can reach.
    """
    margin = widest_border(shake[1], width, height) if shake else 0
    nx, ny = (max(0, n - 2 * margin) // tile for n in (width, height))
    x0, y0 = (width - nx * tile) // 2, (height - ny * tile) // 2
    return [(x0 + i * tile, y0 + j * tile) for j in range(ny) for i in range(nx)]


def _windows(p: PlanClip, recipe: Recipe) -> tuple[np.ndarray, Reject | None]:
    """(n, 4) int32 rows of first, last, tiles, draw; and why there are none."""
    if min(p.clip.info.width, p.clip.info.height) < LEAST_SIDE:
        small = f"{p.clip.info.width}x{p.clip.info.height} px; a source needs {LEAST_SIDE} px a side"
        return np.zeros((0, 4), np.int32), Reject(p.clip.rel, "too small", small)
    if p.still:
        return _draws(p, recipe)
    info, (lo, hi) = p.clip.info, recipe.window_range_of(p.clip.window_hint)
    tiles = len(tile_corners(info.width, info.height, recipe.tile, recipe.shake_range)) if recipe.tile else 1
    none = np.zeros((0, 4), np.int32)
    begin, end = recipe.frame_range
    count = max(min(info.frames, info.frames if end is None else end + 1) - begin, 0)
    if count < lo:
        within = f" within {recipe.frames}" if recipe.frames else ""
        return none, Reject(
            p.clip.rel, "too short", f"{counted(count, 'frame')}{within}, a window needs {lo}"
        )
    if not tiles:
        small = f"{info.width}x{info.height} is smaller than a tile of {recipe.tile}"
        if recipe.shake:
            small += f" within what a shake of {recipe.shake} px leaves"
        return none, Reject(p.clip.rel, "too small", small)
    if recipe.blur_px:  # the exposure is chosen within the window: all the frames it may have
        lo = hi = min(hi, count)
    most = (count - lo) // (recipe.stride or lo) + 1
    if lo == hi:
        lengths = np.full(most, lo)
    else:
        lengths = named_rng(recipe.seed, "window", p.clip.rel).integers(lo, hi + 1, most)
    if recipe.stride:
        first = np.arange(most) * recipe.stride
    else:
        first = np.cumsum(lengths) - lengths
    last = first + lengths - 1
    fits = last < count
    rows = np.stack([first + begin, last + begin, np.full(most, tiles), np.zeros(most)], 1)[fits]
    if len(rows):
        return rows.astype(np.int32), None
    return none, Reject(p.clip.rel, "too short", f"{count} frames, the windows drawn are longer")


def _draws(p: PlanClip, recipe: Recipe) -> tuple[np.ndarray, Reject | None]:
    """`_windows` of a still: each row is one sample, a whole picture or one crop."""
    info, side = p.clip.info, recipe.tile or 1
    if min(info.width, info.height) < side:
        small = f"{info.width}x{info.height} is smaller than a tile of {side}"
        return np.zeros((0, 4), np.int32), Reject(p.clip.rel, "too small", small)
    rows = np.zeros((recipe.per_still, 4), np.int32)
    rows[:, 2], rows[:, 3] = 1, np.arange(recipe.per_still)
    return rows, None


def _plan_sha256(recipe: Recipe, clips: list[PlanClip], files: dict[str, str]) -> str:
    facts = {
        "schema": SCHEMA,
        "layout": LAYOUT,
        "recipe": recipe.sha256,
        "files": files,
        "clips": [p.identity() for p in clips],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
