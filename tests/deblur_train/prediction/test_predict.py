import itertools
import json
import os
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from blursynth.common.errors import UserError
from deblur_train import build_generator, evaluate, load_generator, predict
from deblur_train.cli.main import main
from deblur_train.inference import memory
from deblur_train.inference.memory import auto_tile, free_memory
from deblur_train.inference.restorer import Restorer
from deblur_train.inference.runtimes import Runner, torch_runner
from deblur_train.inference.signature import Signature
from deblur_train.inference.tiles import Seams, _ramp, _starts, restore
from deblur_train.media.metadata import embed, exif_orientation, read_metadata
from deblur_train.media.pictures import ImageError, Picture, read_picture, upright, write_picture
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator
from deblur_train.models.nafnet import NAFNetShape
from deblur_train.models.norm import set_norm_stats
from tests.helpers.train_shards import make_data, scene


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


@pytest.mark.parametrize(("size", "tile"), [((512, 768), 384), ((500, 333), 256), ((130, 900), 300)])
def test_tiles_equal_the_whole(generator, size, tile):
    """With tracked statistics a pixel's answer does not depend on what is far away: at most 1 code between tiles and
    whole, everywhere, and tiles agree where they overlap."""
    rgb, seams = scene(4, *size)[0], Seams()
    whole, tiled = restore(generator, rgb).astype(int), restore(generator, rgb, tile, seams).astype(int)
    assert np.abs(whole - tiled).max() <= 1 and (whole != tiled).mean() < 0.01
    assert np.abs(whole - rgb).max() > 1, "it does restore"
    assert seams.pixels > 0 and seams.mean < 0.1


def test_tiles_of_image_statistics_differ_and_say_so(tmp_path, checkpoint, generator):
    """Statistics of the image at hand are each tile's own: the difference is measured, and the command warns of it."""
    left, right = scene(4, 300, 300)[0], np.full((300, 300, 3), 128, np.uint8)
    rgb, seams = np.hstack([left, right]), Seams()
    set_norm_stats(generator, "image")
    whole = restore(generator, rgb).astype(int)
    tiled = restore(generator, rgb, 256, seams).astype(int)
    set_norm_stats(generator, "tracked")
    assert seams.mean > 1.5 and seams.worst >= seams.mean and np.abs(whole - tiled).max() > 3
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", rgb)[1].tobytes())
    common = ["predict", tmp_path / "a.png", "--checkpoint", checkpoint, "--device", "cpu", "--tile", "256"]
    result = invoke(*common, "--out", tmp_path / "o", "--norm-stats", "image")
    assert result.exit_code == 0 and "where they overlap" in result.output, result.output
    result = invoke(*common, "--out", tmp_path / "p")
    assert result.exit_code == 0 and "warning" not in result.output


@pytest.mark.parametrize(
    ("length", "tile", "overlap"),
    [(96, 128, 32), (128, 128, 32), (160, 128, 64), (992, 256, 64), (224, 128, 32), (1024, 512, 256)],
)
def test_tiles_cover_with_their_overlap(length, tile, overlap):
    """Every pixel has weight, tiles lie on the pyramid's grid, and one ends where the image does."""
    starts = _starts(length, tile, overlap)
    assert starts[0] == 0 and (starts[-1] + tile == length or length <= tile)
    assert all(b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    assert len(set(starts)) == len(starts) and all(s % 32 == 0 for s in starts)
    weight = np.zeros(length)
    for s in starts:
        n = min(tile, length - s)
        weight[s : s + n] += _ramp(n, s == 0, s + n == length, overlap).numpy()
    assert weight.min() > 0.49


def test_pictures_of_one_size_are_tiled_alike(monkeypatch, generator):
    """Tiles have statistics of their own: the frames of a film must not flicker with the memory that is free."""
    set_norm_stats(generator, "image")
    restorer, rgb = Restorer(generator), scene(4, 300, 288)[0]
    set_norm_stats(generator, "tracked")
    found = []
    for free in (4 << 30, 0, 4 << 30):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        found.append(restorer(rgb))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    restorer(scene(4, 320, 288)[0])
    assert restorer.tiled == 0


def test_auto_tile_follows_free_memory(monkeypatch):
    """What fits goes whole; what does not is cut so that a tile fits; the real figure is told by the system."""
    cpu = torch.device("cpu")
    assert 64 << 20 < free_memory(cpu) < 1 << 46
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 << 30)
    assert auto_tile(720, 1280, "mobilenet", cpu) is None and auto_tile(12000, 100, "mobilenet", cpu) is None
    for backbone, cost in memory.BYTES_PER_PIXEL.items():
        side = auto_tile(6000, 8000, backbone, cpu)
        assert side % 32 == 0 and 0.5 < side * side * cost / (2 << 30) < 0.61
    wide, small = (auto_tile(6000, 8000, "nafnet", cpu, NAFNetShape(width=w, unshuffle=1)) for w in (64, 32))
    assert 1.3 < small / wide < 1.5, "twice the channels, half the pixels"
    shapes = [("mobilenet", None), ("mobilenet-dsc", None), ("nafnet", NAFNetShape())]
    for backbone, shape in shapes:  # rewritten for a CPU they take less, and so larger tiles
        assert auto_tile(6000, 8000, backbone, cpu, shape, True) > auto_tile(6000, 8000, backbone, cpu, shape)
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    assert auto_tile(720, 1280, "mobilenet", cpu) == 256, (
        "some way on, however little the system says is free"
    )


