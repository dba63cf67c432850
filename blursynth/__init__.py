"""Blursynth: realistic motion blur from high-frame-rate video."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.1"

if TYPE_CHECKING:
    from blursynth.checks.audit import audit_source as audit
    from blursynth.checks.explain import explain
    from blursynth.checks.verify import verify
    from blursynth.exchange.match import match
    from blursynth.exchange.pack import pack
    from blursynth.exchange.unpack import unpack
    from blursynth.pairs.synthesis import integrate_exposure
    from blursynth.preview.inspect import inspect
    from blursynth.recipe import Recipe
    from blursynth.run.make import make
    from blursynth.sources.find import find_clips

_HOMES = {
    "Recipe": ("blursynth.recipe", "Recipe"),
    "audit": ("blursynth.checks.audit", "audit_source"),
    "explain": ("blursynth.checks.explain", "explain"),
    "find_clips": ("blursynth.sources.find", "find_clips"),
    "inspect": ("blursynth.preview.inspect", "inspect"),
    "integrate_exposure": ("blursynth.pairs.synthesis", "integrate_exposure"),
    "make": ("blursynth.run.make", "make"),
    "match": ("blursynth.exchange.match", "match"),
    "pack": ("blursynth.exchange.pack", "pack"),
    "unpack": ("blursynth.exchange.unpack", "unpack"),
    "verify": ("blursynth.checks.verify", "verify"),
}

__all__ = [
    "Recipe",
    "__version__",
    "audit",
    "explain",
    "find_clips",
    "inspect",
    "integrate_exposure",
    "make",
    "match",
    "pack",
    "unpack",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``blursynth --help`` must not wait for OpenCV and numba."""
    if name not in _HOMES:
        raise AttributeError(f"module 'blursynth' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return __all__
