"""How much memory is free, and so how large an image may go through a generator at once; and keeping what was freed."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import torch

# Peak bytes a pixel of one image on its way through, measured on a CPU (benchmarks/predict_video.py --memory).
# 590 to 712, 590 to 701 and 1022 to 1074 at 720p and 1080p; rounded up.
BYTES_PER_PIXEL = {"mobilenet-dsc": 900, "mobilenet": 900, "inception": 1300}
SHARE = 0.6  # of what is free: caches of convolution libraries and other programs want some
UNKNOWN = 4 << 30  # free bytes assumed where the system does not tell
BLOCK = 32


def auto_tile(height: int, width: int, backbone: str, device: torch.device) -> int | None:
    """The tile side (a multiple of 32) for an image too large for the memory that is free now; None: it fits whole."""
    pixels = int(free_memory(device) * SHARE) // BYTES_PER_PIXEL.get(backbone, max(BYTES_PER_PIXEL.values()))
    return None if height * width <= pixels else max(256, int(pixels**0.5) // BLOCK * BLOCK)


def free_memory(device: torch.device) -> int:
    """Bytes that a program could still take on ``device``, within the limits of a container (cgroup)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    known = [n for n in (_meminfo(), _cgroup()) if n is not None]
    if known:
        return max(0, min(known))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return UNKNOWN


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _cgroup() -> int | None:
    """What a container's limit leaves; file caches count as free."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            most, now = ((root / name).read_text().strip() for name in (limit, used))
            stat = dict(
                line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines()
            )
            return int(most) - int(now) + int(stat.get(cache, 0))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return None


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, for the next frame; False where that cannot be asked for.

    glibc gives each block above 32 MB back to the system at once, and gets it back page by page, zeroed: at 720p nearly
    half of a frame's time goes there (benchmarks/predict_video.py). For programs whose work is frame after frame; it
    holds for the whole process, so it is asked for by the command, not by the functions below it.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    trim, top_pad, mmap_max, arenas = -1, -2, -4, -8  # malloc.h
    allocator = ctypes.CDLL(None)
    wanted = ((mmap_max, 0), (trim, 2**31 - 1), (top_pad, 64 << 20), (arenas, 1))
    accepted = [allocator.mallopt(option, value) == 1 for option, value in wanted]
    return all(accepted)
