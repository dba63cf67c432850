"""Shards in, models out: a lean, exact and resumable trainer for DeblurGAN-v2.

>>> from deblur_train import build_generator, load_generator
"""

from .checkpoint import CheckpointError, load_generator
from .generator import build_generator

__all__ = ["CheckpointError", "build_generator", "load_generator"]
