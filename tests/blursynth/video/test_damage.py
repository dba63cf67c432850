"""Films that were cut, joined, damaged or badly stamped: what is sound is kept, what is not is named."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

import blursynth.video.film as video
from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.packets import packet_index
from tests.helpers.films import moving, packets, write_video


def read(path, first=0, last=None):
    video._idle.clear()
    info = probe_clip(path)
    return list(read_frames(info, first, info.frames - 1 if last is None else last))


def remux(source: Path, target: Path, change, options=None) -> Path:
    """Copy packets without decoding; ``change(n, packet)`` edits packet n of decode order and says whether it stays."""
    with av.open(str(source)) as a, av.open(str(target), "w", options=options or {}) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for n, packet in enumerate(a.demux(a.streams.video[0])):
            if packet.size and change(n, packet):
                packet.stream = stream
                b.mux(packet)
    return target


def spoil(path: Path, n: int) -> None:
    """Overwrite packet n of decode order, its first bytes apart."""
    pos, size, _, _ = packets(path)[n]
    data = bytearray(path.read_bytes())
    data[pos + 5 : pos + size] = b"\xff" * (size - 5)
    path.write_bytes(data)


def which(frame, truth) -> int:
    """Number of the intact frame that this one shows."""
    return int(np.argmin([np.abs(frame.rgb.astype(int) - t.rgb).mean() for t in truth]))


@pytest.fixture
def whole(open_gop_clip):
    return read(open_gop_clip)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_film_cut_inside_open_groups_loses_what_refers_to_the_lost_part_and_no_more(
    open_gop_clip, whole, tmp_path, suffix
):
    key = [n for n, p in enumerate(packets(open_gop_clip)) if p[3]][2]
    start = packets(open_gop_clip)[key][2]

    def from_key(n, packet):
        packet.pts, packet.dts = packet.pts - start, packet.dts - start
        return n >= key

    path = remux(open_gop_clip, tmp_path / f"cut{suffix}", from_key, {"avoid_negative_ts": "disabled"})
    frames = read(path)
    good = [f for f in frames if f.rgb is not None]
    shown = [which(f, whole) for f in good]
    assert shown == list(range(24, 60))  # from the keyframe on, in order
    assert all(np.array_equal(f.rgb, whole[k].rgb) for f, k in zip(good, shown))
    assert all(f.fault == "decode" for f in frames if f.rgb is None)
    assert frames[-1].rgb is not None
    for first in range(0, len(frames), 5):
        for f in read(path, first, min(first + 2, len(frames) - 1)):
            assert (f.rgb is None) == (frames[f.index].rgb is None), f.index
            assert f.rgb is None or np.array_equal(f.rgb, frames[f.index].rgb), f.index


def test_parts_joined_end_to_end_go_on_behind_each_other(tmp_path):
    parts = [write_video(tmp_path / f"{seed}.ts", moving(30, seed=seed)) for seed in (1, 2)]
    intact = [f.rgb for part in parts for f in read(part)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    frames = read(path)
    assert len(frames) == 60 and not any(f.broken for f in frames)
    at_joint = [
        f.index for f in frames if f.fault
    ]  # the packet counter jumps there: its packet counts as damaged
    assert set(at_joint) <= {28, 29}
    assert all(np.array_equal(f.rgb, rgb) for f, rgb in zip(frames, intact) if not f.fault)
    assert [f.time_s for f in frames] == pytest.approx([i / 30 for i in range(60)], abs=1e-3)
    assert all(np.array_equal(f.rgb, intact[f.index]) for f in read(path, 40, 45))
    spoil_ts(path, 20)  # of the first keyframe
    damaged = read(path)
    lost = [f.index for f in damaged if f.fault]
    rest = set(lost) - set(at_joint)
    assert rest and max(rest) < 14  # the group of the damage and its neighbour's leading pictures
    assert all(np.array_equal(f.rgb, intact[f.index]) for f in damaged if f.rgb is not None)


def spoil_ts(path: Path, n: int) -> None:
    """Overwrite the payload of 20 packets of 188 bytes of a transport stream, from the nth; headers stay."""
    data = bytearray(path.read_bytes())
    for at in range(188 * n, 188 * (n + 20), 188):
        data[at + 4 : at + 188] = b"\xff" * 184
    path.write_bytes(data)


@pytest.mark.parametrize("twice", [20, 41])
def test_a_doubled_stamp_costs_its_own_steps_and_damage_its_own_group(open_gop_clip, whole, tmp_path, twice):
    stamps = sorted(p[2] for p in packets(open_gop_clip))

    def double(n, packet):
        if packet.pts == stamps[twice]:
            packet.pts = stamps[twice - 1]
        return True

    path = remux(open_gop_clip, tmp_path / "twice.mp4", double)
    assert not packet_index(str(path)).seekable
    frames = read(path)
    assert not any(f.fault for f in frames)
    assert all(np.array_equal(f.rgb, w.rgb) for f, w in zip(frames, whole, strict=True))
    broken = {f.index: f.broken for f in frames if f.broken}
    assert twice in broken and all(twice <= i <= twice + 2 for i in broken)
    spoil(path, 30)
    damaged = read(path)
    good = [f for f in damaged if f.rgb is not None]
    assert len(good) >= 60 - 2 * 12 - 3 and damaged[-1].rgb is not None
    assert all(np.array_equal(f.rgb, whole[f.index].rgb) for f in good)


def test_a_missing_frame_shows_in_spite_of_a_doubled_stamp(open_gop_clip, tmp_path):
    stamps = sorted(p[2] for p in packets(open_gop_clip))

    def later(n, packet):
        if packet.pts == stamps[20]:
            packet.pts = stamps[19]
        elif packet.pts >= stamps[45]:
            packet.pts += stamps[1] - stamps[0]
        return True

    path = remux(open_gop_clip, tmp_path / "twice.mp4", later)
    assert next(f.broken for f in read(path) if f.index == 45) == "gap"


@pytest.mark.parametrize(
    ("codec", "name"), [("mpeg4", "a.avi"), ("mpeg2video", "a.mkv"), ("libx264", "a.ts")]
)
def test_frames_before_the_first_keyframe_are_not_trusted(tmp_path, codec, name):
    options = None if codec == "libx264" else {"g": "12", "bf": "0"}
    source = write_video(tmp_path / f"whole{Path(name).suffix}", moving(40), codec, options)
    intact = read(source)
    key = [n for n, p in enumerate(packets(source)) if p[3]][1]
    path = remux(source, tmp_path / name, lambda n, packet: n >= key - 6)
    frames = read(path)
    good = [f for f in frames if f.rgb is not None]
    assert 20 <= len(good) <= 28
    shown = [which(f, intact) for f in good]
    assert shown == list(range(shown[0], 40)) and shown[0] >= key
    assert all(np.array_equal(f.rgb, intact[k].rgb) for f, k in zip(good, shown))


def test_empty_chunks_of_an_avi_are_gaps_and_not_an_early_end(tmp_path):
    numbers = [i for i in range(40) if i not in (13, 27, 28)]
    path = write_video(tmp_path / "a.avi", moving(37), "mpeg4", {"g": "12"}, pts=numbers)
    frames = read(path)
    assert len(frames) == 37 and not any(f.fault for f in frames)
    assert {f.index: f.broken for f in frames if f.broken} == {13: "gap", 26: "gap"}


def trimmed(source: Path, target: Path, first: int, count: int, fps: int = 30) -> Path:
    """A copy of an MP4 of one edit, whose edit list shows ``count`` frames from ``first``: a phone's "trim" does that."""
    data = bytearray(source.read_bytes())
    at, movie, media = (data.find(name) for name in (b"elst", b"mvhd", b"mdhd"))
    (a_second,) = struct.unpack_from(">I", data, movie + 16)
    (ticks,) = struct.unpack_from(">I", data, media + 16)
    _, entries, _, start = struct.unpack_from(">IIIi", data, at + 4)
    assert entries == 1
    struct.pack_into(">Ii", data, at + 12, count * a_second // fps, start + first * ticks // fps)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("keyint", [12, 250])
@pytest.mark.parametrize(("first", "count"), [(5, 43), (14, 34), (0, 20), (17, 14), (27, 6)])
def test_a_film_trimmed_by_its_edit_list_has_the_frames_that_it_shows(tmp_path, keyint, first, count):
    """Also where none of them is a keyframe; what the list hides is not missing at the end."""
    options = {"crf": "16", "x264-params": f"keyint={keyint}:scenecut=0:bframes=3:b-pyramid=normal"}
    source = write_video(tmp_path / "a.mp4", moving(48, (96, 64)), options=options)
    truth = read(source)
    path = trimmed(source, tmp_path / "b.mp4", first, count)
    frames = read(path)
    assert [f.fault for f in frames] == [None] * count
    assert all(np.array_equal(f.rgb, truth[first + f.index].rgb) for f in frames)
    (last,) = read(path, count - 1, count - 1)
    assert np.array_equal(last.rgb, frames[-1].rgb)


@pytest.mark.parametrize("suffix", [".avi", ".asf"])
def test_b_frames_in_containers_without_stamps_are_in_their_order(tmp_path, suffix):
    """libavformat's made-up stamps of H.264 there ascend as frames are decoded, not as they are shown."""
    film = moving(48, (96, 64))
    frames = read(write_video(tmp_path / f"a{suffix}", film))
    assert [f.fault for f in frames] == [None] * 48
    assert [int(np.argmin([np.abs(f.rgb.astype(int) - t).mean() for t in film])) for f in frames] == list(
        range(48)
    )
