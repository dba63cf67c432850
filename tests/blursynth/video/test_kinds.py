"""Films that are not plain 8-bit progressive ones: interlaced, HDR, variable rate, rare containers, deep chroma."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

import blursynth.video.film as film
from blursynth.camera.hdr import split_at_white, to_bt709, transfer_light
from blursynth.camera.response import load_response
from blursynth.recipe import Recipe
from blursynth.sources.find import find_clips
from blursynth.video.clip import ClipError, decode_with, probe_clip, read_as, read_frames
from blursynth.video.frame import find_timing
from blursynth.video.intervals import luma
from blursynth.video.picture import Converter
from tests.helpers.films import moving, write_video
from tests.helpers.paff import write_paff


def read(info, first=0, last=None):
    film._idle.clear()
    return list(read_frames(info, first, info.frames - 1 if last is None else last))


# Interlaced


def write_interlaced(path, frames, codec="libx264", options=None, pix_fmt="yuv420p"):
    """Pairs of pictures woven into frames, first picture on the even rows, at 25 frames a second."""
    woven = [a.copy() for a in frames[::2]]
    for frame, b in zip(woven, frames[1::2]):
        frame[1::2] = b[1::2]
    with av.open(str(path), "w") as c:
        s = c.add_stream(codec, rate=25, options=options or {})
        s.height, s.width = woven[0].shape[:2]
        s.pix_fmt = pix_fmt
        s.codec_context.flags |= (
            0x20000000 | 0x40000
        )  # interlaced motion search and DCT (ffmpeg's +ilme+ildct)
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(width=s.width, height=s.height, format=pix_fmt, time_base=Fraction(1, 25)),
            graph.add("setfield", "mode=tff"),  # PyAV cannot set a frame's flag itself
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        for i, rgb in enumerate(woven):
            f = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            f.pts, f.time_base = i, Fraction(1, 25)
            graph.push(f)
            c.mux(s.encode(graph.pull()))
        c.mux(s.encode())
    return path


INTERLACED = {
    "mbaff": ("libx264", {"x264-params": "tff=1:keyint=6:threads=1", "crf": "10"}, "yuv420p", "a.mp4"),
    "mpeg2": ("mpeg2video", {"g": "6", "qmin": "2", "qmax": "2"}, "yuv420p", "a.ts"),
    "prores": ("prores_ks", {}, "yuv422p10le", "a.mov"),
}


@pytest.fixture(params=INTERLACED)
def interlaced(request, tmp_path):
    codec, options, pix_fmt, name = INTERLACED[request.param]
    frames = moving(24, (192, 128), step=(2, 0))
    return write_interlaced(tmp_path / name, frames, codec, options, pix_fmt), frames


def test_interlaced_film_is_refused_with_its_remedy(interlaced):
    path, _ = interlaced
    with pytest.raises(ClipError, match=r"interlaced.*--deinterlace") as e:
        probe_clip(path)
    assert e.value.kind == "interlaced"


def test_deinterlaced_film_has_a_picture_of_each_field(interlaced):
    path, frames = interlaced
    info = probe_clip(path, deinterlace=True)
    assert (info.frames, info.fps) == (24, 50.0)
    got = read(info)
    assert not any(f.fault for f in got) and [f.index for f in got] == list(range(24))
    for f in got:  # the picture that went in at that instant, and no comb of two
        assert f.time_s == pytest.approx(f.index / 50, abs=1e-3) and f.rate == pytest.approx(50)
        errors = [
            np.abs(luma(f.rgb).astype(int) - luma(s)).mean() for s in frames
        ]  # 4:2:0 mixes the fields' chroma
        assert int(np.argmin(errors)) == f.index
        assert errors[f.index] < 4
    for first in range(24):  # wherever a read starts
        for f in read(info, first, min(first + 2, 23)):
            assert np.array_equal(f.rgb, got[f.index].rgb), (first, f.index)


@pytest.mark.parametrize(("matrix", "lost"), [("smpte170m", []), ("YCgCo", list(range(10, 26)))])
def test_fields_go_on_where_a_films_colours_change(tmp_path, matrix, lost):
    """Broadcasts change theirs between programmes. Frames in colours without a way to RGB are damage: the fields beside
    them are lost, not all that follow, and the same ones wherever a read starts."""
    frames, film = moving(36, (64, 48)), b""
    for part, tag in enumerate(("bt709", matrix, "bt709")):
        options = {"x264-params": f"colormatrix={tag}:repeat-headers=1:bframes=0:keyint=6:tff=1"}
        twelve = frames[12 * part :][:12]
        film += write_interlaced(tmp_path / f"{part}.h264", twelve, options=options).read_bytes()
    (tmp_path / "film.h264").write_bytes(film)
    info = probe_clip(tmp_path / "film.h264", fps=25, deinterlace=True)
    got = read(info)
    assert [f.index for f in got if f.fault] == lost
    for f in got:
        if not f.fault:
            assert (
                int(np.argmin([np.abs(luma(f.rgb).astype(int) - luma(s)).mean() for s in frames])) == f.index
            )
    for first in range(0, 36, 3):
        for f in read(info, first, min(first + 2, 35)):
            assert f.fault == got[f.index].fault and np.array_equal(f.rgb, got[f.index].rgb)


@pytest.mark.parametrize("name", ["a.ts", "a.h264"])
def test_fields_in_packets_of_their_own_are_one_frame_and_no_damage(tmp_path, name):
    pictures = [luma(f) for f in moving(16, (64, 64), step=(2, 0))]
    path = write_paff(tmp_path / name, pictures)
    with pytest.raises(ClipError, match=r"interlaced.*--deinterlace"):
        probe_clip(path)
    info = probe_clip(path, deinterlace=True)
    assert info.frames == 16 and info.fps == (50 if name == "a.ts" else None)
    got = read(info)
    assert not any(f.fault or f.broken for f in got)
    for f in got:
        errors = [np.abs(luma(f.rgb).astype(int) - p).mean() for p in pictures]
        assert int(np.argmin(errors)) == f.index
    for first in range(0, 16, 3):
        assert all(np.array_equal(f.rgb, got[f.index].rgb) for f in read(info, first, min(first + 2, 15)))


# HDR


def pq_code(light):
    """ST 2084's inverse EOTF of light in units of 203 cd/m2."""
    y = (np.asarray(light) * 203 / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)


