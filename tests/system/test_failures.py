"""What befalls a run of days, really done: the run goes on without it, says so, ends with 1, and ``retry_failed`` makes
just what is missing. Killed drivers and full disks are in test_crash, killed workers in test_engine and test_make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from blursynth.checks.verify import verify
from tests.blursynth.run.test_local import Cluster
from tests.blursynth.run.test_make import digests, run
from tests.helpers import make_fakes
from tests.helpers.films import moving, write_video
from tests.helpers.make_fakes import frames_folder

BLURSYNTH = str(Path(sys.executable).with_name("blursynth"))


@pytest.fixture
def src(tmp_path):
    for i in range(3):
        frames_folder(tmp_path / "src" / f"clip{i}", 40, seed=i)
    return tmp_path / "src"


@pytest.fixture
def whole(src, tmp_path):
    run(src, tmp_path / "whole")
    return digests(tmp_path / "whole")


def retried(src, out, **options):
    """The shards that ``retry_failed`` asked for."""
    asked = []

    def spy(task):
        asked.append(task.shard)
        return make_fakes.mean_task(task)

    assert run(src, out, task=spy, retry_failed=True, **options).exit_code == 0
    return sorted(asked)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process by its address space")
def test_a_worker_out_of_memory_fails_its_shards_only(src, whole, tmp_path):
    summary = run(src, tmp_path / "a", task=make_fakes.hungry_task, workers=2)
    assert summary.exit_code == 1 and summary.samples == 8 and len(summary.failed) == 4
    assert all("out of memory; use fewer --workers" in why for why in summary.failed.values())
    assert "--retry-failed" in str(summary)
    assert retried(src, tmp_path / "a") == sorted(summary.failed)
    assert digests(tmp_path / "a") == whole


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_for_its_memory_costs_its_task_only(src, whole, tmp_path):
    """Its nanny kills it at 95% of --memory-limit, as a cluster's out-of-memory killer does."""
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask", more=("--memory-limit", "1GB"))
    try:
        summary = run(src, tmp_path / "a", engine=cluster.url, task=make_fakes.bloated_task)
    finally:
        cluster.close()
    assert summary.exit_code == 1 and list(summary.failed) == ["train-000002"] and summary.samples == 11
    assert "killed" in summary.failed["train-000002"]
    assert (
        json.loads((tmp_path / "a" / "failed.json").read_text())["failed"]["train-000002"]["status"]
        == "killed"
    )
    assert retried(src, tmp_path / "a") == ["train-000002"]
    assert digests(tmp_path / "a") == whole


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_and_any_engine_goes_on(src, whole, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    last = max(n for n in whole if n.startswith("val-") and n.endswith(".json")).removesuffix(".json")
    monkeypatch.setenv("HELD_SHARD", last)  # no run that has lost its scheduler can end before it notices
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask")
    out = tmp_path / "a"

    def kill_in_the_middle():
        while len(list(out.glob("*-0*.json"))) < 3:
            time.sleep(0.01)
        os.killpg(cluster.scheduler.pid, signal.SIGKILL)

    try:
        threading.Thread(target=kill_in_the_middle, daemon=True).start()
        summary = run(src, out, engine=cluster.url, task=make_fakes.held_task)
    finally:
        cluster.close()
    assert summary.exit_code == 1 and "lost the Dask scheduler" in summary.stopped
    assert not summary.failed, "no shard is to blame"
    assert 3 <= len(list(out.glob("*-0*.json"))) < 12
    assert run(src, out, workers=2).exit_code == 0
    assert digests(out) == whole


def test_a_clip_that_is_damaged_under_way_fails_its_shards_only(src, whole, tmp_path):
    frame = src / "clip1" / "000020.png"
    sound = frame.read_bytes()

    def damage_then(task):
        if task.shard == "train-000001":
            frame.write_bytes(sound[: len(sound) // 2])
        return make_fakes.mean_task(task)

    summary = run(src, tmp_path / "a", task=damage_then)
    assert summary.exit_code == 1 and summary.failed
    assert all("clip1: changed during the run" in why for why in summary.failed.values())
    frame.write_bytes(sound)
    assert retried(src, tmp_path / "a") == sorted(summary.failed)
    assert digests(tmp_path / "a") == whole


def test_clips_that_are_damaged_from_the_start_are_named_and_counted(tmp_path):
    """No retry mends them: the data set is what the sound frames give, says what was left out and why, and ends with 1."""
    src = tmp_path / "src"
    src.mkdir()
    write_video(src / "good.mp4", moving(30))
    for name, seed in (("cut", 1), ("rotten", 2), ("text", 3)):
        write_video(src / f"{name}.mp4", moving(30, seed=seed))
    cut = (src / "cut.mp4").read_bytes()
    (src / "cut.mp4").write_bytes(cut[: len(cut) * 2 // 3])
    rotten = bytearray((src / "rotten.mp4").read_bytes())
    rotten[len(rotten) // 2 : len(rotten) // 2 + 2000] = bytes(2000)
    (src / "rotten.mp4").write_bytes(bytes(rotten))
    (src / "text.mp4").write_text("not a film")
    done = subprocess.run(
        [BLURSYNTH, "make", "--src", str(src), "--out", str(tmp_path / "d"), "--interp", "none", "--workers", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and done.returncode == 1, done.stderr
    assert "some sources are damaged" in done.stdout
    assert "text.mp4" in done.stdout and "rejected" in done.stdout, done.stdout
    index = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert ["text.mp4" in n["source"] for n in index["not_used"]] == [True], index["not_used"]
    report = verify(tmp_path / "d")
    assert report.problems == [] and 3 <= report.samples < 9


@pytest.mark.slow
@pytest.mark.parametrize("interp", ["dis", "deepflow"])
def test_the_same_bytes_on_one_core_and_on_all(tmp_path, interp):
    """The whole command, whose libraries choose their threads by the cores they may use."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs Linux and two cores")
    for i in range(2):
        frames_folder(tmp_path / "src" / f"clip{i}", 11, size=(96, 64), seed=i)
    core = min(os.sched_getaffinity(0))
    found = []
    for name, cores, workers in (("one", {core}, 1), ("all", os.sched_getaffinity(0), 1), ("two", {core}, 2)):
        out = tmp_path / name
        argv = [BLURSYNTH, "make", "--src", str(tmp_path / "src"), "--out", str(out), "--interp", interp]
        done = subprocess.run(
            [*argv, "--window", "5", "--workers", str(workers), "--gate", "off"], capture_output=True, text=True,
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(digests(out))
    assert found[0] == found[1] == found[2] and len([n for n in found[0] if n.endswith(".tar")]) >= 2
