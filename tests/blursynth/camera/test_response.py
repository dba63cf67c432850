"""Response curves: codes to light and back, rounding in the display domain, measured curves, the camera's JPEG."""

import cv2
import numpy as np
import pytest

from blursynth.camera.response import CameraError, Response, jpeg, load_response, parse_jpeg, translate

CODES = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)


def reds_like() -> np.ndarray:
    """(256, 1, 3) BGR, steeper in blue than in red; the last codes nonsense, as in REDS's file."""
    x = np.arange(256) / 255
    table = np.stack([x**g for g in (1.6, 2.0, 2.4)], -1)[:, None]
    table[252:] = 5.0
    return table.astype(np.float32)


@pytest.fixture
def curves(tmp_path) -> dict[str, Response]:
    np.save(tmp_path / "crf.npy", reds_like())
    names = ["srgb", "gamma2.2", "gamma1.8", "display", str(tmp_path / "crf.npy")]
    return {n.rpartition("/")[2]: load_response(n) for n in names}


def test_every_code_comes_back(curves):
    for name, r in curves.items():
        assert np.array_equal(r.encode(r.decode(CODES)[..., :3]), CODES), name


def test_decode_pads_a_fourth_channel_and_code_255_is_white(curves):
    for r in curves.values():
        light = r.decode(CODES)
        assert light.shape == (256, 1, 4)
        assert light.dtype == np.float32
        assert np.all(light[..., 3] == 1)  # the weight of the exposure
        assert np.allclose(light[[0, 255], 0, :3], [[0] * 3, [1] * 3], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "display"),
    [
        ("srgb", lambda x: np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)),
        ("gamma2.2", lambda x: x ** (1 / 2.2)),
        ("display", lambda x: x),
    ],
)
def test_encode_rounds_in_the_display_domain(name, display):
    x = (
        np.random.default_rng(0).random((600, 500, 3)).astype(np.float32) ** 3
    )  # many darks, where sRGB is linear
    exact = 255 * display(x.astype(np.float64))
    got = load_response(name).encode(x)
    apart = got != np.round(exact)
    assert np.all(np.abs(got - exact) <= 0.5 + 1e-4)  # else the nearest code ...
    assert np.all(np.abs(exact - np.floor(exact) - 0.5)[apart] < 1e-4)  # ... but for ties within float32
    assert apart.mean() < 1e-4


def test_light_outside_0_to_1_is_clipped():
    x = np.array([[[-1, 0, 1], [2, 1e9, -0.0]]], np.float32)
    assert load_response("srgb").encode(x).tolist() == [[[0, 0, 255], [255, 255, 0]]]


def test_light_above_white_goes_to_code_255_alone():
    r = load_response("srgb")
    codes = np.array([[[254, 255, 0]]], np.uint8)
    assert np.allclose(r.decode(codes, 2.5)[0, 0, :3], r.decode(codes)[0, 0, :3] + [0, 2.5, 0])
    extra = np.array([[[0, 0.5, 0]]], np.float32)
    assert np.allclose(r.decode(codes, extra)[0, 0, :3], r.decode(codes)[0, 0, :3] + [0, 0.5, 0])


def test_reds_curve_is_bgr_and_continues_from_250_with_its_last_slope(tmp_path, curves):
    table = reds_like()[:, 0].astype(np.float64)
    want = table.copy()
    for code in range(251, 256):
        want[code] = table[250] + (table[251] - table[249]) / 2 * (code - 250)
    want = (want - want[0]) / (want[255] - want[0])
    assert np.allclose(curves["crf.npy"].light, want[:, ::-1], atol=1e-6)  # RGB from BGR


def test_curves_of_the_other_shapes(tmp_path):
    x = (np.arange(256) / 255) ** 2
    np.save(tmp_path / "one.npy", x)
    np.save(tmp_path / "rgb.npy", np.stack([x, x**0.5, x**1.5], 1))
    assert np.allclose(load_response(str(tmp_path / "one.npy")).light, np.stack([x] * 3, 1), atol=1e-6)
    assert np.allclose(load_response(str(tmp_path / "rgb.npy")).light[:, 1], x**0.5, atol=1e-6)


@pytest.mark.parametrize("bad", ["shape", "falls", "nan", "text", "missing", "object"])
def test_a_bad_curve_says_which_and_why(tmp_path, bad):
    path = tmp_path / "c.npy"
    x = np.arange(256.0)
    if bad == "shape":
        np.save(path, x[:100])
    elif bad == "falls":
        np.save(path, x[::-1])
    elif bad == "nan":
        np.save(path, np.where(x == 7, np.nan, x))
    elif bad == "text":
        path.write_text("0 1 2")
    elif bad == "object":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CameraError) as e:
        load_response(str(path))
    assert "c.npy" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["rec709", "gamma", "gammaX", "gamma0", "gamma99"])
def test_an_unknown_curve_is_refused(name):
    with pytest.raises(CameraError, match="crf"):
        load_response(name)


def test_translate_keeps_the_light(curves):
    source, camera = curves["srgb"], curves["gamma1.8"]
    x = (np.arange(256) / 255.0).reshape(-1, 1, 1)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    want = np.repeat(np.round(255 * light ** (1 / 1.8)), 3, 2)
    assert np.abs(translate(CODES, source, camera) - want).max() <= 0.0
    assert np.array_equal(translate(CODES, source, source), CODES)


def test_jpeg_settings():
    assert parse_jpeg("off") is None
    assert parse_jpeg("90") == (90, 90)
    assert parse_jpeg("70-95") == (70, 95)
    for bad in ("0", "101", "95-70", "high", "1-2-3", "-5", ""):
        with pytest.raises(ValueError, match="quality"):
            parse_jpeg(bad)


def test_jpeg_keeps_colours_in_place_and_loses_less_at_higher_quality():
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, :32] = (200, 40, 20)  # red left, blue right
    rgb[:, 32:] = (20, 40, 200)
    rgb = cv2.add(rgb, np.random.default_rng(0).integers(0, 40, rgb.shape, np.uint8))
    error = [np.abs(jpeg(rgb, q).astype(int) - rgb).mean() for q in (30, 75, 98)]
    assert error[0] > error[1] > error[2] > 0
    assert jpeg(rgb, 90)[:, :28, 0].mean() > 150 > jpeg(rgb, 90)[:, :28, 2].mean()
