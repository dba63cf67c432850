"""Pairs to measure on: samples of shards, two folders, or a tree that the field's test sets come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blursynth.common.errors import UsageError
from blursynth.shards.layouts import find_pairs, match_folders
from blursynth.shards.partners import PairSet, report
from blursynth.shards.store import is_url
from deblur_train.data.index import DataError, index_split
from deblur_train.data.pictures import ShardReader, inside_border
from deblur_train.media.pictures import ImageError, read_picture

Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp: (H, W, 3) RGB, both uint8 or both uint16


@dataclass(frozen=True)
class PairSource:
    """Pairs to measure on: their names, a way to read one (raises DecodeError or ImageError), and remarks."""

    names: list[str]
    read: Callable[[int], Pair]
    remarks: list[str]


def _spread(n: int, limit: int | None) -> list[int]:
    """At most ``limit`` of the numbers 0..n-1, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(limit or n, n)).round())]


def choose_pairs(
    shards: str | Path | None,
    pairs: str | Path | None,
    blur: str | Path | None,
    sharp: str | Path | None,
    split: str = "val",
    limit: int | None = None,
) -> PairSource:
    """The source that is given. Raises UsageError unless that is one, and what the source's own function raises."""
    if split not in ("train", "val"):
        raise UsageError(f"split: must be 'train' or 'val', not {split!r}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit: must be at least 1, or None for all, not {limit}")
    folders = (blur is not None) + (sharp is not None)
    if (shards is not None) + (pairs is not None) + (folders > 0) != 1 or folders == 1:
        raise UsageError(
            "what to measure on: give --shards DATA, --pairs ROOT, or both --blur DIR and --sharp DIR"
        )
    if shards is not None:
        return pairs_from_shards(str(shards), split, limit)
    if pairs is not None:
        return pairs_from_tree(str(pairs), split, limit)
    return pairs_from_folders(str(blur), str(sharp), limit)


def pairs_from_shards(folder: str, split: str, limit: int | None) -> PairSource:
    """Samples of a split, evenly spread when limited, each clear of light from outside its frame
    (``exposure.shake.border``). Raises DataError when there is none."""
    index = index_split(folder, split)
    if not index.samples:
        if not is_url(folder) and not any(Path(folder).glob("*-*.tar")):
            raise DataError(f"{folder}: holds no shards; give the folder that blursynth make wrote")
        reason = f"; {index.report()[0]}" if index.faults else ""
        other = "train" if split == "val" else "val"
        raise DataError(
            f"{folder}: no usable {split} sample{reason} (choose another --split, for example {other})"
        )
    chosen = [index.samples[i] for i in _spread(len(index.samples), limit)]
    reader = ShardReader(index.paths)

    def read(i: int) -> Pair:
        blur, sharp = reader.pair(chosen[i])
        return inside_border(blur, chosen[i].border), inside_border(sharp, chosen[i].border)

    return PairSource([s.key for s in chosen], read, index.report())


def pairs_from_folders(blur: str, sharp: str, limit: int | None) -> PairSource:
    """Files of equal names or numbers in two folders. Raises LayoutError when none match, or both are one folder."""
    return _from_files(match_folders(blur, sharp), limit)


def pairs_from_tree(root: str, split: str, limit: int | None) -> PairSource:
    """Pairs of a folder in one of the layouts of ``blursynth.shards.layouts``, or of a list file. Where the layout has
    official splits (``train/`` and ``test/``) those of ``split`` only, "val" being what was held out. Raises LayoutError."""
    found = find_pairs(root)
    if any(p.split for p in found.pairs):
        count = len(found.pairs)
        found.pairs = [p for p in found.pairs if p.split == split]
        official = f"measured on the {len(found.pairs)} of {count} pairs that are officially {'held out' if split == 'val' else 'for training'}"
        return _from_files(found, limit, [official])
    return _from_files(found, limit)


def _from_files(found: PairSet, limit: int | None, remarks: list[str] | None = None) -> PairSource:
    pairs = [found.pairs[i] for i in _spread(len(found.pairs), limit)]

    def read(i: int) -> Pair:
        files = (pairs[i].blur, pairs[i].sharp)
        a, b = (read_picture(f).rgb for f in files)
        named = " and ".join(
            f"{f.name} ({x.shape[1]}x{x.shape[0]}, {8 * x.itemsize} bits)" for f, x in zip(files, (a, b))
        )
        if a.shape != b.shape:
            raise ImageError(f"{named} differ in size")
        if a.dtype != b.dtype:  # the 8-bit one in the other's steps: v / 255 = 257 v / 65535
            a, b = (x if x.dtype == np.uint16 else x.astype(np.uint16) * 257 for x in (a, b))
        if np.array_equal(a, b):
            raise ImageError(f"{named} are the same picture; a picture is not measured against itself")
        return a, b

    names = [p.name if p.scene in ("", ".", p.name) else f"{p.scene}/{p.name}" for p in pairs]
    return PairSource(names, read, [*(remarks or []), *report(found.left_out)])


def require_pairs(names: list[str], left_out: list[str]) -> None:
    """Raises DataError, with the first reason, when nothing could be measured."""
    if not names:
        first = f"; the first: {left_out[0]}" if left_out else ""
        raise DataError(f"no pair could be measured{first}")
