import numpy as np
import pytest
import torch
from torch import nn

from deblur_train import build_generator
from deblur_train.models.base import reflect_to, start_near_identity, xavier_init
from deblur_train.models.discriminator import Discriminator, build_discriminators
from deblur_train.models.norm import (
    BatchNorm,
    InstanceNorm,
    VirtualBatchNorm,
    normalise_locally,
    set_norm_stats,
)
from tests.helpers.golden import image


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_generator("mobilenet-dsc").eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 33), (32, 32), (40, 100)])
@pytest.mark.parametrize("stats", ["tracked", "image", "local"])
def test_any_size_comes_back_in_range(small, size, stats):
    set_norm_stats(small, stats, window=48)
    x = image(0, [2, 3, *size])
    with torch.no_grad():
        y = small(x)
    set_norm_stats(small, "tracked")
    assert y.shape == x.shape and torch.isfinite(y).all() and y.abs().max() <= 1


def test_reflection_equals_torchs_where_that_works_and_goes_on_where_not():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    want = nn.functional.pad(x, (0, 3, 0, 2), mode="reflect")
    assert torch.equal(reflect_to(x, 5, 7), want)
    np.testing.assert_array_equal(
        reflect_to(x, 11, 13)[0, 0].numpy(), np.pad(x[0, 0].numpy(), ((0, 8), (0, 9)), mode="reflect")
    )
    assert torch.equal(reflect_to(x[..., :1, :1], 4, 5), x[..., :1, :1].expand(1, 1, 4, 5))


def test_items_of_a_batch_do_not_depend_on_each_other(small):
    x = image(1, [2, 3, 64, 64])
    for stats in ("tracked", "image", "local"):
        set_norm_stats(small, stats, window=32)
        with torch.no_grad():
            torch.testing.assert_close(
                small(x)[1:], small(x[1:]), atol=1e-3, rtol=0
            )  # rounding, much amplified
    set_norm_stats(small, "tracked")


def test_near_identity_start_is_near_identity_and_still_learns():
    torch.manual_seed(0)
    g = build_generator("mobilenet-dsc").train()
    start_near_identity(g)
    x = image(0, [2, 3, 64, 64])
    y = g(x)
    assert (y - x).abs().max() < 0.1
    (y - image(1, [2, 3, 64, 64])).square().mean().backward()
    grads = [p.grad.abs().sum() for p in g.parameters() if p.grad is not None]
    assert sum(float(v) > 0 for v in grads) > 0.8 * len(grads)


def test_xavier_leaves_a_pretrained_backbone_alone():
    g = build_generator("mobilenet-dsc")
    backbone = {k: v.clone() for k, v in g.fpn.backbone.state_dict().items()}
    xavier_init(g, skip=g.fpn.backbone)
    assert all(torch.equal(v, backbone[k]) for k, v in g.fpn.backbone.state_dict().items())
    w = g.smooth[0][1].weight  # pointwise: variance 2 / (fan_in + fan_out)
    assert w.var().item() == pytest.approx(2 / (256 + 64), rel=0.1)


def test_freezing_the_backbone():
    g = build_generator("mobilenet-dsc").train()
    g.freeze_backbone(True)
    g(image(0, [1, 3, 64, 64])).sum().backward()
    with_grad = {
        k.split(".")[0] + "." + k.split(".")[1] for k, p in g.named_parameters() if p.grad is not None
    }
    assert "fpn.features" not in with_grad and "fpn.td1" in with_grad


def test_fixed_norms_train_what_inference_computes():
    torch.manual_seed(0)
    g = build_generator("mobilenet-dsc").train()
    x = image(0, [2, 3, 64, 64])
    for _ in range(3):
        g(x)  # tracks statistics
    before = {k: v.clone() for k, v in g.named_buffers()}
    g.fix_norms(True)
    y = g(x)
    y.square().sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in g.named_buffers())
    assert all(p.grad is not None for p in g.parameters())
    assert torch.equal(y, g.eval()(x))
    g.train().fix_norms(False)
    assert not torch.equal(y, g(x))
    assert not all(torch.equal(v, before[k]) for k, v in g.named_buffers())


