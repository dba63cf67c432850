"""Camera noise: its level is the one asked for, in RAW and in light; what is measured in frames is what was put in."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from blursynth.camera.bayer import PATTERNS, demosaic, mosaic, srgb_to_camera
from blursynth.camera.grain import kernel as grain_kernel
from blursynth.camera.noise import ISO_GAIN, RSBLUR, _add_normal, add_noise, parse_noise
from blursynth.camera.noise_estimate import COUNTS, estimate_noise, measure_noise, shown_power
from blursynth.camera.raw_noise import camera_variance, raw_noise
from blursynth.camera.response import CameraError, jpeg, load_response
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from blursynth.video.clip import probe_clip, read_frames
from tests.helpers.films import write_video

SRGB = load_response("srgb")


def smooth(seed: int, h: int = 240, w: int = 320, sigma: float = 4) -> np.ndarray:
    t = cv2.GaussianBlur(np.random.default_rng(seed).random((h, w, 3)).astype(np.float32), (0, 0), sigma)
    return 0.03 + 0.75 * (t - t.min()) / (t.max() - t.min())


def with_noise(light: np.ndarray, a: float, b: float, rng: np.random.Generator) -> np.ndarray:
    noisy = light + np.sqrt(a * light + b) * rng.standard_normal(light.shape)
    return SRGB.encode(noisy.astype(np.float32))


# -- settings


def test_settings():
    assert parse_noise("off") is None
    rsblur, realblur, own = (parse_noise(t) for t in ("rsblur", "realblur", "2e-4,1e-3"))
    assert rsblur and realblur and own
    assert (rsblur.b1, rsblur.b2, rsblur.spread) == (1e-4, 9.15e-4, True)
    assert (realblur.b1, realblur.b2, realblur.spread) == (8.89e-5, 2.94e-5, True)
    assert (own.kind, own.b1, own.b2, own.spread) == ("raw", 2e-4, 1e-3, False)
    assert [parse_noise(t).level for t in ("restore", "restore:0.5")] == [1.0, 0.5]


@pytest.mark.parametrize(
    "bad", ["on", "", "1e-4", "1,2,3", "0,1e-3", "-1e-4,0", "restore:0", "restore:x", "nan,nan"]
)
def test_a_bad_setting_says_what_is_allowed(bad):
    with pytest.raises(CameraError, match="off, rsblur, realblur, iso, B1,B2"):
        parse_noise(bad)


def test_iso_draws_a_gain_that_scales_shot_noise_fully_and_read_noise_by_its_root():
    linear = np.full((8, 8, 3), 0.2, np.float32)
    drawn = []
    for seed in range(200):
        meta = add_noise(linear, SRGB, parse_noise("iso"), [], np.random.default_rng(seed), 1.0)[1]
        assert meta and meta["kind"] == "iso"
        gain = meta["b1"] / RSBLUR[0]
        assert np.isclose(meta["b2"], RSBLUR[1] * np.sqrt(gain))
        drawn.append(np.log(gain))
    low, high = np.log(ISO_GAIN)
    assert low <= min(drawn) < low + 0.2 and high - 0.2 < max(drawn) <= high
    assert abs(np.mean(drawn) - (low + high) / 2) < 0.25  # log-uniform: centred in the logarithm


# -- RAW


def test_white_stays_white_in_the_camera_and_the_matrix_is_the_a7r3s():
    m = srgb_to_camera()
    assert np.allclose(m @ np.ones(3), 1)
    assert (m > 0).all()  # every sRGB colour is a possible RAW one
    # By hand, first row: 0.6640 X - 0.1847 Y - 0.0503 Z of sRGB's red, green, blue primaries.
    row = np.array(
        [
            0.6640 * 0.4124564 - 0.1847 * 0.2126729 - 0.0503 * 0.0193339,
            0.6640 * 0.3575761 - 0.1847 * 0.7151522 - 0.0503 * 0.1191920,
            0.6640 * 0.1804375 - 0.1847 * 0.0721750 - 0.0503 * 0.9503041,
        ]
    )
    assert np.allclose(m[0], row / row.sum())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_demosaicing_keeps_what_was_seen_and_is_exact_on_planes(pattern):
    y, x = np.mgrid[:21, :30].astype(np.float32)
    grey = np.repeat((0.01 * x + 0.02 * y)[..., None], 3, 2) + np.float32(
        [0.1, 0.2, 0.3]
    )  # planes, one slope
    raw = mosaic(grey, pattern)
    got = demosaic(raw, pattern)
    assert np.allclose(got[3:-3, 3:-3], grey[3:-3, 3:-3], atol=1e-5)
    for (dy, dx), name in zip([(0, 0), (0, 1), (1, 0), (1, 1)], pattern):
        channel = "RGB".index(name)
        assert np.array_equal(raw[dy::2, dx::2], grey[dy::2, dx::2, channel])
        assert np.array_equal(got[dy::2, dx::2, channel], raw[dy::2, dx::2])


def test_demosaicing_by_hand():
    """Red at the centre's blue pixel, from the paper's figure: (6 own + 2 diagonals - 1.5 own two away) / 8."""
    raw = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    diagonals = raw[1, 1] + raw[1, 3] + raw[3, 1] + raw[3, 3]
    far = raw[0, 2] + raw[4, 2] + raw[2, 0] + raw[2, 4]
    want = (6 * raw[2, 2] + 2 * diagonals - 1.5 * far) / 8
    assert np.isclose(demosaic(raw, "BGGR")[2, 2, 0], want)
    sides = raw[1, 2] + raw[3, 2] + raw[2, 1] + raw[2, 3]
    assert np.isclose(demosaic(raw, "BGGR")[2, 2, 1], (4 * raw[2, 2] + 2 * sides - far) / 8)


@pytest.mark.parametrize("light", [0.002, 0.02, 0.3])
def test_raw_noise_has_the_variance_and_mean_of_its_model(light):
    """On grey, a RAW pixel is light / gain: variance gain^2 (b1 light / gain + b2^2) after balancing. Read at the pixels
    that the sensor saw, in camera colours. Covers Poisson's own draws (light 0.002 is 10 photons) and the normal's."""
    b1, b2, red, blue = 1e-4, 9e-4, 2.0, 1.7
    grey = np.full((600, 600, 3), light, np.float32)
    rng = np.random.default_rng(1)
    out = cv2.transform(raw_noise(grey, b1, b2, red, blue, "RGGB", rng), srgb_to_camera().astype(np.float32))
    for at, channel, gain in (
        (np.s_[::2, ::2], 0, red),
        (np.s_[::2, 1::2], 1, 1.0),
        (np.s_[1::2, 1::2], 2, blue),
    ):
        seen = out[at][..., channel]
        want = gain**2 * (b1 * light / gain + b2**2)
        assert np.isclose(seen.var(), want, rtol=0.03)
        assert np.isclose(seen.mean(), light, atol=4 * np.sqrt(want / seen.size))


def test_without_noise_the_raw_chain_only_demosaics():
    rng = np.random.default_rng(0)
    light = smooth(5, sigma=8)
    inner = np.s_[4:-4, 4:-4]
    out = raw_noise(light, 1e-12, 0.0, 2.0, 1.7, "GRBG", rng)
    assert np.sqrt(np.mean((out - light)[inner] ** 2)) < 2e-3


def test_what_was_drawn_is_told_and_within_range_and_repeats():
    light = smooth(1, 64, 64)
    seen = set()
    for seed in range(40):
        codes, meta = add_noise(light, SRGB, parse_noise("rsblur"), [], np.random.default_rng(seed), 8)
        again, _ = add_noise(light, SRGB, parse_noise("rsblur"), [], np.random.default_rng(seed), 8)
        assert np.array_equal(codes, again)
        assert 0.5e-4 <= meta["b1"] <= 1.5e-4
        assert 0.5 * 9.15e-4 <= meta["b2"] <= 1.5 * 9.15e-4
        assert 1.9 <= meta["red_gain"] <= 2.4
        assert 1.5 <= meta["blue_gain"] <= 1.9
        seen.add(meta["pattern"])
    assert seen == set(PATTERNS)


def test_light_at_white_has_no_noise_and_off_only_encodes():
    light = np.full((32, 32, 3), 1.4, np.float32)
    frames = [np.full((32, 32, 3), 128, np.uint8)] * 3
    for setting in ("rsblur", "1e-3,1e-2", "restore"):
        assert (
            add_noise(light, SRGB, parse_noise(setting), frames, np.random.default_rng(0), 8)[0] == 255
        ).all()
    x = smooth(2)
    codes, meta = add_noise(x, SRGB, None, [], np.random.default_rng(0), 8)
    assert meta is None
    assert np.array_equal(codes, SRGB.encode(x))


# -- the source's own noise


@pytest.mark.parametrize("a", [3e-4, 1e-3, 3e-3])
@pytest.mark.parametrize("motion", [0, 3])
def test_the_noise_put_in_is_found_within_a_fifth(a, motion):
    """Texture down to a pixel and a half over half the picture, moving or not: 1 to 6 codes of noise at mid grey."""
    b, rng = 1e-6, np.random.default_rng(7)
    light = smooth(1)
    light[:, :160] = smooth(2, sigma=1.2)[:, :160]
    frames = [with_noise(np.roll(light, motion * i, 1), a, b, rng) for i in range(3)]
    found = estimate_noise(frames, SRGB)
    for x, rtol in ((0.05, 0.5), (0.2, 0.2), (0.5, 0.2)):  # nothing in the picture is as dark as the first
        deviation = np.sqrt(found.variance(x))
        assert np.allclose(deviation, np.sqrt(a * x + b), rtol=rtol), x


def test_clean_frames_have_no_noise_and_clipped_ones_tell_nothing():
    light = smooth(1, sigma=8)
    frames = [SRGB.encode(light)] * 3
    assert (estimate_noise(frames, SRGB).variance(0.3) < 3e-6).all()  # under half a code at this light
    white = [np.full((100, 100, 3), 255, np.uint8)] * 3
    assert not estimate_noise(white, SRGB).variance(0.5).any()
    tiny = [np.zeros((6, 6, 3), np.uint8)] * 3
    assert not estimate_noise(tiny, SRGB).variance(0.5).any()


@pytest.mark.parametrize(("step", "level"), [(0, 1.0), (0, 0.5), (4, 1.0)])
def test_restore_brings_a_blur_back_to_the_noise_of_one_frame(step, level):
    """Through the Synthesizer, still and moving; noise is measured as the difference from the noise-free exposure."""
    a, b, count = 1.5e-3, 4e-6, 5
    rng = np.random.default_rng(3)
    light = smooth(4, sigma=6)
    clean = [np.roll(light, step * i, 1) for i in range(count)]
    frames = [with_noise(x, a, b, rng) for x in clean]
    recipe = Recipe(interp="dis", noise=f"restore:{level}")
    blur = Synthesizer(recipe).sample("n", frames, 0, None, np.random.default_rng(0)).blur_rgb
    truth = Synthesizer(Recipe(interp="dis")).sample(
        "c", [SRGB.encode(x) for x in clean], 0, None, np.random.default_rng(0)
    )
    inner = np.s_[30:-30, 30:-30]
    found = SRGB.decode(blur)[..., :3][inner] - SRGB.decode(truth.blur_rgb)[..., :3][inner]
    want = level * np.sqrt(a * light.mean() + b)
    assert np.isclose(found.std(), want, rtol=0.12)


def sensor(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera with RAW noise delivers: the noise is demosaiced, the picture is not."""
    return raw_noise(light, 3e-4, 2e-3, 2.0, 1.7, "RGGB", rng, detail=True)


