"""What `make` writes against the physics, from outside: a scene whose light is known at every place and time, and of
each sample only what its files say. The reference is docs/physics.md and the schema in plain numpy, none of our code."""

import io
import json

import cv2
import numpy as np
import pytest

from blursynth import make
from blursynth.shards.shard import read_shard

H, W, FPS = 64, 80, 100.0
MARGIN = 14  # px at each side where light comes in that no frame shows
SPEED = np.array([2.3, -0.7])  # px a frame
GAINS = np.array([0.28, 0.22, 0.17])  # of the channels: RGB must not change places

Y, X = np.mgrid[:H, :W].astype(float)
_rng = np.random.default_rng(0)
WAVES = 2 * np.pi / _rng.uniform(9, 40, 8) * np.exp(1j * _rng.uniform(0, 2 * np.pi, 8))
PHASES = _rng.uniform(0, 2 * np.pi, 8)


def light(x, y, t):
    """Linear light (..., 3) at places and times: a texture that moves at SPEED."""
    x, y = x - SPEED[0] * t, y - SPEED[1] * t
    pattern = sum(np.cos(k.real * x + k.imag * y + p) for k, p in zip(WAVES, PHASES, strict=True)) / 8
    return 0.3 + GAINS * np.asarray(pattern)[..., None]


CURVES = {
    "srgb": lambda v: np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.maximum(v, 1e-9) ** (1 / 2.4) - 0.055),
    "gamma2.2": lambda v: v ** (1 / 2.2),
}


def codes(v, curve):
    return 255 * CURVES[curve](v)


def at(path, share):
    return [np.interp(share, np.linspace(0, 1, len(path)), axis) for axis in np.transpose(path)]


def exposed(meta, steps=96):
    """The mean light that a sample's JSON claims, and the instants of its sharp picture's rows, in frames."""
    source, e = meta["source"], meta["exposure"]
    open_time = e["shutter_ms"] / 1000 * source["fps"]
    rows = e["readout_ms"] / 1000 * source["fps"] * ((np.arange(H) + 0.5) / H - 0.5)[:, None]
    middle = (source["first"] + source["last"]) / 2 + rows
    path = e["shake"]["path"] if e["shake"] else [[0, 0, 0]] * 2
    total, weights = 0, 0
    for share in (np.arange(steps) + 0.5) / steps:
        weight = {"box": 1.0, "triangle": 1 - abs(2 * share - 1)}[e["profile"]]
        x, y, turn = at(path, share)
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        u, v = X - (W - 1) / 2 - x, Y - (H - 1) / 2 - y
        u, v = cos * u + sin * v + (W - 1) / 2, cos * v - sin * u + (H - 1) / 2
        total = total + weight * light(u, v, middle + (share - 0.5) * open_time)
        weights += weight
    return total / weights, middle if e["readout_ms"] else np.full((H, 1), source["target"])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for curve in CURVES:
        (folder / curve).mkdir()
        for i in range(9):
            rgb = np.rint(codes(light(X, Y, i), curve)).astype(np.uint8)
            cv2.imwrite(str(folder / curve / f"{i:06d}.png"), rgb[..., ::-1])
    return folder


def only_sample(film, out, **options):
    fixed = {"interp": "dis", "noise": "off", "highlights": "off", "gate": "off", "val_fraction": 0.0}
    make(film, out, "realistic", quiet=True, workers=1, **(fixed | {"fps": FPS, "window": "9"} | options))
    (tar,) = out.glob("*.tar")
    (sample,) = read_shard(tar)
    files = {k: cv2.imdecode(np.frombuffer(v, np.uint8), -1)[..., ::-1].astype(float)
             for k, v in sample.items() if k in ("blur.png", "sharp.png", "linear.png")}  # fmt: skip
    if "flow.npy" in sample:
        files["flow"] = np.load(io.BytesIO(sample["flow.npy"])).astype(float)
    return json.loads(sample["json"]), files


def rms(a, b):
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return float(np.sqrt(np.mean((a - b)[inner] ** 2)))


