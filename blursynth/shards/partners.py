"""Which files belong together, and which pairs make a scene: by names alone, no file is opened."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from blursynth.shards.sides import BLURRED, NO_MEANING, SHARP, role_of

Split = Literal["train", "val"]
SPLITS: dict[str, Split] = {"train": "train", "training": "train"}
SPLITS.update(dict.fromkeys(("test", "testing", "val", "valid", "validation"), "val"))
PICTURES = frozenset({".png", ".webp", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Pair:
    """Two files that show one moment."""

    blur: Path
    sharp: Path
    scene: str  # what a split may not divide; "" while there is but one
    name: str  # without extension, unique within the scene
    split: Split | None = None  # where the layout has official ones
    from_folder: bool = True  # the scene is a folder: its pictures stand in the order of time


@dataclass
class PairSet:
    """Pairs in order of scene and name, and what stayed alone: (path, why)."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def match_names(blurred: Sequence[str], sharps: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of file names, each file in one at most, in natural order: by name; by name without the word for the side;
    and, where neither finds any, by the last number alone."""
    left = (list(blurred), list(sharps))
    found: list[tuple[str, str]] = []
    for key in (_stem, _stem_without_role, _last_number):
        if (
            key is _last_number and found
        ):  # two takes may share numbers; names have been seen to mean something
            break
        tables = []
        for names in left:
            count = Counter(map(key, names))
            tables.append({key(n): n for n in names if key(n) is not None and count[key(n)] == 1})
        for k in tables[0].keys() & tables[1].keys():
            found.append((tables[0][k], tables[1][k]))
            left[0].remove(tables[0][k])
            left[1].remove(tables[1][k])
    return sorted(found, key=lambda x: natural(x[0]))


def both_in_one(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs among the pictures of one folder: ``a_blur1.png`` and ``a_sharp1.png``."""
    sides: dict[str, list[str]] = {"blur": [], "sharp": []}
    for name in names:
        if role := role_of(re.sub(r"\d+", " ", Path(name).stem)):
            sides[role[0]].append(name)
    keys = [{_stem_without_role(n): n for n in side} for side in sides.values()]
    return [(keys[0][k], keys[1][k]) for k in sorted(keys[0].keys() & keys[1].keys(), key=natural)]


def _stem(name: str) -> str:
    return Path(name).stem.casefold()


def _stem_without_role(name: str) -> str:
    words = "|".join(sorted(BLURRED | SHARP | NO_MEANING, key=len, reverse=True))
    return re.sub(rf"(?<![a-z])({words})(?![a-z])", "", Path(name).stem.lower()).strip("_- .")


def _last_number(name: str) -> str | None:
    numbers = re.findall(r"\d+", Path(name).stem)
    return str(int(numbers[-1])) if numbers else None


def natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(t), t) if t.isdecimal() else (1, 0, t.casefold()) for t in re.split(r"(\d+)", text) if t]


def settle_scenes(pairs: list[Pair]) -> list[Pair]:
    """Settle what a scene is, and which splits are official; in order of scene and name."""
    folders: dict[str, list[Pair]] = defaultdict(list)
    for p in pairs:
        folders[p.scene].append(p)
    settled: list[Pair] = []
    # RSBlur keeps each pair in a folder of its own, inside the folder of its scene.
    alone = len(folders) > 1 and all(len(m) == 1 and "/" in s for s, m in folders.items())
    for scene, members in folders.items():
        prefixes = {_prefix(p.name) for p in members}
        if alone:
            above, own = scene.rsplit("/", 1)
            settled.append(replace(members[0], scene=above, name=f"{own}_{members[0].name}"))
        elif len(prefixes) > 1 and all(w.lower() in SPLITS for w in scene.split("/") if w not in ("", ".")):
            # Many scenes in one folder: GOPR0372_07_00-000047.png
            settled += [
                replace(p, scene="/".join(x for x in (scene, _prefix(p.name)) if x not in ("", ".")))
                for p in members
            ]
        else:
            settled += members
    if len({p.scene for p in settled}) == 1:
        settled = [replace(p, scene=p.name, from_folder=False) for p in settled]
    if {p.split for p in settled} != {"train", "val"}:  # official only when both are there
        settled = [replace(p, split=None) for p in settled]
    return sorted(settled, key=lambda p: (natural(p.scene), natural(p.name), str(p.blur)))


def _prefix(name: str) -> str:
    return re.sub(r"[\W_]*\d+\D*$", "", name)


def report(left_out: Iterable[tuple[str, str]], most: int = 3) -> list[str]:
    """Lines for a person: what was left out and why, most frequent reason first."""
    by_why: dict[str, list[str]] = defaultdict(list)
    for what, why in left_out:
        by_why[why].append(what)
    return [
        f"left out {len(places)}x, {why}: {', '.join(places[:most])}{', ...' if len(places) > most else ''}"
        for why, places in sorted(by_why.items(), key=lambda x: -len(x[1]))
    ]
