"""Every value of the official losses' fixture: RaGAN-LS (pools, current batch), VGG19 perceptual, one training step."""

import math

import pytest
import torch

from deblur_train import build_generator
from deblur_train.models.discriminator import build_discriminators
from deblur_train.models.pretrained import VGGFeatures
from deblur_train.training.losses import AdversarialLoss, ContentLoss, RelativisticLSLoss
from tests.helpers.golden import fill, fill_tensor, fixture, grad_norm, image

FIX = fixture("losses")
MOBILENET = fixture("mobilenet")
GRAD = {"rel": 5e-3}
VALUE = {"rel": 1e-4}


def logits(t: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1000 + t)
    return [
        (torch.randn(2, 1, 5, 7, generator=g) * 0.5 + o * t).requires_grad_()
        for o in (-0.03, 0.05, -0.02, 0.04)
    ]


def test_a_pools():
    loss = RelativisticLSLoss("pool")
    with pytest.raises(ValueError, match="pool of logits is empty"):
        loss.generator(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    for t, loss_d, gdf, gdr, loss_g, ggf, ggr, entries, m_fake, m_real in FIX["A_steps"]:
        d_fake, d_real, g_fake, g_real = logits(t)
        d = loss.discriminator(d_fake, d_real)
        g = loss.generator(g_fake, g_real)
        (d + g).backward()
        assert d.item() == pytest.approx(loss_d, **VALUE)
        assert g.item() == pytest.approx(loss_g, **VALUE)
        for x, want in ((d_fake, gdf), (d_real, gdr), (g_fake, ggf), (g_real, ggr)):
            assert grad_norm([x.grad]) == pytest.approx(want, **GRAD)
        assert len(loss.fake_pool) == len(loss.real_pool) == entries
        assert float(loss.fake_pool.mean()) == pytest.approx(m_fake, rel=1e-4, abs=1e-6)
        assert float(loss.real_pool.mean()) == pytest.approx(m_real, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("detach", [False, True])
def test_b_current_batch(detach):
    loss = RelativisticLSLoss("batch", detach_means=detach)
    for t, loss_d, dfg, drg, dfg_cut, drg_cut, loss_g, gfg, grg, gfg_cut, grg_cut in FIX["B_steps"]:
        d_fake, d_real, g_fake, g_real = logits(t)
        d = loss.discriminator(d_fake, d_real)
        g = loss.generator(g_fake, g_real)
        (d + g).backward()
        assert d.item() == pytest.approx(loss_d, **VALUE)
        assert g.item() == pytest.approx(loss_g, **VALUE)
        wants = (dfg_cut, drg_cut, gfg_cut, grg_cut) if detach else (dfg, drg, gfg, grg)
        for x, want in zip((d_fake, d_real, g_fake, g_real), wants, strict=True):
            assert grad_norm([x.grad]) == pytest.approx(want, **GRAD)


@pytest.mark.parametrize("kind", ["patch", "full", "double"])
def test_c_through_the_discriminators(kind):
    nets = build_discriminators(kind)
    for net in nets.values():
        fill(net, 1.4)
    loss = AdversarialLoss(nets, "pool")
    for s, loss_d, grad_d, loss_g, grad_fake, _ in FIX["C_official_pool"][kind]:
        fake = image(100 + 2 * s, [2, 3, 128, 128]).requires_grad_()
        real = image(101 + 2 * s, [2, 3, 128, 128])
        nets.requires_grad_(True).zero_grad()
        d = loss.discriminator(fake, real)
        d.backward()
        assert d.item() == pytest.approx(loss_d, **VALUE)
        assert fake.grad is None
        assert grad_norm(p.grad for p in nets.parameters()) == pytest.approx(grad_d, **GRAD)
        nets.requires_grad_(False)
        g = loss.generator(fake, real)
        g.backward()
        assert g.item() == pytest.approx(loss_g, **VALUE)
        assert grad_norm([fake.grad]) == pytest.approx(grad_fake, **GRAD)


@pytest.mark.parametrize("kind", ["patch", "full"])
@pytest.mark.parametrize("detach", [False, True])
def test_c_current_batch(kind, detach):
    loss_d, grad_d, loss_g, grad_fake = FIX["C_current_batch_step0"][
        f"{kind}_mean_detached_{str(detach).lower()}"
    ]
    nets = build_discriminators(kind)
    fill(nets[kind], 1.4)
    loss = AdversarialLoss(nets, "batch", detach)
    fake, real = image(100, [2, 3, 128, 128]).requires_grad_(), image(101, [2, 3, 128, 128])
    d = loss.discriminator(fake, real)
    d.backward()
    assert d.item() == pytest.approx(loss_d, **VALUE)
    assert grad_norm(p.grad for p in nets.parameters()) == pytest.approx(grad_d, **GRAD)
    g = loss.generator(fake, real)
    g.backward()
    assert g.item() == pytest.approx(loss_g, **VALUE)
    assert grad_norm([fake.grad]) == pytest.approx(grad_fake, **GRAD)


@pytest.mark.parametrize(
    ("norm", "spectral"),
    [("instance", False), ("none", False), ("virtual", False), ("batch", False), ("none", True)],
)
def test_one_pass_over_both_gives_the_gradients_of_two(norm, spectral):
    fake, real = image(100, [2, 3, 64, 64]), image(101, [2, 3, 64, 64])
    results = []
    for joined in (True, False):
        torch.manual_seed(0)
        nets = build_discriminators("patch", norm, spectral, width=8)
        net = nets["patch"]
        if net.needs_reference:
            net.set_reference(image(102, [2, 3, 64, 64]))
        net.independent = joined and net.independent
        loss = AdversarialLoss(nets, "pool").discriminator(fake, real)
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in nets.parameters()])))
    (one, joined_grads), (two, grads) = results
    assert one == pytest.approx(two, rel=1e-6)
    assert (joined_grads - grads).norm() < 1e-5 * grads.norm()


