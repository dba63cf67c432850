"""The two discriminators: PatchGAN on 70-pixel patches and one that sees nearly the whole crop; raw logits, no sigmoid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from deblur_train.config import DiscriminatorNorm
from deblur_train.models.norm import BatchNorm, InstanceNorm, VirtualBatchNorm
from deblur_train.models.winograd import Conv4x4

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": InstanceNorm,
    "batch": BatchNorm,
    "virtual": VirtualBatchNorm,
    "none": lambda channels: nn.Identity(),
}
LAYERS = {"patch": 3, "full": 5}


class Discriminator(nn.Module):
    """``layers`` strided 4x4 convolutions and two more at stride 1: ``(N, 3, H, W)`` in [-1, 1] to ``(N, 1, h, w)`` logits.

    Key names as in the official code (``model.0.weight``...). Padding 2 everywhere, base width 64, LeakyReLU 0.2.
    """

    def __init__(
        self, layers: int, norm: DiscriminatorNorm = "instance", spectral: bool = False, width: int = 64
    ) -> None:
        super().__init__()
        wrap: Callable[[nn.Conv2d], nn.Module] = spectral_norm if spectral else lambda conv: conv
        bias = norm != "batch"  # a batch norm's own bias makes the convolution's idle
        modules: list[nn.Module] = [wrap(nn.Conv2d(3, width, 4, 2, 2)), nn.LeakyReLU(0.2, inplace=True)]
        before = width
        for i in range(1, layers + 1):
            after = width * min(2**i, 8)
            last = i == layers
            conv = Conv4x4(before, after, bias) if last else nn.Conv2d(before, after, 4, 2, 2, bias=bias)
            modules += [
                wrap(conv),
                NORMS[norm](after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            before = after
        modules.append(wrap(nn.Conv2d(before, 1, 4, 1, 2)))
        self.model = nn.Sequential(*modules)
        self.virtual = norm == "virtual"
        # Items of a batch do not change each other's logits, and a pass changes no weight: batches may be joined.
        self.independent = norm != "batch" and not spectral
        if self.virtual:
            self.register_buffer("reference", torch.zeros(0))

    def set_reference(self, images: Tensor) -> None:
        """Give a virtual batch norm discriminator its fixed reference batch, ``(R, 3, H, W)`` in [-1, 1]."""
        self.reference = images.detach().clone()

    @property
    def needs_reference(self) -> bool:
        return self.virtual and self.reference.numel() == 0

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        saved = state_dict.get(prefix + "reference")
        if self.virtual and saved is not None:
            self.reference = torch.empty_like(saved, device=self.reference.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        if not self.virtual:
            return self.model(x)
        n = self.reference.shape[0]
        for layer in self.model:
            if isinstance(layer, VirtualBatchNorm):
                layer.reference = n
        return self.model(torch.cat([self.reference.to(x.dtype), x]))[n:]


def build_discriminators(
    kind: str, norm: DiscriminatorNorm = "instance", spectral: bool = False, width: int = 64
) -> nn.ModuleDict:
    """``double``: patch and full; ``patch`` or ``full`` alone; ``off``: none."""
    names = {"double": ["patch", "full"], "patch": ["patch"], "full": ["full"], "off": []}[kind]
    return nn.ModuleDict({n: Discriminator(LAYERS[n], norm, spectral, width) for n in names})
