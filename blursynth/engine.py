"""Run tasks on this machine's cores (joblib) or a cluster (Dask): one generator, whatever happens to the workers.

``dispatch`` knows nothing of shards but their names: ``fn(task) -> Outcome`` must be idempotent and picklable.
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
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import chain
from pathlib import Path
from typing import Any

from blursynth.plan import ShardTask
from blursynth.task import Outcome

TRIES = 3  # a task that takes its worker down this often is left out
WORKERS_WAIT_S = 30
LOST_AFTER_S = 10
CANCELLED_MOST = 10

Fn = Callable[[ShardTask], Outcome]


class EngineError(Exception):
    """An engine that cannot run at all, or was lost; the message says what to do."""


def dispatch(
    tasks: Iterable[ShardTask], fn: Fn, workers: int = 1, engine: str = "local"
) -> Generator[Outcome, None, None]:
    """Outcomes in the order they come. Tasks are drawn lazily; closing the generator stops the workers.

    A worker that is killed costs its own task a retry; a task that kills its worker ``TRIES`` times comes back with
    status "killed". Raises EngineError.
    """
    if engine.startswith("dask://"):
        yield from _dask(tasks, fn, "tcp://" + engine.removeprefix("dask://"))
    elif workers == 1:
        yield from (_guarded(fn, task) for task in tasks)  # in this process: a debugger and a profiler see it
    else:
        yield from _local(tasks, fn, workers)


def _guarded(fn: Fn, task: ShardTask) -> Outcome:
    try:
        return fn(task)
    except Exception as e:
        return Outcome(task.shard, "failed", f"{type(e).__name__}: {e}")


# --- this machine -----------------------------------------------------------------------------------------------


def _local(tasks: Iterable[ShardTask], fn: Fn, workers: int) -> Iterator[Outcome]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    given: dict[str, ShardTask] = {}  # handed to joblib, outcome not seen yet
    tries: Counter[str] = Counter()
    fresh, again = iter(tasks), list[ShardTask]()

    def feed() -> Iterator[ShardTask]:
        for task in chain(again, fresh):
            given[task.shard] = task
            yield task

    with tempfile.TemporaryDirectory(prefix="blursynth-") as marks, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "[0-9]+ tasks which were still being processed"
        )  # stopped on purpose
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
                        del given[outcome.shard]
                        outcome.tries += tries[outcome.shard]
                        yield outcome
                    return
                except BrokenProcessPool:
                    # One dead worker ends them all. Which task did it? One that had begun: try those alone, so that
                    # the guilty one hurts no other; what had not begun, or was done unseen, simply goes again.
                    begun = [t for s, t in given.items() if (Path(marks) / s).exists()]
                    again = [t for s, t in given.items() if not (Path(marks) / s).exists()]
                    given.clear()
                    for task in begun:
                        tries[task.shard] += 1
                        yield _alone(fn, task, marks, tries)
        finally:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _alone(fn: Fn, task: ShardTask, marks: str, tries: Counter[str]) -> Outcome:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    while tries[task.shard] < TRIES:
        # A pool of its own: joblib takes whatever lies in loky's shared one for its own kind.
        pool = ProcessPoolExecutor(max_workers=1)
        try:
            outcome = pool.submit(_in_worker, fn, task, marks, os.getpid()).result()
            outcome.tries += tries[task.shard]
            return outcome
        except BrokenProcessPool:
            tries[task.shard] += 1
        finally:
            pool.shutdown(wait=True, kill_workers=True)
    return Outcome(
        task.shard,
        "killed",
        f"its worker was killed {TRIES} times (out of memory, or a crash in a decoder)",
        tries=TRIES,
    )


def _in_worker(fn: Fn, task: ShardTask, marks: str, driver: int) -> Outcome:
    """Runs in a loky worker; the mark file tells the driver, should this process die, what it died of."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the whole group; the driver decides what ends
    _watch(driver)
    if os.getppid() != driver and sys.platform != "win32":
        os._exit(1)  # the watch looks twice a second; a task must not begin in between
    mark = Path(marks) / task.shard
    mark.touch()
    outcome = _guarded(fn, task)
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


