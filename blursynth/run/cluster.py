"""Run tasks on a Dask cluster. Imported only where ``--engine dask://...`` asks for it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any

from blursynth.common.extras import install_extra
from blursynth.run.outcome import TRIES, EngineError, Fn, Outcome, ShardTask, failed, guarded

WORKERS_WAIT_S = 30
LOST_AFTER_S = 10
CANCELLED_MOST = 10  # results of one task that are lost before something is wrong with the cluster


def dispatch_dask(tasks: Iterable[ShardTask], fn: Fn, address: str) -> Iterator[Outcome]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise EngineError(f"--engine dask://... needs dask.distributed: {install_extra('cluster')}") from None
    # Reconnect chatter; what matters is raised below.
    logging.getLogger("distributed").setLevel(logging.ERROR)
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
                try:
                    # pure=False: the same task given again must run again.
                    future = client.submit(guarded, fn, task, pure=False, retries=TRIES - 1)
                except Exception:  # distributed has no class for "no longer connected"
                    if client.status != "running":
                        raise _lost(address) from None
                    raise
                names[future.key] = task
                done.add(future)

        # A few a slot: workers never wait, and a million tasks never lie in the scheduler.
        for _ in range(4 * slots):
            give(next(fresh, None))
        cancelled: Counter[str] = Counter()
        suspects, alone = list[ShardTask](), set[str]()
        while names or suspects:
            if not names:
                alone.add(suspects[0].name)
                give(suspects.pop(0))
            future = _next_future(done, client, address)
            task = names.pop(future.key)
            try:
                outcome = _outcome(future, task)
            except (CancelledError, TimeoutError, OSError):
                # A killed worker takes with it results that were not fetched yet. Finished shards come back at once.
                # A killed scheduler breaks the connection under a result that is being fetched.
                cancelled[task.name] += 1
                if client.status != "running" or cancelled[task.name] > CANCELLED_MOST:
                    raise _lost(address) from None
                time.sleep(0.2)
                give(task)
                continue
            if outcome.status == "killed" and task.name not in alone:
                # Dask blames every task that its dead worker held, begun or not. At the end each of them is tried
                # with nothing beside it: that tells the guilty one from its neighbours.
                suspects.append(task)
                give(next(fresh, None))
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
    seen = looked = time.monotonic()
    while not done.has_ready():
        now = time.monotonic()
        if client.status == "running":
            seen = now
            if now - looked > WORKERS_WAIT_S:
                looked = now
                _tell_if_no_workers(client, address)
        elif now - seen > LOST_AFTER_S:
            raise _lost(address)
        time.sleep(0.02)
    return next(done)


def _tell_if_no_workers(client: Any, address: str) -> None:
    """A cluster may lose all its workers for a while (a queue, a nanny that restarts one): wait, but not in silence."""
    with contextlib.suppress(OSError):  # the scheduler went this moment: told by the caller
        if not client.nthreads():
            print(f"{address} has no workers now; waiting for one: dask worker {address} --nthreads 1", file=sys.stderr)  # fmt: skip


def _outcome(future: Any, task: ShardTask) -> Outcome:
    """Raises CancelledError when the result is lost."""
    if future.status in ("lost", "cancelled"):
        raise CancelledError
    if future.status == "finished":
        return future.result(timeout=WORKERS_WAIT_S)
    error = future.exception(timeout=WORKERS_WAIT_S)
    if type(error).__name__ == "KilledWorker":
        reason = "its workers were killed again and again (out of memory, or a crash in a decoder)"
        return failed(task, "killed", reason)
    return failed(task, "failed", f"{type(error).__name__}: {error}")
