import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from blursynth.common.atomic import write_atomic
from deblur_train import CheckpointError, build_generator, load_generator
from deblur_train.models.checkpoint import ANCHORS, export_official, read_state, save_generator
from deblur_train.models.generator import BACKBONES
from deblur_train.models.mobilenet import mobilenet_features
from deblur_train.models.pretrained import URLS, VGG_CONVOLUTIONS, VGGFeatures, load_backbone, load_vgg19
from tests.helpers.golden import fill, fixture, image

FIX = fixture("mobilenet")


def filled(name="mobilenet"):
    g = build_generator(name)
    return fill(g, 1.15, FIX["alias_groups"] if name == "mobilenet" else ()).eval()


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-dsc"])
def test_ours_round_trips(tmp_path, name):
    g = filled(name)
    save_generator(tmp_path / "g.safetensors", name, g.state_dict(), {"crop": "96"})
    again = load_generator(tmp_path / "g.safetensors")
    assert again.backbone_name == name and not again.training
    state, info = read_state(tmp_path / "g.safetensors")
    assert info["backbone"] == name and info["crop"] == "96" and "RGB" in info["preprocessing"]
    assert not any(k.startswith("fpn.enc") for k in state), "aliases are not stored twice"
    for k, v in g.state_dict().items():
        assert torch.equal(v, again.state_dict()[k])


@pytest.mark.parametrize("name", ["mobilenet", pytest.param("inception", marks=pytest.mark.slow)])
def test_official_checkpoint_round_trip(tmp_path, name):
    """Import, export, import: the same keys, aliases included, and the same bits."""
    g = filled(name)
    official = {"model": {f"module.{k}": v for k, v in g.state_dict().items()}}
    if name == "mobilenet":
        assert set(official["model"]) == {k for k, _, _ in FIX["keys"]}
    torch.save(official, tmp_path / "fpn.h5")
    first = load_generator(tmp_path / "fpn.h5")
    export_official(first, tmp_path / "out.h5")
    held = torch.load(tmp_path / "out.h5", weights_only=True)
    assert list(held) == ["model"] and list(held["model"]) == list(official["model"])
    second = load_generator(tmp_path / "out.h5")
    for k, v in g.state_dict().items():
        assert torch.equal(v, second.state_dict()[k]) and torch.equal(v, held["model"][f"module.{k}"])
    x = image(1, [1, 3, 128, 128])
    with torch.no_grad():
        assert torch.equal(g(x), second(x))


def test_legacy_pickle_format_is_read(tmp_path):
    """Official files are from torch 1.0, before the zip format."""
    g = filled("mobilenet-dsc")
    torch.save(
        {"model": {f"module.{k}": v for k, v in g.state_dict().items()}},
        tmp_path / "old.h5",
        _use_new_zipfile_serialization=False,
    )
    assert load_generator(tmp_path / "old.h5").backbone_name == "mobilenet-dsc"


class Evil:
    def __reduce__(self):
        return (os.system, (f"touch {os.environ['EVIL_MARK']}",))


