"""Kills that are real: the whole process group, the driver alone, a full disk. What is left goes on to equal bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blursynth.checks.verify import verify
from blursynth.run.make import make
from blursynth.shards.pieces import pieces_folder
from blursynth.shards.shard import read_shard
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder
from tests.helpers.places import ROOT

# The real command; only what a task does is slowed down, so that a kill has something to land in.
DRIVER = """
import sys; sys.path.insert(0, {tests!r})
from tests.helpers import make_fakes
from blursynth.run.make import make
make.__kwdefaults__["task"] = make_fakes.{task}
from blursynth.cli.main import main
main({argv!r})
"""


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crash") / "src"
    for i in range(3):
        frames_folder(folder / f"clip{i}", 100, seed=i)
    return folder


@pytest.fixture(scope="module")
def whole(src, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "d"
    summary = make(src, out, interp="none", shard_samples=3, workers=1, quiet=True, task=make_fakes.mean_task)
    assert summary.samples == 33 and summary.exit_code == 0
    return digests(out)


def arguments(src, out, workers, *more):
    return [
        "make",
        "--src",
        str(src),
        "--out",
        str(out),
        "--interp",
        "none",
        "--shard-samples",
        "3",
        "--workers",
        str(workers),
        *more,
    ]


def start(src, out, workers=2, task="slow_task", held="", more=("--quiet",), preexec_fn=None, argv=None):
    """``held``: the shard that ``held_task`` never gets through with."""
    argv = argv or arguments(src, out, workers, *more)
    code = DRIVER.format(tests=str(ROOT), argv=argv, task=task)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=preexec_fn, env=os.environ | {"HELD_SHARD": held},
    )  # fmt: skip


def start_held(src, out, whole, **options):
    """A run that cannot end before it is killed, however busy the machine is: its last shard never gets done."""
    last = max(sidecars(whole)).removesuffix(".json")
    return start(src, out, task="held_task", held=last, **options)


def sidecars(names):
    return {n for n in names if n.startswith(("train-0", "val-0")) and n.endswith(".json")}


def digests(out):
    skip = {"run.jsonl", ".blursynth"}
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(out).iterdir() if p.name not in skip
    }


def wait_for_shards(process, out, n, timeout=300):
    """Until n sidecars are there, so that a kill lands in the middle whatever the machine's pace."""
    deadline = time.monotonic() + timeout
    while len(list(Path(out).glob("*-0*.json"))) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {n} shards after {timeout} s"
        time.sleep(0.005)


def check_what_is_left(out, whole):
    """Every shard under its final name is whole, and the very one a straight run makes."""
    finished = 0
    for side in Path(out).glob("*-0*.json"):
        finished += 1
        assert hashlib.sha256(side.read_bytes()).hexdigest() == whole[side.name]
    for tar in Path(out).glob("*.tar"):
        assert hashlib.sha256(tar.read_bytes()).hexdigest() == whole[tar.name]
        assert list(read_shard(tar))
    return finished


def resume(src, out):
    return make(src, out, interp="none", shard_samples=3, workers=1, quiet=True, task=make_fakes.mean_task)


