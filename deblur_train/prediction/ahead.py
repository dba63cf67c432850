"""Work ahead in a thread: stages of a pipeline that run beside each other, with little between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """``items``, computed in a thread of their own, at most ``depth`` of them waiting. Order and errors are kept.

    Decoding, the network and encoding all release the interpreter's lock, so stages chained this way overlap. Closing
    the result (leaving a ``for`` loop by an error does) ends the thread, and closes ``items`` where that can be closed.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put((item, None, False)):
                    break
        except BaseException as e:
            error = e
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        put((None, error, True))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = waiting.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]  # None stands only in the last entry
    finally:
        stopped.set()
        thread.join()