def hlg_code(light):
    """BT.2100's OETF of scene light, in units of that of the signal 0.75."""
    e = np.asarray(light) * 0.26496256
    return np.where(
        e <= 1 / 12, np.sqrt(3 * e), 0.17883277 * np.log(np.maximum(12 * e - 0.28466892, 1e-9)) + 0.55991073
    )


CODES = {"pq": (pq_code, 16), "hlg": (hlg_code, 18), "linear": (lambda x: np.asarray(x), 8)}


@pytest.mark.parametrize("name", CODES)
def test_curves_are_those_of_the_standards(name):
    light = np.array([0.01, 0.1, 0.5, 1.0] if name == "linear" else [0.01, 0.1, 0.5, 1.0, 2.5])
    assert transfer_light(name, CODES[name][0](light)) == pytest.approx(light, rel=1e-4)


def test_known_points_of_the_curves():
    assert transfer_light("pq", np.array([1.0, 0.5081])) * 203 == pytest.approx([10000, 100], rel=2e-3)
    assert transfer_light("hlg", np.array([0.5, 1.0])) * 0.26496256 == pytest.approx([1 / 12, 1], rel=1e-5)
    white = np.ones(3)
    for gamut in ("bt2020", "p3"):
        assert to_bt709(gamut) @ white == pytest.approx(white, abs=1e-5)
    # ITU-R BT.2087: the matrix from BT.2020 to BT.709.
    assert to_bt709("bt2020")[0] == pytest.approx([1.6605, -0.5876, -0.0728], abs=2e-3)


def write_hdr(path, light, name, primaries, matrix=9):
    """Frames of one colour each: (n, 3) linear light in the stream's own primaries, 12-bit 4:4:4, lossless."""
    code, transfer = CODES[name]
    with av.open(str(path), "w") as c:
        s = c.add_stream("ffv1", rate=30)
        s.width, s.height, s.pix_fmt = 64, 48, "gbrp12le"
        s.codec_context.color_trc, s.codec_context.color_primaries = transfer, primaries
        for rgb in light:
            picture = np.broadcast_to(np.rint(code(rgb) * 65535).astype(np.uint16), (48, 64, 3))
            f = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb48le").reformat(
                format="gbrp12le"
            )
            f.color_trc, f.color_primaries = transfer, primaries
            c.mux(s.encode(f))
        c.mux(s.encode())
    return path


