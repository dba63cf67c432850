from __future__ import annotations

import gc
import os
import pickle
import struct
import wave
import weakref
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import blursynth.video.film as video
from blursynth.video.clip import ClipError, decode_with, probe_clip, read_frames
from blursynth.video.packets import packet_index
from blursynth.video.reader import Reader
from blursynth.video.stills import read_still
from blursynth.video.takes import natural_key, order_frames
from tests.helpers.films import moving, packets, write_frames, write_picture, write_video


def read(info, first=0, last=None, fresh=False):
    if fresh:
        video._idle.clear()
    return list(read_frames(info, first, info.frames - 1 if last is None else last))


def same(a, b):
    return (
        a.fault == b.fault
        and (a.rgb is None) == (b.rgb is None)
        and (a.rgb is None or np.array_equal(a.rgb, b.rgb))
    )


CODECS = {
    "h264-open-gop": ("libx264", None, "a.mp4"),
    "h264-intra-refresh": (
        "libx264",
        {"x264-params": "keyint=12:intra-refresh=1:bframes=0:scenecut=0:threads=1"},
        "a.mp4",
    ),
    "h264-mkv": ("libx264", None, "a.mkv"),
    "h264-ts": ("libx264", None, "a.ts"),
    "hevc-open-gop": (
        "libx265",
        {
            "x265-params": "keyint=12:open-gop=1:bframes=3:scenecut=0:log-level=none:pools=none:frame-threads=1"
        },
        "a.mp4",
    ),
    "vp9-alt-ref": (
        "libvpx-vp9",
        {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
        "a.webm",
    ),
    "vp8-hidden-frames": (
        "libvpx",
        {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
        "a.webm",
    ),
    "mpeg4-avi": ("mpeg4", {"bf": "2", "g": "12"}, "a.avi"),
    "mjpeg": ("mjpeg", {}, "a.mov"),
}


@pytest.mark.parametrize("kind", CODECS)
def test_random_access_equals_sequential_reading_bit_for_bit(tmp_path, kind):
    codec, options, name = CODECS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    source = moving(60)
    pix = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, source, codec, options, pix_fmt=pix)
    info = probe_clip(path)
    assert (info.frames, info.width, info.height, info.fps) == (60, 256, 144, 30.0)
    whole = read(info, fresh=True)
    assert [f.index for f in whole] == list(range(60))
    assert not any(f.fault or f.broken for f in whole)
    for i, f in enumerate(whole):  # the index says which picture it is: no other source frame is as close
        errors = [np.abs(f.rgb.astype(int) - s).mean() for s in source[max(0, i - 2) : i + 3]]
        assert int(np.argmin(errors)) == min(i, 2)
        assert f.time_s == pytest.approx(i / 30, abs=1e-3)
    for first in range(60):
        for f in read(info, first, min(first + 1, 59), fresh=True):
            assert same(f, whole[f.index]), f.index


def test_a_run_that_goes_on_where_the_last_stopped_decodes_nothing_twice(open_gop_clip, monkeypatch):
    fed = []
    feed = Reader._feed
    monkeypatch.setattr(Reader, "_feed", lambda self: (fed.append(1), feed(self))[1])
    info = probe_clip(open_gop_clip)
    read(info, fresh=True)
    in_one_go = len(fed)
    fed.clear()
    video._idle.clear()
    for first in range(0, 60, 10):
        read(info, first, first + 9)
    assert len(fed) == in_one_go
    fed.clear()
    video._idle.clear()
    read(info, 55, 56)
    assert 0 < len(fed) < in_one_go / 1.5  # a deep start seeks


def test_an_abandoned_read_leaves_the_next_one_right(open_gop_clip):
    info = probe_clip(open_gop_clip)
    whole = read(info, fresh=True)
    one, two = read_frames(info, 10, 40), read_frames(info, 20, 50)
    for _ in range(5):
        assert same(next(one), whole[10 + _]) and same(next(two), whole[20 + _])
    one.close(), two.close()
    for first in (12, 26, 3, 55):
        assert all(same(f, whole[f.index]) for f in read(info, first, first + 3))


def test_memory_stays_flat(open_gop_clip):
    alive: list[weakref.ref] = []
    most = 0
    for f in read_frames(probe_clip(open_gop_clip), 0, 59):
        alive.append(weakref.ref(f.rgb))
        most = max(most, sum(r() is not None for r in alive))
    assert len(alive) == 60 and most <= 2


def test_decoded_frames_go_without_the_garbage_collector(open_gop_clip):
    """PyAV ties a frame whose side data was looked at into a circle; a long film would pile up in memory."""
    info = probe_clip(open_gop_clip)
    gc.collect()
    gc.disable()
    try:
        most = 0
        for _ in read_frames(info, 0, 59):
            most = max(most, sum(isinstance(o, av.VideoFrame) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert most < 20


def test_ranges_outside_the_clip_are_a_callers_error(open_gop_clip):
    info = probe_clip(open_gop_clip)
    for first, last in ((-1, 3), (0, 60), (5, 4)):
        with pytest.raises(ValueError, match=r"not within 0\.\.59"):
            list(read_frames(info, first, last))


def test_clip_info_travels(open_gop_clip):
    info = probe_clip(open_gop_clip)
    assert pickle.loads(pickle.dumps(info)) == info
    assert len(pickle.dumps(info)) < 1000


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_colour_follows_the_streams_matrix_and_range(tmp_path, matrix, full):
    y, u, v = 90, 100, 180
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as c:
        s = c.add_stream("ffv1", rate=25)
        s.width, s.height, s.pix_fmt = 64, 48, "yuv420p"
        s.codec_context.colorspace = {"bt709": 1, "smpte170m": 6}[matrix]
        s.codec_context.color_range = 2 if full else 1
        for _ in range(3):
            f = av.VideoFrame(64, 48, "yuv420p")
            for plane, value in zip(f.planes, (y, u, v)):
                plane.update(bytes([value]) * plane.buffer_size)
            c.mux(s.encode(f))
        c.mux(s.encode())
    kr, kb = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[matrix]  # ITU-R BT.709-6, BT.601-7
    luma, cb, cr = (
        (y / 255, (u - 128) / 255, (v - 128) / 255)
        if full
        else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    got = read(probe_clip(path))[1].rgb[24, 32]
    # libswscale's quick path rounds down at every step: up to 2 below the exact value.
    assert np.all(np.abs(got - 255 * np.array([red, green, blue])) < 2.5), got


def test_all_decoders_agree_on_a_whole_file(bikes):
    av_frames = read(probe_clip(bikes), 0, 79)
    cap = cv2.VideoCapture(str(bikes))
    for f in av_frames:
        ok, bgr = cap.read()
        assert ok and np.array_equal(bgr[..., ::-1], f.rgb), f.index
    pytest.importorskip("decord")
    info = decode_with(probe_clip(bikes), "decord")
    assert info.decoder == "decord"
    for a, b in zip(av_frames[30:], read(info, 30, 79), strict=True):
        assert a.index == b.index and np.array_equal(a.rgb, b.rgb)


MATRICES = {  # a b c d of ISO/IEC 14496-12 (x' = a x + c y, y' = b x + d y), and what it does to a picture
    "90": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "180": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "270": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside-down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "anti-transposed": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
}


def with_matrix(source, target, kind):
    """A copy of an mp4 file whose track has this display matrix."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version, times and ids, layer and volume; then the matrix
    a, b, c, d = (v << 16 for v in MATRICES[kind][0])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("kind", MATRICES)
def test_the_whole_display_matrix_is_applied(tmp_path, kind):
    path = write_video(tmp_path / "a.mp4", moving(6, (96, 64)))
    plain = read(probe_clip(path))
    turned = with_matrix(path, tmp_path / f"{kind}.mp4", kind)
    shown = MATRICES[kind][1]
    info = probe_clip(turned)
    assert (info.height, info.width) == shown(plain[0].rgb).shape[:2]
    for f, p in zip(read(info), plain, strict=True):
        assert np.array_equal(f.rgb, shown(p.rgb))


@pytest.mark.parametrize("kind", ["90", "mirrored"])
def test_a_matroska_files_projection_is_applied(tmp_path, kind):
    """It holds a turn as ProjectionPoseRoll and a mirror as ProjectionPoseYaw; FFmpeg makes a matrix of both."""
    path = write_video(tmp_path / "a.mp4", moving(6, (96, 64)))
    plain = read(probe_clip(path))
    turned = with_matrix(path, tmp_path / "turned.mp4", kind)
    target = tmp_path / "turned.mkv"
    with av.open(str(turned)) as a, av.open(str(target), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    for f, p in zip(read(probe_clip(target)), plain, strict=True):
        assert np.array_equal(f.rgb, MATRICES[kind][1](p.rgb))


# Damage


@pytest.mark.parametrize("target", ["keyframe", "middle", "last-group"])
def test_damaged_packets_poison_what_refers_to_them_and_nothing_else_is_lost(open_gop_clip, tmp_path, target):
    intact = read(probe_clip(open_gop_clip), fresh=True)
    all_packets = packets(open_gop_clip)
    keys = [n for n, p in enumerate(all_packets) if p[3]]
    n = {"keyframe": keys[2], "middle": keys[1] + 1, "last-group": keys[-1] + 1}[target]
    pos, size, pts, _ = all_packets[n]
    data = bytearray(open_gop_clip.read_bytes())
    data[pos + 5 : pos + size] = b"\xff" * (size - 5)  # the slice's own header and all behind it
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    info = probe_clip(path)
    frames = read(info, fresh=True)
    assert [f.index for f in frames] == list(range(60))
    faults = {f.index for f in frames if f.fault}
    hit = [int(p) for p in packet_index(str(path)).pts].index(pts)
    assert hit in faults and {frames[i].fault for i in faults} == {"decode"}
    for f in frames:
        assert f.rgb is None or np.array_equal(f.rgb, intact[f.index].rgb), f.index
    assert (
        len(faults) <= 2 * 12 + 3
    )  # one group and its neighbours' leading pictures, not the rest of the clip
    for first in range(0, 60, 7):
        assert all(same(f, frames[f.index]) for f in read(info, first, min(first + 3, 59), fresh=True))


def test_a_truncated_file_gives_what_it_has_and_names_the_rest(open_gop_clip, tmp_path):
    intact = read(probe_clip(open_gop_clip), fresh=True)
    data = open_gop_clip.read_bytes()
    path = tmp_path / "short.mp4"
    path.write_bytes(data[: int(len(data) * 0.6)])
    info = probe_clip(path)
    assert info.frames == 60
    frames = read(info, fresh=True)
    assert [f.index for f in frames] == list(range(60))
    good = [f.index for f in frames if f.rgb is not None]
    assert 15 < len(good) < 50 and good == list(range(len(good)))
    assert all(np.array_equal(frames[i].rgb, intact[i].rgb) for i in good)
    assert {f.fault for f in frames[len(good) :]} <= {"truncated", "decode"} and frames[
        -1
    ].fault == "truncated"


def test_a_file_without_its_index_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(20), faststart=False)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ClipError, match=r"a\.mp4: is not a readable video .*copy it again"):
        probe_clip(path)


def test_missing_frames_of_a_steady_film_are_gaps(tmp_path):
    shown = [i for i in range(40) if i not in (13, 27, 28)]
    path = write_video(tmp_path / "a.mp4", moving(37), pts=shown)
    info = probe_clip(path)
    frames = read(info)
    assert info.frames == 37
    assert [f.index for f in frames if f.broken == "gap"] == [13, 26]
    assert frames[13].time_s == pytest.approx(14 / 30, abs=1e-4)


def test_a_file_that_vanishes_gives_faults_not_errors(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(10))
    info = probe_clip(path)
    path.unlink()
    assert [f.fault for f in read(info)] == ["unreadable"] * 10


# What cannot be a clip


def test_clips_that_cannot_be_used_say_why(tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("this is not a film\n" * 50)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    bare = tmp_path / "bare.mp4"
    with av.open(str(bare), "w") as c:  # a header, a stream, no frame
        s = c.add_stream("libx264", rate=30)
        s.width, s.height, s.pix_fmt = 64, 48, "yuv420p"
        c.start_encoding()
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as w:
        w.setparams((1, 2, 8000, 0, "NONE", ""))
        w.writeframes(bytes(1600))
    nothing = tmp_path / "folder"
    nothing.mkdir()
    for path, wrong in {
        text: "not a readable video",
        empty: "file is empty",
        bare: "holds no|not a readable video",
        sound: "no video stream",
        nothing: "holds no PNG",
        tmp_path / "none.mp4": "no such file",
    }.items():
        with pytest.raises(ClipError, match=wrong) as e:
            probe_clip(path)
        assert str(path) in e.value.reason and "; " in e.value.reason and "\n" not in e.value.reason


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_a_file_without_permission_says_so(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(5))
    path.chmod(0)
    with pytest.raises(ClipError, match=r"cannot be opened .*permissions"):
        probe_clip(path)


def test_an_unreadable_file_says_so(tmp_path, monkeypatch):
    """The same without depending on who runs the test."""
    path = write_video(tmp_path / "a.mp4", moving(5))

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ClipError, match=r"cannot be opened \(Permission denied\); check its permissions"):
        probe_clip(path)


def test_a_one_frame_clip_is_a_clip_of_one_frame(tmp_path):
    info = probe_clip(write_video(tmp_path / "a.mp4", moving(1)))
    assert info.frames == 1 and len(read(info)) == 1


def test_fps_is_the_files_own_where_it_says_one(tmp_path, frame_folder):
    assert probe_clip(write_video(tmp_path / "a.mp4", moving(5)), fps=240).fps == 30
    assert probe_clip(frame_folder).fps is None
    info = probe_clip(frame_folder, fps=240)
    assert info.fps == 240 and read(info)[6].time_s == pytest.approx(6 / 240)


# Folders of frames


def test_frames_come_in_natural_order(tmp_path):
    source = moving(12, (96, 64))
    folder = write_frames(tmp_path / "bilder für später", source, "f{}.png", start=1)
    info = probe_clip(folder)
    assert (info.frames, info.width, info.height, info.decoder, info.kind) == (12, 96, 64, "image", "frames")
    for f, rgb in zip(read(info), source, strict=True):
        assert np.array_equal(f.rgb, rgb) and f.fault is None and not f.broken


def test_natural_order_of_names():
    assert sorted(["a10", "a2", "B1", "a1", "a03b"], key=natural_key) == ["a1", "a2", "a03b", "a10", "B1"]


def test_every_pixel_format_becomes_rgb_of_8_bits(tmp_path):
    rgb = moving(1, (32, 24))[0]
    bgr = rgb[..., ::-1]
    grey = bgr[..., 1]
    alpha = np.dstack([bgr, np.full(grey.shape, 7, np.uint8)])
    wide = bgr.astype(np.uint16) * 257
    for name, img, want in (
        ("grey.png", grey, np.dstack([grey] * 3)),
        ("rgba.png", alpha, rgb),
        ("wide.png", wide, rgb),
        ("wide.tiff", wide, rgb),
        ("wide-grey.png", wide[..., 0], np.dstack([bgr[..., 0]] * 3)),
        ("plain.bmp", bgr, rgb),
    ):
        got = read_still(write_picture(tmp_path / name, img))
        assert got.dtype == np.uint8 and np.array_equal(got, want), name
    for suffix in (".jpg", ".webp"):
        got = read_still(write_picture(tmp_path / f"lossy{suffix}", bgr))
        assert np.abs(got.astype(int) - rgb).mean() < 6


def test_16_bits_are_rounded_not_cut(tmp_path):
    img = np.array([[0, 128, 129, 257, 385, 386, 65534, 65535]], np.uint16).repeat(4, 0)
    got = read_still(write_picture(tmp_path / "a.png", img))
    assert got[0, :, 0].tolist() == [0, 0, 1, 1, 1, 2, 255, 255]


def test_exif_orientation_is_ignored(tmp_path):
    path = write_picture(tmp_path / "a.jpg", moving(1, (32, 16))[0])
    data = path.read_bytes()
    tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 2) + tiff + data[2:])
    assert cv2.imread(str(path)).shape[:2] == (32, 16), (
        "the tag is not read by anybody: the test shows nothing"
    )
    assert read_still(path).shape[:2] == (16, 32)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_pictures_cut_short_are_unreadable(tmp_path, suffix):
    rgb = moving(1, (256, 192))[0]
    path = write_picture(tmp_path / f"a{suffix}", rgb)
    assert read_still(path) is not None
    data = path.read_bytes()
    for share in (0.0, 0.3, 0.7, 0.97):
        path.write_bytes(data[: int(len(data) * share)])
        assert read_still(path) is None, share


def test_a_png_with_rotten_bytes_is_unreadable(tmp_path):
    path = write_picture(tmp_path / "a.png", moving(1, (256, 192))[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    assert read_still(path) is None


def test_bad_frames_of_a_folder_are_named_and_the_others_kept(frame_folder):
    write_picture(frame_folder / "000004.png", moving(1, (80, 64))[0])
    (frame_folder / "000007.png").write_bytes(b"no picture")
    (frame_folder / "notes.txt").write_text("x")
    (frame_folder / ".000001.png").write_bytes(b"hidden")
    frames = read(probe_clip(frame_folder))
    assert [(f.index, f.fault) for f in frames if f.fault] == [(4, "size"), (7, "unreadable")]
    assert len(frames) == 12


def test_a_folder_whose_first_frame_is_bad_is_still_probed(frame_folder):
    (frame_folder / "000000.png").write_bytes(b"no picture")
    info = probe_clip(frame_folder)
    assert (info.width, info.height, info.frames) == (96, 64, 12)
    assert [f.fault for f in read(info)] == ["unreadable"] + [None] * 11


def test_missing_numbers_are_gaps(frame_folder):
    for i in (3, 8, 9):
        (frame_folder / f"{i:06d}.png").unlink()
    frames = read(probe_clip(frame_folder))
    assert len(frames) == 9
    assert [f.index for f in frames if f.broken == "gap"] == [3, 7]


def test_an_even_stride_is_no_gap():
    assert not order_frames([f"{i:06d}.png" for i in range(47, 200, 7)]).breaks
    assert not order_frames(["a.png", "b.png", "c.png"]).breaks
