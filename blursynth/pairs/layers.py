"""Layers that move over a still: soft-edged pieces cut out of other pictures, each with a motion of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import cv2
import numpy as np

from blursynth.exposure.layered import Layer
from blursynth.exposure.shake import PLACES

ACROSS = (0.2, 0.6)
"""Least and most width of a layer, shares of the sample's short side."""

LOBES = 6
"""Waves around an outline: few make round things, more make leaves."""

EDGE_PX = (0.5, 1.5)
"""Deviation of the edge's softness, px: that of a sharp photograph's edges."""

TURN = 60.0
"""Most degrees that a layer's heading turns over the exposure, either way."""

RIM = 8  # empty pixels around an outline: room for its softness and for the filter


class Donor(NamedTuple):
    """A picture that a layer may be cut from."""

    name: Hashable
    """No other content has it: what is found out of a picture is kept under its name."""
    read: Callable[[], np.ndarray | None]
    """Its RGB uint8 or uint16 (H, W, 3); None where it cannot be read."""


class Lamps:
    """Light above white of a picture, float32 (H, W, 3), as the few pixels that have any."""

    def __init__(self, light: np.ndarray):
        flat = light.reshape(-1, 3)
        self.at = np.flatnonzero(flat.any(axis=1))
        self.light, self.width = flat[self.at], light.shape[1]
        self.nbytes = self.at.nbytes + self.light.nbytes

    def inside(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """Of a box within the picture (left, top, right, bottom), float32 (h, w, 3)."""
        left, top, right, bottom = box
        out = np.zeros((bottom - top, right - left, 3), np.float32)
        rows = slice(*np.searchsorted(self.at, (top * self.width, bottom * self.width)))
        y, x = np.divmod(self.at[rows], self.width)
        here = (x >= left) & (x < right)
        out[y[here] - top, x[here] - left] = self.light[rows][here]
        return out


class Cut(NamedTuple):
    """What chance decides of one layer. Places and angles are of the picture: x right, y down, degrees clockwise."""

    region: tuple[int, int, int, int]  # left, top, right, bottom in the donor
    corner: tuple[int, int]  # x, y of its first pixel in the still
    outline: np.ndarray  # (N, 2) px, in the region
    edge: float  # px
    px: float  # length of the motion
    heading: float  # at the target's instant
    turn: float  # of the heading over the exposure

    def facts(self, left: int, top: int) -> dict[str, Any]:
        """One of `exposure.layers` of a sample's JSON; left, top: corner of the sample in the still."""
        x, y = self.corner[0] - left, self.corner[1] - top
        width, height = self.region[2] - self.region[0], self.region[3] - self.region[1]
        return {
            "px": round(self.px, 4),
            "heading": round(self.heading, 4),
            "turn": round(self.turn, 4),
            "box": [x, y, x + width, y + height],
            "cut": list(self.region[:2]),
        }

    def motion(self) -> np.ndarray:
        """(PLACES, 2) px: an arc of that length at constant speed, zero at the middle of the exposure."""
        u = (np.arange(PLACES - 1) + 0.5) / (PLACES - 1) - 0.5
        angle = np.radians(self.heading + self.turn * u)
        steps = np.stack([np.cos(angle), np.sin(angle)], 1) * (self.px / (PLACES - 1))
        path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
        return path - path[PLACES // 2]


def draw_cut(
    rng: np.random.Generator,
    part: tuple[int, int, int, int],
    donor: tuple[int, int],
    range_px: tuple[float, float],
) -> Cut:
    """A layer over a part of a still.

    Args:
        part: left, top, right, bottom of the sample in the still.
        donor: width, height of the picture it is cut from.
        range_px: least and most length of its motion.
    """
    left, top, right, bottom = part
    u = rng.random(8)
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    height = 0.35 * rng.random(LOBES) / np.arange(1, LOBES + 1)
    waves = np.cos(np.arange(1, LOBES + 1)[:, None] * angle + rng.uniform(0, 2 * np.pi, (LOBES, 1)))
    radius = np.exp(height @ waves)
    tall = np.exp(rng.uniform(-0.5, 0.5))
    outline = np.stack([radius * np.cos(angle) / tall, radius * np.sin(angle) * tall], 1)
    outline -= outline.min(0)
    across = min(right - left, bottom - top) * (ACROSS[0] + (ACROSS[1] - ACROSS[0]) * u[0])
    room = np.maximum(np.array(donor) - 2 * RIM - 1, 1)  # a small donor gives a small layer
    outline *= min(across / outline.max(), *(room / outline.max(0)))
    width, tallness = (int(v) for v in np.minimum(np.ceil(outline.max(0)).astype(int) + 2 * RIM + 1, donor))
    x, y = int(u[1] * (donor[0] - width + 1)), int(u[2] * (donor[1] - tallness + 1))
    return Cut(
        region=(x, y, x + width, y + tallness),
        corner=(
            math.floor(left + u[3] * (right - left) - width / 2),
            math.floor(top + u[4] * (bottom - top) - tallness / 2),
        ),
        outline=outline + (np.array([width, tallness]) - 1 - outline.max(0)) / 2,
        edge=EDGE_PX[0] + (EDGE_PX[1] - EDGE_PX[0]) * u[5],
        px=range_px[0] + (range_px[1] - range_px[0]) * u[6],
        heading=360 * u[7],
        turn=TURN * (2 * rng.random() - 1),
    )


def cut_layer(cut: Cut, light: np.ndarray) -> Layer:
    """The layer of a cut; light: float32 (h, w, 4) linear light of its region of the donor, white = 1."""
    cover = _coverage(cut.outline, light.shape[:2], cut.edge)
    out = np.empty_like(light)
    out[..., :3] = light[..., :3] * cover[..., None]
    out[..., 3] = cover
    return Layer(out, cut.corner, cut.motion())


def _coverage(outline: np.ndarray, size: tuple[int, int], edge: float) -> np.ndarray:
    """float32 (h, w), 0 to 1: the inside of a polygon (N, 2) with a soft edge; 0 at the rim of the picture."""
    fine = 4
    points = np.rint((outline + 0.5) * fine - 0.5).astype(np.int32)
    mask = np.zeros((size[0] * fine, size[1] * fine), np.uint8)
    cv2.fillPoly(mask, [points], (255,))
    cover = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    cover = np.clip(cv2.GaussianBlur(cover, (0, 0), edge, borderType=cv2.BORDER_CONSTANT), 0, 1)
    cover[cover < 1e-3] = 0
    cover[[0, -1]], cover[:, [0, -1]] = 0, 0
    return cover
