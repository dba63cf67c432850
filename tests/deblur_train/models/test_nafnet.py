"""NAFNet gives what the official code gives, reads its files, and its local statistics are guarded."""

import json
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import pad

from deblur_train import CheckpointError, build_generator, load_generator
from deblur_train.config import ModelConfig
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator
from deblur_train.models.nafnet import NAFNet, NAFNetShape, SpatialMean, shape_from_words
from deblur_train.models.norm import set_norm_stats
from deblur_train.training.run_folder import load_initial
from tests.helpers import places

DATA = Path(__file__).parents[2] / "helpers" / "data" / "nafnet"
SHARED = places.SHARED / "fixtures" / "nafnet"
START = places.SHARED / "weights" / "nafnet_u2_start.safetensors"
FIX = json.loads((DATA / "fixture.json").read_text())
OUT = load_file(DATA / "outputs_stride2.safetensors")
TINY = NAFNetShape(4, (1, 0, 1), 1, (0, 1, 1), 2)
OFFICIAL = {  # of the official option files
    "GoPro and REDS": NAFNetShape(4, (1, 1, 1, 28), 1, (1, 1, 1, 1), 1),
    "SIDD": NAFNetShape(4, (2, 2, 4, 8), 12, (2, 2, 2, 2), 1),
    "unshuffled": TINY,
    "flat": NAFNetShape(4, (), 2, (), 4),
}


