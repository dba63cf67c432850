"""The torch integrator gives what the numba one gives: on the CPU here, on CUDA where there is one. gpu/test_triton_walk.py
holds the kernel to it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from blursynth.camera.response import load_response
from blursynth.exposure import gpu as et
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import Shutter, make_shutter
from blursynth.gpu import torch_walk
from blursynth.motion.flow import PairFlow, estimate_pair
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe, RecipeError
from tests.helpers.moving_light import moving_disc, texture

SRGB = load_response("srgb")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both(frames: list[np.ndarray], flows: list[PairFlow], shutter: Shutter, device: str, most=16, lamp=0.0):
    """The exposure of frames by numba and by torch, after comparing their counts of steps."""
    h, w = frames[0].shape[:2]
    lights = [SRGB.decode(f, lamp) for f in frames]
    there = [et.to_device(v, device) for v in lights]
    a, b = ex.Exposure(h, w, shutter, most), et.Exposure(h, w, shutter, most, device)
    for i, f in enumerate(flows):
        a.add(i, tuple(lights[i : i + 2]), tuple(map(ex.quasi, lights[i : i + 2])), f.forward, f.backward)
        b.add(i, tuple(there[i : i + 2]), tuple(map(et.quasi, there[i : i + 2])), f.forward, f.backward)
    assert abs(a.steps - b.steps) <= 1e-3 * a.steps
    assert abs(a.longest - b.longest) <= 1
    return a.linear(), b.linear()


def shutters(h: int) -> dict[str, Shutter]:
    moment = 1.0 + 0.7 * ((np.arange(h) + 0.5) / h - 0.5)
    instant = ((moment + d).astype(np.float32) for d in (-5e-4, 5e-4))
    return {
        "box": make_shutter(h, 2),
        "triangle, part, rolling": make_shutter(h, 2, 0.61, 0.5, np.array([0, 1, 0], np.float32)),
        "instant of each row": Shutter(*instant, np.ones(2, np.float32)),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("speed", [(0.4, 0.2), (6.3, -2.1), (21.0, -8.0)])
def test_agrees_with_the_cpu_within_one_code_at_999_of_1000_pixels(speed, device):
    frames = moving_disc(speed)
    flows = [estimate_pair("dis", a, b) for a, b in pairwise(frames)]
    for name, shutter in shutters(frames[0].shape[0]).items():
        for most, lamp in ((16, 0.0), (5, 0.8)):
            a, b = both(frames, flows, shutter, device, most, lamp)
            apart = np.abs(SRGB.encode(a).astype(int) - SRGB.encode(b)).max(2)
            assert np.mean(apart > 1) <= 0.001, (name, most)
            # The CPU samples from float16, which moves a light that is near an edge between codes over it.
            assert np.mean(apart > 0) < 0.06, (name, most)


def test_the_vote_was_put_to_the_test():
    frames = moving_disc((21.0, -8.0), 2)
    pair = estimate_pair("dis", *frames)
    lights = [et.to_device(SRGB.decode(f), "cpu") for f in frames]
    flows = torch.tensor(pair.forward), torch.tensor(pair.backward)
    opening = et._opening(make_shutter(120, 1), None, "cpu")
    walk = torch_walk._Walk(
        torch.zeros(120 * 160, 4), torch.zeros(1, 3, dtype=torch.long),
        et.Interval((lights[0], lights[1]), (lights[0], lights[1]), *flows), opening, 0, 16,
    )  # fmt: skip
    assert 0.02 < walk._disputed().float().mean() < 0.9


@pytest.mark.parametrize("device", DEVICES)
def test_chunks_change_nothing(device, monkeypatch):
    frames = moving_disc((9.5, 4.2), 2)
    flows = [estimate_pair("dis", *frames)]
    shutter = make_shutter(120, 1, 0.8)
    whole = both(frames, flows, shutter, device)[1]
    monkeypatch.setattr(torch_walk, "CHUNK", 777)
    assert np.abs(both(frames, flows, shutter, device)[1] - whole).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_still_frames_come_back_unchanged(device):
    frame = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    zero = np.zeros((40, 52, 2), np.float32)
    for shutter in shutters(40).values():
        assert np.array_equal(
            SRGB.encode(both([frame] * 3, [PairFlow(zero, zero)] * 2, shutter, device)[1]), frame
        )


@pytest.mark.parametrize("device", DEVICES)
def test_quasi_agrees_also_around_light_above_white(device):
    light = np.dstack([texture(8, 50, 70), np.zeros((50, 70), np.float32)])
    light[20:23, 30:33, :3] = 4.0
    light[0, 69, 1] = 2.0
    assert np.abs(et.quasi(et.to_device(light, device)).cpu().numpy() - ex.quasi(light)).max() < 1e-6


@pytest.mark.parametrize("wrong", ["flow", "codes", "kind"])
def test_arrays_of_another_size_are_refused(wrong):
    frame = np.zeros((40, 52, 3), np.uint8)
    exposure = et.Exposure(40, 52, make_shutter(40, 1), 16, "cpu")
    light = et.place(ex.Coded(frame[:39] if wrong == "codes" else frame, SRGB.table()), "cpu")
    smooth = et.smooth(et.place(ex.Coded(frame, SRGB.table()), "cpu"))
    flow = np.zeros((40, 51 if wrong == "flow" else 52, 2), np.float64 if wrong == "kind" else np.float32)
    with pytest.raises(ValueError, match="need torch"):
        exposure.add(0, (light, light), (smooth, smooth), flow, flow)
    with pytest.raises(ValueError, match="at least 2x2"):
        et.Exposure(40, 1, make_shutter(40, 1), 16, "cpu")
    with pytest.raises(ValueError, match="camera's path"):
        et.Exposure(40, 52, make_shutter(40, 1), 16, "cpu", np.zeros((1, 3)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_the_recipe_is_refused_in_one_line():
    with pytest.raises(RecipeError, match="--device cpu") as e:
        Synthesizer(Recipe(interp="dis", device="cuda"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "device",
    [
        "cpu:0",  # torch on the CPU; "cpu" is numba
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
@pytest.mark.parametrize(
    "settings", [{}, {"readout_ms": 3.0, "highlights": "rsblur"}, {"shake": "6", "profile": "triangle"}]
)
def test_a_sample_made_on_a_device_is_the_cpu_s_and_says_by_what(device, settings):
    frames = moving_disc((6.3, -2.1), 5)
    for f in frames:
        f[20:24, 30:34] = 255
        f.flags.writeable = False
    made = []
    for d in ("cpu", device):
        synthesizer = Synthesizer(Recipe(interp="dis", noise="off", **settings))
        synthesizer.light.integrator.device = d
        made.append(synthesizer.sample("c", frames, 0, 240.0, np.random.default_rng(0)))
    a, b = made
    assert np.mean(np.abs(a.blur_rgb.astype(int) - b.blur_rgb).max(2) > 1) <= 0.002
    assert np.mean(np.abs(a.sharp_rgb.astype(int) - b.sharp_rgb).max(2) > 1) <= 0.002
    assert "integrator" not in a.exposure
    assert b.exposure["integrator"] == ("triton" if device == "cuda" else "torch")
    assert b.exposure["substeps"]["max"] == a.exposure["substeps"]["max"]
