"""A Dask scheduler and single-thread workers on loopback, as a person would start them, for the benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from distributed import Client


class LocalDask:
    """``with LocalDask(folder) as dask: make(..., engine=dask.url)``.

    Args:
        config: environment variables, such as ``DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False``.
    """

    def __init__(self, folder: Path, workers: int = 2, config: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        here = str(Path(__file__).resolve().parent)
        self.folder, self.procs = folder, list[subprocess.Popen[bytes]]()
        self.env = os.environ | {"PYTHONPATH": here} | (config or {})
        file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.address = json.loads(file.read_text())["address"]
                break
            time.sleep(0.05)
        for _ in range(workers):
            self._start("worker", self.address, "--nthreads", "1", "--local-directory", str(folder))
        with self.client() as client:
            client.wait_for_workers(workers, timeout=120)
        self.url = "dask://" + self.address.removeprefix("tcp://")

    def _start(self, part: str, *argv: str) -> None:
        program = [sys.executable, "-m", f"distributed.cli.dask_{part}", *argv, "--no-dashboard"]
        log = (self.folder / f"{len(self.procs)}.log").open("wb")
        self.procs.append(
            subprocess.Popen(program, stdout=log, stderr=log, env=self.env, start_new_session=True)
        )

    def client(self) -> Client:
        return Client(self.address, timeout=60)

    def __enter__(self) -> LocalDask:
        return self

    def __exit__(self, *_: object) -> None:
        for p in reversed(self.procs):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()
