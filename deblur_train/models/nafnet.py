"""NAFNet (Chen et al. 2022, "Simple Baselines for Image Restoration"), under the key names of the official checkpoints.

A U-Net of blocks without activation functions: layer norm over channels, a gate that multiplies two halves, and a
channel attention that is one mean and one 1x1 convolution. Official networks take and give [0, 1] and are extended by
zeros; here that range stays inside. With an ``unshuffle`` of 2 the network sees 2x2 pixels as channels of one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, layer_norm, pixel_shuffle, pixel_unshuffle

from deblur_train.models.base import Generator
from deblur_train.models.norm import StatsChoice, box_mean, set_norm_stats

EPS = 1e-6  # of the layer norm, as in the official code
BLOCK = 32  # pixels a side of the areas whose mean colour the TLC guard compares
MOSAIC = 0.1  # in [-1, 1], about 13 codes of 255: how far an area's mean colour may move by local statistics


@dataclass(frozen=True)
class NAFNetShape:
    """Channels of the first level (doubled at each next one) and blocks a level; ``enc`` and ``dec`` are equally long.

    The default is ``--config nafnet``'s. Official: GoPro and REDS have enc 1, 1, 1, 28, middle 1, dec 1, 1, 1, 1; SIDD
    enc 2, 2, 4, 8, middle 12, dec 2, 2, 2, 2; widths 32 and 64; no unshuffle (1).
    """

    width: int = 32
    enc: tuple[int, ...] = (1, 1, 2)
    middle: int = 4
    dec: tuple[int, ...] = (1, 1, 1)
    unshuffle: int = 2

    def __post_init__(self) -> None:
        if len(self.enc) != len(self.dec):
            raise ValueError(
                f"enc has {len(self.enc)} levels and dec {len(self.dec)}; they must have the same number"
            )
        if self.width < 1 or self.unshuffle < 1 or min([*self.enc, self.middle, *self.dec]) < 0:
            raise ValueError("width and unshuffle must be at least 1, numbers of blocks at least 0")

    @property
    def stride(self) -> int:
        """Image sides inside the network are multiples of this."""
        return self.unshuffle * 2 ** len(self.enc)

    def words(self) -> str:
        return json.dumps(asdict(self))


def shape_from_words(words: str) -> NAFNetShape:
    """The inverse of :meth:`NAFNetShape.words`. Raises ValueError, TypeError or KeyError for anything else."""
    held: dict[str, Any] = json.loads(words)
    enc, dec = (tuple(int(n) for n in held[k]) for k in ("enc", "dec"))
    return NAFNetShape(int(held["width"]), enc, int(held["middle"]), dec, int(held["unshuffle"]))


def shape_of(state: dict[str, Tensor]) -> NAFNetShape | None:
    """The shape of the NAFNet that a state dict belongs to, told from its keys; None for another model."""
    intro = state.get("intro.weight")
    if intro is None or intro.dim() != 4 or intro.shape[1] % 3 or "ending.weight" not in state:
        return None
    unshuffle = round((intro.shape[1] / 3) ** 0.5)
    if 3 * unshuffle**2 != intro.shape[1]:
        return None

    def blocks(prefix: str) -> int:
        return sum(k.startswith(prefix) and k.endswith(".beta") for k in state)

    levels = range(sum(k.startswith("downs.") and k.endswith(".weight") for k in state))
    enc = tuple(blocks(f"encoders.{i}.") for i in levels)
    dec = tuple(blocks(f"decoders.{i}.") for i in levels)
    return NAFNetShape(intro.shape[0], enc, blocks("middle_blks."), dec, unshuffle)


class ChannelNorm(nn.Module):
    """Layer norm of each pixel over its channels (official name: LayerNorm2d); keys ``weight`` and ``bias``.

    With channels last a pixel's channels lie together and torch's own kernel needs no copy; it sums in float32 and
    gives what it was given. So autocast, which would have it give float32, stays out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._normalised(x.to(torch.get_autocast_dtype(device)))
        return self._normalised(x)

    def _normalised(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, EPS).permute(0, 3, 1, 2)


