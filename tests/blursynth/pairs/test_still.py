"""A still's pair: the picture, exposed along the path that its JSON tells, then the camera as for film."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from blursynth.camera.response import load_response
from blursynth.common.kept import Kept
from blursynth.exposure.shake import draw_path, path_length
from blursynth.exposure.still import path_lengths, places
from blursynth.pairs import still as still_module
from blursynth.pairs.layers import Donor, Lamps
from blursynth.pairs.scene import Scene
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe, RecipeError, load_recipe
from blursynth.video.sharpness import steepness
from tests.helpers.films import texture

SRGB = load_response("srgb")


def still(codes, seed=0, **options):
    options = {"stills": True, "shake": "6-14", "gate": "off"} | options
    return Synthesizer(Recipe(**options)).still(codes, np.random.default_rng(seed))


def code(linear):
    """Codes of linear light, not rounded."""
    x = np.clip(linear, 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def exposed_finely(light, path, moments=900):
    """Linear light (H, W, 3) along a stored path about its own middle: warps, many of them, added up."""
    h, w = light.shape[:2]
    c = np.array([(w - 1) / 2, (h - 1) / 2])
    # Four times the size first: OpenCV's warps place samples to 1/32 px only.
    fine = cv2.resize(light, None, fx=4, fy=4, interpolation=cv2.INTER_LANCZOS4)
    y, x = np.mgrid[:h, :w].astype(np.float64)
    total = np.zeros(light.shape)
    for u in (np.arange(moments) + 0.5) / moments:
        dx, dy, roll = (np.interp(u, np.linspace(0, 1, len(path)), axis) for axis in path.T)
        a, px, py = np.radians(roll), x - c[0] - dx, y - c[1] - dy
        at = np.cos(a) * px + np.sin(a) * py + c[0], np.cos(a) * py - np.sin(a) * px + c[1]
        at = [np.float32(4 * v + 1.5) for v in at]
        total += cv2.remap(fine, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return total / moments


def test_the_blur_is_the_picture_along_the_stored_path():
    picture = texture((330, 260), seed=1, grain=5)
    sample = still(picture)
    shake = sample.exposure["shake"]
    path = np.array(shake["path"])
    left, top, right, bottom = shake["border"]
    want = exposed_finely(SRGB.decode(picture)[..., :3], path)
    inside = np.s_[top + 2 : 260 - bottom - 2, left + 2 : 330 - right - 2]
    error = sample.blur_rgb[inside].astype(float) - code(want)[inside]
    assert np.sqrt(np.mean(error**2)) < 0.5
    assert np.array_equal(sample.sharp_rgb, picture) and sample.corner is None
    assert 6 <= shake["px"] <= 14 and shake["px"] == pytest.approx(path_length(path), abs=1e-3)
    assert np.abs(path[32]).max() < 1e-6, "the target is the middle of the exposure"
    assert sample.exposure["blur_px"] >= shake["px"] * 0.9


def test_a_crop_is_inside_the_border_and_has_a_path_of_its_own():
    """The stored path is about the crop's own middle, so that it explains the crop without the picture."""
    picture = texture((700, 420), seed=2, grain=5)
    corners = set()
    for seed in range(6):
        sample = still(picture, seed, tile=128, shake="20")
        x, y = sample.corner
        corners.add((x, y))
        assert np.array_equal(sample.sharp_rgb, picture[y : y + 128, x : x + 128])
        assert sample.exposure["shake"]["border"] == [0, 0, 0, 0]
        path = np.array(sample.exposure["shake"]["path"])
        reach = int(np.abs(path[:, :2]).max()) + 4
        assert x >= 0 and y >= 0 and x + 128 <= 700 and y + 128 <= 420
        wide = picture[max(y - reach, 0) : y + 128 + reach, max(x - reach, 0) : x + 128 + reach]
        if wide.shape[:2] != (128 + 2 * reach,) * 2:
            continue  # the helper's reflection would differ from the picture's own pixels
        want = exposed_finely(SRGB.decode(wide)[..., :3], path)[reach:-reach, reach:-reach]
        error = sample.blur_rgb.astype(float) - code(want)
        assert np.sqrt(np.mean(error**2)) < 0.5
    assert len(corners) == 6, "each sample draws its own place"


