"""Pictures to tensors in [-1, 1] and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(images: Tensor, device: torch.device, channels_last: bool = True) -> Tensor:
    """uint8 0..255 to float32 [-1, 1] (mean and deviation 0.5) on ``device``."""
    x = images.to(device, non_blocking=True)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return x.to(torch.float32, memory_format=memory).div_(127.5).sub_(1.0)


def image_to_tensor(rgb: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """``(H, W, 3)`` uint8 or uint16 RGB to ``(1, 3, H, W)`` float32 in [-1, 1], channels last."""
    half = np.iinfo(rgb.dtype).max / 2
    x = torch.from_numpy(np.ascontiguousarray(rgb).astype(np.float32)).to(device)
    return (x / half - 1.0).permute(2, 0, 1).unsqueeze(0)


def tensor_to_image(x: Tensor, dtype: type = np.uint8) -> np.ndarray:
    """``(1, 3, H, W)`` in [-1, 1] to ``(H, W, 3)`` RGB of an integer type, rounded to nearest."""
    peak = np.iinfo(dtype).max
    y = (x[0].float().clamp(-1, 1) + 1) * (peak / 2)
    return y.round().permute(1, 2, 0).cpu().numpy().astype(dtype)
