"""Locks in an output folder: one run at a time, and a later one waits for the workers that an earlier one left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

STATE = ".blursynth"  # of this machine: lock, hash cache; not part of the data


def flock(file: IO[str], exclusive: bool, wait: bool) -> bool:
    """Lock an open file; the system unlocks it when the process ends, however it ends. False when another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are the user's to avoid
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a network folder without locks
        return True
    return True


@contextlib.contextmanager
def at_work(out: str) -> Iterator[None]:
    """Held by a worker while it makes a shard, so that the next run waits for it (see ``Output.lock``)."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no such folder: a task outside a run
            flock(stack.enter_context((Path(out) / STATE / "workers").open("a")), exclusive=False, wait=True)
        yield
