"""One shard: windows in, samples out; what cannot be used is counted by reason, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.recipe import Recipe
from blursynth.run.outcome import Run, WindowSpec
from blursynth.run.plan import make_plan
from blursynth.run.task import make_shard, sample_rng
from blursynth.run.windows import read_windows
from blursynth.shards.picture import decode_image
from blursynth.shards.shard import read_shard, read_sidecar
from blursynth.sources.find import find_clips
from blursynth.sources.fingerprint import source_stamp
from tests.helpers.make_fakes import FaultySynthesizer, MeanSynthesizer, frames_folder, mean_task


def plan_for(src, **recipe):
    recipe = Recipe(**{"interp": "none", **recipe})
    clips, _ = find_clips([str(src)])
    stamps = {c.rel: source_stamp(c.info.path) for c in clips}
    return make_plan(clips, {c.rel: "train" for c in clips}, recipe, {c.rel: "0" * 64 for c in clips}, stamps)


def only_task(src, out, **recipe):
    plan = plan_for(src, shard_samples=1000, **recipe)
    plan.piece = 1000
    (task,) = plan.tasks(out)
    return task


def samples(out, shard="train-000000"):
    return list(read_shard(out / f"{shard}.tar"))


@pytest.fixture
def src(tmp_path):
    return frames_folder(tmp_path / "src" / "clip", 40)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_sample_is_the_window_it_says(src, out):
    outcome = make_shard(only_task(src, out), MeanSynthesizer)
    assert (outcome.status, outcome.samples, outcome.rejects) == ("done", 4, {})
    for s, first in zip(samples(out), (0, 9, 18, 27)):
        meta = json.loads(s["json"])
        frames = [cv2.imread(str(src / f"{i:06d}.png"))[..., ::-1] for i in range(first, first + 9)]
        assert np.array_equal(decode_image(s["sharp.png"]), frames[4])
        assert np.array_equal(decode_image(s["blur.png"]), np.rint(np.mean(frames, 0)))
        assert (meta["source"]["first"], meta["source"]["last"], meta["source"]["target"]) == (
            first,
            first + 8,
            first + 4,
        )
        assert meta["key"] == s["__key__"] == f"clip_{first:06d}_09"
    side = read_sidecar(out / "train-000000.json")
    counts = {"written": 4, "rejected": {}}
    assert side["counts"] == counts | {"clips": {"clip": counts}} and side["sources"] == {"clip": "0" * 64}


def test_a_bad_frame_costs_just_the_windows_that_hold_it(src, out):
    (src / "000010.png").write_bytes(b"not a picture")
    cv2.imwrite(str(src / "000020.png"), np.zeros((10, 10, 3), np.uint8))
    outcome = make_shard(only_task(src, out), MeanSynthesizer)
    assert outcome.samples == 2 and outcome.rejects == {"size": 1, "unreadable": 1}
    assert [s["__key__"] for s in samples(out)] == ["clip_000000_09", "clip_000027_09"]


def test_no_window_across_a_cut_or_a_repeat(tmp_path, out):
    src = frames_folder(tmp_path / "a" / "clip", 54, size=(160, 120))
    other = frames_folder(tmp_path / "b", 54, size=(160, 120), seed=9)
    for i in range(22, 54):  # another scene from frame 22 on
        shutil.copy(other / f"{i:06d}.png", src / f"{i:06d}.png")
    shutil.copy(src / "000039.png", src / "000040.png")  # a repeat in the window 36..44
    outcome = make_shard(only_task(src, out), MeanSynthesizer)
    assert outcome.rejects == {"cut": 1, "duplicate": 1}
    assert [s["__key__"] for s in samples(out)] == [f"clip_{i:06d}_09" for i in (0, 9, 27, 45)]


def test_a_repeat_is_seen_wherever_a_shard_begins(tmp_path, out):
    """The checker needs a past to know a repeat by; a run that starts just before one must not lose it."""
    src = frames_folder(tmp_path / "a" / "clip", 36, size=(160, 120))
    shutil.copy(src / "000018.png", src / "000019.png")
    for size in (1, 2, 4):
        folder = out / str(size)
        folder.mkdir()
        rejects = [
            make_shard(t, MeanSynthesizer).rejects for t in plan_for(src, shard_samples=size).tasks(folder)
        ]
        assert sum(r.get("duplicate", 0) for r in rejects) == 1, size


def test_a_rejected_first_window_leaves_the_key_of_the_next(src, out):
    class Gate(MeanSynthesizer):
        def sample(self, clip_id, frames, first, *args, **kwargs):
            s = super().sample(clip_id, frames, first, *args, **kwargs)
            s.rejected = "occluded" if first == 0 else None
            return s

    outcome = make_shard(only_task(src, out), Gate)
    assert outcome.rejects == {"occluded": 1} and samples(out)[0]["__key__"] == "clip_000009_09"


def test_an_error_of_ours_costs_one_sample_and_is_told(src, out):
    outcome = make_shard(only_task(src, out), FaultySynthesizer)
    assert outcome.samples == 3 and outcome.rejects == {"error: RuntimeError": 1}
    assert outcome.errors == ["clip_000009_09 (clip): RuntimeError: boom"]
    assert read_sidecar(out / "train-000000.json")["errors"] == outcome.errors


def test_all_rejected_is_a_sidecar_without_a_tar(src, out):
    for i in range(0, 40, 5):
        (src / f"{i:06d}.png").write_bytes(b"x")
    outcome = make_shard(only_task(src, out), MeanSynthesizer)
    assert (outcome.status, outcome.samples, outcome.rejects) == ("done", 0, {"unreadable": 4})
    assert sorted(p.name for p in out.iterdir()) == ["train-000000.json"]


def test_the_sidecar_lists_the_windows_that_gave_no_sample(src, out):
    """By key and frames, with the reason, the frame at fault, or the figures that the gate went by."""

    class Gate(MeanSynthesizer):
        def sample(self, clip_id, frames, first, *args, **kwargs):
            s = super().sample(clip_id, frames, first, *args, **kwargs)
            s.flow, s.rejected = {"occluded": 0.4, "thumb": "x"}, "gate:occluded" if first == 9 else None
            return s

    (src / "000004.png").write_bytes(b"x")
    (src / "000030.png").write_bytes((src / "000029.png").read_bytes())
    make_shard(only_task(src, out), Gate)
    side = read_sidecar(out / "train-000000.json")
    assert [(r["key"], r["clip"], r["reason"], r["values"]) for r in side["left_out"]] == [
        ("clip_000000_09", "clip", "unreadable", {"frame": 4}),
        ("clip_000009_09", "clip", "gate:occluded", {"occluded": 0.4}),
        ("clip_000027_09", "clip", "duplicate", {"frame": 30}),
    ]
    assert side["left_out"][0] | {"first": 0, "last": 8, "samples": 1} == side["left_out"][0]
    assert sum(side["counts"]["rejected"].values()) == 3


def test_a_vanished_source_is_a_failure_and_no_shard(src, out):
    task = only_task(src, out)
    src.rename(src.with_name("moved"))
    outcome = make_shard(task, MeanSynthesizer)
    assert outcome.status == "failed" and str(src) in outcome.reason and "--retry-failed" in outcome.reason
    assert list(out.iterdir()) == []


def test_a_source_that_changes_under_way_is_a_failure_and_no_shard(src, out):
    class Meddler(MeanSynthesizer):
        def sample(self, *args, **kwargs):
            (src / "000039.png").write_bytes(b"rewritten meanwhile")
            return super().sample(*args, **kwargs)

    outcome = make_shard(only_task(src, out), Meddler)
    assert outcome.status == "failed" and "changed during the run" in outcome.reason
    assert list(out.iterdir()) == []


def test_out_of_memory_and_a_bug_outside_samples_fail_the_shard(src, out):
    def hungry(recipe, weights):
        raise MemoryError

    def broken(recipe, weights):
        raise KeyError("x")

    assert "memory" in make_shard(only_task(src, out), hungry).reason
    assert make_shard(only_task(src, out), broken).reason == "KeyError: 'x'"
    assert list(out.iterdir()) == []


def test_running_a_finished_task_again_touches_nothing(src, out):
    task = only_task(src, out)
    first = mean_task(task)
    stat = (out / "train-000000.tar").stat()
    again = mean_task(task)
    assert (again.samples, again.bytes) == (first.samples, first.bytes)
    assert (out / "train-000000.tar").stat().st_mtime_ns == stat.st_mtime_ns


def test_windows_are_read_in_one_pass_and_memory_holds_one(src, out, monkeypatch):
    reads, held = [], []
    import blursynth.run.windows as video

    real = video.read_frames

    def spy(info, first, last):
        for f in real(info, first, last):
            reads.append(f.index)
            yield f

    monkeypatch.setattr(video, "read_frames", spy)
    task = only_task(src, out, stride=3)
    for _, frames, fault in read_windows(task.runs[0]):
        assert fault is None
        held.append(len(frames))
    assert reads == list(range(reads[-1] + 1)), "every frame once"
    assert set(held) == {9}


def test_far_windows_skip_what_lies_between(src, monkeypatch):
    import blursynth.run.windows as video

    real, reads = video.read_frames, []
    monkeypatch.setattr(video, "read_frames", lambda i, a, b: (reads.append((a, b)), real(i, a, b))[1])
    run = plan_for(src).tasks(".").__next__().runs[0]
    far = Run(run.source, (WindowSpec(0, 0, 2), WindowSpec(0, 30, 32)))
    assert [(w.first, r) for w, _, r in read_windows(far)] == [(0, None), (30, None)]
    assert reads == [(0, 2), (22, 32)]


def test_nested_windows_of_drawn_length_all_come_out_right(src, out):
    task = only_task(src, out, window="3-11", stride=2)
    seen = {(w.first, w.last): frames for w, frames, _ in read_windows(task.runs[0])}
    assert set(seen) == {(w.first, w.last) for w in task.runs[0].windows}
    for (first, last), frames in seen.items():
        assert len(frames) == last - first + 1
        assert np.array_equal(frames[0].rgb, cv2.imread(str(src / f"{first:06d}.png"))[..., ::-1])


def test_tiles_are_cut_from_both_images_alike(src, out):
    outcome = make_shard(only_task(src, out, tile=32), MeanSynthesizer)
    got = samples(out)
    assert outcome.samples == len(got) == 8  # 64 x 48: two tiles a window
    meta = [json.loads(s["json"]) for s in got]
    assert [m["tile"]["x"] for m in meta[:2]] == [0, 32] and meta[0]["tile"]["y"] == 8
    frame = cv2.imread(str(src / "000004.png"))[..., ::-1]
    assert np.array_equal(decode_image(got[1]["sharp.png"]), frame[8:40, 32:64])
    assert len({s["__key__"] for s in got}) == 8 and meta[1]["tile"]["window"] == "clip_000000_09"


def test_webp_and_linear16(src, out):
    make_shard(only_task(src, out, format="webp", store="linear16"), MeanSynthesizer)
    s = samples(out)[0]
    assert [k for k in s if k != "__key__"] == ["blur.webp", "sharp.webp", "linear.png", "json"]
    frame = cv2.imread(str(src / "000004.png"))[..., ::-1]
    assert np.array_equal(decode_image(s["sharp.webp"]), frame)
    assert decode_image(s["linear.png"]).dtype == np.uint16


def test_each_sample_has_its_own_draws_whatever_came_before():
    a, b = sample_rng(0, "clip_000000_09").random(4), sample_rng(0, "clip_000009_09").random(4)
    assert not np.array_equal(a, b)
    assert np.array_equal(a, sample_rng(0, "clip_000000_09").random(4))
    assert not np.array_equal(a, sample_rng(1, "clip_000000_09").random(4))


def test_the_stamp_of_a_source_tells_a_change(tmp_path):
    folder = frames_folder(tmp_path / "f", 3)
    before = source_stamp(str(folder))
    os.utime(folder / "000001.png", (1, 2**31))
    assert source_stamp(str(folder)) != before
    Path(folder / "000002.png").unlink()
    assert source_stamp(str(folder))[0] == 2
