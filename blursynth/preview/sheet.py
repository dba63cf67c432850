"""The preview as one static picture: a row a sample, ``blurred | sharp | flow colours | difference``."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from blursynth.preview.pictures import DIFFERENCE_GAIN, difference_colours, flow_panel, flow_rim, panel_size
from blursynth.preview.report import Card, InspectReport, number

_GAP, _MARGIN = 12, 40
_CAPTION, _HEAD = 46, 150
_TALLEST = 1.1  # of a row's pictures in widths, so that portrait clips do not make a tower
_PAPER, _INK, _SOFT, _WELL = (250, 250, 251), (22, 26, 33), (98, 108, 122), (232, 235, 239)
_PIXELS = 120_000_000  # a sheet that no viewer opens helps nobody; the page still shows all


def sheet(report: InspectReport, column: int = 400) -> np.ndarray:
    """(H, W, 3) uint8 RGB, four pictures of ``column`` px wide; rows from the weakest blur to the strongest."""
    first = report.cards[0]
    width = 2 * _MARGIN + 4 * column + 3 * _GAP
    sizes = [_cell(card, column) for card in report.cards]
    rows: list[tuple[Card, int]] = []
    height = _HEAD
    for card, (_, h) in zip(report.cards, sizes):
        if rows and (height + h + _CAPTION + _MARGIN) * width > _PIXELS:
            break
        rows.append((card, height))
        height += h + _CAPTION
    canvas = np.full((height + _MARGIN, width, 3), _PAPER, np.uint8)

    _text(canvas, report.target, (_MARGIN, 52), 26, _INK, 700, width - 2 * _MARGIN)
    _text(canvas, _subtitle(report), (_MARGIN, 82), 16, _SOFT, 400, width - 2 * _MARGIN)
    heads = [
        first.layers[first.flicker[0]][0],
        first.layers[first.flicker[1]][0],
        "Flow colours",
        f"Difference x {DIFFERENCE_GAIN}",
    ]
    if report.kind == "source":
        heads[:2] = [first.layers[0][0], first.layers[1][0]]
    for i, head in enumerate(heads):
        _text(canvas, head, (_MARGIN + i * (column + _GAP), 128), 16, _INK, 700, column)

    unit = "px" if report.kind == "data" else "px/frame"
    for (card, top), (w, h) in zip(rows, sizes):
        cells = [_fit(rgb, w, h) for _, rgb in card.layers[:2]]
        cells += [_flow_cell(card, w, h), _fit(difference_colours(card.difference), w, h)]
        for i, cell in enumerate(cells):
            x = _MARGIN + i * (column + _GAP)
            canvas[top : top + cell.shape[0], x : x + cell.shape[1]] = cell
        caption = "  |  ".join(
            filter(None, (card.rank, card.split, card.title, _motion(card, unit), *card.flags))
        )
        _text(canvas, caption, (_MARGIN, top + h + 25), 15, _SOFT, 400, width - 2 * _MARGIN)
    return canvas


def _subtitle(report: InspectReport) -> str:
    parts = [report.headline]
    rejected = sum(report.rejects.values())
    parts.append(f"{rejected:,} {report.rejects_of} rejected" if rejected else "no rejects recorded")
    if report.recipe_sha256:
        parts.append(f"recipe {report.recipe_name} {report.recipe_sha256[:12]}".replace("  ", " "))
    if report.damaged:
        parts.append(f"{len(report.damaged)} damaged")
    return "  |  ".join(parts)


def _motion(card: Card, unit: str) -> str:
    known = f"fastest 5 %: {number(card.extent, 2)} {unit}" if np.isfinite(card.extent) else ""
    return known + (
        f", flow rim {number(flow_rim(card.flow), 2)} {card.flow_unit}" if card.flow is not None else ""
    )


def _cell(card: Card, column: int) -> tuple[int, int]:
    h, w = card.layers[0][1].shape[:2]
    scale = min(column / w, _TALLEST * column / h)
    return max(1, round(w * scale)), max(1, round(h * scale))


def _fit(rgb: np.ndarray, w: int, h: int) -> np.ndarray:
    shrink = rgb.shape[1] > w
    return cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def _flow_cell(card: Card, w: int, h: int) -> np.ndarray:
    if card.flow is not None:
        return flow_panel(card.flow, panel_size(card.flow, w, h))
    cell = np.full((h, w, 3), _WELL, np.uint8)
    _text(cell, "no flow to show", (14, h // 2), 14, _SOFT, 400, w - 28)
    return cell


def _text(
    canvas: np.ndarray,
    text: str,
    at: tuple[int, int],
    px: int,
    colour: tuple[int, ...],
    weight: int,
    room: int,
) -> None:
    """One line, cut with dots where it would be longer than ``room`` pixels."""
    text = "".join(c if c.isprintable() else "?" for c in text[:400])
    draw, measure = _font(px, weight)
    if measure(text) > room:
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if measure(text[:middle] + "...") <= room else (low, middle - 1)
        text = text[:low] + "..."
    draw(canvas, text, at, colour)


def _font(px: int, weight: int) -> tuple[Any, Any]:
    """(draw, measure) with OpenCV 5's own typeface; OpenCV 4 has stroke letters, ASCII only."""
    face_type: Any = getattr(cv2, "FontFace", None)
    if face_type is not None:
        face = face_type("sans")
        put: Any = cv2.putText
        size: Any = cv2.getTextSize

        def draw(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, ...]) -> None:
            put(canvas, text, at, colour, face, px, weight)

        def measure(text: str) -> int:
            return int(size((10_000, 1000), text, (0, 0), face, px, weight)[2]) if text else 0

        return draw, measure

    scale, thick = px / 30, 2 if weight > 500 else 1

    def plain(text: str) -> str:
        return text.encode("ascii", "replace").decode()

    def draw_plain(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, ...]) -> None:
        cv2.putText(canvas, plain(text), at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)

    def measure_plain(text: str) -> int:
        return cv2.getTextSize(plain(text), cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0][0]

    return draw_plain, measure_plain
