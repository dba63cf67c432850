"""Which integrator a recipe asks for: numba on the CPU, Triton or torch on CUDA, RIFE on either; torch is imported then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from blursynth.camera.response import Response
from blursynth.exposure import integrate
from blursynth.exposure.shutter import Shutter
from blursynth.motion.flow import SolvedPair, solve_pair
from blursynth.recipe import Recipe

if TYPE_CHECKING:
    from blursynth.exposure.rife import Rife

RIFE_STATS_SCALE = 0.5
"""With RIFE the flows of a pair serve only statistics and the choice of steps: DIS at this scale is enough."""


class Collector(Protocol):
    """What collects the light of one window (`exposure.Exposure` documents it)."""

    @property
    def steps(self) -> int: ...
    @property
    def longest(self) -> int: ...
    def add(self, i: int, light: Any, smooth: Any, forward: np.ndarray, backward: np.ndarray) -> None: ...
    def linear(self) -> np.ndarray: ...


class Integrator:
    """Makes the collectors of a recipe, and brings light to where they work."""

    rife: Rife | None = None

    def __init__(self, recipe: Recipe, rife_weights: str | None = None):
        """Raises RecipeError: no CUDA device for device = "cuda"; weights missing or unusable for interp = "rife"."""
        self.recipe, self.device = recipe, recipe.device
        if recipe.device != "cpu":
            from blursynth.gpu.tensors import check_device

            check_device(recipe.device)
        if recipe.interp == "rife":
            from blursynth.exposure.rife import Rife, find_weights

            self.rife = Rife(find_weights(rife_weights), recipe.device)

    def flows(self, first: np.ndarray, second: np.ndarray) -> SolvedPair:
        """Flows of a pair of frames, RGB uint8 (H, W, 3): those that carry the light, or, with RIFE, DIS's."""
        if self.rife is not None:
            return solve_pair("dis", first, second, min(RIFE_STATS_SCALE, self.recipe.flow_scale))
        return solve_pair(self.recipe.interp, first, second, self.recipe.flow_scale)

    def place(self, codes: np.ndarray, response: Response, above: float | np.ndarray) -> tuple[Any, Any]:
        """A frame's light and its `quasi` version, where and as the collector takes them.

        codes: RGB uint8 (H, W, 3); above: light above white, as `Response.decode` takes it.
        """
        device = self.device
        if self.rife is None:
            # A clipped lamp's light needs no more than half precision, the table's stays exact.
            half = above.astype(np.float16) if isinstance(above, np.ndarray) else None
            table = response.table(0.0 if isinstance(above, np.ndarray) else above)
            coded = integrate.Coded(codes, table, half)
            if device == "cpu":
                return coded, coded.smooth()
            from blursynth.exposure import gpu

            there = gpu.place(coded, device)
            return there, gpu.smooth(there)
        light = response.decode(codes, above)
        if device == "cpu":
            return light, integrate.quasi(light, isinstance(above, np.ndarray) or above > 0)
        from blursynth.exposure import gpu

        placed = gpu.to_device(light, device)
        return placed, gpu.quasi(placed)

    def unfiltered(self, light: Any) -> Any:
        """Light of `place` as it is, where a collector takes the `quasi` version."""
        if self.rife is not None:
            return light
        if isinstance(light, integrate.Coded):
            return light.plain()
        from blursynth.exposure import gpu

        return gpu.smooth(light, plain=True)

    def collect(
        self, frames: Sequence[np.ndarray], shutter: Shutter, path: np.ndarray | None = None
    ) -> Collector:
        """An empty collector for a window's frames, RGB uint8 (H, W, 3); path: the camera's, see `shake.py`."""
        h, w = frames[0].shape[:2]
        if self.rife is not None:
            from blursynth.exposure.rife_exposure import RifeExposure

            return RifeExposure(self.rife, frames, shutter, self.recipe.fps_up, self.recipe.flow_scale, path)
        if self.device == "cpu":
            return integrate.Exposure(h, w, shutter, self.recipe.fps_up, path)
        from blursynth.exposure import gpu

        return gpu.Exposure(h, w, shutter, self.recipe.fps_up, self.device, path)
