"""Weights trained elsewhere: ImageNet backbones and VGG19, from a file or downloaded by the user's own machine."""

from __future__ import annotations

import urllib.error

import torch
from torch import Tensor, nn

from deblur_train.models.base import Generator
from deblur_train.models.checkpoint import CheckpointError, State, read_state
from deblur_train.models.mobilenet import official_keys

URLS = {
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "mobilenet": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "inception": "http://data.lip6.fr/cadene/pretrainedmodels/inceptionresnetv2-520b38e4.pth",
}


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# VGG19's layers up to the third convolution of its third block: position -> channels in and out; positions of the pools.
VGG_CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
}
VGG_POOLS = (4, 9)


class VGG19Features(nn.Module):
    """VGG19 up to its third convolution of the third block, before that one's ReLU (``features.14``).

    ``(N, 3, H, W)`` in [-1, 1] to ``(N, 256, H/4, W/4)``. Frozen, always in eval mode. Every item of a batch is
    normalised by ImageNet's mean and deviation (the official code does it for the first item only).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(15):
            if i in VGG_CONVOLUTIONS:
                layers.append(nn.Conv2d(*VGG_CONVOLUTIONS[i], 3, padding=1))
            else:
                layers.append(nn.MaxPool2d(2) if i in VGG_POOLS else nn.ReLU(inplace=True))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VGG19Features:
        return super().train(False)

    def normalise(self, x: Tensor) -> Tensor:
        """[-1, 1] to ImageNet's zero mean and unit deviation."""
        return ((x + 1) / 2 - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.normalise(x))


def _read(source: str, net: str) -> State:
    """``source`` is a file, or ``imagenet``: downloaded once into torch's own cache. Raises CheckpointError."""
    if source != "imagenet":
        return read_state(source)[0]
    url = URLS[net]
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
    except (urllib.error.URLError, OSError, RuntimeError) as e:
        raise CheckpointError(
            f"the ImageNet weights of {net} could not be downloaded ({getattr(e, 'reason', e)}); "
            f"fetch {url} on another machine and give the file instead"
        ) from None


def load_vgg19(source: str) -> VGG19Features:
    """The frozen perceptual network from torchvision's VGG19 weights (only ``features.0`` to ``.14`` are needed)."""
    state = _read(source, "vgg19")
    net = VGG19Features()
    own = net.state_dict()
    for i in VGG_CONVOLUTIONS:
        for kind in ("weight", "bias"):
            key = f"features.{i}.{kind}"
            if key not in state or state[key].shape != own[key].shape:
                raise CheckpointError(f"{source}: not VGG19 weights: {key} is missing or has another shape")
            own[key].copy_(state[key])
    return net


def load_backbone(generator: Generator, source: str) -> None:
    """Fill the generator's backbone with ImageNet weights (torchvision's or the official repository's key names)."""
    if generator.pretrained is None:
        raise CheckpointError(
            f"{source}: {generator.backbone_name} has no part that ImageNet weights exist for; start from a whole "
            "generator with --init"
        )
    kind = "inception" if generator.backbone_name == "inception" else "mobilenet"
    state = _read(source, kind)
    if kind == "mobilenet":
        state = {
            k.removeprefix("features."): v
            for k, v in official_keys(state).items()
            if k.startswith("features.")
        }
    elif state.get("last_linear.weight", torch.empty(0)).shape[0] == 1001:
        # The port's file has a background class in front; the official pyramid drops it.
        state = state | {k: state[k][1:] for k in ("last_linear.weight", "last_linear.bias")}
    with torch.no_grad():
        for key, own in generator.pretrained.state_dict().items():
            if key not in state and key.endswith("num_batches_tracked"):
                continue  # older files do not have it
            if key not in state or state[key].shape != own.shape:
                raise CheckpointError(
                    f"{source}: not {kind} backbone weights: {key} is missing or has another shape"
                )
            own.copy_(state[key])
