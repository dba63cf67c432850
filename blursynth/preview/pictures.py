"""Pictures for the preview: display sizes, the difference as colours, flow panels, data URIs within a byte budget."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from blursynth.pairs.flow_thumb import flow_colours, wheel_legend
from blursynth.preview.report import Card

DISPLAY_PX = 960  # longest side of a compared picture on the page
PANEL_PX = 480  # of the flow and difference panels
DIFFERENCE_GAIN = 4  # |difference| x 4: 64 levels of 255 already reach the end of the scale
PAGE_BYTES = 9_000_000  # what all pictures of a page may take together, as base64
_QUALITY = ((1.0, 88), (1.0, 80), (0.8, 78), (0.66, 76), (0.5, 74), (0.4, 70), (0.3, 66))


def to_display(rgb: np.ndarray, longest: int = DISPLAY_PX) -> np.ndarray:
    """An (H, W, ...) picture shrunk by area averaging so that no side exceeds ``longest``; never enlarged."""
    h, w = rgb.shape[:2]
    scale = min(1.0, longest / max(h, w))
    if scale == 1.0:
        return rgb
    return cv2.resize(rgb, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)


def difference_map(a: np.ndarray, b: np.ndarray, longest: int = DISPLAY_PX) -> np.ndarray:
    """Largest |a - b| of the channels, at display size.

    ``a``, ``b``: (H, W, 3) uint8 of one shape. Taken at full size and then averaged, so that fine differences are
    dimmed by the shrinking but never invented by it. Returns (h, w) uint8.
    """
    return to_display(cv2.absdiff(a, b).max(axis=2), longest)


def difference_colours(difference: np.ndarray) -> np.ndarray:
    """(H, W) uint8 differences x ``DIFFERENCE_GAIN``, as (H, W, 3) uint8 RGB of a perceptually even scale."""
    scaled = np.minimum(difference.astype(np.uint16) * DIFFERENCE_GAIN, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[..., ::-1])


def flow_rim(flow: np.ndarray) -> float:
    """The speed, px/frame, drawn fully saturated: the 99.8th percentile, but at least 1 px so that rest stays pale."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    speed = speed[np.isfinite(speed)]
    return max(1.0, float(np.percentile(speed, 99.8))) if speed.size else 1.0


def flow_panel(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow colours at ``size`` (width, height): the vectors are interpolated, not the colours. (H, W, 3) uint8 RGB."""
    w, h = size
    shrink = flow.shape[1] > w
    # Cubic could overshoot a motion edge into a speed that nothing has.
    resized = cv2.resize(flow, (w, h), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR).reshape(
        h, w, 2
    )
    return flow_colours(resized, flow_rim(flow))


def panel_size(flow: np.ndarray, w: int, h: int) -> tuple[int, int]:
    """(width, height) to draw a flow at inside w x h: its own proportions where they differ, as with a tile's whole frame."""
    aspect = flow.shape[1] / flow.shape[0]
    if (
        abs(aspect * h / w - 1) < 0.15 or min(flow.shape[:2]) < 4
    ):  # a thumbnail's rounding is no other picture
        return w, h
    scale = min(w / flow.shape[1], h / flow.shape[0])
    return max(1, round(flow.shape[1] * scale)), max(1, round(flow.shape[0] * scale))


def data_uri(rgb: np.ndarray, quality: int | None = None) -> str:
    """An image as a data URI: WebP of this quality, or PNG (also with alpha) without one."""
    ext = ".png" if quality is None else ".webp"
    code = cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR
    flags = [] if quality is None else [cv2.IMWRITE_WEBP_QUALITY, quality]
    ok, data = cv2.imencode(ext, cv2.cvtColor(rgb, code), flags)
    if not ok:
        raise ValueError(f"OpenCV could not encode a {rgb.shape} picture as {ext}")
    return f"data:image/{ext[1:]};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


@dataclass(frozen=True)
class CardPictures:
    """A card's pictures as data URIs."""

    layers: list[str]
    flow: str | None
    difference: str
    thumb: str

    @property
    def bytes(self) -> int:
        return sum(map(len, self.layers)) + len(self.flow or "") + len(self.difference) + len(self.thumb)


def encode_cards(cards: list[Card], budget: int = PAGE_BYTES) -> list[CardPictures]:
    """All cards at the best quality whose sum stays within ``budget`` bytes (or the last step, where none does)."""
    encoded: list[CardPictures] = []
    for scale, quality in _QUALITY:
        encoded, spent = [], 0
        for card in cards:
            encoded.append(_encode(card, scale, quality))
            spent += encoded[-1].bytes
            if spent > budget:
                break
        if spent <= budget:
            break
    else:
        encoded = [_encode(card, *_QUALITY[-1]) for card in cards]
    return encoded


def _encode(card: Card, scale: float, quality: int) -> CardPictures:
    longest = round(DISPLAY_PX * scale)
    layers = [to_display(rgb, longest) for _, rgb in card.layers]
    panel = to_display(card.layers[0][1], round(PANEL_PX * scale)).shape
    difference = cv2.resize(card.difference, (panel[1], panel[0]), interpolation=cv2.INTER_AREA)
    return CardPictures(
        layers=[data_uri(rgb, quality) for rgb in layers],
        flow=None
        if card.flow is None
        else data_uri(flow_panel(card.flow, panel_size(card.flow, panel[1], panel[0])), 82),
        difference=data_uri(difference_colours(difference), quality - 6),
        thumb=data_uri(to_display(card.layers[0][1], 176), 70),
    )


def wheel_uri() -> str:
    """The flow wheel as a PNG data URI, 160 px with transparent surroundings."""
    return data_uri(wheel_legend(160))


def ramp_uri() -> str:
    """The difference scale from 0 to ``255 / DIFFERENCE_GAIN`` levels, left to right, as a PNG data URI."""
    levels = np.linspace(0, 255 / DIFFERENCE_GAIN, 256).round().astype(np.uint8)
    return data_uri(difference_colours(np.tile(levels, (8, 1))))
