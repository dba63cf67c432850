"""Pictures of every format, depth, alpha and orientation through ``predict`` with an identity for a model."""

import itertools
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from deblur_train.cli.main import main
from deblur_train.evaluation.restored import answers_from_folder
from deblur_train.media.metadata import embed
from deblur_train.media.pictures import EXTENSIONS, read_picture, upright
from deblur_train.prediction.inputs import find_inputs
from deblur_train.prediction.predict import predict
from tests.helpers.train_films import panning, write_film


class Identity:
    backbone = ""

    def __call__(self, rgb):
        return rgb

    def warning(self):
        return ""


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    monkeypatch.setattr("deblur_train.prediction.predict.load_restorer", lambda *_: Identity())


def smooth(channels: int, depth: int) -> np.ndarray:
    """(24, 40, C) RGB, RGBA or grey (24, 40), no two corners alike, with an alpha from 0 to its peak."""
    y, x = np.mgrid[:24, :40] / 40
    planes = [0.2 + 0.5 * x, 0.8 - 0.6 * y, 0.3 + 0.3 * x + 0.3 * y, np.clip(2 * x - 0.5, 0, 1)]
    peak = 2**depth - 1
    out = np.rint(np.dstack(planes[:channels]) * peak).astype(np.uint8 if depth == 8 else np.uint16)
    return out[..., 0] if channels == 1 else out


def exif(orientation: int) -> bytes:
    return b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + bytes(4)


def encoded(extension: str, pixels: np.ndarray, orientation: int) -> bytes:
    """A file as a camera or an editor writes it: stored pixels, and a tag that says how to turn them."""
    if extension == ".tif":
        tifffile = pytest.importorskip("tifffile")
        import io

        held, colour = io.BytesIO(), pixels.ndim == 3
        tifffile.imwrite(
            held,
            pixels,
            photometric="rgb" if colour else "minisblack",
            extrasamples=["unassalpha"] if colour and pixels.shape[2] == 4 else None,
            extratags=[(274, 3, 1, orientation, True)],
            metadata=None,
        )
        return held.getvalue()
    bgr = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 100]}
    data = cv2.imencode(extension, np.ascontiguousarray(bgr), options.get(extension, []))[1].tobytes()
    return embed(data, exif(orientation), None)


TABLE = [
    *itertools.product([".png", ".tif"], [8, 16], [1, 3, 4], range(1, 9)),
    *itertools.product([".webp"], [8], [3, 4], range(1, 9)),
    *itertools.product([".jpg"], [8], [1, 3], range(1, 9)),
    *itertools.product([".bmp"], [8], [3], [1]),
]


@pytest.mark.parametrize(("extension", "depth", "channels", "orientation"), TABLE)
def test_what_goes_in_comes_out_upright(tmp_path, extension, depth, channels, orientation):
    stored = smooth(channels, depth)
    source = tmp_path / f"a{extension}"
    source.write_bytes(encoded(extension, stored, orientation))
    predict(source, out=tmp_path / "out")
    got = read_picture(tmp_path / "out" / source.name)
    want = upright(stored, orientation)
    colours = want if channels == 1 else want[..., :3]
    colours = np.repeat(colours[..., None], 3, 2) if channels == 1 else colours
    assert got.rgb.dtype == want.dtype and got.rgb.shape == colours.shape and got.grey == (channels == 1)
    # WebP's encoder keeps no colour where nothing is seen.
    seen = want[..., 3] > 0 if channels == 4 and extension == ".webp" else np.ones(want.shape[:2], bool)
    assert np.abs(got.rgb.astype(int) - colours)[seen].max() <= (4 if extension == ".jpg" else 0)
    if channels == 4:
        np.testing.assert_array_equal(got.alpha, want[..., 3])
    else:
        assert got.alpha is None


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_that_is_read_is_written(tmp_path, extension):
    """``--out NAME`` in each of them for one input; what the format cannot hold is said."""
    source = tmp_path / "a.png"
    source.write_bytes(encoded(".png", smooth(4, 16), 1))
    out = tmp_path / f"b{extension}"
    result = CliRunner().invoke(main, ["predict", str(source), "--device", "cpu", "--out", str(out)])
    words = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    got = read_picture(out)
    want = smooth(4, 16)[..., :3] / 65535
    lossless = extension in (".png", ".tif", ".tiff", ".webp", ".bmp")
    seen = got.alpha > 0 if extension == ".webp" else np.ones(want.shape[:2], bool)
    assert np.abs(got.rgb / np.iinfo(got.rgb.dtype).max - want)[seen].max() < (0.003 if lossless else 0.03)
    assert ("16 bits written as 8" in words) == (got.rgb.dtype == np.uint8)
    assert ("transparency left out" in words) == (got.alpha is None)


def test_out_as_a_file_fits_one_input_of_its_kind(tmp_path):
    def fails(*arguments):
        result = CliRunner().invoke(main, ["predict", *map(str, arguments), "--device", "cpu"])
        assert result.exit_code == 1, result.output
        return " ".join(result.output.split())

    source = tmp_path / "a.png"
    source.write_bytes(encoded(".png", smooth(3, 8), 1))
    film = write_film(tmp_path / "f.mp4", panning(2))
    assert "2 results cannot be one file" in fails(source, source, "--out", tmp_path / "x.png")
    assert "is no video" in fails(source, "--out", tmp_path / "x.mp4")
    assert "is no image" in fails(film, "--out", tmp_path / "x.png")
    assert "overwrite it" in fails(source, "--out", source)
    (tmp_path / "folder.png").mkdir()
    predict([source], out=tmp_path / "folder.png")
    assert (tmp_path / "folder.png" / "a.png").exists()
    predict(film, out=tmp_path / "new" / "g.mkv")
    assert (tmp_path / "new" / "g.mkv").exists()


