"""Which clips train and which validate; and the hash of a clip's content, by which copies are found."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from blursynth.shards.shard import file_sha256
from blursynth.sources.find import Clip
from blursynth.video.clip import ClipInfo
from blursynth.video.takes import frame_files


def assign_splits(
    clips: Sequence[Clip], val_fraction: float, seed: int
) -> dict[str, Literal["train", "val"]]:
    """Split of every clip, keyed by ``rel``; a clip is never divided.

    Official test and val clips go to val, official train clips to train; where no clip is officially test or
    val, official train clips are drawn from like any other. The rest is ranked by a hash of (seed, rel), and the
    first ``val_fraction`` goes to val: with two clips or more at least one, and never all. Files of equal content
    under different names stay together, on the val side when one of them is official there.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be at least 0 and below 1, got {val_fraction}")
    held_out = any(c.split in ("test", "val") for c in clips)
    out: dict[str, Literal["train", "val"]] = {}
    free: list[list[Clip]] = []
    for group in _same_content(clips):
        splits = {c.split for c in group}
        if splits & {"test", "val"}:
            out.update((c.rel, "val") for c in group)
        elif held_out and "train" in splits:
            out.update((c.rel, "train") for c in group)
        else:
            free.append(group)

    def rank(group: list[Clip]) -> str:
        return hashlib.sha256(
            f"{seed}:{min(c.rel for c in group)}".encode(errors="surrogateescape")
        ).hexdigest()

    free.sort(key=rank)
    wanted = round(val_fraction * len(free))
    if val_fraction > 0 and len(free) >= 2:
        wanted = min(max(wanted, 1), len(free) - 1)
    else:
        wanted = 0
    for n, group in enumerate(free):
        out.update((c.rel, "val" if n < wanted else "train") for c in group)
    return out


def _same_content(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Groups of clips whose bytes are equal. Only what agrees in shape, size and both ends is hashed whole."""

    def refine(groups: list[list[Clip]], key: Callable[[ClipInfo], object]) -> list[list[Clip]]:
        out: list[list[Clip]] = []
        for group in groups:
            if len(group) == 1:
                out.append(group)
                continue
            parts: dict[object, list[Clip]] = defaultdict(list)
            for c in group:
                try:
                    parts[key(c.info)].append(c)
                except OSError:  # gone since it was probed: its task will report it
                    parts[c.rel].append(c)
            out.extend(parts.values())
        return out

    ordered = sorted(clips, key=lambda c: c.rel)
    groups = refine([ordered] if ordered else [], lambda i: (i.kind, i.frames, i.width, i.height))
    return refine(refine(refine(groups, _size), _ends), clip_sha256)


def _files(info: ClipInfo) -> list[Path]:
    return frame_files(info.path) if info.kind == "frames" else [Path(info.path)]


def _size(info: ClipInfo) -> int:
    return sum(f.stat().st_size for f in _files(info))


def _ends(info: ClipInfo, edge: int = 1 << 16) -> str:
    files = _files(info)
    h = hashlib.sha256()
    for file in (files[0], files[-1]):
        with file.open("rb") as f:
            h.update(f.read(edge))
            f.seek(max(0, file.stat().st_size - edge))
            h.update(f.read(edge))
    return h.hexdigest()


def clip_sha256(info: ClipInfo) -> str:
    """sha256 of the file's bytes; of a folder: of the sorted lines ``name NUL sha256-of-file LF``. Raises OSError."""
    if info.kind != "frames":
        return file_sha256(Path(info.path))
    h = hashlib.sha256()
    for file in sorted(frame_files(info.path), key=lambda f: f.name):
        h.update(f"{file.name}\0{file_sha256(file)}\n".encode(errors="surrogateescape"))
    return h.hexdigest()
