"""Shards on disk: tars written whole or not at all, their sidecars, and a reader that trusts nothing.

A shard is finished when its sidecar lies beside it: the tar is written under a ``.part`` name, synced and renamed,
and only then the sidecar is, in the same way. Equal samples give equal tar bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blursynth.common.atomic import open_new, part_name, sync_folder, write_atomic
from blursynth.common.errors import UserError
from blursynth.shards.schema import KEY, SCHEMA
from blursynth.shards.table import sample_row
from blursynth.shards.tar import Member, TarFault, walk

SHARD_NAME = re.compile(r"(train|val)-\d{6,}")
EXTENSION = re.compile(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+)*")
COPY = 4 * 2**20
MAX_MEMBER = 512 * 2**20  # bytes; a 16-bit 8K image stays below, a decompression bomb's header does not


class ShardError(UserError):
    """A shard or sidecar that cannot be trusted; the message names the file, the member and what is wrong."""


def shard_of(file: str) -> str | None:
    """The shard of which a file of this name is the tar or the sidecar; None for any other name."""
    name, _, ext = file.rpartition(".")
    return name if ext in ("tar", "json") and SHARD_NAME.fullmatch(name) else None


def file_sha256(path: Path) -> str:
    """Of the file's bytes, in hex. Raises OSError."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def dump_json(value: Any, indent: int | None = 1) -> bytes:
    """The one way JSON is written, so that equal values are equal bytes. NaN and infinity are refused."""
    # ASCII, because a file name that is not valid UTF-8 survives as an escape only.
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


class _Tee(io.RawIOBase):
    """Passes bytes to a file and hashes them on the way."""

    def __init__(self, file: Any) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        self.file.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)


class ShardWriter:
    """``with ShardWriter(out, "train-000000") as w: w.add(...); w.commit({...})``; without commit nothing is left.

    Raises OSError when the disk is full or the folder is read-only.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.tar_path, self.sidecar_path = out / f"{name}.tar", out / f"{name}.json"
        self.name, self.samples = name, 0
        self.rows: list[str] = []  # of samples.csv
        self.part: Path | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def _open(self) -> None:
        self.part = part_name(self.tar_path)
        # A new file, never one that is there or that a link leads to.
        self.file = open_new(self.part)
        self.tee = _Tee(self.file)
        self.tar = tarfile.TarFile(fileobj=self.tee, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=COPY)

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Append one sample: extension -> bytes, in the order given. ``key``: ``[A-Za-z0-9_-]`` only."""
        if not KEY.fullmatch(key):
            raise ValueError(f"key {key!r} has characters outside [A-Za-z0-9_-]")
        if self.part is None:
            self._open()
        for ext, data in members.items():
            info = tarfile.TarInfo(f"{key}.{ext}")
            info.size, info.mode, info.mtime = len(data), 0o444, 0
            info.uname = info.gname = "blursynth"
            self.tar.addfile(info, io.BytesIO(data))
        if "json" in members:  # a piece's name is its shard's and a number
            self.rows.append(sample_row(json.loads(members["json"]), self.name.partition(".")[0]))
        self.samples += 1

    @property
    def end(self) -> int:
        """Where the members end that were written so far, in bytes."""
        return self.tar.offset if self.part is not None else 0

    def append(self, tar: Path, size: int, samples: int) -> None:
        """Append the samples of another tar of ours, whose members take its first ``size`` bytes. Raises OSError."""
        if self.part is None:
            self._open()
        with tar.open("rb") as file:
            for at in range(0, size, COPY):
                block = file.read(min(COPY, size - at))
                if len(block) < min(COPY, size - at):
                    raise OSError(errno.EIO, "ends early", str(tar))
                self.tar.fileobj.write(block)
        self.tar.offset += size
        self.samples += samples

    def commit(self, sidecar: dict[str, Any]) -> dict[str, Any]:
        """Put the tar, then its sidecar, under their final names; returns the sidecar as written.

        A shard without samples has a sidecar and no tar.
        """
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "shard": f"{self.name}.tar",
            "samples": self.samples,
            "bytes": 0,
            "sha256": None,
        }
        if self.part is not None:
            self.tar.close()
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            facts |= {"bytes": self.tee.size, "sha256": self.tee.hash.hexdigest()}
        facts |= {"csv": "".join(self.rows), **sidecar}
        if self._is_there(facts):
            return facts
        # An old sidecar must never stand beside a new tar, not even for a moment.
        self.sidecar_path.unlink(missing_ok=True)
        if self.part is not None:
            self.part.replace(self.tar_path)
            self.part = None
        else:
            self.tar_path.unlink(missing_ok=True)
        sync_folder(self.tar_path.parent)
        write_atomic(self.sidecar_path, dump_json(facts))
        return facts

    def _is_there(self, facts: dict[str, Any]) -> bool:
        """Whether someone made this very shard meanwhile (a cluster may run a task twice): then leave it be."""
        with contextlib.suppress(ShardError):
            return read_sidecar(self.sidecar_path) == facts and tar_matches(self.tar_path, facts)
        return False

    def __exit__(self, *exc: object) -> None:
        if self.part is not None:
            with contextlib.suppress(
                OSError
            ):  # a full disk fails again at close; the first error is the one to tell
                self.file.close()
            self.part.unlink(missing_ok=True)
            self.part = None


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The sidecar of a finished shard; None when there is none. Raises ShardError when it is not one of ours."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ShardError(
            f"{path}: not a readable sidecar ({e}); remove it to have the shard made again"
        ) from None
    return parse_sidecar(data, str(path))


