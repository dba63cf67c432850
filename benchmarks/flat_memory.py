"""Is memory flat over thousands of tasks, and what does Dask cost beside joblib on the same work?

    python benchmarks/flat_memory.py [--tasks 2000] [--engines local,dask]

Runs `make` with one sample a shard on small frames and 2 workers (Dask: 2 single-thread worker processes on
loopback), and reads the memory of the driver and of every process below it while tasks finish.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from kill_resume import make_source

from blursynth.make import make
from blursynth.outcome import Outcome
from blursynth.plan import ShardTask
from blursynth.task import make_shard


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
            procs: list[subprocess.Popen[bytes]] = []
            url = "local"
            if engine == "dask":
                env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent)}
                file = root / "scheduler.json"
                base = [sys.executable, "-m"]
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
                procs.append(
                    subprocess.Popen(
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
                        ],
                        **quiet,
                    )
                )
                while not file.exists():
                    time.sleep(0.05)
                address = json.loads(file.read_text())["address"]
                procs += [
                    subprocess.Popen(
                        [
                            *base,
                            "distributed.cli.dask_worker",
                            address,
                            "--nthreads",
                            "1",
                            "--no-dashboard",
                            "--local-directory",
                            str(root),
                        ],
                        **quiet,
                    )
                    for _ in range(2)
                ]
                url = "dask://" + address.removeprefix("tcp://")
            try:
                # Warm up: workers start and compile outside of what is timed.
                make(
                    root / "src",
                    root / f"warm-{engine}",
                    interp="none",
                    workers=2,
                    engine=url,
                    max_samples=4,
                    quiet=True,
                    task=measured,
                )
                driver = [own_mb()]
                began = time.monotonic()
                summary = make(
                    root / "src",
                    root / engine,
                    interp="none",
                    workers=2,
                    engine=url,
                    shard_samples=1,
                    max_samples=a.tasks,
                    quiet=True,
                    task=measured,
                )
                driver.append(own_mb())
                assert summary.exit_code == 0 and summary.shards_done == a.tasks, summary
                tell(root / engine, driver, time.monotonic() - began, a.tasks, engine)
            finally:
                for p in reversed(procs):
                    p.terminate()
                    p.wait()


if __name__ == "__main__":
    main()
