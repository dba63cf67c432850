"""Engines: every task once, whatever is killed. The kills are real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from blursynth.run.local import TRIES, EngineError, dispatch
from blursynth.run.outcome import Outcome
from tests.helpers import make_fakes
from tests.helpers.places import ROOT


def die_on(numbers, task) -> Outcome:
    """SIGKILL on these shards, every time."""
    if int(task.shard[-6:]) in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return Outcome(task.shard, samples=1)


def die_once(folder, numbers, task) -> Outcome:
    mark = Path(folder) / task.shard
    if int(task.shard[-6:]) in numbers and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.shard, samples=1)


def raise_on_one(task) -> Outcome:
    if task.shard.endswith("1"):
        raise RuntimeError("a bug")
    return Outcome(task.shard, samples=1)


def whoami(task) -> Outcome:
    time.sleep(0.05)
    return Outcome(task.shard, worker=str(os.getpid()))


def meet(folder, task) -> Outcome:
    """Ends once two processes are at it: no worker can do all before the other has started."""
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + 300
    while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return Outcome(task.shard, worker=str(os.getpid()))


def gone(pids, seconds=120) -> bool:
    deadline = time.monotonic() + seconds
    while any(_alive(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(_alive(p) for p in pids)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_comes_back_once(workers):
    got = [o.shard for o in dispatch(make_fakes.empty_tasks(25), make_fakes.echo_task, workers)]
    assert sorted(got) == [f"train-{i:06d}" for i in range(25)]


def test_two_workers_are_two_processes_and_one_is_this_one(tmp_path):
    outcomes = list(dispatch(make_fakes.empty_tasks(12), partial(meet, str(tmp_path)), 2))
    assert len({o.worker for o in outcomes} - {str(os.getpid())}) == 2
    assert {o.worker for o in dispatch(make_fakes.empty_tasks(3), whoami, 1)} == {str(os.getpid())}


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_are_drawn_lazily(workers):
    drawn = []

    def tasks():
        for t in make_fakes.empty_tasks(500):
            drawn.append(t)
            yield t

    outcomes = dispatch(tasks(), make_fakes.nap_task if workers == 2 else make_fakes.echo_task, workers)
    next(outcomes)
    assert 1 <= len(drawn) <= 12
    outcomes.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_costs_its_own_task_only(workers):
    got = {o.shard: o for o in dispatch(make_fakes.empty_tasks(4), raise_on_one, workers)}
    assert len(got) == 4
    bad = got["train-000001"]
    assert (bad.status, bad.reason) == ("failed", "RuntimeError: a bug")
    assert all(o.status == "done" for s, o in got.items() if s != "train-000001")


def test_a_task_that_kills_its_worker_is_left_out_and_hurts_no_other():
    outcomes = list(dispatch(make_fakes.empty_tasks(9), partial(die_on, {3}), 2))
    assert sorted(o.shard for o in outcomes) == [f"train-{i:06d}" for i in range(9)], "none lost nor doubled"
    killed = {o.shard: o for o in outcomes if o.status != "done"}
    assert set(killed) == {"train-000003"}
    assert all(o.status == "killed" and o.tries == TRIES and "killed" in o.reason for o in killed.values())


def test_a_worker_killed_once_costs_nothing_but_time(tmp_path):
    outcomes = list(dispatch(make_fakes.empty_tasks(10), partial(die_once, str(tmp_path), {5}), 2))
    assert sorted(o.shard for o in outcomes) == [f"train-{i:06d}" for i in range(10)]
    assert all(o.status == "done" for o in outcomes)
    assert (tmp_path / "train-000005").exists(), "it did die"


def test_closing_the_generator_ends_the_workers():
    outcomes = dispatch(make_fakes.empty_tasks(200), whoami, 2)
    pids = {int(next(outcomes).worker) for _ in range(8)}
    outcomes.close()
    assert pids and gone(pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_die_with_a_killed_driver(tmp_path):
    """An orphan that wrote its shard minutes later could write over a new run's."""
    code = (
        "from tests.helpers import make_fakes; from tests.blursynth.run import test_local; from blursynth.run.local import dispatch\n"
        "for o in dispatch(make_fakes.empty_tasks(1000), test_local.whoami, 2): print(o.worker, flush=True)"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert driver.stdout
    pids = {int(driver.stdout.readline()) for _ in range(8)}
    assert all(_alive(p) for p in pids)
    driver.kill()
    driver.wait()
    assert gone(pids)


def test_an_unknown_scheduler_is_named(monkeypatch):
    pytest.importorskip("distributed", reason="the cluster extra")
    monkeypatch.setattr("blursynth.run.cluster.WORKERS_WAIT_S", 1)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        list(dispatch(make_fakes.empty_tasks(1), make_fakes.echo_task, engine="dask://127.0.0.1:9"))


def test_without_distributed_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"\[cluster\]"):
        list(dispatch(make_fakes.empty_tasks(1), make_fakes.echo_task, engine="dask://127.0.0.1:9"))


