"""PNGs of ours are read by others to the same pixels, and ours reads nothing that a careful reader would refuse."""

import hashlib
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

import blursynth.png.chunks
from blursynth.png import reader, writer
from blursynth.png.chunks import SIGNATURE, chunk, is_plain
from blursynth.png.deflate import BLOCK, deflate
from blursynth.png.reader import read_rgb
from blursynth.png.writer import write
from blursynth.shards.picture import picture_fault

FILTERS = {"none": 8, "sub": 16, "up": 32, "avg": 64, "paeth": 128, "by row": 248}  # libpng's flags


def photo(height: int, width: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    """Smooth, with edges and a little noise."""
    rng = np.random.default_rng(seed)
    most = np.iinfo(dtype).max
    small = rng.integers(0, most, (2 + height // 16, 2 + width // 16, 3)).astype(np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, 3)
    return np.clip(large + rng.normal(0, most / 100, large.shape), 0, most).astype(dtype)


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    spots = np.full((70, 90, 3), 200, np.uint8)
    spots[rng.random((70, 90)) < 0.01] = 7
    return {
        "photo": photo(97, 211),
        "more than one block": photo(300, 401),
        "a whole number of blocks": photo(256, 341)[:, :, ::-1],  # 256 x 1024 bytes
        "noise": rng.integers(0, 256, (64, 64, 3), np.uint8),
        "black": np.zeros((300, 400, 3), np.uint8),
        "white": np.full((50, 60, 3), 255, np.uint8),
        "spots": spots,
        "a letterbox": np.pad(photo(60, 300), ((60, 61), (0, 0), (0, 0))),
        "one pixel": np.array([[[1, 2, 3]]], np.uint8),
        "a column": photo(200, 1),
        "a row": photo(1, 200),
        "deep": photo(61, 83, 2, np.uint16),
        "a view": photo(61, 83)[::-1, 5:60],
    }


def opencv(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("name", pictures())
def test_others_read_what_is_written(name):
    rgb = pictures()[name]
    data = write(rgb)
    there = opencv(data)
    assert there.dtype == rgb.dtype and np.array_equal(there, rgb)
    if rgb.dtype == np.uint8:
        assert np.array_equal(read_rgb(data), rgb)
    assert write(rgb.copy()) == data


def test_a_photo_is_no_larger_than_opencv_s_and_a_blank_picture_is_small():
    rgb = photo(360, 640)
    assert len(write(rgb)) <= len(cv2.imencode(".png", rgb[..., ::-1])[1])
    assert len(write(np.zeros((720, 1280, 3), np.uint8))) < 16_000


def test_the_bytes_are_the_same_on_every_machine():
    """Integers alone decide. Where this changes, shards made again have other bytes: say so in CHANGELOG."""
    y, x = np.mgrid[:120, :160]
    rgb = np.stack([(3 * x + 5 * y) % 256, (x * y) % 256, (x**2 + y) % 256], -1)
    assert hashlib.sha256(write(rgb.astype(np.uint8))).hexdigest()[:16] == "3da554a25081d9b2"


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)])  # fmt: skip
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="a PNG needs"):
        write(wrong)


def test_codes_are_no_longer_than_deflate_allows():
    """Symbols that occur as often as Fibonacci's numbers have codes as long as there are symbols."""
    often = [1, 1]
    while sum(often) < BLOCK:
        often.append(often[-1] + often[-2])
    data = np.repeat(np.arange(1, len(often), dtype=np.uint8), often[:-1])
    np.random.default_rng(0).shuffle(data)
    out = np.empty(2 * data.size, np.uint32)
    size = deflate(data, data[: data.size // 8 * 8].view(np.uint64), out)
    assert len(often) > 20
    assert zlib.decompress(out.tobytes()[:size], -15) == data.tobytes()


@pytest.mark.parametrize("kind", FILTERS)
def test_plain_files_of_others_are_read_to_the_same_pixels(kind):
    for size in ((97, 211), (1, 5), (5, 1)):
        rgb = photo(*size)
        ok, data = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_FILTER, FILTERS[kind]])
        assert ok and np.array_equal(read_rgb(data.tobytes()), rgb)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(b"".join(chunk(kind, content)) for kind, content in parts)


