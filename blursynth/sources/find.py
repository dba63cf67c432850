"""Clips out of what ``--src`` points at: files, folders, known data sets.

Every video file and every folder of frames below a source ends up as a Clip or as a counted Reject.
"""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from blursynth.common.errors import UsageError
from blursynth.common.text import counted
from blursynth.shards.partners import both_in_one
from blursynth.shards.shard import shard_of
from blursynth.shards.sides import role_of, twin_of
from blursynth.shards.store import is_url, local_path
from blursynth.sources.formats import VIDEOS, small_copy, unread
from blursynth.sources.manifest import Manifest, Split, load_manifest
from blursynth.video.clip import ClipError, ClipInfo, probe_clip, probe_still
from blursynth.video.takes import SUFFIXES as PICTURES
from blursynth.video.takes import folder_order

MIN_FRAMES = 3  # a blur needs two intervals
Holds = Literal["video", "frames", "still"]
PAIRS = ("pairs", "not-high-rate")
"""Reasons why something that is there is not film: finished pairs, and data sets' strided frames."""


class SourceError(UsageError, ValueError):
    """Nothing usable in what ``--src`` names; the message says what was found there."""


@dataclass(frozen=True)
class Clip:
    """One film or still: what is exposed, and the unit that splits are made of."""

    name: str  # the clip's own name: folder or file stem
    dataset: str | None  # id in data_manifest.json
    rel: str  # path relative to its --src, with the --src's own name in front where several collide
    split: Split | None  # official split where the layout has one
    info: ClipInfo
    window_hint: int | None = None  # frames a blur where the folder's name says so (GoPro's GOPRxxxx_yy_zz)


@dataclass(frozen=True)
class Reject:
    """Something that looked like a clip and is not used."""

    what: str  # its path
    reason: str  # a few fixed words, for counting: "unreadable", "not-high-rate", "too-short"...
    detail: str  # one line: what is wrong and what to do


def find_clips(
    srcs: Sequence[str | Path], fps: float | None = None, deinterlace: bool = False, stills: bool = False
) -> tuple[list[Clip], list[Reject]]:
    """All clips below the sources, ordered by ``rel``, and what was rejected.

    ``srcs`` are videos, folders of videos or frames, roots of known data sets, globs. ``fps`` is the rate of frame folders of unknown origin and of files that do not say theirs. Interlaced film is
    rejected unless ``deinterlace`` makes frames of its fields. ``stills``: each picture is a clip of its own, and
    videos are rejected. Raises SourceError when a source does not exist or when nothing at all is usable.
    """
    manifest = load_manifest()
    clips: list[tuple[Clip, Path]] = []
    rejects: list[Reject] = []
    seen: set[str] = set()
    other: Counter[str] = Counter()
    if not srcs:
        raise SourceError("no source given; name a video or a folder with --src")
    # Not resolve(): a link keeps its own name.
    roots = [Path(os.path.abspath(Path(p).expanduser())) for s in srcs for p in expand_glob(str(s))]  # noqa: PTH100
    beside: defaultdict[Path, set[str]] = defaultdict(set)
    for root in roots:
        beside[root.parent].add(root.name)
    for root in roots:
        if copy := small_copy(root, beside[root.parent]):  # films/* names both
            rejects += [Reject(*copy)] if Reject(*copy) not in rejects else []
            continue
        for path, holds in _candidates(root, stills, rejects, other):
            real = os.path.realpath(path)
            if real in seen:
                rejects.append(Reject(str(path), "same-path", f"{path}: given or linked twice; used once"))
                continue
            seen.add(real)
            found = _clip(path, root, holds, manifest, fps, deinterlace)
            if isinstance(found, Clip):
                clips.append((found, root))
                if found.info.films > 1:
                    detail = f"{path}: holds {found.info.films} video streams; the first is used"
                    rejects.append(Reject(f"{path} (second stream)", "second-stream", detail))
            else:
                rejects.append(found)
    if not clips:
        # There was something, and the command was right: what is there is no film.
        raise SourceError(_nothing(srcs, rejects, other), 1 if any(r.reason in PAIRS for r in rejects) else 2)
    return sorted(_distinct(clips), key=lambda c: c.rel), rejects