LIGHT = np.array([[0.18, 0.18, 0.18], [1.0, 0.5, 0.25], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "primaries", "gamut"), [("pq", 9, "bt2020"), ("hlg", 9, "bt2020"), ("pq", 12, "p3")]
)
def test_hdr_film_comes_as_srgb_and_light_above_white(tmp_path, name, primaries, gamut):
    path = write_hdr(tmp_path / "a.mkv", LIGHT, name, primaries)
    info, warnings = read_as(probe_clip(path), Recipe())
    assert (info.transfer, info.gamut, warnings) == (name, gamut, [])
    want = LIGHT @ to_bt709(gamut).T.astype(float)
    srgb = load_response("srgb")
    for f, light in zip(read(info), want, strict=True):
        got = srgb.decode(f.rgb, 0.0 if f.above is None else f.above)[24, 32, :3]
        # Codes of 8 bits below white, 12-bit codes above it.
        assert got == pytest.approx(np.maximum(light, 0), abs=0.006, rel=0.01)
        assert (f.above is None) == bool((light <= 1).all())


def test_wide_primaries_of_sdr_film_are_converted(tmp_path):
    """Display P3 under an SDR curve: a colour keeps its light, and grey its code."""
    path = tmp_path / "a.mkv"
    colours = [[128, 128, 128], [180, 120, 90]]
    with av.open(str(path), "w") as c:
        s = c.add_stream("ffv1", rate=30)
        s.width, s.height, s.pix_fmt = 64, 48, "bgr0"
        s.codec_context.color_primaries, s.codec_context.color_trc = 12, 1
        for colour in colours:
            f = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24").reformat(
                format="bgr0"
            )
            f.color_primaries, f.color_trc = 12, 1
            c.mux(s.encode(f))
        c.mux(s.encode())
    info, _ = read_as(probe_clip(path), Recipe())
    assert (info.transfer, info.gamut) == ("srgb", "p3")
    srgb = load_response("srgb")
    for f, colour in zip(read(info), colours, strict=True):
        light = srgb.light[colour, [0, 1, 2]] @ to_bt709("p3").T
        want = srgb.encode(light[None, None].astype(np.float32))[0, 0]
        assert np.abs(f.rgb[24, 32].astype(int) - want).max() <= 1 and f.above is None
    assert np.array_equal(read(read_as(info, Recipe(crf="gamma2.2"))[0])[1].rgb[0, 0], colours[1])


def test_an_explicit_curve_stands_above_the_files_tag_and_warns(tmp_path):
    path = write_hdr(tmp_path / "a.mkv", LIGHT, "pq", 9)
    info, warnings = read_as(probe_clip(path), Recipe(crf="srgb"))
    assert (info.transfer, info.gamut) == ("srgb", "bt709") and "says its curve is pq" in warnings[0]
    assert read(info)[0].rgb[0, 0, 0] == pytest.approx(255 * pq_code(0.18), abs=1.5)
    plain = probe_clip(write_video(tmp_path / "b.mp4", moving(5)))
    assert read_as(plain, Recipe(crf="hlg"))[0].transfer == "hlg"
    assert read_as(plain, Recipe()) == (plain, [])


def test_hdr_light_goes_through_the_exposure(tmp_path):
    """A lamp of 10 whites that crosses the frame leaves a streak as bright as its share of the time."""
    from blursynth.run.make import make
    from blursynth.shards.picture import decode_image
    from blursynth.shards.shard import read_shard

    path = tmp_path / "src" / "lamp.mkv"
    path.parent.mkdir()
    with av.open(str(path), "w") as c:
        s = c.add_stream("ffv1", rate=240)
        s.width, s.height, s.pix_fmt = 96, 64, "gbrp12le"
        s.codec_context.color_trc, s.codec_context.color_primaries = 16, 1
        for i in range(9):
            light = np.full((64, 96, 3), 0.1)
            light[24:40, 8 + 8 * i : 16 + 8 * i] = 5.0
            codes = np.rint(pq_code(light) * 65535).astype(np.uint16)
            f = av.VideoFrame.from_ndarray(codes, format="rgb48le").reformat(format="gbrp12le")
            f.color_trc, f.color_primaries = 16, 1
            c.mux(s.encode(f))
        c.mux(s.encode())
    import json

    make(
        path,
        tmp_path / "d",
        interp="none",
        highlights="off",
        noise="off",
        gate="off",
        val_fraction=0,
        workers=1,
        quiet=True,
    )
    (sample,) = read_shard(tmp_path / "d" / "train-000000.tar")
    meta = json.loads(sample["json"])
    assert meta["camera"]["crf"] == "pq" and meta["camera"]["highlights"] is None
    blur = decode_image(sample["blur.png"])[32, 44]
    want = load_response("srgb").encode(np.full((1, 1, 3), (8 * 0.1 + 5.0) / 9, np.float32))[0, 0]
    assert np.abs(blur.astype(int) - want).max() <= 1


