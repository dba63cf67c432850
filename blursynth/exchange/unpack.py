"""``unpack``: shards into the folders, or the LMDB, that other deblurring codes read. The members' bytes, not re-encoded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from blursynth.checks.shard_check import REMEDY
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.atomic import part_name, part_of
from blursynth.common.errors import UsageError
from blursynth.common.text import counted
from blursynth.exchange.lmdb import PairsLmdb
from blursynth.exchange.places import Places
from blursynth.shards.schema import FORMATS
from blursynth.shards.shard import ShardError, file_sha256, read_shard, read_sidecar, tar_matches
from blursynth.shards.store import is_url, local_path

Layout = Literal["nafnet", "basicsr", "gopro"]
FOLDERS: dict[str, tuple[str, str]] = {
    "nafnet": ("input", "target"),
    "basicsr": ("lq", "gt"),
    "gopro": ("blur", "sharp"),
}
"""Layout -> the names of its blurred and its sharp side."""


@dataclass
class UnpackReport:
    """``notes``: shards that the set lacks; ``pairs``: by split; ``folders``: what a training config names."""

    out: str
    layout: str
    lmdb: bool
    pairs: dict[str, int] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.notes else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {s}" for s, n in sorted(self.pairs.items()))
        lines = [
            f"{self.out}: {counted(sum(self.pairs.values()), 'pair')} ({parts}) for {self.layout}",
            *(f"  {f}" for f in self.folders),
            *(f"note: {n}" for n in self.notes),
        ]
        return "\n".join(lines)


def unpack(
    data: str | Path, out: str | Path, layout: Layout = "nafnet", *, lmdb: bool = False
) -> UnpackReport:
    """Write a set's pairs as ``nafnet`` (SPLIT/input, SPLIT/target), ``basicsr`` (SPLIT/lq, SPLIT/gt) or ``gopro``
    (SPLIT/CLIP/blur, SPLIT/CLIP/sharp, names in the order of time).

    A sample's JSON and its other members (flow, mask, linear) lie in folders of their own beside, so that a loader which
    counts files finds pairs only. ``out`` appears when all is written. Videos' samples that overlap keep apart. Each shard
    is first compared with its sidecar. Where shards are missing, what is there is written, and ``notes`` says so.

    Args:
        data: a folder of shards, or the URL of one.
        layout: which of the three. lmdb: one ``.lmdb`` a side instead of folders, as BasicSR writes and reads it (package ``lmdb``).

    Raises:
        UsageError: ``out`` holds something, or is a link. ShardError: a shard is damaged; nothing is left behind.
    """
    if layout not in FOLDERS:
        raise UsageError(f"--layout {layout}: known: {', '.join(FOLDERS)}")
    files = ShardFiles(data)
    if is_url(local_path(str(out))):
        raise UsageError(f"{out}: unpack writes to a folder of this machine")
    out = Path(local_path(str(out)))
    if out.is_symlink():
        raise UsageError(f"{out}: is a link; give the folder itself as --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is not an empty folder; give another --out")
    if out.parent.is_dir():
        for left in out.parent.iterdir():  # by a call that was killed
            if part_of(left.name) == out.name and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
    part = part_name(out)
    part.mkdir(parents=True)
    told = UnpackReport(str(out), layout, lmdb)
    try:
        told.notes, places = _missing(files), Places(layout)
        writer = _LmdbWriter(part, layout) if lmdb else _FolderWriter(part, layout)
        for split, sample in _samples(files):
            scene, name = places.of(split, sample)
            writer.add(split, scene, name, sample)
            told.pairs[split] = told.pairs.get(split, 0) + 1
        told.folders = [f.replace(str(part), str(out)) for f in writer.close()]
        if not told.pairs:
            raise ShardError(f"{files.label}: holds no sample")
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return told


def _missing(files: ShardFiles) -> list[str]:
    """Notes on shards that the set should have and has not."""
    shards, there = files.shards(), files.names
    with files.at_hand("dataset.json") as root:
        try:
            index = json.loads((root / "dataset.json").read_bytes())
            complete = index["complete"] is True
            listed = {s["file"] for split in index["splits"].values() for s in split["shards"]}
        except FileNotFoundError:  # it is written last, recipe.toml and sidecars before it
            complete = not there & {"recipe.toml", *(f"{s}.json" for s in shards)}
            listed = set()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            complete, listed = None, set()
    again = "run the same make or pack again to have all"
    if complete is None:
        notes = [f"dataset.json: cannot be read, so shards may be missing; {again}"]
    else:
        notes = [] if complete else [f"the run that wrote it has not finished; {again}"]
    for shard in shards:
        if f"{shard}.tar" not in there:
            with files.at_hand(f"{shard}.json") as root:
                if (read_sidecar(root / f"{shard}.json") or {}).get("samples"):
                    listed.add(f"{shard}.tar")
    gone = sorted(n for n in listed if isinstance(n, str) and n not in there)
    notes += [f"{_some(gone)}: not there; {REMEDY}"] if gone else []
    bare = [f"{s}.tar" for s in shards if f"{s}.json" not in there]
    if bare and "dataset.json" in there:
        notes.append(f"{_some(bare)}: not compared, for lack of a sidecar; {REMEDY}")
    if complete and "dataset.json" in there:
        strays = [t for s in shards if (t := f"{s}.tar") in there and t not in {*listed, *bare}]
        notes += (
            [f"{_some(strays)}: in no list of dataset.json; remove what is of another set"] if strays else []
        )
    return [f"{files.label}: {n}" for n in notes]


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if names[3:] else ''}"


def _samples(files: ShardFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, members by extension) of every sample, in the order of the shards. Raises ShardError."""
    for shard in files.shards():
        if f"{shard}.tar" in files.names:
            with files.at_hand(f"{shard}.json", f"{shard}.tar") as root:
                _check(root / f"{shard}.tar")
                for sample in read_shard(root / f"{shard}.tar"):
                    yield shard.partition("-")[0], sample


