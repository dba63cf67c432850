"""From photos made with known noise and JPEG, `match` finds both; its recipe can be used."""

import json
import shutil
import struct

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from blursynth.camera.noise import add_noise, parse_noise
from blursynth.camera.response import load_response
from blursynth.cli.main import main
from blursynth.common.errors import UsageError
from blursynth.exchange.match import match
from blursynth.exchange.photo_file import PhotoFacts, photo_facts
from blursynth.recipe import Recipe, load_recipe
from blursynth.run.make import make
from blursynth.shards.shard import ShardWriter
from tests.helpers.make_fakes import frames_folder

SRGB = load_response("srgb")


def photo(seed: int, noise: str) -> np.ndarray:
    """Soft shapes, as in a blurry photo, from black to near white; BGR uint8."""
    rng = np.random.default_rng(seed)
    t = cv2.GaussianBlur(rng.random((400, 560, 3)).astype(np.float32), (0, 0), 14)
    t = (t - t.min()) / np.ptp(t)
    light = 0.02 + 0.8 * t**1.5
    return add_noise(light, SRGB, parse_noise(noise), (), rng, 1.0)[0][..., ::-1]


def write_photos(folder, noise: str, quality: int | None, count: int = 3):
    folder.mkdir()
    for i in range(count):
        if quality is None:
            cv2.imwrite(str(folder / f"{i}.png"), photo(i, noise))
        else:
            cv2.imwrite(str(folder / f"{i}.jpg"), photo(i, noise), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return folder


@pytest.mark.parametrize("noise", ["2e-4,0", "1e-3,2e-3", "4e-4,6e-3"])
@pytest.mark.parametrize("quality", [None, 95, 88])
def test_known_noise_and_quality_are_recovered(tmp_path, noise, quality):
    folder = write_photos(tmp_path / "photos", f"rgb:{noise}", quality)
    report = match([folder], tmp_path / "camera.toml")
    b1, b2 = map(float, noise.split(","))
    for x in (0.05, 0.2, 0.6):
        got, want = (np.sqrt(u * x + v * v) for u, v in ((report.b1, report.b2), (b1, b2)))
        assert got == pytest.approx(want, rel=0.3), (x, got / want)
    found = report.photos.quality
    assert found is None if quality is None else max(abs(q - quality) for q in found) <= 3
    recipe, _ = load_recipe(str(tmp_path / "camera.toml"))[:2]
    assert Recipe.model_validate(recipe).noise == f"rgb:{report.b1:g},{report.b2:g}"


@pytest.mark.parametrize("quality", [30, 60, 75, 88, 95, 100])
def test_quality_and_subsampling_of_a_jpeg(quality):
    for factor, name in (
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "4:2:0"),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, "4:4:4"),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, "4:2:2"),
    ):
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8), flags)[1].tobytes()
        assert photo_facts(data) == PhotoFacts(quality, name, None)


def exif(order: str, top: int, bottom: int) -> bytes:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    tiff = head + struct.pack(order + "I", 8)
    tiff += struct.pack(order + "HHHII", 1, 0x8769, 4, 1, 26) + struct.pack(order + "I", 0)
    tiff += struct.pack(order + "HHHII", 1, 0x829A, 5, 1, 44) + struct.pack(order + "I", 0)
    return b"Exif\0\0" + tiff + struct.pack(order + "II", top, bottom)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exposure_time_of_a_jpeg(order):
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    part = exif(order, 1, 60)
    tagged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part + data[2:]
    assert photo_facts(tagged).exposure_s == pytest.approx(1 / 60)


@pytest.mark.parametrize("cut", [0, 1, 3, 20, 40, 60, 90, 200])
def test_damaged_headers_say_nothing_and_raise_nothing(cut):
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    part = exif("<", 1, 60)
    tagged = data[:2] + b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part + data[2:]
    photo_facts(tagged[:cut])
    photo_facts(tagged[:2] + tagged[cut:])
    assert photo_facts(b"no jpeg") == PhotoFacts()


def test_the_distance_to_a_made_set(tmp_path):
    photos = write_photos(tmp_path / "photos", "rgb:1e-3,2e-3", 92)
    frames_folder(tmp_path / "src" / "clip", 27, (320, 240))
    recipe = Recipe(interp="none", fps=240, window="9", noise="rgb:1e-3,2e-3", jpeg="92")
    make(tmp_path / "src", tmp_path / "data", recipe, workers=1, quiet=True)
    run = CliRunner().invoke(
        main,
        ["match", str(photos), "--out", str(tmp_path / "c.toml"), "--against", str(tmp_path / "data")],
    )
    assert run.exit_code == 0, run.output
    assert "noise at 20% light" in run.output and "JPEG quality" in run.output
    chart = tmp_path / "c.png"
    assert cv2.imread(str(chart)) is not None
    before = chart.read_bytes()
    match([photos], tmp_path / "c.toml", against=tmp_path / "data")
    assert chart.read_bytes() == before, "its own chart is written again"


