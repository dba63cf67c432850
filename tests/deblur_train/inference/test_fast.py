"""Generators rewritten for CPUs give what the plain ones give, in any strips, with and without fused operations."""

import pytest
import torch

from deblur_train import build_generator
from deblur_train.inference import fused
from deblur_train.inference.fast import Fast, fastest
from deblur_train.inference.fast_fpn import UpConv
from deblur_train.inference.fold import folded
from deblur_train.models.base import Generator, start_near_identity
from deblur_train.models.nafnet import NAFNet, NAFNetShape
from deblur_train.models.norm import set_norm_stats
from tests.helpers.golden import fill

SHAPES = {
    "unshuffled": NAFNetShape(8, (1, 0, 1), 1, (0, 1, 1), 2),
    "official": NAFNetShape(8, (1, 2), 1, (1, 1), 1),
    "flat": NAFNetShape(4, (), 2, (), 4),
}


def generator(name: str) -> Generator:
    """With weights of the size that trained ones have: what it changes is large, and norms have something to do."""
    torch.manual_seed(0)
    if name not in SHAPES:
        net = build_generator(name)
        fill(net, 1.15)
        start_near_identity(net, 0.3)
        return net.eval()
    net = NAFNet(SHAPES[name])
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if key.endswith(("beta", "gamma", "norm1.bias", "norm2.bias")):
                weight.normal_(0, 0.5)
            elif "norm" in key:
                weight.normal_(1, 0.3)
    return net.eval()


@pytest.mark.parametrize("plain_torch", [False, True])
@pytest.mark.parametrize("strip", [1 << 12, 1 << 16, 1 << 24])
@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-dsc", *SHAPES])
@torch.no_grad()
def test_the_same_to_1e_5(monkeypatch, name, strip, plain_torch):
    if plain_torch:
        monkeypatch.setattr(fused, "FUSED", False)
    monkeypatch.setattr(fused, "STRIP", strip)
    net = generator(name)
    fast = fastest(folded(net))
    assert isinstance(fast, Fast)
    for size in ((1, 3, 96, 64), (2, 3, 37, 50), (1, 3, 1, 1)):
        x = torch.rand(size) * 2 - 1
        given = x.clone()
        want = net(x)
        assert (fast(x) - want).abs().max() < 1e-5
        assert torch.equal(x, given), "the input stays as it is"
        assert size == (1, 3, 1, 1) or (want - x).abs().max() > 1e-2, "an identity would prove nothing"


@pytest.mark.parametrize(
    ("name", "stats"), [("mobilenet", "image"), ("unshuffled", "local"), ("mobilenet-dsc", "local")]
)
def test_statistics_of_the_image_go_the_plain_way(name, stats):
    net = generator(name)
    set_norm_stats(net, stats, 32)
    assert isinstance(fastest(folded(net)), Generator)


def test_what_does_not_agree_goes_the_plain_way(monkeypatch):
    """Weights that overflow: the plain network says NaN, fused activations would say 0. And operations of another torch."""
    net = generator("mobilenet-dsc")
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if key.startswith("smooth"):
                weight.mul_(1e38)
    assert isinstance(fastest(folded(net)), Generator)
    sound = folded(generator("mobilenet-dsc"))
    monkeypatch.setitem(fused.ACTS, "relu6", ("an unknown name", []))
    assert isinstance(fastest(sound), Generator) == fused.FUSED


@pytest.mark.parametrize("factor", [2, 4, 8])
@torch.no_grad()
def test_a_convolution_of_an_upsampled_map(factor):
    """Blocks reach half a block over each border; inside they are torch's own answer, strips give the same rows."""
    torch.manual_seed(0)
    weight, x = torch.randn(5, 7, 3, 3), torch.randn(1, 7, 4, 3).contiguous(memory_format=torch.channels_last)
    large = torch.nn.functional.interpolate(x, scale_factor=factor, mode="nearest")
    want = torch.nn.functional.conv2d(large, weight, padding=1)[0].permute(1, 2, 0)
    up = UpConv(weight, factor)
    blocks = torch.cat([up(x, a, b) for a, b in ((0, 1), (1, 3), (3, 5))])
    assert torch.allclose(blocks, up(x), atol=1e-5)
    half = factor // 2
    got = blocks.permute(0, 2, 1, 3, 4).reshape(5 * factor, 4 * factor, 5)[half:-half, half:-half]
    assert torch.allclose(got, want, atol=1e-4)