def test_exr_frames_are_linear_light(tmp_path):
    folder = tmp_path / "take"
    folder.mkdir()
    light = np.zeros((48, 64, 3), np.float32)
    light[...] = [0.18, 1.0, 4.0]
    for i in range(4):
        with av.open(str(folder / f"{i:04d}.exr"), "w", format="image2") as c:
            s = c.add_stream("exr", rate=1)
            s.width, s.height, s.pix_fmt = 64, 48, "gbrpf32le"
            c.mux(s.encode(av.VideoFrame.from_ndarray(light, format="gbrpf32le")))
            c.mux(s.encode())
    info = probe_clip(folder, fps=240)
    assert (info.transfer, info.frames, info.width, info.height) == ("linear", 4, 64, 48)
    for f in read(info):
        got = load_response("srgb").decode(f.rgb, f.above)[10, 10, :3]
        assert got == pytest.approx([0.18, 1, 4], abs=0.005)
    (folder / "0002.exr").write_bytes((folder / "0002.exr").read_bytes()[:300])
    assert [f.fault for f in read(info)] == [None, None, "unreadable", None]


def test_splitting_at_white_loses_nothing_above_it():
    light = np.linspace(0, 30, 64 * 3, dtype=np.float32).reshape(1, 64, 3)
    rgb, above = split_at_white(light)
    assert np.allclose(load_response("srgb").decode(rgb, above)[..., :3], light, atol=0.006, rtol=2e-3)
    assert split_at_white(light / 30)[1] is None


# Time


def stamps(steps, start=0):
    return np.concatenate([[start], start + np.cumsum(steps)]).astype(np.int64)


@pytest.mark.parametrize("fps", [24, 29.97, 30, 59.94, 120, 240, 480, 720, 960])
def test_milliseconds_of_a_steady_film_break_nowhere(fps):
    pts = np.rint(np.arange(600) * 1000 / fps).astype(np.int64)
    timing = find_timing(pts, 0.001, fps)
    assert not timing.breaks and timing.rate(300) == fps
    assert find_timing(pts, 0.001, None).rate(300) == pytest.approx(
        fps, rel=2e-3
    )  # not a median of rounded steps


@pytest.mark.parametrize("fps", [24, 30, 59.94, 120, 240, 480])
def test_a_frame_missing_among_milliseconds_is_a_gap(fps):
    whole = np.rint(np.arange(600) * 1000 / fps).astype(np.int64)
    assert find_timing(np.delete(whole, 300), 0.001, fps).breaks == {300: "gap"}


def test_a_frame_missing_where_steps_are_as_short_as_ticks_is_found_near_by():
    whole = np.rint(np.arange(900) * 1000 / 960).astype(np.int64)
    breaks = find_timing(np.delete(whole, 450), 0.001, 960).breaks
    assert breaks and all(450 <= i <= 480 for i in breaks)


def test_slow_motion_in_one_file_has_two_rates():
    pts = stamps([3000] * 60 + [375] * 120 + [3000] * 60)
    timing = find_timing(pts, 1 / 90000, 53.0)
    assert timing.breaks == {61: "rate", 181: "rate"}
    assert [timing.rate(i) for i in (0, 60, 61, 180, 181, 240)] == pytest.approx([30, 30, 240, 240, 30, 30])


def test_jitter_of_a_camera_is_no_break():
    rng = np.random.default_rng(0)
    pts = (np.arange(300) * 3003 + rng.integers(-150, 150, 300)).astype(np.int64)
    assert not find_timing(pts, 1 / 90000, 29.97).breaks


