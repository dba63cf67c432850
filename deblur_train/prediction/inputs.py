"""What ``predict`` is given: files, folders and globs, told apart into pictures and videos, each with its place in the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from deblur_train.media.pictures import CONVERT, ImageError, files_below, is_file, is_hidden
from deblur_train.media.pictures import EXTENSIONS as IMAGES
from deblur_train.media.video_in import EXTENSIONS as VIDEOS

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Input:
    path: Path
    below: Path  # its place below the output folder
    kind: Kind


@dataclass(frozen=True)
class Inputs:
    found: list[Input]
    notes: list[str] = field(default_factory=list)  # what was left out, in words


def find_inputs(given: list[str], out: Path | None = None) -> Inputs:
    """Every picture and video of ``given``. Raises ImageError when one of them is not there or holds none.

    A folder or a glob keeps its structure below the output folder; files of other kinds in it are counted in a note. A
    file named by itself is taken for a picture unless its extension says video. What lies in ``out`` is no input.
    """
    found: list[Input] = []
    notes: list[str] = []
    for word in given:
        path = Path(word)
        if path.is_dir():
            found += _take(_files(path, out, notes), path, f"{path}: no image or video in this folder", notes)
        elif path.is_file():
            found.append(Input(path, Path(path.name), kind_of(path) or "image"))
        elif has_magic(word):
            root = _fixed_part(path)
            # Not Path.glob: it takes no absolute pattern.
            matches = [Path(m) for m in sorted(glob(word, recursive=True))]  # noqa: PTH207
            asked = is_hidden(path.parent.relative_to(root))  # the pattern names a hidden folder
            named = [m for m in matches if not is_hidden(Path(m.name) if asked else m.relative_to(root))]
            files = [
                f for m in named for f in (_files(m, out, notes) if m.is_dir() else [m] if is_file(m) else [])
            ]
            found += _take(dict.fromkeys(files), root, f"{word}: no image or video matches", notes)
        else:
            raise ImageError(f"{path}: no such file or folder")
    return Inputs(found, notes)


def kind_of(path: Path) -> Kind | None:
    extension = path.suffix.lower()
    return "image" if extension in IMAGES else "video" if extension in VIDEOS else None


def _files(folder: Path, out: Path | None, notes: list[str]) -> Iterator[Path]:
    """Files in it, subfolders included; not the hidden ones, nor earlier results. A link that leads nowhere is one: it
    fails by name."""
    inner = out is not None and out.resolve() != folder.resolve() and out.resolve()
    for p in files_below(folder, lambda e: notes.append(f"{e.filename}: cannot be listed: {e.strerror}")):
        if not (inner and p.exists() and p.resolve().is_relative_to(inner)):
            yield p


def _fixed_part(pattern: Path) -> Path:
    parts = pattern.parts
    magic = next(i for i, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:magic]) if magic < len(parts) - 1 else pattern.parent


def _take(files: Iterable[Path], root: Path, empty: str, notes: list[str]) -> list[Input]:
    taken, others = [], Counter[str]()
    for p in files:
        kind = kind_of(p)
        if kind is None:
            others[p.suffix.lower() or "no extension"] += 1
        else:
            taken.append(Input(p, p.relative_to(root), kind))
    if not taken:
        more = f"; it holds {_words(others)}" if others else ""
        raise ImageError(f"{empty}{more} (known: {' '.join(IMAGES)} {' '.join(VIDEOS)})")
    convert = {name: n for name, n in others.items() if name in CONVERT}
    if convert:
        notes.append(f"{root}: left out {_words(Counter(convert))}: not supported; convert to PNG")
    others -= Counter(convert)
    if others:
        notes.append(f"{root}: left out {_words(others)}: neither image nor video")
    return taken


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.most_common(5))
