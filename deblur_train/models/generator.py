"""The FPN generators of DeblurGAN-v2 (Kupyn et al. 2019, section 3.1; layout in the official code).

Five backbone maps; 1x1 laterals; nearest x2 top-down sums; td1-3; heads; nearest upsampling and concatenation; smooth,
+ map 0, smooth2, final; ``clamp(tanh(.) + x, -1, 1)``: a residual on the blurred image.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from deblur_train.config import Backbone
from deblur_train.models.inception import InceptionResNetV2
from deblur_train.models.mobilenet import TAPS, mobilenet_features
from deblur_train.models.norm import BatchNorm, InstanceNorm

BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
STRIDE = 32  # the pyramid halves five times

# F, C, and the smallest padded side: inception's unpadded stem leaves too little to reflect below 128 pixels.
WIDTHS: dict[str, tuple[int, int, int]] = {
    "mobilenet": (128, 64, 32),
    "mobilenet-dsc": (128, 64, 32),
    "inception": (256, 128, 128),
}


def _up(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else interpolate(x, scale_factor=factor, mode="nearest")


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend ``(N, C, H, W)`` at the bottom and the right by reflection, as often as it takes (H, W >= 1)."""
    h, w = x.shape[-2:]
    if height - h < h and width - w < w:
        return pad(x, (0, width - w, 0, height - h), mode="reflect")
    for dim, size in ((-2, height), (-1, width)):
        n = x.shape[dim]
        period = max(2 * n - 2, 1)
        i = torch.arange(size, device=x.device) % period
        x = x.index_select(dim, torch.minimum(i, period - i) if n > 1 else i * 0)
    return x


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


class FPNGenerator(nn.Module):
    """``(N, 3, H, W)`` float RGB in [-1, 1] to the same; any H, W >= 1 (reflected up to whole blocks, cropped back)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        width, channels, self.smallest = WIDTHS[backbone]
        self.backbone_name: Backbone = backbone
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

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        height = max(-(-h // STRIDE) * STRIDE, self.smallest)
        width = max(-(-w // STRIDE) * STRIDE, self.smallest)
        if (height, width) == (h, w):
            return self.restore(x)
        return self.restore(reflect_to(x, height, width))[..., :h, :w]

    def restore(self, x: Tensor) -> Tensor:
        """The network itself, for H and W that are multiples of 32 (what an exporter should trace)."""
        for layer in self.modules():
            # Nobody else needs it, and a traced graph must not leave symbols behind in the layers.
            if isinstance(layer, InstanceNorm) and layer.stats == "local":
                layer.image_size = (x.shape[-2], x.shape[-1])
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

    def freeze_backbone(self, frozen: bool) -> None:
        """Stop or resume training the backbone's parameters (its norm layers go on tracking statistics)."""
        self.fpn.backbone.requires_grad_(not frozen)

    def fix_norms(self, fixed: bool) -> None:
        """In training: normalise by the tracked statistics, which then stay, or by each batch's own.

        Statistics of a small crop tell the network what is in it, and inference on the tracked ones takes that away.
        Layers trained on with fixed statistics meet the same arithmetic in use (frozen batch norm against the
        inconsistency of training and test: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm").
        """
        for layer in self.modules():
            if isinstance(layer, InstanceNorm | BatchNorm):
                layer.train(not fixed)


def xavier_init(model: nn.Module, skip: nn.Module | None = None) -> None:
    """Xavier-normal weights and zero biases for every convolution outside ``skip`` (a pretrained backbone)."""
    skipped = set(skip.modules()) if skip is not None else set()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer not in skipped:
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_near_identity(generator: FPNGenerator, scale: float = 1e-2) -> None:
    """Shrink the last convolution so that the untrained generator gives its input back, nearly.

    Not zero: a zero last layer passes no gradient to the layers below in the first step.
    """
    final = generator.final
    last = final[-1] if isinstance(final, nn.Sequential) else final
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        last.weight.mul_(scale)
        if last.bias is not None:
            last.bias.zero_()


def build_generator(name: str) -> FPNGenerator:
    """A generator with random weights (torch's global generator draws them). Raises ValueError for an unknown name.

    ``mobilenet``: 3.31 M parameters, 41 kMAC/px; ``mobilenet-dsc``: 1.19 M, 10 kMAC/px; ``inception``: 60.9 M.
    """
    for known in BACKBONES:
        if name == known:
            return FPNGenerator(known)
    raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