def expand_glob(path: str) -> list[str]:
    """The files and folders that a pattern names, in order; any other path as it is. Raises SourceError for none,
    and for a URL."""
    if is_url(path := local_path(path)):
        raise SourceError(f"{path}: sources are read from this machine only; copy them to a folder first")
    if not glob.has_magic(path) or Path(path).expanduser().exists():
        return [path]
    found = sorted(glob.glob(str(Path(path).expanduser()), recursive=True))  # noqa: PTH207  # absolute patterns too
    if not found:
        raise SourceError(f"{path}: matches no file; check the pattern")
    return found


def _candidates(
    root: Path, stills: bool, rejects: list[Reject], other: Counter[str]
) -> Iterator[tuple[Path, Holds]]:
    """Video files and folders that hold pictures, or, of ``stills``, each picture; in a fixed order."""
    if not root.exists():
        raise SourceError(f"{root}: no such file or folder; check the path")
    if not root.is_dir():
        if stills:
            yield root, "still"
            return
        if root.suffix.lower() in PICTURES:
            raise SourceError(
                f"{root}: is a single picture; give a video or a folder of frames, or add --stills to make pairs from photos"
            )
        yield root, "video"
        return

    def refuse(e: OSError) -> None:
        rejects.append(
            Reject(str(e.filename), "unreadable", f"{e.filename}: cannot be listed ({e.strerror})")
        )

    walked: set[str] = set()
    for folder, dirs, files in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(folder)
        real = os.path.realpath(folder)
        if real in walked:  # a link in a circle
            dirs.clear()
            continue
        walked.add(real)
        if is_output(here):
            dirs.clear()
            below = (f for _, _, names in os.walk(folder) for f in names)
            if here == root or any(Path(f).suffix.lower() in (PICTURES if stills else VIDEOS) for f in below):
                detail = f"{here}: holds shards that blursynth made, so nothing in it is taken for film"
                todo = "give the shards a folder of their own"
                rejects.append(Reject(folder, "output", f"{detail}; {todo}"))
            continue
        # "@eaDir": the thumbnails of a network drive.
        dirs[:] = sorted(d for d in dirs if not d.startswith((".", "@", "__MACOSX")))
        names = sorted(f for f in files if not f.startswith("."))
        videos = [n for n in names if Path(n).suffix.lower() in VIDEOS]
        pictures = [n for n in names if Path(n).suffix.lower() in PICTURES]
        rest = [n for n in names if n not in videos and n not in pictures]
        other.update(Path(n).suffix.lower() or n for n in rest)
        rejects += [Reject(*told) for told in unread(here, rest, set(names))]
        if stills:
            rejects += [
                Reject(str(here / n), "not-a-still", f"{here / n}: a video; make it without --stills")
                for n in videos
            ]
            together = both_in_one(pictures)
            if together:
                detail = f"{here}: {len(together)} blurred sides of finished pairs ({together[0][0]} ...) are no source"
                rejects.append(Reject(folder, "pairs", detail))
                pictures = sorted(set(pictures) - {blurred for blurred, _ in together})
            if pictures and (twin := twin_of(here)) and _is_blurred(here, twin):
                detail = f"{here}: the blurred side of finished pairs (the sharp one is {twin}) is no source"
                rejects.append(Reject(folder, "pairs", detail))
                continue
            yield from ((here / n, "still") for n in pictures)
            continue
        for n in videos:
            yield here / n, "video"
        if pictures and videos:
            detail = f"{here}: {len(pictures)} pictures among {len(videos)} videos are not taken for frames"
            rejects.append(
                Reject(folder, "stray-pictures", f"{detail}; move frames to a folder of their own")
            )
        elif together := both_in_one(pictures):
            detail = f"{here}: finished pairs ({' and '.join(together[0])} ...), not film"
            rejects.append(
                Reject(folder, "pairs", f"{detail}; 'blursynth pack {root} --out DATA' makes shards of them")
            )
        elif pictures:
            if aside := folder_order(here).companions:
                detail = f"{here}: {len(aside)} pictures beside the frames ({aside[0]} ...) are not taken for frames"
                rejects.append(Reject(folder, "companion", detail))
            yield here, "frames"


