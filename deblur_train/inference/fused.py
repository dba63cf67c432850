"""A convolution and what follows it in one pass over memory, and maps that are made strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

Act = Literal["none", "relu", "relu6"]
Source = Callable[[int, int], Tensor]
"""Rows ``[start, stop)`` of a map, ``(1, C, stop - start, W)``, made when they are asked for."""

STRIP = 16 << 20
"""Bytes a thread of the widest map of a strip: it stays in the third-level cache, and takes no memory."""
ACTS: dict[str, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}
# What torch.compile calls for a convolution with an activation or a sum behind it: oneDNN does both as it writes its
# result. Not a public name, so that a torch without it goes the plain way, which gives the same.
FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


class Conv:
    """A convolution of ``(1, C, H, W)`` float32 on a CPU, channels last, with bias and activation; square kernels."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        act: Act = "none",
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> None:
        self.weight = weight.detach().float().contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        self.act, self.stride, self.padding, self.groups = act, stride, padding, groups

    def __call__(self, x: Tensor, padding_rows: int | None = None) -> Tensor:
        """``padding_rows``: rows of zeros above and below, where not as many as columns at the sides."""
        pad = [self.padding if padding_rows is None else padding_rows, self.padding]
        if FUSED:
            name, numbers = ACTS[self.act]
            step = [self.stride, self.stride]
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, pad, step, [1, 1], self.groups, name, numbers, ""
            )
        return self._acted(conv2d(x, self.weight, self.bias, self.stride, pad, 1, self.groups))

    def onto(self, into: Tensor, x: Tensor) -> Tensor:
        """``into``, which becomes act(into + conv(x)) in place."""
        if FUSED and self.act != "relu6":
            pad, step = [self.padding] * 2, [self.stride] * 2
            act = None if self.act == "none" else self.act
            torch.ops.mkldnn._convolution_pointwise_.binary(
                into, x, self.weight, self.bias, pad, step, [1, 1], self.groups, "add", 1.0, act, [], None
            )
            return into
        return self._acted(
            into.add_(conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups))
        )

    def _acted(self, x: Tensor) -> Tensor:
        return x if self.act == "none" else x.relu_() if self.act == "relu" else x.clamp_(0, 6)

    def rows(self, source: Source, start: int, stop: int, height: int) -> Tensor:
        """Rows of what a padded 3x3 convolution makes of ``source``; ``height`` is that of its result."""
        s = self.stride
        at_top, at_end = start == 0, stop == height and s == 1
        x = source(max(0, s * start - 1), stop if at_end else s * (stop - 1) + 2)
        y = self(x, padding_rows=1 if at_top or at_end else 0)
        first = 0 if at_top or not at_end else 1
        return y[:, :, first : first + stop - start]

    def of(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Rows of what a 1x1 or a padded 3x3 convolution makes of the map ``x``."""
        if self.weight.shape[2] == 1:
            return self(x[:, :, start:stop])
        return self.rows(lambda a, b: x[:, :, a:b], start, stop, x.shape[2] // self.stride)


def conv_of(conv: nn.Module, act: Act = "none") -> Conv:
    assert isinstance(conv, nn.Conv2d)
    return Conv(conv.weight, conv.bias, act, conv.stride[0], int(conv.padding[0]), conv.groups)


def strips(height: int, row_bytes: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Rows [start, stop) that cover ``height`` in equal strips of about ``STRIP`` bytes a thread."""
    most = max(4, STRIP * torch.get_num_threads() // row_bytes)
    rows = -(-height // max(1, round(height / most)))
    rows = -(-rows // multiple) * multiple
    for start in range(0, height, rows):
        yield start, min(height, start + rows)


def empty(channels: int, height: int, width: int) -> Tensor:
    return torch.empty(1, channels, height, width, memory_format=torch.channels_last)


def pixels(x: Tensor) -> Tensor:
    """``(1, C, H, W)`` as a view ``(H, W, C)``."""
    return x[0].permute(1, 2, 0)


def as_map(x: Tensor) -> Tensor:
    """The inverse of :func:`pixels`."""
    return x.permute(2, 0, 1).unsqueeze(0)