@pytest.mark.parametrize("style", ["pickle", "torch", "legacy"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path, monkeypatch, style):
    mark = tmp_path / "ran"
    monkeypatch.setenv("EVIL_MARK", str(mark))
    path = tmp_path / "evil.h5"
    if style == "pickle":
        path.write_bytes(pickle.dumps({"model": Evil()}))
    else:
        torch.save(
            {"model": {"fpn.features.0.0.weight": Evil()}},
            path,
            _use_new_zipfile_serialization=style == "torch",
        )
    with pytest.raises(CheckpointError, match=r"evil\.h5"):
        load_generator(path)
    assert not mark.exists()


def wrapped(state, how):
    other = {"discriminator.0.weight": torch.zeros(3)}
    return {
        "bare": lambda: state,
        "params": lambda: {"params": state},
        "params_ema": lambda: {"params": {k: v * 0 for k, v in state.items()}, "params_ema": state},
        "model.": lambda: {f"model.{k}": v for k, v in state.items()},
        "netG": lambda: {"netG": state, "netD": other, "epoch": 3},
        "netG.": lambda: {f"netG.{k}": v for k, v in state.items()} | other,
        "compiled": lambda: {"state_dict": {f"_orig_mod.{k}": v for k, v in state.items()}},
        "compiled inside": lambda: {
            f"module._orig_mod.{k.replace('.', '._orig_mod.', 1)}": v for k, v in state.items()
        },
        "lightning": lambda: {
            "epoch": 3,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {f"model.generator.{k}": v for k, v in state.items()} | other,
            "optimizer_states": [],
        },
        "lightning with an average": lambda: {
            "state_dict": {f"net.{k}": v * 0 for k, v in state.items()}
            | {f"net_ema.{k}": v for k, v in state.items()}
        },
        "twice": lambda: {"model": {"state_dict": {f"module.{k}": v for k, v in state.items()}}},
    }[how]()


WRAPPINGS = [
    *("bare", "params", "params_ema", "model.", "netG", "netG.", "compiled", "compiled inside", "lightning"),
    *("lightning with an average", "twice"),
]


@pytest.mark.parametrize("how", WRAPPINGS)
@pytest.mark.parametrize("name", ["mobilenet-dsc", "nafnet"])
def test_every_wrapping_loads_the_same_generator(tmp_path, how, name):
    torch.manual_seed(0)
    g = build_generator(name)
    torch.save(wrapped(g.state_dict(), how), tmp_path / "g.pth")
    got = load_generator(tmp_path / "g.pth")
    assert got.backbone_name == name
    assert all(torch.equal(v, got.state_dict()[k]) for k, v in g.state_dict().items())


def test_every_backbone_has_its_anchor():
    for name in BACKBONES:
        with torch.device("meta"):
            keys = build_generator(name).state_dict()
        assert len([a for a in ANCHORS if a in keys]) == 1


def test_a_refusal_says_what_was_found(tmp_path):
    def refuses(held, *words):
        torch.save(held, tmp_path / "x.pth")
        with pytest.raises(CheckpointError) as e:
            load_generator(tmp_path / "x.pth")
        assert all(w in str(e.value) for w in words) and "\n" not in str(e.value), e.value

    refuses({"epoch": 3, "optimizer": {"lr": 1}}, "a dict of epoch, optimizer")
    refuses([1], "a list")
    refuses({"state_dict": {}}, "a dict of state_dict")
    refuses({"backbone.layer1.weight": torch.zeros(3)}, "found 1 tensors: backbone.layer1.weight")
    two = {
        f"{p}.{k}": v for p in ("g1", "g2") for k, v in build_generator("mobilenet-dsc").state_dict().items()
    }
    refuses(two, "several generators (g1., g2.)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_are_not_finite_are_refused(tmp_path, value, suffix):
    g = build_generator("mobilenet-dsc")
    state = {k: v.clone() for k, v in g.state_dict().items()}
    state["smooth2.0.1.weight"].view(-1)[3] = value
    path = tmp_path / f"g.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_generator(path, "mobilenet-dsc", state)
    with pytest.raises(CheckpointError, match=r"not finite .* first smooth2.0.1.weight"):
        load_generator(path)


def test_clear_errors(tmp_path):
    def refuses(path, *words):
        with pytest.raises(CheckpointError) as e:
            load_generator(path)
        message = str(e.value)
        assert "\n" not in message and str(path) in message
        for word in words:
            assert word in message

    refuses(tmp_path / "missing.h5", "no such")
    refuses(tmp_path, "folder")
    (tmp_path / "text.h5").write_text("hello, this is text")
    refuses(tmp_path / "text.h5", "neither")
    (tmp_path / "empty.h5").write_bytes(b"")
    refuses(tmp_path / "empty.h5", "neither")
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    refuses(tmp_path / "keras.h5", "Keras")
    torch.save({"model": {"conv1.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    refuses(tmp_path / "other.pth", "neither a DeblurGAN-v2 generator")
    torch.save([1, 2], tmp_path / "list.pth")
    refuses(tmp_path / "list.pth", "no state dict")
    g = filled("mobilenet-dsc").state_dict()
    save_generator(
        tmp_path / "lacks.safetensors", "x", {k: v for k, v in g.items() if k != "head1.block0.1.weight"}
    )
    refuses(tmp_path / "lacks.safetensors", "another model", "lacks 1", "head1.block0.1.weight")
    save_generator(tmp_path / "more.safetensors", "x", g | {"extra": torch.zeros(1)})
    refuses(tmp_path / "more.safetensors", "extra")
    save_generator(tmp_path / "shape.safetensors", "x", g | {"smooth.0.1.bias": torch.zeros(65)})
    refuses(tmp_path / "shape.safetensors", "shape", "smooth.0.1.bias")
    save_generator(tmp_path / "good.safetensors", "x", g)
    whole = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    refuses(tmp_path / "cut.safetensors", "damaged")
    torch.save({"model": g}, tmp_path / "good.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:100_000])
    refuses(tmp_path / "cut.pth", "damaged")


def test_norm_statistics_are_chosen_at_loading(tmp_path):
    g = filled()
    export_official(g, tmp_path / "g.h5")
    x = image(1, [1, 3, 128, 192])
    with torch.no_grad():
        tracked, own = (
            load_generator(tmp_path / "g.h5")(x),
            load_generator(tmp_path / "g.h5", norm_stats="image")(x),
        )
        local = load_generator(tmp_path / "g.h5", norm_stats="local", window=10_000)(x)
    assert torch.equal(tracked, g(x))
    assert (own - tracked).abs().max() > 0.05
    # TLC replaces instance norms' statistics only; a window beyond the image is the image.
    assert torch.isfinite(local).all() and (local - own).abs().max() > 1e-3


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def half(f):
        f.write(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomic(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def torchvision_style(state):
    """The official key names rewritten the way torchvision nests conv, norm and ReLU."""
    renamed = {}
    for key, v in state.items():
        number, rest = key.split(".", 1)
        if rest.startswith("conv."):
            _, at, tail = rest.split(".", 2)
            at, project = int(at), 1 if number == "1" else 2
            place = f"{at // 3}.{at % 3}" if at < 3 * project else f"{project + at - 3 * project}"
            rest = f"conv.{place}.{tail}"
        renamed[f"features.{number}.{rest}"] = v
    return renamed


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-dsc"])
@pytest.mark.parametrize("style", ["torchvision", "official"])
def test_imagenet_mobilenet_weights_from_a_file(tmp_path, name, style):
    donor = mobilenet_features().state_dict()
    state = (
        torchvision_style(donor) if style == "torchvision" else {f"features.{k}": v for k, v in donor.items()}
    )
    if style == "torchvision":  # spot checks of real torchvision names
        for key in (
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.1.conv.1.weight",
            "features.1.conv.2.bias",
            "features.2.conv.1.1.running_var",
            "features.2.conv.2.weight",
            "features.2.conv.3.weight",
            "features.18.1.bias",
        ):
            assert key in state, key
    torch.save(state | {"classifier.1.weight": torch.zeros(1000, 1280)}, tmp_path / "w.pth")
    g = build_generator(name)
    load_backbone(g, str(tmp_path / "w.pth"))
    for k, v in g.fpn.backbone.state_dict().items():
        assert torch.equal(v, donor[k]), k


def test_vgg19_weights_from_a_file(tmp_path):
    donor = VGGFeatures().state_dict()
    extra = {"features.16.weight": torch.zeros(256, 256, 3, 3), "classifier.0.weight": torch.zeros(1)}
    save_file({k: v.clone() for k, v in donor.items()} | extra, tmp_path / "vgg.safetensors")
    net = load_vgg19(str(tmp_path / "vgg.safetensors"))
    assert len(donor) == 2 * len(VGG_CONVOLUTIONS)
    assert all(torch.equal(v, donor[k]) for k, v in net.state_dict().items())
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="not VGG19"):
        load_vgg19(str(tmp_path / "bad.pth"))


def test_imagenet_offline_says_what_to_fetch(monkeypatch):
    import urllib.error

    def offline(url, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match="no network") as e:
        load_vgg19("imagenet")
    assert URLS["vgg19"] in str(e.value) and "\n" not in str(e.value)
