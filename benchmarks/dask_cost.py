"""What Dask costs beside joblib on the same work, and what a worker killed in the middle of a run costs.

    python benchmarks/dask_cost.py [--rounds 8] [--tasks 48] [--kills 4] [--interp dis] [--size 320 180]

Both engines have two workers of one thread and do the same tasks (a sample each) in turn, a round each, in one run: the ratio
of a round is of neighbours in time. The rate is of the last three quarters of a round's tasks: joblib starts its processes
anew each round, Dask's wait for work, and neither matters in a run of hours. Where other programs run beside, the ratio of
CPU time says more: of the driver, the workers, and Dask's scheduler and nannies, for the tasks beyond the first few. For the kill, runs with and without one alternate too: a worker is killed (SIGKILL, its
nanny starts another) while it is in the middle of a task, at a third of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil
from dask_cluster import LocalDask
from kill_resume import digests, make_source

from blursynth.run.make import make

FEW = 4  # tasks of the run that tells what starting costs


def seconds(root: Path, name: str, **options: Any) -> float:
    """Of the tasks alone: planning and hashing are the same for both, and not the engine's."""
    summary = make(root / "src", root / name, shard_samples=1, workers=2, quiet=True, **options)
    assert summary.exit_code == 0, str(summary)
    return summary.seconds


def tasks_per_second(out: Path) -> float:
    """From a quarter of the tasks on."""
    rows = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    times = [datetime.fromisoformat(r["time"]).timestamp() for r in rows if r["event"] == "shard"]
    quarter = len(times) // 4
    return (len(times) - 1 - quarter) / (times[-1] - times[quarter])


def cpu_seconds(dask: LocalDask) -> float:
    """Of this process, of its children that have ended (joblib's workers), and of Dask's processes."""
    total = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for top in dask.procs:
        with contextlib.suppress(psutil.NoSuchProcess):
            for p in (psutil.Process(top.pid), *psutil.Process(top.pid).children(recursive=True)):
                total += p.cpu_times().user + p.cpu_times().system
    return total


def task_seconds(out: Path) -> float:
    """The longest task of a run."""
    rows = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    return max(r["seconds"] for r in rows if r["event"] == "shard")


def kill_one(dask: LocalDask, out: Path, at: int, killed: list[float]) -> None:
    """Kill a worker's process, not its nanny, once ``at`` shards are finished."""
    with dask.client() as client:
        pid = min(client.run(os.getpid).values())
        while len(list(out.glob("*-0*.json"))) < at:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        killed.append(time.monotonic())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=48)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--interp", default="dis")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 180))
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dask-cost-") as tmp:
        root = Path(tmp)
        make_source(root / "src", clips=6, frames=-(-a.tasks // 6) * 9, size=tuple(a.size))
        options: dict[str, Any] = {"interp": a.interp, "max_samples": a.tasks, "gate": "off"}
        with LocalDask(root / "cluster") as dask:
            for engine in ("local", dask.url):  # compile, start
                seconds(root, f"warm-{engine[:4]}", **options | {"engine": engine, "max_samples": 8})
            ratios, cpu_ratios = list[float](), list[float]()
            for i in range(a.rounds):
                rate, cpu = dict.fromkeys(("local", "dask"), 0.0), dict.fromkeys(("local", "dask"), 0.0)
                for e in ("local", "dask") if i % 2 else ("dask", "local"):
                    options["engine"] = dask.url if e == "dask" else e
                    before = cpu_seconds(dask)
                    seconds(root, f"few-{e}{i}", **options | {"max_samples": FEW})
                    between = cpu_seconds(dask)
                    seconds(root, f"{e}{i}", **options)
                    cpu[e] = (cpu_seconds(dask) - between) - (between - before)
                    rate[e] = tasks_per_second(root / f"{e}{i}")
                assert digests(root / f"local{i}") == digests(root / f"dask{i}")
                ratios.append(rate["dask"] / rate["local"])
                cpu_ratios.append(cpu["dask"] / cpu["local"])
                print(
                    f"round {i}: joblib {rate['local']:.2f} tasks/s, dask {rate['dask']:.2f}, ratio {ratios[-1]:.3f}; "
                    f"CPU {cpu['local']:.1f} s, {cpu['dask']:.1f} s, ratio {cpu_ratios[-1]:.3f}",
                    flush=True,
                )
            middle, spread = statistics.median(ratios), sorted(ratios)
            print(
                f"dask's rate is {middle:.3f} of joblib's (median of {a.rounds} rounds, {spread[0]:.2f} to {spread[-1]:.2f}); "
                f"its CPU time {statistics.median(cpu_ratios):.3f} of joblib's ({min(cpu_ratios):.2f} to {max(cpu_ratios):.2f}); "
                "the same bytes",
                flush=True,
            )
            options["engine"] = dask.url
            extra = []
            for i in range(a.kills):
                plain = seconds(root, f"plain{i}", **options)
                killed: list[float] = []
                out = root / f"killed{i}"
                killer = threading.Thread(target=kill_one, args=(dask, out, a.tasks // 3, killed))
                killer.start()
                took_killed = seconds(root, f"killed{i}", **options)
                killer.join()
                assert killed and digests(out) == digests(root / "local0")
                extra.append(took_killed - plain)
                print(
                    f"kill {i}: {plain:.1f} s without, {took_killed:.1f} s with: {extra[-1]:+.1f} s; "
                    f"longest task {task_seconds(out):.2f} s; the same bytes",
                    flush=True,
                )
            print(
                f"a killed worker costs {statistics.median(extra):.1f} s (median of {a.kills}; largest {max(extra):.1f} s)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
