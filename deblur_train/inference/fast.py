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

PROBE = 64  # side of the test picture


def fastest(folded: Generator) -> Model:
    """What gives the same as ``folded`` (norms folded, in eval mode, where it is to run), to 1e-5.

    Rewritten for CPUs: the mobilenet FPNs with tracked statistics and NAFNet with the whole image's. The rest runs as it
    is, channels last; so does a network whose rewritten form gives something else on a test picture: weights that overflow
    (fused activations would hide the NaN), or a torch whose operations are not the known ones.
    """
    plain: Any = folded
    plain = plain.to(memory_format=torch.channels_last)
    fast = _rewritten(folded)
    return fast if fast is not None and _agree(fast, plain) else plain


def _rewritten(folded: Generator) -> Model | None:
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
    return None


@torch.inference_mode()
def _agree(fast: Model, plain: Model) -> bool:
    noise = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise[..., : PROBE // 4], noise[..., -PROBE // 4 :] = -1, 1  # black, noise, white
    x = noise.contiguous(memory_format=torch.channels_last)
    try:
        return bool((fast(x) - plain(x)).abs().max() < 1e-4)  # not so for NaN
    except (RuntimeError, TypeError, AttributeError):
        return False


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
