"""Rebuilds the golden weights and inputs of tests/data/deblurganv2 from their rule."""

import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.helpers import places

DATA = Path(__file__).parent / "data" / "deblurganv2"
SHARED = places.SHARED / "fixtures" / "deblurganv2"


def fixture(name: str) -> dict:
    return json.loads((DATA / f"{name}_fixture.json").read_text())


def image(seed: int, shape: list[int]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def fill_tensor(key: str, t: Tensor, gain: float) -> None:
    g = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        t.fill_(1)
    elif key.endswith("running_var"):
        t.copy_(1 + 0.1 * torch.rand(t.shape, generator=g))
    elif key.endswith((".bias", ".running_mean")):
        t.copy_(0.1 * torch.randn(t.shape, generator=g))
    elif key.endswith(".weight") and t.dim() == 1:
        t.copy_(1 + 0.1 * torch.randn(t.shape, generator=g))
    else:
        assert key.endswith(".weight"), key
        t.copy_(torch.randn(t.shape, generator=g) * (gain / math.sqrt(t[0].numel())))


@torch.no_grad()
def fill(model: nn.Module, gain: float, aliases: list[list[str]] = (), prefix: str = "module.") -> nn.Module:
    canonical = {key: min(group) for group in aliases for key in group}
    for key, t in model.state_dict().items():
        fill_tensor(canonical.get(prefix + key, prefix + key), t, gain)
    return model


def grad_norm(tensors) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors if t is not None))
