"""Single pictures: upright, in all their bits, and soft ones known."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from blursynth.shards.picture import to_8_bits
from blursynth.video.clip import ClipError, probe_still, read_frames
from blursynth.video.sharpness import SOFT, steepness
from blursynth.video.stills import photo_size, read_photo
from tests.helpers.films import texture


def turned_jpeg(path, rgb, orientation):
    """A JPEG whose EXIF says how to turn it."""
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_picture_stands_upright(tmp_path, orientation, turns):
    rgb = texture((96, 40), grain=16)
    turned_jpeg(tmp_path / "p.jpg", rgb, orientation)
    got, want = read_photo(tmp_path / "p.jpg"), np.rot90(rgb, turns)
    assert got.shape == want.shape and np.abs(got.astype(int) - want).mean() < 3
    assert photo_size(tmp_path / "p.jpg") == want.shape[1::-1]


@pytest.mark.parametrize("name", ["p.png", "p.tif"])
def test_sixteen_bits_stay_sixteen(tmp_path, name):
    codes = np.random.default_rng(0).integers(0, 65536, (24, 36, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), codes[..., ::-1])
    assert np.array_equal(read_photo(tmp_path / name), codes)
    assert photo_size(tmp_path / name) == (36, 24)
    info = probe_still(tmp_path / name)
    (frame,) = read_frames(info, 0, 0)
    assert (info.kind, info.frames) == ("still", 1) and np.array_equal(frame.rgb, codes)
    assert np.array_equal(to_8_bits(codes), np.rint(codes / 257).astype(np.uint8))


def test_grey_becomes_rgb_and_alpha_is_dropped(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), rgba)
    cv2.imwrite(str(tmp_path / "g.png"), rgba[..., 0])
    assert np.array_equal(read_photo(tmp_path / "a.png"), rgba[..., 2::-1])
    assert np.array_equal(read_photo(tmp_path / "g.png"), np.repeat(rgba[..., :1], 3, 2))


def test_what_is_no_whole_picture_is_named(tmp_path):
    whole = cv2.imencode(".jpg", texture((200, 200)))[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    assert read_photo(tmp_path / "cut.jpg") is None
    (frame,) = read_frames(probe_still(tmp_path / "cut.jpg"), 0, 0)
    assert frame.rgb is None and frame.fault == "unreadable"
    for name in ("text.jpg", "gone.jpg"):
        with pytest.raises(ClipError, match=name):
            probe_still(tmp_path / name)


def test_a_blurred_picture_is_soft_and_a_sharp_one_is_not():
    rng = np.random.default_rng(0)
    sharp = np.repeat(np.repeat(rng.integers(0, 256, (30, 40, 3)), 7, 0), 7, 1).astype(np.uint8)
    assert steepness(sharp) > 0.8
    assert steepness(cv2.GaussianBlur(sharp, (0, 0), 2.5)) < SOFT
    assert steepness(cv2.blur(sharp, (15, 1))) < SOFT
    assert steepness(np.full((50, 50, 3), 128, np.uint8)) < SOFT
