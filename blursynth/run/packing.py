"""Which windows are kept, and which stand in which shard: evenly spread, well mixed, cheap to read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from blursynth.recipe import Recipe
from blursynth.run.outcome import PlanClip

CLIPS_PER_SHARD = 4  # so that a shard is not one scene
SHARDS_AT_LEAST = 16  # small jobs still have work for every core
SHARD_SAMPLES_MAX = 100
RUN_AT_LEAST = 8  # windows of a run that share flows, where windows overlap


def named_rng(seed: int, *what: str) -> np.random.Generator:
    """The draws of one named thing: its own, whatever else is drawn."""
    digest = hashlib.sha256("\0".join([str(seed), *what]).encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def spread(arrays: list[np.ndarray], clips: list[PlanClip], most: int, seed: int) -> list[np.ndarray]:
    """Keep ``most`` samples: as even over the clips as their lengths allow, and evenly spaced within each.

    A split that has samples keeps at least one, where ``most`` allows one a split.
    """
    have = [int(a[:, 2].sum()) for a in arrays]
    # Short clips first, so that what they cannot give goes to the longer ones; ties in an order the seed decides.
    order = sorted(
        range(len(clips)), key=lambda i: (have[i], named_rng(seed, "spread", clips[i].clip.rel).random())
    )
    quotas, left = [0] * len(clips), min(most, sum(have))
    for n, i in enumerate(order):
        quotas[i] = min(have[i], left // (len(order) - n))
        left -= quotas[i]
    _keep_splits(quotas, have, [c.split for c in clips], order)
    kept = list(arrays)
    for i, quota in enumerate(quotas):
        rows = arrays[i]
        per_window = int(rows[0, 2]) if len(rows) else 1
        want = -(-quota // per_window)
        rows = rows[((np.arange(want) + 0.5) * len(rows) / max(want, 1)).astype(int)].copy()
        if want:
            rows[-1, 2] -= want * per_window - quota
        kept[i] = rows
    return kept


def _keep_splits(quotas: list[int], have: list[int], splits: list[str], order: list[int]) -> None:
    """Move one sample to a split that lost all of its own, from a clip of a split that has two or more."""
    for split in sorted(set(splits)):
        mine = [i for i in order if splits[i] == split and have[i]]
        if not mine or any(quotas[i] for i in mine):
            continue
        total = Counter(dict.fromkeys(splits, 0))
        for s, q in zip(splits, quotas):
            total[s] += q
        givers = [i for i in order if quotas[i] and total[splits[i]] > 1]
        if givers:
            quotas[max(givers, key=lambda i: quotas[i])] -= 1
            quotas[mine[-1]] += 1


def pack_shards(
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
            turn = float(named_rng(recipe.seed, "order", p.clip.rel).random())
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
