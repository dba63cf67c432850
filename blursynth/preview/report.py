"""What ``blursynth inspect`` found: the typed report, and its table for the terminal.

`dataset` and `source` fill an ``InspectReport``; `page`, `sheet` and ``print_report`` only show it, so the three pictures of a data set cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape as without_markup
from rich.table import Table

from blursynth.common.errors import UserError
from blursynth.common.text import one_line


class InspectError(UserError):
    """Nothing to show; ``exit_code`` is 2 for a wrong call, 1 else."""


@dataclass
class Card:
    """One sample (or moment of a source) that is shown."""

    title: str
    rank: str  # "weakest", "median", "strongest", or "strongest 37 %": where it stands among all
    split: str  # "" before synthesis
    layers: list[
        tuple[str, np.ndarray]
    ]  # (name, (H, W, 3) uint8 RGB at display size); the slider compares the first two
    flicker: tuple[int, int]  # the two layers that flicker shows in turn
    difference: (
        np.ndarray
    )  # (H, W) uint8: largest |difference| of the channels between the flicker layers, 0..255
    difference_of: str  # what is compared, where it is not blurred against sharp; "" otherwise
    flow: (
        np.ndarray | None
    )  # (h, w, 2) float32, in flow_unit of the full-size picture; None where there is none
    flow_note: str  # what the flow is and where it comes from, or why there is none
    facts: list[tuple[str, str]]
    extent: float  # what the ranks are sorted by; NaN when unknown
    size: str = ""  # of the full picture
    flow_unit: str = "px/frame"
    flags: list[str] = field(default_factory=list)
    rejected: bool = False  # shown because it may not be exposed; stands outside the ranks


@dataclass
class InspectReport:
    """Everything the page, the sheet and the terminal show, and the paths of what was written."""

    target: str
    kind: Literal["data", "source"]
    headline: str = ""  # one line on what was looked at
    samples: dict[str, int] = field(
        default_factory=dict
    )  # per split ("data") or usable intervals per clip ("source")
    columns: list[str] = field(default_factory=list)  # the table of splits or clips
    rows: list[list[str]] = field(default_factory=list)
    extent_name: str = "Blur extent"
    extent_unit: str = "px"
    extent_median: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n,) float64; NaN where unknown
    extent_p95: np.ndarray = field(default_factory=lambda: np.zeros(0))
    fastest_name: str = "Fastest 5 % of the picture"  # what extent_p95 holds
    ranked_by: str = ""
    rejects: dict[str, int] = field(default_factory=dict)
    rejects_of: str = "windows"
    sizes: dict[str, int] = field(default_factory=dict)  # "1280 x 720" -> count
    bytes: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_name: str = ""
    recipe_sha256: str = ""
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    flags: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(
        default_factory=list
    )  # shards or clips that could not be read whole: "name: what"
    warnings: list[str] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    html: Path | None = None
    png: Path | None = None

    @property
    def exit_code(self) -> int:
        """1 when something could not be read whole (and is named), else 0."""
        return 1 if self.damaged else 0

    @property
    def total(self) -> int:
        """Samples in all splits, or usable intervals of all clips."""
        return sum(self.samples.values())


@dataclass(frozen=True)
class Histogram:
    """Counts over equal bins; the last one also takes everything above when ``open_end``."""

    edges: np.ndarray  # (n + 1,) float64
    counts: np.ndarray  # (n,) int
    open_end: bool


def histogram(values: np.ndarray, bins: int = 16) -> Histogram | None:
    """Bins with round edges from 0; a long tail (beyond 1.6 x the 98th percentile) is gathered in the last bin.

    Args:
        values: (n,) float; NaN is left out. bins: about how many.
    Returns:
        None when no value is known.
    """
    v = values[np.isfinite(values)]
    if not v.size:
        return None
    top = float(v.max())
    p98 = float(np.percentile(v, 98))
    open_end = top > 1.6 * p98 > 0
    reach = max(p98 * 1.1 if open_end else top, 1e-3)
    raw = reach / bins
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    n = max(1, int(np.ceil(reach / step - 1e-9)))
    edges = np.arange(n + 1) * step
    index = np.minimum((v / step).astype(np.int64), n - 1)
    return Histogram(edges, np.bincount(np.maximum(index, 0), minlength=n), open_end)


def number(value: float, digits: int = 3) -> str:
    """A short figure for people: ``digits`` significant ones, never an exponent, no idle zeros."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:,.{min(decimals, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size_text(count: float) -> str:
    """Bytes as a short figure: '1.4 GB'."""
    value, unit = float(count), "B"
    for step in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, step
    return f"{number(value)} {unit}"


def spread(values: np.ndarray) -> str:
    """'median 12, 5-95 % 2-31' of the finite values; a dash when there is none."""
    v = values[np.isfinite(values)]
    if not v.size:
        return "–"
    low, mid, high = np.percentile(v, [5, 50, 95])
    return f"median {number(mid, 2)}, 5–95 % {number(low, 2)}–{number(high, 2)}"


