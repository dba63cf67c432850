"""One still in, the light of one sample out: a shake, a crop inside what it leaves whole, its exposure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from blursynth.camera.highlights import Highlights
from blursynth.camera.response import Response
from blursynth.exposure.shake import border, describe, draw_path
from blursynth.exposure.still import StillExposure, expose_still, path_lengths, places, reach
from blursynth.pairs.light import Draws
from blursynth.recipe import Recipe
from blursynth.video.sharpness import SOFT, steepness
from blursynth.video.stills import to_8_bits

NOISE_SIDE = 384  # px of the picture around the crop in which the source's noise is measured


@dataclass(frozen=True)
class StillLight:
    """What the sensor collects of a still.

    linear: float32 (h, w, 3) before noise, white = 1; sharp: uint8 (h, w, 3) codes of the source's response; near:
    uint8 codes around it, to measure noise in; corner: x, y of the crop in the picture, None for all of it.
    """

    linear: np.ndarray
    sharp: np.ndarray
    near: np.ndarray
    corner: tuple[int, int] | None
    effective_frames: float
    exposure: StillExposure
    shake: dict[str, Any]
    blur_px: float
    content: tuple[np.ndarray, np.ndarray] | None
    """As `labels.content_motion`, where labels are asked for."""


class StillReject(Exception):
    """A still that gives no sample; the message is the reason, for counting."""


class Stills:
    """Exposes stills by one recipe; keeps what it found out of the last picture for its other samples."""

    def __init__(self, recipe: Recipe, highlights: Highlights, profile: np.ndarray | None):
        self.recipe, self.highlights, self.profile = recipe, highlights, profile
        self._codes: np.ndarray | None = None

    def collect(self, codes: np.ndarray, draws: Draws, rng: np.random.Generator) -> StillLight:
        """The light of one sample of a picture, RGB uint8 or uint16 (H, W, 3).

        Raises StillReject: "soft", or "too small" for the tile inside the shake's border.
        """
        self._look_at(codes)
        height, width = codes.shape[:2]
        middle = ((width - 1) / 2, (height - 1) / 2)
        low, high = self.recipe.blur_range or self.recipe.shake_range or (0.0, 0.0)
        px = low + (high - low) * (draws.streak if self.recipe.blur_range else draws.shake.random())
        path = draw_path(draws.shake, px, width, height)
        part = self._crop(path, width, height, rng)
        left, top, right, bottom = part
        if (
            self.recipe.blur_range
        ):  # roll moves what lies off the middle further: never less than the path's length
            path *= min(px / max(_blur_px(path, part, middle), 1e-9), 1.0)
        corner = None
        if self.recipe.tile:
            # The stored path is that of the stored picture: its roll turns about the crop's middle.
            corner = left, top
            own = ((left + right - 1) / 2, (top + bottom - 1) / 2)
            path, middle = _about(path, middle, own), own
        box = reach(path, part, middle)
        light = draws.response.decode(_cut(self._eight, box), self._excess(box, draws.highlight))
        if codes.dtype == np.uint16:
            light[..., :3] += _finer(draws.response, _cut(codes, box))
        done = expose_still(light, box, part, path, middle, self.profile)
        shake = describe(path, right - left, bottom - top)
        if self.recipe.tile:
            shake["border"] = [0, 0, 0, 0]
        return StillLight(
            linear=done.light[..., :3],
            sharp=np.ascontiguousarray(self._eight[top:bottom, left:right]),
            near=self._near(part),
            corner=corner,
            effective_frames=1 / done.noise_left,
            exposure=done,
            shake=shake,
            blur_px=round(_blur_px(path, part, middle), 3),
            content=_content(path, part, middle) if self.recipe.labels else None,
        )

    def _look_at(self, codes: np.ndarray) -> None:
        """What all samples of a picture share: its 8-bit codes, its lamps, whether it is sharp."""
        if codes is not self._codes:
            self._codes, self._eight = codes, to_8_bits(codes)
            self._lamps = self.highlights.excess(self._eight, 1.0)  # scales with the light above white
            self._soft = self.recipe.gate != "off" and steepness(self._eight) < SOFT
        if self._soft:
            raise StillReject("soft")

    def _crop(
        self, path: np.ndarray, width: int, height: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a sample; the draws are the same whatever the border."""
        u, v = rng.random(2)
        side = self.recipe.tile
        if side is None:
            return 0, 0, width, height
        left, top, right, bottom = border(path, width, height)
        room_x, room_y = width - left - right - side, height - top - bottom - side
        if room_x < 0 or room_y < 0:
            raise StillReject("too small")
        x, y = left + int(u * (room_x + 1)), top + int(v * (room_y + 1))
        return x, y, x + side, y + side

    def _excess(self, box: tuple[int, int, int, int], highlight: float) -> float | np.ndarray:
        if isinstance(self._lamps, np.ndarray):
            return _cut(self._lamps, box) * np.float32(highlight)
        return self._lamps * highlight

    def _near(self, part: tuple[int, int, int, int]) -> np.ndarray:
        left, top, right, bottom = part
        x, y = max((NOISE_SIDE - right + left) // 2, 0), max((NOISE_SIDE - bottom + top) // 2, 0)
        near = self._eight[max(top - y, 0) : bottom + y, max(left - x, 0) : right + x]
        return np.ascontiguousarray(near)


def _about(path: np.ndarray, middle: tuple[float, float], own: tuple[float, float]) -> np.ndarray:
    """The same motion with its roll about another point."""
    turn = np.radians(path[:, 2])
    x, y = own[0] - middle[0], own[1] - middle[1]
    out = path.copy()
    out[:, 0] += np.cos(turn) * x - np.sin(turn) * y - x
    out[:, 1] += np.sin(turn) * x + np.cos(turn) * y - y
    return np.round(out, 6)


def _cut(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of (H, W, 3), reflected where it lies outside."""
    left, top, right, bottom = box
    h, w = picture.shape[:2]
    inside = picture[max(top, 0) : bottom, max(left, 0) : right]
    out = (max(-top, 0), max(bottom - h, 0), max(-left, 0), max(right - w, 0))
    return cv2.copyMakeBorder(inside, *out, cv2.BORDER_REFLECT_101) if any(out) else inside


def _finer(response: Response, codes: np.ndarray) -> np.ndarray:
    """What uint16 codes have over their 8-bit ones, linear light (H, W, 3): the curve is straight between two codes."""
    exact = np.arange(65536) / 257
    table = np.stack([np.interp(exact, np.arange(256), response.light[:, c]) for c in range(3)], 1)
    table -= response.light[np.floor(exact + 0.5).astype(int)]
    return np.stack([table[codes[..., c], c] for c in range(3)], -1).astype(np.float32)


def _content(
    path: np.ndarray, part: tuple[int, int, int, int], middle: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel's content goes from the exposure's start to its end, (h, w, 2), and how far in all, (h, w)."""
    left, top, right, bottom = part
    y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
    points = np.stack([x.ravel(), y.ravel()], 1)
    start, end = places(path[[0, -1]], points, middle)
    return (end - start).reshape(*x.shape, 2), path_lengths(path, points, middle).reshape(x.shape)


def _blur_px(path: np.ndarray, part: tuple[int, int, int, int], middle: tuple[float, float]) -> float:
    """95th percentile over a part of how far its content travels, px."""
    left, top, right, bottom = part
    x, y = np.meshgrid(np.linspace(left, right - 1, 12), np.linspace(top, bottom - 1, 12))
    return float(np.percentile(path_lengths(path, np.stack([x.ravel(), y.ravel()], 1), middle), 95))
