"""SIGTERM ends a run as cleanly as Ctrl-C: at once, or as a question that a loop asks after each step."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: stop as cleanly as on Ctrl-C."""


@contextlib.contextmanager
def term_interrupts() -> Iterator[None]:
    """SIGTERM raises Terminated where Ctrl-C raises KeyboardInterrupt: for work that may end anywhere."""

    def stop(signum: int, frame: Any) -> None:
        raise Terminated

    with _handlers(stop, signal.SIGTERM):
        yield


@contextlib.contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C become a question that the loop asks after each step; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signum)

    with _handlers(note, signal.SIGTERM, signal.SIGINT):
        yield lambda: bool(asked)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, Any], None], *signals: signal.Signals) -> Iterator[None]:
    """Only the main thread may set them: where a program calls us from another, signals stay the program's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if sys.platform == "win32":  # SIGTERM there kills without a word; only Ctrl-C arrives
        signals = tuple(s for s in signals if s == signal.SIGINT)
    before = {s: signal.signal(s, handler) for s in signals}
    try:
        yield
    finally:
        for s, old in before.items():
            signal.signal(s, old)
