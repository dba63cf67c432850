"""``unpack``: shards into the folders, or the LMDB, that other deblurring codes read. The members' bytes, not re-encoded."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from blursynth.checks.shard_files import ShardFiles
from blursynth.common.atomic import part_name, part_of
from blursynth.common.errors import UsageError
from blursynth.common.text import counted
from blursynth.exchange.lmdb import PairsLmdb
from blursynth.shards.partners import SPLITS
from blursynth.shards.schema import FORMATS
from blursynth.shards.shard import ShardError, read_shard
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
    out: str
    layout: str
    lmdb: bool
    pairs: dict[str, int] = field(default_factory=dict)  # by split
    folders: list[str] = field(default_factory=list)  # what a training config names

    exit_code = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {s}" for s, n in sorted(self.pairs.items()))
        lines = [
            f"{self.out}: {counted(sum(self.pairs.values()), 'pair')} ({parts}) for {self.layout}",
            *(f"  {f}" for f in self.folders),
        ]
        return "\n".join(lines)


def unpack(
    data: str | Path, out: str | Path, layout: Layout = "nafnet", *, lmdb: bool = False
) -> UnpackReport:
    """Write a set's pairs as ``nafnet`` (SPLIT/input, SPLIT/target), ``basicsr`` (SPLIT/lq, SPLIT/gt) or ``gopro``
    (SPLIT/CLIP/blur, SPLIT/CLIP/sharp, names in the order of time).

    A sample's JSON and its other members (flow, mask, linear) lie in folders of their own beside, so that a loader which
    counts files finds pairs only. ``out`` appears when all is written. Videos' samples that overlap keep apart.

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
        taken: Counter[str] = Counter()
        writer = _LmdbWriter(part, layout) if lmdb else _FolderWriter(part, layout)
        for split, sample in _samples(files):
            scene, name = _place(sample, layout, split, taken)
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


def _samples(files: ShardFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, members by extension) of every sample, in the order of the shards."""
    for shard in files.shards():
        if f"{shard}.tar" in files.names:
            with files.at_hand(f"{shard}.tar") as root:
                for sample in read_shard(root / f"{shard}.tar"):
                    yield shard.partition("-")[0], sample


def _place(sample: dict[str, Any], layout: str, split: str, taken: Counter[str]) -> tuple[str, str]:
    """(clip, file name without extension): the key, or for ``gopro`` the clip and the number of the sharp frame."""
    key = sample["__key__"]
    if layout != "gopro":
        return "", key
    try:
        meta = json.loads(sample["json"])
        packed, source = meta.get("packed"), meta["source"]
        if packed:
            scene, name = str(packed["scene"]), str(packed["name"])
            if packed.get("official"):  # their folders' names, train and test, say what SPLIT says
                scene = "/".join(p for p in scene.split("/") if p.lower() not in SPLITS) or scene
        else:
            # The key starts with what is the clip's alone, where two clips have one name.
            window = str(meta["tile"]["window"] if meta.get("tile") else key)
            scene, name = window.rsplit("_", 2)[0], f"{source['target']:06d}"
            name += key.removeprefix(window)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise ShardError(f"{key}.json: does not say its clip and frame ({type(e).__name__}: {e})") from None
    scene = "_".join(p for p in scene.replace("\\", "/").split("/") if p not in ("", ".", "..")) or "clip"
    name = name.replace("/", "_").replace("\\", "_")
    taken[f"{split}/{scene}/{name}"] += 1
    again = taken[f"{split}/{scene}/{name}"]
    return scene, name if again == 1 else f"{name}_{again}"  # two exposures around one frame


def _picture(sample: dict[str, Any], role: str) -> tuple[str, bytes]:
    for ext in FORMATS:
        if f"{role}.{ext}" in sample:
            return ext, sample[f"{role}.{ext}"]
    raise ShardError(f"{sample['__key__']}: lacks its {role} picture")


class _FolderWriter:
    def __init__(self, root: Path, layout: str) -> None:
        self.root, self.sides = root, FOLDERS[layout]
        self.roots: set[Path] = set()

    def add(self, split: str, scene: str, name: str, sample: dict[str, Any]) -> None:
        base = self.root / split / scene
        for role, folder in zip(("blur", "sharp"), self.sides):
            ext, data = _picture(sample, role)
            self._put(base / folder, f"{name}.{ext}", data)
            self.roots.add(self.root / split / ("" if scene else folder))
        for member, data in sample.items():
            role, _, ext = member.partition(".")
            if role not in ("blur", "sharp", "__key__"):
                self._put(base / role, f"{name}.{ext or role}", data)

    def _put(self, folder: Path, name: str, data: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    def close(self) -> list[str]:
        return sorted(map(str, self.roots))


class _LmdbWriter:
    """One database a side and split; the JSON in a folder beside."""

    def __init__(self, root: Path, layout: str) -> None:
        self.root, self.sides = root, FOLDERS[layout]
        self.open: dict[Path, PairsLmdb] = {}

    def add(self, split: str, scene: str, name: str, sample: dict[str, Any]) -> None:
        key = f"{scene}/{name}" if scene else name
        if not key.isascii() or "." in key:  # BasicSR reads keys as ASCII, up to the first dot
            key = sample["__key__"]
        for role, folder in zip(("blur", "sharp"), self.sides):
            path = self.root / split / f"{folder}.lmdb"
            if path not in self.open:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.open[path] = PairsLmdb(path)
            self.open[path].put(key, *_picture(sample, role))
        meta = self.root / split / "json" / f"{key}.json"
        meta.parent.mkdir(parents=True, exist_ok=True)
        meta.write_bytes(sample.get("json", b""))

    def close(self) -> list[str]:
        for db in self.open.values():
            db.close()
        return sorted(map(str, self.open))
