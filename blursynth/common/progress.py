"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from blursynth.common.text import human_seconds, one_line, printable


class Meter:
    """``with Meter("training", total, done, "step") as m: m.advance(note=...)``; writes to stderr unless told otherwise,
    so that stdout stays the result."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        unit: str = "sample",
        quiet: bool = False,
        console: Console | None = None,
        every_s: float = 10.0,
    ) -> None:
        self.title, self.total, self.unit, self.quiet, self.every_s = title, total, unit, quiet, every_s
        self.console = console or Console(stderr=True)
        self.first = self.done = done
        self.note = ""
        self.bar: Progress | None = None
        self.began = self.printed = time.monotonic()
        if self.console.is_terminal and not quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self.console,
            )
            self.task = self.bar.add_task(title, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Meter:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, note: str | None = None, n: int = 1) -> None:
        """``n`` units more are done; ``note`` replaces the words behind the bar."""
        self.done += n
        now = time.monotonic()
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        self.note = self.note if note is None else one_line(note)
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:.3g} {self.unit}s/s", note=self.note)
        elif not self.quiet and (now - self.printed > self.every_s or self.done == self.total):
            self.printed = now
            left = human_seconds((self.total - self.done) / rate) if rate else "?"
            self._line(
                f"{self.title} {self.done}/{self.total}  {rate:.3g} {self.unit}s/s  {left} left  {self.note}"
            )

    def tell(self, note: str) -> None:
        """Other words behind the bar; nothing more is done yet."""
        self.note = one_line(note)
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, note=self.note)
        elif not self.quiet and now - self.printed > self.every_s:
            self.printed = now
            self._line(f"{self.title} {self.note}")

    def say(self, line: str) -> None:
        """A line above the bar."""
        if not self.quiet:
            self._line(one_line(line))

    def _line(self, text: str) -> None:
        show_line(self.console, text.rstrip())


def show_line(console: Console, line: str) -> None:
    """Print ``line`` as it stands: no markup, no line breaks added, nothing in it that a terminal would obey."""
    console.print(printable(line), highlight=False, soft_wrap=True, markup=False)
