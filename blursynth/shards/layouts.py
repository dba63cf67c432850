"""How finished pairs lie on disk: which folders, files and lists are blurred, which sharp, and what belongs together.

Known by the words that name the two sides, at any level of the path and in any case, and by the twin being there:
``SCENE/{blur,sharp}`` (GoPro; ``blur_gamma`` when asked for), ``{input,target}``, ``{lq,gt}``, ``{blur,gt}`` with
``blur_1``/``gt_1`` (RealBlur), ``train_blur``/``train_sharp`` (REDS), ``SCENE/{Blur,Sharp}/RGB`` (BSD), ``{gt,blur}/SCENE``
(DVD, REDS4), ``SCENE/N/{real_blur,gt}`` and lists of two paths a line (RSBlur, RealBlur). No picture is opened here.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from blursynth.common.errors import UserError
from blursynth.shards.sides import (
    BLURRED,
    NO_MEANING,
    SHARP,
    VARIANTS,
    Side,
    folders_in,
    role_of,
    siblings,
    twin_of,
)

Split = Literal["train", "val"]
SPLITS: dict[str, Split] = {"train": "train", "training": "train"}
SPLITS.update(dict.fromkeys(("test", "testing", "val", "valid", "validation"), "val"))
PICTURES = frozenset({".png", ".webp", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


class LayoutError(UserError):
    """No pairs where some were looked for; the message says what was found."""


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


def find_pairs(root: str | Path, gamma: bool = False) -> PairSet:
    """All pairs below a folder, or of a list file. Raises LayoutError when there is none.

    Args:
        gamma: take GoPro's ``blur_gamma`` where both it and ``blur`` are there.
    """
    root = Path(root)
    if not root.exists():
        raise LayoutError(f"{root}: no such folder; check the path")
    found = PairSet()
    lists = [root] if root.is_file() else [p for p in sorted(root.rglob("*.txt")) if "_syn" not in p.stem]
    for path in lists:
        _from_list(path, root, found)
    if root.is_dir() and not found.pairs:
        found.left_out.clear()
        _from_folders(root, gamma, found)
    if not found.pairs:
        raise LayoutError(_nothing(root, found))
    found.pairs = _scenes(found.pairs)
    return found


def match_folders(blur: str | Path, sharp: str | Path) -> PairSet:
    """Pairs of two given folders, sub-folders included. Raises LayoutError when there is none."""
    blur, sharp = Path(blur), Path(sharp)
    for folder in (blur, sharp):
        if not folder.is_dir():
            raise LayoutError(f"{folder}: no such folder; check the path")
    if blur.samefile(sharp):
        raise LayoutError(f"{blur}: is given as both the blurred and the sharp side; give two folders")
    found = PairSet()
    sides = [dict(_picture_folders(f)) for f in (blur, sharp)]
    for rest, names in sides[0].items():
        _match(blur / rest, names, sharp / rest, sides[1].get(rest, []), rest.as_posix(), None, found)
    for rest in sides[1].keys() - sides[0].keys():
        found.left_out += [(str(sharp / rest / n), "has no blurred partner") for n in sides[1][rest]]
    if not found.pairs:
        raise LayoutError(f"{blur} and {sharp}: no two pictures with one name or number")
    found.pairs = _scenes(found.pairs)
    return found


def _picture_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders, relative to ``root``, that hold pictures, and these pictures' names."""
    for folder, dirs, files in os.walk(root, followlinks=True):
        dirs[:] = sorted(d for d in dirs if not d.startswith((".", "@")))
        names = [n for n in sorted(files) if Path(n).suffix.lower() in PICTURES and not n.startswith(".")]
        if names:
            yield Path(folder).relative_to(root), names


def _from_folders(root: Path, gamma: bool, found: PairSet) -> None:
    holding = dict(_picture_folders(root))
    taken: set[Path] = set()
    for rel in holding:
        for at in range(len(rel.parts) - 1, -1, -1):
            mine = role_of(rel.parts[at])
            if mine is None or mine[0] != "blur":
                continue
            above, rest = Path(*rel.parts[:at]), rel.parts[at + 1 :]
            names = [
                n
                for n in siblings(root / above, rel.parts[at], mine, loose=bool(mine[1] & VARIANTS))
                if Path(above, n, *rest) in holding
            ]
            if not names:
                continue
            if why := _not_asked_for(root / above, mine, gamma):
                found.left_out.append((str(root / rel), why))
                taken.add(rel)
                break
            twin = Path(above, names[0], *rest)
            words = [*above.parts, *sorted(mine[1] - VARIANTS), *(p for p in rest if p.lower() != "rgb")]
            split = next((SPLITS[w.lower()] for w in words if w.lower() in SPLITS), None)
            scene = "/".join(words)
            _match(root / rel, holding[rel], root / twin, holding[twin], scene, split, found)
            taken |= {rel, twin}
            break
    for rel in holding.keys() - taken:
        if rel.parts and any(role_of(p) for p in rel.parts) and twin_of((root / rel).absolute()) is None:
            found.left_out.append((str(root / rel), "has no twin beside it"))