def test_instance_norm_equals_torchs():
    x = image(0, [3, 5, 9, 7])
    own, theirs = InstanceNorm(5).train(), nn.InstanceNorm2d(5, track_running_stats=True).train()
    for scale in (1.0, 3.0):
        torch.testing.assert_close(own(x * scale), theirs(x * scale), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.running_mean, theirs.running_mean)
    torch.testing.assert_close(own.running_var, theirs.running_var, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(3, 2), (23, 25), (1, 2)])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_instance_norm_has_torchs_gradient(size, memory):
    """On small and large maps, off zero, with an activation behind it that changes its result in place."""
    x = (3 * image(0, [2, 6, *size]) + 5).contiguous(memory_format=memory)
    grads = []
    for norm in (InstanceNorm(6), nn.InstanceNorm2d(6, track_running_stats=True)):
        given = x.clone().requires_grad_()
        y = nn.functional.leaky_relu_(norm.train()(given), 0.2)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        grads.append(given.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=2e-5, rtol=1e-4)


def test_image_statistics_are_those_of_train_mode_for_one_image():
    x = image(0, [1, 5, 9, 7])
    for layer in (InstanceNorm(5), BatchNorm(5)):
        want = layer.train()(x)
        set_norm_stats(layer, "image")
        torch.testing.assert_close(layer.eval()(x), want, atol=1e-5, rtol=1e-5)


def test_local_statistics_against_a_plain_loop():
    x = image(2, [1, 2, 11, 13])
    y = normalise_locally(x, 1e-5, (5, 4))
    for i in range(11):
        for j in range(13):
            top, left = min(max(i - 2, 0), 11 - 5), min(max(j - 1, 0), 13 - 4)
            window = x[0, :, top : top + 5, left : left + 4].flatten(1).double()
            want = (x[0, :, i, j] - window.mean(1)) / torch.sqrt(window.var(1, correction=0) + 1e-5)
            torch.testing.assert_close(y[0, :, i, j].double(), want.double(), atol=1e-5, rtol=1e-4)
    whole = normalise_locally(x, 1e-5, (50, 50))
    torch.testing.assert_close(whole, nn.functional.instance_norm(x), atol=1e-5, rtol=1e-5)


def test_local_statistics_do_not_see_far_away(small):
    """A bright block at the far end changes every pixel with image statistics, and none here with local ones."""
    x = image(3, [1, 3, 32, 512]) * 0.1
    far = x.clone()
    far[..., -96:] += 0.9
    norm = InstanceNorm(3).eval()
    norm.image_size = (32, 512)
    set_norm_stats(norm, "local", window=64)
    assert torch.allclose(norm(x)[..., :300], norm(far)[..., :300], atol=1e-6)
    set_norm_stats(norm, "image")
    assert not torch.allclose(norm(x)[..., :300], norm(far)[..., :300], atol=1e-2)


@pytest.mark.parametrize("norm", ["instance", "batch", "virtual", "none"])
@pytest.mark.parametrize("spectral", [False, True])
def test_discriminators_of_every_kind_learn(norm, spectral):
    torch.manual_seed(0)
    nets = build_discriminators("double", norm, spectral, width=8)
    x = image(0, [2, 3, 64, 64])
    for net in nets.values():
        if net.needs_reference:
            with pytest.raises(ValueError, match="reference"):
                net(x)
            net.set_reference(image(9, [3, 3, 64, 64]))
        net(x).square().mean().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
        if spectral:
            for _ in range(30):
                net(x)
            w = net.model[0].weight.flatten(1)
            assert torch.linalg.matrix_norm(w, 2).item() == pytest.approx(1, abs=0.05)
        again = Discriminator(3 if net is nets["patch"] else 5, norm, spectral, 8)
        again.load_state_dict(net.state_dict())
        torch.testing.assert_close(again.eval()(x), net.eval()(x))


def test_virtual_batch_norm_items_are_independent_and_the_reference_is_standardised():
    layer = VirtualBatchNorm(4)
    layer.reference = 6
    x = image(0, [8, 4, 5, 5]) * 3 + 1
    y = layer(x)
    ref = y[:6].transpose(0, 1).flatten(1)
    torch.testing.assert_close(ref.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(ref.var(1, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    other = x.clone()
    other[7] = 0
    torch.testing.assert_close(layer(other)[:7], y[:7])


def test_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="known: mobilenet"):
        build_generator("resnet")