def profile(space: bytes = b"RGB ", size: int = 3144) -> bytes:
    return struct.pack(">I", size) + bytes(12) + space + bytes(range(256)) * (size // 256)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif"])
def test_profile_and_exif_come_back(tmp_path, checkpoint, extension):
    """The profile is the same bytes, the EXIF block says upright and has no thumbnail of the blurred picture left."""
    pixels = cv2.cvtColor(scene(2, 48, 64)[0], cv2.COLOR_RGB2BGR)
    tags = struct.pack("<2sHIHHHIIHHIII", b"II", 42, 8, 2, 0x0112, 3, 1, 6, 0x010F, 2, 4, 0x41424300, 999)
    big = profile(size=90_000 if extension == ".jpg" else 3144)  # a JPEG's goes into more than one segment
    plain = cv2.imencode(extension, pixels, [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == ".webp" else [])[
        1
    ]
    path = tmp_path / f"a{extension}"
    path.write_bytes(embed(plain.tobytes(), tags, big))
    seen = read_metadata(path.read_bytes())
    assert seen.icc == big and (extension == ".tif" or seen.orientation == 6)
    result = invoke("predict", path, "--checkpoint", checkpoint, "--out", tmp_path / "o", "--device", "cpu")
    assert result.exit_code == 0, result.output
    data = (tmp_path / "o" / path.name).read_bytes()
    after = read_metadata(data)
    assert after.icc == big and after.orientation == 1
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got.shape == ((48, 64, 3) if extension == ".tif" else (64, 48, 3))
    if extension != ".tif":
        assert after.exif[:8] == tags[:8] and after.exif[10:18] == tags[10:18]
        assert struct.unpack_from("<H", after.exif, 18) == (1,) and after.exif[34:38] == bytes(4)


def test_other_readers_see_the_profile(tmp_path):
    """Pillow, where it is installed, agrees on what was written and keeps decoding the pixels."""
    image = pytest.importorskip("PIL.Image")
    rgb = scene(2, 40, 56)[0]
    for extension in (".jpg", ".png", ".webp", ".tif"):
        path = tmp_path / f"a{extension}"
        write_picture(path, Picture(rgb, None, False, exif(6), profile()))
        with image.open(path) as seen:
            seen.load()
            assert seen.info["icc_profile"] == profile() and seen.size == (56, 40)
            if extension != ".tif":
                assert seen.getexif()[0x0112] == 1
            if extension != ".jpg":
                np.testing.assert_array_equal(np.asarray(seen), rgb)


def cmyk_jpeg() -> bytes:
    """A grey 16 x 16 CMYK JPEG: a one-colour scan per component, written by hand from a grey one's tables."""
    image = pytest.importorskip("PIL.Image")
    import io

    out = io.BytesIO()
    image.new("CMYK", (64, 48), (10, 60, 120, 30)).save(out, "JPEG", icc_profile=profile(b"CMYK"))
    return out.getvalue()


def test_what_is_changed_or_left_out_is_said(tmp_path, checkpoint):
    """CMYK is converted; of pages and animations the first picture is taken; a profile of other channels is dropped."""
    folder = tmp_path / "in"
    folder.mkdir()
    frames = [scene(i, 40, 50)[0] for i in range(3)]
    (folder / "cmyk.jpg").write_bytes(cmyk_jpeg())
    assert cv2.imwritemulti(str(folder / "pages.tif"), frames)
    grey = cv2.imencode(".png", frames[0][..., 0])[1].tobytes()
    (folder / "grey.png").write_bytes(embed(grey, None, profile(b"RGB ")))
    (folder / "notes.txt").write_text("x")
    (folder / "anim.gif").write_bytes(b"GIF89a" + bytes(9))
    (folder / ".half.png.part").write_bytes(b"x")
    result = invoke("predict", folder, "--checkpoint", checkpoint, "--out", tmp_path / "o", "--device", "cpu")
    words = result.output.replace("\n", " ")
    assert result.exit_code == 0 and "3 images restored" in words, result.output
    assert "cmyk.jpg: CMYK converted to RGB without its profile" in words
    assert "pages.tif: first of several pictures" in words and "grey.png: colour profile left out" in words
    assert "left out 1 .gif: not supported; convert to PNG" in words
    assert "left out 1 .txt: neither image nor video" in words
    got = cv2.imread(str(tmp_path / "o" / "cmyk.jpg"))
    assert got.shape == (48, 64, 3) and read_metadata((tmp_path / "o" / "cmyk.jpg").read_bytes()).icc is None
    b, g, r = got[24, 32].astype(int)
    assert r > g > b, "cyan 10, magenta 60, yellow 120: a warm tone"
    result = invoke("predict", folder / "anim.gif", "--checkpoint", checkpoint, "--out", tmp_path / "p")
    assert result.exit_code == 1 and "GIF (256 colours) is not supported; convert it" in result.output


def test_globs_folders_and_side_by_side(tmp_path, checkpoint):
    """A quoted glob is expanded here and keeps its structure; results of an earlier run are no input; odd names work."""
    for name in ("a b/x.png", "a b/y.png", "c[1]/x.png", "out/old.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", scene(0, 32, 40)[0])[1].tobytes())
    common = ["--checkpoint", checkpoint, "--device", "cpu", "--side-by-side"]
    out = tmp_path / "in" / "out"
    result = invoke("predict", f"{tmp_path}/in/*/x.png", *common, "--out", out)
    assert result.exit_code == 0 and "2 images restored" in result.output, result.output
    blurred = cv2.imread(str(tmp_path / "in" / "a b" / "x.png"))
    both = cv2.imread(str(out / "a b" / "x.png"))
    assert both.shape == (32, 80, 3) and (out / "c[1]" / "x.png").exists()
    np.testing.assert_array_equal(both[:, :40], blurred)
    result = invoke("predict", tmp_path / "in", *common, "--out", out)
    assert result.exit_code == 0 and "3 images restored" in result.output, result.output
    result = invoke("predict", f"{tmp_path}/in/*.jpg", *common, "--out", out)
    assert result.exit_code == 1 and "no image or video matches" in result.output


def test_thin_and_single_pixels(tmp_path, checkpoint):
    for name, shape in (("one.png", (1, 1, 3)), ("thin.png", (20000, 8, 3)), ("wide.jpg", (100, 3000, 3))):
        (tmp_path / name).write_bytes(cv2.imencode(name[-4:], np.full(shape, 99, np.uint8))[1].tobytes())
    result = invoke(
        "predict", f"{tmp_path}/*.???", "--checkpoint", checkpoint, "--out", tmp_path / "o", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert cv2.imread(str(tmp_path / "o" / "one.png")).shape == (1, 1, 3)
    assert cv2.imread(str(tmp_path / "o" / "thin.png")).shape == (20000, 8, 3)


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


def test_checkpoints_of_others_and_with_code_are_refused(tmp_path):
    """Nothing in a pickle is run, and nothing is written."""
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", scene(0)[0])[1].tobytes())
    trap = tmp_path / "trapped"
    torch.save({"model": {"x": Trap(str(trap))}}, tmp_path / "code.pt")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "cut.safetensors").write_bytes(b'\x08\0\0\0\0\0\0\0{"a"')
    for name, words in (
        ("code.pt", "could run code; refused"),
        ("other.pt", "neither a DeblurGAN-v2 generator"),
    ):
        result = invoke(
            "predict", tmp_path / "a.png", "--checkpoint", tmp_path / name, "--out", tmp_path / "o"
        )
        assert result.exit_code == 1 and words in result.output.replace("\n", " "), result.output
        assert isinstance(result.exception, SystemExit)
    result = invoke(
        "predict", tmp_path / "a.png", "--checkpoint", tmp_path / "cut.safetensors", "--out", tmp_path / "o"
    )
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert not trap.exists() and not (tmp_path / "o").exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
@pytest.mark.parametrize("to", ["gone.png", "b.png"])
def test_a_link_that_leads_nowhere_fails_by_name(tmp_path, checkpoint, to):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), scene(0)[0])
    (tmp_path / "in" / "b.png").symlink_to(to)
    (tmp_path / "out").mkdir()
    cv2.imwrite(str(tmp_path / "out" / "b.png"), scene(0)[0])  # of an earlier run
    for given in (tmp_path / "in", tmp_path / "in" / "*.png"):
        done = invoke("predict", given, "--checkpoint", checkpoint, "--out", tmp_path / "out")
        assert done.exit_code == 1 and "1 failed of 2 inputs" in done.output, done.output
        assert "b.png: cannot be read: " in " ".join(done.output.split())


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
    assert "4 failed of 5 inputs" in result.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"good.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{t}/missing.png"], 1, "no such file"),
        (["{t}/empty"], 1, "no image or video in this folder"),
        (["{t}/a.png", "--tile", "3"], 2, "at least 128"),
        (["{t}/a.png", "--temporal", "2"], 2, "must be odd"),
        (["{t}/a.png", "--out", "{t}/a.png"], 1, "would overwrite it"),
        (["{t}/a.png", "--out", "{t}/a.png/x"], 1, "cannot be made a folder"),
        (["{t}/a.png", "--out", "/proc/x"], 1, "cannot be made a folder"),
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
        (["--blur", "{t}"], 2, "what to measure on"),
        ([], 2, "what to measure on"),
        (["--blur", "{t}/d", "--sharp", "{t}/d"], 1, "both the blurred and the sharp side"),
        (["--shards", "{t}/d", "--split", "train", "--lpips"], 1, "[lpips]"),
        # Known before anything is measured: what was measured would be lost.
        (["--shards", "{t}/none", "--json", "{t}"], 2, "is a folder; give the name of a file"),
        (["--shards", "{t}/none", "--json", "."], 2, "is a folder; give the name of a file"),
        (["--shards", "{t}/none", "--json", "{t}/a.json"], 2, "a.png beside it is no report's"),
        (["--shards", "{t}/none", "--json", "{t}/sink"], 2, "sink: cannot be written there: is a device"),
        (["--shards", "{t}/none", "--json", "{t}/d/train-000000.tar/x.json"], 2, "x.json: cannot be written"),
    ],
)
def test_eval_mistakes_end_in_one_line(tmp_path, checkpoint, monkeypatch, arguments, code, words):
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    make_data(tmp_path / "d", shards=1, samples=1, val=0)
    (tmp_path / "a.png").write_bytes(b"mine")
    (tmp_path / "sink").symlink_to(os.devnull)
    result = invoke("eval", "--checkpoint", checkpoint, *[a.format(t=tmp_path) for a in arguments])
    assert result.exit_code == code and words in result.output.replace("\n", " "), result.output
    assert isinstance(result.exception, SystemExit)


