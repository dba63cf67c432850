"""The integrator: known exposures come back, and the physics' symmetries hold."""

import numpy as np
import pytest

from blursynth.camera.response import load_response
from blursynth.exposure import integrate as ex
from blursynth.exposure.shutter import make_shutter
from blursynth.pairs.synthesis import Synthesizer, integrate_exposure
from blursynth.recipe import Recipe, RecipeError
from tests.helpers.moving_light import box_exposure, constant_flow, pad4, shifted, texture

INNER = np.s_[24:-24, 24:-24]


@pytest.mark.parametrize("d", [(0.3, 0.1), (1.7, -0.6), (2.0, 0.0), (4.3, 2.2), (-9.1, 5.7)])
def test_translation_gives_the_analytic_box_blur(d):
    light = texture(1)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(4)]
    flows = [constant_flow(96, 128, *d)] * 3
    got = ex.integrate_light(frames, flows, make_shutter(96, 3), 16)
    want = box_exposure(light, *d, 0, 3)
    margin = np.s_[32:-32, 32:-32] if max(map(abs, d)) > 6 else INNER
    error = (got - want)[margin]
    assert np.sqrt(np.mean(error**2)) < 0.0015 and np.abs(error).max() < 0.006  # of white
    plain = np.mean([f[..., :3] for f in frames], 0)
    if max(map(abs, d)) > 2:
        assert np.abs(plain - want)[margin].max() > 0.02


def test_static_clip_comes_back_bit_identical_through_every_interpolator():
    frame = np.random.default_rng(0).integers(0, 256, (72, 100, 3), dtype=np.uint8)
    for interp in ("dis", "deepflow", "none"):
        for crf in ("srgb", "gamma2.2", "display"):
            out = integrate_exposure([frame] * 5, Recipe(interp=interp, crf=crf))
            assert np.array_equal(out, frame), (interp, crf)


def test_time_reversal_gives_the_same_blur():
    light = texture(2, sigma=2.5)
    response = load_response("srgb")
    frames = [response.encode(shifted(light, 3.1 * i + 0.4 * i * i, -1.2 * i)) for i in range(5)]
    recipe = Recipe(interp="dis")
    a, b = integrate_exposure(frames, recipe), integrate_exposure(frames[::-1], recipe)
    assert np.abs(a.astype(int) - b).max() <= 1
    assert np.mean(a != b) < 0.001


def test_energy_is_conserved_in_linear_light():
    light = texture(3)
    d = (5.3, 3.9)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(4)]
    got = ex.integrate_light(frames, [constant_flow(96, 128, *d)] * 3, make_shutter(96, 3))
    mean = np.mean([f[..., :3].mean((0, 1)) for f in frames], 0)
    assert np.allclose(got.mean((0, 1)), mean, rtol=0.01)


def test_a_constant_gain_scales_the_exposure():
    frames = [pad4(shifted(texture(4), 2.6 * i, 1.1 * i)) for i in range(3)]
    flows = [constant_flow(96, 128, 2.6, 1.1)] * 2
    shutter = make_shutter(96, 2)
    one = ex.integrate_light(frames, flows, shutter)
    half = ex.integrate_light([f * np.float32([0.5, 0.5, 0.5, 1]) for f in frames], flows, shutter)
    assert np.allclose(half, one * 0.5, atol=1e-6)


def test_contradicting_flows_are_drawn_towards_the_cross_fade():
    light = texture(5)
    frames = [pad4(light), pad4(light)]
    there, back = constant_flow(96, 128, 21.0, -17.0)
    believed = ex.integrate_light(frames, [(there, back)], make_shutter(96, 1))
    doubted = ex.integrate_light(frames, [(there, there)], make_shutter(96, 1))
    assert np.abs(believed - light).mean() > 0.05
    assert np.abs(doubted - light).mean() < 0.75 * np.abs(believed - light).mean()


def test_duty_exposes_the_middle_of_the_window():
    light = texture(6)
    d = (3.3, 1.4)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(5)]
    got = ex.integrate_light(frames, [constant_flow(96, 128, *d)] * 4, make_shutter(96, 4, duty=0.5))
    assert np.abs(got - box_exposure(light, *d, 1, 3))[INNER].max() < 0.006


