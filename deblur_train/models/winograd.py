"""4x4 convolutions by Winograd's minimal filtering: a quarter of the products, for training discriminators on CPUs.

Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks": m outputs of r taps take m + r - 1 products, so that
a block of 3x3 pixels takes 36 where there were 144. Values and gradients are the convolution's to rounding.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

M, TAPS = 3, 4  # pixels of a block and of the kernel, a side
N = M + TAPS - 1
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # and infinity: N in all
BLOCKS = 100  # from so many on it pays: 1.8 times as fast at 144, 0.8 times at 64, whatever the channels


def transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one dimension: data ``(N, N)``, weights ``(N, TAPS)``, results ``(M, N)``, float64.

    Toom and Cook: polynomials are multiplied by their values at N points; the transpose of that is the filter.
    """

    def values(count: int) -> np.ndarray:
        """Of a polynomial of ``count`` coefficients at the points; at infinity it is the last one."""
        return np.array([*([p**i for i in range(count)] for p in POINTS), [0.0] * (count - 1) + [1.0]])

    data = np.linalg.inv(values(N)).T
    scale = np.abs(data).max(1, keepdims=True)  # rows of like size round less
    return data / scale, values(TAPS) * scale, values(M).T


@cache
def _planes() -> list[Tensor]:
    """The transforms of both dimensions at once: ``(N * N, N * N)``, ``(N * N, TAPS * TAPS)``, ``(M * M, N * N)``."""
    return [torch.from_numpy(np.kron(m, m).astype(np.float32)) for m in transforms()]


class _Filter(torch.autograd.Function):
    """``(B, M * h + TAPS - 1, M * w + TAPS - 1, C)`` and ``(K, C, TAPS, TAPS)`` to ``(B, M * h, M * w, K)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        k, c = weight.shape[:2]
        data, kernel, result = _planes()
        tiles = x.unfold(1, N, M).unfold(2, N, M).permute(4, 5, 0, 1, 2, 3)
        batch, high, wide = tiles.shape[2:5]
        v = (data @ tiles.reshape(N * N, -1)).view(N * N, -1, c)
        u = (kernel @ weight.permute(2, 3, 1, 0).reshape(TAPS**2, -1)).view(N * N, c, k)
        ctx.save_for_backward(v, u)
        y = (result @ torch.bmm(v, u).view(N * N, -1)).view(M, M, batch, high, wide, k)
        return y.permute(2, 3, 0, 4, 1, 5).reshape(batch, M * high, M * wide, k)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        v, u = ctx.saved_tensors
        c, k = u.shape[1:]
        batch, high, wide = grad.shape[0], grad.shape[1] // M, grad.shape[2] // M
        data, kernel, result = _planes()
        blocks = grad.reshape(batch, high, M, wide, M, k).permute(2, 4, 0, 1, 3, 5).reshape(M * M, -1)
        products = (result.T @ blocks).view(N * N, -1, k)
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_u = torch.bmm(v.transpose(1, 2), products)
            of_weight = (kernel.T @ of_u.view(N * N, -1)).view(TAPS, TAPS, c, k).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[0]:
            of_v = torch.bmm(products, u.transpose(1, 2))
            of_tiles = (data.T @ of_v.view(N * N, -1)).view(N, N, batch, high, wide, c)
            of_x = grad.new_zeros(batch, M * high + TAPS - 1, M * wide + TAPS - 1, c)
            for i in range(N):
                for j in range(N):
                    of_x[:, i : i + M * high : M, j : j + M * wide : M] += of_tiles[i, j]
        return of_x, of_weight


class Conv4x4(nn.Conv2d):
    """A 4x4 convolution of stride 1 with 2 pixels of padding; on CPUs in float32 by minimal filtering where it pays."""

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, TAPS, padding=2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.shape[0] * x.shape[2] * x.shape[3] / M**2
        reduced = x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if x.device.type != "cpu" or reduced or blocks < BLOCKS or min(self.weight.shape[:2]) < 32:
            return super().forward(x)
        return self.filtered(x)

    def filtered(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] + 1, x.shape[3] + 1
        rows, columns = (-(-length // M) * M + TAPS - 1 for length in (height, width))  # whole blocks
        y = pad(x.permute(0, 2, 3, 1), (0, 0, 2, columns - x.shape[3] - 2, 2, rows - x.shape[2] - 2))
        y = _Filter.apply(y, self.weight)[:, :height, :width].permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)
