"""What every generator has in common: any size in and out, RGB in [-1, 1], and what training asks of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deblur_train.models.norm import BatchNorm, InstanceNorm, StatsChoice

STRIDE = 32  # the FPNs halve five times; crops and tiles keep to this grid


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend ``(N, C, H, W)`` at the bottom and the right by reflection, as often as it takes (H, W >= 1)."""
    h, w = x.shape[-2:]
    if height - h < h and width - w < w:
        return pad(x, (0, width - w, 0, height - h), mode="reflect")
    for dim, size in ((-2, height), (-1, width)):
        n = x.shape[dim]
        period = max(2 * n - 2, 1)
        i = torch.arange(size, device=x.device) % period
        x = x.index_select(dim, torch.minimum(i, period - i) if n > 1 else i * 0)
    return x


class Generator(nn.Module):
    """``(N, 3, H, W)`` float RGB in [-1, 1] to the same; any H, W >= 1 (extended to whole blocks, cropped back)."""

    backbone_name: str
    stride = STRIDE  # sides that ``restore`` takes are multiples of it
    smallest = STRIDE  # the smallest side that ``restore`` takes
    zero_padded = False  # extended by black as its training was, or by reflection

    def forward(self, x: Tensor) -> Tensor:
        return self.restore(self.extended(x))[..., : x.shape[-2], : x.shape[-1]]

    def extended(self, x: Tensor) -> Tensor:
        """``x`` with whole blocks at the bottom and the right, as ``restore`` takes it."""
        h, w = x.shape[-2:]
        height, width = (max(-(-n // self.stride) * self.stride, self.smallest) for n in (h, w))
        if (height, width) == (h, w):
            return x
        if self.zero_padded:
            return pad(x, (0, width - w, 0, height - h), value=-1.0)
        return reflect_to(x, height, width)

    def restore(self, x: Tensor) -> Tensor:
        """The network itself, for H and W that are multiples of ``stride`` (what an exporter should trace)."""
        raise NotImplementedError

    @property
    def pretrained(self) -> nn.Module | None:
        """The part that ImageNet weights exist for."""
        return None

    @property
    def last_convolution(self) -> nn.Conv2d:
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What a file's metadata say, so that this generator can be built again from them."""
        return {"backbone": self.backbone_name}

    def say_size(self, x: Tensor) -> None:
        """Tell layers with local statistics how large the image is that their maps come from."""
        for layer in self.modules():
            # Nobody else needs it, and a traced graph must not leave symbols behind in the layers.
            if isinstance(layer, StatsChoice) and layer.stats == "local":
                layer.image_size = (x.shape[-2], x.shape[-1])

    def freeze_backbone(self, frozen: bool) -> None:
        """Stop or resume training the pretrained parameters (its norm layers go on tracking statistics)."""
        if self.pretrained is not None:
            self.pretrained.requires_grad_(not frozen)

    def fix_norms(self, fixed: bool) -> None:
        """In training: normalise by the tracked statistics, which then stay, or by each batch's own.

        Statistics of a small crop tell the network what is in it, and inference on the tracked ones takes that away.
        Layers trained on with fixed statistics meet the same arithmetic in use (frozen batch norm against the
        inconsistency of training and test: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm").
        """
        for layer in self.modules():
            if isinstance(layer, InstanceNorm | BatchNorm):
                layer.train(not fixed)


def xavier_init(model: nn.Module, skip: nn.Module | None = None) -> None:
    """Xavier-normal weights and zero biases for every convolution outside ``skip`` (a pretrained backbone)."""
    skipped = set(skip.modules()) if skip is not None else set()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer not in skipped:
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_near_identity(generator: Generator, scale: float = 1e-2) -> None:
    """Shrink the last convolution so that the untrained generator gives its input back, nearly.

    Not zero: a zero last layer passes no gradient to the layers below in the first step.
    """
    last = generator.last_convolution
    with torch.no_grad():
        last.weight.mul_(scale)
        if last.bias is not None:
            last.bias.zero_()
