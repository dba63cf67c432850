"""SIGTERM ends a run as Ctrl-C does: what is being written goes, what is written stays."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: stop as cleanly as on Ctrl-C."""


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise Terminated

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
