"""Light above white: what the settings mean, which blobs are lamps, and that streaks of known lamps get their energy."""

import cv2
import numpy as np
import pytest

from blursynth.camera.highlights import AUTO, RIM, find_lights, parse_highlights
from blursynth.pairs.synthesis import Synthesizer, integrate_exposure
from blursynth.recipe import Recipe


def encode(light: np.ndarray) -> np.ndarray:
    x = np.clip(light, 0, 1)
    return np.round(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )


def background(h: int = 96, w: int = 160) -> np.ndarray:
    noise = np.random.default_rng(3).random((h, w, 3)).astype(np.float32)
    return 0.1 + 0.5 * cv2.GaussianBlur(noise, (0, 0), 3)


def lamp(light: np.ndarray, x: float, y: float, radius: float, peak: float) -> np.ndarray:
    """A disc of the given light with an edge one pixel soft, drawn over."""
    yy, xx = np.mgrid[: light.shape[0], : light.shape[1]].astype(np.float32)
    cover = np.clip(radius + 0.5 - np.hypot(xx - x, yy - y), 0, 1)[..., None]
    return light * (1 - cover) + peak * cover


def test_settings():
    assert parse_highlights("off").draw(0.5) == 0
    assert parse_highlights("rsblur").draw(0) == 0.25
    assert parse_highlights("rsblur").draw(0.5) == 1.0
    assert parse_highlights("5").draw(0.7) == 5
    assert parse_highlights("1-3").draw(0.25) == 1.5
    draws = [parse_highlights("auto").draw(u) for u in (0, 0.5, 1)]
    assert np.allclose(draws, [AUTO[0], np.sqrt(AUTO[0] * AUTO[1]), AUTO[1]])
    for bad in ("on", "3-1", "-1", "1-2-3", "", "nan", "101"):
        with pytest.raises(ValueError, match="off, rsblur, auto"):
            parse_highlights(bad)


def test_rsblur_adds_alpha_times_the_mean_clip_mask():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(5)]
    for f in frames:
        f[f > 180] = 255
    recipe = Recipe(interp="none", highlights="rsblur", crf="display")
    s = Synthesizer(recipe).sample("c", frames, 0, 240, np.random.default_rng(1))
    alpha = s.camera["highlights"]
    assert 0.25 <= alpha <= 1.75
    mean, mask = np.mean(frames, 0) / 255, np.mean([f == 255 for f in frames], 0)
    want = np.clip(mean + alpha * mask, 0, 1) * 255
    assert np.abs(s.blur_rgb - want).max() <= 0.5 + 1e-3


def test_the_rim_gets_a_share_and_other_pixels_nothing():
    f = np.full((20, 20, 3), 100, np.uint8)
    f[5:10, 5:10] = 255
    got = parse_highlights("4").excess(f, 4.0)
    want = np.zeros((20, 20))
    want[5:10, 5:10] = 4 * RIM
    want[6:9, 6:9] = 4
    assert np.allclose(got, want[..., None])


def test_auto_takes_lamps_and_leaves_white_areas_and_white_paint():
    scene = background(360, 640)
    scene = lamp(scene, 100, 60, 4, 6.0)  # a lamp
    scene = lamp(scene, 300, 60, 2, 6.0)  # a glint
    scene[250:, :200] = 1.2  # a white wall
    patch = np.zeros(scene.shape[:2], np.float32)
    cv2.circle(
        patch, (450, 250), 6, 1.0, -1
    )  # a white spot that just reaches 255, as sharp as a lens makes it
    scene += 1.2 * cv2.GaussianBlur(patch, (0, 0), 3)[..., None]
    codes = encode(scene)
    assert codes[250, 450].max() == 255
    got = find_lights(codes)
    assert got[60, 100] and got[60, 300]
    assert not got[240:].any()
    assert got.sum() < 120


def test_specks_of_noise_in_a_bright_sky_are_not_lamps():
    sky = np.full((200, 300, 3), 252.0) + np.random.default_rng(0).normal(0, 2, (200, 300, 3))
    assert not find_lights(np.clip(np.round(sky), 0, 255).astype(np.uint8)).any()


def test_auto_is_harmless_where_nothing_is_clipped_to_a_blob():
    frames = [encode(np.roll(background(), 3 * i, 1)) for i in range(5)]
    for f in frames:
        f[:, :80] = np.where(np.arange(96)[:, None, None] < 48, 255, f[:, :80])  # a large white area
    off, auto = (integrate_exposure(frames, Recipe(interp="dis", highlights=h)) for h in ("off", "auto"))
    assert np.array_equal(off, auto)


def test_the_streak_of_a_lamp_is_as_white_as_a_camera_makes_it():
    """A lamp six times white over a moving background: the truth integrates it unclipped."""
    count, peak, step = 5, 6.0, 4.0

    def scene(t: float) -> np.ndarray:
        still = background(96, 200)
        moved = cv2.warpAffine(
            still, np.float32([[1, 0, step * t], [0, 1, 0]]), (200, 96), borderMode=cv2.BORDER_REFLECT
        )
        for x, y in ((60, 30), (90, 50), (120, 70)):
            moved = lamp(moved, x + step * t, y, 3, peak)
        return moved

    frames = [encode(scene(i)) for i in range(count)]
    truth = encode(np.mean([scene((i + 0.5) / 32) for i in range(32 * (count - 1))], 0)).astype(float)
    db, blown = {}, {}
    inner = np.s_[12:-12, 30:-30]
    for setting in ("off", "5"):
        got = integrate_exposure(frames, Recipe(interp="dis", highlights=setting))[inner].astype(float)
        db[setting] = 10 * np.log10(255**2 / np.mean((got - truth[inner]) ** 2))
        blown[setting] = (got.max(2) >= 250).sum() / (truth[inner].max(2) >= 250).sum()
    assert db["5"] > db["off"] + 5
    assert blown["off"] < 0.1
    assert 0.9 < blown["5"] < 1.1


def test_the_target_keeps_its_codes():
    frames = [encode(lamp(background(), 60 + 3 * i, 40, 3, 6.0)) for i in range(3)]
    s = Synthesizer(Recipe(interp="dis", highlights="5")).sample(
        "c", frames, 0, None, np.random.default_rng(0)
    )
    assert np.array_equal(s.sharp_rgb, frames[1])


def test_a_light_that_is_clipped_in_some_channels_keeps_its_colour():
    """A sky whose green just misses white stays nearly white; a red lamp is as red as before; white lamps get it all."""
    seen = np.zeros((3, 96, 96, 3), np.uint8)
    for frame, rgb in zip(seen, [(255, 250, 255), (255, 60, 40), (255, 255, 255)], strict=True):
        frame[40:44, 40:44] = rgb
    for kind in ("auto", "6"):
        sky, red, white = (parse_highlights(kind).excess(frame, 6.0) for frame in seen)
        assert white.max() == 6 and (white[41, 41] == 6).all()
        assert 0 < sky.max() < 0.05 * 6 and sky[..., 1].max() == 0
        assert red[..., 0].max() > 0.9 * 6 and red[..., 1:].max() == 0
