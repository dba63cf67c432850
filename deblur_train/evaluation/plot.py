"""Pictures drawn with OpenCV alone: training curves and contact sheets. All pictures are ``(H, W, 3)`` uint8 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth.common.atomic import write_atomic

INK, GRID, PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14))


def save_png(path: Path, rgb: np.ndarray) -> None:
    """Write a picture as PNG, atomically."""
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path}: cannot be encoded as PNG")
    write_atomic(path, data.tobytes())


def text(
    canvas: np.ndarray, words: str, x: int, y: int, scale: float = 0.45, colour: tuple[int, int, int] = INK
) -> None:
    cv2.putText(canvas, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred running mean over about a twentieth of the points: losses of small batches are noise on a trend."""
    k = max(1, len(values) // 20) | 1
    padded = np.pad(values, k // 2, mode="edge")
    return np.convolve(padded, np.ones(k) / k, mode="valid")


def _ticks(lo: float, hi: float, n: int = 5) -> list[float]:
    span = hi - lo
    step = 10 ** np.floor(np.log10(span / n))
    step *= min((1, 2, 5, 10), key=lambda m: abs(span / (step * m) - n))
    ticks = np.arange(np.ceil(lo / step), np.floor(hi / step + 1e-6) + 1) * step
    return [float(t) + 0.0 for t in ticks]  # + 0.0 turns -0 into 0


def panel(
    title: str,
    lines: dict[str, tuple[np.ndarray, np.ndarray]],
    level: tuple[str, float] | None = None,
    size: tuple[int, int] = (560, 300),
) -> np.ndarray:
    """One plot of named (x, y) lines; ``level`` is a named horizontal line."""
    w, h = size
    left, right, top, bottom = 64, w - 16, 34, h - 34
    canvas = np.full((h, w, 3), PAPER, np.uint8)
    text(canvas, title, left, 20, 0.5)
    points = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in lines.values()]
    ys = np.concatenate([y for _, y in points] + ([np.array([level[1]])] if level else []))
    xs = np.concatenate([x for x, _ in points])
    if not len(ys) or not len(xs):
        text(canvas, "no values", left + 10, h // 2)
        return canvas
    lo, hi = float(ys.min()), float(ys.max())
    pad = (hi - lo) * 0.08 or max(abs(hi) * 0.05, 1e-6)
    lo, hi = lo - pad, hi + pad
    first, last = float(xs.min()), float(max(xs.max(), xs.min() + 1))

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        px = left + (x - first) / (last - first) * (right - left)
        py = bottom - (y - lo) / (hi - lo) * (bottom - top)
        return np.stack([px, py], 1).round().astype(np.int32)

    for tick in _ticks(lo, hi):
        y = int(at(np.array([first]), np.array([tick]))[0, 1])
        cv2.line(canvas, (left, y), (right, y), GRID, 1)
        text(canvas, f"{tick:.4g}", 6, y + 4, 0.4)
    for tick in _ticks(first, last):
        x = int(at(np.array([tick]), np.array([lo]))[0, 0])
        text(canvas, f"{tick:.6g}", x - 12, h - 14, 0.4)
    if level:
        y = int(at(np.array([first]), np.array([level[1]]))[0, 1])
        cv2.line(canvas, (left, y), (right, y), (150, 150, 150), 1)
        text(canvas, level[0], left + 6, y - 5, 0.4, (120, 120, 120))
    for i, (name, (x, y)) in enumerate(zip(lines, points, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        if len(x):
            pts = at(x, _smooth(y))
            cv2.polylines(canvas, [pts], False, colour, 2, cv2.LINE_AA)
            if len(x) < 60:
                for p in pts:
                    cv2.circle(canvas, (int(p[0]), int(p[1])), 2, colour, -1, cv2.LINE_AA)
        text(canvas, name, right - 130, top + 14 + 16 * i, 0.42, colour)
    cv2.rectangle(canvas, (left, top), (right, bottom), INK, 1)
    return canvas


def curves(log: list[dict[str, Any]]) -> np.ndarray:
    """The picture of a run from its log lines: losses, learning rate, validation PSNR and, without a GAN, SSIM."""

    def line(key: str) -> tuple[np.ndarray, np.ndarray]:
        rows = [(r["step"], r[key]) for r in log if isinstance(r.get(key), int | float)]
        a = np.array(rows, dtype=np.float64).reshape(-1, 2)
        return a[:, 0], a[:, 1]

    def validation(title: str, key: str) -> np.ndarray:
        blurred = next((float(r[key + "_blurred"]) for r in log if key + "_blurred" in r), None)
        return panel(title, {"restored": line(key)}, None if blurred is None else ("blurred input", blurred))

    gan = {"loss": line("loss_d"), "G's GAN loss": line("adversarial")}
    if len(gan["loss"][0]):
        top = [
            panel("generator loss", {"total": line("loss_g"), "content": line("content")}),
            panel("discriminator loss", gan),
        ]
    else:  # no GAN: the content loss is the whole
        top = [panel("loss", {"training": line("loss_g")}), validation("validation SSIM", "val_ssim")]
    low = [
        validation("validation PSNR, dB", "val_psnr"),
        panel("learning rate", {"generator": line("lr")}),
    ]
    return np.concatenate([np.concatenate(top, 1), np.concatenate(low, 1)], 0)


def contact_sheet(
    rows: list[tuple[str, list[np.ndarray]]], headings: list[str], width: int = 480
) -> np.ndarray:
    """Rows of pictures under headings, each row with a caption; every picture scaled to ``width`` pixels."""
    parts = []
    head = np.full((26, width * len(headings), 3), PAPER, np.uint8)
    for i, words in enumerate(headings):
        text(head, words, i * width + 8, 18, 0.5)
    parts.append(head)
    for caption, pictures in rows:
        strip = np.full((24, width * len(headings), 3), PAPER, np.uint8)
        text(strip, caption, 8, 17)
        height = max(1, round(pictures[0].shape[0] * width / pictures[0].shape[1]))
        scaled = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
        parts += [strip, np.concatenate(scaled, 1)]
    return np.concatenate(parts, 0)
