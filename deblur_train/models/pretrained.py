"""Weights trained elsewhere: ImageNet backbones and VGG19, from a file or downloaded by the user's own machine."""

from __future__ import annotations

import urllib.error

import torch

from deblur_train.models.checkpoint import CheckpointError, State, read_state
from deblur_train.models.generator import FPNGenerator
from deblur_train.models.mobilenet import official_keys
from deblur_train.training.losses import VGG_CONVOLUTIONS, VGG19Features

URLS = {
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "mobilenet": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "inception": "http://data.lip6.fr/cadene/pretrainedmodels/inceptionresnetv2-520b38e4.pth",
}


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


def load_backbone(generator: FPNGenerator, source: str) -> None:
    """Fill the generator's backbone with ImageNet weights (torchvision's or the official repository's key names)."""
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
        for key, own in generator.fpn.backbone.state_dict().items():
            if key not in state and key.endswith("num_batches_tracked"):
                continue  # older files do not have it
            if key not in state or state[key].shape != own.shape:
                raise CheckpointError(
                    f"{source}: not {kind} backbone weights: {key} is missing or has another shape"
                )
            own.copy_(state[key])
