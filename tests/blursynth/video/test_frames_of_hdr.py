"""Frames of HDR film in a folder: their curve is the one that the file or the recipe names, as with the film itself."""

from dataclasses import replace

import numpy as np
import pytest

from blursynth.camera.hdr import codes_to_light
from blursynth.camera.response import load_response
from blursynth.pairs.synthesis import integrate_exposure
from blursynth.png.chunks import chunk
from blursynth.recipe import Recipe, RecipeError, load_recipe
from blursynth.video.clip import ClipError, probe_clip, probe_still, read_as, read_frames
from blursynth.video.stills import colour_of
from tests.helpers.exr import exr
from tests.helpers.films import write_picture

CODES = np.random.default_rng(0).integers(0, 50000, (24, 32, 3)).astype(np.uint16)
NUMBERS = {"pq": 16, "hlg": 18, "linear": 8, "bt2020": 9, "p3": 12, "bt709": 1}  # ITU-T H.273


def write_png(path, codes, curve=None, primaries="bt709"):
    """A PNG whose cICP chunk names ``curve`` and ``primaries``."""
    path.parent.mkdir(exist_ok=True)
    data = write_picture(path, codes[..., ::-1]).read_bytes()
    if curve:
        named = b"".join(chunk(b"cICP", bytes([NUMBERS[primaries], NUMBERS.get(curve, 13), 0, 1])))
        path.write_bytes(data[:33] + named + data[33:])  # behind IHDR
    return path


def light_of(frame):
    return load_response("srgb").decode(frame.rgb, *([] if frame.above is None else [frame.above]))[..., :3]


def is_near(got, want):
    want = np.clip(want, 0, None)
    return np.abs(got - want).max() <= 0.01 * want.max() + 0.005


@pytest.mark.parametrize("primaries", ["bt709", "bt2020"])
@pytest.mark.parametrize("curve", ["pq", "hlg", "linear"])
def test_frames_are_read_by_the_curve_that_they_name(tmp_path, curve, primaries):
    for i in range(3):
        write_png(tmp_path / "take" / f"{i}.png", CODES, curve, primaries)
    info, told = read_as(probe_clip(tmp_path / "take", fps=240), Recipe())
    assert (info.transfer, info.gamut, told) == (curve, primaries, [])
    assert is_near(light_of(next(read_frames(info, 0, 0))), codes_to_light(CODES, curve, primaries))


@pytest.mark.parametrize("curve", ["pq", "hlg", "linear"])
@pytest.mark.parametrize("depth", [np.uint16, np.uint8])
def test_frames_are_read_by_the_curve_that_the_recipe_names(tmp_path, curve, depth):
    codes = CODES if depth == np.uint16 else (CODES >> 8).astype(np.uint8)
    for i in range(3):
        write_png(tmp_path / "take" / f"{i}.png", codes)
    info, _ = read_as(probe_clip(tmp_path / "take", fps=240), Recipe(crf=curve))
    deep = codes if depth == np.uint16 else codes.astype(np.uint16) * 257
    frame = next(read_frames(info, 0, 0))
    assert is_near(light_of(frame), codes_to_light(deep, curve, "bt709"))
    if depth == np.uint8:  # the same from Python; frames at rest are their own exposure
        assert np.array_equal(integrate_exposure([codes] * 3, Recipe(crf=curve, interp="dis")), frame.rgb)


def test_a_named_curve_of_sdr_changes_nothing(tmp_path):
    for i in range(3):
        write_png(tmp_path / "take" / f"{i}.png", CODES, "srgb")
    info = probe_clip(tmp_path / "take", fps=240)
    assert (info.transfer, info.gamut) == ("srgb", "bt709")
    frame = next(read_frames(info, 0, 0))
    assert frame.above is None and np.array_equal(frame.rgb, np.rint(CODES / 257).astype(np.uint8))
    wide = next(read_frames(replace(info, gamut="p3"), 0, 0))
    assert not np.array_equal(wide.rgb, frame.rgb)


def test_photos_of_hdr_light_are_refused(tmp_path):
    write_png(tmp_path / "p.png", CODES, "pq")
    with pytest.raises(ClipError, match="HDR light"):
        probe_still(tmp_path / "p.png")
    assert probe_still(write_png(tmp_path / "s.png", CODES, "srgb")).width == 32
    with pytest.raises(RecipeError, match="convert the photos"):
        load_recipe(None, {"stills": True, "shake": "4", "crf": "linear"})


def test_exr_frames_beside_others_are_no_take(tmp_path):
    """Blender writes a JPEG beside each EXR: which of them are the frames, nobody knows."""
    for i in range(3):
        write_png(tmp_path / "take" / f"{i}.png", CODES)
    light = {n: np.ones((24, 32), np.float16) for n in "RGB"}
    (tmp_path / "take" / "0.exr").write_bytes(exr(light))
    with pytest.raises(ClipError, match=r"EXR frames \(1\) and others \(3\)"):
        probe_clip(tmp_path / "take", fps=240)


def test_frames_of_several_curves_are_no_take(tmp_path):
    """Frames of an HDR film and of an SDR one: all would be read by the curve of the first."""
    for i in range(8):
        write_png(tmp_path / "take" / f"{i}.png", CODES, "pq" if i < 6 else None)
    with pytest.raises(ClipError, match=r"several curves or primaries \(pq bt709, srgb bt709\)"):
        probe_clip(tmp_path / "take", fps=240)
    for i in (6, 7):  # cut off: what it names nobody knows
        (tmp_path / "take" / f"{i}.png").write_bytes(b"")
    assert probe_clip(tmp_path / "take", fps=240).transfer == "pq"


def test_the_curve_is_found_behind_large_metadata(tmp_path):
    path = write_png(tmp_path / "0.png", CODES, "hlg", "bt2020")
    data, profile = path.read_bytes(), b"".join(chunk(b"iCCP", b"x\0\0" + bytes(400_000)))
    path.write_bytes(data[:33] + profile + data[33:])
    assert colour_of(path) == ("hlg", "bt2020")
