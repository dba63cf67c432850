"""One picture of a sample: blurred and sharp above, the frames of its window below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.shards.picture import decode_image

SHEET_WIDTH = 1600  # px of the contact sheet
SHEET_COLUMNS = 5


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
    rows = [_row(top)] + [_row(small[i : i + SHEET_COLUMNS]) for i in range(0, len(small), SHEET_COLUMNS)]
    sheet = np.concatenate(
        [cv2.copyMakeBorder(r, 0, 0, 0, SHEET_WIDTH - r.shape[1], cv2.BORDER_CONSTANT) for r in rows]
    )
    ok, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert ok
    path.write_bytes(data.tobytes())


def _to_width(rgb: np.ndarray, width: int) -> np.ndarray:
    h, w = rgb.shape[:2]
    return cv2.resize(
        rgb,
        (width, max(1, round(h * width / w))),
        interpolation=cv2.INTER_AREA if w > width else cv2.INTER_NEAREST,
    )


def _labelled(rgb: np.ndarray, text: str) -> np.ndarray:
    bar = np.zeros((24, rgb.shape[1], 3), np.uint8)
    cv2.putText(bar, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, rgb])


def _row(images: list[np.ndarray]) -> np.ndarray:
    height = max(im.shape[0] for im in images)
    return np.concatenate(
        [cv2.copyMakeBorder(im, 0, height - im.shape[0], 0, 0, cv2.BORDER_CONSTANT) for im in images], 1
    )
