"""How much memory is free, and so how large an image may go through a generator at once."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from deblur_train.models.nafnet import NAFNetShape

# Peak bytes a pixel of one image on its way through, measured on a CPU (benchmarks/predict_video.py --memory).
# 590 to 712, 590 to 701 and 1022 to 1074 at 720p and 1080p; rounded up.
BYTES_PER_PIXEL = {"mobilenet-dsc": 900, "mobilenet": 900, "inception": 1300}
# The same of generators rewritten for CPUs (inference/fast.py): 180 and 200 at 3840x2160, and what a program takes anyway.
FAST_BYTES_PER_PIXEL = {"mobilenet-dsc": 300, "mobilenet": 300}
SHARE = 0.6  # of what is free: caches of convolution libraries and other programs want some
UNKNOWN = 4 << 30  # free bytes assumed where the system does not tell
BLOCK = 32


def bytes_per_pixel(backbone: str, shape: NAFNetShape | None = None, fast: bool = False) -> int:
    """Peak bytes a pixel. NAFNet's follow its first level: 349, 1045 and 2102 measured at widths 32 on 2x2, 32 and 64.

    ``fast``, rewritten for a CPU: 183 and 472 at width 32 on 2x2 and 32.
    """
    if shape is not None:
        if fast:
            return 110 + 12 * shape.width // shape.unshuffle**2
        return 100 + 35 * shape.width // shape.unshuffle**2
    if fast and backbone in FAST_BYTES_PER_PIXEL:
        return FAST_BYTES_PER_PIXEL[backbone]
    return BYTES_PER_PIXEL.get(backbone, max(BYTES_PER_PIXEL.values()))


def auto_tile(
    height: int,
    width: int,
    backbone: str,
    device: torch.device,
    shape: NAFNetShape | None = None,
    fast: bool = False,
) -> int | None:
    """The tile side (a multiple of 32) for an image too large for the memory that is free now; None: it fits whole."""
    pixels = int(free_memory(device) * SHARE) // bytes_per_pixel(backbone, shape, fast)
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
