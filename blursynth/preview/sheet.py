"""The preview as one static picture: a row a sample, ``blurred | sharp | flow colours | difference``, then what was left out."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from blursynth.checks.contact_sheet import below, beside, text_bar
from blursynth.common.text import counted, number
from blursynth.pairs.flow_thumb import flow_panel, flow_rim, panel_size
from blursynth.preview.pictures import DIFFERENCE_GAIN, difference_colours
from blursynth.preview.report import Card, InspectReport

_GAP, _MARGIN = 12, 40
_TALLEST = 1.1  # of a row's pictures in widths, so that portrait clips do not make a tower
_PAPER, _INK, _SOFT, _WELL = (250, 250, 251), (22, 26, 33), (98, 108, 122), (232, 235, 239)
_PIXELS = 120_000_000  # a sheet that no viewer opens helps nobody; the page still shows all


def sheet(report: InspectReport, column: int = 400, share: float = 1) -> np.ndarray:
    """(H, W, 3) uint8 RGB, four pictures of ``column`` px wide; rows from the weakest blur to the strongest.

    share: of the report's cards, at least one, evenly spread.
    """
    width = 4 * column + 3 * _GAP
    line = partial(text_bar, width, ink=_INK, paper=_PAPER, indent=0)
    parts = [line(report.target, 26, 700), line(_subtitle(report), 16, ink=_SOFT)]
    unit, heads = report.extent_unit.split()[0], [""]
    left_out, shown = [card for card in report.left_out if card.layers], 0
    for title, cards in (("", report.cards), ("Left out: one window of each reason", left_out)):
        parts += [line(title, 22, 700)] if title and cards else []
        for card in cards[:: round(1 / share)]:
            pictures = beside(_cells(card, column), _GAP, _PAPER)
            if sum(p.shape[0] for p in (*parts, pictures)) * width > _PIXELS and len(parts) > 2:
                break
            named = [name for name, _ in card.layers[:2]]
            named += [""] * (2 - len(named)) + ["Flow colours", f"Difference x {DIFFERENCE_GAIN}"]
            if named != heads:
                heads = named
                bars = [text_bar(column, h, 16, 700, _INK, _PAPER, 0) for h in heads]
                parts.append(beside(bars, _GAP, _PAPER))
            parts += [pictures, line(_caption(card, unit), 15, ink=_SOFT), line("", 10)]
            shown += 1
    total = len(report.cards) + len(left_out)
    if shown < total:
        parts.append(line(f"{shown} of {total} rows are here; the page shows all", 16, ink=_SOFT))
    m = _MARGIN
    return cv2.copyMakeBorder(below(parts, _PAPER), m, m, m, m, cv2.BORDER_CONSTANT, value=_PAPER)


def _subtitle(report: InspectReport) -> str:
    left_out = counted(sum(report.rejects.values()), report.noun)
    parts = [report.headline, f"{left_out} left out" if report.rejects else "nothing left out"]
    if report.recipe_sha256:
        parts.append(f"recipe {report.recipe_name} {report.recipe_sha256[:12]}".replace("  ", " "))
    if report.damaged:
        parts.append(f"{len(report.damaged)} damaged")
    return "  |  ".join(parts)


def _caption(card: Card, unit: str) -> str:
    moves = f"fastest 5 %: {number(card.extent, 2)} {unit}" if np.isfinite(card.extent) else ""
    rim = f"flow rim {number(flow_rim(card.flow), 2)} {card.flow_unit}" if card.flow is not None else ""
    return "  |  ".join(filter(None, (card.rank, card.split, card.title, moves, rim, *card.flags, card.says)))


def _cells(card: Card, column: int) -> list[np.ndarray]:
    """Two pictures, flow colours and difference, each ``column`` wide or, where they would be tall, less."""
    h, w = card.layers[0][1].shape[:2]
    scale = min(column / w, _TALLEST * column / h)
    w, h = max(1, round(w * scale)), max(1, round(h * scale))
    none = text_bar(w, "nothing to show", 14, ink=_SOFT, paper=_WELL)
    none = cv2.copyMakeBorder(none, 0, max(0, h - none.shape[0]), 0, 0, cv2.BORDER_CONSTANT, value=_WELL)[:h]
    cells = [_fit(rgb, w, h) for _, rgb in card.layers[:2]]
    cells += [none] * (2 - len(cells))
    cells.append(none if card.flow is None else flow_panel(card.flow, panel_size(card.flow, w, h)))
    cells.append(none if card.difference is None else _fit(difference_colours(card.difference), w, h))
    pad = partial(cv2.copyMakeBorder, borderType=cv2.BORDER_CONSTANT, value=_PAPER)
    return [pad(c, 0, h - c.shape[0], 0, column - c.shape[1]) for c in cells]


def _fit(rgb: np.ndarray, w: int, h: int) -> np.ndarray:
    shrink = rgb.shape[1] > w
    return cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
