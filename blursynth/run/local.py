"""Run tasks on this machine's cores (joblib) or a cluster (Dask): one generator, whatever happens to the workers.

``dispatch`` knows nothing of tasks but their names: ``fn(task) -> Outcome`` must be idempotent and picklable.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path

from blursynth.run.outcome import TRIES, EngineError, Fn, Outcome, ShardTask, failed, guarded

__all__ = ["TRIES", "EngineError", "dispatch"]


def dispatch(
    tasks: Iterable[ShardTask], fn: Fn, workers: int = 1, engine: str = "local"
) -> Generator[Outcome, None, None]:
    """Outcomes in the order they come. Tasks are drawn lazily; closing the generator stops the workers.

    A worker that is killed costs its own task a retry; a task that kills its worker ``TRIES`` times comes back with
    status "killed". Raises EngineError.
    """
    if engine.startswith("dask://"):
        from blursynth.run.cluster import dispatch_dask

        yield from dispatch_dask(tasks, fn, "tcp://" + engine.removeprefix("dask://"))
    elif workers == 1:
        yield from (guarded(fn, task) for task in tasks)  # in this process: a debugger and a profiler see it
    else:
        yield from _local(tasks, fn, workers)


def _local(tasks: Iterable[ShardTask], fn: Fn, workers: int) -> Iterator[Outcome]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    given: dict[str, ShardTask] = {}  # handed to joblib, outcome not seen yet
    tries: Counter[str] = Counter()
    fresh, again = iter(tasks), list[ShardTask]()

    def feed() -> Iterator[ShardTask]:
        for task in chain(again, fresh):
            given[task.name] = task
            yield task

    with tempfile.TemporaryDirectory(prefix="blursynth-") as marks, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ tasks (which were|have been) ")  # stopped on purpose
        try:
            while True:
                pool = Parallel(
                    n_jobs=workers,
                    backend="loky",
                    return_as="generator_unordered",
                    batch_size=1,
                    max_nbytes=None,
                )
                try:
                    for outcome in pool(delayed(_in_worker)(fn, task, marks, os.getpid()) for task in feed()):
                        del given[outcome.name]
                        outcome.tries += tries[outcome.name]
                        yield outcome
                    return
                except BrokenProcessPool:
                    # One dead worker ends them all. Which task did it? One that had begun: try those alone, so that
                    # the guilty one hurts no other; what had not begun, or was done unseen, simply goes again.
                    begun = [t for s, t in given.items() if (Path(marks) / s).exists()]
                    again = [t for s, t in given.items() if not (Path(marks) / s).exists()]
                    given.clear()
                    for task in begun:
                        tries[task.name] += 1
                        yield _alone(fn, task, marks, tries)
        finally:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _alone(fn: Fn, task: ShardTask, marks: str, tries: Counter[str]) -> Outcome:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    while tries[task.name] < TRIES:
        # A pool of its own: joblib takes whatever lies in loky's shared one for its own kind.
        pool = ProcessPoolExecutor(max_workers=1)
        try:
            outcome = pool.submit(_in_worker, fn, task, marks, os.getpid()).result()
            outcome.tries += tries[task.name]
            return outcome
        except BrokenProcessPool:
            tries[task.name] += 1
        finally:
            pool.shutdown(wait=True, kill_workers=True)
    reason = f"its worker was killed {TRIES} times (out of memory, or a crash in a decoder)"
    return failed(task, "killed", reason, TRIES)


def _in_worker(fn: Fn, task: ShardTask, marks: str, driver: int) -> Outcome:
    """Runs in a loky worker; the mark file tells the driver, should this process die, what it died of."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the whole group; the driver decides what ends
    _watch(driver)
    if os.getppid() != driver and sys.platform != "win32":
        os._exit(1)  # the watch looks twice a second; a task must not begin in between
    mark = Path(marks) / task.name
    mark.touch()
    outcome = guarded(fn, task)
    mark.unlink(missing_ok=True)
    return outcome


_watched = False


def _watch(driver: int) -> None:
    """Die with the driver: an orphan that finishes its shard later could write over a new run's."""
    global _watched
    if _watched or sys.platform == "win32":
        return
    _watched = True

    def look() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