class Cluster:
    """A real scheduler and worker processes on loopback."""

    def __init__(self, tmp: Path, workers: int = 2, more: tuple[str, ...] = ()) -> None:
        self.env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.tmp, self.procs = tmp, []
        file = tmp / "scheduler.json"
        base = [sys.executable, "-m"]
        self.scheduler = self.start(
            [
                *base,
                "distributed.cli.dask_scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
                "--scheduler-file",
                str(file),
            ]
        )
        self.address = self.wait_for_address(file).removeprefix("tcp://")
        self.url = f"dask://{self.address}"
        # --nanny: what restarts a killed worker on a real cluster
        self.workers = [
            self.start(
                [
                    *base,
                    "distributed.cli.dask_worker",
                    f"tcp://{self.address}",
                    "--nthreads",
                    "1",
                    "--nanny",
                    "--no-dashboard",
                    "--local-directory",
                    str(tmp),
                    *more,
                ]
            )
            for _ in range(workers)
        ]

        # Both are there before a test begins: one that starts late would find the tasks done.
        from distributed import Client

        with Client(f"tcp://{self.address}", timeout=120) as client:
            client.wait_for_workers(workers, timeout=300)

    def wait_for_address(self, file: Path, seconds: float = 300) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
                return json.loads(file.read_text())["address"]
            assert self.scheduler.poll() is None, (self.tmp / "dask-0.log").read_text()
            time.sleep(0.05)
        raise AssertionError(f"no Dask scheduler after {seconds} s")

    def start(self, argv):
        log = (self.tmp / f"dask-{len(self.procs)}.log").open("w")
        p = subprocess.Popen(argv, env=self.env, stdout=log, stderr=log, start_new_session=True)
        self.procs.append(p)
        return p

    def close(self):
        for p in reversed(self.procs):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    c = Cluster(tmp_path)
    try:
        yield c
    finally:
        c.close()


@pytest.mark.slow
def test_dask_runs_every_task_once_and_survives_kills(cluster, tmp_path):
    met, marks = tmp_path / "met", tmp_path / "marks"
    met.mkdir()
    marks.mkdir()
    outcomes = list(dispatch(make_fakes.empty_tasks(30), partial(meet, str(met)), engine=cluster.url))
    assert sorted(o.shard for o in outcomes) == [f"train-{i:06d}" for i in range(30)]
    assert len({o.worker for o in outcomes}) == 2

    outcomes = list(
        dispatch(make_fakes.empty_tasks(12), partial(die_once, str(marks), {4}), engine=cluster.url)
    )
    assert sorted(o.shard for o in outcomes) == [f"train-{i:06d}" for i in range(12)]
    assert all(o.status == "done" for o in outcomes) and (marks / "train-000004").exists()

    got = {o.shard: o for o in dispatch(make_fakes.empty_tasks(5), raise_on_one, engine=cluster.url)}
    assert got["train-000001"].reason == "RuntimeError: a bug" and len(got) == 5


@pytest.mark.slow
def test_dask_leaves_out_a_task_that_kills_its_workers(cluster):
    got = {o.shard: o for o in dispatch(make_fakes.empty_tasks(8), partial(die_on, {2}), engine=cluster.url)}
    assert len(got) == 8 and got["train-000002"].status == "killed"
    assert all(o.status == "done" for s, o in got.items() if s != "train-000002")


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_with_a_word(cluster):
    outcomes = dispatch(make_fakes.empty_tasks(200), make_fakes.nap_task, engine=cluster.url)
    next(outcomes)
    threading.Timer(0.5, lambda: os.killpg(cluster.scheduler.pid, signal.SIGKILL)).start()
    with pytest.raises(EngineError, match="lost the Dask scheduler"):
        list(outcomes)
