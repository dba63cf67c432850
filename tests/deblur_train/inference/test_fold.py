"""Folding norms into convolutions changes nothing but the time."""

import pytest
import torch

from deblur_train import build_generator
from deblur_train.inference.fold import folded
from deblur_train.models.base import start_near_identity
from deblur_train.models.norm import BatchNorm, InstanceNorm, set_norm_stats
from tests.helpers.golden import fill


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-dsc", "nafnet"])
@torch.no_grad()
def test_the_folded_generator_gives_the_same(name):
    torch.manual_seed(0)
    g = build_generator(name)
    if name != "nafnet":
        fill(g, 1.15)
    start_near_identity(g.eval(), 0.3)
    before = {k: v.clone() for k, v in g.state_dict().items()}
    net = folded(g)
    x = torch.rand(1, 3, 70, 90) * 2 - 1
    assert (g(x) - x).abs().max() > 1e-2, "an identity would prove nothing"
    assert (net(x) - g(x)).abs().max() < 1e-5
    assert not any(isinstance(m, BatchNorm | InstanceNorm) for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items()), "the original is untouched"


@torch.no_grad()
def test_norms_that_look_at_the_image_stay():
    g = build_generator("mobilenet-dsc").eval()
    set_norm_stats(g, "image")
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(folded(g)(x), g(x))
