"""What an interval's exposure is computed from, as torch tensors on a device: frames' light, the shutter's opening, flows.

Names are walk/loop.py's; the tensors are those that triton_walk.py and torch_walk.py take.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blursynth.recipe import RecipeError
from blursynth.walk.frame import CENTRE, SIDE
from blursynth.walk.steps import HOT_BLOCK


class Light(NamedTuple):
    """A frame's linear light on a device, as walk/frame.py's `Frame` has it.

    codes: uint8 (H, W, 3); table: float32 (256, 4); above: float16 (H, W, 3), or None; hot: uint8 (H // HOT_BLOCK + 1,
    W // HOT_BLOCK + 1), where light above white lies in or beside a block of HOT_BLOCK px, or None: there can be none.
    """

    codes: Tensor
    table: Tensor
    above: Tensor | None
    hot: Tensor | None


class Opening(NamedTuple):
    """walk/nodes.py's `Open` on a device: profile float64 (3, P), None of a box; path float32 (Q, 4) of x, y px, roll in
    radians and the length up to there, px, None of a camera at rest."""

    start: Tensor
    stop: Tensor
    profile: Tensor | None
    path: Tensor | None
    fine: int


class Interval(NamedTuple):
    """Two frames, `Light` or float32 (H, W, 4), their pre-filtered versions, float16 or float32 (H, W, 4), and flows,
    float32 (H, W, 2)."""

    lights: tuple[Light | Tensor, Light | Tensor]
    smooth: tuple[Tensor, Tensor]
    forward: Tensor
    backward: Tensor


def decode(light: Light | Tensor) -> Tensor:
    """Linear light, float32 (H, W, 4), the fourth channel one."""
    if isinstance(light, Tensor):
        return light
    channel = torch.arange(3, device=light.codes.device)
    out = F.pad(light.table[light.codes.long(), channel], (0, 1), value=1.0)
    if light.above is not None:
        out[..., :3] += light.above
    return out


def hot_blocks(light: Light | Tensor) -> Tensor:
    """`Light.hot` of a frame: walk/steps.py's `find_hot`."""
    linear = decode(light)
    h, w = linear.shape[:2]
    rows, columns = h // HOT_BLOCK + 1, w // HOT_BLOCK + 1
    hot = (linear[..., :3].amax(2) > 1).float()[None, None]
    hot = F.pad(hot, (0, columns * HOT_BLOCK - w, 0, rows * HOT_BLOCK - h))
    return F.max_pool2d(F.max_pool2d(hot, HOT_BLOCK), 3, 1, 1)[0, 0].to(torch.uint8)


def prefilter(light: Light, plain: bool = False) -> Tensor:
    """The frame to sample from between nodes, float16 (H, W, 4): pre-filtered, but around light above white; plain: the
    light itself."""
    linear = decode(light)
    if plain:
        return linear.half()
    if light.hot is None:
        return quasi(linear).half()
    hot = light.codes == 255 if light.above is None else light.above != 0
    return quasi(linear, hot.any(2)).half()


def quasi(light: Tensor, hot: Tensor | None = None) -> Tensor:
    """`integrate.quasi`: light (H, W, 4) float32, pre-filtered; unchanged around pixels `hot`, bool (H, W); None: those
    whose light is above white."""
    x = light.permute(2, 0, 1)[None]
    side, centre = float(SIDE), float(CENTRE)
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    p = centre * p[..., 1:-1] + side * (p[..., :-2] + p[..., 2:])
    p = centre * p[..., 1:-1, :] + side * (p[..., :-2, :] + p[..., 2:, :])
    out = p[0].permute(1, 2, 0)
    hot = light.amax(2) > 1 if hot is None else hot
    near = F.max_pool2d(hot.float()[None, None], 5, 1, 2)[0, 0, :, :, None] > 0
    return torch.where(near, light, out).contiguous()


def check_device(device: str) -> None:
    """Raises RecipeError when torch has no such device."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        raise RecipeError(
            f"device {device}: {build} finds no CUDA device; use --device cpu, or install a CUDA build of torch "
            "and a driver"
        )


def to_device(array: np.ndarray, device: str) -> Tensor:
    """An array on the device; the copy goes on while the CPU does other things."""
    array = np.ascontiguousarray(array)
    array = array if array.flags.writeable else array.copy()  # torch warns of what is read-only
    there = torch.from_numpy(array)
    return there if device.startswith("cpu") else there.pin_memory().to(device, non_blocking=True)
