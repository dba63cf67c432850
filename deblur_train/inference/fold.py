"""A generator for inference alone: tracked norms become part of the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from deblur_train.models.base import Generator
from deblur_train.models.norm import BatchNorm, InstanceNorm


def folded(generator: Generator) -> Generator:
    """A copy in eval mode that gives the same (to rounding) with fewer passes over memory; the original stays as it is.

    A norm with tracked statistics is a scale and a shift a channel, and so is folded into the convolution that feeds it.
    Norms that look at the image ("image", "local") stay.
    """
    net = copy.deepcopy(generator).eval()
    for row in [m for m in net.modules() if isinstance(m, nn.Sequential)]:
        for i in range(1, len(row)):
            before, norm = row[i - 1], row[i]
            conv = before[-1] if isinstance(before, nn.Sequential) and len(before) else before
            if (
                isinstance(norm, BatchNorm | InstanceNorm)
                and norm.stats == "tracked"
                and isinstance(conv, nn.Conv2d)
            ):
                _fold(conv, norm)
                row[i] = nn.Identity()
    return net


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: BatchNorm | InstanceNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * scale
    if isinstance(norm, BatchNorm):
        scale = scale * norm.weight
        shift = shift * norm.weight + norm.bias
    bias = torch.zeros_like(shift) if conv.bias is None else conv.bias.double()
    conv.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter((bias * scale + shift).to(conv.weight.dtype))
