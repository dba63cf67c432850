"""NAFNet for inference on a CPU: fewer operations and passes over memory, the same answer to rounding.

The affine part of each layer norm goes into the convolution behind it, the residual scales and the attention into the
one before; sums happen as convolutions write. A block is two walks over strips of rows, for its attention needs the mean
of the whole map in between: so only a level's map, its gated half and the skips are ever whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deblur_train.inference.fused import Conv, as_map, conv_of, empty, pixels, strips
from deblur_train.models.nafnet import EPS, Block, ChannelNorm, NAFNet


class FastBlock:
    def __init__(self, block: Block) -> None:
        c = self.channels = block.conv3.in_channels
        self.conv1, self.conv4 = _behind(block.norm1, block.conv1), _behind(block.norm2, block.conv4)
        self.conv2 = conv_of(block.conv2)
        self.conv3, self.conv5 = conv_of(block.conv3), conv_of(block.conv5)
        for conv, scale in ((self.conv3, block.beta), (self.conv5, block.gamma)):
            conv.weight = conv.weight * scale.detach().view(-1, 1, 1, 1)
            assert conv.bias is not None
            conv.bias = conv.bias * scale.detach().flatten()
        attention: Any = block.sca[1]
        self.attention = attention.weight.detach().view(c, c), attention.bias.detach()

    def run(self, x: Tensor, gated: Tensor) -> None:
        """``x``, ``(1, C, H, W)``, through the block in place; ``gated`` is room of the same size."""
        c, (height, width) = self.channels, x.shape[2:]
        total = torch.zeros(c, dtype=torch.float64)
        parts = list(strips(height, 8 * c * width))
        for start, stop in parts:
            y = self.conv2.rows(lambda a, b: self.conv1(_normalised(x[:, :, a:b])), start, stop, height)
            into = gated[:, :, start:stop]
            torch.mul(y[:, :c], y[:, c:], out=into)
            total += into.sum(dim=(0, 2, 3))
        weight, bias = self.attention
        attention = weight @ (total / (height * width)).float() + bias
        conv3 = Conv(self.conv3.weight * attention.view(1, -1, 1, 1), self.conv3.bias)
        for start, stop in parts:
            part = conv3.onto(x[:, :, start:stop], gated[:, :, start:stop])
            y = self.conv4(_normalised(part))
            self.conv5.onto(part, y[:, :c] * y[:, c:])


def _behind(norm: ChannelNorm, conv: torch.nn.Conv2d) -> Conv:
    """``conv`` with the norm's own scale and shift in it."""
    weight = conv.weight.detach().double()
    assert conv.bias is not None
    bias = conv.bias.detach().double() + weight[:, :, 0, 0] @ norm.bias.detach().double()
    return Conv(weight * norm.weight.detach().double().view(1, -1, 1, 1), bias)


def _normalised(x: Tensor) -> Tensor:
    """Each pixel to zero mean and unit variance over its channels: layer norm, three times as fast as torch's at 32."""
    flat = pixels(x).reshape(-1, x.shape[1])
    flat = flat - flat.mean(1, keepdim=True)
    scale = torch.linalg.vector_norm(flat, dim=1).square_().div_(x.shape[1]).add_(EPS).rsqrt_()
    return as_map(flat.mul_(scale.unsqueeze(1)).view(x.shape[2], x.shape[3], -1))


class FastNAFNet:
    """The ``restore`` of a NAFNet whose attention sees the whole image."""

    def __init__(self, net: NAFNet) -> None:
        factor = self.factor = net.shape.unshuffle
        self.encoders = [_blocks(b) for b in net.encoders]
        self.middle = _blocks(net.middle_blks)
        self.decoders = [_blocks(b) for b in net.decoders]
        self.downs = [conv_of(down) for down in net.downs]
        # Where torch's shuffles put a pixel's neighbours inside each channel, here they come before the channels: whole
        # pixels move.
        order = torch.arange(3 * factor**2).view(3, factor, factor).permute(1, 2, 0).flatten()
        self.intro = Conv(net.intro.weight[:, order], net.intro.bias, padding=1)
        assert net.ending.bias is not None
        self.ending = Conv(2 * net.ending.weight[order], 2 * net.ending.bias[order], padding=1)
        self.ups = []
        ups: Any = net.ups
        for up in ups:
            weight = up[0].weight
            order = torch.arange(len(weight)).view(-1, 2, 2).permute(1, 2, 0).flatten()
            self.ups.append(Conv(weight[order], None))

    def __call__(self, x: Tensor) -> Tensor:
        """``(1, 3, H, W)`` RGB in [-1, 1] to the same; sides are multiples of the stride."""
        f, (height, width) = self.factor, (x.shape[2] // self.factor, x.shape[3] // self.factor)
        image = pixels(x).reshape(height, f, width, f, 3).permute(0, 2, 1, 3, 4)
        unshuffled = (image * 0.5 + 0.5).reshape(height, width, -1)
        y = self.intro(as_map(unshuffled))
        del unshuffled
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            _run(blocks, y)
            skips.append(y)
            y = down(y)
        _run(self.middle, y)
        for up, blocks in zip(self.ups, self.decoders, strict=True):
            y = _up_onto(skips.pop(), up, y)
            _run(blocks, y)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        blocked = pixels(out).view(height, f, width, f, 3).permute(0, 2, 1, 3, 4)
        for start, stop in strips(height, 4 * width * (y.shape[1] + 3 * f * f)):
            change = self.ending.rows(lambda a, b: y[:, :, a:b], start, stop, height)
            torch.add(image[start:stop], pixels(change).view(-1, width, f, f, 3), out=blocked[start:stop])
        return out.clamp_(-1, 1)


def _blocks(blocks: Sequence[Block] | torch.nn.Module) -> list[FastBlock]:
    return [FastBlock(block) for block in blocks]  # type: ignore[union-attr]


def _run(blocks: list[FastBlock], x: Tensor) -> None:
    gated = empty(*x.shape[1:]) if blocks else x
    for block in blocks:
        block.run(x, gated)


def _up_onto(skip: Tensor, up: Conv, x: Tensor) -> Tensor:
    """``skip``, to which ``x`` is added at twice its sides."""
    c, (height, width) = skip.shape[1], x.shape[2:]
    blocked = pixels(skip).view(height, 2, width, 2, c).permute(0, 2, 1, 3, 4)
    for start, stop in strips(height, 16 * c * width):
        blocked[start:stop].add_(pixels(up(x[:, :, start:stop])).view(-1, width, 2, 2, c))
    return skip