class SpatialMean(nn.Module, StatsChoice):
    """The mean of each channel over the image, ``(N, C, 1, 1)``; with local statistics over windows, ``(N, C, H, W)``.

    Local: TLC (Chu et al. 2022, "Improving Image Restoration by Revisiting Global Information Aggregation"). A network
    trained on crops meets means of a whole frame only at test time; windows of 1.5 crops close that gap.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.stats == "local" and not self.training:
            return box_mean(x.double(), self.local_size(x)).to(x.dtype)
        return x.mean(dim=(2, 3), keepdim=True)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


class Block(nn.Module):
    """Both halves of a NAFNet block: depthwise convolution with attention, then a gated pair of 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.sca = nn.Sequential(SpatialMean(), nn.Conv2d(c, c, 1))
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.norm1, self.norm2 = ChannelNorm(c), ChannelNorm(c)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = _gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self._scaled(self.conv3, y * self.sca(y), self.beta)
        return x + self._scaled(self.conv5, _gate(self.conv4(self.norm2(x))), self.gamma)

    def _scaled(self, conv: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
        """``conv(x) * scale``; in training by scaled weights: three passes over a map less, and no float32 under autocast."""
        if not self.training or conv.bias is None:
            return conv(x) * scale
        return conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale.flatten())


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


class NAFNet(Generator):
    """NAFNet of any shape as a generator: RGB in [-1, 1] in and out."""

    backbone_name = "nafnet"
    zero_padded = True

    def __init__(self, shape: NAFNetShape) -> None:
        super().__init__()
        self.shape = shape
        self.stride = self.smallest = shape.stride
        self.fell_back = 0  # images whose local statistics gave colour blocks, restored by whole-image ones
        width, image = shape.width, 3 * shape.unshuffle**2
        widths = [width * 2**level for level in range(len(shape.enc) + 1)]
        self.intro = nn.Conv2d(image, width, 3, padding=1)
        self.ending = nn.Conv2d(width, image, 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(c, n) for c, n in zip(widths, shape.enc, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths[:-1])
        self.middle_blks = _blocks(widths[-1], shape.middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)) for c in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(_blocks(c, n) for c, n in zip(widths[-2::-1], shape.dec, strict=True))

    def residual(self, x: Tensor) -> Tensor:
        """What the network adds to ``(N, 3, H, W)`` RGB in [0, 1]; H and W are multiples of ``stride``."""
        factor = self.shape.unshuffle
        x = self.intro(pixel_unshuffle(x, factor) if factor > 1 else x)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, skip, blocks in zip(self.ups, reversed(skips), self.decoders, strict=True):
            x = blocks(up(x) + skip)
        x = self.ending(x)
        return pixel_shuffle(x, factor) if factor > 1 else x

    def restore(self, x: Tensor) -> Tensor:
        if self.training:
            return x + 2 * self.residual((x + 1) / 2)
        self.say_size(x)
        return (x + 2 * self.residual((x + 1) / 2)).clamp(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            return y
        local = [m for m in self.modules() if isinstance(m, SpatialMean) and m.stats == "local"]
        return self._without_mosaics(x, y, local[0].window) if local else y

    def _without_mosaics(self, x: Tensor, y: Tensor, window: int) -> Tensor:
        """``y``, restored from ``x`` with local statistics, but by whole-image ones where those gave colour blocks.

        Removing blur moves light by its length; it does not repaint whole areas. Where an area's mean colour has moved
        far from the input, the whole-image answer is computed too, and taken if it stays nearer to the input.
        """
        moved = _colour_shift(y, x)
        suspects = (moved > MOSAIC).nonzero().flatten().tolist()
        if not suspects:
            return y
        set_norm_stats(self, "tracked")
        try:
            whole = super().forward(x[suspects])
        finally:
            set_norm_stats(self, "local", window)
        y = y.clone()
        for i, other in zip(suspects, whole, strict=True):
            apart, own = _colour_shift(y[i : i + 1], other[None]), _colour_shift(other[None], x[i : i + 1])
            if apart > MOSAIC and own < moved[i]:
                y[i] = other
                self.fell_back += 1
        return y

    @property
    def last_convolution(self) -> nn.Conv2d:
        return self.ending

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "shape": self.shape.words()}


def _colour_shift(a: Tensor, b: Tensor) -> Tensor:
    """Per item, the largest difference of mean colour over areas of 32 pixels a side (or the whole of a small image)."""
    size = [min(BLOCK, n) for n in a.shape[-2:]]
    return avg_pool2d((a - b).float(), size).abs().amax(dim=(1, 2, 3))