def test_light_from_outside_the_picture_never_touches_a_crop():
    """Black beyond the border or white: the crop is the same."""
    picture = texture((300, 300), seed=3)
    crops = []
    for frame in (0, 255):
        wide = np.full((360, 360, 3), frame, np.uint8)
        wide[30:-30, 30:-30] = picture
        crops.append(wide)
    shaken = [still(c, 5, tile=128, shake="25").blur_rgb for c in crops]
    x, y = still(crops[0], 5, tile=128, shake="25").corner
    inside = min(x, y) > 30 + 26 and max(x, y) + 128 < 330 - 26
    assert not inside or np.array_equal(*shaken)
    for seed in range(8):
        small = still(picture, seed, tile=240, shake="18")
        if small.rejected is None:
            assert small.corner[0] > 0 or small.corner[1] > 0


def test_the_draws_depend_on_the_seed_alone():
    picture = texture((300, 240), seed=4)
    maker = Synthesizer(Recipe(stills=True, shake="4-12", tile=96, noise="rsblur", gate="off"))
    once = [maker.still(picture, np.random.default_rng(s)) for s in (1, 2, 1)]
    assert np.array_equal(once[0].blur_rgb, once[2].blur_rgb) and once[0].exposure == once[2].exposure
    assert once[0].exposure["shake"] != once[1].exposure["shake"]


def test_sixteen_bits_add_their_light():
    """A ramp finer than 8 bits: the exposure of all its bits is not that of the rounded ones."""
    ramp = np.linspace(20 * 257, 24 * 257, 300)[None, :, None] + np.zeros((200, 1, 3))
    codes = np.rint(ramp).astype(np.uint16)
    sample = still(codes, shake="3", store="linear16", tile=96)
    x, y = sample.corner
    exact = SRGB.light[:, 0]
    want = np.interp(codes[y : y + 96, x : x + 96, 0] / 257, np.arange(256), exact)
    got = sample.linear16[..., 0] / 65535
    path = np.array(sample.exposure["shake"]["path"])
    want = np.interp(
        np.interp(np.arange(x, x + 96) - path[:, :1].mean(), np.arange(300), codes[0, :, 0] / 257),
        np.arange(256),
        exact,
    )
    step = exact[21] - exact[20]
    assert np.abs(got - want).max() < 0.05 * step
    rounded = still((codes / 257).round().astype(np.uint8), shake="3", store="linear16", tile=96)
    assert np.abs(rounded.linear16[..., 0] / 65535 - want).max() > 0.2 * step


def test_a_soft_picture_and_one_too_small_are_left_out_by_name():
    sharp = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (40, 50, 3)), 6, 0), 6, 1)
    sharp = sharp.astype(np.uint8)
    soft = cv2.GaussianBlur(sharp, (0, 0), 3)
    assert still(soft, gate="default").rejected == "soft"
    assert still(sharp, gate="default").rejected is None
    assert still(soft, gate="off").rejected is None
    assert still(sharp, tile=230, shake="40").rejected == "too small"


def test_the_camera_does_what_it_does_to_film():
    picture = np.full((200, 200, 3), 120, np.uint8)
    clean = still(picture, shake="5", tile=96)
    noisy = still(picture, shake="5", tile=96, noise="0.001,0.001", jpeg="40")
    assert clean.camera["noise"] is None and np.array_equal(clean.blur_rgb, clean.sharp_rgb)
    assert noisy.camera["jpeg"] == 40 and noisy.camera["noise"]["b1"] == 0.001
    assert noisy.blur_rgb.std() > 1 and noisy.sharp_rgb.std() == 0
    grainy = np.clip(120 + 8 * np.random.default_rng(0).standard_normal((400, 400, 3)), 0, 255).astype(
        np.uint8
    )
    restored = still(grainy, shake="12", tile=128, noise="restore")
    plain = still(grainy, shake="12", tile=128)
    assert plain.blur_rgb.std() < 5, "the shake averages noise away"
    assert restored.blur_rgb.std() == pytest.approx(8, rel=0.2), "and restore puts it back"


def test_a_lamp_is_brighter_than_white():
    night = np.full((200, 200, 3), 20, np.uint8)
    night[98:102, 98:102] = 255
    plain, lit = (still(night, shake="20", highlights=h) for h in ("off", "6"))
    assert lit.blur_rgb.max() > plain.blur_rgb.max() + 40


def test_stills_need_a_shake():
    with pytest.raises(RecipeError, match="--shake"):
        load_recipe(None, {"stills": True})


def test_blur_px_is_the_length_of_a_stills_blur():
    picture = texture((500, 400), seed=6)
    for seed in range(6):
        told = still(picture, seed, shake=None, blur_px="9", tile=160).exposure
        assert told["blur_px"] == pytest.approx(9, rel=0.02) and told["shake"]["px"] <= 9.1