def _is_blurred(side: Path, twin: Path) -> bool:
    """Whether one side of finished pairs is the blurred one, by the folder in which their paths differ."""
    role = next((role_of(a) for a, b in zip(side.parts, twin.parts) if a != b), None)
    return role is not None and role[0] == "blur"


def is_output(folder: Path) -> bool:
    """True for a folder that ``blursynth make`` writes to."""
    return (folder / "recipe.toml").is_file() and (
        (folder / "dataset.json").is_file() or any(shard_of(p.name) for p in folder.glob("*-*.*"))
    )


def _clip(
    path: Path,
    root: Path,
    holds: Holds,
    manifest: Manifest,
    fps: float | None,
    deinterlace: bool,
) -> Clip | Reject:
    if holds == "frames" and (trap := manifest.trap(path)):
        return Reject(str(path), "not-high-rate", f"{path}: {trap.why}; use {trap.use}")
    if holds != "still" and (twin := twin_of(path)):
        above = root if root in path.parents and root in twin.parents else os.path.commonpath([path, twin])
        return Reject(
            str(path),
            "pairs",
            f"{path}: one side of finished pairs (the other is {twin}), not film; 'blursynth pack {above} --out DATA' makes shards of them",
        )
    known = (
        manifest.recognise(path.parent.as_posix(), "frames")
        if holds == "still"
        else manifest.recognise(path.as_posix(), holds)
    )
    try:
        # The catalogue knows the rate of a known set's frames; a video file says its own.
        if holds == "still":
            info = probe_still(path)
        else:
            info = probe_clip(path, known[0].fps if known and holds == "frames" else fps, deinterlace)
    except ClipError as e:
        return Reject(str(path), e.kind, e.reason)
    if info.frames < MIN_FRAMES and holds != "still":
        return Reject(
            str(path),
            "too-short",
            f"{path}: {counted(info.frames, 'frame')}; a blur needs at least {MIN_FRAMES}",
        )
    name = path.name if holds == "frames" else path.stem
    rel = path.relative_to(root).as_posix() if path != root else path.name
    if known is None:
        return Clip(name, None, rel, None, info)
    dataset, match, layout = known
    groups = match.groupdict()
    split = layout.splits.get(groups.get("split") or "")
    window = groups.get("window")
    return Clip(name, dataset.id, rel, split, info, int(window) if window else None)


def _distinct(clips: list[tuple[Clip, Path]]) -> list[Clip]:
    """Make ``rel`` unique by putting the source's own name, then more of its path, in front."""
    rels = [c.rel for c, _ in clips]
    for depth in range(1, 64):
        counts = Counter(rels)
        if max(counts.values()) == 1:
            break
        for i, (clip, root) in enumerate(clips):
            if counts[rels[i]] > 1:
                base = root if Path(clip.info.path) != root else root.parent
                rels[i] = "/".join([*base.parts[1:][-depth:], clip.rel])
    return [replace(c, rel=r) for (c, _), r in zip(clips, rels)]


def _nothing(srcs: Sequence[str | Path], rejects: list[Reject], other: Counter[str]) -> str:
    where = ", ".join(str(s) for s in srcs)
    if len(rejects) == 1:
        return rejects[0].detail
    if rejects:
        counts = ", ".join(f"{n} {r}" for r, n in Counter(r.reason for r in rejects).most_common())
        return f"{where}: no usable clip; rejected: {counts}. First: {rejects[0].detail}"
    if other:
        kinds = ", ".join(f"{n} {s}" for s, n in other.most_common(5))
        return f"{where}: no video and no folder of frames in it (found {kinds}); give a video, a folder or a known set"
    return f"{where}: is empty; give a video, a folder of videos or frames, or a known data set's root"
