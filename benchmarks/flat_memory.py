"""Is memory flat over thousands of tasks, and what does Dask cost beside joblib on the same work?

    python benchmarks/flat_memory.py [--tasks 2000] [--engines local,dask,dask-noprofile,dask-shortlog]

Runs `make` with one sample a shard on small frames and 2 workers (Dask: 2 single-thread worker processes on
loopback), and reads the memory of the driver and of the workers while tasks finish. For Dask also what its workers
keep of their own: the history of its statistical profiler, an entry a second, 1,000 entries at most
(distributed.admin.low-level-log-length). `dask-noprofile` switches the profiler off, `dask-shortlog` keeps 20 entries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from dask_cluster import LocalDask
from kill_resume import make_source

from blursynth.run.make import make
from blursynth.run.outcome import Outcome, ShardTask
from blursynth.run.task import make_shard

CONFIG: dict[str, dict[str, str]] = {
    "dask": {},
    "dask-noprofile": {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"},
    "dask-shortlog": {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "20"},
}


def own_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def measured(task: ShardTask) -> Outcome:
    """A task that tells the memory its worker holds now, not at its peak."""
    outcome = make_shard(task)
    outcome.peak_mb = own_mb()
    return outcome


def kept(dask_worker: Any = None) -> str:
    """Runs in a Dask worker: how much its own records hold, and how many entries they may have."""
    told = []
    for name in ("profile_history", "profile_keys_history", "transfer_incoming_log", "transfer_outgoing_log"):
        log = getattr(dask_worker, name)
        told.append(f"{name} {len(log)} of {log.maxlen} entries, {deep_bytes(log) / 2**20:.1f} MB")
    state = dask_worker.state
    for name in ("log", "stimulus_log"):
        log = getattr(state, name)
        told.append(f"{name} {len(log)} of {log.maxlen} entries, {deep_bytes(log) / 2**20:.1f} MB")
    return "; ".join(told) + f"; tasks {len(state.tasks)}"


def deep_bytes(value: Any) -> int:
    """Bytes of an object and all it holds, each counted once."""
    seen, todo, total = set(), [value], 0
    while todo:
        v = todo.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        total += sys.getsizeof(v)
        if isinstance(v, dict):
            todo += [*v.keys(), *v.values()]
        elif isinstance(v, (list, tuple, set, frozenset, deque)):
            todo += list(v)
        elif hasattr(v, "__dict__"):
            todo += list(vars(v).values())
    return total


def tell(out: Path, driver: list[float], seconds: float, tasks: int, engine: str) -> None:
    rows = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    worker = [r["peak_mb"] for r in rows if r["event"] == "shard"]
    q = max(len(worker) // 4, 1)
    print(
        f"{engine}: {tasks} tasks in {seconds:.1f} s, {tasks / seconds:.2f}/s; worker MB, median of each quarter: "
        + ", ".join(f"{np.median(worker[i * q : (i + 1) * q]):.0f}" for i in range(4))
        + f"; driver MB before {driver[0]:.0f}, after {driver[-1]:.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--engines", default="local,dask")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flat-memory-") as tmp:
        root = Path(tmp)
        make_source(root / "src", clips=20, frames=-(-a.tasks // 20) * 9, size=(96, 64))
        for engine in a.engines.split(","):
            with contextlib.ExitStack() as stack:
                dask, url = None, engine
                if engine != "local":
                    dask = stack.enter_context(LocalDask(root / f"cluster-{engine}", config=CONFIG[engine]))
                    url = dask.url
                options: dict[str, Any] = {"interp": "none", "workers": 2, "engine": url, "quiet": True}
                # Warm up: workers start and compile outside of what is timed.
                make(root / "src", root / f"warm-{engine}", max_samples=4, task=measured, **options)
                driver, began = [own_mb()], time.monotonic()
                summary = make(
                    root / "src", root / engine, shard_samples=1, max_samples=a.tasks, task=measured, **options
                )  # fmt: skip
                driver.append(own_mb())
                assert summary.exit_code == 0 and summary.shards_done == a.tasks, summary
                tell(root / engine, driver, time.monotonic() - began, a.tasks, engine)
                if dask is not None:
                    with dask.client() as client:
                        print("  kept by a worker:", sorted(client.run(kept).values())[-1], flush=True)


if __name__ == "__main__":
    main()
