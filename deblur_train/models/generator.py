"""The FPN generators of DeblurGAN-v2 (Kupyn et al. 2019, section 3.1; layout in the official code).

Five backbone maps; 1x1 laterals; nearest x2 top-down sums; td1-3; heads; nearest upsampling and concatenation; smooth,
+ map 0, smooth2, final; ``clamp(tanh(.) + x, -1, 1)``: a residual on the blurred image.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from deblur_train.config import Backbone
from deblur_train.models.base import Generator
from deblur_train.models.inception import InceptionResNetV2
from deblur_train.models.mobilenet import TAPS, mobilenet_features
from deblur_train.models.nafnet import NAFNet, NAFNetShape
from deblur_train.models.norm import InstanceNorm

FPN = Literal["mobilenet", "mobilenet-dsc", "inception"]
FPNS: tuple[FPN, ...] = get_args(FPN)
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)

# F, C, and the smallest padded side: inception's unpadded stem leaves too little to reflect below 128 pixels.
WIDTHS: dict[str, tuple[int, int, int]] = {
    "mobilenet": (128, 64, 32),
    "mobilenet-dsc": (128, 64, 32),
    "inception": (256, 128, 128),
}


def _up(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else interpolate(x, scale_factor=factor, mode="nearest")


class Conv3x3(nn.Conv2d):
    """The plain 3x3 convolution of the official pyramid."""

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=bias)


class SeparableConv3x3(nn.Sequential):
    """Depthwise 3x3, then pointwise: what mobilenet-dsc puts in place of every other 3x3 convolution."""

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False),
            nn.Conv2d(channels_in, channels_out, 1, bias=bias),
        )


class Head(nn.Module):
    """Two bias-free 3x3 convolutions, each with ReLU: F -> C -> C channels."""

    def __init__(self, conv: type, channels_in: int, channels: int) -> None:
        super().__init__()
        self.block0 = conv(channels_in, channels, bias=False)
        self.block1 = conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.block1(torch.relu_(self.block0(x))))


def _block(conv: type, channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(conv(channels_in, channels), InstanceNorm(channels), nn.ReLU(inplace=True))


class Pyramid(nn.Module):
    """What the three pyramids share: laterals and the top-down path; the encoders come from subclasses."""

    enc0: nn.Module
    enc1: nn.Module
    enc2: nn.Module
    enc3: nn.Module
    enc4: nn.Module

    def __init__(self, conv: type, taps: list[int], width: int) -> None:
        super().__init__()
        self.td1, self.td2, self.td3 = (_block(conv, width, width) for _ in range(3))
        self.lateral4 = nn.Conv2d(taps[4], width, 1, bias=False)
        self.lateral3 = nn.Conv2d(taps[3], width, 1, bias=False)
        self.lateral2 = nn.Conv2d(taps[2], width, 1, bias=False)
        self.lateral1 = nn.Conv2d(taps[1], width, 1, bias=False)
        self.lateral0 = nn.Conv2d(taps[0], width // 2, 1, bias=False)

    def laterals(self, x: Tensor) -> list[Tensor]:
        """Maps 0-4 at strides 2, 4, 8, 16, 32 after their 1x1 convolutions."""
        encoders = [self.enc0, self.enc1, self.enc2, self.enc3, self.enc4]
        sides = [self.lateral0, self.lateral1, self.lateral2, self.lateral3, self.lateral4]
        maps = []
        for encoder, side in zip(encoders, sides, strict=True):
            x = encoder(x)
            maps.append(side(x))
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        map0, side1, side2, side3, map4 = self.laterals(x)
        map3 = self.td1(side3 + _up(map4, 2))
        map2 = self.td2(side2 + _up(map3, 2))
        map1 = self.td3(side1 + _up(map2, 2))
        return map0, map1, map2, map3, map4


class MobileNetPyramid(Pyramid):
    def __init__(self, conv: type, width: int, whole: bool) -> None:
        super().__init__(conv, [channels for _, _, channels in TAPS], width)
        self.features = mobilenet_features(whole)
        # Registered a second time under enc0..4, as in the official code: its checkpoints hold both names.
        for i, (first, stop, _) in enumerate(TAPS):
            setattr(self, f"enc{i}", nn.Sequential(*list(self.features.children())[first:stop]))

    @property
    def backbone(self) -> nn.Module:
        return self.features


class InceptionPyramid(Pyramid):
    def __init__(self, conv: type, width: int) -> None:
        super().__init__(conv, [32, 64, 192, 1088, 2080], width)
        net = self.inception = InceptionResNetV2()
        self.enc0 = net.conv2d_1a
        self.enc1 = nn.Sequential(net.conv2d_2a, net.conv2d_2b, net.maxpool_3a)
        self.enc2 = nn.Sequential(net.conv2d_3b, net.conv2d_4a, net.maxpool_5a)
        self.enc3 = nn.Sequential(net.mixed_5b, net.repeat, net.mixed_6a)
        self.enc4 = nn.Sequential(net.repeat_1, net.mixed_7a)

    @property
    def backbone(self) -> nn.Module:
        return self.inception

    def laterals(self, x: Tensor) -> list[Tensor]:
        # The unpadded convolutions of the stem lose pixels (256 -> 127, 62, 29, 14, 6): reflected back to 128 ... 8.
        margins = ((0, 1, 0, 1), (1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1))
        return [
            pad(m, margin, mode="reflect") for m, margin in zip(super().laterals(x), margins, strict=True)
        ]


class FPNGenerator(Generator):
    """``(N, 3, H, W)`` float RGB in [-1, 1] to the same; any H, W >= 1 (reflected up to whole blocks, cropped back)."""

    def __init__(self, backbone: FPN) -> None:
        super().__init__()
        width, channels, self.smallest = WIDTHS[backbone]
        self.backbone_name = backbone
        separable = backbone == "mobilenet-dsc"
        conv: type = SeparableConv3x3 if separable else Conv3x3
        self.fpn: MobileNetPyramid | InceptionPyramid
        if backbone == "inception":
            self.fpn = InceptionPyramid(conv, width)
        else:
            self.fpn = MobileNetPyramid(conv, width, whole=not separable)
        self.head1, self.head2, self.head3, self.head4 = (Head(conv, width, channels) for _ in range(4))
        self.smooth = _block(conv, 4 * channels, channels)
        self.smooth2 = _block(conv, channels, channels // 2)
        self.final = conv(channels // 2, 3)

    def restore(self, x: Tensor) -> Tensor:
        if not self.training:
            self.say_size(x)
        map0, map1, map2, map3, map4 = self.fpn(x)
        maps = [
            _up(self.head4(map4), 8),
            _up(self.head3(map3), 4),
            _up(self.head2(map2), 2),
            self.head1(map1),
        ]
        smoothed = self.smooth(torch.cat(maps, dim=1))
        smoothed = self.smooth2(_up(smoothed, 2) + map0)
        residual = self.final(_up(smoothed, 2))
        return torch.clamp(torch.tanh(residual) + x, -1, 1)

    @property
    def pretrained(self) -> nn.Module:
        return self.fpn.backbone

    @property
    def last_convolution(self) -> nn.Conv2d:
        last = self.final[-1] if isinstance(self.final, nn.Sequential) else self.final
        assert isinstance(last, nn.Conv2d)
        return last


def build_generator(name: str, shape: NAFNetShape | None = None) -> Generator:
    """A generator with random weights (torch's global generator draws them). Raises ValueError for an unknown name.

    It takes and gives (N, 3, H, W) float32 RGB in [-1, 1], display-encoded, any H and W.

    ``mobilenet``: 3.31 M parameters, 41 kMAC/px; ``mobilenet-dsc``: 1.19 M, 10 kMAC/px; ``inception``: 60.9 M;
    ``nafnet``: as ``shape`` says, by default 2.66 M parameters and 22 kMAC/px.
    """
    if name == "nafnet":
        return NAFNet(shape or NAFNetShape())
    for known in FPNS:
        if name == known:
            return FPNGenerator(known)
    raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
