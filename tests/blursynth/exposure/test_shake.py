"""A shaking camera: paths are a hand's, and the exposure is the one along the stored path."""

import numpy as np
import pytest
import torch

from blursynth.camera.response import load_response
from blursynth.exposure import gpu
from blursynth.exposure import integrate as ex
from blursynth.exposure.shake import border, describe, draw_path, path_length, widest_border
from blursynth.exposure.shutter import make_shutter
from blursynth.exposure.still import expose_still, reach
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from tests.helpers.moving_light import constant_flow, moving_disc, pad4, shifted, texture

SRGB = load_response("srgb")
H, W = 96, 128


def looked(fine: np.ndarray, x: float, y: float, deg: float, dx: float = 0, dy: float = 0) -> np.ndarray:
    """The picture (H, W, 3) of a camera at one place of its path, from the contract's words: content at p in the target
    stands at R (p - c) + c + (x, y). fine: the target's light, four times as fine; (dx, dy): its own motion since."""
    h, w = fine.shape[0] // 4, fine.shape[1] // 4
    r = np.radians(deg)
    c = np.array([(w - 1) / 2, (h - 1) / 2])
    turn = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    gx, gy = np.meshgrid(np.arange(w), np.arange(h))
    seen = np.stack([gx - c[0] - x, gy - c[1] - y], -1) @ turn  # R^T v, as a row vector
    return _bilinear(fine, (seen + c - (dx, dy)) * 4)


def made_fine(light: np.ndarray) -> np.ndarray:
    """Band-limited light (H, W, 3) four times as fine, by its spectrum."""
    h, w = light.shape[:2]
    return (np.fft.irfft2(_padded(light), (4 * h, 4 * w), axes=(0, 1)) * 16).astype(np.float32)


