"""A large shard is made in pieces, by several workers, and joined: the bytes are those of one writer.

A piece is a small shard of its own, tar and sidecar, in a folder apart. A killed run loses the pieces in work; the next
run finds the others.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from blursynth.common.atomic import part_of
from blursynth.shards.shard import SHARD_NAME, ShardError, ShardWriter, read_sidecar, tar_matches

STATE = ".blursynth"  # of this machine, or of those that work together: lock, hash cache, pieces; not part of the data
PIECE = re.compile(rf"(?P<shard>{SHARD_NAME.pattern})\.\d{{4,}}")


def pieces_folder(out: str | Path) -> Path:
    return Path(out) / STATE / "pieces"


def piece_name(shard: str, piece: int) -> str:
    return f"{shard}.{piece:04d}"


def join_pieces(out: Path, shard: str, pieces: int) -> dict[str, Any]:
    """Write a shard out of all its pieces, and remove these; returns its sidecar.

    Raises ShardError where a piece is gone or torn: it is removed, so that it will be made again.
    """
    folder = pieces_folder(out)
    names = [piece_name(shard, n) for n in range(pieces)]
    sides = [_whole_piece(folder, name) for name in names]
    with ShardWriter(out, shard) as writer:
        for name, side in zip(names, sides, strict=True):
            if side["samples"]:
                writer.append(folder / f"{name}.tar", side["members"], side["samples"])
        side = writer.commit(_joined(sides))
    for name in names:
        _remove(folder, name)
    return side


def _whole_piece(folder: Path, name: str) -> dict[str, Any]:
    try:
        side = read_sidecar(folder / f"{name}.json")
    except ShardError:
        side = None
    if side is None or not tar_matches(folder / f"{name}.tar", side):
        _remove(folder, name)
        raise ShardError(f"{folder / name}.tar: is gone or damaged before it was joined to its shard")
    return side


def _joined(sides: list[dict[str, Any]]) -> dict[str, Any]:
    """What one writer of all the samples would have said in its sidecar."""
    clips: dict[str, dict[str, Any]] = {}
    for side in sides:
        for rel, counts in side["counts"]["clips"].items():
            had = clips.get(rel, {"written": 0, "rejected": {}})
            clips[rel] = {
                "written": had["written"] + counts["written"],
                "rejected": _sum(had["rejected"], counts["rejected"]),
            }
    lists = [key for key, value in sides[0].items() if isinstance(value, list)]
    own = {"schema", "shard", "samples", "bytes", "sha256", "members"}  # the writer's
    return {key: value for key, value in sides[0].items() if key not in own} | {
        "counts": {
            "written": sum(side["counts"]["written"] for side in sides),
            "rejected": _sum(*(side["counts"]["rejected"] for side in sides)),
            "clips": dict(sorted(clips.items())),
        },
        "sources": {rel: sha for side in sides for rel, sha in side["sources"].items()},
        **{key: [item for side in sides for item in side[key]] for key in lists},
        "csv": "".join(side["csv"] for side in sides),
    }


def _sum(*counts: dict[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for c in counts:
        total.update(c)
    return dict(sorted(total.items()))


def sweep_pieces(out: Path, plan_sha256: str | None = None, wanted: set[str] | None = None) -> None:
    """Remove half-written files, and, where they are given, pieces of another plan or of shards that are not wanted."""
    folder = pieces_folder(out)
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        named = PIECE.fullmatch(path.stem)
        if part_of(path.name) or (
            wanted is not None and not (named and named["shard"] in wanted and _of_plan(path, plan_sha256))
        ):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _of_plan(path: Path, plan_sha256: str | None) -> bool:
    try:
        side = read_sidecar(path.with_suffix(".json"))
    except ShardError:
        return False
    return side is not None and side["plan_sha256"] == plan_sha256


def _remove(folder: Path, name: str) -> None:
    # Sidecar first, as everywhere: without one a tar is not taken for finished.
    for ext in ("json", "tar"):
        (folder / f"{name}.{ext}").unlink(missing_ok=True)