CASES = {
    "as it is": {},
    "duty": {"duty": "0.2-0.7", "seed": 3},
    "even window": {"window": "8"},
    "triangle": {"profile": "triangle", "duty": "0.8"},
    "rolling": {"readout_ms": 20.0, "duty": "0.5"},
    "rolling to the window's ends": {"readout_ms": 30.0},
    "rolling, even": {"readout_ms": 20.0, "window": "8"},
    "shake": {"shake": "8", "duty": "0.6"},
    "shake about the centre": {"shake": "8", "shake_about": "centre"},
    "shake, even, centre, triangle": {"shake": "8", "shake_about": "centre", "window": "8", "profile": "triangle"},
    "shake, rolling": {"shake": "8", "readout_ms": 20.0},
    "blur_px": {"blur_px": "4-9"},
    "another camera": {"crf_out": "gamma2.2", "shake": "4"},
    "gamma": {"crf": "gamma2.2"},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_the_exposure_that_its_json_claims(films, tmp_path, case):
    options = CASES[case]
    film = options.get("crf", "srgb")
    meta, files = only_sample(films / film, tmp_path / "d", labels="flow", store="linear16", **options)
    e, curve = meta["exposure"], meta["camera"]["crf"]
    mean, instants = exposed(meta)
    # Rounding alone is 0.29 codes. A gamma or a colour in the wrong place, or half a frame, would be 2 to 20.
    assert rms(files["blur.png"], codes(mean, curve)) < 0.4
    assert rms(files["linear.png"] / 65535, mean) < 0.0015
    # Sharp: the frame itself, or, under a rolling shutter, the light between frames at the middle of each row.
    assert rms(files["sharp.png"], codes(light(X, Y, instants), curve)) < (0.6 if e["readout_ms"] else 0.5)
    frames = e["shutter_ms"] / 1000 * FPS
    assert (
        0 < frames <= meta["source"]["last"] - meta["source"]["first"] - e["readout_ms"] / 1000 * FPS + 1e-6
    )
    assert e["duty"] == pytest.approx(frames / e["stride"], abs=1e-4)
    path = np.array(e["shake"]["path"] if e["shake"] else [[0, 0, 0]] * 2, float)
    arc = np.hypot(*np.diff(path[:, :2], axis=0).T).sum()
    assert arc == pytest.approx(float(options.get("shake", 0)), abs=1e-3)
    assert not e["shake"] or e["shake"]["px"] == pytest.approx(arc, abs=1e-3)
    # At the centre of the frame a shake is its translation: the flow is the film's motion and the path's ends.
    moved = SPEED * frames + path[-1, :2] - path[0, :2]
    assert np.allclose(
        files["flow"][H // 2 - 1 : H // 2 + 1, W // 2 - 1 : W // 2 + 1].mean((0, 1)), moved, atol=0.3
    )
    if not e["shake"]:
        assert e["blur_px"] == pytest.approx(np.hypot(*SPEED) * frames, rel=0.03)


@pytest.mark.parametrize("profile", ["box", "triangle"])
def test_about_the_centre_the_sharp_picture_is_the_mean_of_the_path(films, tmp_path, profile):
    """Its place along the shake, weighed by the light, is zero; about the instant the path passes through zero."""
    shares = np.linspace(0, 1, 4001)
    weights = np.ones(4001) if profile == "box" else 1 - abs(2 * shares - 1)
    options = {"shake": "8", "profile": profile, "duty": "0.7", "seed": 5}
    meta, _ = only_sample(films / "srgb", tmp_path / "c", shake_about="centre", **options)
    assert (
        np.abs(np.array(at(meta["exposure"]["shake"]["path"], shares)) @ weights / weights.sum()).max()
        < 0.005
    )
    meta, _ = only_sample(films / "srgb", tmp_path / "i", **options)
    assert (
        np.abs(at(meta["exposure"]["shake"]["path"], 0.5)).max() < 1e-3
    )  # an odd window: its middle is the target