def test_chunks_that_say_nothing_are_passed_over_and_pixels_may_come_in_parts():
    rgb = photo(20, 30)
    head, (_, rows), end = chunks(write(rgb))
    text = (b"tEXt", b"Comment\0hello")
    data = joined([head, text, (b"IDAT", rows[:50]), (b"IDAT", b""), (b"IDAT", rows[50:]), text, end])
    assert np.array_equal(read_rgb(data), rgb) and np.array_equal(opencv(data), rgb)


@pytest.mark.parametrize(
    "name, parts",
    {
        "transparency": lambda head, rows, end: [head, (b"tRNS", bytes(6)), rows, end],
        "turned": lambda head, rows, end: [head, (b"eXIf", b"MM\0*"), rows, end],
        "animated": lambda head, rows, end: [head, (b"acTL", bytes(8)), rows, end],
        "something vital": lambda head, rows, end: [head, (b"ABCD", b""), rows, end],
        "two heads": lambda head, rows, end: [head, head, rows, end],
        "pixels in two places": lambda head, rows, end: [head, (b"IDAT", rows[1][:9]), (b"tEXt", b"a\0b"), (b"IDAT", rows[1][9:]), end],
        "no end": lambda head, rows, end: [head, rows],
        "no pixels": lambda head, rows, end: [head, end],
        "a cut stream": lambda head, rows, end: [head, (b"IDAT", rows[1][:-9]), end],
        "no checksum of the rows": lambda head, rows, end: [head, (b"IDAT", rows[1][:-4]), end],
        "a wrong one": lambda head, rows, end: [head, (b"IDAT", rows[1][:-1] + bytes([rows[1][-1] ^ 1])), end],
        "more after the rows": lambda head, rows, end: [head, (b"IDAT", rows[1] + b"x"), end],
        "a row too many": lambda head, rows, end: [head, (b"IDAT", zlib.compress(zlib.decompress(rows[1]) + bytes(91))), end],
        "a row too few": lambda head, rows, end: [head, (b"IDAT", zlib.compress(zlib.decompress(rows[1])[:-91])), end],
        "no such filter": lambda head, rows, end: [head, (b"IDAT", zlib.compress(b"\5" + zlib.decompress(rows[1])[1:])), end],
        "no width": lambda head, rows, end: [(b"IHDR", bytes(4) + head[1][4:]), rows, end],
        "too many pixels": lambda head, rows, end: [(b"IHDR", struct.pack(">II", 1 << 16, 1 << 16) + head[1][8:]), rows, end],
    }.items(),
)  # fmt: skip
def test_what_is_not_plain_or_not_sound_is_left_to_others(name, parts):
    assert read_rgb(joined(parts(*chunks(write(photo(20, 30)))))) is None, name


@pytest.mark.parametrize("make", [lambda rgb: rgb[..., 0], lambda rgb: rgb.astype(np.uint16) * 257, lambda rgb: np.dstack([rgb, rgb[..., :1]])])  # fmt: skip
def test_other_kinds_of_png_are_left_to_others(make):
    assert read_rgb(cv2.imencode(".png", make(photo(20, 30)))[1].tobytes()) is None


def test_no_damage_passes():
    """Any one byte changed, the file cut anywhere, anything behind its end."""
    data = write(photo(5, 7))
    for at in range(len(data)):
        assert read_rgb(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]) is None, at
        assert read_rgb(data[:at]) is None, at
    assert read_rgb(data + b"\0") is None


def test_empty_chunks_by_the_thousand_take_no_memory():
    head, rows, end = chunks(write(photo(5, 7)))
    data = joined([head, *[(b"IDAT", b"")] * 20_000, rows, end])
    for read in (read_rgb, is_plain, picture_fault):
        tracemalloc.start()
        try:
            read(data)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()
    assert np.array_equal(read_rgb(data), photo(5, 7)) and is_plain(data) and not picture_fault(data)


def test_a_file_without_pixels_is_not_plain():
    head, _, end = chunks(write(photo(5, 7)))
    assert not is_plain(joined([head, end]))


def test_the_standard_library_inflates_where_there_is_no_other(monkeypatch):
    rgb = photo(50, 70)
    data = write(rgb)
    for module in (blursynth.png.chunks, reader, writer):
        monkeypatch.setattr(module, "zlib", zlib)
    assert write(rgb) == data and np.array_equal(read_rgb(data), rgb)
    assert read_rgb(data[:-5] + b"x" + data[-4:]) is None