def test_an_exported_runner_restores_as_its_checkpoint_does(generator):
    """What `--checkpoint model.onnx` takes: another runtime behind the same function, tiles included."""
    rgb = scene(3, 160, 200)[0]
    through = Restorer(torch_runner(generator), tile=128)
    np.testing.assert_array_equal(through(rgb), Restorer(generator, tile=128)(rgb))
    assert through.tiled == 1 and not through.warning()


def fixed_size(generator, side=(128, 128), **info) -> Runner:
    """As a file exported with --height and --width, or as tflite, is."""
    runner = torch_runner(generator)
    return replace(runner, signature=Signature(size=side), info=runner.info | info)


def test_a_file_of_one_size_restores_what_it_can_and_names_the_rest(tmp_path, generator, monkeypatch):
    """Larger pictures go through in tiles of its size; a smaller one fails alone, in eval as in predict."""
    monkeypatch.setattr(
        "deblur_train.inference.restorer.open_exported", lambda _: fixed_size(generator, norm_stats="image")
    )
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
        for name, size in (("a", (90, 160)), ("b", (128, 128)), ("c", (200, 300))):
            cv2.imwrite(str(tmp_path / side / f"{name}.png"), scene(5, *size)[side == "sharp"][..., ::-1])
    done = invoke("predict", tmp_path / "blur", "--checkpoint", "x.onnx", "--out", tmp_path / "out")
    words = " ".join(done.output.split())
    assert done.exit_code == 1 and "1 failed of 3 inputs" in words, done.output
    assert "a.png: 90 x 160 pixels: the exported file takes 128 x 128 pixels only" in words
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"b.png", "c.png"}
    rgb = scene(5, 200, 300)[0]
    whole = Restorer(torch_runner(generator), tile=128)(rgb)
    assert np.array_equal(read_picture(tmp_path / "out" / "c.png").rgb, whole)
    pairs = ("--blur", tmp_path / "blur", "--sharp", tmp_path / "sharp", "--json", tmp_path / "e.json")
    done = invoke("eval", "--checkpoint", "x.onnx", *pairs)
    assert done.exit_code == 1 and "2 images, norm statistics: image" in done.output, done.output
    held = json.loads((tmp_path / "e.json").read_text())
    assert held["norm_stats"] == "image" and [r["name"] for r in held["per_image"]] == ["b", "c"]
    done = invoke("eval", "--checkpoint", "x.onnx", *pairs, "--norm-stats", "local")
    assert done.exit_code == 1 and "its norm statistics are image since its export" in done.output


