"""Frames out of a folder's names: no window may hold two takes, a gap, or a picture that is no frame."""

from __future__ import annotations

import random

import pytest

from blursynth.checks.audit import audit_clip
from blursynth.run.make import film_warnings
from blursynth.sources.find import find_clips
from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.takes import order_frames
from tests.helpers.films import moving, write_frames, write_picture


def run(pattern, numbers):
    return [pattern.format(i) for i in numbers]


CASES = {
    "plain": ([*run("{:04d}.png", range(6))], set()),
    "numbers without zeros": ([*run("f{}.png", range(8, 13))], set()),
    "missing frames": ([*run("{:04d}.png", (0, 1, 2, 5, 6))], {3}),
    "missing frames before a constant suffix": ([*run("{:04d}_240fps.png", (17, 18, 19, 24, 25))], {3}),
    "a constant number before": ([*run("GOPR0372_07_{:06d}.png", (1, 2, 3, 9))], {3}),
    "two takes by name": ([*run("A_{:04d}.png", range(3)), *run("B_{:04d}.png", range(3, 6))], {3}),
    "two takes by number": ([*run("take1_{:04d}.png", range(4)), *run("take2_{:04d}.png", range(4, 8))], {4}),
    "a number that repeats": (["1.jpg", "1.png", "2.png", "3.png"], {1}),
    "a frame and a time": ([f"frame_{i:03d}_{i * 33367}.png" for i in range(6)], set()),
    "a cover": (["cover.jpg", *run("{:04d}.png", range(3))], {3}),
    "names alone": (["a.png", "b.png", "c.png"], set()),
    "every seventh": ([*run("{:06d}.png", range(47, 200, 7))], set()),
}


@pytest.mark.parametrize("case", CASES)
def test_breaks(case):
    names, want = CASES[case]
    got = order_frames(names)
    assert sorted(got.frames) == sorted(names) and set(got.breaks) == want
    mixed = names[:]
    random.Random(1).shuffle(mixed)
    assert order_frames(mixed) == got


def test_masks_beside_frames_are_left_out_and_takes_are_not():
    frames, masks = run("{:04d}.png", range(4)), run("{:04d}_mask.png", range(4))
    got = order_frames([*frames, *masks])
    assert got.frames == frames and got.companions == masks and not got.breaks
    assert order_frames(masks).frames == masks, "alone they are what there is"
    assert not order_frames(run("night_{}.png", range(3)) + run("{}.png", range(3))).companions


def test_a_folder_with_masks_is_a_clip_of_its_frames_and_says_so(tmp_path):
    films = moving(5, (48, 32))
    write_frames(tmp_path / "clip", films)
    write_frames(tmp_path / "clip", films, "{:06d}_mask.png")
    write_frames(tmp_path / "clip" / "@eaDir", films)
    [clip], rejects = find_clips([tmp_path])
    assert clip.info.frames == 5
    assert [(r.reason) for r in rejects] == ["companion"] and "000000_mask.png" in rejects[0].detail


def test_the_size_of_most_frames_wins_over_a_cover(tmp_path):
    write_frames(tmp_path / "clip", moving(6, (48, 32)))
    write_picture(tmp_path / "clip" / "0_cover.png", moving(1, (100, 90))[0])
    info = probe_clip(tmp_path / "clip")
    frames = list(read_frames(info, 0, info.frames - 1))
    assert (info.width, info.height) == (48, 32)
    assert [f.fault for f in frames].count(None) == 6 and [f.fault for f in frames].count("size") == 1


TAKES = {
    "by name": ([*run("A_{:04d}.png", range(3)), *run("B_{:04d}.png", range(4))], ["A_0000.png", "B_0000.png"]),
    "by number": ([*run("take1_{:04d}.png", range(4)), *run("take2_{:04d}.png", range(4, 8))], ["take1_0000.png", "take2_0004.png"]),
    "one with a gap": (run("{:04d}.png", (0, 1, 2, 3, 9, 10, 11, 12)), []),
    "one and a cover": (["cover.jpg", *run("{:04d}.png", range(5))], []),
    "one and its masks": ([*run("{:04d}.png", range(4)), *run("{:04d}_mask.png", range(4))], []),
    "one that is doubled": ([*run("{}.jpg", range(4)), *run("{}.png", range(4))], []),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKES)
def test_takes(case):
    names, want = TAKES[case]
    assert order_frames(names).takes == want


def test_audit_and_make_say_that_a_folder_holds_two_takes(tmp_path):
    write_frames(tmp_path / "clip", moving(6, (48, 32)), "a_{:04d}.png")
    write_frames(tmp_path / "clip", moving(6, (48, 32)), "b_{:04d}.png")
    clips, _ = find_clips([tmp_path])
    told = "2 takes in one folder (from a_0000.png, b_0000.png)"
    assert any(told in line for line in audit_clip(clips[0]).advice)
    assert [line for line in film_warnings(clips) if told in line and line.startswith("clip: ")]