@torch.no_grad()
def fill_nafnet(net: NAFNet) -> NAFNet:
    """The weights of the fixture, by the rule in its README."""
    for key, t in net.state_dict().items():
        r = torch.randn(t.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith((".beta", ".gamma")):
            t.copy_(0.3 * r)
        elif "norm" in key and key.endswith(".weight"):
            t.copy_(1 + 0.1 * r)
        else:
            t.copy_(0.1 * r if t.dim() == 1 else r / t[0].numel() ** 0.5)
    return net.eval()


def official(name: str, configs: dict = FIX["configs"]) -> NAFNet:
    c = configs[name]
    enc, dec = tuple(c["enc_blk_nums"]), tuple(c["dec_blk_nums"])
    return fill_nafnet(NAFNet(NAFNetShape(c["width"], enc, c["middle_blk_num"], dec, 1)))


def picture(name: str) -> torch.Tensor:
    """An input of the fixture, RGB in [0, 1]."""
    rule = FIX["inputs"][name]
    return torch.rand(rule["shape"], generator=torch.Generator().manual_seed(rule["seed"]))


@torch.no_grad()
def as_official(net: NAFNet, x: torch.Tensor) -> torch.Tensor:
    """[0, 1] in and out, not clamped, as the official forward."""
    h, w = x.shape[-2:]
    x = pad(x, (0, -w % net.stride, 0, -h % net.stride))
    net.say_size(x)
    return (x + net.residual(x))[..., :h, :w]


@pytest.fixture(scope="module")
def tiny():
    return official("tiny")


def test_keys_and_shapes_are_the_official_ones(tiny):
    assert {k: list(v.shape) for k, v in tiny.state_dict().items()} == FIX["keys"]["tiny"]


@pytest.mark.parametrize("name", ["A", "B"])
def test_outputs_are_the_official_ones(tiny, name):
    """B needs padding. As a generator in [-1, 1] the same, within the contract's range."""
    x = picture(name)
    want = OUT[f"tiny_{name}"]
    assert (as_official(tiny, x)[..., ::2, ::2] - want).abs().max() < 1e-4
    with torch.no_grad():
        y = tiny(2 * x - 1)[..., ::2, ::2]
    assert (y - (2 * want - 1).clamp(-1, 1)).abs().max() < 2e-4


@pytest.mark.parametrize(("stats", "name"), [("tracked", "global"), ("image", "global"), ("local", "local")])
def test_global_and_local_means_are_the_official_ones(tiny, stats, name):
    """Local: the official NAFNetLocal with train_size 256 has windows of 384 pixels."""
    set_norm_stats(tiny, stats, 384)
    y = as_official(tiny, picture("L"))[..., ::16, ::16]
    set_norm_stats(tiny, "tracked")
    assert (y - OUT[f"tiny_L_{name}"]).abs().max() < 1e-4
    assert (OUT["tiny_L_global"] - OUT["tiny_L_local"]).abs().max() > 1e-3, "or this test tells nothing"


def test_training_computes_what_inference_does(tiny):
    """Its residual scales are in the weights: the same values, and the same gradients of every parameter."""
    x = picture("A")
    grads = []
    for training in (True, False):
        tiny.train(training)
        tiny.zero_grad()
        y = tiny.residual(x)
        y.square().sum().backward()
        grads.append({"y": y.detach(), **{k: p.grad.clone() for k, p in tiny.named_parameters()}})
    tiny.zero_grad()
    for key, value in grads[0].items():
        assert torch.allclose(value, grads[1][key], rtol=1e-4, atol=1e-4 * float(value.abs().max())), key


@pytest.mark.skipif(not SHARED.exists(), reason="the whole fixture is not in this checkout")
@pytest.mark.parametrize("name", ["A", "B"])
def test_the_published_gopro_shape(name):
    net = official("width32", json.loads((SHARED / "fixture.json").read_text())["configs"])
    want = load_file(SHARED / "outputs.safetensors")[f"width32_{name}"]
    assert (as_official(net, picture(name)) - want).abs().max() < 1e-4
    assert sum(p.numel() for p in net.parameters()) == 17_111_907


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_load_and_the_keys_tell_the_shape(tmp_path, name):
    net = fill_nafnet(NAFNet(OFFICIAL[name]))
    torch.save({"params": net.state_dict()}, tmp_path / "NAFNet.pth")
    again = load_generator(tmp_path / "NAFNet.pth")
    assert isinstance(again, NAFNet) and again.shape == OFFICIAL[name] and not again.training
    x = torch.rand(1, 3, 37, 41) * 2 - 1
    with torch.no_grad():
        assert torch.equal(again(x), net(x))
    assert shape_from_words(again.shape.words()) == again.shape


def test_a_file_that_lacks_a_tensor_or_has_one_more_is_refused(tmp_path):
    state = NAFNet(TINY).state_dict()
    for change in ({"extra.weight": torch.zeros(1)}, {"ups.0.0.weight": None}):
        broken = {k: v for k, v in (state | change).items() if v is not None}
        torch.save({"params": broken}, tmp_path / "g.pth")
        with pytest.raises(CheckpointError, match="another model"):
            load_generator(tmp_path / "g.pth")


def test_ours_in_half_precision_keeps_shape_and_values(tmp_path):
    net = fill_nafnet(NAFNet(TINY))
    half = {k: v.half() for k, v in net.state_dict().items()}
    save_generator(tmp_path / "g.safetensors", "nafnet", half)
    again = load_generator(tmp_path / "g.safetensors")
    assert again.shape == TINY and again.intro.weight.dtype == torch.float32
    assert (again.intro.weight - net.intro.weight).abs().max() < 1e-3


def test_a_run_starts_only_from_its_own_shape(tmp_path):
    save_generator(tmp_path / "g.safetensors", "nafnet", NAFNet(TINY).state_dict())
    load_initial(NAFNet(TINY), str(tmp_path / "g.safetensors"))
    with pytest.raises(CheckpointError, match=r"another shape: width 4, enc \[1, 0, 1\], middle 1"):
        load_initial(build_generator("nafnet"), str(tmp_path / "g.safetensors"))
    with pytest.raises(CheckpointError, match="holds nafnet, but --backbone is mobilenet-dsc"):
        load_initial(build_generator("mobilenet-dsc"), str(tmp_path / "g.safetensors"))


@pytest.mark.skipif(not START.exists(), reason="the weights to start from are not in this checkout")
def test_the_weights_to_start_from():
    """The default shape is theirs; a sharp picture keeps at least 38 dB."""
    net = load_generator(START)
    assert net.shape == NAFNetShape() == NAFNetShape(**ModelConfig().shape)
    load_initial(build_generator("nafnet"), str(START))
    x = torch.linspace(-1, 1, 96).expand(1, 3, 64, 96).clone()
    with torch.no_grad():
        assert (net(x) - x).square().mean().sqrt() < 2 * 10 ** (-38 / 20)


def test_any_size_and_gradients_everywhere():
    net = fill_nafnet(NAFNet(TINY)).train()
    for h, w in ((1, 1), (3, 50), (16, 16)):
        assert net(torch.zeros(2, 3, h, w)).shape == (2, 3, h, w)
    net(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_autocast_keeps_the_norm_in_half_and_the_result_near():
    net = fill_nafnet(NAFNet(TINY))
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    seen = []
    net.encoders[0][0].norm1.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    with torch.no_grad():
        want = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            got = net(x)
    assert seen == [torch.float32, torch.bfloat16]
    assert got.dtype == torch.float32 and 0 < (got - want).abs().mean() < 0.01


def test_impossible_shapes_are_refused():
    for bad in ((4, (1,), 1, (1, 1), 1), (0, (), 1, (), 1), (4, (-1,), 1, (1,), 1)):
        with pytest.raises(ValueError, match="must"):
            NAFNetShape(*bad)


class Wild(SpatialMean):
    """Local statistics that fail as users report of trained networks: the mean of one corner of one image explodes."""

    def forward(self, x):
        y = super().forward(x)
        if self.stats == "local":
            y = y.expand(x.shape).clone()
            y[0, :, : x.shape[2] // 2, : x.shape[3] // 2] += 1e4
        return y


@torch.no_grad()
def test_colour_blocks_of_local_statistics_fall_back():
    net = fill_nafnet(NAFNet(TINY))
    start_near_identity(net)
    x = 0.2 * torch.rand(2, 3, 128, 128)
    set_norm_stats(net, "local", 32)
    harmless = net(x)
    assert net.fell_back == 0
    net.decoders[-1][-1].sca[0] = Wild().eval()
    set_norm_stats(net, "tracked")
    whole = net(x)
    set_norm_stats(net, "local", 32)
    y = net(x)
    assert net.fell_back == 1, "the first image only"
    assert (y[0] - whole[0]).abs().max() < 1e-5
    assert torch.equal(y[1], harmless[1]), "the other one keeps its local statistics"
    assert (y[1] - whole[1]).abs().max() > 1e-4
    assert all(m.stats == "local" for m in net.modules() if isinstance(m, SpatialMean))
