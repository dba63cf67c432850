"""Progress for a person at a terminal, and plain lines for a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from blursynth.run.report import human_seconds


class Progress:
    """``with Progress(total, done) as p: p.advance(n, rejected)``; writes to stderr, so that stdout stays the result."""

    def __init__(self, total: int, done: int = 0, enabled: bool = True, every_s: float = 15.0) -> None:
        self.total, self.done, self.start_at, self.every = total, done, done, every_s
        self.rejected = 0
        self.enabled = enabled
        self.rich: Any = None

    def __enter__(self) -> Progress:
        self.began = self.told = time.monotonic()
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Rich

            columns = [
                TextColumn("synthesise"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            ]
            self.rich = Rich(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
            )
            self.rich.start()
            self.bar = self.rich.add_task("", total=self.total, completed=self.done, rate="")
        return self

    def advance(self, samples: int, rejected: int) -> None:
        self.done += samples + rejected
        self.rejected += rejected
        now = time.monotonic()
        rate = (self.done - self.start_at) / max(now - self.began, 1e-9)
        if self.rich:
            self.rich.update(self.bar, completed=self.done, rate=f"{rate:.2f}/s, {self.rejected} rejected")
        elif self.enabled and now - self.told >= self.every:
            self.told = now
            left = human_seconds((self.total - self.done) / rate) if rate else "?"
            print(
                f"{self.done}/{self.total} samples, {rate:.2f}/s, {self.rejected} rejected, {left} left",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(self, *exc: object) -> None:
        if self.rich:
            self.rich.stop()
