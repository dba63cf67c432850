"""What Dask costs beside joblib on the same work, and what a worker killed in the middle of a run costs.

    python benchmarks/dask_cost.py [--rounds 5] [--tasks 120] [--kills 4] [--interp dis]

Both engines have two workers of one thread and do the same tasks (a sample each) in turn, a round each, in one run: the ratio
of a round is of neighbours in time. For the kill, runs with and without one alternate too: a worker is killed (SIGKILL, its
nanny starts another) while it is in the middle of a task, at a third of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dask_cluster import LocalDask
from kill_resume import digests, make_source

from blursynth.make import make


def seconds(root: Path, name: str, **options: Any) -> float:
    """Of the tasks alone: planning and hashing are the same for both, and not the engine's."""
    summary = make(root / "src", root / name, shard_samples=1, workers=2, quiet=True, **options)
    assert summary.exit_code == 0, str(summary)
    return summary.seconds


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=120)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--interp", default="dis")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 270))
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dask-cost-") as tmp:
        root = Path(tmp)
        make_source(root / "src", clips=6, frames=-(-a.tasks // 6) * 9, size=tuple(a.size))
        options: dict[str, Any] = {"interp": a.interp, "max_samples": a.tasks, "gate": "off"}
        with LocalDask(root / "cluster") as dask:
            for engine in ("local", dask.url):  # compile, start
                seconds(root, f"warm-{engine[:4]}", engine=engine, **options | {"max_samples": 8})
            ratios = []
            for i in range(a.rounds):
                took = dict.fromkeys(("local", "dask"), 0.0)
                for e in ("local", "dask") if i % 2 else ("dask", "local"):
                    took[e] = seconds(root, f"{e}{i}", engine=dask.url if e == "dask" else e, **options)
                assert digests(root / f"local{i}") == digests(root / f"dask{i}")
                ratios.append(took["dask"] / took["local"])
                print(
                    f"round {i}: joblib {took['local']:.1f} s ({a.tasks / took['local']:.2f} tasks/s), "
                    f"dask {took['dask']:.1f} s, ratio {ratios[-1]:.3f}",
                    flush=True,
                )
            middle = statistics.median(ratios)
            print(f"dask takes {middle:.3f} of joblib's time (median of {a.rounds} rounds); the same bytes")
            extra = []
            for i in range(a.kills):
                plain = seconds(root, f"plain{i}", engine=dask.url, **options)
                killed: list[float] = []
                out = root / f"killed{i}"
                killer = threading.Thread(target=kill_one, args=(dask, out, a.tasks // 3, killed))
                killer.start()
                took_killed = seconds(root, f"killed{i}", engine=dask.url, **options)
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
