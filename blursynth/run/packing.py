"""Which windows are kept, and which stand in which shard: evenly spread, well mixed, cheap to read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from blursynth.recipe import Recipe
from blursynth.run.outcome import PlanClip

CLIPS_PER_SHARD = 4  # so that a shard is not one scene
SHARD_BYTES = 400e6  # about, as estimated: what readers and object stores like lies between 256 MB and 1 GB
SHARD_SAMPLES_LEAST = 50  # but a split that has fewer is one shard
PIECES_AT_LEAST = 16  # of all shards together: small jobs still have work for every core
PIECE_PIXELS = (
    16 * 9 * 1280 * 720
)  # of source frames: half a minute of work at the most, and what a kill can cost
RUN_AT_LEAST = 8  # windows of a run that share flows, where windows overlap
PICTURE_BYTES = {"png": 1.7, "webp": 1.4}
"""Bytes a pixel of film, as DESIGN.md measured them at 720p."""
LINEAR_BYTES, FLOW_BYTES = 4.7, 4.0
"""Of a PNG of 16 bits, which noise in the low bits keeps large; and of two float16."""
Parts = list[tuple[int, int, int]]
"""Windows ``begin..end`` of clip number ``clip``, one after the other."""


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
    clips: list[PlanClip], arrays: list[np.ndarray], recipe: Recipe
) -> list[tuple[str, str, Parts]]:
    """Cut each clip into runs, deal the runs round-robin over the clips, fill shards in that order.

    Returns name, split and windows of each shard. Without ``shard_samples`` the shards of a split are alike in size.
    """
    overlap = _overlap(recipe)
    shards = []
    for split in ("train", "val"):
        mine = [c for c, p in enumerate(clips) if p.split == split and len(arrays[c])]
        samples = {c: int(arrays[c][:, 2].sum()) for c in mine}
        total = sum(samples.values())
        if not total:
            continue
        size = recipe.shard_samples
        expected = sum(n * sample_bytes(clips[c], recipe) for c, n in samples.items())
        count = shard_count(total, expected, most=max(int(arrays[c][:, 2].max()) for c in mine))
        runs: list[tuple[int, float, int, int, int]] = []
        for c in mine:
            rows = arrays[c]
            per_shard = max((size or -(-total // count)) // int(rows[0, 2]), 1)
            length = -(-per_shard // CLIPS_PER_SHARD)
            if overlap:
                length = max(length, min(per_shard, RUN_AT_LEAST))
            turn = float(named_rng(recipe.seed, "order", clips[c].clip.rel).random())
            runs += [
                (n, turn, c, b, min(b + length, len(rows))) for n, b in enumerate(range(0, len(rows), length))
            ]
        runs.sort()
        parts = [(c, b, e) for _, _, c, b, e in runs]
        filled = np.cumsum(np.concatenate([arrays[c][b:e, 2] for c, b, e in parts]))
        ends = _full(filled, size) if size else _even(filled, count)
        shards += [(f"{split}-{n:06d}", split, part) for n, part in enumerate(cut(parts, ends))]
    return shards


def shard_count(samples: int, size: float, most: int = 1) -> int:
    """How many shards a split is cut into, by its samples and their bytes together; ``most``: samples of one window,
    which stay in one shard."""
    return max(min(round(size / SHARD_BYTES), samples // (SHARD_SAMPLES_LEAST + most - 1)), 1)


def sample_bytes(p: PlanClip, recipe: Recipe) -> float:
    """About what one sample of this clip takes in a shard."""
    pixels = recipe.tile**2 if recipe.tile else p.clip.info.width * p.clip.info.height
    each = 2 * PICTURE_BYTES[recipe.format]
    each += LINEAR_BYTES if recipe.store == "linear16" else 0
    each += FLOW_BYTES if "flow" in recipe.labels.split(",") else 0
    return each * pixels


def _full(filled: np.ndarray, size: int) -> Iterator[int]:
    """Ends of shards, in windows, that hold whole windows up to ``size`` samples; ``filled``: samples so far."""
    end = 0
    while end < len(filled):
        before = int(filled[end - 1]) if end else 0
        # One window alone may have more tiles than a shard should.
        end = max(int(np.searchsorted(filled, before + size, side="right")), end + 1)
        yield end


def _even(filled: np.ndarray, count: int) -> Iterator[int]:
    """Ends of ``count`` shards that are alike: each where the samples so far are nearest to its share."""
    wanted = filled[-1] * (np.arange(count) + 1) / count
    yield from sorted({int(n) + 1 for n in np.searchsorted(filled, wanted - 1e-6)})


def cut(parts: Parts, ends: Iterable[int]) -> Iterator[Parts]:
    """The same windows, cut where so many of them have been; the last of ``ends`` is the number of all."""
    stops = iter(ends)
    stop, done = next(stops, 0), 0
    held: Parts = []
    for c, begin, end in parts:
        while begin < end:
            n = min(end - begin, stop - done)
            if held and held[-1][0] == c and held[-1][2] == begin:
                held[-1] = (c, held[-1][1], begin + n)  # one pass over the clip instead of two
            else:
                held.append((c, begin, begin + n))
            begin, done = begin + n, done + n
            if done == stop:
                yield held
                stop, held = next(stops, 0), []


def piece_windows(windows: int, pixels: int, recipe: Recipe) -> int:
    """About how many windows a worker makes at a time: a function of the plan alone, as all here is.

    pixels: of the source frames of all windows.
    """
    size = min(-(-windows // PIECES_AT_LEAST), int(windows * PIECE_PIXELS / max(pixels, 1)))
    return max(size, RUN_AT_LEAST if _overlap(recipe) else 1)


def piece_ends(parts: Parts, size: int) -> Iterator[int]:
    """Ends of a shard's pieces, in windows: about ``size`` each, cut between clips where that will do."""
    done = held = 0
    for _, begin, end in parts:
        n = end - begin
        steps = max(round(n / size), 1)
        for i in range(steps):
            more = n * (i + 1) // steps - n * i // steps
            if held and 4 * (held + more) > 5 * size:
                yield done
                held = 0
            held, done = held + more, done + more
            if held >= size:
                yield done
                held = 0
    if held:
        yield done


def _overlap(recipe: Recipe) -> bool:
    return recipe.stride is not None and recipe.stride < recipe.window_range[0] - 1