def test_no_photo_is_written_over(tmp_path):
    """The chart's name follows from the recipe's."""
    write_photos(tmp_path / "p", "off", None, count=1)
    chart = tmp_path / "p" / "0.png"
    before = chart.read_bytes()
    for photos in ([tmp_path / "p"], [chart]):
        with pytest.raises(UsageError, match="is one of the photos given"):
            match(photos, chart.with_suffix(".toml"), against=tmp_path)
    with pytest.raises(UsageError, match="must end in"):
        match([tmp_path / "p"], chart)
    assert chart.read_bytes() == before


@pytest.mark.parametrize("lies", ["a picture", "no picture", "a folder", "a link to nowhere"])
def test_what_lies_where_the_chart_goes_is_not_written_over(tmp_path, lies):
    write_photos(tmp_path / "p", "off", None, count=1)
    chart = tmp_path / "c.png"
    if lies == "a picture":
        chart.write_bytes((tmp_path / "p" / "0.png").read_bytes())
    elif lies == "no picture":
        chart.write_text("mine")
    elif lies == "a folder":
        chart.mkdir()
    else:
        chart.symlink_to(tmp_path / "elsewhere.png")
    before = chart.read_bytes() if chart.is_file() else None
    with pytest.raises(UsageError, match="move it away or give another --out"):
        match([tmp_path / "p"], tmp_path / "c.toml", against=tmp_path)
    assert before is None or chart.read_bytes() == before
    assert not (tmp_path / "c.toml").exists() and not (tmp_path / "elsewhere.png").exists()


@pytest.mark.parametrize("hidden", [".thumbnails/0.jpg", "a/@eaDir/0.jpg", "._0.jpg"])
def test_hidden_pictures_are_no_photos(tmp_path, hidden):
    """A thumbnail has another noise and another JPEG than the photo."""
    write_photos(tmp_path / "p", "rgb:1e-3,2e-3", 92, count=1)
    before = match([tmp_path / "p"], tmp_path / "a.toml")
    thumb = cv2.imread(str(write_photos(tmp_path / "q", "rgb:1e-2,5e-3", 40, count=1) / "0.jpg"))
    (tmp_path / "p" / hidden).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(tmp_path / "p" / hidden), thumb, [cv2.IMWRITE_JPEG_QUALITY, 40])
    after = match([tmp_path / "p"], tmp_path / "b.toml")
    assert after.photos.pictures == 1 and str(after.photos) == str(before.photos)
    assert match([tmp_path / "p" / hidden], tmp_path / "c.toml").photos.pictures == 1, (
        "given by name, it is one"
    )
    shutil.copy(tmp_path / "p" / "0.jpg", tmp_path / "p" / "@me.jpg")
    assert match([tmp_path / "p"], tmp_path / "d.toml").photos.pictures == 2, "@ begins hidden folders alone"


def test_a_set_of_16_bits_or_odd_json_is_measured_like_any(tmp_path):
    write_photos(tmp_path / "p", "rgb:1e-3,2e-3", None, count=1)
    picture = cv2.imread(str(tmp_path / "p" / "0.png"))
    others = []
    for name, codes, meta in (("8", picture, {"camera": {}}), ("16", picture.astype(np.uint16) * 257, [])):
        (tmp_path / name).mkdir()
        with ShardWriter(tmp_path / name, "train-000000") as writer:
            png = cv2.imencode(".png", codes)[1].tobytes()
            writer.add("k", {"blur.png": png, "sharp.png": png, "json": json.dumps(meta).encode()})
            writer.commit({})
        others.append(match([tmp_path / "p"], tmp_path / "a.toml", tmp_path / name).other)
    assert str(others[0]) == str(others[1])


def test_mistakes_are_said(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        match([tmp_path / "none"], tmp_path / "a.toml")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        match([tmp_path / "bad"], tmp_path / "a.toml")
    write_photos(tmp_path / "good", "rgb:1e-3,2e-3", 92, 1)
    report = match([tmp_path / "good", tmp_path / "bad"], tmp_path / "a.toml")
    assert report.exit_code == 1 and "x.jpg" in str(report)