def _not_asked_for(above: Path, mine: Side, gamma: bool) -> str | None:
    """Of ``blur`` and ``blur_gamma`` side by side one is taken; of REDS' compressed and small versions none is."""
    version = mine[1] & VARIANTS
    if version == {"gamma"}:
        return None if gamma else "is another version of the blurred side; --gamma takes it"
    if version:
        return "is another version of the blurred side"
    versions = {role_of(n) for n in folders_in(above)}
    return (
        "--gamma takes the version beside it" if gamma and ("blur", mine[1] | {"gamma"}) in versions else None
    )


def _match(
    blur: Path,
    blurred: list[str],
    sharp: Path,
    sharps: list[str],
    scene: str,
    split: Split | None,
    found: PairSet,
) -> None:
    """Pair the files of two folders: by name, by name without the word for the side, or by their last number alone."""
    if sharps and blur.samefile(sharp):
        raise LayoutError(f"{blur}: would be measured against itself")
    left = (list(blurred), list(sharps))
    for key in (_stem, _stem_without_role, _last_number):
        tables = []
        for names in left:
            count = Counter(map(key, names))
            tables.append({key(n): n for n in names if key(n) is not None and count[key(n)] == 1})
        for k in sorted(tables[0].keys() & tables[1].keys(), key=lambda k: _natural(k or "")):
            a, b = tables[0][k], tables[1][k]
            found.pairs.append(Pair(blur / a, sharp / b, scene, Path(a).stem, split))
            left[0].remove(a)
            left[1].remove(b)
    found.left_out += [(str(blur / n), "has no sharp partner") for n in left[0]]
    found.left_out += [(str(sharp / n), "has no blurred partner") for n in left[1]]


def _stem(name: str) -> str | None:
    return Path(name).stem.casefold()


def _stem_without_role(name: str) -> str | None:
    words = "|".join(sorted(BLURRED | SHARP | NO_MEANING, key=len, reverse=True))
    return re.sub(rf"(?<![a-z])({words})(?![a-z])", "", Path(name).stem.lower()).strip("_- .")


def _last_number(name: str) -> str | None:
    numbers = re.findall(r"\d+", Path(name).stem)
    return str(int(numbers[-1])) if numbers else None


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(t), t) if t.isdecimal() else (1, 0, t.casefold()) for t in re.split(r"(\d+)", text) if t]


def _from_list(path: Path, root: Path, found: PairSet) -> None:
    """A text file whose lines name a sharp and a blurred picture, in either order; more words in a line are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    named = [
        w
        for w in ([p for p in line.split() if Path(p).suffix.lower() in PICTURES] for line in lines)
        if len(w) >= 2
    ]
    bases = [root, root.parent, path.parent, *path.parent.parents[:3]] if named else []
    base = next((b for b in bases for w in named[:50] if (b / w[0]).is_file() and (b / w[1]).is_file()), None)
    if base is None:
        return
    split = next((SPLITS[w] for w in re.split(r"[\W_]+", path.stem.lower()) if w in SPLITS), None)
    have = {(p.blur, p.sharp) for p in found.pairs}
    for words in named:
        sides: dict[str, str] = {}
        for w in words[:2]:
            role = next(
                (
                    r[0]
                    for part in reversed(Path(w).with_suffix("").parts)
                    if (r := role_of(re.sub(r"\d+", " ", part)))
                ),
                None,
            )
            sides.setdefault(role or "", w)
        if set(sides) != {"blur", "sharp"}:
            found.left_out.append(
                (f"{path}: {' '.join(words[:2])}", "cannot tell which is blurred and which sharp")
            )
            continue
        blur, sharp = base / sides["blur"], base / sides["sharp"]
        if not (blur.is_file() and sharp.is_file()):
            found.left_out.append(
                (str(sharp if blur.is_file() else blur), f"stands in {path.name} and is not there")
            )
        elif (blur, sharp) not in have:
            scene = "/".join(p for p in Path(sides["blur"]).parent.parts if role_of(p) is None)
            found.pairs.append(Pair(blur, sharp, scene, blur.stem, split))


def _scenes(pairs: list[Pair]) -> list[Pair]:
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
    return sorted(settled, key=lambda p: (_natural(p.scene), _natural(p.name), str(p.blur)))


def _prefix(name: str) -> str:
    return re.sub(r"[\W_]*\d+\D*$", "", name)


def _nothing(root: Path, found: PairSet) -> str:
    if found.left_out:
        what, why = found.left_out[0]
        return f"{root}: no pairs; {len(found.left_out)} left out, the first: {what}: {why}"
    known = "SCENE/{blur,sharp}, {input,target}, {lq,gt}, {blur,gt}, train_blur/train_sharp, {Blur,Sharp}/RGB, lists"
    return f"{root}: no pairs in a layout that is known ({known}); give --blur DIR --sharp DIR"


def report(left_out: Iterable[tuple[str, str]], most: int = 3) -> list[str]:
    """Lines for a person: what was left out and why, most frequent reason first."""
    by_why: dict[str, list[str]] = defaultdict(list)
    for what, why in left_out:
        by_why[why].append(what)
    return [
        f"left out {len(places)}x, {why}: {', '.join(places[:most])}{', ...' if len(places) > most else ''}"
        for why, places in sorted(by_why.items(), key=lambda x: -len(x[1]))
    ]