def test_kill_9_of_everything_then_resume_gives_equal_bytes(src, whole, tmp_path):
    out = tmp_path / "d"
    process = start_held(src, out, whole)
    wait_for_shards(process, out, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = check_what_is_left(out, whole)
    assert 4 <= finished < len(sidecars(whole)), "killed in the middle"
    summary = resume(src, out)
    assert 0 < summary.made < 33 and summary.samples == 33
    assert digests(out) == whole


@pytest.mark.slow
def test_kill_9_under_a_large_shard_loses_the_pieces_in_work_only(src, tmp_path):
    """33 samples are one shard a split; what a worker finished of it is not made again."""
    options = {"interp": "none", "quiet": True, "task": make_fakes.mean_task}
    make(src, tmp_path / "whole", workers=1, **options)
    out = tmp_path / "d"
    argv = ["make", "--src", str(src), "--out", str(out), "--interp", "none", "--workers", "2", "--quiet"]
    process = start(src, out, argv=argv)
    folder = pieces_folder(out)
    while not folder.exists() or len(list(folder.glob("*.json"))) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = len(list(folder.glob("*.json")))
    summary = make(src, out, workers=1, **options)
    assert summary.samples == 33 and summary.made <= 33 - left + 2
    assert digests(out) == digests(tmp_path / "whole") and not folder.exists()


@pytest.mark.slow
def test_kill_9_of_the_driver_alone_then_resume_at_once(src, whole, tmp_path):
    out = tmp_path / "d"
    process = start_held(src, out, whole)
    wait_for_shards(process, out, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert resume(src, out).samples == 33, "the lock is free, and no orphan works on"
    assert digests(out) == whole
    time.sleep(1.5)
    assert digests(out) == whole


@pytest.mark.parametrize(
    ("sign", "workers"), [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow)]
)
def test_ctrl_c_and_sigterm_stop_cleanly(src, whole, tmp_path, sign, workers):
    out = tmp_path / "d"
    # A test run in a shell's background inherits an ignored SIGINT, and so would the command under test.
    process = start_held(
        src, out, whole, workers=workers, more=(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for_shards(process, out, 2)
    os.killpg(process.pid, sign) if sign == signal.SIGINT else os.kill(process.pid, sign)
    _, err = process.communicate(timeout=300)
    assert process.returncode == (130 if sign == signal.SIGINT else 143), err
    assert "the same command goes on" in err and "Traceback" not in err, err
    assert not list(out.glob("*.part")), "nothing half is left"
    assert json.loads((out / "run.jsonl").read_text().splitlines()[-1])["event"] == "stopped"
    command = [str(Path(sys.executable).with_name("blursynth")), *arguments(src, out, workers)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.startswith("33 samples")
    assert verify(out).problems == []


def test_a_second_driver_is_turned_away_while_the_first_works(src, whole, tmp_path):
    out = tmp_path / "d"
    process = start_held(src, out, whole)
    wait_for_shards(process, out, 1)
    second = start(src, out)
    _, err = second.communicate(timeout=300)
    assert second.returncode == 1 and "another make is at work" in err and str(process.pid) in err
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_file_size_limit_ends_the_run_with_one_line_and_nothing_half(src, whole, tmp_path):
    """What a quota does; also stands in for a full disk where a small one cannot be mounted."""
    out = tmp_path / "d"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(src, out, workers=1, preexec_fn=limit)
    stdout, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in err and "File too large" in stdout + err, (
        stdout,
        err,
    )
    assert not list(out.glob("*.part")) and not list(out.glob("*.tar"))
    assert resume(src, out).samples == 33
    assert digests(out) == whole


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 300 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(mount)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root; the file size limit test covers the same path")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_with_one_line_and_what_is_finished_stays(src, whole, small_disk, workers):
    out = small_disk / "d"
    process = start(src, out, workers)
    stdout, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in err and "No space left" in stdout + err, (
        stdout,
        err,
    )
    assert not list(out.glob("*.part"))
    finished = check_what_is_left(out, whole)
    assert finished > 0
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert resume(src, out).samples == 33
    assert digests(out) == whole


def test_a_read_only_disk_is_one_line(src, small_disk):
    (small_disk / "d").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    process = start(src, small_disk / "d", workers=1)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "Read-only" in err and "Traceback" not in err


@pytest.mark.slow
def test_killed_at_random_moments_again_and_again(src, whole, tmp_path):
    """Each trial is killed three times, at any moment from its start on: nothing lost, nothing doubled."""
    rng, total = random.Random(0), len(sidecars(whole))
    for trial in range(4):
        out = tmp_path / str(trial)
        for _ in range(3):
            have = len(list(out.glob("*-0*.json")))
            process = start_held(src, out, whole)
            # Half of the kills land in the start, before the first new shard; the others anywhere after it.
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0.2, 2))
            else:
                wait_for_shards(process, out, rng.randint(have, total - 1))
                time.sleep(rng.uniform(0, 0.1))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            check_what_is_left(out, whole)
        assert resume(src, out).samples == 33
        assert digests(out) == whole, trial
