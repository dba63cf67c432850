"""One image through a generator: whole, or in overlapping tiles when it would not fit in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .data import image_to_tensor, tensor_to_image
from .generator import FPNGenerator

# Pixels that go through at once with --tile auto. The feature maps take roughly 1.3 kB a pixel (mobilenet) to
# 3 kB (inception), so this stays near 6 GB on a CPU and leaves room on a small GPU.
AUTO_PIXELS = {"cpu": 2_500_000, "cuda": 4_000_000}
OVERLAP = (
    128  # pixels; beyond this distance a tracked-norm generator's answer no longer depends on the border
)


@torch.inference_mode()
def restore(generator: FPNGenerator, rgb: np.ndarray, tile: int | None = None) -> np.ndarray:
    """A blurred ``(H, W, 3)`` uint8 or uint16 RGB image to the restored one of the same shape and type.

    ``tile``: side in pixels of the tiles to go through one by one, blended over their overlap; None: all at once.
    """
    device = next(generator.parameters()).device
    if tile is None or (rgb.shape[0] <= tile and rgb.shape[1] <= tile):
        y = generator(image_to_tensor(rgb, device).contiguous(memory_format=torch.channels_last))
    else:
        y = _tiled(generator, rgb, tile, device)
    return tensor_to_image(y, rgb.dtype.type)


def auto_tile(height: int, width: int, device: torch.device) -> int | None:
    """The tile side for an image that is too large to go through whole on this kind of device, else None."""
    limit = AUTO_PIXELS.get(device.type, AUTO_PIXELS["cpu"])
    return None if height * width <= limit else int(limit**0.5) // 32 * 32


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover ``length`` with at least ``overlap`` between neighbours; the last ends flush."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _ramp(length: int, at_start: bool, at_end: bool, overlap: int) -> Tensor:
    """Blending weights along one side of a tile: linear over the overlap, except at the image's own border."""
    weight = torch.ones(length)
    slope = (torch.arange(overlap) + 0.5) / overlap
    if not at_start:
        weight[:overlap] *= slope
    if not at_end:
        weight[-overlap:] *= slope.flip(0)
    return weight


def _tiled(generator: FPNGenerator, rgb: np.ndarray, tile: int, device: torch.device) -> Tensor:
    h, w = rgb.shape[:2]
    overlap = min(OVERLAP, tile // 4)
    total = torch.zeros(1, 3, h, w)
    weights = torch.zeros(1, 1, h, w)
    for y in _starts(h, tile, overlap):
        for x in _starts(w, tile, overlap):
            part = rgb[y : y + tile, x : x + tile]
            ph, pw = part.shape[:2]
            out = generator(image_to_tensor(part, device)).float().cpu()
            weight = (
                _ramp(ph, y == 0, y + ph == h, overlap)[:, None]
                * _ramp(pw, x == 0, x + pw == w, overlap)[None, :]
            )
            total[..., y : y + ph, x : x + pw] += out * weight
            weights[..., y : y + ph, x : x + pw] += weight
    return total / weights
