"""The shard contract: how samples lie on disk, and how any program reads them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blursynth.shards.webdataset import webdataset_pairs

__all__ = ["webdataset_pairs"]


def __getattr__(name: str) -> Any:
    """Import on first use: webdataset must not slow down whoever reads a sidecar."""
    if name not in __all__:
        raise AttributeError(f"module 'blursynth.shards' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("blursynth.shards.webdataset"), name)
    return value
