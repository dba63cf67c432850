"""Blursynth: realistic motion blur from high-frame-rate video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Recipe", "integrate_exposure", "make"]

if TYPE_CHECKING:
    from blursynth.make import make
    from blursynth.recipe import Recipe
    from blursynth.synthesis import integrate_exposure


def __getattr__(name: str) -> Any:
    """Import on first use: `blursynth --help` must not wait for OpenCV and numba."""
    homes = {"Recipe": "recipe", "make": "make", "integrate_exposure": "synthesis"}
    if name not in homes:
        raise AttributeError(f"module 'blursynth' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"blursynth.{homes[name]}"), name)
    globals()[name] = value
    return value