def test_formats_are_checked_before_work_begins(tmp_path):
    """HEIC says how to convert, an extension that nothing writes is refused, hidden files are no pictures."""
    for name in ("a.heic", "b.xyz", "._c.png"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "c.png").write_bytes(encoded(".png", smooth(3, 8), 1))
    for name, words in (
        ("a.heic", "HEIC is not supported; convert it to PNG"),
        ("b.xyz", "not a picture or video by its name; known: .png"),
    ):
        result = CliRunner().invoke(main, ["predict", str(tmp_path / name), "--device", "cpu"])
        assert result.exit_code == 1 and words in " ".join(result.output.split()), result.output
    result = CliRunner().invoke(
        main, ["predict", str(tmp_path), "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    words = " ".join(result.output.split())
    assert result.exit_code == 0 and "1 image restored" in words, result.output
    assert "left out 1 .heic: not supported; convert to PNG" in words and "left out 1 .xyz" in words
    (tmp_path / "x.png").write_bytes((tmp_path / "a.heic").read_bytes())
    result = CliRunner().invoke(
        main, ["predict", str(tmp_path / "x.png"), "--device", "cpu", "--out", str(tmp_path / "o")]
    )
    assert result.exit_code == 1 and "HEIC is not supported" in " ".join(result.output.split())


def test_hidden_folders_hold_no_input(tmp_path):
    root = tmp_path / ".cache"  # hidden itself: it was asked for
    for name in (
        "a.png",
        "day/b.png",
        ".trash/c.png",
        "day/.thumbnails/d.png",
        "@eaDir/e.png",
        "__MACOSX/f.png",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")  # which would be waited for forever
    for given in (str(root), f"{root}/*", f"{root}/**/*.png", f"{root}/**"):
        assert sorted(i.below.as_posix() for i in find_inputs([given]).found) == ["a.png", "day/b.png"]
    for given in (f"{root}/.trash/*.png", f"{root}*/.trash/*.png"):
        assert [i.below.name for i in find_inputs([given]).found] == ["c.png"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_links_to_folders_are_followed_as_make_does(tmp_path, monkeypatch):
    """Each folder once, under its own name where it has one, and never in a circle."""
    root = tmp_path / "in"
    for name in ("in/b/c.png", "in/d/e.png", "photos/f.png", "out/g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name, to in (("away", "../photos"), ("b/d", "../d"), ("b/circle", ".."), ("done", "../out")):
        (root / name).symlink_to(to)
    found = find_inputs([str(root)], tmp_path / "out").found
    assert sorted(i.below.as_posix() for i in found) == ["away/f.png", "b/c.png", "d/e.png"]
    put = tmp_path / "of-others"
    put.mkdir()
    for name in ("f", "e"):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))
    (put / "x").symlink_to("../photos")
    answer = answers_from_folder(put, ["x/f", "e"])
    assert all(answer(name, np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3) for name in ("x/f", "e"))
    list_one = os.scandir

    def no_leave(folder):
        if str(folder).endswith("photos") or str(folder).endswith("away"):
            raise PermissionError(13, "Permission denied", str(folder))
        return list_one(folder)

    monkeypatch.setattr(os, "scandir", no_leave)
    inputs = find_inputs([str(root)], tmp_path / "out")
    assert len(inputs.found) == 2 and inputs.notes == [f"{root}/away: cannot be listed: Permission denied"]


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_what_else_a_file_holds_is_kept_in_its_format_and_named_in_others(tmp_path):
    """PNG: gAMA, resolution, text, XMP; JPEG: resolution, XMP, comment. XMP that repeats the orientation says upright."""
    png = encoded(".png", smooth(3, 8), 1)
    text = chunk(b"tEXt", b"Author\0me") + chunk(b"gAMA", struct.pack(">I", 45455))
    text += chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    (tmp_path / "a.png").write_bytes(png[:33] + text + xmp + png[33:])
    jpeg = encoded(".jpg", smooth(3, 8), 1)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    at = jpeg.index(b"JFIF\0") + 7
    jpeg = jpeg[:at] + struct.pack(">BHH", 1, 300, 300) + jpeg[at + 5 :]
    (tmp_path / "b.jpg").write_bytes(jpeg)
    common = ["--device", "cpu", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "a.png"), str(tmp_path / "b.jpg"), *common])
    assert result.exit_code == 0 and "not kept" not in result.output, result.output
    got = (tmp_path / "out" / "a.png").read_bytes()
    assert text in got and b'tiff:Orientation="1"' in got and read_picture(tmp_path / "out" / "a.png")
    got = (tmp_path / "out" / "b.jpg").read_bytes()
    assert b'tiff:Orientation="1"' in got and got.count(b"JFIF\0") == 1
    at = got.index(b"JFIF\0") + 7
    assert struct.unpack_from(">BHH", got, at) == (1, 300, 300)
    assert np.abs(read_picture(tmp_path / "out" / "b.jpg").rgb.astype(int) - smooth(3, 8)).max() <= 5

    for source, named in (("a.png", "text, gAMA, resolution, XMP"), ("b.jpg", "XMP, resolution")):
        out = ["--device", "cpu", "--out", str(tmp_path / "c.webp")]
        result = CliRunner().invoke(main, ["predict", str(tmp_path / source), *out])
        words = " ".join(result.output.split())
        assert "not kept: " in words and all(n in words for n in named.split(", ")), result.output
