"""IFNet, the network of RIFE v4.25 and v4.26: from two frames and a time, where the light of that time lies in each.

Zhewei Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022; layout of
Practical-RIFE 4.25 / 4.26 (https://github.com/hzwer/Practical-RIFE, MIT). Five blocks refine, from coarse to fine,
two backward flows and a blend mask; nothing is painted, so both can be applied to linear light.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blursynth.recipe import RecipeError

SCALES = (16, 8, 4, 2, 1)
"""Each block works at 1 / (4 scale) of the frame."""

MULTIPLE = 64
"""Sides must be multiples of this: the coarsest block's."""

CHANNELS = (192, 128, 96, 64, 32)
RESIDUALS = 8
IGNORED = ("teacher.", "caltime.")
"""Parts of the file that only training used."""

EXPECTED = "the flownet.pkl of Practical-RIFE v4.25 or v4.26 (encode.cnn0-3, block0-4 with 8 residual convolutions each)"


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Image (N, C, H, W) sampled bilinearly at x + flow (N, 2, H, W), pixels, x first; clamped at the border."""
    h, w = image.shape[2:]
    x = torch.arange(w, device=image.device, dtype=image.dtype) + flow[:, 0]
    y = torch.arange(h, device=image.device, dtype=image.dtype)[:, None] + flow[:, 1]
    grid = torch.stack([x * (2 / max(w - 1, 1)) - 1, y * (2 / max(h - 1, 1)) - 1], 3)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _resize(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _down(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, 2, 1), nn.LeakyReLU(0.2, True))


class Encoder(nn.Module):
    """Features of one frame at full size: (N, 3, H, W) -> (N, features, H, W)."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.cnn0 = nn.Conv2d(3, hidden, 3, 2, 1)
        self.cnn1 = nn.Conv2d(hidden, hidden, 3, 1, 1)
        self.cnn2 = nn.Conv2d(hidden, hidden, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(hidden, features, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = F.leaky_relu(layer(x), 0.2)
        return self.cnn3(x)


class Residual(nn.Module):
    """x + beta * conv(x), then LeakyReLU."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, 1, 1)
        self.beta = nn.Parameter(torch.ones(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x) * self.beta + x, 0.2)


class Block(nn.Module):
    """One refinement at one scale: inputs at full size -> change of flow (4), mask logit (1), features for the next."""

    def __init__(self, cin: int, c: int, carried: int):
        super().__init__()
        self.conv0 = nn.Sequential(_down(cin, c // 2), _down(c // 2, c))
        self.convblock = nn.Sequential(*(Residual(c) for _ in range(RESIDUALS)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(c, 4 * (5 + carried), 4, 2, 1), nn.PixelShuffle(2))

    def forward(
        self, parts: Sequence[Tensor], flow: Tensor | None, scale: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        small = [
            _resize(p, 1 / scale) for p in parts
        ]  # before joining: the whole is never built at full size
        if flow is not None:
            small.append(_resize(flow, 1 / scale) / scale)
        x = torch.cat(small, 1)
        out = _resize(self.lastconv(self.convblock(self.conv0(x))), scale)
        return out[:, :4] * scale, out[:, 4:5], out[:, 5:]


class IFNet(nn.Module):
    """RIFE's network. channels: width of the five blocks; features, hidden: of the encoder; carried: from block to block.

    The defaults are those of v4.25 and v4.26; smaller ones serve tests.
    """

    def __init__(
        self, channels: Sequence[int] = CHANNELS, features: int = 4, hidden: int = 16, carried: int = 8
    ):
        super().__init__()
        if len(channels) != len(SCALES):
            raise ValueError(f"IFNet has {len(SCALES)} blocks, got {len(channels)} widths")
        self.encode = Encoder(features, hidden)
        for i, c in enumerate(channels):
            # Two frames, their features and the time; later also the mask, carried features and both flows.
            cin = 2 * (3 + features) + 1 + (0 if i == 0 else 1 + carried + 4)
            self.add_module(f"block{i}", Block(cin, c, carried))

    def flows(self, frames: Sequence[Tensor], codes: Sequence[Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        """Flows and mask at time t.

        frames: two (N, 3, H, W), RGB 0-1, display-encoded, sides multiples of MULTIPLE; codes: `encode` of each;
        t: (N, 1, H, W), 0 at the first frame, 1 at the second, any value per pixel. Returns flow (N, 4, H, W), pixels
        from (x, t) to where that content is in the first frame (2 channels, x first) and in the second, and the
        first frame's share (N, 1, H, W), 0 to 1.
        """
        blocks = [self.get_submodule(f"block{i}") for i in range(len(SCALES))]
        flow, mask, carried = blocks[0]([*frames, *codes, t], None, SCALES[0])
        for block, scale in zip(blocks[1:], SCALES[1:], strict=True):
            a, b = flow[:, :2], flow[:, 2:]
            seen = [warp(frames[0], a), warp(frames[1], b), warp(codes[0], a), warp(codes[1], b)]
            change, mask, carried = block([*seen, t, mask, carried], flow, scale)
            flow = flow + change
        return flow, torch.sigmoid(mask)

    def forward(self, x: Tensor, t: float | Tensor = 0.5) -> Tensor:
        """The frame at time t: x (N, 6, H, W), two RGB frames 0-1 of any size -> (N, 3, H, W)."""
        h, w = x.shape[2:]
        x = pad(x)
        frames = (x[:, :3], x[:, 3:])
        when = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0], 1, *x.shape[2:])
        flow, share = self.flows(frames, [self.encode(f) for f in frames], when)
        out = warp(frames[0], flow[:, :2]) * share + warp(frames[1], flow[:, 2:]) * (1 - share)
        return out[:, :, :h, :w]


def pad(x: Tensor) -> Tensor:
    """(N, C, H, W) grown at the right and bottom to multiples of MULTIPLE, repeating the border."""
    h, w = x.shape[2:]
    return F.pad(x, (0, -w % MULTIPLE, 0, -h % MULTIPLE), mode="replicate")


def load_ifnet(path: Path, device: str = "cpu") -> IFNet:
    """The network with the weights of `path`, in eval mode on the device.

    Only tensors are read (weights_only): a pickle that carries code is refused, and none of it runs.
    Raises RecipeError, one line naming the file, for any file that is not EXPECTED.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as e:
        raise RecipeError(f"rife_weights {path}: {e.strerror or e}") from None
    except Exception as e:  # a hostile or damaged file may fail anywhere in the reader
        raise RecipeError(
            f"rife_weights {path}: refused, not a plain file of tensors ({type(e).__name__}); need {EXPECTED}"
        ) from None
    return build_ifnet(state, str(path)).to(device)


def build_ifnet(state: Any, name: str) -> IFNet:
    """The network of a state dict; widths are read from its shapes. Raises RecipeError naming what differs."""
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RecipeError(f"rife_weights {name}: holds no dictionary of tensors; need {EXPECTED}")
    state = {str(k).removeprefix("module."): v for k, v in state.items()}
    state = {k: v.float() for k, v in state.items() if not k.startswith(IGNORED)}
    try:
        hidden, features = state["encode.cnn3.weight"].shape[:2]
        channels = [state[f"block{i}.conv0.1.0.weight"].shape[0] for i in range(len(SCALES))]
        carried = state["block0.lastconv.0.weight"].shape[1] // 4 - 5
        net = IFNet(channels, features, hidden, carried)
        net.load_state_dict(state)
    except KeyError as e:
        raise RecipeError(f"rife_weights {name}: no {e.args[0]} in it; need {EXPECTED}") from None
    except (RuntimeError, ValueError, IndexError) as e:
        detail = " ".join(str(e).split())[:160]
        raise RecipeError(f"rife_weights {name}: another layout ({detail}); need {EXPECTED}") from None
    return net.eval().requires_grad_(False)
