"""The report of ``blursynth inspect`` as tables and lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape as without_markup
from rich.table import Table as Grid

from blursynth.common.text import by_count, counted, human_bytes, one_line
from blursynth.preview.report import InspectReport, histogram, spread, words

_ROWS = 20  # of a table; the page holds more


def escape(text: str) -> str:
    """A string from the data as rich prints it: one line, no markup, nothing that a terminal obeys."""
    return without_markup(one_line(text))


def print_report(report: InspectReport, console: Console | None = None) -> None:
    """The report on a rich console; never raises for strange names in the data."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    say(f"[bold]{escape(report.target)}[/]  {escape(report.headline)}")
    for table in filter(lambda t: t.rows, report.tables):
        grid = Grid(box=None, header_style="bold", pad_edge=False)
        for i, name in enumerate(table.columns):
            grid.add_column(escape(name), justify="right" if i else "left")
        for row in table.rows[:_ROWS]:
            grid.add_row(*map(escape, row))
        say("")
        console.print(grid)
        if len(table.rows) > _ROWS:
            say(f"[dim]... and {len(table.rows) - _ROWS} more[/]")
        for term in table.terms:
            say(f"[dim]{term}: {words('terms')[term]}[/]")
    _print_histogram(report, say)

    rejected = f"{counted(sum(report.rejects.values()), report.noun)}: {by_count(report.rejects)}"
    sizes = {f"{size} px:": n for size, n in report.sizes.items()}
    facts = {"Left out": rejected if report.rejects else "none recorded", "Pictures": by_count(sizes, 6)}
    if report.kind == "data":
        sha256 = report.recipe_sha256[:12] or "unknown"
        facts["Recipe"] = f"{report.recipe_name or '(no name)'}  sha256 {sha256}"
        facts["Score"] = spread(report.scores) if report.scores.size else ""
        facts["Flags"] = by_count(report.flags) or ("none" if report.total else "")
    for name, value in facts.items():
        if not value:  # no sample has it
            continue
        say(f"[bold]{name:8}[/]  {escape(value)}")
    for line in report.damaged:
        say(f"[red]damaged[/]  {escape(line)}")
    for line in report.warnings:
        say(f"[yellow]warning[/]  {escape(line)}")
    for path in (report.html, report.png):
        if path is not None:
            say(f"wrote {escape(str(path))} ({human_bytes(path.stat().st_size)})")


def _print_histogram(report: InspectReport, say: Callable[[str], None]) -> None:
    hist = histogram(report.extent_p95, bins=10)
    title = f"\n[bold]{escape(report.extent_name)}[/], {escape(report.extent_unit)}"
    if hist is None:
        say(f"{title}: not recorded\n")
        return
    say(f"{title}. Median of the picture: {spread(report.extent_median)}")
    say(f"{escape(report.fastest_name)}: {spread(report.extent_p95)}")
    labels = [hist.label(i) for i in range(len(hist.counts))]
    for label, count in zip(labels, hist.counts):
        eighths = round(count / max(1, hist.counts.max()) * 36 * 8)
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        say(f"  {label:>{max(map(len, labels))}}  [cyan]{bar}[/] {count:,}")
    say("")