def parse_sidecar(data: bytes, where: str) -> dict[str, Any]:
    """A sidecar out of its bytes. Raises ShardError when it is not one of ours."""
    try:
        side = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise ShardError(
            f"{where}: not a readable sidecar ({e}); remove it to have the shard made again"
        ) from None
    need = {"samples": int, "bytes": int, "recipe_sha256": str, "plan_sha256": str, "counts": dict}
    if not isinstance(side, dict) or any(not isinstance(side.get(k), t) for k, t in need.items()):
        raise ShardError(f"{where}: not a blursynth sidecar (lacks one of {', '.join(need)})")
    if side.get("schema") != SCHEMA:
        raise ShardError(f"{where}: schema {side.get('schema')}, this version reads schema {SCHEMA}")
    rejected, errors = side["counts"].get("rejected"), side.get("errors", [])
    if not isinstance(side.get("csv", ""), str):
        raise ShardError(f"{where}: not a blursynth sidecar (its csv is not text)")
    numbers = [side["samples"], side["bytes"], *(rejected.values() if isinstance(rejected, dict) else [None])]
    if any(type(n) is not int or n < 0 for n in numbers) or not isinstance(errors, list):
        raise ShardError(
            f"{where}: not a blursynth sidecar (a count or its errors are not what they should be)"
        )
    return side


def without_lists(side: dict[str, Any]) -> dict[str, Any]:
    """A sidecar less what grows with its samples: of a million of them, all sidecars can be held like this."""
    return {key: value for key, value in side.items() if key not in ("csv", "left_out")}


def tar_matches(path: Path, side: dict[str, Any]) -> bool:
    """Whether the tar that a sidecar speaks of is there and has its size (``verify`` compares the sha256)."""
    try:
        size = path.stat().st_size
    except OSError:
        return side["samples"] == 0
    return side["samples"] > 0 and size == side["bytes"]


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Samples of a shard in order: ``{"__key__": str, extension: bytes, ...}``; nothing touches the disk.

    Raises ShardError on anything a shard of ours cannot hold: links, folders, paths, huge members, a key in two
    places, or a tar cut short.
    """
    seen: set[str] = set()
    sample: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            for m in walk(file):
                key, ext = _member_name(path, m)
                if key != sample.get("__key__"):
                    if sample:
                        yield sample
                    if key in seen:
                        raise ShardError(f"{path}: key {key!r} stands twice")
                    seen.add(key)
                    sample = {"__key__": key}
                if ext in sample:
                    raise ShardError(f"{path}: {m.name} stands twice")
                file.seek(m.offset)
                sample[ext] = file.read(m.size)
    except (TarFault, OSError) as e:
        raise ShardError(f"{path}: {e if isinstance(e, TarFault) else e.strerror or e}") from None
    if sample:
        yield sample


def _member_name(path: Path, m: Member) -> tuple[str, str]:
    if not m.plain:
        raise ShardError(f"{path}: {m.name!r} is a link, folder or device; a shard holds plain files only")
    key, _, ext = m.name.partition(".")
    if not KEY.fullmatch(key) or not EXTENSION.fullmatch(ext):
        raise ShardError(f"{path}: {m.name!r} is not KEY.EXTENSION with KEY of [A-Za-z0-9_-]")
    if m.size > MAX_MEMBER:
        raise ShardError(f"{path}: {m.name} claims {m.size} bytes, more than {MAX_MEMBER}")
    return key, ext