def _check(tar: Path) -> None:
    """Raises ShardError where a tar is not what its sidecar says."""
    side = read_sidecar(tar.with_suffix(".json"))
    if side and side.get("shard") != tar.name:
        raise ShardError(f"{tar}: its sidecar is that of {side.get('shard')}; give both their names back")
    if side and not (tar_matches(tar, side) and file_sha256(tar) == side.get("sha256")):
        raise ShardError(f"{tar}: is not what its sidecar says: the bytes have changed; remove it; {REMEDY}")


def _picture(sample: dict[str, Any], role: str) -> tuple[str, bytes]:
    for ext in FORMATS:
        if f"{role}.{ext}" in sample:
            return ext, sample[f"{role}.{ext}"]
    raise ShardError(f"{sample['__key__']}: lacks its {role} picture")


def _put(path: Path, data: bytes) -> None:
    """Raises ShardError rather than write over another sample's file, as on a disk where A and a are one name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as f:
            f.write(data)
    except FileExistsError:
        raise ShardError(f"{path.name}: two files of the set have this name in {path.parent.name}") from None


def _put_others(base: Path, name: str, sample: dict[str, Any], sides: tuple[str, str]) -> None:
    """All but the two pictures, each kind in a folder of its own: json, flow, mask, linear. Raises ShardError for one
    whose folder would be a side's."""
    for member, data in sample.items():
        role, _, ext = member.partition(".")
        if role not in ("blur", "sharp", "__key__"):
            if role in sides:
                raise ShardError(
                    f"{sample['__key__']}.{member}: its folder would be that of pictures; give another --layout"
                )
            _put(base / role / f"{name}.{ext or role}", data)


class _FolderWriter:
    def __init__(self, root: Path, layout: str) -> None:
        self.root, self.sides = root, FOLDERS[layout]
        self.roots: set[Path] = set()

    def add(self, split: str, scene: str, name: str, sample: dict[str, Any]) -> None:
        base = self.root / split / scene
        for role, folder in zip(("blur", "sharp"), self.sides):
            ext, data = _picture(sample, role)
            _put(base / folder / f"{name}.{ext}", data)
            self.roots.add(self.root / split / ("" if scene else folder))
        _put_others(base, name, sample, self.sides)

    def close(self) -> list[str]:
        return sorted(map(str, self.roots))


class _LmdbWriter:
    """One database a side and split; the other members in folders beside."""

    def __init__(self, root: Path, layout: str) -> None:
        self.root, self.sides = root, FOLDERS[layout]
        self.open: dict[Path, PairsLmdb] = {}

    def add(self, split: str, scene: str, name: str, sample: dict[str, Any]) -> None:
        key = f"{scene}/{name}" if scene else name
        # BasicSR reads keys as ASCII, a line each, up to the first dot.
        if not (key.isascii() and key.isprintable()) or "." in key:
            key = sample["__key__"]
        for role, folder in zip(("blur", "sharp"), self.sides):
            path = self.root / split / f"{folder}.lmdb"
            if path not in self.open:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.open[path] = PairsLmdb(path)
            self.open[path].put(key, *_picture(sample, role))
        _put_others(self.root / split, key, sample, self.sides)

    def close(self) -> list[str]:
        for db in self.open.values():
            db.close()
        return sorted(map(str, self.open))