# --- a cluster --------------------------------------------------------------------------------------------------


def _dask(tasks: Iterable[ShardTask], fn: Fn, address: str) -> Iterator[Outcome]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise EngineError(
            "--engine dask://... needs dask.distributed: pip install 'blursynth[cluster]'"
        ) from None
    import logging

    logging.getLogger("distributed").setLevel(
        logging.ERROR
    )  # reconnect chatter; what matters is raised below
    try:
        client = Client(address, timeout=WORKERS_WAIT_S)
    except (OSError, TimeoutError, ValueError) as e:
        raise EngineError(
            f"no Dask scheduler answers at {address} ({e}); start one with: dask scheduler"
        ) from None
    with client:
        slots = _check_workers(client, address)
        fresh = iter(tasks)
        done = as_completed(raise_errors=False)
        names: dict[Any, ShardTask] = {}

        def give(task: ShardTask | None) -> None:
            if task is not None:
                # pure=False: the same task given again must run again.
                future = client.submit(_guarded, fn, task, pure=False, retries=TRIES - 1)
                names[future.key] = task
                done.add(future)

        for _ in range(
            4 * slots
        ):  # a few a slot: workers never wait, and a million tasks never lie in the scheduler
            give(next(fresh, None))
        cancelled: Counter[str] = Counter()
        while names:
            future = _next_future(done, client, address)
            task = names.pop(future.key)
            try:
                outcome = _outcome(future, task)
            except (CancelledError, TimeoutError):
                # A killed worker takes with it results that were not fetched yet. Finished shards come back at once.
                cancelled[task.shard] += 1
                if client.status != "running" or cancelled[task.shard] > CANCELLED_MOST:
                    raise _lost(address) from None
                time.sleep(0.2)
                give(task)
                continue
            give(next(fresh, None))
            yield outcome


def _lost(address: str) -> EngineError:
    return EngineError(f"lost the Dask scheduler at {address}; run the same command again to go on")


def _check_workers(client: Any, address: str) -> int:
    """Threads of all workers. Raises EngineError when there is none, or one has another blursynth."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_WAIT_S)
        versions = client.run(_version)
    except TimeoutError:
        raise EngineError(
            f"{address} has no workers; start some with: dask worker {address} --nthreads 1"
        ) from None
    except Exception as e:
        raise EngineError(f"a worker of {address} cannot import blursynth ({e}); install it there") from None
    mine = _version()
    for worker, theirs in versions.items():
        if theirs != mine:
            raise EngineError(
                f"worker {worker} has blursynth {theirs}, here is {mine}; the shards would differ"
            )
    return max(sum(client.nthreads().values()), 1)


def _version() -> str:
    from blursynth import __version__

    return __version__


def _next_future(done: Any, client: Any, address: str) -> Any:
    """The next finished future. as_completed alone would wait for ever on a scheduler that is gone."""
    seen = time.monotonic()
    while not done.has_ready():
        if client.status == "running":
            seen = time.monotonic()
        elif time.monotonic() - seen > LOST_AFTER_S:
            raise _lost(address)
        time.sleep(0.02)
    return next(done)


def _outcome(future: Any, task: ShardTask) -> Outcome:
    """Raises CancelledError when the result is lost."""
    if future.status in ("lost", "cancelled"):
        raise CancelledError
    if future.status == "finished":
        return future.result(timeout=WORKERS_WAIT_S)
    error = future.exception(timeout=WORKERS_WAIT_S)
    if type(error).__name__ == "KilledWorker":
        reason = "its workers were killed again and again (out of memory, or a crash in a decoder)"
        return Outcome(task.shard, "killed", reason)
    return Outcome(task.shard, "failed", f"{type(error).__name__}: {error}")
