"""One image through a generator: whole, or in overlapping tiles when it would not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from blursynth.common.errors import UserError
from deblur_train.inference.tensors import image_to_tensor, tensor_to_image
from deblur_train.models.base import STRIDE, reflect_to

OVERLAP = (
    256  # pixels between neighbouring tiles, half of it given away: there the tile's own border still tells
)
SMALLEST_TILE = 128
Model = Callable[
    [Tensor], Tensor
]  # (N, 3, H, W) float32 RGB in [-1, 1] to the same: a generator, or an exported one


class RestoreError(UserError):
    """A picture that the network could not restore."""


@dataclass
class Seams:
    """How far tiles disagree about the pixels that two of them give, in codes of 255: what blending hides.

    Next to nothing with tracked statistics. With each image's own ("image", "local") a tile has other statistics than
    the whole, and this says how much that changes.
    """

    pixels: int = 0
    total: float = 0.0
    worst: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / max(self.pixels, 1)

    def add(self, difference: Tensor) -> None:
        """``difference`` in [-1, 1] units, of any shape."""
        codes = difference.abs() * 127.5
        self.pixels += codes.numel()
        self.total += float(codes.sum(dtype=torch.float64))
        self.worst = max(self.worst, float(codes.max()))


@torch.inference_mode()
def restore(
    generator: Model, rgb: np.ndarray, tile: int | None = None, seams: Seams | None = None
) -> np.ndarray:
    """A blurred ``(H, W, 3)`` uint8 or uint16 RGB image to the restored one of the same shape and type.

    ``tile``: side in pixels of the tiles to go through one by one, blended over their overlap (rounded down to a
    multiple of 32); None: all at once. ``seams`` collects how far the tiles disagree.
    """
    device = torch.device("cpu")
    if isinstance(generator, nn.Module):
        device = next(generator.parameters()).device
    if tile is None or (rgb.shape[0] <= tile and rgb.shape[1] <= tile):
        y = generator(image_to_tensor(rgb, device).contiguous(memory_format=torch.channels_last))
    else:
        y = _tiled(generator, rgb, max(SMALLEST_TILE, tile // STRIDE * STRIDE), device, seams)
    if not bool(torch.isfinite(y).all()):
        raise RestoreError(
            "the network gave values that are not finite (NaN): nothing is written for this picture"
        )
    return tensor_to_image(y, rgb.dtype.type)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover ``length`` with at least ``overlap`` between neighbours; the last ends flush.

    All three are multiples of 32, and so is every start: tiles then see the pyramid's grid where the whole image has it.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _ramp(length: int, at_start: bool, at_end: bool, overlap: int) -> Tensor:
    """Blending weights along one side of a tile, 1 up to the image's own border.

    Towards another tile: 0 over the outer quarter of the overlap, linear over its middle half.
    """
    weight = torch.ones(length)
    quarter = overlap // 4
    slope = ((torch.arange(overlap) - quarter + 0.5) / (overlap - 2 * quarter)).clamp(0, 1)
    if not at_start:
        weight[:overlap] *= slope
    if not at_end:
        weight[-overlap:] *= slope.flip(0)
    return weight


def _tiled(generator: Model, rgb: np.ndarray, tile: int, device: torch.device, seams: Seams | None) -> Tensor:
    h, w = rgb.shape[:2]
    height, width = (-(-n // STRIDE) * STRIDE for n in (h, w))
    overlap = min(OVERLAP, tile // 2 // STRIDE * STRIDE)
    total = torch.zeros(1, 3, height, width)
    weights = torch.zeros(1, 1, height, width)
    for y in _starts(height, tile, overlap):
        for x in _starts(width, tile, overlap):
            part = image_to_tensor(rgb[y : y + tile, x : x + tile], device)
            ph, pw = min(tile, height - y), min(tile, width - x)
            part = reflect_to(part, ph, pw).contiguous(memory_format=torch.channels_last)
            out = generator(part).float().cpu()
            weight = (
                _ramp(ph, y == 0, y + ph == height, overlap)[:, None]
                * _ramp(pw, x == 0, x + pw == width, overlap)[None, :]
            )
            before, covered = total[..., y : y + ph, x : x + pw], weights[..., y : y + ph, x : x + pw]
            if seams is not None:
                shared = (covered > 0) & (weight > 0)
                if shared.any():
                    seams.add((before / covered.clamp_min(1e-6) - out)[shared.expand_as(out)])
            before += out * weight
            covered += weight
    return (total / weights)[..., :h, :w]
