"""Pictures for the preview: display sizes, the difference as colours, flow panels, data URIs within a byte budget."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from blursynth.checks.contact_sheet import DISPLAY_PX, shrunk
from blursynth.pairs.flow_thumb import flow_panel, panel_size
from blursynth.preview.report import Card

PANEL_PX = 480  # of the flow and difference panels
DIFFERENCE_GAIN = 4  # |difference| x 4: 64 levels of 255 already reach the end of the scale
PAGE_BYTES = 9_000_000  # what all pictures of a page may take together, as base64
_QUALITY = ((1.0, 88), (1.0, 80), (0.8, 78), (0.66, 76), (0.5, 74), (0.4, 70), (0.3, 66))


def difference_colours(difference: np.ndarray) -> np.ndarray:
    """(H, W) uint8 differences x ``DIFFERENCE_GAIN``, as (H, W, 3) uint8 RGB of a perceptually even scale."""
    scaled = np.minimum(difference.astype(np.uint16) * DIFFERENCE_GAIN, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[..., ::-1])


def data_uri(rgb: np.ndarray, quality: int | None = None) -> str:
    """An image as a data URI: WebP of this quality, or PNG (also with alpha) without one."""
    ext = ".png" if quality is None else ".webp"
    code = cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR
    flags = [] if quality is None else [cv2.IMWRITE_WEBP_QUALITY, quality]
    ok, data = cv2.imencode(ext, cv2.cvtColor(rgb, code), flags)
    if not ok:
        raise ValueError(f"OpenCV could not encode a {rgb.shape} picture as {ext}")
    return f"data:image/{ext[1:]};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


class CardPictures(NamedTuple):
    """A card's pictures as data URIs."""

    layers: list[str]
    flow: str | None
    difference: str | None
    thumb: str | None

    @property
    def bytes(self) -> int:
        return sum(len(uri or "") for uri in (*self.layers, self.flow, self.difference, self.thumb))


def encode_cards(cards: Sequence[Card], budget: int = PAGE_BYTES) -> list[CardPictures]:
    """All cards at the best quality whose sum stays within ``budget`` bytes (or the last step, where none does)."""
    for step in _QUALITY:
        encoded, spent = [], 0
        for card in cards:
            encoded.append(_encode(card, *step))
            spent += encoded[-1].bytes
            if spent > budget and step != _QUALITY[-1]:
                break
        else:
            break
    return encoded


def _encode(card: Card, scale: float, quality: int) -> CardPictures:
    if not card.layers:
        return CardPictures([], None, None, None)
    layers = [shrunk(rgb, round(DISPLAY_PX * scale)) for _, rgb in card.layers]
    h, w = shrunk(card.layers[0][1], round(PANEL_PX * scale)).shape[:2]
    flow = difference = None
    if card.flow is not None:
        flow = data_uri(flow_panel(card.flow, panel_size(card.flow, w, h)), 82)
    if card.difference is not None:
        small = cv2.resize(card.difference, (w, h), interpolation=cv2.INTER_AREA)
        difference = data_uri(difference_colours(small), quality - 6)
    thumb = data_uri(shrunk(card.layers[0][1], 176), 70)
    return CardPictures([data_uri(rgb, quality) for rgb in layers], flow, difference, thumb)


def ramp_uri() -> str:
    """The difference scale from 0 to ``255 / DIFFERENCE_GAIN`` levels, left to right, as a PNG data URI."""
    levels = np.linspace(0, 255 / DIFFERENCE_GAIN, 256).round().astype(np.uint8)
    return data_uri(difference_colours(np.tile(levels, (8, 1))))
