"""The sha256 of every source, so that a sample can be traced and a copied clip cannot stand in two splits."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UserError
from blursynth.shards.shard import dump_json
from blursynth.sources.find import Clip, Reject
from blursynth.sources.splits import clip_sha256


@dataclass
class Fingerprints:
    """Keyed by ``Clip.rel``."""

    sha256: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


def fingerprint(clips: Sequence[Clip], cache: Path | None = None) -> tuple[list[Clip], Fingerprints]:
    """Hash every clip; drop those that cannot be read and those that are copies of another.

    Args:
        cache: file that remembers hashes by path and stamp, so that resuming does not read all sources again.
    """
    known = _load(cache)
    found = Fingerprints()
    kept: list[Clip] = []
    first: dict[str, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets go of the interpreter lock
        for clip, (sha, stamp, why) in zip(clips, pool.map(lambda c: _hash(c, known), clips)):
            if sha is None or stamp is None:
                found.rejects.append(Reject(clip.rel, "unreadable", why))
                continue
            if sha in first:
                found.rejects.append(Reject(clip.rel, "copy", f"the same bytes as {first[sha]}"))
                continue
            first[sha] = clip.rel
            found.sha256[clip.rel], found.stamps[clip.rel] = sha, stamp
            kept.append(clip)
    if cache is not None:
        paths = {c.rel: c.info.path for c in kept}
        rows = {
            paths[r]: {"stamp": list(found.stamps[r]), "sha256": s} for r, s in sorted(found.sha256.items())
        }
        write_atomic(cache, dump_json(rows))
    return kept, found


def _hash(
    clip: Clip, known: dict[str, tuple[tuple[int, ...], str]]
) -> tuple[str | None, tuple[int, ...] | None, str]:
    try:
        stamp = source_stamp(clip.info.path)  # before the bytes: a later change then shows
        if clip.info.path in known and known[clip.info.path][0] == stamp:
            return known[clip.info.path][1], stamp, ""
        return clip_sha256(clip.info), stamp, ""
    except OSError as e:
        return None, None, f"{clip.info.path}: {e.strerror or e}"


def _load(cache: Path | None) -> dict[str, tuple[tuple[int, ...], str]]:
    if cache is None:
        return {}
    try:
        rows = json.loads(cache.read_bytes())
        return {path: (tuple(row["stamp"]), row["sha256"]) for path, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # a cache may always be lost


class SourceChanged(UserError):
    """A source that is gone or is no longer what the plan was made from."""


def source_stamp(path: str) -> tuple[int, ...]:
    """Cheap identity of a file (size, mtime) or a folder of frames (files, bytes, newest mtime). Raises OSError."""
    if not Path(path).is_dir():
        st = Path(path).stat()
        return st.st_size, st.st_mtime_ns
    stats = [e.stat() for e in os.scandir(path) if e.is_file()]
    return len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def check_source(path: str, stamp: tuple[int, ...] | None) -> None:
    """Raises SourceChanged when the source is gone, or differs from what the plan hashed (its ``stamp`` then)."""
    try:
        now = source_stamp(path)
    except OSError as e:
        raise SourceChanged(
            f"{path}: {e.strerror}; bring it back, then run again with --retry-failed"
        ) from None
    if stamp is not None and now != stamp:
        raise SourceChanged(
            f"{path}: changed during the run; let it settle, then run again with --retry-failed"
        )
