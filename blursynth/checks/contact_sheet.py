"""Pictures in rows with text above them: blurred and sharp with the frames of their window, and the parts of any sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.shards.picture import decode_image

SHEET_WIDTH = 1600  # px of the contact sheet
SHEET_COLUMNS = 5
DISPLAY_PX = 960  # longest side of a picture that is looked at on a page
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def contact_sheet(path: Path, frames: list[np.ndarray], s: dict[str, Any], sample: dict[str, Any]) -> None:
    """Blurred and sharp large on top, the window's frames below. Raises OSError."""
    big = [
        decode_image(next(v for k, v in sample.items() if k.startswith(name + ".")))
        for name in ("blur", "sharp")
    ]
    top = [
        _labelled(_to_width(im, SHEET_WIDTH // 2), name)
        for im, name in zip(big, ("blurred", f"sharp: frame {s['target']}"))
    ]
    small = [
        _labelled(_to_width(f, SHEET_WIDTH // SHEET_COLUMNS), f"frame {s['first'] + i}")
        for i, f in enumerate(frames)
    ]
    rows = [beside(top)]
    rows += [beside(small[i : i + SHEET_COLUMNS]) for i in range(0, len(small), SHEET_COLUMNS)]
    ok, data = cv2.imencode(".png", cv2.cvtColor(below(rows), cv2.COLOR_RGB2BGR))
    assert ok
    path.write_bytes(data.tobytes())


def _to_width(rgb: np.ndarray, width: int) -> np.ndarray:
    h, w = rgb.shape[:2]
    return cv2.resize(
        rgb,
        (width, max(1, round(h * width / w))),
        interpolation=cv2.INTER_AREA if w > width else cv2.INTER_NEAREST,
    )


def shrunk(rgb: np.ndarray, longest: int = DISPLAY_PX) -> np.ndarray:
    """An (H, W, ...) picture shrunk by area averaging so that no side exceeds ``longest``; never enlarged."""
    h, w = rgb.shape[:2]
    scale = min(1.0, longest / max(h, w))
    if scale == 1.0:
        return rgb
    return cv2.resize(rgb, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)


def _labelled(rgb: np.ndarray, text: str) -> np.ndarray:
    return below([text_bar(rgb.shape[1], text), rgb])


def beside(pictures: list[np.ndarray], gap: int = 0, paper: tuple[int, ...] = BLACK) -> np.ndarray:
    """Pictures in a row, (H, W, 3) uint8 each, their tops level."""
    height, last = max(im.shape[0] for im in pictures), len(pictures) - 1
    padded = [
        cv2.copyMakeBorder(im, 0, height - im.shape[0], 0, gap * (i < last), cv2.BORDER_CONSTANT, value=paper)
        for i, im in enumerate(pictures)
    ]
    return np.concatenate(padded, 1)


def below(pictures: list[np.ndarray], paper: tuple[int, ...] = BLACK) -> np.ndarray:
    """Pictures one below the other, their left sides level."""
    width = max(im.shape[1] for im in pictures)
    padded = [
        cv2.copyMakeBorder(im, 0, 0, 0, width - im.shape[1], cv2.BORDER_CONSTANT, value=paper)
        for im in pictures
    ]
    return np.concatenate(padded)


def text_bar(
    width: int,
    text: str,
    px: int = 15,
    weight: int = 400,
    ink: tuple[int, ...] = WHITE,
    paper: tuple[int, ...] = BLACK,
    indent: int = 6,
) -> np.ndarray:
    """A line of text, px high, on a bar (1.6 px, width, 3) uint8 RGB; cut with dots where it is longer than the bar."""
    bar = np.full((round(1.6 * px), width, 3), paper, np.uint8)
    text = "".join(c if c.isprintable() else "?" for c in text[:400])
    room, low, high = width - 2 * indent, 0, len(text)
    if _text_width(text, px, weight) > room:
        while low < high:
            middle = (low + high + 1) // 2
            fits = _text_width(text[:middle] + "...", px, weight) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        text = text[:low] + "..."
    at = indent, round(1.15 * px)
    if face := _face():  # OpenCV 5's own typeface; OpenCV 4 has stroke letters, ASCII only
        cv2.putText(bar, text, at, ink, face, px, weight)  # type: ignore[call-overload]
    else:
        plain, thick = text.encode("ascii", "replace").decode(), 1 + (weight > 500)
        cv2.putText(bar, plain, at, cv2.FONT_HERSHEY_SIMPLEX, px / 30, ink, thick, cv2.LINE_AA)
    return bar


def _text_width(text: str, px: int, weight: int) -> int:
    if not text:
        return 0
    if face := _face():
        size: Any = cv2.getTextSize((10_000, 1000), text, (0, 0), face, px, weight)  # type: ignore[call-overload]
        return int(size[2])
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, px / 30, 1 + (weight > 500))[0][0])


def _face() -> Any:
    made = getattr(cv2, "FontFace", None)
    return made("sans") if made else None