def test_triangle_profile_weighs_the_centre():
    light = texture(7)
    d = (3.7, -1.4)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(5)]
    shutter = make_shutter(96, 4, profile=np.array([0, 1, 0], np.float32))
    got = ex.integrate_light(frames, [constant_flow(96, 128, *d)] * 4, shutter)
    want = box_exposure(light, *d, 0, 4, weight=lambda s: 1 - abs(2 * s - 1))
    assert np.abs(got - want)[INNER].max() < 0.006
    assert np.abs(got - box_exposure(light, *d, 0, 4))[INNER].max() > 0.02


def test_rolling_shutter_exposes_each_row_at_its_own_time():
    h, w = 96, 128
    light = texture(8)
    d = (4.0, 0.0)
    frames = [pad4(shifted(light, d[0] * i, 0)) for i in range(5)]
    shutter = make_shutter(h, 4, duty=0.5, readout=1.0)
    got = ex.integrate_light(frames, [constant_flow(h, w, *d)] * 4, shutter)
    for row in (30, 48, 70):
        start = 1 + (row + 0.5) / h - 0.5
        want = box_exposure(light, *d, start, start + 2)
        assert np.abs(got - want)[row, 24:-24].max() < 0.008


def test_readout_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="no exposure"):
        make_shutter(96, 4, readout=4.0)


def test_a_readout_over_frames_of_no_known_rate_is_refused():
    """It was taken for none: all rows at once, and the sample's JSON gave the readout that was asked for."""
    frames = [np.zeros((48, 64, 3), np.uint8)] * 3
    with pytest.raises(RecipeError, match="frame rate is not known: give fps"):
        integrate_exposure(frames, Recipe(interp="dis", readout_ms=5))
    assert integrate_exposure(frames, Recipe(interp="dis", readout_ms=5, fps=100)).shape == (48, 64, 3)


def test_motion_that_cannot_reach_the_length_asked_for_is_told():
    with pytest.raises(ValueError, match="blur_px 20: these frames give 0 to 0 px"):
        integrate_exposure([np.zeros((48, 64, 3), np.uint8)] * 3, Recipe(interp="dis", blur_px="20"))


def test_sub_steps_follow_the_motion_and_stop_at_the_limit():
    h, w = 48, 64
    frames = [pad4(texture(9, h, w))] * 2
    for d, limit, most in ((0.2, 16, 1), (2.0, 16, 2), (6.0, 16, 4), (40.0, 16, 16), (40.0, 4, 4)):
        e = ex.Exposure(h, w, make_shutter(h, 1), limit)
        e.add(0, (frames[0], frames[1]), (frames[0], frames[1]), *constant_flow(h, w, d, 0))
        assert e.longest == most


def test_moving_edge_over_a_background_neither_doubles_nor_tears():
    """A square crossing a textured still background: the truth is known exactly, flows are estimated."""
    response = load_response("srgb")
    back, front = texture(10, 144, 192, 3.0), texture(11, 144, 192, 2.0)

    def at(t: float) -> np.ndarray:
        alpha = np.zeros((144, 192), np.float32)
        x0 = 40 + 6 * t
        xs, ys = np.arange(192) + 0.5, np.arange(144) + 0.5
        mx = np.clip(xs - x0 + 0.5, 0, 1) * np.clip(x0 + 60 - xs + 0.5, 0, 1)
        my = np.clip(ys - 40 + 0.5, 0, 1) * np.clip(104 - ys + 0.5, 0, 1)
        alpha = (my[:, None] * mx[None])[..., None].astype(np.float32)
        return back * (1 - alpha) + shifted(front, 6 * t, 0) * alpha

    frames = [response.encode(at(i)) for i in range(5)]
    truth = response.encode(np.mean([at((i + 0.5) / 32) for i in range(128)], 0))
    got = integrate_exposure(frames, Recipe(interp="dis"))
    plain = integrate_exposure(frames, Recipe(interp="none"))

    def psnr(a):
        return 10 * np.log10(255**2 / np.mean((a[8:-8, 8:-8].astype(float) - truth[8:-8, 8:-8]) ** 2))

    assert psnr(got) > 40
    assert psnr(got) > psnr(plain) + 8


def test_colour_order_is_rgb_end_to_end():
    red = np.zeros((64, 80, 3), np.uint8)
    red[..., 0] = 200
    assert np.array_equal(integrate_exposure([red] * 3, Recipe(interp="dis")), red)


