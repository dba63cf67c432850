"""Memory of a process whose work is frame after frame: what it frees is kept, what it imports is not searched."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import platform
from collections.abc import Iterator

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -1, -2, -8
"""mallopt's options, malloc.h."""


@functools.cache
def keep_freed_memory(most: int = 512 << 20, one_arena: bool = False) -> bool:
    """Let this process reuse the memory of frames gone by; False where that cannot be asked for.

    glibc gives large blocks back to the system as soon as they are free, and gets them back page by page, zeroed: 6% of
    a 720p window's time in ``make``, nearly half of a frame's in ``predict``. A process whose work is frame after frame
    of one size grows by little. It holds for the whole process: commands and workers ask for it, not functions.

    Args:
        most: free bytes at the top of the heap that are kept.
        one_arena: threads share one heap, so that what one frees serves the others.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    wanted = [(MMAP_MAX, 0), (TRIM_THRESHOLD, most), (TOP_PAD, 64 << 20)]
    if one_arena:
        wanted.append((ARENA_MAX, 1))
    allocator = ctypes.CDLL(None)
    accepted = [allocator.mallopt(option, value) == 1 for option, value in wanted]  # all are asked for
    return all(accepted)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For the imports of a command, not of a function: Python looks for no cycles among what is imported here, neither now
    nor later. A thousand modules make it look thirty times, 0.04 s of ``make``'s start."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
