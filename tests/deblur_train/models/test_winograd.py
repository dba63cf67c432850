"""Minimal filtering gives what the convolution gives, values and gradients, and is used only where it pays."""

import numpy as np
import pytest
import torch
from torch import nn

from deblur_train.models.winograd import Conv4x4, transforms


def test_the_transforms_are_a_filter():
    data, weights, results = transforms()
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=6), rng.normal(size=4)
    want = np.correlate(x, w, "valid")
    np.testing.assert_allclose(results @ ((data @ x) * (weights @ w)), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 5, 8), (1, 1, 3), (3, 9, 6)])
def test_values_and_gradients(size, bias):
    torch.manual_seed(0)
    conv = Conv4x4(40, 33, bias)
    x = torch.randn(size[0], 40, *size[1:]).contiguous(memory_format=torch.channels_last).requires_grad_()
    wanted = [x, *conv.parameters()]
    results = []
    for y in (conv.filtered(x), nn.Conv2d.forward(conv, x)):
        weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
        results.append([y, *torch.autograd.grad(y, wanted, weight)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_frozen_weights_and_given_inputs_ask_for_no_gradient():
    conv = Conv4x4(32, 32)
    x = torch.randn(1, 32, 6, 6)
    conv.filtered(x).sum().backward()
    assert conv.weight.grad is not None and x.grad is None
    conv.requires_grad_(False).zero_grad()
    x.requires_grad_()
    conv.filtered(x).sum().backward()
    assert x.grad is not None and conv.weight.grad is None


def test_large_maps_in_float32_take_it(monkeypatch):
    calls = []
    monkeypatch.setattr(Conv4x4, "filtered", lambda self, x: calls.append(x.shape) or x)
    conv = Conv4x4(32, 32)
    with torch.no_grad():
        conv(torch.zeros(1, 32, 33, 33))
        conv(torch.zeros(1, 32, 8, 8))
        conv.bfloat16()(torch.zeros(1, 32, 33, 33, dtype=torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            conv.float()(torch.zeros(1, 32, 33, 33))
    assert calls == [(1, 32, 33, 33)]
