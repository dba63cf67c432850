"""Keep the memory that a worker frees, for its next frame."""

from __future__ import annotations

import ctypes
import functools
import platform

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -4, -1, -2
"""mallopt's options, malloc.h."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process reuse the memory of frames gone by; False where that cannot be asked for.

    glibc gives large blocks back to the system as soon as they are free, and gets them back page by page, zeroed: 6% of
    a 720p window's time. A worker makes window after window of one size, so its peak grows by little.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    allocator = ctypes.CDLL(None)
    wanted = ((MMAP_MAX, 0), (TRIM_THRESHOLD, 512 << 20), (TOP_PAD, 64 << 20))
    return all(allocator.mallopt(option, value) == 1 for option, value in wanted)
