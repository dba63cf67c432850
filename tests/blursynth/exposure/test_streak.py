"""Blur of a length asked for: the exposure of a pan of known speed is the analytic one of the stated length."""

import numpy as np
import pytest

from blursynth.camera.response import load_response
from blursynth.exposure.shake import draw_path
from blursynth.exposure.streak import Streaks
from blursynth.motion.flow import PairFlow
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from tests.blursynth.exposure.test_shake import rms_codes
from tests.helpers.moving_light import box_exposure, constant_flow, shifted, texture

SRGB = load_response("srgb")
D = (3.0, -1.6)
SPEED = float(np.hypot(*D))  # 3.4 px a frame


@pytest.fixture(scope="module")
def pan() -> list[np.ndarray]:
    light = texture(1, 160, 200)
    return [SRGB.encode(shifted(light, D[0] * (i - 4), D[1] * (i - 4))) for i in range(9)]


def made(frames, seed=0, **options):
    return Synthesizer(Recipe(interp="dis", **options)).sample(
        "c", frames, 0, 240.0, np.random.default_rng(seed)
    )


def test_streaks_of_known_motion():
    s = Streaks(120, 160, 2)
    for _ in range(4):
        s.add(PairFlow(*constant_flow(120, 160, *D)))
    trace = s.trace()
    for start, stop in ((0, 4), (1, 3), (1.25, 2.5), (1.9, 2.1)):
        assert s.length(trace, start, stop) == pytest.approx(SPEED * (stop - start), rel=1e-4)
    still = Streaks(120, 160, 2)
    for _ in range(4):
        still.add(PairFlow(*constant_flow(120, 160, 0, 0)))
    path = draw_path(np.random.default_rng(0), 9, 160, 120)
    assert still.length(still.trace(), 0, 4, path) == pytest.approx(
        9, rel=0.1
    )  # roll adds a little at the corners
    slide = np.stack([np.linspace(-4, 4, 33), np.zeros(33), np.zeros(33)], 1)
    assert s.length(trace, 0, 4, slide) == pytest.approx(np.hypot(4 * D[0] + 8, 4 * D[1]), rel=1e-3)


def test_every_sample_tells_its_blur(pan):
    assert made(pan).exposure["blur_px"] == pytest.approx(8 * SPEED, rel=0.05)
    assert made(pan, duty="0.5").exposure["blur_px"] == pytest.approx(4 * SPEED, rel=0.05)
    assert made([pan[0]] * 9).exposure["blur_px"] == 0


@pytest.mark.parametrize("px", ["4", "12.5", "20"])
def test_a_pan_gives_the_analytic_exposure_of_the_length_asked(pan, px):
    s = made(pan, blur_px=px)
    assert s.exposure["blur_px"] == pytest.approx(float(px), abs=0.01)
    half = float(px) / SPEED / 2
    want = box_exposure(texture(1, 160, 200), *D, -half, half)
    assert rms_codes(SRGB.decode(s.blur_rgb, 0.0)[..., :3], want, 40) < 0.8
    assert s.exposure["shutter_ms"] == pytest.approx(2000 * half / 240, rel=0.05)
    assert np.array_equal(s.sharp_rgb, pan[4])


def test_lengths_are_drawn_over_the_range_and_cut_to_what_the_window_gives(pan):
    got = np.array([made(pan, seed, blur_px="5-15").exposure["blur_px"] for seed in range(12)])
    assert got.min() >= 4.99 and got.max() <= 15.01 and np.ptp(got) > 5
    most = made(pan).exposure["blur_px"]
    assert all(5 <= made(pan, seed, blur_px="20-400").exposure["blur_px"] <= most + 0.01 for seed in range(6))
    assert made(pan, duty="0.5", blur_px="5-400").exposure["blur_px"] <= most / 2 + 0.5


def test_windows_that_cannot_reach_it_are_left_out(pan):
    assert made(pan, blur_px="60-80").rejected == "blur_px"
    assert made([pan[0]] * 9, blur_px="1-80").rejected == "blur_px"
    assert made(pan, shake="30", blur_px="1-2").rejected == "blur_px"
    assert made(pan, blur_px="5-80").rejected is None


def test_shake_counts(pan):
    s = made(pan, shake="8", blur_px="14")
    assert s.exposure["blur_px"] == pytest.approx(14, abs=0.05)
    assert s.exposure["shake"]["px"] == pytest.approx(8, abs=1e-3)
