"""Which side of a pair a folder stands for, by its name and its twin: blurred or sharp."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

BLURRED = frozenset({"blur", "blurry", "blurred", "input", "inputs", "lq"})
SHARP = frozenset({"sharp", "gt", "target", "targets", "groundtruth", "hq"})
VARIANTS = frozenset({"gamma", "bicubic", "comp", "jpeg", "x4"})
"""Words of other versions of a blurred folder: ``blur_gamma`` of GoPro, ``train_blur_comp`` of REDS."""
NO_MEANING = frozenset({"real", "img", "images", "image"})

Role = Literal["blur", "sharp"]
Side = tuple[Role, frozenset[str]]


def role_of(name: str) -> Side | None:
    """What side a folder's name stands for, and its other words: ``train_GT_blurred`` is ("blur", {"train"})."""
    words = set(re.split(r"[\W_]+", re.sub(r"ground[ _-]?truth", "groundtruth", name.lower()))) - {""}
    if words & BLURRED:
        return "blur", frozenset(words - BLURRED - SHARP - NO_MEANING)
    if words & SHARP:
        return "sharp", frozenset(words - SHARP - NO_MEANING)
    return None


def twin_of(path: Path) -> Path | None:
    """The other side of a folder of pictures, or of a film, that is one side of finished pairs; None for anything else."""
    for at in range(len(path.parts) - 1, 0, -1):
        if (mine := role_of(path.parts[at])) is None:
            continue
        above, rest = Path(*path.parts[:at]), path.parts[at + 1 :]
        for other in siblings(above, path.parts[at], mine, loose=True):
            if (there := Path(above, other, *rest)).exists() and not there.samefile(path):
                return there
    return None


def siblings(above: Path, name: str, mine: Side, loose: bool = False) -> list[str]:
    """Folders beside ``name`` that are the other side of it; ``loose``: of another version too."""
    found = []
    for other in folders_in(above):
        its = role_of(other) if other != name else None
        if its is not None and its[0] != mine[0]:
            same = its[1] == mine[1] or (loose and its[1] - VARIANTS == mine[1] - VARIANTS)
            if same or (not its[1] and mine[1] <= VARIANTS) or (loose and not mine[1] and its[1] <= VARIANTS):
                found.append(other)
    return found


def folders_in(above: Path) -> list[str]:
    try:
        return sorted(e.name for e in os.scandir(above) if not e.name.startswith(".") and e.is_dir())
    except OSError:
        return []
