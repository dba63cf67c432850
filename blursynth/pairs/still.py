"""One still in, the light of one sample out: a shake, a crop inside what it leaves whole, its exposure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from blursynth.camera.highlights import Highlights
from blursynth.camera.response import Response
from blursynth.common.kept import Kept
from blursynth.exposure.layered import Layer, compose
from blursynth.exposure.shake import border, describe, draw_path
from blursynth.exposure.still import StillExposure, expose_still, reach
from blursynth.pairs.layers import Cut, Donor, Lamps, cut_layer, draw_cut
from blursynth.pairs.light import Draws
from blursynth.pairs.scene import Scene
from blursynth.recipe import Recipe
from blursynth.shards.picture import to_8_bits
from blursynth.video.sharpness import SOFT, steepness

_KNOWN = Kept(64 << 20)
"""Of donors, which come again and again in any order: can they be used, where are their lamps."""

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
    layers: list[dict[str, Any]]
    """What moves over the still, as `exposure.layers` of the sample's JSON."""
    donated: tuple[bool, ...]
    """Of each layer, whether its donor gave it; else the still itself did."""


class StillReject(Exception):
    """A still that gives no sample; the message is the reason, for counting, ``measured`` the figures."""

    def __init__(self, reason: str, **measured: float) -> None:
        super().__init__(reason)
        self.measured = measured


