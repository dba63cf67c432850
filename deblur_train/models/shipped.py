"""The generator that comes with the package, for those who have not trained one (its card: weights/README.md)."""

from __future__ import annotations

from pathlib import Path


def shipped_checkpoint() -> Path:
    """mobilenet-dsc weights, safetensors: what ``deblur-train predict photo.jpg`` restores with."""
    return Path(__file__).parents[1] / "weights" / "mobilenet-dsc.safetensors"
