"""MobileNetV2 feature layers (Sandler et al. 2018, table 2), with the key names of the official DeblurGAN-v2 checkpoints."""

from __future__ import annotations

from torch import Tensor, nn

from deblur_train.models.norm import BatchNorm

# expansion, output channels, blocks, stride of the first block (table 2 of the paper).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# Feature layers of each pyramid tap and its channels (the official code's): enc0 = features[0:2] and so on.
TAPS = ((0, 2, 16), (2, 4, 24), (4, 7, 32), (7, 11, 64), (11, 16, 160))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; with a skip where shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [
                nn.Conv2d(channels_in, hidden, 1, bias=False),
                BatchNorm(hidden),
                nn.ReLU6(inplace=True),
            ]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            BatchNorm(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, channels_out, 1, bias=False),
            BatchNorm(channels_out),
        ]
        self.conv = nn.Sequential(*layers)
        self.skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


def mobilenet_features(whole: bool = True) -> nn.Sequential:
    """The feature layers, ``(N, 3, H, W)`` in; layer 18 gives ``(N, 1280, H/32, W/32)``.

    ``whole=False`` stops after layer 15, the last one that the pyramid uses.
    """
    layers: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), BatchNorm(32), nn.ReLU6(inplace=True))
    ]
    channels = 32
    for expansion, out, blocks, stride in STAGES:
        for i in range(blocks):
            layers.append(InvertedResidual(channels, out, stride if i == 0 else 1, expansion))
            channels = out
    layers.append(
        nn.Sequential(nn.Conv2d(channels, 1280, 1, bias=False), BatchNorm(1280), nn.ReLU6(inplace=True))
    )
    return nn.Sequential(*(layers if whole else layers[: TAPS[-1][1]]))


def official_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV2 weights under the official names, whether they come so or under torchvision's.

    torchvision nests each conv+norm+ReLU in a Sequential of its own; the official code has them in one row.
    """
    if "features.1.conv.0.0.weight" not in state:
        return state
    return {_from_torchvision(key): value for key, value in state.items()}


def _from_torchvision(key: str) -> str:
    parts = key.split(".")
    if len(parts) < 4 or parts[2] != "conv":
        return key
    head, rest = parts[:3], parts[3:]
    project = (
        2 if int(parts[1]) > 1 else 1
    )  # groups before the projection: expansion (not in block 1) and depthwise
    group = int(rest[0])
    if group < project:  # "0.1.weight": the second module of the first group
        index, tail = 3 * group + int(rest[1]), rest[2:]
    else:
        index, tail = 3 * project + group - project, rest[1:]
    return ".".join([*head, str(index), *tail])
