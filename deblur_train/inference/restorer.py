"""A model made ready to restore many images: which device, which tiles, what was worth a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from blursynth.common.errors import UsageError
from deblur_train.inference.fast import Fast, fastest
from deblur_train.inference.fold import folded
from deblur_train.inference.memory import auto_tile
from deblur_train.inference.runtimes import EXPORTED, Runner, open_exported
from deblur_train.inference.signature import ExportError
from deblur_train.inference.tiles import SMALLEST_TILE, Model, RestoreError, Seams, restore
from deblur_train.models.base import STRIDE, Generator
from deblur_train.models.checkpoint import load_generator
from deblur_train.models.nafnet import NAFNet, shape_from_words
from deblur_train.models.norm import NormStats

Tile = int | Literal["auto", "off"] | None
NOTICED = (
    0.15  # codes of 255, on average, from which tiles are worth a warning; tracked statistics stay at 0.02
)


class Restorer:
    """Callable: ``(H, W, 3)`` uint8 or uint16 RGB to the same. ``model``: a generator, or what an exported file gives."""

    def __init__(self, model: Generator | Runner, tile: Tile = "auto", device: str = "cpu") -> None:
        self.device = torch.device(device)
        if tile not in ("auto", "off", None) and not (isinstance(tile, int) and tile >= SMALLEST_TILE):
            raise UsageError(
                f"tile: must be 'auto', 'off' or a number of pixels of at least {SMALLEST_TILE}, not {tile!r}"
            )
        self.tile = None if tile == "off" else tile
        self.tiles: dict[tuple[int, int], int | None] = {}  # by size of picture, where that is left to us
        self.seams = Seams()
        self.tiled = 0  # images that went through in tiles
        self.side: int | None = None  # of the only tile that an exported file takes, where it could be one
        self.norm_stats: str | None = None  # of an exported file, as far as it says
        self.model: Model
        if isinstance(model, Runner):
            self.backbone = model.info.get("backbone", "")
            self.shape = shape_from_words(model.info["shape"]) if "shape" in model.info else None
            self.norm_stats = model.info.get("norm_stats")
            self.model = lambda x: torch.from_numpy(model(x.numpy()))
            h, w = model.signature.size or (0, 0)
            self.side = h if h == w >= SMALLEST_TILE and h % STRIDE == 0 else None
        else:
            self.backbone = model.backbone_name
            self.shape = model.shape if isinstance(model, NAFNet) else None
            model = folded(model)
            self.model = fastest(model.to(self.device))
        self.generator = model if isinstance(model, Generator) else None

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        side = self._auto(*rgb.shape[:2]) if self.tile == "auto" else self.tile
        self.tiled += side is not None and max(rgb.shape[:2]) > side
        try:
            return restore(self.model, rgb, side, self.seams)
        except ExportError as e:  # of this picture: others may be of the right size
            raise RestoreError(
                f"{rgb.shape[0]} x {rgb.shape[1]} pixels: {e}; ONNX exported without --height and --width takes any size"
            ) from None

    def _auto(self, height: int, width: int) -> int | None:
        """Decided once for a size: else the frames of a film would change with the memory that is free meanwhile."""
        if self.side is not None:
            return self.side
        if (height, width) not in self.tiles:
            fast = isinstance(self.model, Fast)
            self.tiles[height, width] = auto_tile(height, width, self.backbone, self.device, self.shape, fast)
        return self.tiles[height, width]

    def warning(self) -> str:
        """One line on local statistics that failed, and on visible seams; empty when there are none."""
        return "; ".join(filter(None, [fallbacks(self.generator), self._seams()]))

    def _seams(self) -> str:
        if self.seams.mean <= NOTICED:
            return ""
        # NAFNet tracks none; windows smaller than a tile make its tiles alike.
        stats = "local" if self.backbone == "nafnet" else "tracked"
        return (
            f"{self.tiled} images went through in tiles, which differ by {self.seams.mean:.1f} of 255 on average "
            f"(at most {self.seams.worst:.0f}) where they overlap: image statistics are each tile's own. Blended; "
            f"use --norm-stats {stats}, or a larger --tile, for the answer of the whole image"
        )


def fallbacks(generator: Any) -> str:
    """One line on NAFNet's local statistics where they gave colour blocks; empty where they did not."""
    failed = getattr(generator, "fell_back", 0)
    where = "local statistics gave blocks of wrong colour; restored with the whole image's instead"
    return f"in {failed} images or tiles {where}" if failed else ""


def load_restorer(
    checkpoint: str | Path, norm_stats: NormStats = "tracked", tile: Tile = "auto", device: str = "cpu"
) -> Restorer:
    """From a checkpoint of ours, an official one, or an exported file (on the CPU). Raises CheckpointError, ExportError."""
    path = Path(checkpoint)
    if path.suffix.lower() not in EXPORTED:
        restorer = Restorer(load_generator(path, norm_stats), tile, device)
        restorer.norm_stats = norm_stats
        return restorer
    restorer = Restorer(open_exported(path), tile)
    if norm_stats not in ("tracked", restorer.norm_stats):
        own = f"are {restorer.norm_stats}" if restorer.norm_stats else "are its own"
        raise ExportError(
            f"{path}: its norm statistics {own} since its export; leave --norm-stats {norm_stats} out, or give the checkpoint"
        )
    return restorer
