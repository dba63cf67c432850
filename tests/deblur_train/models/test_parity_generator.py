"""The generator and the discriminators against outputs of the official code (tests/data/deblurganv2)."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from deblur_train import build_generator
from deblur_train.models.discriminator import Discriminator
from deblur_train.models.norm import set_norm_stats
from tests.helpers.golden import DATA, SHARED, fill, fixture, grad_norm, image

FIX = fixture("mobilenet")
WANT = load_file(DATA / "mobilenet_outputs_stride4.safetensors")


@pytest.fixture
def filled():
    return fill(build_generator("mobilenet"), FIX["gain"], FIX["alias_groups"]).eval()


def test_state_dict_has_the_official_keys_shapes_and_aliases(filled):
    state = filled.state_dict()
    assert {
        f"module.{k}": [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state.items()
    } == {k: [shape, dtype] for k, shape, dtype in FIX["keys"]}
    for a, b in FIX["alias_groups"]:
        assert state[a.removeprefix("module.")].data_ptr() == state[b.removeprefix("module.")].data_ptr()
    for key, (first, total) in FIX["fill_check"].items():
        t = state[key.removeprefix("module.")]
        assert float(t.flatten()[0]) == pytest.approx(first, abs=1e-5)
        assert float(t.double().sum()) == pytest.approx(total, rel=1e-4, abs=1e-2)
    assert sum(p.numel() for p in filled.parameters()) == FIX["parameters"]["total_parameters"]


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("mode", ["eval", "train", "image"])
def test_outputs_match_official(filled, mode, name):
    """ "image" in eval mode is what official inference (train mode, one image) computes."""
    if mode == "train":
        filled.train()
    if mode == "image":
        set_norm_stats(filled, "image")
    kind = "eval" if mode == "eval" else "train"
    with torch.no_grad():
        y = filled(image(FIX["inputs"][name]["seed"], FIX["inputs"][name]["shape"]))
    tolerance = FIX["tolerance"][kind]
    torch.testing.assert_close(y[..., 1::4, 2::4], WANT[f"{kind}_{name}"], atol=tolerance, rtol=0)
    if SHARED.exists():
        whole = load_file(SHARED / "mobilenet_outputs.safetensors")[f"{kind}_{name}"]
        torch.testing.assert_close(y, whole, atol=tolerance, rtol=0)


def test_running_statistics_after_a_training_forward(filled):
    with torch.no_grad():
        filled.train()(image(0, FIX["inputs"]["A"]["shape"]))
    state = filled.state_dict()
    for layer, (mean, var, count) in FIX["after_one_train_forward_A"].items():
        layer = layer.removeprefix("module.")
        assert float(state[layer + ".running_mean"].double().sum()) == pytest.approx(mean, rel=1e-4, abs=1e-4)
        assert float(state[layer + ".running_var"].double().sum()) == pytest.approx(var, rel=1e-4)
        assert int(state[layer + ".num_batches_tracked"]) == count


def test_gradients_match_official(filled):
    want = FIX["train_gradients"]
    shape = FIX["inputs"]["B"]["shape"]
    loss = nn.functional.mse_loss(filled.train()(image(1, shape)), image(2, shape))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(want["loss"], rel=1e-4)
    grads = {f"module.{k}": p.grad for k, p in filled.named_parameters() if p.grad is not None}
    assert len(grads) == want["tensors_with_grad"]
    assert grad_norm(grads.values()) == pytest.approx(want["grad_norm_all"], rel=5e-3)
    grads |= {f"module.{k}": p.grad for k, p in filled.named_parameters(remove_duplicate=False)}
    for key, norm in want["grad_norm_per_key"].items():
        assert grad_norm([grads[key]]) == pytest.approx(norm, rel=5e-3), key


DISC = fixture("discriminator")
DISC_WANT = load_file(DATA / "discriminator_outputs.safetensors")


@pytest.mark.parametrize("kind", ["patch", "full"])
def test_discriminators_match_official(kind):
    want = DISC[kind]
    net = fill(Discriminator(want["n_layers"]), want["gain"])
    assert [f"module.{k}" for k in net.state_dict()] == [k for k, _, _ in want["keys"]]
    assert sum(p.numel() for p in net.parameters()) == want["parameters"]
    with torch.no_grad():
        for name, given in DISC["inputs"].items():
            x = image(given["seed"], given["shape"])
            torch.testing.assert_close(net.eval()(x), DISC_WANT[f"{kind}_eval_{name}"], atol=1e-4, rtol=0)
            fill(net, want["gain"])
            torch.testing.assert_close(net.train()(x), DISC_WANT[f"{kind}_train_{name}"], atol=1e-4, rtol=0)
            if name == "A":
                for layer, (mean, var, count) in want["after_one_train_forward_A"].items():
                    norm = net.get_submodule(layer.removeprefix("module."))
                    assert float(norm.running_mean.double().sum()) == pytest.approx(mean, rel=1e-4, abs=1e-4)
                    assert float(norm.running_var.double().sum()) == pytest.approx(var, rel=1e-4)
                    assert int(norm.num_batches_tracked) == count
            fill(net, want["gain"])


# (parameters, parameters with a gradient, multiply-adds a pixel at 256 x 256): the paper and the official code.
SIZES = {
    "mobilenet": (3_312_707, 2_106_627, 41.33e3),
    "mobilenet-dsc": (1_185_507, 1_185_507, 10.18e3),
    "inception": (60_929_291, 35_840_099, 267.3e3),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_costs(name):
    from torch.utils.flop_counter import FlopCounterMode

    total, used, macs = SIZES[name]
    g = build_generator(name)
    assert sum(p.numel() for p in g.parameters()) == total
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        g.eval()(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 / 256**2 == pytest.approx(macs, rel=1e-3)
    g.train()(image(0, [1, 3, 128, 128])).sum().backward()
    assert sum(p.numel() for p in g.parameters() if p.grad is not None) == used


def test_inception_has_the_official_names():
    """Spot checks against the public port's names (there is no golden file for this backbone): one of each kind."""
    shapes = {k: tuple(v.shape) for k, v in build_generator("inception").state_dict().items()}
    want = {
        "fpn.inception.conv2d_1a.conv.weight": (32, 3, 3, 3),
        "fpn.inception.conv2d_4a.bn.running_var": (192,),
        "fpn.inception.mixed_5b.branch3.1.conv.weight": (64, 192, 1, 1),
        "fpn.inception.repeat.9.branch2.2.conv.weight": (64, 48, 3, 3),
        "fpn.inception.repeat.0.conv2d.bias": (320,),
        "fpn.inception.mixed_6a.branch1.2.bn.weight": (384,),
        "fpn.inception.repeat_1.19.branch1.1.conv.weight": (160, 128, 1, 7),
        "fpn.inception.mixed_7a.branch2.2.conv.weight": (320, 288, 3, 3),
        "fpn.inception.repeat_2.8.branch1.2.conv.weight": (256, 224, 3, 1),
        "fpn.inception.block8.conv2d.weight": (2080, 448, 1, 1),
        "fpn.inception.conv2d_7b.conv.weight": (1536, 2080, 1, 1),
        "fpn.inception.last_linear.weight": (1000, 1536),
        "fpn.enc0.conv.weight": (32, 3, 3, 3),
        "fpn.enc1.1.bn.bias": (64,),
        "fpn.enc2.0.conv.weight": (80, 64, 1, 1),
        "fpn.enc3.1.9.conv2d.bias": (320,),
        "fpn.enc4.0.19.branch0.conv.weight": (192, 1088, 1, 1),
        "fpn.enc4.1.branch0.1.conv.weight": (384, 256, 3, 3),
        "fpn.td1.0.weight": (256, 256, 3, 3),
        "fpn.lateral4.weight": (256, 2080, 1, 1),
        "fpn.lateral0.weight": (128, 32, 1, 1),
        "smooth2.0.weight": (64, 128, 3, 3),
        "final.weight": (3, 64, 3, 3),
    }
    assert {k: shapes.get(k) for k in want} == want
