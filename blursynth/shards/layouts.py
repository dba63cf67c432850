"""How finished pairs lie on disk: which folders, files and lists are blurred, which sharp, and what belongs together.

Known by the words that name the two sides, at any level of the path and in any case, and by the twin being there:
``SCENE/{blur,sharp}`` (GoPro; ``blur_gamma`` when asked for), ``{input,target}``, ``{lq,gt}``, ``{blur,gt}`` with
``blur_1``/``gt_1`` (RealBlur), ``train_blur``/``train_sharp`` (REDS), ``SCENE/{Blur,Sharp}/RGB`` (BSD), ``{gt,blur}/SCENE``
(DVD, REDS4), ``SCENE/N/{real_blur,gt}``, both sides in one folder (``a_blur.png``, ``a_sharp.png``) and lists of two paths a line (RSBlur, RealBlur). No picture is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from blursynth.common.errors import UserError
from blursynth.shards.partners import (
    PICTURES,
    SPLITS,
    Pair,
    PairSet,
    Split,
    both_in_one,
    match_names,
    settle_scenes,
)
from blursynth.shards.sides import VARIANTS, Side, folders_in, role_of, siblings, twin_of


class LayoutError(UserError):
    """No pairs where some were looked for; the message says what was found."""


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
    found.pairs = settle_scenes(found.pairs)
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
    for rest in sorted(sides[1].keys() - sides[0].keys()):  # a set has another order in each process
        found.left_out += [(str(sharp / rest / n), "has no blurred partner") for n in sides[1][rest]]
    if not found.pairs:
        raise LayoutError(f"{blur} and {sharp}: no two pictures with one name or number")
    found.pairs = settle_scenes(found.pairs)
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
    for rel in sorted(holding.keys() - taken):
        if together := both_in_one(holding[rel]):
            split = next((SPLITS[w.lower()] for w in rel.parts if w.lower() in SPLITS), None)
            for a, b in together:
                found.pairs.append(Pair(root / rel / a, root / rel / b, rel.as_posix(), Path(a).stem, split))
            matched = {n for pair in together for n in pair}
            found.left_out += [
                (str(root / rel / n), "has no partner") for n in holding[rel] if n not in matched
            ]
            continue
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
    """Pair the files of two folders, and name what stays alone."""
    if sharps and blur.samefile(sharp):
        raise LayoutError(f"{blur}: would be measured against itself")
    pairs = match_names(blurred, sharps)
    found.pairs += [Pair(blur / a, sharp / b, scene, Path(a).stem, split) for a, b in pairs]
    matched = {n for pair in pairs for n in pair}
    found.left_out += [(str(blur / n), "has no sharp partner") for n in blurred if n not in matched]
    found.left_out += [(str(sharp / n), "has no blurred partner") for n in sharps if n not in matched]


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


def _nothing(root: Path, found: PairSet) -> str:
    if found.left_out:
        what, why = found.left_out[0]
        return f"{root}: no pairs; {len(found.left_out)} left out, the first: {what}: {why}"
    known = "SCENE/{blur,sharp}, {input,target}, {lq,gt}, {blur,gt}, train_blur/train_sharp, {Blur,Sharp}/RGB, lists"
    return f"{root}: no pairs in a layout that is known ({known}); give --blur DIR --sharp DIR"
