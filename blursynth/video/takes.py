"""Frames of a folder by their names alone: which pictures are one take, in what order, and where it does not go on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

FLOAT_SUFFIXES = frozenset({".exr"})
"""Pictures of linear light, in units of white."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}) | FLOAT_SUFFIXES
_NUMBER = re.compile(r"(\d+)")
COMPANIONS = frozenset(
    [
        "alpha",
        "depth",
        "disp",
        "disparity",
        "flow",
        "label",
        "labels",
        "mask",
        "masks",
        "matte",
        "normal",
        "normals",
        "seg",
        "segmentation",
        "thumb",
        "trimap",
    ]
)
"""Words that tell a picture beside a frame (``0001_mask.png`` beside ``0001.png``) from a frame."""


LEAST = 3
"""Frames of a take that is worth a word: a window needs so many."""


class FrameOrder(NamedTuple):
    frames: list[str]
    breaks: frozenset[
        int
    ]  # positions i: between frames i - 1 and i something is missing, or another take begins
    companions: list[str]  # masks and the like that lie beside frames of the same numbers
    takes: list[str]  # first frame of each take of at least LEAST frames, where there are several


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``f2.png`` comes before ``f10.png``."""
    return [(0, int(t), t) if t.isdecimal() else (1, 0, t.casefold()) for t in _NUMBER.split(name) if t]


def order_frames(names: Iterable[str]) -> FrameOrder:
    """Order the pictures of a folder, take by take.

    Names of one take differ in their numbers alone. Of several numbers (``0017_240fps.png``) the frame's is the one that
    takes most values. Another pattern, another value of a number that few frames share, a number that repeats, goes back
    or leaves more out than usual is a break. The usual step is the commonest one, so a folder that was thinned evenly
    (every 7th frame) has no breaks. Names without any number are one take in the order of the alphabet.
    """
    takes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda n: (natural_key(n), n)):
        takes[_pattern(name)].append(name)
    companions = _companions(takes)
    frames: list[str] = []
    breaks: set[int] = set()
    starts: list[int] = []
    for pattern, members in takes.items():
        if pattern in companions:
            continue
        if frames:
            breaks.add(len(frames))
        within, others = _breaks(members)
        starts += [len(frames), *(len(frames) + i for i in others)]
        breaks |= {len(frames) + i for i in within}
        frames += members
    firsts = [frames[a] for a, b in pairwise([*starts, len(frames)]) if b - a >= LEAST]
    aside = [n for p in companions for n in takes[p]]
    return FrameOrder(frames, frozenset(breaks), aside, firsts if len(firsts) > 1 else [])


def _pattern(name: str) -> tuple[str, ...]:
    parts = _NUMBER.split(Path(name).stem)
    return tuple(t.casefold() for t in parts[::2]) if len(parts) > 1 else ()


def _companions(takes: dict[tuple[str, ...], list[str]]) -> set[tuple[str, ...]]:
    """Patterns that are another's with such a word added, for numbers that the other has too."""
    found = set()
    numbers = {p: {tuple(_NUMBER.findall(Path(n).stem)) for n in members} for p, members in takes.items()}
    for pattern in takes:
        words = Counter(w for part in pattern for w in re.findall(r"[^\W\d_]+", part))
        for other in takes:
            more = words - Counter(w for part in other for w in re.findall(r"[^\W\d_]+", part))
            if other != pattern and more and more.keys() <= COMPANIONS and numbers[other] & numbers[pattern]:
                found.add(pattern)
    return found


def _breaks(members: list[str]) -> tuple[list[int], list[int]]:
    """Positions within one pattern's names, in order, at which a take does not go on, and those of them where the names
    say that another begins."""
    rows = [tuple(map(int, _NUMBER.findall(Path(n).stem))) for n in members]
    if len(rows) < 2 or not rows[0]:
        return [], []
    values = [len(set(column)) for column in zip(*rows, strict=True)]
    frame = values.index(max(values))
    shared = [c for c, n in enumerate(values) if c != frame and 1 < n <= len(rows) / 2]
    same = [all(a[c] == b[c] for c in shared) for a, b in pairwise(rows)]
    steps = [b[frame] - a[frame] for a, b in pairwise(rows)]
    usual = Counter(s for s, one in zip(steps, same) if one and s > 0).most_common(1)
    most = 1.5 * usual[0][0] if usual else 0
    breaks = [i + 1 for i, (s, one) in enumerate(zip(steps, same)) if not one or not 0 < s <= most]
    return breaks, [i for i in breaks if not same[i - 1]]


def frame_files(folder: str | Path) -> list[Path]:
    """Pictures right inside a folder that are frames, in their order; hidden files do not count. Raises OSError."""
    return [Path(folder) / n for n in folder_order(folder).frames]


def folder_order(folder: str | Path) -> FrameOrder:
    """Frames, breaks and companions among the pictures right inside a folder. Raises OSError."""
    return _order(str(folder), Path(folder).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _order(folder: str, mtime_ns: int) -> FrameOrder:
    return order_frames(
        p.name for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
