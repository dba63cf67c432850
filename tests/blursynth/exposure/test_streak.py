"""Blur of a length asked for: the exposure of a pan of known speed is the analytic one of the stated length."""

from itertools import pairwise

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


def over_a_still_ground(share: float, i: int, v: np.ndarray) -> np.ndarray:
    """(120, 160) where a square of a share of the frame is that stands in the middle at frame 4 and moves v px a frame."""
    y, x = np.mgrid[:120, :160] - (np.array([59.5, 79.5]) + v[::-1] * (i - 4))[:, None, None]
    return np.maximum(abs(x), abs(y)) < np.sqrt(share * 120 * 160) / 2


@pytest.mark.parametrize("share", [0.02, 0.04, 0.1])
@pytest.mark.parametrize("v", [(6, 0), (-4, 3), (0, 9)])
def test_background_that_a_moving_thing_passes_over_does_not_move_with_it(share, v):
    """The 5% that moves most is the thing where it is larger than that, else it reaches into what stands still."""
    v = np.array(v)
    inside = [over_a_still_ground(share, i, v)[..., None] * v.astype(np.float32) for i in range(9)]
    s = Streaks(120, 160, 4)
    for one, other in pairwise(inside):
        s.add(PairFlow(one, -other))
    trace = s.trace()
    for start, stop in ((0, 8), (2.5, 6), (3.5, 4.5)):
        want = (stop - start) * np.hypot(*v) if share > 0.05 else 0
        assert s.length(trace, start, stop) == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(("share", "least", "most"), [(0.02, 0, 1), (0.03, 0, 1), (0.1, 31, 33)])
def test_a_film_of_a_thing_before_a_still_ground_tells_how_long_its_blur_is(share, least, most):
    ground, thing, v = texture(2, 120, 160), texture(3, 120, 160), np.array([4.0, 0.0])
    frames = [
        SRGB.encode(
            np.where(over_a_still_ground(share, i, v)[..., None], shifted(thing, *(v * (i - 4))), ground)
        )
        for i in range(9)
    ]
    assert least <= made(frames).exposure["blur_px"] <= most


@pytest.mark.parametrize("size", [(96, 128), (720, 1280)])
def test_content_of_a_zoom_is_followed_through_its_flow(size):
    """2% an interval about the middle: exact places are powers of 1.02, and all of it moves, the corners most."""
    h, w = size
    y, x = np.mgrid[:h, :w].astype(np.float32)
    away = np.stack([x - (w - 1) / 2, y - (h - 1) / 2], -1)
    s = Streaks(h, w, 2)
    for _ in range(4):
        s.add(PairFlow(0.02 * away, (1 / 1.02 - 1) * away))
    want = np.percentile((1.02**2 - 1.02**-2) * np.hypot(away[..., 0], away[..., 1]), 95)
    assert s.length(s.trace(), 0, 4) == pytest.approx(want, rel=0.02)


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
