"""Inception-ResNet-v2 (Szegedy et al. 2016), with the key names of official DeblurGAN-v2 checkpoints.

The layer arithmetic is that of the public PyTorch port they hold: batch norm eps 1e-3, unpadded stem, residual scales
0.17, 0.10 and 0.20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblur_train.models.norm import BatchNorm


class BasicConv(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3), ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False)
        self.bn = BatchNorm(channels_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Branches ``branch0``, ``branch1``... side by side, concatenated over channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def join(self, x: Tensor) -> Tensor:
        return torch.cat([b(x) for name, b in self.named_children() if name.startswith("branch")], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x)


class ResidualBranches(Branches):
    """``relu(x + scale * conv1x1(branches(x)))``; the last block of the network leaves the ReLU out."""

    def __init__(
        self, channels: int, joined: int, scale: float, *branches: nn.Module, relu: bool = True
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.scale * self.conv2d(self.join(x))
        return torch.relu(y) if self.relu else y


def _seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def mixed_5b() -> Branches:
    return Branches(
        BasicConv(192, 96, 1),
        _seq(BasicConv(192, 48, 1), BasicConv(48, 64, 5, padding=2)),
        _seq(BasicConv(192, 64, 1), BasicConv(64, 96, 3, padding=1), BasicConv(96, 96, 3, padding=1)),
        _seq(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), BasicConv(192, 64, 1)),
    )


def block35() -> ResidualBranches:
    return ResidualBranches(
        320,
        128,
        0.17,
        BasicConv(320, 32, 1),
        _seq(BasicConv(320, 32, 1), BasicConv(32, 32, 3, padding=1)),
        _seq(BasicConv(320, 32, 1), BasicConv(32, 48, 3, padding=1), BasicConv(48, 64, 3, padding=1)),
    )


def mixed_6a() -> Branches:
    return Branches(
        BasicConv(320, 384, 3, stride=2),
        _seq(BasicConv(320, 256, 1), BasicConv(256, 256, 3, padding=1), BasicConv(256, 384, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def block17() -> ResidualBranches:
    return ResidualBranches(
        1088,
        384,
        0.10,
        BasicConv(1088, 192, 1),
        _seq(
            BasicConv(1088, 128, 1),
            BasicConv(128, 160, (1, 7), padding=(0, 3)),
            BasicConv(160, 192, (7, 1), padding=(3, 0)),
        ),
    )


def mixed_7a() -> Branches:
    return Branches(
        _seq(BasicConv(1088, 256, 1), BasicConv(256, 384, 3, stride=2)),
        _seq(BasicConv(1088, 256, 1), BasicConv(256, 288, 3, stride=2)),
        _seq(BasicConv(1088, 256, 1), BasicConv(256, 288, 3, padding=1), BasicConv(288, 320, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def block8(relu: bool = True, scale: float = 0.20) -> ResidualBranches:
    return ResidualBranches(
        2080,
        448,
        scale,
        BasicConv(2080, 192, 1),
        _seq(
            BasicConv(2080, 192, 1),
            BasicConv(192, 224, (1, 3), padding=(0, 1)),
            BasicConv(224, 256, (3, 1), padding=(1, 0)),
        ),
        relu=relu,
    )


class InceptionResNetV2(nn.Module):
    """The layers under their official names. The pyramid uses those up to ``mixed_7a``; the rest is only carried, so
    that checkpoints load strictly and go back out whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = BasicConv(3, 32, 3, stride=2)
        self.conv2d_2a = BasicConv(32, 32, 3)
        self.conv2d_2b = BasicConv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = BasicConv(64, 80, 1)
        self.conv2d_4a = BasicConv(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, stride=2)
        self.mixed_5b = mixed_5b()
        self.repeat = _seq(*(block35() for _ in range(10)))
        self.mixed_6a = mixed_6a()
        self.repeat_1 = _seq(*(block17() for _ in range(20)))
        self.mixed_7a = mixed_7a()
        self.repeat_2 = _seq(*(block8() for _ in range(9)))
        self.block8 = block8(relu=False, scale=1.0)
        self.conv2d_7b = BasicConv(2080, 1536, 1)
        self.last_linear = nn.Linear(1536, 1000)

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError("used through the pyramid's encoders, not by itself")
