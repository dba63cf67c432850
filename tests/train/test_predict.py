import itertools
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deblur_train import build_generator
from deblur_train.checkpoint import save_generator
from deblur_train.cli import main
from deblur_train.generator import start_near_identity
from deblur_train.image_file import Picture, exif_orientation, read_picture, upright, write_picture
from deblur_train.inference import _starts, auto_tile, restore

from .shards import make_data, scene


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    g = build_generator("mobilenet-dsc")
    start_near_identity(g, 0.3)
    return g.eval()


@pytest.fixture(scope="module")
def checkpoint(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "g.safetensors"
    save_generator(path, "mobilenet-dsc", generator.state_dict(), {"crop": "96"})
    return path


def invoke(*args) -> object:
    return CliRunner().invoke(main, [str(a) for a in args])


def exif(orientation: int, order: str = "<") -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def with_exif(data: bytes, tags: bytes) -> bytes:
    if data[:2] == b"\xff\xd8":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 8) + b"Exif\0\0" + tags + data[2:]
    chunk = b"eXIf" + tags
    return data[:33] + struct.pack(">I", len(tags)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


# What a viewer shows for stored pixels [[1, 2], [3, 4], [5, 6]] (TIFF 6.0, tag 274).
SHOWN = {
    1: [[1, 2], [3, 4], [5, 6]],
    2: [[2, 1], [4, 3], [6, 5]],
    3: [[6, 5], [4, 3], [2, 1]],
    4: [[5, 6], [3, 4], [1, 2]],
    5: [[1, 3, 5], [2, 4, 6]],
    6: [[5, 3, 1], [6, 4, 2]],
    7: [[6, 4, 2], [5, 3, 1]],
    8: [[2, 4, 6], [1, 3, 5]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_orientation(tmp_path, orientation, kind):
    stored = np.array(SHOWN[1], np.uint8)
    assert upright(stored, orientation).tolist() == SHOWN[orientation]
    big = np.kron(stored * 30, np.ones((16, 16), np.uint8))
    data = cv2.imencode(f".{kind}", cv2.cvtColor(big, cv2.COLOR_GRAY2BGR))[1].tobytes()
    path = tmp_path / f"x.{kind}"
    for order in "<>":
        path.write_bytes(with_exif(data, exif(orientation, order)))
        assert exif_orientation(path.read_bytes()) == orientation
        np.testing.assert_allclose(read_picture(path).rgb[8::16, 8::16, 0] / 30, SHOWN[orientation], atol=0.1)


def test_nonsense_tags_are_ignored():
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for tags in (b"", b"II", exif(9), exif(0), b"II*\0" + b"\xff" * 20, exif(6)[:10]):
        assert exif_orientation(with_exif(data, tags)) == 1
    assert exif_orientation(b"\xff\xd8\xff\xe1\x00") == 1 and exif_orientation(b"") == 1


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("a.png", (37, 50, 3), np.uint8),
        ("b.png", (37, 50, 4), np.uint16),
        ("c.png", (37, 50), np.uint8),
        ("d.tif", (20, 31, 3), np.uint16),
        ("e.webp", (33, 40, 4), np.uint8),
    ],
)
def test_depth_alpha_and_grey_come_back(tmp_path, checkpoint, name, shape, dtype):
    """The near-identity generator changes pixels a little; size, depth, alpha and channels stay."""
    rng = np.random.default_rng(0)
    stored = (rng.random(shape) * np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "in dir é" / name
    path.parent.mkdir()
    path.write_bytes(
        cv2.imencode(path.suffix, stored, [cv2.IMWRITE_WEBP_QUALITY, 101] if path.suffix == ".webp" else [])[
            1
        ].tobytes()
    )
    result = invoke(
        "predict", path.parent, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    got = cv2.imdecode(np.frombuffer((tmp_path / "out" / name).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert got.dtype == dtype and got.shape == shape
    if len(shape) == 3 and shape[2] == 4:
        opaque = stored[..., 3] > 0
        np.testing.assert_array_equal(got[..., 3][opaque], stored[..., 3][opaque])
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / name], "no temporary file is left"


def test_colour_order_and_precision_through_an_identity(tmp_path):
    g = build_generator("mobilenet-dsc")
    start_near_identity(g, 0.0)
    for dtype in (np.uint8, np.uint16):
        rgb = (np.random.default_rng(1).random((40, 50, 3)) * np.iinfo(dtype).max).astype(dtype)
        np.testing.assert_array_equal(restore(g.eval(), rgb), rgb)
        write_picture(tmp_path / "x.png", Picture(rgb, None, False))
        np.testing.assert_array_equal(read_picture(tmp_path / "x.png").rgb, rgb)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (64, 64)])
def test_tiny_images(generator, size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert restore(generator, rgb).shape == rgb.shape


def test_tiles_equal_the_whole(generator):
    """With tracked statistics a pixel's answer does not depend on what is far away: no seams."""
    rgb = scene(4, 300, 420)[0]
    whole, tiled = restore(generator, rgb).astype(int), restore(generator, rgb, tile=256).astype(int)
    assert np.abs(whole - tiled).max() <= 3 and np.abs(whole - tiled).mean() < 0.05
    assert not np.array_equal(restore(generator, rgb), rgb)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"),
    [(100, 128, 32), (128, 128, 32), (129, 128, 32), (1000, 256, 64), (224, 128, 32)],
)
def test_tiles_cover_with_their_overlap(length, tile, overlap):
    starts = _starts(length, tile, overlap)
    assert starts[0] == 0 and (starts[-1] + tile == length or length <= tile)
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    assert len(set(starts)) == len(starts)


def test_auto_tile_leaves_720p_whole():
    assert auto_tile(720, 1280, torch.device("cpu")) is None
    assert auto_tile(20000, 100, torch.device("cpu")) is None
    side = auto_tile(6000, 8000, torch.device("cpu"))
    assert side is not None and side % 32 == 0


def test_a_bad_image_is_named_and_the_others_are_done(tmp_path, checkpoint):
    folder = tmp_path / "in"
    folder.mkdir()
    good = cv2.imencode(".png", scene(0)[0])[1].tobytes()
    (folder / "good.png").write_bytes(good)
    (folder / "text.png").write_text("hello")
    (folder / "cut.jpg").write_bytes(cv2.imencode(".jpg", scene(0)[0])[1].tobytes()[:100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "gif.png").write_bytes(b"GIF89a" + bytes(50))
    result = invoke(
        "predict", folder, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "4 of 5 images failed" in result.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"good.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{t}/missing.png"], 1, "no such file"),
        (["{t}/empty"], 1, "no image in this folder"),
        (["{t}/a.png", "--tile", "3"], 2, "at least 128"),
        (["{t}/a.png", "--out", "{t}"], 1, "would overwrite it"),
        (["{t}/a.png", "{t}/a.png"], 1, "two inputs would be written here"),
        (["{t}/a.png", "--checkpoint", "{t}/a.png"], 1, "neither a safetensors"),
        ([], 2, "INPUT"),
    ],
)
def test_predict_mistakes_end_in_one_line(tmp_path, checkpoint, arguments, code, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", scene(0)[0])[1].tobytes())
    given = [a.format(t=tmp_path) for a in arguments]
    given += [] if "--out" in given else ["--out", str(tmp_path / "out")]
    given += [] if "--checkpoint" in given else ["--checkpoint", str(checkpoint)]
    result = invoke("predict", *given)
    assert result.exit_code == code and words in result.output.replace("\n", " "), result.output
    assert isinstance(result.exception, SystemExit)


def test_eval_on_shards_and_folders_agree(tmp_path, checkpoint):
    data = make_data(tmp_path / "d", shards=1, samples=1, val=3)
    for role, k in (("blur", 0), ("sharp", 1)):
        (tmp_path / role).mkdir()
        for i in range(3):
            (tmp_path / role / f"v-{i}.png").write_bytes(
                cv2.imencode(".png", scene(100 + i)[k][..., ::-1])[1].tobytes()
            )
    common = ["--checkpoint", checkpoint, "--device", "cpu"]
    a = invoke("eval", *common, "--shards", data, "--json", tmp_path / "a.json")
    b = invoke(
        "eval",
        *common,
        "--blur",
        tmp_path / "blur",
        "--sharp",
        tmp_path / "sharp",
        "--json",
        tmp_path / "b.json",
    )
    assert a.exit_code == b.exit_code == 0, a.output + b.output
    x, y = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
    assert x["per_image"] == y["per_image"] and len(x["per_image"]) == 3
    for row in x["per_image"]:
        assert row["psnr_delta"] == pytest.approx(row["psnr"] - row["psnr_blurred"], abs=1e-5)
        assert row["psnr_blurred"] < 40 and 0 < row["edge_retention_blurred"] <= 1
    assert "blurred" in a.output and "PSNR, dB" in a.output
    csv = (tmp_path / "a.csv").read_text().splitlines()
    assert csv[0].startswith("name,psnr,psnr_blurred,psnr_delta") and len(csv) == 4
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (26 + 3 * (24 + 360), 3 * 480, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--shards", "{t}/none"], 1, "no such folder"),
        (["--shards", "{t}/d"], 1, "no usable val sample"),
        (["--blur", "{t}"], 2, "give either"),
        ([], 2, "give either"),
        (["--blur", "{t}/d", "--sharp", "{t}/d"], 1, "no two images of the same name"),
        (["--shards", "{t}/d", "--split", "train", "--lpips"], 1, "blursynth[lpips]"),
    ],
)
def test_eval_mistakes_end_in_one_line(tmp_path, checkpoint, monkeypatch, arguments, code, words):
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    make_data(tmp_path / "d", shards=1, samples=1, val=0)
    result = invoke("eval", "--checkpoint", checkpoint, *[a.format(t=tmp_path) for a in arguments])
    assert result.exit_code == code and words in result.output.replace("\n", " "), result.output
    assert isinstance(result.exception, SystemExit)