def test_labels_of_a_still_are_its_path():
    sample = still(texture((300, 260), seed=7), tile=96, shake="12", labels="flow,mask")
    path = np.array(sample.exposure["shake"]["path"])
    y, x = np.mgrid[:96, :96] - 47.5
    ends = []
    for dx, dy, roll in (path[0], path[-1]):
        c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        ends.append(np.stack([c * x - s * y + dx, s * x + c * y + dy], 2))
    assert sample.labels["flow"].dtype == np.float16
    assert np.abs(sample.labels["flow"] - (ends[1] - ends[0])).max() < 0.02
    assert sample.labels["mask"].shape == (96, 96) and (sample.labels["mask"] == 255).all()


def with_layers(codes, donors, seed=0, **options):
    options = {"stills": True, "shake": "6-14", "gate": "off", "tile": 160, "layers": "1-8"} | options
    return Synthesizer(Recipe(**options)).still(
        codes, np.random.default_rng(seed), [donor(d) for d in donors]
    )


def donor(picture):
    return Donor(None if picture is None else picture.tobytes(), lambda: picture)


FLAT, PATCH = np.full((260, 300, 3), 60, np.uint8), np.full((200, 240, 3), 190, np.uint8)


def test_sharp_shows_each_layer_in_its_place():
    sample = with_layers(texture((400, 300), seed=8), [PATCH, PATCH])
    plain = with_layers(texture((400, 300), seed=8), [])
    assert sample.donated == (True, True) and sample.exposure["shake"] == plain.exposure["shake"]
    covered = (sample.sharp_rgb != plain.sharp_rgb).any(2)
    assert 0.01 < covered.mean() < 0.7
    boxes = np.zeros_like(covered)
    for x0, y0, x1, y1 in (v["box"] for v in sample.exposure["layers"]):
        boxes[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    assert not (covered & ~boxes).any()
    assert (sample.sharp_rgb[covered] == 190).mean() > 0.6, (
        "within its edge a layer has its donor's own codes"
    )


def test_labels_know_the_layers():
    """Flow where a layer shows is that of its arc, turned and moved with the camera."""
    sample = with_layers(FLAT, [PATCH], labels="flow,mask", shake="8", seed=3)
    (told,), path = sample.exposure["layers"], np.array(sample.exposure["shake"]["path"])
    on = sample.sharp_rgb[..., 0] == 190
    assert on.mean() > 0.02
    u = (np.arange(64) + 0.5) / 64 - 0.5
    angle = np.radians(told["heading"] + told["turn"] * u)
    steps = np.stack([np.cos(angle), np.sin(angle)], 1) * told["px"] / 64
    own = np.concatenate([-steps[:32].sum(0)[None], steps[32:].sum(0)[None]])
    y, x = np.mgrid[:160, :160] - 79.5
    ends = []
    for (dx, dy, roll), (mx, my) in zip(path[[0, -1]], own):
        c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        ends.append(np.stack([c * (x + mx) - s * (y + my) + dx, s * (x + mx) + c * (y + my) + dy], 2))
    assert np.abs(sample.labels["flow"] - (ends[1] - ends[0]))[on].max() < 0.03
    assert told["px"] == 8 and sample.labels["mask"][on].all()
    assert np.abs(sample.labels["flow"] - (ends[1] - ends[0]))[~on].max() > 1


def test_a_lamp_in_a_layer_keeps_its_light():
    lit = PATCH // 8
    lit[::9, ::9] = 255
    night = np.full((260, 300, 3), 12, np.uint8)
    plain, bright = (with_layers(night, [lit] * 2, highlights=h, shake="12", seed=2) for h in ("off", "8"))
    assert (plain.sharp_rgb != bright.sharp_rgb).mean() < 0.005, "but for lamps that an edge cuts"
    assert bright.blur_rgb.max() > plain.blur_rgb.max() + 40


def test_layers_do_not_change_what_else_is_drawn():
    picture, maker = texture((300, 240), seed=4), Recipe(stills=True, shake="4-12", tile=96, noise="rsblur")
    a = Synthesizer(maker).still(picture, np.random.default_rng(5))
    b = Synthesizer(maker).still(picture, np.random.default_rng(5), [donor(PATCH)])
    again = Synthesizer(maker).still(picture, np.random.default_rng(5), [donor(PATCH)])
    assert a.exposure["shake"] == b.exposure["shake"] and a.corner == b.corner and a.camera == b.camera
    assert "layers" not in a.exposure
    assert np.array_equal(b.blur_rgb, again.blur_rgb) and not np.array_equal(a.blur_rgb, b.blur_rgb)


def test_a_donor_that_is_soft_or_missing_is_replaced_by_the_still_and_told():
    sharp = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (40, 50, 3)), 6, 0), 6, 1)
    sharp = sharp.astype(np.uint8)
    soft = cv2.GaussianBlur(sharp, (0, 0), 3)
    sample = with_layers(sharp, [soft, None, sharp[:180].copy()], gate="default", tile=128)
    assert sample.rejected is None and sample.donated == (False, False, True)
    assert with_layers(sharp, [soft], tile=128).donated == (True,)