def test_windows_have_the_rate_of_their_own_stretch(tmp_path):
    """A phone's slow motion, 30 then 240 fps in one file: no window across the change, its own shutter each."""
    import json

    from blursynth.run.make import make
    from blursynth.shards.shard import read_shard

    pts = [8 * i for i in range(20)] + [152 + i for i in range(1, 41)]
    (tmp_path / "src").mkdir()
    path = write_video(tmp_path / "src" / "slow.mp4", moving(60), fps=240, pts=pts)
    summary = make(
        path, tmp_path / "d", interp="none", window=6, gate="off", val_fraction=0, workers=1, quiet=True
    )
    found = {}
    for tar in (tmp_path / "d").glob("*.tar"):
        for s in read_shard(tar):
            meta = json.loads(s["json"])
            found[meta["source"]["first"]] = (meta["source"]["fps"], meta["exposure"]["shutter_ms"])
    assert {i: f for i, (f, _) in found.items()} == {
        0: 30,
        6: 30,
        12: 30,
        **dict.fromkeys(range(24, 60, 6), 240),
    }
    assert found[6][1] == pytest.approx(6 / 30 * 1000) and found[30][1] == pytest.approx(6 / 240 * 1000)
    assert summary.rejects == {"rate": 1}  # 18..23


def test_fps_stands_above_the_file_and_fps_unknown_below(tmp_path):
    info = probe_clip(write_video(tmp_path / "a.mp4", moving(5)))
    assert read_as(info, Recipe(fps_unknown=240)) == (info, [])
    over, warnings = read_as(info, Recipe(fps=240, fps_unknown=120))
    assert over.fps == 240 and "says 30 fps, taken for 240" in warnings[0]
    assert not read_as(info, Recipe(fps=30))[1]


# Containers


def test_rare_containers_are_read_frame_by_frame(tmp_path):
    frames = moving(12)
    still = {"mpeg2video": {"g": "6", "bf": "2", "qmin": "2", "qmax": "3"}}
    for name, codec, fmt, options in (
        ("a.qt", "libx264", "mov", None),
        ("a.insv", "libx264", "mp4", None),
        ("a.asf", "msmpeg4", "asf", {}),
        ("a.vob", "mpeg2video", "vob", still["mpeg2video"]),
        ("a.m2v", "mpeg2video", "mpeg2video", still["mpeg2video"]),
        ("a.h264", "libx264", "h264", None),
        ("a.gif", "gif", "gif", {}),
        ("a.apng", "apng", "apng", {}),
    ):
        path = tmp_path / name
        with av.open(str(path), "w", format=fmt) as c:
            s = c.add_stream(codec, rate=25 if codec == "gif" else 30, options=options or {})
            s.height, s.width, s.pix_fmt = 144, 256, {"gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p")
            for rgb in frames:
                c.mux(s.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=s.pix_fmt)))
            c.mux(s.encode())
        (clips, rejects) = find_clips([path])
        info = clips[0].info
        assert not rejects and info.frames == 12, name
        assert info.fps == pytest.approx(25 if codec == "gif" else 30, rel=1e-3), name
        got = read(info)
        assert not any(f.fault or f.broken for f in got), name
        for f in got:
            errors = [np.abs(f.rgb.astype(int) - s).mean() for s in frames]
            assert int(np.argmin(errors)) == f.index, name


@pytest.mark.parametrize("fps", [12, 15, 24, 30, 60])
def test_the_hundredths_of_a_gif_are_no_change_of_rate(tmp_path, fps):
    """Its steps are rounded to 10 ms; the rate that libavformat guesses is that of the first ones."""
    with av.open(str(tmp_path / "a.gif"), "w") as c:
        s = c.add_stream("gif", rate=fps)
        s.height, s.width, s.pix_fmt = 36, 64, "rgb8"
        for rgb in moving(24, (64, 36)):
            c.mux(s.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="rgb8")))
        c.mux(s.encode())
    info = probe_clip(tmp_path / "a.gif")
    assert info.fps == pytest.approx(fps, rel=0.01)
    assert [(f.fault, f.broken) for f in read(info)] == [(None, None)] * 24


@pytest.mark.parametrize(
    "tag", ["colormatrix=YCgCo", "colormatrix=bt2020c", "colormatrix=ICtCp", "transfer=log100"]
)
def test_colours_that_ffmpeg_cannot_convert_are_named(tmp_path, tag):
    path = write_video(tmp_path / "a.mp4", moving(6, (64, 48)), options={"x264-params": tag})
    with pytest.raises(ClipError, match="cannot convert its colours"):
        probe_clip(path)


