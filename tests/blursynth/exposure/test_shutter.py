"""The shutter: any profile is integrated exactly, in every integrator."""

import numpy as np
import pytest
import torch

from blursynth.exposure import gpu
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import Shutter, make_shutter
from tests.blursynth.exposure.test_shake import rms_codes
from tests.helpers.moving_light import constant_flow, pad4, shifted, texture

H, W = 96, 128
CODED = np.array([int(c) for c in "1010000111000001010000110011110111011100000110111110"], np.float32)
"""Flutter shutter code of 52 chops (Raskar, Agrawal, Tumblin 2006)."""


def chops(code: np.ndarray, edge: int = 8) -> np.ndarray:
    """A code's chops with steep sides: weights at instants."""
    return np.repeat(code, edge)


PROFILES = {
    "triangle": np.array([0, 1, 0]),
    "coded": chops(CODED),
    "two pulses": chops(np.array([0, 1, 0, 0, 0, 0, 0, 1, 0])),
    "one pulse between frames": chops(np.eye(13)[4]),
    "one instant": np.eye(101)[38],
    "decay": np.exp(-np.linspace(0, 3, 20)),
}


def exact(light: np.ndarray, d, shutter: Shutter, row: int, n: int = 2000) -> np.ndarray:
    """Exposure of one row of a texture that moves by d px an interval, by a fine sum of exact translations."""
    s = (np.arange(n) + 0.5) / n
    p = np.interp(s * (len(shutter.profile) - 1), np.arange(len(shutter.profile)), shutter.profile)
    t = shutter.start[row] + s * (shutter.stop[row] - shutter.start[row])
    h, w = light.shape[:2]
    # The transfer function of all translations is a product of two matrices: e^(fy y) p and e^(fx x).
    rows, columns = (
        np.exp(-2j * np.pi * np.outer(t * v, np.fft.fftfreq(m))) for v, m in ((d[1], h), (d[0], w))
    )
    transfer = (rows * p[:, None]).T @ columns
    spectrum = np.fft.fft2(light, axes=(0, 1)) * (transfer / p.sum())[..., None]
    return np.real(np.fft.ifft2(spectrum, axes=(0, 1)))[row]


def expose(light: np.ndarray, d, shutter: Shutter, count: int, engine: str, most: int = 16) -> np.ndarray:
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(count)]
    flow = constant_flow(H, W, *d)
    if engine == "numba":
        return ex.integrate_light(frames, [flow] * (count - 1), shutter, most)
    torch.set_num_threads(1)
    e = gpu.Exposure(H, W, shutter, most, "cpu")
    there = [gpu.to_device(f, "cpu") for f in frames]
    for i in range(count - 1):
        pair = tuple(there[i : i + 2])
        e.add(i, pair, tuple(gpu.quasi(v) for v in pair), *flow)
    return e.linear()


def error(light, d, shutter, count, engine) -> float:
    """RMS in codes over rows that see different times, less a margin."""
    rows = np.arange(24, H - 24, 16)
    want = np.stack([exact(light, d, shutter, r) for r in rows])
    return rms_codes(expose(light, d, shutter, count, engine)[rows], want.astype(np.float32), margin=(0, 24))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("count", "duty", "readout"), [(9, 1.0, 0.0), (4, 0.3, 0.0), (5, 0.61, 0.7), (8, 0.8, 0.0)]
)
def test_any_profile_is_the_analytic_exposure(name, count, duty, readout):
    light, d = texture(1, H, W), (4.1, -1.3)
    box = error(light, d, make_shutter(H, count - 1, duty, readout), count, "numba")
    shutter = make_shutter(H, count - 1, duty, readout, PROFILES[name])
    assert error(light, d, shutter, count, "numba") < box + 0.5


@pytest.mark.parametrize("name", PROFILES)
def test_torch_integrates_profiles_as_numba_does(name):
    light, d = texture(2, H, W), (3.7, 2.2)
    for shutter in (
        make_shutter(H, 3, 0.7, 0.4, PROFILES[name]),
        make_shutter(H, 3, 0.3, 0.0, PROFILES[name]),
    ):
        a, b = (expose(light, d, shutter, 4, e) for e in ("numba", "torch"))
        assert np.abs(a - b)[8:-8, 8:-8].max() < 2e-4


def test_weights_sum_to_the_profile_and_keep_its_centre():
    for profile in PROFILES.values():
        shutter = make_shutter(4, 5, 0.83, 0.6, profile)
        for k in (1, 3, 16):
            at = [shutter.weights(i, np.arange(4), k) for i in range(5)]
            total = sum(w.sum(0) for _, w in at)
            middle = sum((w * (t + i)).sum(0) for i, (t, w) in enumerate(at)) / total
            s = (np.arange(200000) + 0.5) / 200000
            p = np.interp(s * (len(profile) - 1), np.arange(len(profile)), profile / profile.max())
            length = shutter.stop - shutter.start
            assert np.allclose(total, p.mean() * length, rtol=1e-3)
            assert np.allclose(middle, shutter.start + length * (s * p).sum() / p.sum(), atol=2e-3)


def test_a_still_picture_keeps_its_bits_under_any_profile():
    light = texture(3, H, W)
    for profile in PROFILES.values():
        for shutter in (make_shutter(H, 3, 0.3, 0.0, profile), make_shutter(H, 4, 1.0, 0.9, profile)):
            got = ex.integrate_light(
                [pad4(light)] * 6, [constant_flow(H, W, 0, 0)] * round(shutter.stop.max() + 0.49), shutter
            )
            assert np.abs(got - light).max() < 1e-6


@pytest.mark.parametrize(
    ("count", "readout", "off"), [(4, 0.0, True), (4, 10.0, False), (5, 0.0, False), (5, 10.0, False)]
)
def test_off_centre_is_said_where_the_target_is_not_the_middle_of_the_exposure(count, readout, off):
    """Of light that changes evenly, the target of a centred pair is as bright as the exposure."""
    from blursynth.pairs.synthesis import Synthesizer
    from blursynth.recipe import Recipe

    frames = [np.full((32, 32, 3), 80 + 10 * i, np.uint8) for i in range(count)]
    s = Synthesizer(Recipe(interp="dis", readout_ms=readout)).sample(
        "c", frames, 0, 240.0, np.random.default_rng(0)
    )
    assert ("off-centre" in s.quality["flags"]) == off
    apart = np.abs(s.sharp_rgb.astype(float) - s.blur_rgb).mean()
    assert apart > 3 if off else apart < 2


def test_the_stated_exposure_is_the_one_that_the_readout_leaves():
    from blursynth.pairs.synthesis import Synthesizer
    from blursynth.recipe import Recipe

    frames = [np.full((32, 32, 3), 90, np.uint8)] * 9
    for readout, ms in ((0.0, 100 / 3), (20.0, 40 / 3)):
        s = Synthesizer(Recipe(interp="dis", readout_ms=readout)).sample(
            "c", frames, 0, 240.0, np.random.default_rng(0)
        )
        assert s.exposure["shutter_ms"] == pytest.approx(ms, abs=1e-3)
        assert s.exposure["duty"] == pytest.approx(ms * 0.24 / 9, abs=1e-3)
