"""One writer at a time: a lock on an open file or folder."""

from __future__ import annotations

from typing import IO


def flock(file: IO[str] | int, exclusive: bool, wait: bool) -> bool:
    """Lock an open file, or a descriptor, as a folder's. The system unlocks it when the process ends, however it ends.

    False when another holds it and ``wait`` is not asked for. True also where there are no locks: on Windows, and on some
    network folders.
    """
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
