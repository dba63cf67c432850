"""Small files written whole or not at all: a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that a reader, or a power cut, sees the old one or the new one. Raises OSError."""
    part = part_name(path)
    try:
        with part.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def part_name(path: Path) -> Path:
    """A name no other writer uses: a task that a cluster runs twice at once must not share its half-written file."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")


def sync_folder(folder: Path) -> None:
    """Make renames in this folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows and some network folders cannot open a folder
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
