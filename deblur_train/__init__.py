"""Shards in, models out: a lean, exact and resumable trainer for DeblurGAN-v2.

>>> from deblur_train import build_generator, load_generator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deblur_train.data.stream import CropStream
    from deblur_train.evaluation.evaluate import evaluate
    from deblur_train.exporting.export import export
    from deblur_train.models.checkpoint import CheckpointError, load_generator
    from deblur_train.models.generator import build_generator
    from deblur_train.prediction.predict import predict
    from deblur_train.training.fit import fit

_HOMES = {
    "CheckpointError": "deblur_train.models.checkpoint",
    "CropStream": "deblur_train.data.stream",
    "build_generator": "deblur_train.models.generator",
    "evaluate": "deblur_train.evaluation.evaluate",
    "export": "deblur_train.exporting.export",
    "fit": "deblur_train.training.fit",
    "load_generator": "deblur_train.models.checkpoint",
    "predict": "deblur_train.prediction.predict",
}

__all__ = [
    "CheckpointError",
    "CropStream",
    "build_generator",
    "evaluate",
    "export",
    "fit",
    "load_generator",
    "predict",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``deblur-train --help`` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'deblur_train' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