def test_shared_flows_are_computed_once_and_change_nothing():
    light = texture(12)
    frames = [load_response("srgb").encode(shifted(light, 1.5 * i, 0)) for i in range(7)]
    synth = Synthesizer(Recipe(interp="dis", window="5", stride=1))
    rng = np.random.default_rng
    synth.sample("c", frames[0:5], 0, 240.0, rng(0))
    again = synth.sample("c", frames[1:6], 1, 240.0, rng(0))
    fresh = Synthesizer(Recipe(interp="dis", window="5", stride=1)).sample("c", frames[1:6], 1, 240.0, rng(0))
    assert np.array_equal(again.blur_rgb, fresh.blur_rgb)
    assert set(synth.light.flows) == {("c", i) for i in range(5)}
    synth.forget("c", 3)
    assert set(synth.light.flows) == {("c", 3), ("c", 4)}


def test_what_the_compiled_loop_trusts_is_checked_before_it_runs():
    light, flow = pad4(texture(1, 32, 48)), constant_flow(32, 48, 1, 1)
    for h, w in ((1, 48), (32, 1), (0, 0)):
        with pytest.raises(ValueError, match="at least 2x2 px"):
            ex.Exposure(h, w, make_shutter(h, 1), 16)
    with pytest.raises(ValueError, match="a shutter of 32 rows"):
        ex.Exposure(32, 48, make_shutter(31, 1), 16)
    whole = [(light, light), (light, light), *flow]
    for spoilt, wrong in (
        (0, (light, light[:31])),
        (1, (light, light.astype(np.float64))),
        (2, flow[0][:, :47]),
        (3, flow[1][..., :1]),
    ):
        parts = list(whole)
        parts[spoilt] = wrong
        with pytest.raises(ValueError, match=r"need float32 \(32, 48, "):
            ex.Exposure(32, 48, make_shutter(32, 1), 16).add(0, *parts)
    with pytest.raises(ValueError, match="collected no light"):
        ex.Exposure(32, 48, make_shutter(32, 1), 16).linear()


def test_frames_too_small_or_of_unequal_shape_are_refused():
    for frames in ([np.zeros((15, 40, 3), np.uint8)] * 3, [np.zeros((40, 1, 3), np.uint8)] * 3):
        with pytest.raises(ValueError, match="at least 16 px a side"):
            integrate_exposure(frames, Recipe(interp="dis"))


def test_light_that_is_not_a_number_is_black_and_never_an_index():
    light = np.full((4, 4, 3), 0.5, np.float32)
    light[1, 1] = (np.nan, np.inf, -np.inf)
    assert load_response("srgb").encode(light)[1, 1].tolist() == [0, 255, 0]


@pytest.mark.parametrize("engine", ["numba", "torch", "rife"])
@pytest.mark.parametrize("path", [None, np.array([[0.0, 0, 0], [0.0, 3, 0]])])
def test_a_thin_fast_lamp_draws_a_streak_and_no_dashes(engine, path):
    """A lamp 2 px wide that moves 60 px in an interval leaves 2 / 60 of its light everywhere on its way."""
    from blursynth.exposure import gpu

    frames = []
    for at in (40, 100):
        light = np.full((48, 160, 3), 0.1, np.float32)
        light[23:26, at : at + 2] = 6
        frames.append(pad4(light))
    flow, shutter = constant_flow(48, 160, 60, 0), make_shutter(48, 1)
    if engine == "numba":
        got = ex.integrate_light(frames, [flow], shutter, 16, path)
    elif engine == "rife":
        from blursynth.exposure.rife_exposure import RifeExposure
        from tests.blursynth.exposure.test_rife import KnownMotion

        codes = [load_response("srgb").encode(f[..., :3]) for f in frames]
        e = RifeExposure(KnownMotion((60, 0)), codes, shutter, 16, path=path)
        e.add(0, tuple(frames), tuple(ex.quasi(f) for f in frames), *flow)
        got = e.linear()
    else:
        e = gpu.Exposure(48, 160, shutter, 16, "cpu", path)
        there = tuple(gpu.to_device(f, "cpu") for f in frames)
        e.add(0, there, tuple(gpu.quasi(f) for f in there), *flow)
        got = e.linear()
    streak = got[:, 46:96].sum(0)[:, 0] - 48 * 0.1
    assert streak.max() < 1.3 * streak.min()
    assert streak.mean() == pytest.approx(3 * 5.9 * 2 / 60, rel=0.1)
