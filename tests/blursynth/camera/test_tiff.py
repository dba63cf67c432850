"""TIFF files: their colours arrive as they are stored, or the file is named; never other colours."""

import struct

import cv2
import numpy as np
import pytest

from blursynth.camera.tiff import for_opencv, unread_kind
from blursynth.exchange.members import decode_any
from blursynth.exchange.pack import pack
from blursynth.video.clip import ClipError, probe_clip, probe_still
from blursynth.video.stills import photo_size, read_photo, read_still
from deblur_train.media.pictures import ImageError, read_picture

HEIGHT, WIDTH = 6, 16
CODES = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)


def tiff(codes, photometric=2, apart=False, extra=None, order="<", big=False, tile=None, short=3):
    """An uncompressed TIFF or BigTIFF of (H, W, C) uint8 or uint16 codes; ``short`` is the kind of its short numbers."""
    h, w, samples = codes.shape
    if tile:
        assert h <= tile and w <= tile
        padded = np.zeros((tile, tile, samples), codes.dtype)
        padded[:h, :w] = codes
        codes = padded
    planes = [codes[..., c] for c in range(samples)] if apart else [codes]
    data = [np.ascontiguousarray(p).astype(p.dtype.newbyteorder(order)).tobytes() for p in planes]
    tags = {
        256: (4, [w]), 257: (4, [h]), 258: (short, [8 * codes.itemsize] * samples), 259: (short, [1]),
        262: (short, [photometric]), 277: (short, [samples]), 284: (short, [2 if apart else 1]),
    }  # fmt: skip
    if tile:
        tags |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, [0]), 325: (4, [len(data[0])])}
    else:
        tags |= {273: (4, [0] * len(data)), 278: (4, [h]), 279: (4, [len(d) for d in data])}
    if extra is not None:
        tags[338] = (short, [extra])
    word, number, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    head = 16 if big else 8
    start = head + struct.calcsize(f"={number}") + len(tags) * (20 if big else 12) + room
    lists, at = b"", start
    places = {}
    for tag, (kind, values) in tags.items():
        size = len(values) * (2 if kind == 3 else 4)
        if size > room:
            places[tag], at = at, at + size
    first = at
    tags[324 if tile else 273] = (4, [first + sum(map(len, data[:i])) for i in range(len(data))])
    rows = b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        rows += struct.pack(f"{order}HH{word}", tag, kind, len(values))
        rows += struct.pack(f"{order}{word}", places[tag]) if tag in places else packed.ljust(room, b"\0")
    for tag in places:
        kind, values = tags[tag]
        lists += struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    begin = struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    return (
        magic + begin + struct.pack(order + number, len(tags)) + rows + bytes(room) + lists + b"".join(data)
    )


def is_named(path):
    with pytest.raises(ImageError, match="TIFF"):
        read_picture(path)
    return read_still(path) is read_photo(path) is photo_size(path) is decode_any(path.read_bytes()) is None


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("what", ["rgb16", "rgb8", "apart8", "grey16", "white_is_0_in_8", "tiled16"])
def test_colours_arrive_as_they_are_stored(tmp_path, what, order, big):
    eight = (CODES >> 8).astype(np.uint8)
    data, want = {
        "rgb16": (tiff(CODES[..., :3], order=order, big=big), CODES[..., :3]),
        "rgb8": (tiff(eight[..., :3], order=order, big=big), eight[..., :3]),
        "apart8": (tiff(eight[..., :3], apart=True, order=order, big=big), eight[..., :3]),
        "grey16": (tiff(CODES[..., :1], 1, order=order, big=big), CODES[..., [0, 0, 0]]),
        "white_is_0_in_8": (tiff(255 - eight[..., :1], 0, order=order, big=big), eight[..., [0, 0, 0]]),
        "tiled16": (tiff(CODES[..., :3], tile=16, order=order, big=big), CODES[..., :3]),
    }[what]
    path = tmp_path / "x.tif"
    path.write_bytes(data)
    assert np.array_equal(read_photo(path), want) and photo_size(path) == (WIDTH, HEIGHT)
    assert np.array_equal(decode_any(data), want)
    assert np.array_equal(read_still(path), want if want.dtype == np.uint8 else np.rint(want / 257))


@pytest.mark.parametrize("short", [3, 4])  # libtiff takes 32 bits where the standard says 16
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_what_opencv_decodes_to_other_colours_is_named(tmp_path, order, big, short):
    path = tmp_path / "x.tif"
    for data in (
        tiff(CODES[..., :3], apart=True, order=order, big=big, short=short),
        tiff(CODES[..., :1], photometric=0, order=order, big=big, short=short),
        tiff(CODES[..., :3], photometric=8, order=order, big=big, short=short),
        tiff((CODES[..., :3] >> 8).astype(np.uint8), photometric=8, order=order, big=big, short=short),
    ):
        path.write_bytes(data)
        assert is_named(path)


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("short", [3, 4])
def test_colours_under_alpha_stay(tmp_path, short, depth, extra):
    codes = (CODES >> (8 if depth == np.uint8 else 0)).astype(depth)
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(codes, extra=extra, short=short))
    assert np.array_equal(read_photo(path), codes[..., :3])


def test_other_files_and_cut_ones_are_left_to_the_decoder():
    data = tiff(CODES[..., :3])
    for part in (b"", b"\xff\xd8\xff", *(data[:n] for n in range(0, 120, 7))):
        assert for_opencv(part) == part
    beyond = 1 << 63  # more than any file has
    entry = struct.pack("<HHQQ", 258, 3, 5, beyond)
    for at, entries in ((beyond, b""), (16, struct.pack("<Q", 1) + entry)):
        part = b"II+\0" + struct.pack("<HHQ", 8, 0, at) + entries + bytes(40)
        assert for_opencv(part) == part and unread_kind(part) is None


@pytest.mark.parametrize("depth", [np.float32, np.float64])
def test_a_float_tiff_is_called_that_with_what_to_do(tmp_path, depth):
    blur, sharp = tmp_path / "blur", tmp_path / "sharp"
    for n, folder in enumerate((blur, sharp)):
        folder.mkdir()
        for i in range(3):
            light = np.random.default_rng((n, i)).random((24, 32, 3)).astype(depth)
            assert cv2.imwrite(str(folder / f"{i}.tif"), light)
    report = pack(None, tmp_path / "packed", blur=blur, sharp=sharp)
    assert report.exit_code == 1 and len(report.failed) == 3
    for line in report.failed:
        assert "is a float TIFF; convert it to RGB of 8 or 16 bits" in line and "transparency" not in line
    with pytest.raises(ClipError, match=r"0\.tif, a float TIFF; convert its frames to EXR"):
        probe_clip(blur, 240)
    with pytest.raises(ClipError, match="is a float TIFF; convert it to RGB of 8 or 16 bits"):
        probe_still(blur / "0.tif")
    assert unread_kind(tiff(CODES[..., :3])) is None and unread_kind(b"no TIFF") is None