def test_colours_that_change_to_such_within_a_film_are_faults(tmp_path):
    both = b""
    for name, tag in (("a", "colormatrix=bt709"), ("b", "colormatrix=YCgCo")):
        options = {"x264-params": f"{tag}:repeat-headers=1:bframes=0:keyint=6"}
        both += write_video(tmp_path / f"{name}.h264", moving(6, (64, 48)), options=options).read_bytes()
    (tmp_path / "both.h264").write_bytes(both)
    info = probe_clip(tmp_path / "both.h264", fps=30)
    assert [f.fault for f in read(info)] == [None] * 6 + ["decode"] * 6


def test_a_second_video_stream_is_named(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as c:
        streams = [c.add_stream("mpeg4", rate=30) for _ in range(2)]
        for s in streams:
            s.width, s.height, s.pix_fmt = 64, 48, "yuv420p"
        for rgb in moving(6, (64, 48)):
            for s in streams:
                c.mux(s.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        for s in streams:
            c.mux(s.encode())
    clips, rejects = find_clips([path])
    assert len(clips) == 1 and [r.reason for r in rejects] == ["second-stream"]


# Chroma


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_chroma_of_odd_sizes_stands_where_the_encoder_put_it(tmp_path, pix_fmt):
    """The picture that went in is the truth; libswscale's own default smears the chroma of such pictures."""
    size = (255, 143)
    rgb = np.full((size[1], size[0], 3), 110, np.uint8)
    rgb[..., 0] = (128 + 100 * np.sin(np.arange(size[0]) / 6)).astype(np.uint8)
    rgb[..., 2] = 255 - rgb[..., 0]
    path = write_video(tmp_path / "a.mkv", [rgb] * 3, "ffv1", {}, pix_fmt=pix_fmt)
    got = read(probe_clip(path))[1].rgb
    with av.open(str(path)) as c:
        quick = next(c.decode(video=0)).to_ndarray(format="rgb24")
    error, before = (np.abs(p[4:-4, 4:-4].astype(int) - rgb[4:-4, 4:-4]).mean() for p in (got, quick))
    assert error < 3 and error < before


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [("libx265", "yuv420p10le", (256, 144)), ("ffv1", "yuv420p", (255, 143)), ("libx264", "yuv422p", (256, 144)), ("libx264", "yuv420p", (256, 144))],
)  # fmt: skip
def test_pictures_are_those_of_the_ffmpeg_command(tmp_path, codec, pix_fmt, size):
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        exe = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg command on this machine")
        ffmpeg = exe.get_ffmpeg_exe()
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_video(tmp_path / "a.mkv", moving(5, size), codec, options, pix_fmt=pix_fmt)
    raw = subprocess.run(
        [ffmpeg, "-v", "error", "-i", str(path), "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-f", "rawvideo", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    truth = np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)
    got = read(probe_clip(path))
    assert len(got) == len(truth) and all(np.array_equal(f.rgb, t) for f, t in zip(got, truth))


# decord


def test_decord_is_used_where_it_gives_the_same_frames(tmp_path):
    pytest.importorskip("decord")
    plain = probe_clip(write_video(tmp_path / "a.mp4", moving(30)))
    through = decode_with(plain, "decord")
    assert through.decoder == "decord" and decode_with(plain, "auto") == decode_with(plain, "pyav") == plain
    for a, b in zip(read(plain), read(through), strict=True):
        assert np.array_equal(a.rgb, b.rgb) and (a.time_s, a.rate, a.broken) == (b.time_s, b.rate, b.broken)
    odd = probe_clip(write_video(tmp_path / "b.mkv", moving(5, (255, 143)), "ffv1", {}))
    assert decode_with(odd, "decord") == odd


def test_decord_makes_the_same_data_set(tmp_path):
    pytest.importorskip("decord")
    from blursynth.run.make import make

    path = write_video(tmp_path / "a.mp4", moving(30))
    tars = []
    for decoder in ("pyav", "decord"):
        make(
            path,
            tmp_path / decoder,
            interp="none",
            gate="off",
            val_fraction=0,
            workers=1,
            quiet=True,
            decoder=decoder,
        )
        tars.append((tmp_path / decoder / "train-000000.tar").read_bytes())
    assert tars[0] == tars[1]


def test_a_converter_follows_a_change_of_size():
    convert = Converter()
    for size in ((64, 48), (96, 64), (64, 48)):
        f = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 200, np.uint8), format="rgb24")
        f.pts, f.time_base = 0, Fraction(1, 30)
        picture, above = convert.picture(f)
        assert (
            picture.shape == (size[1], size[0], 3)
            and above is None
            and cv2.mean(picture)[:3] == (200, 200, 200)
        )