def test_what_was_found_out_of_a_donor_changes_nothing(monkeypatch):
    """Kept or looked for anew: the same sample; and a donor that comes again is not looked at again."""
    lit = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 200, (40, 50, 3)), 6, 0), 6, 1).astype(
        np.uint8
    )
    lit[30:34, 40:44], lit[200, 250:253] = 255, (255, 90, 255)
    soft = cv2.GaussianBlur(lit, (0, 0), 3)
    looks = []
    monkeypatch.setattr(still_module, "steepness", lambda eight: looks.append(1) or steepness(eight))
    for highlights in ("off", "rsblur", "auto", "2-4"):
        made, kept = [], Kept(64 << 20)
        for known in (Kept(0), kept, kept):
            monkeypatch.setattr(still_module, "_KNOWN", known)
            looks.clear()
            sample = with_layers(
                lit, [lit.copy(), soft, lit.copy()], gate="default", tile=128, highlights=highlights
            )
            made.append((sample.blur_rgb.tobytes(), sample.sharp_rgb.tobytes(), sample.donated, len(looks)))
        assert made[0][:3] == made[1][:3] == made[2][:3] and made[0][2] == (True, False, True)
        assert [m[3] for m in made] == [4, 3, 1], "the still itself; both donors once; none"


def test_lamps_of_a_box_are_those_of_the_picture():
    light = np.zeros((30, 40, 3), np.float32)
    light[3:5, 7:9], light[29, 39], light[10, 0, 1] = 2.5, 1, 3
    lamps = Lamps(light)
    for box in (
        (0, 0, 40, 30),
        (7, 3, 9, 5),
        (8, 4, 40, 30),
        (0, 10, 1, 11),
        (20, 20, 30, 25),
        (39, 29, 40, 30),
    ):
        left, top, right, bottom = box
        assert np.array_equal(lamps.inside(box), light[top:bottom, left:right])


def test_blur_px_counts_the_layers():
    for seed in range(6):
        told = with_layers(texture((500, 400), seed=6), [PATCH] * 3, seed, shake=None, blur_px="9").exposure
        assert told["blur_px"] <= 9.05
        assert all(v["px"] <= 9 for v in told["layers"])


def test_a_tiny_donor_gives_a_small_layer_and_16_bits_are_one_too():
    tiny = np.full((18, 20, 3), 200, np.uint8)
    deep = np.full((300, 300, 3), 190 * 257, np.uint16)
    sample = with_layers(FLAT, [tiny, deep])
    assert sample.rejected is None and (sample.sharp_rgb == 190).any()


@pytest.mark.parametrize("bad", ["-1", "9", "3-1", "x"])
def test_layers_are_a_small_count_over_stills(bad):
    with pytest.raises(RecipeError, match="layers"):
        load_recipe(None, {"stills": True, "shake": "4", "layers": bad})
    with pytest.raises(RecipeError, match="stills"):
        load_recipe(None, {"layers": "2"})


def test_labels_of_a_large_still_take_little_memory_and_are_those_of_each_pixel():
    """All places of all pixels at once were 3 KB a pixel: 24 GB for a photo of 8 megapixels."""
    height, width = 515, 700
    middle = ((width - 1) / 2, (height - 1) / 2)
    path = draw_path(np.random.default_rng(0), 9.0, width, height)
    scene = Scene((3, 2, width, height), middle, [])
    tracemalloc.start()
    flow, length = scene.content(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < flow.nbytes + length.nbytes + 100e6
    points = np.array([(3, 2), (350, 257), (350, 258), (699, 514), (10, 513)])
    at = points[:, 1] - 2, points[:, 0] - 3
    start, end = places(path[[0, -1]], points.astype(float), middle)
    np.testing.assert_allclose(flow[at], end - start)
    np.testing.assert_allclose(length[at], path_lengths(path, points.astype(float), middle))