def white_noise(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return light + np.sqrt(8e-4 * light + 2e-6) * rng.standard_normal(light.shape, dtype=np.float32)


def as_video(frames: list[np.ndarray], path) -> list[np.ndarray]:
    write_video(path, frames, options={"crf": "18", "threads": "1"})
    return [f.rgb for f in read_frames(probe_clip(path), 0, len(frames) - 1)]


@pytest.mark.parametrize(
    ("noise", "codec", "low", "high"),
    [
        (white_noise, None, 0.8, 1.25),
        (sensor, None, 0.8, 1.25),
        (white_noise, 98, 0.8, 1.25),
        (sensor, 98, 0.8, 1.25),
        (white_noise, 90, 0.6, 1.6),
        (sensor, 90, 0.6, 1.6),
        (white_noise, "h264", 0.6, 1.6),
        (sensor, "h264", 0.6, 1.6),
    ],
)
@pytest.mark.parametrize("step", [0, 3])
def test_the_blur_has_the_noise_variance_of_one_source_frame(tmp_path, noise, codec, low, high, step):
    """White, demosaiced, behind JPEG and H.264; still and moving. Noise is the difference from the clean scene."""
    rng = np.random.default_rng(5)
    light = smooth(4, 256, 384, sigma=12)
    clean = [np.roll(light, step * i, 1) for i in range(9)]
    frames = [SRGB.encode(noise(x, rng).astype(np.float32)) for x in clean]
    if codec == "h264":
        frames = as_video(frames, tmp_path / "film.mp4")
    elif codec:
        frames = [jpeg(f, codec) for f in frames]
    s = Synthesizer(Recipe(interp="dis", noise="restore")).sample(
        "n", frames, 0, None, np.random.default_rng(0)
    )
    truth = Synthesizer(Recipe(interp="dis", store="linear16")).sample(
        "c", [SRGB.encode(x) for x in clean], 0, None, np.random.default_rng(0)
    )
    inner = np.s_[40:-40, 40:-40]

    def variance(codes: np.ndarray, want: np.ndarray) -> float:
        d = (SRGB.decode(codes)[..., :3] - want)[inner]
        return float(np.mean([(d[..., c] - cv2.blur(d[..., c], (25, 25))).var() for c in range(3)]))

    ratio = variance(s.blur_rgb, truth.linear16 / np.float32(65535)) / variance(frames[4], clean[4])
    assert low < ratio < high, ratio


def test_the_grain_is_put_back_too():
    rng = np.random.default_rng(5)
    light = smooth(4, 256, 384, sigma=12)
    frames = [SRGB.encode(sensor(light, rng)) for _ in range(9)]
    want = estimate_noise(frames, SRGB).grain
    assert want[0, 1] > 1.5 and want[0, -1] < 0.5, "a demosaiced red has coarse grain"
    blur = Synthesizer(Recipe(interp="dis", noise="restore")).sample(
        "n", frames, 0, None, np.random.default_rng(0)
    )
    got = estimate_noise([blur.blur_rgb], SRGB).grain
    assert np.abs(got - want).max() < 0.5
    assert np.allclose(got @ COUNTS / COUNTS.sum(), 1)


GRAIN = np.array([3.2, 3.2, 2.5, 1.25, 0.6, 0.3, 0.16])  # of a demosaiced red


def test_noise_shows_the_grain_that_it_was_given():
    """The filter that gives noise its grain is short, and so are the blocks that show it: neither takes the grain's edge."""
    grain = GRAIN / (GRAIN @ COUNTS / COUNTS.sum())
    assert np.abs(shown_power(grain_kernel(grain)) / grain - 1)[1:].max() < 0.07


def test_what_a_filter_shows_is_the_power_of_its_noise_in_blocks():
    kernel = grain_kernel(GRAIN)
    noise = cv2.filter2D(np.random.default_rng(0).standard_normal((1024, 1024)), -1, kernel)
    blocks = noise.reshape(128, 8, 128, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    power = np.mean([cv2.dct(b) ** 2 for b in blocks], axis=0)
    rings = np.hypot(*np.mgrid[:8, :8])
    inner = (rings >= 1.5) & (rings < 2.5)
    assert np.isclose(power[inner].mean(), shown_power(kernel)[1], rtol=0.03)
    assert np.isclose(power[rings >= 8].mean(), shown_power(kernel)[6], rtol=0.03)


def test_a_cameras_noise_is_compared_in_rgb():
    """The variance of `raw_noise` on grey, channel by channel; RAW's own figure is up to four times less."""
    grey = np.full((512, 512, 3), 0.18, np.float32)
    out = raw_noise(grey, 1e-4, 9e-4, 2.15, 1.7, "RGGB", np.random.default_rng(1))
    got = out.reshape(-1, 3).astype(float).var(0)
    assert np.allclose(camera_variance(1e-4, 9e-4, 0.18), got, rtol=0.05)
    assert got.max() > 2 * (1e-4 * 0.18 + 9e-4**2)


def test_noise_never_falls_as_the_source_gets_noisier():
    """Where `restore` takes over from the camera there is no step down."""
    light = np.full((200, 300, 3), 0.18, np.float32) + 0.02 * smooth(3, 200, 300, 20)
    seen = []
    for times in (0.25, 0.5, 0.8, 1.25, 2.0, 4.0):
        a = float(times * np.mean(camera_variance(1e-4, 9.15e-4, 0.18)) / 0.18)
        rng = np.random.default_rng(2)
        frames = [
            SRGB.encode((light + np.sqrt(a * light) * rng.standard_normal(light.shape)).astype(np.float32))
            for _ in range(9)
        ]
        blur = (
            Synthesizer(Recipe(interp="dis", noise="restore+rsblur"))
            .sample("n", frames, 0, None, np.random.default_rng(4))
            .blur_rgb
        )
        d = SRGB.decode(blur)[..., :3] - light
        seen.append(float(d.std()))
    assert all(b > 0.8 * a for a, b in pairwise(seen)), seen


def test_rgb_noise_has_the_variance_that_it_is_named_for():
    light = np.empty((400, 600, 3), np.float32)
    light[:] = np.linspace(0.1, 0.6, 3)
    codes, meta = add_noise(light, SRGB, parse_noise("rgb:4e-4,3e-3"), [], np.random.default_rng(0), 9.0)
    assert meta == {"kind": "rgb", "b1": 4e-4, "b2": 3e-3}
    d = SRGB.decode(codes)[..., :3] - light
    for c in range(3):
        assert np.isclose(d[..., c].var(), 4e-4 * light[0, 0, c] + 9e-6, rtol=0.05)
    assert np.corrcoef(d[:, 1:, 0].ravel(), d[:, :-1, 0].ravel())[0, 1] < 0.02, "no mosaic: white"


def test_restore_adds_what_is_missing_only():
    frames = [np.full((64, 64, 3), 120, np.uint8)] * 3
    codes, meta = add_noise(
        smooth(1, 64, 64), SRGB, parse_noise("restore"), frames, np.random.default_rng(0), 1.0
    )
    assert meta["left"] == 1
    assert np.array_equal(codes, SRGB.encode(smooth(1, 64, 64)))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_iso_demosaics_the_noise_and_leaves_the_detail(pattern):
    """Demosaicing is linear: the same draw, with the picture's own demosaicing error taken off."""
    light = np.random.default_rng(1).random((24, 32, 3)).astype(np.float32)
    args = (light, 1e-3, 2e-3, 2.0, 1.7, pattern)
    whole, kept = (raw_noise(*args, np.random.default_rng(5), detail=d) for d in (False, True))
    clean = raw_noise(light, 1e-12, 0.0, 2.0, 1.7, pattern, np.random.default_rng(5))
    assert np.abs(clean - light).max() > 0.1  # random colours: a mosaic cannot hold them
    assert np.allclose(kept - light, whole - clean, atol=2e-5)
    assert (kept - light).std() > 0.01


@pytest.mark.parametrize("setting, kept", [("iso", True), ("restore+realblur", True), ("realblur", False)])
def test_detail_survives_iso_and_restoring_but_not_the_published_pipeline(setting, kept):
    """A clean source whose colours no mosaic can hold; the camera's noise is small beside the demosaicing error."""
    frame = np.random.default_rng(2).integers(0, 120, (32, 40, 3), np.uint8)
    linear = np.ascontiguousarray(SRGB.decode(frame)[..., :3])
    errors = []
    for seed in range(8):
        noisy, meta = add_noise(
            linear, SRGB, parse_noise(setting), [frame] * 3, np.random.default_rng(seed), 3.0
        )
        assert meta is not None
        errors.append((meta.get("b1", 1.0), np.abs(SRGB.decode(noisy)[..., :3] - linear).mean()))
    least_noise, error = min(errors)
    assert least_noise < 2e-4 and (error < 0.012) == kept, (least_noise, error)


def test_the_compiled_loops_refuse_arrays_of_other_shapes():
    light, three = np.full((32, 32, 3), 0.5, np.float32), np.zeros(3)
    for parts in (
        (light[..., 0], light, three, three),
        (light, light[:-1], three, three),
        (light, light[..., :2], three, three),
        (light, light, three[:1], three),
        (light, light, three, three[:2]),
    ):
        with pytest.raises(ValueError, match="noise needs light and normal numbers"):
            _add_normal(*parts)
    for parts in ((light[..., :2], three, three), (light, three[:2], three), (light, three, three[:1])):
        with pytest.raises(ValueError, match="noise is measured in light"):
            measure_noise([parts[0]], *parts[1:])
