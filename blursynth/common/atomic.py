"""Files written whole or not at all, and only over what is ours: a temporary name, fsync, rename; links are refused."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

_PART = re.compile(r"(?s)(?P<name>.+)\.[0-9a-f]{12}\.part")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe without a reader must not hang the run


def write_atomic(path: Path, data: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader, or a power cut, sees the old one or the new one. Raises OSError.

    Args:
        data: the bytes, or what writes them into an open file.
    """
    with naming(path), part_beside(path) as part, part.open("r+b") as f:
        if callable(data):
            data(f)
        else:
            f.write(data)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as a full disk's does, or ``path``'s half-written one names ``path``."""
    try:
        yield
    except OSError as e:
        named = None if e.filename is None else part_of(Path(os.fsdecode(e.filename)).name)
        if e.errno is not None and (e.filename is None or named == path.name):
            e.filename, e.filename2 = str(path), None
        raise


@contextlib.contextmanager
def part_beside(path: Path) -> Iterator[Path]:
    """A new, empty file in ``path``'s folder that takes its name (after fsync) when the block ends, and is removed when
    the block raises: ``path`` is never half a file. What writes it may open it by name, as an encoder does."""
    refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_name(path)
    open_new(part).close()
    try:
        yield part
        with part.open("r+b") as f:
            os.fsync(f.fileno())
        part.replace(path)  # where a link stands, the link goes, not the file it names
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def refuse_device(path: Path) -> None:
    """Raise FileExistsError for a device, a pipe or a socket, and for what leads to one: a rename would put a file in
    the place of ``/dev/null`` or ``/dev/stdout``."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there, or no way leads there: whoever writes is told
    # As /dev/stdout is, to a file too.
    handed_on = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    if handed_on or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileExistsError(17, "is a device or a pipe, which is not replaced", str(path))


def part_name(path: Path) -> Path:
    """A name no other writer uses: a task that a cluster runs twice at once must not share its half-written file."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}.part")


def part_of(name: str) -> str | None:
    """The name of the file that a half-written file was to become; None for a file that is no ``part_name``."""
    found = _PART.fullmatch(name)
    return found["name"] if found else None


def open_new(path: Path) -> IO[bytes]:
    """Open a file for writing that must not be there yet, under this name or behind a link. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666), "wb")


def open_own(path: Path, mode: str = "a") -> IO[Any]:
    """Open a file that grows in place (a log, a lock): "a", "a+" or their binary forms, made where it is missing.

    Raises FileExistsError for a link, a pipe or a device of that name: what they lead to is not ours to write.
    """
    flags = os.O_APPEND | os.O_CREAT | (os.O_RDWR if "+" in mode else os.O_WRONLY)
    try:
        handle = os.open(path, flags | _NO_LINK | _NO_WAIT, 0o666)
    except OSError as e:
        if path.is_symlink():
            raise FileExistsError(e.errno, "is a link, which is not followed; remove it", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileExistsError(17, "is not a plain file; remove it", str(path))
    return os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8")


def sync_folder(folder: Path) -> None:
    """Make renames in this folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows and some network folders cannot open a folder
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
