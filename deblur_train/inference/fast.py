"""The fastest way to run a generator that is here: on a CPU rewritten, elsewhere as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deblur_train.inference.fast_fpn import FastFPN
from deblur_train.inference.fast_nafnet import FastNAFNet
from deblur_train.inference.tiles import Model
from deblur_train.models.base import Generator
from deblur_train.models.generator import FPNGenerator
from deblur_train.models.nafnet import NAFNet, SpatialMean
from deblur_train.models.norm import BatchNorm, InstanceNorm


def fastest(folded: Generator) -> Model:
    """What gives the same as ``folded`` (norms folded, in eval mode, where it is to run), to 1e-5.

    Rewritten for CPUs: the mobilenet FPNs with tracked statistics and NAFNet with the whole image's. The rest runs as it
    is, channels last.
    """
    layers = list(folded.modules())
    parameter = next(folded.parameters())
    if parameter.device.type == "cpu" and parameter.dtype == torch.float32:
        if isinstance(folded, NAFNet):
            local = any(isinstance(m, SpatialMean) and m.stats == "local" for m in layers)
            if not local:
                return Fast(folded, FastNAFNet(folded))
        elif isinstance(folded, FPNGenerator) and folded.backbone_name != "inception":
            whole = any(isinstance(m, BatchNorm | InstanceNorm) for m in layers)
            if not whole:
                return Fast(folded, FastFPN(folded))
    plain: Any = folded
    return plain.to(memory_format=torch.channels_last)


class Fast:
    """Any size and any number of images through a ``restore`` that takes one in whole blocks."""

    def __init__(self, generator: Generator, restore: Model) -> None:
        self.generator, self.restore = generator, restore

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        whole = self.generator.extended(x)
        one = [self.restore(i.contiguous(memory_format=torch.channels_last)) for i in whole.split(1)]
        return (one[0] if len(one) == 1 else torch.cat(one))[..., :h, :w]