def escape(text: str) -> str:
    """A string from the data as rich prints it: one line, no markup, nothing that a terminal obeys."""
    return without_markup(one_line(text))


def print_report(report: InspectReport, console: Console | None = None) -> None:
    """The report as tables on a rich console; never raises for strange names in the data."""
    console = console or Console()
    console.print(f"[bold]{escape(report.target)}[/]  {escape(report.headline)}", highlight=False)

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(report.columns):
        table.add_column(escape(name), justify="left" if i == 0 else "right")
    for row in report.rows[:40]:
        table.add_row(*(escape(cell) for cell in row))
    console.print()
    console.print(table)
    if len(report.rows) > 40:
        console.print(f"[dim]... and {len(report.rows) - 40} more[/]")

    _print_histogram(report, console)

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in Counter(report.rejects).most_common())
    facts.add_row(
        "Rejected",
        escape(
            f"{sum(report.rejects.values()):,} {report.rejects_of}: {rejected}"
            if rejected
            else "none recorded"
        ),
    )
    if report.sizes:
        facts.add_row(
            "Pictures",
            escape(", ".join(f"{size} ({count:,})" for size, count in Counter(report.sizes).most_common(6))),
        )
    if report.kind == "data":
        facts.add_row(
            "Recipe",
            escape(f"{report.recipe_name or '(no name)'}  sha256 {report.recipe_sha256[:12] or 'unknown'}"),
        )
        facts.add_row("Quality", escape(spread(report.scores) if report.scores.size else "no scores"))
        if report.flags:
            facts.add_row(
                "Flags",
                escape(", ".join(f"{flag} {count:,}" for flag, count in Counter(report.flags).most_common())),
            )
    console.print(facts, highlight=False)

    for line in report.damaged:
        console.print(f"[red]damaged[/]  {escape(line)}", highlight=False)
    for line in report.warnings:
        console.print(f"[yellow]warning[/]  {escape(line)}", highlight=False)
    for path in (report.html, report.png):
        if path is not None:
            console.print(f"wrote {escape(str(path))} ({size_text(path.stat().st_size)})", highlight=False)


def _print_histogram(report: InspectReport, console: Console) -> None:
    hist = histogram(report.extent_p95, bins=10)
    console.print()
    title = f"[bold]{escape(report.extent_name)}[/], {escape(report.extent_unit)}"
    if hist is None:
        console.print(f"{title}: not recorded\n", highlight=False)
        return
    console.print(
        f"{title}   middle of the picture's motion: {spread(report.extent_median)}", highlight=False
    )
    console.print(f"{escape(report.fastest_name)}: {spread(report.extent_p95)}", highlight=False)
    peak = max(1, int(hist.counts.max()))
    labels = [f"{number(a)}–{number(b)}" for a, b in zip(hist.edges[:-1], hist.edges[1:])]
    if hist.open_end:
        labels[-1] = f"{number(hist.edges[-2])} +"
    width = max(map(len, labels))
    for label, count in zip(labels, hist.counts):
        eighths = round(count / peak * 36 * 8)
        bar = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
        console.print(f"  {label:>{width}}  [cyan]{bar}[/] {count:,}", highlight=False)
    console.print()


def pick_ranks(splits: list[str], count: int) -> list[int]:
    """Which positions of a sorted list to show.

    Args:
        splits: split of each position, weakest first. count: how many to pick, at least 1.
    Returns:
        Rising positions: the weakest, the median, the strongest (in this order of need: the median, then both ends),
        the rest evenly spaced between; a split that this would miss takes the place of its nearest neighbour.
    """
    n = len(splits)
    if count >= n:
        return list(range(n))
    middle = (n - 1) // 2
    if count == 1:
        return [middle]
    picks = [round(i * (n - 1) / (count - 1)) for i in range(count)]
    anchors = {0, n - 1}
    if count >= 3:
        nearest = min(range(1, count - 1), key=lambda i: abs(picks[i] - middle))
        picks[nearest] = middle
        anchors.add(middle)
    for split in dict.fromkeys(splits):
        if any(splits[p] == split for p in picks):
            continue
        shown = Counter(splits[p] for p in picks)
        spare = [i for i, p in enumerate(picks) if p not in anchors and shown[splits[p]] > 1]
        if not spare:
            break  # fewer cards than splits: the spread of the blur comes first
        own = [p for p, s in enumerate(splits) if s == split]
        i, p = min(((i, p) for i in spare for p in own), key=lambda ip: abs(picks[ip[0]] - ip[1]))
        picks[i] = p
    return sorted(set(picks))


def rank_name(position: int, n: int) -> str:
    """'weakest', 'median', 'strongest', or 'stronger than 37 %' for a position among n, weakest first."""
    if position == 0:
        return "weakest"
    if position == n - 1:
        return "strongest"
    if position == (n - 1) // 2:
        return "median"
    return f"stronger than {100 * position / (n - 1):.0f} %"
