"""The shipped recipes against the definitions in their papers, each computed here anew with numpy."""

import numpy as np
import pytest

from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe, RecipeError, builtin_recipes, load_recipe
from deblur_train.data.augment import redraw_noise


def film(n: int, seed: int = 0, h: int = 40, w: int = 56) -> list[np.ndarray]:
    """Codes of every value, no two frames alike."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for _ in range(n)]


def still(n: int, seed: int = 0, h: int = 40, w: int = 56) -> list[np.ndarray]:
    return film(1, seed, h, w) * n


def gliding(n: int, step: int, h: int = 64, w: int = 96) -> list[np.ndarray]:
    """A smooth pattern, 40 to 215, that moves by whole pixels and wraps."""
    x = 2 * np.pi * np.arange(w) / w
    y = 2 * np.pi * np.arange(h)[:, None] / h
    rgb = [np.sin(k * x + y) + np.cos((4 - k) * x - 2 * y) for k in (1, 2, 3)]
    picture = np.round(127.5 + 43 * np.stack(rgb, -1)).astype(np.uint8)
    return [np.roll(picture, step * i, 1) for i in range(n)]


def make(recipe: Recipe, frames: list[np.ndarray], fps: float = 240, seed: int = 0):
    return Synthesizer(recipe).sample("clip", frames, 0, fps, np.random.default_rng(seed))


def built_in(name: str, **changes) -> Recipe:
    return load_recipe(name, changes)[0]


def to_linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_display(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("n", [7, 9, 11, 13])
def test_gopro_is_the_rounded_mean_bit_for_bit(n):
    frames = film(n, seed=n)
    s = make(built_in("gopro"), frames)
    assert np.array_equal(s.blur_rgb, np.round(np.mean(np.stack(frames).astype(np.float64), 0)))
    assert np.array_equal(s.sharp_rgb, frames[n // 2])
    assert s.exposure["duty"] == 1.0
    assert "duty>1" not in s.quality["flags"]


def test_gopro_gamma_is_the_mean_of_the_2_2_power():
    frames = film(11)
    s = make(built_in("gopro-gamma"), frames)
    exact = 255 * np.mean((np.stack(frames) / 255.0) ** 2.2, 0) ** (1 / 2.2)
    assert np.abs(s.blur_rgb - exact).max() < 0.5 + 1e-3
    assert (s.blur_rgb != np.round(exact)).mean() < 1e-4


def test_bin_is_the_mean_of_11_every_8_and_says_that_no_camera_does_it():
    recipe = built_in("bin")
    assert (recipe.window, recipe.stride) == ("11", 8)
    frames = film(11)
    s = make(recipe, frames)
    assert np.array_equal(s.blur_rgb, np.round(np.mean(frames, 0)))
    assert s.exposure["duty"] == 1.375
    assert "duty>1" in s.quality["flags"]


def test_deblurgan_v2_is_the_mean_of_sixteen_times_the_frames_as_encoded():
    recipe = built_in("deblurgan-v2", interp="dis")
    assert recipe.window_range == (7, 13)
    assert recipe.fps_unknown * recipe.fps_up == 3840
    step, n = 4, 7
    frames = gliding(n, step)
    s = make(recipe, frames)
    # Whole steps of the pattern are whole pixels, so its 16 sub-frames an interval can be had by shifting.
    base = frames[0].astype(np.float64)
    x = np.fft.fftfreq(96)[None, :, None]
    sub = [
        np.real(np.fft.ifft(np.fft.fft(base, axis=1) * np.exp(-2j * np.pi * x * step * t), axis=1))
        for t in np.arange(16 * (n - 1) + 1) / 16
    ]
    inner = np.s_[4:-4, 30:-30]  # no wrap
    assert np.abs(s.blur_rgb - np.mean(sub, 0))[inner].mean() < 1.0
    assert np.abs(np.mean(frames[:1], 0) - np.mean(sub, 0))[inner].mean() > 10  # the test could fail


def test_reds_is_65_of_80_through_its_curve(tmp_path):
    curve = np.stack([(np.arange(256) / 255) ** g for g in (1.8, 2.0, 2.2)], -1)[:, None]
    np.save(tmp_path / "crf.npy", curve.astype(np.float32))
    recipe = built_in("reds", crf=str(tmp_path / "crf.npy"), interp="dis")
    intervals = recipe.window_range[0] - 1
    assert intervals * recipe.fps_up + 1 == 65
    assert recipe.stride * recipe.fps_up == 80
    assert recipe.fps_unknown / recipe.stride == 24
    frames = gliding(5, 2)
    s = make(recipe, frames, fps=120)
    x = np.fft.fftfreq(96)[None, :, None]
    base = frames[0].astype(np.float64)
    light = 0.0
    gammas = np.array([2.2, 2.0, 1.8])  # RGB of a BGR file
    for k in range(65):
        shift = np.exp(-2j * np.pi * x * 2 * k / 16)
        code = np.real(np.fft.ifft(np.fft.fft(base, axis=1) * shift, axis=1))
        light += (np.clip(code, 0, 255) / 255) ** gammas / 65
    want = 255 * light ** (1 / gammas)
    assert np.abs(s.blur_rgb - want)[4:-4, 30:-30].mean() < 1.0
    assert np.array_equal(s.sharp_rgb, frames[2])


def test_reds_without_its_curve_says_what_to_give():
    with pytest.raises(RecipeError, match=r"crf\.npy: no such file; give the path"):
        Synthesizer(built_in("reds"))


def test_rsblur_on_a_still_scene_is_light_plus_clipped_share_plus_noise():
    recipe = built_in("rsblur", interp="dis")
    assert (int(recipe.window) - 1) * recipe.fps_up + 1 == 65
    frames = still(9, h=120, w=160)
    frames[0][:] = np.where(frames[0] > 200, 255, 100 + frames[0] // 4)
    frames = frames[:1] * 9
    s = make(recipe, frames, seed=5)
    alpha, noise = s.camera["highlights"], s.camera["noise"]
    assert 0.25 <= alpha <= 1.75
    assert noise["kind"] == "rsblur"
    light = to_linear(frames[0] / 255.0)
    light = np.clip(light + alpha * (frames[0] == 255), 0, 1)
    assert (s.blur_rgb[frames[0] == 255] == 255).all()
    smooth = make(recipe, [np.full((120, 160, 3), 128, np.uint8)] * 9, seed=5)
    spread = smooth.blur_rgb.astype(float).std()
    x = to_linear(np.array(128 / 255.0))
    to_code = (to_display(x + 1e-4) - to_display(x - 1e-4)) / 2e-4 * 255
    assert 0.5 < spread / (to_code * np.sqrt(1e-4 * x + 9.15e-4**2)) < 2.5
    assert abs(smooth.blur_rgb.mean() - 128) < 0.3
    assert np.array_equal(s.sharp_rgb, frames[4])  # the target is clean


def test_realistic_is_linear_light():
    recipe = built_in("realistic", interp="dis", gate="off", noise="off")
    s = make(recipe, gliding(9, 3))
    base, x = gliding(1, 0)[0].astype(np.float64), np.fft.fftfreq(96)[None, :, None]
    light = 0.0
    for t in (np.arange(256) + 0.5) / 32:
        code = np.real(np.fft.ifft(np.fft.fft(base, axis=1) * np.exp(-2j * np.pi * x * 3 * t), axis=1))
        light += to_linear(np.clip(code, 0, 255) / 255) / 256
    assert np.abs(s.blur_rgb - 255 * to_display(light))[4:-4, 36:-36].mean() < 0.6


@pytest.mark.parametrize(("codes", "kind"), [(0.0, "realblur"), (4.0, "restore")])
def test_realistic_has_its_sources_noise_or_a_cameras(codes, kind):
    rng = np.random.default_rng(0)
    grey = [
        np.clip(128 + rng.normal(0, codes, (160, 160, 3)), 0, 255).round().astype(np.uint8) for _ in range(9)
    ]
    s = make(built_in("realistic", interp="dis", gate="off"), grey)
    assert s.camera["noise"]["kind"] == kind
    if codes:
        assert np.isclose(s.blur_rgb.std(), codes, rtol=0.2)
    else:
        assert 0.5 < s.blur_rgb.std() < 3
    assert np.array_equal(s.sharp_rgb, grey[4])


def test_demo_is_small():
    recipe = built_in("demo")
    assert (recipe.interp, recipe.window, recipe.stride) == ("dis", "3", 3)
    make(recipe, gliding(5, 2), fps=25)


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_every_recipe_draws_the_same_sample_again(name, tmp_path):
    np.save(tmp_path / "c.npy", np.linspace(0, 1, 256))
    changes = {"crf": str(tmp_path / "c.npy")} if name == "reds" else {}
    recipe = built_in(name, **changes)
    if recipe.interp != "none":
        recipe = built_in(name, interp="dis", **changes)
    frames = gliding(7, 2)
    first, second = make(recipe, frames, seed=4), make(recipe, frames, seed=4)
    assert np.array_equal(first.blur_rgb, second.blur_rgb)
    assert first.camera == second.camera


# -- the camera's output


def test_another_output_curve_is_put_on_blur_and_target_alike():
    frames = still(5)
    s = make(Recipe(interp="dis", crf_out="gamma2.2"), frames)
    want = np.round(255 * to_linear(frames[0] / 255.0) ** (1 / 2.2))
    assert np.abs(s.sharp_rgb - want).max() == 0
    assert np.abs(s.blur_rgb - want).max() <= 1
    assert (s.camera["crf"], s.camera["crf_source"]) == ("gamma2.2", "srgb")


def test_a_range_of_gammas_is_drawn_per_sample_and_named():
    """The blur is the mean by the gamma that the sample names."""
    frames, names = gliding(5, 2), set()
    recipe = Recipe(interp="none", crf="gamma1-2.6")
    for seed in range(6):
        s = make(recipe, frames, seed=seed)
        gamma = float(s.camera["crf"].removeprefix("gamma"))
        mean = np.mean([(f / 255.0) ** gamma for f in frames], axis=0) ** (1 / gamma) * 255
        assert 1 <= gamma <= 2.6 and np.abs(s.blur_rgb - mean).max() <= 0.51
        names.add(gamma)
    assert len(names) == 6
    with pytest.raises(RecipeError, match="first gamma is larger"):
        Synthesizer(Recipe(crf="gamma2.6-1"))


def test_jpeg_is_on_the_blur_and_on_the_target_where_asked():
    frames = gliding(5, 2)
    plain = make(Recipe(interp="dis"), frames)
    one = make(Recipe(interp="dis", jpeg="40-60"), frames)
    both = make(Recipe(interp="dis", jpeg="40-60", target_camera="jpeg"), frames)
    assert 40 <= one.camera["jpeg"] <= 60
    assert plain.camera["jpeg"] is None
    assert 0 < np.abs(one.blur_rgb.astype(int) - plain.blur_rgb).mean() < 8
    assert np.array_equal(one.sharp_rgb, frames[2])
    assert np.array_equal(one.blur_rgb, both.blur_rgb)
    assert not np.array_equal(both.sharp_rgb, frames[2])
    draws = {make(Recipe(interp="none", jpeg="40-42"), film(3), seed=k).camera["jpeg"] for k in range(40)}
    assert draws == {40, 41, 42}


def test_a_draw_does_not_depend_on_the_other_settings():
    frames = film(5)
    a = make(Recipe(interp="none", highlights="rsblur"), frames, seed=3)
    b = make(Recipe(interp="none", highlights="rsblur", jpeg="50-90", noise="rsblur"), frames, seed=3)
    assert a.camera["highlights"] == b.camera["highlights"]


def test_linear16_is_the_blur_before_noise_and_noise_can_be_drawn_on_it_anew():
    frames = gliding(5, 0)  # smooth: the camera's mosaic takes nothing from it
    clean = make(Recipe(interp="dis"), frames)
    s = make(Recipe(interp="dis", noise="rsblur", store="linear16"), frames)
    assert s.linear16.dtype == np.uint16
    assert np.abs(s.linear16 / 65535 - to_linear(frames[0] / 255.0)).max() < 1e-4
    assert not np.array_equal(s.blur_rgb, clean.blur_rgb)
    whole = slice(0, clean.blur_rgb.shape[0]), slice(0, clean.blur_rgb.shape[1])
    drawn = [
        redraw_noise(s.linear16, whole, "rsblur", s.camera["crf"], None, np.random.default_rng(k)).astype(int)
        for k in (1, 2)
    ]
    assert drawn[0].shape == clean.blur_rgb.shape
    assert 0 < np.abs(drawn[0] - clean.blur_rgb).mean() < 4
    assert not np.array_equal(*drawn)
