"""Progress of long work: a rich bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Meter:
    """``with Meter(console, "training", total, done) as m: m.advance(note)``; quiet on ranks other than 0."""

    def __init__(
        self, console: Console, title: str, total: int, done: int = 0, unit: str = "step", quiet: bool = False
    ) -> None:
        self.console, self.title, self.total, self.unit, self.quiet = console, title, total, unit, quiet
        self.first = self.done = done
        self.bar: Progress | None = None
        self.began = self.printed = time.monotonic()
        self.note = ""
        if console.is_terminal and not quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.task = self.bar.add_task(title, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Meter:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, note: str | None = None) -> None:
        """One unit more is done; ``note`` replaces the words behind the bar."""
        self.done += 1
        now = time.monotonic()
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        self.note = note if note is not None else self.note
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:.3g} {self.unit}s/s", note=self.note)
        elif not self.quiet and (now - self.printed > 10 or self.done == self.total):
            self.printed = now
            left = (self.total - self.done) / max(rate, 1e-9)
            self.console.print(
                f"{self.title} {self.done}/{self.total}  {rate:.3g} {self.unit}s/s  {left:.0f} s left  {self.note}",
                highlight=False,
            )

    def tell(self, note: str) -> None:
        """Other words behind the bar; nothing more is done yet."""
        self.note = note
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, note=note)
        elif not self.quiet and now - self.printed > 10:
            self.printed = now
            self.console.print(f"{self.title} {note}", highlight=False, soft_wrap=True, markup=False)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)