def test_kept_logits_of_sharp_images_give_the_generator_the_same_gradient():
    """With pooled means, whatever the discriminators' update changed; with means over the batch they are not used."""
    fake, real = image(100, [2, 3, 64, 64]).requires_grad_(), image(101, [2, 3, 64, 64])
    for means, values_differ in (("pool", True), ("batch", False)):
        torch.manual_seed(0)
        nets = build_discriminators("patch", width=8)
        loss = AdversarialLoss(nets, means)
        loss.discriminator(fake, real).backward()
        with torch.no_grad():
            for p in nets.parameters():
                p.sub_(0.1 * p.grad)
        values, grads = [], []
        for kept in (None, loss.real_logits):
            values.append(loss.generator(fake, real, kept))
            grads.append(torch.autograd.grad(values[-1], fake)[0])
        assert torch.equal(grads[0], grads[1])
        assert bool(values[0] != values[1]) == values_differ


def vgg() -> VGGFeatures:
    net = VGGFeatures()
    with torch.no_grad():
        for key, t in net.state_dict().items():
            fill_tensor(key, t, 1.4)
    assert {k: [list(v.shape), "float32"] for k, v in net.state_dict().items()} == {
        k: [s, d] for k, s, d in FIX["D_keys"]
    }
    return net


def perceptual() -> ContentLoss:
    return ContentLoss("mse", 0.5, "imagenet", vgg(), 0.006)


@pytest.mark.parametrize("case", FIX["D_cases"], ids=lambda c: c["case"])
def test_d_perceptual(case):
    """The batch of two has every item normalised; the official code does it for the first only."""
    want = case | case.get("not_official_every_sample_normalised", {})
    fake, real = (
        image(case["fake_seed"], case["shape"]).requires_grad_(),
        image(case["real_seed"], case["shape"]),
    )
    content = perceptual()
    loss, parts = content(fake, real)
    loss.backward()
    assert loss.item() == pytest.approx(want["loss"], **VALUE)
    assert parts["perceptual"].item() == pytest.approx(want["feature_mse"], **VALUE)
    assert parts["pixel"].item() == pytest.approx(want["pixel_mse"], **VALUE)
    assert grad_norm([fake.grad]) == pytest.approx(want["grad_norm_fake"], **GRAD)
    for g, norm in zip(fake.grad, want["grad_norm_per_sample"], strict=True):
        assert grad_norm([g]) == pytest.approx(norm, **GRAD)
    assert all(p.grad is None for p in content.parameters()), "VGG must stay frozen"
    if len(fake) == 1:
        features = content.perceptual(fake.detach())
        assert list(features.shape) == case["feature_shape"]
        mean, std, least = case["feature_mean_std_min_of_fake"]
        assert features.mean().item() == pytest.approx(mean, rel=1e-3)
        assert features.std(correction=0).item() == pytest.approx(std, rel=1e-3)
        assert features.min().item() == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_e_one_training_step(frozen):
    want = FIX["E_step"]["backbone_frozen" if frozen else "backbone_unfrozen"]
    g = fill(build_generator("mobilenet"), 1.15, MOBILENET["alias_groups"]).train()
    g.freeze_backbone(frozen)
    nets = build_discriminators("double")
    for net in nets.values():
        fill(net, 1.4)
    adversarial, content = AdversarialLoss(nets, "pool"), perceptual()
    blurred, sharp = image(40, [1, 3, 128, 128]), image(41, [1, 3, 128, 128])
    fake = g(blurred)
    loss_d = 0.001 * adversarial.discriminator(fake, sharp)
    loss_d.backward()
    assert loss_d.item() == pytest.approx(want["loss_D_times_lambda"], **VALUE)
    assert grad_norm(p.grad for p in nets.parameters()) == pytest.approx(want["grad_norm_D"], **GRAD)
    nets.requires_grad_(False)
    value, _ = content(fake, sharp)
    adv = adversarial.generator(fake, sharp)
    total = value + 0.001 * adv
    total.backward()
    assert value.item() == pytest.approx(want["loss_content"], **VALUE)
    assert adv.item() == pytest.approx(want["loss_adv"], **VALUE)
    assert total.item() == pytest.approx(want["loss_G"], **VALUE)
    grads = {k: p.grad for k, p in g.named_parameters() if p.grad is not None}
    assert len(grads) == want["tensors_of_G_with_grad"]
    assert grad_norm(grads.values()) == pytest.approx(want["grad_norm_G"], **GRAD)
    assert grad_norm([grads["final.weight"]]) == pytest.approx(want["grad_norm_final_weight"], **GRAD)
    assert math.isfinite(total.item())