class Stills:
    """Exposes stills by one recipe; keeps what it found out of the last picture for its other samples."""

    def __init__(self, recipe: Recipe, highlights: Highlights, profile: np.ndarray | None):
        self.recipe, self.highlights, self.profile = recipe, highlights, profile
        self._codes: np.ndarray | None = None

    def collect(
        self,
        codes: np.ndarray,
        draws: Draws,
        rng: np.random.Generator,
        donors: Sequence[Donor] = (),
    ) -> StillLight:
        """The light of one sample of a picture, RGB uint8 or uint16 (H, W, 3).

        donors: a picture like it for each moving layer; where one cannot be read, or is soft as `gate` leaves out, the
        picture itself gives the layer. Raises StillReject: "soft", or "too small" for the tile inside the shake's border.
        """
        self._look_at(codes)
        height, width = codes.shape[:2]
        middle = ((width - 1) / 2, (height - 1) / 2)
        low, high = self.recipe.blur_range or self.recipe.shake_range or (0.0, 0.0)
        px = low + (high - low) * (draws.streak if self.recipe.blur_range else draws.shake.random())
        path = draw_path(draws.shake, px, width, height, about=self.recipe.shake_about, profile=self.profile)
        part = self._crop(path, width, height, rng)
        left, top, right, bottom = part
        cuts, layers, donated = self._layers(codes, donors, part, draws, rng)
        scene = Scene(part, middle, layers)
        if self.recipe.blur_range:  # roll moves what lies off the middle further: never more than was drawn
            less = min(px / max(scene.blur_px(path), 1e-9), 1.0)
            path *= less
            cuts = [c._replace(px=c.px * less) for c in cuts]
            scene.layers = layers = [v._replace(motion=v.motion * less) for v in layers]
        corner = None
        if self.recipe.tile:
            # The stored path is that of the stored picture: its roll turns about the crop's middle.
            corner = left, top
            own = ((left + right - 1) / 2, (top + bottom - 1) / 2)
            path, scene.middle = _about(path, middle, own), own
        box = reach(path, part, scene.middle)
        light = self._light(codes, box, draws)
        done = expose_still(light, box, part, path, scene.middle, self.profile, layers)
        shake = describe(path, right - left, bottom - top)
        if self.recipe.tile:
            shake["border"] = [0, 0, 0, 0]
        sharp = np.ascontiguousarray(self._eight[top:bottom, left:right])
        if layers:
            sharp = self._covered(sharp, self._light(codes, part, draws), layers, part, draws)
        return StillLight(
            linear=done.light[..., :3],
            sharp=sharp,
            near=self._near(part),
            corner=corner,
            effective_frames=1 / done.noise_left,
            exposure=done,
            shake=shake,
            blur_px=round(scene.blur_px(path), 3),
            content=scene.content(path) if self.recipe.labels else None,
            layers=[c.facts(left, top) for c in cuts],
            donated=donated,
        )

    def _layers(
        self,
        codes: np.ndarray,
        donors: Sequence[Donor],
        part: tuple[int, int, int, int],
        draws: Draws,
        rng: np.random.Generator,
    ) -> tuple[list[Cut], list[Layer], tuple[bool, ...]]:
        """A layer of each donor over a part, and whether the donor itself could give it."""
        if not donors:
            return [], [], ()
        own = rng.spawn(1)[0]  # a stream of its own: a sample without layers draws what it drew
        range_px = self.recipe.shake_range or self.recipe.blur_range or (0.0, 0.0)
        cuts, layers, donated = [], [], []
        for stream, donor in zip(own.spawn(len(donors)), donors):
            given = donor.read() if self._is_usable(donor) else None
            picture = codes if given is None else given
            cut = draw_cut(stream, part, (picture.shape[1], picture.shape[0]), range_px)
            lamps = None if picture is codes else self._lamps_of(donor.name, picture, cut.region)
            layers.append(cut_layer(cut, self._light(picture, cut.region, draws, lamps)))
            cuts.append(cut)
            donated.append(given is not None)
        return cuts, layers, tuple(donated)

    def _is_usable(self, donor: Donor) -> bool:
        gated = self.recipe.gate != "off"

        def look() -> bool:
            picture = donor.read()
            return picture is not None and not (gated and steepness(to_8_bits(picture)) < SOFT)

        return bool(_KNOWN.get(("usable", donor.name, gated), look))

    def _lamps_of(
        self, name: Hashable, picture: np.ndarray, box: tuple[int, int, int, int]
    ) -> float | np.ndarray:
        """Light above white in a box of a donor, per unit of the draw's."""

        def look() -> float | Lamps:
            lamps = self.highlights.excess(to_8_bits(picture), 1.0)
            return Lamps(lamps) if isinstance(lamps, np.ndarray) else lamps

        lamps = _KNOWN.get(("lamps", name, self.highlights), look)
        return lamps.inside(box) if isinstance(lamps, Lamps) else lamps

    def _light(
        self,
        codes: np.ndarray,
        box: tuple[int, int, int, int],
        draws: Draws,
        lamps: float | np.ndarray | None = None,
    ) -> np.ndarray:
        """Linear light (h, w, 4) of a box of a picture. lamps: the box's light above white, per unit of the draw's; None:
        this picture's own."""
        if lamps is None:
            lamps = _cut(self._lamps, box) if isinstance(self._lamps, np.ndarray) else self._lamps
        over: float | np.ndarray = (
            lamps * np.float32(draws.highlight) if isinstance(lamps, np.ndarray) else lamps * draws.highlight
        )
        eight = self._eight if codes is self._codes else None
        light = draws.response.decode(
            _cut(eight, box) if eight is not None else to_8_bits(_cut(codes, box)), over
        )
        if codes.dtype == np.uint16:
            light[..., :3] += _finer(draws.response, _cut(codes, box))
        return light

    def _covered(
        self,
        sharp: np.ndarray,
        light: np.ndarray,
        layers: list[Layer],
        part: tuple[int, int, int, int],
        draws: Draws,
    ) -> np.ndarray:
        """``sharp`` with the layers in place; what they do not cover keeps its codes."""
        corner = part[:2]
        composed = compose(light[..., :3], layers, corner)
        covered = compose(np.zeros_like(composed), [_alone(v) for v in layers], corner)[..., :1] > 0
        return np.where(covered, draws.response.encode(composed), sharp)

    def _look_at(self, codes: np.ndarray) -> None:
        """What all samples of a picture share: its 8-bit codes, its lamps, whether it is sharp."""
        if codes is not self._codes:
            self._codes, self._eight = codes, to_8_bits(codes)
            self._lamps = self.highlights.excess(self._eight, 1.0)  # scales with the light above white
            self._steepness = steepness(self._eight) if self.recipe.gate != "off" else np.inf
        if self._steepness < SOFT:
            raise StillReject("soft", steepness=self._steepness)

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


def _alone(layer: Layer) -> Layer:
    """A layer of white light: composed over black it gives the coverage."""
    return layer._replace(light=np.repeat(layer.light[..., 3:], 4, axis=2))
