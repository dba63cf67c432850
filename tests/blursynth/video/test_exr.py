"""EXR frames: all of their light arrives, in BT.709, and a file that is not whole is no frame."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from blursynth.camera.exr import is_whole_exr
from blursynth.camera.response import load_response
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from blursynth.video.clip import ClipError, probe_clip, read_as, read_frames
from blursynth.video.stills import read_light
from tests.helpers.exr import encode_exr, exr

HEIGHT, WIDTH = 40, 23
LIGHT = np.linspace(0.01, 40, HEIGHT * WIDTH * 3, dtype=np.float32).reshape(HEIGHT, WIDTH, 3)
AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)  # SMPTE ST 2065-1


def light_of(path, data):
    path.write_bytes(data)
    rgb, above = read_light(path)
    return load_response("srgb").decode(rgb, *([] if above is None else [above]))[..., :3]


def planes(light, dtype=np.float16):
    return {n: light[..., c].astype(dtype) for c, n in enumerate("RGB")}


@pytest.mark.parametrize("depth", ["half", "float"])
@pytest.mark.parametrize("kind", ["gbrpf32le", "gbrapf32le", "grayf32le"])
def test_light_above_white_arrives_whatever_the_channels_and_their_depth(tmp_path, kind, depth):
    alpha = np.full((HEIGHT, WIDTH, 1), 0.5, np.float32)
    stored = {"gbrpf32le": LIGHT, "gbrapf32le": np.dstack([LIGHT, alpha]), "grayf32le": LIGHT[..., 0].copy()}[
        kind
    ]
    want = np.repeat(LIGHT[..., :1], 3, axis=2) if kind == "grayf32le" else LIGHT
    got = light_of(tmp_path / "x.exr", encode_exr(stored, kind, depth))
    assert np.allclose(got, want, rtol=2e-3, atol=5e-3)


def test_grey_with_alpha_and_channels_that_are_no_colour(tmp_path):
    grey = {"Y": LIGHT[..., 0].astype(np.float16), "A": np.full((HEIGHT, WIDTH), 0.5, np.float16)}
    got = light_of(tmp_path / "ya.exr", exr(grey))
    assert np.allclose(got, LIGHT[..., :1], rtol=2e-3, atol=5e-3)
    got = light_of(tmp_path / "z.exr", exr(planes(LIGHT) | {"Z": np.ones((HEIGHT, WIDTH), np.float16)}))
    assert np.allclose(got, LIGHT, rtol=2e-3, atol=5e-3)


def test_infinite_light_is_bright_and_what_is_no_number_is_black(tmp_path):
    light = np.zeros((8, 8, 3), np.float32)
    light[...] = [np.inf, np.nan, -np.inf]
    assert light_of(tmp_path / "x.exr", exr(planes(light)))[0, 0] == pytest.approx([65504, 0, 0], rel=1e-3)
    named = (("chromaticities", "chromaticities", struct.pack("<8f", *AP0)),)
    for most in (np.inf, np.finfo(np.float32).max):
        white = planes(np.full((8, 8, 3), most, np.float32), np.float32)
        assert light_of(tmp_path / "y.exr", exr(white, named))[0, 0] == pytest.approx(65504, rel=0.01)


@pytest.mark.parametrize("compression", ["none", "rle", "zip1", "zip16"])
def test_a_file_that_is_not_whole_is_no_frame(tmp_path, compression):
    """FFmpeg leaves black what is missing or rotten."""
    data = encode_exr(LIGHT, compression=compression)
    path = tmp_path / "x.exr"
    path.write_bytes(data)
    assert read_light(path)[0] is not None
    broken = [data[: len(data) * k // 10] for k in range(10)] + [data[:-1]]
    middle = len(data) // 2
    if compression.startswith("zip"):
        broken += [data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]]
    for part in broken:
        path.write_bytes(part)
        assert read_light(path) == (None, None)


def test_primaries_that_the_file_names_are_converted(tmp_path):
    named = (("chromaticities", "chromaticities", struct.pack("<8f", *AP0)),)
    white = np.ones((8, 8, 3), np.float32)
    assert light_of(tmp_path / "w.exr", exr(planes(white, np.float32), named)) == pytest.approx(1, abs=0.01)
    # ACES2065-1 of linear BT.709 (0.5, 0.2, 0.1), by the matrix that OpenColorIO prints for it.
    aces = np.array([0.4396, 0.3830, 0.1774, 0.0898, 0.8134, 0.0968, 0.0175, 0.1115, 0.8710]).reshape(
        3, 3
    ) @ [0.5, 0.2, 0.1]
    light = np.broadcast_to(aces.astype(np.float32), (8, 8, 3))
    got = light_of(tmp_path / "a.exr", exr(planes(light, np.float32), named))
    assert got[0, 0] == pytest.approx([0.5, 0.2, 0.1], abs=4e-3)
    plain = light_of(tmp_path / "p.exr", exr(planes(light, np.float32)))
    assert plain[0, 0] == pytest.approx(aces, abs=4e-3)


def test_what_ffmpeg_decodes_as_something_else_is_no_frame(tmp_path):
    path = tmp_path / "x.exr"
    chroma = dict(zip(("Y", "RY", "BY"), planes(LIGHT).values(), strict=True))  # would come out grey
    for data in (exr(chroma), exr(planes(LIGHT), display_from=100)):  # and this one black
        path.write_bytes(data)
        assert read_light(path) == (None, None)


def zipped(data, rows):
    """A file of 8 rows with one zipped chunk of ``rows`` in place of its own."""
    packed = zlib.compress(rows, 9)
    at = data.index(b"compression\0compression\0") + 28
    table = len(data) - 8 * (8 + 8 * 6 + 8)
    chunk = struct.pack("<QiI", table + 8, 0, len(packed)) + packed
    return data[:at] + b"\3" + data[at + 1 : table] + chunk


def test_no_header_and_no_chunk_is_believed_beyond_what_the_file_holds(tmp_path):
    data = exr(planes(np.ones((8, 8, 3), np.float32)))
    sound, short, bomb = (zipped(data, bytes(n)) for n in (8 * 8 * 6, 8 * 8 * 6 - 1, 1 << 24))
    box = struct.pack("<4i", 0, 0, 7, 7)
    tall, huge = (data.replace(box, struct.pack("<4i", 0, 0, 7, n - 1)) for n in (1 << 20, 1 << 30))
    assert is_whole_exr(data) and is_whole_exr(sound)
    tracemalloc.start()
    for part in (short, bomb, tall, huge):
        assert not is_whole_exr(part)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    path = tmp_path / "x.exr"
    path.write_bytes(short)  # FFmpeg leaves such rows black
    assert read_light(path) == (None, None)


def test_frames_of_layers_are_refused_with_what_to_write(tmp_path):
    """Blender's "OpenEXR MultiLayer": FFmpeg reads plain channels only."""
    for i in range(3):
        layers = {f"View Layer.Combined.{n}": c for n, c in planes(LIGHT).items()}
        (tmp_path / f"{i}.exr").write_bytes(exr(layers))
    with pytest.raises(ClipError, match=r"channels R, G and B .* \(no layers\)"):
        probe_clip(tmp_path, 24)


def test_no_curve_of_hdr_applies_to_light_and_samples_say_so(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.exr").write_bytes(exr(planes(LIGHT)))
    recipe = Recipe(crf="pq", interp="dis")
    info, told = read_as(probe_clip(tmp_path, 24), recipe)
    assert info.transfer == "linear" and told == ["holds linear light, to which crf pq does not apply"]
    frames = list(read_frames(info, 0, 2))
    above = [f.above for f in frames]
    made = Synthesizer(recipe).sample(
        "x", [f.rgb for f in frames], 0, 24, np.random.default_rng(0), transfer=info.transfer, above=above
    )
    assert made.camera["crf"] == "linear"