def test_a_result_that_is_not_finite_fails_its_file(tmp_path):
    """Finite weights so large that the network overflows: no black picture, exit 1, the file is named."""
    g = build_generator("mobilenet-dsc")
    state = {k: v * 1e38 if k.startswith(("smooth.0", "smooth2.0")) else v for k, v in g.state_dict().items()}
    save_generator(tmp_path / "g.safetensors", "mobilenet-dsc", state)
    cv2.imwrite(str(tmp_path / "a.png"), scene(0)[0])
    common = [
        "--checkpoint",
        str(tmp_path / "g.safetensors"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "a.png"), *common])
    words = " ".join(result.output.split())
    assert result.exit_code == 1 and "a.png: the network gave values that are not finite" in words, (
        result.output
    )
    assert not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"norm_stats": "Tracked"}, "norm_stats: must be one of tracked, image, local, not 'Tracked'"),
        ({"device": "gpu"}, "device: must be auto, cpu or cuda, not 'gpu'"),
        ({"device": "meta"}, "device: must be auto, cpu or cuda, not 'meta'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"tile": "big"}, "tile: must be 'auto', 'off' or a number"),
        ({"tile": 8}, "of at least 128, not 8"),
    ],
)
def test_a_misspelt_setting_is_refused_from_python_too(tmp_path, checkpoint, setting, words):
    """Taken for another one it would give other pictures, and other figures, without a word."""
    make_data(tmp_path / "d", shards=0, val=1)
    cv2.imwrite(str(tmp_path / "a.png"), scene(0)[0])
    out = {"out": tmp_path / "out", "console": Console(quiet=True)}
    with pytest.raises(UserError, match=words):
        predict(tmp_path / "a.png", checkpoint, **out, **setting)
    with pytest.raises(UserError, match=words):
        evaluate(shards=tmp_path / "d", checkpoint=checkpoint, **setting)
    if "norm_stats" in setting:
        with pytest.raises(UserError, match=words):
            load_generator(checkpoint, **setting)


def test_settings_that_are_named_in_the_docstring_work_from_python(tmp_path, checkpoint):
    make_data(tmp_path / "d", shards=0, val=2)
    cv2.imwrite(str(tmp_path / "a.png"), scene(0)[0])
    out = {"out": tmp_path / "out", "console": Console(quiet=True)}
    assert predict(tmp_path / "a.png", checkpoint, tile="off", device="auto", **out).images == 1
    with pytest.raises(ImageError, match="no input"):
        predict([], checkpoint, **out)
    for limit in (0, -1):
        with pytest.raises(UserError, match="limit: must be at least 1"):
            evaluate(shards=tmp_path / "d", checkpoint=checkpoint, limit=limit)