def _padded(light: np.ndarray) -> np.ndarray:
    """Spectrum of the light for a picture four times as fine."""
    h, w = light.shape[:2]
    f = np.fft.rfft2(light, axes=(0, 1))
    out = np.zeros((4 * h, 2 * w + 1, 3), complex)
    out[: h // 2, : w // 2] = f[: h // 2, : w // 2]
    out[-(h // 2 - 1) :, : w // 2] = f[-(h // 2 - 1) :, : w // 2]
    return out


def _bilinear(im: np.ndarray, at: np.ndarray) -> np.ndarray:
    """At a quarter of a pixel, bilinear errs by 1/16 of what it does at a pixel."""
    h, w = im.shape[:2]
    x0, y0 = np.floor(at[..., 0]).astype(int), np.floor(at[..., 1]).astype(int)
    a, b = (at[..., 0] - x0)[..., None], (at[..., 1] - y0)[..., None]
    x1, y1 = (x0 + 1) % w, (y0 + 1) % h
    x0, y0 = x0 % w, y0 % h
    return (im[y0, x0] * (1 - a) + im[y0, x1] * a) * (1 - b) + (im[y1, x0] * (1 - a) + im[y1, x1] * a) * b


def along(light: np.ndarray, path: np.ndarray, per_piece: int = 3) -> np.ndarray:
    """Reference: mean of `looked` over the path, linear between its places."""
    n = (len(path) - 1) * per_piece
    u = (np.arange(n) + 0.5) / per_piece
    places = np.stack([np.interp(u, np.arange(len(path)), v) for v in path.T], 1)
    fine = made_fine(light)
    return np.mean([looked(fine, *p) for p in places], 0)


def of_film(light: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Exposure (H, W, 3) of a film of one picture, which stands still."""
    h, w = light.shape[:2]
    return ex.integrate_light(
        [pad4(light)] * 9, [constant_flow(h, w, 0, 0)] * 8, make_shutter(h, 8), path=path
    )


def of_still(light: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The same of the picture as a still; beyond its sides lies its reflection, as `make --stills` has it."""
    h, w = light.shape[:2]
    part, middle = (0, 0, w, h), ((w - 1) / 2, (h - 1) / 2)
    left, top, right, bottom = reach(path, part, middle)
    room = [(max(-top, 0), max(bottom - h, 0)), (max(-left, 0), max(right - w, 0)), (0, 0)]
    box = (-room[1][0], -room[0][0], w + room[1][1], h + room[0][1])
    return expose_still(np.pad(pad4(light), room, "reflect"), box, part, path, middle).light[..., :3]


BOTH = pytest.mark.parametrize("expose", [of_film, of_still])


def rms_codes(a: np.ndarray, b: np.ndarray, margin: int | tuple[int, int]) -> float:
    """RMS difference, in display codes, of two pictures of linear light, less a margin (rows, columns)."""
    rows, columns = (margin, margin) if isinstance(margin, int) else margin
    inner = np.s_[rows : a.shape[0] - rows, columns : a.shape[1] - columns]
    first, second = (SRGB.encode(np.clip(v, 0, 1)[inner]).astype(float) for v in (a, b))
    return float(np.sqrt(np.mean((first - second) ** 2)))


@pytest.mark.parametrize("px", [0.5, 4, 20])
@pytest.mark.parametrize("seed", range(4))
def test_a_path_has_the_length_asked_and_is_zero_at_the_target(px, seed):
    for target in (0.0, 0.31, 0.5, 1.0):
        path = draw_path(np.random.default_rng(seed), px, 1280, 720, target)
        assert len(path) >= 33
        assert path_length(path) == pytest.approx(px, abs=1e-4)
        there = [np.interp(target, np.linspace(0, 1, len(path)), v) for v in path.T]
        assert np.allclose(there, 0, atol=1e-6)
        assert max(border(path, 1280, 720)) <= widest_border(px, 1280, 720)


@pytest.mark.parametrize("seed", range(5))
def test_about_the_centre_a_path_is_the_same_path_with_a_mean_of_zero(seed):
    """The shape stays; the mean over time, weighed by the exposure's profile, is where the sharp picture stands."""
    draw = lambda *a: draw_path(np.random.default_rng(seed), 12.0, 640, 480, 0.5, *a)  # noqa: E731
    at_instant, centred = draw(), draw("centre")
    assert np.allclose(np.diff(at_instant, axis=0), np.diff(centred, axis=0), atol=2e-6)
    assert np.allclose(np.trapezoid(centred, dx=1 / 64, axis=0), 0, atol=1e-5)
    late = draw(
        "centre", np.array([0.0, 0.0, 1.0])
    )  # exposed towards its end: the sharp picture stands there
    assert np.hypot(*late[-1, :2]) < np.hypot(*centred[-1, :2])


def test_paths_differ_curve_and_turn():
    paths = [draw_path(np.random.default_rng(s), 20, 1280, 720) for s in range(64)]
    straight = [np.hypot(*(p[-1] - p[0])[:2]) / 20 for p in paths]
    assert np.percentile(straight, 10) < 0.5 < 0.9 < np.percentile(straight, 90)
    heading = [np.arctan2(*(p[-1] - p[0])[1::-1]) for p in paths]
    assert abs(np.mean(np.exp(1j * np.array(heading)))) < 0.35  # every direction
    assert all(p[:, 2].std() > 0 for p in paths)
    # Smooth: the direction from place to place turns by less than a right angle nearly everywhere.
    steps = [np.diff(p[:, :2], axis=0) for p in paths]
    cosines = np.concatenate(
        [(s[1:] * s[:-1]).sum(1) / np.maximum(np.hypot(*s[1:].T) * np.hypot(*s[:-1].T), 1e-12) for s in steps]
    )
    assert np.mean(cosines > 0) > 0.97


@BOTH
@pytest.mark.parametrize(("seed", "px"), [(0, 3.0), (1, 8.0), (2, 20.0)])
def test_a_still_picture_is_exposed_along_the_path(expose, seed, px):
    light = texture(1, H, W)
    path = draw_path(np.random.default_rng(seed), px, W, H)
    want = along(light, path)
    got = expose(light, path)
    assert rms_codes(got, want, 24) < 0.5
    assert rms_codes(light, want, 24) > 2  # it is a blur


@BOTH
def test_the_signs_are_those_of_the_contract(expose):
    """A dot on the right that the path sends down by its roll and to the right by its x."""
    light = np.zeros((65, 65, 3), np.float32)
    light[32, 52] = 1
    ends = np.array([[0.0, 0, 0], [0, 0, 0]])
    for place, at in (((3, 0, 0), (55, 32)), ((0, 4, 0), (52, 36)), ((0, 0, 10), (51.7, 35.47))):
        got = expose(light, ends + place)[..., 0]
        y, x = np.mgrid[:65, :65]
        assert np.allclose([(got * x).sum(), (got * y).sum()] / got.sum(), at, atol=0.05)


@BOTH
def test_light_from_outside_is_the_reflected_one(expose):
    light = texture(3, H, W)
    path = np.array([[0.0, 0, 0], [9.0, -6.0, 0]])
    assert border(path, W, H) == [9, 0, 0, 6]
    wide = np.pad(light, ((16, 16), (16, 16), (0, 0)), "reflect")
    assert (
        np.abs(expose(wide, path)[16:-16, 16:-16] - expose(light, path)).max() < 4e-3
    )  # the pre-filter ends at the side


@BOTH
def test_beyond_the_border_nothing_comes_from_outside(expose):
    path = draw_path(np.random.default_rng(5), 16, W, H)
    left, top, right, bottom = border(path, W, H)
    light = texture(4, H + 64, W + 64)
    whole, cut = (expose(v, path)[..., 0] for v in (light, light[32:-32, 32:-32]))
    apart = np.abs(whole[32:-32, 32:-32] - cut) > 2e-3
    assert not apart[top + 2 : H - bottom - 2, left + 2 : W - right - 2].any()
    assert (
        apart[:, :left].any() or apart[:top].any() or apart[H - bottom :].any() or apart[:, W - right :].any()
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_shake_and_motion_compose(seed):
    """A texture that moves at a known speed, under a camera that shakes: every instant is known."""
    light, d, n = texture(6, H, W), (2.3, -1.1), 4
    frames = [pad4(shifted(light, d[0] * (i - 2), d[1] * (i - 2))) for i in range(n + 1)]
    path = draw_path(np.random.default_rng(seed), 8, W, H)
    want, steps, fine = 0, 240, made_fine(light)
    for s in (np.arange(steps) + 0.5) / steps:
        place = [np.interp(s, np.linspace(0, 1, len(path)), v) for v in path.T]
        want = want + looked(fine, *place, d[0] * n * (s - 0.5), d[1] * n * (s - 0.5)) / steps
    shutter = make_shutter(H, n)
    got = ex.integrate_light(frames, [constant_flow(H, W, *d)] * n, shutter, path=path)
    assert rms_codes(got, want, 28) < 0.5
    assert rms_codes(ex.integrate_light(frames, [constant_flow(H, W, *d)] * n, shutter), want, 28) > 2


def test_steps_follow_the_sum_of_both_motions():
    frames = [pad4(texture(9, 48, 64))] * 2
    for d, shake, most in ((0, 5.8, 4), (5.8, 5.8, 8), (5.8, -5.8, 1), (0, 0.2, 1)):
        e = ex.Exposure(48, 64, make_shutter(48, 1), 16, np.array([[0.0, 0, 0], [shake, 0, 0]]))
        e.add(0, (frames[0], frames[1]), (frames[0], frames[1]), *constant_flow(48, 64, d, 0))
        assert e.longest == most


def test_intervals_of_a_shaken_exposure_come_in_turn_and_all():
    """A frame between two intervals is sampled once, with the weights of both."""
    frame, flow = pad4(texture(9, 48, 64)), constant_flow(48, 64, 0, 0)
    e = ex.Exposure(48, 64, make_shutter(48, 3), 16, draw_path(np.random.default_rng(0), 4, 64, 48))
    e.add(0, (frame, frame), (frame, frame), *flow)
    with pytest.raises(ValueError, match="interval 1 comes next, got 2"):
        e.add(2, (frame, frame), (frame, frame), *flow)
    with pytest.raises(ValueError, match="interval 1 and those after it are missing"):
        e.linear()
    for i in (1, 2):
        e.add(i, (frame, frame), (frame, frame), *flow)
    assert e.linear().shape == (48, 64, 3)
    assert np.allclose(e.acc[..., 3], 3, atol=1e-4)  # every pixel has collected all of three intervals


@pytest.mark.parametrize("readout", [0.0, 0.6])
def test_torch_gives_what_numba_gives(readout):
    torch.set_num_threads(1)
    from blursynth.motion.flow import estimate_pair

    frames = moving_disc((7.0, 3.0))
    path = draw_path(np.random.default_rng(3), 9, 160, 120)
    shutter = make_shutter(120, 2, 0.8, readout)
    lights = [SRGB.decode(f, 0.0) for f in frames]
    a, b = ex.Exposure(120, 160, shutter, 16, path), gpu.Exposure(120, 160, shutter, 16, "cpu", path)
    for i in range(2):
        flow = estimate_pair("dis", frames[i], frames[i + 1])
        there = [gpu.to_device(v, "cpu") for v in lights[i : i + 2]]
        a.add(i, lights[i : i + 2], [ex.quasi(v) for v in lights[i : i + 2]], flow.forward, flow.backward)
        b.add(i, there, [gpu.quasi(v) for v in there], flow.forward, flow.backward)
    assert abs(a.steps - b.steps) < 1e-3 * a.steps and a.longest == b.longest
    apart = np.abs(SRGB.encode(a.linear()).astype(int) - SRGB.encode(b.linear()))
    assert np.mean(apart > 1) < 1e-3 and apart.max() < 16


def test_rife_gives_what_numba_gives_of_known_motion():
    from blursynth.exposure.rife_exposure import RifeExposure
    from tests.blursynth.exposure.test_rife import KnownMotion

    d = (4.3, 2.2)
    light = texture(1)
    frames = [pad4(shifted(light, d[0] * i, d[1] * i)) for i in range(3)]
    flow, shutter = constant_flow(96, 128, *d), make_shutter(96, 2)
    path = draw_path(np.random.default_rng(1), 7, 128, 96)
    got = RifeExposure(KnownMotion(d), [SRGB.encode(f[..., :3]) for f in frames], shutter, 16, path=path)
    smooth = [ex.quasi(f) for f in frames]
    for i in range(2):
        got.add(i, tuple(frames[i : i + 2]), tuple(smooth[i : i + 2]), *flow)
    want = ex.integrate_light(frames, [flow] * 2, shutter, path=path)
    assert rms_codes(got.linear(), want, 20) < 0.5


def test_a_sample_tells_its_path_and_keeps_its_target():
    frames = [SRGB.encode(texture(2, 120, 160))] * 5
    plain = Synthesizer(Recipe(interp="dis")).sample("c", frames, 0, 240.0, np.random.default_rng(1))
    shaken = Synthesizer(Recipe(interp="dis", shake="6-10")).sample(
        "c", frames, 0, 240.0, np.random.default_rng(1)
    )
    assert plain.exposure["shake"] is None
    told = shaken.exposure["shake"]
    assert (
        6 <= told["px"] <= 10
        and len(told["path"]) >= 33
        and told["border"] == border(np.array(told["path"]), 160, 120)
    )
    assert np.array_equal(shaken.sharp_rgb, frames[2]) and np.array_equal(plain.sharp_rgb, frames[2])
    want = of_still(SRGB.decode(frames[2], 0.0)[..., :3], np.array(told["path"]))
    assert rms_codes(SRGB.decode(shaken.blur_rgb, 0.0)[..., :3], want, 16) < 0.5
    assert describe(np.array(told["path"]), 160, 120) == told


def test_an_even_window_is_zero_at_its_target_frame():
    frames = [SRGB.encode(texture(2, 64, 64))] * 6
    s = Synthesizer(Recipe(interp="dis", shake="8", duty="0.8")).sample(
        "c", frames, 0, None, np.random.default_rng(2)
    )
    path = np.array(s.exposure["shake"]["path"])
    at = (2 - 0.5) / 4  # frame 2 of 0..5, open from 0.5 to 4.5
    assert np.allclose([np.interp(at, np.linspace(0, 1, len(path)), v) for v in path.T], 0, atol=1e-6)
