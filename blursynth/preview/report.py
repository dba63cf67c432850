"""What ``blursynth inspect`` found: the typed report, and how its figures are written.

`dataset` and `source` fill an ``InspectReport``; `page`, `sheet` and `terminal` only show it, so the three cannot disagree.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from blursynth.checks.contact_sheet import shrunk
from blursynth.common.errors import UserError
from blursynth.common.text import number


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (resources.files("blursynth.preview") / "assets" / name).read_text(encoding="utf-8")


@cache
def words(kind: Literal["terms", "flags", "reasons"]) -> dict[str, str]:
    """Terms, flags or reasons of rejection, and what they mean."""
    return tomllib.loads(asset("words.toml"))[kind]


class InspectError(UserError):
    """Nothing to show; ``exit_code`` is 2 for a wrong call, 1 else."""


@dataclass
class Card:
    """One sample, moment of a source, or window that was left out, as it is shown.

    layers: (name, (H, W, 3) uint8 RGB at display size), of which the slider compares the first two; none where a window
    was left out and its source is gone. difference: (H, W) uint8, largest |difference| of the channels of the two
    ``flicker`` layers. flow: (h, w, 2) float32, in ``flow_unit`` of the full-size picture; ``flow_note`` says what it is,
    or why there is none.
    """

    title: str
    rank: str  # "weakest", "stronger than 37 %"...: where it stands among all; or why it was left out
    facts: list[tuple[str, str]]
    layers: list[tuple[str, np.ndarray]] = field(default_factory=list)
    flicker: tuple[int, int] = (0, 1)
    difference: np.ndarray | None = None
    flow: np.ndarray | None = None
    flow_note: str = ""
    flow_unit: str = "px/frame"
    split: str = ""
    size: str = ""  # of the full picture
    flags: list[str] = field(default_factory=list)
    extent: float = np.nan  # what the ranks are sorted by
    says: str = ""  # of a window left out: what that means, what was measured, the limit

    def show(self, *pictures: tuple[str, np.ndarray]) -> Card:
        """One or two full-size pictures, (H, W, 3) uint8 RGB, as layers, with their difference; the card itself."""
        self.layers = [(name, shrunk(rgb)) for name, rgb in pictures]
        first, last = pictures[0][1], pictures[-1][1]
        self.size = f"{first.shape[1]} × {first.shape[0]}"
        if len(pictures) == 2 and first.shape == last.shape:
            # At full size and then averaged: fine differences are dimmed by the shrinking, never invented by it.
            self.difference = shrunk(cv2.absdiff(first, last).max(axis=2))
        return self


class Table(NamedTuple):
    """A table of the report; ``terms``: names out of ``words`` that stand in it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    terms: tuple[str, ...] = ()


@dataclass
class InspectReport:
    """Everything the page, the sheet and the terminal show, and the paths of what was written."""

    target: str
    kind: Literal["data", "source"]
    headline: str = ""  # one line on what was looked at
    ranked_by: str = ""
    cards: list[Card] = field(default_factory=list)
    left_out: list[Card] = field(default_factory=list)  # one window of each reason
    samples: dict[str, int] = field(default_factory=dict)  # a split; usable windows a clip of a source
    noun: str = "sample"  # what is counted, in `samples` and in `rejects`: a window may give several tiles
    rejects: dict[str, int] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    extent_name: str = "Blur extent"
    extent_unit: str = "px"
    extent_median: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (n,) float64; NaN where unknown
    extent_p95: np.ndarray = field(default_factory=lambda: np.zeros(0))
    fastest_name: str = "Fastest 5 % of the picture"  # what extent_p95 holds
    sizes: dict[str, int] = field(default_factory=dict)  # "1280 × 720" -> count
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    flags: dict[str, int] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_name: str = ""
    recipe_sha256: str = ""
    damaged: list[str] = field(default_factory=list)  # what could not be read whole: "name: what"
    warnings: list[str] = field(default_factory=list)
    html: Path | None = None
    png: Path | None = None

    @property
    def exit_code(self) -> int:
        """1 when something could not be read whole (and is named) or there is no sample, else 0."""
        return 1 if self.damaged or not self.cards else 0

    @property
    def total(self) -> int:
        """Samples in all splits, or usable windows of all clips."""
        return sum(self.samples.values())


class Histogram(NamedTuple):
    """Counts over equal bins; the last one also takes everything above when ``open_end``."""

    edges: np.ndarray  # (n + 1,) float64
    counts: np.ndarray  # (n,) int
    open_end: bool

    def label(self, i: int) -> str:
        """What a bin holds: '0–20', or '300 +' for the last."""
        low, last = number(self.edges[i]), self.open_end and i == len(self.counts) - 1
        return f"{low} +" if last else f"{low}–{number(self.edges[i + 1])}"


def histogram(values: np.ndarray, bins: int = 16) -> Histogram | None:
    """Bins with round edges from 0; a long tail (beyond 1.6 x the 98th percentile) is gathered in the last bin.

    values: (n,) float; NaN is left out. bins: about how many. None when no value is known.
    """
    v = values[np.isfinite(values)]
    if not v.size:
        return None
    top, p98 = float(v.max()), float(np.percentile(v, 98))
    open_end = top > 1.6 * p98 > 0
    reach = max(p98 * 1.1 if open_end else top, 1e-3)
    magnitude = 10.0 ** np.floor(np.log10(reach / bins))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= reach / bins * 0.999)
    n = max(1, int(np.ceil(reach / step - 1e-9)))
    index = np.clip((v / step).astype(np.int64), 0, n - 1)
    return Histogram(np.arange(n + 1) * step, np.bincount(index, minlength=n), open_end)


def motion(median: float, p95: float) -> str:
    """Motion as the tables have it (``words``)."""
    return f"{number(median, 2)} / {number(p95, 2)}" if np.isfinite(p95) else "–"


def spread(values: np.ndarray) -> str:
    """'median 12, 90 % of them 2–31' of the finite values; a dash when there is none."""
    v = values[np.isfinite(values)]
    if not v.size:
        return "–"
    low, mid, high = np.percentile(v, [5, 50, 95])
    return f"median {number(mid, 2)}, 90 % of them {number(low, 2)}–{number(high, 2)}"


def pick_ranks(splits: list[str], count: int) -> list[int]:
    """Which positions of a list, weakest first, to show: evenly spread, with the median and both ends.

    splits: the split of each position; one that this would miss takes the place of its nearest neighbour.
    """
    n, middle = len(splits), (len(splits) - 1) // 2
    if count >= n:
        return list(range(n))
    if count == 1:
        return [middle]
    picks = [round(i * (n - 1) / (count - 1)) for i in range(count)]
    if count >= 3:
        picks[min(range(1, count - 1), key=lambda i: abs(picks[i] - middle))] = middle
    for split in dict.fromkeys(splits):
        shown = Counter(splits[p] for p in picks)
        spare = [i for i, p in enumerate(picks) if p not in (0, middle, n - 1) and shown[splits[p]] > 1]
        if shown[split] or not spare:  # with fewer cards than splits the spread of the blur comes first
            continue
        own = [p for p, s in enumerate(splits) if s == split]
        i, p = min(((i, p) for i in spare for p in own), key=lambda ip: abs(picks[ip[0]] - ip[1]))
        picks[i] = p
    return sorted(set(picks))


def rank_name(position: int, n: int) -> str:
    """'weakest', 'median', 'strongest', or 'stronger than 37 %' for a position among n, weakest first."""
    named = {(n - 1) // 2: "median", n - 1: "strongest", 0: "weakest"}
    return named.get(position) or f"stronger than {100 * position / (n - 1):.0f} %"
